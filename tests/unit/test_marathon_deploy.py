"""Apps as rows of the journal, in every mode, against a Marathon on the loopback and against none."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from fake_marathon import FakeMarathon, marathon_site, site_of

from runbook import events, outcomes
from runbook.errors import AppInvalid, AppLocked, ApplyFailed, EndpointUnreachable, GateRefused, NotFound, SecretError
from runbook.outcomes import Outcome
from runbook.remote.gates import Approval
from runbook.remote.modes import Mode, Status
from runbook.remote.results import ApplyResult
from runbook.services.marathon.deploy import delete, deploy, scale, tasks_of
from runbook.site import Site

Json = dict[str, Any]
HELLO: Json = {"id": "hello", "cmd": "sleep 1", "cpus": 0.1, "mem": 16, "instances": 1}
SECRET = "correct-horse-battery"


@pytest.fixture
def told() -> Iterator[list[Json]]:
    """The events."""
    found: list[Json] = []
    end = events.subscribe(found.append)
    yield found
    end()


@pytest.fixture
def there() -> Iterator[tuple[Site, FakeMarathon]]:
    with marathon_site() as found:
        yield found


def nobody() -> Site:
    """A site whose Marathon is not there: port 1 is nobody's."""
    return site_of(5)


def only(result: ApplyResult) -> tuple[Status, str, str]:
    (one,) = result
    assert one.host == "marathon"
    return one.status, one.summary, one.diff


CREATED = '+cmd: "sleep 1"\n+cpus: 0.1\n+mem: 16\n+instances: 1\n'


@pytest.mark.parametrize(
    ("mode", "status"),
    [(Mode.PLAN, Status.WOULD_CHANGE), (Mode.VERIFY, Status.WOULD_CHANGE), (Mode.APPLY, Status.CHANGED)],
)
def test_an_app_that_is_missing_is_created_in_apply_only(
    there: tuple[Site, FakeMarathon], told: list[Json], mode: Mode, status: Status
) -> None:
    site, fake = there
    result = deploy(site, HELLO, mode=mode)
    assert only(result) == (status, "create", CREATED)
    assert ("/hello" in fake.apps) == (mode is Mode.APPLY)
    (step,) = (event for event in told if event["event"] == "step")
    assert (step["host"], step["step"]) == ("marathon", "app /hello")
    wanted = {Mode.PLAN: Outcome.WOULD_CHANGE, Mode.VERIFY: Outcome.DRIFT, Mode.APPLY: Outcome.CHANGED}[mode]
    assert outcomes.of_event(step, mode) is wanted


@pytest.mark.parametrize("mode", list(Mode))
def test_an_app_that_is_as_wanted_is_left_alone(there: tuple[Site, FakeMarathon], mode: Mode) -> None:
    site, fake = there
    fake.put(HELLO)
    assert only(deploy(site, HELLO, mode=mode)) == (Status.OK, "", "")
    assert {one.partition(" ")[0] for one in fake.asked} == {"GET"}


def test_what_differs_is_shown_field_by_field_and_changed(there: tuple[Site, FakeMarathon]) -> None:
    site, fake = there
    fake.put({**HELLO, "mem": 32, "labels": {"old": "yes"}})
    diff = '-labels.old: "yes"\n-mem: 32\n+mem: 16\n'
    assert only(deploy(site, HELLO, mode=Mode.PLAN)) == (Status.WOULD_CHANGE, "change labels.old, mem", diff)
    assert only(deploy(site, HELLO, mode=Mode.APPLY)) == (Status.CHANGED, "change labels.old, mem", diff)
    assert "PUT /v2/apps/hello?force=false" in fake.asked
    assert only(deploy(site, HELLO, mode=Mode.APPLY))[0] is Status.OK


