"""6.3 before a deployment: what would keep MySQL from starting, by what real Mesos 0.28.0 answered of a slave."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
from marathon_answers import in_11, task
from mesos_payloads import payload
from mysql_site import site

from runbook.errors import EndpointUnreachable, HostUnreachable
from runbook.services.mesos.tables import slaves_table
from runbook.services.mysql.app import mysql_app
from runbook.services.mysql.conditions import Seen, evidence, judge
from runbook.services.mysql.host import Container, DataHost
from runbook.services.overview.preflight import State
from runbook.site import MySqlParameters, Site

ADDRESS = "198.51.100.12"
FLAGS = {"containerizers": "docker,mesos", "docker_stop_timeout": "30secs"}
CONTAINER = Container(
    id="771b0ba79c3d0000",
    name="mesos-S4.fd",
    image="mysql:5.7.13",
    running=True,
    exit_code=0,
    out_of_memory=False,
    started="2016-08-03T07:32:16Z",
    finished="",
    ports=(8500,),
    volumes=("/opt/mysql",),
    task="mysql.1",
    app="/mysql",
)


def slaves(**resources: Any) -> Any:
    """The recorded slave, on the data's host, with nothing used, and with other resources."""
    state = copy.deepcopy(payload("one-node/master_state.json"))
    (slave,) = state["slaves"]
    slave["hostname"] = ADDRESS
    slave["resources"] = {"cpus": 2, "mem": 4096, "disk": 9999, "ports": "[8401-8599, 8601-9100]", **resources}
    slave["used_resources"] = {"cpus": 0, "mem": 0, "disk": 0}
    return slaves_table(state)


def seen(**fields: Any) -> Seen:
    """A host on which all is well, before the first deployment."""
    host = DataHost(docker=True, image=True, folder="empty")
    return replace(Seen(host, slaves(), FLAGS, ()), **fields)


def found(name: str, there: Seen, wanted: Site | None = None) -> tuple[State, str, str]:
    """One condition."""
    (one,) = (one for one in judge(wanted or site(), there) if one.name == name)
    return one.state, one.found, one.remedy


def otherwise(**fields: Any) -> Site:
    """A site whose parameters no file may have: `site.py` refuses them."""
    demo = site()
    return demo.model_copy(update={"mysql": demo.mysql.model_copy(update=fields)})


def deployed(**fields: Any) -> Seen:
    """The same with the app deployed and its server running; the slave's resources are all but used by it."""
    there = seen(host=DataHost(docker=True, image=True, folder="initialised", database=True, containers=(CONTAINER,)))
    full = slaves()
    full.loc[0, ["cpus_free", "mem_free", "ports_free"]] = [0.1, 100.0, "[8401-8499, 8501-8599]"]
    running = task(1, app="/mysql", host=ADDRESS, slaveId=full.loc[0, "id"], ports=[8500])
    app = in_11(mysql_app(site()), tasks=[running])
    return replace(there, slaves=full, apps=[app], **fields)


def test_where_all_is_well_it_holds() -> None:
    judged = evidence(site(), seen())
    assert judged.holds
    assert judged.text == "nothing keeps it from starting on node2"
    assert judged.table is not None
    assert all(judged.table["found"].str.startswith("✓"))


def test_what_runs_already_is_not_in_its_own_way() -> None:
    judged = evidence(site(), deployed())
    assert judged.holds, judged.text
    fixed = evidence(site("host_port: 8500"), deployed())
    assert fixed.holds, fixed.text


def test_too_little_memory() -> None:
    assert found("memory", seen(), otherwise(mem=128.0))[:2] == (State.PROBLEM, "128 MB: it does not start")
    assert found("memory", seen(), site("mem: 256"))[0] is State.WARNING
    assert found("memory", seen())[:2] == (State.OK, "1024 MB")


def test_a_fixed_port() -> None:
    assert found("port on the host", seen())[0] is State.OK
    state, text, remedy = found("port on the host", seen(), site("host_port: 8500"))
    assert (state, remedy) == (State.WARNING, "set mysql.host_port: 0")
    assert "one instance a host" in text


def test_a_fixed_port_that_the_slave_does_not_offer() -> None:
    """By the real offer: the parameters say that it should."""
    there = seen(slaves=slaves(ports="[31000-32000]"))
    state, text, _ = found("port on the host", there, site("host_port: 8500"))
    assert state is State.PROBLEM
    assert text == "8500 is not among the ports that the slave offers: [31000-32000]"


