"""The record as one page that needs nothing but a browser: no network, no other file.

Steps, checks and gates are drawn from the journal. What else the cells of the executed notebooks showed (tables of live
state, pictures) is put beside the section that the cell ran, in frames without scripts.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import jinja2
import nbformat
from markupsafe import Markup
from nbformat import NotebookNode

from runbook.errors import RecordError
from runbook.outcomes import in_order
from runbook.remote.modes import Status
from runbook.rollout import files, journal
from runbook.rollout.history import ChapterHistory, History, SectionHistory
from runbook.rollout.journal import UNREADABLE, Entry

TEMPLATE = "report.html.j2"
OURS = ("runbook-result", "runbook-check", "runbook-summary")  # outputs that the page draws itself, from the journal
MARKS = {
    Status.OK: "✓",
    Status.CHANGED: "●",
    Status.WOULD_CHANGE: "○",
    Status.FAILED: "✗",
    Status.SKIPPED: "–",
    Status.UNREACHABLE: "⚡",
}


def render(folder: Path, history: History | None = None) -> str:
    """The page of the record in `folder`, from its executed notebooks and its journal, or what is known to be in it."""
    history = history or History.of(journal.read(folder / journal.NAME))
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("runbook", "rollout"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"moment": moment, "duration": duration, "slug": slug, "diff_lines": diff_lines}
    return environment.get_template(TEMPLATE).render(
        history=history,
        opened=history.opened,
        seconds=_seconds(history.started, history.finished),
        chapters=[_chapter(folder, chapter, history.hosts) for chapter in history.chapters],
        software=sorted({name for versions in history.versions.values() for name in versions}),
        marks=MARKS,
        script=_script(),
        script_hash=_script_hash(),
        frame_style=(Path(__file__).parent / "frame.css").read_text(encoding="utf-8"),
    )


# what the template is given


@dataclass(frozen=True)
class Shown:
    """Something that a cell showed: `html` for a frame, or `source` for an image."""

    title: str
    html: str = ""
    source: str = ""


@dataclass(frozen=True)
class Change:
    """A step that changed, would change or failed in the same way on some hosts."""

    step: str
    status: Status
    summary: str
    diff: str
    hosts: tuple[str, ...]


@dataclass(frozen=True)
class SectionView:
    """One section: its history, the table steps x hosts, its changes, and what its cell showed."""

    history: SectionHistory
    hosts: tuple[str, ...]
    table: dict[str, dict[str, list[Status]]]
    changes: tuple[Change, ...]
    shown: tuple[Shown, ...]


@dataclass(frozen=True)
class ChapterView:
    """One chapter: its history, its sections, its notebook's file name, and what was shown outside any section."""

    history: ChapterHistory
    sections: tuple[SectionView, ...]
    notebook: str | None
    shown: tuple[Shown, ...]
    problem: str = ""  # why the notebook could not be read


def _chapter(folder: Path, chapter: ChapterHistory, hosts: Sequence[str]) -> ChapterView:
    path = next(iter(sorted(folder.glob(f"{chapter.number.zfill(2)}_*.ipynb"))), None)
    shown: dict[int | None, list[Shown]] = {}  # by the position of the section; None: outside any
    cells, problem = _cells(path) if path else ([], "")
    for cell in cells:
        owner = next((index for index, section in enumerate(chapter.sections) if cell.ran(section)), None)
        shown.setdefault(owner, []).extend(cell.shown)
    return ChapterView(
        chapter,
        tuple(_section(section, shown.get(index, ()), hosts) for index, section in enumerate(chapter.sections)),
        path.name if path else None,
        tuple(shown.get(None, ())),
        problem,
    )


def _section(section: SectionHistory, shown: Iterable[Shown], hosts: Sequence[str]) -> SectionView:
    table: dict[str, dict[str, list[Status]]] = {}
    for step in section.steps:
        table.setdefault(step["step"], {}).setdefault(step["host"], []).append(Status(step["status"]))
    return SectionView(
        section,
        tuple(in_order((step["host"] for step in section.steps), hosts)),
        table,
        tuple(_changes(section.steps, hosts)),
        tuple(shown),
    )


