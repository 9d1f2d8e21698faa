"""The command line of Marathon 1.1.1: `--name value`, `--switch`, `--disable_switch`, and `MARATHON_NAME`.

Names and defaults are those of Marathon's 'Command Line Flags' of 1.1 and, where they differ, of its sources
(MarathonConf.scala, ZookeeperConf.scala). What it does not know it refuses, as Marathon's
parser (scallop) does. Flags without a meaning here are known, so that a real configuration can be rehearsed.
"""

import os
import socket
import sys
from collections.abc import Mapping, Sequence
from typing import NoReturn

VERSION = "1.1.1"

VALUES: dict[str, str | None] = {
    "decline_offer_duration": "120000",
    "executor": "//cmd",
    "failover_timeout": "604800",
    "framework_name": "marathon",
    "hostname": socket.gethostname(),
    "http_port": "8080",
    "https_port": "8443",
    "leader_proxy_connection_timeout": "5000",
    "leader_proxy_read_timeout": "10000",
    "local_port_max": "20000",
    "local_port_min": "10000",
    "marathon_store_timeout": "2000",
    "max_tasks_per_offer": "5",
    "mesos_user": "root",
    "min_revive_offers_interval": "5000",
    "reconciliation_initial_delay": "15000",
    "reconciliation_interval": "600000",
    "revive_offers_repetitions": "3",
    "scale_apps_initial_delay": "15000",
    "scale_apps_interval": "300000",
    "task_launch_confirm_timeout": "300000",
    "task_launch_timeout": "300000",
    "zk": "zk://localhost:2181/marathon",
    "zk_max_versions": "25",
    "zk_session_timeout": "10000",
    "zk_timeout": "10000",
} | dict.fromkeys(
    [
        *("access_control_allow_origin", "artifact_store", "assets_path", "default_accepted_resource_roles"),
        *("enable_features", "env_vars_prefix", "event_subscriber", "event_stream_max_outstanding_messages"),
        *("http_address", "http_credentials", "http_endpoints", "http_event_callback_slow_consumer_timeout"),
        *("http_max_concurrent_requests", "http_realm", "launch_token_refresh_interval", "launch_tokens"),
        *("logging_level", "master", "max_apps", "mesos_authentication_principal"),
        *("mesos_authentication_secret_file", "mesos_leader_ui_url", "mesos_role", "offer_matching_timeout"),
        *("on_elected_prepare_timeout", "plugin_conf", "plugin_dir", "reporter_datadog", "reporter_graphite"),
        *("save_tasks_to_launch_timeout", "ssl_keystore_password", "ssl_keystore_path", "task_reservation_timeout"),
        *("internal_store_backend", "launch_queue_request_timeout", "max_actor_startup_time"),
        *("max_parallel_status_updates", "max_queued_root_group_updates", "max_queued_status_updates"),
        *("max_tasks_per_offer_cycle", "task_operation_notification_timeout", "task_tracker_request_timeout"),
        *("task_update_request_timeout", "webui_url", "zk_compression_threshold"),
    ]
)

SWITCHES = {
    *("checkpoint", "ha", "http", "http_compression", "leader_proxy_ssl_ignore_hostname", "metrics"),
    *("revive_offers_for_new_apps", "store_cache", "tracing", "zk_compression", "help", "version"),
}


class Flags:
    """The flags in force: what the command line says, else the environment, else the default."""

    def __init__(self, argv: Sequence[str], environ: Mapping[str, str]) -> None:
        """SystemExit with status 1, as Marathon ends, where a flag is unknown, lacks its value or is given twice."""
        self._values = dict(VALUES)
        self.switches = {"checkpoint", "ha", "http", "revive_offers_for_new_apps", "store_cache", "zk_compression"}
        for name, value in environ.items():
            flag = name.removeprefix("MARATHON_").lower()
            if name.startswith("MARATHON_") and flag in VALUES:
                self._values[flag] = value
        given: set[str] = set()
        words = iter(argv)
        for word in words:
            name, equals, value = word.removeprefix("--").partition("=")
            if not word.startswith("--"):
                _leave(f"Excess arguments provided: '{word}'")
            if name in given:
                _leave(f"Bad arguments for option '{name}' - you should provide exactly one argument for this option")
            given.add(name)
            if name in SWITCHES or name.removeprefix("enable_") in SWITCHES:
                self.switches.add(name.removeprefix("enable_"))
            elif name.removeprefix("disable_") in SWITCHES:
                self.switches.discard(name.removeprefix("disable_"))
            elif name in VALUES:
                self._values[name] = value if equals else next(words, "")
                if not self._values[name]:
                    _leave(f"Bad arguments for option '{name}': '' - you should provide exactly one argument")
            else:
                _leave(f"Unknown option '{name}'")
        if self.get("master") is None and not {"version", "help"} & self.switches:
            _leave("Required option 'master' not found")

    def get(self, name: str) -> str | None:
        return self._values[name]

    def __getitem__(self, name: str) -> str:
        value = self._values[name]
        if value is None:
            raise KeyError(name)
        return value

    def number(self, name: str) -> int:
        try:
            return int(self[name])
        except ValueError:
            _leave(f"Bad arguments for option '{name}': '{self[name]}' - wrong arguments format")

    def seconds(self, name: str) -> float:
        """A time that Marathon takes in milliseconds."""
        return self.number(name) / 1000


def load() -> Flags:
    """The flags of this process; prints the version or the usage and ends where it is asked for them."""
    flags = Flags(sys.argv[1:], os.environ)
    if "version" in flags.switches:
        print(f"{VERSION} (rehearsal double)")
        sys.exit(0)
    if "help" in flags.switches:
        print(f"marathon {VERSION} (rehearsal double)")
        print("\n".join(f"  --{name} <arg>" for name in sorted(VALUES)))
        print("\n".join(f"  --[disable_]{name}" for name in sorted(SWITCHES)))
        sys.exit(0)
    return flags


def _leave(problem: str) -> NoReturn:
    print(f"[scallop] Error: {problem}", file=sys.stderr)
    sys.exit(1)
