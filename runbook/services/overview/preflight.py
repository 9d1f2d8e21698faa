"""Whether a site's files and hosts are fit for what is planned: `runbook check`, and chapter 0 before anything changes.

Every host is asked once, over SSH, all at the same time, and a pure function judges what they answered. A *problem* is
what a chapter would fail at, a *warning* what an operator should know; each has a remedy.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property

import pandas as pd
from rich.console import Console, ConsoleOptions, RenderResult

from runbook.errors import (
    AuthenticationRefused,
    BecomeFailed,
    HostKeyChanged,
    HostKeyRevoked,
    HostKeyUnknown,
    LoginShellFailed,
    Problem,
    StepFailed,
)
from runbook.remote.containers import PUBLISHED, Published, published, way_out
from runbook.remote.hosts import POOL, Hosts, Output
from runbook.remote.probes import LISTENERS, OWN_NAMES, ahead, listeners, loopback_names, timed, values
from runbook.remote.shell import facts, quote
from runbook.remote.steps import STATE_DIR
from runbook.services.docker.images import needed
from runbook.services.zookeeper_diagnosis import ENVIRONMENT, moved
from runbook.site import HostParameters, Site
from runbook.views.tables import Table

REACH_TIMEOUT = 2.0
"""Seconds after which a port that says nothing, not even that nobody listens, counts as closed by a firewall."""

FEW = 6
"""Hosts up to which a page is wide enough for a column each."""

TOOLS = (
    *(
        "awk",
        "base64",
        "cat",
        "chmod",
        "chown",
        "cp",
        "cut",
        "date",
        "df",
        "dirname",
        "env",
        "find",
        "flock",
        "getconf",
    ),
    *("grep", "head", "ls", "mkdir", "mktemp", "mv", "od", "readlink", "rm", "sed", "sha256sum", "sleep", "sort"),
    *("stat", "sync", "tail", "timeout", "tr", "xargs"),
)
"""What the scripts of steps and questions call."""


class State(StrEnum):
    """How one check of one host came out; `unknown` where an earlier one kept it from being made."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"
    UNKNOWN = "unknown"


MARKS = {State.OK: "✓", State.WARNING: "⚠", State.PROBLEM: "✗", State.UNKNOWN: "–"}


@dataclass(frozen=True)
class Item:
    """One check of one host: what was found (short), and, unless it is well, what it means and what to do."""

    host: str
    check: str
    state: State
    found: str
    meaning: str = ""
    remedy: str = ""


@dataclass(frozen=True, repr=False)
class Preflight:
    """The outcome: problems of files and secrets, and every check of every host. Shows as tables."""

    site: str
    files: tuple[Problem, ...]
    items: tuple[Item, ...]

    @property
    def ok(self) -> bool:
        """Whether there is no problem, of files, secrets or hosts; warnings do not count."""
        return not self.files and self.fit

    @property
    def fit(self) -> bool:
        """Whether no host has a problem."""
        return not self.having(State.PROBLEM)

    def having(self, state: State) -> tuple[Item, ...]:
        """The checks that came out so."""
        return tuple(item for item in self.items if item.state is state)

    @property
    def frame(self) -> pd.DataFrame:
        """Hosts x checks, each cell a mark and what was found."""
        cells: dict[str, dict[str, str]] = {}
        for item in self.items:
            cells.setdefault(item.host, {})[item.check] = f"{MARKS[item.state]} {item.found}".rstrip()
        checks = list(dict.fromkeys(item.check for item in self.items))
        return pd.DataFrame.from_dict(cells, orient="index", columns=checks).rename_axis("host").fillna("")

    @property
    def tables(self) -> list[Table]:
        """The checks (of few hosts a row each, of many a column each), and what is to do: problems before warnings."""
        hosts = {item.host for item in self.items}
        checks = self.frame.T.rename_axis("check") if len(hosts) <= FEW else self.frame
        told = [Table(checks, self.heading, states=tuple(checks.columns))]
        rows = [
            ("✗ problem", "this machine", problem.place, f"{problem.field}: {problem.message}", problem.remedy)
            for problem in self.files
        ]
        for state in (State.PROBLEM, State.WARNING):
            for (check, meaning, remedy), where in self._grouped(state).items():
                rows.append((f"{MARKS[state]} {state}", ", ".join(where), check, meaning, remedy))
        if rows:
            frame = pd.DataFrame(rows, columns=["state", "where", "check", "what it means", "remedy"])
            told.append(Table(frame, "What to do", states=("state",)))
        return told

    @property
    def heading(self) -> str:
        """One line: how many problems and warnings."""
        problems = len(self.files) + len(self.having(State.PROBLEM))
        hosts = len({item.host for item in self.items})
        warnings = len(self.having(State.WARNING))
        return f"{self.site}: {_count(hosts, 'host')}, {_count(problems, 'problem')}, {_count(warnings, 'warning')}"

    def _grouped(self, state: State) -> dict[tuple[str, str, str], list[str]]:
        groups: dict[tuple[str, str, str], list[str]] = {}
        for item in self.having(state):
            groups.setdefault((item.check, item.meaning or item.found, item.remedy), []).append(item.host)
        return groups

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for table in self.tables:
            yield table
            yield ""

    def _repr_html_(self) -> str:
        return "".join(table._repr_html_() for table in self.tables)

    def __repr__(self) -> str:
        return "\n\n".join(map(str, self.tables))


