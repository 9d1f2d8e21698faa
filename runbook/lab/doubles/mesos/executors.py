"""The executors of a slave: one for each command task, a process of its own that outlives the slave's restarts."""

import base64
import contextlib
import json
import os
import pwd
import select
import signal
import subprocess
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from subprocess import TimeoutExpired
from typing import Any

from .checkpoint import Run, keep_pid, live_pid, read, write
from .cluster import TERMINAL, Task, make_status
from .daemon import Address
from .docker import PREFIX, Docker, DockerError
from .flags import Flags
from .glog import Log
from .resources import Resources

Json = dict[str, Any]
OWN_RESOURCES = Resources.parse("cpus:0.1;mem:32")  # what Mesos adds for a command executor
INSPECT_DELAY = 0.5  # seconds between two looks whether a container runs
SHOWN_COMMAND = 15  # characters


@dataclass
class Executor:
    """A command executor, its one task, and the statuses that the framework has not acknowledged yet."""

    framework: Json
    task: Task
    run: Run
    waiting: list[Json] = field(default_factory=list)
    next_sending: float = 0.0  # by the monotonic clock; 0 means at once
    delay: float = 0.0
    pid: int | None = None
    kill_asked: bool = False
    silent: bool = False  # its framework or its slave ends: nobody is told
    over: threading.Event = field(default_factory=threading.Event)

    @classmethod
    def create(cls, framework: Json, task: Task, run: Run) -> "Executor":
        write(run.task_folder(task.id) / "task.info", {"info": task.info, "framework_id": task.framework_id})
        return cls(framework, task, run)

    @classmethod
    def recover(cls, framework: Json, framework_id: str, run: Run) -> "Executor | None":
        """From a run's metadata; None where the slave ended before it had written any."""
        info = next((run.meta / "tasks").glob("*/task.info"), None)
        if info is None:
            return None
        executor = cls(framework, Task(**read(info)), run)
        updates = info.with_name("task.updates")
        for line in updates.read_text(encoding="utf-8").splitlines() if updates.exists() else []:
            entry = json.loads(line)
            if "update" in entry:
                executor.task.update(entry["update"])
                executor.waiting.append(entry["update"])
            else:
                executor.waiting = [status for status in executor.waiting if status["uuid"] != entry["ack"]]
        return executor

    @property
    def key(self) -> tuple[str, str]:
        return self.task.framework_id, self.task.id

    @property
    def is_docker(self) -> bool:
        return bool(self.task.info.get("container", {}).get("type") == "DOCKER")

    @property
    def resources(self) -> Resources:
        """The executor's own, and its task's while that is live."""
        return OWN_RESOURCES if self.task.terminal else OWN_RESOURCES + self.task.resources

    @property
    def name(self) -> str:
        """As `src/slave/slave.cpp` makes it from the command."""
        command = self.task.info.get("command", {})
        if command.get("shell", True):
            shown, start, end, none = command.get("value"), "sh -c '", "'", "NO COMMAND"
        else:
            shown, start, end, none = command.get("value"), "[", "]", "NO EXECUTABLE"
            if shown is not None:
                shown = ", ".join([shown, *command.get("arguments", [])])
        if shown is not None and len(shown) > SHOWN_COMMAND:
            shown = f"{shown[: SHOWN_COMMAND - 3]}..."
        text = none if shown is None else f"{start}{shown}{end}"
        return f"Command Executor (Task: {self.task.id}) (Command: {text})"

    def container_name(self, slave_id: str | None) -> str:
        return f"{PREFIX}{slave_id}.{self.run.container}"

    def note(self, status: Json) -> None:
        """Keep a new status, on disk too, until it is acknowledged."""
        self.task.update(status)
        self.waiting.append(status)
        self._log({"update": status})

    def acknowledge(self, uuid: str) -> bool:
        """Forget the status that was sent; False where the acknowledgement is for another."""
        if not self.waiting or self.waiting[0]["uuid"] != uuid:
            return False
        self.waiting.pop(0)
        self._log({"ack": uuid})
        return True

    def _log(self, entry: Json) -> None:
        with (self.run.task_folder(self.task.id) / "task.updates").open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")


