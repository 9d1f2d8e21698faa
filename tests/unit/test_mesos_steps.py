"""The steps of masters and slaves: what they make of a state, and what their scripts do in this machine's shells."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from local_host import ME, MY_GROUP, PRESENT, SHELLS, LocalHost
from mesos_site import site

from runbook.errors import StepFailed
from runbook.remote import steps as core
from runbook.remote.shell import Piece, facts
from runbook.remote.steps import Absent, Change, File, Step, sha256
from runbook.services.mesos import steps as mesos_steps
from runbook.services.mesos.slave_info import Difference
from runbook.services.mesos.steps import (
    MASTER,
    QUORUM,
    RESET,
    SLAVE,
    Daemon,
    FlagFolder,
    Forget,
    Hold,
    ListFlag,
    NoLeftovers,
    Quorum,
    Release,
    WorkDir,
    identity,
    install,
    master_service,
    master_settings,
    quorum,
    quorum_consequence,
    slave_flags,
    slave_service,
    slave_settings,
    without_master,
    without_slave,
)

OLD, NEW = "03027f2a-2478-484b-971f-9994934aaeb6-S1", "38cf8781-4bd3-46f3-bbbf-c41abc43a638-S0"


@pytest.fixture(params=PRESENT)
def host(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LocalHost:
    """A host whose /etc and programs lie below the test's folder (see `Rooted`)."""
    monkeypatch.setattr(core, "STATE_DIR", str(tmp_path / "state"))
    programs = tmp_path / "bin"
    programs.mkdir()
    local = LocalHost(request.param, tmp_path / "state")
    local.environment["PATH"] = f"{programs}:{os.environ['PATH']}"
    return local


def program(folder: Path, name: str, script: str) -> None:
    """A program of the host that does what `script` says."""
    file = folder / "bin" / name
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(0o755)


class Rooted(Step):
    """A step whose /etc is below a folder of the test."""

    def __init__(self, step: Step, root: Path) -> None:
        self.step = step
        self.root = root

    @property
    def label(self) -> str:
        return self.step.label

    def _moved(self, script: str) -> str:
        moved = script.replace("/etc/", f"{self.root}/etc/")
        return moved.replace("/var/lib/runbook", f"{self.root}/state")

    def probe(self) -> str:
        return self._moved(self.step.probe())

    def plan(self, state: str, pending: frozenset[str] = frozenset()) -> Change | None:
        return self.step.plan(state.replace(f"{self.root}/etc/", "/etc/"), pending)

    def script(self, change: Change) -> str:
        return self._moved(self.step.script(change))


# 2.1: held back until it is configured


def test_units_are_held_back_before_the_package_and_let_go_after(host: LocalHost, tmp_path: Path) -> None:
    program(tmp_path, "rpm", "exit 1")
    program(tmp_path, "systemctl", f'echo "$@" >> {tmp_path}/calls')
    hold, release = Rooted(Hold(MASTER, "mesos"), tmp_path), Rooted(Release(MASTER), tmp_path)

    host.apply(hold)

    drop_in = tmp_path / "etc/systemd/system/mesos-master.service.d/unconfigured.conf"
    # met only while the very file that states it is absent (systemd.unit(5))
    assert drop_in.read_text().splitlines()[-1] == f"ConditionPathExists=!{Hold(MASTER, 'mesos').path}"
    assert list(drop_in.parent.iterdir()) == [drop_in]

    host.apply(release)

    assert not drop_in.parent.exists()
    assert (tmp_path / "calls").read_text().splitlines() == ["daemon-reload", "daemon-reload"]


def test_what_is_installed_already_is_not_held_back(host: LocalHost, tmp_path: Path) -> None:
    program(tmp_path, "rpm", "exit 0")
    assert host.plan(Rooted(Hold(MASTER, "mesos"), tmp_path)) is None


