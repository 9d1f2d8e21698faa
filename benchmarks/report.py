"""What was measured, as tables: in the terminal and, with the machine and the versions, as a page of results/."""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from rich.table import Table

from benchmarks.measure import Kind, Run

CORE = "runbook"
KINDS: tuple[Kind, Kind] = ("first", "again")
HERE = Path(__file__).parent


@dataclass(frozen=True)
class Sheet:
    """A table of texts, the first column of which is a name."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]

    def __rich__(self) -> Table:
        table = Table(title=self.title, title_justify="left")
        for index, column in enumerate(self.columns):
            table.add_column(column, justify="right" if index else "left")
        for row in self.rows:
            table.add_row(*row)
        return table

    def markdown(self) -> str:
        """The table as GitHub shows it."""
        head = [list(self.columns), ["---", *["---:"] * (len(self.columns) - 1)]]
        lines = [f"| {' | '.join(row)} |" for row in [*head, *self.rows]]
        return "\n".join([f"## {self.title}", "", *lines, ""])


def of(runs: Iterable[Run], tool: str, hosts: int, kind: Kind) -> list[Run]:
    """Those of the runs."""
    return [run for run in runs if (run.tool, run.hosts, run.kind) == (tool, hosts, kind)]


def wall(runs: Sequence[Run]) -> float:
    """The median of the seconds that a user waits."""
    return statistics.median(run.wall for run in runs)


def comparison(runs: Sequence[Run], hosts: int) -> Sheet:
    """All tools on `hosts` hosts; the ratio is of the medians of the second runs."""
    core = of(runs, CORE, hosts, "again")
    rows = []
    for tool in dict.fromkeys(run.tool for run in runs if run.hosts == hosts):
        first, again = (of(runs, tool, hosts, kind) for kind in KINDS)
        rows.append(
            (
                tool,
                str(len(again)),
                f"{wall(first):.2f}",
                f"{wall(again):.2f}",
                f"{min(run.wall for run in again):.2f} to {max(run.wall for run in again):.2f}",
                f"{wall(again) / wall(core):.2f}" if core else "",
                f"{statistics.median(run.client for run in again):.2f}",
                f"{statistics.median(run.served for run in again):.2f}",
                f"{statistics.median(run.others for run in again):.1f}",
            )
        )
    measures = ("rounds", "first", "again", "from, to", f"÷ {CORE}", "client", "hosts", "others")
    return Sheet(f"{hosts} hosts", ("tool", *measures), rows)


def growth(runs: Sequence[Run]) -> Sheet:
    """What one host more costs: the seconds of the second run over those on the fewest hosts, by each host more."""
    counts = sorted({run.hosts for run in runs})
    rows = []
    for tool in dict.fromkeys(run.tool for run in runs):
        least = wall(of(runs, tool, counts[0], "again"))
        cells = [f"{wall(of(runs, tool, count, 'again')):.2f}" for count in counts]
        each = [
            f"{1000 * (wall(of(runs, tool, count, 'again')) - least) / (count - counts[0]):.1f}" for count in counts[1:]
        ]
        rows += [(f"{tool}, s", *cells), (f"{tool}, ms for each host more", "", *each)]
    return Sheet("Cost of a host, nothing to change", ("hosts", *map(str, counts)), rows)


@dataclass(frozen=True)
class Aim:
    """A ratio that the second runs on 50 hosts should keep: at least, or at most, `ratio` times this core's time."""

    tool: str
    ratio: float
    at_least: bool

    def judged(self, runs: Sequence[Run]) -> str | None:
        """Whether it is kept, in a sentence; None where it was not measured."""
        core, other = (of(runs, tool, AIMED_AT, "again") for tool in (CORE, self.tool))
        if not core or not other:
            return None
        found = wall(other) / wall(core) if self.at_least else wall(core) / wall(other)
        kept = found >= self.ratio if self.at_least else found <= self.ratio
        text = (
            f"at least {self.ratio:g} times faster than {self.tool}"
            if self.at_least
            else f"within {self.ratio:g} times {self.tool}"
        )
        return f"{'kept' if kept else 'MISSED'}: {text} on {AIMED_AT} hosts, nothing to change: {found:.2f} times"


AIMED_AT = 50
AIMS = (
    Aim("pyinfra", 7, at_least=True),
    Aim("Ansible with Mitogen", 25, at_least=True),
    Aim("libssh2 (C client)", 1.4, at_least=False),
)


def judgements(runs: Sequence[Run]) -> list[str]:
    """What became of the aims that were measured."""
    return [text for aim in AIMS if (text := aim.judged(runs))]


def machine(versions: Mapping[str, str]) -> dict[str, str]:
    """What the numbers depend on."""
    names = (line.partition(":") for line in Path("/proc/cpuinfo").read_text().splitlines())
    cpu = next((value.strip() for name, _, value in names if name.strip() == "model name"), platform.machine())
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    release = platform.freedesktop_os_release()
    ssh = subprocess.run(["ssh", "-V"], capture_output=True, text=True).stderr.strip()
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=HERE).stdout
    return {
        "date": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        "commit": commit.strip() or "unknown",
        "processor": f"{cpu}, {os.cpu_count()} cores, shared by the clients and the hosts",
        "memory": f"{memory:.0f} GiB",
        "system": f"{release['PRETTY_NAME']}, Linux {platform.release()}",
        "Python": platform.python_version(),
        "ssh": ssh,
        **versions,
    }


def page(facts: Mapping[str, str], sheets: Iterable[Sheet], aims: Sequence[str], failures: Sequence[str]) -> str:
    """The whole, as Markdown."""
    lines = [
        f"# Benchmark of {facts['date']}",
        "",
        *(f"- {name}: {value}" for name, value in facts.items()),
        "",
        *(sheet.markdown() for sheet in sheets),
    ]
    for title, texts in (("Aims", aims), ("Runs that failed, and are not counted", failures)):
        if texts:
            lines += [f"## {title}", "", *(f"- {text}" for text in texts), ""]
    return "\n".join(lines)
