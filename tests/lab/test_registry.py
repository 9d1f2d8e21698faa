"""Chapter 7 on nodes: trust that is missing and mended, in either place; TLS with users; deletion; garbage.

What the runbook did is judged through `ask`, by Docker's own words and by the registry's. Each test leaves the lab as
the rollout made it.
"""

from __future__ import annotations

import json
import shlex
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from asking import Ask
from certificates import Authority, write
from chapters import Open as OpenKind
from chapters import changed, in_process, recording, statuses

from runbook.errors import ApplyFailed, CheckFailed, DeleteDisabled, DriftFound, GateRefused, RegistryReadOnly
from runbook.lab import Lab, Node
from runbook.lab.waiting import until
from runbook.remote.checks import CheckResult
from runbook.remote.modes import Status
from runbook.remote.results import ApplyResult
from runbook.services.docker import DockerHosts
from runbook.services.docker.daemon import SETTINGS
from runbook.services.registry import steps, transfer
from runbook.services.registry.chapter import RegistryChapter
from runbook.services.registry.client import Registry
from runbook.services.registry.trust import DROPIN, KEY
from runbook.site import Site

pytestmark = pytest.mark.lab

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "07_registry.ipynb"
FLAGGED = "/etc/systemd/system/docker.service.d/a-site.conf"
AS_FOUND = f"""
docker rm -f registry >/dev/null 2>&1
rm -rf /opt/registry /etc/registry /etc/docker/certs.d
images=$(docker images --format '{{{{.Repository}}}}:{{{{.Tag}}}}' | grep -e :8600/ -e ^lab/registry:)
[ -z "$images" ] || docker rmi $images >/dev/null
mkdir -p /etc/docker; echo '{{"insecure-registries": []}}' > {SETTINGS}
if [ -e {DROPIN} ] || [ -e {FLAGGED} ]; then
  rm -f {DROPIN} {FLAGGED}; systemctl daemon-reload; systemctl restart docker
else systemctl kill -s HUP --kill-who=main docker
fi
"""
"""A node with Docker, as far as this chapter goes, once Docker has read that it trusts nobody."""
PID = "systemctl show -p MainPID --value docker"
SHIM = "/opt/centos7/bin/docker"

Open = Callable[..., Any]


@pytest.fixture(scope="module")
def site(lab: Lab) -> Site:
    return Site.load(lab.site_file)


@pytest.fixture(scope="module")
def address(site: Site) -> str:
    assert site.registry_address is not None
    return site.registry_address


@pytest.fixture(scope="module")
def rolled_out(lab: Lab, ask: Ask, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Counter[str]]:
    """How the steps of the notebook ended: planned and applied on nodes that have Docker alone, then applied again."""
    folder = tmp_path_factory.mktemp("docker")
    with recording(folder):
        docker = DockerHosts(lab.site_file, mode="apply", yes=True)
        docker.install()
        docker.start()
        docker.load_images()
        docker.close()
    for node in lab.nodes:
        ask(node, AS_FOUND)
        until(lambda node=node: ":8600" not in insecure(ask, node), seconds=10)  # type: ignore[misc]
        ask(node, f"rm {SETTINGS}")
    found = {}
    site_file = changed(
        lab, folder, approvals=["restart-docker"]
    )  # 1.11's client does not show that a reload is enough
    for name, mode in (("plan", "plan"), ("first", "apply"), ("second", "apply"), ("verify", "verify")):
        found[name] = statuses(in_process("07_registry", tmp_path_factory.mktemp(name), site_file, mode))
    return found


@pytest.fixture(scope="module")
def newer_client(rolled_out: object, lab: Lab, ask: Ask) -> Iterator[None]:
    """Nodes whose Docker client shows what the daemon read of daemon.json, as 1.13 does, and the profile's does not."""
    for node in lab.nodes:
        ask(node, f"mv {SHIM} {SHIM}.aside")
    yield
    for node in lab.nodes:
        ask(node, f"mv {SHIM}.aside {SHIM}")


