"""Whether Marathon works after ZooKeeper was restarted, asked of one on the loopback."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from fake_marathon import FakeMarathon, marathon_site
from marathon_answers import VERSION
from zookeeper_payloads import site as zookeeper_site

from runbook.errors import EndpointUnreachable, NoLeader
from runbook.remote.checks import Evidence
from runbook.services import zookeeper_clients
from runbook.services.marathon.ensemble import Framework
from runbook.services.zookeeper_clients import MarathonProbe, before_a_restart
from runbook.site import Site


class Mesos:
    """What Mesos says of the framework."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.evidence = Evidence(True, "F is active at m:5050, with 1 task")
        monkeypatch.setattr(Framework, "ask", lambda site: self)

    def registered(self) -> Evidence:
        return self.evidence


@pytest.fixture
def mesos(monkeypatch: pytest.MonkeyPatch) -> Mesos:
    return Mesos(monkeypatch)


@contextmanager
def running() -> Iterator[tuple[Site, FakeMarathon]]:
    with marathon_site() as (site, fake):
        fake.put({"id": "hello", "cmd": "true"})
        yield site, fake


def test_reading_is_enough_where_nothing_may_be_written(mesos: Mesos) -> None:
    with running() as (site, fake):
        assert before_a_restart(site).holds
        evidence = MarathonProbe(site).look()
        assert evidence.holds, evidence.text
        assert evidence.text == "m:8080 leads; F is active at m:5050, with 1 task"
        assert {line.split()[0] for line in fake.asked} == {"GET"}


def test_a_deployment_that_changes_nothing_must_end(mesos: Mesos, monkeypatch: pytest.MonkeyPatch) -> None:
    with running() as (site, fake):
        probe = MarathonProbe(site, deploy=True)
        evidence = probe.look()
        assert (evidence.holds, evidence.text.endswith("a deployment of /hello as it is ended")) == (True, True)
        assert [line for line in fake.asked if not line.startswith("GET")] == ["PUT /v2/apps/hello"]
        # one that does not end is not made a second time
        under_way = [{"id": "d1", "version": VERSION, "affectedApps": ["/hello"], "steps": [], "currentActions": []}]
        monkeypatch.setattr(zookeeper_clients.Marathon, "deployments", lambda self: under_way)
        fake.asked.clear()
        probe = MarathonProbe(site, deploy=True)
        first, second = probe.look(), probe.look()
        assert "the deployment of /hello as it is does not end" in first.text
        assert (first.holds, second.holds, second.hopeless) == (False, False, False)
        assert second.remedy is not None
        assert "curl -X DELETE http://m:8080/v2/leader" in second.remedy
        assert [line for line in fake.asked if not line.startswith("GET")] == ["PUT /v2/apps/hello"]


def test_a_framework_that_mesos_does_not_have_as_active_calls_for_an_abdication(mesos: Mesos) -> None:
    mesos.evidence = Evidence(False, "the framework is not connected: F at scheduler@1", remedy="see LIBPROCESS_IP")
    with running() as (site, fake):
        evidence = MarathonProbe(site, deploy=True).look()
        assert not evidence.holds
        assert "the framework is not connected" in evidence.text
        assert evidence.remedy is not None
        assert evidence.remedy.startswith("let the leader abdicate: curl -X DELETE http://m:8080/v2/leader")
        assert {line.split()[0] for line in fake.asked} == {"GET"}


def test_an_app_that_is_locked_is_no_failure_for_ever(mesos: Mesos) -> None:
    with running() as (site, fake):
        fake.locked = True
        probe = MarathonProbe(site, deploy=True)
        assert not probe.look().holds
        fake.locked = False
        assert probe.look().holds


def test_without_a_leader_it_does_not_work(mesos: Mesos) -> None:
    with running() as (site, fake):
        fake.elections = 1
        with pytest.raises(NoLeader):
            MarathonProbe(site).look()
        fake.elections = 1
        assert not before_a_restart(site).holds


def test_where_there_is_no_marathon_nothing_is_asked(mesos: Mesos) -> None:
    assert MarathonProbe(zookeeper_site()).look().text == "no host has the role marathon"
    with marathon_site() as (site, _):
        pass  # it is gone
    assert MarathonProbe(site).look().text == "no Marathon runs yet: chapter 4 starts it"
    with pytest.raises(EndpointUnreachable):
        MarathonProbe(site, ran=True).look()
