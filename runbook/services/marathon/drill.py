"""A drill: one task's processes are ended on its host, as a crash would, and Marathon is watched putting it back.

Marathon's own kill would not do: it is Marathon that then ends the task, and nothing is proven of a crash. So the
task's shell is found on its host, by the task's id in its environment and by the app's very command, and its process
group gets SIGKILL. The executor, which has the id in its environment as well, is left alone: it has to report the end.

Sources: Marathon's 'Task Environment Variables' (MESOS_TASK_ID); proc(5).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from runbook.errors import StepFailed
from runbook.remote.checks import Evidence
from runbook.remote.hosts import Hosts
from runbook.remote.shell import facts, quote
from runbook.services.marathon.apps import App
from runbook.services.marathon.client import Marathon
from runbook.services.marathon.tables import runs, task_state

KILL = "kill-task"
"""The gate before a task's processes are ended."""

Task = Mapping[str, Any]


@dataclass(frozen=True)
class Victim:
    """A task that is to crash: its id, its host's name, and how its process is known."""

    task: str
    host: str
    digests: tuple[str, ...]
    """SHA-256 of the command lines that its shell may have."""

    @classmethod
    def of(cls, app: App, task: Task, names: Mapping[str, str]) -> Victim:
        """A task of an app that runs a command; `names` are the hosts' names by address.

        Raises StepFailed where the app is a container, or the host is none of the site's.
        """
        command = app.get("cmd")
        if not command or (app.get("container") or {}).get("docker"):
            raise StepFailed(f"{app['id']} is no command on its host", "rehearse the crash of an app that is one")
        if task["host"] not in names:
            raise StepFailed(f"{task['id']} runs on {task['host']}, which is not in the parameters", "add that host")
        lines = (f"{shell}\0-c\0{command}\0" for shell in ("sh", "/bin/sh"))
        return cls(task["id"], names[task["host"]], tuple(hashlib.sha256(line.encode()).hexdigest() for line in lines))

    def crash(self, hosts: Hosts) -> int:
        """End its process group by SIGKILL, and give the shell's process id. Raises StepFailed and HostUnreachable.

        This is no step: nothing is to stay as it becomes by it, since Marathon puts back what is ended here.
        """
        output = hosts.only(self.host).run(self.script(), deadline=30.0)[self.host]
        if output.error is not None:
            raise output.error
        pid = facts(output.stdout).get("killed") if output.ok else None
        if pid is None:
            said = output.stderr.strip() or "no process has its id and the app's command"
            raise StepFailed(f"{self.host}: {self.task} was not found: {said}", "see the app's tasks, and run again")
        return int(pid)

    def script(self) -> str:
        """The sh text that ends it, and prints which process that was."""
        return _CRASH.format(task=quote(f"MESOS_TASK_ID={self.task}"), digests="|".join(self.digests))


# A subshell has its shell's command line and environment: the task is the one whose parent has another. It leads its
# process group (mesos-executor starts a session for it); if it does not, it alone is ended.
_CRASH = """\
for f in $(grep -lzxF {task} /proc/[0-9]*/environ 2>/dev/null); do
  d=${{f%/environ}}; pid=${{d#/proc/}}
  s=$(sha256sum < "$d/cmdline" 2>/dev/null) || continue
  case ${{s%% *}} in ({digests}) ;; (*) continue ;; esac
  read -r stat < "$d/stat" || continue
  set -- ${{stat##*) }}
  s=$(sha256sum < "/proc/$2/cmdline" 2>/dev/null)
  case ${{s%% *}} in ({digests}) continue ;; esac
  group=$pid; [ "$3" != "$pid" ] || group=-$pid
  kill -s KILL -- "$group" && echo "killed=$pid"
  exit
done
echo "no process on this host has it" >&2
exit 1
"""


@dataclass(frozen=True)
class Recovery:
    """How an app stood before one of its tasks crashed, and what is to be seen after it."""

    app: str
    victim: Victim
    pid: int
    before: tuple[Task, ...]
    names: Mapping[str, str]
    """Host names by address."""

    def watch(self, marathon: Marathon) -> Evidence:
        """Whether Marathon has put the task back: it is gone, and as many tasks run as before. Raises ServiceError."""
        app = marathon.app(self.app)
        now = app["tasks"]
        crashed, host = self.victim.task, self.victim.host
        new = [task for task in now if task["id"] not in {one["id"] for one in self.before}]
        ran = [task for task in self.before if runs(task)]
        running = [task for task in now if runs(task)]
        gone = crashed not in {task["id"] for task in now}
        failure = app.get("lastTaskFailure") or {}
        said = [f"process {self.pid} of {crashed} on {host} was killed"]
        if not gone:
            said.append("Marathon still counts it as running")
        elif failure.get("taskId") == crashed:
            said.append(f"it ended ({failure['state']}: {failure.get('message')})")
        if new:
            said.append("Marathon started " + ", ".join(f"{task['id']} on {self._place(task)}" for task in new))
        said.append(f"{len(running)} of {len(ran)} run")
        holds = gone and bool(new) and all(map(runs, new)) and len(running) >= len(ran)
        remedy = "see the queue for why it is not started: the delay after failures grows with each"
        return Evidence(holds, "; ".join(said), self.table(now), None if holds else remedy)

    def table(self, now: list[Task]) -> pd.DataFrame:
        """A row a task, before and after."""
        after = {task["id"]: task for task in now}
        before = {task["id"]: task for task in self.before}
        rows = [
            (
                name,
                self._place(task),
                task_state(before[name]) if name in before else "",
                task_state(after[name]) if name in after else "✗ crashed" if name == self.victim.task else "– gone",
            )
            for name, task in (before | after).items()
        ]
        return pd.DataFrame(rows, columns=["task", "host:port", "before", "after"])

    def _place(self, task: Task) -> str:
        return f"{self.names.get(task['host'], task['host'])}:{', '.join(map(str, task.get('ports') or ()))}"