@pytest.fixture
def open_chapter(newer_client: object, open_kind: OpenKind) -> Open:
    """Opens chapter 7, once it was rolled out, on nodes with a newer Docker client."""
    return partial(open_kind, RegistryChapter)


def changes(result: ApplyResult) -> set[tuple[str, str, str]]:
    return {(one.host, one.step, one.summary) for one in result.having(Status.CHANGED)}


def read(ask: Ask, node: Node, script: str) -> str:
    """What a question prints that must print something: on a busy machine the engine may lose the output of an exec."""
    return until(lambda: ask(node, script), seconds=10)


def shown(checked: CheckResult) -> str:
    """The table of a check, whole."""
    assert checked.evidence.table is not None
    return checked.evidence.table.to_string()


def put(ask: Ask, node: Node, path: str, text: str) -> None:
    """Write a file of a node, as somebody would who does not use the runbook."""
    ask(node, f"mkdir -p $(dirname {path}); printf '%s\\n' {shlex.quote(text)} > {path}")


def hear(ask: Ask, node: Node) -> None:
    """Have Docker read its file anew."""
    ask(node, "systemctl kill -s HUP --kill-who=main docker")


def insecure(ask: Ask, node: Node) -> str:
    """What Docker itself says of its registries."""
    return read(ask, node, "docker info -f '{{json .RegistryConfig}}'")


# rolled out


def test_a_plan_changes_nothing_and_the_second_rollout_neither(rolled_out: dict[str, Counter[str]]) -> None:
    assert set(rolled_out["plan"]) <= {"ok", "would change"}
    assert rolled_out["plan"]["would change"] >= 4
    assert rolled_out["first"]["changed"] >= 4
    assert set(rolled_out["second"]) == {"ok"}
    assert set(rolled_out["verify"]) == {"ok"}


def test_images_lie_on_the_host_and_every_docker_trusts_the_registry(
    rolled_out: object, lab: Lab, ask: Ask, address: str
) -> None:
    assert read(ask, lab.nodes[0], "ls /opt/registry/docker/registry/v2/repositories/lab") == "userland"
    for node in lab.nodes:
        assert json.loads(read(ask, node, f"cat {SETTINGS}")) == {KEY: [address]}
        until(lambda node=node: address in insecure(ask, node), seconds=10)  # type: ignore[misc]
        assert address not in ask(node, "docker images --format '{{.Repository}}'")  # only the registry keeps it


# trust


def test_the_host_that_lacks_the_registry_is_named_and_mended_without_a_restart(
    open_chapter: Open, lab: Lab, ask: Ask, address: str
) -> None:
    node, name = lab.nodes[1], f"{address}/lab/userland:1"
    pid = read(ask, node, PID)
    own = {"log-level": "info", KEY: ["10.1.1.1:5000"], "labels": ["rack=1"]}
    put(ask, node, SETTINGS, json.dumps(own))
    hear(ask, node)
    until(lambda: address not in insecure(ask, node), seconds=10)

    try:
        said = read(
            ask, node, f"docker tag lab/userland:1 {name}; ! docker push {name} 2>&1; docker rmi {name} >/dev/null"
        )
        assert "http: server gave HTTP response to HTTPS client" in said

        chapter = open_chapter("verify")
        assert not chapter.trusted().holds
        reached = chapter.reached()
        assert reached.evidence.text == f"{node.name}: see the table"
        assert "does not have the registry among its insecure ones" in shown(reached)
        (finding,) = chapter.findings()
        assert (finding.host, finding.remedy) == (
            node.name,
            "run 7.2: it tells this host's Docker to trust the registry",
        )
        chapter = open_chapter("verify")
        chapter.trust()
        with pytest.raises(DriftFound, match=rf"{node.name}: members of {SETTINGS}"):
            chapter.finish()

        mended = open_chapter("apply").trust()
        assert changes(mended) == {
            (node.name, f"members of {SETTINGS}", "edit"),
            (node.name, "service docker", "reload"),
        }
        assert json.loads(read(ask, node, f"cat {SETTINGS}")) == {**own, KEY: ["10.1.1.1:5000", address]}
        assert read(ask, node, PID) == pid
        assert open_chapter("apply").reached().holds
    finally:
        put(ask, node, SETTINGS, json.dumps({KEY: [address]}))
        hear(ask, node)


