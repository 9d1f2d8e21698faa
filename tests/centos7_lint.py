"""A lint of sh text for hosts as old as CentOS 7.2: what its programs, and its bash 4.2, can do is in centos7.yml.

Every program that a script calls must be in that table, with every option and every subcommand that it is given: so
what is newer than CentOS 7 is refused without being known here. What a program misreads, or does otherwise than a
newer one, is in `RULES`, each with its source. A script that is read wrongly here is refused, too, and not passed over.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

TABLE: Mapping[str, Any] = yaml.safe_load((Path(__file__).parent / "centos7.yml").read_text())

RESERVED = frozenset(["!", "{", "}", "if", "then", "elif", "else", "fi", "while", "until", "do", "done", "esac"])
"""Words before which, or after which, a command may stand (POSIX, 2.4)."""


# reading


@dataclass(frozen=True)
class Command:
    """A simple command: its words as they stand in the script, and what stands around it."""

    words: tuple[str, ...]
    redirected: bool = False
    """Whether its complaints are dropped (`2>/dev/null`), so that an older client's are foreseen."""

    @property
    def plain(self) -> tuple[str, ...]:
        """The words without their quotes."""
        return tuple(map(plain, self.words))


def plain(word: str) -> str:
    """A word without the quotes around its parts; what is expanded stays as it is written."""
    return re.sub(r"'([^']*)'|\"((?:[^\"\\]|\\.)*)\"|\\(.)", lambda m: next(x for x in (*m.groups(), "") if x), word)


class Unreadable(ValueError):
    """The script is not read to its end."""


@dataclass
class _Reader:
    """Reads a script into its simple commands, those of command substitutions included."""

    text: str
    at: int = 0
    commands: list[Command] = field(default_factory=list)
    functions: set[str] = field(default_factory=set)
    heredocs: list[str] = field(default_factory=list)

    def read(self, closing: str = "") -> None:
        """Up to `closing` (a parenthesis), or to the end."""
        words: list[str] = []
        quiet = pattern = False
        while self.at < len(self.text):
            char = self.text[self.at]
            if char == closing:
                self._end(words, quiet)
                return
            if char in " \t":
                self.at += 1
            elif self.text.startswith("\\\n", self.at):
                self.at += 2
            elif char == "#":
                self.at = self._find("\n")
            elif char in "\n;&|":
                # After `in` and after `;;` comes a pattern, which no command is.
                pattern = words[:1] == ["case"] or self.text.startswith(";;", self.at) or (pattern and not words)
                self.at += 2 if self.text.startswith(";;", self.at) else 1
                self._end(words, quiet)
                words, quiet = [], False
                if char == "\n":
                    self._heredocs()
            elif char == "(":
                self.at += 1
                if pattern or (words[:1] == ["case"] and words[-1] == "in"):
                    while not self.text.startswith(")", self.at):
                        self._part(in_quotes=False)
                    self.at, words, pattern = self.at + 1, [], False
                elif words and self.text.startswith(")", self.at):
                    self.functions.add(words.pop())
                    self.at += 1
                else:
                    self.nested(")")
            elif match := re.compile(r"([0-9]*)(<<-?|>>|<&|>&|<|>)[ \t]*").match(self.text, self.at):
                self.at = match.end()
                target = self._word()
                if match[2].startswith("<<"):
                    self.heredocs.append(plain(target))
                quiet = quiet or (match[1], target) == ("2", "/dev/null")
            else:
                words.append(self._word())
                pattern = False
        if closing:
            raise Unreadable(f"no {closing!r} after {self.text[-60:]!r}")
        self._end(words, quiet)

    def nested(self, closing: str) -> None:
        """What stands in parentheses, and the closing one."""
        self.read(closing)
        if not self.text.startswith(closing, self.at):
            raise Unreadable(f"no {closing!r}")
        self.at += 1

    def _end(self, words: list[str], quiet: bool) -> None:
        while words and words[0] in RESERVED:
            words = words[1:]
        if words:
            self.commands.append(Command(tuple(words), quiet))

    def _find(self, what: str) -> int:
        found = self.text.find(what, self.at)
        return len(self.text) if found < 0 else found

    def _heredocs(self) -> None:
        while self.heredocs:
            end = self.heredocs.pop(0)
            match = re.compile(rf"(?ms)^{re.escape(end)}$\n?").search(self.text, self.at)
            if match is None:
                raise Unreadable(f"a heredoc does not end with {end}")
            self.at = match.end()

    def _word(self) -> str:
        begin = self.at
        while self.at < len(self.text) and self.text[self.at] not in " \t\n;&|()<>":
            self._part(in_quotes=False)
        if begin == self.at:
            raise Unreadable(f"{self.text[max(0, begin - 30) : begin + 10]!r}")
        return self.text[begin : self.at]

    def _part(self, *, in_quotes: bool) -> None:
        """One character of a word, or all of what it begins."""
        char = self.text[self.at]
        if char == "\\":
            self.at += 2
        elif char == "'" and not in_quotes:
            self.at += 1
            self.at = self._find("'") + 1
        elif char == '"' and not in_quotes:
            self.at += 1
            while not self.text.startswith('"', self.at):
                if self.at >= len(self.text):
                    raise Unreadable("a double quote is not closed")
                self._part(in_quotes=True)
            self.at += 1
        elif self.text.startswith("$((", self.at):
            self.at = self._find("))") + 2
        elif self.text.startswith("$(", self.at):
            self.at += 2
            inner = _Reader(self.text, self.at, self.commands, self.functions)
            inner.nested(")")
            self.at = inner.at
        elif self.text.startswith("${", self.at):
            self.at += 2
            while not self.text.startswith("}", self.at):
                if self.at >= len(self.text):
                    raise Unreadable("an expansion is not closed")
                if self.text[self.at] == '"':
                    self._part(in_quotes=False)
                else:
                    self._part(in_quotes=in_quotes)
            self.at += 1
        else:
            self.at += 1


