"""ZooKeeper: the ensemble that elects the leaders of Mesos and Marathon (document 1, 2.2.1 and 2.2.2).

Here is how it is configured and run (steps), and the chapter that a notebook opens. Two neighbours complete it:
zookeeper_ensemble.py asks the members and judges the ensemble, zookeeper_diagnosis.py says why one does not start.

Sources: ZooKeeper's Administrator's Guide of 3.4.6 (configuration) and zkServer.sh of 3.4.6.
"""

from __future__ import annotations

import base64
import posixpath
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

import pandas as pd
from IPython.display import display

from runbook.chapter import Chapter, section
from runbook.errors import ApplyFailed, CheckFailed, DriftFound, ServiceError, StepFailed
from runbook.remote.checks import CheckResult, Evidence
from runbook.remote.hosts import Hosts
from runbook.remote.modes import Mode, Status
from runbook.remote.probes import COMMAND_OF
from runbook.remote.results import ApplyResult
from runbook.remote.shell import Facts, facts, quote
from runbook.remote.steps import Change, CommandService, Directory, EditedFile, File, Step, before_after
from runbook.remote.units import SafePaths
from runbook.services import zookeeper_diagnosis as diagnosis
from runbook.services.findings import Finding, Findings
from runbook.services.zookeeper_config import (
    BOM,
    SETTING,
    ServerLine,
    Setting,
    ZooCfg,
    entries,
    foreign,
    foreign_flags,
    in_force,
    misfits,
    natural_lines,
    same_path,
)
from runbook.services.zookeeper_ensemble import Ensemble, four_letter_word, read_alike, server_lines, written_and_read
from runbook.site import HostParameters, Site
from runbook.views.tables import Table

CLIENTS = frozenset({"zookeeper", "mesos_master", "mesos_slave", "marathon"})
"""The roles whose hosts have /etc/mesos/zk: the members, and everything that looks up a leader in it."""


# configuration


def connection_file(site: Site) -> tuple[Step, ...]:
    """/etc/mesos/zk (1.1), from which Mesos' and Marathon's start scripts take where the ensemble is."""
    return Directory("/etc/mesos"), File("/etc/mesos/zk", f"{site.mesos_zk}\n")


def identity(site: Site, host: HostParameters) -> tuple[Step, ...]:
    """The member's id (2.2.1). The document writes it to the conf dir, where no ZooKeeper looks: it is the dataDir."""
    return (File(_myid(site), f"{host.myid}\n"),)


