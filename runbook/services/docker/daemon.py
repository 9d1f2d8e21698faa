"""What a host's Docker daemon tells of itself, and of the containers that a restart of it would stop (document 7.2).

Sources: `docker info` and `docker inspect` of Docker's CLI reference, 'Live restore' and 'Start containers
automatically' of Docker's documentation.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from runbook.remote.hosts import Hosts, Output
from runbook.remote.probes import INSPECT_EACH, values
from runbook.remote.shell import facts

SETTINGS = "/etc/docker/daemon.json"
REGISTRY_DROP_IN = "/etc/systemd/system/docker.service.d/runbook-registry.conf"
"""The drop-in of Docker's unit that chapter 7 writes where the trust must be on the command line."""
RETURNING = frozenset({"always", "unless-stopped"})
"""The restart policies with which a container that ran comes back with Docker."""


@dataclass(frozen=True)
class Running:
    """A container that runs: its name, restart policy and image."""

    name: str
    restart: str
    image: str

    def __str__(self) -> str:
        return f"{self.name} ({self.image})"


@dataclass(frozen=True)
class DaemonState:
    """One host's daemon: whether its unit is there, its process and version while it runs, and what it runs.

    `live_restore`: its containers outlive it. `problem` is why nothing of this could be found out.
    """

    installed: bool = False
    pid: int | None = None
    version: str = ""
    live_restore: bool = False
    containers: tuple[Running, ...] = ()
    problem: str = ""

    @classmethod
    def read(cls, output: Output) -> Self:
        """What PROBE printed on one host."""
        if not output.ok:
            return cls(problem=output.error.message if output.error else output.stderr.strip() or "no answer")
        return cls(**cls._fields(output.stdout))

    @classmethod
    def _fields(cls, text: str) -> dict[str, Any]:
        found = facts(text)
        return {
            "installed": found.get("LoadState") == "loaded",
            "pid": int(found.get("MainPID", "0") or 0) or None,
            "version": found.get("version", ""),
            "live_restore": _live_restore(found.get("live", ""), arguments_of(found), settings_of(found)),
            "containers": tuple(_running(line) for line in values(text, "container")),
        }

    @property
    def stopped(self) -> tuple[Running, ...]:
        """The containers that a restart of Docker would stop: with live-restore, none."""
        return () if self.live_restore else self.containers


def of(hosts: Hosts) -> dict[str, DaemonState]:
    """The daemon of each of these hosts, asked at once. A host that does not answer has its `problem` told."""
    return {host: DaemonState.read(output) for host, output in hosts.run(PROBE).items()}


# A question to a Docker that is stopped would start it, where systemd listens at its socket: so only a running one is
# asked.
PROBE = f"""\
{INSPECT_EACH}unit=$(systemctl show -p LoadState,ActiveState,MainPID docker 2>/dev/null) || unit=LoadState=not-found
printf '%s\\n' "$unit"
content() {{ base64 < "$1" 2>/dev/null | tr -d '\\n'; }}
[ ! -f {SETTINGS} ] || echo "settings=$(content {SETTINGS})"
case $unit in (*ActiveState=active*)
  pid=$(printf '%s\\n' "$unit" | sed -n 's/^MainPID=//p')
  echo "arguments=$(content "/proc/$pid/cmdline")"
  echo "version=$(docker version -f '{{{{.Server.Version}}}}' 2>/dev/null)"
  echo "live=$(docker info -f '{{{{.LiveRestoreEnabled}}}}' 2>/dev/null)"
  inspect_each 'container={{{{.Name}}}} {{{{.HostConfig.RestartPolicy.Name}}}} {{{{.Config.Image}}}}' \\
    $(docker ps -q --no-trunc 2>/dev/null)
esac
:
"""
"""The sh text that prints it; `$unit` and the function `content` are there for what follows."""


def decoded(text: str) -> str:
    """What `content` printed of a file."""
    return base64.b64decode(text).decode("utf-8", "replace")


def arguments_of(found: Mapping[str, str]) -> tuple[str, ...]:
    """The words of the command line by which the daemon runs."""
    return tuple(decoded(found.get("arguments", "")).split("\0"))


def settings_of(found: Mapping[str, str]) -> dict[str, Any]:
    """The object in daemon.json; an empty one where it cannot be read (the step that edits it tells of that)."""
    return json_object(decoded(found.get("settings", "")))


def json_object(text: str) -> dict[str, Any]:
    """The JSON object that a text is, with or without a byte order mark, or an empty one."""
    try:
        found = json.loads(text.removeprefix("\ufeff"))
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _live_restore(told: str, arguments: Sequence[str], settings: Mapping[str, Any]) -> bool:
    """Whether containers outlive the daemon: by its own word, for the file may be newer than what it read; where it
    does not tell (before 1.13), by its command line and its file."""
    return told == "true" if told else "--live-restore" in arguments or settings.get("live-restore") is True


def _running(line: str) -> Running:
    name, restart, image = line.split(" ", 2)
    return Running(name.removeprefix("/"), restart or "no", image)
