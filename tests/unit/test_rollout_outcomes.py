"""What becomes of chapters, and of notebooks that stop before their end."""

from __future__ import annotations

import json
import os
from pathlib import Path

import nbformat
import pytest
from notebook_runs import SITE, chapters, executed, rollout, statuses

from runbook.errors import LockHeld, ParameterError, RecordError
from runbook.outcomes import Outcome
from runbook.remote.modes import Mode
from runbook.rollout import files, journal, lock, record, run
from runbook.rollout.lock import Holder
from runbook.rollout.run import Finished

FIXTURES = SITE.parent
NOT_IN_ZOOKEEPER = (
    "the lock in ZooKeeper is not taken: no member of 127.0.0.1:9 accepts connections; "
    "rollouts of other machines are not kept out, those of this machine are"
)
"""The note of each apply on the fixtures' site, whose ensemble refuses connections."""


@pytest.fixture(autouse=True)
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(FIXTURES), prepend=os.pathsep)  # the kernels' `import rehearsal`


def told(finished: Finished) -> list[tuple[Outcome, str | None]]:
    return [(chapter.outcome, chapter.reason) for chapter in finished.history.chapters]


def banner(finished: Finished, name: str) -> str:
    return str(executed(finished, name).cells[0].source)


def test_chapters_run_in_order_and_leave_a_closed_record(tmp_path: Path) -> None:
    finished = rollout(tmp_path, "nothing_to_do", "changes")
    assert told(finished) == [(Outcome.OK, None), (Outcome.CHANGED, None)]
    assert finished.status == 0
    content = json.loads((finished.folder / record.RECORD).read_text())
    assert (content["outcome"], content["changed"], content["ok"], content["failed"]) == ("changed", 1, 2, 0)
    assert content["checks"] == 2
    assert {path.name for path in finished.folder.iterdir()} == {
        "00_nothing_to_do.ipynb",
        "01_changes.ipynb",
        "journal.jsonl",
        "record.json",
        "record.sha256",
        "report.html",
    }
    assert record.verify(finished.folder).faults == ()
    assert "alert-success" in banner(finished, "changes")
    assert "Chapter 1: changed" in banner(finished, "changes")
    assert finished.lines()[-2:] == [
        "changed: 1 changed, 2 ok, 0 failed, 0 would change, 0 skipped, 2 checks",
        str(finished.folder),
    ]


def about(tmp_path: Path, **needs: str) -> Path:
    """A folder of chapters by the fixtures' names, each about a role."""
    folder = chapters(tmp_path / "notebooks", *needs)
    for path, role in zip(sorted(folder.glob("*.ipynb")), needs.values(), strict=True):
        notebook = nbformat.read(path, as_version=4)
        notebook.metadata["runbook"] = {"needs": [role]}
        nbformat.write(notebook, path)
    return folder


def test_chapters_about_a_role_that_no_host_has_are_left_out(tmp_path: Path) -> None:
    notebooks = about(tmp_path, nothing_to_do="zookeeper", changes="marathon")
    finished = run.rollout(SITE, mode=Mode.APPLY, outputs=tmp_path / "outputs", notebooks=notebooks)
    assert told(finished) == [(Outcome.OK, None)]
    left_out = "1 changes is left out: no host has the role marathon, which chapter 1 is about"
    assert finished.history.notes == [left_out, NOT_IN_ZOOKEEPER]
    assert "1 changes is left out" in (finished.folder / "report.html").read_text()


@pytest.mark.parametrize(("asked", "roles"), [("0-1", ("zookeeper", "marathon")), (None, ("docker", "marathon"))])
def test_such_a_chapter_that_is_asked_for_is_refused_and_so_is_a_rollout_of_nothing(
    tmp_path: Path, asked: str | None, roles: tuple[str, str]
) -> None:
    notebooks = about(tmp_path, nothing_to_do=roles[0], changes=roles[1])
    with pytest.raises(ParameterError, match=r"site\.yml:2: hosts: no host has the role marathon.*chapter 1"):
        run.rollout(SITE, chapters=asked, mode=Mode.APPLY, outputs=tmp_path / "outputs", notebooks=notebooks)
    assert not (tmp_path / "outputs").exists()


