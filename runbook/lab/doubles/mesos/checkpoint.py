"""What a slave keeps on disk to find its tasks again after a restart, in Mesos' layout below `<work_dir>/meta`.

`boot_id`, `slaves/latest` (a link), and in `slaves/<id>`: `slave.info`, `frameworks/<id>/framework.info`,
`executors/<id>/runs/<container>/` with `pids/forked.pid`, `executor.sentinel` once it is over, and
`tasks/<id>/task.info` and `task.updates`. The double writes JSON where Mesos writes protobuf.
"""

import json
import os
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Json = dict[str, Any]


def boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def write(file: Path, value: object) -> None:
    """Write JSON so that a reader sees the old file or the new one, never a part."""
    file.parent.mkdir(parents=True, exist_ok=True)
    new = file.with_name(f"{file.name}.new")
    new.write_text(json.dumps(value), encoding="utf-8")
    new.replace(file)


def read(file: Path) -> Any:
    return json.loads(file.read_text(encoding="utf-8"))


def link_latest(target: Path) -> None:
    """Point `latest` beside `target` to it."""
    link = target.with_name("latest")
    link.unlink(missing_ok=True)
    link.symlink_to(target)


@dataclass(frozen=True)
class Run:
    """One run of an executor: its sandbox, and its folder of metadata."""

    sandbox: Path
    meta: Path

    @property
    def container(self) -> str:
        return self.sandbox.name

    @property
    def exit(self) -> Path:
        """Where the executor leaves its outcome."""
        return self.meta / "exit"

    @property
    def sentinel(self) -> Path:
        return self.meta / "executor.sentinel"

    def task_folder(self, task_id: str) -> Path:
        return self.meta / "tasks" / task_id


class Store:
    """The folders of one work_dir."""

    def __init__(self, work_dir: str) -> None:
        self.work_dir = Path(work_dir).absolute()
        self.meta = self.work_dir / "meta"

    @property
    def latest(self) -> Path:
        return self.meta / "slaves" / "latest"

    def recoverable(self) -> Path | None:
        """The folder of the slave that ran here before, unless the host was booted since."""
        file = self.meta / "boot_id"
        if file.exists() and file.read_text(encoding="ascii").strip() != boot_id():
            self.latest.unlink(missing_ok=True)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(boot_id(), encoding="ascii")
        return self.latest.resolve() if (self.latest / "slave.info").exists() else None

    def create_slave(self, slave_id: str, info: Json) -> None:
        folder = self.meta / "slaves" / slave_id
        write(folder / "slave.info", info)
        link_latest(folder)

    def keep_framework(self, slave_id: str, framework_id: str, info: Json) -> None:
        write(self.meta / "slaves" / slave_id / "frameworks" / framework_id / "framework.info", info)

    def create_run(self, slave_id: str, framework_id: str, executor_id: str) -> Run:
        """A new sandbox, with `latest` beside it, and its metadata."""
        inner = Path(
            "slaves", slave_id, "frameworks", framework_id, "executors", executor_id, "runs", str(uuid.uuid4())
        )
        run = Run(self.work_dir / inner, self.meta / inner)
        for folder in (run.sandbox, run.meta):
            folder.mkdir(parents=True)
            link_latest(folder)
        return run

    def runs(self, slave_id: str) -> Iterator[tuple[Json, str, str, Run]]:
        """Every run that was checkpointed: framework's info, framework id, executor id, run."""
        for file in sorted((self.meta / "slaves" / slave_id / "frameworks").glob("*/framework.info")):
            for meta in sorted(file.parent.glob("executors/*/runs/latest")):
                meta = meta.resolve()
                run = Run(self.work_dir / meta.relative_to(self.meta), meta)
                yield read(file), file.parent.name, meta.parent.parent.name, run


def process_start(pid: int) -> str | None:
    """When a process started, in the kernel's ticks, or None where there is none: tells a reused pid apart."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] == "Z" else fields[19]


def keep_pid(run: Run, pid: int) -> None:
    folder = run.meta / "pids"
    folder.mkdir(exist_ok=True)
    (folder / "forked.pid").write_text(str(pid), encoding="ascii")
    (folder / "forked.start").write_text(process_start(pid) or "", encoding="ascii")


def live_pid(run: Run) -> int | None:
    """The executor of a run, where it still lives."""
    try:
        pid = int((run.meta / "pids" / "forked.pid").read_text(encoding="ascii"))
        start = (run.meta / "pids" / "forked.start").read_text(encoding="ascii")
    except (OSError, ValueError):
        return None
    return pid if start and process_start(pid) == start else None


def usage(executor: int) -> tuple[float, float, int]:
    """User and system CPU seconds and resident bytes of an executor and all its descendants, by its pid."""
    ticks, page = os.sysconf("SC_CLK_TCK"), os.sysconf("SC_PAGE_SIZE")
    stats: dict[int, list[str]] = {}  # the fields of /proc/PID/stat after the name: [1] is the parent
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = entry.read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
        except OSError:
            continue
        stats[int(entry.parent.name)] = fields
    user = system = 0.0
    resident = 0
    for pid, fields in stats.items():
        ancestor = pid
        while ancestor not in (0, executor):
            ancestor = int(stats[ancestor][1]) if ancestor in stats else 0
        if ancestor == executor:
            user, system = user + int(fields[11]) / ticks, system + int(fields[12]) / ticks
            resident += int(fields[21]) * page
    return user, system, resident
