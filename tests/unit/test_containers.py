"""Images and containers as steps: planned from what a real Docker answered, their scripts run against a double."""

from __future__ import annotations

import base64
import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from docker_payloads import CONTAINERS, IMAGE, TAG, archive, state
from local_host import PRESENT, SHELLS, LocalHost

from runbook.errors import StepFailed
from runbook.remote import containers, steps
from runbook.remote.containers import Container, Image, archived, published, repository
from runbook.remote.shell import Piece
from runbook.remote.steps import Change
from runbook.secrets import Secret

ABSENT = "silent=it is not installed\n"
ENVIRONMENT = {"REGISTRY_HTTP_SECRET": Secret("recorded-secret"), "REGISTRY_STORAGE_DELETE_ENABLED": "true"}


def registry(**other: Any) -> Container:
    """The recorded container `registry`, as it would be wanted."""
    wanted: dict[str, Any] = {
        "name": "registry",
        "image": TAG,
        "ports": {8600: 5000},
        "environment": ENVIRONMENT,
        "volumes": {"/opt/registry": "/var/lib/registry"},
        "gate": containers.RECREATE,
    }
    return Container(**(wanted | other))


def changed(step: Container | Image, text: str) -> Change:
    change = step.plan(text)
    assert change is not None
    return change


# images


@pytest.fixture
def tiny(tmp_path: Path) -> tuple[Image, str]:
    """An image step with its archive, and the archive's image id."""
    file = tmp_path / "tiny.tar"
    digest, image_id = archive(file, TAG)
    return Image(TAG, file, digest), image_id


def test_an_absent_image_is_uploaded_and_loaded(tiny: tuple[Image, str]) -> None:
    step, image_id = tiny
    change = changed(step, "image=\nstaged=no\n")
    assert change.summary == "upload and load tiny.tar"
    assert change.diff == f"-{TAG}: no such image\n+{TAG}: {image_id}\n"
    assert [upload.local for upload in change.uploads] == [step.file]
    assert changed(step, "image=\nstaged=yes\n").uploads == ()


def test_an_image_is_there_when_its_id_is_the_archives(tiny: tuple[Image, str]) -> None:
    step, image_id = tiny
    assert step.plan(f"image={image_id} []\nstaged=no\n") is None
    stale = changed(step, f"image={IMAGE} []\nstaged=no\n")
    assert stale.summary == "upload and load tiny.tar, in place of another image of this tag"
    assert stale.diff == f"-{TAG}: {IMAGE}\n+{TAG}: {image_id}\n"
    # pulled or pushed: the manifest's digest is another one than the id
    assert step.plan(f'image={IMAGE} ["{TAG.split(":")[0]}@{image_id}"]\nstaged=no\n') is not None


def test_in_containerds_store_the_tag_alone_tells(tiny: tuple[Image, str]) -> None:
    """There an id is the manifest's digest: moby/moby#45122 shows an image of both forms."""
    step, _ = tiny
    digest = "sha256:69665d02cb32192e52e07644d76bc6f25abeb5410edc1c7a81a10ba3f0efb90a"
    assert step.plan(f'image={digest} ["alpine@{digest}","myimage@{digest}"]\nstaged=no\n') is None


def test_an_archive_without_the_tag_is_refused_before_it_is_uploaded(tmp_path: Path) -> None:
    digest, _ = archive(tmp_path / "registry.tar", "registry:latest")
    step = Image("registry:2.3.0", tmp_path / "registry.tar", digest)
    with pytest.raises(StepFailed, match=r"registry\.tar holds registry:latest, and not registry:2\.3\.0"):
        step.plan("image=\nstaged=no\n")


def test_tags_are_compared_as_docker_shortens_them(tmp_path: Path) -> None:
    digest, image_id = archive(tmp_path / "r.tar", "docker.io/library/registry:2.3.0")
    assert Image("registry:2.3.0", tmp_path / "r.tar", digest).plan(f"image={image_id} []\nstaged=no\n") is None


def test_what_else_an_archive_brings_is_told(tmp_path: Path) -> None:
    digest, _ = archive(tmp_path / "r.tar", "registry:2.3.0", "shop:7", "docker.io/library/busybox:1")
    change = changed(Image("registry:2.3.0", tmp_path / "r.tar", digest), "image=\nstaged=no\n")
    assert change.summary == "upload and load r.tar; it holds busybox:1, shop:7 as well"


