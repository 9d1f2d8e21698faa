"""Passwords and SSH keys of a lab: the user's, and each node's host key, so that known_hosts is right at once."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from runbook.lab.folder import Folder


def write(path: Path, data: bytes, *, mode: int = 0o600) -> None:
    """Write `path` so that it is there as a whole or not at all, with `mode` from the first byte on."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
    fresh.replace(path)


def private_key(path: Path) -> bytes:
    """The Ed25519 key in `path`, in OpenSSH's format; made where there is none."""
    if not path.exists():
        write(
            path,
            Ed25519PrivateKey.generate().private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
            ),
        )
    return path.read_bytes()


def public_key(private: bytes) -> str:
    """The line `ssh-ed25519 AAAA…` of a private key."""
    key = serialization.load_ssh_private_key(private, password=None)
    public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    return public.decode("ascii")


def host_key(folder: Folder, node: str) -> bytes:
    """The private host key of a node; made where there is none."""
    return private_key(folder.keys / f"{node}_host_ed25519")


def password(path: Path) -> str:
    """The password in `path`, which only its owner can read; made where there is none."""
    if not path.exists():
        write(path, secrets.token_urlsafe(18).encode())
    return path.read_text()


def operator_password(folder: Folder) -> str:
    """The password with which the nodes' user `operator` may sudo."""
    return password(folder.operator_password)


def write_known_hosts(folder: Folder, nodes: Mapping[str, str]) -> None:
    """Write known_hosts for `nodes` (name -> address) from the keys that they were given."""
    lines = [f"{name},{address} {public_key(host_key(folder, name))}\n" for name, address in nodes.items()]
    write(folder.known_hosts, "".join(lines).encode(), mode=0o644)


def remove(folder: Folder) -> None:
    """Remove all keys and passwords of the lab."""
    shutil.rmtree(folder.keys, ignore_errors=True)
    folder.known_hosts.unlink(missing_ok=True)
    for path in (folder.operator_password, folder.mysql_password, folder.mysql_root_password):
        path.unlink(missing_ok=True)
