"""What a daemon's start script makes flags and environment of, and what its process runs with.

The packages of Mesos and Marathon start their daemons by a script that turns the files of a directory and the
variables of /etc/default into a command line. So a file that is no parameter of the site changes the daemon at its next
start, and a process may run with other flags than its files give, whatever the files' times are. Two steps see both:

`FlagDaemon`      restarts a process that runs with other flags or variables than those that its files give, and asks at
                  the gate `activate-foreign-flags` before a restart that would activate a foreign one
`ForeignFlags`    reports flags and variables that no parameter names; `allowed_flags` accepts them. They are never
                  removed, and a daemon is never restarted only because of one

Sources: Mesosphere's mesos-deb-packaging, mesos-init-wrapper; Marathon's bin/marathon-framework; proc(5).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from runbook.remote.probes import values
from runbook.remote.shell import Facts, facts, quote
from runbook.remote.steps import Change, Service
from runbook.remote.units import PROCESS, Report, shown
from runbook.wording import plural

_OF_THE_SHELL = frozenset(
    {"PATH", "HOME", "PWD", "OLDPWD", "SHLVL", "USER", "LOGNAME", "SHELL", "TERM", "LD_LIBRARY_PATH", "_"}
)
"""Variables that a file may build on what its shell has already: their value there is not known here."""

ACTIVATE = "activate-foreign-flags"
"""The gate before a restart that puts a flag in force that no parameter names."""


@dataclass(frozen=True)
class FlagSource:
    """Where the start script of one daemon takes its flags from.

    `directory`: each file in it becomes a flag (empty: none); `lists`: directories in it whose files join to one flag
    as `name:content;name:content`; `defaults`: the files of variables, in the order in which they are read, and
    `variables` those that become flags, by flag; `prefix`: variables that the program (or the script) reads as flags;
    `script`: by what the unit's ExecStart is known to run the script; `separate`: a flag and its value are two words.
    `own`: the flags that the runbook writes; `own_variables`: the variables, as `file:NAME`; `shipped`: variables as
    the package ships them, with their value.
    """

    unit: str
    directory: str
    defaults: tuple[str, ...]
    script: str
    prefix: str
    own: frozenset[str]
    own_variables: frozenset[str]
    lists: tuple[str, ...] = ()
    variables: Mapping[str, str] = field(default_factory=dict)
    shipped: Mapping[str, str] = field(default_factory=dict)
    separate: bool = False
    ignored: str = ""
    """Variables that begin so are read by nobody."""

    def reads(self, path: str) -> bool:
        """Whether a file (or the directory itself) gives flags or variables, and nothing else."""
        return path in (self.directory, *self.defaults) or path.startswith(f"{self.directory or '?'}/")

    @property
    def probe(self) -> str:
        """The sh text that prints what `Flags.read` reads. `$unit` must hold the properties that Service asks for."""
        names = f"{self.prefix}[A-Za-z0-9_]+|LIBPROCESS_[A-Z_]+|GLOG_[a-z_]+|JAVA_OPTS|LD_[A-Z_]+"
        return PROCESS + _PROBE.format(
            unit=quote(self.unit),
            directory=quote(self.directory or "/nonexistent"),
            lists=" ".join(map(quote, self.lists)) or '""',
            depth="" if self.separate else "-maxdepth 1",
            defaults=" ".join(map(quote, self.defaults)),
            names=quote(names),
        )


# The variables' files are read as the start script reads them, in a shell of their own. `eval` gets names only.
_PROBE = """\
script=$(systemctl show -p ExecStart {unit} 2>/dev/null | tr '\\n' ' ')
echo "script=$script"
systemctl show -p Environment {unit} 2>/dev/null | sed 's/^/unit_/'
systemctl show-environment 2>/dev/null | grep -E "^("{names}")=" | sed 's/=.*//; s/^/manager=/'
d={directory}
if [ -d "$d" ]; then
  find "$d/" {depth} -type f ! -name '.*' | LC_ALL=C sort | while IFS= read -r f; do
    printf 'given=%s %s\\n' "${{f##*/}}" "$(hide "${{f##*/}}" "$(cat "$f" 2>/dev/null)")"
  done
fi
for list in {lists}; do
  [ -n "$list" ] || continue
  for f in "$d/$list"/*; do
    if [ -f "$f" ] && [ -s "$f" ]; then printf 'part=%s %s:%s\\n' "$list" "${{f##*/}}" "$(cat "$f" | tr '\\n' ' ')"; fi
  done
