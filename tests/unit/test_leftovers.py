"""What a set-up by hand leaves: judged from what hosts answered, and the question asked of this machine's shells."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from local_host import PRESENT, SHELLS

from runbook.remote.hosts import Output
from runbook.services import leftovers
from runbook.services.leftovers import Leftover
from runbook.site import Site

SITE = Site.parse(
    "name: test\nhosts:\n  - {name: node1, address: 198.51.100.11, roles: [zookeeper, mesos_master, mesos_slave, "
    "marathon, docker, registry, registry_web]}\nzookeeper: {allow_even: true}\nmesos: {master: {allow_even: true}}\n",
    Path("test.yml"),
)


def found(*lines: str) -> list[Leftover]:
    return [*leftovers.leftovers(SITE, SITE.hosts[0], Output("\n".join(lines) + "\n", "", 0))]


def test_a_host_that_the_chapters_set_up_has_none() -> None:
    assert (
        found(
            "rules=stop /etc/rsyslog.d/mesos.conf",
            "container=registry\tregistry:2.3.0\t0.0.0.0:8600->5000/tcp\tUp 3 days",
            "container=registry-web\thyper/docker-registry-web:v0.0.4\t0.0.0.0:8400->8080/tcp\tUp 3 days",
            "container=mesos-4c-S1.fd\tregistry:2.3.0\t\tExited (0) 3 days ago",
            "container=shop\tshop:7\t\tUp 3 days",
        )
        == []
    )


@pytest.mark.parametrize(
    ("line", "section", "what", "used", "how"),
    [
        ("myid=1", "2.2.1", "/etc/zookeeper/conf/myid (1)", "", "rm /etc/zookeeper/conf/myid"),
        ("work_dir=12 0 /var/lib/mesos", "3", "/tmp/mesos, 12.3 kB", "", "rm -rf /tmp/mesos"),
        ("work_dir=12 0 /tmp/mesos", "3", "/tmp/mesos", "the slave works there", "rm -rf /tmp/mesos"),
        ("work_dir=12 2 /var/lib/mesos", "3", "/tmp/mesos", "2 processes run in it", "rm -rf /tmp/mesos"),
        ("rules=on /etc/rsyslog.d/mesos.conf", "2.2.7", "without `stop`", "until chapter 2", "chapter 2 replaces it"),
        ("rules=stop /etc/rsyslog.d/50-old.conf", "2.2.7", "/etc/rsyslog.d/50-old.conf", "", "systemctl restart"),
        (
            "unit=docker-engine /usr/lib/systemd/system/docker.service",
            "7.2",
            "docker.service was edited",
            "Docker runs by it",
            "yum reinstall docker-engine",
        ),
        (
            "unit=marathon /usr/lib/systemd/system/marathon.service",
            "2.1",
            "marathon.service was edited",
            "it is what marathon runs by",
            "systemctl edit",
        ),
        (
            "container=lonely_bohr\thyper/docker-registry-web\t0.0.0.0:8400->8080/tcp\tUp 3 days",
            "8.2",
            "lonely_bohr (hyper/docker-registry-web; Up 3 days)",
            "at port 8400, until 8.2 takes it over",
            "docker stop lonely_bohr; docker rm lonely_bohr",
        ),
        ("container=old\tregistry:latest\t\tCreated", "7.3", "the container old", "", "docker rm old"),
        ("container=mad_kare\tregistry\t:::5000->5000/tcp\tUp 2 days", "7.3", "mad_kare", "it runs", "docker stop"),
        ("container=registry.replaced\tshop:1\t\tExited (0)", "8.2", "registry.replaced", "", "docker rm"),
        ("archive=378400000 /tmp/mysql.tar", "5.3", "/tmp/mysql.tar, 378 MB", "", "rm /tmp/mysql.tar"),
        ("secret=/root/mysql.json", "6.2", "passwords in clear text", "", "change the passwords"),
    ],
)
def test_what_is_left_is_listed_with_how_it_is_removed(line: str, section: str, what: str, used: str, how: str) -> None:
    (one,) = found(line)
    assert one.section == section
    assert what in one.what
    assert used in one.used
    assert bool(used) == bool(one.used)
    assert how in one.how
    assert one.state.startswith("○ in use" if used else "⚠ may be removed")


@pytest.mark.parametrize("shell", PRESENT)
def test_the_question_is_asked_of_a_host_as_the_document_leaves_one(shell: str, tmp_path: Path) -> None:
    etc, slave = tmp_path / "etc", tmp_path / "tmp" / "mesos"
    (etc / "zookeeper" / "conf").mkdir(parents=True)
    (etc / "rsyslog.d").mkdir()
    slave.mkdir(parents=True)
    (etc / "zookeeper" / "conf" / "zoo.cfg").write_text("dataDir=/var/lib/zookeeper/\r\n")
    (etc / "zookeeper" / "conf" / "myid").write_text("3\n")
    rule = 'if $programname == \'mesos-slave\' then {{\n   action(type="omfile" file="/x.log")\n{}}}\n'
    (etc / "rsyslog.d" / "mesos.conf").write_text(rule.format(""))
    (etc / "rsyslog.d" / "ours.conf").write_text(rule.format("   stop\n"))
    (etc / "rsyslog.d" / "other.conf").write_text("# programname mesos-slave\n*.* /var/log/messages\n")
    (tmp_path / "tmp" / "mysql.json").write_text('{"env": {"MYSQL_PASSWORD": "test"}}')
    (tmp_path / "tmp" / "registry.tar").write_bytes(b"x" * 10)
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, text in {
        "rpm": "case $1 in (-V) echo 'S.5....T.  c /usr/lib/systemd/system/docker.service'; exit 1;; esac",
        "docker": "printf 'container=lonely\\tregistry\\t\\tUp\\n'",
        "systemctl": "echo MainPID=0",
    }.items():
        (folder / name).write_text(f"#!/bin/sh\n{text}\n")
        (folder / name).chmod(0o755)
    script = re.sub(r"(?<![\w.])/(etc|tmp)/", rf"{tmp_path}/\1/", leftovers.question(SITE))
    done = subprocess.run(
        [str(shutil.which(SHELLS[shell][0])), *SHELLS[shell][1:], "-s"],
        input=script,
        text=True,
        capture_output=True,
        env={"PATH": f"{folder}:/usr/bin:/bin", "HOME": str(tmp_path / "home")},
        check=True,
    )
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert {line for line in lines if not line.startswith(("work_dir", "unit"))} == {
        f"archive=10 {tmp_path}/tmp/registry.tar",
        f"secret={tmp_path}/tmp/mysql.json",
        "myid=3",
        f"rules=on {etc}/rsyslog.d/mesos.conf",
        f"rules=stop {etc}/rsyslog.d/ours.conf",
        "container=lonely\tregistry\t\tUp",
    }
    assert "unit=docker-engine /usr/lib/systemd/system/docker.service" in lines
    (work_dir,) = (line for line in lines if line.startswith("work_dir="))
    assert work_dir.endswith(" 0 none")
