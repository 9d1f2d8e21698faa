"""The effective unit of a service against the packaged one, and who may write a daemon's files."""

from __future__ import annotations

import hashlib
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from drift_host import DriftHost, Rooted
from local_host import PRESENT, SHELLS, LocalHost

from runbook.errors import StepFailed
from runbook.remote.steps import Change
from runbook.remote.units import HIDE, PackagedUnit, SafePaths, UnitState, command_probe, other_command
from runbook.secrets import MASK, mask_arguments
from runbook.services.docker.engine import DOCUMENTS_COMMAND

UNIT = "[Service]\nExecStart=/usr/bin/dockerd -H fd://\n"
PACKAGED = "/usr/lib/systemd/system/docker.service"
DROP_INS = "/etc/systemd/system/docker.service.d"
STEP = PackagedUnit("docker", "docker-engine", own=(f"{DROP_INS}/runbook-registry.conf",), allowed=("proxy.conf",))


@pytest.fixture
def shell() -> str:
    """The shell of the host: the oldest that is there. One test runs in each."""
    return PRESENT[-1]


@pytest.fixture
def host(tmp_path: Path, shell: str) -> DriftHost:
    """A host with Docker's packaged unit."""
    found = DriftHost(LocalHost(shell, tmp_path / "state"), tmp_path, {"LoadState": "loaded"})
    found.file(PACKAGED, UNIT, owned=True)
    return found


def kept(change: Change | None) -> Change:
    assert change is not None
    assert change.kept
    return change


def test_a_packaged_unit_with_drop_ins_of_the_runbook_the_package_and_the_parameters_is_right(host: DriftHost) -> None:
    host.file(f"{DROP_INS}/runbook-registry.conf", "[Service]\n")
    host.file(f"{DROP_INS}/proxy.conf", "[Service]\n")
    host.file("/usr/lib/systemd/system/docker.service.d/vendor.conf", "[Service]\n", owned=True)
    assert host.plan(STEP) is None


@pytest.mark.parametrize("directory", [DROP_INS, "/run/systemd/system/docker.service.d"])
def test_a_foreign_drop_in_is_named_with_its_path_and_text(host: DriftHost, directory: str) -> None:
    host.file(f"{directory}/tcp.conf", "[Service]\nExecStart=\nExecStart=/usr/bin/dockerd -H tcp://0.0.0.0:2375\n")
    change = kept(host.plan(STEP))
    assert f"foreign drop-in {directory}/tcp.conf" in change.summary
    assert "+  ExecStart=/usr/bin/dockerd -H tcp://0.0.0.0:2375\n" in change.diff


def test_a_drop_in_that_only_systemd_names_is_found(host: DriftHost) -> None:
    path = host.file("/etc/systemd/system/service.d/all.conf", "[Service]\nNice=5\n")
    host.properties["DropInPaths"] = str(path)
    assert "foreign drop-in /etc/systemd/system/service.d/all.conf" in kept(host.plan(STEP)).summary


def test_secrets_of_a_drop_in_are_not_shown(host: DriftHost) -> None:
    text = '[Service]\nEnvironment="HTTP_PROXY=http://me:geheim@proxy:3128" A_PASSWORD=geheim\n'
    host.file(f"{DROP_INS}/login.conf", text)
    change = kept(host.plan(STEP))
    assert "geheim" not in change.diff
    assert MASK in change.diff


@pytest.mark.parametrize("shell", PRESENT)
def test_a_unit_in_etc_that_shadows_the_packaged_one_is_compared_with_it(host: DriftHost) -> None:
    host.file("/etc/systemd/system/docker.service", UNIT.replace("fd://", "tcp://0.0.0.0:2375"))
    change = kept(host.plan(STEP))
    assert f"/etc/systemd/system/docker.service shadows {PACKAGED}" in change.summary
    assert "-ExecStart=/usr/bin/dockerd -H fd://\n+ExecStart=/usr/bin/dockerd -H tcp://0.0.0.0:2375\n" in change.diff


def test_a_masked_unit_is_named_with_the_way_back(host: DriftHost) -> None:
    link = host.root / "etc/systemd/system/docker.service"
    link.parent.mkdir(parents=True)
    link.symlink_to("/dev/null")
    change = kept(host.plan(STEP))
    assert "masked by /etc/systemd/system/docker.service (to undo: systemctl unmask docker)" in change.summary
    assert "-> /dev/null" in change.diff


def test_a_linked_unit_is_named_with_its_target(host: DriftHost) -> None:
    other = host.file("/var/units/docker.service", UNIT)
    link = host.root / "etc/systemd/system/docker.service"
    link.parent.mkdir(parents=True)
    link.symlink_to(other)
    assert "docker.service -> /var/units/docker.service shadows" in kept(host.plan(STEP)).summary


# as rpm 4.11 prints it (rpm(8), 'Verify options')
@pytest.mark.parametrize(
    ("line", "said"),
    [
        (f"S.5....T.    {PACKAGED}", f"{PACKAGED} was changed after installation (rpm -V: S.5....T.)"),
        (".M.......    /usr/bin/dockerd", "/usr/bin/dockerd was changed after installation (rpm -V: .M.......)"),
        ("missing     /usr/bin/dockerd", "/usr/bin/dockerd was removed"),
        ("S.5....T.  c /etc/sysconfig/docker", None),
        (".......T.    /usr/bin/docker", None),
        ("missing   d /usr/share/doc/docker/README", None),
        (".M.......    /var/lib/docker", None),
    ],
)
def test_what_was_changed_of_a_package_in_place_is_named(host: DriftHost, line: str, said: str | None) -> None:
    (host.root / "verify").write_text(f"{line}\n")
    change = host.plan(STEP)
    assert (change is None) if said is None else (said in kept(change).summary)


