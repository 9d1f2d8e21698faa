"""Which of page, registry, network and variables is at fault where the page does not list its registry (8.3.2).

The document says: look into the logs of both containers, and at the API. Here both hosts are asked twice, read-only:
what Docker tells of the containers, and who gets an answer from whom: the registry from its own host, from this
machine and from within the page's network namespace; the page from its own host and from this machine. A pure function
(`diagnose`) makes the causes of that; what follows from a cause is not told as another one.

A published port answers even where nothing listens behind it (docker-proxy accepts first), so that only a line of HTTP
counts as an answer. It is asked for by bash's /dev/tcp: hosts need no curl, and images need nothing at all.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from runbook.errors import EndpointTimeout, EndpointUnreachable, RunbookError
from runbook.remote.checks import Evidence
from runbook.remote.containers import way_out
from runbook.remote.hosts import Hosts, Output
from runbook.remote.probes import values
from runbook.remote.shell import quote
from runbook.secrets import Secret
from runbook.services.findings import Finding, Findings
from runbook.services.registry import Registry
from runbook.services.registry_web.container import (
    UNSET,
    Address,
    Seen,
    asked,
    generation_of,
    look,
    registry_of,
    variables,
)
from runbook.services.registry_web.page import lists, page_of
from runbook.site import HostParameters, Site

SUBJECT = "the registry's page"
ITSELF = "127.0.0.1"

UNKNOWN = "unknown"
"""What a host answers that has no bash or nsenter to ask with."""


@dataclass(frozen=True)
class Reach:
    """What one asker got from an address: `line` is the first of its answer, `error` says why there was none.

    Neither is set where it was not tried.
    """

    line: str = ""
    error: str = ""

    @property
    def answered(self) -> bool:
        """Whether anything spoke HTTP there."""
        return self.line.startswith("HTTP/")

    @property
    def silent(self) -> bool:
        """Whether it was asked for, and nothing spoke HTTP there."""
        return bool(self.line or self.error) and not self.answered


@dataclass(frozen=True)
class Place:
    """A container, and who gets an answer from it: its own host (`within`) and this machine (`outside`)."""

    seen: Seen
    within: Reach = Reach()
    outside: RunbookError | None = None


@dataclass(frozen=True)
class Page(Place):
    """A page; `registry` is what it gets from its registry, and `lists` whether it lists what the registry lists."""

    registry: Reach = Reach()
    lists: Evidence = field(default_factory=lambda: Evidence(False, "", tried=False))


# asking

_ASK = r"""
ask='exec 3<>"/dev/tcp/$0/$1" && printf "GET %s HTTP/1.0\r\nHost: %s\r\n\r\n" "$2" "$0" >&3 &&
  IFS= read -r line <&3 && printf "%s\n" "$line"'
answer() {
  key=$1 host=$2 port=$3 path=$4; shift 4
  for tool in bash ${1:+"$1"}; do
    command -v "$tool" >/dev/null 2>&1 || { echo "$key=unknown"; return; }
  done
  line=$(timeout 8 "$@" bash -c "$ask" "$host" "$port" "$path" 2>&1); status=$?
  [ $status -ne 124 ] || line='no answer within 8 s'
  printf '%s=%s %s\n' "$key" "$status" "$(printf '%s' "$line" | tr -d '\r' | head -n 1)"
}
"""


def registry_question(port: int) -> str:
    """The sh text by which the registry's host asks its own registry."""
    return f"{_ASK}answer within {ITSELF} {port} /v2/\n"


def page_question(seen: Seen, port: int, registry: Address | None) -> str:
    """The sh text by which the page's host asks its own page, and, from within the page's network, the registry."""
    text = f"{_ASK}answer within {ITSELF} {port} /\n"
    pid = int(seen.inspected.get("State", {}).get("Pid") or 0)
    if registry is not None and seen.running and pid:
        host, number = registry
        text += f"answer registry {quote(host)} {number} /v2/ nsenter -t {pid} -n\n"
    return text


def reach(output: Output, key: str) -> Reach:
    """What `answer` told under `key`."""
    told = values(output.stdout, key)
    if not told or told[0] == UNKNOWN:
        return Reach()
    status, _, line = told[0].partition(" ")
    if line.startswith("nsenter:"):
        return Reach()
    if status == "0":
        return Reach(line=line or "an empty line")
    return Reach(error=_reason(line))


def _reason(line: str) -> str:
    """bash's `bash: line 1: /dev/tcp/…: Connection refused`, from the end; nothing at all from a port that hung up."""
    return line.rpartition(": ")[2].strip() or "the connection ended without an answer"


