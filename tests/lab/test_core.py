"""The SSH core against real sshd, sudo, systemd, yum and rpm: what loopback servers can only imitate."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from asking import Ask

from runbook.errors import ApplyFailed, BecomeFailed, HostKeyChanged, HostTimeout, StepFailed
from runbook.lab import Lab, Node
from runbook.lab.waiting import until
from runbook.remote.hosts import Hosts
from runbook.remote.modes import Mode, Status
from runbook.remote.results import ApplyResult
from runbook.remote.session import ConnectionLost, DeadlinePassed, Login, Session, config, placing
from runbook.remote.shell import Piece
from runbook.remote.steps import (
    Command,
    CommandService,
    Directory,
    File,
    Package,
    Rpm,
    Service,
    Step,
    Upload,
)
from runbook.site import Site

pytestmark = pytest.mark.lab

OK, CHANGED, FAILED = Status.OK, Status.CHANGED, Status.FAILED
SKIPPED, UNREACHABLE = Status.SKIPPED, Status.UNREACHABLE
PLACE = "/etc/runbook-core-test"

SiteOf = Callable[..., Site]


@pytest.fixture
def site_of(lab: Lab, tmp_path: Path) -> SiteOf:
    """The lab's nodes as a site, reached with `ssh` (as in a parameter file) and only those that are named."""

    def site(*names: str, **ssh: Any) -> Site:
        data = {
            "name": "core",
            "ssh": {
                "user": "root",
                "key": str(lab.folder.user_key),
                "known_hosts": str(lab.folder.known_hosts),
                **ssh,
            },
            "hosts": [
                {"name": node.name, "address": node.address, "roles": ["docker"]}
                for node in lab.nodes
                if not names or node.name in names
            ],
        }
        return Site.parse(yaml.safe_dump(data), tmp_path / "site.yml")

    return site


@contextmanager
def opened(site: Site, name: str) -> Iterator[Session]:
    session = Session(name, Login.of(next(host for host in site.hosts if host.name == name)), config())
    try:
        yield session
    finally:
        session.close()


@pytest.fixture
def node(lab: Lab, ask: Ask) -> Iterator[Node]:
    """A node on which the tests of this file left nothing."""
    yield from _clean(lab.nodes[0], ask)


@pytest.fixture
def nodes(lab: Lab, ask: Ask) -> Iterator[tuple[Node, ...]]:
    """All nodes, likewise."""
    cleaned = [_clean(node, ask) for node in lab.nodes]
    yield tuple(next(one) for one in cleaned)
    for one in cleaned:
        next(one, None)


def _clean(node: Node, ask: Ask) -> Iterator[Node]:
    remove = (
        "systemctl disable --now runbook-rehearsal core-test zookeeper-core-test 2>/dev/null; "
        "rpm -q runbook-rehearsal >/dev/null && rpm -e runbook-rehearsal; "
        f"rm -rf {PLACE} /etc/systemd/system/core-test.service; systemctl daemon-reload; systemctl reset-failed; true"
    )
    ask(node, remove)
    yield node
    ask(node, remove)


def once(name: str, script: str = ":", **options: Any) -> Command:
    """A command that notes each of its runs, and that must run once."""
    made = f"{PLACE}/{name}"
    return Command(
        name,
        f"test -e {made}.done",
        f"mkdir -p {PLACE}; echo run >> {made}.runs; {script}; touch {made}.done\n",
        **options,
    )


def statuses(result: object) -> dict[str, list[Status]]:
    assert isinstance(result, ApplyResult)
    return {host: [one.status for one in result if one.host == host] for host in result.hosts}


def failed(call: Callable[[], object]) -> ApplyFailed:
    with pytest.raises(ApplyFailed) as failure:
        call()
    return failure.value


# becoming root


@pytest.fixture
def password(lab: Lab) -> str:
    return lab.folder.operator_password.read_text()


def operator(lab: Lab) -> dict[str, str]:
    return {"user": "operator", "become": "sudo", "become_password": f"file:{lab.folder.operator_password}"}


