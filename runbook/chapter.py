"""What a notebook opens: one chapter of the runbook on one site, in one mode, told to the journal section by section.

Each service module subclasses `Chapter`; each notebook opens that subclass in its second cell, calls one method a
cell, and ends with `finish()`. The journal decides what happened: the chapter's outcome follows from the steps and
checks that ran inside its sections, never from what the notebook's runner believes.
"""

from __future__ import annotations

import atexit
import html
import os
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Concatenate, ParamSpec, TypeVar

from IPython.core.getipython import get_ipython
from IPython.display import display
from rich.table import Table

from runbook import events, outcomes, output
from runbook.errors import (
    ApplyFailed,
    ChapterFailed,
    DriftFound,
    ParameterError,
    Problem,
    RecordError,
    RunbookError,
)
from runbook.interactive import is_interactive
from runbook.names import unknown
from runbook.outcomes import Outcome
from runbook.paths import upwards
from runbook.remote.checks import CheckResult, Evidence, check
from runbook.remote.modes import Mode, Verdict
from runbook.remote.results import ApplyResult
from runbook.rollout import lock, record
from runbook.rollout.progress import Channel
from runbook.site import Role, Site

if TYPE_CHECKING:
    from runbook.remote.hosts import Hosts

NOTEBOOK = Path("notebook")  # where a problem is that no file holds
RENEWAL = 30.0
"""Seconds between two attempts to take a lock in ZooKeeper that could not be had."""


class Misused(RuntimeError):
    """A chapter's methods were called in an order that they do not allow; no mode goes on after it."""


@dataclass
class Section:
    """One section of the document, as it ran: `outcome` is `ok` until something in it says otherwise."""

    number: str
    title: str
    outcome: Outcome = Outcome.OK
    error: str | None = None
    drift: str | None = None
    """The message of a DriftFound that ended it."""
    steps: Counter[str] = field(default_factory=Counter)
    checks: Counter[Verdict] = field(default_factory=Counter)
    drifted: list[Mapping[str, Any]] = field(default_factory=list)
    failed: list[Mapping[str, Any]] = field(default_factory=list)
    began: float = field(default_factory=time.monotonic)
    seconds: float = 0.0

    def take(self, event: Mapping[str, Any], mode: Mode) -> None:
        """Let one event count."""
        outcome = outcomes.of_event(event, mode)
        self.outcome = outcomes.worst((self.outcome, outcome))
        if outcome is Outcome.DRIFT:
            self.drifted.append(event)
        if event["event"] == "step":
            self.steps[event["status"]] += 1
        elif event["event"] == "check":
            self.checks[outcomes.verdict(event)] += 1
        if outcome is Outcome.FAILED:
            self.failed.append(event)

    def failures(self, order: Sequence[str]) -> list[str]:
        """What failed in this section, a line each; hosts in this order."""
        if self.outcome is Outcome.DIED:
            return [f"section {self.number}: was stopped before its end"]
        if self.outcome is not Outcome.FAILED:
            return []
        return [
            f"section {self.number}: {text}"
            for text in outcomes.describe_all(self.failed, order) or [self.error or "failed"]
        ]

    def differences(self, order: Sequence[str]) -> list[str]:
        """What differs in this section, also where something else in it failed; a line each, hosts in this order.

        In modes other than `verify` only what a DriftFound names.
        """
        return [*outcomes.describe_all(self.drifted, order), *filter(None, [self.drift])]


@dataclass(frozen=True, repr=False)
class Summary:
    """How a chapter ended; shows as a table of its sections."""

    number: str
    title: str
    mode: Mode
    outcome: Outcome
    sections: tuple[Section, ...]
    folder: Path

    COLUMNS: ClassVar = ("section", "title", "outcome", "steps", "checks", "seconds")

    def rows(self) -> list[tuple[str, str, str, str, str, str]]:
        """The table's rows, in the order of `COLUMNS`."""
        return [
            (
                section.number,
                section.title,
                section.outcome.value,
                ", ".join(f"{count} {status}" for status, count in section.steps.items()),
                _counted(section.checks),
                f"{section.seconds:.1f}",
            )
            for section in self.sections
        ]

    def __rich__(self) -> Table:
        table = Table(*self.COLUMNS, title=f"{self.number} {self.title}: {self.outcome} ({self.mode})")
        for row in self.rows():
            table.add_row(*row)
        return table

    def __repr__(self) -> str:
        lines = [f"{self.number} {self.title}: {self.outcome} ({self.mode})"]
        return "\n".join([*lines, *("  ".join(filter(None, row)) for row in self.rows())])

    def _repr_html_(self) -> str:
        left = ' style="text-align:left"'
        head = "".join(f"<th{left}>{name}</th>" for name in self.COLUMNS)
        body = "".join(
            "<tr>" + "".join(f"<td{left}>{html.escape(value)}</td>" for value in row) + "</tr>" for row in self.rows()
        )
        caption = html.escape(f"{self.number} {self.title}: {self.outcome} ({self.mode})")
        table = f"<table><caption>{caption}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
        return f'<div class="runbook-summary">{table}</div>'