def commands(script: str) -> tuple[list[Command], set[str]]:
    """The simple commands of a script, and the names of its functions. Raises Unreadable."""
    reader = _Reader(script)
    reader.read()
    return reader.commands, reader.functions


def quoted_away(script: str) -> str:
    """A script whose single-quoted parts, heredocs and comments are blank: what is left is sh and nothing else."""
    kept, at = [], 0
    pattern = re.compile(
        r"(?P<comment>(?:(?<=\s)|\A)#[^\n]*)|\\.|(?P<double>\"(?:[^\"\\]|\\.)*\")|(?P<single>'[^']*')"
        r"|<<-?\s*'?(?P<end>\w+)'?(?P<rest>[^\n]*\n)(?P<body>.*?\n)(?P=end)(?=\n|\Z)",
        re.DOTALL,
    )
    for match in pattern.finditer(script):
        kept.append(script[at : match.start()])
        at = match.end()
        if match["comment"] is not None:
            continue
        kept.append("''" if match["single"] == "''" else "'x'" if match["single"] is not None else "")
        if match["single"] is None:
            kept.append(f"<<{match['end']}{match['rest']}" if match["end"] else match[0])
    return "".join([*kept, script[at:]])


# programs

WRAPPERS: Mapping[str, int] = {
    "timeout": 1,
    "flock": 1,
    **dict.fromkeys(("xargs", "env", "nsenter", "command", "exec", "nohup", "sudo"), 0),
}
"""Programs that run another one, and how many operands of their own come before it."""


