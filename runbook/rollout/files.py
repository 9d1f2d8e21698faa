"""Files that appear whole or not at all, and files that are read without trust in what they are."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from runbook.errors import RecordError

TEMPORARY = ".unfinished-"  # how the name of a file begins that is still being written
LARGEST = 256 * 2**20
"""Bytes that `read` reads; a rollout of 300 hosts writes less than a tenth of it."""
LARGEST_HASHED = 4 * 2**30
"""Bytes that `digest` reads."""


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


class NotAFile(RecordError):
    """Something that is no regular file is in a file's place."""


@contextmanager
def prepared(contents: dict[Path, bytes]) -> Iterator[list[tuple[str, Path]]]:
    """Write new files, synced, under temporary names: with room for all of them, only `link` is left to do.

    Gives the temporary name and the path of each; what was not linked is removed. Raises RecordError where one cannot
    be written.
    """
    with ExitStack() as stack:
        written = []
        for path, content in contents.items():
            with _refused(path):
                written.append((str(stack.enter_context(_temporary(path, content))), path))
        yield written


def link(written: list[tuple[str, Path]]) -> None:
    """Give prepared files their names, in this order; a file that is there already is replaced."""
    for name, path in written:
        with _refused(path):
            os.replace(name, path)
            sync_folder(path.parent)


def read(path: Path) -> bytes:
    """The content of a regular file of at most `LARGEST` bytes.

    Raises FileNotFoundError where there is none, NotAFile for a directory, a symbolic link, or a pipe (which is not
    waited for), and RecordError where it is too large or cannot be read.
    """
    with _opened(path, LARGEST) as handle:
        pieces = []
        left = LARGEST + 1
        while left and (piece := os.read(handle, min(left, 2**20))):
            pieces.append(piece)
            left -= len(piece)
        return b"".join(pieces)


def digest(path: Path) -> str:
    """The SHA-256 of a regular file, as 64 hexadecimal digits; raises what `read` raises."""
    with _opened(path, LARGEST_HASHED) as handle, open(handle, "rb", closefd=False) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def names(folder: Path) -> list[str]:
    """All that is in a folder and below it but directories that hold something, relative, sorted.

    Symbolic links are not followed. Raises RecordError where a directory cannot be read.
    """
    found = []
    waiting = [folder]
    while waiting:
        here = waiting.pop()
        with _unreadable(here), os.scandir(here) as entries:
            inside = list(entries)
        waiting += [Path(entry.path) for entry in inside if entry.is_dir(follow_symlinks=False)]
        found += [entry.path for entry in inside if not entry.is_dir(follow_symlinks=False)]
        if not inside and here != folder:
            found.append(str(here))
    return sorted(Path(path).relative_to(folder).as_posix() for path in found)


@contextmanager
def _opened(path: Path, largest: int) -> Iterator[int]:
    with _unreadable(path):
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            status = os.fstat(handle)
            if not stat.S_ISREG(status.st_mode):
                raise NotAFile(f"{path}: is not a regular file", "put the file back that was there")
            if status.st_size > largest:
                raise RecordError(f"{path}: has {status.st_size} bytes, more than the {largest} that are read")
            yield handle
        finally:
            os.close(handle)


@contextmanager
def _unreadable(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise NotAFile(f"{path}: is a symbolic link", "put the file back that was there") from error
        raise RecordError(f"{path}: cannot be read: {error.strerror or error}", "see who may read it") from error


@contextmanager
def _written_beside(path: Path, content: bytes) -> Iterator[Path]:
    with _refused(path):
        with _temporary(path, content) as written:
            yield written
        sync_folder(path.parent)


@contextmanager
def _refused(path: Path) -> Iterator[None]:
    try:
        yield
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
