"""What must hold of the masters and the slaves, at one moment: pure judgements on what each of them says.

`MasterEnsemble` says whether one master leads and works, whether one may be spared or is back, and in which order to
touch them; `Registrations` whether the slaves of a site are with their leader.

Sources: 'Operational Guide' of Mesos' documentation (how many masters a quorum bears); what was recorded from Mesos
0.28.0 (tests/payloads); the document's 2.2.6, 2.2.7, 2.3 and 3.2.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pandas as pd

from runbook.errors import RunbookError, ServiceError
from runbook.remote.checks import Evidence
from runbook.services.mesos.client import Masters, MesosMaster, State
from runbook.services.mesos.election import Election, Finding, MasterView, address_of, read_election, verdict, works
from runbook.services.mesos.steps import ip_of
from runbook.services.mesos.tables import masters_table, slaves_table
from runbook.services.zookeeper_ensemble import session
from runbook.site import HostParameters, Site
from runbook.views.tables import Table
from runbook.wording import plural


def masters_of(site: Site) -> Masters:
    """Clients of all masters of a site, named as their hosts."""
    port = site.mesos.master.port
    return Masters(MesosMaster(f"http://{host.address}:{port}", name=host.name) for host in site.having("mesos_master"))


def election_of(site: Site) -> Election:
    """The masters' znodes, from any member of the ensemble that answers.

    Raises NotReady where none gives a session, and ServiceError for what goes wrong inside.
    """
    with session(site.zookeeper_hosts) as zookeeper:
        return read_election(zookeeper, site.mesos.zk_path)


@dataclass(frozen=True)
class MasterEnsemble:
    """All masters of a site at one moment, and what can be said of them together.

    `views`: what each says, or the error that was met, by host name; `addresses`: the `ip:port` that each host's
    master announces; `quorum`: the wanted one.
    """

    views: Mapping[str, MasterView | RunbookError]
    election: Election
    addresses: Mapping[str, str]
    quorum: int

    @classmethod
    def ask(cls, site: Site) -> MasterEnsemble:
        """Ask every master and ZooKeeper. Raises ServiceError where ZooKeeper does not tell."""
        port = site.mesos.master.port
        addresses = {host.name: f"{ip_of(host)}:{port}" for host in site.having("mesos_master")}
        with masters_of(site) as masters:
            return cls(masters.views(), election_of(site), addresses, site.quorum)

    @property
    def answering(self) -> dict[str, MasterView]:
        """Those that answer."""
        return {name: view for name, view in self.views.items() if isinstance(view, MasterView)}

    @property
    def leader(self) -> str | None:
        """The host whose master leads and has recovered the registry, by its own word and by ZooKeeper's."""
        record = self.election.leader
        for name, view in self.answering.items():
            if view.elected and view.recovered and record is not None and record.address == self.addresses[name]:
                return name
        return None

    @property
    def replicas(self) -> frozenset[str]:
        """The addresses that announce a replica of the registry's log."""
        return frozenset(replica.address for replica in self.election.replicas)

    def findings(self) -> list[Finding]:
        """All that speaks against the masters, the worst first."""
        return verdict(self.views, self.election, quorum=self.quorum)

    def led(self) -> Evidence:
        """2.3: whether all that answer name one leader, which ZooKeeper names too, and which works."""
        broken = [finding for finding in self.findings() if finding.severity == "broken"]
        return self._judged(broken, works(broken))

    def complete(self) -> Evidence:
        """2.2.6: whether every master answers and holds its replica of the log, and nothing else is amiss."""
        findings = self.findings()
        return self._judged(findings, not findings)

    def _judged(self, findings: Sequence[Finding], holds: bool) -> Evidence:
        said = "; ".join(finding.what for finding in findings)
        remedies = "; ".join(dict.fromkeys(finding.remedy for finding in findings))
        text = "; ".join(filter(None, [self._summary() if holds or self.leader else "", said]))
        return self._evidence(holds, text, remedies or None)

    def _summary(self) -> str:
        record, leader = self.election.leader, self.leader
        if leader is None or record is None:
            return ""
        naming = sum(view.leader is not None for view in self.answering.values())
        return (
            f"{leader} ({record.address}) leads by {record.znode}, named by {naming} of {len(self.views)} masters, "
            f"with {len(self.replicas)} log replicas for a quorum of {self.quorum}"
        )

    def can_spare(self, host: str, *, leaderless: bool = False) -> Evidence:
        """Whether the master on `host` may be (re)started: the others keep the log's quorum, and it is none too many.

        More than 2 * quorum - 1 masters can corrupt the log, so that one that does not run yet waits until whoever is
        not of this site is gone. `leaderless`: nobody led before anything was touched, so that there is no leader to
        wait for; else a missing one is being elected.
        """
        view, address = self.views[host], self.addresses[host]
        if not isinstance(view, MasterView):
            running = self.replicas | {address}
            most = 2 * self.quorum - 1
            text = f"{host} does not run, and would be one of {len(running)} masters ({most} at most)"
            remedy = (
                f"stop what else announces a replica: {', '.join(sorted(self.replicas - set(self.addresses.values())))}"
            )
            return self._evidence(len(running) <= most, text, remedy)
        if len(self.views) == 1:
            return self._evidence(True, f"{host} is the only master: nobody leads while it restarts")
        if self.leader is None:
            if leaderless:
                return self._evidence(True, "nobody leads, so that there is no quorum to lose")
            return self._judged([finding for finding in self.findings() if finding.severity == "broken"], holds=False)
        # The leader writes with the quorum that it was started with, whatever is wanted by now.
        needed = self.answering[self.leader].quorum or self.quorum
        left = len(self.replicas - {address})
        return self._evidence(
            left >= needed,
            f"{left} log replicas are there without {host}, and {needed} are needed",
            "start the masters that do not run, and wait until each announces its replica",
        )

    def is_back(self, host: str) -> Evidence:
        """2.2.6: whether the master on `host`, just started, answers and holds its replica: then the next may follow.

        That one leads is asked of the next one (`can_spare`) and at the end (`led`): before the first quorum there is
        nobody to lead.
        """
        view = self.views[host]
        if isinstance(view, RunbookError):
            return self._evidence(False, view.message, view.remedy)
        count = f"{len(self.replicas)} of {len(self.views)} log replicas are there"
        if self.addresses[host] not in self.replicas:
            remedy = "see its log, and that --ip is an address that the others reach"
            return self._evidence(False, f"{count}, and that of {host} ({self.addresses[host]}) is not", remedy)
        if view.leader is None:
            return self._evidence(False, f"{host} knows no leader", "wait some 10 s; then see ZooKeeper")
        return self._evidence(True, f"{count}, {host} names {view.leader}")

    def order(self, hosts: Sequence[HostParameters]) -> list[HostParameters]:
        """In which order to touch masters: those that do not run, then the standbys, and last the leader.

        While some run with another quorum than the wanted one, those that run come first: a master that joins before
        the others bear it would be one too many.
        """
        other = any(view.quorum not in (None, self.quorum) for view in self.answering.values())

        def rank(host: HostParameters) -> int:
            view = self.views[host.name]
            if isinstance(view, RunbookError):
                return 3 if other else 0
            return 2 if view.elected else 1

        return sorted(hosts, key=rank)

    def table(self) -> Table:
        """The masters, a row each."""
        frame = masters_table(self.views, self.election)
        shown = pd.DataFrame(
            {
                "host": frame["master"],
                "role": ["leader" if name == self.leader else _role(self.views[name]) for name in frame["master"]],
                "address": frame["address"].fillna(pd.Series(self.addresses[name] for name in frame["master"])),
                "version": frame["version"],
                "elected (UTC)": frame["elected"].dt.strftime("%Y-%m-%d %H:%M:%S"),
                "uptime": [_span(span) for span in frame["uptime"]],
                "znode": frame["znode"],
                "log replica": frame["log_replica"].map({True: "yes", False: "no"}),
                "names": frame["names"],
            }
        ).astype(object)
        if frame["problem"].notna().any():
            shown["problem"] = frame["problem"]
        return Table(shown.where(shown.notna(), ""), f"Mesos: {len(frame)} masters", states=("role", "log replica"))

    def _evidence(self, holds: bool, text: str, remedy: str | None = None) -> Evidence:
        return Evidence(holds, text, None if holds else self.table().frame, remedy)


