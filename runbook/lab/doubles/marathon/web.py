"""HTTP as Marathon serves it: JSON answers, Jetty's HTML for errors below it, streams, and the proxy to the leader."""

import html
import json
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException, HTTPResponse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

Json = dict[str, Any]
JSON_TYPE = "application/json"
VIA, LEADER = "X-Marathon-Via", "X-Marathon-Leader"
HOP_BY_HOP = {"host", "connection", "transfer-encoding", "content-length", "date", "server"}
JETTY = "Jetty(9.3.z-SNAPSHOT)"
PIECE = 65536


@dataclass(frozen=True)
class Request:
    method: str
    target: str  # path and query
    headers: Mapping[str, str]  # names in lower case
    body: bytes
    client: str  # its address

    @property
    def path(self) -> str:
        return urlsplit(self.target).path

    def values(self, name: str) -> list[str]:
        """All values of a query parameter."""
        return parse_qs(urlsplit(self.target).query).get(name, [])

    def flag(self, name: str, default: bool = False) -> bool:
        """A boolean query parameter, as Java reads it: anything but `true` is false."""
        values = self.values(name)
        return values[-1].lower() == "true" if values else default


@dataclass(frozen=True)
class Response:
    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Stream:
    """A response whose body comes piece by piece and ends with the connection."""

    pieces: Iterable[bytes]
    headers: Mapping[str, str]
    status: int = 200


Answer = Response | Stream


def reply(value: object, status: int = 200, **headers: str) -> Response:
    named = {name.replace("_", "-"): text for name, text in headers.items()}
    return Response(status, json.dumps(value).encode(), {"Content-Type": JSON_TYPE, **named})


def message(status: int, text: str, **more: object) -> Response:
    """An error in Marathon's form."""
    return reply({"message": text, **more}, status)


def jetty_error(status: int, path: str, reason: str) -> Response:
    """An error that Jetty words: those of the proxy, and of servlets below Marathon."""
    shown = (
        '<html>\n<head>\n<meta http-equiv="Content-Type" content="text/html;charset=ISO-8859-1"/>\n'
        f"<title>Error {status} </title>\n</head>\n<body>\n<h2>HTTP ERROR: {status}</h2>\n"
        f"<p>Problem accessing {html.escape(path)}. Reason:\n<pre>    {html.escape(reason)}</pre></p>\n"
        '<hr /><a href="http://eclipse.org/jetty">Powered by Jetty:// 9.3.z-SNAPSHOT</a><hr/>\n</body>\n</html>\n'
    )
    return Response(status, shown.encode("latin-1", "replace"), {"Content-Type": "text/html; charset=ISO-8859-1"})


class Server(ThreadingHTTPServer):
    """Answers requests by `front`, one thread a connection."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], front: Callable[[Request], Answer]) -> None:
        self.front = front
        super().__init__(address, _Connection)

    def start(self) -> None:
        threading.Thread(target=self.serve_forever, name="http", daemon=True).start()


class _Connection(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def _answer(self) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        body = self.rfile.read(int(headers.get("content-length", "0")))
        answer = self.server.front(Request(self.command, self.path, headers, body, self.client_address[0]))
        if isinstance(answer, Stream):
            self.close_connection = True
            self._head(answer.status, {**answer.headers, "Connection": "close"})
            try:
                for piece in answer.pieces:
                    self.wfile.write(piece)
            except OSError:
                return  # the client is gone
        else:
            self._head(answer.status, {**answer.headers, "Content-Length": str(len(answer.body))})
            self.wfile.write(b"" if self.command == "HEAD" else answer.body)

    do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = do_PATCH = do_OPTIONS = _answer

    def _head(self, status: int, headers: Mapping[str, str]) -> None:
        self.send_response_only(status, HTTPStatus(status).phrase)
        self.send_header("Date", self.date_time_string())
        self.send_header("Server", JETTY)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Marathon logs what requests do, not each request."""


def forward(leader: str, me: str, request: Request, connect: float, read: float) -> Answer:
    """The leader's answer to a request that came to the standby `me`; both as `host:port`, limits in seconds."""
    via = f"1.1 {me}"
    if via in request.headers.get(VIA.lower(), "").split(", "):
        return jetty_error(502, request.path, "Detected proxying loop.")
    headers = {name: value for name, value in request.headers.items() if name not in HOP_BY_HOP}
    headers[VIA] = ", ".join(filter(None, [request.headers.get(VIA.lower()), via]))
    headers["X-Forwarded-For"] = request.client
    connection = HTTPConnection(leader, timeout=connect)
    try:
        connection.connect()
        connection.sock.settimeout(read)
        connection.request(request.method, request.target, request.body or None, headers)
        response = connection.getresponse()
        passed = {name: value for name, value in response.getheaders() if name.lower() not in HOP_BY_HOP}
        passed[VIA] = ", ".join(filter(None, [passed.get(VIA), via]))
        if response.headers.get_content_type() == "text/event-stream":
            return Stream(_pieces(connection, response), passed, response.status)
        answer = Response(response.status, response.read(), passed)
    except ConnectionRefusedError:
        answer = jetty_error(502, request.path, "Connection to leader refused.")
    except (OSError, HTTPException):  # a time-out as well: 504 comes with 1.3.13
        answer = jetty_error(500, request.path, "java.lang.RuntimeException: while proxying")
    connection.close()
    return answer


def _pieces(connection: HTTPConnection, response: HTTPResponse) -> Iterator[bytes]:
    try:
        while piece := response.read1(PIECE):
            yield piece
    except (OSError, HTTPException):
        return  # the leader is gone: the client's stream ends with its own
    finally:
        connection.close()


def with_header(answer: Answer, name: str, value: str) -> Answer:
    return replace(answer, headers={**answer.headers, name: value})
