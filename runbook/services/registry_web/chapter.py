"""Chapter 8: the registry's web page, from its image to a page that lists what the registry lists."""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn

import pandas as pd
from IPython.display import display

from runbook.chapter import Chapter, section
from runbook.errors import ApplyFailed, CheckFailed, RegistryTooOld, RunbookError
from runbook.remote.checks import CheckResult, Evidence
from runbook.remote.hosts import Hosts
from runbook.remote.results import ApplyResult
from runbook.services.findings import Findings
from runbook.services.registry import Registry
from runbook.services.registry_web import diagnose
from runbook.services.registry_web.container import (
    Seen,
    asked,
    container,
    generation_of,
    image,
    look,
    matching,
    variables,
)
from runbook.services.registry_web.page import lists, page_of
from runbook.site import Site
from runbook.views.tables import Table

UPLOAD_DEADLINE = 1800.0
"""Seconds in which the image must have arrived on a host: the real one has more than 500 MB (8.1)."""

PATIENCE = 150.0
"""Seconds until the page must answer: the real one is a Tomcat that unpacks itself first."""

LIST_PATIENCE = 30.0
"""Seconds until a page that answers must list the registry: pushes may be under way."""


class RegistryWeb(Chapter):
    """Chapter 8: the page, on each host that has the role registry_web.

    Raises SecretError, before any host is asked, where the registry's password cannot be had: the page writes it into
    its log, and what is not known cannot be masked.
    """

    number = "8"
    title = "The registry's page"
    needs = ("registry_web",)

    def _examine(self) -> None:
        variables(self.site)

    @section("8.1", "Image")
    def image(self) -> ApplyResult:
        """8.1: the page's image on its hosts, by its explicit tag, from its archive. Raises ParameterError and
        ApplyFailed."""
        self.site.check_files({"registry_web"})
        return self._applied(
            lambda: self._pages.apply(lambda _: [image(self.site)], name="docker load", deadline=UPLOAD_DEADLINE)
        )

    @section("8.2", "Run")
    def run(self) -> ApplyResult:
        """8.2: the container, with the variables that its version reads, behind the gate `recreate-container`.

        Raises ApplyFailed with what the hosts tell of it, GateRefused, and SecretError.
        """
        try:
            return self._applied(lambda: self._pages.apply(lambda _: [container(self.site)], name="docker run"))
        except ApplyFailed as error:
            self._explain(error)

    @section("8.2 pages", "Where the page is")
    def pages(self) -> Table:
        """8.2: each page: its address, its image, whether it runs, and which registry it asks."""
        rows = []
        for seen in self._seen():
            address = asked(seen.environment, self.site.registry_web.variables) if seen.inspected else None
            asks = f"{address[0]}:{address[1]}" if address else ""
            with page_of(self.site, seen.host) as page:
                rows.append((seen.host.name, page.url, seen.image, seen.mark, asks))
            if seen.image:
                self.versions(seen.host.name, {"registry page": seen.image})
        columns = ["host", "page", "image", "container", "asks the registry at"]
        return Table(pd.DataFrame(rows, columns=columns), "the registry's page", states=("container",))

    @section("8.2 answer", "The page answers")
    def answers(self) -> CheckResult:
        """8.2, check: the page of each host answers this machine."""
        return self._explained("the page answers", self._answering, PATIENCE)

    @section("8.2 list", "The page lists what the registry lists")
    def lists(self) -> CheckResult:
        """8.2, check: the page lists exactly the repositories of the registry that have tags.

        Raises CheckFailed with what the diagnosis finds.
        """
        return self._explained("the page lists what the registry lists", self._listing, LIST_PATIENCE)

    @section("8.3.1", "Which page for which registry")
    def choice(self) -> Table:
        """8.3.1: which page reads which registry by which variables, and which of them fit this site."""
        return choice(self.site)

    @section("8.3.2", "What is at fault")
    def diagnose(self) -> Findings:
        """8.3.2: which of page, registry, network and variables is at fault. Looks only; it touches nothing."""
        return self._diagnose()

    @section("8.3.2 logs", "The logs of both containers")
    def logs(self, lines: int = 5) -> Table:
        """8.3.2: the last lines of both containers."""
        containers = [*look(self.hosts("registry"), self.site.registry.container, lines), *self._seen(lines)]
        rows = [(seen.host.name, seen.name, seen.mark, "\n".join(seen.said)) for seen in containers]
        frame = pd.DataFrame(rows, columns=["host", "container", "state", "last lines"])
        return Table(frame, "docker logs", states=("state",), literal=("last lines",))

    @section("8.3.4", "The port")
    def port(self) -> CheckResult:
        """8.3.4, check: the page's variables name the address and port at which the registry is really published."""
        return self._check("the page asks the registry where it is", self._matching, deadline=10.0)

    # the parts

    @property
    def _pages(self) -> Hosts:
        return self.hosts("registry_web")

    def _seen(self, lines: int = 1) -> tuple[Seen, ...]:
        return look(self._pages, self.site.registry_web.container, lines)

    def _explained(self, name: str, probe: Callable[[], Evidence], deadline: float) -> CheckResult:
        """The check; where it fails, with what the diagnosis finds."""
        try:
            return self._check(name, probe, deadline)
        except CheckFailed as error:
            self._explain(error)

    def _answering(self) -> Evidence:
        said = []
        for host in self._pages:
            with page_of(self.site, host) as page:
                said.append(f"{page.url} answers {page.get('/').status}")
        return Evidence(True, "; ".join(said))

    def _listing(self) -> Evidence:
        for host in self._pages:
            evidence = lists(self.site, host)
            if not evidence.holds:
                break
        return evidence

    def _matching(self) -> Evidence:
        (registry,) = look(self.hosts("registry"), self.site.registry.container)
        return matching(self.site, self._seen(), registry)

    def _diagnose(self) -> Findings:
        return diagnose.diagnose(self.site, *diagnose.ask(self.site, self.hosts()))

    def _explain(self, error: ApplyFailed | CheckFailed) -> NoReturn:
        """Raise the error again, with what the diagnosis finds."""
        findings = self._diagnose()
        if not findings:
            raise error
        display(findings)
        raise type(error)(f"{error.message}\n{findings}", error.remedy, result=error.result) from error


