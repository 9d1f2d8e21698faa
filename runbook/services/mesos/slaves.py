"""Chapter 3: mesos-slave, from the package to slaves that are registered and offer what they should."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import pandas as pd

from runbook.chapter import section
from runbook.errors import ApplyFailed, CheckFailed, RunbookError
from runbook.remote.checks import CheckResult, Evidence
from runbook.remote.hosts import Hosts
from runbook.remote.modes import Mode
from runbook.remote.results import ApplyResult
from runbook.remote.steps import Step
from runbook.services.mesos import forecast, in_force, logs, steps
from runbook.services.mesos.chapter import MesosChapter
from runbook.services.mesos.checks import MasterEnsemble, Registrations, masters_of
from runbook.services.mesos.diagnose import REGISTRATION, milestones_table, slave_findings
from runbook.services.mesos.forecast import Forecast
from runbook.services.mesos.resources import Ranges
from runbook.services.mesos.tables import slaves_table
from runbook.site import HostParameters, Site
from runbook.views.tables import Table
from runbook.views.usage import Usage


class MesosSlaves(MesosChapter):
    """Chapter 3: the slaves of a site."""

    number = "3"
    title = "mesos-slave"
    needs = ("mesos_slave",)
    program = steps.SLAVE

    @section("3.1", "Install")
    def install(self) -> ApplyResult:
        """3.1: the package, which brings both programs, on hosts that have it not yet from chapter 2."""
        return self._install()

    @section("3.1 versions", "What is installed")
    def installed(self) -> Table:
        """3.1: which package and which program each host has now."""
        return self._versions()

    @section("3.2 forecast", "What the slaves will make of it")
    def foresee(self) -> Table:
        """3.2: what each slave will make of its settings: go on, register for the first time, or refuse to start."""
        return forecast.table(forecast.forecasts(self.site, self.members).values())

    @section("3.2", "Configure and start, one slave at a time")
    def start(self) -> ApplyResult:
        """3.2 and 3.3: the files of each slave, and a mesos-slave that runs with them; one host at a time.

        Where Mesos would refuse to start the slave with what has changed, the gate `reset-slave-metadata` is asked
        before anything is done on the host: it shows which tasks the reset loses. The next host follows once this one
        is registered. Raises ApplyFailed, CheckFailed and GateRefused.
        """
        try:
            return self._applied(lambda: roll_out(self.site, self.members))
        except (ApplyFailed, CheckFailed) as error:
            self._explained(error)

    @section("3.2 registration", "Every slave is registered")
    def registered(self) -> CheckResult:
        """3.2, check: every slave's log tells of its registration, and the leader's state lists it as active."""
        return self._check("every slave is registered", lambda: registration(self.members), deadline=90.0)

    @section("3.2 files", "The log files")
    def log_files(self) -> Table:
        """3.2: which files mesos-slave.INFO, WARNING and ERROR link to."""
        return logs.links(self.members, self.log_dir, self.program)

    @section("3.2 log", "The lines of the registration")
    def registration_lines(self) -> Table:
        """3.2: the lines of the registration that the document shows, in each slave's present log."""
        return logs.milestones(self.members, self.log_dir, self.program, REGISTRATION)

    @section("3.3 leftovers", "What earlier slaves left running")
    def leftovers(self) -> ApplyResult:
        """3.3: executors and tasks of slaves that registered anew, which go on without Mesos: listed, and ended behind
        the gate `reset-slave-metadata`."""
        work_dirs = tuple(dict.fromkeys((self.site.mesos.slave.work_dir, steps.DEFAULT_WORK_DIR)))
        return self._applied(
            lambda: self.members.apply([steps.NoLeftovers(work_dirs)], name="executors of earlier slaves")
        )

    @section("3.3", "What the slaves offer")
    def offers(self) -> CheckResult:
        """3.3, check: every slave offers the ports of the parameters and can run what chapters 5 and 6 need."""
        return self._check("every slave offers what it should", lambda: offered(self.site, self.members), deadline=10)

    @section("3.4", "The slaves")
    def slaves(self) -> Table:
        """3.4: the slaves with what is used and free of what they offer, as the leader's page shows them."""
        registrations = Registrations.ask(self.site)
        if registrations.problem is not None and self.mode is Mode.APPLY:
            raise registrations.problem
        return registrations.table()

    @section("3.4 usage", "Used against free")
    def usage(self) -> Usage:
        """3.4: a picture of used against free, of a few slaves or of a thousand."""
        with masters_of(self.site) as masters:
            names = {host.address: host.name for host in self.members}
            try:
                return Usage(slaves_table(masters.state()).replace({"host": names}))
            except RunbookError:
                if self.mode is Mode.APPLY:
                    raise
                return Usage(slaves_table({"slaves": [], "frameworks": []}))


