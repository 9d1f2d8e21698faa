"""mesos-slave: registration with the leading master, tasks, status updates and recovery; `main` is the program."""

import os
import random
import shutil
import signal
import sys
import threading
import time
from collections import deque
from pathlib import Path
from typing import Any

from . import flags as flag_tables
from .checkpoint import Store, read
from .cluster import TERMINAL, Task, now
from .daemon import Address, serve, warn_of_loopback
from .docker import PREFIX, Docker, DockerError
from .executors import Executor, Launcher
from .flags import Flags
from .glog import Log
from .http import EventSource, Gone, Request, Response, call, ok, text
from .resources import ResourceError, Resources, attributes
from .slave_views import metrics, state, statistics
from .zk import Group, Url, View

Json = dict[str, Any]
IDLE = 75.0  # seconds without a ping, until the master says otherwise
RETRY_FIRST, RETRY_LAST = 10.0, 600.0  # seconds between two sendings of a status update, doubled each time
TICK = 0.5
MAX_COMPLETED = 150  # executors that are remembered


class Slave:
    """A slave: recovering, then attached to the leading master or waiting for one."""

    def __init__(self, flags: Flags, log: Log) -> None:
        self.flags = flags
        self.log = log
        self.address = Address.of(flags)
        self.start_time = now()
        self.store = Store(flags["work_dir"])
        self.store.work_dir.mkdir(parents=True, exist_ok=True)
        given = Resources.parse(flags.get("resources") or "")
        self.resources = given.with_defaults(flags["work_dir"])
        self.info: Json = {
            "hostname": self.address.hostname,
            "ip": self.address.ip,
            "port": self.address.port,
            "resources": self.resources.to_api(),
            "attributes": attributes(flags.get("attributes") or ""),
        }
        self.id: str | None = None
        self.recovered = False
        self.registered = False
        self.terminating = False
        self.leader: Json | None = None
        self.executors: dict[tuple[str, str], Executor] = {}
        self.completed: deque[Executor] = deque(maxlen=MAX_COMPLETED)
        self.lock = threading.RLock()
        self._leader_changed = threading.Condition(self.lock)
        self._source: EventSource | None = None
        self.docker = Docker(flags) if "docker" in flags["containerizers"].split(",") else None
        self.launcher = Launcher(flags, log, self.address, self.docker, self._report)
        self.server, self.files = serve("slave", flags, log)
        self.files.attached[str(self.store.work_dir / "slaves")] = self.store.work_dir / "slaves"
        self._add_routes()

    def run(self) -> None:
        """Recover, then serve the leading master until the process ends."""
        self.log.info("slave.cpp:193", f"Slave started on 1)@{self.address.ip}:{self.address.port}")
        self.log.info("slave.cpp:194", f"Flags at startup: {self.flags}")
        warn_of_loopback(self.address, "Slave", "slave.cpp:197", self.log)
        self.log.info("slave.cpp:464", f"Slave resources: {self.resources}")
        self.log.info("slave.cpp:472", f"Slave attributes: [ {_show_attributes(self.info)} ]")
        self.log.info("slave.cpp:477", f"Slave hostname: {self.address.hostname}")
        self.server.start()
        self._recover()
        signal.signal(signal.SIGUSR1, lambda number, frame: self._unregister())
        master = self.flags["master"]
        if master.startswith("zk://"):
            Group(Url.parse(master), 10.0, self.log, self.group_changed).start()
        else:
            ip, _, port = master.removeprefix("master@").partition(":")
            address = {"ip": ip, "port": int(port or 5050)}
            self.group_changed(View({"pid": f"master@{ip}:{address['port']}", "hostname": ip, "address": address}))
        threading.Thread(target=self._follow_leader, name="master", daemon=True).start()
        pause = threading.Event()
        while not pause.wait(TICK):
            self._resend()

    # Recovery

    def _recover(self) -> None:
        self.log.info("state.cpp:58", f"Recovering state from '{self.store.meta}'")
        folder = self.store.recoverable()
        if folder is not None:
            old = read(folder / "slave.info")
            if not _compatible(old, self.info):
                self._give_up(
                    "Incompatible slave info detected.\n"
                    f"{RULE}\nOld slave info:\n{_info_text(old, folder.name)}\n"
                    f"{RULE}\nNew slave info:\n{_info_text(self.info, folder.name)}\n{RULE}"
                )
            self.id = folder.name
            for framework, framework_id, executor_id, run in self.store.runs(folder.name):
                self.log.info("slave.cpp:5476", f"Recovering executor '{executor_id}' of framework {framework_id}")
                executor = Executor.recover(framework, framework_id, run)
                if executor is None:
                    continue
                if run.sentinel.exists():
                    self.completed.append(executor)
                else:
                    self.executors[executor.key] = executor
        if self.docker and self.flags.is_true("docker_kill_orphans"):
            try:
                self._remove_orphans(self.docker)
            except DockerError as error:
                self._give_up(f"Collect failed: {error}")
        for executor in list(self.executors.values()):
            self.launcher.resume(executor)
        self.recovered = True
        self.log.info("slave.cpp:4565", "Finished recovery")

    def _remove_orphans(self, docker: Docker) -> None:
        known = {executor.container_name(self.id) for executor in self.executors.values()}
        for name in docker.containers():
            if name.startswith(PREFIX) and name not in known:
                self.log.info("docker.cpp:1000", f"Removing the orphaned Docker container '{name}'")
                docker.remove(name)

    def _give_up(self, why: str) -> None:
        print(
            f"Failed to perform recovery: {why}\nTo remedy this do as follows:\n"
            f"Step 1: rm -f {self.store.latest}\n"
            "        This ensures slave doesn't recover old live executors.\n"
            "Step 2: Restart the slave.",
            file=sys.stderr,
            flush=True,
        )
        os._exit(1)

    # The master

    def group_changed(self, view: View) -> None:
        """Take note of the leader; leave one that leads no longer."""
        with self.lock:
            if self.leader and not view.leader:
                self.log.info("slave.cpp:789", "Lost leading master")
            self.leader = view.leader
            self._leader_changed.notify_all()
            if self._source:
                self._source.stop()

    def _follow_leader(self) -> None:
        announced: str | None = None
        while not self.terminating:
            with self.lock:
                self._leader_changed.wait_for(lambda: self.leader is not None)
                leader = self.leader
            assert leader is not None
            if leader["pid"] != announced:
                announced = leader["pid"]
                self.log.info("slave.cpp:796", f"New master detected at {announced}")
                self.log.info("slave.cpp:821", "No credentials provided. Attempting to register without authentication")
                self.log.info("slave.cpp:832", "Detecting new master")
                self.log.info("status_update_manager.cpp:174", "Pausing sending status updates")
            self._pause_before_registration()
            try:
                source = EventSource(_host_port(leader), "/rehearsal/slave", self._introduction(), IDLE)
            except Gone:
                continue  # not yet a leader that has recovered
            self._listen(source, leader)
            if self.registered:
                self.registered = False
                announced = None
                self.log.info("slave.cpp:3528", f"{leader['pid']} exited")
                self.log.warning("slave.cpp:3531", "Master disconnected! Waiting for a new master to be elected")

    def _pause_before_registration(self) -> None:
        """Spread the registrations of many slaves, as `--registration_backoff_factor` says."""
        threading.Event().wait(random.uniform(0.1, 1.0) * self.flags.seconds("registration_backoff_factor"))

    def _introduction(self) -> Json:
        with self.lock:
            tasks = [executor.task.to_wire() for executor in self.executors.values() if not executor.silent]
            return {"id": self.id, "info": self.info, "tasks": tasks}

    def _listen(self, source: EventSource, leader: Json) -> None:
        with self.lock:
            if self.leader != leader:
                source.close()
                return
            self._source = source
        try:
            for message in source:
                self._handle(message, source, leader)
        except TimeoutError:
            self.log.info("slave.cpp:3518", f"No pings from master received within {IDLE:g}secs")
        finally:
            with self.lock:
                self._source = None
            source.close()

    def _handle(self, message: Json, source: EventSource, leader: Json) -> None:
        kind = message["type"]
        if kind == "REGISTERED":
            source.set_idle(message["idle"])
            self._registered(message["id"], leader)
        elif kind == "PING":
            self._send({"type": "PONG"})
        elif kind == "LAUNCH":
            self._launch(message)
        elif kind == "ACKNOWLEDGE":
            self._acknowledged(message)
        elif kind == "KILL":
            executor = self.executors.get((message["framework_id"], message["task_id"]))
            self.log.info(
                "slave.cpp:1879",
                f"Asked to kill task {message['task_id']} of framework {message['framework_id']}",
            )
            if executor:
                self.launcher.kill(executor)
        elif kind == "SHUTDOWN_FRAMEWORK":
            self._shut_framework_down(message["framework_id"], leader)
        elif kind == "SHUTDOWN":
            self.log.info(
                "slave.cpp:710", f"Slave asked to shut down by {leader['pid']} because '{message['message']}'"
            )
            self._terminate()

    def _registered(self, slave_id: str, leader: Json) -> None:
        with self.lock:
            if self.id is None:
                self.log.info("slave.cpp:971", f"Registered with master {leader['pid']}; given slave ID {slave_id}")
                self.id = slave_id
                self.store.create_slave(slave_id, self.info)
                place = "slave.cpp:1030"
            else:
                self.log.info("slave.cpp:1071", f"Re-registered with master {leader['pid']}")
                place = "slave.cpp:1107"
            self.registered = True
            self.log.info("status_update_manager.cpp:181", "Resuming sending status updates")
            self.log.info(place, "Forwarding total oversubscribed resources ")
            for executor in self.executors.values():
                executor.next_sending = 0.0
        self._resend()

    def _send(self, message: Json) -> None:
        """Tell the leader something; what it does not hear is told again later or no longer of use."""
        leader = self.leader
        if leader is None:
            return
        try:
            call(_host_port(leader), "POST", "/rehearsal/slave/message", {"id": self.id, **message})
        except Gone as error:
            self.log.warning("slave.cpp:3400", f"Could not send {message['type']}: {error}")

    def _unregister(self) -> None:
        self.log.info("slave.cpp:716", "Received SIGUSR1 signal from user root; unregistering and shutting down")
        self._send({"type": "UNREGISTER"})
        self._terminate()

    def _terminate(self) -> None:
        """End with all tasks; the next start registers anew."""
        with self.lock:
            self.terminating = True
            for executor in self.executors.values():
                executor.silent = True
                self.launcher.kill(executor)
            live = list(self.executors.values())
        for executor in live:
            executor.over.wait(self.flags.seconds("executor_shutdown_grace_period") + 2)
        self.store.latest.unlink(missing_ok=True)
        self.log.info("slave.cpp:668", "Slave terminating")
        os._exit(0)

    # Tasks

    def _launch(self, message: Json) -> None:
        task = Task(message["task"], message["framework_id"])
        framework = message["framework"]
        assert self.id is not None
        self.log.info("slave.cpp:1361", f"Got assigned task {task.id} for framework {task.framework_id}")
        self.log.info("slave.cpp:1480", f"Launching task {task.id} for framework {task.framework_id}")
        run = self.store.create_run(self.id, task.framework_id, task.id)
        if framework.get("checkpoint"):
            self.store.keep_framework(self.id, task.framework_id, framework)
        executor = Executor.create(framework, task, run)
        self.log.info(
            "slave.cpp:5367",
            f"Launching executor {task.id} of framework {task.framework_id} with resources cpus(*):0.1; mem(*):32 "
            f"in work directory '{run.sandbox}'",
        )
        with self.lock:
            self.executors[executor.key] = executor
        self.launcher.launch(executor, self.id)

    def _report(self, executor: Executor, status: Json) -> None:
        """A task's new status: note it and send it, unless an earlier one still waits for its acknowledgement."""
        status |= {"agent_id": {"value": self.id}, "executor_id": {"value": executor.task.id}}
        task = executor.task
        with self.lock:
            # With its last status under one lock: an acknowledgement in between would take it for told already.
            if status["state"] in TERMINAL:
                executor.over.set()
            if not executor.silent:
                self.log.info(
                    "slave.cpp:3002",
                    f"Handling status update {status['state']} for task {task.id} of framework {task.framework_id}",
                )
                executor.note(status)
            if executor.over.is_set() and not executor.waiting:
                self._complete(executor)
        self._resend()

    def _resend(self) -> None:
        """Send each task's oldest unacknowledged status whose time has come."""
        due: list[tuple[Executor, Json]] = []
        with self.lock:
            if not self.registered:
                return
            present = time.monotonic()
            for executor in self.executors.values():
                if executor.waiting and present >= executor.next_sending:
                    executor.delay = min(RETRY_LAST, executor.delay * 2) if executor.next_sending else RETRY_FIRST
                    executor.next_sending = present + executor.delay
                    due.append((executor, executor.waiting[0]))
        for executor, status in due:
            task = executor.task
            shown = f"{status['state']} for task {task.id} of framework {task.framework_id}"
            self.log.info("slave.cpp:3400", f"Forwarding the update {shown} to the master")
            self._send({"type": "UPDATE", "framework_id": task.framework_id, "status": status})

    def _acknowledged(self, message: Json) -> None:
        with self.lock:
            executor = self.executors.get((message["framework_id"], message["task_id"]))
            if executor is None or not executor.acknowledge(message["uuid"]):
                return
            executor.next_sending = 0.0
            if executor.over.is_set() and not executor.waiting:
                self._complete(executor)
        self._resend()

    def _complete(self, executor: Executor) -> None:
        executor.run.sentinel.touch()
        self.executors.pop(executor.key, None)
        self.completed.append(executor)

    def _shut_framework_down(self, framework_id: str, leader: Json) -> None:
        self.log.info("slave.cpp:2079", f"Asked to shut down framework {framework_id} by {leader['pid']}")
        with self.lock:
            for executor in [e for e in self.executors.values() if e.task.framework_id == framework_id]:
                executor.silent = True
                executor.waiting.clear()
                if executor.over.is_set():
                    self._complete(executor)
                else:
                    self.launcher.kill(executor)

    # Endpoints

    def _add_routes(self) -> None:
        self.server.route(self._state, "/state", "/slave(1)/state")
        self.server.route(lambda request: ok({"flags": self.flags.values}), "/flags", "/slave(1)/flags")
        self.server.route(self._statistics, "/monitor/statistics")
        self.server.route(self._metrics, "/metrics/snapshot")

    def _state(self, request: Request) -> Response:
        if not self.recovered:
            return text(503, "Slave has not finished recovery")
        with self.lock:
            return ok(state(self))

    def _statistics(self, request: Request) -> Response:
        with self.lock:
            return ok(statistics(self.executors.values()))

    def _metrics(self, request: Request) -> Response:
        with self.lock:
            return ok(metrics(self))


