"""Real registries with the settings that matter: deletion, read-only, TLS, htpasswd, tokens; each refusal's name."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import bcrypt
import pytest
from certificates import Authority, write
from registry_daemon import Json, Pusher, layer, running
from token_server import TokenServer

from runbook import secrets
from runbook.errors import (
    AccessDenied,
    CertificateRefused,
    CredentialsRefused,
    DeleteDisabled,
    RegistryReadOnly,
    TlsMismatch,
)
from runbook.secrets import Secret
from runbook.services.registry import Registry, survey, tags_table

ONE = layer("one")
OPERATOR, PASSWORD = "operator", "correct horse battery"
DELETABLE = {"delete": {"enabled": True}}


def test_deletion_that_is_not_enabled(binary: Path, tmp_path: Path) -> None:
    with running(binary, tmp_path) as registry, Registry(registry.url) as client:
        Pusher(registry.url).image("app", "1.0", (ONE,))
        with pytest.raises(DeleteDisabled, match="UNSUPPORTED") as caught:
            client.delete("app", client.digest("app", "1.0"))
        assert "REGISTRY_STORAGE_DELETE_ENABLED" in str(caught.value.remedy)
        assert client.tags("app") == ["1.0"]


def test_a_registry_that_is_read_only(binary: Path, tmp_path: Path) -> None:
    with running(binary, tmp_path / "written", storage=DELETABLE) as registry:
        Pusher(registry.url).image("app", "1.0", (ONE,))
    readonly = {**DELETABLE, "maintenance": {"readonly": {"enabled": True}}}
    with (
        running(binary, tmp_path / "read", data=tmp_path / "written/data", storage=readonly) as registry,
        Registry(registry.url) as client,
    ):
        digest = client.digest("app", "1.0")
        for change in (
            lambda: client.delete("app", digest),
            lambda: client.retag("app", "1.0", "2.0"),
            lambda: client.retag("app", "1.0", "1.0", to="other"),
        ):
            with pytest.raises(RegistryReadOnly) as caught:
                change()
            assert "read-only" in str(caught.value.remedy)
        assert client.tags("app") == ["1.0"]


def test_a_registry_that_allows_smaller_pages_only(binary: Path, tmp_path: Path) -> None:
    with running(binary, tmp_path, catalog={"maxentries": 2}) as registry, Registry(registry.url) as client:
        names = [f"app{number}" for number in range(5)]
        for name in names:
            Pusher(registry.url).image(name, "1.0", (ONE,))
        assert list(client.repositories()) == names
        assert client.page(100) == (names[:2], names[1])


# TLS and htpasswd


@dataclass(frozen=True)
class Guarded:
    """A registry with TLS that lets one user in, and its CA."""

    url: str
    ca: Path


def with_tls(folder: Path, *names: str) -> Json:
    """The settings of a registry with a certificate for these addresses, whose CA is `ca.pem` in the folder."""
    authority = Authority()
    write(folder, *authority.sign(*names), authority.pem)
    return {"tls": {"certificate": str(folder / "c.pem"), "key": str(folder / "k.pem")}, "addr": "127.0.0.1:0"}


@pytest.fixture(scope="module")
def guarded(binary: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    folder = tmp_path_factory.mktemp("guarded")
    hashed = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4)).decode()
    (folder / "htpasswd").write_text(f"{OPERATOR}:{hashed}\n")
    users = {"htpasswd": {"realm": "site", "path": str(folder / "htpasswd")}}
    with running(binary, folder, http=with_tls(folder, "127.0.0.1"), auth=users) as registry:
        yield Guarded(registry.url, folder / "ca.pem")


def test_tls_with_the_sites_ca_and_a_user(guarded: Guarded) -> None:
    with Registry(guarded.url, auth=(OPERATOR, Secret(PASSWORD)), ca=guarded.ca) as client:
        client.ping()
        assert client.asks_who
        assert list(client.repositories()) == []


def test_nobody_and_the_wrong_password_are_refused(guarded: Guarded) -> None:
    with Registry(guarded.url, ca=guarded.ca) as client, pytest.raises(CredentialsRefused, match="wants to know who"):
        client.ping()
    with (
        Registry(guarded.url, auth=(OPERATOR, Secret("guessed wrong")), ca=guarded.ca) as client,
        pytest.raises(CredentialsRefused, match=r"UNAUTHORIZED.*user operator is refused") as caught,
    ):
        client.ping()
    assert "guessed wrong" not in str(caught.value)


def test_another_ca_is_not_trusted(guarded: Guarded, tmp_path: Path) -> None:
    other = tmp_path / "other.pem"
    other.write_bytes(Authority().pem)
    with Registry(guarded.url, ca=other) as client, pytest.raises(CertificateRefused, match=r"certificate|issuer"):
        client.ping()
    with Registry(guarded.url) as client, pytest.raises(CertificateRefused):
        client.ping()


def test_a_certificate_for_another_address_is_not_trusted(binary: Path, tmp_path: Path) -> None:
    with (
        running(binary, tmp_path, http=with_tls(tmp_path, "192.0.2.1")) as registry,
        Registry(registry.url, ca=tmp_path / "ca.pem") as client,
        pytest.raises(CertificateRefused, match=r"127\.0\.0\.1"),
    ):
        client.ping()


def test_each_side_that_speaks_tls_alone_is_told_so(guarded: Guarded, binary: Path, tmp_path: Path) -> None:
    with (
        Registry(guarded.url.replace("https:", "http:")) as client,
        pytest.raises(TlsMismatch, match="speaks TLS, and was asked in plain HTTP") as caught,
    ):
        client.ping()
    assert "security: tls" in str(caught.value.remedy)
    with (
        running(binary, tmp_path) as registry,
        Registry(registry.url.replace("http:", "https:")) as client,
        pytest.raises(TlsMismatch, match="plain HTTP where TLS is expected") as caught,
    ):
        client.ping()
    assert "insecure" in str(caught.value.remedy)


# tokens


@contextlib.contextmanager
def with_tokens(binary: Path, folder: Path, grants: dict[str, set[str]]) -> Iterator[tuple[str, TokenServer]]:
    """The URL of a registry that holds `app:1.0`, and the server whose tokens it wants."""
    with running(binary, folder / "before") as registry:
        Pusher(registry.url).image("app", "1.0", (ONE,))
    with (
        TokenServer(folder, OPERATOR, PASSWORD, grants) as server,
        running(
            binary, folder / "guarded", data=folder / "before/data", storage=DELETABLE, auth=server.settings
        ) as registry,
    ):
        yield registry.url, server


def test_tokens_are_fetched_for_each_scope_and_kept(binary: Path, tmp_path: Path) -> None:
    grants = {
        "registry:catalog": {"*"},
        "repository:app": {"pull", "push", "delete"},
        "repository:other": {"pull", "push"},
    }
    with (
        with_tokens(binary, tmp_path, grants) as (url, server),
        Registry(url, auth=(OPERATOR, Secret(PASSWORD))) as client,
    ):
        client.ping()
        assert client.asks_who
        assert list(client.repositories()) == ["app"]
        for _ in range(2):
            assert client.tags("app") == ["1.0"]
            assert tags_table(survey(client, ["app"]))["tag"].tolist() == ["1.0"]
        scopes = [query.get("scope") for query, _ in server.asked]
        assert scopes == [None, ["registry:catalog:*"], ["repository:app:pull"]]
        assert all(known for _, known in server.asked)
        assert server.asked[0][0] == {"service": [TokenServer.SERVICE], "account": [OPERATOR]}

        digest = client.retag("app", "1.0", "1.0", to="other")
        assert ["repository:app:pull", "repository:other:pull,push"] in [
            query.get("scope") for query, _ in server.asked
        ]
        client.delete("app", digest)
        assert client.tags("app") == []
        assert all(secrets.redact(f"Bearer {token}") == f"Bearer {secrets.MASK}" for token in server.tokens)


def test_a_token_that_ends_is_fetched_anew(binary: Path, tmp_path: Path) -> None:
    """The server says that tokens live longer than they do; the registry refuses one in the middle."""
    with (
        with_tokens(binary, tmp_path, {"repository:app": {"pull"}}) as (url, server),
        Registry(url, auth=(OPERATOR, Secret(PASSWORD))) as client,
    ):
        server.lives = -120  # over already, beyond the registry's leeway of a minute
        with pytest.raises(CredentialsRefused):
            client.tags("app")
        server.lives = 300
        assert client.tags("app") == ["1.0"]
        assert len(server.asked) == 2


def test_what_a_user_may_not_do_is_denied(binary: Path, tmp_path: Path) -> None:
    with (
        with_tokens(binary, tmp_path, {"repository:app": {"pull"}}) as (url, _),
        Registry(url, auth=(OPERATOR, Secret(PASSWORD))) as client,
        Registry(url, auth=(OPERATOR, Secret("guessed wrong"))) as wrong,
        Registry(url) as nobody,
    ):
        digest = client.digest("app", "1.0")
        with pytest.raises(AccessDenied, match="UNAUTHORIZED"):
            client.delete("app", digest)
        with pytest.raises(AccessDenied):
            nobody.tags("app")
        with pytest.raises(CredentialsRefused, match=r"sends to a token server.*incorrect username or password"):
            wrong.tags("app")
