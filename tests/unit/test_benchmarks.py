"""The benchmark's parts: all tools are told of the same hosts, the work is checked, and the arithmetic is right."""

from __future__ import annotations

import getpass
import grp
import ipaddress
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import fleet as fleets
from benchmarks import measure, report, scripts
from benchmarks.fleet import MOST, PACKAGE, SERVICE, VERSION, BenchmarkError, Fleet
from benchmarks.measure import Run
from benchmarks.tools import Ansible, Core, all_tools
from runbook.site import Site


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    """Two bare hosts that no sshd serves."""
    hosts = Fleet(tmp_path, 2, 2222, getpass.getuser(), grp.getgrgid(os.getgid()).gr_name)
    hosts.prepare()
    hosts.reset()
    scripts.write(hosts)
    return hosts.sized(2)


def on(fleet: Fleet, address: str, script: str) -> subprocess.CompletedProcess[str]:
    """Run `script` as sshd would on the host at `address`."""
    environment = {
        "PATH": f"{fleet.folder}/bin:{os.environ['PATH']}",
        "BENCH_HOSTS": f"{fleet.folder}/hosts",
        "SSH_CONNECTION": f"127.0.0.1 40000 {address} {fleet.port}",
    }
    return subprocess.run(["/bin/sh", "-s"], input=script, env=environment, capture_output=True, text=True)


def converge(fleet: Fleet, address: str) -> None:
    """Run the scripts that the C client sends."""
    script = json.loads((fleet.folder / "scripts.json").read_text())[address]["change"]
    # The state folder is this machine's own: stage and back up elsewhere.
    on(fleet, address, script.replace("/var/lib/runbook", f"{fleet.folder}/state"))


# the hosts


def test_each_host_has_a_loopback_address_of_its_own(tmp_path: Path) -> None:
    hosts = Fleet(tmp_path, MOST, 22, "root", "root").hosts
    assert len(hosts) == len(set(hosts.values())) == MOST
    assert all(ipaddress.ip_address(address).is_loopback for address in hosts.values())


def test_the_core_is_told_of_the_same_hosts_as_the_others(fleet: Fleet) -> None:
    site = Site.load(fleet.sized(1).site_file)
    assert [(host.name, host.address, host.ssh.port) for host in site.hosts] == [("host000", "127.77.0.1", 2222)]
    site = Site.load(fleet.sized(2).site_file)
    assert {host.name: host.address for host in site.hosts} == Fleet.read(fleet.folder).hosts
    assert site.ssh.known_hosts.read_text().count("[127.77.0.2]:2222 ssh-ed25519 ") == 1


def test_the_scripts_bring_about_what_is_checked(fleet: Fleet) -> None:
    first, second = fleet.hosts.values()
    with pytest.raises(BenchmarkError, match=rf"host000 .*agent-00\.conf, .*{PACKAGE}, {SERVICE} enabled, .* active"):
        fleet.check()
    converge(fleet, first)
    with pytest.raises(BenchmarkError, match="host001 is not in the desired state"):
        fleet.check()
    converge(fleet, second)
    fleet.check()


def test_a_probe_tells_a_host_that_is_well_from_one_that_is_not(fleet: Fleet) -> None:
    address = fleet.hosts["host001"]
    script = json.loads((fleet.folder / "scripts.json").read_text())[address]
    bare = on(fleet, address, script["probe"]).stdout.splitlines()
    assert not set(script["desired"]) & set(bare)
    converge(fleet, address)
    assert set(script["desired"]) <= set(on(fleet, address, script["probe"]).stdout.splitlines())


def test_a_snapshot_shows_what_was_touched(fleet: Fleet) -> None:
    address = fleet.hosts["host000"]
    converge(fleet, address)
    before = fleet.snapshot()
    on(fleet, address, f"rpm -qa; systemctl show {SERVICE}; cat {fleet.root(address)}/etc/*")
    assert fleet.snapshot() == before
    on(fleet, address, f"systemctl restart {SERVICE}")
    assert fleet.snapshot() != before


QUESTIONS = {
    f"rpm -q {PACKAGE}": ((1, f"package {PACKAGE} is not installed"), (0, f"{PACKAGE}-{VERSION}.x86_64")),
    "rpm --queryformat '%{NAME} %{VERSION}-%{RELEASE}\\n' -qa": ((0, ""), (0, f"{PACKAGE} {VERSION}")),
    f"systemctl is-enabled '{SERVICE}'": ((1, "disabled"), (0, "enabled")),
    f"systemctl is-active {SERVICE}.service": ((3, "inactive"), (0, "active")),
    f"systemctl show --all --property Id --property SubState {SERVICE}.service": (
        (0, f"Id={SERVICE}.service\nSubState=dead"),
        (0, f"Id={SERVICE}.service\nSubState=running"),
    ),
    f"systemctl show -p LoadState,ActiveState {SERVICE}": (
        (0, "LoadState=not-found\nActiveState=inactive"),
        (0, "LoadState=loaded\nActiveState=active"),
    ),
    f"systemctl start {SERVICE}": ((5, ""), (0, "")),
    "systemctl reboot": ((1, ""), (1, "")),
}
"""Commands of the tools, with the status and the output on a bare host and on one that is well."""


