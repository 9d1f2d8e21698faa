"""Who leads: the masters' znodes, what each master says, and whether that makes a leader that works.

- `/mesos/json.info_NNNNNNNNNN`: one ephemeral node per master; the lowest sequence leads.
- `/mesos/log_replicas/NNNNNNNNNN`: one ephemeral node per replica of the registry's log, which every master holds.

That a master answers 200 and reports an `elected_time` does not make a leader that works: alone, without the quorum of
its log, it answers so for 60 s (`--registry_fetch_timeout`) and aborts; having lost the quorum, it goes on answering
until the next write to the registry. What proves that it has recovered the registry is the metric
`registrar/registry_size_bytes`, which is there only then. So `verdict` asks the masters, the znodes and that metric,
and wants them to agree.

Sources: recorded from Mesos 0.28.0 (zookeeper_mesos.json, and the timelines of a lone master, a lost quorum and a lost
ZooKeeper); `src/master/detector.cpp`, `src/master/registrar.hpp`.
"""

from __future__ import annotations

import contextlib
import json
import re
import socket
import struct
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from kazoo.client import KazooClient
from kazoo.exceptions import NoNodeError

from runbook.errors import RunbookError, UnexpectedAnswer

_MASTER = re.compile(r"json\.info_(\d{10})")
_REPLICA = re.compile(r"\d{10}")
_RECOVERED = "registrar/registry_size_bytes"


@dataclass(frozen=True)
class MasterRecord:
    """A master as it announces itself in ZooKeeper."""

    sequence: int
    id: str
    pid: str  # master@ip:port
    hostname: str
    ip: str
    port: int
    version: str

    @property
    def address(self) -> str:
        """`ip:port`."""
        return f"{self.ip}:{self.port}"

    @property
    def znode(self) -> str:
        """The node's name below `/mesos`."""
        return f"json.info_{self.sequence:010}"

    @classmethod
    def parse(cls, name: str, data: bytes) -> MasterRecord:
        """Read the node `json.info_…`. Raises `UnexpectedAnswer` where it holds something else.

        Where there is no `address`, the number in `ip` is used: an address in network byte order that was read as a
        little-endian number, so that 127.0.0.1 is 16777343.
        """
        match = _MASTER.fullmatch(name)
        try:
            info = json.loads(data)
            if match is None or not isinstance(info, dict):
                raise ValueError(f"the node {name} is not a master's")
            address = info.get("address", {})
            return cls(
                sequence=int(match[1]),
                id=info["id"],
                pid=info["pid"],
                hostname=address.get("hostname", info.get("hostname", "")),
                ip=address.get("ip") or socket.inet_ntoa(struct.pack("<I", info["ip"])),
                port=int(address.get("port", info["port"])),
                version=info.get("version", ""),
            )
        except (ValueError, KeyError, TypeError, AttributeError, struct.error) as error:
            raise UnexpectedAnswer(
                f"the znode {name} does not hold a master's info: {error}",
                "see that the zk path is the one of Mesos' masters",
            ) from error


@dataclass(frozen=True)
class LogReplica:
    """A replica of the registry's log as its master announces it in ZooKeeper."""

    sequence: int
    address: str  # ip:port of its master

    @classmethod
    def parse(cls, name: str, data: bytes) -> LogReplica:
        """Read a node of `log_replicas`. Raises `UnexpectedAnswer` where it holds something else."""
        pid, at, address = data.decode(errors="replace").partition("@")
        if not _REPLICA.fullmatch(name) or not at or not pid.startswith("log-replica("):
            raise UnexpectedAnswer(
                f"the znode log_replicas/{name} does not hold a log replica: {data[:100]!r}",
                "see that the zk path is the one of Mesos' masters",
            )
        return cls(int(name), address)


@dataclass(frozen=True)
class Election:
    """The election's znodes at one moment, each kind in the order of its sequence."""

    masters: tuple[MasterRecord, ...] = ()
    replicas: tuple[LogReplica, ...] = ()

    @property
    def leader(self) -> MasterRecord | None:
        """The master that leads, by ZooKeeper; None where none contends."""
        return self.masters[0] if self.masters else None

    @classmethod
    def parse(cls, masters: Mapping[str, bytes], replicas: Mapping[str, bytes]) -> Election:
        """From the children of `/mesos` and of `/mesos/log_replicas`, by name; other children are passed over."""
        return cls(
            tuple(
                sorted(
                    (MasterRecord.parse(name, data) for name, data in masters.items() if _MASTER.fullmatch(name)),
                    key=lambda record: record.sequence,
                )
            ),
            tuple(
                sorted(
                    (LogReplica.parse(name, data) for name, data in replicas.items() if _REPLICA.fullmatch(name)),
                    key=lambda replica: replica.sequence,
                )
            ),
        )


