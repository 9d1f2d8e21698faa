"""Following a deployment, and why it gets no further; which slave an instance fits on; Marathon's state as tables."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pandas as pd
import pytest
from marathon_answers import VERSION, in_11, task

from runbook.errors import DeploymentFailed, NoLeader, ServiceError
from runbook.services.findings import Findings
from runbook.services.marathon import (
    Change,
    InstanceView,
    Marathon,
    Progress,
    apps_table,
    deployments_table,
    explain,
    fit_table,
    follow,
    host_ports,
    instances_table,
    queue_table,
    tasks_table,
)
from runbook.services.marathon.fit import FIT
from runbook.services.marathon.tables import APPS, DEPLOYMENTS, INSTANCES, QUEUE, TASKS
from runbook.services.mesos import slaves_table

Json = dict[str, Any]
HELLO: Json = {"id": "hello", "cmd": "sleep 1", "cpus": 0.5, "mem": 256, "instances": 2}
CHANGE = Change("/hello", "created", "d1", VERSION)
LATER = "2016-05-31T08:00:00.000Z"
EARLIER = "2016-05-31T07:00:00.000Z"


def slaves(**hosts: Json) -> pd.DataFrame:
    """The slaves table of hosts, each with 2 CPUs, 1024 MB and ports 8401-8410, and what is used of it."""
    total = {"cpus": 2.0, "mem": 1024.0, "disk": 1000.0, "ports": "[8401-8410]"}
    return slaves_table(
        {
            "slaves": [
                {
                    "id": f"S-{host}",
                    "hostname": host,
                    "pid": f"slave(1)@{host}:5051",
                    "active": more.get("active", True),
                    "resources": {**total, **more.get("has", {})},
                    "used_resources": more.get("used", {}),
                    "attributes": more.get("attributes", {}),
                }
                for host, more in hosts.items()
            ],
            "frameworks": [],
        }
    )


def waiting(count: int, delay: int = 0) -> list[Json]:
    return [
        {"app": in_11(HELLO), "count": count, "delay": {"timeLeftSeconds": delay, "overdue": not delay}},
    ]


def deployment(step: int = 2, action: str = "ScaleApplication") -> Json:
    actions = [{"action": action, "app": "/hello"}]
    steps = [[{"action": "StartApplication", "app": "/hello"}], actions]
    return {
        "id": "d1",
        "version": VERSION,
        "affectedApps": ["/hello"],
        "steps": steps,
        "currentActions": actions,
        "currentStep": step,
        "totalSteps": 2,
    }


class Scripted(Marathon):
    """A Marathon that answers by a script: one moment a look, the last one for ever."""

    def __init__(self, *moments: Json | ServiceError) -> None:
        super().__init__({"m0": "http://127.0.0.1:1"})
        self.moments = list(moments)
        self.now: Json = {}

    def deployments(self) -> list[Json]:
        moment = self.moments.pop(0) if len(self.moments) > 1 else self.moments[0]
        if isinstance(moment, ServiceError):
            raise moment
        self.now = moment
        found: list[Json] = self.now.get("deployments", [])
        return found

    def find(self, name: str) -> Json | None:
        return self.now.get("app")

    def queue(self) -> list[Json]:
        found: list[Json] = self.now.get("queue", [])
        return found

    def tasks(self, name: str | None = None) -> list[Json]:
        found: list[Json] = self.now.get("tasks", [])
        return found


def followed(marathon: Marathon, change: Change = CHANGE, **more: Any) -> list[str]:
    return [str(progress) for progress in follow(marathon, change, interval=0.001, **{"deadline": 5, **more})]


# following


def test_progress_is_told_when_something_moves_until_all_runs() -> None:
    staging = task(2, startedAt=None)
    seen = followed(
        Scripted(
            {"deployments": [deployment(1, "StartApplication")], "app": in_11(HELLO)},
            {"deployments": [deployment()], "app": in_11(HELLO), "queue": waiting(2)},
            {"deployments": [deployment()], "app": in_11(HELLO), "queue": waiting(2)},
            {"deployments": [deployment()], "app": in_11(HELLO, tasks=[task(1), staging])},
            {"app": in_11(HELLO, tasks=[task(1), task(2)])},
        )
    )
    assert seen == [
        "step 1/2 StartApplication: 0 of 2 running",
        "step 2/2 ScaleApplication: 0 of 2 running, 2 waiting",
        "step 2/2 ScaleApplication: 1 of 2 running, 1 staging",
        "done: 2 of 2 running",
    ]


RESTART = {**deployment(1, "RestartApplication"), "version": LATER, "totalSteps": 1}


@pytest.mark.parametrize(
    ("change", "cancelled"),
    [
        (Change("/hello", "changed", "d1", LATER, restarted=True), True),
        (Change("/hello", "unchanged", "d1", LATER), False),  # one that another run began
    ],
)
def test_a_restart_counts_the_tasks_from_before_it_as_old(change: Change, cancelled: bool) -> None:
    """It renews `version` and `lastScalingAt`; `lastConfigChangeAt` stays (GroupVersioningUtil.scala)."""
    info = {"lastScalingAt": LATER, "lastConfigChangeAt": VERSION}
    old, new = task(0), [task(number, version=LATER) for number in (1, 2)]

    def app(*tasks: Json) -> Json:
        return in_11(HELLO, version=LATER, versionInfo=info, tasks=list(tasks))

    moments: list[Json] = [
        {"deployments": [RESTART], "app": app(old, old)},
        {"deployments": [RESTART], "app": app(old, new[0])},
        {"app": app(*new)},
    ]
    counts = [
        "step 1/1 RestartApplication: 0 of 2 running, 2 of earlier versions",
        "step 1/1 RestartApplication: 1 of 2 running, 1 of earlier versions",
    ]
    assert followed(Scripted(*moments), change) == [*counts, "done: 2 of 2 running"]
    if cancelled:  # by force: no deployment is left, and an old task
        with pytest.raises(DeploymentFailed, match="1 of 2 running, 1 of earlier versions"):
            followed(Scripted(*moments[:2], {"app": app(old, new[0])}), change, deadline=0.05)


def test_scaling_counts_the_tasks_from_before_it_as_its_own() -> None:
    info = {"lastScalingAt": LATER, "lastConfigChangeAt": VERSION}
    app = in_11(HELLO, version=LATER, versionInfo=info, tasks=[task(0), task(1, version=LATER)])
    assert followed(Scripted({"app": app}), Change("/hello", "changed", "d1", LATER)) == ["done: 2 of 2 running"]


def test_an_upgrade_counts_old_tasks_and_health() -> None:
    app = {**HELLO, "healthChecks": [{"protocol": "TCP"}]}
    alive, not_yet = [{"alive": True}], [{"alive": False, "lastFailureCause": "refused"}]
    old = task(0, version=EARLIER, healthCheckResults=alive)
    change = Change("/hello", "changed", "d1", VERSION)
    upgrade = deployment(2, "RestartApplication")
    seen = followed(
        Scripted(
            {"deployments": [upgrade], "app": in_11(app, tasks=[old, old, task(1, healthCheckResults=not_yet)])},
            {"deployments": [upgrade], "app": in_11(app, tasks=[old, task(1, healthCheckResults=alive)])},
            {"app": in_11(app, tasks=[task(n, healthCheckResults=alive) for n in (1, 2)])},
        ),
        change,
    )
    assert seen == [
        "step 2/2 RestartApplication: 1 of 2 running, 0 healthy, 2 of earlier versions",
        "step 2/2 RestartApplication: 1 of 2 running, 1 healthy, 1 of earlier versions",
        "done: 2 of 2 running, 2 healthy",
    ]


def test_a_deletion_is_done_when_the_last_task_is_gone() -> None:
    change = Change("/hello", "deleted", "d1", VERSION)
    stopping = deployment(1, "StopApplication")
    seen = followed(
        Scripted(
            {"deployments": [stopping], "tasks": [task(1), task(2), task(3, app="/other")]},
            {"deployments": [stopping], "tasks": [task(2)]},
            {"tasks": [task(3, app="/other")]},
        ),
        change,
    )
    assert seen == [
        "step 1/2 StopApplication: 2 tasks left",
        "step 1/2 StopApplication: 1 task left",
        "done: 0 tasks left",
    ]


def test_an_unchanged_app_that_runs_is_done_at_once() -> None:
    change = Change("/hello", "unchanged", None, VERSION)
    assert followed(Scripted({"app": in_11(HELLO, tasks=[task(1), task(2)])}), change) == ["done: 2 of 2 running"]


def test_a_change_of_leader_is_borne() -> None:
    seen = followed(
        Scripted(
            {"deployments": [deployment()], "app": in_11(HELLO, tasks=[task(1)])},
            NoLeader("nobody leads"),
            NoLeader("nobody leads"),
            {"app": in_11(HELLO, tasks=[task(1), task(2)])},
        )
    )
    assert seen == ["step 2/2 ScaleApplication: 1 of 2 running", "done: 2 of 2 running"]


def test_nobody_leads_until_the_deadline() -> None:
    with pytest.raises(DeploymentFailed, match="nobody leads"):
        followed(Scripted(NoLeader("nobody leads")), deadline=0.01)


def test_after_the_deadline_it_is_told_why() -> None:
    moment = {"deployments": [deployment()], "app": in_11(HELLO), "queue": waiting(2)}
    full = slaves(node1={"used": {"cpus": 1.8, "mem": 100}}, node2={"used": {"mem": 1000}})
    with pytest.raises(DeploymentFailed) as caught:
        followed(Scripted(moment), deadline=0.01, slaves=lambda: full)
    shown = str(caught.value)
    assert "the deployment of /hello is not done after 0 s: step 2/2 ScaleApplication: 0 of 2 running" in shown
    assert "node1: an instance does not fit: cpus: 0.5 wanted, 0.2 of 2 free" in shown
    assert "node2: an instance does not fit: mem: 256 wanted, 24 of 1024 free" in shown
    assert isinstance(caught.value.result, Findings)
    assert caught.value.remedy


def test_mesos_that_does_not_answer_does_not_hide_the_rest() -> None:
    def fails() -> pd.DataFrame:
        raise NoLeader("no master leads")

    failure = {"timestamp": LATER, "state": "TASK_FAILED", "message": "Command exited with status 3"}
    failed = in_11(HELLO, lastTaskFailure={**failure, "host": "node2", "taskId": "hello.9"})
    moment = {"deployments": [deployment()], "app": failed, "queue": waiting(2)}
    with pytest.raises(DeploymentFailed) as caught:
        followed(Scripted(moment), deadline=0.01, slaves=fails)
    assert "no master leads" in str(caught.value)
    assert "Command exited with status 3" in str(caught.value)


@pytest.mark.parametrize(
    ("app", "shown"),
    [
        (None, "the app is gone: its deployment was undone, or the app deleted"),
        (in_11(HELLO, version=LATER), f"has the version {LATER} instead of {VERSION}: somebody else changed it"),
    ],
)
def test_a_deployment_that_ended_otherwise_is_not_waited_for(app: Json | None, shown: str) -> None:
    with pytest.raises(DeploymentFailed) as caught:
        followed(Scripted({"deployments": [deployment()], "app": in_11(HELLO)}, {"app": app}), deadline=60)
    assert shown in str(caught.value)


def test_an_app_that_somebody_changes_meanwhile_is_not_called_a_deployment() -> None:
    unchanged = Change("/hello", "unchanged", None, VERSION)
    with pytest.raises(DeploymentFailed, match=r"^/hello did not reach its aim: the app has the version"):
        followed(Scripted({"app": in_11(HELLO)}, {"app": in_11(HELLO, version=LATER)}), unchanged)


def test_a_task_that_ends_just_after_the_deployment_is_waited_for() -> None:
    seen = followed(
        Scripted(
            {"deployments": [deployment()], "app": in_11(HELLO, tasks=[task(1)])},
            {"app": in_11(HELLO, tasks=[task(1)]), "queue": waiting(1, delay=1)},
            {"app": in_11(HELLO, tasks=[task(1), task(3)])},
        )
    )
    assert seen[-1] == "done: 2 of 2 running"


def not_running(number: int, state: str) -> Json:
    """A task that is not active, as 1.4 and later answer it: without times, ports and version (`Formats.scala`)."""
    gone = task(number, state=state)
    return {name: value for name, value in gone.items() if name not in ("startedAt", "stagedAt", "ports", "version")}


@pytest.mark.parametrize(
    ("lost", "state"),
    [
        (task(1, state="TASK_LOST"), "lost"),  # kept for up to a day by 1.1.2 to 1.3 (its issue 4232)
        (not_running(1, "TASK_UNREACHABLE"), "unreachable"),
    ],
)
def test_a_task_that_went_with_its_host_counts_as_none_of_the_instances(lost: Json, state: str) -> None:
    (seen,) = followed(Scripted({"app": in_11(HELLO, tasks=[lost, task(2), task(3)])}))
    assert seen == "done: 2 of 2 running"
    found = explain(in_11(HELLO, tasks=[lost]), waiting(1))
    assert [(one.host, one.cause) for one in found] == [
        ("", "tasks wait to be launched"),
        ("node1", f"a task is {state}"),
    ]
    assert tasks_table([lost])["state"].tolist() == [state]


def test_the_progress_tells_the_last_failure_since_it_began() -> None:
    def at(time: str) -> Json:
        failure = {"timestamp": time, "state": "TASK_FAILED", "message": "exit 3", "host": "a", "taskId": "b"}
        return {"deployments": [deployment()], "app": in_11(HELLO, lastTaskFailure=failure), "queue": waiting(2, 7)}

    for time, failure in ((EARLIER, None), (LATER, "exit 3")):
        first: Progress = next(follow(Scripted(at(time)), CHANGE, deadline=5))
        assert (first.failure, first.delay, first.waiting) == (failure, 7, 2)


# explaining


def causes(findings: Iterable[Any]) -> list[tuple[str, str]]:
    return [(finding.host, finding.cause) for finding in findings]


def test_nothing_is_wrong_with_an_app_that_runs() -> None:
    assert list(explain(in_11(HELLO, tasks=[task(1), task(2)]), [], slaves(node1={}))) == []


def failed(message: str, **more: str) -> Json:
    failure = {"timestamp": LATER, "state": "TASK_FAILED", "message": message, "host": "node2", "taskId": "hello.9"}
    return in_11(HELLO, lastTaskFailure={**failure, **more})


@pytest.mark.parametrize(
    ("message", "cause", "remedy"),
    [
        ("Command exited with status 3", "tasks fail", "sandbox"),
        ("Command terminated with signal Killed", "tasks fail", "oom-killer"),
        ("Container exited with status 137", "tasks fail", "oom-killer"),
        (
            "None of the enabled containerizers (mesos) could create a container for the provided TaskInfo",
            None,
            "docker,mesos",
        ),
    ],
)
def test_tasks_that_fail(message: str, cause: str | None, remedy: str) -> None:
    (found,) = explain(failed(message), waiting(2, delay=9), slaves(node1={}))
    assert found.host == "node2"
    assert cause is None or found.cause == cause
    assert message in found.evidence
    assert "waits 9 s" in found.evidence
    assert remedy in found.remedy


def test_a_failure_of_an_earlier_version_does_not_count() -> None:
    assert list(explain(failed("old", timestamp=EARLIER), [], since=VERSION)) == []


def test_health() -> None:
    app = {**HELLO, "healthChecks": [{"protocol": "HTTP"}]}
    sick = task(1, host="node1", healthCheckResults=[{"alive": False, "lastFailureCause": "500 Server Error"}])
    unknown = task(2, host="node2")
    staging = task(3, host="node3", startedAt=None)
    found = list(explain(in_11(app, tasks=[sick, unknown, staging]), []))
    assert causes(found) == [
        ("node1", "a task is not healthy"),
        ("node2", "a task is not known to be healthy"),
        ("node3", "a task is still being started"),
    ]
    assert "500 Server Error" in found[0].evidence


def test_no_slaves_and_slaves_with_room() -> None:
    assert causes(explain(in_11(HELLO), waiting(2), slaves())) == [("", "no slave is registered")]
    (found,) = explain(in_11(HELLO), waiting(2), slaves(node1={"used": {"cpus": 2}}, node2={}))
    assert found.cause == "Marathon waits for an offer"
    assert "room on node2" in found.evidence


def test_waiting_without_knowing_the_slaves() -> None:
    (found,) = explain(in_11(HELLO), waiting(2))
    assert found.evidence == "2 to be launched, next attempt in 0 s"


# fit


def lacks(app: Json, table: pd.DataFrame, tasks: Iterable[Json] = ()) -> list[str]:
    return list(fit_table(app, table, tasks)["lacks"])


def test_fit_names_what_is_short_on_which_slave() -> None:
    table = fit_table(
        HELLO,
        slaves(
            node1={"used": {"cpus": 0.6}},
            node2={"used": {"mem": 900}},
            node3={"active": False},
            node4={"used": {"ports": "[8401-8410]"}},
        ),
    )
    assert dict(table.dtypes.astype(str)) == dict(FIT)
    assert list(table["fits"]) == [True, False, False, False]
    assert list(table["room"]) == [2, 0, 0, 0]
    assert list(table["lacks"]) == [
        "",
        "mem: 256 wanted, 124 of 1024 free",
        "it is not active",
        "ports: 1 wanted, 0 free",
    ]
    assert (table.loc[0, "cpus_wanted"], table.loc[0, "cpus_free"], table.loc[0, "ports_free"]) == (0.5, 1.4, 10)


def bridge(*host_ports: int) -> Json:
    mappings = [{"containerPort": 80, "hostPort": port} for port in host_ports]
    docker = {"image": "web:1", "network": "BRIDGE", "portMappings": mappings}
    return {"id": "/web", "cpus": 0.1, "mem": 16, "container": {"type": "DOCKER", "docker": docker}}


@pytest.mark.parametrize(
    ("app", "asked"),
    [
        ({"id": "a"}, [0]),
        ({"id": "a", "ports": []}, []),
        ({"id": "a", "ports": [8080, 0]}, [0, 0]),
        ({"id": "a", "ports": [8080, 0], "requirePorts": True}, [8080, 0]),
        ({"id": "a", "portDefinitions": [{"port": 9}], "ports": [0, 0], "requirePorts": True}, [9]),
        (bridge(0, 8405), [0, 8405]),
        (
            {"id": "a", "networks": [{"mode": "container/bridge"}], "container": {"portMappings": [{"hostPort": 5}]}},
            [5],
        ),
        (
            {"id": "a", "networks": [{"mode": "container"}], "container": {"portMappings": [{"hostPort": None}, {}]}},
            [0],
        ),
    ],
)
def test_the_ports_that_a_task_asks_for(app: Json, asked: list[int]) -> None:
    assert host_ports(app) == asked


def test_fixed_ports() -> None:
    both = slaves(node1={"used": {"ports": "[8405-8405]"}}, node2={})
    assert lacks(bridge(8405), both) == ["port 8405: in use", ""]
    assert list(fit_table(bridge(8405), both)["room"]) == [0, 1]
    assert lacks(bridge(8290), both) == ["port 8290: not among its ports [8401-8410]"] * 2


HERE = slaves(node1={"attributes": {"rack": "r1"}}, node2={"attributes": {"rack": "r2"}}, node3={})
ONE, TWO = task(1, host="node1"), task(2, host="node2")


@pytest.mark.parametrize(
    ("constraint", "tasks", "unmet"),
    [
        (["hostname", "UNIQUE"], [ONE], ["a task is on node1 already", "", ""]),
        (["rack", "UNIQUE"], [ONE], ["a task is on r1 already", "", "it has no rack"]),
        (["hostname", "CLUSTER", "node2"], [], ["its hostname is node1", "", "its hostname is node3"]),
        (["rack", "CLUSTER"], [ONE], ["", "the tasks are on r1", "it has no rack"]),
        (["hostname", "LIKE", "node[12]"], [], ["", "", "its hostname is node3"]),
        (["rack", "UNLIKE", "r1"], [], ["its rack is r1", "", ""]),
        (["hostname", "GROUP_BY"], [ONE, TWO], ["", "", ""]),
        (["hostname", "GROUP_BY"], [ONE, ONE, TWO], ["node1 has 2 tasks, another group 1", "", ""]),
        (["hostname", "GROUP_BY", "3"], [ONE, TWO], ["3 groups are wanted, and 2 have tasks"] * 2 + [""]),
        (["hostname", "MAX_PER", "1"], [ONE], ["1 tasks are on node1 already", "", ""]),
        (["@hostname", "UNIQUE"], [ONE], ["a task is on node1 already", "", ""]),
        (["@hostname", "LIKE", "node[12]"], [], ["", "", "its @hostname is node3"]),
        (["@hostname", "UNIQUE"], [task(1, host="node2", slaveId="gone")], ["", "a task is on node2 already", ""]),
        (["rack", "IS", "r2"], [], ["its rack is r1", "", "it has no rack"]),
    ],
)
def test_constraints(constraint: list[str], tasks: list[Json], unmet: list[str]) -> None:
    app = {**HELLO, "constraints": [constraint]}
    found = lacks(app, HERE, tasks)
    assert [text.partition(": ")[2] for text in found] == unmet
    assert all(not text or text.startswith(f"constraint {' '.join(constraint)}: ") for text in found)


@pytest.mark.parametrize("field", ["@zone", "@region"])
@pytest.mark.parametrize("operator", ["UNIQUE", "GROUP_BY", "IS", "UNLIKE", "CLUSTER"])
def test_a_fault_domain_is_not_known(field: str, operator: str) -> None:
    """Mesos' state has `domain` only from 1.5 on; `@zone` is no attribute (Constraints.scala of Marathon 1.6)."""
    app = {**HELLO, "constraints": [[field, operator, "x"]]}
    table = fit_table(app, slaves(node1={}, node2={"used": {"mem": 900}}))
    assert list(table["fits"]) == [pd.NA, False]
    assert list(table["lacks"]) == ["", "mem: 256 wanted, 124 of 1024 free"]
    assert table.loc[0, "not_known"] == f"constraint {field} {operator} x: its {field[1:]} is not known"
    both = list(explain(in_11(app), waiting(1), slaves(node1={}, node2={"used": {"mem": 900}})))
    assert causes(both) == [
        ("node1", "not known whether an instance fits"),
        ("node2", "an instance does not fit"),
    ]


