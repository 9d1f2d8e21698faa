"""The order of rsyslog's rules: which rule discards the lines of a program before the runbook's own rules see them.

rsyslog takes the rules of its files in the order in which they are included, and a rule that ends with `stop` (or `~`)
ends a message. Conditions are evaluated for the lines that the daemons log: facility `user`, severity `info`, and the
program's name. A condition about anything else (the text of a message, say) is not decided, and not reported.

Sources: rsyslog's documentation, 'Filter Conditions', 'Expressions', 'include', 'Legacy Configuration';
rsyslog.conf(5).
"""

from __future__ import annotations

import base64
import fnmatch
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from runbook.remote.probes import values
from runbook.remote.shell import quote
from runbook.remote.steps import Change, _check_path
from runbook.remote.units import Report

MAIN = "/etc/rsyslog.conf"
FACILITY, SEVERITY = "user", 6
"""What the start scripts log with (`logger -p user.info`)."""
_SEVERITIES = ("emerg", "alert", "crit", "err", "warning", "notice", "info", "debug")
_SYNONYMS = {"panic": "emerg", "error": "err", "warn": "warning"}
_INCLUDE = re.compile(r"\s*(?:\$IncludeConfig\s+(\S+)|include\s*\(.*?file\s*=\s*\"([^\"]+)\".*\))", re.DOTALL)
_DISCARD = re.compile(r"(?:stop|~|discard)\s*")


@dataclass(frozen=True)
class Statement:
    """One statement of a configuration: where it begins, and its text without comments."""

    file: str
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.file} line {self.line}"


def statements(file: str, text: str, first: int = 1) -> Iterator[Statement]:
    """The statements of a configuration: a line each, joined where brackets or quotes are open, or after `then`."""
    held, begun, depth, quoted = "", first, 0, ""
    for number, line in enumerate(text.split("\n"), first):
        if not held.strip():
            begun = number
        position = 0
        while position < len(line):
            char = line[position]
            if quoted:
                if char == "\\":
                    held += char
                    position += 1
                    char = line[position : position + 1]
                elif char == quoted:
                    quoted = ""
            elif char == "#":
                break
            elif char in "\"'":
                quoted = char
            elif char in "({":
                depth += 1
            elif char in ")}":
                depth -= 1
            held += char
            position += 1
        bare = held.rstrip()
        unfinished = re.match(r"\s*if\b", bare) and not re.search(r"\bthen\b\s*\S", bare, re.DOTALL)
        if bare.endswith("\\") and not quoted:
            held = bare[:-1]
        elif depth > 0 or quoted or unfinished:
            held += "\n"
        else:
            if bare.strip():
                yield Statement(file, begun, bare.strip())
            held, depth, quoted = "", 0, ""
    if held.strip():
        yield Statement(file, begun, held.strip())


def discarding(found: Iterator[Statement], program: str) -> Statement | None:
    """The first statement that ends every line of a program; None where all of them go on."""
    matches: bool | None = False
    blocked = False
    for one in found:
        text = one.text
        if block := re.fullmatch(r"!([+-]?)(\S+)", text):  # BSD: what follows is about this program
            names = block[2].split(",")
            blocked = block[2] != "*" and ((program in names) is (block[1] == "-"))
            continue
        if text.startswith("&"):
            action = text[1:].strip()
        elif rule := re.fullmatch(r"if\b(.*?)\bthen\b(.*)", text, re.DOTALL):
            matches, action = evaluated(rule[1], program), rule[2].strip()
            if action.startswith("{"):
                inner, rest = _block(action)
                chosen = inner if matches else re.sub(r"^\s*else\b\s*", "", rest) if matches is False else ""
                if chosen.startswith("{"):
                    chosen, _ = _block(chosen)
                line = one.line + text[: text.find(chosen)].count("\n")
                if hit := discarding(statements(one.file, chosen, line), program):
                    return hit
                continue
        elif rule := re.fullmatch(
            r":\s*([\w$!-]+)\s*,\s*(!?)(\w+)\s*,\s*\"((?:[^\"\\]|\\.)*)\"\s*(.*)", text, re.DOTALL
        ):
            matches = _compared(rule[1], rule[3], rule[4], program)
            matches = not matches if rule[2] and matches is not None else matches
            action = rule[5].strip()
        elif rule := re.fullmatch(r"([\w*,!=.;-]+\.[\w*,!=.;-]+)\s+(\S.*)", text, re.DOTALL):
            matches, action = _selected(rule[1]), rule[2].strip()
        elif re.search(r"(?:^|[\s)}])(?:stop|~)$", text):  # inside a block, perhaps after an action in the same line
            return one
        else:
            continue
        if matches and not blocked and _DISCARD.fullmatch(action):
            return one
    return None


