"""What can be desired of a host. Each step is a frozen value with three pure functions, tested without any host:

`probe()`          the sh text that prints the present state
`plan(state, …)`   None where the state is the desired one, else the Change
`script(change)`   the sh text that makes the change, and fails where it cannot

Scripts need POSIX sh and coreutils on the host, plus the tool that a step is about (rpm, yum, systemctl).
Every value reaches the shell quoted, and file contents as base64 on standard input.
"""

from __future__ import annotations

import base64
import difflib
import hashlib
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import ClassVar

from runbook.errors import StepFailed
from runbook.remote.shell import Facts, facts, heredoc, quote

STATE_DIR = "/var/lib/runbook"
CONTENT_CAP = 256 * 1024
"""Bytes of a file that a probe brings back for the diff; of a larger one only the hash is known."""

STEADY = 2.0
"""Seconds that a service must run after its start before it counts as started: a bad flag ends it within one."""

ANYTHING = "*"
"""What a step touches whose effects cannot be foreseen, such as a package's scriptlets."""


@dataclass(frozen=True)
class Upload:
    """A large local file that must lie at `remote` (named by its content) before a script runs."""

    local: Path
    sha256: str
    remote: str


@dataclass(frozen=True)
class Change:
    """The difference between the present and the desired state, and what the script needs to remove it.

    `summary` and `diff` are for people; `observed` is what must still be true when the script runs (compare and
    swap); `content` is the file content to write; `gate` names the approval that this change needs, if any, and
    `consequence` what it does beyond the step itself. With `kept` the difference is drift that the runbook reports and
    never removes, because an administrator made it: `apply` shows it and goes on, and no script is run.
    """

    summary: str
    diff: str = ""
    observed: str = ""
    content: bytes | None = field(default=None, repr=False)
    actions: tuple[str, ...] = ()
    uploads: tuple[Upload, ...] = ()
    gate: str | None = None
    consequence: str = ""
    kept: bool = False


class Step(ABC):
    """The desired state of one thing on a host."""

    @property
    def touches(self) -> frozenset[str]:
        """The paths (or ANYTHING) whose state a change of this step alters."""
        return frozenset()

    @property
    def reads(self) -> frozenset[str]:
        """The paths that its plan is made from: after a pending change of one, the step must be probed again."""
        return frozenset()

    @property
    @abstractmethod
    def label(self) -> str:
        """What this step is about, in a few words, the same on every host."""

    @abstractmethod
    def probe(self) -> str:
        """The sh text that prints the present state. It changes nothing."""

    @abstractmethod
    def plan(self, state: str, pending: frozenset[str] = frozenset()) -> Change | None:
        """The Change from `state` (what `probe` printed) to the desired state, or None.

        `pending` are the paths that earlier steps of the same call are about to change. Raises StepFailed where the
        state is one that the step must not touch (a folder where a file should be, say).
        """

    @abstractmethod
    def script(self, change: Change) -> str:
        """The sh text that makes `change`; its exit status tells success."""


# files


_PROBE_FILE = """\
p={path}
if [ -L "$p" ]; then echo kind=link; printf 'target=%s\n' "$(readlink "$p")"
elif [ -f "$p" ]; then
  echo kind=file; stat -c '{attributes}
size=%s' "$p"
  s=$(sha256sum < "$p") || exit 1
  s=${{s%% *}}; echo "sha256=$s"
  if [ "$s" != {wanted} ] && [ "$(stat -c %s "$p")" -le {cap} ]; then echo "content=$(base64 < "$p" | tr -d '\\n')"; fi
  if selinuxenabled 2>/dev/null; then l=$(restorecon -n -v "$p" 2>/dev/null); [ -z "$l" ] || echo "label=$l"; fi
elif [ -d "$p" ]; then echo kind=directory
elif [ -e "$p" ]; then echo kind=other
else echo kind=absent
fi
"""

# `sync FILE` is coreutils 8.24; 8.22 syncs all disks instead (its sync.c). dd opens the file and calls fsync(2) on it.
FSYNC = "dd if=/dev/null conv=notrunc,fsync status=none"
"""What brings a file (`of=`) to the disk before it is renamed: else it may be empty after a power failure."""