def problems_of_command(words: Sequence[str], functions: set[str]) -> Iterator[str]:
    """What of a command CentOS 7 does not have."""
    while words and re.match(r"\w+=", words[0]):
        words = words[1:]
    if not words or words[0] in ("for", "case"):
        return
    if words[0].startswith(("$", '"$', "/", "./")) and words[0] != "/bin/sh":
        return  # what the parameters name: a script of ZooKeeper's
    name, arguments = words[0].rpartition("/")[2], list(words[1:])
    if name in functions:
        programs = [at for at, word in enumerate(arguments) if word in ("docker", "nsenter", "systemctl")]
        if programs:
            yield from problems_of_command(arguments[programs[0] :], functions)
        return
    entry = TABLE["programs"].get(name)
    if entry is None:
        yield f"{name}: not a program of the table; where CentOS 7 has it, add it with its options and their source"
        return
    if "builtin" in entry:
        if name in ("command", "exec") and arguments and not arguments[0].startswith("-"):
            yield from problems_of_command(arguments, functions)
        return
    if "verbs" in entry:
        yield from _with_verbs(name, entry, arguments)
        return
    operands = yield from _options(name, entry, arguments)
    if entry.get("no_operands") and operands:
        yield f"{name} {operands[0]}: CentOS 7's takes no operand ({entry['source']})"
    if name in WRAPPERS:
        yield from problems_of_command(operands[WRAPPERS[name] :], functions)
    elif "operands" in entry:
        for word in operands:
            if word.startswith("-") and word not in entry["operands"].split():
                yield f"{name} {word}: CentOS 7's does not know it ({entry['source']})"


def _with_verbs(name: str, entry: Mapping[str, Any], arguments: list[str]) -> Iterator[str]:
    words = yield from _options(name, entry, arguments, stop=not entry.get("permuted"))
    if not words:
        return
    verb, rest = words[0], words[1:]
    if verb.startswith("$"):
        return
    known = entry["verbs"]
    if verb not in known:
        yield f"{name} {verb}: CentOS 7's does not know it ({entry['source']})"
        return
    if isinstance(known, Mapping):
        yield from _options(f"{name} {verb}", {"source": entry["source"], **(known[verb] or {})}, rest)


def _options(
    name: str, entry: Mapping[str, Any], arguments: list[str], stop: bool = False
) -> Iterator[Any]:  # returns the operands
    short, long = str(entry.get("short", "")), str(entry.get("long", "")).split()
    stop = stop or short.startswith("+")
    takes = {option.rstrip("=?"): option[-1] for option in long}
    operands: list[str] = []
    left = list(arguments)
    while left:
        word = left.pop(0)
        if word == "--":
            return [*operands, *left]
        if entry.get("operands") or word == "-" or not word.startswith("-"):
            operands.append(word)
            if stop:
                return [*operands, *left]
        elif word.startswith("--"):
            option, equals, _ = word[2:].partition("=")
            if option not in takes or (equals and takes[option] not in "=?"):
                yield f"{name} --{option}{equals}: CentOS 7's does not know it ({entry['source']})"
            elif takes[option] == "=" and not equals and left:
                left.pop(0)
        else:
            letters = word[1:]
            while letters:
                letter, letters = letters[0], letters[1:]
                at = short.find(letter)
                if at < 0 or letter in ":+":
                    yield f"{name} -{letter}: CentOS 7's does not know it ({entry['source']})"
                elif short.startswith("::", at + 1):
                    letters = ""
                elif short.startswith(":", at + 1):
                    if not letters and left:
                        left.pop(0)
                    letters = ""
    return operands


# what is misread, or means something else


@dataclass(frozen=True)
class Rule:
    """Something that CentOS 7 takes and does otherwise: what is found of it in a script, why, and by which source."""

    name: str
    why: str
    source: str
    finds: Callable[[str, Sequence[Command]], Iterator[str]]


def _text(pattern: str) -> Callable[[str, Sequence[Command]], Iterator[str]]:
    """Finds a pattern in what is left of a script without its quotations."""
    expression = re.compile(pattern, re.MULTILINE)
    return lambda script, _: (match[0].strip() for match in expression.finditer(quoted_away(script)))