@pytest.mark.parametrize("constraint", [["rack", "NEWER", "x"], ["rack", "LIKE", "r1)"], ["@other", "IS", "x"]])
def test_a_constraint_that_cannot_be_judged_is_not_known(constraint: list[str]) -> None:
    app = {**HELLO, "constraints": [constraint]}
    table = fit_table(app, slaves(node1={"attributes": {"rack": "r1"}}))
    assert list(table["fits"]) == [pd.NA]
    assert table.loc[0, "lacks"] == ""


def test_gpus_are_not_known_or_counted() -> None:
    app = {**HELLO, "gpus": 2}
    table = fit_table(app, slaves(node1={}, node2={"active": False}))
    assert list(table["fits"]) == [pd.NA, False]
    assert list(table["room"]) == [pd.NA, 0]
    assert table.loc[0, "not_known"] == "gpus: 2 wanted, not known how many are free"
    known = slaves(node1={}, node2={}).assign(gpus_free=[5.0, 1.0])
    table = fit_table(app, known)
    assert list(table["fits"]) == [True, False]
    assert list(table["room"]) == [2, 0]
    assert list(table["lacks"]) == ["", "gpus: 2 wanted, 1 free"]
    assert list(fit_table({**HELLO, "gpus": 0}, slaves(node1={}))["fits"]) == [True]


