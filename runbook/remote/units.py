"""What systemd really runs of a service: its effective unit, and the process behind it.

`PackagedUnit` compares the effective unit with the packaged one. It reports drop-ins that neither this runbook nor a
package brought, a unit file that was edited in place (`rpm -V`), one that shadows the packaged one (`/etc` before
`/usr/lib`), and one that is masked or linked. `SafePaths` reports and removes write permissions of others on the
configuration of a daemon.

Nothing that an administrator put there is removed: such drift is a `Change` with `kept`.

Sources: systemd.unit(5) of systemd 219 (search path, drop-ins, masking); systemctl(1), `show` and `cat`; rpm(8),
'Verify options'.
"""

from __future__ import annotations

import base64
import difflib
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from runbook.errors import StepFailed
from runbook.remote.shell import facts, quote
from runbook.remote.steps import Change, Step, _check_name, _check_path
from runbook.secrets import MASK, SECRET_WORDS, mask_arguments


def _any_case(word: str) -> str:
    return "".join(f"[{char.upper()}{char}]" if char.isalpha() else char for char in word)


_NAMES = [
    _any_case(form)
    for word in SECRET_WORDS
    for form in dict.fromkeys((word, word.replace("_", "-"), word.replace("_", "")))
]

# The same names as in `mask_arguments`. A secret is sent as its hash, so that it can be compared and never shown.
HIDE = (
    "\nhide() {\n  case $1 in\n    ("
    + "|\\\n".join(f"*{name}*" for name in _NAMES)
    + r""")
      s=$(printf '%s' "$2" | sha256sum); printf 'secret:%s' "${s%% *}";;
    (*) printf '%s' "$2" | tr '\n' ' ';;
  esac
}
"""
)
"""Defines `hide NAME VALUE`: prints the value in one line, or its hash where the name speaks of a secret."""


def shown(value: str) -> str:
    """A value that `hide` printed, as a person may see it."""
    return MASK if value.startswith("secret:") else mask_arguments(value)


class Report(Step):
    """A step that reports drift and never removes it: each of its changes is `kept`."""

    def script(self, change: Change) -> str:
        """Raises StepFailed: the engine runs no script for a change that is kept."""
        raise StepFailed(f"{self.label}: not changed by the runbook")


# the unit

_SEARCH = (
    "/etc/systemd/system.control",
    "/run/systemd/system.control",
    "/run/systemd/transient",
    "/etc/systemd/system",
    "/run/systemd/system",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
)
"""Where a unit file is looked for, the first one wins. (Generators write none for the services of packages.)"""

_PROBE_UNIT = """\
unit={unit}
rpm -q {package} >/dev/null 2>&1 && echo packaged=yes
systemctl show -p LoadState,UnitFileState,FragmentPath,DropInPaths,NeedDaemonReload "$unit" 2>/dev/null
file() {{
  owned=no; rpm -qf "$2" >/dev/null 2>&1 && owned=yes
  link=$(readlink "$2" 2>/dev/null)
  echo "$1=$owned $(base64 < "$2" 2>/dev/null | tr -d '\\n'):${{link:+$(readlink -f "$2")}} $2"
}}
for d in {search}; do
  f=$d/$unit
  if [ -e "$f" ] || [ -L "$f" ]; then file fragment "$f"; fi
  for f in "$d/$unit.d"/*.conf; do
    if [ -e "$f" ] || [ -L "$f" ]; then file dropin "$f"; fi
  done
done
for f in $(systemctl show -p DropInPaths "$unit" 2>/dev/null | sed -n 's/^DropInPaths=//p'); do
  case $f in (*/"$unit.d"/*) ;; (*) if [ -e "$f" ]; then file dropin "$f"; fi;; esac
done
exit 0
"""
_PROBE_FILES = "rpm -V --nodeps {package} 2>/dev/null | sed 's/^/verify=/'\n"

# Nine columns of which 5 is the content, M the mode, U and G the owner, L a link, D a device; a missing file says
# `missing`. A letter after them marks configuration (c), documentation (d), ghosts (g), licences (l) and readmes (r).
_VERIFY = re.compile(r"(missing|[.?SM5DLUGTP]{8,9})\s+(?:([cdglr])\s+)?(/.*?)(?:\s\(.*\))?")
_PROGRAMS = ("/usr/", "/lib/", "/lib64/", "/bin/", "/sbin/", "/opt/")


