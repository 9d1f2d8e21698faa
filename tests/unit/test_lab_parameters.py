"""The parameter file that a lab writes: refused by nobody, and never written in vain."""

from __future__ import annotations

from pathlib import Path

import pytest

from runbook.lab import keys, parameters
from runbook.lab.folder import Folder
from runbook.lab.rpms import Package
from runbook.site import Site


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path / ".lab")


def addresses(count: int) -> dict[str, str]:
    return {f"node{number}": f"198.51.100.{10 + number}" for number in range(1, count + 1)}


def package(folder: Folder, name: str, version: str) -> Package:
    file = folder.packages / "current" / f"{name}-{version}.x86_64.rpm"
    keys.write(file, name.encode())
    return Package(name, version, "x86_64", file, "ab" * 32)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 20])
def test_a_site_accepts_the_file_of_a_lab_of_any_size(folder: Folder, tmp_path: Path, count: int) -> None:
    target = tmp_path / "parameters" / "lab.yml"
    parameters.save(parameters.document(addresses(count), (), folder, target), target)

    site = Site.load(target)

    assert {host.name: str(host.address) for host in site.hosts} == addresses(count)
    assert len(site.having("zookeeper")) == len(site.having("mesos_master")) == min(count, 3)
    assert len(site.having("mesos_slave")) == len(site.having("docker")) == count
    assert site.having("registry") == site.having("registry_web") == ()


def test_three_nodes_have_the_roles_of_the_document_s_three_hosts() -> None:
    production = Site.load(Path(__file__).parents[2] / "parameters" / "production.yml")

    assert [set(parameters.roles(position)) for position in (1, 2, 3)] == [
        set(host.roles) - {"registry", "registry_web"} for host in production.hosts
    ]


def test_paths_are_relative_to_the_file_wherever_it_is_written(folder: Folder, tmp_path: Path) -> None:
    for target in (tmp_path / "parameters" / "lab.yml", tmp_path / "elsewhere" / "deep" / "lab.yml"):
        parameters.save(parameters.document(addresses(3), (), folder, target), target)

        ssh = Site.load(target).hosts[0].ssh

        assert ssh.key is not None
        assert ssh.key.resolve() == folder.user_key
        assert ssh.known_hosts.resolve() == folder.known_hosts
        assert str(tmp_path) not in target.read_text(encoding="utf-8")


def test_versions_and_artifacts_are_those_of_the_repository(folder: Folder, tmp_path: Path) -> None:
    packages = (
        package(folder, "mesos", "0.28.0-2.0.16.centos701406"),
        package(folder, "marathon", "1.1.1-1.0.472.el7"),
        package(folder, "docker-engine", "1.11.1-1"),
        package(folder, "runbook-rehearsal", "1.1-1"),
    )
    target = tmp_path / "parameters" / "lab.yml"
    parameters.save(parameters.document(addresses(2), packages, folder, target), target)

    site = Site.load(target)

    assert (site.mesos.version, site.marathon.version) == ("0.28.0-2.0.16.centos701406", "1.1.1-1.0.472.el7")
    assert site.docker.version == "1.11.1-1"
    assert site.mesos.master.allow_even
    artifact = site.artifacts["marathon"]
    assert artifact.file.resolve() == packages[1].file
    assert artifact.sha256 == "ab" * 32


def test_a_file_that_says_the_same_is_left_alone(folder: Folder, tmp_path: Path) -> None:
    target = tmp_path / "lab.yml"

    assert parameters.save(parameters.document(addresses(3), (), folder, target), target)
    written = target.stat()
    assert not parameters.save(parameters.document(addresses(3), (), folder, target), target)
    assert target.stat() == written
    assert parameters.save(parameters.document(addresses(1), (), folder, target), target)
    assert target.stat().st_ino != written.st_ino
