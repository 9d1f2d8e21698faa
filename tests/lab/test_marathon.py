"""Chapters 0 to 4 on nodes: Marathon from its RPM, twice; the document's app, spread and crashed; a node that dies.

What the runbook did is judged through `ask`, plain HTTP and the journal. Masters and instances have shorter patience
than by default (they give a silent slave up after 15 s, and each other after 6 s), or this would take minutes.
"""

from __future__ import annotations

import json
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from asking import Ask
from chapters import Made, changed, events, in_process, statuses
from chapters import Open as OpenKind

from runbook.errors import ApplyFailed, ChapterFailed, GateRefused, NotFound
from runbook.lab import Lab, Node
from runbook.lab.waiting import until
from runbook.remote.modes import Status
from runbook.services.marathon import Marathon
from runbook.services.marathon.chapter import MarathonChapter
from runbook.services.marathon.deploy import marathon_of, tasks_of
from runbook.services.marathon.ensemble import Instances
from runbook.services.mesos.checks import MasterEnsemble, Registrations
from runbook.services.zookeeper_ensemble import session
from runbook.site import Site

pytestmark = pytest.mark.lab

CHAPTERS = ("00_overview", "01_zookeeper", "02_mesos_master", "03_mesos_slave", "04_marathon")
GONE = """
systemctl stop marathon 2>/dev/null
rpm -e marathon 2>/dev/null
rm -rf /etc/marathon /etc/default/marathon /etc/mesos-master/slave_ping_timeout /var/lib/runbook/artifacts/*/marathon-*
systemctl daemon-reload
exit 0
"""
"""A node without Marathon."""
LESS_PATIENCE = """
mkdir -p /etc/marathon/conf /etc/mesos-master
echo 6000 > /etc/marathon/conf/zk_session_timeout
echo 3secs > /etc/mesos-master/slave_ping_timeout
"""
LOOK = "rpm -q marathon; ls -la --time-style=full-iso /etc/marathon/conf /etc/default /var/lib/runbook 2>&1"
TASK = "grep -lzxF 'MESOS_TASK_ID={task}' /proc/[0-9]*/environ 2>/dev/null | wc -l"

Open = Callable[..., MarathonChapter]


@pytest.fixture(scope="module")
def site_file(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The lab's parameters, which accept the flags of LESS_PATIENCE."""
    master = {"master": {"allowed_flags": ["slave_ping_timeout"]}}
    accepted = {"marathon": {"allowed_flags": ["zk_session_timeout"]}, "mesos": master}
    return changed(lab, tmp_path_factory.mktemp("site"), **accepted)


@pytest.fixture(scope="module")
def site(site_file: Path) -> Site:
    return Site.load(site_file)


@pytest.fixture(scope="module")
def rolled_out(
    lab: Lab, ask: Ask, site: Site, site_file: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, list[Made]]]:
    """The journals of a plan of chapter 4 without a Marathon, and of the chapters applied twice, by their names."""

    def run(name: str, notebook: str, mode: str) -> None:
        folder = tmp_path_factory.mktemp(f"{name}-{notebook}")
        journals[f"{name} {notebook}"] = in_process(notebook, folder, site_file, mode)

    journals: dict[str, list[Made]] = {}
    for node in lab.nodes:
        ask(node, GONE)
        ask(node, LESS_PATIENCE)
    run("zookeeper", "01_zookeeper", "apply")
    forget(site)
    before = [look(ask, node) for node in lab.nodes]
    run("plan", "04_marathon", "plan")
    journals["touched"] = [
        {"before": one, "after": look(ask, node)} for one, node in zip(before, lab.nodes, strict=True)
    ]
    for name in ("first", "second"):
        for notebook in CHAPTERS:
            run(name, notebook, "apply")
    yield journals
    with marathon_of(site) as marathon:
        for app in marathon.apps():
            marathon.delete(app["id"], force=True)
        until(lambda: marathon.tasks() == [], seconds=60)
    for node in lab.nodes:
        ask(node, GONE)
    forget(site)


def look(ask: Ask, node: Node) -> str:
    """What is on a node of what chapter 4 writes. (On a busy machine the engine loses an output now and then.)"""
    return next(filter(None, (ask(node, LOOK) for _ in range(5))))


def forget(site: Site) -> None:
    """Remove what Marathon keeps in ZooKeeper."""
    with session(site.zookeeper_hosts) as zookeeper:
        if zookeeper.exists(site.marathon.zk_path):
            zookeeper.delete(site.marathon.zk_path, recursive=True)


@pytest.fixture
def open_chapter(rolled_out: object, open_kind: OpenKind, site_file: Path) -> Open:
    """Opens chapter 4, once it was rolled out."""
    return partial(open_kind, MarathonChapter, site_file=site_file)


@pytest.fixture
def client(rolled_out: object, site: Site) -> Iterator[Marathon]:
    with marathon_of(site) as marathon:
        yield marathon


