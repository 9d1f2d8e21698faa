"""What mesos-master and mesos-slave have in common when they start: address, log, HTTP server."""

import socket
import sys
from dataclasses import dataclass
from typing import Any

from .files import Files
from .flags import Flags
from .glog import Log
from .http import Request, Response, Server, ok, text


@dataclass(frozen=True)
class Address:
    """Where a daemon listens and how others call it."""

    ip: str
    port: int
    hostname: str

    @classmethod
    def of(cls, flags: Flags) -> "Address":
        ip = flags.get("advertise_ip") or flags.get("ip") or socket.gethostbyname(socket.gethostname())
        hostname = flags.get("hostname")
        if hostname is None:
            hostname = socket.getfqdn(ip) if flags.is_true("hostname_lookup") else ip
        return cls(ip, int(flags.get("advertise_port") or flags["port"]), hostname)


def serve(name: str, flags: Flags, log: Log) -> tuple[Server, Files]:
    """Bind and serve what every libprocess daemon has; exits with 1 where the port is taken."""
    address = flags.get("ip") or "0.0.0.0", int(flags["port"])
    try:
        server = Server(address, log)
    except OSError as error:
        print(f"Failed to initialize: Failed to bind on {address[0]}:{address[1]}: {error.strerror}", file=sys.stderr)
        sys.exit(1)

    def health(request: Request) -> Response:
        return text(200)

    def version(request: Request) -> Response:
        return ok(BUILD)

    def front(request: Request) -> Response:
        says = f"A rehearsal double of mesos-{name} 0.28.0. See <a href=/state>/state</a>."
        return Response(200, f"<!DOCTYPE html><title>Mesos</title><p>{says}".encode(), {"Content-Type": "text/html"})

    server.route(health, "/health", f"/{'slave(1)' if name == 'slave' else name}/health")
    server.route(version, "/version")
    server.route(front, "/")
    files = Files(server)
    if log.path:
        files.attached[f"/{name}/log"] = log.path
        log.info(f"{name}.cpp:1650", f"Successfully attached file '{log.path}'")
    return server, files


BUILD: dict[str, Any] = {  # the release's date: the double is no build of Mesos
    "build_date": "2016-03-17 00:00:00",
    "build_time": 1458172800.0,
    "build_user": "rehearsal double",
    "git_branch": "refs/heads/master",
    "version": "0.28.0",
}


def warn_of_loopback(address: Address, name: str, place: str, log: Log) -> None:
    """The warning that a daemon on 127.0.0.1 gives."""
    if address.ip.startswith("127."):
        stars = "*" * 50
        peers = "remote master(s)" if name == "Slave" else "remote schedulers or slaves"
        log.warning(
            place,
            f"\n{stars}\n{name} bound to loopback interface! Cannot communicate with {peers}. "
            f"You might want to set '--ip' flag to a routable IP address.\n{stars}",
        )
