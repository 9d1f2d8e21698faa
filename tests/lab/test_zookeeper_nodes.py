"""Chapters 0 and 1 on nodes: from single ZooKeepers to an ensemble, drift, a rolling restart, and every diagnosis.

What the runbook did is judged through `ask`, four-letter words and a client of our own; each fault is made on the node.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nbformat
import pytest
from asking import Ask
from chapters import changed
from kazoo.client import KazooClient, KazooState
from kazoo.security import make_acl, make_digest_acl

from runbook.errors import ApplyFailed, ChapterFailed, CheckFailed, DriftFound
from runbook.lab import Lab, Node
from runbook.lab.waiting import until
from runbook.services.findings import Finding
from runbook.services.overview import preflight
from runbook.services.zookeeper import ZooKeeper
from runbook.services.zookeeper_ensemble import Ensemble, four_letter_word
from runbook.site import Site

pytestmark = pytest.mark.lab

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
ZK = "/usr/hdp/2.4.0.0-169/zookeeper/bin/zkServer.sh"
DATA = "/var/lib/zookeeper"
CFG = "/etc/zookeeper/conf/zoo.cfg"
AS_FOUND = (
    f"{ZK} stop >/dev/null 2>&1; rm -rf {DATA}/* /etc/mesos/zk /etc/zookeeper/conf/myid; "
    f"sed -i '/^server\\./d; s/^tickTime=.*/tickTime=2000/' {CFG}"
)
"""ZooKeeper on a node as the lab brings it: installed, never configured, never started."""

Made = dict[str, Any]


def events(folder: Path) -> list[Made]:
    """What the journal of the newest record in `folder` says."""
    record = max((folder / "outputs").iterdir(), key=lambda path: path.stat().st_mtime_ns)
    return [json.loads(line) for line in (record / "journal.jsonl").read_text().splitlines()]


def steps(journal: list[Made]) -> Counter[str]:
    return Counter(event["status"] for event in journal if event["event"] == "step")


def outcome(journal: list[Made]) -> str:
    (finished,) = (event for event in journal if event["event"] == "chapter_finished")
    return str(finished["outcome"])


def papermill(lab: Lab, notebook: str, folder: Path, mode: str) -> subprocess.CompletedProcess[str]:
    """Run a notebook as an operator would, with its record below `folder`."""
    parameters = ["-p", "site_file", str(lab.site_file), "-p", "mode", mode]
    out = folder / f"{notebook}-{mode}.ipynb"
    (folder / "outputs").mkdir(exist_ok=True)
    return subprocess.run(
        [sys.executable, "-m", "papermill", NOTEBOOKS / f"{notebook}.ipynb", out, *parameters, "--no-progress-bar"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def site(lab: Lab) -> Site:
    return Site.load(lab.site_file)


@pytest.fixture(scope="module")
def applied(lab: Lab, ask: Ask, tmp_path_factory: pytest.TempPathFactory) -> list[list[Made]]:
    """The journals of the chapter's notebook applied twice, to nodes as they came."""
    for node in lab.nodes:
        ask(node, AS_FOUND)
    journals = []
    for name in ("first", "second"):
        folder = tmp_path_factory.mktemp(name)
        done = papermill(lab, "01_zookeeper", folder, "apply")
        assert done.returncode == 0, done.stderr
        journals.append(events(folder))
    return journals


@pytest.fixture
def open_chapter(
    applied: object, lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[str], ZooKeeper]]:
    """Opens the chapter in a mode; its connections are closed after the test."""
    opened: list[ZooKeeper] = []
    (tmp_path / "outputs").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RUNBOOK_RECORD", raising=False)

    def open_in(mode: str, site_file: Path = lab.site_file, active_checks: bool = False) -> ZooKeeper:
        opened.append(ZooKeeper(site_file, mode=mode, active_checks=active_checks))
        return opened[-1]

    yield open_in
    for chapter in opened:
        chapter.close()


