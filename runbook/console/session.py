"""A session at the console: a chapter that stays open, in which each action is a section of its record."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from runbook import events
from runbook.chapter import NOTEBOOK, Chapter, Summary
from runbook.console.actions import Action, Done, Tools, refused
from runbook.console.gate import AtDesk, Desk
from runbook.console.workers import Throttle
from runbook.errors import ChapterFailed, GateRefused, ParameterError, Problem, RunbookError
from runbook.paths import upwards
from runbook.remote.modes import Mode, Status
from runbook.rollout.lock import Holder, SiteLock
from runbook.services.registry import Registry
from runbook.site import Site

if TYPE_CHECKING:
    import ipywidgets

    from runbook.console.page import Page
    from runbook.remote.hosts import Hosts


@dataclass(frozen=True)
class Entry:
    """One action of the session: when it began, and how it ended. `error` says why it failed."""

    number: int
    began: datetime
    action: Action
    done: Done | None = None
    error: RunbookError | None = None

    @property
    def under_way(self) -> bool:
        """Whether it has not ended."""
        return self.done is None and self.error is None

    @property
    def status(self) -> str:
        """How it ended, in a word or two."""
        if self.error is not None:
            return Status.FAILED.value
        return self.done.result.status.value if self.done else "under way"


class RegistryConsole(Chapter):
    """The console of a site's registry (8.3.3): find, look, delete, tag, collect garbage.

    `mode` is `apply`, or `plan`, in which actions tell what they would do and do nothing. Each action is a section of
    the session's record. Its gate is asked on the page each time: `yes` is refused, and approvals in the parameters do
    not count. One action is under way at a time; one that changes something holds the site's lock meanwhile.

    The session ends with `end()`, by the page's button, or with the kernel when that is shut down. A kernel that is
    killed leaves a record that was not closed, and says of the session, and of an action under way, that it died.

    Raises ParameterError as every chapter does, and for `verify`, for `yes`, and for a site without a registry.
    """

    number = "8.3.3"
    title = "Registry console"
    takes_lock = False  # each action takes it: a session stays open for days

    def __init__(self, site_file: str | Path, mode: str = Mode.PLAN, yes: bool = False) -> None:
        site = Site.load(upwards(site_file))
        if problems := [*_wrong_here(mode, yes), *without_registry(site)]:
            raise ParameterError(problems)
        self.registry = Registry.of(site)
        super().__init__(site_file, mode)
        self.desk = Desk(self._changed)
        self.entries: tuple[Entry, ...] = ()
        self.summary: Summary | None = None
        self._page: Page | None = None
        self._acting: threading.Thread | None = None
        self._beginning = threading.Lock()
        self._ending = False
        self.doing = ""  # what the action under way told last
        self._may_tell = Throttle(0.3)

    def show(self) -> ipywidgets.Widget:
        """The page; shown twice, it is the same page twice."""
        if self._page is None:
            from runbook.console.page import Page

            self._page = Page(self)
        return self._page.widget

    # actions

    @property
    def busy(self) -> bool:
        """Whether an action is under way."""
        return bool(self.entries) and self.entries[-1].under_way

    @property
    def ending(self) -> bool:
        """Whether the session ends, or has ended."""
        return self._ending

    def act(self, action: Action) -> bool:
        """Begin an action, in a thread of its own; False where one is under way, or the session has ended."""
        with self._beginning:
            if self.busy or self._ending:
                return False
            entry = Entry(len(self.entries) + 1, datetime.now(UTC), action)
            self.entries = (*self.entries, entry)
            # A daemon, as the interpreter would wait for others before it lets `end` answer what they may wait for.
            self._acting = threading.Thread(target=self._act, args=[entry], name=action.title, daemon=True)
        self._acting.start()
        return True

    def _act(self, entry: Entry) -> None:
        self.doing = ""
        self._changed()
        try:
            with self.section(f"action {entry.number}", entry.action.title):
                entry = replace(entry, done=self._run(entry.action))
        except RunbookError as error:
            entry = replace(entry, error=error)
        except Exception as error:
            entry = replace(entry, error=RunbookError(f"{type(error).__name__}: {error}", "this is a fault of runbook"))
            raise
        finally:
            self.entries = (*self.entries[:-1], entry)
            self._changed()
            if self._page is not None:
                self._page.acted(entry)

    def _run(self, action: Action) -> Done:
        approval = AtDesk(desk=self.desk)

        def hosts() -> Hosts:
            return replace(self.hosts(), approval=approval)

        try:
            return action.run(Tools(self.registry, hosts, self.mode, approval, self._alone))
        except GateRefused:
            return refused(action.title)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """The right to change the site; raises LockHeld while a rollout, a chapter or another console has it."""
        with SiteLock(self.site, Holder.here(self.folder.name), lambda text: events.emit(event="note", text=text)):
            yield

    # ending

    def end(self) -> Summary | None:
        """End the session and close its record; gives the summary, which is None where `close` was first.

        A question that stands is answered with no, and an action under way is waited for. A second call does nothing.
        """
        with self._beginning:
            if self._ending:
                return self.summary
            self._ending = True
        self.desk.close()
        if self._acting is not None:
            self._acting.join()
        try:
            summary: object = self.finish()
        except ChapterFailed as failed:
            summary = failed.result
        self.summary = summary if isinstance(summary, Summary) else None
        self._changed()
        return self.summary

    def close(self) -> None:
        """End the session: it is as good an end for a console when its kernel is shut down, or its cell run again."""
        if not self._ending:
            self.end()
            return
        if self._page is not None:
            self._page.stop()
        self.registry.close()
        super().close()

    def _observe(self, event: events.Event) -> None:
        super()._observe(event)
        if event["event"] in ("step", "progress"):
            told = (event.get("host", ""), event["step"], event.get("status", ""))
            self.doing = ": ".join(filter(None, told))
            if self._may_tell():
                self._changed()

    def _changed(self) -> None:
        if self._page is not None:
            self._page.show_session()


def without_registry(site: Site) -> list[Problem]:
    """What is wrong with a site that has no registry."""
    if site.registry_address is not None:
        return []
    return [
        Problem(site.file, 0, "hosts", "no host is the registry", "give the role registry to the host that runs it")
    ]


def _wrong_here(mode: object, yes: object) -> Iterator[Problem]:
    if mode == Mode.VERIFY:
        yield Problem(NOTEBOOK, 0, "mode", "the console has nothing to verify", "plan or apply")
    if yes is True:
        yield Problem(NOTEBOOK, 0, "yes", "the console's gates are answered on its page, each time", "false")
