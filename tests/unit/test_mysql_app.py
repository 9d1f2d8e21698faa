"""The app of MySQL and what its host must hold: no password where others read, and one server a folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from local_host import ME, MY_GROUP, PRESENT, LocalHost
from marathon_answers import in_11, in_15
from mysql_site import site

from runbook.errors import ParameterError, SecretError
from runbook.remote import steps
from runbook.remote.containers import Image
from runbook.remote.steps import Directory, File
from runbook.secrets import redact
from runbook.services.marathon.apps import definition, differences
from runbook.services.mysql.app import DataFolder, data_host, mysql_app, password_file, preparation
from runbook.site import Site


@pytest.fixture(autouse=True)
def passwords(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_MYSQL_ROOT", "heron-under-ice")
    monkeypatch.setenv("TEST_MYSQL", "otter-over-sand")


def test_the_app_is_the_documents_corrected() -> None:
    app = mysql_app(site())
    docker = app["container"]["docker"]
    assert (app["id"], app["cpus"], app["mem"], app["instances"]) == ("mysql", 0.5, 1024, 1)
    assert docker["image"] == "mysql:5.7.13"
    assert docker["network"] == "BRIDGE"
    assert docker["portMappings"] == [{"containerPort": 3306, "hostPort": 0, "protocol": "tcp"}]
    assert app["env"] == {"MYSQL_USER": "test", "MYSQL_DATABASE": "BucketList"}
    assert app["container"]["volumes"] == [{"containerPath": "/var/lib/mysql", "hostPath": "/opt/mysql", "mode": "RW"}]
    assert app["constraints"] == [["hostname", "CLUSTER", "198.51.100.12"]]
    assert app["healthChecks"][0]["protocol"] == "TCP"
    assert app["healthChecks"][0]["maxConsecutiveFailures"] == 0  # Marathon never kills it


def test_two_servers_never_run_on_one_folder() -> None:
    assert mysql_app(site())["upgradeStrategy"] == {"minimumHealthCapacity": 0, "maximumOverCapacity": 0}


def test_no_password_is_in_the_app_nor_in_what_is_shown_of_it() -> None:
    app = mysql_app(site())
    for password in ("heron-under-ice", "otter-over-sand"):
        assert password not in json.dumps(app)
        assert password not in definition(app)
    assert app["container"]["docker"]["parameters"] == [{"key": "env-file", "value": "/etc/runbook/mysql.env"}]


@pytest.mark.parametrize("answered", [in_11, in_15])
def test_a_deployed_app_does_not_differ(answered: object) -> None:
    app = mysql_app(site())
    assert differences(app, answered(app)) == []  # type: ignore[operator]


def test_the_documents_variable_is_a_difference() -> None:
    app = mysql_app(site())
    present = in_11({**app, "env": {"MYSQL_DB": "BucketList", **app["env"]}})
    assert [difference.field for difference in differences(app, present)] == ["env.MYSQL_DB"]


def test_an_app_in_a_group_has_a_file_of_its_own() -> None:
    assert password_file(site("app: db/mysql")) == "/etc/runbook/db.mysql.env"


def test_the_data_is_on_the_host_that_is_named_or_the_first_slave() -> None:
    assert data_host(site()).name == "node2"
    bare = "hosts: [{name: a, address: 192.0.2.1, roles: [docker]}]"
    with pytest.raises(ParameterError, match=r"mysql\.host: no host is a mesos_slave"):
        data_host(Site.parse(f"name: x\n{bare}", Path("x.yml")))


def test_an_image_that_is_not_declared_is_told_at_once() -> None:
    with pytest.raises(ParameterError, match="no other is declared under images"):
        mysql_app(
            Site.parse(
                "name: x\nhosts: [{name: a, address: 192.0.2.1, roles: [zookeeper, mesos_master, "
                "mesos_slave, docker]}]\nzookeeper: {allow_even: true}\nmesos: {master: "
                "{allow_even: true}}\nmysql: {image: other}\n",
                Path("x.yml"),
            )
        )


# 6.1


def test_the_host_gets_image_folder_and_a_file_that_root_alone_reads() -> None:
    image, data, _, folder, passwords = preparation(site())
    assert isinstance(image, Image)
    assert image.tag == "mysql:5.7.13"
    assert data == DataFolder("/opt/mysql", mode="0700")
    assert folder == Directory("/etc/runbook", mode="0700")
    assert isinstance(passwords, File)
    assert (passwords.path, passwords.mode, passwords.secret) == ("/etc/runbook/mysql.env", "0600", True)
    assert passwords.content == "MYSQL_ROOT_PASSWORD=heron-under-ice\nMYSQL_PASSWORD=otter-over-sand\n"
    assert redact(repr(passwords)) == repr(passwords)


def test_the_passwords_are_in_no_plan() -> None:
    *_, passwords = preparation(site())
    for state in ("kind=absent\n", "kind=file\nmode=600\nowner=root\nuid=0\ngroup=root\ngid=0\nsize=3\nsha256=abc\n"):
        change = passwords.plan(state)
        assert change is not None
        assert change.diff.startswith("(secret content)")
        assert "heron" not in repr(change)


def test_a_password_that_cannot_be_had_is_told_before_anything_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TEST_MYSQL_ROOT")
    with pytest.raises(SecretError, match="env:TEST_MYSQL_ROOT"):
        preparation(site())


@pytest.mark.parametrize("shell", PRESENT)
def test_the_data_folder_is_made_and_then_left_to_the_image(
    tmp_path: Path, shell: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steps, "STATE_DIR", str(tmp_path / "state"))
    host = LocalHost(shell, tmp_path / "state")
    step = DataFolder(str(tmp_path / "mysql"), mode="0700", owner=ME, group=MY_GROUP)
    assert host.apply(step) is not None
    assert (tmp_path / "mysql").stat().st_mode & 0o777 == 0o700
    (tmp_path / "mysql").chmod(0o755)  # as the entrypoint of an image might
    assert host.plan(step) is None
