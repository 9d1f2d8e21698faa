"""What ZooKeeper's members say, and what follows from it for the ensemble.

Asked in two ways: by four-letter words, which a member answers even while it serves nobody, and through kazoo, as
clients ask. What must hold of an ensemble are pure functions of what its members said (`Ensemble`).

Sources: ZooKeeper's Administrator's Guide ("ZooKeeper Commands: The Four Letter Words") of 3.4.6 and 3.8.0, and the
answers of real members in tests/payloads/zookeeper-*. Formats differ between the two versions where the parsers say so.
"""

from __future__ import annotations

import logging
import re
import socket
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import pandas as pd
from kazoo.client import KazooClient
from kazoo.exceptions import KazooException, NoAuthError, NoNodeError, NotEmptyError
from kazoo.handlers.threading import KazooTimeoutError, SequentialThreadingHandler
from kazoo.protocol.states import ZnodeStat

from runbook.errors import (
    ConnectionCut,
    EndpointTimeout,
    EndpointUnreachable,
    NotReady,
    ServiceError,
    UnexpectedAnswer,
)
from runbook.remote.checks import Evidence
from runbook.services.zookeeper_config import VotingRule, ZooCfg
from runbook.site import HostParameters, Site
from runbook.views.tables import Table

T = TypeVar("T")
R = TypeVar("R")

ANSWER_TIMEOUT = 3.0
"""Seconds that a member may take to answer a four-letter word; a healthy one takes milliseconds."""

FRESH = 5
"""Znodes of a member that nobody has written to: 4 in ZooKeeper 3.4.6, 5 in 3.8.0, all ZooKeeper's own."""


def server_lines(site: Site) -> dict[str, str]:
    """What zoo.cfg says of each member (2.2.2): where followers connect to it, and where it takes part in elections."""
    zookeeper = site.zookeeper
    return {
        f"server.{host.myid}": f"{host.address}:{zookeeper.quorum_port}:{zookeeper.election_port}"
        + (":observer" if host.observer else "")
        for host in site.having("zookeeper")
    }


# asking one member


def four_letter_word(address: str, port: int, word: str, timeout: float = ANSWER_TIMEOUT) -> str:
    """The answer of the ZooKeeper at `address` to `ruok`, `srvr`, `mntr`, `stat`, `conf` or `envi`.

    `timeout` is in seconds, for everything. Raises EndpointUnreachable, EndpointTimeout, ConnectionCut, NotReady for a
    member that runs without being part of a quorum, and UnexpectedAnswer where the word is not allowed.
    """
    place = f"ZooKeeper at {address}:{port}"
    until = time.monotonic() + timeout
    received = b""
    try:
        with socket.create_connection((address, port), timeout) as connection:
            connection.sendall(word.encode())
            while True:
                connection.settimeout(max(0.01, until - time.monotonic()))
                if not (piece := connection.recv(1 << 16)):
                    break
                received += piece
    except TimeoutError as error:
        raise EndpointTimeout(
            f"{place} did not answer `{word}` within {timeout:g} s",
            f"see that the network lets this machine reach port {port}, and that the host is not overloaded",
        ) from error
    except ConnectionRefusedError as error:
        raise EndpointUnreachable(f"{place} does not listen", "start it (1.2), or ask the diagnosis (1.3)") from error
    except ConnectionError as error:
        raise ConnectionCut(f"{place} cut the connection: {error.strerror}", "look at its log (1.2)") from error
    except OSError as error:
        raise EndpointUnreachable(
            f"{place} cannot be reached: {error.strerror or error}", "check the address and the network"
        ) from error
    answer = received.decode(errors="replace")
    if "not currently serving requests" in answer:
        raise NotReady(f"{place} runs, and is not part of a quorum", "see that a majority of the members runs (1.3)")
    if "not in the whitelist" in answer:
        raise UnexpectedAnswer(
            f"{place} does not allow `{word}`", f"allow it: 4lw.commands.whitelist=srvr,ruok,mntr,{word} in zoo.cfg"
        )
    if not answer:
        raise ConnectionCut(f"{place} ended the connection without an answer", "look at its log (1.2)")
    return answer


