"""Recipes of packages: what they are made of, and when they are made again."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from runbook.errors import LabError
from runbook.lab import rpms
from runbook.lab.rpms import Recipe

SPEC = "Name: mesos\nVersion: 0.28.0\nSource0: mesos.service\nSource1: mesos/master.py\nURL: none\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of recipes beside one of doubles, with one complete recipe."""
    monkeypatch.setattr(rpms, "DOUBLES", tmp_path / "doubles")
    (tmp_path / "doubles" / "mesos").mkdir(parents=True)
    (tmp_path / "doubles" / "mesos" / "master.py").write_text("print('double')\n")
    recipe = tmp_path / "rpms" / "mesos"
    recipe.mkdir(parents=True)
    (recipe / "mesos.spec").write_text(SPEC)
    (recipe / "mesos.service").write_text("[Service]\n")
    return recipe


def test_sources_come_from_the_folder_and_then_from_the_doubles(folder: Path) -> None:
    (folder / "debs").write_text("docker.io\nrunc\n")

    recipe = Recipe.read(folder / "mesos.spec")

    assert recipe.name == "mesos"
    assert recipe.sources == {"mesos.service": b"[Service]\n", "master.py": b"print('double')\n"}
    assert recipe.debs == ("docker.io", "runc")


def test_a_source_that_is_nowhere_is_named_with_the_places_where_it_is_looked_for(folder: Path) -> None:
    (folder / "mesos.service").unlink()

    with pytest.raises(LabError) as raised:
        Recipe.read(folder / "mesos.spec")

    assert "mesos.spec: source mesos.service is missing" in str(raised.value)
    assert str(folder) in str(raised.value)


def test_a_package_is_made_again_when_any_of_its_inputs_changes(folder: Path) -> None:
    def key(image: str = "node:1") -> str:
        return Recipe.read(folder / "mesos.spec").key(image)

    seen = [key(), key("node:2")]
    for path, text in (
        (folder / "mesos.spec", SPEC + "# a remark\n"),
        (folder / "mesos.service", "[Service]\nRestart=always\n"),
        (folder.parents[1] / "doubles" / "mesos" / "master.py", "print('another')\n"),
        (folder / "debs", "runc\n"),
    ):
        path.write_text(text)
        seen.append(key())
        assert key() == seen[-1]

    assert len(set(seen)) == len(seen)


def test_every_recipe_of_the_lab_is_complete_and_named_for_its_package() -> None:
    recipes = rpms.recipes()

    assert {"runbook-rehearsal-1.0", "runbook-rehearsal-1.1"} <= {recipe.name for recipe in recipes}
    for spec in rpms.RECIPES.glob("*/*.spec"):
        assert re.search(r"^Name:\s*(\S+)$", spec.read_text(), re.MULTILINE)[1] == spec.parent.name


def test_a_folder_without_rpms_replaces_nothing_and_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="holds no RPM"):
        rpms._given(tmp_path)


def test_the_repository_in_use_is_switched_by_one_rename(tmp_path: Path) -> None:
    link = tmp_path / "current"
    rpms._point(link, Path("sets/one"))
    inode = link.lstat().st_ino
    rpms._point(link, Path("sets/one"))
    assert link.lstat().st_ino == inode

    rpms._point(link, Path("sets/two"))

    assert link.readlink() == Path("sets/two")
    assert list(tmp_path.iterdir()) == [link]
