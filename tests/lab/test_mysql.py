"""Chapter 6 on nodes: a MariaDB under Marathon, its data after a kill, its passwords nowhere, and what goes wrong.

The chapters 1 to 5 are rolled out before it where they are not. What the runbook did is judged by a
connection of the test's own, by Docker on the node and by the journal.
"""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pymysql
import pytest
from asking import Ask
from chapters import Open as OpenKind
from chapters import changed, in_process, statuses

from runbook.errors import (
    ApplyFailed,
    ChapterFailed,
    EndpointUnreachable,
    LoginRefused,
    NotFound,
    RunbookError,
    StatementRefused,
)
from runbook.lab import Lab, Node
from runbook.remote.hosts import Hosts
from runbook.remote.modes import Mode, Status
from runbook.remote.results import ApplyResult
from runbook.secrets import Secret
from runbook.services.marathon.deploy import marathon_of
from runbook.services.mysql import Account, MySql, Server, data_host
from runbook.services.mysql.app import PASSWORD, ROOT_PASSWORD, DataFolder, secrets_directory
from runbook.services.mysql.checks import Placement
from runbook.services.mysql.conditions import Seen, judge
from runbook.services.overview.preflight import State
from runbook.site import Site

pytestmark = [pytest.mark.lab, pytest.mark.timeout(900)]  # the first test may wait for six chapters

BEFORE = ("01_zookeeper", "02_mesos_master", "03_mesos_slave", "04_marathon", "05_docker")
RUNBOOK = Path(sys.executable).parent / "runbook"
SAMPLE = """\
rm -f /run/sampled /run/sampling; touch /run/sampling
( while [ -e /run/sampling ]; do ps axww -o args=; sleep 0.1; done > /run/sampled ) >/dev/null 2>&1 &
"""
"""Writes down every command line, ten times a second, as whoever has a login on the host sees them."""
SAMPLED = "rm -f /run/sampling; sleep 0.5; sort -u /run/sampled"


@dataclass(frozen=True)
class Rollout:
    """A rollout by the command: its exit status, what it printed, and its record."""

    status: int
    printed: str
    record: Path

    @property
    def journal(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.record / "journal.jsonl").read_text().splitlines()]

    @property
    def statuses(self) -> Counter[str]:
        return statuses(self.journal)

    def check(self, name: str) -> dict[str, Any]:
        (found,) = (event for event in self.journal if event["event"] == "check" and name in event["name"])
        return found


