"""Bad input: one message with place and hint, before any host is touched, never a traceback."""

from __future__ import annotations

import contextlib
import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from runbook.cli import main
from runbook.errors import ParameterError, Problem
from runbook.located import LARGEST_FILE
from runbook.rollout.run import Notebook, chosen
from runbook.services.marathon.apps import app_from_file
from runbook.site import GATES, Site

PRODUCTION = Path(__file__).parents[2] / "parameters" / "production.yml"
DATA: dict[str, Any] = yaml.safe_load(PRODUCTION.read_text(encoding="utf-8"))
HOST = "name: demo\nhosts: [{name: a, address: 192.0.2.1, roles: [docker]}]\n"


def refusal(text: str) -> list[str]:
    """The problems of a text that is refused; each has a line and a hint."""
    with pytest.raises(ParameterError) as caught:
        Site.parse(text, Path("demo.yml"))
    problems = caught.value.problems
    assert all(problem.line and problem.remedy for problem in problems)
    return [f"{problem.line}: {problem.field}: {problem.message}" for problem in problems]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("approvals: [restart-dokcer]", "3: approvals[0]: 'restart-dokcer' is not a gate"),
        ("approvals: [kill-task, kill-task]", "3: approvals: lists kill-task twice"),
        ("syslog: {programs: [a, b, a]}", "3: syslog.programs: lists a twice"),
        ("mesos: {slave: {cpus: 1.0e-300}}", "3: mesos.slave.cpus: is too small a number"),
        ("mesos: {slave: {cpus: 1.0e-400}}", "3: mesos.slave.cpus: is too small a number"),
        ("mesos: {slave: {cpus: 5.0e-324}}", "3: mesos.slave.cpus: is too small a number"),
        ("mesos: {slave: {cpus: 1.0e-5}}", "3: mesos.slave.cpus: 1e-05 is out of range"),
        ("mesos: {slave: {cpus: 1.0e+300}}", "3: mesos.slave.cpus: is too large a number"),
        ("mesos: {slave: {cpus: .nan}}", "3: mesos.slave.cpus: is a text where a number is wanted"),
        ("mesos: {slave: {cpus: 1.0e+9999}}", "3: mesos.slave.cpus: is too large a number"),
        ("mesos: {slave: {mem: 1.0e-300}}", "3: mesos.slave.mem: is too small a number"),
        ("mesos: {slave: {mem: 0.5}}", "3: mesos.slave.mem: 0.5 is out of range"),
        ("apps: {w: {cmd: x, disk: -1}}", "3: apps.w.disk: -1 is out of range"),
        ("apps: {w: {cmd: x, cpus: 1.0e-300}}", "3: apps.w.cpus: is too small a number"),
        ("apps: {w: {cmd: x, mem: many}}", "3: apps.w.mem: is a text where a number is wanted"),
        (f"apps: {{w: {{cmd: x, instances: {'9' * 30}}}}}", "3: apps.w.instances: is too large a number"),
        ("zookeeper: {tick_time: 99999999999}", "3: zookeeper.tick_time: 99999999999 is out of range"),
        (f"ssh: {{port: {'9' * 6000}}}", "3: ssh.port: is a number of 6000 characters"),
        (f"registry: {{port: -{'9' * 6000}}}", "3: registry.port: is a number of 6001 characters"),
        (f"open_ports: {'9' * 6000}", "3: open_ports: is a number of 6000 characters"),
        (f"mesos: {{slave: {{cpus: 0.{'3' * 6000}}}}}", "3: mesos.slave.cpus: is a number of 6002 characters"),
        ("mesos: {slave: {executor_registration_timeout: ٥mins}}", "'٥mins' is not a duration of Mesos"),
        ("registry: {user: 'a:b'}", "3: registry.user: 'a:b' is not a user's name"),
        ("registry: {container: ١}", "3: registry.container: '١' is not a plain name"),
        ('mesos: {cluster: "a\\u202eb"}', "3: mesos.cluster: contains a control or invisible character (U+202E)"),
        ('mesos: {cluster: "a\\u200bb"}', "3: mesos.cluster: contains a control or invisible character (U+200B)"),
        ('mesos: {cluster: "a\\u2066b"}', "3: mesos.cluster: contains a control or invisible character (U+2066)"),
        ("mesos: {cluster: a\u202eb}", "3: mesos.cluster: contains a control or invisible character (U+202E)"),
        ("mesos: {cluster: a\u3164b}", "3: mesos.cluster: contains a control or invisible character (U+3164)"),
        ("mesos: {cluster: a\ufe0fb}", "3: mesos.cluster: contains a control or invisible character (U+FE0F)"),
        ("mesos: {cluster: file:///etc/shadow}", "3: mesos.cluster: 'file:///etc/shadow' cannot be shown as a name"),
    ],
)
def test_a_value_is_refused_where_it_stands(text: str, expected: str) -> None:
    (problem,) = refusal(f"{HOST}{text}\n")[:1]
    assert expected in problem
    assert len(problem) < 300


