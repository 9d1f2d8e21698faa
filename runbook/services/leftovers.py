"""What a set-up by hand, as the document describes it, leaves on a host once the chapters have taken over.

Listed is what nothing of this runbook reads or writes any more: who may remove it, when, and how. Nothing is removed.
Each question belongs to a section of the document that is wrong, or that the chapters do in another way.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import pandas as pd

from runbook.remote.containers import familiar, repository
from runbook.remote.hosts import Hosts, Output
from runbook.remote.probes import values
from runbook.remote.shell import facts, quote
from runbook.services.mesos.steps import DEFAULT_WORK_DIR, SLAVE
from runbook.site import HostParameters, Site
from runbook.views.tables import Table
from runbook.wording import plural, size

ARCHIVES = ("centos", "mysql", "registry", "hyper_registry_web")
"""What the document uploads to /tmp (5.3, 6.1, 7.1, 8.1)."""
PAGES = frozenset({"registry", "hyper/docker-registry-web", "atcol/docker-registry-ui"})
"""The images that the document runs by hand (7.3, 8.2, 8.3.1)."""


@dataclass(frozen=True)
class Leftover:
    """One thing that is left: `section` of the document, `what` it is and where, `used` by what at present (empty:
    by nothing, so that it may be removed), and `how` it is removed."""

    section: str
    what: str
    used: str
    how: str

    @property
    def state(self) -> str:
        return f"○ in use: {self.used}" if self.used else "⚠ may be removed"


def table(site: Site, hosts: Hosts) -> Table:
    """What is left on each host, with when and how it may be removed."""
    rows = []
    outputs = hosts.run(question(site))
    for host in hosts:
        output = outputs[host.name]
        if not output.ok:
            why = output.error.message if output.error else output.stderr.strip()
            rows.append((host.name, "", "", f"unreachable: {why}", ""))
            continue
        rows += [(host.name, one.section, one.what, one.state, one.how) for one in leftovers(site, host, output)]
    frame = pd.DataFrame(rows, columns=["host", "section", "what is left", "state", "how to remove it"])
    heading = "left over from a set-up by hand" if rows else "nothing is left over from a set-up by hand"
    return Table(frame, heading, states=("state",))


# asking

_FILES = r"""
for f in {archives}; do [ -f "$f" ] && echo "archive=$(stat -c %s "$f") $f"; done
for f in "$HOME/mysql.json" /root/mysql.json /tmp/mysql.json; do
  grep -q PASSWORD "$f" 2>/dev/null && echo "secret=$f"
done
for p in {packages}; do
  rpm -q "$p" >/dev/null 2>&1 || continue
  rpm -V --nodeps "$p" 2>/dev/null | sed -n "s|^..5[^ ]* .* \(/[^ ]*/systemd/system/[^ ]*\)\$|unit=$p \1|p"
done
"""
_ZOOKEEPER = r"""
d=$(sed -n 's/^ *dataDir *= *//p' {conf}/zoo.cfg 2>/dev/null | tail -n 1 | tr -d '\r' | sed 's|/* *$||')
if [ -n "$d" ] && [ -f {conf}/myid ] && [ "$(readlink -f "$d")" != "$(readlink -f {conf})" ]; then
  echo "myid=$(head -n 1 {conf}/myid)"
fi
"""
_SLAVE = r"""
if [ -d {work_dir} ]; then
  pid=$(systemctl show -p MainPID {unit} 2>/dev/null | sed 's/.*=//')
  w=$(tr '\0' '\n' 2>/dev/null < "/proc/$pid/cmdline" | sed -n 's/^--work_dir=//p')
  [ -n "$w" ] || w=$(tr '\0' '\n' 2>/dev/null < "/proc/$pid/environ" | sed -n 's/^MESOS_WORK_DIR=//p')
  case ${{pid:-0}} in (0) w=none;; esac
  n=$(ls -l /proc/[0-9]*/cwd 2>/dev/null | grep -c ' -> {work_dir}\(/\|$\)')
  echo "work_dir=$(du -sk {work_dir} 2>/dev/null | cut -f 1) $n ${{w:-{work_dir}}}"
