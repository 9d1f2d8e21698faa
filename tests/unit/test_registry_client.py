"""The client against answers of a real registry 2.8.2, and against what older, newer and broken ones would say."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from loopback import Loopback, Piece, Request, answer
from requests.structures import CaseInsensitiveDict

from runbook.errors import (
    AccessDenied,
    BlobUnknown,
    CertificateRefused,
    CredentialsRefused,
    DeleteDisabled,
    DigestInvalid,
    DigestMismatch,
    ManifestUnknown,
    MountRefused,
    NameInvalid,
    NotReady,
    RegistryReadOnly,
    RegistryTooOld,
    RepositoryUnknown,
    RequestMalformed,
    ServiceError,
    TlsMismatch,
    TooManyRequests,
    UnexpectedAnswer,
)
from runbook.secrets import MASK, redact
from runbook.services.http import Answer, Timeouts
from runbook.services.registry import Registry
from runbook.services.registry.manifests import (
    DOCKER_MANIFEST,
    KINDS,
    SCHEMA1_SIGNED,
    ImageConfig,
    Manifest,
    manifest_digest,
)
from runbook.services.registry.names import digest_of, is_digest, repository_name, tag_name
from runbook.site import Site

RECORDED: Mapping[str, Any] = json.loads(
    (Path(__file__).parents[1] / "payloads/registry-2.8.2/answers.json").read_text(encoding="utf-8")
)
APP, OCI, NOWHERE = "library/app", "library/oci", "sha256:" + "0" * 64
Reply = Callable[[Request], Piece]
on_a_busy_machine = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


def recorded(name: str, *, body: bytes | None = None, **headers: str | None) -> bytes:
    """A recorded answer, byte for byte, or with another body or other headers (None: without it)."""
    said = RECORDED[name]
    content = said["body"].encode() if body is None else body
    changed = {key.replace("_", "-"): value for key, value in headers.items()}
    sent = {**said["headers"], **changed, "Content-Length": str(len(content)), "Connection": "close"}
    if RECORDED[name]["request"].startswith("HEAD"):
        sent["Content-Length"] = said["headers"].get("Content-Length", "0")
    lines = [f"{key}: {value}" for key, value in sent.items() if value is not None]
    return "\r\n".join([f"HTTP/1.1 {said['status']} Said", *lines]).encode() + b"\r\n\r\n" + content


def content(name: str) -> bytes:
    """The body of a recorded answer."""
    return str(RECORDED[name]["body"]).encode()


def named_digest(name: str) -> str:
    """The digest that a recorded answer names."""
    return str(RECORDED[name]["headers"]["Docker-Content-Digest"])


@contextlib.contextmanager
def registry(replies: Reply | Mapping[str, bytes]) -> Iterator[tuple[Registry, Loopback]]:
    """A client, and the server that it asks, which answers by method and target, the query's parts sorted."""

    def by_target(request: Request) -> Piece:
        assert not callable(replies)
        path, mark, query = request.target.partition("?")
        target = path + mark + "&".join(sorted(query.split("&")))
        return replies.get(f"{request.method} {target}") or recorded("page_not_found")

    reply = replies if callable(replies) else by_target
    with (
        Loopback(lambda request: [reply(request)]) as server,
        Registry(server.url, timeouts=Timeouts(read=2, whole=5)) as client,
    ):
        yield client, server


def asked(server: Loopback) -> list[str]:
    return [f"{request.method} {request.target}" for request in server.requests]


# what it reads


def test_the_recorded_answers_are_read() -> None:
    first_of_each = {said["request"]: recorded(name) for name, said in reversed(RECORDED.items())}
    with registry(first_of_each) as (client, _):
        client.ping()
        assert client.page(3) == (["library/app", "library/b", "library/c"], "library/c")
        assert client.page(3, "library/c") == (["library/d", "library/oci"], None)
        assert list(client.repositories(3)) == [f"library/{name}" for name in ("app", "b", "c", "d", "oci")]
        assert client.tags(APP) == ["1.0", "all"]
        assert client.tags("library/d") == []  # tags: null
        image, index = client.manifest(APP, "1.0"), client.manifest(APP, "all")
        assert (image.kind, index.kind) == ("Docker image", "Docker manifest list")
        assert client.digest(APP, "1.0") == image.digest == index.manifests[0].digest
        assert image.total == sum(blob.size or 0 for blob in image.blobs)
        assert index.total is None
        assert [client.manifest(OCI, tag).kind for tag in ("image", "index")] == ["OCI image", "OCI index"]
        config = client.image(APP, image)
        assert (config.os, config.architecture, len(config.history)) == ("linux", "amd64", 3)
        assert "PASSWORD" not in repr(config)
        assert client.image(APP, index) == config
        assert not client.is_old