# Staged on the target's mount, so that the rename is atomic, but never in the target's folder: a stray file in
# /etc/mesos-master would be a fatal unknown flag. The first backup of a record stays: it is the state before it.
# The label is that of the replaced file where restorecon would leave it (of a customizable type it leaves an
# administrator's), and else that of the policy. It is set before the rename (mv -Z of coreutils 8.22 does it after), so
# that no file is left with a wrong one; a file system may have none, which is no error.
_WRITE_FILE = """\
set -e
p={path}; d={parent}
[ -d "$d" ] || {{ echo "folder $d does not exist" >&2; exit 1; }}
base={state}/staging
mkdir -p -m 700 "$base"
mount=$(stat -c %m "$d")
[ "$(stat -c %m "$base")" = "$mount" ] || base=${{mount%/}}
stage=$(mktemp -d "$base/.runbook.XXXXXX")
trap 'rm -rf "$stage"' EXIT
trap 'exit 1' HUP INT TERM
t=$stage/new
base64 -d > "$t" {content}
s=$(sha256sum < "$t"); [ "${{s%% *}}" = {wanted} ] || {{ echo "the content did not arrive whole" >&2; exit 1; }}
chown {owner} "$t"
chmod {mode} "$t"
{compare}
{backup}if selinuxenabled 2>/dev/null; then
  if [ -e "$p" ] && l=$(restorecon -n -v "$p" 2>/dev/null) && [ -z "$l" ]
  then chcon --reference="$p" "$t"
  else chcon "$(matchpathcon -n "$p")" "$t"
  fi 2>/dev/null || :
fi
{fsync} of="$t"
mv -fT "$t" "$p"
"""
_BACKUP = """\
b="$RUNBOOK_BACKUP"
if [ -e "$p" ] && ! [ -e "$b$p" ]; then
  mkdir -p -m 700 {state}/backup "$b"; mkdir -p "$b$d"; cp -p "$p" "$b/.part"
  {fsync} of="$b/.part"; mv -f "$b/.part" "$b$p"
fi
"""
_RELABEL = 'if selinuxenabled 2>/dev/null; then restorecon "$p" || :; fi\n'
_COMPARE = """\
if [ -L "$p" ]; then now=link
elif [ -f "$p" ]; then s=$(sha256sum < "$p"); now=${{s%% *}}
elif [ -e "$p" ]; then now=other
else now=absent
fi
[ "$now" = {observed} ] || {{
  echo "$p was changed by somebody else since it was read: look at it, then run again" >&2; exit 1
}}"""


def sha256(data: bytes) -> str:
    """The SHA-256 of `data` in lower-case hex."""
    return hashlib.sha256(data).hexdigest()


def unified_diff(path: str, before: bytes | None, after: bytes | None) -> str:
    """A unified diff of two contents, either of them None where there is no file; of binary ones only the sizes."""
    if b"\0" in (before or b"") or b"\0" in (after or b""):
        return before_after({path: (_described(before), _described(after))})
    old, new = (_split((side or b"").decode("utf-8", "backslashreplace")) for side in (before, after))
    names = ("/dev/null" if before is None else path, "/dev/null" if after is None else path)
    lines = difflib.unified_diff(old, new, *names)
    text = "".join(line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines)
    return text.translate(_VISIBLE)


def _described(content: bytes | None) -> str:
    return "absent" if content is None else f"{len(content)} bytes, SHA-256 {sha256(content)[:12]}…"


_VISIBLE = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160)) if chr(code) not in "\t\n"}
"""What a terminal could take for an order is shown by its code."""


def _split(text: str) -> list[str]:
    """The lines of `text` with their newlines (`splitlines` would also end lines at form feeds and the like)."""
    return re.findall(r"[^\n]*\n|[^\n]+", text)


def before_after(changes: Mapping[str, tuple[str, str]]) -> str:
    """The diff of named values: a pair of lines for each that differs."""
    return "".join(f"-{name}: {old}\n+{name}: {new}\n" for name, (old, new) in changes.items() if old != new)


def _octal(mode: str) -> str:
    return mode.lstrip("0") or "0"


@dataclass(frozen=True)
class _Attributes:
    """The owner and group (names or numbers) and the mode that a path should have."""

    mode: str
    owner: str
    group: str

    PROBE: ClassVar = "mode=%a\nowner=%U\ngroup=%G\nuid=%u\ngid=%g"  # a format of stat(1)

    def __post_init__(self) -> None:
        if not re.fullmatch("[0-7]{3,4}", self.mode):
            raise ValueError(f"{self.mode!r} is not a mode: write three or four octal digits")
        for name in (self.owner, self.group):
            _check_name(name, "a user or group")

    def differences(self, state: Facts) -> dict[str, tuple[str, str]]:
        wanted = {
            "mode": (_octal(self.mode), [state["mode"]]),
            "owner": (self.owner, [state["owner"], state["uid"]]),
            "group": (self.group, [state["group"], state["gid"]]),
        }
        return {key: (present[0], value) for key, (value, present) in wanted.items() if value not in present}


def _check_name(name: str, what: str) -> None:
    """Refuse what a program could take for an option, or for more than one word."""
    if not re.fullmatch(r"[^-\s\0][^\s\0]*", name):
        raise ValueError(f"{name!r} is not the name of {what}")


def _check_path(path: str) -> None:
    if not path.startswith("/") or path == "/" or str(PurePosixPath(path)) != path or ".." in path.split("/"):
        raise ValueError(f"{path!r} is not a plain absolute path")


