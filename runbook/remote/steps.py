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
from pathlib import Path
from typing import ClassVar

from runbook.errors import StepFailed
from runbook.remote.shell import facts, heredoc, quote

STATE_DIR = "/var/lib/runbook"
CONTENT_CAP = 256 * 1024
"""Bytes of a file that a probe brings back for the diff; of a larger one only the hash is known."""

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
    `consequence` what it does beyond the step itself.
    """

    summary: str
    diff: str = ""
    observed: str = ""
    content: bytes | None = field(default=None, repr=False)
    actions: tuple[str, ...] = ()
    uploads: tuple[Upload, ...] = ()
    gate: str | None = None
    consequence: str = ""


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
if [ -L "$p" ]; then echo kind=link; echo "target=$(readlink "$p")"
elif [ -f "$p" ]; then
  echo kind=file; stat -c 'mode=%a
owner=%U
group=%G
size=%s' "$p"
  s=$(sha256sum < "$p") || exit 1
  s=${{s%% *}}; echo "sha256=$s"
  if [ "$s" != {wanted} ] && [ "$(stat -c %s "$p")" -le {cap} ]; then echo "content=$(base64 < "$p" | tr -d '\\n')"; fi
elif [ -d "$p" ]; then echo kind=directory; stat -c 'mode=%a
owner=%U
group=%G' "$p"
elif [ -e "$p" ]; then echo kind=other
else echo kind=absent
fi
"""

# Staged on the target's filesystem, so that the rename is atomic, but never in the target's folder: a stray file in
# /etc/mesos-master would be a fatal unknown flag. `sync FILE` is coreutils 8.24; older ones sync everything.
_WRITE_FILE = """\
set -e
p={path}; d={parent}
[ -d "$d" ] || {{ echo "folder $d does not exist" >&2; exit 1; }}
mkdir -p -m 700 {state}/staging
stage={state}/staging
dev=$(stat -c %d "$d")
if [ "$(stat -c %d "$stage")" != "$dev" ]; then
  m=$d
  while [ "$m" != / ] && [ "$(stat -c %d "$(dirname "$m")")" = "$dev" ]; do m=$(dirname "$m"); done
  stage=${{m%/}}/.runbook-staging; mkdir -p -m 700 "$stage"
fi
t=$(mktemp "$stage/new.XXXXXX")
trap 'rm -f "$t"; case $stage in */.runbook-staging) rmdir "$stage" 2>/dev/null;; esac' EXIT
base64 -d > "$t" {content}
s=$(sha256sum < "$t"); [ "${{s%% *}}" = {wanted} ] || {{ echo "the content did not arrive whole" >&2; exit 1; }}
chown {owner} "$t"
chmod {mode} "$t"
{compare}
if [ -e "$p" ]; then
  b={backup}; mkdir -p -m 700 {state}/backup "$b"; mkdir -p "$b$d"; cp -p "$p" "$b$p"
fi
sync "$t" 2>/dev/null || sync
mv -fT "$t" "$p"
if command -v restorecon >/dev/null 2>&1; then restorecon "$p"; fi
"""
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
    """A unified diff of two contents, either of them None where there is no file."""
    sides = [(b"" if side is None else side).decode("utf-8", "backslashreplace") for side in (before, after)]
    old, new = (side.splitlines(keepends=True) for side in sides)
    names = ("/dev/null" if before is None else path, "/dev/null" if after is None else path)
    lines = difflib.unified_diff(old, new, *names)
    return "".join(line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines)


def before_after(changes: Mapping[str, tuple[str, str]]) -> str:
    """The diff of named values: a pair of lines for each that differs."""
    return "".join(f"-{name}: {old}\n+{name}: {new}\n" for name, (old, new) in changes.items() if old != new)


def _octal(mode: str) -> str:
    return mode.lstrip("0") or "0"


@dataclass(frozen=True)
class _Attributes:
    """The owner, group and mode that a path should have."""

    mode: str
    owner: str
    group: str

    def differences(self, state: Mapping[str, str]) -> dict[str, tuple[str, str]]:
        wanted = {"mode": _octal(self.mode), "owner": self.owner, "group": self.group}
        return {key: (state[key], value) for key, value in wanted.items() if state[key] != value}


