"""What a host that runs a mesos-master or a mesos-slave should be (document 2.1 to 2.2.6, and 3.1 to 3.3).

The order matters. Mesosphere's package ships `quorum` 1 and a ZooKeeper on localhost, and its post-install enables both
services (`systemctl enable`): whatever starts them before they are configured makes a master that leads alone. Its
configuration cannot be written before it either: all of /etc is %config(noreplace), so that rpm puts its own version
beside ours, and `/etc/mesos-master/quorum.rpmnew` is an unknown flag to a master that then refuses to start. Therefore

    hold the units back (`Hold`), install, write the files, see that no stray file is there (`FlagFolder`),
    let the unit go (`Release`), start it (`Daemon`)

and a run that dies in between leaves units that do not start, and is mended by the next one.

Sources: Mesosphere's mesos-deb-packaging (build_mesos, mesos-init-wrapper, the post-install); 'Operational Guide' of
Mesos' documentation (changing the master quorum); systemd.unit(5) (drop-ins, conditions).
"""

from __future__ import annotations

import base64
import ipaddress
import re
import socket
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

from runbook.errors import EndpointUnreachable, StepFailed
from runbook.remote.probes import values
from runbook.remote.shell import Facts, facts, heredoc, quote
from runbook.remote.steps import (
    Absent,
    Change,
    File,
    Lines,
    Package,
    Service,
    Step,
    put_away,
    sha256,
    unified_diff,
)
from runbook.remote.units import PackagedUnit, SafePaths
from runbook.secrets import mask_arguments
from runbook.services import zookeeper
from runbook.services.flags import ACTIVATE, FlagDaemon, FlagSource, ForeignFlags
from runbook.services.mesos.resources import parse_value, show
from runbook.services.mesos.slave_info import Difference
from runbook.site import HostParameters, MesosMasterParameters, MesosSlaveParameters, Site
from runbook.wording import plural

MASTER = "mesos-master"
SLAVE = "mesos-slave"
ROLES = {MASTER: "mesos_master", SLAVE: "mesos_slave"}
"""The role of a host that runs each of them."""

DEFAULT_WORK_DIR = "/tmp/mesos"
"""Where a slave of 0.28 works that is not told otherwise."""

RESET = "reset-slave-metadata"
"""The gate before a slave forgets its id, and before what it left behind is ended."""
QUORUM = "change-quorum"
"""The gate before masters that have run get another quorum."""


def ip_of(host: HostParameters) -> str:
    """The IPv4 address that a host's Mesos binds to and announces: `--ip` takes no name.

    Raises EndpointUnreachable where the parameters give a name that nobody knows here.
    """
    try:
        return str(ipaddress.IPv4Address(host.address))
    except ipaddress.AddressValueError:
        pass
    try:
        return socket.gethostbyname(host.address)
    except OSError as error:
        raise EndpointUnreachable(
            f"{host.name}: no address is known for {host.address}: {error.strerror}",
            "write its IPv4 address into the parameters, or let this machine resolve the name",
        ) from error


# 2.1 and 3.1: the package


def install(site: Site) -> tuple[Step, ...]:
    """The package (2.1), with both of its services held back until each is configured."""
    package = site.mesos.package
    return Hold(MASTER, package), Hold(SLAVE, package), Package(package, site.mesos.version)


@dataclass(frozen=True)
class _Held(Step):
    """A unit that a drop-in keeps from starting. The drop-in's condition is that it is not there itself."""

    unit: str

    @property
    def path(self) -> str:
        """The drop-in. (Masking the unit would let the package's own `systemctl enable` fail.)"""
        return f"/etc/systemd/system/{self.unit}.service.d/unconfigured.conf"

    @property
    def touches(self) -> frozenset[str]:
        return frozenset({self.path})

    def probe(self) -> str:
        return f"if [ -e {quote(self.path)} ]; then echo held=yes; else echo held=no; fi\n"


@dataclass(frozen=True)
class Hold(_Held):
    """Until its package is there, the unit is kept from starting, whoever wants to start it."""

    package: str

    @property
    def label(self) -> str:
        return f"hold {self.unit} back"

    @property
    def _content(self) -> bytes:
        return (
            f"# {self.unit} is installed and not configured yet. The runbook removes this file before it starts it;\n"
            "# to do without the runbook, configure it, remove this file and run `systemctl daemon-reload`.\n"
            f"[Unit]\nConditionPathExists=!{self.path}\n"
        ).encode()

    def probe(self) -> str:
        installed = f"if rpm -q {quote(self.package)} >/dev/null 2>&1; then echo installed=yes; "
        return f"{super().probe()}{installed}else echo installed=no; fi\n"

    def plan(self, state: str, pending: frozenset[str] = frozenset()) -> Change | None:
        present = facts(state)
        if "yes" in (present["held"], present["installed"]):
            return None
        return Change("until it is configured", unified_diff(self.path, None, self._content))

    def script(self, change: Change) -> str:
        folder = quote(self.path.rpartition("/")[0])
        return (
            f"set -e\nmkdir -p {folder}\ncd {folder}\n"
            f"base64 -d > .new {heredoc(self._content)}\nmv -f .new {quote(self.path)}\n"
            "systemctl daemon-reload\n"
        )