@pytest.mark.parametrize("who", ["root", "operator", "deploy", "deploy with a password that nobody asks for"])
def test_every_way_to_become_root(lab: Lab, node: Node, ask: Ask, site_of: SiteOf, who: str) -> None:
    ssh = {
        "root": {},
        "operator": operator(lab),
        "deploy": {"user": "deploy", "become": "sudo"},
        "deploy with a password that nobody asks for": {**operator(lab), "user": "deploy"},
    }[who]
    steps: list[Step] = [
        Directory(PLACE, mode="0700"),
        File(f"{PLACE}/file", "a\n", mode="0600", owner="operator", group="users"),
        Command("who", f"test -e {PLACE}/who", f"{{ id -un; cat; }} > {PLACE}/who\n"),
    ]
    with Hosts.of(site_of(node.name, **ssh), mode=Mode.APPLY) as hosts:
        assert statuses(hosts.apply(steps)) == {node.name: [CHANGED] * 3}
        assert statuses(hosts.apply(steps)) == {node.name: [OK] * 3}
    assert ask(node, f"cat {PLACE}/who") == "root"  # and nothing came on its standard input
    assert ask(node, f"stat -c '%a %U:%G' {PLACE}/file") == "600 operator:users"


def test_an_artifact_is_uploaded_by_who_logs_in_and_becomes_roots(
    lab: Lab, node: Node, ask: Ask, site_of: SiteOf
) -> None:
    rpm = next(lab.folder.packages.rglob("runbook-rehearsal-1.0-1*.rpm"))
    digest = hashlib.sha256(rpm.read_bytes()).hexdigest()
    with Hosts.of(site_of(node.name, **operator(lab)), mode=Mode.APPLY) as hosts:
        result = hosts.apply([Rpm("runbook-rehearsal", "1.0-1", rpm, digest)])
    assert statuses(result) == {node.name: [CHANGED]}
    placed = ask(node, f"stat -c '%a %U' /var/lib/runbook/artifacts/{digest}/*")
    assert placed == "644 root"
    assert ask(node, "ls -A /home/operator/.cache/runbook") == ""


def sudo_failures(node: Node, ask: Ask) -> int:
    """Attempts with a wrong password, as the node's sudo logged them."""
    log = ask(node, "journalctl -q --no-pager _COMM=sudo || true")
    return log.count("incorrect password attempt")


def test_a_wrong_password_is_one_failed_attempt(
    lab: Lab, node: Node, ask: Ask, site_of: SiteOf, tmp_path: Path
) -> None:
    wrong = tmp_path / "wrong"
    wrong.write_text("not-the-password")
    wrong.chmod(0o600)
    before = sudo_failures(node, ask)
    site = site_of(node.name, user="operator", become="sudo", become_password=f"file:{wrong}")
    told = r"(?s)sudo refused operator: .*1 incorrect password attempt"
    with opened(site, node.name) as session, pytest.raises(BecomeFailed, match=told) as refused:
        session.execute([Piece("0", f"mkdir {PLACE}\n" * 100)], time.monotonic() + 60)
    assert "not-the-password" not in str(refused.value)
    until(lambda: sudo_failures(node, ask) > before, seconds=10)
    last = ask(node, "journalctl -q --no-pager _COMM=sudo | grep 'incorrect password' | tail -n 1")
    assert " 1 incorrect password attempt " in last
    assert sudo_failures(node, ask) == before + 1
    assert ask(node, f"test ! -e {PLACE} && echo untouched") == "untouched"


def test_a_password_that_is_asked_for_and_not_configured(node: Node, ask: Ask, site_of: SiteOf) -> None:
    before = sudo_failures(node, ask)
    error = failed(
        lambda: Hosts.of(site_of(node.name, user="operator", become="sudo"), mode=Mode.APPLY).apply([once("a")])
    )
    assert "sudo asks for a password, and none is configured" in error.message
    assert sudo_failures(node, ask) == before


def test_the_password_is_in_no_process_list_log_or_output(
    lab: Lab, node: Node, ask: Ask, site_of: SiteOf, password: str
) -> None:
    with Hosts.of(site_of(node.name, **operator(lab)), mode=Mode.APPLY) as hosts:
        seen: list[str] = []
        during = threading.Thread(target=lambda: seen.append(_processes_once_it_runs(node, ask)))
        during.start()
        result = hosts.apply([once("a", f"touch {PLACE}/running; sleep 3; env; cat /proc/$$/cmdline; cat")])
        during.join()
        answer = hosts.run("env; cat; env >&2")[node.name]
    assert "sudo" in seen[0]
    logs = ask(node, "journalctl -q --no-pager -n 2000; cat /var/log/*log /var/log/messages 2>/dev/null; true")
    for text in (seen[0], logs, answer.stdout, answer.stderr, str(result), repr(result)):
        assert text
        assert password not in text


