"""Chapter 6: MySQL as a Docker task of Marathon, from its image to data that outlives the container."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime

import pandas as pd
from IPython.display import display

from runbook.chapter import Chapter
from runbook.errors import ApplyFailed, GateRefused, RunbookError, ServiceError
from runbook.events import emit
from runbook.remote.checks import CheckResult, Evidence, check
from runbook.remote.hosts import Hosts
from runbook.remote.modes import Mode, Status
from runbook.remote.results import ApplyResult, StepResult
from runbook.remote.shell import quote
from runbook.services.findings import Finding, Findings
from runbook.services.marathon.apps import app_id, definition
from runbook.services.marathon.deploy import deploy, marathon_of
from runbook.services.marathon.deployments import explain
from runbook.services.mesos.checks import masters_of
from runbook.services.mesos.tables import slaves_table
from runbook.services.mysql import checks, conditions, diagnosis, proof
from runbook.services.mysql.app import data_host, mysql_app, preparation
from runbook.services.mysql.checks import SYSTEM, Client, Placement
from runbook.services.mysql.client import Account, Catalog, exec_script, read_catalog
from runbook.services.mysql.host import Container, DataHost
from runbook.site import HostParameters
from runbook.views.tables import Table

KILL = "kill-task"
"""The gate before a task is killed, to see it come back."""
COMES_BACK = 180.0
"""Seconds in which a killed server must be back: Marathon's restart, and InnoDB's recovery of a small database."""


class MySql(Chapter):
    """Chapter 6: MySQL on the host that holds its data."""

    number = "6"
    title = "MySQL on Docker"

    def prepare(self) -> ApplyResult:
        """6.1: the image, the data's folder and the passwords on the data's host. Raises ApplyFailed, SecretError."""
        with self.section("6.1", "The image, the data's folder, the passwords"):
            steps = preparation(self.site)  # resolves the secrets before any host is touched
            try:
                return self._data_host.apply(steps, name="docker load")
            except ApplyFailed as error:
                if self.mode is Mode.VERIFY and isinstance(error.result, ApplyResult):
                    return error.result  # the journal has it, and what else is wrong is to be told as well
                raise

    def nothing_is_in_the_way(self) -> CheckResult:
        """6.3, check before anything is deployed: memory, port, room, image, folder; each with what was found."""
        with self.section("6.3", "What would keep it from starting"):
            name = f"nothing keeps MySQL from starting on {self._host.name}"
            return check(
                name,
                lambda: conditions.evidence(self.site, conditions.Seen.ask(self.site, self.hosts())),
                mode=self.mode,
                deadline=20.0,
            )

    def definition(self) -> Table:
        """6.2: the app as Marathon gets it, a field a row."""
        with self.section("6.2 definition", "The app"):
            app = mysql_app(self.site)
            rows = [line.split(": ", 1) for line in definition(app, "").splitlines()]
            return Table(pd.DataFrame(rows, columns=["field", "value"]), f"the app {app_id(app['id'])}")

    def deploy(self) -> ApplyResult:
        """6.2: Marathon has the app as defined, and its task is healthy.

        Raises ApplyFailed with what Marathon, Mesos and the log of a container that ended tell of the reason.
        """
        with self.section("6.2", "Deploy"):
            try:
                return deploy(self.site, mysql_app(self.site), mode=self.mode)
            except ApplyFailed as error:
                findings = Findings("MySQL's containers", diagnosis.of_containers(self.hosts()))
                if not findings:
                    raise
                display(findings)
                message = f"{error.message}\n{findings}"
                raise ApplyFailed(message, error.remedy, result=error.result) from error

    def runs(self) -> CheckResult:
        """6.4, check: the task is healthy, on the data's host, in a container with the port that Marathon names."""
        with self.section("6.4", "Where it runs"):

            def probe() -> Evidence:
                place = self._place()
                return checks.placed(self.site, place, DataHost.ask(self.hosts()))

            return check(f"MySQL runs on {self._host.name}", probe, mode=self.mode, deadline=60.0)

    def clients_agree(self) -> CheckResult:
        """6.4.1, check: PyMySQL from here and the container's own client are let in, and see the same."""
        with self.section("6.4.1", "Clients"):
            return check(
                "clients here and in the container see the same databases",
                lambda: checks.agreement(self.site, self._clients()),
                mode=self.mode,
                deadline=60.0,
            )

    def databases(self) -> Table:
        """6.4.1: `show databases`, as each client is shown them."""
        with self.section("6.4.1 databases", "show databases"):
            clients, problem = self._asked()
            names = list(dict.fromkeys(name for catalog in clients.values() for name in catalog.databases))
            rows = [
                (name, *("✓" if name in catalog.databases else "–" for catalog in clients.values())) for name in names
            ]
            frame = pd.DataFrame(rows, columns=["Database", *clients])
            return Table(frame, problem or "show databases", states=tuple(clients))

    def tables(self) -> Table:
        """6.4.1: `show tables` of the server's own database and of the parameters', as root is shown them."""
        with self.section("6.4.1 tables", "show tables"):
            clients, problem = self._asked()
            shown = next(iter(clients.values())).tables if clients else {}
            rows = [(name, table) for name, tables in shown.items() for table in tables or ("(none)",)]
            frame = pd.DataFrame(rows, columns=["database", "table"])
            return Table(frame, problem or f"show tables from {SYSTEM} and {self.site.mysql.database}")

    def external_client(self) -> Table:
        """6.4.2: what a client elsewhere needs to connect. Host and port hold until the task moves."""
        with self.section("6.4.2", "External clients"):
            return self._connection()

    def outlives_its_container(self) -> CheckResult | ApplyResult | Table:
        """6.4: kill the container, behind the gate `kill-task`; Marathon starts another, and the row that was written
        before is read there.

        Only in apply mode, and only behind the gate, is a row written (to the runbook's own table) and anything
        killed; a refusal skips it, visibly. Otherwise the rows of earlier rollouts are shown. Raises CheckFailed.
        """
        with self.section("6.4 durability", "The data outlives the container"):
            if self.mode is not Mode.APPLY:
                return self._earlier_proofs()
            place = self._place()
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

    def diagnose(self) -> Findings:
        """6.4: why it does not run, or lets nobody in: by Marathon, its containers, and what clients meet."""
        with self.section("6.4 diagnosis", "Why it does not run, or lets nobody in"):
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

    def _clients(self) -> Mapping[str, Client]:
        """What each client is shown. Raises NotReady where no task runs."""
        place = self._place()
        server = place.server(self.site)
        schemas = SYSTEM, self.site.mysql.database

        def here(account: Account) -> Catalog | RunbookError:
            try:
                with server.session(account) as session:
                    return session.catalog(*schemas)
            except RunbookError as error:
                return error

        def inside(account: Account) -> Catalog | RunbookError:
            hosts = self.hosts().only(place.host)
            try:
                container = DataHost.ask(self.hosts()).of_task(place.task)
                script = exec_script(container.id, self.site.mysql.container_port, account, schemas)
                return read_catalog(hosts.run(script)[place.host], f"the client in container {container.short}")
            except RunbookError as error:
                return error

        root, user = self._root, self._user
        return {
            "root, from here": Client("PyMySQL, from here", root.user, here(root)),
            f"{user.user}, from here": Client("PyMySQL, from here", user.user, here(user)),
            "root, in the container": Client(f"docker exec on {place.host}", root.user, inside(root)),
        }

    def _asked(self) -> tuple[Mapping[str, Catalog], str]:
        """What the clients that are let in are shown, and why nobody is. In apply mode an error is raised."""
        try:
            clients = self._clients()
        except RunbookError as error:
            if self.mode is Mode.APPLY:
                raise
            return {}, error.message
        errors = [client.answer for client in clients.values() if isinstance(client.answer, RunbookError)]
        if errors and self.mode is Mode.APPLY:
            raise errors[0]
        shown = {name: one.answer for name, one in clients.items() if isinstance(one.answer, Catalog)}
        return shown, "; ".join(error.message for error in errors)

    def _connection(self) -> Table:
        mysql = self.site.mysql
        try:
            place = self._place()
        except RunbookError as error:
            if self.mode is Mode.APPLY:
                raise
            return Table(pd.DataFrame(columns=["for", "value", "note"]), error.message)
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
        nothing = f"mode {self.mode}: nothing is written, and nothing killed"
        try:
            with self._place().server(self.site).session(self._user, self.site.mysql.database) as session:
                return Table(proof.frame(proof.read(session)), f"{nothing}. Rows of earlier rollouts:")
        except RunbookError as error:
            return Table(proof.frame(()), f"{nothing}. {error.message}")

    def _skipped(self, place: Placement) -> ApplyResult:
        summary = f"the gate '{KILL}' was not opened: nothing was written, and nothing killed"
        result = StepResult(place.host, "docker kill of MySQL", Status.SKIPPED, summary)
        emit(event="step", **result.row())
        return ApplyResult("docker kill", self.mode, (result,))

    def _drill(self, place: Placement, container: Container) -> CheckResult:
        """Write, kill, and read what was written from the server that comes back."""
        database = self.site.mysql.database
        with place.server(self.site).session(self._user, database) as session:
            written = proof.write(session, self.folder.name, place.task)
        killed = datetime.now(UTC)
        began = time.monotonic()
        output = self.hosts().only(place.host).run(f"docker kill {quote(container.id)}")[place.host]
        if output.error is not None:
            raise output.error
        told = f"container {container.short} was killed at {killed:%H:%M:%S} UTC"
        before = ("before", place.task, f"{place.host}:{place.port}", container.short, str(written.written))

        def probe() -> Evidence:
            if not output.ok:
                return Evidence(False, f"docker kill failed: {output.stderr.strip()}", hopeless=True)
            now = self._place()
            if now.task == place.task:
                return Evidence(False, f"{told}; Marathon has started no other task yet", remedy="see 6.4 diagnosis")
            with now.server(self.site).session(self._user, database) as session:
                found = next((one for one in proof.read(session) if one.record == written.record), None)
            after = ("after", now.task, f"{now.host}:{now.port}", DataHost.ask(self.hosts()).of_task(now.task).short)
            rows = [before, (*after, str(found.written) if found else "✗ not there")]
            table = pd.DataFrame(rows, columns=["", "task", "at", "container", "row of this rollout, written (UTC)"])
            if found != written:
                return Evidence(
                    False, f"{told}; the row is not there any more", table, "see mysql.volume", hopeless=True
                )
            text = f"{told}; after {time.monotonic() - began:.0f} s {now.task} serves at {now.host}:{now.port}"
            return Evidence(True, f"{text}, and the row is there", table)

        return check("a row outlives the container that it was written in", probe, deadline=COMES_BACK, interval=1.0)

    def _found(self) -> list[Finding]:
        try:
            place = self._place()
        except RunbookError as error:
            return [
                *self._explained(),
                *diagnosis.of_containers(self.hosts()),
                diagnosis.of_error(self._host.name, error),
            ]
        found: list[Finding] = []
        if place.state != "healthy":  # else what failed before is over
            found += [*self._explained(), *diagnosis.of_containers(self.hosts())]
        for account, database in ((self._root, None), (self._user, self.site.mysql.database)):
            try:
                with place.server(self.site).session(account, database):
                    pass
            except RunbookError as error:
                found.append(diagnosis.of_error(place.host, error))
        return found

    def _explained(self) -> list[Finding]:
        """What Marathon and Mesos tell of the app, with hosts' names; nothing where they do not answer."""
        names = {host.address: host.name for host in self.site.hosts}
        try:
            with marathon_of(self.site) as marathon:
                app, queue = marathon.find(self.site.mysql.app), marathon.queue()
            if app is None:
                return []
            with masters_of(self.site) as masters:
                slaves = slaves_table(masters.state())
        except ServiceError as error:
            return [diagnosis.of_error("", error)]
        return [replace(one, host=names.get(one.host, one.host)) for one in explain(app, queue, slaves)]
