"""The client of MySQL: every way to fail has a name, and no password is told. A real server is asked in tests/lab."""

from __future__ import annotations

import hashlib
import socket
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pymysql
import pytest
from local_host import PRESENT, LocalHost

from runbook.errors import (
    ConnectionCut,
    EndpointTimeout,
    EndpointUnreachable,
    HostUnreachable,
    LoginRefused,
    NotFound,
    NotReady,
    RunbookError,
    StatementRefused,
    UnexpectedAnswer,
)
from runbook.remote.hosts import Output
from runbook.remote.shell import Piece
from runbook.secrets import Secret
from runbook.services.mysql import client
from runbook.services.mysql.client import Account, Catalog, Server, exec_script, read_catalog

ROOT = Account("root", Secret("heron-under-ice"))


@contextmanager
def listening(answer: Callable[[socket.socket], None]) -> Iterator[Server]:
    """A server on the loopback that answers one connection so."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                answer(connection)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield Server("127.0.0.1", server.getsockname()[1])
        thread.join(timeout=5)


def meets(server: Server) -> RunbookError:
    """The named error that a connection ends with."""
    with pytest.raises(RunbookError) as caught, server.session(ROOT):
        pass
    assert "heron-under-ice" not in "".join(traceback.format_exception(caught.value))
    return caught.value


# from here


def test_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    error = meets(Server("127.0.0.1", port, "/mysql"))
    assert type(error) is EndpointUnreachable
    assert f"/mysql (127.0.0.1:{port}), as root" in error.message
    assert "change when it moves" in str(error.remedy)


def test_a_server_that_is_starting_cuts_the_connection() -> None:
    """Docker's proxy takes connections before the server in the container listens, and then drops them."""
    with listening(lambda connection: None) as server:
        assert type(meets(server)) is ConnectionCut


def test_a_server_that_says_nothing_is_late(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "ANSWER", 1.0)
    ended = threading.Event()

    def wait(connection: socket.socket) -> None:
        ended.wait(5)

    with listening(wait) as server:
        assert type(meets(server)) is EndpointTimeout
        ended.set()


def test_somebody_else_listens() -> None:
    with listening(lambda connection: connection.sendall(b"\x05\x00\x00\x00\x01ABCD")) as server:
        assert type(meets(server)) is UnexpectedAnswer


def test_a_server_that_refuses_before_the_login_says_why() -> None:
    packet = b"\xff" + (1040).to_bytes(2, "little") + b"Too many connections"
    head = len(packet).to_bytes(3, "little") + b"\x00"
    with listening(lambda connection: connection.sendall(head + packet)) as server:
        error = meets(server)
    assert type(error) is NotReady
    assert "Too many connections (1040)" in error.message


def test_a_password_reaches_the_server_as_the_containers_client_sends_it() -> None:
    """In UTF-8, as the image was given it; PyMySQL's own choice is Latin-1, which has no snowman. The greeting is that
    of protocol 10, the proof that of mysql_native_password (MySQL's 'Client/Server Protocol')."""
    password, salt, said = "häron-under-☃", b"12345678abcdefghijkl", list[bytes]()
    greeting = b"\x0a5.7.13\x00" + bytes(4) + salt[:8] + b"\x00\x00\x82\x21\x02\x00\x08\x00\x15" + bytes(10)
    greeting += salt[8:] + b"\x00mysql_native_password\x00"

    def greet(connection: socket.socket) -> None:
        connection.sendall(len(greeting).to_bytes(3, "little") + b"\x00" + greeting)
        said.append(connection.recv(4096))

    with listening(greet) as server, pytest.raises(RunbookError), server.session(Account("root", Secret(password))):
        pass
    once = hashlib.sha1(password.encode()).digest()
    mask = hashlib.sha1(salt + hashlib.sha1(once).digest()).digest()
    assert bytes(one ^ other for one, other in zip(once, mask, strict=True)) in said[0]