fi
"""
# `stop`, or `~` as older versions write it
_RULES = r"""
for f in /etc/rsyslog.conf /etc/rsyslog.d/*.conf; do
  grep -Eq {rule} "$f" 2>/dev/null || continue
  if grep -Eq '^[^#]*([[:space:]]|^)(stop|~)[[:space:]]*$' "$f"; then echo "rules=stop $f"; else echo "rules=on $f"; fi
done
"""
_CONTAINERS = r"""
if command -v docker >/dev/null 2>&1; then
  timeout 30 docker ps -a --format 'container={{.Names}}\t{{.Image}}\t{{.Ports}}\t{{.Status}}' 2>/dev/null
fi
"""


def question(site: Site) -> str:
    """The sh text that prints what `leftovers` reads. It changes nothing."""
    packages = (site.docker.package, site.mesos.package, site.marathon.package)
    text = _FILES.format(
        archives=" ".join(quote(f"/tmp/{name}.tar") for name in ARCHIVES), packages=" ".join(map(quote, packages))
    )
    text += _ZOOKEEPER.format(conf=quote(site.zookeeper.conf_dir))
    if site.mesos.slave.work_dir != DEFAULT_WORK_DIR:
        text += _SLAVE.format(work_dir=DEFAULT_WORK_DIR, unit=SLAVE)
    named = "|".join(map(re.escape, site.syslog.programs))
    return text + _RULES.format(rule=quote(f"^[^#]*programname.*({named})")) + _CONTAINERS + ":\n"


# judging


def leftovers(site: Site, host: HostParameters, output: Output) -> Iterator[Leftover]:
    """What a host's answer to `question` shows as left over."""
    found = facts(output.stdout)
    yield from _zookeeper(site, found)
    yield from _slave(found)
    yield from _rules(site, output.stdout)
    for line in values(output.stdout, "unit"):
        package, path = line.split(" ", 1)
        yield Leftover("7.2" if package == site.docker.package else "2.1", *_unit(site, package, path))
    yield from _containers(site, host, output.stdout)
    for line in values(output.stdout, "archive"):
        count, path = line.split(" ", 1)
        yield Leftover("5.3", f"{path}, {size(int(count))}, an archive that was loaded", "", f"rm {shlex.quote(path)}")
    for path in dict.fromkeys(values(output.stdout, "secret")):
        how = f"rm {shlex.quote(path)}, and change the passwords: whoever read the file has them"
        yield Leftover("6.2", f"{path}, with MySQL's passwords in clear text", "", how)


def _zookeeper(site: Site, found: Mapping[str, str]) -> Iterator[Leftover]:
    if "myid" not in found:
        return
    path = f"{site.zookeeper.conf_dir}/myid"
    what = f"{path} ({found['myid']}): ZooKeeper reads the one in {site.zookeeper.data_dir}"
    yield Leftover("2.2.1", what, "", f"rm {shlex.quote(path)}")


def _slave(found: Mapping[str, str]) -> Iterator[Leftover]:
    if "work_dir" not in found:
        return
    kilobytes, processes, present = found["work_dir"].split(" ", 2)
    used = "the slave works there, until chapter 3 gives it another one" if present == DEFAULT_WORK_DIR else ""
    if not used and int(processes):
        used = f"{plural(int(processes), 'process runs', 'processes run')} in it, of tasks that began there"
    what = f"{DEFAULT_WORK_DIR}, {size(int(kilobytes or 0) * 1024)}, the slave's default work_dir"
    yield Leftover("3", what, used, f"rm -rf {DEFAULT_WORK_DIR}, once no sandbox in it is needed any more")


def _rules(site: Site, text: str) -> Iterator[Leftover]:
    for line in values(text, "rules"):
        stops, path = line.split(" ", 1)
        if path != site.syslog.config:
            what = f"{path} has rules for the same programs: their lines are written more than once, or never arrive"
            how = f"take them out of {path}, then `systemctl restart rsyslog`; {site.syslog.config} has the rules"
            yield Leftover("2.2.7", what, "", how)
        elif stops != "stop":
            what = f"{path} has rules without `stop`: every line goes to the system's log as well"
            yield Leftover("2.2.7", what, "until chapter 2 writes it", "chapter 2 replaces it, and keeps a backup")


def _unit(site: Site, package: str, path: str) -> tuple[str, str, str]:
    what = f"{path} was edited: the next version of {package} undoes that without a word"
    how = f"move the change to a drop-in (systemctl edit), then `yum reinstall {package}`"
    if package != site.docker.package:
        return what, f"it is what {package} runs by", how
    how = (
        f"`yum reinstall {package}`, which restarts Docker and ends its containers; chapter 7 then names the registry "
        "in /etc/docker/daemon.json (in both places at once, Docker does not start)"
    )
    return what, "Docker runs by it, and trusts the registry by it", how


def _containers(site: Site, host: HostParameters, text: str) -> Iterator[Leftover]:
    wanted = {
        name: port
        for role, name, port in (
            ("registry", site.registry.container, site.registry.port),
            ("registry_web", site.registry_web.container, site.registry_web.port),
        )
        if role in host.roles
    }
    images = {site.registry.image, site.registry_web.image}
    repositories = PAGES | {repository(image.tag) for key, image in site.images.items() if key in images}
    for line in values(text, "container"):
        name, image, ports, status = line.split("\t")
        ours = any(name == f"{known}.replaced" for known in wanted)
        known = repository(familiar(image)) in repositories or repository(image).rpartition("/")[2] == "registry"
        if name in wanted or name.startswith("mesos-") or not (known or ours):
            continue
        section = "7.3" if repository(image).endswith("registry") else "8.2"
        running = status.startswith(("Up", "Restarting"))
        taken = [port for port in wanted.values() if f":{port}->" in ports]
        used = f"at port {taken[0]}, until {section} takes it over" if taken else "it runs" if running else ""
        stop = f"docker stop {name}; " if running else ""
        what = f"the container {name} ({image}; {status})"
        how = f"{stop}docker rm {name}; look first what is in its volumes (docker inspect {name})"
        yield Leftover(section, what, used, how)
