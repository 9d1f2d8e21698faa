"""Garbage of the registry: what its dry run prints, in the words of each version, and which order a collection has.

What 2.8.2 prints is recorded (tests/payloads/registry-2.8.2); 2.4's line of counts and 2.7's of manifests are those of
`registry/storage/garbagecollect.go` at these versions.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from registry_site import site

from runbook.errors import GateRefused, HostUnreachable, StepFailed
from runbook.remote.gates import Approval
from runbook.remote.hosts import Output
from runbook.remote.modes import Mode, Status
from runbook.services.registry import garbage
from runbook.services.registry.garbage import Collection, Garbage, read
from runbook.services.registry.manifests import DOCKER_LIST, DOCKER_MANIFEST, Descriptor, Manifest
from runbook.services.registry.tables import Survey, Tagged

A, B, C = ("a" * 64, "b" * 64, "c" * 64)

OLD = f"""\
lab/userland
lab/userland: marking manifest sha256:{C}
lab/userland: marking blob sha256:{C}

5 blobs marked, 2 blobs eligible for deletion
blob eligible for deletion: sha256:{A}
blob eligible for deletion: sha256:{B}
"""
NEW = f"""\
lab/userland
lab/userland: marking manifest sha256:{C}
manifest eligible for deletion: sha256:{C}