@dataclass(frozen=True)
class Release(_Held):
    """The unit may start: what `Hold` wrote is gone."""

    @property
    def label(self) -> str:
        return f"let {self.unit} start"

    def plan(self, state: str, pending: frozenset[str] = frozenset()) -> Change | None:
        if facts(state)["held"] == "no":
            return None
        return Change("remove the drop-in", f"-{self.path}\n")

    def script(self, change: Change) -> str:
        path = quote(self.path)
        folder = quote(self.path.rpartition("/")[0])
        return f"set -e\nrm -f {path}\nrmdir --ignore-fail-on-non-empty {folder}\nsystemctl daemon-reload\n"


# what becomes of files


VARIABLES: Mapping[str, Mapping[str, str]] = {
    MASTER: {"zk": "ZK", "ip": "IP", "port": "PORT", "cluster": "CLUSTER", "log_dir": "LOGS"},
    SLAVE: {"master": "MASTER", "ip": "IP", "log_dir": "LOGS", "isolation": "ISOLATION"},
}
"""What the package's start script makes flags of, besides the files. The slave has no PORT."""

_OWN_FLAGS = {
    MASTER: frozenset({"quorum", "ip", "hostname", "work_dir", "cluster", "port", "zk", "log_dir"}),
    SLAVE: frozenset(
        {"ip", "hostname", "port", "work_dir", "containerizers", "executor_registration_timeout", "resources"}
        | {"attributes", "master", "log_dir"}
    ),
}
"""The flags that this module writes, by file or variable."""


def flag_source(program: str) -> FlagSource:
    """Where mesos-init-wrapper takes the flags of mesos-master or mesos-slave from."""
    own = f"/etc/default/{program}"
    variables = ("PORT", "ZK") if program == MASTER else ("MASTER",)
    return FlagSource(
        unit=program,
        directory=f"/etc/{program}",
        lists=() if program == MASTER else LISTS,
        defaults=("/etc/default/mesos", own),
        variables=VARIABLES[program],
        prefix="MESOS_",
        script="mesos-init-wrapper",
        own=_OWN_FLAGS[program],
        own_variables=frozenset({"/etc/default/mesos:LOGS", *(f"{own}:{name}" for name in variables)}),
        shipped={"/etc/default/mesos:ULIMIT": "-n 8192"},
    )


def drift(site: Site, program: str) -> tuple[Step, ...]:
    """What an administrator changed of a program beside its settings: its unit, its flags, who may write its files."""
    parameters: MesosMasterParameters | MesosSlaveParameters = (
        site.mesos.master if program == MASTER else site.mesos.slave
    )
    held = Release(program).path
    defaults = ("/etc/default", "/etc/default/mesos", f"/etc/default/{program}")
    paths = (
        f"/etc/{program}",
        "/etc/mesos",
        "/etc/mesos/zk",
        *defaults,
        parameters.work_dir,
        site.mesos.master.log_dir,
    )
    return (
        PackagedUnit(program, site.mesos.package, own=(held,), allowed=parameters.allowed_drop_ins),
        ForeignFlags(flag_source(program), frozenset(parameters.allowed_flags)),
        SafePaths(program, paths),
    )


# The first backup of a record stays: it is the state before it (see File).


