"""Where things are, from wherever one starts."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path


def read_regular(path: str | Path, most: int) -> bytes:
    """The content of a regular file of at most `most` bytes.

    Raises OSError, whose `strerror` says what is wrong, where it cannot be read, is something else (a FIFO, a socket or
    a device could block or never end) or is longer.
    """
    # Opened first and judged then, so that what is judged is what is read. O_NONBLOCK: a FIFO must not block.
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK | os.O_NOCTTY)) as file:
        refuse_special(file.fileno(), path)
        content = file.read(most + 1)
    if len(content) > most:
        raise OSError(errno.EFBIG, f"it is longer than {most} bytes", str(path))
    return content


def refuse_special(file: int | str | Path, path: str | Path) -> os.stat_result:
    """The status of an open or a named file. Raises OSError where it is no regular file; `path` is its name."""
    status = os.stat(file)
    if not stat.S_ISREG(status.st_mode):
        number = errno.EISDIR if stat.S_ISDIR(status.st_mode) else errno.EINVAL
        reason = os.strerror(errno.EISDIR) if number == errno.EISDIR else "it is not a regular file"
        raise OSError(number, reason, str(path))
    return status


def upwards(path: str | Path) -> Path:
    """`path`, looked up in the working folder and then in those above it; unchanged where it is nowhere.

    So `parameters/lab.yml` means the same in JupyterLab, whose kernels start in notebooks/, and at the top.
    """
    wanted = Path(path)
    here = Path.cwd()
    for folder in (here, *here.parents):
        if os.path.exists(folder / wanted):  # Path.exists() raises an error for a name that is too long
            return wanted if folder == here else folder / wanted
    return wanted
