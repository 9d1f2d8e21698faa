"""The benchmark of the catalog finds with every client what is there."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from benchmarks import registry_catalog


def test_all_clients_find_the_same(
    binary: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", f"{binary.parent}:{os.environ['PATH']}")
    monkeypatch.setattr(registry_catalog, "PAGE", 50)
    registry_catalog.main(["120", "--no-save"], standalone_mode=False)
    shown = capsys.readouterr().out
    assert "120 repositories, 2 tags each" in shown
    by_curl = ("curl, the same pages", "curl, 8 at once") if shutil.which("curl") else ()
    for by in ("runbook", "requests, pages of 100", *by_curl):
        assert by in shown