def _processes_once_it_runs(node: Node, ask: Ask) -> str:
    return ask(
        node,
        f"while [ ! -e {PLACE}/running ]; do sleep 0.1; done; "
        "for p in /proc/[0-9]*; do tr '\\0' ' ' < $p/cmdline; tr '\\0' ' ' < $p/environ; echo; done 2>/dev/null; true",
    )


# packages and services


def started(node: Node, ask: Ask) -> str:
    return ask(node, "systemctl show -p MainPID,NRestarts runbook-rehearsal")


def service_steps(content: str = "a\n", version: str | None = None) -> list[Step]:
    return [
        Directory(PLACE),
        File(f"{PLACE}/rehearsal.conf", content),
        Package("runbook-rehearsal", version),
        Service("runbook-rehearsal", restart_if_newer=(f"{PLACE}/rehearsal.conf",)),
    ]


def test_a_package_its_file_and_its_service(node: Node, ask: Ask, site_of: SiteOf) -> None:
    with Hosts.of(site_of(node.name), mode=Mode.APPLY) as hosts:
        assert statuses(hosts.apply(service_steps())) == {node.name: [CHANGED] * 4}
        assert (
            ask(node, "systemctl is-active runbook-rehearsal; systemctl is-enabled runbook-rehearsal")
            == "active\nenabled"
        )
        first = started(node, ask)
        assert statuses(hosts.apply(service_steps())) == {node.name: [OK] * 4}
        assert started(node, ask) == first  # a run that changes nothing restarts nothing
        result = hosts.apply(service_steps("b\n"))
        assert statuses(result) == {node.name: [OK, CHANGED, OK, CHANGED]}
        assert result.results[3].summary == "restart"
        second = started(node, ask)
        assert second != first
        assert statuses(hosts.apply(service_steps("b\n"))) == {node.name: [OK] * 4}
        assert started(node, ask) == second


def test_a_run_that_died_before_it_could_restart_is_mended_by_the_next(node: Node, ask: Ask, site_of: SiteOf) -> None:
    with Hosts.of(site_of(node.name), mode=Mode.APPLY) as hosts:
        hosts.apply(service_steps())
        first = started(node, ask)
        hosts.apply(service_steps("b\n")[:2])  # and here it died
        result = hosts.apply(service_steps("b\n"))
        assert statuses(result) == {node.name: [OK, OK, OK, CHANGED]}
        assert result.results[3].diff == f"-configuration: older than {PLACE}/rehearsal.conf\n+configuration: current\n"
    assert started(node, ask) != first


def test_packages_go_up_and_down_to_the_wanted_version(node: Node, ask: Ask, site_of: SiteOf) -> None:
    with Hosts.of(site_of(node.name), mode=Mode.APPLY) as hosts:
        for version, summary in (
            ("1.0-1", "install runbook-rehearsal"),
            ("1.1-1", "replace 1.0-1 by 1.1-1"),
            ("1.0-1", "replace 1.1-1 by 1.0-1"),
        ):
            result = hosts.apply([Package("runbook-rehearsal", version)])
            assert [(one.status, one.summary) for one in result] == [(CHANGED, summary)]
            assert ask(node, "cat /usr/share/runbook-rehearsal/version") == f"runbook-rehearsal {version[:3]}"
            assert statuses(hosts.apply([Package("runbook-rehearsal")])) == {node.name: [OK]}
        error = failed(lambda: hosts.apply([Package("runbook-rehearsal", "9.9-1")]))
        assert "runbook-rehearsal-9.9-1" in error.message
        error = failed(lambda: hosts.apply([Package("no-such-package")]))
        assert "no-such-package" in error.message


def test_rpms_go_up_and_down_to_the_wanted_version(lab: Lab, node: Node, ask: Ask, site_of: SiteOf) -> None:
    def rpm(version: str) -> Rpm:
        file = next(lab.folder.packages.rglob(f"runbook-rehearsal-{version}*.rpm"))
        return Rpm("runbook-rehearsal", version, file, hashlib.sha256(file.read_bytes()).hexdigest())

    with Hosts.of(site_of(node.name), mode=Mode.APPLY) as hosts:
        for version in ("1.0-1", "1.1-1", "1.0-1"):
            assert statuses(hosts.apply([rpm(version)])) == {node.name: [CHANGED]}
            assert ask(node, "rpm -q --qf '%{VERSION}-%{RELEASE}' runbook-rehearsal") == version
            assert statuses(hosts.apply([rpm(version)])) == {node.name: [OK]}
        assert hosts.apply([rpm("1.1-1")]).results[0].summary.startswith("install ")  # it was staged before


