"""The cluster that the contract tests ask, and what was recorded from the real one."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests
from framework import Framework

Json = dict[str, Any]
PAYLOADS = Path(__file__).parents[1] / "payloads" / "mesos-0.28.0"


def recorded(*names: str) -> list[Any]:
    """Recorded answers, by their files' names below tests/payloads/mesos-0.28.0/."""
    return [json.loads((PAYLOADS / name).read_text(encoding="utf-8")) for name in names]


def unique(name: str) -> str:
    """A name that no other run has."""
    return f"{name}-{uuid.uuid4().hex[:12]}"


def is_roomy(offer: Json) -> bool:
    """Whether an offer has room for the tasks of a test; a busy slave offers what others left."""
    amounts = {resource["name"]: resource for resource in offer["resources"]}
    needed = {"cpus": 0.5, "mem": 128}
    scalars = all(amounts.get(name, {}).get("scalar", {}).get("value", 0) >= least for name, least in needed.items())
    return scalars and "ports" in amounts


def answer_to(
    master: str, method: str, path: str, body: str = "", headers: Mapping[str, str] | None = None
) -> tuple[int, dict[str, str], str]:
    """Status, headers (names in lower case, Date left out) and body, of a request with no headers but these."""
    connection = HTTPConnection(urlsplit(master).netloc, timeout=30)
    connection.request(method, path, body or None, dict(headers or {}))
    answer = connection.getresponse()
    found = {name.lower(): value for name, value in answer.getheaders() if name != "Date"}
    text = answer.read().decode()
    connection.close()
    return answer.status, found, text


@dataclass(frozen=True)
class Cluster:
    """The cluster under test."""

    leader: str  # base URLs
    standby: str | None
    slave: str
    zookeeper: str  # host:port,.../path

    @property
    def agent_pid(self) -> str:
        return "slave(1)@" + self.slave.removeprefix("http://")

    @property
    def agent_ip(self) -> str:
        """The IP address by which the slave is registered, which is that of its base URL."""
        return self.agent_pid.partition("@")[2].rpartition(":")[0]

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
    name: str  # the framework's
    agent: str
    running: str
    failed: str
    port: int
    statuses: dict[str, Json]
