"""`runbook lab`: the rehearsal cluster from the command line."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from runbook import lab as labs
from runbook.errors import LabError
from runbook.lab import profile
from runbook.lab.cluster import LIMIT
from runbook.lab.engine import Progress


@click.group()
def lab() -> None:
    """Run a rehearsal cluster of nodes on this machine."""


@lab.command()
@click.option(
    "--nodes",
    type=click.IntRange(1, LIMIT),
    default=3,
    show_default=True,
    help="Number of nodes; nodes beyond it are removed.",
)
@click.option(
    "--packages",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Directory of RPMs that replace the lab's packages of the same names.  [default: RUNBOOK_LAB_PACKAGES]",
)
@click.option(
    "--profile",
    type=click.Choice(profile.NAMES),
    help="System that the nodes imitate over SSH: commands, sshd, sudo and sh of CentOS 7, or plain Debian. Nodes of "
    "another profile are recreated.  "
    f"[default: RUNBOOK_LAB_PROFILE, else {profile.DEFAULT}]",
)
@click.option(
    "--shell",
    "bash",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Bash binary, for instance a 4.2, to install as /bin/sh on the nodes.  [default: RUNBOOK_LAB_SHELL]",
)
def up(nodes: int, packages: Path | None, profile: str | None, bash: Path | None) -> None:
    """Start or repair the lab; nodes that are in order are left alone."""
    console = Console()
    began = time.monotonic()
    with _shown(console) as progress, labs.up(nodes, packages, progress, profile, bash) as running:
        console.print(_table(labs.status(running), running.engine.address))
        console.print(f"{running.site_file} describes it ({time.monotonic() - began:.0f} s).", soft_wrap=True)


@lab.command()
@click.option(
    "--all",
    "everything",
    is_flag=True,
    help="Also remove images, packages, keys and parameter file, and stop the engine of the lab.",
)
def down(everything: bool) -> None:
    """Stop and remove the nodes and their data."""
    console = Console()
    with _shown(console) as progress:
        count = labs.down(everything=everything, progress=progress)
    console.print(f"{count} node{'' if count == 1 else 's'} removed." if count else "There were no nodes.")


@lab.command()
def status() -> None:
    """Show address, state and SSH reachability of each node."""
    console = Console()
    with _attached() as running:
        console.print(_table(labs.status(running), running.engine.address))


@lab.command()
@click.argument("node")
@click.argument("command", nargs=-1)
def shell(node: str, command: tuple[str, ...]) -> None:
    """Open a shell on NODE over SSH, or run COMMAND there."""
    with _attached() as running:
        address = running.node(node).address
        folder = running.folder
    program = shutil.which("ssh")
    if program is None:
        raise LabError("there is no ssh on this machine", "install openssh-client")
    options = {
        "IdentityFile": folder.user_key,
        "IdentitiesOnly": "yes",
        "UserKnownHostsFile": folder.known_hosts,
        "GlobalKnownHostsFile": "/dev/null",
        "StrictHostKeyChecking": "yes",
    }
    arguments = [argument for name, value in options.items() for argument in ("-o", f"{name}={value}")]
    os.execv(program, ["ssh", *arguments, f"root@{address}", *command])


@contextmanager
def _attached() -> Iterator[labs.Lab]:
    running = labs.attach()
    if running is None:
        raise LabError("the lab is down", "run `runbook lab up`")
    with running:
        yield running


@contextmanager
def _shown(console: Console) -> Iterator[Progress]:
    """Shows the stage at work: in a terminal on one line that moves, elsewhere as a line for each stage."""
    began = time.monotonic()
    if console.is_terminal:
        with console.status("looking for a Docker engine") as line:
            yield lambda stage: line.update(f"{stage} ({time.monotonic() - began:.0f} s)")
        return
    last = ""

    def say(stage: str) -> None:
        nonlocal last
        heading = stage.partition(":")[0]
        if heading != last:
            last = heading
            console.print(f"{time.monotonic() - began:5.1f} s  {heading}")

    yield say


def _table(nodes: tuple[labs.NodeStatus, ...], engine: str) -> Table:
    table = Table(show_edge=False, caption=f"engine {engine}", caption_justify="left")
    for heading in ("node", "address", "state", "ssh", "uptime", "profile", "image"):
        table.add_column(heading, no_wrap=heading != "profile", overflow="fold")
    for one in nodes:
        image = one.image.partition(":")[2] + ("" if one.current else " (outdated)")
        ssh = "answers" if one.ssh else "silent"
        table.add_row(one.node.name, one.node.address, one.state, ssh, _uptime(one.started), str(one.profile), image)
    return table


def _uptime(started: str) -> str:
    """The time since `started` (ISO 8601, UTC, empty: not started), to the second."""
    if not started:
        return "-"
    since = datetime.fromisoformat(started[:19]).replace(tzinfo=UTC)
    return str(timedelta(seconds=max(0, int((datetime.now(UTC) - since).total_seconds()))))
