"""Steps on many hosts over SSH: every host's results are kept, whatever happens to the others."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fleet import Fleet, deadlines_pass, keep_state_at_home, running
from sshserver import Faults

from runbook import events, secrets
from runbook.errors import (
    ApplyFailed,
    AuthenticationRefused,
    CheckFailed,
    GateRefused,
    RecordError,
)
from runbook.remote import engine, session
from runbook.remote import hosts as hosts_module
from runbook.remote.checks import Evidence
from runbook.remote.hosts import Hosts
from runbook.remote.modes import Mode, Status
from runbook.remote.results import ApplyResult
from runbook.remote.steps import Change, Command, File, Line, Package, Rpm, Service, Step
from runbook.site import HostParameters

OK, CHANGED, WOULD = Status.OK, Status.CHANGED, Status.WOULD_CHANGE
FAILED, SKIPPED, UNREACHABLE = Status.FAILED, Status.SKIPPED, Status.UNREACHABLE

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="the hosts are this machine, and only root gives files away")


@pytest.fixture
def fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Fleet]:
    keep_state_at_home(monkeypatch)
    with running(tmp_path, 3) as fleet:
        yield fleet


@pytest.fixture
def told() -> Iterator[list[events.Event]]:
    seen: list[events.Event] = []
    unsubscribe = events.subscribe(seen.append)
    yield seen
    unsubscribe()


def once(name: str, script: str = ":", seconds: float = 0.0, **options: Any) -> Command:
    """A command that notes each of its runs, and that must run once: what it does is not safe to do again."""
    return Command(
        name,
        f"test -e {name}.done",
        f"echo run >> {name}.runs; sleep {seconds}; {script}; touch {name}.done\n",
        **options,
    )


def runs(fleet: Fleet, host: str, name: str) -> int:
    path = fleet[host].home / f"{name}.runs"
    return len(path.read_text().splitlines()) if path.exists() else 0


def statuses(result: ApplyResult) -> dict[str, list[Status]]:
    return {host: [one.status for one in result if one.host == host] for host in result.hosts}


def failure(call: Callable[[], object]) -> tuple[ApplyFailed, dict[str, list[Status]]]:
    with pytest.raises(ApplyFailed) as failed:
        call()
    result = failed.value.result
    assert isinstance(result, ApplyResult)
    return failed.value, statuses(result)


def file_on(fleet: Fleet, content: str = "a\n", name: str = "file") -> Callable[[HostParameters], list[Step]]:
    return lambda host: [File(str(fleet.home(host) / name), content)]


# the modes


def test_apply_changes_what_differs_and_then_nothing(fleet: Fleet, told: list[events.Event]) -> None:
    with fleet.hosts() as hosts:
        result = hosts.apply(file_on(fleet), "files")
        assert (result.name, statuses(result)) == ("files", {f"node{n}": [CHANGED] for n in (1, 2, 3)})
        assert [(fleet.home(host) / "file").read_text() for host in hosts] == ["a\n"] * 3
        assert statuses(hosts.apply(file_on(fleet))) == {f"node{n}": [OK] for n in (1, 2, 3)}
    assert [len(server.commands) for server in fleet.servers.values()] == [3, 3, 3]  # 2 the first time, 1 the second
    assert [server.connections for server in fleet.servers.values()] == [1, 1, 1]
    rows = [event for event in told if event["event"] == "step"]
    assert [row["status"] for row in rows] == ["changed"] * 3 + ["ok"] * 3
    assert "+a" in rows[0]["diff"]


@pytest.mark.parametrize("mode", [Mode.PLAN, Mode.VERIFY])
def test_plan_and_verify_change_nothing_and_show_the_difference(fleet: Fleet, mode: Mode) -> None:
    with fleet.hosts(mode) as hosts:
        result = hosts.apply(lambda host: [*file_on(fleet)(host), once("command")])
    assert statuses(result) == {f"node{n}": [WOULD, WOULD] for n in (1, 2, 3)}
    assert all("+a" in one.diff for one in result if one.step.startswith("file"))
    for server in fleet.servers.values():
        assert sorted(path.name for path in server.home.iterdir()) == ["bin"]
        assert len(server.commands) == 1


def test_a_record_names_the_backups(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNBOOK_RECORD", "/somewhere/outputs/20261124T000000Z it's")
    with fleet.hosts() as hosts:
        for content in ("one", "two"):
            hosts.only("node1").apply(file_on(fleet, content))
    backup = f"{fleet['node1'].home}/state/backup/20261124T000000Z it's{fleet['node1'].home}/file"
    assert Path(backup).read_text() == "one"


def test_a_call_without_steps_reaches_nobody(fleet: Fleet) -> None:
    with fleet.hosts() as hosts:
        result = hosts.apply(lambda host: [once("command")] if host.name == "node2" else [])
        assert statuses(result) == {"node2": [CHANGED]}
        assert hosts.apply([]).results == ()
        assert hosts.only().apply([once("other")]).results == ()
    assert [server.connections for server in fleet.servers.values()] == [0, 1, 0]


def test_two_steps_of_one_name_are_refused_before_anything_is_done(fleet: Fleet) -> None:
    with fleet.hosts() as hosts, pytest.raises(ValueError, match="more than one step is called 'lines in /etc/x'"):
        hosts.apply([once("command"), Line("/etc/x", "a"), Line("/etc/x", "b")])
    assert fleet["node1"].connections == 0


def test_questions_are_answered_by_host_and_in_order(fleet: Fleet) -> None:
    fleet["node2"].faults.refuse_key = True
    with fleet.hosts() as hosts:
        answers = hosts.run("pwd; echo no >&2; exit 3")
    assert list(answers) == ["node1", "node2", "node3"]
    assert answers["node1"].stdout == f"{fleet['node1'].home}\n"
    assert (answers["node1"].stderr, answers["node1"].status, answers["node1"].ok) == ("no\n", 3, False)
    assert isinstance(answers["node2"].error, AuthenticationRefused)
    assert not answers["node2"].ok


def test_connections_are_shared_by_selections_and_closed_at_the_end(fleet: Fleet) -> None:
    with fleet.hosts() as hosts:
        for some in (hosts, hosts.having("docker"), hosts.only("node1")):
            some.run(":")
    assert [server.connections for server in fleet.servers.values()] == [1, 1, 1]
    deadline = time.monotonic() + 10
    while any(thread.name.startswith("host") for thread in threading.enumerate()):
        assert time.monotonic() < deadline


# one host's trouble


def test_each_host_ends_as_it_must_and_all_results_are_kept(fleet: Fleet, told: list[events.Event]) -> None:
    fleet["node2"].faults.refuse_key = True
    fleet.know([fleet["node1"], fleet["node2"]])
    with fleet.hosts() as hosts:
        error, result = failure(lambda: hosts.apply([once("a"), once("b")], "both"))
    assert result == {"node1": [CHANGED] * 2, "node2": [UNREACHABLE] * 2, "node3": [UNREACHABLE] * 2}
    assert error.message.startswith("both: 2 of 3 hosts failed\n")
    assert "node2: root@127.0.0.2" in error.message
    assert "SHA256:" in error.message
    assert "ssh-keygen -lf" in error.message
    assert len([event for event in told if event["event"] == "step"]) == 6


def test_a_failing_step_ends_its_host_there(fleet: Fleet) -> None:
    bad = once("bad", "echo out; echo 'no space' >&2; [ $(basename $PWD) != node2 ] || exit 4")
    with fleet.hosts() as hosts:
        error, result = failure(lambda: hosts.apply([once("a"), bad, once("c")]))
    assert result == {"node1": [CHANGED] * 3, "node2": [CHANGED, FAILED, SKIPPED], "node3": [CHANGED] * 3}
    assert "node2: bad: run: no space" in error.message
    assert [runs(fleet, "node2", name) for name in ("a", "bad", "c")] == [1, 1, 0]


def test_a_step_that_fails_without_a_word_tells_its_status(fleet: Fleet) -> None:
    with fleet.hosts() as hosts:
        error, _ = failure(lambda: hosts.only("node1").apply([Command("mute", "false", "exit 4")]))
    assert "node1: mute: run: ended with status 4" in error.message


def test_a_change_without_effect_is_a_failure(fleet: Fleet) -> None:
    with fleet.hosts() as hosts:
        error, _ = failure(lambda: hosts.only("node1").apply([Command("idle", "echo still so; false", "true")]))
    assert "still does not show the desired state" in error.message
    assert "-still so" in error.message


@pytest.mark.parametrize("mode", list(Mode))
def test_a_state_that_must_not_be_touched_fails_its_step_and_no_other(fleet: Fleet, mode: Mode) -> None:
    home = fleet["node1"].home
    (home / "link").symlink_to("elsewhere")
    with fleet.hosts(mode) as hosts:
        error, result = failure(
            lambda: hosts.only("node1").apply([File(f"{home}/a", "x"), File(f"{home}/link", "x"), once("c")])
        )
    assert result == {"node1": [CHANGED if mode is Mode.APPLY else WOULD, FAILED, SKIPPED]}
    assert f"node1: file {home}/link: {home}/link is a symbolic link to elsewhere" in error.message


class Unknowable(Command):
    """A step whose probe fails."""

    def probe(self) -> str:
        return "echo 'cannot open it' >&2; exit 5"


@pytest.mark.parametrize("mode", list(Mode))
def test_a_probe_that_fails_is_the_failure_of_its_own_step(fleet: Fleet, mode: Mode) -> None:
    with fleet.hosts(mode) as hosts:
        steps = [File(f"{fleet['node1'].home}/a", "x"), Unknowable("b", "true", "true"), once("c")]
        error, result = failure(lambda: hosts.only("node1").apply(steps))
    assert result == {"node1": [CHANGED if mode is Mode.APPLY else WOULD, FAILED, SKIPPED]}
    assert "node1: b: the present state cannot be found out: cannot open it" in error.message


def test_a_mistake_in_the_code_of_a_step_is_loud_and_nothing_is_done(fleet: Fleet) -> None:
    class Mistaken(Command):
        def plan(self, state: str, pending: frozenset[str] = frozenset()) -> Change | None:
            raise ZeroDivisionError

    def steps(host: HostParameters) -> list[Step]:
        return [Mistaken("a", "true", "true")] if host.name == "node2" else [once("a")]

    with fleet.hosts() as hosts, pytest.raises(ZeroDivisionError):
        hosts.apply(steps)
    assert [runs(fleet, f"node{n}", "a") for n in (1, 2, 3)] == [0, 0, 0]


@pytest.mark.parametrize("names", ["a", "ab"])
def test_what_cannot_be_recorded_ends_the_call(fleet: Fleet, names: str) -> None:
    def full(event: events.Event) -> None:
        if event["event"] == "step":
            raise RecordError("cannot write the journal: No space left on device")

    unsubscribe = events.subscribe(full)
    try:
        with fleet.hosts() as hosts, pytest.raises(RecordError, match="No space left"):
            hosts.only("node1").apply([once(name) for name in names])
    finally:
        unsubscribe()


# hosts that hang or break off


def test_a_host_that_hangs_is_left_and_the_others_complete(fleet: Fleet) -> None:
    stuck = once("stuck", "[ $(basename $PWD) != node2 ] || sleep 60")
    began = time.monotonic()
    with fleet.hosts() as hosts:
        error, result = failure(lambda: hosts.apply([once("a"), stuck, once("c")], deadline=10))
    assert time.monotonic() - began < 40
    assert result == {"node1": [CHANGED] * 3, "node2": [CHANGED, UNREACHABLE, UNREACHABLE], "node3": [CHANGED] * 3}
    assert "node2: node2 did not finish within its deadline" in error.message
    assert "it was at 'stuck'" in error.message
    assert "there may still be at work" in error.message


def test_what_a_wave_had_done_before_it_hung_is_not_forgotten(fleet: Fleet) -> None:
    home = fleet["node1"].home
    steps = [File(f"{home}/a", "x"), File(f"{home}/b", "x"), once("stuck", "sleep 60"), once("next")]
    with fleet.hosts() as hosts, deadlines_pass((home / "stuck.runs").exists):
        _, result = failure(lambda: hosts.only("node1").apply(steps))
    assert result == {"node1": [CHANGED, CHANGED, UNREACHABLE, UNREACHABLE]}


def test_a_host_whose_probe_hangs_names_the_step(fleet: Fleet) -> None:
    hanging = Command("b", "touch asked; sleep 60", "true")
    with fleet.hosts() as hosts, deadlines_pass((fleet["node1"].home / "asked").exists):
        error, result = failure(lambda: hosts.only("node1").apply([once("a"), hanging]))
    assert result == {"node1": [UNREACHABLE] * 2}
    assert "it was at 'b'" in error.message


def test_the_next_run_waits_for_what_is_still_at_work(fleet: Fleet) -> None:
    """The deadline passes in the middle of a command that must not run twice; the next run finds its work done."""
    with fleet.hosts() as hosts:
        one = hosts.only("node1")
        with deadlines_pass((fleet["node1"].home / "slow.runs").exists):
            failure(lambda: one.apply([once("slow", seconds=2.0), once("next")]))
        result = one.apply([once("slow", seconds=2.0), once("next")])
    assert statuses(result) == {"node1": [CHANGED, CHANGED]}
    assert [runs(fleet, "node1", name) for name in ("slow", "next")] == [1, 1]


def test_a_gate_that_makes_one_wait_does_not_use_up_the_deadline(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    thought = 0.0

    def think(*_: object) -> str:
        nonlocal thought
        thought += 500.0
        return "somebody"

    clock = SimpleNamespace(monotonic=lambda: time.monotonic() + thought)
    for module in (engine, session):
        monkeypatch.setattr(module, "time", clock)
    with fleet.hosts() as hosts:
        monkeypatch.setattr(type(hosts.approval), "ask", think)
        result = hosts.only("node1").apply([once("a", gate="hurt")], deadline=100)
    assert statuses(result) == {"node1": [CHANGED]}


MARKS = 10  # of the script that changes three steps, and some that it never reaches


@pytest.mark.parametrize("marks", range(1, MARKS + 3))
def test_a_connection_that_breaks_anywhere_is_taken_up_and_nothing_is_done_twice(fleet: Fleet, marks: int) -> None:
    steps = [once("a", seconds=0.05), once("b", seconds=0.3), *file_on(fleet)(fleet.site().hosts[0]), once("c")]
    server = fleet["node1"]
    with fleet.hosts() as hosts:
        one = hosts.only("node1")
        one.run(":")
        server.faults = Faults(drop_after_marks=marks, times=1)
        result = one.apply(steps)
        assert server.faults.times < 1 or marks > MARKS
    assert statuses(result) == {"node1": [CHANGED] * 4}
    assert [runs(fleet, "node1", name) for name in "abc"] == [1, 1, 1]


class Unguarded(Command):
    """A step whose script does not ask its probe again, as those of packages and services."""

    def script(self, change: Change) -> str:
        return self.command


def test_what_is_at_work_when_the_connection_breaks_is_waited_for_before_the_host_is_looked_at(fleet: Fleet) -> None:
    step = Unguarded("slow", "test -e slow.done", "echo run >> slow.runs; sleep 1.5; touch slow.done")
    fleet["node1"].faults = Faults(drop_at=b"begin change-0", times=1)
    with fleet.hosts() as hosts:
        assert statuses(hosts.only("node1").apply([step])) == {"node1": [CHANGED]}
    assert runs(fleet, "node1", "slow") == 1


@pytest.mark.parametrize("sent", [0, 1, 150, 400, 1000])
def test_a_connection_that_breaks_after_some_bytes_is_taken_up(fleet: Fleet, sent: int) -> None:
    with fleet.hosts() as hosts:
        one = hosts.only("node1")
        one.run(":")
        fleet["node1"].faults = Faults(drop_after_bytes=sent, times=2)
        assert statuses(one.apply([once("a"), once("b")])) == {"node1": [CHANGED] * 2}
    assert [runs(fleet, "node1", name) for name in "ab"] == [1, 1]


def test_a_connection_that_breaks_again_and_again_ends_the_host_with_what_was_done(fleet: Fleet) -> None:
    steps = [once("a"), once("b"), once("c")]
    fleet["node1"].faults = Faults(drop_at=b"begin change-")
    with fleet.hosts() as hosts:
        error, result = failure(lambda: hosts.apply(steps))
        assert result == {
            "node1": [CHANGED, CHANGED, UNREACHABLE],
            "node2": [CHANGED] * 3,
            "node3": [CHANGED] * 3,
        }
        assert "node1: node1: the connection was lost" in error.message
        assert "it was at 'c'" in error.message
        fleet["node1"].faults = Faults()
        hosts.apply(steps)
    assert [runs(fleet, "node1", name) for name in "abc"] == [1, 1, 1]


def test_what_ended_before_a_last_break_is_not_forgotten(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "MAX_RECONNECTS", 0)
    fleet["node1"].faults = Faults(drop_at=b"begin change-1", times=1)
    with fleet.hosts() as hosts:
        _, result = failure(lambda: hosts.only("node1").apply([once("a"), once("b"), once("c")]))
    assert result == {"node1": [CHANGED, UNREACHABLE, UNREACHABLE]}


def test_an_unreachable_host_does_not_keep_the_others(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runbook.remote.session.CONNECT_TIMEOUT", 1.0)
    fleet["node3"].faults.silent = True
    with fleet.hosts() as hosts:
        _, result = failure(lambda: hosts.apply([once("a")]))
    assert result == {"node1": [CHANGED], "node2": [CHANGED], "node3": [UNREACHABLE]}


# waves


@pytest.fixture
def packages(fleet: Fleet) -> Fleet:
    """Hosts with doubles of rpm and yum: a package brings a file with it, as packages do."""
    for server in fleet.servers.values():
        server.program("rpm", 'cat "$HOME/installed" 2>/dev/null')
        server.program("yum", 'echo 1.0-1 > "$HOME/installed"; mkdir "$HOME/etc"; echo theirs > "$HOME/etc/conf"')
    return fleet


def with_package(fleet: Fleet) -> Callable[[HostParameters], list[Step]]:
    def steps(host: HostParameters) -> list[Step]:
        home = fleet.home(host)
        return [
            File(f"{home}/before", "a\n"),
            Package("rehearsal"),
            File(f"{home}/etc/conf", "ours\n"),
            Line(f"{home}/etc/conf.d", "a=1"),
        ]

    return steps


def test_what_a_package_may_change_is_looked_at_after_it(packages: Fleet) -> None:
    with packages.hosts() as hosts:
        result = hosts.only("node1").apply(with_package(packages))
        assert statuses(result) == {"node1": [CHANGED] * 4}
        assert next(one for one in result if "conf" in one.step).diff.splitlines()[3:] == ["-theirs", "+ours"]
        assert len(packages["node1"].commands) == 3  # the probe, and two waves
        hosts.only("node1").apply(with_package(packages))
        assert len(packages["node1"].commands) == 4


def test_a_plan_says_what_it_cannot_know(packages: Fleet) -> None:
    with packages.hosts(Mode.PLAN) as hosts:
        result = hosts.only("node1").apply(with_package(packages))
    assert [(one.status, one.summary) for one in result] == [
        (WOULD, "create"),
        (WOULD, "install rehearsal"),
        (WOULD, "unknown until 'package rehearsal' is applied (as things are: create)"),
        (WOULD, "unknown until 'package rehearsal' is applied (as things are: create)"),
    ]


def test_a_plan_does_not_fail_for_what_a_package_will_bring(packages: Fleet) -> None:
    packages["node1"].program("systemctl", "echo LoadState=not-found; echo ActiveState=inactive; echo SubState=dead")
    steps = [Package("rehearsal"), Service("rehearsal")]
    for mode in (Mode.PLAN, Mode.VERIFY):
        with packages.hosts(mode) as hosts:
            result = hosts.only("node1").apply(steps)
        assert result.results[1].summary == (
            "unknown until 'package rehearsal' is applied (as things are: systemd knows no service rehearsal)"
        )


def test_verify_judges_what_is_there(packages: Fleet) -> None:
    """A package that is missing is one drift: what is as it should be does not drift with it."""
    home = packages["node1"].home
    (home / "file").write_text("a\n")
    with packages.hosts(Mode.VERIFY) as hosts:
        result = hosts.only("node1").apply([Package("rehearsal"), File(f"{home}/file", "a\n")])
    assert statuses(result) == {"node1": [WOULD, OK]}


@pytest.mark.parametrize(("mode", "service"), [(Mode.PLAN, WOULD), (Mode.VERIFY, OK)])
def test_a_service_is_restarted_for_a_file_that_is_about_to_change_and_not_drifted_by_it(
    fleet: Fleet, mode: Mode, service: Status
) -> None:
    state = "LoadState=loaded ActiveState=active SubState=running UnitFileState=enabled"
    fleet["node1"].program("systemctl", f"printf '%s\\n' {state} MainPID={os.getpid()}")  # it started before this test
    conf = fleet["node1"].home / "conf"
    conf.write_text("old")
    os.utime(conf, (0, 0))
    with fleet.hosts(mode) as hosts:
        result = hosts.only("node1").apply([File(str(conf), "new"), Service("x", restart_if_newer=(str(conf),))])
    assert statuses(result) == {"node1": [WOULD, service]}


def test_a_line_in_a_file_that_is_about_to_be_written(fleet: Fleet) -> None:
    home = fleet["node1"].home
    steps = [File(f"{home}/conf", "a=1\n"), Line(f"{home}/conf", "b=1", match="b=")]
    with fleet.hosts(Mode.PLAN) as hosts:
        summary = hosts.only("node1").apply(steps).results[1].summary
    assert summary == f"unknown until 'file {home}/conf' is applied (as things are: create)"


# uploads


@pytest.fixture
def artifact(packages: Fleet, tmp_path: Path) -> Rpm:
    for server in packages.servers.values():
        server.program(
            "rpm", 'case $1 in -q) cat "$HOME/installed" 2>/dev/null;; *) echo 1.0-1 > "$HOME/installed";; esac'
        )
    content = bytes(range(256)) * 4000
    (tmp_path / "marathon.rpm").write_bytes(content)
    return Rpm("marathon", "1.0-1", tmp_path / "marathon.rpm", hashlib.sha256(content).hexdigest())


def test_an_artifact_is_sent_once(fleet: Fleet, artifact: Rpm, told: list[events.Event]) -> None:
    with fleet.hosts() as hosts:
        assert statuses(hosts.apply([artifact])) == {f"node{n}": [CHANGED] for n in (1, 2, 3)}
        size = artifact.file.stat().st_size
        assert [server.uploaded for server in fleet.servers.values()] == [size] * 3
        (fleet["node1"].home / "installed").unlink()
        result = hosts.apply([artifact])
        assert statuses(result) == {"node1": [CHANGED], "node2": [OK], "node3": [OK]}
        assert result.results[0].summary == "install marathon.rpm"
        assert [server.uploaded for server in fleet.servers.values()] == [size] * 3
    progress = [event for event in told if event["event"] == "progress" and event["step"] == "upload marathon.rpm"]
    assert {event["host"] for event in progress} == {"node1", "node2", "node3"}
    assert progress[-1]["done"] == progress[-1]["total"] == size


def test_an_upload_that_breaks_off_goes_on_within_the_call(fleet: Fleet, artifact: Rpm) -> None:
    server = fleet["node1"]
    server.faults = Faults(drop_upload_after=500_000, times=1)
    with fleet.hosts() as hosts:
        assert statuses(hosts.only("node1").apply([artifact])) == {"node1": [CHANGED]}
    assert server.uploaded == artifact.file.stat().st_size  # not a byte twice


@pytest.mark.parametrize("mode", list(Mode))
def test_an_artifact_that_is_missing_here_is_told_in_a_plan_already(fleet: Fleet, artifact: Rpm, mode: Mode) -> None:
    artifact.file.unlink()
    with fleet.hosts(mode) as hosts:
        error, result = failure(lambda: hosts.only("node1").apply([artifact]))
    assert result == {"node1": [FAILED]}
    assert "marathon.rpm cannot be read: No such file" in error.message


def test_an_upload_that_fails_is_the_failure_of_its_step(fleet: Fleet, artifact: Rpm) -> None:
    fleet["node1"].faults.refuse_upload = True
    steps = [File(f"{fleet['node1'].home}/a", "x"), artifact, once("c")]
    with fleet.hosts() as hosts:
        error, result = failure(lambda: hosts.only("node1").apply(steps))
    assert result == {"node1": [CHANGED, FAILED, SKIPPED]}
    assert "node1: rpm marathon: node1: marathon.rpm cannot be stored" in error.message


# gates


@pytest.mark.parametrize("approved", [{"yes": True}, {"approvals": ["restart-docker"]}])
def test_an_approved_gate_opens(fleet: Fleet, told: list[events.Event], approved: dict[str, Any]) -> None:
    with fleet.hosts(**approved) as hosts:
        result = hosts.apply([once("a", gate="restart-docker", consequence="containers end")])
    assert statuses(result) == {f"node{n}": [CHANGED] for n in (1, 2, 3)}
    [gate] = [event for event in told if event["event"] == "gate"]
    assert (gate["name"], gate["answer"]) == ("restart-docker", "approved")


def test_a_refused_gate_leaves_its_hosts_alone_and_the_others_complete(fleet: Fleet, told: list[events.Event]) -> None:
    def steps(host: HostParameters) -> list[Step]:
        gate = None if host.name == "node3" else "restart-docker"
        return [once("a"), once("b", gate=gate, consequence="containers end"), once("c")]

    (fleet["node2"].home / "b.done").touch()  # nothing to do there, so nothing to approve
    with fleet.hosts() as hosts, pytest.raises(GateRefused) as refused:
        hosts.apply(steps)
    assert isinstance(refused.value.result, ApplyResult)
    assert statuses(refused.value.result) == {
        "node1": [CHANGED, SKIPPED, SKIPPED],
        "node2": [CHANGED, OK, CHANGED],
        "node3": [CHANGED] * 3,
    }
    assert "restart-docker on node1" in refused.value.message
    assert "containers end" in refused.value.message
    assert "node2" not in refused.value.message
    assert "--yes" in str(refused.value.remedy)
    summaries = [one.summary for one in refused.value.result if one.host == "node1"]
    assert summaries[1:] == [
        "the gate 'restart-docker' was not opened",
        "with another step of this host: the gate 'restart-docker' was not opened",
    ]
    assert runs(fleet, "node1", "b") == 0


def test_nothing_of_a_refused_wave_is_done(fleet: Fleet) -> None:
    home = fleet["node1"].home
    steps = [File(f"{home}/conf", "x"), once("b", gate="hurt")]
    with fleet.hosts() as hosts, pytest.raises(GateRefused):
        hosts.only("node1").apply(steps)
    assert not (home / "conf").exists()


def test_a_gate_is_asked_once_when_a_connection_breaks_behind_it(fleet: Fleet, told: list[events.Event]) -> None:
    with fleet.hosts(yes=True) as hosts:
        hosts.run(":")
        fleet["node1"].faults = Faults(drop_after_marks=3, times=1)
        hosts.apply([once("a", gate="hurt", seconds=0.2)])
    assert len([event for event in told if event["event"] == "gate"]) == 1


def test_a_plan_asks_at_no_gate(fleet: Fleet, told: list[events.Event]) -> None:
    with fleet.hosts(Mode.PLAN) as hosts:
        hosts.apply([once("a", gate="hurt")])
    assert not [event for event in told if event["event"] == "gate"]


# one after the other


class Ensemble:
    """What `before` and `until` say, and the order in which hosts were asked and touched."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self.log: list[str] = []
        self.refuses: dict[str, str] = {}

    def before(self, host: HostParameters) -> Evidence:
        return self._evidence("before", host)

    def until(self, host: HostParameters) -> Evidence:
        return self._evidence("until", host)

    def _evidence(self, question: str, host: HostParameters) -> Evidence:
        touched = [name for name in self.fleet.servers if runs(self.fleet, name, "a")]
        entry = f"{question} {host.name} {len(touched)}"
        if entry not in self.log:
            self.log.append(entry)
        return Evidence(self.refuses.get(question) != host.name, f"{question} {host.name}")


