"""The cluster that the contract tests ask, and what was recorded from the real one."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests
from framework import Framework

Json = dict[str, Any]
PAYLOADS = Path(__file__).parents[1] / "payloads" / "mesos-0.28.0"


def recorded(*names: str) -> list[Any]:
    """Recorded answers, by their files' names below tests/payloads/mesos-0.28.0/."""
    return [json.loads((PAYLOADS / name).read_text(encoding="utf-8")) for name in names]


@dataclass(frozen=True)
class Cluster:
    """The cluster under test."""

    leader: str  # base URLs
    standby: str | None
    slave: str
    zookeeper: str  # host:port,.../path

    def get(self, path: str) -> requests.Response:
        return requests.get(self.leader + path, timeout=10)

    def leader_json(self, path: str) -> Any:
        answer = self.get(path)
        assert answer.status_code == 200, answer.text
        assert answer.headers["Content-Type"] == "application/json"
        return answer.json()


@dataclass(frozen=True)
class Workload:
    """A framework with a task that runs, one that failed and one that finished, all acknowledged."""

    framework: Framework
    agent: str
    running: str
    failed: str
    port: int
    statuses: dict[str, Json]
