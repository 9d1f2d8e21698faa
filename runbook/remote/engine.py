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

from runbook.errors import HostUnreachable, RecordError, RunbookError, StepFailed
from runbook.events import emit
from runbook.remote import steps
from runbook.remote.modes import Mode, Status
from runbook.remote.results import StepResult
from runbook.remote.session import ConnectionLost, DeadlinePassed, Session, ShellBroken, artifact_size, placing
from runbook.remote.shell import Frame, Piece, Transcript, question, quote
from runbook.remote.steps import ANYTHING, Change, Step
from runbook.secrets import redact

MAX_RECONNECTS = 2
"""How often one run of steps goes on after a lost connection."""

NOTHING: frozenset[str] = frozenset()


@dataclass
class _Progress:
    """Where one step stands on this host: its present state (or why it is not known), what is to be done, and the end.

    `attempted` is the change that was sent to the host, and that may have been made.
    """

    step: Step
    state: str | None = None
    trouble: StepFailed | None = None
    change: Change | None = None
    attempted: Change | None = None
    result: StepResult | None = None

    def take(self, frame: Frame) -> None:
        """Let the step's probe have ended with `frame`."""
        self.state, self.trouble = frame.out, None
        if frame.status:
            said = redact(frame.err.strip()) or f"the probe ended with status {frame.status}"
            self.trouble = StepFailed(f"the present state cannot be found out: {said}")

    def plan(self, pending: frozenset[str] = NOTHING) -> Change | None:
        """The change that is left to make. Raises StepFailed where there is no way to the desired state."""
        if self.trouble is not None:
            raise self.trouble
        assert self.state is not None
        change = self.step.plan(self.state, pending)
        for upload in change.uploads if change else ():
            artifact_size(upload)
        return change