def test_a_plan_that_would_change_something_is_well(tmp_path: Path) -> None:
    finished = rollout(tmp_path, "differs", mode=Mode.PLAN)
    assert (finished.history.outcome, finished.status) == (Outcome.WOULD_CHANGE, 0)


def test_verify_goes_on_after_drift_and_says_what_differs(tmp_path: Path) -> None:
    finished = rollout(tmp_path, "differs", "nothing_to_do", mode=Mode.VERIFY)
    assert told(finished) == [(Outcome.DRIFT, None), (Outcome.OK, None)]
    assert finished.status == 3
    assert finished.lines()[0] == "differs: node1: /etc/conf:4: conf"
    assert set(statuses(executed(finished, "differs")).values()) == {"completed", "failed"}  # its last cell says so


EVERY_END = ["step_fails", "kernel_is_killed", "differs", "raises_outside_a_section", "leaves_by_sys_exit", "changes"]


@pytest.mark.parametrize("mode", [Mode.PLAN, Mode.VERIFY])
def test_what_only_looks_goes_through_all_chapters_whatever_becomes_of_them(tmp_path: Path, mode: Mode) -> None:
    finished = rollout(tmp_path, *EVERY_END, mode=mode)
    died, drift = Outcome.DIED, Outcome.DRIFT if mode is Mode.VERIFY else Outcome.WOULD_CHANGE
    outcomes = [Outcome.FAILED, died, drift, died, died, Outcome.CHANGED]
    assert [outcome for outcome, _ in told(finished)] == outcomes
    assert (finished.history.outcome, finished.status) == (died, 4)
    content = json.loads((finished.folder / record.RECORD).read_text())
    assert [chapter["outcome"] for chapter in content["chapters"]] == outcomes
    assert record.verify(finished.folder).faults == ()
    failed = [section.outcome for section in finished.history.chapters[0].sections]
    assert failed[-1] is Outcome.FAILED
    assert set(statuses(executed(finished, "step_fails")).values()) == {"completed", "failed"}  # its last cell says so
    lines = finished.lines()
    assert "1 failed: node1: /etc/conf: exit status 1" in lines
    assert "1 died: cell 6 (import os): kernel killed by signal 9 (SIGKILL)" in lines


def test_a_kernel_that_dies_right_after_a_section_failed_has_died(tmp_path: Path) -> None:
    """In mode verify the section's error did not end the notebook."""
    notebooks = chapters(tmp_path / "notebooks", "step_fails")
    (path,) = notebooks.iterdir()
    notebook = nbformat.read(path, as_version=4)
    notebook.cells[-1].source = "import os\nos._exit(7)"
    nbformat.write(notebook, path)
    finished = run.rollout(SITE, mode=Mode.VERIFY, outputs=tmp_path / "outputs", notebooks=notebooks)
    ((outcome, reason),) = told(finished)
    assert outcome is Outcome.DIED
    assert reason is not None
    assert "kernel ended with exit status 7" in reason


@pytest.mark.parametrize(
    ("names", "status"),
    [
        (["nothing_to_do", "differs", "step_fails"], 1),
        (["differs", "nothing_to_do"], 3),
        (["kernel_is_killed", "differs", "step_fails", "nothing_to_do"], 4),
    ],
)
def test_the_exit_status_is_that_of_the_worst_chapter(tmp_path: Path, names: list[str], status: int) -> None:
    finished = rollout(tmp_path, *names, mode=Mode.VERIFY)
    assert finished.status == status
    assert len(finished.history.chapters) == len(names)


