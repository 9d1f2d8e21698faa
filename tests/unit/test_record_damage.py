"""Whatever is in the place of a record: `verify` gives each record its verdict, and a full disk leaves one that can be
closed."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_record import begun, closed, reseal, site, step, tell

from runbook.cli import main
from runbook.errors import RecordError
from runbook.remote.modes import Mode
from runbook.rollout import files, journal, record
from runbook.rollout.journal import digest
from runbook.site import Site

__all__ = ["closed", "site"]  # fixtures


@pytest.fixture(autouse=True)
def no_git(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record, "source", lambda: (None, None))  # two processes a record


def invoke(*arguments: str | Path) -> Result:
    return CliRunner(env={"COLUMNS": "250"}).invoke(main, [str(argument) for argument in arguments])


@pytest.fixture
def neighbours(closed: Path, site: Site) -> tuple[Path, Path]:
    """Two more records beside `closed`, one on each side of it in the order of names."""
    pair = []
    for name in ("20000101T000000Z-rehearsal-000000", "29991231T235959Z-rehearsal-000000"):
        pair.append(record.begin(closed.parent, site, Mode.PLAN, name))
    for each in pair:  # in turn, so that none but its own neighbour holds the hash of another
        record.close(each)
    return pair[0], pair[1]


def as_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def as_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def as_link(path: Path) -> None:
    target = path.parent.parent / f"moved-{path.name}"
    path.rename(target)
    path.symlink_to(target)


def as_dangling_link(path: Path) -> None:
    path.unlink()
    path.symlink_to("nowhere")


def as_huge(path: Path) -> None:
    os.truncate(path, files.LARGEST_HASHED + 1)  # a hole: no block of it is on the disk


def written(content: bytes) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        path.write_bytes(content)

    return write


DAMAGE: dict[str, Callable[[Path], None]] = {
    "removed": Path.unlink,
    "a directory": as_directory,
    "a pipe": as_pipe,
    "a link": as_link,
    "a dangling link": as_dangling_link,
    "huge": as_huge,
    "empty": written(b""),
    "rubbish": written(bytes(range(256)) * 40),
    "not UTF-8": written(b'{"text": "\xff\xfe"}\n'),
    "200,000 brackets": written(b"[" * 200_000),
    "200,000 brackets in a line": written(b"[" * 200_000 + b"\n"),
    "900 objects in one another": written(b'{"a":' * 900 + b"1" + b"}" * 900 + b"\n"),
    "a list": written(b"[]\n"),
    "the journal a number": written(b'{"journal": 5}\n'),
    "files a number": written(b'{"files": 5, "format": 1}\n'),
    "NaN": written(b'{"seq": NaN, "event": NaN, "format": NaN}\n'),
    "a number of 10,000 digits": written(b'{"seq": ' + b"9" * 10_000 + b"}\n"),
    "a key twice": written(b'{"format": 1, "format": 1, "seq": 1, "seq": 1, "event": "record_opened"}\n'),
    "an entry that opens nothing": written(b'{"seq": 1, "event": "record_opened", "prev": 5}\n'),
    "previous a path": written(b'{"previous": {"record": "../\\u0000", "sha256": ""}, "format": 1}\n'),
}
NAMES = ("journal.jsonl", "record.json", "record.sha256", "report.html", "01_zookeeper.ipynb")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_any_damage_is_told_for_its_record_and_ends_the_verification_of_no_other(
    closed: Path, neighbours: tuple[Path, Path], name: str, damage: Callable[[Path], None]
) -> None:
    damage(closed / name)
    done = invoke("record", "verify", closed.parent)
    assert done.exit_code == 1, done.output
    verdicts = dict(line.rsplit(": ", 1) for line in done.stdout.splitlines() if not line.startswith(" "))
    assert verdicts.pop(str(closed)) in ("altered", "not verified", "not completely closed")
    assert [str(neighbour) in verdicts for neighbour in neighbours] == [True, True]
    assert name in done.stdout
    assert verdicts[str(neighbours[1])] == "as it was written"

    listed = invoke("record", "list", closed.parent)
    assert listed.exit_code == 0, listed.output
    assert closed.name in listed.stdout


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("damage", ["a directory", "a pipe", "rubbish", "200,000 brackets"])
def test_a_rollout_closes_its_record_beside_a_damaged_one(closed: Path, site: Site, name: str, damage: str) -> None:
    DAMAGE[damage](closed / name)
    later = begun(closed.parent, site)
    record.close(later)
    assert [fault for fault in record.verify(later).faults if fault.file.parent == later] == []


def test_a_record_that_lost_all_but_its_name_is_told(closed: Path) -> None:
    for path in closed.iterdir():
        path.unlink()
    assert record.all_of(closed.parent) == [closed]
    assert [str(fault) for fault in record.verify(closed).faults] == [f"{closed}/journal.jsonl: removed"]


def test_a_file_in_the_place_of_a_record_is_told(closed: Path) -> None:
    shutil.rmtree(closed)
    closed.write_text("")
    assert invoke("record", "verify", closed.parent).exit_code == 1


@pytest.mark.parametrize("keep", ["journal.jsonl", "record.json", "record.sha256", "report.html"])
def test_any_file_that_is_left_gives_a_renamed_record_away(closed: Path, keep: str) -> None:
    moved = closed.rename(closed.parent / "elsewhere")
    for path in moved.iterdir():
        if path.name != keep:
            path.unlink()
    done = invoke("record", "verify", moved.parent)
    assert done.exit_code == 1
    assert f"{moved}: altered" in done.stdout


@pytest.mark.parametrize("name", ["20300101T000000Z-rehearsal-ffffff", "other"])
def test_a_renamed_record_and_a_copied_one_are_told(closed: Path, name: str) -> None:
    copy = closed.parent / name
    shutil.copytree(closed, copy)
    (fault,) = record.verify(copy).faults
    assert str(fault) == f"{copy}/journal.jsonl:1: is of the record {closed.name}: renamed or copied"
    assert record.verify(closed).verdict == "as it was written"
    assert invoke("record", "verify", closed.parent).exit_code == 1


def test_a_record_is_known_by_its_name_from_inside_too(closed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(closed)
    assert record.verify(Path()).verdict == "as it was written"


def test_a_format_of_a_newer_version_is_not_verified(closed: Path) -> None:
    path = closed / record.RECORD
    path.write_text(path.read_text().replace('"format": 1', '"format": 2').replace(record.operator(), "other@there"))
    reseal(closed)
    verified = record.verify(closed)
    assert (verified.ok, verified.verdict) == (False, "not verified")
    (reason,) = verified.refused
    assert "written by a newer version (format 2, this one knows 1)" in reason


@pytest.mark.parametrize("form", ["0", '"1"', "null", "true", "1.0", "-1"])
def test_a_format_that_there_never_was_is_altered(closed: Path, form: str) -> None:
    path = closed / record.RECORD
    path.write_text(path.read_text().replace('"format": 1', f'"format": {form}'))
    reseal(closed)
    assert record.verify(closed).verdict == "altered"


@pytest.mark.parametrize("what", ["a directory", "a dangling link", "a link to a directory", "a file in a directory"])
def test_what_is_put_in_is_told_whatever_it_is(closed: Path, what: str) -> None:
    path = closed / "more"
    if "link" in what:
        path.symlink_to("nowhere" if "dangling" in what else closed.parent)
    else:
        path.mkdir()
    if what == "a file in a directory":
        (path / "file").write_text("")
    verified = record.verify(closed)
    assert [fault.message for fault in verified.faults] in (
        ["put in after the record was closed"],
        ["altered: " + f"{path}: is a symbolic link"],
    )


def test_what_may_not_be_read_is_not_verified(closed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = os.open

    def refused(path: str | Path, *options: int, **more: int) -> int:
        if Path(path) == closed / "01_zookeeper.ipynb":
            raise PermissionError(errno.EACCES, "Permission denied")
        return opened(path, *options, **more)

    monkeypatch.setattr(os, "open", refused)
    verified = record.verify(closed)
    assert verified.verdict == "not verified"
    assert verified.refused == (f"{closed}/01_zookeeper.ipynb: cannot be read: Permission denied",)


# any damage at all


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of a closed record, and its name at ''."""
    from test_record import SITE

    outputs = tmp_path_factory.mktemp("whole")
    at = {"chapter": "01", "section": "1.1"}
    check = {"event": "check", **at, "name": "leader", "holds": True, "evidence": "node1", "seconds": 0.2}
    folder = begun(outputs, Site.parse(SITE, outputs / "site.yml"), step("node1", "changed"), check)
    (folder / "01_zookeeper.ipynb").write_text('{"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}')
    record.close(folder)
    return {"": folder.name.encode()} | {path.name: path.read_bytes() for path in folder.iterdir()}


