"""The double of Marathon where it needs no cluster: upgrades, placement, what Mesos is told, its start script."""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runbook.lab import rpms
from runbook.lab.doubles.marathon import zk
from runbook.lab.doubles.marathon.api import Api
from runbook.lab.doubles.marathon.apps import Clock, Refused, give_ports, updated
from runbook.lab.doubles.marathon.deployments import Deployment, replace, scale
from runbook.lab.doubles.marathon.flags import SWITCHES, VALUES, Flags
from runbook.lab.doubles.marathon.mesos import Masters
from runbook.lab.doubles.marathon.scheduler import Delay, Scheduler
from runbook.lab.doubles.marathon.tasks import Offer, Task
from runbook.lab.doubles.marathon.web import Request
from runbook.services.marathon.steps import FLAGS

Json = dict[str, Any]
PAYLOADS = Path(__file__).parents[1] / "payloads" / "mesos-0.28.0"
RECORDING = [
    json.loads(line) for line in (PAYLOADS / "one-node" / "scheduler-v1.jsonl").read_text(encoding="utf-8").splitlines()
]


def app(before: Json | None = None, **update: Any) -> Json:
    made = updated(before, "/app", {"cmd": "true", **update})
    give_ports(made, before, (), 10000, 20000)
    version = Clock().version()
    return {**made, "version": version, "versionInfo": {"lastScalingAt": version, "lastConfigChangeAt": version}}


def a_task(number: int, version: str, *, running: bool = True, host: str = "node1") -> Task:
    started = "2016-05-31T07:00:00.000Z" if running else None
    staged = f"2016-05-31T06:00:00.{number:03}Z"
    return Task(f"app.{number}", "/app", version, host, "S0", {}, [9000 + number], staged, started)


# rolling upgrades


