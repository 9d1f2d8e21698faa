"""The runbook's own client against Marathon: it asks for what Marathon understands, and understands what it answers."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from daemons import eventually
from kazoo.client import KazooClient
from marathons import SERVE, SLEEP, Asked, Contract, Marathons, fresh

from runbook.errors import AppExists, AppInvalid, AppLocked, DeploymentFailed, NotFound, RequestMalformed
from runbook.services.marathon import (
    Marathon,
    apps_table,
    deployments_table,
    follow,
    instances_table,
    queue_table,
    tasks_table,
)
from runbook.services.marathon.diagnose import Kept
from runbook.services.mesos import MesosMaster, slaves_table
from runbook.site import Site

Json = dict[str, Any]


@pytest.fixture
def client(contract: Contract, marathon: Asked) -> Iterator[Marathon]:
    instances = {"leader": contract.leader.url}
    if contract.standby is not None:
        instances = {"standby": contract.standby.url, **instances}
    with Marathon(instances) as client:
        yield client


def test_an_app_is_put_once_followed_and_then_left_alone(client: Marathon) -> None:
    name = fresh("put")
    check = {"protocol": "HTTP", "gracePeriodSeconds": 20, "intervalSeconds": 1}
    app = {"id": name, **SERVE, "instances": 2, "healthChecks": [check], "labels": {"a": "b"}, "env": {"X": "1"}}
    first = client.put(app)
    assert first.outcome == "created"
    *_, last = follow(client, first, deadline=60)
    assert (last.done, last.running, last.healthy) == (True, 2, 2)
    second = client.put(app)
    assert (second.outcome, second.deployment, second.differences) == ("unchanged", None, ())
    third = client.put({**app, "env": {"X": "2"}, "labels": {}})
    assert [str(one) for one in third.differences] == ['env.X: "1" -> "2"', 'labels.a: "b" -> nothing']
    *_, last = follow(client, third, deadline=60)
    assert (last.done, last.old) == (True, 0)
    assert client.put({**app, "env": {"X": "2"}, "labels": {}}).outcome == "unchanged"
    del app["healthChecks"], app["env"]
    assert client.put(app).outcome == "changed"
    assert client.app(name)["healthChecks"] == []


def test_a_docker_app_is_seen_through_its_defaults(client: Marathon) -> None:
    docker = {"image": "nowhere/none:1", "network": "BRIDGE", "portMappings": [{"containerPort": 80, "hostPort": 0}]}
    volumes = [{"containerPath": "/data", "hostPath": "/tmp", "mode": "RW"}]
    container = {"type": "DOCKER", "docker": docker, "volumes": volumes}
    app = {"id": fresh("docker"), "cpus": 0.1, "mem": 16, "instances": 0, "container": container}
    app |= {"constraints": [["hostname", "UNIQUE"]], "healthChecks": [{"protocol": "TCP"}]}
    assert client.put(app).outcome == "created"
    eventually(lambda: client.app(app["id"])["deployments"] == [], "the deployment ends")
    assert client.put(app).outcome == "unchanged"


def test_scaling_restarting_and_deleting_are_followed(client: Marathon) -> None:
    name = fresh("moved")
    *_, last = follow(client, client.put({"id": name, **SLEEP}), deadline=60)
    *_, last = follow(client, client.scale(name, 3), deadline=60)
    assert (last.done, last.running) == (True, 3)
    assert client.put({"id": name, **SLEEP, "instances": 1}, keep_instances=True).outcome == "unchanged"
    *_, last = follow(client, client.restart(name), deadline=60)
    assert (last.done, last.running, last.old) == (True, 3, 0)
    assert len(client.versions(name)) >= 2
    killed = client.tasks(name)[0]["id"]
    client.kill([killed], scale=False)
    eventually(lambda: killed not in [task["id"] for task in client.tasks(name)], "the task ends")
    *_, last = follow(client, client.delete(name), deadline=60)
    assert last.done
    assert client.find(name) is None


def test_a_deployment_that_cannot_end_is_explained(client: Marathon) -> None:
    name = fresh("too-big")
    change = client.put({"id": name, "cmd": "sleep 1", "cpus": 1000})
    with pytest.raises(DeploymentFailed, match="1 waiting") as caught:
        list(follow(client, change, deadline=3))
    assert "tasks wait to be launched" in str(caught.value)
    with pytest.raises(AppLocked) as locked:
        client.put({"id": name, **SLEEP})
    assert locked.value.deployments == (change.deployment,)
    again = client.put({"id": name, "cmd": "sleep 1", "cpus": 1000})
    assert (again.outcome, again.deployment) == ("unchanged", change.deployment), "a run that died goes on following"
    assert change.deployment
    assert client.cancel(change.deployment) is not None
    with pytest.raises(DeploymentFailed, match="the app is gone"):
        list(follow(client, change, deadline=30))


def test_a_failing_app_is_explained_by_its_failure(client: Marathon) -> None:
    app = {"id": fresh("fails"), "cmd": "exit 3", "cpus": 0.01, "mem": 16, "backoffSeconds": 3}
    app["healthChecks"] = [{"protocol": "TCP"}]  # without one it is done as soon as Mesos says that it runs
    with pytest.raises(DeploymentFailed, match="Command exited with status 3"):
        list(follow(client, client.put(app), deadline=4))


def test_refusals_have_their_names(client: Marathon) -> None:
    name = fresh("refused")
    with pytest.raises(NotFound, match=f"App '{name}' does not exist"):
        client.delete(name)
    with pytest.raises(AppInvalid, match="Object is not valid: / AppDefinition must either contain"):
        client.put({"id": name})
    with pytest.raises(RequestMalformed, match=r"Invalid JSON: /instances error\.expected\.jsnumber"):
        client.put({"id": name, **SLEEP, "instances": "many"})
    with pytest.raises(NotFound):
        client.cancel("no-such-deployment")
    client.put({"id": name, **SLEEP, "instances": 0})
    with pytest.raises(AppExists, match="already exists"):
        client._send("POST", "/v2/apps", {"id": name, **SLEEP})


def test_tables_of_what_is_there(client: Marathon) -> None:
    name = fresh("shown")
    list(follow(client, client.put({"id": name, **SLEEP}), deadline=60))
    waits = fresh("waits")
    client.put({"id": waits, "cmd": "true", "cpus": 1000})
    apps = apps_table(client.apps()).set_index("app")
    assert (apps.loc[name, "running"], apps.loc[waits, "running"]) == (1, 0)
    (task,) = tasks_table(client.tasks(name)).to_dict("records")
    assert (task["app"], task["state"]) == (name, "running")
    deployment = deployments_table(client.deployments()).set_index("apps").loc[waits]
    assert deployment["action"] in ("StartApplication", "ScaleApplication")
    queued = eventually(
        lambda: [item for item in queue_table(client.queue()).to_dict("records") if item["app"] == waits], "it waits"
    )
    assert queued[0]["waiting"] == 1


def test_the_instances(client: Marathon, contract: Contract) -> None:
    table = instances_table(client.views())
    assert list(table["version"].unique()) == ["1.1.1"]
    assert table["answers"].all()
    assert all(view.elected for view in client.views())
    assert set(table["names"]) == {client.leader()}
    assert client.info()["frameworkId"]


def test_what_is_kept_is_measured_in_the_layouts_of_all_versions(zookeeper_for_doubles: str) -> None:
    """From 1.4 on it is /state/CATEGORY/BUCKET/ID, with old versions below (`ZkPersistenceStore.scala`)."""
    address, _, port = zookeeper_for_doubles.partition(":")
    path = fresh("kept").replace("/", "/runbook-")
    text = (
        f"name: kept\nmarathon: {{zk_path: {path}}}\nzookeeper: {{allow_even: true, client_port: {port}}}\n"
        f"mesos: {{master: {{allow_even: true}}}}\n"
        f"hosts: [{{name: node1, address: {address}, roles: [zookeeper, mesos_master, marathon]}}]\n"
    )
    site = Site.parse(text, Path("kept.yml"))
    sizes = {
        "group:root": 30,
        "apps/3/hello": 10,
        "apps/3/hello/2016-05-31T07:32:16.123Z": 20,
        "deployments/f/5ed4c0c5": 500 * 1024,
    }
    zookeeper = KazooClient(zookeeper_for_doubles)
    zookeeper.start()
    try:
        assert Kept.ask(site).sizes == {}
        for name, size in sizes.items():
            zookeeper.create(f"{path}/state/{name}", b"x" * size, makepath=True)
        kept = Kept.ask(site)
    finally:
        zookeeper.delete(path, recursive=True)
        zookeeper.stop()
        zookeeper.close()
    assert kept.sizes == sizes
    assert kept.bearable().text == "near ZooKeeper's limit of 1024 KB: deployments/f/5ed4c0c5 (500 KB)"
    assert kept.table()["kind"].tolist() == ["apps", "deployments", "group"]


def test_events(client: Marathon) -> None:
    name = fresh("heard")
    kinds: list[str] = []
    attached = threading.Event()

    def listen() -> None:
        with client.events("status_update_event", "deployment_success") as events:
            for event in events:
                attached.set()
                kinds.append(event.kind)
                if event.kind == "deployment_success":
                    return

    listener = threading.Thread(target=listen)
    listener.start()
    assert attached.wait(30)
    client.put({"id": name, **SLEEP})
    listener.join(30)
    assert not listener.is_alive()
    assert kinds == ["event_stream_attached", "status_update_event", "deployment_success"]


def test_following_outlives_the_leader_and_names_the_slaves(marathons: Marathons) -> None:
    for _ in range(2):
        marathons.instance()
    leader = marathons.leader()
    survivor = next(one for one in marathons.instances if one is not leader)
    with (
        Marathon({"leader": leader.url, "survivor": survivor.url}) as client,
        MesosMaster(marathons.mesos.leader().url) as master,
    ):
        change = client.put({"id": "/big", "cmd": "exec sleep 1000", "cpus": 3, "mem": 16})
        steps = follow(client, change, deadline=30, slaves=lambda: slaves_table(master.state()))
        assert not next(steps).done
        leader.stop()
        with pytest.raises(DeploymentFailed) as caught:
            list(steps)
        shown = str(caught.value)
        for host in ("127.0.0.1", "127.0.0.2"):
            assert f"{host}: an instance does not fit: cpus: 3 wanted, 1 of 1 free" in shown
        *_, last = follow(client, client.put({"id": "/big", **SLEEP}, force=True), deadline=60)
        assert last.done
