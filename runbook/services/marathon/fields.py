"""Which fields of an app each version of Marathon has: what else a definition holds is dropped without a word.

Marathon reads the fields that it has and ignores the others, such as one that stands a level too high
(`container.forcePullImage` of its own examples/Docker.json) or that a later version brought (`gpus`, `secrets`).

Source: the schemas of AppDefinition (requests) and App (answers) of Marathon 1.1.1, 1.4.13, 1.6.590 and 1.11, as they
are among the recorded payloads; `fields.json` is made from them (tests/unit/test_marathon_fields.py).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from typing import Any

RECORDED = ("1.1.1", "1.4.13", "1.6.590", "1.11")
"""The versions whose fields are known, oldest first."""
ANYTHING = "*"
"""Ends the path of a field whose keys are free, as those of `env`."""

STATE = frozenset(
    {"version", "versionInfo", "deployments", "lastTaskFailure", "readinessCheckResults", "taskStats", "tasksStats"}
    | {"tasks", "tasksStaged", "tasksRunning", "tasksHealthy", "tasksUnhealthy"}
)
"""Fields that tell of an app's state, or that Marathon sets."""


@cache
def fields_of(recorded: str) -> frozenset[str]:
    """The paths of the fields of a recorded version: `container.docker.image`, `healthChecks.path`, `env.*`."""
    table: dict[str, list[str]] = json.loads((files(__package__) / "fields.json").read_text(encoding="utf-8"))
    return frozenset(path for path, versions in table.items() if recorded in versions)


def dropped(app: dict[str, Any], version: str) -> tuple[str, ...]:
    """The fields of a definition that a version of Marathon drops: `container.forcePullImage`, `healthChecks[0].x`.

    Of a version between two recorded ones, only what neither of them has.
    """
    known = frozenset[str]().union(*map(fields_of, _nearest(version)))
    return tuple(shown for shown, path in _paths(app) if not _has(known, path))


def unusual(app: dict[str, Any]) -> bool:
    """Whether a definition has fields that some recorded version drops, so that the version matters."""
    return any(dropped(app, version) for version in RECORDED)


def without(app: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    """A definition without fields, which are named as `dropped` names them."""
    return _without(app, "", frozenset(names)) if names else app


def _nearest(version: str) -> tuple[str, ...]:
    """The recorded versions that stand for one: that of the same minor version, else those before and after it."""
    minor = _minor(version)
    same = tuple(recorded for recorded in RECORDED if _minor(recorded) == minor)
    before = tuple(recorded for recorded in RECORDED if _minor(recorded) < minor)[-1:]
    after = tuple(recorded for recorded in RECORDED if _minor(recorded) > minor)[:1]
    return same or before + after


def _minor(version: str) -> tuple[int, ...]:
    found = re.match(r"(\d+)\.(\d+)", version)
    return tuple(map(int, found.groups())) if found else (1, 1)


def _has(known: frozenset[str], path: tuple[str, ...]) -> bool:
    return ".".join(path) in known or any(".".join((*path[:n], ANYTHING)) in known for n in range(1, len(path)))


def _paths(value: Any, shown: str = "", path: tuple[str, ...] = ()) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Every field, as it is shown and as a path; what is below a list's items has the list's path."""
    if isinstance(value, dict):
        for name, inner in value.items():
            if inner is None or (not path and name in STATE):
                continue
            own = f"{shown}.{name}" if shown else str(name)
            yield own, (*path, str(name))
            yield from _paths(inner, own, (*path, str(name)))
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from _paths(item, f"{shown}[{number}]", path)


def _without(value: Any, shown: str, names: frozenset[str]) -> Any:
    if isinstance(value, dict):
        owns = {name: f"{shown}.{name}" if shown else str(name) for name in value}
        return {name: _without(inner, owns[name], names) for name, inner in value.items() if owns[name] not in names}
    if isinstance(value, list):
        return [_without(item, f"{shown}[{number}]", names) for number, item in enumerate(value)]
    return value
