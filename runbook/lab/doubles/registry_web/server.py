#!/usr/bin/env python3
"""A rehearsal double of hyper/docker-registry-web: the page of a Docker registry, at port 8080.

It reads the variables of both generations of the real image, with their defaults:

- before 0.1.0: REGISTRY_HOST and REGISTRY_PORT (localhost, 5000), READONLY (false); plain HTTP only;
- from 0.1.0 on: REGISTRY_URL (http://localhost:5000/v2), REGISTRY_NAME (localhost:5000), REGISTRY_READONLY (true),
  REGISTRY_TRUST_ANY_SSL (false), REGISTRY_BASIC_AUTH (`user:password` in base64).

REHEARSAL_GENERATION, `0.0` or `0.1`, says which one it plays: that one reads its own variables only, so that with those
of the other it asks localhost:5000, itself, as the real image does. Without it, the variables that are set decide.

As the real page it lists 100 repositories a page (`?start=LAST`), leaves out those without tags, links each to
`/repository/tags/NAME`, and where it cannot reach its registry answers with an error page (0.0) or a page that says so
(0.1). Other than the real one it deletes on POST only. One file, Python 3.11's standard library, nothing else.

Sources: github.com/mkuchin/docker-registry-web: README, Dockerfile, UrlMappings.groovy, RepositoryController.groovy,
WEB-INF/config.yml and views/repository of both generations.
"""

from __future__ import annotations

import html
import json
import os
import re
import signal
import ssl
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from email.message import Message
from http import HTTPStatus
from http.client import HTTPException
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NoReturn
from urllib.parse import parse_qs, quote, unquote, urlsplit

DOUBLE = "a rehearsal double of hyper/docker-registry-web"
PORT = 8080
PAGE = 100  # repositories a page
TIMEOUT = 10.0  # seconds until the registry must answer
MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
GENERATIONS = ("0.0", "0.1")


@dataclass(frozen=True)
class Settings:
    """What the container's variables say."""

    generation: str
    url: str  # the registry's, with /v2
    name: str  # of the registry, as images carry it
    readonly: bool
    trust_any_ssl: bool = False
    basic_auth: str = field(default="", repr=False)

    @classmethod
    def of(cls, variables: Mapping[str, str]) -> Settings:
        """Raises ValueError for a generation that there is not."""
        generation = variables.get("REHEARSAL_GENERATION") or (
            "0.0" if "REGISTRY_HOST" in variables and "REGISTRY_URL" not in variables else "0.1"
        )
        if generation not in GENERATIONS:
            raise ValueError(f"REHEARSAL_GENERATION is {generation!r}, not one of {', '.join(GENERATIONS)}")
        if generation == "0.0":
            address = f"{variables.get('REGISTRY_HOST', 'localhost')}:{variables.get('REGISTRY_PORT', '5000')}"
            return cls(generation, f"http://{address}/v2", address, variables.get("READONLY") == "true")
        return cls(
            generation,
            variables.get("REGISTRY_URL", "http://localhost:5000/v2").rstrip("/"),
            variables.get("REGISTRY_NAME", "localhost:5000"),
            variables.get("REGISTRY_READONLY", "true") == "true",
            variables.get("REGISTRY_TRUST_ANY_SSL") == "true",
            variables.get("REGISTRY_BASIC_AUTH", ""),
        )


class RegistryError(Exception):
    """The registry cannot be reached, or its answer is none of a registry."""


class NotThere(RegistryError):
    """The registry answers that it has no such thing."""


@dataclass(frozen=True)
class Tag:
    name: str
    digest: str
    created: str
    layers: int
    size: int  # bytes


