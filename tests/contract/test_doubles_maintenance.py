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


def test_a_machine_by_its_hostname_only_is_scheduled_without_effect_on_the_slave(mesos: Mesos) -> None:
    """As the recorded payloads have it (nine-chapters/maintenance.json)."""
    master = mesos.master()
    mesos.slave()
    mesos.registered(1)
    named = {"hostname": "localhost"}
    assert post(master, "/maintenance/schedule", schedule(named)) == (200, "")
    assert master.get("/maintenance/status") == {"draining_machines": [{"id": named}]}
    with Framework(master.url) as framework:
        assert "unavailability" not in framework.offer()
    assert post(master, "/machine/down", [named]) == (200, "")
    assert len(mesos.registered(1)) == 1
    assert post(master, "/machine/up", [named]) == (200, "")


NO_START = {"windows": [{"machine_ids": [MACHINE], "unavailability": {}}]}
LATER = {"start": {"nanoseconds": 1}}


def test_what_is_refused(mesos: Mesos) -> None:
    """In the words of `src/master/maintenance.cpp` and `stout/protobuf.hpp`."""
    mesos.master()
    master = mesos.leader()
    other = {"hostname": "Other", "ip": "127.0.0.1"}
    shown = '{"hostname":"localhost","ip":"127.0.0.1"}'
    for path, body, message in [
        ("/maintenance/schedule", [], "Unexpected JSON type parsed"),
        ("/maintenance/schedule", {"windows": 1}, "Not expecting a JSON number for field 'windows'"),
        ("/maintenance/schedule", {"windows": [{}]}, "Missing required fields: windows[0].unavailability"),
        ("/maintenance/schedule", NO_START, "Missing required fields: windows[0].unavailability.start"),
        (
            "/maintenance/schedule",
            {"windows": [{"unavailability": LATER}]},
            "List of machines in the maintenance window is empty",
        ),
        (
            "/maintenance/schedule",
            {"windows": [{"machine_ids": [MACHINE], "unavailability": LATER | {"duration": {"nanoseconds": -1}}}]},
            "Unavailability 'duration' is negative",
        ),
        ("/maintenance/schedule", schedule({}), "Both 'hostname' and 'ip' for a machine are empty"),
        (
            "/maintenance/schedule",
            schedule(MACHINE, MACHINE),
            f"Machine '{shown}' appears more than once in the schedule",
        ),
        ("/machine/down", {}, "Unexpected JSON type parsed"),
        ("/machine/down", [], "List of machines is empty"),
        (
            "/machine/down",
            [other],
            'Machine \'{"hostname":"Other","ip":"127.0.0.1"}\' is not part of a maintenance schedule',
        ),
        ("/machine/up", ["x"], "Expecting a JSON object"),
    ]:
        assert post(master, path, body) == (400, message), f"{path} {body}"
    answer = requests.delete(f"{master.url}/maintenance/schedule", timeout=10)
    assert (answer.status_code, answer.headers["Allow"]) == (405, "GET, POST")


def test_a_standby_answers_by_its_own_knowledge_and_changes_nothing(mesos: Mesos) -> None:
    for _ in range(3):
        mesos.master(quorum=2)
    leader = mesos.leader()
    standby = next(master for master in mesos.masters if master is not leader).answers()
    assert post(leader, "/maintenance/schedule", schedule(MACHINE)) == (200, "")
    assert standby.get("/maintenance/schedule") == {}
    assert post(standby, "/machine/down", [MACHINE])[0] == 400
    assert post(standby, "/maintenance/schedule", schedule(MACHINE))[0] == 503
    assert leader.get("/maintenance/schedule") != {}
