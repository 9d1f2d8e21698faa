"""What members say, what follows for the ensemble, and the steps that make one."""

from __future__ import annotations

import base64
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace

import pytest
from zookeeper_payloads import said, site

from runbook.errors import (
    ConnectionCut,
    EndpointTimeout,
    EndpointUnreachable,
    NotReady,
    StepFailed,
    UnexpectedAnswer,
)
from runbook.remote.steps import sha256
from runbook.services.zookeeper import connection_file, identity, service, settings
from runbook.services.zookeeper_config import ZooCfg
from runbook.services.zookeeper_ensemble import (
    Answer,
    Ensemble,
    Member,
    four_letter_word,
    parse_mntr,
    parse_srvr,
    session,
)

# what members say


def test_srvr_is_read_in_the_format_of_3_4_6() -> None:
    assert parse_srvr(said("zookeeper-3.4.6/leader.srvr.txt")) == Answer(
        version="3.4.6-1569965",
        mode="leader",
        zxid=0x110A7A8F37,
        connections=81,
        znodes=306,
        latency=(0, 1, 10),
    )


def test_srvr_is_read_in_the_format_of_3_8() -> None:
    answer = parse_srvr(said("zookeeper-3.8/leader.srvr.txt"))
    assert (answer.mode, answer.zxid, answer.epoch, answer.znodes) == ("leader", 0x100000000, 1, 5)
    assert parse_srvr(said("zookeeper-3.8/follower.srvr.txt")).mode == "follower"
    assert parse_srvr(said("zookeeper-3.8/standalone.srvr.txt")).mode == "standalone"


@pytest.mark.parametrize("version", ["3.4.6", "3.8"])
def test_stat_is_srvr_with_clients(version: str) -> None:
    answer = parse_srvr(said(f"zookeeper-{version}/standalone.stat.txt"))
    assert (answer.mode, answer.connections) == ("standalone", 2 if version == "3.4.6" else 1)


@pytest.mark.parametrize("text", ["", "HTTP/1.1 400 Bad Request\r\n\r\n", "Mode: leader\n", "Zxid: nonsense\n"])
def test_what_is_no_answer_of_zookeeper_is_refused(text: str) -> None:
    with pytest.raises(UnexpectedAnswer, match="not an answer of ZooKeeper"):
        parse_srvr(text)


@pytest.mark.parametrize("version", ["3.4.6", "3.8"])
def test_mntr_tells_how_many_followers_are_in_sync(version: str) -> None:
    monitored = parse_mntr(said(f"zookeeper-{version}/leader.mntr.txt"))
    assert monitored["server_state"] == "leader"
    assert (monitored["followers"], monitored["synced_followers"]) == ("2", "2")


@contextmanager
def answering(reply: bytes | None, *, reset: bool = False) -> Iterator[int]:
    """The port of something that reads four bytes, says `reply` and closes; None: it says nothing and stays."""
    ended = threading.Event()

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(4)
            if reset:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            elif reply is None:
                ended.wait(10)
            else:
                connection.sendall(reply)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            ended.set()
            thread.join(5)
            assert not thread.is_alive()


def test_a_four_letter_word_is_answered() -> None:
    with answering(b"imok") as port:
        assert four_letter_word("127.0.0.1", port, "ruok") == "imok"


@pytest.mark.parametrize(
    ("reply", "error", "remedy"),
    [
        (said("zookeeper-3.8/alone-of-three.srvr.txt").encode(), NotReady, "majority"),
        (
            b"mntr is not executed because it is not in the whitelist.\n",
            UnexpectedAnswer,
            "4lw.commands.whitelist=srvr,ruok,mntr",
        ),
        (b"", ConnectionCut, "log"),
        (None, EndpointTimeout, "network"),
    ],
)
def test_every_way_not_to_answer_has_a_name_and_a_remedy(
    reply: bytes | None, error: type[Exception], remedy: str
) -> None:
    with answering(reply) as port, pytest.raises(error, match=f"(?s)127.0.0.1:{port}.*remedy.*{remedy}"):
        four_letter_word("127.0.0.1", port, "mntr", timeout=0.2)


def test_an_answer_that_drips_does_not_outlast_the_timeout() -> None:
    ended = threading.Event()

    def serve() -> None:
        connection, _ = listener.accept()
        with connection, suppress(ConnectionError):  # whoever asked has gone
            while not ended.wait(0.05):
                connection.sendall(b"x")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        began = time.monotonic()
        try:
            with pytest.raises(EndpointTimeout, match=r"did not answer `mntr` within 0\.4 s"):
                four_letter_word("127.0.0.1", listener.getsockname()[1], "mntr", timeout=0.4)
        finally:
            ended.set()
            thread.join(5)
    assert time.monotonic() - began < 20  # it would go on for ever


