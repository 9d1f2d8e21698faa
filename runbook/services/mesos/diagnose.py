"""Why Mesos does not do what it should: known failures found in its logs, flags and state, each with cause and remedy.

- `diagnose` finds the failures of `KNOWN` in log lines, and `milestones_table` the lines that a healthy start leaves
  (the document's 2.2.7 and 3.2).
- `slave_findings` says what will fail by a slave's flags, `cluster_findings` what is wrong by the leader's state.
- `fit_table` says why a task waits, `foreign_listeners` which ports Mesos offers though somebody else listens there.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta

import pandas as pd

from runbook.services.mesos.client import State
from runbook.services.mesos.election import Finding
from runbook.services.mesos.resources import Ranges
from runbook.services.mesos.tables import SCALARS, slaves_table, tasks_table, typed_table


@dataclass(frozen=True)
class Failure:
    """A known failure: the log line that betrays it, its cause, the remedy, and where this is known from.

    It counts as found from `at_least` such lines on.
    """

    name: str
    pattern: re.Pattern[str]
    cause: str
    remedy: str
    source: str
    at_least: int = 1


def _failure(name: str, pattern: str, *, cause: str, remedy: str, source: str, at_least: int = 1) -> Failure:
    return Failure(name, re.compile(pattern), cause, remedy, source, at_least)


_RECORDED = "recorded from Mesos 0.28.0"

KNOWN: tuple[Failure, ...] = (
    _failure(
        "no containerizer for Docker",
        r"[Nn]one of the enabled containerizers",
        cause="the slave runs with --containerizers=mesos, the default, and was given a Docker task",
        remedy="write docker,mesos to /etc/mesos-slave/containerizers and restart the slave",
        source="Mesos, src/slave/slave.cpp; 'Docker Containerizer' of its documentation",
    ),
    _failure(
        "executor registered too late",
        r"because it did not register within",
        cause="pulling the image took longer than --executor_registration_timeout, 1 minute by default",
        remedy="set /etc/mesos-slave/executor_registration_timeout to 5mins or more; load the image beforehand",
        source="Mesos, src/slave/slave.cpp; 'Docker Containerizer' of its documentation",
    ),
    _failure(
        "incompatible slave info",
        r"Incompatible (?:slave|agent) info detected",
        cause="resources, attributes, hostname or port of a slave that registered before have changed",
        remedy="run chapter 3: it shows which tasks a reset loses, asks, and removes meta/slaves/latest only",
        source=f"{_RECORDED}: slave-incompatible-*.log",
    ),
    _failure(
        "port taken by something else",
        r"port is already allocated|[Aa]ddress already in use",
        cause="a process that is not a Mesos task listens on a port which Mesos offers, or on the service's own",
        remedy="compare `ss -ltnp` with the slave's ports, and leave that port out of the slave's resources",
        source="Docker, libnetwork's portallocator; libprocess, src/process.cpp",
    ),
    _failure(
        "registry cannot be read",
        r"Failed to perform fetch within",
        cause="the leader found no quorum of log replicas: masters down, a wrong quorum, or a wrong --ip",
        remedy="count the children of /mesos/log_replicas, start the other masters, and compare their quorum and ip",
        source=f"{_RECORDED}: lone-master-timeline.log",
    ),
    _failure(
        "registry cannot be written",
        r"Failed to perform store within",
        cause="the leader lost the quorum of log replicas, and noticed with the next write",
        remedy="start the masters that are missing; the leader that aborted comes back by itself",
        source=f"{_RECORDED}: quorum-loss-leader-abort.log",
    ),
    _failure(
        "answers do not reach the framework",
        r"already registered, resending acknowledgement",
        cause="the master's answers do not arrive: the other side announced the loopback or another network's address",
        remedy="set LIBPROCESS_IP in /etc/default/marathon, or ip in /etc/mesos-slave, to an address the masters reach",
        source="Mesos, src/master/master.cpp",
        at_least=3,
    ),
    _failure(
        "bound to the loopback",
        r"(?:Slave|Agent|Master|Scheduler driver) bound to loopback interface",
        cause="no --ip (LIBPROCESS_IP for a framework) is given and the host's name resolves to 127.0.0.1",
        remedy="write the host's address to /etc/mesos-master/ip or /etc/mesos-slave/ip; for Marathon, LIBPROCESS_IP",
        source=f"{_RECORDED}: slave-incompatible-resources.log",
    ),
    _failure(
        "slave lost",
        r"Removed slave .*: health check timed out|with message 'health check timed out'",
        cause="the slave missed 5 pings of 15 s: host, network or slave down, or overloaded. Its tasks are TASK_LOST",
        remedy="see the host's load and network; when the slave returns, it is told to end, and starts with a new id",
        source=f"{_RECORDED}: KEY-LOG-LINES.log",
    ),
    _failure(
        "slave returned after its removal",
        r"re-register after removal",
        cause="the master had removed the slave (75 s of missed pings), and told it to end; it exits with 0",
        remedy="its next start registers it with a new id; systemd sees to that after 20 s",
        source=f"{_RECORDED}: slave-reregister-after-removal.log",
    ),
    _failure(
        "slave hears no master",
        r"No pings from master received within",
        cause="no master leads, or the leader does not reach the slave",
        remedy="run the check of chapter 2; see that the leader reaches the slave's address and port 5051",
        source=f"{_RECORDED}: KEY-LOG-LINES.log",
    ),
    _failure(
        "leadership lost",
        r"Lost leadership\.\.\. committing suicide",
        cause="the leader's ZooKeeper session expired (10 s), and it ended with 1: never two leaders",
        remedy="see ZooKeeper's quorum and the network to it; the master starts again by itself and stands by",
        source=f"{_RECORDED}: KEY-LOG-LINES.log",
    ),
    _failure(
        "ZooKeeper out of reach",
        r"Timed out waiting to connect to ZooKeeper",
        cause="ZooKeeper does not answer at the addresses in /etc/mesos/zk, or has no quorum",
        remedy="run the check of chapter 1",
        source=f"{_RECORDED}: KEY-LOG-LINES.log",
    ),
    _failure(
        "chains of the firewall are gone",
        r"No chain/target/match by that name",
        cause="firewalld (or another program) removed the iptables chains that Docker had made",
        remedy="drain the host and restart Docker, which makes them again; start the firewall before Docker",
        source="Docker, libnetwork's iptables",
    ),
    _failure(
        "disk nearly full",
        r"Current disk usage (?:9\d|100)(?:\.\d+)?%|No space left on device",
        cause="sandboxes, images or exited mesos-* containers fill the disk of the work_dir",
        remedy="lower gc_delay (1weeks) and docker_remove_delay (6hrs), remove exited containers",
        source=f"{_RECORDED}: the line's form, KEY-LOG-LINES.log; Mesos, src/slave/slave.cpp",
    ),
    _failure(
        "flag given twice",
        r"Duplicate flag '",
        cause="a file in /etc/mesos-master or /etc/mesos-slave names a flag that /etc/default sets too (PORT, port)",
        remedy="remove one of them: for the master's port keep PORT in /etc/default/mesos-master",
        source="stout, flags.hpp; Mesosphere's mesos-init-wrapper",
    ),
    _failure(
        "unknown flag",
        r"Failed to load unknown flag '",
        cause="every file in /etc/mesos-master and /etc/mesos-slave becomes a flag, a backup or *.rpmnew there as well",
        remedy="move that file elsewhere",
        source="stout, flags.hpp; Mesosphere's mesos-init-wrapper",
    ),
    _failure(
        "no systemd",
        r"Failed to locate systemd runtime directory",
        cause="the slave runs where systemd is not process 1",
        remedy="create the file /etc/mesos-slave/?no-systemd_enable_support, empty",
        source=f"{_RECORDED}: slave-systemd-support-exit1.log",
    ),
    _failure(
        "Docker's version not understood",
        r"Failed to parse docker version",
        cause="`docker --version` prints a version with a suffix, as Debian's does (20.10.24+dfsg1)",
        remedy="install the docker-engine package, which prints a plain version",
        source="seen with Mesos 0.28.0 and Debian's docker.io",
    ),
)


@dataclass(frozen=True)
class Diagnosis:
    """A known failure that was found, with how many lines betray it, and the first and the last of them."""

    failure: Failure
    count: int
    first: str
    last: str


def diagnose(lines: Iterable[str], failures: Iterable[Failure] = KNOWN) -> list[Diagnosis]:
    """The known failures in these log lines, in the order in which they began.

    The lines may be a program's own or syslog's.
    """
    failures = tuple(failures)
    found: dict[Failure, list[str]] = {}
    for line in lines:
        for failure in failures:
            if failure.pattern.search(line):
                found.setdefault(failure, []).append(line.strip())
    return [
        Diagnosis(failure, len(seen), seen[0], seen[-1])
        for failure, seen in found.items()
        if len(seen) >= failure.at_least
    ]


def diagnoses_table(diagnoses: Iterable[Diagnosis]) -> pd.DataFrame:
    """The diagnoses as a table: `failure`, `lines`, `cause`, `remedy`, `last_line`."""
    diagnoses = list(diagnoses)
    return typed_table(
        {"failure": "string", "lines": "Int64", "cause": "string", "remedy": "string", "last_line": "string"},
        {
            "failure": [found.failure.name for found in diagnoses],
            "lines": [found.count for found in diagnoses],
            "cause": [found.failure.cause for found in diagnoses],
            "remedy": [found.failure.remedy for found in diagnoses],
            "last_line": [found.last for found in diagnoses],
        },
    )


ELECTION: Mapping[str, re.Pattern[str]] = {
    "contends": re.compile(r"\] (Joining the ZK group)"),
    "is a candidate": re.compile(r"New candidate (\(id='\d+'\)) has entered the contest"),
    "knows the leader": re.compile(r"A new leading master \(UPID=(\S+)\) is detected"),
    "names the leader": re.compile(r"The newly elected leader is (\S+)"),
    "is elected": re.compile(r"(Elected as the leading master)"),
    "has the registry": re.compile(r"(Recovered \d+ (?:slaves|agents) from the Registry)"),
}
"""What a master's log shows after its start (document 2.2.7); the last two only on the leader."""

