"""Every notebook of the runbook makes one library call a cell, and leaves nothing of a run in git."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import nbformat
import pytest
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from notebook_lint import lint

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
FOUND = sorted(path for path in NOTEBOOKS.rglob("*.ipynb") if ".ipynb_checkpoints" not in path.parts)


def test_there_are_notebooks() -> None:
    assert len(FOUND) >= 2


@pytest.mark.parametrize("path", FOUND, ids=lambda path: str(path.relative_to(NOTEBOOKS)))
def test_a_notebook_is_as_it_should_be(path: Path) -> None:
    assert lint(path) == []


@pytest.mark.parametrize("path", sorted(NOTEBOOKS.glob("[0-9]*.ipynb")), ids=lambda path: path.name)
def test_a_notebook_tells_a_rollout_what_its_chapter_needs(path: Path) -> None:
    """A rollout knows notebooks, not services: what a chapter is about is said in both."""
    notebook = nbformat.read(path, as_version=4)
    (opening,) = (cell.source for cell in notebook.cells if "(site_file, mode=mode" in cell.source)
    (module, name) = re.search(r"from (\S+) import (\w+)", opening).groups()  # type: ignore[union-attr]
    needs = getattr(importlib.import_module(module), name).needs
    assert tuple(notebook.metadata.get("runbook", {}).get("needs", ())) == needs
    assert needs or path.name.startswith("00_")


def good(*cells: str) -> NotebookNode:
    """A notebook that is as it should be, with more cells in its middle."""
    return new_notebook(
        cells=[
            new_markdown_cell("# for while def class !"),
            new_code_cell(
                "site_file = 'parameters/lab.yml'\nmode = 'plan'\nyes = False", metadata={"tags": ["parameters"]}
            ),
            new_code_cell(
                "from runbook.services import zookeeper\n\nchapter = zookeeper.Chapter(site_file, mode, yes)"
            ),
            *map(new_code_cell, cells),
            new_code_cell("chapter.finish()"),
        ]
    )


def linted(tmp_path: Path, notebook: NotebookNode) -> list[str]:
    path = tmp_path / "01_bad.ipynb"
    nbformat.write(notebook, path)
    return [what.removeprefix("01_bad.ipynb: ") for what in lint(path)]


@pytest.mark.parametrize("cell", ["chapter.state()", "chapter", "result = chapter.site.name", "import os\nimport sys"])
def test_calls_attributes_and_imports_are_well(tmp_path: Path, cell: str) -> None:
    assert linted(tmp_path, good(cell)) == []


@pytest.mark.parametrize(
    ("cell", "told"),
    [
        ("def help():\n    return 1", "uses `def`"),
        ("async def help():\n    return 1", "uses `def`"),
        ("class A:\n    pass", "uses `class`"),
        ("for host in hosts:\n    host", "uses `for`"),
        ("[host for host in hosts]", "uses `for`"),
        ("sum(host for host in hosts)", "uses `for`"),
        ("while True:\n    pass", "uses `while`"),
        ("if mode:\n    pass", "uses `if`"),
        ("with chapter:\n    pass", "uses `with`"),
        ("f = lambda: 1", "uses `lambda`"),
        ("!yum install mesos", "uses `!`, `%` or `?`, which only IPython reads"),
        ("out = !yum list", "uses `!`, `%` or `?`, which only IPython reads"),
        ("%matplotlib inline", "uses `!`, `%` or `?`, which only IPython reads"),
        ("%%bash\nyum install mesos", "uses `!`, `%` or `?`, which only IPython reads"),
        ("chapter?", "uses `!`, `%` or `?`, which only IPython reads"),
        ("chapter.state(); chapter.logs()", "makes 2 calls, not one"),
        ("chapter.apply(chapter.steps())", "makes 2 calls, not one"),
        ("del chapter", "holds more than imports and one call: del chapter"),
        ("chapter.mode = 'apply'", "holds more than imports and one call: chapter.mode = 'apply'"),
        ("a, b = chapter.pair()", "holds more than imports and one call: a, b = chapter.pair()"),
        ("chapter.(", "is not Python"),
        ("", "is empty"),
    ],
)
def test_a_cell_that_holds_more_is_told(tmp_path: Path, cell: str, told: str) -> None:
    assert linted(tmp_path, good(cell)) == [f"cell 4 ({cell.partition(chr(10))[0]}): {told}"]


def test_a_cell_after_a_run_is_told(tmp_path: Path) -> None:
    notebook = good("chapter.state()")
    notebook.cells[3].outputs = [new_output("stream", text="x")]
    notebook.cells[3].execution_count = 3
    assert linted(tmp_path, notebook) == [
        "cell 4 (chapter.state()): has outputs",
        "cell 4 (chapter.state()): has an execution count",
    ]


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("site_file = 'a'\nmode = 'plan'", "its `parameters` cell lacks yes"),
        ("site_file = mode = yes = 1", "its `parameters` cell holds something else than names and plain values"),
        (
            "import os\nsite_file = 'a'\nmode = 'plan'\nyes = False",
            "its `parameters` cell holds something else than names and plain values",
        ),
    ],
)
def test_parameters_that_are_none_are_told(tmp_path: Path, source: str, told: str) -> None:
    notebook = good()
    notebook.cells[1].source = source
    assert told in linted(tmp_path, notebook)


def test_a_missing_parameters_cell_is_told(tmp_path: Path) -> None:
    notebook = good()
    del notebook.cells[1]
    assert linted(tmp_path, notebook) == ["has no cell tagged `parameters`, not one"]


def test_parameters_behind_other_code_are_told(tmp_path: Path) -> None:
    notebook = good()
    notebook.cells.insert(1, new_code_cell("import os"))
    assert linted(tmp_path, notebook) == ["its `parameters` cell is not the first with code"]


def test_two_parameters_cells_are_told(tmp_path: Path) -> None:
    notebook = good()
    notebook.cells.insert(1, new_code_cell(notebook.cells[1].source, metadata={"tags": ["parameters"]}))
    assert linted(tmp_path, notebook) == ["has 2 cells tagged `parameters`, not one"]


def test_a_chapter_that_is_not_finished_is_told(tmp_path: Path) -> None:
    notebook = good("chapter.state()")
    del notebook.cells[-1]
    assert linted(tmp_path, notebook) == ["its last cell with code does not finish the chapter"]


def test_a_notebook_that_stays_open_ends_elsewhere(tmp_path: Path) -> None:
    notebook = good()
    notebook.cells[-1] = new_code_cell("chapter.show()", metadata={"tags": ["stays-open"]})
    assert linted(tmp_path, notebook) == []
    notebook.cells.append(new_code_cell("chapter.state()"))
    assert linted(tmp_path, notebook) == ["its last cell with code does not finish the chapter"]