def read_election(zookeeper: KazooClient, path: str = "/mesos") -> Election:
    """The election below the path of `zk://…/mesos`; an empty one where the path is missing."""
    return Election.parse(_children(zookeeper, path), _children(zookeeper, f"{path}/log_replicas"))


def _children(zookeeper: KazooClient, path: str) -> dict[str, bytes]:
    """The data of every child. One that ends between being listed and being read is left out: it was ephemeral."""
    found: dict[str, bytes] = {}
    try:
        names = zookeeper.get_children(path)
    except NoNodeError:
        return found
    for name in names:
        with contextlib.suppress(NoNodeError):
            found[name] = zookeeper.get(f"{path}/{name}")[0]
    return found


@dataclass(frozen=True)
class MasterView:
    """What one master says of itself and of the leader. Addresses are `host:port`, as the master writes them."""

    address: str
    hostname: str
    version: str
    leader: str | None  # None: it knows none
    elected: datetime | None  # None: it does not lead
    started: datetime | None
    quorum: int | None
    slaves: int
    recovered: bool | None  # whether it has recovered the registry; None: not asked
    uptime: timedelta | None  # None: not asked

    @classmethod
    def of(cls, state: Mapping[str, Any], metrics: Mapping[str, float] | None = None) -> MasterView:
        """From a master's own `/master/state` and, where it was asked, its `/metrics/snapshot`."""
        leader = state.get("leader")
        quorum = state.get("flags", {}).get("quorum")
        uptime = None if metrics is None else metrics.get("master/uptime_secs")
        return cls(
            address=address_of(state["pid"]),
            hostname=state["hostname"],
            version=state["version"],
            leader=address_of(leader) if leader else None,
            elected=moment(state.get("elected_time")),
            started=moment(state.get("start_time")),
            quorum=None if quorum is None else int(quorum),
            slaves=int(state.get("activated_slaves", 0)),
            recovered=None if metrics is None else _RECOVERED in metrics,
            uptime=None if uptime is None else timedelta(seconds=uptime),
        )


@dataclass(frozen=True)
class Finding:
    """Something about the masters that is not as it should be. `broken`: the cluster cannot be relied on meanwhile."""

    severity: Literal["broken", "degraded"]
    what: str
    remedy: str


def verdict(
    views: Mapping[str, MasterView | RunbookError],
    election: Election,
    *,
    quorum: int,
    slaves: int | None = None,
) -> list[Finding]:
    """Whether the masters have one leader that works: what speaks against it, the worst first; nothing if all is well.

    `views`: what each master of the site answered, or the error that was met, by its name. `quorum`: the wanted
    one. `slaves`: how many are to be registered, where that is known.
    """
    answering = {name: view for name, view in views.items() if isinstance(view, MasterView)}
    found = [
        _degraded(f"{name} does not answer: {error.message}", error.remedy or "start it and read its log")
        for name, error in views.items()
        if isinstance(error, RunbookError)
    ]
    found += _on_agreement(answering, election)
    found += _on_the_log(len(views), election, quorum)
    found += _on_the_quorum(answering, quorum)
    for name, view in answering.items():
        if view.elected is not None:
            found += _on_the_leader(name, view, slaves)
    return sorted(found, key=lambda finding: finding.severity != "broken")


def works(findings: Iterable[Finding]) -> bool:
    """Whether there is a leader that works, in spite of what may be degraded."""
    return all(finding.severity != "broken" for finding in findings)


def _broken(what: str, remedy: str) -> Finding:
    return Finding("broken", what, remedy)


def _degraded(what: str, remedy: str) -> Finding:
    return Finding("degraded", what, remedy)


