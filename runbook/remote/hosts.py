"""The hosts of a site: steps on all of them at once or one at a time, and read-only questions."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from runbook.errors import ApplyFailed, CheckFailed, GateRefused, RunbookError
from runbook.remote.checks import Evidence, check
from runbook.remote.engine import HostRun
from runbook.remote.gates import Approval
from runbook.remote.modes import Mode, Status
from runbook.remote.results import BAD, ApplyResult
from runbook.remote.session import Gateway, Login, Session, config
from runbook.remote.shell import Piece, question
from runbook.remote.steps import Step
from runbook.site import HostParameters, Site

T = TypeVar("T")
R = TypeVar("R")

POOL = 32
"""Hosts worked on at once; more gains nothing at 300 hosts and 20 ms."""
DEADLINE = 300.0
"""Seconds that one call may take on one host."""

Steps = Sequence[Step] | Callable[[HostParameters], Sequence[Step]]
"""The same steps for every host, or a function that gives a host's steps."""


@dataclass(frozen=True)
class Output:
    """The answer to a question: what a host printed, or the error that kept it from answering.

    It was asked and answered between `sent` and `received`, by this machine's clock, in seconds since 1970.
    """

    stdout: str = ""
    stderr: str = ""
    status: int | None = None
    error: RunbookError | None = None
    sent: float = 0.0
    received: float = 0.0

    @property
    def ok(self) -> bool:
        """Whether the host answered with exit status 0."""
        return self.status == 0


@dataclass(frozen=True)
class _Fleet:
    """The connections of a site, shared by all the selections of its hosts."""

    sessions: Mapping[str, Session]
    gateways: Sequence[Gateway]

    @classmethod
    def of(cls, site: Site) -> _Fleet:
        shared = config()
        gateways: dict[Login, Gateway] = {}
        sessions = {}
        for host in site.hosts:
            login = Login.of(host)
            gateway = None
            if login.gateway is not None:
                gateway = gateways.setdefault(login.gateway, Gateway(login.gateway, shared))
            sessions[host.name] = Session(host.name, login, shared, gateway)
        return cls(sessions, tuple(gateways.values()))


