"""HTTP as libprocess serves it, streams of events in RecordIO, and a client for both.

A handler takes a `Request` and gives a `Response` or an `EventStream`: a response without an end, whose chunks each
carry one record (the length of the JSON in decimal, a newline, the JSON), as Mesos' scheduler API has it. Errors are
plain text without a Content-Type.
"""

import contextlib
import json
import socket
import struct
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException, HTTPResponse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BufferedIOBase
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from .glog import Log

Json = dict[str, Any]
JSON_TYPE = "application/json"
INTERNAL = "/rehearsal/"  # the doubles' own paths
CONNECT_TIMEOUT = 2.0  # seconds; a host that was switched off does not even refuse
SEND_TIMEOUT = 5  # seconds after which a peer that reads nothing counts as gone


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]  # names in lower case
    body: bytes

    def json(self) -> Any:
        """The body as JSON; ValueError where it is none."""
        return json.loads(self.body)


@dataclass(frozen=True)
class Response:
    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


def compact(value: object) -> str:
    """JSON as Mesos writes protobuf messages: without blanks, keys in order."""
    return json.dumps(value, separators=(",", ":"), sort_keys=True)


def ok(value: object) -> Response:
    return Response(200, compact(value).encode(), {"Content-Type": JSON_TYPE})


def text(status: int, message: str = "") -> Response:
    """An answer in plain text, to which libprocess adds no Content-Type."""
    return Response(status, message.encode())


def form(request: Request) -> dict[str, str]:
    """The `name=value` pairs in a body; a name without a value has an empty one."""
    body = request.body.decode(errors="replace").replace(";", "&")
    return dict(parse_qsl(body, keep_blank_values=True))


def temporary_redirect(location: str) -> Response:
    return Response(307, headers={"Location": location})


def not_allowed(request: Request, *methods: str) -> Response:
    expected = "', '".join(methods)
    message = f"Expecting '{expected}', received '{request.method}'"
    return Response(405, message.encode(), {"Allow": ", ".join(methods)})


class EventStream:
    """The server's side of a stream of events. Events sent before the stream is served wait for it.

    `closed` is called once, from the thread that serves the stream, when either side has ended it.
    """

    def __init__(self, headers: Mapping[str, str], closed: Callable[[], None]) -> None:
        self.headers = {"Content-Type": JSON_TYPE, **headers}
        self._closed = closed
        self._lock = threading.Lock()
        self._waiting: list[bytes] = []
        self._socket: socket.socket | None = None
        self._over = False

    def send(self, event: Json) -> None:
        """Send one event; a peer that is gone or reads nothing ends the stream instead of raising."""
        record = json.dumps(event).encode()
        record = b"%d\n%s" % (len(record), record)
        self._write(b"%x\r\n%s\r\n" % (len(record), record))

    def close(self) -> None:
        """End the stream in good order."""
        self._write(b"0\r\n\r\n")
        with self._lock:
            self._end()

    def serve(self, connection: socket.socket, incoming: BufferedIOBase) -> None:
        """Send what waited, then wait until one side ends the stream."""
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", SEND_TIMEOUT, 0))
        with self._lock:
            self._socket = connection
            waiting, self._waiting = self._waiting, []
            for chunk in waiting:
                self._push(chunk)
            if self._over:
                self._end()
        with contextlib.suppress(OSError):  # a connection that was reset has ended too
            while incoming.read(1):
                pass
        with self._lock:
            self._over = True
        self._closed()

    def _write(self, chunk: bytes) -> None:
        with self._lock:
            if self._over:
                return
            if self._socket is None:
                self._waiting.append(chunk)
            else:
                self._push(chunk)

    def _push(self, chunk: bytes) -> None:
        assert self._socket is not None
        try:
            self._socket.sendall(chunk)
        except OSError:
            self._end()

    def _end(self) -> None:
        self._over = True
        if self._socket is not None:
            try:
                self._socket.shutdown(socket.SHUT_RDWR)
            except OSError:
                self._socket = None  # the peer was faster


Handler = Callable[[Request], Response | EventStream]


