"""Docker's hosts: what their answers mean, which images they need, and what must be asked before Docker restarts.

The answers are those of a real Docker 20.10.24 (tests/payloads/docker-20.10.24), with devicemapper's those of 1.12.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from docker_payloads import RECORDED, archive
from local_host import PRESENT, LocalHost
from mesos_site import site as mesos_site

from runbook.errors import HostUnreachable, StepFailed
from runbook.remote.hosts import Hosts, Output
from runbook.remote.shell import Piece
from runbook.remote.units import PackagedUnit
from runbook.services.docker import RESTART, engine, images, ps
from runbook.services.docker.daemon import REGISTRY_DROP_IN
from runbook.services.docker.diagnose import KNOWN, findings, question
from runbook.services.flags import ACTIVATE
from runbook.services.marathon.tables import TASKS
from runbook.services.mesos.tables import typed_table
from runbook.site import Site

RUNNING = "container=mysql (mysql:5.7.13)\ncontainer=registry (registry:2.3.0)\n"
SERVICE = """\
LoadState=loaded
ActiveState=active
SubState=running
UnitFileState=enabled
MainPID=7
ActiveEnterTimestampMonotonic=1000000
ticks=100
hertz=100
now=1800000100.0
uptime=100.0
installed=1700000000
"""
# docker info of Docker 1.12 on CentOS 7, as administrators publish it
LOOP = """\
Containers: 7
 Running: 0
Server Version: 1.12.5
Storage Driver: devicemapper
 Pool Name: docker-253:0-440-pool
 Backing Filesystem: xfs
 Data loop file: /var/lib/docker/devicemapper/devicemapper/data
Cgroup Driver: cgroupfs
Docker Root Dir: /var/lib/docker
WARNING: IPv4 forwarding is disabled
"""


def recorded(name: str) -> Output:
    return Output((RECORDED / name).read_text(), "", 0)


# the package and the service


def test_another_version_of_the_package_is_gated_where_containers_run() -> None:
    step = engine.DockerPackage("docker-engine", "1.11.2-1.el7.centos")
    assert step.plan("installed=1.11.2-1.el7.centos\n" + RUNNING) is None
    first = step.plan("installed=\n")
    assert first is not None
    assert first.gate is None
    change = step.plan("installed=1.11.1-1.el7.centos\n" + RUNNING)
    assert change is not None
    assert change.gate == RESTART
    assert change.consequence == (
        "the package restarts Docker, which ends 2 containers: mysql (mysql:5.7.13), registry (registry:2.3.0)"
    )
    idle = step.plan("installed=1.11.1-1.el7.centos\n")
    assert idle is not None
    assert idle.gate is None


def test_a_restart_of_the_service_is_gated_where_containers_run() -> None:
    step = engine.DockerService(package="docker-engine", restart_if_newer=("/etc/docker/daemon.json",))
    older = SERVICE + "watched=1700000000.0 /etc/docker/daemon.json\n"
    newer = SERVICE + "watched=1800000050.0 /etc/docker/daemon.json\n"
    assert step.plan(older + RUNNING) is None
    change = step.plan(newer + RUNNING)
    assert change is not None
    assert (change.summary, change.gate) == ("restart", RESTART)
    assert change.consequence.startswith("the restart ends 2 containers: mysql")
    survived = step.plan(newer + RUNNING + "live_restore=true\n")
    assert survived is not None
    assert survived.gate is None
    idle = step.plan(newer)
    assert idle is not None
    assert idle.gate is None
    stopped = step.plan(SERVICE.replace("=active", "=inactive").replace("=enabled", "=disabled"))
    assert stopped is not None
    assert (stopped.summary, stopped.gate) == ("enable, start", None)


@pytest.mark.parametrize("shell", PRESENT)
@pytest.mark.parametrize("running", [True, False])
def test_a_docker_that_runs_and_does_not_answer_may_have_containers(tmp_path: Path, shell: str, running: bool) -> None:
    """The question runs for real, with a client that gets no answer, as of a daemon that hangs."""
    programs = {"docker": "exit 124", "systemctl": f"exit {0 if running else 3}"}
    (tmp_path / "bin").mkdir()
    for name, does in programs.items():
        (tmp_path / "bin" / name).write_text(f"#!/bin/sh\n{does}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    host = LocalHost(shell, tmp_path / "state", environment={"PATH": f"{tmp_path}/bin:/usr/bin:/bin"})
    said = host.run(Piece("ask", engine._RUNNING))["ask"].out
    step = engine.DockerPackage("docker-engine", "1.11.2-1.el7.centos")
    change = step.plan(f"installed=1.11.1-1.el7.centos\n{said}")
    assert change is not None
    assert change.gate == (RESTART if running else None)
    assert ("ends every container of the host; which ones, its Docker does not tell" in change.consequence) == running


def test_a_service_older_than_its_package_is_restarted() -> None:
    step = engine.DockerService(package="docker-engine")
    assert step.plan(SERVICE) is None
    change = step.plan(SERVICE.replace("installed=1700000000", "installed=1800000050"))
    assert change is not None
    assert change.diff == "-configuration: older than package docker-engine\n+configuration: current\n"


def process(given: str, *words: str) -> str:
    """What the probe prints of the unit's command (as systemd 219 shows it) and of the process."""
    command = f"unit_ExecStart={{ path=/x ; argv[]=/usr/bin/docker daemon {given} ; ignore_errors=no ; pid=0 }}\n"
    return command + "".join(f"runs={word}\n" for word in ("/usr/bin/docker", "daemon", *words))