@pytest.fixture
def chapter(open_chapter: Callable[[str], ZooKeeper]) -> ZooKeeper:
    return open_chapter("apply")


# chapter 0


def test_the_overview_says_what_is_there(lab: Lab, applied: object, tmp_path: Path) -> None:
    done = papermill(lab, "00_overview", tmp_path, "verify")
    assert done.returncode == 0, done.stderr
    journal = events(tmp_path)
    versions = {event["host"]: event["versions"] for event in journal if event["event"] == "versions"}
    assert set(versions) == {node.name for node in lab.nodes}
    assert {one["ZooKeeper"] for one in versions.values()} == {"3.8.0"}
    assert all("Debian" in one["OS"] for one in versions.values())
    (check,) = (event for event in journal if event["event"] == "check")
    assert check["holds"]
    cells = nbformat.read(tmp_path / "00_overview-verify.ipynb", as_version=4).cells
    shown = [str(output) for cell in cells if cell.cell_type == "code" for output in cell.outputs]
    assert any("<svg" in text for text in shown)
    assert any(lab.nodes[0].address in text and "the same" in text for text in shown)


def test_the_preflight_names_who_holds_a_port(applied: object, site: Site, lab: Lab, ask: Ask) -> None:
    node = lab.nodes[-1]
    before = preflight.run(site)
    assert before.fit, str(before)
    port = site.marathon.http_port  # of the one role that no chapter before has started
    with listening(ask, node, port):
        result = preflight.run(site)
    (problem,) = result.having(preflight.State.PROBLEM)
    assert (problem.host, problem.check) == (node.name, "ports")
    assert re.search(rf"port {port} .* is held by pid \d+ \(nc ", problem.meaning)


# chapter 1


def test_the_chapter_makes_an_ensemble(applied: list[list[Made]], site: Site, lab: Lab, ask: Ask) -> None:
    first, _ = applied
    # /etc/mesos/zk, myid, zoo.cfg and the service on each of three nodes; /etc/mesos may have been there, and the
    # package's permissions are right
    unchanged = {one["step"] for one in first if one["event"] == "step" and one["status"] != "changed"}
    assert unchanged - {"folder /etc/mesos"} == {"permissions of zookeeper"}
    assert steps(first)["changed"] >= 12
    assert all(event["holds"] for event in first if event["event"] == "check")
    assert outcome(first) == "changed"
    for number, node in enumerate(lab.nodes, start=1):
        members = ",".join(f"{one.address}:2181" for one in lab.nodes)
        assert ask(node, "cat /etc/mesos/zk") == f"zk://{members}/mesos"
        assert ask(node, f"cat {DATA}/myid") == str(number)
        assert ask(node, f"tail -n 3 {CFG}").splitlines() == [
            f"server.{n}={one.address}:2888:3888" for n, one in enumerate(lab.nodes, start=1)
        ]
        assert ask(node, f"{ZK} status 2>/dev/null") in ("Mode: leader", "Mode: follower")
    assert Ensemble.ask(site).led().holds


def test_applied_again_it_changes_nothing(applied: list[list[Made]]) -> None:
    _, second = applied
    assert steps(second) == {"ok": 18}
    assert [event["name"] for event in second if event["event"] == "check" and not event["holds"]] == []
    assert outcome(second) == "ok"


def test_it_leaves_no_znode_behind(applied: object, site: Site) -> None:
    with client(site) as zookeeper:
        below = zookeeper.get_children("/runbook") if zookeeper.exists("/runbook") else []
        assert [name for name in below if not name.startswith("lock-")] == []  # a rollout's lock may stay


