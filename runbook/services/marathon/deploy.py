"""Apps as steps: what becomes of an app is a row of the journal as what becomes of a file is, in every mode.

A plan or a verification compares; apply tells Marathon, and follows the deployment to its end with a progress event
whenever something moved. It follows as well where nothing differs: an app is as it is wanted once its instances run,
and a deployment that another run began is gone on with. A plan before Marathon is installed shows what would be
created; a verification without it says so and goes on; apply raises the named error.

The rows' host is `marathon`: which instance answered does not matter.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import pandas as pd
import tenacity

from runbook.errors import (
    AppLocked,
    ApplyFailed,
    DeploymentFailed,
    GateRefused,
    NotFound,
    ServiceError,
)
from runbook.events import emit
from runbook.remote.gates import Approval
from runbook.remote.modes import Mode, Status
from runbook.remote.results import ApplyResult, StepResult
from runbook.secrets import names_of_secrets, redact, references
from runbook.services.http import Timeouts
from runbook.services.marathon.apps import App, Difference, app_id, body_of, definition, update_of
from runbook.services.marathon.client import ELECTING, UNANSWERED, Change, Marathon
from runbook.services.marathon.deployments import Progress, follow
from runbook.services.marathon.diagnose import explained_lock
from runbook.services.marathon.tables import tasks_table
from runbook.services.mesos.checks import masters_of
from runbook.services.mesos.tables import slaves_table
from runbook.site import Site
from runbook.wording import plural

HOST = "marathon"
"""What stands for a host in the rows."""
DELETE = "delete-app"
"""The gate before an app is ended with all its tasks."""
DEADLINE = 300.0
"""Seconds that a deployment may take."""
SHORT = 60
"""Characters up to which a single difference is its own summary."""
TIMEOUTS = Timeouts(connect=2.0, read=10.0, whole=30.0)
"""An instance whose host is down costs two seconds; then the next one is asked."""
ELECTION = 60.0
"""Seconds within which another instance leads: the session of one that died ends after 40 s at most."""


def marathon_of(site: Site) -> Marathon:
    """The client of a site's Marathon that does not wait long for a host that is down."""
    return Marathon.of(site, timeouts=TIMEOUTS)


def deploy(
    site: Site,
    app: App,
    *,
    mode: Mode,
    keep_instances: bool = False,
    deadline: float = DEADLINE,
    force: bool = False,
) -> ApplyResult:
    """Have an app be as `app` defines it: one row, `app /NAME`, with what differs as a diff, secrets masked.

    With `keep_instances` a present app keeps its number of instances: scaling is another step's. `deadline` is in
    seconds, `force` cancels a deployment that is in the way. In apply mode raises ApplyFailed, with the explanation in
    its message, where the deployment does not reach its end; AppLocked, AppInvalid, … where Marathon refuses the app;
    and what the client raises where no instance answers. A plan raises AppInvalid, too, for what a change cannot take
    away. Raises SecretError, before anything is asked, for a secret that cannot be had.
    """
    wanted = {**app, "id": app_id(app["id"])}
    body_of(wanted)  # resolves the secrets
    names = names_of_secrets(app)
    shown = [name for name, value in app.get("env", {}).items() if any(references(value, names))]
    if shown:
        emit(
            event="note",
            text=f"app {wanted['id']}: env {', '.join(shown)} holds a secret that Marathon's API and page, ZooKeeper "
            "and `docker inspect` show to all who reach them: mount a file with it instead, as chapter 6 does",
        )

    def note_dropped(marathon: Marathon) -> None:
        if dropped := marathon.drops(wanted):
            emit(
                event="note",
                text=f"app {wanted['id']}: this version of Marathon drops {', '.join(dropped)}: not compared; "
                "correct the field's place or name, or leave it out",
            )

    def compared(marathon: Marathon) -> Change:
        note_dropped(marathon)
        present, found = marathon.compare(wanted, keep_instances=keep_instances)
        if present is None:
            return Change(wanted["id"], "created")
        if mode is Mode.PLAN:
            update_of(wanted, found)  # raises where apply would
        return Change(wanted["id"], "changed" if found else "unchanged", differences=tuple(found))

    def put(marathon: Marathon) -> Change:
        note_dropped(marathon)
        return marathon.put(wanted, force=force, keep_instances=keep_instances)

    return _Work(
        f"app {wanted['id']}",
        compare=compared,
        act=put,
        unseen=Change(wanted["id"], "created"),
        whole=definition(wanted),
    ).done(site, mode, deadline)


