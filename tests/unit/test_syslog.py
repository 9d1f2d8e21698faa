"""The rules of rsyslog and the rotation: the document's 2.2.7 and what it lacks."""

from __future__ import annotations

import pytest
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
    assert "signal=HUP" in text
    assert rotation_path(site()) == "/etc/logrotate.d/mesos"


def test_rsyslog_restarts_only_when_its_rules_are_newer() -> None:
    *_, service = steps(site())
    assert service.label == "service rsyslog"
    assert service.restart_if_newer == ("/etc/rsyslog.d/mesos.conf",)  # type: ignore[attr-defined]


@pytest.mark.parametrize("folder", ['/var/log/x") action(type="omprog', "/var/log/a b", "/var/log/*", "/var/log/{x}"])
def test_a_folder_that_could_become_a_directive_is_refused(folder: str) -> None:
    with pytest.raises(ParameterError, match=r"syslog\.log_dir"):
        steps(site(more=f"syslog: {{log_dir: '{folder}'}}"))
