"""A journal's entries put together again: chapters, their sections, and what happened in each.

Everything that a record says (record.json, report.html, the table of `runbook record list`) is derived here, from the
journal alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from runbook import outcomes
from runbook.outcomes import Outcome
from runbook.remote.modes import Mode, Status, Verdict
from runbook.rollout.journal import Entry

OPENED = ("record", "site", "mode", "operator", "commit", "dirty", "parameters")  # what the first entry tells
NO_END = "it ended without its end being told"


@dataclass
class SectionHistory:
    """One run of a section; a section that was run twice is there twice. `number` is empty outside any section."""

    number: str
    title: str
    outcome: Outcome = Outcome.DIED  # until its end is told
    error: str | None = None
    seconds: float | None = None
    started: str = ""
    steps: list[Entry] = field(default_factory=list)
    checks: list[Entry] = field(default_factory=list)
    gates: list[Entry] = field(default_factory=list)


@dataclass
class ChapterHistory:
    """One chapter; `reason` says why it died or failed."""

    number: str
    title: str
    outcome: Outcome = Outcome.DIED  # until its end is told
    reason: str | None = None
    seconds: float | None = None
    finished: bool = False
    sections: list[SectionHistory] = field(default_factory=list)

    def reasons(self, order: Sequence[str]) -> list[str]:
        """Why the chapter failed or died: its own reason, else what failed in its sections; hosts in this order."""
        if self.reason:
            return [self.reason]
        failed = [section for section in self.sections if section.outcome is Outcome.FAILED]
        events = [event for section in failed for event in (*section.steps, *section.checks)]
        bad = [event for event in events if outcomes.of_event(event, Mode.APPLY) is Outcome.FAILED]
        return outcomes.describe_all(bad, order) or [section.error or f"section {section.number}" for section in failed]

    def judge(self) -> None:
        """Give a chapter whose end nobody told its outcome: failed where a section failed, else died."""
        last = self.sections[-1] if self.sections else None
        if last is not None and last.outcome is Outcome.FAILED:
            self.outcome, self.reason = Outcome.FAILED, last.error
        else:
            self.outcome, self.reason = Outcome.DIED, NO_END


@dataclass
class History:
    """What a journal tells. `stopped` says what ended the rollout between or within its chapters, if anything did."""

    opened: Entry
    chapters: list[ChapterHistory] = field(default_factory=list)
    versions: dict[str, dict[str, str]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    stopped: str | None = None
    started: str = ""
    finished: str = ""
    closed: bool = False

    @classmethod
    def of(cls, entries: Iterable[Entry]) -> History:
        """Put the entries of one journal together."""
        history = cls(opened={})
        for entry in entries:
            history._take(entry)
        for chapter in history.chapters:
            if not chapter.finished:
                chapter.judge()
        return history

    @property
    def mode(self) -> Mode:
        """The mode in which the record was begun."""
        return Mode(self.opened["mode"])

    @property
    def outcome(self) -> Outcome:
        """The worst of the chapters; `died` where the rollout was stopped or no chapter began."""
        if self.stopped or not self.chapters:
            return Outcome.DIED
        return outcomes.worst(chapter.outcome for chapter in self.chapters)

    @property
    def hosts(self) -> list[str]:
        """The names of the site's hosts, in the order of its parameters."""
        return [host["name"] for host in self.opened["parameters"]["hosts"]]

    @property
    def steps(self) -> list[Entry]:
        """Every step on every host, in the order in which they ended."""
        return [step for chapter in self.chapters for section in chapter.sections for step in section.steps]

    @property
    def checks(self) -> list[Entry]:
        """Every check, in the order in which they ended."""
        return [check for chapter in self.chapters for section in chapter.sections for check in section.checks]

    @property
    def counts(self) -> dict[str, int]:
        """How many steps ended how (`failed` counts unreachable hosts too), how many checks there were, and, if any,
        how many of them were not tried."""
        ended = Counter(Status(step["status"]) for step in self.steps)
        untried = sum(outcomes.verdict(check) is Verdict.NOT_TRIED for check in self.checks)
        return {
            "changed": ended[Status.CHANGED],
            "ok": ended[Status.OK],
            "failed": ended[Status.FAILED] + ended[Status.UNREACHABLE],
            "would_change": ended[Status.WOULD_CHANGE],
            "skipped": ended[Status.SKIPPED],
            "checks": len(self.checks),
            **({"not_tried": untried} if untried else {}),
        }

    @property
    def differences(self) -> list[str]:
        """What differs from what is desired and was left so: hosts, step, line, summary."""
        sections = [section for chapter in self.chapters for section in chapter.sections]
        told = [section.error for section in sections if section.outcome is Outcome.DRIFT and section.error]
        steps = (step for step in self.steps if step["status"] == Status.WOULD_CHANGE)
        return [*outcomes.describe_all(steps, self.hosts), *told]

    @property
    def failures(self) -> list[tuple[ChapterHistory, str]]:
        """The chapters that failed or died, with each reason that is known."""
        return [
            (chapter, reason)
            for chapter in self.chapters
            if chapter.outcome in (Outcome.FAILED, Outcome.DIED)
            for reason in chapter.reasons(self.hosts)
        ]

    def examine(self) -> None:
        """Derive all that readers ask for, so that what is wrong with the entries shows here and not in a reader.

        Raises LookupError, TypeError, ValueError or AttributeError.
        """
        Mode(self.opened["mode"])
        for told in (self.outcome, self.hosts, self.counts, self.differences, self.failures):
            str(told)
        for moment in (self.started, self.finished):
            datetime.fromisoformat(moment)

    def _take(self, entry: Entry) -> None:
        self.started = self.started or entry["time"]
        self.finished = entry["time"]
        match entry["event"]:
            case "record_opened":
                self.opened = {name: entry[name] for name in OPENED}
            case "record_closed":
                self.closed = True
            case "stopped":
                self.stopped = entry["reason"]
            case "note":
                self.notes.append(entry["text"])
            case "output_cut":
                self.notes.append(f"{entry['messages']} messages ({entry['bytes']} bytes) of a cell's output were cut")
            case "torn_line":
                self.notes.append(f"line {entry['line']} of the journal was torn, as a power loss does")
            case "versions":
                self.versions.setdefault(entry["host"], {}).update(entry["versions"])
            case "chapter_started":
                self.chapters.append(ChapterHistory(entry["chapter"], entry["title"]))
            case "chapter_finished":
                chapter = self._chapter(entry)
                chapter.outcome, chapter.finished = Outcome(entry["outcome"]), True
                chapter.reason, chapter.seconds = entry.get("reason"), entry.get("seconds")
            case "section_started":
                section = SectionHistory(entry["section"], entry["title"], started=entry["time"])
                self._chapter(entry).sections.append(section)
            case "section_finished":
                section = self._section(entry)
                section.outcome, section.error = Outcome(entry["outcome"]), entry.get("error")
                section.seconds = entry["seconds"]
            case "step":
                self._section(entry).steps.append(entry)
            case "check":
                self._section(entry).checks.append(entry)
            case "gate":
                self._section(entry).gates.append(entry)

    def _chapter(self, entry: Entry) -> ChapterHistory:
        if not self.chapters or self.chapters[-1].number != entry["chapter"]:
            self.chapters.append(ChapterHistory(entry["chapter"], entry.get("title", "")))
        return self.chapters[-1]

    def _section(self, entry: Entry) -> SectionHistory:
        sections = self._chapter(entry).sections
        number = entry["section"] or ""
        if not sections or sections[-1].number != number:
            between = SectionHistory(number, "", Outcome.OK)  # between two sections there is no end to be told
            sections.append(between)
        return sections[-1]


def shown(step: Entry) -> dict[str, Any]:
    """What record.json keeps of a step."""
    return {name: step[name] for name in ("host", "step", "status", "summary") if name in step}
