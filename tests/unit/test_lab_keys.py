"""The keys of a lab, read back by paramiko: what the runbook will connect with."""

from __future__ import annotations

import stat
from pathlib import Path

import paramiko
import pytest

from runbook.lab import keys
from runbook.lab.folder import Folder


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "lab")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_key_is_made_once_and_readable_by_its_owner_only(folder: Folder) -> None:
    made = keys.private_key(folder.user_key)

    assert keys.private_key(folder.user_key) == made
    assert mode(folder.user_key) == 0o600
    assert paramiko.Ed25519Key.from_private_key_file(str(folder.user_key)).can_sign()


def test_the_public_line_is_the_one_that_belongs_to_the_private_key(folder: Folder) -> None:
    line = keys.public_key(keys.private_key(folder.user_key))

    key = paramiko.Ed25519Key.from_private_key_file(str(folder.user_key))
    assert line == f"ssh-ed25519 {key.get_base64()}"


def test_known_hosts_knows_each_node_by_name_and_by_address(folder: Folder) -> None:
    keys.write_known_hosts(folder, {"node1": "198.51.100.11", "node2": "198.51.100.12"})

    known = paramiko.HostKeys(str(folder.known_hosts))
    for name, address in (("node1", "198.51.100.11"), ("node2", "198.51.100.12")):
        expected = keys.public_key(keys.host_key(folder, name)).split()[1]
        for host in (name, address):
            entry = known.lookup(host)
            assert entry is not None
            assert entry["ssh-ed25519"].get_base64() == expected
    assert keys.host_key(folder, "node1") != keys.host_key(folder, "node2")


def test_a_password_stays_the_same_and_is_private(folder: Folder) -> None:
    password = keys.operator_password(folder)

    assert len(password) >= 24
    assert keys.operator_password(folder) == password
    assert mode(folder.operator_password) == 0o600
    assert keys.password(folder.mysql_password) != keys.password(folder.mysql_root_password)
    assert mode(folder.mysql_password) == mode(folder.mysql_root_password) == 0o600


def test_writing_replaces_a_file_as_a_whole_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    target = tmp_path / "known_hosts"
    target.write_text("a much longer line than the new one\n")
    inode = target.stat().st_ino

    keys.write(target, b"new\n", mode=0o644)

    assert target.read_text() == "new\n"
    assert target.stat().st_ino != inode, "a reader that has the file open must keep the old content"
    assert list(tmp_path.iterdir()) == [target]


def test_removing_takes_all_of_them(folder: Folder) -> None:
    keys.private_key(folder.user_key)
    keys.operator_password(folder)
    keys.password(folder.mysql_password)
    keys.password(folder.mysql_root_password)
    keys.write_known_hosts(folder, {"node1": "198.51.100.11"})

    keys.remove(folder)

    assert list(folder.path.iterdir()) == []
