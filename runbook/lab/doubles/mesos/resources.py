"""Resources of slaves, offers and tasks: scalars and ranges, in the forms in which Mesos shows them.

As a flag `cpus:2;ports:[8401-8599,8601-9100]`, in a log `ports(*):[8401-8599, 8601-9100]; cpus(*):2`, in `/state`
`{"cpus": 2.0, ..., "ports": "[8401-8599, 8601-9100]"}`, and in the scheduler API a list of typed resources.
"""

import json
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

Json = dict[str, Any]
Range = tuple[int, int]
Ranges = tuple[Range, ...]
GIGABYTE = 1024.0  # in MB, the unit of mem and disk


class ResourceError(Exception):
    """A text that is no resources; the message is for standard error."""


@dataclass(frozen=True)
class Resources:
    """A multiset of resources; the order of names is that in which they were given."""

    scalars: dict[str, float]
    ranges: dict[str, Ranges]
    order: tuple[str, ...]

    @classmethod
    def none(cls) -> "Resources":
        return cls({}, {}, ())

    @classmethod
    def parse(cls, text: str) -> "Resources":
        """From the text of `--resources`, the short form or a JSON array."""
        if text.lstrip().startswith("["):
            try:
                return cls.from_api(json.loads(text))
            except ValueError as error:
                raise ResourceError(f"Failed to parse resources '{text}': {error}") from error
        found: list[Json] = []
        for part in filter(None, (part.strip() for part in text.split(";"))):
            name, colon, value = part.partition(":")
            if not colon or ":" in value:
                raise ResourceError(f"Bad value for resources, missing or extra ':' in {part}")
            found.append(_typed(re.sub(r"\(.*\)$", "", name.strip()), value.strip(), part))
        return cls.from_api(found)

    @classmethod
    def from_api(cls, resources: Iterable[Json]) -> "Resources":
        scalars: dict[str, float] = {}
        ranges: dict[str, Ranges] = {}
        order: list[str] = []
        for resource in resources:
            name = resource["name"]
            if name not in order:
                order.append(name)
            if resource["type"] == "SCALAR":
                scalars[name] = round(scalars.get(name, 0.0) + float(resource["scalar"]["value"]), 6)
            elif resource["type"] == "RANGES":
                new = [(int(r["begin"]), int(r["end"])) for r in resource["ranges"].get("range", [])]
                ranges[name] = _merged([*ranges.get(name, ()), *new])
            else:
                raise ResourceError(f"The rehearsal double knows scalars and ranges only, not {resource['type']}")
        return cls(scalars, ranges, tuple(order))

    def to_api(self) -> list[Json]:
        """The list of the scheduler API and of `*_full` in `/slaves`; empty resources are left out."""
        found: list[Json] = []
        for name in self.order:
            if self.scalars.get(name):
                value: Json = {"type": "SCALAR", "scalar": {"value": self.scalars[name]}}
            elif self.ranges.get(name):
                pairs = [{"begin": begin, "end": end} for begin, end in self.ranges[name]]
                value = {"type": "RANGES", "ranges": {"range": pairs}}
            else:
                continue
            found.append({"name": name, "role": "*", **value})
        return found

    def to_state(self) -> Json:
        """The object of `/state`: cpus, disk and mem always, ranges as one string, where there are any."""
        shown: Json = {"cpus": 0.0, "disk": 0.0, "mem": 0.0} | self.scalars
        return shown | {name: show_ranges(ranges) for name, ranges in self.ranges.items() if ranges}

    def __str__(self) -> str:
        texts = {name: f"{value:g}" if value < 1e5 else f"{value:.0f}" for name, value in self.scalars.items()}
        texts |= {name: show_ranges(value) for name, value in self.ranges.items() if value}
        return "; ".join(f"{name}(*):{texts[name]}" for name in self.order if texts.get(name, "0") != "0")

    def __add__(self, other: "Resources") -> "Resources":
        return Resources.from_api(self.to_api() + other.to_api())

    def __sub__(self, other: "Resources") -> "Resources":
        scalars = {name: round(value - other.get(name), 6) for name, value in self.scalars.items()}
        ranges = {name: _without(value, other.ranges.get(name, ())) for name, value in self.ranges.items()}
        return Resources(scalars, ranges, self.order)

    def get(self, name: str) -> float:
        return self.scalars.get(name, 0.0)

    def contains(self, other: "Resources") -> bool:
        """Whether `other` fits into this."""
        fits = all(value <= self.get(name) + 1e-6 for name, value in other.scalars.items())
        return fits and all(not _without(v, self.ranges.get(name, ())) for name, v in other.ranges.items())

    def same(self, other: "Resources") -> bool:
        """Equality regardless of order, as between two starts of a slave."""
        return self.contains(other) and other.contains(self)

    def with_defaults(self, work_dir: str) -> "Resources":
        """A slave's total: what the flag names, then what Mesos detects of cpus, mem, disk, and the default ports."""
        disk = os.statvfs(work_dir)
        detected = {
            "cpus": float(os.cpu_count() or 1),
            "mem": _less(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**20, GIGABYTE),
            "disk": _less(disk.f_blocks * disk.f_frsize / 2**20, 5 * GIGABYTE),
        }
        missing = ";".join(f"{name}:{int(value)}" for name, value in detected.items() if name not in self.order)
        total = self + Resources.parse(missing)
        return total if "ports" in self.order else total + Resources.parse("ports:[31000-32000]")


