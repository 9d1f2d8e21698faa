"""A client of Marathon, from 1.1 to 1.11.

A site's instances are asked as one: any of them answers, as those that do not lead pass the question on. Where one
cannot be reached, or has no leader that it reaches, the next one is asked. Errors are named for what they mean and show
the reason that Marathon gives. Nothing is forced unless the caller says so, and a deletion always says whether it is,
because Marathon's own default is to force it.

What differs between versions, and is met here, in `apps` or in `tables`: an action of a deployment's step is named by
`type` in 1.1.1 and by `action` later, a step was a list of actions up to 0.15; later versions tell a task's state, list
tasks that are lost (from 1.4 on without their times, ports and version), and have pods beside apps; from 1.7 on a
standby redirects the listeners of events to the leader. A standby without a leader answers 503 up to 1.7.50 and 502
from 1.7.149 on; one that cannot reach the leader in time 500 up to 1.3.12, 1.4.7 and 1.5.0, and 504 later.

Sources: Marathon's REST API documentation of 1.0 and later (`queue.raml`); `LeaderProxyFilter.scala`,
`LimitConcurrentRequestsFilter.scala`, `MarathonExceptionMapper.scala`, `Exception.scala`, `Formats.scala`,
`MarathonSchedulerActor.scala`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal, NoReturn, Self, TypeVar
from urllib.parse import quote

from runbook.errors import (
    AppExists,
    AppInvalid,
    AppLocked,
    ConnectionCut,
    DeploymentLimit,
    EndpointTimeout,
    EndpointUnreachable,
    LeaderUnreachable,
    NoLeader,
    NotFound,
    NotReady,
    RequestMalformed,
    ServiceError,
    UnexpectedAnswer,
)
from runbook.secrets import redact
from runbook.services.http import SUCCESS, Answer, Endpoint, Timeouts
from runbook.services.marathon.apps import App, Difference, app_id, app_of_task, body_of, differences, update_of
from runbook.services.marathon.events import Event, parse
from runbook.services.marathon.fields import dropped, unusual, without
from runbook.site import Site

Json = dict[str, Any]
Asked = TypeVar("Asked")
_EXPECTED = frozenset(SUCCESS) | {400, 404, 409, 422, 502, 503, 504}
_PERHAPS_HEARD = (EndpointTimeout, ConnectionCut, LeaderUnreachable)  # by a leader whose answer was lost
ELECTING = (NoLeader, NotReady, LeaderUnreachable, ConnectionCut)
"""What is met while another instance comes to lead: it is worth while to ask again."""
UNANSWERED = (EndpointUnreachable, NoLeader, NotReady, *_PERHAPS_HEARD)
"""No instance answers, or none of those that do has a leader."""
SILENCE = 60.0  # seconds after which a stream of events counts as dead; Marathon sends something every 10


@dataclass(frozen=True)
class Change:
    """What became of a wanted change of an app.

    `deployment` is the one to follow: that of the change, or, where nothing differs, one that is still under way.
    """

    app_id: str
    outcome: Literal["created", "changed", "unchanged", "deleted"]
    deployment: str | None = None
    version: str | None = None
    differences: tuple[Difference, ...] = ()
    restarted: bool = False
    """Whether all tasks of an unchanged definition are replaced."""


@dataclass(frozen=True)
class InstanceView:
    """What comes through one instance: the leader's version, its address, and the framework's id in Mesos."""

    name: str
    address: str
    version: str | None = None
    leader: str | None = None
    framework_id: str | None = None
    elected: bool | None = None
    """Whether that leader takes itself for elected."""
    problem: str | None = None


class Marathon:
    """The instances of one Marathon, asked as one. `instances`: name (for messages) to `http://host:port`."""

    def __init__(
        self,
        instances: Mapping[str, str],
        *,
        timeouts: Timeouts | None = None,
        auth: tuple[str, str] | None = None,
    ) -> None:
        if not instances:
            raise ValueError("a Marathon needs an instance")
        self.instances = {
            name: Endpoint(url, name=f"marathon on {name}", timeouts=timeouts, auth=auth)
            for name, url in instances.items()
        }
        self._preferred = next(iter(self.instances))

    @classmethod
    def of(cls, site: Site, *, timeouts: Timeouts | None = None) -> Marathon:
        """The Marathon of a site."""
        port = site.marathon.http_port
        hosts = site.having("marathon")
        return cls({host.name: f"http://{host.address}:{port}" for host in hosts}, timeouts=timeouts)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the connections that are kept open."""
        for endpoint in self.instances.values():
            endpoint.close()

    # what it knows

    def apps(self) -> list[App]:
        """All apps, each with its counts (`tasksRunning`, …), deployments and last failure."""
        embeds = ["apps.counts", "apps.deployments", "apps.lastTaskFailure"]
        return self._list(self._get("/v2/apps", embed=embeds), "apps")

    def app(self, name: str) -> App:
        """One app, with its tasks as well. Raises NotFound."""
        embeds = ["app.tasks", "app.counts", "app.deployments", "app.lastTaskFailure"]
        found: App = self._object(self._get(_path(name), embed=embeds), "app")["app"]
        return found

    def find(self, name: str) -> App | None:
        """One app; None where there is none."""
        try:
            return self.app(name)
        except NotFound:
            return None

    def versions(self, name: str) -> list[str]:
        """The versions that are kept of an app, newest first."""
        return self._list(self._get(f"{_path(name)}/versions"), "versions")

    def tasks(self, name: str | None = None) -> list[Json]:
        """The tasks of one app, or all."""
        return self._list(self._get("/v2/tasks" if name is None else f"{_path(name)}/tasks"), "tasks")

    def deployments(self) -> list[Json]:
        """The deployments under way; in every version `steps` is a list of lists of actions, each with its `action`."""
        answer = self._get("/v2/deployments")
        found = answer.json()
        if not isinstance(found, list):
            raise _not_marathon(answer)
        return [{**one, "steps": [_actions(step) for step in one.get("steps", ())]} for one in found]

    def queue(self) -> list[Json]:
        """The apps that wait to be launched: `app`, `count`, `delay` (`timeLeftSeconds`, `overdue`).

        From 1.4 on pods wait there as well; they are passed over.
        """
        none = {"timeLeftSeconds": 0, "overdue": False}
        return [{"delay": none, **one} for one in self._list(self._get("/v2/queue"), "queue") if "app" in one]

    def info(self) -> Json:
        """What the leader tells of itself: `version`, `frameworkId`, `leader`, and its configuration."""
        return self._object(self._get("/v2/info"), "version", "leader")

    def leader(self) -> str:
        """`host:port` of the leader. Raises NoLeader."""
        try:
            return str(self._object(self._get("/v2/leader"), "leader")["leader"])
        except NotFound as error:
            raise NoLeader(error.message, _WAIT, answer=error.answer) from error

    def views(self) -> list[InstanceView]:
        """What comes through each instance, or the problem that was met; all are asked at once."""
        with ThreadPoolExecutor(max_workers=min(8, len(self.instances))) as pool:
            return list(pool.map(self._view, self.instances, self.instances.values()))

    @contextmanager
    def events(self, *kinds: str) -> Iterator[Iterator[Event]]:
        """The events from now on, of these kinds (`status_update_event`, …) or of all.

        The first is `event_stream_attached`: from then on nothing is missed. They end where Marathon ends them, as when
        its leader changes. Raises EndpointTimeout, from the iterator, where nothing came for `SILENCE` seconds.
        """
        headers = {"Accept": "text/event-stream"}
        # the kinds are picked here, too: early versions ignore the parameter
        params: dict[str, list[str]] = {"event_type": [*kinds, "event_stream_attached"]} if kinds else {}

        def attach(endpoint: Endpoint) -> Iterator[bytes]:
            opened = endpoint.stream("/v2/events", params=params, headers=headers, pause=SILENCE, elsewhere=True)
            try:
                return connection.enter_context(opened)
            except (NotReady, UnexpectedAnswer) as error:
                _name(endpoint, "GET", "/v2/events", error.answer)
                raise

        with ExitStack() as connection:
            lines = self._first_answer(attach)
            yield (event for event in parse(lines) if not kinds or event.kind in params["event_type"])

    # what it is told

    def drops(self, wanted: App) -> tuple[str, ...]:
        """The fields of a definition that this Marathon drops: misplaced ones, and those of other versions."""
        return dropped(wanted, str(self.info()["version"])) if unusual(wanted) else ()

    def compare(self, wanted: App, *, keep_instances: bool = False) -> tuple[App | None, list[Difference]]:
        """The present app (None where there is none), and in what it is not as it is wanted.

        With `keep_instances` a present app may have any number of them. What this Marathon drops is not compared.
        """
        present = self.find(wanted["id"])
        if present is None:
            return None, []
        wanted = without(wanted, self.drops(wanted))
        return present, differences(_scaled_by_others(wanted) if keep_instances else wanted, present)

    def put(self, wanted: App, *, force: bool = False, keep_instances: bool = False) -> Change:
        """Have an app be as it is wanted: create it, change it, or leave it alone where nothing differs.

        With `keep_instances` a present app keeps its number of them. Raises AppLocked where a deployment is in the way
        of a change, unless `force` cancels that.
        """
        present, found = self.compare(wanted, keep_instances=keep_instances)
        name = app_id(wanted["id"])
        if present is not None and keep_instances:
            wanted = _scaled_by_others(wanted)
        if present is None:
            answer = self._send("POST", "/v2/apps", body_of(wanted), force=force or None)
            created = self._object(answer, "id", "version")
            deployment = _first([one["id"] for one in created.get("deployments", ())])
            return Change(name, "created", deployment, created["version"])
        if not found:
            return Change(name, "unchanged", _first([one["id"] for one in present["deployments"]]), present["version"])
        answer = self._send("PUT", _path(name), update_of(wanted, found), force=force)
        return self._changed(name, "changed", answer, tuple(found))

    def scale(self, name: str, instances: int, *, force: bool = False) -> Change:
        """Have an app run so many tasks."""
        present = self.app(name)
        if present["instances"] == instances:
            deployment = _first([one["id"] for one in present["deployments"]])
            return Change(app_id(name), "unchanged", deployment, present["version"])
        found = Difference("instances", present["instances"], instances)
        answer = self._send("PUT", _path(name), {"instances": instances}, force=force)
        return self._changed(name, "changed", answer, (found,))

    def restart(self, name: str, *, force: bool = False) -> Change:
        """Replace all tasks of an app, in the way of its upgradeStrategy."""
        answer = self._send("POST", f"{_path(name)}/restart", force=force)
        return replace(self._changed(name, "changed", answer), restarted=True)

    def deploy_unchanged(self, name: str) -> Change:
        """Deploy an app as it is: an update without any field, whose deployment has nothing to do and ends at once."""
        return self._changed(name, "changed", self._send("PUT", _path(name), {}))

    def delete(self, name: str, *, force: bool = False) -> Change:
        """End an app with all its tasks. Marathon's own default would be to force it; here it is not to."""
        return self._changed(name, "deleted", self._send("DELETE", _path(name), force=force))

    def kill(self, tasks: Iterable[str], *, scale: bool) -> None:
        """End tasks, by id; with `scale` their apps get so many instances less, without it they are replaced.

        Without `scale` Marathon ends no task of an app in deployment, and answers 200 all the same: raises AppLocked
        before anything is sent, as Marathon does with `scale`.
        """
        ids = list(tasks)
        apps = {name for name in map(app_of_task, ids) if name is not None}
        if apps and not scale:
            self._refuse_locked(apps)
        self._send("POST", "/v2/tasks/delete", {"ids": ids}, scale=scale)

    def _refuse_locked(self, apps: set[str]) -> None:
        """Raise AppLocked where a deployment affects one of these apps."""
        locks = {one["id"]: apps.intersection(one["affectedApps"]) for one in self.deployments()}
        holders = tuple(deployment for deployment, locked in locks.items() if locked)
        if holders:
            names = ", ".join(sorted(set().union(*locks.values())))
            raise AppLocked(
                f"{names}: locked by {', '.join(holders)}; Marathon kills no task of an app in deployment",
                "wait for that deployment's end, or cancel it, then kill the tasks",
                deployments=holders,
            )

    def cancel(self, deployment: str, *, force: bool = False) -> str | None:
        """Undo a deployment that is under way, and give the id of the one that does; with `force` only stop it."""
        answer = self._send("DELETE", f"/v2/deployments/{quote(deployment, safe='')}", force=force)
        return None if answer.status == 202 else str(self._object(answer, "deploymentId")["deploymentId"])

    def reset_delay(self, name: str) -> None:
        """Let an app that waits after failures be tried at once. Raises NotFound where it does not wait."""
        self._send("DELETE", f"/v2/queue{_quoted(name)}/delay")

    # how it is asked

    def _get(self, path: str, **query: Any) -> Answer:
        return self._send("GET", path, **query)

    def _send(self, method: str, path: str, body: object = None, **query: Any) -> Answer:
        """The answer of the first instance that gives one.

        A question is repeated at the next instance after every failure to answer, a change only where it is certain
        that no leader has it.
        """
        params = {name: _parameter(value) for name, value in query.items() if value is not None}
        heard = () if method == "GET" else _PERHAPS_HEARD
        return self._first_answer(lambda endpoint: self._ask(endpoint, method, path, body, params), final=heard)

    def _first_answer(self, ask: Callable[[Endpoint], Asked], final: tuple[type[ServiceError], ...] = ()) -> Asked:
        """What the first instance gives that answers, the one that did last being asked first."""
        met: list[ServiceError] = []
        for name in sorted(self.instances, key=lambda name: name != self._preferred):
            try:
                answer = ask(self.instances[name])
            except final:
                raise
            except UNANSWERED as error:
                met.append(error)
            else:
                self._preferred = name
                return answer
        if len(met) == 1:
            raise met[0]
        said = "; ".join(error.message for error in met)
        # an instance that waits for a leader tells more than one that is down
        worst = next((error for error in met if isinstance(error, ELECTING)), met[-1])
        raise type(worst)(f"no instance of Marathon answers: {said}", worst.remedy, answer=worst.answer)

    def _ask(self, endpoint: Endpoint, method: str, path: str, body: object, params: Mapping[str, Any]) -> Answer:
        headers = {"Accept": "application/json"}
        try:
            answer = endpoint.request(method, path, params=params, body=body, headers=headers, expect=_EXPECTED)
        except UnexpectedAnswer as error:
            _name(endpoint, method, path, error.answer)
            raise
        if answer.status not in SUCCESS:
            _refuse(endpoint, method, path, answer)
        return answer

    def _view(self, name: str, endpoint: Endpoint) -> InstanceView:
        try:
            answer = self._ask(endpoint, "GET", "/v2/info", None, {})
            info = self._object(answer, "version", "leader")
        except ServiceError as error:
            return InstanceView(name, endpoint.address, problem=error.message)
        return InstanceView(
            name, endpoint.address, info["version"], info["leader"], info.get("frameworkId"), info.get("elected")
        )

    def _changed(
        self,
        name: str,
        outcome: Literal["changed", "deleted"],
        answer: Answer,
        found: tuple[Difference, ...] = (),
    ) -> Change:
        said = self._object(answer, "deploymentId", "version")
        return Change(app_id(name), outcome, said["deploymentId"], said["version"], found)

    @staticmethod
    def _object(answer: Answer, *needed: str) -> Json:
        found = answer.json()
        if not isinstance(found, dict) or not found.keys() >= set(needed):
            raise _not_marathon(answer)
        return found

    @classmethod
    def _list(cls, answer: Answer, name: str) -> list[Any]:
        found = cls._object(answer, name)[name]
        if not isinstance(found, list):
            raise _not_marathon(answer)
        return found


