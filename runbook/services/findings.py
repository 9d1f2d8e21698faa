"""What a diagnosis ends with: causes with their evidence and remedy, the same for every service."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import pandas as pd
from rich.console import Console, ConsoleOptions, RenderResult

from runbook.views.tables import Table


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong: on which host, what it is, how one sees it, and what to do about it.

    `cause` is the same text wherever the same thing is wrong, so that it can be counted and searched for.
    """

    host: str
    cause: str
    evidence: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.host}: {self.cause}: {self.evidence}\n  remedy: {self.remedy}"


@dataclass(frozen=True, repr=False)
class Findings:
    """All that a diagnosis found, in the order in which it should be mended. Empty: nothing is wrong that it knows."""

    subject: str
    items: tuple[Finding, ...]

    COLUMNS: ClassVar = ["host", "cause", "evidence", "remedy"]

    def __iter__(self) -> Iterator[Finding]:
        return iter(self.items)

    def __len__(self) -> int:
        return len(self.items)

    def of(self, host: str) -> tuple[Finding, ...]:
        """Those of one host."""
        return tuple(item for item in self.items if item.host == host)

    @property
    def table(self) -> Table:
        """The findings as a table."""
        rows = [(item.host, f"✗ {item.cause}", item.evidence, item.remedy) for item in self.items]
        return Table(pd.DataFrame(rows, columns=self.COLUMNS), self._heading, states=("cause",))

    @property
    def _heading(self) -> str:
        return f"{self.subject}: {len(self) or 'nothing'} found"

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield self.table if self.items else f"[green]✓[/green] {self._heading}"

    def _repr_html_(self) -> str:
        return self.table._repr_html_() if self.items else f"<p>✓ <b>{self._heading}</b></p>"

    def __repr__(self) -> str:
        return "\n".join([self._heading, *map(str, self.items)])