def _label(state: Facts) -> str:
    """The diff of a file's SELinux label, from what `restorecon -n -v` printed: nothing where it would leave it."""
    contexts = re.findall(r"[\w.]+:object_r:[\w.:,-]*\w", state.get("label", ""))
    return before_after({"label": (contexts[0], contexts[-1])}) if contexts else ""


def _relabel(state: Facts) -> Change | None:
    """The change of a file of which only the label differs, if it does."""
    diff = _label(state)
    return Change("set the SELinux label", diff, observed=state["sha256"]) if diff else None


class _FileStep(Step):
    """What File and EditedFile share: the probe of a file, and the write of a new content."""

    path: str

    @property
    def touches(self) -> frozenset[str]:
        return frozenset({self.path})

    @property
    def reads(self) -> frozenset[str]:
        return frozenset({self.path})

    def _write(self, change: Change, mode: str, owner: str, *, keep: bool = True) -> str:
        """The script that writes the new content; `mode` and `owner` (user:group) are words of sh.

        With `keep`, the earlier content goes to the record's backup on the host.
        """
        content = change.content or b""
        return _WRITE_FILE.format(
            fsync=FSYNC,
            path=quote(self.path),
            parent=quote(str(Path(self.path).parent)),
            state=STATE_DIR,
            content=heredoc(content),
            wanted=sha256(content),
            owner=owner,
            mode=mode,
            compare=_COMPARE.format(observed=quote(change.observed)),
            backup=_BACKUP.format(state=STATE_DIR, fsync=FSYNC) if keep else "",
        )

    def _probe(self, wanted: str, cap: int) -> str:
        """The probe that brings the content back unless its hash is `wanted` or it is longer than `cap` bytes."""
        return _PROBE_FILE.format(path=quote(self.path), attributes=_Attributes.PROBE, wanted=wanted, cap=cap)

    def _present(self, state: str) -> Facts:
        present = facts(state)
        kind = present["kind"]
        if kind == "link":
            raise StepFailed(
                f"{self.path} is a symbolic link to {present['target']}",
                "name the file that it points to, or remove the link",
            )
        if kind not in ("file", "absent"):
            raise StepFailed(f"{self.path} is not a file but {kind}", "look at the host: nothing was touched")
        return present


@dataclass(frozen=True)
class File(_FileStep):
    """A whole file that the runbook owns: content (text in UTF-8, or bytes), mode, owner and group.

    With `secret`, neither the present nor the new content is brought back or shown, and no backup is kept.
    """

    path: str
    content: str | bytes = field(repr=False)
    mode: str = "0644"
    owner: str = "root"
    group: str = "root"
    secret: bool = False

    def __post_init__(self) -> None:
        _check_path(self.path)
        _Attributes(self.mode, self.owner, self.group)

    @property
    def label(self) -> str:
        return f"file {self.path}"

    @property
    def _bytes(self) -> bytes:
        return self.content.encode() if isinstance(self.content, str) else self.content

    def probe(self) -> str:
        return self._probe(sha256(self._bytes), -1 if self.secret else CONTENT_CAP)

    def plan(self, state: str, pending: frozenset[str] = frozenset()) -> Change | None:
        present = self._present(state)
        if present["kind"] == "absent":
            diff = "(secret content)\n" if self.secret else unified_diff(self.path, None, self._bytes)
            return Change("create", diff, observed="absent", content=self._bytes)
        wanted = sha256(self._bytes)
        attributes = before_after(_Attributes(self.mode, self.owner, self.group).differences(present))
        if present["sha256"] == wanted:
            if attributes:
                return Change("set mode and owner", attributes + _label(present), observed=wanted)
            return _relabel(present)
        if self.secret:
            diff = "(secret content)\n"
        elif "content" in present:
            diff = unified_diff(self.path, base64.b64decode(present["content"]), self._bytes)
        else:
            old = f"{present['size']} bytes, SHA-256 {present['sha256'][:12]}…"
            diff = before_after({self.path: (old, _described(self._bytes))})
        return Change("replace content", diff + attributes, observed=present["sha256"], content=self._bytes)

    def script(self, change: Change) -> str:
        if change.content is not None:
            return self._write(change, quote(self.mode), quote(f"{self.owner}:{self.group}"), keep=not self.secret)
        return "\n".join(
            [
                f"set -e\np={quote(self.path)}",
                _COMPARE.format(observed=quote(change.observed)),
                f'chown {quote(self.owner)}:{quote(self.group)} "$p"\nchmod {quote(self.mode)} "$p"',
                _RELABEL,
            ]
        )


