"""How a named error shows in a notebook."""

from __future__ import annotations

import sys

import pytest
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config

from runbook.errors import ApplyFailed, HostUnreachable, RunbookError
from runbook.remote.modes import Mode, Status
from runbook.remote.results import ApplyResult, StepResult


def shown(error: RunbookError, capsys: pytest.CaptureFixture[str]) -> str:
    """What IPython prints for an error that a cell raises."""
    shell = InteractiveShell(config=Config({"HistoryManager": {"enabled": False}}))
    try:
        raise error
    except RunbookError:
        shell.showtraceback(sys.exc_info())
    return capsys.readouterr().out


def test_an_error_is_one_message_and_no_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    error = HostUnreachable("node1: connection refused", "see whether sshd runs")
    assert shown(error, capsys) == "HostUnreachable: node1: connection refused\n  remedy: see whether sshd runs\n"


def test_the_result_that_an_error_carries_is_shown_before_it(capsys: pytest.CaptureFixture[str]) -> None:
    steps = (
        StepResult("node1", "file /etc/conf", Status.OK),
        StepResult("node2", "file /etc/conf", Status.FAILED, "no"),
    )
    text = shown(ApplyFailed("node2: no", result=ApplyResult("conf", Mode.APPLY, steps)), capsys)
    assert text.index("node1") < text.index("✗ failed") < text.index("ApplyFailed: node2: no")
    assert "Traceback" not in text