class _FileStep(Step):
    """What File and Lines share: the probe of a file, and the write of a new content."""

    path: str

    @property
    def touches(self) -> frozenset[str]:
        return frozenset({self.path})

    @property
    def reads(self) -> frozenset[str]:
        return frozenset({self.path})

    def _write(self, change: Change, mode: str, owner: str) -> str:
        """The script that writes the new content; `mode` and `owner` (user:group) are words of sh."""
        content = change.content or b""
        return _WRITE_FILE.format(
            path=quote(self.path),
            parent=quote(str(Path(self.path).parent)),
            state=STATE_DIR,
            content=heredoc(content),
            wanted=sha256(content),
            owner=owner,
            mode=mode,
            compare=_COMPARE.format(observed=quote(change.observed)),
            backup='"$RUNBOOK_BACKUP"',
        )

    def _present(self, state: str) -> Mapping[str, str]:
        present = facts(state)
        kind = present.get("kind", "nothing")
        if kind == "link":
            raise StepFailed(
                f"{self.path} is a symbolic link to {present.get('target')}",
                "name the file that it points to, or remove the link",
            )
        if kind not in ("file", "absent"):
            raise StepFailed(f"{self.path} is not a file but {kind}", "look at the host: nothing was touched")
        return present


@dataclass(frozen=True)
class File(_FileStep):
    """A whole file that the runbook owns: content (text in UTF-8, or bytes), mode, owner and group.

    With `secret`, neither the present nor the new content is brought back or shown.
    """

    path: str
    content: str | bytes = field(repr=False)
    mode: str = "0644"
    owner: str = "root"
    group: str = "root"
    secret: bool = False

    @property
    def label(self) -> str:
        return f"file {self.path}"

    @property
    def _bytes(self) -> bytes:
        return self.content.encode() if isinstance(self.content, str) else self.content

    def probe(self) -> str:
        cap = -1 if self.secret else CONTENT_CAP
        return _PROBE_FILE.format(path=quote(self.path), wanted=sha256(self._bytes), cap=cap)

    def plan(self, state: str, pending: frozenset[str] = frozenset()) -> Change | None:
        present = self._present(state)
        if present["kind"] == "absent":
            diff = "(secret content)\n" if self.secret else unified_diff(self.path, None, self._bytes)
            return Change("create", diff, observed="absent", content=self._bytes)
        wanted = sha256(self._bytes)
        attributes = before_after(_Attributes(self.mode, self.owner, self.group).differences(present))
        if present["sha256"] == wanted:
            return Change("set mode and owner", attributes, observed=wanted) if attributes else None
        if self.secret:
            diff = "(secret content)\n"
        elif "content" in present:
            diff = unified_diff(self.path, base64.b64decode(present["content"]), self._bytes)
        else:
            diff = before_after({"size": (f"{present['size']} bytes", f"{len(self._bytes)} bytes")})
        return Change("replace content", diff + attributes, observed=present["sha256"], content=self._bytes)

    def script(self, change: Change) -> str:
        if change.content is not None:
            return self._write(change, quote(self.mode), quote(f"{self.owner}:{self.group}"))
        return "\n".join(
            [
                f"set -e\np={quote(self.path)}",
                _COMPARE.format(observed=quote(change.observed)),
                f'chown {quote(self.owner)}:{quote(self.group)} "$p"\nchmod {quote(self.mode)} "$p"',
            ]
        )


@dataclass(frozen=True)
class Lines(_FileStep):
    """Single lines in a file that others own; everything else in it stays as it is.

    `lines` holds pairs (pattern, line): of the lines that `pattern` (a regular expression, matched at the line's
    start) matches, exactly one remains, and it is `line`; where none matches, `line` is appended. An empty `line`
    removes what the pattern matches. Mode and owner stay; an absent file is created with 0644, root.
    """

    path: str
    lines: tuple[tuple[str, str], ...]

    @property
    def label(self) -> str:
        return f"lines in {self.path}"

    def probe(self) -> str:
        return _PROBE_FILE.format(path=quote(self.path), wanted="-", cap=CONTENT_CAP)

    def plan(self, state: str, pending: frozenset[str] = frozenset()) -> Change | None:
        present = self._present(state)
        if present["kind"] == "absent":
            before, observed = None, "absent"
        elif "content" not in present:
            raise StepFailed(f"{self.path} is larger than {CONTENT_CAP} bytes", "edit it by hand")
        else:
            before, observed = base64.b64decode(present["content"]), present["sha256"]
        after = self._edited(before or b"")
        if after == (before or b""):
            return None
        diff = unified_diff(self.path, before, after)
        return Change("create" if before is None else "edit", diff, observed=observed, content=after)

    def _edited(self, before: bytes) -> bytes:
        # Latin-1 maps every byte to itself, so that what others wrote in any encoding survives.
        kept = before.decode("latin-1").splitlines(keepends=True)
        if kept and not kept[-1].endswith("\n"):
            kept[-1] += "\n"
        for pattern, line in self.lines:
            wanted = line.encode().decode("latin-1") + "\n" if line else ""
            expression = re.compile(pattern)
            matching = [index for index, old in enumerate(kept) if expression.match(old)]
            if not matching:
                kept += [wanted] if wanted else []
                continue
            kept[matching[0]] = wanted
            for index in reversed(matching[1:]):
                del kept[index]
        after = "".join(kept)
        # A file whose only difference is the missing newline at its end is left alone.
        return before if after.encode("latin-1") == before + b"\n" else after.encode("latin-1")

    def script(self, change: Change) -> str:
        if change.observed == "absent":
            return self._write(change, "0644", "root:root")
        keep = f"set -e\nmode=$(stat -c %a {quote(self.path)}); owner=$(stat -c %u:%g {quote(self.path)})\n"
        return keep + self._write(change, '"$mode"', '"$owner"')


