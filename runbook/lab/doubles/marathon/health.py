"""Health checks by TCP and HTTP, made by the leader (Marathon's 'Health Checks')."""

import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection, HTTPException

from .apps import Json, timestamp
from .scheduler import Scheduler
from .tasks import Health, Task

PACE = 0.25  # seconds between two looks at what is due
WORKERS = 8


class HealthChecker(threading.Thread):
    """Checks the tasks of a scheduler that run, and ends those that fail too often, until it stops."""

    def __init__(self, scheduler: Scheduler) -> None:
        super().__init__(name="health", daemon=True)
        self._scheduler = scheduler

    def run(self) -> None:
        with ThreadPoolExecutor(WORKERS) as pool:
            while not self._scheduler.stopped:
                with self._scheduler.lock:
                    for task, check, health in list(self._due()):
                        health.next_due = time.monotonic() + max(check["intervalSeconds"], 0.5)
                        pool.submit(self._check, task, check, health).add_done_callback(lambda done: done.result())
                    self._scheduler.lock.wait(PACE)

    def _due(self) -> Iterator[tuple[Task, Json, Health]]:
        present = time.monotonic()
        for task in self._scheduler.tasks.values():
            app = self._scheduler.apps.get(task.app_id)
            if app is None or task.started_at is None or not task.live or not task.current(app):
                continue
            if len(task.health) != len(app["healthChecks"]):
                task.health = [
                    Health(since=present, next_due=present + check["intervalSeconds"]) for check in app["healthChecks"]
                ]
            for check, health in zip(app["healthChecks"], task.health, strict=True):
                if present >= health.next_due:
                    yield task, check, health

    def _check(self, task: Task, check: Json, health: Health) -> None:
        port = check.get("port")
        cause = ask(check, task.host, task.ports[check["portIndex"]] if port is None else port)
        with self._scheduler.guarded():
            if task.id in self._scheduler.tasks and task.live:
                self._note(task, check, health, cause)

    def _note(self, task: Task, check: Json, health: Health, cause: str | None) -> None:
        who = {"appId": task.app_id, "taskId": task.id}
        told = {**who, "version": task.version}
        before = health.alive
        health.answered = True
        if cause is None:
            health.alive, health.consecutive_failures = True, 0
            health.last_success = timestamp()
            health.first_success = health.first_success or health.last_success
        elif health.first_success is None and time.monotonic() - health.since < check["gracePeriodSeconds"]:
            return
        else:
            health.alive = False
            health.consecutive_failures += 1
            health.last_failure, health.last_failure_cause = timestamp(), cause
            self._scheduler.events.publish("failed_health_check_event", **who, healthCheck=check)
        if health.alive != before:
            self._scheduler.events.publish("health_status_changed_event", **told, alive=health.alive)
            self._scheduler.lock.notify_all()
        # HealthCheckActor looks at the count of failures before this one.
        if cause and 0 < check["maxConsecutiveFailures"] < health.consecutive_failures:
            self._scheduler.events.publish(
                "unhealthy_task_kill_event", **told, reason=cause, host=task.host, slaveId=task.slave_id
            )
            reason = f"Task was killed since health check failed. Reason: {cause}"
            self._scheduler.note_failure(task, "TASK_KILLED", reason, delay=False)
            self._scheduler.kill(task)


def ask(check: Json, host: str, port: int) -> str | None:
    """Why a check fails; None where it does not."""
    limit = float(check["timeoutSeconds"]) or None
    try:
        if check["protocol"] == "TCP":
            socket.create_connection((host, port), timeout=limit).close()
            return None
        connection = HTTPConnection(host, port, timeout=limit)
        try:
            connection.request("GET", check.get("path", "/"))
            answer = connection.getresponse()
        finally:
            connection.close()
    except (OSError, HTTPException) as error:
        return f"{type(error).__name__}: {error}"
    return None if 200 <= answer.status < 400 else f"{answer.status} {answer.reason}"
