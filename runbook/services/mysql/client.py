"""A MySQL or MariaDB server as two clients see it: PyMySQL from here, and the container's own client on its host.

Both are asked the same (`Catalog`), so that they can be compared. Whatever goes wrong is a named error: nobody listens,
the server does not answer in time, it cuts the connection (it is still starting), it does not let the user in, it
refuses a statement. A password is given to the connection, or to the container's client through standard input and its
environment; it is in no argument, no message and no log.

Sources: PyMySQL's documentation; 'Server Error Message Reference' and 'Client Error Message Reference' of MySQL 5.7;
'Environment Variables' of it (MYSQL_PWD). `docker exec` takes variables only since 1.13, hence the shell in between.
"""

from __future__ import annotations

import re
import ssl
import struct
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pymysql

from runbook.errors import (
    ConnectionCut,
    EndpointTimeout,
    EndpointUnreachable,
    LoginRefused,
    NotFound,
    NotReady,
    ServiceError,
    StatementRefused,
    UnexpectedAnswer,
)
from runbook.remote.hosts import Output
from runbook.remote.shell import heredoc, quote
from runbook.secrets import Secret

CONNECT = 5.0
"""Seconds for a connection."""
ANSWER = 10.0
"""Seconds for the answer to a statement."""


@dataclass(frozen=True)
class Account:
    """Who connects. The password shows itself nowhere."""

    user: str
    password: Secret


@dataclass(frozen=True)
class Catalog:
    """What a client is shown: the server's version, the databases, and the tables of those that were asked for.

    Names are in the server's order. A database that the account may not see is in neither.
    """

    version: str
    databases: tuple[str, ...]
    tables: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


