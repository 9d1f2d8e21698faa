"""What a notebook opens: sections whose outcomes follow from what happened, told to a journal."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from runbook import events
from runbook.chapter import Chapter as Base
from runbook.errors import (
    ApplyFailed,
    ChapterFailed,
    CheckFailed,
    DriftFound,
    LockHeld,
    ParameterError,
    RecordError,
)
from runbook.outcomes import Outcome
from runbook.rollout import journal, record
from runbook.rollout.journal import Entry
from runbook.rollout.lock import Holder, SiteLock, holder_of
from runbook.site import Site

SITE = Path(__file__).parent / "notebooks" / "site.yml"


class Chapter(Base):
    number, title = "1", "Rehearsal"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(record.VARIABLE, raising=False)
    yield
    if Base._open is not None:
        Base._open.close()


@pytest.fixture
def shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A record's folder that a rollout has begun, which holds the lock."""
    monkeypatch.setenv(record.VARIABLE, str(tmp_path))
    with SiteLock(Site.load(SITE), Holder.here(tmp_path.name)) as held:
        for name, value in held.environment().items():
            monkeypatch.setenv(name, value)
        yield tmp_path


def told(folder: Path, *names: str) -> list[Entry]:
    return [entry for entry in journal.read(folder / journal.NAME) if not names or entry["event"] in names]


def step(status: str, host: str = "node1", diff: str = "") -> None:
    events.emit(
        event="step", host=host, step="file /etc/conf", status=status, summary="content", diff=diff, seconds=0.1
    )


def check(holds: bool, tried: bool = True) -> None:
    events.emit(event="check", name="one leader", holds=holds, tried=tried, evidence="none", seconds=0.1)


def test_what_happens_in_a_section_is_told_with_chapter_and_section(shared: Path) -> None:
    chapter = Chapter(SITE, "apply")
    with chapter.section("1.1", "Connection string"):
        step("changed")
        check(True)
    chapter.finish()
    assert [(entry["event"], entry["chapter"], entry["section"]) for entry in told(shared)] == [
        ("chapter_started", "1", None),
        ("section_started", "1", "1.1"),
        ("step", "1", "1.1"),
        ("check", "1", "1.1"),
        ("section_finished", "1", "1.1"),
        ("chapter_finished", "1", None),
    ]
    assert [entry["outcome"] for entry in told(shared, "section_finished", "chapter_finished")] == ["changed"] * 2
    assert journal.verify(shared / journal.NAME) == []


