"""Maintenance of machines: `/maintenance/schedule`, `/maintenance/status`, `/machine/down` and `/machine/up`.

A machine is named by hostname and IP, both of which must match a slave's. One that is in the schedule is draining; only
then can it be taken down, which removes its slaves.
"""

from collections.abc import Callable
from typing import Any

from .http import Request, Response, not_allowed, ok, text

Json = dict[str, Any]


class Maintenance:
    """The schedule and the machines that are down, kept in the registry under `maintenance`."""

    def __init__(
        self,
        registry: Callable[[], Json],
        store: Callable[[Callable[[Json], Json]], None],
        drop: Callable[[Json], None],
    ) -> None:
        """`registry` gives the present one, `store` applies a change to it, `drop` removes the slaves of a machine."""
        self._registry = registry
        self._store = store
        self._drop = drop

    @property
    def _kept(self) -> Json:
        kept: Json = self._registry().get("maintenance", {"schedule": {}, "down": []})
        return kept

    def _keep(self, schedule: Json, down: list[Json]) -> None:
        self._store(lambda registry: registry | {"maintenance": {"schedule": schedule, "down": down}})

    def is_down(self, info: Json) -> bool:
        return _machine(info) in self._kept["down"]

    def unavailability(self, info: Json) -> Json | None:
        """When a slave's machine is scheduled to be unavailable, if ever."""
        for window in self._kept["schedule"].get("windows", []):
            if _machine(info) in map(_machine, window["machine_ids"]):
                found: Json = window["unavailability"]
                return found
        return None

    def schedule(self, request: Request) -> Response:
        if request.method == "GET":
            return ok(self._kept["schedule"])
        if request.method != "POST":
            return not_allowed(request, "GET", "POST")
        try:
            schedule = request.json()
            listed = [_machine(m) for window in schedule.get("windows", []) for m in window["machine_ids"]]
            _ = [window["unavailability"]["start"] for window in schedule.get("windows", [])]
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            return text(400, f"Failed to convert JSON into Schedule protobuf: {error}")
        if len({str(machine) for machine in listed}) < len(listed):
            return text(400, "A machine appears more than once in the schedule")
        if any(machine not in listed for machine in self._kept["down"]):
            return text(400, "Machines in the DOWN mode cannot be removed from the schedule")
        self._keep(schedule, self._kept["down"])
        return text(200)

    def status(self, request: Request) -> Response:
        if request.method != "GET":
            return not_allowed(request, "GET")
        down = self._kept["down"]
        draining = [{"id": machine} for machine in self._scheduled() if machine not in down]
        shown = {"draining_machines": draining, "down_machines": down}
        return ok({name: machines for name, machines in shown.items() if machines})

    def down(self, request: Request) -> Response:
        return self._move(request, goes_down=True)

    def up(self, request: Request) -> Response:
        return self._move(request, goes_down=False)

    def _scheduled(self) -> list[Json]:
        windows = self._kept["schedule"].get("windows", [])
        return [_machine(machine) for window in windows for machine in window["machine_ids"]]

    def _move(self, request: Request, goes_down: bool) -> Response:
        if request.method != "POST":
            return not_allowed(request, "POST")
        try:
            named = request.json()
            if not isinstance(named, list):
                raise TypeError("Expecting an array")
            machines = [_machine(machine) for machine in named]
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            return text(400, f"Failed to convert JSON into an array of MachineIDs: {error}")
        down = self._kept["down"]
        for machine in machines:
            if machine not in self._scheduled():
                return text(400, f"Machine '{machine}' is not part of a maintenance schedule")
            if goes_down == (machine in down):
                mode, way = ("DRAINING", "down") if goes_down else ("DOWN", "up")
                return text(400, f"Machine '{machine}' is not in {mode} mode and cannot be brought {way}")
        if goes_down:
            self._keep(self._kept["schedule"], down + machines)
            for machine in machines:
                self._drop(machine)
        else:
            windows = []
            for window in self._kept["schedule"].get("windows", []):
                left = [machine for machine in window["machine_ids"] if _machine(machine) not in machines]
                windows += [window | {"machine_ids": left}] if left else []
            self._keep({"windows": windows} if windows else {}, [m for m in down if m not in machines])
        return text(200)


def _machine(info: Json) -> Json:
    return {"hostname": info["hostname"].lower(), "ip": info["ip"]}
