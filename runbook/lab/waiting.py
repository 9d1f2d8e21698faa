"""Waiting for a condition, or for other labs of this machine."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from tenacity import RetryError, Retrying, retry_if_result, stop_after_delay, wait_fixed

from runbook.errors import LabError

T = TypeVar("T")


def until(question: Callable[[], T | None], *, seconds: float, pause: float = 0.1) -> T:
    """The first true answer to `question`, asked every `pause` seconds; TimeoutError after `seconds`."""
    asking = Retrying(
        retry=retry_if_result(lambda answer: not answer), stop=stop_after_delay(seconds), wait=wait_fixed(pause)
    )
    try:
        answer = asking(question)
    except RetryError as error:
        raise TimeoutError(f"not within {seconds:g} s") from error
    assert answer is not None  # what retry_if_result lets through
    return answer


@contextmanager
def turn(what: str, *, seconds: float) -> Iterator[None]:
    """Wait until no other lab of this machine, of whatever user, is at `what`, and keep them from it meanwhile.

    The turn is an abstract socket (unix(7)), which the kernel frees with the process. LabError after `seconds`.
    """
    with socket.socket(socket.AF_UNIX) as holder:

        def take() -> bool:
            try:
                holder.bind(f"\0runbook-lab-{what}")
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
                return False
            return True

        try:
            until(take, seconds=seconds)
        except TimeoutError:
            raise LabError(
                f"another lab on this machine has been at its {what} for {seconds:g} s", "see what it waits for"
            ) from None
        yield
