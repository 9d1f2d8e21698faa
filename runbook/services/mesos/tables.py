"""Mesos' state as pandas DataFrames, with the same typed columns whether they are full or empty.

Text is `string`, amounts are `float64` (CPUs; MB of memory and disk), counts are `Int64`, truths are `boolean`, and
times are `datetime64[ns, UTC]`. What is not known is `<NA>` or `NaT`. A column of ports holds Mesos' own text,
`[8401-8599, 8601-9100]`, for `Ranges.parse`; beside it stands their number.

All take the leader's state (`MesosMaster.state`), of 0.28 through 1.11, and make whole columns at once: a thousand
slaves with 20,000 tasks cost less than reading their JSON (benchmarks/mesos_tables.py).

Source: recorded from Mesos 0.28.0; 'HTTP Endpoints' of Mesos' documentation for what later versions add.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from runbook.errors import RunbookError
from runbook.services.mesos.client import State
from runbook.services.mesos.election import Election, MasterView, address_of
from runbook.services.mesos.resources import Ranges, show

TERMINAL = frozenset(
    f"TASK_{state}"
    for state in ("FINISHED", "FAILED", "KILLED", "ERROR", "LOST", "DROPPED", "GONE", "GONE_BY_OPERATOR")
)
"""Task states that nothing follows. A task stays in `tasks` in one of them until its framework acknowledges it."""

SCALARS = ("cpus", "mem", "disk")

Schema = Mapping[str, str]
_TIME = "datetime64[ns, UTC]"
_SPAN = "timedelta64[ns]"

MASTERS: Schema = {
    "master": "string",
    "address": "string",
    "answers": "boolean",
    "version": "string",
    "leads": "boolean",
    "names": "string",
    "elected": _TIME,
    "started": _TIME,
    "uptime": _SPAN,
    "znode": "string",
    "log_replica": "boolean",
    "problem": "string",
}

SLAVES: Schema = {
    "id": "string",
    "host": "string",
    "address": "string",
    "active": "boolean",
    "version": "string",
    "registered": _TIME,
    "reregistered": _TIME,
    "tasks": "Int64",  # that have not ended
    **{column: "float64" for name in SCALARS for column in (name, f"{name}_used", f"{name}_free")},
    "ports": "string",
    "ports_used": "string",
    "ports_free": "string",
    "port_count": "Int64",
    "port_count_free": "Int64",
    "attributes": "string",
}

TASKS: Schema = {
    "id": "string",
    "name": "string",
    "framework": "string",
    "framework_id": "string",
    "slave_id": "string",
    "host": "string",
    "state": "string",
    "live": "boolean",  # has not ended
    "orphan": "boolean",  # its framework is not there
    "healthy": "boolean",
    **dict.fromkeys(SCALARS, "float64"),
    "ports": "string",
    "image": "string",
    "running_since": _TIME,
    "updated": _TIME,
}

FRAMEWORKS: Schema = {
    "id": "string",
    "name": "string",
    "status": "string",  # active, inactive, completed, unregistered
    "role": "string",
    "host": "string",
    "user": "string",
    "checkpoint": "boolean",
    "failover_timeout": "float64",  # seconds
    "registered": _TIME,
    "unregistered": _TIME,
    "tasks": "Int64",  # that have not ended
    "cpus_used": "float64",
    "mem_used": "float64",
    "webui": "string",
}

RESOURCES: Schema = {
    "resource": "string",
    "unit": "string",
    "total": "float64",
    "used": "float64",
    "offered": "float64",
    "free": "float64",
    "used_share": "float64",  # 0 to 1; NaN where there is none
}

METRICS: Schema = {"metric": "string", "value": "float64", "meaning": "string"}

WORTH_READING: Mapping[str, str] = {
    "master/elected": "1 on the leader, 0 on a standby",
    "master/uptime_secs": "seconds since the master started",
    "registrar/registry_size_bytes": "only on a leader that has recovered the registry",
    "registrar/state_store_ms/p99": "ms that 99 of 100 writes to the replicated log stay below",
    "registrar/queued_operations": "writes to the registry that wait for the log's quorum",
    "master/slaves_active": "slaves that are offered to frameworks",
    "master/slaves_disconnected": "slaves that were just lost; after 75 s they are removed",
    "master/slave_removals": "slaves removed since the election; each lost its tasks",
    "master/frameworks_active": "frameworks connected, Marathon's leader among them",
    "master/frameworks_inactive": "frameworks that are gone but may come back within their failover_timeout",
    "master/tasks_running": "tasks that run",
    "master/tasks_staging": "tasks that are being started, their images pulled",
    "master/tasks_failed": "tasks that failed since the election",
    "master/tasks_lost": "tasks lost with their slave since the election",
    "master/dropped_messages": "messages that the master could not use",
    "master/event_queue_dispatches": "work that waits in the master",
    "master/cpus_percent": "share of CPUs in use, 0 to 1",
    "master/mem_percent": "share of memory in use, 0 to 1",
    "system/load_5min": "load of the master's host",
    "system/mem_free_bytes": "free memory of the master's host",
}


def masters_table(views: Mapping[str, MasterView | RunbookError], election: Election) -> pd.DataFrame:
    """Each master of the site, by what it says or the error that was met (`Masters.views`), and by its znodes.

    `names` is the leader that it names. One that does not answer has only its `problem`.
    """
    records = {record.address: record for record in election.masters}
    # a standby of 1.0 and later tells no ip
    records |= {f"{record.hostname}:{record.port}": record for record in election.masters}
    replicas = {replica.address for replica in election.replicas}
    rows = []
    for name, view in views.items():
        row: dict[str, Any] = {"master": name, "answers": isinstance(view, MasterView)}
        if isinstance(view, MasterView):
            record = records.get(view.address)
            row |= {
                "address": view.address,
                "version": view.version,
                "leads": view.elected is not None,
                "names": view.leader,
                "elected": view.elected and view.elected.timestamp(),
                "started": view.started and view.started.timestamp(),
                "uptime": view.uptime and view.uptime.total_seconds(),
                "znode": record.znode if record else None,
                "log_replica": (record.address if record else view.address) in replicas,
            }
        else:
            row["problem"] = view.message
        rows.append(row)
    return typed_table(MASTERS, {column: [row.get(column) for row in rows] for column in MASTERS})


def slaves_table(state: State) -> pd.DataFrame:
    """The slaves that are registered, with what they offer, what is used of it, and what is free.

    What is used is what tasks and executors hold; what is only offered to a framework counts as free.
    """
    slaves = state["slaves"]
    live = Counter(task["slave_id"] for _, _, task in _tasks(state) if task["state"] not in TERMINAL)
    total = [slave["resources"] for slave in slaves]
    used = [slave.get("used_resources", {}) for slave in slaves]
    ports = [Ranges.parse(resources.get("ports")) for resources in total]
    ports_used = [Ranges.parse(resources.get("ports")) for resources in used]
    ports_free = [mine - taken for mine, taken in zip(ports, ports_used, strict=True)]
    columns: dict[str, list[Any]] = {
        "id": [slave["id"] for slave in slaves],
        "host": [slave["hostname"] for slave in slaves],
        "address": [address_of(slave["pid"]) for slave in slaves],
        "active": [slave["active"] for slave in slaves],
        "version": [slave.get("version") for slave in slaves],
        "registered": [slave.get("registered_time") for slave in slaves],
        "reregistered": [slave.get("reregistered_time") for slave in slaves],
        "tasks": [live[slave["id"]] for slave in slaves],
        "ports": [str(ranges) for ranges in ports],
        "ports_used": [str(ranges) for ranges in ports_used],
        "ports_free": [str(ranges) for ranges in ports_free],
        "port_count": [len(ranges) for ranges in ports],
        "port_count_free": [len(ranges) for ranges in ports_free],
        "attributes": [_attributes(slave.get("attributes", {})) for slave in slaves],
    }
    for name in SCALARS:
        has = [resources.get(name, 0.0) for resources in total]
        uses = [resources.get(name, 0.0) for resources in used]
        columns |= {name: has, f"{name}_used": uses, f"{name}_free": _less(has, uses)}
    return typed_table(SLAVES, columns)


def tasks_table(state: State, *, slave_id: str | None = None) -> pd.DataFrame:
    """The tasks that the master remembers, ended ones included; with `slave_id` only those of that slave.

    `tasks_table(state, slave_id=…).query("live")` is what a reset of that slave would lose. `running_since` is when
    it first ran, `updated` when its last state was reported. 0.28 tells neither reason nor message of a state.
    """
    found = [row for row in _tasks(state) if slave_id is None or row[2]["slave_id"] == slave_id]
    tasks = [task for _, _, task in found]
    hosts = {slave["id"]: slave["hostname"] for slave in state["slaves"]}
    resources = [task.get("resources", {}) for task in tasks]
    statuses = [task.get("statuses") or () for task in tasks]
    states = [task["state"] for task in tasks]
    columns: dict[str, list[Any]] = {
        "id": [task["id"] for task in tasks],
        "name": [task.get("name") for task in tasks],
        "framework": [name for name, _, _ in found],
        "framework_id": [task["framework_id"] for task in tasks],
        "slave_id": [task["slave_id"] for task in tasks],
        "host": [hosts.get(task["slave_id"]) for task in tasks],
        "state": states,
        "live": [state not in TERMINAL for state in states],
        "orphan": [orphan for _, orphan, _ in found],
        "healthy": [reports[-1].get("healthy") if reports else None for reports in statuses],
        **{name: [amounts.get(name, 0.0) for amounts in resources] for name in SCALARS},
        "ports": [amounts.get("ports", "[]") for amounts in resources],
        "image": [_image(task.get("container")) for task in tasks],
        "running_since": [_first_running(reports) for reports in statuses],
        "updated": [reports[-1].get("timestamp") if reports else None for reports in statuses],
    }
    return typed_table(TASKS, columns)


def frameworks_table(state: State) -> pd.DataFrame:
    """The frameworks: those that are registered, those that have ended, and those that only their tasks tell of.

    `unregistered` are those that have not come back since the leader changed: their tasks are orphans.
    """
    rows = [(_status(framework), framework) for framework in state["frameworks"]]
    rows += [("completed", framework) for framework in state.get("completed_frameworks", ())]
    known = {framework["id"] for _, framework in rows}
    rows += [
        ("unregistered", {"id": framework_id})
        for framework_id in state.get("unregistered_frameworks", ())
        if framework_id not in known
    ]
    live = Counter(task["framework_id"] for _, _, task in _tasks(state) if task["state"] not in TERMINAL)
    frameworks = [framework for _, framework in rows]
    used = [framework.get("used_resources", {}) for framework in frameworks]
    return typed_table(
        FRAMEWORKS,
        {
            "id": [framework["id"] for framework in frameworks],
            "name": [framework.get("name") for framework in frameworks],
            "status": [status for status, _ in rows],
            "role": [_roles(framework) for framework in frameworks],
            "host": [framework.get("hostname") for framework in frameworks],
            "user": [framework.get("user") for framework in frameworks],
            "checkpoint": [framework.get("checkpoint") for framework in frameworks],
            "failover_timeout": [framework.get("failover_timeout", np.nan) for framework in frameworks],
            "registered": [framework.get("registered_time") for framework in frameworks],
            "unregistered": [framework.get("unregistered_time") for framework in frameworks],
            "tasks": [live[framework["id"]] for framework in frameworks],
            "cpus_used": [amounts.get("cpus", 0.0) for amounts in used],
            "mem_used": [amounts.get("mem", 0.0) for amounts in used],
            "webui": [framework.get("webui_url") or None for framework in frameworks],
        },
    )


def resources_table(state: State) -> pd.DataFrame:
    """The cluster's CPUs, memory, disk and ports: what the active slaves have, and what is used, offered and free.

    What is offered is neither used nor held back for long, but nobody else can have it meanwhile; it is part of `free`.
    """
    slaves = [slave for slave in state["slaves"] if slave["active"]]

    def amount(resources: str, name: str) -> float:
        amounts = (slave.get(resources, {}).get(name) for slave in slaves)
        if name == "ports":
            return float(sum(len(Ranges.parse(ports)) for ports in amounts))
        return round(sum(number or 0.0 for number in amounts), 3)

    units = {"cpus": "CPUs", "mem": "MB", "disk": "MB", "ports": "ports"}
    total = [amount("resources", name) for name in units]
    used = [amount("used_resources", name) for name in units]
    return typed_table(
        RESOURCES,
        {
            "resource": list(units),
            "unit": list(units.values()),
            "total": total,
            "used": used,
            "offered": [amount("offered_resources", name) for name in units],
            "free": _less(total, used),
            "used_share": [uses / has if has else np.nan for has, uses in zip(total, used, strict=True)],
        },
    )


def metrics_table(metrics: Mapping[str, float], *, everything: bool = False) -> pd.DataFrame:
    """The metrics worth reading and what they mean, or `everything`; one that is not known at the moment is NaN."""
    names = [*WORTH_READING, *sorted(metrics.keys() - WORTH_READING.keys())] if everything else list(WORTH_READING)
    return typed_table(
        METRICS,
        {
            "metric": names,
            "value": [metrics.get(name, np.nan) for name in names],
            "meaning": [WORTH_READING.get(name) for name in names],
        },
    )


def typed_table(schema: Schema, columns: Mapping[str, Sequence[Any]]) -> pd.DataFrame:
    """A DataFrame with exactly the columns and types of the schema; times come in seconds."""
    return pd.DataFrame({name: _series(columns[name], kind) for name, kind in schema.items()})


def _series(values: Sequence[Any], kind: str) -> pd.Series[Any]:
    if kind == _TIME:
        # seconds since 1970, of which Mesos writes microseconds; 0 is never
        seconds = np.array([value or np.nan for value in values], dtype=float)
        return pd.Series(pd.to_datetime(seconds, unit="s", utc=True).round("us"), dtype=kind)
    if kind == _SPAN:
        return pd.Series(pd.to_timedelta(np.array(values, dtype=float), unit="s"), dtype=kind)
    return pd.Series(values, dtype=kind)


def _less(total: Sequence[float], used: Sequence[float]) -> list[float]:
    """What is left, to Mesos' three decimals: 2 - 0.1 - 0.1 would not be 1.8 in floating point."""
    return [round(has - uses, 3) for has, uses in zip(total, used, strict=True)]


