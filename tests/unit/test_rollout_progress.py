"""What a person sees meanwhile."""

from __future__ import annotations

import io
import tempfile
import threading
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from runbook.rollout import journal, progress
from runbook.rollout.journal import Entry, Journal
from runbook.rollout.progress import Board, Channel, Lines, Listener

STARTED = {"event": "chapter_started", "chapter": "01", "section": None, "title": "ZooKeeper", "mode": "apply"}
FINISHED = {"event": "chapter_finished", "chapter": "01", "section": None, "outcome": "changed", "seconds": 1.0}
SECTION = {"event": "section_started", "chapter": "01", "section": "1.2", "title": "Start"}
SECTION_END = {**SECTION, "event": "section_finished", "outcome": "changed", "error": None, "seconds": 1.0}
STEP = {"event": "step", "chapter": "01", "section": "1.2", "host": "node1", "step": "service zookeeper", "summary": ""}
UPLOAD = {"event": "progress", "host": "node1", "step": "upload image.tar", "done": 30, "total": 100}


class Seen:
    """A view that remembers, and can be waited for."""

    def __init__(self) -> None:
        self.entries: list[str] = []
        self.events: list[dict[str, Any]] = []
        self.told = threading.Event()

    def entry(self, entry: Entry) -> None:
        self.entries.append(entry["event"])
        self.told.set()

    def progress(self, event: dict[str, Any]) -> None:
        self.events.append(event)
        self.told.set()

    def wait(self) -> None:
        assert self.told.wait(10)
        self.told.clear()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / journal.NAME


def test_the_view_is_told_of_progress_and_of_new_lines_as_they_come(path: Path) -> None:
    seen = Seen()
    with Listener(path, seen) as listener, Journal(path) as file:
        channel = Channel(listener.address)
        channel.send(UPLOAD)
        seen.wait()
        assert seen.events == [UPLOAD]
        file.append(STARTED)
        channel.wake()
        seen.wait()
        assert seen.entries == ["chapter_started"]
        channel.close()


def test_lines_that_nobody_announced_are_shown_at_the_end(path: Path) -> None:
    seen = Seen()
    with Listener(path, seen), Journal(path) as file:
        file.append(STARTED)
    assert seen.entries == ["chapter_started"]


def test_a_listener_leaves_nothing_behind(path: Path) -> None:
    with Listener(path, Seen()) as listener:
        assert Path(listener.address).exists()
    assert not Path(listener.address).parent.exists()


def test_a_long_path_of_tmpdir_leaves_room_for_the_socket(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = path.parent / ("a-job-of-a-batch-system-" * 4)
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    seen = Seen()
    with Listener(path, seen) as listener:
        channel = Channel(listener.address)
        channel.send(UPLOAD)
        seen.wait()
        channel.close()
    assert seen.events == [UPLOAD]


def test_a_channel_is_mute_where_nobody_listens(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Listener(path, Seen()) as listener:
        gone = Channel(listener.address)
    gone.send(UPLOAD)
    gone.wake()
    gone.close()
    monkeypatch.delenv(progress.VARIABLE, raising=False)
    mute = Channel.of_environment()
    mute.send(UPLOAD)
    mute.close()


def test_a_step_of_any_length_is_shown_as_far_as_it_fits(path: Path) -> None:
    seen = Seen()
    with Listener(path, seen) as listener:
        channel = Channel(listener.address)
        channel.send({**UPLOAD, "step": "waiting for: 10,000 repositories (" + "✓" * 500_000})
        seen.wait()
        channel.close()
    (event,) = seen.events
    assert event["step"].startswith("waiting for: 10,000 repositories (✓")


def test_a_display_that_is_slow_does_not_hold_up_the_work(path: Path) -> None:
    stuck, seen = threading.Event(), Seen()
    seen.progress = lambda event: assert_true(stuck.wait(30))  # type: ignore[method-assign]
    with Listener(path, seen) as listener:
        channel = Channel(listener.address)
        for _ in range(5000):
            channel.send(UPLOAD)
        stuck.set()
        channel.close()


def assert_true(value: bool) -> None:
    assert value


def test_a_log_has_a_line_for_what_matters() -> None:
    console = Console(file=io.StringIO(), width=200)
    lines = Lines(console)
    diff = "--- a\n+++ b\n@@ -7 +7 @@\n-x\n+y\n"
    for entry in (
        {"event": "note", "text": "somebody applies"},
        STARTED,
        SECTION,
        {**STEP, "status": "ok"},
        {**STEP, "status": "changed", "summary": "restarted", "diff": diff},
        {**STEP, "event": "check", "name": "one leader", "holds": False, "evidence": "two lead"},
        {**STEP, "event": "gate", "name": "restart", "answer": "approved", "by": "--yes"},
        SECTION_END,
        {**FINISHED, "outcome": "died", "reason": "kernel killed by signal 9 (SIGKILL)"},
        {"event": "stopped", "reason": "interrupted by SIGTERM"},
        {"event": "record_closed", "outcome": "died"},
    ):
        lines.entry({"seq": 1, "time": "", "prev": "", **entry})
    lines.progress(UPLOAD)
    assert isinstance(console.file, io.StringIO)
    assert console.file.getvalue().splitlines() == [
        f"00:00 {line}"
        for line in (
            "note: somebody applies",
            "01 ZooKeeper (apply)",
            "    changed: node1: service zookeeper:7: restarted",
            "    DOES NOT HOLD: one leader: two lead",
            "    gate restart: approved --yes",
            "  1.2 Start: changed (1.0 s)",
            "01 died: kernel killed by signal 9 (SIGKILL)",
            "stopped: interrupted by SIGTERM",
        )
    ]


def text(board: Board) -> str:
    with board.console.capture() as captured:
        board.console.print(board)
    return captured.get()


def test_a_board_shows_chapters_the_running_section_and_the_step_of_each_host() -> None:
    board = Board(Console(file=io.StringIO(), width=120))
    board.progress({"event": "progress", "host": "1", "step": "starting zookeeper"})
    assert "1  starting zookeeper" in text(board)
    board.entry(STARTED)
    assert "starting" not in text(board)
    board.entry(SECTION)
    board.progress(UPLOAD)
    shown = text(board)
    assert "01  ZooKeeper  00:00" in shown
    assert "1.2 Start" in shown
    assert "node1  upload image.tar" in shown

    board.entry({**STEP, "status": "changed"})
    assert "upload" not in text(board)

    board.entry(SECTION_END)
    board.entry(FINISHED)
    shown = text(board)
    assert "1.2 Start" not in shown
    assert shown.strip().endswith("changed")


def test_a_terminal_gets_a_board_and_a_pipe_gets_lines(path: Path) -> None:
    for terminal in (True, False):
        console = Console(file=io.StringIO(), force_terminal=terminal, width=100)
        with progress.shown(path.with_name(str(terminal)), console), Journal(path.with_name(str(terminal))) as file:
            file.append(STARTED)
        assert isinstance(console.file, io.StringIO)
        assert ("\x1b[" in console.file.getvalue()) is terminal
        assert "ZooKeeper" in console.file.getvalue()


@pytest.mark.parametrize(("seconds", "shown"), [(0.9, "00:00"), (61, "01:01"), (3725, "62:05")])
def test_a_clock(seconds: float, shown: str) -> None:
    assert progress.clock(seconds) == shown
