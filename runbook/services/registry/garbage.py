"""Garbage of the registry: blobs that no manifest names any more, told before they are collected.

Deleting a tag's manifest frees nothing: its layers stay until `registry garbage-collect` removes them (from 2.4 on).
A push during the collection loses layers that it was told are there, so that the registry is read-only meanwhile: pulls
go on, pushes are refused. Afterwards it is restarted, for it remembers blobs that are gone, and would tell a push that
it need not send them ('push succeeds after garbage collection but pull says manifest unknown').

    look (dry run), ask at the gate, make the container anew read-only, collect, make it anew writable, pull an image

Whatever fails in between, the container is made writable again; where even that fails, chapter 7.3 finds a read-only
container to be another one than it wants, and makes it anew.

Sources: 'Garbage collection' of Docker's documentation; `registry/storage/garbagecollect.go` of distribution 2.4 to
2.8, whose lines are read here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import ClassVar

import pandas as pd
from rich.console import Console, ConsoleOptions, RenderResult

from runbook.errors import ApplyFailed, NotFound, RunbookError, StepFailed
from runbook.events import emit
from runbook.remote.checks import Evidence, check
from runbook.remote.hosts import Hosts, Output
from runbook.remote.modes import Mode, Status
from runbook.remote.probes import values
from runbook.remote.results import ApplyResult, StepResult
from runbook.remote.shell import facts, quote
from runbook.remote.steps import Change, Step
from runbook.services.registry import transfer
from runbook.services.registry.client import Registry
from runbook.services.registry.manifests import Descriptor
from runbook.services.registry.steps import CONFIG, container
from runbook.services.registry.tables import survey
from runbook.site import Site
from runbook.views.tables import Table
from runbook.wording import first, plural, size

COLLECT = "collect-garbage"
"""The gate before blobs are removed for good."""
FIRST = (2, 4)
"""The first version that collects garbage."""
_OPTION = "--delete-untagged"

DEADLINE = 1800.0
"""Seconds that looking at, or collecting, a registry's garbage may take: it reads every manifest."""

BLOB = re.compile(r"^blob eligible for deletion: (sha256:[0-9a-f]{64})$", re.MULTILINE)
MANIFEST = re.compile(r"^manifest eligible for deletion: (?:.*@)?(sha256:[0-9a-f]{64})$", re.MULTILINE)
MARKED = re.compile(r"^(\d+) blobs marked, (\d+) blobs(?: and (\d+) manifests)? eligible for deletion$", re.MULTILINE)


@dataclass(frozen=True)
class Blob:
    """A blob that would go: its digest, its size on disk in bytes, and the repositories that it was pushed to."""

    digest: str
    bytes: int
    repositories: tuple[str, ...] = ()


@dataclass(frozen=True, repr=False)
class Garbage:
    """What a collection would free. `refused` says why there can be none, and is empty otherwise.

    `marked` is how many blobs stay; `untagged` whether manifests without a tag count as garbage.
    """

    host: str = ""
    items: tuple[Blob, ...] = ()
    marked: int = 0
    manifests: tuple[str, ...] = ()
    untagged: bool = False
    refused: str = ""
    remedy: str = ""

    COLUMNS: ClassVar = ["digest", "bytes", "repositories"]

    @property
    def blobs(self) -> int:
        """How many blobs would go."""
        return len(self.items)

    @property
    def bytes(self) -> int:
        """How many bytes on disk that would free."""
        return sum(item.bytes for item in self.items)

    @property
    def table(self) -> Table:
        """The blobs that would go, the largest first."""
        rows = [(item.digest, item.bytes, ", ".join(item.repositories)) for item in self._largest]
        return Table(pd.DataFrame(rows, columns=self.COLUMNS), str(self))

    @property
    def _largest(self) -> list[Blob]:
        return sorted(self.items, key=lambda item: -item.bytes)

    def __str__(self) -> str:
        if self.refused:
            return f"no garbage can be collected: {self.refused}"
        if not self.items and not self.manifests:
            return f"no garbage: all {self.marked} blobs are used"
        more = f" and {plural(len(self.manifests), 'manifest')} without a tag" if self.manifests else ""
        stay = plural(self.marked, "blob stays", "blobs stay")
        return f"garbage: {plural(self.blobs, 'blob')}{more}, {size(self.bytes)}; {stay}"

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield self.table if self.items else str(self)

    def _repr_html_(self) -> str:
        return self.table._repr_html_() if self.items else f"<p>{self}</p>"

    def __repr__(self) -> str:
        return "\n".join([str(self), *(f"  {item.digest} {size(item.bytes)}" for item in self._largest)])


