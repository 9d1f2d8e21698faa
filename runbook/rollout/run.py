"""A rollout: chapter after chapter, each notebook in a kernel of its own.

In mode `apply` it ends at the first chapter that fails, because the next ones stand on it. `plan` and `verify` go
through all of them: what is wrong in one chapter hides nothing of another.

What became of a chapter is read from the journal, to which its kernel tells everything. Where the kernel could not tell
the end (it was killed, ran out of time, left by `sys.exit`), the rollout does, with the reason.
"""

from __future__ import annotations

import contextlib
import html
import itertools
import os
import re
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import nbformat
from jupyter_client.kernelspec import NoSuchKernel
from nbclient.exceptions import CellTimeoutError
from nbformat import NotebookNode
from papermill.iorw import load_notebook_node
from papermill.parameterize import parameterize_notebook
from rich.console import Console

from runbook.errors import LockHeld, LockUnavailable, ParameterError, Problem, RecordError, SecretError
from runbook.outcomes import Outcome
from runbook.paths import upwards
from runbook.remote.modes import Mode
from runbook.rollout import engine, files, journal, lock, progress, record
from runbook.rollout.history import ChapterHistory, History
from runbook.rollout.journal import Tail
from runbook.secrets import redact_data, references
from runbook.site import Role, Site
from runbook.values import shortened

CELL_TIMEOUT = 3600
"""Seconds that one cell may take: every call on hosts has its own deadline, so this only ends what hangs."""
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
KERNEL = "python3"
STATUSES = {Outcome.FAILED: 1, Outcome.DRIFT: 3, Outcome.DIED: 4}  # the others: 0


class Interrupted(KeyboardInterrupt):
    """A signal asked the rollout to end. Like KeyboardInterrupt, no event loop and no `except Exception` keeps it."""

    def __init__(self, number: int) -> None:
        self.signal = signal.Signals(number)
        super().__init__(f"interrupted by {self.signal.name}")


@dataclass(frozen=True)
class Notebook:
    """A chapter's notebook: notebooks/NN_name.ipynb."""

    path: Path

    @property
    def number(self) -> str:
        """The chapter's number as the document has it: `1` of 01_zookeeper.ipynb."""
        return str(int(self.path.name[:2]))

    @property
    def name(self) -> str:
        """What a person reads before the chapter has told its title."""
        return self.path.stem[3:].replace("_", " ")


@dataclass(frozen=True)
class Finished:
    """How a rollout ended: its record's folder, and the exit status of the command."""

    folder: Path
    history: History
    status: int

    def lines(self) -> list[str]:
        """What is left to say at the end: what differs or failed, the outcome with its numbers, and the folder."""
        history = self.history
        differing = [f"differs: {place}" for place in history.differences]
        failures = [f"{chapter.number} {chapter.outcome}: {reason}" for chapter, reason in history.failures]
        counts = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in history.counts.items())
        return [*differing, *failures, f"{history.outcome}: {counts}", str(self.folder)]


def notebooks_in(folder: Path) -> tuple[Notebook, ...]:
    """The chapters that there are, in order."""
    return tuple(Notebook(path) for path in sorted(folder.glob("[0-9][0-9]_*.ipynb")))


def chosen(notebooks: Sequence[Notebook], chapters: str | None) -> tuple[Notebook, ...]:
    """Those that `chapters` names: numbers and ranges, as in `1`, `0-3`, `0,2-4`; all of them without it.

    Raises ParameterError for what is no such list, and for a chapter that does not exist.
    """
    if chapters is None and notebooks:
        return tuple(notebooks)
    by_number = {int(notebook.number): notebook for notebook in notebooks}
    there = ", ".join(map(str, by_number)) or "none: name the folder of the notebooks with --notebooks"
    wanted: set[int] = set()
    problems = []
    for part in ("0" if chapters is None else chapters).split(","):
        match = re.fullmatch(r"\s*(\d{1,2})(?:\s*-\s*(\d{1,2}))?\s*", part, re.ASCII)
        if match is None or int(match[1]) > int(match[2] or match[1]):
            problems.append(
                _problem(
                    "chapters", f"{shortened(ascii(part))} is neither a number nor a range", "as in 1 or 0-3 or 0,2-4"
                )
            )
            continue
        asked = range(int(match[1]), int(match[2] or match[1]) + 1)
        if missing := [str(number) for number in asked if number not in by_number]:
            problems.append(_problem("chapters", f"there is no chapter {', '.join(missing)}", f"there are {there}"))
        wanted.update(asked)
    if problems:
        raise ParameterError(problems)
    return tuple(by_number[number] for number in sorted(wanted))