@dataclass(frozen=True)
class FlagFolder(Step):
    """No stray file in `/etc/mesos-master` or `/etc/mesos-slave`: every file there becomes a flag of the program.

    What rpm leaves there (`*.rpmnew` and the like) is put away, as the runbook's own installation brings it about.
    Anything else that would be fatal is somebody's, and refused: a name that the program's own `--help` does not list,
    and a flag that /etc/default gives as well.
    """

    program: str

    LEFTOVERS: ClassVar = (".rpmnew", ".rpmsave", ".rpmorig")
    VARIABLES: ClassVar[Mapping[str, Mapping[str, str]]] = VARIABLES
    OWN: ClassVar = frozenset(
        {"quorum", "ip", "hostname", "work_dir", "cluster", "port", "containerizers", "resources", "attributes"}
        | {"executor_registration_timeout"}
    )
    """Flags that the runbook writes, so that the program need not be asked about them."""

    @property
    def folder(self) -> str:
        """The folder of flags."""
        return f"/etc/{self.program}"

    @property
    def touches(self) -> frozenset[str]:
        return frozenset({self.folder})

    @property
    def label(self) -> str:
        return f"flags in {self.folder}"

    def probe(self) -> str:
        return _PROBE_FLAGS.format(
            folder=quote(self.folder),
            program=quote(self.program),
            leftovers="|".join(f"*{suffix}" for suffix in self.LEFTOVERS),
            own="|".join(sorted(self.OWN)),
            defaults=f"/etc/default/mesos {quote(f'/etc/default/{self.program}')}",
        )

    def plan(self, state: str, pending: frozenset[str] = frozenset()) -> Change | None:
        if unknown := values(state, "unknown"):
            paths = ", ".join(f"{self.folder}/{name}" for name in unknown)
            raise StepFailed(
                f"{paths}: not a flag of {self.program}, which makes a flag of every file there and will not start",
                f"move it elsewhere: mv {quote(f'{self.folder}/{unknown[0]}')} /root/",
            )
        for message, remedy in self._twice(state):
            raise StepFailed(message, remedy)
        if not (leftovers := values(state, "leftover")):
            return None
        diff = "".join(f"-{self.folder}/{name} (rpm's; a backup is kept)\n" for name in leftovers)
        return Change("put away what rpm left", diff, actions=leftovers)

    def _twice(self, state: str) -> Iterator[tuple[str, str]]:
        given = dict(line.split(" ", 1) for line in values(state, "variable"))
        for flag, variable in self.VARIABLES[self.program].items():
            if flag in values(state, "flag") and variable in given:
                file, default = f"{self.folder}/{flag}", given[variable]
                message = f"{file} and {variable} in {default} both give --{flag}, and {self.program} refuses to start"
                # 2.2.5 sets the master's port by PORT; of all other flags the runbook writes the file.
                if flag in self.OWN and not (self.program == MASTER and flag == "port"):
                    yield message, f"take {variable} out of {default}"
                else:
                    yield message, f"remove {file}: the runbook sets {variable}"

    def script(self, change: Change) -> str:
        return f"set -e\n{put_away(*(f'{self.folder}/{name}' for name in change.actions))}"


_PROBE_FLAGS = """\
known() {{ printf '%s\\n' "$usage" | grep -qF -e "--$1=" -e "--[no-]$1 "; }}
for f in {folder}/*; do
  [ -f "$f" ] || continue
  name=${{f##*/}}; flag=${{name#[?]}}; flag=${{flag#no-}}
  case $name in ({leftovers}) echo "leftover=$name"; continue;; esac
  echo "flag=$flag"
  case $flag in ({own}) continue;; esac
  command -v {program} >/dev/null 2>&1 || continue
  usage=${{usage-$({program} --help 2>&1)}}
  known "$flag" || echo "unknown=$name"
done
for f in {defaults}; do
  [ -f "$f" ] || continue
  sed -n 's/^[[:space:]]*\\(export[[:space:]]\\{{1,\\}}\\)\\{{0,1\\}}\\([A-Z_]\\{{1,\\}}\\)=..*/\\2/p' "$f" |
    while read -r name; do echo "variable=$name $f"; done
done
"""


# 2.2.3 to 2.2.5: a master


def quorum(site: Site) -> Step:
    """/etc/mesos-master/quorum: half of the masters, and one (2.2.3)."""
    return Quorum(f"/etc/{MASTER}/quorum", f"{site.quorum}\n", work_dir=site.mesos.master.work_dir)


def quorum_consequence(before: int, after: int) -> str:
    """What changing the quorum of masters that have run means. Raises StepFailed where Mesos has no way to do it."""
    if 1 in (before, after):
        raise StepFailed(
            f"the quorum is {before} and is to be {after}, but this master has run with {before}: out of (and into) "
            "single-master mode there is no way that keeps the registry, and masters with different logs corrupt it",
            "decide that the registry may go (slaves register anew; maintenance schedules and quotas are lost), stop "
            "all masters, move replicated_log in each one's work_dir away, then run again",
        )
    if abs(before - after) > 1:
        raise StepFailed(
            f"the quorum is {before} and is to be {after}: Mesos bears one step at a time",
            "change the number of masters in the parameters by two, apply, and go on from there",
        )
    if after > before:
        return (
            f"quorum {before} -> {after}: the masters that run are restarted with it first, and further ones start "
            f"only then: more than {2 * before - 1} masters with a quorum of {before} can corrupt the log"
        )
    return (
        f"quorum {before} -> {after}: safe only once the masters that leave are stopped for good, so that no more than "
        f"{2 * after - 1} are left: further ones can corrupt the log"
    )


