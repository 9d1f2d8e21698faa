"""What the chapters of mesos-master and mesos-slave have in common."""

from __future__ import annotations

from typing import ClassVar, NoReturn

import pandas as pd
from IPython.display import display

from runbook.chapter import Chapter
from runbook.errors import ApplyFailed, CheckFailed
from runbook.remote.hosts import Hosts, Output
from runbook.remote.modes import Status
from runbook.remote.results import ApplyResult
from runbook.remote.shell import facts, quote
from runbook.services.mesos import logs, steps
from runbook.views.tables import Table


class MesosChapter(Chapter):
    """A chapter about one of the package's two programs, on the hosts that have its role."""

    program: ClassVar[str]

    EXPLAINED: ClassVar = "mend what is named above, then run again: what was done is found, and the rest follows"

    @property
    def members(self) -> Hosts:
        """The hosts that run the program."""
        return self.hosts(steps.ROLES[self.program])

    @property
    def log_dir(self) -> str:
        """Where both programs log."""
        return self.site.mesos.master.log_dir

    def _install(self) -> ApplyResult:
        return self._applied(lambda: self.members.apply(steps.install(self.site), name=f"yum install {self._package}"))

    def _versions(self) -> Table:
        """Which package and program each host has; they go into the record."""
        rows = []
        for host, output in self.members.run(
            _VERSIONS.format(package=quote(self._package), program=self.program)
        ).items():
            found = _facts(output)
            rows.append((host, found.get("package", "not installed"), found.get("program", ""), found.get("units", "")))
            if found.get("program"):
                self.versions(host, {self.program: found["program"].removeprefix("mesos ")})
        columns = ["host", f"package {self._package}", f"{self.program} --version", "started at boot"]
        return Table(pd.DataFrame(rows, columns=columns), "installed", states=(columns[1],))

    @property
    def _package(self) -> str:
        return self.site.mesos.package

    def _explained(self, error: ApplyFailed | CheckFailed) -> NoReturn:
        """Raise the error again, where the program did not start or come back with what the hosts' logs tell of it."""
        hosts = self.members
        if isinstance(error, ApplyFailed) and isinstance(error.result, ApplyResult):
            service = f"service {self.program}"
            hosts = hosts.only(*(one.host for one in error.result.having(Status.FAILED) if one.step == service))
        findings = logs.explain(hosts, self.program)
        if not findings:
            raise error
        display(findings)
        message = f"{error.message}\n{findings}"
        raise type(error)(message, self.EXPLAINED, result=error.result) from error


_VERSIONS = """\
v=$(rpm -q --qf '%{{VERSION}}-%{{RELEASE}}' {package} 2>/dev/null) || exit 0
echo "package=$v"
echo "program=$({program} --version 2>/dev/null | head -n 1)"
units=
for u in mesos-master mesos-slave; do
  case $(systemctl is-enabled $u 2>/dev/null) in (enabled*) units="$units $u";; esac
done
echo "units=${{units# }}"
"""


def _facts(output: Output) -> dict[str, str]:
    return dict(facts(output.stdout)) if output.ok else {"package": output.error.message if output.error else "unknown"}
