"""The journal: what happened, one JSON line an event, appended and never changed.

Every line carries its number (`seq`), its time (`time`, UTC), and the SHA-256 of the line before it (`prev`, 64
zeros in the first), so a line that is altered, removed or put in later breaks the chain at a place that can be
named. A line is on the disk before `append` returns.

Several processes write one journal (the rollout and its kernels): each append holds an exclusive `flock` while it
finds the last line and writes the next. A power loss may tear the last line. It stays as it is: the next append ends
it and puts a `torn_line` entry behind it, whose `prev` covers the fragment and whose `before` covers the line before
that. A fragment that no such entry owns up to is a fault.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from runbook.errors import RecordError
from runbook.rollout import files

GENESIS = "0" * 64
NAME = "journal.jsonl"
UNREADABLE = (LookupError, TypeError, ValueError, AttributeError, RecursionError)
"""What it leads to when content of the wrong form is taken for a record's."""

Entry = dict[str, Any]


@dataclass(frozen=True)
class Fault:
    """A place in a record that is not as it was written: `line` counts from 1, and is 0 for a file as a whole."""

    file: Path
    line: int
    message: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.message}" if self.line else f"{self.file}: {self.message}"


def utc_now() -> str:
    """The present time as the records write it: ISO 8601, UTC, milliseconds."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class Journal:
    """A journal opened for appending; threads and processes may share the file.

    Raises RecordError where the file cannot be written, or was cut while it was open.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._one_thread = threading.Lock()
        try:
            self._file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise self._unwritable(error) from error
        self._end = 0  # up to where the lines are counted
        self._lines = 0
        self._last = GENESIS

    def append(self, event: Mapping[str, Any], prepare: Callable[[bytes], None] | None = None) -> Entry:
        """Write one event; when this returns, it is on the disk. Gives the entry as written.

        `prepare` is called with the whole journal as it will be, while nobody else can write it, before the entry is
        written; what it raises leaves the journal as it is.
        """
        with self._exclusive():
            fragment = self._catch_up()
            if fragment:
                self._end_fragment(fragment)
            return self._write(event, prepare=prepare)

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        with self._one_thread:
            if self._file >= 0:
                os.close(self._file)
                self._file = -1

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        with self._one_thread:
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX)
                try:
                    yield
                finally:
                    fcntl.flock(self._file, fcntl.LOCK_UN)
            except OSError as error:
                raise self._unwritable(error) from error

    def _catch_up(self) -> bytes:
        """Count the lines that others wrote since the last look; gives what follows the last whole line."""
        size = os.fstat(self._file).st_size
        if size < self._end:
            raise RecordError(
                f"{self.path}: the journal was cut from {self._end} to {size} bytes while it was in use",
                "keep the folder as it is, find out who cut it, and start a new rollout",
            )
        text = _read(self._file, self._end, size)
        *lines, fragment = text.split(b"\n")
        for line in lines:
            self._count(line)
        return fragment

    def _end_fragment(self, fragment: bytes) -> None:
        counted = self._end, self._lines, self._last
        self._count(fragment)
        try:
            if _parse(fragment) is None:
                torn = {"event": "torn_line", "line": self._lines, "bytes": len(fragment), "before": counted[2]}
                self._write(torn, first=b"\n")
            else:  # the whole line was there, and only its end was lost
                self._put(b"\n")
        except BaseException:
            self._end, self._lines, self._last = counted
            raise

    def _write(
        self, event: Mapping[str, Any], first: bytes = b"", prepare: Callable[[bytes], None] | None = None
    ) -> Entry:
        entry: Entry = {"seq": self._lines + 1, "time": utc_now(), "prev": self._last, **event}
        line = json.dumps(entry, ensure_ascii=False, default=str).encode()
        if prepare is not None:
            prepare(_read(self._file, 0, self._end) + line + b"\n")
        self._put(first + line + b"\n")
        self._count(line)
        return entry

    def _put(self, content: bytes) -> None:
        """Write to the end of the file, and to the disk, all of this or nothing."""
        size = os.fstat(self._file).st_size
        data = memoryview(content)
        try:
            while data:  # a write may stop short, on a full disk for one
                data = data[os.write(self._file, data) :]
            os.fsync(self._file)
        except OSError:
            with suppress(OSError):  # what cannot be taken back is a torn line, which the next append ends
                os.ftruncate(self._file, size)
            raise

    def _count(self, line: bytes) -> None:
        self._end += len(line) + 1
        self._lines += 1
        self._last = digest(line)

    def _unwritable(self, error: OSError) -> RecordError:
        return RecordError(
            f"{self.path}: cannot write the journal: {error.strerror or error}",
            "nothing goes on unrecorded: make room or give the right to write, then run again",
        )