def _changes(steps: Iterable[Entry], order: Sequence[str]) -> Iterator[Change]:
    alike: dict[tuple[str, Status, str, str], list[str]] = {}
    for step in steps:
        status, diff = Status(step["status"]), step.get("diff", "")
        if diff or status not in (Status.OK, Status.SKIPPED):
            alike.setdefault((step["step"], status, step.get("summary", ""), diff), []).append(step["host"])
    for key, hosts in alike.items():
        yield Change(*key, hosts=tuple(in_order(hosts, order)))


# what cells showed


@dataclass(frozen=True)
class _Cell:
    """A cell that was run, between two moments, and what it showed."""

    started: datetime
    ended: datetime
    shown: tuple[Shown, ...]

    def ran(self, section: SectionHistory) -> bool:
        return bool(section.started) and self.started <= _time(section.started) <= self.ended


def _cells(path: Path) -> tuple[list[_Cell], str]:
    """The cells that were run; a notebook that cannot be read has none, and the reason is given beside them."""
    try:
        return list(_run_cells(nbformat.reads(files.read(path).decode(), as_version=4))), ""
    except RecordError as error:
        return [], error.message
    except (*UNREADABLE, nbformat.ValidationError) as error:  # the page must not fail for one notebook
        return [], f"{path.name} cannot be read: {type(error).__name__}"


def _run_cells(notebook: NotebookNode) -> Iterator[_Cell]:
    for cell in notebook.cells:
        run = cell.metadata.get("papermill", {})
        if cell.cell_type == "code" and run.get("start_time") and run.get("end_time"):
            started = _time(run["start_time"])
            started = started.replace(microsecond=started.microsecond // 1000 * 1000)  # as the journal writes times
            yield _Cell(started, _time(run["end_time"]), tuple(_shown(cell)))


def _shown(cell: NotebookNode) -> Iterator[Shown]:
    title = cell.source.strip().splitlines()[-1] if cell.source.strip() else ""
    for output in cell.outputs:
        data: dict[str, Any] = output.get("data", {})
        if "image/svg+xml" in data:
            encoded = base64.b64encode(data["image/svg+xml"].encode()).decode()
            yield Shown(title, source=f"data:image/svg+xml;base64,{encoded}")
        elif "image/png" in data:
            yield Shown(title, source=f"data:image/png;base64,{''.join(data['image/png'].split())}")
        elif "text/html" in data and not any(f'class="{name}"' in data["text/html"] for name in OURS):
            yield Shown(title, html=data["text/html"])


# how things are written


def moment(time: str) -> str:
    """A moment of the journal as people write it: `2026-11-24 21:58:25 UTC`."""
    return f"{_time(time):%Y-%m-%d %H:%M:%S} UTC"


def duration(seconds: float | None) -> str:
    """Seconds as people say them: `0.3 s`, `12 s`, `3 min 20 s`, `1 h 5 min`; nothing for none."""
    if seconds is None:
        return ""
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def slug(text: str) -> str:
    """A status or an outcome as the name of a class in the style sheet."""
    return text.replace(" ", "-")


def diff_lines(diff: str) -> list[tuple[str, str]]:
    """The lines of a diff, each with its kind: `head`, `hunk`, `out`, `in` or `same`."""
    kinds = {"@": "hunk", "-": "out", "+": "in"}
    lines = diff.splitlines()
    heads = 2 if diff.startswith("--- ") else 0  # a diff of named values has no head
    return [("head" if at < heads else kinds.get(line[:1], "same"), line) for at, line in enumerate(lines)]


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _seconds(start: str, end: str) -> float:
    return (_time(end) - _time(start)).total_seconds()


def _script() -> Markup:
    return Markup((Path(__file__).parent / "report.js").read_text(encoding="utf-8"))  # ours, and no input in it


def _script_hash() -> str:
    return base64.b64encode(hashlib.sha256(_script().encode()).digest()).decode()
