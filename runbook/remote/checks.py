"""Checks: named claims about the cluster, with their evidence, polled until they hold or a deadline passes."""

from __future__ import annotations

import html
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import tenacity

from runbook.errors import (
    CheckFailed,
    EndpointTimeout,
    EndpointUnreachable,
    HostUnreachable,
    LeaderUnreachable,
    NoLeader,
    NotReady,
    RunbookError,
)
from runbook.events import emit
from runbook.remote.modes import Mode, Verdict
from runbook.secrets import redact
from runbook.views.tables import folded

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Console, ConsoleOptions, RenderResult

NOBODY_THERE = (EndpointUnreachable, EndpointTimeout, NotReady, NoLeader, LeaderUnreachable, HostUnreachable)
"""The errors that say of a claim only that whoever could tell is not there, or not yet."""


@dataclass(frozen=True)
class Evidence:
    """Whether a claim holds at this moment, why (one or a few lines), and the table that shows it, if there is one.

    `remedy` says what to do where it does not hold; `hopeless` says that waiting will not make it hold. `tried` is
    False where the claim could not be put to the test: a plan says so, and anywhere else it does not hold. `allowed` is
    False where only an active check could evaluate the claim, and none was allowed: it is not tried in any mode.
    """

    holds: bool
    text: str
    table: pd.DataFrame | None = None
    remedy: str | None = None
    hopeless: bool = False
    tried: bool = True
    allowed: bool = True

    @classmethod
    def inactive(cls, text: str) -> Evidence:
        """Evidence for a claim that only an active check evaluates, where `Chapter.may_act` is False."""
        return cls(False, text, hopeless=True, tried=False, allowed=False)

    @classmethod
    def against(cls, error: RunbookError) -> Evidence:
        """What an error says of the claim that it was met in."""
        return cls(False, error.message, remedy=error.remedy, tried=not isinstance(error, NOBODY_THERE))


@dataclass(frozen=True)
class CheckResult:
    """A claim, its last evidence, and the seconds it took until it held (or until nobody waited any longer)."""

    name: str
    evidence: Evidence
    seconds: float

    @property
    def holds(self) -> bool:
        """Whether the claim held in the end."""
        return self.evidence.holds

    @property
    def verdict(self) -> Verdict:
        """Whether the claim held, did not, or was not tried."""
        if self.holds:
            return Verdict.HOLDS
        return Verdict.FAILS if self.evidence.tried else Verdict.NOT_TRIED

    def __str__(self) -> str:
        said = "DOES NOT HOLD" if self.verdict is Verdict.FAILS else self.verdict.value
        return f"{said}: {self.name}: {self.evidence.text}"

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        from rich.text import Text

        mark, style, _ = _MARKS[self.verdict]
        yield Text(f"{mark} {self.name}{self._untried}", style=style)
        yield Text(f"  {self.evidence.text} ({self.seconds:.1f} s)")
        if self.evidence.table is not None:
            yield Text(folded(self.evidence.table, options.max_width))

    def _repr_html_(self) -> str:
        mark, _, colour = _MARKS[self.verdict]
        name = html.escape(self.name)
        table = ""
        if self.evidence.table is not None:
            import pandas as pd

            with pd.option_context("display.max_colwidth", None):  # else cells are cut at 50 characters
                table = self.evidence.table.to_html(notebook=True, index=False, justify="left")
            table = table.replace("<td>", '<td style="text-align:left">')  # notebooks put numbers first
        remedy = f"<br>remedy: {html.escape(self.evidence.remedy)}" if self.evidence.remedy and not self.holds else ""
        return (
            f'<div class="runbook-check"><p><b style="color:{colour}">{mark} {name}</b>{self._untried}<br>'
            f"{html.escape(self.evidence.text)} <small>({self.seconds:.1f} s)</small>{remedy}</p>{table}</div>"
        )

    @property
    def _untried(self) -> str:
        return f" ({self.verdict})" if self.verdict is Verdict.NOT_TRIED else ""


_MARKS = {
    Verdict.HOLDS: ("✓", "green", "#1a7f37"),
    Verdict.FAILS: ("✗", "bold red", "#cf222e"),
    Verdict.NOT_TRIED: ("–", "dim", "#656d76"),
}
"""The mark of a verdict, its style in a terminal and its colour on a page."""


def check(
    name: str,
    probe: Callable[[], Evidence],
    *,
    mode: Mode = Mode.APPLY,
    deadline: float = 60.0,
    interval: float = 0.5,
) -> CheckResult:
    """Ask `probe` until its claim holds.

    In apply mode for up to `deadline` seconds, every `interval` seconds, and CheckFailed is raised where it still does
    not hold; in verify mode for a tenth of that; in plan mode once. In both the result says whether it holds. A named
    error that `probe` raises counts as evidence against the claim; in a plan, where it says that nobody is there to be
    asked, as a claim that was not tried. Hopeless evidence ends the waiting. `Evidence.inactive` is not tried in plan
    and verify mode.
    """
    started = time.monotonic()
    patience = {Mode.APPLY: deadline, Mode.VERIFY: deadline / 10, Mode.PLAN: 0.0}[mode]

    def attempt() -> Evidence:
        try:
            return probe()
        except RunbookError as error:
            return Evidence.against(error)

    def tell(state: tenacity.RetryCallState) -> None:
        left = patience - (time.monotonic() - started)
        text = state.outcome.result().text if state.outcome else ""
        emit(event="progress", host="", step=f"waiting up to {left:.0f} s for: {name} ({text})", done=0, total=0)

    polling: tenacity.Retrying = tenacity.Retrying(
        retry=tenacity.retry_if_result(lambda evidence: not evidence.holds and not evidence.hopeless),
        stop=tenacity.stop_after_delay(patience),
        wait=tenacity.wait_fixed(interval),
        before_sleep=tell,
        retry_error_callback=_last,
    )
    last = polling(attempt)
    evidence = replace(
        last,
        text=redact(last.text),
        remedy=redact(last.remedy) if last.remedy else None,
        tried=last.holds or last.tried or (last.allowed and mode is not Mode.PLAN),
    )
    result = CheckResult(name, evidence, time.monotonic() - started)
    emit(
        event="check",
        name=name,
        holds=evidence.holds,
        tried=evidence.tried,
        evidence=evidence.text,
        remedy=evidence.remedy,
        seconds=round(result.seconds, 3),
        table=_rows(evidence.table),
    )
    if mode is Mode.APPLY and not evidence.holds:
        raise CheckFailed(f"{name}: does not hold after {result.seconds:.0f} s: {evidence.text}", evidence.remedy)
    return result


def _last(state: tenacity.RetryCallState) -> Any:
    assert state.outcome is not None
    return state.outcome.result()


def _rows(table: pd.DataFrame | None) -> list[dict[str, str]] | None:
    return None if table is None else [{str(k): str(v) for k, v in row.items()} for row in table.to_dict("records")]
