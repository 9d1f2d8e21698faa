"""Which host needs which image of the parameters, and which images it has (document 5.3, 7.1)."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from runbook.errors import StepFailed
from runbook.remote.containers import Image, archived_id, by_tag_only, familiar
from runbook.remote.hosts import Hosts, Output
from runbook.remote.probes import values
from runbook.services.docker.engine import DEMAND, unanswered
from runbook.site import HostParameters, ImageParameters, Role, Site
from runbook.views.tables import Table


def needed(site: Site, host: HostParameters) -> dict[str, ImageParameters]:
    """The images of the parameters that a host needs, by their keys.

    Those of the registry and of its page are needed on their hosts. Any other, and one that an app runs as well, is
    needed wherever Marathon may place its tasks: on every slave (on every Docker host of a site without slaves).
    """
    return {name: image for name, image in site.images.items() if _roles(site, name, image.tag) & set(host.roles)}


def _roles(site: Site, name: str, tag: str) -> set[Role]:
    uses: tuple[tuple[Role, str], ...] = (("registry", site.registry.image), ("registry_web", site.registry_web.image))
    roles: set[Role] = {role for role, image in uses if image == name}
    if not roles or familiar(tag) in _run_by_apps(site) or name == site.mysql.image:
        roles.add("mesos_slave" if site.having("mesos_slave") else "docker")
    return roles


def _run_by_apps(site: Site) -> Iterator[str]:
    for app in site.apps.values():
        container = app.get("container")
        docker = container.get("docker") if isinstance(container, dict) else None
        if isinstance(docker, dict) and isinstance(docker.get("image"), str):
            yield familiar(str(docker["image"]))


def steps(site: Site, host: HostParameters) -> tuple[Image, ...]:
    """What makes a host have the images that it needs."""
    return tuple(Image(image.tag, image.file, image.sha256) for image in needed(site, host).values())


def table(site: Site, hosts: Hosts) -> Table:
    """The images of each host, and how each stands to the parameters and to its archive."""
    answers = hosts.run(_IMAGES)
    rows = [row for host in hosts for row in _rows(site, host, answers[host.name])]
    frame = pd.DataFrame(rows, columns=["host", "image", "state", "id", "size", "made"])
    return Table(frame, "images", states=("state",))


_IMAGES = (
    DEMAND
    + """\
shown=$(timeout 60 docker images --no-trunc --digests --format \
  '{{.Repository}}:{{.Tag}}\\t{{.ID}}\\t{{.Digest}}\\t{{.Size}}\\t{{.CreatedSince}}') || exit 1
printf '%s\\n' "$shown" | sort | sed -n 's/^./image=&/p'
"""
)


def _rows(site: Site, host: HostParameters, output: Output) -> Iterator[tuple[str, ...]]:
    wanted = {familiar(image.tag): image for image in needed(site, host).values()}
    found = [line.split("\t") for line in values(output.stdout, "image")]
    if not output.ok:
        yield host.name, "", unanswered(output), "", "", ""
        return
    seen = set()
    tagged = {image_id for tag, image_id, *_ in found if not tag.endswith(":<none>")}
    for tag, image_id, digest, size, made in found:
        # An image has a line for each of its digests, which before 1.13 has no tag (1.11: formatter.go, ImageContext).
        of_digest = tag.endswith(":<none>") and tag != "<none>:<none>" and image_id in tagged
        if (tag, image_id) not in seen and not of_digest:
            seen.add((tag, image_id))
            state = _state(wanted.get(familiar(tag)), tag, image_id, digest)
            yield host.name, tag, state, image_id.removeprefix("sha256:")[:12], size, made
    there = {familiar(tag) for tag, *_ in found}
    for name, image in wanted.items():
        if name not in there:
            yield host.name, image.tag, "✗ missing", "", "", ""


def _state(wanted: ImageParameters | None, tag: str, image_id: str, digest: str) -> str:
    if wanted is None:
        return "– without a tag" if tag.endswith(":<none>") else "– not of the parameters"
    try:
        archives = archived_id(wanted.file, tag)
    except StepFailed:
        return "⚠ its archive is not here to compare with"
    if archives == image_id:
        return "✓ as in its archive"
    if by_tag_only(image_id, f"@{digest}"):
        return "✓ by its tag (containerd's store has other ids than the archive)"
    return "✗ another image than in its archive"
