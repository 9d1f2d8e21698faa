"""Marathon's REST API for apps, tasks and deployments, in the forms of its documentation and of domain-facts 3."""

from __future__ import annotations

import re
from typing import Any

import pytest
import requests
from daemons import eventually
from marathons import SERVE, SLEEP, Asked, Contract, address, assert_is, fresh

Json = dict[str, Any]
VERSION = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{3})?Z")
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
LOCKED = (
    "App is locked by one or more deployments. Override with the option '?force=true'. "
    "View details at '/v2/deployments/<DEPLOYMENT_ID>'."
)
OPERATORS = "Constraint operator must be one of the following: [UNIQUE, LIKE, CLUSTER, GROUP_BY, UNLIKE]"
TOO_BIG = {"cmd": "sleep 1", "cpus": 1000}
"""Fits no slave, so that its deployment never ends by itself."""


def assert_deployed(answer: requests.Response, status: int = 200) -> Json:
    assert answer.status_code == status, answer.text
    found: Json = answer.json()
    assert found.keys() == {"version", "deploymentId"}
    assert VERSION.fullmatch(found["version"])
    assert UUID.fullmatch(found["deploymentId"])
    return found


def assert_locked(answer: requests.Response, *deployments: str) -> None:
    assert answer.status_code == 409
    assert answer.json() == {"message": LOCKED, "deployments": [{"id": deployment} for deployment in deployments]}


# apps


def test_an_app_from_its_creation_to_its_end(marathon: Asked) -> None:
    name = fresh("whole")
    answer = marathon.ask("POST", "/v2/apps", {"id": name, **SERVE, "instances": 2})
    assert answer.status_code == 201
    created = answer.json()
    assert (created["id"], created["instances"], created["cpus"], created["mem"]) == (name, 2, 0.01, 16)
    defaults = {"disk": 0, "env": {}, "constraints": [], "healthChecks": [], "uris": [], "backoffSeconds": 1}
    defaults |= {"backoffFactor": 1.15, "maxLaunchDelaySeconds": 3600, "requirePorts": False, "container": None}
    defaults |= {"upgradeStrategy": {"minimumHealthCapacity": 1, "maximumOverCapacity": 1}, "labels": {}}
    assert {key: created[key] for key in defaults} == defaults
    assert [list(deployment) for deployment in created["deployments"]] == [["id"]]
    assert "versionInfo" not in created
    assert (created["ports"], created["portDefinitions"][0]["port"]) == ([0], 0)
    tasks = marathon.running(name, 2)
    marathon.quiet()
    app = marathon.app(name)
    (port,) = app["ports"]
    assert 10000 <= port <= 20000
    assert app["versionInfo"] == {"lastScalingAt": created["version"], "lastConfigChangeAt": created["version"]}
    assert_is("App", app, *marathon.get("/v2/apps")["apps"], *marathon.get("/v2/apps", embed="apps.tasks")["apps"])
    assert (app["tasksRunning"], app["tasksStaged"], app["deployments"]) == (2, 0, [])
    for task in tasks:
        assert re.fullmatch(rf"{name[1:]}\.{UUID.pattern}", task["id"])
        assert task.keys() >= {"id", "host", "ports", "startedAt", "stagedAt", "version", "slaveId", "appId"}
        assert (task["appId"], len(task["ports"])) == (name, 1)
        assert "servicePorts" not in task
        assert task["stagedAt"] <= task["startedAt"]
    assert_is("Task", *tasks, *marathon.get(f"/v2/apps{name}/tasks")["tasks"], *marathon.get("/v2/tasks")["tasks"])
    mine = [task for task in marathon.get("/v2/tasks")["tasks"] if task["appId"] == name]
    assert [task["servicePorts"] for task in mine] == [[port]] * 2
    assert [one["id"] for one in marathon.get("/v2/apps", id=name)["apps"]] == [name]
    assert {task["id"] for task in marathon.get("/v2/tasks")["tasks"]} >= {task["id"] for task in tasks}
    assert_deployed(marathon.ask("DELETE", f"/v2/apps{name}"))
    assert marathon.ask("GET", f"/v2/apps{name}").status_code == 404
    marathon.quiet()
    assert [task for task in marathon.get("/v2/tasks")["tasks"] if task["appId"] == name] == []