def _called(
    name: str, wrong: Callable[[list[str], Command], bool]
) -> Callable[[str, Sequence[Command]], Iterator[str]]:
    """Finds calls of a program, by way of `timeout` and the like as well, whose arguments are wrong."""

    def finds(_: str, those: Sequence[Command]) -> Iterator[str]:
        for command in those:
            words = list(command.plain)
            first = next((at for at, word in enumerate(words) if word == name), None)
            if first is None or not (first == 0 or words[0] in WRAPPERS or words[0] == "try" or "=" in words[0]):
                continue
            if wrong(words[first + 1 :], command):
                yield " ".join(words)[:120]

    return finds


def _bare_patterns(script: str, _: Sequence[Command]) -> Iterator[str]:
    """Patterns of `case` without their opening parenthesis."""
    text = quoted_away(script)
    for match in re.finditer(
        r"\bcase\b(?:[^\n]|\\\n)*?\sin\b\s*(?P<first>[^(\s])|;;\s*(?P<next>(?!esac\b)[^(\s])", text
    ):
        at = match.start("first") if match["first"] else match.start("next")
        if text[at:].startswith("esac"):
            continue
        yield text[at : at + 40].split("\n")[0]


def _several(arguments: list[str], _: Command) -> bool:
    if not arguments or arguments[0] != "inspect":
        return False
    left, operands = arguments[1:], []
    while left:
        word = left.pop(0)
        if word in ("-f", "--format", "--type"):
            left = left[1:]
        elif not word.startswith("-"):
            operands.append(word)
    return len(operands) > 1 or any(re.fullmatch(r"\$\{?ids\}?|\$\(.*\)", word) for word in operands)