@dataclass(frozen=True)
class UnitFile:
    """One file of a unit: its path, its text, whether a package owns it, and what it points to where it is a link."""

    path: str
    text: str
    owned: bool
    target: str = ""

    @property
    def masks(self) -> bool:
        """Whether it keeps the unit from being loaded at all."""
        return self.target == "/dev/null" or not (self.text.strip() or self.owned)

    @property
    def packaged(self) -> bool:
        """Whether it stands as a package brought it: a link into a directory of packages counts as its target."""
        return self.owned or self.target.startswith(("/usr/lib/systemd/", "/lib/systemd/"))


@dataclass(frozen=True)
class UnitState:
    """The effective unit of a service as `PackagedUnit.probe` printed it; files in the order of precedence."""

    load: str
    fragments: tuple[UnitFile, ...]
    dropins: tuple[UnitFile, ...]
    edited: Mapping[str, str]
    """What `rpm -V` printed of each file of the package that is no configuration, by path."""
    reload: bool
    packaged: bool

    @classmethod
    def read(cls, state: str) -> UnitState:
        """Read what the probe printed."""
        found = facts(state)
        fragments: dict[str, UnitFile] = {}
        dropins: dict[str, UnitFile] = {}
        edited = {}
        for line in state.split("\n"):
            kind, _, rest = line.partition("=")
            if kind in ("fragment", "dropin"):
                owned, coded, path = rest.split(" ", 2)
                content, _, target = coded.partition(":")
                text = base64.b64decode(content).decode("utf-8", "replace")
                files = fragments if kind == "fragment" else dropins
                files.setdefault(path, UnitFile(path, text, owned == "yes", target))
            elif kind == "verify" and (match := _VERIFY.fullmatch(rest.strip())):
                flags, mark, path = match.groups()
                if mark is None and path.startswith(_PROGRAMS) and (flags == "missing" or set(flags) & set("5MDLUG")):
                    edited[path] = flags
        return cls(
            found.get("LoadState", "not-found"),
            tuple(fragments.values()),
            tuple(dropins.values()),
            edited,
            found.get("NeedDaemonReload") == "yes",
            "packaged" in found,
        )


@dataclass(frozen=True)
class PackagedUnit(Report):
    """The effective unit of a service is that of its package, with no drop-ins but those of this runbook.

    `own` are the paths of the drop-ins that the runbook writes, `allowed` the file names of drop-ins that the
    parameters accept (`proxy.conf`). With `verify` the programs of the package are compared as well. `command` is a
    pattern: a unit file that was edited in place, and differs in its ExecStart only as far as this matches, is none of
    the differences. Differences are reported with their path and left to the administrator.
    """

    unit: str
    package: str
    own: tuple[str, ...] = ()
    allowed: tuple[str, ...] = ()
    verify: bool = True
    command: str | None = None

    def __post_init__(self) -> None:
        for name in (self.unit, self.package):
            _check_name(name, "a unit or package")

    @property
    def label(self) -> str:
        return f"unit of {self.unit}"

    def probe(self) -> str:
        name = self.unit if "." in self.unit else f"{self.unit}.service"
        package = quote(self.package)
        files = _PROBE_FILES.format(package=package) if self.verify else ""
        return files + _PROBE_UNIT.format(unit=quote(name), package=package, search=" ".join(_SEARCH))

    def plan(self, state: str, pending: frozenset[str] = frozenset()) -> Change | None:
        found = list(self.differences(UnitState.read(state)))
        if not found:
            return None
        summary = "; ".join(what for what, _ in found)
        return Change(f"{summary}: not changed by the runbook", "".join(diff for _, diff in found), kept=True)

    def differences(self, state: UnitState) -> Iterator[tuple[str, str]]:
        """Each difference from the packaged unit: what it is, with its path, and its diff."""
        if not state.packaged:  # the step of the package reports that
            return
        if state.fragments:
            yield from self._of_fragment(state.fragments)
        for file in state.dropins:
            if file.owned or file.path in self.own or file.path.rpartition("/")[2] in self.allowed:
                continue
            if file.masks and file.target:  # the name of a packaged drop-in, linked to /dev/null
                yield f"{file.path} disables a packaged drop-in", f"+{file.path} -> /dev/null\n"
                continue
            yield f"foreign drop-in {file.path}", _added(file)
        for path, flags in state.edited.items():
            what = "was removed" if flags == "missing" else f"was changed after installation (rpm -V: {flags})"
            unit = next((file for file in state.fragments if file.path == path), None)
            if unit is not None and self.command and _starts_only(unit.text, self.command):
                continue
            diff = f"-{path}: as package {self.package} brought it\n+{path}: rpm -V: {flags}\n"
            if unit is not None and "5" in flags:
                diff += "".join(f"+  {line}\n" for line in mask_arguments(unit.text).splitlines())
            yield f"{path} {what}", diff
        if state.reload:
            yield "systemd has not read the unit since it was changed (run `systemctl daemon-reload`)", ""

    def _of_fragment(self, fragments: Sequence[UnitFile]) -> Iterator[tuple[str, str]]:
        first = fragments[0]
        if first.masks:
            hint = f"systemctl unmask {self.unit}"
            yield f"masked by {first.path} (to undo: {hint})", f"+{first.path} -> {first.target or '(empty file)'}\n"
        elif not first.packaged:
            packaged = next((file for file in fragments[1:] if file.owned), None)
            linked = f" -> {first.target}" if first.target else ""
            if packaged is None:
                yield f"{first.path}{linked} is the unit, and no package brought it", _added(first)
                return
            diff = "".join(
                line if line.endswith("\n") else f"{line}\n"
                for line in difflib.unified_diff(
                    mask_arguments(packaged.text).splitlines(keepends=True),
                    mask_arguments(first.text).splitlines(keepends=True),
                    packaged.path,
                    first.path,
                )
            )
            yield f"{first.path}{linked} shadows {packaged.path}", diff or f"+{first.path}{linked} (same content)\n"


