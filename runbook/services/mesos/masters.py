"""Chapter 2: mesos-master, from the package to one master that leads and the others that could."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from IPython.display import display

from runbook.chapter import section
from runbook.errors import ApplyFailed, CheckFailed, RunbookError
from runbook.remote.checks import CheckResult, Evidence
from runbook.remote.hosts import Hosts
from runbook.remote.modes import Mode
from runbook.remote.results import ApplyResult
from runbook.remote.steps import Step
from runbook.services import syslog
from runbook.services.mesos import in_force, logs, steps
from runbook.services.mesos.chapter import MesosChapter
from runbook.services.mesos.checks import MasterEnsemble, masters_of
from runbook.services.mesos.client import MesosMaster
from runbook.services.mesos.diagnose import ELECTION
from runbook.services.mesos.tables import metrics_table, resources_table
from runbook.site import HostParameters, Site
from runbook.views.tables import Table


class MesosMasters(MesosChapter):
    """Chapter 2: the masters of a site."""

    number = "2"
    title = "mesos-master"
    needs = ("mesos_master",)
    parameters = MesosChapter.parameters | {"active_checks"}
    program = steps.MASTER

    @section("2.1", "Install with yum")
    def install(self) -> ApplyResult:
        """2.1: the package from the hosts' yum repository; neither of its services starts before it is configured."""
        return self._install()

    @section("2.1 versions", "What is installed")
    def installed(self) -> Table:
        """2.1: which package and which program each host has now."""
        return self._versions()

    def quorum(self) -> ApplyResult:
        """2.2.3: the quorum. Where masters have run with another one, behind the gate `change-quorum`, or refused."""
        with self.section("2.2.3", f"The quorum: {self.site.quorum}"):
            return self._applied(lambda: self.members.apply([steps.quorum(self.site)], name="quorum"))

    @section("2.2.4", "Each master's ip and hostname")
    def identities(self) -> ApplyResult:
        """2.2.4: each master's ip and hostname."""
        return self._applied(
            lambda: self.members.apply(lambda host: steps.identity(self.site, host), name="ip and hostname")
        )

    @section("2.2.5", "The port, and where it works")
    def settings(self) -> ApplyResult:
        """2.2.5: the port, and beside it where a master finds ZooKeeper, works and logs."""
        return self._applied(lambda: self.members.apply(steps.master_settings(self.site), name="settings"))

    @section("2.2.6", "Start, one master at a time")
    def start(self) -> ApplyResult:
        """2.2.6: mesos-master runs everywhere with its present settings; masters are (re)started one at a time.

        Standbys before the leader, none whose absence the log's quorum would not bear, and the next one only once the
        last one holds its replica of the log. On a master that is to be no slave, mesos-slave is off. Raises
        ApplyFailed and CheckFailed with what the logs tell.
        """
        ensemble = self._ensemble()
        leaderless = ensemble is not None and ensemble.leader is None
        try:
            return self._applied(
                lambda: self.members.rolling(
                    lambda host: self._start_steps(host, ensemble),
                    before=lambda host: MasterEnsemble.ask(self.site).can_spare(host.name, leaderless=leaderless),
                    until=lambda host: MasterEnsemble.ask(self.site).is_back(host.name),
                    order=lambda hosts: MasterEnsemble.ask(self.site).order(hosts),
                    name="service mesos-master start",
                )
            )
        except (ApplyFailed, CheckFailed) as error:
            self._explained(error)

    @section("2.2.7 files", "The log files")
    def log_files(self) -> Table:
        """2.2.7: which files mesos-master.INFO, WARNING and ERROR link to."""
        return logs.links(self.members, self.log_dir, self.program)

    @section("2.2.7", "One log file a program")
    def syslog(self) -> ApplyResult:
        """2.2.7: one file a program through rsyslog, on every host where something logs, and its rotation."""
        names = [host.name for host in self.site.hosts if syslog.ROLES.intersection(host.roles)]
        return self._applied(lambda: self.hosts().only(*names).apply(syslog.steps(self.site), name="rsyslog"))

    @section("2.2.7 delivery", "Lines arrive in their files")
    def delivery(self) -> CheckResult:
        """2.2.7, check: a line that is logged under each daemon's tag arrives in its file.

        An active check: it writes a line to each log.
        """
        hosts = self.hosts().only(*(host.name for host in self.site.hosts if syslog.daemons(self.site, host)))
        return self._check("lines of each daemon arrive in its file", lambda: self._delivered(hosts), deadline=20.0)

    @section("2.2.7 lines", "The last lines of each log")
    def last_lines(self, lines: int = 4) -> Table:
        """2.2.7: the last lines of each log of each host."""
        return logs.last_lines(self.members, self.site.syslog.log_dir, self.site.syslog.programs, lines)

    @section("2.2.7 election", "The lines of the election")
    def election_lines(self) -> CheckResult:
        """2.2.7, check: each master's present log has the lines of the election that the document shows."""
        return self._check("every master's log tells of the election", self._election, deadline=150.0)

    @section("2.3", "One master leads")
    def one_leader(self) -> CheckResult:
        """2.3, check: the masters that answer name one leader; ZooKeeper names it, too; and it works."""
        return self._check("one master leads, and works", lambda: MasterEnsemble.ask(self.site).led(), deadline=150.0)

    @section("2.3 masters", "Every master answers")
    def every_master(self) -> CheckResult:
        """2.3, check: every master answers, holds its replica of the log, and runs with the flags of the parameters."""
        return self._check("every master answers and holds its log replica", lambda: complete(self.site))

    @section("2.3 state", "The masters")
    def masters(self) -> Table:
        """2.3: what every master says of itself, at this moment."""
        ensemble = self._ensemble()
        return ensemble.table() if ensemble is not None else _nothing("the masters: ZooKeeper does not answer")

    @section("2.3 resources", "The cluster's resources")
    def resources(self) -> Table:
        """2.3: the cluster's CPUs, memory, disk and ports, as the leader adds them up."""
        with masters_of(self.site) as masters:
            try:
                return _written_out(resources_table(masters.state()), "what active slaves offer")
            except RunbookError as error:
                return self._unless_planned(error)

    @section("2.3 metrics", "The leader's metrics")
    def metrics(self) -> Table:
        """2.3: the leader's metrics that are worth reading, and what they mean."""
        with masters_of(self.site) as masters:
            try:
                leader = masters.leader()
                table = metrics_table(leader.metrics())
                return _written_out(table[table["value"].notna()], f"metrics of {leader.name}")
            except RunbookError as error:
                return self._unless_planned(error)

    # the parts

    def _delivered(self, hosts: Hosts) -> Evidence:
        if not self.may_act:
            return Evidence.inactive("it writes a line to each log: only in mode apply, or with active_checks")
        return syslog.delivered(self.site, hosts)

    def _election(self) -> Evidence:
        frame = logs.milestones(self.members, self.log_dir, self.program, ELECTION).frame
        unaware = [host for host, said in zip(frame["host"], frame["names the leader"], strict=True) if said[:1] != "✓"]
        elected = frame["has the registry"].str.startswith("✓").any()
        said = [f"the log of {', '.join(unaware)} names no leader"] if unaware else []
        said += [] if elected else ["no log tells of a master that was elected and recovered the registry"]
        named = ", ".join(dict.fromkeys(detail[2:] for detail in frame["names the leader"]))
        remedy = "wait for the election; then see mesos-master.WARNING and ERROR"
        return Evidence(not said, "; ".join(said) or f"they name {named}", frame, remedy)

    def _ensemble(self) -> MasterEnsemble | None:
        """The masters as they are; None where ZooKeeper does not tell, and nothing is to be changed."""
        try:
            return MasterEnsemble.ask(self.site)
        except RunbookError as error:
            if self.mode is Mode.APPLY:
                raise
            display(_nothing(str(error)))
            return None

    def _unless_planned(self, error: RunbookError) -> Table:
        """A table that says what is missing: before the first rollout that is nothing bad."""
        if self.mode is Mode.APPLY:
            raise error
        return _nothing(str(error))

    def _start_steps(self, host: HostParameters, ensemble: MasterEnsemble | None) -> Sequence[Step]:
        # A plan must foresee the restart that another setting needs, and a package that is not there yet.
        planned: tuple[Step, ...] = ()
        if self.mode is Mode.PLAN:
            planned = (
                *steps.install(self.site),
                steps.quorum(self.site),
                *steps.identity(self.site, host),
                *steps.master_settings(self.site),
            )
        gate, consequence = self._gate(host, ensemble)
        return (
            *planned,
            *steps.drift(self.site, self.program),
            steps.FlagFolder(self.program),
            steps.Release(self.program),
            steps.master_service(self.site, gate, consequence),
            *steps.without_slave(host),
        )

    def _gate(self, host: HostParameters, ensemble: MasterEnsemble | None) -> tuple[str | None, str]:
        """The gate before a master that runs with another quorum is restarted with the new one."""
        view = ensemble.answering.get(host.name) if ensemble is not None else None
        if view is None or view.quorum in (None, self.site.quorum):
            return None, ""
        assert view.quorum is not None
        return steps.QUORUM, steps.quorum_consequence(view.quorum, self.site.quorum)


def complete(site: Site) -> Evidence:
    """Whether every master answers, holds its replica of the log, and has the flags of the parameters in force."""
    evidence = MasterEnsemble.ask(site).complete()
    if not evidence.holds:
        return evidence
    wrong = []
    for host in site.having("mesos_master"):
        with MesosMaster(f"http://{host.address}:{site.mesos.master.port}", name=host.name) as master:
            found = in_force.differences(in_force.of_master(site, host), master.flags())
        wrong += [f"{host.name}: {one}" for one in found]
    if not wrong:
        return evidence
    hint = "run 2.2.6 again, which restarts the master; see `ps` where it was started by hand"
    return Evidence(False, "; ".join(wrong), evidence.table, hint)


def _written_out(frame: pd.DataFrame, caption: str) -> Table:
    """The table with its amounts as a person writes them: 20,656,316,416, and 0.25 for 0.25000."""
    numbers = frame.select_dtypes("number").columns
    written = frame[numbers].map(lambda value: "" if pd.isna(value) else f"{value:,.3f}".rstrip("0").rstrip("."))
    return Table(frame.astype(object).assign(**{name: written[name] for name in numbers}), caption)


def _nothing(text: str) -> Table:
    return Table(pd.DataFrame([(text,)], columns=["not known"]))