@dataclass(frozen=True)
class Answer:
    """What a serving member says of itself. Latencies are in milliseconds since it started (or was reset)."""

    version: str
    mode: str
    zxid: int
    connections: int
    znodes: int
    latency: tuple[float, float, float]
    """Least, mean, greatest."""

    @property
    def epoch(self) -> int:
        """The reign: how often a leader was elected before the last change (the upper half of the zxid)."""
        return self.zxid >> 32


def parse_srvr(text: str) -> Answer:
    """The answer to `srvr`, or to `stat`, which has the clients' connections besides.

    The mean latency is whole in 3.4.6 and has a fraction in 3.8. Raises UnexpectedAnswer for any other text.
    """
    said = dict(line.split(": ", 1) for line in text.splitlines() if ": " in line)
    try:
        least, mean, most = said["Latency min/avg/max"].split("/")
        return Answer(
            version=re.sub(r"(-\$\{.*?\})?,.*", "", said["Zookeeper version"]),  # Debian left a variable in its own
            mode=said["Mode"],
            zxid=int(said["Zxid"], 16),
            connections=int(said["Connections"]),
            znodes=int(said["Node count"]),
            latency=(float(least), float(mean), float(most)),
        )
    except (KeyError, ValueError) as error:
        raise UnexpectedAnswer(
            f"this is not an answer of ZooKeeper to `srvr`: {text[:200]!r}",
            "see that nothing else listens at zookeeper.client_port",
        ) from error


def parse_mntr(text: str) -> dict[str, str]:
    """The answer to `mntr` by name, without the prefix `zk_`: `server_state`, `synced_followers`, …

    3.4.6 has some twenty names and 3.8 hundreds, of which one was renamed: `learners`, here `followers` as well.
    """
    said = dict(line.removeprefix("zk_").split("\t", 1) for line in text.splitlines() if "\t" in line)
    if "learners" in said:
        said.setdefault("followers", said["learners"])
    return said


# the ensemble


@dataclass(frozen=True)
class Member:
    """One member as it is seen from here: what it answers, or the `problem` that kept it from answering.

    `runs` says that it answers at all: a member without a quorum does, and serves nobody. `followers` and `synced`
    (followers that have all that was committed) are the leader's; None of any other. `votes` is False of an observer;
    `myid` is its number in zoo.cfg.
    """

    host: str
    answer: Answer | None = None
    runs: bool = True
    followers: int | None = None
    synced: int | None = None
    problem: str = ""
    votes: bool = True
    myid: int = 0

    @property
    def mode(self) -> str:
        """leader, follower, observer, standalone, `not serving` or `no answer`."""
        if self.answer is not None:
            return self.answer.mode
        return "not serving" if self.runs else "no answer"

    @classmethod
    def ask(cls, host: HostParameters, port: int) -> Member:
        """How the member on `host` stands at this moment. Raises nothing: what is wrong is part of the answer."""
        try:
            answer = parse_srvr(four_letter_word(host.address, port, "srvr"))
        except ServiceError as error:
            return cls(host.name, runs=isinstance(error, NotReady | UnexpectedAnswer), problem=error.message)
        if answer.mode != "leader":
            return cls(host.name, answer)
        try:
            monitored = parse_mntr(four_letter_word(host.address, port, "mntr"))
        except ServiceError as error:
            return cls(host.name, answer, problem=error.message)
        # Asked a moment later, when it may lead no longer: then it has no followers.
        return cls(
            host.name,
            answer,
            followers=int(monitored.get("followers", 0)),
            synced=int(monitored.get("synced_followers", 0)),
        )


