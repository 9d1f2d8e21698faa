"""The HTTP contract of a mesos-master 0.28: field names and JSON types as recorded from the real one."""

from __future__ import annotations

import time

import pytest
import requests
from contract import Cluster, Workload, recorded, unique
from daemons import eventually
from framework import Framework
from shapes import Shape

FIRST = {
    "/state": (
        "three-masters/leader_state.json",
        "three-masters/leader_state_after-failover_orphan-task.json",
        "three-masters/leader_state_elected-but-not-recovered.json",
        "one-node/master_state.json",
    ),
    "/slaves": ("three-masters/leader_slaves.json", "one-node/master_slaves.json"),
    "/frameworks": ("three-masters/leader_frameworks.json", "one-node/master_frameworks.json"),
    "/state-summary": ("three-masters/leader_state-summary.json", "one-node/master_state-summary.json"),
    "/tasks": ("three-masters/leader_tasks.json", "one-node/master_tasks.json"),
    "/roles": ("three-masters/leader_roles.json", "one-node/master_roles.json"),
    "/flags": ("three-masters/leader_flags.json",),
    "/version": ("three-masters/leader_version.json",),
}
BUSY = {
    path: (f"nine-chapters/leader_{path[1:]}.json",)
    for path in ("/state", "/slaves", "/frameworks", "/tasks", "/version")
}
"""Recorded where other frameworks ran, with Docker tasks."""
RECORDED = {path: FIRST[path] + BUSY.get(path, ()) for path in FIRST}


@pytest.mark.parametrize("path", BUSY)
def test_a_busy_cluster_fits_the_shape_of_an_idle_one(path: str) -> None:
    (busy,) = recorded(*BUSY[path])
    assert list(Shape.of(recorded(*FIRST[path])).differences(busy)) == []


def test_a_busy_standby_fits_the_shape_of_an_idle_one() -> None:
    (busy,) = recorded("nine-chapters/standby_state.json")
    assert list(Shape.of(recorded("three-masters/nonleader1_state.json")).differences(busy)) == []


@pytest.mark.parametrize("path", RECORDED)
def test_leader_has_the_fields_and_types_of_the_recording(cluster: Cluster, workload: Workload, path: str) -> None:
    shape = Shape.of(recorded(*RECORDED[path]))
    assert list(shape.differences(cluster.leader_json(path))) == []


def test_leader_shows_the_tasks_of_a_framework(cluster: Cluster, workload: Workload) -> None:
    state = cluster.leader_json("/state")
    framework = next(one for one in state["frameworks"] if one["id"] == workload.framework.id)
    assert (framework["name"], framework["active"], framework["checkpoint"]) == (workload.name, True, True)
    (task,) = framework["tasks"]
    assert (task["id"], task["state"], task["slave_id"]) == (workload.running, "TASK_RUNNING", workload.agent)
    assert task["resources"] == {"cpus": 0.1, "mem": 32.0, "disk": 0.0, "ports": f"[{workload.port}-{workload.port}]"}
    assert [status["state"] for status in task["statuses"]] == ["TASK_RUNNING"]
    assert {one["id"]: one["state"] for one in framework["completed_tasks"]}[workload.failed] == "TASK_FAILED"
    assert framework["used_resources"] == task["resources"]


def test_slave_shows_what_is_used_and_where_it_is(cluster: Cluster, workload: Workload) -> None:
    slave = next(one for one in cluster.leader_json("/state")["slaves"] if one["id"] == workload.agent)
    assert slave["pid"] == cluster.agent_pid
    assert slave["active"] is True
    assert isinstance(slave["resources"]["ports"], str)
    assert isinstance(slave["attributes"], dict)
    assert slave["used_resources"]["cpus"] >= 0.1


@pytest.mark.parametrize("alias", ["/master/state", "/master/state.json", "/state.json"])
def test_aliases_of_the_state(cluster: Cluster, workload: Workload, alias: str) -> None:
    state, other = cluster.leader_json("/state"), cluster.leader_json(alias)
    assert (other["pid"], other["id"], other.keys()) == (state["pid"], state["id"], state.keys())


def test_leader_knows_itself(cluster: Cluster) -> None:
    state = cluster.leader_json("/master/state")
    assert state["pid"] == state["leader"]
    assert 0 < state["start_time"] <= state["elected_time"] <= time.time() + 60
    assert state["version"] == "0.28.0"
    assert all(isinstance(value, str) for value in state["flags"].values())


