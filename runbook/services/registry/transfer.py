"""Images between Docker hosts and the registry (document 7.4): pushed, removed, pulled back, pulled elsewhere.

No host is left logged in: where the registry asks for a user, the client of one script gets a configuration of its own
in a folder that goes with the script. Names that a host did not have before are taken away again; the registry keeps
the image, as in the document. A name that means another image already, there or on the host, is left alone.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from runbook.errors import NotFound, RepositoryUnknown, ServiceError
from runbook.remote.checks import Evidence
from runbook.remote.hosts import Hosts, Output
from runbook.remote.modes import Mode
from runbook.remote.probes import values
from runbook.remote.shell import facts, heredoc, quote
from runbook.services.registry import diagnose
from runbook.services.registry.client import Registry
from runbook.services.registry.manifests import Manifest
from runbook.services.registry.steps import credentials
from runbook.site import Site
from runbook.wording import plural, size

USERLAND = "userland"
"""The key under `images` of the image that is pushed where there is one; else the smallest archive's."""
NOBODY = "runbook/no-such-image:none"
"""A name that no registry has: to pull it changes nothing, and shows whether the registry is reached and trusted."""
PATIENCE = 240.0
"""Seconds that a push and a pull may take."""

COLUMNS = ["step", "host", "what was seen"]
_DIGEST = re.compile(r"\b(?:d|D)igest: (sha256:[0-9a-f]{64})")


@dataclass(frozen=True)
class Tried:
    """One command of Docker's client on a host: its exit status, and what it printed."""

    name: str
    status: int
    said: str

    @property
    def digest(self) -> str:
        """The digest that a push or a pull ends with; empty where it names none."""
        found = _DIGEST.findall(self.said)
        return found[-1] if found else ""

    @property
    def last(self) -> str:
        """The last line."""
        return self.said.strip().rpartition("\n")[2]


def subject(site: Site) -> str | None:
    """The tag of the image that makes the round trip: the userland's, or that of the smallest archive."""
    images = site.images
    if USERLAND in images:
        return images[USERLAND].tag
    sizes = {image.tag: image.file.stat().st_size for image in images.values() if image.file.is_file()}
    return min(sizes, key=sizes.__getitem__) if sizes else None


def named(address: str, tag: str) -> str:
    """The name under which an image is in the registry: `HOST:PORT/NAME:TAG`, without another registry's name."""
    first, slash, rest = tag.partition("/")
    return f"{address}/{rest if slash and re.search('[.:]', first) else tag}"


# what is read only


def reached(hosts: Hosts) -> Evidence:
    """7.2: whether every Docker host reaches the registry and trusts it, by what its Docker says to the pull of an
    image that there is not. Changes nothing."""
    site = hosts.site
    address = site.registry_address or ""
    members = hosts.having("docker")
    script = _asking(site, [("pull", f"docker pull {quote(f'{address}/{NOBODY}')}")])
    rows, remedies, tried = [], dict[str, None](), False
    for host, output in members.run(script, deadline=PATIENCE).items():
        good, text, remedy = _reached(output)
        tried |= bool(_tried(output))
        rows.append((host, "✓ yes" if good else "✗ no", text))
        if remedy and not good:
            remedies[remedy] = None
    table = pd.DataFrame(rows, columns=["host", f"reaches {address}", "what its Docker says"])
    bad = [host for host, mark, _ in rows if mark.startswith("✗")]
    text = f"{', '.join(bad)}: see the table" if bad else plural(len(rows), "host")
    return Evidence(not bad, text, table, "; ".join(remedies) or None, tried=tried)


def _reached(output: Output) -> tuple[bool, str, str | None]:
    tried = _tried(output)
    if not tried:
        return False, _silence(output), "see that the host is up and that Docker runs there"
    said = tried[-1].said
    if diagnose.explain(said) is None and diagnose.ABSENT.search(said):
        return True, tried[-1].last, None
    text, remedy = diagnose.why(said)
    return False, text, remedy


