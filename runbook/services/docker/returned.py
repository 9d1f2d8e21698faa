"""Whether what ran on a host before its Docker was restarted runs again (document 7.2: `service docker restart`).

Containers with a restart policy come back with Docker. Marathon's Docker tasks end, and it starts others in their
place, here or elsewhere. The next host is touched once both have happened, so that an app never loses two hosts' worth.
Where Marathon does not tell, nobody knows, and no other host is touched once tasks have ended on one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from runbook.errors import ServiceError
from runbook.remote.checks import Evidence
from runbook.remote.hosts import Hosts
from runbook.services.docker import daemon
from runbook.services.docker.daemon import RETURNING, DaemonState
from runbook.services.marathon.deploy import marathon_of
from runbook.services.marathon.tables import runs
from runbook.site import HostParameters, Site
from runbook.wording import plural

TASK = "mesos-"
"""How the names begin of the containers in which a slave runs tasks, as the document's `docker ps` shows (5.3)."""


@dataclass(frozen=True)
class Tasks:
    """Marathon's Docker tasks at one moment: their ids by the address that they run at, and how many each app has.

    `problem` is why Marathon did not tell.
    """

    at: Mapping[str, frozenset[str]] = field(default_factory=dict)
    running: Mapping[str, int] = field(default_factory=dict)
    problem: str = ""

    @classmethod
    def ask(cls, site: Site) -> Tasks:
        """Ask the site's Marathon. Raises nothing."""
        if not site.having("marathon"):
            return cls()
        try:
            with marathon_of(site) as marathon:
                return cls.read(marathon.apps(), marathon.tasks())
        except ServiceError as error:
            return cls(problem=error.message)

    @classmethod
    def read(cls, apps: list[dict[str, Any]], tasks: list[dict[str, Any]]) -> Tasks:
        """What Marathon answers of its apps and tasks."""
        docker = {app["id"] for app in apps if (app.get("container") or {}).get("docker")}
        at: dict[str, set[str]] = {}
        running = Counter[str]()
        for task in tasks:
            if task["appId"] in docker and runs(task):
                at.setdefault(task["host"], set()).add(task["id"])
                running[task["appId"]] += 1
        return cls({host: frozenset(ids) for host, ids in at.items()}, dict(running))


@dataclass(frozen=True)
class Before:
    """What ran before any Docker was restarted: on each host, by name, and of Marathon's."""

    daemons: Mapping[str, DaemonState]
    tasks: Tasks

    @classmethod
    def ask(cls, site: Site, daemons: Mapping[str, DaemonState]) -> Before:
        """The present state, to be compared with later."""
        return cls(daemons, Tasks.ask(site))

    def back(self, hosts: Hosts, host: HostParameters) -> Evidence:
        """Whether a host's Docker answers, its containers are back, and Marathon has as many tasks as before."""
        return self.judged(host, daemon.of(hosts.only(host.name))[host.name], lambda: Tasks.ask(hosts.site))

    def judged(self, host: HostParameters, now: DaemonState, ask: Callable[[], Tasks]) -> Evidence:
        """The same, from what the host says now; `ask` is called for what Marathon says, where that matters."""
        before = self.daemons[host.name]
        if now.pid is None or not now.version:
            return Evidence(False, f"Docker on {host.name} does not answer{now.problem and f': {now.problem}'}")
        if now.pid == before.pid:
            return Evidence(True, f"Docker on {host.name} took it over without a restart")
        there = {one.name for one in now.containers}
        gone = [one for one in before.containers if one.restart in RETURNING and one.name not in there]
        if gone:
            text = f"{', '.join(map(str, gone))} did not come back on {host.name}"
            return Evidence(False, text, remedy="see `docker ps -a` and `docker logs` there")
        ended = [one.name for one in before.stopped if one.name.startswith(TASK)]
        if self.tasks.problem and ended:
            text = f"{', '.join(ended)} ended on {host.name}, and Marathon did not tell before how many should run"
            remedy = "have Marathon answer (chapter 4), then run again for the hosts that are left"
            return Evidence(False, f"{text}: {self.tasks.problem}", remedy=remedy, hopeless=True)
        if before.live_restore or not self.tasks.running:
            return Evidence(True, f"Docker on {host.name} answers, with {plural(len(there), 'container')}")
        tasks = ask()
        if tasks.problem:
            return Evidence(False, f"Marathon does not tell of its tasks: {tasks.problem}")
        listed = self.tasks.at.get(host.address, frozenset()) & tasks.at.get(host.address, frozenset())
        if listed:
            still = f"Marathon still lists {plural(len(listed), 'task')}"
            return Evidence(False, f"{still} that Docker's restart on {host.name} ended")
        fewer = [
            f"{app} has {tasks.running.get(app, 0)} of {count}"
            for app, count in self.tasks.running.items()
            if tasks.running.get(app, 0) < count
        ]
        if fewer:
            return Evidence(False, "; ".join(fewer), remedy="see Marathon's deployments, and chapter 4's diagnosis")
        again = plural(sum(tasks.running.values()), "task runs", "tasks run")
        return Evidence(True, f"Docker on {host.name} answers, and {again} as before")
