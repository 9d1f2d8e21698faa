"""Hosts that are lost, and where their tasks are, from what Mesos and Marathon still know."""

from __future__ import annotations

from typing import Any

import pytest
from marathon_answers import in_11, task
from mesos_site import site

from runbook.services.marathon.apps import app_of_task
from runbook.services.marathon.losses import COLUMNS, Losses
from runbook.services.mesos.checks import Registrations

Json = dict[str, Any]
ADDRESSES = {f"node{number}": f"198.51.100.1{number}:5051" for number in (1, 2, 3)}
IPS = {name: address.partition(":")[0] for name, address in ADDRESSES.items()}
LOST_AT = 1464679950.0  # 2016-05-31T07:32:30Z
BEFORE, AFTER = "2016-05-31T07:32:17.000Z", "2016-05-31T07:32:32.000Z"
UUID = "0f4fb44a-e940-4ed9-aaab-798ecd9d94de"


def name(number: int, app: str = "hello") -> str:
    return f"{app}.{number:08}{UUID[8:]}"


def reported(
    number: int, host: str, state: str, *, slave: str | None = None, ip: str | None = None, app: str = "hello"
) -> Json:
    """A task in Mesos' state, whose reports tell the address `ip` (its host's, unless it is said otherwise)."""
    network = {"network_infos": [{"ip_addresses": [{"ip_address": ip or IPS[host]}]}]}
    reports = [{"state": "TASK_RUNNING", "timestamp": LOST_AT - 10, "container_status": network}]
    reports += [] if state == "TASK_RUNNING" else [{"state": state, "timestamp": LOST_AT}]
    return {
        "id": name(number, app),
        "name": app,
        "slave_id": slave or f"S-{host}",
        "framework_id": "F",
        "state": state,
        "statuses": reports,
    }


def registrations(there: tuple[str, ...], tasks: list[Json], inactive: tuple[str, ...] = ()) -> Registrations:
    slaves = [
        {
            "id": f"S-{host}",
            "hostname": IPS[host],
            "pid": f"slave(1)@{ADDRESSES[host]}",
            "active": host not in inactive,
            "resources": {},
        }
        for host in there
    ]
    live = [one for one in tasks if one["state"] == "TASK_RUNNING"]
    ended = [one for one in tasks if one["state"] != "TASK_RUNNING"]
    framework = {"id": "F", "name": "marathon", "tasks": live, "completed_tasks": ended}
    return Registrations.of(ADDRESSES, {"slaves": slaves, "frameworks": [framework], "orphan_tasks": []})


def running(number: int, host: str, staged: str = BEFORE) -> Json:
    return task(number, host=IPS[host], id=name(number), stagedAt=staged, startedAt=staged, ports=[8400 + number])


def losses(
    found: Registrations, tasks: list[Json], *, failure: Json | None = None, silent: tuple[str, ...] = ()
) -> Losses:
    app = in_11({"id": "hello", "cmd": "x"}, **({"lastTaskFailure": failure} if failure else {}))
    return Losses.of(site(), found, [app], tasks, silent)


def test_where_every_slave_is_active_nothing_is_lost() -> None:
    old = reported(1, "node3", "TASK_LOST", slave="S-before")
    evidence = losses(registrations(("node1", "node2", "node3"), [old]), []).evidence()
    assert evidence.holds, "what was lost with an earlier life of a host that is back is history"
    assert evidence.table is None


def test_a_lost_host_is_named_with_its_tasks_and_where_they_are_now() -> None:
    mesos = [reported(1, "node3", "TASK_LOST"), reported(2, "node3", "TASK_LOST"), reported(3, "node1", "TASK_RUNNING")]
    mesos.append(reported(4, "node2", "TASK_FAILED"))
    now = [running(3, "node1"), running(5, "node1", AFTER), running(6, "node2", AFTER)]
    evidence = losses(registrations(("node1", "node2"), mesos), now).evidence()
    assert not evidence.holds
    assert evidence.text == (
        "node3 is lost (no slave of it is registered with Mesos' leader): 2 tasks were there, 2 replaced elsewhere"
    )
    assert evidence.table is not None
    assert list(evidence.table.columns) == COLUMNS
    assert evidence.table.values.tolist() == [
        ["/hello", name(1), "node3", "2016-05-31 07:32:30", "node1:8405 (running)", name(5)],
        ["/hello", name(2), "node3", "2016-05-31 07:32:30", "node2:8406 (running)", name(6)],
    ]


