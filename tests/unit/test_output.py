"""What a notebook's kernel prints, with real kernels: every line is kept, and a stalled reader stops no kernel."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.manager import KernelManager
from nbformat.v4 import new_code_cell, new_notebook
from notebook_runs import FIXTURES, SITE
from rich.console import Console

from runbook import output
from runbook.remote.modes import Mode
from runbook.rollout import engine, run

LINES = 60_001
PRINTS = f"""
for number in range({LINES}):
    print("line", number, flush=not number % 3)
"""
"""Flushed 20,000 times: as many messages for ipykernel, whose socket drops them 1,000 after the reader's last one."""


def notebook(path: Path, *cells: str) -> Path:
    parameters = "site_file = 'site.yml'\nmode = 'plan'\nyes = False"
    nb = new_notebook(
        cells=[new_code_cell(parameters, metadata={"tags": ["parameters"]}), *map(new_code_cell, cells)],
        metadata={"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}},
    )
    nbformat.write(nb, path)
    return path


def lines(path: Path) -> list[str]:
    cells = nbformat.read(path, as_version=4).cells
    outputs = [each for cell in cells for each in cell.get("outputs", ()) if each.get("name") == "stdout"]
    return "".join(each.text for each in outputs).splitlines()


WANTED = [f"line {number}" for number in range(LINES)]


@pytest.mark.parametrize(
    ("first", "options"),
    [("import runbook", ()), ("pass", ("--engine", "runbook"))],
    ids=["papermill's own engine", "our engine"],
)
def test_papermill_keeps_every_line(tmp_path: Path, first: str, options: tuple[str, ...]) -> None:
    source = notebook(tmp_path / "in.ipynb", first, PRINTS)
    command = [sys.executable, "-m", "papermill", str(source), str(tmp_path / "out.ipynb"), *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert lines(tmp_path / "out.ipynb") == WANTED


def test_a_rollout_keeps_every_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(FIXTURES), os.environ.get("PYTHONPATH", "")]))
    (tmp_path / "notebooks").mkdir()
    chapter = "import rehearsal\nchapter = rehearsal.Chapter(site_file, mode, yes)"
    notebook(tmp_path / "notebooks" / "01_prints.ipynb", chapter, PRINTS, "chapter.finish()")
    finished = run.rollout(
        SITE,
        mode=Mode.PLAN,
        outputs=tmp_path / "outputs",
        notebooks=tmp_path / "notebooks",
        console=Console(file=io.StringIO()),
    )
    assert finished.status == 0
    assert lines(finished.folder / "01_prints.ipynb") == WANTED
    assert finished.history.notes == []


def test_output_beyond_what_a_notebook_may_hold_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(FIXTURES), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setattr(engine, "LARGEST_OUTPUT", 1000)
    (tmp_path / "notebooks").mkdir()
    chapter = "import rehearsal\nchapter = rehearsal.Chapter(site_file, mode, yes)"
    shows = "for number in range(10): display({'text/plain': 'x' * 300}, raw=True)"
    notebook(tmp_path / "notebooks" / "01_shows.ipynb", chapter, shows, "print('after it')\nchapter.finish()")
    finished = run.rollout(
        SITE, outputs=tmp_path / "outputs", notebooks=tmp_path / "notebooks", console=Console(file=io.StringIO())
    )
    cell = nbformat.read(finished.folder / "01_shows.ipynb", as_version=4).cells[4]
    assert [each.output_type for each in cell.outputs] == ["display_data"] * 3 + ["stream"]
    assert cell.outputs[-1].text.startswith("runbook: 7 messages (2100 characters) of output were cut here")
    assert lines(finished.folder / "01_shows.ipynb")[-1] == "after it"
    assert finished.history.notes == ["7 messages (2100 bytes) of a cell's output were cut"]


# a kernel whose reader is this test

Run = Callable[..., list[dict[str, Any]]]


@pytest.fixture
def client(tmp_path: Path) -> Iterator[BlockingKernelClient]:
    manager = KernelManager(kernel_name="python3")
    path = os.pathsep.join([str(FIXTURES), os.environ.get("PYTHONPATH", "")])
    manager.start_kernel(cwd=str(tmp_path), env={**os.environ, "PYTHONPATH": path})
    client = manager.blocking_client()
    client.start_channels()
    client.wait_for_ready(timeout=60)
    yield client
    client.stop_channels()
    manager.shutdown_kernel(now=True)