def holding(journal: list[Made], name: str) -> Made:
    """The check of this name, which holds."""
    (found,) = (event for event in journal if event["event"] == "check" and name in event["name"])
    assert found["holds"], found
    return found


def test_a_plan_before_the_first_rollout_shows_everything_and_touches_nothing(
    rolled_out: dict[str, list[Made]], lab: Lab
) -> None:
    journal = rolled_out["plan 04_marathon"]
    planned = {(one["host"], one["step"]): one for one in journal if one["event"] == "step"}
    for node in lab.nodes:
        assert planned[node.name, "rpm marathon"]["summary"].startswith("upload and install marathon-1.1.1")
        assert f"+{node.address}" in planned[node.name, "file /etc/marathon/conf/hostname"]["diff"]
        assert f"+LIBPROCESS_IP={node.address}" in planned[node.name, "lines in /etc/default/marathon"]["diff"]
        assert planned[node.name, "service marathon"]["status"] == "would change"
    app = planned["marathon", "app /hello"]
    assert (app["status"], app["summary"]) == ("would change", "create, once Marathon answers")
    assert "+cmd: " in app["diff"]
    assert planned["marathon", "instances of /hello"]["diff"] == "+instances: 4\n"
    assert planned["marathon", "crash of /hello"]["status"] == "skipped"
    assert {event["tried"] for event in journal if event["event"] == "check" and not event["holds"]} == {False}
    assert [node["after"] for node in rolled_out["touched"]] == [node["before"] for node in rolled_out["touched"]]


def test_the_second_rollout_changes_nothing(rolled_out: dict[str, list[Made]]) -> None:
    assert statuses(rolled_out["first 04_marathon"])["changed"] > 0
    for notebook in CHAPTERS:
        journal = rolled_out[f"second {notebook}"]
        assert set(statuses(journal)) <= {"ok", "skipped"}, notebook
        skipped = [event["step"] for event in journal if event.get("status") == "skipped"]
        assert skipped == (["crash of /hello"] if notebook == "04_marathon" else [])
    assert [event["answer"] for event in rolled_out["second 04_marathon"] if event["event"] == "gate"] == ["refused"]


def test_marathon_runs_as_the_document_configures_it(rolled_out: object, lab: Lab, ask: Ask, site: Site) -> None:
    for node in lab.nodes:
        conf = ask(node, "cd /etc/marathon/conf; cat master zk hostname; cat /etc/default/marathon").split()
        assert conf == [site.mesos_zk, site.marathon_zk, node.address, f"LIBPROCESS_IP={node.address}"]
        assert ask(node, "systemctl is-enabled marathon") == "enabled"
    journal = rolled_out["first 04_marathon"]  # type: ignore[index]
    versions = {event["host"]: event["versions"]["marathon"] for event in journal if event["event"] == "versions"}
    assert versions == {node.name: site.marathon.version for node in lab.nodes}  # by rpm, not by the start script


def test_hello_answers_and_four_instances_are_spread(
    rolled_out: dict[str, list[Made]], client: Marathon, lab: Lab, ask: Ask
) -> None:
    holding(rolled_out["first 04_marathon"], "/hello answers")
    tasks = client.tasks("hello")
    assert sorted(Counter(task["host"] for task in tasks).values()) == [1, 1, 2]
    for task in tasks:
        node = next(node for node in lab.nodes if node.address == task["host"])
        assert ask(node, TASK.format(task=task["id"])) != "0"

        def said(url: str = f"http://{task['host']}:{task['ports'][0]}") -> bool:
            try:
                with urllib.request.urlopen(url, timeout=3) as answer:
                    return bool(answer.read().strip() == b"Hello World")
            except OSError:  # between two turns of the loop nobody listens
                return False

        until(said, seconds=15)


def test_a_crashed_task_comes_back_and_the_record_tells(
    open_chapter: Open, client: Marathon, lab: Lab, ask: Ask, tmp_path: Path
) -> None:
    before = {task["id"]: task for task in client.tasks("hello")}
    chapter = open_chapter("apply", yes=True)
    result = chapter.crash()
    chapter.finish()
    after = {task["id"] for task in client.tasks("hello")}
    (crashed,) = before.keys() - after
    assert len(after) == 4
    node = next(node for node in lab.nodes if node.address == before[crashed]["host"])
    assert ask(node, TASK.format(task=crashed)) == "0"
    text = holding(events(tmp_path), "a task of /hello that crashes comes back")["evidence"]
    assert f"of {crashed} on {node.name} was killed" in text
    assert "TASK_FAILED: Command terminated with signal Killed" in text
    assert not statuses(events(tmp_path))["changed"]
    assert ("gate", "--yes") in {(event["event"], event.get("by")) for event in events(tmp_path)}
    assert result.evidence.table is not None  # type: ignore[union-attr]


