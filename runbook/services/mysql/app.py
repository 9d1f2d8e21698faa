"""MySQL as an app of Marathon (document 6.2), and what its host must hold before it runs (6.1).

What differs from the document's definition, and why:

- `MYSQL_DATABASE`: the document's `MYSQL_DB` is no variable of the image, so that its own output lacks BucketList.
- The passwords are not in it. What stands under `env` is shown by Marathon's API and page, is kept in ZooKeeper, and is
  an argument of the `docker run` that Mesos leaves running beside the container, for `ps` to show. They are in a file
  on the host that root alone reads, and Docker's own `--env-file` takes them from there.
- The data is in a folder of the host, and the app is tied to that host: a task that started elsewhere would be empty.
- An upgrade ends the old server before it starts the new one: two on one folder would destroy it.
- A health check says when the server listens. It never has the server killed: nobody else may run on this folder, a
  kill in the middle of a recovery begins it anew, and Marathon's own network may be what is broken. A connection that
  only opens and closes counts as an error of the checking host; with the image's `skip-name-resolve` none is shut out.

Sources: Marathon 1.1's documentation, 'Constraints', 'Health Checks', 'Docker Containers' (`parameters`); `docker run`
of 1.11 (`--env-file`); the image's docker-entrypoint.sh: it reads `MYSQL_*` only where the data folder is empty.
"""

from __future__ import annotations

from runbook.errors import ParameterError, Problem
from runbook.remote.containers import Image
from runbook.remote.labels import ContainerFolder
from runbook.remote.shell import facts
from runbook.remote.steps import Change, Directory, File, Step
from runbook.services.marathon.apps import App
from runbook.site import HostParameters, Site

DATA = "/var/lib/mysql"
"""Where the image keeps its data."""
FOLDER = "/etc/runbook"
"""Where a host keeps the files with the passwords of its apps."""


def data_host(site: Site) -> HostParameters:
    """The host that holds the data, and so runs the server. Raises ParameterError where no host can."""
    slaves = site.having("mesos_slave")
    if not slaves:
        problem = Problem(site.file, 0, "mysql.host", "no host is a mesos_slave", "give a host this role")
        raise ParameterError([problem])
    return next((host for host in slaves if host.name == site.mysql.host), slaves[0])


def password_file(site: Site) -> str:
    """The path on the data's host of what is handed to the container beside its app's definition."""
    return f"{FOLDER}/{site.mysql.app.strip('/').replace('/', '.')}.env"


def mysql_app(site: Site) -> App:
    """The app. Raises ParameterError where its image is not declared."""
    mysql = site.mysql
    return {
        "id": mysql.app,
        "cpus": mysql.cpus,
        "mem": mysql.mem,
        "instances": mysql.instances,
        "env": {"MYSQL_USER": mysql.user, "MYSQL_DATABASE": mysql.database},
        "container": {
            "type": "DOCKER",
            "docker": {
                "image": site.image(mysql.image).tag,
                "network": "BRIDGE",
                "portMappings": [
                    {"containerPort": mysql.container_port, "hostPort": mysql.host_port, "protocol": "tcp"}
                ],
                "parameters": [{"key": "env-file", "value": password_file(site)}],
            },
            "volumes": [{"containerPath": DATA, "hostPath": mysql.volume, "mode": "RW"}],
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
    passwords = {"MYSQL_ROOT_PASSWORD": site.mysql.root_password, "MYSQL_PASSWORD": site.mysql.password}
    lines = "".join(f"{name}={reference.resolve().reveal()}\n" for name, reference in passwords.items())
    return (
        Image(image.tag, image.file, image.sha256),
        DataFolder(site.mysql.volume, mode="0700"),
        ContainerFolder(site.mysql.volume),
        Directory(FOLDER, mode="0700"),
        File(password_file(site), lines, mode="0600", secret=True),
    )
