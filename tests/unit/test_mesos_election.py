"""Whether there is a leader that works, judged on what real masters and ZooKeeper said in good and in bad moments."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from kazoo.client import KazooClient
from kazoo.exceptions import NoNodeError
from mesos_payloads import election, payload, znodes

from runbook.errors import EndpointUnreachable, RunbookError, UnexpectedAnswer
from runbook.services.mesos import Election, Finding, MasterView, read_election, verdict, works
from runbook.services.mesos.election import LogReplica, MasterRecord

Views = dict[str, MasterView | RunbookError]

DOWN = EndpointUnreachable("http://127.0.0.1:15050: Connection refused", "see that the service runs")


def view(state: str, metrics: str | None = None) -> MasterView:
    return MasterView.of(
        payload(f"three-masters/{state}.json"), None if metrics is None else payload(f"three-masters/{metrics}.json")
    )


LEADER = view("leader_state", "leader_metrics_snapshot")
STANDBY = view("nonleader1_state", "nonleader1_metrics_snapshot")
OTHER_STANDBY = replace(STANDBY, address="127.0.0.1:15052")
HEALTHY: Views = {"m0": LEADER, "m1": STANDBY, "m2": OTHER_STANDBY}


def without(address: str) -> Election:
    """The recorded election once the sessions of that master have ended."""
    whole = election()
    return Election(
        tuple(record for record in whole.masters if record.address != address),
        tuple(replica for replica in whole.replicas if replica.address != address),
    )


def said(findings: list[Finding], severity: str = "broken") -> str:
    return "\n".join(finding.what for finding in findings if finding.severity == severity)


# znodes


def test_the_recorded_znodes() -> None:
    found = election()
    assert found.leader == MasterRecord(
        sequence=1,
        id="03027f2a-2478-484b-971f-9994934aaeb6",
        pid="master@127.0.0.1:15050",
        hostname="localhost",
        ip="127.0.0.1",
        port=15050,
        version="0.28.0",
    )
    assert [record.znode for record in found.masters] == [f"json.info_000000000{number}" for number in (1, 2, 3)]
    assert [replica.address for replica in found.replicas] == [f"127.0.0.1:1505{number}" for number in (0, 1, 2)]


def test_the_lowest_sequence_leads_whatever_the_order_of_the_children() -> None:
    children = dict(reversed(znodes("/mesos").items()))
    found = Election.parse(children | {"json.info_0000000000": children["json.info_0000000003"]}, {})
    assert found.leader is not None
    assert found.leader.address == "127.0.0.1:15052"


def test_the_ip_of_a_record_without_address_is_little_endian() -> None:
    info = json.loads(znodes("/mesos")["json.info_0000000001"])
    del info["address"]
    assert MasterRecord.parse("json.info_0000000001", json.dumps(info).encode()).address == "127.0.0.1:15050"
    info["ip"] = 198 + (51 << 8) + (100 << 16) + (11 << 24)
    assert MasterRecord.parse("json.info_0000000001", json.dumps(info).encode()).ip == "198.51.100.11"


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b"null", b'{"id": "x", "pid": "y", "ip": "z"}', b"\xff\x00"])
def test_a_node_that_holds_something_else_is_named(data: bytes) -> None:
    with pytest.raises(UnexpectedAnswer, match=r"json\.info_0000000007"):
        MasterRecord.parse("json.info_0000000007", data)


def test_what_is_no_log_replica_is_named() -> None:
    with pytest.raises(UnexpectedAnswer, match="log_replicas/0000000001"):
        LogReplica.parse("0000000001", b"\x08\x01")


class Znodes(KazooClient):  # type: ignore[misc]
    """The recorded znodes behind the two methods that reading an election needs; `gone` end between the two."""

    def __init__(self, gone: str = "") -> None:
        self.gone = gone

    def get_children(self, path: str, *_: Any) -> list[str]:
        if not path.startswith("/mesos"):
            raise NoNodeError
        return list(znodes(path))

    def get(self, path: str, *_: Any) -> tuple[bytes, None]:
        if path == self.gone:
            raise NoNodeError
        folder, _, name = path.rpartition("/")
        return znodes(folder)[name], None


def test_an_election_is_read_from_zookeeper() -> None:
    assert read_election(Znodes()) == election()


def test_a_master_that_ends_meanwhile_is_left_out() -> None:
    found = read_election(Znodes(gone="/mesos/json.info_0000000001"))
    assert [record.sequence for record in found.masters] == [2, 3]


def test_a_path_that_is_not_there_is_an_election_without_anybody() -> None:
    assert read_election(Znodes(), "/elsewhere") == Election()


# views


def test_the_view_of_a_real_leader() -> None:
    assert (
        MasterView(
            address="127.0.0.1:15050",
            hostname="localhost",
            version="0.28.0",
            leader="127.0.0.1:15050",
            elected=datetime(2026, 11, 24, 19, 45, 56, 781110, UTC),
            started=datetime(2026, 11, 24, 19, 45, 56, 9400, UTC),
            quorum=2,
            slaves=2,
            recovered=True,
            uptime=timedelta(seconds=177.625647104),
        )
        == LEADER
    )


def test_the_view_of_a_real_standby() -> None:
    assert (STANDBY.leader, STANDBY.elected, STANDBY.slaves, STANDBY.recovered) == ("127.0.0.1:15050", None, 0, False)


# verdicts


def test_nothing_speaks_against_three_healthy_masters() -> None:
    assert verdict(HEALTHY, election(), quorum=2, slaves=2) == []


def test_a_first_election_needs_no_slaves() -> None:
    assert verdict(HEALTHY | {"m0": replace(LEADER, slaves=0)}, election(), quorum=2) == []


def test_after_a_failover_the_cluster_works_and_the_dead_master_is_named() -> None:
    new = replace(view("leader_state_after-failover_orphan-task"), recovered=True)
    views: Views = {"m0": DOWN, "m1": new, "m2": replace(OTHER_STANDBY, leader=new.address)}
    findings = verdict(views, without("127.0.0.1:15050"), quorum=2, slaves=2)
    assert works(findings)
    assert "m0 does not answer" in said(findings, "degraded")
    assert "2 replicas are there for 3 masters" in said(findings, "degraded")
    assert findings[0].remedy == DOWN.remedy


def test_a_standby_that_still_names_the_dead_leader_does_not_pass() -> None:
    # zk-loss-timeline.log: so it was for 8 s after ZooKeeper's return
    views: Views = {"m0": DOWN, "m1": STANDBY, "m2": OTHER_STANDBY}
    findings = verdict(views, without("127.0.0.1:15050"), quorum=2)
    assert not works(findings)
    assert "127.0.0.1:15050 is named as leader, but json.info_0000000002 leads: 127.0.0.1:15051" in said(findings)


def test_a_lone_master_is_elected_but_does_not_work() -> None:
    # lone-master-timeline.log: state 200 with elected_time for 60 s, and then exit 134
    lone = replace(view("leader_state_elected-but-not-recovered"), recovered=False)
    alone = without("127.0.0.1:15051")
    alone = Election(alone.masters[:1], alone.replicas[:1])
    findings = verdict({"m0": lone, "m1": DOWN, "m2": DOWN}, alone, quorum=2, slaves=2)
    assert lone.elected is not None
    assert not works(findings)
    assert "1 replicas are there, and 2 are the quorum" in said(findings)
    assert "m0 is elected but has not recovered the registry" in said(findings)
    assert "none of 2 slaves is registered" in said(findings)


def test_a_leader_that_lost_its_quorum_does_not_work_though_all_it_says_is_well() -> None:
    # quorum-loss-timeline.log: it goes on answering until the next write
    remaining = Election(election().masters[:1], election().replicas[:1])
    findings = verdict({"m0": LEADER, "m1": DOWN, "m2": DOWN}, remaining, quorum=2, slaves=2)
    assert "it can be neither read nor written" in said(findings)


def test_no_leader_known() -> None:
    unaware = view("nonleader_state_no-leader-known")
    views: Views = {"m0": DOWN, "m1": replace(unaware, address="127.0.0.1:15051"), "m2": unaware}
    findings = verdict(views, Election(), quorum=2)
    assert "no master knows a leader" in said(findings)
    assert "no master contends in ZooKeeper" in said(findings)


def test_one_master_that_knows_no_leader_is_named() -> None:
    unaware = view("nonleader_state_no-leader-known")
    assert "m2 knows no leader while others do" in said(verdict(HEALTHY | {"m2": unaware}, election(), quorum=2))


def test_masters_that_disagree_are_named_with_what_they_believe() -> None:
    views = HEALTHY | {"m2": replace(OTHER_STANDBY, leader="127.0.0.1:15052")}
    assert "m0 names 127.0.0.1:15050, m1 names 127.0.0.1:15050, m2 names 127.0.0.1:15052" in said(
        verdict(views, election(), quorum=2)
    )


def test_two_leaders_are_never_fine() -> None:
    views = HEALTHY | {"m1": replace(STANDBY, elected=LEADER.elected, leader=STANDBY.address, recovered=True)}
    assert "2 masters take themselves for elected: m0, m1" in said(verdict(views, election(), quorum=2))


def test_a_leader_out_of_reach() -> None:
    findings = verdict(HEALTHY | {"m0": DOWN}, election(), quorum=2)
    assert "the leader 127.0.0.1:15050 does not answer as one" in said(findings)


def test_no_master_answers() -> None:
    assert "no master answers" in said(verdict({"m0": DOWN, "m1": DOWN}, Election(), quorum=2))


def test_a_leader_named_by_hostname_is_the_one_of_the_znode() -> None:
    # as a standby of 1.0 and later is known only by its redirect
    views = HEALTHY | {"m1": replace(STANDBY, leader="localhost:15050")}
    assert verdict(views, election(), quorum=2, slaves=2) == []


def test_a_quorum_that_differs_is_broken() -> None:
    findings = verdict(HEALTHY | {"m1": replace(STANDBY, quorum=1)}, election(), quorum=2)
    assert "the quorum is to be 2, but m1 has 1" in said(findings)


def test_log_replicas_of_a_stale_session_and_of_a_stranger() -> None:
    whole = election()
    twice = replace(whole, replicas=(*whole.replicas, replace(whole.replicas[0], sequence=9)))
    assert "2 replicas of the log are announced for 127.0.0.1:15050" in said(
        verdict(HEALTHY, twice, quorum=2), "degraded"
    )
    stranger = replace(whole, replicas=(*whole.replicas, LogReplica(9, "127.0.0.1:15059")))
    assert "without a master that contends: 127.0.0.1:15059" in said(verdict(HEALTHY, stranger, quorum=2), "degraded")


def test_a_replica_that_is_announced_twice_does_not_make_a_quorum() -> None:
    first = election().replicas[0]
    twice = Election(election().masters, (first, replace(first, sequence=9)))
    assert "1 replicas are there, and 2 are the quorum" in said(verdict(HEALTHY, twice, quorum=2))


def test_missing_slaves_degrade() -> None:
    findings = verdict(HEALTHY, election(), quorum=2, slaves=3)
    assert works(findings)
    assert "2 of 3 slaves" in said(findings, "degraded")


def test_the_worst_comes_first_and_each_finding_has_a_remedy() -> None:
    findings = verdict({"m0": DOWN, "m1": STANDBY}, without("127.0.0.1:15050"), quorum=3)
    severities = [finding.severity for finding in findings]
    assert severities == sorted(severities)
    assert set(severities) == {"broken", "degraded"}
    assert all(finding.remedy for finding in findings)
