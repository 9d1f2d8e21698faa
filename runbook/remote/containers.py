"""Docker images and containers as steps (document 5.3, 7.1, 7.3, 8.2).

They need a Docker client from 1.11 on. An image comes from an archive of ours, as a closed network's must; a container
is compared with the wanted one field by field, and made anew only where one differs that Docker cannot change in place.
Volumes are the host's folders, so that the data outlives the container.

The document runs containers without a name (8.2), which Docker then gives a random one. So a container that publishes
the wanted port is looked for, too: one of the same image is renamed and compared like any other; any other holder of
the port is named, and nothing is changed.

Where Docker is not installed or does not answer, both steps say what they would do *once Docker answers*, so that a
plan goes through before anything is there; to apply that fails, with nothing uploaded.

Sources: 'Image Tarball Specification' of Docker 1.10 (manifest.json; an image's id is the SHA-256 of its
configuration); the Engine API's 'Inspect a container'; `docker update --restart` (1.11).
"""

from __future__ import annotations

import base64
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
from typing import Any, ClassVar

from runbook.errors import StepFailed
from runbook.remote.probes import INSPECT_EACH, LISTENERS, Listener, listeners, values
from runbook.remote.shell import Facts, facts, quote
from runbook.remote.steps import STEADY, Change, Step, Upload, artifact_path, before_after
from runbook.remote.unasked import Asked, Daemon, Pair, differences, variables
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


# what publishes a port

_PUBLISHED = (
    INSPECT_EACH
    + """\
ids=$(timeout 30 docker ps -q --no-trunc 2>/dev/null) || ids=''
template='published={{.Id}} {{.Name}} {{.Config.Image}}{{range $inside, $bound := .HostConfig.PortBindings}}\
{{range $bound}} {{.HostPort}}/{{$inside}}{{end}}{{end}}{{range $inside, $bound := .NetworkSettings.Ports}}\
{{range $bound}} {{.HostPort}}/{{$inside}}{{end}}{{end}} '
published=$(inspect_each "$template" $ids)
"""
)
PUBLISHED = _PUBLISHED + "printf '%s\\n' \"$published\"\n"
"""Prints a line `published=ID /NAME IMAGE PORT/INSIDE…` for each container that runs; see `Published`."""


@dataclass(frozen=True)
class Published:
    """A running container and the TCP ports of the host that lead to it."""

    id: str
    name: str
    image: str
    ports: frozenset[int]

    def __str__(self) -> str:
        return f"the container {self.name} ({self.image})"

    @property
    def is_task(self) -> bool:
        """Whether a slave of Mesos runs it, which names it so and looks after it."""
        return self.name.startswith("mesos-")

    def same_image(self, tag: str, image_id: str = "", own_id: str = "") -> bool:
        """Whether its image is the one of this tag, if of another version, or has the same id."""
        return repository(self.image) == repository(tag) or bool(own_id and own_id == image_id)


def published(output: str) -> tuple[Published, ...]:
    """The containers that PUBLISHED printed."""
    found = []
    for line in values(output, "published"):
        container, name, image, *bound = line.split()
        ports = frozenset(
            int(port) for port, inside, kind in (one.split("/") for one in bound) if port and kind == "tcp"
        )
        found.append(Published(container, name.removeprefix("/"), image, ports))
    return tuple(found)


def repository(tag: str) -> str:
    """An image's name without its version."""
    name = familiar(tag).partition("@")[0]
    head, slash, last = name.rpartition("/")
    return f"{head}{slash}{last.partition(':')[0]}"


def way_out(holder: Published) -> str:
    """What to do about a container of another image that publishes a wanted port."""
    if holder.is_task:
        return (
            "restart its app in Marathon: its ports come out of the slaves' range, which must leave this one out (3.3)"
        )
    return (
        f"stop it (docker stop {holder.name}) or publish it at another port; or choose another port in the parameters"
    )


# containers


