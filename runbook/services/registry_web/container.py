"""The page's image and container, and the variables by which it finds its registry (document 8.1, 8.2, 8.3.4).

Before 0.1.0 the image reads REGISTRY_HOST, REGISTRY_PORT and READONLY; from then on REGISTRY_URL, REGISTRY_NAME,
REGISTRY_READONLY, REGISTRY_TRUST_ANY_SSL and REGISTRY_BASIC_AUTH, and without them it asks http://localhost:5000/v2:
itself. Either way the address is asked from within the container, so that it must be the host's.

The page deletes a tag at one click, asks nobody and leaves no record. So it is run read-only, and tags are deleted by
7.5 and by the registry console, behind a gate.

Sources: README, Config.groovy and WEB-INF/config.yml of github.com/mkuchin/docker-registry-web; the Engine API's
'Inspect a container'.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import pandas as pd

from runbook import secrets
from runbook.remote.checks import Evidence
from runbook.remote.containers import (
    ASK_DOCKER,
    PUBLISHED,
    RECREATE,
    Container,
    Image,
    Published,
    published,
)
from runbook.remote.hosts import Hosts, Output
from runbook.remote.probes import values
from runbook.remote.shell import facts, quote
from runbook.secrets import Secret, redact
from runbook.site import HostParameters, Site

Address = tuple[str, int]
"""Host and port."""

UNSET: Address = ("localhost", 5000)
"""What the page asks where it finds none of its variables."""


def image(site: Site) -> Image:
    """The image, from its archive (8.1)."""
    declared = site.image(site.registry_web.image)
    return Image(declared.tag, declared.file, declared.sha256)


def container(site: Site) -> Container:
    """The container that runs it (8.2). Raises SecretError where the registry's password cannot be had."""
    page = site.registry_web
    return Container(
        page.container,
        site.image(page.image).tag,
        ports={page.port: page.container_port},
        environment=variables(site),
        gate=RECREATE,
    )


def variables(site: Site) -> dict[str, str | Secret]:
    """The variables of the generation that the parameters name. Raises SecretError."""
    host, port = registry_of(site)
    registry = site.registry
    if site.registry_web.variables == "host_port":
        return {"REGISTRY_HOST": host, "REGISTRY_PORT": str(port), "READONLY": "true"}
    tls = registry.security == "tls"
    found: dict[str, str | Secret] = {
        "REGISTRY_URL": f"{'https' if tls else 'http'}://{host}:{port}/v2",
        "REGISTRY_NAME": f"{host}:{port}",
        "REGISTRY_READONLY": "true",
    }
    if tls:
        found["REGISTRY_TRUST_ANY_SSL"] = "true"  # the site's CA is not among those of the image's Java
    if registry.user is not None and registry.password is not None:
        pair = f"{registry.user}:{registry.password.resolve().reveal()}"
        encoded = base64.b64encode(pair.encode()).decode()
        secrets.register(encoded)  # the page writes it into its log
        found["REGISTRY_BASIC_AUTH"] = Secret(encoded)
    return found


def registry_of(site: Site) -> Address:
    """Where the registry is, by the parameters. A site with a page has one."""
    return site.having("registry")[0].address, site.registry.port


def asked(environment: Mapping[str, str], generation: str) -> Address | None:
    """The registry that a page of a generation (`registry_web.variables`) asks; None where that is no address."""
    try:
        if generation == "host_port":
            host, port = environment.get("REGISTRY_HOST", UNSET[0]), int(environment.get("REGISTRY_PORT", UNSET[1]))
        else:
            url = urlsplit(environment.get("REGISTRY_URL", f"http://{UNSET[0]}:{UNSET[1]}/v2"))
            host, port = url.hostname or "", url.port or (443 if url.scheme == "https" else 80)
    except ValueError:
        return None
    return (host, port) if host else None


def generation_of(tag: str) -> str | None:
    """Which variables an image of this tag reads, by its version: `host_port` or `url`; None where it tells none."""
    version = re.search(r":v?(\d+)\.(\d+)", tag)
    if version is None:
        return None
    return "host_port" if (int(version[1]), int(version[2])) < (0, 1) else "url"


# what Docker tells of a container


