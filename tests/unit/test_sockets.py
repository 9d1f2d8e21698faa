"""Where Unix sockets lie when TMPDIR is a long path, such as a batch system gives to each job."""

from __future__ import annotations

import os
import socket
import tempfile
from pathlib import Path

import pytest

from runbook import sockets
from runbook.errors import RunbookError


@pytest.fixture
def long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A TMPDIR in which no socket has room."""
    folder = tmp_path / ("a-job-of-a-batch-system-" * 4)
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    return folder


def bind(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(path))


@pytest.mark.parametrize("place", ["TMPDIR", "XDG_RUNTIME_DIR", "/tmp"])
def test_a_socket_has_room_in_the_first_folder_that_is_short(
    long: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as short:
        if place == "TMPDIR":
            monkeypatch.setattr(tempfile, "tempdir", short)
        if place == "XDG_RUNTIME_DIR":
            monkeypatch.setenv("XDG_RUNTIME_DIR", short)
        with sockets.folder("kernel-ipc-99") as folder:
            assert Path(folder).parent == Path("/tmp" if place == "/tmp" else short)
            assert Path(folder).stat().st_mode & 0o777 == 0o700
            bind(Path(folder, "kernel-ipc-99"))
        assert not Path(folder).exists()


def test_the_limit_is_the_kernels(long: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as short:
        monkeypatch.setattr(tempfile, "tempdir", short)
        room = sockets.LIMIT - len(f"{short}/")
        assert sockets.root("é" * (room // 2)) == Path(short)
        bind(Path(short, "s" * room))
        with pytest.raises(OSError, match="too long"):
            bind(Path(short, "s" * (room + 1)))
        with pytest.raises(RunbookError, match="limited to 107 bytes") as refused:
            sockets.root("s" * sockets.LIMIT)
        assert "TMPDIR" in str(refused.value.remedy)


def test_a_folder_that_is_not_there_is_passed_over(long: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for value in ("/nowhere", "relative", ""):
        monkeypatch.setenv("XDG_RUNTIME_DIR", value)
        assert sockets.root("s" * 40) == Path("/tmp")
    assert os.access("/tmp", os.W_OK)
