"""The Docker engine below a lab: the one that answers, or else one of our own.

Our own is `dockerd` started by hand, with its data, socket and log apart from any other engine of the machine. It
leaves the machine's firewall and forwarding as they are (nodes have no way out of their network anyway) and has no
default bridge, so that several such engines and a regular one can live side by side. It is known by its command
line, which names this lab's configuration file: a pid file may be stale, and its pid another process's by now.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import docker
from docker.errors import DockerException
from docker.models.containers import Container

from runbook.errors import LabError
from runbook.lab.folder import Folder
from runbook.lab.waiting import turn, until

Progress = Callable[[str], None]

DEFAULT = "unix:///var/run/docker.sock"

LONG = 900
"""Seconds that one request may take: a build step and an import are one request."""

ENVIRONMENT = {**os.environ, "PATH": f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"}
"""dockerd and iptables lie where a plain user's (or cron's) PATH does not look."""


@dataclass(frozen=True)
class Output:
    """What a command in a container printed, and its exit status."""

    stdout: str
    stderr: str
    status: int


@dataclass(frozen=True)
class Engine:
    """A Docker engine that answers at `address` (as DOCKER_HOST has it). `ours`: this lab started it."""

    client: docker.DockerClient
    address: str
    ours: bool


def find(folder: Folder) -> Engine | None:
    """The engine that this lab uses, if it answers: DOCKER_HOST's, else our own, else the default socket's.

    LabError where DOCKER_HOST is set and does not answer: the user meant that one and no other.
    """
    meant = os.environ.get("DOCKER_HOST")
    if meant:
        engine = _answering(meant)
        if engine is None:
            raise LabError(
                f"no Docker engine answers at DOCKER_HOST={meant}",
                "start it, or unset DOCKER_HOST to let the lab find or start one",
            )
        return engine
    if folder.engine_config.exists():
        return _answering(f"unix://{folder.socket}", ours=True)
    return _answering(DEFAULT)


def ensure(folder: Folder, progress: Progress) -> Engine:
    """The engine that this lab uses, started or mended (and, on Debian as root, installed) where none answers.

    LabError says in one line what is missing where that cannot be.
    """
    engine = find(folder)
    if engine is not None:
        return engine
    if os.geteuid() != 0:
        raise LabError(
            "no Docker engine answers, and only root can start one",
            "run as root, or start Docker and let this user reach it (DOCKER_HOST, or the group docker)",
        )
    if not _commands("dockerd", "iptables"):
        progress("installing Docker")
        install("docker.io", "iptables")
        engine = find(folder)  # where systemd runs, the package starts its own
        if engine is not None:
            return engine
    progress("starting a Docker engine")
    return _start(folder)


def remove(folder: Folder) -> None:
    """Stop our own engine, where there is one, and remove its data. The nodes must have been removed before."""
    pid = process(folder, "dockerd")
    if pid is not None:
        os.kill(pid, signal.SIGTERM)
        try:
            until(lambda: process(folder, "dockerd") is None, seconds=60)
        except TimeoutError:
            raise LabError(
                f"the lab's Docker engine does not end: process {pid}", f"read {folder.engine_log}"
            ) from None
    for path in (folder.runtime, folder.engine_data):
        for point in mounts_below(path, Path("/proc/self/mounts").read_text()):
            subprocess.run(["umount", point], check=True)
        if path.exists():
            shutil.rmtree(path)
    folder.engine_config.unlink(missing_ok=True)
    folder.engine_log.unlink(missing_ok=True)


def mounts_below(path: Path, table: str) -> list[Path]:
    """Mounts at or below `path` in a /proc/PID/mounts, the latest first. An engine that was killed once leaves some."""
    points = [line.split(" ")[1] for line in table.splitlines()]
    plain = [Path(re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), point)) for point in points]
    return [point for point in reversed(plain) if point.is_relative_to(path)]


def install(*packages: str) -> None:
    """Install Debian packages on this machine; LabError where that is not possible."""
    if not _commands("apt-get"):
        raise LabError(
            f"{' and '.join(packages)} missing, and there is no apt-get to install from",
            "on other systems than Debian and Ubuntu, install and start Docker first",
        )
    command = ["apt-get", "-qy", "-o", "DPkg::Lock::Timeout=120", "--no-install-recommends", "install", *packages]
    environment = {**ENVIRONMENT, "DEBIAN_FRONTEND": "noninteractive"}
    with turn("packages", seconds=LONG):  # apt-get waits for dpkg's lock, but not for that of its lists
        if _run(command, environment).returncode == 0:
            return
        _run(["apt-get", "-q", "update"], environment)  # a bare machine has no lists, an old one stale ones
        second = _run(command, environment)
    if second.returncode != 0:
        raise LabError(
            f"apt-get could not install {' '.join(packages)}: {last_line(second.stdout)}",
            "check the machine's package sources and its network, or start a Docker engine yourself",
        )


def execute(container: Container, argv: Sequence[str]) -> Output:
    """Run a command in a container, as root."""
    done = container.exec_run(list(argv), demux=True)
    streams: tuple[bytes | None, bytes | None] = done.output  # type: ignore[assignment]  # demux makes two of one
    stdout, stderr = ((part or b"").decode(errors="replace") for part in streams)
    if done.exit_code is None:
        raise LabError(f"{container.name} ended while it ran {argv[0]}", "run `runbook lab up`")
    return Output(stdout, stderr, done.exit_code)


def last_line(text: str) -> str:
    """The last line of a command's output that says something."""
    return last_lines(text, 1)


