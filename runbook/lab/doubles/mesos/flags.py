"""The command lines of mesos-master and mesos-slave 0.28: `--name=value`, `--name`, `--no-name`, and `MESOS_NAME`.

Names and defaults are those of the recorded `/flags`; the names without a default are the further ones of 0.28's
configuration page. A flag that Mesos does not know is refused, and so is one given twice (stout's flags library).
"""

import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

SECONDS = {
    "ns": 1e-9,
    "us": 1e-6,
    "ms": 1e-3,
    "secs": 1.0,
    "mins": 60.0,
    "hrs": 3600.0,
    "days": 86400.0,
    "weeks": 604800.0,
}

COMMON: dict[str, str | None] = {
    "help": "false",
    "hostname_lookup": "true",
    "initialize_driver_logging": "true",
    "logbufsecs": "0",
    "logging_level": "INFO",
    "quiet": "false",
    "version": "false",
} | dict.fromkeys(
    [
        "advertise_ip",
        "advertise_port",
        "external_log_file",
        "firewall_rules",
        "hooks",
        "hostname",
        "ip",
        "ip_discovery_command",
        "log_dir",
        "modules",
    ]
)

MASTER: dict[str, str | None] = {
    **COMMON,
    "allocation_interval": "1secs",
    "allocator": "HierarchicalDRF",
    "authenticate": "false",
    "authenticate_http": "false",
    "authenticate_slaves": "false",
    "authenticators": "crammd5",
    "authorizers": "local",
    "framework_sorter": "drf",
    "http_authenticators": "basic",
    "log_auto_initialize": "true",
    "max_completed_frameworks": "50",
    "max_completed_tasks_per_framework": "1000",
    "max_slave_ping_timeouts": "5",
    "port": "5050",
    "recovery_slave_removal_limit": "100%",
    "registry": "replicated_log",
    "registry_fetch_timeout": "1mins",
    "registry_store_timeout": "20secs",
    "registry_strict": "false",
    "root_submissions": "true",
    "slave_ping_timeout": "15secs",
    "slave_reregister_timeout": "10mins",
    "user_sorter": "drf",
    "webui_dir": "/usr/share/mesos/webui",
    "zk_session_timeout": "10secs",
} | dict.fromkeys(
    [
        "acls",
        "cluster",
        "credentials",
        "max_executors_per_slave",
        "offer_timeout",
        "quorum",
        "rate_limits",
        "roles",
        "slave_removal_rate_limit",
        "weights",
        "whitelist",
        "work_dir",
        "zk",
    ]
)

SLAVE: dict[str, str | None] = {
    **COMMON,
    "appc_simple_discovery_uri_prefix": "http://",
    "appc_store_dir": "/tmp/mesos/store/appc",
    "authenticatee": "crammd5",
    "cgroups_cpu_enable_pids_and_tids_count": "false",
    "cgroups_enable_cfs": "false",
    "cgroups_hierarchy": "/sys/fs/cgroup",
    "cgroups_limit_swap": "false",
    "cgroups_root": "mesos",
    "container_disk_watch_interval": "15secs",
    "containerizers": "mesos",
    "default_role": "*",
    "disk_watch_interval": "1mins",
    "docker": "docker",
    "docker_kill_orphans": "true",
    "docker_registry": "https://registry-1.docker.io",
    "docker_remove_delay": "6hrs",
    "docker_socket": "/var/run/docker.sock",
    "docker_stop_timeout": "0ns",
    "docker_store_dir": "/tmp/mesos/store/docker",
    "enforce_container_disk_quota": "false",
    "executor_registration_timeout": "1mins",
    "executor_shutdown_grace_period": "5secs",
    "fetcher_cache_dir": "/tmp/mesos/fetch",
    "fetcher_cache_size": "2GB",
    "frameworks_home": "",
    "gc_delay": "1weeks",
    "gc_disk_headroom": "0.1",
    "hadoop_home": "",
    "image_provisioner_backend": "copy",
    "isolation": "posix/cpu,posix/mem",
    "launcher_dir": "/usr/libexec/mesos",
    "oversubscribed_resources_interval": "15secs",
    "perf_duration": "10secs",
    "perf_interval": "1mins",
    "port": "5051",
    "qos_correction_interval_min": "0ns",
    "recover": "reconnect",
    "recovery_timeout": "15mins",
    "registration_backoff_factor": "1secs",
    "revocable_cpu_low_priority": "true",
    "sandbox_directory": "/mnt/mesos/sandbox",
    "strict": "true",
    "switch_user": "true",
    "systemd_enable_support": "true",
    "systemd_runtime_directory": "/run/systemd/system",
    "work_dir": "/tmp/mesos",
} | dict.fromkeys(
    [
        "attributes",
        "cgroups_net_cls_primary_handle",
        "container_logger",
        "credential",
        "default_container_info",
        "docker_mesos_image",
        "docker_sandbox_directory",
        "egress_rate_limit_per_container",
        "eth0_name",
        "ephemeral_ports_per_container",
        "executor_environment_variables",
        "image_providers",
        "launcher",
        "lo_name",
        "master",
        "network_enable_socket_statistics_details",
        "network_enable_socket_statistics_summary",
        "perf_events",
        "qos_controller",
        "resource_estimator",
        "resources",
        "slave_subsystems",
    ]
)


