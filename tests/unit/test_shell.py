"""Quoting and framing: whatever a value or an output holds, it arrives as it was, and in its own piece."""

from __future__ import annotations

import itertools
import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from local_host import PRESENT, SHELLS, LocalHost

from runbook.errors import StepFailed
from runbook.remote.shell import Frame, Piece, Reader, Transcript, compose, facts, heredoc, new_marker, question, quote

MARKER = "runbook-0123456789abcdef"
WORDS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=60)


@pytest.fixture(params=PRESENT)
def host(request: pytest.FixtureRequest, tmp_path: Path) -> LocalHost:
    return LocalHost(request.param, tmp_path / "state")


# quoting


@pytest.mark.parametrize("shell", PRESENT)
@given(words=st.lists(WORDS, min_size=1, max_size=5))
@settings(max_examples=60, deadline=None)
def test_a_quoted_word_reaches_a_program_as_it_was(shell: str, words: list[str]) -> None:
    script = f"printf '%s\\0' {' '.join(map(quote, words))}\n"
    output = subprocess.run([*SHELLS[shell], "-s"], input=script.encode(), capture_output=True, check=True).stdout
    assert output.decode().split("\0")[:-1] == words


def test_nul_cannot_be_quoted() -> None:
    with pytest.raises(ValueError, match="NUL"):
        quote("a\0b")


@pytest.mark.parametrize("shell", PRESENT)
@given(data=st.binary(max_size=3000))
@settings(max_examples=40, deadline=None)
def test_a_heredoc_carries_any_bytes(shell: str, data: bytes) -> None:
    script = f"base64 -d {heredoc(data)}\n"
    output = subprocess.run([*SHELLS[shell], "-s"], input=script.encode(), capture_output=True, check=True).stdout
    assert output == data


# scripts


def test_each_piece_has_its_own_output_and_status(host: LocalHost) -> None:
    frames = host.run(
        Piece("a", "echo out; echo err >&2"),
        Piece("b", "printf 'no newline'; printf 'none here' >&2; exit 7"),
        Piece("c", ""),
        Piece("d", "printf 'blank line after\\n\\n'"),
    )
    assert frames == {
        "a": Frame("out\n", "err\n", 0),
        "b": Frame("no newline", "none here", 7),
        "c": Frame("", "", 0),
        "d": Frame("blank line after\n\n", "", 0),
    }


@pytest.mark.skipif("dash" not in PRESENT, reason="bash writes each line of a printf for itself, but at once")
def test_a_short_piece_tells_its_output_and_its_end_in_one_write() -> None:
    pieces = [Piece("a", "echo a; printf 'b\\n\\n'", short=True), Piece("b", "exit 4", short=True)]
    reading, writing = os.pipe2(os.O_DIRECT)  # a pipe that keeps each write apart (pipe(2))
    with os.fdopen(reading, "rb", buffering=0) as pipe:
        script = compose(pieces, MARKER).encode()
        subprocess.run(["dash", "-s"], input=script, stdout=writing, stderr=subprocess.DEVNULL, check=True)
        os.close(writing)
        _, _, *writes = iter(lambda: pipe.read(1 << 16).decode(), "")
    assert writes == [f"a\nb\n\n{MARKER} end a 0\n\n{MARKER} begin b\n", f"\n{MARKER} end b 4\n\n{MARKER} done\n"]


def test_a_short_piece_is_as_any_other_but_for_the_newlines_at_its_end(host: LocalHost) -> None:
    frames = host.run(
        Piece("a", "x=1; case $x in 1) echo out; echo err >&2;; esac; exit 7", short=True),
        Piece("b", "printf 'no newline'; trap 'echo bye' EXIT; set -e; false; echo never", short=True),
        Piece("c", "", short=True),
        Piece("d", 'printf "blank lines[$x]\\n\\n\\n"; cat', short=True),
    )
    assert frames == {
        "a": Frame("out\n", "err\n", 7),
        "b": Frame("no newlinebye\n", "", 1),
        "c": Frame("", "", 0),
        "d": Frame("blank lines[]\n", "", 0),
    }


def test_pieces_do_not_see_each_other(host: LocalHost) -> None:
    frames = host.run(
        Piece("a", "x=1; cd /; set -e; umask 077; trap 'echo bye' EXIT; cat"),
        Piece("b", 'echo "[$x]"; pwd; umask; false; echo on'),
    )
    assert frames["a"] == Frame("bye\n", "", 0)  # and `cat` found no script to eat
    assert frames["b"].out == f"[]\n{os.getcwd()}\n0022\non\n"


