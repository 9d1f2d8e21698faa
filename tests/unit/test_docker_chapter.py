"""Chapter 5 without hosts: what is refused when it opens, and what a site without a Marathon is spared."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_marathon import marathon_site
from fake_marathon import parameters as fake_parameters

from runbook.chapter import Chapter
from runbook.errors import AppInvalid
from runbook.remote.checks import CheckResult
from runbook.remote.hosts import Hosts, Output
from runbook.remote.modes import Status, Verdict
from runbook.services.docker import DockerHosts

ALONE = "name: test\nhosts:\n  - {name: node1, address: 198.51.100.11, roles: [docker]}\n"
EVERYTHING = """\
name: test
hosts:
  - {name: node1, address: 127.0.0.1, roles: [zookeeper, mesos_master, mesos_slave, marathon, docker]}
zookeeper: {allow_even: true, client_port: 1}
mesos: {master: {allow_even: true, port: 2}, slave: {ports: '[3-4]'}}
open_ports: 1-65535
marathon: {http_port: 5}
"""


@pytest.fixture
def parameters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A parameter file; records go below the test's folder. No host runs a container."""
    (tmp_path / "outputs").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RUNBOOK_RECORD", raising=False)
    monkeypatch.setattr(Hosts, "run", lambda self, *_, **__: {host.name: Output("", "", 0) for host in self})
    yield tmp_path / "site.yml"
    if Chapter._open is not None:
        Chapter._open.close()


@pytest.mark.parametrize("mode", ["plan", "apply", "verify"])
def test_a_site_without_a_marathon_is_told_that_nothing_starts_the_app(parameters: Path, mode: str) -> None:
    parameters.write_text(ALONE + "apps: {}\n")
    chapter = DockerHosts(parameters, mode=mode)
    (app,) = chapter.run()
    assert (app.step, app.status) == ("app /centos-marathon", Status.SKIPPED)
    assert "no host has the role marathon" in app.summary
    for result in (chapter.running(), chapter.times()):
        assert isinstance(result, CheckResult)
        assert result.verdict is Verdict.NOT_TRIED
        assert "no host has the role marathon" in result.evidence.text
    assert len(chapter.ps().frame) == len(chapter.logs().frame) == 0
    summary = chapter.finish()
    assert summary.outcome == "ok"
    assert not any(section.checks for section in summary.sections)  # nothing is claimed


def test_parameters_without_the_app_are_refused_when_the_chapter_opens(parameters: Path) -> None:
    parameters.write_text(EVERYTHING + "apps: {shop: {cmd: serve}}\n")
    with pytest.raises(AppInvalid, match=r"site\.yml declares no app centos-marathon\n.*its apps: shop; add it"):
        DockerHosts(parameters, mode="apply")
    assert Chapter._open is None


@pytest.mark.parametrize(("mode", "verdict"), [("plan", Verdict.NOT_TRIED), ("verify", Verdict.FAILS)])
def test_where_marathon_does_not_answer_nothing_is_claimed_of_containers(
    parameters: Path, mode: str, verdict: Verdict
) -> None:
    """Nobody listens at port 5."""
    parameters.write_text(EVERYTHING)
    chapter = DockerHosts(parameters, mode=mode)
    result = chapter.times()
    assert result.verdict is verdict
    assert "marathon on node1" in result.evidence.text
    assert chapter.logs().caption == "docker logs of centos-marathon: not known, as Marathon does not answer"
    assert chapter.ps().frame.empty


def test_a_plan_before_the_app_runs_tries_no_claim_about_containers(parameters: Path) -> None:
    with marathon_site() as (site, _):
        parameters.write_text(fake_parameters(site.marathon.http_port))
        chapter = DockerHosts(parameters)
        assert [result.verdict for result in (chapter.running(), chapter.times())] == [Verdict.NOT_TRIED] * 2