@dataclass(frozen=True)
class Quorum(File):
    """The quorum, written freely before a master's first start, and behind a gate after it.

    Without the right quorum on every master the log splits or cannot be written ('Operational Guide').
    """

    work_dir: str = field(kw_only=True)

    def probe(self) -> str:
        log = quote(f"{self.work_dir}/replicated_log")
        return (
            f"{super().probe()}if [ -d {log} ]; then echo ran=yes; else echo ran=no; fi\n"
            f"{_MAIN_PROCESS.format(unit=MASTER)}"
            "echo \"quorum=$(printf '%s\\n' \"$flags\" | sed -n 's/^--quorum=//p')\"\n"
            f'echo "written=$(head -c 20 {quote(self.path)} 2>/dev/null | tr -cd 0-9)"\n'
        )

    def plan(self, state: str, pending: frozenset[str] = frozenset()) -> Change | None:
        change, present = super().plan(state, pending), facts(state)
        wanted, before = int(self._bytes), present["quorum"] or present["written"]
        if present["ran"] == "no" or not before or int(before) == wanted:
            return change
        consequence = quorum_consequence(int(before), wanted)
        return change and replace(change, gate=QUORUM, consequence=consequence)


@dataclass(frozen=True)
class WorkDir(File):
    """Where a master keeps its replica of the registry's log. It moves only together with the replica.

    A master that starts in an empty folder must first get the log from a quorum of the others; where two of three do so
    at a time, there is none ('The Mesos Replicated Log' of its documentation).
    """

    def probe(self) -> str:
        wanted = quote(f"{self._bytes.decode().strip()}/replicated_log")
        return (
            f'{super().probe()}has=$(head -n 1 {quote(self.path)} 2>/dev/null)\necho "has=$has"\n'
            f'if [ -n "$has" ] && [ -d "$has/replicated_log" ] && ! [ -d {wanted} ]; then echo moves=yes; '
            "else echo moves=no; fi\n"
        )

    def plan(self, state: str, pending: frozenset[str] = frozenset()) -> Change | None:
        change, present = super().plan(state, pending), facts(state)
        if change is not None and change.content is not None and present["moves"] == "yes":
            there, wanted = present["has"], self._bytes.decode().strip()
            raise StepFailed(
                f"{self.path} is to say {wanted}, but this master's replica of the registry's log lies in {there}",
                f"take one master after the other: systemctl stop {MASTER}; mv {there}/replicated_log {wanted}/; "
                "then run again",
            )
        return change


# `flags` are the arguments of a unit's main process, one a line; nothing where it does not run.
_MAIN_PROCESS = """\
pid=$(systemctl show -p MainPID {unit} 2>/dev/null | sed -n 's/^MainPID=//p')
flags=$(tr '\\0' '\\n' 2>/dev/null < "/proc/${{pid:-0}}/cmdline")
"""


def identity(site: Site, host: HostParameters) -> tuple[Step, ...]:
    """A master's ip and hostname, both its address (2.2.4)."""
    folder = f"/etc/{MASTER}"
    return File(f"{folder}/ip", f"{ip_of(host)}\n"), File(f"{folder}/hostname", f"{host.address}\n")


def master_settings(site: Site) -> tuple[Step, ...]:
    """Where a master finds ZooKeeper, listens (2.2.5), works and logs, and what its cluster is called.

    The port is PORT in /etc/default, as in the document: a file `port` beside it would be fatal (see FlagFolder).
    """
    master, cluster = site.mesos.master, f"/etc/{MASTER}/cluster"
    return (
        *zookeeper.connection_file(site),
        _defaults(MASTER, PORT=str(master.port), ZK="`cat /etc/mesos/zk`"),
        _defaults("mesos", LOGS=quote(master.log_dir)),
        WorkDir(f"/etc/{MASTER}/work_dir", f"{master.work_dir}\n"),
        File(cluster, f"{site.mesos.cluster}\n") if site.mesos.cluster else Absent(cluster),
    )


def _defaults(name: str, **variables: str) -> Lines:
    """Variables in /etc/default, which bash reads: values must be quoted for it already."""
    lines = ((rf"\s*(export\s+)?{variable}=", f"{variable}={value}") for variable, value in variables.items())
    return Lines(f"/etc/default/{name}", tuple(lines))


def master_service(site: Site, gate: str | None = None, consequence: str = "") -> ConfiguredDaemon:
    """A running mesos-master that has the present configuration; `gate` is asked before it restarts."""
    files = (quorum(site), *identity(site, site.having("mesos_master")[0]), *master_settings(site))
    return ConfiguredDaemon(
        MASTER,
        restart_if_newer=_watched(MASTER, files),
        gate=gate,
        consequence=consequence,
        package=site.mesos.package,
        own_drop_ins=(Release(MASTER).path,),
        allowed_drop_ins=site.mesos.master.allowed_drop_ins,
        flags=flag_source(MASTER),
        allowed=frozenset(site.mesos.master.allowed_flags),
    )


