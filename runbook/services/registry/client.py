"""A client of a private registry that speaks Docker's HTTP API V2: distribution 2.0 to 2.8 and 3.

What it says of content is verified: a manifest and a blob have the digest that was asked for and that the registry
names, or the client raises DigestMismatch. A tag that names an index stays one: it is asked for in a way that no
registry answers with the manifest of some platform instead, whose digest would be another's to delete.

What differs between the versions, and is met here:

- 2.3 compares each line of Accept with the types that it knows; `Endpoint` sends a line for each type. Without a type
  that it has, it translates to schema 1, and 2.8 answers 404 (OCI) or with the manifest for linux/amd64 (lists).
- Where HEAD of a manifest is refused, GET tells its digest.
- Until 2.8.1 a page of the catalog may be of any size, later ones refuse more than their maximum, usually 1000.
  Only 3 gives tags in pages.
- Emptied repositories stay in the catalog; their tags are null, or the repository is unknown.

Source: 'Docker Registry HTTP API V2' and `registry/handlers` of distribution; recorded from 2.8.2.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn, Self, TypeVar
from urllib.parse import parse_qs, urlencode, urljoin, urlsplit

from requests.utils import parse_header_links

from runbook.errors import (
    AccessDenied,
    CertificateRefused,
    DigestMismatch,
    ManifestUnknown,
    MountRefused,
    NotFound,
    NotReady,
    RegistryTooOld,
    RepositoryUnknown,
    RequestMalformed,
    ServiceError,
    UnexpectedAnswer,
)
from runbook.secrets import Secret
from runbook.services.http import SUCCESS, Answer, Endpoint, Query, Timeouts
from runbook.services.registry.auth import RegistryAuth
from runbook.services.registry.manifests import ACCEPT, ImageConfig, Manifest, manifest_digest
from runbook.services.registry.names import digest_name, is_digest, reference_name, repository_name, tag_name
from runbook.services.registry.refusals import named
from runbook.site import Site

CONNECTIONS = 8
"""Requests under way at once, where many are needed."""

PAGE = 1000
"""Repositories asked for at once: the most that 2.8.2 gives. Each page costs the registry a walk over all before it."""

_TIMEOUTS = Timeouts(read=30.0, whole=120.0)
"""A page from far back in a big catalog, not yet in the registry's memory, is a walk over its whole disk."""

_LARGEST_CONFIG = 8 << 20  # bytes; Docker's own limit for what it takes as a configuration is 4 MB
_KEPT = 20_000  # manifests and configurations that are remembered

Given = TypeVar("Given")
Item = TypeVar("Item")


@dataclass(frozen=True)
class RegistryFacts:
    """What a registry tells of itself. `limits_pages`: it refuses pages of any size, as 2.8.2 and later do."""

    api: str | None
    limits_pages: bool | None  # None: it does not give its catalog to this user


