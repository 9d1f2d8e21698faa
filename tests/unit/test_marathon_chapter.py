"""Chapter 4 over a Marathon on the loopback, as far as it needs no host: apps, their answers, and the drill's gate."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import pytest
from fake_marathon import FakeMarathon, marathon_site, parameters
from loopback import Loopback, answer
from marathon_answers import task

from runbook.chapter import Chapter
from runbook.errors import ChapterFailed, EndpointUnreachable, ParameterError
from runbook.outcomes import Outcome
from runbook.remote.checks import CheckResult
from runbook.remote.modes import Status
from runbook.remote.results import ApplyResult
from runbook.rollout import journal, record
from runbook.services.http import Timeouts
from runbook.services.marathon.answers import answered
from runbook.services.marathon.chapter import MarathonChapter
from runbook.site import Site

Json = dict[str, Any]
HELLO = {
    "id": "hello",
    "cmd": 'while true; do ( echo "HTTP/1.0 200 Ok"; echo; echo "Hello World" ) | nc -l $PORT; done',
}
HELLO |= {"cpus": 0.1, "mem": 16, "instances": 1}  # type: ignore[dict-item]


class Opened:
    """Opens chapter 4 of the fake Marathon's site in a mode; the last one that was opened is closed by itself."""

    def __init__(self, folder: Path, site: Site, fake: FakeMarathon) -> None:
        self.folder = folder
        self.site = site
        self.fake = fake

    def __call__(self, mode: str, more: str = "", yes: bool = False) -> MarathonChapter:
        file = self.folder / "site.yml"
        file.write_text(parameters(self.site.marathon.http_port) + more)
        return MarathonChapter(file, mode, yes)

    def journal(self) -> list[Json]:
        assert Chapter._open is not None
        return list(journal.read(Chapter._open.folder / journal.NAME))  # type: ignore[arg-type]


@pytest.fixture
def opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Opened]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(record.VARIABLE, raising=False)
    (tmp_path / "outputs").mkdir()
    with marathon_site() as (site, fake):
        yield Opened(tmp_path, site, fake)
    if Chapter._open is not None:
        Chapter._open.close()


MISSING = f"artifacts: {{marathon: {{file: none.rpm, sha256: '{'0' * 64}'}}}}"


def test_a_missing_archive_is_refused_before_any_host_is_touched(opened: Opened) -> None:
    chapter = opened("apply", MISSING)
    with pytest.raises(ParameterError, match=r"(?s)artifacts.*none\.rpm"):
        chapter.install()
    assert [event for event in opened.journal() if event["event"] == "step"] == []


def test_a_missing_archive_fails_a_plan_which_goes_on(opened: Opened) -> None:
    chapter = opened("plan", MISSING)
    chapter.install()
    chapter.instances()
    assert [event["section"] for event in opened.journal() if event["event"] == "section_finished"] == [
        "4.1",
        "4.2 state",
    ]
    with pytest.raises(ChapterFailed, match=r"(?s)section 4\.1: .*artifacts.*none\.rpm"):
        chapter.finish()


def test_the_document_s_app_is_deployed_scaled_and_left_alone(opened: Opened) -> None:
    for expected in (["changed", "changed"], ["ok", "ok"]):
        chapter = opened("apply")
        chapter.deploy()
        chapter.scale(instances=4)
        sections = {event["section"]: event["status"] for event in opened.journal() if event["event"] == "step"}
        assert list(sections) == ["4.3", "4.3 scale"]
        assert list(sections.values()) == expected
        chapter.finish()
    assert opened.fake.apps["/hello"]["instances"] == 4


def test_other_apps_have_sections_of_their_own(opened: Opened) -> None:
    file = opened.folder / "marathon-test.json"
    file.write_text(json.dumps({"id": "shop/web", "cmd": "x", "cpus": 0.1, "mem": 16}))
    chapter = opened("apply")
    chapter.deploy()
    chapter.deploy_file(file)
    assert [section.number for section in chapter.finish().sections] == ["4.3", "4.3 /shop/web"]
    chapter = opened("apply")
    with pytest.raises(ParameterError, match=r"none\.json.*cannot be read"):
        chapter.deploy_file("none.json")


def test_another_app_has_as_many_instances_as_it_says(opened: Opened) -> None:
    file = opened.folder / "marathon-test.json"
    app = {"id": "shop/web", "cmd": "x", "cpus": 0.1, "mem": 16}
    for instances in ({"instances": 2}, {"instances": 3}, {}):
        file.write_text(json.dumps(app | instances))
        opened("apply").deploy_file(file)
    assert opened.fake.apps["/shop/web"]["instances"] == 3
    file.write_text(json.dumps(app | {"instances": 5}))
    (row,) = opened("verify").deploy_file(file)
    assert (row.status, row.summary) == (Status.WOULD_CHANGE, "instances: 3 -> 5")


def test_every_instance_is_asked_at_its_own_address(opened: Opened) -> None:
    opened.fake.put(HELLO)
    with Loopback(lambda request: [b"HTTP/1.0 200 Ok\n\nHello World\n"]) as app:
        opened.fake.apps["/hello"]["tasks"] = [task(1, host="127.0.0.1", ports=[app.port])]
        result = opened("apply").answers()
        assert result.evidence.text == f"node1:{app.port} answered 'Hello World'"
        assert len(app.requests) == 1
    with Loopback(lambda request: [answer(200, "Good Bye", kind="text/plain")]) as other:
        opened.fake.apps["/hello"]["tasks"] = [task(1, host="127.0.0.1", ports=[other.port])]
        chapter = opened("verify")
        result = chapter.answers()
        assert not result.holds
        assert result.evidence.table is not None
        assert result.evidence.table["answer"].tolist() == ["✗ Good Bye"]
    with pytest.raises(ChapterFailed, match=f"node1:{other.port} did not answer 'Hello World'"):
        chapter.finish()


