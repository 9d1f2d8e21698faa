"""What keeps MySQL from starting (document 6.3), looked at before it is deployed. Pure, from what was `Seen`.

The document warns of too little memory and of a fixed port. A deployment tells of the rest only by waiting: no slave
with room, a port outside the slaves' ranges, a slave without Docker. Two servers on one data folder tell of it last.
What the parameter file alone shows (site.py) is refused before; it stands here as well, with what was found.

Sources: the document's 6.3; Mesos 0.28's offers and flags; `mysqld`'s memory: 'How MySQL Uses Memory'.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from runbook.errors import RunbookError, ServiceError
from runbook.remote.checks import Evidence
from runbook.remote.hosts import Hosts
from runbook.services.marathon.apps import App, app_id
from runbook.services.marathon.deploy import marathon_of
from runbook.services.marathon.fit import fit_table
from runbook.services.mesos.checks import masters_of
from runbook.services.mesos.forecast import slave_states
from runbook.services.mesos.resources import Ranges
from runbook.services.mesos.tables import SCALARS, slaves_table
from runbook.services.mysql.app import data_host, mysql_app
from runbook.services.mysql.host import DataHost
from runbook.services.overview.preflight import MARKS, State
from runbook.site import MYSQL_DOES_NOT_START, Site

COMFORTABLE = 512
"""MB from which on the server's defaults (a buffer pool of 128 MB, the performance schema, its threads) have room."""

MAY_HEAL = frozenset({"port on the host", "slave", "runs Docker tasks"})
"""What may become well by waiting: a slave that was just restarted registers again, and a task ends."""


@dataclass(frozen=True)
class Seen:
    """What is there before a deployment. None where it could not be found out, and `unknown` says why.

    `slaves`: Mesos' `slaves_table`. `flags`: those of the data's host's slave. `apps`: Marathon's, the present one of
    MySQL with its tasks.
    """

    host: DataHost
    slaves: pd.DataFrame | None = None
    flags: Mapping[str, str] | None = None
    apps: Sequence[App] | None = None
    unknown: tuple[RunbookError, ...] = ()

    @classmethod
    def ask(cls, site: Site, hosts: Hosts) -> Seen:
        """Ask the host, Mesos and Marathon. Raises nothing."""
        seen = cls(DataHost.ask(hosts))
        host = data_host(site)
        unknown: list[RunbookError] = [seen.host.problem] if seen.host.problem else []
        try:
            with masters_of(site) as masters:
                seen = replace(seen, slaves=slaves_table(masters.state()))
        except ServiceError as error:
            unknown.append(error)
        states = slave_states(site, [host])
        if host.name in states:
            seen = replace(seen, flags=states[host.name]["flags"])
        try:
            with marathon_of(site) as marathon:
                present = marathon.find(site.mysql.app)
                others = [app for app in marathon.apps() if app["id"] != app_id(site.mysql.app)]
                seen = replace(seen, apps=[*others, *([present] if present else [])])
        except ServiceError as error:
            unknown.append(error)
        return replace(seen, unknown=tuple(unknown))

    def present(self, site: Site) -> App | None:
        """The app as Marathon has it."""
        return next((app for app in self.apps or () if app["id"] == app_id(site.mysql.app)), None)


@dataclass(frozen=True)
class Condition:
    """One of 6.3's conditions: how it is, what was found, and what to do where it is not well."""

    name: str
    state: State
    found: str
    remedy: str = ""


def judge(site: Site, seen: Seen) -> tuple[Condition, ...]:
    """Every condition."""
    rules: dict[str, Callable[[Site, Seen], _Found]] = {
        "memory": _memory,
        "port on the host": _port,
        "one server a folder": _one_server,
        "data folder": _folder,
        "the data stays": _stays,
        "database": _database,
        "image": _image,
        "slave": _slave,
        "runs Docker tasks": _containerizer,
        "how tasks are ended": _stop,
    }
    return tuple(Condition(name, *rule(site, seen)) for name, rule in rules.items())