class EditedFile(_FileStep):
    """What Lines and JsonMembers share: a file that others own, of which a part is to be as desired.

    Mode and owner stay; an absent file is created with 0644, root.
    """

    def probe(self) -> str:
        return self._probe("-", CONTENT_CAP)

    def plan(self, state: str, pending: frozenset[str] = frozenset()) -> Change | None:
        present = self._present(state)
        before: bytes | None
        if present["kind"] == "absent":
            before, observed = None, "absent"
        else:
            before, observed = base64.b64decode(present.get("content", "")), present["sha256"]
        after = self._edited(before or b"")
        if max(int(present.get("size", 0)), len(after)) > CONTENT_CAP:
            raise StepFailed(f"{self.path} is, or would be, larger than {CONTENT_CAP} bytes", "edit it by hand")
        if after == (before or b""):
            return _relabel(present)
        diff = unified_diff(self.path, before, after)
        return Change("create" if before is None else "edit", diff, observed=observed, content=after)

    @abstractmethod
    def _edited(self, before: bytes) -> bytes:
        """The desired content of a file that holds `before`. Raises StepFailed where it must not be touched."""

    def script(self, change: Change) -> str:
        if change.content is None:
            return f"set -e\np={quote(self.path)}\n{_RELABEL}"
        if change.observed == "absent":
            return self._write(change, "0644", "root:root")
        keep = f"set -e\nmode=$(stat -c %a {quote(self.path)}); owner=$(stat -c %u:%g {quote(self.path)})\n"
        return keep + self._write(change, '"$mode"', '"$owner"')


@dataclass(frozen=True)
class Lines(EditedFile):
    """Single lines in a file that others own; everything else in it stays as it is.

    `lines` holds pairs (pattern, line): of the lines that are `line` or that `pattern` (a regular expression, matched
    at the line's start) matches, exactly one remains, where the first was, and it is `line`; where none matches,
    `line` is appended. An empty `line` removes what the pattern matches. Mode and owner stay; an absent file is
    created with 0644, root.
    """

    path: str
    lines: tuple[tuple[str, str], ...]

    def __post_init__(self) -> None:
        _check_path(self.path)
        for pattern, line in self.lines:
            re.compile(pattern)
            if "\n" in line:
                raise ValueError(f"{line!r} is more than one line")

    @property
    def label(self) -> str:
        return f"lines in {self.path}"

    def _edited(self, before: bytes) -> bytes:
        # Bytes that are not UTF-8 become surrogates and come back as they were.
        kept = _split(before.decode("utf-8", "surrogateescape"))
        if kept and not kept[-1].endswith("\n"):
            kept[-1] += "\n"
        for pattern, line in self.lines:
            wanted = [f"{line}\n"] if line else []
            expression = re.compile(pattern)
            matching = [i for i, old in enumerate(kept) if expression.match(old) or old in wanted]
            first = matching[0] if matching else len(kept)
            others = [old for i, old in enumerate(kept) if i not in matching]
            kept = others[:first] + wanted + others[first:]
        after = "".join(kept).encode("utf-8", "surrogateescape")
        # A file whose only difference is the missing newline at its end is left alone.
        return before if after == before + b"\n" else after


def Line(path: str, line: str, match: str | None = None) -> Lines:
    """One line in a file that others own; `match` is a regular expression for the lines it takes the place of."""
    return Lines(path, ((match if match is not None else re.escape(line) + r"\s*$", line),))


_PUT_AWAY = """\
put_away() {{
  b=$RUNBOOK_BACKUP
  mkdir -p -m 700 {state}/backup "$b"; mkdir -p "$b${{1%/*}}"
  [ -e "$b$1" ] || cp -p "$1" "$b$1"
  rm -f "$1"
}}
"""


def put_away(*paths: str) -> str:
    """The sh text that removes these files, each of which is kept in the record's backup on the host."""
    return _PUT_AWAY.format(state=STATE_DIR) + "".join(f"put_away {quote(path)}\n" for path in paths)


@dataclass(frozen=True)
class Absent(Step):
    """A file that must not be there; it is kept in the record's backup on the host."""

    path: str

    def __post_init__(self) -> None:
        _check_path(self.path)

    @property
    def touches(self) -> frozenset[str]:
        return frozenset({self.path})

    @property
    def label(self) -> str:
        return f"file {self.path}"

    def probe(self) -> str:
        return (
            f"p={quote(self.path)}\n"
            'if [ -f "$p" ]; then echo kind=file; elif [ -e "$p" ]; then echo kind=other; else echo kind=absent; fi\n'
        )

    def plan(self, state: str, pending: frozenset[str] = frozenset()) -> Change | None:
        match facts(state)["kind"]:
            case "absent":
                return None
            case "file":
                return Change("remove", f"-{self.path} (a backup is kept)\n")
            case _:
                raise StepFailed(f"{self.path} is not a file", "look at the host: nothing was touched")

    def script(self, change: Change) -> str:
        return f"set -e\n{put_away(self.path)}"


