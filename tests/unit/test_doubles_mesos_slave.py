"""What a slave double keeps on disk and asks of Docker, and the wrapper that starts the daemons."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from collections.abc import Callable
from http.client import HTTPConnection
from pathlib import Path

import pytest

from runbook.lab import rpms
from runbook.lab.doubles.mesos import checkpoint, executors
from runbook.lab.doubles.mesos.cluster import Task, make_status
from runbook.lab.doubles.mesos.docker import Docker, DockerError
from runbook.lab.doubles.mesos.executors import Executor
from runbook.lab.doubles.mesos.flags import SLAVE, Flags
from runbook.lab.doubles.mesos.glog import Log
from runbook.lab.doubles.mesos.slave import Slave

WRAPPER = Path(rpms.__file__).parent / "mesos" / "mesos-init-wrapper"
Script = Callable[[str], Path]


def docker_task(**docker: object) -> Task:
    """The Docker task of the recorded conversation, with its `docker` part changed."""
    info = {
        "name": "dock",
        "task_id": {"value": "dock"},
        "agent_id": {"value": "S0"},
        "command": {"shell": True, "value": "sleep 1000"},
        "resources": [
            {"name": "cpus", "type": "SCALAR", "scalar": {"value": 0.1}},
            {"name": "mem", "type": "SCALAR", "scalar": {"value": 32}},
        ],
        "container": {"type": "DOCKER", "docker": {"image": "t:1", "network": "BRIDGE", **docker}},
    }
    return Task(info, "F0")


@pytest.fixture
def script(tmp_path: Path) -> Script:
    """Makes a program of a shell script's text."""

    def make(text: str) -> Path:
        path = tmp_path / "program"
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
        return path

    return make


def test_docker_run_of_a_task() -> None:
    docker = Docker(Flags(SLAVE, [], {}))
    task = docker_task(port_mappings=[{"host_port": 9010, "container_port": 8080, "protocol": "tcp"}], privileged=True)
    task.info["container"]["volumes"] = [
        {"host_path": "/opt/data", "container_path": "/data", "mode": "RO"},
        {"host_path": "relative", "container_path": "/r"},
        {"container_path": "/anonymous"},
    ]
    argv = docker.run_command("mesos-S0.uuid", task, "/box", {"PORT": "9010"})
    assert " ".join(argv) == (
        "docker -H unix:///var/run/docker.sock run --cpu-shares 102 --memory 33554432 --privileged -e PORT=9010 "
        "-v /opt/data:/data:ro -v /box/relative:/r:rw -v /anonymous:rw -v /box:/mnt/mesos/sandbox --net bridge "
        "-p 9010:8080/tcp --entrypoint /bin/sh --name mesos-S0.uuid t:1 -c sleep 1000"
    )


def test_docker_run_without_a_shell() -> None:
    docker = Docker(Flags(SLAVE, [], {}))
    task = docker_task(parameters=[{"key": "hostname", "value": "db"}])
    task.info["command"] = {"shell": False, "arguments": ["--verbose"]}
    argv = docker.run_command("n", task, "/box", {})
    assert argv[argv.index("--hostname=db") :] == ["--hostname=db", "--name", "n", "t:1", "--verbose"]


@pytest.mark.parametrize(
    ("says", "problem"),
    [
        ("Docker version 1.11.1, build 5604cbe", None),
        ("Docker version 20.10.24+dfsg1, build 297e128", "Invalid version component 24+dfsg1"),
    ],
)
def test_docker_must_have_a_plain_version(script: Script, says: str, problem: str | None) -> None:
    """Real mesos-slave 0.28.0 refuses Debian's Docker with these words."""
    docker = Docker(Flags(SLAVE, [f"--docker={script(f'echo {says}')}"], {}))
    if problem is None:
        docker.check_version()
    else:
        with pytest.raises(DockerError, match=f"Failed to parse docker version: {problem.replace('+', '.')}"):
            docker.check_version()


@pytest.mark.parametrize(
    ("image", "force", "asked"),
    [
        ("t:1", False, "inspect t:1\npull t:1\n"),
        ("t", True, "pull t:latest\n"),
        ("host:8600/t", False, "inspect host:8600/t:latest\npull host:8600/t:latest\n"),
    ],
)
def test_an_image_is_pulled_where_it_is_missing(
    script: Script, tmp_path: Path, image: str, force: bool, asked: str
) -> None:
    program = script(f'shift 2; echo "$@" >>{tmp_path}/asked; [ "$1" = pull ]')
    Docker(Flags(SLAVE, [f"--docker={program}"], {})).provide(image, force, 5)
    assert (tmp_path / "asked").read_text() == asked


def test_a_failed_pull_tells_what_docker_said(script: Script) -> None:
    program = script("echo no such host >&2; exit 1")
    with pytest.raises(DockerError) as failure:
        Docker(Flags(SLAVE, [f"--docker={program}"], {})).provide("t:1", True, 5)
    expected = f"'{program} -H unix:///var/run/docker.sock pull t:1': exited with status 1; stderr='no such host'"
    assert str(failure.value) == f"Failed to run {expected}"


