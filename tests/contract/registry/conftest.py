"""What the contract tests of the registry run against.

RUNBOOK_CONTRACT_REGISTRY (a base URL) names a real registry that has deletion enabled and asks nobody who he is; the
tests push images of a few bytes below `contract-…/` and delete their manifests at the end. RUNBOOK_CONTRACT_REGISTRY_CA
is the file of its CA, if it speaks TLS. Without them, registries of Debian's package docker-registry (2.8.2) run on the
loopback; those with other settings (read-only, TLS, tokens, …) do so in any case.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import registry_daemon
from registry_daemon import Pusher, running

from runbook.services.registry import Registry


@pytest.fixture(scope="session")
def binary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program of a real registry."""
    return registry_daemon.program(tmp_path_factory.mktemp("docker-registry"))


@pytest.fixture(scope="session")
def pusher(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pusher]:
    """Pushes to the registry under test."""
    given, ca = (os.environ.get(f"RUNBOOK_CONTRACT_REGISTRY{suffix}") for suffix in ("", "_CA"))
    if given:
        pushes = Pusher(given.rstrip("/"))
        pushes.session.verify = ca or True
        yield pushes
        pushes.delete_all()
        return
    folder = tmp_path_factory.mktemp("registry")
    with running(request.getfixturevalue("binary"), folder, storage={"delete": {"enabled": True}}) as registry:
        yield Pusher(registry.url)


@pytest.fixture
def client(pusher: Pusher) -> Iterator[Registry]:
    ca = os.environ.get("RUNBOOK_CONTRACT_REGISTRY_CA")
    with Registry(pusher.url, ca=Path(ca) if ca else None) as registry:
        yield registry


@pytest.fixture
def group() -> str:
    """The first part of the names of a test's repositories: nobody else's."""
    return f"contract-{time.time_ns():x}"
