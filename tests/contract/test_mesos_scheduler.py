"""Mesos' scheduler HTTP API, compared with a recorded conversation and asked what the recording does not show."""

from __future__ import annotations

import json
import time
from typing import Any
from urllib.parse import urlsplit

import pytest
from contract import PAYLOADS, Cluster, Workload, is_roomy
from framework import Framework, post, task
from shapes import Shape

Json = dict[str, Any]
RECORDING = [
    json.loads(line) for line in (PAYLOADS / "one-node" / "scheduler-v1.jsonl").read_text(encoding="utf-8").splitlines()
]


def recorded_events(kind: str) -> list[Json]:
    return [entry["event"] for entry in RECORDING if entry.get("event", {}).get("type") == kind]


def departures(framework: Framework, kind: str) -> list[str]:
    """How the events of a kind differ in shape from those of the recording."""
    shape = Shape.of(recorded_events(kind))
    return [found for event in framework.events if event["type"] == kind for found in shape.differences(event)]


@pytest.fixture
def framework(cluster: Cluster) -> Any:
    with Framework(cluster.leader) as framework:
        yield framework


def first_port(offer: Json) -> int:
    return ports(offer)[0]


def ports(offer: Json) -> list[int]:
    ranges = (r["ranges"]["range"] for r in offer["resources"] if r["name"] == "ports")
    return [port for part in ranges for each in part for port in range(each["begin"], each["end"] + 1)]


def test_subscription_answers_as_recorded(framework: Framework) -> None:
    headers = next(entry["response"]["headers"] for entry in RECORDING if "response" in entry)
    assert framework.headers.keys() == {name.lower() for name in headers}
    assert framework.headers["transfer-encoding"] == "chunked"
    assert framework.headers["content-type"] == headers["Content-Type"]
    framework.wait("HEARTBEAT")
    framework.offer(is_roomy)
    assert [event["type"] for event in framework.events[:2]] == ["SUBSCRIBED", "HEARTBEAT"]
    assert framework.id
    assert framework.id.rpartition("-")[2].isdigit()
    for kind in ("SUBSCRIBED", "HEARTBEAT", "OFFERS"):
        assert departures(framework, kind) == []


def test_a_task_from_offer_to_acknowledged_end(cluster: Cluster, framework: Framework) -> None:
    offer = framework.offer(is_roomy)
    port = first_port(offer)
    name = f"killed.{time.time():.3f}"
    since = len(framework.events)
    framework.launch(offer, task(name, "sleep 1000", ports=(port,)))
    running = framework.status(name, "TASK_RUNNING")
    assert running["source"] == "SOURCE_EXECUTOR"
    assert running["executor_id"] == running["task_id"] == {"value": name}
    rest = framework.offer(lambda other: other["agent_id"] == offer["agent_id"], since=since)
    assert port not in ports(rest)
    framework.call("KILL", kill={"task_id": {"value": name}})
    killed = framework.status(name, "TASK_KILLED")
    assert killed["message"] == "Command terminated with signal Terminated"
    assert departures(framework, "UPDATE") == []


def test_exit_status_makes_the_state(framework: Framework) -> None:
    offer = framework.offer(is_roomy)
    names = [f"{end}.{time.time():.3f}" for end in ("fails", "finishes", "signalled")]
    framework.launch(offer, task(names[0], "exit 3"), task(names[1], "true"), task(names[2], "kill -SEGV $$"))
    assert framework.status(names[0], "TASK_FAILED")["message"] == "Command exited with status 3"
    assert framework.status(names[1], "TASK_FINISHED")["message"] == "Command exited with status 0"
    assert framework.status(names[2], "TASK_FAILED")["message"].startswith("Command terminated with signal")


def test_environment_of_a_command(cluster: Cluster, framework: Framework) -> None:
    offer = framework.offer(lambda offer: is_roomy(offer) and f":{offer['url']['address']['port']}" in cluster.slave)
    port = first_port(offer)
    name = f"environment.{time.time():.3f}"
    wanted = " && ".join(
        ["test $PORT = $PORT0", f"test $PORT = {port}", "test $PWD = $MESOS_SANDBOX", "test -n $MESOS_SLAVE_ID"]
    )
    framework.launch(offer, task(name, wanted, ports=(port,)))
    framework.status(name, "TASK_FINISHED")


