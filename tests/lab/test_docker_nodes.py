"""Chapter 5 on nodes: Docker from its package, images from archives, the document's app; containers as steps.

What the runbook did is judged through `ask`, the nodes' own Docker and the journal. One rollout serves all tests.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from asking import Ask
from chapters import Made, changed, in_process, recording, statuses
from chapters import Open as OpenKind

from runbook import images
from runbook.errors import ApplyFailed, DriftFound, GateRefused, ImageUnavailable, ParameterError
from runbook.events import Event, subscribe
from runbook.lab import Lab, Node
from runbook.lab.archive import Entry, pack
from runbook.remote.containers import RECREATE, Container, archived_id
from runbook.remote.gates import Approval
from runbook.remote.hosts import Hosts
from runbook.remote.modes import Mode, Status
from runbook.remote.results import ApplyResult
from runbook.secrets import Secret, register
from runbook.services.docker import RESTART, DockerHosts, containers, logs
from runbook.services.marathon.chapter import MarathonChapter
from runbook.services.marathon.deploy import delete, marathon_of
from runbook.site import Site

pytestmark = [pytest.mark.lab, pytest.mark.timeout(900)]  # the first test waits for five chapters

BEFORE = ("01_zookeeper", "02_mesos_master", "03_mesos_slave")
DOCKER = "05_docker"
USERLAND = "lab/userland:1"
GONE = """
systemctl stop mesos-slave 2>/dev/null
docker ps -aq 2>/dev/null | xargs -r docker rm -fv >/dev/null
systemctl stop docker.service docker.socket 2>/dev/null
rpm -e docker-engine 2>/dev/null
find /var/lib/docker -mindepth 1 -delete
rm -rf /etc/docker /etc/systemd/system/docker.service.d /var/lib/runbook/artifacts /opt/docker-test
systemctl daemon-reload
exit 0
"""
"""A node without Docker."""
LOOK = "rpm -q docker-engine; find /var/lib/docker /var/lib/runbook/artifacts 2>&1; cat /etc/mesos-slave/containerizers"
SAMPLE = """\
rm -f /run/sampled /run/sampling; touch /run/sampling
( while [ -e /run/sampling ]; do ps axww -o args=; sleep 0.02; done > /run/sampled ) >/dev/null 2>&1 &
"""
"""Writes down every command line, as whoever has a login on the host sees them."""

Open = Callable[..., DockerHosts]


@pytest.fixture(scope="module")
def site(lab: Lab) -> Site:
    return Site.load(lab.site_file)


@pytest.fixture(scope="module")
def rolled_out(
    lab: Lab, ask: Ask, site: Site, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, list[Made]]]:
    """The journals of chapter 5 in a plan without Docker, and applied twice, by these names."""

    def run(name: str, notebook: str, mode: str) -> None:
        folder = tmp_path_factory.mktemp(f"{name}-{notebook}")
        journals[name] = in_process(notebook, folder, lab.site_file, mode)

    journals: dict[str, list[Made]] = {}
    for node in lab.nodes:
        ask(node, GONE)
    for notebook in BEFORE:
        run("before", notebook, "apply")
    start_marathon(lab, tmp_path_factory.mktemp("marathon"))
    without_apps(site)
    looked = [ask(node, LOOK + " || true") for node in lab.nodes]
    run("plan", DOCKER, "plan")
    journals["touched"] = [
        {"before": one, "after": ask(node, LOOK + " || true")} for one, node in zip(looked, lab.nodes, strict=True)
    ]
    run("first", DOCKER, "apply")
    run("second", DOCKER, "apply")
    yield journals
    without_apps(site)


def without_apps(site: Site) -> None:
    with marathon_of(site) as marathon:
        apps = [app["id"] for app in marathon.apps()]
    for app in apps:
        delete(site, app, mode=Mode.APPLY, approval=Approval(yes=True), force=True)


def start_marathon(lab: Lab, folder: Path) -> None:
    """What of chapter 4 is needed here."""
    with recording(folder):
        chapter = MarathonChapter(lab.site_file, mode="apply")
        chapter.install()
        chapter.start()
        chapter.registered()
        chapter.close()


@pytest.fixture
def open_chapter(rolled_out: object, open_kind: OpenKind) -> Open:
    """Opens chapter 5, once it was rolled out."""
    return partial(open_kind, DockerHosts)


def steps(journal: list[Made]) -> dict[tuple[str, str], Made]:
    return {(one["host"], one["step"]): one for one in journal if one["event"] == "step"}


# the chapter


def test_a_plan_before_docker_shows_everything_and_touches_nothing(
    rolled_out: dict[str, list[Made]], lab: Lab, site: Site
) -> None:
    planned = steps(rolled_out["plan"])
    for node in lab.nodes:
        assert planned[node.name, "package docker-engine"]["summary"] == "install docker-engine"
        assert planned[node.name, "service docker"]["status"] == "would change"
        assert "+docker,mesos" in planned[node.name, "file /etc/mesos-slave/containerizers"]["diff"]
        image = planned[node.name, f"image {USERLAND}"]
        assert image["status"] == "would change"
        assert image["summary"].endswith("once Docker answers (it is not installed)")
    assert planned["marathon", "app /centos-marathon"]["status"] == "would change"
    assert [node["after"] for node in rolled_out["touched"]] == [node["before"] for node in rolled_out["touched"]]


def test_images_are_uploaded_once_and_the_second_rollout_changes_nothing(rolled_out: dict[str, list[Made]]) -> None:
    first = steps(rolled_out["first"])
    loaded = {host for (host, step), one in first.items() if step == f"image {USERLAND}" and one["status"] == "changed"}
    assert loaded == {"node1", "node2", "node3"}
    assert {host for host, step in first if step == "image lab/registry:2.8.2"} == {"node1"}
    assert set(statuses(rolled_out["second"])) == {"ok"}, statuses(rolled_out["second"])
    assert all(event["holds"] for event in rolled_out["second"] if event["event"] == "check")
    (versions,) = (e["versions"] for e in rolled_out["second"] if e["event"] == "versions" and e["host"] == "node1")
    assert versions["docker storage"].startswith("overlay2")


def test_docker_runs_with_the_images_and_slaves_know_of_it(rolled_out: object, lab: Lab, ask: Ask, site: Site) -> None:
    wanted = archived_id(site.images["userland"].file, USERLAND)
    for node in lab.nodes:
        assert ask(node, "systemctl is-active docker; systemctl is-enabled docker").split() == ["active", "enabled"]
        assert ask(node, f"docker inspect --type image -f '{{{{.Id}}}}' {USERLAND}") == wanted
        assert ask(node, "cat /etc/mesos-slave/containerizers") == "docker,mesos"
        assert ask(node, "find /var/lib/runbook -name '*.tar*' | wc -l") == "0"


def test_containers_are_matched_with_marathons_tasks_and_no_more_is_told(
    open_chapter: Open, lab: Lab, ask: Ask
) -> None:
    chapter = open_chapter("verify")
    frame = containers(chapter.members)
    assert len(frame) == 3
    table = chapter.ps()
    assert list(table.frame["state"]) == ["✓ running"] * 3
    for row in frame.to_dict("records"):
        name = ask(lab.node(row["host"]), f"docker inspect -f '{{{{.Name}}}}' {row['id']}")
        assert name == f"/{row['container']}"
        environment = ask(lab.node(row["host"]), f"docker inspect -f '{{{{json .Config.Env}}}}' {row['id']}")
        assert f"MESOS_TASK_ID={row['task']}" in environment
        assert re.search(r"^\d\d:\d\d:\d\d$", logs(chapter.members, row["host"], row["id"], 3), re.MULTILINE)
    assert "MARATHON_APP" in environment
    assert "MARATHON_APP" not in table.frame.to_string() + frame.to_string()


def test_an_altered_archive_is_refused_before_any_host_is_touched(
    open_chapter: Open, lab: Lab, site: Site, ask: Ask, tmp_path: Path
) -> None:
    file = tmp_path / "userland.tar.gz"
    content = bytearray(site.images["userland"].file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    look = "find /root/.cache/runbook /var/lib/runbook/artifacts -ls 2>/dev/null || true"
    before = ask(lab.nodes[0], look)
    chapter = open_chapter("apply", changed(lab, tmp_path, images={"userland": {"file": str(file)}}))
    with pytest.raises(ParameterError, match=r"(?s)userland\.tar\.gz has another SHA-256.*fetch the file again"):
        chapter.load_images()
    assert ask(lab.nodes[0], look) == before


def test_another_image_of_the_same_tag_is_drift_and_is_replaced(open_chapter: Open, lab: Lab, ask: Ask) -> None:
    node = lab.nodes[2]
    right = ask(node, f"docker inspect --type image -f '{{{{.Id}}}}' {USERLAND}")
    ask(node, f"docker tag lab/mariadb:10.11 {USERLAND}")
    chapter = open_chapter("verify")
    assert "✗ another image than in its archive" in list(chapter.images().frame["state"])
    chapter.load_images()
    with pytest.raises(DriftFound, match=f"{node.name}: image {USERLAND}"):
        chapter.finish()
    result = open_chapter("apply").load_images()
    (one,) = result.having(Status.CHANGED)
    assert (one.host, one.step) == (node.name, f"image {USERLAND}")
    assert one.summary.endswith("in place of another image of this tag")
    assert ask(node, f"docker inspect --type image -f '{{{{.Id}}}}' {USERLAND}") == right


def test_a_unit_edited_by_hand_is_warned_of_and_a_restart_asks_first(open_chapter: Open, lab: Lab, ask: Ask) -> None:
    node, unit = lab.nodes[1], "/usr/lib/systemd/system/docker.service"
    pid = "systemctl show -p MainPID --value docker"
    before = ask(node, f"cp -p {unit} /root/unit; {pid}")
    ask(node, f"sed -i 's|-H fd://|& --insecure-registry 198.51.100.9:8600|' {unit}")
    try:
        chapter = open_chapter("apply")
        table = chapter.unit().frame.set_index("host")
        assert str(table.loc[node.name, "state"]).startswith(f"⚠ {unit} was edited by hand (rpm -V: S.5....T.)")
        with pytest.raises(GateRefused, match=rf"(?s)'{RESTART}'.*the restart ends 1 container:\s+mesos-.*{USERLAND}"):
            chapter.start()
        assert ask(node, pid) == before
    finally:
        ask(node, f"cp -p /root/unit {unit}; systemctl daemon-reload")


def test_a_restart_takes_one_host_and_its_containers_come_back(open_chapter: Open, lab: Lab, ask: Ask) -> None:
    node, unit = lab.nodes[1], "/usr/lib/systemd/system/docker.service"
    pids = [ask(one, "systemctl show -p MainPID --value docker") for one in lab.nodes]
    ask(node, f"cp -p {unit} /root/unit; touch {unit}")
    try:
        chapter = open_chapter("apply", yes=True)
        assert [(one.host, one.step) for one in chapter.start().having(Status.CHANGED)] == [
            (node.name, "service docker")
        ]
        after = [ask(one, "systemctl show -p MainPID --value docker") for one in lab.nodes]
        assert [old == new for old, new in zip(pids, after, strict=True)] == [True, False, True]
        assert chapter.running().holds
    finally:
        ask(node, f"cp -p /root/unit {unit}; systemctl daemon-reload")


def test_memory_that_did_not_suffice_is_found(open_chapter: Open, lab: Lab, ask: Ask) -> None:
    node = lab.nodes[0]
    grow = "x=aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa; while :; do x=$x$x; done"
    try:
        ask(node, f"docker run -m 8m --name mesos-greedy {USERLAND} sh -c '{grow}' || true")
        found = open_chapter("apply").findings().of(node.name)
        assert ["mesos-greedy ended with 137" in finding.evidence for finding in found] == [True]
    finally:
        ask(node, "docker rm -fv mesos-greedy")


# containers as steps


SECRET = "kept-out-of-sight-7"
DATA = "/opt/docker-test"
SERVE = "echo $GREETING >> /data/log; trap 'exit 0' TERM; while :; do sleep 0.2; done"


@pytest.fixture
def node(rolled_out: object, lab: Lab, ask: Ask) -> Iterator[Node]:
    node = lab.nodes[1]
    yield node
    ask(node, f"docker rm -fv shop shop.replaced 2>/dev/null; rm -rf {DATA} /run/sampl*; true")


def shop(**other: Any) -> Container:
    register(SECRET)
    wanted: dict[str, Any] = {
        "name": "shop",
        "image": USERLAND,
        "ports": {8390: 80},
        "environment": {"GREETING": "hello there", "SHOP_PASSWORD": Secret(SECRET)},
        "volumes": {DATA: "/data"},
        "command": ("sh", "-c", SERVE),
        "gate": RECREATE,
    }
    return Container(**(wanted | other))


def apply(site: Site, node: Node, step: Container, yes: bool = False, mode: Mode = Mode.APPLY) -> ApplyResult:
    with Hosts.of(site, mode=mode, yes=yes) as hosts:
        return hosts.only(node.name).apply([step])


def only(result: ApplyResult) -> tuple[str, str]:
    (one,) = result
    return one.status.value, one.summary


def test_a_container_from_nothing_to_replaced(site: Site, node: Node, ask: Ask) -> None:
    told: list[Event] = []
    unsubscribe = subscribe(told.append)
    ask(node, SAMPLE)
    try:
        assert only(apply(site, node, shop(), mode=Mode.PLAN)) == ("would change", "create and start")
        assert ask(node, "docker ps -aq --filter name=shop") == ""
        assert only(apply(site, node, shop())) == ("changed", "create and start")
        assert only(apply(site, node, shop())) == ("ok", "")
        first = ask(node, "docker inspect -f '{{.Id}}' shop")

        # stopped: started again, the same one
        ask(node, "docker stop shop")
        assert only(apply(site, node, shop())) == ("changed", "start")
        assert ask(node, "docker inspect -f '{{.Id}}' shop") == first

        # another variable: behind the gate, and the data stays
        other = shop(environment={"GREETING": "good bye", "SHOP_PASSWORD": Secret(SECRET)})
        with pytest.raises(GateRefused, match=rf"(?s){RECREATE}.*what\s+is\s+in\s+{DATA}\s+is\s+kept"):
            apply(site, node, other)
        assert ask(node, "docker inspect -f '{{.Id}}' shop") == first
        result = apply(site, node, other, yes=True)
        assert only(result) == ("changed", "replace")
        assert next(iter(result)).diff == "-env GREETING: hello there\n+env GREETING: good bye\n"
        assert ask(node, "docker inspect -f '{{.Id}}' shop") != first
        assert ask(node, f"cat {DATA}/log").splitlines() == ["hello there", "hello there", "good bye"]
        assert only(apply(site, node, other)) == ("ok", "")
        assert ask(node, "docker ps -a --format '{{.Names}}' --filter name=shop") == "shop"

        # in place
        assert only(apply(site, node, replace(other, restart="no"))) == ("changed", "set the restart policy")
    finally:
        unsubscribe()
        sampled = ask(node, "rm -f /run/sampling; sleep 0.2; sort -u /run/sampled")
    assert "docker create --name shop" in sampled
    assert "-e SHOP_PASSWORD" in sampled
    assert SECRET not in sampled
    assert SECRET not in str(told)
    assert SECRET in ask(node, "docker inspect -f '{{json .Config.Env}}' shop")


def test_where_the_new_container_does_not_stay_up_the_earlier_one_is_back(site: Site, node: Node, ask: Ask) -> None:
    apply(site, node, shop())
    first = ask(node, "docker inspect -f '{{.Id}}' shop")
    broken = shop(command=("sh", "-c", "echo flag provided but not defined >&2; exit 2"))
    with pytest.raises(ApplyFailed, match=r"(?s)does not stay up.*flag provided but not defined.*container is back"):
        apply(site, node, broken, yes=True)
    assert ask(node, "docker inspect -f '{{.Id}} {{.State.Running}}' shop") == f"{first} true"
    assert ask(node, "docker ps -a --format '{{.Names}}' --filter name=shop") == "shop"


def test_without_the_image_nothing_is_pulled(site: Site, node: Node) -> None:
    with pytest.raises(ApplyFailed, match=r"there is no image lab/none:1 on this host: load its archive first"):
        apply(site, node, shop(image="lab/none:1"))


# archives


def test_images_are_saved_from_a_real_engine(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """None can be pulled here, so one that is there is saved; nobody listens at port 9 of the loopback."""
    monkeypatch.setenv("DOCKER_HOST", lab.engine.address)
    repository = f"runbook-test-{lab.folder.id}/saved"
    tag = f"{repository}:1"
    lab.engine.client.api.import_image_from_data(
        pack({"hello": Entry(b"there", 0o644)}), repository=repository, tag="1"
    )
    unreachable = "127.0.0.1:9/none:1"
    zeros = "0" * 64
    (tmp_path / "site.yml").write_text(
        "name: t\nhosts: [{name: node1, address: 198.51.100.11, roles: [docker]}]\nimages:\n"
        f'  saved: {{tag: "{tag}", file: saved.tar, sha256: "{zeros}"}}\n'
        f'  none: {{tag: "{unreachable}", file: none.tar, sha256: "{zeros}"}}\n'
    )
    described = Site.load(tmp_path / "site.yml")
    try:
        (saved,) = images.save(described, ["saved"], pull=False)
        assert archived_id(tmp_path / "saved.tar", tag) == lab.engine.client.images.get(tag).id
        assert saved.sha256 in images.lines([saved])
        with pytest.raises(ImageUnavailable, match=r"127\.0\.0\.1:9/none:1 cannot be had: .*refused"):
            list(images.save(described, ["none"]))
        assert not (tmp_path / "none.tar").exists()
    finally:
        lab.engine.client.images.remove(tag)
