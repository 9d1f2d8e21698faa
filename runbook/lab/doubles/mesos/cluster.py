"""Tasks and their updates, as master and slave both keep them."""

import base64
import time
import uuid
from dataclasses import dataclass, field
from typing import Any

from .resources import Resources

Json = dict[str, Any]
LIVE = ("TASK_STAGING", "TASK_STARTING", "TASK_RUNNING", "TASK_KILLING")
TERMINAL = ("TASK_FINISHED", "TASK_KILLED", "TASK_FAILED", "TASK_LOST", "TASK_ERROR")
STATES = LIVE + TERMINAL


@dataclass
class Task:
    """A task: its TaskInfo of the scheduler API, and what became of it."""

    info: Json
    framework_id: str
    state: str = "TASK_STAGING"
    statuses: list[Json] = field(default_factory=list)

    @property
    def id(self) -> str:
        return str(self.info["task_id"]["value"])

    @property
    def slave_id(self) -> str:
        return str(self.info["agent_id"]["value"])

    @property
    def resources(self) -> Resources:
        return Resources.from_api(self.info.get("resources", []))

    @property
    def terminal(self) -> bool:
        return self.state in TERMINAL

    def update(self, status: Json) -> None:
        """Note a status; a terminal state is never left again."""
        if not self.terminal:
            self.state = status["state"]
        self.statuses.append(status)

    def to_state(self) -> Json:
        """The task as `/state` shows it: no message, no reason."""
        shown = {
            "id": self.id,
            "name": self.info["name"],
            "framework_id": self.framework_id,
            "executor_id": "",
            "slave_id": self.slave_id,
            "state": self.state,
            "resources": self.resources.to_state(),
            "statuses": [_shown_status(status) for status in self.statuses],
        }
        if "discovery" in self.info:
            shown["discovery"] = self.info["discovery"]
        if "labels" in self.info:
            shown["labels"] = self.info["labels"].get("labels", [])
        if "container" in self.info:
            shown["container"] = _shown_container(self.info["container"])
        return shown

    def to_wire(self) -> Json:
        """What the other daemon needs to know this task after a failover; read back by `Task(**wire)`."""
        known = {"info": self.info, "framework_id": self.framework_id}
        return known | {"state": self.state, "statuses": self.statuses}


def _shown_container(container: Json) -> Json:
    """A ContainerInfo as protobuf shows it: with the defaults of its fields, without empty lists."""
    shown = {name: value for name, value in container.items() if value != []}
    if "docker" in shown:
        docker = {"network": "HOST", "privileged": False} | shown["docker"]
        shown["docker"] = {name: value for name, value in docker.items() if value != []}
    return shown


def _shown_status(status: Json) -> Json:
    shown = {key: status[key] for key in ("state", "timestamp", "container_status", "healthy") if key in status}
    if "labels" in status:
        shown["labels"] = status["labels"]["labels"]
    return shown


def make_status(task_id: str, state: str, source: str, **more: object) -> Json:
    """A TaskStatus of the scheduler API; keys whose value is None are left out.

    `source` is SOURCE_MASTER, SOURCE_AGENT or SOURCE_EXECUTOR; those of a slave get a uuid, for the acknowledgement.
    """
    status: Json = {"task_id": {"value": task_id}, "state": state, "source": source, "timestamp": now()}
    if source != "SOURCE_MASTER":
        status["uuid"] = base64.b64encode(uuid.uuid4().bytes).decode()
    return status | {key: value for key, value in more.items() if value is not None}


def now() -> float:
    """The present in seconds, with Mesos' five decimals."""
    return round(time.time(), 5)