@dataclass(frozen=True)
class Container(Step):
    """A container with this image, ports (host port -> container port, TCP), environment, volumes (host folder ->
    folder in it), restart policy and command, running.

    Compared is all that `docker inspect` shows: the image's tag and id, what is named here, and what is not asked for
    (limits, capabilities, namespaces, variables that are not the image's; see `unasked`). A Secret among the variables
    is compared and set, and never shown; none comes into a command line. `command` empty means the image's own.

    A stopped container is started, and another restart policy set in place. Any other difference has it stopped and
    replaced behind `gate`; where the new one does not stay up, its last lines are shown, and the earlier one is started
    again. Where no container of the name runs, and one of the same image under another name publishes a wanted port,
    that one is renamed and compared. Where something else has the port, StepFailed names it. A container that cannot be
    started is removed again.
    """

    name: str
    image: str
    ports: Mapping[int, int] = field(default_factory=dict)
    environment: Mapping[str, str | Secret] = field(default_factory=dict)
    volumes: Mapping[str, str] = field(default_factory=dict)
    restart: str = "always"
    command: tuple[str, ...] = ()
    gate: str | None = None

    SHOWN: ClassVar[frozenset[str]] = frozenset()
    """Variables that are no secret: where one is set that is not wanted, its value is shown."""

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]+", self.name):
            raise ValueError(f"{self.name!r} is not the name of a container")
        for variable in self.environment:
            # They reach `docker create` through its own environment, which must not change what that does.
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
        ports = " ".join(map(str, self.ports))
        found = "|".join(map(str, self.ports)) or "none"
        return (
            ASK_DOCKER
            + _PUBLISHED
            + _PROBE.format(
                image=quote(self.image), name=quote(self.name), ports=ports, found=found, listeners=LISTENERS
            )
        )

    def plan(self, state: str, pending: frozenset[str] = frozenset()) -> Change | None:
        present = facts(state)
        if later := _silent("create and start", present, _added(self._wanted("", {}))):
            return later
        image_id, _, config = present.get("image", "").partition(" ")
        image = _loaded(config)
        wanted = self._wanted(image_id, image)
        when = "" if image_id else f", once there is an image {self.image}"
        inspected = self._inspected(present.get("container", ""))
        holder = self._holder(state, inspected, image_id)
        if holder is None and inspected is None:
            return Change(f"create and start{when}", _added(wanted), actions=("create",))
        clears = holder is not None and inspected is not None
        inspected = holder or inspected
        assert inspected is not None
        name = inspected["Name"].removeprefix("/")
        found = self._found(inspected, wanted)
        pairs: dict[str, Pair] = {} if holder is None else {"name": (name, self.name)}
        pairs |= {
            key: (found.get(key, "-"), wanted.get(key, "-"))
            for key in (*wanted, *(key for key in found if key not in wanted))
            if found.get(key) != wanted.get(key)
        }
        asked = Asked(frozenset(self.environment), self.SHOWN)
        images = {image_id: image} | dict(map(_of_image, _lines(state, "own")))
        pairs |= differences(inspected, images.get(inspected["Image"]), asked, _daemon(state))
        where = "" if holder is None else f" {name}, which publishes {self._at()}"
        taking = [*(["clear"] if clears else []), *(["rename"] if holder is not None else [])]
        if pairs.keys() - {"restart", "name"}:
            return Change(
                f"replace{where}{when}",
                before_after(pairs),
                observed=inspected["Id"],
                actions=(*taking, "replace"),
                gate=self.gate,
                consequence=self._consequence(inspected),
            )
        actions = taking
        if "restart" in pairs:
            actions.append("update")
        status = inspected["State"]
        if status.get("Paused"):
            actions.append("unpause")
        elif not status["Running"] or status.get("Restarting"):
            actions.append("start")
        if {"start", "unpause"} & set(actions):
            pairs["state"] = (status.get("Status") or "not running", "running")
        if not actions:
            return None
        words = {"update": "set the restart policy", "rename": f"take over{where}", "clear": ""}
        summary = ", ".join(filter(None, (words.get(action, action) for action in actions)))
        return Change(summary, before_after(pairs), observed=inspected["Id"], actions=tuple(actions))

    def script(self, change: Change) -> str:
        if not change.actions:
            return _NO_DOCKER
        name, actions = quote(self.name), change.actions
        lines = ["set -e", _STEADY.format(name=name, rounds=int(STEADY * 5), tries=START_TRIES, loops=LOOPS)]
        if actions == ("create",):
            return "\n".join([*lines, self._demand_image(), self._run(), "up || { tell; exit 1; }", ""])
        compare = _COMPARE_HOLDER if "rename" in actions else _COMPARE
        lines.append(compare.format(name=name, observed=quote(change.observed)))
        if "clear" in actions:  # it never ran: nothing is in it
            lines.append(f"docker rm {name} >/dev/null")
        if actions[-1] == "replace":
            replace = _REPLACE.format(name=name, old=quote(f"{self.name}.replaced"), policy=quote(_POLICY))
            run = f"{self._run('back')}\nup || {{ tell || :; back; }}"
            return "\n".join([*lines, self._demand_image(), replace, run, _DONE])
        orders = {
            "rename": f'docker rename "$id" {name}',
            "update": f'docker update --restart {quote(self.restart)} "$id"',
        }
        lines += [
            f'{orders.get(action, f"""docker {action} "$id" """).rstrip()} >/dev/null'
            for action in actions
            if action != "clear"
        ]
        return "\n".join([*lines, "up || { tell; exit 1; }", ""])

    def _demand_image(self) -> str:
        """Else `docker create` would try to pull it."""
        image = quote(self.image)
        return (
            f"docker inspect --type image {image} >/dev/null 2>&1 || "
            f"{{ echo there is no image {image} on this host: load its archive first >&2; exit 1; }}"
        )

    def _run(self, otherwise: str = "exit 1") -> str:
        """What `docker run -d` does, in two steps, so that a container that cannot be started can be removed by its id;
        then `otherwise`. Values come from the shell's environment, so that no secret stands in a process list."""
        exports = [f"export {key}={quote(_reveal(value))}" for key, value in self.environment.items()]
        words = ["docker create", f"--name {quote(self.name)}", f"--restart {quote(self.restart)}"]
        words += [f"-p {host}:{inside}" for host, inside in self.ports.items()]
        words += [f"-e {key}" for key in self.environment]
        words += [f"-v {quote(f'{host}:{inside}')}" for host, inside in self.volumes.items()]
        words += [quote(self.image), *map(quote, self.command)]
        created = "\n".join(["create() {", *exports, " ".join(words), "}"])
        return f"{created}\n{_START.format(otherwise=otherwise)}"

    def _inspected(self, text: str) -> Mapping[str, Any] | None:
        """The container of this very name: `docker inspect` takes the beginning of an id as well."""
        inspected: Mapping[str, Any] = json.loads(text) if text else {}
        return inspected if inspected.get("Name") == f"/{self.name}" else None

    def _at(self) -> str:
        return f"port {', '.join(map(str, self.ports))}"

    def _holder(self, state: str, own: Mapping[str, Any] | None, image_id: str) -> Mapping[str, Any] | None:
        """The container of the same image that has a wanted port under another name, to be taken over; None where no
        one has it but the container of the name. Raises StepFailed where it is not to be taken."""
        inspected: dict[str, dict[str, Any]] = {one["Id"]: one for one in map(json.loads, _lines(state, "holder"))}
        others = [one for one in inspected.values() if one["Name"] != f"/{self.name}"]
        if not others:
            self._refuse_strangers(state)
            return None
        if len(others) > 1:
            names = ", ".join(one["Name"].removeprefix("/") for one in others)
            raise StepFailed(f"the containers {names} have the ports {self._at()}", "stop those that are not wanted")
        (other,) = others
        holder = Published(
            other["Id"], other["Name"].removeprefix("/"), other["Config"]["Image"], frozenset(self.ports)
        )
        if holder.is_task or not holder.same_image(self.image, image_id, other["Image"]):
            why = "a task of Mesos" if holder.is_task else f"which is not of the image {self.image}"
            raise StepFailed(f"{self._at()} is held by {holder}, {why}", way_out(holder))
        if own is not None and (own["State"].get("Status") != "created" or own["State"].get("Running")):
            raise StepFailed(
                f"{self._at()} is held by {holder}, while the container {self.name} exists as well",
                f"keep one of them: remove {self.name} (docker rm {self.name}), and the next run takes over the other; "
                f"or stop the other (docker stop {holder.name})",
            )
        return other

    def _refuse_strangers(self, state: str) -> None:
        """Raise StepFailed where a process that belongs to no container listens at a wanted port."""
        held: tuple[Listener, ...] = tuple(one for one in listeners(state) or () if one.port in self.ports)
        if held:
            holders = "; ".join(f"port {one.port} is held by {one}" for one in held)
            raise StepFailed(
                f"{holders}, which belongs to no container that runs",
                "stop what holds it (a docker-proxy without a container: restart docker), or choose another port in "
                "the parameters",
            )

    def _wanted(self, image_id: str, image: Mapping[str, Any]) -> dict[str, str]:
        """What is wanted, by name; `image` is the image's `Config`."""
        wanted = {"image": f"{self.image} {image_id}".rstrip(), "restart": self.restart}
        wanted |= {f"port {host}": f"{inside}/tcp" for host, inside in self.ports.items()}
        wanted |= {f"env {key}": _shown(value) for key, value in self.environment.items()}
        wanted |= {f"volume {_plain(host)}": _plain(inside) for host, inside in self.volumes.items()}
        if command := self.command or image.get("Cmd"):
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
        present = variables(config)
        for key, value in self.environment.items():
            if key in present:
                same = present[key] == _reveal(value)
                found[f"env {key}"] = _shown(value) if same else _hidden(value, present[key])
        for bind in host.get("Binds") or ():
            outside, inside, *options = bind.split(":")
            given = ",".join(options).split(",")
            others = [option for option in given if option not in ("", "rw", "ro", "z", "Z", "rprivate")]
            extra = ["read-only"] * ("ro" in given) + others
            found[f"volume {_plain(outside)}"] = _plain(inside) + (f" ({', '.join(extra)})" if extra else "")
        for mount in host.get("Mounts") or ():
            source = mount.get("Source") or mount.get("Type") or "anonymous"
            read_only = " (read-only)" if mount.get("ReadOnly") else ""
            found[f"volume {_plain(source)}"] = f"{_plain(mount['Target'])}{read_only}"
        if "command" in wanted or config.get("Cmd"):
            found["command"] = shlex.join(config.get("Cmd") or ())
        return found

    def _consequence(self, inspected: Mapping[str, Any]) -> str:
        """What replacing it costs; data in volumes that have no folder of ours does not come along."""
        kept = {_plain(inside) for inside in self.volumes.values()}
        own = [
            one
            for one in inspected.get("Mounts") or ()
            if one["Destination"] not in kept and (one.get("Name") or one.get("Source") not in self.volumes)
        ]
        left = "".join(
            f"; what is in its {one['Destination']} stays behind in "
            + (f"volume {one['Name']}" if one.get("Name") else str(one.get("Source")))
            for one in own
        )
        folders = f"what is in {', '.join(self.volumes)} is kept, " if self.volumes else ""
        name = inspected["Name"].removeprefix("/")
        return f"{name} is stopped and made anew: {folders}what it wrote elsewhere in itself is lost{left}"