@dataclass(frozen=True)
class Hosts:
    """Some or all hosts of a site, in one mode. Connections are opened when first needed, and kept.

    A context manager: leaving it closes the connections of the whole site.
    """

    site: Site
    members: tuple[HostParameters, ...]
    mode: Mode = Mode.PLAN
    approval: Approval = field(default_factory=Approval)
    record: str = field(default_factory=lambda: _record())
    _fleet: _Fleet = field(repr=False, default_factory=lambda: _Fleet({}, ()))

    @classmethod
    def of(cls, site: Site, role: str | None = None, mode: Mode | str = Mode.PLAN, yes: bool = False) -> Hosts:
        """The hosts of `site` with `role` (all of them without one). Raises nothing: no connection is made yet."""
        approval = Approval(yes, frozenset(site.approvals))
        everybody = cls(site, tuple(site.hosts), Mode(mode), approval, _fleet=_Fleet.of(site))
        return everybody.having(role) if role else everybody

    def having(self, role: str) -> Hosts:
        """Those of these hosts that have `role`, over the same connections."""
        return self.only(*(host.name for host in self.members if role in host.roles))

    def only(self, *names: str) -> Hosts:
        """Those of these hosts that are named, over the same connections."""
        members = tuple(host for host in self.members if host.name in names)
        return Hosts(self.site, members, self.mode, self.approval, self.record, self._fleet)

    def __iter__(self) -> Iterator[HostParameters]:
        return iter(self.members)

    def __len__(self) -> int:
        return len(self.members)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections of the whole site; the next call opens them again."""
        for session in self._fleet.sessions.values():
            session.close()
        for gateway in self._fleet.gateways:
            gateway.close()

    # questions

    def run(self, script: str, deadline: float = 60.0) -> dict[str, Output]:
        """Ask every host with a read-only sh script, at once; answers by host name, in order.

        A host that does not answer within `deadline` seconds has its error in the answer; nothing is raised for it.
        """

        def ask(host: HostParameters) -> Output:
            sent, began = time.time(), time.monotonic()
            try:
                transcript = self._fleet.sessions[host.name].execute([Piece("0", question(script))], began + deadline)
            except RunbookError as error:
                return Output(error=error, sent=sent, received=sent + time.monotonic() - began)
            received = sent + time.monotonic() - began  # not time.time(), which may have been set meanwhile
            frame = transcript.frames["0"]
            return Output(frame.out, frame.err, frame.status, sent=sent, received=received)

        return dict(zip((host.name for host in self.members), _each(ask, self.members), strict=True))

    # steps

    def apply(self, steps: Steps, name: str = "", deadline: float = DEADLINE) -> ApplyResult:
        """Bring every host to the desired state, all at once, and show what was different.

        In plan and verify mode nothing is changed. `deadline` is in seconds of work for each host. Raises ApplyFailed
        where a step failed or a host could not be reached, and GateRefused where a change needs an approval that was
        not given: then nothing of that wave was done on the hosts concerned. Both carry all results. A ValueError
        says that two steps of a host have the same label.
        """
        runs = self._runs(steps, deadline)
        return _concluded(name, self.mode, runs, self._work(runs, _Gates(self.approval)))

    def rolling(
        self,
        steps: Steps,
        *,
        until: Callable[[HostParameters], Evidence],
        before: Callable[[HostParameters], Evidence] | None = None,
        order: Callable[[Sequence[HostParameters]], Sequence[HostParameters]] = lambda hosts: hosts,
        name: str = "",
        deadline: float = DEADLINE,
        patience: float = 60.0,
    ) -> ApplyResult:
        """Bring the hosts to the desired state one after the other, so that a quorum is never lost.

        `order` sorts them (followers before the leader). A host that needs a change is touched only once `before`
        holds for it (its absence would be borne), and the next one only once `until` holds for it, each within
        `patience` seconds; where one does not hold, or any host fails or cannot be reached, the hosts that are left
        stay untouched. Gates are asked once, for all hosts. In plan and verify mode the same as `apply`. Raises
        ApplyFailed, GateRefused and CheckFailed, each with all results.
        """
        if self.mode is not Mode.APPLY:
            return self.apply(steps, name, deadline)
        runs = {run.host: run for run in self._runs(steps, deadline)}
        turns = [runs[host.name] for host in order(self.members)]
        if len(turns) != len(runs) or {run.host for run in turns} != runs.keys():
            raise ValueError(f"`order` must return each of {', '.join(runs)} once")
        gates = _Gates(self.approval)
        _look(turns)
        stopped: GateRefused | CheckFailed | None = gates.ask([run for run in turns if not run.finished])
        for run in turns:
            if run.finished:
                continue
            if down := [other.host for other in turns if _bad(other)]:
                run.skip(f"untouched, because {', '.join(down)} failed or cannot be reached")
                continue
            if isinstance(stopped, CheckFailed):
                run.skip(f"untouched, because of an earlier host: {stopped.message}")
                continue
            host = next(host for host in self.members if host.name == run.host)
            try:
                if before is not None:
                    check(f"{host.name} can be spared", partial(before, host), deadline=patience)
                stopped = self._work([run], gates) or stopped
                if any(one.status is Status.CHANGED for one in run.results) and not _bad(run):
                    check(f"{host.name} is back", partial(until, host), deadline=patience)
            except CheckFailed as error:
                stopped = error
                run.skip(f"untouched: {error.message}")
        return _concluded(name, self.mode, list(runs.values()), stopped)

    # the parts

    def _runs(self, steps: Steps, deadline: float) -> list[HostRun]:
        runs = []
        for host in self.members:
            own = steps(host) if callable(steps) else steps
            labels = Counter(step.label for step in own)
            if twice := [label for label, count in labels.items() if count > 1]:
                raise ValueError(
                    f"{host.name}: more than one step is called '{twice[0]}': put them into one (Lines takes several), "
                    "or apply them in separate calls"
                )
            runs.append(HostRun(self._fleet.sessions[host.name], own, self.mode, self.record, deadline))
        return runs

    def _work(self, runs: list[HostRun], gates: _Gates) -> GateRefused | None:
        """Look, then wave after wave on all hosts, asking at the gates in between; returns a refusal, if any."""
        refused: GateRefused | None = None
        _look(runs)
        while left := [run for run in runs if not run.finished]:
            refused = gates.ask(left) or refused
            _each(lambda run: run.guarded(run.act), [run for run in left if not run.finished])
        return refused


@dataclass
class _Gates:
    """The gates of one call: each is asked once for the hosts that stand at it, and stays open for them."""

    approval: Approval
    _open: set[tuple[str, str]] = field(default_factory=set)

    def ask(self, runs: Sequence[HostRun]) -> GateRefused | None:
        """Ask at every closed gate that the next waves have. Hosts behind a refused one are skipped."""
        gates: dict[str, list[tuple[HostRun, Step, str]]] = {}
        for run in runs:
            for step, change in run.changes:
                if change.gate is not None and (change.gate, run.host) not in self._open:
                    gates.setdefault(change.gate, []).append((run, step, change.consequence or change.summary))
        if not gates:
            return None
        import pandas as pd

        refused: GateRefused | None = None

        for gate, guarded in gates.items():
            guarded = [one for one in guarded if not one[0].finished]
            if not guarded:  # all behind another gate, which was refused
                continue
            rows = [(run.host, step.label, consequence) for run, step, consequence in guarded]
            evidence = pd.DataFrame(rows, columns=["host", "step", "consequence"])
            try:
                self.approval.ask(gate, f"{gate} on {', '.join(evidence['host'].unique())}", evidence)
            except GateRefused as error:
                refused = error
                for run in {run.host: run for run, _, _ in guarded}.values():
                    run.skip(f"the gate '{gate}' was not opened", [step for one, step, _ in guarded if one is run])
            else:
                self._open |= {(gate, run.host) for run, _, _ in guarded}
        return refused


def _look(runs: Sequence[HostRun]) -> None:
    _each(lambda run: run.guarded(run.look), [run for run in runs if not run.finished])


def _concluded(
    name: str, mode: Mode, runs: Sequence[HostRun], stopped: GateRefused | CheckFailed | None
) -> ApplyResult:
    """The result of a call, or the error that it ends with."""
    result = ApplyResult(name, mode, tuple(one for run in runs for one in run.results))
    if result.failed:
        bad = {one.host for one in result.having(*BAD)}
        more = f"\n{stopped.message}" if stopped else ""
        raise ApplyFailed(
            f"{name or 'steps'}: {len(bad)} of {len(runs)} hosts failed\n{result.problems()}{more}",
            "mend what is named above, then run again: what was done is found, and the rest follows",
            result=result,
        )
    if stopped is not None:
        stopped.result = result
        raise stopped
    return result


def _each(action: Callable[[T], R], items: Sequence[T]) -> list[R]:
    """`action` on every item, at most POOL at once. Each action ends by its own deadline."""
    if len(items) <= 1:
        return [action(item) for item in items]
    with ThreadPoolExecutor(max_workers=min(POOL, len(items)), thread_name_prefix="host") as pool:
        return list(pool.map(action, items))


def _bad(run: HostRun) -> bool:
    return any(one.status in BAD for one in run.results)


def _record() -> str:
    """The name of the record that backups on hosts are filed under."""
    folder = os.environ.get("RUNBOOK_RECORD")
    return Path(folder).name if folder else datetime.now(UTC).strftime("by-hand-%Y%m%dT%H%M%SZ")