def test_a_docker_with_other_options_than_its_unit_gives_is_restarted_behind_the_gate() -> None:
    step = engine.DockerService(package="docker-engine")
    assert step.plan(SERVICE + process("-H fd://", "-H", "fd://") + RUNNING) is None
    change = step.plan(SERVICE + process("-H fd://", "-H", "fd://", "-H", "tcp://0.0.0.0:2375") + RUNNING)
    assert change is not None
    assert (change.summary, change.gate) == ("restart", RESTART)
    assert change.diff == (
        "-process, options: -H fd:// -H tcp://0.0.0.0:2375\n+process, options: -H fd:// (its unit)\n"
    )


DROP_IN = "/etc/systemd/system/docker.service.d/tcp.conf"


def test_a_docker_is_not_restarted_for_a_foreign_drop_in_which_a_restart_names() -> None:
    step = engine.DockerService(package="docker-engine")
    foreign = f"dropin=1800000050.0 no {DROP_IN}\n"
    wider = process("-H fd:// -H tcp://0.0.0.0:2375", "-H", "fd://")
    assert step.plan(SERVICE + wider + foreign) is None
    assert step.plan(SERVICE + wider) is not None  # a drop-in that is known: the unit's options count
    assert engine.DockerService(package="docker-engine", allowed_drop_ins=("tcp.conf",)).plan(SERVICE + wider + foreign)

    older = SERVICE.replace("installed=1700000000", "installed=1800000050")  # a reason of its own
    change = step.plan(older + foreign)
    assert change is not None
    assert change.gate == ACTIVATE
    assert change.consequence == f"the restart activates {DROP_IN}, which the runbook did not write"
    busy = step.plan(older + foreign + RUNNING)
    assert busy is not None
    assert busy.gate == RESTART
    assert busy.consequence.endswith(f"; the restart activates {DROP_IN}, which the runbook did not write")
    ours = f"dropin=1800000050.0 no {REGISTRY_DROP_IN}\ndropin=1800000050.0 yes /usr/lib/systemd/system/x.conf\n"
    known = step.plan(older + ours)
    assert known is not None
    assert known.gate is None


