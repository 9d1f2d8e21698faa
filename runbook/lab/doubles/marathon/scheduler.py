"""What the leader knows and does: apps, tasks, deployments, back-off; offers and status updates turn into launches.

Everything that should happen follows from what is known (`_moves`), anew at each tick: how many tasks an app lacks,
which must end, and whether a deployment's step is done. So nothing is lost with the instance that leads; the next one
reads the store, asks Mesos to reconcile the tasks, and goes on. Whoever reads or writes holds `lock`.
"""

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from kazoo.exceptions import KazooException

from .apps import Clock, Json, Refused, give_ports, is_scaled, is_upgrade, timestamp, unknown_app
from .deployments import Deployment, Moves, replace, scale, stop
from .events import Events
from .flags import Flags
from .mesos import Driver, Masters
from .tasks import TERMINAL, Offer, Task
from .zk import Store

TICK = 0.5  # seconds
FORGET = 10.0  # seconds between two looks at which delays are over
KILL_AGAIN = 5.0  # seconds after which a task that should end is told so again
LOCKED = (
    "App is locked by one or more deployments. Override with the option '?force=true'. "
    "View details at '/v2/deployments/<DEPLOYMENT_ID>'."
)

log = logging.getLogger(__name__)


@dataclass
class Delay:
    """How long an app that failed has to wait: `seconds`, until `until` by the monotonic clock.

    They grow with each failure, and begin anew with one that comes when the last delay is over and forgotten.
    """

    seconds: float
    until: float