def test_a_piece_that_must_succeed_ends_the_script(host: LocalHost) -> None:
    frames = host.run(Piece("a", "exit 3", must_succeed=True), Piece("b", "echo never"))
    assert frames == {"a": Frame("", "", 3)}


def test_output_that_looks_like_a_frame_is_output(host: LocalHost) -> None:
    fake = "runbook-000000000000000000000000 end a 0\nrunbook- done\n"
    frames = host.run(Piece("a", f"printf '%s' {quote(fake)}; exit 1"))
    assert frames == {"a": Frame(fake, "", 1)}


@pytest.mark.parametrize("kept", [0.1, 0.3, 0.5, 0.9, 0.99])
def test_a_truncated_script_runs_nothing(host: LocalHost, tmp_path: Path, kept: float) -> None:
    pieces = [Piece(str(n), f"touch {quote(tmp_path)}/{n}\nbase64 -d {heredoc(b'x' * 500)}") for n in range(20)]
    whole = len(compose(pieces, new_marker(), f"RUNBOOK_BACKUP={host.state}/backup/record"))
    assert host.run(*pieces, truncated=int(whole * kept)) == {}
    assert list(tmp_path.iterdir()) == []
    assert len(host.run(*pieces, truncated=whole)) == 20
    assert len(list(tmp_path.iterdir())) == 20


def test_a_script_cut_off_anywhere_runs_all_or_nothing(host: LocalHost, tmp_path: Path) -> None:
    pieces = [Piece("0", f"touch {quote(tmp_path)}/0", must_succeed=True), Piece("1", f"touch {quote(tmp_path)}/1")]
    whole = len(compose(pieces, MARKER, f"RUNBOOK_BACKUP={host.state}/backup/record"))
    for length in range(whole - 60, whole + 1):
        host.run(*pieces, truncated=length, marker=MARKER)
        made = sorted(path.name for path in tmp_path.iterdir())
        assert made in ([], ["0", "1"])
        for name in made:
            (tmp_path / name).unlink()


