"""Google's log format, as Mesos writes it: to standard error, and to files in `--log_dir`.

A line is `I1124 19:45:56.124348 13468 contender.cpp:147] Joining the ZK group`. In the log folder each severity has a
file of its own that also holds the severities above it, `mesos-master.HOST.USER.log.INFO.20160531-141238.101776`, and
a link `mesos-master.INFO` to the newest (document, 2.2.7).
"""

import getpass
import os
import socket
import sys
import threading
from datetime import datetime
from pathlib import Path
from typing import NoReturn, TextIO

SEVERITIES = ("INFO", "WARNING", "ERROR", "FATAL")


class Log:
    """Writes glog lines; every method takes the place in Mesos' source that the line comes from, and the message."""

    def __init__(self, program: str, folder: str | None = None, level: str = "INFO") -> None:
        self.program = program
        self.folder = Path(folder) if folder else None
        self.threshold = SEVERITIES.index(level)
        self._lock = threading.Lock()
        self._files: dict[str, TextIO] = {}

    @property
    def path(self) -> Path | None:
        """The link to the newest INFO file, where there is a log folder."""
        return self.folder / f"{self.program}.INFO" if self.folder else None

    def info(self, place: str, message: str) -> None:
        self._write("INFO", place, message)

    def warning(self, place: str, message: str) -> None:
        self._write("WARNING", place, message)

    def error(self, place: str, message: str) -> None:
        self._write("ERROR", place, message)

    def fatal(self, place: str, message: str) -> NoReturn:
        """Log and abort, as a failed CHECK does: exit status 134 in a shell."""
        self._write("FATAL", place, message)
        sys.stderr.write("*** Check failure stack trace: ***\n")
        sys.stderr.flush()
        os.abort()

    def close(self) -> None:
        """Close the files; a daemon leaves that to its end."""
        with self._lock:
            while self._files:
                self._files.popitem()[1].close()

    def _write(self, severity: str, place: str, message: str) -> None:
        rank = SEVERITIES.index(severity)
        if rank < self.threshold:
            return
        now = datetime.now()
        line = f"{severity[0]}{now:%m%d %H:%M:%S.%f} {threading.get_native_id():5d} {place}] {message}\n"
        with self._lock:
            sys.stderr.write(line)
            sys.stderr.flush()
            if self.folder:
                for lower in SEVERITIES[self.threshold : rank + 1]:
                    file = self._files.get(lower) or self._open(self.folder, lower, now)
                    file.write(line)
                    file.flush()

    def _open(self, folder: Path, severity: str, now: datetime) -> TextIO:
        folder.mkdir(parents=True, exist_ok=True)
        host = socket.gethostname()
        name = f"{self.program}.{host}.{getpass.getuser()}.log.{severity}.{now:%Y%m%d-%H%M%S}.{os.getpid()}"
        file = (folder / name).open("a", encoding="utf-8")
        file.write(f"Log file created at: {now:%Y/%m/%d %H:%M:%S}\nRunning on machine: {host}\n")
        file.write("Log line format: [IWEF]mmdd hh:mm:ss.uuuuuu threadid file:line] msg\n")
        link = folder / f"{self.program}.{severity}"
        link.unlink(missing_ok=True)
        link.symlink_to(name)
        self._files[severity] = file
        return file
