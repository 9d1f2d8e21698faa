"""How an outcome follows from what happened."""

from __future__ import annotations

import difflib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runbook import outcomes
from runbook.outcomes import Outcome
from runbook.remote.modes import Mode, Verdict


def step(status: str, host: str = "node1", **more: str) -> dict[str, str]:
    return {"event": "step", "host": host, "step": "file /etc/conf", "status": status, **more}


@pytest.mark.parametrize(
    ("status", "mode", "outcome"),
    [
        ("ok", Mode.APPLY, Outcome.OK),
        ("skipped", Mode.APPLY, Outcome.OK),
        ("changed", Mode.APPLY, Outcome.CHANGED),
        ("would change", Mode.PLAN, Outcome.WOULD_CHANGE),
        ("would change", Mode.VERIFY, Outcome.DRIFT),
        ("failed", Mode.PLAN, Outcome.FAILED),
        ("unreachable", Mode.VERIFY, Outcome.FAILED),
    ],
)
def test_what_a_step_means(status: str, mode: Mode, outcome: Outcome) -> None:
    assert outcomes.of_event(step(status), mode) is outcome


@pytest.mark.parametrize(
    ("holds", "mode", "outcome"),
    [
        (True, Mode.APPLY, Outcome.OK),
        (False, Mode.APPLY, Outcome.FAILED),
        (False, Mode.VERIFY, Outcome.FAILED),
        (False, Mode.PLAN, Outcome.OK),
    ],
)
def test_what_a_check_means(holds: bool, mode: Mode, outcome: Outcome) -> None:
    assert outcomes.of_event({"event": "check", "holds": holds}, mode) is outcome


@pytest.mark.parametrize(
    ("mode", "outcome"), [(Mode.APPLY, Outcome.FAILED), (Mode.VERIFY, Outcome.OK), (Mode.PLAN, Outcome.OK)]
)
def test_what_an_active_check_means_that_was_not_allowed(mode: Mode, outcome: Outcome) -> None:
    assert outcomes.of_event({"event": "check", "holds": False, "tried": False}, mode) is outcome


@pytest.mark.parametrize(
    ("said", "verdict"),
    [
        ({"holds": True, "tried": True}, Verdict.HOLDS),
        ({"holds": False, "tried": True}, Verdict.FAILS),
        ({"holds": False, "tried": False}, Verdict.NOT_TRIED),
        ({"holds": False}, Verdict.FAILS),  # as journals had it before there was `tried`
    ],
)
def test_how_a_check_ended(said: dict[str, bool], verdict: Verdict) -> None:
    assert outcomes.verdict({"event": "check", **said}) is verdict


def test_other_events_mean_nothing() -> None:
    assert outcomes.of_event({"event": "gate", "answer": "refused"}, Mode.APPLY) is Outcome.OK


def test_the_worst_of_some_outcomes() -> None:
    assert outcomes.worst([]) is Outcome.OK
    assert outcomes.worst([Outcome.CHANGED, Outcome.OK]) is Outcome.CHANGED
    assert outcomes.worst([Outcome.DRIFT, Outcome.DIED, Outcome.FAILED]) is Outcome.DIED
    assert outcomes.worst([Outcome.WOULD_CHANGE, Outcome.DRIFT, Outcome.CHANGED]) is Outcome.DRIFT


def test_a_difference_is_told_with_host_file_and_line() -> None:
    diff = "--- /etc/conf\n+++ /etc/conf\n@@ -3,3 +3,3 @@\n a\n-b\n+c\n d\n"
    told = outcomes.describe(step("would change", summary="content differs", diff=diff))
    assert told == "node1: file /etc/conf:4: content differs"


def test_hosts_of_which_the_same_is_to_be_said_share_a_line() -> None:
    check = {"event": "check", "name": "one leader", "evidence": "none"}
    events = [
        step("failed", "node1", summary="no"),
        step("failed", "node2"),
        step("failed", "node3", summary="no"),
        check,
    ]
    assert outcomes.describe_all(events) == [
        "node1, node3: file /etc/conf: no",
        "node2: file /etc/conf",
        "one leader: none",
    ]


def test_a_host_that_was_not_reached_is_told_once_for_all_its_steps() -> None:
    silent = "root@node1:22 cannot be reached"
    events = [{**step("unreachable", summary=silent), "step": name} for name in ("file /a", "file /b")]
    assert outcomes.describe_all(events) == [f"node1: {silent}"]


@pytest.mark.parametrize(
    ("diff", "line"),
    [
        ("", None),
        ("-mode: 644\n+mode: 600\n", None),  # a diff of named values
        ("--- /dev/null\n+++ /etc/conf\n@@ -0,0 +1,2 @@\n+a\n+b\n", 1),
        ("--- f\n+++ f\n@@ -1 +1,2 @@\n a\n\\ No newline at end of file\n+b\n", 2),
    ],
)
def test_the_first_line_of_a_diff(diff: str, line: int | None) -> None:
    assert outcomes.first_line(diff) == line


@given(before=st.lists(st.sampled_from("abc"), max_size=12), after=st.lists(st.sampled_from("abc"), max_size=12))
def test_the_first_line_of_any_diff_is_where_the_files_part(before: list[str], after: list[str]) -> None:
    diff = "\n".join(difflib.unified_diff(before, after, "f", "f", n=1, lineterm=""))
    line = outcomes.first_line(diff)
    if before == after:
        assert line is None
    else:
        assert line is not None
        assert before[: line - 1] == after[: line - 1]
        assert before[line - 1 :] != after[line - 1 :]
