"""mesos-master: election, registration of slaves and their pings, and the HTTP endpoints; `main` is the program."""

import os
import socket
import struct
import sys
import threading
import time
import uuid
from collections.abc import Callable
from typing import Any

from . import flags as flag_tables
from . import master_views as views
from .cluster import Task, now
from .daemon import BUILD, Address, serve, warn_of_loopback
from .flags import Flags
from .glog import Log
from .http import EventStream, Handler, Request, Response, form, not_allowed, ok, temporary_redirect, text
from .maintenance import Maintenance
from .registrar import PATH as REPLICA
from .registrar import Registrar, RegistryError, Replica
from .scheduler import Scheduler
from .state import Cluster, Framework, Slave
from .zk import Group, Url, View

Json = dict[str, Any]
TICK = 0.25  # seconds between two looks at what time brings
TASK_LIMIT = 100  # of /tasks, unless asked otherwise
AFTER_REMOVAL = "Slave attempted to re-register after removal"


class NotRecoveredError(Exception):
    """A change of the registry by a master that does not hold it: a standby, or a leader that still recovers."""


class Master:
    """A master of the group: a standby, or the leader that holds the cluster."""

    def __init__(self, flags: Flags, log: Log) -> None:
        self.flags = flags
        self.log = log
        self.id = str(uuid.uuid4())
        self.address = Address.of(flags)
        self.pid = f"master@{self.address.ip}:{self.address.port}"
        self.start_time = now()
        self.elected_time: float | None = None
        self.recovered_at: float | None = None  # by the monotonic clock
        self.view = View()
        self.cluster = Cluster(int(flags["max_completed_frameworks"]), int(flags["max_completed_tasks_per_framework"]))
        self.replica = Replica(flags["work_dir"])
        self.registrar = Registrar(int(flags.get("quorum") or 1), self._replicas, log)
        self.maintenance = Maintenance(
            lambda: self.registrar.registry,
            self._store,
            self._drop_machine,
            lambda: [slave.info for slave in list(self.cluster.slaves.values())],
        )
        interval = flags.seconds("allocation_interval")
        self.scheduler = Scheduler(self.cluster, self.id, log, interval, self.maintenance.unavailability)
        self._admitting: set[str] = set()
        self.server, _ = serve("master", flags, log)
        self._add_routes()

    @property
    def info(self) -> Json:
        """The MasterInfo of this master, as its znode has it; `ip` is a number in network order read little-endian."""
        number = struct.unpack("<I", socket.inet_aton(self.address.ip))[0]
        return {
            "address": {"hostname": self.address.hostname, "ip": self.address.ip, "port": self.address.port},
            "hostname": self.address.hostname,
            "id": self.id,
            "ip": number,
            "pid": self.pid,
            "port": self.address.port,
            "version": "0.28.0",
        }

    def run(self) -> None:
        """Serve until the process ends."""
        warn_of_loopback(self.address, "Master", "master.cpp:383", self.log)
        self.log.info("master.cpp:376", f"Master {self.id} ({self.address.hostname}) started on {self.pid[7:]}")
        self.log.info("master.cpp:378", f"Flags at startup: {self.flags}")
        self.server.start()
        zk = self.flags.get("zk")
        if zk is None:
            self.group_changed(View(self.info))
        else:
            group = Group(Url.parse(zk), self.flags.seconds("zk_session_timeout"), self.log, self.group_changed)
            group.contend(self.info, f"log-replica(1)@{self.address.ip}:{self.address.port}")
            group.start()
        pause = threading.Event()
        while not pause.wait(TICK):
            self._tick()

    # Election and recovery

    def group_changed(self, view: View) -> None:
        """Take note of the leader; become it, or end where the leadership is lost."""
        with self.cluster.lock:
            previous, self.view = self.view, view
            if view.leader == previous.leader:
                return
            shown = f"{view.leader['pid']} with id {view.leader['id']}" if view.leader else "None"
            self.log.info("master.cpp:1711", f"The newly elected leader is {shown}")
            leads = view.leader is not None and view.leader["id"] == self.id
            if self.elected_time is not None and not leads:
                print("Lost leadership... committing suicide!", file=sys.stderr, flush=True)
                os._exit(1)
            if leads:
                self.elected_time = now()
                self.log.info("master.cpp:1724", "Elected as the leading master!")
                threading.Thread(target=self._recover, name="recovery", daemon=True).start()

    def _replicas(self) -> list[str]:
        own = f"{self.address.ip}:{self.address.port}"
        return [pid.partition("@")[2] for pid in self.view.replicas] or [own]

    def _recover(self) -> None:
        self.log.info("master.cpp:1469", "Recovering from registrar")
        timeout = self.flags["registry_fetch_timeout"]
        try:
            self.registrar.recover(self.flags.seconds("registry_fetch_timeout"), timeout)
        except RegistryError as error:
            self.log.fatal("master.cpp:1458", f"Recovery failed: {error}")
        slaves = self.registrar.registry.get("slaves", {})
        with self.cluster.lock:
            self.cluster.recovered = dict(slaves)
            self.recovered_at = time.monotonic()
        self.log.info(
            "master.cpp:1521",
            f"Recovered {len(slaves)} slaves from the Registry ({self.registrar.size}B) ; "
            f"allowing {self.flags['slave_reregister_timeout']} for slaves to re-register",
        )

    def _store(self, change: Callable[[Json], Json], failure: str = "Failed to update the registry") -> None:
        """Write the registry, without the lock, or abort as Mesos does where no quorum takes it."""
        timeout = self.flags["registry_store_timeout"]
        if self.recovered_at is None:
            raise NotRecoveredError("Attempted to apply the operation before recovering")
        try:
            self.registrar.update(change, self.flags.seconds("registry_store_timeout"), timeout)
        except RegistryError as error:
            self.log.fatal("master.cpp:4232", f"{failure}: {error}")

    def _admit(self, slave_id: str, info: Json) -> None:
        def admitted(registry: Json) -> Json:
            return registry | {"slaves": registry.get("slaves", {}) | {slave_id: info}}

        shown = f"{slave_id} at slave(1)@{info['ip']}:{info['port']} ({info['hostname']})"
        self._store(admitted, f"Failed to admit slave {shown}")

    def _expel(self, slave_ids: list[str]) -> None:
        def expelled(registry: Json) -> Json:
            kept = {key: info for key, info in registry.get("slaves", {}).items() if key not in slave_ids}
            return registry | {"slaves": kept}

        self._store(expelled, f"Failed to remove slaves {', '.join(slave_ids)}")

    # Slaves

    def _slave_stream(self, request: Request) -> Response | EventStream:
        """A slave registers, or re-registers with its id, and stays connected."""
        if self.recovered_at is None:
            return text(503, "Master has not finished recovery, or is no leader")
        asked = request.json()
        info, slave_id = asked["info"], asked.get("id")
        stream = EventStream({}, lambda: self._slave_disconnected(stream))
        if self.maintenance.is_down(info):
            return self._turn_away(stream, "Machine is `DOWN`")
        pid = f"slave(1)@{info['ip']}:{info['port']}"
        with self.cluster.lock:
            if pid in self._admitting:
                shown = f"{pid} ({info['hostname']})"
                message = f"Ignoring register slave message from {shown} as admission is already in progress"
                self.log.info("master.cpp:4194", message)
                return text(503, message)
            self._admitting.add(pid)
        try:
            return self._reregister(slave_id, asked, stream) if slave_id else self._register(info, pid, stream)
        finally:
            with self.cluster.lock:
                self._admitting.discard(pid)

    def _turn_away(self, stream: EventStream, message: str) -> EventStream:
        stream.send({"type": "SHUTDOWN", "message": message})
        stream.close()
        return stream

    def _register(self, info: Json, pid: str, stream: EventStream) -> EventStream:
        self.cluster.counts["messages_register_slave"] += 1
        for old in [slave for slave in self.cluster.slaves.values() if slave.pid == pid]:
            self.log.info(
                "master.cpp:4167", f"Removing old disconnected slave {old} because a registration attempt occurred"
            )
            self.remove_slave(old, "a new slave registered at the same address", "reason_registered")
        with self.cluster.lock:
            slave_id = f"{self.id}-S{self.cluster.next_number('S')}"
        shown = f"{pid} ({info['hostname']})"
        self.log.info("master.cpp:4206", f"Registering slave at {shown} with id {slave_id}")
        self._admit(slave_id, info)
        slave = Slave(slave_id, info, now(), stream)
        with self.cluster.lock:
            self._attach(slave, stream)
            self.cluster.counts["slave_registrations"] += 1
            self.log.info(
                "hierarchical.cpp:473", f"Added slave {slave_id} ({info['hostname']}) with {slave.total} (allocated: )"
            )
        self.log.info("master.cpp:4274", f"Registered slave {slave} with {slave.total}")
        return stream

    def _reregister(self, slave_id: str, asked: Json, stream: EventStream) -> EventStream:
        info = asked["info"]
        reported = [Task(**wire) for wire in asked["tasks"]]
        with self.cluster.lock:
            self.cluster.counts["messages_reregister_slave"] += 1
            slave = self.cluster.slaves.get(slave_id)
            if slave_id in self.cluster.removed:
                shown = f"{slave_id} at slave(1)@{info['ip']}:{info['port']} ({info['hostname']})"
                self.log.warning(
                    "master.cpp:4344", f"Slave {shown} attempted to re-register after removal; shutting it down"
                )
                return self._turn_away(stream, AFTER_REMOVAL)
        if slave is None:
            slave = Slave(slave_id, info, now(), stream)
            self.log.info("master.cpp:4439", f"Re-registering slave {slave}")
            self._admit(slave_id, info)
        else:
            self.log.info("master.cpp:4366", f"Re-registering slave {slave}")
        with self.cluster.lock:
            slave.info = info
            slave.reregistered_time = now()
            self.cluster.recovered.pop(slave_id, None)
            if slave.stream is not stream:
                slave.stream.close()
            self._attach(slave, stream)
            self._compare(slave, reported)
            self.cluster.counts["slave_reregistrations"] += 1
        self.log.info("master.cpp:4521", f"Re-registered slave {slave} with {slave.total}")
        return stream

    def _attach(self, slave: Slave, stream: EventStream) -> None:
        slave.stream, slave.connected = stream, True
        slave.unanswered, slave.next_ping = 0, 0.0
        self.cluster.slaves[slave.id] = slave
        idle = self.flags.seconds("slave_ping_timeout") * int(self.flags["max_slave_ping_timeouts"])
        stream.send({"type": "REGISTERED", "id": slave.id, "idle": idle})

    def _compare(self, slave: Slave, reported: list[Task]) -> None:
        """Bring the master's picture of a slave's tasks and the slave's own together."""
        over = {framework.id for framework in self.cluster.completed}
        for framework_id in {task.framework_id for task in reported} & over:
            slave.stream.send({"type": "SHUTDOWN_FRAMEWORK", "framework_id": framework_id})
        known = {(task.framework_id, task.id) for task in reported}
        for key, task in list(slave.tasks.items()):
            if key not in known and not task.terminal:
                self.scheduler.lose(task, "Reconciliation: task unknown to the slave", "REASON_RECONCILIATION")()
        for task in reported:
            if (task.framework_id, task.id) in slave.tasks or task.framework_id in over:
                continue
            slave.tasks[task.framework_id, task.id] = task
            framework = self.cluster.frameworks.get(task.framework_id)
            if framework:
                framework.tasks[task.id] = task
            else:
                self.log.warning(
                    "master.cpp:6143",
                    f"Possibly orphaned task {task.id} of framework {task.framework_id} running on slave {slave}",
                )

    def _slave_disconnected(self, stream: EventStream) -> None:
        with self.cluster.lock:
            for slave in self.cluster.slaves.values():
                if slave.stream is stream:
                    slave.connected = False
                    self.log.info("master.cpp:1173", f"Slave {slave} disconnected")
                    self.log.info("master.cpp:2586", f"Disconnecting slave {slave}")
                    self.log.info("master.cpp:2605", f"Deactivating slave {slave}")
                    self._rescind_offers(slave)
                    self.log.info("hierarchical.cpp:560", f"Slave {slave.id} deactivated")
                    for task in list(slave.tasks.values()):
                        framework = self.cluster.frameworks.get(task.framework_id)
                        if framework and not framework.info.get("checkpoint") and not task.terminal:
                            self.scheduler.lose(task, "Slave disconnected", "REASON_AGENT_DISCONNECTED")()

    def _rescind_offers(self, slave: Slave) -> None:
        for offer in [offer for offer in self.cluster.offers.values() if offer.slave is slave]:
            self.cluster.rescind(offer)

    def _slave_message(self, request: Request) -> Response:
        message = request.json()
        with self.cluster.lock:
            slave = self.cluster.slaves.get(message["id"])
            if slave is None:
                return text(404, "no such slave")
            if message["type"] == "PONG":
                slave.unanswered = 0
            elif message["type"] == "UPDATE":
                self.scheduler.status_update(slave, message["framework_id"], message["status"])
        if message["type"] == "UNREGISTER":
            self.cluster.counts["messages_unregister_slave"] += 1
            self.remove_slave(slave, "the slave unregistered", "reason_unregistered")
        return ok({})

    def remove_slave(self, slave: Slave, why: str, reason: str, message: str | None = None) -> None:
        """Remove a slave and lose its tasks; `message` shuts it down where it can still hear. Without the lock."""
        with self.cluster.lock:
            if self.cluster.slaves.get(slave.id) is not slave:
                return
            self.log.info("master.cpp:6201", f"Removing slave {slave}: {why}")
            if message:
                self.log.warning("master.cpp:4930", f"Shutting down slave {slave} with message '{message}'")
                slave.stream.send({"type": "SHUTDOWN", "message": message})
            self._rescind_offers(slave)
            lost = f"Slave {slave.info['hostname']} removed: {why}"
            tasks = list(slave.tasks.values())
            tell = [self.scheduler.lose(task, lost, "REASON_AGENT_REMOVED") for task in tasks if not task.terminal]
            for task in tasks:
                self.cluster.forget(task)
            del self.cluster.slaves[slave.id]
            self.cluster.removed.add(slave.id)
            self.cluster.counts.update(["slave_removals", f"slave_removals/{reason}"])
            self.log.info("hierarchical.cpp:505", f"Removed slave {slave.id}")
            slave.stream.close()
        self._expel([slave.id])
        self.log.info("master.cpp:6320", f"Removed slave {slave.id} ({slave.info['hostname']}): {why}")
        with self.cluster.lock:
            for each in tell:
                each()
            shown = f"{slave.id} ({slave.info['hostname']})"
            for framework in self.cluster.frameworks.values():
                self.log.info(
                    "master.cpp:6343", f"Notifying framework {framework} of lost slave {shown} after recovering"
                )
                framework.send("FAILURE", failure={"agent_id": {"value": slave.id}})

    def _drop_machine(self, machine: Json) -> None:
        for slave in list(self.cluster.slaves.values()):
            if slave.info["hostname"].lower() == machine.get("hostname", "").lower() and (
                slave.info["ip"] == machine.get("ip")
            ):
                why = "Operator initiated 'Machine DOWN'"
                self.remove_slave(slave, why, "reason_unregistered", why)

    # Time

    def _tick(self) -> None:
        if self.recovered_at is None:
            return
        silent, late = [], []
        with self.cluster.lock:
            present = time.monotonic()
            for slave in self.cluster.slaves.values():
                if present >= slave.next_ping:
                    if slave.unanswered >= int(self.flags["max_slave_ping_timeouts"]):
                        silent.append(slave)
                    slave.unanswered += 1
                    slave.next_ping = present + self.flags.seconds("slave_ping_timeout")
                    slave.stream.send({"type": "PING"})
            if present - self.recovered_at > self.flags.seconds("slave_reregister_timeout"):
                late = list(self.cluster.recovered)
                self.cluster.recovered.clear()
                self.cluster.removed.update(late)
        self.scheduler.tick()
        for slave in silent:
            self.log.info("master.cpp:242", f"Shutting down slave {slave.id} due to health check timeout")
            self.cluster.counts.update(["slave_shutdowns_scheduled", "slave_shutdowns_completed"])
            why = "health check timed out"
            self._in_background(self.remove_slave, slave, why, "reason_unhealthy", why)
        if late:
            for slave_id in late:
                self.log.warning(
                    "master.cpp:1600",
                    f"Slave {slave_id} did not re-register within the timeout; removing it from the registrar",
                )
            self.cluster.counts.update(dict.fromkeys(["recovery_slave_removals", "slave_removals"], len(late)))
            self._in_background(self._expel, late)

    def _in_background(self, work: Callable[..., None], *arguments: object) -> None:
        """Do what writes the registry, which may take a while, beside what time brings."""
        threading.Thread(target=work, args=arguments, daemon=True).start()

    # Endpoints

    def _add_routes(self) -> None:
        views_of_cluster: dict[str, Callable[[Cluster], Json]] = {
            "slaves": views.slaves,
            "frameworks": views.frameworks,
            "roles": views.roles,
        }
        for name, view in views_of_cluster.items():
            self._route(name, self._show(view))
        own: dict[str, Handler] = {
            "state": self._state,
            "state-summary": self._summary,
            "tasks": self._tasks,
            "flags": lambda request: ok({"flags": self.flags.values}),
            "redirect": lambda request: self._redirect(),
            "teardown": self._teardown,
            "quota": self._quota,
            "maintenance/schedule": self._when_recovered(self.maintenance.schedule),
            "maintenance/status": self.maintenance.status,
            "machine/down": self._when_recovered(self.maintenance.down),
            "machine/up": self._when_recovered(self.maintenance.up),
            "reserve": self._operation("resources"),
            "unreserve": self._operation("resources"),
            "create-volumes": self._operation("volumes"),
            "destroy-volumes": self._operation("volumes"),
            "api/v1/scheduler": self._scheduler,
        }
        for name, handler in own.items():
            self._route(name, handler)
        self.server.route(self._metrics, "/metrics/snapshot")
        self.server.route(self.replica.serve, REPLICA)
        self.server.route(self._slave_stream, "/rehearsal/slave")
        self.server.route(self._slave_message, "/rehearsal/slave/message")

    def _route(self, name: str, handler: Handler) -> None:
        self.server.route(handler, f"/{name}", f"/master/{name}")

    def _show(self, view: Callable[[Cluster], Json]) -> Handler:
        def shown(request: Request) -> Response:
            with self.cluster.lock:
                return ok(view(self.cluster))

        return shown

    def _redirect(self) -> Response:
        to = self.view.leader or self.info
        return temporary_redirect(f"//{to['hostname']}:{to['port']}")

    def _with_leader(self, handler: Handler) -> Handler:
        def guarded(request: Request) -> Response | EventStream:
            if self.elected_time is None:
                return self._redirect()
            if self.recovered_at is None:
                return text(503, "Master has not finished recovery")
            return handler(request)

        return guarded

    def _when_recovered(self, handler: Handler) -> Handler:
        """Answer GET and refusals at once; what would change the registry needs a leader that has recovered it."""

        def guarded(request: Request) -> Response | EventStream:
            try:
                return handler(request)
            except NotRecoveredError as error:
                return text(503, str(error))

        return guarded

    def _scheduler(self, request: Request) -> Response | EventStream:
        return self._with_leader(self.scheduler.serve)(request)

    def _own_facts(self) -> Json:
        shown: Json = {"hostname": self.address.hostname}
        return shown | {key: value for key in ("cluster", "log_dir") if (value := self.flags.get(key)) is not None}

    def _state(self, request: Request) -> Response:
        with self.cluster.lock:
            shown = BUILD | self._own_facts() | {"start_time": self.start_time, "id": self.id, "pid": self.pid}
            if self.elected_time is not None:
                shown["elected_time"] = self.elected_time
            if self.view.leader:
                shown["leader"] = self.view.leader["pid"]
            return ok(shown | {"flags": self.flags.values} | views.state(self.cluster))

    def _summary(self, request: Request) -> Response:
        with self.cluster.lock:
            facts = self._own_facts()
            facts.pop("log_dir", None)
            return ok(facts | views.summary(self.cluster))

    def _tasks(self, request: Request) -> Response:
        numbers = {"limit": TASK_LIMIT, "offset": 0}
        for name in numbers:
            value = request.query.get(name, str(numbers[name]))
            if not value.isdigit():
                return text(400, f"Failed to parse {name}: Failed to convert '{value}' to number")
            numbers[name] = int(value)
        with self.cluster.lock:
            return ok(views.tasks(self.cluster, **numbers, ascending=request.query.get("order") == "asc"))

    def _metrics(self, request: Request) -> Response:
        with self.cluster.lock:
            elected = self.elected_time is not None
            return ok(views.metrics(self.cluster, elected, self.start_time, self.registrar if elected else None))

    def _quota(self, request: Request) -> Response:
        """`/quota`, and `/quota/ROLE` for DELETE."""
        if request.method == "GET":
            return ok({})
        if request.method == "DELETE":
            parts = request.path.strip("/").split("/", 2)
            if len(parts) < 3:
                return text(
                    400,
                    f"Failed to parse remove quota request for path '{request.path}': "
                    f"expected 3 tokens, found {len(parts)} tokens",
                )
            return text(400, f"Failed to remove quota for path '{request.path}': Role '{parts[2]}' has no quota set")
        if request.method != "POST":
            return not_allowed(request, "GET", "POST", "DELETE")
        return text(501, "The rehearsal double keeps no quota")

    def _operation(self, content: str) -> Handler:
        """What an operator does with the resources of a slave; the double only checks the request."""

        def checked(request: Request) -> Response:
            if request.method != "POST":
                return not_allowed(request, "POST")
            values = form(request)
            if "slaveId" not in values:
                return text(400, "Missing 'slaveId' query parameter")
            if values["slaveId"] not in self.cluster.slaves:
                return text(400, "No slave found with specified ID")
            if content not in values:
                return text(400, f"Missing '{content}' query parameter")
            return text(501, "The rehearsal double reserves nothing and makes no volumes")

        return checked

    def _teardown(self, request: Request) -> Response:
        if request.method != "POST":
            return not_allowed(request, "POST")
        wanted = form(request).get("frameworkId")
        if wanted is None:
            return text(400, "Missing 'frameworkId' query parameter")
        with self.cluster.lock:
            framework: Framework | None = self.cluster.frameworks.get(wanted)
            if framework is None:
                return text(400, "No framework found with specified ID")
            self.scheduler.remove(framework)
        return text(200)


def main() -> None:
    """The program mesos-master; takes its command line from `sys.argv`."""
    flags = flag_tables.load("mesos-master", flag_tables.MASTER, sys.argv[1:])
    if flags.get("work_dir") is None:
        _leave("--work_dir needed for replicated log based registry")
    if flags.get("zk") is not None:
        if flags.get("quorum") is None:
            _leave("Need to specify --quorum for replicated log based registry when using ZooKeeper")
        try:
            Url.parse(flags["zk"])
        except ValueError as error:
            _leave(f"Failed to create a master contender: {error}")
    log = Log("mesos-master", flags.get("log_dir"), flags["logging_level"])
    log.info("main.cpp:237", "Build: 2016-03-17 00:00:00 by rehearsal double")
    log.info("main.cpp:239", "Version: 0.28.0")
    Master(flags, log).run()


def _leave(message: str) -> None:
    print(message, file=sys.stderr)
    sys.exit(1)
