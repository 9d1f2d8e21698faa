"""A cluster that was set up by hand, by the document's commands, is checked, planned, taken over, and verified.

The nodes are set up by `by_hand.sh`, the document's own commands with its mistakes, while an app runs in Marathon.
"""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from asking import Ask
from chapters import Open, changed

from runbook.lab import Lab, Node
from runbook.lab.archive import Entry, pack
from runbook.lab.waiting import until
from runbook.services.overview import Overview
from runbook.site import Site
from runbook.views.tables import Table

pytestmark = [pytest.mark.lab, pytest.mark.timeout(900)]  # nodes, and three rollouts

CHECKOUT = Path(__file__).parents[2]
"""Where a rollout finds the notebooks; chapters that a test opens leave their records elsewhere."""
RUNBOOK = Path(sys.executable).parent / "runbook"
SCRIPT = Path(__file__).with_name("by_hand.sh").read_text()
EXISTING = "test2"
"""The app of 4.3 as the document's pictures show it: no parameter names it."""


@pytest.fixture(scope="module")
def by_hand(lab: Lab, ask: Ask, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The lab's nodes as the document sets three up, its app running; reset afterwards."""
    site = Site.load(changed(lab, tmp_path_factory.mktemp("site"), name="by-hand"))
    _reset(lab)
    try:
        with ThreadPoolExecutor(len(lab.nodes)) as pool:
            list(pool.map(lambda node: _bring(lab, site, node), lab.nodes))
            for sections in ("1", "2 3 4 5 7_2"):
                list(pool.map(lambda node, of=sections: _type(lab, site, node, of, ask), lab.nodes))
        _type(lab, site, lab.nodes[0], "7 8", ask)
        until(lambda: _curl(ask, lab.nodes[0], "/v2/leader"), seconds=60)
        _type(lab, site, lab.nodes[0], "4_3 5_3", ask)
        until(lambda: len(_running(ask, lab.nodes[0])) == 4, seconds=60)
        yield site
    finally:
        _reset(lab)


def _reset(lab: Lab) -> None:
    for node in lab.nodes:
        lab.reset(node)


def _bring(lab: Lab, site: Site, node: Node) -> None:
    """Upload what the document fetches elsewhere, under its names."""
    uploads = {"marathon.rpm": site.artifacts["marathon"].file, "centos.tar": site.images["userland"].file}
    if node is lab.nodes[0]:
        uploads |= {"registry.tar": site.images["registry"].file}
        uploads |= {"hyper_registry_web.tar": site.images["registry_web"].file}
    container = lab.engine.client.containers.get(node.container)
    for name, file in uploads.items():
        # /tmp is a mount of the node, into which nothing can be copied from outside
        container.put_archive("/root", pack({name: Entry(file.read_bytes(), 0o644)}))
        assert lab.exec(node, f"mv /root/{name} /tmp/{name}").status == 0


def _type(lab: Lab, site: Site, node: Node, sections: str, ask: Ask) -> None:
    variables = {f"n{number}": one.address for number, one in enumerate(lab.nodes, start=1)}
    variables |= {"me": node.address, "id": str(lab.nodes.index(node) + 1)}
    variables |= {"userland": site.images["userland"].tag, "registry": site.images["registry"].tag}
    variables["page"] = site.images["registry_web"].tag
    given = "".join(f"{name}={shlex.quote(value)}\n" for name, value in variables.items())
    ask(node, "\n".join(["set -e", given, SCRIPT, *(f"section_{section}" for section in sections.split())]))


def _curl(ask: Ask, node: Node, path: str) -> Any:
    """What Marathon answers; None where it does not."""
    text = ask(node, f"curl -sf -m 5 http://{node.address}:8080{path} || :")
    return json.loads(text) if text else None


def _running(ask: Ask, node: Node) -> set[str]:
    """The ids of the tasks of the app that run."""
    answer = _curl(ask, node, f"/v2/apps/{EXISTING}/tasks") or {"tasks": []}
    return {task["id"] for task in answer["tasks"] if task.get("startedAt")}


def rollout(site: Site, folder: Path, mode: str) -> tuple[int, str, list[dict[str, Any]]]:
    """Exit status, output and journal of a rollout of all chapters."""
    outputs = folder / mode
    command = [str(RUNBOOK), "rollout", str(site.file), "--mode", mode, "--outputs", str(outputs), "--yes"]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False)
    assert outputs.exists(), done.stdout + done.stderr
    (record,) = outputs.iterdir()
    journal = [json.loads(line) for line in (record / "journal.jsonl").read_text().splitlines()]
    return done.returncode, done.stdout + done.stderr, journal