def test_events_of_other_threads_belong_to_the_running_section(shared: Path) -> None:
    chapter = Chapter(SITE, "apply")
    with chapter.section("1.1", "Connection string"):
        threads = [threading.Thread(target=step, args=("ok", f"node{number}")) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert {(entry["host"], entry["section"]) for entry in told(shared, "step")} == {
        (f"node{number}", "1.1") for number in range(8)
    }


def test_progress_is_not_journalled(shared: Path) -> None:
    chapter = Chapter(SITE, "apply")
    with chapter.section("1.1", "Connection string"):
        events.emit(event="progress", host="node1", step="upload", done=1, total=2)
    assert told(shared, "progress") == []


def test_an_error_fails_its_section_and_goes_on_to_the_notebook(shared: Path) -> None:
    chapter = Chapter(SITE, "apply")
    with pytest.raises(ApplyFailed, match="node1 said no"), chapter.section("1.1", "Connection string"):
        raise ApplyFailed("node1 said no", "ask node1")
    (finished,) = told(shared, "section_finished")
    assert (finished["outcome"], finished["error"]) == ("failed", "node1 said no\n  remedy: ask node1")
    with pytest.raises(ChapterFailed, match=r"section 1\.1: node1 said no") as failed:
        chapter.finish()
    assert failed.value.result.outcome is Outcome.FAILED  # type: ignore[attr-defined]
    assert told(shared, "chapter_finished")[0]["outcome"] == "failed"


def test_a_section_that_is_run_again_counts_as_it_ended_last(shared: Path) -> None:
    chapter = Chapter(SITE, "apply")
    with pytest.raises(ApplyFailed), chapter.section("1.1", "Connection string"):
        raise ApplyFailed("node1 said no")
    with chapter.section("1.1", "Connection string"):
        step("changed")
    assert chapter.finish().outcome is Outcome.CHANGED


def test_verify_goes_through_the_whole_chapter_and_then_raises(shared: Path) -> None:
    chapter = Chapter(SITE, "verify")
    with chapter.section("1.1", "Connection string"):
        step("would change", diff="--- a\n+++ b\n@@ -3 +3 @@\n-x\n+y\n")
    with chapter.section("1.2", "Start"):
        raise DriftFound("node2: runs another version")
    with chapter.section("1.3", "State"):
        step("ok")
    with pytest.raises(DriftFound) as drift:
        chapter.finish()
    assert [entry["outcome"] for entry in told(shared, "section_finished")] == ["drift", "drift", "ok"]
    assert told(shared, "chapter_finished")[0]["outcome"] == "drift"
    assert "node1: file /etc/conf:3: content\nnode2: runs another version" in str(drift.value)
    assert [row[2] for row in drift.value.result.rows()] == ["drift", "drift", "ok"]  # type: ignore[attr-defined]


@pytest.mark.parametrize("mode", ["plan", "verify"])
def test_a_section_that_fails_keeps_no_other_from_being_looked_at(
    shared: Path, capsys: pytest.CaptureFixture[str], mode: str
) -> None:
    chapter = Chapter(SITE, mode)
    with chapter.section("1.1", "Connection string"):
        step("failed")
        raise ApplyFailed("node1 said no", "ask node1", result="what all hosts did")
    with chapter.section("1.2", "Start"):
        raise KeyError("probe-1")
    with chapter.section("1.3", "State"):
        raise CheckFailed("one leader: there are two")
    with chapter.section("1.4", "Logs"):
        step("would change")
    with chapter.section("1.5", "Diagnosis"):
        step("ok")
    with pytest.raises(ChapterFailed) as failed:
        chapter.finish()
    drift = "drift" if mode == "verify" else "would change"
    outcomes = ["failed", "failed", "failed", drift, "ok"]
    assert [entry["outcome"] for entry in told(shared, "section_finished")] == outcomes
    assert told(shared, "chapter_finished")[0]["outcome"] == "failed"
    assert failed.value.message.splitlines() == [
        "1 Rehearsal: failed",
        "section 1.1: node1: file /etc/conf: content",
        "section 1.2: 'probe-1'",
        "section 1.3: one leader: there are two",
        *(["section 1.4: differs: node1: file /etc/conf: content"] if mode == "verify" else []),
    ]
    shown = capsys.readouterr()
    assert "what all hosts did" in shown.out
    assert "section 1.1 failed: node1 said no\n  remedy: ask node1\n" in shown.err
    assert "section 1.3 failed: one leader: there are two\n" in shown.err
    assert "Traceback" in shown.err  # of the KeyError, which has no name
    assert shown.err.count("Traceback") == 1


@pytest.mark.parametrize("mode", ["plan", "apply", "verify"])
def test_a_journal_that_cannot_be_written_ends_the_chapter_in_every_mode(shared: Path, mode: str) -> None:
    chapter = Chapter(SITE, mode)
    with pytest.raises(RecordError), chapter.section("1.1", "Connection string"):
        raise RecordError("journal.jsonl: cannot write the journal: No space left on device")


@pytest.mark.parametrize("mode", ["plan", "verify"])
def test_a_chapter_is_left_at_once_where_it_is_interrupted(shared: Path, mode: str) -> None:
    chapter = Chapter(SITE, mode)
    with pytest.raises(KeyboardInterrupt), chapter.section("1.1", "Connection string"):
        raise KeyboardInterrupt


def test_a_plan_goes_through_the_whole_chapter(shared: Path) -> None:
    chapter = Chapter(SITE)
    with chapter.section("1.1", "Connection string"):
        step("would change")
        check(False)
    assert chapter.finish().outcome is Outcome.WOULD_CHANGE


def test_a_check_that_does_not_hold_fails_its_section_even_where_nothing_is_raised(shared: Path) -> None:
    chapter = Chapter(SITE, "verify")
    with chapter.section("1.1", "Connection string"):
        check(False)
    with pytest.raises(ChapterFailed, match=r"section 1\.1: one leader: none"):
        chapter.finish()


def test_what_differs_is_named_beside_what_failed_in_the_same_section(shared: Path) -> None:
    chapter = Chapter(SITE, "verify")
    with chapter.section("1.1", "Connection string"):
        step("would change")
        check(False)
    with chapter.section("1.2", "Start"):
        check(False)
        raise DriftFound("node2: runs another version")
    with pytest.raises(ChapterFailed) as failed:
        chapter.finish()
    assert failed.value.message.splitlines() == [
        "1 Rehearsal: failed",
        "section 1.1: one leader: none",
        "section 1.2: one leader: none",
        "section 1.1: differs: node1: file /etc/conf: content",
        "section 1.2: differs: node2: runs another version",
    ]


def test_a_section_that_was_stopped_from_outside_has_no_end(shared: Path) -> None:
    chapter = Chapter(SITE, "apply")
    with pytest.raises(SystemExit), chapter.section("1.1", "Connection string"):
        sys.exit(0)
    assert told(shared, "section_finished") == []
    with pytest.raises(ChapterFailed, match=r"section 1\.1: was stopped before its end"):
        chapter.finish()


def test_a_summary_is_a_table_of_the_sections(shared: Path) -> None:
    chapter = Chapter(SITE, "apply")
    with chapter.section("1.1", "<Connection> string"):
        step("changed")
        step("ok", "node2")
        check(True)
    summary = chapter.finish()
    assert [row[:5] for row in summary.rows()] == [
        ("1.1", "<Connection> string", "changed", "1 changed, 1 ok", "1 of 1 hold")
    ]
    assert "&lt;Connection&gt; string" in summary._repr_html_()
    assert repr(summary).splitlines()[0] == "1 Rehearsal: changed (apply)"


def test_a_summary_counts_apart_what_was_not_tried(shared: Path) -> None:
    chapter = Chapter(SITE, "plan")
    with chapter.section("1.1", "Connection string"):
        for holds, tried in ((True, True), (False, True), (False, False)):
            check(holds, tried)
    with chapter.section("1.2", "Start"):
        check(False, tried=False)
    assert [(row[2], row[4]) for row in chapter.finish().rows()] == [
        ("ok", "1 of 2 hold, 1 not tried"),
        ("ok", "1 not tried"),
    ]


def test_a_chapter_says_what_it_is(shared: Path) -> None:
    told = "every difference is shown, and nothing is touched"
    assert repr(Chapter(SITE)) == f"1 Rehearsal on rehearsal ({SITE}), mode plan: {told}"


def test_versions_are_told(shared: Path) -> None:
    Chapter(SITE).versions("node1", {"zookeeper": "3.4.6"})
    (entry,) = told(shared, "versions")
    assert (entry["host"], entry["versions"]) == ("node1", {"zookeeper": "3.4.6"})


def test_a_chapter_that_is_opened_again_ends_the_one_before(shared: Path) -> None:
    first = Chapter(SITE)
    second = Chapter(SITE)
    with second.section("1.1", "Connection string"):
        step("ok")
    assert len(told(shared, "step")) == 1
    with pytest.raises(RuntimeError, match="run the cell that opens it again"), first.section("1.2", "Start"):
        pass


def test_sections_do_not_nest(shared: Path) -> None:
    chapter = Chapter(SITE)
    with (
        pytest.raises(RuntimeError, match=r"section 1\.2 inside section 1\.1"),
        chapter.section("1.1", "Connection string"),
        chapter.section("1.2", "Start"),
    ):
        pass


def test_without_a_rollout_a_record_is_begun_and_closed(capsys: pytest.CaptureFixture[str]) -> None:
    chapter = Chapter(SITE, "apply")
    with chapter.section("1.1", "Connection string"):
        step("changed")
    chapter.finish()
    assert capsys.readouterr().out == f"record: {chapter.folder}\n"
    assert chapter.folder.parent == Path("outputs")
    content = json.loads((chapter.folder / record.RECORD).read_text())
    assert (content["outcome"], content["changed"]) == ("changed", 1)
    assert record.verify(chapter.folder).faults == ()


def test_without_its_last_cell_a_chapter_died_when_its_process_ends(tmp_path: Path) -> None:
    program = f"""
from runbook.chapter import Chapter
class One(Chapter):
    number, title = "1", "Rehearsal"
One({str(SITE)!r})
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True, capture_output=True, text=True)
    folder = tmp_path / done.stdout.removeprefix("record: ").strip()
    assert json.loads((folder / record.RECORD).read_text())["outcome"] == "died"


def test_the_parameter_file_is_looked_up_in_the_folders_above(
    shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "parameters").mkdir()
    (tmp_path / "parameters" / "lab.yml").write_text(SITE.read_text())
    (tmp_path / "notebooks").mkdir()
    monkeypatch.chdir(tmp_path / "notebooks")
    assert Chapter("parameters/lab.yml").site.name == "rehearsal"


def test_outputs_of_the_project_are_found_from_its_notebooks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "outputs").mkdir()
    (tmp_path / "notebooks").mkdir()
    monkeypatch.chdir(tmp_path / "notebooks")
    assert Chapter(SITE).folder.parent == tmp_path / "outputs"


@pytest.mark.parametrize(
    ("mode", "yes", "message"),
    [
        ("aply", False, "mode: 'aply' is not a mode\n  remedy: one of plan, apply, verify"),
        ("plan", "no", "yes: 'no' is not a truth value\n  remedy: true or false"),
    ],
)
def test_values_that_are_none_are_refused(mode: str, yes: bool, message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        Chapter(SITE, mode, yes)
    assert not os.path.exists("outputs")


def test_active_checks_are_a_truth_value() -> None:
    with pytest.raises(ParameterError, match="active_checks: 1 is not a truth value"):
        Chapter(SITE, "verify", active_checks=1)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("mode", "active_checks", "may"),
    [
        ("apply", False, True),
        ("verify", False, False),
        ("verify", True, True),
        ("plan", False, False),
        ("plan", True, False),
    ],
)
def test_checks_write_in_apply_and_where_active_checks_are_allowed(
    shared: Path, mode: str, active_checks: bool, may: bool
) -> None:
    assert Chapter(SITE, mode, active_checks=active_checks).may_act is may


def test_a_chapter_about_a_role_that_no_host_has_is_refused() -> None:
    class About(Chapter):
        needs = ("zookeeper", "marathon")

    with pytest.raises(ParameterError, match=r"site\.yml:2: hosts: no host has the role marathon, which chapter 1 is"):
        About(SITE)
    assert not os.path.exists("outputs")


def test_what_a_chapter_finds_wrong_when_it_opens_fails_it(tmp_path: Path) -> None:
    class Lacking(Chapter):
        def _examine(self) -> None:
            raise ApplyFailed("a certificate is missing", "put it there")

    with pytest.raises(ApplyFailed, match="a certificate is missing"):
        Lacking(SITE)
    (folder,) = (tmp_path / "outputs").iterdir()
    content = json.loads((folder / record.RECORD).read_text())
    assert content["outcome"] == "failed"
    assert content["chapters"][0]["reason"] == "a certificate is missing"
    assert Base._open is None


def test_hosts_are_connected_once_and_know_the_record(shared: Path) -> None:
    chapter = Chapter(SITE, "apply", yes=True)
    hosts = chapter.hosts("zookeeper")
    assert [host.name for host in hosts] == ["node1"]
    assert hosts.record == shared.name
    assert hosts.approval.yes
    assert hosts._fleet is chapter.hosts()._fleet
    assert list(chapter.hosts("marathon")) == []


# the lock


def test_a_chapter_opened_by_hand_holds_the_lock_until_it_is_finished() -> None:
    chapter = Chapter(SITE, "apply")
    holder = holder_of(chapter.site)
    assert holder is not None
    assert (holder.record, holder.process) == (chapter.folder.name, os.getpid())
    with pytest.raises(LockHeld), SiteLock(chapter.site, Holder.here("theirs")):
        pass
    chapter.finish()
    with SiteLock(chapter.site, Holder.here("theirs")):
        pass


def test_a_chapter_opened_by_hand_notes_that_other_machines_are_not_kept_out(
    capsys: pytest.CaptureFixture[str],
) -> None:
    chapter = Chapter(SITE, "apply")
    for number in ("1.1", "1.2"):
        with chapter.section(number, "Section"):
            pass
    chapter.finish()
    (note,) = told(chapter.folder, "note")
    assert "the lock in ZooKeeper is not taken: no member of 127.0.0.1:9 accepts connections" in note["text"]
    assert f"{note['text']}\n" == capsys.readouterr().err


def test_a_chapter_beside_an_apply_is_refused_and_leaves_nothing() -> None:
    with (
        SiteLock(Site.load(SITE), Holder.here("theirs")),
        pytest.raises(LockHeld, match=r"another rollout of site rehearsal runs: .* \(process \d+\) .*, record theirs"),
    ):
        Chapter(SITE, "apply")
    assert not os.path.exists("outputs")
    assert Base._open is None


@pytest.mark.parametrize("mode", ["plan", "verify"])
def test_a_chapter_that_only_looks_notes_who_applies(mode: str) -> None:
    with SiteLock(Site.load(SITE), Holder.here("theirs")):
        chapter = Chapter(SITE, mode)
        chapter.finish()
    (note,) = told(chapter.folder, "note")
    assert note["text"].endswith("record theirs is applying: what is seen here may have changed already")


def test_the_cell_that_opens_a_chapter_can_be_run_again() -> None:
    Chapter(SITE, "apply")
    with pytest.raises(ParameterError):
        Chapter(SITE, "aply")
    Chapter(SITE, "apply").finish()


def test_a_chapter_that_cannot_begin_its_record_releases_the_lock(tmp_path: Path) -> None:
    (tmp_path / "outputs").write_text("not a folder")
    with pytest.raises(RecordError):
        Chapter(SITE, "apply")
    assert holder_of(Site.load(SITE)) is None


def test_in_a_rollout_a_chapter_takes_no_lock_of_its_own(shared: Path) -> None:
    chapter = Chapter(SITE, "apply")
    assert chapter._lock is None
    chapter.finish()
    holder = holder_of(chapter.site)
    assert holder is not None
    assert holder.record == shared.name


def test_a_record_that_the_environment_names_is_no_lock(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RUNBOOK_LOCK")
    with pytest.raises(LockHeld):
        Chapter(SITE, "apply")


def test_a_chapter_that_ends_with_its_process_releases_the_lock(tmp_path: Path) -> None:
    program = f"""
from runbook.chapter import Chapter
class One(Chapter):
    number, title = "1", "Rehearsal"
One({str(SITE)!r}, "apply")
input()
"""
    command = [sys.executable, "-c", program]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("record: ")
        with pytest.raises(LockHeld, match=rf"process {process.pid}\)"):
            Chapter(SITE, "apply")
        process.communicate("go\n")
    Chapter(SITE, "apply").finish()
