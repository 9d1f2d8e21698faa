"""How long Mesos' state takes to become tables: `python -m benchmarks.mesos_tables [SLAVES] [TASKS]`.

The state of a big cluster is made of the recorded one (tests/payloads/mesos-0.28.0/one-node): its slave and its Docker
task, multiplied. In the same run and on the same bytes, the tables are compared with what they stand on (`json.loads`)
and with what one would write without them (`pandas.json_normalize` of the slaves and of the tasks). Each is the best of
five, as the others on the machine only ever add time. The target is less than a second for the tables altogether.
"""

from __future__ import annotations

import gc
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console
from rich.table import Table

from runbook.services.mesos import frameworks_table, resources_table, slaves_table, tasks_table

RECORDED = Path(__file__).parent.parent / "tests" / "payloads" / "mesos-0.28.0" / "one-node" / "master_state.json"
ROUNDS = 5


def big_state(slaves: int, tasks: int) -> bytes:
    """The state of a cluster of `slaves` with `tasks` spread over them, as the master would write it."""
    state: dict[str, Any] = json.loads(RECORDED.read_bytes())
    slave, framework = state["slaves"][0], state["frameworks"][0]
    task = framework["tasks"][0]
    each = -(-tasks // slaves)
    used = {"cpus": 0.1 * each, "mem": 32.0 * each, "disk": 0.0, "ports": f"[8601-{8600 + each}]"}
    state["slaves"] = [
        slave | {"id": f"big-S{number}", "hostname": f"node{number}", "used_resources": used}
        for number in range(slaves)
    ]
    framework["tasks"] = [
        task
        | {
            "id": f"{task['id']}-{number}",
            "slave_id": f"big-S{number % slaves}",
            "resources": task["resources"] | {"ports": f"[{8601 + number // slaves}-{8601 + number // slaves}]"},
        }
        for number in range(tasks)
    ]
    return json.dumps(state).encode()


def best(action: Callable[[], object]) -> float:
    """The shortest of some runs, in seconds."""
    seconds = []
    for _ in range(ROUNDS):
        gc.collect()
        started = time.perf_counter()
        action()
        seconds.append(time.perf_counter() - started)
    return min(seconds)


def main() -> None:
    slaves, tasks = map(int, sys.argv[1:3]) if len(sys.argv) == 3 else (1_000, 20_000)
    written = big_state(slaves, tasks)
    state = json.loads(written)
    framework_tasks = state["frameworks"][0]["tasks"]

    def everything() -> None:
        for table in (slaves_table, tasks_table, frameworks_table, resources_table):
            table(state)

    def normalized() -> None:
        pd.json_normalize(state["slaves"])
        pd.json_normalize(framework_tasks)

    measured = {
        "json.loads of the same bytes": best(lambda: json.loads(written)),
        "pandas.json_normalize, slaves and tasks, untyped": best(normalized),
        "slaves_table": best(lambda: slaves_table(state)),
        "tasks_table": best(lambda: tasks_table(state)),
        "frameworks_table": best(lambda: frameworks_table(state)),
        "resources_table": best(lambda: resources_table(state)),
        "all four tables": best(everything),
    }
    reference = measured["pandas.json_normalize, slaves and tasks, untyped"]
    shown = Table(title=f"{slaves} slaves, {tasks} tasks, {len(written) / 1e6:.1f} MB of JSON")
    shown.add_column("what")
    shown.add_column("seconds", justify="right")
    shown.add_column("of json_normalize", justify="right")
    for what, seconds in measured.items():
        shown.add_row(what, f"{seconds:.3f}", f"{seconds / reference:.2f}")
    Console().print(shown)


if __name__ == "__main__":
    main()
