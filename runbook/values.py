"""The single values of a parameter file: the type of each, what it accepts, and how a refusal reads.

Text that reaches a host is held to a pattern wherever it could end up beside a command's options (a package's name must
not begin with `-`). Control characters are refused for all texts at once, where the file is read (see located.py).
"""

from __future__ import annotations

import ipaddress
import itertools
import os
import posixpath
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field, GetCoreSchemaHandler, ValidationError, ValidationInfo
from pydantic_core import CoreSchema, InitErrorDetails, PydanticCustomError, core_schema

from runbook.located import Location


@dataclass(frozen=True)
class Reading:
    """The context of a validation: the folder that local paths are relative to, and whether refused values are let
    through as `Refused` so that the rules across fields can be judged (see site.py)."""

    folder: Path
    tolerant: bool = False


@dataclass(frozen=True)
class Finding:
    """A refusal before it has a file and a line: what is wrong, the remedy, and where, relative to the model."""

    message: str
    remedy: str
    location: Location = ()

    def as_error(self) -> PydanticCustomError:
        """The finding as pydantic carries it."""
        return PydanticCustomError("refused", "{message}", {"message": self.message, "remedy": self.remedy})


def refuse(findings: Iterable[Finding]) -> None:
    """Raise pydantic's ValidationError with all findings at once; nothing where there are none."""
    errors = [InitErrorDetails(type=finding.as_error(), loc=finding.location, input=None) for finding in findings]
    if errors:
        raise ValidationError.from_exception_data("parameters", errors)


def _matching(pattern: str, what: str, remedy: str) -> AfterValidator:
    def check(text: str) -> str:
        if not re.fullmatch(pattern, text, re.ASCII):
            raise Finding(f"{text!r} is not {what}", remedy).as_error()
        return text

    return AfterValidator(check)


def _port(number: int) -> int:
    if not 1 <= number <= 65535:
        raise Finding(f"{shortened(number)} is not a port", "write a number from 1 to 65535").as_error()
    return number


def shortened(value: object, length: int = 60) -> str:
    """A value as text, cut where it is longer than `length` characters."""
    text = str(value)
    return text if len(text) <= length else f"{text[: length - 1]}…"


def _address(text: str) -> str:
    try:
        return str(ipaddress.IPv4Address(text))
    except ipaddress.AddressValueError:
        pass
    label = r"(?!-)[A-Za-z0-9-]{1,63}(?<!-)"
    # A name whose last label is a number can only be a mistyped address (RFC 3696, section 2).
    if len(text) > 253 or not re.fullmatch(rf"({label}\.)*(?!\d+$){label}", text):
        raise Finding(
            f"{text!r} is neither an IPv4 address nor a host name",
            "write four numbers from 0 to 255 (10.142.233.154), or a name of letters, digits, hyphens and dots",
        ).as_error()
    return text.lower()


def _host_path(text: str) -> str:
    if not text.startswith("/"):
        raise Finding(f"{text!r} is not an absolute path", "begin it with /").as_error()
    if text != (normal := "/" + posixpath.normpath(text).lstrip("/")) or text == "/":
        raise Finding(
            f"{text!r} is not a plain path", f"write {normal!r}" if normal != "/" else "name a folder below /"
        ).as_error()
    if strange := next((char for char in text if not re.match(r"[\w./+@~=-]", char, re.ASCII)), None):
        raise Finding(
            f"{text!r} contains {strange!r}, which means something else to a program that gets the path (Docker's -v "
            "ends a path at a colon; zoo.cfg, rsyslog and logrotate have a quoting of their own)",
            "name a path of ASCII letters, digits and _ . / + @ ~ = -",
        ).as_error()
    if len(text) > LONGEST_PATH or any(len(part) > LONGEST_NAME for part in text.split("/")):
        raise Finding(
            f"{shortened(text)!r} is longer than Linux allows", f"keep it below {LONGEST_PATH} characters"
        ).as_error()
    return text


def _lasting_path(text: str) -> str:
    if any(text == scratch or text.startswith(f"{scratch}/") for scratch in ("/tmp", "/var/tmp")):
        raise Finding(
            f"{text!r} is cleared by systemd-tmpfiles once it has not been used for some days",
            "choose a folder that stays, for instance below /var/lib",
        ).as_error()
    return text


def _local_path(path: Path, info: ValidationInfo) -> Path:
    if not path.name:
        raise Finding("names no file", "write a file's path, relative to this file or absolute").as_error()
    folder = info.context.folder if isinstance(info.context, Reading) else Path()
    try:
        return Path(os.path.abspath(folder / path.expanduser()))
    except RuntimeError:
        raise Finding(f"{path.parts[0]} is nobody's home on this machine", "write the folder out").as_error() from None


