"""The event bus, as server-sent events (Marathon's 'Event Bus')."""

import json
import queue
import threading
from collections.abc import Iterator
from typing import Any

from .apps import timestamp

HEARTBEAT = 10.0  # seconds; an empty line, by which a client that is gone is noticed, and a proxy's limit kept


class Events:
    """Publishes events to whoever listens at the moment; nothing is kept for later."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._listeners: set[queue.SimpleQueue[bytes | None]] = set()

    def publish(self, kind: str, **content: Any) -> None:
        event = {**content, "eventType": kind, "timestamp": timestamp()}
        data = f"event: {kind}\r\ndata: {json.dumps(event)}\r\n\r\n".encode()
        with self._lock:
            for listener in self._listeners:
                listener.put(data)

    def stream(self, client: str) -> Iterator[bytes]:
        """The events from now on, of all kinds: the filter came with 1.3.7. Ends with `close`."""
        listener: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        with self._lock:
            self._listeners.add(listener)
        self.publish("event_stream_attached", remoteAddress=client)
        return self._listen(listener, client)

    def close(self) -> None:
        """End all streams."""
        with self._lock:
            for listener in self._listeners:
                listener.put(None)

    def _listen(self, listener: "queue.SimpleQueue[bytes | None]", client: str) -> Iterator[bytes]:
        try:
            while True:
                try:
                    data = listener.get(timeout=HEARTBEAT)
                except queue.Empty:
                    data = b"\r\n"
                if data is None:
                    return
                yield data
        finally:
            with self._lock:
                self._listeners.discard(listener)
            self.publish("event_stream_detached", remoteAddress=client)
