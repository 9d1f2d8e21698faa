"""Refusals, redirects and maintenance of a mesos-master, compared with the recorded answers of a real 0.28.0.

The requests below change nothing in a cluster. Maintenance does: it is tried on the doubles only, and on a cluster
that is named by base URLs where RUNBOOK_CONTRACT_MAINTENANCE names the machine that may go down, `hostname,ip`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping

import pytest
from contract import Cluster, Json, answer_to, recorded
from daemons import Mesos, eventually

ANSWERS: list[Json] = recorded("nine-chapters/answers.json")[0]
MAINTENANCE: list[Json] = recorded("nine-chapters/maintenance.json")[0]
RECORDED_LEADER, RECORDED_MACHINE = "198.51.100.11:8150", "198.51.100.13"
AT_STANDBY = [entry["case"] for entry in ANSWERS if "standby" in entry["case"]]
SHOWS_WHAT_IS_SET = ("schedule", "schedule at a standby", "maintenance status", "quota")
"""Cases that a cluster answers otherwise while it has a schedule or quotas."""
MOVES_A_MACHINE = ("machine down without schedule", "machine up without down")
"""Cases that are refused only while the machine is in no schedule."""


def names(entries: list[Json]) -> list[str]:
    return [entry["case"] for entry in entries]


def test_every_recorded_answer_is_one_of_a_case_of_its_own() -> None:
    assert len(set(names(ANSWERS))) == len(ANSWERS) == 30
    assert all(int(entry["headers"]["Content-Length"]) == len(entry["body"]) for entry in [*ANSWERS, *MAINTENANCE])


@pytest.mark.parametrize("entry", ANSWERS, ids=names(ANSWERS))
def test_recorded_errors_have_no_content_type(entry: Json) -> None:
    assert ("Content-Type" in entry["headers"]) == (entry["status"] == 200 and entry["body"] != "")


@pytest.mark.parametrize("entry", ANSWERS, ids=names(ANSWERS))
def test_answer_is_the_recorded_one(cluster: Cluster, entry: Json) -> None:
    """Status, headers except Date, and body; the facts of the recorded cluster are replaced by those of this one."""
    master = cluster.standby if entry["case"] in AT_STANDBY else cluster.leader
    if master is None:
        pytest.skip("the cluster under test has a single master")
    state = cluster.leader_json("/state")
    where = f"{state['hostname']}:{state['pid'].rpartition(':')[2]}"
    agent = next(slave for slave in state["slaves"] if slave["pid"] == cluster.agent_pid)
    if entry["case"] in SHOWS_WHAT_IS_SET + MOVES_A_MACHINE:
        for path in ("/maintenance/schedule", "/quota"):
            if cluster.leader_json(path) != {}:
                pytest.skip(f"the cluster under test has something in {path}, which this must not touch")
    facts = [
        (RECORDED_LEADER, where),
        (f'"hostname":"{RECORDED_MACHINE}"', f'"hostname":"{agent["hostname"]}"'),
        (f'"ip":"{RECORDED_MACHINE}"', f'"ip":"{cluster.agent_ip}"'),
    ]
    entry = replaced(entry, facts)
    request = entry["request"]
    found = answer_to(master, request["method"], request["path"], request["body"], request["headers"])
    assert found == (entry["status"], headers_of(entry), entry["body"])


def replaced(entry: Json, facts: list[tuple[str, str]]) -> Json:
    """A recorded exchange with other facts, its Content-Length counted again."""
    entry = {**entry, "request": dict(entry["request"]), "headers": dict(entry["headers"])}
    for old, new in facts:
        entry["body"] = entry["body"].replace(old, new)
        entry["headers"] = {name: value.replace(old, new) for name, value in entry["headers"].items()}
        entry["request"]["body"] = (entry["request"]["body"] or "").replace(old, new)
    entry["headers"]["Content-Length"] = str(len(entry["body"]))
    return entry


def headers_of(entry: Json) -> dict[str, str]:
    return {name.lower(): value for name, value in entry["headers"].items()}


def prepared(entry: Json, machine: Mapping[str, str]) -> Json:
    """A recorded maintenance call about another machine."""
    body = entry["request"]["body"]
    entry = {**entry, "request": {**entry["request"], "body": "" if body is None else compact(body)}}
    return replaced(entry, [(f'"{name}":"{RECORDED_MACHINE}"', f'"{name}":"{machine[name]}"') for name in machine])


def compact(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))


@pytest.fixture(scope="module")
def machine_of_cluster(request: pytest.FixtureRequest) -> Iterator[tuple[str, Json]]:
    """The leader and the machine that goes down and comes up: the doubles', or the one that is allowed to."""
    if allowed := os.environ.get("RUNBOOK_CONTRACT_MAINTENANCE"):
        cluster: Cluster = request.getfixturevalue("cluster")
        hostname, _, ip = allowed.partition(",")
        yield cluster.leader, {"hostname": hostname, "ip": ip}
        return
    folder = request.getfixturevalue("tmp_path_factory").mktemp("maintenance")
    with Mesos(request.getfixturevalue("zookeeper_for_doubles"), folder) as mesos:
        mesos.master()
        mesos.slave()
        mesos.registered(1)
        yield mesos.leader().url, {"hostname": "localhost", "ip": "127.0.0.1"}


def test_maintenance_answers_as_recorded(machine_of_cluster: tuple[str, Json]) -> None:
    """The recorded calls in their order, from the first schedule to the machine's return."""
    leader, machine = machine_of_cluster
    if json.loads(answer_to(leader, "GET", "/master/maintenance/schedule")[2]) != {}:
        pytest.skip("the cluster under test has a maintenance schedule of its own")
    for entry in MAINTENANCE:
        entry = prepared(entry, machine)
        request = entry["request"]
        found = answer_to(leader, request["method"], request["path"], request["body"])
        assert found == (entry["status"], headers_of(entry), entry["body"]), entry["case"]
        if entry["case"] in ("status while draining", "status when down"):
            there = entry["case"] == "status while draining"
            eventually(lambda there=there: has_agent(leader, machine) is there, f"agent registered: {there}")


def has_agent(leader: str, machine: Mapping[str, str]) -> bool:
    slaves = json.loads(answer_to(leader, "GET", "/master/slaves")[2])["slaves"]
    return any(
        slave["active"] and slave["hostname"] == machine["hostname"] and f"@{machine['ip']}:" in slave["pid"]
        for slave in slaves
    )
