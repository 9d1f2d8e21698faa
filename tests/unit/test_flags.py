"""The flags that a daemon's files give against those that its process runs with, and flags that no parameter names."""

from __future__ import annotations

from pathlib import Path

import pytest
from drift_host import DriftHost
from local_host import PRESENT, LocalHost
from mesos_site import site

from runbook.remote.steps import Change
from runbook.services.flags import ACTIVATE, Flags, ForeignFlags
from runbook.services.marathon import steps as marathon
from runbook.services.mesos.steps import MASTER, SLAVE, Daemon, flag_source, master_service, slave_service

MASTER_WORDS = ("--zk=zk://a:2181/mesos", "--port=8150", "--log_dir=/var/log/mesos", "--quorum=2", "--ip=198.51.100.11")
VARIABLES = {"LOGS": "/var/log/mesos", "ULIMIT": "", "PORT": "8150", "ZK": "zk://a:2181/mesos"}
WRAPPER = "{ path=/usr/bin/mesos-init-wrapper ; argv[]=/usr/bin/mesos-init-wrapper master ; ignore_errors=no ; pid=0 }"


@pytest.fixture
def shell() -> str:
    """The shell of the host: the oldest that is there. One test runs in each."""
    return PRESENT[-1]


@pytest.fixture
def host(tmp_path: Path, shell: str) -> DriftHost:
    """A host with the files of a master."""
    properties = {
        "LoadState": "loaded",
        "ActiveState": "active",
        "SubState": "running",
        "UnitFileState": "enabled",
        "MainPID": "0",
        "ActiveEnterTimestampMonotonic": "0",
        "NeedDaemonReload": "no",
        "ExecStart": WRAPPER,
        "Environment": "",
        "DropInPaths": "",
    }
    found = DriftHost(LocalHost(shell, tmp_path / "state"), tmp_path, properties)
    found.file("/etc/default/mesos", "LOGS=/var/log/mesos\n")
    found.file("/etc/mesos/zk", "zk://a:2181/mesos\n")
    found.file("/etc/default/mesos-master", f"PORT=8150\nexport ZK=`cat {tmp_path}/etc/mesos/zk`\n")
    found.file("/etc/mesos-master/quorum", "2\n")
    found.file("/etc/mesos-master/ip", "198.51.100.11\n")
    return found


def foreign(host: DriftHost, *allowed: str, program: str = MASTER) -> Change | None:
    return host.plan(ForeignFlags(flag_source(program), frozenset(allowed)))


def planned(host: DriftHost, more: str = "") -> Change | None:
    return host.plan(master_service(site(more=more)))


# foreign flags


def test_the_flags_of_the_runbook_and_of_the_package_are_not_foreign(host: DriftHost) -> None:
    host.file("/etc/default/mesos", 'LOGS=/var/log/mesos\nULIMIT="-n 8192"\n')  # as the package ships it
    assert foreign(host) is None


@pytest.mark.parametrize("shell", PRESENT)
def test_a_foreign_file_is_named_with_its_path_and_kept(host: DriftHost) -> None:
    host.file("/etc/mesos-master/max_slave_ping_timeouts", "10\n")
    with host.running(*MASTER_WORDS, **VARIABLES):
        change = foreign(host)
    assert change is not None
    assert change.kept
    file = "/etc/mesos-master/max_slave_ping_timeouts"
    assert f"--max_slave_ping_timeouts=10 ({file}; not in force: the next start activates it)" in change.summary
    assert change.diff == f"+{file}: --max_slave_ping_timeouts=10\n"


def test_a_foreign_flag_that_the_process_has_is_said_to_be_in_force(host: DriftHost) -> None:
    host.file("/etc/mesos-master/?no-authenticate", "")
    with host.running(*MASTER_WORDS, "--no-authenticate", **VARIABLES):
        change = foreign(host)
    assert change is not None
    assert "--no-authenticate (/etc/mesos-master/?no-authenticate; in force)" in change.summary


@pytest.mark.parametrize(
    ("file", "text", "name"),
    [
        ("/etc/mesos-master/max_slave_ping_timeouts", "10\n", "max_slave_ping_timeouts"),
        ("/etc/mesos-master/?no-authenticate", "", "authenticate"),
        ("/etc/default/mesos-master", "PORT=8150\nULIMIT='-n 100'\n", "ULIMIT"),
        ("/etc/default/mesos-master", "PORT=8150\nMESOS_RATE_LIMITS=/x\n", "rate_limits"),
        ("/etc/default/mesos-master", "PORT=8150\nexport MESOS_RATE_LIMITS=/x\n", "MESOS_RATE_LIMITS"),
        ("/etc/default/mesos", "LOGS=/var/log/mesos\nGLOG_v=2\n", "GLOG_v"),
        ("/etc/default/mesos", "LOGS=/var/log/mesos\nCLUSTER=x\n", "cluster"),
    ],
)
def test_what_the_parameters_accept_is_not_foreign(host: DriftHost, file: str, text: str, name: str) -> None:
    host.file(file, text)
    change = foreign(host)
    assert change is not None
    assert file in change.summary
    assert foreign(host, name) is None


