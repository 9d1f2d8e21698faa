"""The group of masters in ZooKeeper: candidates, the log's replicas, and who leads.

`/mesos/json.info_NNNNNNNNNN` are the candidates, ephemeral, each a MasterInfo in JSON; the lowest sequence leads.
`/mesos/log_replicas/NNNNNNNNNN` are the members of the replicated log. A session that ZooKeeper does not confirm for
its whole time-out counts as expired, as in Mesos: then no leader is known, and a leader has lost its leadership.
"""

import json
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from kazoo.client import KazooClient, KazooState
from kazoo.exceptions import KazooException, NoNodeError
from kazoo.handlers.threading import SequentialThreadingHandler
from kazoo.retry import KazooRetry

from .glog import Log

Json = dict[str, Any]
PATIENCE = 2.0  # seconds for one answer of ZooKeeper, and between attempts


class _Handler(SequentialThreadingHandler):  # type: ignore[misc]  # kazoo has no types
    """kazoo waits for a member whose host is down as long as a session lasts, which may end over it; this does not."""

    def create_connection(self, *args: Any, **kwargs: Any) -> Any:
        return super().create_connection(*args, **(kwargs | {"timeout": PATIENCE}))


@dataclass(frozen=True)
class View:
    """The group as last seen."""

    leader: Json | None = None  # its MasterInfo
    replicas: tuple[str, ...] = ()  # pids, as log-replica(1)@ip:port


@dataclass(frozen=True)
class Url:
    """`zk://[user:password@]host:port,.../path`; ValueError where it is none."""

    hosts: str
    path: str
    credentials: str | None

    @classmethod
    def parse(cls, text: str) -> "Url":
        match = re.fullmatch(r"zk://(?:([^@/]+)@)?([^/]+)(/.+)", text)
        if not match:
            raise ValueError(f"Expecting 'zk://host1:port1,host2:port2,.../path', not '{text}'")
        return cls(match[2], match[3].rstrip("/"), match[1])


@dataclass
class _Member:
    """A znode that this daemon keeps in the group while it lives."""

    folder: str
    prefix: str
    data: bytes
    path: str | None = None


class Group(threading.Thread):
    """Watches the group and tells `changed` each new view; an expired session is the empty view."""

    def __init__(self, url: Url, session_timeout: float, log: Log, changed: Callable[[View], None]) -> None:
        super().__init__(name="zookeeper", daemon=True)
        self.url = url
        self.log = log
        self._changed = changed
        self._session_timeout = session_timeout
        self._members: list[_Member] = []
        self._view = View()
        self._leader_path: str | None = None
        self._wake = threading.Event()
        self._unheard_since: float | None = time.monotonic()
        self._client = KazooClient(
            url.hosts,
            timeout=session_timeout,
            handler=_Handler(),
            connection_retry=KazooRetry(max_tries=-1, delay=0.2, max_delay=PATIENCE),
        )
        if url.credentials:
            self._client.add_auth("digest", url.credentials)
        self._client.add_listener(self._heard)

    def contend(self, info: Json, replica: str) -> None:
        """Stand for election with a MasterInfo, and join the log's replicas. Before `start`."""
        self._members = [
            _Member(f"{self.url.path}/log_replicas", "", replica.encode()),
            _Member(self.url.path, "json.info_", json.dumps(info, separators=(",", ":")).encode()),
        ]
        self.log.info("contender.cpp:147", "Joining the ZK group")

    def run(self) -> None:
        self._client.start_async()
        while True:
            since = self._unheard_since
            self._wake.wait(None if since is None else max(0.0, since + self._session_timeout - time.monotonic()))
            self._wake.clear()
            if self._unheard_since is None:
                try:
                    self._show(self._refresh())
                except (KazooException, self._client.handler.timeout_exception):
                    self._wake.wait(PATIENCE)
                    self._wake.set()
            elif time.monotonic() - self._unheard_since >= self._session_timeout:
                self.log.warning(
                    "group.cpp:503", "Timed out waiting to connect to ZooKeeper. Forcing ZooKeeper session expiration"
                )
                self._unheard_since = time.monotonic()
                self._leader_path = None
                self._show(View())

    def _heard(self, state: str) -> None:
        """kazoo's listener: must not ask ZooKeeper anything itself."""
        if state == KazooState.CONNECTED:
            self.log.info("group.cpp:349", "Group process (group(1)) connected to ZooKeeper")
            self._unheard_since = None
        elif self._unheard_since is None:
            self._unheard_since = time.monotonic()
        self._wake.set()

    def _poke(self, event: object) -> None:
        self._wake.set()

    def _refresh(self) -> View:
        for member in self._members:
            self._client.ensure_path_async(member.folder).get(timeout=PATIENCE)
            if member.path is None or not self._client.exists_async(member.path).get(timeout=PATIENCE):
                creation = self._client.create_async(
                    f"{member.folder}/{member.prefix}", member.data, ephemeral=True, sequence=True
                )
                member.path = creation.get(timeout=PATIENCE)
                if member.prefix:
                    number = int(str(member.path)[-10:])
                    self.log.info(
                        "contender.cpp:263", f"New candidate (id='{number}') has entered the contest for leadership"
                    )
        return View(self._leader(), self._replicas())

    def _leader(self) -> Json | None:
        candidates = sorted(name for name in self._children(self.url.path) if name.startswith("json.info_"))
        for name in candidates:
            path = f"{self.url.path}/{name}"
            if path != self._leader_path:
                self.log.info("detector.cpp:152", f"Detected a new leader: (id='{int(name[-10:])}')")
                self.log.info("group.cpp:700", f"Trying to get '{path}' in ZooKeeper")
            try:
                data, _ = self._client.get_async(path).get(timeout=PATIENCE)
            except NoNodeError:
                continue
            info: Json = json.loads(data)
            if path != self._leader_path:
                self._leader_path = path
                self.log.info("detector.cpp:479", f"A new leading master (UPID={info['pid']}) is detected")
            return info
        self._leader_path = None
        return None

    def _replicas(self) -> tuple[str, ...]:
        folder = f"{self.url.path}/log_replicas"
        if not self._members:
            return ()
        found = []
        for name in sorted(self._children(folder)):
            try:
                data, _ = self._client.get_async(f"{folder}/{name}").get(timeout=PATIENCE)
            except NoNodeError:
                continue
            found.append((name, data.decode()))
        pids = tuple(dict.fromkeys(pid for _, pid in found))
        if pids != self._view.replicas:
            self.log.info("network.hpp:413", "ZooKeeper group memberships changed")
            for name, _ in found:
                self.log.info("group.cpp:700", f"Trying to get '{folder}/{name}' in ZooKeeper")
            self.log.info("network.hpp:461", f"ZooKeeper group PIDs: {{ {', '.join(sorted(pids))} }}")
        return pids

    def _children(self, path: str) -> list[str]:
        try:
            children: list[str] = self._client.get_children_async(path, watch=self._poke).get(timeout=PATIENCE)
        except NoNodeError:  # a slave that is started before the first master; it asks again
            if not self._client.exists_async(path, watch=self._poke).get(timeout=PATIENCE):
                return []
            return self._children(path)
        return children

    def _show(self, view: View) -> None:
        if view != self._view:
            self._view = view
            self._changed(view)