def _watched(program: str, files: Sequence[Step]) -> tuple[str, ...]:
    """What a program must be younger than. The folder of flags tells, by its own time, of a flag that was removed."""
    return f"/etc/{program}", *(step.path for step in files if isinstance(step, File | Lines | Absent | ListFlag))


@dataclass(frozen=True)
class Daemon(Service):
    """A service of the package, restarted as well where the package was installed after it started.

    A restart that would put a foreign drop-in of its unit in force is behind the gate `activate-foreign-flags`;
    `own_drop_ins` are those of the runbook, by path, and `allowed_drop_ins` those that the parameters accept, by file
    name.
    """

    package: str = field(kw_only=True)
    own_drop_ins: tuple[str, ...] = field(default=(), kw_only=True)
    allowed_drop_ins: tuple[str, ...] = field(default=(), kw_only=True)

    def probe(self) -> str:
        installed = f"rpm -q --qf '%{{INSTALLTIME}}' {quote(self.package)} 2>/dev/null"
        return (
            f'{super().probe()}! installed=$({installed}) || echo "installed=$installed"\n'
            f"{_PROBE_DROP_INS.format(unit=quote(self.name))}"
        )

    def plan(self, state: str, pending: frozenset[str] = frozenset()) -> Change | None:
        change = super().plan(state, pending)
        if change is None or "restart" not in change.actions or not (waiting := self.waiting_drop_ins(state)):
            return change
        consequence = f"the restart activates {', '.join(waiting)}, which the runbook did not write"
        return replace(
            change,
            diff=change.diff + "".join(f"+foreign drop-in: {path}\n" for path in waiting),
            gate=change.gate or ACTIVATE,
            consequence="; ".join(filter(None, [change.consequence, consequence])),
        )

    def waiting_drop_ins(self, state: str) -> list[str]:
        """Foreign drop-ins that are newer than the process, so that its next start reads them first."""
        present = facts(state)
        if not {"ticks", "uptime"} <= present.keys():
            return []
        age = float(present["uptime"]) - int(present["ticks"]) / int(present["hertz"])
        began = float(present["now"]) - age
        return [path for changed, path in self.foreign_drop_ins(state) if changed > began]

    def foreign_drop_ins(self, state: str) -> list[tuple[float, str]]:
        """The drop-ins that neither the runbook nor a package nor the parameters know, with their time of change."""
        found = (line.split(" ", 2) for line in values(state, "dropin"))
        return [
            (float(changed), path)
            for changed, owned, path in found
            if owned == "no" and path not in self.own_drop_ins and path.rpartition("/")[2] not in self.allowed_drop_ins
        ]

    def _stale(self, present: Facts, state: str, pending: frozenset[str]) -> list[str]:
        reasons = super()._stale(present, state, pending)
        if "installed" in present and "ticks" in present:
            age = float(present["uptime"]) - int(present["ticks"]) / int(present["hertz"])
            if int(present["installed"]) > float(present["now"]) - age:
                reasons.append(f"package {self.package}")
        return reasons


_PROBE_DROP_INS = """\
for f in $(systemctl show -p DropInPaths {unit} 2>/dev/null | sed -n 's/^DropInPaths=//p'); do
  owned=no; rpm -qf "$f" >/dev/null 2>&1 && owned=yes
  if [ -e "$f" ]; then echo "dropin=$(stat -c %.Z "$f") $owned $f"; fi
done
"""


@dataclass(frozen=True)
class ConfiguredDaemon(FlagDaemon, Daemon):
    """A service of the package whose process runs with the flags that its files give."""


def off(program: str, consequence: str) -> tuple[Step, ...]:
    """A program of the package that a host is not to run: stopped and disabled, behind a gate where it runs."""
    return Release(program), Service(
        program, running=False, enabled=False, gate=f"stop-{program}", consequence=consequence
    )


def without_slave(host: HostParameters) -> tuple[Step, ...]:
    """No mesos-slave on a host that is none; nothing on one that is."""
    return () if ROLES[SLAVE] in host.roles else off(SLAVE, "its tasks are lost once the master removes it, after 75 s")


def without_master(host: HostParameters) -> tuple[Step, ...]:
    """No mesos-master on a host that is none: a master too many can corrupt the log. Nothing on one that is."""
    return () if ROLES[MASTER] in host.roles else off(MASTER, "one replica of the registry's log goes with it")


# 3.2 and 3.3: a slave


