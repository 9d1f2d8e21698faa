"""Files that appear whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from runbook.errors import RecordError

TEMPORARY = ".unfinished-"  # how the name of a file begins that is still being written


SOCKET_PATH = 107
"""Bytes that the path of a Unix socket may have (unix(7))."""
SOCKET_NAME = 48
"""Bytes that are kept for what tempfile and the owner of a socket add to a directory's path."""


def short_temporary_directory() -> str:
    """Return the directory for temporary files, or where its path leaves Unix sockets no room, the system's own.

    Raises RecordError where there is none.
    """
    places = [tempfile.gettempdir(), "/tmp", "/var/tmp", "/dev/shm"]
    for place in places:
        if len(os.fsencode(place)) <= SOCKET_PATH - SOCKET_NAME and os.access(place, os.W_OK | os.X_OK):
            return place
    raise RecordError(
        f"no directory for Unix sockets: of {', '.join(places)}, none is writable and shorter than "
        f"{SOCKET_PATH - SOCKET_NAME} bytes",
        "set TMPDIR to a writable directory with a short path",
    )


def create(path: Path, content: bytes) -> None:
    """Write a new file, synced, that nobody sees half written.

    Raises FileExistsError where there is one already, and RecordError where it cannot be written.
    """
    with _written_beside(path, content) as written:
        os.link(written, path)


def replace(path: Path, content: bytes) -> None:
    """Put `content` in the place of a file, synced: who reads it sees the earlier content or this one.

    Raises RecordError where it cannot be written.
    """
    with _written_beside(path, content) as written:
        os.replace(written, path)


@contextmanager
def _written_beside(path: Path, content: bytes) -> Iterator[Path]:
    try:
        with _temporary(path, content) as written:
            yield written
        sync_folder(path.parent)
    except FileExistsError:
        raise
    except OSError as error:
        raise RecordError(
            f"{path}: cannot be written: {error.strerror or error}",
            "make room or give the right to write, then run again; the journal tells what happened so far",
        ) from error


@contextmanager
def _temporary(path: Path, content: bytes) -> Iterator[Path]:
    handle, name = tempfile.mkstemp(prefix=TEMPORARY, dir=path.parent)
    written = Path(name)
    try:
        with open(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fchmod(handle, 0o644)
            os.fsync(handle)
        yield written
    finally:
        written.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """See to it that the names in a folder, too, are on the disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