def rolled(hosts: Hosts, ensemble: Ensemble, **options: Any) -> ApplyResult:
    return hosts.rolling(
        [once("a")], before=ensemble.before, until=ensemble.until, patience=0.3, name="restart", **options
    )


def test_rolling_takes_one_host_at_a_time_in_the_order_given(fleet: Fleet) -> None:
    ensemble = Ensemble(fleet)
    with fleet.hosts() as hosts:
        result = rolled(hosts, ensemble, order=lambda members: members[::-1])
    assert statuses(result) == {f"node{n}": [CHANGED] for n in (1, 2, 3)}
    assert result.hosts == ["node1", "node2", "node3"]
    assert ensemble.log == [
        *("before node3 0", "until node3 1", "before node2 1", "until node2 2", "before node1 2", "until node1 3")
    ]


def test_rolling_asks_nobody_where_nothing_is_to_do(fleet: Fleet) -> None:
    ensemble = Ensemble(fleet)
    (fleet["node2"].home / "a.done").touch()
    with fleet.hosts() as hosts:
        assert statuses(rolled(hosts, ensemble)) == {"node1": [CHANGED], "node2": [OK], "node3": [CHANGED]}
    assert not any("node2" in entry for entry in ensemble.log)


def test_rolling_looks_again_when_a_hosts_turn_comes(fleet: Fleet) -> None:
    ensemble = Ensemble(fleet)

    def until(host: HostParameters) -> Evidence:
        (fleet["node3"].home / "a.done").touch()  # somebody did it meanwhile
        return Evidence(True, "")

    with fleet.hosts() as hosts:
        result = hosts.rolling([once("a")], until=until, before=ensemble.before)
    assert statuses(result) == {"node1": [CHANGED], "node2": [CHANGED], "node3": [OK]}
    assert runs(fleet, "node3", "a") == 0


