"""Chapters 2 and 3 on nodes: masters and slaves from nothing, twice; a leader that dies; settings that cost tasks.

What the runbook did is judged through `ask`, the masters' own answers and the journal. One rollout serves all tests.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from asking import Ask
from chapters import Made, Open, changed, events, in_process, papermill, statuses
from framework import Framework, task

from runbook.errors import ApplyFailed, ChapterFailed, DriftFound, GateRefused
from runbook.lab import Lab
from runbook.lab.waiting import until
from runbook.remote.modes import Status
from runbook.services.mesos.checks import MasterEnsemble, Registrations, masters_of
from runbook.services.mesos.masters import MesosMasters
from runbook.services.mesos.slaves import MesosSlaves
from runbook.services.mesos.steps import Hold
from runbook.site import Site

pytestmark = pytest.mark.lab

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
CHAPTERS = ("02_mesos_master", "03_mesos_slave")
AS_FOUND = """
systemctl stop mesos-master mesos-slave 2>/dev/null
grep -lz '^MESOS_SLAVE_ID=' /proc/[0-9]*/environ 2>/dev/null | tr -cd '0-9\\n' | xargs -r kill -9
rpm -e mesos 2>/dev/null
rm -rf /etc/mesos-* /etc/default/mesos* /etc/systemd/system/mesos-*.d /var/lib/mesos /var/log/mesos
rm -f /etc/rsyslog.d/mesos.conf /etc/logrotate.d/mesos
systemctl daemon-reload; systemctl restart rsyslog
exit 0
"""
"""A node as the lab brings it, as far as these chapters go."""


def forget_masters(site: Site) -> None:
    """Remove what masters of an earlier test keep in ZooKeeper; their sessions end by themselves."""

    def nobody() -> bool:
        found = MasterEnsemble.ask(site).election
        return not found.masters and not found.replicas

    until(nobody, seconds=30)


@pytest.fixture(scope="module")
def site(lab: Lab) -> Site:
    return Site.load(lab.site_file)


@pytest.fixture(scope="module")
def rolled_out(lab: Lab, ask: Ask, site: Site, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Made]]:
    """The journals of the notebooks 02 and 03, applied in order, twice, on nodes without Mesos, by their names."""
    in_process("01_zookeeper", tmp_path_factory.mktemp("zookeeper"), lab.site_file, "apply")
    for node in lab.nodes:
        ask(node, AS_FOUND)
    forget_masters(site)
    journals = {}
    for notebook in CHAPTERS:
        folder = tmp_path_factory.mktemp(f"first-{notebook}")
        done = papermill(notebook, folder, lab.site_file, "apply")
        assert done.returncode == 0, done.stderr
        journals[f"first {notebook}"] = events(folder)
    for notebook in CHAPTERS:
        folder = tmp_path_factory.mktemp(f"second-{notebook}")
        journals[f"second {notebook}"] = in_process(notebook, folder, lab.site_file, "apply")
    return journals


@pytest.fixture
def open_chapter(rolled_out: object, open_kind: Open) -> Open:
    """Opens a chapter, once both were rolled out."""
    return open_kind


@pytest.fixture
def tasks(site: Site, rolled_out: object) -> Iterator[tuple[Framework, str]]:
    """A framework whose task `long` runs on the first node; it stays registered until the end of the test."""
    leader = masters_of(site).leader().endpoint.url
    with Framework(leader, name="rehearsal", failover_timeout=600) as framework:
        offer = framework.offer(lambda offer: offer["hostname"] == site.hosts[0].address)
        framework.launch(offer, task("long", "while sleep 1; do date; done"), refuse_seconds=600)
        framework.status("long", "TASK_RUNNING")
        yield framework, offer["agent_id"]["value"]


# rolled out


def test_the_second_rollout_changes_nothing(rolled_out: dict[str, list[Made]]) -> None:
    for notebook in CHAPTERS:
        assert statuses(rolled_out[f"first {notebook}"])["changed"] > 0
        second = statuses(rolled_out[f"second {notebook}"])
        assert set(second) == {"ok"}, second


def test_no_master_ran_before_it_was_configured(rolled_out: object, lab: Lab, ask: Ask) -> None:
    """None ever had the package's quorum of 1, at which it would have led alone."""
    for node in lab.nodes:
        starts = ask(node, "journalctl -q -o cat -t mesos-master --no-pager | grep -c 'Flags at startup' || true")
        assert int(starts) >= 1
        assert ask(node, "journalctl -q -o cat -t mesos-master --no-pager | grep -c 'quorum=\"1\"' || true") == "0"