def test_another_limit_than_the_packages_in_its_own_file_is_foreign(host: DriftHost) -> None:
    host.file("/etc/default/mesos", 'LOGS=/var/log/mesos\nULIMIT="-n 64"\n')
    change = foreign(host)
    assert change is not None
    assert "ULIMIT=-n 64 (/etc/default/mesos" in change.summary


def test_a_variable_of_systemd_itself_is_foreign(host: DriftHost) -> None:
    (host.root / "manager").write_text("LANG=C\nMESOS_QUORUM=1\n")
    with host.running(*MASTER_WORDS, **VARIABLES, MESOS_QUORUM="1"):
        change = foreign(host)
        assert planned(host) is None  # a restart would not remove it
    assert change is not None
    assert "MESOS_QUORUM=1 (systemctl set-environment; in force)" in change.summary


def test_a_secret_is_compared_and_never_shown(host: DriftHost) -> None:
    host.file("/etc/mesos-master/authentication_secret", "geheim-1\n")
    with host.running(*MASTER_WORDS, "--authentication_secret=geheim-2", **VARIABLES):
        step = ForeignFlags(flag_source(MASTER))
        assert "geheim" not in host.state(step)
        change = host.plan(step)
        assert planned(host, "mesos: {master: {allowed_flags: [authentication_secret]}}") is not None
    assert change is not None
    assert "not in force" in change.summary
    assert "geheim" not in f"{change.summary}{change.diff}"


# the process against its files


@pytest.mark.parametrize("shell", PRESENT)
def test_a_process_that_runs_with_the_flags_of_its_files_is_left_alone(host: DriftHost) -> None:
    with host.running(*MASTER_WORDS, **VARIABLES):
        assert planned(host) is None


@pytest.mark.parametrize(
    ("words", "environment", "diff"),
    [
        (
            (*MASTER_WORDS[:3], "--quorum=1", MASTER_WORDS[4]),
            {},
            "-process, --quorum: --quorum=1\n+process, --quorum: --quorum=2 (/etc/mesos-master/quorum)\n",
        ),
        (
            (*MASTER_WORDS, "--max_slave_ping_timeouts=10"),
            {},
            "-process, --max_slave_ping_timeouts: --max_slave_ping_timeouts=10\n"
            "+process, --max_slave_ping_timeouts: (no file gives it)\n",
        ),
        (
            MASTER_WORDS[:4],
            {},
            "-process, --ip: (not given)\n+process, --ip: --ip=198.51.100.11 (/etc/mesos-master/ip)\n",
        ),
        (MASTER_WORDS, {"MESOS_QUIET": "1"}, "-process, MESOS_QUIET: 1\n+process, MESOS_QUIET: (no file gives it)\n"),
        (
            MASTER_WORDS,
            {"LOGS": "/tmp"},
            "-process, LOGS: /tmp\n+process, LOGS: /var/log/mesos (/etc/default/mesos)\n",
        ),
    ],
)
def test_a_process_with_other_flags_is_restarted_whatever_the_times_of_its_files_are(
    host: DriftHost, words: tuple[str, ...], environment: dict[str, str], diff: str
) -> None:
    with host.running(*words, **{**VARIABLES, **environment}):
        change = planned(host)
    assert change is not None
    assert (change.actions, change.gate, change.diff) == (("restart",), None, diff)


def test_a_variable_that_builds_on_the_shells_own_is_not_compared(host: DriftHost) -> None:
    host.file("/etc/default/mesos", "LOGS=/var/log/mesos\nPATH=$PATH:/opt/x\n")
    with host.running(*MASTER_WORDS, **VARIABLES, PATH="/usr/bin:/bin:/opt/x"):
        assert planned(host, "mesos: {master: {allowed_flags: [PATH]}}") is None
        change = foreign(host)
    assert change is not None
    assert "(/etc/default/mesos; the next start reads it)" in change.summary


def test_variables_that_the_start_script_does_not_export_are_not_missed(host: DriftHost) -> None:
    """Some versions of mesos-init-wrapper read the files without allexport: only flags come of them."""
    host.file("/etc/default/mesos-master", "PORT=8150\nZK=zk://a:2181/mesos\nMESOS_QUIET=1\n")
    with host.running(*MASTER_WORDS):
        assert planned(host, "mesos: {master: {allowed_flags: [quiet]}}") is None


