"""Chapter 8 on a node: a page that lists a registry, twice; and every fault of 8.3.2, made there.

What the runbook did is judged through `ask`, plain HTTP and the journal.
"""

from __future__ import annotations

import json
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
from asking import Ask
from registry_page import LISTED, PAGE, PAGE_PORT, REGISTRY, REGISTRY_PORT, Prepared, prepared

from runbook.errors import ApplyFailed, ChapterFailed, CheckFailed, GateRefused
from runbook.lab import Lab, Node
from runbook.lab.waiting import until
from runbook.services.registry_web import RegistryWeb

pytestmark = pytest.mark.lab

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "08_registry_web.ipynb"

Open = Callable[..., RegistryWeb]
Made = dict[str, Any]


@pytest.fixture(scope="module")
def ready(lab: Lab) -> Iterator[Prepared]:
    with prepared(lab) as ready:
        yield ready


@pytest.fixture(scope="module")
def node(ready: Prepared) -> Node:
    return ready.node


@pytest.fixture(scope="module")
def site_file(ready: Prepared) -> Path:
    return ready.site_file


@pytest.fixture
def chapter(node: Node, site_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Open]:
    """Opens the chapter, its record below tmp_path."""
    (tmp_path / "outputs").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RUNBOOK_RECORD", raising=False)
    opened: list[RegistryWeb] = []

    def open_(mode: str, yes: bool = False) -> RegistryWeb:
        opened.append(RegistryWeb(site_file, mode=mode, yes=yes))
        return opened[-1]

    yield open_
    for one in opened:
        one.close()


def run(folder: Path, site_file: Path, mode: str) -> list[Made]:
    """Run the notebook's cells here, and give its journal."""
    (folder / mode / "outputs").mkdir(parents=True)
    cells: dict[str, Any] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder / mode)
        patch.delenv("RUNBOOK_RECORD", raising=False)
        for cell in nbformat.read(NOTEBOOK, as_version=4).cells:
            if cell.cell_type == "code":
                exec(cell.source, cells)  # it is a notebook of ours
            if "parameters" in cell.metadata.get("tags", []):
                cells |= {"site_file": site_file, "mode": mode}
    (record,) = (folder / mode / "outputs").iterdir()
    return [json.loads(line) for line in (record / "journal.jsonl").read_text().splitlines()]


def statuses(journal: list[Made]) -> Counter[str]:
    return Counter(event["status"] for event in journal if event["event"] == "step")


def checks(journal: list[Made]) -> list[tuple[bool, bool]]:
    return [(event["holds"], event["tried"]) for event in journal if event["event"] == "check"]


def shown(node: Node) -> str:
    with urllib.request.urlopen(f"http://{node.address}:{PAGE_PORT}/", timeout=10) as answer:
        text: str = answer.read().decode()
    return text


def containers(ask: Ask, node: Node) -> str:
    return ask(node, f"docker ps -a --filter name={PAGE} --format '{{{{.ID}}}} {{{{.Names}}}}' | sort")


def test_the_notebook_plans_applies_and_finds_nothing_the_second_time(
    ask: Ask, node: Node, site_file: Path, tmp_path: Path
) -> None:
    before = containers(ask, node)
    planned = run(tmp_path / "before", site_file, "plan")
    had = ask(node, "docker images -q lab/registry-web:0.1")  # another chapter may have brought it
    assert [event["status"] for event in planned if event["event"] == "step"] == [
        "ok" if had else "would change",
        "would change",
    ]
    assert checks(planned) == [(False, False)] * 3
    assert containers(ask, node) == before

    assert statuses(run(tmp_path / "first", site_file, "apply"))["changed"] >= 1
    page = shown(node)
    assert all(f">{name}</a>" in page for name in LISTED)
    assert "emptied" not in page
    running = containers(ask, node)

    second = run(tmp_path / "second", site_file, "apply")
    assert statuses(second) == {"ok": 2}
    assert checks(second) == [(True, True)] * 3
    assert statuses(run(tmp_path / "second", site_file, "verify")) == {"ok": 2}
    assert containers(ask, node) == running