def test_the_environment_of_a_task(marathon: Asked) -> None:
    name = fresh("environment")
    app = marathon.deploy(
        {"id": name, **SERVE, "ports": [0, 18500], "env": {"OWN": "a b", "HOST": "mine"}, "labels": {"a.-b": "c"}}
    )
    (task,) = app["tasks"]
    seen = eventually(lambda: requests.get(address(task), timeout=5).json(), "the task answers")
    first, second = map(str, task["ports"])
    wanted = {"PORT": first, "PORT0": first, "PORT1": second, "PORTS": f"{first},{second}", "PORT_18500": second}
    wanted |= {"MARATHON_APP_ID": name, "MARATHON_APP_VERSION": task["version"], "MESOS_TASK_ID": task["id"]}
    wanted |= {"MARATHON_APP_RESOURCE_MEM": "16.0", "MARATHON_APP_LABEL_A_B": "c"}
    wanted |= {"OWN": "a b", "HOST": "mine", f"PORT_{app['ports'][0]}": first}
    assert {key: seen.get(key) for key in wanted} == wanted


def test_an_id_may_have_several_parts(marathon: Asked) -> None:
    name = fresh("group/part.of/app")
    app = marathon.deploy({"id": name.lstrip("/"), **SLEEP})
    assert app["id"] == name
    assert app["tasks"][0]["id"].startswith(name[1:].replace("/", "_") + ".")


def test_an_id_that_is_taken(marathon: Asked) -> None:
    name = fresh("taken")
    marathon.deploy({"id": name, **SLEEP, "instances": 0})
    answer = marathon.ask("POST", "/v2/apps", {"id": name, **SLEEP})
    assert answer.status_code == 409
    assert answer.json() == {"message": f"An app with id [{name}] already exists."}


@pytest.mark.parametrize(
    ("change", "path", "error"),
    [
        (
            {"upgradeStrategy": {"minimumHealthCapacity": 1.2}},
            "/upgradeStrategy/minimumHealthCapacity",
            "got 1.2, expected between 0.0 and 1.0",
        ),
        ({"cpus": -3}, "/cpus", "got -3.0, expected 0.0 or more"),
        ({"instances": -3}, "/instances", "got -3, expected 0 or more"),
        ({"container": {"type": "DOCKER"}}, "/container/docker", "must not be empty"),
        (
            {"cmd": None},
            "/",
            "AppDefinition must either contain one of 'cmd' or 'args', and/or a 'container'.",
        ),
        (
            {"args": ["sleep", "1"]},
            "/",
            "AppDefinition must either contain one of 'cmd' or 'args', and/or a 'container'.",
        ),
    ],
)
def test_an_app_that_is_not_valid(marathon: Asked, change: Json, path: str, error: str) -> None:
    answer = marathon.ask("POST", "/v2/apps", {"id": fresh("invalid"), **SLEEP, **change})
    assert answer.status_code == 422
    assert answer.json() == {"message": "Object is not valid", "details": [{"path": path, "errors": [error]}]}


@pytest.mark.parametrize(
    ("change", "path", "error"),
    [
        ({"id": 5}, "/id", "error.expected.jsstring"),
        ({"instances": "three"}, "/instances", "error.expected.jsnumber"),
        ({"requirePorts": 1}, "/requirePorts", "error.expected.jsboolean"),
        ({"cmd": ""}, "/cmd", "error.minLength"),
        ({"constraints": [["hostname", "NEAR"]]}, "/constraints(0)", OPERATORS),
        ({"healthChecks": [{"protocol": "FTP"}]}, "/healthChecks(0)/protocol", "FTP is not a valid protocol"),
        ({"container": {"type": "DOCKER", "docker": {}}}, "/container/docker/image", "error.path.missing"),
    ],
)
def test_an_app_of_the_wrong_types(marathon: Asked, change: Json, path: str, error: str) -> None:
    answer = marathon.ask("POST", "/v2/apps", {"id": fresh("malformed"), **SLEEP, **change})
    assert answer.status_code == 400
    assert answer.json() == {"message": "Invalid JSON", "details": [{"path": path, "errors": [error]}]}


def test_a_body_that_is_not_json(marathon: Asked) -> None:
    answer = marathon.ask("POST", "/v2/apps", '{"id": ')
    assert answer.status_code == 400
    said = answer.json()
    assert said["message"] == "Invalid JSON"
    assert isinstance(said["details"], str)
    empty = marathon.ask("POST", "/v2/apps", "")
    assert (empty.status_code, empty.json()) == (400, {"message": "Please specify data in JSON format"})


def test_a_body_of_another_type_is_not_read(marathon: Asked) -> None:
    answer = requests.post(f"{marathon.url}/v2/apps", "id: a", headers={"Content-Type": "text/plain"}, timeout=20)
    assert answer.status_code == 415


