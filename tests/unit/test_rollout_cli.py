"""The command line: exit statuses, the last line, and signals."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from notebook_runs import FIXTURES, SITE, chapters, executed, statuses

from runbook.cli import main
from runbook.rollout import journal, lock, record
from runbook.rollout.run import Finished
from runbook.site import Site

Run = Callable[..., Result]


@pytest.fixture(autouse=True)
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(FIXTURES), prepend=os.pathsep)
    monkeypatch.chdir(tmp_path)


def invoke(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.mark.parametrize(
    ("mode", "names", "status", "line"),
    [
        ("apply", ["changes"], 0, "changed: 1 changed, 1 ok, 0 failed, 0 would change, 0 skipped, 1 checks"),
        ("plan", ["differs"], 0, "would change: 0 changed, 1 ok, 0 failed, 1 would change, 0 skipped, 1 checks"),
        ("apply", ["step_fails"], 1, "failed: 0 changed, 1 ok, 1 failed, 0 would change, 0 skipped, 1 checks"),
        ("verify", ["differs"], 3, "drift: 0 changed, 1 ok, 0 failed, 1 would change, 0 skipped, 1 checks"),
    ],
)
def test_a_rollout_ends_with_its_outcome_and_its_folder(
    tmp_path: Path, mode: str, names: list[str], status: int, line: str
) -> None:
    done = invoke("rollout", SITE, "--mode", mode, "--notebooks", chapters(tmp_path / "notebooks", *names))
    assert done.exit_code == status, done.output
    (folder,) = Path("outputs").iterdir()
    assert done.stdout.splitlines()[-2:] == [line, str(folder)]
    assert "1 Rehearsal" in done.stderr  # progress is not among what a program reads


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--active-checks"], "ok: 0 changed, 1 ok, 0 failed, 0 would change, 0 skipped, 2 checks"),
        ([], "ok: 0 changed, 1 ok, 0 failed, 0 would change, 0 skipped, 2 checks, 1 not tried"),
    ],
)
def test_active_checks_reach_the_notebooks_that_have_them(tmp_path: Path, arguments: list[str], line: str) -> None:
    folder = chapters(tmp_path / "notebooks", "nothing_to_do", "acts")
    done = invoke("rollout", SITE, "--mode", "verify", "--notebooks", folder, *arguments)
    assert (done.exit_code, done.stdout.splitlines()[-2]) == (0, line), done.output


def test_chapters_can_be_chosen(tmp_path: Path) -> None:
    folder = chapters(tmp_path / "notebooks", "nothing_to_do", "changes", "step_fails")
    done = invoke("rollout", SITE, "--chapters", "0-1", "--notebooks", folder, "--outputs", "elsewhere")
    assert done.exit_code == 0, done.output
    (record_folder,) = Path("elsewhere").iterdir()
    assert {path.name for path in record_folder.glob("*.ipynb")} == {"00_nothing_to_do.ipynb", "01_changes.ipynb"}


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--mode", "aply"], "'aply' is not one of 'plan', 'apply', 'verify'"),
        (["--chapters", "7"], "chapters: there is no chapter 7\n  remedy: there are 0"),
        (["--notebooks", "missing"], "name the folder of the notebooks with --notebooks"),
        (["--nothing"], "No such option"),
        (["--cell-timeout", "0"], "0 is not in the range x>=1"),
    ],
)
def test_wrong_usage_is_refused_before_anything_is_done(tmp_path: Path, arguments: list[str], told: str) -> None:
    folder = chapters(tmp_path / "notebooks", "changes")
    done = invoke("rollout", SITE, "--notebooks", folder, *arguments)
    assert done.exit_code == 2
    assert told in done.stderr
    assert not Path("outputs").exists()


def test_a_refused_parameter_file_is_told_with_its_lines(tmp_path: Path) -> None:
    (tmp_path / "site.yml").write_text("name: lab\nhost: []\n")
    done = invoke("rollout", tmp_path / "site.yml")
    assert done.exit_code == 2
    assert f"{tmp_path}/site.yml:2: host:" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_held_lock_is_told_without_a_traceback(tmp_path: Path) -> None:
    folder = chapters(tmp_path / "notebooks", "changes")
    with lock.SiteLock(Site.load(SITE), lock.Holder("other@there", "theirs", os.getpid(), journal.utc_now())):
        done = invoke("rollout", SITE, "--mode", "apply", "--notebooks", folder)
    assert done.exit_code == 1
    assert "Error: another rollout of site rehearsal runs: other@there" in done.stderr


def test_a_disk_that_is_full_is_told_without_a_traceback(tmp_path: Path) -> None:
    """The journal and the notebook of this rollout take less than 8 KiB each, the report more."""
    folder = chapters(tmp_path / "notebooks", "changes")
    program = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))\n" + PROGRAM
    command = [sys.executable, "-c", program, "", "rollout", str(SITE), "--notebooks", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1, done.stderr
    (record_folder,) = Path("outputs").iterdir()
    assert "Traceback" not in done.stderr
    assert f"Error: {record_folder}/" in done.stderr
    assert "cannot be written: File too large" in done.stderr
    assert [path.name for path in record_folder.iterdir() if path.name.startswith(".")] == []
    assert journal.verify(record_folder / journal.NAME) == []


PROGRAM = """
import signal, sys
from runbook.cli import main
ignored = sys.argv.pop(1)
signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell's background job would ignore
if ignored:
    signal.signal(signal.Signals[ignored], signal.SIG_IGN)
