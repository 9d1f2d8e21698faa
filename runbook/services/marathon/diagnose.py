"""Why Marathon does not do what it should: known failures in its log and in the masters', locks, and what it keeps.

Why an app gets no further is told by `deployments.explain`.

Sources: Marathon's bin/marathon-framework, `LeaderProxyFilter.scala`, `ZkPersistenceStore.scala`, and 'Framework ID' of
its documentation; ZooKeeper's Administrator's Guide (jute.maxbuffer); scallop.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass

import pandas as pd
from kazoo.client import KazooClient
from kazoo.exceptions import NoNodeError

from runbook.errors import AppLocked, ServiceError
from runbook.remote.checks import Evidence
from runbook.services.findings import Finding, Findings
from runbook.services.marathon.client import Marathon
from runbook.services.marathon.deployments import explain
from runbook.services.mesos.diagnose import KNOWN as KNOWN_OF_MESOS
from runbook.services.mesos.diagnose import Failure
from runbook.services.zookeeper_ensemble import session
from runbook.site import Site

REGISTRATION: tuple[Failure, ...] = tuple(
    failure
    for failure in KNOWN_OF_MESOS
    if failure.name in ("answers do not reach the framework", "bound to the loopback", "port taken by something else")
)
"""What keeps a framework from being registered, in its own log or in the leading master's."""

KNOWN: tuple[Failure, ...] = (
    Failure(
        "unknown flag",
        re.compile(r"Unknown option '"),
        cause="a file in /etc/marathon/conf, or a variable MARATHON_*, names a flag that Marathon does not have",
        remedy="move that file elsewhere (mv it to /root/), or take the variable out of /etc/default/marathon",
        source="scallop; bin/marathon-framework",
    ),
    Failure(
        "flag with a value that it cannot have",
        re.compile(r"Bad arguments for option '"),
        cause="a flag is given twice (by a file and by a variable MARATHON_*), or its value is not of its type",
        remedy="correct the file in /etc/marathon/conf, or take the variable out of /etc/default/marathon",
        source="scallop; bin/marathon-framework",
    ),
    Failure(
        "no master given",
        re.compile(r"Required option 'master' not found"),
        cause="neither /etc/marathon/conf/master nor /etc/mesos/zk says where the masters are",
        remedy="run 4.2: it writes the file",
        source="scallop; bin/marathon-framework",
    ),
    Failure(
        "no Java",
        re.compile(r"java: (?:command )?not found|UnsupportedClassVersionError"),
        cause="there is no Java on the host, or one that is older than Marathon needs (8)",
        remedy="install Java 8 (yum install java-1.8.0-openjdk-headless)",
        source="bin/marathon-framework; Marathon's 'Setup'",
    ),
    Failure(
        "no library of Mesos",
        re.compile(r"UnsatisfiedLinkError|[Ff]ailed to load native Mesos library"),
        cause="libmesos.so, by which Marathon speaks to Mesos, is not on the host",
        remedy="install the package mesos there (chapter 2): its services may stay off",
        source="Mesos' Java binding, MesosNativeLibrary.java",
    ),
    Failure(
        "ZooKeeper's limit on a znode",
        re.compile(
            r"Len error|Packet len\d* is out of range|jute\.maxbuffer|(?:ConnectionLoss|store).{0,200}group:root"
        ),
        cause="what Marathon keeps in one znode (group:root, or a deployment) outgrew ZooKeeper's limit of about 1 MB",
        remedy="keep it below 400 KB: fewer apps and labels, shorter commands, --zk_max_versions of 3, zk_compression",
        source="ZooKeeper's Administrator's Guide, jute.maxbuffer",
    ),
    Failure(
        "ZooKeeper out of reach",
        re.compile(r"[Uu]nable to connect to Zoo[Kk]eeper|KeeperErrorCode = ConnectionLoss|is not of the form zk://"),
        cause="ZooKeeper does not answer at the addresses in /etc/marathon/conf/zk, or one of them has no port",
        remedy="run the check of chapter 1; each address needs its :port",
        source="Marathon's Main.scala",
    ),
    Failure(
        "framework removed",
        re.compile(r"Framework has been removed"),
        cause="Mesos ended the framework: a teardown, or Marathon was away for longer than its failover_timeout",
        remedy="restart the leading instance: it registers with a new id; end those of its old tasks that still run",
        source="Marathon's 'Framework ID'; MarathonScheduler.scala",
    ),
    *REGISTRATION,
)
"""The known failures in Marathon's log. What systemd or the start script say of it is among its lines."""


