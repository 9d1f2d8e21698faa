"""What a node may do, and where a lab says that it cannot work."""

from __future__ import annotations

import pytest

from runbook import lab
from runbook.errors import LabError
from runbook.lab.cluster import CAPABILITIES, capabilities, demand_memory

MEMINFO = "MemTotal:       24684352 kB\nMemAvailable:   1376256 kB\nHugePages_Total:       0\n"


def status(bounding: str) -> str:
    return f"Name:\tsh\nCapEff:\t0000000000000000\nCapBnd:\t{bounding}\nCapAmb:\t0000000000000000\n"


def test_a_node_gets_what_the_kernel_of_the_lab_grants() -> None:
    # measured (lab-facts.md): a kernel that withholds CAP_SYS_RESOURCE (24) and else grants 0 to 40
    granted = capabilities(status("000001fffeffffff"))

    assert "SYS_RESOURCE" not in granted
    assert set(granted) == set(CAPABILITIES) - {"SYS_RESOURCE"}


def test_capabilities_are_numbered_as_linux_numbers_them() -> None:
    # capabilities(7) and linux/capability.h: CAP_NET_ADMIN 12, CAP_SYS_ADMIN 21, CAP_AUDIT_READ 37
    assert capabilities(status(f"{1 << 12 | 1 << 21 | 1 << 37:016x}")) == ["NET_ADMIN", "SYS_ADMIN", "AUDIT_READ"]
    assert capabilities(status("0000000000000000")) == []


def test_too_little_memory_is_said_before_a_node_is_started() -> None:
    demand_memory(2, MEMINFO)

    with pytest.raises(LabError, match=r"3 nodes need 1\.9 GB of memory, and 1\.3 are available"):
        demand_memory(3, MEMINFO)


@pytest.mark.parametrize("nodes", [0, -1, 21])
def test_a_lab_has_one_to_twenty_nodes(nodes: int) -> None:
    with pytest.raises(LabError, match=f"1 to 20 nodes, not {nodes}"):
        lab.up(nodes)
