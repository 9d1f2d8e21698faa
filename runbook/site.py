"""One cluster's parameters: what a parameter file may say, what it means, and why it is refused.

`Site.load(path)` is the way in. Defaults are the values of the source document (its section is named beside each), but
where the document's value does not work the corrected one stands, with the reason. A file is refused with everything
that is wrong with it at once: each field is judged by its type (values.py), and the rules that hold between fields are
judged as well while some field is refused, as far as they do not depend on it (see `Parameters`).
"""

from __future__ import annotations

import difflib
import functools
import hashlib
import itertools
import json
import operator
import os
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, NoReturn, Self, TypeVar, get_args, get_origin

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    PrivateAttr,
    ValidationError,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    field_validator,
    model_validator,
)
from pydantic_core import ErrorDetails

from runbook import secrets
from runbook.errors import ParameterError, Problem, SecretError
from runbook.located import Located, Location, parse, read
from runbook.paths import refuse_special
from runbook.secrets import SecretReference
from runbook.values import (
    LEAST,
    Address,
    AppId,
    Attribute,
    AttributeName,
    Count,
    Cpus,
    DropIn,
    Duration,
    Finding,
    FlagName,
    HostPath,
    Identifier,
    ImageTag,
    LastingPath,
    LocalPath,
    Megabytes,
    Package,
    Port,
    PortRanges,
    Reading,
    SettingName,
    Sha256,
    Slug,
    Switch,
    User,
    Version,
    ZnodePath,
    refuse,
    shortened,
)
from runbook.wording import plural

Role = Literal["zookeeper", "mesos_master", "mesos_slave", "marathon", "docker", "registry", "registry_web"]
"""What a host may be in the cluster."""

ROLES: tuple[Role, ...] = get_args(Role)

Gate = Literal[
    "change-quorum",
    "activate-foreign-flags",
    "reset-slave-metadata",
    "kill-task",
    "delete-app",
    "restart-docker",
    "recreate-container",
    "delete-tag",
    "collect-garbage",
]
"""What can be approved in advance; parameters/README.md says what stands behind each."""

GATES: tuple[Gate, ...] = get_args(Gate)

Upload = TypeVar("Upload", "ImageParameters", "ArtifactParameters")


class _Unjudged(Exception):
    """A rule came upon a refused value, so that it cannot be judged."""


class Refused:
    """Stands in for a refused value while the rules between fields are judged, as jinja2's StrictUndefined does for a
    missing one: it equals nothing, and any other use of it ends the rule."""

    def _end(self, *_: object) -> NoReturn:
        raise _Unjudged

    __getattr__ = __iter__ = __contains__ = __len__ = __bool__ = __str__ = __repr__ = _end
    __lt__ = __le__ = __gt__ = __ge__ = __hash__ = _end

    def __eq__(self, other: object) -> bool:
        return False