@dataclass(frozen=True)
class Settings(EditedFile):
    """Settings and members in zoo.cfg, a file that others own; everything else in it stays as it is.

    A line that means what it should is left alone however it is written, but where zkServer.sh, which reads dataDir and
    clientPort with sed, would read something else. Of a setting that is given twice one line remains. A `server.N` that
    is no member is taken out, unless it is an observer. It never moves the data: with another dataDir a member would
    start empty, and forget them. Where a dynamic file holds the members, as from 3.5 on it may, they are compared and
    never changed: that takes `reconfig`.
    """

    path: str
    values: tuple[tuple[str, str], ...]
    members: tuple[tuple[str, str], ...]
    data_dir: str
    client_port: int
    observer: bool | None = None
    pid_file: str = ""
    same_dirs: frozenset[str] = frozenset()
    """Values of dataDir that are found to mean `data_dir`."""
    keep_servers: bool = False

    @property
    def label(self) -> str:
        return f"lines in {self.path}"

    def probe(self) -> str:
        return super().probe() + _PROBE_SETTINGS.format(pids=quote(self.pid_file), data=quote(self.data_dir))

    def plan(self, state: str, pending: frozenset[str] = frozenset()) -> Change | None:
        present = self._present(state)
        config = ZooCfg.parse(base64.b64decode(present.get("content", "")).removeprefix(BOM.encode("latin-1")))
        step = replace(self, same_dirs=self._same_dirs(config.values.get("dataDir"), present))
        if config.dynamic_file is not None:
            step = step._without_members(config, present)
        elif config.groups:
            self._judge_groups(config)
        return super(Settings, step).plan(state, pending)

    def _same_dirs(self, value: str | None, present: Facts) -> frozenset[str]:
        if value is None:
            return frozenset()
        here, wanted = present.get("data_at", ""), present.get("wanted_at", "")
        known = present.get("data") == value and here and wanted
        if here == wanted if known else same_path(value, self.data_dir):
            # what a relative path means depends on where ZooKeeper is started: it is replaced
            return frozenset({value} if value.startswith("/") else ())
        plain = here if known else posixpath.normpath(value)
        raise StepFailed(
            f"{self.path} has dataDir={value}, the parameters say {self.data_dir}, where its data would not be",
            f"set zookeeper.data_dir to {plain}; or stop ZooKeeper, move the folder, and correct zoo.cfg by hand",
        )

    def _without_members(self, config: ZooCfg, present: Facts) -> Settings:
        """The step for a zoo.cfg whose members are in a dynamic file, which must be those of the parameters."""
        file = config.dynamic_file
        if beside := sorted({*config.servers, *config.groups}):
            raise StepFailed(
                f"{self.path} has {', '.join(beside)} beside dynamicConfigFile={file}: from 3.5 on ZooKeeper does not "
                "start with both",
                f"remove {', '.join(beside)} from it, unless ZooKeeper is 3.4, which needs dynamicConfigFile removed",
            )
        if "dynamic" not in present:
            raise StepFailed(
                f"{self.path} names dynamicConfigFile={file}, which cannot be read",
                "restore that file, or put the list of members into zoo.cfg and remove dynamicConfigFile",
            )
        dynamic = ZooCfg.parse(base64.b64decode(present["dynamic"]))
        wrong = misfits(dynamic.servers, dict(self.members), self.client_port)
        if wrong:
            differences = "; ".join(
                f"{key} is {have or 'missing'}, expected {want or 'none'}" for key, (have, want) in wrong.items()
            )
            raise StepFailed(
                f"{file}: {differences}. ZooKeeper itself writes this file: nothing was changed",
                "correct the parameters; or change the members where ZooKeeper runs (reconfigEnabled=true, as its "
                "superuser): zkCli.sh reconfig -add 'server.N=HOST:2888:3888;2181', or -remove N",
            )
        servers = [ServerLine.parse(value) for value in dynamic.servers.values()]
        values = self.values
        if "clientPort" not in config.values and all(server and server.client_port for server in servers):
            values = tuple(pair for pair in values if pair[0] != "clientPort")
        return replace(self, values=values, members=(), observer=None, keep_servers=True)

    def _judge_groups(self, config: ZooCfg) -> None:
        """Refuse to change members that groups of zoo.cfg do not hold: ZooKeeper does not start with them."""
        grouped = {one for key, value in config.groups.items() if key.startswith("group") for one in value.split(":")}
        voters = {key.removeprefix("server.") for key, value in self.members if not value.endswith(":observer")}
        if grouped and grouped != voters:
            raise StepFailed(
                f"{self.path}: the lines group.N hold the members {', '.join(sorted(grouped))}, and those of the "
                f"parameters are {', '.join(sorted(voters))}",
                "correct group.N and weight.N on every member by hand, then run again: each voting member is in one",
            )

    def _edited(self, before: bytes) -> bytes:
        text = before.decode("latin-1")
        plain = text.removeprefix(BOM)
        lines, found = natural_lines(plain), tuple(entries(plain))
        wanted = (*self.values, *self.members, *((("peerType", "observer"),) if self.observer else ()))
        strangers = [entry for entry in found if self._is_stranger(entry)]
        places = {key: [entry for entry in found if entry.key == key] for key, _ in wanted}

        def means(key: str, value: str) -> bool:
            mine = places[key]
            return len(mine) == 1 and self._means(mine[0], value, "".join(lines[mine[0].first : mine[0].end]))

        if plain == text and not strangers and all(means(key, value) for key, value in wanted):
            return before
        # What is written at all is written as zkServer.sh reads it, too.
        kept = {key for key, value in wanted if means(key, value) and places[key][0].value != value}
        replaced = {key: places[key] for key, _ in wanted if key not in kept}
        for entry in (*strangers, *(entry for mine in replaced.values() for entry in mine)):
            lines[entry.first : entry.end] = [""] * (entry.end - entry.first)
        new = []
        for key, value in wanted:
            if replaced.get(key):
                lines[replaced[key][0].first] = f"{key}={value}\n"
            elif key in replaced:
                new.append(f"{key}={value}\n")
        if new and (last := next((n for n in range(len(lines) - 1, -1, -1) if lines[n]), None)) is not None:
            lines[last] += "" if lines[last].endswith(("\n", "\r")) else "\n"
        after = "".join([*lines, *new]).encode("latin-1")
        # A file whose only difference is the missing newline at its end is left alone.
        return before if after == before + b"\n" else after

    def _is_stranger(self, entry: Setting) -> bool:
        """Whether a setting is to be taken out: a voting member that is none, `peerType=observer` of a voter."""
        if entry.key == "peerType":
            return self.observer is False and entry.value.lower() == "observer"
        if self.keep_servers or entry.key in dict(self.members) or not re.fullmatch(r"server\.\d+", entry.key):
            return False
        server = ServerLine.parse(entry.value)
        return server is None or not server.observer

    def _means(self, entry: Setting, value: str, line: str) -> bool:
        """Whether a setting has this value already, for ZooKeeper and for zkServer.sh."""
        if entry.key in ("dataDir", "clientPort"):
            read_by_script = re.sub(".*=", "", line.removesuffix("\n"))
            return read_by_script == entry.value and entry.value in (value, *self.same_dirs)
        if entry.key in dict(self.members):
            have, wanted = ServerLine.parse(entry.value), ServerLine.parse(value)
            return have is not None and wanted is not None and have.means(wanted, self.client_port)
        return entry.value == value