def test_masters_and_slaves_run_as_the_document_configures_them(rolled_out: object, lab: Lab, ask: Ask) -> None:
    for node in lab.nodes:
        assert ask(node, "cat /etc/mesos-master/quorum /etc/mesos-master/ip /etc/mesos-master/hostname").split() == [
            "2",
            node.address,
            node.address,
        ]
        assert ask(node, "grep -c ^PORT=8150 /etc/default/mesos-master") == "1"
        assert "ports:[8401-8599,8601-9100]" in ask(node, "cat /etc/mesos-slave/resources").split(";")
        assert ask(node, "systemctl is-enabled mesos-master mesos-slave").split() == ["enabled", "enabled"]
        flags = ask(
            node, "tr '\\0' '\\n' < /proc/$(systemctl show -p MainPID --value mesos-master)/cmdline"
        ).splitlines()
        assert {"--port=8150", "--quorum=2", f"--ip={node.address}", "--work_dir=/var/lib/mesos"} <= set(flags)
        assert not ask(node, "find /etc/systemd/system -name unconfigured.conf")


def test_all_masters_agree_and_all_slaves_are_registered(rolled_out: object, site: Site) -> None:
    ensemble = MasterEnsemble.ask(site)
    assert ensemble.findings() == []
    state = masters_of(site).state()
    assert {slave["hostname"] for slave in state["slaves"]} == {host.address for host in site.hosts}
    assert {slave["resources"]["ports"] for slave in state["slaves"]} == {"[8401-8599, 8601-9100]"}


def test_lines_go_to_one_file_a_program_and_survive_rotation(rolled_out: object, lab: Lab, ask: Ask) -> None:
    node = lab.nodes[0]
    assert ask(node, "grep -c 'mesos-master.*Joining the ZK group' /var/log/mesos/mesos-master.log") != "0"
    assert ask(node, "rsyslogd -N1 2>&1 | grep -ci error || true") == "0"
    ask(node, "logrotate -f /etc/logrotate.d/mesos")
    ask(node, "logger -t 'mesos-master[1]' 'after the rotation'")
    until(lambda: ask(node, "grep -c 'after the rotation' /var/log/mesos/mesos-master.log || true") == "1", seconds=10)
    assert ask(node, "ls /var/log/mesos/mesos-master.log.1")
    assert ask(node, "grep -rls 'after the rotation' /var/log/messages /var/log/syslog || true") == ""


def test_the_document_s_election_lines_are_found(open_chapter: Open) -> None:
    check = open_chapter(MesosMasters, "verify").election_lines()
    assert check.holds
    frame = check.evidence.table
    assert (frame["knows the leader"].str.startswith("✓ master@")).all()
    assert frame["has the registry"].str.startswith("✓").sum() >= 1


# what breaks, and what is changed


def test_before_it_is_configured_a_unit_starts_for_nobody(rolled_out: object, lab: Lab, ask: Ask, site: Site) -> None:
    node = lab.nodes[2]
    held = "/etc/systemd/system/mesos-slave.service.d"
    ask(node, "systemctl stop mesos-slave")
    hold = Hold("mesos-slave", "mesos")
    ask(node, hold.script(hold.plan("held=no\ninstalled=no\n")))  # type: ignore[arg-type]
    ask(node, "systemctl start mesos-slave")
    assert ask(node, "systemctl is-active mesos-slave || true") == "inactive"
    ask(node, f"rm -r {held}; systemctl daemon-reload; systemctl start mesos-slave")
    until(lambda: Registrations.ask(site).registered([node.name]).holds, seconds=60)


