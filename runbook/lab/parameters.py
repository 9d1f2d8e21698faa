"""The parameter file of a lab: its nodes in the roles that the document's three hosts have."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from runbook.lab.folder import Folder
from runbook.lab.images import TAGS, USERLAND, Archive
from runbook.lab.keys import write
from runbook.lab.rpms import Package
from runbook.site import Site

HEADER = "# Written by `runbook lab up`, from what the lab is: changes made here are lost.\n"

MEMBERS = 3
"""Nodes that form the ZooKeeper ensemble and the masters, as in the document; further ones are slaves."""

EVERYWHERE = ["mesos_slave", "docker"]
MEMBER = ["zookeeper", "mesos_master", "mesos_slave", "marathon", "docker"]
FIRST = [*MEMBER, "registry", "registry_web"]

KEYS = {"mariadb": "mysql"}
"""Where an image's key under `images` is not the name of its recipe: MariaDB stands in for MySQL."""

OFFER = {"cpus": 2, "mem": 768}
"""What a node's slave offers. It is counted, not reserved: what runs in rehearsals takes far less."""

MYSQL_OFFER = {"mem": 1536}
"""What the slave offers that holds MySQL, with the 1024 MB of 6.3, beside whatever else comes to it."""


def roles(position: int) -> list[str]:
    """Roles of the node at `position`, from 1: those that the document's hosts have."""
    if position == 1:
        return FIRST
    return MEMBER if position <= MEMBERS else EVERYWHERE


def document(
    nodes: Mapping[str, str], packages: tuple[Package, ...], archives: tuple[Archive, ...], folder: Folder, target: Path
) -> dict[str, Any]:
    """The parameters of a lab of `nodes` (name -> address), with paths relative to `target`'s folder.

    What the lab's RPMs and images do not say is left out: runbook/site.py has the document's values as defaults.
    """

    def path(of: Path) -> str:
        return os.path.relpath(of, target.parent)

    named = {package.name: package for package in packages}
    parameters: dict[str, Any] = {
        "name": folder.site,
        "ssh": {
            "user": "root",
            "port": 22,
            "key": path(folder.user_key),
            "known_hosts": path(folder.known_hosts),
            "become": "none",
        },
        "hosts": [
            {"name": name, "address": address, "roles": [*roles(position)]}
            for position, (name, address) in enumerate(nodes.items(), start=1)
        ],
        "mesos": {"slave": {**OFFER}},
        "mysql": {
            "password": f"file:{path(folder.mysql_password)}",
            "root_password": f"file:{path(folder.mysql_root_password)}",
        },
        "registry_web": {"variables": "url"},
        "apps": _apps(),
    }
    parameters["hosts"][0]["slave"] = {**MYSQL_OFFER}
    if len(nodes) < MEMBERS:
        parameters["zookeeper"] = {"allow_even": True}
        parameters["mesos"]["master"] = {"allow_even": True}
    for section, name in (("mesos", "mesos"), ("marathon", "marathon"), ("docker", "docker-engine")):
        if name in named:
            parameters.setdefault(section, {}).update(package=name, version=named[name].version)
    if "marathon" in named:
        marathon = named["marathon"]
        parameters["artifacts"] = {"marathon": {"file": path(marathon.file), "sha256": marathon.sha256}}
    if archives:
        parameters["images"] = {
            KEYS.get(archive.name, archive.name): {
                "tag": archive.tag,
                "file": path(archive.file),
                "sha256": archive.sha256,
            }
            for archive in archives
        }
    return parameters


def _apps() -> dict[str, Any]:
    """The document's apps (4.3, 5.3), with the lab's userland for the image that it cannot have."""
    apps: dict[str, Any] = Site.model_fields["apps"].get_default(call_default_factory=True)
    container = {"type": "DOCKER", "docker": {"image": TAGS[USERLAND]}}
    return {**apps, "centos-marathon": {**apps["centos-marathon"], "container": container, "cpus": 0.1, "mem": 32}}


def save(parameters: Mapping[str, Any], target: Path) -> bool:
    """Write `parameters` to `target`, whole or not at all; False where it holds them already."""
    text = HEADER + yaml.safe_dump(dict(parameters), sort_keys=False, default_flow_style=None, width=120)
    if target.exists() and target.read_text(encoding="utf-8") == text:
        return False
    write(target, text.encode(), mode=0o644)
    return True
