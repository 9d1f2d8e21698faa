"""Starts the rehearsal doubles of Marathon on the loopback, and asks a Marathon what tests ask it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import requests
from daemons import SECONDS, Mesos, eventually, free_port
from jsonschema import Draft7Validator

Json = dict[str, Any]
SCHEMAS = Path(__file__).parents[2] / "payloads" / "marathon" / "1.1.1" / "schema"
SERVER = """exec python3 -S -c '
import json, os
from http.server import BaseHTTPRequestHandler, HTTPServer
class Answer(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(500 if self.path == "/" and os.path.exists("sick") else 200)
        self.end_headers()
        self.wfile.write(json.dumps({**os.environ, "pid": os.getpid()}).encode())
    def do_POST(self):
        open("sick", "w").close()
        self.do_GET()
HTTPServer(("", int(os.environ["PORT"])), Answer).serve_forever()
'"""
"""A command that answers HTTP at $PORT with its environment and pid in JSON, and by 500 at / after a POST to /sick."""

SLEEP = {"cmd": "exec sleep 1000", "cpus": 0.01, "mem": 16}
SERVE = {"cmd": SERVER, "cpus": 0.01, "mem": 16}


class Asked:
    """One instance of Marathon, by its base URL."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")

    def ask(self, method: str, path: str, body: object = None, **query: object) -> requests.Response:
        data = body if isinstance(body, str | bytes | None) else json.dumps(body)
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        return requests.request(method, self.url + path, params=query, data=data, headers=headers, timeout=20)

    def get(self, path: str, **query: object) -> Any:
        answer = self.ask("GET", path, **query)
        assert answer.status_code == 200, f"{path}: {answer.status_code} {answer.text}"
        return answer.json()

    def app(self, app_id: str) -> Json:
        app: Json = self.get(f"/v2/apps/{app_id.lstrip('/')}")["app"]
        return app

    def tasks(self, app_id: str) -> list[Json]:
        tasks: list[Json] = self.app(app_id)["tasks"]
        return tasks

    def running(self, app_id: str, count: int, seconds: float = SECONDS) -> list[Json]:
        """The app's tasks, once exactly `count` run and none is on its way."""
        found: list[Json] = []

        def find() -> bool:
            found[:] = self.tasks(app_id)
            return len(found) == count and all(task["startedAt"] for task in found)

        eventually(find, f"{count} tasks of {app_id} run", seconds)
        return found

    def quiet(self, seconds: float = SECONDS) -> None:
        """Wait until no deployment is under way."""
        eventually(lambda: self.get("/v2/deployments") == [], "all deployments end", seconds)

    def deploy(self, app: Json, seconds: float = SECONDS) -> Json:
        """Create an app and wait for its deployment's end; gives the app."""
        answer = self.ask("POST", "/v2/apps", app)
        assert answer.status_code == 201, answer.text
        self.quiet(seconds)
        return self.app(app["id"])

    @contextmanager
    def events(self, *kinds: str) -> Iterator[Iterator[Json]]:
        """The events from now on, of these kinds or of all; 1.1.1 filters none itself."""
        headers = {"Accept": "text/event-stream"}
        with requests.get(f"{self.url}/v2/events", headers=headers, stream=True, timeout=SECONDS) as answer:
            assert answer.status_code == 200, answer.text
            lines = answer.iter_lines(chunk_size=1, decode_unicode=True)
            events = (json.loads(line.removeprefix("data:")) for line in lines if line.startswith("data:"))
            yield (event for event in events if not kinds or event["eventType"] in kinds)


class Instance(Asked):
    """A double as a process of its own."""

    def __init__(self, folder: Path, zk: str, master: str, flags: tuple[str, ...]) -> None:
        given = dict(zip(flags[::2], flags[1::2], strict=True))
        self.port = int(given.pop("--http_port", free_port()))
        super().__init__(f"http://127.0.0.1:{self.port}")
        self.log = folder / f"marathon-{self.port}.log"
        self.flags = [
            *("--hostname", "127.0.0.1", "--http_port", str(self.port), "--zk", zk, "--master", master),
            *("--zk_session_timeout", "4000", "--min_revive_offers_interval", "500"),
            *(word for pair in given.items() for word in pair),
        ]
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self) -> Self:
        code = "from runbook.lab.doubles.marathon.daemon import main; main()"
        environment = {key: value for key, value in os.environ.items() if not key.startswith("MARATHON_")}
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-c", code, *self.flags], stdout=output, stderr=output, env=environment
            )
        return self

    def text(self) -> str:
        return self.log.read_text(encoding="utf-8")

    def stop(self, number: int = signal.SIGKILL) -> int | None:
        """End it by a signal; gives its exit status."""
        if self.process is None:
            return None
        self.process.send_signal(number)
        return self.process.wait(SECONDS)


class Marathons:
    """Instances of one test, over the given Mesos, with a path of their own in ZooKeeper."""

    def __init__(self, mesos: Mesos) -> None:
        self.mesos = mesos
        self.zk = mesos.zk.removesuffix("/mesos") + "/marathon"
        self.instances: list[Instance] = []

    def instance(self, *flags: str, zk: str | None = None) -> Instance:
        self.instances.append(Instance(self.mesos.folder, zk or self.zk, self.mesos.zk, flags))
        return self.instances[-1].start()

    def leader(self) -> Instance:
        """The instance that leads, once one does."""

        def find() -> Instance | None:
            for instance in self.instances:
                if instance.process and instance.process.poll() is None:
                    info = instance.ask("GET", "/v2/info")
                    if info.ok and info.json()["frameworkId"]:
                        return next((one for one in self.instances if one.address == info.json()["leader"]), None)
            return None

        return eventually(find, "an instance leads")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for instance in self.instances:
            instance.stop()


def assert_is(kind: str, *answers: Any) -> None:
    """Whether answers are what the recorded schemas of Marathon 1.1.1 describe (`App`, `Task`, …)."""
    schema = json.loads((SCHEMAS / f"{kind}.json").read_text(encoding="utf-8"))
    validator = Draft7Validator(schema)
    wrong = [f"{error.json_path}: {error.message}" for answer in answers for error in validator.iter_errors(answer)]
    assert wrong == []


def address(task: Json) -> str:
    """Where a task of `SERVE` answers."""
    return f"http://{task['host']}:{task['ports'][0]}"


def fresh(text: str) -> str:
    """An id that no other app has."""
    return f"/contract-{time.time_ns()}-{text}"


@contextmanager
def doubles(zookeeper: str, folder: Path, slaves: int, masters: int = 1) -> Iterator[Marathons]:
    """Masters and slaves, and Marathons to be started over them."""
    with Mesos(zookeeper, folder) as mesos:
        for _ in range(masters):
            mesos.master(quorum=masters // 2 + 1)
        for number in range(1, slaves + 1):
            ports = f"[{20000 + number * 1000}-{20100 + number * 1000}]"
            mesos.slave(
                f"--hostname=127.0.0.{number}",
                f"--attributes=rack:r{number % 2}",
                resources=f"cpus:1;mem:512;ports:{ports}",
            )
        mesos.registered(slaves)
        with Marathons(mesos) as marathons:
            yield marathons


@dataclass(frozen=True)
class Contract:
    """The Marathon under test: its leader, a standby where there is one, and how many slaves it has at least."""

    leader: Asked
    standby: Asked | None
    slaves: int
