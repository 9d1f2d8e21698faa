"""A server on the loopback that answers exactly what a test says, byte for byte, misbehaviour included."""

from __future__ import annotations

import json
import socket
import struct
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self


@dataclass(frozen=True)
class Silence:
    """Say nothing for `seconds`; without a number, until the server ends."""

    seconds: float | None = None


class Reset:
    """End the connection with RST, as the kernel does for a process that died."""


Piece = bytes | Silence | Reset


@dataclass(frozen=True)
class Request:
    method: str
    target: str  # path and query
    headers: dict[str, str]  # names in lower case
    body: bytes
    lines: tuple[str, ...] = ()  # the headers as they came


class Loopback:
    """Answers each request with the pieces that `reply` gives for it, then closes the connection."""

    def __init__(self, reply: Callable[[Request], Iterable[Piece]]) -> None:
        self._reply = reply
        self._ended = threading.Event()
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._threads = [threading.Thread(target=self._accept)]
        self.requests: list[Request] = []
        self.port: int = self._socket.getsockname()[1]
        self.address = f"127.0.0.1:{self.port}"
        self.url = f"http://{self.address}"

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        for thread in self._threads:
            thread.join(timeout=5)
            assert not thread.is_alive()

    def _accept(self) -> None:
        while not self._ended.is_set():
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return  # closed by __exit__
            thread = threading.Thread(target=self._serve, args=(connection,))
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            request = _read(connection)
            if request is None:
                return
            self.requests.append(request)
            for piece in self._reply(request):
                match piece:
                    case Silence(seconds):
                        if self._ended.wait(seconds):
                            return
                    case Reset():
                        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                        return
                    case _:
                        try:
                            connection.sendall(piece)
                        except OSError:
                            return  # the client has given up


def _read(connection: socket.socket) -> Request | None:
    received = b""
    while b"\r\n\r\n" not in received:
        piece = connection.recv(65536)
        if not piece:
            return None
        received += piece
        if received[:1] == b"\x16":  # a TLS handshake
            return Request("", "", {}, received)
    head, _, body = received.partition(b"\r\n\r\n")
    first, *rest = head.decode("latin-1").split("\r\n")
    method, target, _ = first.split(" ", 2)
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in rest)}
    while len(body) < int(headers.get("content-length", "0")):
        body += connection.recv(65536)
    return Request(method, target, headers, body, tuple(rest))


def answer(status: int, body: bytes | str | Any = b"", *, kind: str = "", **headers: str) -> bytes:
    """A whole HTTP answer. A body that is neither bytes nor text goes as JSON."""
    if isinstance(body, str):
        body, kind = body.encode(), kind or "text/plain"
    elif not isinstance(body, bytes):
        body, kind = json.dumps(body).encode(), kind or "application/json"
    lines = [f"HTTP/1.1 {status} Said", f"Content-Length: {len(body)}", "Connection: close"]
    if kind:
        lines.append(f"Content-Type: {kind}")
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body
