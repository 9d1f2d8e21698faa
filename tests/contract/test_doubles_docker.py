"""Docker tasks on the slave double, with a docker command that only counts (tests/contract/fake_docker.sh)."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
from contract import recorded
from daemons import Daemon, Mesos, eventually
from framework import Framework, task

Json = dict[str, Any]


@pytest.fixture
def docker(mesos: Mesos) -> Path:
    """The docker command of this test."""
    link = mesos.folder / "docker"
    link.symlink_to(Path(__file__).with_name("fake_docker.sh"))
    return link


def docker_slave(mesos: Mesos, docker: Path, *flags: str) -> Daemon:
    return mesos.slave("--containerizers=docker,mesos", f"--docker={docker}", *flags)


def container(image: str, **more: object) -> Json:
    return {"type": "DOCKER", "docker": {"image": image, "network": "BRIDGE", **more}}


def names(docker: Path) -> list[str]:
    listed = subprocess.run([docker, "-H", "unix://x", "ps"], capture_output=True, text=True, check=True)
    return listed.stdout.split()


def test_a_docker_task_from_pull_to_kill(mesos: Mesos, docker: Path) -> None:
    master = mesos.master()
    slave = docker_slave(mesos, docker)
    (known,) = mesos.registered(1)
    with Framework(master.url) as framework:
        mapping = {"host_port": 8401, "container_port": 80, "protocol": "tcp"}
        info = task("web", "serve", ports=(8401,), container=container("pulled:1", port_mappings=[mapping]))
        framework.launch(framework.offer(), info)
        status = framework.status("web", "TASK_RUNNING")
        assert status["container_status"]["network_infos"][0]["ip_address"] == "172.17.0.2"
        label = {"key": "Docker.NetworkSettings.IPAddress", "value": "172.17.0.2"}
        assert status["labels"] == {"labels": [label]}
        (executor,) = slave.get("/state")["frameworks"][0]["executors"]
        name = f"mesos-{known['id']}.{executor['container']}"
        assert names(docker) == [name]
        argv = (Path(f"{docker}.d") / f"{name}.argv").read_text()
        for part in ("-p 8401:80/tcp", "--memory 33554432", "-e PORT=8401", f"-e MESOS_CONTAINER_NAME={name}"):
            assert part in argv
        shown = executor["tasks"][0]
        assert shown["container"]["docker"]["privileged"] is False
        assert shown["statuses"][0]["labels"] == [label]
        slave.signal(signal.SIGTERM)
        slave.ends()
        slave.start()
        mesos.registered(1)
        assert names(docker) == [name]
        framework.call("KILL", kill={"task_id": {"value": "web"}})
        assert framework.status("web", "TASK_KILLED")["message"] == "Container exited with status 137"


def recorded_containers() -> list[Json]:
    """The containers of the tasks of a real slave, one with volumes, parameters and a port mapping, one with none."""
    (state,) = recorded("nine-chapters/slave_state.json")
    executors = [executor for framework in state["frameworks"] for executor in framework["executors"]]
    return [shown["container"] for executor in executors for shown in executor["tasks"] if "container" in shown]


@pytest.mark.parametrize("shown", recorded_containers(), ids=lambda shown: shown["docker"]["network"])
def test_a_container_is_shown_as_recorded(mesos: Mesos, docker: Path, shown: Json) -> None:
    """Master and slave show its lists where they are not empty, and the defaults of its fields."""
    shown = {**shown, "docker": {**shown["docker"], "image": "t:1"}}
    asked = {"volumes": [], **shown, "docker": {"parameters": [], "port_mappings": [], **shown["docker"]}}
    del asked["docker"]["privileged"]
    if shown["docker"]["network"] == "HOST":
        del asked["docker"]["network"]
    master = mesos.master()
    slave = docker_slave(mesos, docker)
    mesos.registered(1)
    with Framework(master.url) as framework:
        info = task("web", None, container=asked) | {"command": {"shell": False}}
        framework.launch(framework.offer(), info)
        framework.status("web", "TASK_RUNNING")
        (executor,) = slave.get("/state")["frameworks"][0]["executors"]
        assert executor["tasks"][0]["container"] == shown
        assert executor["name"] == "Command Executor (Task: web) (Command: NO EXECUTABLE)"
        (known,) = master.get("/tasks")["tasks"]
        assert known["container"] == shown
        framework.call("KILL", kill={"task_id": {"value": "web"}})
        framework.status("web", "TASK_KILLED")


@pytest.mark.parametrize(
    ("image", "containerizers", "message"),
    [
        ("none:1", "docker,mesos", "Failed to launch container: Failed to run '"),
        ("slow:1", "docker,mesos", "Container destroyed while pulling image"),
        (
            "t:1",
            "mesos",
            "None of the enabled containerizers (mesos) could create a container for the provided TaskInfo",
        ),
    ],
)
def test_docker_tasks_that_do_not_start(
    mesos: Mesos, docker: Path, image: str, containerizers: str, message: str
) -> None:
    master = mesos.master()
    slave = mesos.slave(
        f"--containerizers={containerizers}", f"--docker={docker}", "--executor_registration_timeout=1secs"
    )
    mesos.registered(1)
    with Framework(master.url) as framework:
        framework.launch(framework.offer(), task("x", "true", container=container(image)))
        assert framework.status("x", "TASK_FAILED")["message"].startswith(message)
    if image == "slow:1":
        assert "because it did not register within 1secs" in slave.text()


def test_orphaned_containers_are_removed(mesos: Mesos, docker: Path) -> None:
    """Docker containers of an earlier slave go when a new one starts, unlike its processes."""
    master = mesos.master()
    slave = docker_slave(mesos, docker)
    mesos.registered(1)
    with Framework(master.url) as framework:
        framework.launch(framework.offer(), task("left", "serve", container=container("t:1")))
        framework.status("left", "TASK_RUNNING")
        slave.stop()
        (slave.folder / "meta/slaves/latest").unlink()
        slave.start()
        framework.status("left", "TASK_LOST")
    eventually(lambda: names(docker) == [], "the orphan is removed")


def test_a_slave_without_a_docker_that_works_does_not_start(mesos: Mesos) -> None:
    slave = docker_slave(mesos, mesos.folder / "missing")
    assert slave.ends() == 1
    assert "Failed to create a containerizer: Could not create DockerContainerizer" in slave.text()


def test_a_slave_whose_docker_daemon_is_down_does_not_recover(mesos: Mesos) -> None:
    program = mesos.folder / "docker"
    program.write_text(
        '#!/bin/sh\n[ "$3" = --version ] && exec echo Docker version 1.11.1,\necho is it running >&2; exit 1\n'
    )
    program.chmod(0o755)
    slave = docker_slave(mesos, program)
    assert slave.ends() == 1
    assert f"Failed to perform recovery: Collect failed: Failed to run '{program} -H unix" in slave.text()
