"""The lab's addresses: where they come from, and what they must never overlap."""

from __future__ import annotations

from ipaddress import IPv4Network

import pytest

from runbook.errors import LabError
from runbook.lab.network import free_subnet, routes

# /proc/net/route of a Debian 12 with a bridge of one lab; addresses are in little endian
ROUTES = """\
Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0
eth0\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0
br-fb070ea09d6e\t006433C6\t00000000\t0001\t0\t0\t0\tE0FFFFFF\t0\t0\t0
"""


def test_routes_are_read_without_the_one_to_everywhere() -> None:
    assert list(routes(ROUTES)) == [IPv4Network("192.0.2.0/24"), IPv4Network("198.51.100.0/27")]


def test_the_first_lab_of_a_machine_has_the_first_addresses() -> None:
    assert free_subnet([IPv4Network("192.0.2.0/24")]) == IPv4Network("198.51.100.0/27")


def test_a_second_lab_has_the_next_ones() -> None:
    assert free_subnet(list(routes(ROUTES))) == IPv4Network("198.51.100.32/27")


def test_a_network_that_reaches_into_a_part_takes_it() -> None:
    assert free_subnet([IPv4Network("198.51.100.0/25")]) == IPv4Network("198.51.100.128/27")


def test_a_machine_that_uses_them_all_has_no_place_for_a_lab() -> None:
    with pytest.raises(LabError, match=r"198\.51\.100\.0/24 is in use.*\n.*runbook lab down"):
        free_subnet([IPv4Network("198.51.0.0/16")])
