"""What a registry holds as pandas DataFrames, with the same typed columns whether they are full or empty.

As in `mesos.tables`: text is `string`, counts and sizes are `Int64` (bytes), times `datetime64[ns, UTC]`, spans
`timedelta64[ns]`; what is not known is `<NA>` or `NaT`. `survey` asks the registry once, and the tables are made of
that, so that they agree with each other. Sizes are those that are stored and transferred, compressed.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import pandas as pd

from runbook.errors import DigestMismatch, NotFound, RepositoryUnknown, ServiceError, UnexpectedAnswer
from runbook.services.mesos.tables import Schema, typed_table
from runbook.services.registry.client import Registry
from runbook.services.registry.manifests import Descriptor, ImageConfig, Manifest

_TIME = "datetime64[ns, UTC]"
_SPAN = "timedelta64[ns]"
Given = TypeVar("Given")
_Place = tuple[str, str]  # a repository, and a tag or digest in it

REPOSITORIES: Schema = {
    "repository": "string",
    "tags": "Int64",
    "newest": _TIME,  # when the newest of its images was made
    "size": "Int64",  # of all its images, what they share counted once
}

TAGS: Schema = {
    "repository": "string",
    "tag": "string",
    "digest": "string",
    "media_type": "string",
    "platforms": "string",
    "size": "Int64",  # <NA>: schema 1, or lost
    "layers": "Int64",
    "created": _TIME,
    "age": _SPAN,
    "shared_with": "string",  # the tags of the repository that go with it where it is deleted
    "problem": "string",
}

LAYERS: Schema = {
    "digest": "string",
    "size": "Int64",
    "images": "Int64",  # manifests that have it
    "tags": "Int64",
    "repositories": "Int64",
    "used_by": "string",  # repository:tag
}

HISTORY: Schema = {
    "step": "Int64",
    "created": _TIME,
    "created_by": "string",
    "layer": "string",  # <NA>: it left none
    "size": "Int64",
}


@dataclass(frozen=True)
class Tagged:
    """One tag, and what it names: its manifest, those of the images behind it, and their configurations.

    `nested` are the indexes that its index lists, at any depth. `problem`: why it is not all there; a
    tag may name what is lost. `unread`: a manifest is there and cannot be read, so that what it needs is not known.
    """

    repository: str
    tag: str
    digest: str | None = None
    manifest: Manifest | None = None
    images: tuple[Manifest, ...] = ()
    configs: tuple[ImageConfig, ...] = ()
    problem: str | None = None
    nested: tuple[Manifest, ...] = ()
    unread: bool = False

    @property
    def blobs(self) -> dict[str, Descriptor]:
        """All configurations and layers, by digest."""
        return {blob.digest: blob for image in self._holders for blob in image.blobs}

    @property
    def layers(self) -> dict[str, Descriptor]:
        """All layers, by digest."""
        return {layer.digest: layer for image in self._holders for layer in image.layers}

    @property
    def _holders(self) -> tuple[Manifest, ...]:
        """The manifests that may name blobs: those of the images, and an index that lists blobs itself."""
        return (*self._indexes, *self.images)

    @property
    def _indexes(self) -> tuple[Manifest, ...]:
        return (self.manifest, *self.nested) if self.manifest and self.manifest.is_index else ()

    @property
    def reachable(self) -> dict[str, Descriptor | None]:
        """What must stay for the tag to be whole, by digest: its manifest and those that it lists (None), and their
        configurations and layers, except for foreign ones, which no registry needs to hold."""
        manifests = [self.digest, *(listed.digest for index in self._indexes for listed in index.manifests)]
        blobs = {digest: blob for digest, blob in self.blobs.items() if not blob.urls}
        return {**dict.fromkeys(filter(None, manifests)), **blobs}

    @property
    def size(self) -> int | None:
        """Bytes of the configurations and layers of all its images, each counted once."""
        return _sum(self.blobs)

    @property
    def created(self) -> float | None:
        """When the newest of its images was made, in seconds since 1970."""
        return max((config.created.timestamp() for config in self.configs if config.created), default=None)


@dataclass(frozen=True)
class Survey:
    """Some of a registry's repositories with all their tags, as they were at a time (seconds since 1970)."""

    repositories: tuple[str, ...]
    tagged: tuple[Tagged, ...]
    at: float