@dataclass(frozen=True)
class Seen:
    """One container on its host.

    `trouble` says why nothing is known of it, and `remedy` what to do about that; without a remedy, Docker answers, and
    has no such container. `said` are its last lines, `others` the other containers that run on the host.
    """

    host: HostParameters
    name: str
    trouble: str = ""
    inspected: Mapping[str, Any] = field(default_factory=dict, repr=False)
    said: tuple[str, ...] = ()
    remedy: str | None = None
    others: tuple[Published, ...] = ()

    @classmethod
    def of(cls, host: HostParameters, name: str, output: Output) -> Seen:
        """From the answer to `question`."""
        if output.error is not None:
            remedy = output.error.remedy or "make the host reachable"
            return cls(host, name, output.error.message, remedy=remedy)
        found = facts(output.stdout)
        if not output.ok or "silent" in found:
            said = found.get("silent") or output.stderr.strip()
            return cls(host, name, f"Docker does not answer: {said}", remedy="run chapter 5")
        others = tuple(one for one in published(output.stdout) if one.name != name)
        inspected = json.loads(found["container"] or "{}")
        if inspected.get("Name") != f"/{name}":
            return cls(host, name, f"there is no container {name}", others=others)
        lines = tuple(redact(line) for line in values(output.stdout, "said"))
        return cls(host, name, "", inspected, lines, others=others)

    @property
    def missing(self) -> bool:
        """Whether Docker answers, and has no such container."""
        return bool(self.trouble) and self.remedy is None

    @property
    def running(self) -> bool:
        """Whether it runs, and is not between two starts."""
        state = self.inspected.get("State", {})
        return bool(state.get("Running")) and not state.get("Restarting") and not state.get("Paused")

    @property
    def status(self) -> str:
        """Its state in a few words."""
        state = self.inspected.get("State", {})
        if self.trouble or self.running:
            return self.trouble or "running"
        ended = f"exit status {state.get('ExitCode', '?')} {state.get('Error', '')}".rstrip()
        return f"{state.get('Status', 'stopped')}, {ended}"

    @property
    def mark(self) -> str:
        """Its state as a table shows it."""
        if self.running:
            return self.status
        return f"{'–' if self.missing else '✗'} {self.status}"

    @property
    def image(self) -> str:
        """The name that its image was started by."""
        return str(self.inspected.get("Config", {}).get("Image", ""))

    @property
    def environment(self) -> dict[str, str]:
        """Its variables, the image's own included."""
        pairs = self.inspected.get("Config", {}).get("Env") or ()
        return dict(pair.split("=", 1) for pair in pairs if "=" in pair)

    def holder(self, port: int) -> Published | None:
        """The other container that publishes this port of the host, if any."""
        return next((one for one in self.others if port in one.ports), None)

    def published(self, inside: int) -> tuple[int, ...]:
        """The host's ports that lead to its port `inside` (TCP)."""
        bound = (self.inspected.get("HostConfig", {}).get("PortBindings") or {}).get(f"{inside}/tcp") or ()
        live = (self.inspected.get("NetworkSettings", {}).get("Ports") or {}).get(f"{inside}/tcp") or bound
        return tuple(dict.fromkeys(int(one["HostPort"]) for one in live if one.get("HostPort")))


_QUESTION = """\
printf 'container=%s\\n' "$(docker inspect --type container -f '{{{{json .}}}}' {name} 2>/dev/null)"
docker logs --tail {lines} {name} 2>&1 | tr '\\r' ' ' | sed 's/^/said=/'
:
"""


def question(name: str, lines: int) -> str:
    """The sh text that prints what Docker tells of a container, and its last lines."""
    return ASK_DOCKER + PUBLISHED + _QUESTION.format(name=quote(name), lines=lines)


def look(hosts: Hosts, name: str, lines: int = 20) -> tuple[Seen, ...]:
    """The container of this name on each of these hosts. Raises nothing: trouble is part of the answer."""
    outputs = hosts.run(question(name, lines))
    return tuple(Seen.of(host, name, outputs[host.name]) for host in hosts)


# 8.3.4


def matching(site: Site, pages: Sequence[Seen], registry: Seen) -> Evidence:
    """Whether each page asks the registry at the address and port where it is really published."""
    if registry.trouble or not any(page.inspected for page in pages):
        trouble = dict.fromkeys(f"{one.host.name}: {one.trouble}" for one in (registry, *pages) if one.trouble)
        return Evidence(False, "; ".join(trouble), remedy="run 7.3, then 8.2", tried=False)
    rows = list(_rows(site, pages, registry))
    table = pd.DataFrame(rows, columns=["page on", "asks the registry at", "registry is at", "state"])
    wrong = [f"{host}: {state[2:]}" for host, _, _, state in rows if state.startswith("✗")]
    return Evidence(
        not wrong, "; ".join(wrong) or f"they ask {rows[0][1]}", table, "run 8.2: it corrects the variables"
    )


def _rows(site: Site, pages: Sequence[Seen], registry: Seen) -> Iterator[tuple[str, str, str, str]]:
    ports = registry.published(site.registry.container_port)
    at = ", ".join(f"{registry.host.address}:{port}" for port in ports) or "published at no port"
    for page in pages:
        if page.trouble:
            yield page.host.name, "", at, f"✗ {page.trouble}"
            continue
        address = asked(page.environment, site.registry_web.variables)
        if address is None:
            yield page.host.name, "", at, "✗ its variables are no address"
            continue
        host, port = address
        if port not in ports:
            state = f"✗ it asks port {port}, and the registry is {at}"
        elif host != registry.host.address:
            state = f"✗ it asks {host}, and the registry is on {registry.host.address}"
        else:
            state = "✓ the same"
        yield page.host.name, f"{host}:{port}", at, state