done
assigned() {{
  sed -n 's/^[[:space:]]*\\(export[[:space:]]\\{{1,\\}}\\)\\{{0,1\\}}\\([A-Za-z_][A-Za-z0-9_]*\\)=.*/\\2/p' "$1" |
    sort -u
}}
all=
for file in {defaults}; do
  [ -f "$file" ] || continue
  for name in $(assigned "$file"); do all="$all|$name"; echo "assigned=$file $name"; done
done
(
  set -a
  for file in {defaults}; do
    [ -f "$file" ] || continue
    . "$file" >/dev/null 2>&1
    for name in $(assigned "$file"); do
      eval "set -- \\"\\${{$name-}}\\""
      printf 'variable=%s %s %s\\n' "$file" "$name" "$(hide "$name" "$1")"
    done
  done
  echo sourced=yes
) 2>/dev/null
pid=$(printf '%s\\n' "$unit" | sed -n 's/^MainPID=//p')
[ "${{pid:-0}}" = 0 ] || process "$pid" {names}"$all"
"""


@dataclass(frozen=True)
class Given:
    """A flag or variable as a file gives it: its name, its word on the command line (or `NAME=value`), and the file.

    `variable` is the variable that a start script makes the flag of.
    """

    name: str
    word: str
    source: str
    variable: str = ""

    @property
    def value(self) -> str:
        """What follows the name; empty for a flag without a value."""
        return self.word.partition("=")[2]

    def __str__(self) -> str:
        return f"{masked_word(self.word)} ({self.source})"


def masked_word(word: str) -> str:
    """A word `--flag=value` or `NAME=value` as a person may see it."""
    name, equals, value = word.partition("=")
    return f"{name}{equals}{shown(value)}"


@dataclass(frozen=True)
class Flags:
    """The flags and variables of one daemon on one host: those of its files, and those that its process runs with.

    `running` and `environ` are None where there is no process, or where the unit does not run the start script, so that
    the files say nothing of it. `known` is False where the variables' files could not be read as a shell reads them.
    """

    source: FlagSource
    given: Mapping[str, Given]
    variables: tuple[Given, ...]
    """Of /etc/default, with the file that assigns each; one that two files assign comes twice."""
    running: Mapping[str, str] | None
    environ: Mapping[str, str] | None
    manager: tuple[str, ...]
    """Variables that `systemctl set-environment` gives every unit."""
    unit_environment: str
    open_files: str
    known: bool

    @classmethod
    def read(cls, source: FlagSource, state: str) -> Flags:
        """Read what `source.probe` printed."""
        found = facts(state)
        contents = dict[tuple[str, str], str]()
        for line in values(state, "variable"):
            file, name, value = line.split(" ", 2)
            contents[file, name] = value
        assigned = [_pair(line) for line in values(state, "assigned")]
        variables = tuple(Given(name, f"{name}={contents.get((file, name), '')}", file) for file, name in assigned)
        effective = {one.name: one for one in variables}  # the last file wins
        given = {}
        for flag, variable in source.variables.items():
            if variable in effective and (text := effective[variable].value):
                place = f"{variable} in {effective[variable].source}"
                given[flag] = Given(flag, f"--{flag}={text}", place, variable)
        for line in values(state, "given"):
            name, value = _pair(line)
            flag = flag_of(name)
            word = f"--{name[1:]}" if name.startswith("?") else f"--{name}={value}"
            given[flag] = Given(flag, word, f"{source.directory}/{name}")
        for flag in source.lists:
            if parts := [part for name, part in map(_pair, values(state, "part")) if name == flag]:
                given[flag] = Given(flag, f"--{flag}={';'.join(map(_plain, parts))}", f"{source.directory}/{flag}/")
        if source.separate:  # a script turns its variables into flags
            for one in effective.values():
                if one.name.startswith(source.prefix) and not _ignored(source, one.name):
                    flag = one.name.removeprefix(source.prefix).lower()
                    place = f"{one.name} in {one.source}"
                    given[flag] = Given(flag, f"--{flag}={one.value}", place, one.name)
        words = values(state, "runs")
        runs = source.script in found.get("script", "") and any(word.startswith("--") for word in words)
        return cls(
            source,
            given,
            variables,
            _running(words, separate=source.separate) if runs else None,
            dict(_pair(line) for line in values(state, "environ")) if runs else None,
            values(state, "manager"),
            found.get("unit_Environment", ""),
            found.get("files", ""),
            "sourced" in found,
        )

    def foreign(self, allowed: frozenset[str]) -> Iterator[Given]:
        """The flags and variables that neither the runbook nor the package gives, and that no parameter accepts."""
        source = self.source
        for one in self.given.values():
            if one.name not in source.own | allowed and not one.variable:
                yield one
        for one in self.variables:
            names = {one.name, one.name.removeprefix(source.prefix).lower()}
            names |= {flag for flag, variable in source.variables.items() if variable == one.name}
            if (
                f"{one.source}:{one.name}" not in source.own_variables
                and source.shipped.get(f"{one.source}:{one.name}") != one.value
                and not names & allowed
                and not _ignored(source, one.name)
            ):
                yield one
        for name in self.manager:
            if not {name, name.removeprefix(source.prefix).lower()} & allowed:
                yield Given(name, f"{name}={(self.environ or {}).get(name, '')}", "systemctl set-environment")

    def in_force(self, one: Given) -> bool | None:
        """Whether the process runs with a flag or variable; None where there is no process to compare with."""
        if self.running is None or self.environ is None:
            return None
        if one.word.startswith("--"):
            return _plain(self.running.get(one.name, "")) == _plain(one.word)
        for flag, variable in self.source.variables.items():
            if variable == one.name:
                return _value(self.running.get(flag, "")) == _value(one.word)
        if one.name == "ULIMIT":
            limit = _open_files(_value(one.word))
            return limit == self.open_files if limit else None
        if self.source.separate and one.name.startswith(self.source.prefix):
            flag = one.name.removeprefix(self.source.prefix).lower()
            return _value(self.running.get(flag, "")) == _value(one.word)
        if one.name in _OF_THE_SHELL or (one.name not in self.environ and not self._exported):
            return None
        return _plain(self.environ.get(one.name, "")) == _value(one.word)

    @property
    def _exported(self) -> bool:
        """Whether the start script exports the variables of its files: then the process has some of them."""
        return any(one.name in (self.environ or {}) for one in self.variables if one.name not in _OF_THE_SHELL)

    def pending(self, allowed: frozenset[str]) -> list[Given]:
        """The foreign flags and variables that the next start would put in force."""
        return [one for one in self.foreign(allowed) if self.in_force(one) is False]

    def differences(self, allowed: frozenset[str]) -> dict[str, tuple[str, str]]:
        """How the process runs, and how its files would have it run, by flag or variable; without foreign ones that
        the process does not have yet."""
        if self.running is None or self.environ is None or not self.known:
            return {}
        waiting = {one.name for one in self.foreign(allowed) if self.in_force(one) is False}
        found = {}
        for flag in dict.fromkeys((*self.given, *self.running)):
            given, running = self.given.get(flag), self.running.get(flag, "")
            if flag in waiting or _plain(given.word if given else "") == _plain(running):
                continue
            if given is not None and given.variable in waiting:
                continue
            wanted = f"{masked_word(given.word)} ({given.source})" if given else "(no file gives it)"
            found[f"process, --{flag}"] = (masked_word(running) if running else "(not given)", wanted)
        return found | self._of_environment(waiting)

    def _of_environment(self, waiting: set[str]) -> dict[str, tuple[str, str]]:
        assert self.environ is not None
        effective = {one.name: one for one in self.variables}
        found = {}
        names = dict.fromkeys((*self.environ, *(effective if self._exported else ())))
        for name in names:
            value = self.environ.get(name, "")
            if name in waiting or name in self.manager or f"{name}=" in self.unit_environment or name in _OF_THE_SHELL:
                continue
            if self.source.separate and name.startswith(self.source.prefix):
                continue  # flags by now
            given = effective.get(name)
            if given is not None and _value(given.word) != _plain(value):
                found[f"process, {name}"] = (shown(value), f"{shown(_value(given.word))} ({given.source})")
            elif given is None and name.startswith((self.source.prefix, "LIBPROCESS_", "GLOG_")):
                found[f"process, {name}"] = (shown(value), "(no file gives it)")
        limit = next((one for one in reversed(self.variables) if one.name == "ULIMIT"), None)
        if limit is not None and "ULIMIT" not in waiting and self.open_files:
            wanted = _open_files(_value(limit.word))
            if wanted and wanted != self.open_files:
                found["process, open files"] = (self.open_files, f"{wanted} (ULIMIT in {limit.source})")
        return found


def flag_of(name: str) -> str:
    """The flag that a file's name gives: `?no-logger` and `?logger` give `logger`."""
    if name.startswith("?"):
        return name[1:].removeprefix("no-")
    return name


