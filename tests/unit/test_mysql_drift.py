"""What in the inspection of MySQL's container came by other hands than Marathon's, on recorded answers of Docker."""

from __future__ import annotations

import json
from typing import Any

import pytest
from docker_payloads import CONTAINERS

from runbook.remote.hosts import Output
from runbook.services.mysql import drift

APP: dict[str, Any] = {
    "id": "/mysql",
    "mem": 1024,
    "container": {
        "type": "DOCKER",
        "docker": {"image": "mysql:5.7.13", "network": "BRIDGE", "parameters": [{"key": "env-file", "value": "/x"}]},
        "volumes": [{"containerPath": "/var/lib/mysql", "hostPath": "/opt/mysql", "mode": "RW"}],
    },
}
OF_MESOS = {
    "Memory": 1 << 30,
    "MemorySwap": -1,
    "CpuShares": 512,
    "NetworkMode": "bridge",
    "Binds": ["/opt/mysql:/var/lib/mysql:rw", f"/var/lib/mesos/slaves/S0/runs/1:{drift.SANDBOX}"],
}
"""As src/docker/docker.cpp of Mesos 0.28.0 has one run."""


def found(name: str = "paused", app: dict[str, Any] = APP, networks: tuple[str, ...] = ("bridge",), **more: Any) -> Any:
    host = CONTAINERS[name]["HostConfig"] | OF_MESOS | more
    text = f"host={json.dumps(host)}\nnetworks={json.dumps(dict.fromkeys(networks))}\n"
    return dict(drift.unasked_of(Output(text, "", 0), app))


def test_the_container_that_a_slave_started_is_as_it_was_asked_for() -> None:
    assert found() == {}
    assert found(CpuQuota=50000, OomKillDisable=None, Dns=None) == {}  # later versions limit by quota


@pytest.mark.parametrize(
    ("more", "shown"),
    [
        ({"Memory": 2 << 30}, {"memory": ("2048 MiB", "1024 MiB")}),
        ({"RestartPolicy": {"Name": "always"}}, {"restart": ("always", "no")}),
        ({"CapAdd": ["SYS_ADMIN"], "PidMode": "host"}, {"cap-add": ("SYS_ADMIN", "-"), "pid": ("host", "-")}),
        ({"Binds": [*OF_MESOS["Binds"], "/etc:/host"]}, {"volume /etc": ("/host", "-")}),  # type: ignore[misc]
        ({"NetworkMode": "host"}, {"network": ("host", "-")}),
        ({"networks": ("bridge", "other")}, {"network other": ("connected", "-")}),
    ],
)
def test_what_came_by_another_hand_is_named(more: dict[str, Any], shown: dict[str, tuple[str, str]]) -> None:
    assert found(**more) == shown


def test_a_privileged_container_is_named_unless_the_app_asks_for_it() -> None:
    assert found(Privileged=True) == {"privileged": ("yes", "-")}
    docker = APP["container"]["docker"] | {"privileged": True, "parameters": [{"key": "cap-add", "value": "SYS_NICE"}]}
    asked = APP | {"container": APP["container"] | {"docker": docker}}
    assert found(app=asked, Privileged=True, CapAdd=["SYS_NICE"]) == {}


def test_no_variable_leaves_the_host() -> None:
    assert ".Config" not in drift.question("abc")
    assert "{{json .}}" not in drift.question("abc")
    assert "Env" not in drift.question("abc")