def survey(registry: Registry, repositories: Iterable[str] | None = None) -> Survey:
    """Ask for the tags of these repositories (of all, without them) and for what each tag names.

    A few requests are under way at once, and each manifest and configuration is asked for once, whoever shares it;
    what was asked for before is remembered. What is lost or damaged makes a `problem`, and no error.
    """
    names = tuple(registry.repositories() if repositories is None else repositories)
    listed = registry.each(lambda name: _tags(registry, name), names)
    tags = [(name, tag) for name, found in zip(names, listed, strict=True) for tag in found]
    digests = _digests(registry, tags)
    manifests = _manifests(registry, digests)
    places = list(digests)
    while members := [place for place in _listed(places, digests, manifests) if place not in digests]:
        asked_for = _digests(registry, members)  # whether they are still there
        digests |= asked_for
        manifests |= _manifests(registry, asked_for)
        places = members
    images = [found for found in manifests.values() if isinstance(found, Manifest) and not found.is_index]
    asked = registry.each(lambda image: _attempt(lambda: registry.image(image.repository, image)), images)
    configs = dict(zip((image.digest for image in images), asked, strict=True))
    return Survey(names, tuple(_tagged(place, digests, manifests, configs) for place in tags), time.time())


def repositories_table(found: Survey) -> pd.DataFrame:
    """The repositories, emptied ones included, with how many tags each has, and how big and how new it is."""
    tagged: dict[str, list[Tagged]] = {name: [] for name in found.repositories}
    for one in found.tagged:
        tagged[one.repository].append(one)
    sizes = [_sum({digest: blob for one in tags for digest, blob in one.blobs.items()}) for tags in tagged.values()]
    return typed_table(
        REPOSITORIES,
        {
            "repository": list(tagged),
            "tags": [len(tags) for tags in tagged.values()],
            "newest": [max((one.created for one in tags if one.created), default=None) for tags in tagged.values()],
            "size": sizes,
        },
    )


def tags_table(found: Survey) -> pd.DataFrame:
    """The tags, with what each names. `layers` and `size` of an index are those of all its images."""
    sharing: dict[tuple[str, str | None], list[str]] = defaultdict(list)
    for one in found.tagged:
        sharing[one.repository, one.digest].append(one.tag)
    rows = found.tagged
    shared = [
        [tag for tag in sharing[one.repository, one.digest] if tag != one.tag] if one.digest else [] for one in rows
    ]
    return typed_table(
        TAGS,
        {
            "repository": [one.repository for one in rows],
            "tag": [one.tag for one in rows],
            "digest": [one.digest for one in rows],
            "media_type": [one.manifest.media_type if one.manifest else None for one in rows],
            "platforms": [_platforms(one) for one in rows],
            "size": [one.size for one in rows],
            "layers": [len(one.layers) if one.manifest else None for one in rows],
            "created": [one.created for one in rows],
            "age": [max(0.0, found.at - one.created) if one.created else None for one in rows],
            "shared_with": [", ".join(tags) or None for tags in shared],
            "problem": [one.problem for one in rows],
        },
    )


def layers_table(found: Survey) -> pd.DataFrame:
    """The layers, the biggest first, and which images share each."""
    sizes: dict[str, int | None] = {}
    images: dict[str, set[str]] = defaultdict(set)
    used_by: dict[str, dict[str, str]] = defaultdict(dict)  # repository:tag to repository
    for one in found.tagged:
        for image in one._holders:
            for layer in image.layers:
                sizes[layer.digest] = layer.size
                images[layer.digest].add(image.digest)
                used_by[layer.digest][f"{one.repository}:{one.tag}"] = one.repository
    digests = sorted(sizes, key=lambda digest: (-(sizes[digest] or 0), digest))
    return typed_table(
        LAYERS,
        {
            "digest": digests,
            "size": [sizes[digest] for digest in digests],
            "images": [len(images[digest]) for digest in digests],
            "tags": [len(used_by[digest]) for digest in digests],
            "repositories": [len(set(used_by[digest].values())) for digest in digests],
            "used_by": [", ".join(used_by[digest]) for digest in digests],
        },
    )


