"""Docker apps on the doubles, with a docker command that only counts (tests/contract/fake_docker.sh)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from daemons import Mesos, eventually
from marathons import Asked, Marathons

Json = dict[str, Any]


@pytest.fixture
def docker(tmp_path: Path) -> Path:
    """The docker command of this test."""
    link = tmp_path / "docker"
    link.symlink_to(Path(__file__).parents[1] / "fake_docker.sh")
    return link


@pytest.fixture
def marathon(zookeeper_for_doubles: str, tmp_path: Path, docker: Path) -> Iterator[Asked]:
    with Mesos(zookeeper_for_doubles, tmp_path / "mesos") as mesos:
        mesos.master()
        mesos.slave("--containerizers=docker,mesos", f"--docker={docker}")
        mesos.registered(1)
        with Marathons(mesos) as marathons:
            marathons.instance()
            yield marathons.leader()


def runs(docker: Path) -> list[str]:
    """The words of each `docker run`, but for the first ones."""
    return [file.read_text() for file in sorted(Path(f"{docker}.d").glob("mesos-*.argv"))]


def test_the_documents_mysql_corrected(marathon: Asked, docker: Path) -> None:
    container = {
        "type": "DOCKER",
        "docker": {
            "image": "t:1",
            "network": "BRIDGE",
            "portMappings": [{"containerPort": 3306, "hostPort": 0, "servicePort": 0, "protocol": "tcp"}],
        },
        "volumes": [{"containerPath": "/var/lib/mysql", "hostPath": "/opt/mysql", "mode": "RW"}],
    }
    app = {"id": "mysql", "cpus": 0.5, "mem": 128, "container": container, "env": {"MYSQL_DATABASE": "BucketList"}}
    (task,) = marathon.deploy(app)["tasks"]
    (port,) = task["ports"]
    assert 8401 <= port <= 9100
    assert task["ipAddresses"] == [{"ipAddress": "172.17.0.2", "protocol": "IPv4"}]
    (run,) = runs(docker)
    for part in (
        f"-p {port}:3306/tcp",
        "--net bridge",
        "--cpu-shares 512",
        f"--memory {128 * 2**20}",
        "-v /opt/mysql:/var/lib/mysql:rw",
        "-e MYSQL_DATABASE=BucketList",
        f"-e PORT_3306={port}",
        "-e MARATHON_APP_DOCKER_IMAGE=t:1",
    ):
        assert part in run
    assert re.search(r"--name mesos-\S+-S0\.[0-9a-f-]{36} t:1$", run)
    assert "--entrypoint" not in run, "the image's own command"


def test_the_documents_app_without_a_network(marathon: Asked, docker: Path) -> None:
    container = {"type": "DOCKER", "docker": {"image": "t:1"}}
    command = "while sleep 10; do date -u +%T; done"
    app = {"id": "centos-marathon", "container": container, "instances": 3, "cpus": 0.1, "mem": 32, "cmd": command}
    tasks = marathon.deploy({**app, "uris": []})["tasks"]
    assert len({task["ports"][0] for task in tasks}) == 3
    assert len(runs(docker)) == 3
    for run in runs(docker):
        assert "--net host" in run
        assert run.strip().endswith(f"t:1 -c {command}")


def test_an_image_that_cannot_be_had_is_the_last_failure(marathon: Asked) -> None:
    app = {"id": "none", "cpus": 0.1, "mem": 32, "container": {"docker": {"image": "none:1"}}, "cmd": "true"}
    assert marathon.ask("POST", "/v2/apps", {**app, "backoffSeconds": 60}).status_code == 201

    def failure() -> Json | None:
        found: Json | None = marathon.app("none").get("lastTaskFailure")
        return found

    found = eventually(failure, "it fails")
    assert found["state"] == "TASK_FAILED"
    assert found["message"].startswith("Failed to launch container: Failed to run '")