def test_the_units_and_the_settings_of_docker_are_compared() -> None:
    text = "name: t\nhosts: [{name: a, address: 192.0.2.1, roles: [docker]}]\ndocker: {allowed_drop_ins: [proxy.conf]}"
    service, socket, paths = engine.drift(Site.parse(text, Path("t.yml")))
    assert [step.label for step in (service, socket, paths)] == [
        "unit of docker",
        "unit of docker.socket",
        "permissions of docker",
    ]
    assert isinstance(service, PackagedUnit)
    assert (service.own, service.allowed) == ((REGISTRY_DROP_IN,), ("proxy.conf",))
    assert "docker.socket" in socket.probe()
    assert "docker.socket.service" not in socket.probe()
    assert "/etc/docker/daemon.json" in paths.probe()


# the unit


@pytest.mark.parametrize(
    ("name", "state"),
    [
        ("unit-as-shipped.txt", "✓ as shipped"),
        ("unit-with-drop-in.txt", "✓ as shipped, with 1 drop-in"),
        ("unit-edited.txt", "⚠ /usr/lib/systemd/system/docker.service was edited by hand (rpm -V: S.5....T.)"),
    ],
)
def test_an_edited_unit_is_told_from_one_with_drop_ins(name: str, state: str) -> None:
    found, text = engine.unit_of(recorded(name))
    assert found.startswith(state)
    assert "ExecStart=/usr/bin/dockerd -H fd://" in text
    assert ("--insecure-registry" in text) == ("edited" in name)
    assert ("HTTP_PROXY" in text) == ("drop-in" in name)


def test_other_units() -> None:
    assert engine.unit_of(Output("", "", 0))[0] == "not installed"
    assert engine.unit_of(Output(error=HostUnreachable("node1 is down")))[0] == "no answer: node1 is down"
    own = recorded("unit-as-shipped.txt").stdout.replace("=/lib/systemd", "=/etc/systemd")
    assert "in the place of the packaged unit" in engine.unit_of(Output(own, "", 0))[0]
    stale = recorded("unit-as-shipped.txt").stdout.replace("NeedDaemonReload=no", "NeedDaemonReload=yes")
    assert "daemon-reload" in engine.unit_of(Output(stale, "", 0))[0]


# the engine


def test_an_engine_tells_its_version_storage_and_cgroups() -> None:
    found = engine.Facts.of(recorded("info.txt").stdout)
    assert found.software == {
        "docker": "20.10.24+dfsg1",
        "docker storage": "overlay2 on extfs",
        "docker cgroups": "cgroupfs, v1",
    }
    assert (found.root, found.containers, found.images) == ("/var/lib/docker", "6 of 10", "12")
    assert found.warnings == ("IPv4 forwarding is disabled",)


def test_loop_files_are_warned_of() -> None:
    found = engine.Facts.of(LOOP)
    assert found.storage == "devicemapper on xfs"
    assert found.warnings[0].startswith("it stores in loop files")
    assert len(found.warnings) == 2


def test_an_engine_that_does_not_answer_is_told_with_its_words() -> None:
    down = Output("Cannot connect to the Docker daemon. Is the docker daemon running on this host?\n", "", 1)
    absent = Output("", "not installed", 1)
    lost = Output(error=HostUnreachable("node4 is down"))
    answers = [engine._said(output) for output in (down, absent, recorded("info.txt"), lost)]
    table = engine.facts_table({f"node{number}": one for number, one in enumerate(answers, 1)})
    assert list(table.frame["docker"]) == [
        f"✗ {down.stdout.strip()}",
        "not installed",
        "✓ 20.10.24+dfsg1",
        "✗ node4 is down",
    ]


# images


IMAGES = """\
name: t
hosts:
  - {name: node1, address: 198.51.100.11, roles: [zookeeper, mesos_master, mesos_slave, docker, registry, registry_web]}
  - {name: node2, address: 198.51.100.12, roles: [mesos_slave, docker]}
  - {name: node3, address: 198.51.100.13, roles: [docker]}
zookeeper: {allow_even: true}
mesos: {master: {allow_even: true}}
images:
"""


