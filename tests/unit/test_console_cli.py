"""`runbook console`: what it refuses before it listens, whom it lets in, and how it ends."""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from click.testing import CliRunner, Result
from console_server import Console, free_port, serving, site
from loopback import Loopback, answer

from runbook.cli import main
from runbook.console import server as page

PING = answer(200, {}, **{"Docker-Distribution-Api-Version": "registry/2.0"})
UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
}
KERNEL = "/api/kernels/00000000-0000-0000-0000-000000000000"


def console(tmp_path: Path, port: int, *options: str, text: str | None = None) -> Result:
    path = tmp_path / "site.yml"
    path.write_text(site(port) if text is None else text)
    return CliRunner().invoke(main, ["console", str(path), *options])


# before it listens


def test_a_parameter_file_with_problems_is_refused(tmp_path: Path) -> None:
    result = console(tmp_path, 8600, text=site(8600).replace("node1", "node 1").replace("zookeeper: {", "zookeper: {"))
    assert result.exit_code == 2
    assert "site.yml:2" in result.output
    assert "did you mean zookeeper?" in result.output


def test_a_site_without_a_registry_is_refused(tmp_path: Path) -> None:
    result = console(tmp_path, 8600, text=site(8600).replace(", registry]", "]"))
    assert result.exit_code == 2
    assert "no host is the registry" in result.output


def test_a_registry_that_does_not_answer_is_told(tmp_path: Path) -> None:
    port = free_port()
    result = console(tmp_path, port)
    assert result.exit_code == 1
    assert f"127.0.0.1:{port}" in result.output
    assert "remedy:" in result.output
    assert "token" not in result.output


def test_something_else_than_a_registry_is_told(tmp_path: Path) -> None:
    with Loopback(lambda request: [answer(200, "hello")]) as other:
        result = console(tmp_path, other.port)
    assert result.exit_code == 1
    assert "does not answer as a registry does" in result.output


def test_a_port_that_is_taken_is_told(tmp_path: Path) -> None:
    with Loopback(lambda request: [PING]) as registry, socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = console(tmp_path, registry.port, "--port", str(port))
    assert result.exit_code == 2
    assert f"cannot listen on 127.0.0.1:{port}: Address already in use" in result.output


def test_where_the_notebook_is_not_to_be_found_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with Loopback(lambda request: [PING]) as registry:
        result = console(tmp_path, registry.port)
    assert result.exit_code == 2
    assert "notebooks/operations/registry_console.ipynb" in result.output


@pytest.mark.parametrize("option", [["--yes"], ["--mode", "verify"]])
def test_gates_are_not_answered_beforehand_and_there_is_nothing_to_verify(tmp_path: Path, option: list[str]) -> None:
    assert console(tmp_path, 8600, *option).exit_code == 2


@pytest.mark.parametrize(
    ("bind", "host", "warned"),
    [
        ("127.0.0.1", "127.0.0.1", False),
        ("localhost", "localhost", False),
        ("0.0.0.0", socket.gethostname(), True),
    ],
)
def test_where_others_can_reach_it_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bind: str, host: str, warned: bool
) -> None:
    started: list[tuple[object, ...]] = []

    class Server:
        def start(self) -> None:
            started.append(())

    monkeypatch.setattr(page, "_server", lambda *given: started.append(given) or Server())
    port = free_port()
    with Loopback(lambda request: [PING]) as registry:
        result = console(tmp_path, registry.port, "--bind", bind, "--port", str(port))
    assert result.exit_code == 0
    (_, prepared, *where, token), _ = started
    assert where == [bind, port]
    assert f"http://{host}:{port}/?token={token}\n" in result.output
    assert ("HTTP is not encrypted" in result.output) == warned
    injected = next(cell.source for cell in prepared.cells if "injected-parameters" in cell.metadata.get("tags", []))
    assert f'site_file = "{tmp_path}/site.yml"' in injected
    assert 'mode = "plan"' in injected


# while it listens


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Console]:
    folder = tmp_path_factory.mktemp("served")
    with Loopback(lambda request: [PING]) as registry, serving(folder, registry.port) as console:
        yield console
        assert console.end(signal.SIGTERM) == 0


def status(served: Console, path: str, **headers: str) -> int:
    return requests.get(served.address + path, headers=headers, allow_redirects=False, timeout=10).status_code


def test_the_page_is_shown_to_nobody_without_the_token(served: Console) -> None:
    for query in ("", "?token=", "?token=wrong"):
        answered = requests.get(f"{served.address}/{query}", allow_redirects=False, timeout=10)
        assert (answered.status_code, answered.headers["Location"].partition("?")[0]) == (302, "/login")
    assert status(served, "/", Authorization="token wrong") == 302
    assert served.records == []  # and no kernel was started


def test_a_kernel_is_reached_by_nobody_without_the_token(served: Console) -> None:
    assert status(served, f"{KERNEL}/channels", **UPGRADE) == 403
    assert status(served, KERNEL) == 403
    assert requests.post(f"{served.address}/voila/api/shutdown/{KERNEL[13:]}", timeout=10).status_code == 403
    assert (
        status(served, f"{KERNEL}/channels?token={served.token}", **UPGRADE) == 404
    )  # with it: there is no such kernel


