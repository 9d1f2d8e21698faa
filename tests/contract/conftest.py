"""What the contract tests run against.

RUNBOOK_CONTRACT_MASTER, RUNBOOK_CONTRACT_SLAVE (base URLs) and RUNBOOK_CONTRACT_ZK (a connect string with the path of
the masters, `host:port,.../mesos`) name a cluster of real Mesos 0.28; it must have a slave with 0.5 CPUs, 256 MB and a
few ports free. Without them, the rehearsal doubles are started on the loopback.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from contract import Cluster, Json, Workload
from daemons import Mesos, eventually, free_port
from framework import Framework, task
from kazoo.client import KazooClient

JARS = "/etc/zookeeper/conf:/usr/share/java/zookeeper.jar"


@pytest.fixture(scope="session")
def zookeeper_for_doubles(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """`host:port` of a ZooKeeper that the doubles may use."""
    folder = tmp_path_factory.mktemp("zookeeper")
    port = free_port()
    lines = ["tickTime=1000", f"dataDir={folder}/data", f"clientPort={port}", "clientPortAddress=127.0.0.1"]
    (folder / "zoo.cfg").write_text("\n".join([*lines, "admin.enableServer=false", "maxClientCnxns=0"]) + "\n")
    program = "org.apache.zookeeper.server.quorum.QuorumPeerMain"
    with (folder / "output").open("wb") as output:
        process = subprocess.Popen(
            ["java", "-Xmx128m", "-cp", JARS, program, str(folder / "zoo.cfg")], stdout=output, stderr=output
        )
    client = KazooClient(f"127.0.0.1:{port}")
    client.start(timeout=60)
    client.stop()
    client.close()
    yield f"127.0.0.1:{port}"
    process.terminate()
    process.wait(30)


@pytest.fixture(scope="session")
def cluster(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A leader, a standby where there is one, and a slave."""
    given = {name: os.environ.get(f"RUNBOOK_CONTRACT_{name}") for name in ("MASTER", "SLAVE", "ZK")}
    if all(given.values()):
        yield _given_cluster(*map(str, given.values()))
        return
    with Mesos(request.getfixturevalue("zookeeper_for_doubles"), tmp_path_factory.mktemp("contract")) as mesos:
        for _ in range(3):
            mesos.master(quorum=2)
        slave = mesos.slave("--attributes=rack:r1")
        mesos.registered(1)
        leader = mesos.leader()
        standby = next(master for master in mesos.masters if master is not leader)
        yield Cluster(leader.url, standby.answers().url, slave.url, mesos.zookeeper + mesos.path)


def _given_cluster(master: str, slave: str, zookeeper: str) -> Cluster:
    answer = requests.get(f"{master.rstrip('/')}/redirect", allow_redirects=False, timeout=10)
    leader = "http:" + answer.headers["Location"]
    client = KazooClient(zookeeper)
    client.start()
    infos = [
        json.loads(client.get(f"/{name}")[0]) for name in client.get_children("/") if name.startswith("json.info_")
    ]
    client.stop()
    urls = [f"http://{info['address']['ip']}:{info['address']['port']}" for info in infos]
    pid = requests.get(f"{leader}/state", timeout=10).json()["pid"]
    standbys = [url for url in urls if url.removeprefix("http://") != pid.partition("@")[2]]
    return Cluster(leader, standbys[0] if standbys else None, slave.rstrip("/"), zookeeper)


@pytest.fixture(scope="session")
def workload(cluster: Cluster) -> Iterator[Workload]:
    tag = f"{time.time():.0f}"
    with Framework(cluster.leader, name="workload") as framework:
        pid = "slave(1)@" + cluster.slave.removeprefix("http://")
        agents = {slave["pid"]: slave["id"] for slave in cluster.leader_json("/slaves")["slaves"]}
        agent = agents[pid]
        offer = framework.offer(lambda offer: offer["agent_id"]["value"] == agent)
        ranges = next(r["ranges"]["range"] for r in offer["resources"] if r["name"] == "ports")
        port = ranges[0]["begin"]
        running, failed, finished = f"run.{tag}", f"fail.{tag}", f"finish.{tag}"
        shown = "echo to-stdout $PORT; echo to-stderr >&2; exec sleep 1000"
        discovery = {
            "visibility": "FRAMEWORK",
            "name": "run",
            "ports": {"ports": [{"number": port, "protocol": "tcp"}]},
        }
        framework.launch(
            offer,
            task(running, shown, ports=(port,), discovery=discovery),
            task(failed, "exit 3"),
            task(finished, "exit 0"),
        )
        framework.call("SUPPRESS")  # the rest is for the other tests
        statuses = {
            running: framework.status(running, "TASK_RUNNING"),
            failed: framework.status(failed, "TASK_FAILED"),
            finished: framework.status(finished, "TASK_FINISHED"),
        }
        eventually(
            lambda: len(_completed(cluster, framework)) == 2, "the master moves acknowledged tasks to the completed"
        )
        yield Workload(framework, agent, running, failed, port, statuses)


def _completed(cluster: Cluster, framework: Framework) -> list[Json]:
    frameworks = cluster.leader_json("/frameworks")["frameworks"]
    found: list[Json] = next(one["completed_tasks"] for one in frameworks if one["id"] == framework.id)
    return found


@pytest.fixture
def mesos(zookeeper_for_doubles: str, tmp_path: Path) -> Iterator[Mesos]:
    """Doubles of one test, which may die in it: none yet."""
    with Mesos(zookeeper_for_doubles, tmp_path) as mesos:
        yield mesos
