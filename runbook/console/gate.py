"""A gate on the page: a question with its evidence and two buttons, which somebody answers whenever they do.

The action that asks runs in a thread of its own and waits there, so that the page goes on answering meanwhile.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from runbook.remote.gates import BUTTON_DEADLINE, Approval

if TYPE_CHECKING:
    import pandas as pd

BY = "button in the console"
"""By whom a gate was opened, as the journal tells it."""


@dataclass(frozen=True)
class Question:
    """What stands at the gate `name`: what would be done, and the table of what it would be done to."""

    name: str
    text: str
    evidence: pd.DataFrame | None


class Desk:
    """Where at most one question lies at a time. `changed` is called when one comes and when it is answered."""

    def __init__(self, changed: Callable[[], None], deadline: float = BUTTON_DEADLINE) -> None:
        self._changed = changed
        self._deadline = deadline
        self._answered = threading.Event()
        self._approved = False
        self._closed = False
        self.question: Question | None = None

    def put(self, question: Question) -> bool:
        """Show a question and wait for its answer; one that nobody answers within the deadline is answered with no."""
        self._approved = False
        self._answered.clear()
        if self._closed:
            return False
        self.question = question
        self._changed()
        self._answered.wait(self._deadline)
        self.question = None
        self._changed()
        return self._approved

    def answer(self, question: Question, approved: bool) -> None:
        """Answer a question; where another one lies here by now, nothing happens."""
        if question is self.question and not self._answered.is_set():
            self._approved = approved
            self._answered.set()

    def close(self) -> None:
        """Answer with no what lies here and all that comes."""
        self._closed = True
        self._answered.set()


@dataclass(frozen=True)
class AtDesk(Approval):
    """Gates that are opened by a button of the page, each time anew: no approval beforehand counts."""

    desk: Desk = field(kw_only=True)

    def _answer(self, name: str, question: str, evidence: pd.DataFrame | None) -> str | None:
        return BY if self.desk.put(Question(name, question, evidence)) else None
