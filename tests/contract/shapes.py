"""The shape of recorded JSON: which fields there are, which are always there, and of which JSON types they are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

MAPS = ("flags", "attributes")
"""Objects whose keys are data: their values are compared, their keys are not."""

OPTIONAL = {
    *("ports", "discovery", "labels", "container"),  # a task has what its framework asked for
    *("volumes", "host_path", "port_mappings", "protocol", "parameters", "force_pull_image"),  # and so has a container
    *("environment", "location"),  # a discovery
    *("container_status", "healthy"),  # a status, by who reported it
    *("git_sha", "git_tag", "git_branch"),  # what the tree had from which it was built: git, a tag, neither
    *("attributes", "executor_ids", "unavailability"),  # an offer has those of its slave, where that has any
    *("frameworks.pid", "completed_frameworks.pid"),  # one of a driver has it, one of the HTTP API has not
    "reregistered_time",  # a slave or framework that came back
    *("cluster", "log_dir", "external_log_file", "principal"),  # by the flags
}
"""Fields, or `parent.field`, that may be there or not, whatever the recordings have; a recorded one keeps its type.

Source: the optional fields of `include/mesos/mesos.proto`, and the recorded payloads.
"""


@dataclass
class Shape:
    """What values at one place look like. Numbers are one type, as in JSON."""

    kinds: set[str] = field(default_factory=set)
    seen: int = 0
    fields: dict[str, Shape] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    elements: Shape | None = None

    @classmethod
    def of(cls, samples: Iterable[Any]) -> Shape:
        shape = cls()
        for sample in samples:
            shape.add(sample)
        return shape

    def add(self, value: Any, name: str = "") -> None:
        self.kinds.add(kind(value))
        if isinstance(value, dict):
            self.seen += 1
            for key, content in value.items():
                key = "*" if name in MAPS else key
                self.fields.setdefault(key, Shape()).add(content, key)
                self.counts[key] = self.counts.get(key, 0) + 1
        elif isinstance(value, list):
            self.elements = self.elements or Shape()
            for content in value:
                self.elements.add(content)

    def differences(self, value: Any, place: str = "$", name: str = "") -> Iterator[str]:
        """How `value` departs from the shape: other types, fields never recorded, fields that are missing."""
        if kind(value) not in self.kinds:
            yield f"{place} is {kind(value)}, recorded as {sorted(self.kinds)}"
        elif isinstance(value, dict):
            for key, content in value.items():
                known = self.fields.get("*" if name in MAPS else key)
                if known:
                    yield from known.differences(content, f"{place}.{key}", key)
                elif not optional(place, key) and name not in MAPS:
                    yield f"{place}.{key} was never recorded"
            for key, count in self.counts.items():
                if count == self.seen and key not in value and not optional(place, key) and key != "*":
                    yield f"{place}.{key} is missing"
        elif isinstance(value, list) and self.elements and self.elements.kinds:
            for number, content in enumerate(value):
                yield from self.elements.differences(content, f"{place}[{number}]")


def optional(place: str, key: str) -> bool:
    parent = place.rpartition(".")[2].partition("[")[0]
    return key in OPTIONAL or f"{parent}.{key}" in OPTIONAL


def kind(value: Any) -> str:
    if isinstance(value, bool):
        return "boolean"
    for types, name in (((int, float), "number"), (str, "string"), (dict, "object"), (list, "array")):
        if isinstance(value, types):
            return name
    return "null"