def test_the_token_is_printed_once_and_nowhere_else(served: Console) -> None:
    assert len(served.token) >= 32
    status(served, f"{KERNEL}?token={served.token}")
    assert "".join(served.output).count(served.token) == 1
    command = Path(f"/proc/{served.process.pid}/cmdline").read_text()
    assert "console" in command
    assert served.token not in command
    assert [path for path in served.folder.rglob("*") if path.is_file() and served.token in path.read_text()] == []


def test_it_listens_on_the_loopback_only(served: Console) -> None:
    listening = [
        line.split()[1]
        for name in ("tcp", "tcp6")
        for line in Path(f"/proc/{served.process.pid}/net/{name}").read_text().splitlines()[1:]
        if line.split()[1].endswith(f":{served.port:04X}") and line.split()[3] == "0A"
    ]
    assert listening == [f"0100007F:{served.port:04X}"]


def test_the_page_may_load_nothing_from_elsewhere(served: Console) -> None:
    answered = requests.get(f"{served.address}/login", timeout=10)
    assert answered.headers["Content-Security-Policy"].startswith("default-src 'self';")


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("attacker.example", 403),
        ("attacker.example:8866", 403),
        ("127.0.0.1.attacker.example", 403),
        ("localhost.attacker.example", 403),
        ("192.0.2.1", 403),
        ("[::ffff:192.0.2.1]", 403),
        ("", 403),
        ("localhost", 200),
        ("LOCALHOST:1", 200),
        ("127.0.0.1:80", 200),
        ("[::1]:80", 200),
    ],
)
def test_a_foreign_name_is_refused(served: Console, host: str, expected: int) -> None:
    """DNS rebinding: a page elsewhere gives its own name the address of the loopback."""
    assert status(served, "/login", Host=host) == expected
    if expected == 403:
        assert status(served, f"/?token={served.token}", Host=host) == 403
        assert status(served, f"{KERNEL}/channels?token={served.token}", Host=host, **UPGRADE) == 403


@pytest.mark.parametrize(
    ("bind", "host", "own"),
    [
        ("192.0.2.7", "192.0.2.7:8866", True),
        ("192.0.2.7", "192.0.2.8:8866", False),
        ("0.0.0.0", "192.0.2.8", True),
        ("0.0.0.0", "attacker.example", False),
        ("0.0.0.0", f"{socket.gethostname()}:8866", True),
        ("::", "[2001:db8::1]:8866", True),
        ("2001:db8::1", "[2001:db8::1]:8866", True),
        ("console.example", "console.example", True),
    ],
)
def test_the_address_that_it_listens_at_is_its_own(bind: str, host: str, own: bool) -> None:
    assert page.is_own(host, bind) == own


@pytest.mark.parametrize(
    "path",
    [
        *(
            "",
            "a",
            "lab",
            "lab/static",
            "lab/static/",
            "lab/other/x",
            "../x/y",
            "..%2f..%2fetc/passwd/x",
            "%2e%2e/static/x",
        ),
        *("lab/static/../../../../etc/passwd", "lab/static/%2e%2e/%2e%2e/%2e%2e/etc/passwd", "lab/static//etc/passwd"),
        *("lab/static/..%5c..%5cx", "lab/static/%00", "nothing/static/x", "lab/static/absent.js"),
    ],
)
def test_no_path_leads_out_of_the_templates(served: Console, path: str) -> None:
    with socket.create_connection(("127.0.0.1", served.port), 10) as raw:  # requests would tidy the path
        raw.sendall(f"GET /voila/templates/{path} HTTP/1.0\r\nHost: localhost\r\n\r\n".encode())
        answered = b"".join(iter(lambda: raw.recv(65536), b""))
    assert answered.split()[1] in (b"403", b"404")
    assert "Traceback" not in "".join(served.output)


def test_the_token_is_exchanged_for_a_cookie(served: Console) -> None:
    answered = requests.get(served.url, allow_redirects=False, timeout=10)
    assert (answered.status_code, answered.headers["Location"]) == (302, "/")
    assert answered.headers["Referrer-Policy"] == "no-referrer"
    assert answered.headers["Cache-Control"] == "no-store"
    (cookie,) = [text for text in answered.raw.headers.getlist("Set-Cookie") if text.startswith("username-")]
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    assert served.token not in cookie
    # It lets in by itself: of no such kernel a stranger learns 403.
    name, _, value = cookie.partition(";")[0].partition("=")
    asked = requests.get(f"{served.address}{KERNEL}", cookies={name: value}, allow_redirects=False, timeout=10)
    assert asked.status_code == 404


def test_a_long_path_of_tmpdir_leaves_room_for_the_kernels_sockets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel of the system limits a socket's path (unix(7), sun_path)."""
    folder = tmp_path / ("a-job-of-a-batch-system-" * 4)
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    with Loopback(lambda request: [PING]) as registry, serving(tmp_path, registry.port) as console:
        assert requests.get(console.url, timeout=90).status_code == 200
        assert len(console.records) == 1  # its kernel ran the notebook
        assert console.end(signal.SIGTERM) == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_it(tmp_path: Path, number: signal.Signals) -> None:
    with Loopback(lambda request: [PING]) as registry, serving(tmp_path, registry.port) as console:
        assert console.end(number) == 0
        assert not Path(f"/proc/{console.process.pid}").exists()
    assert console.output[-1].strip() == "ended"