class Tail:
    """Follows a journal that others write; `read` gives the entries that were added since the last call."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._end = 0

    def read(self) -> list[Entry]:
        """Entries not given yet, in order; a line that is still being written is left for the next call."""
        try:
            with self.path.open("rb") as file:
                file.seek(self._end)
                text = file.read()
        except FileNotFoundError:
            return []
        *lines, unfinished = text.split(b"\n")
        self._end += len(text) - len(unfinished)
        return [entry for line in lines if (entry := _parse(line)) is not None]


def read(path: Path) -> list[Entry]:
    """All entries of a journal, in order, without judging them (`verify` does); fragments are left out.

    Raises FileNotFoundError, or RecordError where the file cannot be read (`files.read`).
    """
    return entries(files.read(path))


def entries(text: bytes) -> list[Entry]:
    """All entries of a journal's text; fragments are left out."""
    return [entry for line in text.split(b"\n")[:-1] if (entry := _parse(line)) is not None]


def verify(path: Path, last: object = None, text: bytes | None = None) -> list[Fault]:
    """What is wrong with a journal, in the order of its lines; nothing when it is as it was written.

    Each line is vouched for by the hash of it that the next one carries, so a line is told as altered when the one
    that vouches for it is sound itself. Nothing follows the last line: `last` is its hash where a closed record kept
    it, and without it a change of the last line, or its removal, cannot be told. `text` is the file's content, if it
    was read already. Raises what `read` raises.
    """
    text = files.read(path) if text is None else text
    *lines, _ = text.split(b"\n")
    parsed = [_parse(line) for line in lines]
    torn = {
        number - 1: entry
        for number, entry in enumerate(parsed, 1)
        if entry and entry["event"] == "torn_line" and entry.get("line") == number - 1
    }
    told: dict[int, str] = {}
    for number, (line, entry) in enumerate(zip(lines, parsed, strict=True), 1):
        follower = parsed[number] if number < len(lines) else None
        if entry is None:
            if number not in torn:
                told[number] = "altered: not an entry, and no torn_line entry owns up to it"
            elif torn[number].get("prev") != digest(line):
                told[number] = "altered"
        elif number + 1 in torn:
            if torn[number + 1].get("before") != digest(line):
                told[number] = "altered"
        elif follower is not None:
            if follower.get("prev") != digest(line):
                told[number] = _moved(number, entry["seq"], follower["seq"])
        elif number == len(lines) and last not in (None, digest(line)):
            told[number] = "altered, or the lines after it were removed"
    # a line that is altered vouches for nothing: what it says of another one does not count
    vouching = {number: number + 2 if number + 1 in torn else number + 1 for number in told}
    faults = [Fault(path, number, what) for number, what in told.items() if vouching[number] not in told]
    if not faults and parsed and parsed[0] and (parsed[0].get("prev"), parsed[0]["seq"]) != (GENESIS, 1):
        faults.append(Fault(path, 1, "the lines before it were removed"))
    return [*faults, *torn_end(path, text)]


def torn_end(path: Path, text: bytes) -> list[Fault]:
    """What follows the last whole line of a journal, as a fault; the next append makes an honest line of it."""
    fragment = text[text.rfind(b"\n") + 1 :]
    message = f"torn: {len(fragment)} bytes without an end, as a power loss does"
    return [Fault(path, text.count(b"\n") + 1, message)] if fragment else []


def _moved(number: int, seq: int, following: int) -> str:
    """What happened between the line `number`, which says it is line `seq`, and one that says it is `following`."""
    if seq != number or following == number + 1:
        return "altered"
    if following <= number:
        return "something was put in after it"
    missing = f"line {number + 1} was" if following == number + 2 else f"lines {number + 1} to {following - 1} were"
    return f"{missing} removed after it"


def digest(data: bytes) -> str:
    """SHA-256 as 64 hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def _parse(line: bytes) -> Entry | None:
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):  # cut short, not UTF-8, or nested deeper than any entry
        return None
    is_entry = isinstance(entry, dict) and isinstance(entry.get("seq"), int) and isinstance(entry.get("event"), str)
    return entry if is_entry else None


def _read(file: int, start: int, end: int) -> bytes:
    pieces = []
    while start < end and (piece := os.pread(file, end - start, start)):
        pieces.append(piece)
        start += len(piece)
    return b"".join(pieces)
