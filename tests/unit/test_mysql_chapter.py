"""Chapter 6 without hosts: what is refused when it opens."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from runbook.chapter import Chapter
from runbook.errors import ParameterError
from runbook.remote.hosts import Hosts
from runbook.remote.results import ApplyResult
from runbook.services.docker.chapter import UPLOAD_DEADLINE
from runbook.services.mysql import MySql

IMAGE = f'images: {{mysql: {{tag: "mysql:5.7.13", file: mysql.tar, sha256: "{"0" * 64}"}}}}\n'


@pytest.fixture
def parameters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A parameter file; records go below the test's folder."""
    (tmp_path / "outputs").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RUNBOOK_RECORD", raising=False)
    yield tmp_path / "site.yml"
    if Chapter._open is not None:
        Chapter._open.close()


def text(*roles: str) -> str:
    return (
        "name: test\nzookeeper: {allow_even: true}\nmesos: {master: {allow_even: true}}\n"
        f"hosts: [{{name: node1, address: 198.51.100.11, roles: [{', '.join(roles)}]}}]\n"
    )


@pytest.fixture(autouse=True)
def passwords(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNBOOK_MYSQL_PASSWORD", "otter-over-sand")
    monkeypatch.setenv("RUNBOOK_MYSQL_ROOT_PASSWORD", "heron-under-ice")


MEMBER = ("zookeeper", "mesos_master", "docker")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (
            text("docker") + IMAGE,
            [f"no host has the role {role}, which chapter 6 is about" for role in ("marathon", "mesos_slave")],
        ),
        (text(*MEMBER, "mesos_slave") + IMAGE, ["no host has the role marathon, which chapter 6 is about"]),
        (text(*MEMBER, "mesos_slave", "marathon"), ["no mysql is declared under images"]),
    ],
)
def test_what_mysql_cannot_do_without_is_told_when_the_chapter_opens(
    parameters: Path, content: str, told: list[str]
) -> None:
    parameters.write_text(content)
    with pytest.raises(ParameterError) as refused:
        MySql(parameters, mode="apply")
    assert [problem.message for problem in refused.value.problems] == told
    assert Chapter._open is None


def test_the_roles_and_an_image_suffice(parameters: Path) -> None:
    parameters.write_text(text(*MEMBER, "mesos_slave", "marathon") + IMAGE)
    assert len(MySql(parameters).definition().frame) > 5


def test_an_image_has_as_much_time_as_in_chapter_5(parameters: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = []

    def apply(self: Hosts, steps: object, name: str = "", deadline: float = 0.0) -> ApplyResult:
        given.append(deadline)
        return ApplyResult(name, self.mode, ())

    monkeypatch.setattr(Hosts, "apply", apply)
    parameters.write_text(text(*MEMBER, "mesos_slave", "marathon") + IMAGE)
    MySql(parameters, mode="apply").prepare()
    assert given == [UPLOAD_DEADLINE]
