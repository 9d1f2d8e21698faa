"""The lock between machines, in a real ZooKeeper: two lock folders stand for two machines."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from asking import Ask
from kazoo.client import KazooClient
from kazoo.security import OPEN_ACL_UNSAFE, make_acl, make_digest_acl

from runbook.errors import LockHeld, LockUnavailable
from runbook.lab import Lab
from runbook.lab.waiting import until
from runbook.rollout import lock
from runbook.rollout.lock import Holder, SiteLock
from runbook.site import Site

pytestmark = pytest.mark.lab

START = """
mkdir -p /var/lib/lock-zookeeper
cat >/var/lib/lock-zookeeper/zoo.cfg <<'END'
tickTime=1000
dataDir=/var/lib/lock-zookeeper
clientPort=12281
admin.enableServer=false
END
export ZOO_LOG_DIR=/var/lib/lock-zookeeper
/usr/hdp/2.4.0.0-169/zookeeper/bin/zkServer.sh start /var/lib/lock-zookeeper/zoo.cfg
"""
STOP = "/usr/hdp/2.4.0.0-169/zookeeper/bin/zkServer.sh stop /var/lib/lock-zookeeper/zoo.cfg"
US = Holder.here("our-record")
OTHER = replace(Holder.here("their-record"), operator="other@there")
"""As on another machine, as far as the lock files tell; ZooKeeper tells that its process runs here."""
PROGRAM = """
import sys
from dataclasses import replace
from pathlib import Path
from runbook.rollout import lock
from runbook.site import Site
lock.SHARED, lock.SESSION = Path(sys.argv[1]), float(sys.argv[4])
site = Site.parse(sys.argv[2], Path(sys.argv[1]) / "site.yml")
holder = lock.Holder.here("their-record")
if sys.argv[3]:
    holder = replace(holder, operator="other@there", machine=sys.argv[3])
with lock.SiteLock(site, holder) as held:
    print(held.renew(), flush=True)
    sys.stdin.readline()