@pytest.mark.parametrize(
    ("method", "path", "message"),
    [
        ("GET", "/v2/apps/nothing-here", "App '/nothing-here' does not exist"),
        ("DELETE", "/v2/apps/nothing-here", "App '/nothing-here' does not exist"),
        ("POST", "/v2/apps/nothing-here/restart", "App '/nothing-here' does not exist"),
        ("GET", "/v2/apps/nothing-here/tasks", "App '/nothing-here' does not exist"),
        ("DELETE", "/v2/deployments/nothing-here", "DeploymentPlan nothing-here does not exist"),
    ],
)
def test_what_is_not_there(marathon: Asked, method: str, path: str, message: str) -> None:
    answer = marathon.ask(method, path)
    assert (answer.status_code, answer.json()) == (404, {"message": message})


# changes


def test_put_creates_changes_and_goes_back_to_a_version(marathon: Asked) -> None:
    name = fresh("changing")
    answer = marathon.ask("PUT", f"/v2/apps{name}", {**SLEEP, "env": {"COLOUR": "red"}})
    first = assert_deployed(answer, 201)["version"]
    marathon.quiet()
    (old,) = marathon.running(name, 1)
    second = assert_deployed(marathon.ask("PUT", f"/v2/apps{name}", {"env": {"COLOUR": "blue"}}))["version"]
    marathon.quiet()
    app = marathon.app(name)
    assert (app["env"], app["cmd"], app["version"]) == ({"COLOUR": "blue"}, SLEEP["cmd"], second)
    assert [task["version"] for task in app["tasks"]] == [second]
    assert app["tasks"][0]["id"] != old["id"]
    assert marathon.get(f"/v2/apps{name}/versions") == {"versions": [second, first]}
    assert marathon.get(f"/v2/apps{name}/versions/{first}")["env"] == {"COLOUR": "red"}
    assert_deployed(marathon.ask("PUT", f"/v2/apps{name}", {"version": first}))
    marathon.quiet()
    assert marathon.app(name)["env"] == {"COLOUR": "red"}


def test_a_put_that_changes_nothing_leaves_the_app_alone(marathon: Asked) -> None:
    """No version is given out but the deployment's (GroupVersioningUtil.scala)."""
    name = fresh("unchanged")
    before = marathon.deploy({"id": name, **SLEEP})
    deployed = assert_deployed(marathon.ask("PUT", f"/v2/apps{name}", {"id": name, **SLEEP}))
    marathon.quiet()
    assert marathon.app(name) == before
    assert deployed["version"] > before["version"]
    assert marathon.get(f"/v2/apps{name}/versions") == {"versions": [before["version"]]}


def test_cmd_and_args_do_not_take_each_other_s_place(marathon: Asked) -> None:
    """`cmd.orElse(app.cmd)`, `args.orElse(app.args)` (AppUpdate.scala)."""
    name, other = fresh("command"), fresh("arguments")
    marathon.deploy({"id": name, **SLEEP, "instances": 0})
    marathon.deploy({"id": other, "args": ["/bin/sleep", "1000"], "cpus": 0.01, "mem": 16, "instances": 0})
    for app, change in ((name, {"args": ["sleep", "1"]}), (other, {"cmd": "sleep 1"})):
        answer = marathon.ask("PUT", f"/v2/apps{app}", change)
        assert answer.status_code == 422
        said = "AppDefinition must either contain one of 'cmd' or 'args', and/or a 'container'."
        assert answer.json() == {"message": "Object is not valid", "details": [{"path": "/", "errors": [said]}]}


def test_arguments_alone_are_a_command(marathon: Asked) -> None:
    """The command's value is the first of them where there is no container (TaskBuilder.scala)."""
    name = fresh("arguments-run")
    marathon.deploy({"id": name, "args": ["sleep", "1000"], "cpus": 0.01, "mem": 16})
    marathon.running(name, 1)


def test_the_id_of_the_path_counts(marathon: Asked) -> None:
    name, other = fresh("path"), fresh("body")
    assert_deployed(marathon.ask("PUT", f"/v2/apps{name}", {"id": other, **SLEEP, "instances": 0}), 201)
    marathon.quiet()
    assert marathon.app(name)["id"] == name
    assert marathon.ask("GET", f"/v2/apps{other}").status_code == 404


