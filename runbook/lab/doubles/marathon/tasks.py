"""One task: what is known of it, on which offer it fits, and what Mesos is told to launch."""

import random
import re
import uuid
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

from ..mesos.resources import Resources, show_attribute
from .apps import Json, config_version, port_mappings, timestamp

TERMINAL = ("TASK_FINISHED", "TASK_FAILED", "TASK_KILLED", "TASK_LOST", "TASK_ERROR")
KEPT = ("id", "app_id", "version", "host", "slave_id", "attributes", "ports", "staged_at", "started_at", "addresses")


@dataclass
class Health:
    """What one health check found of one task; times as Marathon shows them."""

    answered: bool = False  # whether it was made at all, be its failure ignored in the grace period
    alive: bool = False
    consecutive_failures: int = 0
    first_success: str | None = None
    last_success: str | None = None
    last_failure: str | None = None
    last_failure_cause: str | None = None
    since: float = 0.0  # by the monotonic clock, as is the next
    next_due: float = 0.0

    def to_json(self, task_id: str) -> Json:
        return {
            "alive": self.alive,
            "consecutiveFailures": self.consecutive_failures,
            "firstSuccess": self.first_success,
            "lastFailure": self.last_failure,
            "lastFailureCause": self.last_failure_cause,
            "lastSuccess": self.last_success,
            "taskId": task_id,
        }


@dataclass
class Task:
    id: str
    app_id: str
    version: str  # of the app's definition
    host: str
    slave_id: str
    attributes: dict[str, str]  # of the slave, for constraints
    ports: list[int]
    staged_at: str
    started_at: str | None = None  # None: it does not run yet
    addresses: list[str] = field(default_factory=list)
    health: list[Health] = field(default_factory=list)
    since: float = 0.0  # when it was launched or taken over, by the monotonic clock
    killed_at: float | None = None  # when it was last told to end

    @property
    def live(self) -> bool:
        """Whether it counts as an instance: it is not on its way out."""
        return self.killed_at is None

    def healthy(self, app: Json) -> bool:
        """Whether it runs, and every health check of its app says that it is alive."""
        if self.started_at is None or len(self.health) < len(app["healthChecks"]):
            return False
        return all(health.alive for health in self.health)

    def current(self, app: Json) -> bool:
        """Whether it is of the app's present definition, scaling apart."""
        return self.version >= config_version(app)

    def kept(self) -> Json:
        """What outlives the instance that leads; read back by `Task(**kept)`."""
        return {name: value for name, value in asdict(self).items() if name in KEPT}

    def unhealthy(self) -> bool:
        """Whether a health check was made that does not say that it is alive."""
        return any(health.answered and not health.alive for health in self.health)

    def to_json(self, service_ports: list[int] | None = None) -> Json:
        """As apps and lists of tasks show it; the service ports are in `GET /v2/tasks` only (EnrichedTaskWrites)."""
        shown = {**self.bare(), "appId": self.app_id}
        if service_ports:
            shown["servicePorts"] = service_ports
        if results := [health.to_json(self.id) for health in self.health if health.answered]:
            shown["healthCheckResults"] = results
        return shown

    def bare(self) -> Json:
        """As a DELETE of it answers (TaskWrites)."""
        return {
            "id": self.id,
            "slaveId": self.slave_id,
            "host": self.host,
            "startedAt": self.started_at,
            "stagedAt": self.staged_at,
            "ports": self.ports,
            "version": self.version,
            "ipAddresses": [{"ipAddress": address, "protocol": "IPv4"} for address in self.addresses],
        }


class Offer:
    """An offer, and what is left of it while tasks are matched to it."""

    def __init__(self, offer: Json) -> None:
        self.id: str = offer["id"]["value"]
        self.slave_id: str = offer["agent_id"]["value"]
        self.host: str = offer["hostname"]
        self.attributes = {a["name"]: str(show_attribute(a)) for a in offer.get("attributes", [])}
        self.left = Resources.from_api(offer["resources"])
        self.launches: list[Json] = []

    def place(self, app: Json, others: Iterable[Task]) -> Task | None:
        """A new task of an app whose `others` live already, taken off this offer; None where it does not fit."""
        ports = self._ports(app)
        if ports is None:
            return None
        wanted = _resources(app, ports)
        needed = Resources.from_api(wanted)
        others = list(others)
        if not self.left.contains(needed) or not all(self._meets(c, others) for c in app["constraints"]):
            return None
        self.left = self.left - needed
        task_id = f"{app['id'].strip('/').replace('/', '_')}.{uuid.uuid1()}"
        version = app["version"]
        task = Task(task_id, app["id"], version, self.host, self.slave_id, self.attributes, ports, timestamp())
        self.launches.append(_task_info(app, task, wanted))
        return task

    def _ports(self, app: Json) -> list[int] | None:
        """The host ports that a task would get here, in the order of its mappings or ports."""
        free = {port for begin, end in self.left.ranges.get("ports", ()) for port in range(begin, end + 1)}
        mappings = port_mappings(app)
        if mappings is not None:
            asked = [mapping["hostPort"] for mapping in mappings]
        else:
            asked = [port if app["requirePorts"] else 0 for port in app["ports"]]
        free -= set(asked)
        if len(free) < asked.count(0):
            return None
        found = iter(random.sample(sorted(free), asked.count(0)))
        return [port or next(found) for port in asked]

    def _meets(self, constraint: list[str], others: list[Task]) -> bool:
        name, operator, value = [*constraint, ""][:3]
        here = self.host if name == "hostname" else self.attributes.get(name)
        if here is None:
            return operator == "UNLIKE"
        there = [task.host if name == "hostname" else task.attributes.get(name) for task in others]
        if operator == "UNIQUE":
            return here not in there
        if operator == "CLUSTER":
            return value in ("", here) and all(other == here for other in there)
        if operator == "GROUP_BY":
            groups = Counter(there)
            groups_wanted = int(value) if value.isdigit() else 0
            return here not in groups or (len(groups) >= groups_wanted and groups[here] == min(groups.values()))
        return bool(re.fullmatch(value, here)) == (operator == "LIKE")


