"""Members of a JSON file: what is named changes, and everything else stays as it is, to the byte."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest
from local_host import PRESENT, LocalHost

from runbook.errors import StepFailed
from runbook.remote import steps
from runbook.remote.json_file import JsonMembers
from runbook.remote.steps import sha256

PATH = "/etc/docker/daemon.json"
REGISTRY = "198.51.100.11:8600"

# as an operator writes it: an order of his own, two on one line, a list on one line
FOUND = """\
{
    "storage-driver": "overlay",  "debug": false,
    "insecure-registries": ["10.1.1.1:5000"],

    "log-opts": {"max-size": "10m", "max-file": "3"}
}
"""


def state(content: str | None) -> str:
    if content is None:
        return "kind=absent\n"
    data = content.encode()
    encoded = base64.b64encode(data).decode()
    return (
        "kind=file\nmode=644\nowner=root\ngroup=root\nuid=0\ngid=0\n"
        f"size={len(data)}\nsha256={sha256(data)}\ncontent={encoded}\n"
    )


def edited(step: JsonMembers, content: str | None) -> str | None:
    """The content that the step wants in the place of this one; None where it is well."""
    change = step.plan(state(content))
    if change is None:
        return None
    assert change.content is not None
    after = change.content.decode()
    assert step.plan(state(after)) is None  # a second run changes nothing
    return after


def test_an_element_is_added_and_the_rest_of_the_text_stays() -> None:
    after = edited(JsonMembers(PATH, included={"insecure-registries": [REGISTRY]}), FOUND)
    assert after == FOUND.replace('["10.1.1.1:5000"]', f'["10.1.1.1:5000", "{REGISTRY}"]')


def test_a_new_member_comes_last_and_is_indented_as_the_others() -> None:
    found = FOUND.replace('    "insecure-registries": ["10.1.1.1:5000"],\n', "")
    after = edited(JsonMembers(PATH, included={"insecure-registries": [REGISTRY]}), found)
    assert after is not None
    assert after.startswith(found.rpartition("\n}")[0])
    assert after.endswith(f',\n    "insecure-registries": [\n        "{REGISTRY}"\n    ]\n}}\n')


@pytest.mark.parametrize("found", [None, "", " \n", "{}", "{ }\n"])
def test_where_there_is_nothing_the_file_holds_what_is_named(found: str | None) -> None:
    after = edited(JsonMembers(PATH, {"live-restore": True}), found)
    assert after is not None
    assert json.loads(after) == {"live-restore": True}


def test_objects_are_merged_others_replaced_and_none_removes() -> None:
    after = edited(JsonMembers(PATH, {"log-opts": {"max-size": "50m"}, "debug": True, "storage-driver": None}), FOUND)
    assert after is not None
    assert json.loads(after) == {
        "debug": True,
        "insecure-registries": ["10.1.1.1:5000"],
        "log-opts": {"max-size": "50m", "max-file": "3"},
    }
    assert list(json.loads(after)) == ["debug", "insecure-registries", "log-opts"]
    assert '"insecure-registries": ["10.1.1.1:5000"],\n\n' in after


@pytest.mark.parametrize("name", ["storage-driver", "insecure-registries", "log-opts"])
def test_a_member_goes_wherever_it_stands(name: str) -> None:
    after = edited(JsonMembers(PATH, {name: None}), FOUND)
    assert after is not None
    assert name not in json.loads(after)
    assert len(json.loads(after)) == 3


def test_the_only_member_goes() -> None:
    assert edited(JsonMembers(PATH, {"debug": None}), '{\n  "debug": true\n}\n') == "{\n}\n"


def test_an_excluded_element_goes_and_an_emptied_list_stays() -> None:
    step = JsonMembers(PATH, excluded={"insecure-registries": ["10.1.1.1:5000"]})
    assert edited(step, FOUND) == FOUND.replace('["10.1.1.1:5000"]', "[]")


@pytest.mark.parametrize("found", [None, "", '{"debug": true}', FOUND])
def test_what_is_well_is_left_alone(found: str | None) -> None:
    assert edited(JsonMembers(PATH, {"nothing": None}, excluded={"insecure-registries": [REGISTRY]}), found) is None


def test_true_is_not_one() -> None:
    assert edited(JsonMembers(PATH, {"debug": True}), '{"debug": 1}\n') == '{"debug": true}\n'


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        ('{"debug": true,\n "x": }\n', "line 2: is not JSON: Expecting value"),
        ('{"debug": true\n "x": 1}\n', "line 2: is not JSON: a comma and another member, or the end, is expected"),
        ('{\n"debug": true,\n}\n', "line 3: is not JSON: a comma and another member"),
        ('{"debug": true}\n{}\n', "line 2: is not JSON: something follows"),
        ('["debug"]\n', "line 1: does not hold a JSON object"),
        ('{"debug" true}', "line 1: a colon is expected"),
        ("{debug: true}", "line 1: is not JSON"),
        ("{1: true}", "line 1: a name in double quotes is expected"),
        ('{"debug": true,\n"debug": false}', "line 2: debug is given a second time"),
        ('{"debug": true', "line 1: is not JSON"),
        ('{\n"insecure-registries": "a"}', "line 2: insecure-registries is not a list"),
        ("# a comment\n{}", "line 1: does not hold"),
    ],
)
def test_a_file_that_is_no_json_object_is_refused_with_its_line(found: str, reason: str) -> None:
    step = JsonMembers(PATH, included={"insecure-registries": [REGISTRY]})
    with pytest.raises(StepFailed, match=f"^{PATH}, {reason}") as refused:
        step.plan(state(found))
    assert refused.value.remedy == "correct it by hand: nothing was touched"


def test_bytes_that_are_no_text_are_refused() -> None:
    encoded = base64.b64encode(b'{\n"a": "\xff"}').decode()
    broken = f"kind=file\nsize=11\nsha256={'0' * 64}\ncontent={encoded}\n"
    with pytest.raises(StepFailed, match="line 2: is not UTF-8 text"):
        JsonMembers(PATH, {"a": 1}).plan(broken)


def test_a_member_is_given_whole_or_by_its_elements() -> None:
    with pytest.raises(ValueError, match="'a' is given both"):
        JsonMembers(PATH, {"a": 1}, included={"a": [1]})


@pytest.mark.parametrize("shell", PRESENT)
def test_on_a_host_it_keeps_mode_and_backup_and_makes_the_folder(
    shell: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steps, "STATE_DIR", str(tmp_path / "state"))
    host = LocalHost(shell, tmp_path / "state")
    file = tmp_path / "docker" / "daemon.json"
    step = JsonMembers(str(file), included={"insecure-registries": [REGISTRY]})
    file.parent.mkdir()
    file.write_text(FOUND)
    file.chmod(0o600)

    change = host.apply(step)

    assert change is not None
    assert json.loads(file.read_text())["insecure-registries"] == ["10.1.1.1:5000", REGISTRY]
    assert file.stat().st_mode & 0o777 == 0o600
    assert (tmp_path / f"state/backup/record{file}").read_text() == FOUND
    assert host.leftovers() == []

    other = host.plan(JsonMembers(str(file), {"debug": True}))
    assert other is not None
    file.write_text("{}")
    frame = host.make(JsonMembers(str(file), {"debug": True}), other)
    assert frame.status == 1
    assert "changed by somebody else" in frame.err
    assert file.read_text() == "{}"


def test_where_there_is_no_folder_it_is_made(tmp_path: Path) -> None:
    script = JsonMembers("/etc/docker/daemon.json", {"debug": True})
    change = script.plan(state(None))
    assert change is not None
    assert script.script(change).startswith("mkdir -p /etc/docker || exit 1\n")
