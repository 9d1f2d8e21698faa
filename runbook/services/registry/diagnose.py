"""Why pushes, pulls and deletions fail (document 7.5): what Docker says, and what hosts and registry are like.

- `explain` finds a known failure in what `docker push` or `docker pull` printed.
- `diagnose` compares what every Docker host trusts, and looks at the registry's container, without changing anything.

Sources: Docker's client and daemon 1.11 to 20.10 (`registry/`, `distribution/`), Go's crypto/tls and crypto/x509, whose
messages these are; the document's 7.5.1; distribution's `registry/api/errcode`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from runbook.errors import RunbookError
from runbook.remote.containers import PUBLISHED, published, way_out
from runbook.remote.hosts import Hosts, Output
from runbook.remote.probes import LISTENERS, listeners, values
from runbook.remote.shell import quote
from runbook.services.docker.daemon import SETTINGS
from runbook.services.findings import Finding, Findings
from runbook.services.registry import trust
from runbook.services.registry.certificate import Certificate
from runbook.services.registry.client import Registry
from runbook.services.registry.steps import READ_ONLY
from runbook.services.registry.trust import Trust
from runbook.site import Site


@dataclass(frozen=True)
class Failure:
    """A known failure: the words that betray it, its cause, and the remedy. `passing`: it may go by itself."""

    pattern: re.Pattern[str]
    cause: str
    remedy: str
    passing: bool = False


def _failure(pattern: str, cause: str, remedy: str, *, passing: bool = False) -> Failure:
    return Failure(re.compile(pattern), cause, remedy, passing)


_ADD = "run 7.2: it tells this host's Docker to trust the registry"

KNOWN: tuple[Failure, ...] = (
    _failure(
        r"tls: oversized record received|server gave HTTP response to HTTPS client"
        r"|first record does not look like a TLS handshake",
        "Docker there does not have the registry among its insecure ones, and speaks TLS to it (7.5.1)",
        _ADD,
    ),
    _failure(
        r"x509: certificate signed by unknown authority",
        "Docker there does not have the CA of the registry's certificate",
        _ADD,
    ),
    _failure(
        r"x509: certificate is valid for|cannot validate certificate for .* doesn't contain any IP SANs"
        r"|certificate relies on legacy Common Name|certificate is not valid for any names",
        "the registry's certificate is not for the address that Docker hosts know it by",
        "have one signed with that address as a subject alternative name, and run 7.3",
    ),
    _failure(
        r"x509: certificate has expired or is not yet valid",
        "the registry's certificate is not valid at this time, by the host's clock",
        "compare the host's clock; else have a new certificate signed, and run 7.3",
    ),
    _failure(
        r"no basic auth credentials|unauthorized: authentication required|401 Unauthorized",
        "the registry asks for a user and a password, and was given none, or wrong ones",
        "correct registry.user and what registry.password refers to, and run 7.3; for people: docker login",
    ),
    _failure(
        r"denied: requested access to the resource is denied",
        "the name has no registry in front, so that Docker Hub was asked; or the user may not do this",
        "tag the image as HOST:PORT/NAME:TAG",
    ),
    _failure(
        r"connection refused",
        "nothing listens at the registry's address",
        "run 7.3; see the registry's log",
        passing=True,
    ),
    _failure(
        r"no route to host|i/o timeout|request canceled while waiting for connection|Client\.Timeout exceeded"
        r"|TLS handshake timeout|network is unreachable",
        "the registry's host is not reached from there",
        "see the route and the firewall between them: the registry's port must be open to every Docker host",
        passing=True,
    ),
    _failure(
        r"no such host",
        "the registry's name is not known there",
        "write its IPv4 address into the parameters, or have the hosts resolve the name",
    ),
    _failure(
        r"/v1/_ping|/v1/repositories|Docker-Distribution-Api-Version",
        "what answers speaks version 1 of the registry's API, or is no registry",
        "run registry:2.3.0 or later by its explicit tag: registry:latest was version 1 until July 2016",
    ),
    _failure(
        r"405 Method Not Allowed|HTTP 405 response|unsupported: The operation is unsupported",
        "the registry does not do this: it is read-only, or runs without REGISTRY_STORAGE_DELETE_ENABLED (7.5.2)",
        "run 7.3: it makes the container anew with delete enabled, and writable",
    ),
    _failure(
        r"no space left on device",
        "a disk is full",
        "see `df` on the host and on the registry's: delete tags, then collect the garbage",
    ),
    _failure(
        r"blob upload unknown|blob unknown to registry|500 Internal Server Error",
        "the registry lost what it was told, or cannot write to its folder",
        "see its log, and its folder's disk and owner; with SELinux run 7.3, which labels the folder for containers; "
        "restart it where garbage was collected since it started",
        passing=True,
    ),
    _failure(
        r"No such image|does not exist locally|tag does not exist",
        "the image is not on that host",
        "run chapter 5: it loads the images of the parameters",
    ),
)
"""In the order in which they are looked for: the first one counts."""

ABSENT = re.compile(
    r"not found|manifest unknown|name unknown|does not exist or no pull access|repository name not known"
)
"""What Docker says of an image that a registry does not have: then it reached the registry, and trusts it."""


def explain(text: str) -> Failure | None:
    """The known failure in what Docker printed; None where it is none of them."""
    return next((failure for failure in KNOWN if failure.pattern.search(text)), None)


def why(text: str) -> tuple[str, str | None]:
    """What Docker printed in a line, with its cause where that is known, and the remedy."""
    failure = explain(text)
    said = " ".join(text.split())[-400:] or "nothing was printed"
    return (f"{failure.cause}: {said}", failure.remedy) if failure else (said, None)


def diagnose(hosts: Hosts) -> Findings:
    """What keeps hosts from pushing to and pulling from the registry, and people from deleting. Changes nothing.

    Looks at every Docker host's trust, at the registry's container and port, and asks the registry itself.
    """
    site = hosts.site
    address = site.registry_address
    if address is None:
        return Findings("registry", ())
    certificate = Certificate.of(site)
    ca = certificate.ca if certificate else b""
    found: list[Finding] = []
    for host, one in trust.of(hosts.having("docker"), address).items():
        found += trust_findings(site, host, one, ca)
    inspect = LISTENERS + PUBLISHED + _INSPECT.format(name=quote(site.registry.container))
    for host, output in hosts.having("registry").run(inspect).items():
        found += container_findings(site, host, output)
        found += _asked(site, host)
    return Findings("registry", tuple(found))


def trust_findings(site: Site, host: str, one: Trust, ca: bytes) -> Iterator[Finding]:
    """What is wrong with a host's trust."""
    good, why_not = trust.judged(site, one, ca)
    if not good:
        cause = f"Docker there does not trust {site.registry_address} as it should"
        seen = ", ".join(one.effective) or "none"
        evidence = f"{why_not}; insecure registries of the running Docker: {seen}" if one.pid else why_not
        remedy = _ADD if one.installed else "run chapter 5 first, then 7.2"
        if one.problem:
            remedy = "see that the host is up and reached"
        yield Finding(host, cause, evidence, remedy)
    if one.flags and one.listed is not None:
        where = ", ".join(one.sources)
        yield Finding(
            host,
            "Docker will not start again: it is told its insecure registries in two places",
            f"{trust.FLAG} in {where}, and {trust.KEY} in {SETTINGS}",
            "run 7.2: it moves those of the file to the command line",
        )


