"""Folders for Unix sockets, whose paths the kernel limits however long the path of TMPDIR is."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from runbook.errors import RunbookError

LIMIT = 103 if sys.platform == "darwin" else 107
"""Bytes of a socket's path: `sun_path` of unix(7) has 108 with the NUL at its end, of macOS 104."""


def root(below: str) -> Path:
    """The first folder of TMPDIR, XDG_RUNTIME_DIR and /tmp in which a socket at `below` keeps within LIMIT.

    `below` is the longest path, relative to the folder. Raises RunbookError where none is short enough and writable.
    """
    candidates = list(_candidates())
    for folder in candidates:
        if len(os.fsencode(folder / below)) <= LIMIT and os.access(folder, os.W_OK | os.X_OK):
            return folder
    raise RunbookError(
        f"no folder for Unix sockets: their paths are limited to {LIMIT} bytes, and {', '.join(map(str, candidates))} "
        "is too long or not writable",
        "set TMPDIR to a short path of a folder that is writable",
    )


def _candidates() -> Iterator[Path]:
    yield Path(tempfile.gettempdir()).absolute()
    if (runtime := os.environ.get("XDG_RUNTIME_DIR", "")).startswith("/"):
        yield Path(runtime)
    yield Path("/tmp")


def folder(longest: str) -> tempfile.TemporaryDirectory[str]:
    """A new private folder in which a socket named `longest` keeps within LIMIT; a context manager that removes it."""
    return tempfile.TemporaryDirectory(prefix="runbook-", dir=root(f"runbook-{'x' * 8}/{longest}"))
