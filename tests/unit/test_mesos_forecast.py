"""What is foreseen of a slave, from what it says, from its refusal, or from its files: recorded from Mesos 0.28.0."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from mesos_payloads import payload, text
from mesos_site import site

from runbook.errors import HostUnreachable
from runbook.remote.hosts import Output
from runbook.services.mesos.forecast import Forecast, forecast, probe_of, running_tasks, table
from runbook.services.mesos.steps import slave_flags
from runbook.site import Site

RUNNING = payload("three-masters/slave1_state.json")
LEADER = payload("three-masters/leader_state.json")
ID = "03027f2a-2478-484b-971f-9994934aaeb6-S1"
"""Of the slave whose refusals were recorded."""
MACHINE = "2 24683520 67108864 4096"
"""Processors, kB of memory, blocks of the disk and their size: 2 CPUs, 23081 MB and 257024 MB to a slave."""


def printed(
    site: Site,
    *,
    slave_id: str = ID,
    files: dict[str, str] | None = None,
    running: bool = True,
    refusal: str = "",
    touched_at: float = 100.0,
    booted: str = "a",
    work_dir: str = "/var/lib/mesos",
) -> Output:
    """What the probe prints on a host whose slave registered at second 200 and started at second 300."""
    flags = slave_flags(site, site.hosts[0], docker=True) if files is None else files
    lines = [
        "LoadState=loaded",
        f"ActiveState={'active' if running else 'inactive'}",
        f"SubState={'running' if running else 'dead'}",
        "UnitFileState=enabled",
        "MainPID=7",
        "ActiveEnterTimestampMonotonic=0",
        "file=yes",
        *(["ticks=30000", "hertz=100"] if running else []),
        "now=1000000",
        "uptime=1000",
        f"work_dir={work_dir}",
        f"latest={slave_id}",
        "boot=a",
        f"booted={booted}",
        "registered_at=200.5",
        f"touched_at={touched_at}",
        *(f"flag={name} {base64.b64encode(value.encode()).decode()}" for name, value in flags.items() if value),
        "docker=yes",
        f"machine={MACHINE}",
        *([f"refusal={base64.b64encode(refusal.encode()).decode()}"] if refusal else []),
    ]
    return Output("\n".join(lines) + "\n", "", 0)


def foresee(site: Site, output: Output, state: Any = None, leader: Any = LEADER) -> Forecast:
    return forecast(site, site.hosts[0], output, state, None if leader is None else running_tasks(leader))


def moved(state: Any, slave_id: str = ID) -> Any:
    """The recorded slave on the site's first host, with the site's flags."""
    flags = {**state["flags"], "resources": "ports:[8401-8599,8601-9100]", "port": "5051"}
    resources = {**state["resources"], "ports": "[8401-8599, 8601-9100]"}
    return {
        **state,
        "id": slave_id,
        "hostname": "198.51.100.11",
        "pid": "slave(1)@198.51.100.11:5051",
        "flags": flags,
        "resources": {**resources, "cpus": 2, "mem": 23081, "disk": 257024},
        "attributes": {},
    }


@pytest.fixture
def same(monkeypatch: pytest.MonkeyPatch) -> Site:
    """The parameters that the slave runs with."""
    return site()


def narrowed() -> Site:
    return site(more='mesos: {slave: {ports: "[8401-8599,8601-9000]"}}')


def test_a_slave_that_runs_with_its_settings_stays_as_it_is(same: Site) -> None:
    found = foresee(same, printed(same), moved(RUNNING))
    assert (found.slave_id, found.known_from, found.restarts) == (ID, "the slave", False)
    assert not found.needs_reset
    assert found.outcome.startswith("– stays as it is")


def test_other_ports_need_a_reset_and_the_tasks_that_it_loses_are_named(same: Site) -> None:
    running = next(slave for slave in LEADER["slaves"] if slave["id"] == ID)
    found = foresee(narrowed(), printed(same), moved(RUNNING))
    assert found.needs_reset
    assert [str(one) for one in found.differences] == [
        "resource ports: [8401-8599, 8601-9100] -> [8401-8599, 8601-9000]"
    ]
    live = {
        task["id"]
        for framework in LEADER["frameworks"]
        for task in framework["tasks"]
        if task["slave_id"] == running["id"]
    }
    assert found.tasks is not None
    assert {task.partition(" ")[0] for task in found.tasks} == live
    assert live


def test_without_a_leader_nobody_can_tell_the_tasks(same: Site) -> None:
    found = foresee(narrowed(), printed(same), moved(RUNNING), leader=None)
    assert found.tasks is None
    assert "no master leads" in found.outcome


@pytest.mark.parametrize(
    ("log", "what"),
    [
        ("slave-incompatible-resources", "resource ports"),
        ("slave-incompatible-attributes", "resource ports"),
        ("slave-incompatible-hostname", "hostname"),
    ],
)
def test_a_slave_that_refused_to_start_has_said_what_it_registered_with(same: Site, log: str, what: str) -> None:
    refusal = text(f"three-masters/{log}.log")
    slave_id = refusal.rpartition('value: "')[2].partition('"')[0]
    found = foresee(same, printed(same, running=False, refusal=refusal, slave_id=slave_id, touched_at=300))
    assert found.known_from == "its refusal to start"
    assert what in {one.what for one in found.differences}
    assert found.needs_reset


def test_a_refusal_of_an_earlier_registration_does_not_count(same: Site) -> None:
    refusal = text("three-masters/slave-incompatible-resources.log")
    found = foresee(same, printed(same, running=False, refusal=refusal, slave_id="another-S0", touched_at=300))
    assert (found.known_from, found.differences) == ("", ())


def test_files_that_are_older_than_the_registration_tell_what_it_was(same: Site) -> None:
    found = foresee(narrowed(), printed(same, running=False))
    assert found.known_from == "its files, older than its registration"
    assert [one.what for one in found.differences] == ["resource ports"]
    assert found.needs_reset


def test_files_that_were_touched_since_tell_nothing(same: Site) -> None:
    found = foresee(narrowed(), printed(same, running=False, touched_at=300))
    assert (found.known_from, found.needs_reset) == ("", False)
    assert found.outcome == "⚠ unknown until it is started"


def test_a_slave_that_never_registered_has_nothing_to_lose(same: Site) -> None:
    found = foresee(narrowed(), printed(same, slave_id="", running=False))
    assert (found.needs_reset, found.tasks, found.outcome) == (False, (), "✓ registers for the first time")


def test_after_a_boot_a_slave_of_0_28_starts_afresh_and_one_of_1_4_compares(same: Site) -> None:
    output = printed(same, running=False, booted="b")
    assert not foresee(narrowed(), output).needs_reset
    later = site(more='mesos: {version: 1.4.0-2.0.1, slave: {ports: "[8401-8599,8601-9000]"}}')
    assert foresee(later, output).needs_reset


def test_another_work_dir_loses_the_tasks_as_well(same: Site) -> None:
    found = foresee(same, printed(same, work_dir="/tmp/mesos"), moved(RUNNING))
    assert [str(one) for one in found.differences] == ["work_dir: /tmp/mesos -> /var/lib/mesos"]
    assert found.work_dir == "/tmp/mesos"


def test_what_only_the_machine_changed_waits_for_the_next_restart(same: Site) -> None:
    smaller = moved(RUNNING)
    smaller["resources"]["mem"] = 12345
    found = foresee(same, printed(same), smaller)
    assert [one.what for one in found.differences] == ["resource mem"]
    assert not found.needs_reset
    assert "a restart would be refused" in found.outcome


def test_a_setting_that_a_registration_does_not_hold_costs_no_task(same: Site) -> None:
    longer = site(more="mesos: {slave: {executor_registration_timeout: 10mins}}")
    found = foresee(longer, printed(same), moved(RUNNING))
    assert (found.restarts, found.differences) == (True, ())
    assert found.outcome == "✓ restarts, its tasks go on"


def test_directories_of_entries_are_read_as_the_start_script_joins_them(same: Site) -> None:
    """With the site's ports in the directory a slave stays as it is, with others it needs a reset."""

    def in_directory(ports: str) -> Output:
        flags = {name: value for name, value in slave_flags(same, same.hosts[0], docker=True).items() if value}
        resources = flags.pop("resources")
        found = printed(same, files=flags)
        given = {part.partition(":")[0]: part.partition(":")[2] for part in resources.split(";")} | {"ports": ports}
        entries = [
            f"entry=resources {name} {base64.b64encode(value.encode()).decode()}" for name, value in given.items()
        ]
        return Output(found.stdout + "\n".join(entries) + "\n", "", 0)

    assert not foresee(same, in_directory("[8401-8599, 8601-9100]"), moved(RUNNING)).restarts
    assert foresee(same, in_directory("[8401-8500]"), moved(RUNNING)).restarts


def test_a_host_that_does_not_answer_is_told(same: Site) -> None:
    found = foresee(same, Output(error=HostUnreachable("no route to node1")))
    assert found.outcome == "unknown: no route to node1"
    assert list(table([found]).frame["outcome"]) == [found.outcome]


def test_the_probe_asks_for_all_that_the_forecast_reads(same: Site) -> None:
    probe = probe_of(same)
    for key in ("work_dir", "latest", "boot", "booted", "registered_at", "touched_at", "flag", "machine", "refusal"):
        assert f"{key}=" in probe, key