def container_findings(site: Site, host: str, output: Output) -> Iterator[Finding]:
    """What is wrong with the registry's container, by `docker inspect`, and who listens at its port instead."""
    name, port = site.registry.container, site.registry.port
    if output.error is not None:
        yield Finding(host, "the registry's host does not answer", output.error.message, output.error.remedy or "")
        return
    found: Mapping[str, Any] = next(iter(map(json.loads, values(output.stdout, "container"))), {})
    state = found.get("State", {})
    if not state.get("Running"):
        shown = state.get("Status", "there is no such container")
        log = "\n".join(values(output.stdout, "log")[-4:])
        yield Finding(host, f"the container {name} does not run", f"{shown}\n{log}".strip(), "run 7.3")
        holder = next((one for one in published(output.stdout) if port in one.ports), None)
        if holder is not None:
            known = {key: declared.tag for key, declared in site.images.items()}
            taken = not holder.is_task and holder.same_image(known.get(site.registry.image, ""))
            remedy = "run 7.3, which takes it over" if taken else way_out(holder)
            yield Finding(host, f"another container has the registry's port {port}", str(holder), remedy)
            return
        for listener in listeners(output.stdout) or ():
            if listener.port == port:
                yield Finding(
                    host,
                    f"something else listens at the registry's port {port}",
                    str(listener),
                    "stop it, or choose another registry.port",
                )
        return
    if denied := [line for line in values(output.stdout, "log") if re.search(r"permission denied", line, re.I)]:
        yield Finding(
            host,
            "the registry may not use its folder",
            denied[-1],
            f"with SELinux run 7.3, which labels {site.registry.data_dir} for containers "
            "(chcon -R -t svirt_sandbox_file_t); else see the folder's owner and mode",
        )
    variables = dict(one.split("=", 1) for one in found["Config"].get("Env") or () if "=" in one)
    if re.search(r"true", variables.get(READ_ONLY, "")):
        yield Finding(host, "the registry is read-only", f"{READ_ONLY}={variables[READ_ONLY]}", "run 7.3")
    wanted, deletes = site.registry.delete_enabled, variables.get("REGISTRY_STORAGE_DELETE_ENABLED") == "true"
    if wanted and not deletes:
        yield Finding(
            host,
            "the registry does not delete: it answers 405 (7.5.2)",
            "it runs without REGISTRY_STORAGE_DELETE_ENABLED=true",
            "run 7.3: it makes the container anew with it",
        )
    bound = {
        binding["HostPort"]
        for bindings in (found["HostConfig"].get("PortBindings") or {}).values()
        for binding in bindings or ()
    }
    if str(port) not in bound:
        evidence = f"it publishes {', '.join(sorted(bound)) or 'no port'}"
        yield Finding(host, f"the registry is not published at port {port}", evidence, "run 7.3")


_INSPECT = """\
command -v docker >/dev/null 2>&1 || exit 0
c=$(docker inspect --type container -f '{{{{json .}}}}' {name} 2>/dev/null) && echo "container=$c"
docker logs --tail 40 {name} 2>&1 | cut -c 1-300 | sed 's/^/log=/'
exit 0
"""


def _asked(site: Site, host: str) -> Iterator[Finding]:
    """What the registry itself says, asked from here."""
    try:
        with Registry.of(site) as registry:
            registry.ping()
    except RunbookError as error:
        yield Finding(host, "the registry does not answer as it should", error.message, error.remedy or "see its log")