def run(site: Site, hosts: Hosts | None = None) -> Preflight:
    """Look at the files and secrets that `site` names, ask all its hosts, and judge.

    `hosts`: connections to use (default: own ones, closed at the end). Raises nothing: what is wrong is in the result.
    """
    fleet = hosts or Hosts.of(site)
    try:
        with ThreadPoolExecutor(max_workers=min(POOL, len(site.hosts)), thread_name_prefix="preflight") as pool:
            seen = list(pool.map(lambda host: _ask(site, host, fleet), site.hosts))
    finally:
        if hosts is None:
            fleet.close()
    return Preflight(site.name, (*site.missing_files(), *site.missing_secrets()), judge(site, seen))


# asking


@dataclass(frozen=True)
class Seen:
    """What one host answered.

    `reached` says of each port that this machine asks whether anything answered there, if only that nobody listens.
    """

    host: HostParameters
    output: Output
    reached: Mapping[int, bool]

    @cached_property
    def fact(self) -> Mapping[str, str]:
        """The values that there is one of."""
        return facts(self.output.stdout)

    @property
    def skew(self) -> float:
        """By how many seconds it is surely ahead (negative: behind); 0 where it may be right."""
        least, most = ahead(self.output)
        return least if least > 0 else most if most < 0 else 0.0


# `.` ends a POSIX shell where its file is missing or malformed, so it stands in a subshell.
_QUESTION = r"""
echo "uid=$(id -u)"
( . /etc/os-release && echo "os=$PRETTY_NAME" && echo "os_id=$ID" && echo "os_version=$VERSION_ID" ) 2>/dev/null
echo "kernel=$(uname -r)"
echo "cpus=$(getconf _NPROCESSORS_ONLN)"
awk '$1 == "MemTotal:" {{ print "memory=" $2 }}' /proc/meminfo
echo "systemd=$(systemctl is-system-running 2>/dev/null)"
systemctl list-units --failed --no-legend --plain 2>/dev/null | awk '{{ print "failed=" $1 }}'
echo "firewalld=$(systemctl is-active firewalld 2>/dev/null)"
for t in {tools} rpm yum ss netstat java docker; do command -v "$t" >/dev/null 2>&1 && echo "tool=$t"; done
ip -o -4 addr 2>/dev/null | awk '{{ sub("/.*", "", $4); print "address=" $4 }}'
for p in {paths}; do
  d=$p; while [ ! -e "$d" ]; do d=$(dirname "$d"); done
  df -Pk "$d" | awk -v p="$p" 'NR == 2 {{ print "disk=" $4, $6, p }}'
done
if [ -x {zookeeper}/bin/zkServer.sh ]; then echo zookeeper=yes; fi
"""


