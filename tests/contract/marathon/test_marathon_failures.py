"""What the doubles of Marathon do when something dies. Each test has a cluster of its own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests
from daemons import eventually, free_port
from kazoo.client import KazooClient
from marathons import SERVE, SLEEP, Asked, Instance, Marathons, address, doubles

Json = dict[str, Any]


def ids(marathon: Asked, app_id: str) -> set[str]:
    return {task["id"] for task in marathon.tasks(app_id)}


@contextmanager
def zookeeper(marathons: Marathons) -> Iterator[tuple[KazooClient, str]]:
    """A client, and the path of this Marathon."""
    client = KazooClient(marathons.mesos.zookeeper)
    client.start()
    try:
        yield client, marathons.zk.partition(marathons.mesos.zookeeper)[2]
    finally:
        client.stop()
        client.close()


def znodes(marathons: Marathons, folder: str) -> dict[str, str]:
    """The znodes in a folder of this Marathon, with their data."""
    with zookeeper(marathons) as (client, path):
        names = client.get_children(f"{path}/{folder}")
        return {name: client.get(f"{path}/{folder}/{name}")[0].decode() for name in names}


@contextmanager
def member(marathons: Marathons, data: str) -> Iterator[None]:
    """Somebody else who stands for election, before all others."""
    with zookeeper(marathons) as (client, path):
        client.create(f"{path}/leader/member_", data.encode(), ephemeral=True, sequence=True, makepath=True)
        yield


def answer_of(instance: Instance, path: str = "/v2/apps") -> requests.Response:
    """What an instance answers once it knows who leads."""
    found: list[requests.Response] = []

    def ask() -> bool:
        found[:] = [instance.ask("GET", path)]
        return found[0].status_code != 503

    eventually(ask, "it knows a leader")
    return found[0]


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 0), (signal.SIGKILL, -signal.SIGKILL)])
def test_another_instance_goes_on_with_the_same_tasks(marathons: Marathons, number: int, status: int) -> None:
    for _ in range(3):
        marathons.instance()
    leader = marathons.leader()
    leader.deploy({"id": "/stays", **SLEEP, "instances": 2})
    leader.ask("POST", "/v2/apps", {"id": "/waits", "cmd": "sleep 1000", "cpus": 100})
    framework, before = leader.get("/v2/info")["frameworkId"], leader.tasks("/stays")
    (deployment,) = leader.get("/v2/deployments")
    assert leader.stop(number) == status
    survivor = next(one for one in marathons.instances if one is not leader)
    eventually(lambda: survivor.ask("GET", "/v2/leader").ok, "another one leads")
    now = marathons.leader()
    assert now is not leader
    assert now.get("/v2/info")["frameworkId"] == framework
    assert now.tasks("/stays") == before
    assert now.get("/v2/deployments") == [deployment]
    now.ask("PUT", "/v2/apps/waits", SLEEP, force="true")
    now.quiet()
    assert ids(now, "/stays") == {task["id"] for task in before}
    (known,) = marathons.mesos.leader().get("/frameworks")["frameworks"]
    assert (known["id"], known["name"]) == (framework, "marathon")


def test_the_znodes(marathons: Marathons) -> None:
    for _ in range(2):
        marathons.instance()
    leader = marathons.leader()
    leader.deploy({"id": "/group/kept", **SLEEP})
    eventually(lambda: len(znodes(marathons, "leader")) == 2, "both stand for election")
    members = znodes(marathons, "leader")
    assert sorted(members.values()) == sorted(one.address for one in marathons.instances)
    assert members[min(members)] == leader.address
    assert all(name.startswith("member_") and len(name) == len("member_") + 10 for name in members)
    state = znodes(marathons, "state")
    (task,) = leader.tasks("/group/kept")
    version = leader.app("/group/kept")["version"]
    assert state.keys() == {"framework:id", "group:root", f"task:{task['id']}", f"app:_group_kept:{version}"}


def test_the_leader_abdicates_when_asked(marathons: Marathons) -> None:
    for _ in range(2):
        marathons.instance()
    leader = marathons.leader()
    leader.deploy({"id": "/stays", **SLEEP})
    before = ids(leader, "/stays")
    eventually(lambda: len(znodes(marathons, "leader")) == 2, "both stand for election")
    assert leader.ask("DELETE", "/v2/leader").json() == {"message": "Leadership abdicated"}
    eventually(lambda: marathons.leader() is not leader, "the other one leads")
    assert ids(marathons.leader(), "/stays") == before
    assert ids(leader, "/stays") == before, "the former leader passes on"


def test_without_a_leader_the_answer_is_503_in_html(lonely: Marathons) -> None:
    nobody = lonely.instance(zk=f"zk://127.0.0.1:{free_port()}/marathon")
    (answer,) = eventually(lambda: [nobody.ask("GET", "/v2/apps")], "it answers")
    assert answer.status_code == 503
    assert answer.headers["Content-Type"].startswith("text/html")
    assert "<h2>HTTP ERROR: 503</h2>" in answer.text
    assert "Problem accessing /v2/apps. Reason:" in answer.text
    assert "Could not determine the current leader" in answer.text
    assert "X-Marathon-Leader" not in answer.headers


def test_a_leader_that_refuses_is_502_in_html(lonely: Marathons) -> None:
    with member(lonely, f"127.0.0.1:{free_port()}"):
        answer = answer_of(lonely.instance(), "/ping")
    assert answer.status_code == 502
    assert "Connection to leader refused." in answer.text
    assert answer.headers["Content-Type"].startswith("text/html")


def test_a_leader_that_says_nothing_is_500(lonely: Marathons) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        member(lonely, f"127.0.0.1:{silent.getsockname()[1]}"),
    ):
        answer = answer_of(lonely.instance("--leader_proxy_read_timeout", "500"))
    assert answer.status_code == 500, "504 comes with 1.3.13"
    assert "while proxying" in answer.text
    assert answer.headers["Content-Type"].startswith("text/html")


def test_a_proxying_loop_is_502(lonely: Marathons) -> None:
    port = free_port()
    with member(lonely, f"localhost:{port}"):  # itself, by a name that it does not know
        answer = answer_of(lonely.instance("--http_port", str(port)))
    assert answer.status_code == 502
    assert "Detected proxying loop." in answer.text


def test_a_process_that_is_killed_on_its_host_is_started_again(marathons: Marathons) -> None:
    marathon = marathons.instance()
    marathons.leader()
    (task,) = marathon.deploy({"id": "/crashes", **SERVE})["tasks"]
    environment = eventually(lambda: requests.get(address(task), timeout=5).json(), "it answers")
    os.kill(int(environment["pid"]), signal.SIGKILL)
    eventually(lambda: task["id"] not in ids(marathon, "/crashes"), "its end is noticed")
    marathon.running("/crashes", 1)
    failure = marathon.app("/crashes")["lastTaskFailure"]
    assert (failure["taskId"], failure["state"]) == (task["id"], "TASK_FAILED")
    assert failure["message"] == "Command terminated with signal Killed"


def test_the_tasks_of_a_lost_slave_move(marathons: Marathons) -> None:
    marathon = marathons.instance()
    marathons.leader()
    tasks = marathon.deploy({"id": "/moves", **SLEEP, "instances": 2})["tasks"]
    gone = {task["id"] for task in tasks if task["host"] == "127.0.0.2"}
    assert len(gone) == 1, "tasks are spread over the slaves"
    lost = marathons.mesos.slaves[1]
    lost.signal(signal.SIGUSR1)  # it unregisters, and its tasks end with it
    lost.ends()
    eventually(lambda: not gone & ids(marathon, "/moves"), "its tasks are lost")
    assert {task["host"] for task in marathon.running("/moves", 2)} == {"127.0.0.1"}
    assert marathon.app("/moves")["lastTaskFailure"]["state"] == "TASK_LOST"


def test_marathon_follows_the_leading_master(zookeeper_for_doubles: str, tmp_path: Path) -> None:
    with doubles(zookeeper_for_doubles, tmp_path, slaves=1, masters=3) as marathons:
        marathon = marathons.instance()
        marathons.leader()
        marathon.deploy({"id": "/stays", **SLEEP})
        before = ids(marathon, "/stays")
        old = marathons.mesos.leader()
        old.signal(signal.SIGTERM)
        old.ends()
        marathons.mesos.registered(1, seconds=60)
        marathon.ask("PUT", "/v2/apps/stays", {"instances": 2})
        marathon.quiet(60)
        assert before < ids(marathon, "/stays")


def test_a_task_that_it_does_not_know_is_killed(marathons: Marathons) -> None:
    marathon = marathons.instance()
    marathons.leader()
    (task,) = marathon.deploy({"id": "/forgotten", **SLEEP})["tasks"]
    marathon.stop()
    with zookeeper(marathons) as (client, path):
        for name in client.get_children(f"{path}/state"):
            if name != "framework:id":
                client.delete(f"{path}/state/{name}")
    marathon.start()
    marathons.leader()

    def states() -> set[str]:
        (framework,) = marathons.mesos.leader().get("/frameworks")["frameworks"]
        return {one["state"] for one in framework["completed_tasks"] if one["id"] == task["id"]}

    assert eventually(states, "the task ends") == {"TASK_KILLED"}
    assert marathon.get("/v2/tasks") == {"tasks": []}


def test_a_framework_that_was_removed_comes_back_as_another(marathons: Marathons) -> None:
    marathon = marathons.instance()
    marathons.leader()
    marathon.deploy({"id": "/again", **SLEEP})
    before, old = marathon.get("/v2/info")["frameworkId"], ids(marathon, "/again")
    answer = requests.post(f"{marathons.mesos.leader().url}/teardown", f"frameworkId={before}", timeout=5)
    assert answer.status_code == 200
    eventually(lambda: marathon.get("/v2/info")["frameworkId"] not in (None, before), "it has a new id")
    eventually(lambda: not old & ids(marathon, "/again"), "the old tasks are known to be lost")
    marathon.running("/again", 1)


def test_what_is_kept_outlives_all_instances(marathons: Marathons) -> None:
    marathon = marathons.instance()
    marathons.leader()
    app = marathon.deploy({"id": "/kept", **SLEEP, "labels": {"a": "b"}})
    marathon.stop()
    marathon.start()
    marathons.leader()
    after = marathon.app("/kept")
    assert after == app
    assert marathon.get("/v2/apps/kept/versions") == {"versions": [app["version"]]}


@pytest.mark.parametrize(
    ("flags", "status", "says"),
    [
        (["--version"], 0, "1.1.1 (rehearsal double)"),
        (["--master", "zk://h:2181/mesos", "--cheer", "up"], 1, "Unknown option 'cheer'"),
        (["--master", "zk://h:2181/mesos", "--http_port"], 1, "Bad arguments for option 'http_port'"),
        (["--http_port", "1"], 1, "Required option 'master' not found"),
        (["--master", "zk://h:2181/mesos", "--zk", "zk://h/marathon"], 1, "h has no port"),
    ],
)
def test_the_command_line(flags: list[str], status: int, says: str) -> None:
    code = "from runbook.lab.doubles.marathon.daemon import main; main()"
    done = subprocess.run([sys.executable, "-c", code, *flags], capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == status
    assert says in done.stdout + done.stderr
