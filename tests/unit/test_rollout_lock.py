"""One rollout of a site at a time: the lock file, and ensembles that do not answer (tests/lab has one that does)."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from kazoo.exceptions import ConnectionLoss, LockTimeout

from runbook.errors import LockHeld
from runbook.rollout import lock
from runbook.rollout.lock import Holder, SiteLock
from runbook.site import Site

SITE = Path(__file__).parent / "notebooks" / "site.yml"
US = Holder("operator@here", "20261124T220000Z-rehearsal-aaaaaa", os.getpid(), "2026-11-24T22:00:00.000Z")
OTHER = """
import os, sys
from pathlib import Path
from runbook.rollout import lock
from runbook.site import Site
lock.SHARED = Path(sys.argv[1])
site = Site.load(sys.argv[2])
with lock.SiteLock(site, lock.Holder("other@there", "their-record", os.getpid(), "2026-11-24T21:00:00.000Z")):
    print("held", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture(autouse=True)
def shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(lock, "SHARED", tmp_path)
    return tmp_path


@pytest.fixture
def site() -> Site:
    """A site whose ensemble refuses connections."""
    return Site.load(SITE)


@pytest.fixture
def other(shared: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock."""
    command = [sys.executable, "-c", OTHER, str(shared), str(SITE)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_lock_that_is_held_says_by_whom_and_since_when(site: Site, other: subprocess.Popen[str]) -> None:
    with pytest.raises(LockHeld) as held, SiteLock(site, US):
        pass
    assert "another rollout of site rehearsal runs" in held.value.message
    assert (
        f"other@there (process {other.pid}) since 2026-11-24T21:00:00.000Z, record their-record" in held.value.message
    )
    assert held.value.remedy is not None


def test_a_lock_of_a_killed_process_is_free(site: Site, other: subprocess.Popen[str]) -> None:
    other.send_signal(signal.SIGKILL)
    other.wait()
    assert lock.holder_in(lock.lock_file(site.name)) is None
    with SiteLock(site, US):
        assert lock.holder_in(lock.lock_file(site.name)) == US


def test_a_lock_is_given_back(site: Site) -> None:
    with SiteLock(site, US):
        pass
    assert lock.holder_in(lock.lock_file(site.name)) is None
    with SiteLock(site, US):
        pass


@pytest.mark.skipif(os.getuid() != 0, reason="only root gives files away")
def test_a_lock_file_that_somebody_else_left_can_be_taken(site: Site, shared: Path) -> None:
    """In a folder that everybody may write, Linux lets nobody create over a file of another user, not even root
    (fs.protected_regular, which systemd sets); without that setting this shows nothing."""
    shared.chmod(0o1777)
    path = lock.lock_file(site.name)
    path.write_text("")
    path.chmod(0o666)
    os.chown(path, 65534, 65534)
    with SiteLock(site, US):
        assert lock.holder_in(path) == US


def test_another_site_is_another_lock(site: Site, other: subprocess.Popen[str], tmp_path: Path) -> None:
    another = Site.parse(SITE.read_text().replace("name: rehearsal", "name: another"), tmp_path / "site.yml")
    with SiteLock(another, US):
        pass


def test_nobody_holds_a_lock_that_was_never_taken(site: Site) -> None:
    assert lock.holder_in(lock.lock_file(site.name)) is None


def test_an_ensemble_that_refuses_connections_is_no_error(site: Site) -> None:
    with SiteLock(site, US) as held:
        assert held.renew() is False


def test_a_lock_that_is_held_keeps_us_out_even_where_its_holder_cannot_be_read(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Lost:
        """An ensemble that is lost right after it said that the lock is held."""

        def __init__(self, *_: object, **options: object) -> None:
            pass

        def start(self, timeout: float) -> None:
            pass

        add_listener = start

        def Lock(self, path: str, identifier: str) -> Lost:
            return self

        def acquire(self, timeout: float) -> bool:
            raise LockTimeout

        def contenders(self) -> list[str]:
            raise ConnectionLoss

        def stop(self) -> None:
            pass

        close = stop

    monkeypatch.setattr(lock, "KazooClient", Lost)
    monkeypatch.setattr(SiteLock, "_somebody_listens", lambda self: True)
    with pytest.raises(LockHeld, match="it does not say whose it is"), SiteLock(site, US):
        pass


def test_an_ensemble_that_says_nothing_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "PATIENCE", 0.3)
    monkeypatch.setattr(lock, "SESSION", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        text = SITE.read_text().replace("client_port: 9", f"client_port: {silent.getsockname()[1]}")
        began = time.monotonic()
        with SiteLock(Site.parse(text, tmp_path / "site.yml"), US) as held:
            assert held.renew() is False
        assert time.monotonic() - began < 30  # twice a session, and what a busy machine takes


def test_where_the_machine_has_no_place_for_locks_the_temporary_folder_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "SHARED", tmp_path / "missing")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert lock.lock_file("lab") == tmp_path / "runbook-lab.lock"
