"""The client against the answers of domain-facts 3: what is asked, what comes back, and each refusal by its name."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from loopback import Loopback, Piece, Request, Reset, answer
from marathon_answers import JETTY, LOCKED, VERSION, in_11, in_15, task

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
from runbook.services.http import Timeouts
from runbook.services.marathon import Event, Marathon

Json = dict[str, Any]
HELLO: Json = {"id": "hello", "cmd": "sleep 1", "cpus": 0.1, "mem": 16}
DEPLOYED = {"version": VERSION, "deploymentId": "5ed4c0c5-9ff8-4a6f-a0cd-f57f59a34b43"}
NO_LEADER = JETTY.format(status=503, reason="Could not determine the current leader")
REFUSED = JETTY.format(status=502, reason="Connection to leader refused.")
TIMED_OUT = {"message": "Futures timed out after [10000 milliseconds]"}
TOO_MANY = JETTY.format(status=503, reason="Too many concurrent requests! Allowed: 100.")
PROXYING = JETTY.format(status=500, reason="java.lang.RuntimeException: while proxying")
LIMIT = {
    "message": "Max number (100) of running deployments is achieved. Wait for existing deployments to complete or "
    "cancel oneusing force=true parameter."
}
KILLED = "hello.7a1c35e2-2753-11e6-8d2b-0242ac110002"


def html(status: int, text: str) -> bytes:
    return answer(status, text, kind="text/html; charset=ISO-8859-1")


@contextlib.contextmanager
def marathon(*replies: Callable[[Request], Piece] | Piece | None) -> Iterator[tuple[Marathon, list[Loopback]]]:
    """Instances m0, m1, …, each answering everything by its reply; None is one that is down."""
    with contextlib.ExitStack() as stack:
        servers, urls = [], {}
        for number, reply in enumerate(replies):
            server = Loopback(_function(reply))
            servers.append(server)
            urls[f"m{number}"] = server.url
            if reply is None:
                server._socket.close()
            else:
                stack.enter_context(server)
        yield stack.enter_context(Marathon(urls, timeouts=Timeouts(read=1, whole=2))), servers


def _function(reply: Callable[[Request], Piece] | Piece | None) -> Callable[[Request], list[Piece]]:
    if callable(reply):
        return lambda request: [reply(request)]
    return lambda request: [] if reply is None else [reply]


def by_path(answers: dict[str, bytes]) -> Callable[[Request], Piece]:
    """A reply by method and path, the query apart."""

    def reply(request: Request) -> Piece:
        path = request.target.partition("?")[0]
        found = answers.get(f"{request.method} {path}")
        return found or answer(404, {"message": f"{request.method} {path} is not there"})

    return reply


def asked(server: Loopback) -> list[str]:
    return [f"{request.method} {request.target}" for request in server.requests]


# refusals, by name, with Marathon's reason


@pytest.mark.parametrize(
    ("said", "error", "shown"),
    [
        (answer(409, LOCKED), AppLocked, "App is locked by one or more deployments"),
        (
            answer(409, {"message": "An app with id [/hello] already exists."}),
            AppExists,
            "An app with id [/hello] already exists.",
        ),
        (
            answer(
                422,
                {
                    "message": "Object is not valid",
                    "details": [
                        {"path": "/upgradeStrategy/minimumHealthCapacity", "errors": ["is greater than 1"]},
                        {"path": "/instances", "errors": ["a", "b"]},
                    ],
                },
            ),
            AppInvalid,
            "Object is not valid: /upgradeStrategy/minimumHealthCapacity is greater than 1; /instances a, b",
        ),
        (answer(422, {"message": "cannot do that"}), AppInvalid, "cannot do that"),
        (
            answer(400, {"message": "Invalid JSON", "details": "Unexpected end-of-input"}),
            RequestMalformed,
            "Invalid JSON: Unexpected end-of-input",
        ),
        (
            answer(
                400,
                {"message": "Invalid JSON", "details": [{"path": "/id", "errors": ["error.expected.jsstring"]}]},
            ),
            RequestMalformed,
            "Invalid JSON: /id error.expected.jsstring",
        ),
        (answer(404, {"message": "App '/hello' does not exist"}), NotFound, "App '/hello' does not exist"),
        (html(503, NO_LEADER), NoLeader, "503 Error 503 HTTP ERROR: 503 Problem accessing /v2/apps. Reason: Could not"),
        (html(502, REFUSED), LeaderUnreachable, "Connection to leader refused."),
        (html(502, JETTY.format(status=502, reason="Detected proxying loop.")), LeaderUnreachable, "proxying loop"),
        (
            html(504, JETTY.format(status=504, reason="Connection to leader timed out.")),
            LeaderUnreachable,
            "leader timed out",
        ),
        (html(503, "<html>starting</html>"), NotReady, "503 starting"),
        (html(503, TOO_MANY), NotReady, "Too many concurrent requests! Allowed: 100."),
        (html(503, JETTY.format(status=503, reason="/v2/apps/leader-board")), NotReady, "leader-board"),
        (answer(503), NotReady, "503 (nothing)"),
        (answer(503, TIMED_OUT), EndpointTimeout, "Futures timed out after [10000 milliseconds]; the leader may have"),
        (answer(503, {"message": "the leader is busy"}), EndpointTimeout, "the leader is busy"),
        (answer(503, "upstream reset", kind="text/plain"), EndpointTimeout, "upstream reset"),
        (html(502, JETTY.format(status=502, reason="Could not determine the current leader")), NoLeader, "Could not"),
        (html(503, JETTY.format(status=503, reason="Connection to leader refused.")), NoLeader, "refused"),
        (html(500, PROXYING), LeaderUnreachable, "while proxying"),
        (answer(403, LIMIT), DeploymentLimit, "Max number (100) of running deployments"),
        (answer(403, {"message": "Not Authorized to perform this action!"}), UnexpectedAnswer, "Not Authorized"),
        (html(404, "<html>nginx</html>"), UnexpectedAnswer, "does not answer as Marathon does"),
        (answer(500, {"message": "boom"}), UnexpectedAnswer, "boom"),
        (answer(401, {"message": "Invalid username or password."}), UnexpectedAnswer, "Invalid username or password."),
    ],
)
def test_a_refusal_has_a_name_and_shows_the_reason(said: bytes, error: type[ServiceError], shown: str) -> None:
    with marathon(said) as (client, _), pytest.raises(error) as caught:
        client.restart("hello")
    assert type(caught.value) is error
    assert shown in caught.value.message
    assert "m0" in caught.value.message or "127.0.0.1" in caught.value.message
    assert caught.value.remedy
    assert caught.value.answer is not None


def test_a_reason_that_quotes_what_was_sent_shows_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNBOOK_TEST_SECRET", "gr4ndfather-clock")
    app = {**HELLO, "env": {"PASSWORD": {"secret": "env:RUNBOOK_TEST_SECRET"}}}

    def quoting(request: Request) -> Piece:
        return answer(400, {"message": "Invalid JSON", "details": f"at [Source: {request.body.decode()}; line: 1]"})

    replies = by_path({"GET /v2/apps/hello": answer(404, {"message": "App '/hello' does not exist"})})
    with (
        marathon(lambda request: quoting(request) if request.body else replies(request)) as (client, _),
        pytest.raises(RequestMalformed, match="PASSWORD") as caught,
    ):
        client.put(app)
    assert "gr4ndfather-clock" not in str(caught.value)


def test_the_limit_of_deployments_is_not_a_matter_of_credentials() -> None:
    """From 1.5.9 on (`TooManyRunningDeploymentsException` of Exception.scala)."""
    with marathon(answer(403, LIMIT)) as (client, _), pytest.raises(DeploymentLimit) as caught:
        client.restart("hello")
    assert "credentials" not in str(caught.value.remedy)
    assert "until a deployment ends" in str(caught.value.remedy)


def test_a_lock_names_the_deployments_that_hold_it() -> None:
    with marathon(answer(409, LOCKED)) as (client, _), pytest.raises(AppLocked) as caught:
        client.restart("hello")
    assert caught.value.deployments == ("97c136bf-5a28-4821-9d94-480d9fbb01c8",)
    assert "97c136bf-5a28-4821-9d94-480d9fbb01c8" in caught.value.message


# force


@pytest.mark.parametrize(
    ("act", "target"),
    [
        (lambda client, force: client.restart("hello", **force), "POST /v2/apps/hello/restart?force="),
        (lambda client, force: client.delete("hello", **force), "DELETE /v2/apps/hello?force="),
        (lambda client, force: client.cancel("x", **force), "DELETE /v2/deployments/x?force="),
    ],
)
def test_nothing_is_forced_unless_asked(act: Callable[..., Any], target: str) -> None:
    with marathon(answer(200, DEPLOYED)) as (client, (server,)):
        act(client, {})
        act(client, {"force": True})
    assert asked(server) == [f"{target}false", f"{target}true"]


def test_killing_says_whether_it_scales() -> None:
    with marathon(answer(200, {"tasks": []})) as (client, (server,)):
        client.kill(["hello.1", "hello.2"], scale=False)
    assert asked(server) == ["POST /v2/tasks/delete?scale=false"]
    assert json.loads(server.requests[0].body) == {"ids": ["hello.1", "hello.2"]}


@pytest.mark.parametrize("steps", [[], [[{"action": "ScaleApplication", "app": "/hello"}]]])
def test_no_task_of_an_app_in_deployment_is_killed(steps: list[Any]) -> None:
    """Marathon answers 200 and kills nothing: `KillTasks` wants the app's lock (MarathonSchedulerActor.scala)."""
    said = {"id": "d1", "version": VERSION, "affectedApps": ["/hello", "/other"], "steps": steps, "currentActions": []}
    replies = {"GET /v2/deployments": answer(200, [said]), "POST /v2/tasks/delete": answer(200, {"tasks": []})}
    with marathon(by_path(replies)) as (client, (server,)):
        with pytest.raises(AppLocked, match="/hello: locked by d1; Marathon kills no task") as caught:
            client.kill([KILLED], scale=False)
        assert caught.value.deployments == ("d1",)
        client.kill([KILLED.replace("hello", "third")], scale=False)
        client.kill([KILLED], scale=True)  # which Marathon refuses itself
    assert [line for line in asked(server) if line.startswith("POST")] == [
        "POST /v2/tasks/delete?scale=false",
        "POST /v2/tasks/delete?scale=true",
    ]