# What is asked only where the container of the name does not run with its ports: who else has them. A process of a
# container that shares the host's network is known by its cgroup.
_PROBE = """\
config() {{ docker inspect --type image -f '{{{{.Id}}}} {{{{json .Config}}}}' "$1" 2>/dev/null; }}
whole() {{
  shown=$(docker inspect --type container -f '{{{{.Image}}}} {{{{json .}}}}' "$2" 2>/dev/null) || return 0
  printf '%s=%s\\n' "$1" "${{shown#* }}"
  case $image in ("${{shown%% *}} "*) ;; (*) printf 'own=%s\\n' "$(config "${{shown%% *}}")";; esac
}}
image=$(config {image}) || image=''
printf 'image=%s\\n' "$image"
timeout 30 docker info 2>/dev/null | sed -n 's/^ *Logging Driver: /log_driver=/p; s/^ *Default Runtime: /runtime=/p'
pid=$(cat /var/run/docker.pid 2>/dev/null) || pid=none
text=$({{ cat /etc/docker/daemon.json; tr '\\0' ' ' < "/proc/$pid/cmdline"; }} 2>/dev/null | base64 | tr -d '\\n')
printf 'daemon=%s\\n' "$text"
grep -q '"proxies"' "${{DOCKER_CONFIG:-${{HOME:-/root}}/.docker}}/config.json" 2>/dev/null && echo proxies=yes
whole container {name}
name={name} missing='' known=''
for port in {ports}; do
  printf '%s\\n' "$published" | grep -q "^published=[^ ]* /$name .* $port/[0-9]*/tcp " || missing=yes
done
[ -n "$missing" ] || exit 0
for port in {ports}; do
  for id in $(printf '%s\\n' "$published" | sed -n "s|^published=\\([^ ]*\\) .* $port/[0-9]*/tcp .*|\\1|p"); do
    whole holder "$id"; known="$known $port "
  done
done
{{
{listeners}
}} | grep -E '^listen=({found}) ' | while read -r line; do
  port=${{line#listen=}}; port=${{port%% *}}
  case $known in (*" $port "*) continue;; esac
  pid=${{line#* }}; pid=${{pid%% *}}
  id=$(sed -n 's|.*docker[-/]\\([0-9a-f]\\{{64\\}}\\).*|\\1|p' "/proc/$pid/cgroup" 2>/dev/null | head -n 1)
  of=$(whole holder "${{id:-none}}")
  printf '%s\\n' "${{of:-$line}}"
done
:
"""