def test_a_fixed_port_for_two() -> None:
    state, text, _ = found("port on the host", seen(), otherwise(host_port=8500, instances=2))
    assert (state, text) == (State.PROBLEM, "8500 for 2 instances on one host")


def test_a_fixed_port_in_use() -> None:
    there = seen(slaves=slaves())
    assert there.slaves is not None
    there.slaves.loc[0, "ports_free"] = "[8401-8499, 8501-8599]"
    state, text, _ = found("port on the host", there, site("host_port: 8500"))
    assert (state, text) == (State.PROBLEM, "8500 is in use by another task")


def test_two_instances_on_one_folder() -> None:
    state, text, _ = found("one server a folder", seen(), otherwise(instances=2))
    assert (state, text) == (State.PROBLEM, "2 instances on /opt/mysql")


@pytest.mark.parametrize("folder", ["/opt/mysql", "/opt", "/opt/mysql/BucketList"])
def test_another_app_on_the_same_folder(folder: str) -> None:
    other = {**mysql_app(site()), "id": "old-mysql"}
    other["container"] = {**other["container"], "volumes": [{"containerPath": "/x", "hostPath": folder, "mode": "RW"}]}
    state, text, _ = found("one server a folder", seen(apps=[in_11(other)]))
    assert state is State.PROBLEM
    assert text.startswith("/old-mysql has /opt/mysql as well")


def test_an_app_that_only_reads_the_folder_or_never_comes_to_its_host_is_no_conflict() -> None:
    """A monitor of containers, as cAdvisor, has the whole of each host, read-only."""
    app = mysql_app(site())
    reads = {**app, "id": "cadvisor", "constraints": [["hostname", "UNIQUE"]]}
    reads["container"] = {**app["container"], "volumes": [{"containerPath": "/x", "hostPath": "/", "mode": "RO"}]}
    elsewhere = {**app, "id": "old-mysql", "constraints": [["hostname", "CLUSTER", "198.51.100.13"]]}
    assert found("one server a folder", seen(apps=[in_11(reads), in_11(elsewhere)]))[0] is State.OK
    written = {**reads, "container": {**app["container"], "volumes": [{"containerPath": "/x", "hostPath": "/"}]}}
    assert found("one server a folder", seen(apps=[in_11(written)]))[0] is State.PROBLEM


def test_while_marathon_does_not_answer_nobody_can_tell_who_has_the_folder() -> None:
    assert found("one server a folder", seen(apps=None))[0] is State.UNKNOWN
    assert found("the data stays", seen(apps=None))[0] is State.UNKNOWN


def test_a_neighbouring_folder_is_no_conflict() -> None:
    other = {**mysql_app(site("volume: /opt/mysql2")), "id": "other"}
    assert found("one server a folder", seen(apps=[in_11(other)]))[0] is State.OK


@pytest.mark.parametrize(
    "stranger", [replace(CONTAINER, app="", task="", name="by-hand"), replace(CONTAINER, task="mysql.0")]
)
def test_a_container_on_the_folder_that_marathon_does_not_know(stranger: Container) -> None:
    there = deployed()
    host = replace(there.host, containers=(*there.host.containers, stranger))
    state, text, remedy = found("one server a folder", replace(there, host=host))
    assert state is State.PROBLEM
    assert "Marathon knows nothing of it" in text
    assert "docker stop" in remedy


def test_what_the_data_folder_holds() -> None:
    def folder(holds: str) -> tuple[State, str, str]:
        return found("data folder", seen(host=DataHost(docker=True, image=True, folder=holds)))

    assert folder("absent")[0] is folder("empty")[0] is folder("initialised")[0] is State.OK
    assert "stay as they are" in folder("initialised")[1]
    assert folder("foreign")[0] is State.PROBLEM


def test_the_data_goes_along_with_no_change_of_host_or_folder() -> None:
    """What runs now has its data on node2 in /opt/mysql."""
    there = deployed()
    assert found("the data stays", there)[0] is State.OK
    assert found("the data stays", seen())[0] is State.OK
    new = replace(there, host=DataHost(docker=True, image=True, folder="empty"))
    state, text, _ = found("the data stays", new, site("volume: /data/mysql"))
    assert state is State.PROBLEM
    assert text == (
        "the data is at 198.51.100.12:/opt/mysql, and the server would start empty at 198.51.100.12:/data/mysql"
    )
    moved = otherwise(host="node1")
    assert found("the data stays", new, moved)[0] is State.PROBLEM
    copied = replace(there, host=DataHost(docker=True, image=True, folder="initialised", database=True))
    assert found("the data stays", copied, moved)[0] is State.WARNING