def test_a_connection_that_is_reset_is_told() -> None:
    with answering(b"", reset=True) as port, pytest.raises(ConnectionCut, match="cut the connection"):
        four_letter_word("127.0.0.1", port, "srvr")


def test_nobody_listening_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(EndpointUnreachable, match="does not listen"):
        four_letter_word("127.0.0.1", port, "srvr")


# what follows for the ensemble


def answer(mode: str, znodes: int = 5) -> Answer:
    return Answer("3.4.6", mode, 1 << 32, 1, znodes, (0, 0, 0))


def ensemble(*modes: str, synced: int | None = None, znodes: int = 5) -> Ensemble:
    """Members node1, node2, … in these modes; of a leader all followers are in sync unless `synced` says otherwise."""
    following = modes.count("follower")
    members = []
    for number, mode in enumerate(modes, start=1):
        name = f"node{number}"
        if mode in ("no answer", "not serving"):
            members.append(Member(name, runs=mode == "not serving", problem=f"{name} does not"))
        elif mode == "leader":
            in_sync = following if synced is None else synced
            members.append(Member(name, answer(mode, znodes), followers=following, synced=in_sync))
        else:
            members.append(Member(name, answer(mode, znodes)))
    return Ensemble(tuple(members))


def test_a_member_shows_its_mode_and_else_whether_it_runs() -> None:
    modes = ["leader", "follower", "not serving", "no answer"]
    assert [member.mode for member in ensemble(*modes).members] == modes


def test_a_majority_is_of_all_members_running_or_not() -> None:
    assert [ensemble(*["no answer"] * count).majority for count in (1, 2, 3, 4, 5)] == [1, 2, 2, 3, 3]


@pytest.mark.parametrize(
    ("modes", "synced", "holds"),
    [
        (("leader", "follower", "follower"), 2, True),
        (("leader", "follower", "follower"), 1, False),
        (("leader", "follower", "no answer"), 1, True),
        (("follower", "follower", "no answer"), None, False),
        (("leader", "leader", "follower"), 1, False),
        (("standalone", "standalone", "standalone"), None, False),
        (("standalone",), None, True),
        (("not serving",), None, False),
    ],
)
def test_one_leader_has_its_followers_in_sync(modes: tuple[str, ...], synced: int | None, holds: bool) -> None:
    assert ensemble(*modes, synced=synced).led().holds is holds


def test_a_leader_that_may_not_be_asked_for_its_followers_says_so() -> None:
    members = (Member("node1", answer("leader"), problem="mntr is not allowed"), Member("node2", answer("follower")))
    evidence = Ensemble(members).led()
    assert not evidence.holds
    assert "mntr is not allowed" in evidence.text


def test_every_member_must_serve_and_those_that_do_not_are_named() -> None:
    assert ensemble("leader", "follower", "follower").complete().holds
    evidence = ensemble("leader", "not serving", "no answer").complete()
    assert not evidence.holds
    assert "node2: node2 does not; node3: node3 does not" in evidence.text


@pytest.mark.parametrize(
    ("modes", "synced", "host", "spared"),
    [
        # a follower and the leader of a whole ensemble
        (("leader", "follower", "follower"), 2, "node2", True),
        (("leader", "follower", "follower"), 2, "node1", True),
        # one is down, or lags: the others are all that there is
        (("leader", "follower", "no answer"), 1, "node2", False),
        (("leader", "follower", "no answer"), 1, "node1", False),
        (("leader", "follower", "follower"), 1, "node1", False),
        (("leader", "follower", "follower"), 1, "node2", False),
        # those that do not serve are not missed
        (("leader", "follower", "no answer"), 1, "node3", True),
        (("leader", "follower", "not serving"), 1, "node3", True),
        # nobody serves: there is nothing to lose, unless a leader is being elected
        (("not serving", "not serving", "not serving"), None, "node1", True),
        (("not serving", "no answer", "no answer"), None, "node1", True),
        (("follower", "follower", "not serving"), None, "node3", False),
        # five bear the absence of two
        (("leader", "follower", "follower", "follower", "no answer"), 3, "node2", True),
        (("leader", "follower", "follower", "no answer", "no answer"), 2, "node2", False),
        # one alone cannot be spared, and must be all the same
        (("standalone",), None, "node1", True),
    ],
)
def test_a_member_is_spared_only_where_a_quorum_is_left(
    modes: tuple[str, ...], synced: int | None, host: str, spared: bool
) -> None:
    evidence = ensemble(*modes, synced=synced).can_spare(host)
    assert evidence.holds is spared, evidence.text
    assert not evidence.hopeless


