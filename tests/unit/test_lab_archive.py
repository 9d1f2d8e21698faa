"""Files on their way into an image: the same inputs give the same bytes, wherever and however they were checked out."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from runbook.lab.archive import Entry, digest, pack, tree


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "start").write_text("#!/bin/sh\nexit 0\n")
    (tmp_path / "zoo.cfg").write_text("tickTime=2000\n")
    return tmp_path


def test_modes_come_from_what_a_file_is_and_not_from_the_umask_of_the_checkout(folder: Path) -> None:
    before = pack(tree(folder))
    (folder / "bin").chmod(0o700)
    (folder / "bin" / "start").chmod(0o600)
    (folder / "zoo.cfg").chmod(0o777)

    assert pack(tree(folder)) == before
    assert {name: entry.mode for name, entry in tree(folder).items()} == {
        "bin": 0o755,
        "bin/start": 0o755,
        "zoo.cfg": 0o644,
    }


def test_an_archive_holds_names_content_modes_and_owners() -> None:
    archive = pack({".ssh": Entry(None, 0o700, 1000), ".ssh/authorized_keys": Entry(b"ssh-ed25519 A", 0o600, 1000)})

    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        folder, file = tar.getmembers()
        assert (folder.name, folder.isdir(), folder.mode, folder.uid) == (".ssh", True, 0o700, 1000)
        assert (file.name, file.mode, file.uid, file.gid) == (".ssh/authorized_keys", 0o600, 1000, 1000)
        content = tar.extractfile(file)
        assert content is not None
        assert content.read() == b"ssh-ed25519 A"


def test_a_change_of_content_or_of_a_name_changes_the_archive(folder: Path) -> None:
    before = pack(tree(folder))
    (folder / "zoo.cfg").write_text("tickTime=2001\n")
    changed = pack(tree(folder))
    (folder / "zoo.cfg").rename(folder / "zoo2.cfg")
    renamed = pack(tree(folder))

    assert len({before, changed, renamed}) == 3


def test_a_digest_tells_parts_from_their_concatenation() -> None:
    assert digest([b"ab", b"c"]) != digest([b"a", b"bc"])
    assert digest([b"ab", b"c"]) == digest(iter([b"ab", b"c"]))


def test_an_archive_holds_symbolic_links() -> None:
    with tarfile.open(fileobj=io.BytesIO(pack({"usr/bin/sh": Entry(None, 0o777, link="bash")}))) as tar:
        (link,) = tar.getmembers()
        assert (link.issym(), link.linkname) == (True, "bash")