def test_a_dead_leader_is_replaced_and_named(open_chapter: Open, site: Site, lab: Lab, ask: Ask) -> None:
    leader = MasterEnsemble.ask(site).leader
    assert leader is not None
    node = lab.node(leader)
    ask(node, "systemctl kill -s KILL mesos-master; systemctl stop mesos-master")

    chapter = open_chapter(MesosMasters, "verify")
    led, every = chapter.one_leader(), chapter.every_master()
    with pytest.raises(ChapterFailed, match=rf"{leader} does not answer"):
        chapter.finish()

    assert led.holds
    new = MasterEnsemble.ask(site).leader
    assert new not in (None, leader)
    assert led.evidence.text.startswith(f"{new} (")
    assert not every.holds
    assert f"{leader} does not answer" in every.evidence.text

    mended = open_chapter(MesosMasters, "apply").start()
    assert {(one.host, one.step) for one in mended.having(Status.CHANGED)} == {(leader, "service mesos-master")}
    until(lambda: MasterEnsemble.ask(site).complete().holds, seconds=60)


@pytest.mark.parametrize(
    ("file", "reason"),
    [
        ("port", r"/etc/mesos-master/port and PORT in /etc/default/mesos-master both give --port"),
        ("ip.bak", r"/etc/mesos-master/ip\.bak: not a flag of mesos-master"),
    ],
)
def test_a_stray_file_is_named_before_a_master_ends_on_it(
    open_chapter: Open, lab: Lab, ask: Ask, file: str, reason: str
) -> None:
    node = lab.nodes[1]
    pid = ask(node, "systemctl show -p MainPID --value mesos-master")
    ask(node, f"echo 8150 > /etc/mesos-master/{file}")
    try:
        with pytest.raises(ApplyFailed, match=reason):
            open_chapter(MesosMasters, "apply").start()
    finally:
        ask(node, f"touch -r /etc/mesos-master/quorum /tmp/then; rm /etc/mesos-master/{file}")
        ask(node, "touch -r /tmp/then /etc/mesos-master")  # else the folder is newer than its master
    assert ask(node, "systemctl show -p MainPID --value mesos-master") == pid


def test_a_master_that_does_not_start_is_explained_by_its_log_and_stops_the_rollout(
    open_chapter: Open, lab: Lab, ask: Ask, site: Site, tmp_path: Path
) -> None:
    node = lab.nodes[1]
    others = [other for other in lab.nodes if other is not node]
    pids = [ask(other, "systemctl show -p MainPID --value mesos-master") for other in others]
    ask(node, "echo nonsense > /etc/mesos-master/zk_session_timeout")
    # without this the flag is foreign, and no master is restarted for it
    accepted = changed(lab, tmp_path, mesos={"master": {"allowed_flags": ["zk_session_timeout"]}})
    try:
        with pytest.raises(ApplyFailed, match=r"(?s)Failed to load flag 'zk_session_timeout'.*nonsense"):
            open_chapter(MesosMasters, "apply", accepted).start()
    finally:
        ask(node, "rm /etc/mesos-master/zk_session_timeout")
    assert [ask(other, "systemctl show -p MainPID --value mesos-master") for other in others] == pids
    open_chapter(MesosMasters, "apply").start()
    until(lambda: MasterEnsemble.ask(site).complete().holds, seconds=60)


def test_out_of_single_master_mode_is_refused(open_chapter: Open, lab: Lab, tmp_path: Path) -> None:
    parameters = yaml.safe_load(changed(lab, tmp_path, mesos={"master": {"allow_even": True}}).read_text())
    for host in parameters["hosts"][1:]:
        host["roles"].remove("mesos_master")
    alone = tmp_path / "alone.yml"
    alone.write_text(yaml.safe_dump(parameters))
    chapter = open_chapter(MesosMasters, "plan", alone)
    chapter.quorum()
    with pytest.raises(ChapterFailed, match="single-master mode"):
        chapter.finish()


