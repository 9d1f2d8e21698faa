"""What is said of Marathon's instances together, and of its framework, by what each of them answers."""

from __future__ import annotations

import re
from typing import Any

import pytest
from mesos_site import site

from runbook.services.marathon import InstanceView
from runbook.services.marathon.ensemble import Framework, Instances, Member, other_settings

Json = dict[str, Any]
ADDRESSES = {f"node{number}": f"198.51.100.1{number}:8080" for number in (1, 2, 3)}
FIRST = ADDRESSES["node1"]
REFUSED = "marathon on node2 (http://198.51.100.12:8080/v2/info): Connection refused"


def view(name: str, leader: str = FIRST, **more: Any) -> InstanceView:
    return InstanceView(name, ADDRESSES[name], "1.1.1", leader, "F", True, **more)


def down(name: str) -> InstanceView:
    return InstanceView(name, ADDRESSES[name], problem=REFUSED)


def members(*names: str) -> tuple[Member, ...]:
    return tuple(Member(number, f"member_{number:010}", ADDRESSES.get(name, name)) for number, name in enumerate(names))


def instances(*views: InstanceView, znodes: tuple[str, ...] = ("node1", "node2", "node3")) -> Instances:
    given = {one.name: one for one in views}
    return Instances({name: given.get(name) or view(name) for name in ADDRESSES}, members(*znodes))


def test_members_are_read_and_others_passed_over() -> None:
    assert Member.parse("member_0000000007", b"a:8080") == Member(7, "member_0000000007", "a:8080")
    latch = Member.parse("_c_0b8b7c3f-2b1a-4f5e-9b1d-1c2d3e4f5a6b-latch-0000000003", b"b:8080")
    assert latch is not None
    assert (latch.sequence, latch.address) == (3, "b:8080")
    assert Member.parse("lock", b"") is None


def test_all_is_well_where_all_agree() -> None:
    well = instances()
    assert (well.leader, well.findings()) == ("node1", [])
    assert well.led().text == f"node1 ({FIRST}) leads by member_0000000000, named by 3 of 3 instances"
    assert well.complete().holds


@pytest.mark.parametrize(
    ("broken", "told"),
    [
        (
            instances(view("node2", leader=ADDRESSES["node3"])),
            r"different leaders: node1, node3 say 198\.51\.100\.11:8080; node2 say 198\.51\.100\.13:8080",
        ),
        (instances(znodes=("node2", "node1", "node3")), r"another leader: ZooKeeper has 198\.51\.100\.12:8080, and"),
        (instances(znodes=()), "no instance stands for election"),
        (
            instances(InstanceView("node1", FIRST, "1.1.1", FIRST, "F", elected=False)),
            "node1: the leader does not take itself for elected",
        ),
    ],
)
def test_what_speaks_against_one_leader(broken: Instances, told: str) -> None:
    evidence = broken.led()
    assert not evidence.holds
    assert broken.leader is None or "elected" in told
    assert evidence.remedy
    assert re.search(told, evidence.text)


def test_where_nobody_answers_the_one_that_leads_by_zookeeper_is_to_be_restarted() -> None:
    evidence = instances(*map(down, ADDRESSES)).led()
    assert not evidence.holds
    assert not evidence.tried
    assert evidence.remedy == (
        "node1 leads by ZooKeeper: restart that instance (systemctl restart marathon), then read its log"
    )


@pytest.mark.parametrize(
    ("broken", "told"),
    [
        (instances(down("node2"), znodes=("node1", "node3")), f"node2: does not answer: {REFUSED}"),
        (instances(znodes=("node1", "node2")), "node3: does not stand for election"),
        (
            instances(znodes=("node1", "node2", "node3", "node2")),
            "node2: stands for election twice: 198.51.100.12:8080: member_0000000001, member_0000000003",
        ),
        (
            instances(znodes=("node1", "node2", "node3", "other:8080")),
            "an instance that is not of this site: other:8080",
        ),
    ],
)
def test_one_may_lead_while_something_else_is_amiss(broken: Instances, told: str) -> None:
    assert broken.led().holds
    evidence = broken.complete()
    assert not evidence.holds
    assert told in evidence.text
    assert evidence.table is not None


def test_a_leader_that_is_not_of_this_site_is_called_so() -> None:
    strange = instances(
        *(view(name, leader="other:8080") for name in ADDRESSES), znodes=("other:8080", "node1", "node2", "node3")
    )
    assert strange.led().text.startswith("an instance that is not of this site (other:8080) leads by member_0000000000")
    assert "an instance that is not of this site: other:8080" in strange.complete().text