def test_a_deployment_that_is_only_stopped_has_no_successor() -> None:
    with marathon(answer(202)) as (client, _):
        assert client.cancel("x", force=True) is None
    with marathon(answer(200, DEPLOYED)) as (client, _):
        assert client.cancel("x") == DEPLOYED["deploymentId"]


# put, scale


def test_an_app_that_is_not_there_is_created() -> None:
    created = in_11(HELLO, deployments=[{"id": "d1"}])
    replies = by_path({"POST /v2/apps": answer(201, created)})
    with marathon(replies) as (client, (server,)):
        change = client.put(HELLO)
    assert (change.app_id, change.outcome, change.deployment, change.version) == ("/hello", "created", "d1", VERSION)
    assert asked(server)[-1] == "POST /v2/apps"
    assert json.loads(server.requests[-1].body) == {**HELLO, "id": "/hello"}


def test_an_app_that_differs_is_changed_and_says_in_what() -> None:
    replies = by_path(
        {"GET /v2/apps/hello": answer(200, {"app": in_11(HELLO)}), "PUT /v2/apps/hello": answer(200, DEPLOYED)}
    )
    with marathon(replies) as (client, (server,)):
        change = client.put({**HELLO, "cpus": 0.2})
    assert (change.outcome, change.deployment) == ("changed", DEPLOYED["deploymentId"])
    assert list(map(str, change.differences)) == ["cpus: 0.1 -> 0.2"]
    assert asked(server)[-1] == "PUT /v2/apps/hello?force=false"
    assert json.loads(server.requests[-1].body)["cpus"] == 0.2