# looking


def dry_run(hosts: Hosts, *, untagged: bool = False) -> Garbage:
    """What a collection would free, by the registry's own dry run; changes nothing.

    `untagged`: count manifests without a tag as garbage as well (from 2.7 on). Raises StepFailed where the registry's
    container does not run or its dry run fails; a registry that cannot collect has `refused`.
    """
    site = hosts.site
    members = hosts.having("registry")
    ((host, output),) = members.run(_dry_run(site, untagged), deadline=DEADLINE).items()
    found = read(host, output, site.registry.container, untagged)
    return _sparing(site, found) if found.items or found.manifests else found


def read(host: str, output: Output, name: str, untagged: bool) -> Garbage:
    """What the script of a dry run printed. Raises StepFailed where it failed."""
    if output.error is not None:
        raise output.error
    found = facts(output.stdout)
    if found.get("running") != "true":
        raise StepFailed(f"the container {name} does not run on {host}", "run 7.3: it starts it")
    can = found.get("can", "").split()
    version = found.get("version", "").rpartition(" ")[2] or "of unknown version"
    if "collect" not in can:
        first = ".".join(map(str, FIRST))
        return Garbage(
            host,
            refused=f"registry {version} does not collect garbage: {first} is the first that does",
            remedy=f"run an image from {first} on: it takes over what {found.get('folder', 'the folder')} holds",
        )
    if untagged and "untagged" not in can:
        return Garbage(
            host,
            refused=f"registry {version} keeps manifests without a tag: --delete-untagged came with 2.7",
            remedy="do without `untagged`, or run an image from 2.7 on",
        )
    printed = output.stdout.partition("\nprinted\n")[2]
    if found.get("status") != "0":
        said = "\n".join((printed + output.stderr).strip().splitlines()[-8:])
        if "Path not found" in said:  # nothing was ever pushed
            return Garbage(host)
        raise StepFailed(f"the dry run on {host} failed:\n{said}", "see the registry's log")
    sizes = dict(line.split(" ", 1) for line in values(output.stdout, "size"))
    links: dict[str, list[str]] = {}
    for line in values(output.stdout, "link"):
        digest, repository = line.split(" ", 1)
        links.setdefault(digest, []).append(repository)
    marked = MARKED.search(printed)
    items = tuple(
        Blob(digest, int(sizes.get(digest, 0)), tuple(sorted(set(links.get(digest, ())))))
        for digest in dict.fromkeys(BLOB.findall(printed))
    )
    manifests = tuple(dict.fromkeys(MANIFEST.findall(printed)))
    return Garbage(host, items, int(marked[1]) if marked else 0, manifests, untagged)


def _sparing(site: Site, found: Garbage) -> Garbage:
    """The same, refused where it would take what a tag needs: by our own account of all tags, with what indexes list.

    Until distribution 3, --delete-untagged looks at tags only (distribution#3178), and a collection can name blobs of
    images that have a tag (distribution#4939).
    """
    with Registry.of(site) as registry:
        tagged = survey(registry).tagged
    gone = {*found.manifests, *(item.digest for item in found.items)}
    broken = [f"{one.repository}:{one.tag}" for one in tagged if not gone.isdisjoint(one.reachable)]
    unread = [f"{tag.repository}:{tag.tag} ({tag.problem})" for tag in tagged if tag.unread]
    if unread and not broken:
        return replace(
            found,
            refused=f"could not determine what {first(unread, 5)} consists of",
            remedy="push these images again or delete these tags (7.3), then collect",
        )
    if not broken:
        return found
    remedy = "keep the registry as it is, and run an image of another version: this one counts them as garbage"
    if found.untagged:
        remedy = f"do without `untagged` (distribution#3178); where that is refused too, {remedy}"
    return replace(found, refused=f"it would delete what {first(broken, 5)} consists of", remedy=remedy)


_Needed = Mapping[tuple[str, str], Descriptor | None]
"""What tags need, by repository and digest; None stands for a manifest."""


