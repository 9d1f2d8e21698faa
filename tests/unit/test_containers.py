"""Images and containers as steps: planned from what a real Docker answered, their scripts run against a double."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
from docker_payloads import CONTAINERS, IMAGE, TAG, archive, state
from local_host import PRESENT, SHELLS, LocalHost

from runbook.errors import StepFailed
from runbook.remote import containers, steps
from runbook.remote.containers import Container, Image, archived
from runbook.remote.shell import Piece
from runbook.remote.steps import Change
from runbook.secrets import Secret

ABSENT = "silent=it is not installed\n"


def registry(**other: Any) -> Container:
    """The recorded container `registry`, as it would be wanted."""
    wanted: dict[str, Any] = {
        "name": "registry",
        "image": TAG,
        "ports": {8600: 5000},
        "environment": {
            "REGISTRY_HTTP_SECRET": Secret("recorded-secret"),
            "REGISTRY_STORAGE_DELETE_ENABLED": "true",
        },
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
            {"environment": {"REGISTRY_STORAGE_DELETE_ENABLED": "false"}},
            "-env REGISTRY_STORAGE_DELETE_ENABLED: true\n+env REGISTRY_STORAGE_DELETE_ENABLED: false\n",
        ),
        ({"environment": {"NEW": "1"}}, "-env NEW: -\n+env NEW: 1\n"),
        (
            {"environment": {"REGISTRY_HTTP_SECRET": Secret("another-one")}},
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
  "run "*) printf '%s\\n' "$REGISTRY_HTTP_SECRET" > {log}.environment; echo started;;
  "logs "*) echo "flag provided but not defined" >&2;;
  "start "*) [ ! -e {log}.broken ] || exit 1;;
  "inspect --type")
    case "$*" in
      *"image -f "*RepoDigests*) [ -e {log}.image ] && cat {log}.image || exit 1;;
      *"image "*) [ -e {log}.image ] || exit 1;;
      *StartedAt*) cat {log}.state;;
      *State.Running*) echo true;;
      *RestartPolicy*) echo on-failure:5;;
      *"{{{{.Id}}}}"*) cat {log}.id;;
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
    (tmp_path / "log.state").write_text("true false 2026-11-25T00:52:47.244093902Z 0\n")
    host = LocalHost(request.param, tmp_path / "state")
    host.environment["PATH"] = f"{folder}:/usr/bin:/bin"
    return host


def calls(folder: Path) -> list[str]:
    """The calls of docker other than questions, in order."""
    lines = (folder / "log").read_text().splitlines()
    return [line for line in lines if not line.startswith(("inspect", "version"))]


def test_no_secret_comes_into_a_command_line(host: LocalHost, tmp_path: Path) -> None:
    frame = host.make(registry(), changed(registry(), state(None)))
    assert frame.status == 0, frame
    (run,) = calls(tmp_path)
    assert run == (
        "run -d --name registry --restart always -p 8600:5000 -e REGISTRY_HTTP_SECRET "
        f"-e REGISTRY_STORAGE_DELETE_ENABLED -v /opt/registry:/var/lib/registry {TAG}"
    )
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
    assert [call.split(" -d ")[0] for call in calls(tmp_path)] == [
        "rm -f registry.replaced",
        f"stop {old}",
        f"rename {old} registry.replaced",
        f"update --restart no {old}",  # else a restart of Docker starts it again, if this ends here
        "run",
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
    assert [call.split(" -d ")[0] for call in calls(tmp_path)][2:] == [
        f"rename {old} registry.replaced",
        f"update --restart no {old}",
        "run",
        "logs --tail 20 registry",
        "rm -f registry",
        f"rename {old} registry",
        f"start {old}",
        f"update --restart on-failure:5 {old}",
    ]


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