@pytest.mark.parametrize("answered", [in_11, in_15])
def test_an_app_that_is_as_wanted_is_left_alone(answered: Callable[..., Json]) -> None:
    present = answered(HELLO, deployments=[{"id": "still-under-way"}])
    with marathon(by_path({"GET /v2/apps/hello": answer(200, {"app": present})})) as (client, (server,)):
        change = client.put(HELLO)
    assert (change.outcome, change.deployment, change.differences) == ("unchanged", "still-under-way", ())
    assert [request.method for request in server.requests] == ["GET"]


def test_scaling_to_what_is_there_already_asks_for_nothing() -> None:
    replies = by_path(
        {"GET /v2/apps/hello": answer(200, {"app": in_11(HELLO)}), "PUT /v2/apps/hello": answer(200, DEPLOYED)}
    )
    with marathon(replies) as (client, (server,)):
        assert client.scale("hello", 1).outcome == "unchanged"
        assert client.scale("hello", 4).outcome == "changed"
    assert [request.method for request in server.requests] == ["GET", "GET", "PUT"]
    assert json.loads(server.requests[-1].body) == {"instances": 4}


# questions


def test_deployments_of_all_versions_have_lists_of_steps() -> None:
    """Lists up to 0.15; in 1.1.1 an action has its `type`, later its `action` (Formats.scala)."""
    actions = [{"action": "ScaleApplication", "app": "/hello"}]
    typed = [{"type": "ScaleApplication", "app": "/hello"}]
    for steps in ([actions], [{"actions": actions}], [{"actions": typed}]):
        said = [{"id": "d1", "version": VERSION, "affectedApps": ["/hello"], "steps": steps, "currentActions": actions}]
        with marathon(answer(200, said)) as (client, _):
            assert client.deployments()[0]["steps"] == [actions]


