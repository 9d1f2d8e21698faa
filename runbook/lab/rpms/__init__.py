"""The RPM repository of a lab, built in the node image and seen by the nodes as the yum repository `lab`.

To add a package, add a folder here, named for it, with a spec file and the spec's sources. Every `*.spec` in the
folder is built in the node image. What its `Source` lines name is looked for in the folder, then below
runbook/lab/doubles/ (`Source1: mesos/master.py`), and lies in %{_sourcedir} under its last name. A file `debs`
in the folder lists Debian packages, one a line, that are downloaded and unpacked into %{_sourcedir}/debs: so a
package can carry Debian's binaries to where CentOS has them. %{_unitdir} is systemd's. Scriptlets are plain sh.
A package is built again when its inputs or the node image change, and not otherwise.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from docker.models.containers import Container

from runbook.errors import LabError
from runbook.lab.archive import Entry, digest, pack
from runbook.lab.engine import Engine, Progress, execute, last_lines
from runbook.lab.folder import Folder

RECIPES = Path(__file__).parent
DOUBLES = RECIPES.parent / "doubles"
MOUNT = "/opt/lab-repo"
"""Where nodes (read-only) and the builder see the lab's packages."""

APART = ("marathon",)
"""Packages that lie beside the others but are not in the repository: the document's network has none with them, and
brings them along as artifacts (4.1)."""

LABEL = "runbook.lab.builder"

DEFINES = ["debug_package %{nil}", "__os_install_post %{nil}", "_build_id_links none", "_binary_payload w1.gzdio"]
"""What rpmbuild need not do here: debug packages, stripping, links to build ids, minutes of compression."""


@dataclass(frozen=True)
class Package:
    """One RPM of the repository; `version` is version-release, as `yum list` shows it."""

    name: str
    version: str
    arch: str
    file: Path
    sha256: str


@dataclass(frozen=True)
class Recipe:
    """One spec file with all that goes into it. `sources` are by the name that they have in %{_sourcedir}."""

    name: str
    spec: bytes
    sources: dict[str, bytes]
    debs: tuple[str, ...]

    @classmethod
    def read(cls, spec: Path) -> Recipe:
        """The recipe in `spec`; LabError where a source is nowhere."""
        sources = {}
        for source in re.findall(r"^Source\d*:\s*(\S+)", spec.read_text(encoding="utf-8"), re.MULTILINE):
            candidates = [spec.parent / source, DOUBLES / source]
            found = next((path for path in candidates if path.is_file()), None)
            if found is None:
                raise LabError(f"{spec}: source {source} is missing", f"put it into {spec.parent} or {DOUBLES}")
            sources[found.name] = found.read_bytes()
        debs = spec.parent / "debs"
        names = tuple(debs.read_text(encoding="utf-8").split()) if debs.exists() else ()
        return cls(spec.stem, spec.read_bytes(), sources, names)

    def key(self, image: str) -> str:
        """Names what comes out of building this recipe on `image`."""
        inputs = [image.encode(), self.spec, *(name.encode() for name in self.debs)]
        for name, content in sorted(self.sources.items()):
            inputs += [name.encode(), content]
        return f"{self.name}-{digest(inputs)}"


def recipes() -> tuple[Recipe, ...]:
    """All recipes of the lab."""
    return tuple(Recipe.read(spec) for spec in sorted(RECIPES.glob("*/*.spec")))


def ensure(
    engine: Engine, image: str, folder: Folder, replacements: Path | None, progress: Progress
) -> tuple[Package, ...]:
    """The packages of the lab's repository, which is brought up to date; nodes see it within a second.

    RPMs in the folder `replacements` take the place of the lab's packages of the same names, and are added where
    there is none. LabError where a package cannot be built, or the folder holds no RPM.
    """
    wanted = {recipe.key(image): recipe for recipe in recipes()}
    given = _given(replacements)
    name = digest([key.encode() for key in (*wanted, *APART)] + [path.read_bytes() for path in given])
    target = folder.packages / "sets" / name
    if not (target / "index.json").exists():
        with _builder(engine, image, folder) as builder:
            for key, recipe in wanted.items():
                if not (folder.packages / "built" / key).exists():
                    progress(f"building the package {recipe.name}")
                    _build(builder, key, recipe)
            progress("making the package repository")
            _assemble(builder, target, [folder.packages / "built" / key for key in wanted], given)
    _point(folder.packages / "current", Path("sets") / name)
    _sweep(folder, built=set(wanted), sets={name})
    return _read(folder.packages / "current")


def remove(folder: Folder) -> None:
    """Remove all packages of the lab."""
    shutil.rmtree(folder.packages, ignore_errors=True)


def _given(replacements: Path | None) -> list[Path]:
    if replacements is None:
        return []
    found = sorted(replacements.glob("*.rpm"))
    if not found:
        raise LabError(f"{replacements} holds no RPM", "--packages names a folder with *.rpm files")
    return found


