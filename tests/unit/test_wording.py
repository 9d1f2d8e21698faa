"""Words and units that depend on a number."""

from __future__ import annotations

import pytest

from runbook.wording import first, plural, size


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


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (None, ""),
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (999_950, "1.0 MB"),
        (123_456, "123 kB"),
        (999_600, "1.0 MB"),
        (7e13, "70.0 TB"),
    ],
)
def test_sizes_are_in_the_unit_that_fits(count: int | None, text: str) -> None:
    assert size(count) == text


def test_what_is_left_of_a_long_list_is_counted() -> None:
    assert first(["a", "b"], 2) == "a, b"
    assert first([*"abc", *["d"] * 1000], 2) == "a, b and 1,001 more"
