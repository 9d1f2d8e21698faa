"""MySQL as an app of Marathon (document 6.2), and what its host must hold before it runs (6.1).

What differs from the document's definition, and why:

- `MYSQL_DATABASE`: the document's `MYSQL_DB` is no variable of the image, so that its own output lacks BucketList.
- The passwords are not in it. What stands under `env` is shown by Marathon's API and page, is kept in ZooKeeper, and is
  an argument of the `docker run` that Mesos leaves running beside the container, for `ps` to show. `--env-file` is no
  way out: Docker shows its content in `docker inspect`, which Mesos copies into its work directory, readable by all
  (seen with Mesos 0.28.0). The passwords are in files that root alone reads, in a directory that the container mounts;
  the app names them in the image's `MYSQL_..._FILE` variables. Images before 2016-11-21 (the document's 5.7.13) do not
  know those, and later ones read them as the user `mysql`, so the app's command reads the files, as root, and hands
  over to the image's entrypoint.
- The data is in a folder of the host, and the app is tied to that host: a task that started elsewhere would be empty.
- An upgrade ends the old server before it starts the new one: two on one folder would destroy it.
- A health check says when the server listens. It never has the server killed: nobody else may run on this folder, a
  kill in the middle of a recovery begins it anew, and Marathon's own network may be what is broken. A connection that
  only opens and closes counts as an error of the checking host; with the image's `skip-name-resolve` none is shut out.

Sources: Marathon 1.1's documentation, 'Constraints', 'Health Checks', 'Docker Containers'; docker-entrypoint.sh of
docker-library/mysql (4dd3313 brought `_FILE`; 5b1a6a2 put the script into PATH): it reads `MYSQL_*` only where the data
folder is empty, and runs a command other than mysqld as it is.
"""

from __future__ import annotations

from dataclasses import dataclass

from runbook.errors import ParameterError, Problem
from runbook.remote.containers import Image
from runbook.remote.labels import ContainerFolder
from runbook.remote.probes import values
from runbook.remote.shell import facts, quote
from runbook.remote.steps import STATE_DIR, Change, Directory, File, Step
from runbook.services.findings import Finding
from runbook.services.marathon.apps import App
from runbook.site import HostParameters, Site
from runbook.wording import plural

DATA = "/var/lib/mysql"
"""Where the image keeps its data."""
FOLDER = "/etc/runbook"
"""Where a host keeps the directories with the passwords of its apps."""
SECRETS = "/run/runbook"
"""Where a container finds the files with its passwords."""
ROOT_PASSWORD = "MYSQL_ROOT_PASSWORD"
PASSWORD = "MYSQL_PASSWORD"
_COMMAND = (
    f"for name in {ROOT_PASSWORD} {PASSWORD}; do "
    f'if [ -r {SECRETS}/$name ]; then export "$name=$(cat {SECRETS}/$name)"; fi; unset ${{name}}_FILE; '
    "done; exec docker-entrypoint.sh mysqld"
)


def data_host(site: Site) -> HostParameters:
    """The host that holds the data, and so runs the server. Raises ParameterError where no host can."""
    slaves = site.having("mesos_slave")
    if not slaves:
        problem = Problem(site.file, 0, "mysql.host", "no host is a mesos_slave", "give a host this role")
        raise ParameterError([problem])
    return next((host for host in slaves if host.name == site.mysql.host), slaves[0])


def secrets_directory(site: Site) -> str:
    """The directory on the data's host whose files hold the passwords, each named for its variable."""
    return f"{FOLDER}/{_name(site)}"


def retired_files(site: Site) -> RetiredSecrets:
    """The file that earlier versions gave to `docker run --env-file`."""
    return RetiredSecrets(f"{FOLDER}/{_name(site)}.env")


def _name(site: Site) -> str:
    return site.mysql.app.strip("/").replace("/", ".")


def mysql_app(site: Site) -> App:
    """The app. Raises ParameterError where its image is not declared."""
    mysql = site.mysql
    return {
        "id": mysql.app,
        "cpus": mysql.cpus,
        "mem": mysql.mem,
        "instances": mysql.instances,
        "cmd": _COMMAND,
        "env": {
            "MYSQL_USER": mysql.user,
            "MYSQL_DATABASE": mysql.database,
            **{f"{name}_FILE": f"{SECRETS}/{name}" for name in (ROOT_PASSWORD, PASSWORD)},
        },
        "container": {
            "type": "DOCKER",
            "docker": {
                "image": site.image(mysql.image).tag,
                "network": "BRIDGE",
                "portMappings": [
                    {"containerPort": mysql.container_port, "hostPort": mysql.host_port, "protocol": "tcp"}
                ],
            },
            "volumes": [
                {"containerPath": DATA, "hostPath": mysql.volume, "mode": "RW"},
                {"containerPath": SECRETS, "hostPath": secrets_directory(site), "mode": "RO"},
            ],
        },
        # slaves announce their addresses as their hostnames (2.2.4)
        "constraints": [["hostname", "CLUSTER", data_host(site).address]],
        "healthChecks": [
            {
                "protocol": "TCP",
                "portIndex": 0,
                "gracePeriodSeconds": 300,
                "intervalSeconds": 10,
                "timeoutSeconds": 5,
                "maxConsecutiveFailures": 0,
            }
        ],
        "upgradeStrategy": {"minimumHealthCapacity": 0, "maximumOverCapacity": 0},
    }