def ask(site: Site, hosts: Hosts) -> tuple[Place, tuple[Page, ...]]:
    """Ask both hosts of a site with a page, and this machine. What cannot be reached is part of the answer."""
    (seen,) = look(hosts.having("registry"), site.registry.container)
    said = hosts.only(seen.host.name).run(registry_question(site.registry.port))[seen.host.name]
    return Place(seen, reach(said, "within"), _error(lambda: _ping(site))), tuple(
        _ask_page(site, hosts, page) for page in look(hosts.having("registry_web"), site.registry_web.container)
    )


def _ask_page(site: Site, hosts: Hosts, seen: Seen) -> Page:
    host, address = seen.host, asked(seen.environment, site.registry_web.variables)
    said = hosts.only(host.name).run(page_question(seen, site.registry_web.port, address))[host.name]
    try:
        evidence = lists(site, host)
    except RunbookError as error:
        evidence = Evidence.against(error)
    return Page(seen, reach(said, "within"), _error(lambda: _get(site, host)), reach(said, "registry"), evidence)


def _ping(site: Site) -> None:
    with Registry.of(site) as registry:
        registry.ping()


def _get(site: Site, host: HostParameters) -> None:
    with page_of(site, host) as endpoint:
        endpoint.get("/")


def _error(question: Callable[[], None]) -> RunbookError | None:
    try:
        question()
    except RunbookError as error:
        return error
    return None


# judging


def diagnose(site: Site, registry: Place, pages: Sequence[Page]) -> Findings:
    """What keeps pages from listing what the registry lists; in the order in which it should be mended."""
    of_registry, of_page = site.registry, site.registry_web
    tags = {key: declared.tag for key, declared in site.images.items()}
    ports = of_registry.port, of_registry.container_port
    fault = [*_container("registry", "7.3", registry, *ports, tags.get(of_registry.image, ""))]
    fault = fault or [*_registry(registry)]
    found = [*fault]
    for page in pages:
        ports = of_page.port, of_page.container_port
        own = [*_container("page", "8.2", page, *ports, tags.get(of_page.image, ""))]
        own = own or [*_page(page)] or [*_variables(site, page)] or [*_network(site, page, registry)]
        found += own or ([] if fault else [*_list(site, page)])
    return Findings(SUBJECT, tuple(found))


def _container(what: str, section: str, place: Place, port: int, inside: int, tag: str) -> Iterator[Finding]:
    """What is wrong with a container itself, as its host sees it; the first that is."""
    seen = place.seen
    host = seen.host.name
    holder = None if seen.running else seen.holder(port)
    if holder is not None:
        taken = not holder.is_task and holder.same_image(tag)
        remedy = f"run {section}, which takes it over" if taken else f"{way_out(holder)}; then run {section}"
        evidence = f"port {port} is published by {holder}; {seen.name}: {seen.status}"
        yield Finding(host, f"{what}: another container has its port", evidence, remedy)
    elif seen.missing and place.within.answered:
        evidence = f"{host} gets an answer from its port {port} ({place.within.line}); {seen.name}: {seen.status}"
        remedy = f"see who listens there (ss -ltnp) and stop it, then run {section}"
        yield Finding(host, f"{what}: a process that is no container has its port", evidence, remedy)
    elif seen.trouble:
        cause = "its container is not there" if seen.missing else "nothing is known of its container"
        yield Finding(host, f"{what}: {cause}", seen.trouble, seen.remedy or f"run {section}")
    elif not seen.running:
        evidence = f"{seen.name}: {seen.status}{_last_word(seen)}"
        yield Finding(host, f"{what}: its container does not run", evidence, f"run {section}, which starts it")
    elif port not in (ports := seen.published(inside)):
        evidence = f"{seen.name} is published at {', '.join(map(str, ports)) or 'no port'}, and should be at {port}"
        yield Finding(host, f"{what}: its container is published at another port", evidence, f"run {section}")
    elif place.within.silent:
        evidence = f"{host} gets no answer from its port {port}: {place.within.error or place.within.line}"
        remedy = f"wait a minute where it has just started; else read its log (docker logs {seen.name})"
        yield Finding(host, f"{what}: its container runs and does not answer", evidence + _last_word(seen), remedy)


