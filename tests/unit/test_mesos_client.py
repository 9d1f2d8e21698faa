"""The clients against the answers of real masters and slaves, and against what later versions answer instead."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator

import pytest
from loopback import Loopback, Piece, Request, answer
from mesos_payloads import election, payload

from runbook.errors import EndpointUnreachable, NoLeader, NotReady, ServiceError, UnexpectedAnswer
from runbook.services.mesos import Election, Masters, MasterView, MesosMaster, MesosSlave

Answers = dict[str, bytes]


def master_answers(role: str, *, leader: str = "//localhost:15050") -> Answers:
    """What a recorded master answers; `leader` is where it redirects to."""
    return {
        "/master/state": answer(200, payload(f"three-masters/{role}_state.json")),
        "/metrics/snapshot": answer(200, payload(f"three-masters/{role}_metrics_snapshot.json")),
        "/version": answer(200, payload("three-masters/leader_version.json")),
        "/master/redirect": answer(307, Location=leader),
        "/master/flags": answer(200, payload("three-masters/leader_flags.json")),
    }


def serving(answers: Answers) -> Loopback:
    return Loopback(lambda request: [answers.get(request.target, answer(404))])


@contextlib.contextmanager
def master(answers: Answers) -> Iterator[MesosMaster]:
    with serving(answers) as server, MesosMaster(server.url, name="node1") as client:
        yield client


def test_the_state_of_a_leader() -> None:
    with master(master_answers("leader")) as client:
        assert client.state() == payload("three-masters/leader_state.json")
        assert client.leads()
        assert client.leader_address() == "localhost:15050"
        assert client.version()["version"] == "0.28.0"
        assert client.flags()["quorum"] == "2"


def test_a_standby_of_028_is_never_taken_for_an_empty_cluster() -> None:
    with master(master_answers("nonleader1")) as client:
        assert not client.leads()
        with pytest.raises(NoLeader, match=r"node1 does not lead, it names 127\.0\.0\.1:15050"):
            client.state()


def test_a_master_that_knows_no_leader() -> None:
    answers = {"/master/state": answer(200, payload("three-masters/nonleader_state_no-leader-known.json"))}
    with master(answers) as client, pytest.raises(NoLeader, match="node1 knows no leader") as caught:
        client.state()
    assert caught.value.remedy


def test_a_leader_that_is_named_but_not_yet_elected() -> None:
    state = payload("three-masters/leader_state.json")
    del state["elected_time"]
    with master({"/master/state": answer(200, state)}) as client, pytest.raises(NoLeader):
        client.state()


def test_a_former_leader_that_names_another_is_not_believed() -> None:
    state = payload("three-masters/leader_state.json") | {"leader": "master@127.0.0.1:15051"}
    with master({"/master/state": answer(200, state)}) as client, pytest.raises(NoLeader, match="15051"):
        client.state()


def test_the_views_of_028() -> None:
    with master(master_answers("leader")) as client:
        assert client.view() == MasterView.of(
            payload("three-masters/leader_state.json"), payload("three-masters/leader_metrics_snapshot.json")
        )
    with master(master_answers("nonleader1")) as client:
        view = client.view()
    assert (view.leader, view.elected, view.quorum) == ("127.0.0.1:15050", None, 2)


# from 1.0 on a standby redirects (domain-facts 3: 307 to the leader; 1.11 answers 503 without one)


def test_a_standby_of_1x_sends_the_question_to_the_leader() -> None:
    with serving(master_answers("leader")) as leader:
        answers = master_answers("nonleader1") | {
            "/master/state": answer(307, Location=f"//{leader.address}/master/state")
        }
        with master(answers) as client:
            assert client.state()["id"] == payload("three-masters/leader_state.json")["id"]
            view = client.view()
    assert (view.leader, view.elected, view.version) == (leader.address, None, "0.28.0")
    assert view.uptime is not None


def test_111_without_a_leader() -> None:
    answers = master_answers("nonleader1") | {"/master/state": answer(503, "No leader elected")}
    with master(answers) as client:
        with pytest.raises(NoLeader, match="No leader elected"):
            client.state()
        assert client.view().leader is None


def test_a_master_that_is_not_ready_for_another_reason() -> None:
    answers = master_answers("leader") | {"/master/state": answer(503, "Master has not finished recovery")}
    with master(answers) as client:
        for ask in (client.state, client.view):
            with pytest.raises(NotReady, match="has not finished recovery"):
                ask()


@pytest.mark.parametrize("body", ["{}", "[]", "null", '{"pid": "master@127.0.0.1:1"}'])
def test_json_of_something_else_is_not_a_state(body: str) -> None:
    with (
        master({"/master/state": answer(200, json.loads(body))}) as client,
        pytest.raises(UnexpectedAnswer, match="does not answer as Mesos does"),
    ):
        client.state()


# all masters of a site


@contextlib.contextmanager
def site(*replies: Callable[[list[Loopback]], Answers] | None) -> Iterator[tuple[Masters, list[Loopback]]]:
    """Masters m0, m1, …, each answering what its function makes of the servers; None is one that is down."""
    with contextlib.ExitStack() as stack:
        servers: list[Loopback] = []

        def reply_of(number: int) -> Callable[[Request], list[Piece]]:
            reply = replies[number]
            assert reply is not None
            return lambda request: [reply(servers).get(request.target, answer(404))]

        for number in range(len(replies)):
            servers.append(stack.enter_context(Loopback(reply_of(number) if replies[number] else lambda _: [])))
        masters = Masters(MesosMaster(server.url, name=f"m{number}") for number, server in enumerate(servers))
        yield stack.enter_context(masters), servers


def leader(servers: list[Loopback]) -> Answers:
    return master_answers("leader")


def standby(servers: list[Loopback]) -> Answers:
    return master_answers("nonleader1", leader=f"//{servers[-1].address}")


def test_the_leader_is_found_though_a_standby_is_asked_first() -> None:
    with site(None, standby, leader) as (masters, servers):
        found = masters.leader()
        assert found is masters.masters[2]
        assert masters.state()["slaves"]
    assert found.address == servers[2].address


def test_a_leader_that_is_not_among_the_masters_given_is_found_by_the_redirect() -> None:
    with (
        serving(master_answers("leader")) as elsewhere,
        site(lambda _: master_answers("nonleader1", leader=f"//{elsewhere.address}")) as (masters, _),
    ):
        assert masters.leader().address == elsewhere.address


def test_no_leader_says_what_each_master_said() -> None:
    with site(None, standby) as (masters, servers), pytest.raises(NoLeader) as caught:
        masters.state()
    assert "m0: mesos-master on m0" in caught.value.message
    assert f"m1 names {servers[1].address}, which does not lead" in caught.value.message


def test_no_masters_at_all() -> None:
    with pytest.raises(NoLeader, match="there are none"):
        Masters(()).leader()
    assert Masters(()).views() == {}


def test_views_of_all_hold_the_error_of_one() -> None:
    with site(leader, None, standby) as (masters, _):
        views = masters.views()
    assert list(views) == ["m0", "m1", "m2"]
    assert isinstance(views["m0"], MasterView)
    assert isinstance(views["m1"], ServiceError)


def test_the_leader_of_an_election() -> None:
    assert MesosMaster.leading(election()).endpoint.url == "http://127.0.0.1:15050"
    with pytest.raises(NoLeader, match="no master contends"):
        MesosMaster.leading(Election())


# slaves


def test_a_slave() -> None:
    answers = {
        "/slave(1)/state": answer(200, payload("three-masters/slave2_state.json")),
        "/slave(1)/flags": answer(200, payload("three-masters/slave2_flags.json")),
        "/monitor/statistics": answer(200, payload("three-masters/slave2_monitor_statistics.json")),
    }
    with serving(answers) as server, MesosSlave(server.url, name="node1") as slave:
        assert slave.state()["id"] == "03027f2a-2478-484b-971f-9994934aaeb6-S1"
        assert slave.flags()["resources"] == "ports:[8400-9100]"
        assert [row["executor_id"] for row in slave.statistics()] == ["sleeper", "fixedmaster"]


def test_a_slave_that_recovers_is_not_ready() -> None:
    answers = {"/slave(1)/state": answer(503, "Slave has not finished recovery")}
    with (
        serving(answers) as server,
        MesosSlave(server.url, name="node1") as slave,
        pytest.raises(NotReady, match=r"mesos-slave on node1.*has not finished recovery") as caught,
    ):
        slave.state()
    assert caught.value.remedy


def test_statistics_that_are_none() -> None:
    with (
        serving({"/monitor/statistics": answer(200, {})}) as server,
        MesosSlave(server.url) as slave,
        pytest.raises(UnexpectedAnswer, match="does not answer as Mesos does"),
    ):
        slave.statistics()


def test_a_slave_that_is_down_is_unreachable_and_named() -> None:
    with serving({}) as server:
        address = server.address
    with MesosSlave(f"http://{address}", name="node3") as slave, pytest.raises(EndpointUnreachable, match="node3"):
        slave.state()


# a real 0.28 under all nine chapters, with Docker tasks (nine-chapters/ of the recorded payloads)

ANSWERS = {entry["case"]: entry for entry in payload("nine-chapters/answers.json")}


def plain(case: str) -> bytes:
    """A recorded answer byte for byte; those in plain text have no Content-Type."""
    entry = ANSWERS[case]
    headers = "".join(f"{name}: {value}\r\n" for name, value in entry["headers"].items())
    return f"HTTP/1.1 {entry['status']} Recorded\r\n{headers}\r\n{entry['body']}".encode()


def test_a_busy_leader_and_its_standby() -> None:
    answers = {
        "/master/state": answer(200, payload("nine-chapters/leader_state.json")),
        "/master/redirect": plain("redirect at leader"),
        "/version": answer(200, payload("nine-chapters/leader_version.json")),
    }
    with master(answers) as client:
        assert len(client.state()["slaves"]) == 3
        assert client.leader_address() == "198.51.100.11:8150"
        assert client.version()["version"] == "0.28.0"
    answers = {
        "/master/state": answer(200, payload("nine-chapters/standby_state.json")),
        "/metrics/snapshot": answer(200, payload("three-masters/nonleader1_metrics_snapshot.json")),
        "/master/redirect": plain("redirect at standby"),
    }
    with master(answers) as client:
        with pytest.raises(NoLeader, match=r"node1 does not lead, it names 198\.51\.100\.11:8150"):
            client.state()
        view = client.view()
        assert (view.address, view.leader, view.elected) == ("198.51.100.12:8150", "198.51.100.11:8150", None)
        assert client.leader_address() == "198.51.100.11:8150"


def test_a_slave_with_docker_tasks_is_read_without_containers_which_0_28_has_not() -> None:
    answers = {
        "/slave(1)/state": answer(200, payload("nine-chapters/slave_state.json")),
        "/monitor/statistics": answer(200, payload("nine-chapters/slave_statistics.json")),
        "/containers": plain("unknown path"),
    }
    with serving(answers) as server, MesosSlave(server.url, name="node1") as slave:
        (framework,) = slave.state()["frameworks"]
        images = [
            task.get("container", {}).get("docker", {}).get("image")
            for executor in framework["executors"]
            for task in executor["tasks"]
        ]
        assert images == ["lab/mariadb:10.11", None, "lab/userland:1"]
        (row,) = slave.statistics()
        assert row["executor_id"].startswith("hello.")
        assert [request.target for request in server.requests] == ["/slave(1)/state", "/monitor/statistics"]


@pytest.mark.parametrize("case", [case for case, entry in ANSWERS.items() if entry["status"] >= 400])
def test_a_recorded_refusal_is_an_error_with_its_text(case: str) -> None:
    with master({"/master/state": plain(case)}) as client, pytest.raises(ServiceError) as caught:
        client.state()
    assert str(ANSWERS[case]["status"]) in caught.value.message
    assert ANSWERS[case]["body"].strip()[:40] in caught.value.message
