"""A host's Docker engine: its package, its service, its unit, and what it says of itself (document 5.1 and 5.2).

A restart of Docker ends every container of the host (but for `live-restore`, from 1.12 on, which is off by default),
and so does another version of the package, whose scriptlet restarts it. Both are therefore behind the gate
`restart-docker`, which lists the containers, and are done on one host at a time where containers run.

Sources: docker-engine.spec of Docker 1.11 (the scriptlets); rpm(8), 'Verify options'; systemd.unit(5) (drop-ins).
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import pandas as pd

from runbook.remote.hosts import DEADLINE, Hosts, Output
from runbook.remote.modes import Mode
from runbook.remote.probes import values
from runbook.remote.results import ApplyResult, StepResult
from runbook.remote.shell import Facts as ProbeFacts
from runbook.remote.shell import facts, quote
from runbook.remote.steps import Change, Package, Step
from runbook.remote.units import PackagedUnit, SafePaths, command_probe, other_command
from runbook.secrets import mask_arguments
from runbook.services.docker import daemon
from runbook.services.docker.returned import Before
from runbook.services.mesos.steps import Daemon
from runbook.site import Site
from runbook.views.tables import Table
from runbook.wording import plural

UNIT = "docker"
RESTART = "restart-docker"
"""The gate before a restart of Docker, which ends the containers of its host."""
PATIENCE = 180.0
"""Seconds within which what ran on a host whose Docker was restarted must run again, there or elsewhere."""

_RUNNING = """\
if command -v docker >/dev/null 2>&1; then
  if shown=$(timeout 30 docker ps --format '{{.Names}} ({{.Image}})' 2>/dev/null); then
    printf '%s\\n' "$shown" | sed -n 's/^./container=&/p'
    timeout 30 docker info 2>/dev/null | sed -n 's/^ *Live Restore Enabled: /live_restore=/p'
  elif systemctl is-active --quiet docker; then
    echo silent=yes
  fi
fi
"""


def _gated(change: Change, state: str, what: str) -> Change:
    """The change behind the gate where containers run, which it tells, or may run; else free."""
    if not _busy(state):
        return replace(change, gate=None, consequence="")
    running = values(state, "container")
    ended = f"{plural(len(running), 'container')}: {', '.join(sorted(running))}"
    if not running:
        ended = "every container of the host; which ones, its Docker does not tell: it runs, and does not answer"
    return replace(change, gate=RESTART, consequence=f"{what} {ended}")


def _busy(state: str) -> bool:
    """Whether containers run by what `_RUNNING` printed, or may run, as Docker runs and does not tell."""
    return bool(values(state, "container") or values(state, "silent"))


# 5.1 and 5.2: the package and the service


@dataclass(frozen=True)
class DockerPackage(Package):
    """Docker's package. Another version in the place of one whose containers run is behind the gate."""

    def probe(self) -> str:
        return super().probe() + _RUNNING

    def plan(self, state: str, pending: frozenset[str] = frozenset()) -> Change | None:
        change = super().plan(state, pending)
        return change and _gated(change, state, "the package restarts Docker, which ends")


@dataclass(frozen=True)
class DockerService(Daemon):
    """Docker's service, enabled and running. A restart of it, or a stop, is behind the gate where that ends containers.

    It is restarted where it started before its package was installed, or before a file of `restart_if_newer` was
    changed, which is the packaged unit. (/etc/docker/daemon.json is chapter 7's: Docker can take that over as it runs.)
    """

    name: str = UNIT
    restart_if_newer: tuple[str, ...] = (f"/usr/lib/systemd/system/{UNIT}.service",)
    own_drop_ins: tuple[str, ...] = field(default=(daemon.REGISTRY_DROP_IN,), kw_only=True)

    def probe(self) -> str:
        return super().probe() + _RUNNING + command_probe(UNIT)

    def _runs_differently(self, present: ProbeFacts, state: str) -> dict[str, tuple[str, str]]:
        """The options of the process against those of the unit. Options that a foreign drop-in adds are no reason to
        restart: `PackagedUnit` reports that drop-in."""
        if (differ := other_command(state)) is None:
            return {}
        running, given = differ
        if self.foreign_drop_ins(state) and not [word for word in running if word not in given]:
            return {}
        return {
            "process, options": (mask_arguments(" ".join(running)), mask_arguments(" ".join(given)) + " (its unit)")
        }

    def plan(self, state: str, pending: frozenset[str] = frozenset()) -> Change | None:
        change = super().plan(state, pending)
        if (
            change is None
            or not {"restart", "stop"} & set(change.actions)
            or values(state, "live_restore") == ("true",)
        ):
            return change
        gated = _gated(change, state, "the restart ends")
        consequence = "; ".join(filter(None, [gated.consequence, change.consequence]))
        return replace(gated, gate=gated.gate or change.gate, consequence=consequence)


