"""The lock installs on each Python that the project supports, and `make environment` works on a bare machine.

Markers in the lock are for the target's Python; pip's --python-version does not apply to them, so they are evaluated
here with the target's values.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
LOCK = ROOT / "requirements.lock"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
PYTHONS = ["3.11.0", "3.12.0", "3.13.0"]
"""The oldest of each minor version: what installs there installs on Debian 12 (3.11.2) and 13 (3.13.5), too."""
SYSTEM_PYTHON = Path("/usr/bin/python3")


def pins() -> list[tuple[Requirement, list[str]]]:
    """Each pin of the lock with its hashes."""
    text = LOCK.read_text(encoding="utf-8").replace("\\\n", " ")
    return [
        (Requirement(re.sub(r"\s+--hash=\S+", "", line).strip()), re.findall(r"--hash=(\S+)", line))
        for line in text.splitlines()
    ]


def pins_for(python: str) -> list[str]:
    """The pins that a CPython of this version on Linux installs."""
    environment = default_environment() | {
        "python_full_version": python,
        "python_version": ".".join(python.split(".")[:2]),
    }
    return [
        f"{pin.name}{pin.specifier}"
        for pin, _ in pins()
        if pin.marker is None or pin.marker.evaluate(dict(environment))
    ]


def test_the_lock_holds_every_dependency_once_for_each_python_and_with_hashes() -> None:
    assert all(hashes and len(pin.specifier) == 1 for pin, hashes in pins())
    for python in PYTHONS:
        locked = {canonicalize_name(Requirement(pin).name): Requirement(pin).specifier for pin in pins_for(python)}
        assert len(locked) == len(pins_for(python))
        extras = PROJECT["optional-dependencies"]
        for text in [*PROJECT["dependencies"], *extras["lab"], *extras["test"], *extras["build"]]:
            wanted = Requirement(text)
            version = str(locked[canonicalize_name(wanted.name)]).removeprefix("==")
            assert wanted.specifier.contains(version), text


def test_the_tested_pythons_are_those_of_the_project() -> None:
    supported = SpecifierSet(PROJECT["requires-python"])
    assert all(supported.contains(python) for python in PYTHONS)
    assert {f"3.{minor}" for minor in range(30) if supported.contains(f"3.{minor}.9")} == {
        ".".join(python.split(".")[:2]) for python in PYTHONS
    }


@pytest.mark.timeout(600)
@pytest.mark.parametrize("python", PYTHONS)
def test_every_pin_installs(python: str, tmp_path: Path) -> None:
    listed = tmp_path / "pins.txt"
    listed.write_text("\n".join(pins_for(python)), encoding="utf-8")
    command = [sys.executable, "-m", "pip", "install", "-q", "--dry-run", "--no-deps", "--only-binary=:all:"]
    target = ["--python-version", python, "--target", str(tmp_path / "target"), "-r", str(listed)]
    done = subprocess.run([*command, *target], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.timeout(900)
@pytest.mark.skipif(not SYSTEM_PYTHON.exists(), reason="the system has no Python of its own")
def test_the_environment_is_made_by_the_systems_python_with_an_empty_environment(tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    shutil.copytree(ROOT, clone, ignore=shutil.ignore_patterns(".*", "outputs", "tests", "benchmarks", "docs"))
    # Where packages come from is the machine's own affair, and the only thing it may say by its environment.
    sources = {name: value for name, value in os.environ.items() if name.startswith("PIP_")}
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": str(tmp_path), **sources}
    done = subprocess.run(
        ["make", "environment"], cwd=clone, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    program = [clone / ".venv/bin/runbook", "--help"]
    shown = subprocess.run(program, env=environment, capture_output=True, text=True, check=True).stdout
    assert "rollout" in shown