def test_a_role_that_is_listed_twice_is_refused() -> None:
    (problem,) = refusal("name: demo\nhosts:\n  - name: a\n    address: 192.0.2.1\n    roles: [docker, docker]\n")
    assert problem == "5: hosts[0].roles: lists docker twice"


def test_the_known_gates_are_listed() -> None:
    with pytest.raises(ParameterError) as caught:
        Site.parse(f"{HOST}approvals: [everything]\n", Path("demo.yml"))
    assert caught.value.problems[0].remedy == f"known: {', '.join(GATES)}"


HOST_PATHS = [
    "zookeeper.home",
    "zookeeper.conf_dir",
    "zookeeper.data_dir",
    "zookeeper.log_dir",
    "zookeeper.pid_dir",
    "mesos.master.work_dir",
    "mesos.master.log_dir",
    "mesos.slave.work_dir",
    "syslog.config",
    "syslog.log_dir",
    "mysql.volume",
    "registry.data_dir",
]


@pytest.mark.parametrize("field", HOST_PATHS)
@pytest.mark.parametrize(
    "path",
    ["/opt/a:/etc", '/opt/a"b', "/opt/a'b", "/opt/a b", "/opt/$a", "/opt/a\\b", "/opt/a,b", "/opt/ä", "/opt/a%b"],
)
def test_a_path_on_hosts_means_the_same_to_every_program(field: str, path: str) -> None:
    *sections, name = field.split(".")
    quoted = "'" + path.replace("'", "''") + "'"
    text = f"{name}: {quoted}"
    for section in reversed(sections):
        text = f"{section}: {{{text}}}"
    (problem,) = refusal(f"{HOST}{text}\n")
    assert problem.startswith(f"3: {field}: ")
    assert "which means something else to a program that gets the path" in problem


def test_every_path_on_hosts_is_among_these() -> None:
    """The others are znodes."""
    found = {
        name
        for name, value in _scalars(DATA)
        if isinstance(value, str) and re.match(r"/(?!mesos$|marathon$|runbook$)", value)
    }
    assert found == set(HOST_PATHS)


