"""How a registry is shown who asks: never before it asks, never in the open, and without a trace in any message."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from loopback import Loopback, Piece, Request, answer
from requests.structures import CaseInsensitiveDict

from runbook import secrets
from runbook.errors import CredentialsRefused, EndpointUnreachable, NotReady, ServiceError, UnexpectedAnswer
from runbook.secrets import Secret
from runbook.services.http import Answer, Timeouts
from runbook.services.registry import Registry
from runbook.services.registry.auth import Challenge, RegistryAuth, challenges

USER, PASSWORD = "operator", "correct horse battery"
CREDENTIALS = (USER, Secret(PASSWORD))
SHOWN = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
TOKEN = "a-token-of-the-test"
TAGS = answer(200, {"name": "a", "tags": ["1"]})
on_a_busy_machine = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


def refused(challenge: str) -> bytes:
    return answer(401, {"errors": [{"code": "UNAUTHORIZED", "message": "who"}]}, WWW_Authenticate=challenge)


def refusal(url: str, challenge: str) -> Answer:
    """The same as the client sees it."""
    return Answer(url, 401, CaseInsensitiveDict({"WWW-Authenticate": challenge}), b"")


# basic


def test_user_and_password_are_sent_only_once_they_are_wanted() -> None:
    def reply(request: Request) -> Piece:
        if request.target == "/v2/":
            return answer(200, {})
        return TAGS if request.headers.get("authorization") == SHOWN else refused('Basic realm="site"')

    with Loopback(lambda request: [reply(request)]) as server, Registry(server.url, auth=CREDENTIALS) as client:
        client.ping()
        assert not client.asks_who
        client.tags("a")
        assert client.asks_who
        client.tags("a")
    assert [request.headers.get("authorization") for request in server.requests] == [None, None, SHOWN, SHOWN]


def test_a_wrong_password_is_tried_once() -> None:
    with (
        Loopback(lambda _: [refused('Basic realm="site"')]) as server,
        Registry(server.url, auth=CREDENTIALS) as client,
        pytest.raises(CredentialsRefused, match="user operator is refused") as caught,
    ):
        client.tags("a")
    assert len(server.requests) == 2
    assert PASSWORD not in str(caught.value)


def test_nothing_that_the_client_knows_is_wanted() -> None:
    with (
        Loopback(lambda _: [refused("Negotiate")]) as server,
        Registry(server.url, auth=CREDENTIALS) as client,
        pytest.raises(CredentialsRefused, match=r"wants to know who asks \(negotiate\)"),
    ):
        client.tags("a")
    assert [request.headers.get("authorization") for request in server.requests] == [None]


def test_no_password_leaves_without_tls() -> None:
    auth = RegistryAuth("http://192.0.2.1:5000", CREDENTIALS)
    with pytest.raises(CredentialsRefused, match="without TLS"):
        auth.meet(refusal("http://192.0.2.1:5000/v2/", 'Basic realm="site"'), "GET", time.monotonic())


def test_credentials_do_not_belong_into_the_address() -> None:
    with pytest.raises(ValueError, match="not within the URL") as caught:
        Registry(f"http://{USER}:secret@127.0.0.1:1")
    assert "secret" not in str(caught.value)


# tokens


@contextmanager
def guarded(
    token_server: Callable[[Request], Piece], *, scope: str = "repository:a:pull", query: str = ""
) -> Iterator[tuple[Registry, Loopback, Loopback]]:
    """A client of a registry that wants tokens, that registry, and the token server."""
    with Loopback(lambda request: [token_server(request)]) as tokens:
        challenge = f'Bearer realm="{tokens.url}/token{query}",service="site registry",scope="{scope}"'

        def reply(request: Request) -> Piece:
            return TAGS if request.headers.get("authorization") == f"Bearer {TOKEN}" else refused(challenge)

        with (
            Loopback(lambda request: [reply(request)]) as server,
            Registry(server.url, auth=CREDENTIALS, timeouts=Timeouts(read=2, whole=5)) as client,
        ):
            yield client, server, tokens


def test_a_token_is_asked_for_with_what_the_challenge_says() -> None:
    with guarded(
        lambda _: answer(200, {"access_token": TOKEN}),
        scope="repository:b:push,pull repository:a:pull",
        query="?realm=x",
    ) as (client, server, tokens):
        assert client.tags("a") == ["1"]
    (request,) = tokens.requests
    assert request.headers["authorization"] == SHOWN
    assert parse_qs(urlsplit(request.target).query) == {
        "realm": ["x"],
        "service": ["site registry"],
        "scope": ["repository:a:pull", "repository:b:pull,push"],
        "account": [USER],
    }
    shown = [request.headers.get("authorization") for request in server.requests]
    assert shown == [None, f"Bearer {TOKEN}"]
    assert secrets.redact(f"it sent Bearer {TOKEN}") == f"it sent Bearer {secrets.MASK}"


def test_many_at_once_ask_for_one_token() -> None:
    with guarded(lambda _: answer(200, {"token": TOKEN, "expires_in": 300})) as (client, _, tokens):
        assert client.each(client.tags, ["a"] * 16) == [["1"]] * 16
    assert len(tokens.requests) == 1


@pytest.mark.parametrize(
    ("said", "seconds"), [({}, 55), ({"expires_in": 300}, 295), ({"expires_in": 4}, 2), ({"expires_in": "odd"}, 55)]
)
def test_a_token_is_used_until_shortly_before_it_ends(
    said: dict[str, object], seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = SimpleNamespace(seconds=1000.0)
    monkeypatch.setattr("runbook.services.registry.auth.time", SimpleNamespace(monotonic=lambda: now.seconds))
    with guarded(lambda _: answer(200, {"token": TOKEN, **said})) as (client, server, tokens):
        client.tags("a")
        now.seconds += seconds - 0.1
        client.tags("a")
        assert len(tokens.requests) == 1
        now.seconds += 0.2
        client.tags("a")
        assert len(tokens.requests) == 2
    assert len(server.requests) == 4  # of which only the first was refused


@pytest.mark.parametrize(
    ("said", "error", "shown"),
    [
        (answer(401, {"details": "incorrect password"}), CredentialsRefused, "incorrect password"),
        (answer(403, "no"), CredentialsRefused, "no"),
        (answer(503, "starting"), NotReady, "starting"),
        (answer(404, {"errors": [{"code": "NAME_UNKNOWN"}]}), UnexpectedAnswer, "answered 404"),
        (answer(200, "<html>welcome"), UnexpectedAnswer, "something other than JSON"),
        (answer(200, {}), UnexpectedAnswer, "does not give a token"),
        (answer(200, ["token"]), UnexpectedAnswer, "does not give a token"),
        (answer(200, {"token": 7}), UnexpectedAnswer, "does not give a token"),
        (answer(200, {"token": "abc"}), UnexpectedAnswer, "does not give a token"),
        (answer(200, {"token": "evil\r\nHost: elsewhere"}), UnexpectedAnswer, "does not give a token"),
        (answer(302, Location="http://192.0.2.1/token"), UnexpectedAnswer, "redirects to"),
    ],
)
def test_a_token_server_that_gives_none_is_named(said: bytes, error: type[ServiceError], shown: str) -> None:
    with guarded(lambda _: said) as (client, server, _), pytest.raises(error) as caught:
        client.tags("a")
    assert type(caught.value) is error
    assert "sends to a token server" in caught.value.message
    assert shown in caught.value.message
    assert caught.value.remedy
    assert PASSWORD not in str(caught.value)
    assert len(server.requests) == 1


def test_a_token_server_that_is_down_is_named() -> None:
    with Loopback(lambda _: []) as gone:
        realm = f"{gone.url}/token"
    with (
        Loopback(lambda _: [refused(f'Bearer realm="{realm}"')]) as server,
        Registry(server.url) as client,
        pytest.raises(EndpointUnreachable, match="sends to a token server"),
    ):
        client.tags("a")


@pytest.mark.parametrize(
    "realm", ["", "/token", "//127.0.0.1/token", "ftp://127.0.0.1/token", "http://[", "http://u:p@127.0.0.1/token"]
)
def test_a_realm_that_is_no_address_is_named(realm: str) -> None:
    auth = RegistryAuth("http://127.0.0.1:5000", CREDENTIALS)
    with pytest.raises(UnexpectedAnswer, match="which is no address"):
        auth.meet(refusal("http://127.0.0.1:5000/v2/", f'Bearer realm="{realm}"'), "GET", time.monotonic())


def test_a_registry_with_tls_cannot_send_to_a_token_server_without() -> None:
    auth = RegistryAuth("https://registry:5000", CREDENTIALS)
    with pytest.raises(CredentialsRefused, match="a token server without TLS"):
        auth.meet(refusal("https://registry:5000/v2/", 'Bearer realm="http://127.0.0.1:1/"'), "GET", time.monotonic())


def test_neither_can_one_without_tls_have_a_password_sent_in_the_open() -> None:
    auth = RegistryAuth("http://127.0.0.1:5000", CREDENTIALS)
    with pytest.raises(CredentialsRefused, match="without TLS"):
        auth.meet(refusal("http://127.0.0.1:5000/v2/", 'Bearer realm="http://192.0.2.1/"'), "GET", time.monotonic())


def test_a_storage_behind_the_registry_is_shown_nothing() -> None:
    """It could ask for the password in the registry's stead, by a realm of its own."""
    digest = "sha256:" + "0" * 64
    with (
        Loopback(lambda _: []) as realm,
        Loopback(lambda _: [refused(f'Bearer realm="{realm.url}/token"')]) as storage,
        Loopback(lambda _: [answer(307, Location=f"{storage.url}/blob")]) as server,
        Registry(server.url, auth=CREDENTIALS) as client,
    ):
        with pytest.raises(CredentialsRefused, match="to which the registry redirects"), client.blob("a", digest):
            pass
        assert realm.requests == []
        assert "authorization" not in storage.requests[0].headers


