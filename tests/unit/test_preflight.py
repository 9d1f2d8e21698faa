"""Whether hosts are fit, judged from what they answered; the question itself is asked of this machine's shells."""

from __future__ import annotations

import io
import subprocess
from pathlib import Path

import pytest
from local_host import PRESENT, SHELLS
from rich.console import Console

from runbook.errors import (
    AuthenticationRefused,
    BecomeFailed,
    HostKeyChanged,
    HostKeyRevoked,
    HostKeyUnknown,
    HostUnreachable,
    LoginShellFailed,
)
from runbook.remote.hosts import Output
from runbook.services.overview import preflight
from runbook.services.overview.preflight import Preflight, Seen, State, judge
from runbook.site import Site

NOW = 1_800_000_000.0
JAVA = "java -cp zookeeper.jar org.apache.zookeeper.server.quorum.QuorumPeerMain zoo.cfg"

WELL = {
    "first": str(NOW + 0.10),
    "uid": "0",
    "os": "CentOS Linux 7 (Core)",
    "os_id": "centos",
    "os_version": "7",
    "kernel": "3.10.0",
    "cpus": "8",
    "memory": str(32 * 1024 * 1024),
    "systemd": "running",
    "firewalld": "inactive",
    "zookeeper": "yes",
    "overlay": "yes",
    "docker_package": "docker-engine",
    "last": str(NOW + 0.20),
}
DISKS = ["disk=99999999 / " + path for path in ("/var/lib/runbook", "/var/lib/zookeeper")]
ADDRESSES = ["address=127.0.0.1", "address=198.51.100.11"]
TOOLS = [f"tool={tool}" for tool in (*preflight.TOOLS, "rpm", "yum", "ss", "java", "docker")]
ROLES = "[zookeeper, mesos_master, mesos_slave, marathon, docker, registry, registry_web]"


def site(roles: str = ROLES, more: str = "") -> Site:
    return Site.parse(
        f"name: test\nhosts:\n  - {{name: node1, address: 198.51.100.11, roles: {roles}}}\n"
        f"zookeeper: {{allow_even: true}}\nmesos: {{master: {{allow_even: true}}}}\n{more}",
        Path("test.yml"),
    )


def seen(
    described: Site,
    *lines: str,
    without: tuple[str, ...] = (),
    output: Output | None = None,
    reached: dict[int, bool] | None = None,
    **facts: str,
) -> Seen:
    """A host that is well but for `lines` (more), what begins with one of `without` (less) and `facts` (other)."""
    said = [f"{key}={value}" for key, value in {**WELL, **facts}.items()]
    kept = [line for line in said + DISKS + ADDRESSES + TOOLS if not line.startswith(without)] if without else None
    text = "\n".join([*(kept if kept is not None else said + DISKS + ADDRESSES + TOOLS), *lines])
    ports = dict.fromkeys(described.listening(described.hosts[0]).values(), True) if reached is None else reached
    return Seen(described.hosts[0], output or Output(text, "", 0, sent=NOW, received=NOW + 0.3), ports)


def states(*items: preflight.Item) -> dict[str, State]:
    return {item.check: item.state for item in items}


def judged(check: str, one: Seen, described: Site | None = None) -> preflight.Item:
    (item,) = (item for item in judge(described or site(), [one]) if item.check == check)
    return item


def test_what_a_host_without_a_tool_cannot_say_is_unknown() -> None:
    found = states(*judge(site(), [seen(site(), without=("tool=awk", "memory="))]))
    assert (found["memory"], found["tools"]) == (State.UNKNOWN, State.PROBLEM)


def test_a_host_that_is_well_has_nothing_to_do() -> None:
    items = judge(site(), [seen(site())])
    assert set(states(*items).values()) == {State.OK}, items
    result = Preflight("test", (), items)
    assert result.ok
    assert len(result.tables) == 1