def test_schema_1_is_read_as_what_it_is() -> None:
    with registry({"GET /v2/library/app/manifests/1.0": recorded("schema1")}) as (client, _):
        found = client.manifest(APP, "1.0")
        assert (found.kind, found.is_schema1, found.total) == ("Docker schema 1", True, None)
        assert found.digest == named_digest("schema1") != digest_of(found.raw)
        assert len(client.image(APP, found).history) == len(found.layers) == 3
        with pytest.raises(RegistryTooOld, match="schema 1"):
            client.retag(APP, "1.0", "2.0")


def test_a_changed_schema_1_is_not_taken() -> None:
    damaged = content("schema1").replace(b'"amd64"', b'"arm64"', 1)
    with (
        registry({"GET /v2/library/app/manifests/1.0": recorded("schema1", body=damaged)}) as (client, _),
        pytest.raises(DigestMismatch),
    ):
        client.manifest(APP, "1.0")


def like_2_3(request: Request) -> Piece:
    """As 2.3.0: it compares each line of Accept as a whole, and translates to schema 1 otherwise (domain-facts 3)."""
    lines = [line.partition(":")[2].strip() for line in request.lines if line.lower().startswith("accept:")]
    if request.method == "HEAD":
        return answer(405, "Method not allowed\n", Allow="GET, PUT, DELETE")
    return recorded("docker_manifest" if DOCKER_MANIFEST in lines else "schema1")


def test_2_3_is_asked_so_that_it_understands() -> None:
    with registry(like_2_3) as (client, server):
        assert client.manifest(APP, "1.0").media_type == DOCKER_MANIFEST
        assert client.digest(APP, "1.0") == named_digest("docker_manifest")
    assert [request.method for request in server.requests] == ["GET", "HEAD", "GET"]


def test_a_head_that_names_no_digest_is_followed_by_the_manifest() -> None:
    answers = {
        "HEAD /v2/library/app/manifests/1.0": recorded("head", Docker_Content_Digest=None),
        "GET /v2/library/app/manifests/1.0": recorded("docker_manifest", Docker_Content_Digest=None),
    }
    with registry(answers) as (client, _):
        assert client.digest(APP, "1.0") == named_digest("docker_manifest")


def test_a_registry_before_2_8_2_is_old() -> None:
    with registry(lambda request: recorded("ping" if request.target == "/v2/" else "catalog_last")) as (client, server):
        assert client.is_old
        assert client.is_old
    assert asked(server) == ["GET /v2/", "GET /v2/_catalog?n=1001"]


# pages


def linked(*names: str, link: str | None, key: str = "repositories") -> bytes:
    headers = {} if link is None else {"Link": f'<{link}>; rel="next"'}
    return answer(200, {key: list(names)}, **headers)


def test_tags_come_in_pages_from_distribution_3() -> None:
    answers = {
        "GET /v2/a/tags/list": linked("1", "2", link="/v2/a/tags/list?last=2&n=2", key="tags"),
        "GET /v2/a/tags/list?last=2&n=2": linked("3", link=None, key="tags"),
    }
    with registry(answers) as (client, server):
        assert client.tags("a") == ["1", "2", "3"]
    assert len(server.requests) == 2


def test_a_link_may_be_a_whole_address_of_the_registry_itself() -> None:
    def reply(request: Request) -> Piece:
        if "last" in request.target:
            return linked("3", link=None, key="tags")
        return linked("1", link=f"http://{request.headers['host']}/v2/a/tags/list?last=1", key="tags")

    with registry(reply) as (client, _):
        assert client.tags("a") == ["1", "3"]