REGISTRATION: Mapping[str, re.Pattern[str]] = {
    "recovered": re.compile(r"\] (Finished recovery)"),
    "knows the leader": re.compile(r"New master detected at (\S+)"),
    "is registered": re.compile(r"(?:Registered|Re-registered) with master (\S+?)(?:;|$)"),
}
"""What a slave's log shows after its start (document 3.2)."""


def milestones_table(lines: Iterable[str], milestones: Mapping[str, re.Pattern[str]]) -> pd.DataFrame:
    """For each milestone whether it was reached, what it says (`detail`), and the last line that says so."""
    last: dict[str, tuple[str, str]] = {}
    for line in lines:
        for name, pattern in milestones.items():
            if match := pattern.search(line.rstrip()):
                last[name] = match[1], line.strip()
    reached = [last.get(name, (None, None)) for name in milestones]
    return typed_table(
        {"milestone": "string", "reached": "boolean", "detail": "string", "line": "string"},
        {
            "milestone": list(milestones),
            "reached": [name in last for name in milestones],
            "detail": [detail for detail, _ in reached],
            "line": [line for _, line in reached],
        },
    )


def slave_findings(flags: Mapping[str, str], *, ports: Ranges, open_ports: Ranges | None = None) -> Iterator[Finding]:
    """What will fail on a slave with these flags and ports, before it does.

    `open_ports`: what the site's firewall lets in. Sources: the failures above, and the document's 3.3.
    """
    if "docker" not in flags.get("containerizers", "mesos").split(","):
        remedy = "write docker,mesos to /etc/mesos-slave/containerizers"
        yield Finding("degraded", "it cannot run Docker tasks: --containerizers lacks docker", remedy)
    elif duration(flags.get("executor_registration_timeout", "1mins")) < timedelta(minutes=5):
        what = (
            f"a Docker task must start within {flags.get('executor_registration_timeout', '1mins')}, its pull included"
        )
        yield Finding("degraded", what, "set /etc/mesos-slave/executor_registration_timeout to 5mins")
    work_dir = flags.get("work_dir", "/tmp/mesos")
    if work_dir == "/tmp" or work_dir.startswith("/tmp/"):
        what = f"its work_dir is {work_dir}, which systemd-tmpfiles empties after 10 days"
        yield Finding("degraded", what, "set /etc/mesos-slave/work_dir to /var/lib/mesos; it registers anew")
    if not ports:
        yield Finding("degraded", "it offers no ports", "name ports in /etc/mesos-slave/resources")
    if open_ports is not None and ports - open_ports:
        what = f"it offers ports that the firewall keeps shut: {ports - open_ports}"
        yield Finding("degraded", what, f"offer only ports within {open_ports} in /etc/mesos-slave/resources")


