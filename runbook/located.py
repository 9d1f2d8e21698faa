"""YAML with the line of every value, read strictly.

Scalars follow YAML 1.2's core schema, in which `no`, `0644`, `1:30` and `2016-08-03` are not secretly something else.
What could make two people read one file differently is refused: a key given twice, aliases, tags, control characters.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from runbook.errors import ParameterError, Problem
from runbook.paths import read_regular

Location = tuple[str | int, ...]
"""The way to a value: keys, and positions in lists."""


@dataclass
class Located:
    """The content of a parameter file: `data` as plain dicts, lists and scalars, the line of each value, and what was
    wrong with it so far, by location (None stands in for a value that cannot be had)."""

    file: Path
    data: dict[str, Any] = field(default_factory=dict)
    lines: dict[Location, int] = field(default_factory=dict)
    problems: dict[Location, Problem] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        """Where the file is: local paths in it begin there."""
        return self.file.parent.absolute()

    def line(self, location: Location) -> int:
        """The line of a value, or of the nearest thing around it that the file contains; 0 without a file."""
        return next((self.lines[place] for place in _outwards(location) if place in self.lines), 0)

    def problem(self, location: Location, message: str, remedy: str) -> Problem:
        """A problem with the value at `location`."""
        return Problem(self.file, self.line(location), _name(location), message, remedy)

    def has_problem(self, location: Location) -> bool:
        """Whether the value, or something that it is part of, is already refused."""
        return any(place in self.problems for place in _outwards(location))


def _outwards(location: Location) -> Iterator[Location]:
    return (location[:length] for length in range(len(location), -1, -1))


def _name(location: Location) -> str:
    """`hosts[2].address`"""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)
    return text.removeprefix(".")


def read(file: Path) -> str:
    """The text of a parameter file. Raises ParameterError where it cannot be read, is not a regular file (a device or a
    FIFO would never end), is longer than `LARGEST_FILE`, or is not UTF-8."""
    try:
        content = read_regular(file, LARGEST_FILE)
    except OSError as error:
        raise ParameterError(
            [Problem(file, 0, "", f"cannot be read: {error.strerror}", "name an existing file that you may read")]
        ) from error
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ParameterError([Problem(file, line, "", "is not UTF-8 text", "save it as UTF-8")]) from None


def parse(text: str, file: Path) -> Located:
    """What a text of YAML says, and where. `file` is its name in messages.

    Problems of single values are collected in the result; raises ParameterError for a text that is no YAML mapping.
    """
    located = Located(file, lines={(): 1})

    def refuse(line: int, message: str, remedy: str) -> ParameterError:
        return ParameterError([Problem(file, line, "", message, remedy)])

    try:
        root = yaml.compose(text, Loader=_Loader)
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise refuse(line, f"contains {_character(chr(error.character))}", "take it out") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise refuse(mark.line + 1 if mark else 1, *_syntax(error.problem or "")) from None
    except RecursionError:
        message = "holds lists or mappings within each other by the hundred"
        raise refuse(0, message, "look for brackets that are left open") from None
    if root is None or root.tag == "tag:yaml.org,2002:null":
        raise refuse(1, "is empty", "begin with parameters/production.yml, which holds every parameter there is")
    if not isinstance(root, yaml.MappingNode):
        raise refuse(
            root.start_mark.line + 1, "is not a mapping", "write `name: …`, `ssh: …`, `hosts: …` at its top level"
        )
    located.data = _Walk(located).value(root, ())
    return located


class _Loader(yaml.SafeLoader):
    """Resolves plain scalars by YAML 1.2's core schema (10.3 of its specification), as far as JSON has them."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 (PyYAML's own way to declare them)


_SCALARS: Mapping[str, Any] = {
    "tag:yaml.org,2002:null": lambda text: None,
    "tag:yaml.org,2002:bool": lambda text: text.lower() == "true",
    "tag:yaml.org,2002:int": int,
    "tag:yaml.org,2002:float": float,
    "tag:yaml.org,2002:str": str,
}
_NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
LONGEST_NUMBER = 40
"""Characters; no parameter needs as many, and Python converts at most 4,300 digits."""
LARGEST, SMALLEST = 2.0**63, 1e-9
"""The bounds of numbers other than 0: what JSON readers with 64 bits hold, and a nanosecond or a billionth CPU."""
LARGEST_FILE = 4 << 20
"""Bytes of a parameter file: a hundred times what 200 hosts take."""
_COLLECTIONS: Mapping[type[yaml.Node], str] = {
    yaml.MappingNode: "tag:yaml.org,2002:map",
    yaml.SequenceNode: "tag:yaml.org,2002:seq",
}