def rollout(
    site_file: Path,
    *,
    chapters: str | None = None,
    mode: Mode = Mode.PLAN,
    yes: bool = False,
    active_checks: bool = False,
    outputs: Path = Path("outputs"),
    notebooks: Path = Path("notebooks"),
    cell_timeout: int = CELL_TIMEOUT,
    console: Console | None = None,
) -> Finished:
    """Run the chosen chapters on a site and leave a closed record; progress is shown on `console`.

    With `active_checks`, notebooks that have this parameter may write something temporary to verify what they claim.
    Without `chapters` those are left out, with a note, that are about a role that no host has. To be called in the main
    thread. Raises, before anything was done, ParameterError (parameter file, chapters, one of them about a role that no
    host has, a notebook without the parameters, a secret that cannot be resolved), LockHeld and LockUnavailable (in
    apply mode). A chapter that fails is no error here: the history says so, and the status is that of the worst
    chapter. SIGINT, SIGTERM and SIGHUP stop the kernel and close the record; the status is then 128 and the signal's
    number.
    """
    site = Site.load(upwards(site_file))
    wanted = chosen(notebooks_in(upwards(notebooks)), chapters)
    parameters = {"site_file": str(site_file), "mode": mode.value, "yes": yes}
    optional = {"active_checks": active_checks}
    prepared = [(notebook, _prepared(notebook, parameters, optional)) for notebook in wanted]
    idle = {notebook: problems for notebook, nb in prepared if (problems := site.lacking(notebook.number, _needs(nb)))}
    if idle and (chapters is not None or len(idle) == len(prepared)):
        raise ParameterError(itertools.chain.from_iterable(idle.values()))
    prepared = [(notebook, nb) for notebook, nb in prepared if notebook not in idle]
    site.check_secrets({notebook.number for notebook, _ in prepared})
    _know_secrets(site)
    name = record.new_name(site.name)
    with contextlib.ExitStack() as stack:
        terminal = console or Console(stderr=True)
        notes: list[str] = []

        def say(text: str) -> None:
            terminal.print(text, markup=False, highlight=False, soft_wrap=True)
            notes.append(text)

        site_lock = None
        if mode is Mode.APPLY:
            site_lock = stack.enter_context(lock.SiteLock(site, lock.Holder.here(name), say))
        folder = record.begin(outputs, site, mode, name)
        running = _Rollout(folder, mode, cell_timeout, site_lock, notes)
        if mode is not Mode.APPLY and (other := lock.holder_of(site)):
            running.tell(event="note", text=f"{other} is applying: what is seen here may have changed already")
        for notebook, problems in idle.items():
            running.tell(event="note", text=f"{notebook.number} {notebook.name} is left out: {problems[0].message}")
        stack.enter_context(_signals())
        status = 0
        with progress.shown(folder / journal.NAME, terminal) as listener:
            try:
                running.run(prepared, listener.address)
            except Interrupted as interrupted:
                running.tell(event="stopped", reason=str(interrupted))
                status = 128 + interrupted.signal
            except (LockHeld, LockUnavailable) as refused:
                running.tell(event="stopped", reason=refused.message)
            except Exception as error:  # none that is expected: the record tells it, and so does the traceback
                running.tell(event="stopped", reason=f"{type(error).__name__}: {error}")
                raise
            finally:
                _ignore_signals()  # what began to close a record ends it
                running.close()
                record.close(folder)
    history = record.history_of(folder)
    return Finished(folder, history, status or STATUSES.get(history.outcome, 0))


