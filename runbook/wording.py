"""Words that depend on a number."""

from __future__ import annotations


def plural(count: int, one: str, many: str | None = None) -> str:
    """`1 task`, `2 tasks`, `10,000 repositories`; `many` where it is not `one` with an s."""
    return f"{count:,} {one if count == 1 else many or f'{one}s'}"
