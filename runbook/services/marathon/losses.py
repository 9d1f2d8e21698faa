"""Hosts that are lost, the tasks that were on them, and where those are now.

There is no history to look into, so this is read from what Mesos and Marathon still know: the leader of Mesos lists the
slaves that are there, and the tasks that ended as lost (up to 1000 a framework, until another master leads); Marathon
lists the tasks that it started since. A task does not say on which host it was, only the slave's id, which Mesos
forgets with the slave: the host is found by the task's address, or by what Marathon says of the app's last failure.

Sources: recorded from Mesos 0.28.0 (tests/payloads); the task ids of Marathon.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pandas as pd

from runbook.remote.checks import Evidence
from runbook.services.marathon.apps import App, app_of_task
from runbook.services.marathon.tables import is_instance, seconds, task_state
from runbook.services.mesos.checks import Registrations
from runbook.services.mesos.client import State
from runbook.services.mesos.tables import TERMINAL
from runbook.site import Site

Task = Mapping[str, Any]
GONE = frozenset({"TASK_LOST", "TASK_UNREACHABLE", "TASK_GONE", "TASK_GONE_BY_OPERATOR", "TASK_DROPPED"})
"""States of a task that went with its slave; all but the first are those of Mesos from 1.2 on."""
SKEW = 5.0
"""Seconds by which the clocks of Mesos' and Marathon's leaders may differ."""
COLUMNS = ["app", "task", "was on", "since (UTC)", "is on", "task there"]


@dataclass(frozen=True)
class Loss:
    """A task that is lost with its host, or will be: what it was, where, since when, and what replaced it."""

    app: str
    task: str
    host: str
    at: float | None = None
    """Seconds since 1970; None while Mesos still counts the task as running there."""
    replacement: Task | None = None


@dataclass(frozen=True)
class Losses:
    """The hosts that are lost, each with how one knows, and the tasks that were there."""

    hosts: Mapping[str, str]
    tasks: tuple[Loss, ...]
    names: Mapping[str, str] = field(repr=False, default_factory=dict)
    """Host names by address."""

    @classmethod
    def of(
        cls,
        site: Site,
        registrations: Registrations,
        apps: Iterable[App],
        tasks: Iterable[Task],
        silent: Iterable[str] = (),
    ) -> Losses:
        """From what Mesos' leader says (`registrations` with its state), and Marathon's apps and tasks; pure.

        `silent`: hosts that nothing is heard from otherwise (over SSH).
        """
        assert registrations.state is not None
        lost = {}
        for host in registrations.addresses:
            entry = registrations.entries.get(host)
            if entry is None:
                lost[host] = "no slave of it is registered with Mesos' leader"
            elif not entry["active"]:
                lost[host] = f"its slave {entry['id']} does not answer: Mesos gives it up after 75 s"
            elif host in silent:
                lost[host] = "it does not answer over SSH, though Mesos still counts its slave"
        names = {address.rpartition(":")[0]: host for host, address in registrations.addresses.items()}
        names |= site.names
        tasks = list(tasks)
        found = sorted(
            _lost_tasks(registrations.state, names, list(apps), tasks, lost),
            key=lambda loss: loss.at or float("inf"),
        )
        return cls(lost, tuple(_replaced(found, tasks)), names)

    def evidence(self) -> Evidence:
        """4.3: whether every host that runs tasks is there; else the table shows what became of a lost one's tasks."""
        if not self.hosts:
            return Evidence(True, "the slave of every host is registered and active")
        told = []
        for host, how in self.hosts.items():
            mine = [loss for loss in self.tasks if loss.host == host]
            moved, counted = sum(loss.replacement is not None for loss in mine), sum(loss.at is None for loss in mine)
            tasks = f"{_tasks_were(len(mine))} there, {moved} replaced elsewhere" if mine else "no task was there"
            tasks += f", {counted} not given up by Mesos yet" if counted else ""
            told.append(f"{host} is lost ({how}): {tasks}")
        remedy = (
            "start the host, or see why its slave does not run (3.2); what Marathon started elsewhere stays there. "
            "Mesos gives a silent slave up after 75 s, a leader elected since after 10 min (slave_reregister_timeout). "
            "A host that is gone for good: take it out of the parameters"
        )
        return Evidence(False, "; ".join(told), self.table(), remedy)

    def table(self) -> pd.DataFrame:
        """A row for each task that was on a lost host: where it was, and where its app's next task is."""
        return pd.DataFrame([self._row(loss) for loss in self.tasks], columns=COLUMNS)

    def _row(self, loss: Loss) -> tuple[str, ...]:
        if loss.at is None:
            since, now = "", "– counted there still"
        else:
            since, now = f"{datetime.fromtimestamp(loss.at, UTC):%Y-%m-%d %H:%M:%S}", "– waits for a place"
        there = loss.replacement
        if there is None:
            return loss.app, loss.task, loss.host, since, now, ""
        ports = ", ".join(map(str, there.get("ports") or ()))
        place = f"{self.names.get(str(there['host']), str(there['host']))}:{ports} ({task_state(there)})"
        return loss.app, loss.task, loss.host, since, place, str(there["id"])