def cluster_findings(state: State) -> Iterator[Finding]:
    """What is wrong by the leader's state: slaves that are being lost, tasks without a framework."""
    for slave in state["slaves"]:
        if not slave["active"]:
            what = f"the slave {slave['hostname']} ({slave['id']}) does not answer"
            yield Finding("degraded", what, "start it within 75 s of its end: after that its tasks are lost")
    orphans = tasks_table(state).query("orphan and live")
    if len(orphans):
        what = f"{len(orphans)} tasks run without their framework: {', '.join(orphans['id'][:5])}"
        remedy = "wait until the framework registers again; end one that will not, with a teardown of its id"
        yield Finding("degraded", what, remedy)


def fit_table(
    state: State,
    *,
    cpus: float = 0.0,
    mem: float = 0.0,
    disk: float = 0.0,
    ports: int = 0,
    host_ports: Collection[int] = (),
) -> pd.DataFrame:
    """On which slave one task would fit, and what each of the others lacks: why an app stays 'Waiting'.

    A task must fit one slave; what several have free together does not help it. `cpus` in CPUs, `mem` and `disk`
    in MB, `ports` any ports at all, `host_ports` these very ports.
    """
    slaves = slaves_table(state)
    wanted = dict(zip(SCALARS, (cpus, mem, disk), strict=True))
    lacks = []
    for slave in slaves.to_dict("records"):
        free = Ranges.parse(slave["ports_free"])
        missing = [] if slave["active"] else ["it is not active"]
        missing += [
            f"{name}: {amount:g} wanted, {slave[f'{name}_free']:g} of {slave[name]:g} free"
            for name, amount in wanted.items()
            if amount > slave[f"{name}_free"]
        ]
        for port in host_ports:
            if port not in free:
                offered = port in Ranges.parse(slave["ports"])
                missing.append(f"port {port}: {'in use' if offered else 'not among its ports ' + slave['ports']}")
        if ports > len(free):
            missing.append(f"ports: {ports} wanted, {len(free)} free")
        lacks.append("; ".join(missing))
    return typed_table(
        {"host": "string", "slave_id": "string", "fits": "boolean", "lacks": "string"},
        {
            "host": list(slaves["host"]),
            "slave_id": list(slaves["id"]),
            "fits": [not lack for lack in lacks],
            "lacks": lacks,
        },
    )


