"""Files that appear whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from runbook.errors import RecordError

TEMPORARY = ".unfinished-"  # how the name of a file begins that is still being written


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
