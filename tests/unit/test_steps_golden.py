"""Steps as data: golden/steps.yml says what each makes of a state, golden/scripts/ holds the scripts of its changes.

After a wanted change of a script, `python tests/unit/test_steps_golden.py` writes the scripts anew: read the diff.
"""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from local_host import PRESENT, SHELLS

from runbook.errors import StepFailed
from runbook.remote import steps
from runbook.remote.steps import Change, Step, sha256

GOLDEN = Path(__file__).parent / "golden"
ARTIFACT = sha256(b"an RPM")

CASES: Mapping[str, dict[str, Any]] = yaml.safe_load((GOLDEN / "steps.yml").read_text())
CHANGES = [name for name, case in CASES.items() if "change" in case]


def step_of(case: Mapping[str, Any]) -> Step:
    [(kind, arguments)] = case["step"].items()
    arguments = {key: tuple(value) if isinstance(value, list) else value for key, value in arguments.items()}
    if kind == "Rpm":
        arguments |= {"file": Path("/srv/artifacts") / arguments["file"], "sha256": ARTIFACT}
    step = getattr(steps, kind)(**arguments)
    assert isinstance(step, Step)
    return step


def plan_of(case: Mapping[str, Any], state: str | None = None) -> Change | None:
    return step_of(case).plan(case["state"] if state is None else state, frozenset(case.get("pending", ())))


def shown(change: Change) -> dict[str, Any]:
    """A change as the cases write it."""
    everything = {
        "summary": change.summary,
        "diff": change.diff,
        "actions": list(change.actions),
        "gate": change.gate,
        "consequence": change.consequence,
        "uploads": [upload.remote for upload in change.uploads],
    }
    return {key: value for key, value in everything.items() if value}


@pytest.mark.parametrize("name", CASES)
def test_a_state_leads_to_a_plan(name: str) -> None:
    case = CASES[name]
    if "fails" in case:
        with pytest.raises(StepFailed) as refusal:
            plan_of(case)
        assert case["fails"] in refusal.value.message
        return
    change = plan_of(case)
    assert ("nothing" if change is None else shown(change)) == (
        "nothing" if case.get("nothing") else yaml.safe_load(yaml.dump(case["change"]).replace("{sha256}", ARTIFACT))
    )


@pytest.mark.parametrize(
    ("name", "reason"), [(name, reason) for name, case in CASES.items() for reason in case.get("because", ())]
)
def test_nothing_is_to_do_only_as_long_as_the_facts_say_so(name: str, reason: dict[str, str]) -> None:
    facts = {key: value for key, value in reason.items() if key != "summary"}
    kept = [line for line in CASES[name]["state"].splitlines() if line.partition("=")[0] not in facts]
    state = "\n".join([*(f"{key}={value}" for key, value in facts.items()), *kept, ""])
    change = plan_of(CASES[name], state)
    assert change is not None
    assert change.summary == reason["summary"]


@cache
def script_of(name: str) -> str:
    change = plan_of(CASES[name])
    assert change is not None
    return step_of(CASES[name]).script(change)


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_leads_to_a_script(name: str) -> None:
    assert script_of(name) == (GOLDEN / "scripts" / f"{name}.sh").read_text()


def test_every_golden_script_belongs_to_a_case() -> None:
    assert sorted(path.stem for path in (GOLDEN / "scripts").iterdir()) == sorted(CHANGES)


@pytest.mark.parametrize("shell", PRESENT)
@pytest.mark.parametrize("name", CASES)
def test_probes_and_scripts_are_sh(name: str, shell: str) -> None:
    text = step_of(CASES[name]).probe() + (script_of(name) if name in CHANGES else "")
    checked = subprocess.run([*SHELLS[shell], "-n"], input=text.encode(), capture_output=True, check=False)
    assert (checked.returncode, checked.stderr) == (0, b"")


def test_every_kind_of_step_has_a_change_a_nothing_to_do_and_a_reason() -> None:
    for kind in ("File", "Lines", "Directory", "Package", "Rpm", "Service", "CommandService", "Command"):
        cases = [case for case in CASES.values() if kind in case["step"]]
        assert any("change" in case for case in cases), kind
        assert any("because" in case for case in cases), kind


if __name__ == "__main__":
    (GOLDEN / "scripts").mkdir(exist_ok=True)
    for old in (GOLDEN / "scripts").iterdir():
        old.unlink()
    for changing in CHANGES:
        (GOLDEN / "scripts" / f"{changing}.sh").write_text(script_of(changing))