# XFS as CentOS 7.2 makes it (ftype=0) cannot hold overlay. `modprobe -n` loads nothing.
_DOCKER_QUESTION = r"""
for p in {packages}; do rpm -q "$p" >/dev/null 2>&1 && echo "docker_package=$p"; done
{{ grep -qw overlay /proc/filesystems || modprobe -n overlay; }} >/dev/null 2>&1 && echo overlay=yes
d={root}; while [ ! -e "$d" ]; do d=$(dirname "$d"); done
xfs_info "$(df -Pk "$d" | awk 'NR == 2 {{ print $6 }}')" 2>/dev/null | grep -o 'ftype=[01]'
if command -v docker >/dev/null 2>&1; then
  timeout 20 docker images --format '{{{{.Repository}}}}:{{{{.Tag}}}}' 2>/dev/null | sed 's/^/image=/'
fi
"""


def question(site: Site, host: HostParameters) -> str:
    """The sh text that brings back what `judge` looks at. It changes nothing."""
    asked = _QUESTION.format(
        tools=" ".join(TOOLS),
        paths=" ".join(map(quote, _space(site, host))),
        zookeeper=quote(site.zookeeper.home),
    )
    if "zookeeper" in host.roles:
        asked += ENVIRONMENT.format(conf=quote(site.zookeeper.conf_dir))
    if "docker" in host.roles:
        packages = " ".join(map(quote, dict.fromkeys((site.docker.package, *DOCKER_PACKAGES, *DOCKER_POLICIES))))
        asked += _DOCKER_QUESTION.format(packages=packages, root=DOCKER_ROOT)
    if _containers(site, host):
        asked += f"if command -v docker >/dev/null 2>&1; then\n{PUBLISHED}fi\n"
    address = quote(host.address)
    return timed(f"{asked}{OWN_NAMES}own_names {address}\n{LISTENERS}")


def _ask(site: Site, host: HostParameters, hosts: Hosts) -> Seen:
    output = hosts.only(host.name).run(question(site, host))[host.name]
    ports = set(site.listening(host).values()) if output.ok and host.ssh.gateway is None else ()
    with ThreadPoolExecutor(max_workers=max(1, len(ports))) as pool:
        reached = dict(zip(ports, pool.map(lambda port: _reached(host.address, port), ports), strict=True))
    return Seen(host, output, reached)


def _reached(address: str, port: int) -> bool:
    """Whether something answers at a port, if only with a refusal; a firewall drops, or says 'no route'."""
    try:
        socket.create_connection((address, port), REACH_TIMEOUT).close()
    except ConnectionRefusedError:
        return True
    except OSError:
        return False
    return True


# judging


Found = tuple[State, str, str, str]
"""State, what was found, what it means, the remedy."""


def judge(site: Site, everybody: Sequence[Seen]) -> tuple[Item, ...]:
    """Every check of every host, from what they answered."""
    checks: dict[str, Callable[[Site, Seen], Found]] = {
        "clock": lambda site, seen: _clock(seen, [one.skew for one in everybody if one.output.ok]),
        "system": _system,
        "memory": _memory,
        "disk": _disk,
        "systemd": _systemd,
        "tools": _tools,
        "docker": _docker,
        "address": _address,
        "ports": _ports,
        "reach": _reach,
    }
    items: list[Item] = []
    for seen in everybody:
        items += _login(seen)
        for name, check in checks.items():
            found: Found = State.UNKNOWN, "", "", ""
            if seen.output.ok:
                with suppress(StepFailed):  # it lacks a tool that this is asked by, which `tools` tells
                    found = check(site, seen)
            items.append(Item(seen.host.name, name, *found))
    return tuple(items)


def _ok(found: str) -> Found:
    return State.OK, found, "", ""


_REFUSALS = {
    HostKeyUnknown: ("host key", "not known"),
    HostKeyChanged: ("host key", "changed"),
    HostKeyRevoked: ("host key", "revoked"),
    AuthenticationRefused: ("login", "refused"),
    LoginShellFailed: ("login", "no shell"),
    BecomeFailed: ("sudo", "refused"),
}


