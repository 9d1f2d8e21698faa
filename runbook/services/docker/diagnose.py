"""Why containers do not start or do not stay, from what their hosts say (the failures of chapters 5 and 6).

One question a host brings the lines of Docker's and the slave's logs in which a known failure may be, the ends of
Mesos' containers, and how full the disk is; pure functions make findings of them.

Sources: Mesos' 'Docker Containerizer'; the failures of `services.mesos.diagnose`; signal(7): 137 is 128 + KILL;
Docker's 'Use the Device Mapper storage driver' on loop-lvm.
"""

from __future__ import annotations

from collections.abc import Iterator

from runbook.remote.hosts import Hosts, Output
from runbook.remote.probes import INSPECT_EACH, values
from runbook.remote.shell import facts, quote
from runbook.services.docker import engine
from runbook.services.findings import Finding, Findings
from runbook.services.mesos.diagnose import KNOWN as KNOWN_OF_MESOS
from runbook.services.mesos.diagnose import diagnose
from runbook.services.mesos.logs import as_extended
from runbook.services.mesos.steps import SLAVE
from runbook.site import Site
from runbook.wording import plural

KNOWN = tuple(
    failure
    for failure in KNOWN_OF_MESOS
    if failure.name
    in {
        "no containerizer for Docker",
        "executor registered too late",
        "port taken by something else",
        "chains of the firewall are gone",
        "disk nearly full",
        "Docker's version not understood",
    }
)
"""What of Mesos' known failures keeps a container from running."""

FULL = 90
"""Per cent of a disk from which on it counts as full: Docker and Mesos fail long before the last byte."""
MANY = 50
"""Exited containers of Mesos from which on they are worth a word."""


def explain(site: Site, hosts: Hosts) -> Findings:
    """What keeps containers from running on these hosts, as far as their logs and disks tell. Raises nothing."""
    answers = hosts.run(question(site), deadline=90.0)
    return Findings("Docker", tuple(finding for host, output in answers.items() for finding in findings(host, output)))


def question(site: Site) -> str:
    """The sh text that prints what `findings` reads. It changes nothing."""
    return INSPECT_EACH + _QUESTION.format(
        unit=engine.UNIT,
        patterns=" ".join(f"-e {quote(as_extended(failure.pattern.pattern))}" for failure in KNOWN),
        log=quote(f"{site.mesos.master.log_dir}/{SLAVE}.INFO"),
        work_dir=quote(site.mesos.slave.work_dir),
        ends=quote(_ENDS),
    )


_ENDS = "{{.State.ExitCode}} {{.State.OOMKilled}} {{.State.FinishedAt}} {{.HostConfig.Memory}} {{.Name}}"
# `docker ps -a` lists the latest first.
_QUESTION = """\
{{ journalctl -q -o cat --no-pager --since '15 min ago' -u {unit} | tail -n 2000
  tail -c 1000000 {log}; }} 2>/dev/null |
  grep -aE {patterns} | tail -n 50 | cut -c 1-1000 | sed 's/^/line=/'
df -Pk {work_dir} 2>/dev/null | awk 'NR == 2 {{ sub("%", "", $5); print "disk=" $5, $6 }}'
command -v docker >/dev/null 2>&1 || {{ echo docker=absent; exit 0; }}
said=$(timeout 30 docker info 2>&1) || {{ printf 'docker=%s\\n' "$(printf '%s\\n' "$said" | tail -n 1)"; exit 0; }}
echo docker=yes
root=$(printf '%s\\n' "$said" | sed -n 's/^ *Docker Root Dir: //p')
df -Pk "${{root:-/var/lib/docker}}" 2>/dev/null | awk 'NR == 2 {{ sub("%", "", $5); print "disk=" $5, $6 }}'
printf '%s\\n' "$said" | grep -q 'Data loop file' && echo loop=yes
ended=$(docker ps -aq --no-trunc --filter status=exited --filter name=mesos-)
echo "exited=$(printf '%s\\n' "$ended" | grep -c .)"
inspect_each {ends} $(printf '%s\\n' "$ended" | head -n 20) | sed 's/^/end=/'
exit 0
"""


def findings(host: str, output: Output) -> Iterator[Finding]:
    """What is wrong on a host, from what `question` had it print, in the order in which it should be mended."""
    if not output.ok:
        said = output.error.message if output.error else output.stderr.strip()
        yield Finding(host, "the host does not answer", said, "see that it is up and reached")
        return
    present = facts(output.stdout)
    if present["docker"] == "absent":
        yield Finding(host, "Docker is not installed", "there is no docker command", "run 5.1")
    elif present["docker"] != "yes":
        yield Finding(host, "Docker does not answer", present["docker"], "read its log: journalctl -u docker; run 5.2")
    yield from _logged(host, output.stdout)
    yield from _out_of_memory(host, output.stdout)
    yield from _storage(host, output.stdout)


def _logged(host: str, text: str) -> Iterator[Finding]:
    for known in diagnose(values(text, "line"), KNOWN):
        yield Finding(host, known.failure.cause, known.last, known.failure.remedy)


def _out_of_memory(host: str, text: str) -> Iterator[Finding]:
    """Containers that the kernel ended: exit status 137 alone may as well be a stop that somebody asked for."""
    for line in values(text, "end"):
        code, killed, finished, memory, name = line.split(" ", 4)
        if killed == "true":
            yield Finding(
                host,
                "a task needed more memory than it was given, and the kernel ended it",
                f"{name.lstrip('/')} ended with {code} at {finished[:19]}Z, at a limit of {int(memory) / 2**20:.0f} MB",
                "raise `mem` of the app (6.3: MySQL does not start with 128 MB)",
            )


def _storage(host: str, text: str) -> Iterator[Finding]:
    present = facts(text)
    exited = int(present.get("exited", 0))
    for disk in dict.fromkeys(values(text, "disk")):
        used, mount = disk.split(" ", 1)
        if int(used) >= FULL:
            left = f", with {plural(exited, 'exited container')} of Mesos' on it" if exited else ""
            yield Finding(
                host,
                "the disk is nearly full",
                f"{mount} is {used} % full{left}",
                "remove exited containers and images that nobody uses; lower the slave's gc_delay (1weeks) and "
                "docker_remove_delay (6hrs)",
            )
    if present.get("loop") == "yes":
        yield Finding(
            host,
            "Docker stores in loop files",
            "devicemapper with a data loop file",
            "choose overlay (a kernel from 3.18 on, or CentOS 7.2's) or give devicemapper a volume: images are lost",
        )
    if exited >= MANY:
        yield Finding(
            host,
            "ended containers pile up",
            plural(exited, "exited container"),
            "lower the slave's docker_remove_delay (6hrs)",
        )