def test_the_package_comes_after_the_holds() -> None:
    assert [step.label for step in install(site())] == [
        "hold mesos-master back",
        "hold mesos-slave back",
        "package mesos",
    ]


# 2.2.3: the quorum


def quorum_state(written: int, *, ran: bool, running: int | None = None, wanted: int = 2) -> str:
    """What the probe prints on a host whose file says `written`, and whose master runs with `running`."""
    content = f"{written}\n".encode()
    lines = [f"kind=file\nmode=644\nowner=root\ngroup=root\nuid=0\ngid=0\nsize=2\nsha256={sha256(content)}"]
    lines += [] if written == wanted else [f"content={core.base64.b64encode(content).decode()}"]
    lines += [f"ran={'yes' if ran else 'no'}", f"quorum={running or ''}", f"written={written}"]
    return "\n".join(lines) + "\n"


def test_the_quorum_is_half_of_the_masters_and_one() -> None:
    step = quorum(site(masters=5))
    assert isinstance(step, File)
    assert (step.path, step.content) == ("/etc/mesos-master/quorum", "3\n")


def test_before_the_first_start_the_quorum_is_written_freely() -> None:
    change = quorum(site()).plan(quorum_state(1, ran=False))
    assert change is not None
    assert (change.gate, change.content) == (None, b"2\n")


def test_after_it_another_quorum_is_behind_a_gate_that_explains_it() -> None:
    change = quorum(site(masters=5)).plan(quorum_state(2, ran=True, wanted=3))
    assert change is not None
    assert change.gate == QUORUM
    assert "more than 3 masters with a quorum of 2 can corrupt the log" in change.consequence


@pytest.mark.parametrize("state", [quorum_state(1, ran=True), quorum_state(2, ran=True, running=1)])
def test_out_of_single_master_mode_there_is_no_way(state: str) -> None:
    with pytest.raises(StepFailed, match=r"(?s)single-master mode.*replicated_log.*away"):
        quorum(site()).plan(state)


def test_a_quorum_that_is_right_is_left_alone() -> None:
    assert quorum(site()).plan(quorum_state(2, ran=True, running=2)) is None


def test_mesos_bears_one_step_at_a_time() -> None:
    assert "quorum 3 -> 2" in quorum_consequence(3, 2)
    with pytest.raises(StepFailed, match="one step at a time"):
        quorum_consequence(2, 4)


def test_the_quorums_probe_knows_what_has_run_and_what_runs(host: LocalHost, tmp_path: Path) -> None:
    program(tmp_path, "systemctl", f"echo MainPID=$(cat {tmp_path}/pid)")
    (tmp_path / "etc/mesos-master").mkdir(parents=True)
    (tmp_path / "etc/mesos-master/quorum").write_text("3\n")
    (tmp_path / "work/replicated_log").mkdir(parents=True)
    step = Rooted(Quorum("/etc/mesos-master/quorum", "3\n", work_dir=f"{tmp_path}/work"), tmp_path)
    (tmp_path / "pid").write_text("0")
    at_rest = facts(host.probe(step))
    assert (at_rest["ran"], at_rest["quorum"], at_rest["written"]) == ("yes", "", "3")

    with subprocess.Popen(["sh", "-c", "sleep 60; :", "--quorum=2", "--port=8150"]) as master:
        (tmp_path / "pid").write_text(str(master.pid))
        assert facts(host.probe(step))["quorum"] == "2"
        master.kill()


