"""Words that depend on a number."""

from __future__ import annotations

import pytest

from runbook.wording import plural


@pytest.mark.parametrize(
    ("count", "words", "told"),
    [
        (0, ("task",), "0 tasks"),
        (1, ("task",), "1 task"),
        (2, ("repository", "repositories"), "2 repositories"),
        (1, ("repository", "repositories"), "1 repository"),
        (10_000, ("tag",), "10,000 tags"),
    ],
)
def test_a_number_decides_on_its_word(count: int, words: tuple[str, ...], told: str) -> None:
    assert plural(count, *words) == told