Change = Callable[[dict[str, bytes]], None]


@st.composite
def changes(draw: st.DrawFn) -> Change:
    """A change of the files of a record: of bytes, of lines, or of files."""
    kind = draw(st.sampled_from(["flip", "cut", "insert", "line out", "line twice", "lines exchanged", "file"]))
    name = draw(st.sampled_from(NAMES))
    place, other = draw(st.floats(0, 1, exclude_max=True)), draw(st.floats(0, 1, exclude_max=True))
    some = draw(st.binary(min_size=1, max_size=20) | st.sampled_from([b"\n", b"{", b"[" * 3000, b"\0", b'"']))
    into = draw(st.sampled_from([*NAMES, "more", None]))

    def change(held: dict[str, bytes]) -> None:
        content = held.get(name, b"")
        at = int(place * len(content))
        lines = content.splitlines(keepends=True) or [b""]
        one, two = int(place * len(lines)), int(other * len(lines))
        if kind == "file":
            held.pop(name, None)
            if into is not None:
                held[into] = content
            return
        if kind == "flip" and content:
            content = content[:at] + bytes([content[at] ^ some[0]]) + content[at + 1 :]
        elif kind == "cut":
            content = content[:at] + content[at + len(some) :]
        elif kind == "insert":
            content = content[:at] + some + content[at:]
        elif kind == "line out":
            content = b"".join(lines[:one] + lines[one + 1 :])
        elif kind == "line twice":
            content = b"".join([*lines[: one + 1], lines[one], *lines[one + 1 :]])
        elif kind == "lines exchanged":
            lines[one], lines[two] = lines[two], lines[one]
            content = b"".join(lines)
        held[name] = content

    return change


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(made=st.lists(changes(), min_size=1, max_size=3), sealed_again=st.booleans())
def test_no_change_is_taken_for_the_record_and_none_is_an_error(
    tmp_path_factory: pytest.TempPathFactory, whole: dict[str, bytes], made: list[Change], sealed_again: bool
) -> None:
    held = {name: content for name, content in whole.items() if name}
    for change in made:
        change(held)
    if sealed_again and record.RECORD in held:
        held[record.SEAL] = f"{digest(held[record.RECORD])}  {record.RECORD}\n".encode()
    folder = tmp_path_factory.mktemp("changed") / whole[""].decode()
    folder.mkdir()
    for name, content in held.items():
        (folder / name).write_bytes(content)
    verified = record.verify(folder)
    unchanged = {"": whole[""]} | held == whole
    assert verified.ok is unchanged, verified
    assert (verified.verdict == "as it was written") is unchanged
    shutil.rmtree(folder.parent)