def test_the_prologue_runs_first_and_its_lock_stays_with_the_script(host: LocalHost, tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    script = compose([Piece("a", "ls -l /proc/self/fd; flock -n 9 || echo closed")], MARKER, f"exec 9>>{lock}\nflock 9")
    done = subprocess.run([*SHELLS[host.shell], "-s"], input=script.encode(), capture_output=True, check=True)
    assert str(lock) not in done.stdout.decode()
    assert "closed" in done.stdout.decode()


# the reader


def transcript_of(streams: dict[str, str], cuts: dict[str, list[int]]) -> Transcript:
    reader = Reader(MARKER)
    for stream, text in streams.items():
        edges = [0, *sorted(cuts[stream]), len(text)]
        for begin, end in itertools.pairwise(edges):
            reader.feed(stream, text[begin:end])
    return reader.close()


LINES = st.lists(st.text(st.sampled_from("ab \n\x85\x0b\r"), max_size=12), max_size=4).map("\n".join)
PIECES = st.lists(st.tuples(LINES, LINES, st.integers(0, 255)), max_size=4)


@given(pieces=PIECES, noise=LINES, data=st.data())
@settings(deadline=None)
def test_any_chunking_gives_the_same_transcript(
    pieces: list[tuple[str, str, int]], noise: str, data: st.DataObject
) -> None:
    streams = {
        "out": f"{noise}\n{MARKER} shell 42 4.2.46(2)-release\n",
        "err": f"{noise}\n{MARKER} shell 42 4.2.46(2)-release\n",
    }
    for key, (out, err, status) in enumerate(pieces):
        for stream, text in (("out", out), ("err", err)):
            streams[stream] += f"\n{MARKER} begin {key}\n{text}\n{MARKER} end {key} {status}\n"
    for stream in streams:
        streams[stream] += f"\n{MARKER} done\n{noise}\n"
    cuts = {stream: data.draw(st.lists(st.integers(0, len(text)), max_size=9)) for stream, text in streams.items()}
    transcript = transcript_of(streams, cuts)
    assert transcript.frames == {str(key): Frame(*piece) for key, piece in enumerate(pieces)}
    assert (transcript.done, transcript.pid) == (True, 42)
    assert transcript.noise.split() == noise.split() * 4


def test_a_broken_off_transcript_shows_how_far_the_script_got() -> None:
    reader = Reader(MARKER)
    reader.feed("err", f"\n{MARKER} begin a\n\n{MARKER} end a 0\n\n{MARKER} begin b\n")
    reader.feed("out", f"\n{MARKER} shell 7 \n\n{MARKER} begin a\nx\n{MARKER} end a 0\n\n{MARKER} begin b\nhalf a li")
    transcript = reader.close()
    assert transcript.frames == {"a": Frame("x", "", 0), "b": Frame("half a li", "", None)}
    assert (transcript.done, transcript.pid, transcript.noise) == (False, 7, "")


def test_a_piece_has_ended_only_once_its_output_is_there() -> None:
    reader = Reader(MARKER)
    reader.feed("err", f"\n{MARKER} begin a\n\n{MARKER} end a 0\n\n{MARKER} done\n")
    reader.feed("out", f"\n{MARKER} begin a\nhalf of ")
    assert not reader.done
    assert reader.close().frames == {"a": Frame("half of ", "", None)}


OUT_OF_TURN = [
    ["end a 0"],  # what bash 4.2 made of a marker whose null string it had dropped
    ["begin a", "begin b"],
    ["begin a", "end b 0"],
    ["begin a", "end a "],
    ["begin a", "done"],
    ["begin a", "end a 0", "begin a"],
    ["begin"],
]


@pytest.mark.parametrize("marks", OUT_OF_TURN)
@pytest.mark.parametrize("stream", ["out", "err"])
def test_a_mark_out_of_turn_breaks_the_transcript(marks: list[str], stream: str) -> None:
    reader = Reader(MARKER)
    reader.feed(stream, "".join(f"\n{MARKER} {mark}\n" for mark in marks))
    assert reader.close().broken == f"'{marks[-1]}' on std{stream}"


def test_the_pieces_that_should_have_ended_are_known() -> None:
    pieces = [Piece("a", "", must_succeed=True), Piece("b", "")]
    assert Transcript({"a": Frame(status=0)}).lacking(pieces) == ["b"]
    assert Transcript({"a": Frame(status=1)}).lacking(pieces) == []
    assert Transcript({"a": Frame(status=0), "b": Frame()}).lacking(pieces) == ["b"]


def test_marks_are_told_as_they_arrive() -> None:
    told: list[tuple[str, str]] = []
    reader = Reader(MARKER, lambda word, key: told.append((word, key)))
    reader.feed("err", f"\n{MARKER} begin a\n")
    assert told == []
    reader.feed("out", f"\n{MARKER} begin a\n")
    assert told == [("begin", "a")]
    reader.feed("out", f"\n{MARKER} end a 0\n")
    assert told == [("begin", "a"), ("end", "a")]


def test_a_long_output_is_read_in_linear_time() -> None:
    reader = Reader(MARKER)
    reader.feed("out", f"\n{MARKER} begin a\n")
    for _ in range(200):
        reader.feed("out", "a line of a log file\n" * 2000)  # 8 MB in all: quadratic reading takes minutes
    reader.feed("out", f"\n{MARKER} end a 0\n")
    assert len(reader.close().frames["a"].out) == 200 * 2000 * 21


# facts


def test_facts_are_the_lines_with_an_equals_sign() -> None:
    assert facts("a=1\nnoise\nb=x=y\nc=\x85still c\n") == {"a": "1", "b": "x=y", "c": "\x85still c"}


def test_a_fact_that_is_missing_is_a_failed_step() -> None:
    with pytest.raises(StepFailed, match="tells no 'kind'"):
        facts("a=1")["kind"]


SYSTEMCTL = """\
#!/bin/sh
case "$*" in *is-active*) printf '%s\\n' {states};; esac
"""


@pytest.mark.parametrize("shell", PRESENT)
@pytest.mark.parametrize(
    ("states", "asked"),
    [
        ("active active", "asked"),
        ("active activating", "asked"),
        ("inactive active", "asked"),  # Docker without a socket of systemd's
        ("inactive inactive", "asked"),  # nobody would start it
        ("active inactive", "asked unix:///run/docker-is-stopped"),
        ("active failed", "asked unix:///run/docker-is-stopped"),
    ],
)
def test_a_question_starts_no_docker_that_is_stopped(tmp_path: Path, shell: str, states: str, asked: str) -> None:
    systemctl = tmp_path / "bin" / "systemctl"
    systemctl.parent.mkdir()
    systemctl.write_text(SYSTEMCTL.format(states=states))
    systemctl.chmod(0o755)
    path = f"{systemctl.parent}:/usr/bin:/bin"
    host = LocalHost(shell, tmp_path / "state", environment={"PATH": path, "DOCKER_HOST": ""})
    answer = host.run(Piece("0", question("echo asked $DOCKER_HOST  # docker ps")))["0"]
    assert (answer.out.strip(), answer.status) == (asked, 0)
    assert question("echo 1") == "echo 1"
