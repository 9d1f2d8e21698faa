"""A site of masters and slaves, as the chapters about Mesos know it."""

from __future__ import annotations

from pathlib import Path

from runbook.site import Site


def site(masters: int = 3, slaves: int = 3, more: str = "", slave: str = "") -> Site:
    """node1, node2, … of which the first are ZooKeepers and masters, and the first are slaves.

    `more` is added to the parameters, `slave` is the value of `slave:` on every slave host.
    """
    hosts = []
    for number in range(1, max(masters, slaves) + 1):
        roles = ["zookeeper", "mesos_master"] if number <= masters else []
        roles += ["mesos_slave", "docker"] if number <= slaves else []
        own = f", slave: {slave}" if slave and number <= slaves else ""
        address = f"198.51.100.{10 + number}"
        hosts.append(f"  - {{name: node{number}, address: {address}, roles: [{', '.join(roles)}]{own}}}")
    text = ["name: test", "hosts:", *hosts, "zookeeper: {allow_even: true}", more]
    return Site.parse("\n".join(text), Path("test.yml"))
