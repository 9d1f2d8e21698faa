"""What a slave will make of new settings, before anything is touched: go on, register for the first time, or refuse.

A slave that registered keeps what it registered with, and Mesos starts it with nothing else (see slave_info.py). What
that is, is known, in this order

1. from the slave itself, while it runs (`/slave(1)/state`);
2. from its last refusal to start, which prints both sides;
3. from its files of flags, where none of them was touched since it registered.

`slave.info`, where Mesos keeps it, is a protobuf message that is not read here. Where none of the three tells, the
forecast says so: then the start itself tells, and the next run has its refusal.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import pandas as pd

from runbook.errors import RunbookError
from runbook.remote.hosts import POOL, Hosts, Output
from runbook.remote.probes import values
from runbook.remote.shell import Facts, facts, quote
from runbook.services.mesos.checks import Registrations
from runbook.services.mesos.client import MesosSlave, State
from runbook.services.mesos.slave_info import Difference, Machine, SlaveInfo, incompatible
from runbook.services.mesos.steps import (
    DEFAULT_WORK_DIR,
    LISTS,
    SLAVE,
    ip_of,
    same_entries,
    slave_flags,
    slave_service,
)
from runbook.services.mesos.tables import tasks_table
from runbook.site import HostParameters, Site
from runbook.views.tables import Table
from runbook.wording import plural

ID_SURVIVES_BOOT = (1, 4)
"""The version from which on a slave keeps its id, and compares, after the host was booted."""


@dataclass(frozen=True)
class Forecast:
    """What is foreseen of one host's slave.

    `slave_id`: its present registration, empty where it has none to lose. `restarts`: whether it will be (re)started.
    `known_from`: how it is known what it registered with; empty where it is not. `work_dir`: where it works now.
    `docker`: whether the host has Docker. `tasks`: what it runs, None where no leader tells. `problem`: why nothing is
    known of the host.
    """

    host: str
    slave_id: str = ""
    restarts: bool = True
    known_from: str = ""
    differences: tuple[Difference, ...] = ()
    work_dir: str = DEFAULT_WORK_DIR
    docker: bool = False
    tasks: tuple[str, ...] | None = None
    problem: str = ""

    @property
    def needs_reset(self) -> bool:
        """Whether it will be (re)started, and Mesos would refuse that with its present registration."""
        return bool(self.slave_id and self.differences and self.restarts)

    @property
    def outcome(self) -> str:
        """What will happen, in a few words."""
        if self.problem:
            return f"unknown: {self.problem}"
        if self.needs_reset:
            return f"⚠ reset: {_lost(self.tasks)}"
        if not self.restarts:
            refused = "; ".join(map(str, self.differences))
            return f"– stays as it is (a restart would be refused: {refused})" if refused else "– stays as it is"
        if not self.slave_id:
            return "✓ registers for the first time"
        return "✓ restarts, its tasks go on" if self.known_from else "⚠ unknown until it is started"


def _lost(tasks: tuple[str, ...] | None) -> str:
    if tasks is None:
        return "its tasks would be lost, and nobody tells which: no master leads"
    return f"{plural(len(tasks), 'task')} would be lost: {'; '.join(tasks)}" if tasks else "it runs no task"


def table(forecasts: Iterable[Forecast]) -> Table:
    """The forecasts, a row each."""
    rows = [
        {
            "host": one.host,
            "outcome": one.outcome,
            "slave id": one.slave_id,
            "known from": one.known_from,
            "differences": "\n".join(map(str, one.differences)),
            "tasks": "unknown" if one.tasks is None else len(one.tasks),
            "Docker": "yes" if one.docker else "not installed",
        }
        for one in forecasts
    ]
    columns = ["host", "outcome", "slave id", "known from", "differences", "tasks", "Docker"]
    frame = pd.DataFrame(rows, columns=columns, dtype=object)
    return Table(frame, "what the slaves will make of their settings", states=("outcome",), literal=("differences",))


def forecasts(site: Site, hosts: Hosts) -> dict[str, Forecast]:
    """What is foreseen of each of these hosts, by name. Asks the hosts, their slaves and the leader; raises nothing."""
    leader = Registrations.ask(site).state
    tasks = None if leader is None else running_tasks(leader)
    answers = hosts.run(probe_of(site))
    running = [host for host in hosts if answers[host.name].ok and _runs(facts(answers[host.name].stdout))]
    states = slave_states(site, running)
    return {host.name: forecast(site, host, answers[host.name], states.get(host.name), tasks) for host in hosts}


def slave_states(site: Site, hosts: Sequence[HostParameters]) -> dict[str, State]:
    """What the slaves on these hosts say of themselves, by host, all asked at once; without those that say nothing."""
    with ThreadPoolExecutor(max_workers=POOL, thread_name_prefix="slave") as pool:
        answers = pool.map(lambda host: (host.name, _slave_state(site, host)), hosts)
        return {name: state for name, state in answers if state is not None}


def _slave_state(site: Site, host: HostParameters) -> State | None:
    with MesosSlave(f"http://{ip_of(host)}:{site.mesos.slave.port}", name=host.name) as slave:
        try:
            return slave.state()
        except RunbookError:
            return None  # the other sources are asked then


def running_tasks(leader: State) -> dict[str, tuple[str, ...]]:
    """The tasks that run on each slave, by its id, each in a few words."""
    live = tasks_table(leader).query("live").sort_values("id")
    running: dict[str, list[str]] = {}
    for task in live.to_dict("records"):
        framework = task["framework_id"] if pd.isna(task["framework"]) else task["framework"]
        running.setdefault(task["slave_id"], []).append(f"{task['id']} ({task['state']}, {framework})")
    return {slave_id: tuple(tasks) for slave_id, tasks in running.items()}


def probe_of(site: Site) -> str:
    """The sh text that prints what `forecast` reads, for every host of a site."""
    folder = quote(f"/etc/{SLAVE}")
    # the same service on every host: its probe does not depend on which one it is
    service = slave_service(site, site.having("mesos_slave")[0]).probe()
    return service + _PROBE.format(folder=folder, unit=SLAVE, default=DEFAULT_WORK_DIR, machine=Machine.probe('"$w"'))


_PROBE = """\
flags=$(tr '\\0' '\\n' 2>/dev/null < "/proc/${{pid:-0}}/cmdline")
w=$(printf '%s\\n' "$flags" | sed -n 's/^--work_dir=//p')
[ -n "$w" ] || w=$(cat {folder}/work_dir 2>/dev/null)
[ -n "$w" ] || w={default}
echo "work_dir=$w"
link=$w/meta/slaves/latest
latest=$(readlink "$link" 2>/dev/null)
echo "latest=${{latest##*/}}"
echo "boot=$(cat /proc/sys/kernel/random/boot_id)"
echo "booted=$(cat "$w/meta/boot_id" 2>/dev/null)"
[ -z "$latest" ] || echo "registered_at=$(stat -c %.Y "$link")"
touched=$(stat -c %.Y {folder} {folder}/* {folder}/*/* 2>/dev/null | sort -n | tail -n 1)
echo "touched_at=${{touched:-0}}"
for f in {folder}/*; do
  if [ -f "$f" ]; then echo "flag=${{f##*/}} $(base64 < "$f" | tr -d '\\n')"; fi
  if [ -d "$f" ]; then
    for e in "$f"/*; do
      if [ -f "$e" ] && [ -s "$e" ]; then echo "entry=${{f##*/}} ${{e##*/}} $(base64 < "$e" | tr -d '\\n')"; fi
    done
  fi
done
command -v docker >/dev/null 2>&1 && echo docker=yes
printf 'machine='; ( {machine} ) | tr '\\n' ' '; echo
systemctl is-active -q {unit} || {{
  printf 'refusal='
  journalctl -q -o cat --no-pager -n 2000 _SYSTEMD_UNIT={unit}.service + SYSLOG_IDENTIFIER={unit} 2>/dev/null |
    sed -n '/Incompatible [a-z]* info detected/,$p' | tail -n 400 | base64 | tr -d '\\n'; echo
}}
exit 0
"""


def _runs(present: Facts) -> bool:
    return present.get("ActiveState") == "active"


def forecast(
    site: Site,
    host: HostParameters,
    output: Output,
    state: State | None,
    tasks: Mapping[str, tuple[str, ...]] | None,
) -> Forecast:
    """What is foreseen of one host's slave.

    `output`: what `probe_of` printed there; `state`: what the slave says of itself, None where it does not; `tasks`:
    what runs on each slave (`running_tasks`), None where no leader tells.
    """
    if not output.ok:
        return Forecast(host.name, problem=output.error.message if output.error else output.stderr.strip())
    present = facts(output.stdout)
    docker, work_dir = "docker" in present, present["work_dir"]
    files = {
        name: _decoded(text).strip() for name, text in (line.split(" ", 1) for line in values(output.stdout, "flag"))
    }
    joined = set()
    for name in LISTS:  # the start script joins the files of a directory
        found = (line.split(" ", 2) for line in values(output.stdout, "entry"))
        parts = [f"{entry}:{_decoded(text).strip()}" for flag, entry, text in found if flag == name]
        if parts:
            files[name] = ";".join(parts)
            joined.add(name)
    wanted_flags = slave_flags(site, host, docker=docker)
    flags = {name: text for name, text in {**files, **wanted_flags}.items() if text is not None}
    restarts = (
        present.get("LoadState") != "loaded"
        or any(
            not same_entries(files[name], text) if name in joined else files.get(name) != text
            for name, text in wanted_flags.items()
        )
        or slave_service(site, host).plan(output.stdout) is not None
    )
    slave_id = present["latest"]
    if present["booted"] != present["boot"] and _version(site) < ID_SURVIVES_BOOT:
        slave_id = ""  # it starts afresh after a boot, whatever it registered with
    lost = () if not slave_id else None if tasks is None else tasks.get(slave_id, ())
    basis = Forecast(host.name, slave_id, restarts, work_dir=work_dir, docker=docker, tasks=lost)
    if not slave_id:
        return basis
    machine = Machine.parse(present["machine"])
    stored, known_from = _stored(output.stdout, present, files, machine, slave_id, state)
    differences = incompatible(stored, SlaveInfo.wanted(flags, machine)) if stored is not None else []
    if work_dir != site.mesos.slave.work_dir:
        # in another folder it finds no registration, and so registers anew: the same loss
        differences.insert(0, Difference("work_dir", work_dir, site.mesos.slave.work_dir))
    return replace(basis, known_from=known_from, differences=tuple(differences))


def _stored(
    printed: str, present: Facts, files: Mapping[str, str], machine: Machine, slave_id: str, state: State | None
) -> tuple[SlaveInfo | None, str]:
    """What the slave registered with, and how that is known."""
    if state is not None and state.get("id") == slave_id:
        return SlaveInfo.of_state(state), "the slave"
    refusal = SlaveInfo.of_log(_decoded(present.get("refusal", "")))
    if refusal is not None and refusal[0].id == slave_id:
        return refusal[0], "its refusal to start"
    if float(present["touched_at"]) < float(present["registered_at"]):
        return replace(SlaveInfo.wanted(files, machine), id=slave_id), "its files, older than its registration"
    return None, ""


def _version(site: Site) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", site.mesos.version)[:2])


def _decoded(text: str) -> str:
    return base64.b64decode(text).decode("utf-8", "replace")
