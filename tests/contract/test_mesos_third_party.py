"""A framework library of other people, pymesos, over the scheduler HTTP API."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from contract import Cluster, unique

LAUNCH = Path(__file__).with_name("third_party") / "launch.py"


@pytest.mark.parametrize(("command", "last"), [("true", "TASK_FINISHED"), ("exit 1", "TASK_FAILED")])
@pytest.mark.parametrize("by", ["leader", "standby", "zookeeper"])
def test_pymesos_launches_a_task(cluster: Cluster, by: str, command: str, last: str) -> None:
    masters = {
        "leader": urlsplit(cluster.leader).netloc,
        "standby": cluster.standby and urlsplit(cluster.standby).netloc,
        "zookeeper": f"zk://{cluster.zookeeper}",
    }
    if masters[by] is None:
        pytest.skip("the cluster under test has a single master")
    name = unique("pymesos")
    done = subprocess.run(
        [sys.executable, str(LAUNCH), str(masters[by]), command, name],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    seen: Any = json.loads(done.stdout)
    assert seen["states"] == ["TASK_RUNNING", last]
    frameworks = cluster.leader_json("/frameworks")["completed_frameworks"]
    over = next(one for one in frameworks if one["name"] == name and one["tasks"] == [])
    assert [task["id"] for task in over["completed_tasks"]] == ["pymesos-task"]
