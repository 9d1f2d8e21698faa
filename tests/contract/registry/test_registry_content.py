"""What a real registry holds, as the client reads it, and what the client changes there."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from datetime import UTC, datetime

import pytest
import requests
from registry_daemon import (
    DOCKER_LIST,
    DOCKER_MANIFEST,
    OCI_INDEX,
    OCI_MANIFEST,
    Json,
    Pusher,
    digest,
    layer,
)

from runbook.errors import BlobUnknown, ManifestUnknown, MountRefused, RepositoryUnknown
from runbook.services.registry import Registry, history_table, layers_table, repositories_table, survey, tags_table
from runbook.services.registry.manifests import SCHEMA1_SIGNED, ImageConfig, Manifest, manifest_digest

BASE, ONE, TWO = layer("base", 4000), layer("one"), layer("two")


def oci(pusher: Pusher, repository: str, *layers: bytes) -> Json:
    """An OCI image and an index of it, tagged `image` and `index`; a registry that is too old for it has none."""
    try:
        image = pusher.image(repository, "image", layers, kind=OCI_MANIFEST)
    except AssertionError as refused:
        if "MANIFEST_INVALID" not in str(refused):
            raise
        pytest.skip("the registry under test takes no OCI images")
    return pusher.index(repository, "index", [image], kind=OCI_INDEX)


def test_it_answers_as_a_registry(client: Registry) -> None:
    client.ping()
    assert client.facts().api == "registry/2.0"


def test_a_docker_image_with_all_that_it_points_at(client: Registry, pusher: Pusher, group: str) -> None:
    name = f"{group}/app"
    pushed = pusher.image(name, "1.0", (BASE, ONE))
    found = client.manifest(name, "1.0")
    assert (found.media_type, found.digest, found.size) == (DOCKER_MANIFEST, pushed["digest"], pushed["size"])
    assert digest(found.raw) == found.digest
    assert [one.digest for one in found.layers] == [digest(BASE), digest(ONE)]
    assert found.config is not None
    assert found.total == found.config.size + len(BASE) + len(ONE)
    assert client.digest(name, "1.0") == client.digest(name, found.digest) == found.digest
    assert client.manifest(name, found.digest) == found

    config = client.image(name, found)
    assert config.created == datetime(2016, 6, 3, 9, 12, 50, 123456, tzinfo=UTC)
    assert (config.os, config.architecture) == ("linux", "amd64")
    assert config.commands == ("ADD file:0 in /", "ADD file:1 in /")
    steps = history_table(found, config)
    assert steps["layer"].tolist()[:2] == [digest(BASE), digest(ONE)]
    assert steps["layer"].isna().tolist() == [False, False, True]


def test_a_manifest_list_stays_one(client: Registry, pusher: Pusher, group: str) -> None:
    """Asked for Docker's version 2 alone, registries give the manifest for linux/amd64: another digest to delete."""
    name = f"{group}/app"
    members = [pusher.image(name, None, (BASE, ONE)), pusher.image(name, None, (BASE, TWO), architecture="arm64")]
    pushed = pusher.index(name, "all", members)
    url = f"{pusher.url}/v2/{name}/manifests/all"
    other = pusher.session.get(url, headers={"Accept": DOCKER_MANIFEST}, timeout=10)
    assert other.headers["Docker-Content-Digest"] == members[0]["digest"]

    found = client.manifest(name, "all")
    assert (found.media_type, found.digest) == (DOCKER_LIST, pushed["digest"])
    assert client.digest(name, "all") == pushed["digest"]
    assert [one.platform for one in found.manifests] == ["linux/amd64", "linux/arm64"]
    assert [one.digest for one in client.members(found)] == [one["digest"] for one in members]
    assert client.image(name, found).architecture == "amd64"
    assert client.indexes_of(name, members[1]["digest"]) == ["all"]
    assert client.indexes_of(name, pushed["digest"]) == []


