"""Finding an engine, telling our own from whatever has its pid now, and saying what is missing."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from runbook.errors import LabError
from runbook.lab import engine
from runbook.lab.folder import Folder
from runbook.lab.waiting import until


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folder:
    """A lab on a machine where no engine answers. Its runtime folder lies in the test's own folder."""
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    monkeypatch.setattr(engine, "DEFAULT", f"unix://{tmp_path / 'none.sock'}")
    monkeypatch.setattr(Folder, "runtime", tmp_path / "run")
    (tmp_path / "lab").mkdir()
    return Folder(tmp_path / "lab")


@contextmanager
def running(program: str, *arguments: str) -> Iterator[int]:
    """A process that calls itself `program`, with `arguments` on its command line; its pid."""
    command = [program, "-c", "import time; print('up', flush=True); time.sleep(60)", *arguments]
    with subprocess.Popen(command, executable=sys.executable, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        try:
            yield process.pid
        finally:
            process.kill()


def fake_command(folder: Path, name: str, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a command on the PATH of the engine module, and nothing else but /usr/bin and /bin."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)
    monkeypatch.setitem(engine.ENVIRONMENT, "PATH", f"{folder}:/usr/bin:/bin")


def test_our_engine_is_known_by_the_configuration_on_its_command_line(folder: Folder) -> None:
    assert engine.process(folder, "dockerd") is None
    with running("dockerd", "--config-file", str(folder.engine_config)) as pid:
        assert engine.process(folder, "dockerd") == pid
        assert engine.process(folder, "containerd") is None
    assert engine.process(folder, "dockerd") is None


def test_the_engine_of_another_lab_and_the_machine_s_own_are_not_ours(folder: Folder, tmp_path: Path) -> None:
    other = Folder(tmp_path / "other")
    with running("dockerd", "--config-file", str(other.engine_config)), running("dockerd", "-H", "fd://"):
        assert engine.process(folder, "dockerd") is None


def test_a_program_that_only_reads_the_configuration_is_not_the_engine(folder: Folder) -> None:
    with running("less", str(folder.engine_config)):
        assert engine.process(folder, "dockerd") is None


def test_pid_files_of_a_killed_engine_are_forgotten_though_their_pids_live_again(folder: Folder) -> None:
    containerd = folder.runtime / "exec" / "containerd" / "containerd.pid"
    containerd.parent.mkdir(parents=True)
    for stale in (folder.runtime / "docker.pid", containerd):
        stale.write_text(str(os.getpid()))
    folder.socket.touch()

    engine._forget_the_dead(folder)

    assert not (folder.runtime / "docker.pid").exists()
    assert not containerd.exists()
    assert not folder.socket.exists()


def test_the_pid_file_of_a_containerd_that_outlived_its_engine_is_kept(folder: Folder) -> None:
    pid_file = folder.runtime / "exec" / "containerd" / "containerd.pid"
    pid_file.parent.mkdir(parents=True)
    with running("containerd", "--config", str(pid_file.with_name("containerd.toml"))) as pid:
        pid_file.write_text(str(pid))

        engine._forget_the_dead(folder)

        assert pid_file.read_text() == str(pid)


def test_where_nothing_answers_there_is_no_engine(folder: Folder) -> None:
    assert engine.find(folder) is None
    folder.engine_config.write_text("{}")
    assert engine.find(folder) is None


def test_an_engine_that_the_user_names_and_that_is_silent_is_an_error(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{folder.path / 'nobody.sock'}")

    with pytest.raises(LabError, match=r"no Docker engine answers at DOCKER_HOST=unix://.*nobody\.sock"):
        engine.find(folder)


@pytest.mark.parametrize("address", ["", "DOCKER_HOST"])
def test_an_engine_that_this_user_may_not_use_is_not_taken_for_none(
    folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    def refuse(connection: socket.socket, path: str) -> int:
        return errno.EACCES

    class Refused(socket.socket):
        connect_ex = refuse  # type: ignore[assignment]  # root, whom the tests may run as, is refused nothing

    monkeypatch.setattr(socket, "socket", Refused)
    if address:
        monkeypatch.setenv(address, f"unix://{tmp_path / 'none.sock'}")

    with pytest.raises(LabError, match=r"this user may not talk to the Docker engine at .*none\.sock\n.*group"):
        engine.find(folder)


def test_a_path_that_no_socket_can_have_is_named(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix:///{'d' * 120}")

    with pytest.raises(LabError, match=r"no Docker engine can listen at /d+: .*\n.*correct DOCKER_HOST"):
        engine.find(folder)


def test_without_an_engine_and_without_root_the_lab_says_so_in_one_line(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)

    with pytest.raises(LabError) as raised:
        engine.ensure(folder, lambda stage: None)

    assert raised.value.message == "no Docker engine answers, and only root can start one"


def test_on_a_system_without_apt_the_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(engine.ENVIRONMENT, "PATH", str(tmp_path))

    with pytest.raises(LabError, match=r"docker\.io and iptables missing, and there is no apt-get"):
        engine.install("docker.io", "iptables")


def test_package_lists_are_fetched_only_when_an_installation_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "log"
    script = f'echo "$@" >>{log}; case "$*" in *install*) [ -e {tmp_path}/lists ];; *) touch {tmp_path}/lists;; esac'
    fake_command(tmp_path / "bin", "apt-get", script, monkeypatch)

    engine.install("docker.io")
    engine.install("iptables")

    verbs = [
        next(word for word in line.split() if word in ("install", "update")) for line in log.read_text().splitlines()
    ]
    assert verbs == ["install", "update", "install", "install"]


def test_what_apt_said_last_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_command(tmp_path / "bin", "apt-get", "echo 'E: Unable to locate package docker.io' >&2; exit 100", monkeypatch)

    with pytest.raises(LabError, match=r"apt-get could not install docker\.io: E: Unable to locate package docker\.io"):
        engine.install("docker.io")


def test_an_engine_that_ends_at_once_is_reported_with_its_last_words(
    folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    fake_command(tmp_path / "bin", "dockerd", "echo 'no space left on device' >&2; exit 1", monkeypatch)
    fake_command(tmp_path / "bin", "iptables", "exit 0", monkeypatch)
    began = time.monotonic()

    with pytest.raises(LabError, match=r"did not come up: no space left on device\n  remedy: read .*engine\.log"):
        engine.ensure(folder, lambda stage: None)

    assert time.monotonic() - began < 30


def test_mounts_that_a_killed_engine_left_are_found_the_latest_first() -> None:
    table = (
        "proc /proc proc rw 0 0\n"
        "/dev/vda /home/a\\040b/.lab/engine ext4 rw 0 0\n"
        "overlay /home/a\\040b/.lab/engine/overlay2/1/merged overlay rw 0 0\n"
        "overlay /home/a\\040b/.lab/engineering overlay rw 0 0\n"
    )

    data = Path("/home/a b/.lab/engine")
    assert engine.mounts_below(data, table) == [data / "overlay2/1/merged", data]


def test_sockets_of_a_lab_in_a_deep_folder_fit_into_unix_s_108_bytes() -> None:
    deep = Folder(Path("/home") / ("d" * 250) / ("e" * 250) / ".lab")

    # the longest one that an engine makes: containerd's, in its exec-root
    assert len(os.fsencode(deep.runtime / "exec" / "containerd" / "containerd-debug.sock.ttrpc")) < 108
    assert deep.id != Folder(Path("/home/d/.lab")).id


def test_waiting_ends_with_the_first_answer_or_in_time() -> None:
    answers = iter([None, "", "there"])
    assert until(lambda: next(answers), seconds=5, pause=0.01) == "there"

    with pytest.raises(TimeoutError, match=r"not within 0\.05 s"):
        until(lambda: None, seconds=0.05, pause=0.01)


def test_labs_that_install_at_once_take_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # apt-get update of a second one would end at once, for want of the lock on its lists, and its installation with it
    lock, log = tmp_path / "lock", tmp_path / "log"
    fake_command(
        tmp_path / "bin", "apt-get", f"mkdir {lock} || echo both >>{log}; sleep 0.2; rmdir {lock}; exit 0", monkeypatch
    )

    labs = [threading.Thread(target=engine.install, args=("docker.io",)) for _ in range(2)]
    for lab in labs:
        lab.start()
    for lab in labs:
        lab.join()

    assert not log.exists()
