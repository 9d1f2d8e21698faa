"""Foresees 'Incompatible slave info detected': whether a slave that registered before would start with other flags.

A slave keeps what it registered with (SlaveInfo) under `<work_dir>/meta/slaves/latest`. When it starts again on the
same boot of the host, it compares that with what its flags now say, and exits with status 1 where they differ in
hostname, port, resources or attributes. The order in which resources are written does not matter. What is not named in
`--resources` is detected on the host, so that more memory or a grown disk has the same effect as an edited file.

The remedy is to remove `<work_dir>/meta/slaves/latest`, and nothing else: the slave then registers under a new id. Its
tasks are lost to Mesos, **but their executors go on running** until somebody ends them.

Sources: recorded from Mesos 0.28.0 (slave-incompatible-*.log); `src/slave/slave.cpp` (Slave::recover, Slave::_recover),
`src/common/type_utils.cpp` (equality of SlaveInfo), `src/slave/containerizer/containerizer.cpp` (what is detected).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from runbook.services.mesos.resources import (
    Ranges,
    Resources,
    Value,
    parse_attributes,
    parse_resources,
    resources_of_json,
    scalar,
    show,
    value_of_json,
)

DEFAULT_PORT = 5051
DEFAULT_PORTS = Ranges([(31000, 32000)])
_DETECTED = ("cpus", "mem", "disk", "ports")
_MEGABYTE = 1 << 20
_GIGABYTE = 1 << 30


@dataclass(frozen=True)
class Machine:
    """What a slave detects on its host: processors online, bytes of memory, and bytes of its work_dir's file system."""

    cpus: int
    memory: int
    disk: int

    @staticmethod
    def probe(work_dir: str) -> str:
        """The sh text that prints what `parse` reads. `work_dir` must be quoted for the shell already.

        The nearest folder that exists stands for a work_dir that does not, as they share the file system.
        """
        return (
            f"d={work_dir}\n"
            'while [ ! -d "$d" ]; do d=$(dirname "$d"); done\n'
            "getconf _NPROCESSORS_ONLN\n"
            "awk '/^MemTotal:/ {print $2}' /proc/meminfo\n"
            "stat -f -c '%b %S' \"$d\"\n"
        )

    @classmethod
    def parse(cls, printed: str) -> Machine:
        """Read what `probe` printed. Raises ValueError where that is something else."""
        cpus, kilobytes, blocks, block_size = map(int, printed.split())
        return cls(cpus, kilobytes * 1024, blocks * block_size)

    def resources(self) -> dict[str, Value]:
        """What Mesos makes of it: all processors, memory less 1 GB, disk less 5 GB (in whole MB), its default ports.

        Of less than 2 GB of memory or 10 GB of disk, it takes half.
        """
        memory = self.memory - _GIGABYTE if self.memory >= 2 * _GIGABYTE else self.memory // 2
        disk = self.disk - 5 * _GIGABYTE if self.disk >= 10 * _GIGABYTE else self.disk // 2
        return {
            "cpus": scalar(self.cpus),
            "mem": scalar(memory // _MEGABYTE),
            "disk": scalar(disk // _MEGABYTE),
            "ports": DEFAULT_PORTS,
        }


@dataclass(frozen=True)
class SlaveInfo:
    """What a slave registers with.

    `id` is empty for one that never registered. `hostname` is None where no flag gives it and the slave looks it up.
    `detected` names the resources that come from the host and not from a flag, where that is known.
    """

    hostname: str | None
    port: int
    resources: Resources
    attributes: Mapping[str, Value | str] = field(default_factory=dict)
    id: str = ""
    detected: frozenset[str] = frozenset()

    RECOVERY: ClassVar[re.Pattern[str]] = re.compile(
        r"Incompatible (?:slave|agent) info detected.*?Old (?:slave|agent) info:(.*?)-{10,}"
        r".*?New (?:slave|agent) info:(.*?)-{10,}",
        re.DOTALL,
    )

    @classmethod
    def wanted(cls, flags: Mapping[str, str], machine: Machine) -> SlaveInfo:
        """What a slave with these flags would register with on this machine.

        `flags`: by name without dashes, as the files in `/etc/mesos-slave` are named (`resources`, `attributes`,
        `hostname`, `port`, `default_role`). Raises ValueError where Mesos would refuse them.
        """
        role = flags.get("default_role", "*").strip()
        given = flags.get("resources")
        resources = parse_resources(given, role)
        # Mesos looks for the name anywhere in the flag's text, so 'mem:0' offers none and is not detected either
        detected = frozenset(name for name in _DETECTED if name not in (given or ""))
        found = machine.resources()
        resources.update({(name, role): found[name] for name in detected})
        port = int(flags.get("port", DEFAULT_PORT))
        hostname = flags.get("hostname")
        return cls(
            hostname.strip() if hostname else None,
            port,
            resources,
            parse_attributes(flags.get("attributes")),
            detected=detected,
        )

    @classmethod
    def of_state(cls, state: Mapping[str, Any]) -> SlaveInfo:
        """What a slave that runs has registered with, from its `/slave(1)/state`.

        The roles are those of its flags, because the state adds resources up over all roles.
        """
        flags = state["flags"]
        role = flags.get("default_role", "*")
        given = flags.get("resources")
        resources = parse_resources(given, role)
        detected = frozenset(name for name in _DETECTED if name not in (given or ""))
        for name in detected & state["resources"].keys():
            value = state["resources"][name]
            resources[name, role] = Ranges.parse(value) if name == "ports" else scalar(value)
        return cls(
            state["hostname"],
            int(state["pid"].rpartition(":")[2]),
            resources,
            parse_attributes(flags.get("attributes")),
            state.get("id", ""),
            detected,
        )

    @classmethod
    def of_log(cls, log: str) -> tuple[SlaveInfo, SlaveInfo] | None:
        """The old and the new info that a slave printed when it refused to start: its last refusal in this log.

        `log` is what it wrote to standard error, with or without what syslog puts before each line. None where it
        never refused.
        """
        bare = re.sub(r"^.*?mesos-(?:slave|agent)(?:\[\d+\])?: ?", "", log, flags=re.MULTILINE)
        refusals = cls.RECOVERY.findall(bare)
        if not refusals:
            return None
        old, new = refusals[-1]
        return cls._of_text_proto(old), cls._of_text_proto(new)

    @classmethod
    def _of_text_proto(cls, text: str) -> SlaveInfo:
        message = _read_text_proto(text)
        return cls(
            message["hostname"][0],
            int(message.get("port", [DEFAULT_PORT])[0]),
            resources_of_json(_resource(item) for item in message.get("resources", [])),
            {item["name"][0]: _attribute(item) for item in message.get("attributes", [])},
            message["id"][0]["value"][0] if "id" in message else "",
        )


@dataclass(frozen=True)
class Difference:
    """One reason for which Mesos would refuse to start the slave; `detected` where the host, not a flag, brought it."""

    what: str  # hostname, port, attribute rack, resource ports, resource mem(prod)
    stored: str  # empty: there was none
    wanted: str  # empty: there is to be none
    detected: bool = False

    def __str__(self) -> str:
        change = f"{self.what}: {self.stored or '(none)'} -> {self.wanted or '(none)'}"
        return f"{change} (detected on the host; name it in resources to keep it)" if self.detected else change


def incompatible(stored: SlaveInfo, wanted: SlaveInfo) -> list[Difference]:
    """Every difference for which Mesos 0.28 refuses to start a slave with `wanted` after it registered as `stored`.

    Empty where it would start: nothing differs, or it never registered. A hostname that the slave looks up itself is
    taken to be unchanged. Not asked here: a host that booted since the slave last ran skips the comparison (until Mesos
    1.4), and from 1.5 on `--reconfiguration_policy=additive` allows more.
    """
    if not stored.id:
        return []
    differences = []
    if wanted.hostname is not None and wanted.hostname != stored.hostname:
        differences.append(Difference("hostname", stored.hostname or "", wanted.hostname))
    if wanted.port != stored.port:
        differences.append(Difference("port", str(stored.port), str(wanted.port)))
    for name, role in sorted(stored.resources.keys() | wanted.resources.keys()):
        before, after = stored.resources.get((name, role)), wanted.resources.get((name, role))
        if before != after:
            what = f"resource {name}" if role == "*" else f"resource {name}({role})"
            differences.append(Difference(what, _shown(before), _shown(after), name in wanted.detected))
    for name in sorted(stored.attributes.keys() | wanted.attributes.keys()):
        was, is_to_be = stored.attributes.get(name), wanted.attributes.get(name)
        if was != is_to_be:
            differences.append(Difference(f"attribute {name}", _shown(was), _shown(is_to_be)))
    return differences


def _shown(value: Value | str | None) -> str:
    return "" if value is None else show(value)


def _resource(item: Mapping[str, Any]) -> dict[str, Any]:
    """A Resource of a text-format message in its JSON form: fields that are not repeated stand alone."""
    found: dict[str, Any] = {"name": item["name"][0], "type": item["type"][0]}
    if "role" in item:
        found["role"] = item["role"][0]
    match found["type"]:
        case "SCALAR":
            found["scalar"] = {"value": item["scalar"][0]["value"][0]}
        case "RANGES":
            spans = item["ranges"][0].get("range", [])
            found["ranges"] = {"range": [{"begin": span["begin"][0], "end": span["end"][0]} for span in spans]}
        case "SET":
            found["set"] = item["set"][0]
    return found


def _attribute(item: Mapping[str, Any]) -> Value | str:
    if item["type"][0] == "TEXT":
        return str(item["text"][0]["value"][0])
    return value_of_json(_resource(item))


_TOKEN = re.compile(r'(\w+)\s*(?::\s*("(?:[^"\\]|\\.)*"|[^\s{}]+)|(\{))|(\})')


def _read_text_proto(text: str) -> dict[str, list[Any]]:
    """A message in protobuf's text format as nested dictionaries; every field is a list of its occurrences."""
    message: dict[str, list[Any]] = {}
    above: list[dict[str, list[Any]]] = []
    for name, value, opens, closes in _TOKEN.findall(text):
        if closes:
            message = above.pop()
        elif opens:
            above.append(message)
            inner: dict[str, list[Any]] = {}
            message.setdefault(name, []).append(inner)
            message = inner
        else:
            message.setdefault(name, []).append(_unquoted(value))
    return message


def _unquoted(value: str) -> str:
    return re.sub(r"\\(.)", r"\1", value[1:-1]) if value.startswith('"') else value