_PROBE_SETTINGS = (
    'if [ -f "$p" ]; then\npids={pids}\n'
    + SETTING.replace("{", "{{").replace("}", "}}")
    + """\
d=$(setting dataDir "$p")
if [ -n "$d" ]; then printf 'data=%s\\ndata_at=%s\\nwanted_at=%s\\n' "$d" "$(resolve "$d")" "$(resolve {data})"; fi
f=$(setting dynamicConfigFile "$p")
if [ -n "$f" ]; then
  f=$(absolute "$f")
  if [ -r "$f" ]; then echo "dynamic=$(base64 < "$f" | tr -d '\\n')"; fi
fi
fi
"""
)


def settings(site: Site, host: HostParameters | None = None) -> tuple[Step, ...]:
    """The lines of zoo.cfg that make an ensemble (2.2.2), in a file that Hadoop's distribution owns, and who may write
    what ZooKeeper reads: root, and the distribution's user `zookeeper`.

    All members list all members. With a `host`, also whether that one observes (`peerType`).
    """
    zookeeper = site.zookeeper
    values = {
        "tickTime": zookeeper.tick_time,
        "initLimit": zookeeper.init_limit,
        "syncLimit": zookeeper.sync_limit,
        "dataDir": zookeeper.data_dir,
        "clientPort": zookeeper.client_port,
    }
    return (
        Settings(
            _zoo_cfg(site),
            tuple((key, str(value)) for key, value in values.items()),
            tuple(server_lines(site).items()),
            zookeeper.data_dir,
            zookeeper.client_port,
            host.observer if host else None,
            diagnosis.pid_file(site),
        ),
        SafePaths("zookeeper", (zookeeper.conf_dir, _zoo_cfg(site), zookeeper.data_dir), owners=("zookeeper",)),
    )


@dataclass(frozen=True)
class InForce:
    """What the ZooKeeper with this process number runs with that its files do not say: by name, running and filed."""

    pid: str
    differences: Mapping[str, tuple[str, str]]


@dataclass(frozen=True)
class MemberService(CommandService):
    """ZooKeeper on one host. It restarts when it is older than its settings, or runs with others than zoo.cfg has.

    A zoo.cfg that ZooKeeper wrote itself, as a reconfiguration makes it from 3.5 on, is no reason to restart: it is as
    old as the dynamic file.
    """

    zoo_cfg: str = ""
    in_force: InForce | None = None

    def probe(self) -> str:
        return super().probe() + _PROBE_DYNAMIC.format(path=quote(self.zoo_cfg), pids=quote(self.pid_file))

    def plan(self, state: str, pending: frozenset[str] = frozenset()) -> Change | None:
        present = facts(state)
        if (written := present.get("dynamic_changed")) and self.zoo_cfg not in pending:
            own = [line for line in state.split("\n") if re.fullmatch(rf"watched=\S+ {re.escape(self.zoo_cfg)}", line)]
            stamp = own[0].removeprefix("watched=").split(" ")[0] if own else written
            if abs(float(stamp) - float(written)) < WRITTEN_TOGETHER:
                state = "\n".join(line for line in state.split("\n") if line not in own)
        change = super().plan(state, pending)
        if change is not None or self.in_force is None or self.in_force.pid != present["pid"]:
            return change
        if not self.in_force.differences:
            return None
        summary = f"restart, as it runs with other settings than its files: {', '.join(self.in_force.differences)}"
        return Change(summary, before_after(self.in_force.differences), actions=("stop", "start"))