class Registry:
    """The registry that the page shows."""

    def __init__(self, settings: Settings) -> None:
        self.url = settings.url
        self._headers = {"Authorization": f"Basic {settings.basic_auth}"} if settings.basic_auth else {}
        context = ssl.create_default_context()
        if settings.trust_any_ssl:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        self._opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
        )

    def repositories(self, start: str | None) -> tuple[list[tuple[str, int]], str | None]:
        """A page of repositories after `start` with their number of tags, and where the next page starts."""
        after = f"&last={quote(start, safe='')}" if start else ""
        found, headers = self._get(f"_catalog?n={PAGE}{after}")
        names = _texts(found.get("repositories"))
        counted = [(name, len(self.tags(name))) for name in names]
        return counted, names[-1] if names and headers.get("Link") else None

    def tags(self, repository: str) -> list[str]:
        try:
            return _texts(self._get(f"{_path(repository)}/tags/list")[0].get("tags"))
        except NotThere:  # deleted since
            return []

    def tag(self, repository: str, name: str) -> tuple[Tag, list[str]]:
        """A tag, and its image's history, the newest first. NotThere where it has gone."""
        manifest, headers = self._get(f"{_path(repository)}/manifests/{_path(name)}", MANIFEST)
        layers = [layer for layer in manifest.get("layers") or () if isinstance(layer, dict)]
        config: dict[str, Any] = {}
        if digest := (manifest.get("config") or {}).get("digest"):
            config = self._get(f"{_path(repository)}/blobs/{_path(digest)}")[0]
        history = [str(step.get("created_by", "")) for step in config.get("history") or ()]
        size = sum(int(layer.get("size", 0)) for layer in layers)
        told = headers.get("Docker-Content-Digest", "")
        return Tag(name, told, str(config.get("created", "")), len(layers), size), history[::-1]

    def delete(self, repository: str, tag: str) -> None:
        digest = self.tag(repository, tag)[0].digest
        self._open("DELETE", f"{_path(repository)}/manifests/{_path(digest)}")

    def _get(self, path: str, accept: str = "application/json") -> tuple[dict[str, Any], Message]:
        body, headers = self._open("GET", path, accept)
        try:
            value = json.loads(body)
        except ValueError as error:
            raise RegistryError(f"{self.url}/{path}: not JSON: {error}") from error
        if not isinstance(value, dict):
            raise RegistryError(f"{self.url}/{path}: not an object")
        return value, headers

    def _open(self, method: str, path: str, accept: str = "*/*") -> tuple[bytes, Message]:
        url = f"{self.url}/{path}"
        try:
            request = urllib.request.Request(url, headers={"Accept": accept, **self._headers}, method=method)
            with self._opener.open(request, timeout=TIMEOUT) as answer:
                return answer.read(), answer.headers
        except urllib.error.HTTPError as error:
            with error:
                said = error.read(2000).decode(errors="replace")
            kind = NotThere if error.code == HTTPStatus.NOT_FOUND and "errors" in said else RegistryError
            raise kind(f"{method} {url}: status {error.code} {error.reason} {said}".rstrip()) from error
        except (OSError, HTTPException, ValueError) as error:
            reason = getattr(error, "reason", error)
            raise RegistryError(f"{method} {url}: {type(reason).__name__}: {reason}") from error


def _texts(value: object) -> list[str]:
    return [one for one in value if isinstance(one, str)] if isinstance(value, list) else []


def _path(name: str) -> str:
    return quote(name, safe="/:")


# pages


@dataclass(frozen=True)
class Answer:
    body: str = ""
    status: int = 200
    location: str | None = None


_STYLE = (
    "body{font:15px/1.5 sans-serif;margin:0 auto;max-width:64em;padding:1em;color-scheme:light dark}"
    "table{border-collapse:collapse}td,th{border:1px solid #8888;padding:.3em .8em;text-align:left}"
    "pre{margin:0;white-space:pre-wrap}.error{border-left:4px solid #c33;padding:.3em 1em}"
    "footer{margin-top:2em;border-top:1px solid #8888;font-size:90%}"
)


def _page(settings: Settings, title: str, *parts: str, trail: Sequence[str] = (), status: int = 200) -> Answer:
    """`parts` and `trail` are HTML; all else is text."""
    way = " / ".join(['<a href="/repository/index">Home</a>', *trail])
    footer = f"This page is {DOUBLE} {settings.generation}: it stands in for the real one in a rehearsal."
    return Answer(
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{_text(title)}</title>'
        f"<style>{_STYLE}</style></head>\n<body><nav>{way}</nav><h1>{_text(title)}</h1>\n"
        f"<dl><dt>Registry</dt><dd>{_text(settings.name)}</dd></dl>\n"
        + "\n".join(parts)
        + f"\n<footer>{_text(footer)}</footer></body></html>\n",
        status,
    )


def _text(value: object) -> str:
    return html.escape(str(value))


def _link(path: str, text: str) -> str:
    return f'<a href="{_text(path)}">{_text(text)}</a>'


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """`rows` are of HTML."""
    titles = "".join(f"<th>{_text(title)}</th>" for title in head)
    lines = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>\n" for row in rows)
    return f"<table><tr>{titles}</tr>\n{lines}</table>"


def _tags_path(repository: str) -> str:
    return f"/repository/tags/{quote(repository, safe='')}"


Query = Mapping[str, str]


