"""Docker images and containers as steps (document 5.3, 7.1, 7.3, 8.2).

They need a Docker client from 1.11 on. An image comes from an archive of ours, as a closed network's must; a container
is compared with the wanted one field by field, and made anew only where one differs that Docker cannot change in place.
Volumes are the host's folders, so that the data outlives the container.

Where Docker is not installed or does not answer, both steps say what they would do *once Docker answers*, so that a
plan goes through before anything is there; to apply that fails, with nothing uploaded.

Sources: 'Image Tarball Specification' of Docker 1.10 (manifest.json; an image's id is the SHA-256 of its
configuration); the Engine API's 'Inspect a container'; `docker update --restart` (1.11).
"""

from __future__ import annotations

import hashlib
import json
import re
import shlex
import tarfile
import threading
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from runbook.errors import StepFailed
from runbook.remote.shell import Facts, facts, quote
from runbook.remote.steps import STEADY, Change, Step, Upload, artifact_path, before_after
from runbook.secrets import Secret

RECREATE = "recreate-container"
"""The gate before a container is stopped and made anew."""

ASK_DOCKER = """\
command -v docker >/dev/null 2>&1 || { echo 'silent=it is not installed'; exit 0; }
said=$(timeout 30 docker version 2>&1 >/dev/null) || {
  printf 'silent=%s\\n' "$(printf '%s\\n' "${said:-no answer within 30 s}" | tail -n 1)"; exit 0
}
"""
"""The sh text that ends a question where Docker does not answer, and tells why as `silent=`."""


def _silent(what: str, present: Facts, diff: str) -> Change | None:
    """The change that stands for what cannot be known, or made, as long as Docker does not answer."""
    if "silent" not in present:
        return None
    return Change(f"{what}, once Docker answers ({present['silent']})", diff)


_NO_DOCKER = "echo 'Docker does not answer here: chapter 5 installs and starts it' >&2; exit 1\n"


# images


def archived_id(file: Path, tag: str) -> str | None:
    """The id of the image with this tag in an archive of `docker save`; None where there is none. Raises StepFailed."""
    return archived(file).get(familiar(tag))


def archived(file: Path) -> Mapping[str, str]:
    """The images in an archive of `docker save` (from 1.10 on): their ids by tag, as Docker shortens it.

    Raises StepFailed where the file cannot be read, or is no such archive.
    """
    try:
        status = file.stat()
        with _reading:  # many hosts ask of the same archive
            return _archived(file, status.st_size, status.st_mtime_ns)
    except (OSError, EOFError, tarfile.TarError, zlib.error, LookupError, ValueError, TypeError) as error:
        told = error.strerror if isinstance(error, OSError) and error.strerror else "it is no archive of `docker save`"
        raise StepFailed(
            f"the images in {file} cannot be told: {told}", "make it anew with `runbook images save`"
        ) from error


@lru_cache(maxsize=64)
def _archived(file: Path, size: int, mtime_ns: int) -> Mapping[str, str]:
    small: dict[str, bytes] = {}
    # As a stream: to go back in a gzipped archive is to unpack it again.
    with tarfile.open(file, "r|*") as archive:
        for member in archive:
            content = archive.extractfile(member) if member.isreg() and member.size <= _SMALL else None
            if content is not None:
                small[member.name] = content.read()
    return {
        familiar(tag): f"sha256:{hashlib.sha256(small[image['Config']]).hexdigest()}"
        for image in json.loads(small["manifest.json"])
        for tag in image["RepoTags"] or ()
    }


_SMALL = 1 << 20
"""Bytes up to which a member of an archive may be a manifest or a configuration."""
_reading = threading.Lock()


def familiar(tag: str) -> str:
    """A tag without the name of Docker's own registry, which other tools write out."""
    return re.sub(r"^docker\.io/(library/)?", "", tag)