def test_oci_images_and_indexes(client: Registry, pusher: Pusher, group: str) -> None:
    name = f"{group}/oci"
    pushed = oci(pusher, name, BASE)
    image, index = client.manifest(name, "image"), client.manifest(name, "index")
    assert (image.media_type, index.media_type) == (OCI_MANIFEST, OCI_INDEX)
    assert (index.digest, index.manifests[0].digest) == (pushed["digest"], image.digest)
    assert client.digest(name, "index") == pushed["digest"]


def test_an_image_that_is_translated_to_schema_1_has_the_digest_that_is_told(pusher: Pusher, group: str) -> None:
    """What Docker before 1.10 gets. Its digest is that of what was signed, without the signatures."""
    name = f"{group}/app"
    pusher.image(name, "1.0", (BASE, ONE))
    answer = pusher.session.get(f"{pusher.url}/v2/{name}/manifests/1.0", timeout=10)
    if answer.status_code == 404:
        pytest.skip("the registry under test translates nothing to schema 1")
    assert answer.headers["Content-Type"] == SCHEMA1_SIGNED
    told = answer.headers["Docker-Content-Digest"]
    assert manifest_digest(answer.content, SCHEMA1_SIGNED) == told != digest(answer.content)
    manifest = Manifest.parse(name, answer.content, SCHEMA1_SIGNED, told)
    assert [one.digest for one in manifest.layers][:2] == [digest(BASE), digest(ONE)]
    assert manifest.total is None
    config = ImageConfig.of_schema1(manifest)
    assert (config.created, config.architecture) == (datetime(2016, 6, 3, 9, 12, 50, 123456, tzinfo=UTC), "amd64")
    assert len(config.history) == len(manifest.layers)


def test_the_catalog_over_pages_of_any_size(client: Registry, pusher: Pusher, group: str) -> None:
    names = [f"{group}/{letter}" for letter in "abcde"]
    for name in names:
        pusher.image(name, "1", (BASE,))
    for size in (1, 2, 5, 1000):
        assert [name for name in client.repositories(size) if name.startswith(f"{group}/")] == names
    first, after = client.page(2, f"{group}/a")
    assert first == names[1:3]
    assert after == names[2]
    assert client.page(2, after)[0] == names[3:5]


def test_tags_and_those_that_share_a_digest(client: Registry, pusher: Pusher, group: str) -> None:
    name = f"{group}/app"
    for tag in ("1.0", "1.0.0", "latest"):
        pusher.image(name, tag, (BASE, ONE))
    pusher.image(name, "2.0", (BASE, TWO))
    assert client.tags(name) == ["1.0", "1.0.0", "2.0", "latest"]
    assert client.tags_of(name, client.digest(name, "1.0")) == ["1.0", "1.0.0", "latest"]


def test_what_is_not_there_is_named(client: Registry, pusher: Pusher, group: str) -> None:
    name, nowhere = f"{group}/app", "sha256:" + "0" * 64
    pusher.image(name, "1.0", (BASE,))
    with pytest.raises(RepositoryUnknown, match="NAME_UNKNOWN"):
        client.tags(f"{group}/nobody")
    with pytest.raises(ManifestUnknown, match="MANIFEST_UNKNOWN"):
        client.manifest(name, "2.0")
    for ask in (client.digest, client.delete):
        with pytest.raises(ManifestUnknown):
            ask(name, nowhere)
    with pytest.raises(BlobUnknown, match="BLOB_UNKNOWN"), client.blob(name, nowhere):
        pass


def test_a_blob_in_pieces(client: Registry, pusher: Pusher, group: str) -> None:
    content = hashlib.sha256(b"of no order").digest() * 100_000
    name = f"{group}/app"
    pusher.blob(name, content)
    with client.blob(name, digest(content)) as pieces:
        read = list(pieces)
    assert len(read) > 1
    assert b"".join(read) == content


