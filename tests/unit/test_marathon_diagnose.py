"""Known failures of Marathon, by the lines that betray them; what locks an app; what outgrows a znode."""

from __future__ import annotations

from typing import Any

import pytest
from marathon_answers import VERSION, in_11

from runbook.errors import AppLocked, NoLeader, ServiceError
from runbook.services.marathon import Marathon
from runbook.services.marathon.diagnose import KNOWN, Kept, explained_lock
from runbook.services.mesos.diagnose import diagnose

Json = dict[str, Any]

LINES = {  # in the words of scallop, the shell, the JVM, libprocess, ZooKeeper and Mesos
    "[scallop] Error: Unknown option 'zk.bak'": "unknown flag",
    "[scallop] Error: Bad arguments for option 'http_port' - you should provide exactly one argument for this option": (
        "flag with a value that it cannot have"
    ),
    "[scallop] Error: Required option 'master' not found": "no master given",
    "/usr/bin/marathon: line 84: exec: java: not found": "no Java",
    'Exception in thread "main" java.lang.UnsupportedClassVersionError: mesosphere/marathon/Main': "no Java",
    "Failed to load native Mesos library from null": "no library of Mesos",
    "java.io.IOException: Packet len4194321 is out of range!": "ZooKeeper's limit on a znode",
    "KeeperErrorCode = ConnectionLoss for /marathon/state/group:root": "ZooKeeper's limit on a znode",
    "KeeperErrorCode = ConnectionLoss for /marathon/leader": "ZooKeeper out of reach",
    "Received error: Framework has been removed": "framework removed",
    "Scheduler driver bound to loopback interface! Cannot communicate with remote master(s).": "bound to the loopback",
    "java.net.BindException: Address already in use": "port taken by something else",
}


@pytest.mark.parametrize(("line", "name"), LINES.items())
def test_a_line_betrays_its_failure(line: str, name: str) -> None:
    found = diagnose([f"marathon[123]: {line}"], KNOWN)
    assert found[0].failure.name == name
    assert found[0].failure.remedy


def test_a_healthy_start_betrays_nothing() -> None:
    assert (
        diagnose(["[2016-05-31] INFO Elected: 198.51.100.11:8080", "INFO Registered as F to master 'M'"], KNOWN) == []
    )


def test_a_master_that_answers_nobody_is_told_after_the_third_line() -> None:
    line = "Framework F (marathon) at scheduler-1@127.0.0.1:1 already registered, resending acknowledgement"
    assert diagnose([line] * 2, KNOWN) == []
    assert "LIBPROCESS_IP" in diagnose([line] * 3, KNOWN)[0].failure.remedy


# the lock


class Locking(Marathon):
    """A Marathon in which a deployment of /hello waits."""

    def __init__(self, error: ServiceError | None = None) -> None:
        super().__init__({"m0": "http://127.0.0.1:1"})
        self.error = error

    def queue(self) -> list[Json]:
        if self.error is not None:
            raise self.error
        return [{"app": {"id": "/hello"}, "count": 2, "delay": {"timeLeftSeconds": 0, "overdue": True}}]

    def deployments(self) -> list[Json]:
        actions = [{"action": "ScaleApplication", "app": "/hello"}, {"action": "StartPod", "pod": "/pod"}]
        one = {"id": "d1", "version": VERSION, "affectedApps": ["/hello"], "currentActions": actions}
        return [{**one, "currentStep": 1, "totalSteps": 2}, {**one, "id": "d2"}]

    def find(self, name: str) -> Json | None:
        return in_11({"id": name, "cmd": "x", "instances": 2})


def no_slaves() -> Any:
    raise NoLeader("no master leads")


LOCKED = AppLocked("App is locked (locked by d1)", "wait", deployments=("d1",))


def test_a_lock_is_explained_by_what_its_deployment_does_and_what_keeps_it() -> None:
    explained = explained_lock(Locking(), LOCKED, no_slaves)
    assert f"d1 since {VERSION}, step 1/2: ScaleApplication of /hello, StartPod of /pod" in explained.message
    assert "tasks wait to be launched" in explained.message
    assert "d2" not in explained.message
    assert explained.deployments == ("d1",)


def test_a_lock_that_cannot_be_explained_is_the_same_error() -> None:
    assert explained_lock(Locking(NoLeader("gone")), LOCKED, no_slaves) is LOCKED


# what is kept


def test_a_znode_near_the_limit_is_named() -> None:
    kept = Kept({"group:root": 500 * 1024, "app:hello:1": 300, "app:hello:2": 500, "task:hello.1": 200})
    evidence = kept.bearable()
    assert not evidence.holds
    assert "group:root (500 KB)" in evidence.text
    assert kept.table().values.tolist() == [
        ["app", 2, 500, 800],
        ["group", 1, 512000, 512000],
        ["task", 1, 200, 200],
    ]
    assert Kept({"group:root": 400 * 1024 - 1}).bearable().holds
    assert Kept({}).bearable().holds