def test_members_that_ran_by_themselves_join_while_at_most_one_has_data() -> None:
    assert ensemble("standalone", "standalone", "no answer").can_spare("node1").holds
    one = Ensemble((Member("node1", answer("standalone", 300)), Member("node2", answer("standalone"))))
    assert one.can_spare("node1").holds
    # the empty one must not be restarted first: it would found an ensemble that forgets the other's data
    assert not one.can_spare("node2").holds
    two = ensemble("standalone", "standalone", znodes=300).can_spare("node1")
    assert two.hopeless
    assert "node1, node2 have data" in two.text


@pytest.mark.parametrize(
    ("modes", "host", "holds"),
    [
        # the first of three runs, and waits; with the second there must be a quorum
        (("not serving", "no answer", "no answer"), "node1", True),
        (("not serving", "not serving", "no answer"), "node2", False),
        (("follower", "leader", "no answer"), "node2", True),
        (("leader", "follower", "follower"), "node3", True),
        (("leader", "follower", "not serving"), "node3", False),
        (("leader", "follower", "no answer"), "node3", False),
        (("follower", "follower", "not serving"), "node1", False),
    ],
)
def test_a_restarted_member_is_back_once_it_does_its_part(modes: tuple[str, ...], host: str, holds: bool) -> None:
    assert ensemble(*modes).is_back(host).holds is holds


def grouped(*modes: str, cfg: str, observers: tuple[int, ...] = ()) -> Ensemble:
    """The same with numbers, observers and a zoo.cfg."""
    members = ensemble(*modes).members
    numbered = [replace(one, myid=n, votes=n not in observers) for n, one in enumerate(members, start=1)]
    return Ensemble(tuple(numbered), ZooCfg(cfg))


def test_observers_do_not_count_for_the_majority() -> None:
    watched = grouped("leader", "follower", "no answer", "observer", "observer", cfg="", observers=(4, 5))
    assert watched.majority == 2
    assert not watched.can_spare("node2").holds
    assert watched.can_spare("node4").holds
    assert watched.led().holds
    four = grouped("leader", "follower", "follower", "observer", cfg="", observers=(4,))
    assert four.can_spare("node1").holds  # of four voters, two would be too few
    lonely = grouped("not serving", "no answer", "no answer", "not serving", cfg="", observers=(4,))
    assert "1 of the 2 members" in lonely.is_back("node1").text


@pytest.mark.parametrize(
    ("cfg", "host", "spared"),
    [
        ("group.1=1:2:3\ngroup.2=4\ngroup.3=5\n", "node5", True),
        ("group.1=1:2:3\ngroup.2=4\ngroup.3=5\n", "node1", True),
        ("group.1=1:2\ngroup.2=3:4\ngroup.3=5\nweight.5=0\n", "node1", False),  # half of a group, and one of two
        ("group.1=1:2:3:4:5\nweight.1=9\n", "node1", False),  # which has most of the weight
        ("group.1=1:2:3:4:5\nweight.1=9\n", "node2", True),
    ],
)
def test_groups_say_who_can_be_spared(cfg: str, host: str, spared: bool) -> None:
    five = grouped("leader", "follower", "follower", "follower", "follower", cfg=cfg)
    evidence = five.can_spare(host)
    assert evidence.holds is spared, evidence.text
    assert "quorum of the groups in zoo.cfg" in evidence.text


def test_the_leader_comes_last_and_what_does_not_run_first() -> None:
    hosts = site(5).having("zookeeper")
    order = ensemble("follower", "leader", "no answer", "not serving", "follower").order(hosts)
    assert [host.name for host in order] == ["node3", "node4", "node1", "node5", "node2"]


def test_the_one_with_data_founds_the_ensemble() -> None:
    hosts = site(3).having("zookeeper")
    members = (
        Member("node1", runs=False),
        Member("node2", answer("standalone")),
        Member("node3", answer("standalone", 9)),
    )
    assert next(host.name for host in Ensemble(members).order(hosts)) == "node3"


def test_the_table_has_a_row_a_member_and_shows_problems_only_where_there_are_any() -> None:
    table = ensemble("leader", "follower", "no answer").table().frame
    assert list(table["host"]) == ["node1", "node2", "node3"]
    assert table.loc[0, ["mode", "epoch", "followers", "synced"]].tolist() == ["leader", 1, 1, 1]
    assert table["problem"].tolist() == ["", "", "node3 does not"]
    assert "problem" not in ensemble("leader", "follower").table().frame.columns


# steps