def test_a_deletion_takes_all_tags_of_the_digest_and_leaves_an_emptied_repository(
    client: Registry, pusher: Pusher, group: str
) -> None:
    name = f"{group}/app"
    pusher.image(name, "1.0", (BASE, ONE))
    pusher.image(name, "latest", (BASE, ONE))
    client.delete(name, client.digest(name, "1.0"))
    assert client.tags(name) == []
    assert name in client.repositories()
    said: Json = pusher.session.get(f"{pusher.url}/v2/{name}/tags/list", timeout=10).json()
    assert said["tags"] is None
    with pytest.raises(ManifestUnknown):
        client.digest(name, "latest")


def test_an_image_that_never_had_a_tag_is_deleted_as_any_other(client: Registry, pusher: Pusher, group: str) -> None:
    """Its repository has no tags at all, and the registry says that it knows no such repository."""
    name = f"{group}/by-digest"
    pushed = pusher.image(name, None, (BASE, ONE))["digest"]
    with pytest.raises(RepositoryUnknown):
        client.tags(name)
    assert client.tags_of(name, pushed) == client.indexes_of(name, pushed) == []
    client.delete(name, pushed)
    with pytest.raises(ManifestUnknown):
        client.digest(name, pushed)


def test_a_deleted_image_breaks_the_index_that_lists_it(client: Registry, pusher: Pusher, group: str) -> None:
    name = f"{group}/app"
    members = [pusher.image(name, None, (ONE,)), pusher.image(name, None, (TWO,), architecture="arm64")]
    pusher.index(name, "all", members)
    assert tags_table(survey(client, [name]))["problem"].isna().all()
    assert len(client.members(client.manifest(name, "all"))) == 2
    pusher.session.delete(f"{pusher.url}/v2/{name}/manifests/{members[1]['digest']}", timeout=10)  # by somebody else
    assert [one.digest for one in client.members(client.manifest(name, "all"))] == [members[0]["digest"]]
    row = tags_table(survey(client, [name])).iloc[0]
    assert row["tag"] == "all"
    assert members[1]["digest"] in row["problem"]
    assert "it is not there" in row["problem"]
    assert row["platforms"] == "linux/amd64, linux/arm64"


def test_a_tag_is_put_anew_on_the_same_bytes(client: Registry, pusher: Pusher, group: str) -> None:
    name = f"{group}/app"
    old, new = pusher.image(name, "1.0", (BASE, ONE)), pusher.image(name, "2.0", (BASE, TWO))
    assert client.retag(name, "1.0", "stable") == old["digest"]
    assert client.retag(name, new["digest"], "stable") == new["digest"]
    assert client.tags_of(name, new["digest"]) == ["2.0", "stable"]


def test_an_index_is_promoted_to_another_repository_with_all_its_images(
    client: Registry, pusher: Pusher, group: str
) -> None:
    name, target = f"{group}/test/app", f"{group}/production/app"
    members = [pusher.image(name, None, (BASE, ONE)), pusher.image(name, None, (BASE, TWO), architecture="arm64")]
    pushed = pusher.index(name, "all", members)
    assert client.retag(name, "all", "1.0", to=target) == pushed["digest"]
    pusher.pushed += [(target, one["digest"]) for one in (*members, pushed)]
    promoted = client.manifest(target, "1.0")
    assert promoted.raw == client.manifest(name, "all").raw
    for member in client.members(promoted):
        for blob in member.blobs:
            with client.blob(target, blob.digest) as pieces:
                assert sum(map(len, pieces)) == blob.size