class Registry:
    """One registry.

    `url`: `http://host:port` or `https://host:port`. `auth`: user and password, shown only once the registry asks.
    `ca`: the certificate, in PEM, that its own must be from. It can be used from several threads.
    """

    def __init__(
        self,
        url: str,
        *,
        auth: tuple[str, Secret] | None = None,
        ca: Path | None = None,
        timeouts: Timeouts | None = None,
    ) -> None:
        if urlsplit(url).username is not None:
            raise ValueError("give user and password as `auth`, not within the URL")
        if ca is not None and not ca.is_file():
            raise CertificateRefused(f"{ca} is not a file, so that {url} cannot be trusted", "put the CA's PEM there")
        verify, timeouts = True if ca is None else str(ca), timeouts or _TIMEOUTS
        self._auth = RegistryAuth(url, auth, verify=verify, timeouts=timeouts)
        self.endpoint = Endpoint(url, name="registry", timeouts=timeouts, auth=self._auth, verify=verify)
        self._facts: RegistryFacts | None = None
        self._lock = threading.Lock()
        self._manifests: dict[str, Manifest] = {}  # by digest, so that what is kept stays true
        self._configs: dict[str, ImageConfig] = {}

    @classmethod
    def of(cls, site: Site, *, timeouts: Timeouts | None = None) -> Registry:
        """The registry of a site, by its `security`, CA, user and password. Raises SecretError, CertificateRefused."""
        address = site.registry_address
        if address is None:
            raise ValueError("no host of the site has the role registry")
        settings = site.registry
        if settings.security == "insecure" or settings.tls is None:
            return cls(f"http://{address}", timeouts=timeouts)
        auth = None
        if settings.user is not None and settings.password is not None:
            auth = settings.user, settings.password.resolve()
        return cls(f"https://{address}", auth=auth, ca=settings.tls.ca, timeouts=timeouts)

    def __repr__(self) -> str:
        return f"Registry({self.endpoint.url!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the connections that are kept open."""
        self.endpoint.close()

    @property
    def address(self) -> str:
        """`host:port`, as images' names carry it."""
        return self.endpoint.address

    # what it is

    @property
    def asks_who(self) -> bool:
        """Whether it has wanted to know so far who asks: one that lets everybody in takes any password."""
        return self._auth.asked

    def ping(self) -> None:
        """Have it say that it speaks API V2, and takes the credentials.

        Raises RegistryTooOld (version 1), CredentialsRefused, TlsMismatch, CertificateRefused, …
        """
        answer = self._get("/v2/")
        if "docker-distribution-api-version" not in answer.headers and not isinstance(_json(answer), dict):
            raise _not_a_registry(answer)

    def facts(self) -> RegistryFacts:
        """What it tells of itself, asked once. No registry tells its version; what it does gives a hint."""
        if self._facts is None:
            api = self._get("/v2/").headers.get("docker-distribution-api-version")
            limits: bool | None = False
            try:
                self._get("/v2/_catalog", params={"n": PAGE + 1})
            except RequestMalformed:
                limits = True
            except AccessDenied:
                limits = None
            self._facts = RegistryFacts(api, limits)
        return self._facts

    @property
    def is_old(self) -> bool:
        """Whether it gives catalog pages of any size, as those before 2.8.2 (2023) do: a request can exhaust their
        memory (CVE-2023-2253)."""
        return self.facts().limits_pages is False

    # what it holds

    def page(self, size: int = 100, after: str | None = None) -> tuple[list[str], str | None]:
        """Up to `size` repositories that follow `after` in the catalog's order, and what to give as `after` for the
        next page: None where this is the last. Emptied repositories are among them.

        A registry gives fewer where `size` is more than it allows.
        """
        params: Query = {} if after is None else {"last": after}
        try:
            answer = self._get("/v2/_catalog", params={"n": size, **params})
        except RequestMalformed:  # more than its catalog.maxentries
            answer = self._get("/v2/_catalog", params=params)
        names = _names(answer, "repositories")
        link = self._next(answer)
        if link is None:
            return names, None
        last = parse_qs(urlsplit(link).query).get("last", names[-1:])
        if not last or last[0] == after:
            raise _circular(answer)
        return names, last[0]

    def repositories(self, size: int = PAGE) -> Iterator[str]:
        """The names of all repositories, asked for by pages as they are needed."""
        after: str | None = None
        seen: set[str] = set()
        while True:
            names, after = self.page(size, after)
            yield from names
            if after is None:
                return
            if after in seen:
                raise _circular(None, f"{self.endpoint.url}/v2/_catalog")
            seen.add(after)

    def tags(self, repository: str) -> list[str]:
        """The tags of a repository, sorted; none where it was emptied. Raises RepositoryUnknown."""
        found: list[str] = []
        for answer in self._pages(f"/v2/{repository_name(repository)}/tags/list"):
            found += _names(answer, "tags")
        return sorted(found)

    def manifest(self, repository: str, reference: str) -> Manifest:
        """The manifest that a tag or a digest names, verified. Raises ManifestUnknown or DigestMismatch."""
        answer = self._get(_manifest_path(repository, reference), headers={"Accept": ACCEPT})
        media_type = answer.headers.get("content-type", "").partition(";")[0].strip()
        told = answer.headers.get("docker-content-digest")
        try:
            manifest = Manifest.parse(repository, answer.body, media_type, "")
            digest = self._verified(answer, manifest, [name for name in (reference, told) if name and ":" in name])
        except ValueError as error:
            raise UnexpectedAnswer(
                f"{answer.url} is not a manifest that can be read: {error}",
                "see with which tool it was pushed; push it again with Docker",
                answer=answer,
            ) from error
        return self._keep(replace(manifest, digest=digest))

    def known(self, repository: str, digest: str) -> Manifest:
        """The manifest of a digest that is known to be there, asked for only the first time: content never changes.

        Whether it is still there, `digest` tells.
        """
        kept = self._manifests.get(digest)
        return self.manifest(repository, digest) if kept is None else replace(kept, repository=repository)

    def digest(self, repository: str, reference: str) -> str:
        """The digest that a tag names, by the registry's word. Raises ManifestUnknown."""
        path = _manifest_path(repository, reference)
        try:
            answer = self._ask("HEAD", path, headers={"Accept": ACCEPT})
        except ServiceError as error:
            if not isinstance(error.answer, Answer) or error.answer.status != 405:
                raise
            return self.manifest(repository, reference).digest
        digest = answer.headers.get("docker-content-digest", "")
        return digest if is_digest(digest) else self.manifest(repository, reference).digest

    def tags_of(self, repository: str, digest: str) -> list[str]:
        """The tags that name a digest: those that go with it where it is deleted."""
        digest_name(digest)
        tags = self._tags_if_any(repository)
        digests = self.each(lambda tag: self._digest_if_any(repository, tag), tags)
        return [tag for tag, found in zip(tags, digests, strict=True) if found == digest]

    def indexes_of(self, repository: str, digest: str) -> list[str]:
        """The tags of indexes that list a digest: their images for some platform break where it is deleted."""
        digest_name(digest)

        def lists(tag: str) -> bool:
            manifest = self._known_if_any(repository, tag)
            return manifest is not None and any(listed.digest == digest for listed in manifest.manifests)

        tags = self._tags_if_any(repository)
        return [tag for tag, listed in zip(tags, self.each(lists, tags), strict=True) if listed]

    def members(self, manifest: Manifest) -> tuple[Manifest, ...]:
        """The manifests of images that a manifest stands for: itself, or those that an index lists.

        Left out is what an index lists and the registry does not hold.
        """
        if not manifest.is_index:
            return (manifest,)
        found = self.each(lambda one: self._known_if_any(manifest.repository, one.digest), manifest.manifests)
        return tuple(member for member in found if member is not None)

    def image(self, repository: str, manifest: Manifest) -> ImageConfig:
        """The configuration of an image: when and how it was made, and for what.

        Of an index it is that of linux/amd64, or else of the first manifest. Raises BlobUnknown where it is lost.
        """
        if manifest.is_index:
            if not manifest.manifests:
                return ImageConfig()
            chosen = next((one for one in manifest.manifests if one.platform == "linux/amd64"), manifest.manifests[0])
            return self.image(repository, self.known(repository, chosen.digest))
        kept = self._configs.get(manifest.digest)
        if kept is not None:
            return kept
        try:
            config = self._config(repository, manifest)
        except ValueError as error:
            raise UnexpectedAnswer(
                f"the configuration of {repository}@{manifest.digest} cannot be read: {error}",
                "see with which tool it was pushed; push it again with Docker",
            ) from error
        with self._lock:
            _bounded(self._configs)[manifest.digest] = config
        return config

    @contextmanager
    def blob(self, repository: str, digest: str) -> Iterator[Iterator[bytes]]:
        """The bytes of a layer or configuration, in pieces as they come; it may be stored elsewhere.

        Raises BlobUnknown, and DigestMismatch after the last piece where they are not what the digest says.
        """
        path = f"/v2/{repository_name(repository)}/blobs/{digest_name(digest)}"
        with ExitStack() as connection:

            def opened() -> Iterator[bytes]:
                return connection.enter_context(self.endpoint.download(path, elsewhere=True))

            yield _hashed(self._authorized("GET", path, opened), digest, f"{self.endpoint.url}{path}")

    def holds(self, repository: str, digest: str) -> bool:
        """Whether a repository holds a blob, by its own word; nothing is transferred."""
        try:
            self._ask("HEAD", f"/v2/{repository_name(repository)}/blobs/{digest_name(digest)}")
        except NotFound:
            return False
        return True

    # what it is told

    def delete(self, repository: str, digest: str) -> None:
        """Delete a manifest, and with it every tag that names it (`tags_of`). Its layers stay until they are collected.

        Indexes that list it stay, and are broken from then on (`indexes_of`). Raises ManifestUnknown, DeleteDisabled,
        RegistryReadOnly.
        """
        self._ask("DELETE", f"/v2/{repository_name(repository)}/manifests/{digest_name(digest)}", expect={202})
        with self._lock:
            self._manifests.pop(digest, None)

    def retag(self, repository: str, reference: str, tag: str, *, to: str | None = None) -> str:
        """Have a tag name a manifest that is there, in the same repository or another one; give its digest.

        The manifest's bytes are put as they are, so that the digest stays. A tag that was there before names the new
        manifest from then on. To another repository blobs are mounted, and nothing is copied: raises MountRefused
        where the registry does not do that.
        """
        target = repository if to is None else repository_name(to)
        tag_name(tag)
        manifest = self.manifest(repository, reference)
        if manifest.is_schema1:
            raise RegistryTooOld(
                f"{repository}:{reference} is of schema 1, which holds its own name and tag",
                "pull it and push it again with Docker 1.10 or later",
            )
        if target != repository:
            self._mount(manifest, target)
        return self._put(manifest, target, tag)

    def _mount(self, manifest: Manifest, target: str) -> None:
        """Have another repository hold all that a manifest points at."""
        for listed in manifest.manifests:
            member = self.known(manifest.repository, listed.digest)
            self._mount(member, target)
            self._put(member, target, member.digest)
        for blob in {blob.digest: blob for blob in manifest.blobs if not blob.urls}.values():
            query = urlencode({"mount": blob.digest, "from": manifest.repository})
            answer = self._ask("POST", f"/v2/{target}/blobs/uploads/?{query}", expect={201, 202})
            if answer.status == 202:
                raise MountRefused(
                    f"{answer.url}: the registry would have {blob.digest} uploaded instead of taking it over"
                    f"{self._cancelled(answer)}",
                    f"see that {manifest.repository} still holds it and that it may be read; "
                    f"else pull the image, tag it for {target} and push it",
                    answer=answer,
                )

    def _cancelled(self, started: Answer) -> str:
        """End an upload that was started only because a mount was refused, and give what is to be said of it."""
        try:
            self._ask("DELETE", self._own_path(started, started.headers.get("location", "")))
        except NotFound:
            return ""  # it has ended already
        except ServiceError as error:  # to end one takes the right to delete
            return f"; the upload that it began stays until it is purged ({error.message})"
        return ""

    def _put(self, manifest: Manifest, target: str, reference: str) -> str:
        headers = {"Content-Type": manifest.media_type}
        path = _manifest_path(target, reference)
        answer = self._ask("PUT", path, data=manifest.raw, headers=headers)
        told = answer.headers.get("docker-content-digest", manifest.digest)
        if told != manifest.digest:
            raise DigestMismatch(
                f"{answer.url} took {manifest.digest} and calls it {told}", "see what stands before it", answer=answer
            )
        return manifest.digest

    # how it is asked

    def each(self, function: Callable[[Item], Given], items: Iterable[Item]) -> list[Given]:
        """What a function of this registry gives for each item, in their order; eight are under way at once.

        The first error ends it.
        """
        pool = ThreadPoolExecutor(CONNECTIONS)
        try:
            return list(pool.map(function, items))
        finally:
            pool.shutdown(cancel_futures=True)

    def _get(self, path: str, *, params: Query | None = None, headers: Mapping[str, str] | None = None) -> Answer:
        return self._ask("GET", path, params=params, headers=headers)

    def _ask(self, method: str, path: str, *, expect: Any = SUCCESS, **content: Any) -> Answer:
        return self._authorized(method, path, lambda: self.endpoint.request(method, path, expect=expect, **content))

    def _authorized(self, method: str, path: str, ask: Callable[[], Given]) -> Given:
        """What asking gives; once more where the registry first wants to know who asks. Errors get their names."""
        since = time.monotonic()
        try:
            return ask()
        except (UnexpectedAnswer, NotReady) as error:
            if not isinstance(error.answer, Answer) or error.answer.status != 401:
                self._refuse(error, method, path)
            refusal = error.answer
        except ServiceError as error:
            self._refuse(error, method, path)
        self._auth.meet(refusal, method, since)
        try:
            return ask()
        except ServiceError as error:
            self._refuse(error, method, path)

    def _refuse(self, error: ServiceError, method: str, path: str) -> NoReturn:
        """Raise the error that a refusal means."""
        if self._is_v1(error):
            raise RegistryTooOld(
                f"{self.endpoint.url} speaks version 1 of the API only (/v1/_ping answers, /v2/ does not)",
                "run registry:2.3.0 or later by its explicit tag; `latest` was version 1 until July 2016 (7.5.3)",
                answer=error.answer,
            ) from error
        meant = named(error, self.endpoint.url, method, path, self._auth.user)
        if meant is error:
            raise error
        raise meant from error

    def _is_v1(self, error: ServiceError) -> bool:
        """Whether what answers with a bare 404 is a registry of version 1."""
        answer = error.answer
        if (
            not isinstance(answer, Answer)
            or answer.status != 404
            or "docker-distribution-api-version" in answer.headers
        ):
            return False
        if _json(answer):  # names its reason
            return False
        ping = self.endpoint.get("/v1/_ping", expect=range(100, 600))
        return ping.status == 200 and _json(ping) is not None

    def _pages(self, path: str) -> Iterator[Answer]:
        """An answer and all that it continues in, by their links."""
        seen = {path}
        answer = self._get(path)
        while True:
            yield answer
            link = self._next(answer)
            if link is None:
                return
            if link in seen:
                raise _circular(answer)
            seen.add(link)
            answer = self._get(link)

    def _next(self, answer: Answer) -> str | None:
        """The path that an answer continues in, with its query; None where it is the last."""
        links = parse_header_links(answer.headers.get("link", ""))
        following = next((link["url"] for link in links if link.get("rel") == "next"), None)
        return None if following is None else self._own_path(answer, following)

    def _own_path(self, answer: Answer, location: str) -> str:
        """The path below this registry's URL that an answer refers to. Raises UnexpectedAnswer for another place."""
        base, target = urlsplit(self.endpoint.url), urlsplit(urljoin(answer.url, location))
        same = (target.scheme, target.netloc) == (base.scheme, base.netloc)
        if not same or not target.path.startswith(f"{base.path}/"):
            raise UnexpectedAnswer(
                f"{answer.url} refers to {location}, which is another place",
                "what stands before the registry must pass on Host and X-Forwarded-Proto",
                answer=answer,
            )
        path = target.path.removeprefix(base.path)
        return f"{path}?{target.query}" if target.query else path

    def _verified(self, answer: Answer, manifest: Manifest, wanted: list[str]) -> str:
        """The digest of a manifest, which must be each that is wanted. Raises ValueError or DigestMismatch."""
        for digest in wanted:
            algorithm = digest_name(digest).partition(":")[0]
            found = manifest_digest(answer.body, manifest.media_type, algorithm)
            if found != digest:
                raise DigestMismatch(
                    f"{answer.url}: the manifest has the digest {found}, not {digest}",
                    "the registry's storage, or what stands before it, damages content: compare the file below its "
                    "data_dir, and push the image again",
                    answer=answer,
                )
        return wanted[0] if wanted else manifest_digest(answer.body, manifest.media_type)

    def _keep(self, manifest: Manifest) -> Manifest:
        with self._lock:
            _bounded(self._manifests)[manifest.digest] = manifest
        return manifest

    def _config(self, repository: str, manifest: Manifest) -> ImageConfig:
        """The configuration from its blob. Raises ValueError."""
        if manifest.config is None:
            return ImageConfig.of_schema1(manifest)
        if (manifest.config.size or 0) > _LARGEST_CONFIG:
            raise ValueError(f"it has {manifest.config.size} bytes")
        read = bytearray()
        with self.blob(repository, manifest.config.digest) as pieces:
            for piece in pieces:
                read += piece
                if len(read) > _LARGEST_CONFIG:
                    raise ValueError(f"it has more than the {manifest.config.size} bytes that it should have")
        return ImageConfig.parse(bytes(read))

    def _tags_if_any(self, repository: str) -> list[str]:
        try:
            return self.tags(repository)
        except RepositoryUnknown:
            return []  # it has manifests without a tag at most

    def _digest_if_any(self, repository: str, reference: str) -> str | None:
        try:
            return self.digest(repository, reference)
        except ManifestUnknown:
            return None  # it went meanwhile

    def _known_if_any(self, repository: str, reference: str) -> Manifest | None:
        digest = self._digest_if_any(repository, reference)
        return None if digest is None else self.known(repository, digest)