def test_what_cannot_be_taken_away_is_told_by_a_plan_already(there: tuple[Site, FakeMarathon]) -> None:
    site, fake = there
    fake.put({**HELLO, "user": "nobody"})
    for mode in (Mode.PLAN, Mode.APPLY):
        with pytest.raises(AppInvalid, match="cannot take user away from /hello"):
            deploy(site, HELLO, mode=mode)
    assert only(deploy(site, HELLO, mode=Mode.VERIFY))[:2] == (Status.WOULD_CHANGE, 'user: "nobody" -> nothing')
    assert not [one for one in fake.asked if not one.startswith("GET")]


def test_instances_are_kept_where_scaling_is_another_step_s(there: tuple[Site, FakeMarathon]) -> None:
    site, fake = there
    fake.put({**HELLO, "instances": 4})
    assert only(deploy(site, HELLO, mode=Mode.APPLY))[1] == "instances: 4 -> 1"
    fake.put({**HELLO, "instances": 4})
    assert only(deploy(site, HELLO, mode=Mode.APPLY, keep_instances=True))[0] is Status.OK
    assert only(deploy(site, {**HELLO, "mem": 32}, mode=Mode.APPLY, keep_instances=True))[1] == "mem: 16 -> 32"
    assert (fake.apps["/hello"]["instances"], fake.apps["/hello"]["mem"]) == (4, 32)


def test_secrets_reach_marathon_and_nothing_else(
    there: tuple[Site, FakeMarathon], told: list[Json], monkeypatch: pytest.MonkeyPatch
) -> None:
    site, fake = there
    monkeypatch.setenv("RUNBOOK_TEST_SECRET", SECRET)
    app = {**HELLO, "env": {"PASSWORD": {"secret": "env:RUNBOOK_TEST_SECRET"}, "PLAIN": "1"}}
    fake.put({**HELLO, "env": {"PASSWORD": "the-one-before", "GONE": "was-one-too"}})
    results = [deploy(site, app, mode=mode) for mode in (Mode.PLAN, Mode.APPLY)]
    assert fake.apps["/hello"]["env"] == {"PASSWORD": SECRET, "PLAIN": "1"}
    notes = [event["text"] for event in told if event["event"] == "note"]
    assert len(notes) == 2
    assert all(note.startswith("app /hello: env PASSWORD holds a secret that Marathon's API") for note in notes)
    _, summary, diff = only(results[1])
    assert summary == "change env.GONE, env.PASSWORD, env.PLAIN"
    assert diff == '-env.GONE: ***\n-env.PASSWORD: ***\n+env.PASSWORD: ***\n+env.PLAIN: "1"\n'
    for secret in (SECRET, "the-one-before", "was-one-too"):
        assert secret not in f"{told}{results}"
    del fake.apps["/hello"]
    assert '+env.PASSWORD: {"secret": "env:RUNBOOK_TEST_SECRET"}\n' in only(deploy(site, app, mode=Mode.APPLY))[2]