def test_a_mount_that_is_refused_is_an_error_and_leaves_no_upload(
    client: Registry, pusher: Pusher, group: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The registry is asked to mount from a repository that does not hold the blobs, as if they had gone meanwhile."""
    name, target = f"{group}/app", f"{group}/other"
    pusher.image(name, "1.0", (ONE,))
    lacking = replace(client.manifest(name, "1.0"), repository=f"{group}/nobody")
    monkeypatch.setattr(client, "manifest", lambda repository, reference: lacking)
    asked: list[tuple[str, str]] = []
    request = client.endpoint.request

    def noted(method: str, path: str, **content: object) -> object:
        asked.append((method, path.partition("?")[0]))
        return request(method, path, **content)  # type: ignore[arg-type]

    monkeypatch.setattr(client.endpoint, "request", noted)
    with pytest.raises(MountRefused, match="would have sha256:"):
        client.retag(name, "1.0", "1.0", to=target)
    started, ended = asked
    assert started == ("POST", f"/v2/{target}/blobs/uploads/")
    assert ended[0] == "DELETE"
    assert requests.get(f"{pusher.url}{ended[1]}", timeout=10).status_code == 404
    with pytest.raises(RepositoryUnknown):
        client.tags(target)


def test_tables_of_what_repositories_share(client: Registry, pusher: Pusher, group: str) -> None:
    app, other, emptied = (f"{group}/{name}" for name in ("app", "other", "zzz"))
    pusher.image(app, "1.0", (BASE, ONE), created="2016-01-01T00:00:00Z")
    pusher.image(app, "1.0.0", (BASE, ONE), created="2016-01-01T00:00:00Z")
    pusher.image(app, "2.0", (BASE, TWO), created="2016-02-01T00:00:00Z")
    pusher.image(other, "1.0", (BASE,), created="2016-03-01T00:00:00Z")
    gone = pusher.image(emptied, "1.0", (TWO,))
    client.delete(emptied, gone["digest"])

    found = survey(client, [app, other, emptied, f"{group}/nobody"])
    repositories = repositories_table(found).set_index("repository")
    assert repositories["tags"].to_dict() == {app: 3, other: 1, emptied: 0, f"{group}/nobody": 0}
    configs = {one: client.manifest(app, one).config for one in ("1.0", "2.0")}
    stored = sum(config.size or 0 for config in configs.values() if config) + sum(map(len, (BASE, ONE, TWO)))
    assert repositories.loc[app, "size"] == stored
    assert repositories["newest"].dt.strftime("%Y-%m-%d").tolist()[:2] == ["2016-02-01", "2016-03-01"]

    tags = tags_table(found).set_index(["repository", "tag"])
    assert tags.loc[(app, "1.0"), "shared_with"] == "1.0.0"
    assert tags["shared_with"].isna().tolist() == [False, False, True, True]
    assert tags["layers"].tolist() == [2, 2, 2, 1]
    assert tags["problem"].isna().all()

    layers = layers_table(found).set_index("digest")
    shared = layers.loc[digest(BASE)]
    assert (shared["size"], shared["images"], shared["tags"], shared["repositories"]) == (len(BASE), 3, 4, 2)
    assert layers.loc[digest(ONE), "used_by"] == f"{app}:1.0, {app}:1.0.0"
    assert layers.index[0] == digest(BASE)  # the biggest


def test_a_second_survey_asks_for_no_manifest_again(
    client: Registry, pusher: Pusher, group: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    app, other = f"{group}/app", f"{group}/other"
    pushed = pusher.image(app, "1.0", (BASE, ONE))
    pusher.index(app, "all", [pushed])
    pusher.image(other, "1.0", (BASE, ONE))
    asked: list[str] = []
    request, download = client.endpoint.request, client.endpoint.download

    def noted(method: str, path: str, **content: object) -> object:
        asked.append(f"{method} {path.rpartition('/')[0].rpartition('/')[2]}")
        return request(method, path, **content)  # type: ignore[arg-type]

    def noted_download(path: str, **content: object) -> object:
        asked.append("GET blobs")
        return download(path, **content)  # type: ignore[arg-type]

    monkeypatch.setattr(client.endpoint, "request", noted)
    monkeypatch.setattr(client.endpoint, "download", noted_download)
    first = survey(client, [app, other])
    assert (asked.count("GET manifests"), asked.count("GET blobs"), asked.count("HEAD manifests")) == (2, 1, 4)
    asked.clear()
    again = survey(client, [app, other])
    assert sorted(set(asked)) == ["GET tags", "HEAD manifests"]
    assert again.tagged == first.tagged
