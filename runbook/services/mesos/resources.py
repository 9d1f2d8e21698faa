"""The values of Mesos: scalars, ranges and sets, as flags give them and as the state reports them.

Sources: Mesos' documentation, 'Mesos Attributes & Resources' (the grammar of `--resources` and `--attributes`);
`src/common/values.cpp`, `src/common/resources.cpp` and `src/common/attributes.cpp` (what counts as equal).
"""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

_SPAN = re.compile(r"(\d+)\s*-\s*(\d+)")
_SPANS = re.compile(r"(?:\s*\d+\s*-\s*\d+\s*(?:,\s*\d+\s*-\s*\d+\s*)*)?")
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?")


class Ranges:
    """A set of whole numbers as ranges, in Mesos' normal form: in order, none touching the next.

    Both ends of a range belong to it. `runbook.values.PortRanges` is what an operator may write in a parameter file;
    this is what Mesos may answer, with the arithmetic of sets. `Ranges(port_ranges.spans)` makes one of the other.
    """

    __slots__ = ("_size", "spans")

    def __init__(self, spans: Iterable[tuple[int, int]] = ()) -> None:
        joined: list[tuple[int, int]] = []
        for begin, end in sorted(spans):
            if begin > end:
                raise ValueError(f"the range {begin}-{end} begins after its end")
            if joined and begin <= joined[-1][1] + 1:
                joined[-1] = joined[-1][0], max(joined[-1][1], end)
            else:
                joined.append((begin, end))
        self.spans = tuple(joined)
        self._size = sum(end - begin + 1 for begin, end in joined)

    @classmethod
    def parse(cls, text: str | None) -> Ranges:
        """Ranges from `[8401-8599, 8601-9100]`; None (Mesos leaves out what is empty) and `[]` are no numbers.

        Raises ValueError for any other text.
        """
        if text is None:
            return _NOTHING
        bare = text.strip()
        if bare[:1] == "[" and bare[-1:] == "]":
            bare = bare[1:-1].strip()
        if not _SPANS.fullmatch(bare):
            raise ValueError(f"{text!r} is not a list of ranges such as [8401-8599, 8601-9100]")
        return cls((int(begin), int(end)) for begin, end in _SPAN.findall(text))

    def __str__(self) -> str:
        """As Mesos writes it, with a blank after each comma."""
        return f"[{', '.join(f'{begin}-{end}' for begin, end in self.spans)}]"

    def __repr__(self) -> str:
        return f"Ranges.parse({str(self)!r})"

    def __eq__(self, other: object) -> bool:
        return self.spans == other.spans if isinstance(other, Ranges) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.spans)

    def __len__(self) -> int:
        """How many numbers there are."""
        return self._size

    def __iter__(self) -> Iterator[int]:
        for begin, end in self.spans:
            yield from range(begin, end + 1)

    def __contains__(self, number: object) -> bool:
        if not isinstance(number, int):
            return False
        place = bisect_right(self.spans, number, key=lambda span: span[0]) - 1
        return place >= 0 and number <= self.spans[place][1]

    def __or__(self, other: Ranges) -> Ranges:
        return Ranges((*self.spans, *other.spans))

    def __and__(self, other: Ranges) -> Ranges:
        return self - (self - other)

    def __sub__(self, other: Ranges) -> Ranges:
        left: list[tuple[int, int]] = []
        cuts = list(other.spans)
        for begin, end in self.spans:
            while cuts and cuts[0][1] < begin:
                cuts.pop(0)
            for cut_begin, cut_end in cuts:
                if cut_begin > end:
                    break
                if begin < cut_begin:
                    left.append((begin, cut_begin - 1))
                begin = cut_end + 1
            if begin <= end:
                left.append((begin, end))
        return Ranges(left)


_NOTHING = Ranges()

Value = float | Ranges | frozenset[str]
"""A resource's value: SCALAR, RANGES or SET."""

Resources = Mapping[tuple[str, str], Value]
"""Values by name and role; role `*` is for everybody."""