def test_a_version_stands_alone(marathon: Asked) -> None:
    name = fresh("version")
    version = marathon.deploy({"id": name, **SLEEP, "instances": 0})["version"]
    answer = marathon.ask("PUT", f"/v2/apps{name}", {"version": version, "cpus": 0.02})
    said = "requirement failed: The 'version' field may only be combined with the 'id' field."
    assert (answer.status_code, answer.json()) == (422, {"message": said})


@pytest.mark.parametrize(
    ("change", "fields"),
    [
        ({"uris": [], "fetch": []}, "uris and fetch fields"),
        ({"ports": [0], "portDefinitions": [{"port": 1}]}, "ports and port definitions"),
    ],
)
def test_fields_that_exclude_each_other(marathon: Asked, change: Json, fields: str) -> None:
    """`AppUpdateReads` of Formats.scala."""
    name = fresh("exclusive")
    marathon.deploy({"id": name, **SLEEP, "instances": 0})
    answer = marathon.ask("PUT", f"/v2/apps{name}", change)
    assert answer.status_code == 400
    assert f"You cannot specify both {fields}" in answer.text


def test_a_version_that_is_not_there(marathon: Asked) -> None:
    name = fresh("versions")
    marathon.deploy({"id": name, **SLEEP, "instances": 0})
    answer = marathon.ask("PUT", f"/v2/apps{name}", {"version": "2015-01-01T00:00:00.000Z"})
    assert (answer.status_code, answer.json()) == (404, {"message": f"App '{name}' does not exist"})
    assert marathon.ask("GET", f"/v2/apps{name}/versions/latest").status_code == 422


def test_only_what_was_given_of_container_and_checks_is_shown(marathon: Asked) -> None:
    docker = {"type": "DOCKER", "docker": {"image": "busybox"}}
    checks = [{"protocol": "TCP"}, {"protocol": "HTTP", "port": 80}]
    app = marathon.deploy({"id": fresh("shown"), **SLEEP, "instances": 0, "container": docker, "healthChecks": checks})
    assert not app["container"]["docker"].keys() & {"network", "portMappings"}
    tcp, http = app["healthChecks"]
    assert ("path" in tcp, tcp["portIndex"]) == (False, 0)
    assert (http["port"], http.keys() & {"path", "portIndex"}) == (80, set())


def test_only_archives_of_a_posted_app_are_extracted(marathon: Asked) -> None:
    name = fresh("fetched")
    uris = ["http://localhost/a.tar.gz", "http://localhost/b.txt"]
    app = marathon.deploy({"id": name, **SLEEP, "instances": 0, "uris": uris})
    assert [entry["extract"] for entry in app["fetch"]] == [True, False]
    assert_deployed(marathon.ask("PUT", f"/v2/apps{name}", {"uris": uris[1:]}))
    assert marathon.app(name)["fetch"] == [{"uri": uris[1], "extract": True, "executable": False, "cache": False}]


def test_readiness_checks_are_kept_with_their_defaults(marathon: Asked) -> None:
    app = marathon.deploy({"id": fresh("ready"), **SLEEP, "instances": 0, "readinessChecks": [{"path": "/up"}]})
    assert_is("App", app)
    (check,) = app["readinessChecks"]
    assert (check["path"], check["portName"], check["intervalSeconds"]) == ("/up", "http-api", 30)


def test_scaling_keeps_the_tasks_that_stay(marathon: Asked) -> None:
    name = fresh("scaling")
    first = marathon.deploy({"id": name, **SLEEP})["tasks"]
    assert_deployed(marathon.ask("PUT", f"/v2/apps{name}", {"instances": 3}))
    marathon.quiet()
    three = marathon.running(name, 3)
    assert first[0]["id"] in [task["id"] for task in three]
    assert_deployed(marathon.ask("PUT", f"/v2/apps{name}", {"instances": 1}))
    marathon.quiet()
    assert [task["id"] for task in marathon.running(name, 1)] == [first[0]["id"]]


def test_restart_replaces_the_tasks_of_an_unchanged_app(marathon: Asked) -> None:
    name = fresh("restarted")
    before = marathon.deploy({"id": name, **SLEEP, "instances": 2})
    assert_deployed(marathon.ask("POST", f"/v2/apps{name}/restart"))
    marathon.quiet()
    after = marathon.running(name, 2)
    assert not {task["id"] for task in before["tasks"]} & {task["id"] for task in after}
    now = marathon.app(name)
    assert {task["version"] for task in after} == {now["version"]}
    assert now["versionInfo"] == {"lastScalingAt": now["version"], "lastConfigChangeAt": before["version"]}


# killing tasks


