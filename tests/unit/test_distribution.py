"""The picture of where an app's instances run."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterable

import pandas as pd
import pytest
from rich.console import Console

from runbook.views.distribution import FEW, Distribution

SVG = "{http://www.w3.org/2000/svg}"


def tasks(places: Iterable[tuple[str, str]], state: str = "running") -> pd.DataFrame:
    rows = [(f"hello.{number}", host, ports, state) for number, (host, ports) in enumerate(places)]
    return pd.DataFrame(rows, columns=["task", "host", "ports", "state"], dtype="string")


FOUR = tasks([("node1", "8401"), ("node2", "8402"), ("node3", "8403"), ("node3", "8404")])
HOSTS = ["node1", "node2", "node3", "node4"]


def texts(picture: str) -> list[str]:
    return ["".join(text.itertext()) for text in ET.fromstring(picture).iter(f"{SVG}text")]


def test_each_instance_is_a_box_with_its_port_and_an_empty_host_has_none() -> None:
    view = Distribution("/hello", FOUR, HOSTS)
    assert view.counts == {"node1": 1, "node2": 1, "node3": 2, "node4": 0}
    assert repr(view) == "/hello: 4 instances on 3 hosts: node1 1, node2 1, node3 2, node4 0"
    shown = texts(view.svg())
    assert shown[0] == "/hello: 4 instances on 3 hosts"
    assert [text for text in shown if text.startswith("84")] == ["8401", "8402", "8403", "8404"]
    assert "hello.3 on node3:8404, running" in view.svg()
    assert view.table().frame.values.tolist()[2] == ["node3", 2, "8403, 8404"]
    assert "8403, 8404" in view._repr_html_()


def test_it_shows_in_a_terminal() -> None:
    console = Console(width=80, record=True, file=None, force_terminal=False)
    with console.capture() as shown:
        console.print(Distribution("/hello", FOUR, HOSTS))
    assert "██ 2" in shown.get()


def test_where_a_host_has_many_all_have_bars_in_proportion() -> None:
    places = [("node1", str(number)) for number in range(300)] + [("node2", str(number)) for number in range(3)]
    picture = Distribution("/hello", tasks(places), HOSTS).svg()
    assert {"300", "3"} <= set(texts(picture))
    widths = [float(bar.get("width", 0)) for bar in ET.fromstring(picture).iter(f"{SVG}rect")][:2]
    assert widths == [700, 7]


def test_of_many_hosts_only_those_with_instances_are_shown_and_strangers_too() -> None:
    hosts = [f"node{number}" for number in range(1, FEW + 10)]
    assert Distribution("/hello", FOUR, hosts).counts == {"node1": 1, "node2": 1, "node3": 2}
    assert Distribution("/hello", FOUR, ["node1"]).counts == {"node1": 1, "node2": 1, "node3": 2}


def test_no_instance_is_shown_as_well() -> None:
    view = Distribution("/hello", tasks([]), ["node1"])
    assert texts(view.svg())[0] == "/hello: 0 instances on 0 hosts"
    assert view.table().frame.values.tolist() == [["node1", 0, ""]]


@pytest.mark.parametrize("state", ["healthy", "running", "staging", "unhealthy"])
def test_states_have_their_colours_and_the_legend_names_them(state: str) -> None:
    picture = Distribution("/hello", tasks([("node1", "1")], state), ["node1"]).svg()
    assert texts(picture)[-1] == state
    assert picture.count(Distribution.COLOURS[state]) == 2


def test_names_are_escaped_and_nothing_is_loaded() -> None:
    page = Distribution("<b>&", tasks([("<i>", "1")]), [])._repr_html_()
    assert "<b>" not in page.replace("<b>&amp;", "")
    assert "<i>" not in page
    assert "http" not in page.replace("http://www.w3.org/2000/svg", "")