def _image_tag(text: str) -> str:
    component = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
    domain = r"(?:[A-Za-z0-9.-]+:\d+/|[A-Za-z0-9-]+\.[A-Za-z0-9.-]+/)?"
    parts = re.fullmatch(rf"{domain}{component}(?:/{component})*(?::(\w[\w.-]{{0,127}}))?", text, re.ASCII)
    if parts is None:
        raise Finding(f"{text!r} is not the name of an image", "write NAME:TAG, for instance registry:2.3.0").as_error()
    if parts[1] in (None, "latest"):
        raise Finding(
            f"{text!r} means whichever image was the latest when it was pulled",
            "name the version: registry:latest, for one, was another program until July 2016",
        ).as_error()
    return text


LONGEST_PATH, LONGEST_NAME = 4000, 255
"""Characters of a path (Linux' PATH_MAX is 4096, and a file's name is added) and of a name in it (NAME_MAX)."""

Slug = Annotated[
    str,
    _matching(r"(?=.{1,63}\Z)[a-z0-9]+([-_][a-z0-9]+)*", "a plain name", "write a-z, 0-9, and - or _ between them"),
]
"""A name that is used in file names, tables and keys."""

AppId = Annotated[
    str,
    _matching(
        r"/?{0}([./]{0})*".format("[a-z0-9]([a-z0-9-]*[a-z0-9])?"),
        "the id of a Marathon app",
        "write a-z, 0-9 and - in it, with / or . between its parts",
    ),
]
"""A Marathon app's id, for instance `centos-marathon` or `group/app`."""

Port = Annotated[int, Field(strict=True), AfterValidator(_port)]
"""A TCP port."""

Address = Annotated[str, AfterValidator(_address)]
"""An IPv4 address, or a host name in lower case. (Mesos 0.28 speaks no IPv6.)"""

User = Annotated[
    str,
    _matching(
        r"[^-\s:\\\"'][^\s:\\\"']{0,254}",
        "a user's name",
        "write a name without blanks, colons, quotes and backslashes, not beginning with -",
    ),
]
"""A login name; without a colon, which ends it in passwd(5), htpasswd and HTTP's basic authentication."""

HostPath = Annotated[str, AfterValidator(_host_path)]
"""An absolute POSIX path on a host, in its plain form."""

LastingPath = Annotated[str, AfterValidator(_host_path), AfterValidator(_lasting_path)]
"""The path of a folder on a host whose content must last: not below /tmp."""

LocalPath = Annotated[Path, AfterValidator(_local_path)]
"""A path on this machine, made absolute; in a parameter file it is relative to that file, and `~` is understood."""

SettingName = Annotated[
    str, _matching(r"[A-Za-z0-9_.*?-]+", "the name of a setting", "write it as the file has it; * and ? are understood")
]
"""A setting's name, or a pattern of names."""

ZnodePath = Annotated[
    str, _matching(r"(/[A-Za-z0-9][A-Za-z0-9._-]*)+", "the path of a znode", "write /NAME, for instance /mesos")
]
"""An absolute path in ZooKeeper."""

Package = Annotated[
    str, _matching(r"[A-Za-z0-9][A-Za-z0-9._+-]*", "the name of an RPM package", "write it as `rpm -q` takes it")
]
Version = Annotated[
    str,
    _matching(r"[A-Za-z0-9][A-Za-z0-9._+~:-]*", "a version", "write it as `rpm -q` or the program itself prints it"),
]
Sha256 = Annotated[
    str, _matching(r"[0-9a-f]{64}", "a SHA-256", "write the 64 digits that `sha256sum FILE` prints, in lower case")
]
ImageTag = Annotated[str, AfterValidator(_image_tag)]
"""A Docker image by explicit tag, `[REGISTRY/]NAME:TAG`, never `latest`."""