5 blobs marked, 2 blobs and 1 manifests eligible for deletion
blob eligible for deletion: sha256:{A}
blob eligible for deletion: sha256:{B}
"""


def printed(said: str, can: str = "collect untagged", status: int = 0, found: str = "", err: str = "") -> Output:
    head = (
        "folder=/opt/registry\nrunning=true\nversion=registry github.com/docker/distribution v2.8.2\n"
        f"can={can}\nstatus={status}\n"
    )
    return Output(f"{head}{found}printed\n{said}", err, 0)


FOUND = f"size=sha256:{A} 1000000\nsize=sha256:{B} 2500\nlink=sha256:{A} lab/userland\nlink=sha256:{A} team/app\n"


@pytest.mark.parametrize(("said", "manifests"), [(OLD, ()), (NEW, (f"sha256:{C}",))])
def test_a_dry_run_tells_blobs_bytes_and_repositories(said: str, manifests: tuple[str, ...]) -> None:
    found = read("node1", printed(said, found=FOUND), "registry", False)
    assert (found.blobs, found.bytes, found.marked, found.manifests) == (2, 1002500, 5, manifests)
    assert found.refused == ""
    frame = found.table.frame
    assert list(frame["digest"]) == [f"sha256:{A}", f"sha256:{B}"]  # the largest first
    assert list(frame["repositories"]) == ["lab/userland, team/app", ""]
    assert "2 blobs" in str(found)
    assert "1.0 MB" in str(found)


def test_the_recorded_dry_run_is_read() -> None:
    recorded = (Path(__file__).parents[1] / "payloads/registry-2.8.2/garbage-collect-dry-run.txt").read_text()
    found = read("node1", printed(recorded), "registry", False)
    assert (found.blobs, found.marked, found.manifests) == (3, 3, ())


def test_nothing_to_collect_says_so() -> None:
    found = read(
        "node1", printed("\n3 blobs marked, 0 blobs and 0 manifests eligible for deletion\n"), "registry", False
    )
    assert (found.blobs, str(found)) == (0, "no garbage: all 3 blobs are used")


def test_2_3_is_refused_with_the_reason() -> None:
    old = Output(
        "folder=/opt/registry\nrunning=true\nversion=/bin/registry github.com/docker/distribution v2.3.0\ncan=\n", "", 0
    )
    found = read("node1", old, "registry", False)
    assert found.refused == "registry v2.3.0 does not collect garbage: 2.4 is the first that does"
    assert "takes over what /opt/registry holds" in found.remedy
    assert str(found).startswith("no garbage can be collected: registry v2.3.0")


def test_manifests_without_a_tag_need_2_7() -> None:
    found = read("node1", printed("", can="collect"), "registry", True)
    assert "--delete-untagged came with 2.7" in found.refused


def test_a_container_that_does_not_run_is_named() -> None:
    with pytest.raises(StepFailed, match="the container registry does not run on node1"):
        read("node1", Output("folder=/opt/registry\nrunning=false\n", "", 0), "registry", False)


def test_a_host_that_does_not_answer_is_the_error() -> None:
    with pytest.raises(HostUnreachable):
        read("node1", Output(error=HostUnreachable("no route")), "registry", False)


def test_an_empty_registry_is_no_failure_and_a_failure_is_one() -> None:
    nothing = "failed to garbage collect: failed to mark: filesystem: Path not found: /docker/registry/v2/repositories"
    assert read("node1", printed("", status=1, err=nothing), "registry", False) == Garbage("node1")
    with pytest.raises(StepFailed, match="permission denied"):
        read("node1", printed("", status=1, err="failed: permission denied"), "registry", False)


@pytest.mark.parametrize("said", [OLD, NEW])
def test_the_collection_names_what_it_removes_and_is_done_once(said: str) -> None:
    step = Collection("registry")
    change = step.plan("\n".join(line for line in said.splitlines() if " eligible " in line))
    assert change is not None
    assert change.summary == "remove 2 blobs"
    assert f"-blob sha256:{A}\n" in change.diff
    assert step.plan("3 blobs marked, 0 blobs and 0 manifests eligible for deletion\n") is None
    assert "--delete-untagged" not in step.script(change)
    assert "--delete-untagged /etc/docker/registry/config.yml" in Collection("registry", untagged=True).script(change)


@pytest.mark.parametrize(("said", "more"), [(OLD, B), (NEW, C)])
def test_what_was_not_at_the_gate_is_not_collected(said: str, more: str) -> None:
    """Somebody deleted a tag, or pushed an index of images without tags, while the question stood."""
    state = "\n".join(line for line in said.splitlines() if " eligible " in line)
    digests = frozenset(f"sha256:{one}" for one in (A, B, C))
    assert Collection("registry", approved=digests).plan(state) is not None
    with pytest.raises(StepFailed, match=f"sha256:{more} became garbage since the gate was asked: nothing was coll"):
        Collection("registry", approved=digests - {f"sha256:{more}"}).plan(state)


@pytest.mark.parametrize(("listed", "refused"), [(C, True), ("d" * 64, False)])
def test_images_that_an_index_lists_are_no_garbage(monkeypatch: pytest.MonkeyPatch, listed: str, refused: bool) -> None:
    index = Manifest("app", DOCKER_LIST, f"sha256:{'e' * 64}", b"", manifests=(Descriptor("", f"sha256:{listed}", 1),))
    held = Survey(("app",), (Tagged("app", "all", index.digest, index),), 0.0)
    monkeypatch.setattr(garbage, "survey", lambda _: held)
    found = garbage._sparing(site(), read("node1", printed(NEW, found=FOUND), "registry", True))
    assert bool(found.refused) is refused
    assert not refused or found.refused == "it would delete what app:all consists of"


@pytest.mark.parametrize("needed", [A, B])
def test_blobs_that_a_tag_needs_are_no_garbage(monkeypatch: pytest.MonkeyPatch, needed: str) -> None:
    """distribution#4939: a dry run can name blobs of images that have a tag."""
    image = Manifest("app", DOCKER_MANIFEST, f"sha256:{C}", b"", layers=(Descriptor("", f"sha256:{needed}", 1),))
    held = Survey(("app",), (Tagged("app", "1", image.digest, image, (image,)),), 0.0)
    monkeypatch.setattr(garbage, "survey", lambda _: held)
    found = garbage._sparing(site(), read("node1", printed(OLD, found=FOUND), "registry", False))
    assert found.refused == "it would delete what app:1 consists of"


