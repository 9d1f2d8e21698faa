"""Which master may be touched, in which order, and which slaves are registered, judged on what real Mesos said."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
from mesos_payloads import election, payload
from mesos_site import site

from runbook.errors import EndpointUnreachable, NoLeader, RunbookError
from runbook.services.mesos import Election, MasterView
from runbook.services.mesos.checks import MasterEnsemble, Registrations
from runbook.services.mesos.election import LogReplica

DOWN = EndpointUnreachable("mesos-master on node1: Connection refused", "see that the service runs")
ADDRESSES = {f"node{number}": f"127.0.0.1:1505{number - 1}" for number in (1, 2, 3)}


def view(role: str, address: str) -> MasterView:
    state = payload(f"three-masters/{role}_state.json")
    return replace(MasterView.of(state, payload(f"three-masters/{role}_metrics_snapshot.json")), address=address)


HEALTHY: dict[str, MasterView | RunbookError] = {
    "node1": view("leader", "127.0.0.1:15050"),
    "node2": view("nonleader1", "127.0.0.1:15051"),
    "node3": view("nonleader1", "127.0.0.1:15052"),
}


def ensemble(
    views: dict[str, MasterView | RunbookError] | None = None, gone: tuple[str, ...] = (), quorum: int = 2
) -> MasterEnsemble:
    """The recorded three masters, some of them otherwise; the znodes of the addresses in `gone` are not there."""
    whole = election()
    found = Election(
        tuple(record for record in whole.masters if record.address not in gone),
        tuple(replica for replica in whole.replicas if replica.address not in gone),
    )
    return MasterEnsemble({**HEALTHY, **(views or {})}, found, ADDRESSES, quorum)


def hosts(order: MasterEnsemble) -> list[str]:
    return [host.name for host in order.order(site().hosts)]


# who leads


def test_the_recorded_leader_leads_and_all_is_well() -> None:
    recorded = ensemble()
    assert recorded.leader == "node1"
    led, complete = recorded.led(), recorded.complete()
    assert led.holds
    assert complete.holds
    assert led.text == (
        "node1 (127.0.0.1:15050) leads by json.info_0000000001, named by 3 of 3 masters, "
        "with 3 log replicas for a quorum of 2"
    )


def test_a_master_that_is_down_is_named_while_the_others_go_on() -> None:
    one_down = ensemble({"node3": DOWN}, gone=("127.0.0.1:15052",))
    assert one_down.led().holds
    complete = one_down.complete()
    assert not complete.holds
    assert "node1 (127.0.0.1:15050) leads" in complete.text
    assert "node3 does not answer: mesos-master on node1: Connection refused" in complete.text
    assert complete.table is not None
    assert list(complete.table["role"]) == ["leader", "standby", "does not answer"]


def test_a_leader_that_has_not_recovered_the_registry_is_none() -> None:
    lone = payload("three-masters/leader_state_elected-but-not-recovered.json")
    fresh = replace(MasterView.of(lone, {"master/elected": 1.0}), address="127.0.0.1:15050")
    alone = ensemble({"node1": fresh})
    assert alone.leader is None
    assert not alone.led().holds


# which master may be touched


def test_a_standby_may_be_spared_while_the_others_hold_the_quorum() -> None:
    evidence = ensemble().can_spare("node2")
    assert (evidence.holds, evidence.text) == (True, "2 log replicas are there without node2, and 2 are needed")


def test_with_one_master_down_no_other_may_be_spared() -> None:
    evidence = ensemble({"node3": DOWN}, gone=("127.0.0.1:15052",)).can_spare("node2")
    assert (evidence.holds, evidence.text) == (False, "1 log replicas are there without node2, and 2 are needed")


def test_one_that_does_not_run_may_be_started() -> None:
    assert ensemble({"node3": DOWN}, gone=("127.0.0.1:15052",)).can_spare("node3").holds


def test_a_master_too_many_is_not_started() -> None:
    usual = ensemble({"node3": DOWN}, gone=("127.0.0.1:15052",))
    strangers = tuple(LogReplica(10 + number, f"198.51.100.{200 + number}:8150") for number in range(1))
    crowded = replace(usual, election=replace(usual.election, replicas=(*usual.election.replicas, *strangers)))
    evidence = crowded.can_spare("node3")
    assert not evidence.holds
    assert "one of 4 masters (3 at most)" in evidence.text
    assert evidence.remedy == "stop what else announces a replica: 198.51.100.200:8150"


def test_during_an_election_nobody_is_spared_but_where_nobody_led_before() -> None:
    electing = ensemble({name: replace(one, elected=None) for name, one in HEALTHY.items()})  # type: ignore[type-var]
    assert not electing.can_spare("node2").holds
    assert electing.can_spare("node2", leaderless=True).holds


def test_the_leaders_own_quorum_counts_while_it_is_being_changed() -> None:
    growing = ensemble(quorum=3)  # the recorded masters run with 2
    assert growing.can_spare("node2").holds


@pytest.mark.parametrize(
    ("changes", "gone", "text"),
    [
        ({"node2": DOWN}, (), "Connection refused"),
        ({}, ("127.0.0.1:15051",), r"2 of 3 log replicas are there, and that of node2 \(127.0.0.1:15051\) is not"),
        ({"node2": replace(HEALTHY["node2"], leader=None)}, (), "node2 knows no leader"),  # type: ignore[type-var]
    ],
)
def test_a_master_is_back_once_it_answers_and_holds_its_replica(
    changes: dict[str, Any], gone: tuple[str, ...], text: str
) -> None:
    assert ensemble().is_back("node2").holds
    evidence = ensemble(changes, gone).is_back("node2")
    assert not evidence.holds
    assert evidence.text == text.replace("\\", "") or text in evidence.text


def test_the_first_of_three_is_back_before_there_is_a_quorum() -> None:
    """Its log must be initialised by all three: who waited for a working leader would wait for ever."""
    lone = MasterView.of(payload("three-masters/leader_state_elected-but-not-recovered.json"), {})
    first = ensemble(
        {"node1": replace(lone, address="127.0.0.1:15050"), "node2": DOWN, "node3": DOWN},
        gone=("127.0.0.1:15051", "127.0.0.1:15052"),
    )
    assert first.is_back("node1").holds
    assert first.can_spare("node2").holds


# in which order


def test_those_that_do_not_run_come_first_and_the_leader_last() -> None:
    assert hosts(ensemble()) == ["node2", "node3", "node1"]
    assert hosts(ensemble({"node3": DOWN})) == ["node3", "node2", "node1"]


def test_while_the_quorum_grows_those_that_run_are_changed_before_others_join() -> None:
    assert hosts(ensemble({"node2": DOWN}, quorum=3)) == ["node3", "node1", "node2"]


# slaves


STATE = payload("three-masters/leader_state.json")
SLAVES = {"node1": "127.0.0.1:15061"}


def test_registered_slaves_are_found_by_their_ip() -> None:
    state = copy.deepcopy(STATE)
    for number, slave in enumerate(state["slaves"], start=11):
        slave["pid"] = f"slave(1)@198.51.100.{number}:5051"
    addresses = {f"node{number}": f"198.51.100.{10 + number}:5051" for number in (1, 2, 3)}
    registrations = Registrations.of(addresses, state)
    evidence = registrations.registered(["node1", "node2"])
    assert evidence.holds
    assert evidence.text.startswith("2 slaves are registered with 127.0.0.1:15050")
    missing = registrations.registered(["node1", "node3"])
    assert (missing.holds, missing.text) == (False, "node3 did not register")


def test_of_a_slave_that_registered_anew_the_active_one_counts() -> None:
    state = copy.deepcopy(STATE)
    old, new = state["slaves"][:2]
    old["pid"], new["pid"] = "slave(1)@127.0.0.1:5051", "slave(1)@127.0.0.1:5051"
    old["active"] = False
    assert Registrations.of(SLAVES, state).entries["node1"]["id"] == new["id"]
    new["active"] = False
    evidence = Registrations.of(SLAVES, state).registered(["node1"])
    assert (evidence.holds, evidence.text) == (False, "node1 does not answer the leader")


def test_without_a_leader_nobody_is_registered() -> None:
    evidence = Registrations(SLAVES, problem=NoLeader("no master leads", "wait")).registered(["node1"])
    assert (evidence.holds, evidence.text, evidence.remedy) == (False, "no master leads", "wait")


def test_the_slaves_table_shows_total_used_and_free() -> None:
    state = copy.deepcopy(STATE)
    state["slaves"] = state["slaves"][:1]
    shown = Registrations.of(SLAVES, state).table().frame.iloc[0]
    slave = state["slaves"][0]
    assert shown["slave id"] == slave["id"]
    total, used, free = (float(part) for part in shown["CPUs"].split(" / "))
    assert (total, used) == (slave["resources"]["cpus"], slave["used_resources"]["cpus"])
    assert free == pytest.approx(total - used)
    assert shown["port ranges"] == slave["resources"]["ports"]