@pytest.mark.parametrize(
    ("error", "check"),
    [
        (HostUnreachable("node1 cannot be reached", "check the network"), "reached"),
        (HostKeyUnknown("node1 shows an unknown key", "compare"), "host key"),
        (HostKeyChanged("node1 shows another key", "compare"), "host key"),
        (AuthenticationRefused("node1 refused the login", "check ssh.key"), "login"),
        (HostKeyRevoked("node1 shows a revoked key", "make a new one"), "host key"),
        (LoginShellFailed("node1 started no shell", "see getent passwd"), "login"),
        (BecomeFailed("node1: sudo refused", "check sudoers"), "sudo"),
    ],
)
def test_where_a_host_cannot_be_used_the_stage_is_named_and_nothing_after_it_is_judged(
    error: HostUnreachable, check: str
) -> None:
    items = judge(site(), [seen(site(), output=Output(error=error))])
    failed = [item for item in items if item.state is State.PROBLEM]
    assert [(item.check, item.meaning, item.remedy) for item in failed] == [(check, error.message, error.remedy)]
    after = items[items.index(failed[0]) + 1 :]
    assert {item.state for item in after} == {State.UNKNOWN}
    assert not Preflight("test", (), items).ok


def test_a_login_that_is_not_root_is_a_problem() -> None:
    item = judged("sudo", seen(site(), uid="1000"))
    assert (item.state, item.found) == (State.PROBLEM, "uid 1000")
    assert "ssh.become: sudo" in item.remedy


@pytest.mark.parametrize(
    ("ahead", "state", "found"),
    [
        (0.0, State.OK, "within"),
        (1.0, State.OK, "within"),  # may be no more than the 0.2 s that the question was on its way
        (4.0, State.WARNING, "4 s ahead"),
        (-4.0, State.WARNING, "4 s behind"),
        (7200.0, State.PROBLEM, "7200 s ahead"),
    ],
)
def test_the_clock_is_judged_by_what_is_sure(ahead: float, state: State, found: str) -> None:
    item = judged("clock", seen(site(), first=str(NOW + 0.1 + ahead), last=str(NOW + 0.2 + ahead)))
    assert item.state is state
    assert item.found.startswith(found)


def test_hosts_whose_clocks_agree_put_this_machines_in_doubt() -> None:
    late = seen(site(), first=str(NOW + 7200), last=str(NOW + 7200.1))
    items = [item for item in judge(site(), [late, late, late]) if item.check == "clock"]
    assert {item.state for item in items} == {State.WARNING}
    assert "of this machine, whose clock may be the wrong one" in items[0].meaning


def test_another_system_than_centos_7_is_worth_knowing() -> None:
    item = judged("system", seen(site(), os="Debian GNU/Linux 12 (bookworm)", os_id="debian", os_version="12"))
    assert item.state is State.WARNING
    assert "CentOS 7" in item.meaning


def test_memory_must_hold_what_the_roles_take_by_themselves() -> None:
    item = judged("memory", seen(site(), memory=str(2 * 1024 * 1024)))
    assert item.state is State.PROBLEM
    assert "2048 MB" in item.meaning
    alone = site("[zookeeper]")
    assert judged("memory", seen(alone, memory=str(2 * 1024 * 1024)), alone).state is State.OK


def test_folders_of_one_filesystem_share_its_room() -> None:
    alone = site("[zookeeper]")
    both = ["disk=1800000 / /var/lib/runbook", "disk=1800000 / /var/lib/zookeeper"]  # 1.7 GB free, 2 GB should be
    item = judged("disk", seen(alone, *both, without=("disk=",)), alone)
    assert item.state is State.WARNING
    assert "1.7 GB free at /, 2 GB should be" in item.meaning
    apart = ["disk=1800000 / /var/lib/runbook", "disk=1800000 /var /var/lib/zookeeper"]
    assert judged("disk", seen(alone, *apart, without=("disk=",)), alone).state is State.OK
    full = ["disk=100 / /var/lib/zookeeper"]
    assert judged("disk", seen(alone, *full, without=("disk=",)), alone).state is State.PROBLEM


@pytest.mark.parametrize(
    ("facts", "roles", "state", "word"),
    [
        ({"systemd": "degraded"}, ROLES, State.WARNING, "kdump.service"),
        ({"systemd": ""}, ROLES, State.PROBLEM, "systemd does not manage"),
        ({"systemd": ""}, "[zookeeper]", State.OK, ""),
        ({"firewalld": "active"}, ROLES, State.WARNING, "firewalld"),
    ],
)
def test_systemd(facts: dict[str, str], roles: str, state: State, word: str) -> None:
    item = judged("systemd", seen(site(roles), "failed=kdump.service", **facts), site(roles))
    assert item.state is state
    assert word in item.meaning