@pytest.mark.parametrize("unread", [True, False])
def test_nothing_is_collected_while_it_is_not_known_what_a_tag_needs(
    monkeypatch: pytest.MonkeyPatch, unread: bool
) -> None:
    tag = Tagged("app", "1", f"sha256:{'e' * 64}", problem="the answer is no manifest", unread=unread)
    monkeypatch.setattr(garbage, "survey", lambda _: Survey(("app",), (tag,), 0.0))
    found = garbage._sparing(site(), read("node1", printed(OLD, found=FOUND), "registry", False))
    refused = "could not determine what app:1 (the answer is no manifest) consists of"
    assert found.refused == (refused if unread else "")


def test_what_a_tag_needs_is_asked_for_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    layer, config, foreign = (Descriptor("", f"sha256:{digit * 64}", 1) for digit in "abd")
    image = Manifest("app", DOCKER_MANIFEST, f"sha256:{C}", b"", config, (layer, replace(foreign, urls=("http://x",))))
    held = Survey(("app",), (Tagged("app", "1", image.digest, image, (image,)),), 0.0)
    monkeypatch.setattr(garbage, "survey", lambda _: held)
    asked, lost = [], set[str]()

    class Answering:
        def __enter__(self) -> Answering:
            return self

        def __exit__(self, *_: object) -> None: ...

        def each(self, function: Any, items: Any) -> list[Any]:
            return list(map(function, items))

        def holds(self, repository: str, digest: str) -> bool:
            asked.append(digest)
            return digest not in lost

        def digest(self, repository: str, digest: str) -> str:
            asked.append(digest)
            return digest

    monkeypatch.setattr(garbage.Registry, "of", lambda _: Answering())
    needed = garbage._needed(site())
    assert sorted(asked) == [f"sha256:{one}" for one in (A, B, C)]
    assert garbage._all_there(site(), needed).holds
    lost.add(layer.digest)
    evidence = garbage._all_there(site(), needed)
    assert not evidence.holds
    assert evidence.text == f"1 of 3 are lost: app@sha256:{A}"
    assert garbage._all_there(site(), garbage._needed(site())).holds  # lost before, and so not by the collection


# the order of a collection


class Registry:
    """Stands for the registry's host: takes down which containers were applied, and can fail at one of them."""

    def __init__(self, fails_at: str = "") -> None:
        self.site = site()
        self.applied: list[str] = []
        self.fails_at = fails_at

    def apply(self, steps: list[object], name: str = "", deadline: float = 0) -> str:
        label = str(getattr(steps[0], "label", ""))
        self.applied.append(label)
        if label == self.fails_at:
            raise StepFailed(f"{label} failed")
        return label


@pytest.mark.parametrize("error", [StepFailed("collecting failed"), KeyboardInterrupt()])
def test_whatever_fails_in_between_the_registry_is_writable_again(error: BaseException) -> None:
    registry, parts = Registry(), []  # type: ignore[var-annotated]
    with pytest.raises(type(error)), garbage._read_only(registry, parts):  # type: ignore[arg-type]
        raise error
    assert registry.applied == ["container registry (read-only)", "container registry (writable)"]


def test_a_registry_that_did_not_become_read_only_is_made_writable_too() -> None:
    registry = Registry(fails_at="container registry (read-only)")
    with pytest.raises(StepFailed, match="read-only"), garbage._read_only(registry, []):  # type: ignore[arg-type]
        pytest.fail("nothing is collected then")
    assert registry.applied[-1] == "container registry (writable)"


def test_where_it_stays_read_only_that_is_said() -> None:
    registry = Registry(fails_at="container registry (writable)")
    with (
        pytest.raises(Exception, match="the registry may be read-only still") as failed,
        garbage._read_only(registry, []),  # type: ignore[arg-type]
    ):
        pass
    assert "run 7.3" in str(failed.value)