def test_an_instance_is_spared_only_while_another_one_answers() -> None:
    assert instances().can_spare("node1").holds
    alone = instances(down("node2"), down("node3"))
    assert not alone.can_spare("node1").holds
    assert alone.can_spare("node2").holds, "it serves nobody"
    assert Instances({"node1": view("node1")}, members("node1")).can_spare("node1").holds, "the only one there is"


def test_the_leader_is_touched_last_and_who_does_not_answer_first() -> None:
    hosts = site(more="").hosts
    order = instances(down("node3"), znodes=("node1", "node2")).order(hosts)
    assert [host.name for host in order] == ["node3", "node2", "node1"]


def test_an_instance_is_back_once_it_answers() -> None:
    assert instances().is_back("node2").holds
    assert instances(down("node2")).is_back("node2").text == REFUSED


def test_the_table_names_roles() -> None:
    table = instances(down("node2")).table().frame.set_index("host")
    assert list(table["role"]) == ["leader", "does not answer", "standby"]
    assert table.loc["node1", "znodes"] == "member_0000000000"
    assert table.loc["node2", "problem"] == REFUSED


# the framework


def framework(entry: Json | None = None, *, id: str | None = "F", completed: tuple[Json, ...] = ()) -> Framework:
    state: Json = {
        "leader": "master@198.51.100.11:8150",
        "slaves": [],
        "frameworks": [] if entry is None else [{"id": "F", "name": "marathon", "active": True, "tasks": [], **entry}],
        "completed_frameworks": list(completed),
        "orphan_tasks": [],
    }
    return Framework("marathon", id, state)


def test_a_framework_that_is_active_under_marathon_s_id_is_registered() -> None:
    evidence = framework({}).registered()
    assert evidence.holds
    assert evidence.text == "F is active at 198.51.100.11:8150, with 0 tasks"


OLD = {
    "id": "F",
    "name": "marathon",
    "active": False,
    "tasks": [{"id": "hello.1", "framework_id": "F", "slave_id": "S"}],
}


@pytest.mark.parametrize(
    ("found", "told", "remedy"),
    [
        (framework({}, id=None), "Marathon has no framework id", "LIBPROCESS_IP"),
        (framework(None), "Mesos does not know the framework: F", "LIBPROCESS_IP"),
        (
            framework({"active": False, "pid": "scheduler-1@198.51.100.11:4000"}),
            "not connected: F at sch",
            "LIBPROCESS",
        ),
        (framework({"pid": "scheduler-1@127.0.0.1:4000"}), "announces the loopback: scheduler-1@127", "LIBPROCESS_IP"),
        (
            framework(None, completed=({**OLD, "tasks": [{**OLD["tasks"][0], "state": "TASK_RUNNING"}]},)),  # type: ignore[index,dict-item]
            "Mesos ended the framework: Framework has been removed: F; its tasks that still run: hello.1",
            "registers with a new id",
        ),
    ],
)
def test_what_speaks_against_a_registration(found: Framework, told: str, remedy: str) -> None:
    evidence = found.registered()
    assert not evidence.holds
    assert told in evidence.text
    assert remedy in (evidence.remedy or "")


def info(**other: Any) -> Json:
    """`/v2/info` as Marathon 1.1.1 answers it (the recorded payloads), with the settings of the site."""
    config = {"master": site().mesos_zk, "failover_timeout": 604800, "hostname": "198.51.100.11", "webui_url": None}
    return {
        "marathon_config": {**config, "master": other.get("master", config["master"])},
        "zookeeper_config": {"zk": other.get("zk", site().marathon_zk), "zk_timeout": 10000},
        "http_config": {"assets_path": None, "http_port": other.get("port", 8080), "https_port": 8443},
    }


def test_a_leader_that_runs_with_other_settings_than_the_parameters_is_named() -> None:
    assert other_settings(site(), info()) == []
    assert other_settings(site(), {"name": "marathon"}) == []  # what an answer lacks is not compared
    assert other_settings(site(), info(port=8081, zk="zk://me:geheim@elsewhere:2181/m")) == [
        f"--zk is zk://***@elsewhere:2181/m, expected {site().marathon_zk}",
        "--http_port is 8081, expected 8080",
    ]
