"""Records: what they say, and that an alteration anywhere in the folder is told."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import nbformat
import pytest

from runbook.errors import RecordError
from runbook.remote.modes import Mode
from runbook.rollout import record
from runbook.rollout.journal import Fault, digest
from runbook.site import Site

SITE = """
name: rehearsal
hosts:
  - {name: node1, address: 198.51.100.11, roles: [zookeeper]}
  - {name: node2, address: 198.51.100.12, roles: [docker]}
zookeeper: {allow_even: true}
mysql: {root_password: "env:REHEARSAL_SECRET"}
"""
DIFF = "--- /etc/conf\n+++ /etc/conf\n@@ -3,3 +3,3 @@\n a\n-b\n+c\n d\n"


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site.parse(SITE, tmp_path / "site.yml")


def step(host: str, status: str, name: str = "file /etc/conf", diff: str = "") -> dict[str, object]:
    event = {"event": "step", "chapter": "01", "section": "1.1", "host": host, "step": name}
    return {**event, "status": status, "summary": "content", "diff": diff, "seconds": 0.1}


def tell(folder: Path, *events: dict[str, object]) -> None:
    with record.journal_of(folder) as file:
        for event in events:
            file.append(event)


def begun(outputs: Path, site: Site, *events: dict[str, object], mode: Mode = Mode.APPLY) -> Path:
    folder = record.begin(outputs, site, mode)
    at = {"chapter": "01", "section": "1.1"}
    tell(
        folder,
        {"event": "chapter_started", "chapter": "01", "section": None, "title": "ZooKeeper", "mode": mode},
        {"event": "section_started", **at, "title": "Connection string"},
        *events,
        {
            "event": "section_finished",
            **at,
            "title": "Connection string",
            "outcome": "changed",
            "error": None,
            "seconds": 1,
        },
        {
            "event": "chapter_finished",
            "chapter": "01",
            "section": None,
            "mode": mode,
            "outcome": "changed",
            "seconds": 2,
        },
    )
    return folder


@pytest.fixture
def closed(tmp_path: Path, site: Site) -> Path:
    """A closed record with every kind of file in it."""
    at = {"chapter": "01", "section": "1.1"}
    folder = begun(
        tmp_path / "outputs",
        site,
        step("node1", "changed", diff=DIFF),
        step("node1", "ok", name="service zookeeper"),
        step("node2", "unreachable"),
        step("node2", "skipped", name="service zookeeper"),
        {"event": "check", **at, "name": "one leader", "holds": True, "evidence": "node1 leads", "seconds": 0.2},
        {"event": "gate", **at, "name": "restart", "question": "?", "answer": "approved", "by": "--yes"},
        {"event": "versions", "chapter": "01", "section": None, "host": "node1", "versions": {"zookeeper": "3.4.6"}},
    )
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# ZooKeeper", id="first")])
    nbformat.write(notebook, folder / "01_zookeeper.ipynb")
    record.close(folder)
    return folder


def test_the_top_of_record_json_is_the_outcome_and_the_counts(closed: Path) -> None:
    content = json.loads((closed / record.RECORD).read_text())
    assert list(content)[:7] == ["outcome", "changed", "ok", "failed", "would_change", "skipped", "checks"]
    assert [content[name] for name in list(content)[:7]] == ["changed", 1, 1, 1, 0, 1, 1]


def test_record_json_tells_who_did_what_where(closed: Path) -> None:
    content = json.loads((closed / record.RECORD).read_text())
    assert content["site"] == "rehearsal"
    assert content["mode"] == "apply"
    assert content["record"] == closed.name
    assert content["operator"] == record.operator()
    assert content["hosts"] == {
        "node1": {"address": "198.51.100.11", "versions": {"zookeeper": "3.4.6"}},
        "node2": {"address": "198.51.100.12", "versions": {}},
    }
    (chapter,) = content["chapters"]
    assert (chapter["number"], chapter["title"], chapter["outcome"]) == ("01", "ZooKeeper", "changed")
    (section,) = chapter["sections"]
    assert section["steps"][0] == {"host": "node1", "step": "file /etc/conf", "status": "changed", "summary": "content"}
    assert section["checks"] == [{"name": "one leader", "holds": True}]
    assert section["gates"] == [{"name": "restart", "answer": "approved", "by": "--yes"}]


def test_record_json_holds_the_hash_of_every_other_file(closed: Path) -> None:
    content = json.loads((closed / record.RECORD).read_text())
    names = {"01_zookeeper.ipynb", "journal.jsonl", "report.html"}
    assert content["files"] == {name: digest((closed / name).read_bytes()) for name in names}
    assert {path.name for path in closed.iterdir()} == names | {record.RECORD, record.SEAL}


def test_the_seal_is_what_sha256sum_reads(closed: Path) -> None:
    checked = subprocess.run(
        ["sha256sum", "--check", record.SEAL], cwd=closed, capture_output=True, text=True, check=False
    )
    assert (checked.returncode, checked.stdout) == (0, "record.json: OK\n")


def test_parameters_are_recorded_with_secrets_as_references(tmp_path: Path, site: Site) -> None:
    folder = record.begin(tmp_path / "outputs", site, Mode.PLAN)
    record.close(folder)
    content = json.loads((folder / record.RECORD).read_text())
    assert content["parameters"]["mysql"]["root_password"] == "env:REHEARSAL_SECRET"


def test_a_record_is_as_it_was_written(closed: Path) -> None:
    assert record.verify(closed) == record.Verified(closed, ())


def test_a_closed_record_is_not_closed_again(closed: Path) -> None:
    with pytest.raises(RecordError, match="is closed already"):
        record.close(closed)


def test_a_record_is_not_begun_over_another(tmp_path: Path, site: Site) -> None:
    record.begin(tmp_path, site, Mode.PLAN, "one")
    with pytest.raises(RecordError, match="cannot make the record's folder: File exists"):
        record.begin(tmp_path, site, Mode.PLAN, "one")


def test_names_sort_by_time_and_carry_the_site() -> None:
    names = [record.new_name("lab") for _ in range(3)]
    assert [name.split("-")[:2] for name in sorted(names)] == [[name.split("-")[0], "lab"] for name in names]
    assert len(set(names)) == 3


@pytest.mark.parametrize("name", ["01_zookeeper.ipynb", "journal.jsonl", "record.json", "record.sha256", "report.html"])
def test_an_altered_byte_in_any_file_is_told_with_the_file(closed: Path, name: str) -> None:
    path = closed / name
    whole = path.read_bytes()
    for at in range(0, len(whole), max(1, len(whole) // 60)):
        altered = bytearray(whole)
        altered[at] ^= 1
        path.write_bytes(altered)
        faults = record.verify(closed).faults
        named = {fault.file for fault in faults}
        assert named == {path} or (name == "record.sha256" and named == {closed / record.RECORD}), (at, faults)


def test_every_altered_byte_of_record_json_is_told(closed: Path) -> None:
    """However the altered text reads: as other JSON, as none, as another structure."""
    path = closed / record.RECORD
    whole = path.read_bytes()
    start, end = whole.index(b'"chapters"'), whole.index(b'"parameters"')
    for at in [*range(start), *range(start, end, 7), *range(whole.index(b'"format"'), len(whole))]:
        altered = bytearray(whole)
        altered[at] ^= 1
        path.write_bytes(altered)
        assert path in {fault.file for fault in record.verify(closed).faults}, at


def reseal(folder: Path) -> None:
    (folder / record.SEAL).write_text(f"{digest((folder / record.RECORD).read_bytes())}  {record.RECORD}\n")


def test_record_json_that_was_altered_and_sealed_again_is_told_with_its_line(closed: Path) -> None:
    path = closed / record.RECORD
    path.write_text(path.read_text().replace('"changed": 1', '"changed": 7'))
    reseal(closed)
    assert record.verify(closed).faults == (Fault(path, 3, 'altered: by the other files, this is "changed": 1,'),)


def test_a_file_that_was_removed_or_put_in_is_told(closed: Path) -> None:
    (closed / "report.html").unlink()
    (closed / "more.txt").write_text("more")
    assert record.verify(closed).faults == (
        Fault(closed / "report.html", 0, "removed"),
        Fault(closed / "more.txt", 0, "put in after the record was closed"),
    )


def test_a_removed_journal_is_told(closed: Path) -> None:
    (closed / "journal.jsonl").unlink()
    assert record.verify(closed).faults == (Fault(closed / "journal.jsonl", 0, "removed"),)


def test_a_removed_seal_is_told(closed: Path) -> None:
    (closed / record.SEAL).unlink()
    (fault,) = record.verify(closed).faults
    assert fault.file == closed / record.SEAL


def test_a_removed_record_json_is_told_by_the_journal_and_by_the_record_after_it(closed: Path, site: Site) -> None:
    later = begun(closed.parent, site)
    record.close(later)
    (closed / record.SEAL).unlink()
    (closed / record.RECORD).unlink()
    path = closed / "journal.jsonl"
    whole = path.read_text()
    path.write_text("".join(whole.splitlines(keepends=True)[:-1]))  # as if it had never been closed
    told = Fault(closed / record.RECORD, 0, f"removed after {later.name} was closed, which holds its hash")
    assert record.verify(closed) == record.Verified(closed, (told,))

    shutil.rmtree(later)
    path.write_text(whole)
    told = Fault(closed / record.RECORD, 0, "removed, or the rollout died while it closed the record")
    assert record.verify(closed) == record.Verified(closed, (told,))


def test_an_altered_line_of_the_journal_is_told_with_its_number(closed: Path) -> None:
    path = closed / "journal.jsonl"
    path.write_text(path.read_text().replace('"status": "skipped"', '"status": "ok"'))
    assert record.verify(closed).faults == (Fault(path, 7, "altered"),)


def test_a_journal_that_lost_its_end_is_told(closed: Path) -> None:
    path = closed / "journal.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:-2]))
    assert record.verify(closed).faults == (Fault(path, len(lines) - 2, "altered, or the lines after it were removed"),)


def test_a_record_carries_the_hash_of_the_one_closed_before(closed: Path, site: Site) -> None:
    second = begun(closed.parent, site)
    record.close(second)
    previous = json.loads((second / record.RECORD).read_text())["previous"]
    assert previous == {"record": closed.name, "sha256": digest((closed / record.RECORD).read_bytes())}


def test_a_record_made_anew_is_given_away_by_the_one_after_it(closed: Path, site: Site) -> None:
    second = begun(closed.parent, site)
    record.close(second)
    for name in (record.RECORD, record.SEAL, "report.html"):
        (closed / name).unlink()
    tell(closed, {"event": "note", "text": "all is well"})
    record.close(closed)  # hashes and all

    forged = closed / record.RECORD
    told = Fault(forged, 0, f"altered after {second.name} was closed, which holds its hash")
    assert record.verify(closed).faults == (told,)
    assert record.verify(second).faults == (told,)


def test_a_record_before_that_is_gone_is_a_note(closed: Path, site: Site) -> None:
    second = begun(closed.parent, site)
    record.close(second)
    shutil.rmtree(closed)
    verified = record.verify(second)
    assert verified.faults == ()
    assert verified.notes == (f"{second.name}: the record before it, {closed.name}, is not here and was not looked at",)


def test_a_record_that_was_never_closed_is_a_note(tmp_path: Path, site: Site) -> None:
    folder = begun(tmp_path, site)
    verified = record.verify(folder)
    assert verified.faults == ()
    assert verified.notes == (f"{folder.name}: was never closed: only its journal can be verified",)


def test_what_is_no_record_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match=r"is no record: it has no journal\.jsonl"):
        record.verify(tmp_path)


def test_chapters_whose_end_nobody_told_died_and_those_with_a_failed_section_failed(tmp_path: Path, site: Site) -> None:
    folder = record.begin(tmp_path, site, Mode.APPLY)
    at = {"chapter": "01", "section": "1.1"}
    tell(
        folder,
        {"event": "chapter_started", "chapter": "01", "section": None, "title": "ZooKeeper", "mode": "apply"},
        {"event": "section_started", **at, "title": "Connection string"},
        {"event": "section_finished", **at, "title": "", "outcome": "failed", "error": "node1: no", "seconds": 1},
        {"event": "chapter_started", "chapter": "02", "section": None, "title": "Masters", "mode": "apply"},
        {"event": "section_started", "chapter": "02", "section": "2.1", "title": "Package"},
    )
    content = record.close(folder)
    assert [(chapter["outcome"], chapter["reason"]) for chapter in content["chapters"]] == [
        ("failed", "node1: no"),
        ("died", "it ended without its end being told"),
    ]
    assert content["chapters"][1]["sections"][0]["outcome"] == "died"
    assert content["outcome"] == "died"


def test_a_record_without_a_chapter_died(tmp_path: Path, site: Site) -> None:
    assert record.close(record.begin(tmp_path, site, Mode.APPLY))["outcome"] == "died"


def git(folder: Path, *command: str) -> None:
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    subprocess.run(["git", "-C", folder, *identity, *command], check=True, capture_output=True)


def test_the_source_is_the_commit_and_whether_anything_differs_from_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = tmp_path / "record.py"
    module.write_text("")
    monkeypatch.setattr(record, "__file__", str(module))
    assert record.source() == (None, None)  # not under git
    git(tmp_path, "init")
    assert record.source() == (None, None)  # in a repository by chance, as an installed package can be
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-m", "first")
    commit, dirty = record.source()
    assert commit is not None
    assert (len(commit), dirty) == (40, False)
    module.write_text("changed")
    assert record.source() == (commit, True)