@contextmanager
def _builder(engine: Engine, image: str, folder: Folder) -> Iterator[Container]:
    """A short-lived container of the node image that sees the lab's packages and the network."""
    (folder.packages / "built").mkdir(parents=True, exist_ok=True)
    (folder.packages / "sets").mkdir(exist_ok=True)
    for stale in engine.client.containers.list(all=True, filters={"label": f"{LABEL}={folder.id}"}):
        stale.remove(force=True)
    container = engine.client.containers.run(
        image,
        ["sleep", "infinity"],
        detach=True,
        init=True,
        network_mode="host",
        labels={LABEL: folder.id},
        volumes={str(folder.packages): {"bind": MOUNT, "mode": "rw"}},
    )
    try:
        yield container
        _do(container, f"chown -R {os.getuid()}:{os.getgid()} {MOUNT}", "hand over the packages")
    finally:
        container.remove(force=True)


def _do(container: Container, script: str, what: str) -> str:
    """Standard output of `script`; LabError where it fails. What rpm says on standard error is mostly noise."""
    done = execute(container, ["/bin/sh", "-euc", script])
    if done.status != 0:
        raise LabError(f"could not {what}:\n{last_lines(done.stdout + done.stderr, 12)}")
    return done.stdout


def _build(builder: Container, key: str, recipe: Recipe) -> None:
    top = f"/root/{key}"
    files = {f"{top}/SPECS/{recipe.name}.spec": Entry(recipe.spec, 0o644)}
    for name, content in recipe.sources.items():
        files[f"{top}/SOURCES/{name}"] = Entry(content, 0o644)
    builder.put_archive("/", pack(files))
    if recipe.debs:
        script = f"""
            mkdir -p {top}/SOURCES/debs {top}/download
            cd {top}/download
            [ -e /var/lib/apt/lists/lock ] || apt-get update -q
            apt-get download -q {" ".join(recipe.debs)}
            for deb in *.deb; do dpkg-deb -x "$deb" {top}/SOURCES/debs; done
        """
        _do(builder, script, f"download Debian packages for {recipe.name}")
    defines = " ".join(f"--define '{define}'" for define in [f"_topdir {top}", *DEFINES])
    script = f"""
        rpmbuild -bb --quiet {defines} {top}/SPECS/{recipe.name}.spec
        rm -rf {MOUNT}/built/{key}.part
        mkdir {MOUNT}/built/{key}.part
        mv {top}/RPMS/*/*.rpm {MOUNT}/built/{key}.part
        mv {MOUNT}/built/{key}.part {MOUNT}/built/{key}
    """
    _do(builder, script, f"build the package {recipe.name}")


def _assemble(builder: Container, target: Path, built: Sequence[Path], given: Sequence[Path]) -> None:
    """Make the repository `target` of the RPMs in the folders `built` and of the files `given`, which come first."""
    part = target.with_name(f"{target.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    inside = f"{MOUNT}/sets/{part.name}"
    for path in given:
        shutil.copy(path, part)
    replaced = {package.name for package in _query(builder, part, inside)}
    for folder in built:
        for path in folder.glob("*.rpm"):
            shutil.copy(path, part)
    packages = []
    for package in _query(builder, part, inside):
        if package.name in replaced and package.file.name not in {path.name for path in given}:
            package.file.unlink()
        else:
            packages.append(package)
    apart = " ".join(f"--excludes '{name}-*.rpm'" for name in APART)
    _do(builder, f"createrepo_c --quiet {apart} {inside}", "make the package repository")
    index = [{**asdict(package), "file": package.file.name} for package in packages]
    (part / "index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
    part.rename(target)


def _query(builder: Container, folder: Path, inside: str) -> list[Package]:
    """What the RPMs in `folder` are; rpm sees it as `inside`."""
    files = sorted(folder.glob("*.rpm"))
    if not files:
        return []
    form = "%{NAME} %{VERSION}-%{RELEASE} %{ARCH}\\n"
    names = " ".join(f"'{inside}/{file.name}'" for file in files)
    answer = _do(builder, f"rpm -qp --nosignature --qf '{form}' {names}", "read the packages")
    packages = []
    for line, file in zip(answer.splitlines(), files, strict=True):
        name, version, arch = line.split()
        packages.append(Package(name, version, arch, file, hashlib.sha256(file.read_bytes()).hexdigest()))
    return packages


def _read(repository: Path) -> tuple[Package, ...]:
    index = json.loads((repository / "index.json").read_text(encoding="utf-8"))
    return tuple(Package(**{**entry, "file": repository / entry["file"]}) for entry in index)


def _point(link: Path, target: Path) -> None:
    """Make `link` point to `target` without a moment in which it points nowhere."""
    if link.is_symlink() and link.readlink() == target:
        return
    fresh = link.with_name(f".{link.name}")
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(target)
    fresh.replace(link)


def _sweep(folder: Folder, *, built: set[str], sets: set[str]) -> None:
    """Remove what earlier inputs left."""
    for parent, kept in ((folder.packages / "built", built), (folder.packages / "sets", sets)):
        for path in parent.iterdir():
            if path.name not in kept:
                shutil.rmtree(path)
