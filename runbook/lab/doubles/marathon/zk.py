"""ZooKeeper: who leads, and what is kept.

`/marathon/leader/member_NNNNNNNNNN` are the instances, ephemeral, each `hostname:http_port`; the lowest sequence leads.
`/marathon/state/` holds `framework:id`, `group:root`, `app:ID:VERSION`, `task:ID`, `taskFailure:ID` and
`deployment:ID`, as JSON.
"""

import json
import re
import threading
from collections.abc import Callable
from typing import Any

from kazoo.client import KazooClient, KazooState
from kazoo.exceptions import KazooException, NodeExistsError, NoNodeError
from kazoo.handlers.threading import SequentialThreadingHandler
from kazoo.retry import KazooRetry

Json = dict[str, Any]
PATIENCE = 2.0  # seconds for one answer of ZooKeeper, and between attempts
LONGEST = 40.0  # seconds of a session that ZooKeeper gives at most, by its defaults


class _Handler(SequentialThreadingHandler):  # type: ignore[misc]  # kazoo has no types
    """kazoo waits for a member whose host is down as long as a session lasts, which may end over it; this does not."""

    def create_connection(self, *args: Any, **kwargs: Any) -> Any:
        return super().create_connection(*args, **(kwargs | {"timeout": PATIENCE}))


def client(url: str, session_timeout: float) -> tuple[KazooClient, str]:
    """A client for `zk://[user:password@]host:port,.../path`, and that path; ValueError where it is no such URL."""
    match = re.fullmatch(r"zk://(?:([^@/]+)@)?([^/]+)(/.+)", url)
    if match is None:
        raise ValueError(f"{url} is not of the form zk://host1:port1,host2:port2,.../path")
    credentials, hosts, path = match.groups()
    for host in hosts.split(","):
        if not re.fullmatch(r".+:\d+", host):
            raise ValueError(f"{url}: {host} has no port")
    made = KazooClient(
        hosts,
        timeout=min(session_timeout, LONGEST),
        handler=_Handler(),
        connection_retry=KazooRetry(max_tries=-1, delay=0.2, max_delay=PATIENCE),
        command_retry=KazooRetry(max_tries=10, delay=0.2, max_delay=PATIENCE),
    )
    if credentials:
        made.add_auth("digest", credentials)
    return made, path.rstrip("/")


class Election(threading.Thread):
    """Stands for election with `me`, and tells `changed`, from its own thread, whenever it comes to lead or stops to.

    `leader` is who leads (`host:port`), as last seen; None where nobody is known to.
    """

    def __init__(self, zookeeper: KazooClient, path: str, me: str, changed: Callable[[bool], None]) -> None:
        super().__init__(name="election", daemon=True)
        self.leader: str | None = None
        self._zookeeper = zookeeper
        self._folder = f"{path}/leader"
        self._me = me
        self._changed = changed
        self._leads = False
        self._member: str | None = None
        self._wake = threading.Event()
        self._state = KazooState.LOST
        zookeeper.add_listener(self._heard)

    def run(self) -> None:
        self._zookeeper.start_async()
        while True:
            self._wake.wait()
            self._wake.clear()
            if self._state == KazooState.LOST:
                self._member = None
                self._show(None, leads=False)
            elif self._state == KazooState.CONNECTED:
                try:
                    self._look()
                except (KazooException, self._zookeeper.handler.timeout_exception):
                    self._wake.wait(PATIENCE)
                    self._wake.set()

    def abdicate(self) -> None:
        """Stand again, behind the others."""
        if self._member:
            self._zookeeper.delete(f"{self._folder}/{self._member}")

    def restart(self) -> None:
        """Stop to lead, and begin anew from what ZooKeeper holds."""
        self._leads = False
        self._wake.set()

    def _heard(self, state: str) -> None:
        """kazoo's listener: must not ask ZooKeeper anything itself."""
        self._state = state
        self._wake.set()

    def _look(self) -> None:
        self._zookeeper.ensure_path(self._folder)
        names = self._members()
        if self._member not in names:
            created = self._zookeeper.create(
                f"{self._folder}/member_", self._me.encode(), ephemeral=True, sequence=True
            )
            self._member = created.rpartition("/")[2]
            names = self._members()
        for name in names:
            try:
                data, _ = self._zookeeper.get(f"{self._folder}/{name}")
            except NoNodeError:
                continue  # ended meanwhile; the watch tells
            self._show(data.decode(), leads=name == self._member)
            return

    def _members(self) -> list[str]:
        names = self._zookeeper.get_children(self._folder, watch=lambda event: self._wake.set())
        return sorted(name for name in names if name.startswith("member_"))

    def _show(self, leader: str | None, leads: bool) -> None:
        self.leader = leader
        if leads != self._leads:
            self._changed(leads)
            self._leads = leads


class Store:
    """What Marathon keeps, by key. A write is there when the call returns; KazooException where it cannot be made."""

    def __init__(self, zookeeper: KazooClient, path: str) -> None:
        self._zookeeper = zookeeper
        self._folder = f"{path}/state"

    def get(self, key: str) -> Json | None:
        try:
            data, _ = self._zookeeper.retry(self._zookeeper.get, self._path(key))
        except NoNodeError:
            return None
        found: Json = json.loads(data)
        return found

    def put(self, key: str, value: Json) -> None:
        data = json.dumps(value, separators=(",", ":")).encode()
        try:
            self._zookeeper.retry(self._zookeeper.set, self._path(key), data)
        except NoNodeError:
            try:
                self._zookeeper.retry(self._zookeeper.create, self._path(key), data, makepath=True)
            except NodeExistsError:  # a repeated attempt after a lost connection
                self._zookeeper.retry(self._zookeeper.set, self._path(key), data)

    def remove(self, key: str) -> None:
        try:
            self._zookeeper.retry(self._zookeeper.delete, self._path(key))
        except NoNodeError:
            return

    def keys(self, prefix: str) -> list[str]:
        """The keys that begin so, in order, as `put` was given them."""
        try:
            names = self._zookeeper.retry(self._zookeeper.get_children, self._folder)
        except NoNodeError:
            return []
        return sorted(name for name in names if name.startswith(prefix.replace("/", "_")))

    def _path(self, key: str) -> str:
        return f"{self._folder}/{key.replace('/', '_')}"
