"""One change of a cluster at a time.

The lock belongs to the cluster, not to the name in a parameter file: to each host (`address:port` of its SSH server),
to each member of the ensemble, and to the ensemble itself. Two locks, because neither is enough:

- Lock files, one for each host and member (`/run/lock/runbook-locks/runbook-ADDRESS:PORT.lock`, taken in sorted
  order), keep apart what runs on one machine, from the first moment on. Two parameter files whose hosts overlap share
  at least one of them. The kernel of the operating system releases them however their holder ends.
- A znode (`/runbook/lock-cluster` in the ensemble, kazoo's Lock recipe) keeps machines apart, once the ensemble serves:
  before chapter 1 it cannot, so an ensemble that does not answer is noted, and the lock is taken as soon as it does.

What can go wrong:

- Held by another: LockHeld names the holder: user, machine, process, record, and since when.
- The holder was killed: its lock files are free. Its znode stays until its session ends (`SESSION` seconds). Where it
  was a process of this machine, the process is known to be dead, and the znode is removed. Of a process on another
  machine this cannot be known: it counts as the holder only if the znode outlasts a session.
- The session is lost in the middle of a chapter (an ensemble that restarts): the lock is taken again before the next
  one; LockHeld where another was faster.
- ZooKeeper refuses the znode (an ACL): LockUnavailable names the ACL. Nothing is done, because a lock that other
  machines cannot see protects nothing; `zookeeper.lock_path: null` gives it up deliberately, which each apply notes.

Only `apply` takes them. `plan` and `verify` change nothing, so they may run while another applies, which is noted in
their record.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import logging
import os
import socket
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import filelock
from kazoo.client import KazooClient
from kazoo.exceptions import (
    ConnectionClosedError,
    ConnectionLoss,
    KazooException,
    LockTimeout,
    NoAuthError,
    NoNodeError,
    OperationTimeoutError,
    SessionExpiredError,
)
from kazoo.handlers.threading import KazooTimeoutError
from kazoo.protocol.states import KazooState
from kazoo.retry import RetryFailedError
from kazoo.security import ACL, CREATOR_ALL_ACL

from runbook.errors import LockHeld, LockUnavailable, RecordError
from runbook.rollout import journal, record
from runbook.site import Site

SESSION = 10.0
"""Seconds after which ZooKeeper takes the lock from a holder that it hears nothing of."""
PATIENCE = 3.0
"""Seconds that a member has to accept a connection, and the lock to be free; one that accepts and then says nothing
holds up a rollout for `SESSION` seconds."""
NAMED = 1.0
"""Seconds in which a process that took a lock file has written its name into it."""
SHARED = Path(os.environ.get("RUNBOOK_LOCKS", "/run/lock"))
"""Where lock files are, one place for the whole machine; where it cannot be written, the folder of temporary files."""
VARIABLE = "RUNBOOK_LOCK"
"""In the environment of a rollout's kernels: the holder of the lock, and the folder of its lock files, as JSON."""
NODE = "lock-cluster"
"""The lock's znode, below `zookeeper.lock_path`."""
UNREACHABLE = (
    ConnectionClosedError,
    ConnectionLoss,
    KazooTimeoutError,
    OperationTimeoutError,
    RetryFailedError,
    SessionExpiredError,
)
"""The errors of an ensemble that does not answer; every other one is a refusal."""

logging.getLogger("kazoo").addHandler(logging.NullHandler())  # what it logs of lost connections is noted by SiteLock