class _Refused(Exception):
    """A task that no container was made for."""

    def __init__(self, message: str, reason: str = "REASON_CONTAINER_LAUNCH_FAILED") -> None:
        super().__init__(message)
        self.reason = reason


class Launcher:
    """Starts executors, watches them, and reports what becomes of their tasks."""

    def __init__(
        self,
        flags: Flags,
        log: Log,
        address: Address,
        docker: Docker | None,
        report: Callable[[Executor, Json], None],
    ) -> None:
        self._flags = flags
        self._log = log
        self._address = address
        self._docker = docker
        self._report = report

    def launch(self, executor: Executor, slave_id: str) -> None:
        """Start an executor for a new task, in a thread."""
        threading.Thread(target=self._launch, args=(executor, slave_id), daemon=True).start()

    def resume(self, executor: Executor) -> None:
        """Watch an executor that was started by an earlier life of this slave, or report its end."""
        executor.pid = live_pid(executor.run)
        if executor.task.terminal and executor.pid is None:
            executor.over.set()
        else:
            threading.Thread(target=self._watch, args=(executor, None), daemon=True).start()

    def kill(self, executor: Executor) -> None:
        """End a task, at once or as soon as it has started."""
        executor.kill_asked = True
        if executor.pid is not None and not executor.over.is_set():
            with contextlib.suppress(ProcessLookupError):
                os.kill(executor.pid, signal.SIGTERM)

    def _launch(self, executor: Executor, slave_id: str) -> None:
        try:
            order = self._order(executor, slave_id)
            if executor.kill_asked:
                self._end(executor, "TASK_KILLED", "Container destroyed while preparing", None)
                return
            process = self._start(executor, order)
        except _Refused as refusal:
            self._log.error(
                "slave.cpp:3590",
                f"Container '{executor.run.container}' for executor '{executor.task.id}' of framework "
                f"{executor.task.framework_id} failed to start: {refusal}",
            )
            self._end(executor, "TASK_FAILED", str(refusal), refusal.reason)
            return
        self._watch(executor, process)

    def _order(self, executor: Executor, slave_id: str) -> Json:
        """What the executor is to do; `_Refused` where no containerizer can."""
        info = executor.task.info
        wanted = info.get("container", {}).get("type", "MESOS").lower()
        containerizers = self._flags["containerizers"]
        if wanted not in containerizers.split(","):
            raise _Refused(
                f"None of the enabled containerizers ({containerizers}) could create a container "
                "for the provided TaskInfo/ExecutorInfo message"
            )
        if info.get("command", {}).get("uris"):
            raise _Refused("Failed to launch container: the rehearsal double fetches no URIs")
        command = info.get("command", {})
        asked = {v["name"]: v["value"] for v in command.get("environment", {}).get("variables", [])}
        order: Json = {
            "env": self._environment(executor, slave_id),
            "user": None,
            "exit": str(executor.run.exit),
            "grace": _grace(info) or 3.0,
            "stop": None,
            "banner": [f"Registered executor on {self._address.hostname}", f"Starting task {executor.task.id}"],
        }
        if wanted == "docker" and self._docker:
            name = executor.container_name(slave_id)
            self._provide_image(executor, self._docker)
            inside = {"MESOS_SANDBOX": self._docker.mapped_sandbox, "MESOS_CONTAINER_NAME": name}
            stop = ["stop", "-t", f"{self._flags.seconds('docker_stop_timeout'):.0f}", name]
            argv = self._docker.run_command(name, executor.task, str(executor.run.sandbox), asked | inside)
            return order | {"argv": argv, "stop": [*self._docker.command, *stop], "grace": 30.0}
        order["env"] |= asked
        shell = command.get("shell", True)
        order["argv"] = ["sh", "-c", command["value"]] if shell else command.get("arguments") or [command["value"]]
        order["user"] = self._user(executor)
        return order | {"banner": [*order["banner"], f"sh -c '{command['value']}'"]}

    def _environment(self, executor: Executor, slave_id: str) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("MESOS_", "LIBPROCESS_"))}
        checkpoint = {"MESOS_CHECKPOINT": "1"} if executor.framework.get("checkpoint") else {}
        return {
            **kept,
            **checkpoint,
            "MESOS_AGENT_ENDPOINT": f"{self._address.ip}:{self._address.port}",
            "MESOS_DIRECTORY": str(executor.run.sandbox),
            "MESOS_SANDBOX": str(executor.run.sandbox),
            "MESOS_EXECUTOR_ID": executor.task.id,
            "MESOS_FRAMEWORK_ID": executor.task.framework_id,
            "MESOS_SLAVE_ID": slave_id,
            "MESOS_SLAVE_PID": f"slave(1)@{self._address.ip}:{self._address.port}",
            "LIBPROCESS_PORT": "0",
        }

    def _provide_image(self, executor: Executor, docker: Docker) -> None:
        wanted = executor.task.info["container"]["docker"]
        timeout = self._flags.seconds("executor_registration_timeout")
        try:
            docker.provide(wanted["image"], bool(wanted.get("force_pull_image")), timeout)
        except DockerError as error:
            raise _Refused(f"Failed to launch container: {error}") from error
        except TimeoutExpired as error:
            self._log.info(
                "slave.cpp:4134",
                f"Terminating executor {executor.task.id} of framework {executor.task.framework_id} because it did "
                f"not register within {self._flags['executor_registration_timeout']}",
            )
            raise _Refused("Container destroyed while pulling image", "REASON_COMMAND_EXECUTOR_FAILED") from error

    def _user(self, executor: Executor) -> str | None:
        """The user to become, where `--switch_user` is set and it is another one; the sandbox is made theirs."""
        command = executor.task.info.get("command", {})
        user: str = command.get("user") or executor.framework["user"]
        if not self._flags.is_true("switch_user") or os.geteuid() != 0 or user == "root":
            return None
        try:
            found = pwd.getpwnam(user)
        except KeyError as error:
            raise _Refused(f"Failed to launch container: Failed to get user information for '{user}'") from error
        os.chown(executor.run.sandbox, found.pw_uid, found.pw_gid)
        return user

    def _start(self, executor: Executor, order: Json) -> subprocess.Popen[bytes]:
        """Start the executor and wait until it has started the task, or could not."""
        ready, started = os.pipe()
        inherited = [started]
        if not executor.framework.get("checkpoint"):
            lifeline, _ = os.pipe()  # the writing end closes when this process ends
            inherited.append(lifeline)
        sandbox = executor.run.sandbox
        try:
            with (sandbox / "stdout").open("ab") as out, (sandbox / "stderr").open("ab") as err:
                process = subprocess.Popen(
                    [f"{self._flags['launcher_dir']}/mesos-executor"],
                    stdin=subprocess.PIPE,
                    stdout=out,
                    stderr=err,
                    cwd=sandbox,
                    env=order["env"],
                    pass_fds=inherited,
                    start_new_session=True,
                )
        except OSError as error:
            raise _Refused(f"Failed to launch container: {error}") from error
        finally:
            for descriptor in inherited:
                os.close(descriptor)
        keep_pid(executor.run, process.pid)
        assert process.stdin is not None
        order |= dict(zip(("ready", "lifeline"), [*inherited, None], strict=False))
        with contextlib.suppress(BrokenPipeError), process.stdin:
            process.stdin.write(json.dumps(order).encode())
        with open(ready, "rb") as signs:
            signs.read(1)
        executor.pid = process.pid
        if executor.kill_asked:
            self.kill(executor)
        return process

    def _watch(self, executor: Executor, process: subprocess.Popen[bytes] | None) -> None:
        """Report that the task runs, and later how it ended."""
        ended = _wait_for(executor.pid)
        if executor.task.state == "TASK_STAGING":
            self._report_running(executor, ended)
        ended(None)
        if process:
            process.wait()
        try:
            outcome = read(executor.run.exit)
        except FileNotFoundError:
            if not executor.task.terminal:
                self._end(executor, "TASK_FAILED", "Abnormal executor termination", "REASON_COMMAND_EXECUTOR_FAILED")
            return
        if "error" in outcome:
            message = f"Failed to launch container: {outcome['error']}"
            self._end(executor, "TASK_FAILED", message, "REASON_CONTAINER_LAUNCH_FAILED")
            return
        state, message = _describe("Container" if executor.is_docker else "Command", outcome)
        self._end(executor, state, message, None, self._network(self._address.ip))
        if executor.is_docker and self._docker:
            self._remove_later(executor, self._docker)

    def _report_running(self, executor: Executor, ended: Callable[[float | None], bool]) -> None:
        docker = self._docker
        if not executor.is_docker or docker is None:
            if not _failed_to_start(executor.run):
                network = self._network(self._address.ip)
                self._report(executor, make_status(executor.task.id, "TASK_RUNNING", "SOURCE_EXECUTOR", **network))
            return
        name = executor.container_name(executor.task.slave_id)
        while not ended(INSPECT_DELAY):
            if found := docker.running(name):
                shown, ip = found
                more = self._network(ip or self._address.ip)
                if ip:
                    label = {"key": "Docker.NetworkSettings.IPAddress", "value": ip}
                    more["labels"] = {"labels": [label]}
                more["data"] = base64.b64encode(shown.encode()).decode()
                self._report(executor, make_status(executor.task.id, "TASK_RUNNING", "SOURCE_EXECUTOR", **more))
                return

    def _network(self, ip: str) -> Json:
        return {"container_status": {"network_infos": [{"ip_address": ip, "ip_addresses": [{"ip_address": ip}]}]}}

    def _end(self, executor: Executor, state: str, message: str, reason: str | None, more: Json | None = None) -> None:
        source = "SOURCE_AGENT" if reason else "SOURCE_EXECUTOR"
        status = make_status(executor.task.id, state, source, message=message, reason=reason, **(more or {}))
        self._report(executor, status)

    def _remove_later(self, executor: Executor, docker: Docker) -> None:
        def remove() -> None:
            with contextlib.suppress(DockerError):  # somebody else removed it
                docker.remove(executor.container_name(executor.task.slave_id))

        timer = threading.Timer(self._flags.seconds("docker_remove_delay"), remove)
        timer.daemon = True
        timer.start()


def _failed_to_start(run: Run) -> bool:
    return run.exit.exists() and "error" in read(run.exit)


def _wait_for(pid: int | None) -> Callable[[float | None], bool]:
    """A function that waits for a process up to so many seconds (None: forever) and tells whether it has ended."""
    if pid is None:
        return lambda seconds: True
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return lambda seconds: True
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return lambda seconds: bool(poll.poll(None if seconds is None else seconds * 1000))


def _grace(info: Json) -> float | None:
    nanoseconds = info.get("kill_policy", {}).get("grace_period", {}).get("nanoseconds")
    return None if nanoseconds is None else float(nanoseconds) / 1e9


def _describe(what: str, outcome: Json) -> tuple[str, str]:
    status: int = outcome["status"]
    ended = f"terminated with signal {signal.strsignal(-status)}" if status < 0 else f"exited with status {status}"
    state = "TASK_FINISHED" if status == 0 else "TASK_KILLED" if outcome["killed"] else "TASK_FAILED"
    assert state in TERMINAL
    return state, f"{what} {ended}"