def history_table(image: Manifest, config: ImageConfig) -> pd.DataFrame:
    """The steps by which an image was made, the first one first, and the layer that each left."""
    steps, layers = config.history, iter(image.layers)
    left = [None if step.empty else next(layers, None) for step in steps]
    return typed_table(
        HISTORY,
        {
            "step": list(range(1, len(steps) + 1)),
            "created": [step.created.timestamp() if step.created else None for step in steps],
            "created_by": [step.created_by for step in steps],
            "layer": [layer.digest if layer else None for layer in left],
            "size": [layer.size if layer else None for layer in left],
        },
    )


def _tags(registry: Registry, repository: str) -> list[str]:
    try:
        return registry.tags(repository)
    except RepositoryUnknown:
        return []  # the catalog still has what was emptied


def _digests(registry: Registry, places: Iterable[_Place]) -> dict[_Place, str | ServiceError]:
    distinct = list(dict.fromkeys(places))
    return dict(
        zip(distinct, registry.each(lambda one: _attempt(lambda: registry.digest(*one)), distinct), strict=True)
    )


def _manifests(registry: Registry, digests: Mapping[_Place, str | ServiceError]) -> dict[str, Manifest | ServiceError]:
    """The manifests by digest, each asked for in one of the repositories that have it."""
    where = {digest: name for (name, _), digest in digests.items() if isinstance(digest, str)}
    found = registry.each(lambda one: _attempt(lambda: registry.known(one[1], one[0])), where.items())
    return dict(zip(where, found, strict=True))


def _listed(
    places: Iterable[_Place],
    digests: Mapping[_Place, str | ServiceError],
    manifests: Mapping[str, Manifest | ServiceError],
) -> dict[_Place, None]:
    """The manifests that the indexes at these places list, each once."""
    named = [
        (repository, manifests[digest])
        for repository, name in places
        if isinstance(digest := digests[repository, name], str)
    ]
    return {(name, one.digest): None for name, index in named if isinstance(index, Manifest) for one in index.manifests}


def _attempt(ask: Callable[[], Given]) -> Given | ServiceError:
    try:
        return ask()
    except (NotFound, DigestMismatch, UnexpectedAnswer) as error:
        return error


def _tagged(
    place: _Place,
    digests: Mapping[_Place, str | ServiceError],
    manifests: Mapping[str, Manifest | ServiceError],
    configs: Mapping[str, ImageConfig | ServiceError],
) -> Tagged:
    """What is known of a tag."""

    def found(place: _Place) -> Manifest | ServiceError:
        digest = digests[place]
        return manifests[digest] if isinstance(digest, str) else digest

    repository, tag = place
    digest, manifest = digests[place], found(place)
    known = digest if isinstance(digest, str) else None
    if isinstance(manifest, ServiceError):
        return Tagged(repository, tag, known, problem=manifest.message, unread=not isinstance(manifest, NotFound))
    members: list[Manifest | ServiceError] = [manifest]
    seen = {manifest.digest}
    for member in members:  # grows: an index may list indexes
        if isinstance(member, Manifest) and member.is_index:
            new = dict.fromkeys(one.digest for one in member.manifests if one.digest not in seen)
            seen |= new.keys()
            members += [found((repository, digest)) for digest in new]
    nested = tuple(member for member in members[1:] if isinstance(member, Manifest) and member.is_index)
    images = tuple(member for member in members if isinstance(member, Manifest) and not member.is_index)
    made = [configs[image.digest] for image in images]
    problems = [one.message for one in (*members, *made) if isinstance(one, ServiceError)]
    read = tuple(config for config in made if isinstance(config, ImageConfig))
    unread = any(isinstance(one, ServiceError) and not isinstance(one, NotFound) for one in members)
    return Tagged(repository, tag, known, manifest, images, read, "; ".join(problems) or None, nested, unread)


def _platforms(one: Tagged) -> str | None:
    """For what its images are: as the index says, or else as their configurations do."""
    if one.manifest and one.manifest.is_index:
        named = [listed.platform for listed in one.manifest.manifests]
    else:
        named = ["/".join(filter(None, (config.os, config.architecture))) for config in one.configs]
    return ", ".join(dict.fromkeys(filter(None, named))) or None


def _sum(blobs: Mapping[str, Descriptor]) -> int | None:
    """Bytes of all of them; None where nothing, or of one nothing, is known."""
    sizes = [blob.size for blob in blobs.values()]
    known = [size for size in sizes if size is not None]
    return sum(known) if len(known) == len(sizes) and sizes else None
