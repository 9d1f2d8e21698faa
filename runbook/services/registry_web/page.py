"""What the registry's page lists, as a browser gets it, and whether that is what the registry lists (document 8.2).

Versions of hyper/docker-registry-web differ in their HTML. What they have in common: a repository is a link whose text
is its name and whose path ends with it, encoded once or twice; repositories without tags are left out; a page holds
100, and from 0.1 on a link with `start=` leads to the next one. Where the page cannot ask its registry, early versions
answer 500, later ones with a page that lists nothing and says why.

Sources: RepositoryController.groovy and views/repository/index.gsp of github.com/mkuchin/docker-registry-web.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from html.parser import HTMLParser
from itertools import islice
from urllib.parse import parse_qs, unquote, urljoin, urlsplit

import pandas as pd

from runbook.errors import NameInvalid, RepositoryUnknown
from runbook.remote.checks import Evidence
from runbook.services.http import Answer, Endpoint, Timeouts
from runbook.services.registry import Registry
from runbook.services.registry.names import repository_name
from runbook.site import HostParameters, Site
from runbook.wording import first, plural

PAGES = 20
"""Pages that are followed: for each repository on them, the page asks its registry for the tags, and takes its time."""

TIMEOUTS = Timeouts(read=60.0, whole=90.0)
"""The page says nothing until it has asked for the tags of all repositories on it, one after the other."""

FIRST = 100
"""Repositories that versions without further pages show: as many as a registry gives that is not told how many."""

SHOWN = 20
"""Repositories that evidence names."""


@dataclass(frozen=True)
class Listing:
    """The repositories that the page lists, in its order.

    `whole` is False where there were more pages than were followed; `said` is the text of the first page.
    """

    repositories: tuple[str, ...]
    whole: bool = True
    said: str = ""


def read(endpoint: Endpoint, pages: int = PAGES) -> Listing:
    """What the page at `endpoint` lists, over up to so many pages. Raises ServiceError where it does not answer so."""
    path, said = "/", ""
    names: dict[str, None] = {}
    visited: set[str] = set()
    for _ in range(pages):
        answer = endpoint.get(path)
        said = said or answer.excerpt()
        links = list(_links(answer))
        names |= dict.fromkeys(text for href, text in links if _is_of(href, text))
        following = next((href for href, _ in links if (start := _start(href)) and start not in visited), None)
        if following is None:
            return Listing(tuple(names), True, said)
        visited.add(_start(following))
        parts = urlsplit(following)
        path = f"{parts.path}?{parts.query}"
    return Listing(tuple(names), False, said)


def page_of(site: Site, host: HostParameters) -> Endpoint:
    """The page of a host, to be asked from this machine."""
    url = f"http://{host.address}:{site.registry_web.port}"
    return Endpoint(url, name=f"the registry's page on {host.name}", timeouts=TIMEOUTS)


def lists(site: Site, host: HostParameters) -> Evidence:
    """Whether a host's page lists what the registry lists. Raises ServiceError and SecretError."""
    with page_of(site, host) as endpoint, Registry.of(site) as registry:
        return compare(read(endpoint), registry)


def compare(listing: Listing, registry: Registry) -> Evidence:
    """Whether a listing holds exactly the registry's repositories that have tags, as far as it goes.

    Raises ServiceError where the registry does not answer.
    """
    known = list(_as_far_as(listing, registry.repositories()))
    listed = set(listing.repositories)
    unknown = sorted(listed.difference(known))[:SHOWN]
    missing = list(islice(_with_tags(registry, [name for name in known if name not in listed]), SHOWN))
    rows = [(name, "✓ lists it", "✗ does not") for name in missing]
    rows += [(name, "✗ does not", "✓ lists it") for name in unknown]
    if not rows:
        text = f"both list {_named(listing.repositories)}"
        if not listing.whole:
            text += f"; the page goes on after {PAGES} pages, which were compared"
        rows = [(name, "✓ lists it", "✓ lists it") for name in listing.repositories[:SHOWN]]
        return Evidence(True, text, _table(rows))
    said = [f"the page lacks {', '.join(missing)}"] if missing else []
    said += [f"the page lists {', '.join(unknown)}, which the registry does not have"] if unknown else []
    remedy = "ask the diagnosis (8.3.2)"
    if not listed:
        said.append(f"it says: {listing.said}")
    elif listing.whole and len(listed) >= FIRST and not unknown:
        said.append(f"this version shows the first {FIRST} only")
        remedy = "use a version from 0.1.0 on, which has pages, with `registry_web.variables: url` (8.3.1)"
    return Evidence(False, "; ".join(said), _table(rows), remedy)


def _table(rows: Sequence[tuple[str, str, str]]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["repository", "registry", "page"])


def _named(names: Sequence[str]) -> str:
    if not names:
        return "no repository: what is pushed from now on (7.4) must show there"
    return f"{plural(len(names), 'repository', 'repositories')}: {first(names, SHOWN)}"


def _as_far_as(listing: Listing, names: Iterable[str]) -> Iterator[str]:
    if not listing.whole and not listing.repositories:
        return  # all that was read of it are emptied ones, which it leaves out
    for name in names:
        yield name
        if not listing.whole and name == listing.repositories[-1]:
            return


def _with_tags(registry: Registry, names: Iterable[str]) -> Iterator[str]:
    for name in names:
        try:
            if registry.tags(name):
                yield name
        except RepositoryUnknown:
            continue  # emptied, as the page's leaving it out says


# the links of a page


class _Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, str]] = []
        self._href: str | None = None
        self._text: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        if tag == "a":
            self._href, self._text = dict(attributes).get("href"), []

    def handle_data(self, data: str) -> None:
        self._text.append(data)

    def handle_endtag(self, tag: str) -> None:
        if tag == "a" and self._href is not None:
            self.found.append((self._href, "".join(self._text).strip()))
            self._href = None


def _links(answer: Answer) -> Iterator[tuple[str, str]]:
    """The links of a page within its own site, each with its text."""
    links = _Links()
    links.feed(answer.text)
    links.close()
    for href, text in links.found:
        target = urljoin(answer.url, href)
        if urlsplit(target)[:2] == urlsplit(answer.url)[:2]:
            yield target, text


def _is_of(href: str, text: str) -> bool:
    """Whether a link leads to the repository that its text names."""
    try:
        return unquote(unquote(urlsplit(href).path)).endswith(f"/{repository_name(text)}")
    except NameInvalid:
        return False


def _start(href: str) -> str:
    """After which repository the page begins that a link leads to; nothing for other links."""
    return parse_qs(urlsplit(href).query).get("start", [""])[-1]
