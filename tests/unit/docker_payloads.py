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
IMAGE = CONTAINERS["registry"]["Image"]


def state(container: str | Mapping[str, Any] | None, image: str = IMAGE, command: str = '["sleep","600"]') -> str:
    """What the probe of a container step prints where there is this container (a recorded one by its name)."""
    inspected = CONTAINERS[container] if isinstance(container, str) else container
    shown = json.dumps(inspected) if inspected else ""
    return f"image={f'{image} {command}' if image else ''}\ncontainer={shown}\n"


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
