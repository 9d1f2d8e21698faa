"""The observer hook."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from runbook import events, secrets


@pytest.fixture
def seen() -> Iterator[list[events.Event]]:
    told: list[events.Event] = []
    unsubscribe = events.subscribe(told.append)
    yield told
    unsubscribe()


def test_observers_are_told_until_they_unsubscribe() -> None:
    told: list[events.Event] = []
    unsubscribe = events.subscribe(told.append)
    events.emit(event="step", host="node1")
    unsubscribe()
    events.emit(event="step", host="node2")
    assert told == [{"event": "step", "host": "node1"}]


def test_without_an_observer_an_event_is_lost() -> None:
    events.emit(event="step")


def test_each_observer_has_an_event_of_its_own(seen: list[events.Event]) -> None:
    unsubscribe = events.subscribe(lambda event: event.clear())
    events.emit(event="step", host="node1")
    unsubscribe()
    events.emit(event="step", host="node2")
    assert [event["host"] for event in seen] == ["node1", "node2"]


def test_secrets_are_masked_at_any_depth(seen: list[events.Event], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REHEARSAL_SECRET", "a-secret-for-events")
    secrets.SecretReference("env:REHEARSAL_SECRET").resolve()
    events.emit(event="check", evidence="password a-secret-for-events", table=[{"key": "a-secret-for-events"}])
    assert seen == [{"event": "check", "evidence": "password ***", "table": [{"key": "***"}]}]


def test_what_an_observer_raises_reaches_the_emitter() -> None:
    def full(event: events.Event) -> None:
        raise OSError("disk full")

    unsubscribe = events.subscribe(full)
    with pytest.raises(OSError, match="disk full"):
        events.emit(event="step")
    unsubscribe()


def test_threads_emit_at_once_and_nothing_is_lost(seen: list[events.Event]) -> None:
    def tell(host: str) -> None:
        for number in range(200):
            events.emit(event="step", host=host, n=number)

    threads = [threading.Thread(target=tell, args=(host,)) for host in ("node1", "node2", "node3")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for host in ("node1", "node2", "node3"):
        assert [event["n"] for event in seen if event["host"] == host] == list(range(200))
