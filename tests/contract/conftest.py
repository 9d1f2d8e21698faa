"""What the contract tests run against.

RUNBOOK_CONTRACT_MASTER, RUNBOOK_CONTRACT_SLAVE (base URLs) and RUNBOOK_CONTRACT_ZK (a connect string with the path of
the masters, `host:port,.../mesos`) name a cluster of real Mesos 0.28; it must have a slave with 0.5 CPUs, 256 MB and a
few ports free. Other frameworks may run there: the tests count nothing but their own tasks and tear down nothing but
their own frameworks; a machine goes down for maintenance only where RUNBOOK_CONTRACT_MAINTENANCE (`hostname,ip`) allows
that one. Without them, the rehearsal doubles are started on the loopback, with a ZooKeeper of their own on a node
of the lab (or at RUNBOOK_CONTRACT_ZOOKEEPER, `host:port`, where that is set).
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from contract import Cluster, Json, Workload, is_roomy, unique
from daemons import Mesos, eventually
from framework import Framework, task
from kazoo.client import KazooClient

from runbook import lab as labs

ZOOKEEPER_ON_NODE = """
mkdir -p /var/lib/contract-zookeeper
cat >/var/lib/contract-zookeeper/zoo.cfg <<'END'
tickTime=1000
dataDir=/var/lib/contract-zookeeper
clientPort=12181
maxClientCnxns=0
admin.enableServer=false
END
export ZOO_LOG_DIR=/var/lib/contract-zookeeper
/usr/hdp/2.4.0.0-169/zookeeper/bin/zkServer.sh start /var/lib/contract-zookeeper/zoo.cfg
"""
GONE = """
/usr/hdp/2.4.0.0-169/zookeeper/bin/zkServer.sh stop /var/lib/contract-zookeeper/zoo.cfg
rm -r /var/lib/contract-zookeeper
"""


@pytest.fixture(scope="session")
def zookeeper_for_doubles() -> Iterator[str]:
    """`host:port` of a ZooKeeper that the doubles may use: RUNBOOK_CONTRACT_ZOOKEEPER, or one of our own in the lab."""
    given = os.environ.get("RUNBOOK_CONTRACT_ZOOKEEPER")
    if given:
        yield given
        return
    with labs.up() as lab:
        node = lab.nodes[0]
        started = lab.exec(node, ZOOKEEPER_ON_NODE)
        assert started.status == 0, started.stdout + started.stderr
        client = KazooClient(f"{node.address}:12181")
        client.start(timeout=60)
        client.stop()
        client.close()
        yield f"{node.address}:12181"
        lab.exec(node, GONE)


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
    client.close()
    urls = [f"http://{info['address']['ip']}:{info['address']['port']}" for info in infos]
    pid = requests.get(f"{leader}/state", timeout=10).json()["pid"]
    standbys = [url for url in urls if url.removeprefix("http://") != pid.partition("@")[2]]
    return Cluster(leader, standbys[0] if standbys else None, slave.rstrip("/"), zookeeper)


@pytest.fixture(scope="session")
def workload(cluster: Cluster) -> Iterator[Workload]:
    name = unique("workload")
    tag = name.rpartition("-")[2]
    with Framework(cluster.leader, name=name) as framework:
        agents = {slave["pid"]: slave["id"] for slave in cluster.leader_json("/slaves")["slaves"]}
        agent = agents[cluster.agent_pid]
        offer = framework.offer(lambda offer: offer["agent_id"]["value"] == agent and is_roomy(offer))
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
        yield Workload(framework, name, agent, running, failed, port, statuses)


def _completed(cluster: Cluster, framework: Framework) -> list[Json]:
    frameworks = cluster.leader_json("/frameworks")["frameworks"]
    found: list[Json] = next(one["completed_tasks"] for one in frameworks if one["id"] == framework.id)
    return found


@pytest.fixture
def mesos(zookeeper_for_doubles: str, tmp_path: Path) -> Iterator[Mesos]:
    """Doubles of one test, which may die in it: none yet."""
    with Mesos(zookeeper_for_doubles, tmp_path) as mesos:
        yield mesos