def test_verify_finds_a_change_made_by_hand_with_host_file_and_line(
    open_chapter: Callable[[str], ZooKeeper], lab: Lab, ask: Ask
) -> None:
    ask(lab.nodes[1], f"sed -i s/^tickTime=.*/tickTime=3000/ {CFG}")
    line = ask(lab.nodes[1], f"grep -n ^tickTime {CFG}").partition(":")[0]
    chapter = open_chapter("verify")
    chapter.connection_string()
    chapter.server_lines()
    with pytest.raises(DriftFound, match=rf"node2: lines in {CFG}:{line}:"):
        chapter.finish()
    assert ask(lab.nodes[1], f"grep ^tickTime {CFG}") == "tickTime=3000"
    # mended, and then restarted because it is older than its settings
    chapter = open_chapter("apply")
    chapter.server_lines()
    result = chapter.start()
    assert {(one.host, one.status.value) for one in result} == {("node1", "ok"), ("node2", "changed"), ("node3", "ok")}


@contextmanager
def client(site: Site) -> Iterator[KazooClient]:
    """A client of the whole ensemble, as Mesos is one."""
    zookeeper = KazooClient(site.zookeeper_hosts, timeout=8.0)
    zookeeper.start()
    yield zookeeper
    zookeeper.stop()
    zookeeper.close()


def test_a_rolling_restart_never_loses_the_quorum(chapter: ZooKeeper, site: Site, lab: Lab, ask: Ask) -> None:
    """All three restart while somebody watches: two run at every moment, one election is held, no session is lost."""
    for node in lab.nodes:
        ask(node, f"touch {CFG}")
    leader = Ensemble.ask(site).leaders[0]
    assert leader.answer is not None
    restarted: list[str] = []
    fewest = len(lab.nodes)
    states: list[str] = []
    done = threading.Event()

    def watch() -> None:
        nonlocal fewest
        while not done.wait(0.05):
            # one that loses its leader cuts connections for a moment, and runs all the same
            running = [one.host for one in Ensemble.ask(site).members if "does not listen" not in one.problem]
            fewest = min(fewest, len(running))
            restarted.extend(node.name for node in lab.nodes if node.name not in running)

    with client(site) as zookeeper:
        zookeeper.add_listener(states.append)
        zookeeper.create("/watched", ephemeral=True)
        session = zookeeper.client_id
        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            result = chapter.start()
        finally:
            done.set()
            watcher.join()
        until(lambda: zookeeper.state == KazooState.CONNECTED, seconds=10)
        assert zookeeper.client_id == session
        assert zookeeper.exists("/watched")
        assert KazooState.LOST not in states
    assert {one.status.value for one in result} == {"changed"}
    assert fewest == 2
    assert restarted[-1] == leader.host
    after = Ensemble.ask(site).leaders[0]
    assert after.answer is not None
    assert after.answer.epoch == leader.answer.epoch + 1


def test_the_first_that_does_not_come_back_ends_the_roll(chapter: ZooKeeper, lab: Lab, ask: Ask, site: Site) -> None:
    first, second, last = lab.nodes
    for node in (first, second):
        ask(node, f"touch {CFG}")
    ask(last, f"{ZK} stop && mv {CFG} {CFG}.away")
    pids = [ask(node, f"cat {DATA}/zookeeper_server.pid") for node in (first, second)]
    try:
        with pytest.raises(ApplyFailed, match=r"node3: zoo\.cfg is missing"):
            chapter.start()
    finally:
        ask(last, f"mv {CFG}.away {CFG}")
    assert [ask(node, f"cat {DATA}/zookeeper_server.pid") for node in (first, second)] == pids
    chapter.start()
    assert Ensemble.ask(site).complete().holds


# drift, and what verify may write


def verified(open_chapter: Callable[..., ZooKeeper], *sections: str) -> str:
    """What a verification of these sections says; '' where nothing differs."""
    chapter = open_chapter("verify")
    for section in sections:
        getattr(chapter, section)()
    try:
        chapter.finish()
    except (DriftFound, ChapterFailed) as found:
        return str(found)
    return ""


