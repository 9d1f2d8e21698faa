"""`HttpParser` with what pymesos uses of it, over h11."""

import h11


class HttpParser:
    """Parses one answer, piece by piece."""

    def __init__(self) -> None:
        self._connection = h11.Connection(h11.CLIENT)
        self._connection.send(h11.Request(method="POST", target="/", headers=[("Host", "master")]))
        self._connection.send(h11.EndOfMessage())
        self._answer: h11.Response | None = None
        self._body = b""
        self._complete = False

    def execute(self, data: bytes, length: int) -> int:
        self._connection.receive_data(data[:length])
        while (event := self._connection.next_event()) not in (h11.NEED_DATA, h11.PAUSED):
            if isinstance(event, h11.Response):
                self._answer = event
            elif isinstance(event, h11.Data):
                self._body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                self._complete = True
        return length

    def is_headers_complete(self) -> bool:
        return self._answer is not None

    def get_status_code(self) -> int:
        assert self._answer
        return self._answer.status_code

    def get_headers(self) -> dict[str, str]:
        assert self._answer
        return {name.decode(): value.decode() for name, value in self._answer.headers}

    def is_chunked(self) -> bool:
        return self.get_headers().get("transfer-encoding") == "chunked"

    def is_partial_body(self) -> bool:
        return bool(self._body)

    def recv_body(self) -> bytes:
        body, self._body = self._body, b""
        return body

    def is_message_complete(self) -> bool:
        return self._complete
