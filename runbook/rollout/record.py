"""Records: the folder that a rollout leaves, how it is begun and closed, and how an alteration is told.

What a folder holds is read without trust: whatever is in the place of a file ends in a verdict on this one record.

A record's journal is all there is to know; record.json and report.html are derived from it when the record is closed.
record.json holds the SHA-256 of every other file in the folder and that of the closed record before it;
record.sha256 holds the one of record.json itself, in the form that `sha256sum --check` reads. What this can tell and
what it cannot is written in outputs/README.md.
"""

from __future__ import annotations

import contextlib
import fcntl
import getpass
import json
import os
import re
import secrets
import socket
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import zip_longest
from pathlib import Path
from typing import Any

from runbook.errors import RecordError
from runbook.remote.modes import Mode
from runbook.rollout import files, journal
from runbook.rollout.history import ChapterHistory, History, SectionHistory, shown
from runbook.rollout.journal import UNREADABLE, Entry, Fault, Journal
from runbook.secrets import redact_data
from runbook.site import Site

VARIABLE = "RUNBOOK_RECORD"  # names the record's folder in the environment of a rollout's kernels
FORMAT = 1  # of record.json; counts up when the same journal would give another record.json
RECORD, SEAL = "record.json", "record.sha256"
REPORT = "report.html"
PATTERN = re.compile(r"\d{8}T\d{6}Z-.+-[0-9a-f]{6}")  # what `new_name` gives
INTERRUPTED = "removed, or the rollout died while it closed the record"

_writing: dict[Path, int] = {}  # the locks of the records that this process writes


# beginning


def new_name(site: str) -> str:
    """A name for a record of a site that begins now: UTC time, site, and a short random id; sorts by time."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{site}-{secrets.token_hex(3)}"


def begin(outputs: Path, site: Site, mode: Mode, name: str | None = None) -> Path:
    """Make the folder of a record and the first entry of its journal; gives the folder.

    Raises RecordError where the folder cannot be made, or exists.
    """
    folder = outputs / (name or new_name(site.name))
    try:
        outputs.mkdir(parents=True, exist_ok=True)
        folder.mkdir()
    except OSError as error:
        raise RecordError(
            f"{folder}: cannot make the record's folder: {error.strerror}", "choose another place with --outputs"
        ) from error
    commit, dirty = source()
    _lock(folder)
    try:
        _open(folder, site, mode, commit, dirty)
    except RecordError:  # nothing was done yet, and nothing is recorded
        _unlock(folder)
        (folder / journal.NAME).unlink(missing_ok=True)
        folder.rmdir()
        raise
    for each in (folder, outputs):
        files.sync_folder(each)
    return folder


def _open(folder: Path, site: Site, mode: Mode, commit: str | None, dirty: bool | None) -> None:
    with journal_of(folder) as file:
        file.append(
            {
                "event": "record_opened",
                "record": folder.name,
                "site": site.name,
                "mode": mode,
                "operator": operator(),
                "commit": commit,
                "dirty": dirty,
                "parameters": redact_data(site.model_dump(mode="json")),
            }
        )


def _lock(folder: Path) -> bool:
    """Mark a record as being written until this process closes it, or ends; False where another one has it."""
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise RecordError(f"{folder}: cannot be read: {error.strerror}", "name a record's folder") from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        return False
    except OSError:  # a filesystem without locks on directories, such as NFS
        os.close(handle)
        return True
    _writing[folder.absolute()] = handle
    return True


def _unlock(folder: Path) -> None:
    handle = _writing.pop(folder.absolute(), None)
    if handle is not None:
        os.close(handle)


def journal_of(folder: Path) -> Journal:
    """The journal of a record, opened for appending."""
    return Journal(folder / journal.NAME)


def operator() -> str:
    """Who runs this: user@machine."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a user without a name, as containers have
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"


