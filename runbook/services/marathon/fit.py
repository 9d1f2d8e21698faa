"""On which slave an app's next task would fit, and what each of the others lacks: why an app waits.

A task must fit one slave; what several have free together does not help it. Marathon 1.1 tells only that something
waits, not why, so that this is found out from the app and Mesos' state.

Sources: `ResourceMatcher.scala` and `Constraints.scala` of Marathon 1.1; its 'Constraints' and 'Ports'.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import pandas as pd

from runbook.services.marathon.apps import App
from runbook.services.mesos.resources import Ranges
from runbook.services.mesos.tables import SCALARS, Schema, typed_table

FIT: Schema = {
    "host": "string",
    "slave_id": "string",
    "fits": "boolean",  # <NA>: not known
    "room": "Int64",  # how many more tasks would fit, constraints apart; <NA>: not known
    **{column: "float64" for name in SCALARS for column in (f"{name}_wanted", f"{name}_free")},
    "ports_wanted": "Int64",
    "ports_free": "Int64",
    "lacks": "string",
    "not_known": "string",  # what cannot be told from Mesos' state
}

_DEFAULTS = {"cpus": 1.0, "mem": 128.0, "disk": 0.0}
_DOMAINS = ("@zone", "@region")
_SCALAR = re.compile(r"[0-9]+(?:\.[0-9]+)?")


def fit_table(app: App, slaves: pd.DataFrame, tasks: Iterable[Mapping[str, Any]] = ()) -> pd.DataFrame:
    """For each slave whether one more task of an app would fit, how many would, and what is short.

    `app`: its definition. `slaves`: `mesos.slaves_table` of the leader's state, with a column `gpus_free` where the
    slaves' GPUs are known. `tasks`: those of the app that live (as Marathon answers them), which its constraints look
    at. What cannot be told is in `not_known`, and `fits` is then <NA>, unless something is lacking all the same.
    """
    wanted = {name: float(app.get(name, default)) for name, default in _DEFAULTS.items()}
    asked = host_ports(app)
    gpus = float(app.get("gpus") or 0)
    places = {str(slave["id"]): _attributes(slave) for slave in slaves.to_dict("records")}
    there = [places.get(str(task.get("slaveId")), _place_of(str(task["host"]))) for task in tasks]
    columns: dict[str, list[Any]] = {name: [] for name in FIT}
    for slave in slaves.to_dict("records"):
        free = Ranges.parse(slave["ports_free"])
        lacks = [] if slave["active"] else ["it is not active"]
        lacks += [
            f"{name}: {amount:g} wanted, {slave[f'{name}_free']:g} of {slave[name]:g} free"
            for name, amount in wanted.items()
            if amount > slave[f"{name}_free"]
        ]
        lacks += _ports_lacking(asked, free, Ranges.parse(slave["ports"]))
        unknown: list[str] = []
        for constraint in app.get("constraints") or []:
            met, reason = _judged(constraint, places[str(slave["id"])], there)
            if not met:
                (unknown if met is None else lacks).append(f"constraint {' '.join(constraint)}: {reason}")
        if gpus:
            free_gpus = slave.get("gpus_free")
            if free_gpus is None or pd.isna(free_gpus):
                unknown.append(f"gpus: {gpus:g} wanted, not known how many are free")
            elif gpus > free_gpus:
                lacks.append(f"gpus: {gpus:g} wanted, {free_gpus:g} free")
        row = {
            "host": slave["host"],
            "slave_id": slave["id"],
            "fits": False if lacks else None if unknown else True,
            "room": _room(wanted, asked, slave, free, gpus),
            **{f"{name}_wanted": amount for name, amount in wanted.items()},
            **{f"{name}_free": slave[f"{name}_free"] for name in SCALARS},
            "ports_wanted": len(asked),
            "ports_free": len(free),
            "lacks": "; ".join(lacks),
            "not_known": "; ".join(unknown),
        }
        for name, value in row.items():
            columns[name].append(value)
    return typed_table(FIT, columns)


def host_ports(app: App) -> list[int]:
    """The ports that a task asks of its slave, 0 for any: one for each mapping or definition."""
    container = app.get("container") or {}
    docker = container.get("docker") or {}
    mappings = container.get("portMappings") or docker.get("portMappings")
    if mappings is not None and (docker.get("network") == "BRIDGE" or app.get("networks")):
        asked = [mapping.get("hostPort", 0) for mapping in mappings]
        return [int(port) for port in asked if port is not None]
    if app.get("portDefinitions") is not None:
        ports = [int(definition.get("port", 0)) for definition in app["portDefinitions"]]
    else:
        ports = [int(port) for port in app.get("ports", [0])]
    return ports if app.get("requirePorts") else [0] * len(ports)


def _ports_lacking(asked: Collection[int], free: Ranges, offered: Ranges) -> list[str]:
    fixed = [port for port in asked if port]
    found = [
        f"port {port}: {'in use' if port in offered else f'not among its ports {offered}'}"
        for port in fixed
        if port not in free
    ]
    any_port = len(asked) - len(fixed)
    left = len(free - Ranges((port, port) for port in fixed))
    return [*found, f"ports: {any_port} wanted, {left} free"] if any_port > left else found


def _room(
    wanted: Mapping[str, float], asked: Collection[int], slave: Mapping[Any, Any], free: Ranges, gpus: float
) -> int | None:
    """How many more tasks the free resources hold; a fixed port holds one. None: it depends on unknown GPUs."""
    limits = [int((slave[f"{name}_free"] + 1e-9) / amount) for name, amount in wanted.items() if amount]
    if any(asked):
        limits.append(int(not _ports_lacking(asked, free, free)))
    elif asked:
        limits.append(len(free) // len(asked))
    room = min(limits, default=0) if slave["active"] else 0
    if not gpus or not room:
        return room
    free_gpus = slave.get("gpus_free")
    return None if free_gpus is None or pd.isna(free_gpus) else min(room, int(free_gpus / gpus))


def _attributes(slave: Mapping[Any, Any]) -> dict[str, str]:
    pairs = (text.partition(":") for text in str(slave["attributes"] or "").split(";") if text)
    return {name: value for name, _, value in pairs} | _place_of(str(slave["host"]))


def _place_of(host: str) -> dict[str, str]:
    return {"hostname": host, "@hostname": host}


def _judged(
    constraint: list[str], place: Mapping[str, str], there: list[dict[str, str]]
) -> tuple[bool | None, str | None]:
    """Whether a place meets a constraint, given where the app's tasks are, and why not; None where it is not known."""
    name = constraint[0]
    if name in _DOMAINS:
        return None, f"its {name[1:]} is not known"
    if name not in place and name.startswith("@"):
        return None, f"{name} is not known"
    if constraint[1] not in _OPERATORS:
        return None, f"the operator {constraint[1]} is not known"
    try:
        reason = _unmet(constraint, place, there)
    except re.error as error:
        return None, f"its pattern cannot be read here: {error}"
    return reason is None, reason


