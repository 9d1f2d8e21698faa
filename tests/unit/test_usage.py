"""The picture of used against free: what it shows of few slaves, and that a thousand cost next to nothing."""

from __future__ import annotations

import time
import xml.etree.ElementTree as ET

import pandas as pd
import pytest
from mesos_payloads import payload
from rich.console import Console

from runbook.services.mesos import slaves_table
from runbook.views.usage import FEW, Usage

SVG = "{http://www.w3.org/2000/svg}"


def slaves(count: int, used: float = 0.25) -> pd.DataFrame:
    """Slaves of 4 CPUs, 8 GB, 100 GB of disk and 100 ports, of which a share is used."""
    return pd.DataFrame(
        {
            "host": [f"node{number:04}" for number in range(count)],
            "active": pd.array([True] * count, dtype="boolean"),
            "cpus": 4.0,
            "cpus_used": 4.0 * used,
            "mem": 8192.0,
            "mem_used": 8192.0 * used,
            "disk": 102400.0,
            "disk_used": 102400.0 * used,
            "port_count": pd.array([100] * count, dtype="Int64"),
            "port_count_free": pd.array([100 - int(100 * used)] * count, dtype="Int64"),
        }
    )


def test_a_few_slaves_have_a_bar_each_as_long_as_their_use() -> None:
    picture = ET.fromstring(Usage(slaves(3)).svg())
    groups = picture.findall(f"{SVG}g")
    assert len(groups) == 3 * 4
    tip = groups[0].find(f"{SVG}title")
    assert tip is not None
    assert tip.text == "node0000: 1 of 4 CPUs used"
    whole, used = groups[0].findall(f"{SVG}rect")
    assert float(used.attrib["width"]) == pytest.approx(float(whole.attrib["width"]) / 4)


def test_many_slaves_are_one_curve_a_resource() -> None:
    frame = slaves(FEW + 1)
    frame.loc[0, "cpus_used"] = 4.0
    frame.loc[1, "cpus_used"] = 0.0
    picture = ET.fromstring(Usage(frame).svg())
    assert len(picture.findall(f"{SVG}g/{SVG}polygon")) == 4
    texts = [element.text or "" for element in picture.findall(f"{SVG}text")]
    assert f"{FEW + 1} slaves, the fullest first: 1 full, 1 idle" in texts


def test_a_thousand_slaves_are_drawn_in_a_moment() -> None:
    frame = slaves(1000)
    frame["cpus_used"] = [4 * (number % 97) / 97 for number in range(1000)]
    began = time.process_time()  # what others do on this machine does not count
    picture = Usage(frame).svg()
    assert time.process_time() - began < 5
    assert len(picture) < 100_000


def test_what_real_mesos_said_is_drawn() -> None:
    frame = slaves_table(payload("three-masters/leader_state.json"))
    picture = ET.fromstring(Usage(frame).svg())
    assert len(picture.findall(f"{SVG}g")) == 4 * int(frame["active"].sum())


def test_a_name_cannot_break_out_of_the_picture() -> None:
    frame = slaves(1).assign(host="<script>&")
    texts = [element.text for element in ET.fromstring(Usage(frame).svg()).findall(f"{SVG}text")]
    assert "<script>&" in texts


def test_lost_slaves_are_left_out_and_no_slaves_are_said() -> None:
    frame = slaves(2)
    frame.loc[0, "active"] = False
    assert "node0000" not in Usage(frame).svg()
    assert "no active slaves" in Usage(slaves(0)).svg()


def test_a_terminal_shows_it_too() -> None:
    console = Console(width=160)
    with console.capture() as text:
        console.print(Usage(slaves(2)))
    assert "1 of 4 CPUs" in text.get()
    assert "2 of 8 CPUs" in text.get()