@dataclass
class HostRun:
    """One host's way through the steps of one call, for which it may work `seconds` (waiting for others is free)."""

    session: Session
    steps: Sequence[Step]
    mode: Mode
    record: str
    seconds: float
    _at: list[_Progress] = field(init=False)
    _wave: list[int] = field(default_factory=list)
    _reconnects: int = 0
    _began: float = field(default_factory=time.monotonic)
    _deadline: float = 0.0

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
        planned = ((self._at[index].step, self._at[index].change) for index in self._wave)
        return [(step, change) for step, change in planned if change is not None and not change.kept]

    @property
    def finished(self) -> bool:
        """Whether every step has its result."""
        return not self._left()

    def guarded(self, action: Callable[[], None]) -> None:
        """Do `action`, and let what goes wrong become the results of the steps that are left: never of other hosts.

        Raises RecordError where a result cannot be recorded.
        """
        began = time.monotonic()
        self._deadline = began + self.seconds
        try:
            action()
        except HostUnreachable as error:
            self._end(Status.UNREACHABLE, error)
        except RecordError:  # nothing goes on unrecorded, and this could not be recorded either
            raise
        except RunbookError as error:
            self._end(Status.FAILED, error)
        finally:
            self.seconds -= time.monotonic() - began

    def look(self) -> None:
        """Probe all steps and plan the first wave (in plan and verify mode: everything)."""
        self._began = time.monotonic()
        self._probe()
        self._plan()

    def act(self) -> None:
        """Make the changes of the wave, probe again, and plan the next one."""
        try:
            pieces = self._pieces()
            if self.finished:  # an upload failed
                return
            transcript = self._execute(pieces, exclusive=True)
        except ShellBroken as broken:
            self._judge(broken.transcript)
            if not self.finished:
                raise
            return
        except (ConnectionLost, DeadlinePassed) as broken:
            self._judge(broken.transcript)
            if self.finished:
                return
            self._reconnect_after(broken)
            # What was done of the rest is not known: look again, once the script has ended if it is still at work, and
            # plan from what is there. Nothing is sent again blindly.
            self._probe(exclusive=True)
        else:
            self._judge(transcript)
        if not self.finished:
            self._plan()

    def skip(self, reason: str, steps: Sequence[Step] = ()) -> None:
        """Leave the rest undone because of `reason`; where it is about `steps`, the others are told so."""
        for index in self._left():
            one = self._at[index]
            told = reason if not steps or one.step in steps else f"with another step of this host: {reason}"
            self._finish(one, Status.SKIPPED, told)

    # the parts

    def _left(self) -> list[int]:
        return [index for index, one in enumerate(self._at) if one.result is None]

    def _pieces(self) -> list[Piece]:
        """What the wave executes: its changes and their probes, then the probes of what comes after it."""
        placings = self._uploaded()
        pieces = []
        for index in self._left():
            one = self._at[index]
            if one.change is not None and not one.change.kept and index in self._wave:
                one.attempted = one.change
                pieces += [Piece(f"place-{index}", text, must_succeed=True) for text in placings.get(index, ())]
                pieces.append(Piece(f"change-{index}", one.step.script(one.change), must_succeed=True))
            pieces.append(Piece(f"probe-{index}", question(one.step.probe()), short=True))
        return pieces

    def _uploaded(self) -> dict[int, list[str]]:
        """Upload what the wave needs; by step, the scripts that put it in its place. A failure ends the wave there."""
        placings: dict[int, list[str]] = {}
        for index in self._wave:
            change = self._at[index].change
            for upload in change.uploads if change else ():

                def tell(done: int, total: int, name: str = upload.local.name) -> None:
                    emit(event="progress", host=self.host, step=f"upload {name}", done=done, total=total)

                try:
                    arrived = self.session.upload(upload, self._deadline, tell)
                except StepFailed as error:
                    self._end(Status.FAILED, error, at=index)
                    return placings
                placings.setdefault(index, []).append(placing(upload, arrived))
        return placings

    def _execute(self, pieces: Sequence[Piece], exclusive: bool = False) -> Transcript:
        total = len(pieces)
        seen = 0

        def tell(word: str, key: str) -> None:
            nonlocal seen
            seen += word == "end"
            kind, _, index = key.partition("-")
            if word == "begin" and kind == "change":
                label = self._at[int(index)].step.label
                emit(event="progress", host=self.host, step=label, done=seen, total=total)

        backup = f"RUNBOOK_BACKUP={quote(f'{steps.STATE_DIR}/backup/{self.record}')}\n"
        return self.session.execute(pieces, self._deadline, tell, environment=backup, exclusive=exclusive)

    def _probe(self, exclusive: bool = False) -> None:
        """Find out the present state of all steps that are left. A probe may be repeated when the connection breaks."""
        left = self._left()
        pieces = [Piece(f"probe-{index}", question(self._at[index].step.probe()), short=True) for index in left]
        while True:
            try:
                frames = self._execute(pieces, exclusive).frames
                break
            except (ConnectionLost, DeadlinePassed) as broken:
                self._reconnect_after(broken)
        for index in left:
            self._at[index].take(frames[f"probe-{index}"])

    def _reconnect_after(self, broken: ConnectionLost | DeadlinePassed) -> None:
        """Allow one more connection, or let `broken` end the run, saying at which step it was."""
        self._reconnects += 1
        if self._reconnects <= MAX_RECONNECTS and isinstance(broken, ConnectionLost):
            return
        for key, frame in broken.transcript.frames.items():
            if frame.status is None:
                label = self._at[int(key.partition("-")[2])].step.label
                broken.message = f"{broken.message}; it was at '{label}'"
        raise broken

    def _plan(self) -> None:
        """Plan from what was probed; in apply mode up to the first step whose state a pending change may alter."""
        self._wave = []
        pending: dict[str, Step] = {}
        for index in self._left():
            one = self._at[index]
            upset = _upset(one.step, pending)
            if upset is not None and self.mode is Mode.APPLY:
                break
            trouble = None
            try:
                # Verify mode judges what is: nothing is about to change.
                one.change = one.plan(NOTHING if self.mode is Mode.VERIFY else frozenset(pending))
            except StepFailed as error:
                if upset is None:
                    self._end(Status.FAILED, error, at=index)
                    break
                one.change, trouble = None, error  # the state that it complains of may be gone by then
            for path in one.step.touches if one.change and not one.change.kept else ():
                pending.setdefault(path, one.step)
            if self.mode is Mode.APPLY:
                self._wave.append(index)
            else:
                self._foretell(one, upset, trouble)
        if self.mode is Mode.APPLY and not self.changes:
            for index in self._wave:
                self._accept(self._at[index])

    def _foretell(self, one: _Progress, upset: Step | None, trouble: StepFailed | None) -> None:
        """The result of a step in plan or verify mode."""
        summary, diff = (one.change.summary, one.change.diff) if one.change else ("", "")
        if upset is not None and (trouble or self.mode is Mode.PLAN):
            at_present = trouble.message if trouble else summary or "nothing to do"
            summary = f"unknown until '{upset.label}' is applied (as things are: {at_present})"
        kept = one.change is not None and one.change.kept and self.mode is Mode.PLAN
        self._finish(one, Status.SKIPPED if kept else Status.WOULD_CHANGE if summary else Status.OK, summary, diff)

    def _judge(self, transcript: Transcript) -> None:
        """The results of the wave's steps as far as the transcript goes, and the states of what comes after it."""
        frames = transcript.frames
        for index in self._left():
            one = self._at[index]
            work = [frames[key] for key in (f"place-{index}", f"change-{index}") if key in frames]
            if failed := next((frame for frame in work if frame.status), None):
                assert one.change is not None
                said = redact(failed.err.strip() or failed.out.strip()) or f"ended with status {failed.status}"
                self._end(Status.FAILED, StepFailed(f"{one.change.summary}: {said}"), at=index)
                return
            probe = frames.get(f"probe-{index}")
            if probe is None or probe.status is None:
                return
            one.take(probe)
            if index in self._wave:
                self._settle(index)
            if self.finished:
                return

    def _settle(self, index: int) -> None:
        """The result of a step from the state that was probed last, and where it failed, the end of the others."""
        one = self._at[index]
        try:
            left = one.plan()
        except StepFailed as error:
            self._end(Status.FAILED, error, at=index)
            return
        if left is not None and not left.kept:
            message = f"the change was made, and the host still does not show the desired state:\n{left.diff}"
            self._end(Status.FAILED, StepFailed(message), at=index)
        else:
            one.change = left
            self._accept(one)

    def _accept(self, one: _Progress) -> None:
        """The result of a step whose state is the desired one, or one that is left to the administrator."""
        if one.attempted is not None:
            self._finish(one, Status.CHANGED, one.attempted.summary, one.attempted.diff)
        elif one.change is not None and one.change.kept:
            self._finish(one, Status.SKIPPED, one.change.summary, one.change.diff)
        else:
            self._finish(one, Status.OK)

    def _finish(self, one: _Progress, status: Status, summary: str = "", diff: str = "") -> None:
        seconds = time.monotonic() - self._began
        one.result = StepResult(self.host, one.step.label, status, redact(summary), redact(diff), seconds)
        emit(event="step", **one.result.row())

    def _end(self, status: Status, error: RunbookError, at: int = 0) -> None:
        """The first step without a result, from `at` on, gets the error; the others are skipped (or unreachable)."""
        first, *others = (index for index in self._left() if index >= at)
        self._finish(self._at[first], status, str(error))
        for index in others:
            unreachable = status is Status.UNREACHABLE
            told = error.message if unreachable else "an earlier step failed"
            self._finish(self._at[index], status if unreachable else Status.SKIPPED, told)


def _upset(step: Step, pending: dict[str, Step]) -> Step | None:
    """The pending step that may alter what `step` is planned from, if there is one."""
    if ANYTHING in pending:
        return pending[ANYTHING]
    return next((pending[path] for path in step.reads if path in pending), None)