def _needed(site: Site) -> _Needed:
    """All that tags need and the registry holds."""
    with Registry.of(site) as registry:
        tagged = survey(registry).tagged
        needed = {(one.repository, digest): blob for one in tagged for digest, blob in one.reachable.items()}
        return {place: needed[place] for place in _held(registry, needed)}


def _held(registry: Registry, needed: _Needed) -> set[tuple[str, str]]:
    """What of it the registry holds: it is asked for each by HEAD, and nothing is transferred."""

    def is_there(place: tuple[str, str]) -> bool:
        if needed[place] is not None:
            return registry.holds(*place)
        try:
            return registry.digest(*place) == place[1]
        except NotFound:
            return False

    return {place for place, there in zip(needed, registry.each(is_there, needed), strict=True) if there}


def _all_there(site: Site, needed: _Needed) -> Evidence:
    with Registry.of(site) as registry:
        lost = sorted(needed.keys() - _held(registry, needed))
    if lost:
        names = ", ".join(f"{repository}@{digest}" for repository, digest in lost[:5])
        return Evidence(False, f"{len(lost)} of {len(needed)} are lost: {names}", remedy="push these images again")
    return Evidence(True, plural(len(needed), "manifest or blob", "manifests and blobs"))


def _dry_run(site: Site, untagged: bool) -> str:
    return (_CAN + _LOOK).format(
        name=quote(site.registry.container),
        config=CONFIG,
        option=_OPTION * untagged,
        needed="untagged" if untagged else "collect",
        folder=quote(site.registry.data_dir),
    )


# 2.3 has no commands: there the first word is taken for the configuration, and its usage knows none of these options.
_CAN = """\
name={name}
docker_exec() {{ docker exec "$name" "$@"; }}
echo "folder="{folder}
echo "running=$(docker inspect --type container -f '{{{{.State.Running}}}}' "$name" 2>/dev/null)"
echo "version=$(docker_exec registry --version 2>/dev/null | head -n 1)"
help=$(docker_exec registry garbage-collect --help 2>/dev/null)
can=
case $help in (*--dry-run*) can=collect;; esac
case $help in (*--delete-untagged*) can="$can untagged";; esac
echo "can=$can"
case $can in (*{needed}*) ;; (*) exit 0;; esac
"""
_LOOK = """\
out=$(docker_exec registry garbage-collect --dry-run {option} {config})
echo "status=$?"
digests=$(printf '%s\\n' "$out" | sed -n 's/^blob eligible for deletion: sha256:\\([0-9a-f]*\\)$/\\1/p' | sort -u)
cd {folder}/docker/registry/v2 2>/dev/null && [ -n "$digests" ] && {{
  for hex in $digests; do
    bytes=$(stat -c %s "blobs/sha256/${{hex%"${{hex#??}}"}}/$hex/data" 2>/dev/null) && echo "size=sha256:$hex $bytes"
  done
  find repositories -name link -path '*/sha256/*' 2>/dev/null | grep -F "$digests" |
    sed -n 's,^repositories/\\(.*\\)/_[a-z]*/.*sha256/\\([0-9a-f]*\\)/link$,link=sha256:\\2 \\1,p' | sort -u
}}
printf 'printed\\n%s\\n' "$out"
"""


# collecting


def collect(hosts: Hosts, *, untagged: bool = False) -> ApplyResult:
    """Collect the garbage: the registry read-only, collected, writable again, and an image pulled from it.

    In plan and verify mode only what would be freed is told. Asks at the gate `collect-garbage` with the blobs that
    would go, and collects nothing besides them. Raises StepFailed for a registry that cannot collect, or whose
    container is not as 7.3 wants it, GateRefused, and ApplyFailed where a step failed: the registry is writable again
    then, or the message says that it is not.
    """
    members = hosts.having("registry")
    garbage = dry_run(members, untagged=untagged)
    if garbage.refused:
        raise StepFailed(garbage.refused, garbage.remedy)
    step = _Told(garbage)
    if not garbage.items and not garbage.manifests:
        return step.result(hosts.mode, Status.OK, str(garbage))
    if hosts.mode is Mode.VERIFY:  # garbage is no drift
        return step.result(hosts.mode, Status.OK, str(garbage))
    if hosts.mode is Mode.PLAN:
        return step.result(hosts.mode, Status.WOULD_CHANGE, f"free {size(garbage.bytes)}", garbage)
    _demand_wanted(members)
    hosts.approval.ask(
        COLLECT,
        f"{garbage} on {garbage.host}. The registry is read-only meanwhile, and its container is made anew before and "
        "after: pushes fail, pulls fail for some seconds twice",
        garbage.table.frame,
    )
    parts: list[ApplyResult] = []
    approved = frozenset((*garbage.manifests, *(item.digest for item in garbage.items)))
    with _read_only(members, parts):
        if (now := _sparing(hosts.site, garbage)).refused:  # something was pushed meanwhile
            raise StepFailed(now.refused, now.remedy)
        needed = _needed(hosts.site)
        collection = Collection(hosts.site.registry.container, untagged, approved)
        parts.append(members.apply([collection], name="collect", deadline=DEADLINE))
    check(
        "every manifest and blob that a tag needs is there",
        lambda: _all_there(hosts.site, needed),
        mode=hosts.mode,
        deadline=30,
    )
    check("an image can be pulled", lambda: transfer.pulled(hosts), mode=hosts.mode, deadline=30)
    return ApplyResult("garbage collected", hosts.mode, tuple(one for part in parts for one in part))


