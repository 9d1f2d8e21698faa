"""The logs of mesos-master and mesos-slave on their hosts (document 2.2.7 and 3.2), and what they tell.

Each start makes new files, `mesos-master.HOST.USER.log.INFO.DATE.PID`, to the newest of which `mesos-master.INFO` (and
WARNING, ERROR) links. Everything also goes through `logger` to syslog, which keeps one file a program (syslog.py).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import pandas as pd

from runbook.remote.hosts import Hosts, Output
from runbook.remote.probes import values
from runbook.remote.shell import quote
from runbook.services.findings import Finding, Findings
from runbook.services.mesos.diagnose import KNOWN, Failure, diagnose, milestones_table
from runbook.views.tables import Table

RECENT = "3 min ago"
"""How far back the lines go that explain why something does not run."""


def links(hosts: Hosts, folder: str, program: str) -> Table:
    """Which file each of the program's links points to on each host, how long it is, and when it was last written."""
    answers = hosts.run(_LINKS.format(folder=quote(folder), program=quote(program)))
    rows: list[tuple[str, ...]] = []
    for host, output in answers.items():
        found = [tuple(line.split(" ", 3)) for line in values(output.stdout, "link")]
        rows += [(host, *link) for link in found] or [(host, "", *_none(output), "")]
    frame = pd.DataFrame(rows, columns=["host", "link", "bytes", "last written (UTC)", "points to"])
    frame["last written (UTC)"] = frame["last written (UTC)"].str.replace("T", " ")
    return Table(frame, f"{program}: logs in {folder}")


_LINKS = """\
cd {folder} 2>/dev/null || exit 0
for level in INFO WARNING ERROR FATAL; do
  f={program}.$level
  [ -L "$f" ] && [ -e "$f" ] || continue
  echo "link=$f $(stat -L -c %s "$f") $(TZ=UTC date -r "$f" +%Y-%m-%dT%H:%M:%S) $(readlink "$f")"
done
"""


# What systemd-journald writes when it drops lines: sd-messages.h, SD_MESSAGE_JOURNAL_DROPPED ('Suppressed N messages
# from /system.slice/UNIT'). 219 drops what a unit says beyond 1000 lines in 30 s (journald-server.c), 252 beyond 10000.
_SUPPRESSED = """\
journalctl -q -o cat --no-pager --since {since} MESSAGE_ID=a596d6fe7bfa4994828e72309e95d61e 2>/dev/null |
  grep -F {units} | tail -n 3 | sed 's/^/suppressed=/'
"""
RAISE_LIMIT = (
    "set RateLimitBurst=10000 in /etc/systemd/journald.conf, then systemctl restart systemd-journald; "
    "Mesos' own files in its log_dir have every line"
)
"""What to do where journald drops lines."""


def suppressed(programs: Iterable[str], since: str) -> str:
    """The sh text that prints what journald says of lines of these programs' units that it dropped, `suppressed=`."""
    units = " ".join(f"-e {quote(f'/{program}.service')}" for program in programs)
    return _SUPPRESSED.format(since=quote(since), units=units)


def last_lines(hosts: Hosts, folder: str, programs: Iterable[str], lines: int) -> Table:
    """The last lines of each program's syslog file on each host that has one; without those of questions over HTTP.

    Where journald dropped lines within a day, a row says of which program and how many.
    """
    programs = tuple(programs)
    names = " ".join(quote(f"{program}.log") for program in programs)
    dropped = suppressed(programs, "1 day ago")
    answers = hosts.run(f"{dropped}{_LAST.format(folder=quote(folder), names=names, lines=lines)}")
    rows = []
    for host, output in answers.items():
        files = re.findall(r"^file=(\S+) (\d+)\n(.*?)(?=^file=|\Z)", output.stdout, re.MULTILINE | re.DOTALL)
        rows += [(host, name, size, text.rstrip()) for name, size, text in files] or [(host, "", *_none(output))]
        if lost := values(output.stdout, "suppressed"):
            rows.append((host, "⚠ journald", "", "\n".join([*lost, f"these lines are in no log: {RAISE_LIMIT}"])))
    return Table(
        pd.DataFrame(rows, columns=["host", "log", "bytes", "last lines"]),
        f"the last lines of each log in {folder}",
        literal=("last lines",),
    )


