"""Files on their way into an image or a container: named, with mode and owner, and the same bytes every time."""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Entry:
    """Content of one file, or a folder where `data` is None, or a symbolic link to `link`."""

    data: bytes | None
    mode: int
    owner: int = 0
    link: str = ""


def tree(root: Path) -> dict[str, Entry]:
    """Everything below `root`, by relative path: scripts as 0755, other files as 0644, folders as 0755.

    The modes of the work tree do not matter, for they depend on the umask of whoever cloned it.
    """
    entries = {}
    for path in sorted(root.rglob("*")):
        if path.is_dir():
            entry = Entry(None, 0o755)
        else:
            data = path.read_bytes()
            entry = Entry(data, 0o755 if data.startswith(b"#!") else 0o644)
        entries[path.relative_to(root).as_posix()] = entry
    return entries


def pack(entries: Mapping[str, Entry]) -> bytes:
    """A tar archive of `entries`, in their order, without times or names of users."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, entry in entries.items():
            info = tarfile.TarInfo(name)
            info.mode, info.uid, info.gid = entry.mode, entry.owner, entry.owner
            if entry.link:
                info.type, info.linkname = tarfile.SYMTYPE, entry.link
            elif entry.data is None:
                info.type = tarfile.DIRTYPE
            else:
                info.size = len(entry.data)
            tar.addfile(info, io.BytesIO(entry.data or b""))
    return buffer.getvalue()


def digest(parts: Iterable[bytes]) -> str:
    """Twelve hex digits that name the content of `parts`, which are told apart from their concatenation."""
    total = hashlib.sha256()
    for part in parts:
        total.update(hashlib.sha256(part).digest())
    return total.hexdigest()[:12]
