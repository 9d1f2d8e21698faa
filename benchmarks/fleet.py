"""Many SSH hosts that are one machine: one sshd answers on as many loopback addresses as a run needs.

What is a host's own (its files, its packages, its service) lies in a folder of its own, named by its address. sshd is
started by the user, from a temporary folder, with keys, configuration and port of its own, listens on the loopback
device only, and is stopped by its process id.
"""

from __future__ import annotations

import getpass
import grp
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

FAKES = Path(__file__).parent / "fakes"
FILES = 10
PACKAGE = "bench-agent"
VERSION = "1.4.2-1.el7"
SERVICE = "bench-agent"

MOST = 500
"""Hosts at most: so many handshakes at once are let in, and so many addresses are given."""

SSHD = shutil.which("sshd", path=f"{os.defpath}:/usr/sbin:/usr/local/sbin")
PRIVILEGE_SEPARATION = Path("/run/sshd")  # where Debian's sshd, run by root, wants an empty folder

# The environment is set for every command: the fakes come first in PATH, and HOME is an empty folder, so that the
# user's own shell start-up files cost no tool anything.
_SSHD_CONFIG = """\
ListenAddress 0.0.0.0:{port} rdomain lo
HostKey {folder}/host_key
PidFile {folder}/sshd.pid
AuthorizedKeysFile {folder}/login_key.pub
AuthenticationMethods publickey
StrictModes no
UsePAM no
UseDNS no
PrintMotd no
PrintLastLog no
LogLevel ERROR
MaxStartups 1000
MaxSessions 100
Subsystem sftp internal-sftp
SetEnv HOME={folder}/home PATH={folder}/bin:/usr/local/bin:/usr/bin:/bin BENCH_HOSTS={folder}/hosts
"""


class BenchmarkError(Exception):
    """The benchmark cannot go on: something is missing, or a tool did not do the work that it was timed for."""


@dataclass(frozen=True)
class Fleet:
    """The hosts, as every tool is told of them. Serialised as fleet.json in `folder`."""

    folder: Path
    count: int
    port: int
    user: str
    group: str
    sshd: int = 0
    """The process id of the sshd that serves them."""

    @classmethod
    def read(cls, folder: str | Path) -> Fleet:
        """The fleet that `start` described in `folder`."""
        data = json.loads((Path(folder) / "fleet.json").read_text())
        return cls(**{**data, "folder": Path(data["folder"])})

    def sized(self, count: int) -> Fleet:
        """The first `count` of the hosts, described in fleet.json and site.yml for the tools to read."""
        fleet = replace(self, count=count)
        (self.folder / "fleet.json").write_text(json.dumps({**asdict(fleet), "folder": str(self.folder)}))
        fleet.site_file.write_text(fleet._site())
        return fleet

    @property
    def hosts(self) -> dict[str, str]:
        """Addresses by name."""
        return {f"host{n:03}": f"127.77.{n // 250}.{n % 250 + 1}" for n in range(self.count)}

    @property
    def key(self) -> Path:
        """The private key to log in with."""
        return self.folder / "login_key"

    @property
    def known_hosts(self) -> Path:
        """Every host's public key."""
        return self.folder / "known_hosts"

    @property
    def site_file(self) -> Path:
        """The parameter file that this core reads."""
        return self.folder / "site.yml"

    def root(self, address: str) -> Path:
        """The folder of what is the host's own."""
        return self.folder / "hosts" / address

    def source(self, address: str) -> Path:
        """The local folder of the files that are meant for a host."""
        return self.folder / "source" / address

    def files(self, address: str) -> dict[Path, Path]:
        """What is to be where on a host: local sources by their targets."""
        return {self.root(address) / "etc" / path.name: path for path in sorted(self.source(address).iterdir())}

    def reset(self) -> None:
        """Make every host bare again."""
        shutil.rmtree(self.folder / "hosts", ignore_errors=True)
        shutil.rmtree(self.folder / "home", ignore_errors=True)
        (self.folder / "home").mkdir()
        for address in self.hosts.values():
            for name in ("etc", "packages", "units"):
                (self.root(address) / name).mkdir(parents=True)

    def check(self) -> None:
        """Raise BenchmarkError unless every host is in the desired state."""
        for name, address in self.hosts.items():
            root = self.root(address)
            wrong = [
                str(target)
                for target, source in self.files(address).items()
                if not target.is_file() or target.read_bytes() != source.read_bytes()
            ]
            installed = root / "packages" / PACKAGE
            if not installed.exists() or installed.read_text().strip() != VERSION:
                wrong.append(f"package {PACKAGE}")
            wrong += [f"{SERVICE} {what}" for what in ("enabled", "active") if not (root / "units" / what).exists()]
            if wrong:
                raise BenchmarkError(f"{name} is not in the desired state: {', '.join(wrong)}")

    def snapshot(self) -> dict[str, tuple[int, int]]:
        """Inode and modification time of all that is on the hosts: what was not touched keeps both."""
        found = {}
        for path in (self.folder / "hosts").rglob("*"):
            stat = path.stat()
            found[str(path)] = (stat.st_ino, stat.st_mtime_ns)
        return found

    def _site(self) -> str:
        lines = [
            "name: bench",
            f"ssh: {{user: {self.user}, port: {self.port}, key: {self.key}, known_hosts: {self.known_hosts}}}",
            "hosts:",
        ]
        lines += [f"  - {{name: {n}, address: {a}, roles: [docker]}}" for n, a in self.hosts.items()]
        return "\n".join(lines) + "\n"

    def prepare(self) -> None:
        """Write keys, known hosts, sshd's configuration, the fakes and the files that the hosts are to get."""
        for name in ("host_key", "login_key"):
            _run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "bench", "-f", str(self.folder / name))
        kind, key, _ = (self.folder / "host_key.pub").read_text().split()
        self.known_hosts.write_text("".join(f"[{a}]:{self.port} {kind} {key}\n" for a in self.hosts.values()))
        (self.folder / "bin").mkdir()
        for fake in FAKES.iterdir():
            shutil.copy(fake, self.folder / "bin" / fake.name)
        for name, address in self.hosts.items():
            source = self.source(address)
            source.mkdir(parents=True)
            for index in range(FILES):
                (source / f"agent-{index:02}.conf").write_text(_content(name, index))
        (self.folder / "sshd_config").write_text(_SSHD_CONFIG.format(folder=self.folder, port=self.port))