# 8.3.1

_CHOICES = (
    ("atcol/docker-registry-ui", "1", "", "REG1"),
    ("hyper/docker-registry-web before 0.1.0", "2", "host_port", "REGISTRY_HOST, REGISTRY_PORT, READONLY"),
    (
        "hyper/docker-registry-web from 0.1.0 on",
        "2",
        "url",
        "REGISTRY_URL, REGISTRY_NAME, REGISTRY_READONLY, REGISTRY_TRUST_ANY_SSL, REGISTRY_BASIC_AUTH",
    ),
)
"""Image, version of the registry's API, value of `registry_web.variables`, and the variables that it reads."""


def choice(site: Site) -> Table:
    """Which image reads which registry, and which fits here: by the registry's API, the image's tag, the parameters."""
    api, told = _api(site)
    tag = site.images[site.registry_web.image].tag if site.registry_web.image in site.images else ""
    rows = []
    for name, version, generation, read in _CHOICES:
        if generation != site.registry_web.variables:
            state = "– not by the parameters"
        elif api and version != api:
            state = f"✗ {told}"
        elif generation_of(tag) not in (None, generation):
            state = f"✗ {tag} does not read these"
        else:
            state = f"✓ {tag}" if api else f"– {told}"
        rows.append((name, version, generation, read, state))
    columns = ["image", "registry API", "registry_web.variables", "reads", "here"]
    return Table(pd.DataFrame(rows, columns=columns), "which page for which registry", states=("here",))


def _api(site: Site) -> tuple[str, str]:
    """The version of the API that the registry speaks, and how one knows; none where it does not tell."""
    try:
        with Registry.of(site) as registry:
            registry.ping()
    except RegistryTooOld as error:
        return "1", error.message
    except RunbookError as error:
        return "", f"not known: {error.message}"
    return "2", f"the registry at {site.registry_address} speaks API 2"
