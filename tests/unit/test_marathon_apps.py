"""What of an app's definition matters: nothing that Marathon added, everything that somebody changed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from marathon_answers import in_11, in_15

from runbook.errors import AppInvalid, ParameterError, SecretError
from runbook.secrets import Secret
from runbook.services.marathon import app_from_file, app_of, differences
from runbook.services.marathon.apps import body_of, update_of
from runbook.site import Site

Json = dict[str, Any]

HELLO: Json = {"id": "hello", "cmd": "nc -l $PORT", "cpus": 0.1, "mem": 16, "instances": 4}
MYSQL: Json = {
    "id": "db/mysql",
    "cpus": 0.5,
    "mem": 1024.0,
    "instances": 1,
    "container": {
        "type": "DOCKER",
        "docker": {
            "image": "mysql:5.7.13",
            "network": "BRIDGE",
            "portMappings": [{"containerPort": 3306, "hostPort": 0, "servicePort": 0, "protocol": "tcp"}],
        },
        "volumes": [{"containerPath": "/var/lib/mysql", "hostPath": "/opt/mysql", "mode": "RW"}],
    },
    "constraints": [["hostname", "CLUSTER", "198.51.100.11"]],
    "healthChecks": [{"protocol": "TCP", "gracePeriodSeconds": 60}],
    "env": {"MYSQL_DATABASE": "BucketList"},
}
WEB: Json = {
    "id": "/web",
    "args": ["serve"],
    "ports": [0, 8080],
    "uris": ["http://files/a.tgz"],
    "healthChecks": [{"protocol": "HTTP", "path": "/health"}, {"protocol": "TCP", "portIndex": 1}],
    "constraints": [["hostname", "UNIQUE"], ["rack", "GROUP_BY", "2"]],
    "labels": {"team": "a"},
    "dependencies": ["db/mysql"],
    "upgradeStrategy": {"minimumHealthCapacity": 0.5},
}


@pytest.mark.parametrize("answered", [in_11, in_15])
@pytest.mark.parametrize("app", [HELLO, MYSQL, WEB], ids=["hello", "mysql", "web"])
def test_nothing_differs_from_what_marathon_makes_of_the_same(app: Json, answered: Callable[..., Json]) -> None:
    assert differences(app, answered(app)) == []


def test_what_marathon_makes_of_ports_by_the_network_is_no_difference() -> None:
    """`AppNormalization.scala` of 1.5, `Container.scala` of 1.3: else an app would be changed by every run."""
    bridge = {"id": "a", "container": {"docker": {"image": "a:1", "network": "BRIDGE"}}, "requirePorts": True}
    answered = in_15(bridge, requirePorts=False)
    default = {"containerPort": 0, "hostPort": 0, "servicePort": 10001, "name": "default", "protocol": "tcp"}
    answered["container"]["portMappings"] = [{**default, "labels": {}}]
    assert differences(bridge, answered) == []
    mappings = [{"containerPort": 80}]
    for network in ({"network": "HOST"}, {}):
        host = {"id": "a", "container": {"docker": {"image": "a:1", **network, "portMappings": mappings}}}
        assert differences(host, in_11({"id": "a", "container": {"docker": {"image": "a:1", **network}}})) == []
        assert differences(host, in_11(host)) == []


def with_changes(app: Json, *path: str | int, value: Any) -> Json:
    """The app with one value changed, or taken out where it is None."""
    copy: Any = json.loads(json.dumps(app))
    place = copy
    for step in path[:-1]:
        place = place[step]
    if value is None:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    found: Json = copy
    return found


CHANGES: list[tuple[Json, tuple[str | int, ...], Any, str]] = [
    (HELLO, ("cmd",), "sleep 1", 'cmd: "nc -l $PORT" -> "sleep 1"'),
    (HELLO, ("instances",), 1, "instances: 4 -> 1"),
    (HELLO, ("cpus",), None, "cpus: 0.1 -> 1.0"),
    (HELLO, ("env",), {"A": "1"}, 'env.A: nothing -> "1"'),
    (HELLO, ("ports",), [0, 0], "portDefinitions: "),
    (HELLO, ("ports",), [8500], "portDefinitions[0].port: 10000 -> 8500"),
    (MYSQL, ("container", "docker", "image"), "mysql:8", 'container.docker.image: "mysql:5.7.13" -> "mysql:8"'),
    (MYSQL, ("container", "docker", "network"), "HOST", 'networks: ["container/bridge"] -> ["host"]'),
    (
        MYSQL,
        ("container", "docker", "portMappings", 0, "hostPort"),
        8500,
        "container.portMappings[0].hostPort: 0 -> 8500",
    ),
    (MYSQL, ("container", "volumes", 0, "hostPath"), "/data", 'container.volumes[0].hostPath: "/opt/mysql" -> "/data"'),
    (MYSQL, ("container", "volumes"), None, "container.volumes: "),
    (MYSQL, ("constraints",), None, 'constraints: [["hostname", "CLUSTER", "198.51.100.11"]] -> []'),
    (MYSQL, ("healthChecks", 0, "gracePeriodSeconds"), None, "healthChecks[0].gracePeriodSeconds: 60 -> 300"),
    (MYSQL, ("env", "MYSQL_DATABASE"), "Other", 'env.MYSQL_DATABASE: "BucketList" -> "Other"'),
    (WEB, ("uris",), None, "fetch: "),
    (WEB, ("uris", 0), "http://files/b.tgz", 'fetch[0].uri: "http://files/a.tgz" -> "http://files/b.tgz"'),
    (WEB, ("labels", "team"), "b", 'labels.team: "a" -> "b"'),
    (WEB, ("labels",), None, 'labels.team: "a" -> nothing'),
    (WEB, ("healthChecks", 0), None, "healthChecks: "),
    (WEB, ("dependencies",), ["other"], 'dependencies: ["/db/mysql"] -> ["/other"]'),
    (WEB, ("upgradeStrategy", "minimumHealthCapacity"), 1, "upgradeStrategy.minimumHealthCapacity: 0.5 -> 1"),
]


@pytest.mark.parametrize("answered", [in_11, in_15])
@pytest.mark.parametrize(("app", "path", "value", "shown"), CHANGES)
def test_a_change_is_found_alone_and_named(
    app: Json, path: tuple[str | int, ...], value: Any, shown: str, answered: Callable[..., Json]
) -> None:
    wanted = with_changes(app, *path, value=value)
    assert [str(found).startswith(shown) for found in differences(wanted, answered(app))] == [True]


def test_the_order_of_what_has_none_does_not_matter() -> None:
    wanted = {**WEB, "healthChecks": WEB["healthChecks"][::-1], "constraints": WEB["constraints"][::-1]}
    assert differences(wanted, in_11(WEB)) == []


def test_what_a_definition_leaves_out_is_left_to_marathon() -> None:
    wanted = {"id": "hello", "cmd": "nc -l $PORT", "cpus": 0.1, "mem": 16}
    scaled = in_11(HELLO, instances=9, backoffSeconds=30, upgradeStrategy={"minimumHealthCapacity": 0})
    assert differences(wanted, scaled) == []


# secrets


def test_a_secret_is_compared_and_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DB_PASSWORD", "correct-horse")
    wanted = {**MYSQL, "env": {"MYSQL_PASSWORD": {"secret": "env:DB_PASSWORD"}}}
    assert differences(wanted, in_11({**MYSQL, "env": {"MYSQL_PASSWORD": "correct-horse"}})) == []
    (found,) = differences(wanted, in_11({**MYSQL, "env": {"MYSQL_PASSWORD": "earlier-one"}}))
    assert str(found) == "env.MYSQL_PASSWORD: *** -> ***"
    assert "earlier" not in repr(found)
    assert found.wanted == Secret("correct-horse")
    (missing,) = differences(wanted, in_11({**MYSQL, "env": {}}))
    assert str(missing) == "env.MYSQL_PASSWORD: nothing -> ***"
    assert update_of(wanted, [found])["env"] == {"MYSQL_PASSWORD": "correct-horse"}


def test_a_variable_that_is_no_longer_wanted_may_have_been_a_secret() -> None:
    (found,) = differences(HELLO, in_11({**HELLO, "env": {"TOKEN": "seven-of-nine"}}))
    assert str(found) == "env.TOKEN: *** -> nothing"


def test_a_reference_to_nothing_is_said() -> None:
    with pytest.raises(SecretError, match="NOT_SET_ANYWHERE"):
        differences({**HELLO, "env": {"A": {"secret": "env:NOT_SET_ANYWHERE"}}}, in_11(HELLO))


OWN: Json = {
    **HELLO,
    "env": {"A": {"secret": "secret0"}, "B": {"secret": "env:DB_PASSWORD"}},
    "secrets": {"secret0": {"source": "/db/password"}},
}
"""An app with a secret of Marathon's own, as app.json of the documentation of 1.4 has it, and one of the runbook's."""


def test_secrets_of_marathon_itself_are_passed_through_and_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DB_PASSWORD", "correct-horse")
    sent = {"A": {"secret": "secret0"}, "B": "correct-horse"}
    assert body_of(OWN) == {**OWN, "id": "/hello", "env": sent}
    assert differences(OWN, in_15({**OWN, "env": sent})) == []
    (plain,) = differences(OWN, in_15({**OWN, "env": {**sent, "A": "seven-of-nine"}}))
    assert str(plain) == 'env.A: *** -> {"secret": "secret0"}'
    (other,) = differences(OWN, in_15({**OWN, "env": {**sent, "A": {"secret": "secret1"}}}))
    assert str(other) == 'env.A.secret: "secret1" -> "secret0"'
    more = {"secret1": {"source": "/b"}, **OWN["secrets"]}
    assert [found.field for found in differences(OWN, in_15({**OWN, "env": sent, "secrets": more}))] == [
        "secrets.secret1"
    ]
    without = {**OWN, "env": {}, "secrets": {}}
    assert sorted(found.field for found in differences(without, in_15({**OWN, "env": sent}))) == [
        "env.A",
        "env.B",
        "secrets.secret0",
    ]


def test_a_pull_config_of_marathon_s_secrets_is_passed_through() -> None:
    docker = {"image": "a:1", "pullConfig": {"secret": "secret0"}}
    app = {"id": "a", "container": {"type": "DOCKER", "docker": docker}, "secrets": OWN["secrets"]}
    assert body_of(app)["container"]["docker"] == docker


def test_a_name_that_no_secrets_define_is_refused_unshown() -> None:
    for use in (body_of, lambda app: differences(app, in_15(HELLO))):
        with pytest.raises(SecretError) as caught:
            use({**OWN, "env": {"A": {"secret": "hunter22"}}})
        assert "hunter22" not in str(caught.value)


def test_a_file_may_name_secrets_of_marathon(tmp_path: Path) -> None:
    file = tmp_path / "app.json"
    file.write_text(json.dumps(OWN))
    assert app_from_file(file)["env"] == OWN["env"]
    file.write_text(json.dumps({**OWN, "secrets": {"other": {"source": "/x"}}}))
    with pytest.raises(ParameterError, match=r"env\.A\.secret: is neither a reference to a secret nor a name"):
        app_from_file(file)


def test_a_present_secret_of_marathon_may_become_a_text() -> None:
    present = in_15({**HELLO, "env": {"A": {"secret": "kept-by-marathon"}}})
    assert differences({**HELLO, "env": {"A": "1"}}, present)[0].field == "env.A"


# what is sent


def test_an_update_empties_what_is_no_longer_wanted() -> None:
    present = in_11({**WEB, "env": {"OLD": "1"}, "cpus": 3})
    wanted = {"id": "web", "args": ["serve"], "ports": [0, 8080]}
    assert update_of(wanted, differences(wanted, present)) == {
        "id": "/web",
        "args": ["serve"],
        "ports": [0, 8080],
        "cpus": 1.0,
        "env": {},
        "labels": {},
        "constraints": [],
        "healthChecks": [],
        "dependencies": [],
        "fetch": [],
    }


def test_what_marathon_cannot_take_away_is_said_before() -> None:
    wanted = {"id": "db/mysql", "cmd": "mysqld", "mem": 1024, "cpus": 0.5}
    with pytest.raises(AppInvalid, match="cannot take container away from /db/mysql"):
        update_of(wanted, differences(wanted, in_11(MYSQL)))


def test_args_cannot_take_the_place_of_cmd_nor_cmd_that_of_args() -> None:
    """`cmd.orElse(app.cmd)`, `args.orElse(app.args)` of AppUpdate.scala: both would be set, which is a 422."""
    args = {**{key: value for key, value in HELLO.items() if key != "cmd"}, "args": ["sleep", "1"]}
    for wanted, present, name in ((args, HELLO, "cmd"), (HELLO, args, "args"), ({**args, "cmd": None}, HELLO, "cmd")):
        for answered in (in_11, in_15):
            with pytest.raises(AppInvalid, match=f"cannot take {name} away from /hello") as caught:
                update_of(wanted, differences(wanted, answered(present)))
            assert caught.value.remedy == "delete the app, then create it"


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ({"uris": ["http://files/a"], "fetch": [{"uri": "http://files/a"}]}, {"fetch": [{"uri": "http://files/a"}]}),
        ({"uris": [], "fetch": []}, {"fetch": []}),
        ({"uris": ["http://files/a"], "fetch": []}, {"uris": ["http://files/a"]}),
        ({"uris": [], "fetch": None}, {"uris": []}),
        ({"ports": [10000], "portDefinitions": [{"port": 9}]}, {"portDefinitions": [{"port": 9}]}),
        ({"ports": [8080], "portDefinitions": []}, {"ports": [8080]}),
    ],
)
def test_what_may_not_stand_together_is_sent_once(given: Json, sent: Json) -> None:
    """Up to 1.4.13 a request with `uris` and `fetch`, even both empty, is a 400 (AppUpdateReads of Formats.scala)."""
    body = body_of({**HELLO, **given})
    assert body == {**HELLO, "id": "/hello", **sent}
    assert differences({**HELLO, **given}, in_11(body)) == []


def test_what_marathon_answered_can_be_sent_again() -> None:
    body = body_of(in_11(HELLO))
    assert not body.keys() & {"version", "versionInfo", "tasks", "tasksRunning", "deployments", "uris", "ports"}
    assert body["id"] == "/hello"


# where definitions come from


def test_an_app_of_the_parameters() -> None:
    hosts = "hosts: [{name: a, address: 198.51.100.11, roles: [docker]}]"
    text = f"name: lab\n{hosts}\napps: {{hello: {{cmd: sleep 1, env: {{A: {{secret: 'env:X'}}}}}}}}"
    site = Site.parse(text, Path("lab.yml"))
    assert app_of(site, "hello") == {"id": "/hello", "cmd": "sleep 1", "env": {"A": {"secret": "env:X"}}}
    with pytest.raises(AppInvalid, match=r"lab\.yml declares no app other") as caught:
        app_of(site, "other")
    assert "hello" in str(caught.value.remedy)


def test_an_app_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "marathon-test.json"
    file.write_text('{"id": "centos-marathon", "instances": 3}')
    assert app_from_file(file) == {"id": "/centos-marathon", "instances": 3}


@pytest.mark.parametrize(("text", "line"), [('{"id":\n oops}', 2), ("[]", 1), ('{"cmd": "true"}', 1)])
def test_a_file_that_declares_no_app(tmp_path: Path, text: str, line: int) -> None:
    file = tmp_path / "app.json"
    file.write_text(text)
    with pytest.raises(ParameterError) as caught:
        app_from_file(file)
    (problem,) = caught.value.problems
    assert (problem.file, problem.line) == (file, line)


def test_a_secret_in_a_file_is_a_reference_and_begins_at_its_folder(tmp_path: Path) -> None:
    file = tmp_path / "app.json"
    file.write_text('{"id": "db",\n"env": {"A": "1",\n"DB_PASSWORD": "hunter22"}}')
    with pytest.raises(ParameterError, match=r"app\.json:3: env\.DB_PASSWORD: must be a reference") as caught:
        app_from_file(file)
    assert "hunter22" not in str(caught.value)
    file.write_text('{"id": "db", "env": {"DB_PASSWORD": {"secret": "file:secret"}}}')
    assert app_from_file(file)["env"] == {"DB_PASSWORD": {"secret": f"file:{tmp_path}/secret"}}
    file.write_text('{"id": "db", "env": []}')
    with pytest.raises(ParameterError, match="env: is not a mapping"):
        app_from_file(file)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match="cannot be read"):
        app_from_file(tmp_path / "none.json")
