"""Threads that read for the page, so that no question to the registry keeps the page from answering."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


class Superseded(Exception):
    """Something newer was asked for: what is being done is of no use any more."""


class Turn:
    """One job's time on its worker; it is over once something newer is asked for."""

    def __init__(self) -> None:
        self._over = threading.Event()

    def end(self) -> None:
        """Let the job stop at the next place where it looks."""
        self._over.set()

    def go_on(self) -> None:
        """Raise Superseded where the turn is over."""
        if self._over.is_set():
            raise Superseded

    def pause(self, seconds: float) -> None:
        """Wait; raises Superseded as soon as the turn is over."""
        if self._over.wait(seconds):
            raise Superseded


Job = Callable[[Turn], None]


class Worker:
    """One thread that does what it was asked last; what was asked before and is not done yet is dropped.

    `failed` is told of an error that a job raised. The thread starts with the first job and ends with the process.
    """

    def __init__(self, name: str, failed: Callable[[Exception], None]) -> None:
        self._name = name
        self._failed = failed
        self._changed = threading.Condition()
        self._job: Job | None = None
        self._turn: Turn | None = None
        self._thread: threading.Thread | None = None
        self._closed = False

    def ask(self, job: Job) -> None:
        """Do `job` as soon as the present one has stopped; it stops where it looks at its turn."""
        with self._changed:
            if self._closed:
                return
            self._job = job
            self._end_turn()
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name=self._name, daemon=True)
                self._thread.start()

    def close(self) -> None:
        """Stop the present job and take no other."""
        with self._changed:
            self._closed = True
            self._job = None
            self._end_turn()

    def settle(self, seconds: float) -> bool:
        """Wait until everything is done that was asked for; False where it is not after `seconds`."""
        with self._changed:
            return self._changed.wait_for(lambda: self._job is None and self._turn is None, seconds)

    def _end_turn(self) -> None:
        if self._turn is not None:
            self._turn.end()
        self._changed.notify_all()

    def _work(self) -> None:
        while (next_ := self._next()) is not None:
            job, turn = next_
            try:
                job(turn)
            except Superseded:
                continue
            except Exception as error:  # noqa: BLE001 (told on the page: a thread that ends would take its half along)
                self._failed(error)
            finally:
                with self._changed:
                    self._turn = None
                    self._changed.notify_all()

    def _next(self) -> tuple[Job, Turn] | None:
        with self._changed:
            self._changed.wait_for(lambda: self._job is not None or self._closed)
            if self._closed or self._job is None:
                return None
            job, self._job = self._job, None
            self._turn = Turn()
            return job, self._turn


class Throttle:
    """Lets something happen at most every `seconds`."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._next = 0.0

    def __call__(self) -> bool:
        """Whether it may happen now."""
        now = time.monotonic()
        if now < self._next:
            return False
        self._next = now + self._seconds
        return True
