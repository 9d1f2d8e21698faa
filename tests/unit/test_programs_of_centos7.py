"""Questions that meet programs as old as CentOS 7's: doubles that behave as those did, run by real shells."""

from __future__ import annotations

from pathlib import Path

import pytest
from local_host import PRESENT, LocalHost
from mesos_site import site as mesos_site
from mysql_site import site as mysql_site
from scripts_sent import asked

from runbook.remote.hosts import Hosts, Output
from runbook.remote.shell import Piece
from runbook.services.docker import daemon, diagnose, ps
from runbook.services.mesos import logs
from runbook.services.mysql import host as mysql_host

# Docker 1.11.1, api/client/inspect.go, inspectElements: `break` at the first that is not there.
DOCKER_1_11 = """\
#!/bin/sh
case $1 in
  (ps) printf 'one\\ngone\\ntwo\\n';;
  (version) echo 1.11.1;;
  (inspect)
    while [ $# -gt 0 ]; do
      case $1 in
        (-f) shift;;
        (--type) [ "$2" = container ] || exit 1; shift;;
        (inspect) ;;
        (gone) echo "Error: No such container: gone" >&2; exit 1;;
        (*) echo "container=x of $1";;
      esac
      shift
    done;;
esac
"""
SYSTEMCTL = """\
#!/bin/sh
case $1 in (show) echo LoadState=loaded; echo ActiveState=active; echo MainPID=0;; (*) echo active;; esac
"""
# systemd 219, src/journal/journalctl.c: with --since and -n it shows the first lines since then.
JOURNALCTL_219 = """\
#!/bin/sh
first=cat; since=
case $* in (*MESSAGE_ID=a596d6fe7bfa4994828e72309e95d61e*)
  echo "Suppressed 7124 messages from /system.slice/named.service"
  echo "Suppressed 4321 messages from /system.slice/mesos-slave.service"; exit;;
esac
while [ $# -gt 0 ]; do
  case $1 in (-n) [ -z "$2" ] || first="head -n $2"; shift;; (--since) since=yes; shift;; esac
  shift
done
[ -n "$since" ] || first=cat
awk 'BEGIN { for (n = 1; n <= 5000; n++) print n == 5000 ? "port is already allocated" : "line " n }' | $first
"""


@pytest.fixture(params=PRESENT)
def host(request: pytest.FixtureRequest, tmp_path: Path) -> LocalHost:
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, text in {"docker": DOCKER_1_11, "systemctl": SYSTEMCTL, "journalctl": JOURNALCTL_219}.items():
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    return LocalHost(request.param, tmp_path / "state", environment={"PATH": f"{programs}:/usr/bin:/bin"})


@pytest.mark.parametrize(
    "question",
    [ps._PS, daemon.PROBE, diagnose.question(mesos_site()), mysql_host.probe(mysql_site())],
    ids=["ps", "daemon", "diagnose", "mysql"],
)
def test_a_container_that_ends_meanwhile_hides_no_other(host: LocalHost, question: str) -> None:
    out = host.run(Piece("ask", question))["ask"].out
    seen = [line.rpartition(" ")[2] for line in out.splitlines() if "container=x of " in line]
    assert seen == ["one", "two"]


def test_the_lines_of_a_journal_are_the_last_ones(host: LocalHost) -> None:
    question = asked(mesos_site(), lambda hosts: logs.explain(hosts, "mesos-slave"))
    lines = host.run(Piece("ask", question))["ask"].out.splitlines()
    assert lines[-2:] == [
        "port is already allocated",
        "suppressed=Suppressed 4321 messages from /system.slice/mesos-slave.service",
    ]
    assert len(lines) == 302
    assert "line=port is already allocated" in host.run(Piece("ask", diagnose.question(mesos_site())))["ask"].out


def test_what_journald_dropped_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """The message of systemd 219 (src/journal/journald-server.c:914), which keeps 1000 lines in 30 s."""
    said = "suppressed=Suppressed 4321 messages from /system.slice/mesos-slave.service"
    output = Output(f"active\nI1124 all is well\n{said}\n", "", 0)
    (finding,) = logs._explained("node1", output, ())
    assert (finding.cause, finding.evidence) == (
        "journald dropped lines of its log",
        "Suppressed 4321 messages from /system.slice/mesos-slave.service",
    )
    assert "RateLimitBurst" in finding.remedy
    monkeypatch.setattr(Hosts, "run", lambda self, script: {"node1": Output(f"{said}\nfile=a.log 3\nx\n\n", "", 0)})
    rows = logs.last_lines(Hosts.of(mesos_site()), "/var/log/mesos", ["a"], 5).frame
    assert rows["log"].tolist() == ["a.log", "⚠ journald"]
    assert "4321" in rows["last lines"][1]
