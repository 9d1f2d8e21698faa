"""Why a ZooKeeper does not start: the probe run for real on folders as real ones leave them, and what follows.

Processes and ports are not this machine's but the test's: of what the probe prints, those lines are put in their place.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from zookeeper_payloads import PAYLOADS, said, site

from runbook.errors import HostUnreachable
from runbook.remote.hosts import Output
from runbook.services.findings import Finding
from runbook.services.zookeeper_diagnosis import PROCESS, diagnose, probe
from runbook.services.zookeeper_ensemble import server_lines
from runbook.site import Site

JAVA = (
    f"java -cp /etc/zookeeper/conf:/usr/share/java/zookeeper.jar org.apache.zookeeper.server.quorum.{PROCESS} zoo.cfg"
)


class Host:
    """The third of three members, in a folder; `processes` and `listening` are what the host would say of itself."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.processes: dict[int, str] = {}
        self.listening: list[str] = []
        self.conf, self.data, self.logs = (root / name for name in ("conf", "data", "logs"))
        for folder in (self.conf, self.data, self.logs):
            folder.mkdir()
        names = {"conf_dir": self.conf, "data_dir": self.data, "log_dir": self.logs, "pid_dir": self.data}
        plain = site()
        zookeeper = plain.zookeeper.model_copy(update={name: str(path) for name, path in names.items()})
        self.site: Site = plain.model_copy(update={"zookeeper": zookeeper})
        self.zoo_cfg = self.conf / "zoo.cfg"
        lines = [f"{key}={value}" for key, value in server_lines(self.site).items()]
        self.zoo_cfg.write_text("\n".join(["# comment", "", f"dataDir={self.data}", "clientPort=2181", *lines, ""]))
        (self.data / "myid").write_text("3\n")
        self.version_2 = self.data / "version-2"
        shutil.copytree(PAYLOADS / "zookeeper-3.8" / "version-2", self.version_2)

    def log(self, case: str) -> None:
        """What a real ZooKeeper logged in a case of tests/payloads/zookeeper-3.8/logs."""
        for suffix in ("log", "out"):
            source = PAYLOADS / "zookeeper-3.8" / "logs" / f"{case}.{suffix}"
            if source.exists():
                shutil.copy(source, self.logs / f"zookeeper-root-server-node3.{suffix}")

    def ask(self, shell: str = "sh") -> Output:
        sent = time.time()
        done = subprocess.run([shell, "-s"], input=probe(self.site), text=True, capture_output=True, check=False)
        assert done.stderr == ""
        ours = [line for line in done.stdout.splitlines() if not line.startswith(("runs=", "listen=", "pidprocess="))]
        ours += [f"runs={pid}" for pid, command in self.processes.items() if PROCESS in command]
        ours += [f"listen={line}" for line in self.listening]
        for line in done.stdout.splitlines():
            if line.startswith("pidfile=") and (command := self.processes.get(int(line[8:] or 0))):
                ours.append(f"pidprocess={command}")
        return Output("\n".join(ours), "", done.returncode, sent=sent, received=time.time())

    def found(self, serving: bool = False, others: dict[str, Output] | None = None) -> list[Finding]:
        """The findings on this host, which serves or not; the others are well and serve, unless given."""
        outputs = {**(others or {}), "node3": self.ask()}
        well = {"node1", "node2"} if others is None else set()
        return list(diagnose(self.site, outputs, frozenset(well | ({"node3"} if serving else set()))).of("node3"))

    def causes(self, serving: bool = False) -> list[str]:
        return [finding.cause for finding in self.found(serving)]


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


@pytest.mark.parametrize("shell", ["dash", "bash"])
def test_nothing_is_found_where_all_is_well(host: Host, shell: str) -> None:
    host.processes = {7: JAVA}
    (host.data / "zookeeper_server.pid").write_text("7")
    host.listening = [f"2181 7 {JAVA}", f"3888 7 {JAVA}"]
    output = host.ask(shell)
    assert output.ok
    assert list(diagnose(host.site, {"node3": output}, frozenset({"node3"}))) == []


def test_one_that_was_never_started_is_told_to_be_started(host: Host) -> None:
    assert host.causes() == ["ZooKeeper does not run"]