@dataclass(frozen=True)
class Directory(Step):
    """A folder with its mode, owner and group; parents that are missing are made with 0755, root."""

    path: str
    mode: str = "0755"
    owner: str = "root"
    group: str = "root"

    def __post_init__(self) -> None:
        _check_path(self.path)
        _Attributes(self.mode, self.owner, self.group)

    @property
    def touches(self) -> frozenset[str]:
        return frozenset({self.path})

    @property
    def label(self) -> str:
        return f"folder {self.path}"

    def probe(self) -> str:
        # A link to a folder serves as one, so it is followed.
        path = quote(self.path)
        return (
            f'p={path}\nif [ -d "$p" ]; then echo kind=directory; stat -L -c \'{_Attributes.PROBE}\' "$p"\n'
            'elif [ -e "$p" ] || [ -L "$p" ]; then echo kind=other; else echo kind=absent; fi\n'
        )

    def plan(self, state: str, pending: frozenset[str] = frozenset()) -> Change | None:
        present = facts(state)
        wanted = _Attributes(self.mode, self.owner, self.group)
        match present["kind"]:
            case "absent":
                return Change("create", f"+{self.path}/ mode {_octal(self.mode)} {self.owner}:{self.group}\n")
            case "directory":
                differences = before_after(wanted.differences(present))
                return Change("set mode and owner", differences) if differences else None
            case _:
                raise StepFailed(f"{self.path} exists and is not a folder", "look at the host: nothing was touched")

    def script(self, change: Change) -> str:
        path, owner = quote(self.path), quote(f"{self.owner}:{self.group}")
        return f"set -e\nmkdir -p {path}\nchown {owner} {path}\nchmod {quote(self.mode)} {path}\n"


# packages


def _installed(package: str) -> str:
    return (
        f"if v=$(rpm -q --qf '%{{VERSION}}-%{{RELEASE}}\\n' {quote(package)} 2>/dev/null); "
        'then echo "installed=$(printf \'%s\\n\' "$v" | tail -n 1)"; else echo installed=; fi\n'
    )


@dataclass(frozen=True)
class Package(Step):
    """A package from the host's configured yum repositories, in any version or (`version-release`) in exactly one."""

    name: str
    version: str | None = None

    def __post_init__(self) -> None:
        for word in (self.name, self.version or "any"):
            _check_name(word, "a package or version")

    @property
    def touches(self) -> frozenset[str]:
        return frozenset({ANYTHING})

    @property
    def label(self) -> str:
        return f"package {self.name}"

    def probe(self) -> str:
        return _installed(self.name)

    def plan(self, state: str, pending: frozenset[str] = frozenset()) -> Change | None:
        present = facts(state)["installed"]
        if present and self.version in (None, present):
            return None
        wanted = self.version or "any version"
        summary = f"install {self.name}" if not present else f"replace {present} by {wanted}"
        return Change(summary, before_after({self.name: (present or "not installed", wanted)}))

    def script(self, change: Change) -> str:
        if self.version is None:
            return f"yum -y -q install {quote(self.name)}\n"
        spec, name = quote(f"{self.name}-{self.version}"), quote(self.name)
        # yum 3 says 'nothing to do' and succeeds where an older version is asked for.
        return (
            f"set -e\nyum -y -q install {spec}\n"
            f"[ \"$(rpm -q --qf '%{{VERSION}}-%{{RELEASE}}' {name})\" = {quote(self.version)} ] || "
            f"yum -y -q downgrade {spec}\n"
        )


@dataclass(frozen=True)
class Rpm(Step):
    """A package from an RPM file of ours, uploaded and installed with `rpm -i`: the closed network's way (4.1).

    `version` is `version-release`, as `rpm -q` prints it; `file` and `sha256` are the artifact's.
    """

    package: str
    version: str
    file: Path
    sha256: str

    def __post_init__(self) -> None:
        for word in (self.package, self.version):
            _check_name(word, "a package or version")
        if not re.fullmatch("[0-9a-f]{64}", self.sha256):
            raise ValueError(f"{self.sha256!r} is not a SHA-256 in lower-case hex")

    @property
    def touches(self) -> frozenset[str]:
        return frozenset({ANYTHING})

    @property
    def label(self) -> str:
        return f"rpm {self.package}"

    @property
    def _remote(self) -> str:
        return artifact_path(self.sha256, self.file.name)

    def probe(self) -> str:
        remote = quote(self._remote)
        return _installed(self.package) + (
            f'if [ -z "$v" ] || [ "$v" != {quote(self.version)} ]; then\n'
            f"  s=$(sha256sum 2>/dev/null < {remote}) || s=\n"
            f'  if [ "${{s%% *}}" = {self.sha256} ]; then echo staged=yes; else echo staged=no; fi\nfi\n'
        )

    def plan(self, state: str, pending: frozenset[str] = frozenset()) -> Change | None:
        present = facts(state)
        installed = present["installed"]
        if installed == self.version:
            return None
        uploads = () if present["staged"] == "yes" else (Upload(self.file, self.sha256, self._remote),)
        diff = before_after({self.package: (installed or "not installed", self.version)})
        summary = f"upload and install {self.file.name}" if uploads else f"install {self.file.name}"
        return Change(summary, diff, actions=("replace" if installed else "install",), uploads=uploads)

    def script(self, change: Change) -> str:
        options = "-Uvh --oldpackage" if "replace" in change.actions else "-ivh"
        return f"rpm {options} {quote(self._remote)}\n"