@dataclass(frozen=True)
class Image(Step):
    """An image under an explicit tag, loaded from an archive that `docker save` made.

    `file` and `sha256` are the archive's. It is loaded where the host has no image of this tag, or another one than
    the archive's, which then stays behind without a tag. With containerd's image store (Docker 29's own) an id is not
    the configuration's: there the tag alone is compared (moby/moby#45122). A loaded archive is removed from the host.
    """

    tag: str
    file: Path
    sha256: str

    def __post_init__(self) -> None:
        _, colon, version = self.tag.rpartition("/")[2].partition(":")
        if not colon or version in ("", "latest") or "@" in self.tag or self.tag.startswith("-"):
            raise ValueError(f"{self.tag!r} has no explicit tag: write NAME:TAG, and not `latest`")
        if not re.fullmatch("[0-9a-f]{64}", self.sha256):
            raise ValueError(f"{self.sha256!r} is not a SHA-256 in lower-case hex")

    @property
    def touches(self) -> frozenset[str]:
        return frozenset({f"image:{self.tag}", self._remote})

    @property
    def reads(self) -> frozenset[str]:
        # An archive may hold several images: the first of their steps loads them all.
        return frozenset({self._remote})

    @property
    def label(self) -> str:
        return f"image {self.tag}"

    @property
    def _remote(self) -> str:
        return artifact_path(self.sha256, self.file.name)

    def probe(self) -> str:
        remote = quote(self._remote)
        return (
            f"{ASK_DOCKER}image=$(docker inspect --type image -f '{{{{.Id}}}} {{{{json .RepoDigests}}}}' "
            f"{quote(self.tag)} 2>/dev/null) || image=\n"
            "printf 'image=%s\\n' \"$image\"\n"
            f"s=$(sha256sum 2>/dev/null < {remote}) || s=\n"
            f'if [ "${{s%% *}}" = {self.sha256} ]; then echo staged=yes; else echo staged=no; fi\n'
        )

    def plan(self, state: str, pending: frozenset[str] = frozenset()) -> Change | None:
        present, wanted = facts(state), archived_id(self.file, self.tag)
        if wanted is None:
            raise StepFailed(
                f"{self.file.name} holds {', '.join(archived(self.file)) or 'no image with a tag'}, and not {self.tag}",
                "save the image by this very tag (`runbook images save` does), or correct the parameters",
            )
        if later := _silent(f"load {self.file.name}", present, before_after({self.tag: ("unknown", wanted)})):
            return later
        found, _, digests = present["image"].partition(" ")
        if found and (found == wanted or by_tag_only(found, digests)):
            return None
        uploads = () if present["staged"] == "yes" else (Upload(self.file, self.sha256, self._remote),)
        summary = f"{'upload and load' if uploads else 'load'} {self.file.name}"
        if found:
            summary += ", in place of another image of this tag"
        if others := archived(self.file).keys() - {familiar(self.tag)}:
            summary += f"; it holds {', '.join(sorted(others))} as well"
        diff = before_after({self.tag: (found or "no such image", wanted)})
        return Change(summary, diff, actions=("load",), uploads=uploads)

    def script(self, change: Change) -> str:
        if not change.actions:
            return _NO_DOCKER
        remote, tag = quote(self._remote), quote(self.tag)
        return (
            f"set -e\ndocker load -i {remote}\n"
            f"docker inspect --type image {tag} >/dev/null 2>&1 || "
            f"{{ echo the archive was loaded, and there is no image {tag} >&2; exit 1; }}\n"
            f"rm -f {remote}\nrmdir {quote(self._remote.rpartition('/')[0])} 2>/dev/null || :\n"
        )


def by_tag_only(image_id: str, digests: str) -> bool:
    """Whether an image's id is a manifest's digest, as in containerd's image store, and so tells nothing of an archive.

    `digests` is the JSON of the image's RepoDigests: only there it holds the id.
    """
    return f"@{image_id}" in digests


# containers


