"""What a registry holds: manifests of images and indexes, what they point at, and images' configurations.

Five formats of manifests are read. Docker's version 2 and OCI's image differ in their media types only, and so do
Docker's manifest list and OCI's index, which hold a manifest for each platform. Schema 1 is what Docker before 1.10
pushed: it tells no sizes, and its digest leaves its signatures out.

Source: 'Image Manifest V 2, Schema 1' and 'Schema 2' of Docker's distribution; OCI's image-spec.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from runbook.services.registry.names import digest_of, is_digest

DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
SCHEMA1 = "application/vnd.docker.distribution.manifest.v1+json"
SCHEMA1_SIGNED = "application/vnd.docker.distribution.manifest.v1+prettyjws"

KINDS: Mapping[str, str] = {
    DOCKER_MANIFEST: "Docker image",
    DOCKER_LIST: "Docker manifest list",
    OCI_MANIFEST: "OCI image",
    OCI_INDEX: "OCI index",
    SCHEMA1: "Docker schema 1",
    SCHEMA1_SIGNED: "Docker schema 1",
}
"""What the formats are called, by media type."""

ACCEPT = ", ".join((DOCKER_MANIFEST, DOCKER_LIST, OCI_MANIFEST, OCI_INDEX))
"""What is asked for: anything but schema 1, into which a registry would translate what it thinks is not understood."""

_INDEXES = (DOCKER_LIST, OCI_INDEX)
_SCHEMA1 = (SCHEMA1, SCHEMA1_SIGNED)
_LAYER_OF_SCHEMA1 = "application/vnd.docker.container.image.rootfs.diff+x-gtar"
_Json = Mapping[str, Any]


@dataclass(frozen=True)
class Descriptor:
    """A pointer to content by its digest. `size` in bytes: None where schema 1 does not tell."""

    media_type: str
    digest: str
    size: int | None
    platform: str | None = None  # linux/amd64; of the manifests of an index
    urls: tuple[str, ...] = ()  # of a foreign layer, which no registry needs to hold

    @classmethod
    def parse(cls, content: _Json) -> Descriptor:
        """A descriptor as it stands in a manifest. Raises ValueError."""
        digest, size = str(content.get("digest")), content.get("size")
        if not is_digest(digest) or not isinstance(size, int) or size < 0:
            raise ValueError(f"a descriptor without a digest and a size: {dict(content)}")
        platform = content.get("platform") or {}
        parts = [str(platform[name]) for name in ("os", "architecture", "variant") if platform.get(name)]
        urls = tuple(map(str, content.get("urls") or ()))
        return cls(str(content.get("mediaType", "")), digest, size, "/".join(parts) or None, urls)


@dataclass(frozen=True)
class Manifest:
    """A manifest of a repository: that of an image, or an index of several."""

    repository: str
    media_type: str
    digest: str
    raw: bytes = field(repr=False)
    config: Descriptor | None = None  # None: an index, or schema 1
    layers: tuple[Descriptor, ...] = ()  # the lowest first; of an index what it lists that is no manifest
    manifests: tuple[Descriptor, ...] = ()  # of an index

    @classmethod
    def parse(cls, repository: str, raw: bytes, media_type: str, digest: str) -> Manifest:
        """Read a manifest's bytes. Raises ValueError where they are none that is known."""
        with _well_formed():
            content = json.loads(raw)
            known = media_type if media_type in KINDS else _media_type(content)
            if content.get("mediaType", known) != known:
                raise ValueError(f"it comes as {known} and calls itself {content['mediaType']}")
            if known in _SCHEMA1:
                layers = tuple(_layer_of_schema1(str(layer["blobSum"])) for layer in reversed(content["fsLayers"]))
                return cls(repository, known, digest, raw, layers=layers)
            if known in _INDEXES:
                # buildkit's cache lists layers and its configuration where manifests are expected (docker/buildx#173)
                entries = tuple(map(Descriptor.parse, content["manifests"]))
                listed = tuple(entry for entry in entries if entry.media_type in ("", *KINDS))
                blobs = tuple(entry for entry in entries if entry not in listed)
                return cls(repository, known, digest, raw, layers=blobs, manifests=listed)
            layers = tuple(map(Descriptor.parse, content["layers"]))
            return cls(repository, known, digest, raw, Descriptor.parse(content["config"]), layers)

    @property
    def size(self) -> int:
        """Bytes of the manifest itself."""
        return len(self.raw)

    @property
    def total(self) -> int | None:
        """Bytes of the configuration and the layers, each counted once: what a first pull transfers.

        None where the manifest does not tell: of schema 1 and of an index, unless that lists nothing but blobs.
        """
        if self.config is None and not (self.layers and self.is_index and not self.manifests):
            return None
        return sum({blob.digest: blob.size or 0 for blob in self.blobs}.values())

    @property
    def blobs(self) -> tuple[Descriptor, ...]:
        """The configuration and the layers."""
        return self.layers if self.config is None else (self.config, *self.layers)

    @property
    def kind(self) -> str:
        """The format in words: `Docker image`, `OCI index`, …"""
        return KINDS[self.media_type]

    @property
    def is_index(self) -> bool:
        """Whether it is of a format that lists manifests."""
        return self.media_type in _INDEXES

    @property
    def is_schema1(self) -> bool:
        """Whether it is of the format of Docker before 1.10."""
        return self.media_type in _SCHEMA1


