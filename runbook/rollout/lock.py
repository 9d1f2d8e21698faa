"""One rollout of a site at a time.

Two locks, because neither is enough. The lock file keeps two rollouts apart that start on one machine, from the first
moment on: the kernel of the operating system gives it back however its holder ends, so it is never stale. The lock
in ZooKeeper (`/runbook/lock-<site>`, kazoo's Lock recipe) keeps rollouts from different machines apart, and exists
once the site's ensemble answers: before chapter 1 it cannot, so an ensemble that does not answer is no error, and
the lock is taken before the first chapter that finds one.

- Held by another: LockHeld, which says by whom, for which record, and since when.
- ZooKeeper's session lost in the middle of a chapter (an ensemble that restarts): the lock is taken again before the
  next chapter; LockHeld when somebody else was faster.
- The holder's machine died: ZooKeeper gives the lock free when the session ends, after `SESSION` seconds.

Only `apply` takes them. `plan` and `verify` change nothing, so they may run while somebody applies, and a verification
that runs every night must not keep an operator from working; who applies meanwhile is noted in their record.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import filelock
from kazoo.client import KazooClient
from kazoo.exceptions import KazooException, LockTimeout
from kazoo.handlers.threading import KazooTimeoutError
from kazoo.protocol.states import KazooState

from runbook.errors import LockHeld, RecordError
from runbook.site import Site

SESSION = 10.0
"""Seconds after which ZooKeeper takes the lock from a holder that it hears nothing of."""
PATIENCE = 3.0
"""Seconds that a member has to accept a connection, and the lock to be free; one that accepts and then says nothing
holds up a rollout for `SESSION` seconds."""
SHARED = Path("/run/lock")
"""Where lock files are, one place for the whole machine; where it cannot be written, the folder of temporary files."""

logging.getLogger("kazoo").addHandler(logging.NullHandler())  # that nobody answers is what is asked, not news


@dataclass(frozen=True)
class Holder:
    """Who holds a lock: user@machine, the record's name, the process, and since when (UTC)."""

    operator: str
    record: str
    process: int
    since: str

    def __str__(self) -> str:
        return f"{self.operator} (process {self.process}) since {self.since}, record {self.record}"

    def data(self) -> str:
        """As both locks keep it."""
        return json.dumps(asdict(self))

    @classmethod
    def of(cls, data: str) -> Holder | None:
        """The holder that a lock names; none where it names nobody (yet)."""
        try:
            return cls(**json.loads(data))
        except (ValueError, TypeError):
            return None


class SiteLock:
    """The right to change a site; a context manager. Raises LockHeld where somebody else has it."""

    def __init__(self, site: Site, holder: Holder) -> None:
        self._site = site
        self._holder = holder
        self._path = lock_file(site.name)
        self._file = filelock.FileLock(self._path, timeout=0, mode=0o666)
        self._client: KazooClient | None = None
        self._in_zookeeper = False

    def __enter__(self) -> Self:
        self._take_file()
        try:
            self.renew()
        except BaseException:
            self.release()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.release()

    def renew(self) -> bool:
        """Take the lock in ZooKeeper unless it is held; to be called between chapters.

        Gives whether it is held now: False where the ensemble does not answer. Raises LockHeld.
        """
        if not self._in_zookeeper and self._somebody_listens():
            with contextlib.suppress(KazooTimeoutError, KazooException):  # it does not answer, or not well enough
                self._take_in_zookeeper()
        return self._in_zookeeper

    def release(self) -> None:
        """Give both locks back; a second call does nothing."""
        self._disconnect()
        if self._file.is_locked:
            os.truncate(self._path, 0)
            self._file.release()

    def _take_file(self) -> None:
        try:
            self._file.acquire()
        except filelock.Timeout as timeout:
            raise self._held(holder_in(self._path), f"lock file {self._path}") from timeout
        except OSError as error:
            raise RecordError(
                f"{self._path}: cannot open the lock file: {error.strerror}", "remove it if no rollout runs"
            ) from error
        # Not opened as a new file would be: in a folder of everybody's, Linux allows that for one's own files only.
        with self._path.open("r+", encoding="utf-8") as file:
            file.write(self._holder.data())
            file.truncate()

    def _somebody_listens(self) -> bool:
        """Whether any member accepts connections: kazoo would go on trying until its time is over."""
        for member in self._site.zookeeper_hosts.split(","):
            host, _, port = member.rpartition(":")
            with contextlib.suppress(OSError), socket.create_connection((host, int(port)), PATIENCE):
                return True
        return False

    def _take_in_zookeeper(self) -> None:
        self._disconnect()
        client = self._client = KazooClient(self._site.zookeeper_hosts, timeout=SESSION)
        client.start(PATIENCE)
        client.add_listener(self._watch)
        path = f"/runbook/lock-{self._site.name}"
        lock = client.Lock(path, identifier=self._holder.data())
        try:
            self._in_zookeeper = lock.acquire(timeout=PATIENCE)  # False: the connection was lost meanwhile
        except LockTimeout as timeout:
            first = ""
            with contextlib.suppress(KazooException):  # that it is held is known all the same
                first = next(iter(lock.contenders()), "")
            self._disconnect()
            raise self._held(Holder.of(first), f"ZooKeeper {self._site.zookeeper_hosts}, {path}") from timeout

    def _watch(self, state: str) -> None:
        if state == KazooState.LOST:  # the session is over, and with it the lock
            self._in_zookeeper = False

    def _disconnect(self) -> None:
        self._in_zookeeper = False
        if self._client is not None:
            self._client.stop()  # ends the session, and so gives the lock back
            self._client.close()
            self._client = None

    def _held(self, holder: Holder | None, place: str) -> LockHeld:
        return LockHeld(
            f"another rollout of site {self._site.name} runs: {holder or 'it does not say whose it is'} ({place})",
            "wait for its end, or end it there (SIGTERM closes its record); nothing was done here",
        )


def lock_file(site: str) -> Path:
    """The lock file of a site."""
    folder = SHARED if os.access(SHARED, os.W_OK) else Path(tempfile.gettempdir())
    return folder / f"runbook-{site}.lock"


def holder_in(path: Path) -> Holder | None:
    """Who holds the lock file, as far as it says so; none where nobody does."""
    try:
        holder = Holder.of(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    return holder if holder is not None and _runs(holder.process) else None


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # of another user
        return True
    return True