def parse_value(text: str) -> Value | str:
    """A value by its look: `[1-2]` ranges, `{a,b}` a set, a number a scalar, and anything else text."""
    text = text.strip()
    if text.startswith("["):
        return Ranges.parse(text)
    if text.startswith("{") and text.endswith("}"):
        return frozenset(item.strip() for item in text[1:-1].split(",") if item.strip())
    return scalar(float(text)) if _NUMBER.fullmatch(text) else text


def scalar(number: float) -> float:
    """A scalar as Mesos compares it: to three decimals."""
    return round(float(number), 3)


def parse_resources(text: str | None, default_role: str = "*") -> dict[tuple[str, str], Value]:
    """What a `--resources` flag (or the file `/etc/mesos-slave/resources`) offers.

    `cpus:4;mem(prod):1024;ports:[8401-8599,8601-9100]`, separated by `;` or line ends, or the JSON form: a list of
    Resource objects. What is named twice for one role is added up, and what is empty is left out, as Mesos does it.
    Raises ValueError where Mesos would refuse the flag.
    """
    text = (text or "").strip()
    if text.startswith("[") and text.endswith("]"):
        return resources_of_json(json.loads(text), default_role)
    found: dict[tuple[str, str], Value] = {}
    for part in re.split(r"[;\n]", text):
        if not part.strip():
            continue
        name, colon, value_text = part.partition(":")
        match = re.fullmatch(r"\s*([^()\s]+)\s*(?:\(\s*([^()]+?)\s*\))?\s*", name)
        value = parse_value(value_text)
        if not colon or match is None or isinstance(value, str):
            raise ValueError(f"{part.strip()!r} is not a resource such as cpus:4 or ports:[8401-8599,8601-9100]")
        _add(found, (match[1], match[2] or default_role), value)
    return found


def resources_of_json(items: Iterable[Mapping[str, Any]], default_role: str = "*") -> dict[tuple[str, str], Value]:
    """Resources from Resource objects: the JSON form of the flag, and `*_resources_full` of `/master/slaves`."""
    found: dict[tuple[str, str], Value] = {}
    for item in items:
        _add(found, (str(item["name"]), str(item.get("role", default_role))), value_of_json(item))
    return found


def value_of_json(item: Mapping[str, Any]) -> Value:
    """The value of one Resource (or Attribute other than text) in the JSON form of its protobuf message."""
    match str(item["type"]):
        case "SCALAR":
            return scalar(item["scalar"]["value"])
        case "RANGES":
            return Ranges((int(span["begin"]), int(span["end"])) for span in item["ranges"].get("range", ()))
        case "SET":
            return frozenset(map(str, item["set"].get("item", ())))
        case kind:
            raise ValueError(f"{item['name']}: a resource of type {kind}")


def parse_attributes(text: str | None) -> dict[str, Value | str]:
    """What an `--attributes` flag says: `rack:r1;level:3`, separated by `;` or line ends.

    Raises ValueError where Mesos would end on the flag.
    """
    found: dict[str, Value | str] = {}
    for part in re.split(r"[;\n]", text or ""):
        if not part.strip():
            continue
        name, colon, value = part.partition(":")
        if not colon or not name.strip() or not value.strip():
            raise ValueError(f"{part.strip()!r} is not an attribute such as rack:r1")
        found[name.strip()] = parse_value(value)
    return found


def show(value: Value | str) -> str:
    """A value as a person reads it and as a flag takes it."""
    match value:
        case float():
            return f"{value:.3f}".rstrip("0").rstrip(".")
        case frozenset():
            return f"{{{', '.join(sorted(value))}}}"
        case _:
            return str(value)


def _add(found: dict[tuple[str, str], Value], key: tuple[str, str], value: Value) -> None:
    match found.get(key), value:
        case None, _:
            total = value
        case float(before), float(more):
            total = scalar(before + more)
        case Ranges() as before, Ranges() as more:
            total = before | more
        case frozenset() as before, frozenset() as more:
            total = before | more
        case _:
            raise ValueError(f"{key[0]} is given with two types of value")
    if total:  # 0, [] and {} are no resource
        found[key] = total
