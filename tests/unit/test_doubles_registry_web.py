"""The double of the registry's page: what it reads, shows and says where it cannot."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from urllib.parse import parse_qs, quote, urlsplit

import pytest
from loopback import Loopback, Piece, Request, answer

from runbook.lab.doubles.registry_web import server
from runbook.lab.doubles.registry_web.server import MANIFEST, Server, Settings

DIGEST = "sha256:" + "ab" * 32
CONFIG = "sha256:" + "cd" * 32
HOSTILE = "<img src=x onerror=alert(1)>"


class Registry(Loopback):
    """Repositories with tags, as a registry answers for them; deletes on request."""

    def __init__(self, repositories: dict[str, list[str] | None]) -> None:
        self.repositories = repositories
        super().__init__(self._reply)

    def _reply(self, request: Request) -> Iterator[Piece]:
        url = urlsplit(request.target)
        query = parse_qs(url.query)
        if url.path == "/v2/_catalog":
            yield self._catalog(int(query["n"][0]), query.get("last", [""])[0])
            return
        if url.path.endswith("/tags/list"):
            name = url.path.removeprefix("/v2/").removesuffix("/tags/list")
            yield answer(200, {"name": name, "tags": self.repositories[name]})
            return
        name, kind, reference = url.path.removeprefix("/v2/").rsplit("/", 2)
        if request.method == "DELETE":
            self.repositories[name] = None
            yield answer(202, {})
        elif kind == "blobs":
            yield answer(200, {"created": "2016-06-01T00:00:00Z", "history": [{"created_by": f"RUN {HOSTILE}"}]})
        elif reference in (self.repositories[name] or ()) and request.headers["accept"] == MANIFEST:
            layers = [{"digest": DIGEST, "size": 1500}, {"digest": CONFIG, "size": 500}]
            yield answer(200, {"layers": layers, "config": {"digest": CONFIG}}, Docker_Content_Digest=DIGEST)
        else:
            yield answer(404, {"errors": [{"code": "MANIFEST_UNKNOWN", "message": "unknown"}]})

    def _catalog(self, size: int, last: str) -> bytes:
        names = [name for name in sorted(self.repositories) if name > last]
        link = {"Link": f'</v2/_catalog?last={names[size - 1]}&n={size}>; rel="next"'} if len(names) > size else {}
        return answer(200, {"repositories": names[:size]}, **link)


@contextmanager
def page(**variables: str) -> Iterator[Server]:
    with Server(("127.0.0.1", 0), Settings.of(variables)) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        try:
            yield running
        finally:
            running.shutdown()
            thread.join()


def ask(running: Server, path: str, method: str = "GET", **headers: str) -> tuple[HTTPResponse, str]:
    connection = HTTPConnection("127.0.0.1", running.server_port, timeout=10)
    connection.request(method, path, headers=headers)
    response = connection.getresponse()
    body = response.read().decode()
    connection.close()
    return response, body


@pytest.mark.parametrize(
    ("variables", "generation", "url"),
    [
        ({"REGISTRY_HOST": "h", "REGISTRY_PORT": "8600"}, "0.0", "http://h:8600/v2"),
        ({"REGISTRY_URL": "http://h:8600/v2/"}, "0.1", "http://h:8600/v2"),
        ({"REHEARSAL_GENERATION": "0.1", "REGISTRY_HOST": "h"}, "0.1", "http://localhost:5000/v2"),
        ({"REHEARSAL_GENERATION": "0.0", "REGISTRY_URL": "http://h:8600/v2"}, "0.0", "http://localhost:5000/v2"),
        ({}, "0.1", "http://localhost:5000/v2"),
    ],
)
def test_each_generation_reads_its_own_variables_only(variables: dict[str, str], generation: str, url: str) -> None:
    settings = Settings.of(variables)
    assert (settings.generation, settings.url) == (generation, url)


def test_one_generation_deletes_unless_told_otherwise_and_the_other_only_where_told() -> None:
    assert not Settings.of({"REGISTRY_HOST": "h"}).readonly
    assert Settings.of({"REGISTRY_HOST": "h", "READONLY": "true"}).readonly
    assert Settings.of({}).readonly
    assert not Settings.of({"REGISTRY_READONLY": "false"}).readonly


def test_a_generation_that_there_is_not_is_refused() -> None:
    with pytest.raises(ValueError, match="REHEARSAL_GENERATION is '2'"):
        Settings.of({"REHEARSAL_GENERATION": "2"})


def test_the_program_says_what_it_is() -> None:
    command = [sys.executable, str(Path(server.__file__)), "--version"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert said == "registry-web 0.1 (a rehearsal double of hyper/docker-registry-web)\n"


def test_repositories_tags_and_history_are_shown_without_becoming_a_part_of_the_page() -> None:
    with Registry({"demo/hello": ["1.0", "missing<b>"], "emptied": None}) as registry:
        registry.repositories["demo/hello"] = ["1.0"]
        with page(REGISTRY_URL=f"{registry.url}/v2", REGISTRY_NAME=HOSTILE) as running:
            response, index = ask(running, "/")
            assert response.status == 200
            assert '<a href="/repository/tags/demo%2Fhello">demo/hello</a>' in index
            assert "emptied" not in index
            assert "rehearsal double of hyper/docker-registry-web 0.1" in index
            _, tags = ask(running, "/repository/tags/demo%2Fhello")
            for shown in ("abababababab", ">1.0</a>", "2016-06-01T00:00:00Z", "<td>2</td>", "2 KB"):
                assert shown in tags
            assert "Delete" not in tags
            _, tag = ask(running, "/repository/tag/demo%2Fhello?name=1.0")
            assert HOSTILE not in index + tags + tag
            assert "RUN &lt;img src=x" in tag
            response, _ = ask(running, "/repository/tags/emptied")
            assert (response.status, response.headers["Location"]) == (302, "/repository/index")
            assert ask(running, "/repository/tag/demo%2Fhello?name=2.0")[0].status == 404
            assert ask(running, "/elsewhere/at/all")[0].status == 404


def test_a_page_has_a_hundred_repositories_and_links_the_next() -> None:
    names = [f"app/{number:03}" for number in range(150)]
    with Registry({name: ["1"] for name in names}) as registry, page(REGISTRY_URL=f"{registry.url}/v2") as running:
        _, first = ask(running, "/")
        assert [name for name in names if f">{name}<" in first] == names[:100]
        following = "/repository/index?start=app%2F099"
        assert f'href="{following}"' in first
        _, second = ask(running, following)
        assert [name for name in names if f">{name}<" in second] == names[100:]
        assert "start=" not in second


@pytest.mark.parametrize(("generation", "status"), [("0.0", 500), ("0.1", 200)])
def test_a_registry_out_of_reach_is_said_as_the_generation_says_it(
    capsys: pytest.CaptureFixture[str], generation: str, status: int
) -> None:
    with Registry({}) as registry:
        port = registry.port
    with page(
        REHEARSAL_GENERATION=generation,
        REGISTRY_HOST="127.0.0.1",
        REGISTRY_PORT=str(port),
        REGISTRY_URL=f"http://127.0.0.1:{port}/v2",
    ) as running:
        response, body = ask(running, "/")
    assert response.status == status
    assert ("An error has occurred" in body) is (generation == "0.0")
    assert (f"127.0.0.1:{port}/v2/_catalog" in body) is (generation == "0.1")
    log = capsys.readouterr().out
    assert f"ERROR Can't access registry: GET http://127.0.0.1:{port}/v2/_catalog?n=100: ConnectionRefused" in log
    assert 'INFO 127.0.0.1 "GET / HTTP/1.1"' in log


def test_what_is_no_registry_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    no_json = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n<no>"
    with Loopback(lambda _: [no_json]) as other, page(REGISTRY_URL=f"{other.url}/v2") as running:
        assert "not JSON" in ask(running, "/")[1]
    assert "not JSON" in capsys.readouterr().out


def test_credentials_are_sent_and_not_logged(capsys: pytest.CaptureFixture[str]) -> None:
    with (
        Registry({}) as registry,
        page(REGISTRY_URL=f"{registry.url}/v2", REGISTRY_BASIC_AUTH="dXNlcjpwYXNz") as running,
    ):
        ask(running, "/")
        assert "dXNlcjpwYXNz" not in repr(running.site.settings)
    assert registry.requests[0].headers["authorization"] == "Basic dXNlcjpwYXNz"
    assert "dXNlcjpwYXNz" not in capsys.readouterr().out


def test_it_deletes_where_it_may_and_only_for_its_own_pages() -> None:
    path = f"/repository/delete/{quote('demo/hello', safe='')}?name=1.0"
    with Registry({"demo/hello": ["1.0"]}) as registry:
        with page(REGISTRY_URL=f"{registry.url}/v2") as running:
            assert ask(running, path, "POST")[0].status == 403
        with page(REGISTRY_URL=f"{registry.url}/v2", REGISTRY_READONLY="false") as running:
            assert "<button>Delete</button>" in ask(running, "/repository/tags/demo%2Fhello")[1]
            assert ask(running, path)[0].status == 404  # not by GET
            assert ask(running, path, "POST", Origin="http://198.51.100.99")[0].status == 403
            assert registry.repositories["demo/hello"] == ["1.0"]
            response, _ = ask(running, path, "POST", Origin=f"http://127.0.0.1:{running.server_port}")
            assert (response.status, response.headers["Location"]) == (303, "/repository/tags/demo%2Fhello")
    assert registry.repositories == {"demo/hello": None}
    assert [one.target for one in registry.requests if one.method == "DELETE"] == [f"/v2/demo/hello/manifests/{DIGEST}"]


def test_a_line_of_the_log_stays_one(capsys: pytest.CaptureFixture[str]) -> None:
    server.log("GET /\nERROR forged \x1b[31m")
    assert capsys.readouterr().out == "GET /\\x0aERROR forged \\x1b[31m\n"
