"""What every test needs: lock files of its own, so that tests side by side do not lock each other's loopback hosts."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from runbook.rollout import lock


@pytest.fixture(autouse=True)
def locks(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of lock files, for this process and for those that the test starts."""
    with tempfile.TemporaryDirectory(prefix="runbook-locks-") as folder:
        monkeypatch.setattr(lock, "SHARED", Path(folder))
        monkeypatch.setenv("RUNBOOK_LOCKS", folder)
        yield Path(folder)
