"""What an elected or standing-by master shows: the JSON of `/state` and its relatives, and the metrics."""

import os
import time
from collections import Counter
from collections.abc import Iterable
from statistics import quantiles
from typing import Any

from .cluster import STATES, Task
from .registrar import Registrar
from .resources import Resources, show_attribute
from .state import Cluster, Framework, Slave

Json = dict[str, Any]
MESSAGES = [
    *("authenticate", "deactivate_framework", "decline_offers", "executor_to_framework", "exited_executor"),
    *("framework_to_executor", "kill_task", "launch_tasks", "reconcile_tasks", "register_framework"),
    *("register_slave", "reregister_framework", "reregister_slave", "resource_request", "revive_offers"),
    *("status_update", "status_update_acknowledgement", "suppress_offers", "unregister_framework"),
    *("unregister_slave", "update_slave"),
]
COUNTED = [
    *(f"messages_{name}" for name in MESSAGES),
    *("dropped_messages", "event_queue_dispatches", "event_queue_http_requests", "event_queue_messages"),
    *("invalid_executor_to_framework_messages", "invalid_framework_to_executor_messages"),
    *("invalid_status_update_acknowledgements", "invalid_status_updates", "recovery_slave_removals"),
    *("slave_registrations", "slave_removals", "slave_removals/reason_registered"),
    *("slave_removals/reason_unhealthy", "slave_removals/reason_unregistered", "slave_reregistrations"),
    *("slave_shutdowns_canceled", "slave_shutdowns_completed", "slave_shutdowns_scheduled"),
    *("tasks_error", "tasks_failed", "tasks_finished", "tasks_killed", "tasks_lost"),
    *("valid_executor_to_framework_messages", "valid_framework_to_executor_messages"),
    *("valid_status_update_acknowledgements", "valid_status_updates"),
]


def slave(cluster: Cluster, slave: Slave) -> Json:
    total = slave.total.to_state()
    shown = {
        "id": slave.id,
        "pid": slave.pid,
        "hostname": slave.info["hostname"],
        "registered_time": slave.registered_time,
        "resources": total,
        "used_resources": slave.used.to_state(),
        "offered_resources": cluster.offered(slave_id=slave.id).to_state(),
        "reserved_resources": {},
        "unreserved_resources": total,
        "attributes": {a["name"]: show_attribute(a) for a in slave.info["attributes"]},
        "active": slave.connected,
        "version": "0.28.0",
    }
    return shown if slave.reregistered_time is None else shown | {"reregistered_time": slave.reregistered_time}


def slaves(cluster: Cluster) -> Json:
    return {
        "slaves": [
            slave(cluster, one)
            | {
                "reserved_resources_full": {},
                "used_resources_full": one.used.to_api(),
                "offered_resources_full": cluster.offered(slave_id=one.id).to_api(),
            }
            for one in cluster.slaves.values()
        ]
    }


def _framework_summary(cluster: Cluster, framework: Framework) -> Json:
    return {
        "id": framework.id,
        "name": framework.info["name"],
        "used_resources": framework.used.to_state(),
        "offered_resources": cluster.offered(framework_id=framework.id).to_state(),
        "capabilities": [entry["type"] for entry in framework.info.get("capabilities", [])],
        "hostname": framework.info.get("hostname", ""),
        "webui_url": framework.info.get("webui_url", ""),
        "active": framework.stream is not None or framework.unregistered_time > 0,
    }


def framework(cluster: Cluster, framework: Framework) -> Json:
    offers = [offer for offer in cluster.offers.values() if offer.framework_id == framework.id]
    shown = _framework_summary(cluster, framework) | {
        "user": framework.info["user"],
        "failover_timeout": float(framework.info.get("failover_timeout", 0)),
        "checkpoint": framework.info.get("checkpoint", False),
        "role": framework.info.get("role", "*"),
        "registered_time": framework.registered_time,
        "unregistered_time": framework.unregistered_time,
        "resources": (framework.used + cluster.offered(framework_id=framework.id)).to_state(),
        "tasks": [task.to_state() for task in framework.tasks.values()],
        "completed_tasks": [task.to_state() for task in framework.completed],
        "offers": [
            {
                "id": offer.id,
                "framework_id": offer.framework_id,
                "slave_id": offer.slave.id,
                "resources": offer.resources.to_state(),
            }
            for offer in offers
        ],
        "executors": [],
    }
    if "principal" in framework.info:
        shown["principal"] = framework.info["principal"]
    if framework.reregistered_time is not None:
        shown["reregistered_time"] = framework.reregistered_time
    return shown


def frameworks(cluster: Cluster) -> Json:
    return {
        "frameworks": [framework(cluster, one) for one in cluster.frameworks.values()],
        "completed_frameworks": [framework(cluster, one) for one in cluster.completed],
        "unregistered_frameworks": list(dict.fromkeys(task.framework_id for task in cluster.orphans())),
    }


def state(cluster: Cluster) -> Json:
    return {
        "activated_slaves": float(sum(one.connected for one in cluster.slaves.values())),
        "deactivated_slaves": float(sum(not one.connected for one in cluster.slaves.values())),
        "slaves": [slave(cluster, one) for one in cluster.slaves.values()],
        "orphan_tasks": [task.to_state() for task in cluster.orphans()],
        **frameworks(cluster),
    }


