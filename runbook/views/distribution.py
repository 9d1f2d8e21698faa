"""A picture of where an app's instances run: a row a host, a box an instance with its port.

The picture is SVG, drawn here: it loads nothing, and reads on a light and on a dark page. Where some host has more
instances than fit a row, every host has a bar in proportion, and the number.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import pandas as pd
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table as RichTable
from rich.text import Text

from runbook.views.tables import Table
from runbook.wording import plural

ROW_HOLDS = 10
"""Boxes that a row holds."""
FEW = 40
"""Hosts up to which those without an instance are shown as well."""

_TEXT = 'font-family="system-ui,sans-serif" font-size="12" fill="currentColor"'
_EMPTY = "rgba(128,128,128,.22)"
_LEFT, _BOX, _GAP, _ROW = 130, 64, 6, 28


@dataclass(frozen=True)
class Distribution:
    """Where an app's instances are: `tasks` is its tasks' table (host, ports, state), `hosts` are where they may be."""

    app: str
    tasks: pd.DataFrame
    hosts: Sequence[str]

    COLOURS: ClassVar = {"healthy": "#2da44e", "running": "#2f81f7", "staging": "#bf8700", "unhealthy": "#cf222e"}

    @property
    def counts(self) -> dict[str, int]:
        """Instances a host, in the hosts' order; other hosts that have some come last."""
        found = {str(host): int(count) for host, count in self.tasks["host"].value_counts().items()}
        counts = {host: found.pop(host, 0) for host in self.hosts} | dict(sorted(found.items()))
        return counts if len(counts) <= FEW else {host: count for host, count in counts.items() if count}

    def __repr__(self) -> str:
        told = ", ".join(f"{host} {count}" for host, count in self.counts.items()) or "no hosts"
        return f"{self._title}: {told}"

    @property
    def _title(self) -> str:
        used = sum(1 for count in self.counts.values() if count)
        return f"{self.app}: {plural(len(self.tasks), 'instance')} on {plural(used, 'host')}"

    def _repr_html_(self) -> str:
        return f'<div class="runbook-distribution">{self.svg()}{self.table()._repr_html_()}</div>'

    def table(self) -> Table:
        """A row a host: how many instances, and at which ports."""
        ports = self.tasks.groupby("host", observed=True)["ports"].agg(", ".join)
        rows = [(host, count, ports.get(host, "")) for host, count in self.counts.items()]
        return Table(pd.DataFrame(rows, columns=["host", "instances", "ports"]))

    def svg(self) -> str:
        """The picture as an SVG element."""
        counts = self.counts
        most = max([ROW_HOLDS, *counts.values()])
        parts = [f'<text x="0" y="14" font-weight="600" {_TEXT}>{html.escape(self._title)}</text>']
        for index, (host, count) in enumerate(counts.items()):
            y = 26 + index * _ROW
            parts.append(f'<text x="0" y="{y + 15}" {_TEXT}>{html.escape(host)}</text>')
            parts += self._row(host, count, y, most)
        height = 26 + len(counts) * _ROW + 24
        width = _LEFT + ROW_HOLDS * (_BOX + _GAP) + 50
        parts += self._legend(height - 14)
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-label="{html.escape(self._title)}" '
            f'viewBox="0 0 {width} {height}" width="{width}" style="max-width:100%">'
            f"<title>{html.escape(self._title)}</title>{''.join(parts)}</svg>"
        )

    def _row(self, host: str, count: int, y: int, most: int) -> list[str]:
        """The boxes of one host, or its bar where `most`, the most of any host, do not fit a row."""
        if not count:
            return [f'<text x="{_LEFT}" y="{y + 15}" {_TEXT}>–</text>']
        mine = self.tasks[self.tasks["host"] == host]
        if most > ROW_HOLDS:
            length = ROW_HOLDS * (_BOX + _GAP) * count / most
            colour = self.COLOURS["running"]
            return [
                f'<g><title>{html.escape(host)}: {count} instances</title><rect x="{_LEFT}" y="{y}" '
                f'width="{length:.0f}" height="22" rx="3" fill="{colour}"/>'
                f'<text x="{_LEFT + length + 6:.0f}" y="{y + 15}" {_TEXT}>{count}</text></g>'
            ]
        boxes = []
        for place, task in enumerate(mine.to_dict("records")):
            x = _LEFT + place * (_BOX + _GAP)
            tip = html.escape(f"{task['task']} on {host}:{task['ports']}, {task['state']}")
            colour = self.COLOURS.get(str(task["state"]), _EMPTY)
            boxes.append(
                f'<g><title>{tip}</title><rect x="{x}" y="{y}" width="{_BOX}" height="22" rx="3" fill="{colour}"/>'
                f'<text x="{x + _BOX / 2:.0f}" y="{y + 15}" text-anchor="middle" font-family="system-ui,sans-serif" '
                f'font-size="12" fill="#fff">{html.escape(str(task["ports"]))}</text></g>'
            )
        return boxes

    def _legend(self, y: int) -> list[str]:
        there = [state for state in self.COLOURS if (self.tasks["state"] == state).any()]
        return [
            f'<rect x="{place * 90}" y="{y}" width="12" height="12" rx="2" fill="{self.COLOURS[state]}"/>'
            f'<text x="{place * 90 + 18}" y="{y + 10}" {_TEXT}>{state}</text>'
            for place, state in enumerate(there)
        ]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        table = RichTable("host", "instances", "ports", title=self._title, title_justify="left", show_edge=False)
        for host, count, ports in self.table().frame.itertuples(index=False):
            table.add_row(host, Text("█" * min(count, 40) + f" {count}", style="blue" if count else "dim"), ports)
        yield table