@pytest.mark.parametrize("content", [None, b"not a tar", b"\x1f\x8b\x08 cut gzip"])
def test_a_file_that_is_no_archive_is_named(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "centos.tar"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(StepFailed, match=r"centos\.tar cannot be told: ") as refusal:
        archived(file)
    assert "runbook images save" in str(refusal.value)


@pytest.mark.parametrize("tag", ["centos", "centos:latest", "host:5000/centos", "centos@sha256:abc", "-f:1"])
def test_only_explicit_tags_are_taken(tag: str) -> None:
    with pytest.raises(ValueError, match="no explicit tag"):
        Image(tag, Path("x.tar"), "0" * 64)


def test_two_images_of_one_archive_are_loaded_once(tmp_path: Path) -> None:
    digest, _ = archive(tmp_path / "both.tar", "a:1", "b:1")
    first, second = (Image(tag, tmp_path / "both.tar", digest) for tag in ("a:1", "b:1"))
    assert first.touches & second.reads


# containers


def test_the_recorded_container_is_as_it_is_wanted() -> None:
    assert registry().plan(state("registry")) is None


@pytest.mark.parametrize(
    ("other", "diff"),
    [
        ({"ports": {8700: 5000}}, "-port 8700: -\n+port 8700: 5000/tcp\n-port 8600: 5000/tcp\n+port 8600: -\n"),
        (
            {"environment": ENVIRONMENT | {"REGISTRY_STORAGE_DELETE_ENABLED": "false"}},
            "-env REGISTRY_STORAGE_DELETE_ENABLED: true\n+env REGISTRY_STORAGE_DELETE_ENABLED: false\n",
        ),
        ({"environment": ENVIRONMENT | {"NEW": "1"}}, "-env NEW: -\n+env NEW: 1\n"),
        (
            {"environment": ENVIRONMENT | {"REGISTRY_HTTP_SECRET": Secret("another-one")}},
            "-env REGISTRY_HTTP_SECRET: (another secret)\n+env REGISTRY_HTTP_SECRET: (secret)\n",
        ),
        (
            {"volumes": {"/srv/registry": "/var/lib/registry"}},
            "-volume /srv/registry: -\n+volume /srv/registry: /var/lib/registry\n"
            "-volume /opt/registry: /var/lib/registry\n+volume /opt/registry: -\n",
        ),
        ({"command": ("serve", "a b")}, "-command: sleep 600\n+command: serve 'a b'\n"),
        ({"image": "dockerpart/tiny:2"}, f"-image: {TAG} {IMAGE}\n+image: dockerpart/tiny:2 {IMAGE}\n"),
    ],
)
def test_a_difference_replaces_the_container_behind_the_gate(other: dict[str, Any], diff: str) -> None:
    change = changed(registry(**other), state("registry"))
    assert (change.summary, change.actions, change.diff) == ("replace", ("replace",), diff)
    assert change.gate == containers.RECREATE
    assert change.observed == CONTAINERS["registry"]["Id"]
    assert "recorded-secret" not in change.diff + change.consequence


def test_another_image_under_the_same_tag_is_a_difference() -> None:
    change = changed(registry(), state("registry", image="sha256:" + "0" * 64))
    assert f"-image: {TAG} {IMAGE}\n" in change.diff


def test_what_somebody_started_by_hand_is_compared_field_by_field() -> None:
    step = registry(name="by-hand", environment={})
    assert changed(step, state("by-hand")).diff == (
        "-restart: on-failure:5\n+restart: always\n"
        "-port 8600: 5000/tcp on 127.0.0.1 only, 5000/udp\n+port 8600: 5000/tcp\n"
        "-volume /opt/registry: /srv\n+volume /opt/registry: /var/lib/registry\n"
        "-command: sh -c 'while sleep 1; do date; done'\n+command: sleep 600\n"
        "-port any: 6000/tcp\n+port any: -\n"
    )


def test_data_that_does_not_come_along_is_told_at_the_gate() -> None:
    volume = CONTAINERS["volume"]["Mounts"][0]["Name"]
    step = Container("volume", TAG, volumes={"/opt/data": "/data"}, gate=containers.RECREATE)
    consequence = changed(step, state("volume")).consequence
    assert "what is in /opt/data is kept" in consequence
    assert f"what is in its /var/lib/registry stays behind in volume {volume}" in consequence


def test_a_restart_policy_is_set_in_place() -> None:
    change = changed(registry(restart="on-failure:3"), state("registry"))
    assert (change.summary, change.actions, change.gate) == ("set the restart policy", ("update",), None)
    assert change.diff == "-restart: always\n+restart: on-failure:3\n"


@pytest.mark.parametrize(
    ("name", "restart", "command", "summary", "status"),
    [
        ("exited", "no", ("sh", "-c", "echo no such flag; exit 3"), "start", "exited"),
        ("looping", "always", ("sh", "-c", "echo no such flag; exit 3"), "start", "restarting"),
        ("paused", "no", (), "unpause", "paused"),
        ("paused", "always", (), "set the restart policy, unpause", "paused"),
    ],
)
def test_a_container_that_does_not_run_steadily_is_started(
    name: str, restart: str, command: tuple[str, ...], summary: str, status: str
) -> None:
    change = changed(Container(name, TAG, restart=restart, command=command, gate="gate"), state(name))
    assert (change.summary, change.gate) == (summary, None)
    assert change.diff.endswith(f"-state: {status}\n+state: running\n")


def _diff(container: str | dict[str, Any], more: str = "") -> dict[str, str]:
    """What a container has of which nothing is asked for, by field; the recorded one runs `sleep 600`."""
    name = container if isinstance(container, str) else "paused"
    command = ("sh", "-c", "x=aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa; while :; do x=$x$x; done") if name == "oom" else ()
    change = Container(name, TAG, restart="no", command=command).plan(state(container, more=more))
    lines = (change.diff if change else "").splitlines()
    return {key: value for key, _, value in (line[1:].partition(": ") for line in lines if line[0] == "-")}


@pytest.mark.parametrize(
    ("container", "fields"),
    [
        ("oom", {"memory": "8 MiB"}),
        (
            "limited",
            {
                "memory": "64 MiB",
                "memory-reservation": "32 MiB",
                "cpus": "0.5",
                "cpu-shares": "512",
                "cpuset-cpus": "0",
                "pids-limit": "100",
                "ulimit": "nofile=1024:2048",
                "shm-size": "128 MiB",
                "cap-add": "NET_ADMIN",
                "cap-drop": "MKNOD",
                "security-opt": "seccomp=unconfined",
                "security-opt systempaths": "unconfined",
                "device": "/dev/null:/dev/nothing:rwm",
                "group-add": "10",
                "read-only": "yes",
                "tmpfs": "/run",
                "sysctl": "net.core.somaxconn=1024",
                "init": "yes",
                "oom-kill-disable": "yes",
                "oom-score-adj": "-500",
                "stop-signal": "SIGINT",
                "stop-timeout": "3",
            },
        ),
        (
            "shared",
            {
                "pid": "host",
                "ipc": "host",
                "uts": "host",
                "userns": "host",
                "network": "host",
                "security-opt": "label=disable",
                "cgroup-parent": "/other",
                "log-driver": "syslog",
                "log-opt tag": "(not shown)",
            },
        ),
        (
            "dressed",
            {
                "hostname": "other",
                "domainname": "example.org",
                "user": "65534",
                "workdir": "/srv",
                "entrypoint": "/bin/echo",
                "command": "hello",
                "label owner": "hand",
                "tty": "yes",
                "interactive": "yes",
                "env EXTRA": "(not shown)",
                "env FLAVOUR": "(not shown)",
                "dns": "198.51.100.1",
                "dns-search": "example.org",
                "dns-option": "ndots:2",
                "add-host": "registry:198.51.100.1",
                "link": "/registry:/dressed/reg",
                "expose 7000/tcp": "yes",
                "publish-all": "yes",
                "volumes-from": "registry",
                "mac-address": "02:42:ac:11:00:99",
                "healthcheck": '{"Test": ["CMD-SHELL", "true"]}',
                "volume named": "/named",
                "volume /opt/registry": "/var/lib/registry",
                "volume 642d45ebfab5a0fbf226474a7c2fc8eaf634e590004068b977428788d4f544f6": "/data",
            },
        ),
        ("privileged", {"privileged": "yes", "security-opt": "label=disable"}),
        ("networked", {"network other": "connected"}),
        ("removed", {"rm": "yes"}),
    ],
)
def test_what_is_not_asked_for_is_a_difference_by_its_option(container: str, fields: dict[str, str]) -> None:
    assert _diff(container) == fields


def _of_1_11(inspected: dict[str, Any]) -> dict[str, Any]:
    """The same container as Docker 1.11 shows one: Engine API v1.23, 'Inspect a container', and HostConfig of
    docker/engine-api 0.3, whose clients name the default StopSignal."""
    dialect = json.loads(json.dumps(inspected))
    host, config = dialect["HostConfig"], dialect["Config"]
    for later in (
        *("CgroupnsMode", "Runtime", "NanoCpus", "MaskedPaths", "ReadonlyPaths", "DeviceRequests"),
        *("DeviceCgroupRules", "KernelMemoryTCP", "CpuRealtimePeriod", "CpuRealtimeRuntime"),
    ):
        del host[later]
    host |= {"IpcMode": "", "MemorySwappiness": -1, "PidsLimit": 0, "VolumesFrom": [], "StorageOpt": None, "Dns": []}
    host |= {"CapAdd": None, "SandboxSize": 0, "BlkioIOps": 0, "BlkioBps": 0, "DiskQuota": 0, "Devices": []}
    config |= {"StopSignal": "SIGTERM", "Volumes": None, "OnBuild": None, "Entrypoint": None}
    for mount in dialect["Mounts"]:
        mount.pop("Type", None)
    return dialect


def _of_later(inspected: dict[str, Any]) -> dict[str, Any]:
    """The same container as Docker 20.10 to 27 show one on cgroup v2, or that an older one made."""
    dialect = json.loads(json.dumps(inspected))
    dialect["HostConfig"] |= {"CgroupnsMode": "private", "OomKillDisable": None, "MaskedPaths": None}
    dialect["HostConfig"] |= {"IpcMode": "shareable", "ReadonlyPaths": None, "ConsoleSize": [24, 80], "Annotations": {}}
    del dialect["HostConfig"]["KernelMemory"]
    return dialect


@pytest.mark.parametrize("dialect", [_of_1_11, _of_later], ids=["1.11", "later"])
def test_the_defaults_of_other_versions_are_no_difference(dialect: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    assert registry().plan(state(dialect(CONTAINERS["registry"]))) is None
    assert set(_diff(dialect(CONTAINERS["paused"]))) == {"state"}


@pytest.mark.parametrize(
    ("field", "value", "shown"),
    [
        ("MemorySwappiness", 0, {"memory-swappiness": "0"}),  # unset is -1 or null
        ("Runtime", "other", {"runtime": "other"}),
        ("LogConfig", {"Type": "journald", "Config": {}}, {"log-driver": "journald"}),
        ("OptionOfTomorrow", ["x"], {"option-of-tomorrow": "x"}),
        ("DeviceRequests", [{"Count": -1}], {"device-requests": '[{"Count": -1}]'}),
    ],
)
def test_a_field_that_is_not_as_docker_leaves_it_is_named(field: str, value: Any, shown: dict[str, str]) -> None:
    inspected = CONTAINERS["paused"] | {"HostConfig": CONTAINERS["paused"]["HostConfig"] | {field: value}}
    assert _diff(inspected) == shown


def test_what_the_daemon_gives_to_every_container_is_no_difference() -> None:
    log = {"Type": "journald", "Config": {"max-size": "10m"}}
    inspected = CONTAINERS["paused"] | {"HostConfig": CONTAINERS["paused"]["HostConfig"] | {"LogConfig": log}}
    settings = base64.b64encode(b'{"log-driver": "journald", "log-opts": {"max-size": "10m"}}').decode()
    assert _diff(inspected, more=f"log_driver=journald\ndaemon={settings}\n").keys() == {"state"}
    assert _diff(inspected, more="log_driver=journald\n").keys() == {"log-opt max-size"}


def test_variables_that_the_client_adds_for_its_proxy_are_no_difference() -> None:
    config = CONTAINERS["paused"]["Config"]
    inspected = CONTAINERS["paused"] | {"Config": config | {"Env": [*config["Env"], "https_proxy=http://proxy:3128"]}}
    assert _diff(inspected).keys() == {"env https_proxy"}
    assert _diff(inspected, more="proxies=yes\n").keys() == {"state"}


def test_a_variable_of_the_image_that_was_taken_away_is_a_difference() -> None:
    config = CONTAINERS["paused"]["Config"]
    inspected = CONTAINERS["paused"] | {"Config": config | {"Env": ["PATH=/usr/bin:/bin"]}}
    assert _diff(inspected) == {"env FLAVOUR": "-"}


# a wanted port that another container, or a process, has


def page(**other: Any) -> Container:
    """The page as 8.2 wants it where the recorded container `page` runs, which was started without a name."""
    environment = {"REGISTRY_HOST": "10.142.233.154", "REGISTRY_PORT": "8600"}
    wanted: dict[str, Any] = {"name": "registry-web", "image": TAG, "ports": {8601: 8080}, "environment": environment}
    return Container(**(wanted | {"gate": containers.RECREATE} | other))


def test_a_container_of_the_same_image_that_has_the_port_is_taken_over() -> None:
    change = changed(page(), state(None, holder="page"))
    assert change.summary == "take over flamboyant_cori, which publishes port 8601, set the restart policy"
    assert (change.actions, change.gate) == (("rename", "update"), None)
    assert change.diff == "-name: flamboyant_cori\n+name: registry-web\n-restart: no\n+restart: always\n"
    assert change.observed == CONTAINERS["page"]["Id"]


def test_one_that_differs_is_replaced_behind_the_gate_under_its_own_name() -> None:
    change = changed(page(environment={"REGISTRY_HOST": "other", "REGISTRY_PORT": "8600"}), state(None, holder="page"))
    assert change.summary == "replace flamboyant_cori, which publishes port 8601"
    assert (change.actions, change.gate) == (("rename", "replace"), containers.RECREATE)
    assert "-name: flamboyant_cori\n+name: registry-web\n" in change.diff
    assert "-env REGISTRY_HOST: 10.142.233.154\n+env REGISTRY_HOST: other\n" in change.diff
    assert change.consequence.startswith("flamboyant_cori is stopped and made anew")


@pytest.mark.parametrize("image", ["dockerpart/tiny", "dockerpart/tiny:0.9", "dockerpart/tiny@sha256:abc", "other"])
def test_another_version_of_the_image_is_replaced_and_the_same_one_known_by_its_id(image: str) -> None:
    holder = CONTAINERS["page"] | {"Config": CONTAINERS["page"]["Config"] | {"Image": image}}
    assert changed(page(), state(None, holder=holder)).actions == ("rename", "replace")


def test_a_container_that_never_ran_makes_room_for_the_one_that_has_its_port() -> None:
    """What `docker run --name registry-web -p …` leaves behind where the port is taken."""
    left = CONTAINERS["port"] | {"Name": "/registry-web"}
    change = changed(page(), state(left, holder="page"))
    assert change.actions == ("clear", "rename", "update")
    ran = left | {"State": CONTAINERS["exited"]["State"]}
    with pytest.raises(StepFailed, match=r"flamboyant_cori .* while the container registry-web exists") as refusal:
        page().plan(state(ran, holder="page"))
    assert "docker rm registry-web" in str(refusal.value)


@pytest.mark.parametrize(
    ("name", "image", "why", "remedy"),
    [
        ("/web", "nginx:1.9", "the container web (nginx:1.9), which is not of the image", "docker stop web"),
        ("/mesos-4c5-S1.fdaf", TAG, f"the container mesos-4c5-S1.fdaf ({TAG}), a task of Mesos", "3.3"),
    ],
)
def test_a_container_that_is_not_to_be_taken_over_is_named(name: str, image: str, why: str, remedy: str) -> None:
    holder = CONTAINERS["page"] | {"Name": name, "Image": "sha256:other"}
    holder |= {"Config": CONTAINERS["page"]["Config"] | {"Image": image}}
    with pytest.raises(StepFailed, match=re.escape(f"port 8601 is held by {why}")) as refusal:
        page().plan(state(None, holder=holder))
    assert remedy in str(refusal.value)


def test_a_process_that_has_the_port_is_named() -> None:
    with pytest.raises(StepFailed, match=r"port 8601 is held by pid 77 \(nginx: master\)") as refusal:
        page().plan(state(None, more="listen=8601 77 nginx: master\nlisten=22 1 sshd\n"))
    assert "stop what holds it" in str(refusal.value)
    with pytest.raises(StepFailed, match="port 8601"):  # it could not be started either
        page().plan(state(CONTAINERS["exited"] | {"Name": "/registry-web"}, more="listen=8601 77 nginx\n"))


def test_containers_that_publish_ports_are_read_as_they_are_printed() -> None:
    lines = (
        "published=02755d /flamboyant_cori dockerpart/tiny:1 8601/8080/tcp 8601/8080/tcp \n"
        "published=507ee0 /registry dockerpart/tiny:1 8600/5000/udp /6000/tcp 32768/6000/tcp \n"
        "published=c136ed /paused dockerpart/tiny:1 \n"
    )
    assert [(one.name, set(one.ports)) for one in published(lines)] == [
        ("flamboyant_cori", {8601}),
        ("registry", {32768}),
        ("paused", set()),
    ]


@pytest.mark.parametrize(
    ("tag", "name"),
    [
        ("registry:2.3.0", "registry"),
        ("docker.io/library/registry", "registry"),
        ("10.142.233.154:8600/registry:2.3.0", "10.142.233.154:8600/registry"),
        ("hyper/docker-registry-web@sha256:abc", "hyper/docker-registry-web"),
    ],
)
def test_an_image_is_known_without_its_version(tag: str, name: str) -> None:
    assert repository(tag) == name


def test_an_absent_container_is_created() -> None:
    change = changed(registry(), state(None))
    assert (change.summary, change.actions, change.gate) == ("create and start", ("create",), None)
    assert "+port 8600: 5000/tcp\n" in change.diff
    assert "+env REGISTRY_HTTP_SECRET: (secret)\n" in change.diff


def test_a_container_whose_id_only_begins_with_the_name_is_another_one() -> None:
    inspected = CONTAINERS["registry"]
    assert changed(registry(name=inspected["Id"][:12]), state(inspected)).actions == ("create",)


def test_before_docker_or_the_image_is_there_a_plan_says_what_would_be(tiny: tuple[Image, str]) -> None:
    step, _ = tiny
    assert changed(step, ABSENT).summary == "load tiny.tar, once Docker answers (it is not installed)"
    assert changed(step, ABSENT).uploads == ()
    change = changed(registry(), ABSENT)
    assert change.summary == "create and start, once Docker answers (it is not installed)"
    assert "+volume /opt/registry: /var/lib/registry\n" in change.diff
    change = changed(registry(), state(None, image=""))
    assert change.summary == f"create and start, once there is an image {TAG}"
    for one in (step, registry()):
        refused = subprocess.run(
            ["sh", "-s"], input=one.script(changed(one, ABSENT)), text=True, capture_output=True, check=False
        )
        assert refused.returncode == 1
        assert "chapter 5 installs" in refused.stderr


@pytest.mark.parametrize("name", ["PATH", "HOME", "DOCKER_HOST", "LD_PRELOAD", "a-b", "1A", "A=B"])
def test_variables_that_would_steer_the_client_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="cannot be given"):
        registry(environment={name: "x"})


# scripts, against a double that logs how it is called


DOUBLE = """\
echo "$*" >> {log}
case "$1 $2" in
  "version "*|"load "*|"stop "*|"rename "*|"rm "*|"update "*) ;;
  "info "*) ;;
  "ps "*) [ ! -e {log}.ids ] || cat {log}.ids;;
  "create "*) printf '%s\\n' "$REGISTRY_HTTP_SECRET" > {log}.environment; echo new;;
  "logs "*) echo "flag provided but not defined" >&2;;
  "start "*) [ ! -e {log}.broken ] || exit 1;;
  "inspect --type")
    case "$*" in
      *"image -f "*RepoDigests*) [ -e {log}.image ] && cat {log}.image || exit 1;;
      *"image "*) [ -e {log}.image ] || exit 1;;
      *StartedAt*) cat {log}.state;;
      *State.Running*) echo true;;
      *RestartPolicy*) echo on-failure:5;;
      *"{{{{.Name}}}}"*) cat {log}.name;;
      *"{{{{.Id}}}} $(sed s,/,, {log}.name)") cat {log}.id;;
      *" $(cat {log}.id)") ;;
      *) exit 1;;
    esac;;
esac
"""


@pytest.fixture(params=PRESENT)
def host(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LocalHost:
    monkeypatch.setattr(steps, "STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setattr(containers, "STEADY", 0.2)
    monkeypatch.setattr(containers, "START_TRIES", 2)
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "docker").write_text("#!/bin/sh\n" + DOUBLE.format(log=tmp_path / "log"))
    (folder / "docker").chmod(0o755)
    (tmp_path / "log.image").write_text(f"{IMAGE} []\n")
    (tmp_path / "log.id").write_text(CONTAINERS["registry"]["Id"] + "\n")
    (tmp_path / "log.name").write_text("/registry\n")
    (tmp_path / "log.state").write_text("true false 2026-11-25T00:52:47.244093902Z 0\n")
    host = LocalHost(request.param, tmp_path / "state")
    host.environment["PATH"] = f"{folder}:/usr/bin:/bin"
    return host


def calls(folder: Path) -> list[str]:
    """The calls of docker other than questions, in order."""
    lines = (folder / "log").read_text().splitlines()
    return [line for line in lines if not line.startswith(("inspect", "version", "info", "ps "))]


def test_no_secret_comes_into_a_command_line(host: LocalHost, tmp_path: Path) -> None:
    frame = host.make(registry(), changed(registry(), state(None)))
    assert frame.status == 0, frame
    assert calls(tmp_path) == [
        "create --name registry --restart always -p 8600:5000 -e REGISTRY_HTTP_SECRET "
        f"-e REGISTRY_STORAGE_DELETE_ENABLED -v /opt/registry:/var/lib/registry {TAG}",
        "start new",
    ]
    assert (tmp_path / "log.environment").read_text() == "recorded-secret\n"


def test_nothing_is_pulled(host: LocalHost, tmp_path: Path) -> None:
    (tmp_path / "log.image").unlink()
    frame = host.make(registry(), changed(registry(), state(None, image="")))
    assert frame.status == 1
    assert f"there is no image {TAG} on this host" in frame.err
    assert calls(tmp_path) == []


def test_a_container_is_replaced_once_the_new_one_stays_up(host: LocalHost, tmp_path: Path) -> None:
    step, old = registry(ports={8700: 5000}), CONTAINERS["registry"]["Id"]
    frame = host.make(step, changed(step, state("registry")))
    assert frame.status == 0, frame
    assert [call.split(" --name ")[0] for call in calls(tmp_path)] == [
        "rm -f registry.replaced",
        f"stop {old}",
        f"rename {old} registry.replaced",
        f"update --restart no {old}",  # else a restart of Docker starts it again, if this ends here
        "create",
        "start new",
        f"rm {old}",
    ]


@pytest.mark.parametrize("ended", ["false false 2026-11-25T00:52:47Z 0", "true true 2026-11-25T00:52:47Z 5"])
def test_the_earlier_container_is_back_where_the_new_one_does_not_stay_up(
    host: LocalHost, tmp_path: Path, ended: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(containers, "START_TRIES", 1_000_000)  # it is not waited for what has ended, or loops
    (tmp_path / "log.state").write_text(f"{ended}\n")
    step, old = registry(ports={8700: 5000}), CONTAINERS["registry"]["Id"]
    frame = host.make(step, changed(step, state("registry")))
    assert frame.status == 1
    assert "registry does not stay up. Its last lines:\nflag provided but not defined" in frame.err
    assert frame.err.endswith("the earlier container is back\n")
    assert [call.split(" --name ")[0] for call in calls(tmp_path)][2:] == [
        f"rename {old} registry.replaced",
        f"update --restart no {old}",
        "create",
        "start new",
        "logs --tail 20 registry",
        "rm -f new",
        f"rename {old} registry",
        f"start {old}",
        f"update --restart on-failure:5 {old}",
    ]


def test_a_container_that_cannot_be_started_is_removed(host: LocalHost, tmp_path: Path) -> None:
    (tmp_path / "log.broken").touch()  # as where its port is taken
    frame = host.make(registry(), changed(registry(), state(None)))
    assert frame.status == 1
    assert [call.split(" --name ")[0] for call in calls(tmp_path)] == ["create", "start new", "rm -f new"]


def test_a_container_that_is_taken_over_gets_the_name(host: LocalHost, tmp_path: Path) -> None:
    held = CONTAINERS["page"]["Id"]
    (tmp_path / "log.id").write_text(f"{held}\n")
    left = CONTAINERS["port"] | {"Name": "/registry-web"}
    frame = host.make(page(), changed(page(), state(left, holder="page")))
    assert frame.status == 0, frame
    assert calls(tmp_path) == ["rm registry-web", f"rename {held} registry-web", f"update --restart always {held}"]


def test_a_container_that_is_replaced_and_does_not_stay_up_has_its_own_name_back(
    host: LocalHost, tmp_path: Path
) -> None:
    held = CONTAINERS["page"]["Id"]
    (tmp_path / "log.id").write_text(f"{held}\n")
    (tmp_path / "log.name").write_text("/flamboyant_cori\n")
    (tmp_path / "log.state").write_text("false false 2026-11-25T00:52:47Z 0\n")
    step = page(environment={})
    frame = host.make(step, changed(step, state(None, holder="page")))
    assert frame.status == 1
    assert f"rename {held} registry-web.replaced" in calls(tmp_path)
    assert calls(tmp_path)[-3:-1] == [f"rename {held} flamboyant_cori", f"start {held}"]


def test_nothing_is_done_where_what_was_to_be_taken_over_is_gone(host: LocalHost, tmp_path: Path) -> None:
    frame = host.make(page(), changed(page(), state(None, holder="page")))
    assert frame.status == 1
    assert "the container that was to become registry-web is gone" in frame.err
    assert calls(tmp_path) == []


def test_a_container_that_somebody_else_made_anew_is_left_alone(host: LocalHost, tmp_path: Path) -> None:
    (tmp_path / "log.id").write_text("0123456789\n")
    step = registry(ports={8700: 5000})
    frame = host.make(step, changed(step, state("registry")))
    assert frame.status == 1
    assert "registry is another container by now" in frame.err
    assert calls(tmp_path) == []


def test_a_loaded_archive_is_removed_and_an_image_that_it_lacks_is_told(
    host: LocalHost, tmp_path: Path, tiny: tuple[Image, str]
) -> None:
    step, _ = tiny
    remote = Path(steps.artifact_path(step.sha256, step.file.name))
    change = changed(step, "image=\nstaged=yes\n")
    for there in (True, False):
        remote.parent.mkdir(parents=True, exist_ok=True)
        remote.write_bytes(step.file.read_bytes())
        assert "staged=yes" in host.probe(step)
        if not there:
            (tmp_path / "log.image").unlink()
        frame = host.make(step, change)
        assert (frame.status == 0) == there
        assert remote.parent.exists() != there
    assert f"there is no image {TAG}" in frame.err


@pytest.mark.parametrize("shell", PRESENT)
def test_where_docker_is_missing_or_silent_a_probe_says_so(host: LocalHost, shell: str, tmp_path: Path) -> None:
    docker = tmp_path / "bin" / "docker"
    docker.write_text("#!/bin/sh\necho 'Client: 1.11.1'\necho 'Cannot connect to the Docker daemon.' >&2\nexit 1\n")
    for step in (registry(), Image(TAG, tmp_path / "x.tar", "0" * 64)):
        assert host.probe(step) == "silent=Cannot connect to the Docker daemon.\n"
        checked = subprocess.run([*SHELLS[shell], "-n"], input=step.probe(), text=True, check=False)
        assert checked.returncode == 0
    without = "command() { return 1; }\n"  # this machine may have a docker of its own
    assert host.run(Piece("p", without + registry().probe(), short=True))["p"].out == "silent=it is not installed\n"
