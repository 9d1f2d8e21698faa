"""Which fields Marathon drops, by its recorded schemas."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from runbook.services.marathon.fields import ANYTHING, RECORDED, STATE, dropped, fields_of, unusual, without

Json = dict[str, Any]
SCHEMAS = Path(__file__).parents[1] / "payloads" / "marathon"

# examples/Docker.json of Marathon, in every version
DOCKER: Json = {
    "container": {
        "type": "DOCKER",
        "docker": {"image": "libmesos/ubuntu"},
        "forcePullImage": False,
        "volumes": [
            {"containerPath": "/etc/a", "hostPath": "/var/data/a", "mode": "RO"},
            {"containerPath": "/etc/b", "hostPath": "/var/data/b", "mode": "RW"},
        ],
    },
    "id": "ubuntu",
    "instances": 1,
    "cpus": 0.5,
    "mem": 512,
    "cmd": "while sleep 10; do date -u +%T; done",
}


def recorded_paths(version: str) -> set[str]:
    """The paths of the fields in the recorded schemas of a version."""
    found: set[str] = set()
    for file in sorted((SCHEMAS / version / "schema").glob("App*.json")):
        schema = json.loads(file.read_text(encoding="utf-8"))
        found |= set(_paths(schema, schema.get("definitions", {}), (), ()))
    return {path for path in found if path.partition(".")[0] not in STATE}


def _paths(schema: Any, definitions: Json, path: tuple[str, ...], through: tuple[str, ...]) -> Iterator[str]:
    if not isinstance(schema, dict):
        return
    if "$ref" in schema:
        name = schema["$ref"].removeprefix("#/definitions/")
        if name not in through:
            yield from _paths(definitions[name], definitions, path, (*through, name))
    for kind in ("anyOf", "oneOf", "allOf"):
        for one in schema.get(kind, ()):
            yield from _paths(one, definitions, path, through)
    items = schema.get("items", ())
    for one in items if isinstance(items, list) else [items]:
        yield from _paths(one, definitions, path, through)
    for name, inner in schema.get("properties", {}).items():
        yield ".".join((*path, name))
        yield from _paths(inner, definitions, (*path, name), through)
    free = schema.get("additionalProperties") or schema.get("patternProperties")
    if path and (free or (schema.get("type") == "object" and not schema.get("properties") and "items" not in schema)):
        yield ".".join((*path, ANYTHING))


def test_the_table_is_that_of_the_recorded_schemas() -> None:
    for version in RECORDED:
        assert fields_of(version) == recorded_paths(version)


BEYOND: Json = {
    "id": "a",
    "cmd": "x",
    "gpus": 1,
    "instnces": 3,
    "env": {"ANY": "1"},
    "labels": {"a.b": "1"},
    "healthChecks": [{"protocol": "TCP"}, {"protocol": "TCP", "delaySeconds": 5, "grace": None, "retry": 1}],
    "container": {"docker": {"image": "a:1", "pullConfig": {"secret": "s"}}, "volumes": [{"hostPth": "/a"}]},
    "secrets": {"s": {"source": "/s"}},
    "tasksRunning": 3,
}
ALWAYS = ("instnces", "healthChecks[1].retry", "container.volumes[0].hostPth")


@pytest.mark.parametrize("version", ["1.1.1", "1.3.0", "1.4.13", "1.5.0", "1.6.590", "1.9.124", "1.11.24", "2.0", "?"])
def test_a_misplaced_field_is_dropped_by_every_version(version: str) -> None:
    assert dropped(DOCKER, version) == ("container.forcePullImage",)
    assert set(ALWAYS) <= set(dropped(BEYOND, version))


@pytest.mark.parametrize(
    ("version", "more"),
    [
        ("1.1.1", ("gpus", "healthChecks[1].delaySeconds", "container.docker.pullConfig", "secrets")),
        ("1.1.7", ("gpus", "healthChecks[1].delaySeconds", "container.docker.pullConfig", "secrets")),
        ("1.2.0", ("container.docker.pullConfig",)),  # between 1.1.1 and 1.4.13: what neither has
        ("1.4.1", ("container.docker.pullConfig",)),
        ("1.5.0", ()),
        ("1.11.24", ()),
    ],
)
def test_a_field_is_dropped_by_versions_that_do_not_have_it(version: str, more: tuple[str, ...]) -> None:
    found = set(dropped(BEYOND, version))
    below = {name for name in found if name.startswith(tuple(f"{field}." for field in more))}
    assert found - below == {*ALWAYS, *more}
    assert unusual(BEYOND)


def test_the_rest_stays() -> None:
    assert without(DOCKER, dropped(DOCKER, "1.1.1"))["container"].keys() == {"type", "docker", "volumes"}
    kept = without(BEYOND, dropped(BEYOND, "1.1.1"))
    assert kept["healthChecks"] == [{"protocol": "TCP"}, {"protocol": "TCP", "grace": None}]
    assert kept["container"] == {"docker": {"image": "a:1"}, "volumes": [{}]}
    assert (kept["env"], kept["labels"]) == (BEYOND["env"], BEYOND["labels"])


def test_a_usual_definition_does_not_depend_on_the_version() -> None:
    assert not unusual({name: value for name, value in DOCKER.items() if name != "container"})
    assert unusual(DOCKER)


@pytest.mark.parametrize("version", RECORDED)
def test_nothing_of_a_documented_app_is_dropped(version: str) -> None:
    """But two fields that the documentation of 1.1.1 has and ReadinessCheckFormat (Formats.scala) does not read."""
    known = {"readinessChecks[0].interval", "readinessChecks[0].timeout"} if version == "1.1.1" else set()
    for file in sorted((SCHEMAS / version).glob("app*.json")):
        answer = json.loads(file.read_text(encoding="utf-8"))
        for app in answer["apps"] if "apps" in answer else [answer.get("app", answer)]:
            assert set(dropped(app, version)) <= known, file
