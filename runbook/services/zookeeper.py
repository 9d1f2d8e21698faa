"""ZooKeeper: the ensemble that elects the leaders of Mesos and Marathon (document 1, 2.2.1 and 2.2.2).

Here is how it is configured and run (steps), and the chapter that a notebook opens. Two neighbours complete it:
zookeeper_ensemble.py asks the members and judges the ensemble, zookeeper_diagnosis.py says why one does not start.

Sources: ZooKeeper's Administrator's Guide of 3.4.6 (configuration) and zkServer.sh of 3.4.6.
"""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass

import pandas as pd
from IPython.display import display

from runbook.chapter import Chapter
from runbook.errors import ApplyFailed, CheckFailed, StepFailed
from runbook.remote.checks import CheckResult, Evidence
from runbook.remote.hosts import Hosts
from runbook.remote.modes import Mode
from runbook.remote.results import ApplyResult
from runbook.remote.shell import facts, quote
from runbook.remote.steps import Change, CommandService, Directory, File, Lines, Step
from runbook.services import zookeeper_diagnosis as diagnosis
from runbook.services.findings import Findings
from runbook.services.zookeeper_ensemble import Ensemble, server_lines, written_and_read
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
class Settings(Lines):
    """Lines of zoo.cfg. It never moves the data: with another dataDir a member would start empty, and forget them."""

    data_dir: str = ""

    def plan(self, state: str, pending: frozenset[str] = frozenset()) -> Change | None:
        content = base64.b64decode(facts(state).get("content", "")).decode(errors="replace")
        if (found := re.search(r"(?m)^\s*dataDir\s*[=:\s]\s*(\S+)", content)) and found[1] != self.data_dir:
            raise StepFailed(
                f"{self.path} has dataDir={found[1]}, the parameters say {self.data_dir}, where its data would not be",
                "set zookeeper.data_dir to it; or stop ZooKeeper, move the folder, and correct zoo.cfg by hand",
            )
        return super().plan(state, pending)


def settings(site: Site) -> tuple[Step, ...]:
    """The lines of zoo.cfg that make an ensemble (2.2.2), in a file that Hadoop's distribution owns.

    All members list all members; a `server.N` that is not one of them is taken out.
    """
    zookeeper = site.zookeeper
    values = {
        "tickTime": zookeeper.tick_time,
        "initLimit": zookeeper.init_limit,
        "syncLimit": zookeeper.sync_limit,
        "dataDir": zookeeper.data_dir,
        "clientPort": zookeeper.client_port,
        **server_lines(site),
    }
    ids = "|".join(str(host.myid) for host in site.having("zookeeper"))
    # The file is a Java properties file: blanks may surround `=`, and `:` or a blank may stand in its place.
    strangers = rf"\s*server\.(?!({ids})\s*[=:\s])\d+\s*[=:\s]"
    lines = [(rf"\s*{re.escape(key)}\s*[=:\s]", f"{key}={value}") for key, value in values.items()]
    return (Settings(_zoo_cfg(site), ((strangers, ""), *lines), zookeeper.data_dir),)