def _content(host: str, index: int) -> str:
    lines = [f"# part {index} of the agent's configuration on {host}", f"node={host}", "tickTime=2000"]
    lines += [f"server.{n}=198.51.100.{n}:2888:3888" for n in range(1, 6)]
    return "\n".join([*lines, f"part={index}"]) + "\n"


@contextmanager
def start(count: int) -> Iterator[Fleet]:
    """`count` SSH hosts on loopback addresses, as long as the context lasts. Raises BenchmarkError."""
    if SSHD is None:
        raise BenchmarkError("sshd is missing: install Debian's openssh-server (it need not be running)")
    if os.geteuid() == 0:
        PRIVILEGE_SEPARATION.mkdir(mode=0o755, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="runbook-bench-", ignore_cleanup_errors=True) as folder:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        fleet = Fleet(Path(folder), count, port, getpass.getuser(), grp.getgrgid(os.getgid()).gr_name)
        fleet.prepare()
        sshd = subprocess.Popen(
            [SSHD, "-D", "-f", f"{folder}/sshd_config", "-E", f"{folder}/sshd.log"], start_new_session=True
        )
        try:
            _await_banner(fleet, sshd)
            yield replace(fleet, sshd=sshd.pid).sized(count)
        finally:
            _stop(sshd)


def _await_banner(fleet: Fleet, sshd: subprocess.Popen[bytes], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    address = next(iter(fleet.hosts.values()))
    while sshd.poll() is None and time.monotonic() < deadline:
        try:
            with socket.create_connection((address, fleet.port), timeout=1.0) as connection:
                if connection.recv(4) == b"SSH-":
                    return
        except OSError:
            time.sleep(0.02)  # a refused connection returns at once: nothing to wait for but the listener
    log = (fleet.folder / "sshd.log").read_text() if (fleet.folder / "sshd.log").exists() else ""
    raise BenchmarkError(f"sshd did not start: {log.strip()}")


def _stop(sshd: subprocess.Popen[bytes]) -> None:
    """End sshd; the connections' processes end with their clients, which are gone by now."""
    sshd.terminate()
    try:
        sshd.wait(10)
    except subprocess.TimeoutExpired:
        sshd.send_signal(signal.SIGKILL)
        sshd.wait()


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise BenchmarkError(f"{command[0]} failed: {done.stderr.strip()}")