def _role(view: MasterView | RunbookError) -> str:
    if isinstance(view, RunbookError):
        return "does not answer"
    return "elected, has not recovered" if view.elected else "standby"


def _span(span: Any) -> str:
    """A span of time as a person says it, to the largest two units."""
    if pd.isna(span):
        return ""
    seconds = int(timedelta.total_seconds(span))
    for unit, length, smaller, part in (("d", 86400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1)):
        if seconds >= length:
            return f"{seconds // length} {unit} {seconds % length // part} {smaller}"
    return f"{seconds} s"


@dataclass(frozen=True)
class Registrations:
    """The slaves of a site at one moment, as the leader knows them.

    `state` is the leader's; `problem` says why there is none. `addresses` are the `ip:port` of each host's slave.
    """

    addresses: Mapping[str, str]
    state: State | None = None
    problem: RunbookError | None = None
    entries: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @classmethod
    def ask(cls, site: Site) -> Registrations:
        """Ask the leader. Raises nothing: that nobody leads is part of the answer."""
        port = site.mesos.slave.port
        addresses = {host.name: f"{ip_of(host)}:{port}" for host in site.having("mesos_slave")}
        with masters_of(site) as masters:
            try:
                return cls.of(addresses, masters.state())
            except ServiceError as error:
                return cls(addresses, problem=error)

    @classmethod
    def of(cls, addresses: Mapping[str, str], state: State) -> Registrations:
        """From the leader's state. A host's slave is known by its ip, so that one with another port is found, too; of
        several the active one counts: a slave that registered anew stands beside the one that it was."""
        by_ip: dict[str, Mapping[str, Any]] = {}
        for slave in sorted(state["slaves"], key=lambda slave: bool(slave["active"])):
            by_ip[_ip(address_of(slave["pid"]))] = slave
        entries = {host: by_ip[_ip(address)] for host, address in addresses.items() if _ip(address) in by_ip}
        return cls(addresses, state, entries=entries)

    def registered(self, hosts: Sequence[str]) -> Evidence:
        """Whether the slaves of these hosts are registered with the leader, and active."""
        if self.state is None:
            assert self.problem is not None
            return Evidence.against(self.problem)
        missing = [host for host in hosts if host not in self.entries]
        lost = [host for host in hosts if host in self.entries and not self.entries[host]["active"]]
        said = [
            f"{', '.join(names)} {what}"
            for names, what in ((missing, "did not register"), (lost, "does not answer the leader"))
            if names
        ]
        leader = address_of(self.state["leader"])
        text = "; ".join(said) or f"{plural(len(hosts), 'slave is', 'slaves are')} registered with {leader}"
        remedy = "read the slave's log (3.2): see that it reaches the leader, and the leader it at its address and port"
        return Evidence(not said, text, self.table(hosts).frame if said else None, remedy)

    def table(self, hosts: Sequence[str] | None = None) -> Table:
        """The slaves of these hosts (of all), a row each. Amounts are `total / used / free`."""
        names = list(self.addresses if hosts is None else hosts)
        by_id: dict[str, dict[str, Any]] = {}
        if self.state is not None:
            records = slaves_table(self.state).to_dict("records")
            by_id = {str(row["id"]): {str(name): value for name, value in row.items()} for row in records}
        rows = [_row(name, by_id[self.entries[name]["id"]] if name in self.entries else None) for name in names]
        attributes = ["attributes"] if any(row.get("attributes") for row in rows) else []
        frame = pd.DataFrame(rows, columns=[*SLAVE_COLUMNS, *attributes], dtype=object)
        caption = f"Mesos: {len(names)} slaves; amounts are total / used / free, memory and disk in GB"
        return Table(frame.where(frame.notna(), ""), caption, states=("state",))


