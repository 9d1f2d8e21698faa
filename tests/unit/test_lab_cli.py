"""`runbook lab` where there is no lab: what it prints, and how it ends."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner
from rich.console import Console

from runbook.cli import main
from runbook.lab import cli, engine


@pytest.fixture(autouse=True)
def no_lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine on which no engine answers and no lab was ever made."""
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    monkeypatch.setenv("RUNBOOK_LAB_DIR", str(tmp_path / "lab"))
    monkeypatch.setattr(engine, "DEFAULT", f"unix://{tmp_path / 'none.sock'}")


@pytest.mark.parametrize("arguments", [["status"], ["shell", "node1"]])
def test_what_needs_a_lab_says_that_it_is_down_and_how_to_start_it(arguments: list[str]) -> None:
    done = CliRunner().invoke(main, ["lab", *arguments])

    assert done.exit_code == 1
    assert done.stderr == "Error: the lab is down\n  remedy: run `runbook lab up`\n"


def test_taking_down_what_is_not_there_is_no_error_and_leaves_nothing(tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["lab", "down", "--all"])

    assert (done.exit_code, done.output) == (0, "There were no nodes.\n")
    assert not (tmp_path / "lab").exists()


@pytest.mark.parametrize("arguments", [["--nodes", "0"], ["--nodes", "21"], ["--packages", "/nonexistent"]])
def test_wrong_usage_is_refused_before_anything_is_started(arguments: list[str], tmp_path: Path) -> None:
    assert CliRunner().invoke(main, ["lab", "up", *arguments]).exit_code == 2
    assert not (tmp_path / "lab").exists()


def test_without_a_terminal_each_stage_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with cli._shown(Console(force_terminal=False)) as progress:
        for stage in ("building the image", "building the image: Step 1", "building the image: Step 2", "starting"):
            progress(stage)

    lines = capsys.readouterr().out.splitlines()
    assert [line.split("s  ")[1] for line in lines] == ["building the image", "starting"]


def test_an_uptime_is_counted_from_the_engine_s_time_and_absent_for_what_does_not_run() -> None:
    started = datetime.now(UTC) - timedelta(hours=25, minutes=3, seconds=4)

    # the engine's form: nanoseconds, and Z for UTC
    assert cli._uptime(f"{started:%Y-%m-%dT%H:%M:%S}.123456789Z") in ("1 day, 1:03:04", "1 day, 1:03:05")
    assert cli._uptime("") == "-"


def test_a_lab_of_another_user_is_said_to_be_that(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, **options: object) -> None:
        raise PermissionError(13, "Permission denied", str(self))

    (tmp_path / "lab").mkdir()
    monkeypatch.setattr(Path, "mkdir", refuse)  # root, whom the tests may run as, is refused nothing
    done = CliRunner().invoke(main, ["lab", "up"])

    assert done.exit_code == 1
    assert done.stderr == (
        f"Error: the lab belongs to another user: {tmp_path / 'lab'} is not accessible\n"
        "  remedy: run the command as that user, or set RUNBOOK_LAB_DIR and RUNBOOK_LAB_SITE to files of your own\n"
    )


@pytest.mark.parametrize("arguments", [["--profile", "centos6"], ["--shell", "/nonexistent"]])
def test_an_unknown_profile_or_shell_is_refused_before_anything_is_started(
    arguments: list[str], tmp_path: Path
) -> None:
    assert CliRunner().invoke(main, ["lab", "up", *arguments]).exit_code == 2
    assert not (tmp_path / "lab").exists()