def source() -> tuple[str | None, bool | None]:
    """The commit that this package is of, and whether anything differs from it; nothing for either outside git."""
    here = Path(__file__)

    def git(*command: str) -> str:
        done = subprocess.run(
            ["git", "--no-optional-locks", "-C", here.parent, *command], capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    try:
        git("ls-files", "--error-unmatch", here.name)  # not of a repository that an installed package lies in by chance
        return git("rev-parse", "HEAD"), bool(git("status", "--porcelain"))
    except (FileNotFoundError, subprocess.CalledProcessError):
        return None, None


# closing


def close(folder: Path) -> dict[str, Any]:
    """Close a record: its last journal entry, report.html, record.json and the seal. Gives the content of record.json.

    All files are on the disk under temporary names before the journal gets its last entry, so that a full disk leaves a
    record that `close_abandoned` can close. Raises RecordError where it cannot be written, or is closed already.
    """
    if os.path.lexists(folder / RECORD):
        raise RecordError(f"{folder}: is closed already", "a record is never changed: start a new rollout")
    content: dict[str, Any] = {}
    try:
        with contextlib.ExitStack() as stack, journal_of(folder) as file:
            written: list[tuple[str, Path]] = []

            def prepare(text: bytes) -> None:
                pages, made = _closing(folder, text)
                content.update(made)
                written.extend(stack.enter_context(files.prepared(pages)))

            outcome = history_of(folder).outcome
            file.append({"event": "record_closed", "outcome": outcome}, prepare)
            files.link(written)
    except RecordError as error:
        remedy = f"make room or give the right to write, then: runbook record close {folder}"
        raise RecordError(error.message, remedy) from error
    finally:
        _unlock(folder)
    return content


def close_abandoned(folder: Path, reason: str | None = None) -> dict[str, Any]:
    """Close a record whose rollout ended without doing so; its outcome is `died`. Gives the content of record.json.

    `reason` is what the operator knows of the cause; it is recorded beside what can be seen. Raises RecordError for a
    record that is closed, is still being written, or was modified.
    """
    verified = verify(folder)
    if os.path.lexists(folder / RECORD) and not verified.interrupted:
        raise RecordError(f"{folder}: is closed already", f"see runbook record verify {folder}")
    if verified.refused or (verified.faults and not verified.interrupted):
        problem = (*map(str, verified.faults), *verified.refused)[0]
        raise RecordError(f"{problem}: a record like this is not closed", "keep it as it is, as evidence")
    if not _lock(folder):
        raise RecordError(f"{folder}: its rollout still runs", "wait for its end")
    try:
        if os.path.lexists(folder / RECORD):  # all that is missing is the seal
            data = files.read(folder / RECORD)
            files.create(folder / SEAL, _seal(data).encode())
            return dict(json.loads(data))
        for name in files.names(folder):
            if name.startswith(files.TEMPORARY):
                (folder / name).unlink()
        history = history_of(folder)
        cause = "the rollout ended without closing its record: its process was killed, the disk was full, or the "
        cause += f"machine went down; closed by {operator()}"
        if history.closed:
            cause += f", after its journal was closed and before {RECORD} was written, or after that was removed"
        with journal_of(folder) as file:
            file.append({"event": "stopped", "reason": "; ".join(filter(None, [history.stopped, reason, cause]))})
        return close(folder)
    finally:
        _unlock(folder)


def _closing(folder: Path, text: bytes) -> tuple[dict[Path, bytes], dict[str, Any]]:
    """The files that close a record with this journal, in the order in which they get their names, and record.json."""
    from runbook.rollout import report  # jinja2 and nbformat: nothing that a kernel should wait for when it starts

    page = report.render(folder, _history(folder, text)).encode()
    hashes = _hashes(folder, {journal.NAME: text, REPORT: page})
    content = _content(folder, text, hashes, _newest_closed(folder))
    data = _text(content)
    return {folder / REPORT: page, folder / SEAL: _seal(data).encode(), folder / RECORD: data}, content


def _newest_closed(folder: Path) -> dict[str, str] | None:
    newest = None
    for path in _closed_beside(folder):
        # what cannot be read vouches for nothing; `verify` tells of it
        with contextlib.suppress(RecordError, OSError):
            candidate = (path.stat().st_mtime_ns, path.parent.name, files.digest(path))
            newest = max(candidate, newest or candidate)
    return {"record": newest[1], "sha256": newest[2]} if newest else None


def _closed_beside(folder: Path) -> list[Path]:
    """The record.json of every other record in the same folder."""
    here = Path(os.path.abspath(folder))
    return [each / RECORD for each in all_of(folder.parent) if each.name != here.name]


def _content(folder: Path, text: bytes, hashes: dict[str, str], previous: dict[str, str] | None) -> dict[str, Any]:
    """What record.json says: wholly determined by the journal, the other files, and the record before."""
    history = _history(folder, text)
    opened = history.opened
    lines = text.split(b"\n")[:-1]
    return {
        "outcome": history.outcome,
        **history.counts,
        "record": opened["record"],
        "site": opened["site"],
        "mode": opened["mode"],
        "stopped": history.stopped,
        "operator": opened["operator"],
        "commit": opened["commit"],
        "dirty": opened["dirty"],
        "started": history.started,
        "finished": history.finished,
        "hosts": _hosts(history),
        "chapters": [_chapter(chapter) for chapter in history.chapters],
        "notes": history.notes,
        "parameters": opened["parameters"],
        "format": FORMAT,
        "journal": {"lines": len(lines), "last": journal.digest(lines[-1])},
        "files": hashes,
        "previous": previous,
    }


def _hashes(folder: Path, known: Mapping[str, bytes]) -> dict[str, str]:
    """The SHA-256 of each file but record.json and the seal; of those in `known` the content is given."""
    names = {*files.names(folder), *known} - {RECORD, SEAL}
    return {
        name: journal.digest(known[name]) if name in known else files.digest(folder / name) for name in sorted(names)
    }


def _hosts(history: History) -> dict[str, dict[str, Any]]:
    addresses = {host["name"]: host["address"] for host in history.opened["parameters"]["hosts"]}
    return {
        name: {"address": address, "versions": history.versions.get(name, {})} for name, address in addresses.items()
    }


def _chapter(chapter: ChapterHistory) -> dict[str, Any]:
    return {
        "number": chapter.number,
        "title": chapter.title,
        "outcome": chapter.outcome,
        "reason": chapter.reason,
        "seconds": chapter.seconds,
        "sections": [_section(section) for section in chapter.sections],
    }


def _section(section: SectionHistory) -> dict[str, Any]:
    return {
        "number": section.number,
        "title": section.title,
        "outcome": section.outcome,
        "error": section.error,
        "seconds": section.seconds,
        "steps": [shown(step) for step in section.steps],
        "checks": [_check(check) for check in section.checks],
        "gates": [{"name": gate["name"], "answer": gate["answer"], "by": gate["by"]} for gate in section.gates],
    }


def _check(check: Entry) -> dict[str, Any]:
    """`tried` is told where it is false: record.json of journals from before there was `tried` stays what it was."""
    return {name: check[name] for name in ("name", "holds")} | ({} if check.get("tried", True) else {"tried": False})


def _text(content: dict[str, Any]) -> bytes:
    return json.dumps(content, indent=2, ensure_ascii=False).encode() + b"\n"


def _seal(data: bytes) -> str:
    return f"{journal.digest(data)}  {RECORD}\n"


# verifying


@dataclass(frozen=True)
class Verified:
    """What a verification found.

    `faults` are modifications, `refused` says why the record could not be verified, `notes` what could not be looked
    at. `closed` is False for a record that was never closed.
    """

    folder: Path
    faults: tuple[Fault, ...]
    notes: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()
    closed: bool = field(default=True, compare=False)

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong, as far as a record that was never closed can show."""
        return not self.faults and not self.refused

    @property
    def interrupted(self) -> bool:
        """Whether all that is wrong can come from a rollout that died while it closed its record."""
        return bool(self.faults) and not self.refused and {fault.message for fault in self.faults} == {INTERRUPTED}

    @property
    def verdict(self) -> str:
        """The verdict in a few words."""
        if self.interrupted:
            return "not completely closed"
        if self.faults:
            return "altered"
        if self.refused:
            return "not verified"
        return "as it was written" if self.closed else "not closed"


@dataclass
class _Findings:
    """What is found while a record is looked at."""

    faults: list[Fault] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)

    @contextmanager
    def of(self, path: Path) -> Iterator[None]:
        """Look at one file: whatever is wrong with it is a finding, and ends what is inside."""
        try:
            yield
        except FileNotFoundError:
            self.faults.append(Fault(path, 0, "removed"))
        except files.NotAFile as error:
            self.faults.append(Fault(path, 0, f"altered: {error.message}"))
        except RecordError as error:
            self.refused.append(error.message)
        except UNREADABLE as error:
            self.faults.append(Fault(path, 0, f"altered beyond reading: {type(error).__name__}"))


def verify(folder: Path) -> Verified:
    """Tell every file, and where possible the line, of a record that is not as it was written.

    Looks at the chain of the journal, the hashes of all files, files that are missing or were put in, the seal, the
    name, the record before this one and the ones after. Raises RecordError where the folder is no record, and nothing
    else whatever the folder holds.
    """
    if not is_record(folder):
        raise RecordError(f"{folder}: is no record: it has no {journal.NAME}", "name a folder below outputs/")
    found = _Findings()
    notes: list[str] = []
    closed = os.path.lexists(folder / RECORD)
    path = folder / journal.NAME
    with found.of(path):
        text = files.read(path)
        if closed:
            with found.of(folder / RECORD):
                _verify_closed(folder, text, found, notes)
        else:
            _verify_open(folder, text, found, notes)
        _verify_name(folder, text, found)
    return Verified(folder, tuple(found.faults), tuple(notes), tuple(found.refused), closed)


def _verify_name(folder: Path, text: bytes, found: _Findings) -> None:
    name = Path(os.path.abspath(folder)).name
    recorded = next((entry.get("record") for entry in journal.entries(text) if entry["event"] == "record_opened"), None)
    if recorded != name and (recorded is not None or not found.faults):
        told = "does not name its record" if recorded is None else f"is of the record {recorded}: renamed or copied"
        found.faults.append(Fault(folder / journal.NAME, 1, told))


def _verify_open(folder: Path, text: bytes, found: _Findings, notes: list[str]) -> None:
    path = folder / journal.NAME
    torn = journal.torn_end(path, text)
    found.faults += [fault for fault in journal.verify(path, text=text) if fault not in torn]
    holders = _holders(folder)
    if holders:
        told = f"removed after {min(holders)} was closed, which holds its hash"
        found.faults.append(Fault(folder / RECORD, 0, told))
    elif any(entry["event"] == "record_closed" for entry in journal.entries(text)):
        found.faults.append(Fault(folder / RECORD, 0, INTERRUPTED))
    else:
        for name in (SEAL, REPORT):  # which are made when the journal is closed already
            if os.path.lexists(folder / name):
                found.faults.append(Fault(folder / name, 0, "put in, or the end of the journal was removed"))
    if not found.faults:
        name = Path(os.path.abspath(folder)).name
        notes.append(f"{name}: was never closed: only its journal can be verified")
        notes += [f"{fault.file.name} line {fault.line}: {fault.message}" for fault in torn]


def _verify_closed(folder: Path, text: bytes, found: _Findings, notes: list[str]) -> None:
    path = folder / journal.NAME
    data = files.read(folder / RECORD)
    content = _parsed(data)
    if not isinstance(content, dict):
        found.faults += [*journal.verify(path, text=text), Fault(folder / RECORD, 0, "altered: not a JSON object")]
        return
    sealed = None
    if os.path.lexists(folder / SEAL):
        with found.of(folder / SEAL):
            sealed = files.read(folder / SEAL)
    else:
        found.faults.append(Fault(folder / SEAL, 0, INTERRUPTED))
    with found.of(folder):
        hashes, unread = _present(folder, text)
        found.faults += _inside(folder, data, content, sealed, text, hashes, unread, found)
    before, told = _before(folder, content)
    found.faults += [*before, *_after(folder, data)]
    notes += told


def _present(folder: Path, text: bytes) -> tuple[dict[str, str], dict[str, _Findings]]:
    """The hash of every file but record.json and the seal, and what keeps some of them from being read."""
    hashes, unread = {}, {}
    for name in files.names(folder):
        if name in (RECORD, SEAL):
            continue
        here = _Findings()
        with here.of(folder / name):
            hashes[name] = journal.digest(text) if name == journal.NAME else files.digest(folder / name)
        if name not in hashes:
            unread[name] = here
    return hashes, unread


def _inside(
    folder: Path,
    data: bytes,
    content: dict[str, Any],
    sealed: bytes | None,
    text: bytes,
    hashes: dict[str, str],
    unread: dict[str, _Findings],
    found: _Findings,
) -> list[Fault]:
    """What in the folder is not as it was written; `data` is record.json, and `content` what it says."""
    path = folder / journal.NAME
    recorded = content.get("files")
    recorded = recorded if isinstance(recorded, dict) else {}
    assumed = {**hashes, **{name: recorded[name] for name in unread if name in recorded}}
    newer = type(content.get("format")) is int and content["format"] > FORMAT
    derived = b"" if newer else _derived(folder, content, text, dict(sorted(assumed.items())))
    altered = _first_difference(folder / RECORD, data, derived)
    if altered and sealed == _seal(derived).encode() and not unread:  # all else is as it was sealed
        return [altered]
    last = content["journal"].get("last") if isinstance(content.get("journal"), dict) else None
    chain = journal.verify(path, last, text)
    faults = [
        *chain,
        *(fault for fault in _altered_files(folder, recorded, hashes, unread) if not chain or fault.file != path),
    ]
    found.refused += [each for here in unread.values() for each in here.refused]
    if altered and not faults:
        return [altered]
    if sealed is not None and sealed != _seal(data).encode():
        faults.append(Fault(folder / RECORD, 0, f"altered, or {SEAL} was: their hashes differ"))
    if newer:
        found.refused.append(
            f"{folder / RECORD}: written by a newer version (format {content['format']}, this one knows {FORMAT}): "
            "verify it with that version"
        )
    elif not derived and not faults:
        faults.append(Fault(folder / RECORD, 0, "altered: the other files give no such record"))
    return faults


def _derived(folder: Path, content: dict[str, Any], text: bytes, hashes: dict[str, str]) -> bytes:
    """What record.json would be by the other files; nothing where they do not tell."""
    try:
        return _text(_content(folder, text, hashes, content.get("previous")))
    except (RecordError, *UNREADABLE):  # they were altered beyond reading
        return b""


def _first_difference(path: Path, present: bytes, derived: bytes) -> Fault | None:
    if not derived:
        return None
    lines = zip_longest(present.split(b"\n"), derived.split(b"\n"), fillvalue=b"the end")
    for number, (line, wanted) in enumerate(lines, 1):
        if line != wanted:
            return Fault(path, number, f"altered: by the other files, this is {wanted.decode().strip()}")
    return None


def _altered_files(
    folder: Path, recorded: dict[str, Any], hashes: dict[str, str], unread: dict[str, _Findings]
) -> list[Fault]:
    faults = [Fault(folder / name, 0, "removed") for name in recorded if name not in hashes and name not in unread]
    for name in sorted({*hashes, *unread}):
        if name not in recorded:
            faults.append(Fault(folder / name, 0, "put in after the record was closed"))
        elif name in unread:
            faults += unread[name].faults
        elif hashes[name] != recorded[name]:
            faults.append(Fault(folder / name, 0, "altered"))
    return faults


def _before(folder: Path, content: dict[str, Any]) -> tuple[list[Fault], tuple[str, ...]]:
    """Whether the record before this one is still the one that was there when this one was closed."""
    match content.get("previous"):
        case {"record": str(name), "sha256": str(sha256)}:
            path = folder.parent / name / RECORD
            here = Path(os.path.abspath(folder)).name
            try:
                if files.digest(path) != sha256:
                    return [Fault(path, 0, f"altered after {here} was closed, which holds its hash")], ()
            except (FileNotFoundError, ValueError):
                return [], (f"{here}: the record before it, {name}, is not here and was not looked at",)
            except RecordError as error:
                return [], (f"{here}: the record before it was not looked at: {error.message}",)
    return [], ()


def _after(folder: Path, data: bytes) -> list[Fault]:
    """Whether records that were closed later hold another hash of this one."""
    return [
        Fault(folder / RECORD, 0, f"altered after {later} was closed, which holds its hash")
        for later, sha256 in _holders(folder).items()
        if sha256 != journal.digest(data)
    ]


def _holders(folder: Path) -> dict[str, str]:
    """The records that were closed after this one, by name, each with the hash of its record.json that it holds."""
    held = {}
    name = Path(os.path.abspath(folder)).name
    for path in _closed_beside(folder):
        # what cannot be read holds nothing; it has a verdict of its own
        with contextlib.suppress(RecordError, OSError):
            match _parsed(files.read(path)):
                case {"previous": {"record": before, "sha256": str(sha256)}} if before == name:
                    held[path.parent.name] = sha256
    return held


def _parsed(data: bytes) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError):  # not JSON, not UTF-8, or nested deeper than any record
        return None


# listing


def all_of(outputs: Path) -> list[Path]:
    """The folders of all records, the oldest first: whatever has a record's name, or any file that only records have.

    Raises RecordError where `outputs` cannot be read.
    """
    try:
        return sorted(path for path in outputs.iterdir() if is_record(path))
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise RecordError(f"{outputs}: cannot be read: {error.strerror}", "see who may read it") from error


def is_record(folder: Path) -> bool:
    """Whether this is a record, however damaged."""
    if PATTERN.fullmatch(Path(os.path.abspath(folder)).name) and os.path.lexists(folder):
        return True
    try:
        return not {entry.name for entry in os.scandir(folder)}.isdisjoint({journal.NAME, RECORD, SEAL, REPORT})
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:  # permission denied, say: it may be one
        return True


def history_of(folder: Path) -> History:
    """What the journal of a record tells; RecordError where it was altered beyond reading."""
    path = folder / journal.NAME
    try:
        return _history(folder, files.read(path))
    except FileNotFoundError as error:
        raise RecordError(f"{path}: was removed", f"see runbook record verify {folder}") from error


def _history(folder: Path, text: bytes) -> History:
    try:
        history = History.of(journal.entries(text))
        if not history.opened:
            raise KeyError("record_opened")
        history.examine()
    except UNREADABLE as error:
        raise RecordError(
            f"{folder / journal.NAME}: cannot be read: {error!r}", f"see runbook record verify {folder}"
        ) from error
    return history