# 409: the lock


def lock_findings(marathon: Marathon, deployments: Iterable[str], slaves: pd.DataFrame | None = None) -> Findings:
    """What the deployments that lock an app do, and what keeps them.

    `slaves`: Mesos' `slaves_table`; without it nothing is said of what fits where. Raises ServiceError.
    """
    ids = set(deployments)
    queue = marathon.queue()
    found: list[Finding] = []
    for deployment in marathon.deployments():
        if deployment["id"] not in ids:
            continue
        actions = ", ".join(
            f"{one['action']} of {one.get('app') or one.get('pod') or '?'}" for one in deployment["currentActions"]
        )
        step = f"step {deployment['currentStep']}/{deployment['totalSteps']}"
        remedy = "wait for its end, or undo it (Marathon.cancel); to go on from where it is, deploy with force"
        cause = "a deployment is under way"
        evidence = f"{deployment['id']} since {deployment['version']}, {step}: {actions or 'nothing at the moment'}"
        found.append(Finding("", cause, evidence, remedy))
        for name in deployment["affectedApps"]:
            app = marathon.find(name)
            found += explain(app, queue, slaves, since=deployment["version"]) if app is not None else ()
    return Findings("the lock", tuple(found))


def explained_lock(marathon: Marathon, locked: AppLocked, slaves: Callable[[], pd.DataFrame]) -> AppLocked:
    """The same error, which also says what the deployments do that are in the way, as far as it can be found out."""
    table: pd.DataFrame | None = None
    with suppress(ServiceError):
        table = slaves()
    try:
        findings = lock_findings(marathon, locked.deployments, table)
    except ServiceError:
        return locked
    if not findings:
        return locked
    message = f"{locked.message}\n{findings}"
    return AppLocked(message, locked.remedy, answer=locked.answer, deployments=locked.deployments)


# what Marathon keeps in ZooKeeper

LARGE = 400 * 1024
"""Bytes of a znode from which on it is worth a word: ZooKeeper takes no request beyond 1 MB."""


@dataclass(frozen=True)
class Kept:
    """What Marathon keeps in ZooKeeper: bytes of each znode by its name below `state`, which begins with the kind.

    Until 1.3 that is `KIND:NAME` (`app`, `task`, `deployment`, `group`), and then `KIND/BUCKET/NAME` (`apps`, …).
    """

    sizes: Mapping[str, int]

    @classmethod
    def ask(cls, site: Site) -> Kept:
        """Read the sizes. Raises ServiceError where ZooKeeper does not tell."""
        with session(site.zookeeper_hosts) as zookeeper:
            return cls(dict(_sizes(zookeeper, f"{site.marathon.zk_path}/state")))

    def bearable(self) -> Evidence:
        """Whether none of it comes near ZooKeeper's limit."""
        large = {name: size for name, size in self.sizes.items() if size >= LARGE}
        told = ", ".join(f"{name} ({size / 1024:.0f} KB)" for name, size in large.items())
        text = f"near ZooKeeper's limit of 1024 KB: {told}" if large else f"{len(self.sizes)} znodes, all below 400 KB"
        remedy = "fewer or smaller apps; write 3 to /etc/marathon/conf/zk_max_versions; end what is deployed for ever"
        return Evidence(not large, text, self.table(), remedy)

    def table(self) -> pd.DataFrame:
        """A row a kind: how many, and how large the largest is."""
        kinds: dict[str, list[int]] = {}
        for name, size in self.sizes.items():
            kinds.setdefault(re.split("[:/]", name)[0], []).append(size)
        rows = [(kind, len(sizes), max(sizes), sum(sizes)) for kind, sizes in sorted(kinds.items())]
        return pd.DataFrame(rows, columns=["kind", "znodes", "largest (bytes)", "all (bytes)"])


def _sizes(zookeeper: KazooClient, path: str, below: str = "") -> Iterator[tuple[str, int]]:
    """The znodes below a path, and below those: Marathon keeps them in one folder until 1.3, and then in a tree."""
    try:
        names = [f"{below}{name}" for name in zookeeper.get_children(f"{path}/{below}".rstrip("/"))]
    except NoNodeError:
        return
    for name, asked in [(name, zookeeper.exists_async(f"{path}/{name}")) for name in names]:
        stat = asked.get()
        if stat is None:
            continue  # it ended meanwhile
        if stat.dataLength or not stat.numChildren:  # else it is only a folder
            yield name, stat.dataLength
        if stat.numChildren:
            yield from _sizes(zookeeper, path, f"{name}/")