def test_secrets_of_marathon_itself_are_shown_by_no_api(
    there: tuple[Site, FakeMarathon], told: list[Json], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUNBOOK_TEST_SECRET", SECRET)
    app = {**HELLO, "env": {"OWN": {"secret": "own"}}, "secrets": {"own": {"source": "/own"}}}
    there[1].info["version"] = "1.4.13"
    deploy(there[0], app, mode=Mode.APPLY)
    assert there[1].apps["/hello"]["env"] == app["env"]
    assert [event for event in told if event["event"] == "note"] == []


def test_what_marathon_drops_is_named_and_not_compared(there: tuple[Site, FakeMarathon], told: list[Json]) -> None:
    """examples/Docker.json of Marathon has `forcePullImage` one level too high: it would change for ever."""
    site, fake = there
    container = {"type": "DOCKER", "docker": {"image": "ubuntu:1"}, "volumes": []}
    app = {**HELLO, "container": {**container, "forcePullImage": False}}
    fake.put({**HELLO, "container": container})
    for mode in Mode:
        told.clear()
        assert only(deploy(site, app, mode=mode)) == (Status.OK, "", "")
        (note,) = (event["text"] for event in told if event["event"] == "note")
        assert note.startswith("app /hello: this version of Marathon drops container.forcePullImage: not compared")
    assert only(deploy(site, {**app, "mem": 32}, mode=Mode.PLAN))[1] == "mem: 16 -> 32"
    fake.apps.clear()
    told.clear()
    assert only(deploy(site, app, mode=Mode.APPLY))[0] is Status.CHANGED
    assert len([event for event in told if event["event"] == "note"]) == 1
    assert only(deploy(nobody(), app, mode=Mode.PLAN))[0] is Status.WOULD_CHANGE


@pytest.mark.parametrize("mode", list(Mode))
def test_a_secret_that_cannot_be_had_is_told_before_anything_is_asked(
    there: tuple[Site, FakeMarathon], mode: Mode
) -> None:
    site, fake = there
    with pytest.raises(SecretError, match="RUNBOOK_NO_SUCH"):
        deploy(site, {**HELLO, "env": {"A": {"secret": "env:RUNBOOK_NO_SUCH"}}}, mode=mode)
    assert fake.asked == []


def test_a_lock_is_refused_with_its_deployment_and_never_forced(there: tuple[Site, FakeMarathon]) -> None:
    site, fake = there
    fake.put({**HELLO, "mem": 32})
    fake.locked = True
    with pytest.raises(AppLocked, match="97c136bf"):
        deploy(site, HELLO, mode=Mode.APPLY)
    assert [one for one in fake.asked if one.startswith("PUT")] == ["PUT /v2/apps/hello?force=false"]
    with pytest.raises(AppLocked):
        deploy(site, HELLO, mode=Mode.APPLY, force=True)
    assert fake.asked.count("PUT /v2/apps/hello?force=true") == 1


def test_a_deployment_that_does_not_end_fails_its_step_with_what_was_done(
    there: tuple[Site, FakeMarathon], told: list[Json]
) -> None:
    site, fake = there
    fake.runs = False
    with pytest.raises(ApplyFailed, match="the deployment of /hello is not done after 0 s") as caught:
        deploy(site, HELLO, mode=Mode.APPLY, deadline=0)
    assert isinstance(caught.value.result, ApplyResult)
    status, summary, _ = only(caught.value.result)
    assert status is Status.FAILED
    assert summary.startswith("create; the deployment of /hello is not done")
    assert [event["status"] for event in told if event["event"] == "step"] == ["failed"]


def test_an_election_is_waited_for(there: tuple[Site, FakeMarathon], told: list[Json]) -> None:
    site, fake = there
    fake.elections = 1
    assert deploy(site, HELLO, mode=Mode.APPLY).changed
    waiting, *_ = (event["step"] for event in told if event["event"] == "progress")
    assert waiting == "app /hello: waiting for a leader"


def test_progress_is_told_while_a_deployment_is_followed(there: tuple[Site, FakeMarathon], told: list[Json]) -> None:
    deploy(there[0], {**HELLO, "instances": 2}, mode=Mode.APPLY)
    (last,) = (event for event in told if event["event"] == "progress")
    assert (last["host"], last["done"], last["total"]) == ("marathon", 2, 2)
    assert last["step"] == "app /hello: done: 2 of 2 running"


Call = Callable[[Site, Mode], ApplyResult]
CALLS: dict[str, Call] = {
    "deploy": lambda site, mode: deploy(site, HELLO, mode=mode),
    "scale": lambda site, mode: scale(site, "hello", 4, mode=mode),
    "delete": lambda site, mode: delete(site, "hello", mode=mode, approval=Approval(yes=True)),
}


@pytest.mark.parametrize(
    ("name", "summary", "diff"),
    [
        ("deploy", "create, once Marathon answers", CREATED),
        ("scale", "instances: nothing -> 4, once Marathon answers", "+instances: 4\n"),
        ("delete", "delete, once Marathon answers", "-/hello\n"),
    ],
)
def test_without_a_marathon_a_plan_foresees_verify_fails_and_apply_raises(
    told: list[Json], name: str, summary: str, diff: str
) -> None:
    call = CALLS[name]
    assert only(call(nobody(), Mode.PLAN)) == (Status.WOULD_CHANGE, summary, diff)
    status, said, _ = only(call(nobody(), Mode.VERIFY))
    assert status is Status.UNREACHABLE
    assert "marathon on node1" in said
    with pytest.raises(EndpointUnreachable):
        call(nobody(), Mode.APPLY)
    assert [event["status"] for event in told if event["event"] == "step"] == [
        "would change",
        "unreachable",
        "unreachable",
    ]


def test_scaling(there: tuple[Site, FakeMarathon]) -> None:
    site, fake = there
    assert only(scale(site, "hello", 4, mode=Mode.PLAN)) == (
        Status.WOULD_CHANGE,
        "instances: nothing -> 4",
        "+instances: 4\n",
    )
    assert only(scale(site, "hello", 4, mode=Mode.VERIFY))[0] is Status.WOULD_CHANGE
    with pytest.raises(NotFound):
        scale(site, "hello", 4, mode=Mode.APPLY)
    fake.put(HELLO)
    assert only(scale(site, "hello", 4, mode=Mode.PLAN))[2] == "-instances: 1\n+instances: 4\n"
    assert only(scale(site, "hello", 4, mode=Mode.APPLY))[0] is Status.CHANGED
    assert only(scale(site, "hello", 4, mode=Mode.APPLY))[0] is Status.OK


def test_deleting_is_behind_its_gate_and_never_forced_unasked(
    there: tuple[Site, FakeMarathon], told: list[Json]
) -> None:
    site, fake = there
    shut, open_ = Approval(), Approval(approvals=frozenset({"delete-app"}))
    assert only(delete(site, "hello", mode=Mode.APPLY, approval=shut))[0] is Status.OK, "there is nothing to ask about"
    fake.put(HELLO)
    assert only(delete(site, "hello", mode=Mode.VERIFY, approval=shut))[0] is Status.WOULD_CHANGE
    with pytest.raises(GateRefused, match=r"(?s)end /hello with its 1 task.*hello\.0 +node1") as refused:
        delete(site, "hello", mode=Mode.APPLY, approval=shut)
    assert only(refused.value.result) == (Status.SKIPPED, "the gate 'delete-app' was not opened", "")  # type: ignore[arg-type]
    assert only(delete(site, "hello", mode=Mode.APPLY, approval=open_)) == (Status.CHANGED, "delete", "-/hello\n")
    assert [one for one in fake.asked if one.startswith("DELETE")] == ["DELETE /v2/apps/hello?force=false"]


def test_a_forced_deletion_says_what_it_cancels(there: tuple[Site, FakeMarathon]) -> None:
    site, fake = there
    fake.put(HELLO)
    fake.apps["/hello"]["deployments"] = [{"id": "d7"}]
    with pytest.raises(GateRefused, match="end /hello with its 1 task, and cancel what is being deployed: d7"):
        delete(site, "hello", mode=Mode.APPLY, approval=Approval(), force=True)
    with pytest.raises(GateRefused) as unforced:
        delete(site, "hello", mode=Mode.APPLY, approval=Approval())
    assert "cancel" not in unforced.value.message


def test_tasks_have_their_hosts_names(there: tuple[Site, FakeMarathon]) -> None:
    site, fake = there
    fake.put({**HELLO, "instances": 2})
    assert list(tasks_of(site, "hello")["host"]) == ["node1", "node1"]
    assert tasks_of(site, "none").empty
    assert tasks_of(nobody(), "hello").empty
    with pytest.raises(EndpointUnreachable):
        tasks_of(nobody(), "hello", mode=Mode.APPLY)