def images_site(folder: Path, app: str = "centos:7.2.1511") -> Site:
    lines = []
    tags = ("centos:7.2.1511", "mysql:5.7.13", "registry:2.3.0", "hyper/docker-registry-web:v0.0.4")
    for key, tag in zip(("centos", "mysql", "registry", "registry_web"), tags, strict=True):
        digest, _ = archive(folder / f"{key}.tar", tag, config=key.encode())
        lines.append(f'  {key}: {{tag: "{tag}", file: {folder}/{key}.tar, sha256: "{digest}"}}')
    app = f'apps: {{a: {{container: {{type: DOCKER, docker: {{image: "{app}"}}}}}}}}'
    return Site.parse("\n".join([IMAGES + "\n".join(lines), app]), folder / "site.yml")


def test_each_host_gets_the_images_that_it_needs(tmp_path: Path) -> None:
    described = images_site(tmp_path)
    assert {host.name: list(images.needed(described, host)) for host in described.hosts} == {
        "node1": ["centos", "mysql", "registry", "registry_web"],
        "node2": ["centos", "mysql"],
        "node3": [],
    }
    both = images_site(tmp_path, app="registry:2.3.0")
    assert "registry" in images.needed(both, both.hosts[1])


def test_without_slaves_every_docker_host_gets_the_images(tmp_path: Path) -> None:
    text = IMAGES.replace("mesos_slave, ", "").replace("zookeeper, mesos_master, ", "")
    text += f'  centos: {{tag: "centos:7", file: x.tar, sha256: "{"0" * 64}"}}\n'
    described = Site.parse(text, tmp_path / "site.yml")
    assert all("centos" in images.needed(described, host) for host in described.hosts)


def test_images_are_shown_beside_their_archives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    described = images_site(tmp_path)
    _, centos = archive(tmp_path / "centos.tar", "centos:7.2.1511", config=b"centos")
    old = "sha256:" + "1" * 64
    said = "\n".join(
        [
            f"image=centos:7.2.1511\t{centos}\t<none>\t197MB\t2 weeks ago",
            f"image=mysql:5.7.13\t{old}\t<none>\t380MB\t2 weeks ago",
            f"image=registry:2.3.0\t{old}\t{old}\t165MB\t2 weeks ago",
            f"image=registry:<none>\t{old}\t{old}\t165MB\t2 weeks ago",  # a line of 1.11 for a digest
            f"image=by-digest:<none>\tsha256:{'d' * 64}\tsha256:{'e' * 64}\t165MB\t2 weeks ago",
            f"image=<none>:<none>\t{old}\t<none>\t1MB\t2 weeks ago",
            *recorded("images.txt").stdout.splitlines()[:1],
        ]
    )
    output = {"node1": Output(said, "", 0), "node2": Output("", "not installed", 1)}
    monkeypatch.setattr(Hosts, "run", lambda self, script: output)
    table = images.table(described, Hosts.of(described).only("node1", "node2")).frame
    states = {(row["host"], row["image"]): row["state"] for row in table.to_dict("records")}
    assert states["node1", "centos:7.2.1511"] == "✓ as in its archive"
    assert states["node1", "mysql:5.7.13"] == "✗ another image than in its archive"
    assert states["node1", "registry:2.3.0"].startswith("✓ by its tag")
    assert states["node1", "hyper/docker-registry-web:v0.0.4"] == "✗ missing"
    assert states["node1", "<none>:<none>"] == "– without a tag"
    assert states["node1", "by-digest:<none>"] == "– without a tag"
    assert ("node1", "registry:<none>") not in states
    assert states["node1", "dockerpart/tiny:1"] == "– not of the parameters"
    assert states["node2", ""] == "not installed"


