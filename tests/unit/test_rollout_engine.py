"""The engine by itself, as `papermill --engine runbook` and a notebook's reader meet it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from jupyter_client.manager import start_new_kernel
from nbformat.v4 import new_code_cell, new_notebook
from notebook_runs import FIXTURES, SITE, statuses

from runbook import secrets
from runbook.errors import ParameterError, RecordError
from runbook.rollout import engine


def papermill(folder: Path, notebook: str, output: str, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "papermill", str(FIXTURES / f"{notebook}.ipynb"), output, *options]
    return subprocess.run(
        [*command, "-p", "site_file", str(SITE)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(FIXTURES), os.environ.get("PYTHONPATH", "")])},
        capture_output=True,
        text=True,
        check=False,
    )


def test_papermill_runs_a_chapter_with_its_own_engine(tmp_path: Path) -> None:
    done = papermill(tmp_path, "changes", "out.ipynb", "-p", "mode", "apply")
    assert done.returncode == 0, done.stderr
    (content,) = (json.loads(path.read_text()) for path in tmp_path.glob("outputs/*/record.json"))
    assert (content["outcome"], content["mode"], content["changed"]) == ("changed", "apply", 1)


@pytest.mark.parametrize(
    ("mode", "error"),
    [
        ("apply", "ApplyFailed: node1: conf: exit status 1\n  remedy: look at node1"),
        ("verify", "ChapterFailed: 1 Rehearsal: failed\nsection 1.5: node1: /etc/conf: exit status 1"),
    ],
)
def test_papermill_fails_where_the_chapter_fails_and_the_record_is_closed(
    tmp_path: Path, mode: str, error: str
) -> None:
    done = papermill(tmp_path, "step_fails", "out.ipynb", "-p", "mode", mode)
    assert done.returncode == 1
    assert error in done.stderr
    (content,) = (json.loads(path.read_text()) for path in tmp_path.glob("outputs/*/record.json"))
    assert content["outcome"] == "failed"


@pytest.mark.parametrize("options", [(), ("--engine", "runbook")], ids=["papermill's own engine", "ours"])
def test_a_misspelt_parameter_is_refused(tmp_path: Path, options: tuple[str, ...]) -> None:
    done = papermill(tmp_path, "changes", "out.ipynb", "-p", "moed", "apply", *options)
    assert done.returncode == 1
    assert "moed: the notebook has no such parameter\n  remedy: did you mean mode?" in done.stderr
    assert not (tmp_path / "outputs").exists()


def test_a_long_path_of_tmpdir_leaves_room_for_the_kernels_sockets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel of the system limits a socket's path (unix(7), sun_path), and batch systems make long TMPDIRs."""
    folder = tmp_path / ("a-job-of-a-batch-system-" * 4)
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    done = papermill(tmp_path, "changes", "out.ipynb", "--engine", "runbook")
    assert done.returncode == 0, done.stderr


def test_our_engine_is_found_by_its_name_and_speaks_over_unix_sockets(tmp_path: Path) -> None:
    done = papermill(tmp_path, "changes", "out.ipynb", "--engine", "runbook")
    assert done.returncode == 0, done.stderr
    assert "TCP" not in done.stderr  # of which ipykernel 7 warns
    assert set(statuses(nbformat.read(tmp_path / "out.ipynb", as_version=4)).values()) == {"completed"}


@pytest.fixture
def notebook() -> nbformat.NotebookNode:
    nb = new_notebook(cells=[new_code_cell("a = 1", metadata={"tags": ["parameters"]}), new_code_cell("print(a)")])
    nb.metadata.papermill = {}
    return nb


def test_an_executed_notebook_is_never_written_over(tmp_path: Path, notebook: nbformat.NotebookNode) -> None:
    output = tmp_path / "out.ipynb"
    output.write_text("earlier")
    with pytest.raises(RecordError, match="there is an executed notebook already"):
        engine.RunbookEngine.execute_notebook(notebook, "python3", str(output), progress_bar=False)
    assert output.read_text() == "earlier"
    assert [path.name for path in tmp_path.iterdir()] == ["out.ipynb"]


