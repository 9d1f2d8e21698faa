"""The proof that data outlives its container: a row that is written before a kill and read after it.

It is kept in a table of the runbook's own, `runbook_proof` in the app's database, made where it is not there; one row
for each kill. Nothing else in the database is read or touched. Where a row outlived a container of the app as it is
configured already, that is the proof, and nothing is killed again.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

import pandas as pd

from runbook.errors import NotFound
from runbook.remote.checks import Evidence
from runbook.services.mysql.client import Session

TABLE = "runbook_proof"

_CREATE = f"""\
CREATE TABLE IF NOT EXISTS `{TABLE}` (
  `record` VARCHAR(190) NOT NULL PRIMARY KEY,
  `written` DATETIME NOT NULL,
  `task` VARCHAR(255) NOT NULL
) ENGINE=InnoDB"""  # another engine may lose a committed row with its process


@dataclass(frozen=True)
class Proof:
    """A row: the record of the rollout that wrote it, when (UTC, the server's clock), and the task that served then."""

    record: str
    written: datetime
    task: str


@dataclass(frozen=True)
class Serving:
    """Who served at one moment: the task, its `host:port`, and its container."""

    task: str
    at: str
    container: str


def write(session: Session, record: str, task: str) -> Proof:
    """Write the row of a record (again, if it is there), and read it back."""
    session.rows(_CREATE)
    session.rows(f"REPLACE INTO `{TABLE}` (`record`, `written`, `task`) VALUES (%s, UTC_TIMESTAMP(), %s)", record, task)
    return next(proof for proof in read(session) if proof.record == record)


def read(session: Session) -> list[Proof]:
    """All rows, the oldest first; none where there is no table yet."""
    try:
        rows = session.rows(f"SELECT `record`, `written`, `task` FROM `{TABLE}` ORDER BY `written`, `record`")
    except NotFound:
        return []
    return [Proof(*row) for row in rows]


def standing(proofs: Iterable[Proof], task: str, configured: datetime) -> Proof | None:
    """The last row that outlived a container of the app as it is configured: it was written after `configured` (UTC),
    and another task than `task`, which serves, served then. None where there is none yet."""
    found = [proof for proof in proofs if proof.task != task and proof.written > configured]
    return found[-1] if found else None


def stands(row: Proof, task: str, at: str) -> Evidence:
    """What a row of an earlier rollout proves, read from the task that serves `at` host:port; nothing was killed."""
    table = pd.DataFrame(
        [("before", row.task, str(row.written)), ("after", task, str(row.written))],
        columns=["", "task", "row, written (UTC)"],
    )
    text = f"the row of {row.record}, written while {row.task} served, is read at {at}; nothing was killed for it"
    return Evidence(True, text, table)


def frame(proofs: Iterable[Proof]) -> pd.DataFrame:
    """The rows as a table."""
    rows = [(proof.record, f"{proof.written:%Y-%m-%d %H:%M:%S}", proof.task) for proof in proofs]
    return pd.DataFrame(rows, columns=["record", "written (UTC)", "task that served then"])


def outlived(told: str, written: Proof, before: Serving, after: Serving, found: Iterable[Proof]) -> Evidence:
    """Whether a row that was written before a kill is there after it, as it was. `told` is what was done, and when."""
    there = next((proof for proof in found if proof.record == written.record), None)
    rows = [
        ("before", before.task, before.at, before.container, str(written.written)),
        ("after", after.task, after.at, after.container, str(there.written) if there else "✗ not there"),
    ]
    table = pd.DataFrame(rows, columns=["", "task", "at", "container", "row of this rollout, written (UTC)"])
    if there != written:
        text = f"{told} {after.task} serves at {after.at}, and the row is not there as it was written"
        return Evidence(
            False, text, table, "see that mysql.volume is what the container has at its data", hopeless=True
        )
    return Evidence(True, f"{told} {after.task} serves at {after.at}, and the row is there", table)
