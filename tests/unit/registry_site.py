"""A site with a registry, as chapter 7 knows it, and what its hosts print."""

from __future__ import annotations

import base64
import json
from pathlib import Path

from runbook.remote.hosts import Output
from runbook.site import Site

ADDRESS = "198.51.100.11:8600"
ZERO = "0" * 64

# the document's unit (5.2)
UNIT = """\
[Unit]
Description=Docker Application Container Engine
After=network.target docker.socket
[Service]
Type=notify
# ExecStart=/usr/bin/docker daemon --insecure-registry nowhere:1
ExecStart=/usr/bin/docker daemon -H fd://
MountFlags=slave
[Install]
WantedBy=multi-user.target
"""
PACKAGED = "/usr/lib/systemd/system/docker.service"
EDITED = UNIT.replace("-H fd://\n", f"-H fd://  --insecure-registry {ADDRESS}\n")


def site(registry: str = "", images: str = "", folder: Path | None = None) -> Site:
    """node1 is the registry, node2 and node3 are Docker hosts; `registry` and `images` are added to their sections."""
    hosts = "\n".join(
        f"  - {{name: node{number}, address: 198.51.100.{10 + number}, roles: [docker{', registry' * (number == 1)}]}}"
        for number in (1, 2, 3)
    )
    text = (
        f"name: test\nhosts:\n{hosts}\nregistry: {{image: registry{registry}}}\nimages:\n"
        f'  registry: {{tag: "registry:2.3.0", file: registry.tar, sha256: "{ZERO}"}}\n{images}'
    )
    return Site.parse(text, (folder or Path()) / "test.yml")


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def probed(
    files: dict[str, str] | None = None,
    *,
    environment: dict[str, str] | None = None,
    settings: str | None = None,
    command: str = "/usr/bin/dockerd -H fd://",
    version: str = "20.10.24+dfsg1",
    told: tuple[str, ...] | None = (),
    ca: str = "",
    live: bool = False,
    containers: tuple[str, ...] = (),
    pid: int = 77,
) -> Output:
    """What the probe of a host prints whose Docker runs: with these unit files, and what the daemon tells."""
    lines = ["LoadState=loaded", "ActiveState=active", f"MainPID={pid}"]
    lines += [f"unit={encoded(text)} {path}" for path, text in (files or {PACKAGED: UNIT}).items()]
    lines += [f"environment={encoded(text)} {path}" for path, text in (environment or {}).items()]
    lines += [f"settings={encoded(settings)}"] if settings is not None else []
    lines += [f"ca={ca}"] if ca else []
    lines += [f"arguments={encoded(command.replace(' ', chr(0)) + chr(0))}", f"version={version}"]
    lines += [f"registries={config(told)}" if told is not None else "registries="]
    lines += [f"live={str(live).lower()}", *(f"container={one}" for one in containers)]
    return Output("\n".join(lines), "", 0)


def config(insecure: tuple[str, ...]) -> str:
    """RegistryConfig as `docker info` of 20.10.24 prints it (recorded), with these insecure registries."""
    named = {
        name: {"Name": name, "Mirrors": [], "Secure": False, "Official": False} for name in insecure if "/" not in name
    }
    hub = {"docker.io": {"Name": "docker.io", "Mirrors": [], "Secure": True, "Official": True}}
    return json.dumps(
        {
            "AllowNondistributableArtifactsCIDRs": [],
            "AllowNondistributableArtifactsHostnames": [],
            "InsecureRegistryCIDRs": [*(name for name in insecure if "/" in name), "127.0.0.0/8"],
            "IndexConfigs": {**named, **hub},
            "Mirrors": [],
        }
    )