def Line(path: str, line: str, match: str | None = None) -> Lines:
    """One line in a file that others own; `match` is a regular expression for the lines it takes the place of."""
    return Lines(path, ((match if match is not None else re.escape(line) + r"\s*$", line),))


@dataclass(frozen=True)
class Directory(Step):
    """A folder with its mode, owner and group; parents that are missing are made with 0755, root."""

    path: str
    mode: str = "0755"
    owner: str = "root"
    group: str = "root"

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
            f'p={path}\nif [ -d "$p" ]; then echo kind=directory; stat -L -c \'mode=%a\nowner=%U\ngroup=%G\' "$p"\n'
            'elif [ -e "$p" ] || [ -L "$p" ]; then echo kind=other; else echo kind=absent; fi\n'
        )

    def plan(self, state: str, pending: frozenset[str] = frozenset()) -> Change | None:
        present = facts(state)
        wanted = _Attributes(self.mode, self.owner, self.group)
        match present.get("kind"):
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
            f"  s=$(sha256sum < {remote} 2>/dev/null) || s=\n"
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


_PROBE_CLOCK = """\
read -r up _ < /proc/uptime
echo "uptime=$up"
echo "now=$(date +%s.%N)"
"""
_PROBE_WATCHED = """\
for f in {paths}; do
  if [ -e "$f" ]; then echo "watched=$(stat -L -c %.Y "$f") $f"; fi
done
"""


@dataclass(frozen=True)
class _Watch:
    """Which watched files changed after a service started, by the host's own clock."""

    newer: tuple[str, ...] = ()

    @classmethod
    def of(cls, name: str, state: str, started_after_boot: float | None) -> _Watch:
        """`started_after_boot` is in seconds since boot; None where the service does not run.

        The start is reckoned back from now by the monotonic clock, so that a clock set in between does not count.
        Raises StepFailed for a file that is dated in the future, which no restart would ever satisfy.
        """
        if started_after_boot is None:
            return cls()
        clock = facts(state)
        now = float(clock["now"])
        started = now - float(clock["uptime"]) + started_after_boot
        newer = []
        for line in state.splitlines():
            if not line.startswith("watched="):
                continue
            stamp, path = line.removeprefix("watched=").split(" ", 1)
            if float(stamp) > now + 1:
                raise StepFailed(
                    f"{path} is dated {float(stamp) - now:.0f} s in the future: {name} may or may not run with it",
                    f"set the host's clock, then `touch {path}`",
                )
            if float(stamp) > started:
                newer.append(path)
        return cls(tuple(newer))


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
        "ExecMainStartTimestampMonotonic",
        "ActiveEnterTimestampMonotonic",
    )

    @property
    def label(self) -> str:
        return f"service {self.name}"

    def probe(self) -> str:
        text = f"systemctl show -p {','.join(self._PROPERTIES)} {quote(self.name)}\n{_PROBE_CLOCK}"
        if self.restart_if_newer:
            text += _PROBE_WATCHED.format(paths=" ".join(map(quote, self.restart_if_newer)))
        return text

    def plan(self, state: str, pending: frozenset[str] = frozenset()) -> Change | None:
        present = facts(state)
        load, active, enablement = present["LoadState"], present["ActiveState"], present.get("UnitFileState", "")
        if load != "loaded" and not (self.running or self.enabled):
            return None
        if load != "loaded":
            raise StepFailed(
                f"systemd knows no service {self.name} ({load})", "install its package, or look at `systemctl status`"
            )
        # Between two crashes a unit with Restart=always is 'activating (auto-restart)': it does not run.
        running = active in ("active", "reloading", "activating") and present["SubState"] != "auto-restart"
        enabled = enablement.startswith("enabled")
        actions, differences = [], {}
        if self.enabled is not None and enabled != self.enabled:
            actions.append("enable" if self.enabled else "disable")
            differences["enabled"] = (enablement or "no", "enabled" if self.enabled else "disabled")
        if running != self.running:
            actions.append("restart" if self.running else "stop")
            differences["state"] = (f"{active} ({present['SubState']})", "active" if self.running else "inactive")
        elif running:
            reasons = self._stale(present, state, pending)
            if reasons:
                actions.append("restart")
                differences["configuration"] = (f"older than {', '.join(reasons)}", "current")
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

    def _stale(self, present: Mapping[str, str], state: str, pending: frozenset[str]) -> list[str]:
        about_to = [path for path in self.restart_if_newer if path in pending]
        started = int(present.get("ExecMainStartTimestampMonotonic") or 0) or int(
            present.get("ActiveEnterTimestampMonotonic") or 0
        )
        newer = _Watch.of(self.name, state, started / 1e6).newer
        return about_to + [path for path in newer if path not in about_to]

    def script(self, change: Change) -> str:
        name = quote(self.name)
        lines = ["set -e", "systemctl daemon-reload"]
        lines += [f"systemctl {action} {name}" for action in change.actions]
        if self.running:
            lines += [
                f'[ "$(systemctl show -p ActiveState {name})" = ActiveState=active ] || '
                f"{{ systemctl --no-pager --full -n 20 status {name} >&2; exit 1; }}"
            ]
        return "\n".join(lines) + "\n"