class FlagError(Exception):
    """A command line that Mesos refuses; the message is Mesos'."""


class Flags:
    """The flags in force: what the command line says, else the environment (`MESOS_NAME`), else the default."""

    def __init__(self, known: Mapping[str, str | None], argv: Sequence[str], environ: Mapping[str, str]) -> None:
        self._known = known
        given: dict[str, str | None] = {}
        for argument in argv:
            if argument.startswith("--"):
                name, equals, value = argument[2:].partition("=")
                if name in given:
                    raise FlagError(f"Duplicate flag '{name}' on command line")
                given[name] = value if equals else None
        set_outside = {key[6:].lower(): value for key, value in environ.items() if key.startswith("MESOS_")}
        self.values = {name: default for name, default in known.items() if default is not None}
        for name, text in {**{k: v for k, v in set_outside.items() if k in known}, **given}.items():
            flag, value = self._load(name, text)
            self.values[flag] = value

    def _load(self, name: str, value: str | None) -> tuple[str, str]:
        flag, via = name, ""
        if name not in self._known and name.startswith("no-"):
            flag, via = name[3:], f" via '{name}'"
        if flag not in self._known:
            raise FlagError(f"Failed to load unknown flag '{flag}'{via}")
        if self._known[flag] in ("true", "false"):
            if via and value:
                raise FlagError(f"Failed to load boolean flag '{flag}'{via} with value '{value}'")
            value = value or ("false" if via else "true")
            if value not in ("true", "false", "1", "0"):
                raise FlagError(
                    f"Failed to load flag '{flag}': Failed to load value '{value}': "
                    "Expecting a boolean (e.g., true or false)"
                )
            return flag, {"1": "true", "0": "false"}.get(value, value)
        if via:
            raise FlagError(f"Failed to load non-boolean flag '{flag}'{via}")
        if value is None:
            raise FlagError(f"Failed to load non-boolean flag '{flag}': Missing value")
        if value.startswith("file://"):
            value = Path(value.removeprefix("file://")).read_text(encoding="utf-8").strip()
        self._check(flag, value)
        return flag, value

    def _check(self, flag: str, value: str) -> None:
        try:
            if flag in ("port", "quorum", "max_slave_ping_timeouts"):
                int(value)
            elif re.fullmatch(rf"\d+({'|'.join(SECONDS)})", self._known[flag] or ""):
                duration(value)
        except ValueError as error:
            raise FlagError(f"Failed to load flag '{flag}': Failed to load value '{value}': {error}") from None

    def get(self, name: str) -> str | None:
        return self.values.get(name)

    def __getitem__(self, name: str) -> str:
        return self.values[name]

    def is_true(self, name: str) -> bool:
        return self.values[name] == "true"

    def seconds(self, name: str) -> float:
        return duration(self.values[name])

    def __str__(self) -> str:
        return " ".join(f'--{name}="{value}"' for name, value in sorted(self.values.items()))


def duration(text: str) -> float:
    """Seconds of a duration such as `5mins`; ValueError with stout's message where it is none."""
    match = re.fullmatch(r"(-?[0-9.]+)([a-z]+)", text)
    if not match or match[2] not in SECONDS:
        raise ValueError(f"Invalid duration '{text}'")
    return float(match[1]) * SECONDS[match[2]]


def load(program: str, known: Mapping[str, str | None], argv: Sequence[str]) -> Flags:
    """The flags of a daemon; ends the process, as Mesos does, on `--version`, `--help` and every error."""
    try:
        flags = Flags(known, argv, os.environ)
    except (FlagError, OSError) as error:
        leave_with_usage(program, known, str(error))
    if flags.is_true("version"):
        print("mesos 0.28.0 (rehearsal double)")
        sys.exit(0)
    if flags.is_true("help"):
        print(_usage(program, known))
        sys.exit(0)
    return flags


def leave_with_usage(program: str, known: Mapping[str, str | None], error: str) -> NoReturn:
    """Print what is wrong and the usage on standard error, and exit with status 1."""
    print(f"{error}\n\n{_usage(program, known)}", file=sys.stderr)
    sys.exit(1)


def _usage(program: str, known: Mapping[str, str | None]) -> str:
    lines = []
    for name, default in sorted(known.items()):
        boolean = default in ("true", "false")
        flag = f"--[no-]{name}" if boolean else f"--{name}=VALUE"
        lines.append(f"  {flag:<60}" + (f" (default: {default})" if default is not None else ""))
    return f"Usage: {program} [options]\n\n" + "\n".join(lines)
