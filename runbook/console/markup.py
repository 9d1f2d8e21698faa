"""What the page shows as HTML. All that comes from a registry or from somebody's typing is escaped, by markupsafe."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import pandas as pd
from markupsafe import Markup

from runbook.console.index import Catalog
from runbook.errors import RunbookError
from runbook.remote.modes import Mode, Status
from runbook.wording import plural, size

if TYPE_CHECKING:
    from runbook.chapter import Summary
    from runbook.console.gate import Question
    from runbook.console.session import Entry
    from runbook.console.shelf import Layer, Shelf

NOTHING = Markup("")
SHORT = 12
"""Hexadecimal digits of a digest that are shown where space is short, as Docker does."""
COMMAND = 300
"""Characters that are shown of what made a layer."""
LINES = 50
"""Actions that the list shows, the last ones."""

_MARKS = {
    Status.OK.value: ("✓", "good"),
    Status.CHANGED.value: ("●", "news"),
    Status.WOULD_CHANGE.value: ("○", "warning"),
    Status.FAILED.value: ("✗", "bad"),
    Status.SKIPPED.value: ("–", "quiet"),
    "under way": ("…", "quiet"),
}


def style() -> Markup:
    """The page's style sheet."""
    css = files(__package__).joinpath("console.css").read_text(encoding="utf-8")
    return Markup(f"<style>{css}</style>")  # ours: nothing in it is from elsewhere


# words


def short(digest: str) -> str:
    """A digest cut to what people compare: `sha256:` and twelve digits."""
    algorithm, _, digits = digest.partition(":")
    return f"{algorithm}:{digits[:SHORT]}"


def time(moment: datetime | None) -> str:
    """A time to the minute, UTC."""
    return "" if moment is None else f"{moment:%Y-%m-%d %H:%M}"


def listed(names: Sequence[str], limit: int = 6) -> str:
    """The first of some names, and how many more there are."""
    more = len(names) - limit
    return ", ".join(names) if more <= 0 else f"{', '.join(names[:limit])} and {more:,} more"


# parts of the page


def heading(address: str, site: str, mode: Mode, record: str) -> Markup:
    """The top of the page: which registry, in which mode, and where the record is."""
    does = {Mode.PLAN: "actions tell what they would do", Mode.APPLY: "actions are done, once approved"}[mode]
    return Markup(
        '<div class="rc-heading"><h1>Registry <span class="rc-mono">{}</span></h1>'
        '<p>site <b>{}</b> · mode <b class="rc-mode-{}">{}</b>: {} · record <span class="rc-mono">{}</span></p></div>'
    ).format(address, site, mode.value, mode.value, does, record)


def state(catalog: Catalog, found: str) -> Markup:
    """What is searched, and what was found."""
    names = plural(len(catalog.names), "repository", "repositories")
    if catalog.error is not None:
        told = f"the catalog could not be read to its end: {names} are known"
    elif catalog.read is None:
        told = f"reading the catalog: {names} so far …"
    else:
        told = f"{names}, read at {catalog.read:%H:%M:%S} UTC" + (" and again now …" if catalog.reading else "")
        told += "; there are more: only these are searched" if catalog.cut else ""
    return Markup('<div class="rc-state" role="status"><b>{}</b> {}</div>').format(found, told)


def trouble(error: RunbookError | None) -> Markup:
    """What went wrong, and what to do; nothing where nothing did."""
    if error is None:
        return NOTHING
    remedy = Markup("<br>{}").format(error.remedy) if error.remedy else NOTHING
    return Markup('<div class="rc-trouble" role="alert"><b>✗</b> {}{}</div>').format(error.message, remedy)


def shelf_heading(shelf: Shelf | None, reading: bool) -> Markup:
    """Which repository is shown."""
    if shelf is None:
        return Markup('<h2>Tags</h2><p class="rc-quiet">Choose a repository.</p>')
    told = "reading …" if reading and not shelf.tags else plural(len(shelf.tags), "tag")
    if shelf.tags and shelf.compared < len(shelf.tags):
        told += f"; what they share is told of the {shelf.compared:,} that were read" + (" so far" if reading else "")
    return Markup('<h2><span class="rc-mono">{}</span></h2><p class="rc-quiet">{}</p>').format(shelf.repository, told)


def image(shelf: Shelf, tag: str) -> Markup:
    """All about the image of one tag."""
    if (problem := shelf.problems.get(tag)) is not None:
        return trouble(problem)
    manifest = shelf.manifests.get(tag)
    if manifest is None:
        return Markup('<p class="rc-quiet">reading …</p>')
    config = shelf.image(tag)
    platform = "/".join(filter(None, (config.os, config.architecture))) if config else ""
    facts = [
        ("digest", Markup('<span class="rc-mono">{}</span>').format(manifest.digest)),
        ("other tags", listed(shelf.same(tag), 20) or "none"),
        ("created", f"{time(config.created)} UTC" if config and config.created else "unknown"),
        ("size", f"{size(manifest.total)} in {plural(len(manifest.layers), 'layer')}" if manifest.layers else ""),
        ("kind", ", ".join(filter(None, (manifest.kind, platform)))),
    ]
    rows = Markup("").join(Markup("<dt>{}</dt><dd>{}</dd>").format(name, value) for name, value in facts if value)
    return Markup("<h3>{}</h3><dl>{}</dl>{}").format(
        Markup('<span class="rc-mono">{}</span>').format(tag),
        rows,
        _platforms(shelf, tag) if manifest.is_index else _layers(shelf.layers(tag)),
    )