def stored(hosts: Hosts) -> Evidence:
    """7.4: whether the round trip's image is in the registry, and whole on its disk. Changes nothing."""
    site = hosts.site
    tag, address = subject(site), site.registry_address
    if tag is None or address is None:
        return Evidence(False, "the parameters have no image", remedy="add one under images", hopeless=True)
    repository, _, version = named("", tag).removeprefix("/").rpartition(":")
    with Registry.of(site) as registry:
        try:
            manifest = registry.manifest(repository, version)
        except NotFound as error:
            return Evidence(False, error.message, remedy="run this in mode apply: it pushes the image", hopeless=True)
    (row, good), *_ = on_disk(hosts, manifest, version)
    table = pd.DataFrame([row], columns=COLUMNS)
    return Evidence(good, f"{repository}:{version} is {manifest.digest[:19]}…, {row[2]}", table, _DISK)


_DISK = "see the disk of the registry's host; push the image again"


def on_disk(hosts: Hosts, manifest: Manifest, tag: str) -> Iterator[tuple[tuple[str, str, str], bool]]:
    """7.4.6: whether the registry's folder on its host holds a tag and every blob behind it, each with its digest."""
    site = hosts.site
    digests = list(dict.fromkeys((manifest.digest, *(blob.digest for blob in manifest.blobs if not blob.urls))))
    script = _ON_DISK.format(
        folder=quote(f"{site.registry.data_dir}/docker/registry/v2"),
        link=quote(f"repositories/{manifest.repository}/_manifests/tags/{tag}/current/link"),
        hexes=" ".join(digest.partition(":")[2] for digest in digests),
    )
    for host, output in hosts.having("registry").run(script, deadline=PATIENCE).items():
        link = "".join(values(output.stdout, "link"))
        whole = [line.split(" ") for line in values(output.stdout, "blob")]
        wrong = [hex_ for hex_, found, _ in whole if hex_ != found]
        folder = f"{site.registry.data_dir}/docker/registry/v2/repositories/{manifest.repository}"
        if not output.ok or link != manifest.digest or wrong or len(whole) != len(digests):
            text = _silence(output) if not output.ok else f"{folder} names {link or 'nothing'}"
            text += f"; damaged: {', '.join(wrong)}" if wrong else ""
            yield ("on disk", host, f"✗ {text}"), False
        else:
            total = sum(int(length) for *_, length in whole)
            yield (
                ("on disk", host, f"✓ {folder}: {plural(len(whole), 'blob')}, {size(total)}, each with its digest"),
                True,
            )


_ON_DISK = """\
cd {folder} || exit 1
echo "link=$(cat {link} 2>/dev/null)"
for hex in {hexes}; do
  f=blobs/sha256/${{hex%"${{hex#??}}"}}/$hex/data
  s=$(sha256sum < "$f" 2>/dev/null) || s=absent
  echo "blob=$hex ${{s%% *}} $(stat -c %s "$f" 2>/dev/null || echo 0)"
done
"""


# what pushes and pulls


