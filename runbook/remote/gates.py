"""Gates: questions asked before what can hurt others.

A gate is answered by `--yes`, by an approval listed in the parameters, or, in JupyterLab, by a button. Where nobody
can answer, it is refused, and nothing that it guards is done.
"""

from __future__ import annotations

import html
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from runbook.errors import GateRefused
from runbook.events import emit
from runbook.interactive import is_interactive

if TYPE_CHECKING:
    import pandas as pd

BUTTON_DEADLINE = 600.0
"""Seconds that a gate's button waits for somebody."""


@dataclass(frozen=True)
class Approval:
    """Who may open gates: everybody with `yes`, those named in `approvals`, or somebody at a button."""

    yes: bool = False
    approvals: frozenset[str] = frozenset()

    def ask(self, name: str, question: str, evidence: pd.DataFrame | None = None) -> str:
        """Ask at the gate `name`; returns who approved it. Raises GateRefused.

        `question` says what would be done and what it costs, `evidence` shows it (which hosts, containers, tasks).
        """
        answer = self._answer(name, question, evidence)
        emit(event="gate", name=name, question=question, answer="approved" if answer else "refused", by=answer or "")
        if answer is None:
            shown = "" if evidence is None or evidence.empty else f"\n{evidence.to_string(index=False)}"
            raise GateRefused(
                f"the gate '{name}' was not opened: {question}{shown}",
                f"run with --yes, or list '{name}' under approvals in the parameters, once you have read what it does",
            )
        return answer

    def _answer(self, name: str, question: str, evidence: pd.DataFrame | None) -> str | None:
        if self.yes:
            return "--yes"
        if name in self.approvals:
            return "approvals in the parameters"
        if is_interactive():
            return _button(name, question, evidence)
        return None


def _button(name: str, question: str, evidence: pd.DataFrame | None) -> str | None:
    """Show two buttons and wait for one of them.

    The cell is still running while they are pressed: JupyterLab sends a widget's messages to a subshell of the
    kernel, so that they arrive (JupyterLab 4.4, ipykernel 7; jupyter-client's messaging protocol 5.5).
    """
    import ipywidgets
    from IPython.display import display

    answered = threading.Event()
    answer: list[str | None] = [None]
    text = ipywidgets.HTML(
        f"<b>Gate: {html.escape(name)}</b><br>{html.escape(question)}"
        + ("" if evidence is None else evidence.to_html(index=False, escape=True))
    )
    approve = ipywidgets.Button(description="Approve", button_style="danger", tooltip=f"approve {name}")
    refuse = ipywidgets.Button(description="Refuse", tooltip=f"refuse {name}")

    def press(button: ipywidgets.Button) -> None:
        answer[0] = "button" if button is approve else None
        approve.disabled = refuse.disabled = True
        answered.set()

    approve.on_click(press)
    refuse.on_click(press)
    display(ipywidgets.VBox([text, ipywidgets.HBox([approve, refuse])]))
    answered.wait(BUTTON_DEADLINE)
    approve.disabled = refuse.disabled = True
    return answer[0]