def test_the_documents_own_app_would_lose_what_is_in_its_container() -> None:
    """The document's mysql.json (6.2) has no volume and no constraint."""
    there = deployed()
    assert there.apps is not None
    (present,) = there.apps
    del present["container"]["volumes"]
    present["constraints"] = []
    empty = replace(there, host=DataHost(docker=True, image=True, folder="empty"))
    state, text, remedy = found("the data stays", empty)
    assert state is State.PROBLEM
    assert text == (
        "the data is in the container that runs, and ends with it; the server would start empty at "
        "198.51.100.12:/opt/mysql"
    )
    assert remedy.startswith("dump it (mysqldump --all-databases)")
    state, text, _ = found("the data stays", there)
    assert (state, text) == (
        State.WARNING,
        "it moves from what is in its container to the data at 198.51.100.12:/opt/mysql",
    )


def test_another_version_on_the_same_data_is_worth_knowing() -> None:
    there = deployed()
    assert there.apps is not None
    (present,) = there.apps
    present["container"]["docker"]["image"] = "mysql:5.6"
    state, text, remedy = found("the data stays", there)
    assert state is State.WARNING
    assert text == "mysql:5.7.13 takes over what mysql:5.6 wrote, and there may be no way back"
    assert "backup" in remedy


def test_data_without_the_database_is_told_and_does_not_stop() -> None:
    there = seen(host=DataHost(docker=True, image=True, folder="initialised"))
    state, text, remedy = found("database", there)
    assert (state, text) == (State.WARNING, "the data has no BucketList, and the image makes none any more")
    assert remedy.startswith("once the server runs: CREATE DATABASE BucketList")
    judged = evidence(site(), there)
    assert judged.holds
    assert judged.text.endswith("; worth knowing: database")


def test_no_docker_or_no_image() -> None:
    assert found("image", seen(host=DataHost())) == (
        State.UNKNOWN,
        "unknown: no Docker answers",
        "chapter 5 installs it",
    )
    assert not evidence(site(), seen(host=DataHost())).tried
    state, text, remedy = found("image", seen(host=DataHost(docker=True)))
    assert (state, remedy) == (State.PROBLEM, "6.1 loads it")
    assert "mysql:5.7.13 is not there" in text


def test_no_room_on_the_datas_host() -> None:
    state, text, remedy = found("slave", seen(slaves=slaves(mem=512)))
    assert (state, text) == (State.PROBLEM, "mem: 1024 wanted, 512 of 512 free")
    assert "the data ties it there" in remedy


def test_a_slave_under_another_hostname_is_not_found() -> None:
    there = slaves()
    there["host"] = "node2.example.org"
    state, text, remedy = found("slave", seen(slaves=there))
    assert (state, text) == (State.PROBLEM, "the slave of node2 is not registered as 198.51.100.12")
    assert "2.2.4" in remedy


def test_a_slave_without_docker() -> None:
    recorded = payload("three-masters/slave1_state.json")["flags"]
    assert recorded.get("containerizers", "mesos") == "mesos"
    state, _, remedy = found("runs Docker tasks", seen(flags=recorded))
    assert (state, remedy) == (State.PROBLEM, "chapter 5 gives the slave docker,mesos")


def test_an_end_that_is_a_kill_is_worth_knowing() -> None:
    recorded = payload("one-node/slave_state.json")["flags"]
    state, text, _ = found("how tasks are ended", seen(flags=recorded))
    assert state is State.WARNING
    assert "docker_stop_timeout=0ns" in text


def test_before_a_first_rollout_nothing_is_known_and_nothing_fails_for_it() -> None:
    away = EndpointUnreachable("no master leads", "start the masters")
    host = DataHost(problem=HostUnreachable("node2: no route"))
    judged = evidence(site(), Seen(host, unknown=(away,)))
    assert not judged.holds
    assert not judged.tried
    assert "no master leads" in judged.text
    assert judged.remedy == "start the masters"


def test_the_defaults_are_well() -> None:
    assert MySqlParameters().mem == 1024
    assert MySqlParameters().host_port == 0
