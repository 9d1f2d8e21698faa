"""The SELinux labels of containers' folders: run by real shells, with doubles of what only an SELinux host has."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from local_host import PRESENT, LocalHost

from runbook.remote.labels import ContainerFolder

# `stat -c %C` and `chcon` of a host with SELinux: labels are kept in a file beside what has them
STAT = """\
#!/bin/sh
[ "$2" = %C ] || exec /usr/bin/stat "$@"
cat "$LABELS/$(basename "$3")" 2>/dev/null || echo system_u:object_r:usr_t:s0
"""
CHCON = """\
#!/bin/sh
[ "$1 $2" = "-R -t" ] || exit 1
for f in "$4" "$4"/*; do [ ! -e "$f" ] || echo "system_u:object_r:$3:s0" > "$LABELS/$(basename "$f")"; done
"""


@pytest.fixture(params=PRESENT)
def host(request: pytest.FixtureRequest, tmp_path: Path) -> LocalHost:
    programs = tmp_path / "bin"
    for folder in (programs, tmp_path / "labels"):
        folder.mkdir()
    for name, text in {"getenforce": "#!/bin/sh\necho $MODE\n", "stat": STAT, "chcon": CHCON}.items():
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    environment = {"PATH": f"{programs}:/usr/bin:/bin", "LABELS": str(tmp_path / "labels"), "MODE": "Enforcing"}
    return LocalHost(request.param, tmp_path / "state", environment=environment)


@pytest.fixture
def selinux_docker() -> Iterator[None]:
    """A process with the words of the command line that CentOS' docker has."""
    docker = subprocess.Popen(["sh", "-c", "read x", "docker", "daemon", "--selinux-enabled"], stdin=subprocess.PIPE)
    try:
        yield
    finally:
        docker.communicate(b"\n")


def test_without_selinux_or_a_docker_that_uses_it_nothing_is_labelled(host: LocalHost, tmp_path: Path) -> None:
    assert host.plan(ContainerFolder(str(tmp_path / "data"))) is None


@pytest.mark.usefixtures("selinux_docker")
def test_where_selinux_is_disabled_nothing_is_labelled(host: LocalHost, tmp_path: Path) -> None:
    host.environment["MODE"] = "Disabled"
    assert host.plan(ContainerFolder(str(tmp_path / "data"))) is None


@pytest.mark.usefixtures("selinux_docker")
def test_a_folder_is_made_and_labelled_with_what_is_in_it(host: LocalHost, tmp_path: Path) -> None:
    data = tmp_path / "data"
    step = ContainerFolder(str(data))
    made = host.apply(step)
    assert made is not None
    assert made.diff == f"-{data}: absent\n+{data}: svirt_sandbox_file_t\n"
    (data / "key.pem").touch()  # written later, with the default label of its folder
    again = host.apply(step)
    assert again is not None
    assert again.diff == f"-{data}/key.pem: usr_t\n+{data}/key.pem: svirt_sandbox_file_t\n"


@pytest.mark.usefixtures("selinux_docker")
def test_the_name_that_the_type_has_later_is_as_good(host: LocalHost, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "labels" / "data").write_text("system_u:object_r:container_file_t:s0:c1,c2\n")
    assert host.plan(ContainerFolder(str(tmp_path / "data"))) is None