def test_reconciliation(framework: Framework, workload: Workload) -> None:
    offer = framework.offer(is_roomy)
    name = f"reconciled.{time.time():.3f}"
    framework.launch(offer, task(name, "sleep 1000"))
    framework.status(name, "TASK_RUNNING")
    for asked in ([], [{"task_id": {"value": name}, "agent_id": offer["agent_id"]}]):
        since = len(framework.events)
        framework.call("RECONCILE", reconcile={"tasks": asked})
        status = framework.wait("UPDATE", since=since)["status"]
        assert (status["task_id"]["value"], status["state"]) == (name, "TASK_RUNNING")
        assert (status["reason"], status["source"]) == ("REASON_RECONCILIATION", "SOURCE_MASTER")
        assert status["message"] == "Reconciliation: Latest task state"
        assert "uuid" not in status
    for call in ({"reconcile": {"tasks": [{"task_id": {"value": "nobody's"}}]}}, {"kill": {"task_id": {"value": "x"}}}):
        since = len(framework.events)
        framework.call(next(iter(call)).upper(), **call)
        status = framework.wait("UPDATE", since=since)["status"]
        assert (status["state"], status["message"]) == ("TASK_LOST", "Reconciliation: Task is unknown")
    assert departures(framework, "UPDATE") == []


def test_declined_resources_come_back_after_the_filter_or_revive(framework: Framework) -> None:
    offer = framework.offer(is_roomy)

    def again(other: Json) -> bool:
        """Whether it is what was declined; a slave on which other tasks end meanwhile offers more than that."""
        return bool(other["agent_id"] == offer["agent_id"] and other["resources"] == offer["resources"])

    since = len(framework.events)
    framework.call("DECLINE", decline={"offer_ids": [offer["id"]], "filters": {"refuse_seconds": 3600}})
    with pytest.raises(AssertionError, match="no such OFFERS"):
        framework.wait("OFFERS", lambda offers: any(map(again, offers["offers"])), since=since, seconds=2.5)
    framework.call("REVIVE")
    back = framework.offer(lambda other: other["agent_id"] == offer["agent_id"], since=since)
    since = len(framework.events)
    framework.call("DECLINE", decline={"offer_ids": [back["id"]], "filters": {"refuse_seconds": 0.5}})
    framework.offer(lambda other: other["agent_id"] == offer["agent_id"], since=since)


def test_an_offer_is_good_once(framework: Framework) -> None:
    offer = framework.offer(is_roomy)
    framework.call("DECLINE", decline={"offer_ids": [offer["id"]]})
    framework.launch(offer, task("late", "true"))
    status = framework.status("late", "TASK_LOST")
    assert status["reason"] == "REASON_INVALID_OFFERS"
    assert status["message"] == f"Task launched with invalid offers: Offer {offer['id']['value']} is no longer valid"


def test_a_task_that_does_not_fit_is_an_error(framework: Framework) -> None:
    offer = framework.offer(is_roomy)
    info = task("huge", "true")
    info["resources"][0]["scalar"]["value"] = 10000
    framework.launch(offer, info)
    status = framework.status("huge", "TASK_ERROR")
    assert status["reason"] == "REASON_TASK_INVALID"
    assert status["message"].startswith("Task uses more resources cpus(*):10000; mem(*):32 than available")


def test_resubscription_keeps_the_id_and_the_tasks(cluster: Cluster) -> None:
    name = f"survives.{time.time():.3f}"
    with Framework(cluster.leader, name="first", stays=True) as first:
        first.launch(first.offer(is_roomy), task(name, "sleep 1000"))
        first.status(name, "TASK_RUNNING")
        with Framework(cluster.leader, framework_id=first.id, name="first") as second:
            assert second.id == first.id
            assert first.wait("ERROR")["message"] == "Framework failed over"
            first.wait_for_end()
            second.call("RECONCILE", reconcile={"tasks": []})
            assert second.wait("UPDATE")["status"]["task_id"]["value"] == name
    with Framework(cluster.leader, framework_id=first.id) as third:
        assert third.wait("ERROR")["message"] == "Framework has been removed"
        third.wait_for_end()


def test_unacknowledged_status_is_sent_again(framework: Framework) -> None:
    name = f"again.{time.time():.3f}"
    framework.launch(framework.offer(is_roomy), task(name, "sleep 1000"))
    first = framework.wait("UPDATE", lambda update: update["status"]["task_id"]["value"] == name)["status"]
    since = len(framework.events)
    again = framework.wait("UPDATE", since=since, seconds=20)["status"]
    assert again == first


