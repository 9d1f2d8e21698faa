"""plan and verify look at everything: with no host in reach every cell runs, and finish() lists what failed."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import nbformat
import pytest
import tenacity

from runbook.chapter import Chapter
from runbook.errors import ChapterFailed
from runbook.remote import checks
from runbook.remote.modes import Mode

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("0[1-7]_*.ipynb"))
"""The chapters that ask hosts. Chapter 8 refuses loopback addresses, and chapter 0 has no step that could fail."""


@pytest.fixture
def site_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The document's cluster on loopback addresses, at which nothing listens."""
    text = (ROOT / "parameters" / "production.yml").read_text().replace("10.142.233.", "127.0.113.")
    for pattern, replacement in (
        (r", registry_web", ""),
        (r"(?m)^  known_hosts:.*", "  known_hosts: known_hosts"),
        (r"(?m)^  key:.*", "  key: null"),
    ):
        text, count = re.subn(pattern, replacement, text)
        assert count, pattern
    (tmp_path / "known_hosts").touch()
    (tmp_path / "outputs").mkdir()
    (tmp_path / "site.yml").write_text(text)
    for name in ("RUNBOOK_MYSQL_PASSWORD", "RUNBOOK_MYSQL_ROOT_PASSWORD"):
        monkeypatch.setenv(name, f"value of {name}")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(checks.tenacity, "stop_after_delay", lambda _: tenacity.stop_after_attempt(1))
    return tmp_path / "site.yml"


@pytest.mark.parametrize("mode", [Mode.PLAN, Mode.VERIFY])
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_no_cell_but_the_last_one_raises(site_file: Path, notebook: Path, mode: Mode) -> None:
    cells: dict[str, Any] = {}
    sources = [cell for cell in nbformat.read(notebook, as_version=4).cells if cell.cell_type == "code"]
    assert sources[-1].source.endswith(".finish()")
    for cell in sources[:-1]:
        exec(cell.source, cells)  # it is a notebook of ours
        if "parameters" in cell.metadata.get("tags", []):
            cells |= {"site_file": str(site_file), "mode": mode.value}
    chapter = Chapter._open
    assert chapter is not None
    with pytest.raises(ChapterFailed) as failed:
        exec(sources[-1].source, cells)
    journal = [json.loads(line) for line in (chapter.folder / "journal.jsonl").read_text().splitlines()]
    finished = [event for event in journal if event["event"] == "section_finished"]
    assert len(finished) == len(sources) - 3  # the parameters, the cell that opens it, the one that finishes it
    for event in finished:
        assert (f"section {event['section']}: " in failed.value.message) == (event["outcome"] == "failed")
