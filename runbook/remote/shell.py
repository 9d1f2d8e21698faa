"""POSIX sh text: quoting, and the framing that carries many pieces in one execution.

The document's platform is CentOS 7, whose /bin/sh is bash 4.2. It reads `case` inside `$( )` only where each pattern
has both its parentheses, `(pattern)`, and drops null strings on the right side of an expansion such as `${x:+'' y}`.

A script holds numbered pieces. Each prints a begin line and an end line with its exit status on both output streams,
marked with a random word, so that neither a login profile's chatter nor a piece's own output can be taken for a
frame, and so that a lost connection still shows how far the script got. The whole script is one function, called at
its end: a shell that received only half of it runs nothing.
"""

from __future__ import annotations

import base64
import secrets
import shlex
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from runbook.errors import StepFailed

# Each write of a program becomes a packet, which costs both sides about as much as the work of a probe. So the end of a
# piece and the begin of the next are told together, and the output of a short piece with them.
_PRELUDE = """\
LC_ALL=C; export LC_ALL
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin; export PATH
umask 022
_out=; _newline='
'
_mark() {{
  if [ $# -eq 2 ]
  then printf '%s\\n{marker} %s\\n\\n{marker} %s\\n' "$_out" "$1" "$2"
  else printf '%s\\n{marker} %s\\n' "$_out" "$1"
  fi
  printf '\\n{marker} %s\\n' "$@" >&2
  _out=
}}
_mark "shell $$ ${{BASH_VERSION-}}"
_main() {{
{prologue}
"""
_AT_ONCE = """\
( :
{text}
) </dev/null 9>&-
_status=$?
"""
# The text stands outside `$( )`, whose parser is the weakest part of old shells.
_AT_ITS_END = """\
_piece() {{ :
{text}
}}
_out=$( _piece </dev/null 9>&- )
_status=$?
_out=${{_out:+$_out$_newline}}
"""
_STOP_ON_FAILURE = """\
[ $_status -eq 0 ] || {{ _mark "end {key} $_status" done; return 0; }}
"""
_POSTLUDE = """\
}
_main
exit 0
"""


def quote(value: object) -> str:
    """`value` as one word for sh, whatever it holds. NUL cannot be passed to a program and is refused (ValueError)."""
    text = str(value)
    if "\0" in text:
        raise ValueError("a NUL character cannot be given to a shell")
    return shlex.quote(text)


def heredoc(data: bytes) -> str:
    """A redirection that feeds `data` to `base64 -d`: bytes of any kind, never in a command line or a process list."""
    encoded = base64.encodebytes(data).decode("ascii")
    return f"<<'_END_'\n{encoded}_END_"  # base64 has no underscore


def question(script: str) -> str:
    """`script`, which asks and must change nothing: a Docker that is stopped is not started by being asked.

    Where systemd listens at Docker's socket, it starts Docker for whoever connects (systemd.socket(5)).
    """
    return f"{_LEAVE_STOPPED}{script}" if "docker" in script else script


_LEAVE_STOPPED = """\
case $(systemctl is-active docker.socket docker.service 2>/dev/null | tr '\\n' ' ') in
  ('active active '|'active activating '|'active reloading ') ;;
  ('active '*) export DOCKER_HOST=unix:///run/docker-is-stopped;;
esac
"""


@dataclass(frozen=True)
class Piece:
    """A numbered part of a script. With `must_succeed`, its failure ends the script before the next piece.

    What it prints arrives while it runs, in as many packets as it makes writes. The standard output of a `short` one,
    such as a probe, arrives in one when it has ended, with one newline at its end.
    """

    key: str
    text: str
    must_succeed: bool = False
    short: bool = False


@dataclass
class Frame:
    """What one piece printed. `status` is None where its end was not seen."""

    out: str = ""
    err: str = ""
    status: int | None = None


@dataclass
class Transcript:
    """The frames of one execution, in order of their begin lines, and whether the script reached its end.

    `pid` is the shell's process id on the host, known as soon as the script started, and `shell` its version where
    it is bash; `noise` is what belongs to no piece: a login profile's chatter, and what the shell itself complains
    of. `broken` is the first line of the framing that came out of turn, if any.
    """

    frames: dict[str, Frame] = field(default_factory=dict)
    done: bool = False
    pid: int | None = None
    noise: str = ""
    shell: str = ""
    broken: str = ""

    def lacking(self, pieces: Iterable[Piece]) -> list[str]:
        """The keys of the `pieces` that should have ended by now and did not, as the framing has it."""
        lacking = []
        for piece in pieces:
            frame = self.frames.get(piece.key)
            if frame is None or frame.status is None:
                lacking.append(piece.key)
            elif piece.must_succeed and frame.status:
                break
        return lacking