def test_a_lost_task_is_neither_asked_nor_crashed(opened: Opened) -> None:
    opened.fake.put(HELLO)
    opened.fake.apps["/hello"]["tasks"] = [task(1, host="198.51.100.99", state="TASK_LOST")]
    result = opened("verify").answers()
    assert result.evidence.text.startswith("0 of 1 instance run; ")
    assert result.evidence.table is not None
    assert result.evidence.table.empty
    skipped = opened("apply", yes=True).crash()
    assert isinstance(skipped, ApplyResult)
    assert [one.summary for one in skipped] == ["no task of it runs"]


def test_an_answer_without_end_is_not_waited_for(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runbook.services.marathon.answers.PATIENCE", Timeouts(whole=0.2))
    head = b"HTTP/1.0 200 Ok\n\n"
    opened.fake.put(HELLO)
    for piece in (b"tick\n", b"no line ends here "):
        with Loopback(lambda request, piece=piece: chain([head], repeat(piece))) as app:  # type: ignore[misc]
            opened.fake.apps["/hello"]["tasks"] = [task(1, host="127.0.0.1", ports=[app.port])]
            result = opened("plan").answers()
        assert not result.holds
        assert result.evidence.table is not None
        (said,) = result.evidence.table["answer"]
        assert said.startswith(f"✗ {piece.decode().strip()} ")
        assert len(said) < 400


def test_fewer_instances_than_are_wanted_are_told_with_why(opened: Opened) -> None:
    opened.fake.put({**HELLO, "instances": 2})
    opened.fake.apps["/hello"] |= {"tasks": [], "instances": 2}
    failure = {"state": "TASK_FAILED", "message": "Command exited with status 127", "host": "127.0.0.1"}
    opened.fake.apps["/hello"]["lastTaskFailure"] = {
        **failure,
        "taskId": "hello.1",
        "timestamp": "2016-05-31T07:32:30Z",
    }
    result = opened("verify").answers()
    assert not result.holds
    assert result.evidence.text.startswith("0 of 2 instances run; 127.0.0.1: tasks fail: TASK_FAILED: Command exited")
    assert "sandbox" in str(result.evidence.remedy)
    del opened.fake.apps["/hello"]
    planned = opened("plan").answers()
    assert (planned.evidence.text, planned.evidence.tried) == ("there is no app /hello", False)


@pytest.mark.parametrize("mode", ["plan", "verify"])
def test_the_drill_is_none_of_a_plan_s_or_a_verification_s(opened: Opened, mode: str) -> None:
    opened.fake.put(HELLO)
    chapter = opened(mode)
    result = chapter.crash()
    assert isinstance(result, ApplyResult)
    assert [(one.status, one.summary) for one in result] == [
        (Status.SKIPPED, "a drill ends a task: only in mode apply")
    ]
    assert chapter.finish().outcome is Outcome.OK


def test_a_shut_gate_skips_the_drill_visibly_and_fails_nothing(opened: Opened) -> None:
    opened.fake.put(HELLO)
    chapter = opened("apply")
    result = chapter.crash()
    assert isinstance(result, ApplyResult)
    (one,) = result
    assert (one.step, one.status) == ("crash of /hello", Status.SKIPPED)
    assert one.summary.startswith("the gate 'kill-task' was not opened: run with --yes, or list 'kill-task'")
    events = [(event["event"], event.get("answer", event.get("status"))) for event in opened.journal()]
    assert ("gate", "refused") in events
    assert ("step", "skipped") in events
    assert chapter.finish().outcome is Outcome.OK


def test_without_marathon_a_plan_shows_nothing_and_apply_stops(opened: Opened) -> None:
    plan = opened("plan")
    plan.site = plan.site.model_copy(update={"marathon": plan.site.marathon.model_copy(update={"http_port": 5})})
    assert plan.tasks().frame.empty
    assert plan.distribution().counts == {"node1": 0}
    assert "Connection refused" in plan.apps().frame.iloc[0, 0]
    assert "Connection refused" in plan.instances().frame["problem"][0], "told without ZooKeeper, which is not there"
    checks = [plan.one_leader(), plan.every_instance(), plan.registered(), plan.kept(), plan.answers()]
    assert all(isinstance(one, CheckResult) and not one.evidence.tried for one in checks)
    assert plan.finish().outcome is Outcome.OK
    apply = opened("apply")
    apply.site = plan.site
    for call in (apply.tasks, apply.distribution, apply.apps):
        with pytest.raises(EndpointUnreachable):
            call()
    with pytest.raises(EndpointUnreachable):
        answered(apply.site, "hello", "x")


def test_apps_that_no_parameter_names_are_marked_and_are_no_drift(opened: Opened) -> None:
    opened.fake.put(HELLO)
    opened.fake.put({"id": "somebodys/job", "cmd": "sleep 1", "cpus": 0.1, "mem": 16})
    chapter = opened("verify")
    table = chapter.apps()
    marks = dict(zip(table.frame["app"], table.frame["parameters"], strict=True))
    assert marks == {"/hello": "✓", "/somebodys/job": "⚠ no parameter names it"}
    assert "1 that no parameter names" in table.caption
    assert chapter.finish().outcome is Outcome.OK
