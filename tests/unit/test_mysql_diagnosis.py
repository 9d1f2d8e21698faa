"""Why a server does not run: by how its container ended and what it said (the image's entrypoint, mysqld, mariadbd)."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

import pytest
from mysql_site import site
from test_mysql_conditions import CONTAINER

from runbook.errors import ConnectionCut, EndpointUnreachable, LoginRefused, NotFound, RunbookError
from runbook.remote.hosts import Hosts, Output
from runbook.services.mysql.diagnosis import of_containers, of_error, of_log
from runbook.services.mysql.host import DataHost

ENDED = replace(CONTAINER, running=False, exit_code=1, finished="2016-08-03T07:32:20Z")

LOGS = {
    "no root password reached the image": [
        "error: database is uninitialized and password option is not specified ",
        "2026-11-25 [ERROR] [Entrypoint]: Database is uninitialized and password option is not specified",
        "error: database is uninitialized and MYSQL_ROOT_PASSWORD not set",
        "docker-entrypoint: the data folder is empty and MYSQL_ROOT_PASSWORD is not set",
    ],
    "another server runs on the data folder": [
        "2016-08-03T07:32:17.000Z 0 [ERROR] InnoDB: Unable to lock ./ibdata1, error: 11",
        "2026-11-25  0:58:01 0 [ERROR] mariadbd: Can't lock aria_log_control for exclusive use, error: 11.",
    ],
    "the disk of the data folder is full": [
        "2016-08-03T07:32:17Z 0 [ERROR] InnoDB: Error number 28 means 'No space left on device'",
        "mysqld: Error writing file './mysql-bin.index' (Errcode: 28 - No space left on device)",
    ],
    "the data folder is not writable for the server": [
        "chown: changing ownership of '/var/lib/mysql/': Permission denied",
        "mysqld: Can't create/write to file '/var/lib/mysql/is_writable' (Errcode: 13 - Permission denied)",
    ],
    "the data folder holds something that is no server's data": [
        "2016-08-03T07:32:17Z 0 [ERROR] --initialize specified but the data directory has files in it. Aborting.",
    ],
    "the data was initialised only in part, or by another version": [
        "2016-08-03T07:32:17Z 0 [ERROR] Fatal error: Can't open and lock privilege tables: Table 'mysql.user' doesn't "
        "exist",
        "2026-11-25  0:58:01 0 [ERROR] InnoDB: Unsupported redo log format. The redo log was created with MySQL 8.0.",
        "2026-11-25  0:58:01 0 [ERROR] Could not open mysql.plugin table: \"Table 'mysql.plugin' doesn't exist\"",
    ],
    "the server got too little memory": [
        "2016-08-03T07:32:17Z 0 [ERROR] InnoDB: Cannot allocate memory for the buffer pool",
    ],
    "something that is no task of Mesos listens on the port that Mesos gave": [
        "docker: Error response from daemon: Bind for 0.0.0.0:8290 failed: port is already allocated.",
    ],
    "the data was initialised with another password": [
        "ERROR 1045 (28000): Access denied for user 'root'@'localhost' (using password: YES)",
    ],
    "the server does not know an option that it was given": [
        "2016-08-03T07:32:17Z 0 [ERROR] unknown variable 'log-slow=1'",
    ],
}


@pytest.mark.parametrize(("cause", "line"), [(cause, line) for cause, lines in LOGS.items() for line in lines])
def test_known_ends(cause: str, line: str) -> None:
    log = ["2016-08-03T07:32:16Z 0 [Note] mysqld (mysqld 5.7.13) starting as process 1 ...", line, ""]
    (finding,) = of_log("node2", ENDED, log)
    assert (finding.host, finding.cause) == ("node2", cause)
    assert line.strip() in finding.evidence
    assert "container 771b0ba79c3d, ended with 1" in finding.evidence
    assert finding.remedy


def test_a_normal_log_names_no_cause() -> None:
    log = [
        "2016-08-03T07:32:17Z 0 [Warning] TIMESTAMP with implicit DEFAULT value is deprecated.",
        "2016-08-03T07:32:17Z 0 [Note] InnoDB: Using Linux native AIO",
        "2016-08-03T07:32:18Z 0 [Note] mysqld: ready for connections.",
        "2016-08-03T07:33:18Z 0 [Note] mysqld: Shutdown complete",
    ]
    (finding,) = of_log("node2", ENDED, log)
    assert finding.cause == "it ended, and its log tells no known reason"
    assert "Shutdown complete" in finding.evidence


def test_out_of_memory_is_told_by_docker() -> None:
    (finding,) = of_log("node2", replace(ENDED, exit_code=137, out_of_memory=True), ["starting"])
    assert finding.cause == "the server got too little memory"
    assert "6.3" in finding.remedy


def test_killed_may_have_reasons() -> None:
    (finding,) = of_log("node2", replace(ENDED, exit_code=137), [])
    assert finding.cause == "it was killed"
    assert "oom-killer" in finding.remedy


def test_a_container_that_printed_nothing() -> None:
    (finding,) = of_log("node2", ENDED, [])
    assert finding.evidence.endswith("it printed nothing")


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (LoginRefused("x", "y"), "the server does not take the password of the parameters"),
        (NotFound("x", "y"), "something that should be there is not"),
        (ConnectionCut("x", "y"), "the server cuts connections: it is starting, or ends"),
        (EndpointUnreachable("x", "y"), "the server cannot be reached"),
    ],
)
def test_what_a_client_meets(error: RunbookError, cause: str) -> None:
    assert of_error("node2", error).cause == cause
    assert of_error("node2", error).remedy == "y"


def test_the_end_of_a_container_from_before_the_app_was_changed_tells_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """An upgrade ends the earlier one. Clocks of hosts differ by seconds."""
    monkeypatch.setattr(DataHost, "ask", classmethod(lambda cls, hosts: DataHost(containers=(ENDED,))))
    monkeypatch.setattr(Hosts, "run", lambda self, script: {host.name: Output("", "", 0) for host in self})
    hosts = Hosts.of(site())
    assert len(of_containers(hosts)) == 1
    assert len(of_containers(hosts, since=datetime(2016, 8, 3, 7, 32, 18))) == 1
    assert of_containers(hosts, since=datetime(2016, 8, 3, 7, 42)) == ()