@given(
    instances=st.integers(0, 8),
    old=st.integers(0, 12),
    least=st.floats(0, 1),
    over=st.floats(0, 1),
    choices=st.lists(st.booleans(), min_size=400, max_size=400),
)
def test_an_upgrade_keeps_its_limits_at_every_moment_and_ends(
    instances: int, old: int, least: float, over: float, choices: list[bool]
) -> None:
    """Whatever starts and ends first: tasks become healthy and killed ones vanish as `choices` has it."""
    wanted = app(instances=instances, upgradeStrategy={"minimumHealthCapacity": least, "maximumOverCapacity": over})
    tasks = [a_task(number, "2016-01-01T00:00:00.000Z") for number in range(old)]
    needed = -int(-instances * least // 1)
    most = max(old, int(instances * (1 + over)), needed + 1)
    made = old
    for choice in choices:
        moves = replace(wanted, tasks)
        if moves.done:
            break
        for task in moves.kill:
            task.killed_at = 0.0
        for _ in range(moves.launch):
            tasks.append(a_task(made, wanted["version"], running=False))
            made += 1
        serving = sum(task.healthy(wanted) for task in tasks if task.live)
        assert serving >= min(needed, old)
        assert len(tasks) <= most
        ended = [task for task in tasks if not task.live]
        staged = [task for task in tasks if task.live and task.started_at is None]
        if ended and (choice or not staged):
            tasks.remove(ended[0])
        elif staged:
            staged[0].started_at = "2016-05-31T07:00:00.000Z"
    assert replace(wanted, tasks).done
    assert [task.version for task in tasks] == [wanted["version"]] * instances


def test_scaling_down_ends_condemned_tasks_first_and_then_the_youngest() -> None:
    wanted = app(instances=2)
    tasks = [a_task(number, wanted["version"]) for number in range(4)]
    moves = scale(wanted, tasks, condemned=["app.0"])
    assert [task.id for task in moves.kill] == ["app.0", "app.3"]
    assert (moves.launch, moves.done) == (0, False)


# what it takes, and what not: a definition that it cannot launch would end one leader after the other

DOCKER = {"image": "a:1"}


@pytest.mark.parametrize(
    ("update", "status", "path"),
    [
        ({"container": {"docker": DOCKER, "volumes": [{"containerPath": "/a", "hostPath": "/b"}]}}, 400, "mode"),
        ({"container": {"docker": DOCKER, "volumes": [{"hostPath": "/b", "mode": "RW"}]}}, 400, "containerPath"),
        ({"container": {"docker": {**DOCKER, "parameters": [{"key": "a"}]}}}, 400, "parameters(0)/value"),
        ({"fetch": [{"extract": False}]}, 400, "/fetch(0)/uri"),
        ({"constraints": [["rack", "LIKE", "["]]}, 422, "/constraints(0)"),
    ],
)
def test_what_could_not_be_launched_is_refused(update: Json, status: int, path: str) -> None:
    """What an object must have is what `Formats.scala` of 1.1 reads without a default."""
    with pytest.raises(Refused) as refused:
        app(**update)
    assert refused.value.status == status
    assert refused.value.body["details"][0]["path"].endswith(path)


def test_null_is_the_default_within_objects_as_well() -> None:
    mapping = {"containerPort": 80, "hostPort": None, "protocol": None}
    docker = {**DOCKER, "network": "BRIDGE", "privileged": None, "parameters": None, "portMappings": [mapping]}
    made = app(
        container={"type": None, "volumes": None, "docker": docker},
        healthChecks=[{"protocol": "TCP", "portIndex": None, "timeoutSeconds": None}],
        upgradeStrategy={"minimumHealthCapacity": None, "other": "x"},
    )
    place = offer()
    assert place.place({**made, "cpus": 0.1, "mem": 16}, [])
    assert place.launches[0]["container"]["docker"]["port_mappings"][0]["protocol"] == "tcp"
    assert (made["healthChecks"][0]["timeoutSeconds"], made["upgradeStrategy"]["minimumHealthCapacity"]) == (20, 1.0)


@pytest.mark.parametrize(
    ("path", "body"),
    [("/v2/apps/a", {"id": 5}), ("/v2/apps", []), ("/v2/apps", [5]), ("/v2/apps", [{"cmd": "x"}]), ("/v2/apps", {})],
)
def test_a_put_of_something_else_is_answered(path: str, body: object) -> None:
    api = Api(leading(), Flags(["--master", "127.0.0.1:1"], {}), "m:8080", lambda: None)
    said = api.answer(Request("PUT", path, {}, json.dumps(body).encode(), "client"))
    assert said.status == 400


# what a new leader makes of what is kept


class Kept(zk.Store):
    """A store in memory."""

    def __init__(self, **kept: Json) -> None:
        self.kept = {key.replace("_", ":", 1): value for key, value in kept.items()}

    def get(self, key: str) -> Json | None:
        return self.kept.get(key)

    def put(self, key: str, value: Json) -> None:
        self.kept[key] = value

    def keys(self, prefix: str) -> list[str]:
        return [key for key in self.kept if key.startswith(prefix)]


def leading(**kept: Json) -> Scheduler:
    flags = Flags(["--master", "127.0.0.1:1"], {})
    return Scheduler(
        flags, Kept(**kept), Masters("127.0.0.1:1", lambda url: zk.client(url, 10)), "http://m:8080", lambda: None
    )


def test_a_deployment_counts_though_its_app_was_not_kept_any_more() -> None:
    wanted = app(instances=2)
    starting = Deployment.plan("v", "/app", None, wanted)
    starting.step = 1
    scheduler = leading(deployment_1=starting.kept(), group_root={"apps": {}})
    assert [(lacking["id"], count) for lacking, count, _ in scheduler.waiting()] == [("/app", 2)]
    stopping = Deployment.plan("v", "/app", wanted, None)
    task = a_task(1, wanted["version"])
    scheduler = leading(deployment_1=stopping.kept(), group_root={"apps": {"/app": wanted}}, task_1=task.kept())
    assert scheduler.apps == {}
    assert [moves.kill for moves in scheduler._moves().values()] == [(scheduler.tasks["app.1"],)]


def test_tasks_of_an_app_that_is_gone_are_ended() -> None:
    scheduler = leading(task_1=a_task(1, "v").kept())
    assert [moves.kill for moves in scheduler._moves().values()] == [(scheduler.tasks["app.1"],)]


def test_a_delay_that_is_over_is_forgotten_after_a_while() -> None:
    """As `RateLimiterActor` of 1.1 does every 10 s: a crash a day must not make the next one wait for an hour."""
    scheduler = leading(group_root={"apps": {"/app": app(), "/other": app()}})
    present = time.monotonic()
    scheduler.delays = {"/app": Delay(3600.0, present - 1), "/other": Delay(3600.0, present + 3600)}
    scheduler._tick()
    assert list(scheduler.delays) == ["/other"]
    scheduler.note_failure(a_task(1, "v"), "TASK_FAILED", "")
    assert scheduler.delays["/app"].seconds == 1
    scheduler.delays["/app"].until = present - 1
    scheduler._tick()
    scheduler.note_failure(a_task(2, "v"), "TASK_FAILED", "")
    assert scheduler.delays["/app"].seconds == 1.15, "until then it grows"


# placement, and what Mesos is told


def offer(**attributes: str) -> Offer:
    (recorded,) = [e["event"]["offers"]["offers"][0] for e in RECORDING if e.get("event", {}).get("type") == "OFFERS"][
        :1
    ]
    shown = [{"name": name, "type": "TEXT", "text": {"value": value}} for name, value in attributes.items()]
    return Offer({**recorded, "attributes": shown})


def test_a_docker_task_is_launched_as_the_recorded_one() -> None:
    accept = next(e["call"]["accept"] for e in RECORDING if e.get("call", {}).get("type") == "ACCEPT")
    recorded = accept["operations"][0]["launch"]["task_infos"][2]
    docker = {"image": "t:1", "network": "BRIDGE", "portMappings": [{"containerPort": 8080, "hostPort": 9010}]}
    place = offer()
    task = place.place(app(cmd="sleep 1000", cpus=0.1, mem=32, container={"docker": docker}), [])
    (info,) = place.launches
    assert task is not None
    assert info.keys() == recorded.keys()
    assert info["resources"] == recorded["resources"]
    assert info["discovery"]["ports"] == recorded["discovery"]["ports"]
    assert info["agent_id"] == recorded["agent_id"]
    assert (info["command"]["shell"], info["command"]["value"]) == (True, "sleep 1000")
    variables = {v["name"]: v["value"] for v in info["command"]["environment"]["variables"]}
    assert (variables["PORT"], variables["PORT_8080"], variables["MARATHON_APP_DOCKER_IMAGE"]) == (
        "9010",
        "9010",
        "t:1",
    )
    told, wanted = info["container"]["docker"], recorded["container"]["docker"]
    assert {name: told[name] for name in wanted} == wanted


def test_volumes_parameters_labels_and_uris_reach_mesos() -> None:
    docker = {"image": "m:1", "parameters": [{"key": "log-opt", "value": "max-size=1m"}], "forcePullImage": True}
    volumes = [{"containerPath": "/var/lib/mysql", "hostPath": "/opt/mysql", "mode": "RW"}]
    container = {"type": "DOCKER", "docker": docker, "volumes": volumes}
    place = offer()
    assert place.place(app(container=container, labels={"a": "b"}, uris=["http://f/x.tgz"], user="nobody"), [])
    (info,) = place.launches
    assert info["container"]["volumes"] == [
        {"container_path": "/var/lib/mysql", "host_path": "/opt/mysql", "mode": "RW"}
    ]
    assert info["container"]["docker"]["parameters"] == docker["parameters"]
    assert info["container"]["docker"]["force_pull_image"] is True
    assert "network" not in info["container"]["docker"]
    assert info["labels"] == {"labels": [{"key": "a", "value": "b"}]}
    assert (info["command"]["uris"][0]["value"], info["command"]["user"]) == ("http://f/x.tgz", "nobody")


def test_a_container_may_run_its_own_command() -> None:
    place = offer()
    made = updated(None, "/app", {"container": {"docker": {"image": "m:1"}}})
    assert place.place({**made, "version": "v", "ports": []}, [])
    command = place.launches[0]["command"]
    assert (command["shell"], "value" in command, "arguments" in command) == (False, False, False)


def test_an_offer_is_used_up() -> None:
    place = offer()
    big = app(cpus=0.9, mem=16)
    placed = [place.place(big, []) for _ in range(3)]
    assert [task is not None for task in placed] == [True, True, False]
    ports = [port for task in placed if task for port in task.ports]
    assert len(set(ports)) == 2
    assert offer().place(app(ports=[8600], requirePorts=True), []) is None, "8600 is not among the ports on offer"


@pytest.mark.parametrize(
    ("constraint", "others", "fits"),
    [
        (["rack", "LIKE", "r[12]"], [], True),
        (["rack", "LIKE", "r"], [], False),
        (["rack", "UNLIKE", "r1"], [], False),
        (["floor", "UNLIKE", "1"], [], True),
        (["floor", "LIKE", "1"], [], False),
        (["rack", "UNIQUE"], ["r1"], False),
        (["rack", "UNIQUE"], ["r2"], True),
        (["rack", "CLUSTER"], ["r2"], False),
        (["rack", "CLUSTER", "r1"], [], True),
        (["rack", "GROUP_BY"], ["r1", "r2"], True),
        (["rack", "GROUP_BY"], ["r1", "r1", "r2"], False),
        (["rack", "GROUP_BY", "3"], ["r1", "r2"], False),
    ],
)
def test_constraints_on_attributes(constraint: list[str], others: list[str], fits: bool) -> None:
    there = []
    for number, rack in enumerate(others):
        task = a_task(number, "v")
        task.attributes = {"rack": rack}
        there.append(task)
    assert (offer(rack="r1").place(app(constraints=[constraint]), there) is not None) == fits


# the command line


def test_flags_come_from_the_command_line_the_environment_and_the_defaults() -> None:
    environ = {"MARATHON_HTTP_PORT": "8081", "MARATHON_ZK": "zk://e:1/m", "MARATHON_APP_ID": "/x"}
    flags = Flags(["--master", "zk://h:2181/mesos", "--zk=zk://c:1/m", "--disable_ha", "--checkpoint"], environ)
    assert (flags["zk"], flags.number("http_port"), flags["framework_name"]) == ("zk://c:1/m", 8081, "marathon")
    assert flags.seconds("task_launch_timeout") == 300
    assert "ha" not in flags.switches
    assert "checkpoint" in flags.switches


@pytest.mark.parametrize("url", ["localhost:2181/marathon", "zk://host/marathon", "zk://host:2181", "zk://a:1,b/m"])
def test_a_zookeeper_url_needs_hosts_with_ports_and_a_path(url: str) -> None:
    with pytest.raises(ValueError, match=r"zk://|has no port"):
        zk.client(url, 10)


def test_versions_are_never_given_out_twice() -> None:
    clock = Clock()
    versions = [clock.version() for _ in range(50)]
    assert sorted(set(versions)) == versions


# the package's start script (domain-facts 1)


@pytest.fixture
def start(tmp_path: Path) -> Any:
    """Runs the start script with its /etc below a folder, and gives the words that Marathon would get."""
    script = (rpms.RECIPES / "marathon" / "marathon-framework").read_text(encoding="utf-8")
    script = script.replace("/etc/", f"{tmp_path}/etc/").replace("! -t 1", "-n ''")
    program = tmp_path / "marathon"
    program.write_text('#!/bin/sh\nprintf "%s\\n" "$@" "LIBPROCESS_IP=$LIBPROCESS_IP"\n')
    program.chmod(0o755)
    script = script.replace("/usr/libexec/marathon-rehearsal/marathon", str(program))

    def run(files: dict[str, str], *words: str) -> list[str]:
        for name, content in files.items():
            file = tmp_path / "etc" / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(content)
        environment = {"PATH": os.environ["PATH"]}
        command = ["bash", "-c", script, "marathon", *words]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True, timeout=30)
        return done.stdout.splitlines()

    return run


