"""Starts a real registry (Debian's docker-registry 2.8.2) on the loopback, and pushes small images to one.

Debian's package is unpacked into a temporary folder where it is not installed; nothing of the machine is changed.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import json
import re
import shutil
import subprocess
import tarfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests
import yaml

Json = dict[str, Any]
PACKAGE = "docker-registry"
SECONDS = 30.0  # in which a registry must have started

DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
_INSIDE = {  # media types of configuration and layers
    DOCKER_MANIFEST: (
        "application/vnd.docker.container.image.v1+json",
        "application/vnd.docker.image.rootfs.diff.tar.gzip",
    ),
    OCI_MANIFEST: ("application/vnd.oci.image.config.v1+json", "application/vnd.oci.image.layer.v1.tar+gzip"),
}


def program(folder: Path) -> Path:
    """The registry's program: the installed one, or that of Debian's package, unpacked below `folder`."""
    installed = shutil.which(PACKAGE)
    if installed:
        return Path(installed)
    unpacked = folder / "usr/bin/docker-registry"
    if not unpacked.exists():
        folder.mkdir(parents=True, exist_ok=True)
        fetch = "apt-get -qq download docker-registry 2>/dev/null"
        script = f"{fetch} || {{ apt-get -qq update && {fetch}; }} && dpkg-deb -x docker-registry_*.deb ."
        done = subprocess.run(["sh", "-c", script], cwd=folder, capture_output=True, text=True, check=False)
        if done.returncode != 0 or not unpacked.exists():
            raise RuntimeError(f"no real registry to test with: install Debian's {PACKAGE}; {done.stderr.strip()}")
    return unpacked


@dataclass
class Running:
    """A registry that runs, until `running` ends."""

    url: str
    folder: Path
    process: subprocess.Popen[bytes]

    @property
    def storage(self) -> Path:
        """Where its content is."""
        return self.folder / "data/docker/registry/v2"

    @property
    def log(self) -> str:
        return (self.folder / "output").read_text(encoding="utf-8")


@contextlib.contextmanager
def running(binary: Path, folder: Path, *, data: Path | None = None, **settings: Json) -> Iterator[Running]:
    """A registry on a port of its own on the loopback, with these settings besides (`storage={"delete": …}`).

    `data`: where its content is, if another one left or is to find it there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    config: Json = {
        "version": "0.1",
        "log": {"accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": str(data or folder / "data")}},
        "http": {"addr": "127.0.0.1:0", "secret": "of no worth", "headers": {"X-Content-Type-Options": ["nosniff"]}},
    }
    for section, content in settings.items():
        config[section] = {**config.get(section, {}), **content}
    (folder / "config.yml").write_text(yaml.safe_dump(config), encoding="utf-8")
    output = folder / "output"
    with output.open("wb") as file:
        process = subprocess.Popen([binary, "serve", folder / "config.yml"], stdout=file, stderr=file)
    try:
        scheme = "https" if "tls" in config["http"] else "http"
        yield Running(f"{scheme}://{_address(process, output)}", folder, process)
    finally:
        process.kill()
        process.wait()


def _address(process: subprocess.Popen[bytes], output: Path) -> str:
    """Where it says that it listens."""
    deadline = time.monotonic() + SECONDS
    while True:
        text = output.read_text(encoding="utf-8")
        if found := re.search(r"listening on (127\.0\.0\.1:\d+)", text):
            return found[1]
        assert process.poll() is None, f"the registry ended: {text}"
        assert time.monotonic() < deadline, f"the registry does not listen: {text}"
        time.sleep(0.02)


# what is pushed


def layer(content: str, size: int = 0) -> bytes:
    """A layer with one file, the same bytes each time."""
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as archive:
        data = content.encode() + bytes(size)
        entry = tarfile.TarInfo("file")
        entry.size = len(data)
        archive.addfile(entry, io.BytesIO(data))
    return gzip.compress(tar.getvalue(), mtime=0)


def config(created: str, architecture: str = "amd64", steps: tuple[str, ...] = ("ADD file in /",)) -> bytes:
    """An image's configuration, with a step that left no layer at its end."""
    history = [{"created": created, "created_by": step} for step in steps]
    history.append({"created": created, "created_by": 'CMD ["sh"]', "empty_layer": True})
    content = {
        "architecture": architecture,
        "os": "linux",
        "created": created,
        "config": {"Env": ["PASSWORD=is-not-shown"], "Cmd": ["sh"]},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{number:064x}" for number in range(len(steps))]},
        "history": history,
    }
    return json.dumps(content).encode()


def digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


@dataclass
class Pusher:
    """Pushes to a registry as Docker does, without the runbook's client."""

    url: str
    session: requests.Session = field(default_factory=requests.Session)
    pushed: list[tuple[str, str]] = field(default_factory=list)  # repository and digest of each manifest

    def blob(self, repository: str, content: bytes) -> Json:
        """Upload it, and give what a manifest says of it."""
        started = self.session.post(f"{self.url}/v2/{repository}/blobs/uploads/", timeout=30)
        assert started.status_code == 202, started.text
        location = started.headers["Location"]
        mark = "&" if "?" in location else "?"
        ended = self.session.put(f"{location}{mark}digest={digest(content)}", data=content, timeout=30)
        assert ended.status_code == 201, ended.text
        return {"size": len(content), "digest": digest(content)}

    def image(
        self,
        repository: str,
        tag: str | None,
        layers: tuple[bytes, ...],
        *,
        kind: str = DOCKER_MANIFEST,
        created: str = "2016-06-03T09:12:50.123456789Z",
        architecture: str = "amd64",
    ) -> Json:
        """Push an image, and give what an index says of it; without a tag it is pushed by digest."""
        of_config, of_layer = _INSIDE[kind]
        steps = tuple(f"ADD file:{number} in /" for number in range(len(layers)))
        content = config(created, architecture, steps)
        manifest = {
            "schemaVersion": 2,
            "mediaType": kind,
            "config": {"mediaType": of_config, **self.blob(repository, content)},
            "layers": [{"mediaType": of_layer, **self.blob(repository, one)} for one in layers],
        }
        pushed = self.manifest(repository, tag, manifest, kind)
        return {**pushed, "platform": {"os": "linux", "architecture": architecture}}

    def index(self, repository: str, tag: str, members: list[Json], *, kind: str = DOCKER_LIST) -> Json:
        """Push an index of images that were pushed before."""
        return self.manifest(repository, tag, {"schemaVersion": 2, "mediaType": kind, "manifests": members}, kind)

    def manifest(self, repository: str, tag: str | None, content: Mapping[str, Any], kind: str) -> Json:
        raw = json.dumps(content, indent=3).encode()
        url = f"{self.url}/v2/{repository}/manifests/{tag or digest(raw)}"
        put = self.session.put(url, data=raw, headers={"Content-Type": kind}, timeout=30)
        assert put.status_code == 201, put.text
        self.pushed.append((repository, digest(raw)))
        return {"mediaType": kind, "size": len(raw), "digest": digest(raw)}

    def delete_all(self) -> None:
        """Delete the manifests that are still there."""
        for repository, name in self.pushed:
            gone = self.session.delete(f"{self.url}/v2/{repository}/manifests/{name}", timeout=30)
            assert gone.status_code in (202, 404), gone.text
