"""Marathon's events, as server-sent events (W3C, 'Server-Sent Events'; Marathon's 'Event Bus')."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Event:
    """One event: its kind (`deployment_success`, …) and what it says, `timestamp` included."""

    kind: str
    content: Mapping[str, Any]


def parse(lines: Iterable[bytes]) -> Iterator[Event]:
    """The events in the lines of a stream; what only keeps it open, and half an event at its end, is passed over."""
    data: list[str] = []
    kind = ""
    for line in lines:
        name, _, value = line.decode("utf-8", errors="replace").partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            data.append(value)
        elif name == "event":
            kind = value
        elif not line:
            if data:
                content = json.loads("\n".join(data))
                yield Event(kind or content.get("eventType", ""), content)
            data, kind = [], ""