@pytest.mark.parametrize("link", ["http://192.0.2.1/v2/_catalog?last=b", "//192.0.2.1/v2/_catalog?last=b"])
def test_a_link_to_another_host_is_not_followed(link: str) -> None:
    with registry(lambda _: linked("a", "b", link=link)) as (client, server):
        with pytest.raises(UnexpectedAnswer, match="another place"):
            list(client.repositories())
        with pytest.raises(UnexpectedAnswer, match="another place"):
            client.tags("a")
    assert len(server.requests) == 2


def test_pages_that_go_in_circles_end() -> None:
    def reply(request: Request) -> Piece:
        return linked("a", link=f"/v2/_catalog?last={'a' if 'last=b' in request.target else 'b'}")

    with registry(reply) as (client, server):
        with pytest.raises(UnexpectedAnswer, match="lead back"):
            list(client.repositories())
        assert len(server.requests) == 3
    with registry(lambda _: linked("a", link="/v2/_catalog?last=a")) as (client, _):
        assert client.page(1) == (["a"], "a")
        with pytest.raises(UnexpectedAnswer, match="lead back"):
            client.page(1, "a")
    with (
        registry(lambda request: linked("a", link=request.target, key="tags")) as (client, _),
        pytest.raises(UnexpectedAnswer, match="lead back"),
    ):
        client.tags("a")


def test_a_link_without_a_last_goes_on_after_the_last_name() -> None:
    with registry(lambda _: linked("a", "b", link="/v2/_catalog?page=2")) as (client, _):
        assert client.page(2) == (["a", "b"], "b")


# refusals

CALLS: Mapping[str, Callable[[Registry], object]] = {
    "tags": lambda client: client.tags(APP),
    "manifest": lambda client: client.manifest(APP, "1.0"),
    "digest": lambda client: client.digest(APP, "1.0"),
    "delete": lambda client: client.delete(APP, NOWHERE),
    "ping": lambda client: client.ping(),
    "page": lambda client: client.page(100),
    "blob": lambda client: client.blob(APP, NOWHERE).__enter__(),
}


@pytest.mark.parametrize(
    ("call", "said", "error", "shown"),
    [
        ("tags", recorded("tags_unknown"), RepositoryUnknown, "NAME_UNKNOWN: repository name not known to registry"),
        ("manifest", recorded("manifest_unknown"), ManifestUnknown, "MANIFEST_UNKNOWN: manifest unknown"),
        ("manifest", recorded("oci_not_accepted"), ManifestUnknown, "accept header does not support OCI manifests"),
        ("digest", recorded("head_unknown"), ManifestUnknown, "HEAD /v2/library/app/manifests/1.0: it is not there"),
        ("blob", recorded("blob_unknown"), BlobUnknown, "BLOB_UNKNOWN"),
        ("delete", recorded("delete_unknown"), ManifestUnknown, "MANIFEST_UNKNOWN"),
        ("delete", recorded("delete_by_tag"), DigestInvalid, "DIGEST_INVALID"),
        ("delete", recorded("delete_disabled"), DeleteDisabled, "UNSUPPORTED"),
        ("delete", recorded("read_only"), RegistryReadOnly, "405 Method not allowed"),
        ("page", recorded("catalog_too_big"), RequestMalformed, "PAGINATION_NUMBER_INVALID: invalid number of results"),
        ("ping", recorded("http_to_https"), TlsMismatch, "it speaks TLS, and was asked in plain HTTP"),
        ("ping", b"\x15\x03\x01\x00\x02\x02\x16", TlsMismatch, "it speaks TLS"),  # Go before 1.12, as in 2.3
        ("ping", recorded("basic_wanted"), CredentialsRefused, "wants to know who asks (basic)"),
        ("tags", answer(400, {"errors": [{"code": "NAME_INVALID"}]}), NameInvalid, "NAME_INVALID"),
        ("tags", answer(400, {"errors": [{"code": "TAG_INVALID", "message": "bad"}]}), NameInvalid, "TAG_INVALID: bad"),
        ("tags", answer(403, {"errors": [{"code": "DENIED", "message": "no"}]}), AccessDenied, "DENIED: no"),
        ("tags", answer(403, "<html>no</html>", kind="text/html"), AccessDenied, "403 no"),
        ("tags", answer(429, {"errors": [{"code": "TOOMANYREQUESTS"}]}), TooManyRequests, "TOOMANYREQUESTS"),
        ("tags", answer(429, "slow down"), TooManyRequests, "429 slow down"),
        ("tags", answer(503, "starting"), NotReady, "starting"),
        ("tags", answer(500, {"errors": [{"code": "UNKNOWN", "message": "disk"}]}), UnexpectedAnswer, "disk"),
        ("tags", answer(404, "<html>nginx</html>", kind="text/html"), UnexpectedAnswer, "404"),
        ("tags", answer(200, "<html>nginx</html>", kind="text/html"), UnexpectedAnswer, "something other than JSON"),
        ("tags", answer(200, ["a"]), UnexpectedAnswer, "does not answer as a registry does"),
        ("tags", answer(200, {"tags": [1]}), UnexpectedAnswer, "does not answer as a registry does"),
        ("tags", answer(400, {"errors": "odd"}), UnexpectedAnswer, "400"),
        ("ping", answer(200, "<html>welcome</html>", kind="text/html"), UnexpectedAnswer, "does not answer as a"),
    ],
)
def test_a_refusal_has_a_name_and_a_remedy(call: str, said: bytes, error: type[ServiceError], shown: str) -> None:
    with registry(lambda _: said) as (client, server), pytest.raises(error) as caught:
        CALLS[call](client)
    assert type(caught.value) is error
    assert shown in caught.value.message
    assert server.address in caught.value.message
    assert caught.value.remedy