def test_what_zookeeper_env_sends_elsewhere(host: Host) -> None:
    (host.conf / "zookeeper-env.sh").write_text(
        "export JAVA_HOME=/usr/jdk64\nexport ZOO_LOG_DIR=/var/log/zookeeper\n"
        "  export ZOOPIDFILE=/var/run/zookeeper/zookeeper_server.pid\n#ZOOPIDFILE=/x\n"
    )
    pids, logs = host.found()
    assert pids.cause == "zkServer.sh writes another pid file"
    assert f"ZOOPIDFILE=/var/run/zookeeper/zookeeper_server.pid, not {host.data}" in pids.evidence
    assert (pids.remedy, logs.remedy) == (
        "set zookeeper.pid_dir to /var/run/zookeeper",
        "set zookeeper.log_dir to /var/log/zookeeper",
    )
    (host.conf / "zookeeper-env.sh").write_text(
        f'export ZOO_LOG_DIR={host.logs}/\nexport ZOOPIDFILE="{host.data}/zookeeper_server.pid"\n'
    )
    assert host.causes() == ["ZooKeeper does not run"]


def test_a_pid_file_whose_process_is_gone(host: Host) -> None:
    (host.data / "zookeeper_server.pid").write_text("4711")
    (finding,) = host.found()
    assert finding.cause == "stale pid file: its process is gone"
    assert "4711" in finding.evidence


def test_a_pid_file_whose_number_another_process_has(host: Host) -> None:
    (host.data / "zookeeper_server.pid").write_text("4711\n")
    host.processes = {4711: "sleep 600"}
    (finding,) = host.found()
    assert finding.cause == "stale pid file: another process has its number now"
    assert "4711, which is `sleep 600`" in finding.evidence
    assert finding.remedy.startswith(f"rm {host.data}/zookeeper_server.pid ")
    assert "no zkServer.sh stop" in finding.remedy


@pytest.mark.parametrize("content", [None, "4711", ""])
def test_a_zookeeper_that_its_pid_file_does_not_name(host: Host, content: str | None) -> None:
    if content is not None:
        (host.data / "zookeeper_server.pid").write_text(content)
    host.processes = {7: JAVA}
    (finding,) = host.found(serving=True)
    assert finding.cause == "the pid file does not name the ZooKeeper that runs"
    assert finding.remedy == f"echo 7 > {host.data}/zookeeper_server.pid"


def test_myid_missing(host: Host) -> None:
    (host.data / "myid").unlink()
    host.log("myid-missing")
    (finding,) = host.found()
    assert finding.cause == "myid is missing"
    assert f"echo 3 > {host.data}/myid" in finding.remedy


def test_myid_in_the_conf_folder_as_2_2_1_has_it(host: Host) -> None:
    (host.data / "myid").rename(host.conf / "myid")
    (finding,) = host.found()
    assert finding.cause == "myid is in the wrong folder"
    assert f"{host.conf}/myid holds 3, and ZooKeeper reads {host.data}/myid" in finding.evidence


@pytest.mark.parametrize(
    ("content", "evidence"),
    [
        ("1\n", "holds 1, which is the member at 198.51.100.11; this host is server.3"),
        ("9\n", "holds 9, which no server line of zoo.cfg has"),
        ("abc", "holds abc, which no server line of zoo.cfg has"),
        ("", "holds nothing"),
    ],
)
def test_myid_wrong(host: Host, content: str, evidence: str) -> None:
    (host.data / "myid").write_text(content)
    (finding,) = host.found()
    assert finding.cause == "myid is wrong"
    assert evidence in finding.evidence


def empty_log(host: Host) -> None:
    (host.version_2 / "log.100000001").write_bytes(b"")
    host.log("log-empty")


def no_log_at_all(host: Host) -> None:
    (host.version_2 / "log.100000001").write_bytes(b"garbage")


def snapshots_cut(host: Host) -> None:
    for path in host.version_2.glob("snapshot.*"):
        path.write_bytes(path.read_bytes()[:300])


def epoch_empty(host: Host) -> None:
    (host.version_2 / "acceptedEpoch").write_bytes(b"")


def crc(host: Host) -> None:
    host.log("log-crc")


def no_snapshot(host: Host) -> None:
    for path in host.version_2.glob("snapshot.*"):
        path.unlink()
    host.log("no-snapshot")