def round_trip(hosts: Hosts) -> Evidence:
    """7.4.4 to 7.4.6: tag an image on the registry's host, push it, remove the tag, pull it back with the same digest,
    find it on the registry's disk, and pull it on another host.

    Only in apply mode; in verify mode as `stored`, and a plan does not try it.
    """
    if hosts.mode is Mode.PLAN:
        return Evidence(False, "a plan pushes and pulls nothing", tried=False)
    if hosts.mode is Mode.VERIFY:
        return stored(hosts)
    site = hosts.site
    tag, address = subject(site), site.registry_address
    if tag is None or address is None:
        return Evidence(False, "the parameters have no image", remedy="add one under images", hopeless=True)
    name = named(address, tag)
    here = hosts.having("registry")
    rows: list[tuple[str, str, str]] = []

    def failed(text: str, remedy: str | None = None, passing: bool = False) -> Evidence:
        return Evidence(False, text, pd.DataFrame(rows, columns=COLUMNS), remedy, hopeless=not passing)

    repository, _, version = name.partition("/")[2].rpartition(":")
    if taken := _taken(here, tag, name, repository, version):
        return failed(taken, "give the image another tag in the parameters, or delete the other one")
    (host, output), *_ = here.run(_there_and_back(site, tag, name), deadline=PATIENCE).items()
    tried = {one.name: one for one in _tried(output)}
    for one in tried.values():
        seen = one.digest or one.last or f"{tag} is {name} as well"
        rows.append((one.name, host, f"{'✓' if one.status == 0 else '✗'} {seen}"))
        if one.status:
            failure = diagnose.explain(one.said)
            text, remedy = diagnose.why(one.said)
            return failed(f"{one.name} on {host}: {text}", remedy, failure is not None and failure.passing)
    if "pull" not in tried:
        return failed(f"{host}: {_silence(output)}", passing=True)
    pushed = tried["push"].digest
    if not pushed or tried["pull"].digest != pushed:
        return failed(f"pushed {pushed}, pulled {tried['pull'].digest}", "look for two registries behind this address")
    with Registry.of(site) as registry:
        manifest = registry.manifest(repository, version)
    if manifest.digest != pushed:
        return failed(f"pushed {pushed}, the registry names {manifest.digest}", "somebody else pushed: run it again")
    for row, good in on_disk(hosts, manifest, version):
        rows.append(row)
        if not good:
            return failed(row[2], _DISK)
    elsewhere = [other.name for other in hosts.having("docker") if other.name != host][:1]
    for other, answer in (
        hosts.only(*elsewhere).run(_pull(site, f"{address}/{repository}@{pushed}"), deadline=PATIENCE).items()
    ):
        digest = next((one.digest for one in _tried(answer) if one.status == 0), "")
        rows.append(("pull elsewhere", other, f"{'✓' if digest == pushed else '✗'} {digest or _silence(answer)}"))
        if digest != pushed:
            said = "".join(one.said for one in _tried(answer)) or _silence(answer)
            text, remedy = diagnose.why(said)
            return failed(f"pull on {other}: {text}", remedy)
    if not elsewhere:
        rows.append(("pull elsewhere", "", "– there is no other Docker host"))
    return Evidence(True, f"{name} is {pushed[:19]}… wherever it was", pd.DataFrame(rows, columns=COLUMNS))


def _taken(here: Hosts, tag: str, name: str, repository: str, version: str) -> str:
    """Why the image must not be pushed under this name: it means another image, on the host or in the registry.

    Docker's id of an image is the digest of its configuration, or (with containerd's image store) of its manifest.
    """
    script = "".join(
        f"echo \"{key}=$(docker inspect --type image -f '{{{{.Id}}}}' {quote(one)} 2>/dev/null)\"\n"
        for key, one in (("image", tag), ("name", name))
    )
    for host, output in here.run(script).items():
        found = facts(output.stdout)
        image, local = found.get("image", ""), found.get("name", "")
        if image and local and image != local:
            return f"{name} is another image than {tag} on {host}"
        with Registry.of(here.site) as registry:
            try:
                there = registry.manifest(repository, version)
            except NotFound:
                return ""
        if image and image not in (there.digest, there.config.digest if there.config else ""):
            return f"the registry has another image under {repository}:{version} than {tag} is on {host}"
    return ""


def pulled(hosts: Hosts) -> Evidence:
    """Whether an image that the registry has is whole on its disk and can be pulled, on a Docker host other than the
    registry's if there is one. (A host that has its layers already asks for none of them: so the disk is looked at.)

    The smallest of the first images in the catalog is taken.
    """
    site = hosts.site
    address = site.registry_address or ""
    with Registry.of(site) as registry:
        chosen = _smallest(registry)
    if chosen is None:
        return Evidence(True, "the registry has no image: there is nothing to pull")
    manifest, tag = chosen
    for row, good in on_disk(hosts, manifest, tag):
        if not good:
            return Evidence(False, f"{manifest.repository}:{tag}: {row[2]}", remedy=_DISK)
    members = hosts.having("docker")
    others = [host.name for host in members if "registry" not in host.roles] or [host.name for host in members]
    name = f"{address}/{manifest.repository}:{tag}"
    script = _pull(site, f"{address}/{manifest.repository}@{manifest.digest}")
    for host, output in members.only(*others[:1]).run(script, deadline=PATIENCE).items():
        tried = _tried(output)
        if tried and tried[0].status == 0 and tried[0].digest == manifest.digest:
            return Evidence(True, f"{host} pulled {name}, {manifest.digest[:19]}…, whole on the registry's disk")
        text, remedy = diagnose.why(tried[0].said if tried else _silence(output))
        return Evidence(False, f"{host} cannot pull {name}: {text}", remedy=remedy)
    return Evidence(False, "no host of the site has the role docker", hopeless=True)


