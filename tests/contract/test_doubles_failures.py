"""What the doubles do when something dies, as recorded from real Mesos 0.28.0 (tests/payloads/README.md).

Time-outs are shortened by the real flags; each test has masters and slaves of its own.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
from contract import PAYLOADS
from daemons import Daemon, Mesos, eventually, free_port
from framework import Framework, task

Json = dict[str, Any]
PINGS = ("--slave_ping_timeout=1secs", "--max_slave_ping_timeouts=4")


def launch(framework: Framework, name: str, command: str = "sleep 1000", **more: object) -> Json:
    framework.launch(framework.offer(since=0), task(name, command, **more))
    return framework.status(name, "TASK_RUNNING")


def test_failover_brings_the_slaves_and_their_tasks(mesos: Mesos) -> None:
    for _ in range(3):
        mesos.master(quorum=2)
    slave = mesos.slave()
    mesos.registered(1)
    old = mesos.leader()
    with Framework(old.url, stays=True) as framework:
        launch(framework, "sleeper")
        old.signal(signal.SIGTERM)
        assert old.ends() == -signal.SIGTERM
        framework.wait_for_end()
    (known,) = mesos.registered(1)
    new = mesos.leader()
    assert new is not old
    state = new.get("/state")
    assert [task["id"] for task in state["orphan_tasks"]] == ["sleeper"]
    assert state["unregistered_frameworks"] == [framework.id]
    assert known["reregistered_time"] >= state["elected_time"]
    assert known["used_resources"]["cpus"] == pytest.approx(0.1)
    for line in ("Recovered 1 slaves from the Registry", "Possibly orphaned task sleeper", "Re-registered slave"):
        assert line in new.text()
    assert "Master disconnected! Waiting for a new master to be elected" in slave.text()
    with Framework(new.url, framework_id=framework.id) as framework:
        framework.call("RECONCILE", reconcile={"tasks": []})
        assert framework.wait("UPDATE")["status"]["state"] == "TASK_RUNNING"
        assert new.get("/state")["orphan_tasks"] == []
        framework.call("KILL", kill={"task_id": {"value": "sleeper"}})
        framework.status("sleeper", "TASK_KILLED")


def test_a_silent_slave_is_inactive_at_once_removed_later_and_may_not_return(mesos: Mesos) -> None:
    master = mesos.master(*PINGS)
    slave = mesos.slave()
    mesos.registered(1)
    with Framework(master.url) as framework:
        status = launch(framework, "sleeper")
        offer = framework.offer(since=len(framework.events) - 1)
        slave.signal(signal.SIGKILL)
        slave.ends()
        rescinded = framework.wait("RESCIND")
        assert rescinded["offer_id"] == offer["id"]
        (seen,) = master.get("/slaves")["slaves"]
        assert (seen["id"], seen["active"]) == (status["agent_id"]["value"], False)
        assert [t["state"] for t in master.get("/frameworks")["frameworks"][0]["tasks"]] == ["TASK_RUNNING"]
        lost = framework.status("sleeper", "TASK_LOST")
        assert lost["message"] == "Slave localhost removed: health check timed out"
        assert lost["reason"] == "REASON_AGENT_REMOVED"
        assert framework.wait("FAILURE") == {"agent_id": status["agent_id"]}
    assert master.get("/slaves")["slaves"] == []
    metrics = master.get("/metrics/snapshot")
    assert (metrics["master/slave_removals/reason_unhealthy"], metrics["master/tasks_lost"]) == (1, 1)
    assert slave.start().ends() == 0
    assert "because 'Slave attempted to re-register after removal'" in slave.text()
    eventually(lambda: not mesos.executors(), "a slave that is turned away ends its tasks")
    slave.start()
    (again,) = mesos.registered(1)
    assert again["id"] != status["agent_id"]["value"]


def test_tasks_outlive_a_restart_of_their_slave(mesos: Mesos) -> None:
    master = mesos.master()
    slave = mesos.slave()
    mesos.registered(1)
    with Framework(master.url) as framework:
        status = launch(framework, "sleeper")
        framework.launch(framework.offer(since=len(framework.events) - 1), task("brief", "sleep 2; exit 7"))
        framework.status("brief", "TASK_RUNNING")
        slave.signal(signal.SIGTERM)
        assert slave.ends() == -signal.SIGTERM
        eventually(lambda: len(mesos.executors()) == 2, "one of the tasks ends while the slave is down")
        slave.start()
        (again,) = mesos.registered(1)
        assert again["id"] == status["agent_id"]["value"]
        assert framework.status("brief", "TASK_FAILED")["message"] == "Command exited with status 7"
        framework.call("RECONCILE", reconcile={"tasks": []})
        framework.call("KILL", kill={"task_id": {"value": "sleeper"}})
        framework.status("sleeper", "TASK_KILLED")
    assert f"Re-registered with master master@127.0.0.1:{master.port}" in slave.text()


def test_tasks_that_are_not_checkpointed_end_with_their_slave(mesos: Mesos) -> None:
    master = mesos.master()
    slave = mesos.slave()
    mesos.registered(1)
    with Framework(master.url, checkpoint=False) as framework:
        launch(framework, "sleeper")
        slave.signal(signal.SIGKILL)
        assert framework.status("sleeper", "TASK_LOST")["message"] == "Slave disconnected"
    eventually(lambda: not mesos.executors(), "executors without checkpointing end with their slave")


def test_a_framework_that_stays_away_is_torn_down(mesos: Mesos) -> None:
    master = mesos.master()
    mesos.slave()
    mesos.registered(1)
    with Framework(master.url, failover_timeout=1, stays=True) as framework:
        launch(framework, "sleeper")
    assert master.get("/frameworks")["frameworks"][0]["active"] is False
    eventually(lambda: not master.get("/frameworks")["frameworks"], "the framework is removed")
    (over,) = master.get("/frameworks")["completed_frameworks"]
    assert [t["state"] for t in over["completed_tasks"]] == ["TASK_KILLED"]
    eventually(lambda: not mesos.executors(), "its tasks are killed")


def test_a_slave_that_misses_the_failover_is_removed(mesos: Mesos) -> None:
    master = mesos.master("--slave_reregister_timeout=2secs")
    slave = mesos.slave()
    (known,) = mesos.registered(1)
    slave.stop()
    master.stop()
    master.start()
    line = f"Slave {known['id']} did not re-register within the timeout; removing it from the registrar"
    eventually(lambda: line in master.text(), "the slave is removed")
    assert master.get("/metrics/snapshot")["master/recovery_slave_removals"] == 1
    assert slave.start().ends() == 0
    assert "because 'Slave attempted to re-register after removal'" in slave.text()


def test_sigusr1_unregisters(mesos: Mesos) -> None:
    master = mesos.master()
    slave = mesos.slave()
    mesos.registered(1)
    slave.signal(signal.SIGUSR1)
    assert slave.ends() == 0
    assert master.get("/slaves")["slaves"] == []
    assert "the slave unregistered" in master.text()
    assert not (slave.folder / "meta/slaves/latest").exists()


CHANGES: dict[str, Callable[[Daemon], None]] = {
    "fewer ports": lambda slave: _change(slave, "ports:[8401-8599,8601-9100]", "ports:[8401-8599]"),
    "more ports": lambda slave: _change(slave, "ports:[8401-8599,8601-9100]", "ports:[8401-9100]"),
    "attributes": lambda slave: slave.flags.append("--attributes=rack:r1"),
    "hostname": lambda slave: slave.flags.append("--hostname=other"),
    "port": lambda slave: _change(slave, f"--port={slave.port}", f"--port={free_port()}"),
}


def _change(slave: Daemon, old: str, new: str) -> None:
    slave.flags = [flag.replace(old, new) for flag in slave.flags]


def test_changed_slave_info_is_refused(mesos: Mesos) -> None:
    mesos.master()
    slave = mesos.slave()
    mesos.registered(1)
    slave.stop()
    flags = slave.flags
    for name, change in CHANGES.items():
        slave.flags = list(flags)
        slave.log.unlink()
        change(slave)
        assert slave.start().ends() == 1, name
        assert "Failed to perform recovery: Incompatible slave info detected." in slave.text(), name
        assert f"Step 1: rm -f {slave.folder}/meta/slaves/latest\n" in slave.text()
    slave.flags = flags
    slave.start()
    mesos.registered(1)


def test_reset_of_the_metadata_gives_a_new_slave_and_leaves_the_old_tasks_running(mesos: Mesos) -> None:
    master = mesos.master()
    slave = mesos.slave()
    mesos.registered(1)
    with Framework(master.url) as framework:
        status = launch(framework, "sleeper")
        slave.stop()
        CHANGES["fewer ports"](slave)
        (slave.folder / "meta/slaves/latest").unlink()
        slave.start()
        lost = framework.status("sleeper", "TASK_LOST")
        assert lost["message"] == "Slave localhost removed: a new slave registered at the same address"
    (again,) = mesos.registered(1)
    assert again["id"] != status["agent_id"]["value"]
    assert again["resources"]["ports"] == "[8401-8599]"
    assert len(mesos.executors()) == 2  # the executor and its task, as with real Mesos


def test_equal_resources_in_another_order_are_accepted(mesos: Mesos) -> None:
    mesos.master()
    slave = mesos.slave()
    (first,) = mesos.registered(1)
    slave.stop()
    _change(slave, "cpus:2;mem:1024;ports:[8401-8599,8601-9100]", "ports:[8601-9100,8401-8599];mem:1024;cpus:2")
    slave.start()
    (again,) = mesos.registered(1)
    assert again["id"] == first["id"]


def test_a_lone_master_of_three_answers_and_then_aborts(mesos: Mesos) -> None:
    master = mesos.master("--registry_fetch_timeout=3secs", quorum=2).answers()
    state = eventually(lambda: (s := master.get("/state")).get("elected_time") and s, "the lone master is elected")
    assert state["slaves"] == []
    assert master.get("/metrics/snapshot")["master/elected"] == 1
    assert master.ends() == -signal.SIGABRT
    assert "Recovery failed: Failed to recover registrar: Failed to perform fetch within 3secs" in master.text()


def test_the_log_is_initialised_by_all_and_recovered_by_a_quorum(mesos: Mesos) -> None:
    first, second = mesos.master(quorum=2), mesos.master(quorum=2)
    eventually(lambda: "Recovering registrar" in first.text() + second.text(), "one of two masters is elected")
    assert "Successfully recovered registrar" not in first.text() + second.text()
    third = mesos.master(quorum=2)
    mesos.leader()
    third.stop()
    mesos.leader().stop()
    for master in (first, second):
        if master.process and master.process.poll() is not None:
            master.start()
    eventually(lambda: mesos.leader(), "two of three recover the log that three initialised")


def test_a_write_without_quorum_aborts_the_leader(mesos: Mesos) -> None:
    for _ in range(3):
        mesos.master("--registry_store_timeout=2secs", quorum=2)
    leader = mesos.leader()
    for master in mesos.masters:
        if master is not leader:
            master.stop()
    assert leader.get("/state")["elected_time"]
    mesos.slave()
    assert leader.ends() == -signal.SIGABRT
    assert "Failed to update 'registry': Failed to perform store within 2secs" in leader.text()
    assert re.search(r"^F.*Failed to admit slave .* at slave\(1\)@127\.0\.0\.1:", leader.text(), re.MULTILINE)


def test_the_leader_ends_when_zookeeper_is_lost_and_a_standby_stays(mesos: Mesos) -> None:
    with relay(mesos.zookeeper) as (through, cut):
        mesos.zookeeper = through
        for _ in range(3):
            mesos.master(quorum=2)
        leader = mesos.leader()
        cut()
        assert leader.ends(20) == 1
        assert "Lost leadership... committing suicide!" in leader.text()
        standby = next(master for master in mesos.masters if master is not leader)
        eventually(lambda: "leader" not in standby.get("/state"), "the standby knows no leader")
        assert {m.process and m.process.poll() for m in mesos.masters if m is not leader} == {None}


@contextmanager
def relay(target: str) -> Iterator[tuple[str, Callable[[], None]]]:
    """A TCP relay to `host:port`: its own address, and what cuts all connections and refuses new ones."""
    host, _, port = target.partition(":")
    listener = socket.create_server(("127.0.0.1", 0))
    ends: list[socket.socket] = []

    def pump(source: socket.socket, sink: socket.socket) -> None:
        with source, sink:
            try:
                while data := source.recv(65536):
                    sink.sendall(data)
                sink.shutdown(socket.SHUT_RDWR)
            except OSError:
                return  # cut

    def accept() -> None:
        while True:
            try:
                near, _ = listener.accept()
            except OSError:
                return  # cut
            far = socket.create_connection((host, int(port)))
            ends.extend((near, far))
            for pair in ((near, far), (far, near)):
                threading.Thread(target=pump, args=pair, daemon=True).start()

    def cut() -> None:
        for end in (listener, *ends):
            with suppress(OSError):  # over already
                end.shutdown(socket.SHUT_RDWR)

    thread = threading.Thread(target=accept)
    thread.start()
    with listener:
        yield f"127.0.0.1:{listener.getsockname()[1]}", cut
        cut()
        thread.join(timeout=10)
        assert not thread.is_alive()


def test_refusal_reads_as_recorded(mesos: Mesos) -> None:
    """The words of 'Incompatible slave info', against a recording whose slave differs only in its facts."""
    recording = (PAYLOADS / "three-masters/slave-incompatible-attributes.log").read_text(encoding="utf-8")
    slave = mesos.slave(resources="ports:[8400-9100];cpus:2;mem:23081;disk:252899")
    mesos.master()
    mesos.registered(1)
    slave.stop()
    slave_id = os.readlink(slave.folder / "meta/slaves/latest").rpartition("/")[2]
    CHANGES["attributes"](slave)
    assert slave.start().ends() == 1
    expected = recording[recording.index("Failed to perform recovery") :]
    expected = expected.replace("03027f2a-2478-484b-971f-9994934aaeb6-S1", slave_id)
    expected = expected.replace("port: 15062", f"port: {slave.port}").replace(
        "/var/lib/mesos/slave2", str(slave.folder)
    )
    said = slave.text()
    assert said[said.index("Failed to perform recovery") :] == expected


def test_a_slave_without_systemd_ends_as_recorded(mesos: Mesos, monkeypatch: pytest.MonkeyPatch) -> None:
    recording = (PAYLOADS / "three-masters/slave-systemd-support-exit1.log").read_text(encoding="utf-8")
    programs = mesos.folder / "bin"
    programs.mkdir()
    (programs / "systemctl").write_text("#!/bin/sh\n")
    (programs / "systemctl").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    slave = mesos.slave("--systemd_runtime_directory=/no/systemd")
    slave.stop()
    slave.flags.remove("--no-systemd_enable_support")
    assert slave.start().ends() == 1
    message = next(line for line in recording.splitlines() if line.startswith("Failed to initialize systemd"))
    assert message.replace("/run/systemd/system", "/no/systemd") in slave.text()


def test_a_port_that_is_taken_ends_the_daemon(mesos: Mesos) -> None:
    master = mesos.master().answers()
    slave = mesos.slave()
    slave.stop()
    _change(slave, f"--port={slave.port}", f"--port={master.port}")
    assert slave.start().ends() == 1
    assert f"Failed to bind on 127.0.0.1:{master.port}: Address already in use" in slave.text()
