"""The `runbook` command.

Exit status: 0 all well; 1 something failed; 2 parameters or usage are refused; 3 `verify` found drift; 4 a chapter
died; 130 and 143 after Ctrl-C and SIGTERM.
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import io
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import click
from rich.console import Console
from rich.table import Table

from runbook.errors import ParameterError, RunbookError

MODES = click.Choice(["plan", "apply", "verify"])
SITE = click.Path(path_type=Path, dir_okay=False)
COUNTS = ("changed", "failed", "checks")  # what of a record's counts fits into a line
FOLDER = click.Path(path_type=Path, file_okay=False)


def print_anywhere() -> None:
    """Let standard output and error take every text: what their encoding lacks is replaced, and where one is closed,
    or its reader went away, the rest is dropped."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed before the start
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 (it lasts as long as we do)
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    stream = sys.stdout
    if type(stream) is io.TextIOWrapper and stream is sys.__stdout__:
        stream.flush()
        # Both write to one buffer, so that whoever holds the earlier one can go on using it.
        sys.stdout = _Output(
            stream.buffer,
            stream.encoding,
            errors="replace",
            line_buffering=stream.line_buffering,
            write_through=stream.write_through,
        )


class OutputFailed(OSError):
    """Standard output cannot be written, as where it goes to a full disk."""


class _Output(io.TextIOWrapper):
    """Standard output that raises OutputFailed where it cannot be written; click handles a reader that went away."""

    def write(self, text: str, /) -> int:
        with _named():
            return super().write(text)

    def flush(self) -> None:
        with _named():
            super().flush()


@contextlib.contextmanager
def _named() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno == errno.EPIPE:
            raise
        raise OutputFailed(error.errno, error.strerror) from error


class Refused(click.ClickException):
    """A named error, as one message."""


class RefusedParameters(Refused):
    """Refused as wrong usage is."""

    exit_code = 2


class Interrupted(click.ClickException):
    """Ended by Ctrl-C before there was a record to close."""

    exit_code = 130


class Commands(click.Group):
    """A group that shows named errors without a traceback, and imports a subcommand of `LAZY` when it is used."""

    LAZY: ClassVar = {"lab": "runbook.lab.cli:lab"}

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted([*super().list_commands(ctx), *self.LAZY])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.LAZY:
            return super().get_command(ctx, cmd_name)
        module, name = self.LAZY[cmd_name].split(":")
        command: click.Command = getattr(importlib.import_module(module), name)
        return command

    def main(self, *args: Any, **kwargs: Any) -> Any:
        print_anywhere()
        try:
            try:
                return super().main(*args, **kwargs)
            finally:
                if isinstance(sys.stdout, _Output) and not sys.stdout.closed:
                    sys.stdout.flush()
        except OutputFailed as error:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what is left in the buffer is flushed at the end
            click.echo(f"Error: standard output cannot be written: {error.strerror}; its text is incomplete", err=True)
            sys.exit(1)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except ParameterError as error:
            raise RefusedParameters(str(error)) from error
        except RunbookError as error:
            raise Refused(str(error)) from error
        except KeyboardInterrupt as error:
            raise Interrupted("interrupted") from error


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="runbook")
def main() -> None:
    """Roll out, verify and operate a ZooKeeper, Mesos, Marathon, Docker and registry cluster."""


@main.command()
@click.argument("site", type=SITE)
@click.pass_context
def check(ctx: click.Context, site: Path) -> None:
    """Validate the parameter file SITE and check every host.

    Changes nothing. Exit status 1: a host is not ready for its roles; 2: the file is refused.
    """
    from runbook.services.overview import preflight
    from runbook.site import Site

    result = preflight.run(Site.load(site))
    Console().print(result)
    ctx.exit(0 if result.ok else 1)


@main.command()
@click.argument("site", type=SITE)
@click.option("--chapters", metavar="LIST", help="Chapters to run: numbers and ranges, for instance 1 or 0-3 or 0,2-4.")
@click.option(
    "--mode",
    type=MODES,
    default="plan",
    show_default=True,
    help="plan shows differences and changes nothing; apply removes them; verify reports them as drift.",
)
@click.option("--yes", is_flag=True, help="Approve all gates.")
@click.option(
    "--active-checks",
    is_flag=True,
    help="Allow verify to run checks that write something temporary, such as a znode.",
)
@click.option("--outputs", type=FOLDER, help="Directory for the record.  [default: outputs]")
@click.option(
    "--notebooks", type=FOLDER, default=Path("notebooks"), show_default=True, help="Directory of the notebooks."
)
@click.option(
    "--cell-timeout",
    type=click.IntRange(min=1),
    metavar="SECONDS",
    help="Time after which a running cell is ended.  [default: 3600]",
)
@click.pass_context
def rollout(
    ctx: click.Context,
    site: Path,
    chapters: str | None,
    mode: str,
    yes: bool,
    active_checks: bool,
    outputs: Path | None,
    notebooks: Path,
    cell_timeout: int | None,
) -> None:
    """Run the chapters on SITE in order and write a record.

    Mode apply stops at the first chapter that fails; plan and verify run all chapters. The last line printed is the
    record's directory. Exit status: 4 if a chapter died, else 1 if one failed, else 3 if verify found drift, else 0.
    """
    from runbook.paths import upwards
    from runbook.remote.modes import Mode
    from runbook.rollout import run

    finished = run.rollout(
        site,
        chapters=chapters,
        mode=Mode(mode),
        yes=yes,
        active_checks=active_checks,
        outputs=outputs or upwards("outputs"),
        notebooks=notebooks,
        cell_timeout=cell_timeout or run.CELL_TIMEOUT,
    )
    for line in finished.lines():
        click.echo(line)
    ctx.exit(finished.status)