@pytest.mark.parametrize("question", ["before", "until"])
def test_rolling_stops_at_the_first_host_that_does_not_hold(fleet: Fleet, question: str) -> None:
    ensemble = Ensemble(fleet)
    ensemble.refuses = {question: "node2"}
    with fleet.hosts() as hosts, pytest.raises(CheckFailed) as failed:
        rolled(hosts, ensemble)
    assert isinstance(failed.value.result, ApplyResult)
    second = SKIPPED if question == "before" else CHANGED
    assert statuses(failed.value.result) == {"node1": [CHANGED], "node2": [second], "node3": [SKIPPED]}
    assert f"{question} node2" in failed.value.message
    assert failed.value.result.results[2].summary.startswith("untouched, because of an earlier host: node2")
    assert [runs(fleet, f"node{n}", "a") for n in (1, 2, 3)] == [1, int(question == "until"), 0]


def test_rolling_touches_nobody_while_a_host_cannot_be_reached(fleet: Fleet) -> None:
    fleet["node3"].faults.refuse_key = True
    ensemble = Ensemble(fleet)
    with fleet.hosts() as hosts:
        error, result = failure(lambda: rolled(hosts, ensemble))
    assert result == {"node1": [SKIPPED], "node2": [SKIPPED], "node3": [UNREACHABLE]}
    assert ensemble.log == []
    assert isinstance(error.result, ApplyResult)
    assert error.result.results[0].summary == "untouched, because node3 failed or cannot be reached"


