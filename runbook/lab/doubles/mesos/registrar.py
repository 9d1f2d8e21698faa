"""The registry of admitted slaves, kept on a quorum of the masters, as Mesos' replicated log keeps it.

Each master is a replica: a file in `<work_dir>/replicated_log`, EMPTY until the log was initialised, VOTING after. The
elected master fetches the newest registry from a quorum of voting replicas (or initialises the log, once
2 * quorum - 1 masters are there and all are EMPTY), and stores each change on a quorum. A replica refuses a master of
an earlier epoch.
"""

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .glog import Log
from .http import Gone, Request, Response, call, ok, text

Json = dict[str, Any]
PATH = "/rehearsal/replica"
PAUSE = 0.5  # seconds between two attempts at a quorum


class RegistryError(Exception):
    """No quorum of replicas in time; the message is Mesos'."""


class Replica:
    """This master's own copy: `{"status", "position": [epoch, number], "registry"}`."""

    def __init__(self, work_dir: str) -> None:
        self.file = Path(work_dir, "replicated_log", "registry.json")
        self.file.parent.mkdir(parents=True, exist_ok=True)
        self._lock = threading.Lock()
        self.entry: Json = {"status": "EMPTY", "position": [0, 0], "registry": {}}
        if self.file.exists():
            self.entry = json.loads(self.file.read_text(encoding="utf-8"))

    def serve(self, request: Request) -> Response:
        if request.method == "GET":
            return ok(self.entry)
        entry = request.json()
        with self._lock:
            if entry["position"] < self.entry["position"]:
                return text(409, f"this replica is at {self.entry['position']}")
            new = self.file.with_suffix(".new")
            new.write_text(json.dumps(entry), encoding="utf-8")
            new.replace(self.file)
            self.entry = entry
        return ok({})


class Registrar:
    """The elected master's hold on the registry."""

    def __init__(self, quorum: int, replicas: Callable[[], list[str]], log: Log) -> None:
        """`replicas` gives the present `ip:port` of every replica, one's own included."""
        self._quorum = quorum
        self._replicas = replicas
        self._log = log
        self._lock = threading.Lock()
        self._position = [0, 0]
        self.registry: Json = {}
        self.fetch_seconds = 0.0
        self.store_seconds: list[float] = []

    @property
    def size(self) -> int:
        return len(json.dumps(self.registry)) if self.registry else 0

    def recover(self, seconds: float, shown: str) -> None:
        """Fetch the registry, waiting up to `seconds` (`shown` in the message) for a quorum; `RegistryError` after."""
        self._log.info("registrar.cpp:307", "Recovering registrar")
        start = time.monotonic()
        while (newest := self._newest()) is None:
            if time.monotonic() - start > seconds:
                raise RegistryError(f"Failed to recover registrar: Failed to perform fetch within {shown}")
            time.sleep(PAUSE)
        self.fetch_seconds = time.monotonic() - start
        self.registry = newest["registry"]
        self._log.info(
            "registrar.cpp:340",
            f"Successfully fetched the registry ({self.size}B) in {self.fetch_seconds * 1000:.6f}ms",
        )
        self._position = [newest["position"][0] + 1, 0]
        self.update(lambda registry: registry, seconds, shown)
        self._log.info("registrar.cpp:370", "Successfully recovered registrar")

    def update(self, change: Callable[[Json], Json], seconds: float, shown: str) -> None:
        """Apply `change` to the registry and store it on a quorum within `seconds`; `RegistryError` else."""
        with self._lock:
            registry = change(self.registry)
            self._position[1] += 1
            entry = {"status": "VOTING", "position": self._position, "registry": registry}
            start = time.monotonic()
            while sum(self._offer(replica, entry) for replica in self._replicas()) < self._quorum:
                if time.monotonic() - start > seconds:
                    failure = f"Failed to update 'registry': Failed to perform store within {shown}"
                    self._log.error("registrar.cpp:506", f"Registrar aborting: {failure}")
                    raise RegistryError(failure)
                time.sleep(PAUSE)
            self.store_seconds.append(time.monotonic() - start)
            self.registry = registry

    def _newest(self) -> Json | None:
        entries: list[Json] = []
        for replica in self._replicas():
            try:
                entries.append(call(replica, "GET", PATH, seconds=2))
            except Gone:
                continue
        voting = [entry for entry in entries if entry["status"] == "VOTING"]
        if len(voting) >= self._quorum:
            return max(voting, key=lambda entry: entry["position"])
        if not voting and len(entries) >= 2 * self._quorum - 1:
            return entries[0]
        return None

    def _offer(self, replica: str, entry: Json) -> bool:
        try:
            call(replica, "POST", PATH, entry, seconds=2)
        except Gone:
            return False
        return True