def _demand_wanted(registry: Hosts) -> None:
    """Raise StepFailed where the container is not as 7.3 wants it: made anew, it would become that without a gate."""
    step = container(registry.site)
    for host, output in registry.run(step.probe()).items():
        if output.error is not None:
            raise output.error
        if change := step.plan(output.stdout):
            raise StepFailed(
                f"{step.label} on {host} is not as the parameters want it:\n{change.diff.rstrip()}",
                "run 7.3 first: its gate says what that costs",
            )


@contextmanager
def _read_only(registry: Hosts, parts: list[ApplyResult]) -> Iterator[None]:
    """The registry takes no changes inside, and does again afterwards, whatever happened."""
    site = registry.site
    try:
        parts.append(registry.apply([container(site, read_only=True, gate=None, note="read-only")]))
        yield
    finally:
        try:
            parts.append(registry.apply([container(site, gate=None, note="writable")]))
        except RunbookError as error:
            raise ApplyFailed(
                f"the registry may be read-only still: {error.message}",
                "run 7.3: it makes the container anew, writable",
                result=getattr(error, "result", None),
            ) from error


@dataclass(frozen=True)
class Collection(Step):
    """No garbage in the registry whose container is `container`: by its dry run, there is nothing left to collect."""

    container: str
    untagged: bool = False
    approved: frozenset[str] | None = field(default=None, repr=False)
    """The digests that may go: what became garbage since they were shown is refused. None: any."""

    @property
    def label(self) -> str:
        return "garbage of the registry"

    @property
    def _order(self) -> str:
        return f"docker exec {quote(self.container)} registry garbage-collect {_OPTION * self.untagged}"

    def probe(self) -> str:
        return f"out=$({self._order} --dry-run {CONFIG}) || exit 1\nprintf '%s\\n' \"$out\" | grep ' eligible ' || :\n"

    def plan(self, state: str, pending: frozenset[str] = frozenset()) -> Change | None:
        blobs, manifests = BLOB.findall(state), MANIFEST.findall(state)
        if not blobs and not manifests:
            return None
        if self.approved is not None and (more := {*manifests, *blobs} - self.approved):
            others = f" and {len(more) - 1:,} more" if len(more) > 1 else ""
            raise StepFailed(
                f"{min(more)}{others} became garbage since the gate was asked: nothing was collected",
                "somebody deleted a tag meanwhile, or a push was cut off: look again, then decide again",
            )
        lines = [f"-manifest {digest}\n" for digest in manifests] + [f"-blob {digest}\n" for digest in blobs]
        return Change(f"remove {plural(len(blobs), 'blob')}", "".join(lines))

    def script(self, change: Change) -> str:
        return f"{self._order} {CONFIG} >/dev/null\n"


@dataclass(frozen=True)
class _Told:
    """The row that tells of garbage where nothing is done about it."""

    garbage: Garbage = field(repr=False)

    def result(self, mode: Mode, status: Status, summary: str, shown: Garbage | None = None) -> ApplyResult:
        lines: Sequence[str] = [f"-{item.digest} {size(item.bytes)}\n" for item in shown.items] if shown else []
        row = StepResult(self.garbage.host, "garbage of the registry", status, summary, "".join(lines))
        emit(event="step", **row.row())
        return ApplyResult("garbage", mode, (row,))