def summary(cluster: Cluster) -> Json:
    by_slave: dict[str, list[Task]] = {one: [] for one in cluster.slaves}
    by_framework: dict[str, list[Task]] = {}
    for one in cluster.frameworks.values():
        by_framework[one.id] = [*one.tasks.values(), *one.completed]
        for task in by_framework[one.id]:
            by_slave.setdefault(task.slave_id, []).append(task)
    return {
        "slaves": [
            slave(cluster, one)
            | _count(by_slave[one.id])
            | {"framework_ids": list(dict.fromkeys(task.framework_id for task in by_slave[one.id]))}
            for one in cluster.slaves.values()
        ],
        "frameworks": [
            _framework_summary(cluster, one)
            | _count(by_framework[one.id])
            | {"slave_ids": list(dict.fromkeys(task.slave_id for task in by_framework[one.id]))}
            for one in cluster.frameworks.values()
        ],
    }


def _count(tasks: Iterable[Task]) -> dict[str, int]:
    counted = Counter(task.state for task in tasks)
    return {state: counted[state] for state in STATES}


def roles(cluster: Cluster) -> Json:
    names = dict.fromkeys(["*", *(one.info.get("role", "*") for one in cluster.frameworks.values())])
    shown = []
    for name in names:
        members = [one for one in cluster.frameworks.values() if one.info.get("role", "*") == name]
        used = Resources.none()
        for one in members:
            used = used + one.used + cluster.offered(framework_id=one.id)
        resources = used.to_state()
        shown.append({"name": name, "weight": 1.0, "frameworks": [one.id for one in members], "resources": resources})
    return {"roles": shown}


def tasks(cluster: Cluster, limit: int, offset: int, ascending: bool) -> Json:
    """A page of the tasks of all frameworks, the completed ones too, by the time of their first status."""
    known = [*cluster.frameworks.values(), *cluster.completed]
    found = [task for one in known for task in [*one.tasks.values(), *one.completed]]
    found.sort(key=lambda task: task.statuses[0]["timestamp"] if task.statuses else 0.0, reverse=not ascending)
    return {"tasks": [task.to_state() for task in found[offset : offset + limit]]}


def metrics(cluster: Cluster, elected: bool, start: float, registrar: Registrar | None) -> Json:
    """`/metrics/snapshot`, with the names of 0.28; what a double does not count stays 0."""
    shown: Json = {f"master/{name}": float(cluster.counts[name]) for name in COUNTED}
    known, slaves = cluster.frameworks.values(), cluster.slaves.values()
    total = used = Resources.none()
    for one in slaves:
        total, used = total + one.total, used + one.used
    for name in ("cpus", "disk", "mem"):
        share = used.get(name) / total.get(name) if total.get(name) else 0.0
        shown |= {f"master/{name}_total": total.get(name), f"master/{name}_used": used.get(name)}
        shown |= {f"master/{name}_percent": share}
        shown |= {f"master/{name}_revocable_{what}": 0.0 for what in ("total", "used", "percent")}
    present = _count(task for one in known for task in one.tasks.values())
    for state in ("staging", "starting", "running", "killing"):
        shown[f"master/tasks_{state}"] = float(present[f"TASK_{state.upper()}"])
    for what, things in (
        ("frameworks", [one.stream is not None for one in known]),
        ("slaves", [one.connected for one in slaves]),
    ):
        there = float(sum(things))
        shown |= {f"master/{what}_active": there, f"master/{what}_connected": there}
        shown |= {f"master/{what}_inactive": len(things) - there, f"master/{what}_disconnected": len(things) - there}
    shown |= {
        "allocator/event_queue_dispatches": 0.0,
        "master/elected": float(elected),
        "master/outstanding_offers": float(len(cluster.offers)),
        "master/uptime_secs": time.time() - start,
        "registrar/queued_operations": 0.0,
    }
    return shown | (_registrar(registrar) if registrar else {}) | system()


def _registrar(registrar: Registrar) -> Json:
    shown: Json = {"registrar/registry_size_bytes": float(registrar.size)}
    shown["registrar/state_fetch_ms"] = registrar.fetch_seconds * 1000
    times = [seconds * 1000 for seconds in registrar.store_seconds]
    if not times:
        return shown
    name = "registrar/state_store_ms"
    shown |= {name: times[-1], f"{name}/count": len(times), f"{name}/min": min(times), f"{name}/max": max(times)}
    cuts = quantiles(times, n=10000, method="inclusive") if len(times) > 1 else times * 9999
    places = {"p50": 5000, "p90": 9000, "p95": 9500, "p99": 9900, "p999": 9990, "p9999": 9999}
    return shown | {f"{name}/{percentile}": cuts[place - 1] for percentile, place in places.items()}


def system() -> Json:
    """The metrics of the machine, which slaves show too."""
    load = os.getloadavg()
    page = os.sysconf("SC_PAGE_SIZE")
    return {
        "system/cpus_total": float(os.cpu_count() or 1),
        **{f"system/load_{minutes}min": value for minutes, value in zip((1, 5, 15), load, strict=True)},
        "system/mem_free_bytes": float(os.sysconf("SC_AVPHYS_PAGES") * page),
        "system/mem_total_bytes": float(os.sysconf("SC_PHYS_PAGES") * page),
    }