def _registry(place: Place) -> Iterator[Finding]:
    """A registry that answers on its own host must answer here, too, and as one that speaks API 2."""
    error, host = place.outside, place.seen.host.name
    if error is None:
        return
    if place.within.answered and type(error) in _UNREACHED:
        yield Finding(host, "network: the registry cannot be reached from this machine", error.message, _LET_IN)
    else:
        remedy = error.remedy or "run 7.4, which looks closer"
        yield Finding(host, "registry: it does not answer as it should", error.message, remedy)


def _page(page: Page) -> Iterator[Finding]:
    """A page that answers on its own host must answer here, too. What it answers is for `_list` to judge."""
    error, host = page.outside, page.seen.host.name
    if page.within.answered and type(error) in _UNREACHED:
        assert error is not None
        yield Finding(host, "network: the page cannot be reached from this machine", error.message, _LET_IN)
    elif error is not None and getattr(error, "answer", None) is None:
        yield Finding(host, "page: it does not answer", error.message, error.remedy or "read its log")


_UNREACHED = (EndpointUnreachable, EndpointTimeout)
_LET_IN = "let this machine's address through (open_ports), or work from within the network"


def _variables(site: Site, page: Page) -> Iterator[Finding]:
    """The variables of a container that should lead it to the registry, and have other values."""
    present = page.seen.environment
    wanted = {name: value for name, value in variables(site).items() if name in _WAY}
    wrong = [
        f"{name} is {'not set' if name not in present else _told(value, present[name])}, and should be {_told(value)}"
        for name, value in wanted.items()
        if present.get(name) != _revealed(value)
    ]
    if not wrong:
        return
    evidence = "; ".join(wrong)
    if (address := asked(present, site.registry_web.variables)) and address[0] in _OWN:
        evidence += f"; to a container {address[0]} is itself, not its host"
    remedy = "run 8.2, which corrects them"
    yield Finding(page.seen.host.name, "variables: they do not lead to the registry", evidence, remedy)


_WAY = (
    *("REGISTRY_HOST", "REGISTRY_PORT", "REGISTRY_URL"),
    *("REGISTRY_TRUST_ANY_SSL", "REGISTRY_BASIC_AUTH"),
)
_OWN = ("localhost", "127.0.0.1", "::1")


def _told(value: str | Secret, present: str | None = None) -> str:
    if isinstance(value, Secret):
        return "the parameters' secret" if present is None else "another secret"
    return value if present is None else present


def _revealed(value: str | Secret) -> str:
    return value.reveal() if isinstance(value, Secret) else value


def _network(site: Site, page: Page, registry: Place) -> Iterator[Finding]:
    """A registry that answers on its own host must answer the page, too."""
    if not page.registry.silent or not registry.within.answered:
        return
    host, port = registry_of(site)
    evidence = (
        f"from within {page.seen.name}, {host}:{port} gives: {page.registry.error or page.registry.line}, while "
        f"{registry.seen.host.name} itself is answered {registry.within.line}{_last_word(page.seen)}"
    )
    remedy = (
        f"let the containers of {page.seen.host.name} through to port {port} (iptables -S); after a reload of "
        "firewalld restart docker, which writes its rules anew"
    )
    yield Finding(page.seen.host.name, "network: the page cannot reach the registry", evidence, remedy)


def _list(site: Site, page: Page) -> Iterator[Finding]:
    """All is well as far as one sees, and yet the page does not list the registry."""
    evidence, seen = page.lists, page.seen
    if evidence.holds or not evidence.text:
        return
    host, generation = seen.host.name, site.registry_web.variables
    other = {"host_port": "url", "url": "host_port"}[generation]
    told = f"{evidence.text}{_last_word(seen)}"
    if generation_of(seen.image) not in (None, generation):
        yield Finding(
            host,
            "variables: the image does not read them",
            f"{seen.image} reads those of `{other}`, and was given those of `{generation}`; {told}",
            f"set registry_web.variables: {other} in the parameters, then run 8.2",
        )
    elif f"{UNSET[0]}:{UNSET[1]}" in told:
        yield Finding(
            host,
            "variables: the image does not read them",
            f"it asks localhost instead of what `{generation}` gave it: {told}",
            f"set registry_web.variables: {other} in the parameters, then run 8.2",
        )
    else:
        yield Finding(host, "page: it does not list the registry", told, f"read its log (docker logs {seen.name})")


def _last_word(seen: Seen) -> str:
    """The last line of a container's log that complains."""
    complaints = [line for line in seen.said if re.search(r"error|warn|exception|refused|fatal|panic", line, re.I)]
    return f"; its log says: {complaints[-1][:300]}" if complaints else ""
