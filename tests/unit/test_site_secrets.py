"""References to secrets that cannot be resolved are named, all at once, before any host is touched."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from runbook.chapter import Chapter
from runbook.cli import main
from runbook.errors import ParameterError
from runbook.rollout import lock
from runbook.services.overview import preflight
from runbook.site import Site

TEXT = """\
name: demo
ssh: {user: me, become: sudo, become_password: "env:ABSENT_SUDO", known_hosts: none}
hosts:
  - {name: a, address: 127.0.0.1, roles: [zookeeper, mesos_master, mesos_slave, marathon, docker, registry]}
  - name: b
    address: 127.0.0.2
    roles: [zookeeper, mesos_master, docker]
    ssh:
      become_password: file:absent
  - {name: c, address: 127.0.0.3, roles: [zookeeper, mesos_master, docker]}
apps:
  web:
    cmd: sleep 1
    env:
      A: {secret: "file:open"}
mysql:
  password: env:ABSENT_USER
  root_password: env:SHORT
registry:
  security: tls
  tls: {certificate: c, key: k, ca: a}
  user: u
  password: env:ABSENT_REGISTRY
images:
  mysql: {tag: "mysql:5.7.13", file: m.tar, sha256: @SUM@}
  registry: {tag: "registry:2.3.0", file: r.tar, sha256: @SUM@}
""".replace("@SUM@", repr("0" * 64))
SUDO = ["ssh.become_password", "hosts[1].ssh.become_password"]
ALL = [*SUDO, "apps.web.env.A", "mysql.password", "mysql.root_password", "registry.password"]


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "open").write_text("never-shown\n")
    (tmp_path / "open").chmod(0o644)
    monkeypatch.setenv("SHORT", "q#Z")
    monkeypatch.setattr(lock, "SHARED", tmp_path)
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "demo.yml"
    path.write_text(TEXT)
    return path


@pytest.mark.parametrize(
    ("chapters", "fields"),
    [
        (None, ALL),
        ({"0"}, SUDO),
        ({"1", "2", "3"}, SUDO),
        ({"4"}, [*SUDO, "apps.web.env.A"]),
        ({"5"}, [*SUDO, "apps.web.env.A"]),
        ({"6"}, [*SUDO, "mysql.password", "mysql.root_password"]),
        ({"7"}, [*SUDO, "registry.password"]),
        ({"8"}, [*SUDO, "registry.password"]),
    ],
)
def test_those_that_the_chapters_need_are_found_each_where_it_stands(
    file: Path, chapters: set[str] | None, fields: list[str]
) -> None:
    site = Site.load(file)
    problems = site.missing_secrets(chapters)
    assert [problem.field for problem in problems] == fields
    assert all(problem.line and problem.remedy for problem in problems)
    with pytest.raises(ParameterError) as caught:
        site.check_secrets(chapters)
    assert caught.value.problems == tuple(problems)


def test_each_has_its_line_its_reason_and_no_value(file: Path) -> None:
    told = "\n".join(map(str, Site.load(file).missing_secrets()))
    assert f"{file}:2: ssh.become_password: env:ABSENT_SUDO: the environment variable is not set" in told
    assert f"{file}:9: hosts[1].ssh.become_password: file:{file.parent}/absent: the file cannot be read" in told
    assert f"{file}:15: apps.web.env.A: file:{file.parent}/open: others than the file's owner may use it" in told
    assert f"{file}:18: mysql.root_password: env:SHORT: the secret is shorter than 4 characters" in told
    assert "never-shown" not in told
    assert "q#Z" not in told


def test_one_that_can_be_resolved_is_no_problem(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (file.parent / "open").chmod(0o600)
    (file.parent / "absent").write_text("no longer absent\n")
    (file.parent / "absent").chmod(0o600)
    for name in ("ABSENT_SUDO", "ABSENT_USER", "ABSENT_REGISTRY", "SHORT"):
        monkeypatch.setenv(name, "long enough")
    assert Site.load(file).missing_secrets() == []


def test_a_site_without_marathon_and_registry_needs_none_of_theirs(file: Path) -> None:
    file.write_text(TEXT.replace(", mesos_slave, marathon", "").replace(", docker, registry]", ", docker]"))
    assert [problem.field for problem in Site.load(file).missing_secrets()] == SUDO


def test_a_huge_file_is_no_secret(file: Path) -> None:
    with (file.parent / "absent").open("wb") as huge:
        huge.truncate(1 << 40)
    (file.parent / "absent").chmod(0o600)
    (problem,) = [each for each in Site.load(file).missing_secrets() if each.field.startswith("hosts")]
    assert "the file is longer than 65536 bytes" in problem.message


def test_a_rollout_is_refused_with_all_of_them_and_leaves_nothing(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def touched(*_: object, **__: object) -> None:
        raise AssertionError("a record was begun")

    monkeypatch.setattr("runbook.rollout.record.begin", touched)
    notebooks = Path(__file__).parents[2] / "notebooks"
    for mode in ("plan", "apply", "verify"):
        done = CliRunner().invoke(
            main, ["rollout", str(file), "--mode", mode, "--chapters", "1,6", "--notebooks", str(notebooks)]
        )
        assert done.exit_code == 2, done.output
        assert "4 problems in the parameters" in done.stderr
        assert all(field in done.stderr for field in [*SUDO, "mysql.password", "mysql.root_password"])
        assert {path.name for path in file.parent.iterdir()} == {"demo.yml", "open"}


def test_a_chapter_by_itself_is_refused_likewise(file: Path) -> None:
    class Lone(Chapter):
        number, title = "6", "Lone"

    with pytest.raises(ParameterError) as caught:
        Lone(file)
    assert [problem.field for problem in caught.value.problems] == [*SUDO, "mysql.password", "mysql.root_password"]


def test_the_check_tells_them_beside_what_hosts_answer(file: Path) -> None:
    result = preflight.run(Site.load(file))
    assert not result.ok
    assert set(ALL) <= {problem.field for problem in result.files}
    assert {item.host for item in result.items} == {"a", "b", "c"}
    assert f"{file}:18" in result.tables[1].frame["check"].to_list()
