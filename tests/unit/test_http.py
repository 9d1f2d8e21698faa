"""How an `Endpoint` meets services that answer well, badly, late, elsewhere or not at all."""

from __future__ import annotations

import base64
import gzip
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import pytest
from loopback import Loopback, Piece, Request, Reset, Silence, answer
from requests import PreparedRequest
from requests.auth import AuthBase

from runbook.errors import (
    ConnectionCut,
    EndpointTimeout,
    EndpointUnreachable,
    NotReady,
    ServiceError,
    UnexpectedAnswer,
)
from runbook.services.http import Endpoint, Timeouts, redact_url

SHORT = Timeouts(connect=1.0, read=0.2, whole=0.5)

# as Marathon 1.1.1's Jetty writes its errors
JETTY = """<html><head><meta http-equiv="Content-Type" content="text/html;charset=ISO-8859-1"/><title>Error 503 </title>
<style>body {color: red}</style></head><body><h2>HTTP ERROR: 503</h2><p>Problem accessing /v2/apps. Reason:
<pre>    Could not determine the current leader</pre></p><hr /><i><small>Powered by Jetty://</small></i></body></html>"""


def serving(*pieces: Piece) -> Loopback:
    return Loopback(lambda request: pieces)


@contextmanager
def asking(*pieces: Piece, name: str | None = None, timeouts: Timeouts | None = None) -> Iterator[Endpoint]:
    """An endpoint of a service that answers everything with these pieces."""
    with serving(*pieces) as server, Endpoint(server.url, name=name, timeouts=timeouts) as endpoint:
        yield endpoint


def test_json_arrives_with_the_url_that_answered() -> None:
    with serving(answer(200, {"version": "0.28.0"})) as server, Endpoint(server.url) as endpoint:
        assert endpoint.get("/version").json() == {"version": "0.28.0"}
        reply = endpoint.get("/version", params={"a b": 1})
    assert reply.url == f"{server.url}/version?a+b=1"


def test_a_body_is_sent_as_json_and_data_as_it_is() -> None:
    with serving(answer(201, {})) as server, Endpoint(server.url) as endpoint:
        endpoint.request("POST", "/v2/apps", body={"id": "hello"})
        endpoint.request("POST", "/master/teardown", data=b"frameworkId=x")
    assert server.requests[0].body == b'{"id": "hello"}'
    assert server.requests[0].headers["content-type"] == "application/json"
    assert server.requests[1].body == b"frameworkId=x"


def test_plain_text_of_an_error_is_shown() -> None:
    with (
        asking(answer(400, "Missing 'frameworkId' query parameter"), name="mesos-master on node1") as endpoint,
        pytest.raises(UnexpectedAnswer) as caught,
    ):
        endpoint.get("/master/teardown")
    assert "mesos-master on node1" in caught.value.message
    assert "answered 400 to GET: Missing 'frameworkId' query parameter" in caught.value.message
    assert caught.value.remedy


def test_html_of_an_error_is_shown_without_tags_and_styles() -> None:
    with asking(answer(503, JETTY.encode(), kind="text/html")) as endpoint, pytest.raises(NotReady) as caught:
        endpoint.get("/v2/apps")
    assert "Reason: Could not determine the current leader" in caught.value.message
    assert "<" not in caught.value.message
    assert "color" not in caught.value.message


def test_html_in_place_of_json_is_named() -> None:
    with (
        asking(answer(200, "<!DOCTYPE html><p>Welcome to nginx", kind="text/html")) as endpoint,
        pytest.raises(UnexpectedAnswer, match="other than JSON: Welcome to nginx"),
    ):
        endpoint.get("/state").json()


def test_a_long_answer_is_cut_and_control_characters_are_not_printed() -> None:
    with asking(answer(500, "\x1b[31m" + "x" * 5000)) as endpoint, pytest.raises(UnexpectedAnswer) as caught:
        endpoint.get("/")
    assert "\x1b" not in str(caught.value)
    assert len(str(caught.value)) < 600


def test_405_says_what_is_allowed() -> None:
    with (
        asking(answer(405, "Expecting one of { 'POST' }", Allow="POST")) as endpoint,
        pytest.raises(UnexpectedAnswer) as caught,
    ):
        endpoint.get("/master/teardown")
    assert caught.value.remedy is not None
    assert "POST" in caught.value.remedy


def test_an_expected_status_is_an_answer_and_not_an_error() -> None:
    with serving(answer(404, {"message": "App '/x' does not exist"})) as server, Endpoint(server.url) as endpoint:
        assert endpoint.get("/v2/apps/x", expect={200, 404}).status == 404


