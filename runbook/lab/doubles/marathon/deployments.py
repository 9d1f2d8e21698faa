"""Deployments: the way from one definition of an app to another, in steps (Marathon's `DeploymentPlan`)."""

import math
import uuid
from collections.abc import Collection
from dataclasses import asdict, dataclass, field

from .apps import Json, is_upgrade
from .tasks import Task

Actions = list[Json]  # of one step: [{"action": "ScaleApplication", "app": "/hello"}]


@dataclass
class Deployment:
    """A deployment of one app: `original` and `target` are its definitions before and after, None where there is none.

    `condemned` are the tasks that a scaling has to end first.
    """

    id: str
    version: str
    app_id: str
    original: Json | None
    target: Json | None
    steps: list[Actions]
    step: int = 0  # the one under way, from 0
    condemned: list[str] = field(default_factory=list)

    @classmethod
    def plan(
        cls,
        version: str,
        app_id: str,
        original: Json | None,
        target: Json | None,
        *,
        restart: bool = False,
        condemned: Collection[str] = (),
    ) -> "Deployment":
        names = []
        if target is None:
            names = ["StopApplication"]
        elif original is None:
            names = ["StartApplication", "ScaleApplication"]
        elif restart or is_upgrade(original, target):
            names = ["RestartApplication"]
        elif condemned or original["instances"] != target["instances"]:
            names = ["ScaleApplication"]
        steps = [[{"action": name, "app": app_id}] for name in names]
        return cls(str(uuid.uuid4()), version, app_id, original, target, steps, condemned=list(condemned))

    @property
    def action(self) -> str | None:
        """What is done at the moment; None where all is done."""
        found: str | None = self.steps[self.step][0]["action"] if self.step < len(self.steps) else None
        return found

    def kept(self) -> Json:
        """What outlives the instance that leads; read back by `Deployment(**kept)`."""
        return asdict(self)

    def to_json(self) -> Json:
        """As `/v2/deployments` shows it (DeploymentStepInfoWrites of 1.1.1, Formats.scala)."""
        actions = self.steps[self.step] if self.step < len(self.steps) else []
        return {
            "id": self.id,
            "version": self.version,
            "affectedApps": [self.app_id],
            "steps": [_step(step) for step in self.steps],
            "currentActions": [{**action, "readinessCheckResults": []} for action in actions],
            "currentStep": self.step + 1,
            "totalSteps": len(self.steps),
        }

    def to_event(self, others: list[Json]) -> Json:
        """The plan as events carry it; `others` are the definitions of all other apps."""
        return {
            "id": self.id,
            "original": _group(others, self.original, self.version),
            "target": _group(others, self.target, self.version),
            "steps": [_step(step) for step in self.steps],
            "version": self.version,
        }


def _step(actions: Actions) -> Json:
    return {"actions": [{"type": action["action"], "app": action["app"]} for action in actions]}


def _group(others: list[Json], app: Json | None, version: str) -> Json:
    apps = [*others, app] if app else others
    return {"id": "/", "apps": apps, "groups": [], "dependencies": [], "version": version}


@dataclass(frozen=True)
class Moves:
    """What an app needs now: so many new tasks, these tasks to end, and whether that completes the step."""

    launch: int = 0
    kill: tuple[Task, ...] = ()
    done: bool = False


def scale(app: Json, tasks: list[Task], condemned: Collection[str] = ()) -> Moves:
    """Towards the app's number of instances: condemned ones go first, then the youngest."""
    live = [task for task in tasks if task.live]
    doomed = [task for task in live if task.id in condemned]
    others = sorted((task for task in live if task.id not in condemned), key=lambda task: task.staged_at)
    surplus = others[app["instances"] :]
    missing = max(0, app["instances"] - len(others))
    done = not missing and len(tasks) == app["instances"] and all(task.healthy(app) for task in tasks)
    return Moves(missing, (*doomed, *surplus), done)


def stop(tasks: list[Task]) -> Moves:
    return Moves(kill=tuple(task for task in tasks if task.live), done=not tasks)


def replace(app: Json, tasks: list[Task]) -> Moves:
    """Old tasks by new ones: at least `minimumHealthCapacity` of the instances stay healthy, counting old ones that
    run, and at most `maximumOverCapacity` more than the instances are there. Old are those of an earlier version, which
    a restart renews, too."""
    instances, strategy = app["instances"], app["upgradeStrategy"]
    new = [task for task in tasks if task.version >= app["version"]]
    old = [task for task in tasks if task.version < app["version"]]
    needed = math.ceil(instances * strategy["minimumHealthCapacity"])
    room = int(instances * (1 + strategy["maximumOverCapacity"]))
    if needed == room:
        room += 1  # else nothing could ever move
    healthy = sum(task.healthy(app) for task in new if task.live)
    stay = sorted((task for task in old if task.live), key=lambda task: task.staged_at)
    surplus = max(0, len(stay) - max(0, needed - healthy))
    launched = [task for task in new if task.live]
    launch = max(0, min(instances - len(launched), room - len(tasks)))
    excess = sorted(launched, key=lambda task: task.staged_at)[instances:]
    done = not old and healthy == instances == len(new)
    return Moves(launch, (*stay[:surplus], *excess), done)
