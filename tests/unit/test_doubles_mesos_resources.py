"""Resources as the doubles count and show them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runbook.lab.doubles.mesos.resources import ResourceError, Resources, attributes, show_attribute

RECORDED = Path(__file__).parents[1] / "payloads" / "mesos-0.28.0" / "one-node"
ports = st.lists(st.tuples(st.integers(1, 500), st.integers(0, 20)).map(lambda p: (p[0], p[0] + p[1])), max_size=5)


def with_ports(ranges: list[tuple[int, int]]) -> Resources:
    pairs = [{"begin": begin, "end": end} for begin, end in ranges]
    return Resources.from_api([{"name": "ports", "type": "RANGES", "ranges": {"range": pairs}}])


def members(resources: Resources) -> set[int]:
    return {port for begin, end in resources.ranges.get("ports", ()) for port in range(begin, end + 1)}


@given(ports, ports)
def test_ranges_are_sets_of_ports(first: list[tuple[int, int]], second: list[tuple[int, int]]) -> None:
    a, b = with_ports(first), with_ports(second)
    assert members(a + b) == members(a) | members(b)
    assert members(a - b) == members(a) - members(b)
    assert a.contains(b) == (members(b) <= members(a))
    assert a.same(b) == (members(a) == members(b))


@given(st.lists(st.integers(1, 9999).map(lambda n: n / 1000), min_size=1, max_size=20))
def test_scalars_leave_no_dust(parts: list[float]) -> None:
    left = total = Resources.parse("cpus:500")
    for part in parts:
        left = left - Resources.parse(f"cpus:{part}")
    for part in parts:
        left = left + Resources.parse(f"cpus:{part}")
    assert left.get("cpus") == total.get("cpus")


def test_the_forms_in_which_mesos_shows_resources() -> None:
    """As the recorded slave with `ports:[8401-8599,8601-9100]` shows them."""
    found = Resources.parse("ports:[8401-8599,8601-9100];cpus:2;mem:23081;disk:252899")
    assert str(found) == "ports(*):[8401-8599, 8601-9100]; cpus(*):2; mem(*):23081; disk(*):252899"
    state = json.loads((RECORDED / "master_state.json").read_text(encoding="utf-8"))
    assert found.to_state() == state["slaves"][0]["resources"]
    lines = (RECORDED / "scheduler-v1.jsonl").read_text(encoding="utf-8").splitlines()
    offers = [entry["event"]["offers"] for entry in map(json.loads, lines) if "offers" in entry.get("event", {})]
    assert found.to_api() == offers[0]["offers"][0]["resources"]
    assert Resources.from_api(offers[0]["offers"][0]["resources"]).same(found)


def test_zero_ports_are_left_out_of_the_state() -> None:
    ports = Resources.parse("ports:[1-2]")
    assert (ports - ports).to_state() == {"cpus": 0.0, "disk": 0.0, "mem": 0.0}


def test_a_slave_completes_what_its_flag_leaves_out(tmp_path: Path) -> None:
    total = Resources.parse("ports:[8400-9100]").with_defaults(str(tmp_path))
    assert total.order == ("ports", "cpus", "mem", "disk")
    assert total.get("cpus") >= 1
    assert total.get("mem") == int(total.get("mem")) > 0
    assert Resources.none().with_defaults(str(tmp_path)).ranges["ports"] == ((31000, 32000),)


def test_json_is_taken_too() -> None:
    text = '[{"name": "cpus", "type": "SCALAR", "scalar": {"value": 3}}]'
    assert Resources.parse(text).get("cpus") == 3


@pytest.mark.parametrize("text", ["cpus", "cpus:a", "ports:[1]", "ports:[a-b]", "a:b:c", "[1"])
def test_what_is_no_resources(text: str) -> None:
    with pytest.raises(ResourceError):
        Resources.parse(text)


def test_attributes() -> None:
    found = attributes("rack:r1;level:3;ports:[1-2]")
    assert [entry["type"] for entry in found] == ["TEXT", "SCALAR", "RANGES"]
    assert [show_attribute(entry) for entry in found] == ["r1", 3.0, "[1-2]"]
    with pytest.raises(ResourceError):
        attributes("rack")
