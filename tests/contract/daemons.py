"""Starts the rehearsal doubles on the loopback, for tests that need masters and slaves of their own."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import requests

import runbook.lab.doubles.mesos as doubles

Json = dict[str, Any]
T = TypeVar("T")
SECONDS = 30.0  # for which a test waits for what must happen


def eventually(ask: Callable[[], T], what: str, seconds: float = SECONDS) -> T:
    """The first true answer of `ask`; a connection that is refused counts as not yet."""
    deadline = time.monotonic() + seconds
    while True:
        with contextlib.suppress(requests.RequestException):
            if answer := ask():
                return answer
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.1)


def free_port() -> int:
    """A port on which nobody listens, below those that the kernel gives to clients."""
    while True:
        port = random.randint(20000, 32000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


class Daemon:
    """A master or slave double as a process of its own; its output goes to a file."""

    def __init__(self, program: str, folder: Path, port: int, flags: list[str]) -> None:
        self.program = program
        self.folder = folder
        self.port = port
        self.flags = flags
        self.url = f"http://127.0.0.1:{port}"
        self.log = folder / "output"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        code = f"from runbook.lab.doubles.mesos.{self.program} import main; main()"
        environment = {key: value for key, value in os.environ.items() if not key.startswith("MESOS_")}
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-c", code, *self.flags], stdout=output, stderr=output, env=environment
            )
        return self

    def answers(self) -> Self:
        """Wait until it serves HTTP."""
        eventually(lambda: requests.get(f"{self.url}/version", timeout=5).ok, f"{self.program} answers: {self.text()}")
        return self

    def get(self, path: str) -> Any:
        answer = requests.get(f"{self.url}{path}", timeout=10)
        assert answer.status_code == 200, f"{path}: {answer.status_code} {answer.text}"
        return answer.json()

    def text(self) -> str:
        return self.log.read_text(encoding="utf-8") if self.log.exists() else ""

    def signal(self, number: int) -> None:
        assert self.process
        self.process.send_signal(number)

    def ends(self, seconds: float = SECONDS) -> int:
        """Wait for its end and give the exit status, negative for a signal."""
        assert self.process
        return self.process.wait(seconds)

    def stop(self) -> None:
        if self.process and self.process.poll() is None:
            self.signal(signal.SIGKILL)
            self.process.wait()


class Mesos:
    """Masters and slaves of one test, with a path of their own in ZooKeeper."""

    def __init__(self, zookeeper: str, folder: Path) -> None:
        self.zookeeper = zookeeper
        self.folder = folder
        self.path = f"/{folder.name}-{os.getpid()}/mesos"
        self.masters: list[Daemon] = []
        self.slaves: list[Daemon] = []
        launchers = folder / "libexec"
        launchers.mkdir(parents=True)
        (launchers / "mesos-executor").symlink_to(Path(doubles.__file__).with_name("executor.py"))

    @property
    def zk(self) -> str:
        return f"zk://{self.zookeeper}{self.path}"

    def master(self, *flags: str, quorum: int = 1) -> Daemon:
        port = free_port()
        folder = self.folder / f"master{len(self.masters)}"
        common = ["--ip=127.0.0.1", f"--port={port}", f"--zk={self.zk}", f"--work_dir={folder}", "--cluster=rehearsal"]
        sessions = ["--zk_session_timeout=4secs", f"--quorum={quorum}"]
        self.masters.append(Daemon("master", folder, port, [*common, *sessions, *flags]))
        return self.masters[-1].start()

    def slave(self, *flags: str, resources: str = "cpus:2;mem:1024;ports:[8401-8599,8601-9100]") -> Daemon:
        port = free_port()
        folder = self.folder / f"slave{len(self.slaves)}"
        common = ["--ip=127.0.0.1", f"--port={port}", f"--master={self.zk}", f"--work_dir={folder}"]
        local = ["--no-systemd_enable_support", f"--launcher_dir={self.folder}/libexec", f"--resources={resources}"]
        self.slaves.append(
            Daemon("slave", folder, port, [*common, *local, "--registration_backoff_factor=100ms", *flags])
        )
        return self.slaves[-1].start()

    def leader(self) -> Daemon:
        """The master that is elected and has recovered."""

        def find() -> Daemon | None:
            for master in self.masters:
                if master.process and master.process.poll() is None and "Successfully recovered" in master.text():
                    return master
            return None

        return eventually(find, "a master leads")

    def registered(self, count: int, seconds: float = SECONDS) -> list[Json]:
        """The active slaves of the leader, once there are `count`."""

        def find() -> list[Json] | None:
            slaves = [slave for slave in self.leader().get("/slaves")["slaves"] if slave["active"]]
            return slaves if len(slaves) == count else None

        return eventually(find, f"{count} active slaves", seconds)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for daemon in [*self.masters, *self.slaves]:
            daemon.stop()
        eventually(self._has_ended, "executors and their tasks end")

    def _has_ended(self) -> bool:
        """Kill what runs; an executor that was just starting may yet start its task, so look until there is nothing."""
        left = self.executors()
        for executor in left:
            with contextlib.suppress(ProcessLookupError):  # ended meanwhile
                os.killpg(executor, signal.SIGKILL)
        return not left

    def executors(self) -> list[int]:
        """The pids of the executors and tasks that still run below this folder, each a process group of its own."""
        found = []
        for entry in Path("/proc").glob("[0-9]*/cwd"):
            try:
                pid = int(entry.parent.name)
                if self.folder.resolve() in entry.resolve(strict=True).parents and os.getpgid(pid) == pid:
                    found.append(pid)
            except OSError:
                continue  # ended meanwhile, or another user's
        return found
