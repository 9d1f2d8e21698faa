"""Mesos' scheduler HTTP API, `POST /api/v1/scheduler`, of an elected master: calls in JSON, events in RecordIO.

As recorded in tests/payloads/mesos-0.28.0/one-node/scheduler-v1.jsonl, and where that is silent, as Mesos'
documentation (docs/scheduler-http-api.md) and the messages of its master have it.
"""

import time
import uuid
from collections.abc import Callable
from typing import Any

from .cluster import TERMINAL, Task, make_status, now
from .glog import Log
from .http import JSON_TYPE, EventStream, Request, Response, not_allowed, text
from .protobuf import CALL, ConversionError, convert, parse
from .resources import ResourceError, Resources
from .state import Cluster, Framework, Offer, Slave

Json = dict[str, Any]
HEARTBEAT = 15.0  # seconds
REFUSE_SECONDS = 5.0  # for which a framework is not offered again what it left, unless it says otherwise
ALLOCATABLE = Resources.parse("cpus:0.01"), Resources.parse("mem:32")  # less is not worth an offer
PLAIN = {"TEARDOWN", "REVIVE", "SUPPRESS"}  # calls that are a type and nothing else
PROTOBUF_TYPE = "application/x-protobuf"


class Scheduler:
    """The frameworks of a cluster: their calls, their events, and what is offered to whom."""

    def __init__(
        self,
        cluster: Cluster,
        master_id: str,
        log: Log,
        allocation_interval: float,
        unavailability: Callable[[Json], Json | None],
    ) -> None:
        """`unavailability` tells of a slave's info when its machine will be under maintenance, if ever."""
        self.cluster = cluster
        self._allocation_interval = allocation_interval
        self._next_allocation = 0.0  # by the monotonic clock
        self.master_id = master_id
        self.log = log
        self._unavailability = unavailability

    def serve(self, request: Request) -> Response | EventStream:
        if request.method != "POST":
            return not_allowed(request, "POST")
        content_type = request.headers.get("content-type")
        if content_type is None:
            return text(400, "Expecting 'Content-Type' to be present")
        if content_type == PROTOBUF_TYPE:
            return text(501, "The rehearsal double has no protobuf")
        if content_type != JSON_TYPE:  # parameters are refused too
            return text(415, f"Expecting 'Content-Type' of {JSON_TYPE} or {PROTOBUF_TYPE}")
        try:
            call = parse(request.body)
        except ConversionError as error:
            return text(400, f"Failed to parse body into JSON: {error}")
        try:
            known = convert(call, CALL)
        except ConversionError as error:
            return text(400, f"Failed to convert JSON into Call protobuf: {error}")
        if problem := _problem(known):
            return text(400, f"Failed to validate Scheduler::Call: {problem}")
        stream_id = request.headers.get("mesos-stream-id")
        if call["type"] == "SUBSCRIBE":
            accepted = request.headers.get("accept", "*/*")
            if not any(kind in accepted for kind in (JSON_TYPE, "application/*", "*/*")):
                return text(406, f"Expecting 'Accept' to allow '{PROTOBUF_TYPE}' or '{JSON_TYPE}'")
            if stream_id is not None:
                return text(400, "Subscribe calls should not include the 'Mesos-Stream-Id' header")
            return self._subscribe(call)
        with self.cluster.lock:
            framework = self.cluster.frameworks.get(call["framework_id"]["value"])
            if framework is None:
                return text(400, "Framework cannot be found")
            if framework.stream is None:
                return text(403, "Framework is not subscribed")
            if stream_id is None:
                return text(400, "All non-subscribe calls should include the 'Mesos-Stream-Id' header")
            if stream_id != framework.stream_id:
                return text(
                    400,
                    "The stream ID included in this request didn't match the stream ID "
                    f"currently associated with framework ID '{framework.id}'",
                )
            self._handle(framework, call)
        return text(202)

    def _handle(self, framework: Framework, call: Json) -> None:
        kind = call["type"]
        content = call.get(kind.lower(), {})
        self.log.info("http.cpp:390", f"Processing {kind} call for framework {framework}")
        if kind == "ACCEPT":
            self._accept(framework, content)
        elif kind == "DECLINE":
            self._decline(framework, content)
        elif kind == "KILL":
            self._kill(framework, content)
        elif kind == "ACKNOWLEDGE":
            self._acknowledge(framework, content)
        elif kind == "RECONCILE":
            self._reconcile(framework, content)
        elif kind == "TEARDOWN":
            self._count("messages_unregister_framework")
            self.remove(framework)
        elif kind == "SUPPRESS":
            self._count("messages_suppress_offers")
            framework.suppressed = True
        elif kind == "REVIVE":
            self._count("messages_revive_offers")
            framework.suppressed = False
            framework.filters.clear()
            self._next_allocation = 0.0
        else:  # SHUTDOWN and MESSAGE are for executors of one's own, REQUEST is ignored by Mesos' allocator too
            self._count("dropped_messages")
            self.log.warning("master.cpp:3000", f"Dropping {kind} call of framework {framework}: a rehearsal double")

    def _subscribe(self, call: Json) -> EventStream:
        info = call["subscribe"]["framework_info"]
        framework_id = (call.get("framework_id") or info.get("id") or {}).get("value")
        stream_id = str(uuid.uuid4())
        stream = EventStream({"Mesos-Stream-Id": stream_id}, lambda: self._disconnected(stream))
        checkpoint = "enabled" if info.get("checkpoint") else "disabled"
        with self.cluster.lock:
            self.log.info("master.cpp:2231", f"Received SUBSCRIBE call for framework '{info['name']}'")
            if framework_id in [framework.id for framework in self.cluster.completed]:
                stream.send({"type": "ERROR", "error": {"message": "Framework has been removed"}})
                stream.close()
                return stream
            self.log.info(
                "master.cpp:2302",
                f"Subscribing framework {info['name']} with checkpointing {checkpoint} and capabilities [  ]",
            )
            framework = self.cluster.frameworks.get(framework_id or "")
            if framework is None:
                framework = self._add(framework_id or f"{self.master_id}-{self.cluster.next_number('F'):04d}", info)
            else:
                self._count("messages_reregister_framework")
                framework.reregistered_time = now()
                if framework.stream:
                    framework.send("ERROR", error={"message": "Framework failed over"})
                    framework.stream.close()
                self._take_back_offers(framework)
            framework.info = info
            framework.stream, framework.stream_id = stream, stream_id
            framework.gives_up, framework.suppressed = None, False
            framework.filters.clear()
            framework.send("SUBSCRIBED", subscribed={"framework_id": {"value": framework.id}})
            self._beat(framework)
            self._next_allocation = 0.0
        return stream

    def _add(self, framework_id: str, info: Json) -> Framework:
        framework = Framework(framework_id, info, now())
        self._count("messages_register_framework")
        for slave in self.cluster.slaves.values():
            framework.tasks |= {t.id: t for t in slave.tasks.values() if t.framework_id == framework_id}
        self.cluster.frameworks[framework_id] = framework
        self.log.info("hierarchical.cpp:265", f"Added framework {framework_id}")
        return framework

    def _disconnected(self, stream: EventStream) -> None:
        with self.cluster.lock:
            for framework in self.cluster.frameworks.values():
                if framework.stream is stream:
                    seconds = float(framework.info.get("failover_timeout", 0))
                    self.log.info("master.cpp:1212", f"Framework {framework} disconnected")
                    self.log.info("master.cpp:1236", f"Giving framework {framework} {seconds:g}secs to failover")
                    framework.stream, framework.gives_up = None, time.monotonic() + seconds
                    self._take_back_offers(framework)

    def remove(self, framework: Framework) -> None:
        """Tear a framework down: its tasks are killed, and it may not come back."""
        self.log.info("master.cpp:5580", f"Removing framework {framework}")
        self._take_back_offers(framework)
        for slave in self.cluster.slaves.values():
            if any(task.framework_id == framework.id for task in slave.tasks.values()):
                slave.stream.send({"type": "SHUTDOWN_FRAMEWORK", "framework_id": framework.id})
        for task in list(framework.tasks.values()):
            if not task.terminal:
                self._count("tasks_killed")
            task.update(make_status(task.id, "TASK_KILLED", "SOURCE_MASTER", reason="REASON_FRAMEWORK_REMOVED"))
            self.cluster.forget(task)
        framework.unregistered_time = now()
        del self.cluster.frameworks[framework.id]
        self.cluster.completed.append(framework)
        while len(self.cluster.completed) > self.cluster.max_completed_frameworks:
            self.cluster.completed.popleft()
        stream, framework.stream = framework.stream, None
        if stream:
            stream.close()

    def tick(self) -> None:
        """What time brings: heartbeats, frameworks that did not come back, new offers."""
        with self.cluster.lock:
            present = time.monotonic()
            for framework in list(self.cluster.frameworks.values()):
                if framework.stream and present >= framework.next_heartbeat:
                    self._beat(framework)
                if framework.gives_up is not None and present >= framework.gives_up:
                    self.log.info("master.cpp:4860", f"Framework failover timeout, removing framework {framework}")
                    self.remove(framework)
            if present >= self._next_allocation:
                self._next_allocation = present + self._allocation_interval
                self._allocate()

    def _beat(self, framework: Framework) -> None:
        framework.next_heartbeat = time.monotonic() + HEARTBEAT
        framework.send("HEARTBEAT")

    def _allocate(self) -> None:
        """Offer each slave's free resources to the framework with the lowest dominant share that does not refuse."""
        offers: dict[str, list[Offer]] = {}
        for slave in self.cluster.slaves.values():
            free = slave.total - slave.used - self.cluster.offered(slave_id=slave.id)
            if not slave.connected or not any(free.contains(least) for least in ALLOCATABLE):
                continue
            willing = [
                framework
                for framework in self.cluster.frameworks.values()
                if framework.stream and not framework.suppressed and not framework.refuses(slave.id, free)
            ]
            if willing:
                framework = min(willing, key=self._dominant_share)
                offer = Offer(f"{self.master_id}-O{self.cluster.next_number('O')}", framework.id, slave, free)
                self.cluster.offers[offer.id] = offer
                offers.setdefault(framework.id, []).append(offer)
        for framework_id, made in offers.items():
            shown = [self._show(offer) for offer in made]
            self.cluster.frameworks[framework_id].send("OFFERS", offers={"offers": shown})

    def _dominant_share(self, framework: Framework) -> float:
        held = framework.used + self.cluster.offered(framework_id=framework.id)
        totals = {
            name: sum(slave.total.get(name) for slave in self.cluster.slaves.values()) for name in ("cpus", "mem")
        }
        return max(held.get(name) / total if total else 0.0 for name, total in totals.items())

    def _show(self, offer: Offer) -> Json:
        info = offer.slave.info
        address = {"hostname": info["hostname"], "ip": info["ip"], "port": info["port"]}
        shown = {
            "id": {"value": offer.id},
            "framework_id": {"value": offer.framework_id},
            "agent_id": {"value": offer.slave.id},
            "hostname": info["hostname"],
            "url": {"scheme": "http", "address": address, "path": "/slave(1)"},
            "resources": offer.resources.to_api(),
        }
        if info["attributes"]:
            shown["attributes"] = info["attributes"]
        if unavailability := self._unavailability(info):
            shown["unavailability"] = unavailability
        return shown

    def _take_back_offers(self, framework: Framework) -> None:
        for offer in [offer for offer in self.cluster.offers.values() if offer.framework_id == framework.id]:
            self.cluster.rescind(offer, tell=False)

    def _accept(self, framework: Framework, accept: Json) -> None:
        self._count("messages_launch_tasks")
        infos = [
            info
            for operation in accept.get("operations", [])
            if operation["type"] == "LAUNCH"
            for info in operation.get("launch", {}).get("task_infos", [])
        ]
        offers, problem = self._claim(framework, accept.get("offer_ids", []))
        if problem or not offers:
            for info in infos:
                self._refuse(framework, info, "TASK_LOST", f"Task launched with invalid offers: {problem}")
            return
        slave = offers[0].slave
        left = Resources.none()
        for offer in offers:
            left = left + offer.resources
        for info in infos:
            if flaw := self._invalid(framework, slave, info, left):
                self._refuse(framework, info, "TASK_ERROR", flaw)
                continue
            task = Task(info, framework.id)
            left = left - task.resources
            framework.tasks[task.id] = slave.tasks[framework.id, task.id] = task
            self.log.info(
                "master.cpp:3703",
                f"Launching task {task.id} of framework {framework} with resources {task.resources} on slave {slave}",
            )
            slave.stream.send(
                {"type": "LAUNCH", "framework_id": framework.id, "framework": framework.info, "task": info}
            )
        self._filter(framework, slave, left, accept)

    def _claim(self, framework: Framework, offer_ids: list[Json]) -> tuple[list[Offer], str]:
        """The offers that a framework names, taken off the table; with a message where one of them does not hold."""
        claimed, problem = [], "" if offer_ids else "No offers specified"
        for offer_id in [entry["value"] for entry in offer_ids]:
            offer = self.cluster.offers.get(offer_id)
            if offer is None or offer.framework_id != framework.id:
                problem = f"Offer {offer_id} is no longer valid"
                continue
            self.cluster.rescind(offer, tell=False)
            claimed.append(offer)
        if len({offer.slave.id for offer in claimed}) > 1:
            problem = "Aggregated offers must belong to one single slave"
        return claimed, problem

    def _invalid(self, framework: Framework, slave: Slave, info: Json, left: Resources) -> str | None:
        task_id = info["task_id"]["value"]
        if "executor" in info or not ("command" in info or "docker" in info.get("container", {})):
            return "The rehearsal double launches command and Docker tasks only, no executors"
        if not task_id or "/" in task_id:
            return f"TaskID '{task_id}' contains invalid characters"
        if (framework.id, task_id) in slave.tasks or task_id in framework.tasks:
            return f"Task has duplicate ID: {task_id}"
        if info["agent_id"]["value"] != slave.id:
            return f"Task uses invalid slave {info['agent_id']['value']} while slave {slave.id} is expected"
        try:
            wanted = Resources.from_api(info.get("resources", []))
        except (ResourceError, KeyError) as error:
            return f"Task uses invalid resources: {error}"
        if not wanted.to_api():
            return "Task uses no resources"
        if not left.contains(wanted):
            return f"Task uses more resources {wanted} than available {left}"
        return None

    def _refuse(self, framework: Framework, info: Json, state: str, message: str) -> None:
        reason = "REASON_INVALID_OFFERS" if state == "TASK_LOST" else "REASON_TASK_INVALID"
        self._count(state.lower().replace("task_", "tasks_"))
        self.tell(framework, info["task_id"]["value"], state, message, reason, info["agent_id"])

    def _decline(self, framework: Framework, decline: Json) -> None:
        self._count("messages_decline_offers")
        offers, _ = self._claim(framework, decline.get("offer_ids", []))
        for offer in offers:
            self._filter(framework, offer.slave, offer.resources, decline)

    def _filter(self, framework: Framework, slave: Slave, refused: Resources, call: Json) -> None:
        seconds = float(call.get("filters", {}).get("refuse_seconds", REFUSE_SECONDS))
        if seconds > 0:
            framework.filters.append((slave.id, refused, time.monotonic() + seconds))

    def _kill(self, framework: Framework, kill: Json) -> None:
        self._count("messages_kill_task")
        task = framework.tasks.get(kill["task_id"]["value"])
        if task is None:
            self._reconcile(framework, {"tasks": [kill]}, counted=False)
        elif slave := self.cluster.slaves.get(task.slave_id):
            self.log.info("master.cpp:3890", f"Telling slave {slave} to kill task {task.id} of framework {framework}")
            slave.stream.send({"type": "KILL", "framework_id": framework.id, "task_id": task.id})

    def _acknowledge(self, framework: Framework, acknowledge: Json) -> None:
        self._count("messages_status_update_acknowledgement")
        task = framework.tasks.get(acknowledge["task_id"]["value"])
        slave = self.cluster.slaves.get(acknowledge["agent_id"]["value"])
        if slave is None:
            self._count("invalid_status_update_acknowledgements")
            return
        self._count("valid_status_update_acknowledgements")
        message = {"type": "ACKNOWLEDGE", "framework_id": framework.id, "task_id": acknowledge["task_id"]["value"]}
        slave.stream.send(message | {"uuid": acknowledge["uuid"]})
        if task and any(s.get("uuid") == acknowledge["uuid"] and s["state"] in TERMINAL for s in task.statuses):
            self.cluster.forget(task)

    def _reconcile(self, framework: Framework, reconcile: Json, counted: bool = True) -> None:
        if counted:
            self._count("messages_reconcile_tasks")
        asked = reconcile.get("tasks", [])
        for task_id, agent_id in [(entry["task_id"]["value"], entry.get("agent_id")) for entry in asked] or [
            (task_id, None) for task_id, task in framework.tasks.items() if not task.terminal
        ]:
            task = framework.tasks.get(task_id)
            reason = "REASON_RECONCILIATION"
            if task:
                network = task.statuses[-1].get("container_status") if task.statuses else None
                message = "Reconciliation: Latest task state"
                agent = task.info["agent_id"]
                self.tell(framework, task_id, task.state, message, reason, agent, container_status=network)
            elif not agent_id or agent_id["value"] not in self.cluster.recovered:  # else its slave may yet come back
                known = bool(agent_id) and agent_id["value"] in self.cluster.slaves
                message = "Reconciliation: Task is unknown" + (" to the slave" if known else "")
                self.tell(framework, task_id, "TASK_LOST", message, reason, agent_id)

    def tell(
        self,
        framework: Framework,
        task_id: str,
        state: str,
        message: str,
        reason: str,
        agent_id: Json | None,
        **more: object,
    ) -> None:
        """Send a status of the master's own; it needs no acknowledgement."""
        status = make_status(
            task_id, state, "SOURCE_MASTER", message=message, reason=reason, agent_id=agent_id or None, **more
        )
        framework.send("UPDATE", update={"status": status})

    def lose(self, task: Task, message: str, reason: str) -> Callable[[], None]:
        """End a task that the master counts as lost; gives what tells its framework so."""
        framework = self.cluster.frameworks.get(task.framework_id)
        self.log.info(
            "master.cpp:6421",
            f"Updating the state of task {task.id} of framework {task.framework_id} "
            "(latest state: TASK_LOST, status update state: TASK_LOST)",
        )
        agent_id = task.info["agent_id"]
        task.update(
            make_status(task.id, "TASK_LOST", "SOURCE_MASTER", message=message, reason=reason, agent_id=agent_id)
        )
        self._count("tasks_lost")
        self.cluster.forget(task)

        def tell() -> None:
            self.log.info(
                "master.cpp:4806",
                f"Sending status update TASK_LOST for task {task.id} of framework {task.framework_id} '{message}'",
            )
            if framework:
                self.tell(framework, task.id, "TASK_LOST", message, reason, agent_id)

        return tell

    def status_update(self, slave: Slave, framework_id: str, status: Json) -> None:
        """Take a status from a slave, once or again, and pass it on."""
        self._count("messages_status_update")
        task = slave.tasks.get((framework_id, status["task_id"]["value"]))
        if task and status["uuid"] not in [known.get("uuid") for known in task.statuses]:
            if status["state"] in TERMINAL and not task.terminal:
                self._count(status["state"].lower().replace("task_", "tasks_"))
            task.update(status)
            self.log.info(
                "master.cpp:6421",
                f"Updating the state of task {task.id} of framework {framework_id} "
                f"(latest state: {task.state}, status update state: {status['state']})",
            )
        framework = self.cluster.frameworks.get(framework_id)
        if framework is None:
            self._count("invalid_status_updates")
            return
        self._count("valid_status_updates")
        framework.send("UPDATE", update={"status": status})

    def _count(self, name: str) -> None:
        self.cluster.counts[name] += 1


def _problem(call: Json) -> str | None:
    """What a call lacks that its type needs, in the words of `src/master/validation.cpp`, or None."""
    kind = call["type"]
    if kind == "SUBSCRIBE":
        if "subscribe" not in call:
            return "Expecting 'subscribe' to be present"
        framework_id = call["subscribe"]["framework_info"].get("id", {})
        if framework_id.get("value", "") != call.get("framework_id", {}).get("value", ""):
            return "'framework_id' differs from 'subscribe.framework_info.id'"
        return None
    if "framework_id" not in call:
        return "Expecting 'framework_id' to be present"
    if kind not in PLAIN and kind.lower() not in call:
        return f"Expecting '{kind.lower()}' to be present"
    return None
