"""A registry on a lab's first node, with something in it, and the parameters of chapter 8 for it.

Its container, ports and folder are its own, so that the other chapters' are left alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from runbook.lab import Lab, Node
from runbook.remote.containers import Container, Image
from runbook.remote.hosts import Hosts
from runbook.remote.modes import Mode
from runbook.services.docker import engine
from runbook.services.registry import Registry
from runbook.site import Site

REGISTRY, PAGE = "page-test-registry", "page-test"
REGISTRY_PORT, PAGE_PORT = 8610, 8410
FOLDER = "/opt/page-test"
PUSHED = ("base/userland:1", "demo/hello:1.0", "demo/hello:1.1", "emptied:1")
LISTED = ("base/userland", "demo/hello")
"""What has tags in the end; `emptied` stays in the catalog without any."""


@dataclass(frozen=True)
class Prepared:
    """The node, and its parameters: the file lies beside the lab's, for the paths in it."""

    node: Node
    site_file: Path
    site: Site


@contextmanager
def prepared(lab: Lab) -> Iterator[Prepared]:
    """Docker, the registry and what was pushed to it, and no page; all but Docker is removed in the end."""
    parameters: dict[str, Any] = yaml.safe_load(lab.site_file.read_text())
    parameters["registry"] = {"container": REGISTRY, "port": REGISTRY_PORT, "data_dir": FOLDER}
    parameters["registry_web"] = {"container": PAGE, "port": PAGE_PORT, "variables": "url"}
    parameters["mesos"]["slave"]["ports"] = "[8700-9100]"
    site_file = lab.site_file.with_name("page-test.yml")
    site_file.write_text(yaml.safe_dump(parameters))
    site, node = Site.load(site_file), lab.nodes[0]
    try:
        _run(site)
        for tag in PUSHED:
            name = f"127.0.0.1:{REGISTRY_PORT}/{tag}"  # Docker trusts a registry of its own host
            pushed = lab.exec(node, f"docker tag lab/userland:1 {name} && docker push {name}")
            assert pushed.status == 0, pushed.stderr
        with Registry.of(site) as registry:
            registry.delete("emptied", registry.digest("emptied", "1"))
            assert list(registry.repositories()) == [*LISTED, "emptied"]
        yield Prepared(node, site_file, site)
    finally:
        names = " ".join(f"127.0.0.1:{REGISTRY_PORT}/{tag}" for tag in PUSHED)
        lab.exec(node, f"docker rm -f {PAGE} {REGISTRY}; docker rmi {names}; rm -rf {FOLDER}")
        site_file.unlink()


def _run(site: Site) -> None:
    with Hosts.of(site, "registry", mode=Mode.APPLY, yes=True) as hosts:
        hosts.apply([engine.install(site), engine.service(site)])
        images = [site.image(name) for name in (site.registry.image, "userland")]
        hosts.apply([Image(one.tag, one.file, one.sha256) for one in images])
        deletes = {"REGISTRY_STORAGE_DELETE_ENABLED": "true"}
        volumes = {FOLDER: "/var/lib/registry"}
        hosts.apply([Container(REGISTRY, images[0].tag, {REGISTRY_PORT: 5000}, deletes, volumes)])
