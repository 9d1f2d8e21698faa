"""What must hold of MySQL once it is deployed (document 6.4): judgements on what Marathon, Docker and clients say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

from runbook.errors import LoginRefused, NotReady, RunbookError
from runbook.remote.checks import NOBODY_THERE, Evidence
from runbook.remote.modes import Mode
from runbook.services.marathon.apps import app_id
from runbook.services.marathon.deploy import tasks_of
from runbook.services.marathon.tables import STARTED
from runbook.services.mysql.app import data_host
from runbook.services.mysql.client import Catalog, Server
from runbook.services.mysql.host import DataHost
from runbook.site import Site

SYSTEM = "mysql"
"""The server's own database, whose tables the document shows."""


@dataclass(frozen=True)
class Placement:
    """Where Marathon runs the server: the task, its host and port there, and how it is (`running`, `healthy`, …)."""

    task: str
    host: str
    address: str
    port: int
    state: str

    @classmethod
    def find(cls, site: Site) -> Placement:
        """Ask Marathon. Raises NotReady where no task runs, and what its client does where nobody answers."""
        return cls.of(site, tasks_of(site, site.mysql.app, mode=Mode.APPLY))

    @classmethod
    def of(cls, site: Site, tasks: pd.DataFrame) -> Placement:
        """From the app's tasks (`tasks_of`): the newest that runs. Raises NotReady."""
        name = app_id(site.mysql.app)
        running = tasks[tasks["state"].isin(STARTED) & (tasks["ports"] != "")].sort_values("started")
        if running.empty:
            others = ", ".join(f"{task} is {state}" for task, state in zip(tasks["task"], tasks["state"], strict=True))
            raise NotReady(f"no task of {name} runs{others and f': {others}'}", "deploy it (6.2), or ask the diagnosis")
        task = running.iloc[-1]
        addresses = {host.name: host.address for host in site.hosts}
        host = str(task["host"])
        port = int(str(task["ports"]).partition(",")[0])
        return cls(str(task["task"]), host, addresses.get(host, host), port, str(task["state"]))

    def server(self, site: Site) -> Server:
        """The server there."""
        return Server(self.address, self.port, app_id(site.mysql.app))


def placed(site: Site, place: Placement, seen: DataHost) -> Evidence:
    """Whether the task runs on the data's host, in a container that publishes the port that Marathon names."""
    host = data_host(site).name
    if place.host != host:
        text = f"it runs on {place.host}, and its data is on {host}"
        return Evidence(False, text, remedy="deploy it with its constraint (6.2)")
    if seen.problem is not None:
        return Evidence.against(seen.problem)
    container = seen.of_task(place.task)
    row = {
        "task": place.task,
        "state": place.state,
        "host": place.host,
        "port by Marathon": place.port,
        "container": container.short,
        "image": container.image,
        "status": container.status,
        "ports by docker ps": ", ".join(f"{port}->{site.mysql.container_port}" for port in container.ports),
    }
    table = pd.DataFrame([row])
    wrong = []
    if not container.running:
        wrong.append(f"its container {container.short} {container.status}")
    elif place.port not in container.ports:
        wrong.append(f"Marathon names the port {place.port}, and the container has {row['ports by docker ps']}")
    if place.state == "unhealthy":
        wrong.append("its health check fails")
    if wrong:
        return Evidence(False, "; ".join(wrong), table, "see 6.4 diagnosis")
    if place.state != "healthy":
        return Evidence(False, f"its task is {place.state}, and not known to be healthy", table, "wait for its check")
    text = f"container {container.short} on {host}, port {place.port}, {container.status}"
    return Evidence(True, text, table)


@dataclass(frozen=True)
class Client:
    """One way to connect: its name in tables, the account, and what it was shown, or the error that it met."""

    name: str
    user: str
    answer: Catalog | RunbookError


def agreement(site: Site, clients: Mapping[str, Client]) -> Evidence:
    """Whether every client is let in and shown the parameters' database, and those of one user are shown the same."""
    database = site.mysql.database
    rows = [_row(client, database) for client in clients.values()]
    table = pd.DataFrame(rows, columns=["client", "user", "server", "databases", f"tables in {SYSTEM}", database])
    errors = {name: one.answer for name, one in clients.items() if isinstance(one.answer, RunbookError)}
    if errors:
        text = "; ".join(f"{name}: {error.message}" for name, error in errors.items())
        remedy = next((error.remedy for error in errors.values() if error.remedy), None)
        untried = len(errors) == len(clients) and all(isinstance(one, NOBODY_THERE) for one in errors.values())
        refused = any(isinstance(one, LoginRefused) for one in errors.values())
        return Evidence(False, text, table, remedy, hopeless=refused, tried=not untried)
    catalogs = {name: one.answer for name, one in clients.items() if isinstance(one.answer, Catalog)}
    lacking = [name for name, catalog in catalogs.items() if database not in catalog.databases]
    if lacking:
        return Evidence(
            False,
            f"{database} is not shown to {', '.join(lacking)}",
            table,
            "the image makes it only while its data folder is empty, from MYSQL_DATABASE (the document's MYSQL_DB does "
            f"nothing): as root CREATE DATABASE {database}, and GRANT ALL on it",
            hopeless=True,
        )
    by_user: dict[str, list[Catalog]] = {}
    for one in clients.values():
        if isinstance(one.answer, Catalog):
            by_user.setdefault(one.user, []).append(one.answer)
    apart = [user for user, shown in by_user.items() if any(other != shown[0] for other in shown[1:])]
    if apart:
        text = f"the clients of {', '.join(apart)} are shown different things: is it one server that both asked?"
        return Evidence(False, text, table, "compare the port by Marathon with that by docker ps (6.4)")
    version = next(iter(catalogs.values())).version
    return Evidence(True, f"{len(clients)} clients are let in and see {database} on {version}", table)


def _row(client: Client, database: str) -> tuple[object, ...]:
    if isinstance(client.answer, RunbookError):
        return client.name, client.user, f"✗ {client.answer.message}", "", "", ""
    catalog = client.answer
    system, own = (catalog.tables.get(name) for name in (SYSTEM, database))
    return (
        client.name,
        client.user,
        catalog.version,
        ", ".join(catalog.databases),
        "" if system is None else len(system),
        "✗ not there" if own is None else f"✓ {', '.join(own) or 'no tables'}",
    )