def answers(client: BlockingKernelClient, request: str) -> list[dict[str, Any]]:
    """What a request published, up to its end."""
    messages = []
    while True:
        message = client.get_iopub_msg(timeout=60)
        if message["parent_header"].get("msg_id") != request:
            continue
        if message["content"].get("execution_state") == "idle":
            return messages
        messages.append(message)


def shown(messages: list[dict[str, Any]]) -> list[str]:
    """What the messages show, text of one stream that follows text of the same joined."""
    pieces: list[tuple[str, str]] = []
    for message in messages:
        content = message["content"]
        if message["msg_type"] == "stream" and pieces and pieces[-1][0] == content["name"]:
            pieces[-1] = (content["name"], pieces[-1][1] + content["text"])
        elif message["msg_type"] == "stream":
            pieces.append((content["name"], content["text"]))
        elif "data" in content:
            pieces.append(("data", content["data"]["text/plain"]))
    return [text for _, text in pieces]


def test_text_that_is_printed_in_quick_succession_is_one_message_and_keeps_its_place(
    client: BlockingKernelClient,
) -> None:
    client.execute("import runbook", reply=True, timeout=60)
    code = """
    import sys
    for number in range(1000): print(number, flush=True)
    print("error", file=sys.stderr, flush=True)
    print("after it", flush=True)
    display("a value")
    print("é\\n" * 3, end="", flush=True)
    """
    messages = answers(client, client.execute(code.replace("\n    ", "\n")))
    assert shown(messages) == [
        "".join(f"{number}\n" for number in range(1000)),
        "error\n",
        "after it\n",
        "'a value'",
        "é\n" * 3,
    ]
    assert len(messages) < 500


STALL = """
import rehearsal
from runbook import output
output.PATIENCE = 2.0
output._publisher._thread.schedule(output._publisher.install)
chapter = rehearsal.Chapter({site!r})
"""
COUNT = 7000  # of messages of 4 kB: more than the sockets' queues (1,000 messages each) and TCP's buffers (10 MB) take
FLOOD = f"""
import IPython.display
for number in range({COUNT}): IPython.display.display({{"text/plain": f"{{number:<4000}}"}}, raw=True)
"""


def test_a_reader_that_stops_reading_does_not_stop_the_kernel_and_what_it_misses_is_counted(
    tmp_path: Path, client: BlockingKernelClient
) -> None:
    client.execute(STALL.format(site=str(SITE)), reply=True, timeout=60)
    flood = client.execute(FLOOD)
    while client.get_shell_msg(timeout=60)["parent_header"]["msg_id"] != flood:
        pass  # the kernel ends the cell though nothing reads its output

    messages = answers(client, flood)
    numbers = [int(text) for text in shown(messages) if text[:1].isdigit()]
    (notice,) = (text for text in shown(messages) if "were cut here" in text)
    cut = int(re.match(r"runbook: (\d+) messages", notice)[1])  # type: ignore[index]
    assert cut > 0
    assert len(numbers) + cut == COUNT
    assert numbers == list(range(COUNT - cut))

    client.execute("chapter.finish()", reply=True, timeout=60)
    (content,) = (json.loads(path.read_text()) for path in tmp_path.glob("outputs/*/record.json"))
    (note,) = content["notes"]
    assert re.fullmatch(rf"{cut} messages \(\d+ bytes\) of a cell's output were cut", note)


def test_what_was_cut_is_in_the_record_of_a_chapter_that_ends_before_its_reader_goes_on(
    tmp_path: Path, client: BlockingKernelClient
) -> None:
    client.execute(STALL.format(site=str(SITE)), reply=True, timeout=60)
    flood = client.execute(f"{FLOOD}\nchapter.finish()")
    while client.get_shell_msg(timeout=60)["parent_header"]["msg_id"] != flood:
        pass
    (path,) = tmp_path.glob("outputs/*/journal.jsonl")
    entries = [json.loads(line) for line in path.read_text().splitlines()]
    (told,) = (entry for entry in entries if entry["event"] == "output_cut")
    assert 0 < told["messages"] < COUNT + 1
    assert told["bytes"] > told["messages"]


def test_a_program_that_is_no_kernel_is_left_alone() -> None:
    output.keep_all()
    output.report_cut()
    assert output._publisher is None