def foreign_listeners(listening: str, ports: Ranges, used: Ranges) -> Ranges:
    """The ports on which somebody listens though Mesos takes them for free, and offers them.

    `listening`: what `ss -ltn` prints on the slave's host. `ports`, `used`: the slave's, from the leader's state.
    """
    found = []
    for line in listening.splitlines():
        fields = line.split()
        if fields[:1] == ["LISTEN"]:
            port = int(fields[3].rpartition(":")[2])
            found.append((port, port))
    return (Ranges(found) & ports) - used


_UNITS: Mapping[str, timedelta] = {
    "ns": timedelta(0),  # too short to tell apart here; 0ns is how Mesos writes none
    "us": timedelta(microseconds=1),
    "ms": timedelta(milliseconds=1),
    "secs": timedelta(seconds=1),
    "mins": timedelta(minutes=1),
    "hrs": timedelta(hours=1),
    "days": timedelta(days=1),
    "weeks": timedelta(weeks=1),
}


def duration(text: str) -> timedelta:
    """A duration as Mesos' flags have it: `5mins`, `1.5hrs`. Raises ValueError for anything else."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([a-z]+)", text.strip())
    if match is None or match[2] not in _UNITS:
        raise ValueError(f"{text!r} is not a duration such as 5mins ({', '.join(_UNITS)})")
    return float(match[1]) * _UNITS[match[2]]
