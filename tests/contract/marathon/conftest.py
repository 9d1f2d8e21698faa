"""What the contract tests of Marathon run against.

RUNBOOK_CONTRACT_MARATHON (a base URL; RUNBOOK_CONTRACT_MARATHON_STANDBY a second one) names a real Marathon 1.1.1 over
at least two slaves with 0.5 CPUs, 256 MB and ten ports free, whose hosts have `python3` and reach this machine's
network. Without it, the rehearsal doubles of Mesos and Marathon are started on the loopback: three slaves that call
themselves 127.0.0.1 to 127.0.0.3.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from daemons import Mesos
from marathons import Asked, Contract, Marathons, doubles


@pytest.fixture(scope="session")
def contract(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Contract]:
    given, standby = (os.environ.get(f"RUNBOOK_CONTRACT_MARATHON{suffix}") for suffix in ("", "_STANDBY"))
    if given:
        yield Contract(Asked(given), Asked(standby) if standby else None, slaves=2)
        return
    with doubles(request.getfixturevalue("zookeeper_for_doubles"), tmp_path_factory.mktemp("marathon"), 3) as marathons:
        for _ in range(2):
            marathons.instance()
        leader = marathons.leader()
        standby_instance = next(one for one in marathons.instances if one is not leader)
        yield Contract(leader, standby_instance, slaves=3)


@pytest.fixture
def marathon(contract: Contract) -> Iterator[Asked]:
    """The leader; apps that a test leaves behind are removed."""
    yield contract.leader
    for app in contract.leader.get("/v2/apps")["apps"]:
        if app["id"].startswith("/contract-"):
            contract.leader.ask("DELETE", f"/v2/apps{app['id']}", force="true")
    contract.leader.quiet()


@pytest.fixture
def marathons(zookeeper_for_doubles: str, tmp_path: Path) -> Iterator[Marathons]:
    """A master and two slaves of one test's own, no Marathon started yet."""
    with doubles(zookeeper_for_doubles, tmp_path, 2) as started:
        yield started


@pytest.fixture
def lonely(zookeeper_for_doubles: str, tmp_path: Path) -> Iterator[Marathons]:
    """Marathons to be started where there is no Mesos."""
    with Mesos(zookeeper_for_doubles, tmp_path) as mesos, Marathons(mesos) as marathons:
        yield marathons