def test_a_killed_task_is_replaced(marathon: Asked) -> None:
    name = fresh("killed")
    (task,) = marathon.deploy({"id": name, **SLEEP})["tasks"]
    answer = marathon.ask("DELETE", f"/v2/apps{name}/tasks/{task['id']}")
    assert answer.status_code == 200
    assert answer.json()["task"]["id"] == task["id"]
    assert not answer.json()["task"].keys() & {"appId", "servicePorts", "healthCheckResults"}
    eventually(lambda: task["id"] not in [one["id"] for one in marathon.tasks(name)], "the task ends")
    marathon.running(name, 1)


def test_tasks_are_killed_with_and_without_scaling(marathon: Asked) -> None:
    name = fresh("shrinking")
    tasks = marathon.deploy({"id": name, **SLEEP, "instances": 3})["tasks"]
    doomed = tasks[0]["id"]
    assert_deployed(marathon.ask("DELETE", f"/v2/apps{name}/tasks/{doomed}", scale="true"))
    marathon.quiet()
    assert {task["id"] for task in marathon.running(name, 2)} == {task["id"] for task in tasks[1:]}
    assert marathon.app(name)["instances"] == 2
    answer = marathon.ask("DELETE", f"/v2/apps{name}/tasks", scale="false")
    assert {task["id"] for task in answer.json()["tasks"]} == {task["id"] for task in tasks[1:]}
    old = {task["id"] for task in tasks}
    eventually(lambda: not old & {task["id"] for task in marathon.tasks(name)}, "all old tasks end")
    left = marathon.running(name, 2)
    assert_deployed(marathon.ask("POST", "/v2/tasks/delete", {"ids": [left[1]["id"]]}, scale="true"))
    marathon.quiet()
    assert [task["id"] for task in marathon.running(name, 1)] == [left[0]["id"]]
    assert_deployed(marathon.ask("DELETE", f"/v2/apps{name}/tasks", scale="true"))
    marathon.quiet()
    assert (marathon.app(name)["instances"], marathon.tasks(name)) == (0, [])


def test_killing_a_task_that_is_not_there(marathon: Asked) -> None:
    name = fresh("none")
    marathon.deploy({"id": name, **SLEEP, "instances": 0})
    answer = marathon.ask("DELETE", f"/v2/apps{name}/tasks/not-existing")
    assert (answer.status_code, answer.json()) == (404, {"message": "Task 'not-existing' does not exist"})


def test_scaling_down_by_a_task_that_is_not_there(marathon: Asked) -> None:
    """404 names the app where it has no task at all; else there is a deployment of nothing."""
    empty, name = fresh("empty"), fresh("one")
    marathon.deploy({"id": empty, **SLEEP, "instances": 0})
    (task,) = marathon.deploy({"id": name, **SLEEP})["tasks"]
    answer = marathon.ask("DELETE", f"/v2/apps{empty}/tasks", scale="true")
    assert (answer.status_code, answer.json()) == (404, {"message": f"App '{empty}' does not exist"})
    assert_deployed(marathon.ask("DELETE", f"/v2/apps{name}/tasks/not-existing", scale="true"))
    assert_deployed(marathon.ask("POST", "/v2/tasks/delete", {"ids": ["not.existing"]}, scale="true"))
    marathon.quiet()
    assert [one["id"] for one in marathon.running(name, 1)] == [task["id"]]
    for method, path in (("DELETE", f"/v2/apps{name}/tasks"), ("POST", "/v2/tasks/delete")):
        answer = marathon.ask(method, path, {"ids": [task["id"]]}, scale="true", wipe="true")
        said = "You cannot use scale and wipe at the same time."
        assert (answer.status_code, answer.json()) == (400, {"message": said})


def test_a_status_that_is_none_filters_nothing(marathon: Asked) -> None:
    name = fresh("status")
    (task,) = marathon.deploy({"id": name, **SLEEP})["tasks"]
    assert task["id"] in [one["id"] for one in marathon.get("/v2/tasks", status="odd")["tasks"]]
    assert task["id"] not in [one["id"] for one in marathon.get("/v2/tasks", status="staging")["tasks"]]