def evidence(site: Site, seen: Seen) -> Evidence:
    """Whether anything keeps it from starting, with all conditions as the table."""
    conditions = judge(site, seen)
    rows = [(one.name, f"{MARKS[one.state]} {one.found}", one.remedy) for one in conditions]
    table = pd.DataFrame(rows, columns=["condition", "found", "remedy"])
    wrong = [one for one in conditions if one.state is State.PROBLEM]
    unknown = [one for one in conditions if one.state is State.UNKNOWN]
    if wrong:
        text = "; ".join(f"{one.name}: {one.found}" for one in wrong)
        remedy = "; ".join(dict.fromkeys(one.remedy for one in wrong))
        return Evidence(False, text, table, remedy, hopeless=any(one.name not in MAY_HEAL for one in wrong))
    if unknown:
        why = "; ".join(map(_briefly, seen.unknown))
        text = f"not known yet: {', '.join(one.name for one in unknown)} ({why or 'nobody tells'})"
        remedy = next((error.remedy for error in seen.unknown if error.remedy), "run the chapters before this one")
        return Evidence(False, text, table, remedy, tried=False)
    warnings = [one for one in conditions if one.state is State.WARNING]
    told = f"; worth knowing: {', '.join(one.name for one in warnings)}" if warnings else ""
    return Evidence(True, f"nothing keeps it from starting on {data_host(site).name}{told}", table)


def _briefly(error: RunbookError) -> str:
    """What an error says, without what each of several instances said."""
    return error.message if len(error.message) < 100 else error.message.partition(": ")[0]


# the conditions

_Found = tuple[State, str, str]


def _ok(found: str) -> _Found:
    return State.OK, found, ""


def _unknown(who: str) -> _Found:
    return State.UNKNOWN, f"unknown: {who} does not answer", ""


def _memory(site: Site, seen: Seen) -> _Found:
    mem = f"{site.mysql.mem:g} MB"
    if site.mysql.mem <= MYSQL_DOES_NOT_START:
        return State.PROBLEM, f"{mem}: it does not start", "set mysql.mem: 1024"
    if site.mysql.mem < COMFORTABLE:
        found = f"{mem}: the server's own defaults may need more, and then the kernel ends it (137)"
        return State.WARNING, found, "set mysql.mem: 1024"
    return _ok(mem)


def _port(site: Site, seen: Seen) -> _Found:
    port = site.mysql.host_port
    if not port:
        return _ok("any of the slave's ports")
    any_port = "set mysql.host_port: 0"
    if site.mysql.instances > 1:
        return State.PROBLEM, f"{port} for {site.mysql.instances} instances on one host", any_port
    slave = _row(site, seen)
    if slave is None:
        return _unknown("Mesos' leader") if seen.slaves is None else _missing(site)
    if port not in Ranges.parse(slave["ports"]):
        return State.PROBLEM, f"{port} is not among the ports that the slave offers: {slave['ports']}", any_port
    if port not in Ranges.parse(slave["ports_free"]) and port not in _own_ports(site, seen):
        return State.PROBLEM, f"{port} is in use by another task", any_port
    return State.WARNING, f"{port}, fixed: one instance a host, and Mesos may have given it away", any_port


def _one_server(site: Site, seen: Seen) -> _Found:
    mysql = site.mysql
    if mysql.instances > 1:
        return State.PROBLEM, f"{mysql.instances} instances on {mysql.volume}", "set mysql.instances: 1"
    host = data_host(site).address
    others = [
        app["id"]
        for app in seen.apps or ()
        if app["id"] != app_id(mysql.app) and _tied_to(app) in ("", host) and _writes_to(app, mysql.volume)
    ]
    strangers = [one for one in seen.host.on_folder(mysql.volume) if one.app not in (app_id(mysql.app), *others)]
    present = seen.present(site)
    lost = [] if present is None else _lost(site, seen, present)
    if others:
        return (
            State.PROBLEM,
            f"{', '.join(others)} has {mysql.volume} as well: should it run on {host}, both write to one folder",
            "give one of them a folder of its own",
        )
    if strangers or lost:
        names = ", ".join(f"{one.short} ({one.name})" for one in (*strangers, *lost))
        return (
            State.PROBLEM,
            f"the container {names} runs on {mysql.volume}, and Marathon knows nothing of it",
            "see what it is; then end it with docker stop",
        )
    if seen.host.problem:
        return _unknown(data_host(site).name)
    return _unknown("Marathon") if seen.apps is None else _ok(f"nobody else has {mysql.volume}")