"""
LOCK = "/runbook/lock-cluster"


def started(lab: Lab, ask: Ask) -> str:
    """Start a ZooKeeper of its own on the first node; gives its address when it serves."""
    node = lab.nodes[0]
    ask(node, START)
    client = KazooClient(f"{node.address}:12281")
    client.start(timeout=60)
    client.stop()
    client.close()
    return f"{node.address}:12281"


@pytest.fixture(scope="module")
def zookeeper(lab: Lab, ask: Ask) -> Iterator[str]:
    yield started(lab, ask)
    ask(lab.nodes[0], f"{STOP}; rm -r /var/lib/lock-zookeeper")


@pytest.fixture(scope="module")
def text(lab: Lab) -> str:
    """A site whose ensemble is that ZooKeeper."""
    host = f"{{name: node1, address: {lab.nodes[0].address}, roles: [zookeeper]}}"
    return f"name: lock\nhosts:\n  - {host}\nzookeeper: {{allow_even: true, client_port: 12281, tick_time: 1000}}\n"


@pytest.fixture
def site(text: str, tmp_path: Path) -> Site:
    return Site.parse(text, tmp_path / "site.yml")


@contextlib.contextmanager
def held_on(machine: Path, site: Site, holder: Holder, told: list[str] | None = None) -> Iterator[SiteLock]:
    machine.mkdir(exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lock, "SHARED", machine)
        site_lock = SiteLock(site, holder, [].append if told is None else told.append)
    with site_lock:
        yield site_lock


@pytest.fixture
def client(zookeeper: str) -> Iterator[KazooClient]:
    """A session of its own."""
    client = KazooClient(zookeeper)
    client.start(timeout=30)
    yield client
    client.stop()
    client.close()


def killed(machine: Path, text: str, where: str = "", session: float = 10.0) -> int:
    """Have another process hold the lock, and kill it; its number. `where` is its machine, this one without it."""
    machine.mkdir()
    command = [sys.executable, "-c", PROGRAM, str(machine), text, where, str(session)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "True\n"
        process.send_signal(signal.SIGKILL)
    return process.pid


def test_two_machines_do_not_hold_it_at_once(zookeeper: str, site: Site, tmp_path: Path) -> None:
    with (
        held_on(tmp_path / "there", site, OTHER),
        pytest.raises(LockHeld) as held,
        held_on(tmp_path / "here", site, US),
    ):
        pass
    assert str(OTHER) in held.value.message
    assert f"ZooKeeper {zookeeper}, {LOCK}" in held.value.message


def test_a_cluster_under_another_name_is_the_same_cluster(
    zookeeper: str, site: Site, text: str, tmp_path: Path
) -> None:
    renamed = Site.parse(text.replace("name: lock", "name: renamed"), tmp_path / "renamed.yml")
    with (
        held_on(tmp_path / "there", renamed, OTHER),
        pytest.raises(LockHeld, match="other@there"),
        held_on(tmp_path / "here", site, US),
    ):
        pass


def test_a_holder_on_another_machine_is_refused_once_its_znode_outlasts_a_session(
    zookeeper: str, site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "SESSION", 3.0)
    elsewhere = replace(OTHER, machine="elsewhere")
    told: list[str] = []
    with (
        held_on(tmp_path / "there", site, elsewhere),
        pytest.raises(LockHeld) as held,
        held_on(tmp_path / "here", site, US, told),
    ):
        pass
    assert str(elsewhere) in held.value.message
    (waiting,) = told
    assert f"the lock is held for {elsewhere}; waiting up to 5 s" in waiting


def test_it_is_free_as_soon_as_it_is_given_back(zookeeper: str, site: Site, tmp_path: Path) -> None:
    for machine, holder in (("there", OTHER), ("here", US)):
        with held_on(tmp_path / machine, site, holder) as site_lock:
            assert site_lock.renew() is True


def test_a_holder_of_this_machine_that_was_killed_keeps_nobody_waiting(
    zookeeper: str, site: Site, text: str, tmp_path: Path
) -> None:
    pid, told = killed(tmp_path / "there", text, session=40.0), []  # type: tuple[int, list[str]]
    began = time.monotonic()
    with held_on(tmp_path / "here", site, US, told) as site_lock:
        assert site_lock.renew() is True
    assert time.monotonic() - began < 20  # its session has 40 s
    left = f"the lock was left by process {pid} of this machine, which has ended (record their-record); it was removed"
    assert told == [f"ZooKeeper {zookeeper}, {LOCK}: {left}"]


def test_the_session_of_a_killed_holder_on_another_machine_is_waited_for(
    zookeeper: str, site: Site, text: str, tmp_path: Path
) -> None:
    killed(tmp_path / "there", text, where="elsewhere")
    told: list[str] = []
    with held_on(tmp_path / "here", site, US, told) as site_lock:
        assert site_lock.renew() is True
    (waiting,) = told
    assert "waiting up to 12 s, within which ZooKeeper ends the session of a process that was killed" in waiting


def test_a_znode_of_a_killed_holder_that_may_not_be_removed_is_waited_for(
    zookeeper: str, site: Site, text: str, tmp_path: Path, client: KazooClient
) -> None:
    pid = killed(tmp_path / "there", text)
    client.set_acls(LOCK, [make_acl("world", "anyone", read=True, create=True)])
    try:
        told: list[str] = []
        with held_on(tmp_path / "here", site, US, told) as site_lock:
            assert site_lock.renew() is True
        (waiting,) = told
        assert f"the lock was left by process {pid} of this machine, which has ended" in waiting
        assert "waiting up to 12 s" in waiting
    finally:
        client.delete(LOCK, recursive=True)  # its own ACL is of its children


# an ACL


@pytest.fixture
def closed(client: KazooClient) -> Iterator[None]:
    """The ensemble with a root that only an administrator may write."""
    if client.exists("/runbook"):
        client.delete("/runbook", recursive=True)
    client.add_auth("digest", "admin:admin-password")
    administrator = make_digest_acl("admin", "admin-password", all=True)
    client.set_acls("/", [administrator, make_acl("world", "anyone", read=True)])
    yield
    client.set_acls("/", OPEN_ACL_UNSAFE)
    for name in ("/runbook", "/open"):
        if client.exists(name):
            client.delete(name, recursive=True)


def test_a_root_that_is_closed_by_its_acl_ends_the_apply_and_names_the_acl(
    zookeeper: str, site: Site, tmp_path: Path, closed: None
) -> None:
    with pytest.raises(LockUnavailable) as refused, held_on(tmp_path / "here", site, US):
        pass
    assert refused.value.message.startswith(
        f"ZooKeeper {zookeeper}, {LOCK}: the lock cannot be taken: NoAuthError: the ACL of / is digest:admin:"
    )
    assert refused.value.message.endswith(":cdrwa, world:anyone:r")
    assert refused.value.remedy is not None
    for way in ('create /runbook "" world:anyone:cdrwa', "zookeeper.lock_path", "zookeeper.lock_digest"):
        assert way in refused.value.remedy
    assert [lock.holder_in(path) for path in (tmp_path / "here").rglob("*.lock")] == [None, None]


def test_a_znode_that_the_administrator_created_is_enough(
    zookeeper: str, site: Site, tmp_path: Path, closed: None, client: KazooClient
) -> None:
    client.create("/runbook", acl=OPEN_ACL_UNSAFE)
    with held_on(tmp_path / "here", site, US) as site_lock:
        assert site_lock.renew() is True


def test_another_znode_may_hold_the_lock(
    zookeeper: str, text: str, tmp_path: Path, closed: None, client: KazooClient
) -> None:
    client.create("/open", acl=OPEN_ACL_UNSAFE)
    other = Site.parse(text.replace("tick_time", "lock_path: /open/runbook, tick_time"), tmp_path / "site.yml")
    with held_on(tmp_path / "here", other, US) as site_lock:
        assert site_lock.renew() is True
        assert client.get_children("/open/runbook") == ["lock-cluster"]


def test_credentials_open_a_closed_root_and_close_the_lock_to_others(
    zookeeper: str, site: Site, text: str, tmp_path: Path, closed: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOCK_DIGEST", "admin:admin-password")
    ours = Site.parse(text.replace("tick_time", "lock_digest: env:LOCK_DIGEST, tick_time"), tmp_path / "site.yml")
    with held_on(tmp_path / "here", ours, US) as site_lock:
        assert site_lock.renew() is True
        with pytest.raises(LockHeld, match="our-record"), held_on(tmp_path / "there", ours, OTHER):
            pass
        with pytest.raises(LockUnavailable) as refused, held_on(tmp_path / "without", site, OTHER):
            pass
    assert "NoAuthError: the ACL of /runbook/lock-cluster " in refused.value.message


# sessions


def expire(site_lock: SiteLock, zookeeper: str) -> None:
    """End the session under the lock: a second connection of it that says goodbye."""
    ours = site_lock._client
    assert ours is not None
    twin = KazooClient(zookeeper, client_id=ours.client_id)
    twin.start(timeout=30)
    twin.stop()
    twin.close()
    until(lambda: not site_lock._in_zookeeper, seconds=30)


def test_a_lost_session_is_made_good_before_the_next_chapter(zookeeper: str, site: Site, tmp_path: Path) -> None:
    with held_on(tmp_path / "here", site, US) as site_lock:
        expire(site_lock, zookeeper)
        assert site_lock.renew() is True
        with pytest.raises(LockHeld), held_on(tmp_path / "there", site, OTHER):
            pass


def test_a_lost_session_that_somebody_else_used_ends_the_rollout(zookeeper: str, site: Site, tmp_path: Path) -> None:
    with held_on(tmp_path / "here", site, US) as site_lock:
        expire(site_lock, zookeeper)
        with held_on(tmp_path / "there", site, OTHER), pytest.raises(LockHeld, match="other@there"):
            site_lock.renew()


def test_an_ensemble_that_answers_later_is_found_before_the_next_chapter(
    zookeeper: str, lab: Lab, ask: Ask, site: Site, tmp_path: Path
) -> None:
    ask(lab.nodes[0], STOP)
    with held_on(tmp_path / "here", site, US) as site_lock:
        assert site_lock.renew() is False
        started(lab, ask)
        assert site_lock.renew() is True