@dataclass(frozen=True)
class Holder:
    """Who holds a lock: user@machine, the record's name, the process, and since when (UTC).

    `machine` (hostname, boot, PID namespace) and `started` (clock ticks since boot) identify the process beyond its
    number, which is used again by later ones; empty where they are not known.
    """

    operator: str
    record: str
    process: int
    since: str
    machine: str = ""
    started: int = 0

    @classmethod
    def here(cls, name: str) -> Holder:
        """This process, from now on, for the record of this name."""
        pid = os.getpid()
        return cls(record.operator(), name, pid, journal.utc_now(), _machine(), _started(pid) or 0)

    def __str__(self) -> str:
        return f"{self.operator} (process {self.process}) since {self.since}, record {self.record}"

    def data(self) -> str:
        """As both locks keep it."""
        return json.dumps(asdict(self))

    @classmethod
    def of(cls, data: str) -> Holder | None:
        """The holder that a lock names; None where it names none (yet)."""
        try:
            return cls(**json.loads(data))
        except (ValueError, TypeError):
            return None

    @property
    def runs(self) -> bool | None:
        """Whether its process still runs; None where this machine cannot tell: it was on another one."""
        if not self.machine or self.machine != _machine():
            return None
        return _started(self.process) == self.started


class SiteLock:
    """The right to change a site's cluster; a context manager.

    `say` is called with each sentence that an operator should read: that a dead holder's lock is taken over or waited
    for, and that the lock in ZooKeeper is not taken, with the reason. Raises LockHeld where another holds the lock, and
    LockUnavailable where ZooKeeper refuses it.
    """

    def __init__(self, site: Site, holder: Holder, say: Callable[[str], None] | None = None) -> None:
        self._site = site
        self.holder = holder
        self._say = say or _to_terminal
        self._last = ""  # what was told last: not once more before every chapter
        self._folder = _folder()
        self._files = [
            # a thread may take the lock and another release it; a lock that is a mere file would outlive its holder
            filelock.FileLock(path, timeout=0, mode=0o666, thread_local=False, fallback_to_soft=False)
            for path in lock_files(site)
        ]
        self._client: KazooClient | None = None
        self._in_zookeeper = False
        self._own = ""  # our znode
        # A session lasts at least two ticks, whatever is asked for (ZooKeeper's Administrator's Guide).
        self._session = max(SESSION, 2 * site.zookeeper.tick_time / 1000)

    def __enter__(self) -> Self:
        self.take()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.release()

    def take(self) -> None:
        """Take both locks, or none of them."""
        try:
            self._take_files()
            self.renew()
        except BaseException:
            self.release()
            raise

    def renew(self) -> bool:
        """Take the lock in ZooKeeper unless it is held; to be called between chapters.

        Returns whether it is held now: False, after telling why, where the ensemble does not answer, or the parameters
        give the lock up. Raises LockHeld and LockUnavailable.
        """
        if self.is_held():
            return True
        self._disconnect()
        if (reason := self._missing()) is None:
            try:
                self._take_in_zookeeper()
            except UNREACHABLE as error:
                self._disconnect()
                reason = f"the ensemble {self._site.zookeeper_hosts} does not answer ({type(error).__name__})"
        if reason is not None:
            self._tell(
                f"the lock in ZooKeeper is not taken: {reason}; "
                f"rollouts of other machines are not kept out, those of this machine are"
            )
        return self._in_zookeeper

    def is_held(self) -> bool:
        """Whether the lock in ZooKeeper is held, as the ensemble has it now."""
        if self._client is None or not self._in_zookeeper:
            return False
        try:
            return self._client.exists_async(self._own).get(timeout=PATIENCE) is not None
        except (KazooException, KazooTimeoutError):
            return False

    def environment(self) -> dict[str, str]:
        """The variable by which a kernel of this rollout recognises the lock (`is_inherited`)."""
        return {VARIABLE: json.dumps({"holder": self.holder.data(), "folder": str(self._folder)})}

    def release(self) -> None:
        """Release both locks; a second call does nothing."""
        self._disconnect()
        for file in reversed(self._files):
            if file.is_locked:
                os.truncate(file.lock_file, 0)
                file.release()

    # lock files

    def _take_files(self) -> None:
        for file in self._files:
            path = Path(file.lock_file)
            try:
                file.acquire()
            except filelock.Timeout as timeout:
                raise self._file_held(path) from timeout
            except (OSError, NotImplementedError) as error:  # the latter of a filesystem that has no flock
                reason = getattr(error, "strerror", None) or error
                raise RecordError(f"{path}: cannot lock the file: {reason}", "remove it if no rollout runs") from error
            # Not opened as a new file would be: in a folder of everybody's, Linux allows that for one's own files only.
            with path.open("r+", encoding="utf-8") as opened:
                opened.write(self.holder.data())
                opened.truncate()

    def _file_held(self, path: Path) -> LockHeld:
        deadline = time.monotonic() + NAMED
        while (found := _read(path)) is None or found.runs is False:
            if time.monotonic() > deadline:
                return LockHeld(
                    f"the lock file {path} is held by a process that does not name itself",
                    f"find it with `fuser -v {path}`, and wait for its end or end it; nothing was done here",
                )
            time.sleep(NAMED / 20)
        return self._held(found, f"lock file {path}")

    # ZooKeeper

    @property
    def _path(self) -> str:
        return f"{(self._site.zookeeper.lock_path or '').rstrip('/')}/{NODE}"

    @property
    def _place(self) -> str:
        return f"ZooKeeper {self._site.zookeeper_hosts}, {self._path}"

    def _missing(self) -> str | None:
        """Why there is no lock in ZooKeeper to be taken; None where there may be one."""
        if not self._site.zookeeper_hosts:
            return "the parameters name no ensemble"
        if self._site.zookeeper.lock_path is None:
            return "zookeeper.lock_path is null in the parameters"
        if not self._member_listens():
            return f"no member of {self._site.zookeeper_hosts} accepts connections"
        return None

    def _member_listens(self) -> bool:
        """Whether any member accepts connections: kazoo would go on trying until its time is over."""
        members = self._site.zookeeper_hosts.split(",")

        def listens(member: str) -> bool:
            host, _, port = member.rpartition(":")
            try:
                socket.create_connection((host, int(port)), PATIENCE).close()
            except OSError:
                return False
            return True

        with ThreadPoolExecutor(len(members), "zookeeper") as pool:
            return any(pool.map(listens, members))

    def _take_in_zookeeper(self) -> None:
        digest = self._site.zookeeper.lock_digest
        options: dict[str, Any] = {}
        if digest is not None:
            options = {"auth_data": [("digest", digest.resolve().reveal())], "default_acl": CREATOR_ALL_ACL}
        client = self._client = KazooClient(self._site.zookeeper_hosts, timeout=self._session, **options)
        try:
            client.start(PATIENCE)
            client.add_listener(self._watch)
            self._in_zookeeper = self._acquired(client)
        except UNREACHABLE:
            raise
        except KazooException as error:
            refusal = self._unavailable(client, error)
            self._disconnect()
            raise refusal from error

    def _acquired(self, client: KazooClient) -> bool:
        """Take the znode; LockHeld where another keeps it for longer than a session without a process lasts."""
        self._remove_dead(client)
        patience, first = PATIENCE, self._first(client)
        if first is not None and not first.runs:
            patience = self._session + 2 * self._site.zookeeper.tick_time / 1000  # sessions are ended tick by tick
            self._tell(
                f"{self._place}: {_of(first)}; waiting up to {patience:.0f} s, "
                "within which ZooKeeper ends the session of a process that was killed"
            )
        if self._attempt(client, patience):
            return True
        first = self._first(client)
        self._disconnect()
        if first is not None and first.runs is False:
            raise LockHeld(
                f"{self._place}: {_of(first)}", "run again once the session has ended; nothing was done here"
            )
        raise self._held(first, self._place)

    def _attempt(self, client: KazooClient, patience: float) -> bool:
        lock = client.Lock(self._path, identifier=self.holder.data())
        try:
            if not lock.acquire(timeout=patience):
                raise ConnectionLoss("while it waited for the lock")
        except LockTimeout:
            return False
        self._own = f"{self._path}/{lock.node}"
        return True

    def _remove_dead(self, client: KazooClient) -> None:
        """Remove the znodes of processes of this machine that have ended: their sessions can do nothing any more.

        One of an earlier session of our own, which ended without ZooKeeper hearing of it, goes too.
        """
        try:
            for node, holder in self._contenders(client):
                if holder == self.holder:
                    client.delete(node)
                elif holder is not None and holder.runs is False:
                    client.delete(node)
                    self._tell(f"{self._place}: {_of(holder)}; it was removed")
        except NoNodeError:  # its session ended meanwhile, or no lock was ever taken
            return
        except NoAuthError:  # it was created with other credentials: its session has to end
            return

    def _first(self, client: KazooClient) -> Holder | None:
        """Who holds the znode; None where it cannot be read: that it is held is known all the same."""
        try:
            return next((holder for _, holder in self._contenders(client)), None)
        except KazooException:
            return None

    def _contenders(self, client: KazooClient) -> list[tuple[str, Holder | None]]:
        """The znodes of those that want the lock, the one that has it first, each with its holder."""
        found = []
        for name in sorted(client.get_children(self._path), key=lambda name: name.rpartition("__")[2]):
            with contextlib.suppress(NoNodeError):  # it was released meanwhile
                data, _ = client.get(f"{self._path}/{name}")
                found.append((f"{self._path}/{name}", Holder.of(data.decode(errors="replace"))))
        return found

    def _watch(self, state: str) -> None:
        if state == KazooState.LOST:  # the session is over, and with it the lock
            self._in_zookeeper = False

    def _disconnect(self) -> None:
        self._in_zookeeper = False
        if self._client is not None:
            self._client.stop()  # ends the session, and so releases the lock
            self._client.close()
            self._client = None

    def _unavailable(self, client: KazooClient, error: KazooException) -> LockUnavailable:
        """What keeps the znode from being created, with the ACL of the znode that refuses it."""
        what = f"{self._place}: the lock cannot be taken: {type(error).__name__} {error}".rstrip()
        if not isinstance(error, NoAuthError):
            return LockUnavailable(what, "read ZooKeeper's log (1.2); nothing was done here")
        node = self._path
        try:
            while node != "/" and client.exists(node) is None:  # the deepest one on the way that exists
                node = node.rpartition("/")[0] or "/"
            acl = f"the ACL of {node} is {_listed(client.get_acls(node)[0])}"
        except (KazooException, KazooTimeoutError) as unreadable:  # ZooKeeper 3.4.14 and later refuse that, too
            acl = f"the ACL of {node} cannot be read either ({type(unreadable).__name__})"
        root = self._site.zookeeper.lock_path
        return LockUnavailable(
            f"{what}: {acl}",
            f"let who may write there create {root} with an ACL that lets rollouts write "
            f'(zkCli.sh: create {root} "" world:anyone:cdrwa), or set zookeeper.lock_path to a znode that they may '
            "write, or zookeeper.lock_digest to credentials that ZooKeeper accepts; nothing was done here",
        )

    # messages

    def _tell(self, text: str) -> None:
        if text != self._last:
            self._last = text
            self._say(text)

    def _held(self, holder: Holder | None, place: str) -> LockHeld:
        return LockHeld(
            f"another rollout of site {self._site.name} runs: {holder or 'it does not say whose it is'} ({place})",
            "wait for its end, or end it there: SIGTERM closes a rollout's record, and a notebook opened by hand "
            "releases the lock with its last cell or with its kernel; nothing was done here",
        )


