"""Known failures found in what real daemons logged, and not found where all was well."""

from __future__ import annotations

import pandas as pd
import pytest
from mesos_payloads import payload, section, text

from runbook.services.mesos import (
    ELECTION,
    REGISTRATION,
    Ranges,
    cluster_findings,
    diagnose,
    diagnoses_table,
    fit_table,
    foreign_listeners,
    milestones_table,
    slave_findings,
)
from runbook.services.mesos.diagnose import KNOWN, duration

LEADER = payload("three-masters/leader_state.json")
ONE_NODE = payload("one-node/master_state.json")
DOCKER_FLAGS = payload("one-node/slave_state.json")["flags"]
PORTS = Ranges.parse("[8401-8599, 8601-9100]")
LOOPBACK = "bound to the loopback"  # the recorded slaves were, indeed


def names(lines: list[str]) -> list[str]:
    return [found.failure.name for found in diagnose(lines)]


@pytest.mark.parametrize(
    ("log", "failures"),
    [
        ("slave-incompatible-resources.log", [LOOPBACK, "incompatible slave info"]),
        ("slave-incompatible-hostname.log", [LOOPBACK, "incompatible slave info"]),
        ("slave-reregister-after-removal.log", [LOOPBACK, "slave returned after its removal"]),
        ("slave-systemd-support-exit1.log", ["no systemd"]),
        ("quorum-loss-leader-abort.log", ["registry cannot be written"]),
    ],
)
def test_recorded_logs(log: str, failures: list[str]) -> None:
    assert names(text(f"three-masters/{log}").splitlines()) == failures


@pytest.mark.parametrize(
    ("heading", "failures"),
    [
        ("slave lost (75 s of missed pings) and removed, master side", ["slave lost"]),
        ("registry write without quorum", ["registry cannot be written"]),
        ("elected without quorum for 60 s", ["registry cannot be read"]),
        ("ZooKeeper lost: leader", ["ZooKeeper out of reach", "leadership lost"]),
        ("ZooKeeper lost: slave", ["slave hears no master"]),
    ],
)
def test_recorded_lines(heading: str, failures: list[str]) -> None:
    assert names(section(heading)) == failures


@pytest.mark.parametrize(
    "heading",
    [
        "election, first leader (master0)",
        "election, a standby (master1) at start",
        "standby taking over (master1), incl. slave re-registration",
        "slave first registration, slave side",
        "slave first registration, master side",
        "master failover, slave side (slave1)",
        "slave stops / comes back, master side",
        "slave restart with recovery, slave side",
        "new slave id at the same address (after rm -f meta/slaves/latest)",
        "SIGUSR1 to a slave",
    ],
)
def test_nothing_is_found_where_all_went_well(heading: str) -> None:
    assert names(section(heading)) == []


# what was not recorded: the wording of the programs' sources, see Failure.source
@pytest.mark.parametrize(
    ("line", "failure"),
    [
        (
            "E0607 10:00:00.000000  1 slave.cpp:3773] Container 'c' for executor 'e' of framework 'f' failed to start: "
            "None of the enabled containerizers (mesos) could create a container for the provided TaskInfo",
            "no containerizer for Docker",
        ),
        (
            "I0607 10:00:00.000000  1 slave.cpp:4351] Terminating executor 'e' of framework f because it did not "
            "register within 1mins",
            "executor registered too late",
        ),
        (
            "docker: Error response from daemon: driver failed programming external connectivity on endpoint x: Bind "
            "for 0.0.0.0:8600 failed: port is already allocated.",
            "port taken by something else",
        ),
        ("Scheduler driver bound to loopback interface! Cannot communicate with remote master(s).", LOOPBACK),
        ("iptables failed: ... iptables: No chain/target/match by that name.", "chains of the firewall are gone"),
        (
            "I0607 10:00:00.000000  1 slave.cpp:4374] Current disk usage 96.51%. Max allowed age: 0ns",
            "disk nearly full",
        ),
        ("Duplicate flag 'port' on command line", "flag given twice"),
        ("Failed to load unknown flag 'ip.bak'", "unknown flag"),
        ("Failed to parse docker version: Invalid version component 24+dfsg1", "Docker's version not understood"),
        ("Incompatible agent info detected.", "incompatible slave info"),
    ],
)
def test_known_wordings(line: str, failure: str) -> None:
    assert names([line]) == [failure]
    assert names([f"Jun  7 09:28:11 A5-302 mesos-slave[4711]: {line}"]) == [failure]


