"""Chapter 5: Docker, from the package to containers that Marathon starts."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import ClassVar, NoReturn

import pandas as pd
from IPython.display import display

from runbook.chapter import Chapter, section
from runbook.errors import ApplyFailed, CheckFailed, ServiceError
from runbook.events import emit
from runbook.remote.checks import CheckResult, Evidence
from runbook.remote.hosts import Hosts
from runbook.remote.modes import Mode, Status
from runbook.remote.results import ApplyResult, StepResult
from runbook.services.docker import diagnose, engine, images, ps
from runbook.services.findings import Findings
from runbook.services.marathon.apps import App, app_id, app_of
from runbook.services.marathon.deploy import HOST, deploy, tasks_of
from runbook.services.marathon.tables import tasks_table
from runbook.services.mesos import forecast, slaves
from runbook.services.mesos.steps import SLAVE
from runbook.views.tables import Table
from runbook.wording import plural

UPLOAD_DEADLINE = 3600.0
"""Seconds in which a host must have all its images: archives are large, and lines to a closed network slow."""

TIME = re.compile(r"^\d\d:\d\d:\d\d$", re.MULTILINE)
"""A line as the document's container prints them: `date -u +%T`."""

NO_MARATHON = "no host has the role marathon, so that nothing starts the app"


class DockerHosts(Chapter):
    """Chapter 5: the Docker hosts of a site. Without a Marathon its app is skipped, visibly.

    Raises AppInvalid, before any host is touched, where the parameters' `apps` lack the document's.
    """

    number = "5"
    title = "Docker"
    needs = ("docker",)

    APP: ClassVar = "centos-marathon"
    """The document's app (5.3)."""

    def _examine(self) -> None:
        self._app: App = app_of(self.site, self.APP) if self._has_marathon else {}

    @property
    def members(self) -> Hosts:
        """The hosts that have Docker."""
        return self.hosts("docker")

    # 5.1 and 5.2

    @section("5.1", "Install")
    def install(self) -> ApplyResult:
        """5.1: the package docker-engine from the hosts' yum repositories. Raises ApplyFailed and GateRefused.

        Another version than the one that is there is installed behind the gate `restart-docker` where containers run.
        """
        name = f"yum install {self.site.docker.package}"
        return self._applied(lambda: engine.restart_gently(self.members, engine.install(self.site), name))

    @section("5.2 unit", "The unit as systemd reads it")
    def unit(self) -> Table:
        """5.2: the unit that runs Docker, as the package ships it and with its drop-ins; one edited by hand is told."""
        return engine.units(self.site, self.members)

    @section("5.2", "Enabled and running")
    def start(self) -> ApplyResult:
        """5.2: Docker's service, enabled and running. Raises ApplyFailed and GateRefused."""
        # a plan foresees a package that is not there yet
        package = (engine.install(self.site),) if self.mode is Mode.PLAN else ()
        steps = (*package, *engine.drift(self.site), engine.service(self.site))
        try:
            return self._applied(lambda: engine.restart_gently(self.members, steps, "service docker start"))
        except ApplyFailed as error:
            self._explained(error)

    @section("5.2 engines", "What the engines say of themselves")
    def engines(self) -> Table:
        """5.2: version, storage, cgroups of every engine, and what it warns of; they go into the record."""
        answers = engine.said(self.members)
        for host, found in answers.items():
            if isinstance(found, engine.Facts):
                self.versions(host, found.software)
        return engine.facts_table(answers)

    @section("5.2 slaves", "Slaves get the containerizer docker")
    def slaves(self) -> ApplyResult:
        """5.2: slaves that run Docker tasks, as chapter 3 configures them; one at a time, and their tasks go on.

        Raises ApplyFailed, CheckFailed and GateRefused.
        """
        hosts, name = self.members.having("mesos_slave"), f"service {SLAVE} start"
        if not hosts:
            return ApplyResult(name, self.mode, ())
        if self.mode is not Mode.PLAN:
            return self._applied(lambda: slaves.roll_out(self.site, hosts))
        foreseen = {
            host: replace(one, docker=True, restarts=one.restarts or not one.docker)
            for host, one in forecast.forecasts(self.site, hosts).items()
        }
        return hosts.apply(lambda host: slaves.start_steps(self.site, host, foreseen[host.name], self.mode), name=name)

    # 5.3: images

    @section("5.3 load", "Upload the archives and load them")
    def load_images(self) -> ApplyResult:
        """5.3: every image on the hosts that need it: the archives are uploaded where it is missing, and loaded.

        Raises ParameterError, before any host is touched, for an archive that is missing or not the one that the
        parameters promise; ApplyFailed.
        """
        self.site.check_files({"docker"})
        return self._applied(
            lambda: self.members.apply(
                lambda host: images.steps(self.site, host), name="docker load", deadline=UPLOAD_DEADLINE
            )
        )

    @section("5.3 images", "The images of each host")
    def images(self) -> Table:
        """5.3: `docker images` of every host, beside the archives."""
        return images.table(self.site, self.members)

    # 5.3: the app

    @section("5.3", "Run it through Marathon")
    def run(self) -> ApplyResult:
        """5.3: the document's app, put to Marathon and followed until its instances run. Raises ApplyFailed."""
        if not self._has_marathon:
            skipped = StepResult(HOST, f"app {app_id(self.APP)}", Status.SKIPPED, NO_MARATHON)
            emit(event="step", **skipped.row())
            return ApplyResult(skipped.step, self.mode, (skipped,))
        try:
            return self._applied(lambda: deploy(self.site, self._app, mode=self.mode))
        except ApplyFailed as error:
            self._explained(error)

    @section("5.3 running", "Every instance has its container")
    def running(self) -> CheckResult:
        """5.3, check: Marathon has as many instances as the app declares, and each has its container on its host."""
        return self._check_of_app(f"every instance of {self.APP} runs in a container", self._contained)

    @section("5.3 ps", "The containers of each host")
    def ps(self) -> Table:
        """5.3: `docker ps` of every host, beside Marathon's tasks."""
        return ps.table(self.members, self._known_tasks())

    @section("5.3 logs", "What the containers print")
    def logs(self) -> Table:
        """5.3: the last lines that each container of the app printed, on its host."""
        tasks = self._known_tasks()
        lines = ps.last_lines(self.members, self._of_app(tasks_table([]) if tasks is None else tasks))
        told = "" if tasks is not None else ": not known, as Marathon does not answer"
        return Table(lines, f"docker logs of {self.APP}{told}", literal=("last lines",))

    @section("5.3 log", "They print the time")
    def times(self) -> CheckResult:
        """5.3, check: each container of the app prints the time, as the document shows it."""
        return self._check_of_app(f"every container of {self.APP} prints the time", self._printed, deadline=45.0)

    @section("5.3 findings", "What the hosts tell")
    def findings(self) -> Findings:
        """What keeps containers from running, as far as each host's logs and disks tell: beyond the document."""
        return diagnose.explain(self.site, self.members)

    # the parts

    @property
    def _has_marathon(self) -> bool:
        return bool(self.site.having("marathon"))

    def _tasks(self) -> pd.DataFrame:
        """The app's tasks. Raises ServiceError where Marathon does not answer."""
        return tasks_of(self.site, self.APP, mode=Mode.APPLY) if self._has_marathon else tasks_table([])

    def _known_tasks(self) -> pd.DataFrame | None:
        """The same for a table: None where Marathon does not answer. Only in apply mode its error is raised."""
        try:
            return self._tasks()
        except ServiceError:
            if self.mode is Mode.APPLY:
                raise
            return None

    def _of_app(self, tasks: pd.DataFrame) -> pd.DataFrame:
        """The containers of the app's tasks."""
        found = ps.containers(self.members)
        return found[found["task"].isin(tasks["task"])]

    def _contained(self) -> Evidence:
        wanted, tasks = int(self._app.get("instances", 1)), self._tasks()
        of_app = self._of_app(tasks)
        there = set(zip(of_app["host"], of_app["task"], strict=True))
        rows = [
            (one["task"], one["host"], one["state"], "✓" if (one["host"], one["task"]) in there else "✗ none")
            for one in tasks.to_dict("records")
        ]
        table = pd.DataFrame(rows, columns=["task", "host", "state", "container"])
        up = sum(state in ("running", "healthy") and mark == "✓" for _, _, state, mark in rows)
        text = f"{up} of {wanted} run in containers, on {plural(tasks['host'].nunique(), 'host')}"
        if unseen := [f"{task} on {host}" for task, host, _, mark in rows if mark != "✓"]:
            text += f"; no container is seen of {', '.join(unseen)}"
        remedy = "run the cell above again, or see the findings below"
        return Evidence(up == wanted == len(rows), text, table, remedy, tried=bool(rows))

    def _printed(self) -> Evidence:
        lines = ps.last_lines(self.members, self._of_app(self._tasks()))
        mute = lines[~lines["last lines"].map(lambda text: bool(TIME.search(text)))]
        wanted = int(self._app.get("instances", 1))
        if len(mute) or len(lines) < wanted:
            silent = [f"{row['id']} on {row['host']}" for row in mute.to_dict("records")]
            text = (
                f"no time in the log of {', '.join(silent)}" if silent else f"{len(lines)} of {wanted} containers run"
            )
            return Evidence(False, text, lines, "read the whole log: docker logs ID", tried=not lines.empty)
        return Evidence(True, f"so do {plural(len(lines), 'container')}", lines)

    def _check_of_app(self, name: str, probe: Callable[[], Evidence], deadline: float = 60.0) -> CheckResult:
        """A check of what Marathon runs; without a Marathon it is shown as not tried, and the record has no claim."""
        if not self._has_marathon:
            return CheckResult(name, Evidence(False, NO_MARATHON, tried=False), 0.0)
        return self._check(name, probe, deadline)

    def _check(self, name: str, probe: Callable[[], Evidence], deadline: float = 60.0) -> CheckResult:
        try:
            return super()._check(name, probe, deadline)
        except CheckFailed as error:
            self._explained(error)

    def _explained(self, error: ApplyFailed | CheckFailed) -> NoReturn:
        """Raise the error again, with what the hosts' logs and disks tell of it."""
        findings = diagnose.explain(self.site, self.members)
        if not findings:
            raise error
        display(findings)
        raise type(error)(f"{error.message}\n{findings}", error.remedy, result=error.result) from error
