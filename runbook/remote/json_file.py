"""Members of a JSON file that others own, such as Docker's /etc/docker/daemon.json.

What is not named stays as it is, byte for byte: only the text of the members that differ is replaced, and new members
come last, indented as the others are. A file that is not a JSON object, or names a member twice, is refused with its
line, and not touched.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NoReturn

from runbook.errors import StepFailed
from runbook.remote.shell import quote
from runbook.remote.steps import Change, EditedFile, _check_path

if TYPE_CHECKING:
    from pydantic import JsonValue

_BLANK = re.compile(r"[ \t\r\n]*")
_DECODER = json.JSONDecoder()
_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class JsonMembers(EditedFile):
    """Members of the object that a JSON file holds; an absent or empty file becomes one that holds nothing else.

    `members` is a merge patch (RFC 7396): an object is merged into the present one, any other value takes the place of
    the present one, and None removes the member. `included` and `excluded` say which elements the list under a name
    holds among others, and which it does not; a list that is emptied stays, as an empty one. Mode and owner of the
    file stay; an absent one is created with 0644, root, and its folder with it. A file that begins with a byte order
    mark keeps it where its reader accepts one (`bom`), and is refused otherwise: Docker reads such a file from version
    23 on (moby, daemon/config: 'remove UTF-8 BOM').
    """

    path: str
    members: Mapping[str, JsonValue] = field(default_factory=dict)
    included: Mapping[str, Sequence[JsonValue]] = field(default_factory=dict)
    excluded: Mapping[str, Sequence[JsonValue]] = field(default_factory=dict)
    bom: bool = False

    def __post_init__(self) -> None:
        _check_path(self.path)
        if twice := self.members.keys() & (self.included.keys() | self.excluded.keys()):
            raise ValueError(f"{min(twice)!r} is given both as a member and by its elements")

    @property
    def label(self) -> str:
        return f"members of {self.path}"

    def script(self, change: Change) -> str:
        script = super().script(change)
        if change.observed == "absent":
            return f"mkdir -p {quote(self.path.rpartition('/')[0])} || exit 1\n{script}"
        return script

    def _edited(self, before: bytes) -> bytes:
        mark = _BOM if before.startswith(_BOM) else b""
        if mark and not self.bom:
            raise StepFailed(
                f"{self.path} begins with a byte order mark (UTF-8 BOM), which Docker accepts only from version 23 on",
                f"remove the mark: sed -i '1s/^\\xEF\\xBB\\xBF//' {quote(self.path)}",
            )
        document = Document.parse(before.removeprefix(mark), self.path)
        found = dict(document.values)
        for name, patch in self.members.items():
            if patch is None:
                document.remove(name)
            else:
                document.put(name, _merged(document.values.get(name), patch))
        for name in dict.fromkeys((*self.included, *self.excluded)):
            present = document.values.get(name)
            if present is None:
                present = []
            if not isinstance(present, list):
                document.refuse(f"{name} is not a list", document.line_of(name))
            gone, wanted = self.excluded.get(name, ()), self.included.get(name, ())
            kept = [element for element in present if element not in gone]
            kept += [element for element in wanted if element not in kept]
            if kept or name in document.values:
                document.put(name, kept)
        return before if _same(document.values, found) else mark + document.text.encode()


def _merged(present: JsonValue, patch: JsonValue) -> JsonValue:
    """A value after a merge patch (RFC 7396, section 2)."""
    if not isinstance(patch, Mapping):
        return patch
    merged = dict(present) if isinstance(present, Mapping) else {}
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = _merged(merged.get(name), value)
    return merged


@dataclass
class Document:
    """The text of a JSON object, and where in it each member is."""

    path: str
    text: str
    values: dict[str, JsonValue] = field(default_factory=dict)
    _names: dict[str, int] = field(default_factory=dict)
    _spans: dict[str, tuple[int, int]] = field(default_factory=dict)

    @classmethod
    def parse(cls, content: bytes, path: str) -> Document:
        """The object in `content`; an empty one where there is only white space.

        Raises StepFailed, with the line, for what is not one JSON object with each name once.
        """
        try:
            text = content.decode()
        except UnicodeDecodeError as error:
            cls(path, "").refuse("is not UTF-8 text", content.count(b"\n", 0, error.start) + 1)
        document = cls(path, text if text.strip(" \t\r\n") else "{}\n")
        document._read()
        return document

    def line_of(self, name: str) -> int:
        """The line, from 1, where a member begins."""
        return self._line(self._names[name])

    def refuse(self, what: str, line: int) -> NoReturn:
        """Raise the StepFailed that says what is wrong in which line."""
        raise StepFailed(f"{self.path}, line {line}: {what}", "correct it by hand: nothing was touched")

    def put(self, name: str, value: JsonValue) -> None:
        """Let a member have this value; a new one comes last."""
        if name in self.values and _same(self.values[name], value):
            return
        if name in self._spans:
            begin, end = self._spans[name]
            inline = "\n" not in self.text[begin:end] and self._line(self._names[name]) == self._line(begin)
            self._replace(begin, end, self._written(value, inline and not isinstance(value, Mapping)))
        else:
            self._append(f"{json.dumps(name, ensure_ascii=False)}: {self._written(value, inline=False)}")

    def remove(self, name: str) -> None:
        """Let there be no member of this name."""
        if name not in self._spans:
            return
        names = list(self._names)
        position = names.index(name)
        if position + 1 < len(names):  # with the comma and the white space that follow it
            self._replace(self._names[name], self._names[names[position + 1]], "")
        else:  # with those that precede it
            begin = self._spans[names[position - 1]][1] if position else self.text.index("{") + 1
            self._replace(begin, self._spans[name][1], "")

    # the parts

    def _read(self) -> None:
        at = self._blank(0)
        if self.text[at] != "{":
            self.refuse("does not hold a JSON object", self._line(at))
        at = self._blank(at + 1)
        while self._at(at) != "}":
            begin = at
            name, at = self._value(at)
            if not isinstance(name, str):
                self.refuse("a name in double quotes is expected", self._line(begin))
            if name in self.values:
                self.refuse(f"{name} is given a second time", self._line(begin))
            at = self._blank(at)
            if self._at(at) != ":":
                self.refuse(f"a colon is expected after {json.dumps(name)}", self._line(at))
            first = self._blank(at + 1)
            self.values[name], at = self._value(first)
            self._names[name], self._spans[name] = begin, (first, at)
            at = self._blank(at)
            if self._at(at) == ",":
                at = self._blank(at + 1)
                if self._at(at) != "}":
                    continue
            elif self._at(at) == "}":
                break
            self.refuse("is not JSON: a comma and another member, or the end, is expected", self._line(at))
        at = self._blank(at + 1)
        if at < len(self.text):
            self.refuse("is not JSON: something follows the end of the object", self._line(at))

    def _value(self, at: int) -> tuple[JsonValue, int]:
        try:
            value, end = _DECODER.raw_decode(self.text, at)
        except json.JSONDecodeError as error:
            self.refuse(f"is not JSON: {error.msg}", error.lineno)
        return value, end

    def _blank(self, at: int) -> int:
        match = _BLANK.match(self.text, at)
        assert match is not None
        return match.end()

    def _at(self, at: int) -> str:
        return self.text[at : at + 1]

    def _line(self, at: int) -> int:
        return self.text.count("\n", 0, at) + 1

    @property
    def _indent(self) -> str:
        """What stands before the first member in its line, where it has one of its own."""
        first = next(iter(self._names.values()), None)
        if first is None:
            return "  "
        before = self.text[:first].rpartition("\n")
        return before[2] if before[1] and not before[2].strip(" \t") else ""

    def _written(self, value: JsonValue, inline: bool) -> str:
        indent = self._indent
        if inline or not indent:
            return json.dumps(value, ensure_ascii=False)
        return json.dumps(value, ensure_ascii=False, indent=indent).replace("\n", f"\n{indent}")

    def _append(self, member: str) -> None:
        indent = self._indent
        separator = f"\n{indent}" if indent else " "
        if self._spans:
            end = list(self._spans.values())[-1][1]
            self._replace(end, end, f",{separator}{member}")
            return
        begin, end = self.text.index("{"), self.text.rindex("}") + 1
        self._replace(begin, end, f"{{{separator}{member}\n}}")

    def _replace(self, begin: int, end: int, text: str) -> None:
        edited = Document.parse((self.text[:begin] + text + self.text[end:]).encode(), self.path)
        self.text, self.values, self._names, self._spans = edited.text, edited.values, edited._names, edited._spans


def _same(one: JsonValue, other: JsonValue) -> bool:
    """Whether two values are the same JSON: to Python True equals 1."""
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