def test_an_image_is_found_by_the_name_that_docker_shortens(tmp_path: Path) -> None:
    """`docker images` leaves out docker.io/library/, as it does after `docker load` of an archive that has it."""
    described = images_site(tmp_path, app="docker.io/library/registry:2.3.0")
    assert "registry" in images.needed(described, described.hosts[1])
    long = described.images["centos"].model_copy(update={"tag": "docker.io/library/centos:7.2.1511"})
    described = described.model_copy(update={"images": {"centos": long}})
    _, centos = archive(tmp_path / "centos.tar", "centos:7.2.1511", config=b"centos")
    said = f"image=centos:7.2.1511\t{centos}\t<none>\t197MB\t2 weeks ago"
    states = [row[1:3] for row in images._rows(described, described.hosts[1], Output(said, "", 0))]
    assert states == [("centos:7.2.1511", "✓ as in its archive")]
    missing = [row[1:3] for row in images._rows(described, described.hosts[1], Output("", "", 0))]
    assert missing == [("docker.io/library/centos:7.2.1511", "✗ missing")]


@pytest.mark.parametrize("shell", PRESENT)
def test_images_are_not_missing_where_docker_does_not_answer(tmp_path: Path, shell: str) -> None:
    """The question runs for real, with a client that says what a real one does without its daemon."""
    docker = tmp_path / "bin" / "docker"
    docker.parent.mkdir()
    docker.write_text(
        "#!/bin/sh\necho 'Cannot connect to the Docker daemon at unix:///var/run/docker.sock.' >&2; exit 1\n"
    )
    docker.chmod(0o755)
    host = LocalHost(shell, tmp_path / "state", environment={"PATH": f"{docker.parent}:/usr/bin:/bin"})
    frame = host.run(Piece("ask", images._IMAGES))["ask"]
    described = images_site(tmp_path)
    rows = list(images._rows(described, described.hosts[0], Output(frame.out, frame.err, frame.status)))
    told = "✗ Cannot connect to the Docker daemon at unix:///var/run/docker.sock."
    assert rows == [("node1", "", told, "", "", "")]
    lost = Output(error=HostUnreachable("node1 is down"))
    assert [row[2] for row in images._rows(described, described.hosts[0], lost)] == ["✗ node1 is down"]


# what runs


TASK = "centos-marathon.8d32e198-e86c-11f1-bb89-0242c633644b"


def tasks(*names: str) -> pd.DataFrame:
    rows = {"app": "/centos-marathon", "host": "node1", "state": "running"}
    return typed_table(
        TASKS, {name: [rows.get(name)] * len(names) if name != "task" else list(names) for name in TASKS}
    )


def fleet(monkeypatch: pytest.MonkeyPatch, **outputs: Output) -> Hosts:
    monkeypatch.setattr(Hosts, "run", lambda self, script, deadline=60.0: outputs)
    return Hosts.of(mesos_site())


def test_containers_are_matched_with_tasks_by_their_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    hosts = fleet(monkeypatch, node1=recorded("ps.txt"), node2=Output("", "not installed", 1))
    found = ps.containers(hosts)
    assert list(found["container"].str[:6]) == ["by-han", "mesos-"]
    assert found["task"].isna().tolist() == [True, False]
    assert found["task"][1] == TASK
    assert found["ports"][0] == "0.0.0.0:8600->5000/tcp"
    assert list(found["host"]) == ["node1", "node1"]
    assert ps.containers(fleet(monkeypatch)).empty

    table = ps.table(fleet(monkeypatch, node1=recorded("ps.txt"), node2=Output("", "no", 1)), tasks(TASK, "gone")).frame
    assert list(table["state"]) == ["– not of Mesos", "✓ running", "✗ no container of this task (running)", "✗ no"]
    assert list(table["id"][:2]) == ["a3cef6d428a5", "3591de1ab93a"]
    other = ps.table(fleet(monkeypatch, node1=recorded("ps.txt")), tasks()).frame
    assert other["state"][1] == "– of another app, or of none any longer"
    silent = ps.table(fleet(monkeypatch, node1=recorded("ps.txt")), None).frame
    assert silent["state"][1] == "– of Mesos; Marathon does not answer"


def test_no_other_variable_leaves_the_host() -> None:
    assert "json .Config.Env" not in ps._PS
    assert ps._PS.count(".Config.Env") == 1


