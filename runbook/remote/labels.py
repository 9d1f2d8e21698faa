"""SELinux labels of the folders that containers have from their host (document 6.3, 7.3).

The `docker` of CentOS's own repository runs with `--selinux-enabled` (/etc/sysconfig/docker); docker-engine's unit does
not. With it, and SELinux in force, a process in a container reads and writes only what has a container's type: a folder
such as /opt/registry has usr_t, the registry answers 500 and mysqld ends.

Sources: docker-run(1) of CentOS 7, 'Volume labels'; docker_selinux(8): svirt_sandbox_file_t, which container-selinux
calls container_file_t from 7.4 on, with the old name as an alias.
"""

from __future__ import annotations

from dataclasses import dataclass

from runbook.remote.shell import facts, quote
from runbook.remote.steps import Change, Step, before_after

TYPE = "svirt_sandbox_file_t"
"""The type that containers may write to, of whichever category."""
TYPES = frozenset({TYPE, "container_file_t"})

# The brackets keep grep from finding its own command line.
_PROBE = """\
p={path}; selinux=no
if command -v getenforce >/dev/null 2>&1 && [ "$(getenforce)" != Disabled ]; then
  if [ -n "$(grep -lz '^--selinux-enable[d]\\(=true\\)\\{{0,1\\}}$' /proc/[0-9]*/cmdline 2>/dev/null)" ] ||
    grep -q '"selinux-enabled"[[:space:]]*:[[:space:]]*true' {settings} 2>/dev/null; then selinux=yes; fi
fi
echo "selinux=$selinux"
[ $selinux = no ] || for f in "$p" "$p"/*; do [ ! -e "$f" ] || echo "label=$(stat -c %C "$f") $f"; done
"""
_SETTINGS = "/etc/docker/daemon.json"


@dataclass(frozen=True)
class ContainerFolder(Step):
    """A folder of the host, with what is in it, that containers may write to where SELinux keeps them from all else.

    Nothing where SELinux is disabled, or Docker does not use it. `files` are those in it that other steps write.
    """

    path: str
    files: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        return f"SELinux label of {self.path}"

    @property
    def reads(self) -> frozenset[str]:
        # a file that is written gets the label of its folder's default
        return frozenset({self.path, *self.files})

    def probe(self) -> str:
        return _PROBE.format(path=quote(self.path), settings=_SETTINGS)

    def plan(self, state: str, pending: frozenset[str] = frozenset()) -> Change | None:
        if facts(state)["selinux"] == "no":
            return None
        found = [line.removeprefix("label=").split(" ", 1) for line in state.split("\n") if line.startswith("label=")]
        types = {path: context.split(":")[2] if context.count(":") > 1 else context for context, path in found}
        wrong = {path: (kind, TYPE) for path, kind in types.items() if kind not in TYPES}
        if self.path not in types:
            wrong = {self.path: ("absent", TYPE)}
        return Change("label it for containers", before_after(wrong)) if wrong else None

    def script(self, change: Change) -> str:
        path = quote(self.path)
        return f"set -e\nmkdir -p {path}\nchcon -R -t {TYPE} {path}\n"
