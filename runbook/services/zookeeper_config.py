"""zoo.cfg as ZooKeeper reads it: settings, members, observers, groups, and which of the settings are foreign.

zoo.cfg is a Java properties file, and `QuorumPeerConfig` trims each key and value: CRLF, trailing blanks, tabs,
`key = value`, `key: value`, escapes and continued lines mean the same. A byte order mark does not: it becomes part of
the first key. From 3.5 on the members may be in a file of their own, which `dynamicConfigFile` names and ZooKeeper
itself writes.

Sources: java.util.Properties.load (Java SE API); QuorumPeerConfig.parseProperties, QuorumPeer.QuorumServer,
QuorumHierarchical and ConfCommand of 3.4.6 and 3.8; zkServer.sh of 3.4.6.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property

BOM = b"\xef\xbb\xbf".decode("latin-1")
"""A byte order mark of UTF-8, as properties files are read: in Latin-1."""

OWN = ("tickTime", "initLimit", "syncLimit", "dataDir", "clientPort")
"""The settings of zoo.cfg that the parameters give, beside the members."""

_BLANKS = "".join(map(chr, range(33)))
"""What Java's String.trim() removes."""

_DEFAULTS: Mapping[str, str] = {
    "maxClientCnxns": "60",
    "electionAlg": "3",
    "quorumListenOnAllIPs": "false",
    "syncEnabled": "true",
    "autopurge.snapRetainCount": "3",
    "autopurge.purgeInterval": "0",
    "standaloneEnabled": "true",
    "reconfigEnabled": "false",
    "localSessionsEnabled": "false",
    "localSessionsUpgradingEnabled": "false",
    "sslQuorum": "false",
    "portUnification": "false",
    "clientPortListenBacklog": "-1",
    "observerMasterPort": "0",
}
"""Settings that say what ZooKeeper does without them (QuorumPeerConfig of 3.4.6 and 3.8)."""

_HARMLESS_FLAGS = (
    *("log.dir", "log.file", "root.logger", "console.threshold", "log.threshold", "tracelog.*"),
    *("4lw.commands.whitelist", "admin.*"),
)
"""Java properties `zookeeper.…` that zkServer.sh itself sets, or that only open or close ways to ask."""


# the file


@dataclass(frozen=True)
class Setting:
    """One setting, and the lines that it takes: from number `first`, before number `end` (from 0)."""

    key: str
    value: str
    first: int
    end: int