_AWAIT = """\
await() {{
  n=0
  while [ $n -lt {rounds} ]; do "$@" && return 0; sleep 0.2; n=$((n+1)); done
  return 1
}}
"""


@dataclass(frozen=True)
class CommandService(Step):
    """A service with start and stop commands of its own instead of a unit, as ZooKeeper's zkServer.sh (document 1.2).

    It runs when the process that `pid_file` names is alive and has `process` in its command line: a stale pid file
    whose number was given to another program does not count. Commands are lists of words.
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

    @property
    def label(self) -> str:
        return f"service {self.name}"

    @property
    def _functions(self) -> str:
        return (
            f"pid_of() {{ p=$(cat {quote(self.pid_file)} 2>/dev/null) || return 1\n"
            '  [ -n "$p" ] && [ -r "/proc/$p/cmdline" ] || return 1\n'
            f"  tr '\\0' ' ' < \"/proc/$p/cmdline\" 2>/dev/null | grep -qF -e {quote(self.process)} || return 1\n"
            '  echo "$p"; }\n'
        )

    def probe(self) -> str:
        # Field 22 of /proc/PID/stat is the start in clock ticks since boot; the name in field 2 may hold anything.
        text = self._functions + (
            "if p=$(pid_of); then\n"
            '  read -r stat < "/proc/$p/stat"; set -- ${stat##*) }\n'
            '  echo "pid=$p"; echo "ticks=${20}"; echo "hertz=$(getconf CLK_TCK)"\n'
            "else echo pid=; fi\n"
        )
        text += _PROBE_CLOCK
        if self.restart_if_newer:
            text += _PROBE_WATCHED.format(paths=" ".join(map(quote, self.restart_if_newer)))
        return text

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
        about_to = [path for path in self.restart_if_newer if path in pending]
        reasons = about_to + [p for p in _Watch.of(self.name, state, started).newer if p not in about_to]
        if not reasons:
            return None
        diff = before_after({"configuration": (f"older than {', '.join(reasons)}", "current")})
        return Change("restart", diff, actions=("stop", "start"))

    def script(self, change: Change) -> str:
        parts = [self._functions, _AWAIT.format(rounds=self.timeout * 5), "gone() { ! pid_of >/dev/null; }\n"]
        for action in change.actions:
            words = self.start if action == "start" else self.stop
            parts.append(f"{' '.join(map(quote, words))} || exit 1\n")
            condition, complaint = ("pid_of", "did not start") if action == "start" else ("gone", "did not stop")
            complain = f"echo {quote(self.name)} {complaint} within {self.timeout} s >&2; exit 1"
            parts.append(f"await {condition} >/dev/null || {{ {complain}; }}\n")
        return "".join(parts)


# anything else


@dataclass(frozen=True)
class Command(Step):
    """Any command, guarded by a probe: it runs only where `probe_script` does not exit 0, and must make it exit 0.

    Both are sh texts written in the package, never built from parameters but by `quote`. What the probe prints is
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
        return f'out=$( ( {self.probe_script}\n) 2>&1 ); echo "holds=$?"; printf \'%s\\n\' "$out"\n'

    def plan(self, state: str, pending: frozenset[str] = frozenset()) -> Change | None:
        first, _, output = state.partition("\n")
        if first == "holds=0":
            return None
        shown = "".join(f"-{line}\n" for line in output.splitlines())
        return Change("run", shown + f"+{self.name}\n", gate=self.gate, consequence=self.consequence)

    def script(self, change: Change) -> str:
        return self.command