@dataclass(frozen=True)
class Container(Step):
    """A container with this image, ports (host port -> container port, TCP), environment, volumes (host folder ->
    folder in it), restart policy and command, running.

    Compared are the image's tag and id, and of the environment the named variables only: an image brings others. A
    Secret among them is compared and set, and never shown; none comes into a command line. `command` empty means the
    image's own. A stopped container is started, and another restart policy set in place. Any other difference has it
    stopped and made anew behind `gate`; where the new one does not stay up, its last lines are told, and the earlier
    one is started again.
    """

    name: str
    image: str
    ports: Mapping[int, int] = field(default_factory=dict)
    environment: Mapping[str, str | Secret] = field(default_factory=dict)
    volumes: Mapping[str, str] = field(default_factory=dict)
    restart: str = "always"
    command: tuple[str, ...] = ()
    gate: str | None = None

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]+", self.name):
            raise ValueError(f"{self.name!r} is not the name of a container")
        for variable in self.environment:
            # They reach `docker run` through its own environment, which must not change what that does.
            if not re.fullmatch(r"[A-Za-z_]\w*", variable, re.ASCII) or re.match("PATH$|HOME$|LD_|DOCKER_", variable):
                raise ValueError(f"{variable!r} cannot be given to a container")

    @property
    def touches(self) -> frozenset[str]:
        return frozenset({f"container:{self.name}"})

    @property
    def reads(self) -> frozenset[str]:
        return frozenset({f"image:{self.image}"})

    @property
    def label(self) -> str:
        return f"container {self.name}"

    def probe(self) -> str:
        return (
            f"{ASK_DOCKER}image=$(docker inspect --type image -f '{{{{.Id}}}} {{{{json .Config.Cmd}}}}' "
            f"{quote(self.image)} 2>/dev/null) || image=\n"
            f"container=$(docker inspect --type container -f '{{{{json .}}}}' {quote(self.name)} 2>/dev/null) ||\n"
            "  container=\n"
            'printf \'image=%s\\ncontainer=%s\\n\' "$image" "$container"\n'
        )

    def plan(self, state: str, pending: frozenset[str] = frozenset()) -> Change | None:
        present = facts(state)
        if later := _silent("create and start", present, _added(self._wanted("", "null"))):
            return later
        image_id, _, command = present["image"].partition(" ")
        wanted = self._wanted(image_id, command or "null")
        when = "" if image_id else f", once there is an image {self.image}"
        inspected = self._inspected(present["container"])
        if inspected is None:
            return Change(f"create and start{when}", _added(wanted), actions=("create",))
        found = self._found(inspected, wanted)
        differences = {
            key: (found.get(key, "-"), wanted.get(key, "-"))
            for key in (*wanted, *(key for key in found if key not in wanted))
            if found.get(key) != wanted.get(key)
        }
        if differences.keys() - {"restart"}:
            return Change(
                f"replace{when}",
                before_after(differences),
                observed=inspected["Id"],
                actions=("replace",),
                gate=self.gate,
                consequence=self._consequence(inspected),
            )
        actions = ["update"] if differences else []
        status = inspected["State"]
        if status.get("Paused"):
            actions.append("unpause")
        elif not status["Running"] or status.get("Restarting"):
            actions.append("start")
        if {"start", "unpause"} & set(actions):
            differences["state"] = (status.get("Status") or "not running", "running")
        if not actions:
            return None
        summary = ", ".join("set the restart policy" if action == "update" else action for action in actions)
        return Change(summary, before_after(differences), observed=inspected["Id"], actions=tuple(actions))

    def script(self, change: Change) -> str:
        if not change.actions:
            return _NO_DOCKER
        name = quote(self.name)
        lines = ["set -e", _STEADY.format(name=name, rounds=int(STEADY * 5), tries=START_TRIES, loops=LOOPS)]
        if change.actions == ("create",):
            return "\n".join([*lines, self._demand_image(), self._run(), "up || { tell; exit 1; }", ""])
        lines.append(_COMPARE.format(name=name, observed=quote(change.observed)))
        if change.actions == ("replace",):
            replace = _REPLACE.format(name=name, old=quote(f"{self.name}.replaced"), policy=quote(_POLICY))
            run = f"{self._run()} && up || {{ tell || :; back; }}"
            return "\n".join([*lines, self._demand_image(), replace, run, _DONE])
        orders = {"update": f"docker update --restart {quote(self.restart)}"}
        lines += [f'{orders.get(action, f"docker {action}")} "$id" >/dev/null' for action in change.actions]
        return "\n".join([*lines, "up || { tell; exit 1; }", ""])

    def _demand_image(self) -> str:
        """Else `docker run` would try to pull it."""
        image = quote(self.image)
        return (
            f"docker inspect --type image {image} >/dev/null 2>&1 || "
            f"{{ echo there is no image {image} on this host: load its archive first >&2; exit 1; }}"
        )

    def _run(self) -> str:
        """The `docker run`. Values come from the shell's environment, so that no secret stands in a process list."""
        exports = [f"export {key}={quote(_reveal(value))}" for key, value in self.environment.items()]
        words = ["docker run -d", f"--name {quote(self.name)}", f"--restart {quote(self.restart)}"]
        words += [f"-p {host}:{inside}" for host, inside in self.ports.items()]
        words += [f"-e {key}" for key in self.environment]
        words += [f"-v {quote(f'{host}:{inside}')}" for host, inside in self.volumes.items()]
        words += [quote(self.image), *map(quote, self.command), ">/dev/null"]
        return "\n".join(["(", *exports, " ".join(words), ")"])  # its variables are none of the script's

    def _inspected(self, text: str) -> Mapping[str, Any] | None:
        """The container of this very name: `docker inspect` takes the beginning of an id as well."""
        inspected: Mapping[str, Any] | None = json.loads(text) if text else None
        return inspected if inspected and inspected["Name"] == f"/{self.name}" else None

    def _wanted(self, image_id: str, image_command: str) -> dict[str, str]:
        """What is wanted, by name; `image_command` is the JSON of the image's own command."""
        wanted = {"image": f"{self.image} {image_id}".rstrip(), "restart": self.restart}
        wanted |= {f"port {host}": f"{inside}/tcp" for host, inside in self.ports.items()}
        wanted |= {f"env {key}": _shown(value) for key, value in self.environment.items()}
        wanted |= {f"volume {_plain(host)}": _plain(inside) for host, inside in self.volumes.items()}
        if command := self.command or json.loads(image_command):
            wanted["command"] = shlex.join(command)
        return wanted

    def _found(self, inspected: Mapping[str, Any], wanted: Mapping[str, str]) -> dict[str, str]:
        """What there is, by the same names."""
        config, host = inspected["Config"], inspected["HostConfig"]
        found = {"image": f"{config['Image']} {inspected['Image']}", "restart": _policy(host["RestartPolicy"])}
        ports: dict[str, list[str]] = {}
        for inside, bindings in (host.get("PortBindings") or {}).items():
            for binding in bindings or ():
                only = f" on {binding['HostIp']} only" if binding.get("HostIp") not in (None, "", "0.0.0.0") else ""
                ports.setdefault(f"port {binding.get('HostPort') or 'any'}", []).append(f"{inside}{only}")
        found |= {port: ", ".join(sorted(insides)) for port, insides in ports.items()}
        variables = dict(one.split("=", 1) for one in config.get("Env") or () if "=" in one)
        for key, value in self.environment.items():
            if key in variables:
                same = variables[key] == _reveal(value)
                found[f"env {key}"] = _shown(value) if same else _hidden(value, variables[key])
        for bind in host.get("Binds") or ():
            outside, inside, *options = bind.split(":")
            read_only = " (read-only)" if "ro" in ",".join(options).split(",") else ""
            found[f"volume {_plain(outside)}"] = f"{_plain(inside)}{read_only}"
        for mount in host.get("Mounts") or ():
            found[f"volume {_plain(mount.get('Source', ''))}"] = _plain(mount["Target"])
        if "command" in wanted or config.get("Cmd"):
            found["command"] = shlex.join(config.get("Cmd") or ())
        return found

    def _consequence(self, inspected: Mapping[str, Any]) -> str:
        """What replacing it costs; data in volumes that have no folder of ours does not come along."""
        kept = {_plain(inside) for inside in self.volumes.values()}
        own = [one for one in inspected.get("Mounts") or () if one.get("Name") and one["Destination"] not in kept]
        left = "".join(f"; what is in its {one['Destination']} stays behind in volume {one['Name']}" for one in own)
        folders = f"what is in {', '.join(self.volumes)} is kept, " if self.volumes else ""
        return f"{self.name} is stopped and made anew: {folders}what it wrote elsewhere in itself is lost{left}"