@pytest.mark.parametrize(
    ("mode", "status", "summary"),
    [
        (Mode.PLAN, Status.WOULD_CHANGE, "free 1.0 MB"),
        (Mode.VERIFY, Status.OK, "garbage: 2 blobs, 1.0 MB; 5 blobs stay"),
    ],
)
def test_without_apply_it_is_only_told_and_garbage_is_no_drift(
    monkeypatch: pytest.MonkeyPatch, mode: Mode, status: Status, summary: str
) -> None:
    class Hosts(Registry):
        def having(self, role: str) -> Registry:
            return self

    hosts = Hosts()
    hosts.mode = mode  # type: ignore[attr-defined]
    found = read("node1", printed(OLD, found=FOUND), "registry", False)
    monkeypatch.setattr(garbage, "dry_run", lambda *_, **__: found)
    (row,) = garbage.collect(hosts).results  # type: ignore[arg-type]
    assert (row.host, row.status, row.summary) == ("node1", status, summary)
    assert hosts.applied == []


INSPECTED: dict[str, Any] = {
    "Id": "c0ffee",
    "Name": "/registry",
    "Image": "sha256:1",
    "Config": {
        "Image": "registry:2.3.0",
        "Env": ["REGISTRY_STORAGE_DELETE_ENABLED=true"],
        "Cmd": ["/etc/docker/registry/config.yml"],
    },
    "HostConfig": {
        "RestartPolicy": {"Name": "always"},
        "PortBindings": {"5000/tcp": [{"HostPort": "8600"}]},
        "Binds": ["/opt/registry:/var/lib/registry"],
    },
    "State": {"Running": True},
}


class Collecting(Registry):
    """Stands for it in apply mode: its container is bound to this folder."""

    mode = Mode.APPLY

    def __init__(self, yes: bool, bound: str = "/opt/registry") -> None:
        super().__init__()
        self.approval = Approval(yes)
        self.inspected = {
            **INSPECTED,
            "HostConfig": {**INSPECTED["HostConfig"], "Binds": [f"{bound}:/var/lib/registry"]},
        }

    def having(self, role: str) -> Registry:
        return self

    def run(self, script: str) -> dict[str, Output]:
        image = {"Cmd": ["/etc/docker/registry/config.yml"]}
        state = f"image=sha256:1 {json.dumps(image)}\ncontainer={json.dumps(self.inspected)}\n"
        return {"node1": Output(state, "", 0)}


@pytest.mark.parametrize(("bound", "differs"), [("/opt/registry", False), ("/srv/registry", True)])
def test_no_other_container_is_made_under_the_name_of_a_collection(
    monkeypatch: pytest.MonkeyPatch, bound: str, differs: bool
) -> None:
    """It is made anew twice: one that differs from the parameters would become theirs, past 7.3's gate."""
    hosts = Collecting(yes=False, bound=bound)
    found = read("node1", printed(OLD, found=FOUND), "registry", False)
    monkeypatch.setattr(garbage, "dry_run", lambda *_, **__: found)
    refusal, said = (StepFailed, "run 7.3 first") if differs else (GateRefused, "collect-garbage")
    with pytest.raises(refusal, match=said):
        garbage.collect(hosts)  # type: ignore[arg-type]
    assert hosts.applied == []


def test_an_index_that_was_pushed_while_the_question_stood_keeps_its_images(monkeypatch: pytest.MonkeyPatch) -> None:
    found = read("node1", printed(NEW, found=FOUND), "registry", True)
    monkeypatch.setattr(garbage, "dry_run", lambda *_, **__: found)
    monkeypatch.setattr(garbage, "_sparing", lambda _, found: replace(found, refused="it would delete the images"))
    hosts = Collecting(yes=True)
    with pytest.raises(StepFailed, match="it would delete the images"):
        garbage.collect(hosts, untagged=True)  # type: ignore[arg-type]
    assert hosts.applied == ["container registry (read-only)", "container registry (writable)"]


def test_the_dry_run_s_question_holds_no_folder_unquoted(tmp_path: Path) -> None:
    script = garbage._dry_run(site(", data_dir: /opt/regis~try"), True)
    assert "cd '/opt/regis~try'/docker/registry/v2" in script
    assert "--dry-run --delete-untagged /etc/docker/registry/config.yml" in script