def slave_flags(site: Site, host: HostParameters, *, docker: bool) -> dict[str, str | None]:
    """The files of /etc/mesos-slave by name, with their content; None where there must be none.

    The document gives ip, hostname and resources. Without `containerizers` no Docker task runs (its chapters 5 and 6),
    without the longer timeout an image that takes a minute to pull fails, and Mesos' own work_dir is below /tmp.
    With `docker` false, Docker is not installed yet and is left out of the containerizers: a slave that cannot run
    `docker` does not start.
    """
    slave = site.mesos.slave
    amounts = {"cpus": host.slave.cpus, "mem": host.slave.mem}
    resources = [f"{name}:{show(amount)}" for name, amount in amounts.items() if amount is not None]
    attributes = ";".join(f"{name}:{value}" for name, value in sorted(host.slave.attributes.items()))
    containerizers = [name for name in slave.containerizers.split(",") if docker or name != "docker"]
    return {
        "ip": ip_of(host),
        "hostname": host.address,
        "port": str(slave.port),
        "work_dir": slave.work_dir,
        "containerizers": ",".join(containerizers) or "mesos",
        "executor_registration_timeout": slave.executor_registration_timeout,
        "resources": ";".join([*resources, f"ports:{slave.ports}"]),
        "attributes": attributes or None,
    }


def slave_settings(site: Site, host: HostParameters, *, docker: bool) -> tuple[Step, ...]:
    """The files of a slave: those of `slave_flags`, where ZooKeeper is, and where it logs."""
    flags = slave_flags(site, host, docker=docker)
    return (
        *zookeeper.connection_file(site),
        _defaults(SLAVE, MASTER="`cat /etc/mesos/zk`"),
        _defaults("mesos", LOGS=quote(site.mesos.master.log_dir)),
        *(_slave_flag(name, value) for name, value in flags.items()),
    )


def _slave_flag(name: str, value: str | None) -> Step:
    path = f"/etc/{SLAVE}/{name}"
    if name in LISTS:
        return ListFlag(path, value)
    return Absent(path) if value is None else File(path, f"{value}\n")


LISTS = ("attributes", "resources")
"""The flags of a slave that the start script reads from a directory as well: each file is an entry `name:content`."""


def entries(value: str | None) -> dict[str, str]:
    """The entries of a flag such as `cpus:4;ports:[8401-8599]`, by name. None has none."""
    parts = (part.partition(":") for part in (value or "").split(";") if part.strip())
    return {name.strip(): content.strip() for name, _, content in parts}


def same_entries(one: str | None, other: str | None) -> bool:
    """Whether two values of such a flag mean the same to Mesos."""
    left, right = entries(one), entries(other)
    return left.keys() == right.keys() and all(_same_value(left[name], right[name]) for name in left)


def _same_value(one: str, other: str) -> bool:
    try:
        return parse_value(one) == parse_value(other)
    except ValueError:  # no value of Mesos: it differs from ours
        return False


@dataclass(frozen=True)
class ListFlag(Step):
    """A flag of a slave that is a list of entries: a file, or, where an administrator made one, a directory of files.

    None: there is no such flag. In a directory each entry is a file of its own, and entries that are not wanted are put
    away, as the whole content of a file is replaced.
    """

    path: str
    value: str | None

    @property
    def touches(self) -> frozenset[str]:
        return frozenset({self.path})

    @property
    def reads(self) -> frozenset[str]:
        return frozenset({self.path})

    @property
    def label(self) -> str:
        return f"file {self.path}"

    @property
    def _file(self) -> Step:
        return Absent(self.path) if self.value is None else File(self.path, f"{self.value}\n")

    def probe(self) -> str:
        path = quote(self.path)
        return (
            f"if [ -d {path} ]; then\n  echo form=directory\n  for f in {path}/*; do\n"
            '    if [ -f "$f" ] && [ -s "$f" ]; then echo "entry=${f##*/} $(base64 < "$f" | tr -d \'\\n\')"; fi\n'
            f"  done\nelse\n  echo form=file\n{self._file.probe()}fi\n"
        )

    def plan(self, state: str, pending: frozenset[str] = frozenset()) -> Change | None:
        if facts(state)["form"] == "file":
            return self._file.plan(state, pending)
        present = self._present(state)
        wanted = entries(self.value)
        differing = [
            name
            for name in sorted(present.keys() | wanted.keys())
            if name not in present
            or name not in wanted
            or not _same_value(present[name].decode("utf-8", "replace").strip(), wanted[name])
        ]
        if not differing:
            return None
        diff = ""
        for name in differing:
            content = present.get(name)
            diff += "" if content is None else f"-{self.path}/{name}: {content.decode('utf-8', 'replace').strip()}\n"
            diff += f"+{self.path}/{name}: {wanted[name]}\n" if name in wanted else ""
        hashes = (sha256(present[name]) if name in present else "absent" for name in differing)
        actions = tuple(f"{observed} {name}" for observed, name in zip(hashes, differing, strict=True))
        return Change(f"edit the directory {self.path}", diff, actions=actions)

    def _present(self, state: str) -> dict[str, bytes]:
        lines = (line.split(" ", 1) for line in values(state, "entry"))
        return {name: base64.b64decode(content) for name, content in lines}

    def script(self, change: Change) -> str:
        if not change.actions:
            return self._file.script(change)
        wanted = entries(self.value)
        script, unwanted = "set -e\n", []
        for action in change.actions:
            observed, name = action.split(" ", 1)
            path = f"{self.path}/{name}"
            if name in wanted:
                file = File(path, f"{wanted[name]}\n")
                written = file.script(Change("", observed=observed, content=f"{wanted[name]}\n".encode()))
                script += f"(\n{written}\n)\n"
            else:
                unwanted.append(path)
        return script + (put_away(*unwanted) if unwanted else "")


