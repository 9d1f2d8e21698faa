"""A picture of what slaves have used and have free: a bar each while they are few, a curve when they are many.

The picture is SVG, drawn here: it loads nothing, is sharp at every size, and reads on a light and on a dark page. Above
`FEW` slaves each resource is one curve over the slaves in the order of their use, so that a thousand of them are as
quick to see (and to draw) as three: how many are full, how many are idle.
"""

from __future__ import annotations

import html
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import pandas as pd
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table as RichTable
from rich.text import Text

FEW = 40
"""Slaves up to which each has a bar of its own."""

USED, FREE = "#2f81f7", "rgba(128,128,128,.22)"
_TEXT = 'font-family="system-ui,sans-serif" font-size="12" fill="currentColor"'


@dataclass(frozen=True)
class _Resource:
    """One resource in a slaves table: its columns for total and used, its name, and its unit."""

    name: str
    total: str
    used: str
    unit: str
    divisor: float = 1.0

    @property
    def heading(self) -> str:
        """The name, with the unit where it is another word."""
        return self.name if self.name == self.unit else f"{self.name} ({self.unit})"

    def of(self, frame: pd.DataFrame) -> pd.DataFrame:
        """`total`, `used` and `share` (0 to 1) for each slave."""
        total = frame[self.total].astype(float) / self.divisor
        used = frame[self.used].astype(float) / self.divisor
        return pd.DataFrame({"total": total, "used": used, "share": (used / total).where(total > 0, 0.0)})


@dataclass(frozen=True)
class Usage:
    """The picture of a slaves table (`services.mesos.slaves_table`): active slaves only."""

    frame: pd.DataFrame

    RESOURCES: ClassVar = (
        _Resource("CPUs", "cpus", "cpus_used", "CPUs"),
        _Resource("memory", "mem", "mem_used", "GB", 1024.0),
        _Resource("disk", "disk", "disk_used", "GB", 1024.0),
        _Resource("ports", "port_count", "port_count_used", "ports"),
    )

    @property
    def active(self) -> pd.DataFrame:
        """The slaves that are shown, by host."""
        frame = self.frame[self.frame["active"].fillna(False).astype(bool)]
        used = frame["port_count"] - frame["port_count_free"]
        return frame.assign(port_count_used=used).sort_values("host", ignore_index=True)

    def _repr_html_(self) -> str:
        return f'<div class="runbook-usage">{self.svg()}</div>'

    def svg(self) -> str:
        """The picture as an SVG element."""
        active = self.active
        if active.empty:
            return "<p>no active slaves</p>"
        width, parts, height = (_bars if len(active) <= FEW else _curves)(active, self.RESOURCES)
        title = f"used and free on {len(active)} slaves"
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-label="{title}" '
            f'viewBox="0 0 {width} {height}" width="{width}" style="max-width:100%">'
            f"<title>{title}</title>{''.join(parts)}</svg>"
        )

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        active = self.active
        table = RichTable(
            "", *(f"{one.name} used" for one in self.RESOURCES), title="used against free", show_edge=False
        )
        rows = [(str(host), index) for index, host in enumerate(active["host"])] if len(active) <= FEW else []
        measured = [(one, one.of(active)) for one in self.RESOURCES]
        for host, index in rows:
            table.add_row(
                host, *(_cell(frame.iloc[index]["share"], _amounts(one, frame.iloc[index])) for one, frame in measured)
            )
        table.add_row("all", *(_cell(_share(frame), _amounts(one, frame.sum())) for one, frame in measured))
        yield table

    def __repr__(self) -> str:
        shares = ", ".join(f"{one.name} {100 * _share(one.of(self.active)):.0f} %" for one in self.RESOURCES)
        return f"Usage of {len(self.active)} slaves: {shares}"


def _share(frame: pd.DataFrame) -> float:
    total = float(frame["total"].sum())
    return float(frame["used"].sum()) / total if total else 0.0


def _amounts(resource: _Resource, row: pd.Series[float]) -> str:
    return f"{_number(row['used'])} of {_number(row['total'])} {resource.unit}"


def _number(amount: float) -> str:
    return f"{amount:,.0f}" if amount >= 100 else f"{amount:.3g}"