WRITTEN_TOGETHER = 2.0
"""Seconds that ZooKeeper takes at most between its writes of the dynamic file and of zoo.cfg."""

_PROBE_DYNAMIC = (
    'c={path}; pids={pids}\nif [ -f "$c" ]; then\n'
    + SETTING.replace("{", "{{").replace("}", "}}")
    + """\
f=$(setting dynamicConfigFile "$c")
if [ -n "$f" ]; then f=$(absolute "$f"); if [ -e "$f" ]; then echo "dynamic_changed=$(stat -L -c %.Y "$f")"; fi; fi
fi
"""
)


def service(site: Site, in_force: InForce | None = None) -> MemberService:
    """ZooKeeper, started and stopped by its own script as 1.2 and 1.3 demand: it is under no systemd unit.

    It restarts when it is older than its settings. `zkServer.sh stop` is itself `kill -9` in 3.4.6, which ZooKeeper is
    made to bear: an acknowledged write is on disk. So stopping is safe as long as it hits ZooKeeper and nothing else,
    which this step makes sure of before (see `CommandService`).
    """
    script = f"{site.zookeeper.home}/bin/zkServer.sh"
    return MemberService(
        "zookeeper",
        start=(script, "start"),
        stop=(script, "stop"),
        pid_file=diagnosis.pid_file(site),
        process=diagnosis.PROCESS,
        restart_if_newer=(_zoo_cfg(site), _myid(site)),
        timeout=5,
        folder=site.zookeeper.log_dir,  # where zkEnv.sh sets no ZOO_LOG_DIR, it is "."
        zoo_cfg=_zoo_cfg(site),
        in_force=in_force,
    )


def _zoo_cfg(site: Site) -> str:
    return f"{site.zookeeper.conf_dir}/zoo.cfg"


def _myid(site: Site) -> str:
    return f"{site.zookeeper.data_dir}/myid"


# the chapter


