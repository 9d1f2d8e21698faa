"""Clients of a master and of a slave, from Mesos 0.28 to 1.11.

What differs between the versions, and is met here:

- Only paths that all versions have are asked for: `/master/state`, `/slave(1)/state`, … without `.json` (gone in 1.0).
- A standby of 0.28 answers `/master/state` itself, with empty lists and status 200; one of 1.0 and later answers 307
  with the leader's address, and 1.11 without a leader 503. `MesosMaster.state` therefore returns the leader's state or
  raises `NoLeader`, and `MesosMaster.view` tells what the asked master itself thinks, in every version.
- `/master/redirect` answers 307 to `//host:port`; a master of 0.28 that knows no leader names itself.

Source: recorded from Mesos 0.28.0; 'HTTP Endpoints' of Mesos' documentation; `src/master/http.cpp`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any, Self
from urllib.parse import urljoin, urlsplit

from runbook.errors import NoLeader, NotReady, RunbookError, ServiceError, UnexpectedAnswer
from runbook.services.http import Answer, Endpoint, Timeouts
from runbook.services.mesos.election import Election, MasterRecord, MasterView, address_of

State = Mapping[str, Any]
"""The JSON object of a `/state`, as Mesos documents it."""


class _Client:
    """What master and slave have in common."""

    KIND = "mesos"

    def __init__(
        self,
        url: str,
        *,
        name: str | None = None,
        timeouts: Timeouts | None = None,
        auth: tuple[str, str] | None = None,
    ) -> None:
        self.name = name or urlsplit(url).netloc.rpartition("@")[2]
        self.endpoint = Endpoint(
            url, name=f"{self.KIND} on {name}" if name else self.KIND, timeouts=timeouts, auth=auth
        )

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.endpoint.url!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the connections that are kept open."""
        self.endpoint.close()

    @property
    def address(self) -> str:
        """`host:port`."""
        return self.endpoint.address

    def version(self) -> dict[str, Any]:
        """`/version`: `version`, `build_date`, …"""
        return _object(self.endpoint.get("/version"))

    def metrics(self) -> dict[str, float]:
        """`/metrics/snapshot`. What is not known at the moment is left out, as are a standby's registrar timings."""
        return _object(self.endpoint.get("/metrics/snapshot"))

    def _flags(self, path: str) -> dict[str, str]:
        flags: dict[str, str] = _object(self.endpoint.get(path), "flags")["flags"]
        return flags


class MesosMaster(_Client):
    """One master, which may lead or stand by.

    `url`: `http://host:port`. `name`: what messages call its host; without one, `host:port`.
    """

    KIND = "mesos-master"

    @classmethod
    def of(cls, record: MasterRecord, *, timeouts: Timeouts | None = None) -> MesosMaster:
        """The master that a znode announces."""
        return cls(f"http://{record.address}", timeouts=timeouts)

    @classmethod
    def leading(cls, election: Election, *, timeouts: Timeouts | None = None) -> MesosMaster:
        """The master that leads, by ZooKeeper. Raises `NoLeader` where none contends."""
        if election.leader is None:
            raise NoLeader(
                "no master contends in ZooKeeper",
                "start the masters; see that /etc/mesos/zk names this ZooKeeper and its path",
            )
        return cls.of(election.leader, timeouts=timeouts)

    def flags(self) -> dict[str, str]:
        """`/master/flags`: the flags it runs with, by name."""
        return self._flags("/master/flags")

    def state(self) -> State:
        """The cluster's state, as the leader tells it.

        Where this master stands by, Mesos 1.0 and later send the question to the leader. Raises `NoLeader` where the
        answer is not a leader's: a standby of 0.28 would make an empty cluster of it.
        """
        try:
            answer = self.endpoint.get("/master/state", elsewhere=True)
        except NotReady as error:
            if _says_no_leader(error):
                raise NoLeader(error.message, _WAIT_FOR_LEADER, answer=error.answer) from error
            raise
        state = _object(answer, "pid", "slaves", "frameworks")
        leader = state.get("leader")
        if not leader:
            raise NoLeader(f"{self.name} knows no leader", _WAIT_FOR_LEADER, answer=answer)
        if leader != state["pid"] or not state.get("elected_time"):
            raise NoLeader(f"{self.name} does not lead, it names {address_of(leader)}", "ask the leader", answer=answer)
        return state

    def view(self) -> MasterView:
        """What this master says of itself and of the leader. Raises `ServiceError` where it does not answer."""
        metrics = self.metrics()
        try:
            answer = self.endpoint.get("/master/state", expect={200, 307})
        except NotReady as error:
            if _says_no_leader(error):
                return self._standby(metrics, leader=None)
            raise
        if answer.status == 307:
            return self._standby(metrics, leader=_address_in(answer))
        return MasterView.of(_object(answer, "pid", "hostname", "version"), metrics)

    def _standby(self, metrics: Mapping[str, float], leader: str | None) -> MasterView:
        """The view of a standby that does not tell its state (1.0 and later)."""
        quorum = self.flags().get("quorum")
        uptime = metrics.get("master/uptime_secs")
        return MasterView(
            address=self.address,
            hostname=self.address.rpartition(":")[0],
            version=str(self.version()["version"]),
            leader=leader,
            elected=None,
            started=None,
            quorum=None if quorum is None else int(quorum),
            slaves=0,
            recovered=False,
            uptime=None if uptime is None else timedelta(seconds=uptime),
        )

    def leads(self) -> bool:
        """Whether it takes itself for the leader."""
        return self.metrics().get("master/elected") == 1

    def leader_address(self) -> str:
        """`host:port` of the leader that it names; its own where it knows none (until 1.10)."""
        return _address_in(self.endpoint.get("/master/redirect", expect={307}))


