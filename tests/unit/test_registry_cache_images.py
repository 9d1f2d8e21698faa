"""buildkit's cache: an index whose entries are layers and a configuration (docker/buildx#173).

Source: buildkit's cache/remotecache/export.go, which pushes it so unless `image-manifest=true` is given.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable

import pytest
from loopback import Loopback, Request, answer

from runbook.services.registry.client import Registry
from runbook.services.registry.manifests import OCI_INDEX, OCI_MANIFEST, Manifest
from runbook.services.registry.tables import layers_table, survey, tags_table

OCI_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER, CONFIG = f"sha256:{'a' * 64}", f"sha256:{'b' * 64}"
RAW = json.dumps(
    {
        "schemaVersion": 2,
        "mediaType": OCI_INDEX,
        "manifests": [
            {"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": LAYER, "size": 700},
            {"mediaType": "application/vnd.buildkit.cacheconfig.v0", "digest": CONFIG, "size": 30},
        ],
    }
).encode()
DIGEST = f"sha256:{hashlib.sha256(RAW).hexdigest()}"


def test_entries_are_told_apart_by_their_media_type() -> None:
    cache = Manifest.parse("app", RAW, OCI_INDEX, DIGEST)
    assert cache.is_index
    assert cache.manifests == ()
    assert [(blob.digest, blob.size) for blob in cache.blobs] == [(LAYER, 700), (CONFIG, 30)]
    assert cache.total == 730


def respond(asked: list[str]) -> Callable[[Request], list[bytes]]:
    def answered(request: Request) -> list[bytes]:
        path = request.target.partition("?")[0]
        asked.append(f"{request.method} {path}")
        if path == "/v2/app/tags/list":
            return [answer(200, {"name": "app", "tags": ["cache"]})]
        if "/manifests/" in path and request.method == "PUT":
            return [answer(201, "", **{"Docker-Content-Digest": DIGEST})]
        if "/manifests/cache" in path or f"/manifests/{DIGEST}" in path:
            headers = {"Docker-Content-Digest": DIGEST}
            return [answer(200, RAW, kind=OCI_INDEX, **headers)]
        if request.method == "POST":
            return [answer(201, "")]
        return [answer(500, "a blob is no manifest")]  # what a registry says of a layer that is asked for as one

    return answered


def test_tables_and_retag_ask_for_no_blob_as_a_manifest() -> None:
    asked: list[str] = []
    with Loopback(respond(asked)) as server, Registry(f"http://127.0.0.1:{server.port}") as registry:
        found = survey(registry, ["app"])
        (row,) = tags_table(found).to_dict("records")
        assert (row["size"], row["layers"]) == (730, 2)
        assert found.tagged[0].problem is None
        assert set(layers_table(found)["digest"]) == {LAYER, CONFIG}
        assert set(found.tagged[0].reachable) == {DIGEST, LAYER, CONFIG}
        assert registry.retag("app", "cache", "kept", to="team/app") == DIGEST
    assert [one for one in asked if "/manifests/sha256:a" in one or "/manifests/sha256:b" in one] == []
    assert asked.count("POST /v2/team/app/blobs/uploads/") == 2


def manifest(kind: str, **content: object) -> tuple[str, bytes, str]:
    """A manifest as a registry holds it: its digest, its bytes and its media type (OCI image specification)."""
    raw = json.dumps({"schemaVersion": 2, "mediaType": kind, **content}).encode()
    return f"sha256:{hashlib.sha256(raw).hexdigest()}", raw, kind


@pytest.mark.parametrize(
    ("broken", "unread"), [(None, False), ((404, "MANIFEST_UNKNOWN"), False), ((200, "no JSON"), True)]
)
def test_what_nested_indexes_list_belongs_to_their_tag(broken: tuple[int, str] | None, unread: bool) -> None:
    """An image index may list indexes (OCI image specification, image-index.md)."""
    layers = [{"mediaType": OCI_LAYER, "digest": LAYER, "size": 700}]
    image = manifest(OCI_MANIFEST, config={"mediaType": OCI_CONFIG, "digest": CONFIG, "size": 2}, layers=layers)
    inner = manifest(OCI_INDEX, manifests=[{"mediaType": OCI_MANIFEST, "digest": image[0], "size": 1}])
    middle = manifest(OCI_INDEX, manifests=[{"mediaType": OCI_INDEX, "digest": inner[0], "size": 1}])
    outer = manifest(OCI_INDEX, manifests=[{"mediaType": OCI_INDEX, "digest": middle[0], "size": 1}])
    held = {one[0]: one for one in (image, inner, middle, outer)} | {"1": outer}

    def answered(request: Request) -> list[bytes]:
        path = request.target.partition("?")[0]
        name = path.rpartition("/")[2]
        if path == "/v2/app/tags/list":
            return [answer(200, {"name": "app", "tags": ["1"]})]
        if name == inner[0] and broken:
            return [answer(broken[0], broken[1].encode(), kind=OCI_INDEX, **{"Docker-Content-Digest": name})]
        if "/manifests/" in path:
            digest, raw, kind = held[name]
            return [answer(200, raw, kind=kind, **{"Docker-Content-Digest": digest})]
        return [answer(404, {"errors": [{"code": "BLOB_UNKNOWN", "message": "blob unknown to registry"}]})]

    with Loopback(answered) as server, Registry(f"http://127.0.0.1:{server.port}") as registry:
        (tag,) = survey(registry, ["app"]).tagged
    reached = {outer[0], middle[0], inner[0]} | (set() if broken else {image[0], LAYER, CONFIG})
    assert set(tag.reachable) == reached
    assert tag.unread is unread
    assert bool(tag.problem)  # the configuration is lost, or what was to name it