def unit(command: str, more: str = "") -> File:
    return File(
        "/etc/systemd/system/core-test.service",
        f"[Service]\nExecStart={command}\n{more}\n[Install]\nWantedBy=multi-user.target\n",
    )


@pytest.mark.parametrize(
    ("command", "more"),
    [
        ("/bin/false", ""),
        ("/bin/sh -c 'sleep 0.7; echo the flag is unknown; exit 1'", "Restart=always\nRestartSec=0.2"),
        ("/bin/sh -c 'sleep 0.7; echo the flag is unknown; exit 1'", "Restart=always\nRestartSec=20"),
    ],
    ids=["at once", "again and again", "and starts again later"],
)
def test_a_service_that_dies_at_once_has_not_started(node: Node, site_of: SiteOf, command: str, more: str) -> None:
    """mesos-slave with an unknown flag: `systemctl restart` succeeds, and the process ends within a second."""
    service = Service("core-test", restart_if_newer=("/etc/systemd/system/core-test.service",))
    with Hosts.of(site_of(node.name), mode=Mode.APPLY) as hosts:
        error = failed(lambda: hosts.apply([unit(command, more), service]))
        assert statuses(error.result) == {node.name: [CHANGED, FAILED]}
        assert "core-test.service" in error.message
        if "flag" in command:
            assert "the flag is unknown" in error.message  # the end of its log says why
        # even where systemd starts it by itself between the two steps: that is the program of before
        assert statuses(hosts.apply([unit("/bin/sleep infinity"), service])) == {node.name: [CHANGED] * 2}
        assert statuses(hosts.apply([unit("/bin/sleep infinity"), service])) == {node.name: [OK] * 2}
        assert statuses(hosts.apply([Service("core-test", running=False, enabled=False)])) == {node.name: [CHANGED]}
        assert statuses(hosts.apply([Service("core-test", running=False, enabled=False)])) == {node.name: [OK]}


def test_a_service_that_systemd_started_from_the_unit_of_before_is_restarted(
    node: Node, ask: Ask, site_of: SiteOf
) -> None:
    """Its process is younger than the unit's file, and yet it is not what the file says."""
    before, after = (unit(f"/bin/sleep {seconds}", "Restart=always\nRestartSec=0") for seconds in (7001, 7002))
    service = Service("core-test", restart_if_newer=(after.path,))
    main = "systemctl show -p MainPID core-test | cut -d= -f2"
    command = f"ps -o args= -p $({main})"
    with Hosts.of(site_of(node.name), mode=Mode.APPLY) as hosts:
        hosts.apply([before, service])
        ended = ask(node, main)
        ask(node, f"sed -i s/7001/7002/ {after.path}; kill -9 {ended}")
        until(lambda: ask(node, main) not in (ended, "0"), seconds=10)
        assert ask(node, command) == "/bin/sleep 7001"
        assert statuses(hosts.apply([after, service])) == {node.name: [OK, CHANGED]}
        assert ask(node, command) == "/bin/sleep 7002"
        assert statuses(hosts.apply([after, service])) == {node.name: [OK, OK]}


def test_a_masked_service_and_one_that_is_not_there(node: Node, ask: Ask, site_of: SiteOf) -> None:
    with Hosts.of(site_of(node.name), mode=Mode.APPLY) as hosts:
        assert "systemd knows no service nowhere" in failed(lambda: hosts.apply([Service("nowhere")])).message
        assert "is masked" in failed(lambda: hosts.apply([Service("systemd-logind")])).message
        assert statuses(hosts.apply([Service("nowhere", running=False, enabled=False)])) == {node.name: [OK]}


ZK_SERVER = "/usr/hdp/2.4.0.0-169/zookeeper/bin/zkServer.sh"