SLAVE_COLUMNS = [
    *("host", "state", "slave id", "CPUs", "memory", "disk", "ports", "port ranges", "tasks", "registered (UTC)"),
    "version",
]


def _row(host: str, slave: Mapping[str, Any] | None) -> dict[str, Any]:
    if slave is None:
        return {"host": host, "state": "not registered"}
    since = slave["registered"] if pd.isna(slave["reregistered"]) else slave["reregistered"]
    ports = slave["port_count"], slave["port_count"] - slave["port_count_free"], slave["port_count_free"]
    return {
        "host": host,
        "state": "active" if slave["active"] else "lost",
        "slave id": slave["id"],
        "CPUs": _amounts(slave, "cpus"),
        "memory": _amounts(slave, "mem", 1024),
        "disk": _amounts(slave, "disk", 1024),
        "ports": " / ".join(map(str, ports)),
        "port ranges": slave["ports"],
        "tasks": slave["tasks"],
        "registered (UTC)": "" if pd.isna(since) else f"{since:%Y-%m-%d %H:%M:%S}",
        "attributes": slave["attributes"],
        "version": slave["version"],
    }


def _amounts(slave: Mapping[str, Any], name: str, divisor: int = 1) -> str:
    return " / ".join(f"{slave[column] / divisor:.4g}" for column in (name, f"{name}_used", f"{name}_free"))


def _ip(address: str) -> str:
    return address.rpartition(":")[0]
