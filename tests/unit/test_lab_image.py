"""Which images labs that share an engine leave each other."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import pytest
from docker.errors import ImageNotFound

from runbook.lab import image
from runbook.lab.engine import Engine
from runbook.lab.folder import Folder


class FakeImage:
    """An image of an engine, as docker-py shows it."""

    def __init__(self, engine: FakeEngine, key: str, kind: str) -> None:
        self.engine, self.id, self.kind = engine, f"sha256:{key}", kind

    @property
    def tags(self) -> list[str]:
        return [tag for tag, image in self.engine.tagged.items() if image is self]

    def tag(self, repository: str, tag: str) -> None:
        self.engine.tagged[f"{repository}:{tag}"] = self


class FakeEngine:
    """The images of an engine. One is gone with its last tag."""

    def __init__(self) -> None:
        self.client = self.images = self
        self.tagged: dict[str, FakeImage] = {}

    def add(self, tag: str, kind: str = "node") -> None:
        self.tagged[tag] = FakeImage(self, tag, kind)

    def get(self, tag: str) -> FakeImage:
        if tag not in self.tagged:
            raise ImageNotFound("no such image")
        return self.tagged[tag]

    def list(self, filters: dict[str, str]) -> list[FakeImage]:
        kind = filters["label"].removeprefix(image.LABEL).removeprefix("=")
        return [found for found in dict.fromkeys(self.tagged.values()) if kind in ("", found.kind)]

    def remove(self, reference: str) -> None:
        del self.tagged[reference]


@pytest.fixture
def engine() -> FakeEngine:
    engine = FakeEngine()
    engine.add("runbook-lab/debian:bookworm", "debian")
    return engine


def come_up(engine: FakeEngine, folder: Folder, inputs: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """What `lab up` of a clone with these inputs does first. It has no node yet."""
    monkeypatch.setattr(image, "wanted", lambda: f"{image.REPOSITORY}:{inputs}")
    monkeypatch.setattr(image, "_demand_space", lambda engine, folder: None)
    monkeypatch.setattr(image, "build", lambda engine, tag, *rest: engine.add(tag))
    return image.ensure(cast(Engine, engine), folder, lambda stage: None)


def test_a_lab_prunes_its_own_earlier_images_and_not_those_that_another_is_about_to_start(
    engine: FakeEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = Folder(tmp_path / "first"), Folder(tmp_path / "second")
    earlier = come_up(engine, first, "1", monkeypatch)
    come_up(engine, second, "1", monkeypatch)
    mine = come_up(engine, second, "2", monkeypatch)

    image.prune(cast(Engine, engine), second)
    assert {earlier, mine} <= engine.tagged.keys()

    come_up(engine, first, "2", monkeypatch)
    image.prune(cast(Engine, engine), first)
    assert earlier not in engine.tagged
    assert mine in engine.tagged


def test_the_last_lab_that_goes_takes_the_images_along(
    engine: FakeEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = Folder(tmp_path / "first"), Folder(tmp_path / "second")
    tag = come_up(engine, first, "1", monkeypatch)
    come_up(engine, second, "1", monkeypatch)

    image.remove(cast(Engine, engine), first)
    assert {tag, "runbook-lab/debian:bookworm"} <= engine.tagged.keys()
    image.remove(cast(Engine, engine), second)
    assert engine.tagged == {}
