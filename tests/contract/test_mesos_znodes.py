"""The znodes of a group of mesos-masters 0.28, as recorded from real ones."""

from __future__ import annotations

import json
import re
import socket
import struct
from collections.abc import Iterator
from typing import Any

import pytest
from contract import Cluster, recorded
from kazoo.client import KazooClient
from shapes import Shape


@pytest.fixture
def zookeeper(cluster: Cluster) -> Iterator[KazooClient]:
    """A client whose root is the masters' path."""
    client = KazooClient(cluster.zookeeper)
    client.start()
    yield client
    client.stop()
    client.close()


def candidates(zookeeper: KazooClient) -> dict[str, Any]:
    names = sorted(name for name in zookeeper.get_children("/") if name.startswith("json.info_"))
    return {name: json.loads(zookeeper.get(f"/{name}")[0]) for name in names}


def test_candidates_are_ephemeral_sequential_json(zookeeper: KazooClient) -> None:
    known = [
        json.loads(entry["data_utf8"])
        for entry in recorded("three-masters/zookeeper_mesos.json")[0]
        if "json.info_" in entry["path"]
    ]
    shape = Shape.of(known)
    for name, info in candidates(zookeeper).items():
        assert re.fullmatch(r"json\.info_[0-9]{10}", name)
        assert list(shape.differences(info)) == []
        assert zookeeper.get(f"/{name}")[1].ephemeralOwner != 0
        assert info["pid"] == f"master@{info['address']['ip']}:{info['address']['port']}"
        assert socket.inet_ntoa(struct.pack("<I", info["ip"])) == info["address"]["ip"]


def test_recorded_ip_is_network_order_read_little_endian() -> None:
    (entries,) = recorded("three-masters/zookeeper_mesos.json")
    info = json.loads(entries[1]["data_utf8"])
    assert socket.inet_ntoa(struct.pack("<I", info["ip"])) == info["address"]["ip"] == "127.0.0.1"


def test_the_lowest_sequence_leads(cluster: Cluster, zookeeper: KazooClient) -> None:
    first = next(iter(candidates(zookeeper).values()))
    assert first["pid"] == cluster.leader_json("/state")["leader"]


def test_every_master_has_its_log_replica(zookeeper: KazooClient) -> None:
    names = zookeeper.get_children("/log_replicas")
    assert all(re.fullmatch(r"[0-9]{10}", name) for name in names)
    replicas = {zookeeper.get(f"/log_replicas/{name}")[0].decode() for name in names}
    masters = {info["pid"] for info in candidates(zookeeper).values()}
    assert replicas == {pid.replace("master@", "log-replica(1)@") for pid in masters}