def test_metadata_lies_where_mesos_has_it(tmp_path: Path) -> None:
    store = checkpoint.Store(str(tmp_path))
    assert store.recoverable() is None
    store.create_slave("S0", {"hostname": "a"})
    assert os.readlink(tmp_path / "meta/slaves/latest") == str(tmp_path / "meta/slaves/S0")
    assert store.recoverable() == tmp_path / "meta/slaves/S0"
    run = store.create_run("S0", "F0", "task")
    inner = f"slaves/S0/frameworks/F0/executors/task/runs/{run.container}"
    assert (run.sandbox, run.meta) == (tmp_path / inner, tmp_path / "meta" / inner)
    assert os.readlink(run.sandbox.with_name("latest")) == str(run.sandbox)


def test_a_reboot_makes_a_new_slave(tmp_path: Path) -> None:
    store = checkpoint.Store(str(tmp_path))
    store.recoverable()
    store.create_slave("S0", {})
    (tmp_path / "meta/boot_id").write_text("another boot")
    assert store.recoverable() is None
    assert not store.latest.is_symlink()
    assert (tmp_path / "meta/slaves/S0/slave.info").exists()


def test_statuses_that_wait_survive_a_restart(tmp_path: Path) -> None:
    store = checkpoint.Store(str(tmp_path))
    store.create_slave("S0", {})
    store.keep_framework("S0", "F0", {"name": "f"})
    executor = Executor.create({"name": "f"}, docker_task(), store.create_run("S0", "F0", "dock"))
    first = make_status("dock", "TASK_RUNNING", "SOURCE_EXECUTOR")
    second = make_status("dock", "TASK_FAILED", "SOURCE_EXECUTOR", message="Container exited with status 1")
    executor.note(first)
    executor.note(second)
    assert not executor.acknowledge(second["uuid"])
    assert executor.acknowledge(first["uuid"])
    ((framework, framework_id, executor_id, run),) = store.runs("S0")
    again = Executor.recover(framework, framework_id, run)
    assert again is not None
    assert (again.key, executor_id, again.framework) == (("F0", "dock"), "dock", {"name": "f"})
    assert again.waiting == [second]
    assert again.task.state == "TASK_FAILED"


def test_a_reused_pid_is_no_executor(tmp_path: Path) -> None:
    run = checkpoint.Store(str(tmp_path)).create_run("S0", "F0", "task")
    assert checkpoint.live_pid(run) is None
    checkpoint.keep_pid(run, os.getpid())
    assert checkpoint.live_pid(run) == os.getpid()
    (run.meta / "pids/forked.start").write_text("1")
    assert checkpoint.live_pid(run) is None


def test_usage_counts_descendants() -> None:
    user, system, resident = checkpoint.usage(os.getpid())
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        more = checkpoint.usage(os.getpid())
        alone = checkpoint.usage(child.pid)
        child.communicate(b"\n")
    assert user + system > 0
    assert more[2] > alone[2] > 0
    assert resident > 0


@pytest.mark.parametrize(
    ("role", "files", "expected"),
    [
        (
            "master",
            {
                "mesos/zk": "zk://a:2181,b:2181/mesos\n",
                "default/mesos": 'LOGS=/var/log/mesos\nULIMIT="-n 512"\n',
                "default/mesos-master": "PORT=8150\nZK=`cat /etc/mesos/zk`\nMESOS_CLUSTER=lab\n",
                "mesos-master/quorum": "2\n",
                "mesos-master/?no-hostname_lookup": "",
                "mesos-master/.hidden": "x",
            },
            "--zk=zk://a:2181,b:2181/mesos --port=8150 --log_dir=/var/log/mesos --no-hostname_lookup --quorum=2 lab",
        ),
        (
            "slave",
            {
                "default/mesos-slave": "MASTER=zk://a/mesos\nPORT=1\n",
                "mesos-slave/port": "5051",
                "mesos-slave/attributes/rack": "r1",
                "mesos-slave/attributes/zone": "z",
                "mesos-slave/resources/ports": "[1-2]",
            },
            "--master=zk://a/mesos --port=5051 --attributes=rack:r1;zone:z --resources=ports:[1-2] ",
        ),
    ],
)
def test_wrapper_makes_the_command_line(tmp_path: Path, role: str, files: dict[str, str], expected: str) -> None:
    """The wrapper itself, with its absolute paths moved below a folder, and a logger that writes into it."""
    text = WRAPPER.read_text(encoding="utf-8").replace("/etc/", f"{tmp_path}/etc/")
    wrapper = tmp_path / "wrapper"
    wrapper.write_text(text.replace("/usr/sbin/", f"{tmp_path}/sbin/"))
    for name, content in files.items():
        path = tmp_path / "etc" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content.replace("/etc/", f"{tmp_path}/etc/"))
    programs = {
        f"sbin/mesos-{role}": 'echo "$@" "${MESOS_CLUSTER:-}"; echo "$0" >&2',
        "bin/logger": f'while read -r line; do echo "$*: $line" >>{tmp_path}/log.$2; done; echo >{tmp_path}/over.$2',
    }
    for name, content in programs.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh\n{content}\n")
        path.chmod(0o755)
    # The loggers hold the output's end until they are done, so that `run` returns when both have written.
    environment = {"PATH": f"{tmp_path}/bin:{os.environ['PATH']}"}
    argv = f"bash {wrapper} {role} 3>&1 | cat"
    subprocess.run(["bash", "-c", argv], env=environment, check=True, timeout=30)
    said = (tmp_path / "log.user.info").read_text().strip()
    tag, _, line = said.partition(": ")
    assert tag.startswith(f"-p user.info -t mesos-{role}[")
    assert line == expected.strip()
    assert f"sbin/mesos-{role}" in (tmp_path / "log.user.err").read_text()


