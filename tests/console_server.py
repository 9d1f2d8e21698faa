"""`runbook console` as a process, with a folder of its own for its records."""

from __future__ import annotations

import http.client
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[1]


@dataclass
class Console:
    """A server that runs. `address` is without the token, `url` with it; `output` is what it printed so far."""

    process: subprocess.Popen[str]
    folder: Path
    port: int
    output: list[str] = field(default_factory=list)

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        found = re.search(r"http://\S+", "".join(self.output))
        assert found is not None
        return found[0]

    @property
    def token(self) -> str:
        return self.url.partition("?token=")[2]

    @property
    def records(self) -> list[Path]:
        """The records of its sessions, the oldest first."""
        return sorted(path.parent for path in (self.folder / "outputs").glob("*/journal.jsonl"))

    def end(self, number: signal.Signals = signal.SIGTERM, seconds: float = 60.0) -> int:
        """End it by a signal; gives its exit status."""
        self.process.send_signal(number)
        return self.process.wait(seconds)


def site(port: int) -> str:
    """The parameters of a site whose registry listens at this port of the loopback."""
    return (
        "name: console-test\n"
        "hosts: [{name: node1, address: 127.0.0.1, roles: [zookeeper, docker, registry]}]\n"
        "zookeeper: {allow_even: true, client_port: 9}\n"
        f"registry: {{port: {port}}}\n"
        "open_ports: 1-65535\n"
        f'images: {{registry: {{tag: "registry:2.8.2", file: registry.tar, sha256: "{"0" * 64}"}}}}\n'
    )


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as tried:
        port: int = tried.getsockname()[1]
        return port


@contextmanager
def serving(
    folder: Path, registry: int, mode: str = "apply", *, gone: int | None = None, seconds: float = 90.0
) -> Iterator[Console]:
    """A console on the registry at a port of the loopback, once it serves.

    `gone`: seconds after which it ends the session of a page that is closed.
    """
    (folder / "site.yml").write_text(site(registry))
    (folder / "notebooks").symlink_to(ROOT / "notebooks")
    (folder / "outputs").mkdir()
    port = free_port()
    main = "import signal\nfrom runbook import cli\nfrom runbook.console import server\n"
    # which a shell's background job and nohup would ignore
    main += "signal.signal(signal.SIGINT, signal.default_int_handler)\nsignal.signal(signal.SIGHUP, signal.SIG_DFL)\n"
    if gone is not None:
        main += f"server.GONE, server.LOOKS = {gone}, 1\n"
    options = ["console", "site.yml", "--mode", mode, "--port", str(port)]
    command = [sys.executable, "-c", f"{main}cli.main()", *options]
    own = {"IPYTHONDIR": f"{folder}/ipython", "JUPYTER_CONFIG_DIR": f"{folder}/config", "PYTHONUNBUFFERED": "1"}
    environment = {name: value for name, value in os.environ.items() if name != "RUNBOOK_RECORD"}
    process = subprocess.Popen(
        command, cwd=folder, env={**environment, **own}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    console = Console(process, folder, port)
    assert process.stdout is not None
    reading = threading.Thread(target=console.output.extend, args=(process.stdout,), daemon=True)
    reading.start()
    try:
        deadline = time.monotonic() + seconds
        while not _answers(port):
            assert process.poll() is None, "".join(console.output)
            assert time.monotonic() < deadline, "".join(console.output)
            time.sleep(0.05)
        yield console
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(60)
            finally:
                process.kill()
        reading.join(10)
        process.stdout.close()


def _answers(port: int) -> bool:
    """Whether it serves: that it listens is true before its loop runs, by which it would hear of a signal."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("GET", "/login")
        return connection.getresponse().status == http.client.OK
    except ConnectionRefusedError:
        return False
    finally:
        connection.close()