main()
"""


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_stops_the_kernel_closes_the_record_and_frees_the_lock(
    tmp_path: Path, number: signal.Signals, status: int
) -> None:
    folder = chapters(tmp_path / "notebooks", "cell_never_ends", "changes")
    command = [sys.executable, "-c", PROGRAM, "", "rollout", str(SITE), "--mode", "apply"]
    with subprocess.Popen(
        [*command, "--notebooks", str(folder)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        assert process.stdout is not None
        while "1.1 Nothing to do: ok" not in process.stderr.readline():
            assert process.poll() is None
        process.send_signal(number)
        out, _ = process.communicate()
    assert process.returncode == status

    record_folder = Path(out.splitlines()[-1])
    content = json.loads((record_folder / record.RECORD).read_text())
    assert (content["outcome"], content["stopped"]) == ("died", f"interrupted by {number.name}")
    (chapter,) = content["chapters"]
    assert chapter["outcome"] == "died"
    assert chapter["reason"].endswith(f"interrupted by {number.name}")
    assert record.verify(record_folder).faults == ()
    assert lock.holder_of(Site.load(SITE)) is None

    notebook = executed(Finished(record_folder, record.history_of(record_folder), status), "cell_never_ends")
    assert statuses(notebook)["chapter.finish()"] == "not run"
    assert [process for process in kernels() if str(tmp_path) in process] == []


def test_an_interrupt_ends_a_verification_which_a_killed_kernel_does_not(tmp_path: Path) -> None:
    folder = chapters(tmp_path / "notebooks", "kernel_is_killed", "cell_never_ends", "nothing_to_do")
    command = [sys.executable, "-c", PROGRAM, "", "rollout", str(SITE), "--mode", "verify", "--notebooks", str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        begun = 0
        while begun < 2:
            begun += "1.1 Nothing to do: ok" in process.stderr.readline()
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate()
    assert process.returncode == 130
    content = json.loads((Path(out.splitlines()[-1]) / record.RECORD).read_text())
    assert [chapter["outcome"] for chapter in content["chapters"]] == ["died", "died"]
    assert content["stopped"] == "interrupted by SIGINT"


def applying(folder: Path) -> subprocess.Popen[str]:
    """A rollout by the command in mode apply, once its first section has ended."""
    command = [sys.executable, "-c", PROGRAM, "", "rollout", str(SITE), "--mode", "apply", "--notebooks", str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    while "1.1 Nothing to do: ok" not in process.stderr.readline():
        assert process.poll() is None
    return process


def test_after_a_rollout_was_killed_the_next_one_is_not_refused(tmp_path: Path) -> None:
    with applying(chapters(tmp_path / "notebooks", "cell_never_ends")) as process:
        beside = invoke("rollout", SITE, "--mode", "apply", "--notebooks", chapters(tmp_path / "beside", "changes"))
        process.kill()
        process.wait()
        after = invoke("rollout", SITE, "--mode", "apply", "--notebooks", chapters(tmp_path / "after", "changes"))
    assert (beside.exit_code, after.exit_code) == (1, 0), after.output
    assert f"(process {process.pid}) since " in beside.stderr
    assert str(process.pid) not in after.output


def test_a_notebook_by_hand_is_refused_beside_a_rollout_and_a_rollout_beside_it(tmp_path: Path) -> None:
    """Raw papermill, without the runbook's engine: its kernel takes the lock."""
    notebooks = chapters(tmp_path / "notebooks", "cell_never_ends", "changes")
    parameters = ["-p", "site_file", str(SITE), "-p", "mode", "apply", "--no-progress-bar"]

    def papermill(name: str) -> list[str]:
        return [sys.executable, "-m", "papermill", str(notebooks / f"{name}.ipynb"), str(tmp_path / name), *parameters]

    with applying(notebooks) as process:
        refused = subprocess.run(papermill("01_changes"), capture_output=True, text=True, check=False)
        process.send_signal(signal.SIGTERM)
        process.communicate()
    assert refused.returncode == 1
    assert "LockHeld: another rollout of site rehearsal runs" in refused.stderr
    assert f"(process {process.pid}) since " in refused.stderr

    with subprocess.Popen(papermill("00_cell_never_ends"), stderr=subprocess.DEVNULL) as by_hand:
        while (holder := lock.holder_of(Site.load(SITE))) is None:
            assert by_hand.poll() is None
            time.sleep(0.1)
        beside = invoke("rollout", SITE, "--chapters", "1", "--mode", "apply", "--notebooks", notebooks)
        os.kill(holder.process, signal.SIGKILL)  # its kernel
        by_hand.wait()
    assert beside.exit_code == 1
    assert f"another rollout of site rehearsal runs: {holder}" in beside.stderr
    assert invoke("rollout", SITE, "--chapters", "1", "--mode", "apply", "--notebooks", notebooks).exit_code == 0