def znodes(site: Site, path: str) -> tuple[int, int]:
    """How often the children of a znode changed, and the znode's own last change."""
    with client(site) as zookeeper:
        zookeeper.sync(path)
        stat = zookeeper.exists(path)
        return (stat.cversion, stat.mzxid) if stat else (-1, -1)


def test_verify_writes_no_znode_unless_it_may(open_chapter: Callable[..., ZooKeeper], site: Site) -> None:
    def seen() -> list[tuple[int, int]]:
        return [znodes(site, path) for path in ("/", site.zookeeper.check_path)]

    before = seen()
    chapter = open_chapter("verify")
    result = chapter.members_agree()
    assert result.holds, str(result)
    assert result.evidence.text.endswith("znodes are the same (read only)")
    assert seen() == before
    chapter = open_chapter("verify", active_checks=True)
    result = chapter.members_agree()
    assert (result.holds, result.evidence.text) == (True, "3 znodes written and read")
    assert seen() != before


def test_a_member_that_went_its_own_way_does_not_agree(
    open_chapter: Callable[..., ZooKeeper], chapter: ZooKeeper, lab: Lab, ask: Ask
) -> None:
    last = lab.nodes[-1]
    ask(last, f"{ZK} stop; cp {CFG} /root/cfg; sed -i /^server/d {CFG}; {ZK} start")
    try:
        until(lambda: "Mode: standalone" in ask(last, f"{ZK} status 2>/dev/null || true"), seconds=30)
        result = open_chapter("verify").members_agree()
        assert (result.holds, result.evidence.text) == (False, "node3 serves by itself")
    finally:
        ask(last, f"{ZK} stop; cp /root/cfg {CFG}")
        chapter = open_chapter("apply")
        chapter.start()


def test_foreign_settings_are_named_until_they_are_accepted(
    open_chapter: Callable[..., ZooKeeper], lab: Lab, ask: Ask, tmp_path: Path
) -> None:
    ask(lab.nodes[1], f"cp -p {CFG} /root/cfg; echo 'maxClientCnxns = 1' >> {CFG}; touch -r /root/cfg {CFG}")
    try:
        said = verified(open_chapter, "server_lines", "foreign_settings")
        assert f"node2: a foreign setting: {CFG}: maxClientCnxns=1" in said
        chapter = open_chapter("apply")
        assert [one.host for one in chapter.foreign_settings()] == ["node2"]
        chapter.close()
        # it is not in force yet, whatever the file's date says
        assert "maxClientCnxns" in verified(open_chapter, "start")
        accepted = changed(lab, tmp_path, zookeeper={"allowed_settings": ["maxClientCnxns"]})
        chapter = open_chapter("verify", site_file=accepted)
        assert list(chapter.foreign_settings()) == []
    finally:
        ask(lab.nodes[1], f"cp -p /root/cfg {CFG}")
    assert verified(open_chapter, "server_lines", "foreign_settings", "start") == ""


def test_a_member_that_runs_with_another_setting_than_its_file_is_found(
    open_chapter: Callable[..., ZooKeeper], lab: Lab, ask: Ask
) -> None:
    node = lab.nodes[1]
    ask(node, f"cp -p {CFG} /root/cfg; sed -i s/^syncLimit=.*/syncLimit=9/ {CFG}; {ZK} restart")
    until(lambda: "Mode: " in ask(node, f"{ZK} status 2>/dev/null || true"), seconds=30)  # it has read the file
    ask(node, f"cp -p /root/cfg {CFG}")
    said = verified(open_chapter, "server_lines", "start")
    assert "node2: service zookeeper: restart, as it runs with other settings than its files: syncLimit" in said
    chapter = open_chapter("apply")
    result = chapter.start()
    assert {(one.host, one.status.value) for one in result} == {("node1", "ok"), ("node2", "changed"), ("node3", "ok")}
    chapter.close()
    assert verified(open_chapter, "server_lines", "start") == ""


