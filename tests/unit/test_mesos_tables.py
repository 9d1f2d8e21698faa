"""Mesos' state as tables: right values from real answers, and the same typed columns when there is nothing."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest
from mesos_payloads import election, payload

from runbook.errors import EndpointUnreachable
from runbook.services.mesos import (
    Election,
    MasterView,
    Ranges,
    frameworks_table,
    masters_table,
    metrics_table,
    resources_table,
    slaves_table,
    tasks_table,
)
from runbook.services.mesos.tables import FRAMEWORKS, MASTERS, METRICS, RESOURCES, SLAVES, TASKS, WORTH_READING

LEADER = payload("three-masters/leader_state.json")
ONE_NODE = payload("one-node/master_state.json")
EMPTY = payload("three-masters/nonleader1_state.json")
AFTER_FAILOVER = payload("three-masters/leader_state_after-failover_orphan-task.json")
S0, S1 = (f"03027f2a-2478-484b-971f-9994934aaeb6-S{number}" for number in (0, 1))


def types(table: pd.DataFrame) -> dict[str, str]:
    return {str(column): str(kind) for column, kind in table.dtypes.items()}


@pytest.mark.parametrize(
    ("full", "empty", "schema"),
    [
        (slaves_table(LEADER), slaves_table(EMPTY), SLAVES),
        (tasks_table(LEADER), tasks_table(EMPTY), TASKS),
        (frameworks_table(AFTER_FAILOVER), frameworks_table(EMPTY), FRAMEWORKS),
        (resources_table(LEADER), resources_table(EMPTY), RESOURCES),
        (metrics_table(payload("three-masters/leader_metrics_snapshot.json")), metrics_table({}), METRICS),
        (masters_table({"m0": MasterView.of(LEADER)}, election()), masters_table({}, Election()), MASTERS),
    ],
    ids=["slaves", "tasks", "frameworks", "resources", "metrics", "masters"],
)
def test_empty_and_full_tables_have_the_same_types(full: pd.DataFrame, empty: pd.DataFrame, schema: Any) -> None:
    assert types(full) == types(empty) == dict(schema)
    assert len(full)


def test_slaves() -> None:
    table = slaves_table(LEADER).set_index("id")
    busy, idle = table.loc[S1], table.loc[S0]
    assert busy["address"] == "127.0.0.1:15062"
    assert busy["registered"] == pd.Timestamp("2026-11-24T19:46:38.843020Z")
    assert pd.isna(busy["reregistered"])
    assert (busy["tasks"], idle["tasks"]) == (2, 0)
    assert (busy["cpus"], busy["cpus_used"], busy["cpus_free"]) == (2.0, 0.3, 1.7)
    assert (busy["mem_free"], idle["mem_free"]) == (22985.0, 23081.0)
    assert (busy["ports"], busy["ports_used"], busy["ports_free"]) == ("[8400-9100]", "[8400-8401]", "[8402-9100]")
    assert (busy["port_count"], busy["port_count_free"], idle["port_count_free"]) == (701, 699, 701)
    assert idle["ports_used"] == "[]"


def test_what_is_free_is_what_mesos_offers() -> None:
    offered = ONE_NODE["slaves"][0]["offered_resources"]
    slave = slaves_table(ONE_NODE).iloc[0]
    assert {name: slave[f"{name}_free"] for name in ("cpus", "mem", "disk")} == {
        name: offered[name] for name in ("cpus", "mem", "disk")
    }
    assert Ranges.parse(slave["ports_free"]) == Ranges.parse(offered["ports"])


def test_a_slave_that_came_back_and_one_with_attributes() -> None:
    state = AFTER_FAILOVER | {"slaves": [AFTER_FAILOVER["slaves"][0] | {"attributes": {"rack": "r1", "level": 3.0}}]}
    slave = slaves_table(state).iloc[0]
    assert slave["reregistered"] == pd.Timestamp("2026-11-24T19:51:00.972230Z")
    assert slave["attributes"] == "level:3;rack:r1"


def test_a_slave_without_ports() -> None:
    slave = LEADER["slaves"][0] | {"resources": {"cpus": 1.0, "mem": 512.0}, "used_resources": {"cpus": 0.0}}
    row = slaves_table(LEADER | {"slaves": [slave]}).iloc[0]
    assert (row["ports"], row["port_count"], row["disk"]) == ("[]", 0, 0.0)


def test_tasks() -> None:
    table = tasks_table(LEADER).set_index("id")
    assert list(table.query("live").index) == ["sleeper", "fixedmaster"]
    assert list(table["state"]) == ["TASK_RUNNING", "TASK_RUNNING", "TASK_FAILED", "TASK_FAILED", "TASK_FINISHED"]
    assert table.loc["sleeper", "ports"] == "[8400-8401]"
    assert table.loc["finishes", "running_since"] == pd.Timestamp("2026-11-24T19:47:59.794760Z")
    assert table.loc["finishes", "updated"] == pd.Timestamp("2026-11-24T19:47:59.907510Z")
    assert not table["orphan"].any()


def test_a_docker_task_and_one_whose_end_is_not_acknowledged() -> None:
    table = tasks_table(ONE_NODE).set_index("name")
    assert (table.loc["dock", "image"], table.loc["dock", "framework"]) == ("t:1", "probe")
    # in 'tasks' still, but ended: a reset of the slave does not lose it
    assert table.loc["cmd", "state"] == "TASK_KILLED"
    assert not table.loc["cmd", "live"]
    assert pd.isna(table.loc["cmd", "image"])


def test_the_tasks_that_a_reset_of_a_slave_would_lose() -> None:
    assert list(tasks_table(LEADER, slave_id=S1).query("live")["id"]) == ["sleeper", "fixedmaster"]
    lost = tasks_table(LEADER, slave_id=S0).query("live")
    assert lost.empty
    assert types(lost) == dict(TASKS)


def test_orphans_after_a_failover() -> None:
    tasks = tasks_table(AFTER_FAILOVER).set_index("id")
    assert tasks.loc["fixedmaster", "orphan"]
    assert not tasks.loc["sleeper", "orphan"]
    frameworks = frameworks_table(AFTER_FAILOVER).set_index("status")
    assert frameworks.loc["unregistered", "id"] == tasks.loc["fixedmaster", "framework_id"]
    assert frameworks.loc["unregistered", "tasks"] == 1
    assert slaves_table(AFTER_FAILOVER)["tasks"].sum() == 2


def test_frameworks() -> None:
    table = frameworks_table(ONE_NODE).set_index("name")
    assert table.loc["probe", "status"] == "active"
    assert table.loc["probe", "failover_timeout"] == 60
    assert table.loc["probe", "tasks"] == 1
    assert pd.isna(table.loc["probe", "unregistered"])
    ended = frameworks_table(LEADER).query("status == 'completed'")
    assert len(ended) == 3
    assert ended["unregistered"].notna().all()


def test_a_framework_of_later_versions() -> None:
    framework = ONE_NODE["frameworks"][0]
    later = {key: value for key, value in framework.items() if key != "role"} | {
        "roles": ["web", "batch"],
        "active": False,
        "unreachable_tasks": [framework["tasks"][0] | {"id": "away", "state": "TASK_UNREACHABLE"}],
    }
    state = ONE_NODE | {"frameworks": [later]}
    del state["orphan_tasks"], state["unregistered_frameworks"]
    assert frameworks_table(state).iloc[0][["role", "status"]].to_list() == ["web, batch", "inactive"]
    assert "away" in list(tasks_table(state).query("live")["id"])


def test_resources_of_the_cluster_agree_with_its_metrics() -> None:
    table = resources_table(LEADER).set_index("resource")
    metrics = payload("three-masters/leader_metrics_snapshot.json")
    for name in ("cpus", "mem", "disk"):
        assert table.loc[name, "total"] == metrics[f"master/{name}_total"]
        assert table.loc[name, "used"] == pytest.approx(metrics[f"master/{name}_used"])
        assert table.loc[name, "used_share"] == pytest.approx(metrics[f"master/{name}_percent"])
    assert table.loc["ports", ["total", "used", "free"]].to_list() == [1402, 2, 1400]


def test_inactive_slaves_offer_nothing() -> None:
    slaves = [LEADER["slaves"][0] | {"active": False}, LEADER["slaves"][1]]
    assert resources_table(LEADER | {"slaves": slaves}).set_index("resource").loc["cpus", "total"] == 2
    assert resources_table(EMPTY)["used_share"].isna().all()


def test_metrics_worth_reading_are_metrics_of_a_real_leader() -> None:
    metrics = payload("three-masters/leader_metrics_snapshot.json")
    assert metrics.keys() >= WORTH_READING.keys()
    table = metrics_table(metrics).set_index("metric")
    assert table.loc["registrar/registry_size_bytes", "value"] == 443
    assert table["value"].notna().all()


def test_metrics_that_a_standby_does_not_know_are_nan_and_everything_is_everything() -> None:
    metrics = payload("three-masters/nonleader1_metrics_snapshot.json")
    table = metrics_table(metrics).set_index("metric")
    assert pd.isna(table.loc["registrar/registry_size_bytes", "value"])
    everything = metrics_table(metrics, everything=True)
    assert set(everything["metric"]) == metrics.keys() | WORTH_READING.keys()
    assert everything["metric"].is_unique


def test_masters() -> None:
    views = {
        "m0": MasterView.of(LEADER, payload("three-masters/leader_metrics_snapshot.json")),
        "m1": MasterView.of(EMPTY),
        "m2": EndpointUnreachable("nobody there", "start it"),
    }
    table = masters_table(views, election()).set_index("master")
    assert list(table["answers"]) == [True, True, False]
    assert table.loc["m0", "znode"] == "json.info_0000000001"
    assert list(table["leads"][:2]) == [True, False]
    assert table.loc["m1", "names"] == "127.0.0.1:15050"
    assert table.loc["m0", "uptime"] == pd.Timedelta(seconds=177.625647)
    assert table.loc["m0", "elected"] == pd.Timestamp("2026-11-24T19:45:56.781110Z")
    assert table.loc["m1", "log_replica"]
    assert table.loc["m2", "problem"] == "nobody there"
    assert pd.isna(table.loc["m2", "leads"])


def test_a_busy_cluster_with_docker_tasks() -> None:
    """As recorded under all nine chapters: Docker tasks with and without ports, slaves that were removed."""
    state = payload("nine-chapters/leader_state.json")
    tasks = tasks_table(state)
    live = tasks.query("live")
    assert live["name"].value_counts().to_dict() == {"hello": 4, "centos-marathon": 3, "mysql": 1}
    images = live.dropna(subset="image").groupby("name")["image"].unique().map(list).to_dict()
    assert images == {"centos-marathon": ["lab/userland:1"], "mysql": ["lab/mariadb:10.11"]}
    assert live["host"].notna().all()
    gone = tasks[~tasks["slave_id"].isin([slave["id"] for slave in state["slaves"]])]
    assert not gone["live"].any()
    assert gone["host"].isna().all()
    slaves = slaves_table(state).set_index("host")
    assert slaves["tasks"].to_dict() == {"198.51.100.11": 3, "198.51.100.12": 3, "198.51.100.13": 2}
    assert slaves.loc["198.51.100.11", "ports_used"] == "[8645-8645, 8673-8673, 8920-8920]"
    assert frameworks_table(state).query("status == 'active'")["name"].tolist() == ["marathon"]
    standby = payload("nine-chapters/standby_state.json")
    assert len(slaves_table(standby)) == len(tasks_table(standby)) == len(frameworks_table(standby)) == 0
