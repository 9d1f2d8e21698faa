"""Marathon: all that the runbook knows of it, in the order in which one would look for it.

- `apps`: app definitions: from the parameters or a file, and in what a present one differs from a wanted one.
- `fields`: which fields of a definition each version of Marathon has, and drops.
- `client`: `Marathon`: all instances of a site, asked as one: apps, tasks, deployments, queue, info, leader, events.
- `deployments`: `follow` a deployment to its end; `explain` why it gets no further.
- `fit`: on which slave an app's next task would fit, and what each of the others lacks.
- `tables`: all that as DataFrames.
- `steps`: what a host that runs an instance should be.
- `ensemble`: what must hold of the instances together, and of their framework in Mesos.
- `deploy`: `deploy`, `scale` and `delete` as rows of the journal, in every mode; `tasks_of` an app.
- `answers`: whether an app's instances are all there, and answer at their hosts and ports.
- `diagnose`: known failures in its log, what locks an app, and what outgrows a znode.
- `losses`: lost hosts, and where their tasks are now; `drill`: a task that is made to crash.
- `chapter`: chapter 4 as the notebook opens it (imported by it, not here).
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
