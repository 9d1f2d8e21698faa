"""The lab's addresses: where they come from, and what they must never overlap."""

from __future__ import annotations

import subprocess
import sys
import threading
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any, cast

import pytest
from docker.errors import NotFound

from runbook.errors import LabError
from runbook.lab import network
from runbook.lab.engine import Engine
from runbook.lab.folder import Folder
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


class FakeNetwork:
    """A network of an engine, as docker-py shows it."""

    def __init__(self, name: str, subnet: str) -> None:
        self.name, self.id = name, "fb070ea09d6e" + "0" * 52
        self.attrs = {"IPAM": {"Config": [{"Subnet": subnet}]}}


class FakeEngine:
    """An engine of its own; what its networks have as routes is on the machine, for all labs to see."""

    def __init__(self, table: Path) -> None:
        self.client = self.networks = self
        self.table, self.made = table, dict[str, FakeNetwork]()

    def list(self) -> list[FakeNetwork]:
        return [*self.made.values()]

    def get(self, name: str) -> FakeNetwork:
        if name not in self.made:
            raise NotFound("no such network")
        return self.made[name]

    def create(self, name: str, ipam: Any, **options: object) -> FakeNetwork:
        made = self.made[name] = FakeNetwork(name, ipam["Config"][0]["Subnet"])
        address = IPv4Network(made.attrs["IPAM"]["Config"][0]["Subnet"]).network_address.packed[::-1].hex().upper()
        with self.table.open("a") as table:
            table.write(f"br-{name}\t{address}\t00000000\t0001\t0\t0\t0\tE0FFFFFF\t0\t0\t0\n")
        return made


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The machine's routes."""
    path = tmp_path / "route"
    path.write_text("".join(ROUTES.splitlines(keepends=True)[:3]))
    monkeypatch.setattr(network, "ROUTES", path)
    monkeypatch.setattr(network, "TURN", f"{tmp_path.parent.name}-{tmp_path.name}")
    return path


def test_labs_on_engines_of_their_own_that_come_up_at_once_have_different_addresses(
    tmp_path: Path, table: Path
) -> None:
    subnets: list[IPv4Network] = []

    def come_up(number: int) -> None:
        engine = cast(Engine, FakeEngine(table))
        subnets.append(network.ensure(engine, Folder(tmp_path / str(number)))[1])

    threads = [threading.Thread(target=come_up, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(subnets) == [*network.TEST_NET_2.subnets(new_prefix=27)][:6]


def test_a_lab_that_was_killed_while_it_looked_for_addresses_holds_nobody_up(tmp_path: Path, table: Path) -> None:
    name = f"\0runbook-lab-{network.TURN}"
    hold = f"import socket; s = socket.socket(socket.AF_UNIX); s.bind({name!r}); print(); input()"
    with subprocess.Popen(
        [sys.executable, "-c", hold], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        waiting = threading.Thread(
            target=network.ensure, args=(cast(Engine, FakeEngine(table)), Folder(tmp_path / "lab"))
        )
        waiting.start()
        waiting.join(0.3)
        assert waiting.is_alive()  # it waits for its turn
        holder.kill()
        waiting.join(10)
        assert not waiting.is_alive()


def test_addresses_that_something_else_took_meanwhile_are_noticed(tmp_path: Path, table: Path) -> None:
    engine, folder = FakeEngine(table), Folder(tmp_path / "lab")
    lab = cast(Engine, engine)
    assert not network.is_taken(lab, folder)  # there is no network yet
    network.ensure(lab, folder)
    table.write_text(ROUTES)  # through br-fb070ea09d6e, the network's own bridge
    assert not network.is_taken(lab, folder)

    table.write_text(ROUTES.replace("br-fb070ea09d6e", "br-of-another"))
    assert network.is_taken(lab, folder)