def test_zoo_cfg_with_crlf_and_a_linked_data_folder(
    open_chapter: Callable[..., ZooKeeper], lab: Lab, ask: Ask, site: Site
) -> None:
    node = lab.nodes[1]
    crlf = "s,$,  \\r,; s,^dataDir=.*,dataDir=/var/lib/zk/,"
    ask(node, f"cp -p {CFG} /root/cfg; ln -s {DATA} /var/lib/zk; sed -i '{crlf}' {CFG}")
    ask(node, f"grep -c '\r' {CFG}")
    try:
        chapter = open_chapter("apply")
        assert list(chapter.diagnose()) == []
        chapter.server_lines()
        chapter.start()
        chapter.close()
        assert Ensemble.ask(site).complete().holds
        assert verified(open_chapter, "server_lines", "start", "members_agree") == ""
    finally:
        ask(node, f"{ZK} stop; cp -p /root/cfg {CFG}; rm -f /var/lib/zk; {ZK} start")
        chapter = open_chapter("apply")
        chapter.start()


def test_members_in_a_dynamic_file_are_left_to_zookeeper(
    open_chapter: Callable[..., ZooKeeper], lab: Lab, ask: Ask, site: Site, tmp_path: Path
) -> None:
    """reconfigEnabled=true: ZooKeeper 3.5 and later takes the members out of zoo.cfg into a file of their own."""
    for node in lab.nodes:
        ask(node, f"cp -p {CFG} /root/cfg; echo reconfigEnabled=true >> {CFG}")
    accepted = {"site_file": changed(lab, tmp_path, zookeeper={"allowed_settings": ["reconfigEnabled"]})}
    try:
        open_chapter("apply", **accepted).start()
        for node in lab.nodes:
            until(lambda node=node: "dynamicConfigFile" in ask(node, f"cat {CFG}"), seconds=30)
        before = [ask(node, f"cat {CFG} {CFG}.dynamic*; cat {DATA}/zookeeper_server.pid") for node in lab.nodes]
        chapter = open_chapter("apply", **accepted)
        chapter.identities()
        assert chapter.server_lines().failed is False
        result = chapter.start()
        assert {one.status.value for one in result} == {"ok"}
        assert list(chapter.foreign_settings()) == []
        assert list(chapter.diagnose()) == []
        assert [ask(node, f"cat {CFG} {CFG}.dynamic*; cat {DATA}/zookeeper_server.pid") for node in lab.nodes] == before
        ask(lab.nodes[1], f"sed -i 's/^server.3=[^:]*:/server.3=198.51.100.250:/' {CFG}.dynamic*")
        with pytest.raises(ApplyFailed, match=r"(?s)server\.3 is 198\.51\.100\.250.*reconfig"):
            open_chapter("apply", **accepted).server_lines()
    finally:
        for node in lab.nodes:
            ask(node, f"{ZK} stop; cp -p /root/cfg {CFG}; rm -f {CFG}.*")
        chapter = open_chapter("apply")
        chapter.start()
        assert Ensemble.ask(site).complete().holds


def test_a_root_that_an_acl_closes_is_named_at_once_and_a_path_below_another_znode_works(
    open_chapter: Callable[..., ZooKeeper], lab: Lab, site: Site, tmp_path: Path
) -> None:
    with client(site) as owner:
        owner.add_auth("digest", "admin:secret")
        if owner.exists("/runbook"):
            owner.delete("/runbook", recursive=True)
        owner.ensure_path("/open")
        closed = [make_digest_acl("admin", "secret", all=True), make_acl("world", "anyone", read=True)]
        owner.set_acls("/", closed)
        try:
            unlocked = changed(lab, tmp_path, zookeeper={"lock_path": None})
            began = time.monotonic()
            with pytest.raises(CheckFailed, match=r"znode /: its ACL is digest:admin:cdrwa, world:anyone:r, so that"):
                open_chapter("apply", site_file=unlocked).members_agree()
            assert time.monotonic() - began < 30
            # a verification that writes nothing works all the same
            assert verified(open_chapter, "members_agree") == ""
            elsewhere = changed(lab, tmp_path, zookeeper={"check_path": "/open/runbook", "lock_path": None})
            assert open_chapter("apply", site_file=elsewhere).members_agree().holds
            assert owner.get_children("/open") == []
        finally:
            owner.set_acls("/", [make_acl("world", "anyone", all=True)])
            owner.delete("/open", recursive=True)