def _cell(share: float, amounts: str) -> Text:
    full = round(10 * share)
    return Text.assemble(("█" * full, "blue"), ("░" * (10 - full), "dim"), f" {amounts}")


_LEFT, _COLUMN, _BAR, _ROW = 130, 230, 130, 22


def _bars(active: pd.DataFrame, resources: tuple[_Resource, ...]) -> tuple[int, list[str], int]:
    """A row for each slave, a bar for each resource."""
    parts = []
    for column, resource in enumerate(resources):
        x = _LEFT + column * _COLUMN
        frame = resource.of(active)
        parts.append(f'<text x="{x}" y="14" font-weight="600" {_TEXT}>{resource.heading}</text>')
        for index, host in enumerate(active["host"]):
            row, y = frame.iloc[index], 22 + index * _ROW
            tip = html.escape(f"{host}: {_amounts(resource, row)} used")
            amounts = f"{_number(row['used'])} / {_number(row['total'])}"
            parts.append(
                f'<g><title>{tip}</title><rect x="{x}" y="{y}" width="{_BAR}" height="14" rx="2" fill="{FREE}"/>'
                f'<rect x="{x}" y="{y}" width="{_BAR * min(1.0, row["share"]):.1f}" height="14" rx="2" fill="{USED}"/>'
                f'<text x="{x + _BAR + 6}" y="{y + 11}" {_TEXT}>{amounts}</text></g>'
            )
    for index, host in enumerate(active["host"]):
        parts.append(f'<text x="0" y="{33 + index * _ROW}" {_TEXT}>{html.escape(str(host))}</text>')
    height = 22 + len(active) * _ROW
    return _LEFT + len(resources) * _COLUMN, [*parts, *_legend(height + 6)], height + 26


_PANEL, _HEIGHT = 300, 90


def _curves(active: pd.DataFrame, resources: tuple[_Resource, ...]) -> tuple[int, list[str], int]:
    """A panel for each resource: how full each slave is, the fullest first."""
    parts = []
    for column, resource in enumerate(resources):
        x, y = (column % 2) * (_PANEL + 40), (column // 2) * (_HEIGHT + 62) + 34
        frame = resource.of(active)
        shares = frame["share"].clip(0, 1).sort_values(ascending=False).tolist()
        full, idle = sum(share >= 0.95 for share in shares), sum(share == 0 for share in shares)
        points = " ".join(
            f"{x + _PANEL * place / len(shares):.1f},{y + _HEIGHT * (1 - share):.1f}"
            for place, share in _steps_of(shares)
        )
        said = f"{_amounts(resource, frame.sum())} used ({100 * _share(frame):.0f} %)"
        parts.append(
            f'<text x="{x}" y="{y - 20}" font-weight="600" {_TEXT}>{resource.name}</text>'
            f'<text x="{x}" y="{y - 5}" {_TEXT}>{said}</text>'
            f"<g><title>{resource.name}: {said}</title>"
            f'<rect x="{x}" y="{y}" width="{_PANEL}" height="{_HEIGHT}" fill="{FREE}"/>'
            f'<polygon points="{x},{y + _HEIGHT} {points} {x + _PANEL},{y + _HEIGHT}" fill="{USED}"/></g>'
            f'<text x="{x}" y="{y + _HEIGHT + 15}" {_TEXT}>{len(shares)} slaves, the fullest first: '
            f"{full} full, {idle} idle</text>"
        )
    height = (len(resources) + 1) // 2 * (_HEIGHT + 62)
    return 2 * _PANEL + 40, [*parts, *_legend(height + 6)], height + 26


def _steps_of(shares: list[float]) -> Iterator[tuple[int, float]]:
    """The corners of a staircase over the shares; what is level is one step."""
    last = None
    for place, share in enumerate(shares):
        if share != last:
            if last is not None:
                yield place, last
            yield place, share
        last = share
    if last is not None:
        yield len(shares), last


def _legend(y: int) -> list[str]:
    return [
        f'<rect x="0" y="{y}" width="12" height="12" rx="2" fill="{USED}"/>'
        f'<text x="18" y="{y + 10}" {_TEXT}>used</text>'
        f'<rect x="62" y="{y}" width="12" height="12" rx="2" fill="{FREE}"/>'
        f'<text x="80" y="{y + 10}" {_TEXT}>free</text>'
    ]
