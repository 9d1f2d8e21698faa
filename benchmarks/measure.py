"""One timed run of a tool: what its user waits for, what it costs, and whether it did the work."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from benchmarks.fleet import BenchmarkError, Fleet
from benchmarks.tools import Tool

DEADLINE = 1800.0
"""Seconds after which a run is given up."""

Kind = Literal["first", "again"]
"""On bare hosts, or on hosts where nothing is left to do."""


@dataclass(frozen=True)
class Run:
    """What one run took: seconds on the clock, seconds of CPU by the client and by sshd with all that it started.

    `others` is how many cores were busy meanwhile with what is neither: how quiet the machine was.
    """

    tool: str
    hosts: int
    kind: Kind
    wall: float
    client: float
    served: float
    others: float


def converge(tool: Tool, fleet: Fleet) -> tuple[Run, Run]:
    """Bring the bare fleet to the desired state, then once more.

    Raises BenchmarkError where the tool fails, where a host is not as it should be after the first run, or where
    anything on a host was touched in the second.
    """
    fleet.reset()
    tool.prepare(fleet)
    first = _timed(tool, fleet, "first")
    fleet.check()
    before = fleet.snapshot()
    again = _timed(tool, fleet, "again")
    if fleet.snapshot() != before:
        raise BenchmarkError(f"{tool.title} touched hosts on which nothing was left to do")
    return first, again


def again(tool: Tool, fleet: Fleet) -> Run:
    """One more run on a fleet that is in the desired state already."""
    tool.prepare(fleet)
    return _timed(tool, fleet, "again")


def _timed(tool: Tool, fleet: Fleet, kind: Kind) -> Run:
    command, environment = tool.command(fleet), {**os.environ, **tool.environment(fleet)}
    log = fleet.folder / "output.log"
    with log.open("wb") as output:
        before, started = _Cpu.now(fleet), time.monotonic()
        process = subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )
        try:
            status = process.wait(DEADLINE)
        except subprocess.TimeoutExpired as error:
            raise BenchmarkError(f"{tool.title} took longer than {DEADLINE:.0f} s on {fleet.count} hosts") from error
        finally:
            if process.returncode is None:  # given up, or told to end: its forks must not outlive it
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        wall = time.monotonic() - started
        spent = _Cpu.now(fleet) - before
    tool.finish(fleet)
    spent = replace(spent, served=_Cpu.now(fleet).served - before.served)  # of the connections that it ended, too
    if status != 0:
        tail = log.read_text(errors="replace")[-2000:]
        raise BenchmarkError(f"{tool.title} ended with status {status} on {fleet.count} hosts:\n{tail}")
    return Run(tool.title, fleet.count, kind, wall, spent.client, spent.served, spent.others / wall)


@dataclass(frozen=True)
class _Cpu:
    """Seconds of CPU spent by the processes that were started here, by sshd and its ended sessions, and by all."""

    client: float
    served: float
    all: float

    @classmethod
    def now(cls, fleet: Fleet) -> _Cpu:
        children = resource.getrusage(resource.RUSAGE_CHILDREN)
        # proc(5): of stat, the fields 14 to 17 are utime, stime, cutime, cstime; of /proc/stat, idle and iowait are the
        # fourth and fifth, and from the eighth on time is counted that is not this machine's, or twice.
        sshd = Path(f"/proc/{fleet.sshd}/stat").read_text().rpartition(")")[2].split()[11:15]
        user, nice, system, _, _, irq, softirq, *_ = Path("/proc/stat").read_text().split()[1:9]
        return cls(
            children.ru_utime + children.ru_stime,
            sum(map(int, sshd)) / _HERTZ,
            sum(map(int, (user, nice, system, irq, softirq))) / _HERTZ,
        )

    def __sub__(self, earlier: _Cpu) -> _Cpu:
        return _Cpu(self.client - earlier.client, self.served - earlier.served, self.all - earlier.all)

    @property
    def others(self) -> float:
        """What is left for all others."""
        return max(0.0, self.all - self.client - self.served)


_HERTZ = os.sysconf("SC_CLK_TCK")