Duration = Annotated[
    str,
    _matching(
        r"\d{1,9}(\.\d{1,9})?(ns|us|ms|secs|mins|hrs|days|weeks)", "a duration of Mesos", "write, for instance, 5mins"
    ),
]
Attribute = Annotated[
    str, _matching(r"[A-Za-z0-9_/][A-Za-z0-9_/.-]*", "a slave's attribute", "write letters, digits and _ / . -")
]
AttributeName = Annotated[
    str, _matching(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", "the name of an attribute", "write letters, digits and _ . -")
]
FlagName = Annotated[
    str,
    _matching(r"[A-Za-z_][A-Za-z0-9_]*", "the name of a flag or variable", "write it without dashes: rate_limits"),
]
"""A flag of a daemon by its name alone, or a variable of /etc/default."""
DropIn = Annotated[
    str,
    _matching(
        r"[A-Za-z0-9][A-Za-z0-9_.@-]*\.conf",
        "the file name of a drop-in",
        "write it without its directory, for instance http-proxy.conf",
    ),
]
"""A drop-in of a systemd unit by its file name."""
Identifier = Annotated[
    str, _matching(r"[A-Za-z_][A-Za-z0-9_]{0,31}", "a name for SQL", "write letters, digits and _, at most 32")
]
Count = Annotated[int, Field(strict=True, ge=1, le=2**31 - 1)]
"""At most what an int of Java (ZooKeeper, Marathon) holds."""
LEAST = 0.001
"""The smallest amount of a resource: Mesos counts in thousandths (values.cpp, since 1.0; before, less is of no use)."""
Cpus = Annotated[float, Field(strict=True, ge=LEAST, le=100_000, allow_inf_nan=False)]
"""CPUs, or a share of one."""
Megabytes = Annotated[float, Field(strict=True, ge=1, le=10**9, allow_inf_nan=False)]
Switch = Annotated[bool, Field(strict=True)]


@dataclass(frozen=True)
class PortRanges:
    """Ranges of ports, in order, none touching the next: the normal form in which Mesos reports them, too.

    In a parameter file: `"[8401-8599,8601-9100]"`, `8000-9100`, or a YAML list of ranges. `str()` gives it as Mesos
    wants it.
    """

    spans: tuple[tuple[int, int], ...]

    @classmethod
    def parse(cls, text: str) -> PortRanges:
        """Ranges from text, brackets optional. Raises ValueError: malformed, reversed, overlapping, not a port."""
        spans: list[tuple[int, int]] = []
        for part in re.sub(r"^\s*\[(.*)\]\s*$", r"\1", text).split(","):
            match = re.fullmatch(r"\s*(\d{1,5})\s*(?:-\s*(\d{1,5})\s*)?", part, re.ASCII)
            if match is None:
                raise Finding(
                    f"{text!r} is not a list of port ranges", 'write, for instance, "[8401-8599,8601-9100]"'
                ).as_error()
            begin, end = _port(int(match[1])), _port(int(match[2] or match[1]))
            if begin > end:
                raise Finding(f"{begin}-{end} begins after its end", f"write {end}-{begin}").as_error()
            spans.append((begin, end))
        spans.sort()
        for (begin, end), (following, last) in itertools.pairwise(spans):
            if following <= end:
                raise Finding(
                    f"{begin}-{end} and {following}-{last} overlap", f"write {begin}-{max(end, last)}"
                ).as_error()
        return cls(tuple(_joined(spans)))

    def __contains__(self, port: object) -> bool:
        return any(port in range(begin, end + 1) for begin, end in self.spans)

    def __len__(self) -> int:
        """The number of ports."""
        return sum(end - begin + 1 for begin, end in self.spans)

    def __str__(self) -> str:
        return f"[{','.join(f'{begin}-{end}' for begin, end in self.spans)}]"

    def covers(self, other: PortRanges) -> bool:
        """Whether every port of `other` is one of these."""
        return all(any(a <= begin and end <= b for a, b in self.spans) for begin, end in other.spans)

    def without(self, ports: Iterable[int]) -> PortRanges:
        """The same ranges with some ports left out."""
        spans = list(self.spans)
        for port in ports:
            spans = [
                (begin, end)
                for a, b in spans
                for begin, end in (((a, port - 1), (port + 1, b)) if a <= port <= b else ((a, b),))
                if begin <= end
            ]
        return PortRanges(tuple(spans))

    @classmethod
    def __get_pydantic_core_schema__(cls, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(
            cls._validate, serialization=core_schema.to_string_ser_schema()
        )

    @classmethod
    def _validate(cls, value: Any) -> PortRanges:
        if isinstance(value, PortRanges):
            return value
        return cls.parse(",".join(map(str, value)) if isinstance(value, list) else str(value))


def _joined(spans: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Ordered, disjoint spans with neighbours made one."""
    current: tuple[int, int] | None = None
    for begin, end in spans:
        if current is None:
            current = begin, end
        elif begin == current[1] + 1:
            current = current[0], end
        else:
            yield current
            current = begin, end
    if current is not None:
        yield current