def test_a_unit_that_does_not_run_the_start_script_is_not_compared(host: DriftHost) -> None:
    """Its files say nothing of that process; the step of the unit reports another ExecStart."""
    host.properties["ExecStart"] = "{ path=/usr/sbin/mesos-master ; argv[]=/usr/sbin/mesos-master ; pid=0 }"
    with host.running("--quorum=1", **VARIABLES):
        assert Flags.read(flag_source(MASTER), host.state(ForeignFlags(flag_source(MASTER)))).running is None
        assert planned(host) is None


def test_a_limit_that_an_accepted_variable_gives_is_compared(host: DriftHost) -> None:
    host.file("/etc/default/mesos-master", "PORT=8150\nZK=zk://a:2181/mesos\nULIMIT='-n 77'\n")
    with host.running(*MASTER_WORDS, **VARIABLES | {"ULIMIT": "-n 77"}):
        change = planned(host, "mesos: {master: {allowed_flags: [ULIMIT]}}")
    assert change is not None
    assert "+process, open files: 77 (ULIMIT in /etc/default/mesos-master)\n" in change.diff


# what a restart activates


def test_a_master_is_not_restarted_for_a_foreign_flag(host: DriftHost) -> None:
    with host.running(*MASTER_WORDS, **VARIABLES):
        host.file("/etc/mesos-master/max_slave_ping_timeouts", "10\n")  # the directory is newer than the process
        assert planned(host) is None
        accepted = planned(host, "mesos: {master: {allowed_flags: [max_slave_ping_timeouts]}}")
    assert accepted is not None
    assert (accepted.actions, accepted.gate) == (("restart",), None)


def test_a_variable_of_another_file_is_named_with_its_own_value(host: DriftHost) -> None:
    host.file("/etc/default/mesos", 'LOGS=/var/log/mesos\nULIMIT="-n 8192"\n')
    host.file("/etc/default/mesos-master", "PORT=8150\nZK=zk://a:2181/mesos\nULIMIT='-n 64'\n")
    with host.running(*MASTER_WORDS, **VARIABLES | {"ULIMIT": "-n 8192"}):
        host.file("/etc/default/mesos-master", "PORT=8150\nZK=zk://a:2181/mesos\nULIMIT='-n 64'\n")
        change = foreign(host)
        assert planned(host) is None  # although its file is newer than the process
    assert change is not None
    assert change.diff == "+/etc/default/mesos-master: ULIMIT=-n 64\n"


def test_a_restart_for_another_reason_names_the_foreign_flag_at_a_gate(host: DriftHost) -> None:
    with host.running(*MASTER_WORDS, **VARIABLES):
        host.file("/etc/mesos-master/max_slave_ping_timeouts", "10\n")
        host.file("/etc/mesos-master/quorum", "3\n")
        change = planned(host)
    assert change is not None
    assert change.gate == ACTIVATE
    assert change.consequence == (
        "the restart activates 1 foreign flag: --max_slave_ping_timeouts=10 (/etc/mesos-master/max_slave_ping_timeouts)"
    )
    assert "+foreign: --max_slave_ping_timeouts=10" in change.diff


def test_the_gate_of_the_quorum_stays(host: DriftHost) -> None:
    with host.running(*MASTER_WORDS, **VARIABLES):
        host.file("/etc/mesos-master/max_slave_ping_timeouts", "10\n")
        host.file("/etc/mesos-master/quorum", "3\n")
        change = host.plan(master_service(site(), "change-quorum", "quorum 2 -> 3"))
    assert change is not None
    assert change.gate == "change-quorum"
    assert change.consequence.startswith("quorum 2 -> 3; the restart activates 1 foreign flag")


def test_a_drop_in_that_the_process_has_not_read_is_named_at_the_gate(host: DriftHost) -> None:
    with host.running(*MASTER_WORDS, **VARIABLES):
        path = host.file("/etc/systemd/system/mesos-master.service.d/nice.conf", "[Service]\nNice=5\n")
        host.properties["DropInPaths"] = str(path)
        host.file("/etc/mesos-master/quorum", "3\n")
        change = planned(host)
        accepted = planned(host, "mesos: {master: {allowed_drop_ins: [nice.conf]}}")
    assert change is not None
    assert change.gate == ACTIVATE
    assert "the restart activates /etc/systemd/system/mesos-master.service.d/nice.conf" in change.consequence
    assert accepted is not None
    assert accepted.gate is None


