"""What must hold of Marathon's instances, at one moment: pure judgements on what each of them says, and their znodes.

- `/marathon/leader/member_NNNNNNNNNN`: one ephemeral node per instance, whose data is `hostname:http_port`; the lowest
  sequence leads. Two with equal data are a session that has not expired yet, or two hosts of one name.
- `/v2/info`, asked through any instance, is answered by the leader: standbys pass it on.

Sources: `LeaderProxyFilter.scala` and 'High Availability' of Marathon's documentation.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
from kazoo.exceptions import NoNodeError

from runbook.remote.checks import Evidence
from runbook.secrets import mask_arguments
from runbook.services.findings import Finding
from runbook.services.marathon.client import InstanceView
from runbook.services.marathon.deploy import marathon_of
from runbook.services.mesos.checks import masters_of
from runbook.services.mesos.client import State
from runbook.services.mesos.election import address_of
from runbook.services.mesos.tables import frameworks_table, tasks_table
from runbook.services.zookeeper_ensemble import session
from runbook.site import HostParameters, Site
from runbook.views.tables import Table
from runbook.wording import plural

STRANGER = "an instance that is not of this site"


@dataclass(frozen=True, order=True)
class Member:
    """An instance as it stands for election in ZooKeeper; the first one leads."""

    sequence: int
    znode: str
    address: str
    """`hostname:http_port`, as it advertises itself."""

    @classmethod
    def parse(cls, name: str, data: bytes) -> Member | None:
        """Read the node `…member_NNNNNNNNNN` (Curator, from 1.2 on, puts a session's id before it)."""
        match = re.search(r"(?:member_|-latch-)(\d{10})$", name)
        return Member(int(match[1]), name, data.decode(errors="replace")) if match else None


def members_of(site: Site) -> tuple[Member, ...]:
    """The instances that stand for election, the leader first. Raises ServiceError where ZooKeeper does not tell."""
    found = []
    with session(site.zookeeper_hosts) as zookeeper:
        folder = f"{site.marathon.zk_path}/leader"
        try:
            names = zookeeper.get_children(folder)
        except NoNodeError:
            return ()
        for name in names:
            try:
                found.append(Member.parse(name, zookeeper.get(f"{folder}/{name}")[0]))
            except NoNodeError:
                continue  # it ended meanwhile
    return tuple(sorted(filter(None, found)))


@dataclass(frozen=True)
class Instances:
    """All instances of a site at one moment: `views` by host name, and ZooKeeper's `members`, the leader first."""

    views: Mapping[str, InstanceView]
    members: tuple[Member, ...]

    @classmethod
    def ask(cls, site: Site, *, ask_zookeeper: bool = True) -> Instances:
        """Ask every instance and ZooKeeper. Raises ServiceError where ZooKeeper does not tell.

        Without `ask_zookeeper` it is asked only where some instance answers: it may not be there either, which takes
        ten seconds to find out.
        """
        with marathon_of(site) as marathon:
            views = {view.name: view for view in marathon.views()}
        answered = any(view.problem is None for view in views.values())
        return cls(views, members_of(site) if answered or ask_zookeeper else ())

    @property
    def answering(self) -> dict[str, InstanceView]:
        """Those through which an answer comes."""
        return {name: view for name, view in self.views.items() if view.problem is None}

    @property
    def elected(self) -> str | None:
        """The address of the leader by ZooKeeper."""
        return self.members[0].address if self.members else None

    @property
    def leader(self) -> str | None:
        """The host of the leader on which ZooKeeper and every answer agree; None where they do not."""
        named = {view.leader for view in self.answering.values()}
        if len(named) != 1 or named != {self.elected}:
            return None
        return next((name for name, view in self.views.items() if view.address == self.elected), None)

    def findings(self) -> list[Finding]:
        """All that speaks against them, the worst first."""
        return [*self._of_leader(), *self._of_instances()]

    def led(self) -> Evidence:
        """4.2: whether exactly one leads, by ZooKeeper and by what every instance that answers says."""
        return self._judged(list(self._of_leader()))

    def complete(self) -> Evidence:
        """4.2: whether every instance answers, stands for election once, and names the same leader."""
        return self._judged(self.findings())

    def can_spare(self, host: str) -> Evidence:
        """Whether the instance on `host` may be (re)started: another one answers, or it does not run itself."""
        others = sorted(self.answering.keys() - {host})
        if host not in self.answering or len(self.views) == 1:
            return Evidence(True, f"nobody is served through {host} alone")
        text = f"{', '.join(others)} answer" if others else f"nobody answers but {host}"
        return Evidence(bool(others), text, None if others else self._frame, "start the other instances first")

    def is_back(self, host: str) -> Evidence:
        """4.2: whether the instance on `host`, just started, answers, and so knows a leader that works."""
        view = self.views[host]
        if view.problem is not None:
            return Evidence(False, view.problem, remedy="read its log: journalctl -t marathon")
        return Evidence(True, f"{host} answers, {view.leader} leads")

    def order(self, hosts: Sequence[HostParameters]) -> list[HostParameters]:
        """In which order to touch them: those that do not answer, then the standbys, and last the leader."""

        def rank(host: HostParameters) -> int:
            if host.name not in self.answering:
                return 0
            return 2 if self.views[host.name].address == self.elected else 1

        return sorted(hosts, key=rank)

    def table(self) -> Table:
        """The instances, a row each."""
        return Table(self._frame, f"Marathon: {plural(len(self.views), 'instance')}", states=("role",))

    # the parts

    @property
    def _frame(self) -> pd.DataFrame:
        rows = [
            {
                "host": name,
                "role": self._role(view),
                "address": view.address,
                "version": view.version or "",
                "names": view.leader or "",
                "znodes": ", ".join(one.znode for one in self.members if one.address == view.address),
                "framework": view.framework_id or "",
                "problem": view.problem or "",
            }
            for name, view in self.views.items()
        ]
        frame = pd.DataFrame(rows)
        return frame if frame["problem"].any() else frame.drop(columns="problem")

    def _role(self, view: InstanceView) -> str:
        if view.problem is not None:
            return "does not answer"
        return "leader" if view.address == self.elected else "standby"

    def _of_leader(self) -> Iterator[Finding]:
        answering, elected = self.answering, self.elected
        if not answering:
            evidence = "; ".join(f"{name}: {view.problem}" for name, view in self.views.items())
            yield Finding("", "no instance answers", evidence, self._silent(elected))
            return
        if elected is None:
            remedy = "see that /etc/marathon/conf/zk names this ZooKeeper and its path, the same on every host"
            yield Finding("", "no instance stands for election", "/marathon/leader has no member", remedy)
        named: dict[str | None, list[str]] = {}
        for name, view in answering.items():
            named.setdefault(view.leader, []).append(name)
        told = "; ".join(f"{', '.join(names)} say {leader}" for leader, names in named.items())
        if len(named) > 1:
            yield Finding(
                "", "the instances name different leaders", told, "wait some 10 s for an election; see ZooKeeper"
            )
        elif elected is not None and elected not in named:
            evidence = f"ZooKeeper has {elected}, and {told}"
            yield Finding(
                "", "ZooKeeper names another leader", evidence, "wait some 10 s; then restart the one it names"
            )
        for name, view in answering.items():
            if view.elected is False and view.address == view.leader:
                remedy = f"restart it: systemctl restart marathon on {name}"
                yield Finding(
                    name, "the leader does not take itself for elected", "/v2/info says elected: false", remedy
                )

    def _silent(self, elected: str | None) -> str:
        """What to do where nobody answers: an instance that leads and does not work must go."""
        host = next((name for name, view in self.views.items() if view.address == elected), None)
        if host is not None:
            return f"{host} leads by ZooKeeper: restart that instance (systemctl restart marathon), then read its log"
        return "start the instances, and read their logs: journalctl -t marathon"

    def _of_instances(self) -> Iterator[Finding]:
        ours = {view.address: name for name, view in self.views.items()}
        for name, view in self.views.items():
            if view.problem is not None:
                yield Finding(name, "does not answer", view.problem, "see that it runs, and read its log")
        counted = Counter(member.address for member in self.members)
        for address, name in ours.items():
            if name in self.answering and not counted[address]:
                evidence = f"no member of /marathon/leader holds {address}"
                yield Finding(name, "does not stand for election", evidence, "see /etc/marathon/conf/hostname there")
        for address, count in counted.items():
            if count > 1:
                znodes = ", ".join(member.znode for member in self.members if member.address == address)
                remedy = (
                    "a session of an instance that died ends after 40 s; if both stay, two hosts have one hostname: "
                    "see /etc/marathon/conf/hostname of each"
                )
                yield Finding(ours.get(address, ""), "stands for election twice", f"{address}: {znodes}", remedy)
            if address not in ours:
                remedy = "stop that instance, or give its host the role marathon; see its /etc/marathon/conf/hostname"
                yield Finding("", STRANGER, address, remedy)

    def _judged(self, findings: Sequence[Finding]) -> Evidence:
        said = "; ".join(": ".join(filter(None, [one.host, one.cause, one.evidence])) for one in findings)
        remedy = "; ".join(dict.fromkeys(one.remedy for one in findings))
        if findings:
            return Evidence(False, said, self._frame, remedy, tried=bool(self.answering))
        naming = f"named by {len(self.answering)} of {len(self.views)} instances"
        leader = self.leader or STRANGER
        return Evidence(True, f"{leader} ({self.elected}) leads by {self.members[0].znode}, {naming}")


# the leader's configuration


def other_settings(site: Site, info: Mapping[str, Any]) -> list[str]:
    """Each setting that `/v2/info` of the leader reports and that is not the one of the parameters, in words.

    What an answer lacks is not compared. Source: the recorded answers of Marathon 1.1.1 to 1.11.
    """
    wanted = {
        ("marathon_config", "master"): site.mesos_zk,
        ("zookeeper_config", "zk"): site.marathon_zk,
        ("http_config", "http_port"): site.marathon.http_port,
    }
    found = []
    for (section, name), value in wanted.items():
        reported = (info.get(section) or {}).get(name)
        if reported is not None and str(reported) != str(value):
            found.append(f"--{name} is {mask_arguments(str(reported))}, expected {mask_arguments(str(value))}")
    return found


# the framework


@dataclass(frozen=True)
class Framework:
    """Marathon's leader beside Mesos' leader: the id that the one has, and the state of the other."""

    name: str
    id: str | None
    state: State
    settings: tuple[str, ...] = ()
    """What the leader runs with that the parameters say otherwise."""

    @classmethod
    def ask(cls, site: Site) -> Framework:
        """Ask both leaders. Raises ServiceError where one does not answer."""
        with marathon_of(site) as marathon, masters_of(site) as masters:
            info = marathon.info()
            name, settings = str(info.get("name") or "marathon"), tuple(other_settings(site, info))
            return cls(name, info.get("frameworkId"), masters.state(), settings)

    def registered(self) -> Evidence:
        """4.2: whether Mesos' leader has the framework of this id, as active."""
        found = list(self.findings())
        frame = self.table()
        if found:
            said = "; ".join(": ".join(filter(None, [one.cause, one.evidence])) for one in found)
            return Evidence(False, said, frame, "; ".join(one.remedy for one in found))
        tasks = plural(int(frame.loc[frame["id"] == self.id, "tasks"].iloc[0]), "task")
        return Evidence(True, f"{self.id} is active at {address_of(self.state['leader'])}, with {tasks}", frame)

    def findings(self) -> Iterator[Finding]:
        """What speaks against it."""
        loopback = (
            "see LIBPROCESS_IP in /etc/default/marathon on the leader's host, and that the masters reach that address"
        )
        for setting in self.settings:
            hint = "run 4.2 again, which restarts the instance; see `ps` where it was started by hand"
            yield Finding("", "the leader runs with another setting", setting, hint)
        entry = next((one for one in self.state["frameworks"] if one["id"] == self.id), None)
        removed = {one["id"] for one in self.state.get("completed_frameworks", ())}
        if self.id is None:
            yield Finding("", "Marathon has no framework id", "Mesos has not registered it yet", loopback)
        elif self.id in removed:
            orphans = self._orphans()
            evidence = f"Framework has been removed: {self.id}"
            evidence += f"; its tasks that still run: {', '.join(orphans)}" if orphans else ""
            remedy = "restart the leading instance, which registers with a new id; end the old tasks"
            yield Finding("", "Mesos ended the framework", evidence, remedy)
        elif entry is None:
            yield Finding("", "Mesos does not know the framework", self.id, loopback)
        elif not entry["active"]:
            evidence = f"{self.id} at {entry.get('pid') or entry.get('hostname')}"
            yield Finding("", "the framework is not connected", evidence, loopback)
        elif address_of(entry.get("pid") or "").startswith("127."):
            yield Finding("", "the framework announces the loopback", entry["pid"], loopback)

    def table(self) -> pd.DataFrame:
        """The frameworks of this name that Mesos knows."""
        frame = frameworks_table(self.state)
        ours = frame[(frame["name"] == self.name) | (frame["id"] == self.id)]
        shown = ours[["id", "name", "status", "host", "tasks"]].reset_index(drop=True)
        return shown.assign(**{"registered (UTC)": ours["registered"].dt.strftime("%Y-%m-%d %H:%M:%S").tolist()})

    def _orphans(self) -> list[str]:
        tasks = tasks_table(self.state)
        return list(tasks[(tasks["framework_id"] == self.id) & tasks["live"]]["id"])