@pytest.mark.parametrize(
    ("error", "named"),
    [
        (pymysql.err.OperationalError(1045, "Access denied for user 'root'@'h' (using password: YES)"), LoginRefused),
        (pymysql.err.OperationalError(1129, "Host 'h' is blocked because of many connection errors"), LoginRefused),
        (pymysql.err.OperationalError(1049, "Unknown database 'BucketList'"), NotFound),
        (pymysql.err.ProgrammingError(1146, "Table 'BucketList.x' doesn't exist"), NotFound),
        (pymysql.err.OperationalError(2006, "MySQL server has gone away"), ConnectionCut),
        (
            pymysql.err.OperationalError(2013, "Lost connection to MySQL server during query (timed out)"),
            EndpointTimeout,
        ),
        (pymysql.err.ProgrammingError(1064, "You have an error in your SQL syntax"), StatementRefused),
        (pymysql.err.InterfaceError(0, ""), UnexpectedAnswer),
        (pymysql.err.InternalError("Packet sequence number wrong - got 1 expected 0"), UnexpectedAnswer),
        (RuntimeError("'cryptography' package is required"), UnexpectedAnswer),
        (BrokenPipeError(32, "Broken pipe"), ConnectionCut),
        (TimeoutError("timed out"), EndpointTimeout),
    ],
)
def test_what_pymysql_raises_is_named(
    error: Exception, named: type[RunbookError], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(**_: object) -> None:
        raise error

    monkeypatch.setattr(pymysql, "connect", refuse)
    found = meets(Server("127.0.0.1", 3306))
    assert type(found) is named
    assert found.remedy


def test_a_bug_of_ours_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: object) -> None:
        raise TypeError("connect() got an unexpected keyword argument")

    monkeypatch.setattr(pymysql, "connect", refuse)
    with pytest.raises(TypeError), Server("127.0.0.1", 3306).session(ROOT):
        pass


def test_an_account_shows_no_password() -> None:
    assert "heron" not in f"{ROOT} {ROOT!r}"


# in the container

ANSWER = """\
== version
10.11.6-MariaDB
== databases
BucketList
information_schema
mysql
== mysql
columns_priv
user
== BucketList
"""


FAKES = {
    "docker": '{ echo "docker $*" | tr "\\n" " "; echo; } >> "$SAID"; shift 3; exec "$@"',
    "mysql": 'echo "mysql $*" >> "$SAID"; echo "password $MYSQL_PWD" >> "$SAID"; cat >> "$SAID"',
}


@pytest.mark.parametrize("shell", PRESENT)
def test_the_containers_client_gets_the_password_in_no_argument(tmp_path: Path, shell: str) -> None:
    for name, text in FAKES.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    said = tmp_path / "said"
    host = LocalHost(shell, tmp_path, environment={"PATH": f"{tmp_path}:/usr/bin:/bin", "SAID": str(said)})
    account = Account("root", Secret("a 'quote', a $HOME and a \\"))
    frame = host.run(Piece("ask", exec_script("771b0ba79c3d", 3306, account, ("mysql", "Bucket`List"))))["ask"]
    assert (frame.status, frame.err) == (0, "")
    docker, mysql, password, *statements = said.read_text().splitlines()
    assert docker.startswith("docker exec -i 771b0ba79c3d sh -c IFS= read -r MYSQL_PWD")
    assert mysql == (
        "mysql --no-defaults --protocol=TCP --host=127.0.0.1 --port=3306 --user=root --connect-timeout=5 "
        "--batch --skip-column-names"
    )
    assert password == "password a 'quote', a $HOME and a \\"
    assert "quote" not in docker + mysql
    assert statements[-1] == "SELECT '== Bucket`List'; SHOW TABLES FROM `Bucket``List`;"


def test_what_the_containers_client_answers_is_read() -> None:
    catalog = read_catalog(Output(ANSWER, "", 0), "the client")
    assert catalog == Catalog(
        "10.11.6-MariaDB",
        ("BucketList", "information_schema", "mysql"),
        {"mysql": ("columns_priv", "user"), "BucketList": ()},
    )


@pytest.mark.parametrize(
    ("said", "named"),
    [
        ("ERROR 1045 (28000): Access denied for user 'root'@'127.0.0.1' (using password: YES)", LoginRefused),
        ("ERROR 2003 (HY000): Can't connect to MySQL server on '127.0.0.1' (111)", EndpointUnreachable),
        ("ERROR 2002 (HY000): Can't connect to server on '127.0.0.1' (115)", EndpointUnreachable),
        ("ERROR 1049 (42000) at line 6: Unknown database 'BucketList'", NotFound),
        ("Error response from daemon: No such container: 771b0ba79c3d", UnexpectedAnswer),
    ],
)
def test_what_the_containers_client_refuses_is_named(said: str, named: type[RunbookError]) -> None:
    with pytest.raises(RunbookError) as caught:
        read_catalog(Output("", said + "\n", 1), "the client in container 771b0ba79c3d")
    assert type(caught.value) is named
    assert caught.value.message.startswith("the client in container 771b0ba79c3d: ")


def test_a_host_that_does_not_answer_is_the_error() -> None:
    with pytest.raises(HostUnreachable, match="no route"):
        read_catalog(Output(error=HostUnreachable("no route")), "the client")


def test_an_answer_that_is_none_is_told() -> None:
    with pytest.raises(UnexpectedAnswer, match="does not answer as a client"):
        read_catalog(Output("hello\n", "", 0), "the client")
