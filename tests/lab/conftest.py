"""The lab that all tests on nodes share.

It is brought up once and left up, so that the next run finds it (RUNBOOK_LAB_KEEP=0 takes it down). Tests look at nodes
through `lab.exec`, which does not go over SSH: what the runbook did is judged by other means than its own.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from asking import Ask
from chapters import Open, recording

from runbook import lab as labs
from runbook.chapter import Chapter
from runbook.lab import Lab, Node

ORDER = (
    *(
        "test_lab",
        "test_core",
        "test_by_hand",
        "test_zookeeper_nodes",
        "test_lock_nodes",
        "test_mesos",
        "test_marathon",
        "test_docker_nodes",
        "test_drift",
    ),
    *("test_mysql", "test_registry", "test_registry_web_nodes"),
)
"""Tests that make nodes anew come first, then the chapters in theirs, so that each finds what it stands on."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Bring the tests on nodes into this order; the others stay where they are."""
    here = Path(__file__).parent
    places = [place for place, item in enumerate(items) if item.path.parent == here]
    ordered = sorted((items[place] for place in places), key=lambda item: ORDER.index(item.path.stem))
    for place, item in zip(places, ordered, strict=True):
        items[place] = item


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    """A lab of three nodes that answers, of the document's platform."""
    os.environ.pop("RUNBOOK_LAB_PROFILE", None)  # tests bring it up again, and expect it unchanged
    with labs.up() as running:
        yield running
    if os.environ.get("RUNBOOK_LAB_KEEP") == "0":
        labs.down()


@pytest.fixture(scope="session")
def ask(lab: Lab) -> Ask:
    """What a script on a node prints; a script that fails fails the test."""

    def answer(node: Node, script: str) -> str:
        output = lab.exec(node, script)
        assert output.status == 0, f"{node.name}: {script}\n{output.stdout}{output.stderr}"
        return output.stdout.strip()

    return answer


@pytest.fixture
def fresh_node(lab: Lab) -> Iterator[Node]:
    """The last node as it first came, and made anew after the test, whatever that did to it."""
    node = lab.nodes[-1]
    lab.reset(node)
    yield node
    lab.reset(node)


@pytest.fixture
def open_kind(lab: Lab, tmp_path: Path) -> Iterator[Open]:
    """Opens chapters of a kind, with their records below `tmp_path`; their connections are closed after the test."""
    opened: list[Chapter] = []

    def open_one(kind: type[Chapter], mode: str, site_file: Path = lab.site_file, yes: bool = False) -> Chapter:
        opened.append(kind(site_file, mode=mode, yes=yes))
        return opened[-1]

    with recording(tmp_path):
        yield open_one
        for chapter in opened:
            chapter.close()