class ZooKeeper(Chapter):
    """Chapter 1: from Hadoop's ZooKeepers, which are on the hosts already, to an ensemble that serves."""

    number = "1"
    title = "ZooKeeper"
    needs = ("zookeeper",)
    parameters = Chapter.parameters | {"active_checks"}

    _restarted = False  # whether this chapter restarted a member
    _marathon_before: Evidence | None = None  # how Marathon was before that

    @section("1.1", "Where the ensemble is")
    def connection_string(self) -> ApplyResult:
        """1.1: /etc/mesos/zk on every host that is a member or looks up a leader."""
        names = [host.name for host in self.site.hosts if CLIENTS.intersection(host.roles)]
        return self.hosts().only(*names).apply(connection_file(self.site), name="/etc/mesos/zk")

    @section("2.2.1", "The members' ids")
    def identities(self) -> ApplyResult:
        """2.2.1: myid in every member's dataDir."""
        return self._members.apply(lambda host: identity(self.site, host), name="myid")

    @section("2.2.2", "The list of members")
    def server_lines(self) -> ApplyResult:
        """2.2.2: the lines of zoo.cfg that make single ZooKeepers an ensemble."""
        return self._members.apply(lambda host: settings(self.site, host), name="zoo.cfg")

    @section("2.2.2 foreign", "Settings that are not the runbook's")
    def foreign_settings(self) -> Findings:
        """2.2.2: settings of zoo.cfg, and Java properties of the processes, that nothing accounts for.

        Nothing is changed: what they are for is not known. In verify mode they are drift.
        """
        findings = self._foreign()
        if findings and self.mode is Mode.VERIFY:
            raise DriftFound(
                str(findings), "accept them in zookeeper.allowed_settings, or remove them", result=findings
            )
        return findings

    @section("1.2", "Start, one host at a time")
    def start(self) -> ApplyResult:
        """1.2: ZooKeeper runs everywhere with its present settings; members are (re)started one at a time.

        Followers before the leader, none whose absence the quorum would not bear, and the next one only once the last
        one serves. Raises ApplyFailed and CheckFailed with what the diagnosis (1.3) found.
        """
        # A plan must foresee the restart that a setting's change will need.
        running = self._ask_running()
        grouped = next((one.config for one in running.values() if one.config.groups), None)

        def steps(host: HostParameters) -> list[Step]:
            planned = (*identity(self.site, host), *settings(self.site, host)) if self.mode is Mode.PLAN else ()
            forced = running[host.name].in_force(self.site, host) if host.name in running else None
            return [*planned, service(self.site, forced)]

        if self.mode is Mode.APPLY:
            from runbook.services.zookeeper_clients import before_a_restart  # above this module, as Marathon's are

            self._marathon_before = before_a_restart(self.site)
        try:
            result = self._members.rolling(
                steps,
                before=lambda host: Ensemble.ask(self.site, grouped).can_spare(host.name),
                until=self._is_back,
                order=lambda hosts: Ensemble.ask(self.site).order(hosts),
                name="zkServer.sh",
            )
            self._restarted = bool(result.having(Status.CHANGED))
            return result
        except (ApplyFailed, CheckFailed) as error:
            findings = self._diagnose()
            display(findings)
            message, remedy = f"{error.message}\n{findings}", "mend what the diagnosis names, then run again"
            if isinstance(error, ApplyFailed):
                raise ApplyFailed(message, remedy, result=error.result) from error
            raise CheckFailed(message, remedy) from error

    @section("1.2 state", "what every member says")
    def state(self) -> Table:
        """What every member says of itself, at this moment."""
        return Ensemble.ask(self.site).table()

    @section("1.2 members", "all of them serve")
    def every_member_serves(self) -> CheckResult:
        """Check: every member answers and takes part in the quorum."""
        return self._check("every member serves", lambda: Ensemble.ask(self.site).complete())

    @section("1.2 leader", "there is one, and followers are in sync")
    def one_leader(self) -> CheckResult:
        """Check: exactly one member leads, and its followers are in sync."""
        return self._check("one member leads", lambda: Ensemble.ask(self.site).led())

    @section("1.2 znodes", "what one member writes, another reads")
    def members_agree(self) -> CheckResult:
        """Check: a znode that is written through one member is read through another.

        A plan, and `verify` without active checks, write nothing: then, that all members show the same data.
        """
        if not self.may_act:
            return self._check("all members have the same data", lambda: read_alike(self.site))
        name = "a znode written through one member is read through another"
        return self._check(name, lambda: written_and_read(self.site))

    def marathon_works(self) -> CheckResult:
        """Check, where Marathon runs: its framework is active in Mesos, and a deployment that changes nothing ends.

        A restarted ZooKeeper can leave Marathon 1.1 with a leader that gets no offers (d2iq-archive/marathon#4227).
        In apply mode it is judged where this chapter restarted a member and Marathon worked before: what else keeps it
        from working is for chapters 2 to 4 to mend. Without active checks, plan and `verify` make no deployment.
        """
        from runbook.services.zookeeper_clients import MarathonProbe  # above this module, as Marathon's are

        with self.section("1.2 Marathon", "Marathon after a restart of ZooKeeper"):
            before, name = self._marathon_before, "Marathon works with this ensemble"
            if self.mode is Mode.APPLY and not self._restarted:
                return self._check(name, lambda: Evidence(True, "no member was restarted"))
            if self.mode is Mode.APPLY and before is not None and not before.holds:
                text = f"it did not work before the restart either: {before.text}"
                return self._check(name, lambda: Evidence(True, text))
            probe = MarathonProbe(self.site, deploy=self.may_act, ran=before is not None and before.table is not None)
            return self._check(name, probe.look, deadline=90.0)

    @section("1.2 logs", "where they are, and their last lines")
    def logs(self, lines: int = 5) -> Table:
        """1.2: where each member's log is, and its last lines."""
        outputs = self._members.run(_LAST_LINES.format(folder=quote(self.site.zookeeper.log_dir), lines=lines))
        rows = []
        for host, output in outputs.items():
            head, _, last = output.stdout.partition("\n")
            size, _, path = head.partition(" ")
            shown = output.error.message if output.error else last.rstrip() or output.stderr.strip()
            rows.append((host, path, size, shown))
        frame = pd.DataFrame(rows, columns=["host", "log", "bytes", "last lines"])
        return Table(frame, f"the newest log in {self.site.zookeeper.log_dir}", literal=("last lines",))

    @section("1.3", "Why ZooKeeper does not start")
    def diagnose(self) -> Findings:
        """1.3: why ZooKeeper does not start, or does not serve, on each host. Looks only; it touches nothing."""
        return self._diagnose()

    # the parts

    def _ask_running(self) -> dict[str, RunningMember]:
        """What the hosts that answer say of the ZooKeeper that runs there."""
        outputs = self._members.run(running_question(self.site))
        return {host: RunningMember.read(output.stdout) for host, output in outputs.items() if output.ok}

    def _foreign(self) -> Findings:
        zookeeper, wanted = self.site.zookeeper, server_lines(self.site)
        found = []
        for host, one in self._ask_running().items():
            settings = foreign(one.config, zookeeper.allowed_settings, wanted)
            flags = foreign_flags(one.command, zookeeper.allowed_settings)
            for key, value in settings.items():
                remedy = f"if it is meant: zookeeper.allowed_settings: [{key}]; else remove it there, and restart"
                found.append(Finding(host, "a foreign setting", f"{_zoo_cfg(self.site)}: {key}={value}", remedy))
            for key, value in flags.items():
                remedy = (
                    f"if it is meant: zookeeper.allowed_settings: [{key}]; else remove it from zookeeper-env.sh or "
                    "java.env, and restart"
                )
                evidence = f"process {one.pid} runs with zookeeper.{key}={value}".replace("zookeeper.jute", "jute")
                found.append(Finding(host, "a foreign Java property", evidence, remedy))
        return Findings("ZooKeeper: settings that are not the runbook's", tuple(found))

    @property
    def _members(self) -> Hosts:
        return self.hosts("zookeeper")

    def _is_back(self, host: HostParameters) -> Evidence:
        output = self._members.only(host.name).run(service(self.site).probe())[host.name]
        if output.ok and not facts(output.stdout)["pid"]:
            text = f"ZooKeeper on {host.name} ended again after it was started"
            return Evidence(False, text, remedy="ask the diagnosis (1.3)", hopeless=True)
        return Ensemble.ask(self.site).is_back(host.name)

    def _diagnose(self) -> Findings:
        serving = frozenset(member.host for member in Ensemble.ask(self.site).members if member.answer)
        return diagnosis.diagnose(self.site, self._members.run(diagnosis.probe(self.site)), serving)