# a full disk


@pytest.fixture
def full(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int | None], list[str]]]:
    """Lets the disk be full from the call number `at` on that needs room; gives the calls so far. None: never."""
    state: dict[str, int | None] = {"at": None}
    calls: list[str] = []

    def failing(name: str, call: Callable[..., object]) -> Callable[..., object]:
        def wrapped(*arguments: object, **options: object) -> object:
            calls.append(name)
            if state["at"] is not None and len(calls) > state["at"]:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return call(*arguments, **options)

        return wrapped

    monkeypatch.setattr(os, "write", failing("write", os.write))
    monkeypatch.setattr(os, "fsync", failing("fsync", os.fsync))
    monkeypatch.setattr(os, "replace", failing("replace", os.replace))
    monkeypatch.setattr(files.tempfile, "mkstemp", failing("mkstemp", files.tempfile.mkstemp))

    def set_at(at: int | None) -> list[str]:
        state["at"] = at
        seen = list(calls)
        calls.clear()
        return seen

    yield set_at
    state["at"] = None


def test_a_disk_that_is_full_at_any_moment_leaves_a_record_that_is_not_altered_and_can_be_closed(
    tmp_path: Path, site: Site, full: Callable[[int | None], list[str]]
) -> None:
    at = 0
    while problem := closing_fails(folder := begun(tmp_path / str(at), site, step("node1", "changed")), full, at):
        assert "No space left on device" in problem.message, at
        assert problem.remedy == f"make room or give the right to write, then: runbook record close {folder}"
        assert [path.name for path in folder.iterdir() if path.name.startswith(files.TEMPORARY)] == []
        verified = record.verify(folder)
        assert verified.verdict in ("not closed", "not completely closed", "as it was written"), (at, verified)
        if verified.verdict != "as it was written":
            content = record.close_abandoned(folder, "the disk was full")
            assert record.verify(folder).verdict == "as it was written", at
            assert content["outcome"] == "died"
            assert content["stopped"].startswith("the disk was full; the rollout ended without closing its record")
        at += 1
    assert at > 8


def closing_fails(folder: Path, full: Callable[[int | None], list[str]], at: int) -> RecordError | None:
    full(at)
    try:
        record.close(folder)
    except RecordError as error:
        return error
    finally:
        full(None)
    return None