for _tag, _pattern in {
    "null": r"~|null|Null|NULL|",
    "bool": r"true|True|TRUE|false|False|FALSE",
    "int": r"[-+]?[0-9]+",
    "float": r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?",
}.items():
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), None)


class _Walk:
    """Turns YAML's nodes into data, and notes lines and problems on the way."""

    def __init__(self, located: Located) -> None:
        self._located = located
        self._seen: set[int] = set()

    def value(self, node: yaml.Node, location: Location) -> Any:
        self._located.lines.setdefault(location, node.start_mark.line + 1)
        if id(node) in self._seen:  # an alias is the very node that it stands for
            return self._refuse(location, "is a YAML alias", "write the value out, so that one line says what it is")
        self._seen.add(id(node))
        if node.tag not in (_SCALARS if isinstance(node, yaml.ScalarNode) else (_COLLECTIONS[type(node)],)):
            return self._refuse(location, "carries a YAML tag", "take the `!…` out, or put the value in quotes")
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, location)
        if isinstance(node, yaml.SequenceNode):
            return [self.value(item, (*location, position)) for position, item in enumerate(node.value)]
        if found := _control_character(node.value):
            self._refuse(
                location,
                f"contains {_character(found)}",
                "write it in one line of visible characters (YAML's `>-` folds lines into one)",
            )
        if node.tag in _NUMBERS and len(node.value) > LONGEST_NUMBER:
            return self._refuse(
                location, f"is a number of {len(node.value)} characters", "write a smaller one, or put it in quotes"
            )
        try:
            value = _SCALARS[node.tag](node.value)
        except ValueError:
            return self._refuse(location, "does not match its YAML tag", "take the `!!…` out")
        if node.tag in _NUMBERS and not abs(value) < LARGEST:
            return self._refuse(location, "is too large a number", "write a smaller one")
        if isinstance(value, float) and abs(value) < SMALLEST and re.search("[1-9]", re.split("[eE]", node.value)[0]):
            return self._refuse(location, "is too small a number", "write 0, or a larger one")
        return value

    def _mapping(self, node: yaml.MappingNode, location: Location) -> dict[str, Any]:
        data: dict[str, Any] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            key = key_node.value
            if key_node.tag != "tag:yaml.org,2002:str" or _control_character(key):
                place = (*location, f"(key in line {line})")
                self._located.lines[place] = line
                self._refuse(place, "is not a text that can be a key", "put the key in quotes, if it is meant")
                continue
            place = (*location, key)
            if key in data:
                first = self._located.lines[place]
                self._located.lines[place] = line
                self._refuse(place, f"is given twice, first in line {first}", "keep one of the two")
                self._located.lines[place] = first
                continue
            self._located.lines[place] = line
            data[key] = self.value(value_node, place)
        return data

    def _refuse(self, location: Location, message: str, remedy: str) -> None:
        self._located.problems.setdefault(location, self._located.problem(location, message, remedy))


def _control_character(text: str) -> str | None:
    """The first character that is not meant for the eye: controls, line separators, what is invisible or has no
    meaning of its own (private use, not assigned)."""
    hidden = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")
    return next((char for char in text if unicodedata.category(char) in hidden or _INVISIBLE.match(char)), None)


_INVISIBLE = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)
"""Letters and marks that are not seen: Unicode's Default_Ignorable_Code_Point beyond Cf, and Braille's blank."""


def _character(char: str) -> str:
    name = {"\n": "a newline", "\t": "a tab", "\r": "a carriage return"}.get(char, "a control or invisible character")
    return f"{name} (U+{ord(char):04X})"


def _syntax(problem: str) -> tuple[str, str]:
    """PyYAML's complaint in our words where it is a frequent one. What it quotes of the file may be a secret."""
    if r"'\t'" in problem:
        return "uses a tab where YAML wants blanks", "indent with blanks"
    if "undefined alias" in problem or "undefined tag handle" in problem:
        return "has a value that begins with * or !, which mean something else in YAML", "put the value in quotes"
    if "single document" in problem or "but found another document" in problem:
        return "holds several YAML documents", "keep one, and no line `---` after its beginning"
    return (
        f"is not valid YAML: {problem}",
        "look at this line and the one before it: indentation, a missing `: `, quotes",
    )