class _Rollout:
    """One rollout under way."""

    def __init__(
        self, folder: Path, mode: Mode, cell_timeout: int, site_lock: lock.SiteLock | None, notes: list[str]
    ) -> None:
        self._folder = folder
        self._mode = mode
        self._cell_timeout = cell_timeout
        self._lock = site_lock
        self._notes = notes  # what the lock told and the journal does not have yet
        self._journal = record.journal_of(folder)
        self._tail = Tail(self._journal.path)

    def tell(self, **event: Any) -> None:
        self._journal.append(redact_data(event))

    def close(self) -> None:
        self._journal.close()

    def run(self, prepared: Sequence[tuple[Notebook, NotebookNode]], display: str) -> None:
        with contextlib.closing(progress.Channel(display)) as channel:
            for position, (notebook, nb) in enumerate(prepared):
                if self._lock is not None:
                    self._renew(self._lock, position)
                channel.send({"event": "progress", "host": notebook.number, "step": f"starting {notebook.name}"})
                outcome = self._chapter(notebook, nb, {progress.VARIABLE: display})
                if self._mode is Mode.APPLY and outcome in (Outcome.FAILED, Outcome.DIED):
                    break

    def _renew(self, site_lock: lock.SiteLock, position: int) -> None:
        """See to it before each chapter but the first, for which it was just taken, that the lock is held."""
        try:
            if position:
                site_lock.renew()
        finally:
            while self._notes:
                self.tell(event="note", text=self._notes.pop(0))

    def _chapter(self, notebook: Notebook, nb: NotebookNode, environment: dict[str, str]) -> Outcome:
        self._tail.read()  # what is new from here on is of this chapter
        output = self._folder / notebook.path.name
        reason = None
        try:
            engine.RunbookEngine.execute_notebook(
                nb,
                KERNEL,
                str(output),
                progress_bar=False,
                execution_timeout=self._cell_timeout,
                env={
                    **os.environ,
                    **environment,
                    **(self._lock.environment() if self._lock is not None else {}),
                    record.VARIABLE: str(self._folder.absolute()),
                },
            )
        except (CellTimeoutError, RuntimeError, NoSuchKernel) as error:
            reason = str(error)  # only where no cell could be run: else the notebook's metadata say it better
        except RecordError as error:
            reason = error.message
            raise
        finally:
            chapter = self._judged(notebook, nb.metadata.papermill.get("stopped", reason))
            _put_banner(nb, chapter)
            files.replace(output, engine.written(nb))
        return chapter.outcome

    def _judged(self, notebook: Notebook, stopped: str | None) -> ChapterHistory:
        """The chapter as the journal tells it, which is told its end where the kernel could not tell it."""
        history = History.of(self._tail.read())
        chapter = history.chapters[-1] if history.chapters else ChapterHistory(notebook.number, notebook.name)
        if not chapter.finished:
            chapter.judge()
            if self._mode is not Mode.APPLY:  # no section that failed ended the notebook: something else did
                chapter.outcome = Outcome.DIED
            if chapter.outcome is Outcome.DIED:
                chapter.reason = stopped or "the notebook ended without the cell that finishes the chapter"
            self.tell(
                event="chapter_finished",
                chapter=chapter.number,
                section=None,
                title=chapter.title,
                outcome=chapter.outcome,
                reason=chapter.reason,
                told_by="rollout",
            )
        return chapter


def _prepared(notebook: Notebook, parameters: dict[str, Any], optional: dict[str, Any]) -> NotebookNode:
    """A notebook with its parameters put in, `optional` ones only where it has them; ParameterError where it lacks one
    of the others."""
    nb: NotebookNode = load_notebook_node(str(notebook.path))
    nb.metadata.papermill["input_path"] = str(notebook.path)
    engine.refuse_unknown(nb, parameters)
    present = engine.parameters_of(nb)
    given = parameters | {name: value for name, value in optional.items() if name in present}
    parameterized: NotebookNode = parameterize_notebook(nb, given, kernel_name=KERNEL, language="python")
    return parameterized


def _needs(nb: NotebookNode) -> Sequence[Role]:
    """The roles without which a notebook's chapter has nothing to do, which its metadata name."""
    needs: Sequence[Role] = nb.metadata.get("runbook", {}).get("needs", ())
    return needs


def _know_secrets(site: Site) -> None:
    """Let this process mask the site's secrets in what kernels print."""
    for reference in references(site.model_dump()):
        # what cannot be resolved here cannot be in a kernel either, whose environment is the same
        with contextlib.suppress(SecretError):
            reference.resolve()


def _put_banner(nb: NotebookNode, chapter: ChapterHistory) -> None:
    """Say at the top of an executed notebook how it ended, whatever its cells look like."""
    kind = {Outcome.FAILED: "danger", Outcome.DIED: "danger", Outcome.DRIFT: "warning"}.get(chapter.outcome, "success")
    reason = f"<br>{html.escape(chapter.reason)}" if chapter.reason else ""
    text = f'<div class="alert alert-{kind}"><b>Chapter {chapter.number}: {chapter.outcome}</b>{reason}</div>'
    banner = nbformat.v4.new_markdown_cell(text, metadata={"tags": ["runbook-outcome"]})
    nb.cells.insert(0, banner)


def _problem(field: str, message: str, remedy: str) -> Problem:
    return Problem(Path("command line"), 0, field, message, remedy)


@contextlib.contextmanager
def _signals() -> Iterator[None]:
    """Raise Interrupted for the first signal that asks for the end; the others find it coming already.

    A signal that whoever started this had ignored (nohup, a shell's background job) stays ignored.
    """

    def interrupt(number: int, frame: FrameType | None) -> None:
        _ignore_signals()
        raise Interrupted(number)

    heard = [one for one in SIGNALS if signal.getsignal(one) is not signal.SIG_IGN]
    before = {one: signal.signal(one, interrupt) for one in heard}
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


def _ignore_signals() -> None:
    for one in SIGNALS:
        signal.signal(one, signal.SIG_IGN)
