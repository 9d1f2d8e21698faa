"""Maintenance of machines: `/maintenance/schedule`, `/maintenance/status`, `/machine/down` and `/machine/up`.

A machine is named by hostname and IP, both of which must match a slave's; one that is named by its hostname only is
accepted, without effect on a slave. One that is in the schedule is draining; only then can it be taken down, which
removes its slaves. A standby answers too, by its own knowledge, which is none.

Source: tests/payloads/mesos-0.28.0/nine-chapters/maintenance.json and answers.json; `src/master/maintenance.cpp`.
"""

from collections.abc import Callable, Iterable
from ipaddress import IPv4Address
from typing import Any

from .http import Request, Response, compact, not_allowed, ok, text
from .protobuf import MACHINE_ID, SCHEDULE, ConversionError, parse_message, parse_messages

Json = dict[str, Any]
Machine = tuple[str, str]


class Maintenance:
    """The schedule and the machines that are down, kept in the registry under `maintenance`."""

    def __init__(
        self,
        registry: Callable[[], Json],
        store: Callable[[Callable[[Json], Json]], None],
        drop: Callable[[Json], None],
        slaves: Callable[[], Iterable[Json]],
    ) -> None:
        """Use a registry and the slaves of a master.

        `registry` gives the present one, `store` applies a change to it, `drop` removes the slaves of a machine,
        `slaves` gives the infos of those that are registered.
        """
        self._registry = registry
        self._store = store
        self._drop = drop
        self._slaves = slaves

    @property
    def _kept(self) -> Json:
        kept: Json = self._registry().get("maintenance", {"schedule": {}, "down": []})
        return kept

    def _keep(self, schedule: Json, down: list[Json]) -> None:
        self._store(lambda registry: registry | {"maintenance": {"schedule": schedule, "down": down}})

    def _scheduled(self) -> list[Json]:
        windows = self._kept["schedule"].get("windows", [])
        return [machine for window in windows for machine in window["machine_ids"]]

    def is_down(self, info: Json) -> bool:
        return _machine(info) in map(_machine, self._kept["down"])

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
            schedule = parse_message(request.body, SCHEDULE)
            for window in schedule.get("windows", []):
                if not window.get("machine_ids"):
                    raise ConversionError("List of machines in the maintenance window is empty")
                if window["unavailability"].get("duration", {"nanoseconds": 0})["nanoseconds"] < 0:
                    raise ConversionError("Unavailability 'duration' is negative")
            listed = [machine for window in schedule.get("windows", []) for machine in window["machine_ids"]]
            _check(listed)
        except ConversionError as error:
            return text(400, str(error))
        for machine in self._kept["down"]:
            if _machine(machine) not in map(_machine, listed):
                return text(400, f"Machine '{compact(machine)}' is deactivated and cannot be removed from the schedule")
        self._keep(schedule, self._kept["down"])
        return text(200)

    def status(self, request: Request) -> Response:
        if request.method != "GET":
            return not_allowed(request, "GET")
        down = self._kept["down"]
        gone = [_machine(machine) for machine in down]
        draining = [{"id": machine} for machine in self._scheduled() if _machine(machine) not in gone]
        shown = {"draining_machines": draining, "down_machines": down}
        return ok({name: machines for name, machines in shown.items() if machines})

    def down(self, request: Request) -> Response:
        return self._move(request, goes_down=True)

    def up(self, request: Request) -> Response:
        return self._move(request, goes_down=False)

    def _move(self, request: Request, goes_down: bool) -> Response:
        if request.method != "POST":
            return not_allowed(request, "POST")
        try:
            named = parse_messages(request.body, MACHINE_ID)
            if not named:
                raise ConversionError("List of machines is empty")
            _check(named)
        except ConversionError as error:
            return text(400, str(error))
        down = [_machine(machine) for machine in self._kept["down"]]
        scheduled = [_machine(machine) for machine in self._scheduled()]
        known = [*scheduled, *map(_machine, self._slaves())]
        for machine in named:
            if _machine(machine) not in known:
                return text(400, f"Machine '{compact(machine)}' is not part of a maintenance schedule")
            mode = "DOWN" if _machine(machine) in down else "DRAINING" if _machine(machine) in scheduled else "UP"
            needed, way = ("DRAINING", "down") if goes_down else ("DOWN", "up")
            if mode != needed:
                return text(400, f"Machine '{compact(machine)}' is not in {needed} mode and cannot be brought {way}")
        if goes_down:
            self._keep(self._kept["schedule"], self._kept["down"] + named)
            for machine in named:
                self._drop(machine)
        else:
            moved = [_machine(machine) for machine in named]
            windows = []
            for window in self._kept["schedule"].get("windows", []):
                left = [machine for machine in window["machine_ids"] if _machine(machine) not in moved]
                windows += [window | {"machine_ids": left}] if left else []
            still_down = [machine for machine in self._kept["down"] if _machine(machine) not in moved]
            self._keep({"windows": windows} if windows else {}, still_down)
        return text(200)


def _machine(info: Json) -> Machine:
    """What two names of a machine are compared by."""
    return info.get("hostname", "").lower(), info.get("ip", "")


def _check(machines: list[Json]) -> None:
    """Raise `ConversionError` where a machine has no name, a wrong IP, or occurs twice."""
    seen: list[Machine] = []
    for machine in machines:
        if not any(_machine(machine)):
            raise ConversionError("Both 'hostname' and 'ip' for a machine are empty")
        if ip := machine.get("ip"):
            try:
                IPv4Address(ip)
            except ValueError as error:
                raise ConversionError(f"Failed to parse the IP: '{ip}'") from error
        if _machine(machine) in seen:
            raise ConversionError(f"Machine '{compact(machine)}' appears more than once in the schedule")
        seen.append(_machine(machine))
