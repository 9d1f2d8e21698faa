"""Marathon: all that the runbook knows of it, in the order in which one would look for it.

- `apps`: app definitions: from the parameters or a file, and in what a present one differs from a wanted one.
- `client`: `Marathon`: all instances of a site, asked as one: apps, tasks, deployments, queue, info, leader, events.
- `deployments`: `follow` a deployment to its end; `explain` why it gets no further.
- `fit`: on which slave an app's next task would fit, and what each of the others lacks.
- `tables`: all that as DataFrames.
"""

from runbook.services.marathon.apps import App, Difference, app_from_file, app_id, app_of, differences
from runbook.services.marathon.client import Change, InstanceView, Marathon
from runbook.services.marathon.deployments import Progress, explain, follow
from runbook.services.marathon.events import Event
from runbook.services.marathon.fit import fit_table, host_ports
from runbook.services.marathon.tables import (
    apps_table,
    deployments_table,
    instances_table,
    queue_table,
    tasks_table,
)

__all__ = [
    "App",
    "Change",
    "Difference",
    "Event",
    "InstanceView",
    "Marathon",
    "Progress",
    "app_from_file",
    "app_id",
    "app_of",
    "apps_table",
    "deployments_table",
    "differences",
    "explain",
    "fit_table",
    "follow",
    "host_ports",
    "instances_table",
    "queue_table",
    "tasks_table",
]