def test_wrapper_refuses_other_roles() -> None:
    done = subprocess.run(["bash", str(WRAPPER), "agent"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "usage: mesos-init-wrapper master|slave\n")


def test_everything_that_runs_on_a_node_is_in_the_package() -> None:
    recipe = next(recipe for recipe in rpms.recipes() if recipe.name == "mesos")
    modules = {path.name for path in (rpms.DOUBLES / "mesos").glob("*.py")}
    assert modules <= recipe.sources.keys()


@pytest.mark.parametrize("path", sorted((rpms.DOUBLES / "mesos").glob("*.py")), ids=lambda path: path.name)
def test_the_doubles_need_nothing_but_kazoo(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names = [str(node.module)]
        else:
            continue
        assert {name.partition(".")[0] for name in names} <= {*sys.stdlib_module_names, "kazoo"}


def test_executor_runs_an_order(tmp_path: Path) -> None:
    program = rpms.DOUBLES / "mesos" / "executor.py"
    ready, started = os.pipe()
    order = {
        "argv": ["sh", "-c", "echo out; exit 3"],
        "env": {"PATH": os.environ["PATH"]},
        "user": None,
        "exit": str(tmp_path / "exit"),
        "grace": 1,
        "stop": None,
        "banner": ["Starting task t"],
        "ready": started,
        "lifeline": None,
    }
    done = subprocess.run(
        [str(program)],
        input=json.dumps(order),
        capture_output=True,
        text=True,
        timeout=30,
        pass_fds=[started],
        check=True,
    )
    os.close(started)
    with open(ready, "rb") as signs:
        assert signs.read() == b"1"
    assert json.loads((tmp_path / "exit").read_text()) == {"status": 3, "killed": False}
    lines = done.stdout.splitlines()
    assert (lines[0], lines[-1].partition(" (pid")[0]) == ("Starting task t", "Command exited with status 3")
    assert "out" in lines


def test_a_slave_that_recovers_is_healthy_and_unavailable(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = Flags(SLAVE, ["--ip=127.0.0.1", "--port=0", f"--work_dir={tmp_path}", "--master=127.0.0.1:5050"], {})
    slave = Slave(flags, Log("mesos-slave"))
    with slave.server as server:
        server.start()
        answers = {}
        for path in ("/slave(1)/state", "/slave(1)/health"):
            connection = HTTPConnection("127.0.0.1", server.server_port, timeout=5)
            connection.request("GET", path)
            answer = connection.getresponse()
            answers[path] = answer.status, answer.read()
            connection.close()
        server.shutdown()
    assert answers == {
        "/slave(1)/state": (503, b"Slave has not finished recovery"),
        "/slave(1)/health": (200, b""),
    }


def test_a_task_that_ends_while_its_start_is_acknowledged_is_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = Flags(SLAVE, ["--ip=127.0.0.1", "--port=0", f"--work_dir={tmp_path}", "--master=127.0.0.1:5050"], {})
    slave = Slave(flags, Log("mesos-slave"))
    slave.server.server_close()
    slave.id = "S0"
    slave.store.create_slave("S0", {})
    executor = Executor.create({"name": "f"}, docker_task(), slave.store.create_run("S0", "F0", "dock"))
    slave.executors[executor.key] = executor
    running = make_status("dock", "TASK_RUNNING", "SOURCE_EXECUTOR")
    slave._report(executor, running)

    def acknowledge_first(*parts: str, **more: object) -> dict[str, object]:
        slave._acknowledged({"framework_id": "F0", "task_id": "dock", "uuid": running["uuid"]})
        return make_status(*parts, **more)

    monkeypatch.setattr(executors, "make_status", acknowledge_first)
    slave.launcher._end(executor, "TASK_KILLED", "Command terminated with signal Terminated", None)
    assert [status["state"] for status in executor.waiting] == ["TASK_KILLED"]
    assert slave.executors == {executor.key: executor}
    slave._acknowledged({"framework_id": "F0", "task_id": "dock", "uuid": executor.waiting[0]["uuid"]})
    assert (slave.executors, list(slave.completed)) == ({}, [executor])
