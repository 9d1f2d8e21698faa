"""What is searched: the names of all repositories, read once in the background, and the tags of those that match.

A search never asks the registry for names: it looks through what was read. Tags are not in the catalog, and one
question a repository is the only way to them, so they are read for a search that names a tag, for the repositories that
match it, and kept.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from runbook.console.workers import Throttle, Turn
from runbook.errors import NotFound, RunbookError
from runbook.services.registry.client import PAGE, Registry

BATCH = 64
"""Repositories whose tags are asked for between two looks at whether they are still wanted."""
NAMES = 500_000
"""Names that are kept at most."""
TAGS = 500_000
"""Tags that are kept at most."""
FOUND = 10_000
"""Tags that one search gives at most."""


@dataclass(frozen=True)
class Found:
    """One row of a search: a repository, and a tag or digest in it where the search names one."""

    repository: str
    reference: str | None = None

    def __str__(self) -> str:
        if self.reference is None:
            return self.repository
        return f"{self.repository}{'@' if ':' in self.reference else ':'}{self.reference}"


@dataclass(frozen=True)
class Query:
    """What was typed: words that a repository's name holds, and what a tag holds, or a digest.

    Written as Docker writes references: `web shop`, `shop:1.2`, `shop@sha256:…`; in front of them may stand the address
    of the registry, as in an image's name.
    """

    words: tuple[str, ...] = ()
    tag: str | None = None
    digest: str | None = None

    @classmethod
    def parse(cls, text: str, address: str = "") -> Query:
        """Read what was typed into the search field of the registry at `address` (`host:port`)."""
        text = text.strip()
        if address:
            text = text.removeprefix(f"{address}/")
        names, at, digest = text.partition("@")
        if at:
            return cls(tuple(names.lower().split()), digest=digest.strip().lower())
        names, colon, tag = text.partition(":")
        return cls(tuple(names.lower().split()), tag=tag.strip().lower() if colon else None)

    def rank(self, name: str) -> int | None:
        """How well a repository's name matches: 0 the best, None not at all."""
        if not all(word in name for word in self.words):
            return None
        typed = " ".join(self.words)
        if name == typed:
            return 0
        if name.startswith(typed) or f"/{typed}" in name:
            return 1
        return 2

    def matches_tag(self, tag: str) -> bool:
        """Whether a tag holds what was typed after the colon."""
        return self.tag is None or self.tag in tag.lower()


@dataclass(frozen=True)
class Catalog:
    """The names that were read so far, in order. `read` is when the reading ended, UTC."""

    names: tuple[str, ...] = ()
    reading: bool = False
    read: datetime | None = None
    error: RunbookError | None = None
    cut: bool = False

    def search(self, query: Query) -> list[str]:
        """The names that match, the best first."""
        ranked = [(rank, name) for name in self.names if (rank := query.rank(name)) is not None]
        return [name for _, name in sorted(ranked)] if query.words else list(self.names)


@dataclass
class Index:
    """The catalog of one registry, and the tags that searches asked for.

    `changed` is called whenever `catalog` was replaced. What asks the registry runs on workers.
    """

    registry: Registry
    changed: Callable[[], None]
    catalog: Catalog = Catalog()
    _tags: dict[str, tuple[str, ...]] = field(default_factory=dict)
    _kept: int = 0
    _keeping: threading.Lock = field(default_factory=threading.Lock)

    def fill(self, turn: Turn) -> None:
        """Read the catalog page by page; the names of an earlier reading stay until this one is complete."""
        self.forget_tags()
        again = self.catalog.read is not None
        self._replace(replace(self.catalog, reading=True, error=None))
        names: list[str] = []
        after: str | None = None
        try:
            while True:
                page, after = self.registry.page(PAGE, after)
                turn.go_on()
                names += page
                if after is None or len(names) > NAMES:
                    break
                if not again:
                    self._replace(Catalog(_in_order(names), reading=True))
        except RunbookError as error:
            self._replace(replace(self.catalog, reading=False, error=error))
            return
        self._replace(Catalog(_in_order(names[:NAMES]), read=datetime.now(UTC), cut=len(names) > NAMES))

    def add(self, name: str) -> None:
        """A repository that came to be after the catalog was read."""
        if name not in self.catalog.names:
            self._replace(replace(self.catalog, names=_in_order([*self.catalog.names, name])))

    def forget_tags(self, repository: str | None = None) -> None:
        """Ask again for the tags of a repository (of all of them) when they are next searched."""
        with self._keeping:
            if repository is None:
                self._tags, self._kept = {}, 0
            else:
                self._kept -= len(self._tags.pop(repository, ()))

    def tags(
        self, repositories: Sequence[str], query: Query, turn: Turn, told: Callable[[list[Found], int], None]
    ) -> list[Found]:
        """The tags of some repositories that match, in their order; at most FOUND.

        `told` gets, at most twice a second, what was found so far and in how many repositories it was looked for.
        Raises Superseded, and the registry's errors.
        """
        found: list[Found] = []
        may_tell = Throttle(0.5)
        may_tell()
        for begin in range(0, len(repositories), BATCH):
            turn.go_on()
            if may_tell():
                told(list(found), begin)
            batch = repositories[begin : begin + BATCH]
            for repository, tags in zip(batch, self.registry.each(self._tags_of, batch), strict=True):
                found += (Found(repository, tag) for tag in tags if query.matches_tag(tag))
            if len(found) > FOUND:
                break
        return found[:FOUND]

    def _tags_of(self, repository: str) -> tuple[str, ...]:
        if (kept := self._tags.get(repository)) is not None:
            return kept
        try:
            tags = newest_first(self.registry.tags(repository))
        except NotFound:  # deleted since the catalog was read
            tags = ()
        with self._keeping:
            if repository not in self._tags and self._kept + len(tags) <= TAGS:
                self._tags[repository] = tags
                self._kept += len(tags)
        return tags

    def _replace(self, catalog: Catalog) -> None:
        self.catalog = catalog
        self.changed()


def _in_order(names: Sequence[str]) -> tuple[str, ...]:
    return tuple(sorted(set(names)))


def newest_first(tags: Sequence[str]) -> tuple[str, ...]:
    """Tags by the numbers in them, the highest first (1.10 before 1.9), and `latest` before all others."""
    return tuple(sorted(tags, key=_version, reverse=True))


def _version(tag: str) -> tuple[bool, list[tuple[int, int, str]]]:
    parts = re.findall(r"\d+|\D+", tag)
    return tag == "latest", [(1, int(part), "") if part.isdigit() else (0, 0, part) for part in parts]
