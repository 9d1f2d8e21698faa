"""Chapters in tests on nodes: their notebooks run, their classes opened, and parameters that differ from the lab's."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nbformat
import pytest
import yaml

from runbook.lab import Lab

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
Made = dict[str, Any]
"""An event of a journal."""
Open = Callable[..., Any]
"""Opens a chapter of a kind: `open(kind, mode, site_file=the lab's, yes=False)`. See the fixture `open_kind`."""


def events(folder: Path) -> list[Made]:
    """The journal of the newest record below `folder`."""
    record = max((folder / "outputs").iterdir(), key=lambda path: path.stat().st_mtime_ns)
    return [json.loads(line) for line in (record / "journal.jsonl").read_text().splitlines()]


def statuses(journal: list[Made]) -> Counter[str]:
    """How many steps ended how."""
    return Counter(event["status"] for event in journal if event["event"] == "step")


def papermill(notebook: str, folder: Path, site_file: Path, mode: str) -> subprocess.CompletedProcess[str]:
    """Run a notebook as an operator would without `--yes`, with its record below `folder`."""
    parameters = ["-p", "site_file", str(site_file), "-p", "mode", mode]
    (folder / "outputs").mkdir(exist_ok=True)
    out = folder / f"{notebook}-{mode}.ipynb"
    return subprocess.run(
        [sys.executable, "-m", "papermill", NOTEBOOKS / f"{notebook}.ipynb", out, *parameters, "--no-progress-bar"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


def in_process(notebook: str, folder: Path, site_file: Path, mode: str) -> list[Made]:
    """Run a notebook's cells here, which is quicker than a kernel; gives the journal of its record below `folder`."""
    cells: dict[str, Any] = {}
    with recording(folder):
        for cell in nbformat.read(NOTEBOOKS / f"{notebook}.ipynb", as_version=4).cells:
            if cell.cell_type == "code":
                exec(cell.source, cells)  # it is a notebook of ours
            if "parameters" in cell.metadata.get("tags", []):
                cells |= {"site_file": site_file, "mode": mode}
    return events(folder)


@contextmanager
def recording(folder: Path) -> Iterator[None]:
    """Chapters that are opened inside leave their records below `folder`."""
    (folder / "outputs").mkdir(exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("RUNBOOK_RECORD", raising=False)
        yield


def changed(lab: Lab, folder: Path, **sections: Any) -> Path:
    """A copy of the lab's parameters in which these values of sections are others."""
    home = lab.site_file.parent
    parameters = yaml.safe_load(lab.site_file.read_text())
    for name in ("key", "known_hosts"):
        parameters["ssh"][name] = str((home / parameters["ssh"][name]).resolve())
    for section in ("artifacts", "images"):
        for upload in parameters.get(section, {}).values():
            upload["file"] = str((home / upload["file"]).resolve())
    mysql = parameters.get("mysql", {})
    for name in ("password", "root_password"):
        if name in mysql:
            mysql[name] = f"file:{(home / mysql[name].removeprefix('file:')).resolve()}"
    file = folder / "changed.yml"
    file.write_text(yaml.safe_dump(_merged(parameters, sections)))
    return file


def _merged(present: Made, other: Made) -> Made:
    merged = dict(present)
    for name, value in other.items():
        inner = merged.get(name)
        merged[name] = _merged(inner, value) if isinstance(inner, dict) and isinstance(value, dict) else value
    return merged