def _tasks_were(count: int) -> str:
    return "1 task was" if count == 1 else f"{count} tasks were"


def _lost_tasks(
    state: State, names: Mapping[str, str], apps: list[App], tasks: list[Task], lost: Mapping[str, str]
) -> Iterator[Loss]:
    """The tasks of Marathon that were on lost hosts: by Mesos' state, its last failures, and its own list."""
    slaves = {slave["id"]: names.get(slave["hostname"], slave["hostname"]) for slave in state["slaves"]}
    failures = [
        {**failure, "host": names.get(failure["host"], failure["host"])}
        for app in apps
        if (failure := app.get("lastTaskFailure"))
    ]
    places = {failure["slaveId"]: failure["host"] for failure in failures if failure.get("slaveId")}
    told = set()
    for task in _tasks(state):
        gone, live = task["state"] in GONE, task["state"] not in TERMINAL
        app = app_of_task(task["id"])
        if app is None or not (gone or live):
            continue
        host = slaves.get(task["slave_id"]) or _by_address(task, names) or places.get(task["slave_id"])
        if host is None and gone and len(lost) == 1:
            (host,) = lost  # whose slave else would Mesos have forgotten
        if host is not None and host in lost:
            told.add(task["id"])
            yield Loss(app, task["id"], host, _last_report(task) if gone else None)
    for failure in failures:
        if failure["state"] in GONE and failure["taskId"] not in told and failure["host"] in lost:
            told.add(failure["taskId"])
            yield Loss(failure["appId"], failure["taskId"], failure["host"], seconds(failure["timestamp"]))
    for task in tasks:  # of which a new leader of Mesos knows nothing until the slave comes back
        host = names.get(task["host"], task["host"])
        if host in lost and task["id"] not in told:
            yield Loss(task["appId"], task["id"], host)


def _tasks(state: State) -> Iterator[Task]:
    for framework in state["frameworks"]:
        for kind in ("tasks", "unreachable_tasks", "completed_tasks"):
            yield from framework.get(kind, ())


def _by_address(task: Task, names: Mapping[str, str]) -> str | None:
    """The host whose address a task reported as its own: true of what shares its host's network."""
    for report in task.get("statuses") or ():
        for network in (report.get("container_status") or {}).get("network_infos", ()):
            for address in network.get("ip_addresses", (network,)):
                if address.get("ip_address") in names:
                    return names[address["ip_address"]]
    return None


def _last_report(task: Task) -> float:
    return float(max((report["timestamp"] for report in task.get("statuses") or ()), default=0.0))


def _replaced(losses: list[Loss], tasks: list[Task]) -> Iterator[Loss]:
    """Each loss with the task of its app that was started since, the oldest for the oldest."""
    started = sorted(filter(is_instance, tasks), key=lambda task: seconds(task.get("stagedAt")) or 0.0)
    for loss in losses:
        fitting = (
            task
            for task in started
            if loss.at is not None
            and task["appId"] == loss.app
            and task["id"] != loss.task
            and (seconds(task.get("stagedAt")) or 0.0) >= loss.at - SKEW
        )
        replacement = next(fitting, None)
        if replacement is not None:
            started.remove(replacement)
        yield Loss(loss.app, loss.task, loss.host, loss.at, replacement)
