"""What a call may do, and how each step of it ended."""

from __future__ import annotations

from enum import StrEnum


class Mode(StrEnum):
    """`plan` touches nothing and shows each difference, `apply` mends it, `verify` changes nothing and finds drift."""

    PLAN = "plan"
    APPLY = "apply"
    VERIFY = "verify"


class Status(StrEnum):
    """How one step ended on one host."""

    OK = "ok"
    CHANGED = "changed"
    WOULD_CHANGE = "would change"
    FAILED = "failed"
    SKIPPED = "skipped"
    UNREACHABLE = "unreachable"


class Verdict(StrEnum):
    """How a check ended; `not tried` in a plan, of a claim about what is not there to be asked, and in `verify`, of one
    that only an active check could evaluate."""

    HOLDS = "holds"
    FAILS = "does not hold"
    NOT_TRIED = "not tried"
