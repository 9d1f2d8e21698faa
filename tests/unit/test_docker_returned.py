"""Whether what a restart of Docker ended runs again, before the next host is touched."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from registry_site import site

from runbook.remote.checks import Evidence
from runbook.remote.hosts import Output
from runbook.remote.modes import Mode
from runbook.services.docker import daemon, engine
from runbook.services.docker.daemon import DaemonState, Running
from runbook.services.docker.returned import Before, Tasks

NODE2 = site().hosts[1]
BEFORE = DaemonState(
    installed=True,
    pid=10,
    version="1.11.1",
    containers=(Running("registry", "always", "registry:2.3.0"), Running("mesos-S1.1", "no", "centos:7")),
)
TASKS = Tasks({NODE2.address: frozenset({"app.1"}), "198.51.100.13": frozenset({"app.2"})}, {"/app": 2})


def back(now: DaemonState, after: Tasks, before: DaemonState = BEFORE, tasks: Tasks = TASKS) -> tuple[bool, str]:
    found = Before({"node2": before}, tasks).judged(NODE2, now, lambda: after)
    return found.holds, found.text


def restarted(*names: str) -> DaemonState:
    return replace(BEFORE, pid=20, containers=tuple(Running(name, "always", "registry:2.3.0") for name in names))


NEW = Tasks({"198.51.100.13": frozenset({"app.2", "app.3"})}, {"/app": 2})


@pytest.mark.parametrize(
    ("now", "after", "holds", "text"),
    [
        (restarted("registry"), NEW, True, "and 2 tasks run as before"),
        (BEFORE, TASKS, True, "without a restart"),
        (replace(BEFORE, pid=None), NEW, False, "Docker on node2 does not answer"),
        (restarted(), NEW, False, "registry (registry:2.3.0) did not come back"),
        (restarted("registry"), TASKS, False, "still lists 1 task that"),
        (restarted("registry"), Tasks({}, {"/app": 1}), False, "/app has 1 of 2"),
        (restarted("registry"), Tasks(problem="no leader"), False, "no leader"),
    ],
)
def test_the_next_host_waits_for_docker_containers_and_tasks(
    now: DaemonState, after: Tasks, holds: bool, text: str
) -> None:
    found, said = back(now, after)
    assert found is holds
    assert text in said


@pytest.mark.parametrize(
    ("before", "holds"),
    [
        (BEFORE, False),
        (replace(BEFORE, live_restore=True), True),
        (replace(BEFORE, containers=BEFORE.containers[:1]), True),  # no task's
    ],
)
def test_where_marathon_did_not_tell_no_second_host_loses_its_tasks(before: DaemonState, holds: bool) -> None:
    found, said = back(restarted("registry"), NEW, before, Tasks(problem="no leader"))
    assert found is holds
    assert holds or "mesos-S1.1 ended on node2, and Marathon did not tell" in said


def test_with_live_restore_no_task_ends() -> None:
    holds, _ = back(restarted("registry"), TASKS, before=replace(BEFORE, live_restore=True))
    assert holds


def test_only_docker_tasks_that_run_count() -> None:
    apps = [
        {"id": "/app", "container": {"docker": {"image": "a:1"}}},
        {"id": "/hello", "container": None},
        {"id": "/x"},
    ]
    tasks = [
        {"id": "app.1", "appId": "/app", "host": "a", "startedAt": "2026", "version": "2026"},
        {"id": "app.2", "appId": "/app", "host": "b", "startedAt": None, "version": "2026"},
        {"id": "app.3", "appId": "/app", "host": "c", "startedAt": "2026", "version": "2026", "state": "TASK_LOST"},
        {"id": "hello.1", "appId": "/hello", "host": "a", "startedAt": "2026", "version": "2026"},
    ]
    assert Tasks.read(apps, tasks) == Tasks({"a": frozenset({"app.1"})}, {"/app": 1})


class Hosts:
    """Stands for hosts of which node1 runs nothing; rolling, it asks of each whether it is back, until one is not."""

    mode = Mode.APPLY
    site = site()

    def __init__(self, *names: str) -> None:
        self.names = names
        self.asked: list[tuple[str, bool]] = []

    def __iter__(self) -> Any:
        return iter([host for host in self.site.hosts if host.name in self.names])

    def __len__(self) -> int:
        return len(self.names)

    def only(self, *names: str) -> Hosts:
        chosen = Hosts(*names)
        chosen.asked = self.asked
        return chosen

    def run(self, *_: Any, **__: Any) -> dict[str, Output]:
        busy = Output("container=registry (registry:2.3.0)\n", "", 0)
        return {name: Output("", "", 0) if name == "node1" else busy for name in self.names}

    def apply(self, *_: Any) -> list[Any]:
        assert self.names == ("node1",)
        return []

    def rolling(self, steps: Any, *, until: Any, **_: Any) -> list[Any]:
        for host in self:
            evidence: Evidence = until(host)
            self.asked.append((host.name, evidence.holds))
            if not evidence.holds:
                break
        return []


@pytest.mark.parametrize(
    ("after", "asked"),
    [(Tasks({}, {"/app": 2}), [("node2", True), ("node3", True)]), (Tasks({}, {"/app": 1}), [("node2", False)])],
)
def test_an_upgrade_of_docker_waits_at_each_host_for_what_ran_there(
    monkeypatch: pytest.MonkeyPatch, after: Tasks, asked: list[tuple[str, bool]]
) -> None:
    told, states = iter([TASKS]), iter([BEFORE])
    monkeypatch.setattr(Tasks, "ask", lambda _: next(told, after))
    now = restarted("registry")
    monkeypatch.setattr(daemon, "of", lambda hosts: dict.fromkeys(hosts.names, next(states, now)))
    hosts = Hosts("node1", "node2", "node3")
    engine.restart_gently(hosts, engine.install(hosts.site))  # type: ignore[arg-type]
    assert hosts.asked == asked