def _block(text: str) -> tuple[str, str]:
    """What is inside the brackets with which a text begins, and what follows them."""
    depth, quoted = 0, ""
    for position, char in enumerate(text):
        if quoted:
            quoted = "" if char == quoted else quoted
        elif char in "\"'":
            quoted = char
        elif char == "{":
            depth += 1
        elif char == "}":
            depth -= 1
            if not depth:
                return text[1:position], text[position + 1 :]
    return text[1:], ""


# conditions: True, False, or None where the answer depends on something else

_TOKEN = re.compile(
    r"\s*(?:(?P<bracket>[()])|(?P<operator>and|or|not)\b"
    r"|(?P<comparison>\$[\w!.-]+\s*(?P<sign>==|!=|<=|>=|<|>|contains_i|startswith_i|contains|startswith|isequal)\s*"
    r"(?:'[^']*'|\"[^\"]*\"|\d+|\[[^\]]*\]))"
    r"|(?P<match>re_match(?:_i)?\s*\(\s*\$[\w!.-]+\s*,\s*(?:'[^']*'|\"[^\"]*\")\s*\))"
    r"|(?P<other>[^\s()]+))"
)


def evaluated(expression: str, program: str) -> bool | None:
    """The value of an expression for the lines of a program."""
    tokens = [match for match in _TOKEN.finditer(expression) if match.group().strip()]
    value, rest = _disjunction(tokens, program)
    return None if rest else value


def _disjunction(tokens: list[re.Match[str]], program: str) -> tuple[bool | None, list[re.Match[str]]]:
    value, rest = _conjunction(tokens, program)
    while rest and rest[0]["operator"] == "or":
        other, rest = _conjunction(rest[1:], program)
        value = True if True in (value, other) else None if None in (value, other) else False
    return value, rest


def _conjunction(tokens: list[re.Match[str]], program: str) -> tuple[bool | None, list[re.Match[str]]]:
    value, rest = _term(tokens, program)
    while rest and rest[0]["operator"] == "and":
        other, rest = _term(rest[1:], program)
        value = False if False in (value, other) else None if None in (value, other) else True
    return value, rest


def _term(tokens: list[re.Match[str]], program: str) -> tuple[bool | None, list[re.Match[str]]]:
    if not tokens:
        return None, []
    first, rest = tokens[0], tokens[1:]
    if first["operator"] == "not":
        value, rest = _term(rest, program)
        return (None if value is None else not value), rest
    if first["bracket"] == "(":
        value, rest = _disjunction(rest, program)
        return value, rest[1:]
    if first["comparison"]:
        name, value_text = re.split(r"\s*" + re.escape(first["sign"]) + r"\s*", first["comparison"].strip(), maxsplit=1)
        # one value, or a list of them, of which any will do
        alternatives = re.findall(r"'[^']*'|\"[^\"]*\"|\d+", value_text)
        found = [_compared(name.removeprefix("$"), first["sign"], one.strip("'\""), program) for one in alternatives]
        return (True if True in found else None if None in found else False), rest
    if first["match"]:
        match = re.search(r"\$([\w!.-]+)\s*,\s*['\"](.*)['\"]", first["match"])
        return (_compared(match[1], "regex", match[2], program) if match else None), rest
    # a function or a variable: what it is is not known, nor what is compared with it
    while rest and not (rest[0]["operator"] or rest[0]["bracket"] == ")"):
        rest = rest[1:]
    return None, rest


