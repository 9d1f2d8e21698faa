"""How long a registry's full list takes: `python -m benchmarks.registry_catalog`.

A real registry (Debian's docker-registry 2.8.2) serves a storage tree that is made for it: 10,000 repositories with two
tags each, as folders and links, without images. In the same run its catalog, and then the tags of all repositories, are
asked for

- by the runbook's client: pages of 1000, and tags over eight connections;
- by plain requests, as one would write it: pages of the registry's own size (100), and tags one after another;
- by curl, a C client that gets the same addresses and needs to understand nothing: what the registry itself costs.

All must find the same. Each is the best of three, as the others on the machine only ever add time. A page of the
console is measured as well: 100 repositories from the middle of the catalog.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from urllib.parse import quote

import click
import requests
from rich.console import Console
from rich.table import Table

from benchmarks import report
from benchmarks.converge import RESULTS
from runbook.services.registry import Registry
from runbook.services.registry.client import CONNECTIONS, PAGE
from tests.registry_daemon import program, running

ROUNDS = 3
COLUMNS = ("what", "by", "seconds", "÷ runbook")
TAGS = ("1.0", "latest")


def storage(folder: Path, count: int) -> list[str]:
    """Make a registry's storage of so many repositories, and give their names in the catalog's order."""
    names = [f"team{number % 100:02}/app{number:05}" for number in range(count)]
    link = "sha256:" + "0" * 64
    for name in names:
        repository = folder / "docker/registry/v2/repositories" / name
        (repository / "_layers").mkdir(parents=True)  # by which 2.8.2 knows a repository
        for tag in TAGS:
            current = repository / "_manifests/tags" / tag / "current"
            current.mkdir(parents=True)
            (current / "link").write_text(link)
    return sorted(names)


def best(ask: Callable[[], object], expected: object) -> float:
    """The shortest of some runs, in seconds; each must find what is expected."""
    seconds = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        found = ask()
        seconds.append(time.perf_counter() - started)
        assert found == expected, f"{ask} did not find what is there"
    return min(seconds)


def plain_catalog(url: str) -> list[str]:
    """The catalog by requests, page after page."""
    names: list[str] = []
    link: str | None = "/v2/_catalog"
    with requests.Session() as session:
        while link:
            answer = session.get(url + link, timeout=60)
            names += answer.json()["repositories"]
            link = answer.links.get("next", {}).get("url")
    return names


def plain_tags(url: str, names: Sequence[str]) -> list[list[str]]:
    """All tags by requests, one repository after another."""
    with requests.Session() as session:
        return [sorted(session.get(f"{url}/v2/{name}/tags/list", timeout=60).json()["tags"]) for name in names]


def by_curl(addresses: Sequence[str], *options: str) -> list[bytes]:
    """What one curl gets of all addresses, a line each."""
    with tempfile.NamedTemporaryFile("w", suffix=".conf") as config:
        config.writelines(f'url = "{address}"\n' for address in addresses)
        config.flush()
        done = subprocess.run(["curl", "-sS", *options, "-K", config.name], capture_output=True, check=True)
    return done.stdout.splitlines()


def curl_catalog(url: str, names: Sequence[str]) -> list[str]:
    """The catalog by curl, which is told where the pages begin."""
    lasts = [""] + [f"&last={quote(name, safe='')}" for name in names[PAGE - 1 : -1 : PAGE]]
    pages = by_curl([f"{url}/v2/_catalog?n={PAGE}{last}" for last in lasts])
    return [name for page in pages for name in json.loads(page)["repositories"]]


def curl_tags(url: str, names: Sequence[str]) -> int:
    """How many repositories' tags curl gets, over as many connections as the client has."""
    options = ("--parallel", "--parallel-max", str(CONNECTIONS))
    return len(by_curl([f"{url}/v2/{name}/tags/list" for name in names], *options))


@click.command()
@click.argument("count", metavar="[REPOSITORIES]", type=click.IntRange(min=100), default=10_000)
@click.option("--save/--no-save", default=True, help="Whether to write a page in benchmarks/results/.")
def main(count: int, save: bool) -> None:
    """Measure how long the full list of a registry's repositories takes, and the tags of all of them."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        names = storage(folder / "data", count)
        tags = [sorted(TAGS)] * count
        with (
            running(program(folder / "program"), folder / "registry", data=folder / "data") as registry,
            Registry(registry.url) as client,
        ):
            url = registry.url
            measured = [
                ("catalog", "runbook", best(lambda: list(client.repositories()), names)),
                ("catalog", "requests, pages of 100", best(lambda: plain_catalog(url), names)),
                ("tags", "runbook", best(lambda: client.each(client.tags, names), tags)),
                ("tags", "requests, one after another", best(lambda: plain_tags(url, names), tags)),
            ]
            if shutil.which("curl"):
                measured += [
                    ("catalog", "curl, the same pages", best(lambda: curl_catalog(url, names), names)),
                    ("tags", f"curl, {CONNECTIONS} at once", best(lambda: curl_tags(url, names), count)),
                ]
            middle = count // 2
            page = names[middle + 1 :][:100]
            measured.append(("a page", "runbook", best(lambda: client.page(100, names[middle])[0], page)))
    own = {what: seconds for what, by, seconds in measured if by == "runbook"}
    rows = [
        (what, by, f"{seconds:.3f}", f"{seconds / own[what]:.2f}")
        for what, by, seconds in sorted(measured, key=lambda row: list(own).index(row[0]))
    ]
    title = f"{count} repositories, {len(TAGS)} tags each"
    shown = Table(title=title)
    for column in COLUMNS:
        shown.add_column(column, justify="left" if column in ("what", "by") else "right")
    for row in rows:
        shown.add_row(*row)
    Console().print(shown)
    if save:
        facts = report.machine({"registry": "2.8.2", "requests": requests.__version__})
        lines = [f"# Benchmark of {facts['date']}", "", *(f"- {name}: {value}" for name, value in facts.items())]
        lines += ["", f"## {title}", "", f"| {' | '.join(COLUMNS)} |", "| --- | --- | ---: | ---: |"]
        lines += [f"| {' | '.join(row)} |" for row in rows]
        path = RESULTS / f"{facts['date'][:16].replace(' ', 'T').replace(':', '')}-registry-catalog.md"
        RESULTS.mkdir(exist_ok=True)
        path.write_text("\n".join([*lines, ""]))
        click.echo(f"written to {path}")


if __name__ == "__main__":
    main()
