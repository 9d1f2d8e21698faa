"""What a container has beyond what is asked for: drift of `docker inspect`, by the names of `docker run`'s options.

Compared is everything that `docker inspect` shows, so that an option that a later Docker brings is seen as well. What
is unset reads `null`, `[]`, `""` or `0`, as the version pleases; other defaults are listed here.

Sources: the Engine API's 'Inspect a container', v1.23 (Docker 1.11) to v1.43; types/container/host_config.go of
docker/engine-api 0.3 (1.11); cli/command/container/opts.go and daemon/logger of Docker; the recorded answers of 20.10.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

NOT_SHOWN = "(not shown)"
"""What stands for a value that may be a secret, such as that of a variable of which nothing is known."""


@dataclass(frozen=True)
class Daemon:
    """What a host's Docker gives to containers that ask for nothing: log driver, runtime, and (as `text`) its settings
    and command line, in which log options may stand. `proxies`: its client adds variables for a proxy."""

    log_driver: str = "json-file"
    runtime: str = "runc"
    text: str = ""
    proxies: bool = False


@dataclass(frozen=True)
class Asked:
    """What is asked for, as far as it cannot be read from the container: its variables' names."""

    environment: frozenset[str] = frozenset()
    shown: frozenset[str] = frozenset()
    """The variables whose values are no secret."""


Pair = tuple[str, str]
"""What a field is, and what it should be; `-` stands for nothing."""


def differences(
    inspected: Mapping[str, Any], image: Mapping[str, Any] | None, asked: Asked, daemon: Daemon | None = None
) -> dict[str, Pair]:
    """What differs from a container that asks for a name, an image, a restart policy, a command and its variables, TCP
    ports and folders of the host only; those themselves are left to the caller.

    `image` is the `Config` of the container's own image; without one, what an image may bring is not compared.
    """
    daemon = daemon or Daemon()
    host, config = inspected.get("HostConfig") or {}, inspected.get("Config") or {}
    found = dict(_of_host(host, daemon))
    found |= dict(_networks(inspected, host))
    hostname = config.get("Hostname") or ""
    if hostname and not inspected["Id"].startswith(hostname) and not _host_name_is_the_hosts(host):
        found["hostname"] = (hostname, "-")
    if image is not None:
        found |= dict(_of_image(config, image))
        found |= dict(_variables(config, image, asked, daemon))
        found |= dict(_ports(config, host, image))
        found |= dict(_volumes(inspected, host, image))
    return found


# HostConfig

_ELSEWHERE = frozenset(
    {
        *("Binds", "Mounts", "PortBindings", "RestartPolicy"),
        *("LogConfig", "Runtime", "MaskedPaths", "ReadonlyPaths"),
    }
)
"""Compared by the caller, or by themselves below."""
_OF_THE_CLIENT = frozenset({"ContainerIDFile", "ConsoleSize"})
"""Where the client wrote the id, and how large its terminal was."""
_DEFAULTS: Mapping[str, tuple[Any, ...]] = {
    "NetworkMode": ("default", "bridge"),
    "IpcMode": ("private", "shareable"),  # by the daemon's default-ipc-mode; before 18.03 empty
    "CgroupnsMode": ("host", "private"),  # by the daemon's default: cgroup v1, cgroup v2
    "ShmSize": (64 << 20,),
    "MemorySwappiness": (-1,),
    "PidsLimit": (-1,),
    "Isolation": ("default",),
}
_ZERO_COUNTS = frozenset({"MemorySwappiness"})
"""Where 0 is a setting: unset is null or -1."""
_OPTIONS: Mapping[str, str] = {
    "NetworkMode": "network",
    "PidMode": "pid",
    "IpcMode": "ipc",
    "UTSMode": "uts",
    "UsernsMode": "userns",
    "CgroupnsMode": "cgroupns",
    "ReadonlyRootfs": "read-only",
    "Devices": "device",
    "DnsOptions": "dns-option",
    "ExtraHosts": "add-host",
    "AutoRemove": "rm",
    "PublishAllPorts": "publish-all",
    "Links": "link",
    "NanoCpus": "cpus",
    "Ulimits": "ulimit",
    "Sysctls": "sysctl",
    "Tty": "tty",
    "OpenStdin": "interactive",
    "WorkingDir": "workdir",
}
"""The option that sets a field, where it is not the field's own name."""
_BYTES = frozenset({"Memory", "MemoryReservation", "MemorySwap", "KernelMemory", "KernelMemoryTCP", "ShmSize"})


def _option(field: str) -> str:
    return _OPTIONS.get(field) or re.sub(r"(?<=[a-z])(?=[A-Z])", "-", field).lower()


def _of_host(host: Mapping[str, Any], daemon: Daemon) -> Iterator[tuple[str, Pair]]:
    for field, value in host.items():
        if field in _ELSEWHERE | _OF_THE_CLIENT or _unset(field, value) or value in _DEFAULTS.get(field, ()):
            continue
        if field == "MemorySwap" and host.get("Memory") and value in (-1, 2 * host["Memory"]):
            continue  # what follows from --memory alone
        yield _option(field), (_shown(field, value), "-")
    # A list is the version's own. null: of a privileged container, or of one that a Docker before 18.09 made.
    if [] in (host.get("MaskedPaths"), host.get("ReadonlyPaths")):
        yield "security-opt systempaths", ("unconfined", "-")
    runtime = host.get("Runtime")
    if runtime and runtime not in ("runc", "docker-runc", daemon.runtime):
        yield "runtime", (runtime, "-")
    log = host.get("LogConfig") or {}
    if log.get("Type") not in (None, "", "json-file", daemon.log_driver):
        yield "log-driver", (log["Type"], "-")
    for option in log.get("Config") or {}:
        if option not in daemon.text:
            yield f"log-opt {option}", (NOT_SHOWN, "-")


