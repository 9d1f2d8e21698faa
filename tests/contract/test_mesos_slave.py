"""The HTTP contract of a mesos-slave 0.28: field names and JSON types as recorded from the real one."""

from __future__ import annotations

from typing import Any

import pytest
import requests
from contract import Cluster, Workload, recorded
from daemons import eventually
from shapes import Shape

FIRST = ("three-masters/slave1_state.json", "three-masters/slave2_state.json", "one-node/slave_state.json")
STATES = (*FIRST, "nine-chapters/slave_state.json")
STATISTICS = ("three-masters/slave2_monitor_statistics.json", "nine-chapters/slave_statistics.json")


def test_a_slave_with_docker_tasks_fits_the_shape_of_one_without() -> None:
    assert list(Shape.of(recorded(*FIRST)).differences(recorded(STATES[-1])[0])) == []
    assert list(Shape.of(recorded(STATISTICS[0])).differences(recorded(STATISTICS[1])[0])) == []


def ask(cluster: Cluster, path: str) -> requests.Response:
    return requests.get(cluster.slave + path, timeout=10)


def executor_of(cluster: Cluster, workload: Workload) -> Any:
    state = ask(cluster, "/state").json()
    framework = next(one for one in state["frameworks"] if one["id"] == workload.framework.id)
    (executor,) = framework["executors"]
    return executor


@pytest.mark.parametrize("path", ["/state", "/slave(1)/state", "/slave(1)/state.json"])
def test_state(cluster: Cluster, workload: Workload, path: str) -> None:
    state = ask(cluster, path).json()
    assert list(Shape.of(recorded(*STATES)).differences(state)) == []
    assert state["id"] == workload.agent
    assert state["pid"] == cluster.agent_pid
    assert state["master_hostname"]


def test_executor_of_a_command_task(cluster: Cluster, workload: Workload) -> None:
    executor = executor_of(cluster, workload)
    assert executor["id"] == executor["source"] == workload.running
    assert executor["name"] == f"Command Executor (Task: {workload.running}) (Command: sh -c 'echo to-stdo...')"
    assert executor["resources"]["cpus"] == pytest.approx(0.2)
    assert executor["resources"]["mem"] == 64
    assert [task["id"] for task in executor["tasks"]] == [workload.running]
    assert executor["directory"].endswith(
        f"/slaves/{workload.agent}/frameworks/{workload.framework.id}/executors/{workload.running}/runs/"
        + executor["container"]
    )


def test_statistics(cluster: Cluster, workload: Workload) -> None:
    statistics = ask(cluster, "/monitor/statistics").json()
    shape = Shape.of(recorded(*STATISTICS))
    assert list(shape.differences(statistics)) == []
    mine = next(one for one in statistics if one["executor_id"] == workload.running)
    assert mine["statistics"]["mem_limit_bytes"] == 64 * 2**20
    assert mine["statistics"]["mem_rss_bytes"] > 0


def test_metrics(cluster: Cluster, workload: Workload) -> None:
    metrics = ask(cluster, "/metrics/snapshot").json()
    (known,) = recorded("three-masters/slave1_metrics_snapshot.json")
    assert known.keys() - metrics.keys() == set()
    assert metrics["slave/registered"] == 1
    assert metrics["slave/tasks_running"] >= 1


def test_flags(cluster: Cluster) -> None:
    flags = ask(cluster, "/slave(1)/flags").json()
    assert list(Shape.of(recorded("three-masters/slave1_flags.json")).differences(flags)) == []


def test_containers_are_not_listed_by_0_28(cluster: Cluster) -> None:
    answer = ask(cluster, "/containers")
    assert (answer.status_code, answer.content) == (404, b"")


def test_health(cluster: Cluster) -> None:
    answer = ask(cluster, "/slave(1)/health")
    assert (answer.status_code, answer.content) == (200, b"")


def test_sandbox_is_browsed_and_read(cluster: Cluster, workload: Workload) -> None:
    directory = executor_of(cluster, workload)["directory"]
    listing = ask(cluster, f"/files/browse?path={directory}").json()
    assert {entry["path"].rpartition("/")[2] for entry in listing} >= {"stdout", "stderr"}
    assert listing[0].keys() == {"gid", "mode", "mtime", "nlink", "path", "size", "uid"}

    def stdout() -> str:
        text: str = ask(cluster, f"/files/read?path={directory}/stdout&offset=0").json()["data"]
        return text

    eventually(lambda: f"to-stdout {workload.port}" in stdout(), "the task's output is in its sandbox")
    size = ask(cluster, f"/files/read?path={directory}/stdout").json()
    assert size == {"data": "", "offset": len(stdout())}
    assert ask(cluster, f"/files/read?path={directory}/stdout&offset=3&length=4").json()["data"] == stdout()[3:7]
    assert ask(cluster, f"/files/read?path={directory}&offset=0").status_code == 400


def test_nothing_outside_the_sandboxes_is_read(cluster: Cluster) -> None:
    assert ask(cluster, "/files/read?path=/etc/passwd&offset=0").status_code == 404
    assert ask(cluster, "/files/download?path=/slave/log/../../etc/passwd").status_code == 404
