"""How a section, a chapter and a rollout end, and how that follows from what happened in them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Any

from runbook.remote.modes import Mode, Status, Verdict


class Outcome(StrEnum):
    """How a section, a chapter or a rollout ended, from the best to the worst.

    `drift` is what `verify` calls a difference, `failed` is what an error was told for, and `died` is what ended
    without its end being told: a killed kernel, a cell that ran out of time, `sys.exit`.
    """

    OK = "ok"
    CHANGED = "changed"
    WOULD_CHANGE = "would change"
    DRIFT = "drift"
    FAILED = "failed"
    DIED = "died"


_SEVERITY = {outcome: rank for rank, outcome in enumerate(Outcome)}


def worst(outcomes: Iterable[Outcome]) -> Outcome:
    """The worst of some outcomes; of none, `ok`."""
    return max(outcomes, key=_SEVERITY.__getitem__, default=Outcome.OK)


def of_event(event: Mapping[str, Any], mode: Mode) -> Outcome:
    """What one `step` or `check` event means for its section; every other event means nothing to it (`ok`).

    A check that does not hold fails its section, except in a plan: what a plan leaves undone need not hold yet. In
    `verify` a check that was not tried, because active checks were not allowed, is no failure either.
    """
    if event["event"] == "check":
        untried = mode is Mode.VERIFY and verdict(event) is Verdict.NOT_TRIED
        return Outcome.OK if event["holds"] or mode is Mode.PLAN or untried else Outcome.FAILED
    if event["event"] != "step":
        return Outcome.OK
    match Status(event["status"]):
        case Status.OK | Status.SKIPPED:
            return Outcome.OK
        case Status.CHANGED:
            return Outcome.CHANGED
        case Status.WOULD_CHANGE:
            return Outcome.DRIFT if mode is Mode.VERIFY else Outcome.WOULD_CHANGE
        case Status.FAILED | Status.UNREACHABLE:
            return Outcome.FAILED


def verdict(event: Mapping[str, Any]) -> Verdict:
    """How the check of a `check` event ended. Journals from before there was `tried` tell of tried checks only."""
    if event["holds"]:
        return Verdict.HOLDS
    return Verdict.FAILS if event.get("tried", True) else Verdict.NOT_TRIED


def describe(event: Mapping[str, Any]) -> str:
    """A `step` or `check` event in one line.

    Of a step: host, step, the line of the file where the first difference is, and the summary; of a check: its name
    and evidence.
    """
    return f"{event['host']}: {_what(event)}" if event["event"] == "step" else _what(event)


def describe_all(events: Iterable[Mapping[str, Any]], order: Sequence[str] = ()) -> list[str]:
    """The same of many events; hosts of which the same is to be said share a line, in the order of `order`. Of a host
    that was not reached it is said once, for all its steps."""
    hosts: dict[str, list[str]] = {}
    for event in events:
        unreached = event.get("status") == Status.UNREACHABLE and event.get("summary")
        hosts.setdefault(unreached or _what(event), []).extend([event["host"]] if event["event"] == "step" else [])
    return [f"{', '.join(in_order(names, order))}: {what}" if names else what for what, names in hosts.items()]


def in_order(names: Iterable[str], order: Sequence[str]) -> list[str]:
    """Names in the order of `order`, those that are not in it last; each once."""
    position = {name: index for index, name in enumerate(order)}
    return sorted(dict.fromkeys(names), key=lambda name: position.get(name, len(position)))


def _what(event: Mapping[str, Any]) -> str:
    if event["event"] == "check":
        return f"{event['name']}: {event['evidence']}"
    line = first_line(event.get("diff", ""))
    place = f"{event['step']}:{line}" if line else event["step"]
    return f"{place}: {event['summary']}" if event.get("summary") else place


def first_line(diff: str) -> int | None:
    """The number, from 1, of the first line that a unified diff takes away or puts in (in the present file)."""
    number = None
    for text in diff.splitlines():
        if hunk := re.match(r"@@ -(\d+)(?:,(\d+))? ", text):
            # a hunk without present lines names the line before it (POSIX, diff -u)
            number = int(hunk[1]) + (hunk[2] == "0")
        elif number is not None:
            if text.startswith(("-", "+")):
                return number
            number += not text.startswith("\\")  # "\ No newline at end of file" is not a line of it
    return None
