"""Which chapters a rollout runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from runbook.errors import ParameterError
from runbook.rollout.run import Notebook, chosen, notebooks_in

CHAPTERS = tuple(Notebook(Path(f"{number:02}_chapter.ipynb")) for number in (0, 1, 2, 3, 5))


def test_the_chapters_are_the_numbered_notebooks_in_order(tmp_path: Path) -> None:
    for name in ("01_zookeeper.ipynb", "00_overview.ipynb", "draft.ipynb", "02_notes.md", "1_short.ipynb"):
        (tmp_path / name).touch()
    (tmp_path / "operations").mkdir()
    (tmp_path / "operations" / "03_drill.ipynb").touch()
    assert [(each.number, each.name) for each in notebooks_in(tmp_path)] == [("0", "overview"), ("1", "zookeeper")]


@pytest.mark.parametrize(
    ("chapters", "numbers"),
    [
        (None, ["0", "1", "2", "3", "5"]),
        ("1", ["1"]),
        ("01", ["1"]),
        ("0-1", ["0", "1"]),
        ("3, 0 - 1", ["0", "1", "3"]),
        ("1,1,1-2", ["1", "2"]),
    ],
)
def test_chapters_are_chosen_by_numbers_and_ranges(chapters: str | None, numbers: list[str]) -> None:
    assert [notebook.number for notebook in chosen(CHAPTERS, chapters)] == numbers


@pytest.mark.parametrize(
    ("chapters", "told"),
    [
        ("one", "chapters: 'one' is neither a number nor a range"),
        ("", "chapters: '' is neither a number nor a range"),
        ("2-1", "chapters: '2-1' is neither a number nor a range"),
        ("-1", "chapters: '-1' is neither a number nor a range"),
        ("3-5", "chapters: there is no chapter 4\n  remedy: there are 0, 1, 2, 3, 5"),
    ],
)
def test_what_is_no_choice_is_refused(chapters: str, told: str) -> None:
    with pytest.raises(ParameterError, match=f"command line: {told}"):
        chosen(CHAPTERS, chapters)


def test_a_folder_without_chapters_is_refused() -> None:
    with pytest.raises(ParameterError, match="name the folder of the notebooks with --notebooks"):
        chosen((), None)