def test_with_the_flag_on_the_command_line_a_drop_in_adds_to_it_behind_the_gate(
    open_chapter: Open, lab: Lab, ask: Ask, address: str
) -> None:
    node = lab.nodes[2]
    command = "/usr/bin/dockerd -H fd:// --shutdown-timeout 1 --insecure-registry 10.1.1.1:5000"
    put(ask, node, FLAGGED, f"[Service]\nExecStart=\nExecStart={command}")
    waiting = "sh -c 'trap exit TERM; while :; do sleep 0.2; done'"
    ask(
        node, f"systemctl daemon-reload; docker run -d --name kept --restart always lab/userland:1 {waiting} >/dev/null"
    )
    pid = read(ask, node, PID)
    try:
        # the gate says what the restart ends, and behind it nothing is written
        with pytest.raises(GateRefused, match=r"restart-docker.*(?s:.*)kept\s+\(lab/userland:1\)"):
            open_chapter("apply").trust()
        assert KEY in read(ask, node, f"cat {SETTINGS}")
        assert read(ask, node, f"ls {DROPIN} 2>&1 || true").startswith("ls: cannot access")
        assert read(ask, node, PID) == pid

        moved = open_chapter("apply", yes=True).trust()
        assert (node.name, "service docker", "restart") in changes(moved)
        assert KEY not in json.loads(read(ask, node, f"cat {SETTINGS}"))
        assert read(ask, node, f"tail -n 1 {DROPIN}") == f"ExecStart={command} $RUNBOOK_INSECURE_REGISTRIES"
        assert address in read(ask, node, f"tr '\\0' ' ' < /proc/$({PID})/cmdline")
        assert read(ask, node, "docker ps --filter name=kept --format '{{.Names}}'") == "kept"
        assert open_chapter("apply").reached().holds
        assert open_chapter("apply").trust().counts.keys() == {Status.OK}

        # given in both places Docker does not start; what it says then is told, and where the earlier file is
        broken = {KEY: ["b:2"], "no-such-key": 1}
        put(ask, node, SETTINGS, json.dumps(broken))
        # with this unit Docker waits 15 s for containers whose shims systemd ends along with it
        ask(node, "docker ps -q | xargs -r docker rm -f >/dev/null")
        ask(node, "! systemctl restart docker 2>/dev/null; systemctl stop docker.socket")
        said = read(ask, node, "journalctl -q -o cat --no-pager -n 50 -u docker")
        assert "directives don't match any configuration option: no-such-key" in said
        with pytest.raises(ApplyFailed, match="configuration option: no-such-key") as failed:
            open_chapter("apply", yes=True).trust()
        backup = str(failed.value.remedy).partition("what was there before: ")[2].partition(" ")[0]
        assert json.loads(read(ask, node, f"cat {backup}")) == broken
        put(ask, node, SETTINGS, json.dumps({KEY: ["b:2"]}))
        ask(node, "systemctl reset-failed docker docker.socket; ! systemctl start docker 2>/dev/null")
        said = read(ask, node, "journalctl -q -o cat --no-pager -n 50 -u docker")
        assert "specified both as a flag and in the configuration file: insecure-registries" in said
        ask(node, "systemctl reset-failed docker docker.socket")
        mended = changes(open_chapter("apply").trust())  # its socket may have started it in the meantime
        assert mended & {(node.name, "service docker", action) for action in ("start", "restart")}
        assert "b:2" in insecure(ask, node)
    finally:
        ask(node, f"rm -f {FLAGGED}; systemctl daemon-reload; docker rm -f kept >/dev/null 2>&1; true")

    # without the flag, the place is daemon.json again, for what came from there as well
    assert (node.name, "service docker", "restart") in changes(open_chapter("apply", yes=True).trust())
    assert read(ask, node, f"ls {DROPIN} 2>&1 || true").startswith("ls: cannot access")
    assert json.loads(read(ask, node, f"cat {SETTINGS}")) == {KEY: ["b:2", address]}
    put(ask, node, SETTINGS, json.dumps({KEY: [address]}))
    hear(ask, node)