# 1.3


@pytest.fixture
def third(chapter: ZooKeeper, lab: Lab, ask: Ask, site: Site) -> Iterator[Node]:
    """The third node with its ZooKeeper stopped; afterwards it serves again."""
    node = lab.nodes[-1]
    ask(node, f"{ZK} stop")
    yield node
    ask(node, f"{ZK} stop >/dev/null 2>&1; rm -f /etc/zookeeper/conf/myid")
    chapter.identities()
    chapter.server_lines()
    chapter.start()


def found(chapter: ZooKeeper, node: Node) -> Finding:
    """The one finding of the diagnosis, which is on `node`."""
    (finding,) = chapter.diagnose()
    assert finding.host == node.name
    return finding


def started_and_died(ask: Ask, node: Node) -> None:
    ask(node, f"{ZK} start >/dev/null 2>&1")
    alive = f"kill -0 $(cat {DATA}/zookeeper_server.pid) 2>/dev/null && echo yes || echo no"
    until(lambda: ask(node, alive) == "no", seconds=20)


@contextmanager
def listening(ask: Ask, node: Node, port: int) -> Iterator[None]:
    """Something that is not of the cluster listens at `port`."""
    pid = ask(node, f"nc -lk {port} >/dev/null 2>&1 & echo $!")
    until(lambda: f":{port} " in ask(node, "ss -ltn"), seconds=5)
    yield
    ask(node, f"kill {pid}")


def test_a_stale_pid_file_whose_number_another_process_has(
    chapter: ZooKeeper, third: Node, ask: Ask, site: Site
) -> None:
    foreign = ask(third, "sleep 600 >/dev/null 2>&1 & echo $!")
    ask(third, f"echo {foreign} > {DATA}/zookeeper_server.pid")
    with pytest.raises(ApplyFailed, match=rf"(?s)did not start.*holds {foreign}, which is `sleep 600`") as failure:
        chapter.start()
    assert "stale pid file: another process has its number now" in str(failure.value)
    assert ask(third, f"ps -o args= -p {foreign}") == "sleep 600"  # nothing was killed
    remedy = found(chapter, third).remedy.partition("(")[0]
    ask(third, remedy)
    chapter.start()
    assert Ensemble.ask(site).complete().holds
    ask(third, f"kill {foreign}")


def test_a_stale_pid_file_whose_process_is_gone(chapter: ZooKeeper, third: Node, ask: Ask) -> None:
    ask(third, f"{ZK} start >/dev/null 2>&1; kill -9 $(cat {DATA}/zookeeper_server.pid)")
    assert found(chapter, third).cause == "stale pid file: its process is gone"


def test_myid_missing(chapter: ZooKeeper, third: Node, ask: Ask) -> None:
    ask(third, f"rm {DATA}/myid")
    with pytest.raises((ApplyFailed, CheckFailed)) as failed:
        chapter.start()
    said = str(failed.value)
    assert "node3: myid is missing" in said
    # It ends before, while or after it is looked whether it stays up, and nobody waits the whole minute for what ended.
    assert re.search(
        r"did not start within 5 s|ended as soon as it had started"
        r"|does not hold after [0-4]?\d s: ZooKeeper on node3 ended again after it was started",
        said,
    )


