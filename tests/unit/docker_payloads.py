"""What a real Docker answered (tests/payloads/docker-20.10.24), and archives as `docker save` writes them."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

RECORDED = Path(__file__).parent.parent / "payloads" / "docker-20.10.24"
CONTAINERS: Mapping[str, dict[str, Any]] = json.loads((RECORDED / "containers.json").read_text())
TAG = "dockerpart/tiny:1"
IMAGES: Mapping[str, dict[str, Any]] = json.loads((RECORDED / "images.json").read_text())
"""The `Config` of the images of the containers, by id."""
IMAGE = CONTAINERS["registry"]["Image"]


def state(
    container: str | Mapping[str, Any] | None,
    image: str = IMAGE,
    holder: str | Mapping[str, Any] | None = None,
    more: str = "",
) -> str:
    """What the probe of a container step prints where there is this container (a recorded one by its name), and
    `holder` has its port."""
    text = f"image={image and f'{image} {json.dumps(IMAGES[IMAGE])}'}\nlog_driver=json-file\nruntime=runc\ndaemon=\n"
    for key, one in (("container", container), ("holder", holder)):
        inspected = CONTAINERS[one] if isinstance(one, str) else one
        if inspected:
            text += f"{key}={json.dumps(inspected)}\n"
            if inspected["Image"] != image:
                text += f"own={inspected['Image']} {json.dumps(IMAGES.get(inspected['Image']))}\n"
    return text + more


def archive(file: Path, *tags: str, config: bytes = b'{"os": "linux"}') -> tuple[str, str]:
    """Write an archive of one image under `tags`; returns the file's SHA-256 and the image's id."""
    name = f"{hashlib.sha256(config).hexdigest()}.json"
    manifest = [{"Config": name, "RepoTags": list(tags) or None, "Layers": []}]
    with tarfile.open(file, "w") as tar:
        for member, content in ((name, config), ("manifest.json", json.dumps(manifest).encode())):
            info = tarfile.TarInfo(member)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return hashlib.sha256(file.read_bytes()).hexdigest(), f"sha256:{name.removesuffix('.json')}"
