"""A framework on pymesos: launches one task on the first offer, waits for its end, and prints the states it saw.

Usage: python launch.py MASTER COMMAND NAME, where MASTER is host:port or zk://host:port/path, NAME the framework's.
"""

import json
import sys
import threading
from typing import Any

from pymesos import MesosSchedulerDriver, Scheduler


class OneTask(Scheduler):  # type: ignore[misc]  # pymesos has no types
    """Launches the command once."""

    def __init__(self, command: str) -> None:
        self.command = command
        self.launched = False
        self.states: list[str] = []
        self.over = threading.Event()

    def resourceOffers(self, driver: Any, offers: list[Any]) -> None:
        for offer in offers:
            if self.launched:
                driver.declineOffer(offer.id)
                continue
            self.launched = True
            amounts = {"cpus": 0.1, "mem": 32}
            task = {
                "task_id": {"value": "pymesos-task"},
                "name": "pymesos task",
                "agent_id": offer.agent_id,
                "command": {"value": self.command},
                "resources": [
                    {"name": name, "type": "SCALAR", "scalar": {"value": amount}} for name, amount in amounts.items()
                ],
            }
            driver.launchTasks(offer.id, [task])

    def statusUpdate(self, driver: Any, update: Any) -> None:
        self.states.append(update.state)
        if update.state not in ("TASK_STAGING", "TASK_RUNNING"):
            self.over.set()


def main() -> None:
    master, command, name = sys.argv[1:]
    scheduler = OneTask(command)
    framework = {"user": "root", "name": name, "failover_timeout": 10, "checkpoint": True}
    driver = MesosSchedulerDriver(scheduler, framework, master, use_addict=True)
    driver.start()
    ended = scheduler.over.wait(60)
    driver.stop()
    driver.join()
    print(json.dumps({"framework": framework.get("id"), "states": scheduler.states}))
    sys.exit(0 if ended else 1)


if __name__ == "__main__":
    main()
