"""The flags that masters and slaves report to be in force (`/master/flags`, `/slave(1)/flags`), against the parameters.

The steps compare a process with its files on its host (see services/flags.py); this asks the daemons themselves, so
that it holds as well for one that was started by hand.

Sources: recorded from Mesos 0.28.0 (`flags` of master and slave); `src/master/http.cpp`, `src/slave/http.cpp`.
"""

from __future__ import annotations

from collections.abc import Mapping

from runbook.secrets import mask_arguments
from runbook.services.mesos.resources import parse_attributes, parse_resources
from runbook.services.mesos.steps import ip_of, slave_flags
from runbook.site import HostParameters, Site


def of_master(site: Site, host: HostParameters) -> dict[str, str]:
    """The flags of a master by the parameters. Raises EndpointUnreachable where its address is not known."""
    master = site.mesos.master
    wanted = {"quorum": str(site.quorum), "ip": ip_of(host), "hostname": host.address, "port": str(master.port)}
    wanted |= {"zk": site.mesos_zk, "work_dir": master.work_dir, "log_dir": master.log_dir}
    return wanted | ({"cluster": site.mesos.cluster} if site.mesos.cluster else {})


def of_slave(site: Site, host: HostParameters) -> dict[str, str]:
    """The flags of a slave by the parameters, but for the containerizers, which wait for Docker (chapter 5)."""
    flags = {name: value for name, value in slave_flags(site, host, docker=True).items() if value is not None}
    flags.pop("containerizers")
    return flags | {"master": site.mesos_zk, "log_dir": site.mesos.master.log_dir}


def differences(wanted: Mapping[str, str], flags: Mapping[str, str]) -> list[str]:
    """Each flag in force that is not the wanted one, in words. Flags that are not wanted are not looked at."""
    return [
        f"--{name} is {mask_arguments(flags[name]) if name in flags else 'not given'}, expected {mask_arguments(value)}"
        for name, value in wanted.items()
        if not _same(name, value, flags.get(name))
    ]


def _same(name: str, wanted: str, found: str | None) -> bool:
    if found is None:
        return False
    try:
        match name:
            case "resources":
                return parse_resources(wanted) == parse_resources(found)
            case "attributes":
                return parse_attributes(wanted) == parse_attributes(found)
    except ValueError:  # what is in force is nothing that the runbook writes
        return False
    return " ".join(wanted.split()) == " ".join(found.split())