def _ignored(source: FlagSource, name: str) -> bool:
    return bool(source.ignored) and name.startswith(source.ignored)


def _pair(line: str) -> tuple[str, str]:
    name, _, value = line.partition(" ")
    return name, value


def _plain(text: str) -> str:
    return " ".join(text.split())


def _value(word: str) -> str:
    return _plain(word.partition("=")[2])


def _open_files(limits: str) -> str:
    """The soft limit of open files that the arguments of `ulimit` set; empty where they set none."""
    match = re.search(r"(?:^|\s)-S?n\s*(\d+)", limits)
    return match[1] if match else ""


def _running(words: tuple[str, ...], *, separate: bool) -> dict[str, str]:
    """The flags of a command line, by name, each as one word."""
    found: dict[str, str] = {}
    flag = ""
    for word in words:
        if word.startswith("--") and len(word) > 2:
            name, _, _ = word[2:].partition("=")
            flag = name.removeprefix("no-")
            found[flag] = word
        elif separate and flag:
            found[flag] += f" {word}" if "=" in found[flag] else f"={word}"
    return found


# steps


@dataclass(frozen=True)
class FlagDaemon(Service):
    """A service whose process runs with the flags and variables that its files give.

    It is restarted where they differ, and where it is older than its files; not where only foreign flags wait for its
    next start. A restart for other reasons that would activate those is behind the gate `activate-foreign-flags`.
    """

    flags: FlagSource | None = field(default=None, kw_only=True)
    allowed: frozenset[str] = field(default=frozenset(), kw_only=True)

    def probe(self) -> str:
        assert self.flags is not None
        return super().probe() + self.flags.probe

    def plan(self, state: str, pending: frozenset[str] = frozenset()) -> Change | None:
        assert self.flags is not None
        change = super().plan(state, pending)
        if change is None:
            return None
        found = Flags.read(self.flags, state)
        waiting = found.pending(self.allowed) if "restart" in change.actions and found.running is not None else []
        if not waiting:
            if not {"start", "restart"} & set(change.actions) or found.running is not None:
                return change
            foreign = [str(one) for one in found.foreign(self.allowed)]
            started = "".join(f"+foreign: {one}\n" for one in foreign)
            return replace(change, diff=change.diff + started)
        text = ", ".join(map(str, waiting))
        consequence = f"the restart activates {plural(len(waiting), 'foreign flag')}: {text}"
        return replace(
            change,
            diff=change.diff + "".join(f"+foreign: {one}\n" for one in waiting),
            gate=change.gate or ACTIVATE,
            consequence="; ".join(filter(None, [change.consequence, consequence])),
        )

    def _runs_differently(self, present: Facts, state: str) -> dict[str, tuple[str, str]]:
        assert self.flags is not None
        return Flags.read(self.flags, state).differences(self.allowed)

    def _stale(self, present: Facts, state: str, pending: frozenset[str]) -> list[str]:
        assert self.flags is not None
        reasons = super()._stale(present, state, pending)
        if pending.intersection(reasons) or not all(map(self.flags.reads, reasons)):
            return reasons
        found = Flags.read(self.flags, state)
        # Only files of flags are newer, and the process runs with all that they give but for foreign ones.
        only_foreign = found.known and found.pending(self.allowed) and not found.differences(self.allowed)
        return [] if only_foreign else reasons


@dataclass(frozen=True)
class ForeignFlags(Report):
    """No flags or variables of a daemon but those of the parameters. Others are reported with their file, and kept."""

    flags: FlagSource
    allowed: frozenset[str] = frozenset()

    @property
    def label(self) -> str:
        return f"foreign flags of {self.flags.unit}"

    def probe(self) -> str:
        return f"unit=$(systemctl show -p MainPID {quote(self.flags.unit)} 2>/dev/null)\n{self.flags.probe}"

    def plan(self, state: str, pending: frozenset[str] = frozenset()) -> Change | None:
        found = Flags.read(self.flags, state)
        foreign = list(found.foreign(self.allowed))
        if not foreign:
            return None
        words = {True: "in force", False: "not in force: the next start activates it", None: "the next start reads it"}
        lines = [(one, words[found.in_force(one)]) for one in foreign]
        summary = "; ".join(f"{masked_word(one.word)} ({one.source}; {state})" for one, state in lines)
        return Change(
            f"no parameter names {summary}: not changed by the runbook (accept it under allowed_flags, or remove it)",
            "".join(f"+{one.source}: {masked_word(one.word)}\n" for one, _ in lines),
            kept=True,
        )
