"""POSIX sh text: quoting, and the framing that carries many pieces in one execution.

A script holds numbered pieces. Each prints a begin line and an end line with its exit status on both output streams,
marked with a random word, so that neither a login profile's chatter nor a piece's own output can be taken for a
frame, and so that a lost connection still shows how far the script got. The whole script is one function, called in
its last line: a shell that received only half of it runs nothing.
"""

from __future__ import annotations

import base64
import secrets
import shlex
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

_PRELUDE = """\
LC_ALL=C; export LC_ALL
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin; export PATH
umask 022
_mark() {{ printf '\\n%s %s\\n' {marker} "$*"; printf '\\n%s %s\\n' {marker} "$*" >&2; }}
_main() {{
_mark pid $$
"""
_PIECE = """\
_mark begin {key}
(
{text}
) </dev/null
_status=$?
_mark end {key} $_status
"""
_STOP_ON_FAILURE = "[ $_status -eq 0 ] || return 0\n"
_POSTLUDE = """\
_mark done
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


@dataclass(frozen=True)
class Piece:
    """A numbered part of a script. With `must_succeed`, its failure ends the script before the next piece."""

    key: str
    text: str
    must_succeed: bool = False


@dataclass
class Frame:
    """What one piece printed. `status` is None while it has not ended (or never did)."""

    out: str = ""
    err: str = ""
    status: int | None = None


@dataclass
class Transcript:
    """The frames of one execution, in order of their begin lines, and whether the script reached its end.

    `pid` is the shell's process id on the host, known as soon as the script started.
    """

    frames: dict[str, Frame] = field(default_factory=dict)
    done: bool = False
    pid: int | None = None
    noise: str = ""


def compose(pieces: Iterable[Piece], marker: str) -> str:
    """The script that runs `pieces` one after the other, each in a subshell without standard input."""
    parts = [_PRELUDE.format(marker=marker)]
    for piece in pieces:
        parts.append(_PIECE.format(key=piece.key, text=piece.text.rstrip("\n")))
        if piece.must_succeed:
            parts.append(_STOP_ON_FAILURE)
    return "".join([*parts, _POSTLUDE])


def new_marker() -> str:
    """A word that no output can hold by chance."""
    return f"runbook-{secrets.token_hex(12)}"


class Reader:
    """Takes the two output streams of a framed script as they arrive, and gathers them into a Transcript.

    `on_mark(word, key)` is called for each begin and end line on standard output, as it arrives.
    """

    def __init__(self, marker: str, on_mark: Callable[[str, str], None] | None = None) -> None:
        self.transcript = Transcript()
        self._marker = marker
        self._on_mark = on_mark
        self._pending = {"out": "", "err": ""}
        self._current: dict[str, str | None] = {"out": None, "err": None}

    def feed(self, stream: str, text: str) -> None:
        """More of `stream` ('out' or 'err')."""
        lines = (self._pending[stream] + text).split("\n")
        self._pending[stream] = lines.pop()
        for line in lines:
            self._line(stream, line)

    def close(self) -> Transcript:
        """No more will come: what was left without a newline belongs to the piece that was running."""
        for stream, rest in self._pending.items():
            if rest:
                self._keep(stream, rest)
        self._pending = {"out": "", "err": ""}
        for frame in self.transcript.frames.values():
            # The newline before each mark is the framing's own.
            frame.out = frame.out.removesuffix("\n")
            frame.err = frame.err.removesuffix("\n")
        return self.transcript

    def _line(self, stream: str, line: str) -> None:
        words = line.split(" ")
        if words[0] != self._marker or len(words) < 2:
            self._keep(stream, line + "\n")
            return
        match words[1:]:
            case ["pid", pid]:
                self.transcript.pid = int(pid)
            case ["begin", key]:
                self.transcript.frames.setdefault(key, Frame())
                self._current[stream] = key
            case ["end", key, status]:
                self._current[stream] = None
                self.transcript.frames[key].status = int(status)
            case ["done"]:
                self.transcript.done = True
        if self._on_mark and stream == "out" and words[1] in ("begin", "end"):
            self._on_mark(words[1], words[2])

    def _keep(self, stream: str, text: str) -> None:
        key = self._current[stream]
        if key is None:
            if text.strip():
                self.transcript.noise += text
        elif stream == "out":
            self.transcript.frames[key].out += text
        else:
            self.transcript.frames[key].err += text


def facts(text: str) -> Mapping[str, str]:
    """The `key=value` lines of a probe's output; other lines are ignored."""
    return dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