def test_a_limit_of_requests_says_how_long_to_wait() -> None:
    with (
        registry(lambda _: answer(429, "slow down", Retry_After="7")) as (client, _),
        pytest.raises(TooManyRequests) as caught,
    ):
        client.ping()
    assert caught.value.seconds == 7


@pytest.mark.parametrize("call", ["ping", "tags"])
def test_a_registry_of_version_1_is_named(call: str) -> None:
    """As registry 0.9.1 answers: `/v1/_ping` with true, everything of version 2 with 404 (domain-facts 2)."""

    def reply(request: Request) -> Piece:
        if request.target == "/v1/_ping":
            return answer(200, "true", kind="application/json", X_Docker_Registry_Version="0.9.1")
        return answer(404, "<title>404 Not Found</title>", kind="text/html")

    with registry(reply) as (client, _), pytest.raises(RegistryTooOld, match="version 1 of the API only") as caught:
        CALLS[call](client)
    assert "explicit tag" in str(caught.value.remedy)


@pytest.mark.parametrize(
    "call",
    [
        lambda client: client.tags("Library/App"),
        lambda client: client.tags("10.142.233.154:8600/app"),
        lambda client: client.manifest(APP, "-x"),
        lambda client: client.manifest(APP, "sha256:12"),
        lambda client: client.delete(APP, "1.0"),
        lambda client: client.delete("../app", NOWHERE),
        lambda client: client.retag(APP, "1.0", "a/b"),
        lambda client: client.retag(APP, "1.0", "1.0", to="a//b"),
        lambda client: client.tags_of(APP, "1.0"),
    ],
)
def test_what_is_misspelt_is_not_asked_for(call: Callable[[Registry], object]) -> None:
    with registry({}) as (client, server), pytest.raises((NameInvalid, DigestInvalid)) as caught:
        call(client)
    assert server.requests == []
    assert caught.value.remedy


# content that is not what it should be


def test_a_damaged_manifest_is_not_taken() -> None:
    damaged = recorded(
        "docker_manifest", body=content("docker_manifest").replace(b'"schemaVersion": 2', b'"schemaVersion": 2 ')
    )
    with registry(lambda _: damaged) as (client, _), pytest.raises(DigestMismatch, match="not sha256:1f317d") as caught:
        client.manifest(APP, "1.0")
    assert "push the image again" in str(caught.value.remedy)