def is_inherited(site: Site) -> bool:
    """Whether this process is a kernel of a rollout that holds the lock of all of the site's hosts.

    The rollout's name alone is not enough: its process must run, and its lock files must name it.
    """
    try:
        told = json.loads(os.environ[VARIABLE])
        holder, folder = Holder.of(told["holder"]), Path(told["folder"])
    except (KeyError, TypeError, ValueError):
        return False
    if holder is None or not holder.runs:
        return False
    return all(_read(_file(folder, host, port)) == holder for host, port in _addresses(site))


def lock_files(site: Site) -> tuple[Path, ...]:
    """The lock files of a site's cluster, in the order in which they are taken.

    One for each address and port of a host's SSH server and of a member of the ensemble. A host that is named, and not
    given by its IP address, has one for its name and one for each address that the name resolves to, so that it is the
    same host in a file that has the address.
    """
    named = _addresses(site)
    hosts = sorted({host for host, _ in named})
    with ThreadPoolExecutor(min(32, len(hosts)), "resolve") as pool:  # a resolver that is down costs seconds a name
        numbers = dict(zip(hosts, pool.map(_resolved, hosts), strict=True))
    every = named | {(number, port) for host, port in named for number in numbers[host]}
    return tuple(_file(_folder(), host, port) for host, port in sorted(every))


