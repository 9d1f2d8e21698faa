"""What is looked for in logs on hosts is found by grep there and by Python here alike, in lines that Mesos wrote."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from mesos_payloads import section, text

from runbook.services.mesos.diagnose import ELECTION, REGISTRATION, milestones_table
from runbook.services.mesos.logs import as_extended, milestones_probe


def grep(folder: Path, program: str, lines: str, wanted: object) -> subprocess.CompletedProcess[str]:
    (folder / f"{program}.INFO").write_text(lines)
    probe = milestones_probe(str(folder), program, wanted)  # type: ignore[arg-type]
    return subprocess.run(["sh"], input=probe, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("part", ["election, first leader (master0)", "election, a standby (master1) at start"])
def test_grep_finds_the_lines_of_an_election(tmp_path: Path, part: str) -> None:
    lines = "\n".join(["I1124 19:45:56.1 1 http.cpp:312] HTTP GET for /state", *section(part)])
    found = grep(tmp_path, "mesos-master", lines, ELECTION)
    assert found.returncode == 0
    wanted = milestones_table(lines.splitlines(), ELECTION)
    assert milestones_table(found.stdout.splitlines(), ELECTION).equals(wanted)
    assert wanted["reached"].sum() >= 4
    assert "HTTP GET" not in found.stdout


def test_grep_finds_the_lines_of_a_registration(tmp_path: Path) -> None:
    lines = "\n".join(section("slave first registration, slave side"))
    found = grep(tmp_path, "mesos-slave", lines, REGISTRATION)
    reached = milestones_table(found.stdout.splitlines(), REGISTRATION)["reached"]
    assert reached.all()


def test_a_log_without_such_lines_is_no_error_and_no_log_is_one(tmp_path: Path) -> None:
    assert grep(tmp_path, "mesos-slave", "I1124 nothing of it\n", REGISTRATION).returncode == 0
    probe = milestones_probe(str(tmp_path), "mesos-master", ELECTION)
    missing = subprocess.run(["sh"], input=probe, capture_output=True, text=True, check=False)
    assert (missing.returncode, missing.stderr) == (2, "no mesos-master.INFO yet\n")


def test_every_expression_has_a_form_for_grep() -> None:
    for pattern in (*ELECTION.values(), *REGISTRATION.values()):
        extended = as_extended(pattern.pattern)
        assert "(?" not in extended
        assert "\\d" not in extended
        assert "\\S" not in extended
    assert text("three-masters/KEY-LOG-LINES.log")
