"""Recipes of image archives: what they are made of, when they are made again, and under which name they are kept."""

from __future__ import annotations

import gzip
import io
import json
import subprocess
import tarfile
from pathlib import Path
from typing import cast

import pytest

from runbook.lab import images
from runbook.lab.engine import Engine
from runbook.lab.folder import Folder


@pytest.fixture
def recipes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the recipes of two images, the second of them with a double."""
    monkeypatch.setattr(images, "RECIPES", tmp_path / "images")
    monkeypatch.setattr(images, "DOUBLES", tmp_path / "doubles")
    monkeypatch.setattr(images, "TAGS", {"userland": "lab/userland:1", "page": "lab/page:0.1"})
    for name in ("images/userland/Dockerfile", "images/page/Dockerfile", "doubles/page/server.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"{name}\n")
    (tmp_path / "images" / "collect").write_text("#!/bin/sh\n")
    return tmp_path


def keys() -> dict[str, str]:
    return {recipe.name: recipe.key for recipe in images.recipes()}


def saved(tag: str) -> bytes:
    """What `docker save` of 20.10 gives for an image of one layer, shortened."""
    members = {
        "ab/layer.tar": b"layer",
        "cd.json": b'{"config": {}}',
        "manifest.json": json.dumps([{"Config": "cd.json", "RepoTags": [tag], "Layers": ["ab/layer.tar"]}]).encode(),
        "repositories": json.dumps({tag.partition(":")[0]: {tag.partition(":")[2]: "ab"}}).encode(),
    }
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        folder = tarfile.TarInfo("ab")
        folder.type = tarfile.DIRTYPE
        tar.addfile(folder)
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def test_the_context_holds_the_recipe_the_collector_and_the_double(recipes: Path) -> None:
    (recipes / "doubles" / "page" / "__pycache__").mkdir()
    (recipes / "doubles" / "page" / "__pycache__" / "server.pyc").write_bytes(b"made by a run of the tests")

    context = images.recipes()[1].context

    with tarfile.open(fileobj=io.BytesIO(context)) as tar:
        assert tar.getnames() == ["collect", "Dockerfile", "double/server.py"]
        assert tar.getmember("collect").mode == 0o755


@pytest.mark.parametrize(
    ("changed", "made_again"),
    [
        ("images/page/Dockerfile", {"page"}),
        ("images/page/config.yml", {"page"}),
        ("doubles/page/server.py", {"page"}),
        ("images/userland/Dockerfile", {"userland", "page"}),
        ("images/collect", {"userland", "page"}),
        ("doubles/other/server.py", set()),
    ],
)
def test_an_image_is_made_again_when_what_goes_into_it_changes(
    recipes: Path, changed: str, made_again: set[str]
) -> None:
    before = keys()
    (recipes / changed).parent.mkdir(exist_ok=True)
    (recipes / changed).write_text("other\n")

    after = keys()

    assert {name for name in after if after[name] != before[name]} == made_again


def test_another_tag_is_another_archive(recipes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = keys()
    monkeypatch.setitem(images.TAGS, "page", "lab/page:0.2")

    assert keys()["page"] != before["page"]


def test_archives_that_are_there_are_told_without_an_engine(recipes: Path, tmp_path: Path) -> None:
    folder = Folder(tmp_path / "lab")
    folder.images.mkdir(parents=True)
    for key in keys().values():
        (folder.images / f"{key}.tar.gz").write_bytes(b"archive")
        (folder.images / f"{key}.sha256").write_text("ab" * 32)

    found = images.ensure(cast(Engine, None), folder, pytest.fail)

    assert [(one.name, one.tag, one.sha256) for one in found] == [
        ("userland", "lab/userland:1", "ab" * 32),
        ("page", "lab/page:0.1", "ab" * 32),
    ]
    assert all(one.file.read_bytes() == b"archive" for one in found)


def test_what_earlier_inputs_left_is_swept(recipes: Path, tmp_path: Path) -> None:
    folder = Folder(tmp_path / "lab")
    folder.images.mkdir(parents=True)
    names = {f"{key}{suffix}" for key in keys().values() for suffix in (".tar.gz", ".sha256")}
    for name in {*names, "page-0.tar.gz", "page-0.sha256", "saved.part"}:
        (folder.images / name).touch()

    images._sweep(folder, images.recipes())

    assert {path.name for path in folder.images.iterdir()} == names


def test_an_archive_holds_its_image_under_its_own_tag_only() -> None:
    target = io.BytesIO()

    images.rename(io.BytesIO(saved("runbook-lab-1/page:0f")), target, "lab/page:0.1")

    with tarfile.open(fileobj=io.BytesIO(gzip.decompress(target.getvalue()))) as tar:

        def content(name: str) -> bytes:
            file = tar.extractfile(name)
            assert file is not None
            return file.read()

        assert tar.getmember("ab").isdir()
        assert content("ab/layer.tar") == b"layer"
        assert json.loads(content("manifest.json")) == [
            {"Config": "cd.json", "RepoTags": ["lab/page:0.1"], "Layers": ["ab/layer.tar"]}
        ]
        assert json.loads(content("repositories")) == {"lab/page": {"0.1": "ab"}}


def test_the_same_image_gives_the_same_archive() -> None:
    first, second = io.BytesIO(), io.BytesIO()
    images.rename(io.BytesIO(saved("runbook-lab-1/page:0f")), first, "lab/page:0.1")
    images.rename(io.BytesIO(saved("runbook-lab-2/page:1e")), second, "lab/page:0.1")

    assert first.getvalue() == second.getvalue()


def test_every_recipe_of_the_lab_marks_its_stage_and_names_what_it_is() -> None:
    for recipe in images.recipes():
        dockerfile = (images.RECIPES / recipe.name / "Dockerfile").read_text()
        assert "LABEL runbook.lab.image=${STAGE}\n" in dockerfile, "its stage would stay behind in the engine"
        assert recipe.tag.startswith("lab/")
        assert dockerfile.count("\nFROM ") == 2


@pytest.mark.parametrize(
    ("given", "run"),
    [
        (["/etc/docker/registry/config.yml"], "registry serve /etc/docker/registry/config.yml"),
        (["serve", "/x.yml"], "registry serve /x.yml"),
        (["garbage-collect", "--dry-run", "/x.yml"], "registry garbage-collect --dry-run /x.yml"),
        (["--version"], "registry --version"),
        (["registry", "serve", "/x.yml"], "registry serve /x.yml"),
        (["echo", "hello"], "echo hello"),
    ],
)
def test_the_registry_image_takes_the_official_image_s_commands(given: list[str], run: str, tmp_path: Path) -> None:
    for program in ("registry", "echo"):
        (tmp_path / program).write_text('#!/bin/sh\nprintf "%s\\n" "${0##*/} $*"\n')
        (tmp_path / program).chmod(0o755)
    entrypoint = images.RECIPES / "registry" / "root" / "entrypoint.sh"

    done = subprocess.run(
        ["/bin/sh", entrypoint, *given], env={"PATH": str(tmp_path)}, capture_output=True, text=True, check=True
    )

    assert done.stdout == f"{run}\n"
