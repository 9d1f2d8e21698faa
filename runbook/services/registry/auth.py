"""How a registry is shown who asks: basic authentication, or a token that it wants from a token server.

Nothing is sent before the registry asks for it with 401. Then, for basic authentication, each request carries user and
password. For a token, the server that the challenge names (its realm) is asked with user and password for one of the
challenge's service and scope; it is kept until shortly before it expires, and asked for anew where the registry
refuses it. A challenge counts only if it is the registry's own, not that of a storage to which it redirects. User and
password leave this machine under TLS only, and a registry that speaks TLS cannot send them to a token server that does
not. Tokens are secrets: every output masks them.

Source: 'Token Authentication Specification' of Docker's distribution; RFC 7235 for the challenges.
"""

from __future__ import annotations

import ipaddress
import re
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import parse_qs, urlsplit
from urllib.request import parse_http_list

import requests
from requests.auth import AuthBase

from runbook import secrets
from runbook.errors import CredentialsRefused, SecretError, ServiceError, UnexpectedAnswer
from runbook.secrets import Secret
from runbook.services.http import Answer, Endpoint, Timeouts, basic_auth, redact_url

_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"  # RFC 7230
_LIFETIME = 60.0  # seconds of a token that does not say how long it lives
_EARLY = 5.0  # seconds before its end from which on a token is not used, as clocks and networks differ
_REPOSITORY = re.compile(r"/v2/(.+)/(?:manifests|blobs|tags)/")


@dataclass(frozen=True)
class Challenge:
    """One way in which a service wants to be shown who asks. `scheme` and the parameters' names are in lower case."""

    scheme: str
    parameters: Mapping[str, str]


def challenges(header: str) -> list[Challenge]:
    """The challenges of a WWW-Authenticate header; what cannot be read is passed over."""
    found: list[tuple[str, dict[str, str]]] = []
    for item in parse_http_list(header):
        begins = re.fullmatch(rf"({_TOKEN})(?:\s+(.*))?", item, re.DOTALL)
        if begins:
            found.append((begins[1].lower(), {}))
            item = begins[2] or ""
        parameter = re.fullmatch(rf"({_TOKEN})\s*=\s*(.*)", item, re.DOTALL)
        if parameter and found:
            value = parameter[2]
            quoted = len(value) > 1 and value[0] == value[-1] == '"'
            found[-1][1][parameter[1].lower()] = value[1:-1] if quoted else value
    return [Challenge(scheme, parameters) for scheme, parameters in found]


@dataclass(frozen=True)
class _Source:
    """Where a token comes from, and for what."""

    realm: str
    service: str | None
    scopes: tuple[str, ...]  # in an order of their own; a registry's is another one each time

    @classmethod
    def of(cls, challenge: Challenge) -> _Source:
        wanted = challenge.parameters
        scopes = (scope.rpartition(":") for scope in wanted.get("scope", "").split())
        ordered = sorted(f"{what}{colon}{','.join(sorted(actions.split(',')))}" for what, colon, actions in scopes)
        return cls(wanted.get("realm", ""), wanted.get("service"), tuple(ordered))


@dataclass(frozen=True)
class _Token:
    value: Secret
    since: float  # time.monotonic()
    ends: float


