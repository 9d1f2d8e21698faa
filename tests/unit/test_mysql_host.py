"""What the data's host tells. The probe runs for real here, with a `docker` that prints what a real one printed."""

from __future__ import annotations

from pathlib import Path

import pytest
from local_host import PRESENT, LocalHost
from mysql_site import site

from runbook.errors import HostUnreachable, NotFound
from runbook.remote.hosts import Output
from runbook.remote.shell import Piece
from runbook.services.mysql.host import Container, DataHost, probe

RUNNING = """\
container=771b0ba79c3d0000 true 0 false 2016-08-03T07:32:16.123456789Z 0001-01-01T00:00:00Z mysql:5.7.13 /mesos-S4.fd
port=3306/tcp 8290
volume=/opt/mysql
volume=/var/lib/mesos/slaves/S4
volume=
env=MESOS_TASK_ID=mysql.1
env=MARATHON_APP_ID=/mysql
"""
ENDED = """\
container=3fcc29f529280000 false 137 true 2016-08-03T07:30:00.5Z 2016-08-03T07:31:00.5Z mysql:5.7.13 /mesos-S4.fc
port=3306/tcp 8291
volume=/opt/mysql
env=MESOS_TASK_ID=mysql.0
env=MARATHON_APP_ID=/mysql
"""
STRANGER = """\
container=aaaa29f529280000 true 0 false 2016-08-03T07:30:00.5Z 0001-01-01T00:00:00Z mysql:5.7.13 /by-hand
volume=/opt
"""
HEAD = "docker=yes\nimage=sha256:1\nfolder=initialised\ndatabase=yes\n"


def told(text: str) -> DataHost:
    return DataHost.of(Output(text, "", 0))


def test_containers_are_read_with_their_tasks() -> None:
    seen = told(HEAD + ENDED + RUNNING + STRANGER)
    assert (seen.docker, seen.image, seen.folder, seen.database) == (True, True, "initialised", True)
    newest, oldest = seen.of_app(site())
    assert newest == Container(
        id="771b0ba79c3d0000",
        name="mesos-S4.fd",
        image="mysql:5.7.13",
        running=True,
        exit_code=0,
        out_of_memory=False,
        started="2016-08-03T07:32:16.123456789Z",
        finished="0001-01-01T00:00:00Z",
        ports=(8290,),
        volumes=("/opt/mysql", "/var/lib/mesos/slaves/S4"),
        task="mysql.1",
        app="/mysql",
    )
    assert newest.status == "running since 2016-08-03 07:32:16"
    assert oldest.status == "ended with 137, out of memory at 2016-08-03 07:31:00"
    assert seen.of_task("mysql.1") is newest
    with pytest.raises(NotFound, match=r"no container of the task mysql\.9"):
        seen.of_task("mysql.9")


def test_who_has_the_folder() -> None:
    seen = told(HEAD + RUNNING + ENDED + STRANGER)
    assert [one.name for one in seen.on_folder("/opt/mysql")] == ["mesos-S4.fd", "by-hand"]
    assert [one.name for one in seen.on_folder("/opt/my")] == ["by-hand"]


def test_folders_that_a_container_only_reads_are_not_told() -> None:
    """Docker 20.10.24, of `-v /:/rootfs:ro -v /a:/d:rw,z --mount type=bind,source=/b,target=/m --mount
    type=bind,source=/c,target=/r,readonly --mount type=tmpfs,target=/t`, prints /a, /b and an empty folder."""
    assert "{{range .Mounts}}{{if .RW}}volume={{.Source}}\n{{end}}{{end}}" in probe(site())
    seen = told(HEAD + STRANGER.replace("volume=/opt\n", "volume=/a\nvolume=/b\nvolume=\n"))
    assert [one.volumes for one in seen.containers] == [("/a", "/b")]
    assert seen.on_folder("/opt/mysql") == ()


def test_a_host_that_does_not_answer() -> None:
    seen = DataHost.of(Output(error=HostUnreachable("no route to node2")))
    assert str(seen.problem) == "no route to node2"
    assert told("docker=yes\n").problem is not None
    assert told(HEAD + "container=only three words\n").problem is not None


def at(folder: Path) -> str:
    """The probe, of a data folder within this one."""
    return probe(site()).replace("/opt/mysql", f"{folder}/data")


DOCKER = """\
#!/bin/sh
case "$1 $2" in
  "version "*) exit 0;;
  "inspect --type") case $3 in
    image) echo sha256:1;;
    container) shift 5; for id; do case $id in 771b*) printf '%s' "$RUNNING";; *) exit 1;; esac; done;;
  esac;;
  "ps -aq") printf '%s\n' $IDS;;
esac
"""


@pytest.mark.parametrize("ids", ["771b0ba79c3d0000", "771b0ba79c3d0000 removed-meanwhile"])
@pytest.mark.parametrize("shell", PRESENT)
def test_the_probe_lets_no_password_leave_the_host(tmp_path: Path, shell: str, ids: str) -> None:
    docker = tmp_path / "bin" / "docker"
    docker.parent.mkdir()
    docker.write_text(DOCKER)
    docker.chmod(0o755)
    (tmp_path / "data" / "mysql").mkdir(parents=True)
    environment = {
        "PATH": f"{docker.parent}:/usr/bin:/bin",
        "IDS": ids,
        "RUNNING": RUNNING + "env=MYSQL_ROOT_PASSWORD=heron-under-ice\nenv=MYSQL_PASSWORD=otter-over-sand\n",
    }
    host = LocalHost(shell, tmp_path / "state", environment=environment)
    frame = host.run(Piece("probe", at(tmp_path)))["probe"]
    assert frame.status == 0
    assert "heron" not in frame.out
    seen = told(frame.out)
    assert (seen.docker, seen.image, seen.folder, seen.database) == (True, True, "initialised", False)
    assert [one.task for one in seen.containers] == ["mysql.1"]


@pytest.mark.parametrize("shell", PRESENT)
def test_the_probe_works_where_no_docker_is(tmp_path: Path, shell: str) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    for program in Path("/usr/bin").iterdir():
        if program.name != "docker":  # the machine may have one
            (programs / program.name).symlink_to(program)
    host = LocalHost(shell, tmp_path / "state", environment={"PATH": str(programs), "DOCKER_HOST": ""})
    script = at(tmp_path)
    seen = told(host.run(Piece("probe", script))["probe"].out)
    assert seen == DataHost(folder="absent")
    (tmp_path / "data").mkdir()
    assert told(host.run(Piece("probe", script))["probe"].out).folder == "empty"
    (tmp_path / "data" / "x").touch()
    assert told(host.run(Piece("probe", script))["probe"].out).folder == "foreign"
