"""What runs on each Docker host, of which task it is, and what it logs (document 5.3).

Mesos calls its containers mesos-SLAVE_ID.CONTAINER_ID, as the document's `docker ps` shows. The task is in the
container's environment, as MESOS_TASK_ID, where Marathon puts it. Nothing else of an environment leaves the host:
passwords are in there.

Source: Marathon, 'Task Environment Variables'; Mesos, src/docker/docker.hpp (DOCKER_NAME_PREFIX).
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping

import pandas as pd

from runbook.errors import StepFailed
from runbook.remote.hosts import Hosts, Output
from runbook.remote.probes import INSPECT_EACH, values
from runbook.remote.shell import quote
from runbook.secrets import mask_arguments
from runbook.services.docker.engine import DEMAND, unanswered
from runbook.services.marathon.tables import tasks_table
from runbook.services.mesos.tables import Schema, typed_table
from runbook.views.tables import Table, blank_missing

CONTAINERS: Schema = {
    "host": "string",
    "container": "string",
    "id": "string",
    "image": "string",
    "command": "string",
    "created": "string",
    "status": "string",
    "ports": "string",
    "task": "string",  # <NA>: not one of Marathon's
}

# `split` and `slice` are newer than 1.11: a variable is told by so many first characters of NAME=VALUE.
_PS = (
    DEMAND
    + INSPECT_EACH
    + """\
shown=$(timeout 30 docker ps --no-trunc --format \
  '{{.ID}}\t{{.Names}}\t{{.Image}}\t{{.Command}}\t{{.RunningFor}}\t{{.Status}}\t{{.Ports}}') || exit 1
printf '%s\n' "$shown" | sed -n 's/^./ps=&/p'
ids=$(printf '%s\n' "$shown" | cut -f 1)
inspect_each \
  '{{.Id}} {{range .Config.Env}}{{if eq (printf "%.14s" .) "MESOS_TASK_ID="}}{{json .}}{{end}}{{end}}' $ids |
  sed 's/^/task=/'
exit 0
"""
)


def containers(hosts: Hosts) -> pd.DataFrame:
    """`docker ps` of every host, with the Mesos task that each container is of; nothing of hosts that do not answer."""
    return _frame(hosts.run(_PS))


def _frame(answers: Mapping[str, Output]) -> pd.DataFrame:
    rows = []
    for host, output in answers.items():
        tasks = dict(line.split(" ", 1) for line in values(output.stdout, "task"))
        for line in values(output.stdout, "ps"):
            container, name, image, command, *shown = line.split("\t")
            rows.append(
                (host, name, container, image, mask_arguments(command), *shown, _task(tasks.get(container, "")))
            )
    columns = list(zip(*rows, strict=True)) or [()] * len(CONTAINERS)
    return typed_table(CONTAINERS, {name: list(column) for name, column in zip(CONTAINERS, columns, strict=True)})


def _task(variable: str) -> str | None:
    text: str = json.loads(variable) if variable else ""
    return text.partition("=")[2] or None


def table(hosts: Hosts, tasks: pd.DataFrame | None) -> Table:
    """The same, beside Marathon's `tasks` (its tasks_table): who runs what, and what only one of both knows of.

    None stands for the tasks of a Marathon that does not answer.
    """
    answers = hosts.run(_PS)
    frame = _frame(answers)
    known = (tasks_table([]) if tasks is None else tasks).set_index("task")
    of_tasks = (None if pd.isna(task) else task for task in frame["task"])
    states = [
        _state(name, task, None if tasks is None else known)
        for name, task in zip(frame["container"], of_tasks, strict=True)
    ]
    frame.insert(1, "state", states)
    missing = known[~known.index.isin(frame["task"].dropna())]
    lost = [
        {"host": task["host"], "state": f"✗ no container of this task ({task['state']})", "task": name}
        for name, task in missing.to_dict("index").items()
    ]
    silent = [{"host": host, "state": unanswered(output)} for host, output in answers.items() if not output.ok]
    frame["id"] = frame["id"].str[:12]
    shown = pd.DataFrame([*frame.to_dict("records"), *lost, *silent], columns=frame.columns)
    return Table(blank_missing(shown), "docker ps", states=("state",), literal=("command",))


def _state(name: str, task: str | None, known: pd.DataFrame | None) -> str:
    if task is None:
        return "⚠ Mesos' name, and no task" if name.startswith("mesos-") else "– not of Mesos"
    if known is None:
        return "– of Mesos; Marathon does not answer"
    if task not in known.index:
        return "– of another app, or of none any longer"
    return f"✓ {known['state'][task]}"


# what they log


def logs(hosts: Hosts, host: str, container_id: str, lines: int = 20) -> str:
    """The last lines that a container printed, on both of its outputs.

    Raises StepFailed where Docker there does not know it, and what keeps the host from answering.
    """
    output = hosts.only(host).run(f"timeout 30 docker logs --tail {int(lines)} {quote(container_id)} 2>&1")[host]
    if output.error is not None:
        raise output.error
    if not output.ok:
        said = output.stdout.strip().rpartition("\n")[2]
        raise StepFailed(f"{host}: docker logs {container_id[:12]}: {said}", "look at what runs there: docker ps -a")
    return output.stdout


_LAST = """\
command -v docker >/dev/null 2>&1 || exit 0
for id in $(timeout 30 docker ps -q --no-trunc); do
  case {ids} in (*"$id"*) ;; (*) continue;; esac
  echo "log=$id $(timeout 30 docker logs --tail {lines} "$id" 2>&1 | tail -c 65536 | base64 | tr -d '\\n')"
done
"""


def last_lines(hosts: Hosts, running: pd.DataFrame, lines: int = 5) -> pd.DataFrame:
    """The last lines of each container of `running` (rows of `containers`), with its host and task.

    Of other containers nothing is read.
    """
    found = {}
    wanted = hosts.only(*running["host"])
    for output in wanted.run(_LAST.format(lines=lines, ids=quote(" ".join(running["id"])))).values():
        for line in values(output.stdout, "log"):
            container, _, text = line.partition(" ")
            found[container] = base64.b64decode(text).decode("utf-8", "replace").rstrip("\n")
    shown = running[["host", "task", "id"]].copy()
    shown["last lines"] = [found.get(container, "") for container in shown["id"]]
    shown["id"] = shown["id"].str[:12]
    return shown.reset_index(drop=True)