def roll_out(site: Site, hosts: Hosts) -> ApplyResult:
    """Bring the slaves of these hosts to their settings, one at a time.

    For chapter 3, and for chapter 5 after it installed Docker: until then a slave goes without that containerizer.
    Raises ApplyFailed, CheckFailed and GateRefused, each with all results.
    """
    foreseen = forecast.forecasts(site, hosts)
    return hosts.rolling(
        lambda host: start_steps(site, host, foreseen[host.name], hosts.mode),
        before=lambda host: MasterEnsemble.ask(site).led(),
        until=lambda host: registration(hosts.only(host.name)),
        name="service mesos-slave start",
    )


def start_steps(site: Site, host: HostParameters, foreseen: Forecast, mode: Mode) -> Sequence[Step]:
    """What makes a running slave with its settings. The reset comes first: behind a shut gate nothing is written."""
    reset: tuple[Step, ...] = ()
    if foreseen.needs_reset:
        reset = (steps.Forget(foreseen.work_dir, foreseen.slave_id, foreseen.differences, foreseen.tasks),)
    return (
        *(steps.install(site) if mode is Mode.PLAN else ()),  # a plan foresees a package that is not there yet
        *reset,
        *steps.slave_settings(site, host, docker=foreseen.docker),
        *steps.drift(site, steps.SLAVE),
        steps.FlagFolder(steps.SLAVE),
        steps.Release(steps.SLAVE),
        steps.slave_service(site, host),
        *steps.without_master(host),
    )


def registration(hosts: Hosts) -> Evidence:
    """Whether the slaves of these hosts are registered: by the leader's state, and by their own logs (3.2)."""
    site, names = hosts.site, [host.name for host in hosts]
    evidence = Registrations.ask(site).registered(names)
    if not evidence.holds:
        return evidence
    probe = logs.milestones_probe(site.mesos.master.log_dir, steps.SLAVE, REGISTRATION)
    silent = [host for host, output in hosts.run(probe).items() if not _tells_registration(output.stdout)]
    if silent:
        text = f"{evidence.text}; the log of {', '.join(silent)} does not tell of it"
        return Evidence(False, text, evidence.table, "read mesos-slave.INFO there")
    return Evidence(True, f"{evidence.text}; so their logs say", evidence.table)


def _tells_registration(lines: str) -> bool:
    found = milestones_table(lines.splitlines(), REGISTRATION).set_index("milestone")["reached"]
    return bool(found["is registered"])


def offered(site: Site, hosts: Hosts) -> Evidence:
    """Whether the slaves of these hosts offer the parameters' ports, and what will fail on them by their flags."""
    registrations = Registrations.ask(site)
    if registrations.state is None:
        assert registrations.problem is not None
        return Evidence.against(registrations.problem)
    wanted = Ranges(site.mesos.slave.ports.spans)
    states = forecast.slave_states(site, tuple(hosts))
    rows = []
    for host in hosts:
        entry, state = registrations.entries.get(host.name), states.get(host.name)
        if entry is None:
            rows.append((host.name, "", "", "✗ not registered"))
            continue
        ports = Ranges.parse(entry["resources"].get("ports"))
        found = [] if ports == wanted else [f"✗ it offers {ports} and should offer {wanted}"]
        flags = state["flags"] if state is not None else {}
        if flags:
            found += [f"✗ {one}" for one in in_force.differences(in_force.of_slave(site, host), flags)]
        found += (
            _warnings(site, flags, ports) if flags else [f"⚠ its port {site.mesos.slave.port} does not answer here"]
        )
        rows.append((host.name, str(ports), flags.get("containerizers", ""), "\n".join(found) or "✓"))
    table = pd.DataFrame(rows, columns=["host", "ports", "containerizers", "findings"])
    wrong = [host for host, _, _, found in rows if "✗" in found]
    text = f"{', '.join(wrong)}: see the table" if wrong else f"{len(rows)} slaves offer {wanted}"
    return Evidence(not wrong, text, table, "run 3.2 again: it writes the files and restarts the slave")


def _warnings(site: Site, flags: Mapping[str, str], ports: Ranges) -> Iterator[str]:
    """What will fail on a slave with these flags."""
    containerizers = site.mesos.slave.containerizers
    if "docker" in containerizers.split(",") and "docker" not in flags.get("containerizers", "mesos").split(","):
        yield "⚠ it runs no Docker tasks yet: it gets that containerizer once Docker is installed (chapter 5)"
        flags = {**flags, "containerizers": containerizers}
    for finding in slave_findings(flags, ports=ports, open_ports=Ranges(site.open_ports.spans)):
        yield f"⚠ {finding.what}: {finding.remedy}"
