"""Chapter 8 without hosts: what a page is taken to list, the variables it gets, and which cause follows from what."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from loopback import Loopback, Piece, Request, answer

from runbook.errors import (
    CredentialsRefused,
    EndpointUnreachable,
    HostUnreachable,
    ParameterError,
    RegistryTooOld,
    RunbookError,
    TlsMismatch,
    UnexpectedAnswer,
)
from runbook.lab.doubles.registry_web.server import Server, Settings
from runbook.remote.checks import Evidence
from runbook.remote.hosts import DEADLINE, Hosts, Output
from runbook.remote.results import ApplyResult
from runbook.remote.steps import sha256
from runbook.secrets import Secret, redact
from runbook.services.http import Answer, Endpoint
from runbook.services.registry import Registry
from runbook.services.registry_web import chapter, diagnose
from runbook.services.registry_web.container import (
    Seen,
    asked,
    container,
    generation_of,
    matching,
    question,
    variables,
)
from runbook.services.registry_web.diagnose import Page, Place, Reach, reach, registry_question
from runbook.services.registry_web.page import Listing, compare, read
from runbook.site import ImageParameters, Site

REAL = """<!DOCTYPE html><html><body><nav><a href="/repository/index">Home</a> <a href="/user/index">users</a></nav>
<dl><dt>Registry</dt><dd>198.51.100.11:8600</dd></dl><table class="table table-bordered">
<tr><th>Repository</th><th>Tags</th></tr>
<tr><td><a href="/repository/tags/demo%252Fhello">demo/hello</a></td><td>2</td></tr>
<tr><td>
   <a href="/repository/tags/mysql">mysql</a></td><td>1</td></tr></table>
