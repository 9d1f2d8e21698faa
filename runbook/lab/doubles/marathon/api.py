"""The REST API of a leader, under /v2 (Marathon's 'REST API' of 1.0; steps, tasks and deletions as 1.1 has them)."""

import copy
import re
import uuid
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any
from urllib.parse import unquote

from .apps import Json, Refused, absolute, malformed, read, timestamp, unknown_app, updated
from .deployments import Deployment
from .flags import VERSION, Flags
from .scheduler import Scheduler
from .tasks import Task
from .web import JSON_TYPE, Answer, Request, Response, Stream, jetty_error, message, reply

Handler = Callable[..., Answer]
_VERSION_ALONE = "The 'version' field may only be combined with the 'id' field."


class Api:
    """Answers requests from a scheduler. `leader` is this instance, `abdicate` makes it stand behind the others."""

    def __init__(self, scheduler: Scheduler, flags: Flags, leader: str, abdicate: Callable[[], None]) -> None:
        self._scheduler = scheduler
        self._flags = flags
        self._leader = leader
        self._abdicate = abdicate
        app = r"/v2/apps/(.+)"
        routes: list[tuple[str, str, Handler]] = [
            ("GET", "/v2/apps", self._list),
            ("POST", "/v2/apps", self._create),
            ("PUT", "/v2/apps", self._put_many),
            ("GET", f"{app}/versions/(.+)", self._version),
            ("GET", f"{app}/versions", self._versions),
            ("POST", f"{app}/restart", self._restart),
            ("GET", f"{app}/tasks", self._tasks_of),
            ("DELETE", f"{app}/tasks/([^/]+)", self._kill_one),
            ("DELETE", f"{app}/tasks", self._kill_all),
            ("GET", app, self._show),
            ("PUT", app, self._put),
            ("DELETE", app, self._delete),
            ("GET", "/v2/tasks", self._tasks),
            ("POST", "/v2/tasks/delete", self._kill_given),
            ("GET", "/v2/deployments", self._deployments),
            ("DELETE", "/v2/deployments/([^/]+)", self._cancel),
            ("GET", "/v2/queue", self._queue),
            ("DELETE", "/v2/queue/(.+)/delay", self._reset_delay),
            ("GET", "/v2/groups", self._group),
            ("GET", "/v2/info", self._info),
            ("GET", "/v2/leader", self._show_leader),
            ("DELETE", "/v2/leader", self._delete_leader),
            ("GET", "/v2/events", self._events),
            ("GET", "/ping", lambda request: Response(200, b"pong\n", {"Content-Type": "text/plain"})),
            ("GET", "/metrics", self._metrics),
            ("GET", "/", self._front),
        ]
        self._routes = [(method, re.compile(f"{path}/?"), handler) for method, path, handler in routes]

    def answer(self, request: Request) -> Answer:
        """The answer to a request. Raises KazooException where the store fails."""
        path = unquote(request.path)
        kind = request.headers.get("content-type", JSON_TYPE).partition(";")[0].strip().lower()
        if request.body and kind != JSON_TYPE:
            return jetty_error(415, path, "Unsupported Media Type")
        others = set()
        for method, pattern, handler in self._routes:
            if match := pattern.fullmatch(path):
                others.add(method)
                if method == request.method:
                    try:
                        with self._scheduler.lock:
                            return handler(request, *match.groups())
                    except Refused as refused:
                        return reply(refused.body, refused.status)
        if path.startswith("/v2/groups"):
            return message(501, "The rehearsal double takes apps, not groups")
        if others:
            return jetty_error(405, path, f"HTTP method {request.method} is not supported by this URL")
        return message(404, f"URI not found: {path}")

    # Apps

    def _list(self, request: Request) -> Answer:
        def matches(app: Json) -> bool:
            wanted_id, wanted_cmd, label = (request.values(name) for name in ("id", "cmd", "label"))
            return (
                all(text.lower() in app["id"].lower() for text in wanted_id)
                and all(text.lower() in (app["cmd"] or "").lower() for text in wanted_cmd)
                and all(_selects(selector, app["labels"]) for text in label for selector in text.split(","))
            )

        embeds = {re.sub("^apps?[.]", "", embed) for embed in request.values("embed")}
        return reply({"apps": [self._shown(app, embeds) for app in self._scheduler.apps.values() if matches(app)]})

    def _show(self, request: Request, app_id: str) -> Answer:
        if app_id.endswith("*"):
            apps = [app for key, app in self._scheduler.apps.items() if key.startswith(absolute(app_id[:-1]))]
            return reply({"*": [self._shown(app, {"failures"}) for app in apps]})
        return reply({"app": self._shown(self._scheduler.app(absolute(app_id)), {"failures"})})

    def _create(self, request: Request) -> Answer:
        update = read(request.body)
        app_id = _named(update)
        if app_id in self._scheduler.apps:
            return message(409, f"An app with id [{app_id}] already exists.")
        app = updated(None, app_id, update, posted=True)
        read_as = copy.deepcopy(app)  # before ports are given out
        self._tell(request, app)
        deployment = self._scheduler.deploy(app_id, app, force=request.flag("force"))
        none = dict.fromkeys(("tasksStaged", "tasksRunning", "tasksHealthy", "tasksUnhealthy"), 0)
        made = {"version": deployment.version, **none, "deployments": [{"id": deployment.id}], "tasks": []}
        return reply({**read_as, **made}, 201, Location=app_id)

    def _put(self, request: Request, name: str) -> Answer:
        update = read(request.body)
        app_id = absolute(name)  # whatever id the body has
        before = self._scheduler.apps.get(app_id)
        deployment = self._change(app_id, update, force=request.flag("force"))
        self._tell(request, self._scheduler.app(app_id))
        if before is None:
            return self._deployed(deployment, 201, Location=app_id)
        return self._deployed(deployment)

    def _put_many(self, request: Request) -> Answer:
        """One deployment an app, where Marathon makes one for all; the last one's id is given."""
        updates = [(_named(update), update) for update in read(request.body, list)]
        if not updates:
            raise malformed("", "the rehearsal double needs an app")
        deployments = [self._change(app_id, update, force=request.flag("force")) for app_id, update in updates]
        return self._deployed(deployments[-1])

    def _change(self, app_id: str, update: Json, *, force: bool) -> Deployment:
        before = self._scheduler.apps.get(app_id)
        given = {name for name, value in update.items() if value is not None} - {"id"}
        if "version" in given and len(given) > 1:
            raise Refused(422, {"message": f"requirement failed: {_VERSION_ALONE}"})
        if before and given == {"version"}:
            after = self._at(app_id, update["version"])
            if after is None:
                raise unknown_app(app_id)
        else:
            after = updated(before, app_id, update)
        return self._scheduler.deploy(app_id, after, force=force)

    def _delete(self, request: Request, name: str) -> Answer:
        app_id = self._scheduler.app(absolute(name))["id"]
        return self._deployed(self._scheduler.deploy(app_id, None, force=request.flag("force", default=True)))

    def _restart(self, request: Request, name: str) -> Answer:
        app = self._scheduler.app(absolute(name))
        return self._deployed(self._scheduler.deploy(app["id"], dict(app), force=request.flag("force"), restart=True))

    def _versions(self, request: Request, name: str) -> Answer:
        return reply({"versions": self._scheduler.versions(self._scheduler.app(absolute(name))["id"])})

    def _version(self, request: Request, name: str, version: str) -> Answer:
        app_id = self._scheduler.app(absolute(name))["id"]
        if (found := self._at(app_id, version)) is None:
            raise unknown_app(app_id, version)
        return reply(found)

    def _at(self, app_id: str, version: str) -> Json | None:
        try:
            datetime.fromisoformat(version)
        except ValueError as error:
            raise Refused(422, {"message": f'Invalid format: "{version}"'}) from error
        return self._scheduler.store.get(f"app:{app_id}:{version}")

    def _shown(self, app: Json, embeds: Iterable[str]) -> Json:
        tasks = self._scheduler.tasks_of(app["id"])
        embeds = set(embeds)
        shown = {
            **app,
            "tasksStaged": sum(task.started_at is None for task in tasks),
            "tasksRunning": sum(task.started_at is not None for task in tasks),
            "tasksHealthy": sum(bool(task.health) and task.healthy(app) for task in tasks),
            "tasksUnhealthy": sum(task.unhealthy() for task in tasks),
            "deployments": [{"id": deployment.id} for deployment in self._scheduler.deployments_of(app["id"])],
        }
        if embeds & {"tasks", "failures"}:
            shown["tasks"] = [task.to_json() for task in tasks]
        if embeds & {"lastTaskFailure", "failures"} and app["id"] in self._scheduler.failures:
            shown["lastTaskFailure"] = self._scheduler.failures[app["id"]]
        return shown

    def _deployed(self, deployment: Deployment, status: int = 200, **headers: str) -> Answer:
        return reply({"version": deployment.version, "deploymentId": deployment.id}, status, **headers)

    def _tell(self, request: Request, app: Json) -> None:
        self._scheduler.events.publish("api_post_event", clientIp=request.client, uri=request.path, appDefinition=app)

    # Tasks

    def _tasks(self, request: Request) -> Answer:
        states = {"running", "staging"}
        wanted = states & {*request.values("status"), *request.values("status[]")} or states
        tasks = [
            task for task in self._scheduler.tasks.values() if ("running" if task.started_at else "staging") in wanted
        ]
        ports = {app["id"]: app["ports"] for app in self._scheduler.apps.values()}
        return reply({"tasks": [task.to_json(ports.get(task.app_id)) for task in tasks]})

    def _tasks_of(self, request: Request, name: str) -> Answer:
        tasks = self._scheduler.tasks_of(self._scheduler.app(absolute(name))["id"])
        return reply({"tasks": [task.to_json() for task in tasks]})

    def _kill_all(self, request: Request, name: str) -> Answer:
        app_id = self._scheduler.app(absolute(name))["id"]
        scale = self._scales(request, app_id)
        hosts = set(request.values("host")) - {"*"}
        tasks = [task for task in self._scheduler.tasks_of(app_id) if not hosts or task.host in hosts]
        if scale:
            return self._scaled_down(request, {app_id: tasks})
        self._kill(tasks)
        return reply({"tasks": [task.bare() for task in tasks]})

    def _kill_one(self, request: Request, name: str, task_id: str) -> Answer:
        app_id = self._scheduler.app(absolute(name))["id"]
        scale = self._scales(request, app_id)
        task = next((task for task in self._scheduler.tasks_of(app_id) if task.id == task_id), None)
        if scale:
            return self._scaled_down(request, {app_id: [task]} if task else {})
        if task is None:
            return message(404, f"Task '{task_id}' does not exist")
        self._kill([task])
        return reply({"task": task.bare()})

    def _kill_given(self, request: Request) -> Answer:
        scale = self._scales(request)
        ids = read(request.body).get("ids")
        if not isinstance(ids, list):
            return message(400, "Invalid JSON", details=[{"path": "/ids", "errors": ["error.path.missing"]}])
        if strange := [task_id for task_id in ids if "." not in task_id]:
            return message(400, f"Invalid task id '{strange[0]}'.")
        tasks = [task for task_id in ids if (task := self._scheduler.tasks.get(task_id))]
        if not scale:
            self._kill(tasks)
            return reply({"tasks": [{**task.bare(), "appId": task.app_id} for task in tasks]})
        by_app: dict[str, list[Task]] = {}
        for task in tasks:
            by_app.setdefault(task.app_id, []).append(task)
        return self._scaled_down(request, by_app)

    def _scales(self, request: Request, app_id: str | None = None) -> bool:
        """Whether the app of each task that is killed gets an instance less; Refused where that cannot be."""
        if not request.flag("scale"):
            return False
        if request.flag("wipe"):
            raise Refused(400, {"message": "You cannot use scale and wipe at the same time."})
        if app_id is not None and not self._scheduler.tasks_of(app_id):
            raise unknown_app(app_id)
        return True

    def _scaled_down(self, request: Request, by_app: dict[str, list[Task]]) -> Answer:
        answers = []
        for app_id, tasks in by_app.items():
            app = self._scheduler.app(app_id)
            target = {**app, "instances": max(0, app["instances"] - len(tasks))}
            condemned = [task.id for task in tasks]
            answers.append(self._scheduler.deploy(app_id, target, force=request.flag("force"), condemned=condemned))
        if answers:
            return self._deployed(answers[-1])
        return reply({"version": timestamp(), "deploymentId": str(uuid.uuid4())})  # a deployment of nothing

    def _kill(self, tasks: list[Task]) -> None:
        """Kill tasks, but those of an app in deployment, of which none is killed: its lock cannot be had."""
        for task in tasks:
            if not self._scheduler.deployments_of(task.app_id):
                self._scheduler.kill(task)

    # Deployments and queue

    def _deployments(self, request: Request) -> Answer:
        return reply([deployment.to_json() for deployment in self._scheduler.deployments.values()])

    def _cancel(self, request: Request, deployment_id: str) -> Answer:
        deployment = self._scheduler.deployments.get(deployment_id)
        if deployment is None:
            return message(404, f"DeploymentPlan {deployment_id} does not exist")
        if request.flag("force"):
            self._scheduler.cancel(deployment)
            return Response(202)
        before = dict(deployment.original) if deployment.original else None
        if before is None and deployment.app_id not in self._scheduler.apps:
            self._scheduler.cancel(deployment)
            return self._deployed(deployment)
        return self._deployed(self._scheduler.deploy(deployment.app_id, before, force=True))

    def _queue(self, request: Request) -> Answer:
        return reply(
            {
                "queue": [
                    {
                        "app": app,
                        "count": count,
                        "delay": {"timeLeftSeconds": round(seconds), "overdue": seconds == 0},
                    }
                    for app, count, seconds in self._scheduler.waiting()
                ]
            }
        )

    def _reset_delay(self, request: Request, name: str) -> Answer:
        app_id = absolute(name)
        if app_id not in [app["id"] for app, _, _ in self._scheduler.waiting()]:
            return message(404, f"Application {app_id} not found in tasks queue.")
        self._scheduler.reset_delay(app_id)
        return Response(204)

    # The rest

    def _group(self, request: Request) -> Answer:
        """The root group, with all apps in it: groups are flat here."""
        versions = [app["version"] for app in self._scheduler.apps.values()]
        apps = list(self._scheduler.apps.values())
        version = max(versions, default="1970-01-01T00:00:00.000Z")
        return reply({"id": "/", "apps": apps, "groups": [], "dependencies": [], "version": version})

    def _info(self, request: Request) -> Answer:
        flags = self._flags
        config: Json = {
            "master": flags["master"],
            "failover_timeout": flags.number("failover_timeout"),
            "framework_name": flags["framework_name"],
            "ha": "ha" in flags.switches,
            "checkpoint": "checkpoint" in flags.switches,
            "local_port_min": flags.number("local_port_min"),
            "local_port_max": flags.number("local_port_max"),
            "executor": flags["executor"],
            "hostname": flags["hostname"],
            "webui_url": flags.get("webui_url"),
            "mesos_role": flags.get("mesos_role"),
            "task_launch_timeout": flags.number("task_launch_timeout"),
            "reconciliation_initial_delay": flags.number("reconciliation_initial_delay"),
            "reconciliation_interval": flags.number("reconciliation_interval"),
            "task_reservation_timeout": 20000,  # InfoResource.scala, MarathonConf.scala
            "features": [],
            "mesos_user": flags["mesos_user"],
            "leader_proxy_connection_timeout_ms": flags.number("leader_proxy_connection_timeout"),
            "leader_proxy_read_timeout_ms": flags.number("leader_proxy_read_timeout"),
            "mesos_leader_ui_url": flags.get("mesos_leader_ui_url"),
        }
        zookeeper: Json = {
            "zk": flags["zk"],
            "zk_timeout": flags.number("zk_timeout"),
            "zk_session_timeout": flags.number("zk_session_timeout"),
            "zk_max_versions": flags.number("zk_max_versions"),
        }
        ports = {name: flags.number(name) for name in ("http_port", "https_port")}
        return reply(
            {
                "name": "marathon",
                "version": VERSION,
                "elected": True,
                "leader": self._leader,
                "frameworkId": self._scheduler.framework_id,
                "marathon_config": config,
                "zookeeper_config": zookeeper,
                "event_subscriber": None,
                "http_config": {"assets_path": None, **ports},
            }
        )

    def _show_leader(self, request: Request) -> Answer:
        return reply({"leader": self._leader})

    def _delete_leader(self, request: Request) -> Answer:
        self._abdicate()
        return reply({"message": "Leadership abdicated"})

    def _events(self, request: Request) -> Answer:
        if "text/event-stream" not in request.headers.get("accept", ""):
            return jetty_error(405, request.path, "HTTP method GET is not supported by this URL")
        headers = {"Content-Type": "text/event-stream; charset=UTF-8", "Cache-Control": "no-cache"}
        return Stream(self._scheduler.events.stream(request.client), headers)

    def _metrics(self, request: Request) -> Answer:
        values: dict[str, Any] = {
            "service.mesosphere.marathon.app.count": len(self._scheduler.apps),
            "service.mesosphere.marathon.task.running.count": sum(
                task.started_at is not None for task in self._scheduler.tasks.values()
            ),
            "service.mesosphere.marathon.task.staged.count": sum(
                task.started_at is None for task in self._scheduler.tasks.values()
            ),
        }
        gauges = {name: {"value": value} for name, value in values.items()}
        none: Json = {"counters": {}, "histograms": {}, "meters": {}, "timers": {}}
        return reply({"version": "3.0.0", "gauges": gauges, **none})

    def _front(self, request: Request) -> Answer:
        says = f"A rehearsal double of Marathon {VERSION}. See <a href=/v2/apps>/v2/apps</a>."
        return Response(200, f"<!DOCTYPE html><title>Marathon</title><p>{says}".encode(), {"Content-Type": "text/html"})


def _named(update: Any) -> str:
    """The absolute id that an app is given; Refused (400) where it is none."""
    if not isinstance(update, dict):
        raise malformed("", "error.expected.jsobject")
    if not isinstance(update.get("id"), str) or not update["id"]:
        raise malformed("/id", "error.expected.jsstring" if "id" in update else "error.path.missing")
    return absolute(update["id"])


def _selects(selector: str, labels: dict[str, str]) -> bool:
    """Whether labels meet a selector: `name`, `name==value` or `name!=value`."""
    name, operator, value = ((part or "").strip() for part in re.split("(==|!=)|$", selector.strip(), maxsplit=1))
    return name in labels and (not operator or (labels[name] == value) == (operator == "=="))