_WAIT = "wait some 10 s for an election; then see that ZooKeeper has its quorum, and restart the instance that leads"


_NO_LEADER = "could not determine the current leader"  # LeaderProxyFilter.scala, with 503, from 1.7.149 on with 502
_REFUSED = "connection to leader refused"  # with 502; with 503 in late 1.3 and 1.4
_WHILE_PROXYING = "while proxying"  # with 500, up to 1.3.12, 1.4.7 and 1.5.0
_UNHEARD = (_NO_LEADER, _REFUSED, "too many concurrent requests")  # the last of LimitConcurrentRequestsFilter.scala
_TOO_MANY_DEPLOYMENTS = re.compile(r"Max number \(\d+\) of running deployments")  # Exception.scala, with 403
_UNREACHED = "see that the leader runs and that this host reaches its address; then restart it"


def _refuse(endpoint: Endpoint, method: str, path: str, answer: Answer) -> NoReturn:
    """Raise the error that an answer means, with Marathon's own reason, which may quote what was sent."""
    said = _json(answer)
    reason = _reasoned(endpoint, method, path, answer)
    text = answer.text.lower()
    match answer.status:
        case 400:
            raise RequestMalformed(reason, "correct what was sent", answer=answer)
        case 404 if said:
            raise NotFound(reason, "see the list of apps or deployments for what there is", answer=answer)
        case 409 if said and "deployments" in said:
            ids = tuple(str(deployment["id"]) for deployment in said["deployments"])
            raise AppLocked(
                f"{reason} (locked by {', '.join(ids)})",
                "wait for that deployment's end or cancel it; `force` cancels it and goes on from where it is",
                answer=answer,
                deployments=ids,
            )
        case 409:
            raise AppExists(reason, "change the app that is there, or choose another id", answer=answer)
        case 422:
            raise AppInvalid(reason, "correct the definition", answer=answer)
        case 502 | 503 if _NO_LEADER in text:
            raise NoLeader(reason, _WAIT, answer=answer)
        case 503 if _REFUSED in text:
            raise NoLeader(reason, _WAIT, answer=answer)
        case 502 | 504:
            raise LeaderUnreachable(reason, _UNREACHED, answer=answer)
        case 503 if _perhaps_heard(answer, text):
            raise EndpointTimeout(
                f"{reason}; the leader may have the request and carry it out later",
                "look at the app and at the deployments before sending it again; see the leader's load",
                answer=answer,
            )
        case 503:
            raise NotReady(reason, "it starts, recovers or is busy: wait, then read its log", answer=answer)
        case _:
            raise _not_marathon(answer)