def test_lists() -> None:
    replies = by_path(
        {
            "GET /v2/apps": answer(200, {"apps": [in_11(HELLO)]}),
            "GET /v2/tasks": answer(200, {"tasks": [task(1)]}),
            "GET /v2/apps/a/b/tasks": answer(200, {"tasks": []}),
            "GET /v2/queue": answer(200, {"queue": []}),
            "GET /v2/apps/hello/versions": answer(200, {"versions": [VERSION]}),
            "GET /v2/leader": answer(200, {"leader": "node1:8080"}),
            "GET /v2/info": answer(200, {"version": "1.1.1", "leader": "node1:8080", "frameworkId": "f"}),
        }
    )
    with marathon(replies) as (client, (server,)):
        assert [app["id"] for app in client.apps()] == ["/hello"]
        assert "embed=apps.lastTaskFailure" in server.requests[0].target
        assert client.tasks() == [task(1)]
        assert client.tasks("a/b") == []
        assert (client.queue(), client.versions("hello"), client.leader()) == ([], [VERSION], "node1:8080")
        assert client.info()["frameworkId"] == "f"
        assert client.find("nothing") is None


def test_pods_that_wait_are_passed_over() -> None:
    """From 1.4 on an item may have a `pod` in the place of its `app`; the delay is optional (queue.raml)."""
    delay = {"timeLeftSeconds": 7, "overdue": False}
    said = [
        {"pod": {"id": "/web"}, "count": 1, "delay": delay},
        {"app": {"id": "/hello"}, "count": 2, "delay": delay},
        {"app": {"id": "/other"}, "count": 1},
    ]
    with marathon(answer(200, {"queue": said})) as (client, _):
        assert [(one["app"]["id"], one["delay"]["timeLeftSeconds"]) for one in client.queue()] == [
            ("/hello", 7),
            ("/other", 0),
        ]


@pytest.mark.parametrize("body", [{}, [], {"apps": {}}, None])
def test_json_of_something_else_is_not_marathons(body: object) -> None:
    with marathon(answer(200, body)) as (client, _):
        with pytest.raises(UnexpectedAnswer, match="does not answer as Marathon does"):
            client.apps()
        if not isinstance(body, list):
            with pytest.raises(UnexpectedAnswer, match="does not answer as Marathon does"):
                client.deployments()


def test_there_is_no_leader() -> None:
    said = answer(404, {"message": "There is no leader"})
    with marathon(said) as (client, _), pytest.raises(NoLeader, match="There is no leader"):
        client.leader()


def test_ids_are_quoted() -> None:
    with marathon(answer(404, {"message": "no"})) as (client, (server,)):
        client.find("a/b?c")
    assert asked(server)[0].startswith("GET /v2/apps/a/b%3Fc?")


# several instances


def test_the_next_instance_is_asked_where_one_cannot_say() -> None:
    apps = answer(200, {"apps": []})
    with marathon(None, html(503, NO_LEADER), html(502, REFUSED), apps) as (client, servers):
        assert client.apps() == []
        assert client.apps() == []
    assert [len(server.requests) for server in servers] == [0, 1, 1, 2], "the one that answered is asked again"


@pytest.mark.parametrize(
    ("said", "error"),
    [
        (Reset(), ConnectionCut),
        (html(504, "<html>timed out</html>"), LeaderUnreachable),
        (html(500, PROXYING), LeaderUnreachable),
        (answer(503, TIMED_OUT), EndpointTimeout),
        (answer(503, {"message": "no leader"}), EndpointTimeout),
        (answer(503, b"{cut", kind="application/json"), EndpointTimeout),
    ],
)
def test_a_change_that_may_have_been_heard_is_not_made_twice(said: Piece, error: type[ServiceError]) -> None:
    with marathon(said, answer(200, DEPLOYED)) as (client, (_, second)):
        with pytest.raises(error):
            client.restart("hello")
        assert second.requests == []