def rollout(site_file: Path, outputs: Path, chapters: str, *more: str) -> Rollout:
    command = [
        str(RUNBOOK),
        "rollout",
        str(site_file),
        "--mode",
        "apply",
        "--chapters",
        chapters,
        "--outputs",
        str(outputs),
        *more,
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    record = max(outputs.iterdir(), key=lambda path: path.stat().st_mtime_ns)
    return Rollout(done.returncode, done.stdout + done.stderr, record)


@pytest.fixture(scope="module")
def site(lab: Lab) -> Site:
    return Site.load(lab.site_file)


@pytest.fixture(scope="module")
def node(lab: Lab, site: Site) -> Node:
    """The node that holds the data."""
    return lab.node(data_host(site).name)


def passwords(site: Site) -> list[str]:
    return [site.mysql.root_password.resolve().reveal(), site.mysql.password.resolve().reveal()]


@dataclass(frozen=True)
class Rollouts:
    """Chapter 6 applied with no gate open, then twice with every gate, and the command lines of all nodes meanwhile."""

    refused: Rollout
    first: Rollout
    second: Rollout
    sampled: dict[str, str]


@pytest.fixture(scope="module")
def rolled_out(lab: Lab, ask: Ask, site: Site, node: Node, tmp_path_factory: pytest.TempPathFactory) -> Rollouts:
    outputs = tmp_path_factory.mktemp("outputs")
    if not can_run(site):
        for notebook in BEFORE:
            in_process(notebook, tmp_path_factory.mktemp(notebook), lab.site_file, "apply")
    forget(site, ask, node)
    for one in lab.nodes:
        ask(one, SAMPLE)
    refused = rollout(lab.site_file, outputs, "6")
    first = rollout(lab.site_file, outputs, "6", "--yes")
    second = rollout(lab.site_file, outputs, "6", "--yes")
    return Rollouts(refused, first, second, {one.name: ask(one, SAMPLED) for one in lab.nodes})


def can_run(site: Site) -> bool:
    """Whether the chapters before were rolled out: else MySQL could not run."""
    with Hosts.of(site) as hosts:
        found = {one.name: one.state for one in judge(site, Seen.ask(site, hosts))}
    return all(found[name] is State.OK for name in ("one server a folder", "slave", "runs Docker tasks", "image"))


def forget(site: Site, ask: Ask, node: Node) -> None:
    """As before chapter 6: no app, no data, no passwords on the node."""
    end(site, site.mysql.app)
    ask(node, f"rm -rf {site.mysql.volume} {secrets_directory(site)}")


def end(site: Site, name: str) -> None:
    """Delete an app, if it is there, and wait until its tasks are gone."""
    from runbook.services.marathon.deployments import follow

    with marathon_of(site) as marathon:
        if marathon.find(name) is not None:
            list(follow(marathon, marathon.delete(name, force=True), deadline=60))


def rows(site: Site) -> list[tuple[Any, ...]]:
    """The rows of the runbook's table, by a connection of the test's own."""
    place = Placement.find(site)
    _, password = passwords(site)
    connection = pymysql.connect(
        host=place.address, port=place.port, user=site.mysql.user, password=password, database=site.mysql.database
    )
    with connection, connection.cursor() as cursor:
        cursor.execute("SELECT record, task FROM runbook_proof ORDER BY written")
        return list(cursor.fetchall())


Open = Callable[..., MySql]


@pytest.fixture
def open_chapter(rolled_out: Rollouts, open_kind: OpenKind) -> Open:
    """Opens chapter 6, once it was rolled out."""
    return partial(open_kind, MySql)


# rolled out


def test_the_second_rollout_changes_nothing(rolled_out: Rollouts) -> None:
    assert rolled_out.refused.status == rolled_out.first.status == rolled_out.second.status == 0, rolled_out
    assert rolled_out.refused.statuses["changed"] >= 3  # folder, passwords, app
    assert set(rolled_out.first.statuses) == set(rolled_out.second.statuses) == {"ok"}


def test_both_clients_saw_the_database(rolled_out: Rollouts, site: Site) -> None:
    check = rolled_out.first.check("clients here and in the container")
    assert check["holds"]
    assert [row["user"] for row in check["table"]] == ["root", site.mysql.user, "root"]
    assert all(site.mysql.database in row["databases"] for row in check["table"])
    assert check["table"][0]["databases"] == check["table"][2]["databases"]


def test_a_row_outlived_the_container_that_it_was_written_in_and_none_is_killed_again(
    rolled_out: Rollouts, site: Site, ask: Ask, node: Node
) -> None:
    before, after = rolled_out.first.check("a row outlives")["table"]
    written = "row of this rollout, written (UTC)"
    assert before["task"] != after["task"]
    assert before["container"] != after["container"]
    assert before[written] == after[written]
    again = rolled_out.second.check("a row outlives")
    assert again["holds"]
    assert [row["task"] for row in again["table"]] == [before["task"], after["task"]]
    assert "gate" not in {event["event"] for event in rolled_out.second.journal}
    assert rows(site) == [(rolled_out.first.record.name, before["task"])]
    assert ask(node, f"docker inspect -f '{{{{.State.Running}}}}' {after['container']}") == "true"


def test_a_gate_that_nobody_opened_skips_the_kill_and_fails_nothing(rolled_out: Rollouts, site: Site) -> None:
    (skipped,) = (one for one in rolled_out.refused.journal if one.get("status") == "skipped")
    assert skipped["summary"] == "the gate 'kill-task' was not opened: nothing was written, and nothing killed"
    assert rolled_out.refused.record.name not in dict(rows(site))


def test_the_data_is_the_images_users_and_stays_so(rolled_out: Rollouts, site: Site, ask: Ask, node: Node) -> None:
    assert ask(node, f"stat -c %u {site.mysql.volume}") != "0"
    assert ask(node, f"stat -c '%a %U' {secrets_directory(site)} {secrets_directory(site)}/*").split("\n") == [
        "700 root",
        "600 root",
        "600 root",
    ]
    assert ask(node, f"ls {site.mysql.volume}/{site.mysql.database}")


def test_no_password_is_in_a_command_line_a_log_or_a_record(
    rolled_out: Rollouts, site: Site, lab: Lab, ask: Ask
) -> None:
    secrets = passwords(site)
    needles = base64.b64encode("\n".join(secrets).encode()).decode()
    for one in lab.nodes:
        assert not [secret for secret in secrets if secret in rolled_out.sampled[one.name]]
        # every byte of the node: files, what Docker and Mesos keep, logs; passwords are allowed in two files of root's
        found = ask(
            one,
            f"echo {needles} | base64 -d > /run/needles; journalctl -q --no-pager > /run/journal; "
            "docker inspect $(docker ps -aq) > /run/inspected 2>/dev/null; "
            "find / -xdev -type f -size -64M ! -path '/proc/*' ! -path '/sys/*' ! -path /run/needles -print0 | "
            "xargs -0 grep -laF -f /run/needles; "
            "grep -rlaF -f /run/needles /run/journal /run/inspected /var/lib/docker/containers; "
            "cat /proc/[0-9]*/cmdline | grep -aF -f /run/needles; "
            "rm -f /run/needles /run/journal /run/inspected",
        )
        kept = sorted(f"{secrets_directory(site)}/{name}" for name in (ROOT_PASSWORD, PASSWORD))
        assert sorted(found.split()) == (kept if one.name == data_host(site).name else [])
    with marathon_of(site) as marathon:
        answered = json.dumps(marathon.app(site.mysql.app))
    everywhere = [answered, rolled_out.first.printed, rolled_out.refused.printed]
    for rolled in (rolled_out.first, rolled_out.second, rolled_out.refused):
        everywhere += [path.read_text() for path in rolled.record.rglob("*") if path.is_file()]
    assert not [secret for secret in secrets for text in everywhere if secret in text]
    # and the sampler saw what there was to see
    assert f"{secrets_directory(site)}:/run/runbook:ro" in rolled_out.sampled[data_host(site).name]
    assert "docker exec -i" in rolled_out.sampled[data_host(site).name]


def test_verify_writes_nothing_and_finds_what_somebody_changed(
    open_chapter: Open, lab: Lab, site: Site, tmp_path: Path
) -> None:
    before = rows(site)
    chapter = open_chapter("verify", changed(lab, tmp_path, mysql={"mem": 1200}))
    chapter.prepare()
    assert chapter.deploy().having(Status.WOULD_CHANGE)
    assert chapter.clients_agree().holds
    shown = chapter.outlives_its_container()
    assert not isinstance(shown, ApplyResult)
    assert rows(site) == before


# what goes wrong


def test_a_password_that_is_not_the_datas_is_named(open_chapter: Open, lab: Lab, tmp_path: Path, site: Site) -> None:
    wrong = tmp_path / "wrong"
    wrong.write_text("heron-under-ice\n")
    wrong.chmod(0o600)
    chapter = open_chapter("verify", changed(lab, tmp_path, mysql={"root_password": f"file:{wrong}"}))
    check = chapter.clients_agree()
    assert not check.holds
    assert "root, from here: " in check.evidence.text
    assert "root, in the container: " in check.evidence.text
    assert "ALTER USER" in str(check.evidence.remedy)
    causes = [finding.cause for finding in chapter.diagnose()]
    assert causes == ["the server does not take the password of the parameters"]
    with pytest.raises(ChapterFailed, match="Access denied for user 'root'"):
        chapter.finish()


def test_a_container_that_ends_at_once_is_explained_by_its_log(
    open_chapter: Open, lab: Lab, tmp_path: Path, ask: Ask, node: Node
) -> None:
    """An app of its own, whose file lacks root's password."""
    file = changed(lab, tmp_path, mysql={"app": "mysql-broken", "volume": "/opt/mysql-broken", "mem": 256})
    broken = Site.load(file)
    ask(
        node,
        f"umask 077; mkdir {secrets_directory(broken)}; echo heron-under-ice > {secrets_directory(broken)}/{PASSWORD}",
    )
    with Hosts.of(broken, mode=Mode.APPLY) as hosts:
        hosts.only(node.name).apply([DataFolder(broken.mysql.volume, mode="0700")])
    cause = "no root password reached the image"
    try:
        with pytest.raises(ApplyFailed, match=rf"(?s)tasks fail.*{cause}.*MYSQL_ROOT_PASSWORD is not set"):
            open_chapter("apply", file).deploy(deadline=10)
        chapter = open_chapter("verify", file)
        assert not chapter.runs().holds
        assert cause in [finding.cause for finding in chapter.diagnose()]
    finally:
        end(broken, "mysql-broken")
        ask(node, f"rm -rf /opt/mysql-broken {secrets_directory(broken)}")


@pytest.mark.parametrize(
    ("port", "user", "database", "statement", "error"),
    [
        (0, "root", None, "SELECT 1", None),
        (0, "root", "Nowhere", "SELECT 1", NotFound),
        (0, "root", "mysql", "SELECT * FROM nowhere", NotFound),
        (0, "root", None, "SELEKT 1", StatementRefused),
        (0, "nobody", None, "SELECT 1", LoginRefused),
        (1, "root", None, "SELECT 1", EndpointUnreachable),
    ],
)
def test_a_real_servers_refusals_are_named(
    rolled_out: Rollouts,
    site: Site,
    port: int,
    user: str,
    database: str | None,
    statement: str,
    error: type[RunbookError] | None,
) -> None:
    place = Placement.find(site)
    account = Account(user, Secret(passwords(site)[0]))

    def ask() -> list[tuple[Any, ...]]:
        with Server(place.address, port or place.port).session(account, database) as session:
            return session.rows(statement)

    if error is None:
        assert ask() == [(1,)]
        return
    with pytest.raises(RunbookError) as caught:
        ask()
    assert type(caught.value) is error
    assert not [secret for secret in passwords(site) if secret in str(caught.value)]
