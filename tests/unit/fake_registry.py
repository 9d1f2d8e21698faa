"""A registry at the client's interface: as many repositories as a test wants, and every question counted.

The client itself is tested against a real registry (tests/contract/registry).
"""

from __future__ import annotations

import hashlib
import json
import threading
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any

from runbook.errors import ManifestUnknown, RepositoryUnknown
from runbook.services.registry import ImageConfig, Manifest
from runbook.services.registry.manifests import DOCKER_LIST, DOCKER_MANIFEST


def digest_of(text: str) -> str:
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def manifest_of(repository: str, *layers: str, config: str = "") -> Manifest:
    """An image of these layers: each of its text's length times a thousand bytes."""
    content = {
        "schemaVersion": 2,
        "mediaType": DOCKER_MANIFEST,
        "config": {"mediaType": "config", "digest": digest_of(f"config {config or layers}"), "size": 1000},
        "layers": [{"mediaType": "layer", "digest": digest_of(layer), "size": 1000 * len(layer)} for layer in layers],
    }
    raw = json.dumps(content)
    return Manifest.parse(repository, raw.encode(), DOCKER_MANIFEST, digest_of(raw))


class FakeRegistry:
    """Repositories with tags; `asked` counts the questions by name, `before` is called ahead of each."""

    def __init__(self, names: Iterable[str] = (), url: str = "http://127.0.0.1:8600") -> None:
        self.held: dict[str, dict[str, Manifest]] = {name: {} for name in names}
        self.commands: tuple[str, ...] = ()
        self.asked: Counter[str] = Counter()
        self.before: Callable[[str], None] = lambda question: None
        self.closed = False
        self._lock = threading.Lock()

    def push(self, repository: str, tag: str, *layers: str) -> str:
        """Put an image there; gives its digest."""
        manifest = manifest_of(repository, *layers)
        self.held.setdefault(repository, {})[tag] = manifest
        return manifest.digest

    def push_index(self, repository: str, tag: str, *members: str) -> None:
        """Put an index of images there that have these tags; each is for another architecture."""
        listed = [
            {
                "mediaType": DOCKER_MANIFEST,
                "digest": self.held[repository][member].digest,
                "size": self.held[repository][member].size,
                "platform": {"os": "linux", "architecture": f"arm{number}"},
            }
            for number, member in enumerate(members)
        ]
        raw = json.dumps({"schemaVersion": 2, "mediaType": DOCKER_LIST, "manifests": listed})
        self.held[repository][tag] = Manifest.parse(repository, raw.encode(), DOCKER_LIST, digest_of(raw))

    def close(self) -> None:
        self.closed = True

    def ping(self) -> None:
        self._count("ping")

    def page(self, size: int = 100, after: str | None = None) -> tuple[list[str], str | None]:
        self._count("page")
        names = sorted(self.held)
        begin = 0 if after is None else bisect_right(names, after)
        page = names[begin : begin + size]
        return page, page[-1] if begin + size < len(names) else None

    def repositories(self) -> list[str]:
        return sorted(self.held)

    def tags(self, repository: str) -> list[str]:
        self._count("tags")
        return sorted(self._tags(repository))

    def manifest(self, repository: str, reference: str) -> Manifest:
        self._count("manifest")
        return self._manifest(repository, reference)

    def digest(self, repository: str, reference: str) -> str:
        self._count("digest")
        return self._manifest(repository, reference).digest

    def image(self, repository: str, manifest: Manifest) -> ImageConfig:
        self._count("image")
        history = [{"created_by": command} for command in self.commands[: len(manifest.layers)]]
        created = datetime(2016, 5, 31, 14, 12, tzinfo=UTC).isoformat()
        content = {"created": created, "os": "linux", "architecture": "amd64", "history": history}
        return ImageConfig.parse(json.dumps(content).encode())

    def tags_of(self, repository: str, digest: str) -> list[str]:
        self._count("tags_of")
        return sorted(tag for tag, manifest in self._tags(repository).items() if manifest.digest == digest)

    def indexes_of(self, repository: str, digest: str) -> list[str]:
        self._count("indexes_of")
        held = self._tags(repository).items()
        return sorted(tag for tag, one in held if any(listed.digest == digest for listed in one.manifests))

    def delete(self, repository: str, digest: str) -> None:
        self._count("delete")
        for tag in self.tags_of(repository, digest):
            del self.held[repository][tag]

    def retag(self, repository: str, reference: str, tag: str, *, to: str | None = None) -> str:
        self._count("retag")
        manifest = self._manifest(repository, reference)
        self.held.setdefault(to or repository, {})[tag] = manifest
        return manifest.digest

    def each(self, function: Callable[[Any], Any], items: Iterable[Any]) -> list[Any]:
        return [function(item) for item in items]

    def _count(self, question: str) -> None:
        with self._lock:
            self.asked[question] += 1
        self.before(question)

    def _tags(self, repository: str) -> dict[str, Manifest]:
        if repository not in self.held:
            raise RepositoryUnknown(f"no {repository}")
        return self.held[repository]

    def _manifest(self, repository: str, reference: str) -> Manifest:
        for tag, manifest in self._tags(repository).items():
            if reference in (tag, manifest.digest):
                return manifest
        raise ManifestUnknown(f"no {repository}:{reference}")
