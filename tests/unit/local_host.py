"""This machine's own shells in the place of a host: the scripts of steps run for real, below a folder of the test."""

from __future__ import annotations

import grp
import os
import pwd
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from runbook.remote import steps
from runbook.remote.shell import Frame, Piece, Reader, compose, new_marker
from runbook.remote.steps import Change, Step

ME = pwd.getpwuid(os.getuid()).pw_name
MY_GROUP = grp.getgrgid(os.getgid()).gr_name

SHELLS = {"dash": ["dash"], "bash": ["bash", "--posix"]}
"""What /bin/sh is on Debian, and what it is on CentOS."""
if "RUNBOOK_OLD_BASH" in os.environ:  # a bash 4.2, which is CentOS 7's /bin/sh and which no package brings
    SHELLS["old bash"] = [os.environ["RUNBOOK_OLD_BASH"], "--posix"]
PRESENT = [name for name, words in SHELLS.items() if shutil.which(words[0])]


@dataclass
class LocalHost:
    """Runs scripts as a host would. `state` is where they stage and back up (steps.STATE_DIR must be it)."""

    shell: str
    state: Path
    record: str = "record"
    environment: dict[str, str] = field(default_factory=dict)

    def run(self, *pieces: Piece, truncated: int | None = None, marker: str | None = None) -> dict[str, Frame]:
        """Feed a script of `pieces` (of it, the first `truncated` characters) to the shell, as sshd would."""
        marker = marker or new_marker()
        script = compose(pieces, marker, f"RUNBOOK_BACKUP={self.state}/backup/{self.record}")[:truncated]
        done = subprocess.run(
            [*SHELLS[self.shell], "-s"],
            input=script.encode(),
            capture_output=True,
            env={**os.environ, **self.environment},
            check=False,
        )
        reader = Reader(marker)
        reader.feed("out", done.stdout.decode("utf-8", "backslashreplace"))
        reader.feed("err", done.stderr.decode("utf-8", "backslashreplace"))
        return reader.close().frames

    def probe(self, step: Step) -> str:
        """The state that the step's probe prints."""
        frame = self.run(Piece("probe", step.probe(), short=True))["probe"]
        assert (frame.status, frame.err) == (0, ""), frame
        return frame.out

    def plan(self, step: Step) -> Change | None:
        """What the step would change now."""
        return step.plan(self.probe(step))

    def make(self, step: Step, change: Change) -> Frame:
        """Run the script of a change."""
        return self.run(Piece("change", step.script(change)))["change"]

    def apply(self, step: Step) -> Change | None:
        """Bring the step's state about, and assert that it is there. Returns what was changed."""
        change = self.plan(step)
        if change is not None:
            frame = self.make(step, change)
            assert (frame.status, frame.err) == (0, ""), frame
        left = self.plan(step)
        assert left is None, left
        return change

    def leftovers(self) -> list[Path]:
        """What lies in the staging place: nothing, once a script has ended."""
        staging = Path(steps.STATE_DIR) / "staging"
        return list(staging.iterdir()) if staging.exists() else []