@pytest.mark.parametrize(
    ("spoil", "evidence"),
    [
        (empty_log, "log.100000001 is empty"),
        (no_log_at_all, "log.100000001 does not begin as a transaction log does"),
        (snapshots_cut, "snapshot.0 is not a whole snapshot"),
        (epoch_empty, "acceptedEpoch is empty"),
        (crc, "CRC check failed"),
        (no_snapshot, "No snapshot found, but there are log entries"),
    ],
)
def test_damaged_data(host: Host, spoil: Callable[[Host], None], evidence: str) -> None:
    spoil(host)
    (finding,) = host.found()
    assert finding.cause == "the data on disk are damaged"
    assert evidence in finding.evidence
    assert f"mv {host.data}/version-2 {host.data}/version-2.damaged" in finding.remedy
    assert finding.remedy.startswith("a quorum serves without it")


def test_damaged_data_are_not_moved_away_while_no_quorum_serves(host: Host) -> None:
    empty_log(host)
    (finding,) = host.found(others={})
    assert finding.remedy.startswith("no quorum serves, so this may be the only copy")


def test_one_damaged_snapshot_is_borne_while_another_is_whole(host: Host) -> None:
    (host.version_2 / "snapshot.100000000").write_bytes(b"")
    assert host.causes() == ["ZooKeeper does not run"]


def test_a_missing_data_folder(host: Host) -> None:
    shutil.rmtree(host.data)
    assert host.causes() == ["the data folder is missing"]


def test_files_of_two_owners(host: Host) -> None:
    output = host.ask()
    text = output.stdout.replace("file=snapshot.0 589 ", "file=snapshot.0 589 zookeeper-", 1)
    (finding,) = diagnose(host.site, {"node3": Output(text, "", 0)}, frozenset({"node3"}))
    assert finding.cause == "data files have different owners"


def test_a_port_that_another_process_has(host: Host) -> None:
    host.listening = ["2181 99 python3 -m http.server 2181", "8080 5 java -jar marathon.jar"]
    host.log("port-taken")
    (finding,) = host.found()
    assert finding.cause == "a port is taken by another process"
    assert "pid 99 (python3 -m http.server 2181) listens at port 2181" in finding.evidence


def test_a_port_that_was_taken_when_it_started(host: Host) -> None:
    host.log("port-taken")
    (finding,) = host.found()
    assert finding.cause == "a port is taken by another process"
    assert "Address already in use" in finding.evidence
    assert finding.remedy == "nobody listens there now: start again (1.2)"


@pytest.mark.parametrize(
    ("case", "cause"),
    [
        ("own-address-elsewhere", "its own server line names an address that the host does not have"),
        ("bad-server-line", "zoo.cfg is not understood"),
        ("no-java", "Java is missing"),
    ],
)
def test_what_only_the_log_tells(host: Host, case: str, cause: str) -> None:
    host.log(case)
    (finding,) = host.found()
    assert finding.cause == cause
    assert finding.evidence.startswith("the log says: ")


@pytest.mark.parametrize(
    ("case", "cause", "remedy"),
    [
        (
            "snapshots-folder-has-logs",
            "transaction logs are in the snapshots' folder",
            "/data/version-2/log.* ",
        ),
        (
            "logs-folder-has-snapshots",
            "snapshots are in the transaction logs' folder",
            "/txns/version-2/snapshot.* ",
        ),
        ("no-such-id", "no server line has its id", "apply 2.2.1 and 2.2.2"),
        ("myid-blank", "myid is not a number", "without blanks"),
        ("epochs", "the data on disk do not fit together", "copy version-2 first"),
        ("members-beside-dynamic", "zoo.cfg has members beside dynamicConfigFile", "take the lines server.N"),
        ("not-in-a-group", "the groups of zoo.cfg do not hold each voting member once", "correct group.N"),
        ("observers-alone", "there are observers and too few voting members", "let at least two"),
        ("permission", "ZooKeeper may not use its files", "chown -R"),
    ],
)
def test_what_a_log_tells_is_not_taken_for_a_stale_pid_file(host: Host, case: str, cause: str, remedy: str) -> None:
    (host.data / "zookeeper_server.pid").write_text("4711")
    txns = host.root / "txns"
    txns.mkdir()
    host.zoo_cfg.write_text(host.zoo_cfg.read_text() + f"dataLogDir={txns}\n")
    host.log(case)
    (finding,) = host.found()
    assert finding.cause == cause
    assert remedy in finding.remedy


