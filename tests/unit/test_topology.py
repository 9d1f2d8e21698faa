"""The picture of a site: well-formed, complete, within its frame, and the same for the same parameters."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from runbook.site import Site
from runbook.views.topology import NAMES, WIDTH, Topology, topology

SVG = "{http://www.w3.org/2000/svg}"
PRODUCTION = Path(__file__).parents[2] / "parameters" / "production.yml"


def site(hosts: str, more: str = "") -> Site:
    return Site.parse(f"name: test\nhosts:\n{hosts}\n{more}", Path("test.yml"))


def twelve() -> Site:
    roles = ["zookeeper, mesos_master, marathon, docker"] * 3
    roles += ["mesos_slave, docker, registry, registry_web"] + ["mesos_slave, docker"] * 8
    rows = [f"  - {{name: rack-node{n:02}, address: 198.51.100.{n + 1}, roles: [{r}]}}" for n, r in enumerate(roles)]
    return site("\n".join(rows))


SITES = {
    "three": lambda: Site.load(PRODUCTION),
    "twelve": twelve,
    "zookeeper only": lambda: site(
        "  - {name: a, address: 192.0.2.1, roles: [zookeeper]}", "zookeeper: {allow_even: true}"
    ),
}


def texts(svg: str) -> list[str]:
    return [element.text or "" for element in ElementTree.fromstring(svg).iter(f"{SVG}text")]


@pytest.mark.parametrize("name", SITES)
def test_every_host_every_address_and_every_role_is_in_it(name: str) -> None:
    described = SITES[name]()
    said = texts(topology(described))
    for host in described.hosts:
        assert host.name in said
        assert host.address in said
    for role, title in NAMES.items():
        shown = [text for text in said if re.fullmatch(rf"{title}( \d+)?", text)]
        boxes = bool(described.having(role))
        assert len(shown) == boxes + len(described.having(role)), role


def test_the_ports_at_the_arrows_are_those_of_the_parameters() -> None:
    hosts = (
        "  - {name: a, address: 192.0.2.1, roles: [zookeeper, mesos_master, mesos_slave, marathon, docker, registry]}"
    )
    more = (
        "zookeeper: {allow_even: true, client_port: 2999}\nmarathon: {http_port: 8081, libprocess_port: 8123}\n"
        "mesos: {master: {port: 8151, allow_even: true}, slave: {port: 5052, ports: 8700-8800}}\n"
        "registry: {port: 8601}\n"
    )
    said = texts(topology(site(hosts, more)))
    for text in ("2999", "8081", "8123", "8151", "5052 sandboxes", "tasks: 8700-8800", "8601 pull, push"):
        assert text in said


@pytest.mark.parametrize("name", SITES)
def test_nothing_leaves_the_frame_and_no_two_cards_overlap(name: str) -> None:
    root = ElementTree.fromstring(topology(SITES[name]()))
    _, _, width, height = map(float, root.attrib["viewBox"].split())
    cards = []
    for group in root.iter(f"{SVG}g"):
        if match := re.fullmatch(r"translate\((\d+) (\d+)\)", group.get("transform", "")):
            left, top = float(match[1]), float(match[2])
            frame, *chips = group.findall(f"{SVG}rect")
            right, bottom = left + float(frame.attrib["width"]), top + float(frame.attrib["height"])
            cards.append((left, top, right, bottom))
            for chip in chips:
                assert float(chip.attrib["x"]) + float(chip.attrib["width"]) <= float(frame.attrib["width"])
                assert float(chip.attrib["y"]) + float(chip.attrib["height"]) <= float(frame.attrib["height"])
    assert width == WIDTH
    assert all(left >= 0 and right <= width and bottom <= height for left, _, right, bottom in cards)
    for number, (left, top, right, bottom) in enumerate(cards):
        for other in cards[number + 1 :]:
            assert right <= other[0] or other[2] <= left or bottom <= other[1] or other[3] <= top


def test_it_needs_nothing_from_elsewhere_and_reads_on_dark_pages() -> None:
    svg = topology(SITES["three"]())
    assert re.findall(r"(?:href|src|url)\s*[=(]\s*[\"']?(?!#)", svg) == []
    assert "prefers-color-scheme:dark" in svg
    assert "[data-jp-theme-light=false]" in svg


def test_the_same_site_gives_the_same_picture() -> None:
    assert topology(twelve()) == topology(twelve()) == Topology(twelve())._repr_html_()


def test_as_text_it_is_a_line_a_host() -> None:
    assert str(Topology(twelve())).splitlines()[1] == (
        "rack-node00 (198.51.100.1): zookeeper, mesos_master, marathon, docker"
    )