def _login(seen: Seen) -> Iterator[Item]:
    """Reached, host key, login, sudo: each stands on the one before."""
    host, error = seen.host.name, seen.output.error
    stages = ["reached", "host key", "login", "sudo"]
    failed, said = _REFUSALS.get(type(error), ("reached", "no")) if error else ("", "")
    if not error and not seen.output.ok:
        failed, said = "login", "no shell"
    if not failed and seen.fact["uid"] != "0":
        failed, said = "sudo", f"uid {seen.fact['uid']}"
    wrong = stages.index(failed) if failed else len(stages)
    well = ("yes", "known", seen.host.ssh.user, "root" if seen.host.ssh.become == "none" else "sudo")
    for place, stage in enumerate(stages):
        if place < wrong:
            yield Item(host, stage, State.OK, well[place])
        elif place > wrong:
            yield Item(host, stage, State.UNKNOWN, "")
        elif error:
            yield Item(host, stage, State.PROBLEM, said, error.message, error.remedy or "")
        elif failed == "sudo":
            meaning = f"{seen.host.ssh.user} is not root, and nothing that the chapters do can be done without"
            yield Item(host, stage, State.PROBLEM, said, meaning, "set ssh.become: sudo, or log in as root")
        else:
            meaning = f"the question failed: {seen.output.stderr.strip()}"
            yield Item(host, stage, State.PROBLEM, said, meaning, "see that the login has a shell of its own")


def _clock(seen: Seen, skews: Sequence[float]) -> Found:
    skew = seen.skew
    if abs(skew) < 1:
        return _ok(f"within {max(0.1, *map(abs, ahead(seen.output))):.1f} s")
    found = f"{abs(skew):.0f} s {'ahead' if skew > 0 else 'behind'}"
    remedy = "start chronyd or ntpd on all hosts and here, and see that they are in step"
    if len(skews) > 1 and max(skews) - min(skews) < 1:
        meaning = f"the hosts agree with each other, and are {found} of this machine, whose clock may be the wrong one"
        return State.WARNING, found, meaning, remedy
    meaning = f"its clock is {found} of this machine's: log lines of several hosts cannot be put in order"
    return State.PROBLEM if abs(skew) > 60 else State.WARNING, found, meaning, remedy


def _system(site: Site, seen: Seen) -> Found:
    name, version = seen.fact.get("os_id", ""), seen.fact.get("os_version", "")
    found = seen.fact.get("os", "unknown").removesuffix(" (Core)")
    if name in ("centos", "rhel") and version.split(".")[0] == "7":
        return _ok(found)
    remedy = "see that the site's yum repositories and RPM files are made for this system"
    return (
        State.WARNING,
        found,
        f"{found} is not CentOS 7, for which the packages of the document are built (0.3)",
        remedy,
    )


MEMORY = {"zookeeper": 1024, "mesos_master": 512, "mesos_slave": 1024, "marathon": 768, "docker": 256, "registry": 256}
"""Megabytes that each role takes by itself: ZooKeeper's and Marathon's heap with what Java adds, daemons with room for
their state; of a slave the 1 GB that Mesos leaves to the host (mesos-slave, Slave::recover, its default resources)."""


def _memory(site: Site, seen: Seen) -> Found:
    have = int(seen.fact["memory"]) // 1024
    need = sum(MEMORY.get(role, 128) for role in seen.host.roles)
    found = f"{have / 1024:.1f} GB, {seen.fact['cpus']} CPUs"
    if have >= need:
        return _ok(found)
    meaning = f"{have} MB of memory, and its roles take about {need} MB before the first task"
    return State.PROBLEM, found, meaning, "give the host more memory, or fewer roles"


def _space(site: Site, host: HostParameters) -> dict[str, float]:
    """Folders on a host, and how many GB should be free there."""
    needs: dict[str, Mapping[str, float]] = {
        "zookeeper": {site.zookeeper.data_dir: 1, site.zookeeper.log_dir: 0.5},
        "mesos_master": {site.mesos.master.work_dir: 0.5, site.mesos.master.log_dir: 1},
        "mesos_slave": {site.mesos.slave.work_dir: 2, site.syslog.log_dir: 1},
        "docker": {DOCKER_ROOT: 5},
        "registry": {site.registry.data_dir: 5},
    }
    space = {STATE_DIR: 1.0}
    for role in host.roles:
        for path, gigabytes in needs.get(role, {}).items():
            space[path] = max(gigabytes, space.get(path, 0))
    return space