def test_a_stray_file_is_named_before_an_instance_ends_on_it(open_chapter: Open, lab: Lab, ask: Ask) -> None:
    node = lab.nodes[1]
    pid = ask(node, "systemctl show -p MainPID --value marathon")
    ask(node, "touch -r /etc/marathon/conf /tmp/then; cp -p /etc/marathon/conf/zk /etc/marathon/conf/zk.bak")
    try:
        with pytest.raises(ApplyFailed, match=r"/etc/marathon/conf/zk\.bak: not a flag of Marathon"):
            open_chapter("apply").start()
    finally:
        ask(node, "rm /etc/marathon/conf/zk.bak; touch -r /tmp/then /etc/marathon/conf")
    assert ask(node, "systemctl show -p MainPID --value marathon") == pid


def test_an_instance_that_does_not_start_is_explained_by_its_log_and_stops_the_rest(
    open_chapter: Open, lab: Lab, ask: Ask
) -> None:
    pids = [ask(node, "systemctl show -p MainPID --value marathon") for node in lab.nodes]
    node = lab.nodes[1]
    ask(node, "cd /etc/marathon/conf; rm zk_session_timeout; echo nonsense > zk_session_timeout")
    try:
        with pytest.raises(ApplyFailed, match=r"(?s)Bad arguments for option 'zk_session_timeout'.*correct the file"):
            open_chapter("apply").start()
    finally:
        ask(node, LESS_PATIENCE)
    after = [ask(other, "systemctl show -p MainPID --value marathon") for other in lab.nodes]
    assert [after[0], after[2]] == [pids[0], pids[2]]
    mended = open_chapter("apply").start()
    assert {(one.host, one.step) for one in mended.having(Status.CHANGED)} == {(node.name, "service marathon")}


def test_an_app_of_a_file_is_deployed_and_deleted_behind_its_gate(
    open_chapter: Open, client: Marathon, tmp_path: Path
) -> None:
    file = tmp_path / "other.json"
    file.write_text(json.dumps({"id": "shop/other", "cmd": "exec sleep 1000", "cpus": 0.01, "mem": 16, "instances": 2}))
    deployed = open_chapter("apply").deploy_file(file)
    assert [(one.host, one.step, one.status) for one in deployed] == [("marathon", "app /shop/other", Status.CHANGED)]
    assert not open_chapter("apply").deploy_file(file).changed
    with pytest.raises(GateRefused, match="end /shop/other with its 2 tasks"):
        open_chapter("apply").delete("shop/other")
    assert len(client.tasks("shop/other")) == 2
    assert open_chapter("apply", yes=True).delete("shop/other").changed
    with pytest.raises(NotFound):
        client.app("shop/other")


def test_a_node_that_dies_is_named_with_where_its_tasks_went(
    open_chapter: Open, client: Marathon, site: Site, lab: Lab, ask: Ask, tmp_path: Path
) -> None:
    """The node of Marathon's leader: another instance takes over with what the first one knew."""
    master = MasterEnsemble.ask(site).leader
    if Instances.ask(site).leader == master:  # a new leader of Mesos would give the slave 10 minutes
        ask(lab.node(str(master)), "systemctl restart marathon")
        until(lambda: Instances.ask(site).leader not in (None, master), seconds=60)
    name = str(Instances.ask(site).leader)
    framework = client.info()["frameworkId"]
    tasks = tasks_of(site, "hello")
    there = set(tasks[tasks["host"] == name]["task"])
    assert there
    lab.kill(lab.node(name))
    try:

        def moved() -> bool:
            now = tasks_of(site, "hello")
            return len(now) == 4 and name not in set(now["host"]) and set(now["state"]) == {"running"}

        until(moved, seconds=120)
        chapter = open_chapter("verify")
        led, lost, answers = chapter.one_leader(), chapter.lost_hosts(), chapter.answers()
        with pytest.raises(ChapterFailed, match=f"{name} is lost"):
            chapter.finish()
        assert led.holds
        assert not led.evidence.text.startswith(f"{name} ")
        assert answers.holds
        assert f"{name} is lost (no slave of it is registered" in lost.evidence.text
        table = lost.evidence.table
        assert table is not None
        rows = table[table["task"].isin(there)]
        assert set(rows["task"]) == there
        assert set(rows["was on"]) == {name}
        assert not rows["is on"].str.startswith((f"{name}:", "–")).any()
        assert set(rows["task there"]) <= {task["id"] for task in client.tasks("hello")}
        assert client.info()["frameworkId"] == framework
    finally:
        lab.start(lab.node(name))
        in_process("01_zookeeper", tmp_path, lab.site_file, "apply")
    until(lambda: Registrations.ask(site).registered([node.name for node in lab.nodes]).holds, seconds=90)
    until(lambda: Instances.ask(site).complete().holds, seconds=90)