def _lost(site: Site, seen: Seen, present: App) -> list[Any]:
    """Containers of the app whose task Marathon does not know any more."""
    known = {task["id"] for task in present.get("tasks", ())}
    return [one for one in seen.host.of_app(site) if one.running and one.task not in known]


def _folder(site: Site, seen: Seen) -> _Found:
    volume = site.mysql.volume
    if seen.host.problem:
        return _unknown(data_host(site).name)
    match seen.host.folder:
        case "absent":
            return _ok(f"{volume} is made by 6.1")
        case "empty":
            return _ok(f"{volume} is empty: the first start initialises it with the parameters' passwords and names")
        case "initialised":
            return _ok(f"{volume} holds a server's data: its passwords and names stay as they are")
        case _:
            return (
                State.PROBLEM,
                f"{volume} holds something that is no server's data, and the image refuses it",
                f"see what it is; empty it, or choose another mysql.volume than {volume}",
            )


def _stays(site: Site, seen: Seen) -> _Found:
    """The data of what runs now goes along with no change of host or folder, and bears not every change of image."""
    present = seen.present(site)
    if present is None:
        return _ok("nothing is deployed yet") if seen.apps is not None else _unknown("Marathon")
    wanted = mysql_app(site)
    was, will_be = map(_place_of_data, (present, wanted))
    if was != will_be and not seen.host.problem and seen.host.folder != "initialised":
        if not was:
            return (
                State.PROBLEM,
                f"the data is in the container that runs, and ends with it; the server would start empty at {will_be}",
                "dump it (mysqldump --all-databases), delete the app, deploy anew, and read the dump in",
            )
        return (
            State.PROBLEM,
            f"the data is at {was}, and the server would start empty at {will_be}",
            "set mysql.host and mysql.volume back; or delete the app, copy what is in the folder, and deploy anew",
        )
    images = [((app.get("container") or {}).get("docker") or {}).get("image") for app in (present, wanted)]
    if was != will_be:
        return (
            State.WARNING,
            f"it moves from {was or 'what is in its container'} to the data at {will_be}",
            "compare the two first",
        )
    if images[0] != images[1]:
        found = f"{images[1]} takes over what {images[0]} wrote, and there may be no way back"
        return State.WARNING, found, "make a backup first (mysqldump --all-databases)"
    return _ok(f"the app stays at {was}")


def _database(site: Site, seen: Seen) -> _Found:
    name = site.mysql.database
    if seen.host.problem:
        return _unknown(data_host(site).name)
    if seen.host.folder == "initialised" and not seen.host.database:
        return (
            State.WARNING,
            f"the data has no {name}, and the image makes none any more",
            f"once the server runs: CREATE DATABASE {name}, and GRANT ALL ON {name}.* TO '{site.mysql.user}'@'%'",
        )
    return _ok(f"{name} is there" if seen.host.database else f"MYSQL_DATABASE={name} makes it")


def _image(site: Site, seen: Seen) -> _Found:
    tag = site.image(site.mysql.image).tag
    if seen.host.problem:
        return _unknown(data_host(site).name)
    if not seen.host.docker:
        return State.UNKNOWN, "unknown: no Docker answers", "chapter 5 installs it"
    if not seen.host.image:
        return State.PROBLEM, f"{tag} is not there: the slave would try to pull it", "6.1 loads it"
    return _ok(tag)