def test_an_interrupt_before_there_is_a_record_ends_with_its_status(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(lock.SiteLock, "take", interrupted)
    done = invoke("rollout", SITE, "--mode", "apply", "--notebooks", chapters(tmp_path / "notebooks", "changes"))
    assert (done.exit_code, done.stderr) == (130, "Error: interrupted\n")


def test_a_signal_that_is_ignored_stays_ignored(tmp_path: Path) -> None:
    folder = chapters(tmp_path / "notebooks", "nothing_to_do", "changes")
    command = [sys.executable, "-c", PROGRAM, "SIGHUP", "rollout", str(SITE), "--notebooks", str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        while "1.1 Nothing to do: ok" not in process.stderr.readline():
            assert process.poll() is None
        process.send_signal(signal.SIGHUP)
        process.communicate()
    assert process.returncode == 0


def kernels() -> list[str]:
    """The environments of all ipykernels that run."""
    environments = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if b"ipykernel" in (process / "cmdline").read_bytes():
                environments.append((process / "environ").read_text(errors="replace"))
        except (FileNotFoundError, ProcessLookupError):  # ended meanwhile
            continue
    return environments


@pytest.fixture
def a_record(tmp_path: Path) -> Path:
    folder = record.begin(tmp_path / "outputs", Site.load(SITE), record.Mode.PLAN)
    record.close(folder)
    return folder


def test_records_are_verified_one_or_all(a_record: Path) -> None:
    for arguments in ([], ["outputs"], [a_record]):
        done = invoke("record", "verify", *arguments)
        assert done.exit_code == 0, done.output
        assert done.stdout.endswith(f"{a_record.name}: as it was written\n")


def test_an_altered_record_is_told_with_file_and_line(a_record: Path) -> None:
    path = a_record / journal.NAME
    path.write_text(path.read_text().replace('"mode": "plan"', '"mode": "apply"'))
    done = invoke("record", "verify", a_record)
    assert done.exit_code == 1
    assert done.stdout == f"{a_record}: altered\n  {path}:1: altered\n"


def test_what_is_no_record_is_an_error(tmp_path: Path) -> None:
    done = invoke("record", "verify", tmp_path)
    assert done.exit_code == 1
    assert "is no record" in done.stderr


def test_records_are_listed_those_that_were_not_closed_or_cannot_be_read_too(a_record: Path) -> None:
    later = "29991231T235959Z-rehearsal-000000"
    open_record = record.begin(a_record.parent, Site.load(SITE), record.Mode.APPLY, later)
    unreadable = a_record.parent / "20200101T000000Z-rehearsal-000000"
    unreadable.mkdir()
    (unreadable / journal.NAME).write_text("nothing\n")
    done = CliRunner(env={"COLUMNS": "200"}).invoke(main, ["record", "list"])
    assert done.exit_code == 0, done.output
    first, second, third = done.stdout.splitlines()[1:]
    assert first.split()[0] == unreadable.name
    assert "cannot be read" in first
    assert second.split()[:3] == [a_record.name, "plan", "died"]
    assert third.split()[:5] == [open_record.name, "apply", "died", "(not", "closed)"]


def test_help_names_every_command() -> None:
    done = invoke("--help")
    assert done.exit_code == 0
    for command in ("check", "lab", "record", "rollout"):
        assert f"\n  {command} " in done.stdout
