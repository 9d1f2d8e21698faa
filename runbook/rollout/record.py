"""Records: the folder that a rollout leaves, how it is begun and closed, and how an alteration is told.

A record's journal is all there is to know; record.json and report.html are derived from it when the record is closed.
record.json holds the SHA-256 of every other file in the folder and that of the closed record before it;
record.sha256 holds the one of record.json itself, in the form that `sha256sum --check` reads. What this can tell and
what it cannot is written in outputs/README.md.
"""

from __future__ import annotations

import getpass
import json
import os
import secrets
import socket
import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import zip_longest
from pathlib import Path
from typing import Any

from runbook.errors import RecordError
from runbook.remote.modes import Mode
from runbook.rollout import files, journal
from runbook.rollout.history import ChapterHistory, History, SectionHistory, shown
from runbook.rollout.journal import Entry, Fault, Journal
from runbook.secrets import redact_data
from runbook.site import Site

VARIABLE = "RUNBOOK_RECORD"  # names the record's folder in the environment of a rollout's kernels
FORMAT = 1  # of record.json; counts up when the same journal would give another record.json
RECORD, SEAL = "record.json", "record.sha256"


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
    for each in (folder, outputs):
        files.sync_folder(each)
    return folder


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

    Raises RecordError where it is closed already.
    """
    if (folder / RECORD).exists():
        raise RecordError(f"{folder}: is closed already", "a record is never changed: start a new rollout")
    from runbook.rollout import report  # jinja2 and nbformat: nothing that a kernel should wait for when it starts

    previous = _newest_closed(folder)
    with journal_of(folder) as file:
        history = History.of(journal.read(file.path))
        file.append({"event": "record_closed", "outcome": history.outcome})
    files.create(folder / report.NAME, report.render(folder).encode())
    content = _content(folder, previous)
    data = _text(content)
    files.create(folder / RECORD, data)
    files.create(folder / SEAL, _seal(data).encode())
    return content


def _newest_closed(folder: Path) -> dict[str, str] | None:
    closed = [path for path in folder.parent.glob(f"*/{RECORD}") if path.parent != folder]
    if not closed:
        return None
    newest = max(closed, key=lambda path: (path.stat().st_mtime_ns, path.parent.name))
    return {"record": newest.parent.name, "sha256": journal.digest(newest.read_bytes())}


def _content(folder: Path, previous: dict[str, str] | None) -> dict[str, Any]:
    """What record.json says: wholly determined by the other files of the folder and by the record before."""
    history = history_of(folder)
    opened = history.opened
    lines = (folder / journal.NAME).read_bytes().split(b"\n")[:-1]
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
        "files": {name: journal.digest((folder / name).read_bytes()) for name in _names(folder)},
        "previous": previous,
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


def _names(folder: Path) -> list[str]:
    found = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return sorted(name for name in found if name not in (RECORD, SEAL))


def _text(content: dict[str, Any]) -> bytes:
    return json.dumps(content, indent=2, ensure_ascii=False).encode() + b"\n"


def _seal(data: bytes) -> str:
    return f"{journal.digest(data)}  {RECORD}\n"


# verifying


@dataclass(frozen=True)
class Verified:
    """What a verification found: `faults` are alterations, `notes` what could not be looked at."""

    folder: Path
    faults: tuple[Fault, ...]
    notes: tuple[str, ...] = ()


def verify(folder: Path) -> Verified:
    """Tell every file, and where possible the line, of a record that is not as it was written.

    Looks at the chain of the journal, the hashes of all files, files that are missing or were put in, the seal, the
    record before this one and the ones after. Raises RecordError where the folder is no record.
    """
    path = folder / journal.NAME
    if not path.is_file():
        if (folder / RECORD).exists():
            return Verified(folder, (Fault(path, 0, "removed"),))
        raise RecordError(f"{folder}: is no record: it has no {journal.NAME}", "name a folder below outputs/")
    if not (folder / RECORD).exists():
        faults = [*journal.verify(path), *_removed(folder)]
        note = f"{folder.name}: was never closed: only its journal can be verified"
        return Verified(folder, tuple(faults), () if faults else (note,))
    data = (folder / RECORD).read_bytes()
    content = _loaded(folder / RECORD)
    if not isinstance(content, dict):
        return Verified(folder, (*journal.verify(path), Fault(folder / RECORD, 0, "altered: not a JSON object")))
    before, notes = _before(folder, content)
    faults = [*_inside(folder, data, content), *before, *_after(folder, data)]
    return Verified(folder, tuple(faults), notes)


def _inside(folder: Path, data: bytes, content: dict[str, Any]) -> list[Fault]:
    """What in the folder is not as it was written; `data` is record.json, and `content` what it says."""
    seal = folder / SEAL
    if not seal.exists():
        return [Fault(seal, 0, "removed, or the rollout died while it closed the record")]
    sealed = seal.read_text(encoding="utf-8", errors="replace")
    derived = _derived(folder, content)
    altered = _first_difference(folder / RECORD, data, derived)
    if altered and sealed == _seal(derived):  # all else is as it was sealed
        return [altered]
    path = folder / journal.NAME
    chain = journal.verify(path, content.get("journal", {}).get("last"))
    faults = [*chain, *(fault for fault in _altered_files(folder, content) if not chain or fault.file != path)]
    if altered and not faults:
        return [altered]
    if sealed != _seal(data):
        faults.append(Fault(folder / RECORD, 0, f"altered, or {SEAL} was: their hashes differ"))
    return faults


def _derived(folder: Path, content: dict[str, Any]) -> bytes:
    """What record.json would be by the other files; nothing where they do not tell, or this version does not know."""
    if content.get("format") != FORMAT:
        return b""
    try:
        return _text(_content(folder, content.get("previous")))
    except (RecordError, LookupError, TypeError, ValueError):  # they were altered beyond reading
        return b""


def _first_difference(path: Path, present: bytes, derived: bytes) -> Fault | None:
    if not derived:
        return None
    lines = zip_longest(present.split(b"\n"), derived.split(b"\n"), fillvalue=b"the end")
    for number, (line, wanted) in enumerate(lines, 1):
        if line != wanted:
            return Fault(path, number, f"altered: by the other files, this is {wanted.decode().strip()}")
    return None


def _altered_files(folder: Path, content: dict[str, Any]) -> list[Fault]:
    recorded: dict[str, str] = content.get("files", {})
    present = set(_names(folder))
    faults = [Fault(folder / name, 0, "removed") for name in recorded if name not in present]
    for name in sorted(present):
        if name not in recorded:
            faults.append(Fault(folder / name, 0, "put in after the record was closed"))
        elif journal.digest((folder / name).read_bytes()) != recorded[name]:
            faults.append(Fault(folder / name, 0, "altered"))
    return faults


def _before(folder: Path, content: dict[str, Any]) -> tuple[list[Fault], tuple[str, ...]]:
    """Whether the record before this one is still the one that was there when this one was closed."""
    match content.get("previous"):
        case {"record": str(name), "sha256": str(sha256)}:
            path = folder.parent / name / RECORD
            if not path.is_file():
                return [], (f"{folder.name}: the record before it, {name}, is not here and was not looked at",)
            if journal.digest(path.read_bytes()) != sha256:
                return [Fault(path, 0, f"altered after {folder.name} was closed, which holds its hash")], ()
    return [], ()


def _after(folder: Path, data: bytes) -> list[Fault]:
    """Whether records that were closed later hold another hash of this one."""
    return [
        Fault(folder / RECORD, 0, f"altered after {later} was closed, which holds its hash")
        for later, sha256 in _holders(folder).items()
        if sha256 != journal.digest(data)
    ]


def _removed(folder: Path) -> list[Fault]:
    """Whether a record without record.json had one: its journal or a record that was closed later says so."""
    holders = _holders(folder)
    if holders:
        return [Fault(folder / RECORD, 0, f"removed after {min(holders)} was closed, which holds its hash")]
    if any(entry["event"] == "record_closed" for entry in journal.read(folder / journal.NAME)):
        return [Fault(folder / RECORD, 0, "removed, or the rollout died while it closed the record")]
    return []


def _holders(folder: Path) -> dict[str, str]:
    """The records that were closed after this one, by name, each with the hash of its record.json that it holds."""
    held = {}
    for path in sorted(folder.parent.glob(f"*/{RECORD}")):
        match _loaded(path):
            case {"previous": {"record": folder.name, "sha256": str(sha256)}}:
                held[path.parent.name] = sha256
    return held


def _loaded(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except ValueError:  # not JSON, or not UTF-8
        return None


# listing


def all_of(outputs: Path) -> list[Path]:
    """The folders of all records, the oldest first."""
    return sorted(path.parent for path in outputs.glob(f"*/{journal.NAME}"))


def history_of(folder: Path) -> History:
    """What the journal of a record tells; RecordError where it was altered beyond reading."""
    try:
        history = History.of(journal.read(folder / journal.NAME))
        if not history.opened:
            raise KeyError("record_opened")
    except (KeyError, TypeError, ValueError) as error:
        raise RecordError(
            f"{folder / journal.NAME}: cannot be read: {error!r}", f"see runbook record verify {folder}"
        ) from error
    return history
