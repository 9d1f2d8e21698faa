"""One way to ask any of the cluster's services over HTTP (Mesos, Marathon, the registry).

An `Endpoint` is the base URL of one service on one host. It adds to requests what a runbook needs:

- Three limits in seconds (`Timeouts`): to connect, for a pause within an answer, and for the whole exchange.
  The third is what requests lacks: an answer that drips a byte a second never exceeds a read timeout.
- Every failure is one of the named errors of `runbook.errors` with the address and a remedy:
  `EndpointUnreachable`, `EndpointTimeout`, `ConnectionCut`, `NotReady` (503) and `UnexpectedAnswer` (another
  status, not JSON, …), which shows what the service said: JSON, plain text (Mesos) or HTML (Marathon's Jetty).
- Redirects within the host and port are followed; a redirect elsewhere is refused unless the caller asks for it,
  and credentials never go along.
- Of a list in Accept, each media type goes on a line of its own, which to HTTP is the same; registry 2.3 compares
  whole lines with the types that it knows.
- Credentials in a URL are taken out of it: no message, log or table shows them. Proxies, `.netrc` and
  certificates of the environment are not used: the runbook talks to the site's own nodes and to nobody else.

Nothing is retried here; a check that polls (`runbook.remote.checks`) decides how long to go on asking.
"""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Container, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Any, NoReturn, Self
from urllib.parse import SplitResult, unquote, urljoin, urlsplit

import requests
import urllib3.exceptions
from requests.adapters import HTTPAdapter
from requests.auth import AuthBase, HTTPBasicAuth
from urllib3 import HTTPHeaderDict

from runbook.errors import (
    ConnectionCut,
    EndpointTimeout,
    EndpointUnreachable,
    NotReady,
    ServiceError,
    UnexpectedAnswer,
)

Query = Mapping[str, str | int | list[str]]
"""Query parameters; a list gives one several times."""

SUCCESS = range(200, 300)
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_MAX_HOPS = 5
_EXCERPT = 300  # characters of an answer that an error shows
_PIECE = 1 << 20  # bytes read at most at once


@dataclass(frozen=True)
class Timeouts:
    """Limits in seconds: to `connect`, for one pause within an answer (`read`), and for the `whole` exchange."""

    connect: float = 3.0
    read: float = 10.0
    whole: float = 60.0


@dataclass(frozen=True)
class Answer:
    """What a service said. `url` is where the answer came from (after redirects), without credentials."""

    url: str
    status: int
    headers: Mapping[str, str]  # case-insensitive
    body: bytes = field(repr=False)

    @property
    def text(self) -> str:
        """The body as text, in the charset that it declares and else UTF-8; what does not decode is replaced."""
        charset = requests.utils.get_encoding_from_headers(self.headers)
        # requests assumes ISO-8859-1 for text without a charset; these services all write UTF-8
        if charset is None or "charset" not in self.headers.get("content-type", "").lower():
            charset = "utf-8"
        try:
            return self.body.decode(charset, errors="replace")
        except LookupError:
            return self.body.decode("utf-8", errors="replace")

    def json(self) -> Any:
        """The body read as JSON. Raises `UnexpectedAnswer` where it is none."""
        try:
            return json.loads(self.body)
        except ValueError as error:
            raise UnexpectedAnswer(
                f"{self.url} answered {self.status} with something other than JSON: {self.excerpt()}",
                "see that the address and port belong to this service",
                answer=self,
            ) from error

    def excerpt(self) -> str:
        """What it said, on one line, HTML without its tags, cut to a length that fits an error message."""
        text = self.text
        if "html" in self.headers.get("content-type", "").lower() or text.lstrip()[:14].lower() in (
            "<!doctype html",
            "<html>",
        ):
            text = _text_of_html(text)
        line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
        if not line:
            return "(nothing)"
        return line if len(line) <= _EXCERPT else f"{line[:_EXCERPT]}…"


class _Adapter(HTTPAdapter):
    """Sends each media type of Accept on a line of its own; requests itself knows one line a name."""

    def add_headers(self, request: requests.PreparedRequest, **_: Any) -> None:
        types = [media_type.strip() for media_type in request.headers.get("Accept", "").split(",")]
        if len(types) > 1:
            lines = HTTPHeaderDict(request.headers)
            del lines["Accept"]
            for media_type in types:
                lines.add("Accept", media_type)
            request.headers = lines  # type: ignore[assignment]  # what urllib3 is handed, as it is