class Scheduler:
    """One term of leadership. `start` it, and `stop` it when leadership is lost; it is not started again."""

    def __init__(self, flags: Flags, store: Store, masters: Masters, webui: str, failed: Callable[[], None]) -> None:
        """Reads the store. `failed` is told once where the store can no longer be written, which ends the term."""
        self.flags = flags
        self.store = store
        self.events = Events()
        self.clock = Clock()
        self.lock = threading.Condition(threading.RLock())
        self._webui = webui
        self._failed = failed
        self._stopped = False
        self.framework_id: str | None = (store.get("framework:id") or {}).get("id")
        self.apps: dict[str, Json] = (store.get("group:root") or {}).get("apps", {})
        self.deployments = {kept["id"]: Deployment(**kept) for kept in self._kept("deployment:")}
        for deployment in self.deployments.values():  # kept first: its app may not have been
            self.apps.pop(deployment.app_id, None)
            if deployment.target is not None:
                self.apps[deployment.app_id] = deployment.target
        self.tasks = {kept["id"]: Task(**kept) for kept in self._kept("task:")}
        self.failures = {kept["appId"]: kept for kept in self._kept("taskFailure:")}
        self.delays: dict[str, Delay] = {}
        for task in self.tasks.values():
            task.since = time.monotonic()
        self._revivals = 0  # that are still to be sent for what is lacking now
        self._lacking: list[tuple[str, str, int]] = []
        self._next_revival = 0.0  # by the monotonic clock
        self._next_reconciliation = float("inf")
        self._next_forgetting = 0.0
        self.driver = Driver(masters, self._framework_info, self._handle)

    def start(self) -> None:
        self.driver.start()
        threading.Thread(target=self._run, name="scheduler", daemon=True).start()

    def stop(self) -> None:
        with self.lock:
            self._stopped = True
            self.lock.notify_all()
        self.driver.stop()
        self.events.close()

    @property
    def stopped(self) -> bool:
        return self._stopped

    @contextmanager
    def guarded(self) -> Iterator[None]:
        """Hold the lock; where the store fails, the term ends: what is known here may be more than what is kept."""
        with self.lock:
            try:
                yield
            except KazooException as error:
                log.error("Lost the store: %r", error)
                self._stopped = True
                self._failed()

    # What is asked of it

    def tasks_of(self, app_id: str) -> list[Task]:
        return sorted((task for task in self.tasks.values() if task.app_id == app_id), key=lambda task: task.staged_at)

    def app(self, app_id: str) -> Json:
        """The app's definition; Refused (404) where there is none."""
        if app_id not in self.apps:
            raise unknown_app(app_id)
        return self.apps[app_id]

    def versions(self, app_id: str) -> list[str]:
        """The versions that are kept of an app, newest first."""
        prefix = len(f"app:{app_id}:")
        return sorted((key[prefix:] for key in self._version_keys(app_id)), reverse=True)

    def deployments_of(self, app_id: str) -> list[Deployment]:
        return [deployment for deployment in self.deployments.values() if deployment.app_id == app_id]

    def waiting(self) -> Iterator[tuple[Json, int, float]]:
        """The apps that lack tasks: definition, how many, and the seconds until the next attempt."""
        for app_id, moves in self._moves().items():
            if moves.launch:
                delay = self.delays.get(app_id)
                yield self.apps[app_id], moves.launch, max(0.0, delay.until - time.monotonic()) if delay else 0.0

    def deploy(
        self,
        app_id: str,
        target: Json | None,
        *,
        force: bool,
        restart: bool = False,
        condemned: Iterable[str] = (),
    ) -> Deployment:
        """Make `target` (None: nothing) the app's definition, by a new deployment.

        Refused (409) where another one affects the app, unless `force` cancels that.
        """
        locked = self.deployments_of(app_id)
        if locked and not force:
            raise Refused(409, {"message": LOCKED, "deployments": [{"id": deployment.id} for deployment in locked]})
        for deployment in locked:
            self.cancel(deployment)
        version = self.clock.version()
        original = self.apps.get(app_id)
        if target is not None:
            self._stamp(app_id, original, target, version, restart)
        else:
            del self.apps[app_id]
        deployment = Deployment.plan(version, app_id, original, target, restart=restart, condemned=tuple(condemned))
        self.store.put(f"deployment:{deployment.id}", deployment.kept())
        self.store.put("group:root", {"apps": self.apps, "version": version})
        self.deployments[deployment.id] = deployment
        if restart or (original and target and is_upgrade(original, target)):
            self.delays.pop(app_id, None)
        self.events.publish("group_change_success", groupId=app_id.rpartition("/")[0] or "/", version=version)
        self._tell_step(deployment)
        self.lock.notify_all()
        return deployment

    def cancel(self, deployment: Deployment) -> None:
        """End a deployment where it is."""
        del self.deployments[deployment.id]
        self.store.remove(f"deployment:{deployment.id}")
        self.events.publish("deployment_failed", id=deployment.id, plan=self._plan(deployment))

    def kill(self, task: Task) -> None:
        """Tell Mesos to end a task; its replacement does not wait for that."""
        task.killed_at = time.monotonic()
        self.driver.call("KILL", kill={"task_id": {"value": task.id}, "agent_id": {"value": task.slave_id}})
        self.lock.notify_all()

    def note_failure(self, task: Task, state: str, message: str, *, delay: bool = True) -> None:
        """Keep why a task failed; with `delay` its app waits before the next launch, longer after each failure."""
        failure = {
            "appId": task.app_id,
            "host": task.host,
            "message": message,
            "state": state,
            "taskId": task.id,
            "timestamp": timestamp(),
            "version": task.version,
            "slaveId": task.slave_id,
        }
        self.failures[task.app_id] = failure
        self.store.put(f"taskFailure:{task.app_id}", failure)
        if delay:
            self._delay(task.app_id)

    def reset_delay(self, app_id: str) -> None:
        self.delays.pop(app_id, None)
        self.lock.notify_all()

    # Time

    def _run(self) -> None:
        with self.guarded():
            while not self._stopped:
                self._tick()
                self.lock.wait(TICK)

    def _tick(self) -> None:
        moves = self._moves()
        for move in moves.values():
            for task in move.kill:
                self.kill(task)
        present = time.monotonic()
        for task in self.tasks.values():
            late = task.started_at is None and present - task.since > self.flags.seconds("task_launch_timeout")
            if late if task.killed_at is None else present - task.killed_at > KILL_AGAIN:
                self.kill(task)
        for deployment in list(self.deployments.values()):
            self._advance(deployment)
        if present >= self._next_forgetting:
            self.delays = {app_id: delay for app_id, delay in self.delays.items() if delay.until > present}
            self._next_forgetting = present + FORGET
        if present >= self._next_reconciliation:
            self._reconcile()
        self._revive()

    def _advance(self, deployment: Deployment) -> None:
        """Complete the steps that are done, and the deployment after its last one."""
        while deployment.action is not None and self._moves_for(deployment).done:
            self.events.publish(
                "deployment_step_success", plan=self._plan(deployment), currentStep=self._step(deployment)
            )
            deployment.step += 1
            self.store.put(f"deployment:{deployment.id}", deployment.kept())
            self._tell_step(deployment)
        if deployment.action is None:
            del self.deployments[deployment.id]
            self.store.remove(f"deployment:{deployment.id}")
            if deployment.target is None:
                self._forget_app(deployment.app_id)
            self.events.publish("deployment_success", id=deployment.id, plan=self._plan(deployment))

    def _revive(self) -> None:
        """Ask for offers, also those that were declined, while there is something to launch."""
        lacking = [(app_id, self.apps[app_id]["version"], count) for app_id, count in self._ready().items()]
        if lacking != self._lacking:
            self._lacking, self._revivals = lacking, self.flags.number("revive_offers_repetitions")
        present = time.monotonic()
        if lacking and self._revivals and present >= self._next_revival and self.driver.call("REVIVE"):
            self._revivals -= 1
            self._next_revival = present + self.flags.seconds("min_revive_offers_interval")

    def _reconcile(self) -> None:
        asked = [{"task_id": {"value": task.id}, "agent_id": {"value": task.slave_id}} for task in self.tasks.values()]
        if asked:
            self.driver.call("RECONCILE", reconcile={"tasks": asked})
        self.driver.call("RECONCILE", reconcile={"tasks": []})
        self._next_reconciliation = time.monotonic() + self.flags.seconds("reconciliation_interval")

    # What follows from what is known

    def _moves(self) -> dict[str, Moves]:
        """What each app needs now; one that is gone needs its tasks to end."""
        moves = {task.app_id: stop(self.tasks_of(task.app_id)) for task in self.tasks.values()}
        moves |= {app_id: scale(app, self.tasks_of(app_id)) for app_id, app in self.apps.items()}
        for deployment in self.deployments.values():
            moves[deployment.app_id] = self._moves_for(deployment)
        return moves

    def _moves_for(self, deployment: Deployment) -> Moves:
        tasks = self.tasks_of(deployment.app_id)
        match deployment.action, deployment.target:
            case "ScaleApplication", dict(app):
                return scale(app, tasks, deployment.condemned)
            case "RestartApplication", dict(app):
                return replace(app, tasks)
            case "StopApplication", _:
                return stop(tasks)
            case _:  # StartApplication: the app is known from now on
                return Moves(done=True)

    def _ready(self) -> dict[str, int]:
        """How many tasks each app lacks whose delay is over."""
        return {app["id"]: count for app, count, seconds in self.waiting() if not seconds}

    # What Mesos says

    def _framework_info(self) -> Json:
        with self.lock:
            info: Json = {
                "user": self.flags["mesos_user"],
                "name": self.flags["framework_name"],
                "failover_timeout": self.flags.number("failover_timeout"),
                "checkpoint": "checkpoint" in self.flags.switches,
                "hostname": self.flags["hostname"],
                "webui_url": self.flags.get("webui_url") or self._webui,
            }
            return info | ({"id": {"value": self.framework_id}} if self.framework_id else {})

    def _handle(self, event: Json) -> None:
        with self.guarded():
            match event["type"]:
                case "SUBSCRIBED":
                    self.framework_id = event["subscribed"]["framework_id"]["value"]
                    self.store.put("framework:id", {"id": self.framework_id})
                    log.info("Subscribed as framework %s", self.framework_id)
                    self._lacking = []
                    self._reconcile()
                case "OFFERS":
                    self._match([Offer(offer) for offer in event["offers"]["offers"]])
                case "UPDATE":
                    self._update(event["update"]["status"])
                case "ERROR":
                    log.error("Mesos says: %s", event["error"]["message"])
                    if "removed" in event["error"]["message"]:
                        self.framework_id = None
                        self.store.remove("framework:id")
            self.lock.notify_all()

    def _match(self, offers: list[Offer]) -> None:
        """Launch what is lacking, each task where the fewest of its app are."""
        most = self.flags.number("max_tasks_per_offer")
        for app_id, count in self._ready().items():
            for _ in range(count):
                live = [task for task in self.tasks_of(app_id) if task.live]
                crowd = Counter(task.host for task in live)
                free = sorted((o for o in offers if len(o.launches) < most), key=lambda offer: crowd[offer.host])
                task = next(filter(None, (offer.place(self.apps[app_id], live) for offer in free)), None)
                if task is None:
                    break
                task.since = time.monotonic()
                self.tasks[task.id] = task
                self.store.put(f"task:{task.id}", task.kept())
        filters = {"refuse_seconds": self.flags.seconds("decline_offer_duration")}
        for offer in offers:
            ids = [{"value": offer.id}]
            if offer.launches:
                log.info("Launching on %s: %s", offer.host, [info["task_id"]["value"] for info in offer.launches])
                operations = [{"type": "LAUNCH", "launch": {"task_infos": offer.launches}}]
                self.driver.call("ACCEPT", accept={"offer_ids": ids, "operations": operations, "filters": filters})
            else:
                self.driver.call("DECLINE", decline={"offer_ids": ids, "filters": filters})

    def _update(self, status: Json) -> None:
        task_id, state = status["task_id"]["value"], status["state"]
        task = self.tasks.get(task_id)
        if task is None:
            if state not in TERMINAL:
                log.warning("Killing the unknown task %s", task_id)
                self.driver.call("KILL", kill={"task_id": status["task_id"]})
        elif state in TERMINAL:
            self._ended(task, state, status)
        elif state == "TASK_RUNNING" and task.started_at is None:
            task.started_at = timestamp()
            networks = status.get("container_status", {}).get("network_infos", [])
            task.addresses = [network["ip_address"] for network in networks if "ip_address" in network]
            self.store.put(f"task:{task.id}", task.kept())
            self._tell(task, state, status)
        if "uuid" in status:
            acknowledged = {"agent_id": status["agent_id"], "task_id": status["task_id"], "uuid": status["uuid"]}
            self.driver.call("ACKNOWLEDGE", acknowledge=acknowledged)

    def _ended(self, task: Task, state: str, status: Json) -> None:
        del self.tasks[task.id]
        self.store.remove(f"task:{task.id}")
        log.info("%s: %s %s", task.id, state, status.get("message", ""))
        if task.live and state in ("TASK_FAILED", "TASK_LOST", "TASK_ERROR"):
            self.note_failure(task, state, status.get("message", ""))
        elif task.live and state == "TASK_FINISHED":
            self._delay(task.app_id)
        self._tell(task, state, status)

    # Its own bookkeeping

    def _delay(self, app_id: str) -> None:
        if app := self.apps.get(app_id):
            before = self.delays.get(app_id)
            seconds = before.seconds * app["backoffFactor"] if before else float(app["backoffSeconds"])
            seconds = min(seconds, float(app["maxLaunchDelaySeconds"]))
            self.delays[app_id] = Delay(seconds, time.monotonic() + seconds)

    def _stamp(self, app_id: str, original: Json | None, target: Json, version: str, restart: bool) -> None:
        """Give a definition its version and service ports, and keep it."""
        taken = {port for app in self.apps.values() if app["id"] != app_id for port in app["ports"]}
        low, high = self.flags.number("local_port_min"), self.flags.number("local_port_max")
        give_ports(target, original, taken, low, high)
        changed_at = version
        if original and not is_upgrade(original, target):
            if not restart and not is_scaled(original, target):  # nothing changed (GroupVersioningUtil.scala)
                self.apps[app_id] = original
                return
            changed_at = original["versionInfo"]["lastConfigChangeAt"]
        target["version"] = version
        target["versionInfo"] = {"lastScalingAt": version, "lastConfigChangeAt": changed_at}
        self.apps[app_id] = target
        self.store.put(f"app:{app_id}:{version}", target)
        for key in self._version_keys(app_id)[: -self.flags.number("zk_max_versions")]:
            self.store.remove(key)

    def _forget_app(self, app_id: str) -> None:
        for key in self._version_keys(app_id):
            self.store.remove(key)
        self.store.remove(f"taskFailure:{app_id}")
        self.failures.pop(app_id, None)
        self.delays.pop(app_id, None)
        self.events.publish("app_terminated_event", appId=app_id)

    def _version_keys(self, app_id: str) -> list[str]:
        return self.store.keys(f"app:{app_id}:")

    def _kept(self, prefix: str) -> Iterator[Json]:
        return (kept for key in self.store.keys(prefix) if (kept := self.store.get(key)) is not None)

    def _tell(self, task: Task, state: str, status: Json) -> None:
        self.events.publish(
            "status_update_event",
            slaveId=task.slave_id,
            taskId=task.id,
            taskStatus=state,
            message=status.get("message", ""),
            appId=task.app_id,
            host=task.host,
            ipAddresses=[{"ipAddress": address, "protocol": "IPv4"} for address in task.addresses],
            ports=task.ports,
            version=task.version,
        )

    def _tell_step(self, deployment: Deployment) -> None:
        if deployment.action:
            self.events.publish("deployment_info", plan=self._plan(deployment), currentStep=self._step(deployment))

    def _plan(self, deployment: Deployment) -> Json:
        return deployment.to_event([app for app_id, app in self.apps.items() if app_id != deployment.app_id])

    def _step(self, deployment: Deployment) -> Json:
        return {"actions": [{"type": a["action"], "app": a["app"]} for a in deployment.steps[deployment.step]]}