@pytest.mark.parametrize(
    ("missing", "roles", "state", "found"),
    [
        ("tool=base64", "[zookeeper]", State.PROBLEM, "no base64"),
        ("tool=yum", ROLES, State.PROBLEM, "no yum"),
        ("tool=yum", "[zookeeper]", State.OK, "all there"),
        ("tool=java", ROLES, State.WARNING, "no java"),
        ("tool=ss", ROLES, State.WARNING, "no ss"),
        ("zookeeper=", ROLES, State.PROBLEM, "no zkServer.sh"),
    ],
)
def test_tools(missing: str, roles: str, state: State, found: str) -> None:
    item = judged("tools", seen(site(roles), without=(missing,)), site(roles))
    assert (item.state, item.found) == (state, found)


# as Ambari writes them (its template zookeeper-env)
AMBARI_PID = "zookeeper_env=ZOOPIDFILE /var/run/zookeeper/zookeeper_server.pid"
AMBARI_LOG = "zookeeper_env=ZOO_LOG_DIR /var/log/zookeeper"


@pytest.mark.parametrize(
    ("lines", "more", "state", "remedy"),
    [
        ([AMBARI_PID], "", State.PROBLEM, "set zookeeper.pid_dir to /var/run/zookeeper"),
        ([AMBARI_LOG], "", State.WARNING, "set zookeeper.log_dir to /var/log/zookeeper"),
        (
            [AMBARI_LOG, AMBARI_PID],
            "",
            State.PROBLEM,
            "set zookeeper.pid_dir to /var/run/zookeeper; set zookeeper.log_dir to /var/log/zookeeper",
        ),
        ([AMBARI_LOG, AMBARI_PID], ", pid_dir: /run/zookeeper, log_dir: /var/log/zookeeper", State.OK, ""),
        (["zookeeper_env=ZOOPIDFILE /run/zk.pid"], ", pid_dir: /run", State.PROBLEM, "let ZOOPIDFILE there be"),
        (["zookeeper_env=ZOOPIDFILE $X/zk.pid", "zookeeper_env=ZOO_LOG_DIR"], "", State.OK, ""),
        ([AMBARI_PID, "zookeeper_env=ZOOPIDFILE '/var/lib/zookeeper/zookeeper_server.pid' # ours"], "", State.OK, ""),
    ],
)
def test_where_ambari_has_zookeeper_write_is_compared_with_the_parameters(
    lines: list[str], more: str, state: State, remedy: str
) -> None:
    described = Site.parse(
        "name: test\nhosts:\n  - {name: node1, address: 198.51.100.11, roles: [zookeeper]}\n"
        f"zookeeper: {{allow_even: true{more}}}\n",
        Path("test.yml"),
    )
    item = judged("tools", seen(described, *lines), described)
    assert (item.state, remedy in item.remedy) == (state, True), item


@pytest.mark.parametrize(
    ("without", "more", "roles", "state", "word"),
    [
        ((), ["ftype=1"], ROLES, State.OK, ""),
        (("overlay=", "docker_package=", "tool=docker"), [], "[zookeeper]", State.OK, ""),
        (("docker_package=", "tool=docker"), [], ROLES, State.OK, ""),
        (("docker_package=",), ["docker_package=docker-ce"], ROLES, State.PROBLEM, "docker-ce is installed"),
        (("docker_package=",), [], ROLES, State.PROBLEM, "no package brought"),
        (("docker_package=", "tool=docker"), ["docker_package=container-selinux"], ROLES, State.PROBLEM, "conflicts"),
        (
            ("docker_package=", "tool=docker"),
            ["docker_package=docker-selinux", "docker_package=docker"],
            ROLES,
            State.PROBLEM,
            "docker is installed",
        ),
        ((), ["docker_package=container-selinux"], ROLES, State.OK, ""),  # docker-engine is there in spite of it
        (("overlay=",), [], ROLES, State.WARNING, "no overlay in the kernel"),
        ((), ["ftype=0"], ROLES, State.WARNING, "XFS without ftype"),
    ],
)
def test_docker_can_be_installed_and_store(
    without: tuple[str, ...], more: list[str], roles: str, state: State, word: str
) -> None:
    item = judged("docker", seen(site(roles), *more, without=without or ("nothing",)), site(roles))
    assert item.state is state
    assert word in item.meaning