@main.command()
@click.argument("site", type=SITE)
@click.option("--bind", metavar="ADDRESS", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=click.IntRange(1, 65535), default=8866, show_default=True, help="Port to listen on.")
@click.option(
    "--mode",
    type=click.Choice(["plan", "apply"]),
    default="plan",
    show_default=True,
    help="plan shows what an action would do; apply asks and does it.",
)
def console(site: Path, bind: str, port: int, mode: str) -> None:
    """Serve a web page to manage SITE's registry.

    Prints an address that contains a token; whoever has it can use the page. Press Ctrl-C to end.
    """
    from runbook.console import server as page
    from runbook.remote.modes import Mode

    page.serve(site, bind=bind, port=port, mode=Mode(mode), say=click.echo)


@main.group()
def images() -> None:
    """Save images as archives for a closed network."""


@images.command("save")
@click.argument("site", type=SITE)
@click.option(
    "--only", "names", metavar="NAME", multiple=True, help="Save only this image (its key in SITE); may be repeated."
)
@click.option("--no-pull", is_flag=True, help="Save images that this machine's Docker already has; do not pull.")
def images_save(site: Path, names: tuple[str, ...], no_pull: bool) -> None:
    """Pull the images of SITE and save them as archives.

    Needs Docker and internet access. Each image is pulled by its tag and saved as the archive that SITE names. An
    archive that already has the SHA-256 of SITE is left alone. Sums that SITE lacks are printed last, to be copied
    into its section `images`.
    """
    from runbook import images
    from runbook.site import Site

    saved = []
    for one in images.save(Site.load(site), names, pull=not no_pull):
        saved.append(one)
        click.echo(one)
    click.echo(images.lines(saved), nl=False)


@main.group()
def record() -> None:
    """List, verify and close records of rollouts."""


@record.command("verify")
@click.argument("path", type=FOLDER, required=False)
@click.pass_context
def record_verify(ctx: click.Context, path: Path | None) -> None:
    """Check that records are unmodified.

    Reports files and journal lines that differ. PATH is the directory of one record, or of several, which are all
    verified.  [default: outputs]
    """
    from runbook.paths import upwards
    from runbook.rollout import record as records

    folder = path or upwards("outputs")
    chosen = [folder] if records.is_record(folder) else []
    well = True
    for each in [*chosen, *records.all_of(folder)] or [folder]:
        verified = records.verify(each)
        well = well and verified.ok
        click.echo(f"{each}: {verified.verdict}")
        for line in (*verified.faults, *verified.refused, *verified.notes):
            click.echo(f"  {line}")
        if verified.interrupted:
            click.echo(f"  to close it: runbook record close {each}")
    ctx.exit(0 if well else 1)


@record.command("close")
@click.argument("folder", type=FOLDER)
@click.option("--reason", metavar="TEXT", help="Why the rollout ended, for the record.")
def record_close(folder: Path, reason: str | None) -> None:
    """Close the record in FOLDER after its rollout was cut off.

    For a rollout that ended by a full disk, a kill or a power loss. The record's outcome becomes `died`, with the
    cause. A record that was modified, or that a rollout still writes, is refused.
    """
    from runbook.rollout import record as records

    content = records.close_abandoned(folder, reason)
    click.echo(f"{folder}: closed: {content['outcome']}: {content['stopped']}")


@record.command("list")
@click.argument("outputs", type=FOLDER, required=False)
def record_list(outputs: Path | None) -> None:
    """List the records in OUTPUTS, oldest first.  [default: outputs]"""
    from runbook.paths import upwards
    from runbook.rollout import record as records

    folders = records.all_of(outputs or upwards("outputs"))
    table = Table(box=None, pad_edge=False)
    table.add_column("record", min_width=max((len(folder.name) for folder in folders), default=0))
    for name in ("mode", "outcome", *COUNTS, "operator"):
        table.add_column(name)
    for folder in folders:
        try:
            history = records.history_of(folder)
        except RunbookError as error:
            table.add_row(folder.name, "", error.message)
            continue
        counts = history.counts
        outcome = history.outcome if history.closed else f"{history.outcome} (not closed)"
        numbers = (str(counts[name]) for name in COUNTS)
        table.add_row(folder.name, history.mode, outcome, *numbers, history.opened["operator"])
    Console().print(table)