def _on_agreement(answering: Mapping[str, MasterView], election: Election) -> Iterator[Finding]:
    if not answering:
        yield _broken("no master answers", "start the masters, one at a time, and read their logs")
        return
    # a redirect names the leader by hostname, the state by ip
    known_as = {f"{record.hostname}:{record.port}": record.address for record in election.masters}
    believed = {name: known_as.get(view.leader, view.leader) for name, view in answering.items() if view.leader}
    unaware = [name for name in answering if name not in believed]
    if not believed:
        yield _broken("no master knows a leader", "see that ZooKeeper has its quorum, then wait some 10 s")
    elif unaware:
        what = f"{', '.join(unaware)} knows no leader while others do"
        yield _broken(what, "wait some 10 s; then see its connection to ZooKeeper")
    if len(set(believed.values())) > 1:
        beliefs = ", ".join(f"{name} names {leader}" for name, leader in believed.items())
        yield _broken(f"the masters name different leaders: {beliefs}", "wait some 10 s; then see their ZooKeeper")
    elected = [name for name, view in answering.items() if view.elected is not None]
    if len(elected) > 1:
        what = f"{len(elected)} masters take themselves for elected: {', '.join(elected)}"
        yield _broken(
            what, "wait for ZooKeeper's session timeout (10 s); then stop the one that ZooKeeper does not name"
        )
    leader = election.leader
    if leader is None:
        yield _broken("no master contends in ZooKeeper", "see that ZooKeeper answers and that /etc/mesos/zk names it")
        return
    stale = sorted({address for address in believed.values() if address != leader.address})
    if stale:
        what = f"{', '.join(stale)} is named as leader, but {leader.znode} leads: {leader.address}"
        yield _broken(what, "wait some 10 s, until the session of the dead leader expires")
    if not any(answering[name].address == leader.address for name in elected):
        what = f"the leader {leader.address} does not answer as one"
        yield _broken(what, "see that this address can be reached from here, and read the log of its mesos-master")


def _on_the_log(masters: int, election: Election, quorum: int) -> Iterator[Finding]:
    held = Counter(replica.address for replica in election.replicas)
    if len(held) < quorum:
        what = f"of the registry's log {len(held)} replicas are there, and {quorum} are the quorum"
        yield _broken(
            f"{what}: it can be neither read nor written, and the leader aborts within 60 s or at the next write",
            "start the other masters; see that each announces an address (--ip) which the others reach",
        )
    elif len(held) < masters:
        what = f"of the registry's log {len(held)} replicas are there for {masters} masters"
        yield _degraded(what, "start the master that is missing; see --ip of each")
    for address, count in held.items():
        if count > 1:
            remedy = "wait for the session timeout of the master that ran there before (10 s)"
            yield _degraded(f"{count} replicas of the log are announced for {address}", remedy)
    strangers = sorted(held.keys() - {record.address for record in election.masters})
    if strangers and election.masters:
        what = f"a replica of the log without a master that contends: {', '.join(strangers)}"
        yield _degraded(what, "wait for its session to expire; a master too many can corrupt the log")


def _on_the_quorum(answering: Mapping[str, MasterView], quorum: int) -> Iterator[Finding]:
    differing = [f"{name} has {view.quorum}" for name, view in answering.items() if view.quorum not in (None, quorum)]
    if differing:
        yield _broken(
            f"the quorum is to be {quorum}, but {', '.join(differing)}",
            "set /etc/mesos-master/quorum alike on all masters and restart them one at a time; too small a quorum lets "
            "the log split",
        )


def _on_the_leader(name: str, view: MasterView, slaves: int | None) -> Iterator[Finding]:
    if view.recovered is False:
        what = f"{name} is elected but has not recovered the registry"
        yield _broken(what, "wait up to 60 s; it aborts then unless a quorum of log replicas is there")
    if slaves and not view.slaves:
        yield _broken(
            f"{name} leads, but none of {slaves} slaves is registered",
            "if it was just elected, wait for a minute; then see the log of a slave and whether it reaches the leader",
        )
    elif slaves and view.slaves < slaves:
        what = f"{view.slaves} of {slaves} slaves are registered and active"
        yield _degraded(what, "see the logs of those missing")


def address_of(pid: str) -> str:
    """`ip:port` of a libprocess pid such as `master@127.0.0.1:5050` or `slave(1)@127.0.0.1:5051`."""
    return pid.rpartition("@")[2]


def moment(seconds: float | None) -> datetime | None:
    """A time of Mesos' state (seconds since 1970, 0 for never) as a datetime in UTC."""
    return datetime.fromtimestamp(seconds, UTC) if seconds else None
