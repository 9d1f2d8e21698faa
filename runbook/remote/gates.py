"""Gates: questions asked before what can hurt others.

A gate is answered by `--yes`, by an approval listed in the parameters, or, in a notebook that somebody runs, by a
button (by a typed word, where the frontend cannot deliver a button's press). Where nobody can answer, it is refused,
and nothing that it guards is done.
"""

from __future__ import annotations

import html
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from runbook.errors import GateRefused
from runbook.events import emit
from runbook.interactive import is_interactive
from runbook.views.tables import folded

if TYPE_CHECKING:
    import pandas as pd

BUTTON_DEADLINE = 600.0
"""Seconds that a gate's button waits for somebody."""
SUBSHELL_DEADLINE = 5.0
"""Seconds in which a frontend that shows a widget opens the subshell for its messages."""


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
            shown = "" if evidence is None or evidence.empty else f"\n{folded(evidence)}"
            remedy = f"run with --yes, or list '{name}' under approvals in the parameters, once you know what it does"
            if is_interactive():
                remedy = "nothing behind it was done; run the cell again to be asked again"
            raise GateRefused(f"the gate '{name}' was not opened: {question}{shown}", remedy)
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
    """Show two buttons and wait for one of them; returns by what the gate was opened.

    Their cell is still running when they are pressed. JupyterLab sends what a widget says to a subshell of the kernel,
    which is free to hear it (JupyterLab 4.4, ipykernel 7, Jupyter's messaging protocol 5.5). Where there is no
    subshell, the answer is typed: standard input has a channel of its own.
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
    for button in (approve, refuse):
        # Since 7.4 ipykernel notes from which shell a widget was shown, and hands what it says to that one, which is
        # busy with this cell. Without the note it goes to the subshell that the frontend names.
        vars(button.comm).pop("_reply_subshell_id", None)
    if not answered.wait(SUBSHELL_DEADLINE):
        if _subshells():
            answered.wait(BUTTON_DEADLINE)
        elif input(f"This frontend cannot press buttons of a cell that runs. Type {name} to approve: ") == name:
            answer[0] = "typed"
    approve.disabled = refuse.disabled = True
    return answer[0]


def _subshells() -> bool:
    """Whether this kernel has subshells, as JupyterLab opens one for widgets."""
    from IPython.core.getipython import get_ipython

    thread = getattr(getattr(get_ipython(), "kernel", None), "shell_channel_thread", None)
    return thread is not None and bool(thread.manager.list_subshell())