def _counted(checks: Counter[Verdict]) -> str:
    """How many checks hold of those that were tried, and how many were not."""
    untried = checks[Verdict.NOT_TRIED]
    tried = checks.total() - untried
    told = [f"{checks[Verdict.HOLDS]} of {tried} hold"] * bool(tried) + [f"{untried} not tried"] * bool(untried)
    return ", ".join(told)


ChapterT = TypeVar("ChapterT", bound="Chapter")
Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")
_Method = Callable[Concatenate[ChapterT, Arguments], Result]


def section(
    number: str, title: str
) -> Callable[[_Method[ChapterT, Arguments, Result]], _Method[ChapterT, Arguments, Result]]:
    """Run a method of a chapter as the section `number` of the document, as `Chapter.section` describes.

    In `plan` and `verify` mode a method whose section failed returns None.
    """

    def decorate(method: _Method[ChapterT, Arguments, Result]) -> _Method[ChapterT, Arguments, Result]:
        @wraps(method)
        def run(chapter: ChapterT, /, *args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
            with chapter.section(number, title):
                return method(chapter, *args, **kwargs)

        return run

    return decorate


class Chapter:
    """One chapter on one site.

    `site_file` is the parameter file (relative: looked up here, then in the folders above), `mode` is `plan`, `apply`
    or `verify`, `yes` answers every gate beforehand. With `active_checks`, `verify` may make checks that write
    something temporary (see `may_act`). Subclasses set `number` and `title` as in the document, name in
    `needs` the roles without which there is nothing to do, and in `parameters` what their notebook takes beyond the
    first three; a notebook with active checks has `active_checks` in its parameters and passes it on.

    Where RUNBOOK_RECORD names a record's folder, the journal in it is continued; else a record is begun under
    `outputs/`, named in the cell's output, and closed by `finish()`.

    In mode `apply` the chapter holds the lock of the cluster until `finish()`, or until its kernel ends, unless a
    rollout that runs it holds the lock already.

    Raises ParameterError for a refused parameter file, one without a host of a role that is needed, a secret that
    cannot be resolved, an unknown mode, and, under papermill, for a parameter that the notebook does not have; LockHeld
    and LockUnavailable (in mode `apply`), before there is a record; RecordError where the journal cannot be written.
    """

    number: ClassVar[str]
    title: ClassVar[str]
    needs: ClassVar[tuple[Role, ...]] = ()
    parameters: ClassVar[frozenset[str]] = frozenset({"site_file", "mode", "yes"})
    takes_lock: ClassVar[bool] = True
    """Whether the chapter as a whole changes the cluster in mode `apply`."""

    _open: ClassVar[Chapter | None] = None  # of this process; a notebook has one, a cell run again makes another

    def __init__(
        self, site_file: str | Path, mode: str = Mode.PLAN, yes: bool = False, active_checks: bool = False
    ) -> None:
        self._refuse(mode, yes, active_checks)
        self.site = Site.load(upwards(site_file))
        if missing := self.site.lacking(self.number, self.needs):
            raise ParameterError(missing)
        self.site.check_secrets({self.number})
        self.mode = Mode(mode)
        self.yes = yes
        self.active_checks = active_checks
        if Chapter._open is not None:
            Chapter._open.close()
        self._began = time.monotonic()
        self._sections: dict[str, Section] = {}
        self._running: Section | None = None
        self._taking = threading.Lock()
        self._hosts: Hosts | None = None
        self._owns_record = record.VARIABLE not in os.environ
        name = record.new_name(self.site.name) if self._owns_record else Path(os.environ[record.VARIABLE]).name
        self._notes: list[str] = []
        self._lock = self._locked(name)
        self._renewed = time.monotonic()
        try:
            if self._owns_record:
                self.folder = record.begin(upwards("outputs"), self.site, self.mode, name)
                print(f"record: {self.folder}")
            else:
                self.folder = Path(os.environ[record.VARIABLE])
            self._journal = record.journal_of(self.folder)
        except BaseException:
            self._release()
            raise
        self._channel = Channel.of_environment()
        self._unsubscribe = events.subscribe(self._observe)
        Chapter._open = self
        atexit.register(self.close)
        events.emit(event="chapter_started", title=self.title, mode=self.mode)
        try:
            self._tell_notes()
            self._examine()
        except Exception as error:
            if isinstance(error, RunbookError):
                self._tell_end(Outcome.FAILED, reason=error.message)
            self.close()
            raise

    def __repr__(self) -> str:
        does = {
            Mode.PLAN: "every difference is shown, and nothing is touched",
            Mode.APPLY: "what differs is mended",
            Mode.VERIFY: "nothing is touched, and it fails where anything differs",
        }
        return f"{self.number} {self.title} on {self.site.name} ({self.site.file}), mode {self.mode}: {does[self.mode]}"

    @property
    def may_act(self) -> bool:
        """Whether a check may write something temporary (a znode, a log line): in apply mode, in verify mode only with
        `active_checks`, in a plan never. A claim that cannot be evaluated otherwise returns `Evidence.inactive`."""
        return self.mode is Mode.APPLY or (self.mode is Mode.VERIFY and self.active_checks)

    def hosts(self, role: str | None = None) -> Hosts:
        """The hosts that have `role` (all hosts without one), connected once and kept so until `finish()`."""
        if self._hosts is None:
            from runbook.remote.hosts import Hosts  # a chapter that only asks over HTTP need not load SSH

            hosts = Hosts.of(self.site, mode=self.mode, yes=self.yes)
            self._hosts = replace(hosts, record=self.folder.name)
        return self._hosts.having(role) if role else self._hosts

    @contextmanager
    def section(self, number: str, title: str) -> Iterator[Section]:
        """Everything that happens inside belongs to this section of the document.

        An error fails the section. In mode `apply` it goes on to the notebook, which ends there. `plan` and `verify`
        show it and go on with the next section, because what is wrong in one hides nothing of another; `finish()`
        raises it at the end, with those of all sections. So does a DriftFound in every mode.
        """
        self._refuse_finished()
        if self._running is not None:
            raise Misused(f"section {number} inside section {self._running.number}: sections do not nest")
        self._renew_lock()
        section = self._sections[number] = self._running = Section(number, title)
        events.emit(event="section_started", title=title)
        try:
            yield section
        except DriftFound as drift:
            section.outcome = outcomes.worst((section.outcome, Outcome.DRIFT))
            section.error = section.drift = drift.message
            if drift.result is not None:
                display(drift.result)
        except Exception as error:
            section.outcome, section.error = Outcome.FAILED, str(error) or type(error).__name__
            self._end(section)
            if self.mode is Mode.APPLY or isinstance(error, RecordError | Misused):
                raise
            _show(section, error)
            return
        except BaseException:  # stopped from outside, or sys.exit: its end is not reached, and so not told either
            section.outcome, self._running = Outcome.DIED, None
            raise
        self._end(section)

    def versions(self, host: str, software: Mapping[str, str]) -> None:
        """Put into the record which versions of which software a host has, by name; a later call adds to it."""
        events.emit(event="versions", host=host, versions=dict(software))

    def finish(self) -> Summary:
        """End the chapter: close the connections, tell the journal the outcome, and show what each section came to.

        Raises, with the summary as their `result`, ChapterFailed where a section failed, and DriftFound where `verify`
        found differences.
        """
        self._refuse_finished()
        outcome = outcomes.worst(section.outcome for section in self._sections.values())
        summary = Summary(self.number, self.title, self.mode, outcome, tuple(self._sections.values()), self.folder)
        self._tell_end(outcome)
        self.close()
        hosts = [host.name for host in self.site.hosts]
        if outcome in (Outcome.FAILED, Outcome.DIED):
            failed = [place for section in summary.sections for place in section.failures(hosts)]
            failed += [
                f"section {section.number}: differs: {place}"
                for section in summary.sections
                for place in section.differences(hosts)
            ]
            raise ChapterFailed(
                "\n".join([f"{self.number} {self.title}: {outcome}", *failed]),
                "mend what is named above, then run the chapter again: what is done already is not done twice",
                result=summary,
            )
        if outcome is Outcome.DRIFT:
            drifted = [place for section in summary.sections for place in section.differences(hosts)]
            raise DriftFound(
                "\n".join([f"{self.number} {self.title}: differs from what is desired", *drifted]),
                "look at the differences, then run in mode apply to mend them",
                result=summary,
            )
        return summary

    def _examine(self) -> None:
        """Look, before any host is touched, at what the chapter cannot do without; what is raised fails the chapter.

        Nothing here; subclasses say what they look at, and which errors they raise.
        """

    def _check(self, name: str, probe: Callable[[], Evidence], deadline: float = 60.0) -> CheckResult:
        """A check in the chapter's mode; see `remote.checks.check`."""
        return check(name, probe, mode=self.mode, deadline=deadline)

    def _applied(self, call: Callable[[], ApplyResult]) -> ApplyResult:
        """The result of `call`, also where hosts failed in verify mode: their rows are shown as the cell's result, and
        what the section does after it still runs. The section has failed all the same: the journal has the rows."""
        try:
            return call()
        except ApplyFailed as error:
            if self.mode is Mode.VERIFY and isinstance(error.result, ApplyResult):
                return error.result
            raise

    def close(self) -> None:
        """Close connections and journal; a second call does nothing. Without `finish()` the chapter counts as died."""
        if Chapter._open is not self:
            return
        Chapter._open = None
        atexit.unregister(self.close)
        if self._hosts is not None:
            self._hosts.close()
        output.report_cut()
        self._unsubscribe()
        self._journal.close()
        self._channel.close()
        try:
            if self._owns_record:
                record.close(self.folder)
        finally:
            self._release()

    def _locked(self, name: str) -> lock.SiteLock | None:
        """The cluster's lock, taken for the record `name`; None where there is nothing to take.

        Where another holds it meanwhile, `plan` and `verify` note that.
        """
        if self.mode is not Mode.APPLY:
            if self._owns_record and (other := lock.holder_of(self.site)):
                self._say(f"{other} is applying: what is seen here may have changed already")
            return None
        if not self.takes_lock or lock.is_inherited(self.site):
            return None
        taken = lock.SiteLock(self.site, lock.Holder.here(name), self._say)
        taken.take()
        return taken

    def _renew_lock(self) -> None:
        """Take the lock in ZooKeeper that was lost or could not be had yet, as a rollout does between chapters."""
        if self._lock is None or self._lock.is_held() or time.monotonic() - self._renewed < RENEWAL:
            return
        try:
            self._lock.renew()
        finally:
            self._renewed = time.monotonic()
            self._tell_notes()

    def _release(self) -> None:
        if self._lock is not None:
            self._lock.release()

    def _say(self, text: str) -> None:
        """Show what an operator should read, at once; the journal gets it when it is open (`_tell_notes`)."""
        print(text, file=sys.stderr, flush=True)
        self._notes.append(text)

    def _tell_notes(self) -> None:
        while self._notes:
            events.emit(event="note", text=self._notes.pop(0))

    def _observe(self, event: events.Event) -> None:
        section = self._running
        event = {
            "event": event["event"],
            "chapter": self.number,
            "section": section.number if section else None,
            **event,
        }
        if event["event"] == "progress":
            self._channel.send(event)
            return
        if section is not None:
            with self._taking:  # hosts tell from threads of their own
                section.take(event, self.mode)
        self._journal.append(event)
        self._channel.wake()

    def _tell_end(self, outcome: Outcome, **more: str) -> None:
        seconds = round(time.monotonic() - self._began, 3)
        events.emit(event="chapter_finished", mode=self.mode, outcome=outcome, seconds=seconds, **more)

    def _end(self, section: Section) -> None:
        section.seconds = time.monotonic() - section.began
        events.emit(
            event="section_finished",
            title=section.title,
            outcome=section.outcome,
            error=section.error,
            seconds=round(section.seconds, 3),
        )
        self._running = None

    def _refuse_finished(self) -> None:
        if Chapter._open is not self:
            raise Misused(f"chapter {self.number} is closed: run the cell that opens it again")

    def _refuse(self, mode: object, yes: object, active_checks: object) -> None:
        problems = []
        if mode not in list(Mode):
            problems.append(Problem(NOTEBOOK, 0, "mode", f"{mode!r} is not a mode", f"one of {', '.join(Mode)}"))
        for name, value in {"yes": yes, "active_checks": active_checks}.items():
            if not isinstance(value, bool):
                problems.append(Problem(NOTEBOOK, 0, name, f"{value!r} is not a truth value", "true or false"))
        if not is_interactive():
            problems += unknown(injected_names(), self.parameters, NOTEBOOK)
        if problems:
            raise ParameterError(problems)


def _show(section: Section, error: Exception) -> None:
    """Show in the cell why a section failed, where the notebook goes on: the result, then the message in red.

    An error that has no name is a fault of the runbook: its traceback is shown.
    """
    result = getattr(error, "result", None)
    if result is not None:
        display(result)
    lines = [str(error)] if isinstance(error, RunbookError) else traceback.format_exception(error)
    print(f"section {section.number} failed: {''.join(lines).rstrip()}", file=sys.stderr, flush=True)


def injected_names() -> list[str]:
    """The names of plain values in the notebook's namespace.

    When a chapter opens, the cells before it have bound its parameters and what they import, and nothing else: any
    other plain value (all that papermill can inject) is a parameter that the notebook does not have. papermill
    itself only warns of those.
    """
    shell = get_ipython()
    if shell is None:
        return []
    return [
        name
        for name, value in shell.user_ns.items()
        if isinstance(value, str | int | float | list | dict | tuple | None)
        and name not in shell.user_ns_hidden
        and not name.startswith("_")
    ]