def artifact_path(sha256: str, name: str) -> str:
    """Where an uploaded file lies on a host: in a folder named by its content, so that no other is taken for it."""
    return f"{STATE_DIR}/artifacts/{sha256}/{name}"


# services


# Field 22 of /proc/PID/stat is a process's start in clock ticks since boot; the name in field 2 may hold anything.
_PROBE_START = """\
if read -r stat < "/proc/$pid/stat"; then
  set -- ${stat##*) }; echo "ticks=${20}"; echo "hertz=$(getconf CLK_TCK)"
fi 2>/dev/null
"""
# Both clocks at one moment: on a busy host the shell may wait between the two readings, and a process seem older.
_PROBE_WATCHED = """\
for try in 1 2 3 4 5 6 7 8 9; do
  read -r before _ < /proc/uptime; now=$(date +%s.%N); read -r up _ < /proc/uptime
  [ "$before" != "$up" ] || break
done
echo "now=$now"; echo "uptime=$up"
for f in {paths}; do
  if [ -e "$f" ]; then echo "watched=$(stat -L -c %.Y "$f") $f"; fi
done
"""


def watched(paths: Sequence[str]) -> str:
    """The sh text that prints when each of these files was last changed, beside both clocks, for `newer`."""
    return _PROBE_WATCHED.format(paths=" ".join(map(quote, paths))) if paths else ""


def newer(
    name: str, state: str, started: float, pending: frozenset[str], paths: Sequence[str], *, since_boot: bool = True
) -> list[str]:
    """The watched files that are about to change, or changed after `name` started, by the host's own clock.

    `state` is what `watched` printed of `paths`. `started` is in seconds since boot, and reckoned back from now, so
    that a clock that was set in between does not count; else by the host's clock. Raises StepFailed for a file that is
    dated in the future, which no restart would ever satisfy.
    """
    if not paths:
        return []
    present = facts(state)
    now = float(present["now"])
    began = started + (now - float(present["uptime"]) if since_boot else 0.0)
    found = [path for path in paths if path in pending]
    for line in state.split("\n"):
        if not line.startswith("watched="):
            continue
        stamp, path = line.removeprefix("watched=").split(" ", 1)
        if float(stamp) > now + 1:
            raise StepFailed(
                f"{path} is dated {float(stamp) - now:.0f} s in the future: {name} may or may not run with it",
                f"set the host's clock, then `touch {path}`",
            )
        if float(stamp) > began and path not in found:
            found.append(path)
    return found


