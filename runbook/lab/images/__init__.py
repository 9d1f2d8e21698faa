"""The image archives of a lab: what a closed network gets from `docker save` on a machine that has a registry in reach.

None is in reach of a lab, so the images are built here, of Debian's packages, in the engine below the lab. To add one,
add a folder here with a Dockerfile, and a line to TAGS. In its build context are the folder's files, `collect`, and in
`double/` what lies in the folder of the same name below runbook/lab/doubles/, if there is one. Its build arguments are
BASE (a Debian), USERLAND (the image `userland`, which the others stand on, so that a host keeps its layers once) and
STAGE (a label for stages, by which they are found again and removed). An archive is made again when what goes into it
changes, and not otherwise.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import shutil
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from docker.errors import ImageNotFound

from runbook.lab import image
from runbook.lab.archive import Entry, digest, pack, tree
from runbook.lab.engine import Engine, Progress
from runbook.lab.folder import Folder
from runbook.lab.keys import write

RECIPES = Path(__file__).parent
DOUBLES = RECIPES.parent / "doubles"
USERLAND = "userland"

TAGS = {
    USERLAND: "lab/userland:1",
    "mariadb": "lab/mariadb:10.11",
    "registry": "lab/registry:2.8.2",
    "registry_web": "lab/registry-web:0.1",
}
"""Each image's folder, and the tag that its archive holds. `userland` comes first, for the others stand on it."""

LEVEL = 3
"""gzip's: beyond it, each percent of size costs seconds."""


@dataclass(frozen=True)
class Archive:
    """One image as `docker load` takes it: `name` is its folder's here, `file` is gzipped."""

    name: str
    tag: str
    file: Path
    sha256: str


@dataclass(frozen=True)
class Recipe:
    """One image to build; `key` names what comes out of it, `context` is a tar archive."""

    name: str
    tag: str
    key: str
    context: bytes


def recipes() -> tuple[Recipe, ...]:
    """All recipes of the lab, in the order in which they are built."""
    made: list[Recipe] = []
    collect = Entry((RECIPES / "collect").read_bytes(), 0o755)
    for name, tag in TAGS.items():
        entries = {"collect": collect, **tree(RECIPES / name)}
        if (DOUBLES / name).is_dir():
            sources = tree(DOUBLES / name).items()
            entries |= {f"double/{path}": entry for path, entry in sources if "__pycache__" not in path}
        context = pack(entries)
        below = [made[0].key.encode()] if made else []
        made.append(Recipe(name, tag, f"{name}-{digest([tag.encode(), context, *below])}", context))
    return tuple(made)


def ensure(engine: Engine, folder: Folder, progress: Progress) -> tuple[Archive, ...]:
    """The archives of all images, built where they are not there yet. LabError where a build fails."""
    wanted = recipes()
    missing = [recipe for recipe in wanted if not _sum(folder, recipe).exists()]
    if missing:
        folder.images.mkdir(parents=True, exist_ok=True)
        try:
            for recipe in missing:
                _save(engine, folder, recipe, _build(engine, folder, recipe, wanted[0], progress))
        finally:
            _clean(engine, folder, keep=_built(folder, wanted[0]))
        _sweep(folder, wanted)
    return tuple(
        Archive(recipe.name, recipe.tag, _file(folder, recipe), _sum(folder, recipe).read_text(encoding="ascii"))
        for recipe in wanted
    )


def remove(engine: Engine, folder: Folder) -> None:
    """Remove all archives of the lab, and what their builds left in the engine."""
    _clean(engine, folder, keep=None)
    shutil.rmtree(folder.images, ignore_errors=True)


def _build(engine: Engine, folder: Folder, recipe: Recipe, userland: Recipe, progress: Progress) -> str:
    """The tag under which the engine has the image of `recipe`. It is this lab's own: labs do not build for another."""
    tag = _built(folder, recipe)
    try:
        engine.client.images.get(tag)
    except ImageNotFound:
        arguments = {"BASE": image.debian(engine, folder, progress), "STAGE": _stage(folder)}
        if recipe != userland:
            arguments["USERLAND"] = _build(engine, folder, userland, userland, progress)
        image.build(engine, tag, recipe.context, arguments, f"the image {recipe.tag}", progress)
    return tag


def _save(engine: Engine, folder: Folder, recipe: Recipe, tag: str) -> None:
    """Make the archive of a built image. Its sum is written last: where that is, the archive is complete."""
    target = _file(folder, recipe)
    part = target.with_name(f"{target.name}.part")
    with (folder.images / "saved.part").open("w+b") as saved:
        for chunk in engine.client.api.get_image(tag):
            saved.write(chunk)
        saved.seek(0)
        with part.open("w+b") as file:
            rename(saved, file, recipe.tag)
            file.seek(0)
            total = hashlib.file_digest(file, "sha256").hexdigest()
    part.replace(target)
    write(_sum(folder, recipe), total.encode(), mode=0o644)


def rename(saved: IO[bytes], target: IO[bytes], tag: str) -> None:
    """Copy what `docker save` gave for one image to `target`, gzipped and under the name `tag`."""
    repository, _, version = tag.rpartition(":")
    with (
        tarfile.open(fileobj=saved) as source,
        gzip.GzipFile("", "wb", LEVEL, target, mtime=0) as zipped,
        tarfile.open(fileobj=zipped, mode="w") as result,
    ):
        for member in source:
            file = source.extractfile(member) if member.isreg() else None
            content = file.read() if file else b""
            if member.name == "manifest.json":
                content = json.dumps([{**entry, "RepoTags": [tag]} for entry in json.loads(content)]).encode()
            elif member.name == "repositories":
                ((top,),) = (versions.values() for versions in json.loads(content).values())
                content = json.dumps({repository: {version: top}}).encode()
            member.size = len(content)
            result.addfile(member, io.BytesIO(content))


def _clean(engine: Engine, folder: Folder, keep: str | None) -> None:
    """Remove what builds of this lab left in the engine, save the image `keep`."""
    for filters in ({"reference": f"{_repository(folder, '*')}"}, {"label": f"{image.LABEL}={_stage(folder)}"}):
        for found in engine.client.images.list(filters=filters):
            for reference in found.tags or [str(found.id)]:
                if reference != keep:
                    image.discard(engine, reference)


def _sweep(folder: Folder, wanted: tuple[Recipe, ...]) -> None:
    """Remove what earlier inputs, or a run that was killed, left."""
    kept = {path for recipe in wanted for path in (_file(folder, recipe), _sum(folder, recipe))}
    for path in set(folder.images.iterdir()) - kept:
        path.unlink()


def _file(folder: Folder, recipe: Recipe) -> Path:
    return folder.images / f"{recipe.key}.tar.gz"


def _sum(folder: Folder, recipe: Recipe) -> Path:
    return folder.images / f"{recipe.key}.sha256"


def _repository(folder: Folder, name: str) -> str:
    return f"runbook-lab-{folder.id}/{name}"


def _built(folder: Folder, recipe: Recipe) -> str:
    return f"{_repository(folder, recipe.name)}:{recipe.key.rpartition('-')[2]}"


def _stage(folder: Folder) -> str:
    return f"stage-{folder.id}"
