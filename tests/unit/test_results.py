"""The table that a call on hosts ends with: as text, as HTML, as rows."""

from __future__ import annotations

import io

from rich.console import Console

from runbook.remote.modes import Mode, Status
from runbook.remote.results import ApplyResult, StepResult

FAILED = "run: <b>no space</b>\n  remedy: make some"
RESULT = ApplyResult(
    "configure <it>",
    Mode.APPLY,
    (
        StepResult("node1", "file /etc/a", Status.CHANGED, "edit", "@@ -1 +1 @@\n-<old>\n+new\n", 0.1234),
        StepResult("node1", "service x", Status.OK),
        StepResult("node2", "file /etc/a", Status.CHANGED, "edit", "@@ -1 +1 @@\n-<old>\n+new\n"),
        StepResult("node2", "service x", Status.FAILED, FAILED),
        StepResult("node3", "file /etc/a", Status.UNREACHABLE, "node3 did not answer\n  remedy: look"),
        StepResult("node3", "service x", Status.UNREACHABLE, "node3 did not answer"),
        StepResult("node4", "service x", Status.SKIPPED, "the gate 'x' was not opened"),
    ),
)


def test_what_it_counts() -> None:
    assert RESULT.hosts == ["node1", "node2", "node3", "node4"]
    assert RESULT.steps == ["file /etc/a", "service x"]
    assert (RESULT.changed, RESULT.failed) == (True, True)
    assert RESULT.counts == {
        Status.CHANGED: 2,
        Status.OK: 1,
        Status.FAILED: 1,
        Status.UNREACHABLE: 2,
        Status.SKIPPED: 1,
    }
    assert RESULT.heading() == "configure <it> (apply): 2 changed, 1 failed, 1 ok, 1 skipped, 2 unreachable"
    assert ApplyResult("", Mode.PLAN, ()).heading() == "steps (plan): no hosts"
    assert not ApplyResult("", Mode.PLAN, ()).failed


def test_problems_are_told_once_a_host_with_their_remedies() -> None:
    assert RESULT.problems() == (f"node2: service x: {FAILED}\nnode3: node3 did not answer\n  remedy: look")


def test_its_rows_are_what_the_journal_writes() -> None:
    assert RESULT.rows()[0] == {
        "host": "node1",
        "step": "file /etc/a",
        "status": "changed",
        "summary": "edit",
        "diff": "@@ -1 +1 @@\n-<old>\n+new\n",
        "seconds": 0.123,
    }


def test_html_shows_every_difference_and_escapes_everything() -> None:
    page = RESULT._repr_html_()
    assert "configure &lt;it&gt; (apply)" in page
    assert page.count("<details>") == 2
    assert "-&lt;old&gt;" in page
    assert "&lt;b&gt;no space&lt;/b&gt;" in page
    assert "<old>" not in page
    assert "<b>no space" not in page


def test_text_tells_a_difference_once_for_the_hosts_that_share_it() -> None:
    shown = io.StringIO()
    Console(file=shown, width=100).print(RESULT)
    text = shown.getvalue()
    assert "node1, node2: file /etc/a: edit" in text
    assert text.count("-<old>") == 1
    assert "node2: service x: run: <b>no space</b>" in text
    for host in RESULT.hosts:
        assert host in text
