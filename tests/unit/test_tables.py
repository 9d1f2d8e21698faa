"""How DataFrames are shown: small and large, with what is in the cells kept from being markup."""

from __future__ import annotations

import io
import re

import pandas as pd
import pytest
from rich.console import Console

from runbook.views.tables import LARGE, Table, Tone, blank_missing, tone

EVIL = "<script>alert('x')</script> & \"more\""


def table(rows: int = 2) -> Table:
    frame = pd.DataFrame({"host": [f"node{n}" for n in range(rows)], "state": "✓ ok", "said": EVIL})
    return Table(frame, f"hosts {EVIL}", states=("state",), literal=("said", "absent"))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("✓ 40 GB free", Tone.GOOD),
        ("leader", Tone.GOOD),
        ("⚠ Debian", Tone.WARNING),
        ("would change", Tone.WARNING),
        ("✗ taken", Tone.BAD),
        ("unreachable: no route to host", Tone.BAD),
        ("Not installed", Tone.QUIET),
        ("node1", None),
        ("nobody", None),
        (None, None),
        (3, None),
    ],
)
def test_a_cell_is_coloured_by_its_mark_or_its_first_words(value: object, expected: Tone | None) -> None:
    assert tone(value) is expected


@pytest.mark.parametrize("rows", [2, LARGE])
def test_no_cell_becomes_markup(rows: int) -> None:
    page = table(rows)._repr_html_()
    assert "<script>alert" not in page
    assert page.count("&lt;script&gt;alert") >= 2


def test_a_small_table_is_styled() -> None:
    page = table()._repr_html_()
    assert page.count("<tr>") == 3
    assert Tone.GOOD.tint in page
    assert "pre-wrap" in page


def test_numbers_are_written_as_people_do() -> None:
    page = Table(pd.DataFrame({"cpus": [0.1, None], "mem": [16.0, 1472.5]}))._repr_html_()
    assert re.findall(r"<td[^>]*>(.*?)</td>", page) == ["0.1", "16", "", "1472.5"]


def test_a_large_table_can_be_searched_and_loads_nothing_from_elsewhere() -> None:
    large = table(LARGE)
    assert large.large
    page = large._repr_html_()
    assert "ITable" in page
    assert f"node{LARGE - 1}" in page
    loads = re.findall(r"""(?:import\b[^;'"]{0,80}|src=|import\()\s*['"](https?://[^'"]+)""", page)
    assert loads == []


def test_the_index_is_shown_where_it_has_a_name() -> None:
    frame = pd.DataFrame({"free": [1, 2]}, index=pd.Index(["a", "a"], name="host"))
    assert "host" in Table(frame)._repr_html_()
    assert str(Table(frame)).split() == ["host", "free", "a", "1", "a", "2"]


def test_a_terminal_gets_text_with_colours_and_nothing_for_what_is_missing() -> None:
    out = io.StringIO()
    frame = pd.DataFrame({"host": ["node1", "node2"], "state": ["✗ down", None]})
    Console(file=out, force_terminal=True, width=80).print(Table(frame, "hosts", states=("state",)))
    text = out.getvalue()
    assert "\x1b[1;31m✗ down" in text
    assert "None" not in text


def test_what_is_missing_is_blank_in_a_column_of_numbers_too() -> None:
    frame = pd.DataFrame({"host": ["node1", None], "port": [None, None], "size": [1.5, None]})
    assert blank_missing(frame.astype({"port": "float64"})).to_numpy().tolist() == [["node1", "", 1.5], ["", "", ""]]