@pytest.mark.parametrize(
    ("line", "cause"),
    [
        # BinaryInputArchive.checkLength of 3.4.6 and 3.8; the second is of InvalidSnapshotTest
        ("java.io.IOException: Unreasonable length = 4194304", "a record on disk is longer than jute.maxbuffer"),
        ("java.io.IOException: Unreasonable length = 977468229", "the data on disk are damaged"),
        ("java.io.IOException: Unreasonable length = -17", "the data on disk are damaged"),
        # QuorumPeerConfig.parseProperties of 3.4.6
        ("java.lang.IllegalArgumentException: dataLogDir /srv/x is missing.", "a data folder is missing"),
        ("java.io.FileNotFoundException: /x/version-2/log.1 (Permission denied)", "ZooKeeper may not use its files"),
        ("java.io.IOException: No space left on device", "the disk was full"),
        ("java.lang.UnsupportedClassVersionError: org/apache/zookeeper", "Java is too old for this ZooKeeper"),
        ("Error: Could not find or load main class org.apache.zookeeper.x", "Java does not find ZooKeeper's classes"),
        ("Invalid maximum heap size: -Xmx1Q", "Java refuses its flags"),
        (
            "o.a.z.server.admin.AdminServer$AdminServerException: Problem starting AdminServer",
            "the port of the AdminServer",
        ),
    ],
)
def test_other_lines_that_keep_it_from_starting(host: Host, line: str, cause: str) -> None:
    head = "2026-11-24 21:59:56,983 [myid:] - INFO  [main:QuorumPeerConfig@177] - Reading configuration from: zoo.cfg"
    (host.logs / "zookeeper-root-server-node3.log").write_text(f"{head}\n{line}\n")
    (finding,) = host.found()
    assert finding.cause.startswith(cause)


@pytest.mark.parametrize(
    ("line", "cause"),
    [
        # Follower.followLeader and Learner.registerWithLeader of 3.4.6
        ("java.io.IOException: Error: Epoch of leader is lower", "the leader's history is older than its own"),
        (
            "java.io.IOException: Leaders epoch, 3 is less than accepted epoch, 5",
            "the leader's history is older than its own",
        ),
    ],
)
def test_a_member_that_runs_and_is_ahead_of_its_leader(host: Host, line: str, cause: str) -> None:
    host.processes = {7: JAVA}
    (host.data / "zookeeper_server.pid").write_text("7")
    (host.logs / "zookeeper-root-server-node3.log").write_text(f"Reading configuration from: x\n{line}\n")
    well = host.ask()
    (finding,) = host.found(others={"node1": well, "node2": well})
    assert (finding.cause, finding.remedy[:22]) == (cause, "do not remove its data")


def test_a_name_that_does_not_resolve(host: Host) -> None:
    host.processes = {7: JAVA}
    (host.data / "zookeeper_server.pid").write_text("7")
    host.log("unresolved")
    well = host.ask()
    (finding,) = host.found(others={"node1": well, "node2": well})
    assert finding.cause == "a server line names a host that is not known here"


def test_files_in_the_wrong_folder_are_found_where_the_log_is_gone(host: Host) -> None:
    txns = host.root / "txns"
    txns.mkdir()
    host.zoo_cfg.write_text(host.zoo_cfg.read_text() + f"dataLogDir={txns}\n")
    (finding,) = host.found()
    assert finding.cause == "transaction logs are in the snapshots' folder"
    assert f"log.100000001 in {host.data}/version-2" in finding.evidence
    # the same folder under another name is no other one
    (host.root / "link").symlink_to(host.data)
    host.zoo_cfg.write_text(host.zoo_cfg.read_text().replace(str(txns), f"{host.root}/link/"))
    assert host.causes() == ["ZooKeeper does not run"]


@pytest.mark.parametrize(
    "written",
    [
        lambda text, data: text.replace("\n", "\r\n"),
        lambda text, data: text.replace("\n", "  \t\n"),
        lambda text, data: text.replace("=", " = "),
        lambda text, data: text.replace("=", ": "),
        lambda text, data: text.replace(f"{data}\n", f"{data}/\n"),
        lambda text, data: text.replace(f"{data}\n", f"{data}/../link\n"),
        lambda text, data: text + "server.4=198.51.100.14:2888:3888:observer\ngroup.1=1:2:3\n",
        lambda text, data: text.replace(":3888", ":3888:participant;0.0.0.0:2181"),
    ],
)
def test_zoo_cfg_may_be_written_in_any_way_that_means_the_same(host: Host, written: Callable[[str, Path], str]) -> None:
    (host.root / "link").symlink_to(host.data)
    host.zoo_cfg.write_bytes(written(host.zoo_cfg.read_text(), host.data).encode())
    assert host.causes(serving=True) == []