def test_images_that_are_not_there_yet_need_room(tmp_path: Path) -> None:
    with (tmp_path / "big.tar").open("wb") as file:
        file.truncate(2 << 30)
    described = site(more=f'images: {{big: {{tag: "big:1", file: {tmp_path}/big.tar, sha256: "{"0" * 64}"}}}}\n')
    disks = [f"disk={7 << 20} / {path}" for path in ("/var/lib/runbook", "/var/lib/docker")]  # 7 GB free, 8 needed
    item = judged("docker", seen(described, *disks, without=("disk=",)), described)
    assert (item.state, item.found) == (State.PROBLEM, "no room for images")
    assert "8.0 GB at / for archives and images, 7.0 GB free" in item.meaning
    item = judged("docker", seen(described, *disks, "image=big:1", without=("disk=",)), described)
    assert (item.state, item.found) == (State.OK, "docker-engine")


def test_an_address_that_the_host_does_not_have() -> None:
    item = judged("address", seen(site(), "address=10.0.0.7", without=("address=198",)))
    assert item.state is State.PROBLEM
    assert "198.51.100.11 is on none of its interfaces (10.0.0.7)" in item.meaning


def test_a_name_of_its_own_that_is_the_loopback() -> None:
    item = judged("address", seen(site(), "maps=node1.example 198.51.100.11 1", "maps=node1 127.0.0.1 2"))
    assert (item.state, item.found) == (State.WARNING, "node1 is 127.0.0.1")
    assert "/etc/hosts line 2 maps its own name node1 to 127.0.0.1: libprocess announces it" in item.meaning
    named = Site.parse(
        "name: x\nhosts: [{name: n, address: node1, roles: [zookeeper, mesos_master, marathon]}]\n"
        "zookeeper: {allow_even: true}\nmesos: {master: {allow_even: true}}\n",
        Path("x.yml"),
    )
    item = judged("address", seen(named, "maps=node1 127.0.1.1 2"), named)
    assert item.state is State.PROBLEM
    assert "ZooKeeper binds its quorum and election ports to it" in item.meaning
    assert "Marathon's hostname" in item.meaning


def test_a_port_may_be_held_by_the_service_that_it_is_for_and_by_no_other() -> None:
    own = [f"listen=2181 7 {JAVA}", f"listen=3888 7 {JAVA}", "listen=8150 9 /usr/sbin/mesos-master --port=8150"]
    item = judged("ports", seen(site(), *own))
    assert (item.state, item.found) == (State.OK, "5 free, 3 in use by their service")
    item = judged("ports", seen(site(), *own, "listen=8080 5 java -jar tomcat.jar", "listen=22 1 sshd"))
    assert (item.state, item.found) == (State.PROBLEM, "1 taken")
    assert item.meaning == "port 8080 (marathon.http_port) is held by pid 5 (java)"


def test_ports_of_a_host_that_cannot_tell_who_holds_them() -> None:
    assert judged("ports", seen(site(), "listen=unknown ? ")).state is State.WARNING


IMAGES = "".join(
    f"  {name}: {{tag: '{tag}', file: x.tar, sha256: '{0:064}'}}\n"
    for name, tag in {"registry": "registry:2.3.0", "registry_web": "hyper/docker-registry-web:v0.0.4"}.items()
)
PROXIES = ("listen=8600 5 /usr/bin/docker-proxy -host-port 8600", "listen=8400 6 docker-proxy -host-port 8400")