def test_no_task_of_an_app_in_deployment_is_killed(marathon: Asked) -> None:
    """`KillTasks` wants the app's lock (MarathonSchedulerActor.scala); the answer is 200 all the same."""
    name = fresh("held")
    (task,) = marathon.deploy({"id": name, **SLEEP})["tasks"]
    deployment = assert_deployed(marathon.ask("PUT", f"/v2/apps{name}", {"cpus": 1000}))["deploymentId"]
    answers = [
        marathon.ask("DELETE", f"/v2/apps{name}/tasks/{task['id']}"),
        marathon.ask("DELETE", f"/v2/apps{name}/tasks"),
        marathon.ask("POST", "/v2/tasks/delete", {"ids": [task["id"]]}),
    ]
    assert [answer.status_code for answer in answers] == [200] * 3
    (given,) = answers[2].json()["tasks"]
    assert (given["id"], given["appId"]) == (task["id"], name)
    assert marathon.ask("DELETE", f"/v2/deployments/{deployment}", force="true").status_code == 202
    marathon.quiet()
    assert [one["id"] for one in marathon.running(name, 1)] == [task["id"]]


# deployments


def test_a_deployment_while_it_runs(marathon: Asked) -> None:
    name = fresh("stuck")
    created = marathon.ask("POST", "/v2/apps", {"id": name, **TOO_BIG}).json()

    def scaling() -> Json | None:
        found = [one for one in marathon.get("/v2/deployments") if one["affectedApps"] == [name]]
        return found[0] if found and found[0]["currentStep"] == 2 else None

    deployment = eventually(scaling, "the app is started, and scaled next")
    assert_is("Deployment", deployment)
    start, scale = ({"type": action, "app": name} for action in ("StartApplication", "ScaleApplication"))
    assert deployment == {
        "id": created["deployments"][0]["id"],
        "version": created["version"],
        "affectedApps": [name],
        "steps": [{"actions": [start]}, {"actions": [scale]}],
        "currentActions": [{"action": "ScaleApplication", "app": name, "readinessCheckResults": []}],
        "currentStep": 2,
        "totalSteps": 2,
    }
    assert marathon.app(name)["deployments"] == [{"id": deployment["id"]}]


def test_an_app_in_deployment_is_locked_unless_forced(marathon: Asked) -> None:
    name = fresh("locked")
    (first,) = marathon.ask("POST", "/v2/apps", {"id": name, **TOO_BIG}).json()["deployments"]
    assert_locked(marathon.ask("PUT", f"/v2/apps{name}", SLEEP), first["id"])
    assert_locked(marathon.ask("POST", f"/v2/apps{name}/restart"), first["id"])
    assert_locked(marathon.ask("DELETE", f"/v2/apps{name}", force="false"), first["id"])
    second = assert_deployed(marathon.ask("PUT", f"/v2/apps{name}", SLEEP, force="true"))
    assert first["id"] not in [one["id"] for one in marathon.get("/v2/deployments")]
    marathon.quiet()
    assert [task["version"] for task in marathon.running(name, 1)] == [second["version"]]


def test_delete_forces_unless_told_otherwise(marathon: Asked) -> None:
    name = fresh("deleted")
    marathon.ask("POST", "/v2/apps", {"id": name, **TOO_BIG})
    assert_deployed(marathon.ask("DELETE", f"/v2/apps{name}"))
    marathon.quiet()


def test_cancelling_a_deployment_rolls_back(marathon: Asked) -> None:
    name = fresh("rolled-back")
    before = marathon.deploy({"id": name, **SLEEP})
    deployment = assert_deployed(marathon.ask("PUT", f"/v2/apps{name}", {"cpus": 1000}))["deploymentId"]
    rollback = assert_deployed(marathon.ask("DELETE", f"/v2/deployments/{deployment}"))
    assert rollback["deploymentId"] != deployment
    marathon.quiet()
    after = marathon.app(name)
    assert after["cpus"] == before["cpus"]
    marathon.running(name, 1)


def test_cancelling_the_creation_of_an_app_removes_it(marathon: Asked) -> None:
    name = fresh("never")
    (deployment,) = marathon.ask("POST", "/v2/apps", {"id": name, **TOO_BIG}).json()["deployments"]
    assert_deployed(marathon.ask("DELETE", f"/v2/deployments/{deployment['id']}"))
    marathon.quiet()
    assert marathon.ask("GET", f"/v2/apps{name}").status_code == 404


def test_cancelling_by_force_leaves_the_app_as_it_is_wanted(marathon: Asked) -> None:
    name = fresh("abandoned")
    (deployment,) = marathon.ask("POST", "/v2/apps", {"id": name, **TOO_BIG}).json()["deployments"]
    answer = marathon.ask("DELETE", f"/v2/deployments/{deployment['id']}", force="true")
    assert (answer.status_code, answer.text) == (202, "")
    eventually(lambda: marathon.get("/v2/deployments") == [], "the deployment is gone")
    assert marathon.app(name)["cpus"] == 1000


