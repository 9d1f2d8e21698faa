"""The parameter file that a lab writes: refused by nobody, and never written in vain."""

from __future__ import annotations

from pathlib import Path

import pytest

from runbook.lab import images, keys, parameters
from runbook.lab.folder import CHECKOUT, Folder
from runbook.lab.images import Archive
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
    parameters.save(parameters.document(addresses(count), (), (), folder, target), target)

    site = Site.load(target)

    assert {host.name: str(host.address) for host in site.hosts} == addresses(count)
    assert len(site.having("zookeeper")) == len(site.having("mesos_master")) == min(count, 3)
    assert len(site.having("mesos_slave")) == len(site.having("docker")) == count
    assert [host.name for host in site.having("registry")] == ["node1"]
    assert site.having("registry_web") == site.having("registry")


def test_three_nodes_have_the_roles_of_the_document_s_three_hosts() -> None:
    production = Site.load(Path(__file__).parents[2] / "parameters" / "production.yml")

    assert [set(parameters.roles(position)) for position in (1, 2, 3)] == [set(host.roles) for host in production.hosts]


def test_paths_are_relative_to_the_file_wherever_it_is_written(folder: Folder, tmp_path: Path) -> None:
    for target in (tmp_path / "parameters" / "lab.yml", tmp_path / "elsewhere" / "deep" / "lab.yml"):
        parameters.save(parameters.document(addresses(3), (), (), folder, target), target)

        ssh = Site.load(target).hosts[0].ssh

        assert ssh.key is not None
        assert ssh.key.resolve() == folder.user_key
        assert ssh.known_hosts.resolve() == folder.known_hosts
        assert str(tmp_path) not in target.read_text(encoding="utf-8")


def test_only_the_checkout_s_own_lab_is_called_lab(folder: Folder, tmp_path: Path) -> None:
    own, other = Folder(CHECKOUT / ".lab"), Folder(tmp_path / ".lab")

    assert parameters.document(addresses(1), (), (), own, tmp_path / "lab.yml")["name"] == "lab"
    assert parameters.document(addresses(1), (), (), folder, tmp_path / "lab.yml")["name"] == other.site != "lab"


def test_versions_and_artifacts_are_those_of_the_repository(folder: Folder, tmp_path: Path) -> None:
    packages = (
        package(folder, "mesos", "0.28.0-2.0.16.centos701406"),
        package(folder, "marathon", "1.1.1-1.0.472.el7"),
        package(folder, "docker-engine", "1.11.1-1"),
        package(folder, "runbook-rehearsal", "1.1-1"),
    )
    target = tmp_path / "parameters" / "lab.yml"
    parameters.save(parameters.document(addresses(2), packages, (), folder, target), target)

    site = Site.load(target)

    assert (site.mesos.version, site.marathon.version) == ("0.28.0-2.0.16.centos701406", "1.1.1-1.0.472.el7")
    assert site.docker.version == "1.11.1-1"
    assert site.mesos.master.allow_even
    artifact = site.artifacts["marathon"]
    assert artifact.file.resolve() == packages[1].file
    assert artifact.sha256 == "ab" * 32


def test_images_are_those_of_the_archives_under_the_keys_that_sections_name(folder: Folder, tmp_path: Path) -> None:
    archives = tuple(
        Archive(name, tag, folder.images / f"{name}-0.tar.gz", "cd" * 32) for name, tag in images.TAGS.items()
    )
    for archive in archives:
        keys.write(archive.file, archive.name.encode())
    target = tmp_path / "parameters" / "lab.yml"
    parameters.save(parameters.document(addresses(3), (), archives, folder, target), target)

    site = Site.load(target)

    assert list(site.images) == ["userland", "mysql", "registry", "registry_web"]
    for field in (site.mysql.image, site.registry.image, site.registry_web.image):
        assert site.image(field).file.is_file()
    assert site.image(site.mysql.image).tag == "lab/mariadb:10.11"
    assert site.registry_web.variables == "url"  # as an image of the page from 0.1 on wants it
    assert site.apps["centos-marathon"]["container"] == {"type": "DOCKER", "docker": {"image": "lab/userland:1"}}


def test_passwords_are_references_to_files_that_hold_them(folder: Folder, tmp_path: Path) -> None:
    password, root = keys.password(folder.mysql_password), keys.password(folder.mysql_root_password)
    target = tmp_path / "parameters" / "lab.yml"
    parameters.save(parameters.document(addresses(3), (), (), folder, target), target)

    site = Site.load(target)

    assert site.mysql.password.resolve().reveal() == password
    assert site.mysql.root_password.resolve().reveal() == root
    assert password != root
    assert not {password, root} & set(target.read_text(encoding="utf-8").split())


def test_the_slave_of_mysql_holds_every_app_even_where_all_come_to_it(folder: Folder, tmp_path: Path) -> None:
    target = tmp_path / "lab.yml"
    parameters.save(parameters.document(addresses(3), (), (), folder, target), target)
    site = Site.load(target)
    apps = [(4, site.apps["hello"]), (3, site.apps["centos-marathon"])]

    first, *others = site.having("mesos_slave")

    assert sum(count * app["mem"] for count, app in apps) + site.mysql.mem <= first.slave.mem
    assert sum(count * app["cpus"] for count, app in apps) + site.mysql.cpus <= first.slave.cpus
    for other in others:  # any one of them can be lost
        assert sum(count * app["mem"] for count, app in apps) <= other.slave.mem


def test_a_file_that_says_the_same_is_left_alone(folder: Folder, tmp_path: Path) -> None:
    target = tmp_path / "lab.yml"

    assert parameters.save(parameters.document(addresses(3), (), (), folder, target), target)
    written = target.stat()
    assert not parameters.save(parameters.document(addresses(3), (), (), folder, target), target)
    assert (target.stat().st_ino, target.stat().st_mtime_ns) == (written.st_ino, written.st_mtime_ns)
    assert parameters.save(parameters.document(addresses(1), (), (), folder, target), target)
    assert target.stat().st_ino != written.st_ino