@dataclass(frozen=True)
class Ensemble:
    """All members at one moment, and what can be said of them together. `config` is zoo.cfg where it has groups."""

    members: tuple[Member, ...]
    config: ZooCfg | None = None

    @classmethod
    def ask(cls, site: Site, config: ZooCfg | None = None) -> Ensemble:
        """Ask every member of a site, at once."""
        port = site.zookeeper.client_port

        def ask(host: HostParameters) -> Member:
            return replace(Member.ask(host, port), votes=not host.observer, myid=host.myid or 0)

        return cls(tuple(_each(ask, site.having("zookeeper"))), config)

    @property
    def voters(self) -> list[Member]:
        """Those that count for the majority: all but observers."""
        return [member for member in self.members if member.votes]

    @property
    def majority(self) -> int:
        """How many members must agree: more than half of all that are configured to vote, running or not."""
        return len(self.voters) // 2 + 1

    @property
    def leaders(self) -> list[Member]:
        """Those that lead: one in a healthy ensemble. A single member, which runs `standalone`, leads itself."""
        leading = ("leader", "standalone") if len(self.members) == 1 else ("leader",)
        return [member for member in self.members if member.mode in leading]

    @property
    def followers(self) -> list[Member]:
        """Those that follow."""
        return [member for member in self.members if member.mode == "follower"]

    def __getitem__(self, host: str) -> Member:
        return next(member for member in self.members if member.host == host)

    def led(self) -> Evidence:
        """Whether there is one leader that has brought every follower up to date."""
        if len(self.leaders) != 1:
            leading = ", ".join(member.host for member in self.leaders) or "nobody"
            return self._evidence(False, f"{leading} leads", "see which members run, and ask the diagnosis (1.3)")
        leader = self.leaders[0]
        if leader.problem:
            remedy = (
                "let it answer `mntr`: from 3.5 on by 4lw.commands.whitelist=srvr,ruok,mntr,conf in zoo.cfg (restart)"
            )
            return self._evidence(False, f"{leader.host} leads: {leader.problem}", remedy)
        synced, following = leader.synced or 0, len(self.followers)
        text = f"{leader.host} leads, {synced} of {following} followers are in sync"
        return self._evidence(synced >= following, text, "wait: a follower that lags loads what it missed")

    def complete(self) -> Evidence:
        """Whether every member answers and serves."""
        missing = [member for member in self.members if member.answer is None]
        text = "; ".join(f"{member.host}: {member.problem}" for member in missing)
        return self._evidence(not missing, text or f"all {len(self.members)} serve", "ask the diagnosis (1.3)")

    def can_spare(self, host: str) -> Evidence:
        """Whether stopping the member on `host` leaves a quorum, or takes none away."""
        member = self[host]
        if not member.runs:
            return self._evidence(True, f"{host} does not run: starting it costs nothing")
        if len(self.members) == 1:
            return self._evidence(True, f"{host} is the only member: nothing serves while it restarts")
        if member.mode == "standalone":
            return self._can_join(member)
        if not self.leaders and not self.followers:
            return self._evidence(True, "no member serves: there is no quorum to lose")
        if not self.leaders:
            return self._evidence(False, "the members are electing a leader", "wait until there is one")
        synced = self.leaders[0].synced or 0
        left = synced if member in self.leaders else synced + 1 - (member in self.followers)
        remedy = "start the members that do not run, and wait until they are in sync"
        if self.config is not None and self.config.groups:
            return self._group_can_spare(member, synced, remedy)
        return self._evidence(
            left >= self.majority,
            f"{left} members serve in sync without {host}, {self.majority} are needed",
            remedy,
        )

    def _group_can_spare(self, member: Member, synced: int, remedy: str) -> Evidence:
        """The same where zoo.cfg has groups: who is left counts, and not only how many."""
        quorum = VotingRule.of((one.myid for one in self.voters), self.config)
        left = [one for one in (*self.leaders, *self.followers) if one is not member]
        names = ", ".join(one.host for one in left) or "no member"
        if synced < len(self.followers):
            return self._evidence(False, f"{synced} of {len(self.followers)} followers are in sync", remedy)
        holds = quorum.holds([one.myid for one in left])
        text = f"{names} serve without {member.host}: {'a' if holds else 'no'} quorum of the groups in zoo.cfg"
        return self._evidence(holds, text, remedy)

    def _can_join(self, member: Member) -> Evidence:
        """A member that ran by itself brings its data along: it may, when no other has data that would be lost."""
        with_data = [one.host for one in self.members if one.answer and one.answer.znodes > FRESH]
        if not with_data or with_data == [member.host]:
            return self._evidence(True, f"{member.host} runs by itself, and no other member has data")
        return Evidence(
            False,
            f"{member.host} runs by itself, and {', '.join(with_data)} have data, of which one history would remain",
            self.table().frame,
            "decide whose data counts; on the others stop ZooKeeper (zkServer.sh stop) and move version-2 away",
            hopeless=True,
        )

    def is_back(self, host: str) -> Evidence:
        """Whether the member on `host`, just started, does its part, so that the next one may be touched.

        Before a majority runs nobody can serve: then it is enough that it runs.
        """
        member, running = self[host], [one for one in self.voters if one.runs]
        if not member.runs:
            return self._evidence(False, member.problem, "ask the diagnosis (1.3)")
        if len(running) < self.majority:
            text = f"{host} runs and waits: {len(running)} of the {self.majority} members that a quorum takes run"
            return self._evidence(True, text)
        if member.answer is None:
            return self._evidence(False, member.problem, "ask the diagnosis (1.3)")
        return self.led()

    def order(self, hosts: Sequence[HostParameters]) -> list[HostParameters]:
        """In which order to touch members: the one that ran by itself with data, those that do not run, then
        followers, and last the leader, so that it is elected anew once."""
        modes = {"standalone": 0, "no answer": 1, "not serving": 2, "observer": 3, "follower": 3, "leader": 4}

        def rank(host: HostParameters) -> int:
            member = self[host.name]
            fresh = member.answer is None or member.answer.znodes <= FRESH
            return 1 if member.mode == "standalone" and fresh else modes.get(member.mode, 3)

        return sorted(hosts, key=rank)

    def table(self) -> Table:
        """The members, a row each."""
        columns = [*COLUMNS, *(["problem"] if any(member.problem for member in self.members) else [])]
        rows = []
        for member in self.members:
            answer = member.answer
            row: dict[str, object] = dict.fromkeys(columns, "")
            row |= {"host": member.host, "mode": member.mode}
            if answer is not None:
                row |= {
                    "zxid": f"{answer.zxid:#x}",
                    "epoch": answer.epoch,
                    "connections": answer.connections,
                    "znodes": answer.znodes,
                    "latency (ms)": " / ".join(f"{value:.3g}" for value in answer.latency),
                    "version": answer.version,
                }
            if member.followers is not None:
                row |= {"followers": member.followers, "synced": member.synced}
            if member.problem:
                row["problem"] = member.problem
            rows.append(row)
        frame = pd.DataFrame(rows, columns=columns, dtype=object)
        return Table(frame, f"ZooKeeper: {len(self.members)} members", states=("mode",))

    def _evidence(self, holds: bool, text: str, remedy: str | None = None) -> Evidence:
        return Evidence(holds, text, self.table().frame[["host", "mode", "epoch", "followers", "synced"]], remedy)


