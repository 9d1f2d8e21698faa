"""`runbook images save`: the images of the parameters, pulled where the internet is, as archives for where it is not.

The document's way (5.3, 7.1: `docker pull`, `docker save`), by explicit tags, and so that it can be run again: an
archive that is there with the parameters' SHA-256 is left alone, another one is made beside it and takes its place
when it is whole.
"""

from __future__ import annotations

import gzip
import hashlib
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import docker
from docker.errors import APIError, DockerException, ImageNotFound, NotFound
from requests.exceptions import RequestException
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn
from urllib3.exceptions import HTTPError

from runbook.errors import ImageUnavailable
from runbook.remote.containers import archived_id
from runbook.site import ImageParameters, Site

TIMEOUT = 600
"""Seconds without a word from the engine after which a save counts as failed. A pull takes as long as the engine gives
it: docker-py sets no timeout there."""
NOT_KNOWN_YET = "0" * 64
"""What stands for a sum in parameters whose archive is still to be made, as in parameters/production.yml."""


@dataclass(frozen=True)
class Saved:
    """One image's archive: `was_there` where it had the parameters' sum already, and nothing was done."""

    name: str
    image: ImageParameters
    sha256: str
    was_there: bool

    @property
    def as_promised(self) -> bool:
        """Whether the parameters give this sum."""
        return self.sha256 == self.image.sha256

    def __str__(self) -> str:
        if self.was_there:
            return f"{self.name}: {self.image.file} is there, with the sum of the parameters"
        if self.as_promised:
            told = "as the parameters say"
        elif self.image.sha256 == NOT_KNOWN_YET:
            told = "put its sum into the parameters"
        else:
            told = (
                "its sum is not the parameters': before you put it there, see that the tag still means the image that "
                "was chosen (another version of Docker writes other archives, too)"
            )
        return f"{self.name}: {self.image.tag} saved as {self.image.file}: {told}"


def lines(saved: Iterable[Saved]) -> str:
    """The sums that are not in the parameters yet, as lines to paste there."""
    new = [one for one in saved if not one.as_promised]
    return "".join(["images:\n", *(f'  {one.name}:\n    sha256: "{one.sha256}"\n' for one in new)]) if new else ""


def save(site: Site, only: Iterable[str] = (), *, pull: bool = True) -> Iterator[Saved]:
    """Make the archives of the site's images (of those that are named in `only`), one after the other, with progress.

    With `pull` false, an image must be in the engine already. Raises ParameterError, before anything is done, for a
    name that the parameters do not declare, and ImageUnavailable where there is no engine, no such image, no registry
    in reach, or no room for the archive.
    """
    wanted = {name: site.image(name) for name in only} or site.images
    client = None
    for name, image in wanted.items():
        if image.file.is_file() and _sha256(image.file) == image.sha256:
            yield Saved(name, image, image.sha256, was_there=True)
            continue
        client = client or _engine()
        with _told(image.tag), _progress() as progress:
            if pull:
                _pull(client, image.tag, progress)
            sha256 = _write(client, image, progress)
        yield Saved(name, image, sha256, was_there=False)


# the parts


def _progress() -> Progress:
    columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn()
    return Progress(*columns, console=Console(stderr=True))


def _engine() -> docker.DockerClient:
    """The engine of this machine, or DOCKER_HOST's."""
    try:
        return docker.from_env(timeout=TIMEOUT)
    except DockerException as error:
        place = os.environ.get("DOCKER_HOST", "its socket")
        raise ImageUnavailable(
            f"no Docker engine answers on this machine (at {place}), and images come from one",
            "run this where Docker runs and the internet is reached; then bring the archives here",
        ) from error


@contextmanager
def _told(tag: str) -> Iterator[None]:
    """What the engine or the disk says, as a named error about this image."""
    try:
        yield
    except ImageNotFound as error:
        raise ImageUnavailable(f"there is no image {tag} in this machine's Docker", "run without --no-pull") from error
    except NotFound as error:
        raise ImageUnavailable(f"{tag}: no registry has it: {error.explanation}", "correct the tag") from error
    except (APIError, RequestException, HTTPError) as error:  # of a stream docker-py lets urllib3's own through
        said = error.explanation if isinstance(error, APIError) else error
        raise ImageUnavailable(
            f"{tag} cannot be had: {said}",
            "run this where the registry is reached (behind a proxy: HTTPS_PROXY of dockerd), or, where the image is "
            "in this machine's Docker already, with --no-pull",
        ) from error
    except OSError as error:
        raise ImageUnavailable(
            f"the archive of {tag} cannot be written: {error.strerror or error}", "make room, or correct its path"
        ) from error


def _pull(client: docker.DockerClient, tag: str, progress: Progress) -> None:
    """Pull an image, with the bytes of its layers as progress."""
    task = progress.add_task(f"pull {tag}", total=None)
    layers: dict[str, tuple[int, int]] = {}
    for said in client.api.pull(tag, stream=True, decode=True):
        if "error" in said:
            raise RequestException(said["error"])
        detail = said.get("progressDetail") or {}
        if said.get("status") == "Downloading" and detail.get("total"):
            layers[said["id"]] = detail["current"], detail["total"]
            done, total = (sum(numbers) for numbers in zip(*layers.values(), strict=True))
            progress.update(task, completed=done, total=total)


def _write(client: docker.DockerClient, image: ImageParameters, progress: Progress) -> str:
    """Save an image as an archive, which takes the file's name once it is whole; its SHA-256."""
    size = client.images.get(image.tag).attrs["Size"]
    task = progress.add_task(f"save {image.file.name}", total=size)
    image.file.parent.mkdir(parents=True, exist_ok=True)
    part = image.file.with_name(f".{image.file.name}.part")
    try:
        with _compressed(part) if image.file.name.endswith("gz") else part.open("wb") as target:
            for chunk in client.api.get_image(image.tag):
                target.write(chunk)
                progress.advance(task, len(chunk))
        if archived_id(part, image.tag) is None:
            raise ImageUnavailable(f"Docker saved an archive that does not hold {image.tag}", "name it as Docker does")
        with part.open("rb") as whole:
            os.fsync(whole.fileno())
        part.replace(image.file)
    finally:
        part.unlink(missing_ok=True)
    return _sha256(image.file)


def _compressed(file: Path) -> gzip.GzipFile:
    """A gzipped file, the same bytes every time; `docker load` reads it as well."""
    return gzip.GzipFile(file, "wb", mtime=0)


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