def _unmet(constraint: list[str], place: Mapping[str, str], there: list[dict[str, str]]) -> str | None:
    """Why a place does not meet a constraint, given where the app's tasks are; None where it does."""
    name, operator, value = [*constraint, ""][:3]
    here = place.get(name)
    if here is None:
        return None if operator == "UNLIKE" else f"it has no {name}"
    groups = Counter(task.get(name) for task in there)
    match operator:
        case "UNIQUE" if here in groups:
            return f"a task is on {here} already"
        case "CLUSTER" if value and value != here:
            return f"its {name} is {here}"
        case "IS" if _as_scalar(value) != _as_scalar(here):
            return f"its {name} is {here}"
        case "CLUSTER" if set(groups) - {here}:
            return f"the tasks are on {', '.join(str(group) for group in groups)}"
        case "LIKE" if not re.fullmatch(value, here):
            return f"its {name} is {here}"
        case "UNLIKE" if re.fullmatch(value, here):
            return f"its {name} is {here}"
        case "MAX_PER" if value.isdigit() and groups[here] >= int(value):
            return f"{groups[here]} tasks are on {here} already"
        case "GROUP_BY" if here in groups:
            if len(groups) < (int(value) if value.isdigit() else 0):
                return f"{value} groups are wanted, and {len(groups)} have tasks"
            if groups[here] > min(groups.values()):
                return f"{here} has {groups[here]} tasks, another group {min(groups.values())}"
    return None


_OPERATORS = ("UNIQUE", "CLUSTER", "IS", "LIKE", "UNLIKE", "MAX_PER", "GROUP_BY")


def _as_scalar(value: str) -> str:
    """A number in the form in which Marathon compares it, to three places; another text as it is."""
    return f"{round(float(value), 3):g}" if _SCALAR.fullmatch(value) else value
