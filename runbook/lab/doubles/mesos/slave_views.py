"""What a slave shows: `/state`, `/monitor/statistics` and `/metrics/snapshot`."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from .checkpoint import usage
from .cluster import now
from .daemon import BUILD
from .executors import Executor
from .master_views import system
from .resources import Resources, show_attribute

if TYPE_CHECKING:
    from .slave import Slave

Json = dict[str, Any]


def state(slave: Slave) -> Json:
    live = list(slave.executors.values())
    shown: Json = {
        **BUILD,
        "attributes": {entry["name"]: show_attribute(entry) for entry in slave.info["attributes"]},
        "flags": slave.flags.values,
        "hostname": slave.address.hostname,
        "id": slave.id or "",
        "pid": f"slave(1)@{slave.address.ip}:{slave.address.port}",
        "resources": slave.resources.to_state(),
        "start_time": slave.start_time,
        "frameworks": _frameworks(live, [e for e in slave.completed if _live(e, live)]),
        "completed_frameworks": _frameworks([], [e for e in slave.completed if not _live(e, live)]),
    }
    if slave.registered and slave.leader:
        shown["master_hostname"] = slave.leader["hostname"]
    if "log_dir" in slave.flags.values:
        shown["log_dir"] = slave.flags["log_dir"]
    return shown


def _live(executor: Executor, live: list[Executor]) -> bool:
    return any(other.task.framework_id == executor.task.framework_id for other in live)


def _frameworks(live: list[Executor], over: list[Executor]) -> list[Json]:
    shown = []
    for framework_id in dict.fromkeys(executor.task.framework_id for executor in [*live, *over]):
        mine = [executor for executor in [*live, *over] if executor.task.framework_id == framework_id]
        info = mine[0].framework
        shown.append(
            {
                "id": framework_id,
                "name": info["name"],
                "user": info["user"],
                "role": info.get("role", "*"),
                "hostname": info.get("hostname", ""),
                "checkpoint": info.get("checkpoint", False),
                "failover_timeout": float(info.get("failover_timeout", 0)),
                "executors": [_executor(executor) for executor in mine if executor in live],
                "completed_executors": [_executor(executor) for executor in mine if executor in over],
            }
        )
    return shown


def _executor(executor: Executor) -> Json:
    task = executor.task
    over = task.terminal and not executor.waiting
    return {
        "id": task.id,
        "name": executor.name,
        "source": task.id,
        "container": executor.run.container,
        "directory": str(executor.run.sandbox),
        "resources": executor.resources.to_state(),
        "tasks": [] if over else [task.to_state()],
        "queued_tasks": [],
        "completed_tasks": [task.to_state()] if over else [],
    }


def statistics(executors: Iterable[Executor]) -> list[Json]:
    shown = []
    for executor in executors:
        if executor.pid is None or executor.over.is_set():
            continue
        user, system_time, resident = usage(executor.pid)
        limits = executor.resources
        shown.append(
            {
                "executor_id": executor.task.id,
                "executor_name": executor.name,
                "framework_id": executor.task.framework_id,
                "source": executor.task.id,
                "statistics": {
                    "cpus_limit": limits.get("cpus"),
                    "cpus_system_time_secs": system_time,
                    "cpus_user_time_secs": user,
                    "mem_limit_bytes": int(limits.get("mem") * 2**20),
                    "mem_rss_bytes": resident,
                    "timestamp": now(),
                },
            }
        )
    return shown


def metrics(slave: Slave) -> Json:
    """`/metrics/snapshot`, with the names of 0.28; what a double does not count stays 0."""
    live = list(slave.executors.values())
    states = Counter(executor.task.state for executor in [*live, *slave.completed])
    used = Resources.none()
    for executor in live:
        used = used + executor.resources
    shown: Json = {
        "containerizer/mesos/container_destroy_errors": 0.0,
        "containerizer/mesos/provisioner/bind/remove_rootfs_errors": 0.0,
        "containerizer/mesos/provisioner/remove_container_errors": 0.0,
        "slave/container_launch_errors": 0.0,
        "slave/executor_directory_max_allowed_age_secs": slave.flags.seconds("gc_delay"),
        "slave/executors_preempted": 0.0,
        "slave/executors_registering": float(sum(executor.pid is None for executor in live)),
        "slave/executors_running": float(sum(executor.pid is not None for executor in live)),
        "slave/executors_terminated": float(len(slave.completed)),
        "slave/executors_terminating": 0.0,
        "slave/frameworks_active": float(len({executor.task.framework_id for executor in live})),
        "slave/recovery_errors": 0.0,
        "slave/registered": float(slave.registered),
        "slave/uptime_secs": time.time() - slave.start_time,
    }
    shown |= {f"slave/{kind}_{what}": 0.0 for kind in ("valid", "invalid") for what in ("framework_messages",)}
    shown |= {"slave/invalid_status_updates": 0.0}
    shown["slave/valid_status_updates"] = float(
        sum(len(executor.task.statuses) for executor in [*live, *slave.completed])
    )
    for name in ("failed", "finished", "killed", "killing", "lost", "running", "staging", "starting"):
        shown[f"slave/tasks_{name}"] = float(states[f"TASK_{name.upper()}"])
    for name in ("cpus", "disk", "mem"):
        total = slave.resources.get(name)
        shown |= {f"slave/{name}_total": total, f"slave/{name}_used": used.get(name)}
        shown[f"slave/{name}_percent"] = used.get(name) / total if total else 0.0
        shown |= {f"slave/{name}_revocable_{what}": 0.0 for what in ("total", "used", "percent")}
    return shown | system()
