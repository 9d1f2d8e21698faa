"""How a DataFrame is shown: a styled table while it is small, one that can be searched and sorted once it is large.

`Table` is what methods that answer with rows return: a notebook shows it as HTML, a terminal as text, and `.frame` is
the DataFrame for whoever wants to go on with it. Colours come from the words in the cells (`tone`), so that every table
of the runbook uses one language, and a mark or a word always says the same as the colour.

Nothing is loaded from elsewhere: a large table carries DataTables (through itables) within its own output.
"""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from enum import Enum

import pandas as pd
from pandas.io.formats.style_render import CSSDict
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table as RichTable
from rich.text import Text

LARGE = 60
"""Rows from which on a table is one to search in."""


class Tone(Enum):
    """What a cell's colour says: its tint in HTML, which reads on a light and on a dark page, and its style in rich."""

    GOOD = ("rgba(46, 160, 67, .18)", "green")
    NEWS = ("rgba(56, 139, 253, .18)", "blue")
    WARNING = ("rgba(210, 153, 34, .25)", "yellow")
    BAD = ("rgba(248, 81, 73, .25)", "bold red")
    QUIET = ("rgba(128, 128, 128, .12)", "dim")

    @property
    def tint(self) -> str:
        """A CSS colour for the background."""
        return self.value[0]

    @property
    def style(self) -> str:
        """A style of rich for the text."""
        return self.value[1]


_WORDS = {
    Tone.GOOD: ("✓", "ok", "running", "leader", "follower", "standalone", "active", "holds", "healthy"),
    Tone.NEWS: ("●", "changed"),
    Tone.WARNING: ("⚠", "○", "would change", "warning", "observer", "staging", "not serving", "waiting"),
    Tone.BAD: ("✗", "⚡", "problem", "failed", "lost", "unreachable", "does not answer", "no answer", "down"),
    Tone.QUIET: ("–", "skipped", "not installed", "stopped", "unknown"),
}
_TONES = {word: tone for tone, words in _WORDS.items() for word in words}


def tone(value: object) -> Tone | None:
    """The tone of a cell: that of its mark (its first character) or of the words before a colon; None of other text."""
    text = str(value).strip()
    return _TONES.get(text[:1]) or _TONES.get(text.partition(":")[0].lower())


@dataclass(frozen=True, repr=False)
class Table:
    """A DataFrame as the result of a notebook's cell.

    `states` names the columns whose cells are coloured by `tone`, `literal` those that are shown in a fixed font with
    their line breaks. The index is shown where it has a name.
    """

    frame: pd.DataFrame
    caption: str = ""
    states: tuple[str, ...] = ()
    literal: tuple[str, ...] = field(default=(), kw_only=True)

    @property
    def large(self) -> bool:
        """Whether it is shown as a table to search in."""
        return len(self.frame) >= LARGE

    @property
    def _shown(self) -> pd.DataFrame:
        return self.frame.reset_index(drop=self.frame.index.name is None)

    def _repr_html_(self) -> str:
        return self._searchable() if self.large else self._styled()

    def _styled(self) -> str:
        styler = self._shown.style.format(_plain, escape="html", na_rep="").set_caption(_escaped(self.caption)).hide()
        styler = styler.format_index(escape="html", axis="columns").set_table_styles(_STYLES, overwrite=False)
        styler = styler.map(_css, subset=self._present(self.states))
        styler = styler.map(lambda _: _LITERAL, subset=self._present(self.literal))
        html: str = styler.to_html()
        return html

    def _searchable(self) -> str:
        import itables  # a quarter of a second, for tables that are rare
        from itables.javascript import generate_init_offline_itables_html

        frame = self._shown.map(_escaped)
        for column in self._present(self.states):
            frame[column] = [f'<span style="{_css(value)};padding:0 .4em">{value}</span>' for value in frame[column]]
        library = generate_init_offline_itables_html(itables.options.dt_bundle)
        table = itables.to_html_datatable(
            frame,
            caption=_escaped(self.caption),
            connected=False,
            display_logo_when_loading=False,
            allow_html=True,  # escaped just now
            showIndex=False,
            maxBytes=0,
            classes="display compact cell-border",
            style="table-layout:auto;width:100%;caption-side:top",
        )
        return f"{library}{_DARK}{table}"

    def _present(self, columns: tuple[str, ...]) -> pd.Index:
        return pd.Index([column for column in columns if column in self._shown.columns])

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        table = RichTable(title=self.caption or None, title_justify="left", show_edge=False, pad_edge=False)
        shown = self._shown
        for column in shown.columns:
            table.add_column(str(column), overflow="fold")
        for _, row in shown.iterrows():
            table.add_row(*(self._cell(str(column), value) for column, value in row.items()))
        yield table

    def _cell(self, column: str, value: object) -> Text:
        text = "" if value is None or value is pd.NA or value != value else str(value)
        found = tone(value) if column in self.states else None
        return Text(text, style=found.style if found else "")

    def __repr__(self) -> str:
        frame = self._shown.to_string(index=False)
        return f"{self.caption}\n{frame}" if self.caption else frame


def blank_missing(frame: pd.DataFrame) -> pd.DataFrame:
    """A frame with an empty text in the place of each missing value, in columns of numbers, too.

    pandas 3 refuses a text there while the column keeps its type.
    """
    return frame.astype(object).fillna("")


def folded(frame: pd.DataFrame, width: int = 100) -> str:
    """A frame as text of at most `width` columns, for messages: cells are folded, never cut."""
    console = Console(width=width, file=io.StringIO(), color_system=None, legacy_windows=False)
    table = RichTable(box=None, pad_edge=False, show_edge=False)
    for column in frame.columns:
        table.add_column(Text(str(column)), overflow="fold")
    for _, row in frame.iterrows():
        table.add_row(*(Text(str(value)) for value in row))
    with console.capture() as captured:
        console.print(table)
    return "\n".join(line.rstrip() for line in captured.get().splitlines())


def _plain(value: object) -> str:
    """A value as people write it: 0.1, and not 0.100000."""
    return f"{value:.6g}" if isinstance(value, float) else str(value)


_STYLES: list[CSSDict] = [
    {"selector": "caption", "props": "caption-side:top;text-align:left;font-weight:600;padding:.3em 0"},
    {"selector": "th", "props": "text-align:left;vertical-align:top;white-space:nowrap"},
    {"selector": "td", "props": "text-align:left;vertical-align:top;max-width:46em;overflow-wrap:break-word"},
]
_LITERAL = "font-family:monospace;font-size:90%;white-space:pre-wrap"

# DataTables' dark colours follow a class of the page, which JupyterLab does not set.
_DARK = """\
<script type="module">
  if (document.body.dataset.jpThemeLight === "false") document.documentElement.classList.add("dark");
</script>
"""


def _css(value: object) -> str:
    found = tone(value)
    wrap = ";white-space:nowrap" if len(str(value)) < 24 else ""
    return f"background-color:{found.tint}{wrap}" if found else ""


def _escaped(value: object) -> str:
    text = "" if value is None or value != value else str(value)
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace('"', "&quot;")
