"""A framework over Mesos' scheduler HTTP API, as small as a test needs it."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable
from http.client import HTTPConnection
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

Json = dict[str, Any]
PATH = "/api/v1/scheduler"


def post(address: str, call: object, **headers: str) -> tuple[int, str, dict[str, str]]:
    """Status, text and headers (names in lower case) of one call to the master at `host:port`."""
    connection = HTTPConnection(address, timeout=10)
    sent = {"Content-Type": "application/json", "Accept": "application/json"}
    sent |= {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request("POST", PATH, call if isinstance(call, str) else json.dumps(call), sent)
    answer = connection.getresponse()
    found = answer.status, answer.read().decode(), {name.lower(): value for name, value in answer.getheaders()}
    connection.close()
    return found


class Framework:
    """A framework that is subscribed while the `with` block runs, and torn down after it.

    It keeps every event; `wait` gives the first one, from `since` on, that a test asks for.
    """

    def __init__(self, master: str, *, framework_id: str | None = None, stays: bool = False, **info: object) -> None:
        """`master` is the leader's base URL; `info` is added to the FrameworkInfo. With `stays`, no teardown."""
        self.address = urlsplit(master).netloc
        self.info = {"user": "root", "name": "contract", "failover_timeout": 30, "checkpoint": True, **info}
        self.id = framework_id
        self.stays = stays
        self.stream_id = ""
        self.headers: dict[str, str] = {}
        self.events: list[Json] = []
        self.ended = False
        self._arrived = threading.Condition()
        self._connection = HTTPConnection(self.address, timeout=60)
        self._reader = threading.Thread(target=self._read)

    def __enter__(self) -> Self:
        call: Json = {"type": "SUBSCRIBE", "subscribe": {"framework_info": self.info}}
        if self.id:
            call["framework_id"] = {"value": self.id}
            self.info["id"] = {"value": self.id}
        sent = {"Content-Type": "application/json", "Accept": "application/json"}
        self._connection.request("POST", PATH, json.dumps(call), sent)
        self._answer = self._connection.getresponse()
        assert self._answer.status == 200, self._answer.read()
        self.headers = {name.lower(): value for name, value in self._answer.getheaders()}
        self.stream_id = self.headers["mesos-stream-id"]
        self._reader.start()
        with self._arrived:
            assert self._arrived.wait_for(lambda: self.events, 30)
        if self.events[0]["type"] == "SUBSCRIBED":
            self.id = self.events[0]["subscribed"]["framework_id"]["value"]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self.ended and not self.stays:
            self.call("TEARDOWN")
        self.disconnect()

    def disconnect(self) -> None:
        """Close the connection without a word."""
        if self._connection.sock:
            with contextlib.suppress(OSError):  # the master has closed it
                self._connection.sock.shutdown(socket.SHUT_RDWR)
        self._reader.join(timeout=10)
        assert not self._reader.is_alive()
        self._answer.close()
        self._connection.close()

    def _read(self) -> None:
        while True:
            try:
                length = self._answer.readline()
                record = self._answer.read(int(length)) if length else b""
            except (OSError, ValueError):
                record = b""
            with self._arrived:
                if record:
                    self.events.append(json.loads(record))
                else:
                    self.ended = True
                self._arrived.notify_all()
            if not record:
                return

    def wait(
        self,
        kind: str,
        matches: Callable[[Json], bool] = lambda content: True,
        *,
        since: int = 0,
        seconds: float = 30,
    ) -> Json:
        """The content of the first event of a kind, from number `since` on, that matches."""
        deadline = time.monotonic() + seconds
        with self._arrived:
            while True:
                for event in self.events[since:]:
                    content: Json = event.get(kind.lower(), {})
                    if event["type"] == kind and matches(content):
                        return content
                left = deadline - time.monotonic()
                assert not self.ended, f"the stream ended before {kind}: {self.events[since:]}"
                assert left > 0, f"no such {kind} from {since}: {self.events}"
                self._arrived.wait(left)

    def wait_for_end(self, seconds: float = 30) -> None:
        """Until the master has closed the stream."""
        with self._arrived:
            assert self._arrived.wait_for(lambda: self.ended, seconds)

    def status(self, task_id: str, state: str, *, since: int = 0, seconds: float = 30) -> Json:
        """The status that says that a task is in a state, acknowledged with all before it."""
        seen = since
        deadline = time.monotonic() + seconds
        while True:
            left = deadline - time.monotonic()
            found = self.wait(
                "UPDATE", lambda u: u["status"]["task_id"]["value"] == task_id, since=seen, seconds=max(left, 0.01)
            )["status"]
            seen = 1 + next(
                n for n, e in enumerate(self.events) if n >= seen and e.get("update", {}).get("status") is found
            )
            self.acknowledge(found)
            if found["state"] == state:
                return found

    def acknowledge(self, status: Json) -> None:
        if "uuid" in status:
            names = {key: status[key] for key in ("agent_id", "task_id", "uuid")}
            self.call("ACKNOWLEDGE", acknowledge=names)

    def call(self, kind: str, **content: object) -> None:
        """Make a call that the master must take."""
        call = {"type": kind, "framework_id": {"value": self.id}, **content}
        status, text, _ = post(self.address, call, Mesos_Stream_Id=self.stream_id)
        assert (status, text) == (202, ""), text

    def offer(self, matches: Callable[[Json], bool] = lambda offer: True, *, since: int = 0) -> Json:
        """The first offer that matches."""
        offers = self.wait("OFFERS", lambda o: any(map(matches, o["offers"])), since=since)["offers"]
        return next(offer for offer in offers if matches(offer))

    def launch(self, offer: Json, *tasks: Json, refuse_seconds: float = 0) -> None:
        """Launch tasks, made by `task`, on an offer."""
        infos = [{**info, "agent_id": offer["agent_id"]} for info in tasks]
        operations = [{"type": "LAUNCH", "launch": {"task_infos": infos}}]
        filters = {"refuse_seconds": refuse_seconds}
        self.call("ACCEPT", accept={"offer_ids": [offer["id"]], "operations": operations, "filters": filters})


def task(task_id: str, command: str | None, *, ports: tuple[int, ...] = (), **more: object) -> Json:
    """A TaskInfo without its agent: a shell command with 0.1 CPUs, 32 MB and the given ports."""
    resources: list[Json] = [
        {"name": "cpus", "type": "SCALAR", "scalar": {"value": 0.1}},
        {"name": "mem", "type": "SCALAR", "scalar": {"value": 32}},
    ]
    variables = [{"name": f"PORT{n}", "value": str(port)} for n, port in enumerate(ports)]
    if ports:
        ranges = [{"begin": port, "end": port} for port in ports]
        resources.append({"name": "ports", "type": "RANGES", "ranges": {"range": ranges}})
        variables.append({"name": "PORT", "value": str(ports[0])})
    info: Json = {"name": task_id.partition(".")[0], "task_id": {"value": task_id}, "resources": resources}
    if command is not None:
        info["command"] = {"shell": True, "value": command, "environment": {"variables": variables}}
    return info | more