def test_a_claim_that_does_not_hold_fails_a_verification(tmp_path: Path) -> None:
    finished = rollout(tmp_path, "claim_does_not_hold", mode=Mode.VERIFY)
    assert (finished.history.outcome, finished.status) == (Outcome.FAILED, 1)
    assert finished.lines()[0] == "1 failed: one leader: node1 leads"


def test_the_first_chapter_that_fails_is_the_last(tmp_path: Path) -> None:
    finished = rollout(tmp_path, "step_fails", "nothing_to_do")
    assert told(finished) == [(Outcome.FAILED, "node1: conf: exit status 1\n  remedy: look at node1")]
    assert finished.status == 1
    assert not (finished.folder / "01_nothing_to_do.ipynb").exists()
    (error,) = executed(finished, "step_fails").cells[-2].outputs
    assert error.traceback == ["ApplyFailed: node1: conf: exit status 1\n  remedy: look at node1"]


def test_a_killed_kernel_is_recorded_as_killed(tmp_path: Path) -> None:
    finished = rollout(tmp_path, "kernel_is_killed", "nothing_to_do")
    reason = "cell 6 (import os): kernel killed by signal 9 (SIGKILL)"
    assert told(finished) == [(Outcome.DIED, reason)]
    assert finished.status == 4
    assert statuses(executed(finished, "kernel_is_killed")) == {
        "yes = False": "completed",
        "chapter = rehearsal.Chapter(site_file, mode, yes)": "completed",
        "chapter.nothing_to_do()": "completed",
        "os.kill(os.getpid(), 9)": "failed",
        "chapter.change()": "not run",
        "chapter.finish()": "not run",
    }
    assert reason in banner(finished, "kernel_is_killed")
    assert "alert-danger" in banner(finished, "kernel_is_killed")


def test_a_cell_that_runs_out_of_time_is_recorded_as_that(tmp_path: Path) -> None:
    finished = rollout(tmp_path, "cell_never_ends", cell_timeout=5)
    reason = "cell 6 (chapter.wait(600)): cell timeout: it did not end within 5 s"
    assert told(finished) == [(Outcome.DIED, reason)]
    assert finished.status == 4
    assert [(section.number, section.outcome) for section in finished.history.chapters[0].sections] == [
        ("1.1", Outcome.OK),
        ("1.6", Outcome.DIED),
    ]
    notebook = statuses(executed(finished, "cell_never_ends"))
    assert (notebook["chapter.wait(600)"], notebook["chapter.finish()"]) == ("failed", "not run")
    assert reason in banner(finished, "cell_never_ends")


def test_sys_exit_is_recorded_as_that_whatever_its_status(tmp_path: Path) -> None:
    finished = rollout(tmp_path, "leaves_by_sys_exit")
    reason = "cell 6 (chapter.leave(0)): sys.exit(0)"
    assert told(finished) == [(Outcome.DIED, reason)]
    assert finished.status == 4
    notebook = statuses(executed(finished, "leaves_by_sys_exit"))
    assert (notebook["chapter.leave(0)"], notebook["chapter.change()"]) == ("failed", "not run")
    assert reason in banner(finished, "leaves_by_sys_exit")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("never_finishes", "the notebook ended without the cell that finishes the chapter"),
        ("raises_outside_a_section", "cell 5 (1 / 0): ZeroDivisionError: division by zero"),
    ],
)
def test_a_chapter_that_did_not_tell_its_end_died(tmp_path: Path, name: str, reason: str) -> None:
    finished = rollout(tmp_path, name)
    assert told(finished) == [(Outcome.DIED, reason)]
    assert reason in banner(finished, name)


def test_a_kernel_that_does_not_start_is_recorded_as_that(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "KERNEL", "cobol")
    finished = rollout(tmp_path, "nothing_to_do")
    assert told(finished) == [(Outcome.DIED, "No such kernel named cobol")]
    assert set(statuses(executed(finished, "nothing_to_do")).values()) == {"not run"}


