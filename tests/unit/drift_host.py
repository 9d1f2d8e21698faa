"""A host for tests of drift: its files lie below a folder of the test; systemctl and rpm are small programs there."""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from local_host import LocalHost

from runbook.lab.waiting import until
from runbook.remote.steps import Change, Step

_SYSTEMCTL = """\
case $1 in
  (show) grep -E "^($(echo "$3" | sed 's/,/|/g; s/EnvironmentFiles/EnvironmentFile/'))=" {root}/properties;;
  (show-environment) cat {root}/manager 2>/dev/null;;
  (*) echo "$@" >> {root}/calls;;
esac
"""
_RPM = """\
case $1 in
  (-qf) grep -qxF "$2" {root}/owned;;
  (-V) cat {root}/verify 2>/dev/null; exit 1;;
  (-q) echo 1;;
esac
"""


class Rooted(Step):
    """A step whose host's root is a folder of the test, but for its programs."""

    def __init__(self, step: Step, root: Path) -> None:
        self.step = step
        self.root = root

    @property
    def label(self) -> str:
        return self.step.label

    def _moved(self, script: str) -> str:
        return re.sub(r"(?<![\w/.])/(?=(?:etc|run|usr|var)/)", f"{self.root}/", script)

    def probe(self) -> str:
        return self._moved(self.step.probe())

    def plan(self, state: str, pending: frozenset[str] = frozenset()) -> Change | None:
        return self.step.plan(state.replace(f"{self.root}/", "/"), pending)

    def script(self, change: Change) -> str:
        return self._moved(self.step.script(change))


@dataclass(frozen=True)
class _Script(Step):
    """A script in the place of a probe."""

    text: str

    @property
    def label(self) -> str:
        return "script"

    def probe(self) -> str:
        return self.text

    def plan(self, state: str, pending: frozenset[str] = frozenset()) -> Change | None:
        return None

    def script(self, change: Change) -> str:
        return ":"


def _await_later_than_start(pid: int) -> None:
    """Return once the clock is beyond the resolution with which the start of a process is known (`man 5 proc`)."""
    tick = 1 / os.sysconf("SC_CLK_TCK")
    started = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]) * tick
    # The start is rounded down to a tick, and so is the uptime from which the probe reckons it in the host's time;
    # a file is dated by a clock that steps with the kernel's timer, which may run at 100 Hz.
    until(lambda: time.clock_gettime(time.CLOCK_BOOTTIME) >= started + 10 * tick, seconds=10, pause=tick)


@dataclass
class DriftHost:
    """`properties` are what `systemctl show` prints; `owned` are the paths that packages own."""

    shell: LocalHost
    root: Path
    properties: dict[str, str] = field(default_factory=dict)
    owned: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        programs = self.root / "bin"
        programs.mkdir()
        for name, text in {"systemctl": _SYSTEMCTL, "rpm": _RPM}.items():
            (programs / name).write_text(f"#!/bin/sh\n{text.format(root=self.root)}")
            (programs / name).chmod(0o755)
        self.shell.environment["PATH"] = f"{programs}:{os.environ['PATH']}"

    def file(self, path: str, text: str, *, owned: bool = False) -> Path:
        """Write a file of the host; with `owned`, a package brought it."""
        target = self.root / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
        if owned:
            self.owned.append(str(target))
        return target

    def state(self, step: Step) -> str:
        """What the probe of a step prints now."""
        (self.root / "properties").write_text("".join(f"{key}={value}\n" for key, value in self.properties.items()))
        (self.root / "owned").write_text("".join(f"{path}\n" for path in self.owned))
        return self.shell.probe(Rooted(step, self.root)).replace(f"{self.root}/", "/")

    def plan(self, step: Step) -> Change | None:
        """What a step plans now."""
        return step.plan(self.state(step))

    def output(self, script: str) -> str:
        """What a script prints, its paths moved below the folder of the test."""
        return self.state(_Script(script))

    @contextmanager
    def running(self, *words: str, **environment: str) -> Iterator[None]:
        """Within, the unit's process has these words at the end of its command line, and this environment.

        It is younger than the files that are there, and older than each that is written within.
        """
        for path in (self.root / "etc").rglob("*"):
            os.utime(path, (0, 0))
        variables = {"PATH": os.environ["PATH"], **environment}
        with subprocess.Popen(["sh", "-c", "sleep 120; :", *words], env=variables) as process:
            self.properties["MainPID"] = str(process.pid)
            _await_later_than_start(process.pid)
            try:
                yield
            finally:
                self.properties["MainPID"] = "0"
                process.kill()
