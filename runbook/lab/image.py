"""The image of a node: Debian bookworm, and on top of it what node/Dockerfile says."""

from __future__ import annotations

import io
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from docker.errors import APIError, DockerException, ImageNotFound
from docker.models.images import Image

from runbook.errors import LabError
from runbook.lab import engine as engines
from runbook.lab.archive import digest, pack, tree
from runbook.lab.engine import Engine, Progress
from runbook.lab.folder import Folder

CONTEXT = Path(__file__).parent / "node"
REPOSITORY = "runbook-lab/node"
DEBIAN = "debian:bookworm"
BOOTSTRAPPED = "runbook-lab/debian:bookworm"
LABEL = "runbook.lab.image"
SPACE = 6 * 1024**3
"""Bytes that a first build needs: Debian, the image with its layers, and room for the nodes."""


def ensure(engine: Engine, folder: Folder, progress: Progress) -> str:
    """The tag of the node image; built where the engine has none made of the present inputs.

    LabError where the base cannot be had, the build fails (with the last thing it said), or space is short.
    """
    tag = wanted()
    try:
        found = engine.client.images.get(tag)
    except ImageNotFound:
        _demand_space(engine, folder)
        base = debian(engine, folder, progress)
        build(engine, tag, pack(tree(CONTEXT)), {"BASE": base}, "the node image", progress, {LABEL: "node"})
        found = engine.client.images.get(tag)
    found.tag(_claim(folder), tag.partition(":")[2])
    return tag


def wanted() -> str:
    """The tag that an image built from the present inputs carries: it names their content."""
    return f"{REPOSITORY}:{digest([pack(tree(CONTEXT))])}"


def debian(engine: Engine, folder: Folder, progress: Progress) -> str:
    """The reference of a plain Debian bookworm in the engine; pulled, or else made with debootstrap."""
    for reference in (DEBIAN, BOOTSTRAPPED):
        try:
            engine.client.images.get(reference)
        except ImageNotFound:
            continue
        return reference
    progress(f"pulling {DEBIAN}")
    try:
        engine.client.images.pull(DEBIAN)
    except DockerException:  # no registry can be reached: APIError, or NotFound where a mirror lacks it
        return _debootstrap(engine, folder, progress)
    return DEBIAN


def build(
    engine: Engine,
    tag: str,
    context: bytes,
    arguments: Mapping[str, str],
    what: str,
    progress: Progress,
    labels: Mapping[str, str] | None = None,
) -> None:
    """Build an image out of `context`, a tar archive with a Dockerfile, and its build `arguments`.

    `what` names the image for `progress` and for the LabError that says how the build failed.
    """
    progress(f"building {what}")
    lines = engine.client.api.build(
        fileobj=io.BytesIO(context),
        custom_context=True,
        tag=tag,
        buildargs=dict(arguments),
        labels=dict(labels or {}),
        network_mode="host",
        rm=True,
        forcerm=True,
        decode=True,
    )
    said = ""
    for line in _messages(lines):
        said = line
        if line.startswith(("Step ", "Setting up ", "Unpacking ")):
            progress(f"building {what}: {line}")
    try:
        engine.client.images.get(tag)
    except ImageNotFound:
        raise LabError(f"{what} could not be built: {said}", "see its Dockerfile below runbook/lab/") from None


def prune(engine: Engine, folder: Folder) -> None:
    """Remove node images made of earlier inputs, unless another lab on the engine has its name on one."""
    for image in engine.client.images.list(filters={"label": f"{LABEL}=node"}):
        if wanted() not in image.tags:
            _release(engine, folder, image)


def remove(engine: Engine, folder: Folder) -> None:
    """Remove every image that the lab made, unless another lab on the engine has its name on one, or stands on it."""
    nodes = engine.client.images.list(filters={"label": f"{LABEL}=node"})
    for image in nodes:
        _release(engine, folder, image)
    if any(_owners(image) - {_claim(folder)} for image in nodes):
        return  # the Debian below
    for image in engine.client.images.list(filters={"label": LABEL}):
        for reference in image.tags or [str(image.id)]:
            discard(engine, reference)


def _claim(folder: Folder) -> str:
    """The repository whose tag says that this lab uses an image, before it has any container."""
    return f"{REPOSITORY}-of-{folder.id}"


def _owners(image: Image) -> set[str]:
    return {tag.partition(":")[0] for tag in image.tags} - {REPOSITORY}


def _release(engine: Engine, folder: Folder, image: Image) -> None:
    """Take this lab's name from an image, and remove one that no lab has its name on."""
    shared = _owners(image) - {_claim(folder)}
    for reference in image.tags or [str(image.id)]:
        if not shared or reference.startswith(f"{_claim(folder)}:"):
            discard(engine, reference)


def discard(engine: Engine, reference: str) -> None:
    """Remove one image, unless it is gone or in use."""
    try:
        engine.client.images.remove(reference)
    except APIError as error:
        if error.status_code not in (404, 409):  # gone with another one, or in use
            raise


def _demand_space(engine: Engine, folder: Folder) -> None:
    if engine.ours:
        free = shutil.disk_usage(folder.path).free
        if free < SPACE:
            raise LabError(
                f"the node image needs {SPACE / 1024**3:.0f} GB, and {folder.path} has {free / 1024**3:.1f} GB free",
                "set RUNBOOK_LAB_DIR to a folder where there is more space",
            )


def _debootstrap(engine: Engine, folder: Folder, progress: Progress) -> str:
    if shutil.which("debootstrap", path=engines.ENVIRONMENT["PATH"]) is None:
        progress("installing debootstrap")
        engines.install("debootstrap", "debian-archive-keyring")
    progress("making a Debian with debootstrap")
    for stale in folder.path.glob("debootstrap-*"):
        shutil.rmtree(stale, ignore_errors=True)  # of a run that was killed, and may still be writing
    with tempfile.TemporaryDirectory(prefix="debootstrap-", dir=folder.path) as work:
        root = Path(work) / "root"
        root.mkdir()
        root.chmod(0o755)  # it becomes the image's /, whatever the umask
        # In a mount namespace of its own: what debootstrap mounts is gone with it, however it ends.
        made = subprocess.run(
            ["unshare", "--mount", "debootstrap", "--variant=minbase", "bookworm", root],
            env=engines.ENVIRONMENT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if made.returncode != 0:
            raise LabError(
                f"there is no {DEBIAN} to be pulled, and debootstrap failed: {engines.last_line(made.stdout)}",
                f"let the engine reach a registry, or this machine a Debian mirror; or docker load {DEBIAN}",
            )
        progress("importing the Debian")
        with subprocess.Popen(["tar", "-C", root, "-c", "."], stdout=subprocess.PIPE) as archive:
            repository, tag = BOOTSTRAPPED.split(":")
            engine.client.api.import_image_from_stream(
                archive.stdout, repository=repository, tag=tag, changes=[f"LABEL {LABEL}=debian"]
            )
    return BOOTSTRAPPED


def _messages(lines: Iterator[dict[str, Any]]) -> Iterator[str]:
    """The lines of a build's output that say something, errors included."""
    for line in lines:
        text = line.get("error") or line.get("stream") or ""
        yield from (one.strip() for one in text.splitlines() if one.strip())