def test_a_disk_with_room_is_no_failure() -> None:
    (line,) = (line for line in section("ZooKeeper lost: slave") if "disk usage" in line)
    assert "12.01%" in line
    assert names([line]) == []


def test_one_resent_acknowledgement_is_no_failure_and_three_are() -> None:
    line = "I0607 master.cpp:1980] Framework f at scheduler-x@127.0.0.1:1 already registered, resending acknowledgement"
    assert names([line] * 2) == []
    (found,) = diagnose([line] * 3)
    assert (found.count, found.first, found.last) == (3, line, line)


def test_every_known_failure_says_cause_remedy_and_source_once() -> None:
    assert len({failure.name for failure in KNOWN}) == len(KNOWN)
    assert all(failure.cause and failure.remedy and failure.source for failure in KNOWN)


def test_diagnoses_as_a_table() -> None:
    table = diagnoses_table(diagnose(section("registry write without quorum")))
    assert table["failure"].to_list() == ["registry cannot be written"]
    assert table["lines"].to_list() == [2]
    assert table.dtypes.equals(diagnoses_table([]).dtypes)


def test_milestones_of_a_leader_and_of_a_standby() -> None:
    leader = milestones_table(section("election, first leader (master0)"), ELECTION).set_index("milestone")
    assert leader["reached"].all()
    assert leader.loc["names the leader", "detail"] == "master@127.0.0.1:15050"
    assert leader.loc["has the registry", "detail"] == "Recovered 0 slaves from the Registry"
    standby = milestones_table(section("election, a standby (master1) at start"), ELECTION).set_index("milestone")
    assert list(standby.index[~standby["reached"]]) == ["is elected", "has the registry"]
    assert pd.isna(standby.loc["is elected", "line"])


def test_the_documents_own_election_lines_are_milestones() -> None:
    # document 2.2.7
    lines = [
        "contender.cpp:147] Joining the ZK group",
        "contender.cpp:263] New candidate (id='38') has entered the contest for leadership",
        "detector.cpp:479] A new leading master (UPID=master@10.142.233.155:8150) is detected",
        "master.cpp:1711] The newly elected leader is master@10.142.233.155:8150 with id "
        "4c57ed91-e91c-4187-ae82-95bb56ce8c5d",
    ]
    assert milestones_table(lines, ELECTION)["reached"].to_list() == [True] * 4 + [False] * 2


@pytest.mark.parametrize(
    ("heading", "leader"),
    [
        ("slave first registration, slave side", "master@127.0.0.1:15050"),
        ("slave restart with recovery, slave side", "master@127.0.0.1:15051"),
    ],
)
def test_milestones_of_a_slave(heading: str, leader: str) -> None:
    table = milestones_table(section(heading), REGISTRATION).set_index("milestone")
    assert table["reached"].all()
    assert table.loc["is registered", "detail"] == leader


def test_the_last_registration_counts() -> None:
    lines = section("slave first registration, slave side") + section("master failover, slave side (slave1)")
    table = milestones_table(lines, REGISTRATION).set_index("milestone")
    assert table.loc["is registered", "detail"] == "master@127.0.0.1:15051"


def test_a_real_slave_for_docker_has_no_findings() -> None:
    assert list(slave_findings(DOCKER_FLAGS, ports=PORTS, open_ports=Ranges([(8000, 9100)]))) == []