def _compared(name: str, sign: str, value: str, program: str) -> bool | None:
    known = {
        "programname": program,
        "app-name": program,
        "syslogtag": f"{program}[1]:",
        "syslogfacility-text": FACILITY,
        "syslogseverity": str(SEVERITY),
        "syslogfacility": "1",
        "syslogseverity-text": _SEVERITIES[SEVERITY],
    }
    subject = known.get(name.lower())
    if subject is None:
        return None
    match sign:
        case "==" | "isequal":
            return subject == value
        case "!=":
            return subject != value
        case "contains":
            return value in subject
        case "contains_i":
            return value.lower() in subject.lower()
        case "startswith":
            return subject.startswith(value)
        case "startswith_i":
            return subject.lower().startswith(value.lower())
        case "regex" | "ereregex":
            try:
                return re.search(value, subject) is not None
            except re.error:
                return None
        case "<" | "<=" | ">" | ">=" if value.isdecimal() and subject.isdecimal():
            left, right = int(subject), int(value)
            return {"<": left < right, "<=": left <= right, ">": left > right, ">=": left >= right}[sign]
        case _:
            return None


def _selected(selector: str) -> bool:
    """Whether a selector (`*.info;mail.none`) takes the lines: later parts override earlier ones."""
    chosen = False
    for part in selector.split(";"):
        facilities, _, priority = part.rpartition(".")
        if not {FACILITY, "*"} & set(facilities.split(",")):
            continue
        negated, name = priority.startswith("!"), priority.lstrip("!=")
        name = _SYNONYMS.get(name, name)
        if name == "none":
            chosen = False
            continue
        if name != "*" and name not in _SEVERITIES:
            continue
        limit = len(_SEVERITIES) if name == "*" else _SEVERITIES.index(name)
        exact = "=" in priority[:2]
        hit = limit == SEVERITY if exact else limit >= SEVERITY
        chosen = (chosen and not hit) if negated else (chosen or hit)
    return chosen


# the step


@dataclass(frozen=True)
class RuleOrder(Report):
    """No rule of rsyslog before `config` discards the lines of the programs, and rsyslog reads `config` at all."""

    config: str
    programs: tuple[str, ...]

    PROBE: ClassVar = """\
show() {{ if [ -f "$1" ]; then echo "file=$1 $(base64 < "$1" | tr -d '\\n')"; fi; }}
show {main}
sed -n -e 's/^[[:space:]]*\\$IncludeConfig[[:space:]]\\{{1,\\}}//p' \\
  -e 's/^[[:space:]]*include(.*file="\\([^"]*\\)".*/\\1/p' {main} 2>/dev/null | while read -r pattern; do
  for f in $pattern; do if [ -d "$f" ]; then for g in "$f"/*; do show "$g"; done; else show "$f"; fi; done
done
"""

    def __post_init__(self) -> None:
        _check_path(self.config)

    @property
    def reads(self) -> frozenset[str]:
        return frozenset({MAIN})

    @property
    def label(self) -> str:
        return f"rules before {self.config}"

    def probe(self) -> str:
        return self.PROBE.format(main=quote(MAIN))

    def plan(self, state: str, pending: frozenset[str] = frozenset()) -> Change | None:
        files = dict[str, str]()
        for line in values(state, "file"):
            path, _, content = line.partition(" ")
            files[path] = base64.b64decode(content).decode("utf-8", "replace")
        if MAIN not in files:
            return None  # rsyslog is not installed: its service tells
        before, included = self._before(files)
        if not included:
            summary = f"{MAIN} does not include {self.config}, so that rsyslog reads none of its rules"
            return Change(
                f"{summary}: not changed by the runbook", f"-{MAIN}: $IncludeConfig {self.config}\n", kept=True
            )
        found: dict[Statement, list[str]] = {}
        for program in self.programs:
            if hit := discarding(iter(before), program):
                found.setdefault(hit, []).append(program)
        if not found:
            return None
        summary = "; ".join(f"{one} discards the lines of {', '.join(names)}" for one, names in found.items())
        diff = "".join(f"+{one}: {line}\n" for one in found for line in one.text.splitlines())
        return Change(f"{summary} before {self.config}: not changed by the runbook", diff, kept=True)

    def _before(self, files: dict[str, str]) -> tuple[list[Statement], bool]:
        """The statements that rsyslog reads before those of `config`, and whether it reads that at all."""
        before: list[Statement] = []
        for one in statements(MAIN, files[MAIN]):
            include = _INCLUDE.match(one.text)
            if include is None:
                before.append(one)
                continue
            pattern = include[1] or include[2]
            pattern = f"{pattern}*" if pattern.endswith("/") else pattern
            for path in sorted(path for path in files if path != MAIN and fnmatch.fnmatchcase(path, pattern)):
                if path < self.config:
                    before += statements(path, files[path])
            if fnmatch.fnmatchcase(self.config, pattern):
                return before, True
        return before, False
