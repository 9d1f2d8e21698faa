"""What a host that runs Marathon should be (document 4.1 and 4.2).

The package reads its flags from two places: every file below /etc/marathon/conf that begins with no dot becomes
`--NAME CONTENT` (`?NAME` becomes `--NAME`), and every variable `MARATHON_NAME` becomes `--name VALUE`. A name that
Marathon does not know ends it, and so does a flag that both give. The document writes three files; `LIBPROCESS_IP`,
which it lacks, is the address that the masters answer to: without it that is what the host's own name resolves to, on
many hosts the loopback, and the framework never gets registered.

Sources: Marathon's bin/marathon-framework; its 'Command Line Flags', from 1.1 to 1.4 (the packages of 1.5 read the
folder no more).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

from runbook.errors import StepFailed
from runbook.remote.probes import values
from runbook.remote.shell import quote
from runbook.remote.steps import Absent, Change, Directory, File, Lines, Rpm, Step, put_away
from runbook.remote.units import PackagedUnit, SafePaths
from runbook.services.flags import FlagSource, ForeignFlags
from runbook.services.mesos.steps import ConfiguredDaemon, FlagFolder, ip_of
from runbook.site import HostParameters, Site

PROGRAM = "marathon"
"""The unit, the name in the logs, and the role of a host that runs it."""
CONF = "/etc/marathon/conf"
DEFAULTS = "/etc/default/marathon"
ENVIRONMENT = "/etc/sysconfig/marathon"
"""The unit's EnvironmentFile, where there is one."""
PORT = 8080
"""Where Marathon listens that is not told otherwise."""


def install(site: Site) -> Rpm:
    """The package, from the artifact (4.1). Raises ParameterError where none is declared."""
    artifact = site.artifact(site.marathon.artifact)
    return Rpm(site.marathon.package, site.marathon.version, artifact.file, artifact.sha256)


def settings(site: Site, host: HostParameters) -> tuple[Step, ...]:
    """The files of 4.2, and the address at which Mesos' masters reach the framework.

    The packages of 1.5 and later take all of it from variables. They run Marathon, and so its tasks, as a user of their
    own unless they are told otherwise.
    """
    marathon = site.marathon
    libprocess = {"LIBPROCESS_IP": ip_of(host), "LIBPROCESS_PORT": str(marathon.libprocess_port or "")}
    flags = {"master": site.mesos_zk, "zk": site.marathon_zk, "hostname": host.address}
    if not reads_folder(site):
        flags |= {"http_port": str(marathon.http_port), "mesos_user": "root"}
        return (_variables({f"MARATHON_{name.upper()}": value for name, value in flags.items()} | libprocess),)
    port = f"{CONF}/http_port"
    return (
        Directory(CONF),
        *(File(f"{CONF}/{name}", f"{value}\n") for name, value in flags.items()),
        Absent(port) if marathon.http_port == PORT else File(port, f"{marathon.http_port}\n"),
        _variables(libprocess),
        ConfFolder(),
    )


def reads_folder(site: Site) -> bool:
    """Whether the package makes flags of the files in /etc/marathon/conf: those before 1.5 do."""
    numbers = re.match(r"(\d+)\.(\d+)", site.marathon.version)
    return numbers is None or (int(numbers[1]), int(numbers[2])) < (1, 5)


def _variables(values: Mapping[str, str]) -> Lines:
    """Variables in /etc/default/marathon; those without a value are taken out."""
    lines = ((rf"\s*(export\s+)?{name}=", f"{name}={value}" if value else "") for name, value in values.items())
    return Lines(DEFAULTS, tuple(lines))