def test_a_byte_order_mark_takes_the_first_setting_away(host: Host) -> None:
    host.zoo_cfg.write_bytes(
        b"\xef\xbb\xbfclientPort=2181\n" + host.zoo_cfg.read_bytes().replace(b"clientPort=2181\n", b"")
    )
    assert host.causes() == ["zoo.cfg begins with a byte order mark", "clientPort differs from the parameters"]


def test_members_in_a_dynamic_file(host: Host) -> None:
    lines = host.zoo_cfg.read_text().splitlines()
    dynamic = host.conf / "zoo.cfg.dynamic.100000000"
    dynamic.write_text("\n".join(f"{line}:participant;0.0.0.0:2181" for line in lines if line.startswith("server.")))
    static = [line for line in lines if not line.startswith(("server.", "clientPort"))]
    host.zoo_cfg.write_text("\n".join([*static, f"dynamicConfigFile={dynamic}", ""]))
    assert host.causes(serving=True) == []
    dynamic.write_text(dynamic.read_text().replace("100.12", "100.99"))
    (finding,) = host.found(serving=True)
    assert finding.cause == "the list of members is wrong"
    assert finding.evidence.startswith(f"{dynamic} has server.2=198.51.100.99")
    assert "reconfig" in finding.remedy
    dynamic.unlink()
    assert host.causes() == ["the dynamic file is missing"]


def test_a_zookeeper_that_was_started_with_another_file(host: Host) -> None:
    other = host.root / "other.cfg"
    other.write_text("dataDir=/x\n")
    for written, found in (
        (str(other), True),
        ("other.cfg", True),
        (str(host.zoo_cfg), False),
        ("conf/zoo.cfg", False),
    ):
        command = ["sh", "-c", "sleep 60; :", PROCESS, written]
        with subprocess.Popen(command, cwd=host.root, start_new_session=True) as zookeeper:
            (host.data / "zookeeper_server.pid").write_text(str(zookeeper.pid))
            output = host.ask()
            os.killpg(zookeeper.pid, signal.SIGKILL)
        assert (f"runswith={zookeeper.pid} {written}" in output.stdout) is found
        told = f"{output.stdout}\npidprocess={JAVA}\nruns={zookeeper.pid}"
        causes = [one.cause for one in diagnose(host.site, {"node3": Output(told, "", 0)}, frozenset({"node3"}))]
        assert causes == ["ZooKeeper runs with another zoo.cfg"] * found


def test_its_own_name_is_the_loopback(host: Host) -> None:
    output = host.ask()
    lines = f"{output.stdout}\nmaps=node3.example 127.0.1.1 2\nmaps=198.51.100.13 127.0.0.1 3"
    found = diagnose(host.site, {"node3": Output(lines, "", 0)}, frozenset({"node3"}))
    assert [one.cause for one in found] == ["its own name is the loopback"]  # only the name that members call it by
    assert "line 3 maps 198.51.100.13 to 127.0.0.1" in found.of("node3")[0].evidence


def test_what_the_log_says_of_an_earlier_start_does_not_count(host: Host) -> None:
    log = host.logs / "zookeeper-root-server-node3.log"
    log.write_text(said("zookeeper-3.8/logs/log-crc.log") + said("zookeeper-3.8/logs/bad-server-line.log"))
    assert host.causes() == ["zoo.cfg is not understood"]


def test_server_lines_that_differ_between_hosts(host: Host) -> None:
    well = host.ask()
    host.zoo_cfg.write_text(host.zoo_cfg.read_text().replace("server.2=198.51.100.12", "server.2=198.51.100.99"))
    (finding,) = host.found(serving=True, others={"node1": well, "node2": well})
    assert finding.cause == "the list of members is wrong"
    assert "has server.2=198.51.100.99:2888:3888 and should have 198.51.100.12:2888:3888" in finding.evidence
    assert "(as node1, node2)" in finding.evidence


def test_server_lines_that_are_missing_or_too_many(host: Host) -> None:
    text = host.zoo_cfg.read_text().replace("server.3=198.51.100.13:2888:3888\n", "")
    host.zoo_cfg.write_text(text + "server.4=198.51.100.14:2888:3888\n")
    (finding,) = host.found()
    assert "lacks server.3; has server.4=198.51.100.14:2888:3888 and should have none such" in finding.evidence