def test_a_real_zookeeper_under_its_own_script(node: Node, ask: Ask, site_of: SiteOf) -> None:
    """zkServer.sh 3.4.6: `start` returns before the JVM has read its configuration, `stop` is kill -9."""

    def steps(port: str = "21819", running: bool = True) -> list[Step]:
        settings = f"dataDir={PLACE}/data\nclientPort={port}\nclientPortAddress=127.0.0.1\nadmin.enableServer=false\n"
        return [
            Directory(f"{PLACE}/data"),
            File(f"{PLACE}/zoo.cfg", settings),
            CommandService(
                "zookeeper",
                ["env", f"ZOO_LOG_DIR={PLACE}/logs", ZK_SERVER, "start", f"{PLACE}/zoo.cfg"],
                [ZK_SERVER, "stop", f"{PLACE}/zoo.cfg"],
                f"{PLACE}/data/zookeeper_server.pid",
                "QuorumPeerMain",
                restart_if_newer=(f"{PLACE}/zoo.cfg",),
                running=running,
                timeout=8,
            ),
        ]

    pid = f"cat {PLACE}/data/zookeeper_server.pid"
    with Hosts.of(site_of(node.name), mode=Mode.APPLY) as hosts:
        try:
            assert statuses(hosts.apply(steps())) == {node.name: [CHANGED] * 3}
            first = ask(node, pid)
            assert statuses(hosts.apply(steps())) == {node.name: [OK] * 3}
            assert ask(node, pid) == first
            result = hosts.apply(steps("21820"))
            assert (result.results[2].summary, ask(node, pid) != first) == ("restart", True)
            assert statuses(hosts.apply(steps("21820"))) == {node.name: [OK] * 3}
            error = failed(lambda: hosts.apply(steps("no-port")))  # the JVM reads it, and ends
            assert "ended as soon as it had started" in error.message or "did not start" in error.message
        finally:
            ask(node, f"kill -9 $({pid}) 2>/dev/null; true")
        ask(node, f"sleep 600 >/dev/null 2>&1 & printf %s $! > {PLACE}/data/zookeeper_server.pid")
        error = failed(lambda: hosts.apply(steps("21819")))  # its start says 'already running', and exits 0
        assert "which is another program: sleep" in error.message
        ask(node, f"kill $({pid})")


# hosts that hang and connections that break


def test_a_node_that_is_paused_is_left_at_its_deadline_and_the_others_complete(
    lab: Lab, nodes: tuple[Node, ...], ask: Ask, site_of: SiteOf
) -> None:
    container = lab.engine.client.containers.get(nodes[1].container)
    steps = [once("a"), once("b", f"touch {PLACE}/running; sleep 2"), once("c")]

    def pause() -> None:
        ask(nodes[1], f"while [ ! -e {PLACE}/running ]; do sleep 0.1; done")
        container.pause()

    pausing = threading.Thread(target=pause)
    pausing.start()
    began = time.monotonic()
    try:
        with Hosts.of(site_of(), mode=Mode.APPLY) as hosts:
            error = failed(lambda: hosts.apply(steps, deadline=8))
            took = time.monotonic() - began
    finally:
        pausing.join()
        container.unpause()
    assert statuses(error.result) == {
        nodes[0].name: [CHANGED] * 3,
        nodes[1].name: [CHANGED, UNREACHABLE, UNREACHABLE],
        nodes[2].name: [CHANGED] * 3,
    }
    assert took < 14
    assert "did not finish within its deadline" in error.message
    assert "it was at 'b'" in error.message
    with Hosts.of(site_of(), mode=Mode.APPLY) as hosts:
        hosts.apply(steps)
    assert ask(nodes[1], f"cat {PLACE}/b.runs") == "run"


@pytest.mark.parametrize("who", ["root", "operator"])
def test_the_sshd_of_a_node_is_killed_in_the_middle(lab: Lab, node: Node, ask: Ask, site_of: SiteOf, who: str) -> None:
    """The script is taken up where it stopped, once what it was at has ended; nothing is done twice."""
    steps = [once("a"), once("b", f"touch {PLACE}/running; sleep 3"), once("c")]

    def kill() -> None:
        ask(node, f"while [ ! -e {PLACE}/running ]; do sleep 0.1; done; pkill -9 sshd")

    killing = threading.Thread(target=kill)
    killing.start()
    with Hosts.of(site_of(node.name, **(operator(lab) if who == "operator" else {})), mode=Mode.APPLY) as hosts:
        result = hosts.apply(steps)
    killing.join()
    assert statuses(result) == {node.name: [CHANGED] * 3}
    assert ask(node, f"cat {PLACE}/a.runs {PLACE}/b.runs {PLACE}/c.runs").split() == ["run"] * 3