class _Session(requests.Session):
    """A session that leaves redirects alone; requests parses them even when told not to follow."""

    def __init__(self) -> None:
        super().__init__()
        for scheme in ("http://", "https://"):
            self.mount(scheme, _Adapter())

    def get_redirect_target(self, resp: requests.Response) -> None:
        return None


class Endpoint:
    """The base URL of one service, and the connections to it.

    `url`: `http://host:port`, optionally with a path; credentials in it are used for basic authentication and
    taken out. `name`: what messages call the service (`mesos-master on node1`), in place of the bare URL.
    `auth`: user and password, or what puts credentials into each request. `verify`: True, False, or the path of a
    CA certificate, for https.
    """

    def __init__(
        self,
        url: str,
        *,
        name: str | None = None,
        timeouts: Timeouts | None = None,
        auth: tuple[str, str] | AuthBase | None = None,
        verify: bool | str = True,
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"not an http(s) URL: {redact_url(url)}")
        if auth is None and parts.username is not None:
            auth = (unquote(parts.username), unquote(parts.password or ""))
        self.url = redact_url(url).rstrip("/")
        self.name = name
        self.timeouts = timeouts or Timeouts()
        self._auth = basic_auth(*auth) if isinstance(auth, tuple) else auth
        self._session = _Session()
        self._session.trust_env = False
        self._session.verify = verify

    def __repr__(self) -> str:
        return f"Endpoint({self.url!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the connections that are kept open."""
        self._session.close()

    @property
    def address(self) -> str:
        """`host:port` of the base URL, the scheme's port where it names none."""
        return _origin(urlsplit(self.url))

    def get(
        self,
        path: str,
        *,
        params: Query | None = None,
        headers: Mapping[str, str] | None = None,
        expect: Container[int] = SUCCESS,
        elsewhere: bool = False,
    ) -> Answer:
        """`request("GET", …)`."""
        return self.request("GET", path, params=params, headers=headers, expect=expect, elsewhere=elsewhere)

    def request(
        self,
        method: str,
        path: str,
        *,
        params: Query | None = None,
        body: Any = None,
        data: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        expect: Container[int] = SUCCESS,
        elsewhere: bool = False,
    ) -> Answer:
        """Ask for `path` (which begins with `/`) and return the answer, its body read to the end.

        `body` is sent as JSON, `data` as it is. A status in `expect` is returned, a redirect included where it is
        expected; other redirects are followed, to another host or port only with `elsewhere=True`.
        Raises `EndpointUnreachable`, `EndpointTimeout`, `ConnectionCut`, `NotReady` or `UnexpectedAnswer`.
        """
        deadline = time.monotonic() + self.timeouts.whole
        url: str = self.url + path
        for _ in range(_MAX_HOPS):
            answer = self._exchange(method, url, deadline, params=params, json=body, data=data, headers=headers)
            if answer.status in expect:
                return answer
            if answer.status not in _REDIRECTS or "location" not in answer.headers:
                self._refuse(answer, method)
            url = self._next_hop(answer, method, elsewhere)
            params = None  # the Location holds the query, or leaves it out on purpose
            if answer.status == 303:
                method, body, data = "GET", None, None
        raise self._circular(path, url)

    @contextmanager
    def stream(
        self,
        path: str,
        *,
        params: Query | None = None,
        headers: Mapping[str, str] | None = None,
        pause: float | None = None,
        elsewhere: bool = False,
    ) -> Iterator[Iterator[bytes]]:
        """Ask for an answer that need not end, and give its lines as they come, without their ends.

        `pause`: for how many seconds it may be silent (default: `timeouts.read`); the whole has no limit. Where the
        service ends it, so do the lines; leaving the context ends the connection. Redirects and errors as `request`'s.
        """
        with self._successful(path, pause, params=params, headers=headers, elsewhere=elsewhere) as response:
            yield self._lines(response, pause or self.timeouts.read)

    @contextmanager
    def download(
        self, path: str, *, headers: Mapping[str, str] | None = None, elsewhere: bool = False
    ) -> Iterator[Iterator[bytes]]:
        """Ask for something big, and give its bytes in pieces as they come.

        It may pause for `timeouts.read`; the whole has no limit. Leaving the context ends the connection. Redirects
        and errors as `request`'s.
        """
        with self._successful(path, None, headers=headers, elsewhere=elsewhere) as response:
            yield self._pieces(response, self.timeouts.read)

    @contextmanager
    def _successful(
        self, path: str, pause: float | None, *, elsewhere: bool, params: Query | None = None, **content: Any
    ) -> Iterator[requests.Response]:
        """The answer to a GET once it is one of success, its body not yet read."""
        url: str = self.url + path
        for _ in range(_MAX_HOPS):
            with self._opened("GET", url, pause, params=params, **content) as response:
                if response.status_code in SUCCESS:
                    yield response
                    return
                answer = self._answer(response, time.monotonic() + self.timeouts.whole)
            if answer.status not in _REDIRECTS or "location" not in answer.headers:
                self._refuse(answer, "GET")
            url, params = self._next_hop(answer, "GET", elsewhere), None
        raise self._circular(path, url)

    def _exchange(self, method: str, url: str, deadline: float, **content: Any) -> Answer:
        with self._opened(method, url, None, **content) as response:
            return self._answer(response, deadline)

    @contextmanager
    def _opened(self, method: str, url: str, pause: float | None, **content: Any) -> Iterator[requests.Response]:
        """The answer to a request, its body not yet read. Errors of requests and urllib3 become named ones."""
        auth = self._auth if _origin(urlsplit(url)) == self.address else None
        limits = (self.timeouts.connect, pause or self.timeouts.read)
        try:
            with self._session.request(
                method, url, auth=auth, timeout=limits, allow_redirects=False, stream=True, **content
            ) as response:
                yield response
        except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
            raise self._named(error, redact_url(url), limits[1]) from error

    def _answer(self, response: requests.Response, deadline: float) -> Answer:
        body = self._body(response, deadline)
        return Answer(redact_url(response.url), response.status_code, response.headers, body)

    def _circular(self, path: str, url: str) -> UnexpectedAnswer:
        return UnexpectedAnswer(
            f"{self._who(self.url + path)} redirects more than {_MAX_HOPS} times, last to {redact_url(url)}",
            "look for two services that each take the other for the leader",
        )

    def _lines(self, response: requests.Response, silence: float) -> Iterator[bytes]:
        rest = b""
        for piece in self._pieces(response, silence):
            *lines, rest = (rest + piece).split(b"\n")
            yield from (line.removesuffix(b"\r") for line in lines)
        if rest:
            yield rest

    def _pieces(self, response: requests.Response, silence: float) -> Iterator[bytes]:
        try:
            while piece := response.raw.read1(_PIECE, decode_content=True):
                yield piece
        except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
            raise self._named(error, redact_url(response.url), silence) from error

    def _body(self, response: requests.Response, deadline: float) -> bytes:
        pieces = []
        # read1 returns what has come, so that the deadline holds for an answer that drips
        while piece := response.raw.read1(_PIECE, decode_content=True):
            pieces.append(piece)
            if time.monotonic() > deadline:
                raise EndpointTimeout(
                    f"{self._who(response.url)}: the answer was not complete after {self.timeouts.whole:g} s",
                    "see the load of the host and of the network; a big cluster may need a longer limit",
                )
        return b"".join(pieces)

    def _next_hop(self, answer: Answer, method: str, elsewhere: bool) -> str:
        location = answer.headers["location"]
        where = f"{self._who(answer.url)} redirects to {redact_url(location)}"
        try:
            target = urljoin(answer.url, location)  # `//host:port` keeps the scheme
            parts = urlsplit(target)
            origin = _origin(parts) if parts.scheme in ("http", "https") and parts.hostname else None
        except ValueError:  # a port that is no number, a bracket that does not close
            origin = None
        if origin is None:
            raise UnexpectedAnswer(where, "this is no address to follow; see what runs there", answer=answer)
        if origin != self.address and not elsewhere:
            remedy = "ask that address itself if it is one of the site's, and else see what runs here"
            raise UnexpectedAnswer(where, remedy, answer=answer)
        if answer.status in (301, 302) and method not in ("GET", "HEAD"):
            raise UnexpectedAnswer(
                f"{where} with {answer.status}, which does not say whether to {method} there",
                "ask that address itself",
                answer=answer,
            )
        return target

    def _refuse(self, answer: Answer, method: str) -> NoReturn:
        said = f"{self._who(answer.url)} answered {answer.status} to {method}: {answer.excerpt()}"
        if answer.status == 503:
            raise NotReady(said, "it starts, recovers or has no leader: wait, then read its log", answer=answer)
        raise UnexpectedAnswer(said, _remedy(answer), answer=answer)

    def _who(self, url: str) -> str:
        """What messages call the service at `url`: its name, unless a redirect led to another one."""
        shown = redact_url(url)
        own = self.name is not None and _origin(urlsplit(url)) == self.address
        return f"{self.name} ({shown})" if own else shown

    def _named(self, error: Exception, url: str, silence: float) -> ServiceError:
        """The named error for one of requests or urllib3, which nest the cause in several ways."""
        who = self._who(url)
        causes = _causes(error)
        reason = _innermost(causes)

        def caused_by(*kinds: type[BaseException]) -> bool:
            return any(isinstance(cause, kinds) for cause in causes)

        # asked first, as to urllib3 it is also a connect timeout; an unknown name is one, too
        if caused_by(urllib3.exceptions.NewConnectionError):
            return EndpointUnreachable(
                f"{who}: {reason}", "see that the service runs and listens on this address and port"
            )
        if caused_by(requests.exceptions.ConnectTimeout, urllib3.exceptions.ConnectTimeoutError):
            return EndpointTimeout(
                f"{who}: no connection within {self.timeouts.connect:g} s",
                "see that the host is up and that no firewall drops packets to this port",
            )
        if caused_by(requests.exceptions.Timeout, urllib3.exceptions.TimeoutError):
            return EndpointTimeout(
                f"{who}: silent for {silence:g} s",
                "the process hangs or the host is overloaded: see its log and load",
            )
        if caused_by(requests.exceptions.SSLError, urllib3.exceptions.SSLError):
            return EndpointUnreachable(
                f"{who}: TLS failed: {reason}",
                "see that the service speaks TLS on this port and that its certificate is from the given CA",
            )
        if caused_by(http.client.BadStatusLine) and not caused_by(ConnectionError):
            return UnexpectedAnswer(f"{who} does not speak HTTP: {reason}", "see that the port is this service's own")
        if caused_by(requests.exceptions.InvalidURL, urllib3.exceptions.LocationValueError):
            return UnexpectedAnswer(f"{who} is no address to ask: {reason}", "see which service redirects to it")
        if caused_by(urllib3.exceptions.DecodeError):
            return UnexpectedAnswer(f"{who}: the compressed answer is damaged: {reason}", "ask again")
        return ConnectionCut(
            f"{who}: the connection ended within the exchange: {reason}",
            "the process died or restarted while it answered: see its log, then ask again",
        )