def _disk(site: Site, seen: Seen) -> Found:
    """Folders of one filesystem share what is free on it."""
    need: dict[str, float] = {}
    free: dict[str, float] = {}
    for line in values(seen.output.stdout, "disk"):
        kilobytes, mount, path = line.split(" ", 2)
        need[mount] = need.get(mount, 0) + _space(site, seen.host)[path]
        free[mount] = int(kilobytes) / (1 << 20)
    found = ", ".join(f"{gigabytes:.0f} GB at {mount}" for mount, gigabytes in free.items())
    short = [mount for mount in free if free[mount] < need[mount]]
    if not short:
        return _ok(found)
    state = State.PROBLEM if any(free[mount] < need[mount] / 4 for mount in short) else State.WARNING
    meaning = "; ".join(f"{free[mount]:.1f} GB free at {mount}, {need[mount]:g} GB should be" for mount in short)
    return state, found, meaning, "make room, or put the folders of the parameters elsewhere"


def _systemd(site: Site, seen: Seen) -> Found:
    state, failed = seen.fact["systemd"], values(seen.output.stdout, "failed")
    if seen.fact["firewalld"] == "active":
        meaning = "firewalld runs: it must let the cluster's ports in, and a reload of it takes Docker's rules away"
        return State.WARNING, "firewalld", meaning, "open the ports of this page in it; after a reload, restart docker"
    if state == "degraded":
        return State.WARNING, "degraded", f"failed: {', '.join(failed)}", "look at them: systemctl --failed"
    if state in ("running", "starting"):
        return _ok(state)
    if set(seen.host.roles) == {"zookeeper"}:
        return _ok("not needed")
    meaning = f"systemd does not manage this host ({state or 'no systemctl'}): Mesos, Marathon and Docker are its units"
    return State.PROBLEM, state or "none", meaning, "use a host that boots with systemd"


def _tools(site: Site, seen: Seen) -> Found:
    have, roles = set(values(seen.output.stdout, "tool")), set(seen.host.roles)
    missing = [tool for tool in TOOLS if tool not in have]
    if roles & {"mesos_master", "mesos_slave", "docker"}:
        missing += [tool for tool in ("yum", "rpm") if tool not in have]
    if "marathon" in roles and "rpm" not in have | set(missing):
        missing.append("rpm")
    if "zookeeper" in roles and "zookeeper" not in seen.fact:
        meaning = (
            f"ZooKeeper is not at {site.zookeeper.home}: this runbook uses the one that Hadoop brought along (1.1)"
        )
        return State.PROBLEM, "no zkServer.sh", meaning, "correct zookeeper.home, or install ZooKeeper there"
    if "zookeeper" in roles and (elsewhere := [*moved(site, seen.output.stdout)]):
        causes, evidences, hints = zip(*elsewhere, strict=True)
        meaning = f"{'; '.join(evidences)}: 1.2 would wait for a ZooKeeper that it does not see start"
        state = State.PROBLEM if "another pid file" in causes[0] else State.WARNING
        if state is State.WARNING:
            meaning = f"{evidences[0]}: 1.2 and 1.3 would not find its logs"
        return state, "zookeeper-env.sh", meaning, "; ".join(hints)
    if missing:
        return State.PROBLEM, f"no {', '.join(missing)}", f"missing: {', '.join(missing)}", "install what is missing"
    if not have & {"ss", "netstat"}:
        meaning = "without ss or netstat nobody can say who holds a port"
        return State.WARNING, "no ss", meaning, "install iproute (ss)"
    if roles & {"zookeeper", "marathon"} and "java" not in have:
        meaning = "java is not in the PATH: ZooKeeper and Marathon need it there, or JAVA_HOME in their settings"
        return State.WARNING, "no java", meaning, "see that both find a Java"
    return _ok("all there")


DOCKER_ROOT = "/var/lib/docker"
DOCKER_PACKAGES = ("docker-ce", "docker", "docker-io", "docker-latest", "docker-common", "moby-engine", "podman-docker")
"""Packages that bring a docker of their own, and that docker-engine cannot be installed beside."""
DOCKER_POLICIES = ("docker-selinux", "container-selinux")
"""SELinux policies of other Dockers, which docker-engine-selinux cannot be installed beside, and docker-engine requires
that (docker-engine-selinux.spec of 1.11.1: Conflicts; containers/container-selinux issue 35)."""
UNPACKED = 3
"""How many times its archive's size an image may take in Docker's folder; archives may be gzipped."""