RULE = "-" * 60


def _host_port(leader: Json) -> str:
    return f"{leader['address']['ip']}:{leader['address']['port']}"


def _compatible(old: Json, new: Json) -> bool:
    """Whether a slave may go on under its id: Mesos compares hostname, port, attributes and resources."""
    same = all(old[key] == new[key] for key in ("hostname", "port", "attributes"))
    return same and Resources.from_api(old["resources"]).same(Resources.from_api(new["resources"]))


def _info_text(info: Json, slave_id: str) -> str:
    """A SlaveInfo in the text form of protobuf."""
    shown: Json = {"hostname": info["hostname"], "resources": info["resources"], "attributes": info["attributes"]}
    return _proto_text(shown | {"id": {"value": slave_id}, "checkpoint": True, "port": info["port"]})


def _proto_text(message: Json, indent: str = "") -> str:
    lines = []
    for name, value in message.items():
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, dict):
                ordered = {key: one[key] for key in sorted(one, key=_FIELD_ORDER.index)} if "name" in one else one
                lines.append(f"{indent}{name} {{\n{_proto_text(ordered, indent + '  ')}{indent}}}\n")
            else:
                lines.append(f"{indent}{name}: {_proto_value(name, one)}\n")
    return "".join(lines)


_FIELD_ORDER = ["name", "type", "scalar", "ranges", "text", "role"]