def flag_source(site: Site) -> FlagSource:
    """Where Marathon's start script takes its flags from. The packages from 1.5 on leave variables to the program."""
    folder = reads_folder(site)
    own = {"LIBPROCESS_IP", "LIBPROCESS_PORT"}
    if not folder:
        own |= {f"MARATHON_{name}" for name in ("MASTER", "ZK", "HOSTNAME", "HTTP_PORT", "MESOS_USER")}
    return FlagSource(
        unit=PROGRAM,
        directory=CONF if folder else "",
        defaults=(ENVIRONMENT, DEFAULTS),
        prefix="MARATHON_",
        script="/marathon",
        own=ConfFolder.OWN,
        own_variables=frozenset(f"{DEFAULTS}:{name}" for name in own),
        separate=folder,
        ignored="MARATHON_APP",
    )


def drift(site: Site) -> tuple[Step, ...]:
    """What an administrator changed of Marathon beside its settings: its unit, its flags, who may write its files."""
    return (
        PackagedUnit(PROGRAM, site.marathon.package, allowed=site.marathon.allowed_drop_ins),
        ForeignFlags(flag_source(site), frozenset(site.marathon.allowed_flags)),
        SafePaths(PROGRAM, (CONF.rpartition("/")[0], CONF, DEFAULTS, ENVIRONMENT)),
    )


def service(site: Site, host: HostParameters) -> ConfiguredDaemon:
    """A running Marathon that has the present configuration. Its restart costs no task: they are the slaves'."""
    paths = (step.path for step in settings(site, host) if isinstance(step, File | Absent | Lines | Directory))
    return ConfiguredDaemon(
        PROGRAM,
        restart_if_newer=tuple(paths),
        package=site.marathon.package,
        allowed_drop_ins=site.marathon.allowed_drop_ins,
        flags=flag_source(site),
        allowed=frozenset(site.marathon.allowed_flags),
    )


_SWITCHES = (
    *("checkpoint", "ha", "http", "http_compression", "leader_proxy_ssl_ignore_hostname", "metrics"),
    *("revive_offers_for_new_apps", "store_cache", "tracing", "zk_compression", "mesos_authentication"),
)
FLAGS = frozenset(
    (
        *("access_control_allow_origin", "artifact_store", "assets_path", "backup_location", "decline_offer_duration"),
        *("default_accepted_resource_roles", "default_network_name", "enable_features", "env_vars_prefix"),
        *("event_stream_max_outstanding_messages", "event_subscriber", "executor", "failover_timeout"),
        *("framework_name", "hostname", "http_address", "http_credentials", "http_endpoints"),
        *("http_event_callback_slow_consumer_timeout", "http_event_request_timeout", "http_max_concurrent_requests"),
        *("http_port", "http_realm", "https_address", "https_port", "internal_store_backend", "kill_chunk_size"),
        *("kill_retry_timeout", "launch_token_refresh_interval", "launch_tokens", "leader_election_backend"),
        *("leader_proxy_connection_timeout", "leader_proxy_read_timeout", "local_port_max", "local_port_min"),
        *("logging_level", "logstash", "marathon_store_timeout", "master", "max_apps", "max_instances_per_offer"),
        *("max_running_deployments", "max_tasks_per_offer", "max_tasks_per_offer_cycle"),
        *("mesos_authentication_principal", "mesos_authentication_secret", "mesos_authentication_secret_file"),
        *("mesos_bridge_name", "mesos_heartbeat_failure_threshold", "mesos_heartbeat_interval"),
        *("mesos_leader_ui_url", "mesos_role", "mesos_user", "min_revive_offers_interval", "offer_matching_timeout"),
        *("on_elected_prepare_timeout", "plugin_conf", "plugin_dir", "reconciliation_initial_delay"),
        *("reconciliation_interval", "reporter_datadog", "reporter_graphite", "revive_offers_repetitions"),
        *("save_tasks_to_launch_timeout", "scale_apps_initial_delay", "scale_apps_interval"),
        *("launch_queue_request_timeout", "max_actor_startup_time", "max_parallel_status_updates"),
        *("max_queued_root_group_updates", "max_queued_status_updates", "task_operation_notification_timeout"),
        *("task_tracker_request_timeout", "task_update_request_timeout"),
        *("ssl_keystore_password", "ssl_keystore_path", "task_launch_confirm_timeout", "task_launch_timeout"),
        *("task_lost_expunge_gc", "task_lost_expunge_initial_delay", "task_lost_expunge_interval"),
        *("task_reservation_timeout", "webui_url", "zk", "zk_compression_threshold", "zk_max_node_size"),
        *("zk_max_versions", "zk_session_timeout", "zk_timeout"),
        *_SWITCHES,
        *(f"{prefix}_{name}" for prefix in ("disable", "enable") for name in _SWITCHES),
    )
)
"""The flags of Marathon 1.1 to 1.4. The program itself cannot be asked: its start script answers `--help`."""


