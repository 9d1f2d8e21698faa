"""The app of MySQL and what its host must hold: no password where others read, and one server a folder."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
from local_host import ME, MY_GROUP, PRESENT, SHELLS, LocalHost
from marathon_answers import in_11, in_15
from mysql_site import site

from runbook.errors import ParameterError, SecretError
from runbook.remote import steps
from runbook.remote.containers import Image
from runbook.remote.shell import Frame, Piece
from runbook.remote.steps import Directory, File
from runbook.secrets import redact
from runbook.services.marathon.apps import definition, differences
from runbook.services.mysql.app import (
    DataFolder,
    RetiredSecrets,
    data_host,
    leaks,
    leaks_probe,
    mysql_app,
    preparation,
    secrets_directory,
)
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
    assert app["env"] == {
        "MYSQL_USER": "test",
        "MYSQL_DATABASE": "BucketList",
        "MYSQL_ROOT_PASSWORD_FILE": "/run/runbook/MYSQL_ROOT_PASSWORD",
        "MYSQL_PASSWORD_FILE": "/run/runbook/MYSQL_PASSWORD",
    }
    assert app["container"]["volumes"] == [
        {"containerPath": "/var/lib/mysql", "hostPath": "/opt/mysql", "mode": "RW"},
        {"containerPath": "/run/runbook", "hostPath": "/etc/runbook/mysql", "mode": "RO"},
    ]
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
    # `docker inspect`, and so Mesos' own records, show what an env-file holds
    assert "parameters" not in app["container"]["docker"]


@pytest.mark.parametrize("shell", PRESENT)
def test_the_command_hands_the_passwords_over_to_the_entrypoint_of_any_version(tmp_path: Path, shell: str) -> None:
    """Images before 4dd3313 of docker-library/mysql (5.7.13, say) do not know `_FILE`."""
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    (secrets / "MYSQL_ROOT_PASSWORD").write_text("heron under $ice'\n")
    entrypoint = tmp_path / "docker-entrypoint.sh"
    entrypoint.write_text(
        '#!/bin/sh\necho "$@|$MYSQL_ROOT_PASSWORD|${MYSQL_PASSWORD-unset}|${MYSQL_ROOT_PASSWORD_FILE-unset}"\n'
    )
    entrypoint.chmod(0o755)
    app = mysql_app(site())
    command = app["cmd"].replace("/run/runbook", str(secrets))
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", **app["env"]}
    done = subprocess.run([*SHELLS[shell], "-c", command], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "mysqld|heron under $ice'|unset|unset\n"


@pytest.mark.parametrize("answered", [in_11, in_15])
def test_a_deployed_app_does_not_differ(answered: object) -> None:
    app = mysql_app(site())
    assert differences(app, answered(app)) == []  # type: ignore[operator]


def test_the_documents_variable_is_a_difference() -> None:
    app = mysql_app(site())
    present = in_11({**app, "env": {"MYSQL_DB": "BucketList", **app["env"]}})
    assert [difference.field for difference in differences(app, present)] == ["env.MYSQL_DB"]


def test_an_app_in_a_group_has_a_directory_of_its_own() -> None:
    assert secrets_directory(site("app: db/mysql")) == "/etc/runbook/db.mysql"


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


def test_the_host_gets_image_folder_and_files_that_root_alone_reads() -> None:
    image, data, _, folder, files, root, user, _ = preparation(site())
    assert isinstance(image, Image)
    assert image.tag == "mysql:5.7.13"
    assert data == DataFolder("/opt/mysql", mode="0700")
    assert folder == Directory("/etc/runbook", mode="0700")
    assert files == Directory("/etc/runbook/mysql", mode="0700")
    for step, name, password in (
        (root, "MYSQL_ROOT_PASSWORD", "heron-under-ice"),
        (user, "MYSQL_PASSWORD", "otter-over-sand"),
    ):
        assert isinstance(step, File)
        assert (step.path, step.mode, step.secret) == (f"/etc/runbook/mysql/{name}", "0600", True)
        assert step.content == f"{password}\n"
        assert redact(repr(step)) == repr(step)


def test_the_passwords_are_in_no_plan() -> None:
    *_, root, user, _ = preparation(site())
    for state in ("kind=absent\n", "kind=file\nmode=600\nowner=root\nuid=0\ngroup=root\ngid=0\nsize=3\nsha256=abc\n"):
        for step in (root, user):
            change = step.plan(state)
            assert change is not None
            assert change.diff.startswith("(secret content)")
            assert "heron" not in repr(change)
            assert "otter" not in repr(change)


@pytest.mark.parametrize("shell", PRESENT)
def test_a_file_that_is_no_longer_used_goes_with_its_backups(
    tmp_path: Path, shell: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runbook.services.mysql.app.STATE_DIR", str(tmp_path / "state"))
    step = RetiredSecrets(str(tmp_path / "mysql.env"))
    backup = tmp_path / "state/backup/record" / step.path.strip("/")
    backup.parent.mkdir(parents=True)
    backup.write_text("heron-under-ice")
    Path(step.path).write_text("otter-over-sand")
    host = LocalHost(shell, tmp_path / "state")
    change = host.apply(step)
    assert change is not None
    assert change.diff == f"-{step.path}\n-{backup}\n"
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.parametrize("shell", PRESENT)
def test_a_secret_leaves_no_backup(tmp_path: Path, shell: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "STATE_DIR", str(tmp_path / "state"))
    host = LocalHost(shell, tmp_path / "state")
    path = tmp_path / "secret"
    for content in ("heron-under-ice", "otter-over-sand"):
        host.apply(File(str(path), content, mode="0600", owner=ME, group=MY_GROUP, secret=True))
    kept = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert kept == [path]


@pytest.mark.parametrize("shell", PRESENT)
def test_files_and_containers_that_show_a_password_are_found(
    tmp_path: Path, shell: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runbook.services.mysql.app.STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setattr("runbook.services.mysql.app.FOLDER", str(tmp_path / "etc"))
    work_dir = tmp_path / "mesos"
    parameters = site()
    updates = work_dir / "meta/slaves/S0/task.updates"
    updates.parent.mkdir(parents=True)
    updates.write_bytes(b"\0\1MYSQL_PASSWORD=otter-over-sand\0")
    (updates.parent / "task.info").write_bytes(b"MYSQL_USER=test")
    docker = tmp_path / "bin/docker"
    docker.parent.mkdir()
    docker.write_text(
        '#!/bin/sh\ncase $1 in (ps) echo aaa bbb;; (inspect) echo "$2: heron-under-ice" | grep -v bbb;; esac\n'
    )
    docker.chmod(0o755)
    host = LocalHost(shell, tmp_path / "state", environment={"PATH": f"{docker.parent}:{os.environ['PATH']}"})
    probe = Piece("0", leaks_probe(parameters).replace(parameters.mesos.slave.work_dir, str(work_dir)))
    assert host.run(probe)["0"] == Frame("", "", 0)  # before 6.1
    files = Path(secrets_directory(parameters))
    files.mkdir(parents=True)
    (files / "MYSQL_ROOT_PASSWORD").write_text("heron-under-ice\n")
    (files / "MYSQL_PASSWORD").write_text("otter-over-sand\n")
    found = leaks("node1", host.run(probe)["0"].out)
    assert [finding.evidence for finding in found] == [f"file {updates}", "docker inspect aaa"]
    assert all("ALTER USER" in finding.remedy for finding in found)
    assert "heron" not in str(found)


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
