"""What a person sees while a rollout runs, and the channel that feeds it from the kernels."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from runbook import outcomes, sockets
from runbook.outcomes import Outcome
from runbook.remote.modes import Status, Verdict
from runbook.rollout.journal import Entry, Tail

LONGEST = 1000  # characters of what is shown of a step: the evidence of a check may be long
VARIABLE = "RUNBOOK_PROGRESS"  # names the socket that a rollout listens on, in its kernels' environment

COLOURS = {
    Outcome.OK: "green",
    Outcome.CHANGED: "yellow",
    Outcome.WOULD_CHANGE: "yellow",
    Outcome.DRIFT: "magenta",
    Outcome.FAILED: "bold red",
    Outcome.DIED: "bold red",
}
NEWS = frozenset({Status.CHANGED, Status.WOULD_CHANGE, Status.FAILED, Status.UNREACHABLE})  # what gets a line


class Channel:
    """The kernel's end: tells of progress without ever waiting, and without a trace where nobody listens.

    What is shown and not journalled (so many bytes of a file) travels as a datagram on a Unix socket; an empty one
    says that the journal has a new line.
    """

    def __init__(self, address: str | None) -> None:
        self._address = address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)

    @classmethod
    def of_environment(cls) -> Channel:
        """The channel of the rollout that started this kernel; a mute one outside a rollout."""
        return cls(os.environ.get(VARIABLE))

    def send(self, event: dict[str, Any]) -> None:
        """Show one event, its `step` as far as a datagram and a line may hold it."""
        self._send(json.dumps({**event, "step": event["step"][:LONGEST]}, default=str).encode())

    def wake(self) -> None:
        """Say that there is a new line in the journal."""
        self._send(b"")

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def _send(self, datagram: bytes) -> None:
        if self._address is None:
            return
        # display only: a display that is slow or gone must not hold up or fail the work
        with contextlib.suppress(BlockingIOError, ConnectionRefusedError, FileNotFoundError):
            self._socket.sendto(datagram, self._address)


class View(Protocol):
    """What shows a rollout: it is told every entry of the journal, and the progress in between."""

    def entry(self, entry: Entry) -> None:
        """Show an entry of the journal."""

    def progress(self, event: dict[str, Any]) -> None:
        """Show how far a step is."""


class Lines:
    """A line for each section that ends and for what happened in it, for logs and pipes."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._began = time.monotonic()

    def entry(self, entry: Entry) -> None:
        """Print what is worth a line."""
        for line in lines_of(entry):
            elapsed = Text(f"{clock(time.monotonic() - self._began)} ")
            self._console.print(elapsed + line, soft_wrap=True)

    def progress(self, event: dict[str, Any]) -> None:
        """Nothing: a log wants results."""


@dataclass
class _Chapter:
    number: str
    title: str
    began: float
    ended: float | None = None
    outcome: Outcome | None = None


