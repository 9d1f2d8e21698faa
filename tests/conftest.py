"""What all tests have in common: lock files of their own, and scripts over SSH that CentOS 7 reads."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from centos7_lint import violations

from runbook.remote import session
from runbook.remote.shell import Piece
from runbook.rollout import lock

_linted: set[str] = set()


@pytest.fixture(autouse=True)
def locks(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of lock files, for this process and for those that the test starts.

    Tests side by side would else lock each other's loopback hosts.
    """
    with tempfile.TemporaryDirectory(prefix="runbook-locks-") as folder:
        monkeypatch.setattr(lock, "SHARED", Path(folder))
        monkeypatch.setenv("RUNBOOK_LOCKS", folder)
        yield Path(folder)


@pytest.fixture(autouse=True)
def sent_scripts_fit_centos7(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fails a test that sent a script which CentOS 7 would refuse or misread (centos7_lint.py).

    Of what is no script at all, as some tests send, nothing is claimed.
    """
    sent: list[str] = []
    compose = session.compose

    def watched(pieces: Iterable[Piece], marker: str, prologue: str = "") -> str:
        pieces = list(pieces)
        sent.extend(piece.text for piece in pieces)
        return compose(pieces, marker, prologue)

    monkeypatch.setattr(session, "compose", watched)
    yield
    texts = [text for text in dict.fromkeys(sent) if text not in _linted]
    _linted.update(texts)
    found = [
        f"{problem}\nin {text}" for text in texts for problem in violations(text) if not problem.startswith("cannot")
    ]
    assert not found, "\n".join(found)