def _resources(app: Json, ports: list[int]) -> list[Json]:
    scalars = {"cpus": app["cpus"], "mem": app["mem"], "disk": app["disk"]}
    found: list[Json] = [
        {"name": name, "type": "SCALAR", "scalar": {"value": value}} for name, value in scalars.items() if value
    ]
    if ports:
        ranges = [{"begin": port, "end": port} for port in sorted(ports)]
        found.append({"name": "ports", "type": "RANGES", "ranges": {"range": ranges}})
    return found


def _task_info(app: Json, task: Task, resources: list[Json]) -> Json:
    name = ".".join(reversed(app["id"].strip("/").split("/")))
    command: Json = {"shell": bool(app["cmd"]), "environment": {"variables": _variables(app, task)}}
    if app["cmd"]:
        command["value"] = app["cmd"]
    elif app["args"]:
        command["arguments"] = app["args"]
        if not app["container"]:
            command["value"] = app["args"][0]  # TaskBuilder.scala
    if app["fetch"]:
        command["uris"] = [_uri(entry) for entry in app["fetch"]]
    if app["user"]:
        command["user"] = app["user"]
    info: Json = {
        "name": name,
        "task_id": {"value": task.id},
        "agent_id": {"value": task.slave_id},
        "resources": resources,
        "command": command,
        "discovery": {
            "visibility": "FRAMEWORK",
            "name": name,
            "ports": {"ports": [{"number": port, "protocol": "tcp"} for port in task.ports]},
        },
    }
    if app["labels"]:
        info["labels"] = {"labels": [{"key": key, "value": value} for key, value in app["labels"].items()]}
    if app["container"]:
        info["container"] = _container_info(app, task)
    return info


def _uri(entry: Json) -> Json:
    return {"value": entry["uri"]} | {k: entry[k] for k in ("extract", "executable", "cache") if k in entry}


def _container_info(app: Json, task: Task) -> Json:
    container = app["container"]
    info: Json = {"type": container["type"]}
    if volumes := container["volumes"]:
        info["volumes"] = [
            {"container_path": volume["containerPath"], "mode": volume["mode"]}
            | ({"host_path": volume["hostPath"]} if volume.get("hostPath") else {})
            for volume in volumes
        ]
    if docker := container.get("docker"):
        info["docker"] = {
            "image": docker["image"],
            "privileged": docker["privileged"],
            "parameters": docker["parameters"],
            "force_pull_image": docker["forcePullImage"],
        }
        if docker.get("network"):
            info["docker"]["network"] = docker["network"]
        if mappings := port_mappings(app):
            info["docker"]["port_mappings"] = [
                {"host_port": port, "container_port": mapping["containerPort"] or port, "protocol": mapping["protocol"]}
                for mapping, port in zip(mappings, task.ports, strict=True)
            ]
    return info


def _variables(app: Json, task: Task) -> list[Json]:
    """The environment of 'Task Environment Variables'; the app's own has the last word."""
    mappings = port_mappings(app)
    declared = app["ports"] if mappings is None else [mapping["containerPort"] for mapping in mappings]
    found: dict[str, Any] = {
        "MARATHON_APP_ID": app["id"],
        "MARATHON_APP_VERSION": app["version"],
        "MARATHON_APP_RESOURCE_CPUS": float(app["cpus"]),
        "MARATHON_APP_RESOURCE_MEM": float(app["mem"]),
        "MARATHON_APP_RESOURCE_DISK": float(app["disk"]),
        "MARATHON_APP_LABELS": " ".join(re.sub(r"\W+", "_", key).upper() for key in app["labels"]),
        "MESOS_TASK_ID": task.id,
        "HOST": task.host,
    }
    found |= {f"MARATHON_APP_LABEL_{re.sub(r'[^A-Z0-9_]+', '_', k.upper())}": v for k, v in app["labels"].items()}
    if (app["container"] or {}).get("docker"):
        found["MARATHON_APP_DOCKER_IMAGE"] = app["container"]["docker"]["image"]
    for number, port in enumerate(task.ports):
        found[f"PORT{number}"] = port
    found |= {f"PORT_{name}": port for name, port in zip(declared, task.ports, strict=False) if name}
    if task.ports:
        found |= {"PORT": task.ports[0], "PORTS": ",".join(map(str, task.ports))}
    return [{"name": name, "value": str(value)} for name, value in (found | app["env"]).items()]
