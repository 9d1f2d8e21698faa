"""Where the server runs and whether clients agree, judged from what Marathon, Docker and clients said."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd
import pytest
from marathon_answers import task
from mysql_site import site
from test_mysql_conditions import CONTAINER

from runbook.errors import EndpointUnreachable, HostUnreachable, LoginRefused, NotFound, NotReady, RunbookError
from runbook.services.marathon import tasks_table
from runbook.services.mysql.checks import Client, Placement, agreement, placed
from runbook.services.mysql.client import Catalog
from runbook.services.mysql.host import DataHost

PLACE = Placement("mysql.1", "node2", "198.51.100.12", 8500, "healthy")
SEEN = DataHost(docker=True, image=True, folder="initialised", containers=(CONTAINER,))


def tasks(*answered: dict[str, object]) -> pd.DataFrame:
    """As `tasks_of` gives them: with hosts' names."""
    return tasks_table(answered).assign(host=lambda frame: frame["host"].replace({"198.51.100.12": "node2"}))


# where it runs


def test_the_newest_task_that_runs_is_the_server() -> None:
    old = task(1, app="/mysql", host="198.51.100.12", startedAt="2016-05-31T07:00:00.000Z")
    new = task(2, app="/mysql", host="198.51.100.12")
    staged = task(3, app="/mysql", host="198.51.100.12", startedAt=None)
    place = Placement.of(site(), tasks(new, old, staged))
    assert place == Placement("mysql.2", "node2", "198.51.100.12", 9002, "running")
    server = place.server(site())
    assert (server.host, server.port, server.name) == ("198.51.100.12", 9002, "/mysql")


def test_no_task_is_not_ready() -> None:
    with pytest.raises(NotReady, match=r"no task of /mysql runs\n"):
        Placement.of(site(), tasks())
    lost = task(2, app="/mysql", state="TASK_LOST")  # as later Marathons list it for a while
    with pytest.raises(NotReady, match=r"no task of /mysql runs: mysql\.1 is staging, mysql\.2 is lost"):
        Placement.of(site(), tasks(task(1, app="/mysql", startedAt=None), lost))


def test_it_runs_where_its_data_is() -> None:
    evidence = placed(site(), PLACE, SEEN)
    assert evidence.holds
    assert evidence.text.startswith("container 771b0ba79c3d on node2, port 8500, running since")
    assert evidence.table is not None
    assert evidence.table.loc[0, "ports by docker ps"] == "8500->3306"


@pytest.mark.parametrize(
    ("place", "container", "told"),
    [
        (replace(PLACE, port=8501), CONTAINER, "Marathon names the port 8501, and the container has 8500->3306"),
        (replace(PLACE, host="node1"), CONTAINER, "it runs on node1, and its data is on node2"),
        (PLACE, replace(CONTAINER, running=False, exit_code=1), "its container 771b0ba79c3d ended with 1"),
        (replace(PLACE, state="unhealthy"), CONTAINER, "its health check fails"),
        (replace(PLACE, state="running"), CONTAINER, "not known to be healthy"),
    ],
)
def test_what_is_wrong_of_it_is_told(place: Placement, container: object, told: str) -> None:
    evidence = placed(site(), place, replace(SEEN, containers=(container,)))  # type: ignore[arg-type]
    assert not evidence.holds
    assert told in evidence.text


def test_a_task_without_container_or_a_host_that_is_away() -> None:
    with pytest.raises(NotFound, match=r"no container of the task mysql\.1"):
        placed(site(), PLACE, replace(SEEN, containers=()))
    away = placed(site(), PLACE, DataHost(problem=HostUnreachable("node2: no route")))
    assert not away.holds
    assert not away.tried


# whether clients agree

ALL = Catalog("10.11.6", ("BucketList", "mysql", "sys"), {"mysql": ("user", "db"), "BucketList": ()})
MINE = Catalog("10.11.6", ("BucketList",), {"BucketList": ()})


def clients(
    root: Catalog | RunbookError = ALL, user: Catalog | RunbookError = MINE, inside: Catalog | RunbookError = ALL
) -> dict[str, Client]:
    return {
        "root, from here": Client("PyMySQL", "root", root),
        "test, from here": Client("PyMySQL", "test", user),
        "root, in the container": Client("docker exec", "root", inside),
    }


def test_clients_agree() -> None:
    evidence = agreement(site(), clients())
    assert evidence.holds
    assert evidence.text == "3 clients are let in and see BucketList on 10.11.6"
    assert evidence.table is not None
    assert list(evidence.table["BucketList"]) == ["✓ no tables"] * 3


def test_the_documents_own_output_does_not_hold() -> None:
    """Its `show databases` lacks BucketList, because of MYSQL_DB."""
    shown = Catalog("5.7.13", ("information_schema", "mysql", "performance_schema", "sys"), {"mysql": ("user",)})
    evidence = agreement(site(), clients(root=shown, user=Catalog("5.7.13", ("information_schema",)), inside=shown))
    assert not evidence.holds
    assert evidence.hopeless
    assert "BucketList is not shown to root, from here, test, from here" in evidence.text
    assert "MYSQL_DATABASE" in str(evidence.remedy)


def test_two_servers_are_told_apart() -> None:
    other = replace(ALL, tables={**ALL.tables, "BucketList": ("bucket",)})
    evidence = agreement(site(), clients(inside=other))
    assert not evidence.holds
    assert "is it one server" in evidence.text


def test_a_refused_password_is_evidence_with_its_remedy() -> None:
    refused = LoginRefused("/mysql, as test: Access denied (1045)", "ALTER USER")
    evidence = agreement(site(), clients(user=refused))
    assert not evidence.holds
    assert evidence.tried
    assert evidence.hopeless  # waiting changes no password
    assert (evidence.text, evidence.remedy) == ("test, from here: /mysql, as test: Access denied (1045)", "ALTER USER")


def test_where_nobody_listens_nothing_was_tried() -> None:
    away = EndpointUnreachable("/mysql: Connection refused", "see that it runs")
    assert not agreement(site(), clients(away, away, away)).tried
    assert agreement(site(), clients(root=away)).tried
