"""The same 12 steps a host by this core and by other tools, on the same SSH hosts: `python -m benchmarks.converge`.

Each tool runs as a process of its own, on bare hosts and then on hosts where nothing is left to do, and again in the
next round, so that what else the machine is doing meets all tools alike. See README.md beside this file.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TimeElapsedColumn

from benchmarks import fleet, measure, report
from benchmarks.fleet import BenchmarkError, Fleet
from benchmarks.measure import Run
from benchmarks.tools import Tool, all_tools

GROWTH_TOOLS = ("core", "libssh2")
RESULTS = Path(__file__).parent / "results"


def _counts(context: click.Context, option: click.Parameter, text: str) -> tuple[int, ...]:
    try:
        counts = tuple(sorted({int(word) for word in text.split(",") if word}))
    except ValueError as error:
        raise click.BadParameter(f"{text!r} is not a list of numbers, such as 3,50") from error
    if any(not 1 <= count <= fleet.MOST for count in counts):
        raise click.BadParameter(f"the numbers of hosts go from 1 to {fleet.MOST}")
    return counts


@click.command()
@click.option("--hosts", callback=_counts, default="3,50", show_default=True, help="On how many hosts they compete.")
@click.option("--tools", default="core,libssh2,pyinfra,mitogen,ansible", show_default=True, help="Which of them.")
@click.option("--growth", callback=_counts, default="1,10,25,50,100,200", show_default=True, help="The cost of a host.")
@click.option("--rounds", type=click.IntRange(min=1), default=3, show_default=True)
@click.option("--once-over", default=120.0, show_default=True, help="Seconds over which a tool runs in one round only.")
@click.option("--rivals", type=click.Path(path_type=Path), default=Path(".venv-bench"), help="The others' environment.")
@click.option("--save/--no-save", default=True, help="Whether to write a page in benchmarks/results/.")
def main(
    hosts: tuple[int, ...],
    tools: str,
    growth: tuple[int, ...],
    rounds: int,
    once_over: float,
    rivals: Path,
    save: bool,
) -> None:
    """Measure how long a user of each tool waits, and write it down with the machine and the versions."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # as by Ctrl-C, so that sshd is stopped, too
    console = Console()
    try:
        known = all_tools(rivals.absolute())
        chosen = {name: known[name] for name in tools.split(",") if name in known}
        if unknown := sorted(set(tools.split(",")) - set(known)):
            raise BenchmarkError(f"there is no tool {', '.join(unknown)}: choose among {', '.join(known)}")
        versions = {name: version for tool in chosen.values() for name, version in tool.versions().items()}
        with fleet.start(max(*hosts, *growth, 1)) as all_hosts, _progress(console) as tell:
            compared, failures = _compared(all_hosts, list(chosen.values()), hosts, rounds, once_over, tell)
            competing = [tool for name, tool in chosen.items() if name in GROWTH_TOOLS]
            grown = _grown(all_hosts, competing, growth, rounds, tell)
    except BenchmarkError as error:
        raise click.ClickException(str(error)) from error
    sheets = [report.comparison(compared, count) for count in hosts]
    if grown:
        sheets.append(report.growth(grown))
    aims = report.judgements(compared)
    failed = [failure.splitlines()[0] for failure in failures]
    facts = report.machine(versions)
    for sheet in sheets:
        console.print(sheet)
    for line in (*aims, *failures):
        console.print(line, markup=False)
    if save:
        path = RESULTS / f"{facts['date'][:16].replace(' ', 'T').replace(':', '')}-converge.md"
        RESULTS.mkdir(exist_ok=True)
        path.write_text(report.page(facts, sheets, aims, failed))
        console.print(f"written to {path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path}")


def _compared(
    all_hosts: Fleet,
    tools: list[Tool],
    counts: tuple[int, ...],
    rounds: int,
    once_over: float,
    tell: Callable[[str], None],
) -> tuple[list[Run], list[str]]:
    """What was measured, and what the tools complained of where they failed: such a run is not counted."""
    runs: list[Run] = []
    failures: list[str] = []
    for count in counts:
        hosts = all_hosts.sized(count)
        for number in range(1, rounds + 1):
            for tool in tools:
                if any(run.wall > once_over for run in report.of(runs, tool.title, count, "again")):
                    continue
                tell(f"{count} hosts, round {number} of {rounds}: {tool.title}")
                try:
                    runs += measure.converge(tool, hosts)
                except BenchmarkError as error:
                    failures.append(f"round {number}: {error}")
    return runs, failures


def _grown(
    all_hosts: Fleet, tools: list[Tool], counts: tuple[int, ...], rounds: int, tell: Callable[[str], None]
) -> list[Run]:
    if not counts or not tools:
        return []
    tell(f"bringing {counts[-1]} hosts to the desired state")
    measure.converge(tools[0], all_hosts.sized(counts[-1]))
    runs = []
    for number in range(1, rounds + 1):
        for count in counts:
            for tool in tools:
                tell(f"cost of a host, round {number} of {rounds}: {tool.title} on {count}")
                runs.append(measure.again(tool, all_hosts.sized(count)))
    return runs


@contextmanager
def _progress(console: Console) -> Iterator[Callable[[str], None]]:
    with Progress(SpinnerColumn(), "{task.description}", TimeElapsedColumn(), console=console, transient=True) as shown:
        task = shown.add_task("starting sshd", total=None)
        yield lambda text: shown.update(task, description=text)


if __name__ == "__main__":
    main()