def _docker(site: Site, seen: Seen) -> Found:
    if "docker" not in seen.host.roles:
        return _ok("not needed")
    package, there = site.docker.package, values(seen.output.stdout, "docker_package")
    have = [one for one in there if one not in DOCKER_POLICIES]
    policies = [one for one in there if one in DOCKER_POLICIES]
    if have and package not in have:
        meaning = f"{', '.join(have)} is installed, and {package} cannot be installed beside it"
        remedy = f"set docker.package to {have[0]} (6.1 and 7.3 label their folders where it runs with SELinux), "
        remedy += "or remove it first: its containers end with it"
        if policies:
            remedy += f"; remove {', '.join(policies)} with it"
        return State.PROBLEM, have[0], meaning, remedy
    if policies and package == "docker-engine" and package not in have:
        meaning = (
            f"{', '.join(policies)} is installed, and docker-engine requires docker-engine-selinux, which conflicts"
        )
        return State.PROBLEM, policies[0], meaning, f"remove it first: yum remove {' '.join(policies)}"
    if not have and "docker" in values(seen.output.stdout, "tool"):
        meaning = f"there is a docker command that no package brought, and {package} would not replace it everywhere"
        return State.PROBLEM, "of no package", meaning, "remove it: command -v docker"
    lacks = [
        f"{gigabytes:.1f} GB at {mount} for archives and images, {free:.1f} GB free"
        for mount, (gigabytes, free) in _room_for_images(site, seen).items()
        if gigabytes > free
    ]
    if lacks:
        return State.PROBLEM, "no room for images", f"it takes {'; '.join(lacks)}", "make room there"
    if "overlay" not in seen.fact or seen.fact.get("ftype") == "0":
        what = f"XFS without ftype at {DOCKER_ROOT}" if "overlay" in seen.fact else "no overlay in the kernel"
        meaning = f"{what}: Docker stores in loop files instead, which are slow and fill up unseen"
        return (
            State.WARNING,
            "no overlay",
            meaning,
            f"give {DOCKER_ROOT} a filesystem that can (XFS with ftype=1, ext4)",
        )
    return _ok(have[0] if have else "to be installed")


def _room_for_images(site: Site, seen: Seen) -> dict[str, tuple[float, float]]:
    """By filesystem, the GB that images will take which the host does not have yet, and those that are free."""
    there = values(seen.output.stdout, "image")
    files = [image.file for image in needed(site, seen.host).values() if image.tag not in there]
    size = sum(file.stat().st_size for file in files if file.is_file()) / (1 << 30)
    room: dict[str, tuple[float, float]] = {}
    for line in values(seen.output.stdout, "disk"):
        kilobytes, mount, path = line.split(" ", 2)
        needs = {STATE_DIR: size, DOCKER_ROOT: size * UNPACKED}.get(path, 0.0)
        room[mount] = room.get(mount, (0.0, 0.0))[0] + needs, int(kilobytes) / (1 << 20)
    return room


def _address(site: Site, seen: Seen) -> Found:
    have = [address for address in values(seen.output.stdout, "address") if not address.startswith("127.")]
    wanted = seen.host.address
    if loopback := loopback_names(seen.output.stdout):
        return _loopback(seen.host, *loopback[-1])
    if wanted in have or not wanted.replace(".", "").isdecimal():
        return _ok(wanted)
    meaning = (
        f"{wanted} is on none of its interfaces ({', '.join(have)}), and services are told to listen there (2.2.4)"
    )
    return State.PROBLEM, ", ".join(have), meaning, "give the address that the host has itself, not that of a router"


