"""Mesos: all that the runbook knows of masters and slaves, in the order in which one would look for it.

- `client`: `MesosMaster`, `Masters` (all of a site, through the leader), `MesosSlave`: their state over HTTP.
- `election`: the masters' znodes, what each master says, and `verdict`: whether that makes a leader that works.
- `tables`: that state as DataFrames: masters, slaves, tasks, frameworks, resources, metrics.
- `slave_info`: `incompatible`: whether a slave would start after its flags (or its host) changed.
- `diagnose`: known failures in logs, flags and state; why a task fits no slave.
- `resources`: `Ranges` (ports) and the other values of Mesos' flags and state.
- `steps`: what a host that runs a master or a slave should be, in which order, and what must be asked before.
- `checks`: what must hold of the masters and the slaves; which master may be spared, and in which order.
- `forecast`: what a slave will make of new settings; `logs`: what the hosts' logs tell.
- `masters`, `slaves`: the chapters 2 and 3 that the notebooks open (imported by them, not here).

Mesos 1.0 renamed slaves to agents in its flags and logs, but not in the state and the paths that are used here; the
document's name is kept.
"""

from runbook.services.mesos.client import Masters, MesosMaster, MesosSlave, State
from runbook.services.mesos.diagnose import (
    ELECTION,
    REGISTRATION,
    cluster_findings,
    diagnose,
    diagnoses_table,
    fit_table,
    foreign_listeners,
    milestones_table,
    slave_findings,
)
from runbook.services.mesos.election import Election, Finding, MasterView, read_election, verdict, works
from runbook.services.mesos.resources import Ranges
from runbook.services.mesos.slave_info import Difference, Machine, SlaveInfo, incompatible
from runbook.services.mesos.tables import (
    frameworks_table,
    masters_table,
    metrics_table,
    resources_table,
    slaves_table,
    tasks_table,
)

__all__ = [
    "ELECTION",
    "REGISTRATION",
    "Difference",
    "Election",
    "Finding",
    "Machine",
    "MasterView",
    "Masters",
    "MesosMaster",
    "MesosSlave",
    "Ranges",
    "SlaveInfo",
    "State",
    "cluster_findings",
    "diagnose",
    "diagnoses_table",
    "fit_table",
    "foreign_listeners",
    "frameworks_table",
    "incompatible",
    "masters_table",
    "metrics_table",
    "milestones_table",
    "read_election",
    "resources_table",
    "slave_findings",
    "slaves_table",
    "tasks_table",
    "verdict",
    "works",
]
