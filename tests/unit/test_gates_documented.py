"""Whoever approves gates beforehand finds all of them in parameters/README.md."""

from __future__ import annotations

import re
from pathlib import Path

from runbook.remote.containers import RECREATE
from runbook.services.docker.engine import RESTART
from runbook.services.flags import ACTIVATE
from runbook.services.marathon.deploy import DELETE as DELETE_APP
from runbook.services.marathon.drill import KILL
from runbook.services.mesos.steps import QUORUM, RESET
from runbook.services.registry.chapter import DELETE as DELETE_TAG
from runbook.services.registry.garbage import COLLECT
from runbook.site import GATES

README = Path(__file__).parents[2] / "parameters" / "README.md"


def test_every_gate_is_in_the_list_of_gates() -> None:
    gates = README.read_text(encoding="utf-8").partition("## Gates")[2]
    listed = set(re.findall(r"^\| `([a-z-]+)`", gates, re.MULTILINE))
    assert listed == set(GATES)
    assert listed == {QUORUM, ACTIVATE, RESET, KILL, DELETE_APP, RESTART, RECREATE, DELETE_TAG, COLLECT}
