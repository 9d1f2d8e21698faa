"""Waiting for a condition."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from tenacity import RetryError, Retrying, retry_if_result, stop_after_delay, wait_fixed

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