def _perhaps_heard(answer: Answer, text: str) -> bool:
    """Whether a leader may have a request that was answered with 503.

    What Marathon's filters and Jetty refuse before any resource has it is HTML, or has no body. JSON is the answer of a
    leader that gave up waiting for itself (`TimeoutException`), and of what else is not HTML nothing is certain.
    """
    if any(reason in text for reason in _UNHEARD):
        return False
    html = "html" in answer.headers.get("content-type", "").lower() or text.lstrip().startswith(("<!doctype", "<html"))
    return bool(text.strip()) and not html


def _name(endpoint: Endpoint, method: str, path: str, answer: object) -> None:
    """Raise the error that an answer to a refused request means, where it is known to be Marathon's."""
    if not isinstance(answer, Answer):
        return
    if answer.status in _EXPECTED:
        _refuse(endpoint, method, path, answer)
    reason = _reasoned(endpoint, method, path, answer)
    if answer.status == 500 and _WHILE_PROXYING in answer.text.lower():
        raise LeaderUnreachable(reason, _UNREACHED, answer=answer)
    if answer.status == 403 and _TOO_MANY_DEPLOYMENTS.search(answer.text):
        raise DeploymentLimit(
            reason,
            "wait until a deployment ends, or cancel one; --max_running_deployments of Marathon sets the limit",
            answer=answer,
        )