def _scalars(data: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(data, dict):
        for key, value in data.items():
            yield from _scalars(value, f"{place}.{key}".removeprefix("."))
    else:
        yield place, data


def test_a_path_longer_than_linux_allows_is_refused() -> None:
    for path in ("/a" * 3000, f"/{'a' * 300}"):
        (problem,) = refusal(f"{HOST}registry: {{data_dir: {path}}}\n")
        assert "is longer than Linux allows" in problem
        assert len(problem) < 200


# files


def special(kind: str, path: Path) -> Path:
    """A file that is none to read: of this kind, at `path` or where there is one already."""
    if kind == "device":
        return Path("/dev/zero")
    if kind == "FIFO":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "socket":
        with contextlib.closing(socket.socket(socket.AF_UNIX)) as bound:
            bound.bind(os.path.relpath(path))
    elif kind == "huge":
        with path.open("wb") as file:
            file.truncate(1 << 40)
    elif kind == "long name":
        return path.with_name("n" * 5000)
    return path


KINDS = ["device", "FIFO", "folder", "socket", "huge", "long name"]


@pytest.mark.timeout(20)
@pytest.mark.parametrize("kind", KINDS)
def test_a_site_file_that_is_none_is_refused_at_once(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = special(kind, tmp_path / "site.yml")
    for command in (["check"], ["rollout"], ["console"], ["images", "save"]):
        done = CliRunner().invoke(main, [*command, str(file)])
        assert done.exit_code == 2, done.output
        assert done.exception is None or isinstance(done.exception, SystemExit)
        assert "cannot be read: " in done.stderr or "is a directory" in done.stderr
    assert LARGEST_FILE < 1 << 30


@pytest.mark.timeout(20)
@pytest.mark.parametrize("kind", KINDS)
def test_an_app_file_that_is_none_is_refused_at_once(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ParameterError, match="cannot be read: "):
        app_from_file(special(kind, tmp_path / "app.json"))


def test_an_app_file_without_an_end_of_brackets_is_no_traceback(tmp_path: Path) -> None:
    (tmp_path / "app.json").write_text("[" * 200_000)
    with pytest.raises(ParameterError, match="is not JSON"):
        app_from_file(tmp_path / "app.json")


@pytest.mark.timeout(60)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("field", ["known_hosts", "key"])
def test_a_file_of_ssh_that_is_none_is_a_hosts_error(
    field: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from runbook.remote.hosts import Hosts

    monkeypatch.chdir(tmp_path)
    (tmp_path / "known").write_text("")
    ssh = {"known_hosts": "known", field: str(special(kind, tmp_path / "file"))}
    text = f"name: demo\nssh: {yaml.safe_dump(ssh, default_flow_style=True)}"
    site = Site.parse(f"{text}hosts: [{{name: a, address: 127.0.0.1, roles: [docker]}}]\n", tmp_path / "demo.yml")
    with Hosts.of(site) as hosts:
        output = hosts.run("true")["a"]
    assert output.error is not None
    assert "cannot be read: " in output.error.message


@pytest.mark.timeout(60)
@pytest.mark.parametrize("kind", KINDS)
def test_an_upload_or_certificate_that_is_none_is_a_problem_with_its_place(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kind == "huge":
        pytest.skip("an image may be huge")
    monkeypatch.chdir(tmp_path)
    file = special(kind, tmp_path / "file")
    text = (
        "name: demo\nhosts: [{name: a, address: 192.0.2.1, roles: [docker, registry]}]\n"
        f"images: {{registry: {{tag: 'registry:2.3.0', file: {file}, sha256: '{'0' * 64}'}}}}\n"
        f"registry: {{security: tls, tls: {{certificate: {file}, key: {file}, ca: {file}}}}}\n"
    )
    problems = Site.parse(text, tmp_path / "demo.yml").missing_files()
    fields = ["images.registry.file", *(f"registry.tls.{name}" for name in ("ca", "certificate", "key"))]
    assert [problem.field for problem in problems] == fields


# chapters


@pytest.mark.parametrize(
    "text", ["", " ", ",", "١", "1-٣", "0-99999999", "-1", "1-", "2-1", "1;2", "\u202e1", "9" * 9000]
)
def test_what_names_no_chapters_is_refused_in_one_short_message(text: str) -> None:
    with pytest.raises(ParameterError) as caught:
        chosen([Notebook(Path("00_a.ipynb")), Notebook(Path("01_b.ipynb"))], text)
    told = str(caught.value)
    assert "is neither a number nor a range" in told
    assert "as in 1 or 0-3 or 0,2-4" in told
    assert len(told) < 500
    assert told.replace("…", "").isascii()


def test_chapters_that_are_missing_are_listed_once() -> None:
    with pytest.raises(ParameterError) as caught:
        chosen([Notebook(Path("00_a.ipynb"))], "0-3")
    (problem,) = caught.value.problems
    assert problem.message == "there is no chapter 1, 2, 3"


# whatever it is


NASTY = st.one_of(
    st.sampled_from(
        [
            *("", " ", "-", "/", "//", "/a/../b", "~", "~root/x", "~nobody-of-this-name/x", "null", "٣", "-rf", "a:b"),
            *("\u202e", "\x00", "\n", "'", '"', "$(reboot)", "`id`", "..", "env:", "file:", "env:A B", "a" * 10_000),
            *("1-", "1-0", "0", "65536", "*", "&a", "!x", "{", "[", "\ud7ff", "\U0010ffff", "1e400", "0x10", "1:30"),
        ]
    ),
    st.sampled_from([0, -1, 2**31, 2**63, -(2**64), 10**400, 1e-300, 5e-324, 1e300, True, False, None]),
    st.text(max_size=30),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.lists(st.sampled_from(["docker", "zookeeper", "a", 1, None]), max_size=4),
    st.dictionaries(st.text(max_size=8), st.one_of(st.none(), st.text(max_size=8), st.integers()), max_size=3),
)


def _places(data: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if place:
        yield place
    items = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for key, value in items:
        yield from _places(value, (*place, key))


PLACES = list(_places(DATA))


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(st.sampled_from(PLACES), NASTY), min_size=1, max_size=3))
@example([(("apps", "hello", "env"), {"A": {"secret": "env:"}})])
@example([(("apps", "hello"), {"cmd": {"secret": 1}})])
@example([(("hosts", 0, "roles"), ["docker", {}])])
def test_whatever_stands_in_a_file_it_is_a_site_or_refused_with_place_and_hint(
    changes: list[tuple[tuple[Any, ...], Any]],
) -> None:
    data = yaml.safe_load(yaml.safe_dump(DATA))
    for place, value in changes:
        inner = data
        with contextlib.suppress(KeyError, IndexError, TypeError):  # an earlier change took the place away
            for part in place[:-1]:
                inner = inner[part]
            inner[place[-1]] = value
    text = yaml.safe_dump(data, allow_unicode=True)
    problems: tuple[Problem, ...] = ()
    try:
        site = Site.parse(text, Path("demo.yml"))
        site.missing_files()
        site.missing_secrets()
        site.to_json()
    except ParameterError as error:
        problems = error.problems
    for problem in problems:
        assert problem.remedy
        assert problem.message
        assert len(str(problem)) < 25_000
        assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f\u202a-\u202e\u2066-\u2069]", str(problem))