def _manifest_path(repository: str, reference: str) -> str:
    return f"/v2/{repository_name(repository)}/manifests/{reference_name(reference)}"


def _names(answer: Answer, key: str) -> list[str]:
    """A list of names, which is null or left out where there are none."""
    found = answer.json()
    names = (found.get(key) or []) if isinstance(found, dict) else None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise _not_a_registry(answer)
    return names


def _hashed(pieces: Iterator[bytes], digest: str, where: str) -> Iterator[bytes]:
    algorithm, _, wanted = digest.partition(":")
    found = hashlib.new(algorithm)
    for piece in pieces:
        found.update(piece)
        yield piece
    if found.hexdigest() != wanted:
        raise DigestMismatch(
            f"{where}: the content has the digest {algorithm}:{found.hexdigest()}",
            "the registry's storage, or what stands before it, damages content: push the image again",
        )


def _bounded(kept: dict[str, Given]) -> dict[str, Given]:
    """The same, with room for one more: the oldest goes."""
    if len(kept) >= _KEPT:
        del kept[next(iter(kept))]
    return kept


def _json(answer: Answer) -> Any:
    try:
        return json.loads(answer.body)
    except ValueError:
        return None


def _not_a_registry(answer: Answer) -> UnexpectedAnswer:
    return UnexpectedAnswer(
        f"{answer.url} does not answer as a registry does: {answer.status} {answer.excerpt()}",
        "see that the address and port are the registry's own",
        answer=answer,
    )


def _circular(answer: Answer | None, url: str = "") -> UnexpectedAnswer:
    return UnexpectedAnswer(
        f"{answer.url if answer else url}: the pages lead back to where they began",
        "see what stands before the registry",
        answer=answer,
    )