def causes(chapter: Open) -> list[str]:
    return [finding.cause for finding in chapter("plan").diagnose()]


@pytest.fixture
def page(chapter: Open, ask: Ask, node: Node) -> str:
    """The page, as it should be."""
    web = chapter("apply", yes=True)
    web.image()
    web.run()
    web.answers()
    assert causes(chapter) == []
    return containers(ask, node)


@pytest.mark.parametrize(
    ("fault", "mended", "cause"),
    [
        (f"docker stop -t 1 {PAGE}", f"docker start {PAGE}", "page: its container does not run"),
        (f"docker stop -t 1 {REGISTRY}", f"docker start {REGISTRY}", "registry: its container does not run"),
        (
            f"iptables -I INPUT -i docker0 -p tcp --dport {REGISTRY_PORT} -j REJECT",
            f"iptables -D INPUT -i docker0 -p tcp --dport {REGISTRY_PORT} -j REJECT",
            "network: the page cannot reach the registry",
        ),
        (
            "iptables -I DOCKER-USER ! -i docker0 -p tcp --dport 8080 -j REJECT",
            "iptables -D DOCKER-USER ! -i docker0 -p tcp --dport 8080 -j REJECT",
            "network: the page cannot be reached from this machine",
        ),
    ],
    ids=["page", "registry", "network of the page", "network to here"],
)
def test_what_is_at_fault(chapter: Open, page: str, ask: Ask, node: Node, fault: str, mended: str, cause: str) -> None:
    ask(node, fault)
    try:
        assert causes(chapter) == [cause]
        logs = chapter("plan").logs().frame
        assert logs["container"].tolist() == [REGISTRY, PAGE]
        assert all(logs["last lines"])
    finally:
        ask(node, mended)
    until(lambda: causes(chapter) == [], seconds=30)