def test_another_manifest_than_the_one_of_the_digest_is_not_taken() -> None:
    with registry(lambda _: recorded("docker_member")) as (client, _), pytest.raises(DigestMismatch):
        client.manifest(APP, named_digest("docker_manifest"))
    with (
        registry(lambda _: recorded("docker_member", Docker_Content_Digest=None)) as (client, _),
        pytest.raises(DigestMismatch),
    ):
        client.manifest(APP, named_digest("docker_manifest"))


def test_a_digest_of_another_algorithm_is_verified_with_it() -> None:
    digest = digest_of(content("docker_manifest"), "sha512")
    with registry(lambda _: recorded("docker_manifest", Docker_Content_Digest=None)) as (client, _):
        assert client.manifest(APP, digest).digest == digest


def test_a_damaged_blob_is_not_taken() -> None:
    answers = {RECORDED["config"]["request"]: recorded("config", body=content("config") + b" ")}
    answers["GET /v2/library/app/manifests/1.0"] = recorded("docker_manifest")
    with registry(answers) as (client, _):
        manifest = client.manifest(APP, "1.0")
        with pytest.raises(DigestMismatch):
            client.image(APP, manifest)


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"not JSON", DOCKER_MANIFEST),
        (b"[]", DOCKER_MANIFEST),
        (b"{}", "application/json"),
        (b'{"schemaVersion": 2}', DOCKER_MANIFEST),
        (b'{"schemaVersion": 2, "config": {}, "layers": []}', DOCKER_MANIFEST),
        (b'{"schemaVersion": 2, "config": 1, "layers": 2}', DOCKER_MANIFEST),
        (b'{"schemaVersion": 1, "fsLayers": [{}]}', "application/json"),
        (b'{"schemaVersion": 1, "signatures": []}', "application/json"),
        (content("docker_manifest"), "application/vnd.oci.image.index.v1+json"),
    ],
)
def test_what_is_no_manifest_is_named(body: bytes, kind: str) -> None:
    with (
        registry(lambda _: answer(200, body, kind=kind)) as (client, _),
        pytest.raises(UnexpectedAnswer, match="not a manifest that can be read"),
    ):
        client.manifest(APP, "1.0")


@pytest.mark.parametrize("name", ["docker_manifest", "docker_list", "oci_manifest", "oci_index", "schema1"])
def test_a_manifest_that_comes_without_its_media_type_is_known_by_what_it_holds(name: str) -> None:
    with registry(lambda _: recorded(name, Content_Type="text/plain")) as (client, _):
        assert client.manifest(APP, "x").media_type == RECORDED[name]["headers"]["Content-Type"]


# what it changes


def test_a_tag_is_put_with_the_bytes_and_the_type_that_the_manifest_has() -> None:
    answers = {
        "GET /v2/library/app/manifests/1.0": recorded("docker_manifest"),
        "PUT /v2/library/app/manifests/2.0": recorded("put"),
    }
    with registry(answers) as (client, server):
        assert client.retag(APP, "1.0", "2.0") == named_digest("docker_manifest")
    put = server.requests[-1]
    assert (put.body, put.headers["content-type"]) == (content("docker_manifest"), DOCKER_MANIFEST)


def test_a_registry_that_calls_what_it_took_by_another_name_is_not_trusted() -> None:
    answers = {
        "GET /v2/library/app/manifests/1.0": recorded("docker_manifest"),
        "PUT /v2/library/app/manifests/2.0": recorded("put", Docker_Content_Digest=NOWHERE),
    }
    with registry(answers) as (client, _), pytest.raises(DigestMismatch, match=r"took sha256:.* and calls it sha256:0"):
        client.retag(APP, "1.0", "2.0")


def test_a_refused_mount_puts_nothing_and_ends_the_upload() -> None:
    def reply(request: Request) -> Piece:
        match request.method:
            case "GET":
                return recorded("docker_manifest")
            case "POST":
                location = f"http://{request.headers['host']}/v2/library/new/blobs/uploads/uuid?_state=x"
                return recorded("mount_refused", Location=location)
            case _:
                return recorded("upload_cancelled")

    with registry(reply) as (client, server), pytest.raises(MountRefused) as caught:
        client.retag(APP, "1.0", "1.0", to="library/new")
    assert [request.method for request in server.requests] == ["GET", "POST", "DELETE"]
    assert server.requests[-1].target == "/v2/library/new/blobs/uploads/uuid?_state=x"
    assert "push it" in str(caught.value.remedy)


