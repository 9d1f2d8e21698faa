"""The Docker containerizer: images, containers named `mesos-<slave id>.<container id>`, and what is known of them."""

import json
import subprocess
from collections.abc import Mapping
from typing import Any

from .cluster import Task
from .flags import Flags

Json = dict[str, Any]
PREFIX = "mesos-"
LEAST_SHARES = 2
LEAST_MEMORY = 4 * 2**20  # bytes


class DockerError(Exception):
    """A docker command that failed; the message is for the task's status."""


class Docker:
    """The docker command of a slave (`--docker`, `--docker_socket`)."""

    def __init__(self, flags: Flags) -> None:
        self.command = [flags["docker"], "-H", f"unix://{flags['docker_socket']}"]
        self.mapped_sandbox = flags["sandbox_directory"]

    def ask(self, *words: str, seconds: float | None = None) -> str:
        """Standard output of a docker command; `DockerError` where it fails, TimeoutExpired after `seconds`."""
        argv = [*self.command, *words]
        shown = " ".join(argv)
        try:
            done = subprocess.run(
                argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=seconds, check=False
            )
        except OSError as error:
            raise DockerError(f"Failed to run '{shown}': {error}") from error
        if done.returncode:
            said = done.stderr.strip()
            raise DockerError(f"Failed to run '{shown}': exited with status {done.returncode}; stderr='{said}'")
        return done.stdout

    def check_version(self) -> None:
        """`DockerError` unless `docker --version` gives a version of plain numbers, as Mesos insists."""
        shown = self.ask("--version")
        version = shown.removeprefix("Docker version ").partition(",")[0].strip()
        for component in version.split("."):
            if not component.isdigit():
                raise DockerError(f"Failed to parse docker version: Invalid version component {component}")

    def provide(self, image: str, force: bool, seconds: float) -> None:
        """Have an image here, pulled where it is missing or `force` is set."""
        image = image if ":" in image.rpartition("/")[2] or "@" in image else f"{image}:latest"
        if not force:
            try:
                self.ask("inspect", image, seconds=seconds)
            except DockerError:
                pass  # not here yet
            else:
                return
        self.ask("pull", image, seconds=seconds)

    def run_command(self, name: str, task: Task, sandbox: str, environment: Mapping[str, str]) -> list[str]:
        """The `docker run` of a task, in the foreground."""
        info = task.info
        docker = info["container"]["docker"]
        command = info.get("command", {})
        network = docker.get("network", "HOST").lower()
        argv = [*self.command, "run", "--cpu-shares", str(max(LEAST_SHARES, int(1024 * task.resources.get("cpus"))))]
        argv += ["--memory", str(max(LEAST_MEMORY, int(task.resources.get("mem") * 2**20)))]
        if docker.get("privileged"):
            argv.append("--privileged")
        for key, value in environment.items():
            argv += ["-e", f"{key}={value}"]
        for volume in info["container"].get("volumes", []):
            argv += ["-v", _volume(volume, sandbox)]
        argv += ["-v", f"{sandbox}:{self.mapped_sandbox}", "--net", network]
        for mapping in docker.get("port_mappings", []):
            protocol = mapping.get("protocol", "tcp").lower()
            argv += ["-p", f"{mapping['host_port']}:{mapping['container_port']}/{protocol}"]
        for parameter in docker.get("parameters", []):
            argv.append(f"--{parameter['key']}={parameter['value']}")
        if "hostname" in info["container"]:
            argv += ["--hostname", info["container"]["hostname"]]
        shell = command.get("shell", True) and "value" in command
        if shell:
            argv += ["--entrypoint", "/bin/sh"]
        argv += ["--name", name, docker["image"]]
        if shell:
            return [*argv, "-c", command["value"]]
        return [*argv, *([command["value"]] if "value" in command else []), *command.get("arguments", [])]

    def running(self, name: str) -> tuple[str, str | None] | None:
        """`docker inspect` of a container that runs, and its address on the bridge; None while it does not run."""
        try:
            shown = self.ask("inspect", name)
        except DockerError:
            return None
        found = json.loads(shown)[0]
        if not found["State"]["Running"]:
            return None
        return shown, found["NetworkSettings"].get("IPAddress") or None

    def containers(self) -> list[str]:
        """The names of all containers that a slave made, running or not."""
        return self.ask("ps", "-a", "--filter", f"name=^/?{PREFIX}", "--format", "{{.Names}}").split()

    def remove(self, name: str) -> None:
        self.ask("rm", "-f", "-v", name)


def _volume(volume: Json, sandbox: str) -> str:
    mode = volume.get("mode", "RW").lower()
    if "host_path" not in volume:
        return f"{volume['container_path']}:{mode}"
    host = volume["host_path"]
    if not host.startswith("/"):
        host = f"{sandbox}/{host}"
    return f"{host}:{volume['container_path']}:{mode}"