@dataclass(frozen=True)
class ConfFolder(Step):
    """No stray file in /etc/marathon/conf, and no variable beside it that is no flag or gives one twice.

    What rpm leaves in the folder (`*.rpmnew` and the like) is put away. Anything else that would end Marathon is
    somebody's, and refused.
    """

    OWN: ClassVar = frozenset({"master", "zk", "hostname", "http_port"})
    """Flags that the runbook gives, so that nobody else may."""

    @property
    def touches(self) -> frozenset[str]:
        return frozenset({CONF})

    @property
    def label(self) -> str:
        return f"flags in {CONF}"

    def probe(self) -> str:
        return _PROBE_FLAGS.format(conf=quote(CONF), defaults=f"{quote(DEFAULTS)} {quote(ENVIRONMENT)}")

    def plan(self, state: str, pending: frozenset[str] = frozenset()) -> Change | None:
        names = values(state, "file")
        leftovers = [name for name in names if name.endswith(FlagFolder.LEFTOVERS)]
        flags = [name for name in names if name not in leftovers]
        if unknown := [name for name in flags if name.removeprefix("?") not in FLAGS]:
            paths = ", ".join(f"{CONF}/{name}" for name in unknown)
            raise StepFailed(
                f"{paths}: not a flag of Marathon, which makes a flag of every file there and will not start",
                f"move it elsewhere: mv {quote(f'{CONF}/{unknown[0]}')} /root/",
            )
        for message, remedy in self._of_variables(state, {name.removeprefix("?") for name in flags}):
            raise StepFailed(message, remedy)
        if not leftovers:
            return None
        diff = "".join(f"-{CONF}/{name} (rpm's; a backup is kept)\n" for name in leftovers)
        return Change("put away what rpm left", diff, actions=tuple(leftovers))

    def _of_variables(self, state: str, flags: set[str]) -> Iterator[tuple[str, str]]:
        for line in values(state, "variable"):
            variable, file = line.split(" ", 1)
            flag = variable.removeprefix("MARATHON_").lower()
            gone = f"take {variable} out of {file}"
            if flag not in FLAGS:
                yield f"{variable} in {file}: not a flag of Marathon, which makes one of it and will not start", gone
            elif flag in self.OWN:
                yield f"{variable} in {file} gives --{flag}, which the runbook gives by {CONF}/{flag}", gone
            elif flag in flags:
                twice = f"{CONF}/{flag} and {variable} in {file} both give --{flag}, and Marathon will not start"
                yield twice, f"{gone}, or remove the file"

    def script(self, change: Change) -> str:
        return f"set -e\n{put_away(*(f'{CONF}/{name}' for name in change.actions))}"


# MARATHON_APP* are those of a Marathon that is itself an app of another one: the start script passes them over.
_PROBE_FLAGS = """\
d={conf}
if [ -d "$d" ]; then
  find "$d" -type f ! -name '.*' | while read -r f; do printf 'file=%s\\n' "${{f#"$d"/}}"; done
fi
for f in {defaults}; do
  [ -f "$f" ] || continue
  sed -n 's/^[[:space:]]*\\(export[[:space:]]\\{{1,\\}}\\)\\{{0,1\\}}\\(MARATHON_[A-Z0-9_]\\{{1,\\}}\\)=.*/\\2/p' "$f" |
    while read -r name; do
      case $name in (MARATHON_APP*) ;; (*) echo "variable=$name $f";; esac
    done
done
"""
