"""Chapter 6: MySQL as a Docker task of Marathon, from its image to data that outlives the container."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import TypeVar

import pandas as pd
from IPython.display import display

from runbook.chapter import Chapter, section
from runbook.errors import ApplyFailed, GateRefused, RunbookError, ServiceError
from runbook.events import emit
from runbook.remote.checks import CheckResult, Evidence, check
from runbook.remote.hosts import Hosts
from runbook.remote.modes import Mode, Status
from runbook.remote.results import ApplyResult, StepResult
from runbook.remote.shell import quote
from runbook.services.docker.chapter import UPLOAD_DEADLINE
from runbook.services.findings import Finding, Findings
from runbook.services.marathon.apps import app_id, definition
from runbook.services.marathon.deploy import deploy, marathon_of
from runbook.services.marathon.deployments import explain
from runbook.services.marathon.drill import KILL
from runbook.services.mesos.checks import masters_of
from runbook.services.mesos.tables import slaves_table
from runbook.services.mysql import checks, conditions, diagnosis, drift, proof
from runbook.services.mysql.app import data_host, leaks, leaks_probe, mysql_app, preparation, retired_files
from runbook.services.mysql.checks import SYSTEM, Client, Placement
from runbook.services.mysql.client import Account, Catalog, Session, exec_script, read_catalog
from runbook.services.mysql.host import Container, DataHost
from runbook.site import HostParameters
from runbook.views.tables import Table

T = TypeVar("T")

OUTLIVES = "a row outlives the container that it was written in"
COMES_BACK = 180.0
"""Seconds in which a killed server must be back: Marathon's restart, and InnoDB's recovery of a small database."""


class MySql(Chapter):
    """Chapter 6: MySQL on the host that holds its data.

    Raises ParameterError, before any host is touched, where no Marathon, no slave or no image of MySQL is declared.
    """

    number = "6"
    title = "MySQL on Docker"
    needs = ("mesos_slave", "marathon")

    def _examine(self) -> None:
        self.site.image(self.site.mysql.image)

    @section("6.1", "The image, the data's folder, the passwords")
    def prepare(self) -> ApplyResult:
        """6.1: the image, the data's folder and the passwords on the data's host. Raises ApplyFailed, SecretError."""
        steps = preparation(self.site)  # resolves the secrets before any host is touched
        return self._applied(lambda: self._data_host.apply(steps, name="docker load", deadline=UPLOAD_DEADLINE))

    @section("6.3", "What would keep it from starting")
    def nothing_is_in_the_way(self) -> CheckResult:
        """6.3, check before anything is deployed: memory, port, room, image, folder; each with what was found."""
        name = f"nothing keeps MySQL from starting on {self._host.name}"
        return self._check(
            name,
            lambda: conditions.evidence(self.site, conditions.Seen.ask(self.site, self.hosts())),
            deadline=20.0,
        )

    @section("6.2 definition", "The app")
    def definition(self) -> Table:
        """6.2: the app as Marathon gets it, a field a row."""
        app = mysql_app(self.site)
        rows = [line.split(": ", 1) for line in definition(app, "").splitlines()]
        return Table(pd.DataFrame(rows, columns=["field", "value"]), f"the app {app_id(app['id'])}")

    @section("6.2", "Deploy")
    def deploy(self, deadline: float = 300.0) -> ApplyResult:
        """6.2: Marathon has the app as defined, and its task is healthy within `deadline` seconds.

        Raises ApplyFailed with what Marathon, Mesos and the log of a container of this app that ended tell of it.
        """
        try:
            return deploy(self.site, mysql_app(self.site), mode=self.mode, deadline=deadline)
        except ApplyFailed as error:
            findings = Findings("MySQL's containers", self._ended())
            if not findings:
                raise
            display(findings)
            message = f"{error.message}\n{findings}"
            raise ApplyFailed(message, error.remedy, result=error.result) from error

    @section("6.2 passwords", "Passwords that are left elsewhere")
    def retire(self) -> ApplyResult:
        """6.2: remove what earlier versions left of the passwords on the data's host, once no task needs it.

        Shows where else a present password is readable, with what to do. Raises ApplyFailed.
        """
        result = self._applied(lambda: self._data_host.apply((retired_files(self.site),), name="passwords"))
        name = self._host.name
        answer = self._data_host.run(leaks_probe(self.site), deadline=120.0)[name]
        if answer.error is not None:
            raise answer.error
        display(Findings("passwords elsewhere", leaks(name, answer.stdout)))
        return result

    @section("6.4", "Where it runs")
    def runs(self) -> CheckResult:
        """6.4, check: the task is healthy, on the data's host, in a container with the port that Marathon names, and
        with nothing that Marathon did not ask for."""

        def probe() -> Evidence:
            place, seen = self._place(), DataHost.ask(self.hosts())
            placed = checks.placed(self.site, place, seen)
            if not placed.holds:
                return placed
            container = seen.of_task(place.task).id
            return drift.judged(self.hosts(), place.host, container, mysql_app(self.site), placed)

        return self._check(f"MySQL runs on {self._host.name}", probe)

    @section("6.4.1", "Clients")
    def clients_agree(self) -> CheckResult:
        """6.4.1, check: PyMySQL from here and the container's own client are let in, and see the same."""
        return self._check(
            "clients here and in the container see the same databases",
            lambda: checks.agreement(self.site, self._clients()),
        )

    @section("6.4.1 databases", "show databases")
    def databases(self) -> Table:
        """6.4.1: `show databases`, as each client is shown them."""
        answered, problem = self._answered(self._let_in)
        clients = answered or {}
        names = list(dict.fromkeys(name for catalog in clients.values() for name in catalog.databases))
        rows = [(name, *("✓" if name in catalog.databases else "–" for catalog in clients.values())) for name in names]
        frame = pd.DataFrame(rows, columns=["Database", *clients])
        return Table(frame, problem or "show databases", states=tuple(clients))

    @section("6.4.1 tables", "show tables")
    def tables(self) -> Table:
        """6.4.1: `show tables` of the server's own database and of the parameters', as root is shown them."""
        shown, problem = self._answered(lambda: self._from_here(self._place(), self._root).tables)
        rows = [(name, table) for name, tables in (shown or {}).items() for table in tables or ("(none)",)]
        frame = pd.DataFrame(rows, columns=["database", "table"])
        return Table(frame, problem or f"show tables from {SYSTEM} and {self.site.mysql.database}")

    @section("6.4.2", "External clients")
    def external_client(self) -> Table:
        """6.4.2: what a client elsewhere needs to connect. Host and port hold until the task moves."""
        return self._connection()

    @section("6.4 durability", "The data outlives the container")
    def outlives_its_container(self, again: bool = False) -> CheckResult | ApplyResult | Table:
        """6.4: kill the container, behind the gate `kill-task`; Marathon starts another, and the row that was written
        before is read there.

        Only in apply mode, and only behind the gate, is a row written (to the runbook's own table) and anything
        killed; a refusal skips it, visibly. Where the app as it is configured has proved it in an earlier rollout,
        that proof is shown instead, unless it is to be given `again`. Raises CheckFailed.
        """
        if self.mode is not Mode.APPLY:
            return self._earlier_proofs()
        place = self._place()
        if not again and (earlier := self._standing(place)) is not None:
            at = f"{place.host}:{place.port}"
            return check(OUTLIVES, lambda: proof.stands(earlier, place.task, at))
        container = DataHost.ask(self.hosts()).of_task(place.task)
        evidence = pd.DataFrame(
            [(place.host, place.task, container.short, container.status)],
            columns=["host", "task", "container", "status"],
        )
        question = f"docker kill on {place.host}: MySQL is away until Marathon has restarted it"
        try:
            self.hosts().approval.ask(KILL, question, evidence)
        except GateRefused:
            return self._skipped(place)
        return self._drill(place, container)

    @section("6.4 diagnosis", "Why it does not run, or lets nobody in")
    def diagnose(self) -> Findings:
        """6.4: why it does not run, or lets nobody in: by Marathon, its containers, and what clients meet."""
        return Findings(app_id(self.site.mysql.app), tuple(self._found()))

    # the parts

    @property
    def _host(self) -> HostParameters:
        return data_host(self.site)

    @property
    def _data_host(self) -> Hosts:
        return self.hosts().only(self._host.name)

    @property
    def _root(self) -> Account:
        return Account("root", self.site.mysql.root_password.resolve())

    @property
    def _user(self) -> Account:
        return Account(self.site.mysql.user, self.site.mysql.password.resolve())

    def _place(self) -> Placement:
        return Placement.find(self.site)

    def _answered(self, ask: Callable[[], T]) -> tuple[T | None, str]:
        """What `ask` gives, or None and why it gives nothing. Only in apply mode the error is raised."""
        try:
            return ask(), ""
        except RunbookError as error:
            if self.mode is Mode.APPLY:
                raise
            return None, error.message

    @property
    def _schemas(self) -> tuple[str, str]:
        return SYSTEM, self.site.mysql.database

    def _from_here(self, place: Placement, account: Account) -> Catalog:
        with place.server(self.site).session(account) as session:
            return session.catalog(*self._schemas)

    def _inside(self, place: Placement, account: Account) -> Catalog:
        container = DataHost.ask(self.hosts()).of_task(place.task)
        script = exec_script(container.id, self.site.mysql.container_port, account, self._schemas)
        output = self.hosts().only(place.host).run(script)[place.host]
        return read_catalog(output, f"the client in container {container.short}")

    def _clients(self) -> Mapping[str, Client]:
        """What each client is shown, or the error that it met. Raises NotReady where no task runs."""
        place, root, user = self._place(), self._root, self._user
        ways: Mapping[str, tuple[str, Account, Callable[[Placement, Account], Catalog]]] = {
            "root, from here": ("PyMySQL, from here", root, self._from_here),
            f"{user.user}, from here": ("PyMySQL, from here", user, self._from_here),
            "root, in the container": (f"docker exec on {place.host}", root, self._inside),
        }
        clients = {}
        for name, (kind, account, ask) in ways.items():
            answer: Catalog | RunbookError
            try:
                answer = ask(place, account)
            except RunbookError as error:
                answer = error
            clients[name] = Client(kind, account.user, answer)
        return clients

    def _let_in(self) -> Mapping[str, Catalog]:
        """What the clients are shown. Raises what the first met that is not let in."""
        shown = {}
        for name, client in self._clients().items():
            if isinstance(client.answer, RunbookError):
                raise client.answer
            shown[name] = client.answer
        return shown

    def _connection(self) -> Table:
        mysql = self.site.mysql
        place, problem = self._answered(self._place)
        if place is None:
            return Table(pd.DataFrame(columns=["for", "value", "note"]), problem)
        open_ports = self.site.open_ports
        within = place.port in open_ports
        rows = [
            ("host", place.address, f"{place.host}; it changes only if the data is moved (mysql.host)"),
            (
                "port",
                str(place.port),
                f"✓ within the open ports {open_ports}; another one after each restart of the task"
                if within
                else f"✗ outside the open ports {open_ports}: a firewall keeps clients out",
            ),
            ("database", mysql.database, ""),
            ("user", mysql.user, f"its password: {mysql.password}"),
            ("administrator", "root", f"its password: {mysql.root_password}"),
            (
                "command",
                f"mysql -h {place.address} -P {place.port} -u {mysql.user} -p {mysql.database}",
                "it asks for the password: after -p it would stand in the process list",
            ),
        ]
        frame = pd.DataFrame(rows, columns=["for", "value", "note"])
        return Table(frame, "to connect from elsewhere, until the task is restarted", states=("note",))

    def _earlier_proofs(self) -> Table:
        """The rows that earlier rollouts wrote. Nothing is written."""

        def read() -> list[proof.Proof]:
            with self._session(self._place()) as session:
                return proof.read(session)

        proofs, problem = self._answered(read)
        caption = f"mode {self.mode}: nothing is written, and nothing killed. {problem or 'Rows of earlier rollouts:'}"
        return Table(proof.frame(proofs or ()), caption)

    def _standing(self, place: Placement) -> proof.Proof | None:
        """The row by which the app, as it is configured, proved it already."""
        configured = self._configured()
        with self._session(place) as session:
            rows = proof.read(session)
        return proof.standing(rows, place.task, configured)

    def _configured(self) -> datetime:
        """When the app became as it is configured (UTC); scaling and restarts change nothing of that."""
        with marathon_of(self.site) as marathon:
            app = marathon.app(self.site.mysql.app)
        configured = (app.get("versionInfo") or {}).get("lastConfigChangeAt") or app["version"]
        return datetime.fromisoformat(configured).astimezone(UTC).replace(tzinfo=None)

    def _ended(self) -> tuple[Finding, ...]:
        """Why a container of the app as it is configured ended: an earlier one's end, by an upgrade, tells nothing."""
        try:
            return diagnosis.of_containers(self.hosts(), since=self._configured())
        except ServiceError:
            return diagnosis.of_containers(self.hosts())

    def _skipped(self, place: Placement) -> ApplyResult:
        summary = f"the gate '{KILL}' was not opened: nothing was written, and nothing killed"
        result = StepResult(place.host, "docker kill of MySQL", Status.SKIPPED, summary)
        emit(event="step", **result.row())
        return ApplyResult("docker kill", self.mode, (result,))

    def _drill(self, place: Placement, container: Container) -> CheckResult:
        """Write, kill, and read what was written from the server that comes back."""
        with self._session(place) as session:
            written = proof.write(session, self.folder.name, place.task)
        began = time.monotonic()
        told = f"docker kill {container.short} on {place.host} at {datetime.now(UTC):%H:%M:%S} UTC"
        output = self.hosts().only(place.host).run(f"docker kill {quote(container.id)}")[place.host]
        if output.error is not None:
            told += f" (whether it was done is not known: {output.error.message})"
        before = proof.Serving(place.task, f"{place.host}:{place.port}", container.short)

        def probe() -> Evidence:
            if output.error is None and not output.ok:
                return Evidence(False, f"{told} failed: {output.stderr.strip()}", hopeless=True)
            now = self._place()
            if now.task == place.task:
                return Evidence(False, f"{told}; Marathon has started no other task yet", remedy="see 6.4 diagnosis")
            with self._session(now) as session:
                found = proof.read(session)
            there = DataHost.ask(self.hosts()).of_task(now.task)
            after = proof.Serving(now.task, f"{now.host}:{now.port}", there.short)
            return proof.outlived(f"{told}; {time.monotonic() - began:.0f} s later", written, before, after, found)

        return check(OUTLIVES, probe, deadline=COMES_BACK, interval=1.0)

    @contextmanager
    def _session(self, place: Placement) -> Iterator[Session]:
        """A connection to the parameters' database, as its user."""
        with place.server(self.site).session(self._user, self.site.mysql.database) as session:
            yield session

    def _found(self) -> list[Finding]:
        try:
            place = self._place()
        except RunbookError as error:
            return self._why_not() or [diagnosis.of_error(self._host.name, error)]
        found = [] if place.state == "healthy" else self._why_not()  # what failed before it was healthy is over
        for account, database in ((self._root, None), (self._user, self.site.mysql.database)):
            try:
                with place.server(self.site).session(account, database):
                    pass
            except RunbookError as error:
                found.append(diagnosis.of_error(place.host, error))
        return found

    def _why_not(self) -> list[Finding]:
        """Why no healthy task runs: by Marathon and Mesos, and by the container that ended last."""
        names = self.site.names
        try:
            with marathon_of(self.site) as marathon:
                app, queue = marathon.find(self.site.mysql.app), marathon.queue()
            if app is None:
                name = app_id(self.site.mysql.app)
                return [Finding("", "it is not deployed", f"Marathon has no app {name}", "deploy it (6.2)")]
            with masters_of(self.site) as masters:
                explained = explain(app, queue, slaves_table(masters.state()))
        except ServiceError as error:
            return [diagnosis.of_error("", error)]
        found = [replace(one, host=names.get(one.host, one.host)) for one in explained]
        return [*found, *self._ended()]
