"""The observer hook through which every part tells what it does; the journal and the progress display subscribe.

An event is a flat mapping of names to JSON values with the key `event`: what happened. Nothing is remembered
here: without an observer an event is lost, so that a service can be used from any program.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from runbook.secrets import redact_data

Event = dict[str, Any]
Observer = Callable[[Event], None]

_observers: tuple[Observer, ...] = ()
_changing = threading.Lock()


def subscribe(observer: Observer) -> Callable[[], None]:
    """Call `observer` with every event from now on; the function that is returned ends this.

    Observers are called in the thread that emits, one event after the other in that thread, and several threads
    emit at once: an observer must be thread-safe. What an observer raises reaches the emitter: where a journal
    cannot be written, work must not go on unrecorded.
    """
    global _observers
    with _changing:
        _observers = (*_observers, observer)

    def unsubscribe() -> None:
        global _observers
        with _changing:
            _observers = tuple(one for one in _observers if one is not observer)

    return unsubscribe


def emit(**event: Any) -> None:
    """Tell every observer of one event, with known secrets masked.

    `event` holds the key `event` (`step`, `check`, `gate`, `progress`, …) and JSON values.
    """
    observers = _observers
    if not observers:
        return
    told: Event = redact_data(event)
    for observer in observers:
        observer(dict(told))