@dataclass(frozen=True)
class History:
    """One step by which an image was made. An `empty` one left no layer."""

    created: datetime | None
    created_by: str
    empty: bool


@dataclass(frozen=True)
class ImageConfig:
    """What an image's configuration tells, its environment apart, which may hold secrets."""

    created: datetime | None = None
    architecture: str | None = None
    os: str | None = None
    history: tuple[History, ...] = ()  # the first step first

    @classmethod
    def parse(cls, raw: bytes) -> ImageConfig:
        """Read a configuration. What is no image (a chart, a signature) tells nothing. Raises ValueError."""
        with _well_formed():
            content = json.loads(raw)
            history = tuple(
                History(_time(step.get("created")), str(step.get("created_by", "")), bool(step.get("empty_layer")))
                for step in content.get("history") or ()
            )
            return cls(_time(content.get("created")), content.get("architecture"), content.get("os"), history)

    @classmethod
    def of_schema1(cls, manifest: Manifest) -> ImageConfig:
        """The same from a manifest of schema 1, which holds a configuration for each layer. Raises ValueError.

        No step is `empty`: what left nothing has an empty layer there.
        """
        with _well_formed():
            steps = [json.loads(step["v1Compatibility"]) for step in reversed(json.loads(manifest.raw)["history"])]
            history = tuple(History(_time(step.get("created")), _command(step), empty=False) for step in steps)
            last = steps[-1]
            return cls(_time(last.get("created")), last.get("architecture"), last.get("os"), history)

    @property
    def commands(self) -> tuple[str, ...]:
        """What made each layer, the lowest first."""
        return tuple(step.created_by for step in self.history if not step.empty)


def manifest_digest(raw: bytes, media_type: str, algorithm: str = "sha256") -> str:
    """The digest of a manifest's bytes, of schema 1 without its signatures. Raises ValueError."""
    return digest_of(_signed(raw) if media_type == SCHEMA1_SIGNED else raw, algorithm)


def _signed(raw: bytes) -> bytes:
    """What was signed of a signed schema 1: the first `formatLength` bytes and `formatTail`."""
    with _well_formed():
        header = json.loads(_from_base64(json.loads(raw)["signatures"][0]["protected"]))
        return raw[: header["formatLength"]] + _from_base64(header["formatTail"])


def _from_base64(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _media_type(content: _Json) -> str:
    """What a manifest is that comes without its media type, as from a store of plain files. Raises ValueError."""
    if content.get("mediaType") in KINDS:
        return str(content["mediaType"])
    match content:
        case {"schemaVersion": 1, "signatures": _}:
            return SCHEMA1_SIGNED
        case {"schemaVersion": 1}:
            return SCHEMA1
        case {"schemaVersion": 2, "manifests": _}:
            return OCI_INDEX
        case {"schemaVersion": 2, "config": _, "layers": _}:
            return OCI_MANIFEST
    raise ValueError("no format of manifests that is known")


def _layer_of_schema1(digest: str) -> Descriptor:
    if not is_digest(digest):
        raise ValueError(f"a layer that has no digest: {digest}")
    return Descriptor(_LAYER_OF_SCHEMA1, digest, None)


def _command(step: _Json) -> str:
    """What made a layer of schema 1."""
    return " ".join(map(str, (step.get("container_config") or {}).get("Cmd") or ()))


def _time(text: object) -> datetime | None:
    """A time of a configuration; None where it is none, or Go's year 1."""
    if not isinstance(text, str) or text.startswith("0001-"):
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


@contextmanager
def _well_formed() -> Iterator[None]:
    """Turns what meets a reader of malformed JSON (a key that is not there, a list for an object) into ValueError."""
    try:
        yield
    except (LookupError, TypeError, AttributeError) as error:
        raise ValueError(f"it does not hold what it should: {error!r}") from error