COLUMNS = [
    *("host", "mode", "zxid", "epoch", "connections", "followers", "synced"),
    *("znodes", "latency (ms)", "version"),
]


# kazoo


_quiet = logging.getLogger("runbook.kazoo")
_quiet.addHandler(logging.NullHandler())  # what kazoo logs of lost connections reaches the caller as an error


class _Handler(SequentialThreadingHandler):  # type: ignore[misc]  # kazoo has no types
    """kazoo's, but a member whose host is down costs no more than an answer: there are others to ask."""

    def create_connection(self, *args: Any, **kwargs: Any) -> Any:
        return super().create_connection(*args, **(kwargs | {"timeout": ANSWER_TIMEOUT}))


def _listens(member: str) -> bool:
    host, _, port = member.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=ANSWER_TIMEOUT).close()
    except OSError:
        return False
    return True


@contextmanager
def session(members: str, timeout: float = 10.0) -> Iterator[KazooClient]:
    """A session with one of `members` (`a:2181,b:2181`), ended afterwards. Raises NotReady where none of them gives one
    within `timeout` seconds, or none listens at all, and ServiceError for what goes wrong inside."""
    place = f"ZooKeeper at {members}"
    remedy = "see that a majority of the members runs (1.3)"
    if not any(_each(_listens, members.split(","))):  # kazoo would go on trying
        raise NotReady(f"{place}: no member listens", remedy)
    client = KazooClient(members, timeout=timeout, logger=_quiet, handler=_Handler())
    try:
        try:
            client.start(timeout)
        except KazooTimeoutError as error:
            raise NotReady(f"{place} gave no session within {timeout:g} s", remedy) from error
        yield client
    except NoAuthError as error:
        remedy = "see the ACLs (zkCli.sh: getAcl), and let their owner grant what is missing"
        raise ServiceError(f"{place}: an ACL refuses the access of this machine", remedy) from error
    except KazooException as error:
        raise ServiceError(f"{place}: {type(error).__name__} {error}".rstrip(), "look at its log (1.2)") from error
    finally:
        client.stop()
        client.close()