def holder_of(site: Site) -> Holder | None:
    """Who holds the lock files of a site's cluster; None where no process does that runs."""
    return next((holder for path in lock_files(site) if (holder := holder_in(path))), None)


def holder_in(path: Path) -> Holder | None:
    """Who holds a lock file; None where no process does that runs."""
    holder = _read(path)
    if holder is None or holder.runs is False:
        return None
    return holder if holder.runs or _started(holder.process) is not None else None


def _addresses(site: Site) -> set[tuple[str, int]]:
    """Where the cluster is, as the parameters write it."""
    ssh = {(_normal(host.address), host.ssh.port) for host in site.hosts}
    return ssh | {(_normal(host.address), site.zookeeper.client_port) for host in site.having("zookeeper")}


def _normal(address: str) -> str:
    try:
        return str(ipaddress.ip_address(address))
    except ValueError:
        return address.lower().rstrip(".")


def _resolved(host: str) -> set[str]:
    """The IP addresses of a host; none where its name does not resolve."""
    with contextlib.suppress(ValueError):
        return {str(ipaddress.ip_address(host))}
    try:
        return {str(info[4][0]) for info in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)}
    except OSError:
        return set()


def _file(folder: Path, host: str, port: int) -> Path:
    return folder / f"runbook-{host}:{port}.lock"


