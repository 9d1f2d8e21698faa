"""Drift that the runbook reports and leaves to the administrator: how the engine ends such a step in each mode."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from fleet import Fleet, keep_state_at_home, running

from runbook.remote.hosts import Hosts
from runbook.remote.modes import Mode, Status
from runbook.remote.shell import facts
from runbook.remote.steps import Change, Command
from runbook.remote.units import Report

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="the hosts are this machine, and only root gives files away")


@pytest.fixture
def fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Fleet]:
    keep_state_at_home(monkeypatch)
    with running(tmp_path, 1) as fleet:
        yield fleet


@dataclass(frozen=True)
class NoForeignFile(Report):
    """A file that an administrator put there."""

    path: str

    @property
    def label(self) -> str:
        return "foreign"

    def probe(self) -> str:
        return f"[ ! -e {self.path} ] || echo there=yes\necho known=yes\n"

    def plan(self, state: str, pending: frozenset[str] = frozenset()) -> Change | None:
        if "there" not in facts(state):
            return None
        return Change(f"foreign file {self.path}", f"+{self.path}\n", kept=True)


@pytest.mark.parametrize(
    ("mode", "status"), [(Mode.PLAN, Status.SKIPPED), (Mode.APPLY, Status.SKIPPED), (Mode.VERIFY, Status.WOULD_CHANGE)]
)
def test_foreign_drift_is_reported_and_stays(fleet: Fleet, tmp_path: Path, mode: Mode, status: Status) -> None:
    foreign, other = tmp_path / "foreign", tmp_path / "other"
    foreign.touch()
    steps = [NoForeignFile(str(foreign)), Command("other", f"test -e {other}", f"touch {other}")]
    with fleet.hosts(mode) as hosts:
        assert isinstance(hosts, Hosts)
        report, command = hosts.apply(steps)
        assert (report.status, report.summary, report.diff) == (status, f"foreign file {foreign}", f"+{foreign}\n")
        assert foreign.exists()
        # what is kept keeps nothing else from being done
        assert command.status is (Status.CHANGED if mode is Mode.APPLY else Status.WOULD_CHANGE)
        assert other.exists() is (mode is Mode.APPLY)

        foreign.unlink()
        assert [one.status for one in hosts.apply([NoForeignFile(str(foreign))])] == [Status.OK]


def test_a_change_behind_it_is_still_asked_for(fleet: Fleet, tmp_path: Path) -> None:
    """Only the changes that are made need an approval: a kept one has no gate to open."""
    foreign = tmp_path / "foreign"
    foreign.touch()
    with fleet.hosts(Mode.APPLY) as hosts:
        result = hosts.apply([NoForeignFile(str(foreign))])
    assert [one.status for one in result] == [Status.SKIPPED]
    assert not result.changed
    assert not result.failed