# what waits and what fails


def test_the_queue_shows_what_fits_nowhere(marathon: Asked) -> None:
    name = fresh("waiting")
    marathon.ask("POST", "/v2/apps", {"id": name, **TOO_BIG, "instances": 2})

    def mine() -> list[Json]:
        return [item for item in marathon.get("/v2/queue")["queue"] if item["app"]["id"] == name]

    (item,) = eventually(mine, "the app waits")
    assert_is("QueueItem", item)
    assert (item["count"], item["app"]["cpus"]) == (2, 1000)
    assert item["delay"] == {"timeLeftSeconds": 0, "overdue": True}
    assert marathon.ask("DELETE", f"/v2/queue{name}/delay").status_code == 204


def test_an_app_that_fails_waits_longer_each_time(marathon: Asked) -> None:
    name = fresh("failing")
    failing = {"cmd": "exit 3", "cpus": 0.01, "mem": 16, "backoffSeconds": 2, "backoffFactor": 100}
    marathon.ask("POST", "/v2/apps", {"id": name, **failing})

    def waiting() -> Json | None:
        items = [item for item in marathon.get("/v2/queue")["queue"] if item["app"]["id"] == name]
        return items[0]["delay"] if items and items[0]["delay"]["timeLeftSeconds"] > 60 else None

    delay = eventually(waiting, "the second failure multiplies the delay")
    assert delay["overdue"] is False
    failure = marathon.app(name)["lastTaskFailure"]
    assert (failure["appId"], failure["state"]) == (name, "TASK_FAILED")
    assert failure["message"] == "Command exited with status 3"
    assert failure.keys() >= {"host", "taskId", "timestamp", "version", "slaveId"}
    assert marathon.ask("DELETE", f"/v2/queue{name}/delay").status_code == 204
    eventually(
        lambda: marathon.app(name).get("lastTaskFailure", failure)["taskId"] != failure["taskId"],
        "without its delay it is tried, and fails, again",
    )


def test_a_crashed_task_is_started_again(marathon: Asked) -> None:
    name = fresh("crashing")
    (task,) = marathon.deploy({"id": name, **SERVE, "cmd": "sleep 3; exit 1"})["tasks"]
    eventually(
        lambda: [one["id"] for one in marathon.tasks(name) if one["startedAt"] and one["id"] != task["id"]],
        "another task runs",
    )
    assert marathon.app(name)["lastTaskFailure"]["taskId"] == task["id"]


# placement


def test_unique_hosts(marathon: Asked, contract: Contract) -> None:
    name = fresh("unique")
    app = marathon.deploy({"id": name, **SLEEP, "instances": 2, "constraints": [["hostname", "UNIQUE"]]})
    assert len({task["host"] for task in app["tasks"]}) == 2
    marathon.ask("PUT", f"/v2/apps{name}", {"instances": 50})
    (item,) = eventually(
        lambda: (
            [one for one in marathon.get("/v2/queue")["queue"] if one["app"]["id"] == name and one["count"] < 48]
            or (contract.slaves < 3 and [one for one in marathon.get("/v2/queue")["queue"] if one["app"]["id"] == name])
        ),
        "every other host gets one",
    )
    tasks = marathon.tasks(name)
    assert len({task["host"] for task in tasks}) == len(tasks) == 50 - item["count"]


def test_cluster_and_like_choose_hosts(marathon: Asked) -> None:
    host = marathon.deploy({"id": fresh("anywhere"), **SLEEP})["tasks"][0]["host"]
    for constraint in (["hostname", "CLUSTER", host], ["hostname", "LIKE", host.replace(".", "[.]")]):
        app = marathon.deploy({"id": fresh("there"), **SLEEP, "instances": 3, "constraints": [constraint]})
        assert {task["host"] for task in app["tasks"]} == {host}
    app = marathon.deploy({"id": fresh("elsewhere"), **SLEEP, "constraints": [["hostname", "UNLIKE", host]]})
    assert app["tasks"][0]["host"] != host


def test_group_by_spreads_evenly(marathon: Asked) -> None:
    app = marathon.deploy(
        {"id": fresh("spread"), **SLEEP, "instances": 4, "constraints": [["hostname", "GROUP_BY", "2"]]}
    )
    counts = [sum(task["host"] == host for task in app["tasks"]) for host in {task["host"] for task in app["tasks"]}]
    assert len(counts) >= 2
    assert max(counts) - min(counts) <= 1


