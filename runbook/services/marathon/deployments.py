"""A deployment, followed to its end: how far it is, and why it gets no further.

A deployment of Marathon does not fail by itself: it goes on trying until somebody cancels it. So whoever follows one
sets a deadline, and after it is told what keeps it (`explain`): no slave that an instance fits on, tasks that fail,
tasks that are not healthy, an image that is still being fetched.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from runbook.errors import DeploymentFailed, ServiceError
from runbook.services.findings import Finding, Findings
from runbook.services.marathon.apps import App, app_id
from runbook.services.marathon.client import Change, Marathon
from runbook.services.marathon.fit import fit_table
from runbook.services.marathon.tables import is_instance, seconds, task_state, unhealthy_because
from runbook.services.mesos.diagnose import diagnose
from runbook.wording import plural

INTERVAL = 0.5  # seconds between two looks


@dataclass(frozen=True)
class Progress:
    """How far a deployment is. `step` of `steps` counts from 1; `action` is what Marathon does in it.

    `running`, `healthy` and `staging` count tasks of the wanted definition, `old` those of earlier ones, or of an app
    that is deleted (`instances` is None then). `healthy` is None where the app has no health checks. `waiting` are the
    tasks that no slave was found for, `delay` the seconds until the next attempt after failures, and `failure` the last
    one since the deployment began.
    """

    app_id: str
    deployment: str
    step: int = 0
    steps: int = 0
    action: str = ""
    instances: int | None = None
    running: int = 0
    healthy: int | None = None
    staging: int = 0
    old: int = 0
    waiting: int = 0
    delay: float = 0.0
    failure: str | None = None
    done: bool = False
    seconds: float = 0.0

    def __str__(self) -> str:
        where = "done" if self.done else f"step {self.step}/{self.steps} {self.action}" if self.steps else "beginning"
        if self.instances is None:
            return f"{where}: {plural(self.old, 'task')} left" if self.steps or self.done else where
        parts = [f"{self.running} of {self.instances} running"]
        parts += [] if self.healthy is None else [f"{self.healthy} healthy"]
        counts = {"staging": self.staging, "of earlier versions": self.old, "waiting": self.waiting}
        parts += [f"{count} {what}" for what, count in counts.items() if count]
        parts += [f"next attempt in {self.delay:.0f} s"] if self.delay else []
        return f"{where}: {', '.join(parts)}"


def follow(
    marathon: Marathon,
    change: Change,
    *,
    deadline: float = 300.0,
    interval: float = INTERVAL,
    slaves: Callable[[], pd.DataFrame] | None = None,
) -> Iterator[Progress]:
    """Follow a change's deployment to its end, with a Progress whenever something moved; the last one is `done`.

    `slaves` gives Mesos' `slaves_table`, for the explanation of a failure. Raises DeploymentFailed, whose `result` is
    the explanation (`Findings`), after `deadline` seconds, and where the deployment ended without its aim: cancelled,
    rolled back, replaced by another one. What Marathon does not answer meanwhile (its leader changes) is borne.
    """
    started = time.monotonic()
    before: Progress | None = None
    trouble: ServiceError | None = None
    while True:
        passed = time.monotonic() - started
        try:
            progress, app = _look(marathon, change)
            trouble = None
        except ServiceError as error:
            progress, app, trouble = before or Progress(change.app_id, change.deployment or ""), None, error
        if replace(progress, seconds=0.0, delay=0.0) != before:
            before = replace(progress, seconds=0.0, delay=0.0)
            yield replace(progress, seconds=passed)
        if progress.done:
            return
        if trouble is None and not progress.steps and (what := _ended_otherwise(change, app)):
            findings = _explained(marathon, change, slaves)
            subject = f"the deployment {change.deployment} of {change.app_id}" if change.deployment else change.app_id
            raise DeploymentFailed(
                f"{subject} did not reach its aim: {what}\n{findings}",
                "see who else works with this Marathon, then run this again",
                result=findings,
            )
        if passed > deadline:
            findings = _explained(marathon, change, slaves)
            said = trouble.message if trouble else str(progress)
            raise DeploymentFailed(
                f"the deployment of {change.app_id} is not done after {passed:.0f} s: {said}\n{findings}",
                "mend what is named and follow it again, or undo it: Marathon goes on trying until it is cancelled",
                result=findings,
            )
        time.sleep(interval)


def _look(marathon: Marathon, change: Change) -> tuple[Progress, App | None]:
    """How far a change is now, and its app. `steps` is 0 once the deployment is gone."""
    deployment = next((one for one in marathon.deployments() if one["id"] == change.deployment), None)
    app = marathon.find(change.app_id)
    progress = Progress(change.app_id, change.deployment or "")
    since = change.version if change.restarted else None
    if deployment is not None:
        if any(
            one.get("app") == change.app_id and one["action"] == "RestartApplication"
            for step in deployment["steps"]
            for one in step
        ):
            since = deployment["version"]
        action = next((one["action"] for one in deployment["currentActions"] if one.get("app") == change.app_id), "")
        progress = replace(progress, step=deployment["currentStep"], steps=deployment["totalSteps"], action=action)
    if change.outcome == "deleted":
        left = len([task for task in marathon.tasks() if task["appId"] == change.app_id])
        return replace(progress, old=left, done=deployment is None and not left), app
    if app is None:
        return progress, None
    progress = _counted(progress, app, since)
    item = next((one for one in marathon.queue() if one["app"]["id"] == change.app_id), None)
    if item is not None:
        progress = replace(progress, waiting=item["count"], delay=float(item["delay"]["timeLeftSeconds"]))
    failure = app.get("lastTaskFailure")
    if failure and change.version and _since(failure["timestamp"]) >= _since(change.version):
        progress = replace(progress, failure=failure.get("message") or failure.get("state"))
    reached = change.version is None or _since(app["version"]) <= _since(change.version)
    enough = progress.running == progress.instances and progress.healthy in (None, progress.instances)
    return replace(progress, done=deployment is None and reached and enough and not progress.old), app


def _counted(progress: Progress, app: App, replaced_since: str | None) -> Progress:
    """The counts of an app's tasks. Old are those of a definition before the last change of its configuration.

    `replaced_since`: the version of a restart. It replaces all tasks though it leaves `lastConfigChangeAt` as it is
    (GroupVersioningUtil.scala).
    """
    since = app.get("versionInfo", {}).get("lastConfigChangeAt", app["version"])
    if replaced_since is not None:
        since = max(since, replaced_since, key=_since)
    tasks = [task for task in app.get("tasks", ()) if is_instance(task)]
    new = [task for task in tasks if _since(task["version"]) >= _since(since)]
    states = [task_state(task) for task in new]
    return replace(
        progress,
        instances=app["instances"],
        running=len(states) - states.count("staging"),
        healthy=states.count("healthy") if app.get("healthChecks") else None,
        staging=states.count("staging"),
        old=len(tasks) - len(new),
    )


def _ended_otherwise(change: Change, app: App | None) -> str | None:
    """Why a deployment that is over will not reach its aim any more; None where it has, or may yet."""
    if change.outcome == "deleted":
        return None
    if app is None:
        return "the app is gone: its deployment was undone, or the app deleted"
    if change.version and _since(app["version"]) > _since(change.version):
        return f"the app has the version {app['version']} instead of {change.version}: somebody else changed it"
    return None


def _explained(marathon: Marathon, change: Change, slaves: Callable[[], pd.DataFrame] | None) -> Findings:
    """`explain` with what can be had at the moment."""
    try:
        app = marathon.find(change.app_id)
        queue = marathon.queue()
    except ServiceError as error:
        return Findings(change.app_id, (Finding("", "Marathon does not answer", error.message, error.remedy or ""),))
    if app is None:
        return Findings(change.app_id, ())
    table: pd.DataFrame | None = None
    if slaves is not None:
        try:
            table = slaves()
        except ServiceError as error:
            unknown = Finding("", "Mesos does not answer", error.message, error.remedy or "")
            return Findings(change.app_id, (unknown, *explain(app, queue)))
    return explain(app, queue, table, since=change.version)


def explain(
    app: App,
    queue: Iterable[Mapping[str, Any]],
    slaves: pd.DataFrame | None = None,
    *,
    since: str | None = None,
) -> Findings:
    """Why an app does not run as it should: pure, from what Marathon and Mesos answered.

    `app`: with its tasks and last failure. `queue`: Marathon's. `slaves`: Mesos' `slaves_table`; without it, nothing is
    said of what fits where. `since`: a failure before this version of the app does not count.
    """
    found: list[Finding] = []
    name = app_id(app["id"])
    item = next((one for one in queue if one["app"]["id"] == name), None)
    failure = app.get("lastTaskFailure")
    if failure and (since is None or _since(failure["timestamp"]) >= _since(since)):
        found.append(_of_failure(failure, item))
    if item is not None and not item["delay"]["timeLeftSeconds"] and slaves is not None:
        found += _of_fit(app, item["count"], slaves)
    elif item is not None and not found:
        evidence = f"{item['count']} to be launched, next attempt in {item['delay']['timeLeftSeconds']} s"
        found.append(Finding("", "tasks wait to be launched", evidence, "see which slave has room for one"))
    for task in app.get("tasks", ()):
        match task_state(task):
            case "unhealthy":
                evidence = f"{task['id']}: {unhealthy_because(task)}"
                remedy = "see the task's output; a slow start needs a longer gracePeriodSeconds"
                found.append(Finding(task["host"], "a task is not healthy", evidence, remedy))
            case "running" if app.get("healthChecks"):
                evidence = f"{task['id']}: no health check has answered yet"
                remedy = "see that Marathon's hosts reach the task's port, and that it listens on all addresses"
                found.append(Finding(task["host"], "a task is not known to be healthy", evidence, remedy))
            case "staging":
                evidence = ": since ".join(filter(None, [task["id"], task.get("stagedAt")]))
                remedy = "see whether its image is still being fetched; load it beforehand (chapter 5)"
                found.append(Finding(task["host"], "a task is still being started", evidence, remedy))
            case "lost" | "unreachable" as state:
                remedy = "start its host, or wait until Marathon gives the task up"
                found.append(Finding(task["host"], f"a task is {state}", task["id"], remedy))
    return Findings(name, tuple(found))


def _of_failure(failure: Mapping[str, Any], item: Mapping[str, Any] | None) -> Finding:
    message = failure.get("message") or "(no message)"
    wait = item["delay"]["timeLeftSeconds"] if item else 0
    evidence = f"{failure['state']}: {message} ({failure['taskId']})"
    if wait:
        evidence += f"; Marathon waits {wait} s before it tries again"
    known = diagnose([message])
    if known:
        return Finding(failure["host"], known[0].failure.cause, evidence, known[0].failure.remedy)
    remedy = "see stderr in the task's sandbox (Mesos' page), and mend the command or the image"
    if "status 137" in message or "signal Killed" in message:
        remedy = "it was killed, often for its memory: see dmesg on that host for oom-killer, and raise mem"
    return Finding(failure["host"], "tasks fail", evidence, remedy)


def _of_fit(app: App, count: int, slaves: pd.DataFrame) -> Iterator[Finding]:
    table = fit_table(app, slaves, app.get("tasks", ()))
    if table.empty:
        yield Finding("", "no slave is registered", f"{count} to be launched", "start the slaves (chapter 3)")
    elif table["fits"].fillna(False).any():
        hosts = ", ".join(table.loc[table["fits"].fillna(False), "host"])
        evidence = f"{count} to be launched; there is room on {hosts}"
        remedy = "wait: Mesos may offer it to another framework first, and Marathon refuses offers for 2 min at a time"
        yield Finding("", "Marathon waits for an offer", evidence, remedy)
    else:
        for row in table.to_dict("records"):
            if not row["lacks"]:
                remedy = "look at the slave's GPUs and fault domain, and at Marathon's log"
                yield Finding(str(row["host"]), "not known whether an instance fits", str(row["not_known"]), remedy)
                continue
            yield Finding(
                str(row["host"]), "an instance does not fit", str(row["lacks"]), _make_room(str(row["lacks"]))
            )


def _make_room(lacks: str) -> str:
    if "not among its ports" in lacks:
        return "set hostPort to 0, so that Mesos gives a port out of its ranges"
    if "in use" in lacks:
        return "set hostPort to 0: a fixed port holds one instance a host"
    if "constraint" in lacks:
        return "loosen the constraint, or ask for fewer instances"
    return "ask for less (cpus, mem), end what else runs there, or add a slave"


def _since(version: str) -> float:
    return seconds(version) or 0.0
