"""Whether 'Incompatible slave info' is foreseen, and whether nothing else is."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from mesos_payloads import payload, text

from runbook.services.mesos import Machine, Ranges, SlaveInfo, incompatible

STATE = payload("three-masters/slave2_state.json")
GIGABYTE = 1 << 30
# the host of the recorded slaves: its 'system/mem_total_bytes'; the disk is what gives the recorded 252899 MB
MACHINE = Machine(cpus=2, memory=25276510208, disk=(252899 << 20) + 5 * GIGABYTE)
FLAGS = {"resources": "ports:[8400-9100]", "hostname": "localhost", "port": "15062"}

REFUSALS = {
    "resources": ["resource ports: [8400-9100] -> [8400-9000]"],
    "resources-grown": ["resource ports: [8400-9100] -> [8400-9200]"],
    "attributes": ["attribute rack: (none) -> r1"],
    "hostname": ["hostname: localhost -> other"],
}


@pytest.mark.parametrize("case", REFUSALS)
def test_a_real_refusal_is_read_from_the_log(case: str) -> None:
    refusal = SlaveInfo.of_log(text(f"three-masters/slave-incompatible-{case}.log"))
    assert refusal is not None
    old, new = refusal
    assert [str(difference) for difference in incompatible(old, new)] == REFUSALS[case]
    assert old.id == new.id == "03027f2a-2478-484b-971f-9994934aaeb6-S1"


@pytest.mark.parametrize(
    ("case", "changed"),
    [
        ("resources", {"resources": "ports:[8400-9000]"}),
        ("resources-grown", {"resources": "ports:[8400-9200]"}),
        ("attributes", {"attributes": "rack:r1"}),
        ("hostname", {"hostname": "other"}),
    ],
)
def test_each_real_refusal_would_have_been_foreseen(case: str, changed: dict[str, str]) -> None:
    stored = SlaveInfo.of_state(STATE)
    foreseen = incompatible(stored, SlaveInfo.wanted(FLAGS | changed, MACHINE))
    assert [str(difference) for difference in foreseen] == REFUSALS[case]
    # and what is foreseen is what Mesos itself then made of the flags
    refusal = SlaveInfo.of_log(text(f"three-masters/slave-incompatible-{case}.log"))
    assert refusal is not None
    wanted = SlaveInfo.wanted(FLAGS | changed, MACHINE)
    assert (wanted.hostname, wanted.port, wanted.resources, wanted.attributes) == (
        refusal[1].hostname,
        refusal[1].port,
        refusal[1].resources,
        refusal[1].attributes,
    )


def test_the_stored_info_of_the_state_is_that_of_the_checkpoint() -> None:
    stored = SlaveInfo.of_state(STATE)
    refusal = SlaveInfo.of_log(text("three-masters/slave-incompatible-resources.log"))
    assert refusal is not None
    assert (stored.id, stored.hostname, stored.port, stored.resources, stored.attributes) == (
        refusal[0].id,
        refusal[0].hostname,
        refusal[0].port,
        refusal[0].resources,
        refusal[0].attributes,
    )
    assert stored.detected == {"cpus", "mem", "disk"}


@pytest.mark.parametrize(
    "resources",
    [
        "ports:[8400-9100]",
        "ports(*):[8400-8499, 8500-9100]",
        "mem:23081;ports:[8400-9100];cpus:2",
        "disk:252899;cpus:2;ports:[8400-9100];mem:23081",
    ],
)
def test_equal_resources_written_otherwise_are_no_difference(resources: str) -> None:
    wanted = SlaveInfo.wanted(FLAGS | {"resources": resources}, MACHINE)
    assert incompatible(SlaveInfo.of_state(STATE), wanted) == []


def test_a_hostname_that_is_looked_up_is_taken_to_be_unchanged() -> None:
    flags = {"resources": "ports:[8400-9100]", "port": "15062"}
    assert incompatible(SlaveInfo.of_state(STATE), SlaveInfo.wanted(flags, MACHINE)) == []


def test_more_memory_in_the_host_counts_and_says_how_to_keep_the_old_value() -> None:
    grown = Machine(cpus=4, memory=2 * MACHINE.memory, disk=MACHINE.disk)
    differences = incompatible(SlaveInfo.of_state(STATE), SlaveInfo.wanted(FLAGS, grown))
    assert [(difference.what, difference.detected) for difference in differences] == [
        ("resource cpus", True),
        ("resource mem", True),
    ]
    assert "mem: 23081 -> 47187 (detected on the host" in str(differences[1])
    pinned = FLAGS | {"resources": "cpus:2;mem:23081;ports:[8400-9100]"}
    assert incompatible(SlaveInfo.of_state(STATE), SlaveInfo.wanted(pinned, grown)) == []


def test_port_role_and_a_resource_taken_away_count() -> None:
    flags = {"resources": "ports(prod):[8400-9100];mem:0", "hostname": "localhost"}
    differences = incompatible(SlaveInfo.of_state(STATE), SlaveInfo.wanted(flags, MACHINE))
    assert [str(difference) for difference in differences] == [
        "port: 15062 -> 5051",
        "resource mem: 23081 -> (none)",
        "resource ports: [8400-9100] -> (none)",
        "resource ports(prod): (none) -> [8400-9100]",
    ]


def test_a_slave_that_never_registered_has_nothing_to_differ_from() -> None:
    stored = SlaveInfo.of_state(STATE | {"id": ""})
    assert incompatible(stored, SlaveInfo.wanted(FLAGS | {"hostname": "other"}, MACHINE)) == []


def test_without_ports_the_default_ones_are_offered() -> None:
    wanted = SlaveInfo.wanted({}, MACHINE)
    assert wanted.resources["ports", "*"] == Ranges([(31000, 32000)])
    assert wanted.port == 5051


def test_small_hosts_offer_half() -> None:
    found = Machine(cpus=1, memory=GIGABYTE, disk=8 * GIGABYTE).resources()
    assert (found["mem"], found["disk"]) == (512, 4096)


def test_a_refusal_is_read_through_the_prefix_of_syslog_and_the_last_one_counts() -> None:
    first = text("three-masters/slave-incompatible-hostname.log")
    last = text("three-masters/slave-incompatible-attributes.log")
    lines = [f"Jun  7 09:28:11 A5-302 mesos-slave[4711]: {line}" for line in f"{first}\n{last}".splitlines()]
    refusal = SlaveInfo.of_log("\n".join(lines))
    assert refusal is not None
    assert [str(difference) for difference in incompatible(*refusal)] == REFUSALS["attributes"]


def test_a_log_without_a_refusal() -> None:
    assert SlaveInfo.of_log(text("three-masters/slave-reregister-after-removal.log")) is None


def test_the_probe_finds_this_machine(tmp_path: Path) -> None:
    script = Machine.probe(f"{tmp_path}/not/made/yet")
    printed = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True).stdout
    machine = Machine.parse(printed)
    assert machine.cpus >= 1
    assert machine.memory > 1 << 20
    assert machine.disk > 1 << 20
    with pytest.raises(ValueError, match="values"):
        Machine.parse("2\n")
