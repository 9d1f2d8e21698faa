"""Loopback SSH servers as the hosts of a site. Their state folder is `state` in each one's home."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import paramiko
import pytest
import yaml
from sshserver import Load, SshServer

from runbook.remote import session, steps
from runbook.remote.hosts import Hosts
from runbook.remote.modes import Mode
from runbook.remote.session import Login, Session, config
from runbook.site import HostParameters, Site


@cache
def host_key(bits: int = 256) -> paramiko.PKey:
    """An ECDSA host key, the same for all hosts: making keys takes time."""
    return paramiko.ECDSAKey.generate(bits=bits)


@cache
def rsa_key() -> paramiko.PKey:
    return paramiko.RSAKey.generate(2048)


@cache
def client_key() -> paramiko.RSAKey:
    return paramiko.RSAKey.generate(2048)


ARRIVAL = 1.0
"""Seconds in which what a host has printed arrives, however busy the machine is."""


@contextmanager
def deadlines_pass(once: Callable[[], bool]) -> Iterator[None]:
    """Within, what sessions have at work passes its deadline once a condition holds, and not by the clock.

    So a test knows how far the host had got, however long that took.
    """

    class Timer(threading.Timer):
        def run(self) -> None:
            while not self.finished.wait(0.02):
                if once() and not self.finished.wait(ARRIVAL):
                    self.function()
                    return

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(threading, "Timer", Timer)
        yield


@dataclass
class Fleet:
    """Hosts named node1, node2, … and the files by which a site reaches them."""

    folder: Path
    servers: dict[str, SshServer]
    load: Load = field(default_factory=Load)

    def __getitem__(self, name: str) -> SshServer:
        return self.servers[name]

    def home(self, host: HostParameters) -> Path:
        return self.servers[host.name].home

    @property
    def known_hosts(self) -> Path:
        return self.folder / "known_hosts"

    def know(self, servers: Iterable[SshServer] | None = None) -> None:
        """Write known_hosts with the keys of some servers (of all of them)."""
        lines = [server.known_hosts() for server in (self.servers.values() if servers is None else servers)]
        self.known_hosts.write_text("".join(lines))

    def site(self, ssh: dict[str, Any] | None = None, **fields: Any) -> Site:
        """The site; `ssh` and the other fields are as in a parameter file."""
        data = {
            "name": "loopback",
            "ssh": {"user": "root", "key": "id", "known_hosts": "known_hosts", **(ssh or {})},
            "hosts": [
                {"name": name, "address": server.address, "roles": ["docker"], "ssh": {"port": server.port}}
                for name, server in self.servers.items()
            ],
            **fields,
        }
        return Site.parse(yaml.safe_dump(data), self.folder / "site.yml")

    @contextmanager
    def hosts(self, mode: Mode = Mode.APPLY, yes: bool = False, **fields: Any) -> Iterator[Hosts]:
        with Hosts.of(self.site(**fields), mode=mode, yes=yes) as hosts:
            yield hosts

    @contextmanager
    def session(self, name: str = "node1", **ssh: Any) -> Iterator[Session]:
        [host] = [host for host in self.site(ssh=ssh).hosts if host.name == name]
        opened = Session(name, Login.of(host), config())
        try:
            yield opened
        finally:
            opened.close()


@contextmanager
def running(folder: Path, count: int) -> Iterator[Fleet]:
    """A fleet of so many hosts."""
    client_key().write_private_key_file(str(folder / "id"))
    load = Load()
    servers = {
        f"node{n}": SshServer(folder / f"node{n}", client_key(), [host_key()], f"127.0.0.{n}", load)
        for n in range(1, count + 1)
    }
    fleet = Fleet(folder, servers, load)
    fleet.know()
    try:
        yield fleet
    finally:
        for server in servers.values():
            server.stop()


def keep_state_at_home(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let scripts stage, lock and back up in the folder where they run."""
    monkeypatch.setattr(steps, "STATE_DIR", "state")
    monkeypatch.setattr(session, "LOCK", "state/lock")