def _smallest(registry: Registry, first: int = 20) -> tuple[Manifest, str] | None:
    """The smallest of the first images for Linux in the catalog, and its tag; None where there is none.

    Raises the error of the first that is lost where none can be read.
    """
    found: list[tuple[Manifest, str]] = []
    lost: ServiceError | None = None
    for name in registry.repositories():
        try:
            for tag in registry.tags(name)[:1]:
                manifest = registry.manifest(name, tag)
                # neither an index, whose size it does not tell, nor a chart or a signature, which Docker does not pull
                if manifest.config is not None and registry.image(name, manifest).os == "linux":
                    found.append((manifest, tag))
        except RepositoryUnknown:
            continue  # emptied
        except ServiceError as error:
            lost = lost or error
        if len(found) == first:
            break
    if lost is not None and not found:
        raise lost
    return min(found, key=lambda one: one[0].total or 0, default=None)


# scripts


def _there_and_back(site: Site, tag: str, name: str) -> str:
    word = quote(name)
    orders = [
        ("tag", f"docker tag {quote(tag)} {word}"),
        ("push", f"docker push {word}"),
        ("remove", f"docker rmi {word}"),
        ("pull", f"docker pull {word}"),
    ]
    return _keeping(name, _asking(site, orders))


def _pull(site: Site, name: str) -> str:
    return _keeping(name, _asking(site, [("pull", f"docker pull {quote(name)}")]))


def _keeping(name: str, script: str) -> str:
    """The script, and afterwards the name where, and only where, it was there before."""
    word = quote(name)
    return (
        f"had=$(docker inspect --type image -f '{{{{.Id}}}}' {word} 2>/dev/null)\n"
        f"(\n{script})\nstatus=$?\n"
        f'if [ -z "$had" ]; then docker rmi {word} >/dev/null 2>&1\n'
        f'elif ! docker inspect --type image {word} >/dev/null 2>&1; then docker tag "$had" {word} >&2\nfi\n'
        "exit $status\n"
    )


def _asking(site: Site, orders: Sequence[tuple[str, str]]) -> str:
    """A script that gives orders to Docker until one fails, as the registry's user if there is one."""
    lines = [_CLIENT.format(config=heredoc(_client(site).encode()))]
    lines += [f"try {label} {order}" for label, order in orders]
    return "\n".join([*lines, ""])


def _client(site: Site) -> str:
    """The configuration of Docker's client: who it is to the registry."""
    login, config = credentials(site), dict[str, Mapping[str, object]]()
    if login is not None:
        user, password = login
        token = base64.b64encode(f"{user}:{password.reveal()}".encode()).decode()
        config["auths"] = {site.registry_address or "": {"auth": token}}
    return json.dumps(config)


# Below /run, which is no disk. The folder goes with the script, whatever ends that.
_CLIENT = """\
command -v docker >/dev/null 2>&1 || {{ echo 'Docker is not installed' >&2; exit 1; }}
umask 077
DOCKER_CONFIG=$(mktemp -d /run/runbook.XXXXXX) || exit 1
trap 'rm -rf "$DOCKER_CONFIG"' EXIT
trap 'exit 1' HUP INT TERM
base64 -d > "$DOCKER_CONFIG/config.json" {config}
export DOCKER_CONFIG
try() {{
  label=$1; shift
  said=$(timeout 120 "$@" 2>&1); status=$?
  echo "tried=$label $status $(printf '%s' "$said" | base64 | tr -d '\\n')"
  [ $status -eq 0 ] || exit 0
}}"""


def _tried(output: Output) -> list[Tried]:
    found = []
    for line in values(output.stdout, "tried"):
        label, status, said = line.split(" ", 2)
        found.append(Tried(label, int(status), base64.b64decode(said).decode("utf-8", "replace")))
    return found


def _silence(output: Output) -> str:
    """Why a host told nothing."""
    return output.error.message if output.error else output.stderr.strip() or "it told nothing"