# tables


@pytest.mark.parametrize(
    ("table", "full", "schema"),
    [
        (apps_table, [in_11(HELLO)], APPS),
        (tasks_table, [task(1)], TASKS),
        (deployments_table, [deployment()], DEPLOYMENTS),
        (queue_table, waiting(1), QUEUE),
        (instances_table, [InstanceView("node1", "node1:8080", "1.1.1", "node1:8080", "f")], INSTANCES),
    ],
)
def test_tables_have_their_columns_and_types_full_or_empty(
    table: Callable[[Iterable[Any]], pd.DataFrame], full: list[Any], schema: dict[str, str]
) -> None:
    for rows in (full, []):
        assert dict(table(rows).dtypes.astype(str)) == dict(schema)
        assert len(table(rows)) == len(rows)


def test_the_table_of_apps() -> None:
    checked = {**HELLO, "id": "checked", "healthChecks": [{"protocol": "TCP"}]}
    docker = {"id": "docked", "container": {"docker": {"image": "mysql:5.7.13"}}}
    failure = failed("exit 3")
    apps = apps_table([in_11(checked, tasksHealthy=1), in_11(docker, deployments=[{"id": "d1"}]), failure])
    assert list(apps["healthy"].fillna(-1)) == [1, -1, -1]
    assert apps.loc[1, "image"] == "mysql:5.7.13"
    assert apps.loc[1, "deployment"] == "d1"
    assert apps.loc[2, "last_failure"] == "TASK_FAILED on node2: exit 3"
    assert apps.loc[0, "version"] == pd.Timestamp(VERSION)
    assert "env" not in apps.columns


