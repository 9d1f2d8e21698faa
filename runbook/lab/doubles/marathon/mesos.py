"""The conversation with Mesos: its scheduler HTTP API (JSON, events in RecordIO), as recorded from Mesos 0.28.0.

`zk://…/mesos` is asked who leads; a `host:port` is asked itself, and its redirect followed.
"""

import json
import logging
import threading
from collections.abc import Callable, Iterator
from http.client import HTTPConnection, HTTPException, HTTPResponse
from typing import Any
from urllib.parse import urlsplit

from kazoo.client import KazooClient
from kazoo.exceptions import KazooException, NoNodeError

Json = dict[str, Any]
PATH = "/api/v1/scheduler"
PAUSE = 1.0  # seconds between two attempts to subscribe
IDLE = 45.0  # seconds: three of Mesos' heartbeats
LIMIT = 5.0  # seconds for a call

log = logging.getLogger(__name__)


class Masters:
    """Where the leading master is, by ZooKeeper or by an address."""

    def __init__(self, master: str, zookeeper: Callable[[str], tuple[KazooClient, str]]) -> None:
        self._address: str | None = None
        if master.startswith("zk://"):
            self._zookeeper, self._path = zookeeper(master)
            self._zookeeper.start_async()
        else:
            self._address = urlsplit(master).netloc or master

    def leader(self) -> str | None:
        """`host:port`; None where nobody leads, or ZooKeeper does not say."""
        if self._address:
            return self._address
        try:
            names = self._zookeeper.get_children(self._path)
            first = min(name for name in names if name.startswith("json.info_"))
            info = json.loads(self._zookeeper.get(f"{self._path}/{first}")[0])
        except (ValueError, NoNodeError):
            return None
        except (KazooException, self._zookeeper.handler.timeout_exception) as error:
            log.warning("Could not look up the leading master: %r", error)
            return None
        return f"{info['address']['ip']}:{info['address']['port']}"


class Driver(threading.Thread):
    """Keeps the framework subscribed to whichever master leads, and tells `handle` every event, in their order.

    `info` gives the FrameworkInfo, with its id where it has one, at each attempt.
    """

    def __init__(self, masters: Masters, info: Callable[[], Json], handle: Callable[[Json], None]) -> None:
        super().__init__(name="mesos", daemon=True)
        self._masters = masters
        self._info = info
        self._handle = handle
        self._stopped = threading.Event()
        self._stream: HTTPConnection | None = None
        self._master = ""
        self._stream_id = ""
        self._framework_id: Json | None = None

    def run(self) -> None:
        while not self._stopped.is_set():
            if master := self._masters.leader():
                try:
                    self._subscribe(master)
                except (OSError, HTTPException) as error:
                    log.warning("Lost the connection to the master %s: %r", master, error)
            self._stopped.wait(PAUSE)

    def stop(self) -> None:
        """End the connection; Mesos keeps the framework for its failover_timeout."""
        self._stopped.set()
        if self._stream and self._stream.sock:
            try:
                self._stream.sock.shutdown(2)
            except OSError:
                return  # Mesos was faster

    def call(self, kind: str, **content: object) -> bool:
        """Tell Mesos something; False where it did not take it. It needs a subscription, and is for `handle` to use."""
        if self._framework_id is None:
            return False
        message = {"type": kind, "framework_id": self._framework_id, **content}
        connection = HTTPConnection(self._master, timeout=LIMIT)
        try:
            connection.request("POST", PATH, json.dumps(message), self._headers(Mesos_Stream_Id=self._stream_id))
            answer = connection.getresponse()
            said = answer.read().decode(errors="replace")
        except (OSError, HTTPException) as error:
            log.warning("Could not tell Mesos %s: %r", kind, error)
            return False
        finally:
            connection.close()
        if answer.status != 202:
            log.warning("Mesos answered %d to %s: %s", answer.status, kind, said)
        return answer.status == 202

    def _subscribe(self, master: str, hops: int = 2) -> None:
        info = self._info()
        call: Json = {"type": "SUBSCRIBE", "subscribe": {"framework_info": info}}
        if "id" in info:
            call["framework_id"] = info["id"]
        self._stream = connection = HTTPConnection(master, timeout=IDLE)
        try:
            connection.request("POST", PATH, json.dumps(call), self._headers())
            answer = connection.getresponse()
            if answer.status == 307 and hops:
                self._subscribe(urlsplit(answer.headers["Location"]).netloc, hops - 1)
                return
            if answer.status != 200:
                said = answer.read().decode(errors="replace")
                log.warning("The master %s answered %d to SUBSCRIBE: %s", master, answer.status, said)
                return
            self._master, self._stream_id = master, answer.headers["Mesos-Stream-Id"]
            for event in _records(answer):
                if self._stopped.is_set():
                    return
                if event["type"] == "SUBSCRIBED":
                    self._framework_id = event["subscribed"]["framework_id"]
                self._handle(event)
        finally:
            self._framework_id = None
            connection.close()

    def _headers(self, **more: str) -> dict[str, str]:
        return {
            "Content-Type": "application/json",
            "Accept": "application/json",
            **{name.replace("_", "-"): value for name, value in more.items()},
        }


def _records(answer: HTTPResponse) -> Iterator[Json]:
    """The events of a stream in RecordIO: the length of each in decimal, a newline, its JSON."""
    while length := answer.readline():
        try:
            event = json.loads(answer.read(int(length)))
        except ValueError as error:
            raise HTTPException(f"not a record: {error}") from error
        yield event