class Parameters(BaseModel):
    """Base of every section: frozen, without unknown keys.

    A file that has errors is validated twice. First as it is, which finds the errors of single fields, or, where there
    are none, those of `Site.rules`. Then tolerantly: a refused value is replaced by `Refused`, and the rules run on
    what is left, each up to where it would need such a value.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _drop_unknown_and_supply_missing(cls, data: Any, info: ValidationInfo) -> Any:
        if not _tolerant(info) or not isinstance(data, dict):
            return data
        fields = cls.model_fields.items()
        return {name: data.get(name, object()) for name, field in fields if name in data or field.is_required()}

    @field_validator("*", mode="wrap")
    @classmethod
    def _replace_refused(cls, value: Any, validate: ValidatorFunctionWrapHandler, info: ValidationInfo) -> Any:
        try:
            return validate(value)
        except ValidationError:
            if _tolerant(info):
                return Refused()
            raise


def _tolerant(info: ValidationInfo) -> bool:
    return isinstance(info.context, Reading) and info.context.tolerant


def _not_empty(items: tuple[Any, ...]) -> tuple[Any, ...]:
    if not items:
        raise Finding("is empty", "list at least one").as_error()
    return items


def _each_once(items: tuple[Any, ...]) -> tuple[Any, ...]:
    if twice := [item for item, count in Counter(items).items() if count > 1]:
        raise Finding(f"lists {', '.join(twice)} twice", "list each once").as_error()
    return items


# hosts and how they are reached


class GatewayParameters(Parameters):
    """A host that connections go through (OpenSSH's ProxyJump)."""

    address: Address
    user: User = "root"
    port: Port = 22
    key: LocalPath | None = None
    """Private key; null: what the SSH agent and ~/.ssh offer."""


class SshParameters(Parameters):
    """How hosts are reached. The site's `ssh:` holds for every host; a host's own `ssh:` overrides single fields."""

    user: User = "root"
    """The document works as root throughout."""
    port: Port = 22
    key: LocalPath | None = None
    """Private key; null: what the SSH agent and ~/.ssh offer."""
    known_hosts: LocalPath = Field(default_factory=lambda: Path.home() / ".ssh" / "known_hosts")
    """The host keys that are trusted. A host whose key is not in there is refused."""
    become: Literal["none", "sudo"] = "none"
    """`sudo` where `user` is not root."""
    become_password: SecretReference | None = None
    """sudo's password; null: sudo asks for none."""
    gateway: GatewayParameters | None = None


class HostSlaveParameters(Parameters):
    """What one host's slave offers, where it differs from `mesos.slave`."""

    cpus: Cpus | None = None
    mem: Megabytes | None = None
    attributes: dict[AttributeName, Attribute] = {}
    """Added to `mesos.slave.attributes`; the host's value wins."""


class HostParameters(Parameters):
    """One host. In a loaded site `ssh`, `slave` and `myid` are complete: the site's defaults are filled in."""

    name: Slug
    """How tables, records and messages call it."""
    address: Address
    """Where SSH reaches it, and what its services advertise as ip and hostname (0.2, 2.2.4)."""
    roles: Annotated[tuple[Role, ...], AfterValidator(_not_empty), AfterValidator(_each_once)]
    ssh: SshParameters = SshParameters()
    myid: Annotated[int, Field(strict=True, ge=1, le=255)] | None = None
    """ZooKeeper's id of this member (2.2.1); null: its position among the zookeeper hosts, from 1."""
    observer: Switch = False
    """This ZooKeeper serves clients and does not vote: it is not counted for the majority."""
    slave: HostSlaveParameters = HostSlaveParameters()

    def __hash__(self) -> int:
        return hash(self.name)


# chapters 1 to 3: ZooKeeper and Mesos


class ZooKeeperParameters(Parameters):
    """The ensemble (1, 2.2.1, 2.2.2), which Hadoop's distribution installed."""

    version: Version | None = None
    """The version that the site expects (0.3); null: whichever is installed."""
    home: HostPath = "/usr/hdp/2.4.0.0-169/zookeeper"
    """Where bin/zkServer.sh is (1.2)."""
    conf_dir: HostPath = "/etc/zookeeper/conf"
    """Where zoo.cfg is (2.2.2)."""
    data_dir: LastingPath = "/var/lib/zookeeper"
    """zoo.cfg's dataDir, and therefore the place of myid: 1.3 has it right, 2.2.1 writes it to the conf_dir."""
    log_dir: HostPath = "/usr/hdp/2.4.0.0-169/zookeeper/logs"
    """(1.2)"""
    pid_dir: HostPath = "/var/lib/zookeeper"
    """Where zookeeper_server.pid is; zkServer.sh's own default is the dataDir."""
    client_port: Port = 2181
    """(1.1)"""
    quorum_port: Port = 2888
    """(2.2.2)"""
    election_port: Port = 3888
    """(2.2.2)"""
    allow_even: Switch = False
    """Accept an ensemble of an even number of members, or of one."""
    tick_time: Count = 2000
    """Milliseconds. This and the next two are those of ZooKeeper's zoo_sample.cfg."""
    init_limit: Count = 10
    """Ticks."""
    sync_limit: Count = 5
    """Ticks."""
    lock_path: ZnodePath | None = "/runbook"
    """The znode below which rollouts from different machines keep each other out; null: they do not."""
    lock_digest: SecretReference | None = None
    """`user:password` for ZooKeeper's scheme digest, where ACLs let not everybody write below lock_path."""
    allowed_settings: tuple[SettingName, ...] = ("autopurge.*", "4lw.commands.whitelist", "admin.*")
    """Names (with * and ?) of settings in zoo.cfg, and of Java properties `zookeeper.NAME`, that are not the runbook's
    and no drift. The default is what Hadoop's distribution sets, and what opens ways to ask."""
    check_path: ZnodePath = "/runbook"
    """The znode below which checks write their temporary znodes."""


class MesosMasterParameters(Parameters):
    """mesos-master (2)."""

    port: Port = 8150
    """Within the open ports (2.2.5)."""
    work_dir: LastingPath = "/var/lib/mesos"
    """As the package ships it; it holds the replicated log."""
    log_dir: HostPath = "/var/log/mesos"
    """(2.2.7)"""
    allow_even: Switch = False
    """Accept an even number of masters, or one. One is hard to leave: a later quorum of 2 needs the log wiped."""
    allowed_flags: tuple[FlagName, ...] = ()
    """Flags, or variables of /etc/default, that the administrators set: no drift, and never changed."""
    allowed_drop_ins: tuple[DropIn, ...] = ()
    """File names of drop-ins of the unit that the administrators wrote: no drift."""


def _containerizers(text: str) -> str:
    names = text.split(",")
    if not set(names) <= {"docker", "mesos"} or len(set(names)) < len(names):
        raise Finding(
            f"{text!r} is not a list of Mesos containerizers", "write docker,mesos without blanks, or one of them"
        ).as_error()
    return text


class MesosSlaveParameters(Parameters):
    """mesos-slave (3)."""

    port: Port = 5051
    """Mesos' default, which the document leaves; the master's page reads sandboxes directly from it."""
    work_dir: LastingPath = "/var/lib/mesos"
    """Not /tmp/mesos, the default of 0.28.0, which is cleared while tasks run."""
    containerizers: Annotated[str, AfterValidator(_containerizers)] = "docker,mesos"
    """Mesos' default is `mesos` alone, with which chapters 5 and 6 do not work."""
    executor_registration_timeout: Duration = "5mins"
    """Mesos' default of one minute is too short for loading an image."""
    ports: PortRanges = PortRanges.parse("[8401-8599,8601-9100]")
    """What tasks get (3.3). The document's [8400-9100] contains the ports of the registry and of its web page."""
    cpus: Cpus | None = None
    """Null: all that Mesos finds. Masters and ZooKeeper on the same hosts need their share, too."""
    mem: Megabytes | None = None
    """Null: what Mesos finds, less 1 GB."""
    attributes: dict[AttributeName, Attribute] = {}
    allowed_flags: tuple[FlagName, ...] = ()
    """Flags, or variables of /etc/default, that the administrators set: no drift, and never changed."""
    allowed_drop_ins: tuple[DropIn, ...] = ()
    """File names of drop-ins of the unit that the administrators wrote: no drift."""


def _cluster(text: str) -> str:
    # Mesos takes the value of a flag that begins with file:// from that file (stout's flags/fetch.hpp).
    if not text or text != text.strip() or text.startswith("file://") or len(text) > 255:
        raise Finding(
            f"{shortened(text)!r} cannot be shown as a name",
            "write 1 to 255 characters, no blank at either end, and not file://",
        ).as_error()
    return text


class MesosParameters(Parameters):
    """What masters and slaves share (2.1)."""

    package: Package = "mesos"
    version: Version = "0.28.0-2.0.16.centos701406"
    zk_path: ZnodePath = "/mesos"
    """(1.1)"""
    cluster: Annotated[str, AfterValidator(_cluster)] | None = None
    """The cluster's name as the master's page shows it."""
    master: MesosMasterParameters = MesosMasterParameters()
    slave: MesosSlaveParameters = MesosSlaveParameters()


class SyslogParameters(Parameters):
    """One log file a program, by rsyslog (2.2.7)."""

    config: HostPath = "/etc/rsyslog.d/mesos.conf"
    log_dir: HostPath = "/var/log/mesos"
    programs: Annotated[tuple[Slug, ...], AfterValidator(_each_once)] = (
        "marathon",
        "chronos",
        "mesos-master",
        "mesos-slave",
    )


# chapters 4 to 6: Marathon, Docker, MySQL


class MarathonParameters(Parameters):
    """Marathon, installed from an RPM that was fetched elsewhere (4.1, 4.2)."""

    artifact: Slug = "marathon"
    """Its key under `artifacts`."""
    package: Package = "marathon"
    version: Version = "1.1.1-1.0.472.el7"
    http_port: Port = 8080
    """(5.3)"""
    zk_path: ZnodePath = "/marathon"
    """(4.2)"""
    libprocess_port: Port | None = None
    """The port that masters reach the framework at; null: any free one."""
    allowed_flags: tuple[FlagName, ...] = ()
    """Flags, or variables of /etc/default, that the administrators set: no drift, and never changed."""
    allowed_drop_ins: tuple[DropIn, ...] = ()
    """File names of drop-ins of the unit that the administrators wrote: no drift."""


class DockerParameters(Parameters):
    """Docker (5.1)."""

    package: Package = "docker-engine"
    version: Version | None = None
    """Null: the newest that the yum repository has, as the document installs it."""
    allowed_drop_ins: tuple[DropIn, ...] = ()
    """File names of drop-ins of the unit that the administrators wrote, for instance of a proxy: no drift."""


MYSQL_DOES_NOT_START = 128
"""MB of memory with which MySQL does not start (6.3)."""
MYSQL_OWN_DATABASES = frozenset({"mysql", "information_schema", "performance_schema", "sys"})
"""The databases that a server has before anybody makes one (6.4.1)."""


class MySqlParameters(Parameters):
    """MySQL as a Docker task of Marathon (6)."""

    app: AppId = "mysql"
    image: Slug = "mysql"
    """Its key under `images`."""
    cpus: Cpus = 0.5
    mem: Megabytes = 1024
    """(6.3): with 128 it does not start."""
    instances: Count = 1
    container_port: Port = 3306
    host_port: Annotated[int, Field(strict=True, ge=0, le=65535)] = 0
    """0: Mesos gives a port out of `mesos.slave.ports`, which 6.3 recommends."""
    user: Identifier = "test"
    password: SecretReference = SecretReference("env:RUNBOOK_MYSQL_PASSWORD")
    """The document writes the passwords into the app's definition."""
    root_password: SecretReference = SecretReference("env:RUNBOOK_MYSQL_ROOT_PASSWORD")
    database: Identifier = "BucketList"
    """For MYSQL_DATABASE. The document's MYSQL_DB is ignored by the image, and its own output lacks the database."""
    volume: LastingPath = "/opt/mysql"
    """The data's folder on the host. The document has none, so that the data goes with the container."""
    host: Slug | None = None
    """The slave that holds the data, and so runs the task; null: the first slave of the file."""


# chapters 7 and 8: the registry and its page


class RegistryTlsParameters(Parameters):
    """Files on this machine, in PEM."""

    certificate: LocalPath
    key: LocalPath
    ca: LocalPath
    """What Docker hosts get as /etc/docker/certs.d/HOST:PORT/ca.crt."""


class RegistryParameters(Parameters):
    """The private registry (7)."""

    image: Slug = "registry"
    """Its key under `images`."""
    container: Slug = "registry"
    port: Port = 8600
    container_port: Port = 5000
    data_dir: LastingPath = "/opt/registry"
    """On the host, so that images outlive the container (7.3)."""
    delete_enabled: Switch = True
    """REGISTRY_STORAGE_DELETE_ENABLED (7.5.2)."""
    security: Literal["insecure", "tls"] = "insecure"
    """`insecure`: plain HTTP, which every Docker host is told to accept (7.2); `tls`: the way that 7.2 puts off."""
    tls: RegistryTlsParameters | None = None
    """Needed, and used, with `security: tls`."""
    user: User | None = None
    """With `security: tls`: ask for this user and `password` (htpasswd); null: ask nobody."""
    password: SecretReference | None = None


class RegistryWebParameters(Parameters):
    """The registry's web page (8)."""

    image: Slug = "registry_web"
    """Its key under `images`."""
    container: Slug = "registry-web"
    port: Port = 8400
    container_port: Port = 8080
    variables: Literal["host_port", "url"] = "host_port"
    """What the image reads: REGISTRY_HOST and REGISTRY_PORT (8.2), or, from version 0.1.0, REGISTRY_URL."""


# what is uploaded, and what runs


class ImageParameters(Parameters):
    """An image that is brought to the hosts as an archive of `docker save` (5.3)."""

    tag: ImageTag
    file: LocalPath
    sha256: Sha256
    """Of the file."""


class ArtifactParameters(Parameters):
    """A file that is brought to the hosts (4.1)."""

    file: LocalPath
    sha256: Sha256


_SECRET_NAME = re.compile(r"(PASS(WORD|WD|PHRASE)?|PWD|SECRET|TOKEN|CREDENTIALS?|(API|ACCESS|PRIVATE)_?KEY)$", re.I)
_NO_SECRETS = frozenset({"", "0", "1", "yes", "no", "true", "false"})


AppDefinition = dict[str, JsonValue]
"""A Marathon app as its API takes it, without `id` (which is the key). An `env` value may be `{secret: "env:NAME"}`, or
with Marathon's own secrets `{secret: NAME}`, where the app's `secrets` defines NAME."""


def _document_apps() -> dict[str, AppDefinition]:
    return {
        "hello": {  # 4.3
            "cmd": 'while true; do ( echo "HTTP/1.0 200 Ok"; echo; echo "Hello World" ) | nc -l $PORT; done',
            "cpus": 0.1,
            "mem": 16,
            "instances": 1,
        },
        "centos-marathon": {  # 5.3, with a version in the image's name
            "container": {"type": "DOCKER", "docker": {"image": "centos:7.2.1511"}},
            "instances": 3,
            "cpus": 0.5,
            "mem": 256,
            "cmd": "while sleep 10; do date -u +%T; done",
        },
    }


# the site

_LISTENS: Mapping[Role, tuple[str, ...]] = {
    "zookeeper": ("zookeeper.client_port", "zookeeper.quorum_port", "zookeeper.election_port"),
    "mesos_master": ("mesos.master.port",),
    "mesos_slave": ("mesos.slave.port",),
    "marathon": ("marathon.http_port", "marathon.libprocess_port"),
    "registry": ("registry.port",),
    "registry_web": ("registry_web.port",),
}
"""The fields that say at which ports a role listens."""

_VISITED = ("mesos.master.port", "marathon.http_port", "registry.port", "registry_web.port")
"""The ports that people outside the cluster open."""

_NEEDS_IN_SITE: Mapping[Role, Role] = {
    "mesos_master": "zookeeper",
    "mesos_slave": "mesos_master",
    "marathon": "mesos_master",
    "registry_web": "registry",
}

_UPLOADS: Mapping[str, tuple[Role, str]] = {
    "marathon.artifact": ("marathon", "artifacts"),
    "registry.image": ("registry", "images"),
    "registry_web.image": ("registry_web", "images"),
    "mysql.image": ("docker", "images"),
}
"""The fields that name an upload: for which role, and in which section it is declared."""

_SECRETS: Mapping[str | int, tuple[frozenset[str], tuple[Role, ...]]] = {
    "apps": (frozenset({"4", "5"}), ("marathon",)),
    "mysql": (frozenset({"6"}), ("mesos_slave", "marathon")),
    "registry": (frozenset({"7", "8"}), ("registry",)),
}
"""The sections whose secrets only some chapters need: these, and the roles without which the chapters are left out."""


class Site(Parameters):
    """The validated parameters of one cluster. Made by `Site.load` or `Site.parse`, never directly."""

    name: Slug
    """The record folders carry it."""
    ssh: SshParameters = SshParameters()
    hosts: Annotated[tuple[HostParameters, ...], AfterValidator(_not_empty)]
    zookeeper: ZooKeeperParameters = ZooKeeperParameters()
    mesos: MesosParameters = MesosParameters()
    syslog: SyslogParameters = SyslogParameters()
    marathon: MarathonParameters = MarathonParameters()
    docker: DockerParameters = DockerParameters()
    mysql: MySqlParameters = MySqlParameters()
    registry: RegistryParameters = RegistryParameters()
    registry_web: RegistryWebParameters = RegistryWebParameters()
    open_ports: PortRanges = PortRanges.parse("8000-9100")
    """What the site's firewall lets in (2.2.5)."""
    images: dict[Slug, ImageParameters] = {}
    artifacts: dict[Slug, ArtifactParameters] = {}
    apps: dict[AppId, AppDefinition] = Field(default_factory=_document_apps)
    """Marathon apps by id (4.3, 5.3)."""
    approvals: Annotated[tuple[Gate, ...], AfterValidator(_each_once)] = ()
    """Gates that are approved in advance for runs without a person."""

    _located: Located = PrivateAttr(default_factory=lambda: Located(Path("parameters")))

    # making one

    @classmethod
    def load(cls, path: str | Path) -> Site:
        """The site that a parameter file describes.

        Raises ParameterError with every problem of the file: its line, field and remedy.
        """
        file = Path(path)
        return cls.parse(read(file), file)

    @classmethod
    def parse(cls, text: str, file: Path) -> Site:
        """The same from text. `file` is its name in messages; local paths are relative to its folder."""
        located = parse(text, file)
        errors: list[ErrorDetails] = []
        for tolerant in (False, True):
            try:
                site = cls.model_validate(located.data, context=Reading(located.folder, tolerant))
            except ValidationError as error:
                errors += error.errors(include_url=False)
            if not errors:
                break
        problems = {*located.problems.values(), *_problems(located, errors)}
        if problems:
            raise ParameterError(problems)
        return site._completed(located)

    @model_validator(mode="before")
    @classmethod
    def _only_from_a_file(cls, data: Any, info: ValidationInfo) -> Any:
        if not isinstance(info.context, Reading):
            raise TypeError("make a Site by Site.load or Site.parse")
        return data

    def _completed(self, located: Located) -> Site:
        """The site with its defaults filled in for each host."""
        myids = dict(zip((host.name for host in self.having("zookeeper")), self._myids(), strict=True))
        hosts = tuple(
            host.model_copy(
                update={
                    "ssh": _overridden(self.ssh, host.ssh),
                    "myid": myids.get(host.name),
                    "slave": HostSlaveParameters(
                        cpus=host.slave.cpus or self.mesos.slave.cpus,
                        mem=host.slave.mem or self.mesos.slave.mem,
                        attributes={**self.mesos.slave.attributes, **host.slave.attributes},
                    ),
                }
            )
            for host in self.hosts
        )
        apps = {name: with_absolute_references(app, located.folder) for name, app in self.apps.items()}
        site = self.model_copy(update={"hosts": hosts, "apps": apps})
        site._located = located
        return site

    # what it says

    @property
    def file(self) -> Path:
        """The parameter file."""
        return self._located.file

    def having(self, role: Role) -> tuple[HostParameters, ...]:
        """The hosts of a role, in the file's order."""
        return tuple(host for host in self.hosts if role in host.roles)

    def lacking(self, chapter: str, roles: Iterable[Role]) -> list[Problem]:
        """A problem for each of the roles that no host has, without which there is nothing to do in a chapter."""
        remedy = "give the role to a host, or leave the chapter out (--chapters)"
        return [
            self._located.problem(("hosts",), f"no host has the role {role}, which chapter {chapter} is about", remedy)
            for role in roles
            if not self.having(role)
        ]

    @property
    def names(self) -> dict[str, str]:
        """The hosts' names by their addresses, which is what their services announce."""
        return {host.address: host.name for host in self.hosts}

    @property
    def zookeeper_hosts(self) -> str:
        """The ensemble as clients name it: `a:2181,b:2181,c:2181`."""
        return ",".join(f"{host.address}:{self.zookeeper.client_port}" for host in self.having("zookeeper"))

    @property
    def mesos_zk(self) -> str:
        """The content of /etc/mesos/zk (1.1)."""
        return f"zk://{self.zookeeper_hosts}{self.mesos.zk_path}"

    @property
    def marathon_zk(self) -> str:
        """The content of /etc/marathon/conf/zk (4.2)."""
        return f"zk://{self.zookeeper_hosts}{self.marathon.zk_path}"

    @property
    def quorum(self) -> int:
        """The masters' quorum: their number divided by two, plus one (2.2.3)."""
        return len(self.having("mesos_master")) // 2 + 1

    @property
    def registry_address(self) -> str | None:
        """HOST:PORT of the registry, as images' names carry it (7.2); None without one."""
        return next((f"{host.address}:{self.registry.port}" for host in self.having("registry")), None)

    def listening(self, host: HostParameters) -> dict[str, int]:
        """The ports that a host's roles need free, by the field that gives each (`mesos.master.port`)."""
        fields = (field for role, fields in _LISTENS.items() if role in host.roles for field in fields)
        ports = {field: operator.attrgetter(field)(self) for field in fields}
        return {field: port for field, port in ports.items() if port is not None}

    def image(self, name: str) -> ImageParameters:
        """The image declared under `images`. Raises ParameterError where there is none of that name."""
        return self._declared("images", self.images, name)

    def artifact(self, name: str) -> ArtifactParameters:
        """The artifact declared under `artifacts`. Raises ParameterError where there is none of that name."""
        return self._declared("artifacts", self.artifacts, name)

    def _declared(self, section: str, declared: Mapping[str, Upload], name: str) -> Upload:
        if name not in declared:
            raise ParameterError([self._located.problem((section,), *_undeclared(section, declared, name))])
        return declared[name]

    def missing_secrets(self, chapters: Collection[str] | None = None) -> list[Problem]:
        """A problem for each reference that some chapters need and that cannot be resolved: no such variable, file or
        entry of the keyring, a file that others can read, a value that cannot be masked.

        `chapters` are numbers (`{"6"}`); without them, all chapters that the roles of the hosts call for. Resolves the
        references, so that their values are masked from here on; touches no host.
        """
        problems: list[Problem] = []
        for place, reference in secrets.located_references(self.model_dump()):
            if not self._needs_secret(place, chapters):
                continue
            try:
                reference.resolve()
            except SecretError as error:
                problems.append(self._located.problem(place, error.message, error.remedy or ""))
        return sorted(problems)

    def _needs_secret(self, place: Location, chapters: Collection[str] | None) -> bool:
        if place[0] == "hosts" and place not in self._located.lines:
            return False  # a host without a value of its own has the site's
        if place[0] not in _SECRETS:
            return True
        needed_by, roles = _SECRETS[place[0]]
        if chapters is not None:
            return not needed_by.isdisjoint(chapters)
        # as with missing_files(): whoever declares no image of MySQL does without it
        return all(map(self.having, roles)) and (place[0] != "mysql" or self.mysql.image in self.images)

    def check_secrets(self, chapters: Collection[str] | None = None) -> None:
        """Raise ParameterError with all `missing_secrets(chapters)`, if there are any."""
        if problems := self.missing_secrets(chapters):
            raise ParameterError(problems)

    def masked(self) -> dict[str, Any]:
        """The parameters as JSON-like data for records: with references to secrets, and never a secret."""
        masked: dict[str, Any] = secrets.redact_data(self.model_dump(mode="json"))
        return masked

    def to_json(self) -> str:
        """`masked()` as JSON text, keys in order."""
        return json.dumps(self.masked(), ensure_ascii=False, indent=2, sort_keys=True)

    # the files that it names

    def missing_files(self, roles: Collection[Role] = ROLES) -> list[Problem]:
        """What is wrong with the files that the hosts of some roles will be sent: an image or artifact that is not
        declared, a file that is missing or unreadable or has another SHA-256. Reads the files; touches no host."""
        wanted: dict[Location, Finding | None] = {}
        for field, (role, section) in _UPLOADS.items():
            if role not in roles or not self.having(role):
                continue
            name, declared = operator.attrgetter(field)(self), getattr(self, section)
            if name in declared:
                wanted[section, name] = _file_finding(declared[name])
            elif role != "docker":  # whoever declares no image of MySQL does without it
                wanted[_location(field)] = Finding(*_undeclared(section, declared, name))
        if "docker" in roles and self.having("docker"):
            wanted |= {("images", name): _file_finding(image) for name, image in self.images.items()}
        if "registry" in roles and self.registry.security == "tls" and self.registry.tls is not None:
            for name, path in self.registry.tls:
                if not os.path.isfile(path):  # Path.is_file() raises an error for a name that is too long
                    wanted["registry", "tls", name] = Finding(f"{path} is not a file", "put it there")
        return sorted(
            self._located.problem((*place, *finding.location), finding.message, finding.remedy)
            for place, finding in wanted.items()
            if finding is not None
        )

    def check_files(self, roles: Collection[Role] = ROLES) -> None:
        """Raise ParameterError with all `missing_files(roles)`, if there are any."""
        if problems := self.missing_files(roles):
            raise ParameterError(problems)

    # the rules between its fields

    def rules(self) -> Iterator[Iterable[Finding]]:
        """What must hold between fields; each rule is judged by itself."""
        yield self._registry_security()
        yield self._registry_credentials()
        yield self._page_speaks_tls()
        yield self._page_reaches_registry()
        yield from map(self._upload, _UPLOADS)
        yield self._app_ids()
        yield self._app_environments()
        yield self._app_resources()
        yield from map(self._needed_in_site, _NEEDS_IN_SITE)
        yield self._ensemble("zookeeper", "zookeeper.allow_even")
        yield self._ensemble("mesos_master", "mesos.master.allow_even")
        yield self._one_registry()
        yield self._unique("name")
        yield self._unique("address")
        yield self._myids_differ()
        yield self._ports_differ()
        yield self._ports_not_offered()
        yield from map(self._port_open, _VISITED)
        yield self._offers_open()
        yield self._mysql_host()
        yield self._mysql_instances()
        yield self._mysql_port()
        yield self._mysql_memory()
        yield self._mysql_names()
        yield from map(self._containers, itertools.count(), self.hosts)
        yield from map(self._overrides, itertools.count(), self.hosts)

    @model_validator(mode="after")
    def _judge(self) -> Self:
        refuse(self._findings())
        return self

    def _findings(self) -> Iterator[Finding]:
        with suppress(_Unjudged):
            for rule in self.rules():
                with suppress(_Unjudged):
                    yield from rule

    def _registry_security(self) -> Iterator[Finding]:
        if self.registry.security == "tls" and self.registry.tls is None:
            remedy = "add registry.tls with `certificate`, `key` and `ca`"
            yield Finding("tls needs a certificate", remedy, ("registry", "security"))
        if self.registry.security == "insecure" and self.registry.user is not None:
            message = "Docker sends no password to an insecure registry"
            yield Finding(message, "use `security: tls`, or leave `user` out", ("registry", "user"))

    def _registry_credentials(self) -> Iterator[Finding]:
        if self.registry.user is not None and self.registry.password is None:
            yield Finding("has no password", "add registry.password, a reference to a secret", ("registry", "user"))
        if self.registry.user is None and self.registry.password is not None:
            yield Finding("belongs to no user", "add registry.user", ("registry", "password"))

    def _page_speaks_tls(self) -> Iterator[Finding]:
        if self.having("registry_web") and self.registry.security == "tls" and self.registry_web.variables != "url":
            yield Finding(
                "the registry's page speaks plain HTTP only before version 0.1.0, whose variables are `host_port`",
                "use an image from 0.1.0 on with `registry_web.variables: url`, or leave the role registry_web out",
                ("registry", "security"),
            )

    def _page_reaches_registry(self) -> Iterator[Finding]:
        for host in self.having("registry"):
            if self.having("registry_web") and (host.address == "localhost" or host.address.startswith("127.")):
                yield Finding(
                    f"{host.address} is the registry's page itself, as it asks from within its container",
                    "give the address at which other hosts reach this one",
                    ("hosts", self.hosts.index(host), "address"),
                )

    def _upload(self, field: str) -> Iterator[Finding]:
        name, declared = operator.attrgetter(field)(self), getattr(self, _UPLOADS[field][1])
        # A default may name what no chapter that is run needs: missing_files() tells.
        if self._gives(field) and name not in declared:
            yield Finding(*_undeclared(_UPLOADS[field][1], declared, name), _location(field))

    def _app_ids(self) -> Iterator[Finding]:
        for name, app in self.apps.items():
            if str(app.get("id", name)).lstrip("/") != name.lstrip("/"):
                yield Finding(f"differs from the app's key, {name}", "leave `id` out", ("apps", name, "id"))
        if self.mysql.app in self.apps:
            yield Finding(
                f"{self.mysql.app} is the app that the section `mysql` describes",
                "choose another id for one of them",
                ("apps", self.mysql.app),
            )

    def _app_environments(self) -> Iterator[Finding]:
        for name, app in self.apps.items():
            yield from environment_findings(app, ("apps", name))

    def _app_resources(self) -> Iterator[Finding]:
        for name, app in self.apps.items():
            for field in ("cpus", "mem", "disk"):
                amount = app.get(field) or 0
                if isinstance(amount, bool) or not isinstance(amount, int | float):
                    yield Finding(f"is {_kind(amount)} where a number is wanted", _A_NUMBER, ("apps", name, field))
                elif amount != 0 and not amount >= LEAST:
                    yield Finding(f"{amount} is out of range", f"write 0, or {LEAST} or more", ("apps", name, field))

    def _needed_in_site(self, role: Role) -> Iterator[Finding]:
        needed = _NEEDS_IN_SITE[role]
        users = self.having(role)
        if users and not self.having(needed):
            yield Finding(
                f"{role} needs {needed}, which no host is",
                f"give a host the role {needed}, or take {role} out",
                ("hosts", self.hosts.index(users[0]), "roles"),
            )

    def _ensemble(self, role: Role, permission: str) -> Iterator[Finding]:
        hosts = self.having(role)
        count = len([host for host in hosts if not (role == "zookeeper" and host.observer)])
        if hosts and count < 2 and count < len(hosts):
            yield Finding(
                f"{plural(count, 'member')} beside observers: ZooKeeper refuses observers without a quorum to observe",
                "let at least two zookeeper hosts be no observers",
                ("hosts",),
            )
        elif count and (count == 1 or count % 2 == 0) and not operator.attrgetter(permission)(self):
            spare = (count - 1) // 2
            message = (
                f"one {role} host is no ensemble: nothing works without it"
                if count == 1
                else f"{count} {role} hosts survive the loss of {spare}, as {count - 1} do"
            )
            remedy = f"make it an odd number from 3 on, or set {permission}: true if it is meant"
            yield Finding(message, remedy, ("hosts",))

    def _one_registry(self) -> Iterator[Finding]:
        registries = self.having("registry")
        for host in registries[1:]:
            yield Finding(
                f"{registries[0].name} is the registry already, and the two would not share their images",
                "leave the role to one host",
                ("hosts", self.hosts.index(host), "roles"),
            )

    def _unique(self, field: Literal["name", "address"]) -> Iterator[Finding]:
        first: dict[str, int] = {}
        for position, host in enumerate(self.hosts):
            value = getattr(host, field)
            if isinstance(value, Refused) or (earlier := first.setdefault(value, position)) == position:
                continue
            yield Finding(
                f"{value} is hosts[{earlier}]'s {field} as well",
                f"give each host its own {field}, and list each host once",
                ("hosts", position, field),
            )

    def _myids(self) -> list[int]:
        """The ids of the zookeeper hosts, in their order."""
        return [
            position if host.myid is None else host.myid
            for position, host in enumerate(self.having("zookeeper"), start=1)
        ]

    def _myids_differ(self) -> Iterator[Finding]:
        holders: dict[int, str] = {}
        for host, myid in zip(self.having("zookeeper"), self._myids(), strict=True):
            if (holder := holders.setdefault(myid, host.name)) != host.name:
                yield Finding(
                    f"{myid} is {holder}'s id as well",
                    "give each zookeeper host its own, or let all of them be counted",
                    ("hosts", self.hosts.index(host), "myid"),
                )

    def _ports_differ(self) -> Iterator[Finding]:
        clashes: dict[tuple[str, str], list[str]] = defaultdict(list)
        for host in self._with_known_roles():
            for (first, port), (second, other) in itertools.combinations(self.listening(host).items(), 2):
                if port == other:
                    clashes[first, second].append(host.name)
        for (first, second), names in clashes.items():
            field, taken_by = (second, first) if self._gives(second) or not self._gives(first) else (first, second)
            yield Finding(
                f"{operator.attrgetter(field)(self)} is {taken_by} as well, on {', '.join(names)}",
                "choose another port for one of them",
                _location(field),
            )

    def _ports_not_offered(self) -> Iterator[Finding]:
        ranges = self.mesos.slave.ports
        taken: dict[str, list[str]] = defaultdict(list)
        for host in self._with_known_roles():
            if "mesos_slave" in host.roles:
                for field, port in self.listening(host).items():
                    if port in ranges:
                        taken[field].append(host.name)
        rest = ranges.without(operator.attrgetter(field)(self) for field in taken)
        for field, names in taken.items():
            yield Finding(
                f"{field} {operator.attrgetter(field)(self)} lies in the slaves' {ranges} on {', '.join(names)}, and "
                "Mesos offers ports to tasks without looking whether they are free",
                f'set mesos.slave.ports to "{rest}", or move {field} out of it' if rest else "choose other ranges",
                _location("mesos.slave.ports" if self._gives("mesos.slave.ports") else field),
            )

    def _port_open(self, field: str) -> Iterator[Finding]:
        port = operator.attrgetter(field)(self)
        if port not in self.open_ports and any(field in self.listening(host) for host in self._with_known_roles()):
            yield Finding(
                f"{field} {port} lies outside open_ports {self.open_ports}, so that nobody outside can open it",
                "choose a port within, or widen open_ports if the firewall lets it in",
                _location(field if self._gives(field) else "open_ports"),
            )

    def _offers_open(self) -> Iterator[Finding]:
        if self.having("mesos_slave") and not self.open_ports.covers(self.mesos.slave.ports):
            yield Finding(
                f"mesos.slave.ports {self.mesos.slave.ports} reach out of open_ports {self.open_ports}, so that tasks "
                "get ports that nobody outside can open (3.3)",
                "narrow them, or widen open_ports if the firewall lets them in",
                _location("mesos.slave.ports" if self._gives("mesos.slave.ports") else "open_ports"),
            )

    def _mysql_host(self) -> Iterator[Finding]:
        slaves = [host.name for host in self.having("mesos_slave")]
        if self.mysql.host is not None and self.mysql.host not in slaves:
            yield Finding(
                f"{self.mysql.host} is not the name of a mesos_slave host",
                _did_you_mean(self.mysql.host, slaves) or "name a host that has the role",
                ("mysql", "host"),
            )

    def _mysql_instances(self) -> Iterator[Finding]:
        mysql = self.mysql
        if mysql.instances > 1:
            yield Finding(
                f"{mysql.instances} servers would share the data folder {mysql.volume}, and destroy what is in it",
                "keep 1; a further server is an app of its own, with a folder of its own",
                ("mysql", "instances"),
            )
        if mysql.instances > 1 and mysql.host_port:
            yield Finding(
                f"{mysql.instances} instances cannot share the port {mysql.host_port} of one host (6.3)",
                "set 0: each gets a port of its own",
                ("mysql", "host_port"),
            )

    def _mysql_port(self) -> Iterator[Finding]:
        port, ranges = self.mysql.host_port, self.mesos.slave.ports
        if port and port not in ranges:
            yield Finding(
                f"{port} is not among the slaves' ports {ranges}, so that no offer ever holds it (6.3)",
                "set 0, or one of these",
                ("mysql", "host_port"),
            )

    def _mysql_memory(self) -> Iterator[Finding]:
        if self.mysql.mem <= MYSQL_DOES_NOT_START:
            yield Finding(
                f"MySQL does not start with {MYSQL_DOES_NOT_START} MB (6.3)",
                "give it 1024, as the document does",
                ("mysql", "mem"),
            )

    def _mysql_names(self) -> Iterator[Finding]:
        if self.mysql.user == "root":
            yield Finding("is there already, with root_password", "choose another name", ("mysql", "user"))
        if self.mysql.database.lower() in MYSQL_OWN_DATABASES:
            yield Finding("is the server's own", "choose another name", ("mysql", "database"))

    def _containers(self, position: int, host: HostParameters) -> Iterator[Finding]:
        if "docker" in host.roles:
            return
        uses: list[str] = [role for role in ("registry", "registry_web") if role in host.roles]
        if "mesos_slave" in host.roles and "docker" in self.mesos.slave.containerizers.split(","):
            uses.append("mesos_slave (mesos.slave.containerizers names docker)")
        if uses:
            yield Finding(
                f"{' and '.join(uses)} on {host.name} cannot work without docker",
                "add the role docker",
                ("hosts", position, "roles"),
            )

    def _overrides(self, position: int, host: HostParameters) -> Iterator[Finding]:
        overrides: tuple[tuple[str, Role], ...] = (
            ("myid", "zookeeper"),
            ("observer", "zookeeper"),
            ("slave", "mesos_slave"),
        )
        for field, role in overrides:
            if field in host.model_fields_set and role not in host.roles:
                yield Finding(
                    f"has no effect, as {host.name} is no {role}",
                    f"add the role {role}, or take `{field}` out",
                    ("hosts", position, field),
                )

    def _with_known_roles(self) -> Iterator[HostParameters]:
        return (host for host in self.hosts if not isinstance(host.roles, Refused))

    def _gives(self, field: str) -> bool:
        """Whether the file gives a field, or leaves it to its default."""
        section: Any = self
        for part in field.split("."):
            if part not in section.model_fields_set:
                return False
            section = getattr(section, part)
        return True


def _overridden(defaults: SshParameters, own: SshParameters) -> SshParameters:
    return defaults.model_copy(update={field: getattr(own, field) for field in own.model_fields_set})


def environment_findings(app: AppDefinition, place: Location = ()) -> Iterator[Finding]:
    """What is wrong with an app's `env` and `secrets`: secrets must be references, everything else texts.

    A reference is `{secret: "env:NAME"}`, or the name of a secret that the app's `secrets` defines, as in Marathon.
    """
    defined = app.get("secrets", {})
    if not isinstance(defined, dict):
        yield Finding("is not a mapping", "write `NAME: {source: …}` in it", (*place, "secrets"))
    names = secrets.names_of_secrets(app)
    for name in sorted(names):
        if not any(_reference_finding(name, ())):
            yield Finding(
                "is how a reference to a secret is written, and here the name of one of Marathon's",
                "choose a name that does not begin with env:, file: or keyring:",
                (*place, "secrets", name),
            )
    environment = app.get("env", {})
    if not isinstance(environment, dict):
        yield Finding("is not a mapping", "write `NAME: value` in it", (*place, "env"))
        return
    for variable, value in environment.items():
        own: Location = (*place, "env", variable)
        if secrets.is_reference(value, names):
            for finding in _reference_finding(value["secret"], (*own, "secret")):
                if defined:
                    yield Finding(
                        "is neither a reference to a secret nor a name that the app's `secrets` defines",
                        f"define the name under `secrets`, or: {finding.remedy}",
                        finding.location,
                    )
                else:
                    yield finding
        elif secrets.is_reference(value):
            continue  # Marathon's own
        elif not isinstance(value, str):
            yield Finding("is neither a text nor a secret", 'write "text" or {secret: "env:NAME"}', own)
        elif _SECRET_NAME.search(variable) and value.lower() not in _NO_SECRETS:
            yield Finding(
                "must be a reference to a secret, not a text",
                'write {secret: "env:NAME"} (or file:PATH, keyring:SERVICE/USER); a secret that stood in this '
                "file is no longer one: change it",
                own,
            )


def with_absolute_references(app: AppDefinition, folder: Path) -> AppDefinition:
    """The same app, with the PATH of each `file:` under `env` made absolute; a relative one begins at `folder`."""
    environment = app.get("env")
    if not isinstance(environment, dict):
        return app
    names = secrets.names_of_secrets(app)
    absolute: dict[str, JsonValue] = {
        name: {"secret": SecretReference(value["secret"]).within(folder)}
        if secrets.is_reference(value, names)
        else value
        for name, value in environment.items()
    }
    return {**app, "env": absolute}


def _location(field: str) -> Location:
    return tuple(field.split("."))


def _reference_finding(text: JsonValue, place: Location) -> Iterator[Finding]:
    try:
        SecretReference(str(text)).within(Path("/"))
    except SecretError as error:
        yield Finding(error.message, error.remedy or "", place)


def _undeclared(section: str, declared: Iterable[str], name: str) -> tuple[str, str]:
    return (
        f"no {name} is declared under {section}",
        _did_you_mean(name, declared) or f"add {name} under {section}, with its file and sha256",
    )


# files on this machine


def _file_finding(upload: ImageParameters | ArtifactParameters) -> Finding | None:
    try:
        status = refuse_special(upload.file, upload.file)
        found = _sha256(upload.file, status.st_mtime_ns, status.st_size)
    except OSError as error:
        return Finding(
            f"{upload.file} cannot be read: {error.strerror}",
            "put the file there, or correct the path",
            ("file",),
        )
    if found != upload.sha256:
        return Finding(
            f"{upload.file} has another SHA-256: {found}",
            "find out which of the two is right: fetch the file again, or correct the sum",
            ("sha256",),
        )
    return None


@functools.lru_cache(maxsize=256)
def _sha256(file: Path, mtime_ns: int, size: int) -> str:
    """The file's SHA-256, computed once as long as it stays as it is."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


# pydantic's errors in our words


def _problems(located: Located, errors: Iterable[ErrorDetails]) -> Iterator[Problem]:
    """Pydantic's errors as problems of the file, except for values that it is refused for already."""
    for error in errors:
        location = tuple(part for part in error["loc"] if part != "[key]")
        if not located.has_problem(location):
            yield located.problem(location, *_explained(error, location))


def _explained(error: ErrorDetails, location: Location) -> tuple[str, str]:
    """What is wrong, and the remedy. Shows a value only where it cannot be a secret."""
    given, context = error["input"], error.get("ctx", {})
    match error["type"]:
        case "refused":
            return context["message"], context["remedy"]
        case "extra_forbidden":
            known = _known_keys(location[:-1])
            return "is not a parameter", _did_you_mean(str(location[-1]), known) or f"known here: {', '.join(known)}"
        case "missing":
            return "is missing", f"add `{location[-1]}: …`"
        case "literal_error":
            choices = re.findall(r"'([^']*)'", context["expected"])
            listed = f"known: {', '.join(choices)}"
            if location[0] == "approvals":  # a gate approved by a wrong guess is a disruption
                return f"{shortened(repr(given))} is not a gate", listed
            return f"{shortened(repr(given))} is not known", _did_you_mean(str(given), choices) or listed
        case "greater_than" | "greater_than_equal" | "less_than_equal":
            return f"{shortened(given)} is out of range", error["msg"].replace("Input should be", "write a number")
    wanted = _WANTED.get(error["type"])
    if wanted is None:
        return error["msg"], "see parameters/README.md"
    return f"is {_kind(given)} where {wanted[0]} is wanted", wanted[1]


_A_NUMBER = "write it in digits, without quotes"
_A_TEXT = ("a text", "write the value in quotes")
_A_MAPPING = ("a mapping", "write `key: value` in it, or {key: value}")
_WANTED: Mapping[str, tuple[str, str]] = {
    "string_type": _A_TEXT,
    "path_type": _A_TEXT,
    "int_type": ("a whole number", "write it in digits, without quotes"),
    "float_type": ("a number", _A_NUMBER),
    "finite_number": ("a finite number", "write a smaller one"),
    "bool_type": ("true or false", "write true or false, without quotes"),
    "tuple_type": ("a list", "write one `- …` a line, or [a, b]"),
    "dict_type": _A_MAPPING,
    "model_type": _A_MAPPING,
}


def _kind(value: object) -> str:
    kinds: Mapping[type, str] = {bool: "true or false", int: "a number", float: "a decimal number", str: "a text"}
    kinds = {**kinds, list: "a list", dict: "a mapping", type(None): "empty"}
    return kinds.get(type(value), "something else")


def _known_keys(location: Location) -> list[str]:
    """The fields of the section at a location."""
    kind: Any = Site
    for part in location:
        held = {tuple: 0, dict: 1}.get(get_origin(kind))
        kind = kind.model_fields[part].annotation if held is None else get_args(kind)[held]
        if get_origin(kind) is UnionType:  # `Section | None`
            kind = get_args(kind)[0]
    return list(kind.model_fields)


def _did_you_mean(word: str, known: Iterable[str]) -> str | None:
    found = difflib.get_close_matches(word, list(known), n=1)
    return f"did you mean {found[0]}?" if found else None