# challenges


@pytest.mark.parametrize(
    ("header", "found"),
    [
        ('Basic realm="the, site"', [Challenge("basic", {"realm": "the, site"})]),
        (
            'Bearer realm="https://auth/token?a=b",service="r",scope="repository:a:pull,push",error="invalid_token"',
            [
                Challenge(
                    "bearer",
                    {
                        "realm": "https://auth/token?a=b",
                        "service": "r",
                        "scope": "repository:a:pull,push",
                        "error": "invalid_token",
                    },
                )
            ],
        ),
        (
            'Negotiate, NTLM, bearer Realm = x , Basic realm="y"',
            [
                Challenge("negotiate", {}),
                Challenge("ntlm", {}),
                Challenge("bearer", {"realm": "x"}),
                Challenge("basic", {"realm": "y"}),
            ],
        ),
        ('Basic realm="a \\"quoted\\" site"', [Challenge("basic", {"realm": 'a "quoted" site'})]),
        ('realm="nobody\'s"', []),
        ("", []),
    ],
)
def test_challenges(header: str, found: list[Challenge]) -> None:
    assert challenges(header) == found


names = st.from_regex(r"[A-Za-z][A-Za-z0-9_-]*", fullmatch=True)
values = st.text(alphabet=st.characters(min_codepoint=32, max_codepoint=126))


@on_a_busy_machine
@given(st.lists(st.tuples(names, st.dictionaries(names.map(str.lower), values, min_size=1)), max_size=4))
def test_what_is_written_as_challenges_is_read_as_them(written: list[tuple[str, dict[str, str]]]) -> None:
    header = ", ".join(
        f"{scheme} {', '.join(f'{name}={json.dumps(value)}' for name, value in parameters.items())}"
        for scheme, parameters in written
    )
    assert challenges(header) == [Challenge(scheme.lower(), parameters) for scheme, parameters in written]


@on_a_busy_machine
@given(st.text())
def test_any_header_is_read(header: str) -> None:
    for challenge in challenges(header):
        assert challenge.scheme == challenge.scheme.lower() != ""