def _slave(site: Site, seen: Seen) -> _Found:
    if seen.slaves is None:
        return _unknown("Mesos' leader")
    host = data_host(site)
    present = seen.present(site)
    mine = seen.slaves[seen.slaves["host"] == host.address]
    if present is not None:
        mine = _as_if_ended(mine, present)
    fits = fit_table(mysql_app(site), mine)
    if fits.empty:
        return _missing(site)
    lacks = "; ".join(str(row["lacks"]) for row in fits.to_dict("records") if row["lacks"])
    if not fits["fits"].any():
        return State.PROBLEM, lacks, f"ask for less, or end what else runs on {host.name}: the data ties it there"
    row = fits[fits["fits"]].iloc[0]
    return _ok(f"{host.name} has room: {row['cpus_free']:g} CPUs, {row['mem_free']:g} MB, {row['ports_free']} ports")


def _containerizer(site: Site, seen: Seen) -> _Found:
    if seen.flags is None:
        return _unknown(f"the slave on {data_host(site).name}")
    containerizers = seen.flags.get("containerizers", "mesos")
    if "docker" not in containerizers.split(","):
        return State.PROBLEM, f"containerizers={containerizers}", "chapter 5 gives the slave docker,mesos"
    return _ok(f"containerizers={containerizers}")


def _stop(site: Site, seen: Seen) -> _Found:
    if seen.flags is None:
        return _unknown(f"the slave on {data_host(site).name}")
    patience = seen.flags.get("docker_stop_timeout", "0ns")
    if patience.startswith("0"):
        return (
            State.WARNING,
            f"docker_stop_timeout={patience}: an upgrade kills the server, and InnoDB recovers at its next start",
            "write 30secs to docker_stop_timeout in /etc/mesos-slave and restart the slave: its tasks go on",
        )
    return _ok(f"docker_stop_timeout={patience}")


# the parts


def _row(site: Site, seen: Seen) -> Mapping[Any, Any] | None:
    """The active slave of the data's host."""
    if seen.slaves is None:
        return None
    rows = seen.slaves[(seen.slaves["host"] == data_host(site).address) & seen.slaves["active"]].to_dict("records")
    return rows[0] if rows else None


def _missing(site: Site) -> _Found:
    host = data_host(site)
    return (
        State.PROBLEM,
        f"the slave of {host.name} is not registered as {host.address}",
        "see chapter 3, and that the slave's hostname is its address (2.2.4)",
    )


def _own_ports(site: Site, seen: Seen) -> set[int]:
    present = seen.present(site)
    return {port for task in (present or {}).get("tasks", ()) for port in task.get("ports") or ()}


def _as_if_ended(slaves: pd.DataFrame, present: App) -> pd.DataFrame:
    """The slaves with what the present tasks of the app hold given back: an upgrade ends them first."""
    slaves = slaves.copy()
    for task in present.get("tasks", ()):
        for index in slaves.index[slaves["id"] == task.get("slaveId")]:
            for name in SCALARS:
                slaves.loc[index, f"{name}_free"] += float(present.get(name, 0.0))
            ports = Ranges((port, port) for port in task.get("ports") or ())
            slaves.loc[index, "ports_free"] = str(Ranges.parse(slaves.loc[index, "ports_free"]) | ports)
    return slaves


def _tied_to(app: App) -> str:
    """The slave that an app is tied to."""
    constraints = [[*constraint, "", ""] for constraint in app.get("constraints") or ()]
    return next((one[2] for one in constraints if one[:2] == ["hostname", "CLUSTER"]), "")


def _writes_to(app: App, folder: str) -> bool:
    """Whether an app may write to this folder of the host, to one around it or one within it."""
    return any(
        path == folder or path.startswith(f"{folder}/") or folder.startswith(path.rstrip("/") + "/")
        for path, mode in _host_paths(app)
        if mode != "RO"
    )


def _host_paths(app: App) -> Iterator[tuple[str, str]]:
    """The folders of the host that an app has, each with its mode, `RO` or `RW`."""
    for volume in (app.get("container") or {}).get("volumes") or ():
        if volume.get("hostPath"):
            yield str(volume["hostPath"]), str(volume.get("mode", "RW"))


def _place_of_data(app: App) -> str:
    """Where an app has its data: the slave and the folders of it that it may write to; empty where it has them in its
    container only."""
    paths = ":".join(path for path, mode in _host_paths(app) if mode == "RW")
    return paths and f"{_tied_to(app) or 'any slave'}:{paths}"