def scale(site: Site, name: str, instances: int, *, mode: Mode, deadline: float = DEADLINE) -> ApplyResult:
    """Have an app run so many instances: one row, `instances of /NAME`. Otherwise as `deploy`.

    Where there is no such app, a plan says what will be, a verification calls it drift, and apply raises NotFound.
    """
    name = app_id(name)
    absent = Change(name, "changed", differences=(Difference("instances", None, instances),))

    def compared(marathon: Marathon) -> Change:
        present = marathon.find(name)
        if present is None:
            return absent
        if present["instances"] == instances:
            return Change(name, "unchanged")
        return replace(absent, differences=(Difference("instances", present["instances"], instances),))

    return _Work(
        f"instances of {name}",
        compare=compared,
        act=lambda marathon: marathon.scale(name, instances),
        unseen=absent,
    ).done(site, mode, deadline)


def delete(
    site: Site, name: str, *, mode: Mode, approval: Approval, deadline: float = DEADLINE, force: bool = False
) -> ApplyResult:
    """Have an app be gone, with all its tasks: one row, `app /NAME`, behind the gate `delete-app`.

    Where there is no such app nothing is asked and nothing done. With `force` the gate also names the deployments that
    this cancels. Otherwise as `deploy`; raises GateRefused as well, whose result says that it was skipped.
    """
    name = app_id(name)

    def compared(marathon: Marathon) -> Change:
        return Change(name, "unchanged" if marathon.find(name) is None else "deleted")

    def approved(marathon: Marathon) -> Change:
        present = marathon.find(name)
        if present is None:
            return Change(name, "unchanged")
        tasks = _at_hosts(site, tasks_table(present["tasks"]))[["task", "host", "ports", "state"]]
        question = f"{DELETE}: end {name} with its {plural(len(tasks), 'task')}"
        if force and present["deployments"]:
            cancelled = ", ".join(one["id"] for one in present["deployments"])
            question += f", and cancel what is being deployed: {cancelled}"
        approval.ask(DELETE, question, tasks)
        return marathon.delete(name, force=force)

    return _Work(f"app {name}", compare=compared, act=approved, unseen=Change(name, "deleted"), stays=False).done(
        site, mode, deadline
    )


def tasks_of(site: Site, name: str, *, mode: Mode = Mode.PLAN) -> pd.DataFrame:
    """The tasks of an app (`tasks_table`), each with its host's name in the parameters; empty where there is no app.

    Where Marathon does not answer, empty too, except in apply mode, which raises what the client does.
    """
    with marathon_of(site) as marathon:
        try:
            tasks = marathon.tasks(name)
        except NotFound:
            tasks = []
        except UNANSWERED:
            if mode is Mode.APPLY:
                raise
            tasks = []
    return _at_hosts(site, tasks_table(tasks))


def _at_hosts(site: Site, tasks: pd.DataFrame) -> pd.DataFrame:
    """The tasks with the names of their hosts in place of the addresses that slaves announce."""
    names = site.names
    return tasks.assign(host=tasks["host"].map(lambda host: names.get(host, host)).astype("string"))


# the parts