<a href="https://github.com/mkuchin/tags/elsewhere">elsewhere</a></body></html>"""
"""What views/repository/index.gsp of hyper/docker-registry-web 0.0.4 makes, with the links that Grails writes."""


def text(variables: str = "url", more: str = "", tag: str = "lab/registry-web:0.1") -> str:
    return (
        "name: test\nhosts:\n"
        "  - {name: node1, address: 198.51.100.11, roles: [docker, registry]}\n"
        "  - {name: node2, address: 198.51.100.12, roles: [docker, registry_web]}\n"
        f"registry_web: {{variables: {variables}}}\n"
        f"images: {{registry_web: {{tag: '{tag}', file: web.tar, sha256: '{'0' * 64}'}}}}\n{more}"
    )


def site(variables: str = "url", more: str = "", tag: str = "lab/registry-web:0.1") -> Site:
    return Site.parse(text(variables, more, tag), Path("test.yml"))


SITE = site()
SECURE = (
    "registry: {security: tls, user: reader, password: 'env:TEST_REGISTRY_PASSWORD',"
    " tls: {certificate: c.pem, key: k.pem, ca: ca.pem}}\n"
)


# what a page lists


def test_the_real_page_s_links_are_read() -> None:
    with (
        Loopback(lambda _: [answer(200, REAL, kind="text/html;charset=utf-8")]) as real,
        Endpoint(real.url) as endpoint,
    ):
        assert read(endpoint).repositories == ("demo/hello", "mysql")


@contextmanager
def pair(repositories: dict[str, list[str] | None]) -> Iterator[tuple[Endpoint, Registry]]:
    """The double of the page, and the registry that it asks."""

    def reply(request: Request) -> list[Piece]:
        path, _, query = request.target.partition("?")
        if not path.endswith("_catalog"):
            name = path.removeprefix("/v2/").removesuffix("/tags/list")
            return [answer(200, {"name": name, "tags": repositories.get(name)})]
        asked = dict(part.split("=") for part in query.split("&"))
        last = asked.get("last", "").replace("%2F", "/")
        names = [name for name in sorted(repositories) if name > last]
        size = int(asked["n"])
        link = f'</v2/_catalog?last={names[size - 1]}&n={size}>; rel="next"' if len(names) > size else ""
        return [answer(200, {"repositories": names[:size]}, **({"Link": link} if link else {}))]

    with Loopback(reply) as loopback:
        settings = Settings.of({"REGISTRY_URL": f"{loopback.url}/v2"})
        with Server(("127.0.0.1", 0), settings) as server, Registry(loopback.url) as registry:
            thread = threading.Thread(target=server.serve_forever)
            thread.start()
            try:
                with Endpoint(f"http://127.0.0.1:{server.server_port}") as endpoint:
                    yield endpoint, registry
            finally:
                server.shutdown()
                thread.join()


def test_a_page_that_lists_what_the_registry_lists() -> None:
    with pair({"demo/hello": ["1", "2"], "mysql": ["5.7"], "emptied": None}) as (endpoint, registry):
        evidence = compare(read(endpoint), registry)
    assert (evidence.holds, evidence.text) == (True, "both list 2 repositories: demo/hello, mysql")


def test_pages_are_followed_to_the_end_or_as_far_as_wanted() -> None:
    names = [f"app/{number:03}" for number in range(250)]
    with pair({name: ["1"] for name in names}) as (endpoint, registry):
        listing = read(endpoint)
        assert (listing.repositories, listing.whole) == (tuple(names), True)
        assert compare(listing, registry).holds
        part = read(endpoint, pages=2)
        assert (part.repositories, part.whole) == (tuple(names[:200]), False)
        assert compare(part, registry).holds  # what was not read is not held against it
        assert not compare(replace(part, repositories=part.repositories[1:]), registry).holds


def test_pages_of_emptied_repositories_alone_are_no_difference() -> None:
    with pair({f"app/{number:03}": None for number in range(201)}) as (endpoint, registry):
        part = read(endpoint, pages=2)
        assert (part.repositories, part.whole) == ((), False)
        assert compare(part, registry).holds


def test_what_a_page_lacks_or_has_too_much_is_named() -> None:
    with pair({"demo/hello": ["1"], "mysql": ["5.7"], "emptied": []}) as (_, registry):
        evidence = compare(Listing(("demo/hello", "gone")), registry)
        assert not evidence.holds
        assert evidence.text == "the page lacks mysql; the page lists gone, which the registry does not have"
        assert evidence.table is not None
        assert evidence.table.values.tolist() == [
            ["mysql", "✓ lists it", "✗ does not"],
            ["gone", "✗ does not", "✓ lists it"],
        ]
        assert "it says: Connection refused" in compare(Listing((), said="Connection refused"), registry).text


def test_a_version_without_pages_is_told_as_that() -> None:
    names = [f"app/{number:03}" for number in range(101)]
    with pair({name: ["1"] for name in names}) as (_, registry):
        evidence = compare(Listing(tuple(names[:100])), registry)
    assert "the page lacks app/100; this version shows the first 100 only" in evidence.text
    assert "from 0.1.0 on" in (evidence.remedy or "")


def test_two_empty_lists_are_said_to_be_that() -> None:
    with pair({}) as (endpoint, registry):
        evidence = compare(read(endpoint), registry)
    assert evidence.holds
    assert "no repository: what is pushed from now on (7.4) must show there" in evidence.text


# variables


def test_each_generation_gets_its_own_variables_and_never_the_right_to_delete() -> None:
    assert variables(site("host_port")) == {
        "REGISTRY_HOST": "198.51.100.11",
        "REGISTRY_PORT": "8600",
        "READONLY": "true",
    }
    assert variables(SITE) == {
        "REGISTRY_URL": "http://198.51.100.11:8600/v2",
        "REGISTRY_NAME": "198.51.100.11:8600",
        "REGISTRY_READONLY": "true",
    }


def test_a_secure_registry_s_password_is_a_secret_of_the_container(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_REGISTRY_PASSWORD", "correct horse")
    found = variables(site(more=SECURE))
    assert found["REGISTRY_URL"] == "https://198.51.100.11:8600/v2"
    assert found["REGISTRY_TRUST_ANY_SSL"] == "true"
    secret = found["REGISTRY_BASIC_AUTH"]
    assert isinstance(secret, Secret)
    assert secret.reveal() == "cmVhZGVyOmNvcnJlY3QgaG9yc2U="
    assert redact("Setting basic auth header: cmVhZGVyOmNvcnJlY3QgaG9yc2U=") == "Setting basic auth header: ***"
    planned = container(site(more=SECURE)).plan("image=sha256:1 null\ncontainer=\n")
    assert planned is not None
    assert "env REGISTRY_BASIC_AUTH: (secret)" in planned.diff


def test_a_page_before_0_1_0_of_a_secure_registry_is_refused() -> None:
    with pytest.raises(ParameterError, match="speaks plain HTTP only before version"):
        site("host_port", more=SECURE)


@pytest.mark.parametrize(
    ("environment", "generation", "address"),
    [
        ({"REGISTRY_HOST": "h", "REGISTRY_PORT": "8600"}, "host_port", ("h", 8600)),
        ({"REGISTRY_URL": "http://h:8600/v2"}, "url", ("h", 8600)),
        ({"REGISTRY_URL": "https://h/v2"}, "url", ("h", 443)),
        ({"REGISTRY_HOST": "h", "REGISTRY_PORT": "8600"}, "url", ("localhost", 5000)),
        ({"REGISTRY_URL": "http://h:8600/v2"}, "host_port", ("localhost", 5000)),
        ({"REGISTRY_HOST": "h", "REGISTRY_PORT": "eighty"}, "host_port", None),
        ({"REGISTRY_URL": "h:8600"}, "url", None),
    ],
)
def test_which_registry_a_page_asks(
    environment: dict[str, str], generation: str, address: tuple[str, int] | None
) -> None:
    assert asked(environment, generation) == address


@pytest.mark.parametrize(
    ("tag", "generation"),
    [
        ("hyper/docker-registry-web:v0.0.4", "host_port"),
        ("hyper/docker-registry-web:v0.1.2", "url"),
        ("lab/registry-web:0.1", "url"),
        ("hyper/docker-registry-web:auth-experimental", None),
        ("198.51.100.11:8600/registry-web", None),
    ],
)
def test_an_image_s_version_tells_its_variables(tag: str, generation: str | None) -> None:
    assert generation_of(tag) == generation


@pytest.mark.parametrize(
    ("variables", "tag", "here"),
    [
        ("url", "lab/registry-web:0.1", ["–", "–", "✓"]),
        ("host_port", "hyper/docker-registry-web:v0.0.4", ["–", "✓", "–"]),
        ("host_port", "hyper/docker-registry-web:v0.1.2", ["–", "✗", "–"]),
    ],
)
def test_which_page_fits_here(monkeypatch: pytest.MonkeyPatch, variables: str, tag: str, here: list[str]) -> None:
    for api, shown in (("2", here), ("1", [mark.replace("✓", "✗") for mark in here])):
        monkeypatch.setattr(chapter, "_api", lambda _, api=api: (api, f"it speaks API {api}"))
        assert [state[0] for state in chapter.choice(site(variables, tag=tag)).frame["here"]] == shown
    monkeypatch.setattr(chapter, "_api", lambda _: ("", "not known"))
    assert "✓" not in "".join(chapter.choice(site(variables, tag=tag)).frame["here"])


# what Docker tells


def inspected(name: str, port: int, inside: int, environment: dict[str, str], **state: Any) -> dict[str, Any]:
    """The parts of `docker inspect` of Docker 20.10.24 that are looked at (tests/payloads/docker-20.10.24)."""
    bindings = {f"{inside}/tcp": [{"HostIp": "", "HostPort": str(port)}]}
    return {
        "Name": f"/{name}",
        "State": {"Status": "running", "Running": True, "Paused": False, "Restarting": False, "Pid": 4711, **state},
        "Config": {"Image": "lab/registry-web:0.1", "Env": [f"{key}={value}" for key, value in environment.items()]},
        "HostConfig": {"PortBindings": bindings},
        "NetworkSettings": {"Ports": bindings},
    }


HOSTS = {host.name: host for host in SITE.hosts}


def registry_seen(port: int = 8600, **state: Any) -> Seen:
    return Seen(HOSTS["node1"], "registry", "", inspected("registry", port, 5000, {}, **state))


def page_seen(
    environment: dict[str, str] | None = None, port: int = 8400, said: tuple[str, ...] = (), **state: Any
) -> Seen:
    given = environment if environment is not None else {"REGISTRY_URL": "http://198.51.100.11:8600/v2"}
    return Seen(HOSTS["node2"], "registry-web", "", inspected("registry-web", port, 8080, given, **state), said)


def test_what_docker_tells_is_read() -> None:
    text = f"container={json.dumps(inspected('registry', 8600, 5000, {'A': 'b=c'}))}\nsaid=first\nsaid=second = 2\n"
    seen = Seen.of(HOSTS["node1"], "registry", Output(text, "", 0))
    assert (seen.running, seen.status, seen.published(5000)) == (True, "running", (8600,))
    assert (seen.environment, seen.said) == ({"A": "b=c"}, ("first", "second = 2"))


@pytest.mark.parametrize(
    ("output", "trouble", "remedy"),
    [
        (Output("silent=it is not installed\n", "", 0), "Docker does not answer: it is not installed", "run chapter 5"),
        (Output("container=\n", "", 0), "there is no container registry", None),
        (Output('container={"Name": "/registry-web"}\n', "", 0), "there is no container registry", None),
        (Output(error=HostUnreachable("no route", "check")), "no route", "check"),
    ],
)
def test_what_keeps_docker_from_telling(output: Output, trouble: str, remedy: str | None) -> None:
    seen = Seen.of(HOSTS["node1"], "registry", output)
    assert (seen.trouble, seen.remedy, seen.running) == (trouble, remedy, False)


@pytest.mark.parametrize("shell", ["dash", "bash"])
def test_the_question_runs_in_the_shells_without_docker(shell: str, tmp_path: Path) -> None:
    for tool in ("tail", "sed", "tr", "timeout"):
        (tmp_path / tool).symlink_to(str(shutil.which(tool)))
    done = subprocess.run(
        [str(shutil.which(shell)), "-s"],
        input=question("it's", 5),
        text=True,
        capture_output=True,
        env={"PATH": str(tmp_path)},
        check=True,
    )
    assert (done.stdout, done.stderr) == ("silent=it is not installed\n", "")


# 8.3.4


def test_the_page_asks_where_the_registry_is_published() -> None:
    assert matching(SITE, [page_seen()], registry_seen()).holds


@pytest.mark.parametrize(
    ("page", "registry", "said"),
    [
        (
            page_seen({"REGISTRY_URL": "http://198.51.100.11:5000/v2"}),
            registry_seen(),
            "it asks port 5000, and the registry is 198.51.100.11:8600",
        ),
        (page_seen(), registry_seen(port=8601), "it asks port 8600, and the registry is 198.51.100.11:8601"),
        (
            page_seen({"REGISTRY_URL": "http://198.51.100.12:8600/v2"}),
            registry_seen(),
            "it asks 198.51.100.12, and the registry is on 198.51.100.11",
        ),
        (page_seen({}), registry_seen(), "it asks port 5000"),
        (page_seen({"REGISTRY_URL": "?"}), registry_seen(), "its variables are no address"),
    ],
)
def test_a_page_that_asks_elsewhere(page: Seen, registry: Seen, said: str) -> None:
    evidence = matching(SITE, [page], registry)
    assert (evidence.holds, evidence.tried) == (False, True)
    assert f"node2: {said}" in evidence.text


def test_before_the_containers_there_is_nothing_to_compare() -> None:
    nothing = Seen(HOSTS["node2"], "registry-web", "there is no container registry-web")
    evidence = matching(SITE, [nothing], registry_seen())
    assert (evidence.holds, evidence.tried) == (False, False)


# 8.3.2: who answers whom


@pytest.fixture
def talker() -> Iterator[Loopback]:
    with Loopback(lambda _: [b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n"]) as loopback:
        yield loopback


def answered(port: int) -> Reach:
    done = subprocess.run(["sh", "-s"], input=registry_question(port), text=True, capture_output=True, check=True)
    return reach(Output(done.stdout, done.stderr, 0), "within")


def test_a_line_of_http_is_an_answer(talker: Loopback) -> None:
    assert answered(talker.port) == Reach(line="HTTP/1.1 401 Unauthorized")
    assert answered(talker.port).answered
    assert talker.requests[0].target == "/v2/"


def test_a_port_where_nobody_listens_and_one_that_hangs_up_are_no_answers(talker: Loopback) -> None:
    with Loopback(lambda _: []) as mute:
        assert answered(mute.port) == Reach(error="the connection ended without an answer")
    assert answered(mute.port) == Reach(error="Connection refused")
    assert answered(mute.port).silent


def test_what_could_not_be_asked_is_neither() -> None:
    for said in ("", "within=unknown\n", "within=1 nsenter: cannot open /proc/4711/ns/net: No such file\n"):
        nothing = reach(Output(said, "", 0), "within")
        assert (nothing.answered, nothing.silent) == (False, False)


# 8.3.2: the causes

HTTP, REFUSED = Reach(line="HTTP/1.1 200 OK"), Reach(error="Connection refused")
UNREACHABLE = EndpointUnreachable("http://198.51.100.11:8600: Connection refused", "start it")
LACKS = Evidence(False, "the page lacks demo/hello; it says: ConnectionRefusedError")


def good_registry(**other: Any) -> Place:
    return replace(Place(registry_seen(), HTTP), **other)


def good_page(**other: Any) -> Page:
    return replace(Page(page_seen(), HTTP, None, HTTP, Evidence(True, "both list 1 repository")), **other)


def causes(registry: Place, page: Page, described: Site = SITE) -> list[tuple[str, str]]:
    return [(finding.host, finding.cause) for finding in diagnose.diagnose(described, registry, [page])]


def test_nothing_is_at_fault_where_the_page_lists_the_registry() -> None:
    assert causes(good_registry(), good_page()) == []


@pytest.mark.parametrize(
    ("line", "remedy"),
    [
        ("published=1 /lonely_bohr lab/registry-web:0.1 8400/8080/tcp \n", "run 8.2, which takes it over"),
        ("published=1 /web nginx:1.9 8400/8080/tcp \n", "stop it (docker stop web)"),
    ],
)
@pytest.mark.parametrize("container", ['{"Name": "/registry-web", "State": {"Status": "created"}}', ""])
def test_another_container_that_has_the_port_is_at_fault(container: str, line: str, remedy: str) -> None:
    seen = Seen.of(HOSTS["node2"], "registry-web", Output(f"{line}container={container}\n", "", 0))
    tagged = SITE.model_copy(
        update={"images": {"registry_web": ImageParameters.model_construct(tag="lab/registry-web:0.2")}}
    )
    (finding,) = diagnose.diagnose(tagged, good_registry(), [good_page(seen=seen)])
    assert finding.cause == "page: another container has its port"
    assert remedy in finding.remedy


def test_a_process_that_has_the_port_is_at_fault() -> None:
    page = good_page(seen=Seen(HOSTS["node2"], "registry-web", "there is no container registry-web"))
    assert causes(good_registry(), page) == [("node2", "page: a process that is no container has its port")]


@pytest.mark.parametrize(
    ("registry", "cause"),
    [
        (
            {"seen": Seen(HOSTS["node1"], "registry", "there is no container registry"), "within": REFUSED},
            "registry: its container is not there",
        ),
        ({"seen": registry_seen(Running=False, Status="exited", ExitCode=2)}, "registry: its container does not run"),
        ({"seen": registry_seen(port=8601)}, "registry: its container is published at another port"),
        ({"within": REFUSED}, "registry: its container runs and does not answer"),
        ({"outside": UNREACHABLE}, "network: the registry cannot be reached from this machine"),
        ({"outside": UNREACHABLE, "within": Reach()}, "registry: it does not answer as it should"),
    ],
)
def test_a_registry_at_fault(registry: dict[str, Any], cause: str) -> None:
    assert causes(good_registry(**registry), good_page()) == [("node1", cause)]


@pytest.mark.parametrize(
    "error",
    [
        RegistryTooOld("it speaks API 1", "use the image atcol/docker-registry-ui"),
        TlsMismatch("it speaks TLS", "set registry.security: tls"),
        CredentialsRefused("it wants to know who asks", "give registry.user"),
    ],
)
def test_a_registry_that_answers_otherwise_is_no_matter_of_the_network(error: RunbookError) -> None:
    page = good_page(lists=Evidence.against(error))
    (finding,) = diagnose.diagnose(SITE, good_registry(outside=error), [page])
    assert (finding.host, finding.cause) == ("node1", "registry: it does not answer as it should")
    assert (finding.evidence, finding.remedy) == (error.message, error.remedy)


def test_each_page_is_judged_by_itself() -> None:
    other = replace(page_seen(), host=HOSTS["node1"])
    pages = [good_page(outside=UNREACHABLE), good_page(seen=other, lists=LACKS)]
    assert [(one.host, one.cause) for one in diagnose.diagnose(SITE, good_registry(), pages)] == [
        ("node2", "network: the page cannot be reached from this machine"),
        ("node1", "page: it does not list the registry"),
    ]


def test_what_follows_from_a_registry_s_fault_is_not_told_as_another() -> None:
    stopped = good_registry(seen=registry_seen(Running=False), within=REFUSED, outside=UNREACHABLE)
    page = good_page(registry=REFUSED, lists=LACKS)
    assert causes(stopped, page) == [("node1", "registry: its container does not run")]


@pytest.mark.parametrize(
    ("page", "cause"),
    [
        (
            {"seen": Seen(HOSTS["node2"], "registry-web", "there is no container"), "within": REFUSED},
            "page: its container is not there",
        ),
        (
            {"seen": Seen(HOSTS["node2"], "registry-web", "Docker does not answer: no daemon", remedy="run chapter 5")},
            "page: nothing is known of its container",
        ),
        ({"seen": page_seen(Restarting=True)}, "page: its container does not run"),
        ({"seen": page_seen(port=8401)}, "page: its container is published at another port"),
        (
            {"within": Reach(error="the connection ended without an answer")},
            "page: its container runs and does not answer",
        ),
        ({"outside": UNREACHABLE}, "network: the page cannot be reached from this machine"),
        ({"registry": Reach(error="No route to host")}, "network: the page cannot reach the registry"),
        ({"registry": Reach(error="no answer within 8 s")}, "network: the page cannot reach the registry"),
        ({"seen": page_seen({})}, "variables: they do not lead to the registry"),
        (
            {"seen": page_seen({"REGISTRY_URL": "http://localhost:8600/v2"})},
            "variables: they do not lead to the registry",
        ),
        ({}, "page: it does not list the registry"),
    ],
)
def test_a_page_at_fault(page: dict[str, Any], cause: str) -> None:
    assert causes(good_registry(), good_page(**{"lists": LACKS, **page})) == [("node2", cause)]


def test_variables_are_told_with_what_they_should_be() -> None:
    wrong = good_page(seen=page_seen({"REGISTRY_URL": "http://localhost:8600/v2"}), lists=LACKS)
    (finding,) = diagnose.diagnose(SITE, good_registry(), [wrong])
    assert finding.evidence == (
        "REGISTRY_URL is http://localhost:8600/v2, and should be http://198.51.100.11:8600/v2; "
        "to a container localhost is itself, not its host"
    )


def test_a_secret_among_the_variables_is_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_REGISTRY_PASSWORD", "correct horse")
    secure = site(more=SECURE)
    environment = {"REGISTRY_URL": "https://198.51.100.11:8600/v2", "REGISTRY_TRUST_ANY_SSL": "true"}
    for more, said in (({}, "not set"), ({"REGISTRY_BASIC_AUTH": "b2xkOm9sZA=="}, "another secret")):
        page = good_page(seen=page_seen({**environment, **more}))
        (finding,) = diagnose.diagnose(secure, good_registry(), [page])
        assert finding.evidence == f"REGISTRY_BASIC_AUTH is {said}, and should be the parameters' secret"


@pytest.mark.parametrize(
    ("variables", "tag", "text"),
    [
        ("host_port", "hyper/docker-registry-web:v0.1.2", "the page lacks demo/hello"),
        (
            "host_port",
            "own/page:latest-but-one",
            "the page lacks demo/hello; it says: localhost:5000 Connection refused",
        ),
    ],
)
def test_an_image_that_does_not_read_the_variables_that_it_got(variables: str, tag: str, text: str) -> None:
    described = site(variables, tag="hyper/docker-registry-web:v0.1.2")
    seen = page_seen({"REGISTRY_HOST": "198.51.100.11", "REGISTRY_PORT": "8600"})
    told = {**seen.inspected, "Config": {**seen.inspected["Config"], "Image": tag}}
    page = good_page(seen=replace(seen, inspected=told), lists=Evidence(False, text))
    (finding,) = diagnose.diagnose(described, good_registry(), [page])
    assert finding.cause == "variables: the image does not read them"
    assert finding.remedy == "set registry_web.variables: url in the parameters, then run 8.2"


def test_the_last_complaint_of_a_log_is_evidence() -> None:
    said = ("INFO started", "ERROR Can't access registry: timed out", "INFO GET /")
    (finding,) = diagnose.diagnose(SITE, good_registry(), [good_page(seen=page_seen(said=said), registry=REFUSED)])
    assert finding.evidence.endswith("; its log says: ERROR Can't access registry: timed out")


def test_a_page_that_answers_with_an_error_was_reached() -> None:
    answer = Answer("http://198.51.100.12:8400/", 500, {}, b"An error has occurred")
    error: RunbookError = UnexpectedAnswer("status 500: An error has occurred", answer=answer)
    page = good_page(outside=error, lists=Evidence.against(error))
    assert causes(good_registry(), page) == [("node2", "page: it does not list the registry")]


def test_what_is_wrong_in_several_places_is_told_of_each() -> None:
    stopped: dict[str, Any] = {"Running": False, "Status": "exited"}
    registry, page = good_registry(seen=registry_seen(**stopped)), good_page(seen=page_seen(**stopped))
    assert causes(registry, page) == [
        ("node1", "registry: its container does not run"),
        ("node2", "page: its container does not run"),
    ]


# the chapter


@pytest.fixture
def web(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[chapter.RegistryWeb]:
    """Chapter 8 on one host, in mode apply; the archive of its image is `web.tar`, of three bytes."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RUNBOOK_RECORD", raising=False)
    (tmp_path / "outputs").mkdir()
    (tmp_path / "web.tar").write_bytes(b"tar")
    (tmp_path / "site.yml").write_text(
        "name: test\nhosts:\n  - {name: node1, address: 198.51.100.11, roles: [docker, registry, registry_web]}\n"
        f"images: {{registry_web: {{tag: 'lab/registry-web:0.1', file: web.tar, sha256: '{sha256(b'tar')}'}}}}\n"
    )
    opened = chapter.RegistryWeb("site.yml", "apply")
    yield opened
    opened.close()