@pytest.mark.parametrize(
    ("start", "accepted"),
    [
        ("/usr/bin/dockerd -H fd:// --insecure-registry 192.0.2.1:8600", True),  # the document's 7.2
        ("/usr/bin/docker daemon -H fd:// --insecure-registry=registry:8600", True),
        ("/usr/bin/dockerd -H fd:// -H tcp://0.0.0.0:2375", False),
        ("/usr/bin/dockerd -H fd:// --insecure-registry 192.0.2.1:8600\nEnvironment=X=1", False),
    ],
)
def test_a_unit_edited_as_the_document_says_is_no_drift(host: DriftHost, start: str, accepted: bool) -> None:
    host.file(PACKAGED, UNIT.replace("/usr/bin/dockerd -H fd://", start))
    (host.root / "verify").write_text(f"S.5....T.    {PACKAGED}\n")
    step = replace(STEP, command=DOCUMENTS_COMMAND)
    assert (host.plan(step) is None) is accepted
    assert host.plan(STEP) is not None


def test_a_unit_that_systemd_has_not_read_is_named(host: DriftHost) -> None:
    host.properties["NeedDaemonReload"] = "yes"
    assert "systemctl daemon-reload" in kept(host.plan(STEP)).summary


def test_a_package_that_is_not_installed_is_the_package_steps_matter() -> None:
    assert STEP.plan("LoadState=not-found\n") is None
    assert UnitState.read("").packaged is False


def test_drift_that_is_kept_has_no_script() -> None:
    with pytest.raises(StepFailed, match="not changed by the runbook"):
        STEP.script(Change("x", kept=True))


@pytest.mark.parametrize("shell", PRESENT)
@pytest.mark.parametrize(
    "name", ["--http_credentials", "A_PASSWORD", "MYSQL_PWD", "aws-Api-Key", "APIKEY", "x_private_key"]
)
def test_a_secret_is_sent_as_its_hash(shell: str, name: str) -> None:
    text = f"{HIDE}hide {name} geheim; echo; hide --zk zk://a\n"
    done = subprocess.run(SHELLS[shell], input=text, text=True, capture_output=True, check=True)
    assert done.stdout == f"secret:{hashlib.sha256(b'geheim').hexdigest()}\nzk://a"
    assert mask_arguments(f"{name}=geheim") == f"{name}={MASK}"


# permissions


@pytest.mark.parametrize("shell", PRESENT)
def test_what_others_may_write_is_mended_and_a_stricter_mode_stays(host: DriftHost) -> None:
    folder, strict = host.root / "etc/mesos-master", host.root / "etc/docker"
    folder.mkdir(parents=True)
    strict.mkdir()
    folder.chmod(0o777)
    strict.chmod(0o700)
    step = SafePaths("x", ("/etc/mesos-master", "/etc/docker", "/etc/absent"), owners=(folder.owner(),))

    change = host.plan(step)

    assert change is not None
    assert change.diff == "-/etc/mesos-master: mode 777\n+/etc/mesos-master: mode 755\n"
    assert not change.kept
    assert host.shell.make(Rooted(step, host.root), change).status == 0
    assert host.plan(step) is None
    assert (folder.stat().st_mode & 0o7777, strict.stat().st_mode & 0o7777) == (0o755, 0o700)


def test_another_owner_is_named() -> None:
    change = SafePaths("x", ("/etc/docker",)).plan("path=755 nobody /etc/docker\n")
    assert change is not None
    assert change.diff == "-/etc/docker: owner nobody\n+/etc/docker: owner root\n"
    assert "chown root /etc/docker" in SafePaths("x", ("/etc/docker",)).script(change)


# the process


def exec_start(command: str) -> str:
    """ExecStart as systemctl of systemd 219 shows it."""
    return f"{{ path=/x ; argv[]={command} ; ignore_errors=no ; start_time=[n/a] ; pid=0 ; code=(null) ; status=0/0 }}"


@pytest.mark.parametrize(
    ("command", "words", "differs"),
    [
        ("/usr/bin/docker daemon -H fd://", ("-H", "fd://"), False),
        ("/usr/bin/docker daemon -H fd:// $OPTIONS", ("-H", "fd://", "--debug", "-g", "/data"), False),
        ("/usr/bin/docker daemon -H fd:// -g ${DATA}", ("-H", "fd://", "-g", "/data"), False),
        ("/usr/bin/docker daemon -H fd:// $QUOTED", ("-H", "fd://", "--label", "a b"), False),
        ("/usr/bin/docker daemon -H fd://", ("-H", "tcp://0.0.0.0:2375"), True),
        ("/usr/bin/docker daemon -H fd:// --debug", ("-H", "fd://"), True),
        ("/bin/sh -c 'exec docker daemon'", ("-H", "fd://"), False),
    ],
)
def test_a_process_with_other_options_than_its_unit_gives_is_seen(
    host: DriftHost, command: str, words: tuple[str, ...], differs: bool
) -> None:
    host.properties |= {"ExecStart": exec_start(command), "Environment": "DATA=/data"}
    options = host.file(
        "/etc/sysconfig/docker", "# of the host\nOPTIONS='--debug -g /data'\nQUOTED='--label \"a b\"'\n"
    )
    host.properties["EnvironmentFile"] = f"{options} (ignore_errors=yes)"
    with host.running(*words):
        # the shell that stands for Docker has an option of its own
        state = host.output(command_probe("docker")).replace("runs=-c\n", "").replace("runs=sleep 120; :\n", "")
    assert (other_command(state) is not None) is differs