RULES: tuple[Rule, ...] = (
    Rule(
        "a pattern without its opening parenthesis",
        "bash 4.2 takes its closing one for the end of a $( ) around it",
        "bash CHANGES, bash-4.3-alpha and 5.2 (parse_comsub); findings/centos7.md, 1 and 4",
        _bare_patterns,
    ),
    Rule(
        "a null string in an expansion",
        "bash before 5.0 drops it where other words stand beside it",
        "bash CHANGES, bash-5.0: null strings on the rhs of expansions … discarded incorrectly",
        _text(r"\$\{\w+:?[-+=?][^}\n]*?(?:''|(?<![\w}])\"\"(?![\w$]))"),
    ),
    Rule(
        "process substitution",
        "bash in POSIX mode, which is CentOS 7's /bin/sh, does not have it",
        "bash 4.2, POSIX mode, 6.11: process substitution is not available",
        _text(r"(?:^|\s)[<>]\("),
    ),
    Rule(
        "a command substitution in backquotes",
        "its quoting differs between shells",
        "POSIX, 2.6.3",
        _text(r"(?<!\\)`"),
    ),
    Rule(
        "journalctl --since with -n",
        "before systemd 254 it shows the first lines instead of the last ones: use tail",
        "lnykryn/systemd-rhel rhel-7.2, src/journal/journalctl.c:2011; systemd issues 1477, 26657",
        _called(
            "journalctl",
            lambda words, _: (
                any(word.startswith("--since") for word in words)
                and any(re.match(r"-n|--lines", word) for word in words)
            ),
        ),
    ),
    Rule(
        "docker inspect of several",
        "before 17.05 it stops at the first that is not there: use inspect_each",
        "moby v1.11.1, api/client/inspect.go, inspectElements",
        _called("docker", _several),
    ),
    Rule(
        "docker info -f whose complaint is not foreseen",
        "before 1.13 there is no such option",
        "moby v1.11.1, api/client/info.go",
        _called(
            "docker",
            lambda words, command: (
                words[:1] == ["info"] and any(word in ("-f", "--format") for word in words) and not command.redirected
            ),
        ),
    ),
    Rule(
        "systemctl kill from a rotation",
        "SELinux of 7.2 refuses it to logrotate",
        "fedora-selinux/selinux-policy-contrib e4637c2bb; findings/centos7.md, 3",
        lambda script, those: (
            " ".join(command.plain)
            for command in those
            if "postrotate" in script and command.plain[:2] == ("systemctl", "kill")
        ),
    ),
    Rule(
        "marathon --version",
        "the start script of 1.1 prints its whole command line, secrets included: ask rpm",
        "mesosphere/marathon v1.1.1, bin/marathon-framework; findings/centos7.md, 5",
        _called("marathon", lambda words, _: True),
    ),
    Rule(
        "a time with its zone's colon",
        "before 8.25 `date -Iseconds` writes +0000, and later ones +00:00",
        "coreutils NEWS, 8.25",
        _called("date", lambda words, _: any(re.match(r"-I|--iso-8601|--rfc-3339", word) for word in words)),
    ),
    Rule(
        "a format of stat that prints nothing of use",
        "%W (birth) is - or 0 before 8.31, and %Hd, %Ld, %r are newer",
        "coreutils v8.22, src/stat.c, print_stat; NEWS, 8.31 and 8.32",
        _called(
            "stat",
            lambda words, _: any(
                letter not in "nNdDiaAfFhuUgGtTmsBbowxXyYzZClScr%" or letter == "r"
                for before, word in zip(["", *words], words, strict=False)
                if before in ("-c", "-Lc", "--format", "--printf") or word.startswith(("--format=", "--printf="))
                for letter in re.findall(r"%[-+ #0']*[\d.]*(.)", word)
            ),
        ),
    ),
    Rule(
        "printf %q",
        "neither POSIX nor coreutils before 8.25 has it",
        "coreutils NEWS, 8.25",
        _called("printf", lambda words, _: "%q" in "".join(words[:1])),
    ),
    Rule(
        "an awk of later years",
        "gawk 4.0 has no typeof, no -i inplace and no --csv",
        "gawk NEWS, 4.1, 4.2 and 5.3",
        _called("awk", lambda words, _: bool(re.search(r"\btypeof\(|\bmkbool\(|@namespace", " ".join(words)))),
    ),
    Rule(
        "a column of ps that procps 3.3.10 lacks",
        "it ends with 'unknown user-defined format specifier'",
        "procps-ng v3.3.10, ps/output.c, format_array",
        _called("ps", lambda words, _: _unknown_columns(words)),
    ),
    Rule(
        "a template function of later clients",
        "Docker 1.11 knows json, split, join, title, lower and upper, and Go's own",
        "moby v1.11.1, utils/templates/templates.go",
        lambda _, those: (
            found[0]
            for command in those
            if "docker" in command.plain
            for word in command.plain
            for found in re.finditer(r"\{\{-|-\}\}|\{\{[^}]*\b(?:slice|pad|truncate|table)\b[^}]*\}\}", word)
        ),
    ),
)


def _unknown_columns(words: Sequence[str]) -> bool:
    columns = set(str(TABLE["ps_columns"]).split())
    given = [words[at + 1] for at, word in enumerate(words[:-1]) if word in ("-o", "-eo", "-Ao", "o")]
    return any(name.partition("=")[0] not in columns for one in given for name in one.split(","))


def violations(script: str) -> list[str]:
    """What CentOS 7 would refuse or misread in a script, a sentence each."""
    found = []
    those: list[Command] = []
    functions: set[str] = set()
    try:
        those, functions = commands(script)
    except Unreadable as error:
        found.append(f"cannot be read: {error}")
    for rule in RULES:
        found += [f"{rule.name}: {what!r}: {rule.why} ({rule.source})" for what in rule.finds(script, those)]
    for command in those:
        words = command.plain
        found += problems_of_command(words, functions)
    return list(dict.fromkeys(found))