def show_ranges(ranges: Ranges) -> str:
    return "[" + ", ".join(f"{begin}-{end}" for begin, end in ranges) + "]"


def attributes(text: str) -> list[Json]:
    """The attributes of `--attributes=rack:r1;disks:2` in the form of the scheduler API."""
    found = []
    for part in filter(None, (part.strip() for part in text.split(";"))):
        name, colon, value = part.partition(":")
        if not colon:
            raise ResourceError(f"Invalid attribute key:value pair '{part}'")
        if value.startswith("[") or re.fullmatch(r"[0-9.]+", value):
            found.append(_typed(name, value, part))
        else:
            found.append({"name": name, "type": "TEXT", "text": {"value": value}})
    return found


def show_attribute(attribute: Json) -> str | float:
    """The value of an attribute as `/state` shows it."""
    if attribute["type"] == "RANGES":
        pairs = attribute["ranges"]["range"]
        return show_ranges(tuple((pair["begin"], pair["end"]) for pair in pairs))
    value: str | float = attribute[attribute["type"].lower()]["value"]
    return value


def _typed(name: str, value: str, part: str) -> Json:
    try:
        if value.startswith("["):
            pairs = [pair.split("-") for pair in value.strip("[]").split(",")]
            ranges = [{"begin": int(begin), "end": int(end)} for begin, end in pairs]
            return {"name": name, "type": "RANGES", "ranges": {"range": ranges}}
        return {"name": name, "type": "SCALAR", "scalar": {"value": float(value)}}
    except ValueError as error:
        raise ResourceError(f"Failed to parse resource {name} value {value}: {part}") from error


def _merged(ranges: Iterable[Range]) -> Ranges:
    found: list[Range] = []
    for begin, end in sorted(ranges):
        if found and begin <= found[-1][1] + 1:
            found[-1] = (found[-1][0], max(found[-1][1], end))
        else:
            found.append((begin, end))
    return tuple(found)


def _without(ranges: Ranges, taken: Ranges) -> Ranges:
    left = list(ranges)
    for low, high in taken:
        pieces = [((b, min(e, low - 1)), (max(b, high + 1), e)) for b, e in left]
        left = [piece for pair in pieces for piece in pair if piece[0] <= piece[1]]
    return _merged(left)


def _less(total: float, reserved: float) -> float:
    return total - reserved if total > 2 * reserved else total / 2
