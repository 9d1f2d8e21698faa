"""Probe -> plan -> apply -> probe again, for one host, in as few executions as the steps allow.

A run of steps is one execution for the probe and one for the changes, whose pieces alternate: a step's script, then
its probe again. A *wave* is the part of the steps that can be planned from what is known now. It ends before a step
whose present state a pending change may alter (an installed package brings files with it): that step's probe is put
at the end of the wave's execution, and the next wave is planned from it. So nothing is guessed, and a host where all
is well costs one execution.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from runbook.errors import HostUnreachable, RunbookError, StepFailed
from runbook.events import emit
from runbook.remote.modes import Mode, Status
from runbook.remote.results import StepResult
from runbook.remote.session import ConnectionLost, Session, place
from runbook.remote.shell import Frame, Piece, Transcript, quote
from runbook.remote.steps import ANYTHING, STATE_DIR, Change, Step
from runbook.secrets import redact

MAX_RECONNECTS = 2
"""How often one run of steps goes on after a lost connection."""


@dataclass
class _Progress:
    """Where one step stands on this host."""

    step: Step
    state: str | None = None
    change: Change | None = None
    attempted: Change | None = None
    result: StepResult | None = None


@dataclass
class HostRun:
    """One host's way through the steps of one call. `deadline` is a value of time.monotonic()."""

    session: Session
    steps: Sequence[Step]
    mode: Mode
    record: str
    deadline: float
    started: float = field(default_factory=time.monotonic)
    _at: list[_Progress] = field(default_factory=list)
    _wave: list[int] = field(default_factory=list)
    _reconnects: int = 0
    _pid: int | None = None

    def __post_init__(self) -> None:
        self._at = [_Progress(step) for step in self.steps]

    @property
    def host(self) -> str:
        """The host's name."""
        return self.session.name

    @property
    def results(self) -> tuple[StepResult, ...]:
        """What is known so far."""
        return tuple(one.result for one in self._at if one.result is not None)

    @property
    def changes(self) -> list[tuple[Step, Change]]:
        """The changes that the next wave would make."""
        return [(self._at[index].step, change) for index in self._wave if (change := self._at[index].change)]

    @property
    def finished(self) -> bool:
        """Whether every step has its result."""
        return all(one.result is not None for one in self._at)

    def guarded(self, action: Callable[[], None]) -> None:
        """Do `action`, and let what goes wrong become the results of the steps that are left: never of other hosts."""
        try:
            action()
        except HostUnreachable as error:
            self._end(Status.UNREACHABLE, error)
        except RunbookError as error:
            self._end(Status.FAILED, error)

    def look(self) -> None:
        """Probe all steps and plan the first wave (in plan and verify mode: everything)."""
        self._probe(range(len(self._at)))
        self._plan()

    def act(self) -> None:
        """Make the changes of the wave, probe again, and plan the next one."""
        pieces: list[Piece] = []
        pieces += self._uploads()
        for index in self._wave:
            one = self._at[index]
            if one.change is not None:
                one.attempted = one.change
                pieces.append(Piece(f"change-{index}", one.step.script(one.change), must_succeed=True))
            pieces.append(Piece(f"probe-{index}", one.step.probe()))
        rest = range(self._wave[-1] + 1, len(self._at))
        pieces += [Piece(f"probe-{index}", self._at[index].step.probe()) for index in rest]
        try:
            transcript = self._execute(pieces)
        except ConnectionLost as lost:
            if self._reconnects == MAX_RECONNECTS:
                raise
            self._pid = lost.transcript.pid
            # What was done is not known: look again, and plan from what is there. Nothing is sent again blindly.
            self._reconnects += 1
            self._probe(range(self._wave[0], len(self._at)), wait=True)
            self._plan()
            return
        self._judge(transcript)
        if not self.finished:
            self._plan()

    def skip(self, steps: Sequence[Step], reason: str) -> None:
        """Leave the wave undone: `steps` of it were refused, the others that are left are skipped with them."""
        for one in self._at:
            if one.result is None:
                self._finish(one, Status.SKIPPED, reason if one.step in steps else "an earlier step was refused")

    # the parts

    def _uploads(self) -> list[Piece]:
        pieces = []
        for _, change in self.changes:
            for upload in change.uploads:

                def tell(done: int, total: int, name: str = upload.local.name) -> None:
                    emit(event="progress", host=self.host, step=f"upload {name}", done=done, total=total)

                pieces.append(place(upload, self.session.upload(upload, self.deadline, tell)))
        return pieces

    def _execute(self, pieces: Sequence[Piece]) -> Transcript:
        total = len(pieces)
        seen = 0

        def tell(word: str, key: str) -> None:
            nonlocal seen
            seen += word == "end"
            kind, _, index = key.partition("-")
            if word == "begin" and kind == "change":
                label = self._at[int(index)].step.label
                emit(event="progress", host=self.host, step=label, done=seen, total=total)

        backup = f"RUNBOOK_BACKUP={quote(f'{STATE_DIR}/backup/{self.record}')}\n"
        return self.session.execute(pieces, self.deadline, tell, environment=backup)

    def _probe(self, indices: Sequence[int], wait: bool = False) -> None:
        pieces = [Piece(f"probe-{index}", self._at[index].step.probe()) for index in indices]
        if wait and self._pid:
            # The script whose connection broke may still be running.
            pieces.insert(
                0, Piece("wait-", f"n=0; while kill -0 {self._pid} && [ $n -lt 150 ]; do sleep 0.2; n=$((n+1)); done")
            )
        transcript = self._execute(pieces)
        for index in indices:
            self._take(index, transcript)

    def _take(self, index: int, transcript: Transcript) -> None:
        frame = transcript.frames.get(f"probe-{index}", Frame())
        if frame.status != 0:
            error = frame.err.strip() or f"the probe ended with status {frame.status}"
            raise StepFailed(f"{self._at[index].step.label}: the present state cannot be found out: {error}")
        self._at[index].state = frame.out

    def _plan(self) -> None:
        """Plan from what was probed; in apply mode up to the first step whose state a pending change may alter."""
        self._wave = []
        pending: dict[str, Step] = {}
        for index, one in enumerate(self._at):
            if one.result is not None:
                continue
            upset = _upset(one.step, pending)
            if upset is not None and self.mode is Mode.APPLY:
                break
            try:
                assert one.state is not None
                one.change = one.step.plan(one.state, frozenset(pending))
            except StepFailed as error:
                if upset is None:
                    self._end(Status.FAILED, error, at=index)
                    break
                one.change = None  # the state that it complains of may be gone by then
            self._wave.append(index)
            if self.mode is Mode.APPLY:
                for path in one.step.touches if one.change else ():
                    pending.setdefault(path, one.step)
                continue
            self._foretell(one, upset)
            for path in one.step.touches if one.change else ():
                pending.setdefault(path, one.step)
        if self.mode is Mode.APPLY and not self.changes:
            for index in self._wave:
                self._settle(self._at[index])

    def _foretell(self, one: _Progress, upset: Step | None) -> None:
        """The result of a step in plan or verify mode."""
        if upset is not None:
            at_present = one.change.summary if one.change else "nothing to do"
            summary = f"unknown until '{upset.label}' is applied (as things are: {at_present})"
            self._finish(one, Status.WOULD_CHANGE, summary, one.change.diff if one.change else "")
        elif one.change is not None:
            self._finish(one, Status.WOULD_CHANGE, one.change.summary, one.change.diff)
        else:
            self._finish(one, Status.OK)

    def _judge(self, transcript: Transcript) -> None:
        """Results of a wave from its transcript; states of what comes after it."""
        if failed := [key for key, frame in transcript.frames.items() if frame.status and key.startswith("place-")]:
            raise StepFailed(transcript.frames[failed[0]].err.strip())
        for index in self._wave:
            one = self._at[index]
            change = transcript.frames.get(f"change-{index}")
            if one.change is not None and (change is None or change.status != 0):
                said = (change.err.strip() or change.out.strip()) if change else "it did not run"
                status = change.status if change else None
                self._end(
                    Status.FAILED,
                    StepFailed(f"{one.change.summary}: {said or f'ended with status {status}'}"),
                    at=index,
                )
                return
            self._take(index, transcript)
            self._settle(one)
            if self.finished:
                return
        for index in range(self._wave[-1] + 1, len(self._at)):
            self._take(index, transcript)

    def _settle(self, one: _Progress) -> None:
        """The result of a step from the state that was probed last."""
        assert one.state is not None
        try:
            left = one.step.plan(one.state)
        except StepFailed as error:
            self._end(Status.FAILED, error, at=self._at.index(one))
            return
        if left is not None:
            message = f"the change was made, and the host still does not show the desired state:\n{left.diff}"
            self._end(Status.FAILED, StepFailed(message), at=self._at.index(one))
        elif one.attempted is not None:
            self._finish(one, Status.CHANGED, one.attempted.summary, one.attempted.diff)
        else:
            self._finish(one, Status.OK)

    def _finish(self, one: _Progress, status: Status, summary: str = "", diff: str = "") -> None:
        seconds = time.monotonic() - self.started
        one.result = StepResult(self.host, one.step.label, status, redact(summary), redact(diff), seconds)
        emit(event="step", **one.result.row())

    def _end(self, status: Status, error: RunbookError, at: int | None = None) -> None:
        """The first step without a result gets the error; those after it are skipped (or unreachable, too)."""
        told = False
        for index, one in enumerate(self._at):
            if one.result is not None or (at is not None and index < at):
                continue
            if not told:
                self._finish(one, status, str(error))
            elif status is Status.UNREACHABLE:
                self._finish(one, status, error.message)
            else:
                self._finish(one, Status.SKIPPED, "an earlier step failed")
            told = True


def _upset(step: Step, pending: dict[str, Step]) -> Step | None:
    """The pending step that may alter what `step` is planned from, if there is one."""
    if ANYTHING in pending:
        return pending[ANYTHING]
    return next((pending[path] for path in step.reads if path in pending), None)