def test_server_lines_as_3_5_and_later_write_them_are_the_same(host: Host) -> None:
    text = host.zoo_cfg.read_text().replace(":3888\n", ":3888:participant;2181\n")
    host.zoo_cfg.write_text(text)
    assert host.causes(serving=True) == []


def test_no_zoo_cfg(host: Host) -> None:
    host.zoo_cfg.unlink()
    assert host.causes() == ["zoo.cfg is missing"]


def test_a_full_disk(host: Host) -> None:
    output = host.ask()
    lines = [line if not line.startswith("disk=") else f"disk=2048 {host.data}" for line in output.stdout.splitlines()]
    (finding,) = diagnose(host.site, {"node3": Output("\n".join(lines), "", 0)}, frozenset({"node3"}))
    assert finding.cause == "the disk is full"
    assert "2 MB free" in finding.evidence


NOW = 1_780_000_000.0


def clock(ahead: float, asked: float = 0.0, took: float = 0.2) -> Output:
    """The answer, `asked` seconds after NOW and within `took`, of a host whose clock is so many seconds ahead."""
    looked = NOW + asked + took / 2 + ahead
    return Output(f"first={looked}\nlast={looked}", "", 0, sent=NOW + asked, received=NOW + asked + took)


def clocks(host: Host, **answers: Output) -> list[tuple[str, str]]:
    findings = diagnose(host.site, answers, frozenset(answers))
    return [(one.host, one.evidence) for one in findings if one.cause == "the clock is off"]


@pytest.mark.parametrize(("ahead", "said"), [(-3600, "3600 s behind"), (3600, "3600 s ahead of"), (-6, "6 s behind")])
def test_a_clock_that_is_off(host: Host, ahead: float, said: str) -> None:
    found = clocks(host, node1=clock(0), node2=clock(0), node3=clock(ahead))
    assert found == [("node3", f"{said} the other hosts")]


def test_a_host_that_answers_late_has_no_clock_that_is_off(host: Host) -> None:
    assert clocks(host, node1=clock(0), node2=clock(0), node3=clock(0, asked=25.0)) == []
    assert clocks(host, node1=clock(0), node2=clock(0), node3=clock(0, took=50.0)) == []
    assert clocks(host, node1=clock(0, took=50.0), node2=clock(0, took=40.0), node3=clock(0)) == []


def test_the_clock_of_a_late_answer_counts_as_far_as_it_is_sure(host: Host) -> None:
    late = clock(-60, asked=25.0, took=50.0)  # it looked at its clock at any of these 50 s
    assert clocks(host, node1=clock(0), node2=clock(0), node3=late) == [("node3", "35 s behind the other hosts")]


def test_the_probe_s_answer_tells_the_clock(host: Host) -> None:
    answers = {name: host.ask() for name in ("node1", "node2", "node3")}
    assert clocks(host, **answers) == []


def test_one_that_waits_for_a_majority(host: Host) -> None:
    host.processes = {7: JAVA}
    (host.data / "zookeeper_server.pid").write_text("7")
    (finding,) = host.found(others={})
    assert finding.cause == "too few members run"


def test_members_that_cannot_reach_each_other(host: Host) -> None:
    host.processes = {7: JAVA}
    (host.data / "zookeeper_server.pid").write_text("7")
    host.log("no-channel")
    well = host.ask()
    (finding,) = host.found(others={"node1": well, "node2": well})
    assert finding.cause == "members cannot reach each other"
    assert "to node1, node2, where ZooKeeper runs as well" in finding.evidence
    assert "2888 and 3888" in finding.remedy


def test_a_host_that_cannot_be_asked_is_a_finding_too(host: Host) -> None:
    lost = Output(error=HostUnreachable("node1 cannot be reached: No route to host", "check the network"))
    (finding,) = diagnose(host.site, {"node1": lost}, frozenset())
    assert (finding.host, finding.remedy) == ("node1", "check the network")


def test_findings_show_as_a_table_and_as_text(host: Host) -> None:
    (host.data / "myid").unlink()
    findings = diagnose(host.site, {"node3": host.ask()}, frozenset())
    assert "myid is missing" in findings._repr_html_()
    assert str(findings).startswith("ZooKeeper: what keeps members from serving: 1 found\nnode3: myid is missing: ")
    nothing = diagnose(host.site, {}, frozenset())
    assert "nothing found" in nothing._repr_html_()
