"""What a call on hosts ends with: a table hosts x steps, with the difference behind each cell."""

from __future__ import annotations

import html
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from runbook.remote.modes import Mode, Status

# rich costs more than the work on a few hosts: it is imported where something is shown.
if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult
    from rich.text import Text

_MARKS = {
    Status.OK: ("✓", "green", "#1a7f37"),
    Status.CHANGED: ("●", "yellow", "#9a6700"),
    Status.WOULD_CHANGE: ("○", "yellow", "#9a6700"),
    Status.FAILED: ("✗", "bold red", "#cf222e"),
    Status.SKIPPED: ("–", "dim", "#6e7781"),
    Status.UNREACHABLE: ("⚡", "bold red", "#cf222e"),
}
BAD = frozenset({Status.FAILED, Status.UNREACHABLE})


@dataclass(frozen=True)
class StepResult:
    """How one step ended on one host. `seconds` is the time from the probe to the result."""

    host: str
    step: str
    status: Status
    summary: str = ""
    diff: str = ""
    seconds: float = 0.0

    def row(self) -> dict[str, object]:
        """The result as the journal writes it."""
        return {
            "host": self.host,
            "step": self.step,
            "status": self.status.value,
            "summary": self.summary,
            "diff": self.diff,
            "seconds": round(self.seconds, 3),
        }


@dataclass(frozen=True)
class ApplyResult:
    """The results of one call: every step on every host, whatever happened to the others."""

    name: str
    mode: Mode
    results: tuple[StepResult, ...]

    def __iter__(self) -> Iterator[StepResult]:
        return iter(self.results)

    @property
    def hosts(self) -> list[str]:
        """The hosts, in the order in which they were given."""
        return list(dict.fromkeys(result.host for result in self.results))

    @property
    def steps(self) -> list[str]:
        """The steps' labels, in order."""
        return list(dict.fromkeys(result.step for result in self.results))

    def having(self, *statuses: Status) -> tuple[StepResult, ...]:
        """The results with one of these statuses."""
        return tuple(result for result in self.results if result.status in statuses)

    @property
    def counts(self) -> Counter[Status]:
        """How many results there are of each status."""
        return Counter(result.status for result in self.results)

    @property
    def changed(self) -> bool:
        """Whether anything was changed (in apply mode) or differs (in plan and verify mode)."""
        return bool(self.having(Status.CHANGED, Status.WOULD_CHANGE))

    @property
    def failed(self) -> bool:
        """Whether any step failed, or any host could not be reached."""
        return bool(self.having(*BAD))

    def rows(self) -> list[dict[str, object]]:
        """The results as the journal writes them."""
        return [result.row() for result in self.results]

    def heading(self) -> str:
        """One line: the call, its mode, and the counts of each status."""
        counts = ", ".join(f"{count} {status.value}" for status, count in sorted(self.counts.items()))
        return f"{self.name or 'steps'} ({self.mode.value}): {counts or 'no hosts'}"

    def problems(self) -> str:
        """What failed, and, once for each host that could not be reached, why."""
        failed = [f"{one.host}: {one.step}: {one.summary}" for one in self.having(Status.FAILED)]
        unreachable: dict[str, str] = {}
        for one in self.having(Status.UNREACHABLE):
            unreachable.setdefault(one.host, f"{one.host}: {one.summary}")
        return "\n".join([*failed, *unreachable.values()])

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        from rich.syntax import Syntax
        from rich.table import Table
        from rich.text import Text

        table = Table(title=self.heading(), title_justify="left", show_edge=False, pad_edge=False)
        head, rows = self._grid()
        for name in head:
            table.add_column(name, overflow="fold")
        for name, cells in rows:
            table.add_row(name, *map(self._cell, cells))
        yield table
        for hosts, result in self._alike():
            yield Text(f"\n{', '.join(hosts)}: {result.step}: {result.summary}", style="bold")
            if result.diff:
                yield Syntax(result.diff.rstrip("\n"), "diff", background_color="default", word_wrap=True)

    def _alike(self) -> Iterator[tuple[list[str], StepResult]]:
        """What is worth telling below the table, once for all the hosts where it is the same."""
        groups: dict[tuple[str, str, str], list[StepResult]] = {}
        for result in self.results:
            if result.status in BAD or result.diff:
                groups.setdefault((result.step, result.summary, result.diff), []).append(result)
        for group in groups.values():
            yield [result.host for result in group], group[0]

    def _grid(self) -> tuple[list[str], list[tuple[str, list[StepResult | None]]]]:
        """The table's head and its rows: a row a host, but a row a step where there are more steps than hosts."""
        cells = {(one.host, one.step): one for one in self.results}
        hosts, steps = self.hosts, self.steps
        if len(steps) > len(hosts):
            return ["step", *hosts], [(step, [cells.get((host, step)) for host in hosts]) for step in steps]
        return ["host", *steps], [(host, [cells.get((host, step)) for step in steps]) for host in hosts]

    @staticmethod
    def _cell(result: StepResult | None) -> Text:
        from rich.text import Text

        if result is None:
            return Text("")
        mark, style, _ = _MARKS[result.status]
        return Text(f"{mark} {result.status.value}", style=style)

    def _repr_html_(self) -> str:
        names, rows = self._grid()
        head = "".join(f"<th>{html.escape(name)}</th>" for name in names)
        lines = [
            f'<tr><th style="text-align:left">{html.escape(name)}</th>{"".join(map(_td, cells))}</tr>'
            for name, cells in rows
        ]
        return (
            f'<div class="runbook-result"><p><b>{html.escape(self.heading())}</b></p>'
            f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table></div>"
        )

    def __str__(self) -> str:
        lines = [self.heading()]
        lines += [f"  {one.host}: {one.step}: {one.status.value} {one.summary}".rstrip() for one in self.results]
        return "\n".join(lines)


def _td(result: StepResult | None) -> str:
    if result is None:
        return "<td></td>"
    mark, _, colour = _MARKS[result.status]
    cell = f'<span style="color:{colour};white-space:nowrap">{mark} {result.status.value}</span>'
    if result.summary:
        cell += f"<br>{html.escape(result.summary)}"
    if result.diff:
        cell = (
            f"<details><summary>{cell}</summary>"
            f'<pre style="text-align:left;margin:.3em 0">{_coloured(result.diff)}</pre></details>'
        )
    return f'<td style="text-align:left;vertical-align:top">{cell}</td>'


def _coloured(diff: str) -> str:
    colours = {"+": "#1a7f37", "-": "#cf222e", "@": "#0969da"}
    lines = []
    for line in diff.splitlines():
        escaped = html.escape(line)
        colour = colours.get(line[:1])
        lines.append(f'<span style="color:{colour}">{escaped}</span>' if colour else escaped)
    return "\n".join(lines)
