"""Why MySQL does not run, or lets nobody in: from its containers' ends and logs, and from what a client meets.

A container that ends at once is tried again by Marathon, so that several dead ones lie about; the newest tells. Their
logs are read with `docker logs` on the host, where they stay until Mesos removes them (docker_remove_delay, 6 hours).

Sources: the image's docker-entrypoint.sh; messages of mysqld 5.7 and mariadbd 10.11; `docker inspect` (OOMKilled).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from runbook.errors import ConnectionCut, LoginRefused, NotFound, RunbookError
from runbook.remote.hosts import Hosts
from runbook.remote.shell import quote
from runbook.services.findings import Finding
from runbook.services.mysql.app import data_host
from runbook.services.mysql.host import Container, DataHost

LINES = 60
"""Lines of a container's log that are read: the last ones tell why it ended."""
KILLED = 137
"""The exit status after SIGKILL, which is also what the kernel ends a container with that has no memory left."""
SKEW = timedelta(seconds=60)
"""By how much the clocks of the host and of Marathon may differ."""


@dataclass(frozen=True)
class Known:
    """A known end: what the log says, the cause, and the remedy."""

    pattern: re.Pattern[str]
    cause: str
    remedy: str


def _known(pattern: str, *, cause: str, remedy: str) -> Known:
    return Known(re.compile(pattern, re.IGNORECASE), cause, remedy)


KNOWN: tuple[Known, ...] = (
    _known(
        r"password option is not specified|specify one of M\w+_ROOT_PASSWORD|M\w+_ROOT_PASSWORD (?:is )?not set",
        cause="no root password reached the image",
        remedy="run 6.1, which writes the file that the container's environment is read from, then 6.2",
    ),
    _known(
        r"unable to lock \S*ibdata1|another mysqld process is using|lock.{0,40}aria_log_control",
        cause="another server runs on the data folder",
        remedy="docker ps on the host shows it; end the one that Marathon does not know with docker stop",
    ),
    _known(
        r"no space left on device|errcode: 28|error:? 28\b|disk is full",
        cause="the disk of the data folder is full",
        remedy="make room on the host: df shows where, and old images and containers are a common reason",
    ),
    _known(
        r"permission denied|errcode: 13|errno: 13|can't (?:create|read).{0,80}/var/lib/mysql|not writable"
        r"|cannot change ownership|chown:.*not permitted",
        cause="the data folder is not writable for the server",
        remedy="give the folder to the user that the image runs mysqld as (the entrypoint does as root); with SELinux "
        "run 6.1, which labels it (chcon -R -t svirt_sandbox_file_t)",
    ),
    _known(
        r"data directory has files in it|is unusable|directory is not empty",
        cause="the data folder holds something that is no server's data",
        remedy="see what it is; empty the folder, or choose another mysql.volume",
    ),
    _known(
        r"table '?\W?mysql\W?\.\W?\w+\W? doesn't exist|can't open and lock privilege tables|unsupported redo log format"
        r"|redo log was created|invalid flags 0x|upgrade after a crash is not supported|data dictionary.{0,40}upgrade",
        cause="the data was initialised only in part, or by another version",
        remedy="go back to the image that wrote the data; where its first start was cut short (6.3: memory) and it "
        "holds nothing yet, move the folder away and let the image initialise a new one",
    ),
    _known(
        r"cannot allocate memory|out of memory|mmap\(.*failed|fatal signal 9",
        cause="the server got too little memory",
        remedy="set mysql.mem to 1024 or more (6.3)",
    ),
    _known(
        r"port is already allocated|address already in use",
        cause="something that is no task of Mesos listens on the port that Mesos gave",
        remedy="compare `ss -ltnp` with the slave's ports, and leave that port out of mesos.slave.ports",
    ),
    _known(
        r"access denied for user",
        cause="the data was initialised with another password",
        remedy="change it in the server with ALTER USER, or point the parameters at the one of then",
    ),
    _known(
        r"plugin '?\w+'? is not loaded|unknown (?:variable|option) ",
        cause="the server does not know an option that it was given",
        remedy="take it out of the image's configuration, or use the version that it is for",
    ),
)


def log_script(container: str, lines: int = LINES) -> str:
    """The sh text that prints the last lines of a container, dead or alive."""
    return f"docker logs --tail {lines} {quote(container)} 2>&1 | tail -n {lines} | cut -c 1-400"


def of_containers(hosts: Hosts, since: datetime | None = None) -> tuple[Finding, ...]:
    """Why the newest container of the app that ended did so, if it was started after `since` (UTC).

    Asks the data's host, and reads the log there.
    """
    host = data_host(hosts.site)
    seen = DataHost.ask(hosts)
    if seen.problem is not None:
        return (Finding(host.name, "the data's host does not answer", seen.problem.message, seen.problem.remedy or ""),)
    ended = [one for one in seen.of_app(hosts.site) if not one.running and _belongs(one, since)]
    if not ended:
        return ()
    output = hosts.only(host.name).run(log_script(ended[0].id))[host.name]
    return tuple(of_log(host.name, ended[0], output.stdout.splitlines()))


def _belongs(container: Container, since: datetime | None) -> bool:
    """Whether a container was started after `since`, by clocks that differ by `SKEW` at most."""
    return since is None or datetime.fromisoformat(container.started[:19]) > since - SKEW


def of_log(host: str, ended: Container, lines: Sequence[str]) -> Iterator[Finding]:
    """What a dead container's end and its log say. Pure. Where nothing is known, its last lines are the evidence."""
    who = f"container {ended.short}, {ended.status}"
    if ended.out_of_memory:
        yield Finding(host, "the server got too little memory", who, "set mysql.mem to 1024 or more (6.3)")
    found = False
    for known in KNOWN:
        said = [line.strip() for line in lines if known.pattern.search(line)]
        if said:
            found = True
            yield Finding(host, known.cause, f"{said[-1]} ({who})", known.remedy)
    if found or ended.out_of_memory:
        return
    if ended.exit_code == KILLED:
        remedy = (
            "docker kill and the end of a task do so, too; else see dmesg for oom-killer, and raise mysql.mem (6.3)"
        )
        yield Finding(host, "it was killed", who, remedy)
    else:
        last = "\n".join(lines[-8:]) or "it printed nothing"
        yield Finding(host, "it ended, and its log tells no known reason", f"{who}\n{last}", "read it: docker logs")


def of_error(host: str, error: RunbookError) -> Finding:
    """What a client met."""
    match error:
        case LoginRefused():
            cause = "the server does not take the password of the parameters"
        case NotFound():
            cause = "something that should be there is not"
        case ConnectionCut():
            cause = "the server cuts connections: it is starting, or ends"
        case _:
            cause = "the server cannot be reached"
    return Finding(host, cause, error.message, error.remedy or "")