def natural_lines(text: str) -> list[str]:
    """The lines of a properties file with their ends: LF, CR or CRLF."""
    return re.findall(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+", text)


def entries(text: str) -> Iterator[Setting]:
    """The settings of a properties file (in Latin-1), trimmed as ZooKeeper trims them, in order."""
    lines = natural_lines(text)
    number = 0
    while number < len(lines):
        first, line = number, lines[number].rstrip("\r\n").lstrip(" \t\f")
        number += 1
        if not line or line[0] in "#!":
            continue
        while re.search(r"(?<!\\)(?:\\\\)*\\$", line):  # continued, by an odd number of backslashes
            line = line[:-1]
            if number < len(lines):
                line += lines[number].rstrip("\r\n").lstrip(" \t\f")
                number += 1
        match = re.match(r"((?:\\.|[^\\=: \t\f])*)[ \t\f]*[=:]?[ \t\f]*(.*)", line, re.DOTALL)
        assert match is not None  # it matches anything
        yield Setting(_unescaped(match[1]).strip(_BLANKS), _unescaped(match[2]).strip(_BLANKS), first, number)


def _unescaped(text: str) -> str:
    def meant(escape: re.Match[str]) -> str:
        if escape[1]:
            return chr(int(escape[1], 16))
        return {"t": "\t", "n": "\n", "r": "\r", "f": "\f"}.get(escape[2], escape[2])

    return re.sub(r"\\(?:u([0-9a-fA-F]{4})|(.))", meant, text, flags=re.DOTALL)


@dataclass(frozen=True)
class ServerLine:
    """A member as `server.N` gives it: `host:port:port[:type][;[host:]port]`; from 3.6 on several hosts, with `|`."""

    addresses: tuple[tuple[str, int, int | None], ...]
    """Host, quorum port, election port."""
    observer: bool = False
    client_port: int | None = None

    @classmethod
    def parse(cls, value: str) -> ServerLine | None:
        """The member that a value describes; None where ZooKeeper would refuse it."""
        hosts, _, client = value.partition(";")
        matched = [
            re.fullmatch(r"(\[[^\]]+\]|[^:\[\]]+):(\d+)(?::(\d+))?(?::(participant|observer))?", one.strip(), re.I)
            for one in hosts.split("|")
        ]
        port = re.fullmatch(r"(?:.*:)?(\d+)", client.strip())
        found = [match for match in matched if match]
        if len(found) < len(matched) or (client.strip() and not port):
            return None
        addresses = tuple((match[1].lower(), int(match[2]), int(match[3]) if match[3] else None) for match in found)
        observer = any((match[4] or "").lower() == "observer" for match in found)
        return cls(addresses, observer, int(port[1]) if port else None)

    def means(self, wanted: ServerLine, client_port: int) -> bool:
        """Whether it is the `wanted` member, however it is written."""
        return (
            set(wanted.addresses) <= set(self.addresses)
            and self.observer == wanted.observer
            and self.client_port in (None, client_port)
        )


@dataclass(frozen=True)
class ZooCfg:
    """zoo.cfg, or the file that it calls its dynamic one. Of a setting that is given twice, the last one counts."""

    text: str

    @classmethod
    def parse(cls, content: bytes) -> ZooCfg:
        """From a file's content."""
        return cls(content.decode("latin-1"))

    @cached_property
    def entries(self) -> tuple[Setting, ...]:
        """All settings, in order."""
        return tuple(entries(self.text))

    @cached_property
    def values(self) -> dict[str, str]:
        """The settings by name."""
        return {entry.key: entry.value for entry in self.entries}

    @property
    def servers(self) -> dict[str, str]:
        """The lines `server.N`, by name."""
        return {key: value for key, value in self.values.items() if re.fullmatch(r"server\.\d+", key)}

    @property
    def groups(self) -> dict[str, str]:
        """The lines of a hierarchical quorum: `group.N` and `weight.N`."""
        return {key: value for key, value in self.values.items() if re.match(r"(group|weight)\.\d+$", key)}

    def joined(self, dynamic: ZooCfg | None) -> ZooCfg:
        """It together with its dynamic file, as one."""
        return self if dynamic is None else ZooCfg(f"{self.text}\n{dynamic.text}")

    @property
    def dynamic_file(self) -> str | None:
        """Where the members are, if they are in a file of their own."""
        return self.values.get("dynamicConfigFile")


SETTING = r"""
setting() {  # NAME FILE: its value; of a line that is continued, what stands in the first one
  tr '\r' '\n' < "$2" | sed -n -E "s/^[[:blank:]]*$1([[:blank:]]*[=:][[:blank:]]*|[[:blank:]]+)//p" | tail -n 1 |
    sed -E 's/[[:space:]]+$//; s/\\(.)/\1/g'
}
absolute() {
  if [ "${1#/}" != "$1" ]; then printf '%s\n' "$1"; return; fi
  printf '%s\n' "$(readlink "/proc/$(cat "$pids" 2>/dev/null)/cwd" || pwd)/$1"
}
resolve() { ( cd -P -- "$(absolute "$1")" && pwd -P ) 2>/dev/null; }
"""
"""Defines, for scripts on hosts, `setting NAME FILE`, and `absolute PATH` and `resolve FOLDER` (without links), where a
relative path starts where the ZooKeeper was started that the pid file `$pids` names, else here."""


# members


def misfits(have: Mapping[str, str], wanted: Mapping[str, str], client_port: int) -> dict[str, tuple[str, str]]:
    """The members that are not as they should be: by name, what is there and what should be ('' for none).

    An observer that is not wanted is left alone: it does not count for the majority.
    """
    found = {}
    for key in (*wanted, *(key for key in have if key not in wanted)):
        there = ServerLine.parse(have.get(key, ""))
        if key not in wanted:
            if there is None or not there.observer:
                found[key] = (have[key], "")
        elif there is None or not there.means(_server(wanted[key]), client_port):
            found[key] = (have.get(key, ""), wanted[key])
    return found


def observers(have: Mapping[str, str], wanted: Mapping[str, str]) -> dict[str, str]:
    """The observers among the members that are not of the site."""
    others = {key: value for key, value in have.items() if key not in wanted}
    return {key: value for key, value in others.items() if (server := ServerLine.parse(value)) and server.observer}


def _server(value: str) -> ServerLine:
    server = ServerLine.parse(value)
    assert server is not None, value  # made from the parameters
    return server


@dataclass(frozen=True)
class VotingRule:
    """Which members make a quorum, by number: more than half of the voters; of a hierarchical quorum, more than half of
    the groups, each by more than half of its weight (QuorumHierarchical.containsQuorum)."""

    voters: frozenset[int]
    groups: tuple[frozenset[int], ...] = ()
    weights: Mapping[int, int] | None = None

    @classmethod
    def of(cls, voters: Iterable[int], config: ZooCfg | None = None) -> VotingRule:
        """The quorum of these voters, with the groups and weights of a zoo.cfg."""
        groups, weights = [], {}
        for key, value in (config.groups if config else {}).items():
            kind, _, number = key.partition(".")
            if kind == "group":
                groups.append(frozenset(int(one) for one in value.split(":") if one.strip().isdecimal()))
            elif value.isdecimal():
                weights[int(number)] = int(value)
        return cls(frozenset(voters), tuple(groups), weights)

    def holds(self, members: Collection[int]) -> bool:
        """Whether these members make a quorum."""
        there = self.voters.intersection(members)
        if not self.groups:
            return len(there) > len(self.voters) // 2
        weights = self.weights or {}

        def weight(numbers: Iterable[int]) -> int:
            return sum(weights.get(number, 1) for number in numbers)

        counted = [group for group in self.groups if weight(group)]
        won = [group for group in counted if 2 * weight(group & there) > weight(group)]
        return 2 * len(won) > len(counted)


# what is foreign, and what is in force


def foreign(config: ZooCfg, allowed: Collection[str], wanted: Mapping[str, str]) -> dict[str, str]:
    """The settings of zoo.cfg that are neither given by the parameters, nor ZooKeeper's defaults, nor `allowed`.

    `allowed` holds names, with `*` and `?`; `wanted` the members of the site.
    """
    values = config.values
    tick = int(values.get("tickTime", "0")) if values.get("tickTime", "").isdecimal() else 0
    sessions = {"minSessionTimeout": (-1, 2 * tick), "maxSessionTimeout": (-1, 20 * tick)}

    def plain(key: str, value: str) -> bool:
        if key in OWN or key in wanted or key in ("dynamicConfigFile", "peerType"):
            return True
        if key == "dataLogDir":
            return same_path(value, values.get("dataDir", ""))
        if key in sessions:
            return value in map(str, sessions[key])
        return _DEFAULTS.get(key, "").lower() == value.lower() if key in _DEFAULTS else False

    return {key: value for key, value in values.items() if not plain(key, value) and not _allowed(key, allowed)}


def foreign_flags(command: str, allowed: Collection[str]) -> dict[str, str]:
    """The same of a process's Java properties: `-Dzookeeper.NAME=…` and `-Djute.maxbuffer=…`, by NAME."""
    given = re.findall(r"(?:^|\s)-D(?:zookeeper\.|(?=jute\.))([^\s=]+)(?:=(\S*))?", command)
    return {name: value for name, value in given if not _allowed(name, (*_HARMLESS_FLAGS, *allowed))}


def _allowed(key: str, allowed: Iterable[str]) -> bool:
    return any(fnmatchcase(key, pattern) for pattern in allowed)


def same_path(one: str, other: str) -> bool:
    """Whether two paths are written alike but for slashes, `.` and `..`."""
    return bool(one) and posixpath.normpath(one) == posixpath.normpath(other)


def in_force(conf: str, config: ZooCfg, myid: int) -> dict[str, tuple[str, str]]:
    """What differs between the settings that a ZooKeeper runs with and its zoo.cfg: by name, running and in the file.

    `conf` is its answer to the four-letter word `conf`; only what that tells is compared. One that runs by itself does
    not tell the settings of an ensemble.
    """
    pairs = (line.split("=", 1) for line in conf.splitlines() if "=" in line)
    running = {key.strip(): value.strip() for key, value in pairs}
    values = config.values
    tick = values.get("tickTime", "3000")
    limits = {"minSessionTimeout": 2, "maxSessionTimeout": 20}
    filed = {key: values[key] for key in (*OWN, "maxClientCnxns", *limits) if key in values}
    filed.setdefault("maxClientCnxns", _DEFAULTS["maxClientCnxns"])
    if tick.isdecimal():
        filed.setdefault("tickTime", tick)
        for key, ticks in limits.items():
            if filed.get(key, "-1") == "-1":
                filed[key] = str(ticks * int(tick))
    differing = {}
    for key, value in filed.items():
        if key not in running:
            continue
        if key == "dataDir":
            there = re.sub(r"/version-2$", "", running[key])
            if value.startswith("/") and there.startswith("/") and not same_path(there, value):
                differing[key] = (there, value)
        elif running[key] != value:
            differing[key] = (running[key], value)
    if len(config.servers) > 1 and "serverId" in running:
        if running["serverId"] != str(myid):
            differing["myid"] = (running["serverId"], str(myid))
        if "membership:" in conf:  # from 3.5 on
            members = {key: value for key, value in running.items() if re.fullmatch(r"server\.\d+", key)}
            for key in sorted(members.keys() | config.servers.keys()):
                one, other = ServerLine.parse(members.get(key, "")), ServerLine.parse(config.servers.get(key, ""))
                if one is None or other is None or (one.addresses, one.observer) != (other.addresses, other.observer):
                    differing[key] = (members.get(key, "none"), config.servers.get(key, "none"))
    return differing