@dataclass(frozen=True)
class RunningMember:
    """The ZooKeeper on a host: its process and command line ('' where none runs), and its zoo.cfg with all members."""

    pid: str
    command: str
    config: ZooCfg

    @classmethod
    def read(cls, output: str) -> RunningMember:
        """From what `running_question` printed."""
        answer = facts(output)
        config = ZooCfg.parse(base64.b64decode(answer.get("cfg", "")))
        dynamic = ZooCfg.parse(base64.b64decode(answer["dynamic"])) if "dynamic" in answer else None
        return cls(answer.get("pid", ""), answer.get("command", ""), config.joined(dynamic))

    def in_force(self, site: Site, host: HostParameters) -> InForce | None:
        """What it runs with that its files do not say; None where it does not run, or does not answer `conf`.

        From 3.5 on `conf` must be allowed (4lw.commands.whitelist).
        """
        if not self.pid or not self.config.values:
            return None
        try:
            conf = four_letter_word(host.address, site.zookeeper.client_port, "conf")
        except (
            ServiceError
        ):  # it does not serve, or may not tell: whether it is older than its files is known all the same
            return None
        return InForce(self.pid, in_force(conf, self.config, host.myid or 0))


def running_question(site: Site) -> str:
    """The sh text that prints what `RunningMember` is read from. It changes nothing."""
    return COMMAND_OF + service(site).probe() + _RUNNING.format(path=quote(_zoo_cfg(site)))


_RUNNING = """\
if [ -n "$pid" ]; then echo "command=$(command_of "$pid")"; fi
if [ -r {path} ]; then
  echo "cfg=$(base64 < {path} | tr -d '\\n')"
  f=$(setting dynamicConfigFile {path})
  if [ -n "$f" ]; then
    f=$(absolute "$f")
    if [ -r "$f" ]; then echo "dynamic=$(base64 < "$f" | tr -d '\\n')"; fi
  fi
fi
:
"""

_LAST_LINES = """\
set -- $(cd {folder} && ls -t -- *zookeeper*.log *zookeeper*.out 2>/dev/null)
[ $# -gt 0 ] || {{ echo "no log in {folder} yet" >&2; exit 1; }}
f={folder}/$1
stat -c '%s %n' "$f"; tail -n {lines} "$f"
"""
