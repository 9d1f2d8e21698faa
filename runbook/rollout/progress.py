"""What a person sees while a rollout runs, and the channel that feeds it from the kernels."""

from __future__ import annotations

import contextlib
import json
import os
import socket
from typing import Any

VARIABLE = "RUNBOOK_PROGRESS"  # names the socket that a rollout listens on, in its kernels' environment


class Channel:
    """The kernel's end: tells of progress without ever waiting, and without a trace where nobody listens.

    What is shown and not journalled (so many bytes of a file) travels as a datagram on a Unix socket; an empty one
    says that the journal has a new line.
    """

    def __init__(self, address: str | None) -> None:
        self._address = address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)

    @classmethod
    def of_environment(cls) -> Channel:
        """The channel of the rollout that started this kernel; a mute one outside a rollout."""
        return cls(os.environ.get(VARIABLE))

    def send(self, event: dict[str, Any]) -> None:
        """Show one event."""
        self._send(json.dumps(event, default=str).encode())

    def wake(self) -> None:
        """Say that there is a new line in the journal."""
        self._send(b"")

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def _send(self, datagram: bytes) -> None:
        if self._address is None:
            return
        # display only: a display that is slow or gone must not hold up or fail the work
        with contextlib.suppress(BlockingIOError, ConnectionRefusedError, FileNotFoundError):
            self._socket.sendto(datagram, self._address)
