"""Mesos' values: ranges of ports, and the flags that name resources and attributes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mesos_payloads import payload

from runbook.services.mesos.resources import (
    Ranges,
    parse_attributes,
    parse_resources,
    resources_of_json,
    show,
)

spans = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 8)).map(lambda pair: (pair[0], sum(pair))), max_size=8)
ranges = spans.map(Ranges)


@given(spans)
def test_ranges_hold_exactly_the_numbers_of_their_spans(given_spans: list[tuple[int, int]]) -> None:
    numbers = {number for begin, end in given_spans for number in range(begin, end + 1)}
    found = Ranges(given_spans)
    assert list(found) == sorted(numbers)
    assert len(found) == len(numbers)
    assert [number for number in range(-1, 80) if number in found] == sorted(numbers)


@given(ranges, ranges)
def test_the_arithmetic_is_that_of_sets(left: Ranges, right: Ranges) -> None:
    assert set(left | right) == set(left) | set(right)
    assert set(left & right) == set(left) & set(right)
    assert set(left - right) == set(left) - set(right)


@given(ranges)
def test_what_is_written_is_read_again(value: Ranges) -> None:
    assert Ranges.parse(str(value)) == value
    assert hash(Ranges.parse(str(value).replace(" ", ""))) == hash(value)


@given(ranges)
def test_no_two_ranges_touch(value: Ranges) -> None:
    assert all(before[1] + 1 < after[0] for before, after in zip(value.spans, value.spans[1:], strict=False))


def test_ports_of_a_real_slave() -> None:
    slave = payload("one-node/master_slaves.json")["slaves"][0]
    total = Ranges.parse(slave["resources"]["ports"])
    used = Ranges.parse(slave["used_resources"]["ports"])
    assert total == Ranges([(8401, 8599), (8601, 9100)])
    assert (len(total), len(used)) == (699, 1)
    assert total - used == Ranges.parse(slave["offered_resources"]["ports"])
    assert str(total - used) == slave["offered_resources"]["ports"]


def test_ports_that_mesos_leaves_out_are_none() -> None:
    idle = payload("three-masters/leader_slaves.json")["slaves"][1]
    assert "ports" not in idle["used_resources"]
    assert not Ranges.parse(idle["used_resources"].get("ports"))
    assert not Ranges.parse("[]")


@pytest.mark.parametrize(
    "text", ["8400", "[8400-]", "8400-9100;", "[8500-8400]", "[8400-8500,]", "[8400-8500", "[a-b]", "-1-5", "[[1-2]]"]
)
def test_what_is_no_list_of_ranges_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"range"):
        Ranges.parse(text)


def test_a_resources_flag() -> None:
    found = parse_resources("cpus:4;mem(prod):1024.5;ports:[8401-8599, 8601-9100]\ndisks:{sda, sdb}")
    assert found == {
        ("cpus", "*"): 4.0,
        ("mem", "prod"): 1024.5,
        ("ports", "*"): Ranges([(8401, 8599), (8601, 9100)]),
        ("disks", "*"): frozenset({"sda", "sdb"}),
    }


def test_order_parts_and_zeros_make_no_difference() -> None:
    assert parse_resources("mem:1;cpus:2") == parse_resources("cpus:1;mem:1;cpus:1;gpus:0")
    assert parse_resources("ports:[1-5];ports:[6-9]") == parse_resources("ports:[1-9]")
    assert parse_resources("cpus:0.1;cpus:0.2") == parse_resources("cpus:0.3")
    assert parse_resources(None) == parse_resources(" ") == {}


def test_the_json_form_says_the_same() -> None:
    full = payload("one-node/master_slaves.json")["slaves"][0]["offered_resources_full"]
    text = "cpus:1.9;mem:23049;disk:252899;ports:[8401-8599,8601-9009,9011-9100]"
    assert resources_of_json(full) == parse_resources(text)
    assert parse_resources('[{"name": "cpus", "type": "SCALAR", "scalar": {"value": 2}}]', "prod") == {
        ("cpus", "prod"): 2.0
    }


@pytest.mark.parametrize("text", ["cpus", "cpus=4", "cpus:many", ":4", "ports:[1-2];ports:3", "ports:[5-1]"])
def test_a_flag_that_mesos_refuses_is_refused(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 -- each has its own message
        parse_resources(text)


def test_an_attributes_flag() -> None:
    found = parse_attributes("rack:r1;level:3\nzone:eu:1;free:[1-2]")
    assert found == {"rack": "r1", "level": 3.0, "zone": "eu:1", "free": Ranges([(1, 2)])}
    with pytest.raises(ValueError, match="rack"):
        parse_attributes("rack")


@pytest.mark.parametrize(
    ("value", "shown"),
    [(252899.0, "252899"), (0.1, "0.1"), (1234567.5, "1234567.5"), (frozenset("ba"), "{a, b}"), ("r1", "r1")],
)
def test_values_are_shown_as_a_flag_takes_them(value: float | frozenset[str] | str, shown: str) -> None:
    assert show(value) == shown
