"""What all tests have in common: whatever script one of them has sent over SSH is one that CentOS 7 reads."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pytest
from centos7_lint import violations

from runbook.remote import session
from runbook.remote.shell import Piece

_linted: set[str] = set()


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