def test_secrets_that_a_cell_prints_are_masked_in_all_that_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REHEARSAL_SECRET", "a-secret-for-a-cell")  # to which site.yml refers
    finished = rollout(tmp_path, "prints_a_secret")
    assert "***" in str(executed(finished, "prints_a_secret").cells)
    for path in finished.folder.iterdir():
        assert "a-secret-for-a-cell" not in path.read_text(), path


def test_nobody_is_there_to_be_asked(tmp_path: Path) -> None:
    (output,) = executed(rollout(tmp_path, "asks_who_is_there"), "asks_who_is_there").cells[-2].outputs
    assert output.data["text/plain"] == "False"


def test_a_notebook_without_the_parameters_is_refused_before_anything_is_run(tmp_path: Path) -> None:
    folder = chapters(tmp_path / "notebooks", "nothing_to_do", "has_no_parameters")
    with pytest.raises(ParameterError, match="site_file: the notebook has no such parameter") as refused:
        run.rollout(SITE, outputs=tmp_path / "outputs", notebooks=folder)
    assert {problem.field for problem in refused.value.problems} == {"site_file", "mode", "yes"}
    assert not (tmp_path / "outputs").exists()


@pytest.fixture
def somebody_applies(tmp_path: Path) -> Holder:
    """The lock file as somebody left it who is still there: process 1."""
    holder = Holder("other@there", "their-record", 1, journal.utc_now())
    lock.lock_files(run.Site.load(SITE))[0].write_text(holder.data())
    return holder


def test_a_plan_notes_who_applies_meanwhile(tmp_path: Path, somebody_applies: Holder) -> None:
    finished = rollout(tmp_path, "nothing_to_do", mode=Mode.PLAN)
    assert finished.history.notes == [f"{somebody_applies} is applying: what is seen here may have changed already"]
    assert finished.status == 0


def test_an_apply_beside_another_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    site = run.Site.load(SITE)
    with lock.SiteLock(site, Holder.here("theirs")), pytest.raises(LockHeld, match="record theirs"):
        rollout(tmp_path, "nothing_to_do")
    assert not (tmp_path / "outputs").exists()


def test_a_lock_that_is_lost_between_chapters_ends_the_rollout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def lost(self: lock.SiteLock) -> bool:
        if any(path.name.startswith("00_") for path in tmp_path.glob("outputs/*/*")):
            raise LockHeld("another rollout of site rehearsal runs: other@there")
        return False

    monkeypatch.setattr(lock.SiteLock, "renew", lost)
    finished = rollout(tmp_path, "nothing_to_do", "changes")
    assert told(finished) == [(Outcome.OK, None)]
    assert finished.history.stopped == "another rollout of site rehearsal runs: other@there"
    assert (finished.history.outcome, finished.status) == (Outcome.DIED, 4)


def test_a_notebook_that_cannot_be_written_is_why_its_chapter_died(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    create = files.create

    def full(path: Path, content: bytes) -> None:
        if path.suffix == ".ipynb":
            raise RecordError(f"{path}: cannot be written: No space left on device")
        create(path, content)

    monkeypatch.setattr(files, "create", full)
    with pytest.raises(RecordError, match="No space left"):
        rollout(tmp_path, "nothing_to_do", "changes")
    (folder,) = (tmp_path / "outputs").iterdir()
    (chapter,) = json.loads((folder / record.RECORD).read_text())["chapters"]
    assert (chapter["outcome"], chapter["reason"]) == (
        "died",
        f"{folder}/00_nothing_to_do.ipynb: cannot be written: No space left on device",
    )


def test_an_error_of_the_rollout_itself_is_recorded_and_not_hidden(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("a mistake in the rollout")

    monkeypatch.setattr(run, "_put_banner", broken)
    with pytest.raises(ZeroDivisionError):
        rollout(tmp_path, "nothing_to_do")
    (folder,) = (tmp_path / "outputs").iterdir()
    content = json.loads((folder / record.RECORD).read_text())
    assert content["stopped"] == "ZeroDivisionError: a mistake in the rollout"
    assert content["outcome"] == "died"