def test_standby_answers_with_empty_lists(cluster: Cluster, workload: Workload) -> None:
    standby = _standby(cluster)
    state = requests.get(f"{standby}/state", timeout=10).json()
    shape = Shape.of(recorded("three-masters/nonleader1_state.json", "nine-chapters/standby_state.json"))
    assert list(shape.differences(state)) == []
    assert state["leader"] == cluster.leader_json("/state")["pid"] != state["pid"]
    assert "elected_time" not in state
    empty = ("slaves", "frameworks", "completed_frameworks", "orphan_tasks", "unregistered_frameworks")
    assert all(state[name] == [] for name in empty)
    for path in ("slaves", "frameworks", "tasks", "roles"):
        shape = Shape.of(recorded(f"three-masters/nonleader1_{path}.json"))
        assert list(shape.differences(requests.get(f"{standby}/{path}", timeout=10).json())) == []


@pytest.mark.parametrize("path", ["/redirect", "/master/redirect"])
def test_every_master_redirects_to_the_leader(cluster: Cluster, path: str) -> None:
    leader = cluster.leader_json("/state")
    where = f"//{leader['hostname']}:{leader['pid'].rpartition(':')[2]}"
    for master in filter(None, (cluster.leader, cluster.standby)):
        answer = requests.get(master + path, allow_redirects=False, timeout=10)
        assert (answer.status_code, answer.headers["Location"], answer.content) == (307, where, b"")


@pytest.mark.parametrize("path", ["/health", "/master/health"])
def test_every_master_is_healthy_with_an_empty_body(cluster: Cluster, path: str) -> None:
    for master in filter(None, (cluster.leader, cluster.standby)):
        answer = requests.get(master + path, timeout=10)
        assert (answer.status_code, answer.content) == (200, b"")


def test_metrics_of_the_leader(cluster: Cluster, workload: Workload) -> None:
    metrics = cluster.leader_json("/metrics/snapshot")
    (known,) = recorded("three-masters/leader_metrics_snapshot.json")
    assert known.keys() - metrics.keys() == set()
    assert all(isinstance(value, int | float) for value in metrics.values())
    assert metrics["master/elected"] == 1
    assert metrics["master/tasks_running"] >= 1
    assert metrics["master/slaves_active"] >= 1
    assert metrics["registrar/state_store_ms/count"] >= 1


def test_metrics_of_a_standby(cluster: Cluster) -> None:
    metrics = requests.get(f"{_standby(cluster)}/metrics/snapshot", timeout=10).json()
    (known,) = recorded("three-masters/nonleader1_metrics_snapshot.json")
    assert known.keys() - metrics.keys() == set()
    assert metrics["master/elected"] == 0
    assert not [name for name in metrics if name.startswith("registrar/state")]


def test_tasks_by_pages_and_order(cluster: Cluster, workload: Workload) -> None:
    """By the tasks that this run started: those of other frameworks come and go between two answers."""
    newest_first = cluster.leader_json("/tasks?limit=100000")["tasks"]
    times = [task["statuses"][0]["timestamp"] for task in newest_first if task["statuses"]]
    assert times == sorted(times, reverse=True)
    started = {*workload.statuses}
    ours = [task["id"] for task in newest_first if task["id"] in started]
    assert set(ours) == started
    oldest_first = cluster.leader_json("/tasks?limit=100000&order=asc")["tasks"]
    assert [task["id"] for task in oldest_first if task["id"] in started] == ours[::-1]

    def pages() -> bool:
        """Whether pages of one task make up the list, which holds while no other task comes or goes."""
        whole = cluster.leader_json("/tasks?limit=3")["tasks"]
        return [cluster.leader_json(f"/tasks?limit=1&offset={n}")["tasks"] for n in range(3)] == [[t] for t in whole]

    eventually(pages, "the pages of one task are the list")


def test_unknown_path_is_404(cluster: Cluster) -> None:
    assert cluster.get("/no/such/path").status_code == 404


def test_teardown_removes_a_framework(cluster: Cluster) -> None:
    with Framework(cluster.leader, name=unique("torn-down"), stays=True) as framework:
        body = f"frameworkId={framework.id}"
        answer = requests.post(f"{cluster.leader}/master/teardown", data=body, timeout=10)
        assert answer.status_code == 200
        framework.wait_for_end()
    known = cluster.leader_json("/frameworks")
    assert framework.id not in [one["id"] for one in known["frameworks"]]
    assert framework.id in [one["id"] for one in known["completed_frameworks"]]


def test_files_refuse_in_plain_text(cluster: Cluster) -> None:
    answer = cluster.get("/files/browse")
    assert (answer.status_code, answer.text) == (400, "Expecting 'path=value' in query.\n")
    answer = cluster.get("/files/read?path=none&offset=hello")
    assert (answer.status_code, answer.text) == (
        400,
        "Failed to parse offset: Failed to convert 'hello' to number.\n",
    )
    assert cluster.get("/files/read?path=/no/such/file&offset=0").status_code == 404


def _standby(cluster: Cluster) -> str:
    if cluster.standby is None:
        pytest.skip("the cluster under test has a single master")
    return cluster.standby