def test_a_disk_that_is_full_while_something_is_told_leaves_a_journal_without_a_torn_line(
    tmp_path: Path, site: Site, full: Callable[[int | None], list[str]]
) -> None:
    folder = record.begin(tmp_path, site, Mode.APPLY)
    with (folder / journal.NAME).open("ab") as file:
        file.write(b"torn by an earlier power loss")
    before = (folder / journal.NAME).read_bytes()
    for at in range(2):  # the write, and the sync
        full(at)
        with pytest.raises(RecordError, match="No space left"):
            tell(folder, {"event": "note", "text": "x"})
        full(None)
        assert (folder / journal.NAME).read_bytes() == before
        assert record.verify(folder).verdict == "not closed"
    tell(folder, {"event": "note", "text": "x"})
    assert record.verify(folder).verdict == "not closed"
    record.close(folder)
    assert record.verify(folder).verdict == "as it was written"


def test_a_disk_that_is_full_at_the_beginning_leaves_nothing(
    tmp_path: Path, site: Site, full: Callable[[int | None], list[str]]
) -> None:
    full(0)
    with pytest.raises(RecordError, match="No space left"):
        record.begin(tmp_path / "outputs", site, Mode.APPLY)
    full(None)
    assert list((tmp_path / "outputs").iterdir()) == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 256 KiB, which needs root."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "none", disk], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"cannot mount: {mounted.stderr.decode().strip()}")
    yield disk
    subprocess.run(["umount", disk], check=True)


@pytest.mark.parametrize("room", range(0, 24 * 1024, 4096))
def test_a_record_on_a_disk_that_is_really_full(small_disk: Path, site: Site, room: int) -> None:
    folder = begun(small_disk, site, step("node1", "changed"))
    ballast = small_disk / "ballast"
    free = os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_frsize
    ballast.write_bytes(b"x" * (free - room))
    notes = [{"event": "note", "text": f"{number} {'x' * 300}"} for number in range(1000)]
    with pytest.raises(RecordError, match="No space left"):
        tell(folder, *notes)
    with pytest.raises(RecordError, match="No space left"):
        record.close(folder)
    assert record.verify(folder).verdict == "not closed"
    ballast.unlink()
    done = invoke("record", "close", folder, "--reason", "the disk was full")
    assert done.exit_code == 0, done.output
    assert "closed: died: the disk was full; the rollout ended without closing its record" in done.stdout
    assert record.verify(folder).verdict == "as it was written"
    assert "the disk was full" in (folder / "report.html").read_text()


# closing what was left


def test_a_record_that_is_still_written_is_not_closed_by_another(tmp_path: Path, site: Site) -> None:
    folder = begun(tmp_path, site)
    with pytest.raises(RecordError, match="its rollout still runs"):
        record.close_abandoned(folder)
    record._unlock(folder)  # as the end of its process does
    content = record.close_abandoned(folder)
    assert content["outcome"] == "died"
    assert record.verify(folder).verdict == "as it was written"


def test_a_closed_record_and_an_altered_one_are_not_closed(closed: Path, site: Site) -> None:
    assert "is closed already" in invoke("record", "close", closed).stderr
    folder = begun(closed.parent, site)
    record._unlock(folder)
    path = folder / journal.NAME
    path.write_text(path.read_text().replace("ZooKeeper", "zookeeper"))
    done = invoke("record", "close", folder)
    assert done.exit_code == 1
    assert "a record like this is not closed" in done.stderr
    assert not (folder / record.RECORD).exists()


def test_what_already_stopped_a_rollout_stays_its_reason(tmp_path: Path, site: Site) -> None:
    folder = begun(tmp_path, site, {"event": "stopped", "reason": "interrupted by SIGTERM"})
    record._unlock(folder)
    assert record.close_abandoned(folder)["stopped"].startswith("interrupted by SIGTERM; the rollout ended without")


def test_a_record_json_that_was_removed_is_not_replaced_where_a_later_record_holds_its_hash(
    closed: Path, neighbours: tuple[Path, Path]
) -> None:
    (closed / record.RECORD).unlink()
    done = invoke("record", "close", closed)
    assert done.exit_code == 1
    assert "which holds its hash" in done.stderr


def test_a_notebook_that_cannot_be_read_does_not_keep_a_record_from_being_closed(tmp_path: Path, site: Site) -> None:
    folder = begun(tmp_path, site)
    (folder / "01_zookeeper.ipynb").write_bytes(b"[" * 100_000)
    assert json.loads((folder / record.RECORD).read_text() if record.close(folder) else "")["outcome"] == "changed"
    assert "01_zookeeper.ipynb cannot be read" in (folder / "report.html").read_text()