def _lines(state: str, key: str) -> tuple[str, ...]:
    """The JSON after `key=`, in which only a newline ends a line."""
    return tuple(line.removeprefix(f"{key}=") for line in state.split("\n") if line.startswith(f"{key}="))


def _loaded(config: str) -> Mapping[str, Any]:
    found = json.loads(config) if config else None
    return found if isinstance(found, dict) else {}


def _of_image(line: str) -> tuple[str, Mapping[str, Any]]:
    """The id and the `Config` of an image."""
    image_id, _, config = line.partition(" ")
    return image_id, _loaded(config)


def _daemon(state: str) -> Daemon:
    found = facts(state)
    return Daemon(
        found.get("log_driver", "json-file"),
        found.get("runtime", "runc"),
        base64.b64decode(found.get("daemon", "")).decode("utf-8", "replace"),
        "proxies" in found,
    )


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
_START = """\
made=$(create) || {otherwise}
docker start "$made" >/dev/null || {{ docker rm -f "$made" >/dev/null; {otherwise}; }}"""
_COMPARE_HOLDER = """\
id={observed}
docker inspect --type container "$id" >/dev/null 2>&1 || {{
  echo the container that was to become {name} is gone: run again >&2; exit 1
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
called=$(docker inspect --type container -f '{{{{.Name}}}}' "$id")
back() {{
  [ -z "$made" ] || docker rm -f "$made" >/dev/null 2>&1 || :
  docker rename "$id" "${{called#/}}" && {{ [ "$ran" != true ] || docker start "$id" >/dev/null; }} &&
    docker update --restart "${{policy:-no}}" "$id" >/dev/null && echo the earlier container is back >&2
  exit 1
}}
made=''
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