def test_a_restart_for_a_setting_keeps_the_tasks(
    open_chapter: Open, lab: Lab, ask: Ask, tmp_path: Path, tasks: tuple[Framework, str], site: Site
) -> None:
    _, slave_id = tasks
    file = changed(lab, tmp_path, mesos={"slave": {"executor_registration_timeout": "6mins"}})
    result = open_chapter(MesosSlaves, "apply", file).start()
    assert ("node1", "service mesos-slave") in {(one.host, one.step) for one in result.having(Status.CHANGED)}
    entry = Registrations.ask(site).entries["node1"]
    assert entry["id"] == slave_id
    assert ask(lab.nodes[0], f"grep -lz '^MESOS_SLAVE_ID={slave_id}' /proc/[0-9]*/environ | wc -l") != "0"
    open_chapter(MesosSlaves, "apply").start()


def test_ports_that_cost_tasks_are_foreseen_gated_and_changed(
    open_chapter: Open, lab: Lab, ask: Ask, tmp_path: Path, tasks: tuple[Framework, str], site: Site
) -> None:
    framework, slave_id = tasks
    node = lab.nodes[0]
    file = changed(lab, tmp_path, mesos={"slave": {"ports": "[8401-8599,8601-9000]"}})
    latest = "readlink /var/lib/mesos/meta/slaves/latest"
    look = f"cat /etc/mesos-slave/resources; {latest}; systemctl show -p MainPID mesos-slave"
    before = [ask(one, look) for one in lab.nodes]
    log = ask(node, "ls /var/lib/mesos/replicated_log")

    # a plan shows the reset and the tasks that it would lose
    foreseen = open_chapter(MesosSlaves, "plan", file).start()
    (reset,) = (one for one in foreseen if (one.host, one.step) == (node.name, "registration of the slave"))
    assert (reset.status, reset.summary) == (Status.WOULD_CHANGE, "reset: 1 task lost")
    assert "-task long (TASK_RUNNING, rehearsal)" in reset.diff

    # verify calls it drift
    chapter = open_chapter(MesosSlaves, "verify", file)
    chapter.start()
    with pytest.raises(DriftFound, match="registration of the slave"):
        chapter.finish()

    # without an approval a headless run stops at the gate, with nothing done
    refused = papermill("03_mesos_slave", tmp_path, file, "apply")
    assert refused.returncode == 1
    assert "GateRefused" in refused.stderr
    assert re.search("long .TASK_RUNNING, rehearsal", refused.stderr)
    assert statuses(events(tmp_path))["changed"] == 0
    assert [ask(one, look) for one in lab.nodes] == before

    # with it the slaves register anew, and what the old one left is ended
    chapter = open_chapter(MesosSlaves, "apply", file, yes=True)
    chapter.start()
    chapter.registered()
    assert framework.status("long", "TASK_LOST")
    entries = Registrations.ask(site).entries
    assert {entry["resources"]["ports"] for entry in entries.values()} == {"[8401-8599, 8601-9000]"}
    assert entries[node.name]["id"] != slave_id
    ours = f"grep -lz '^MESOS_SLAVE_ID={slave_id}' /proc/[0-9]*/environ || true"
    assert ask(node, ours)
    ended = chapter.leftovers()
    assert [(one.host, one.summary) for one in ended.having(Status.CHANGED)] == [(node.name, "end 1 executor")]
    assert not ask(node, ours)
    assert ask(node, "ls /var/lib/mesos/replicated_log") == log
    assert ask(node, f"ls -d /var/lib/mesos/meta/slaves/{slave_id}")

    # back to where the other tests expect it
    back = open_chapter(MesosSlaves, "apply", yes=True)
    back.start()
    back.registered()


def test_a_slave_that_was_stopped_is_foreseen_too(open_chapter: Open, lab: Lab, ask: Ask, tmp_path: Path) -> None:
    node = lab.nodes[1]
    file = changed(lab, tmp_path, mesos={"slave": {"ports": "[8401-8599,8601-9000]"}})
    ask(node, "systemctl stop mesos-slave")
    try:
        table = open_chapter(MesosSlaves, "plan", file).foresee().frame.set_index("host")
        assert table.loc[node.name, "known from"] == "its files, older than its registration"
        assert str(table.loc[node.name, "outcome"]).startswith("⚠ reset")
        with pytest.raises(GateRefused):
            open_chapter(MesosSlaves, "apply", file).start()
    finally:
        ask(node, "systemctl start mesos-slave")
    until(lambda: ask(node, "systemctl is-active mesos-slave || true") == "active", seconds=30)