class Server(ThreadingHTTPServer):
    """Serves the handlers of a daemon, one thread a connection."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], log: Log) -> None:
        self.routes: dict[str, Handler] = {}
        self.log = log
        super().__init__(address, _Connection)

    def route(self, handler: Handler, *paths: str) -> None:
        self.routes.update(dict.fromkeys(paths, handler))

    def find(self, path: str) -> Handler | None:
        """The handler of the longest route that the path begins with; `/` is only a route of its own."""
        path = path.rstrip("/") or "/"
        while (handler := self.routes.get(path) or self.routes.get(path.removesuffix(".json"))) is None:
            path = path.rpartition("/")[0]
            if not path:
                return None
        return handler

    def start(self) -> None:
        threading.Thread(target=self.serve_forever, name="http", daemon=True).start()


class _Connection(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def _answer(self) -> None:
        url = urlsplit(self.path)
        headers = {name.lower(): value for name, value in self.headers.items()}
        body = self.rfile.read(int(headers.get("content-length", "0")))
        if not url.path.startswith(INTERNAL):
            agent = f" with User-Agent='{headers['user-agent']}'" if "user-agent" in headers else ""
            client = "{}:{}".format(*self.client_address)
            self.server.log.info("http.cpp:312", f"HTTP {self.command} for {url.path} from {client}{agent}")
        handler = self.server.find(url.path)
        query = dict(parse_qsl(url.query, keep_blank_values=True))
        request = Request(self.command, url.path, query, headers, body)
        answer = handler(request) if handler else Response(404)
        if isinstance(answer, EventStream):
            self._head(200, {"Transfer-Encoding": "chunked", **answer.headers})
            self.close_connection = True
            answer.serve(self.connection, self.rfile)
        else:
            self._head(answer.status, {**answer.headers, "Content-Length": str(len(answer.body))})
            self.wfile.write(b"" if self.command == "HEAD" else answer.body)

    do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = do_PATCH = _answer

    def _head(self, status: int, headers: Mapping[str, str]) -> None:
        self.send_response_only(status, HTTPStatus(status).phrase)
        self.send_header("Date", self.date_time_string())
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Requests are logged as libprocess logs them, above."""


class Gone(Exception):
    """The other daemon did not answer, or refused."""


def call(address: str, method: str, path: str, value: object = None, seconds: float = 5.0) -> Any:
    """Ask another daemon at `host:port` and give its JSON (None for an empty body); `Gone` unless it answers 2xx."""
    connection = HTTPConnection(address, timeout=seconds)
    try:
        body = None if value is None else json.dumps(value)
        connection.request(method, path, body, {"Content-Type": JSON_TYPE})
        response = connection.getresponse()
        answer = response.read()
    except (OSError, HTTPException) as error:
        raise Gone(f"{address}: {error}") from error
    finally:
        connection.close()
    if not 200 <= response.status < 300:
        raise Gone(f"{address}: {response.status} {answer.decode(errors='replace')}")
    return json.loads(answer) if answer else None


class EventSource:
    """The client's side of a stream of events: `with EventSource(...) as events: for event in events`."""

    def __init__(self, address: str, path: str, value: object, idle: float) -> None:
        """Open the stream with a POST; `idle` seconds without an event end it. `Gone` unless it opens."""
        self._connection = HTTPConnection(address, timeout=CONNECT_TIMEOUT)
        try:
            self._connection.connect()
            self.set_idle(idle)
            self._connection.request("POST", path, json.dumps(value), {"Content-Type": JSON_TYPE})
            self._response: HTTPResponse = self._connection.getresponse()
        except (OSError, HTTPException) as error:
            self.close()
            raise Gone(f"{address}: {error}") from error
        if self._response.status != 200:
            answer = self._response.read().decode(errors="replace")
            self.close()
            raise Gone(f"{address}: {self._response.status} {answer}")

    def __iter__(self) -> Iterator[Json]:
        """The events until the stream ends; TimeoutError where nothing came for `idle` seconds."""
        while True:
            try:
                length = self._response.readline()
                if not length:
                    return
                record = self._response.read(int(length))
            except TimeoutError:
                raise
            except (OSError, HTTPException):
                return
            yield json.loads(record)

    def set_idle(self, seconds: float) -> None:
        """Change after how long without an event the stream counts as dead."""
        self._connection.sock.settimeout(seconds)

    def stop(self) -> None:
        """End the stream for the thread that reads it, from any other."""
        if self._connection.sock is not None:
            with contextlib.suppress(OSError):  # the server was faster
                self._connection.sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Give the connection up, from the thread that reads."""
        self._connection.close()