@pytest.mark.parametrize(
    ("image", "name", "state", "message"),
    [
        ("hyper/docker-registry-web", "registry-web", State.OK, "2 in use by their service"),
        ("hyper/docker-registry-web", "lonely_bohr", State.WARNING, "8.2 takes over the container lonely_bohr"),
        (
            "nginx:1.9",
            "lonely_bohr",
            State.PROBLEM,
            "(registry_web.port) is held by the container lonely_bohr",
        ),
        ("hyper/docker-registry-web", "mesos-4c-S1.f", State.PROBLEM, "is held by the container mesos-4c-S1.f"),
    ],
)
def test_a_container_that_holds_a_port_is_named(image: str, name: str, state: State, message: str) -> None:
    described = site(more=f"images:\n{IMAGES}")
    containers = (f"published=1 /{name} {image} 8400/8080/tcp ", "published=2 /registry registry:2.3.0 8600/5000/tcp ")
    item = judged("ports", seen(described, *PROXIES, *containers), described)
    assert item.state is state
    assert message in item.found + item.meaning
    if state is State.PROBLEM:
        assert ("docker stop" in item.remedy) == (name == "lonely_bohr")


def test_ports_that_this_machine_gets_no_answer_from() -> None:
    item = judged("reach", seen(site(), reached={2181: False, 8150: True}))
    assert (item.state, item.found) == (State.WARNING, "not 2181")


def test_a_file_that_is_missing_is_a_problem_of_this_machine() -> None:
    missing = tuple(site().missing_files())
    assert missing
    result = Preflight("test", missing, judge(site(), [seen(site())]))
    assert result.fit
    assert not result.ok
    assert "this machine" in result._repr_html_()


@pytest.mark.parametrize("count", [3, 12])
def test_it_shows_hosts_and_checks_and_the_same_thing_to_do_once(count: int) -> None:
    hosts = "\n".join(
        f"  - {{name: node{n}, address: 198.51.100.{n}, roles: [zookeeper]}}" for n in range(1, count + 1)
    )
    many = Site.parse(f"name: test\nhosts:\n{hosts}\nzookeeper: {{allow_even: true}}\n", Path("test.yml"))
    everybody = [
        Seen(host, seen(site(), f"address={host.address}", systemd="degraded").output, {}) for host in many.hosts
    ]
    result = Preflight("test", (), judge(many, everybody))
    assert result.ok
    assert list(result.frame.index) == [host.name for host in many.hosts]
    (what_to_do,) = result.tables[1:]
    assert what_to_do.frame["where"].tolist() == [", ".join(host.name for host in many.hosts)]
    out = io.StringIO()
    Console(file=out, width=240).print(result)
    assert f"test: {count} hosts, no problems, {count} warnings" in out.getvalue()


@pytest.mark.parametrize("shell", PRESENT)
@pytest.mark.parametrize("content", [None, "ID='centos"])
def test_an_os_release_that_is_missing_or_malformed_ends_nothing(
    tmp_path: Path, shell: str, content: str | None
) -> None:
    """CentOS 6 has none; and `.` is a special built-in utility, whose errors end a POSIX shell (POSIX, 2.8.1)."""
    if content is not None:
        (tmp_path / "os-release").write_text(content)
    described = site(ROLES)
    text = preflight.question(described, described.hosts[0]).replace("/etc/os-release", str(tmp_path / "os-release"))
    done = subprocess.run([*SHELLS[shell], "-s"], input=text, text=True, capture_output=True, check=False)
    assert done.returncode == 0
    assert "kernel=" in done.stdout
    assert "os_id=" not in done.stdout


@pytest.mark.parametrize("shell", ["dash", "bash"])
def test_the_question_is_understood_by_the_shells_and_answers_everything(shell: str) -> None:
    described = site(ROLES, "registry: {data_dir: /opt/a~registry@+}\n")
    text = preflight.question(described, described.hosts[0])
    done = subprocess.run([shell, "-s"], input=text, text=True, capture_output=True, check=False)
    assert done.returncode == 0
    answered = Seen(described.hosts[0], Output(done.stdout, done.stderr, 0), {})
    assert {"first", "uid", "kernel", "cpus", "memory", "systemd", "firewalld", "last"} <= answered.fact.keys()
    assert float(answered.fact["first"]) <= float(answered.fact["last"])
    disks = [line for line in done.stdout.splitlines() if line.startswith("disk=")]
    assert any(line.endswith(" /opt/a~registry@+") for line in disks)
    assert {item.check for item in judge(described, [answered])} >= {"clock", "disk", "ports"}
