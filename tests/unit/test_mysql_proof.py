"""The row that outlives its container, judged; it is written and read on a real server in tests/lab."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

import pytest

from runbook.services.mysql.proof import Proof, Serving, frame, outlived, standing, stands

WRITTEN = Proof("20160803T073216Z-lab-1", datetime(2016, 8, 3, 7, 32, 16), "mysql.1")
OLDER = replace(WRITTEN, record="20160802T073216Z-lab-1")
BEFORE = Serving("mysql.1", "node2:8290", "771b0ba79c3d")
AFTER = Serving("mysql.2", "node2:8291", "3fcc29f52928")


def test_the_row_is_there() -> None:
    evidence = outlived("docker kill 771b0ba79c3d; 4 s later", WRITTEN, BEFORE, AFTER, [OLDER, WRITTEN])
    assert evidence.holds
    assert evidence.text == "docker kill 771b0ba79c3d; 4 s later mysql.2 serves at node2:8291, and the row is there"
    assert evidence.table is not None
    assert list(evidence.table["container"]) == ["771b0ba79c3d", "3fcc29f52928"]
    assert evidence.table.iloc[0, 4] == evidence.table.iloc[1, 4] == "2016-08-03 07:32:16"


@pytest.mark.parametrize("found", [[], [OLDER], [replace(WRITTEN, task="mysql.0")]])
def test_the_row_is_lost_and_waiting_does_not_bring_it_back(found: list[Proof]) -> None:
    evidence = outlived("docker kill", WRITTEN, BEFORE, AFTER, found)
    assert not evidence.holds
    assert evidence.hopeless
    assert "mysql.volume" in str(evidence.remedy)


@pytest.mark.parametrize(
    ("task", "configured", "found"),
    [
        ("mysql.2", datetime(2016, 8, 3), WRITTEN),
        ("mysql.1", datetime(2016, 8, 3), None),  # its own container was never outlived
        ("mysql.2", datetime(2016, 8, 4), None),  # the app is another one since
    ],
)
def test_a_row_of_an_earlier_rollout_proves_it_for_the_app_as_it_is(
    task: str, configured: datetime, found: Proof | None
) -> None:
    assert standing([OLDER, WRITTEN], task, configured) == found


def test_where_it_is_proved_already_nothing_was_killed_for_it() -> None:
    evidence = stands(WRITTEN, "mysql.2", "node2:8291")
    assert evidence.holds
    assert evidence.text == (
        "the row of 20160803T073216Z-lab-1, written while mysql.1 served, is read at node2:8291; "
        "nothing was killed for it"
    )
    assert evidence.table is not None
    assert list(evidence.table["task"]) == ["mysql.1", "mysql.2"]


def test_rows_as_a_table() -> None:
    assert list(frame([OLDER, WRITTEN])["written (UTC)"]) == ["2016-08-03 07:32:16"] * 2
    assert frame([]).empty
