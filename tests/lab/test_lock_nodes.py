"""The lock between machines, in a real ZooKeeper: two lock folders stand for two machines."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from asking import Ask
from kazoo.client import KazooClient

from runbook.errors import LockHeld
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
US = Holder("operator@here", "our-record", os.getpid(), "2026-11-24T22:00:00.000Z")
OTHER = Holder("other@there", "their-record", 1, "2026-11-24T21:00:00.000Z")
PROGRAM = """
import sys
from pathlib import Path
from runbook.rollout import lock
from runbook.site import Site
lock.SHARED, lock.SESSION = Path(sys.argv[1]), 3.0
site = Site.parse(sys.argv[2], Path(sys.argv[1]) / "site.yml")
with lock.SiteLock(site, lock.Holder("other@there", "their-record", 1, "then")) as held:
    print(held.renew(), flush=True)
    sys.stdin.readline()
"""


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
    return f"name: lock\nhosts:\n  - {host}\nzookeeper: {{allow_even: true, client_port: 12281}}\n"


@pytest.fixture
def site(text: str, tmp_path: Path) -> Site:
    return Site.parse(text, tmp_path / "site.yml")


@contextlib.contextmanager
def held_on(machine: Path, site: Site, holder: Holder) -> Iterator[SiteLock]:
    machine.mkdir(exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lock, "SHARED", machine)
        site_lock = SiteLock(site, holder)
    with site_lock:
        yield site_lock


def test_two_machines_do_not_hold_it_at_once(zookeeper: str, site: Site, tmp_path: Path) -> None:
    with (
        held_on(tmp_path / "there", site, OTHER),
        pytest.raises(LockHeld) as held,
        held_on(tmp_path / "here", site, US),
    ):
        pass
    assert str(OTHER) in held.value.message
    assert f"ZooKeeper {zookeeper}, /runbook/lock-lock" in held.value.message


def test_it_is_free_as_soon_as_it_is_given_back(zookeeper: str, site: Site, tmp_path: Path) -> None:
    for machine, holder in (("there", OTHER), ("here", US)):
        with held_on(tmp_path / machine, site, holder) as site_lock:
            assert site_lock.renew() is True


def test_it_is_free_when_the_session_of_a_killed_holder_ends(
    zookeeper: str, site: Site, text: str, tmp_path: Path
) -> None:
    (tmp_path / "there").mkdir()
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "there"), text]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "True\n"
        process.send_signal(signal.SIGKILL)

    def taken() -> bool:
        with contextlib.suppress(LockHeld), held_on(tmp_path / "here", site, US):
            return True
        return False

    until(taken, seconds=60)


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