_LAST = """\
cd {folder} 2>/dev/null || exit 0
for f in {names}; do
  [ -f "$f" ] || continue
  echo "file=$f $(stat -c %s "$f")"; tail -c 65536 "$f" | grep -av 'HTTP GET for' | tail -n {lines} | cut -c 1-400; echo
done
"""


def milestones(hosts: Hosts, folder: str, program: str, wanted: Mapping[str, re.Pattern[str]]) -> Table:
    """Which of the lines that a healthy start leaves are in each host's present log, and what the last of each says."""
    rows = []
    for host, output in hosts.run(milestones_probe(folder, program, wanted)).items():
        row: dict[str, str] = {"host": host}
        if output.ok:
            found = milestones_table(output.stdout.splitlines(), wanted)
            for name, reached, detail in zip(found["milestone"], found["reached"], found["detail"], strict=True):
                row[name] = f"✓ {detail}" if reached else "–"
        else:
            row["problem"] = _none(output)[-1]
        rows.append(row)
    columns = ["host", *wanted, *(["problem"] if any("problem" in row for row in rows) else [])]
    frame = pd.DataFrame(rows, columns=columns, dtype=object)
    return Table(frame.fillna(""), f"{program}.INFO: what a start leaves", states=tuple(wanted))


def milestones_probe(folder: str, program: str, wanted: Mapping[str, re.Pattern[str]]) -> str:
    """The sh text that prints the lines of the program's present log in which one of these may be."""
    expressions = " ".join(f"-e {quote(as_extended(pattern.pattern))}" for pattern in wanted.values())
    # grep ends with 1 where there is no such line (yet), and with 2 where there is no log
    log = quote(f"{folder}/{program}.INFO")
    missing = f'echo "no {program}.INFO yet" >&2; exit 2'
    return f"[ -e {log} ] || {{ {missing}; }}\ngrep -aE {expressions} {log} || [ $? -eq 1 ]\n"


def as_extended(pattern: str) -> str:
    """A regular expression of ours as grep -E takes it: Python's short forms written out."""
    for short, long in ((r"\d", "[0-9]"), (r"\S", "[^ ]"), ("(?:", "("), ("+?", "+")):
        pattern = pattern.replace(short, long)
    return pattern


def explain(hosts: Hosts, program: str, failures: Iterable[Failure] = KNOWN) -> Findings:
    """Why a program does not run, or not as it should: the known `failures` in what each host logged of late.

    Where none is known and it does not run, its last lines are the evidence.
    """
    failures = tuple(failures)
    names = {"program": quote(program), "unit": quote(f"{program}.service"), "since": quote(RECENT)}
    answers = hosts.run(_JOURNAL.format(**names, suppressed=suppressed([program], RECENT).rstrip()))
    return Findings(
        program, tuple(one for host, output in answers.items() for one in _explained(host, output, failures))
    )


def _explained(host: str, output: Output, failures: Iterable[Failure]) -> Iterable[Finding]:
    state, _, text = output.stdout.partition("\n")
    # a program that refuses its flags prints all that it knows, indented
    lost = values(text, "suppressed")
    lines = [
        line
        for line in text.splitlines()
        if line[:1].strip() and "http.cpp" not in line and not line.startswith("suppressed=")
    ]
    found = diagnose(lines, failures)
    for known in found:
        yield Finding(host, known.failure.cause, known.last, known.failure.remedy)
    if not found and state != "active":
        shown = "\n".join(lines[-8:]) or "it logged nothing of late"
        yield Finding(
            host, f"it does not run ({state or 'unknown'}), and its log tells no known reason", shown, "read it"
        )
    if lost:
        yield Finding(host, "journald dropped lines of its log", lost[-1], RAISE_LIMIT)


# What the program says reaches the journal by `logger`, under its own name and not always under its unit's. With
# `--since`, `-n` shows the first lines instead of the last ones before systemd 254 (systemd issues 1477 and 26657).
_JOURNAL = """\
systemctl is-active {unit}
journalctl -q -o cat --no-pager --since {since} _SYSTEMD_UNIT={unit} + SYSLOG_IDENTIFIER={program} |
  tail -n 300 | cut -c 1-1000
{suppressed}
"""


def _none(output: Output) -> tuple[str, str]:
    """What stands in place of a size and of what a host could not show."""
    return "", output.error.message if output.error else output.stderr.strip() or "nothing yet"
