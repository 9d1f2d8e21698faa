"""What Marathon tells of itself: leader, info, events; and how a standby answers."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from daemons import eventually
from marathons import SLEEP, Asked, Contract, assert_is, fresh

Json = dict[str, Any]


def test_info(marathon: Asked) -> None:
    info = marathon.get("/v2/info")
    assert (info["name"], info["version"], info["elected"]) == ("marathon", "1.1.1", True)
    assert info["frameworkId"]
    assert info["leader"] == marathon.get("/v2/leader")["leader"]
    config = info["marathon_config"]
    assert (config["failover_timeout"], config["checkpoint"], config["ha"]) == (604800, True, True)
    assert config["task_launch_timeout"] == 300000
    assert info["zookeeper_config"]["zk"].startswith("zk://")
    assert info.keys() == {
        *("name", "version", "elected", "leader", "frameworkId", "marathon_config", "zookeeper_config"),
        *("event_subscriber", "http_config"),
    }, "buildref comes with 1.3"
    assert config.keys() >= {"features", "task_reservation_timeout"}
    assert "marathon_store_timeout" not in config


def test_an_address_that_is_not_there(marathon: Asked) -> None:
    answer = marathon.ask("GET", "/v2/nothing")
    assert (answer.status_code, answer.json()) == (404, {"message": "URI not found: /v2/nothing"})


def test_ping_and_metrics(marathon: Asked) -> None:
    answer = marathon.ask("GET", "/ping")
    assert (answer.status_code, answer.text.strip()) == (200, "pong")
    assert marathon.get("/metrics").keys() >= {"version", "gauges", "counters", "meters", "timers"}


def test_the_leader_names_itself_and_the_standby_passes_on(contract: Contract) -> None:
    leader = contract.leader.get("/v2/leader")["leader"]
    answer = contract.leader.ask("GET", "/v2/info")
    assert answer.headers["X-Marathon-Leader"] == f"http://{leader}"
    assert "X-Marathon-Via" not in answer.headers
    if contract.standby is None:
        pytest.skip("the Marathon under test has no standby")
    passed = contract.standby.ask("GET", "/v2/info")
    assert passed.json() == answer.json()
    assert passed.headers["X-Marathon-Leader"] == f"http://{leader}"
    assert passed.headers["X-Marathon-Via"].startswith("1.1 ")


def test_writes_and_errors_pass_through_the_standby(contract: Contract, marathon: Asked) -> None:
    if contract.standby is None:
        pytest.skip("the Marathon under test has no standby")
    name = fresh("through")
    assert contract.standby.ask("POST", "/v2/apps", {"id": name, **SLEEP}).status_code == 201
    marathon.running(name, 1)
    marathon.quiet()
    answer = contract.standby.ask("POST", "/v2/apps", {"id": name, **SLEEP})
    assert (answer.status_code, answer.json()) == (409, {"message": f"An app with id [{name}] already exists."})
    assert contract.standby.ask("DELETE", f"/v2/apps{name}").status_code == 200


def test_events_want_their_media_type(marathon: Asked) -> None:
    answer = marathon.ask("GET", "/v2/events")
    assert answer.status_code == 405
    assert answer.headers["Content-Type"].startswith("text/html")
    assert "HTTP method GET is not supported by this URL" in answer.text


def test_the_events_of_an_app(marathon: Asked) -> None:
    name = fresh("told")
    with marathon.events() as events:
        assert next(events)["eventType"] == "event_stream_attached"
        created = marathon.ask("POST", "/v2/apps", {"id": name, **SLEEP}).json()
        seen: list[Json] = []
        for event in events:
            seen.append(event)
            if event["eventType"] == "deployment_success":
                break
    assert_is("Event", *seen)
    kinds = [event["eventType"] for event in seen]
    for kind in ("api_post_event", "deployment_info", "deployment_step_success", "status_update_event"):
        assert kind in kinds
    assert all(event["timestamp"] for event in seen)
    assert seen[-1]["id"] == created["deployments"][0]["id"]
    running = next(event for event in seen if event.get("taskStatus") == "TASK_RUNNING")
    (task,) = marathon.tasks(name)
    assert {key: running[key] for key in ("appId", "taskId", "host", "ports", "slaveId", "version")} == {
        "appId": name,
        "taskId": task["id"],
        **{key: task[key] for key in ("host", "ports", "slaveId", "version")},
    }
    info = next(event for event in seen if event["eventType"] == "deployment_info")
    assert info["plan"]["id"] == seen[-1]["id"]
    assert info["currentStep"]["actions"][0]["app"] == name
    assert [app["id"] for app in info["plan"]["target"]["apps"] if app["id"] == name] == [name]


def test_a_cancelled_deployment_is_told_as_failed(marathon: Asked) -> None:
    name = fresh("told-to-stop")
    with marathon.events() as events:
        next(events)
        (deployment,) = marathon.ask("POST", "/v2/apps", {"id": name, "cmd": "true", "cpus": 1000}).json()[
            "deployments"
        ]
        marathon.ask("DELETE", f"/v2/deployments/{deployment['id']}", force="true")
        failed = next(event for event in events if event["eventType"] == "deployment_failed")
    assert failed["id"] == deployment["id"]


def test_events_come_through_the_standby(contract: Contract, marathon: Asked) -> None:
    if contract.standby is None:
        pytest.skip("the Marathon under test has no standby")
    seen: list[Json] = []
    name = fresh("told-by-proxy")

    def listen() -> None:
        assert contract.standby
        with contract.standby.events() as events:
            for event in events:
                seen.append(event)
                if event.get("appId") == name:
                    return

    listener = threading.Thread(target=listen)
    listener.start()
    eventually(lambda: seen, "the stream opens")
    marathon.deploy({"id": name, **SLEEP})
    listener.join(30)
    assert not listener.is_alive()
    assert seen[0]["eventType"] == "event_stream_attached"