@pytest.mark.parametrize(
    "said", [html(503, NO_LEADER), html(502, NO_LEADER.replace("503", "502")), html(503, TOO_MANY), answer(503)]
)
def test_a_change_that_nobody_heard_is_made_at_the_next_instance(said: bytes) -> None:
    with marathon(None, said, answer(200, DEPLOYED)) as (client, (*_, last)):
        client.restart("hello")
        assert len(last.requests) == 1


@pytest.mark.parametrize("said", [answer(503, TIMED_OUT), html(500, PROXYING)])
def test_a_question_is_asked_again_where_the_leader_was_late(said: bytes) -> None:
    with marathon(said, answer(200, {"apps": []})) as (client, _):
        assert client.apps() == []


def test_what_each_instance_said_is_told_when_none_answers() -> None:
    with marathon(None, html(503, NO_LEADER)) as (client, _), pytest.raises(NoLeader) as caught:
        client.apps()
    assert "marathon on m0" in caught.value.message
    assert "Could not determine the current leader" in caught.value.message


def test_an_instance_that_is_down_is_named() -> None:
    with marathon(None) as (client, _), pytest.raises(EndpointUnreachable, match="marathon on m0"):
        client.apps()


def test_the_views_of_all_instances() -> None:
    def info(request: Request) -> Piece:
        return answer(200, {"version": "1.1.1", "leader": request.headers["host"], "frameworkId": "f"})

    with marathon(info, None, html(503, NO_LEADER)) as (client, servers):
        first, second, third = client.views()
    assert (first.leader, first.version, first.framework_id) == (servers[0].address, "1.1.1", "f")
    assert second.problem is not None
    assert "m1" in second.problem
    assert third.problem is not None
    assert "Could not determine the current leader" in third.problem


# events


STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"


def test_events_arrive_whole_and_those_not_asked_for_are_passed_over() -> None:
    said = (
        b'event: event_stream_attached\ndata: {"eventType":"event_stream_attached"}\n\n'
        b"\r\n: a comment\n\r\n"
        b'event: status_update_event\r\ndata: {"eventType":"status_update_event",\r\ndata: "taskId":"a.1"}\r\n\r\n'
        b'event: other\ndata: {"eventType":"other"}\n\n'
        b'event: half\ndata: {"eventType":"half"}'
    )
    with marathon(STREAM + said) as (client, (server,)):
        with client.events("status_update_event") as events:
            assert list(events) == [
                Event("event_stream_attached", {"eventType": "event_stream_attached"}),
                Event("status_update_event", {"eventType": "status_update_event", "taskId": "a.1"}),
            ]
        with client.events() as events:
            assert [event.kind for event in events] == ["event_stream_attached", "status_update_event", "other"]
    assert server.requests[0].headers["accept"] == "text/event-stream"
    assert server.requests[0].target == "/v2/events?event_type=status_update_event&event_type=event_stream_attached"


def test_from_17_on_a_standby_sends_listeners_to_the_leader() -> None:
    attached = b'event: event_stream_attached\ndata: {"eventType":"event_stream_attached"}\n\n'
    with (
        Loopback(lambda request: [STREAM + attached]) as leader,
        marathon(answer(302, Location=f"{leader.url}/v2/events")) as (client, _),
        client.events() as events,
    ):
        assert next(events).kind == "event_stream_attached"


def test_events_come_from_an_instance_that_answers() -> None:
    attached = STREAM + b'event: event_stream_attached\ndata: {"eventType":"event_stream_attached"}\n\n'
    with marathon(None, html(503, NO_LEADER), attached) as (client, _), client.events() as events:
        assert [event.kind for event in events] == ["event_stream_attached"]


@pytest.mark.parametrize("said", [html(502, NO_LEADER.replace("503", "502")), html(500, PROXYING)])
def test_events_are_not_ended_by_an_instance_without_a_leader(said: bytes) -> None:
    attached = STREAM + b'event: event_stream_attached\ndata: {"eventType":"event_stream_attached"}\n\n'
    with marathon(said, attached) as (client, _), client.events() as events:
        assert [event.kind for event in events] == ["event_stream_attached"]


def test_a_marathon_without_instances() -> None:
    with pytest.raises(ValueError, match="needs an instance"):
        Marathon({})