def test_rolling_stops_at_a_host_that_fails(fleet: Fleet) -> None:
    bad = Command("a", "test -e a.done", "[ $(basename $PWD) != node2 ] && touch a.done")
    ensemble = Ensemble(fleet)
    with fleet.hosts() as hosts:
        _, result = failure(lambda: hosts.rolling([bad], until=ensemble.until))
    assert result == {"node1": [CHANGED], "node2": [FAILED], "node3": [SKIPPED]}


def test_rolling_asks_a_gate_once_for_all_hosts(fleet: Fleet, told: list[events.Event]) -> None:
    ensemble = Ensemble(fleet)
    with fleet.hosts(yes=True) as hosts:
        hosts.rolling([once("a", gate="restart")], until=ensemble.until)
    [gate] = [event for event in told if event["event"] == "gate"]
    assert gate["question"] == "restart on node1, node2, node3"


def test_rolling_with_a_refused_gate_touches_nobody(fleet: Fleet) -> None:
    ensemble = Ensemble(fleet)
    with fleet.hosts() as hosts, pytest.raises(GateRefused) as refused:
        hosts.rolling([once("a", gate="restart")], until=ensemble.until)
    assert isinstance(refused.value.result, ApplyResult)
    assert statuses(refused.value.result) == {f"node{n}": [SKIPPED] for n in (1, 2, 3)}
    assert ensemble.log == []