def test_files_become_flags_and_what_is_missing_comes_from_mesos(start: Any) -> None:
    files = {
        "mesos/zk": "zk://a:2181,b:2181/mesos\n",
        "marathon/conf/hostname": "198.51.100.11\n",
        "marathon/conf/?disable_ha": "",
        "marathon/conf/.hidden": "x",
        "marathon/conf/sub/http_port": "8081\n",
    }
    assert start(files) == [
        *("--disable_ha", "--hostname", "198.51.100.11", "--http_port", "8081"),
        *("--zk", "zk://a:2181,b:2181/marathon", "--master", "zk://a:2181,b:2181/mesos"),
        "LIBPROCESS_IP=",
    ]


def test_what_is_given_is_not_derived(start: Any) -> None:
    files = {
        "mesos/zk": "zk://a:2181/mesos",
        "marathon/conf/master": "zk://m:2181/mesos",
        "marathon/conf/zk": "zk://z:2181/marathon",
    }
    assert start(files, "--zk", "zk://own:2181/m") == [
        *("--master", "zk://m:2181/mesos", "--zk", "zk://own:2181/m"),
        "LIBPROCESS_IP=",
    ]


def test_defaults_become_flags_and_environment(start: Any) -> None:
    defaults = "LIBPROCESS_IP=198.51.100.11\nMARATHON_FRAMEWORK_NAME='two words'\nMARATHON_APP_ID=/x\n"
    files = {"default/marathon": defaults, "mesos/zk": "zk://a:2181/mesos"}
    assert start(files) == [
        *("--framework_name", "two", "words"),
        *("--zk", "zk://a:2181/marathon", "--master", "zk://a:2181/mesos"),
        "LIBPROCESS_IP=198.51.100.11",
    ]


def test_the_package_holds_every_module() -> None:
    recipe = rpms.Recipe.read(rpms.RECIPES / "marathon" / "marathon.spec")
    modules = {path.name for path in (rpms.DOUBLES / "marathon").glob("*.py")}
    assert recipe.sources.keys() >= modules


def test_no_flag_of_marathon_is_refused_as_unknown() -> None:
    """The double's flags are those of 1.1.1's sources (MarathonConf.scala and the traits that it has)."""
    programs = {"help", "version"}  # print and end, so that no configuration has them
    assert (VALUES.keys() | SWITCHES) - programs - FLAGS == set()
