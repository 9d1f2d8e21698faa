"""How tests put a question to a node by other means than the runbook's own: see the fixture `ask`."""

from __future__ import annotations

from collections.abc import Callable

from runbook.lab import Node

Ask = Callable[[Node, str], str]
