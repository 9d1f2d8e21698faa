"""Chapter 4: Marathon, from the RPM to an app that runs, is spread over the hosts, and comes back after a crash."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import ClassVar, NoReturn

import pandas as pd
from IPython.display import display

from runbook.chapter import Chapter, Section, section
from runbook.errors import ApplyFailed, CheckFailed, DeploymentFailed, GateRefused, RunbookError, ServiceError
from runbook.events import emit
from runbook.remote.checks import CheckResult, Evidence
from runbook.remote.hosts import Hosts
from runbook.remote.modes import Mode, Status
from runbook.remote.results import ApplyResult, StepResult
from runbook.remote.shell import facts, quote
from runbook.remote.steps import Step
from runbook.services.findings import Findings
from runbook.services.marathon import deploy as apps
from runbook.services.marathon import steps
from runbook.services.marathon.answers import answered
from runbook.services.marathon.apps import App, app_from_file, app_id, app_of
from runbook.services.marathon.deploy import HOST, marathon_of, tasks_of
from runbook.services.marathon.diagnose import KNOWN, REGISTRATION, Kept
from runbook.services.marathon.drill import KILL, Recovery, Victim
from runbook.services.marathon.ensemble import Framework, Instances
from runbook.services.marathon.losses import Losses
from runbook.services.marathon.tables import apps_table, runs, tasks_table
from runbook.services.mesos import logs
from runbook.services.mesos.checks import Registrations
from runbook.site import HostParameters
from runbook.views.distribution import Distribution
from runbook.views.tables import Table
from runbook.wording import plural

HELLO = "hello"
"""The document's app (4.3)."""
SAYS = "Hello World"
"""What it answers."""