def install(site: Site) -> Step:
    """The package, in the version of the parameters or, without one there, in any (the newest where there is none)."""
    return DockerPackage(site.docker.package, site.docker.version)


def service(site: Site) -> DockerService:
    """The service, which must have started after its package was installed."""
    return DockerService(package=site.docker.package, allowed_drop_ins=site.docker.allowed_drop_ins)


DOCUMENTS_COMMAND = r"/usr/bin/(docker daemon|dockerd)( -H fd://)?( --insecure-registry[= ][\w.:\[\]-]+)*"
"""How the document has its readers edit the packaged unit (7.2). Chapter 7 judges the registries named there, and
chapter 0 lists the edited file among what a set-up by hand left behind."""


def drift(site: Site) -> tuple[Step, ...]:
    """What an administrator changed of Docker's units, and who may write its settings."""
    package, allowed = site.docker.package, site.docker.allowed_drop_ins
    return (
        PackagedUnit(UNIT, package, own=(daemon.REGISTRY_DROP_IN,), allowed=allowed, command=DOCUMENTS_COMMAND),
        PackagedUnit(f"{UNIT}.socket", package, allowed=allowed, verify=False),
        SafePaths(UNIT, ("/etc/docker", daemon.SETTINGS, "/etc/docker/certs.d", "/etc/sysconfig/docker")),
    )


def restart_gently(
    hosts: Hosts, steps: Sequence[Step] | Step, name: str = "", deadline: float = DEADLINE
) -> ApplyResult:
    """Apply steps that may restart Docker: at once on hosts where no container runs, then on the others, one at a time.

    The next of the latter is touched only once what ran on the one before runs again: see `returned`. Raises as
    `Hosts.apply` and `Hosts.rolling`.
    """
    steps = (steps,) if isinstance(steps, Step) else tuple(steps)
    if hosts.mode is not Mode.APPLY:
        return hosts.apply(steps, name, deadline)
    busy = {host for host, output in hosts.run(_RUNNING, deadline=90.0).items() if _busy(output.stdout)}
    results: list[StepResult] = []
    if idle := hosts.only(*(host.name for host in hosts if host.name not in busy)):
        results += idle.apply(steps, name, deadline)
    if rest := hosts.only(*busy):
        before = Before.ask(hosts.site, daemon.of(rest))
        results += rest.rolling(
            steps, until=lambda host: before.back(rest, host), name=name, deadline=deadline, patience=PATIENCE
        )
    order = {host.name: number for number, host in enumerate(hosts)}
    return ApplyResult(name, hosts.mode, tuple(sorted(results, key=lambda one: order[one.host])))


DEMAND = "command -v docker >/dev/null 2>&1 || { echo 'not installed' >&2; exit 1; }\n"
"""The sh text that ends a question where there is no docker."""


def unanswered(output: Output) -> str:
    """How a table says why a host's engine did not answer a question that began with DEMAND."""
    said = output.error.message if output.error else output.stderr.strip().rpartition("\n")[2]
    return said if said == "not installed" else f"✗ {said or 'no answer'}"


# 5.2: the unit


def units(site: Site, hosts: Hosts) -> Table:
    """The unit by which each host runs Docker: the package's with its drop-ins, as systemd reads them.

    Hosts with the same one share a row. A unit that was edited in place is warned of: the next version of the package
    takes the edit away without a word.
    """
    alike: dict[tuple[str, str], list[str]] = {}
    for host, output in hosts.run(_UNIT.format(package=quote(site.docker.package), unit=UNIT)).items():
        alike.setdefault(unit_of(output), []).append(host)
    rows = [(", ".join(names), state, text) for (state, text), names in alike.items()]
    frame = pd.DataFrame(rows, columns=["host", "state", "unit"])
    return Table(frame, f"{UNIT}.service, with its drop-ins", states=("state",), literal=("unit",))


# rpm -V marks what differs in nine columns, of which the third is the content (5); a missing file says `missing`.
_UNIT = """\
rpm -q {package} >/dev/null 2>&1 || exit 0
systemctl show -p FragmentPath,DropInPaths,NeedDaemonReload {unit}
rpm -V --nodeps {package} 2>/dev/null | sed -n 's|^\\(.*\\) \\(/.*/systemd/system/.*\\)$|verify=\\1 \\2|p'
echo "unit=$(systemctl cat {unit}.service 2>/dev/null | base64 | tr -d '\\n')"
"""


