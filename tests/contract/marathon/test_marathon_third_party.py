"""A client of other people, `marathon` from PyPI, works with Marathon as it is, and so with its double.

It was made for Pythons before 3.10 and looks for `collections.Iterable` when it writes nested objects; the fixture
gives it back to it.
"""

from __future__ import annotations

import collections
import collections.abc
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from daemons import eventually
from marathon import MarathonApp, MarathonClient, NotFoundError
from marathon.exceptions import ConflictError, MarathonHttpError
from marathon.models.app import MarathonHealthCheck, MarathonUpgradeStrategy
from marathon.models.container import MarathonContainer
from marathon.models.events import MarathonDeploymentSuccess, MarathonEvent, MarathonStatusUpdateEvent
from marathons import SERVER, Asked, Contract, fresh


@pytest.fixture
def client(contract: Contract, marathon: Asked, monkeypatch: pytest.MonkeyPatch) -> Iterator[MarathonClient]:
    monkeypatch.setattr(collections, "Iterable", collections.abc.Iterable, raising=False)
    client = MarathonClient([asked.url for asked in (contract.standby, contract.leader) if asked])
    yield client
    client.session.close()
    client.sse_session.close()


def ended(client: MarathonClient) -> None:
    eventually(lambda: client.list_deployments() == [], "all deployments end")


def test_an_app_with_its_tasks_from_creation_to_deletion(client: MarathonClient) -> None:
    name = fresh("theirs")
    check = MarathonHealthCheck(protocol="TCP", grace_period_seconds=20, interval_seconds=1, port_index=0)
    app = MarathonApp(
        cmd=SERVER,
        cpus=0.01,
        mem=16,
        instances=2,
        constraints=[("hostname", "UNIQUE")],
        health_checks=[check],
        labels={"team": "a"},
        upgrade_strategy=MarathonUpgradeStrategy(minimum_health_capacity=0.5, maximum_over_capacity=0.5),
    )
    created = client.create_app(name, app)
    assert (created.id, created.instances, created.constraints[0].operator) == (name, 2, "UNIQUE")
    (deployment,) = [one for one in client.list_deployments() if name in one.affected_apps]
    assert deployment.total_steps == 2
    ended(client)
    found = client.get_app(name, embed_tasks=True)
    assert (found.tasks_running, found.tasks_healthy, found.health_checks[0].protocol) == (2, 2, "TCP")
    tasks = client.list_tasks(name)
    assert {task.id for task in tasks} == {task.id for task in found.tasks}
    assert all(task.started_at >= task.staged_at and task.health_check_results[0].alive for task in tasks)
    assert name in [endpoint.app_id for endpoint in client.list_endpoints()]
    assert [one.id for one in client.list_apps(app_id=name, label="team==a")] == [name]
    assert client.list_apps(app_id=name, label="team==b") == []
    assert len(client.list_versions(name)) == 1
    assert client.get_version(name, client.list_versions(name)[0]).cmd == SERVER
    killed = client.kill_task(name, tasks[0].id)
    assert killed.id == tasks[0].id
    assert client.kill_given_tasks([tasks[1].id], scale=True)
    ended(client)
    assert client.get_app(name).instances == 1
    assert client.delete_app(name)["deploymentId"]
    ended(client)
    with pytest.raises(NotFoundError):
        client.get_app(name)


def test_scaling_updating_restarting_and_going_back(client: MarathonClient) -> None:
    name = fresh("scaled")
    client.create_app(name, MarathonApp(cmd="exec sleep 1000", cpus=0.01, mem=16))
    ended(client)
    (first,) = client.list_tasks(name)
    client.scale_app(name, delta=2)
    ended(client)
    assert first.id in {task.id for task in client.list_tasks(name)}
    assert client.get_app(name).tasks_running == 3
    client.scale_app(name, instances=1)
    ended(client)
    version = client.get_app(name).version
    client.update_app(name, MarathonApp(env={"A": "1"}))
    ended(client)
    assert client.get_app(name).env == {"A": "1"}
    client.rollback_app(name, version)
    ended(client)
    assert client.get_app(name).env == {}
    before = {task.id for task in client.list_tasks(name)}
    client.restart_app(name)
    ended(client)
    assert not before & {task.id for task in client.list_tasks(name)}


def test_a_docker_app_keeps_its_ports_and_volumes(client: MarathonClient) -> None:
    name = fresh("docked")
    container: Any = MarathonContainer.from_json(
        {
            "docker": {
                "image": "nowhere/none:1",
                "network": "BRIDGE",
                "portMappings": [{"containerPort": 3306, "hostPort": 0}],
            },
            "volumes": [{"containerPath": "/data", "hostPath": "/tmp", "mode": "RW"}],
        }
    )
    client.create_app(name, MarathonApp(container=container, cpus=0.01, mem=16, instances=0))
    ended(client)
    found = client.get_app(name).container
    assert found.docker.port_mappings[0].container_port == 3306
    assert found.docker.port_mappings[0].service_port == client.get_app(name).ports[0]
    assert found.volumes[0].host_path == "/tmp"


def test_conflicts_queue_and_deployments(client: MarathonClient) -> None:
    name = fresh("stuck")
    client.create_app(name, MarathonApp(cmd="sleep 1", cpus=1000))
    with pytest.raises(ConflictError, match="already exists"):
        client.create_app(name, MarathonApp(cmd="sleep 1"))
    with pytest.raises(ConflictError, match="locked by one or more deployments"):
        client.scale_app(name, instances=2)
    with pytest.raises(MarathonHttpError, match="Object is not valid"):
        client.create_app(fresh("empty"), MarathonApp())
    item = eventually(lambda: [one for one in client.list_queue() if one.app.id == name], "it waits")[0]
    assert (item.count, item.delay.overdue) == (1, True)
    client.reset_delay(name.lstrip("/"))
    (deployment,) = client.get_app(name, embed_deployments=True).deployments
    assert client.delete_deployment(deployment.id)["deploymentId"] != deployment.id
    ended(client)
    assert client.list_apps(app_id=name) == []


def test_the_service(client: MarathonClient) -> None:
    info = client.get_info()
    assert (info.version, info.elected, info.leader) == ("1.1.1", True, client.get_leader()["leader"])
    assert info.marathon_config.failover_timeout == 604800
    assert client.ping().strip() == b"pong"
    assert "gauges" in client.get_metrics()


def test_events(client: MarathonClient, contract: Contract) -> None:
    """It reads 512 bytes at a time, so that an event may wait for the next ones: the app's end brings enough."""
    name = fresh("streamed")
    seen: list[MarathonEvent] = []

    def listen() -> None:
        for event in client.event_stream():
            seen.append(event)
            if isinstance(event, MarathonDeploymentSuccess):
                return

    listener = threading.Thread(target=listen)
    with contract.leader.events("event_stream_attached") as attached:
        next(attached)
        listener.start()
        next(attached)
    client.create_app(name, MarathonApp(cmd="exec sleep 1000", cpus=0.01, mem=16))
    ended(client)
    client.delete_app(name)
    listener.join(30)
    assert not listener.is_alive()
    running = [event for event in seen if isinstance(event, MarathonStatusUpdateEvent)]
    assert [(event.app_id, event.task_status) for event in running] == [(name, "TASK_RUNNING")]