def test_the_kernel_s_sockets_and_errors_leave_nothing_behind(
    tmp_path_factory: pytest.TempPathFactory, notebook: nbformat.NotebookNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path_factory.mktemp("t")  # a Unix socket's path has to be short
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    notebook.cells[1].source = f"import os; print(list(os.walk({str(folder)!r})))"
    engine.RunbookEngine.execute_notebook(notebook, "python3", progress_bar=False)
    assert "'kernel-ipc-1'" in notebook.cells[1].outputs[0].text
    assert list(folder.iterdir()) == []


def test_what_a_crashing_interpreter_says_last_is_part_of_the_reason(notebook: nbformat.NotebookNode) -> None:
    notebook.cells.append(new_code_cell("import faulthandler; faulthandler._sigsegv()"))
    with pytest.raises(RuntimeError, match="Kernel died"):
        engine.RunbookEngine.execute_notebook(notebook, "python3", progress_bar=False)
    reason = notebook.metadata.papermill.stopped
    assert reason.startswith(
        "cell 3 (import faulthandler; faulthandler._sigsegv()): kernel killed by signal 11 (SIGSEGV)"
    )


def test_a_kernel_that_ends_by_itself_is_told_from_one_that_was_killed(notebook: nbformat.NotebookNode) -> None:
    notebook.cells.append(new_code_cell("import os; os._exit(3)"))
    with pytest.raises(RuntimeError, match="Kernel died"):
        engine.RunbookEngine.execute_notebook(notebook, "python3", progress_bar=False)
    assert notebook.metadata.papermill.stopped == "cell 3 (import os; os._exit(3)): kernel ended with exit status 3"


def test_secrets_are_masked_in_the_notebook_itself(notebook: nbformat.NotebookNode) -> None:
    secrets.register("a-secret-for-the-engine")
    notebook.cells[1].source = "print('a-secret-for', end='', flush=True); print('-the-engine')"
    engine.RunbookEngine.execute_notebook(notebook, "python3", progress_bar=False)
    assert notebook.cells[1].outputs[0].text == "***\n"


def test_parameters_of_a_notebook_are_what_its_tagged_cell_binds(notebook: nbformat.NotebookNode) -> None:
    notebook.cells[0].source = "site_file: str = 'a.yml'  # where\nmode = 'plan'\nyes = False"
    assert engine.parameters_of(notebook) == {"site_file", "mode", "yes"}
    with pytest.raises(
        ParameterError, match=r"site: the notebook has no such parameter\n  remedy: did you mean site_file"
    ):
        engine.refuse_unknown(notebook, {"site": "b.yml"})


ASK = "from runbook.interactive import is_interactive; is_interactive()"
THREAD = """
from concurrent.futures import ThreadPoolExecutor
from runbook.interactive import is_interactive
ThreadPoolExecutor().submit(is_interactive).result()
"""


@pytest.fixture(scope="module")
def answer() -> Iterator[object]:
    """Runs code in a kernel as a frontend that can, or cannot, answer questions; gives the value of its last line."""
    manager, client = start_new_kernel(kernel_name="python3")

    def ask(code: str, allow_stdin: bool) -> str:
        values: list[str] = []

        def take(message: dict[str, dict[str, dict[str, str]]]) -> None:
            if "data" in message["content"]:
                values.append(message["content"]["data"]["text/plain"])

        client.execute_interactive(code, allow_stdin=allow_stdin, output_hook=take, timeout=60)
        return values[-1]

    yield ask
    client.stop_channels()
    manager.shutdown_kernel(now=True)


@pytest.mark.parametrize("code", [ASK, THREAD], ids=["in the cell", "in a thread"])
@pytest.mark.parametrize("allow_stdin", [True, False], ids=["JupyterLab", "nbclient"])
def test_who_is_there_is_told_by_the_request(answer: object, code: str, allow_stdin: bool) -> None:
    assert answer(code, allow_stdin) == str(allow_stdin)  # type: ignore[operator]


def test_a_plain_program_has_nobody_to_ask() -> None:
    from runbook.interactive import is_interactive

    assert is_interactive() is False
