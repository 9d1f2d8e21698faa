"""The hosts of a site: steps on all of them at once or one at a time, and read-only questions."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

import fabric

from runbook.errors import ApplyFailed, CheckFailed, GateRefused, RunbookError
from runbook.remote.checks import Evidence, check
from runbook.remote.engine import HostRun
from runbook.remote.gates import Approval
from runbook.remote.modes import Mode
from runbook.remote.results import BAD, ApplyResult
from runbook.remote.session import Gateway, Login, Session
from runbook.remote.shell import Piece
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
    """The answer to a question: what a host printed, or the error that kept it from answering."""

    stdout: str = ""
    stderr: str = ""
    status: int | None = None
    error: RunbookError | None = None

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
        config = fabric.Config()
        gateways: dict[Login, Gateway] = {}
        sessions = {}
        for host in site.hosts:
            login = Login.of(host)
            gateway = None
            if login.gateway is not None:
                gateway = gateways.setdefault(login.gateway, Gateway(login.gateway, config))
            sessions[host.name] = Session(host.name, login, config, gateway)
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
            try:
                transcript = self._fleet.sessions[host.name].execute([Piece("0", script)], time.monotonic() + deadline)
            except RunbookError as error:
                return Output(error=error)
            frame = transcript.frames["0"]
            return Output(frame.out, frame.err, frame.status)

        return dict(zip((host.name for host in self.members), self._each(ask, self.members), strict=True))

    # steps

    def apply(self, steps: Steps, name: str = "", deadline: float = DEADLINE) -> ApplyResult:
        """Bring every host to the desired state, all at once, and show what was different.

        In plan and verify mode nothing is changed. `deadline` is in seconds for each host. Raises ApplyFailed, with
        all results, where a step failed or a host could not be reached, and GateRefused where a change needs an
        approval that was not given: then nothing of that wave was done on the hosts concerned.
        """
        runs = self._runs(steps, deadline)
        refused = self._work(runs)
        return self._conclude(name, runs, refused)

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
        `patience` seconds; at the first that does not hold, everything stops and the hosts left are untouched.
        In plan and verify mode the same as `apply`. Raises ApplyFailed, GateRefused, CheckFailed.
        """
        if self.mode is not Mode.APPLY:
            return self.apply(steps, name, deadline)
        runs = {run.host: run for run in self._runs(steps, deadline)}
        self._each(lambda run: run.guarded(run.look), list(runs.values()))
        refused: GateRefused | None = None
        stopped: CheckFailed | None = None
        unreachable = [run.host for run in runs.values() if run.finished and _bad(run)]
        for host in order(self.members):
            run = runs[host.name]
            if run.finished:
                continue
            if refused or stopped or unreachable:
                reason = "an earlier host did not recover" if refused or stopped else f"{', '.join(unreachable)} failed"
                run.skip((), reason)
                continue
            try:
                if before is not None:
                    check(f"{host.name} can be spared", lambda host=host: before(host), deadline=patience)  # type: ignore[misc]
                run.deadline = time.monotonic() + deadline
                refused = self._work([run], look=False)
                if not refused and not _bad(run):
                    check(f"{host.name} is back", lambda host=host: until(host), deadline=patience)  # type: ignore[misc]
            except CheckFailed as error:
                stopped = error
                if not run.finished:
                    run.skip(run.steps, error.message)
            if _bad(run):
                unreachable.append(host.name)
        if stopped is not None:
            raise stopped  # the hosts' results are in the journal
        return self._conclude(name, list(runs.values()), refused)

    # the parts

    def _runs(self, steps: Steps, deadline: float) -> list[HostRun]:
        until = time.monotonic() + deadline
        return [
            HostRun(
                self._fleet.sessions[host.name],
                steps(host) if callable(steps) else steps,
                self.mode,
                self.record,
                until,
            )
            for host in self.members
        ]

    def _work(self, runs: list[HostRun], look: bool = True) -> GateRefused | None:
        """Wave after wave on all hosts, asking at the gates in between; returns a refusal, if there was one."""
        refused: GateRefused | None = None
        if look:
            self._each(lambda run: run.guarded(run.look), runs)
        while left := [run for run in runs if not run.finished]:
            refused = self._ask(left) or refused
            self._each(lambda run: run.guarded(run.act), [run for run in left if not run.finished])
        return refused

    def _ask(self, runs: list[HostRun]) -> GateRefused | None:
        """Ask at every gate that the next wave has; hosts behind a closed one are skipped."""
        gates: dict[str, list[tuple[HostRun, Step, str]]] = {}
        for run in runs:
            for step, change in run.changes:
                if change.gate is not None:
                    gates.setdefault(change.gate, []).append((run, step, change.consequence or change.summary))
        refused: GateRefused | None = None
        for gate, guarded in gates.items():
            rows = [(run.host, step.label, consequence) for run, step, consequence in guarded]
            import pandas as pd

            evidence = pd.DataFrame(rows, columns=["host", "step", "consequence"])
            try:
                self.approval.ask(gate, f"{gate} on {', '.join(evidence['host'].unique())}", evidence)
            except GateRefused as error:
                refused = error
                for run, step, _ in guarded:
                    if not run.finished:
                        run.skip([step], f"the gate '{gate}' was not opened")
        return refused

    def _conclude(self, name: str, runs: Sequence[HostRun], refused: GateRefused | None) -> ApplyResult:
        result = ApplyResult(name, self.mode, tuple(one for run in runs for one in run.results))
        if result.failed:
            bad = {one.host for one in result.having(*BAD)}
            raise ApplyFailed(
                f"{name or 'steps'}: {len(bad)} of {len(runs)} hosts failed\n{result.problems()}",
                "mend what is named above, then run again: what was done is found, and the rest follows",
                result=result,
            )
        if refused is not None:
            raise refused
        return result

    @staticmethod
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