def written_and_read(site: Site) -> Evidence:
    """Whether what is written through each member is read through the next: temporary znodes, removed at the end.

    They are below `zookeeper.check_path`, which is made where it is not there. Where an ACL refuses that, the evidence
    names it, and waiting does not help.
    """
    hosts, port = site.having("zookeeper"), site.zookeeper.client_port
    folder = site.zookeeper.check_path
    rows = []
    with ExitStack() as sessions:
        clients = {host: sessions.enter_context(session(f"{host.address}:{port}")) for host in hosts}
        first = clients[hosts[0]]
        made = [path for path in _upwards(folder)[:-1] if first.exists(path) is None]
        sessions.callback(_remove, first, made)
        for writer, reader in zip(hosts, [*hosts[1:], hosts[0]], strict=True):
            path, token, began = f"{folder}/check-{uuid.uuid4().hex}", uuid.uuid4().bytes, time.monotonic()
            try:
                clients[writer].create(path, token, ephemeral=True, makepath=True)
                clients[reader].sync(path)  # a reader may lag behind: sync is the promise that it does not
                found, _ = clients[reader].get(path)
                clients[writer].delete(path)
            except NoAuthError:
                return _refused(clients[writer], folder)
            state = "✓ the same" if found == token else "✗ something else"
            rows.append((writer.name, reader.name, state, round(1000 * (time.monotonic() - began), 1)))
    table = pd.DataFrame(rows, columns=["written through", "read through", "read", "milliseconds"])
    holds = all(state.startswith("✓") for _, _, state, _ in rows)
    return Evidence(holds, f"{len(rows)} znodes written and read", table, "ask the diagnosis (1.3)")


def _upwards(path: str) -> list[str]:
    """A znode's path and those above it: `/a/b`, `/a`, `/`."""
    parts = path.split("/")[1:]
    return [f"/{'/'.join(parts[:count])}" for count in range(len(parts), -1, -1)]


def _remove(client: KazooClient, paths: Sequence[str]) -> None:
    """Remove znodes that were made for a check, unless others use them by now."""
    for path in paths:
        with suppress(NotEmptyError, NoNodeError, NoAuthError):  # a rollout's lock may be in it
            client.delete(path)