class RegistryAuth(AuthBase):
    """Puts into each request of one registry what that has asked for so far. Safe to use from several threads."""

    def __init__(
        self,
        registry: str,
        credentials: tuple[str, Secret] | None = None,
        *,
        verify: bool | str = True,
        timeouts: Timeouts | None = None,
    ) -> None:
        """`registry`: its URL. `verify`, `timeouts`: as those of an `Endpoint`, for the token server."""
        self.registry = registry.rstrip("/")
        self.user = credentials[0] if credentials else None
        self._credentials = credentials
        self._verify = verify
        self._timeouts = timeouts
        self._lock = threading.RLock()
        self._basic = False
        self._wanted: dict[tuple[str, ...], _Source] = {}  # by what was requested
        self._tokens: dict[_Source, _Token] = {}

    @property
    def asked(self) -> bool:
        """Whether the registry has wanted to know who asks so far."""
        return self._basic or bool(self._wanted)

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        with self._lock:
            source = self._wanted.get(_subject(str(request.method), str(request.url)))
            if source is not None:
                request.headers["Authorization"] = f"Bearer {self._token(source).reveal()}"
            elif self._basic and (pair := self._pair(self.registry)) is not None:
                request = basic_auth(*pair)(request)
        return request

    def meet(self, refusal: Answer, method: str, since: float) -> None:
        """Prepare for asking once more what was answered 401. `since`: `time.monotonic()` before it was asked.

        Raises CredentialsRefused where there is nothing to show, or it is not to be shown in the open, and what the
        token server's refusal means.
        """
        if not refusal.url.startswith(f"{self.registry}/"):
            message = f"{refusal.url}, to which the registry redirects, wants to know who asks"
            raise CredentialsRefused(message, "see the storage behind the registry", answer=refusal)
        wanted = {challenge.scheme: challenge for challenge in challenges(refusal.headers.get("www-authenticate", ""))}
        with self._lock:
            if "bearer" in wanted:
                source, subject = _Source.of(wanted["bearer"]), _subject(method, refusal.url)
                shown = self._wanted.get(subject) == source and source in self._tokens
                if shown and self._tokens[source].since < since:
                    del self._tokens[source]  # it was refused, and no other thread has fetched one since
                self._wanted[subject] = source
                self._token(source)
            elif "basic" in wanted and self._pair(self.registry) is not None:
                self._basic = True
            else:
                asked = ", ".join(wanted) or "nothing that it names"
                raise CredentialsRefused(f"{refusal.url} wants to know who asks ({asked})", _GIVE, answer=refusal)

    def _token(self, source: _Source) -> Secret:
        """The token that is kept, or another one where it is about to end."""
        token = self._tokens.get(source)
        if token is None or token.ends <= time.monotonic():
            token = self._tokens[source] = self._fetch(source)
        return token.value

    def _fetch(self, source: _Source) -> _Token:
        server, path = self._server(source.realm)
        params: dict[str, str | int | list[str]] = {}
        if source.service is not None:
            params["service"] = source.service
        if source.scopes:
            params["scope"] = list(source.scopes)
        if self.user is not None:
            params["account"] = self.user
        started = time.monotonic()
        try:
            with Endpoint(
                server, name="token server", timeouts=self._timeouts, auth=self._pair(server), verify=self._verify
            ) as endpoint:
                answer = endpoint.get(path, params=params, headers={"Accept": "application/json"})
            return _token_in(answer, started)
        except ServiceError as error:
            message = f"{self.registry} sends to a token server: {error.message}"
            if isinstance(error.answer, Answer) and error.answer.status in (401, 403):
                raise CredentialsRefused(message, _GIVE) from error
            raise type(error)(message, error.remedy) from error  # its answer is not the registry's

    def _server(self, realm: str) -> tuple[str, str]:
        """The base URL of a realm, and its path with the query."""
        try:
            parts = urlsplit(realm)
            fit = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.username is None
        except ValueError:
            fit = False
        if not fit:
            raise UnexpectedAnswer(
                f"{self.registry} sends to a token server at {redact_url(realm)!r}, which is no address",
                "correct auth.token.realm in the registry's configuration",
            )
        if self.registry.startswith("https:") and parts.scheme == "http":
            raise CredentialsRefused(
                f"{self.registry} sends to a token server without TLS, {realm}",
                "give the token server a certificate, and auth.token.realm of the registry its https address",
            )
        query = f"?{parts.query}" if parts.query else ""
        return f"{parts.scheme}://{parts.netloc}", (parts.path or "/") + query

    def _pair(self, url: str) -> tuple[str, str] | None:
        """User and password for the one request, None where there are none. Raises CredentialsRefused without TLS."""
        if self._credentials is None:
            return None
        if urlsplit(url).scheme != "https" and not _is_loopback(urlsplit(url).hostname or ""):
            raise CredentialsRefused(
                f"{url} wants user and password without TLS, where anybody on the way could read them",
                "set up `security: tls` with registry.tls",
            )
        user, password = self._credentials
        return user, password.reveal()


_GIVE = "give registry.user, and registry.password as a reference to the secret; see which user the registry knows"


def _token_in(answer: Answer, started: float) -> _Token:
    said = answer.json()
    value = (said.get("token") or said.get("access_token")) if isinstance(said, dict) else None
    try:
        if not isinstance(value, str):
            raise SecretError("none")
        secrets.register(value)
    except SecretError as error:
        raise UnexpectedAnswer(
            f"{answer.url} does not give a token that can be used ({error.message})",
            "see that auth.token.realm in the registry's configuration is a token server's address",
        ) from error
    seconds = said.get("expires_in")
    lives = float(seconds) if isinstance(seconds, int | float) and seconds > 0 else _LIFETIME
    return _Token(Secret(value), time.monotonic(), started + max(lives - _EARLY, lives / 2))


def _subject(method: str, url: str) -> tuple[str, ...]:
    """What a request is about, as far as it decides what one needs for it."""
    parts = urlsplit(url)
    repository = _REPOSITORY.search(parts.path)
    kind = "GET" if method == "HEAD" else method
    return (kind, repository[1] if repository else parts.path, *parse_qs(parts.query).get("from", ()))


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