def slave_service(site: Site, host: HostParameters) -> ConfiguredDaemon:
    """A running mesos-slave that has the present configuration.

    Its restart needs no gate: with KillMode=process the executors go on, and the slave finds them again.
    """
    files = slave_settings(site, host, docker=True)
    return ConfiguredDaemon(
        SLAVE,
        restart_if_newer=_watched(SLAVE, files),
        package=site.mesos.package,
        own_drop_ins=(Release(SLAVE).path,),
        allowed_drop_ins=site.mesos.slave.allowed_drop_ins,
        flags=flag_source(SLAVE),
        allowed=frozenset(site.mesos.slave.allowed_flags),
    )


@dataclass(frozen=True)
class Forget(Step):
    """The slave forgets the id under which it registered, so that it may register with what has changed.

    Removes `<work_dir>/meta/slaves/latest` while the slave is stopped, and never anything else: a work_dir may hold the
    master's replicated log as well. `tasks` are what Mesos loses by it (None: nobody could tell).
    """

    work_dir: str
    slave_id: str
    differences: tuple[Difference, ...]
    tasks: tuple[str, ...] | None

    @property
    def path(self) -> str:
        """The link that is removed."""
        return f"{self.work_dir}/meta/slaves/latest"

    @property
    def touches(self) -> frozenset[str]:
        return frozenset({self.path})

    @property
    def label(self) -> str:
        return "registration of the slave"

    def probe(self) -> str:
        return f'latest=$(readlink {quote(self.path)} 2>/dev/null)\necho "latest=${{latest##*/}}"\n'

    def plan(self, state: str, pending: frozenset[str] = frozenset()) -> Change | None:
        if facts(state)["latest"] != self.slave_id:
            return None
        if self.tasks is None:
            count, lost = "unknown tasks", "its tasks are lost, and nobody tells which: no master leads"
        elif self.tasks:
            count = plural(len(self.tasks), "task")
            lost = f"lost to Mesos: {count}: {'; '.join(self.tasks)}"
        else:
            count, lost = "no tasks", "it runs no task"
        diff = "".join(
            f"-{one.what}: {one.stored or '(none)'}\n+{one.what}: {one.wanted or '(none)'}\n"
            for one in self.differences
        )
        return Change(
            f"reset: {count} lost",
            f"{diff}-{self.path} -> {self.slave_id}\n" + "".join(f"-task {task}\n" for task in self.tasks or ()),
            observed=self.slave_id,
            gate=RESET,
            consequence=f"{lost}; Mesos refuses {'; '.join(map(str, self.differences))}",
        )

    def script(self, change: Change) -> str:
        return (
            f'{self.probe()}[ "${{latest##*/}}" = {quote(change.observed)} ] || {{\n'
            '  echo "the slave has registered anew since it was looked at: run again" >&2; exit 1\n}\n'
            f"systemctl stop {SLAVE} || exit 1\n"
            f"rm -f -- {quote(self.path)}\n"
        )


@dataclass(frozen=True)
class Leftover:
    """What is left of one executor whose slave is no more: its processes, and its container's name where it has one."""

    executor: str
    slave_id: str
    pids: tuple[int, ...] = ()
    container: str = ""
    command: str = ""

    def __str__(self) -> str:
        what = [f"container {self.container}"] if self.container else []
        what += [f"process{'es' if len(self.pids) > 1 else ''} {', '.join(map(str, self.pids))}"] if self.pids else []
        return f"{self.executor} of {self.slave_id} ({'; '.join(what)}): {self.command}"