class Masters:
    """All masters of a site, asked as one."""

    def __init__(self, masters: Iterable[MesosMaster]) -> None:
        self.masters = tuple(masters)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the connections that are kept open."""
        for master in self.masters:
            master.close()

    def views(self) -> dict[str, MasterView | RunbookError]:
        """What each master says, by its name, or the error that was met; all are asked at once."""
        with ThreadPoolExecutor(max_workers=max(1, min(8, len(self.masters)))) as pool:
            return dict(zip((master.name for master in self.masters), pool.map(_view, self.masters), strict=True))

    def leader(self) -> MesosMaster:
        """The master that leads: one of these, or one that these name.

        Asks each whether it leads, and then the one that it redirects to. Raises `NoLeader` with what each said.
        """
        said = []
        for master in self.masters:
            try:
                if master.leads():
                    return master
                address = master.leader_address()
                named = next((other for other in self.masters if other.address == address), None)
                if named is None:
                    named = MesosMaster(f"http://{address}", timeouts=master.endpoint.timeouts)
                if named.leads():
                    return named
                said.append(f"{master.name} names {address}, which does not lead")
            except ServiceError as error:
                said.append(f"{master.name}: {error.message}")
        raise NoLeader(f"no master leads: {'; '.join(said) or 'there are none'}", _WAIT_FOR_LEADER)

    def state(self) -> State:
        """The cluster's state from its leader. Raises `NoLeader` where there is none, or it has just changed."""
        return self.leader().state()


class MesosSlave(_Client):
    """One slave. `url`: `http://host:port`; `name`: what messages call its host."""

    KIND = "mesos-slave"

    def state(self) -> State:
        """`/slave(1)/state`. Raises `NotReady` while it recovers (503)."""
        return _object(self.endpoint.get("/slave(1)/state"), "pid", "flags", "resources")

    def flags(self) -> dict[str, str]:
        """`/slave(1)/flags`: the flags it runs with, by name."""
        return self._flags("/slave(1)/flags")

    def statistics(self) -> list[dict[str, Any]]:
        """`/monitor/statistics`: what each executor uses, with its limits."""
        answer = self.endpoint.get("/monitor/statistics")
        found = answer.json()
        if not isinstance(found, list):
            raise _not_mesos(answer)
        return found


_WAIT_FOR_LEADER = "wait some 10 s for an election; then see that ZooKeeper and a quorum of the masters run"


def _view(master: MesosMaster) -> MasterView | RunbookError:
    try:
        return master.view()
    except ServiceError as error:
        return error


def _says_no_leader(error: NotReady) -> bool:
    return isinstance(error.answer, Answer) and "leader" in error.answer.text.lower()


def _address_in(answer: Answer) -> str:
    """`host:port` that a redirect leads to."""
    parts = urlsplit(urljoin(answer.url, answer.headers.get("location", "")))
    return f"{parts.hostname}:{parts.port or 80}"


def _object(answer: Answer, *needed: str) -> dict[str, Any]:
    """The JSON object of an answer, which must hold these keys."""
    found = answer.json()
    if not isinstance(found, dict) or not found.keys() >= set(needed):
        raise _not_mesos(answer)
    return found


def _not_mesos(answer: Answer) -> UnexpectedAnswer:
    return UnexpectedAnswer(
        f"{answer.url} does not answer as Mesos does: {answer.excerpt()}",
        "see that the address and port are Mesos' own",
        answer=answer,
    )
