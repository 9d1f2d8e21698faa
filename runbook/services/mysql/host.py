"""What the data's host tells: the image, the data's folder, and the containers that run or ran on that folder.

One question, before a deployment and after. Of a container's environment only the variables that name its task leave
the host: the rest holds passwords.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from runbook.errors import NotFound, RunbookError, StepFailed
from runbook.remote.hosts import Hosts, Output
from runbook.remote.probes import INSPECT_EACH, values
from runbook.remote.shell import facts, quote
from runbook.services.marathon.apps import app_id
from runbook.services.mysql.app import data_host
from runbook.site import Site


@dataclass(frozen=True)
class Container:
    """A container on the data's host. `ports` are those of the host that lead into it, `volumes` the host's folders
    that it may write to; `task` and `app` are Marathon's, empty for a container that it did not start. `started` and
    `finished` are Docker's time stamps (UTC)."""

    id: str
    name: str
    image: str
    running: bool
    exit_code: int
    out_of_memory: bool
    started: str
    finished: str
    ports: tuple[int, ...] = ()
    volumes: tuple[str, ...] = ()
    task: str = ""
    app: str = ""

    @property
    def short(self) -> str:
        """The id as `docker ps` shows it."""
        return self.id[:12]

    @property
    def status(self) -> str:
        """How it is, or how it ended."""
        if self.running:
            return f"running since {_time(self.started)}"
        how = ", out of memory" if self.out_of_memory else ""
        return f"ended with {self.exit_code}{how} at {_time(self.finished)}"


@dataclass(frozen=True)
class DataHost:
    """What the data's host told. `problem` says why it told nothing.

    `docker`: whether a Docker answers; `image`: whether it has the image; `folder`: `absent`, `empty`, `initialised`
    (a server's data is in it) or `foreign` (something else is); `database`: whether the parameters' database is in it.
    """

    docker: bool = False
    image: bool = False
    folder: str = "absent"
    database: bool = False
    containers: tuple[Container, ...] = ()
    problem: RunbookError | None = None

    @classmethod
    def ask(cls, hosts: Hosts) -> DataHost:
        """Ask the data's host over these connections. Raises nothing."""
        name = data_host(hosts.site).name
        return cls.of(hosts.only(name).run(probe(hosts.site))[name])

    @classmethod
    def of(cls, output: Output) -> DataHost:
        """From what `probe` printed."""
        if not output.ok:
            return cls(problem=output.error or StepFailed(f"the question failed: {output.stderr.strip()}"))
        try:
            found = facts(output.stdout)
            containers = tuple(map(_container, _blocks(output.stdout)))
            return cls(
                docker=found["docker"] == "yes",
                image=bool(found["image"]),
                folder=found["folder"],
                database=found["database"] == "yes",
                containers=containers,
            )
        except StepFailed as error:
            return cls(problem=error)

    def of_app(self, site: Site) -> tuple[Container, ...]:
        """The containers of the app's tasks, the newest first."""
        mine = [one for one in self.containers if one.app == app_id(site.mysql.app)]
        return tuple(sorted(mine, key=lambda one: one.started, reverse=True))

    def of_task(self, task: str) -> Container:
        """The container of a task. Raises NotFound."""
        for one in self.containers:
            if one.task == task:
                return one
        raise NotFound(f"docker ps shows no container of the task {task}", "wait, or see the slave's log")

    def on_folder(self, folder: str) -> tuple[Container, ...]:
        """The running containers that may write to this folder of the host, one around it or one within it."""
        return tuple(
            one
            for one in self.containers
            if one.running and any(_within(volume, folder) or _within(folder, volume) for volume in one.volumes)
        )


def probe(site: Site) -> str:
    """The sh text that prints what `DataHost.of` reads. It changes nothing, and works where no Docker is yet."""
    image = site.image(site.mysql.image).tag
    return INSPECT_EACH + _PROBE.format(
        image=quote(image),
        folder=quote(site.mysql.volume),
        database=quote(site.mysql.database),
        template=quote(_TEMPLATE),
    )


_TEMPLATE = """\
container={{.Id}} {{.State.Running}} {{.State.ExitCode}} {{.State.OOMKilled}} {{.State.StartedAt}} \
{{.State.FinishedAt}} {{.Config.Image}} {{.Name}}
{{range $inside, $bound := .HostConfig.PortBindings}}{{range $bound}}port={{$inside}} {{.HostPort}}
{{end}}{{end}}{{range .Mounts}}{{if .RW}}volume={{.Source}}
{{end}}{{end}}{{range .Config.Env}}env={{.}}
{{end}}"""
_PROBE = """\
if timeout 30 docker version >/dev/null 2>&1; then docker=yes; else docker=no; fi
echo "docker=$docker"
image=
[ $docker = no ] || image=$(docker inspect --type image -f '{{{{.Id}}}}' {image} 2>/dev/null) || image=
echo "image=$image"
d={folder}
if ! [ -d "$d" ]; then echo folder=absent
elif [ -d "$d/mysql" ]; then echo folder=initialised
elif [ -n "$(ls -A "$d")" ]; then echo folder=foreign
else echo folder=empty
fi
if [ -d "$d"/{database} ]; then echo database=yes; else echo database=no; fi
[ $docker = yes ] || exit 0
ids=$(docker ps -aq --no-trunc 2>/dev/null)
[ -n "$ids" ] || exit 0
inspect_each {template} $ids | grep -E '^(container|port|volume)=|^env=(MESOS_TASK_ID|MARATHON_APP_ID)='
exit 0
"""


def _blocks(text: str) -> list[str]:
    """What the probe printed of each container."""
    return re.split(r"(?m)^(?=container=)", text)[1:]


def _container(block: str) -> Container:
    head = values(block, "container")[0].split(" ")
    if len(head) != 8:
        raise StepFailed(f"docker inspect answered in an unknown form: {block.splitlines()[0]}")
    environment = dict(line.split("=", 1) for line in values(block, "env"))
    bound = [line.split(" ") for line in values(block, "port")]
    return Container(
        id=head[0],
        name=head[7].removeprefix("/"),
        image=head[6],
        running=head[1] == "true",
        exit_code=int(head[2]),
        out_of_memory=head[3] == "true",
        started=head[4],
        finished=head[5],
        ports=tuple(int(port) for _, port in bound if port),
        volumes=tuple(filter(None, values(block, "volume"))),  # a tmpfs has no folder of the host
        task=environment.get("MESOS_TASK_ID", ""),
        app=environment.get("MARATHON_APP_ID", ""),
    )


def _within(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def _time(stamp: str) -> str:
    """Docker's time stamp to the second."""
    return stamp[:19].replace("T", " ")