def test_myid_in_the_conf_folder(chapter: ZooKeeper, third: Node, ask: Ask) -> None:
    ask(third, f"mv {DATA}/myid /etc/zookeeper/conf/myid")
    started_and_died(ask, third)
    assert found(chapter, third).cause == "myid is in the wrong folder"


def test_myid_of_another(chapter: ZooKeeper, lab: Lab, third: Node, ask: Ask) -> None:
    ask(third, f"echo 1 > {DATA}/myid")
    finding = found(chapter, third)
    assert finding.cause == "myid is wrong"
    assert f"which is the member at {lab.nodes[0].address}" in finding.evidence


def test_a_port_that_is_taken(chapter: ZooKeeper, third: Node, ask: Ask, site: Site) -> None:
    with listening(ask, third, site.zookeeper.client_port):
        started_and_died(ask, third)
        finding = found(chapter, third)
    assert finding.cause == "a port is taken by another process"
    assert re.search(r"pid \d+ \(nc -lk 2181\) listens at port 2181", finding.evidence)


def test_a_damaged_log_and_its_remedy(chapter: ZooKeeper, third: Node, ask: Ask, site: Site) -> None:
    with client(site) as zookeeper:
        zookeeper.ensure_path("/damaged")
    ask(third, f": > $(ls -t {DATA}/version-2/log.* | head -n 1)")
    started_and_died(ask, third)
    finding = found(chapter, third)
    assert finding.cause == "the data on disk are damaged"
    assert re.search(r"log\.\w+ is empty", finding.evidence)
    aside = re.search(r"mv \S+ \S+", finding.remedy.replace(",", " "))
    assert aside is not None
    ask(third, aside[0])
    chapter.start()
    alone = KazooClient(f"{third.address}:{site.zookeeper.client_port}")
    alone.start()
    try:
        alone.sync("/damaged")
        assert alone.exists("/damaged")  # fetched from the others
        alone.delete("/damaged")
    finally:
        alone.stop()
        alone.close()
        ask(third, f"rm -rf {DATA}/version-2.damaged")


def test_a_log_with_one_wrong_byte(chapter: ZooKeeper, third: Node, ask: Ask) -> None:
    log = ask(third, f"ls -t {DATA}/version-2/log.* | head -n 1")
    ask(third, f"cp -p {log} /root/log; printf '\\377' | dd of={log} bs=1 seek=30 conv=notrunc status=none")
    started_and_died(ask, third)
    finding = found(chapter, third)
    ask(third, f"cp -p /root/log {log}; rm /root/log")
    assert finding.cause == "the data on disk are damaged"
    assert "CRC check failed" in finding.evidence


def test_lists_of_members_that_differ(chapter: ZooKeeper, lab: Lab, third: Node, ask: Ask) -> None:
    first, second = lab.nodes[0].address, lab.nodes[1].address
    ask(third, f"sed -i 's/^server.2={second}/server.2={first}/' {CFG}")
    finding = found(chapter, third)
    assert finding.cause == "the list of members is wrong"
    assert f"has server.2={first}:2888:3888 and should have {second}:2888:3888 (as node1, node2)" in (finding.evidence)


def test_a_full_disk(chapter: ZooKeeper, third: Node, ask: Ask) -> None:
    ask(third, f"mkdir /root/kept && mv {DATA}/* /root/kept/ && mount -t tmpfs -o size=1m none {DATA}")
    ask(third, f"cp /root/kept/myid {DATA}/")
    try:
        finding = found(chapter, third)
    finally:
        ask(third, f"umount {DATA}; mv /root/kept/* {DATA}/; rmdir /root/kept")
    assert finding.cause == "the disk is full"


def test_nothing_is_found_once_all_serve(chapter: ZooKeeper, site: Site) -> None:
    assert four_letter_word(site.hosts[0].address, site.zookeeper.client_port, "ruok") == "imok"
    assert list(chapter.diagnose()) == []