@dataclass(frozen=True)
class Service(Step):
    """A systemd unit: running or not, enabled or not, and restarted when it started before a watched file changed.

    `enabled=None` leaves enablement alone. With `gate`, a restart or stop asks for the approval of that name first,
    and `consequence` says what it does to others. Sources: systemctl(1); Mesos' units restart by themselves.
    """

    name: str
    running: bool = True
    enabled: bool | None = True
    restart_if_newer: tuple[str, ...] = ()
    gate: str | None = None
    consequence: str = ""

    _PROPERTIES: ClassVar = (
        "LoadState",
        "ActiveState",
        "SubState",
        "UnitFileState",
        "MainPID",
        "ActiveEnterTimestampMonotonic",
        "NeedDaemonReload",
    )
    _FOLDERS: ClassVar = ("/etc/systemd/system", "/run/systemd/system", "/usr/lib/systemd/system")

    def __post_init__(self) -> None:
        _check_name(self.name, "a service")
        for path in self.restart_if_newer:
            _check_path(path)

    @property
    def label(self) -> str:
        return f"service {self.name}"

    @property
    def _files(self) -> list[str]:
        name = self.name if "." in self.name else f"{self.name}.service"
        return [f"{folder}/{name}" for folder in self._FOLDERS]

    @property
    def reads(self) -> frozenset[str]:
        return frozenset(self._files)

    def probe(self) -> str:
        # An older systemd shows a unit only after a daemon-reload, which a probe must not do: so look for its file.
        text = (
            f"unit=$(systemctl show -p {','.join(self._PROPERTIES)} {quote(self.name)}) || exit 1\n"
            "printf '%s\\n' \"$unit\"\n"
            f'for f in {" ".join(map(quote, self._files))}; do [ ! -e "$f" ] || echo file=yes; done\n'
        )
        if self.restart_if_newer:
            text += f"pid=$(printf '%s\\n' \"$unit\" | sed -n 's/^MainPID=//p')\n{_PROBE_START}"
        return text + watched(self.restart_if_newer)

    def plan(self, state: str, pending: frozenset[str] = frozenset()) -> Change | None:
        present = facts(state)
        load, active, enablement = present["LoadState"], present["ActiveState"], present.get("UnitFileState", "")
        if load != "loaded" and not (self.running or self.enabled):
            return None
        if load != "loaded" and (load, present.get("file")) != ("not-found", "yes"):
            if load == "not-found":
                raise StepFailed(f"systemd knows no service {self.name}", "install the package that brings it")
            raise StepFailed(f"the unit of {self.name} is {load}", f"look at `systemctl status {self.name}`")
        # Between two crashes a unit with Restart=always is 'activating (auto-restart)': it does not run.
        running = active in ("active", "reloading", "activating") and present["SubState"] != "auto-restart"
        enabled = enablement.startswith("enabled")
        if self.enabled and enablement in ("static", "indirect", "generated", "transient"):
            raise StepFailed(f"{self.name} cannot be enabled: its unit is {enablement}", "say `enabled=None` of it")
        actions, differences = [], {}
        if self.enabled is not None and enabled != self.enabled:
            actions.append("enable" if self.enabled else "disable")
            differences["enabled"] = (enablement or "no", "enabled" if self.enabled else "disabled")
        if running != self.running:
            # A start leaves alone what somebody started meanwhile; only a restart ends the wait between two crashes.
            start = "restart" if present["SubState"] == "auto-restart" else "start"
            actions.append(start if self.running else "stop")
            differences["state"] = (f"{active} ({present['SubState']})", "active" if self.running else "inactive")
        elif running:
            reasons = self._stale(present, state, pending)
            differs = self._runs_differently(present, state)
            if reasons or differs:
                actions.append("restart")
                if reasons:
                    differences["configuration"] = (f"older than {', '.join(reasons)}", "current")
                differences |= differs
        if not actions:
            return None
        hurts = running and bool({"restart", "stop"} & set(actions))
        return Change(
            ", ".join(actions if running else [action.replace("restart", "start") for action in actions]),
            before_after(differences),
            actions=tuple(actions),
            gate=self.gate if hurts else None,
            consequence=self.consequence if hurts else "",
        )

    def _runs_differently(self, present: Facts, state: str) -> dict[str, tuple[str, str]]:
        """How the process runs, and how it would run after a restart, by what differs between them.

        Nothing here; for subclasses whose probe compares the process with its configuration.
        """
        return {}

    def _stale(self, present: Facts, state: str, pending: frozenset[str]) -> list[str]:
        if "ticks" in present:
            started = int(present["ticks"]) / int(present["hertz"])
        else:  # a unit without a main process
            started = int(present["ActiveEnterTimestampMonotonic"]) / 1e6
        changed = newer(self.name, state, started, pending, self.restart_if_newer)
        if present.get("NeedDaemonReload") == "yes":
            # A unit with Restart= may have started by itself since its file changed, from what systemd had read before.
            units = (*self._files, *(f"{file}.d" for file in self._files))
            changed += [path for path in self.restart_if_newer if path.startswith(units) and path not in changed]
        return changed

    def script(self, change: Change) -> str:
        name = quote(self.name)
        tell = f"systemctl --no-pager --full -n 20 status {name} >&2"
        lines = ["systemctl daemon-reload || exit 1"]
        for action in change.actions:
            if action in ("start", "restart"):
                lines.append(f"systemctl reset-failed {name} 2>/dev/null")  # lifts the limit on starts
            lines.append(f"systemctl {action} {name} || {{ {tell}; exit 1; }}")
        if {"start", "restart"} & set(change.actions):
            lines += [
                f"{_STEADY}state() {{ systemctl show -p ActiveState,SubState,MainPID {name}; }}",
                f"steady state && state | grep -qx ActiveState=active || {{ {tell}; exit 1; }}",
            ]
        return "\n".join(lines) + "\n"


_STEADY = f"""\
steady() {{
  was=$("$@") || return 1
  n=0
  while [ $n -lt {int(STEADY * 5)} ]; do sleep 0.2; [ "$("$@")" = "$was" ] || return 1; n=$((n+1)); done
}}
"""
_AWAIT = """\
await() {{
  n=0
  while [ $n -lt {rounds} ]; do "$@" && return 0; sleep 0.2; n=$((n+1)); done
  return 1
}}
"""
_PID_OF = """\
ours() {{ [ -r "/proc/$1/cmdline" ] && tr '\\0' ' ' 2>/dev/null < "/proc/$1/cmdline" | grep -qF -e {process}; }}
pid_of() {{
  pid=$(cat {pid_file} 2>/dev/null)
  case $pid in (''|*[!0-9]*) return 1;; esac
  ours "$pid" && echo "$pid"
}}
"""
_STOP = """\
old=$(pid_of)
{stop} || exit 1
gone() {{ [ -z "$old" ] || ! ours "$old"; }}
await gone || {{ echo {name} did not stop within {timeout} s: process "$old" still runs >&2; exit 1; }}
"""
# Of a command line only the program is shown: passwords stand in the arguments of some.
_START = """\
( cd {folder} 2>/dev/null || cd /; exec env LC_ALL={locale} {start} ) || exit 1
failed() {{
  echo {name} "$1" >&2
  pid=$(cat {pid_file} 2>/dev/null)
  if [ -n "$pid" ] && [ -r "/proc/$pid/cmdline" ] && ! ours "$pid"; then
    other=$(tr '\\0' '\\n' < "/proc/$pid/cmdline" | head -n 1)
    echo {pid_file} names process "$pid", which is another program: "$other" >&2
  fi
  exit 1
}}
await pid_of > /dev/null || failed "did not start within {timeout} s"
steady pid_of || failed "ended as soon as it had started: read its log"
"""