def test_an_archive_that_is_not_there_is_told_before_any_host_is_touched(web: chapter.RegistryWeb) -> None:
    Path("web.tar").unlink()
    with pytest.raises(ParameterError, match=r"web\.tar"):
        web.image()


def test_half_a_gigabyte_has_more_time_to_arrive_than_other_steps(
    web: chapter.RegistryWeb, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[float] = []

    def apply(hosts: Hosts, steps: object, name: str = "", deadline: float = DEADLINE) -> ApplyResult:
        given.append(deadline)
        return ApplyResult(name, hosts.mode, ())

    monkeypatch.setattr(Hosts, "apply", apply)
    web.image()
    assert given == [1800.0]


def test_what_the_page_logs_of_the_password_is_masked_whichever_cell_is_run_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RUNBOOK_RECORD", raising=False)
    (tmp_path / "outputs").mkdir()
    (tmp_path / "site.yml").write_text(text(more=SECURE))
    with pytest.raises(ParameterError, match="TEST_REGISTRY_PASSWORD"):
        chapter.RegistryWeb("site.yml")
    monkeypatch.setenv("TEST_REGISTRY_PASSWORD", "staple battery")
    opened = chapter.RegistryWeb("site.yml")
    try:
        encoded = base64.b64encode(b"reader:staple battery").decode()
        told = Output(f'container={{"Name": "/registry-web"}}\nsaid=Setting basic auth header: {encoded}\n', "", 0)
        assert Seen.of(HOSTS["node2"], "registry-web", told).said == ("Setting basic auth header: ***",)
    finally:
        opened.close()
