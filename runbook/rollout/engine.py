"""The papermill engine that runs a notebook as a runbook needs it: `papermill --engine runbook`, and every rollout.

Other than papermill's own engine it
- talks to kernels over Unix sockets in a private folder (IPC), not over TCP, which other users of the machine reach;
- refuses a parameter that the notebook does not have, before a kernel is started;
- masks known secrets in outputs before they are written, and in the notebook that it gives back;
- writes the executed notebook whole or not at all, and never over another file;
- says why a notebook stopped (a killed kernel, a cell out of time, `sys.exit`, an error), and marks the cell where it
  stopped as failed and those behind it as not run. papermill 2.7 marks both as completed where no error was shown.
"""

from __future__ import annotations

import ast
import copy
import logging
import os
import signal
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, cast

import nbformat
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbformat import NotebookNode
from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import Engine, NotebookExecutionManager
from papermill.log import logger

from runbook import sockets
from runbook.errors import ParameterError, RecordError
from runbook.names import unknown
from runbook.output import OUTPUT
from runbook.rollout import files, record
from runbook.secrets import redact, redact_data

logger.addHandler(logging.NullHandler())  # what it says is in the notebook; `papermill` itself sets up its own

KEEP_OUTPUT = "import runbook"  # see runbook/output.py
OUTPUT_TIMEOUT = 120
"""Seconds that the output of a cell may take to arrive after the cell ended."""
LARGEST_OUTPUT = 64 * 2**20
"""Characters of output that a cell may leave in its notebook; what is beyond is counted, not kept."""
NOT_RUN = "not run"  # what becomes of a cell that papermill left `pending`


class Manager(NotebookExecutionManager):  # type: ignore[misc]
    """Keeps the state of the cells and writes the executed notebook."""

    def __init__(self, nb: NotebookNode, **options: Any) -> None:
        super().__init__(nb, **options)
        self._written = False

    def stopped(self, cell: NotebookNode, index: int, reason: str) -> None:
        """Take down why the notebook stopped at its cell number `index` (from 0)."""
        self.cell_exception(cell)
        first, _, _ = cell.source.strip().partition("\n")
        self.nb.metadata.papermill["stopped"] = redact(f"cell {index + 1} ({first}): {reason}")

    def cell_complete(self, cell: NotebookNode, cell_index: int | None = None, **options: Any) -> None:
        """Take down that a cell ended, its secrets masked."""
        _redact_outputs(cell)
        super().cell_complete(cell, cell_index, **options)

    def notebook_complete(self, **options: Any) -> None:
        """Take down that the notebook ended, for whatever reason."""
        for cell in self.nb.cells:
            if cell.metadata.papermill["status"] == self.PENDING:
                cell.metadata.papermill["status"] = NOT_RUN
        if "widgets" in self.nb.metadata:
            self.nb.metadata.widgets = nbformat.from_dict(redact_data(self.nb.metadata.widgets))
        super().notebook_complete(**options)

    def save(self, **options: Any) -> None:
        """Write the notebook as it is now, secrets masked in the cell that is still running, too.

        Raises RecordError where there is a file already that this run did not write.
        """
        self.last_save_time = self.now()
        if self.output_path is None:
            return
        if "://" in self.output_path or self.output_path == "-":  # a store or a stream that papermill knows
            super().save(**options)
            return
        content = written(self.nb)
        path = Path(self.output_path)
        if self._written:
            files.replace(path, content)
            return
        try:
            files.create(path, content)
        except FileExistsError as error:
            raise RecordError(
                f"{path}: there is an executed notebook already", "name another output: records are never overwritten"
            ) from error
        self._written = True


class Client(PapermillNotebookClient):  # type: ignore[misc]
    """Runs the cells of one notebook in a kernel of its own.

    The kernel's sockets are in `folder`, and there its standard error goes that no cell shows: what ipykernel logs, and
    the last words of an interpreter that crashes.
    """

    def __init__(self, manager: Manager, folder: Path, **options: Any) -> None:
        super().__init__(manager, **options)
        self._folder = folder
        self._stderr = folder / "stderr"
        self._record: Path | None = None
        self._kept = self._cut = self._messages = 0  # characters kept and cut of the running cell, and messages cut

    def execute(self, **options: Any) -> NotebookNode:
        """Start the kernel, run the cells, and end the kernel; `options` are those of jupyter_client's start_kernel."""
        folder = (options.get("env") or os.environ).get(record.VARIABLE)
        self._record = Path(folder) if folder else None
        with self._stderr.open("wb") as stderr:
            super().execute(stderr=stderr, **options)
        return cast(NotebookNode, self.nb)

    def create_kernel_manager(self) -> Any:
        """A manager whose kernel is talked to over Unix sockets, and keeps all of its output if it runs Python."""
        manager = super().create_kernel_manager()
        if manager.kernel_spec.language == "python":
            self.extra_arguments += [f"--IPKernelApp.exec_lines={KEEP_OUTPUT}"]
        manager.transport = "ipc"
        manager.connection_file = str(self._folder / "kernel.json")  # and so the sockets beside it: a short path
        return manager

    def papermill_execute_cells(self) -> None:
        """Run cell after cell until one does not end well; an error that a cell shows stops the notebook silently."""
        for index, cell in enumerate(self.nb.cells):
            try:
                self.nb_man.cell_start(cell, index)
                self.execute_cell(cell, index)
            except CellExecutionError as error:
                exits = error.ename == "SystemExit"
                told = f"sys.exit({error.evalue})" if exits else f"{error.ename}: {error.evalue}"
                self.nb_man.stopped(cell, index, told)
                break
            except CellTimeoutError as error:
                lost = "IOPub" in str(error)  # the cell itself ended
                what = f"the end of its output did not arrive within {self.iopub_timeout} s" if lost else ""
                self.nb_man.stopped(cell, index, what or f"cell timeout: it did not end within {self.timeout} s")
                raise
            except DeadKernelError:
                self.nb_man.stopped(cell, index, self._end_of_kernel())
                raise
            except BaseException as error:
                self.nb_man.stopped(cell, index, str(error) or type(error).__name__)
                raise
            finally:
                self._tell_cut(cell)
                self.nb_man.cell_complete(cell, index)

    def process_message(self, msg: dict[str, Any], cell: NotebookNode, cell_index: int) -> NotebookNode | None:
        """Take one message of the kernel into the cell; output beyond `LARGEST_OUTPUT` is counted, not kept."""
        if msg["msg_type"] in OUTPUT:
            content = msg["content"]
            size = len(content.get("text", "")) + sum(len(str(value)) for value in content.get("data", {}).values())
            if self._kept + size > LARGEST_OUTPUT:
                self._cut, self._messages = self._cut + size, self._messages + 1
                return None
            self._kept += size
        return cast(NotebookNode | None, super().process_message(msg, cell, cell_index))

    def _tell_cut(self, cell: NotebookNode) -> None:
        """Write into the cell, and into the journal of a rollout, how much of its output was cut."""
        cut, messages = self._cut, self._messages
        self._kept = self._cut = self._messages = 0
        if not messages:
            return
        text = f"runbook: {messages} messages ({cut} characters) of output were cut here: a cell may leave "
        text += f"{LARGEST_OUTPUT} in its notebook\n"
        cell.outputs.append(nbformat.v4.new_output("stream", name="stderr", text=text))
        if self._record is not None:
            with record.journal_of(self._record) as journal:
                journal.append({"event": "output_cut", "messages": messages, "bytes": cut})

    def _end_of_kernel(self) -> str:
        status = self.km.provisioner.process.returncode
        how = f"with exit status {status}" if status >= 0 else f"by signal {-status} ({signal.Signals(-status).name})"
        last_words = self._stderr.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-3:]
        return "\n".join([f"kernel {'killed' if status < 0 else 'ended'} {how}", *last_words])


