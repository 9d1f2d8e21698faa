"""The rules of rsyslog and the rotation: the document's 2.2.7 and what it lacks."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from local_host import PRESENT, SHELLS
from mesos_site import site

from runbook.errors import ParameterError
from runbook.services.syslog import rotation, rotation_path, rules, steps


def test_each_program_has_its_file_and_its_lines_go_nowhere_else() -> None:
    text = rules(site())
    for program in ("marathon", "chronos", "mesos-master", "mesos-slave"):
        block = text.partition(f"if $programname == '{program}' then {{")[2].partition("}")[0]
        assert f'action(type="omfile" file="/var/log/mesos/{program}.log")' in block
        assert block.split()[-1] == "stop"


def test_the_files_are_rotated_and_opened_anew() -> None:
    text = rotation(site())
    first = text.splitlines()[2]
    assert first.split()[:-1] == [
        f'"/var/log/mesos/{program}.log"' for program in ("marathon", "chronos", "mesos-master", "mesos-slave")
    ]
    assert "systemctl kill" not in text  # SELinux of CentOS 7.2 refuses it to logrotate (findings/centos7.md, 3)
    assert rotation_path(site()) == "/etc/logrotate.d/mesos"


@pytest.mark.parametrize("shell", PRESENT)
@pytest.mark.parametrize(("main_pid", "signalled"), [("77", ["-HUP 77"]), ("0", []), ("", [])])
def test_after_a_rotation_the_main_process_gets_the_signal_and_no_other(
    tmp_path: Path, shell: str, main_pid: str, signalled: list[str]
) -> None:
    """Process 0 stands for the whole group of processes (kill(1)), which is logrotate's own."""
    script = rotation(site()).partition("postrotate\n")[2].partition("endscript")[0]
    (tmp_path / "systemctl").write_text(f"#!/bin/sh\n[ '{main_pid}' = '' ] || echo 'MainPID={main_pid}'\n")
    (tmp_path / "systemctl").chmod(0o755)
    asked = f'kill() {{ echo "$@" >> {tmp_path}/killed; }}\n{script}'
    path = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    subprocess.run([*SHELLS[shell], "-s"], input=asked, text=True, env=path, check=True)
    killed = tmp_path / "killed"
    assert (killed.read_text().splitlines() if killed.exists() else []) == signalled


def test_rsyslog_restarts_only_when_its_rules_are_newer() -> None:
    *_, service = steps(site())
    assert service.label == "service rsyslog"
    assert service.restart_if_newer == ("/etc/rsyslog.d/mesos.conf",)  # type: ignore[attr-defined]


@pytest.mark.parametrize("folder", ['/var/log/x") action(type="omprog', "/var/log/a b", "/var/log/*", "/var/log/{x}"])
def test_a_folder_that_could_become_a_directive_is_refused(folder: str) -> None:
    with pytest.raises(ParameterError, match=r"syslog\.log_dir"):
        steps(site(more=f"syslog: {{log_dir: '{folder}'}}"))