def unit_of(output: Output) -> tuple[str, str]:
    """How a host's unit stands to the packaged one, and its text, from what `units` had it print."""
    if not output.ok:
        return f"no answer: {output.error.message if output.error else output.stderr.strip()}", ""
    found = facts(output.stdout)
    if "unit" not in found:
        return "not installed", ""
    path, drop_ins = found.get("FragmentPath", ""), found.get("DropInPaths", "").split()
    edited = [
        (flags, file.strip())
        for flags, _, file in (line.partition(" ") for line in values(output.stdout, "verify"))
        if flags == "missing" or "5" in flags
    ]
    if path.startswith("/etc/"):
        state = f"⚠ {path} stands in the place of the packaged unit: move what differs to a drop-in, and remove it"
    elif edited:
        flags, file = edited[0]
        state = (
            f"⚠ {file} was edited by hand (rpm -V: {flags}), and the next version of the package undoes it: move the "
            "change to /etc/docker/daemon.json or a drop-in, then `yum reinstall` the package"
        )
    elif found.get("NeedDaemonReload") == "yes":
        state = "⚠ systemd has not read it since it was changed: run `systemctl daemon-reload`"
    else:
        state = "✓ as shipped" + (f", with {plural(len(drop_ins), 'drop-in')}" if drop_ins else "")
    # a proxy's URL in it may have a password
    return state, mask_arguments(base64.b64decode(found["unit"]).decode("utf-8", "replace").rstrip())


# 5.2: what the engine says of itself

INFO = f"{DEMAND}timeout 60 docker info 2>&1"
"""Older clients know no `docker info --format`."""


def info(text: str) -> Mapping[str, str]:
    """What `docker info` tells by name. Of names that come more than once the first counts."""
    found: dict[str, str] = {}
    for name, value in re.findall(r"^\s*([A-Za-z][\w /.-]*?): *(.*?)\s*$", text, re.MULTILINE):
        found.setdefault(name, value)
    return found


@dataclass(frozen=True)
class Facts:
    """One engine: its version, where and by which driver it stores, and how it limits."""

    version: str
    storage: str
    cgroups: str
    root: str
    containers: str
    images: str
    warnings: tuple[str, ...]

    @classmethod
    def of(cls, text: str) -> Facts:
        """The facts in what `docker info` printed."""
        found = info(text)
        storage = found.get("Storage Driver", "unknown")
        if backing := found.get("Backing Filesystem"):
            storage += f" on {backing}"
        cgroups = found.get("Cgroup Driver", "unknown")
        if version := found.get("Cgroup Version"):
            cgroups += f", v{version}"
        running = f"{found['Running']} of " if "Running" in found else ""
        warnings = [*re.findall(r"^WARNING: (.*?)\s*$", text, re.MULTILINE)]
        if loop(found):
            warnings.insert(0, "it stores in loop files (devicemapper): slow, and full without a warning")
        return cls(
            found.get("Server Version", ""),
            storage,
            cgroups,
            found.get("Docker Root Dir", "/var/lib/docker"),
            f"{running}{found.get('Containers', '')}",
            found.get("Images", ""),
            tuple(warnings),
        )

    @property
    def software(self) -> dict[str, str]:
        """What of it goes into the record's versions."""
        return {"docker": self.version, "docker storage": self.storage, "docker cgroups": self.cgroups}


def loop(found: Mapping[str, str]) -> bool:
    """Whether an engine stores in loop files, as devicemapper does that nobody gave a volume."""
    return found.get("Storage Driver") == "devicemapper" and "Data loop file" in found


def said(hosts: Hosts) -> dict[str, Facts | str]:
    """The facts of each host's engine; where it does not answer, how a table says so."""
    return {host: _said(output) for host, output in hosts.run(INFO, deadline=90.0).items()}


def _said(output: Output) -> Facts | str:
    found = Facts.of(output.stdout)
    if found.version:
        return found
    # what keeps the client from the engine is told on either output
    return unanswered(replace(output, stderr=output.stderr or output.stdout))


def facts_table(answers: Mapping[str, Facts | str]) -> Table:
    """The engines' facts, a row each, with what the engine itself warns of."""
    rows = [
        (host, found, *[""] * 6)
        if isinstance(found, str)
        else (
            *(host, f"✓ {found.version}", found.storage, found.cgroups, found.root, found.containers, found.images),
            "\n".join(f"⚠ {warning}" for warning in found.warnings),
        )
        for host, found in answers.items()
    ]
    columns = ["host", "docker", "storage", "cgroups", "data in", "running containers", "images", "warnings"]
    return Table(pd.DataFrame(rows, columns=columns), "Docker engines", states=("docker", "warnings"))