def _unset(field: str, value: Any) -> bool:
    if field in _ZERO_COUNTS:
        return value is None
    return value in (None, "", 0, False) or value in ([], {})


def _shown(field: str, value: Any) -> str:
    if field in _BYTES and isinstance(value, int) and value > 0:
        return f"{value / 2**20:g} MiB"
    if field == "NanoCpus":
        return f"{value / 1e9:g}"
    if field == "Devices":
        return ", ".join(":".join(map(str, one.values())) for one in value)
    if field == "Ulimits":
        return ", ".join(f"{one['Name']}={one['Soft']}:{one['Hard']}" for one in value)
    if value is True:
        return "yes"
    if isinstance(value, list) and all(isinstance(one, str) for one in value):
        return ", ".join(value)
    if isinstance(value, dict) and all(isinstance(one, str) for one in value.values()):
        return ", ".join(f"{key}={one}" if one else key for key, one in value.items())
    return value if isinstance(value, str) else json.dumps(value)


def _networks(inspected: Mapping[str, Any], host: Mapping[str, Any]) -> Iterator[tuple[str, Pair]]:
    """Networks that it was connected to besides its own (`docker network connect`)."""
    if host.get("NetworkMode") in (None, "", *_DEFAULTS["NetworkMode"]):
        for name in (inspected.get("NetworkSettings") or {}).get("Networks") or ():
            if name != "bridge":
                yield f"network {name}", ("connected", "-")


def _host_name_is_the_hosts(host: Mapping[str, Any]) -> bool:
    return "host" in (host.get("NetworkMode"), host.get("UTSMode"))


# Config

_OF_CONFIG = frozenset(
    {
        *("Hostname", "Image", "Env", "Cmd", "ExposedPorts", "Volumes", "Labels"),  # compared elsewhere
        *("AttachStdin", "AttachStdout", "AttachStderr", "StdinOnce"),  # what the client did that made it
        *("OnBuild", "Shell", "ArgsEscaped"),  # of images alone
    }
)


def _of_image(config: Mapping[str, Any], image: Mapping[str, Any]) -> Iterator[tuple[str, Pair]]:
    for field, value in config.items():
        # what an image has of these are leftovers of the container that it was built in
        theirs = "" if field in ("Domainname", "MacAddress", "Tty", "OpenStdin") else image.get(field)
        if field in _OF_CONFIG or _plain(field, value) == _plain(field, theirs):
            continue
        wanted = "-" if _unset(field, theirs) else _text(field, theirs)
        yield _option(field), ("-" if _unset(field, value) else _text(field, value), wanted)
    own, theirs = config.get("Labels") or {}, image.get("Labels") or {}
    for name in sorted(own.keys() | theirs.keys()):
        if own.get(name) != theirs.get(name):
            yield f"label {name}", (own.get(name, "-"), theirs.get(name, "-"))


_PLAIN: Mapping[str, Callable[[Any], Any]] = {
    "WorkingDir": lambda value: (value or "").rstrip("/"),
    # a client before 17.06 names the default
    "StopSignal": lambda value: "" if str(value) in ("SIGTERM", "15") else value,
}


def _plain(field: str, value: Any) -> Any:
    value = _PLAIN[field](value) if field in _PLAIN else value
    return None if _unset(field, value) else value


def _text(field: str, value: Any) -> str:
    if field == "Entrypoint" and isinstance(value, list):
        return shlex.join(value)
    return _shown(field, value)


_OF_A_PROXY = re.compile(r"(https?|ftp|no|all)_proxy$", re.IGNORECASE)


def _variables(
    config: Mapping[str, Any], image: Mapping[str, Any], asked: Asked, daemon: Daemon
) -> Iterator[tuple[str, Pair]]:
    own, theirs = variables(config), variables(image)
    for name in sorted(own.keys() - asked.environment):
        if own[name] == theirs.get(name) or (daemon.proxies and _OF_A_PROXY.match(name)):
            continue
        yield f"env {name}", (own[name] if name in asked.shown else NOT_SHOWN, "the image's" if name in theirs else "-")
    for name in sorted(theirs.keys() - own.keys() - asked.environment):
        yield f"env {name}", ("-", "the image's")


def variables(config: Mapping[str, Any]) -> dict[str, str]:
    """The variables of a container's or an image's `Config`."""
    return dict(one.split("=", 1) for one in config.get("Env") or () if "=" in one)


def _ports(config: Mapping[str, Any], host: Mapping[str, Any], image: Mapping[str, Any]) -> Iterator[tuple[str, Pair]]:
    known = {*(host.get("PortBindings") or ()), *(image.get("ExposedPorts") or ())}
    for port in config.get("ExposedPorts") or ():
        if port not in known:
            yield f"expose {port}", ("yes", "-")


def _volumes(
    inspected: Mapping[str, Any], host: Mapping[str, Any], image: Mapping[str, Any]
) -> Iterator[tuple[str, Pair]]:
    """What is mounted without a folder of the host: anonymous volumes, and those of another container."""
    known = {*(image.get("Volumes") or ()), *(mount["Target"] for mount in host.get("Mounts") or ())}
    known |= {bind.split(":")[1] for bind in host.get("Binds") or () if ":" in bind}
    known = {path.rstrip("/") for path in known}
    for mount in inspected.get("Mounts") or ():
        if mount["Destination"].rstrip("/") not in known:
            yield f"volume {mount.get('Name') or mount.get('Source', '')}", (mount["Destination"], "-")