@pytest.mark.parametrize("who", ["root", "operator"])
def test_what_is_still_at_work_after_a_deadline_is_waited_for(
    lab: Lab, node: Node, ask: Ask, site_of: SiteOf, who: str
) -> None:
    steps = [once("a", "sleep 4"), once("b")]
    site = site_of(node.name, **(operator(lab) if who == "operator" else {}))
    with Hosts.of(site, mode=Mode.APPLY) as hosts:
        failed(lambda: hosts.apply(steps, deadline=2))
    with Hosts.of(site, mode=Mode.APPLY) as hosts:
        assert statuses(hosts.apply(steps)) == {node.name: [CHANGED] * 2}
    assert ask(node, f"cat {PLACE}/a.runs {PLACE}/b.runs").split() == ["run"] * 2
    assert ask(node, "ls -A /var/lib/runbook/staging 2>/dev/null; true") == ""


def test_an_upload_of_50_mb_is_resumed(lab: Lab, node: Node, ask: Ask, site_of: SiteOf, tmp_path: Path) -> None:
    content = os.urandom(1 << 20) * 50
    digest = hashlib.sha256(content).hexdigest()
    (tmp_path / "image.tar").write_bytes(content)
    upload = Upload(tmp_path / "image.tar", digest, f"{PLACE}/image.tar")
    told: list[int] = []

    def break_off(done: int, total: int) -> None:
        told.append(done)
        if done > total / 2 and len(told) == done >> 18:
            ask(node, "pkill -9 sshd || [ $? = 1 ]")  # 1: none runs, for what was sent before is still told of

    deadline = time.monotonic() + 240
    with opened(site_of(node.name), node.name) as session:
        with pytest.raises(ConnectionLost, match=r"image\.tar|connection was lost"):
            session.upload(upload, deadline, break_off)
        ask(node, "n=0; until ss -Hltn sport = :22 | grep -q .; do n=$((n+1)); [ $n -lt 300 ]; sleep 0.1; done")
        there = int(ask(node, f"stat -c %s /root/.cache/runbook/{digest}"))
        assert 0 < there < len(content)
        told.clear()
        arrived = session.upload(upload, deadline, lambda done, total: told.append(done))
        assert told[0] > there
        frame = session.execute([Piece("0", placing(upload, arrived))], deadline).frames["0"]
        assert (frame.status, frame.err) == (0, "")
    assert ask(node, f"sha256sum < {PLACE}/image.tar").split()[0] == digest


# gateways and host keys


def test_a_gateway(lab: Lab, nodes: tuple[Node, ...], ask: Ask, site_of: SiteOf) -> None:
    gateway = {"address": nodes[0].address, "user": "deploy", "key": str(lab.folder.user_key)}
    with Hosts.of(site_of(nodes[1].name, nodes[2].name, gateway=gateway), mode=Mode.APPLY) as hosts:
        assert statuses(hosts.apply([once("a")])) == {nodes[1].name: [CHANGED], nodes[2].name: [CHANGED]}
        came_from = {answer.stdout.split()[0] for answer in hosts.run("echo $SSH_CONNECTION").values()}
    assert came_from == {nodes[0].address}


def test_another_nodes_key_is_refused(lab: Lab, nodes: tuple[Node, ...], site_of: SiteOf, tmp_path: Path) -> None:
    lines = lab.folder.known_hosts.read_text().splitlines()
    other = next(line.split(maxsplit=1)[1] for line in lines if nodes[1].address in line)
    (tmp_path / "known").write_text(f"{nodes[0].address} {other}\n")
    site = site_of(nodes[0].name, known_hosts=str(tmp_path / "known"))
    with opened(site, nodes[0].name) as session, pytest.raises(HostKeyChanged, match=r"SHA256:.* instead of .*SHA256:"):
        session.connect()


def test_a_deadline_is_kept_on_a_real_host(node: Node, site_of: SiteOf) -> None:
    began = time.monotonic()
    with opened(site_of(node.name), node.name) as session:
        with pytest.raises(DeadlinePassed) as hung:
            session.execute([Piece("0", "sleep 60")], time.monotonic() + 2)
        assert isinstance(hung.value, HostTimeout)
        assert time.monotonic() - began < 6
        with pytest.raises(StepFailed, match="the host's shell did something unexpected"):
            session.execute([Piece("0", "if")], time.monotonic() + 10)