def _starts_only(text: str, command: str) -> bool:
    """Whether a unit starts what the pattern `command` matches, and sets no environment, user or other command."""
    starts = re.findall(r"(?m)^ExecStart=(.*)$", text)
    others = re.search(r"(?m)^(Exec(?!Start=)|Environment|PassEnvironment|User|Group|Sockets)\w*=", text)
    return len(starts) == 1 and re.fullmatch(command, starts[0].strip()) is not None and others is None


def _added(file: UnitFile) -> str:
    link = f" -> {file.target}" if file.target else ""
    return f"+{file.path}{link}\n" + "".join(f"+  {line}\n" for line in mask_arguments(file.text).splitlines())


# permissions


@dataclass(frozen=True)
class SafePaths(Step):
    """Files and directories of a daemon belong to root, and nobody else may write them; absent ones are ignored.

    A mode that is stricter than the usual one stays as it is. `owners` are users beside root that may own them.
    """

    name: str
    paths: tuple[str, ...]
    owners: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        for path in self.paths:
            _check_path(path)

    @property
    def label(self) -> str:
        return f"permissions of {self.name}"

    def probe(self) -> str:
        return (
            f"for p in {' '.join(map(quote, self.paths))}; do\n"
            '  if [ -e "$p" ]; then echo "path=$(stat -L -c \'%a %U\' "$p") $p"; fi\ndone\n'
        )

    def plan(self, state: str, pending: frozenset[str] = frozenset()) -> Change | None:
        diff, actions = "", []
        for line in state.split("\n"):
            if not line.startswith("path="):
                continue
            mode, owner, path = line.removeprefix("path=").split(" ", 2)
            if int(mode, 8) & 0o022:
                diff += f"-{path}: mode {mode}\n+{path}: mode {int(mode, 8) & ~0o022:o}\n"
                actions.append(f"mode {path}")
            if owner != "root" and owner not in self.owners:
                diff += f"-{path}: owner {owner}\n+{path}: owner root\n"
                actions.append(f"owner {path}")
        if not actions:
            return None
        paths = dict.fromkeys(action.partition(" ")[2] for action in actions)
        return Change(f"set mode and owner of {', '.join(paths)}", diff, actions=tuple(actions))

    def script(self, change: Change) -> str:
        commands = {"mode": "chmod go-w", "owner": "chown root"}
        lines = (
            f"{commands[what]} {quote(path)}\n"
            for what, _, path in (action.partition(" ") for action in change.actions)
        )
        return "set -e\n" + "".join(lines)


# the process

