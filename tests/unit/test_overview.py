"""The versions of chapter 0, from what hosts print."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from local_host import PRESENT, SHELLS
from zookeeper_payloads import site

from runbook.errors import DriftFound
from runbook.services.overview import preflight
from runbook.services.overview.chapter import NOT_INSTALLED, SOFTWARE, Overview, agreement, question, versions
from runbook.services.overview.preflight import Item, Preflight, State

# 0.3 of the source document, on node 3
DOCUMENT = """\
OS=CentOS Linux 7 (Core)
kernel=3.10.0-327.el7.x86_64
ZooKeeper=3.4.6-169--1, built on 02/10/2016 05:49 GMT
mesos=mesos 0.28.0
marathon=1.1.1
docker=Docker version 1.11.1, build 5604cbe
container=registry registry:2.3.0
container=mesos-79f63b10-S4.4c57ed91 centos:latest
"""


def test_the_versions_of_the_document() -> None:
    assert versions(site(), DOCUMENT) == {
        "OS": "CentOS Linux 7 (Core)",
        "kernel": "3.10.0-327.el7.x86_64",
        "ZooKeeper": "3.4.6-169--1",
        "mesos": "0.28.0",
        "marathon": "1.1.1",
        "docker": "1.11.1",
        "registry": "registry:2.3.0",
    }


def test_what_is_not_there_is_not_installed() -> None:
    found = versions(site(), "OS=Debian GNU/Linux 12 (bookworm)\nkernel=6.1\n")
    assert [found[name] for name in SOFTWARE[2:]] == [NOT_INSTALLED] * 5


@pytest.mark.parametrize(
    ("said", "version"),
    [
        ("ZooKeeper=\nzookeeper_jar=3.4.6.2.4.0.0-169.jar\n", "3.4.6.2.4.0.0-169"),
        ("ZooKeeper=\n", "installed, never started"),
        ("ZooKeeper=3.8.0-${mvngit.commit.id}, built on 2024-12-29 17:54 UTC\n", "3.8.0"),
    ],
)
def test_zookeeper_before_it_was_ever_started(said: str, version: str) -> None:
    assert versions(site(), said)["ZooKeeper"] == version


def test_programs_that_do_not_start_are_told_apart_from_missing_ones() -> None:
    found = versions(site(), "mesos=\ndocker=\n")
    assert found["mesos"] == found["docker"] == "installed, does not start"


def test_another_container_than_the_parameters_name_is_not_the_registry() -> None:
    assert versions(site(), "container=other registry:2\n")["registry"] == NOT_INSTALLED


@pytest.mark.parametrize("shell", PRESENT)
@pytest.mark.parametrize("content", [None, "NAME='CentOS", "PRETTY_NAME='CentOS Linux 7'; exit 3"])
def test_an_os_release_that_is_missing_or_malformed_ends_nothing(
    tmp_path: Path, shell: str, content: str | None
) -> None:
    """CentOS 6 has none; and `.` is a special built-in utility, whose errors end a POSIX shell (POSIX, 2.8.1)."""
    if content is not None:
        (tmp_path / "os-release").write_text(content)
    text = question(site()).replace("/etc/os-release", str(tmp_path / "os-release"))
    done = subprocess.run([*SHELLS[shell], "-s"], input=text, text=True, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "kernel=" in done.stdout
    assert "OS=" not in done.stdout


@pytest.mark.parametrize("shell", ["dash", "bash"])
def test_the_question_is_understood_by_the_shells(shell: str) -> None:
    done = subprocess.run([shell, "-s"], input=question(site()), text=True, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    found = versions(site(), done.stdout)
    assert found["kernel"] != NOT_INSTALLED


@pytest.mark.parametrize(
    ("address", "said"),
    [("192.0.2.1", "✓ the same"), ("192.0.2.9", "⚠ not on any interface"), ("node1.example.net", "– a name")],
)
def test_the_address_of_the_parameters_is_looked_for_on_the_host(address: str, said: str) -> None:
    assert agreement(address, ["192.0.2.1", "198.51.100.1"]) == said


@pytest.mark.parametrize("mode", ["plan", "apply", "verify"])
def test_a_host_whose_own_name_is_the_loopback_is_drift(
    mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rollout works around it, and whoever adds it later breaks what looks the name up."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RUNBOOK_RECORD", raising=False)
    file = tmp_path / "site.yml"
    file.write_text("name: x\nhosts: [{name: node1, address: 127.0.0.1, roles: [docker]}]\n")
    item = Item("node1", "address", State.WARNING, "node1 is 127.0.0.1", "/etc/hosts line 2 maps node1", "take it out")
    monkeypatch.setattr(preflight, "run", lambda site, hosts: Preflight("x", (), (item,)))
    chapter = Overview(file, mode)
    chapter.preflight()
    if mode == "verify":
        with pytest.raises(DriftFound, match="node1: /etc/hosts line 2 maps node1"):
            chapter.finish()
    else:
        assert chapter.finish().outcome == "ok"