START_TRIES = 50
"""How often a container that starts is looked at, 0.2 s apart, for one that runs steadily."""
LOOPS = 5
"""After so many restarts by Docker, which come ever later (0.1 s, 0.2 s, 0.4 s, …), a container counts as looping."""

_STEADY = """\
state() {{
  docker inspect --type container \\
    -f '{{{{.State.Running}}}} {{{{.State.Restarting}}}} {{{{.State.StartedAt}}}} {{{{.RestartCount}}}}' {name}
}}
steady() {{
  was=$(state) || return 1
  case $was in ('true false '*) ;; (*) return 1;; esac
  n=0
  while [ $n -lt {rounds} ]; do sleep 0.2; [ "$(state)" = "$was" ] || return 1; n=$((n+1)); done
}}
up() {{
  tries=0
  until steady; do
    case $was in ('false false '*) return 1;; esac
    [ $tries -lt {tries} ] && [ "${{was##* }}" -lt {loops} ] || return 1
    tries=$((tries+1)); sleep 0.2
  done
}}
tell() {{
  echo {name} does not stay up. Its last lines: >&2
  docker logs --tail 20 {name} >&2
}}"""
_COMPARE = """\
id=$(docker inspect --type container -f '{{{{.Id}}}}' {name})
[ "$id" = {observed} ] || {{ echo {name} is another container by now: look at it, then run again >&2; exit 1; }}"""
_POLICY = "{{with .HostConfig.RestartPolicy}}{{.Name}}{{with .MaximumRetryCount}}:{{.}}{{end}}{{end}}"
# A run that died in between leaves the earlier container under its other name, stopped: it was to be replaced. Its
# restart policy is taken from it, for with `always` a restart of Docker would start it beside the new one.
_REPLACE = """\
docker rm -f {old} >/dev/null 2>&1 || :
ran=$(docker inspect --type container -f '{{{{.State.Running}}}}' "$id")
policy=$(docker inspect --type container -f {policy} "$id")
back() {{
  docker rm -f {name} >/dev/null 2>&1 || :
  docker rename "$id" {name} && {{ [ "$ran" != true ] || docker start "$id" >/dev/null; }} &&
    docker update --restart "${{policy:-no}}" "$id" >/dev/null && echo the earlier container is back >&2
  exit 1
}}
docker stop "$id" >/dev/null
docker rename "$id" {old}
docker update --restart no "$id" >/dev/null || back"""
_DONE = 'docker rm "$id" >/dev/null\n'


def _policy(found: Mapping[str, Any]) -> str:
    """A restart policy as `docker run --restart` takes it."""
    name, count = found.get("Name") or "no", found.get("MaximumRetryCount") or 0
    return f"{name}:{count}" if name == "on-failure" and count else name


def _plain(path: str) -> str:
    return path.rstrip("/") or "/"


def _reveal(value: str | Secret) -> str:
    return value.reveal() if isinstance(value, Secret) else value


def _shown(value: str | Secret) -> str:
    return "(secret)" if isinstance(value, Secret) else value


def _hidden(wanted: str | Secret, found: str) -> str:
    return "(another secret)" if isinstance(wanted, Secret) else found


def _added(values: Mapping[str, str]) -> str:
    return "".join(f"+{key}: {value}\n" for key, value in values.items())