def compose(pieces: Iterable[Piece], marker: str, prologue: str = "") -> str:
    """The script that runs `pieces` one after the other, each in a subshell without standard input.

    `prologue` is sh text that runs before them, in the shell that they are children of. A descriptor 9 that it opens
    (a lock) is not handed to them: a daemon that a piece starts would keep it.
    """
    pieces = list(pieces)
    marks = [f'"begin {piece.key}"' for piece in pieces] + ["done"]
    parts = [_PRELUDE.format(marker=marker, prologue=prologue.rstrip("\n")), f"_mark {marks[0]}\n"]
    for piece, following in zip(pieces, marks[1:], strict=True):
        parts.append((_AT_ITS_END if piece.short else _AT_ONCE).format(text=piece.text.rstrip("\n")))
        if piece.must_succeed:
            parts.append(_STOP_ON_FAILURE.format(key=piece.key))
        parts.append(f'_mark "end {piece.key} $_status" {following}\n')
    return "".join([*parts, _POSTLUDE])


def new_marker() -> str:
    """A word that no output can hold by chance."""
    return f"runbook-{secrets.token_hex(12)}"


class Reader:
    """Takes the two output streams of a framed script as they arrive, and gathers them into a Transcript.

    `on_mark(word, key)` is called for each begin and end line on standard output, as it arrives.
    """

    def __init__(self, marker: str, on_mark: Callable[[str, str], None] | None = None) -> None:
        self._marker = marker
        self._on_mark = on_mark
        self._rest = {"out": "", "err": ""}
        self._current: dict[str, str | None] = {"out": None, "err": None}
        self._kept: dict[tuple[str, str | None], list[str]] = {}
        self._frames: dict[str, Frame] = {}
        self._done: set[str] = set()
        self._pid: int | None = None
        self._shell = ""
        self._broken = ""

    @property
    def done(self) -> bool:
        """Whether both streams told the script's end: nothing that follows is the script's."""
        return len(self._done) == 2

    def feed(self, stream: str, text: str) -> None:
        """More of `stream` ('out' or 'err')."""
        lines = (self._rest[stream] + text).split("\n")
        self._rest[stream] = lines.pop()
        for line in lines:
            self._line(stream, line)

    def close(self) -> Transcript:
        """No more will come: what was left without a newline belongs to the piece that was running."""
        for stream, rest in self._rest.items():
            self._keep(stream, rest)
            self._rest[stream] = ""
        for key, frame in self._frames.items():
            frame.out, frame.err = ("".join(self._kept.get((stream, key), ())) for stream in ("out", "err"))
        noise = "".join(line for stream in ("out", "err") for line in self._kept.get((stream, None), ()))
        return Transcript(self._frames, self.done, self._pid, noise, self._shell, self._broken)

    def _line(self, stream: str, line: str) -> None:
        words = line.split(" ")
        if words[0] != self._marker or len(words) < 2:
            self._keep(stream, line + "\n")
            return
        current = self._current[stream]
        match words[1:]:
            case ["shell", pid, version] if pid.isdecimal() and current is None:
                self._pid, self._shell = int(pid), version
            case ["begin", key] if current is None and (stream, key) not in self._kept:
                self._frames.setdefault(key, Frame())
                self._kept[stream, key] = []
                self._current[stream] = key
            case ["end", key, status] if status.isdecimal() and current == key:
                # The newline before the mark is the framing's own.
                if kept := self._kept[stream, key]:
                    kept[-1] = kept[-1].removesuffix("\n")
                self._current[stream] = None
                if stream == "out":
                    self._frames[key].status = int(status)
            case ["done"] if current is None:
                self._done.add(stream)
            case _:
                self._broken = self._broken or f"'{' '.join(words[1:])}' on std{stream}"
                return
        if self._on_mark and stream == "out" and words[1] in ("begin", "end"):
            self._on_mark(words[1], words[2])

    def _keep(self, stream: str, text: str) -> None:
        key = self._current[stream]
        if key is not None or text.strip():
            self._kept.setdefault((stream, key), []).append(text)


class Facts(dict[str, str]):
    """What a probe found out, by name. Raises StepFailed for what it should have printed and did not."""

    def __missing__(self, name: str) -> str:
        raise StepFailed(f"the probe's answer tells no '{name}'; it is: {dict(self)}")


def facts(text: str) -> Facts:
    """The `key=value` lines of a probe's output; other lines are ignored."""
    return Facts(line.split("=", 1) for line in text.split("\n") if "=" in line)
