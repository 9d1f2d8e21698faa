"""Real registries with the settings that matter: deletion, read-only, TLS, htpasswd, tokens; each refusal's name."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import bcrypt
import pytest
from registry_daemon import Authority, Pusher, TokenServer, layer, running

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


@pytest.fixture(scope="module")
def guarded(binary: Path, authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a registry with TLS that lets one user in."""
    folder = tmp_path_factory.mktemp("guarded")
    certificate, key = authority.certificate("registry")
    hashed = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4)).decode()
    (folder / "htpasswd").write_text(f"{OPERATOR}:{hashed}\n")
    tls = {"tls": {"certificate": str(certificate), "key": str(key)}, "addr": "127.0.0.1:0"}
    users = {"htpasswd": {"realm": "site", "path": str(folder / "htpasswd")}}
    with running(binary, folder, http=tls, auth=users) as registry:
        yield registry.url


def test_tls_with_the_sites_ca_and_a_user(guarded: str, authority: Authority) -> None:
    with Registry(guarded, auth=(OPERATOR, Secret(PASSWORD)), ca=authority.ca) as client:
        client.ping()
        assert list(client.repositories()) == []


def test_nobody_and_the_wrong_password_are_refused(guarded: str, authority: Authority) -> None:
    with Registry(guarded, ca=authority.ca) as client, pytest.raises(CredentialsRefused, match="wants to know who"):
        client.ping()
    with (
        Registry(guarded, auth=(OPERATOR, Secret("guessed wrong")), ca=authority.ca) as client,
        pytest.raises(CredentialsRefused, match=r"UNAUTHORIZED.*user operator is refused") as caught,
    ):
        client.ping()
    assert "guessed wrong" not in str(caught.value)


def test_another_ca_is_not_trusted(guarded: str, tmp_path: Path) -> None:
    other = Authority(tmp_path)
    with Registry(guarded, ca=other.ca) as client, pytest.raises(CertificateRefused, match=r"certificate|issuer"):
        client.ping()
    with Registry(guarded) as client, pytest.raises(CertificateRefused):
        client.ping()


def test_a_certificate_for_another_address_is_not_trusted(binary: Path, authority: Authority, tmp_path: Path) -> None:
    certificate, key = authority.certificate("elsewhere", "192.0.2.1")
    tls = {"tls": {"certificate": str(certificate), "key": str(key)}, "addr": "127.0.0.1:0"}
    with (
        running(binary, tmp_path, http=tls) as registry,
        Registry(registry.url, ca=authority.ca) as client,
        pytest.raises(CertificateRefused, match=r"127\.0\.0\.1"),
    ):
        client.ping()


def test_each_side_that_speaks_tls_alone_is_told_so(guarded: str, binary: Path, tmp_path: Path) -> None:
    with (
        Registry(guarded.replace("https:", "http:")) as client,
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
def with_tokens(
    binary: Path, authority: Authority, folder: Path, grants: dict[str, set[str]]
) -> Iterator[tuple[str, TokenServer]]:
    """The URL of a registry that holds `app:1.0`, and the server whose tokens it wants."""
    with running(binary, folder / "before") as registry:
        Pusher(registry.url).image("app", "1.0", (ONE,))
    with (
        TokenServer(authority, OPERATOR, PASSWORD, grants) as server,
        running(
            binary, folder / "guarded", data=folder / "before/data", storage=DELETABLE, auth=server.settings
        ) as registry,
    ):
        yield registry.url, server


def test_tokens_are_fetched_for_each_scope_and_kept(binary: Path, authority: Authority, tmp_path: Path) -> None:
    grants = {
        "registry:catalog": {"*"},
        "repository:app": {"pull", "push", "delete"},
        "repository:other": {"pull", "push"},
    }
    with (
        with_tokens(binary, authority, tmp_path, grants) as (url, server),
        Registry(url, auth=(OPERATOR, Secret(PASSWORD))) as client,
    ):
        client.ping()
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


def test_a_token_that_ends_is_fetched_anew(binary: Path, authority: Authority, tmp_path: Path) -> None:
    """The server says that tokens live longer than they do; the registry refuses one in the middle."""
    with (
        with_tokens(binary, authority, tmp_path, {"repository:app": {"pull"}}) as (url, server),
        Registry(url, auth=(OPERATOR, Secret(PASSWORD))) as client,
    ):
        server.lives = -120  # over already, beyond the registry's leeway of a minute
        with pytest.raises(CredentialsRefused):
            client.tags("app")
        server.lives = 300
        assert client.tags("app") == ["1.0"]
        assert len(server.asked) == 2


def test_what_a_user_may_not_do_is_denied(binary: Path, authority: Authority, tmp_path: Path) -> None:
    with (
        with_tokens(binary, authority, tmp_path, {"repository:app": {"pull"}}) as (url, _),
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
