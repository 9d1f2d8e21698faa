"""Runs the fixture notebooks as a rollout does, in kernels of their own."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from rich.console import Console

from runbook.remote.modes import Mode
from runbook.rollout import run
from runbook.rollout.run import Finished

FIXTURES = Path(__file__).parent / "notebooks"
SITE = FIXTURES / "site.yml"


def chapters(folder: Path, *names: str) -> Path:
    """A folder with these fixture notebooks as chapters 0, 1, …"""
    folder.mkdir()
    for number, name in enumerate(names):
        shutil.copy(FIXTURES / f"{name}.ipynb", folder / f"{number:02}_{name}.ipynb")
    return folder


def rollout(
    tmp_path: Path, *names: str, mode: Mode = Mode.APPLY, cell_timeout: int = 60, console: Console | None = None
) -> Finished:
    """A rollout of these fixture notebooks."""
    return run.rollout(
        SITE,
        mode=mode,
        outputs=tmp_path / "outputs",
        notebooks=chapters(tmp_path / "notebooks", *names),
        cell_timeout=cell_timeout,
        console=console or Console(file=io.StringIO()),
    )


def executed(finished: Finished, name: str) -> NotebookNode:
    """The executed notebook of a rollout."""
    (path,) = finished.folder.glob(f"*_{name}.ipynb")
    return nbformat.read(path, as_version=4)


def statuses(notebook: NotebookNode) -> dict[str, str]:
    """What papermill's metadata say of each code cell, by its last line; the banner and the prose left out."""
    return {
        cell.source.splitlines()[-1]: cell.metadata.papermill["status"]
        for cell in notebook.cells
        if cell.cell_type == "code"
    }
