"""What a lab's nodes are like to whoever logs in: the `debian` that they are, or the document's `centos7`.

profiles/NAME/ lies over the node image. centos7 has shims in front of the programs, in the PATH of SSH sessions alone:
what the versions of CentOS 7 do not know is refused with their messages and exit status, and output is as theirs.
systemd, Docker and Mesos, which do not get that PATH, run as ever. To add a rule, add it to the shim of its program
in profiles/centos7/opt/centos7/bin/ with its source; options of coreutils are in the table lib/coreutils.sh beside it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from runbook.errors import LabError
from runbook.lab.archive import Entry, tree

PROFILES = Path(__file__).parent / "profiles"
DEFAULT = "centos7"
NAMES = (DEFAULT, "debian")

LABEL = "runbook.lab.profile"
SHELL = "runbook.lab.shell"

SHIMS = "opt/centos7/bin"
COREUTILS = "opt/centos7/lib/coreutils.sh"


@dataclass(frozen=True)
class Profile:
    """A profile by its name, and a bash on this machine that becomes the nodes' /bin/sh, if any."""

    name: str = DEFAULT
    shell: Path | None = None

    @classmethod
    def of(cls, labels: Mapping[str, str]) -> Profile:
        """The profile of a node, by the labels of its container; `debian` where they name none."""
        shell = labels.get(SHELL)
        return cls(labels.get(LABEL, "debian"), Path(shell) if shell else None)

    @property
    def labels(self) -> dict[str, str]:
        """The labels by which `of` finds this profile again."""
        return {LABEL: self.name, SHELL: str(self.shell or "")}

    def __str__(self) -> str:
        return f"{self.name} with {self.shell.name}" if self.shell else self.name

    def files(self) -> dict[str, Entry]:
        """The files that are put over the node image, by path. LabError where there is no such profile or shell."""
        if self.name not in NAMES:
            raise LabError(f"there is no profile {self.name}", f"choose one of {', '.join(NAMES)}")
        files: dict[str, Entry] = {}
        if self.name == DEFAULT:
            files = tree(PROFILES / self.name)
            table = files[COREUTILS].data
            assert table is not None
            for names in re.findall(r"^\(([a-z0-9 |]+)\)", table.decode(), re.MULTILINE):
                files |= {f"{SHIMS}/{name}": Entry(None, 0o777, link="coreutils") for name in names.split(" | ")}
            files["usr/bin/sh"] = Entry(None, 0o777, link="bash")
        if self.shell:
            files["usr/bin/sh"] = Entry(_program(self.shell), 0o755)
        return files


def _program(path: Path) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise LabError(f"the shell {path} cannot be read: {error.strerror}", "correct --shell") from error
    if not content.startswith(b"\x7fELF"):
        raise LabError(f"the shell {path} is not a Linux program", "give the file of a bash, such as /bin/bash")
    return content