def _refused(client: KazooClient, folder: str) -> Evidence:
    """Evidence that ZooKeeper lets nothing be written below `folder`, with the ACL that forbids it."""
    place = next(path for path in _upwards(folder) if client.exists(path) is not None)
    text = f"znode {place}: {described_acl(client, place)}, so that nothing can be written below {folder}"
    remedy = (
        "set zookeeper.check_path to a path below a znode whose ACL grants create and delete to this machine; or let "
        f"the owner of {place} create {folder} with the ACL world:anyone:cdrwa (zkCli.sh: create, setAcl)"
    )
    return Evidence(False, text, remedy=remedy, hopeless=True)


def described_acl(client: KazooClient, path: str) -> str:
    """The ACL of a znode as zkCli.sh writes it, for messages."""
    try:
        acls, _ = client.get_acls(path)
    except NoAuthError:
        return "its ACL grants nothing to this machine, not even to read it"
    letters = {perm: letter for letter, perm in zip("rwcda", (1, 2, 4, 8, 16), strict=True)}
    grants = [
        f"{acl.id.scheme}:{acl.id.id.partition(':')[0] if acl.id.scheme == 'digest' else acl.id.id}:"
        + "".join(letters[perm] for perm in (4, 8, 1, 2, 16) if acl.perms & perm)
        for acl in acls
    ]
    return f"its ACL is {', '.join(grants)}"


def read_alike(site: Site) -> Evidence:
    """Whether all members have the same data, as far as reading shows it: nothing is written.

    Each member serves in the epoch of the same leader, and shows the same version, last change and children of znodes
    that are there. A member is asked to catch up first (`sync`).
    """
    ensemble, port = Ensemble.ask(site), site.zookeeper.client_port
    modes = {"standalone"} if len(ensemble.members) == 1 else {"leader", "follower", "observer"}
    if any(member.mode not in modes for member in ensemble.members):
        alone = [member.host for member in ensemble.members if member.mode == "standalone"]
        text = f"{', '.join(alone)} serves by itself" if alone else ensemble.complete().text
        return replace(ensemble.complete(), holds=False, text=text, remedy="ask the diagnosis (1.3)")
    paths = list(dict.fromkeys(("/", "/zookeeper", site.mesos.zk_path, site.marathon.zk_path)))
    stats: dict[str, dict[str, str]] = {}
    with ExitStack() as sessions:
        for host in site.having("zookeeper"):
            client = sessions.enter_context(session(f"{host.address}:{port}"))
            client.sync("/")
            stats[host.name] = {path: _stat(client.exists(path)) for path in paths}
        ensemble = Ensemble.ask(site)
    epochs = {member.host: member.answer.epoch if member.answer else None for member in ensemble.members}
    rows = [{"member": host, "epoch": epochs[host], **stat} for host, stat in stats.items()]
    different = [path for path in paths if len({stat[path] for stat in stats.values()}) > 1]
    if len(set(epochs.values())) > 1:
        different.insert(0, "epoch")
    text = f"{', '.join(different)} differ between members" if different else f"{len(paths)} znodes are the same"
    return Evidence(not different, f"{text} (read only)", pd.DataFrame(rows), "ask the diagnosis (1.3)")


def _stat(stat: ZnodeStat | None) -> str:
    """Which change made a znode, which was its last, and which that of its children; its versions, children, length."""
    if stat is None:
        return "–"
    changes = "/".join(f"{zxid & (1 << 64) - 1:#x}" for zxid in (stat.czxid, stat.mzxid, stat.pzxid))
    return f"{changes} v{stat.version}.{stat.cversion}.{stat.aversion} {stat.numChildren} {stat.dataLength}"


def _each(action: Callable[[R], T], items: Sequence[R]) -> list[T]:
    with ThreadPoolExecutor(max_workers=len(items) or 1, thread_name_prefix="zookeeper") as pool:
        return list(pool.map(action, items))