def _folder() -> Path:
    """The directory of the lock files, which all users of the machine share.

    It has no sticky bit: in one that has, Linux (fs.protected_regular) and filelock from 4 on refuse the files that
    another operator left.
    """
    shared = (SHARED if os.access(SHARED, os.W_OK) else Path(tempfile.gettempdir())) / "runbook-locks"
    with contextlib.suppress(OSError):  # another user's, or not to be made: opening a file there says so
        shared.mkdir(exist_ok=True)
        if shared.stat().st_uid == os.getuid():
            shared.chmod(0o777)
    return shared


def _read(path: Path) -> Holder | None:
    """The holder that a lock file names, whether or not it runs."""
    try:
        return Holder.of(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None


def _machine() -> str:
    """What tells this machine, since it was booted, from every other; containers of one machine too."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{socket.gethostname()} {boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:  # not Linux
        return ""


def _started(process: int) -> int | None:
    """When a process started, in clock ticks since boot; None where it has ended (a zombie, too, holds no lock)."""
    try:
        stat = Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = stat.rpartition(")")[2].split()  # proc(5): the state is field 3, the start field 22
    return None if fields[0] in "ZX" else int(fields[19])


def _of(holder: Holder | None) -> str:
    if holder is None:
        return "the lock is held, and its holder cannot be read"
    if holder.runs is False:
        return (
            f"the lock was left by process {holder.process} of this machine, which has ended (record {holder.record})"
        )
    return f"the lock is held for {holder}"


def _listed(acls: list[ACL]) -> str:
    """ACLs as zkCli.sh writes them: `world:anyone:cdrwa`."""
    letters = {4: "c", 8: "d", 1: "r", 2: "w", 16: "a"}
    return ", ".join(
        f"{acl.id.scheme}:{acl.id.id}:{''.join(letter for bit, letter in letters.items() if acl.perms & bit)}"
        for acl in acls
    )


def _to_terminal(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
