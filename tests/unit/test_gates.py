"""Gates where nobody sits at a button (tests/browser has those)."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd
import pytest

from runbook import events
from runbook.errors import GateRefused
from runbook.remote.gates import Approval

EVIDENCE = pd.DataFrame({"host": ["node1"], "consequence": ["3 containers end"]})


@pytest.fixture
def told() -> Iterator[list[events.Event]]:
    seen: list[events.Event] = []
    unsubscribe = events.subscribe(seen.append)
    yield seen
    unsubscribe()


@pytest.mark.parametrize(
    ("approval", "by"),
    [
        (Approval(yes=True), "--yes"),
        (Approval(approvals=frozenset({"other", "restart-docker"})), "approvals in the parameters"),
    ],
)
def test_an_approval_given_before_opens_the_gate_and_is_told(
    told: list[events.Event], approval: Approval, by: str
) -> None:
    assert approval.ask("restart-docker", "restart docker on node1", EVIDENCE) == by
    assert told == [
        {
            "event": "gate",
            "name": "restart-docker",
            "question": "restart docker on node1",
            "answer": "approved",
            "by": by,
        }
    ]


@pytest.mark.parametrize("evidence", [None, EVIDENCE.iloc[:0], EVIDENCE])
def test_where_nobody_can_answer_the_gate_is_refused_and_says_how_to_open_it(
    told: list[events.Event], evidence: pd.DataFrame | None
) -> None:
    with pytest.raises(GateRefused) as refused:
        Approval(approvals=frozenset({"other"})).ask("restart-docker", "restart docker on node1", evidence)
    assert refused.value.message.startswith("the gate 'restart-docker' was not opened: restart docker on node1")
    assert ("3 containers end" in refused.value.message) == (evidence is EVIDENCE)
    assert "--yes" in str(refused.value.remedy)
    assert "'restart-docker' under approvals" in str(refused.value.remedy)
    assert [(event["answer"], event["by"]) for event in told] == [("refused", "")]


def test_a_wide_table_is_folded_and_loses_nothing() -> None:
    words = [f"container{number}" for number in range(60)]
    wide = pd.DataFrame({"host": ["node1"], "what ends": [" ".join(words)], "image": ["x" * 200]})
    with pytest.raises(GateRefused) as refused:
        Approval().ask("restart-docker", "restart docker on node1", wide)
    shown = refused.value.message.splitlines()[1:]
    assert max(map(len, shown)) <= 100
    assert set(words) <= set("".join(f"{line} " for line in shown).split())
    assert "".join(shown).count("x") == 200