def last_lines(text: str, count: int) -> str:
    """The last lines of a command's output that say something."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return "\n".join(lines[-count:]) or "(no output)"


def _run(command: list[str], environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


def _commands(*names: str) -> bool:
    return all(shutil.which(name, path=ENVIRONMENT["PATH"]) for name in names)


def _answering(address: str, *, ours: bool = False) -> Engine | None:
    """The engine at `address`, if it answers within 5 seconds."""
    if address.startswith("unix://") and not _listens(address.removeprefix("unix://")):
        return None
    try:
        client = docker.DockerClient(base_url=address, timeout=5)  # asks for the engine's version
    except DockerException:
        return None
    client.api.timeout = LONG
    return Engine(client, address, ours)


def _listens(path: str) -> bool:
    """Whether a process listens at a socket; LabError where it does, and this user may not talk to it."""
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            outcome = connection.connect_ex(path)
        except OSError as error:  # a path that is longer than a socket's may be
            raise LabError(f"no Docker engine can listen at {path}: {error}", "correct DOCKER_HOST") from error
    if outcome in (errno.EACCES, errno.EPERM):
        raise LabError(
            f"this user may not talk to the Docker engine at {path}",
            "run as root, or add the user to the socket's group (see `ls -l`), or name another engine in DOCKER_HOST",
        )
    return outcome == 0


def _start(folder: Folder) -> Engine:
    folder.path.mkdir(parents=True, exist_ok=True)
    folder.runtime.mkdir(mode=0o711, exist_ok=True)
    if process(folder, "dockerd") is None:
        _configure(folder)
        _forget_the_dead(folder)
        with folder.engine_log.open("ab") as log:
            # The flag cannot be given in the file. Forked by setsid, the engine is no child of ours and outlives us.
            command = ["setsid", "--fork", "dockerd", "--config-file", str(folder.engine_config)]
            command += ["--containerd-plugins-namespace", f"runbook-lab-{folder.id}-plugins"]
            subprocess.run(
                command,
                env=ENVIRONMENT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                check=True,
            )
    engine = _await_engine(folder)
    if engine is None:
        said = last_line(folder.engine_log.read_text(errors="replace"))
        raise LabError(f"the lab's Docker engine did not come up: {said}", f"read {folder.engine_log}")
    return engine


def _await_engine(folder: Folder) -> Engine | None:
    """Our engine, once it answers; None where it ended, or has not answered for a minute."""

    def outcome() -> tuple[Engine | None] | None:
        running = process(folder, "dockerd") is not None  # asked first: it may end while we connect
        engine = _answering(f"unix://{folder.socket}", ours=True)
        return None if engine is None and running else (engine,)

    try:
        until(lambda: process(folder, "dockerd"), seconds=5)  # setsid comes before it
        (engine,) = until(outcome, seconds=60)
    except TimeoutError:
        return None
    return engine


def _configure(folder: Folder) -> None:
    """Write the engine's configuration; a file of its own, so that /etc/docker/daemon.json does not interfere."""
    configuration = {
        "data-root": str(folder.engine_data),
        "exec-root": str(folder.runtime / "exec"),
        "pidfile": str(folder.runtime / "docker.pid"),
        "hosts": [f"unix://{folder.socket}"],
        "containerd-namespace": f"runbook-lab-{folder.id}",  # where a containerd of the system is used
        "bridge": "none",
        "iptables": False,
        "ip-forward": False,
        "live-restore": True,  # nodes outlive a killed engine
        "log-level": "warn",
    }
    folder.engine_config.write_text(json.dumps(configuration, indent=2) + "\n")


def _forget_the_dead(folder: Folder) -> None:
    """Remove what a killed engine left behind and a new one would believe: pid files, whose pids may be reused."""
    (folder.runtime / "docker.pid").unlink(missing_ok=True)
    folder.socket.unlink(missing_ok=True)
    if process(folder, "containerd") is None:
        (folder.runtime / "exec" / "containerd" / "containerd.pid").unlink(missing_ok=True)


def process(folder: Folder, program: str) -> int | None:
    """The pid of our engine's `dockerd` or `containerd`, known by the configuration that its command line names."""
    mark = {
        "dockerd": str(folder.engine_config),
        "containerd": str(folder.runtime / "exec" / "containerd" / "containerd.toml"),
    }[program]
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            arguments = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended while we looked
        if Path(arguments[0]).name == program and mark in arguments:
            return int(entry.name)
    return None