class Session:
    """A connection to a server, as one account. Made by `Server.session`."""

    def __init__(self, connection: pymysql.connections.Connection[pymysql.cursors.Cursor], who: str) -> None:
        self._connection = connection
        self._who = who

    def rows(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        """The rows that a statement gives; `%s` in it stands for the values. Each statement is committed.

        Raises LoginRefused, NotFound (a table or database), ConnectionCut, EndpointTimeout or StatementRefused.
        """
        with _named(self._who), self._connection.cursor() as cursor:
            cursor.execute(statement, values or None)
            return list(cursor.fetchall())

    def catalog(self, *schemas: str) -> Catalog:
        """What this account is shown; of these databases the tables, as far as it sees them. Raises as `rows`."""
        databases = tuple(name for (name,) in self.rows("SHOW DATABASES"))
        tables = {schema: self._tables(schema) for schema in schemas if schema in databases}
        return Catalog(self.rows("SELECT VERSION()")[0][0], databases, tables)

    def _tables(self, schema: str) -> tuple[str, ...]:
        return tuple(name for (name,) in self.rows(f"SHOW TABLES FROM {_identifier(schema)}"))


@dataclass(frozen=True)
class Server:
    """A server at an address; `name` is what messages call it."""

    host: str
    port: int
    name: str = "mysql"

    def __str__(self) -> str:
        return f"{self.name} ({self.host}:{self.port})"

    @contextmanager
    def session(self, account: Account, database: str | None = None) -> Iterator[Session]:
        """A connection, closed at the end. Raises what `Session.rows` does, and EndpointUnreachable where nobody
        listens, UnexpectedAnswer where somebody else does."""
        who = f"{self}, as {account.user}"
        with _named(who):
            try:
                connection = self._connected(account, database, plain=False)
            except pymysql.err.OperationalError as error:
                if not isinstance(getattr(error, "original_exception", None), ssl.SSLError):
                    raise
                # MySQL 5.7 with yaSSL knows no TLS that is still spoken; a password is proven there, and not sent
                connection = self._connected(account, database, plain=True)
        try:
            yield Session(connection, who)
        finally:
            if connection.open:
                connection.close()

    def _connected(
        self, account: Account, database: str | None, *, plain: bool
    ) -> pymysql.connections.Connection[pymysql.cursors.Cursor]:
        return pymysql.connect(
            host=self.host,
            port=self.port,
            user=account.user,
            password=account.password.reveal().encode(),  # of a text PyMySQL would send Latin-1
            database=database,
            charset="utf8mb4",
            connect_timeout=int(CONNECT),
            read_timeout=int(ANSWER),
            write_timeout=int(ANSWER),
            autocommit=True,
            ssl_disabled=plain,
        )


# the container's own client


def exec_script(container: str, port: int, account: Account, schemas: Iterable[str]) -> str:
    """The sh text that asks the server in a container with the client in it, over TCP as everybody else does.

    (Over its socket MariaDB may let root in without a password.) The first line of standard input is the password.
    """
    statements = ["SELECT '== version'; SELECT VERSION()", "SELECT '== databases'; SHOW DATABASES"]
    statements += [f"SELECT '== {schema}'; SHOW TABLES FROM {_identifier(schema)}" for schema in schemas]
    spoken = "".join(f"{line}\n" for line in (account.password.reveal(), *(f"{text};" for text in statements)))
    return _EXEC.format(
        container=quote(container),
        inside=quote(_INSIDE),
        port=port,
        user=quote(account.user),
        spoken=heredoc(spoken.encode()),
        timeout=int(CONNECT),
    )


_INSIDE = """\
IFS= read -r MYSQL_PWD && export MYSQL_PWD || exit 1
client=$(command -v mysql || command -v mariadb) || { echo "the image has no client" >&2; exit 1; }
exec "$client" --no-defaults --protocol=TCP --host=127.0.0.1 --port="$1" --user="$2" --connect-timeout="$3" \\
  --batch --skip-column-names
"""
_EXEC = """\
{{ base64 -d {spoken}
}} | docker exec -i {container} sh -c {inside} sh {port} {user} {timeout}
"""


def read_catalog(output: Output, who: str) -> Catalog:
    """What the container's client answered to `exec_script`. Raises the named error that its message means."""
    if output.error is not None:
        raise output.error
    if not output.ok:
        said = output.stderr.strip() or f"it ended with status {output.status}"
        found = re.search(r"ERROR (\d+) \([0-9A-Z]+\)[^:]*: (.*)", said)
        raise _meaning(int(found[1]), found[2], who) if found else UnexpectedAnswer(f"{who}: {said}", "read it")
    parts: dict[str, list[str]] = {}
    for line in output.stdout.splitlines():
        if line.startswith("== "):
            lines = parts.setdefault(line.removeprefix("== "), [])
        elif parts:
            lines.append(line)
    if not parts.get("version"):
        raise UnexpectedAnswer(f"{who} does not answer as a client of MySQL does: {output.stdout[:200]!r}", "read it")
    tables = {name: tuple(lines) for name, lines in parts.items() if name not in ("version", "databases")}
    return Catalog(parts["version"][0], tuple(parts["databases"]), tables)


def _identifier(name: str) -> str:
    """A name as SQL quotes it."""
    return "`" + name.replace("`", "``") + "`"


# errors by what they mean

_LOGIN = frozenset({1044, 1045, 1130, 1142, 1227, 1396, 1698, 1820, 1862, 3118, 4151})
"""No right to a database, wrong user or password, host not allowed, no right to a table or for this, no such user,
password expired, account locked."""
_NO_DATABASE, _NO_TABLE, _BLOCKED = 1049, 1146, 1129
_NOT_READY = frozenset({1040, 1053, 1203})
"""Too many connections, shutdown in progress."""
_CUT = frozenset({2006, 2013, 2014, 2027, 2055})
_NO_CONNECTION = frozenset({2002, 2003, 2004, 2005})


@contextmanager
def _named(who: str) -> Iterator[None]:
    """Raise the named error for what PyMySQL raises."""
    try:
        yield
    except pymysql.err.MySQLError as error:
        code, message = (*error.args, "", "")[:2]
        cause = getattr(error, "original_exception", None)
        if isinstance(cause, TimeoutError):
            raise _late(who) from error
        raise _meaning(code if isinstance(code, int) else 0, str(message or code or error), who) from error
    except TimeoutError as error:
        raise _late(who) from error
    except (OSError, EOFError) as error:
        raise ConnectionCut(f"{who}: the connection ended: {error}", _STARTING) from error
    except (AssertionError, LookupError, RuntimeError, ValueError, struct.error) as error:
        message = f"{who}: the answer is not MySQL's protocol, or needs what is not installed: {error}"
        raise UnexpectedAnswer(message, "see that the port is the one that Marathon and docker ps show") from error


_STARTING = "a server that is just starting, or ends, does so: wait, then read the container's log (docker logs)"


def _late(who: str) -> EndpointTimeout:
    return EndpointTimeout(
        f"{who}: no answer in time",
        "see that the host runs, that a firewall lets its port in, and what the container's log says",
    )


def _meaning(code: int, message: str, who: str) -> ServiceError:
    """The named error of a MySQL error code, a client's or the server's."""
    said = f"{who}: {message.strip()} ({code})" if code else f"{who}: {message.strip()}"
    late = "timed out" in message.lower() or "timeout" in message.lower()
    if late and code in _NO_CONNECTION | _CUT:
        return _late(who)
    if code in _NO_CONNECTION:
        return EndpointUnreachable(
            said, "see that the task runs, and that host and port are its present ones: they change when it moves"
        )
    if code in _CUT:
        return ConnectionCut(said, _STARTING)
    if code == _BLOCKED:
        return LoginRefused(
            said,
            "mysqladmin flush-hosts; for good, skip-name-resolve in the image's my.cnf (as the official one has it): "
            "health checks by TCP count as errors, and too many of them shut the checking host out",
        )
    if code in _LOGIN:
        return LoginRefused(
            said,
            "the image sets passwords, user and database only while its data folder is empty: change them in the "
            "server with ALTER USER, or point the parameters at the secret that the data was initialised with",
        )
    if code == _NO_DATABASE:
        return NotFound(
            said, "the image makes the database only while its data folder is empty: else CREATE DATABASE as root"
        )
    if code == _NO_TABLE:
        return NotFound(said, "see SHOW TABLES for what there is")
    if code in _NOT_READY:
        return NotReady(said, "wait, or see who holds all connections (SHOW PROCESSLIST)")
    if not code:
        return UnexpectedAnswer(said, "see that the port is the one that Marathon and docker ps show")
    return StatementRefused(said, "look the number up in MySQL's error reference")