@dataclass(frozen=True)
class CommandService(Step):
    """A service with start and stop commands of its own instead of a unit, as ZooKeeper's zkServer.sh (document 1.2).

    It runs when the process that `pid_file` names is alive and has `process` in its command line: a stale pid file
    whose number was given to another program does not count. Commands are lists of words. What `start` starts runs in
    `folder` (in / where that is not there) and with `locale`, and not with those of the script that starts it.
    """

    name: str
    start: Sequence[str]
    stop: Sequence[str]
    pid_file: str
    process: str
    restart_if_newer: tuple[str, ...] = ()
    running: bool = True
    timeout: int = 30
    """Seconds that the process may take to appear after `start`, and to go after `stop`."""
    folder: str = "/"
    locale: str = "en_US.UTF-8"
    """That of Mesos' and Marathon's units; where a host does not have it, programs run in C."""

    def __post_init__(self) -> None:
        for path in (self.pid_file, *self.restart_if_newer):
            _check_path(path)
        if self.folder != "/":
            _check_path(self.folder)

    @property
    def label(self) -> str:
        return f"service {self.name}"

    @property
    def _functions(self) -> str:
        return _PID_OF.format(process=quote(self.process), pid_file=quote(self.pid_file))

    def probe(self) -> str:
        return (
            f'{self._functions}pid=$(pid_of)\necho "pid=$pid"\n'
            f'if [ -n "$pid" ]; then\n{_PROBE_START}fi\n{watched(self.restart_if_newer)}'
        )

    def plan(self, state: str, pending: frozenset[str] = frozenset()) -> Change | None:
        present = facts(state)
        pid = present["pid"]
        if bool(pid) != self.running:
            action = "start" if self.running else "stop"
            wanted = "running" if self.running else "stopped"
            differences = {"state": (f"running, pid {pid}" if pid else "not running", wanted)}
            return Change(action, before_after(differences), actions=(action,))
        if not pid:
            return None
        started = int(present["ticks"]) / int(present["hertz"])
        reasons = newer(self.name, state, started, pending, self.restart_if_newer)
        if not reasons:
            return None
        diff = before_after({"configuration": (f"older than {', '.join(reasons)}", "current")})
        return Change("restart", diff, actions=("stop", "start"))

    def script(self, change: Change) -> str:
        values = {
            "name": quote(self.name),
            "pid_file": quote(self.pid_file),
            "timeout": self.timeout,
            "folder": quote(self.folder),
            "locale": quote(self.locale),
            "start": " ".join(map(quote, self.start)),
            "stop": " ".join(map(quote, self.stop)),
        }
        actions = {"start": _START, "stop": _STOP}
        return (
            self._functions
            + _AWAIT.format(rounds=self.timeout * 5)
            + _STEADY
            + "".join(actions[action].format(**values) for action in change.actions)
        )


# anything else


@dataclass(frozen=True)
class Command(Step):
    """Any command, guarded by a probe: it runs only where `probe_script` does not exit 0, and must make it exit 0.

    The probe is asked once more before the command runs: another script may have been at work in between. Both are sh
    texts written in the package, never built from parameters but by `quote`. What the probe prints is
    shown as the present state.
    """

    name: str
    probe_script: str
    command: str
    gate: str | None = None
    consequence: str = ""

    @property
    def touches(self) -> frozenset[str]:
        return frozenset({ANYTHING})

    @property
    def label(self) -> str:
        return self.name

    def probe(self) -> str:
        # The text stands outside `$( )`, as a piece's does (shell.py).
        return (
            f'asked() {{ (\n{self.probe_script}\n) 2>&1; }}\nout=$(asked); echo "holds=$?"; printf \'%s\\n\' "$out"\n'
        )

    def plan(self, state: str, pending: frozenset[str] = frozenset()) -> Change | None:
        first, _, output = state.partition("\n")
        if first == "holds=0":
            return None
        shown = "".join(f"-{line}\n" for line in output.splitlines())
        return Change("run", shown + f"+{self.name}\n", gate=self.gate, consequence=self.consequence)

    def script(self, change: Change) -> str:
        return f"( {self.probe_script}\n) >/dev/null 2>&1 && exit 0\n{self.command}"