def test_a_start_says_which_foreign_flags_it_activates(host: DriftHost) -> None:
    host.properties |= {"ActiveState": "inactive", "SubState": "dead"}
    host.file("/etc/mesos-master/max_slave_ping_timeouts", "10\n")
    change = planned(host)
    assert change is not None
    assert (change.actions, change.gate) == (("start",), None)
    assert "+foreign: --max_slave_ping_timeouts=10 (/etc/mesos-master/max_slave_ping_timeouts)\n" in change.diff


# a slave's directories, and Marathon


def test_directories_of_attributes_and_resources_join_as_the_start_script_joins_them(host: DriftHost) -> None:
    """mesos-init-wrapper: `printf ';%s'` of `name:content` of each file that is not empty."""
    for name, text in {"attributes/rack": "r1\n", "attributes/level": "3\n", "attributes/empty": ""}.items():
        host.file(f"/etc/mesos-slave/{name}", text)
    host.file("/etc/mesos-slave/resources/ports", "[8401-8599]\n")
    state = host.state(ForeignFlags(flag_source(SLAVE)))
    given = Flags.read(flag_source(SLAVE), state).given
    assert given["attributes"].word == "--attributes=level:3;rack:r1"
    assert given["resources"].word == "--resources=ports:[8401-8599]"
    assert foreign(host, program=SLAVE) is None


MARATHON = ("-Xmx512m", "-cp", "/usr/bin/marathon", "mesosphere.marathon.Main", "--hostname", "198.51.100.11")


@pytest.fixture
def instance(host: DriftHost) -> DriftHost:
    """The same host with the files of a Marathon."""
    host.properties["ExecStart"] = "{ path=/usr/bin/marathon ; argv[]=/usr/bin/marathon ; ignore_errors=no ; pid=0 }"
    host.file("/etc/marathon/conf/hostname", "198.51.100.11\n")
    host.file("/etc/default/marathon", "LIBPROCESS_IP=198.51.100.11\n")
    return host


def test_foreign_flags_of_marathon_are_files_and_variables(instance: DriftHost) -> None:
    source = marathon.flag_source(site())
    with instance.running(*MARATHON, LIBPROCESS_IP="198.51.100.11"):
        assert instance.plan(ForeignFlags(source)) is None
        instance.file("/etc/marathon/conf/event_subscriber", "http_callback\n")
        instance.file("/etc/marathon/conf/http_credentials", "me:geheim\n")
        text = "LIBPROCESS_IP=198.51.100.11\nMARATHON_MAX_TASKS_PER_OFFER=5\nMARATHON_APP_ID=x\nJAVA_OPTS=-Xmx1g\n"
        instance.file("/etc/default/marathon", text)
        change = instance.plan(ForeignFlags(source))
        names = {"event_subscriber", "http_credentials", "max_tasks_per_offer", "JAVA_OPTS"}
        assert instance.plan(ForeignFlags(source, frozenset(names))) is None
    assert change is not None
    assert "geheim" not in change.summary
    for said in (
        "--event_subscriber=http_callback (/etc/marathon/conf/event_subscriber; not in force",
        "--http_credentials=*** (/etc/marathon/conf/http_credentials; not in force",
        "MARATHON_MAX_TASKS_PER_OFFER=5 (/etc/default/marathon; not in force",
        "JAVA_OPTS=-Xmx1g (/etc/default/marathon; not in force",
    ):
        assert said in change.summary
    assert "MARATHON_APP_ID" not in change.summary


def test_a_marathon_with_other_flags_than_its_files_give_is_seen(instance: DriftHost) -> None:
    source = marathon.flag_source(site())
    words = (*MARATHON, "--http_credentials", "me:geheim", "--https_port", "8443")
    with instance.running(*words, LIBPROCESS_IP="127.0.0.1"):
        found = Flags.read(source, instance.state(ForeignFlags(source))).differences(frozenset())
    assert found == {
        "process, --http_credentials": ("--http_credentials=***", "(no file gives it)"),
        "process, --https_port": ("--https_port=8443", "(no file gives it)"),
        "process, LIBPROCESS_IP": ("127.0.0.1", "198.51.100.11 (/etc/default/marathon)"),
    }


def test_every_daemon_of_mesos_and_marathon_is_compared() -> None:
    parameters = site(more="marathon: {allowed_flags: [event_subscriber], allowed_drop_ins: [nice.conf]}")
    services = [master_service(parameters), slave_service(parameters, parameters.hosts[0])]
    services.append(marathon.service(parameters, parameters.hosts[0]))
    assert [one.flags.unit for one in services if one.flags] == ["mesos-master", "mesos-slave", "marathon"]
    assert all(isinstance(one, Daemon) for one in services)
    assert (services[2].allowed, services[2].allowed_drop_ins) == (frozenset({"event_subscriber"}), ("nice.conf",))