class MarathonChapter(Chapter):
    """Chapter 4: the Marathon of a site, and its apps."""

    number = "4"
    title = "Marathon"
    needs = ("marathon",)

    EXPLAINED: ClassVar = "mend what is named above, then run again: what was done is found, and the rest follows"

    @property
    def members(self) -> Hosts:
        """The hosts that run Marathon."""
        return self.hosts("marathon")

    # 4.1

    @section("4.1", "Upload and install the RPM")
    def install(self) -> ApplyResult:
        """4.1: the RPM of the parameters, uploaded and installed with `rpm -ivh`.

        Raises ParameterError, before any host is touched, where its file is missing or has another SHA-256.
        """
        if self.mode is not Mode.VERIFY:  # what is installed can be verified without the file
            self.site.check_files(["marathon"])
        step = steps.install(self.site)
        return self._applied(lambda: self.members.apply([step], name=f"rpm -ivh {step.file.name}"))

    @section("4.1 versions", "What is installed")
    def installed(self) -> Table:
        """4.1: which package each host has now; it goes into the record.

        The program is not asked: the start script of 1.1 has no `--version`, and prints its whole command line instead,
        with the credentials in it (bin/marathon-framework).
        """
        package = self.site.marathon.package
        rows = []
        for host, output in self.members.run(_VERSIONS.format(package=quote(package))).items():
            found = facts(output.stdout) if output.ok else {}
            missing = output.error.message if output.error else "not installed"
            rows.append((host, found.get("package", missing)))
            if "package" in found:
                self.versions(host, {steps.PROGRAM: found["package"]})
        columns = ["host", f"package {package}"]
        return Table(pd.DataFrame(rows, columns=columns), "installed", states=(columns[1],))

    # 4.2

    @section("4.2", "Configure and start, one instance at a time")
    def start(self) -> ApplyResult:
        """4.2: the files of each instance, and a Marathon that runs with them; one instance at a time.

        Standbys before the leader, none before another one answers, and the next one only once this one answers again.
        Raises ApplyFailed and CheckFailed with what the logs tell.
        """
        try:
            return self._applied(
                lambda: self.members.rolling(
                    self._start_steps,
                    before=lambda host: self._instances().can_spare(host.name),
                    until=lambda host: self._instances().is_back(host.name),
                    order=lambda hosts: self._instances().order(hosts),
                    name="service marathon start",
                    patience=90.0,
                )
            )
        except (ApplyFailed, CheckFailed) as error:
            self._explained(error)

    @section("4.2 leader", "One instance leads")
    def one_leader(self) -> CheckResult:
        """4.2, check: one instance leads: by ZooKeeper, by every answer, and by its own word."""
        return self._check("one instance leads", lambda: self._instances().led(), deadline=90.0)

    @section("4.2 instances", "Every instance answers")
    def every_instance(self) -> CheckResult:
        """4.2, check: every instance answers, stands for election once, and names the same leader."""
        return self._check(
            "every instance answers and names the leader",
            lambda: self._instances().complete(),
            deadline=90.0,
        )

    @section("4.2 state", "The instances")
    def instances(self) -> Table:
        """4.2: what comes through every instance, at this moment."""
        try:
            return self._instances().table()
        except ServiceError as error:
            return self._unknown(error)

    @section("4.2 framework", "Mesos has registered the framework")
    def registered(self) -> CheckResult:
        """4.2, check: Mesos' leader has the framework of Marathon's id, as active.

        Where it does not, shows what the logs of the instances and of the masters tell of that.
        """
        try:
            result = self._check(
                "the framework is registered", lambda: Framework.ask(self.site).registered(), deadline=60.0
            )
        except CheckFailed as error:
            findings = self._told_of_registration()
            if not findings:
                raise
            display(findings)
            raise CheckFailed(f"{error.message}\n{findings}", self.EXPLAINED) from error
        if not result.holds and self.mode is Mode.VERIFY and (findings := self._told_of_registration()):
            display(findings)
        return result

    @section("4.2 store", "What Marathon keeps in ZooKeeper")
    def kept(self) -> CheckResult:
        """4.2, check: nothing that Marathon keeps in ZooKeeper comes near the limit on a znode."""
        return self._check("no znode of Marathon is too large", self._bearable, deadline=10)

    # 4.3

    def deploy(self, name: str = HELLO) -> ApplyResult:
        """4.3: an app of the parameters, created or changed, and followed until its instances run.

        The document's app keeps its number of instances, which the chapter sets further below. Of another app
        `instances` counts; left out, it is left to others. Raises ApplyFailed with the explanation, and what Marathon
        refuses by its name.
        """
        with self._about("", name, f"Run the app {name}"):
            return self._deploy(app_of(self.site, name))

    def deploy_file(self, path: str | Path) -> ApplyResult:
        """4.3 and 5.3: an app from a JSON file, as the document's `curl -d@marathon-test.json`. As `deploy`."""
        app = app_from_file(path)
        with self._about("", app["id"], f"Run the app of {Path(path).name}"):
            return self._deploy(app)

    @section("4.3 apps", "The apps")
    def apps(self) -> Table:
        """4.3: the apps, as Marathon's page lists them. Those that no parameter names are marked, and no drift."""
        with marathon_of(self.site) as marathon:
            try:
                frame = apps_table(marathon.apps())
            except ServiceError as error:
                return self._unknown(error)
            shown = frame[_SHOWN].astype(object)
            named = {app_id(name) for name in (*self.site.apps, self.site.mysql.app)}
            shown["parameters"] = ["✓" if app in named else "⚠ no parameter names it" for app in frame["app"]]
            others = int((~frame["app"].isin(named)).sum())
            caption = plural(len(frame), "app") + (f", {others} that no parameter names" if others else "")
            return Table(shown.where(shown.notna(), ""), caption, states=("parameters",))

    def tasks(self, name: str = HELLO) -> Table:
        """4.3: on which host and at which port each instance of an app is."""
        with self._about("tasks", name, "Where it runs"):
            frame = self._tasks(name)
            shown = frame[["task", "host", "ports", "state"]].assign(
                started=frame["started"].dt.strftime("%Y-%m-%d %H:%M:%S").fillna("")
            )
            shown = shown.rename(columns={"started": "started (UTC)"}).astype(object)
            return Table(shown, f"{app_id(name)}: {plural(len(frame), 'task')}", states=("state",))

    def answers(self, name: str = HELLO, says: str = SAYS) -> CheckResult:
        """4.3, check: every instance of an app answers at its host and port with `says`.

        Without health checks a deployment counts as done once Mesos says TASK_RUNNING, before anything listens: so the
        answer is waited for.
        """
        with self._about("answer", name, "Ask it at its host and port"):
            return self._check(
                f"{app_id(name)} answers '{says}'", lambda: answered(self.site, name, says), deadline=60.0
            )

    def scale(self, name: str = HELLO, instances: int = 4) -> ApplyResult:
        """4.3: so many instances of an app, followed until they run. Raises as `deploy`."""
        with self._about("scale", name, f"Scale to {instances} instances"):
            return self._followed(lambda: apps.scale(self.site, name, instances, mode=self.mode))

    def distribution(self, name: str = HELLO) -> Distribution:
        """4.3: how an app's instances are spread over the hosts, as a picture."""
        with self._about("distribution", name, "How it is spread over the hosts"):
            hosts = [host.name for host in self.site.having("mesos_slave")]
            return Distribution(app_id(name), self._tasks(name), hosts)

    def crash(self, name: str = HELLO) -> CheckResult | ApplyResult:
        """Beyond 4.3, a drill: one instance's process is killed on its host, and Marathon starts another.

        Only in mode apply, and behind the gate `kill-task`: where it is not opened, the drill is skipped, which the
        record shows, and the chapter goes on. It is a check, not a change: what is ended is put back. Raises
        CheckFailed where it is not.
        """
        with self._about("crash", name, "A task that crashes comes back"):
            if self.mode is not Mode.APPLY:
                return self._skipped(name, "a drill ends a task: only in mode apply")
            with marathon_of(self.site) as marathon:
                app = marathon.app(name)
                running = [task for task in app["tasks"] if runs(task)]
                if not running:
                    return self._skipped(name, "no task of it runs")
                names = self.site.names
                task = max(running, key=lambda task: str(task["startedAt"]))
                victim = Victim.of(app, task, names)
                evidence = pd.DataFrame([(victim.task, victim.host)], columns=["task", "host"])
                question = f"{KILL}: end the process of one of the {plural(len(running), 'task')} of {app['id']}"
                try:
                    self.hosts().approval.ask(KILL, question, evidence)
                except GateRefused as refused:
                    return self._skipped(name, f"the gate '{KILL}' was not opened: {refused.remedy}")
                pid = victim.crash(self.hosts())
                recovery = Recovery(app["id"], victim, pid, tuple(app["tasks"]), names)
                claim = f"a task of {app['id']} that crashes comes back"
                return self._check(claim, lambda: recovery.watch(marathon), deadline=120.0)

    @section("4.3 hosts", "Hosts that are lost, and their tasks")
    def lost_hosts(self) -> CheckResult:
        """4.3, check: no host is lost; where one is, which tasks were on it, and where they are now."""
        silent = [host for host, output in self.hosts().run(":", deadline=5.0).items() if output.error is not None]
        return self._check("every host that runs tasks is there", lambda: self._losses(silent), deadline=30.0)

    # operations beyond the document

    def delete(self, app: str, *, force: bool = False) -> ApplyResult:
        """End an app with all its tasks, behind the gate `delete-app`. Raises GateRefused, and as `deploy`."""
        with self._about("delete", app, f"Delete the app {app}"):
            return self._followed(
                lambda: apps.delete(self.site, app, mode=self.mode, approval=self.hosts().approval, force=force)
            )

    # the parts

    def _instances(self) -> Instances:
        """The instances as they are. A plan does not ask ZooKeeper where none answers: there may be none yet."""
        return Instances.ask(self.site, ask_zookeeper=self.mode is not Mode.PLAN)

    def _bearable(self) -> Evidence:
        if self.mode is Mode.PLAN:
            with marathon_of(self.site) as marathon:
                marathon.info()  # raises where there is nobody yet, and so nothing kept
        return Kept.ask(self.site).bearable()

    def _start_steps(self, host: HostParameters) -> Sequence[Step]:
        # A plan must foresee the files and the start of a package that is not there yet.
        planned = (steps.install(self.site),) if self.mode is Mode.PLAN else ()
        own = *steps.settings(self.site, host), *steps.drift(self.site)
        return *planned, *own, steps.service(self.site, host)

    def _deploy(self, app: App) -> ApplyResult:
        scaled = app_id(app["id"]) == app_id(HELLO)
        return self._followed(lambda: apps.deploy(self.site, app, mode=self.mode, keep_instances=scaled))

    def _followed(self, call: Callable[[], ApplyResult]) -> ApplyResult:
        """The result of `call`; the explanation of a deployment that failed is shown as well as told."""
        try:
            return call()
        except ApplyFailed as error:
            if isinstance(error.__cause__, DeploymentFailed) and isinstance(error.__cause__.result, Findings):
                display(error.__cause__.result)
            raise

    def _about(self, what: str, name: str, title: str) -> AbstractContextManager[Section]:
        """A section about one app: those about the document's have the plain numbers."""
        words = ["4.3", what, "" if app_id(name) == app_id(HELLO) else app_id(name)]
        return self.section(" ".join(filter(None, words)), title)

    def _tasks(self, name: str) -> pd.DataFrame:
        try:
            return tasks_of(self.site, name, mode=Mode.APPLY)
        except ServiceError as error:
            if self.mode is Mode.APPLY:
                raise
            display(_nothing(error.message))
            return tasks_table([])

    def _losses(self, silent: Sequence[str]) -> Evidence:
        registrations = Registrations.ask(self.site)
        if registrations.problem is not None:
            return Evidence.against(registrations.problem)
        with marathon_of(self.site) as marathon:
            return Losses.of(self.site, registrations, marathon.apps(), marathon.tasks(), silent).evidence()

    def _told_of_registration(self) -> Findings:
        """What the logs of Marathon and of the masters tell of a framework that is not registered."""
        found = (
            *logs.explain(self.members, steps.PROGRAM, KNOWN),
            *logs.explain(self.hosts("mesos_master"), "mesos-master", REGISTRATION),
        )
        return Findings("the framework's registration", found)

    def _skipped(self, name: str, reason: str) -> ApplyResult:
        label = f"crash of {app_id(name)}"
        result = StepResult(HOST, label, Status.SKIPPED, reason)
        emit(event="step", **result.row())
        return ApplyResult(label, self.mode, (result,))

    def _unknown(self, error: RunbookError) -> Table:
        """A table that says what is missing: before the first rollout that is nothing bad."""
        if self.mode is Mode.APPLY:
            raise error
        return _nothing(error.message)

    def _explained(self, error: ApplyFailed | CheckFailed) -> NoReturn:
        """Raise the error again, with what the hosts' logs tell where Marathon did not start or come back."""
        hosts = self.members
        if isinstance(error, ApplyFailed) and isinstance(error.result, ApplyResult):
            service = f"service {steps.PROGRAM}"
            hosts = hosts.only(*(one.host for one in error.result.having(Status.FAILED) if one.step == service))
        findings = logs.explain(hosts, steps.PROGRAM, KNOWN)
        if not findings:
            raise error
        display(findings)
        raise type(error)(f"{error.message}\n{findings}", self.EXPLAINED, result=error.result) from error


_SHOWN = ["app", "instances", "running", "healthy", "cpus", "mem", "image", "cmd", "deployment", "last_failure"]
"""What of the apps' table is shown."""

_VERSIONS = """\
v=$(rpm -q --qf '%{{VERSION}}-%{{RELEASE}}' {package} 2>/dev/null) || exit 0
echo "package=$v"
"""


def _nothing(text: str) -> Table:
    return Table(pd.DataFrame([(text,)], columns=["not known"]))