@pytest.mark.parametrize(
    ("changed", "finding"),
    [
        ({"containerizers": "mesos"}, "lacks docker"),
        ({"executor_registration_timeout": "1mins"}, "within 1mins"),
        ({"work_dir": "/tmp/mesos"}, "systemd-tmpfiles"),
    ],
)
def test_flags_that_will_fail_are_foreseen(changed: dict[str, str], finding: str) -> None:
    (found,) = slave_findings(DOCKER_FLAGS | changed, ports=PORTS)
    assert finding in found.what
    assert found.remedy


def test_ports_behind_the_firewall_and_no_ports_are_foreseen() -> None:
    (found,) = slave_findings(DOCKER_FLAGS, ports=Ranges([(9000, 9200)]), open_ports=Ranges([(8000, 9100)]))
    assert "[9101-9200]" in found.what
    (found,) = slave_findings(DOCKER_FLAGS, ports=Ranges())
    assert "no ports" in found.what


def test_the_state_of_a_healthy_cluster_has_no_findings() -> None:
    assert list(cluster_findings(LEADER)) == []


def test_orphans_and_a_slave_that_is_being_lost_are_findings() -> None:
    state = payload("three-masters/leader_state_after-failover_orphan-task.json")
    state["slaves"][0]["active"] = False  # slave-lost-timeline.log: so until it is removed after 76 s
    lost, orphans = cluster_findings(state)
    assert state["slaves"][0]["id"] in lost.what
    assert orphans.what == "1 tasks run without their framework: fixedmaster"


def test_a_task_that_fits_and_one_that_fits_nowhere() -> None:
    assert fit_table(LEADER, cpus=1.9, mem=1000)["fits"].to_list() == [False, True]
    table = fit_table(LEADER, cpus=3, mem=50000, host_ports=[8400, 31000])
    assert not table["fits"].any()
    assert table["lacks"][0] == (
        "cpus: 3 wanted, 1.7 of 2 free; mem: 50000 wanted, 22985 of 23081 free; port 8400: in use; "
        "port 31000: not among its ports [8400-9100]"
    )


def test_what_is_exactly_free_fits() -> None:
    assert fit_table(ONE_NODE, cpus=1.9, mem=23049, disk=252899, ports=698)["fits"].to_list() == [True]
    assert fit_table(ONE_NODE, ports=699)["lacks"].to_list() == ["ports: 699 wanted, 698 free"]


def test_an_inactive_slave_fits_nothing_and_an_empty_cluster_has_no_rows() -> None:
    state = ONE_NODE | {"slaves": [ONE_NODE["slaves"][0] | {"active": False}]}
    assert fit_table(state)["lacks"].to_list() == ["it is not active"]
    empty = fit_table(payload("three-masters/nonleader1_state.json"), cpus=1)
    assert empty.empty
    assert empty.dtypes.equals(fit_table(state).dtypes)


def test_listeners_that_mesos_does_not_know_of() -> None:
    # the form of ss -ltn (iproute2), IPv6 and wildcard addresses included
    listening = """\
State  Recv-Q Send-Q Local Address:Port Peer Address:Port Process
LISTEN 0      128          0.0.0.0:22        0.0.0.0:*
LISTEN 0      128          0.0.0.0:8600      0.0.0.0:*
LISTEN 0      4096               *:8450            *:*
LISTEN 0      4096            [::]:9010         [::]:*
"""
    ports = Ranges.parse("[8400-9100]")
    assert foreign_listeners(listening, ports, Ranges([(9010, 9010)])) == Ranges([(8450, 8450), (8600, 8600)])
    assert foreign_listeners("State Recv-Q\n", ports, Ranges()) == Ranges()


@pytest.mark.parametrize(("text_", "seconds"), [("5mins", 300), ("1.5hrs", 5400), ("1weeks", 604800), ("0ns", 0)])
def test_durations(text_: str, seconds: float) -> None:
    assert duration(text_).total_seconds() == seconds


@pytest.mark.parametrize("wrong", ["5", "5 m", "mins", ""])
def test_what_is_no_duration(wrong: str) -> None:
    with pytest.raises(ValueError, match="duration"):
        duration(wrong)