@dataclass
class Board:
    """The chapters with their time and outcome, and below the running one the step that each host is at."""

    console: Console
    _chapters: list[_Chapter] = field(default_factory=list)
    _section: str = ""
    _hosts: dict[str, dict[str, Any]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def entry(self, entry: Entry) -> None:
        """Take in an entry; print what stays above the board."""
        with self._lock:
            match entry["event"]:
                case "chapter_started":
                    self._chapters.append(_Chapter(entry["chapter"], entry["title"], time.monotonic()))
                    self._hosts.clear()  # what was shown while its kernel started
                case "chapter_finished" if self._chapters:
                    self._chapters[-1].ended = time.monotonic()
                    self._chapters[-1].outcome = Outcome(entry["outcome"])
                case "section_started":
                    self._section = f"{entry['section']} {entry['title']}"
                case "section_finished":
                    self._section = ""
                    self._hosts.clear()
                case "step":
                    self._hosts.pop(entry["host"], None)
        for line in lines_of(entry):
            self.console.print(line, soft_wrap=True)

    def progress(self, event: dict[str, Any]) -> None:
        """Take in how far a step is."""
        with self._lock:
            self._hosts[event["host"]] = event

    def __rich__(self) -> Group:
        with self._lock:
            chapters = Table.grid(padding=(0, 2))
            for chapter in self._chapters:
                elapsed = (chapter.ended or time.monotonic()) - chapter.began
                state = self._state(chapter)
                chapters.add_row(chapter.number, chapter.title, clock(elapsed), state)
            hosts = Table.grid(padding=(0, 2))
            for name, event in sorted(self._hosts.items()):
                total = event.get("total") or 0
                bar = ProgressBar(total=total, completed=event.get("done", 0), width=30) if total else ""
                hosts.add_row("  ", name, event["step"], bar)
        return Group(chapters, hosts)

    def _state(self, chapter: _Chapter) -> Text | Spinner:
        if chapter.outcome is None:
            return Spinner("dots", self._section)
        return Text(chapter.outcome, style=COLOURS[chapter.outcome])


class Listener:
    """The rollout's end: shows what the kernels tell, in a thread of its own; a context manager.

    `address` is for the kernels' environment. It sleeps until a datagram comes, so it costs nothing meanwhile.
    """

    def __init__(self, journal: Path, view: View) -> None:
        self._tail = Tail(journal)
        self._view = view
        self._folder = sockets.folder("progress")
        self.address = str(Path(self._folder.name) / "progress")
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(self.address)
        self._ending, self._end = socket.socketpair()
        self._thread = threading.Thread(target=self._listen, name="progress", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._end.close()
        self._thread.join()
        for one in (self._socket, self._ending):
            one.close()
        self._folder.cleanup()

    def _listen(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._socket, selectors.EVENT_READ)
            selector.register(self._ending, selectors.EVENT_READ)
            ended = False
            while not ended:
                ready = {key.fileobj for key, _ in selector.select()}
                ended = self._ending in ready
                if self._socket in ready and (datagram := self._socket.recv(65536)):
                    self._view.progress(json.loads(datagram))
                for entry in self._tail.read():
                    self._view.entry(entry)


@contextlib.contextmanager
def shown(journal: Path, console: Console) -> Iterator[Listener]:
    """Show a rollout on `console` while the block runs: a board in a terminal, lines elsewhere. Gives the Listener."""
    if not console.is_terminal:
        with Listener(journal, Lines(console)) as listener:
            yield listener
        return
    board = Board(console)
    with Live(board, console=console, refresh_per_second=8), Listener(journal, board) as listener:
        yield listener


def lines_of(entry: Entry) -> list[Text]:
    """What an entry of the journal is worth in a log: no line, or one."""
    match entry["event"]:
        case "chapter_started":
            return [Text(f"{entry['chapter']} {entry['title']} ({entry['mode']})", style="bold")]
        case "chapter_finished":
            outcome = Outcome(entry["outcome"])
            reason = f": {entry['reason']}" if outcome is Outcome.DIED else ""  # a failure was told by its section
            return [Text(f"{entry['chapter']} {outcome}{reason}", style=COLOURS[outcome])]
        case "section_finished":
            outcome = Outcome(entry["outcome"])
            error = f": {entry['error']}" if entry.get("error") else ""
            text = f"  {entry['section']} {entry['title']}: {outcome}{error} ({entry['seconds']:.1f} s)"
            return [Text(text, style=COLOURS[outcome])]
        case "step" if Status(entry["status"]) in NEWS:
            return [Text(f"    {entry['status']}: {outcomes.describe(entry)}")]
        case "check":
            verdict = outcomes.verdict(entry)
            said = verdict.upper() if verdict is Verdict.FAILS else verdict
            return [Text(f"    {said}: {outcomes.describe(entry)}")]
        case "gate":
            return [Text(f"    gate {entry['name']}: {entry['answer']} {entry['by']}".rstrip())]
        case "note":
            return [Text(f"note: {entry['text']}", style="yellow")]
        case "stopped":
            return [Text(f"stopped: {entry['reason']}", style="bold red")]
    return []


def clock(seconds: float) -> str:
    """Elapsed time as minutes and seconds."""
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes:02}:{rest:02}"