def test_the_table_of_deployments_names_pods() -> None:
    """From 1.4 on: `affectedPods`, and actions with a `pod`."""
    pods = {**deployment(), "affectedApps": [], "affectedPods": ["/pod"]}
    pods["currentActions"] = [{"action": "StartPod", "pod": "/pod"}]
    both = {**deployment(), "affectedPods": ["/pod"]}
    table = deployments_table([pods, both])
    assert list(table["apps"]) == ["/pod", "/hello, /pod"]
    assert list(table["action"]) == ["StartPod", "ScaleApplication"]


def test_the_table_of_tasks() -> None:
    rows = [
        task(1, startedAt=None),
        task(2, ports=[9001, 9002]),
        task(3, healthCheckResults=[{"alive": True}]),
        task(4, healthCheckResults=[{"alive": False, "lastFailureCause": "refused"}, None]),
    ]
    table = tasks_table(rows)
    assert list(table["state"]) == ["staging", "running", "healthy", "unhealthy"]
    assert table.loc[1, "ports"] == "9001, 9002"
    assert pd.isna(table.loc[0, "started"])
    assert list(table["problem"].fillna("")) == ["", "", "", "refused"]


def test_the_table_of_instances() -> None:
    views = [
        InstanceView("node1", "198.51.100.11:8080", "1.1.1", "198.51.100.12:8080", "f"),
        InstanceView("node2", "198.51.100.12:8080", "1.1.1", "198.51.100.12:8080", "f"),
        InstanceView("node3", "198.51.100.13:8080", problem="refused"),
    ]
    table = instances_table(views)
    assert list(table["leads"]) == [False, True, pd.NA]
    assert list(table["answers"]) == [True, True, False]
