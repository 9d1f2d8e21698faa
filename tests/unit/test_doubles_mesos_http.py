"""The doubles' HTTP: plain errors, streams of events, files, and the log that both write."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from runbook.lab.doubles.mesos.files import Files
from runbook.lab.doubles.mesos.glog import Log
from runbook.lab.doubles.mesos.http import (
    EventSource,
    EventStream,
    Gone,
    Request,
    Response,
    Server,
    call,
    not_allowed,
    ok,
)

Json = dict[str, Any]


@pytest.fixture
def server(capsys: pytest.CaptureFixture[str]) -> Iterator[Server]:
    with Server(("127.0.0.1", 0), Log("test")) as server:
        server.start()
        yield server
        server.shutdown()


def ask(server: Server, method: str, path: str) -> tuple[int, bytes, dict[str, str]]:
    connection = HTTPConnection("127.0.0.1", server.server_port, timeout=5)
    connection.request(method, path)
    answer = connection.getresponse()
    found = answer.status, answer.read(), dict(answer.getheaders())
    connection.close()
    return found


def test_answers_as_libprocess_frames_them(server: Server) -> None:
    server.route(lambda request: Response(200), "/health")
    server.route(lambda request: not_allowed(request, "GET", "POST"), "/only")
    server.route(lambda request: ok({"query": dict(request.query)}), "/echo")
    status, body, headers = ask(server, "GET", "/health")
    assert (status, body, sorted(headers)) == (200, b"", ["Content-Length", "Date"])
    status, body, headers = ask(server, "DELETE", "/only")
    assert (status, headers["Allow"]) == (405, "GET, POST")
    assert body == b"Expecting 'GET', 'POST', received 'DELETE'"
    assert ask(server, "GET", "/echo.json?a=1&b=")[1] == b'{"query":{"a":"1","b":""}}'
    assert "Content-Type" not in headers
    assert ask(server, "GET", "/nothing")[:2] == (404, b"")
    assert ask(server, "GET", "/health/below")[0] == 200  # the longest route that the path begins with


class Events:
    """A server's handler whose streams a test can speak into, and that remembers when they end."""

    def __init__(self) -> None:
        self.streams: list[EventStream] = []
        self.ended = threading.Event()

    def __call__(self, request: Request) -> EventStream:
        stream = EventStream({"X-Id": "1"}, self.ended.set)
        stream.send({"first": request.json()})
        self.streams.append(stream)
        return stream


def test_events_flow_until_the_server_closes(server: Server) -> None:
    events = Events()
    server.route(events, "/events")
    source = EventSource(f"127.0.0.1:{server.server_port}", "/events", "hello", 5)
    arriving = iter(source)
    assert next(arriving) == {"first": "hello"}
    events.streams[0].send({"text": "größer\n"})
    assert next(arriving) == {"text": "größer\n"}
    events.streams[0].close()
    assert list(arriving) == []
    assert events.ended.wait(5)
    source.close()


def test_the_server_notices_at_once_that_a_client_is_gone(server: Server) -> None:
    events = Events()
    server.route(events, "/events")
    source = EventSource(f"127.0.0.1:{server.server_port}", "/events", None, 5)
    assert next(iter(source)) == {"first": None}
    source.stop()
    source.close()
    assert events.ended.wait(5)
    events.streams[0].send({"to": "nobody"})


def test_a_stream_that_is_closed_before_it_is_served_still_delivers(server: Server) -> None:
    def refuse(request: Request) -> EventStream:
        stream = EventStream({}, lambda: None)
        stream.send({"message": "no"})
        stream.close()
        return stream

    server.route(refuse, "/events")
    source = EventSource(f"127.0.0.1:{server.server_port}", "/events", None, 5)
    assert list(source) == [{"message": "no"}]
    source.close()


def test_silence_is_a_timeout(server: Server) -> None:
    events = Events()
    server.route(events, "/events")
    source = EventSource(f"127.0.0.1:{server.server_port}", "/events", None, 5)
    source.set_idle(0.1)
    arriving = iter(source)
    next(arriving)
    with pytest.raises(TimeoutError):
        next(arriving)
    events.streams[0].close()
    source.close()


def test_calls_between_the_doubles(server: Server) -> None:
    address = f"127.0.0.1:{server.server_port}"
    server.route(lambda request: ok(request.json()), "/echo")
    assert call(address, "POST", "/echo", {"a": [1]}) == {"a": [1]}
    with pytest.raises(Gone, match="404"):
        call(address, "GET", "/nothing")
    with pytest.raises(Gone, match="refused"):
        call("127.0.0.1:1", "GET", "/echo")
    with pytest.raises(Gone, match="404"):
        EventSource(address, "/nothing", None, 5)


def test_files_do_not_leave_what_is_attached(server: Server, tmp_path: Path) -> None:
    (tmp_path / "sandbox").mkdir()
    (tmp_path / "sandbox" / "stdout").write_text("0123456789")
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "sandbox" / "link").symlink_to(tmp_path / "secret")
    Files(server).attached["/box"] = tmp_path / "sandbox"
    assert ask(server, "GET", "/files/read?path=/box/stdout&offset=2&length=3")[1] == b'{"data":"234","offset":2}'
    assert ask(server, "GET", "/files/download?path=/box/stdout")[1] == b"0123456789"
    for path in ("/box/../secret", "/box/link", "/boxes", "/etc/passwd"):
        assert ask(server, "GET", f"/files/read?path={path}&offset=0")[0] == 404


def test_log_lines_and_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = Log("mesos-master", str(tmp_path))
    log.info("contender.cpp:147", "Joining the ZK group")
    log.error("registrar.cpp:506", "Registrar aborting")
    log.close()
    first, second = capsys.readouterr().err.splitlines()
    form = r"{}\d{{4}} \d\d:\d\d:\d\d\.\d{{6}} +\d+ {}\] {}"
    assert re.fullmatch(form.format("I", "contender.cpp:147", "Joining the ZK group"), first)
    assert re.fullmatch(form.format("E", "registrar.cpp:506", "Registrar aborting"), second)
    info = (tmp_path / "mesos-master.INFO").read_text().splitlines()
    assert [line for line in info if "] " in line and line[0] in "IE" and "cpp" in line] == [first, second]
    assert info[0].startswith("Log file created at: ")
    for severity in ("WARNING", "ERROR"):
        assert (tmp_path / f"mesos-master.{severity}").read_text().splitlines()[-1] == second
    target = (tmp_path / "mesos-master.INFO").readlink().name
    assert re.fullmatch(r"mesos-master\..+\.log\.INFO\.\d{8}-\d{6}\.\d+", target)