def test_ports_that_are_required(marathon: Asked) -> None:
    port = marathon.deploy({"id": fresh("any-port"), **SLEEP})["tasks"][0]["ports"][0] + 1
    app = marathon.deploy({"id": fresh("this-port"), **SLEEP, "ports": [port], "requirePorts": True})
    assert app["tasks"][0]["ports"] == [port]


# health


def test_health_checks_decide_when_a_deployment_is_done(marathon: Asked) -> None:
    name = fresh("healthy")
    check = {"gracePeriodSeconds": 20, "intervalSeconds": 1, "timeoutSeconds": 2, "maxConsecutiveFailures": 2}
    checks = [{"protocol": "HTTP", "path": "/", **check}, {"protocol": "TCP", **check}]
    app = marathon.deploy({"id": name, **SERVE, "healthChecks": checks})
    assert (app["tasksHealthy"], app["tasksUnhealthy"]) == (1, 0)
    assert_is("App", app)
    (task,) = app["tasks"]
    results = task["healthCheckResults"]
    assert [result["alive"] for result in results] == [True, True]
    assert results[0].keys() >= {"consecutiveFailures", "firstSuccess", "lastSuccess", "lastFailure", "taskId"}
    requests.post(f"{address(task)}/sick", timeout=5)
    eventually(lambda: task["id"] not in [one["id"] for one in marathon.tasks(name)], "the sick task is killed")
    marathon.running(name, 1)
    assert "health check" in marathon.app(name)["lastTaskFailure"]["message"]


def test_a_task_is_killed_at_the_failure_after_the_last_that_is_allowed(marathon: Asked) -> None:
    """HealthCheckActor looks at the count before the failure, and the next task starts without a delay."""
    name = fresh("sick")
    check = {"protocol": "HTTP", "path": "/", "gracePeriodSeconds": 20, "intervalSeconds": 1, "timeoutSeconds": 2}
    app = {"id": name, **SERVE, "healthChecks": [{**check, "maxConsecutiveFailures": 2}]}
    (task,) = marathon.deploy({**app, "backoffSeconds": 600, "maxLaunchDelaySeconds": 600})["tasks"]
    requests.post(f"{address(task)}/sick", timeout=5)
    counts: set[int] = set()

    def is_replaced() -> bool:
        found = marathon.tasks(name)
        old = [one for one in found if one["id"] == task["id"]]
        counts.update(result["consecutiveFailures"] for one in old for result in one["healthCheckResults"])
        return any(one["id"] != task["id"] and one["startedAt"] for one in found)

    eventually(is_replaced, "another task runs")
    assert 2 in counts


def test_a_deployment_waits_for_health(marathon: Asked) -> None:
    name = fresh("unhealthy")
    check = {"protocol": "TCP", "gracePeriodSeconds": 600, "intervalSeconds": 1}
    marathon.ask("POST", "/v2/apps", {"id": name, **SLEEP, "healthChecks": [check]})
    marathon.running(name, 1)
    app = eventually(lambda: (found := marathon.app(name))["tasksUnhealthy"] and found, "the first check is answered")
    assert (len(app["deployments"]), app["tasksHealthy"], app["tasksUnhealthy"]) == (1, 0, 1)
    (result,) = app["tasks"][0]["healthCheckResults"]
    assert (result["alive"], result["consecutiveFailures"]) == (False, 0), "in its grace period no failure counts"


@pytest.mark.parametrize(("capacity", "least"), [(1, 4), (0.5, 2)])
def test_a_rolling_upgrade_keeps_its_minimum_of_healthy_tasks(marathon: Asked, capacity: float, least: int) -> None:
    name = fresh("rolling")
    check = {"protocol": "HTTP", "gracePeriodSeconds": 20, "intervalSeconds": 1, "timeoutSeconds": 2}
    strategy = {"minimumHealthCapacity": capacity, "maximumOverCapacity": 0.25}
    app = {"id": name, **SERVE, "instances": 4, "healthChecks": [check], "upgradeStrategy": strategy}
    before = marathon.deploy(app)
    assert_deployed(marathon.ask("PUT", f"/v2/apps{name}", {"env": {"NEW": "1"}}))
    counts, healthy = [], []

    def done() -> bool:
        seen = marathon.app(name)
        counts.append(len(seen["tasks"]))
        healthy.append(seen["tasksHealthy"])
        return bool(seen["deployments"] == [])

    eventually(done, "the upgrade ends", 60)
    assert min(healthy) >= least
    assert max(counts) <= 5
    after = marathon.running(name, 4)
    assert not {task["id"] for task in before["tasks"]} & {task["id"] for task in after}