class RunbookEngine(Engine):  # type: ignore[misc]
    """The engine as papermill finds it by the name `runbook`."""

    @classmethod
    def execute_notebook(
        cls,
        nb: NotebookNode,
        kernel_name: str,
        output_path: str | None = None,
        progress_bar: bool | Mapping[str, Any] = True,
        log_output: bool = False,
        autosave_cell_every: int = 30,
        **options: Any,
    ) -> NotebookNode:
        """Run a notebook with parameters put in; gives it back with outputs.

        `nb.metadata.papermill.stopped` says why it stopped, if it did before its last cell ended. Raises ParameterError
        (unknown parameters), RecordError (the output exists), nbclient's DeadKernelError and CellTimeoutError.
        """
        refuse_unknown(nb, nb.metadata.papermill.get("parameters", {}))
        manager = Manager(
            nb,
            output_path=output_path,
            progress_bar=progress_bar,
            log_output=log_output,
            autosave_cell_every=autosave_cell_every,
        )
        manager.notebook_start()
        try:
            cls.execute_managed_notebook(manager, kernel_name, log_output=log_output, **options)
        finally:
            manager.notebook_complete()
        return nb

    @classmethod
    def execute_managed_notebook(
        cls,
        nb_man: Manager,
        kernel_name: str,
        log_output: bool = False,
        start_timeout: int = 60,
        execution_timeout: int | None = None,
        env: Mapping[str, str] | None = None,
        stdout_file: Any = None,
        stderr_file: Any = None,
        input_path: str | None = None,
        **options: Any,
    ) -> None:
        """Run the cells. `execution_timeout` and `start_timeout` are in seconds; `env` is the kernel's environment."""
        with sockets.folder("kernel-ipc-99") as folder:
            client = Client(
                nb_man,
                Path(folder),
                kernel_name=kernel_name,
                timeout=execution_timeout,
                startup_timeout=start_timeout,
                iopub_timeout=OUTPUT_TIMEOUT,
                raise_on_iopub_timeout=True,  # else what is missing in the notebook is missing silently
                coalesce_streams=True,  # a secret that was printed in pieces is found only in one
                log=logger,
                log_output=log_output,
                stdout_file=stdout_file,
                stderr_file=stderr_file,
                **options,
            )
            client.execute(**({} if env is None else {"env": dict(env)}))


def parameters_of(nb: NotebookNode) -> frozenset[str]:
    """The names that a notebook's cell tagged `parameters` binds; none where it has no such cell."""
    names = set()
    for cell in nb.cells:
        if cell.cell_type == "code" and "parameters" in cell.metadata.get("tags", []):
            for node in ast.walk(ast.parse(cell.source)):
                if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                    names.add(node.id)
    return frozenset(names)


def refuse_unknown(nb: NotebookNode, given: Iterable[str]) -> None:
    """Raise ParameterError for parameters that a notebook does not have; papermill itself only warns."""
    place = Path(nb.metadata.papermill.get("input_path") or "notebook")
    problems = unknown(given, parameters_of(nb), place)
    if problems:
        raise ParameterError(problems)


def written(nb: NotebookNode) -> bytes:
    """A notebook as a file holds it, secrets in outputs masked; the notebook itself is left as it is."""
    shown = copy.copy(nb)
    shown.cells = [copy.copy(cell) for cell in nb.cells]
    for cell in shown.cells:
        _redact_outputs(cell)
    text: str = nbformat.writes(shown)
    return f"{text}\n".encode()


def _redact_outputs(cell: NotebookNode) -> None:
    if "outputs" in cell:
        cell.outputs = nbformat.from_dict(redact_data(cell.outputs))
