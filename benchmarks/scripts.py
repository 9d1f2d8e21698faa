"""The core's scripts on paper, for the C client: the probe of every host, and the changes of a bare one."""

from __future__ import annotations

import json

from benchmarks.fleet import VERSION, BenchmarkError, Fleet
from benchmarks.workload import steps_of
from runbook.remote.shell import Piece, compose, quote
from runbook.remote.steps import File, Package, Service, Step, sha256

MARKER = "runbook-benchmark"

_BARE = {
    File: "kind=absent\n",
    Package: "installed=\n",
    Service: "LoadState=loaded\nActiveState=inactive\nSubState=dead\nUnitFileState=disabled\n",
}
"""What the probes print on a bare host."""


def write(fleet: Fleet) -> None:
    """Write scripts.json: by address the `probe`, the `change` and the lines that the probe of a well host prints."""
    scripts = {}
    for address in fleet.hosts.values():
        steps = steps_of(fleet)(address)
        probes = [Piece(f"probe-{index}", step.probe()) for index, step in enumerate(steps)]
        changes = [Piece(f"change-{index}", _change(step), must_succeed=True) for index, step in enumerate(steps)]
        scripts[address] = {
            "probe": compose(probes, MARKER),
            "change": f"RUNBOOK_BACKUP={quote(fleet.folder / 'backup')}\n{compose(changes, MARKER)}",
            "desired": [_desired(step) for step in steps],
        }
    (fleet.folder / "scripts.json").write_text(json.dumps(scripts))


def _change(step: Step) -> str:
    change = step.plan(_BARE[type(step)])
    if change is None:
        raise BenchmarkError(f"{step.label} would leave a bare host as it is")
    return step.script(change)


def _desired(step: Step) -> str:
    match step:
        case File(content=bytes(content)):
            return f"sha256={sha256(content)}"
        case Package():
            return f"installed={VERSION}"
        case _:
            return "ActiveState=active"