def test_what_waits_for_a_place_is_told() -> None:
    table = losses(registrations(("node1", "node2"), [reported(1, "node3", "TASK_LOST")]), []).table()
    assert table.loc[0, "is on"] == "– waits for a place"


def test_a_task_that_is_lost_itself_replaces_none() -> None:
    lost = {**running(5, "node2", AFTER), "state": "TASK_LOST"}  # as Marathon 1.1.2 to 1.3 keep it
    table = losses(registrations(("node1", "node2"), [reported(1, "node3", "TASK_LOST")]), [lost]).table()
    assert table.loc[0, "is on"] == "– waits for a place"


def test_what_mesos_has_not_given_up_yet_is_counted_there() -> None:
    found = registrations(("node1", "node2", "node3"), [reported(1, "node3", "TASK_RUNNING")], inactive=("node3",))
    found_losses = losses(found, [running(1, "node3")])
    assert "S-node3 does not answer: Mesos gives it up after 75 s" in found_losses.evidence().text
    assert "1 task was there, 0 replaced elsewhere, 1 not given up by Mesos yet" in found_losses.evidence().text
    assert found_losses.table().loc[0, "is on"] == "– counted there still"


def test_a_new_leader_of_mesos_knows_nothing_of_them_and_marathon_does() -> None:
    found_losses = losses(registrations(("node1", "node2"), []), [running(1, "node3"), running(2, "node1")])
    assert found_losses.table()[["task", "was on"]].values.tolist() == [[name(1), "node3"]]


def test_a_host_that_is_silent_is_named_while_mesos_still_counts_it() -> None:
    found = registrations(("node1", "node2", "node3"), [reported(1, "node3", "TASK_RUNNING")])
    evidence = losses(found, [running(1, "node3")], silent=("node3",)).evidence()
    assert evidence.text.startswith("node3 is lost (it does not answer over SSH")


@pytest.mark.parametrize("how", ["by Marathon's last failure", "by that of another task", "by elimination"])
def test_a_task_whose_address_is_not_its_host_s_is_placed_otherwise(how: str) -> None:
    bridged = reported(1, "node3", "TASK_LOST", ip="172.17.0.2", slave="S-gone")
    failure = {
        "host": IPS["node3"],
        "slaveId": "S-gone",
        "taskId": name(1) if how == "by Marathon's last failure" else name(9),
        "appId": "/hello",
        "state": "TASK_FAILED" if how == "by that of another task" else "TASK_LOST",
        "timestamp": "2016-05-31T07:32:30.000Z",
    }
    found = losses(
        registrations(("node1", "node2"), [bridged]), [], failure=None if how == "by elimination" else failure
    )
    assert name(1) in set(found.table()["task"])
    assert set(found.table()["was on"]) == {"node3"}


def test_tasks_of_other_frameworks_are_left_out() -> None:
    other = {**reported(1, "node3", "TASK_LOST"), "id": "ct:1464679950:0:backup:"}
    assert losses(registrations(("node1", "node2"), [other]), []).table().empty


@pytest.mark.parametrize(
    ("task_id", "app"),
    [
        (f"hello.{UUID}", "/hello"),
        (f"shop_web.{UUID}", "/shop/web"),
        (f"shop_web.instance-{UUID}._app.1", "/shop/web"),
        (f"v1.2.{UUID}", "/v1.2"),
        ("ct:1464679950:0:backup:", None),
    ],
)
def test_a_task_s_id_names_its_app(task_id: str, app: str | None) -> None:
    assert app_of_task(task_id) == app