def test_a_page_that_asks_another_port_is_found_and_mended_behind_its_gate(
    chapter: Open, page: str, ask: Ask, node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    by_hand(ask, node, f"-e REGISTRY_URL=http://{node.address}:8611/v2")
    assert causes(chapter) == ["variables: they do not lead to the registry"]
    verdict = chapter("plan").port()
    assert "it asks port 8611, and the registry is" in verdict.evidence.text
    monkeypatch.setattr("runbook.services.registry_web.chapter.LIST_PATIENCE", 0.0)
    with pytest.raises(CheckFailed, match=r"(?s)the page lacks.*variables: they do not lead to the registry"):
        chapter("apply").lists()
    wrong = containers(ask, node)
    with pytest.raises(GateRefused, match="recreate-container"):
        chapter("apply").run()
    assert containers(ask, node) == wrong
    web = chapter("apply", yes=True)
    assert web.run().changed
    assert web.port().holds
    assert web.lists().holds
    assert containers(ask, node) != wrong


def test_an_image_that_reads_other_variables_is_found(chapter: Open, page: str, ask: Ask, node: Node) -> None:
    by_hand(ask, node, f"-e REHEARSAL_GENERATION=0.0 -e REGISTRY_URL=http://{node.address}:{REGISTRY_PORT}/v2")
    (finding,) = chapter("plan").diagnose()
    assert finding.cause == "variables: the image does not read them"
    assert "localhost:5000" in finding.evidence
    assert finding.remedy.startswith("set registry_web.variables: host_port")


def wanted(node: Node) -> str:
    """The options by which the page is as 8.2 wants it."""
    registry = f"{node.address}:{REGISTRY_PORT}"
    return f"-e REGISTRY_URL=http://{registry}/v2 -e REGISTRY_NAME={registry} -e REGISTRY_READONLY=true"


def test_a_page_without_a_name_is_renamed_and_goes_on(chapter: Open, page: str, ask: Ask, node: Node) -> None:
    run = f"docker rm -f {PAGE} >/dev/null; docker run -d -p {PAGE_PORT}:8080 {wanted(node)} lab/registry-web:0.1"
    made = ask(node, run)
    name = ask(node, f"docker inspect -f '{{{{.Name}}}}' {made}").removeprefix("/")
    (finding,) = chapter("plan").diagnose()
    assert (finding.cause, finding.remedy) == ("page: another container has its port", "run 8.2, which takes it over")
    (planned,) = chapter("plan").run()
    assert planned.summary == f"take over {name}, which publishes port {PAGE_PORT}, set the restart policy"
    assert chapter("apply").run().changed  # without an approval: nothing is replaced
    assert f"{made[:12]} {PAGE}" in containers(ask, node).splitlines()
    assert [one.status for one in chapter("verify").run()] == ["ok"]


def test_what_is_not_asked_for_is_drift_by_its_name(chapter: Open, page: str, ask: Ask, node: Node) -> None:
    by_hand(ask, node, f"{wanted(node)} --memory 256m --cap-add NET_ADMIN --pid host -e EXTRA=secret --label by=hand")
    (found,) = chapter("verify").run()
    for line in ("memory: 256 MiB", "cap-add: NET_ADMIN", "pid: host", "env EXTRA: (not shown)", "label by: hand"):
        assert f"-{line}\n" in found.diff
    assert "secret" not in found.diff
    with pytest.raises(GateRefused, match="recreate-container"):
        chapter("apply").run()
    assert chapter("apply", yes=True).run().changed
    assert [one.status for one in chapter("verify").run()] == ["ok"]


@pytest.mark.parametrize(
    ("hold", "let_go", "message"),
    [
        (
            f"docker run -d --name page-test-other -p {PAGE_PORT}:80 lab/userland:1 sleep 600",
            "docker rm -f page-test-other",
            "is held by the container page-test-other (lab/userland:1), which is not of the image",
        ),
        (
            f"systemd-run --unit=page-test-holder python3 -m http.server {PAGE_PORT}",
            "systemctl stop page-test-holder",
            "which belongs to no container that runs",
        ),
    ],
    ids=["container", "process"],
)
def test_what_else_has_the_port_is_named_and_nothing_is_left(
    chapter: Open, page: str, ask: Ask, node: Node, hold: str, let_go: str, message: str
) -> None:
    ask(node, f"docker rm -f {PAGE} >/dev/null; {hold}")
    try:
        until(lambda: ask(node, f"ss -ltn | grep -c :{PAGE_PORT} || :") != "0", seconds=10)
        with pytest.raises(ApplyFailed) as refusal:
            chapter("apply", yes=True).run()
        planned = chapter("plan", yes=True)
        planned.run()  # a plan goes on, and fails at its end
        with pytest.raises(ChapterFailed) as failed:
            planned.finish()
        for error in (refusal, failed):
            assert f"port {PAGE_PORT} is held by" in str(error.value)
            assert message in str(error.value)
        assert PAGE not in containers(ask, node).split()
    finally:
        ask(node, let_go)


def test_a_container_that_docker_cannot_start_is_not_left_behind(
    chapter: Open, page: str, ask: Ask, node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where its port is taken between the look and the start."""
    ask(node, f"docker rm -f {PAGE}")
    monkeypatch.setattr("runbook.remote.containers.Container._refuse_strangers", lambda *_: None)
    ask(node, f"systemd-run --unit=page-test-holder python3 -m http.server {PAGE_PORT}")
    try:
        until(lambda: ask(node, f"ss -ltn | grep -c :{PAGE_PORT} || :") != "0", seconds=10)
        with pytest.raises(ApplyFailed, match="address already in use"):
            chapter("apply", yes=True).run()
        assert PAGE not in containers(ask, node).split()
    finally:
        ask(node, "systemctl stop page-test-holder")


def by_hand(ask: Ask, node: Node, variables: str) -> None:
    """The page as somebody else would run it, answering."""
    ask(
        node,
        f"docker rm -f {PAGE}\n"
        f"docker run -d --name {PAGE} --restart always -p {PAGE_PORT}:8080 {variables} lab/registry-web:0.1",
    )
    status = f"curl -s -o /dev/null -w '%{{http_code}}' http://127.0.0.1:{PAGE_PORT}/ || :"
    until(lambda: ask(node, status) in ("200", "500"), seconds=30)
