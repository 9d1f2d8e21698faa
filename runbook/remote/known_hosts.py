"""The host keys of a known_hosts file, read as OpenSSH reads it.

Source: sshd(8), "SSH_KNOWN_HOSTS FILE FORMAT"; OpenSSH's hostfile.c and match.c. paramiko's HostKeys ignores markers,
patterns and all keys of a type but one, and compares every line with every other: 200 hosts would wait longer for
that than for their handshakes.
"""

from __future__ import annotations

import base64
import fnmatch
import hmac
import re
import threading
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import paramiko

from runbook.paths import read_regular

LARGEST = 64 << 20
"""Bytes of a known_hosts file: some 100,000 hosts."""
_reading = threading.Lock()  # many connections need the file at once: the first reads it for all
_CERT_AUTHORITY, _REVOKED = "@cert-authority", "@revoked"


@dataclass(frozen=True)
class _Line:
    number: int
    marker: str
    names: str
    kind: str
    data: str

    def matches(self, name: str) -> bool:
        """Whether this line is for `name` (lower case): a pattern matches, and no negated one does."""
        if self.names.startswith("|"):
            return _is_hash(self.names, name)
        matched = False
        for pattern in self.names.lower().split(","):
            negated = pattern.startswith("!")
            if _expression(pattern.removeprefix("!")).fullmatch(name):
                if negated:
                    return False
                matched = True
        return matched

    def key(self) -> paramiko.PKey | None:
        """The key; none where it is of a type that paramiko does not have. Raises ValueError on a damaged one."""
        try:
            key: paramiko.PKey = paramiko.PKey.from_type_string(self.kind, base64.b64decode(self.data))
        except paramiko.pkey.UnknownKeyType:
            return None
        except (ValueError, OverflowError, AssertionError, paramiko.SSHException) as error:
            raise ValueError(f"line {self.number}: {error}") from error
        if key.get_name() != self.kind:
            raise ValueError(f"line {self.number}: a key of type {key.get_name()} named {self.kind}")
        return key


@lru_cache(maxsize=1024)
def _expression(pattern: str) -> re.Pattern[str]:
    """A pattern of ssh_config(5): `*` and `?` alone are special, so that `[host]:port` stands for itself."""
    return re.compile(fnmatch.translate(pattern.replace("[", "[[]")))


def _is_hash(hashed: str, name: str) -> bool:
    """Whether `hashed` (`|1|salt|hash`, as HashKnownHosts of ssh_config(5) makes it) stands for `name`."""
    match hashed.split("|"):
        case ["", "1", salt, digest]:
            try:
                return hmac.digest(base64.b64decode(salt), name.encode(), "sha1") == base64.b64decode(digest)
            except ValueError:
                return False
    return False


@dataclass
class KnownKeys:
    """What a known_hosts file holds for one host.

    `keys` are trusted, unless `revoked` has them too. `authorities` are the numbers of the lines that trust
    certificates of a CA, which this program cannot check; `damaged` says of each line that cannot be read why.
    With `elsewhere`, the keys are known for the bare address and not for the port: another key is no changed one.
    """

    elsewhere: bool = False
    keys: list[paramiko.PKey] = field(default_factory=list)
    revoked: list[paramiko.PKey] = field(default_factory=list)
    authorities: list[int] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)

    @property
    def types(self) -> set[str]:
        """The types of the trusted keys."""
        return {key.get_name() for key in self.keys}


class KnownHosts:
    """The lines of a known_hosts file by the names that they are for."""

    def __init__(self, text: str) -> None:
        self._named: dict[str, list[_Line]] = defaultdict(list)
        self._others: list[_Line] = []  # patterns and hashed names, each of which is asked
        for line in _lines(text):
            if set(line.names) & set("*?!|"):
                self._others.append(line)
                continue
            for name in line.names.lower().split(","):
                self._named[name].append(line)

    @classmethod
    def read(cls, path: Path) -> KnownHosts:
        """The file at `path`, which is read once, and again when it has changed. Raises OSError."""
        with _reading:
            return _read(path, path.stat().st_mtime_ns)

    def known(self, address: str, port: int) -> KnownKeys:
        """The keys of a host.

        On a port of its own, its name is `[address]:port`; a key known for the bare address counts as well, but does
        not make another key a changed one (check_host_key in OpenSSH's sshconnect.c).
        """
        bare = self._known(address.lower())
        if port == paramiko.config.SSH_PORT:
            return bare
        known = self._known(f"[{address.lower()}]:{port}")
        if known.keys:
            return known
        return KnownKeys(
            True,
            bare.keys,
            bare.revoked + known.revoked,
            list(dict.fromkeys(bare.authorities + known.authorities)),
            list(dict.fromkeys(bare.damaged + known.damaged)),
        )

    def _known(self, name: str) -> KnownKeys:
        known = KnownKeys()
        for line in [*self._named.get(name, ()), *(line for line in self._others if line.matches(name))]:
            if line.marker == _CERT_AUTHORITY:
                known.authorities.append(line.number)
                continue
            try:
                key = line.key()
            except ValueError as error:
                known.damaged.append(str(error))
                continue
            if key is not None:
                (known.revoked if line.marker else known.keys).append(key)
        return known


def _lines(text: str) -> Iterator[_Line]:
    """The lines that hold a key. Comments, empty lines, unknown markers and keys of SSH 1 are passed over.

    OpenSSH also passes over `@revoked` with a tab behind it where the line holds a blank further on; here it counts.
    """
    for number, line in enumerate(text.split("\n"), 1):
        fields = re.split(r"[ \t\r]+", line.strip(" \t\r"))
        if fields[0].startswith("#"):
            continue
        marker = fields.pop(0) if fields[0].startswith("@") else ""
        if marker not in ("", _CERT_AUTHORITY, _REVOKED) or len(fields) < 3 or fields[1].isdecimal():
            continue
        yield _Line(number, marker, *fields[:3])


@lru_cache(maxsize=64)
def _read(path: Path, mtime_ns: int) -> KnownHosts:
    return KnownHosts(read_regular(path, LARGEST).decode("utf-8", errors="surrogateescape"))
