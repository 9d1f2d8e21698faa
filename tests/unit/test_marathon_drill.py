"""The drill: which process is ended, and when an app counts as recovered."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from local_host import PRESENT, SHELLS
from marathon_answers import in_11, task

from runbook.errors import StepFailed
from runbook.services.marathon import Marathon
from runbook.services.marathon.drill import Recovery, Victim

Json = dict[str, Any]
COMMAND = "while true; do sleep 0.1; done"
APP = in_11({"id": "hello", "cmd": COMMAND})
NAMES = {"198.51.100.11": "node1"}
TASK = task(1, host="198.51.100.11", id=f"hello.{uuid.uuid4()}")  # nobody else's on this machine


@pytest.fixture(params=PRESENT)
def shell(request: pytest.FixtureRequest) -> list[str]:
    return SHELLS[request.param]


@pytest.fixture
def processes() -> Iterator[list[subprocess.Popen[bytes]]]:
    """Processes that a test starts; those that live are ended after it."""
    started: list[subprocess.Popen[bytes]] = []
    yield started
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def start(*argv: str, task_id: str = TASK["id"], **more: Any) -> subprocess.Popen[bytes]:
    """A process with a task's environment, which leads a session as mesos-executor starts them."""
    return subprocess.Popen(argv, env={**os.environ, "MESOS_TASK_ID": task_id}, start_new_session=True, **more)


def run(shell: list[str], script: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*shell, "-s"], input=script, capture_output=True, text=True, check=False)


@pytest.mark.skipif(shutil.which("sh") is None, reason="needs sh")
def test_only_the_task_s_own_process_group_is_ended(shell: list[str], processes: list[subprocess.Popen[bytes]]) -> None:
    ours = start("sh", "-c", COMMAND)
    executor = start("sleep", "100")  # it has the task's id in its environment as well
    other_task = start("sh", "-c", COMMAND, task_id="hello.another")
    processes += [ours, executor, other_task]
    done = run(shell, Victim.of(APP, TASK, NAMES).script())
    assert (done.stdout, done.stderr, done.returncode) == (f"killed={ours.pid}\n", "", 0)
    assert ours.wait(5) == -signal.SIGKILL
    assert (executor.poll(), other_task.poll()) == (None, None)


@pytest.mark.skipif(shutil.which("sh") is None, reason="needs sh")
def test_a_subshell_is_not_taken_for_the_task(shell: list[str], processes: list[subprocess.Popen[bytes]]) -> None:
    """It has the shell's command line and environment, and ending it ends no task."""
    command = f"(echo here; {COMMAND}) & wait"
    ours = start("sh", "-c", command, stdout=subprocess.PIPE)
    processes.append(ours)
    assert ours.stdout is not None
    with ours.stdout:
        assert ours.stdout.readline() == b"here\n"
    script = Victim.of(in_11({"id": "hello", "cmd": command}), TASK, NAMES).script()
    found = "/proc/[0-9]*/environ 2>/dev/null"
    assert found in script
    done = run(shell, script.replace(found, f"{found} | sort -r"))
    assert (done.stdout, done.returncode) == (f"killed={ours.pid}\n", 0)
    assert ours.wait(5) == -signal.SIGKILL


def test_a_task_that_is_not_there_is_told(shell: list[str]) -> None:
    done = run(shell, Victim.of(APP, {**TASK, "id": "hello.gone"}, NAMES).script())
    assert (done.stdout, done.returncode) == ("", 1)
    assert "no process" in done.stderr


def test_only_a_command_on_a_host_of_the_site_can_be_crashed() -> None:
    docker = in_11({"id": "web", "cmd": "x", "container": {"docker": {"image": "a:1"}}})
    with pytest.raises(StepFailed, match="/web is no command"):
        Victim.of(docker, TASK, NAMES)
    with pytest.raises(StepFailed, match="runs on elsewhere"):
        Victim.of(APP, {**TASK, "host": "elsewhere"}, NAMES)


class Answering(Marathon):
    """A Marathon whose app is in this state."""

    def __init__(self, *tasks: Json, failure: Json | None = None) -> None:
        super().__init__({"m0": "http://127.0.0.1:1"})
        self.state = in_11({"id": "hello", "cmd": COMMAND}, tasks=list(tasks), lastTaskFailure=failure)

    def app(self, name: str) -> Json:
        return self.state


KEPT = task(2, host="198.51.100.11")
NEW = task(3, host="198.51.100.11")
LOST = task(4, host="node9", state="TASK_LOST")
"""As 1.1.2 to 1.3 list a task that went with its host; later ones leave out its times, ports and version."""
FAILURE = {"taskId": TASK["id"], "state": "TASK_FAILED", "message": "Command terminated with signal Killed"}


@pytest.mark.parametrize(
    ("now", "holds", "told"),
    [
        (Answering(TASK, KEPT), False, "Marathon still counts it as running; 2 of 2 run"),
        (
            Answering(KEPT, failure=FAILURE),
            False,
            "it ended (TASK_FAILED: Command terminated with signal Killed); 1 of 2",
        ),
        (Answering(KEPT, {**NEW, "startedAt": None}), False, "Marathon started hello.3 on node1:9003; 1 of 2 run"),
        (Answering(KEPT, NEW, failure=FAILURE), True, "Marathon started hello.3 on node1:9003; 2 of 2 run"),
        (Answering(KEPT, NEW, LOST), True, "2 of 2 run"),
    ],
)
def test_an_app_has_recovered_once_as_many_run_as_before(now: Answering, holds: bool, told: str) -> None:
    recovery = Recovery("/hello", Victim.of(APP, TASK, NAMES), 4711, (TASK, KEPT, LOST), NAMES)
    evidence = recovery.watch(now)
    assert evidence.holds is holds
    assert evidence.text.startswith(f"process 4711 of {TASK['id']} on node1 was killed; ")
    assert told in evidence.text
    assert evidence.table is not None
    after = evidence.table.set_index("task")["after"]
    assert after[TASK["id"]] == ("✗ crashed" if TASK["id"] not in {t["id"] for t in now.state["tasks"]} else "running")
    assert after["hello.2"] == "running"