class DataFolder(Directory):
    """The folder of the data. It is made for root alone; once it is there, its owner and mode are the image's choice,
    whose entrypoint gives it to the user that its server runs as."""

    def plan(self, state: str, pending: frozenset[str] = frozenset()) -> Change | None:
        return None if facts(state)["kind"] == "directory" else super().plan(state, pending)


def preparation(site: Site) -> tuple[Step, ...]:
    """What the data's host must hold (6.1): the image, the data's folder, and the passwords.

    Raises SecretError for a password that cannot be had, and ParameterError where the image is not declared.
    """
    image = site.image(site.mysql.image)
    passwords = {ROOT_PASSWORD: site.mysql.root_password, PASSWORD: site.mysql.password}
    files = secrets_directory(site)
    return (
        Image(image.tag, image.file, image.sha256),
        DataFolder(site.mysql.volume, mode="0700"),
        ContainerFolder(site.mysql.volume),
        Directory(FOLDER, mode="0700"),
        Directory(files, mode="0700"),
        *(
            File(f"{files}/{name}", f"{reference.resolve().reveal()}\n", mode="0600", secret=True)
            for name, reference in passwords.items()
        ),
        ContainerFolder(files, tuple(f"{files}/{name}" for name in passwords)),  # it is mounted into the container
    )


@dataclass(frozen=True)
class RetiredSecrets(Step):
    """A file with secrets that nothing reads any more, and its backups on the host: all are removed for good."""

    path: str

    @property
    def touches(self) -> frozenset[str]:
        return frozenset({self.path})

    @property
    def label(self) -> str:
        return f"no longer used: {self.path}"

    @property
    def _copies(self) -> str:
        """As words of sh, the second a pattern."""
        return f"{quote(self.path)} {STATE_DIR}/backup/*{quote(self.path)}"

    def probe(self) -> str:
        return f'for f in {self._copies}; do [ ! -f "$f" ] || printf \'present=%s\\n\' "$f"; done\n'

    def plan(self, state: str, pending: frozenset[str] = frozenset()) -> Change | None:
        present = values(state, "present")
        if not present:
            return None
        return Change(f"remove {plural(len(present), 'file')}", "".join(f"-{path}\n" for path in present))

    def script(self, change: Change) -> str:
        return f"rm -f {self._copies}\n"


# where else the passwords are

_LEAKS = """\
for f in {files}; do [ -r "$f" ] || exit 0; done
known() {{ timeout 30 grep {patterns} "$@" 2>/dev/null; }}
if [ -d {work_dir}/meta ]; then known -rlF {work_dir}/meta | sed 's/^/file=/'; fi
if [ -d {backup} ]; then known -rlF {backup} | sed 's/^/file=/'; fi
for id in $(timeout 30 docker ps -aq 2>/dev/null); do
  if timeout 30 docker inspect "$id" 2>/dev/null | known -qF; then echo "container=$id"; fi
done
exit 0
"""


def leaks_probe(site: Site) -> str:
    """The sh text that prints the files and containers of the data's host that show one of the present passwords.

    Looked at: what Mesos recorded of tasks (meta of its work directory), the runbook's backups, and what
    `docker inspect` shows. The passwords do not leave the host: grep reads them from their files.
    """
    files = [f"{secrets_directory(site)}/{name}" for name in (ROOT_PASSWORD, PASSWORD)]
    return _LEAKS.format(
        files=" ".join(map(quote, files)),
        patterns=" ".join(f"-f {quote(file)}" for file in files),
        work_dir=quote(site.mesos.slave.work_dir),
        backup=f"{STATE_DIR}/backup",
    )


def leaks(host: str, output: str) -> tuple[Finding, ...]:
    """What `leaks_probe` printed on `host`, as findings."""
    return tuple(
        Finding(
            host,
            "a MySQL password is readable where it should not be",
            what,
            "set new passwords: ALTER USER in the server, then the secrets that the parameters name, then run 6.1; "
            f"{way}",
        )
        for what, way in (
            *((f"file {path}", "it no longer matters then, and may be removed") for path in values(output, "file")),
            *(
                (f"docker inspect {container}", "remove the container once it has ended (docker rm)")
                for container in values(output, "container")
            ),
        )
    )
