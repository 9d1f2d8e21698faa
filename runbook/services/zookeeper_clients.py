"""Whether Marathon still works after ZooKeeper's members were restarted.

A Marathon of 1.1 whose leader lost its session can go on answering, with a leader that Mesos does not send offers to:
deployments wait for ever, until that leader abdicates (d2iq-archive/marathon#4227, seen with Marathon 1.1.2).
"""

from __future__ import annotations

from dataclasses import dataclass, field

from runbook.errors import AppLocked, EndpointUnreachable, NotFound, RunbookError
from runbook.remote.checks import Evidence
from runbook.services.marathon.client import Marathon
from runbook.services.marathon.deploy import marathon_of
from runbook.services.marathon.ensemble import Framework
from runbook.site import Site


def before_a_restart(site: Site) -> Evidence:
    """How Marathon is before members are restarted; with a table where it runs."""
    try:
        return MarathonProbe(site).look()
    except RunbookError as error:
        return Evidence.against(error)


@dataclass
class MarathonProbe:
    """One look after the other at Marathon, until it is seen to work. With `deploy`, a deployment of an app as it is
    must end; without, nothing is written. `ran`: it answered before, so it must answer again."""

    site: Site
    deploy: bool = False
    ran: bool = False
    _deployment: str | None = field(default=None, init=False)
    _app: str = field(default="", init=False)

    def look(self) -> Evidence:
        """Whether it works, at this moment; it counts as working where there is none. Raises ServiceError."""
        hosts = self.site.having("marathon")
        if not hosts:
            return Evidence(True, "no host has the role marathon")
        with marathon_of(self.site) as marathon:
            try:
                address = marathon.leader()
            except EndpointUnreachable:
                if self.ran:
                    raise
                return Evidence(True, "no Marathon runs yet: chapter 4 starts it")
            registered = Framework.ask(self.site).registered()
            remedy = (
                f"let the leader abdicate: curl -X DELETE http://{address}/v2/leader; if no leader is found then, "
                "restart marathon on one host after the other (systemctl restart marathon), and verify again"
            )
            if not registered.holds:
                return Evidence(False, f"{address} leads; {registered.text}", registered.table, remedy)
            text = f"{address} leads; {registered.text}"
            return self._deployed(marathon, text, remedy) if self.deploy else Evidence(True, text, registered.table)

    def _deployed(self, marathon: Marathon, text: str, remedy: str) -> Evidence:
        if self._deployment is None:
            idle = [app["id"] for app in marathon.apps() if not app.get("deployments")]
            if not idle:
                return Evidence(True, f"{text}; there is no idle app whose deployment could be tried")
            try:
                change = marathon.deploy_unchanged(idle[0])
            except (AppLocked, NotFound) as error:  # changed by others in this moment: the next look takes another
                return Evidence(False, error.message, remedy=error.remedy)
            self._app, self._deployment = change.app_id, change.deployment
        left = [one for one in marathon.deployments() if one["id"] == self._deployment]
        if left:
            return Evidence(False, f"{text}; the deployment of {self._app} as it is does not end", remedy=remedy)
        return Evidence(True, f"{text}; a deployment of {self._app} as it is ended")