def _reasoned(endpoint: Endpoint, method: str, path: str, answer: Answer) -> str:
    """Which request was refused, and Marathon's reason, secrets masked."""
    said = _json(answer)
    who = f"{endpoint.name} ({endpoint.url}): {method} {path}"
    return redact(f"{who}: {_reason(said)}" if said else f"{who}: {answer.status} {answer.excerpt()}")


def _reason(said: Json) -> str:
    """Marathon's reason in one line: its message, and what it says of single fields."""
    details = said.get("details")
    if isinstance(details, list):
        details = "; ".join(map(_detail, details))
    message = str(said.get("message", json.dumps(said)))
    return f"{message}: {details}" if details else message


def _detail(one: Any) -> str:
    if not isinstance(one, dict):
        return str(one)
    return f"{one.get('path', '')} {', '.join(map(str, one.get('errors', ())))}".strip()


def _json(answer: Answer) -> Json | None:
    try:
        found = json.loads(answer.body)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _not_marathon(answer: Answer) -> UnexpectedAnswer:
    return UnexpectedAnswer(
        f"{answer.url} does not answer as Marathon does: {answer.status} {answer.excerpt()}",
        "see that the address and port are Marathon's own",
        answer=answer,
    )


def _path(name: str) -> str:
    return f"/v2/apps{_quoted(name)}"


def _quoted(name: str) -> str:
    return quote(app_id(name), safe="/")


def _parameter(value: Any) -> Any:
    return str(value).lower() if isinstance(value, bool) else value


def _actions(step: Any) -> list[Json]:
    """The actions of a step, which was a list up to 0.15 and is an object later; in 1.1.1 `type` names an action."""
    actions: list[Json] = step.get("actions", []) if isinstance(step, dict) else list(step)
    return [
        {("action" if name == "type" and "action" not in action else name): value for name, value in action.items()}
        for action in actions
    ]


def _scaled_by_others(app: App) -> App:
    return {name: value for name, value in app.items() if name != "instances"}


def _first(ids: list[str]) -> str | None:
    return ids[0] if ids else None
