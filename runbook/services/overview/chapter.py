"""Chapter 0: what the cluster is to be, and what the hosts are now: topology, addresses, versions, fitness."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import pandas as pd
from IPython.display import display

from runbook.chapter import Chapter, section
from runbook.errors import DriftFound
from runbook.remote.checks import Evidence, check
from runbook.remote.modes import Mode
from runbook.remote.probes import values
from runbook.remote.shell import facts, quote
from runbook.services import leftovers
from runbook.services.overview import preflight
from runbook.site import Site
from runbook.views.tables import Table
from runbook.views.topology import Topology

NOT_INSTALLED = "not installed"

SOFTWARE = ("OS", "kernel", "ZooKeeper", "mesos", "marathon", "docker", "registry")
"""What 0.3 asks the versions of, in its order."""

# As the document asks, but where it looks into a log for what a program says: the log's lines rotate away. `.` ends a
# POSIX shell where its file is missing or malformed, so it stands in a subshell.
_VERSIONS = r"""
( . /etc/os-release && echo "OS=$PRETTY_NAME" ) 2>/dev/null
echo "kernel=$(uname -r)"
if [ -x {home}/bin/zkServer.sh ]; then
  v=$(cat {logs}/*zookeeper*.log 2>/dev/null | grep -a 'zookeeper.version=' | tail -n 1)
  for j in {home}/zookeeper-[0-9]*.jar; do [ -e "$j" ] && echo "zookeeper_jar=${{j##*/zookeeper-}}"; done
  echo "ZooKeeper=${{v##*zookeeper.version=}}"
fi
command -v mesos-master >/dev/null 2>&1 && echo "mesos=$(mesos-master --version 2>/dev/null | head -n 1)"
v=$(rpm -q --qf '%{{VERSION}}\n' {marathon} 2>/dev/null) && echo "marathon=$v"
if command -v docker >/dev/null 2>&1; then
  echo "docker=$(docker --version 2>/dev/null)"
  docker ps -a --format '{{{{.Names}}}} {{{{.Image}}}}' 2>/dev/null | sed 's/^/container=/'
fi
:
"""


def question(site: Site) -> str:
    """The sh text that prints the versions of what is on a host."""
    return _VERSIONS.format(
        home=quote(site.zookeeper.home), logs=quote(site.zookeeper.log_dir), marathon=quote(site.marathon.package)
    )


def versions(site: Site, output: str) -> dict[str, str]:
    """The version of each of SOFTWARE, from what `question` printed; NOT_INSTALLED where it is not there."""
    said = facts(output)
    found = dict.fromkeys(SOFTWARE, NOT_INSTALLED)
    found |= {name: said[name] for name in ("OS", "kernel", "marathon") if said.get(name)}
    if "ZooKeeper" in said:
        # `3.4.6-169--1, built on 02/10/2016 05:49 GMT`; Debian's builds forgot to fill in a commit
        logged = re.sub(r"(-\$\{.*?\})?,.*", "", said["ZooKeeper"])
        found["ZooKeeper"] = logged or said.get("zookeeper_jar", "installed, never started").removesuffix(".jar")
    if "mesos" in said:
        found["mesos"] = said["mesos"].removeprefix("mesos ") or "installed, does not start"
    if "docker" in said:
        found["docker"] = re.sub(r"^Docker version (\S+?),? .*", r"\1", said["docker"]) or "installed, does not start"
    for name, image in (line.split(" ", 1) for line in values(output, "container")):
        if name == site.registry.container:
            found["registry"] = image
    return found


def agreement(address: str, own: Sequence[str]) -> str:
    """Whether the address of the parameters is one of the host's own; of a name that cannot be said."""
    if not address.replace(".", "").isdecimal():
        return "– a name"
    return "✓ the same" if address in own else "⚠ not on any interface"


class Overview(Chapter):
    """Chapter 0: nothing is changed in any mode."""

    number = "0"
    title = "Overview"

    @section("0.1", "Topology")
    def topology(self) -> Topology:
        """0.1: which host is what, and who talks to whom, as the parameters say."""
        return Topology(self.site)

    @section("0", "Preflight: are the hosts fit?")
    def preflight(self) -> preflight.Preflight:
        """Check: every host is fit for what its roles need. Files that later chapters need are told of, no more.

        Raises CheckFailed in apply mode where a host has a problem.
        """
        result = preflight.run(self.site, self.hosts())
        if not result.fit:
            display(result)
        text = "; ".join(f"{item.host}: {item.meaning}" for item in result.having(preflight.State.PROBLEM))
        table = result.frame.reset_index()
        evidence = Evidence(result.fit, text or "no host has a problem", table, "do what the table says")
        check("every host is fit", lambda: evidence, mode=self.mode, deadline=0)
        names = [item for item in result.having(preflight.State.WARNING) if item.check == "address"]
        if names and self.mode is Mode.VERIFY:
            text = "\n".join(f"{item.host}: {item.meaning}" for item in names)
            raise DriftFound(text, names[0].remedy, result=result)
        return result

    @section("0.2", "Addresses of the hosts")
    def addresses(self) -> Table:
        """0.2: the addresses that hosts have, beside the one by which the parameters call them."""
        rows = list(self._addresses())
        frame = pd.DataFrame(rows, columns=["host", "in the parameters", "on the host", "hostname", "state"])
        return Table(frame, "addresses (IPv4)", states=("state",))

    @section("0.3", "Versions")
    def software(self) -> Table:
        """0.3: the versions of the software on every host; they go into the record, too."""
        rows = []
        for host, output in self.hosts().run(question(self.site)).items():
            found = versions(self.site, output.stdout) if output.ok else dict.fromkeys(SOFTWARE, "no answer")
            self.versions(host, found)
            rows.append({"host": host, **found})
        return Table(pd.DataFrame(rows, columns=["host", *SOFTWARE]), "software", states=SOFTWARE)

    @section("0.3 leftovers", "Left over from a set-up by hand")
    def leftovers(self) -> Table:
        """What a set-up by hand left on the hosts that this runbook does not use, and how it may be removed."""
        return leftovers.table(self.site, self.hosts())

    def _addresses(self) -> Iterator[tuple[str, str, str, str, str]]:
        outputs = self.hosts().run('hostname; ip -o -4 addr | awk \'{ sub("/.*", "", $4); print $4 }\'')
        for host in self.site.hosts:
            output = outputs[host.name]
            if not output.ok:
                said = output.error.message if output.error else output.stderr.strip()
                yield host.name, host.address, "", "", f"unreachable: {said}"
                continue
            name, *have = output.stdout.split()
            own = [address for address in have if not address.startswith("127.")]
            yield host.name, host.address, ", ".join(own), name, agreement(host.address, own)