@dataclass(frozen=True)
class _Work:
    """One row to be: how to find out what differs, how to change it, and what is shown where nobody can tell.

    `unseen` is the change that is due where Marathon does not answer; `whole` the diff of a creation; `stays` says
    whether there is to be an app in the end, whose instances are waited for though nothing differs.
    """

    label: str
    compare: Callable[[Marathon], Change]
    act: Callable[[Marathon], Change]
    unseen: Change
    whole: str = ""
    stays: bool = True

    def done(self, site: Site, mode: Mode, deadline: float) -> ApplyResult:
        """Do it, or only look, and tell the journal how it ended."""
        began = time.monotonic()

        def end(status: Status, summary: str = "", diff: str = "") -> ApplyResult:
            passed = time.monotonic() - began
            result = StepResult(HOST, self.label, status, redact(summary), redact(diff), passed)
            emit(event="step", **result.row())
            return ApplyResult(self.label, mode, (result,))

        with marathon_of(site) as marathon:
            try:
                if mode is Mode.APPLY:
                    self._await_leader(marathon)
                change = (self.act if mode is Mode.APPLY else self.compare)(marathon)
            except GateRefused as refused:
                refused.result = end(Status.SKIPPED, f"the gate '{DELETE}' was not opened")
                raise
            except AppLocked as locked:
                explained = explained_lock(marathon, locked, lambda: _slaves(site))
                end(Status.FAILED, str(explained))
                raise explained from locked
            except ServiceError as error:
                silent = isinstance(error, UNANSWERED)
                if silent and mode is Mode.PLAN:
                    summary, diff = self._told(self.unseen)
                    return end(Status.WOULD_CHANGE, f"{summary}, once Marathon answers", diff)
                result = end(Status.UNREACHABLE if silent else Status.FAILED, str(error))
                if mode is Mode.VERIFY:
                    return result
                raise
            summary, diff = self._told(change)
            differs = change.outcome != "unchanged"
            if mode is not Mode.APPLY:
                return end(Status.WOULD_CHANGE if differs else Status.OK, summary, diff)
            if not (differs or self.stays):
                return end(Status.OK)
            try:
                for progress in follow(marathon, change, deadline=deadline, slaves=lambda: _slaves(site)):
                    self._tell(progress)
            except DeploymentFailed as error:
                said = f"{summary}; {error.message}" if differs else error.message
                result = end(Status.FAILED, said, diff)
                raise ApplyFailed(f"{self.label}: {redact(error.message)}", error.remedy, result=result) from error
            return end(Status.CHANGED if differs else Status.OK, summary, diff)

    def _await_leader(self, marathon: Marathon) -> None:
        """Let an election come to its end. Raises ServiceError where there is nobody, or still no leader after it."""

        def tell(state: tenacity.RetryCallState) -> None:
            emit(event="progress", host=HOST, step=f"{self.label}: waiting for a leader", done=0, total=0)

        polling = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(ELECTING),
            stop=tenacity.stop_after_delay(ELECTION),
            wait=tenacity.wait_fixed(1.0),
            before_sleep=tell,
            reraise=True,
        )
        polling(marathon.leader)

    def _told(self, change: Change) -> tuple[str, str]:
        """Summary and diff of a change."""
        match change.outcome:
            case "created":
                return "create", self.whole
            case "deleted":
                return "delete", f"-{change.app_id}\n"
            case "changed":
                found = change.differences
                told = str(found[0]) if len(found) == 1 and len(str(found[0])) <= SHORT else ""
                fields = ", ".join(difference.field for difference in found)
                return told or f"change {fields}", "".join(difference.diff for difference in found)
            case "unchanged":
                return "", ""

    def _tell(self, progress: Progress) -> None:
        done = progress.running if progress.healthy is None else progress.healthy
        total = progress.instances or 0
        emit(event="progress", host=HOST, step=f"{self.label}: {progress}", done=min(done, total), total=total)


def _slaves(site: Site) -> pd.DataFrame:
    with masters_of(site) as masters:
        return slaves_table(masters.state())


def slaves_of(site: Site) -> pd.DataFrame | None:
    """Mesos' slaves (`slaves_table`), for `explain`; None where no master tells."""
    try:
        return _slaves(site)
    except ServiceError:
        return None