ZOO_CFG = """\
# as Hadoop's distribution wrote it
tickTime=2000
initLimit = 10
dataDir = /var/lib/zookeeper
clientPort: 2181
autopurge.purgeInterval=24
server.1=10.0.0.1:2888:3888
server.4=10.0.0.4:2888:3888
"""


def probed(content: str) -> str:
    """What the probe of `Lines` prints of a file with this content."""
    encoded = base64.b64encode(content.encode()).decode()
    digest = sha256(content.encode())
    return f"kind=file\nmode=644\nowner=root\ngroup=root\nsize={len(content)}\nsha256={digest}\ncontent={encoded}\n"


def test_zoo_cfg_gets_what_an_ensemble_needs_and_keeps_the_rest() -> None:
    step, _ = settings(site())
    change = step.plan(probed(ZOO_CFG))
    assert change is not None
    assert change.content is not None
    assert change.content.decode() == (
        "# as Hadoop's distribution wrote it\n"
        "tickTime=2000\n"
        "initLimit=10\n"
        "dataDir=/var/lib/zookeeper\n"
        "clientPort=2181\n"
        "autopurge.purgeInterval=24\n"
        "server.1=198.51.100.11:2888:3888\n"
        "syncLimit=5\n"
        "server.2=198.51.100.12:2888:3888\n"
        "server.3=198.51.100.13:2888:3888\n"
    )
    assert step.plan(probed(change.content.decode())) is None


def test_the_data_are_never_left_behind() -> None:
    step, _ = settings(site())
    with pytest.raises(StepFailed, match=r"(?s)dataDir=/hadoop/zookeeper.*set zookeeper.data_dir"):
        step.plan(probed(ZOO_CFG.replace("/var/lib/zookeeper", "/hadoop/zookeeper")))
    assert step.plan("kind=absent\n") is not None


def test_server_1_is_not_taken_for_server_10() -> None:
    step, _ = settings(site(11))
    change = step.plan(probed("server.10=old\nserver.1=old\n"))
    assert change is not None
    assert change.content is not None
    lines = change.content.decode().splitlines()
    assert lines[:2] == ["server.10=198.51.100.20:2888:3888", "server.1=198.51.100.11:2888:3888"]
    assert len([line for line in lines if line.startswith("server.")]) == 11


def test_only_root_and_zookeeper_may_write_what_it_reads() -> None:
    _, step = settings(site())
    assert step.plan("path=755 root /etc/zookeeper/conf\npath=755 zookeeper /var/lib/zookeeper\n") is None
    change = step.plan("path=666 zookeeper /etc/zookeeper/conf/zoo.cfg\npath=755 nobody /var/lib/zookeeper\n")
    assert change is not None
    assert change.diff == (
        "-/etc/zookeeper/conf/zoo.cfg: mode 666\n+/etc/zookeeper/conf/zoo.cfg: mode 644\n"
        "-/var/lib/zookeeper: owner nobody\n+/var/lib/zookeeper: owner root\n"
    )
    for path in ("/etc/zookeeper/conf", "/etc/zookeeper/conf/zoo.cfg", "/var/lib/zookeeper"):
        assert f" {path}" in step.probe()


def test_myid_goes_to_the_data_folder() -> None:
    third = site().having("zookeeper")[2]
    (step,) = identity(site(), third)
    assert step.label == "file /var/lib/zookeeper/myid"
    change = step.plan("kind=absent\n")
    assert change is not None
    assert change.content == b"3\n"


def test_the_connection_file_lists_all_members() -> None:
    change = connection_file(site())[1].plan("kind=absent\n")
    assert change is not None
    assert change.content == b"zk://198.51.100.11:2181,198.51.100.12:2181,198.51.100.13:2181/mesos\n"


def test_zookeeper_restarts_when_it_is_older_than_its_settings() -> None:
    step = service(site())
    assert step.restart_if_newer == ("/etc/zookeeper/conf/zoo.cfg", "/var/lib/zookeeper/myid")
    state = "pid=7\nticks=1000\nhertz=100\nuptime=1000\nnow=5000.0\nwatched={} /etc/zookeeper/conf/zoo.cfg\n"
    assert step.plan(state.format("4000.0")) is None  # started at 4010
    change = step.plan(state.format("4011.0"))
    assert change is not None
    assert change.actions == ("stop", "start")


# sessions


def test_where_no_member_listens_nobody_waits_for_a_session() -> None:
    with socket.socket() as deaf:  # bound, so that nobody else gets the port, and listening to nobody
        deaf.bind(("127.0.0.1", 0))
        members = f"127.0.0.1:{deaf.getsockname()[1]}"
        with pytest.raises(NotReady, match=f"ZooKeeper at {members}: no member listens"), session(members, timeout=600):
            pass