def test_logs_of_one_container_or_the_reason_why_there_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ps.logs(fleet(monkeypatch, node1=Output("07:32:16\n", "", 0)), "node1", "3fcc29f52928") == "07:32:16\n"
    with pytest.raises(StepFailed, match="node1: docker logs 3fcc29f52928: Error: No such container"):
        ps.logs(fleet(monkeypatch, node1=Output("Error: No such container: 3fcc\n", "", 1)), "node1", "3fcc29f52928")
    with pytest.raises(HostUnreachable):
        ps.logs(fleet(monkeypatch, node1=Output(error=HostUnreachable("down"))), "node1", "3fcc29f52928")


@pytest.mark.parametrize("shell", PRESENT)
def test_the_last_lines_are_those_of_the_wanted_containers_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shell: str
) -> None:
    """The question runs for real, with a client that has two containers."""
    docker = tmp_path / "bin" / "docker"
    docker.parent.mkdir()
    docker.write_text('#!/bin/sh\ncase $1 in ps) echo aaa; echo bbb;; logs) echo "07:32:16 of $4";; esac\n')
    docker.chmod(0o755)
    host = LocalHost(shell, tmp_path / "state", environment={"PATH": f"{docker.parent}:/usr/bin:/bin"})
    said: list[str] = []

    def run(self: Hosts, script: str) -> dict[str, Output]:
        frame = host.run(Piece("ask", script))["ask"]
        said.append(frame.out)
        return {one.name: Output(frame.out, frame.err, frame.status) for one in self}

    monkeypatch.setattr(Hosts, "run", run)
    running = pd.DataFrame([("node1", "t.1", "aaa")], columns=["host", "task", "id"])
    assert ps.last_lines(Hosts.of(mesos_site()), running)["last lines"].tolist() == ["07:32:16 of aaa"]
    assert said[0].count("log=") == 1


# diagnoses


def causes(text: str) -> list[str]:
    return [finding.cause for finding in findings("node1", Output(text, "", 0))]


def test_a_container_that_the_kernel_ended_is_told_from_one_that_was_stopped() -> None:
    """Both end with 137."""
    (finding,) = findings("node1", recorded("diagnosis.txt"))
    assert "more memory than it was given" in finding.cause
    assert finding.evidence == "mesos-oom ended with 137 at 2026-11-25T01:08:46Z, at a limit of 8 MB"
    assert "raise `mem`" in finding.remedy


@pytest.mark.parametrize(
    ("line", "cause"),
    [
        ("None of the enabled containerizers (mesos) could create a container", "--containerizers=mesos"),
        ("Terminating executor x because it did not register within 1mins", "pulling the image took longer"),
        ("iptables failed: ... : iptables: No chain/target/match by that name.", "removed the iptables chains"),
        ("Bind for 0.0.0.0:8401 failed: port is already allocated", "listens on a port which Mesos offers"),
        ("write /var/lib/docker/tmp/x: no space left on device", ""),
        ("write /var/lib/docker/tmp/x: No space left on device", "fill the disk"),
    ],
)
def test_known_failures_are_found_in_the_logs(line: str, cause: str) -> None:
    found = causes(f"docker=yes\nline={line}\n")
    assert found == [] if not cause else cause in found[0]


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("docker=absent\n", "Docker is not installed"),
        ("docker=Cannot connect to the Docker daemon.\n", "Docker does not answer"),
        ("docker=yes\ndisk=97 /var/lib/docker\nexited=3\n", "the disk is nearly full"),
        ("docker=yes\nloop=yes\n", "Docker stores in loop files"),
        ("docker=yes\ndisk=10 /\nexited=80\n", "ended containers pile up"),
    ],
)
def test_what_a_host_says_of_its_storage(text: str, cause: str) -> None:
    assert causes(text) == [cause]


def test_a_host_that_does_not_answer_is_a_finding() -> None:
    (finding,) = findings("node1", Output(error=HostUnreachable("node1 is down")))
    assert finding.evidence == "node1 is down"


def test_the_question_looks_for_every_known_failure() -> None:
    text = question(mesos_site())
    assert len(KNOWN) == 6
    assert text.count(" -e ") == len(KNOWN)