def state_of(ask: Ask, node: Node) -> str:
    """What a plan must leave alone: files, services, containers."""
    return ask(
        node,
        "find /etc /usr/lib/systemd /var/lib/zookeeper/myid -xdev -type f -printf '%p %s %T@\\n' | sort | sha256sum\n"
        "systemctl show -p MainPID mesos-master mesos-slave marathon docker rsyslog\n"
        "docker ps -a --no-trunc --format '{{.ID}} {{.Names}} {{.Status}}' | sed 's/ Up .*//' | sort",
    )


def left(table: Table, node: Node) -> dict[str, str]:
    """By its path, the state of what chapter 0 lists as left over on a node."""
    rows = table.frame[table.frame["host"] == node.name].to_dict("records")
    return {re.split(r"[ ,]", str(row["what is left"]), maxsplit=1)[0]: str(row["state"]) for row in rows}


def test_it_is_taken_over(by_hand: Site, lab: Lab, ask: Ask, tmp_path: Path, open_kind: Open) -> None:
    first = lab.nodes[0]
    page = ask(first, "docker ps --filter publish=8400 --format '{{.Names}}'")
    assert page != by_hand.registry_web.container

    checked = subprocess.run([RUNBOOK, "check", by_hand.file], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert page in checked.stdout

    before = {node.name: state_of(ask, node) for node in lab.nodes}
    status, printed, journal = rollout(by_hand, tmp_path, "plan")
    assert status == 0, printed
    assert {node.name: state_of(ask, node) for node in lab.nodes} == before
    planned = {event["step"]: event for event in journal if event["event"] == "step" and event["host"] == first.name}
    taken = planned[f"container {by_hand.registry_web.container}"]
    assert taken["summary"] == f"replace {page}, which publishes port 8400"
    assert "-env REGISTRY_HOST: (not shown)\n" in taken["diff"]
    assert f"-name: {page}\n+name: {by_hand.registry_web.container}\n" in taken["diff"]
    assert "+env REGISTRY_STORAGE_DELETE_ENABLED: true\n" in planned["container registry"]["diff"]
    foretold = json.dumps([event for event in journal if event["event"] in ("step", "check", "gate", "table")])
    tasks = _running(ask, first)

    status, printed, journal = rollout(by_hand, tmp_path, "apply")
    assert status == 0, printed
    lost = tasks - _running(ask, first)
    assert all(task in foretold for task in lost), f"{lost}\n{foretold}"
    until(lambda: len(_running(ask, first)) == 4, seconds=60)
    assert ask(first, "docker ps -a --format '{{.Names}}' | grep -v ^mesos- | sort").split() == [
        by_hand.registry.container,
        by_hand.registry_web.container,
    ]
    pushed = ask(first, f"curl -s http://{first.address}:8600/v2/ubuntu/tags/list")
    assert json.loads(pushed)["tags"] == ["latest"]

    assert left(open_kind(Overview, "plan", by_hand.file).leftovers(), first) == {
        "/etc/zookeeper/conf/myid": "⚠ may be removed",
        "/tmp/mesos": "⚠ may be removed",
        "/usr/lib/systemd/system/docker.service": "○ in use: Docker runs by it, and trusts the registry by it",
        **dict.fromkeys(("/tmp/centos.tar", "/tmp/registry.tar", "/tmp/hyper_registry_web.tar"), "⚠ may be removed"),
    }

    status, printed, journal = rollout(by_hand, tmp_path, "verify")
    assert status == 0, printed
    assert {event["status"] for event in journal if event["event"] == "step"} <= {"ok", "skipped"}