# tls


def test_tls_with_users_there_and_back_again(
    open_chapter: Open, lab: Lab, ask: Ask, address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = lab.nodes[:2]
    authority = Authority()
    write(tmp_path, *authority.sign(first.address), authority.pem)
    monkeypatch.setenv("REGISTRY_TEST_PASSWORD", "correct horse battery")
    files = {"certificate": "c.pem", "key": "k.pem", "ca": "ca.pem"}
    users = {"user": "operator", "password": "env:REGISTRY_TEST_PASSWORD"}
    file = changed(lab, tmp_path, registry={"security": "tls", "tls": files, **users})
    pids = [read(ask, node, PID) for node in lab.nodes]

    try:
        chapter = open_chapter("apply", file, yes=True)
        chapter.trust()
        assert chapter.trusted().holds
        chapter.run()
        assert chapter.answers().evidence.text.startswith(f"https://{address}/v2/ answers and takes user operator")
        assert chapter.reached().holds
        assert chapter.round_trip().holds
        assert not chapter.findings()
        chapter.finish()

        assert [read(ask, node, PID) for node in lab.nodes] == pids  # no Docker was restarted for it
        assert read(ask, first, "stat -c '%a %n' /etc/registry/key.pem /etc/registry/htpasswd /etc/registry").split(
            "\n"
        ) == [
            "600 /etc/registry/key.pem",
            "600 /etc/registry/htpasswd",
            "700 /etc/registry",
        ]
        assert json.loads(read(ask, second, f"cat {SETTINGS}")) == {KEY: []}
        for node in lab.nodes:
            assert ask(node, "ls -d /run/runbook.* /root/.docker/config.json 2>/dev/null || true") == ""
            assert "correct horse" not in ask(
                node, "docker inspect registry 2>/dev/null; journalctl -q --no-pager -n 500"
            )
        name = f"{address}/lab/userland:1"
        said = read(
            ask, second, f"docker tag lab/userland:1 {name}; ! docker push {name} 2>&1; docker rmi {name} >/dev/null"
        )
        assert "no basic auth credentials" in said

        again = open_chapter("apply", file)
        assert again.trust().counts.keys() == again.run().counts.keys() == {Status.OK}

        # a host without the CA is named
        ask(second, f"mv /etc/docker/certs.d/{address}/ca.crt /root/ca.crt")
        verified = open_chapter("verify", file)
        assert "certificate signed by unknown authority" in shown(verified.reached())
        assert [finding.host for finding in verified.findings()] == [second.name]
        ask(second, f"mv /root/ca.crt /etc/docker/certs.d/{address}/ca.crt")

        # another password is written, and the registry has read it
        monkeypatch.setenv("REGISTRY_TEST_PASSWORD", "battery horse correct")
        renewed = open_chapter("apply", file, yes=True)
        summaries = {(step, summary) for _, step, summary in changes(renewed.run())}
        assert summaries == {
            ("user operator in /etc/registry/htpasswd", "edit"),
            ("registry has read its files", "restart"),
        }
        assert renewed.answers().holds
    finally:
        back = open_chapter("apply", yes=True)
        back.trust()
        back.run()
    assert back.reached().holds
    assert back.round_trip().holds
    for node in lab.nodes:
        assert json.loads(read(ask, node, f"cat {SETTINGS}")) == {KEY: [address]}
        ask(node, f"rm -rf /etc/docker/certs.d/{address} /etc/registry")


# deletion and garbage


@pytest.fixture
def pushed(open_chapter: Open, lab: Lab, ask: Ask, address: str) -> Iterator[str]:
    """An image of its own in the registry, under two tags with one digest; on no host."""
    name = f"{address}/team/app"
    ask(
        lab.nodes[0],
        f"head -c 300000 /dev/urandom > /tmp/blob; tar -C /tmp -c blob | docker import - {name}:1 >/dev/null; "
        f"docker push {name}:1 >/dev/null; status=$?; docker rmi {name}:1 >/dev/null; rm /tmp/blob; exit $status",
    )
    with Registry(f"http://{address}") as registry:
        registry.retag("team/app", "1", "same")
        yield registry.digest("team/app", "1")


def test_what_is_deleted_and_what_is_freed(
    open_chapter: Open, lab: Lab, ask: Ask, address: str, pushed: str, site: Site, tmp_path: Path
) -> None:
    node = lab.nodes[0]
    disk = "du -sb /opt/registry/docker/registry/v2/blobs | cut -f 1"
    with Registry(f"http://{address}") as registry:
        # 405 where deletion is not enabled (7.5.2)
        keeping = changed(lab, tmp_path, registry={"delete_enabled": False})
        open_chapter("apply", keeping, yes=True).run()
        with pytest.raises(DeleteDisabled):
            open_chapter("apply", keeping, yes=True).delete_tag("team/app", "1")
        assert [one.cause for one in open_chapter("verify").findings()] == [
            "the registry does not delete: it answers 405 (7.5.2)"
        ]
        with pytest.raises(GateRefused, match="recreate-container"):
            open_chapter("apply").run()
        open_chapter("apply", yes=True).run()

        with pytest.raises(GateRefused, match=r"and\s+with\s+it\s+same,\s+of\s+the\s+same\s+digest"):
            open_chapter("apply").delete_tag("team/app", "1")
        assert registry.tags("team/app") == ["1", "same"]
        (row,) = open_chapter("apply", yes=True).delete_tag("team/app", "1")
        assert (row.status, row.summary) == (Status.CHANGED, "delete 1, same")
        assert registry.tags_of("team/app", pushed) == []

        garbage = open_chapter("plan").garbage()
        assert garbage.blobs >= 2  # the layer and the configuration; the manifest as well
        assert garbage.bytes > 300_000
        assert "team/app" in set(garbage.table.frame["repositories"])
        before = int(read(ask, node, disk))
        with pytest.raises(GateRefused, match="collect-garbage"):
            open_chapter("apply").collect_garbage()
        assert int(read(ask, node, disk)) == before

        collected = open_chapter("apply", yes=True).collect_garbage()
        assert not collected.failed
        assert before - int(read(ask, node, disk)) >= garbage.bytes
        assert open_chapter("apply").garbage().blobs == 0
        assert not open_chapter("apply").findings()
        assert open_chapter("apply").round_trip().holds  # it takes pushes again


def test_a_registry_that_was_left_read_only_is_found_and_mended(
    open_chapter: Open, lab: Lab, ask: Ask, address: str, site: Site
) -> None:
    chapter = open_chapter("apply", yes=True)
    try:
        chapter.members.apply([steps.container(site, read_only=True, gate=None)])
        with Registry(f"http://{address}") as registry, pytest.raises(RegistryReadOnly):
            registry.retag("lab/userland", "1", "two")
        with pytest.raises(CheckFailed, match="it is read-only, or runs without"):
            chapter.round_trip()

        verified = open_chapter("verify")
        assert "the registry is read-only" in [one.cause for one in verified.findings()]
        verified.run()
        with pytest.raises(DriftFound, match="container registry"):
            verified.finish()
    finally:
        open_chapter("apply", yes=True).run()
    assert open_chapter("apply").round_trip().holds


def test_a_registry_that_is_down_is_told(open_chapter: Open, lab: Lab, ask: Ask, site: Site) -> None:
    ask(lab.nodes[0], "docker stop registry")
    verified = open_chapter("verify")
    assert not verified.up().holds
    assert [one.cause for one in verified.findings()][:1] == ["the container registry does not run"]
    assert not transfer.reached(verified.hosts()).holds
    assert changes(open_chapter("apply").run()) == {("node1", "container registry", "start")}
    assert open_chapter("apply").answers().holds
