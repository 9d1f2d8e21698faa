"""Parameters that a notebook is given and does not have."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path

from runbook.errors import Problem


def unknown(given: Iterable[str], known: frozenset[str], notebook: Path) -> list[Problem]:
    """A problem, with its remedy, for every name in `given` that is not among the `known` parameters of `notebook`."""
    return [
        Problem(notebook, 0, name, "the notebook has no such parameter", _remedy(name, known))
        for name in given
        if name not in known
    ]


def _remedy(name: str, known: frozenset[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {near[0]}?" if near else f"it takes {', '.join(sorted(known)) or 'none'}"