def _tasks(state: State) -> Iterator[tuple[str | None, bool, Mapping[str, Any]]]:
    """Every task with its framework's name and whether it is an orphan."""
    for framework in (*state["frameworks"], *state.get("completed_frameworks", ())):
        name = framework.get("name")
        # since 1.2 what a lost slave ran stands apart
        for tasks in ("tasks", "unreachable_tasks", "completed_tasks"):
            for task in framework.get(tasks, ()):
                yield name, False, task
    for task in state.get("orphan_tasks", ()):
        yield None, True, task


def _first_running(reports: Iterable[Mapping[str, Any]]) -> float | None:
    return next((report.get("timestamp") for report in reports if report["state"] == "TASK_RUNNING"), None)


def _image(container: Mapping[str, Any] | None) -> str | None:
    return container.get("docker", {}).get("image") if container else None


def _attributes(attributes: Mapping[str, Any]) -> str:
    shown = {name: show(value) if isinstance(value, float) else value for name, value in attributes.items()}
    return ";".join(f"{name}:{value}" for name, value in sorted(shown.items()))


def _status(framework: Mapping[str, Any]) -> str:
    return "active" if framework.get("active") else "inactive"


def _roles(framework: Mapping[str, Any]) -> str | None:
    """The role, or the roles that a framework of 1.2 and later may have."""
    return ", ".join(framework["roles"]) if "roles" in framework else framework.get("role")
