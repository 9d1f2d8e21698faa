"""Whether the container of MySQL's task is the one that Marathon had started, by its inspection.

A slave runs it by `docker run` with the app's image, memory, ports, volumes and parameters, and with the task's sandbox
(src/docker/docker.cpp of Mesos 0.28.0, Docker::run). Anything else of what is compared here came by another hand, such
as `docker update`, or a container that was started in the task's name. Its variables hold passwords, and stay there.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from runbook.remote.checks import Evidence
from runbook.remote.containers import ASK_DOCKER
from runbook.remote.hosts import Hosts, Output
from runbook.remote.probes import values
from runbook.remote.shell import quote
from runbook.remote.unasked import Asked, differences
from runbook.services.marathon.apps import App

COMPARED = frozenset(
    {
        *("privileged", "cap-add", "cap-drop", "device", "security-opt", "security-opt systempaths", "read-only"),
        *("pid", "ipc", "uts", "userns", "network", "link", "volumes-from", "publish-all", "rm", "dns", "add-host"),
        *("ulimit", "sysctl", "oom-kill-disable", "oom-score-adj", "pids-limit", "cpuset-cpus"),
    }
)
"""Options that no version of Mesos gives by itself."""
SANDBOX = "/mnt/mesos/sandbox"
"""Where a task finds its sandbox: mesos-slave's default `sandbox_directory`."""

_QUESTION = """\
docker inspect --type container -f 'host={{{{json .HostConfig}}}}' {container}
docker inspect --type container -f 'networks={{{{json .NetworkSettings.Networks}}}}' {container}
"""


def question(container: str) -> str:
    """The sh text that prints what `unasked_of` reads of a container."""
    return ASK_DOCKER + _QUESTION.format(container=quote(container))


def judged(hosts: Hosts, host: str, container: str, app: App, otherwise: Evidence) -> Evidence:
    """`otherwise`, unless the container has what the app does not ask for."""
    output = hosts.only(host).run(question(container))[host]
    if output.error is not None:
        return Evidence.against(output.error)
    found = dict(unasked_of(output, app))
    if not found:
        return otherwise
    text = "; ".join(f"{option} is {value}, expected {wanted}" for option, (value, wanted) in sorted(found.items()))
    return Evidence(
        False,
        f"container {container[:12]} on {host} is not as Marathon had it started: {text}",
        otherwise.table,
        "restart the app in Marathon, which starts another container; its data stays in the folder",
    )


def unasked_of(output: Output, app: App) -> Iterator[tuple[str, tuple[str, str]]]:
    """What a container has and what the app asks for, by the option of `docker run`, where they differ."""
    shown = {key: json.loads(line) for key in ("host", "networks") for line in values(output.stdout, key)}
    host: Mapping[str, Any] = shown.get("host") or {}
    docker = app["container"]["docker"]
    asked = {str(parameter["key"]) for parameter in docker.get("parameters") or ()}
    asked |= {"privileged", "security-opt"} if docker.get("privileged") else set()
    asked |= {"network"} if docker.get("network", "HOST") != "BRIDGE" else set()
    inspected = {"Id": "", "HostConfig": host, "NetworkSettings": {"Networks": shown.get("networks")}}
    for option, pair in differences(inspected, None, Asked()).items():
        if (option in COMPARED or option.startswith("network ")) and option not in asked:
            yield option, pair
    if host.get("Memory") and "memory" not in asked and host["Memory"] != int(app["mem"] * 2**20):
        yield "memory", (f"{host['Memory'] / 2**20:g} MiB", f"{app['mem']:g} MiB")
    policy = (host.get("RestartPolicy") or {}).get("Name") or "no"
    if policy != "no" and "restart" not in asked:
        yield "restart", (policy, "no")
    wanted = {str(volume.get("hostPath")) for volume in app["container"].get("volumes") or ()}
    for bind in host.get("Binds") or ():
        outside, inside = bind.split(":")[:2]
        if outside not in wanted and inside != SANDBOX and not {"volume", "v"} & asked:
            yield f"volume {outside}", (inside, "-")
