"""What real Mesos 0.28.0 answered and logged (see tests/payloads/README.md)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from runbook.services.mesos import Election

_RECORDED = Path(__file__).parent.parent / "payloads" / "mesos-0.28.0"


def text(name: str) -> str:
    """A recorded file as text: `three-masters/leader_state.json`."""
    return (_RECORDED / name).read_text(encoding="utf-8")


def payload(name: str) -> Any:
    """A recorded JSON answer."""
    return json.loads(text(name))


def znodes(below: str) -> dict[str, bytes]:
    """The recorded children of a znode by name, with their data."""
    return {
        node["path"].rpartition("/")[2]: node["data_utf8"].encode()
        for node in payload("three-masters/zookeeper_mesos.json")
        if node["path"].rpartition("/")[0] == below
    }


def election() -> Election:
    """The recorded election: three masters, 127.0.0.1:15050 leads, three log replicas."""
    return Election.parse(znodes("/mesos"), znodes("/mesos/log_replicas"))


def section(heading: str) -> list[str]:
    """The lines below a heading of KEY-LOG-LINES.log."""
    _, _, after = text("three-masters/KEY-LOG-LINES.log").partition(f"### {heading}\n")
    assert after, heading
    return after.partition("\n###")[0].splitlines()