@pytest.mark.parametrize("mode", [Mode.PLAN, Mode.VERIFY])
def test_rolling_is_apply_where_nothing_is_changed(fleet: Fleet, mode: Mode) -> None:
    ensemble = Ensemble(fleet)
    with fleet.hosts(mode) as hosts:
        assert statuses(rolled(hosts, ensemble)) == {f"node{n}": [WOULD] for n in (1, 2, 3)}
    assert ensemble.log == []


def test_an_order_that_leaves_hosts_out_is_refused(fleet: Fleet) -> None:
    with (
        fleet.hosts() as hosts,
        pytest.raises(ValueError, match="`order` must return each of node1, node2, node3 once"),
    ):
        rolled(hosts, Ensemble(fleet), order=lambda members: members[:2])


# secrets


def test_secrets_are_masked_in_results_errors_and_events(fleet: Fleet, told: list[events.Event]) -> None:
    secrets.register("hunter22-in-the-test")
    steps = [
        File(f"{fleet['node1'].home}/shown", "password=hunter22-in-the-test\n"),
        File(f"{fleet['node1'].home}/secret", "hunter22-in-the-test\n", mode="0600", secret=True),
        Command("leaky", "echo hunter22-in-the-test; false", "echo aHVudGVyMjItaW4tdGhlLXRlc3Q= >&2; exit 1"),
    ]
    with fleet.hosts() as hosts:
        error, _ = failure(lambda: hosts.only("node1").apply(steps))
    result = error.result
    assert isinstance(result, ApplyResult)
    shown = "\n".join([str(error), repr(error), str(result), result._repr_html_(), repr(result), repr(told)])
    assert "password=***" in shown
    assert "hunter22" not in shown
    assert "aHVudGVy" not in shown
    assert (fleet["node1"].home / "secret").read_text() == "hunter22-in-the-test\n"
    assert not any("hunter22" in command for command in fleet["node1"].commands)


# many


def test_many_hosts_are_worked_on_by_a_bounded_pool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keep_state_at_home(monkeypatch)
    monkeypatch.setattr(hosts_module, "POOL", 8)
    with running(tmp_path, 50) as fleet:
        for server in fleet.servers.values():
            server.faults.delay = 0.02
        fleet["node7"].faults.refuse_key = True
        fleet["node23"].faults.drop_after_marks = 3
        fleet["node23"].faults.times = 1
        with fleet.hosts() as hosts:
            _, result = failure(lambda: hosts.apply(lambda host: [*file_on(fleet)(host), once("a")]))
        assert result.pop("node7") == [UNREACHABLE] * 2
        assert len(result) == 49
        assert set(map(tuple, result.values())) == {(CHANGED, CHANGED)}
        assert 1 < fleet.load.peak <= 8