def basic_auth(user: str, password: str) -> HTTPBasicAuth:
    """User and password in UTF-8 (RFC 7617); requests would take them for ISO-8859-1."""
    return HTTPBasicAuth(user.encode(), password.encode())


def redact_url(url: str) -> str:
    """The URL without user and password: what may be shown and stored."""
    scheme, slashes, rest = url.partition("//")
    authority, slash, path = rest.partition("/")
    return f"{scheme}{slashes}{authority.rpartition('@')[2]}{slash}{path}"


def _origin(parts: SplitResult) -> str:
    return f"{parts.hostname}:{parts.port or (443 if parts.scheme == 'https' else 80)}"


def _remedy(answer: Answer) -> str:
    match answer.status:
        case 401 | 403:
            return "give this service's credentials as a secret reference in the parameters"
        case 404:
            return "see that the address and port belong to this service and that its version has this path"
        case 405:
            return f"it allows here: {answer.headers.get('allow', 'nothing that it names')}"
        case status if status >= 500:
            return "the service failed: read its log"
        case _:
            return "read what it said"


def _causes(error: BaseException | None) -> list[BaseException]:
    """The error and what it came from, outermost first."""
    found: list[BaseException] = []
    while error is not None:
        found.append(error)
        error = error.__cause__ or error.__context__
    return found


def _innermost(causes: list[BaseException]) -> str:
    """What the operating system or the peer said, below the layers of libraries."""
    for cause in reversed(causes):
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror
        if str(cause):
            return " ".join(str(cause).split())
    return type(causes[0]).__name__


class _TextOfHtml(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.words: list[str] = []
        self._hidden = 0

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self._hidden += tag in ("script", "style")

    def handle_endtag(self, tag: str) -> None:
        self._hidden -= tag in ("script", "style") and self._hidden > 0

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self.words.append(data)


def _text_of_html(text: str) -> str:
    parser = _TextOfHtml()
    parser.feed(text)
    return " ".join(parser.words)
