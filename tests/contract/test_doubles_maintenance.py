"""Maintenance of machines on the doubles: what Mesos' documentation (docs/maintenance.md) promises."""

from __future__ import annotations

import time
from typing import Any

import requests
from daemons import Daemon, Mesos, eventually
from framework import Framework, task

Json = dict[str, Any]
MACHINE = {"hostname": "localhost", "ip": "127.0.0.1"}


def post(master: Daemon, path: str, body: object) -> tuple[int, str]:
    answer = requests.post(master.url + path, json=body, timeout=30)
    return answer.status_code, answer.text


def schedule(*machines: Json) -> Json:
    window = {"machine_ids": list(machines), "unavailability": {"start": {"nanoseconds": time.time_ns()}}}
    return {"windows": [window]}


def test_a_machine_drains_goes_down_and_comes_up(mesos: Mesos) -> None:
    master = mesos.master()
    slave = mesos.slave()
    mesos.registered(1)
    assert master.get("/maintenance/schedule") == {}
    assert post(master, "/machine/down", [MACHINE])[0] == 400
    plan = schedule(MACHINE)
    assert post(master, "/master/maintenance/schedule", plan) == (200, "")
    assert master.get("/maintenance/schedule") == plan
    assert master.get("/maintenance/status") == {"draining_machines": [{"id": MACHINE}]}
    with Framework(master.url) as framework:
        offer = framework.offer()
        assert offer["unavailability"] == plan["windows"][0]["unavailability"]
        framework.launch(offer, task("sleeper", "sleep 1000"))
        framework.status("sleeper", "TASK_RUNNING")
        assert post(master, "/machine/down", [MACHINE]) == (200, "")
        assert framework.status("sleeper", "TASK_LOST")["reason"] == "REASON_AGENT_REMOVED"
    assert slave.ends() == 0
    assert master.get("/maintenance/status") == {"down_machines": [MACHINE]}
    assert slave.start().ends() == 0
    assert "Machine is `DOWN`" in slave.text()
    assert post(master, "/machine/up", [MACHINE]) == (200, "")
    assert master.get("/maintenance/schedule") == {}
    slave.start()
    mesos.registered(1)
    eventually(lambda: not mesos.executors(), "its tasks have ended")


def test_what_is_refused(mesos: Mesos) -> None:
    mesos.master()
    master = mesos.leader()
    other = {"hostname": "other", "ip": "127.0.0.1"}
    for path, body, message in [
        ("/maintenance/schedule", [], "Failed to convert JSON into Schedule protobuf"),
        ("/maintenance/schedule", {"windows": [{}]}, "Failed to convert JSON into Schedule protobuf"),
        ("/maintenance/schedule", schedule(MACHINE, MACHINE), "A machine appears more than once"),
        ("/machine/down", {}, "Failed to convert JSON into an array of MachineIDs: Expecting an array"),
        ("/machine/down", [other], "is not part of a maintenance schedule"),
        ("/machine/up", ["x"], "Failed to convert JSON into an array of MachineIDs"),
    ]:
        status, text = post(master, path, body)
        assert (status, message in text) == (400, True), f"{path} {body}: {text}"