def test_a_refused_mount_tells_of_an_upload_that_it_may_not_end() -> None:
    """To end one takes the right to delete, which who may push need not have."""

    def reply(request: Request) -> Piece:
        match request.method:
            case "GET":
                return recorded("docker_manifest")
            case "POST":
                return recorded("mount_refused", Location="/v2/library/new/blobs/uploads/uuid")
            case _:
                return recorded("token_lacks_scope")

    with registry(reply) as (client, _), pytest.raises(MountRefused, match="stays until it is purged"):
        client.retag(APP, "1.0", "1.0", to="library/new")


def test_foreign_layers_are_not_mounted() -> None:
    manifest = json.loads(content("docker_manifest"))
    manifest["layers"][0]["urls"] = ["https://example.com/layer"]
    raw = json.dumps(manifest).encode()
    mounted: list[str] = []

    def reply(request: Request) -> Piece:
        if request.method == "GET":
            return answer(200, raw, kind=DOCKER_MANIFEST)
        if request.method == "POST":
            mounted.append(request.target)
            return recorded("mounted")
        return recorded("put", Docker_Content_Digest=digest_of(raw))

    with registry(reply) as (client, _):
        client.retag(APP, "1.0", "1.0", to="library/new")
    assert len(mounted) == 2
    assert all(manifest["layers"][0]["digest"] not in target.replace("%3A", ":") for target in mounted)


def test_a_deletion_that_is_not_202_is_not_taken_for_one() -> None:
    with registry(lambda _: answer(200, {})) as (client, _), pytest.raises(UnexpectedAnswer, match="answered 200"):
        client.delete(APP, NOWHERE)


# the registry of a site


def site_of(folder: Path, registry: str) -> Site:
    (folder / "password").write_text("correct horse battery")
    (folder / "password").chmod(0o600)
    (folder / "ca.crt").write_text("PEM")
    hosts = "hosts:\n  - {name: n1, address: 198.51.100.11, roles: [docker, registry]}"
    return Site.parse(f"name: test\n{hosts}\nregistry: {{{registry}}}\n", folder / "site.yml")


def test_an_insecure_site_is_asked_in_plain_http(tmp_path: Path) -> None:
    with Registry.of(site_of(tmp_path, "port: 8601")) as client:
        assert client.endpoint.url == "http://198.51.100.11:8601"
        assert client.address == "198.51.100.11:8601"


TLS = "security: tls, tls: {certificate: c.pem, key: k.pem, ca: ca.crt}"


def test_a_site_with_tls_is_asked_as_its_user_by_its_ca(tmp_path: Path) -> None:
    site = site_of(tmp_path, f'{TLS}, user: operator, password: "file:password"')
    with Registry.of(site) as client:
        assert client.endpoint.url == "https://198.51.100.11:8600"
        assert client.endpoint._session.verify == str(tmp_path / "ca.crt")
        assert client._auth._pair(client.endpoint.url) == ("operator", "correct horse battery")
        assert "horse" not in repr(vars(client)) + repr(vars(client._auth))
    assert redact("correct horse battery") == MASK


def test_a_ca_that_is_not_there_is_named(tmp_path: Path) -> None:
    site = site_of(tmp_path, TLS)
    (tmp_path / "ca.crt").unlink()
    with pytest.raises(CertificateRefused, match=r"ca\.crt is not a file"):
        Registry.of(site)


def test_a_site_without_a_registry_has_none_to_ask() -> None:
    text = "name: test\nhosts:\n  - {name: n1, address: 198.51.100.11, roles: [docker]}\n"
    with pytest.raises(ValueError, match="no host of the site has the role registry"):
        Registry.of(Site.parse(text, Path("site.yml")))


# many at once