@dataclass(frozen=True)
class NoLeftovers(Step):
    """No executor or task of a slave that is no more: Mesos neither lists nor ends them (tests/payloads/README.md).

    Found by what Mesos sets in the environment of an executor and its task: MESOS_SLAVE_ID, which is not that of the
    present registration, and a sandbox below one of `work_dirs`; and by the names of Docker containers,
    `mesos-<slave id>.<container>`. They are asked to end (SIGTERM, `docker stop`), and after `GRACE` made to.
    """

    work_dirs: tuple[str, ...]
    """The first is that of the present slave."""

    GRACE: ClassVar = 10
    """Seconds between SIGTERM and SIGKILL."""

    @property
    def label(self) -> str:
        return "executors of earlier slaves"

    def probe(self) -> str:
        return _PROBE_EXECUTORS.format(latest=quote(f"{self.work_dirs[0]}/meta/slaves/latest"))

    def plan(self, state: str, pending: frozenset[str] = frozenset()) -> Change | None:
        if not (left := self.found(state)):
            return None
        return Change(
            f"end {plural(len(left), 'executor')}",
            "".join(f"-{one}\n" for one in left),
            actions=tuple(
                action
                for one in left
                for action in (*(f"{pid}:{one.slave_id}" for pid in one.pids), *filter(None, [one.container]))
            ),
            gate=RESET,
            consequence=f"these go on without Mesos, and are ended: {', '.join(one.executor for one in left)}",
        )

    def found(self, state: str) -> list[Leftover]:
        """What is left of each executor, by what the probe printed."""
        latest = facts(state)["latest"]
        if not latest:  # before its registration nobody can tell what is old
            return []
        processes: dict[tuple[str, str], list[tuple[int, str]]] = {}
        for line in values(state, "process"):
            pid, slave_id, directory, executor, command = line.split(" ", 4)
            ours = any(directory.startswith(f"{work_dir}/slaves/{slave_id}/") for work_dir in self.work_dirs)
            if slave_id != latest and ours:
                processes.setdefault((executor, slave_id), []).append((int(pid), mask_arguments(command.strip())))
        left = [
            Leftover(executor, slave_id, tuple(pid for pid, _ in those), command=those[0][1])
            for (executor, slave_id), those in processes.items()
        ]
        for line in values(state, "container"):
            name, _, image = line.partition(" ")
            match = re.fullmatch(r"mesos-(.+-S\d+)\.([^.]+)", name)
            if match and match[1] != latest:
                left.append(Leftover(match[2], match[1], container=name, command=image))
        return left

    def script(self, change: Change) -> str:
        processes = [action for action in change.actions if ":" in action]
        containers = [action for action in change.actions if ":" not in action]
        return _END_EXECUTORS.format(
            processes=" ".join(map(quote, processes)),
            containers=" ".join(map(quote, containers)),
            rounds=self.GRACE * 5,
        )


_PROBE_EXECUTORS = """\
latest=$(readlink {latest} 2>/dev/null)
echo "latest=${{latest##*/}}"
of() {{ printf '%s\\n' "$environ" | sed -n "s/^$1=//p" | head -n 1; }}
for f in $(grep -lz '^MESOS_SLAVE_ID=' /proc/[0-9]*/environ 2>/dev/null); do
  p=${{f%/environ}}
  environ=$(tr '\\0' '\\n' 2>/dev/null < "$f") || continue
  sandbox=$(of MESOS_DIRECTORY); [ -n "$sandbox" ] || sandbox=$(of MESOS_SANDBOX)
  echo "process=${{p#/proc/}} $(of MESOS_SLAVE_ID) ${{sandbox:--}} $(of MESOS_EXECUTOR_ID) \
$(tr '\\0\\n' '  ' 2>/dev/null < "$p/cmdline" | cut -c 1-200)"
done
if command -v docker >/dev/null 2>&1; then
  timeout 20 docker ps --format '{{{{.Names}}}} {{{{.Image}}}}' 2>/dev/null | sed -n 's/^mesos-/container=mesos-/p'
fi
"""

# A process id may have been given to another program since it was looked at.
_END_EXECUTORS = """\
set -- {containers}
[ $# -eq 0 ] || docker stop "$@" >/dev/null || exit 1
is_left() {{ grep -qzxF "MESOS_SLAVE_ID=${{1#*:}}" "/proc/${{1%%:*}}/environ" 2>/dev/null; }}
signal() {{
  left=
  for one in {processes}; do
    if is_left "$one"; then left="$left $one"; [ -z "$1" ] || kill "$1" "${{one%%:*}}" 2>/dev/null; fi
  done
}}
signal -TERM
n=0
while [ -n "$left" ] && [ $n -lt {rounds} ]; do sleep 0.2; n=$((n+1)); signal ''; done
signal -KILL
exit 0
"""