def _proto_value(name: str, value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str) and name != "type":
        return f'"{value}"'
    return f"{value:.10g}" if isinstance(value, float) else str(value)


def _show_attributes(info: Json) -> str:
    shown = []
    for attribute in info["attributes"]:
        value = attribute.get("text") or attribute.get("scalar") or attribute["ranges"]
        shown.append(f"{attribute['name']}={value.get('value', value)}")
    return ", ".join(shown)


def main() -> None:
    """The program mesos-slave; takes its command line from `sys.argv`."""
    flags = flag_tables.load("mesos-slave", flag_tables.SLAVE, sys.argv[1:])
    if flags.get("master") is None:
        flag_tables.leave_with_usage("mesos-slave", flag_tables.SLAVE, "Missing required option --master")
    log = Log("mesos-slave", flags.get("log_dir"), flags["logging_level"])
    log.info("main.cpp:223", "Build: 2016-03-17 00:00:00 by rehearsal double")
    log.info("main.cpp:225", "Version: 0.28.0")
    runtime = flags["systemd_runtime_directory"]
    if flags.is_true("systemd_enable_support") and shutil.which("systemctl") and not Path(runtime).is_dir():
        _leave(f"Failed to initialize systemd: Failed to locate systemd runtime directory: {runtime}")
    try:
        if flags["master"].startswith("zk://"):
            Url.parse(flags["master"])
    except ValueError as error:
        _leave(f"Failed to create a master detector: {error}")
    try:
        if "docker" in flags["containerizers"].split(","):
            Docker(flags).check_version()
    except DockerError as error:
        _leave(
            f"Failed to create a containerizer: Could not create DockerContainerizer: Failed to create docker: {error}"
        )
    log.info("main.cpp:328", "Starting Mesos slave")
    try:
        slave = Slave(flags, log)
    except ResourceError as error:
        _leave(f"Failed to determine slave resources: {error}")
    slave.run()


def _leave(message: str) -> None:
    print(message, file=sys.stderr)
    sys.exit(1)
