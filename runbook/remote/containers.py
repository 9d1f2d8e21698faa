"""Docker images and containers as steps (document 5.3, 7.1, 7.3, 8.2).

They need a Docker client from 1.11 on. An image comes from an archive of ours, as a closed network's must; a
container is compared with the wanted one field by field, and made anew only where one differs. Volumes are the
host's folders, so that the data outlives the container.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from runbook.errors import StepFailed
from runbook.remote.shell import facts, quote
from runbook.remote.steps import Change, Step, Upload, artifact_path, before_after
from runbook.secrets import Secret


@dataclass(frozen=True)
class Image(Step):
    """An image under an explicit tag, loaded from an archive that `docker save` made, where the host has none yet.

    `file` and `sha256` are the archive's. The archive must hold the tag, or the step fails after the load.
    """

    tag: str
    file: Path
    sha256: str

    @property
    def touches(self) -> frozenset[str]:
        return frozenset({f"image:{self.tag}"})

    @property
    def label(self) -> str:
        return f"image {self.tag}"

    @property
    def _remote(self) -> str:
        return artifact_path(self.sha256, self.file.name)

    def probe(self) -> str:
        remote = quote(self._remote)
        return (
            "docker version >/dev/null || exit 1\n"
            f"id=$(docker inspect --type image -f '{{{{.Id}}}}' {quote(self.tag)} 2>/dev/null) || id=\n"
            'echo "id=$id"\nif [ -z "$id" ]; then\n'
            f"  s=$(sha256sum < {remote} 2>/dev/null) || s=\n"
            f'  if [ "${{s%% *}}" = {self.sha256} ]; then echo staged=yes; else echo staged=no; fi\nfi\n'
        )

    def plan(self, state: str, pending: frozenset[str] = frozenset()) -> Change | None:
        present = facts(state)
        if present["id"]:
            return None
        uploads = () if present["staged"] == "yes" else (Upload(self.file, self.sha256, self._remote),)
        summary = f"upload and load {self.file.name}" if uploads else f"load {self.file.name}"
        return Change(summary, before_after({self.tag: ("no such image", "loaded")}), uploads=uploads)

    def script(self, change: Change) -> str:
        tag = quote(self.tag)
        return (
            f"set -e\ndocker load -i {quote(self._remote)}\n"
            f"docker inspect --type image {tag} >/dev/null 2>&1 || "
            f"{{ echo the archive holds no image {tag} >&2; exit 1; }}\n"
        )


@dataclass(frozen=True)
class Container(Step):
    """A container with this image, ports (host port -> container port), environment, volumes (host folder -> folder
    in it) and restart policy, running.

    Only the variables named in `environment` are compared: an image brings others. A Secret among them is compared and
    set, and never shown. `command` empty leaves the image's own. A container that differs is removed and made anew;
    `gate` names the approval which that needs.
    """

    name: str
    image: str
    ports: Mapping[int, int] = field(default_factory=dict)
    environment: Mapping[str, str | Secret] = field(default_factory=dict)
    volumes: Mapping[str, str] = field(default_factory=dict)
    restart: str = "always"
    command: tuple[str, ...] = ()
    gate: str | None = None

    @property
    def reads(self) -> frozenset[str]:
        return frozenset({f"image:{self.image}"})

    @property
    def label(self) -> str:
        return f"container {self.name}"

    def probe(self) -> str:
        return (
            "docker version >/dev/null || exit 1\n"
            f"image=$(docker inspect --type image -f '{{{{.Id}}}}' {quote(self.image)} 2>/dev/null) || image=\n"
            f"container=$(docker inspect --type container -f '{{{{json .}}}}' {quote(self.name)} 2>/dev/null) ||\n"
            "  container=\n"
            'printf \'image=%s\\ncontainer=%s\\n\' "$image" "$container"\n'
        )

    def plan(self, state: str, pending: frozenset[str] = frozenset()) -> Change | None:
        present = facts(state)
        if not present["image"]:
            raise StepFailed(f"there is no image {self.image} for {self.name}", "load it first (docker images)")
        wanted = self._wanted(present["image"])
        if not present["container"]:
            return Change("create and start", _lines("+", wanted), actions=("create",))
        inspected = json.loads(present["container"])
        found = self._found(inspected)
        differences = {key: (found.get(key, "-"), value) for key, value in wanted.items() if found.get(key) != value}
        differences |= {key: (value, "-") for key, value in found.items() if key not in wanted}
        running = bool(inspected["State"]["Running"]) and not inspected["State"].get("Restarting", False)
        if not differences and running:
            return None
        if not differences:
            diff = before_after({"state": (inspected["State"].get("Status", "not running"), "running")})
            return Change("start", diff, actions=("start",))
        return Change(
            "replace",
            before_after(differences),
            observed=inspected["Id"],
            actions=("replace",),
            gate=self.gate,
            consequence=f"the container {self.name} is stopped, removed and made anew; its volumes stay",
        )

    def script(self, change: Change) -> str:
        name = quote(self.name)
        if "start" in change.actions:
            return f"set -e\ndocker start {name}\n{self._steady()}"
        lines = ["set -e"]
        if "replace" in change.actions:
            lines += [
                f"id=$(docker inspect --type container -f '{{{{.Id}}}}' {name})",
                f'[ "$id" = {quote(change.observed)} ] || {{ echo {name} is another container by now >&2; exit 1; }}',
                f"docker stop {name}",
                f"docker rm {name}",
            ]
        # Values come from the shell's environment, so that no secret stands in a process list.
        lines += [f"export {key}={quote(_reveal(value))}" for key, value in self.environment.items()]
        words = ["docker run -d", f"--name {name}", f"--restart {quote(self.restart)}"]
        words += [f"-p {host}:{inside}" for host, inside in self.ports.items()]
        words += [f"-e {quote(key)}" for key in self.environment]
        words += [f"-v {quote(f'{host}:{inside}')}" for host, inside in self.volumes.items()]
        words += [quote(self.image), *map(quote, self.command)]
        return "\n".join([*lines, " ".join(words), self._steady()])

    def _steady(self) -> str:
        name = quote(self.name)
        return (
            f"sleep 1\n[ \"$(docker inspect --type container -f '{{{{.State.Running}}}}' {name})\" = true ] || "
            f"{{ docker logs --tail 20 {name} >&2; exit 1; }}\n"
        )

    def _wanted(self, image_id: str) -> dict[str, str]:
        wanted = {"image": f"{self.image} {image_id}", "restart": self.restart}
        wanted |= {f"port {host}": f"{inside}/tcp" for host, inside in self.ports.items()}
        wanted |= {f"env {key}": _shown(value) for key, value in self.environment.items()}
        wanted |= {f"volume {host}": inside for host, inside in self.volumes.items()}
        if self.command:
            wanted["command"] = " ".join(self.command)
        return wanted

    def _found(self, inspected: Mapping[str, Any]) -> dict[str, str]:
        config, host = inspected["Config"], inspected["HostConfig"]
        found = {"image": f"{config['Image']} {inspected['Image']}", "restart": host["RestartPolicy"]["Name"] or "no"}
        for inside, bindings in (host.get("PortBindings") or {}).items():
            found |= {f"port {binding['HostPort']}": inside for binding in bindings}
        variables = dict(one.split("=", 1) for one in config.get("Env") or [] if "=" in one)
        for key, value in self.environment.items():
            if key in variables:
                same = variables[key] == _reveal(value)
                found[f"env {key}"] = _shown(value) if same else _hidden(value, variables[key])
        for bind in host.get("Binds") or []:
            outside, inside, *_ = bind.split(":")
            found[f"volume {outside}"] = inside
        if self.command:
            found["command"] = " ".join(config.get("Cmd") or [])
        return found


def _reveal(value: str | Secret) -> str:
    return value.reveal() if isinstance(value, Secret) else value


def _shown(value: str | Secret) -> str:
    return "(secret)" if isinstance(value, Secret) else value


def _hidden(wanted: str | Secret, found: str) -> str:
    return "(another secret)" if isinstance(wanted, Secret) else found


def _lines(sign: str, values: Mapping[str, str]) -> str:
    return "".join(f"{sign}{key}: {value}\n" for key, value in values.items())

