"""A C SSH client with the core's own scripts, near what sshd itself costs: `python -m benchmarks.run_libssh2 FLEET`.

It plans nothing: it sends each host's probe, and the changes of a bare host where the answer lacks a desired line.
Host keys are compared with known_hosts, as the core does. Prints the number of hosts that were changed.
"""

from __future__ import annotations

import base64
import json
import socket
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ssh2.session import Session

from benchmarks.fleet import Fleet

POOL = 32  # as the core's


def main() -> None:
    fleet = Fleet.read(sys.argv[1])
    scripts = json.loads((fleet.folder / "scripts.json").read_text())
    keys = {}
    for line in fleet.known_hosts.read_text().splitlines():
        name, _, key = line.split()
        keys[name] = base64.b64decode(key)

    def converge(address: str) -> bool:
        with socket.create_connection((address, fleet.port)) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            # libssh2 sets the socket's mode once more when a session ends: this must be before the socket is closed, as
            # its descriptor may be another connection's afterwards. So the session is known to `on` alone.
            return on(connection, fleet, keys[f"[{address}]:{fleet.port}"], scripts[address])

    with ThreadPoolExecutor(POOL) as pool:
        print(sum(pool.map(converge, fleet.hosts.values())))


def on(connection: socket.socket, fleet: Fleet, key: bytes, scripts: dict[str, Any]) -> bool:
    """Bring the host at the other end to the desired state; whether it was changed."""
    session = Session()
    session.handshake(connection)
    if session.hostkey()[0] != key:
        raise SystemExit(f"{connection.getpeername()} shows an unknown host key")
    session.userauth_publickey_fromfile(fleet.user, str(fleet.key))
    changed = not set(scripts["desired"]) <= set(execute(session, scripts["probe"]))
    if changed:
        execute(session, scripts["change"])
    session.disconnect()
    return changed


def execute(session: Session, script: str) -> list[str]:
    """The lines that a script prints on standard output."""
    channel = session.open_session()
    channel.execute("/bin/sh -s")
    channel.write(script.encode())
    channel.send_eof()
    chunks = []
    while True:
        size, chunk = channel.read(1 << 16)
        if size <= 0:
            break
        chunks.append(chunk)
    channel.wait_eof()
    channel.close()
    channel.wait_closed()
    if channel.get_exit_status():
        raise SystemExit(f"a script ended with status {channel.get_exit_status()}")
    return b"".join(chunks).decode().splitlines()


if __name__ == "__main__":
    main()