CONVERT, VALIDATE = "Failed to convert JSON into Call protobuf: ", "Failed to validate Scheduler::Call: "
NONE = {"framework_id": {"value": "none"}}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ("", "Failed to parse body into JSON: syntax error at line 1 near: "),
        ('{"type":', "Failed to parse body into JSON: syntax error at line 1 near: "),
        ('{\n"type" "KILL"}', 'Failed to parse body into JSON: syntax error at line 2 near: "KILL"}'),
        ("[]", CONVERT + "Expecting a JSON object"),
        ({"type": 1}, CONVERT + "Not expecting a JSON number for field 'type'"),
        ({"type": None}, CONVERT + "Missing required fields: type"),
        ({"type": "REVIVE", "framework_id": "none"}, CONVERT + "Not expecting a JSON string for field 'framework_id'"),
        ({"type": "REVIVE", "framework_id": {}}, CONVERT + "Missing required fields: framework_id.value"),
        (
            {"type": "SUBSCRIBE", "subscribe": {"framework_info": {}}},
            CONVERT + "Missing required fields: subscribe.framework_info.user, subscribe.framework_info.name",
        ),
        (
            {"type": "SUBSCRIBE", "subscribe": {"framework_info": {"user": "root", "name": "x"}}, **NONE},
            VALIDATE + "'framework_id' differs from 'subscribe.framework_info.id'",
        ),
        (
            {"type": "DECLINE", "decline": {"offer_ids": [{}]}, **NONE},
            CONVERT + "Missing required fields: decline.offer_ids[0].value",
        ),
        *(
            ({"type": kind, **NONE}, f"{VALIDATE}Expecting '{kind.lower()}' to be present")
            for kind in ("ACCEPT", "DECLINE", "SHUTDOWN", "ACKNOWLEDGE", "RECONCILE", "MESSAGE", "REQUEST")
        ),
        *(({"type": kind, **NONE}, "Framework cannot be found") for kind in ("TEARDOWN", "SUPPRESS", "REVIVE")),
    ],
)
def test_calls_that_are_refused(cluster: Cluster, call: object, message: str) -> None:
    """Beside the recorded refusals (test_mesos_answers.py), those that the same code words.

    Source: `stout/protobuf.hpp`, `picojson.h` and `src/master/validation.cpp` of Mesos.
    """
    status, text, headers = post(urlsplit(cluster.leader).netloc, call)
    assert (status, text) == (400, message)
    assert "content-type" not in headers


@pytest.mark.parametrize("kind", ["application/json; charset=utf-8", "application/JSON", "text/plain"])
def test_the_content_type_is_taken_literally(cluster: Cluster, kind: str) -> None:
    status, text, _ = post(urlsplit(cluster.leader).netloc, {"type": "REVIVE", **NONE}, Content_Type=kind)
    assert (status, text) == (415, "Expecting 'Content-Type' of application/json or application/x-protobuf")


def test_stream_id_is_insisted_on(framework: Framework) -> None:
    call = {"type": "REVIVE", "framework_id": {"value": framework.id}}
    status, text, _ = post(framework.address, call)
    assert (status, text) == (400, "All non-subscribe calls should include the 'Mesos-Stream-Id' header")
    status, text, _ = post(framework.address, call, Mesos_Stream_Id="another")
    assert status == 400
    assert text.startswith("The stream ID included in this request didn't match the stream ID")
    info = {"user": "root", "name": "x"}
    subscription = {"type": "SUBSCRIBE", "subscribe": {"framework_info": info}}
    status, text, _ = post(framework.address, subscription, Mesos_Stream_Id="any")
    assert (status, text) == (400, "Subscribe calls should not include the 'Mesos-Stream-Id' header")


def test_standby_redirects_to_the_leader(cluster: Cluster) -> None:
    if cluster.standby is None:
        pytest.skip("the cluster under test has a single master")
    info = {"user": "root", "name": "x"}
    call = {"type": "SUBSCRIBE", "subscribe": {"framework_info": info}}
    status, _, headers = post(urlsplit(cluster.standby).netloc, call)
    leader = cluster.leader_json("/state")
    assert status == 307
    assert urlsplit(headers["location"]).netloc == f"{leader['hostname']}:{leader['pid'].rpartition(':')[2]}"