def _loopback(host: HostParameters, name: str, address: str, line: int) -> Found:
    """What it costs that /etc/hosts maps the host's own name to the loopback: worst where services are called by it."""
    hurt = [
        "libprocess announces it, so that masters do not reach frameworks and executors that have no LIBPROCESS_IP"
    ] * bool({"mesos_master", "mesos_slave", "marathon"}.intersection(host.roles))
    by_name = name == host.address
    if by_name and "zookeeper" in host.roles:
        hurt.append("ZooKeeper binds its quorum and election ports to it")
    if by_name and "marathon" in host.roles:
        hurt.append("Marathon's hostname leads its own requests to the loopback")
    meaning = (
        f"/etc/hosts line {line} maps its own name {name} to {address}: {'; '.join(hurt) or 'services bind to it'}"
    )
    remedy = f"take {name} out of that line, and map it to the address at which other hosts reach this one"
    return State.PROBLEM if by_name else State.WARNING, f"{name} is {address}", meaning, remedy


HOLDERS = {
    "zookeeper": "QuorumPeerMain",
    "mesos.master": "mesos-master",
    "mesos.slave": "mesos-slave",
    "marathon": "marathon",
    "registry": "docker-proxy",
    "registry_web": "docker-proxy",
}
"""What the command line of the process holds that should have a port, by the port's section in the parameters."""


def _containers(site: Site, host: HostParameters) -> dict[int, tuple[str, str, str]]:
    """By its port, the name and the image of each container that chapters 7 and 8 run on a host, and the section."""
    wanted = {
        "registry": (site.registry.port, site.registry.container, site.registry.image, "7.3"),
        "registry_web": (site.registry_web.port, site.registry_web.container, site.registry_web.image, "8.2"),
    }
    return {
        port: (name, site.images[image].tag if image in site.images else image, section)
        for role, (port, name, image, section) in wanted.items()
        if role in host.roles
    }


def _ports(site: Site, seen: Seen) -> Found:
    wanted, held = site.listening(seen.host), listeners(seen.output.stdout)
    if held is None:
        return State.WARNING, "not known", "the host cannot tell who holds which port", "install iproute (ss)"
    containers, running = _containers(site, seen.host), published(seen.output.stdout)
    taken, remedies, foreseen, own = [], [], [], 0
    for field, port in wanted.items():
        holders = [listener for listener in held if listener.port == port]
        strangers = [one for one in holders if HOLDERS[field.rpartition(".")[0]] not in one.command]
        taken += [f"port {port} ({field}) is held by {one}" for one in strangers]
        remedies += ["stop what holds it, or choose another port in the parameters"] * bool(strangers)
        other = next((one for one in running if port in one.ports), None)
        if other is None or port not in containers or strangers:
            own += bool(holders and not strangers)
        elif other.name == containers[port][0]:
            own += 1
        elif other.is_task or not other.same_image(containers[port][1]):
            taken.append(f"port {port} ({field}) is held by {other}")
            remedies.append(way_out(other))
        else:
            foreseen.append(_foreseen(port, other, *containers[port]))
    free = f"{len(wanted) - own - len(taken) - len(foreseen)} free" + (
        f", {own} in use by their service" if own else ""
    )
    if taken:
        return State.PROBLEM, f"{len(taken)} taken", "; ".join(taken), "; ".join(dict.fromkeys(remedies))
    free = f"{len(wanted) - own - len(foreseen)} free" + (f", {own} in use by their service" if own else "")
    if foreseen:
        remedy = "none is needed: look at the plan of that section first"
        return State.WARNING, f"{free}, {len(foreseen)} to be taken over", "; ".join(foreseen), remedy
    return _ok(free)


def _foreseen(port: int, other: Published, name: str, image: str, section: str) -> str:
    return f"{section} takes over {other} at port {port}: renamed to {name}, and replaced where it differs from {image}"


def _reach(site: Site, seen: Seen) -> Found:
    if not seen.reached:
        return _ok("by the gateway" if seen.host.ssh.gateway else "nothing to ask")
    closed = sorted(port for port, answered in seen.reached.items() if not answered)
    if not closed:
        return _ok(f"{len(seen.reached)} ports")
    found = ", ".join(map(str, closed))
    meaning = f"this machine gets no answer from ports {found}, and the checks of the chapters ask some of them"
    return State.WARNING, f"not {found}", meaning, "let this machine's address through, or work from within the network"


def _count(number: int, what: str) -> str:
    return f"{number or 'no'} {what}{'' if number == 1 else 's'}"
