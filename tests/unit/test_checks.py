"""Checks: how long a claim is asked, and what is told of it."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator

import pandas as pd
import pytest
from rich.console import Console

from runbook import events, secrets
from runbook.errors import (
    CheckFailed,
    HostKeyChanged,
    HostUnreachable,
    NoLeader,
    NotReady,
    RunbookError,
    UnexpectedAnswer,
)
from runbook.remote.checks import Evidence, check
from runbook.remote.modes import Mode, Verdict


@pytest.fixture
def told() -> Iterator[list[events.Event]]:
    seen: list[events.Event] = []
    unsubscribe = events.subscribe(seen.append)
    yield seen
    unsubscribe()


def after(attempts: int) -> Callable[[], Evidence]:
    """A claim that holds from so many attempts on."""
    asked: list[int] = []

    def probe() -> Evidence:
        asked.append(1)
        return Evidence(len(asked) >= attempts, f"{len(asked)} of {attempts}")

    return probe


def test_a_claim_is_asked_until_it_holds(told: list[events.Event]) -> None:
    result = check("three", after(3), deadline=10, interval=0.01)
    assert result.holds
    assert str(result) == "holds: three: 3 of 3"
    assert [event["event"] for event in told] == ["progress", "progress", "check"]
    assert "waiting up to 10 s for: three (1 of 3)" in told[0]["step"]
    assert {key: told[-1][key] for key in ("name", "holds", "evidence")} == {
        "name": "three",
        "holds": True,
        "evidence": "3 of 3",
    }


def test_a_claim_that_does_not_hold_in_time_fails_with_its_last_evidence(told: list[events.Event]) -> None:
    began = time.monotonic()
    with pytest.raises(CheckFailed, match=r"never: does not hold after \d s: the leader is gone") as failed:
        check("never", lambda: Evidence(False, "the leader is gone", remedy="start it"), deadline=0.2, interval=0.05)
    assert 0.2 <= time.monotonic() - began < 5
    assert failed.value.remedy == "start it"
    assert (told[-1]["event"], told[-1]["holds"], told[-1]["remedy"]) == ("check", False, "start it")


@pytest.mark.parametrize(("mode", "attempts"), [(Mode.VERIFY, range(2, 5)), (Mode.PLAN, range(1, 2))])
def test_in_verify_and_plan_mode_it_is_told_and_not_raised(mode: Mode, attempts: range) -> None:
    asked: list[int] = []

    def probe() -> Evidence:
        asked.append(1)
        return Evidence(False, "no")

    result = check("never", probe, mode=mode, deadline=3.0, interval=0.2)
    assert not result.holds
    assert len(asked) in attempts


def test_a_named_error_is_evidence_against_the_claim() -> None:
    def probe() -> Evidence:
        raise NoLeader("no master leads", "look at zk")

    result = check("one leader", probe, mode=Mode.PLAN)
    assert (result.holds, result.evidence.text, result.evidence.remedy) == (False, "no master leads", "look at zk")


@pytest.mark.parametrize(
    ("error", "verdict"),
    [
        (NotReady("no session", "start it"), Verdict.NOT_TRIED),
        (HostUnreachable("connection refused"), Verdict.NOT_TRIED),
        (HostKeyChanged("another key"), Verdict.NOT_TRIED),
        (UnexpectedAnswer("status 500"), Verdict.FAILS),
    ],
)
def test_a_plan_says_of_a_claim_that_nobody_is_there_to_confirm_that_it_was_not_tried(
    told: list[events.Event], error: RunbookError, verdict: Verdict
) -> None:
    def probe() -> Evidence:
        raise error

    result = check("one leader", probe, mode=Mode.PLAN)
    assert (result.holds, result.verdict, result.evidence.text) == (False, verdict, error.message)
    assert (told[-1]["holds"], told[-1]["tried"]) == (False, verdict is Verdict.FAILS)
    untried = verdict is Verdict.NOT_TRIED
    assert str(result).startswith("not tried: one leader: " if untried else "DOES NOT HOLD: one leader: ")
    shown = io.StringIO()
    Console(file=shown, width=100).print(result)
    assert ("– one leader (not tried)" in shown.getvalue()) is untried
    assert ("– one leader</b> (not tried)" in result._repr_html_()) is untried


@pytest.mark.parametrize("mode", [Mode.APPLY, Mode.VERIFY])
def test_outside_a_plan_a_claim_that_cannot_be_tried_does_not_hold(told: list[events.Event], mode: Mode) -> None:
    def ask() -> Verdict:
        return check(
            "one leader", lambda: Evidence(False, "nobody answers", tried=False), mode=mode, deadline=0
        ).verdict

    if mode is Mode.APPLY:
        with pytest.raises(CheckFailed, match="nobody answers"):
            ask()
    else:
        assert ask() is Verdict.FAILS
    assert (told[-1]["holds"], told[-1]["tried"]) == (False, True)


@pytest.mark.parametrize("mode", [Mode.PLAN, Mode.VERIFY])
def test_a_claim_that_only_an_active_check_evaluates_is_not_tried_and_not_waited_for(
    told: list[events.Event], mode: Mode
) -> None:
    result = check("a line arrives", lambda: Evidence.inactive("--active-checks allows it"), mode=mode, deadline=600)
    assert (result.verdict, result.evidence.text) == (Verdict.NOT_TRIED, "--active-checks allows it")
    assert (told[-1]["holds"], told[-1]["tried"]) == (False, False)
    assert result.seconds < 10


def test_a_mistake_in_a_check_is_loud() -> None:
    with pytest.raises(ZeroDivisionError):
        check("mistaken", lambda: Evidence(1 // 0 == 0, ""))


def test_hopeless_evidence_is_not_waited_for() -> None:
    began = time.monotonic()
    with pytest.raises(CheckFailed):
        check("hopeless", lambda: Evidence(False, "wrong version", hopeless=True), deadline=60)
    assert time.monotonic() - began < 5


def test_a_check_shows_as_html_and_as_text_and_masks_secrets() -> None:
    secrets.register("hunter22-in-the-checks")
    table = pd.DataFrame({"server": ["<a>"], "mode": ["leader"]})
    evidence = Evidence(False, "a & b say hunter22-in-the-checks", table, remedy="do <this>")
    result = check("one <leader>", lambda: evidence, mode=Mode.PLAN)
    page = result._repr_html_()
    for part in ("✗ one &lt;leader&gt;", "a &amp; b say ***", "remedy: do &lt;this&gt;", "&lt;a&gt;"):
        assert part in page
    shown = io.StringIO()
    Console(file=shown, width=100).print(result)
    text = shown.getvalue()
    assert "✗ one <leader>" in text
    assert "hunter22" not in text + page + str(result)