def _layers(layers: Sequence[Layer]) -> Markup:
    rows = [
        (
            str(position),
            Markup('<span class="rc-mono" title="{}">{}</span>').format(layer.digest, short(layer.digest)),
            size(layer.size),
            listed(layer.shared) or "–",
            Markup('<span class="rc-mono rc-wrap">{}</span>').format(_cut(layer.made_by)),
        )
        for position, layer in enumerate(layers, 1)
    ]
    return table(("", "layer", "size", "also in", "made by"), rows, "Layers, the lowest first", numbers=(0, 2))


def _platforms(shelf: Shelf, tag: str) -> Markup:
    rows = [
        (one.platform or "", Markup('<span class="rc-mono">{}</span>').format(one.digest), size(one.size))
        for one in shelf.manifests[tag].manifests
    ]
    return table(("platform", "manifest", "its size"), rows, "Images of the index", numbers=(2,))


def question(asked: Question) -> Markup:
    """A gate's question, with what it is about."""
    return Markup('<div class="rc-question"><h3>{}</h3><p class="rc-quiet">gate {}</p>{}</div>').format(
        asked.text, asked.name, frame(asked.evidence)
    )


def under_way(entry: Entry, doing: str) -> Markup:
    """An action that has not ended, and what it told last."""
    return Markup('<h3>{} {}</h3><p class="rc-quiet">{}</p>').format(_badge(entry.status), entry.action.title, doing)


def ended(entry: Entry) -> Markup:
    """How an action ended, with what it was about."""
    head = Markup("<h3>{} {}</h3>").format(_badge(entry.status), entry.action.title)
    if entry.error is not None:
        return head + trouble(entry.error)
    if entry.done is None:
        return head
    told = Markup("<p>{}</p>").format(entry.done.result.summary) if entry.done.result.summary else NOTHING
    return head + told + (frame(entry.done.evidence) or _diff(entry.done.result.diff))


def _diff(text: str) -> Markup:
    lines = text.splitlines()
    more = [f"and {len(lines) - LINES:,} more"] if len(lines) > LINES else []
    return Markup('<pre class="rc-mono">{}</pre>').format("\n".join([*lines[:LINES], *more])) if lines else NOTHING


def log(entries: Sequence[Entry]) -> Markup:
    """What was done in this session, the last on top."""
    if not entries:
        return Markup('<p class="rc-quiet">Nothing yet.</p>')
    rows = [
        (f"{entry.began:%H:%M:%S}", _badge(entry.status), entry.action.title, _told(entry))
        for entry in reversed(entries[-LINES:])
    ]
    more = len(entries) - len(rows)
    told = Markup('<p class="rc-quiet">and {} before; the record has all</p>').format(more) if more else NOTHING
    return table(("UTC", "", "action", "how it ended"), rows) + told


def summary(session: Summary) -> Markup:
    """What is left to say once the session has ended."""
    return Markup(
        '<div class="rc-ended" role="status"><b>This session has ended</b>: {}. Its record is in '
        '<span class="rc-mono">{}</span>. Open the page again for another one.</div>'
    ).format(session.outcome, session.folder)


def frame(evidence: pd.DataFrame | None) -> Markup:
    """A table of evidence; bytes in the unit that fits, and at most LINES rows."""
    if evidence is None or evidence.empty:
        return NOTHING
    columns = [str(name) for name in evidence.columns]

    rows = [
        tuple(_cell(name, value) for name, value in zip(columns, row, strict=True))
        for row in evidence.head(LINES).itertuples(index=False)
    ]
    more = len(evidence) - len(rows)
    told = Markup('<p class="rc-quiet">and {} more</p>').format(f"{more:,}") if more > 0 else NOTHING
    numbers = [position for position, name in enumerate(columns) if name == "bytes"]
    return table(["size" if name == "bytes" else name for name in columns], rows, numbers=numbers) + told


def _cell(name: str, value: Any) -> str:
    if pd.isna(value):
        return ""
    return size(int(value)) if name == "bytes" else str(value)


def table(head: Sequence[str], rows: Iterable[Sequence[str]], caption: str = "", numbers: Sequence[int] = ()) -> Markup:
    """A table; `numbers` are the columns that are aligned to the right."""
    kinds = [Markup(' class="rc-number"') if column in numbers else NOTHING for column in range(len(head))]
    names = Markup("").join(
        Markup('<th scope="col"{}>{}</th>').format(kind, name) for kind, name in zip(kinds, head, strict=True)
    )
    lines = Markup("").join(
        Markup("<tr>{}</tr>").format(
            Markup("").join(Markup("<td{}>{}</td>").format(kind, cell) for kind, cell in zip(kinds, row, strict=True))
        )
        for row in rows
    )
    title = Markup("<caption>{}</caption>").format(caption) if caption else NOTHING
    return Markup(
        '<div class="rc-scroll"><table class="rc-table">{}<thead><tr>{}</tr></thead><tbody>{}</tbody></table></div>'
    ).format(title, names, lines)


def _badge(status: str) -> Markup:
    mark, tone = _MARKS[status]
    return Markup('<span class="rc-badge rc-{}">{} {}</span>').format(tone, mark, status)


def _told(entry: Entry) -> str:
    if entry.error is not None:
        return entry.error.message
    return entry.done.result.summary if entry.done else ""


def _cut(text: str) -> str:
    return text if len(text) <= COMMAND else f"{text[:COMMAND]}…"