def test_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with Endpoint(f"http://127.0.0.1:{port}") as endpoint, pytest.raises(EndpointUnreachable, match="refused"):
        endpoint.get("/state")


def test_a_name_that_does_not_resolve() -> None:
    with Endpoint("http://no-such-host.invalid:8150") as endpoint, pytest.raises(EndpointUnreachable):
        endpoint.get("/state")


def test_plain_http_behind_an_https_url() -> None:
    with (
        serving(answer(400, "Client sent an HTTPS request to an HTTP server")) as server,
        Endpoint(f"https://{server.address}") as endpoint,
        pytest.raises(EndpointUnreachable, match="TLS failed"),
    ):
        endpoint.get("/v2/")


def test_a_service_that_does_not_speak_http() -> None:
    # ZooKeeper's answer to ruok
    with asking(b"imok") as endpoint, pytest.raises(UnexpectedAnswer, match="does not speak HTTP"):
        endpoint.get("/")


@pytest.mark.parametrize(
    "pieces",
    [
        pytest.param([Silence()], id="before the answer"),
        pytest.param([b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf", Silence()], id="within the body"),
    ],
)
def test_silence_ends_with_a_timeout(pieces: list[Piece]) -> None:
    with asking(*pieces, timeouts=SHORT) as endpoint, pytest.raises(EndpointTimeout, match=r"silent for 0\.2 s"):
        endpoint.get("/state")


@pytest.mark.parametrize("framing", ["Content-Length: 1000000", "Transfer-Encoding: chunked"])
def test_an_answer_that_drips_ends_at_the_deadline(framing: str) -> None:
    drop = b"1\r\nx\r\n" if "chunked" in framing else b"x"

    def drip(request: Request) -> Iterable[Piece]:
        yield f"HTTP/1.1 200 OK\r\n{framing}\r\n\r\n".encode()
        while True:
            yield drop
            yield Silence(0.05)

    with (
        Loopback(drip) as server,
        Endpoint(server.url, timeouts=SHORT) as endpoint,
        pytest.raises(EndpointTimeout, match=r"not complete after 0\.5 s"),
    ):
        endpoint.get("/state")


@pytest.mark.parametrize(
    "pieces",
    [
        pytest.param([], id="closed before the answer"),
        pytest.param([Reset()], id="reset before the answer"),
        pytest.param([b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf"], id="shorter than announced"),
        pytest.param([b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf", Reset()], id="reset in the body"),
        pytest.param([b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab"], id="within a chunk"),
        pytest.param([b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n"], id="no last chunk"),
    ],
)
def test_a_cut_connection_is_never_a_short_answer(pieces: list[Piece]) -> None:
    with asking(*pieces) as endpoint, pytest.raises(ConnectionCut):
        endpoint.get("/state")


@pytest.mark.parametrize("framing", ["chunked", "gzip", "until closed"])
def test_bodies_are_read_whole(framing: str) -> None:
    content = b"0123456789" * 300_000
    head = b"HTTP/1.1 200 OK\r\n"
    if framing == "chunked":
        pieces = [head, b"Transfer-Encoding: chunked\r\n\r\n"]
        pieces += [b"%x\r\n%s\r\n" % (len(content), content), b"0\r\n\r\n"]
    elif framing == "gzip":
        packed = gzip.compress(content)
        pieces = [head, b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(packed), packed]
    else:
        pieces = [head, b"Connection: close\r\n\r\n", content]
    with serving(*pieces) as server, Endpoint(server.url) as endpoint:
        assert endpoint.get("/").body == content


def test_a_damaged_compression_is_named() -> None:
    damaged = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\nabcd"
    with serving(damaged) as server, Endpoint(server.url) as endpoint, pytest.raises(UnexpectedAnswer, match="damaged"):
        endpoint.get("/")


def test_a_redirect_within_the_service_is_followed() -> None:
    def reply(request: Request) -> list[Piece]:
        return [answer(200, {}) if request.target == "/master/state" else answer(307, Location="/master/state")]

    with Loopback(reply) as server, Endpoint(server.url) as endpoint:
        assert endpoint.get("/state").url == f"{server.url}/master/state"


def test_a_redirect_to_another_port_is_refused_and_says_where() -> None:
    with (
        serving(answer(200, {})) as other,
        asking(answer(307, Location=f"//{other.address}/state")) as endpoint,
        pytest.raises(UnexpectedAnswer, match=other.address),
    ):
        endpoint.get("/state")
    assert other.requests == []


def test_a_redirect_elsewhere_is_followed_when_asked_for_and_takes_no_credentials() -> None:
    with (
        serving(answer(200, {"id": 1})) as other,
        serving(answer(307, Location=f"//{other.address}/state")) as server,
        Endpoint(f"http://user:s3cret@{server.address}") as endpoint,
    ):
        assert endpoint.get("/state", elsewhere=True).json() == {"id": 1}
    assert server.requests[0].headers["authorization"] == "Basic dXNlcjpzM2NyZXQ="
    assert "authorization" not in other.requests[0].headers


def test_307_keeps_the_method_and_the_body() -> None:
    def reply(request: Request) -> list[Piece]:
        return [answer(200, {}) if request.target == "/there" else answer(307, Location="/there")]

    with Loopback(reply) as server, Endpoint(server.url) as endpoint:
        endpoint.request("POST", "/here", body=[1])
    assert [(request.method, request.body) for request in server.requests] == [("POST", b"[1]")] * 2


def test_a_redirect_decides_about_the_query() -> None:
    def reply(request: Request) -> list[Piece]:
        return [answer(200, {}) if request.target.startswith("/there") else answer(307, Location="/there?b=2")]

    with Loopback(reply) as server, Endpoint(server.url) as endpoint:
        endpoint.get("/here", params={"a": 1})
    assert [request.target for request in server.requests] == ["/here?a=1", "/there?b=2"]


def test_303_is_followed_with_a_get() -> None:
    def reply(request: Request) -> list[Piece]:
        return [answer(200, {}) if request.target == "/result" else answer(303, Location="/result")]

    with Loopback(reply) as server, Endpoint(server.url) as endpoint:
        endpoint.request("POST", "/job", body={})
    assert [(request.method, request.body) for request in server.requests] == [("POST", b"{}"), ("GET", b"")]


def test_a_302_to_a_post_is_not_guessed_at() -> None:
    with asking(answer(302, Location="/there")) as endpoint, pytest.raises(UnexpectedAnswer, match="302"):
        endpoint.request("POST", "/here", body={})


def test_a_circle_of_redirects_ends() -> None:
    with asking(answer(307, Location="/state")) as endpoint, pytest.raises(UnexpectedAnswer, match="more than 5 times"):
        endpoint.get("/state")


@pytest.mark.parametrize(
    "location", ["ftp://127.0.0.1/x", "http://", "mailto:root", "//h:99999/", "//h:x/", "http://[::1", "//a..b/"]
)
def test_a_redirect_to_no_http_address_is_refused(location: str) -> None:
    with asking(answer(307, Location=location)) as endpoint, pytest.raises(UnexpectedAnswer):
        endpoint.get("/", elsewhere=True)


def test_credentials_of_the_url_reach_the_service_and_no_message() -> None:
    with serving(answer(500, "broken")) as server:
        endpoint = Endpoint(f"http://admin:pa%3Ass@{server.address}/")
        with endpoint, pytest.raises(ServiceError) as caught:
            endpoint.get("/x")
    assert server.requests[0].headers["authorization"] == "Basic YWRtaW46cGE6c3M="
    assert "pa" not in repr(endpoint)
    for shown in (str(caught.value), repr(caught.value), repr(caught.value.answer)):
        assert "pa:ss" not in shown
        assert "pa%3Ass" not in shown


def test_the_environment_names_no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(answer(500, "proxied")) as proxy, serving(answer(200, {})) as server:
        monkeypatch.setenv("http_proxy", proxy.url)
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("NO_PROXY", raising=False)
        with Endpoint(server.url) as endpoint:
            assert endpoint.get("/").status == 200
    assert proxy.requests == []


@pytest.mark.parametrize("url", ["node1:8150", "zk://node1:2181/mesos", "http://", ""])
def test_what_is_no_http_url_is_refused_at_once(url: str) -> None:
    with pytest.raises(ValueError, match="not an http"):
        Endpoint(url)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://u:p@h:1/a@b", "http://h:1/a@b"),
        ("http://h:1/x?y=1", "http://h:1/x?y=1"),
        ("https://u@h", "https://h"),
        ("http://u:p@q@h/", "http://h/"),
    ],
)
def test_redaction(url: str, shown: str) -> None:
    assert redact_url(url) == shown


# answers that do not end

OPEN = b"HTTP/1.1 200 Said\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"


def test_lines_come_as_they_are_sent_and_end_with_the_answer() -> None:
    with serving(OPEN + b"one\r\ntw", b"o\n\nlast") as server, Endpoint(server.url) as endpoint:
        with endpoint.stream(
            "/v2/events", params={"kind": ["a", "b"]}, headers={"Accept": "text/event-stream"}
        ) as lines:
            assert list(lines) == [b"one", b"two", b"", b"last"]
        assert server.requests[0].target == "/v2/events?kind=a&kind=b"
        assert server.requests[0].headers["accept"] == "text/event-stream"


def test_a_stream_may_be_left_before_its_end() -> None:
    with asking(OPEN + b"one\n", Silence()) as endpoint, endpoint.stream("/v2/events") as lines:
        assert next(lines) == b"one"


def test_a_stream_may_be_silent_for_its_own_time_and_no_longer() -> None:
    with (
        asking(OPEN, Silence(0.3), b"late\n", Silence(), timeouts=SHORT) as endpoint,
        endpoint.stream("/v2/events", pause=0.6) as lines,
    ):
        assert next(lines) == b"late"
        with pytest.raises(EndpointTimeout, match=r"silent for 0\.6 s"):
            next(lines)


def test_a_stream_that_is_refused_shows_why() -> None:
    with (
        asking(answer(503, JETTY, kind="text/html")) as endpoint,
        pytest.raises(NotReady, match="Could not determine the current leader"),
        endpoint.stream("/v2/events"),
    ):
        pass


def test_a_stream_follows_a_redirect_elsewhere_only_when_asked() -> None:
    with serving(OPEN + b"here\n") as there:
        moved = answer(307, Location=f"{there.url}/v2/events")
        with asking(moved) as endpoint, endpoint.stream("/v2/events", elsewhere=True) as lines:
            assert list(lines) == [b"here"]
        with (
            asking(moved) as endpoint,
            pytest.raises(UnexpectedAnswer, match="redirects to"),
            endpoint.stream("/v2/events"),
        ):
            pass


def test_each_media_type_of_accept_goes_on_a_line_of_its_own() -> None:
    """Registry 2.3 compares whole lines with the types that it knows (domain-facts 3)."""
    with serving(answer(200, {})) as server, Endpoint(server.url) as endpoint:
        endpoint.get("/v2/", headers={"Accept": "application/json, text/html;q=0.5"})
        endpoint.get("/v2/", headers={"Accept": "application/json"})
    sent = [[line for line in request.lines if line.lower().startswith("accept:")] for request in server.requests]
    assert sent == [["Accept: application/json", "Accept: text/html;q=0.5"], ["Accept: application/json"]]


# something big

BIG = b"HTTP/1.1 200 Said\r\nContent-Length: 8\r\nConnection: close\r\n\r\n"


def test_a_download_comes_in_pieces() -> None:
    with asking(BIG + b"one", Silence(0.1), b"\ntwo\n") as endpoint, endpoint.download("/blob") as pieces:
        read = list(pieces)
    assert len(read) > 1
    assert b"".join(read) == b"one\ntwo\n"


def test_a_download_that_ends_early_or_pauses_is_named() -> None:
    with (
        asking(BIG + b"one") as endpoint,
        endpoint.download("/blob") as pieces,
        pytest.raises(ConnectionCut),
    ):
        list(pieces)
    with (
        asking(BIG + b"one", Silence(), timeouts=SHORT) as endpoint,
        endpoint.download("/blob") as pieces,
        pytest.raises(EndpointTimeout, match=r"silent for 0\.2 s"),
    ):
        list(pieces)


class Shown(AuthBase):
    """Credentials of a kind that requests does not know."""

    def __call__(self, request: PreparedRequest) -> PreparedRequest:
        request.headers["Authorization"] = "Bearer token"
        return request


def test_a_download_from_elsewhere_is_not_shown_credentials() -> None:
    with serving(BIG + b"from far") as there, serving(answer(307, Location=f"{there.url}/data")) as server:
        with (
            Endpoint(server.url, auth=Shown()) as endpoint,
            endpoint.download("/blob", elsewhere=True) as pieces,
        ):
            assert b"".join(pieces) == b"from far"
        with (
            Endpoint(server.url, auth=Shown()) as endpoint,
            pytest.raises(UnexpectedAnswer, match="redirects to"),
            endpoint.download("/blob"),
        ):
            pass
    assert [request.headers.get("authorization") for request in server.requests] == ["Bearer token"] * 2
    assert [request.headers.get("authorization") for request in there.requests] == [None]


def test_a_password_of_any_script_is_sent_in_utf_8() -> None:
    with serving(answer(200)) as server, Endpoint(server.url, auth=("操作员", "密码€")) as endpoint:
        endpoint.get("/")
    sent = server.requests[0].headers["authorization"].removeprefix("Basic ")
    assert base64.b64decode(sent).decode() == "操作员:密码€"
