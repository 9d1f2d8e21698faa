"""What one repository holds: its tags, the images behind them, and what these have in common."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING

from runbook.console.index import newest_first
from runbook.console.workers import Throttle, Turn
from runbook.errors import RepositoryUnknown, RunbookError

if TYPE_CHECKING:
    from runbook.services.registry import ImageConfig, Manifest, Registry

COMPARED = 200
"""Tags of a repository whose manifests are read, to tell what they share; a delete asks for all of them anyway."""


@dataclass(frozen=True)
class Layer:
    """One layer of an image, the lowest first: bytes (None: schema 1 does not tell), what made it, who else has it."""

    digest: str
    size: int | None
    made_by: str
    shared: tuple[str, ...]


@dataclass
class Shelf:
    """One repository as it was read so far. `problems` says of a tag why its image cannot be told.

    A digest that somebody asked for stands among the tags, as the first.
    """

    repository: str
    listed: bool = False
    """Whether it was read which tags there are."""
    tags: tuple[str, ...] = ()
    manifests: dict[str, Manifest] = field(default_factory=dict)  # by tag
    images: dict[str, ImageConfig] = field(default_factory=dict)  # by digest of the manifest
    problems: dict[str, RunbookError] = field(default_factory=dict)

    @property
    def compared(self) -> int:
        """Of how many tags it is known what they hold."""
        return len(self.manifests)

    def same(self, tag: str) -> tuple[str, ...]:
        """The other tags that name the same image, as far as it is known."""
        manifest = self.manifests.get(tag)
        if manifest is None:
            return ()
        return tuple(other for other in self.tags if other != tag and self._digest(other) == manifest.digest)

    def created(self, tag: str) -> datetime | None:
        """When the image was made, if its configuration says so."""
        image = self.image(tag)
        return image.created if image else None

    def image(self, tag: str) -> ImageConfig | None:
        """The configuration of a tag's image, if it was read."""
        return self.images.get(self._digest(tag) or "")

    def layers(self, tag: str) -> tuple[Layer, ...]:
        """The layers of a tag's image, with the other tags whose images hold them, too."""
        manifest, image = self.manifests.get(tag), self.image(tag)
        if manifest is None:
            return ()
        holders = self._holders()
        commands = image.commands if image and len(image.commands) == len(manifest.layers) else ()
        return tuple(
            Layer(
                layer.digest,
                layer.size,
                commands[position] if commands else "",
                tuple(other for other in holders[layer.digest] if other != tag),
            )
            for position, layer in enumerate(manifest.layers)
        )

    def _digest(self, tag: str) -> str | None:
        manifest = self.manifests.get(tag)
        return manifest.digest if manifest else None

    def _holders(self) -> Mapping[str, list[str]]:
        holders: dict[str, list[str]] = defaultdict(list)
        for tag in self.tags:
            if tag in self.manifests:
                for digest in dict.fromkeys(layer.digest for layer in self.manifests[tag].layers):
                    holders[digest].append(tag)
        return holders


class Reader:
    """Reads a shelf from a registry, what is on show first; its methods run on a worker."""

    def __init__(self, registry: Registry, shelf: Shelf, turn: Turn, changed: Callable[[], None]) -> None:
        self._registry = registry
        self._shelf = shelf
        self._turn = turn
        self._changed = changed
        self._may_tell = Throttle(0.3)

    def read_tags(self) -> None:
        """Read which tags there are. Raises the registry's errors."""
        try:
            tags = newest_first(self._registry.tags(self._shelf.repository))
        except RepositoryUnknown:  # which has manifests without a tag at most
            tags = ()
        self._turn.go_on()
        self._shelf.tags, self._shelf.listed = tags, True
        self._changed()

    def add(self, reference: str) -> str | None:
        """Put a digest that somebody asked for before the tags; gives it, and None for a tag that is gone."""
        if ":" not in reference:
            return None
        self._shelf.tags = (reference, *self._shelf.tags)
        self._changed()
        return reference

    def read_images(self, tags: tuple[str, ...]) -> None:
        """Read the manifests and configurations of some tags."""
        for tag in tags:
            self._read_manifest(tag)
            manifest = self._shelf.manifests.get(tag)
            if manifest is None or manifest.digest in self._shelf.images:
                continue
            try:
                self._shelf.images[manifest.digest] = self._registry.image(self._shelf.repository, manifest)
            except RunbookError as error:
                self._shelf.problems[tag] = error
            self._told()
        self._changed()

    def compare(self) -> None:
        """Read the manifests of the other tags, up to COMPARED, so that it can be told what they share."""
        for tag in self._shelf.tags[:COMPARED]:
            self._read_manifest(tag)
        self._changed()

    def _read_manifest(self, tag: str) -> None:
        shelf = self._shelf
        if tag in shelf.manifests or tag in shelf.problems:
            return
        try:
            manifest = self._registry.manifest(shelf.repository, tag)
        except RunbookError as error:
            self._turn.go_on()
            shelf.problems[tag] = error
        else:
            self._turn.go_on()
            shelf.manifests[tag] = manifest
        self._told()

    def _told(self) -> None:
        self._turn.go_on()
        if self._may_tell():
            self._changed()