def test_at_most_eight_requests_are_under_way_and_the_order_is_kept() -> None:
    at_work, most, lock = 0, 0, threading.Lock()
    all_there = threading.Barrier(8)

    def work(number: int) -> int:
        nonlocal at_work, most
        with lock:
            at_work += 1
            most = max(most, at_work)
        all_there.wait(timeout=20)
        with lock:
            at_work -= 1
        return number * 2

    with registry({}) as (client, _):
        assert client.each(work, range(24)) == [number * 2 for number in range(24)]
    assert most == 8


def test_the_first_error_ends_what_has_not_begun() -> None:
    done: list[int] = []
    hold = threading.Event()

    def work(number: int) -> None:
        if number == 0:
            raise NotReady("no")
        hold.wait(timeout=20)
        done.append(number)

    with registry({}) as (client, _):
        threading.Timer(2.0, hold.set).start()  # the error comes long before, on a busy machine too
        with pytest.raises(NotReady):
            client.each(work, range(1000))
    assert len(done) < 20


# names and digests


@on_a_busy_machine
@given(st.binary(), st.sampled_from(["sha256", "sha384", "sha512"]))
def test_the_digest_of_anything_is_a_digest_and_no_other_text_is(data: bytes, algorithm: str) -> None:
    digest = digest_of(data, algorithm)
    assert is_digest(digest)
    for other in (digest.upper(), digest[:-1], digest + "0", digest.replace(":", "-"), f" {digest}", f"{digest}\n"):
        assert not is_digest(other)


@on_a_busy_machine
@given(st.from_regex(r"[a-z0-9]+([._-][a-z0-9]+)*(/[a-z0-9]+)*", fullmatch=True).filter(lambda name: len(name) < 256))
def test_names_that_fit_are_taken_as_they_are(name: str) -> None:
    assert repository_name(name) == name


@on_a_busy_machine
@given(st.text())
def test_names_either_fit_a_path_or_are_refused(text: str) -> None:
    for judge in (repository_name, tag_name):
        with contextlib.suppress(NameInvalid):
            name = judge(text)
            assert name == text
            assert not set(name) & set("?#%&:@ \\\n")
            assert ".." not in name.split("/")


@on_a_busy_machine
@given(st.binary(max_size=200), st.sampled_from([*KINDS, "application/json", ""]))
def test_any_bytes_are_a_manifest_or_refused(raw: bytes, media_type: str) -> None:
    with contextlib.suppress(ValueError):
        Manifest.parse(APP, raw, media_type, NOWHERE)
    with contextlib.suppress(ValueError):
        manifest_digest(raw, SCHEMA1_SIGNED)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "schemaVersion",
                    "mediaType",
                    "config",
                    "layers",
                    "manifests",
                    "fsLayers",
                    "digest",
                    "size",
                    "platform",
                    "urls",
                    "signatures",
                    "protected",
                    "history",
                    "v1Compatibility",
                ]
            ),
            inner,
            max_size=6,
        )
    ),
    max_leaves=12,
)


@on_a_busy_machine
@given(JSON, st.sampled_from([*KINDS, ""]))
def test_any_json_is_a_manifest_or_refused(said: object, media_type: str) -> None:
    raw = json.dumps(said).encode()
    with contextlib.suppress(ValueError):
        Manifest.parse(APP, raw, media_type, NOWHERE)
    with contextlib.suppress(ValueError):
        manifest_digest(raw, SCHEMA1_SIGNED)
    with contextlib.suppress(ValueError):
        ImageConfig.parse(raw)
    with contextlib.suppress(ValueError):
        ImageConfig.of_schema1(Manifest(APP, SCHEMA1_SIGNED, NOWHERE, raw))


@on_a_busy_machine
@given(st.text(alphabet=st.characters(min_codepoint=32, max_codepoint=255, exclude_characters="\x7f")))
def test_any_link_header_is_followed_within_the_registry_or_refused(link: str) -> None:
    client = Registry("http://registry:5000")
    said = Answer("http://registry:5000/v2/_catalog", 200, CaseInsensitiveDict({"Link": link}), b"{}")
    try:
        path = client._next(said)
    except UnexpectedAnswer:
        return
    assert path is None or path.startswith("/") or path == ""
