"""Where a rollout keeps its sockets."""

from __future__ import annotations

import os
import socket
import tempfile
from pathlib import Path

import pytest

from runbook.errors import RecordError
from runbook.rollout import files


def test_sockets_have_room_wherever_tmpdir_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    short = tempfile.gettempdir()
    assert files.short_temporary_directory() == short
    deep = tmp_path / ("d" * 100)
    deep.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(deep))

    with (
        tempfile.TemporaryDirectory(prefix="runbook-", dir=files.short_temporary_directory()) as folder,
        socket.socket(socket.AF_UNIX) as longest,
    ):
        longest.bind(f"{folder}/kernel-ipc-65535")  # jupyter_client's name beside kernel.json


def test_where_no_directory_is_short_enough_that_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / ("d" * 100)))
    monkeypatch.setattr(os, "access", lambda *arguments: False)

    with pytest.raises(RecordError, match=r"no directory for Unix sockets: .*shorter than 59 bytes\n.*set TMPDIR"):
        files.short_temporary_directory()
