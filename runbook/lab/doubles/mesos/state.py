"""What an elected master knows: slaves, frameworks, offers, and the resources that are free."""

import threading
import time
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from .cluster import Task
from .http import EventStream
from .resources import Resources

Json = dict[str, Any]


@dataclass
class Slave:
    """A registered slave. Its stream is the connection over which the master speaks to it."""

    id: str
    info: Json  # hostname, ip, port, resources, attributes
    registered_time: float
    stream: EventStream
    reregistered_time: float | None = None
    connected: bool = True
    next_ping: float = 0.0  # by the monotonic clock
    unanswered: int = 0  # pings in a row
    tasks: dict[tuple[str, str], Task] = field(default_factory=dict)  # by framework and task id

    @property
    def pid(self) -> str:
        return f"slave(1)@{self.info['ip']}:{self.info['port']}"

    @property
    def total(self) -> Resources:
        return Resources.from_api(self.info["resources"])

    @property
    def used(self) -> Resources:
        return total_of(task for task in self.tasks.values() if not task.terminal)

    def __str__(self) -> str:
        return f"{self.id} at {self.pid} ({self.info['hostname']})"


@dataclass
class Offer:
    id: str
    framework_id: str
    slave: Slave
    resources: Resources


@dataclass
class Framework:
    """A framework that subscribed; without a stream it has `failover_timeout` seconds to return."""

    id: str
    info: Json
    registered_time: float
    stream: EventStream | None = None
    stream_id: str = ""
    reregistered_time: float | None = None
    unregistered_time: float = 0.0
    gives_up: float | None = None  # by the monotonic clock
    suppressed: bool = False
    next_heartbeat: float = 0.0
    filters: list[tuple[str, Resources, float]] = field(default_factory=list)  # slave id, refused, until
    tasks: dict[str, Task] = field(default_factory=dict)
    completed: deque[Task] = field(default_factory=deque)

    @property
    def used(self) -> Resources:
        return total_of(task for task in self.tasks.values() if not task.terminal)

    def send(self, kind: str, **content: object) -> None:
        """Send an event, where the framework is connected."""
        if self.stream:
            self.stream.send({"type": kind, **content})

    def refuses(self, slave_id: str, free: Resources) -> bool:
        """Whether a filter that is still in force covers what could be offered of a slave."""
        now = time.monotonic()
        self.filters = [entry for entry in self.filters if entry[2] > now]
        return any(slave == slave_id and refused.contains(free) for slave, refused, _ in self.filters)

    def __str__(self) -> str:
        return f"{self.id} ({self.info['name']})"


@dataclass
class Cluster:
    """All of it. Whoever reads or writes holds `lock`."""

    max_completed_frameworks: int
    max_completed_tasks: int
    lock: threading.RLock = field(default_factory=threading.RLock)
    slaves: dict[str, Slave] = field(default_factory=dict)
    removed: set[str] = field(default_factory=set)  # ids of slaves that may not come back
    recovered: dict[str, Json] = field(default_factory=dict)  # from the registry, not yet re-registered
    frameworks: dict[str, Framework] = field(default_factory=dict)
    completed: deque[Framework] = field(default_factory=deque)
    offers: dict[str, Offer] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)  # of metrics, by name without `master/`
    numbers: Counter[str] = field(default_factory=Counter)  # ids given out, by kind

    def next_number(self, kind: str) -> int:
        self.numbers[kind] += 1
        return self.numbers[kind] - 1

    def offered(self, slave_id: str | None = None, framework_id: str | None = None) -> Resources:
        """What is on offer, of one slave or to one framework."""
        found = Resources.none()
        for offer in self.offers.values():
            if slave_id in (None, offer.slave.id) and framework_id in (None, offer.framework_id):
                found = found + offer.resources
        return found

    def orphans(self) -> Iterator[Task]:
        """Tasks that run for frameworks which have not subscribed since the failover."""
        for slave in self.slaves.values():
            for task in slave.tasks.values():
                if task.framework_id not in self.frameworks:
                    yield task

    def forget(self, task: Task) -> None:
        """Take a task whose end is known to everybody out of the live ones."""
        slave = self.slaves.get(task.slave_id)
        if slave:
            slave.tasks.pop((task.framework_id, task.id), None)
        framework = self.frameworks.get(task.framework_id)
        if framework and framework.tasks.pop(task.id, None):
            framework.completed.append(task)
            while len(framework.completed) > self.max_completed_tasks:
                framework.completed.popleft()

    def rescind(self, offer: Offer, tell: bool = True) -> None:
        """Take an offer back."""
        del self.offers[offer.id]
        framework = self.frameworks.get(offer.framework_id)
        if tell and framework:
            framework.send("RESCIND", rescind={"offer_id": {"value": offer.id}})


def total_of(tasks: Iterator[Task]) -> Resources:
    found = Resources.none()
    for task in tasks:
        found = found + task.resources
    return found
