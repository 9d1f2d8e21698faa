"""The journal: chained lines, several writers, power losses, and alterations that are told."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from runbook.errors import RecordError
from runbook.rollout import journal
from runbook.rollout.journal import GENESIS, Fault, Journal, Tail, digest, read, verify

WRITER = """
import itertools, sys
from pathlib import Path
from runbook.rollout.journal import Journal
count = itertools.count() if sys.argv[3] == "forever" else range(int(sys.argv[3]))
with Journal(Path(sys.argv[1])) as file:
    for number in count:
        file.append({"event": "said", "by": sys.argv[2], "number": number, "text": "x" * 200})
        print(number, flush=True)
"""


def writer(path: Path, name: str, count: int | str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITER, str(path), name, str(count)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / journal.NAME


@pytest.fixture
def written(path: Path) -> list[bytes]:
    """A journal of five entries; gives its lines."""
    with Journal(path) as file:
        for number in range(5):
            file.append({"event": "said", "number": number, "text": "ü\u2028\r\n"})
    return path.read_bytes().split(b"\n")[:-1]


def test_each_line_carries_its_number_and_the_hash_of_the_one_before(path: Path, written: list[bytes]) -> None:
    entries = read(path)
    assert [entry["seq"] for entry in entries] == [1, 2, 3, 4, 5]
    assert [entry["prev"] for entry in entries] == [GENESIS, *map(digest, written[:-1])]
    assert [entry["text"] for entry in entries] == ["ü\u2028\r\n"] * 5
    assert verify(path) == []
    assert verify(path, digest(written[-1])) == []


def test_append_gives_the_entry_as_it_is_on_the_disk(path: Path) -> None:
    with Journal(path) as file:
        entry = file.append({"event": "said", "at": Path("/etc")})
    assert json.loads(path.read_bytes()) == {**entry, "at": "/etc"}


def test_a_journal_opened_again_goes_on_where_it_ended(path: Path, written: list[bytes]) -> None:
    with Journal(path) as file:
        entry = file.append({"event": "said"})
    assert (entry["seq"], entry["prev"]) == (6, digest(written[-1]))


def test_two_journals_on_one_file_take_turns(path: Path) -> None:
    with Journal(path) as one, Journal(path) as other:
        for number in range(6):
            (one, other)[number % 2].append({"event": "said"})
    assert [entry["seq"] for entry in read(path)] == [1, 2, 3, 4, 5, 6]
    assert verify(path) == []


def test_several_processes_write_one_chain(path: Path) -> None:
    writers = [writer(path, name, 40) for name in "abc"]
    assert [each.wait() for each in writers if each.communicate()] == [0, 0, 0]
    entries = read(path)
    assert verify(path) == []
    for name in "abc":
        assert [entry["number"] for entry in entries if entry["by"] == name] == list(range(40))


def test_what_a_killed_process_said_it_wrote_is_there(path: Path) -> None:
    killed = writer(path, "a", "forever")
    assert killed.stdout is not None
    said = [int(killed.stdout.readline()) for _ in range(20)]
    killed.send_signal(signal.SIGKILL)
    said += map(int, killed.communicate()[0].split())
    with Journal(path) as file:
        file.append({"event": "said", "number": "after"})
    numbers = [entry["number"] for entry in read(path) if entry["event"] == "said"]
    assert numbers[:-1] == list(range(len(numbers) - 1))
    assert len(numbers) - 1 >= len(said)
    assert verify(path) == []


@pytest.mark.parametrize("torn", [b'{"seq": 6, "ti', b"\0" * 4096, b'{"seq": 6, "text": "\xc3'])
def test_a_torn_last_line_is_told_and_then_kept(path: Path, written: list[bytes], torn: bytes) -> None:
    with path.open("ab") as file:
        file.write(torn)
    message = f"torn: {len(torn)} bytes without an end, as a power loss does"
    assert verify(path) == [Fault(path, 6, message)]

    with Journal(path) as opened:
        opened.append({"event": "said"})

    lines = path.read_bytes().split(b"\n")
    assert lines[:6] == [*written, torn]
    notice, after = (json.loads(line) for line in lines[6:8])
    assert (notice["event"], notice["line"]) == ("torn_line", 6)
    assert (notice["bytes"], notice["prev"], notice["before"]) == (len(torn), digest(torn), digest(written[-1]))
    assert (after["event"], after["seq"]) == ("said", 8)
    assert [entry["seq"] for entry in read(path)] == [1, 2, 3, 4, 5, 7, 8]
    assert verify(path) == []


def test_a_line_that_lost_nothing_but_its_end_is_no_torn_line(path: Path, written: list[bytes]) -> None:
    path.write_bytes(b"\n".join(written))
    with Journal(path) as file:
        entry = file.append({"event": "said"})
    assert entry["seq"] == 6
    assert verify(path) == []


def test_the_line_before_a_torn_one_is_vouched_for(path: Path, written: list[bytes]) -> None:
    with path.open("ab") as file:
        file.write(b"torn")
    with Journal(path) as opened:
        opened.append({"event": "said"})
    path.write_bytes(path.read_bytes().replace(b'"number": 4', b'"number": 9'))
    assert verify(path) == [Fault(path, 5, "altered")]


@pytest.mark.parametrize("torn", [b"", b'{"seq": 6, "ti'])
def test_every_altered_byte_is_told_with_its_line(path: Path, written: list[bytes], torn: bytes) -> None:
    if torn:
        path.write_bytes(path.read_bytes() + torn)
        with Journal(path) as opened:
            opened.append({"event": "said"})
    whole = path.read_bytes()
    last = digest(whole.splitlines()[-1])
    assert verify(path, last) == []
    for at, byte in enumerate(whole):
        line = whole[:at].count(b"\n") + 1
        altered = bytearray(whole)
        altered[at] = byte ^ 1
        path.write_bytes(altered)
        told = [fault.line for fault in verify(path, last)]
        if byte == ord("\n"):  # two lines became one
            assert told, at
        else:
            assert told == [line], at


@pytest.mark.parametrize(
    ("altered", "told"),
    [
        pytest.param([0, 1, 3, 4], [(2, "line 3 was removed after it")], id="a line removed"),
        pytest.param([0, 4], [(1, "lines 2 to 4 were removed after it")], id="three lines removed"),
        pytest.param([1, 2, 3, 4], [(1, "the lines before it were removed")], id="the first line removed"),
        pytest.param([0, 1, 2, 3], [(4, "altered, or the lines after it were removed")], id="the last line removed"),
        pytest.param([0, 2, 1, 3, 4], [(3, "altered")], id="two lines exchanged"),
        pytest.param([0, 1, 1, 2, 3, 4], [(2, "something was put in after it")], id="a line put in"),
    ],
)
def test_lines_that_were_moved_are_told(
    path: Path, written: list[bytes], altered: list[int], told: list[tuple[int, str]]
) -> None:
    path.write_bytes(b"".join(written[index] + b"\n" for index in altered))
    assert [(fault.line, fault.message) for fault in verify(path, digest(written[-1]))] == told


def test_a_forged_torn_line_owns_up_to_no_entry(path: Path, written: list[bytes]) -> None:
    path.write_bytes(b"\n".join([*written[:2], b"nothing", *written[3:], b""]))
    assert verify(path) == [Fault(path, 3, "altered: not an entry, and no torn_line entry owns up to it")]


def test_a_journal_that_is_cut_while_it_is_open_is_not_continued(path: Path) -> None:
    with Journal(path) as file:
        file.append({"event": "said"})
        os.truncate(path, 10)
        with pytest.raises(RecordError, match="the journal was cut"):
            file.append({"event": "said"})
    assert path.stat().st_size == 10


def test_a_full_disk_is_an_error_that_says_so() -> None:
    with Journal(Path("/dev/full")) as file, pytest.raises(RecordError, match=r"/dev/full: .*No space left"):
        file.append({"event": "said"})


def test_a_journal_that_cannot_be_opened_is_an_error_that_says_so(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match=r"missing/journal.jsonl: cannot write the journal: No such file"):
        Journal(tmp_path / "missing" / "journal.jsonl")


def test_a_tail_gives_each_whole_line_once(path: Path) -> None:
    tail = Tail(path)
    assert tail.read() == []
    with Journal(path) as file:
        file.append({"event": "one"})
        assert [entry["event"] for entry in tail.read()] == ["one"]
        assert tail.read() == []
        file.append({"event": "two"})
        file.append({"event": "three"})
    with path.open("ab") as unfinished:
        unfinished.write(b'{"seq": 4, "ev')
    assert [entry["event"] for entry in tail.read()] == ["two", "three"]
    with path.open("ab") as unfinished:
        unfinished.write(b'ent": "four"}\n')
    assert [entry["event"] for entry in tail.read()] == ["four"]
