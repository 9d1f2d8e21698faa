"""One change of a cluster at a time: lock files, and ensembles that do not answer (tests/lab has one that does)."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from kazoo.exceptions import ConnectionLoss, LockTimeout

from runbook.errors import LockHeld
from runbook.rollout import lock
from runbook.rollout.lock import Holder, SiteLock, holder_in, holder_of, lock_files
from runbook.site import Site

SITE = Path(__file__).parent / "notebooks" / "site.yml"
US = Holder.here("20261124T220000Z-rehearsal-aaaaaa")
OTHER = """
import sys
from runbook.rollout import lock
from runbook.site import Site
with lock.SiteLock(Site.load(sys.argv[1]), lock.Holder.here("their-record")):
    print("held", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def site() -> Site:
    """A site whose ensemble refuses connections."""
    return Site.load(SITE)


@pytest.fixture
def other() -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock."""
    command = [sys.executable, "-c", OTHER, str(SITE)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def of(tmp_path: Path, name: str, *hosts: str, zookeeper: str = "10.0.0.1") -> Site:
    """A site of this name with these addresses (`a` or `a:port`); the one of `zookeeper` is the ensemble."""
    lines = []
    for number, host in enumerate(hosts):
        address, _, port = host.partition(":")
        role = "zookeeper" if address == zookeeper else "docker"
        lines.append(f"  - {{name: h{number}, address: {address}, roles: [{role}], ssh: {{port: {port or 22}}}}}")
    text = "\n".join([f"name: {name}", "hosts:", *lines, "zookeeper: {allow_even: true, lock_path: null}", ""])
    return Site.parse(text, tmp_path / f"{name}.yml")


# what is locked


def test_a_lock_that_is_held_says_by_whom_and_since_when(site: Site, other: subprocess.Popen[str]) -> None:
    with pytest.raises(LockHeld) as held, SiteLock(site, US):
        pass
    theirs = holder_of(site)
    assert theirs is not None
    assert (theirs.record, theirs.process, theirs.operator) == ("their-record", other.pid, US.operator)
    assert "another rollout of site rehearsal runs" in held.value.message
    assert f"{US.operator} (process {other.pid}) since {theirs.since}, record their-record" in held.value.message
    assert held.value.remedy is not None
    assert "its last cell or with its kernel" in held.value.remedy


def test_the_files_are_one_for_each_host_and_member(tmp_path: Path, locks: Path) -> None:
    site = of(tmp_path, "lab", "10.0.0.2:2222", "10.0.0.1")
    assert [path.relative_to(locks).name for path in lock_files(site)] == [
        "runbook-10.0.0.1:22.lock",
        "runbook-10.0.0.1:2181.lock",
        "runbook-10.0.0.2:2222.lock",
    ]


def test_two_clusters_of_one_name_do_not_block_each_other(tmp_path: Path) -> None:
    ours, theirs = of(tmp_path, "lab", "10.0.0.1"), of(tmp_path, "lab", "10.0.1.1", zookeeper="10.0.1.1")
    with SiteLock(theirs, Holder.here("theirs")), SiteLock(ours, US):
        assert [holder.record for holder in map(holder_in, lock_files(theirs)) if holder] == ["theirs", "theirs"]
        assert holder_of(ours) == US


@pytest.mark.parametrize(
    "hosts",
    [
        ["10.0.0.1", "10.0.0.2", "10.0.0.3"],  # the same cluster by another name
        ["10.0.0.3", "10.0.0.2", "10.0.0.1"],
        ["10.0.0.9", "10.0.0.3"],  # one host of it
        ["10.0.0.0", "10.0.0.2", "10.0.0.7"],
        ["10.0.0.1:2222"],  # the ensemble alone, its member reached by another port
    ],
)
def test_a_cluster_is_locked_whatever_its_name_and_wherever_it_overlaps(tmp_path: Path, hosts: list[str]) -> None:
    theirs = of(tmp_path, "theirs", "10.0.0.1", "10.0.0.2", "10.0.0.3")
    ours = of(tmp_path, "ours", *hosts)
    with (
        SiteLock(theirs, Holder.here("theirs")),
        pytest.raises(LockHeld, match=r"another rollout of site ours runs: .*, record theirs"),
        SiteLock(ours, US),
    ):
        pass
    with SiteLock(ours, US):  # it left nothing behind, and neither did the refusal
        pass


def test_what_could_be_taken_before_a_refusal_is_released(tmp_path: Path) -> None:
    first, second = of(tmp_path, "first", "10.0.0.5"), of(tmp_path, "second", "10.0.0.4", "10.0.0.5")
    third = of(tmp_path, "third", "10.0.0.4")
    with SiteLock(first, Holder.here("first")):
        with pytest.raises(LockHeld), SiteLock(second, US):
            pass
        with SiteLock(third, US):
            assert holder_of(first) != US


def test_a_host_given_by_name_and_by_address_is_the_same_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def resolve(name: str, *_: object, **__: object) -> list[tuple[object, ...]]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("10.0.0.1", 0))] if name == "node1.example" else []

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    by_name = of(tmp_path, "named", "Node1.example")
    by_address = of(tmp_path, "numbered", "10.0.0.1")
    for ours, theirs in ((by_name, by_address), (by_address, by_name), (by_name, by_name)):
        with SiteLock(theirs, Holder.here("theirs")), pytest.raises(LockHeld), SiteLock(ours, US):
            pass


def test_a_name_that_does_not_resolve_is_locked_as_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    site = of(tmp_path, "named", "node1.example")
    with SiteLock(site, Holder.here("theirs")), pytest.raises(LockHeld), SiteLock(site, US):
        pass


def test_of_many_that_start_at_once_one_gets_the_lock(site: Site) -> None:
    program = """
import sys
from runbook.errors import LockHeld
from runbook.rollout import lock
from runbook.site import Site
site = Site.load(sys.argv[1])
sys.stdin.readline()
try:
    with lock.SiteLock(site, lock.Holder.here(sys.argv[2])):
        print("held", flush=True)
        sys.stdin.readline()
except LockHeld as held:
    print(held.message, flush=True)
"""
    with contextlib.ExitStack() as stack:
        started = [
            stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-c", program, str(SITE), f"record-{number}"],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                )
            )
            for number in range(4)
        ]
        for process in started:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        told = [process.stdout.readline() for process in started if process.stdout is not None]
        for process in started:
            process.kill()
    assert told.count("held\n") == 1
    assert sum("another rollout of site rehearsal runs" in line for line in told) == 3


# its holder


def test_a_lock_of_a_killed_process_is_free(site: Site, other: subprocess.Popen[str]) -> None:
    other.send_signal(signal.SIGKILL)
    os.waitid(os.P_PID, other.pid, os.WEXITED | os.WNOWAIT)  # a zombie, as where its parent does not wait
    assert holder_of(site) is None
    with SiteLock(site, US):
        assert holder_of(site) == US


def test_a_dead_process_is_not_named_where_another_one_holds_its_lock_file(
    site: Site, other: subprocess.Popen[str]
) -> None:
    other.kill()
    other.wait()
    path = lock_files(site)[0]
    with path.open("r+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert f'"process": {other.pid}' in file.read()
        with pytest.raises(LockHeld) as held, SiteLock(site, US):
            pass
    assert held.value.message == f"the lock file {path} is held by a process that does not name itself"
    assert held.value.remedy is not None
    assert f"fuser -v {path}" in held.value.remedy


def test_a_holder_that_has_not_written_its_name_yet_is_waited_for(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "NAMED", 30.0)
    path = lock_files(site)[0]
    theirs = Holder.here("theirs")
    path.write_text("")
    with path.open("r+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        writing = threading.Timer(0.5, path.write_text, [theirs.data()])
        writing.start()
        with pytest.raises(LockHeld, match="record theirs"), SiteLock(site, US):
            pass
        writing.join()


def test_a_process_number_that_is_used_again_is_not_the_holder() -> None:
    assert US.runs is True
    assert replace(US, started=US.started - 1).runs is False


def test_of_a_process_on_another_machine_nothing_is_known() -> None:
    assert replace(US, machine=US.machine.replace("pid:[", "pid:[1")).runs is None  # another container
    assert replace(US, machine="elsewhere 6f8a pid:[1]").runs is None
    assert Holder("ann@desk", "record", os.getpid(), "then").runs is None


def test_a_lock_is_given_back(site: Site) -> None:
    with SiteLock(site, US):
        pass
    assert holder_of(site) is None
    with SiteLock(site, US):
        pass


@pytest.mark.skipif(os.getuid() != 0, reason="only root gives files away")
def test_a_lock_file_that_somebody_else_left_can_be_taken(site: Site, locks: Path) -> None:
    """In a sticky folder that everybody may write, Linux lets nobody create over a file of another user, not even root
    (fs.protected_regular, which systemd sets), and filelock 4 refuses to lock it."""
    locks.chmod(0o1777)
    for path in lock_files(site):
        path.write_text("")
        path.chmod(0o666)
        os.chown(path, 65534, 65534)
    with SiteLock(site, US):
        assert [holder_in(path) for path in lock_files(site)] == [US, US]


def test_nobody_holds_a_lock_that_was_never_taken(site: Site) -> None:
    assert holder_of(site) is None


def test_where_the_machine_has_no_place_for_locks_the_temporary_folder_is_used(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "SHARED", tmp_path / "missing")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert [path.parent for path in lock_files(site)] == [tmp_path / "runbook-locks"] * 2


# kernels of a rollout


def test_a_kernel_recognises_the_lock_of_its_rollout(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    with SiteLock(site, US) as held:
        assert not lock.is_inherited(site)
        for name, value in held.environment().items():
            monkeypatch.setenv(name, value)
        assert lock.is_inherited(site)
    assert not lock.is_inherited(site)  # the rollout has ended


def test_a_kernel_does_not_take_the_lock_of_other_hosts_for_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with SiteLock(of(tmp_path, "lab", "10.0.0.1"), US) as held:
        for name, value in held.environment().items():
            monkeypatch.setenv(name, value)
        assert not lock.is_inherited(of(tmp_path, "more", "10.0.0.1", "10.0.0.2"))


def test_a_kernel_whose_rollout_was_killed_has_no_lock(
    site: Site, other: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = SiteLock(site, holder_of(site) or US)
    for name, value in theirs.environment().items():
        monkeypatch.setenv(name, value)
    assert lock.is_inherited(site)
    other.kill()
    other.wait()
    assert not lock.is_inherited(site)


@pytest.mark.parametrize("value", ["", "{}", "[]", "record", '{"holder": 1, "folder": "/"}'])
def test_a_variable_that_names_no_lock_is_none(site: Site, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv(lock.VARIABLE, value)
    assert not lock.is_inherited(site)


# ensembles that do not answer


def told_by(site: Site) -> list[str]:
    """What a lock that is taken and renewed once tells."""
    told: list[str] = []
    with SiteLock(site, US, told.append) as held:
        assert held.renew() is False
    return told


def test_an_ensemble_that_refuses_connections_is_told_once_and_no_error(site: Site) -> None:
    assert told_by(site) == [
        "the lock in ZooKeeper is not taken: no member of 127.0.0.1:9 accepts connections; "
        "rollouts of other machines are not kept out, those of this machine are"
    ]


def test_a_lock_that_the_parameters_give_up_is_told(tmp_path: Path) -> None:
    (told,) = told_by(of(tmp_path, "lab", "127.0.0.1", zookeeper="127.0.0.1"))
    assert "is not taken: zookeeper.lock_path is null in the parameters;" in told


def test_a_site_without_an_ensemble_is_told(tmp_path: Path) -> None:
    (told,) = told_by(of(tmp_path, "lab", "10.0.0.7"))
    assert "is not taken: the parameters name no ensemble;" in told


def test_a_lock_that_is_held_keeps_us_out_even_where_its_holder_cannot_be_read(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Lost:
        """An ensemble that is lost right after it said that the lock is held."""

        def __init__(self, *_: object, **options: object) -> None:
            self._asked = 0

        def start(self, timeout: float) -> None:
            pass

        add_listener = start

        def get_children(self, path: str) -> list[str]:
            self._asked += 1
            if self._asked % 2:  # before each attempt
                return []
            raise ConnectionLoss

        def Lock(self, path: str, identifier: str) -> Lost:
            return self

        def acquire(self, timeout: float) -> bool:
            raise LockTimeout

        def stop(self) -> None:
            pass

        close = stop

    monkeypatch.setattr(lock, "KazooClient", Lost)
    monkeypatch.setattr(SiteLock, "_member_listens", lambda self: True)
    with pytest.raises(LockHeld, match="it does not say whose it is"), SiteLock(site, US):
        pass
    assert holder_of(site) is None


def test_an_ensemble_that_says_nothing_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "PATIENCE", 0.3)
    monkeypatch.setattr(lock, "SESSION", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        text = SITE.read_text().replace("client_port: 9", f"client_port: {silent.getsockname()[1]}, tick_time: 500")
        began = time.monotonic()
        (told,) = told_by(Site.parse(text, tmp_path / "site.yml"))
        assert "does not answer" in told
        assert time.monotonic() - began < 30  # twice a session, and what a busy machine takes
