"""The network of a lab: a part of TEST-NET-2 that nothing else on this machine uses."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Sequence
from pathlib import Path

from docker.errors import NotFound
from docker.models.networks import Network
from docker.types import IPAMConfig, IPAMPool

from runbook.errors import LabError
from runbook.lab.engine import Engine
from runbook.lab.folder import Folder
from runbook.lab.waiting import turn

TEST_NET_2 = ipaddress.IPv4Network("198.51.100.0/24")
"""Addresses of documentation (RFC 5737): no site has them, so a rehearsal in a lab that is down reaches nothing."""

PREFIX = 27
"""One lab has 32 of them, so that eight labs can run on a machine."""

LABEL = "runbook.lab"

ROUTES = Path("/proc/net/route")
TURN = "addresses"


def ensure(engine: Engine, folder: Folder) -> tuple[Network, ipaddress.IPv4Network]:
    """The lab's network and its subnet; made, on addresses that nobody uses, where there is none."""
    present = _present(engine, folder)
    if present is not None:
        return present
    with turn(TURN, seconds=60):  # labs on engines of their own see each other's addresses by the routes only
        subnet = free_subnet([*routes(ROUTES.read_text()), *_subnets(engine)])
        network = engine.client.networks.create(
            _name(folder),
            driver="bridge",
            internal=True,
            labels={LABEL: folder.id},
            ipam=IPAMConfig(pool_configs=[IPAMPool(subnet=str(subnet), gateway=str(subnet[1]))]),
        )
    return network, subnet


def is_taken(engine: Engine, folder: Folder) -> bool:
    """Whether something else on this machine took the addresses of the lab's network, as while its engine was down."""
    present = _present(engine, folder)
    if present is None:
        return False
    network, subnet = present
    return any(subnet.overlaps(other) for other in routes(ROUTES.read_text(), apart=f"br-{network.id:.12}"))


def _name(folder: Folder) -> str:
    return f"runbook-lab-{folder.id}"


def _present(engine: Engine, folder: Folder) -> tuple[Network, ipaddress.IPv4Network] | None:
    try:
        network = engine.client.networks.get(_name(folder))
    except NotFound:
        return None
    return network, ipaddress.IPv4Network(network.attrs["IPAM"]["Config"][0]["Subnet"])


def remove(engine: Engine, folder: Folder) -> None:
    """Remove the lab's network; its nodes must have been removed before."""
    for network in engine.client.networks.list(filters={"label": f"{LABEL}={folder.id}"}):
        network.remove()


def free_subnet(used: Sequence[ipaddress.IPv4Network]) -> ipaddress.IPv4Network:
    """The first part of TEST-NET-2 that overlaps none of `used`; LabError where there is none."""
    for subnet in TEST_NET_2.subnets(new_prefix=PREFIX):
        if not any(subnet.overlaps(other) for other in used):
            return subnet
    raise LabError(f"every part of {TEST_NET_2} is in use on this machine", "take another lab down: `runbook lab down`")


def routes(table: str, apart: str = "") -> Iterator[ipaddress.IPv4Network]:
    """Networks that a machine has routes to, by its /proc/net/route, through other interfaces than `apart`.

    Not the default route, which is to everywhere.
    """
    for line in table.splitlines()[1:]:
        fields = line.split()
        if fields[0] == apart:
            continue
        address, mask = (int.from_bytes(bytes.fromhex(fields[column]), "little") for column in (1, 7))
        if mask:
            yield ipaddress.IPv4Network((address, mask.bit_count()))


def _subnets(engine: Engine) -> Iterator[ipaddress.IPv4Network]:
    """Networks of the engine, which allows no overlaps."""
    for network in engine.client.networks.list():
        for config in network.attrs["IPAM"]["Config"] or []:
            if ":" not in config["Subnet"]:
                yield ipaddress.IPv4Network(config["Subnet"])
