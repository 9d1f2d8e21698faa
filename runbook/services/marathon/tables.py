"""Marathon's state as pandas DataFrames, with the same typed columns whether they are full or empty.

As in `mesos.tables`: text is `string`, amounts are `float64` (CPUs, MB), counts `Int64`, truths `boolean`, times
`datetime64[ns, UTC]`; what is not known is `<NA>` or `NaT`. Environments are left out: they may hold secrets.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

import pandas as pd

from runbook.services.marathon.client import InstanceView
from runbook.services.mesos.tables import Schema, typed_table

_TIME = "datetime64[ns, UTC]"

STARTED = frozenset({"running", "healthy", "unhealthy"})
"""The states in `tasks_table` of tasks that run."""

_LIVE = frozenset({"TASK_STAGING", "TASK_STARTING", "TASK_RUNNING", "TASK_KILLING"})

APPS: Schema = {
    "app": "string",
    "instances": "Int64",  # wanted
    "running": "Int64",
    "staged": "Int64",
    "healthy": "Int64",  # <NA>: it has no health checks
    "unhealthy": "Int64",
    "cpus": "float64",
    "mem": "float64",
    "image": "string",
    "cmd": "string",
    "version": _TIME,
    "deployment": "string",
    "last_failure": "string",
    "failed": _TIME,
}

TASKS: Schema = {
    "app": "string",
    "task": "string",
    "host": "string",
    "ports": "string",
    "state": "string",  # staging, running, healthy, unhealthy, or why it is no instance
    "staged": _TIME,
    "started": _TIME,
    "version": _TIME,
    "slave_id": "string",
    "problem": "string",  # why a health check fails
}

DEPLOYMENTS: Schema = {
    "deployment": "string",
    "apps": "string",
    "step": "Int64",
    "steps": "Int64",
    "action": "string",
    "started": _TIME,
}

QUEUE: Schema = {
    "app": "string",
    "waiting": "Int64",  # tasks to be launched
    "delay": "float64",  # seconds until the next attempt, after failures
    "cpus": "float64",
    "mem": "float64",
}

INSTANCES: Schema = {
    "instance": "string",
    "address": "string",
    "answers": "boolean",
    "version": "string",
    "leads": "boolean",
    "names": "string",
    "framework_id": "string",
    "problem": "string",
}


def apps_table(apps: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """The apps, with how many tasks each wants and has, and why one failed last."""
    apps = list(apps)
    failures: list[Mapping[str, Any]] = [app.get("lastTaskFailure") or {} for app in apps]
    checked = [bool(app.get("healthChecks")) for app in apps]
    return typed_table(
        APPS,
        {
            "app": [app["id"] for app in apps],
            "instances": [app.get("instances") for app in apps],
            "running": [app.get("tasksRunning") for app in apps],
            "staged": [app.get("tasksStaged") for app in apps],
            "healthy": [app.get("tasksHealthy") if has else None for app, has in zip(apps, checked, strict=True)],
            "unhealthy": [app.get("tasksUnhealthy") if has else None for app, has in zip(apps, checked, strict=True)],
            "cpus": [app.get("cpus") for app in apps],
            "mem": [app.get("mem") for app in apps],
            "image": [((app.get("container") or {}).get("docker") or {}).get("image") for app in apps],
            "cmd": [app.get("cmd") for app in apps],
            "version": [seconds(app.get("version")) for app in apps],
            "deployment": [", ".join(one["id"] for one in app.get("deployments", ())) or None for app in apps],
            "last_failure": [_failure(failure) for failure in failures],
            "failed": [seconds(failure.get("timestamp")) for failure in failures],
        },
    )


def tasks_table(tasks: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """The tasks: where each runs, at which ports, and how it is."""
    tasks = list(tasks)
    return typed_table(
        TASKS,
        {
            "app": [task["appId"] for task in tasks],
            "task": [task["id"] for task in tasks],
            "host": [task["host"] for task in tasks],
            "ports": [", ".join(map(str, task.get("ports") or ())) for task in tasks],
            "state": [task_state(task) for task in tasks],
            "staged": [seconds(task.get("stagedAt")) for task in tasks],
            "started": [seconds(task.get("startedAt")) for task in tasks],
            "version": [seconds(task.get("version")) for task in tasks],
            "slave_id": [task.get("slaveId") for task in tasks],
            "problem": [unhealthy_because(task) for task in tasks],
        },
    )


def deployments_table(deployments: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """The deployments under way, and what each does at the moment. From 1.4 on `apps` may name pods, too."""
    deployments = list(deployments)
    return typed_table(
        DEPLOYMENTS,
        {
            "deployment": [one["id"] for one in deployments],
            "apps": [", ".join([*one["affectedApps"], *one.get("affectedPods", ())]) for one in deployments],
            "step": [one["currentStep"] for one in deployments],
            "steps": [one["totalSteps"] for one in deployments],
            "action": [", ".join(action["action"] for action in one["currentActions"]) for one in deployments],
            "started": [seconds(one["version"]) for one in deployments],
        },
    )


def queue_table(queue: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """What waits to be launched, and for how long after failures."""
    queue = list(queue)
    return typed_table(
        QUEUE,
        {
            "app": [item["app"]["id"] for item in queue],
            "waiting": [item["count"] for item in queue],
            "delay": [item["delay"]["timeLeftSeconds"] for item in queue],
            "cpus": [item["app"].get("cpus") for item in queue],
            "mem": [item["app"].get("mem") for item in queue],
        },
    )


def instances_table(views: Iterable[InstanceView]) -> pd.DataFrame:
    """Each instance by what it answers, or the problem that was met. `names` is the leader that it knows."""
    views = list(views)
    return typed_table(
        INSTANCES,
        {
            "instance": [view.name for view in views],
            "address": [view.address for view in views],
            "answers": [view.problem is None for view in views],
            "version": [view.version for view in views],
            "leads": [view.leader == view.address if view.leader else None for view in views],
            "names": [view.leader for view in views],
            "framework_id": [view.framework_id for view in views],
            "problem": [view.problem for view in views],
        },
    )


def task_state(task: Mapping[str, Any]) -> str:
    """`staging`, `running`, and where it has health checks `healthy` or `unhealthy`.

    Marathon 1.1 does not tell the state itself. Of a task that is no instance (`is_instance`) it is what later ones
    tell: `lost`, `unreachable`, ….
    """
    if task.get("state", "TASK_RUNNING") not in _LIVE:
        return str(task["state"]).removeprefix("TASK_").lower()
    if not task.get("startedAt"):
        return "staging"
    results = [result for result in task.get("healthCheckResults") or () if result]
    if not results:
        return "running"
    return "healthy" if all(result["alive"] for result in results) else "unhealthy"


def is_instance(task: Mapping[str, Any]) -> bool:
    """Whether a task counts as an instance of its app, be it only being started.

    Marathon 1.1.2 and later keep a task that went with its host for a while, beside the one that replaced it; from 1.2
    on reservations are listed as well, which have no version.
    """
    return bool(task.get("version")) and task.get("state", "TASK_RUNNING") in _LIVE


def runs(task: Mapping[str, Any]) -> bool:
    """Whether a task is an instance that has started."""
    return is_instance(task) and bool(task.get("startedAt"))


def unhealthy_because(task: Mapping[str, Any]) -> str | None:
    """Why a task's health check fails; None where none does, or none was made yet."""
    results = [result for result in task.get("healthCheckResults") or () if result and not result["alive"]]
    causes = [str(result.get("lastFailureCause") or "no answer yet") for result in results]
    return "; ".join(causes) or None


def seconds(time: str | None) -> float | None:
    """A time as Marathon writes it (ISO 8601) in seconds since 1970."""
    return None if not time else datetime.fromisoformat(time).timestamp()


def _failure(failure: Mapping[str, Any]) -> str | None:
    if not failure:
        return None
    message = failure.get("message") or "it does not say why"
    return f"{failure.get('state', 'TASK_FAILED')} on {failure.get('host', '?')}: {message}"