class Site:
    """The pages, by their paths."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.registry = Registry(settings)

    def get(self, path: str, query: Query) -> Answer:
        return self._answer({"index": self.index, "tags": self.tags, "tag": self.tag}, path, query)

    def post(self, path: str, query: Query) -> Answer:
        return self._answer({"delete": self.delete}, path, query)

    def _answer(self, pages: Mapping[str, Callable[[str, Query], Answer]], path: str, query: Query) -> Answer:
        found = re.fullmatch(r"(?:/repository)?(?:/(\w+)(?:/([^/]+))?)?/?", path)
        page = pages.get(found[1] or "index") if found else None
        if found is None or page is None:
            return _page(self.settings, "Not found", status=404)
        try:
            return page(unquote(found[2] or ""), query)
        except NotThere as error:
            log(f"WARN {error}")
            return _page(self.settings, "Not found", status=404)
        except RegistryError as error:
            log(f"ERROR Can't access registry: {error}")
            if self.settings.generation == "0.0":
                return _page(self.settings, "Error", '<p class="error">An error has occurred</p>', status=500)
            return _page(self.settings, "No registry", f'<p class="error">{_text(error)}</p>')

    def index(self, _: str, query: Query) -> Answer:
        repositories, following = self.registry.repositories(query.get("start"))
        rows = [(_link(_tags_path(name), name), str(count)) for name, count in repositories if count]
        further = []
        if following:
            link = _link(f"/repository/index?start={quote(following, safe='')}", "Next")
            further = [f"<p>{link}</p>"]
        return _page(self.settings, "Repositories", _table(("Repository", "Tags"), rows), *further)

    def tags(self, repository: str, _: Query) -> Answer:
        head = ["Id", "Tag", "Created", "Layers", "Size"] + ["Delete"] * (not self.settings.readonly)
        rows = []
        for name in self.registry.tags(repository):
            try:
                tag, _history = self.registry.tag(repository, name)
            except NotThere:  # of a kind that this page does not read, or deleted since
                continue
            path = f"/repository/tag/{quote(repository, safe='')}?name={quote(name, safe='')}"
            row = [_text(tag.digest[7:19]), _link(path, name), _text(tag.created), str(tag.layers), _size(tag.size)]
            rows.append(row + [self._delete_form(repository, name)] * (not self.settings.readonly))
        if not rows:
            return Answer(status=302, location="/repository/index")
        return _page(self.settings, "Tags", _table(head, rows), trail=[_text(repository)])

    def _delete_form(self, repository: str, tag: str) -> str:
        path = f"/repository/delete/{quote(repository, safe='')}?name={quote(tag, safe='')}"
        return f'<form method="post" action="{_text(path)}"><button>Delete</button></form>'

    def tag(self, repository: str, query: Query) -> Answer:
        tag, history = self.registry.tag(repository, query.get("name", ""))
        facts = f"<p>{_text(tag.digest)}, {tag.layers} layers, {_size(tag.size)}, created {_text(tag.created)}</p>"
        rows = [(f"<pre>{_text(step)}</pre>",) for step in history]
        trail = [_link(_tags_path(repository), repository), _text(tag.name)]
        return _page(self.settings, "Tag", facts, _table(("Command",), rows), trail=trail)

    def delete(self, repository: str, query: Query) -> Answer:
        if self.settings.readonly:
            log("WARN Readonly mode!")
            return _page(self.settings, "Readonly mode!", status=403)
        self.registry.delete(repository, query.get("name", ""))
        return Answer(status=303, location=_tags_path(repository))


def _size(size: float) -> str:
    for unit in ("B", "KB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"


# the server


def log(line: str) -> None:
    """A line of the container's log, whose control characters cannot pass for lines of their own."""
    print(re.sub(r"[\x00-\x1f\x7f-\x9f]", lambda match: f"\\x{ord(match[0]):02x}", line), flush=True)


class Server(ThreadingHTTPServer):
    """Serves the pages, a thread a connection."""

    daemon_threads = True

    def __init__(self, address: tuple[str, int], settings: Settings) -> None:
        self.site = Site(settings)
        super().__init__(address, _Connection)


class _Connection(BaseHTTPRequestHandler):
    server: Server
    timeout = 30  # seconds of silence until a connection is given up

    def do_GET(self) -> None:
        self._send(self.server.site.get(*self._asked()))

    do_HEAD = do_GET

    def do_POST(self) -> None:
        origin = self.headers.get("Origin")
        if origin is not None and urlsplit(origin).netloc != self.headers.get("Host"):
            self._send(Answer("another page may not ask for this\n", status=403))
        else:
            self._send(self.server.site.post(*self._asked()))

    def _asked(self) -> tuple[str, Query]:
        url = urlsplit(self.path)
        return url.path, {name: values[-1] for name, values in parse_qs(url.query).items()}

    def _send(self, answer: Answer) -> None:
        body = answer.body.encode()
        self.send_response(answer.status)
        if answer.location is not None:
            self.send_header("Location", answer.location)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'")
        self.end_headers()
        self.wfile.write(b"" if self.command == "HEAD" else body)

    def log_message(self, format: str, *args: object) -> None:
        log(f"INFO {self.client_address[0]} {format % args}")


def _end(number: int, frame: object) -> NoReturn:
    raise SystemExit(0)  # a container's first process has no default for SIGTERM


def main(arguments: Sequence[str]) -> int:
    if list(arguments) == ["--version"]:
        print(f"registry-web {GENERATIONS[-1]} ({DOUBLE})")
        return 0
    if arguments:
        print("usage: server.py [--version]; everything else is said by environment variables", file=sys.stderr)
        return 2
    try:
        settings = Settings.of(os.environ)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, _end)
    log(f"INFO {DOUBLE} {settings.generation}: {settings}")
    with Server(("", PORT), settings) as server:
        server.serve_forever()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