def service(site: Site) -> CommandService:
    """ZooKeeper, started and stopped by its own script as 1.2 and 1.3 demand: it is under no systemd unit.

    It restarts when it is older than its settings. `zkServer.sh stop` is itself `kill -9` in 3.4.6, which ZooKeeper is
    made to bear: an acknowledged write is on disk. So stopping is safe as long as it hits ZooKeeper and nothing else,
    which this step makes sure of before (see `CommandService`).
    """
    script = f"{site.zookeeper.home}/bin/zkServer.sh"
    return CommandService(
        "zookeeper",
        start=(script, "start"),
        stop=(script, "stop"),
        pid_file=diagnosis.pid_file(site),
        process=diagnosis.PROCESS,
        restart_if_newer=(_zoo_cfg(site), _myid(site)),
        timeout=5,
        folder=site.zookeeper.log_dir,  # where zkEnv.sh sets no ZOO_LOG_DIR, it is "."
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

    def connection_string(self) -> ApplyResult:
        """1.1: /etc/mesos/zk on every host that is a member or looks up a leader."""
        with self.section("1.1", "Where the ensemble is"):
            names = [host.name for host in self.site.hosts if CLIENTS.intersection(host.roles)]
            return self.hosts().only(*names).apply(connection_file(self.site), name="/etc/mesos/zk")

    def identities(self) -> ApplyResult:
        """2.2.1: myid in every member's dataDir."""
        with self.section("2.2.1", "The members' ids"):
            return self._members.apply(lambda host: identity(self.site, host), name="myid")

    def server_lines(self) -> ApplyResult:
        """2.2.2: the lines of zoo.cfg that make single ZooKeepers an ensemble."""
        with self.section("2.2.2", "The list of members"):
            return self._members.apply(settings(self.site), name="zoo.cfg")

    def start(self) -> ApplyResult:
        """1.2: ZooKeeper runs everywhere with its present settings; members are (re)started one at a time.

        Followers before the leader, none whose absence the quorum would not bear, and the next one only once the last
        one serves. Raises ApplyFailed and CheckFailed with what the diagnosis (1.3) found.
        """
        with self.section("1.2", "Start, one host at a time"):
            # A plan must foresee the restart that a setting's change will need.
            planned = settings(self.site) if self.mode is Mode.PLAN else ()
            try:
                return self._members.rolling(
                    lambda host: [*(planned and identity(self.site, host)), *planned, service(self.site)],
                    before=lambda host: Ensemble.ask(self.site).can_spare(host.name),
                    until=self._is_back,
                    order=lambda hosts: Ensemble.ask(self.site).order(hosts),
                    name="zkServer.sh",
                )
            except (ApplyFailed, CheckFailed) as error:
                findings = self._diagnose()
                display(findings)
                message, remedy = f"{error.message}\n{findings}", "mend what the diagnosis names, then run again"
                if isinstance(error, ApplyFailed):
                    raise ApplyFailed(message, remedy, result=error.result) from error
                raise CheckFailed(message, remedy) from error

    def state(self) -> Table:
        """What every member says of itself, at this moment."""
        with self.section("1.2 state", "what every member says"):
            return Ensemble.ask(self.site).table()

    def every_member_serves(self) -> CheckResult:
        """Check: every member answers and takes part in the quorum."""
        with self.section("1.2 members", "all of them serve"):
            return self._check("every member serves", lambda: Ensemble.ask(self.site).complete())

    def one_leader(self) -> CheckResult:
        """Check: exactly one member leads, and its followers are in sync."""
        with self.section("1.2 leader", "there is one, and followers are in sync"):
            return self._check("one member leads", lambda: Ensemble.ask(self.site).led())

    def members_agree(self) -> CheckResult:
        """Check: a znode that is written through one member is read through another. A plan writes none."""
        with self.section("1.2 znodes", "what one member writes, another reads"):
            not_tried = Evidence(False, "a plan writes nothing", tried=False)
            name = "a znode written through one member is read through another"
            return self._check(name, lambda: not_tried if self.mode is Mode.PLAN else written_and_read(self.site))

    def logs(self, lines: int = 5) -> Table:
        """1.2: where each member's log is, and its last lines."""
        with self.section("1.2 logs", "where they are, and their last lines"):
            outputs = self._members.run(_LAST_LINES.format(folder=quote(self.site.zookeeper.log_dir), lines=lines))
            rows = []
            for host, output in outputs.items():
                head, _, last = output.stdout.partition("\n")
                size, _, path = head.partition(" ")
                shown = output.error.message if output.error else last.rstrip() or output.stderr.strip()
                rows.append((host, path, size, shown))
            frame = pd.DataFrame(rows, columns=["host", "log", "bytes", "last lines"])
            return Table(frame, f"the newest log in {self.site.zookeeper.log_dir}", literal=("last lines",))

    def diagnose(self) -> Findings:
        """1.3: why ZooKeeper does not start, or does not serve, on each host. Looks only; it touches nothing."""
        with self.section("1.3", "Why ZooKeeper does not start"):
            return self._diagnose()

    # the parts

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


_LAST_LINES = """\
set -- $(cd {folder} && ls -t -- *zookeeper*.log *zookeeper*.out 2>/dev/null)
[ $# -gt 0 ] || {{ echo "no log in {folder} yet" >&2; exit 1; }}
f={folder}/$1
stat -c '%s %n' "$f"; tail -n {lines} "$f"
"""