def test_a_masters_work_dir_moves_only_with_its_replica_of_the_log(host: LocalHost, tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    (tmp_path / "etc/mesos-master").mkdir(parents=True)
    (tmp_path / "etc/mesos-master/work_dir").write_text(f"{old}\n")
    step = Rooted(WorkDir("/etc/mesos-master/work_dir", f"{new}\n", owner=ME, group=MY_GROUP), tmp_path)
    assert host.plan(step) is not None  # it never ran

    (old / "replicated_log").mkdir(parents=True)
    with pytest.raises(
        StepFailed, match=rf"(?s)replica of the registry's log lies in {old}.*mv {old}/replicated_log {new}/"
    ):
        host.plan(step)

    new.mkdir()
    (old / "replicated_log").rename(new / "replicated_log")
    assert host.plan(step) is not None


# 2.2.4 and 2.2.5: where a master is and how it is reached


def test_ip_and_hostname_are_the_hosts_address() -> None:
    parameters = site()
    written = {step.path: step.content for step in identity(parameters, parameters.hosts[1]) if isinstance(step, File)}
    assert written == {
        "/etc/mesos-master/ip": "198.51.100.12\n",
        "/etc/mesos-master/hostname": "198.51.100.12\n",
    }


def test_the_port_takes_the_place_of_the_packages(host: LocalHost, tmp_path: Path) -> None:
    (tmp_path / "etc/default").mkdir(parents=True)
    defaults = tmp_path / "etc/default/mesos-master"
    defaults.write_text("# of the package\nPORT=5050\nZK=`cat /etc/mesos/zk`\n")
    (lines,) = (step for step in master_settings(site()) if step.label == "lines in /etc/default/mesos-master")
    host.apply(Rooted(lines, tmp_path))
    assert defaults.read_text() == "# of the package\nPORT=8150\nZK=`cat /etc/mesos/zk`\n"


def test_a_folder_for_logs_reaches_bash_as_one_word(tmp_path: Path) -> None:
    parameters = site()
    master = parameters.mesos.master.model_copy(update={"log_dir": "/var/log/it's $(here)"})  # parameters refuse it
    mesos = parameters.mesos.model_copy(update={"master": master})
    parameters = parameters.model_copy(update={"mesos": mesos})
    (lines,) = (step for step in master_settings(parameters) if step.label == "lines in /etc/default/mesos")
    (tmp_path / "default").write_text(lines._edited(b"LOGS=/var/log/mesos\n").decode())  # type: ignore[attr-defined]
    said = subprocess.run(["bash", "-c", f'. {tmp_path}/default; echo "$LOGS"'], capture_output=True, text=True)
    assert said.stdout == "/var/log/it's $(here)\n"


def test_a_cluster_without_a_name_has_no_such_flag(host: LocalHost, tmp_path: Path) -> None:
    (tmp_path / "etc/mesos-master").mkdir(parents=True)
    file = tmp_path / "etc/mesos-master/cluster"
    file.write_text("old\n")
    step = Rooted(Absent("/etc/mesos-master/cluster"), tmp_path)
    host.environment["RUNBOOK_BACKUP"] = str(tmp_path / "state/backup/record")

    host.apply(step)

    assert not file.exists()
    kept = list((tmp_path / "state/backup").rglob("cluster"))
    assert [path.read_text() for path in kept] == ["old\n"]


# stray files are flags


@pytest.fixture
def flags(host: LocalHost, tmp_path: Path) -> Path:
    """The folder of a master's flags, and a master whose --help knows some."""
    folder = tmp_path / "etc/mesos-master"
    folder.mkdir(parents=True)
    (tmp_path / "etc/default").mkdir()
    (tmp_path / "etc/default/mesos-master").write_text("PORT=8150\nZK=`cat /etc/mesos/zk`\nIP=\n")
    for name in ("quorum", "ip", "hostname", "work_dir"):
        (folder / name).write_text("x\n")
    # the lines' form is that of stout's flags (Mesos 0.28.0, 3rdparty/libprocess/3rdparty/stout/include/stout/flags)
    usage = "Usage: mesos-master [options]\n  --[no-]hostname_lookup     Whether …\n  --roles=VALUE    A comma …"
    program(tmp_path, "mesos-master", f"cat <<'END' >&2\n{usage}\nEND\nexit 1")
    host.environment["RUNBOOK_BACKUP"] = str(tmp_path / "state/backup/record")
    return folder


def test_the_runbooks_own_files_and_known_flags_are_left_alone(host: LocalHost, flags: Path, tmp_path: Path) -> None:
    (flags / "?no-hostname_lookup").touch()
    (flags / "roles").write_text("web\n")
    assert host.plan(Rooted(FlagFolder(MASTER), tmp_path)) is None


def test_what_rpm_left_is_put_away(host: LocalHost, flags: Path, tmp_path: Path) -> None:
    (flags / "quorum.rpmnew").write_text("1\n")
    change = host.apply(Rooted(FlagFolder(MASTER), tmp_path))
    assert change is not None
    assert "/etc/mesos-master/quorum.rpmnew" in change.diff
    assert sorted(path.name for path in flags.iterdir()) == ["hostname", "ip", "quorum", "work_dir"]
    assert len(list((tmp_path / "state/backup").rglob("quorum.rpmnew"))) == 1


@pytest.mark.parametrize("name", ["ip.bak", "no such flag", "hostname_lookupx"])
def test_a_file_that_is_no_flag_is_refused_and_named(host: LocalHost, flags: Path, tmp_path: Path, name: str) -> None:
    (flags / name).write_text("x\n")
    with pytest.raises(StepFailed, match=rf"(?s)/etc/mesos-master/{name}.*not a flag.*remedy: move it"):
        host.plan(Rooted(FlagFolder(MASTER), tmp_path))
    assert (flags / name).exists()


def test_a_port_beside_the_documents_port_is_refused_and_named(host: LocalHost, flags: Path, tmp_path: Path) -> None:
    (flags / "port").write_text("8150\n")
    with pytest.raises(StepFailed, match=r"(?s)mesos-master/port and PORT in /etc/default/mesos-master.*remove /etc"):
        host.plan(Rooted(FlagFolder(MASTER), tmp_path))


def test_an_ip_in_the_defaults_beside_the_file_is_refused(host: LocalHost, flags: Path, tmp_path: Path) -> None:
    (tmp_path / "etc/default/mesos").write_text("export IP=198.51.100.11\n")
    with pytest.raises(StepFailed, match=r"(?s)/etc/mesos-master/ip and IP in .*remedy: take IP out of"):
        host.plan(Rooted(FlagFolder(MASTER), tmp_path))


# a service that is younger than its files and its package


def daemon_state(started: float, installed: int | None, now: int = 1_700_000_000, up: int = 10_000) -> str:
    """A running service that started `started` seconds after boot."""
    lines = ["LoadState=loaded", "ActiveState=active", "SubState=running", "UnitFileState=enabled", "MainPID=7"]
    lines += [
        "ActiveEnterTimestampMonotonic=0",
        f"ticks={int(started * 100)}",
        "hertz=100",
        f"now={now}",
        f"uptime={up}",
    ]
    return "\n".join([*lines, *([] if installed is None else [f"installed={installed}"])]) + "\n"


def test_a_service_is_restarted_after_its_package_was_replaced() -> None:
    step = master_service(site())
    booted = 1_700_000_000 - 10_000
    assert step.plan(daemon_state(500, booted + 400)) is None
    change = step.plan(daemon_state(500, booted + 600))
    assert change is not None
    assert "older than package mesos" in change.diff


def test_a_service_watches_its_files_and_the_folder_that_a_removed_flag_was_in() -> None:
    parameters = site()
    assert {
        "/etc/mesos-master",
        "/etc/mesos-master/quorum",
        "/etc/mesos-master/ip",
        "/etc/default/mesos-master",
    } <= set(master_service(parameters).restart_if_newer)
    watched = set(slave_service(parameters, parameters.hosts[0]).restart_if_newer)
    assert {"/etc/mesos-slave", "/etc/mesos-slave/resources", "/etc/mesos-slave/attributes", "/etc/mesos/zk"} <= watched


def test_a_host_runs_only_what_it_has_the_role_for() -> None:
    parameters = site(masters=1, slaves=2, more="mesos: {master: {allow_even: true}}")
    both, slave = parameters.hosts
    assert (without_slave(both), without_master(both)) == ((), ())
    _, service = without_master(slave)
    assert isinstance(service, core.Service)
    assert (service.name, service.running, service.enabled, service.gate) == (MASTER, False, False, "stop-mesos-master")


# 3.2 and 3.3: a slave


def test_a_slave_has_what_the_document_gives_and_what_it_lacks() -> None:
    parameters = site()
    assert slave_flags(parameters, parameters.hosts[0], docker=True) == {
        "ip": "198.51.100.11",
        "hostname": "198.51.100.11",
        "port": "5051",
        "work_dir": "/var/lib/mesos",
        "containerizers": "docker,mesos",
        "executor_registration_timeout": "5mins",
        "resources": "ports:[8401-8599,8601-9100]",
        "attributes": None,
    }


def test_caps_and_attributes_are_given_where_the_parameters_have_them() -> None:
    parameters = site(slave="{cpus: 1.5, mem: 2048, attributes: {rack: r1, level: '3'}}")
    flags = slave_flags(parameters, parameters.hosts[0], docker=True)
    assert flags["resources"] == "cpus:1.5;mem:2048;ports:[8401-8599,8601-9100]"
    assert flags["attributes"] == "level:3;rack:r1"


def test_a_host_without_docker_goes_without_that_containerizer() -> None:
    parameters = site()
    assert slave_flags(parameters, parameters.hosts[0], docker=False)["containerizers"] == "mesos"


def test_attributes_that_the_parameters_do_not_give_are_removed() -> None:
    parameters = site()
    settings = slave_settings(parameters, parameters.hosts[0], docker=True)
    assert ListFlag("/etc/mesos-slave/attributes", None) in settings


def list_flag(tmp_path: Path, value: str | None, monkeypatch: pytest.MonkeyPatch) -> Step:
    """The resources of a slave, written as this user."""
    monkeypatch.setattr(mesos_steps, "File", lambda path, content: File(path, content, owner=ME, group=MY_GROUP))
    return Rooted(ListFlag("/etc/mesos-slave/resources", value), tmp_path)


def test_a_list_of_resources_is_a_file_where_there_is_no_directory(
    host: LocalHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "etc/mesos-slave").mkdir(parents=True)
    host.apply(list_flag(tmp_path, "cpus:2;ports:[8401-8599]", monkeypatch))
    file = tmp_path / "etc/mesos-slave/resources"
    assert file.read_text() == "cpus:2;ports:[8401-8599]\n"
    host.apply(list_flag(tmp_path, None, monkeypatch))
    assert not file.exists()


def test_a_directory_of_resources_is_edited_entry_by_entry(
    host: LocalHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """mesos-init-wrapper joins its files as name:content, separated by semicolons."""
    folder = tmp_path / "etc/mesos-slave/resources"
    folder.mkdir(parents=True)
    for name, text in {"cpus": "4\n", "ports": "[8401-8599, 8601-9100]\n", "disk": "1000\n", "empty": ""}.items():
        (folder / name).write_text(text)
    ports = (folder / "ports").stat().st_ino

    change = host.apply(list_flag(tmp_path, "cpus:2;mem:512;ports:[8401-8599,8601-9100]", monkeypatch))

    assert change is not None
    path = "/etc/mesos-slave/resources"
    assert change.diff == f"-{path}/cpus: 4\n+{path}/cpus: 2\n-{path}/disk: 1000\n+{path}/mem: 512\n"
    assert {file.name: file.read_text().strip() for file in folder.iterdir()} == {
        "cpus": "2",
        "mem": "512",
        "ports": "[8401-8599, 8601-9100]",
        "empty": "",
    }
    assert (folder / "ports").stat().st_ino == ports  # what says the same stays as it is


def test_an_entry_that_was_changed_meanwhile_is_not_overwritten(
    host: LocalHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "etc/mesos-slave/resources"
    folder.mkdir(parents=True)
    (folder / "cpus").write_text("4\n")
    step = list_flag(tmp_path, "cpus:2", monkeypatch)
    change = host.plan(step)
    assert change is not None
    (folder / "cpus").write_text("8\n")
    assert host.make(step, change).status == 1
    assert (folder / "cpus").read_text() == "8\n"


PORTS = Difference("resource ports", "[8401-8599, 8601-9100]", "[8401-8599, 8601-9000]")


def test_a_reset_shows_what_it_loses_and_is_behind_its_gate() -> None:
    step = Forget("/var/lib/mesos", OLD, (PORTS,), ("web.1 (TASK_RUNNING, marathon)", "web.2 (TASK_RUNNING, marathon)"))
    change = step.plan(f"latest={OLD}\n")
    assert change is not None
    assert (change.gate, change.summary) == (RESET, "reset: 2 tasks lost")
    assert "-resource ports: [8401-8599, 8601-9100]\n+resource ports: [8401-8599, 8601-9000]\n" in change.diff
    assert "-task web.1 (TASK_RUNNING, marathon)\n" in change.diff
    assert "web.1 (TASK_RUNNING, marathon); web.2" in change.consequence


@pytest.mark.parametrize("latest", ["", NEW])
def test_a_slave_that_has_forgotten_needs_no_reset(latest: str) -> None:
    assert Forget("/var/lib/mesos", OLD, (PORTS,), ()).plan(f"latest={latest}\n") is None


def test_a_reset_says_when_nobody_knows_the_tasks() -> None:
    change = Forget("/var/lib/mesos", OLD, (PORTS,), None).plan(f"latest={OLD}\n")
    assert change is not None
    assert change.summary == "reset: unknown tasks lost"
    assert "no master leads" in change.consequence


@pytest.fixture
def work_dir(tmp_path: Path) -> Path:
    """A work_dir that a master and a slave share."""
    work = tmp_path / "work"
    (work / "replicated_log").mkdir(parents=True)
    (work / "replicated_log/CURRENT").write_text("MANIFEST-000001\n")
    (work / "meta/slaves" / OLD).mkdir(parents=True)
    (work / "meta/slaves" / OLD / "slave.info").write_text("x")
    (work / "meta/slaves/latest").symlink_to(work / "meta/slaves" / OLD)
    return work


def test_a_reset_stops_the_slave_and_removes_the_link_and_nothing_else(
    host: LocalHost, work_dir: Path, tmp_path: Path
) -> None:
    program(tmp_path, "systemctl", f'echo "$@" >> {tmp_path}/calls')
    before = {path for path in work_dir.rglob("*") if path.name != "latest"}

    host.apply(Forget(str(work_dir), OLD, (PORTS,), ()))

    assert (tmp_path / "calls").read_text() == "stop mesos-slave\n"
    assert set(work_dir.rglob("*")) == before


def test_a_slave_that_registered_anew_meanwhile_is_not_reset(host: LocalHost, work_dir: Path, tmp_path: Path) -> None:
    program(tmp_path, "systemctl", f'echo "$@" >> {tmp_path}/calls')
    step = Forget(str(work_dir), OLD, (PORTS,), ())
    change = host.plan(step)
    assert change is not None
    link = work_dir / "meta/slaves/latest"
    link.unlink()
    link.symlink_to(work_dir / "meta/slaves" / NEW)

    frame = host.run(Piece("change", step.script(change)))["change"]

    assert frame.status == 1
    assert "registered anew" in frame.err
    assert link.is_symlink()
    assert not (tmp_path / "calls").exists()


def test_nothing_is_removed_where_the_slave_cannot_be_stopped(host: LocalHost, work_dir: Path, tmp_path: Path) -> None:
    program(tmp_path, "systemctl", "exit 1")
    step = Forget(str(work_dir), OLD, (PORTS,), ())
    change = host.plan(step)
    assert change is not None
    assert host.make(step, change).status == 1
    assert (work_dir / "meta/slaves/latest").is_symlink()


# what earlier slaves left running


@pytest.fixture
def tasks(work_dir: Path) -> Iterator[dict[str, subprocess.Popen[bytes]]]:
    """A task of an earlier slave that heeds no SIGTERM, one of the present slave, and one of another Mesos."""

    def start(slave: str, folder: Path, command: str) -> subprocess.Popen[bytes]:
        sandbox = f"{folder}/slaves/{slave}/frameworks/F/executors/web.1/runs/R"
        environment = {"MESOS_SLAVE_ID": slave, "MESOS_DIRECTORY": sandbox, "MESOS_EXECUTOR_ID": "web.1"}
        return subprocess.Popen(["sh", "-c", command], env={**os.environ, **environment})

    link = work_dir / "meta/slaves/latest"
    link.unlink()
    link.symlink_to(work_dir / "meta/slaves" / NEW)
    started = {
        "old": start(OLD, work_dir, "trap '' TERM; while :; do sleep 0.2; done"),
        "present": start(NEW, work_dir, "sleep 60; :"),
        "elsewhere": start(OLD, work_dir.parent / "other", "sleep 60; :"),
    }
    yield started
    for process in started.values():
        process.kill()
        process.wait()


def test_only_what_an_earlier_slave_of_this_work_dir_left_is_found_and_ended(
    host: LocalHost, work_dir: Path, tasks: dict[str, subprocess.Popen[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(NoLeftovers, "GRACE", 1)
    step = NoLeftovers((str(work_dir),))
    (left,) = step.found(host.probe(step))
    assert (left.executor, left.slave_id) == ("web.1", OLD)
    assert tasks["old"].pid in left.pids

    change = step.plan(host.probe(step))
    assert change is not None
    assert (change.gate, change.summary) == (RESET, "end 1 executor")
    assert host.make(step, change).status == 0

    assert tasks["old"].wait(5) == -9
    assert tasks["present"].poll() is None
    assert tasks["elsewhere"].poll() is None


def test_containers_of_earlier_slaves_are_known_by_their_names() -> None:
    state = f"latest={NEW}\ncontainer=mesos-{OLD}.fdafe28e registry:2\ncontainer=mesos-{NEW}.aa web:1\n"
    step = NoLeftovers(("/var/lib/mesos",))
    (left,) = step.found(state)
    assert (left.container, left.executor) == (f"mesos-{OLD}.fdafe28e", "fdafe28e")
    change = step.plan(state)
    assert change is not None
    assert 'docker stop "$@"' in step.script(change)
    assert f"mesos-{OLD}.fdafe28e" in step.script(change)


def test_before_a_registration_nobody_can_tell_what_is_old() -> None:
    state = f"latest=\nprocess=12 {OLD} /var/lib/mesos/slaves/{OLD}/x web.1 sleep\n"
    assert NoLeftovers(("/var/lib/mesos",)).plan(state) is None


def test_every_script_is_taken_by_every_shell(host: LocalHost) -> None:
    parameters = site()
    everything: list[Step] = [
        *install(parameters),
        quorum(parameters),
        *identity(parameters, parameters.hosts[0]),
        *master_settings(parameters),
        *slave_settings(parameters, parameters.hosts[0], docker=True),
        FlagFolder(MASTER),
        FlagFolder(SLAVE),
        Release(SLAVE),
        master_service(parameters),
        slave_service(parameters, parameters.hosts[0]),
        NoLeftovers(("/var/lib/mesos",)),
    ]
    for step in everything:
        checked = subprocess.run(
            [*SHELLS[host.shell], "-n"], input=step.probe(), text=True, capture_output=True, check=False
        )
        assert (checked.returncode, checked.stderr) == (0, ""), step.label
    assert all(isinstance(step, Daemon) for step in everything if step.label.startswith("service"))
