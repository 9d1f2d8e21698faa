"""A Marathon on the loopback that keeps apps and starts their tasks at once, for what is asked of a site's Marathon."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from loopback import Loopback, Piece, Request, answer
from marathon_answers import LOCKED, VERSION, in_11, task

from runbook.site import Site

Json = dict[str, Any]


class FakeMarathon:
    """`apps` by id; `runs` says whether tasks of what is deployed run; `locked` answers every change by 409.

    `elections` is how often there is no leader yet.
    """

    def __init__(self) -> None:
        self.apps: dict[str, Json] = {}
        self.runs = True
        self.locked = False
        self.elections = 0
        self.asked: list[str] = []
        self.info: Json = {"version": "1.1.1", "leader": "m:8080", "frameworkId": "F", "elected": True}

    def put(self, app: Json) -> None:
        """Have an app as Marathon 1.1 answers it, with its tasks."""
        name = "/" + app["id"].strip("/")
        count = app.get("instances", 1)
        tasks = [task(number, app=name, host="127.0.0.1") for number in range(count if self.runs else 0)]
        self.apps[name] = in_11(app, instances=count, tasks=tasks, tasksRunning=len(tasks))

    def reply(self, request: Request) -> Iterator[Piece]:
        path, _, query = request.target.partition("?")
        self.asked.append(f"{request.method} {path}{f'?{query}' if request.method != 'GET' and query else ''}")
        yield self._answer(request.method, path, json.loads(request.body) if request.body else {})

    def _answer(self, method: str, path: str, body: Json) -> bytes:
        name = path.removeprefix("/v2/apps").removesuffix("/tasks")
        changed = {"version": VERSION, "deploymentId": "d1"}
        if method != "GET" and self.locked:
            return answer(409, LOCKED)
        match method, path:
            case "GET", "/v2/info":
                return answer(200, self.info)
            case "GET", "/v2/leader":
                self.elections -= 1
                leaderless = answer(404, {"message": "There is no leader"})
                return leaderless if self.elections >= 0 else answer(200, {"leader": self.info["leader"]})
            case "GET", "/v2/deployments":
                return answer(200, [])
            case "GET", "/v2/queue":
                return answer(200, {"queue": []})
            case "GET", "/v2/apps":
                return answer(200, {"apps": list(self.apps.values())})
            case "GET", "/v2/tasks":
                return answer(200, {"tasks": [one for app in self.apps.values() for one in app["tasks"]]})
            case "POST", "/v2/apps":
                self.put(body)
                return answer(201, {**self.apps[body["id"]], "deployments": [{"id": "d1"}]})
        if name not in self.apps:
            return answer(404, {"message": f"App '{name}' does not exist"})
        match method:
            case "GET" if path.endswith("/tasks"):
                return answer(200, {"tasks": self.apps[name]["tasks"]})
            case "GET":
                return answer(200, {"app": self.apps[name]})
            case "DELETE":
                del self.apps[name]
            case _:
                present = {
                    key: value for key, value in self.apps[name].items() if key not in ("tasks", "portDefinitions")
                }
                self.put({**present, **body, "id": name})
        return answer(200, changed)


@contextmanager
def marathon_site() -> Iterator[tuple[Site, FakeMarathon]]:
    """A site of one host whose Marathon is a fake one, and whose masters do not answer."""
    fake = FakeMarathon()
    with Loopback(fake.reply) as server:
        yield site_of(server.port), fake


def site_of(port: int) -> Site:
    """A site of one host, `node1`, at 127.0.0.1, with Marathon at this port."""
    return Site.parse(parameters(port), Path("test.yml"))


def parameters(port: int) -> str:
    """That site's parameters."""
    roles = "[zookeeper, mesos_master, mesos_slave, docker, marathon]"
    text = [
        "name: test",
        f"hosts: [{{name: node1, address: 127.0.0.1, roles: {roles}}}]",
        "zookeeper: {allow_even: true, client_port: 1}",
        "mesos: {master: {allow_even: true, port: 2}, slave: {ports: '[3-4]'}}",
        "open_ports: 1-65535",
        f"marathon: {{http_port: {port}}}",
    ]
    return "\n".join([*text, ""])