_PROBE_COMMAND = """\
systemctl show -p ExecStart,Environment {unit} 2>/dev/null | sed 's/^/unit_/'
systemctl show -p EnvironmentFiles {unit} 2>/dev/null | sed -n 's/^EnvironmentFiles\\{{0,1\\}}=\\([^ ]*\\) .*/\\1/p' |
  while IFS= read -r f; do if [ -f "$f" ]; then echo "unit_file=$(base64 < "$f" | tr -d '\\n')"; fi; done
pid=$(systemctl show -p MainPID {unit} 2>/dev/null | sed -n 's/^MainPID=//p')
[ "${{pid:-0}}" = 0 ] || process "$pid" -
"""
_SHELLS = frozenset({"sh", "bash", "dash", "env"})


def command_probe(unit: str) -> str:
    """The sh text that prints the command of a unit and that of its process, for `other_command`."""
    return PROCESS + _PROBE_COMMAND.format(unit=quote(unit))


def other_command(state: str) -> tuple[list[str], list[str]] | None:
    """The options with which the process of a unit runs, and those that its unit gives; None where they are the same.

    None as well where there is no process, or the unit runs a shell, whose command line need not be the program's.
    """
    found = facts(state)
    match = re.search(r"argv\[\]=(.*?) ; (?:ignore_errors|flags)=", found.get("unit_ExecStart", ""))
    runs = [line.removeprefix("runs=") for line in state.split("\n") if line.startswith("runs=")]
    if match is None or not runs:
        return None
    variables = dict[str, str]()
    files = (line.removeprefix("unit_file=") for line in state.split("\n") if line.startswith("unit_file="))
    texts = [found.get("unit_Environment", ""), *(base64.b64decode(file).decode("utf-8", "replace") for file in files)]
    for text in texts:
        lines = (line for line in text.splitlines() if not line.lstrip().startswith(("#", ";")))
        words = (word for line in lines for word in _split(line))
        variables |= dict(word.split("=", 1) for word in words if "=" in word)
    given: list[str] = []
    for word in match[1].split():
        if whole := re.fullmatch(r"\$(\w+)", word):
            given += _split(variables.get(whole[1], ""))
        else:
            given.append(re.sub(r"\$\{(\w+)\}", lambda name: variables.get(name[1], ""), word))
    if given[0].rpartition("/")[2] in _SHELLS:
        return None
    options, wanted = _options(runs), _options(given)
    if mask_arguments(" ".join(options)) == mask_arguments(" ".join(wanted)):  # one has secrets as their hashes
        return None
    return options, wanted


def _options(words: Sequence[str]) -> list[str]:
    """The words from the first option on: the program may have another name than the command that started it."""
    first = next((place for place, word in enumerate(words) if word.startswith("-")), len(words))
    return " ".join(words[first:]).split()


def _split(line: str) -> list[str]:
    try:
        return shlex.split(line)
    except ValueError:  # a quotation that does not end
        return line.split()


# Words of a command line are separated by null bytes; a line end inside a word becomes a blank. `hidden` remembers that
# the next word is the value of a secret option.
PROCESS = (
    HIDE
    + r"""
process() {
  [ -r "/proc/$1/cmdline" ] || return 0
  hidden=
  tr '\n\0' ' \n' 2>/dev/null < "/proc/$1/cmdline" | while IFS= read -r word; do
    case $word in
      (-*=*) hidden=; printf 'runs=%s=%s\n' "${word%%=*}" "$(hide "${word%%=*}" "${word#*=}")";;
      (-*) hidden=$word; printf 'runs=%s\n' "$word";;
      (*) printf 'runs=%s\n' "$(hide "$hidden" "$word")"; hidden=;;
    esac
  done
  tr '\n\0' ' \n' 2>/dev/null < "/proc/$1/environ" | grep -E "^($2)=" | while IFS= read -r word; do
    printf 'environ=%s %s\n' "${word%%=*}" "$(hide "${word%%=*}" "${word#*=}")"
  done
  sed -n 's/^Max open files *\([^ ]*\) .*/files=\1/p' "/proc/$1/limits" 2>/dev/null
}
"""
)
"""Defines `process PID NAMES`: prints the command line of a process a word a line (`runs=`), the variables of its
environment whose names match NAMES, an extended regular expression (`environ=NAME VALUE`), and its limit of open files
(`files=`)."""