@pytest.mark.parametrize("command", QUESTIONS)
def test_the_fakes_answer_as_the_real_ones_would(fleet: Fleet, command: str) -> None:
    address = fleet.hosts["host000"]
    for expected in QUESTIONS[command]:
        answer = on(fleet, address, command)
        assert (answer.returncode, answer.stdout.strip()) == expected
        converge(fleet, address)


# the tools


def test_an_environment_without_the_others_is_told(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").symlink_to(sys.executable)
    others = [tool for tool in all_tools(tmp_path).values() if not isinstance(tool, Core)]
    assert len(others) == 4
    for tool in others:
        with pytest.raises(BenchmarkError, match=r"is not installed in [^:]+: run `make bench`"):
            tool.versions()


def test_ansible_gets_a_fork_for_each_host(fleet: Fleet) -> None:
    ansible = Ansible("Ansible", Path("python"))
    ansible.prepare(fleet)
    inventory = json.loads(Path(ansible.command(fleet)[2]).read_text())["all"]
    assert {name: host["ansible_host"] for name, host in inventory["hosts"].items()} == fleet.hosts
    assert ansible.environment(fleet)["ANSIBLE_FORKS"] == "2"
    assert ansible.environment(fleet.sized(500))["ANSIBLE_FORKS"] == "50"


@pytest.mark.skipif(fleets.SSHD is None, reason="needs sshd, of Debian's openssh-server")
def test_the_core_does_the_work_on_real_hosts() -> None:
    with fleets.start(2) as hosts:
        first, again = measure.converge(Core("runbook", Path(sys.executable)), hosts)
    assert (first.kind, again.kind) == ("first", "again")
    assert 0 < again.client <= 2 * (os.cpu_count() or 1) * again.wall
    assert not hosts.folder.exists()


@pytest.mark.skipif(fleets.SSHD is None, reason="needs sshd, of Debian's openssh-server")
def test_a_tool_that_fails_or_leaves_work_undone_is_not_timed() -> None:
    class Failing(Core):
        def command(self, fleet: Fleet) -> list[str]:
            return ["sh", "-c", "echo so it goes; exit 3"]

    class Idle(Core):
        def command(self, fleet: Fleet) -> list[str]:
            return ["true"]

    with fleets.start(1) as hosts:
        with pytest.raises(BenchmarkError, match="ended with status 3 on 1 hosts:\nso it goes"):
            measure.converge(Failing("Failing", Path("python")), hosts)
        with pytest.raises(BenchmarkError, match="host000 is not in the desired state"):
            measure.converge(Idle("Idle", Path("python")), hosts)


# the tables


def run(tool: str, hosts: int, again: float, first: float = 10.0) -> list[Run]:
    return [
        Run(tool, hosts, kind, wall, client=wall / 2, served=wall / 4, others=0.5)
        for kind, wall in zip(report.KINDS, (first, again), strict=True)
    ]


RUNS = [
    *run("runbook", 50, 1.0),
    *run("runbook", 50, 3.0),
    *run("runbook", 50, 1.2),
    *run("pyinfra", 50, 9.0, first=12.0),
    *run("libssh2 (C client)", 50, 0.8),
]


def test_ratios_are_of_medians() -> None:
    sheet = report.comparison(RUNS, 50)
    assert sheet.columns == ("tool", "rounds", "first", "again", "from, to", "÷ runbook", "client", "hosts", "others")
    assert sheet.rows[0] == ("runbook", "3", "10.00", "1.20", "1.00 to 3.00", "1.00", "0.60", "0.30", "0.5")
    assert sheet.rows[1] == ("pyinfra", "1", "12.00", "9.00", "9.00 to 9.00", "7.50", "4.50", "2.25", "0.5")


def test_aims_are_judged_where_they_were_measured() -> None:
    assert report.judgements(RUNS) == [
        "kept: at least 7 times faster than pyinfra on 50 hosts, nothing to change: 7.50 times",
        "MISSED: within 1.4 times libssh2 (C client) on 50 hosts, nothing to change: 1.50 times",
    ]
    assert report.judgements(run("runbook", 3, 1.0)) == []


def test_growth_is_what_each_host_more_costs() -> None:
    runs = [*run("runbook", 1, 0.5), *run("runbook", 11, 0.7), *run("runbook", 101, 2.5)]
    assert report.growth(runs).rows == [
        ("runbook, s", "0.50", "0.70", "2.50"),
        ("runbook, ms for each host more", "", "20.0", "20.0"),
    ]


def test_a_page_holds_tables_that_markdown_shows() -> None:
    facts = report.machine({"pyinfra": "3.10.0"})
    page = report.page(facts, [report.comparison(RUNS, 50)], ["kept: something"], ["round 1: pyinfra ended"])
    assert "- pyinfra: 3.10.0\n" in page
    assert "## 50 hosts\n\n| tool | rounds |" in page
    assert "\n| --- | ---: |" in page
    failed = "## Runs that failed, and are not counted\n\n- round 1: pyinfra ended\n"
    assert page.endswith(f"\n## Aims\n\n- kept: something\n\n{failed}")
    assert report.page(facts, [], ["kept: something"], []).endswith("## Aims\n\n- kept: something\n")
