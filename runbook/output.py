"""Keep every line that a notebook's kernel prints.

ipykernel publishes output on a ZeroMQ socket that drops messages when a reader falls 1,000 messages behind, without an
error (nteract/nteract#4188). `keep_all` makes that socket wait for the reader instead (ZMQ_XPUB_NODROP,
zmq_setsockopt(3)), and joins text that is printed in quick succession into one message, so that a reader does not fall
behind.

A reader that reads nothing for `PATIENCE` seconds must not stop a kernel: from then on output is cut and counted, until
the reader goes on. What was cut is written into the notebook (a line on standard error of the cell) and, where a
chapter is open, into the journal (`output_cut`).
"""

from __future__ import annotations

import atexit
import contextlib
import sys
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from runbook.errors import RunbookError

PATIENCE = 20.0
"""Seconds to wait for a reader; below the 30 s after which ipykernel gives up ending its output thread."""
PAUSE = 0.05
"""Seconds within which text joins the message before it: at most 20 messages a second and stream."""
RETRY = 1.0
"""Seconds between two attempts to reach a reader that stopped reading."""
KEPT = 1000
"""How many messages without output (status, errors, …) are kept for a reader that stopped reading."""

OUTPUT = frozenset({"stream", "display_data", "update_display_data", "execute_result"})
DELIMITER = b"<IDS|MSG>"  # jupyter_client.session.DELIM

_publisher: Publisher | None = None


def keep_all() -> None:
    """Let the kernel of this process lose no output; does nothing in any other program, and nothing the second time."""
    global _publisher
    application = sys.modules.get("ipykernel.kernelapp")
    if application is None or _publisher is not None or not application.IPKernelApp.initialized():
        return
    kernel = application.IPKernelApp.instance()
    thread = getattr(kernel, "iopub_thread", None)
    if thread is None or not hasattr(thread.socket, "setsockopt"):  # a kernel inside another program has no socket
        return
    _publisher = Publisher(thread, kernel.session)
    thread.schedule(_publisher.install)
    atexit.register(thread.schedule, _publisher.release)


def report_cut() -> None:
    """Emit an event `output_cut` if output was cut since the last one was emitted."""
    if _publisher is not None:
        _publisher.report()


@dataclass
class Message:
    """One message of Jupyter's protocol: its type, and its frames as they are sent, without delimiter and signature."""

    kind: str
    topic: list[bytes]
    header: bytes
    parent: bytes
    metadata: bytes
    content: bytes


class Publisher:
    """Sends the messages of one kernel; all methods but `report` run in ipykernel's output thread."""

    def __init__(self, thread: Any, session: Any) -> None:
        self._thread = thread
        self._session = session
        self._send: Callable[..., Any] = thread.socket.send_multipart
        self._held: list[Message] = []  # text of one stream that is still to be sent as one message
        self._pausing = False
        self._stalled = False
        self._kept: deque[tuple[Sequence[bytes], dict[str, Any]]] = deque()
        self._cut: Message | None = None  # the last message that was cut
        self._messages = self._bytes = 0  # cut since the last notice in the notebook
        self._unreported = (0, 0)  # cut since the last event
        self._reporting = threading.Lock()

    def install(self) -> None:
        """Take the place of the socket's own `send_multipart`."""
        import zmq

        socket = self._thread.socket
        socket.setsockopt(zmq.XPUB_NODROP, 1)
        socket.setsockopt(zmq.SNDTIMEO, int(PATIENCE * 1000))
        socket.send_multipart = self.send

    def send(self, frames: Sequence[bytes], *flags: Any, **options: Any) -> None:
        """Send one message after those before it. Text that follows text is held back for `PAUSE` seconds."""
        message = self._parsed(frames)
        if message is None or message.kind != "stream":
            self.release()
            self._deliver(frames, options, message)
            return
        if self._held and (self._held[-1].topic, self._held[-1].parent) != (message.topic, message.parent):
            self.release()
        if self._pausing:
            self._held.append(message)
            return
        self._deliver(frames, options, message)
        self._pause()

    def release(self) -> None:
        """Send the text that is held back."""
        if not self._held:
            return
        held, self._held = self._held, []
        last = held[-1]
        texts = (self._session.unpack(message.content)["text"] for message in held)
        last.content = self._session.pack({**self._session.unpack(last.content), "text": "".join(texts)})
        self._deliver(self._frames(last), {}, last, count=len(held))

    def _pause(self) -> None:
        def over() -> None:
            self._pausing = False
            if self._held:
                self.release()
                self._pause()

        self._pausing = True
        self._thread.io_loop.call_later(PAUSE, over)

    def _parsed(self, frames: Sequence[bytes]) -> Message | None:
        if DELIMITER not in frames:
            return None
        at = list(frames).index(DELIMITER)
        header, parent, metadata, content = frames[at + 2 : at + 6]  # after the signature
        return Message(self._session.unpack(header)["msg_type"], list(frames[:at]), header, parent, metadata, content)

    def _frames(self, message: Message) -> list[bytes]:
        parts = [message.header, message.parent, message.metadata, message.content]
        return [*message.topic, DELIMITER, self._session.sign(parts), *parts]

    def _deliver(
        self, frames: Sequence[bytes], options: dict[str, Any], message: Message | None, count: int = 1
    ) -> None:
        """Send, or, where the reader does not read, keep or cut a message that stands for `count` printed ones."""
        import zmq

        if not self._stalled or self._resumed():
            try:
                self._send(frames, **options)
            except zmq.Again:
                self._stalled = True
                self._thread.io_loop.call_later(RETRY, self._retry)
            else:
                return
        if message is None or (message.kind not in OUTPUT and len(self._kept) < KEPT):
            self._kept.append((frames, options))
            return
        self._cut = message
        size = len(message.content)
        self._messages, self._bytes = self._messages + count, self._bytes + size
        self._unreported = (self._unreported[0] + count, self._unreported[1] + size)

    def _retry(self) -> None:
        if self._stalled and not self._resumed():
            self._thread.io_loop.call_later(RETRY, self._retry)

    def _resumed(self) -> bool:
        """Whether the reader reads again: what was kept for it, and how much was cut, is sent then."""
        import zmq

        try:
            if self._cut is not None:
                self._send(self._notice(self._cut), zmq.NOBLOCK)
                self._cut, self._messages, self._bytes = None, 0, 0
            while self._kept:
                frames, options = self._kept[0]
                self._send(frames, zmq.NOBLOCK, **options)
                self._kept.popleft()
        except zmq.Again:
            return False
        self._stalled = False
        with contextlib.suppress(RunbookError):  # a journal that cannot be written; the chapter's end reports it again
            self.report()
        return True

    def _notice(self, cut: Message) -> list[bytes]:
        """A line of standard error for the cell whose output was cut."""
        text = f"runbook: {self._messages} messages ({self._bytes} bytes) of output were cut here: the reader of this "
        text += f"kernel's output read nothing for {PATIENCE:.0f} s\n"
        header = self._session.msg_header("stream")
        return list(
            self._session.serialize(
                {
                    "header": header,
                    "msg_id": header["msg_id"],
                    "msg_type": "stream",
                    "parent_header": self._session.unpack(cut.parent),
                    "metadata": {},
                    "content": {"name": "stderr", "text": text},
                },
                ident=b"stream.stderr",
            )
        )

    def report(self) -> None:
        """Emit how much was cut since the last report."""
        from runbook import events

        with self._reporting:
            messages, size = self._unreported
            if messages:
                events.emit(event="output_cut", messages=messages, bytes=size)
                self._unreported = (self._unreported[0] - messages, self._unreported[1] - size)
