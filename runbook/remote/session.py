"""One host over SSH: a connection that is opened once and kept, framed scripts on standard input, files by SFTP.

Fabric's Connection gives configuration, authentication and gateways; executions go over the transport directly.
Host keys are strict: a key that known_hosts does not hold, or holds otherwise, is refused before anything is sent.
What a login needs comes from the site's parameters alone: ~/.ssh/config is not read, so that two operators' runs do
not differ by it.
"""

from __future__ import annotations

import base64
import codecs
import hashlib
import logging
import re
import select
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import fabric
import paramiko
import tenacity
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes

from runbook.errors import (
    AuthenticationRefused,
    BecomeFailed,
    HostKeyChanged,
    HostKeyRevoked,
    HostKeyUnknown,
    HostTimeout,
    HostUnreachable,
    LoginShellFailed,
    RunbookError,
    StepFailed,
)
from runbook.paths import read_regular
from runbook.remote import steps
from runbook.remote.known_hosts import KnownHosts, KnownKeys
from runbook.remote.shell import Piece, Reader, Transcript, compose, new_marker, quote
from runbook.remote.steps import Upload
from runbook.secrets import Secret, redact
from runbook.site import GatewayParameters, HostParameters, SshParameters

logging.getLogger("paramiko").addHandler(logging.NullHandler())  # what it complains of, the named errors say

CONNECT_TIMEOUT = 15.0
"""Seconds for a connection, retries included."""
EOF_GRACE = 2.0
"""Seconds without output after the exit status, before the script's end, in which its rest is awaited."""
LOCK = f"{steps.STATE_DIR}/lock"
"""The file on a host (as sh text) that the scripts which change something lock."""
FALSE_START = 5.0
"""Seconds in which a gateway that could not be opened is not tried again: the hosts behind it share the answer."""

# The password comes in the first line of standard input, never in an argument. `sudo -S` reads it only where sudo
# asks, and else the shell would take that line for a command: so find out first, and then force the question (-k).
# Where sudo demands a terminal (requiretty, the default of CentOS 7.0 to 7.2), `script` makes one, and the text runs
# once more in it. sudo only opens /dev/tty, so the streams stay those of the connection. The status comes by descriptor
# 6, as `script` of util-linux 2.23 may end before its command. The shell gets a session of its own, or a daemon that it
# starts would be hung up with the terminal; within `sh -c`, since setsid does not wait where it leads a process group.
# It is one line without a single quote, since csh, as a login shell, takes no newline within quotes.
_SUDO_TEXT = "; ".join(
    (
        "text=$1",
        "set -- -s",
        r'[ -z "$RUNBOOK_TERMINAL" ] || set -- -c "setsid /bin/sh -s; exit \$?"',
        "message=$(LC_ALL=C sudo -n /bin/sh -c : 2>&1 </dev/null) && "
        '{ IFS= read -r secret; exec sudo -n /bin/sh "$@"; }',
        'case $RUNBOOK_TERMINAL$message in ("sudo: "*"must have a tty"*) command -v script >/dev/null && '
        "{ RUNBOOK_TERMINAL=$text SHELL=/bin/sh; export RUNBOOK_TERMINAL SHELL; exec 3<&0 4>&1 5>&2; "
        r'status=$(script -q -c "( eval \"\$RUNBOOK_TERMINAL\" ) <&3 >&4 2>&5 3<&- 4>&- 5>&- 6>&-; echo \$? >&6" '
        "/dev/null 6>&1 </dev/null >/dev/null 2>&1); "
        '[ -z "$status" ] || exit "$status"; }; '
        'echo "$message" >&2; exit 97;; esac',
        "IFS= read -r secret",
        'case $message in (*password*) [ -n "$secret" ] || '
        '{ echo "sudo asks for a password, and none is configured: $message" >&2; exit 97; };; '
        '(*) echo "$message" >&2; [ -n "$secret" ] || exit 97;; esac',
        r'printf "%s\n" "$secret" | sudo -k -S -p "" -v || exit 97',
        r'{ printf "%s\n" "$secret"; exec cat; } | sudo -k -S -p "" /bin/sh "$@"',
    )
)
_SUDO = f"/bin/sh -c 'eval \"$1\"' runbook '{_SUDO_TEXT}'"
_BECOME_FAILED = 97

# A script whose connection broke, or whose deadline passed, may still be at work when the next one comes. So those that
# change anything wait for each other, by a lock that the kernel lifts when its holder ends.
_EXCLUSIVE = """\
mkdir -p {state} && exec 9>>{lock} || exit 1
flock -w {seconds} 9 || {{ echo "process $(cat {lock}) holds {lock}" >&2; exit {busy}; }}
echo $$ >{lock}
"""
_BUSY = 98


class ConnectionLost(HostUnreachable):
    """The connection broke while a script ran; `transcript` shows how far it had got."""

    def __init__(self, message: str, remedy: str | None, transcript: Transcript) -> None:
        super().__init__(message, remedy)
        self.transcript = transcript


class ShellBroken(StepFailed):
    """The host's shell did not run a script as sh must; `transcript` shows how far it had got."""

    def __init__(self, message: str, remedy: str | None, transcript: Transcript) -> None:
        super().__init__(message, remedy)
        self.transcript = transcript


class DeadlinePassed(HostTimeout):
    """The deadline passed while a script ran; `transcript` shows how far it had got."""

    def __init__(self, message: str, remedy: str | None, transcript: Transcript) -> None:
        super().__init__(message, remedy)
        self.transcript = transcript


@dataclass(frozen=True)
class Login:
    """How to reach one host. `key` None means the agent's and the user's default keys."""

    address: str
    user: str
    port: int
    key: Path | None
    known_hosts: Path
    become: bool = False
    become_password: Callable[[], Secret] | None = None
    gateway: Login | None = None

    @classmethod
    def of(cls, host: HostParameters) -> Login:
        """The login that a site's parameters describe."""
        ssh: SshParameters = host.ssh
        via: GatewayParameters | None = ssh.gateway
        gateway = Login(via.address, via.user, via.port, via.key, ssh.known_hosts) if via else None
        password = ssh.become_password.resolve if ssh.become_password else None
        return cls(host.address, ssh.user, ssh.port, ssh.key, ssh.known_hosts, ssh.become == "sudo", password, gateway)

    def __str__(self) -> str:
        via = f" (by way of {self.gateway})" if self.gateway else ""
        return f"{self.user}@{self.address}:{self.port}{via}"


def config() -> fabric.Config:
    """Fabric's configuration as it is without any file."""
    return fabric.Config(lazy=True, ssh_config=paramiko.SSHConfig())


def fingerprint(key: paramiko.PKey) -> str:
    """The fingerprint of a host key as OpenSSH prints it: `ssh-ed25519 SHA256:…`."""
    digest = base64.b64encode(hashlib.sha256(key.asbytes()).digest()).decode().rstrip("=")
    return f"{key.get_name()} SHA256:{digest}"


class _HostKeyPolicy(paramiko.MissingHostKeyPolicy):
    """Accepts the keys that known_hosts holds for a login, and refuses every other one.

    paramiko asks it about each key, since it is given no known keys itself: it would compare with one of a type only.
    """

    def __init__(self, login: Login, known: KnownKeys) -> None:
        self._login = login
        self._known = known

    def missing_host_key(self, client: paramiko.SSHClient, hostname: str, key: paramiko.PKey) -> None:
        login, known, shown = self._login, self._known, key.asbytes()
        if any(shown == revoked.asbytes() for revoked in known.revoked):
            raise HostKeyRevoked(
                f"{login} shows a host key that {login.known_hosts} marks as @revoked: {fingerprint(key)}",
                "do not connect: the key is known to others. Give the host a new one (remove the old file in /etc/ssh, "
                f"`ssh-keygen -A`, restart sshd), then add its public key to {login.known_hosts}",
            )
        if any(shown == trusted.asbytes() for trusted in known.keys):
            return
        if known.keys and not known.elsewhere:
            raise HostKeyChanged(
                f"{login} shows another host key than {login.known_hosts} holds: {fingerprint(key)} instead of "
                f"{' or '.join(map(fingerprint, known.keys))}",
                "find out why before anything else: a reinstalled host, or somebody in between; "
                f"`ssh-keygen -R {_host_key_name(login)} -f {login.known_hosts}` forgets the old key",
            )
        if known.damaged:
            raise HostKeyUnknown(
                f"the known_hosts file {login.known_hosts} is damaged: {'; '.join(known.damaged)}", _keyscan(login)
            )
        raise HostKeyUnknown(
            f"{_host_key_name(login)} shows a host key that {login.known_hosts} does not hold: {fingerprint(key)}"
            + _authorities(known),
            "compare the fingerprint with the host's own (ssh-keygen -lf /etc/ssh/ssh_host_*_key.pub on its console), "
            f"then add the key to {login.known_hosts} (`{_scan(login)}` prints its line)",
        )


def _authorities(known: KnownKeys) -> str:
    """What to add to a refusal where known_hosts trusts a CA for the host."""
    lines = ", ".join(map(str, known.authorities))
    return f"; host certificates (@cert-authority, line {lines}) are not supported" if lines else ""


def _scan(login: Login) -> str:
    return f"ssh-keyscan -p {login.port} {login.address}"


def _keyscan(login: Login) -> str:
    return f"name a good file in ssh.known_hosts; `{_scan(login)}` prints keys to compare and put there"


def _known_keys(login: Login) -> KnownKeys:
    """The keys known for a login. Raises HostKeyUnknown where the file cannot be read."""
    path = login.known_hosts
    try:
        return KnownHosts.read(path).known(login.address, login.port)
    except OSError as error:
        raise HostKeyUnknown(
            f"the known_hosts file {path} cannot be read: {error.strerror}", _keyscan(login)
        ) from error


_reading = threading.Lock()  # of files that many connections need at once: the first reads, the others find it read

LONGEST_KEY = 1 << 20
"""Bytes of a private key's file."""


@lru_cache(maxsize=64)
def _private_key(path: Path, mtime_ns: int) -> paramiko.PKey:
    read_regular(path, LONGEST_KEY)  # paramiko would wait for a FIFO, and read a device for ever
    key: paramiko.PKey = paramiko.PKey.from_path(path)
    return _RsaKey(key=key.key) if isinstance(key, paramiko.RSAKey) else key


def _key(path: Path) -> paramiko.PKey:
    try:
        with _reading:
            return _private_key(path, path.stat().st_mtime_ns)
    except OSError as error:
        raise AuthenticationRefused(f"the key {path} cannot be read: {error.strerror}", "correct ssh.key") from error
    except TypeError as error:  # says cryptography
        raise AuthenticationRefused(
            f"the key {path} is protected by a passphrase", "load it into ssh-agent and leave out ssh.key"
        ) from error
    except (ValueError, AssertionError, paramiko.SSHException, UnsupportedAlgorithm) as error:
        raise AuthenticationRefused(
            f"{path} is not a private key that can be used: {error}", "correct ssh.key"
        ) from error


class _Tunnel:
    """A channel through a gateway, as the socket of the connection to the host behind it.

    paramiko takes for granted that a socket can always be closed. A channel whose gateway is gone raises there, in
    the thread of the connection too, where nothing could catch it.
    """

    def __init__(self, channel: paramiko.Channel) -> None:
        self._channel = channel

    def __getattr__(self, name: str) -> Any:
        return getattr(self._channel, name)

    def close(self) -> None:
        with suppress(EOFError, OSError, paramiko.SSHException):
            self._channel.close()


class _RsaKey(paramiko.RSAKey):
    """paramiko's, but that it signs and verifies with SHA-1 too, which paramiko 5 dropped.

    OpenSSH before 7.2 (CentOS 7.0 to 7.3 have 6.6.1) supports no other signature of an RSA key.
    """

    HASHES = {**paramiko.RSAKey.HASHES, "ssh-rsa": hashes.SHA1}  # type: ignore[misc]  # noqa: RUF012 (as paramiko has it)


_PARAMIKO: Any = paramiko.Transport  # with the tables that its types leave out


class _Transport(paramiko.Transport):
    """paramiko's, with RSA signatures for old servers, and the reason of a disconnect.

    Whatever ends its thread is an error of the connection. On bytes that make no sense paramiko's readers end with all
    kinds of errors (a text that is no UTF-8, a checksum that does not fit), which would be taken for mistakes in this
    program and so end the work on all hosts.
    """

    # paramiko 4 has ssh-rsa in these, paramiko 5 not. It stays the last choice for a host's key.
    _key_info: ClassVar = {**_PARAMIKO._key_info, "ssh-rsa": _RsaKey}
    _preferred_keys = (*dict.fromkeys((*_PARAMIKO._preferred_keys, "ssh-rsa")),)
    _preferred_pubkeys = (*dict.fromkeys((*_PARAMIKO._preferred_pubkeys, "ssh-rsa")),)

    farewell = ""
    """What the server gave as its reason for a disconnect."""

    @property
    def preferred_pubkeys(self) -> tuple[str, ...]:
        """The algorithms to sign a login with, in order of preference.

        paramiko takes the first RSA algorithm where the server announces none (server-sig-algs). OpenSSH does so from
        7.2 on, which brought rsa-sha2 (RFC 8332, 3.3).
        """
        kinds = tuple(super().preferred_pubkeys)
        key = getattr(self.auth_handler, "private_key", None)
        if isinstance(key, paramiko.RSAKey) and "ssh-rsa" not in key.HASHES:
            return tuple(kind for kind in kinds if kind != "ssh-rsa")
        if not self.signatures:
            return tuple(kind for kind in kinds if not kind.startswith("rsa-sha2-"))
        return kinds

    @property
    def signatures(self) -> list[str]:
        """The signature algorithms that the server announces for logins; none for OpenSSH before 7.2."""
        announced: bytes = getattr(self, "server_extensions", {}).get("server-sig-algs", b"")
        return announced.decode("ascii", "replace").split(",") if announced else []

    def _parse_disconnect(self, message: paramiko.Message) -> None:
        message.get_int()
        self.farewell = message.get_text()
        message.rewind()
        super()._parse_disconnect(message)  # type: ignore[misc]  # its types leave it out

    def get_exception(self) -> Exception | None:
        error: Exception | None = super().get_exception()
        if error is None or isinstance(error, EOFError | OSError | paramiko.SSHException):
            return error
        told = paramiko.SSHException(f"what it sent cannot be read: {type(error).__name__} {error}".rstrip())
        told.__cause__ = error
        return told


def _transport(sock: Any, **options: Any) -> paramiko.Transport:
    if isinstance(sock, paramiko.Channel):
        sock = _Tunnel(sock)
    # paramiko leaves Nagle's algorithm on, which costs 40 ms at each of the small packets of a handshake.
    if isinstance(sock, socket.socket):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    transport = _Transport(sock, **options)
    # AES-GCM first: of the others, paramiko compares the checksum of each packet byte by byte in Python.
    security = transport.get_security_options()
    security.ciphers = sorted(security.ciphers, key=lambda name: "-gcm@" not in name)
    return transport


_RSA = ("rsa-sha2-512", "rsa-sha2-256", "ssh-rsa")
_HOST_KEY_TYPES = ("ssh-ed25519", *(f"ecdsa-sha2-nistp{bits}" for bits in (256, 384, 521)), *_RSA, "ssh-dss")


class _Connection(fabric.Connection):  # type: ignore[misc]  # fabric has no types
    """Fabric's, but that it leaves alone the configuration that the threads of all hosts read.

    Fabric's stores what is no attribute of the class there, and while that is merged, the configuration is empty.
    """

    inline_ssh_env = False


def _connection(
    login: Login, config: fabric.Config, timeout: float, gateway: fabric.Connection | None = None
) -> fabric.Connection:
    known = _known_keys(login)
    # Ask the host for a key of a known type: else it may show a true key of another type, which reads as changed.
    acceptable = {kind for name in known.types for kind in (_RSA if name in _RSA else (name,))}
    disabled = [kind for kind in _HOST_KEY_TYPES if kind not in acceptable] if acceptable else []
    options: dict[str, Any] = {
        "transport_factory": _transport,
        "timeout": timeout,
        "banner_timeout": timeout,
        "auth_timeout": timeout,
        "channel_timeout": timeout,
        "disabled_algorithms": {"keys": disabled},
    }
    if login.key is not None:
        options |= {"pkey": _key(login.key), "look_for_keys": False, "allow_agent": False}
    connection = _Connection(
        login.address,
        user=login.user,
        port=login.port,
        config=config,
        gateway=gateway if gateway is not None else False,
        connect_kwargs=options,
    )
    connection.client.set_missing_host_key_policy(_HostKeyPolicy(login, known))
    return connection


def _host_key_name(login: Login) -> str:
    return login.address if login.port == paramiko.config.SSH_PORT else f"[{login.address}]:{login.port}"


def _open(login: Login, connection: fabric.Connection) -> None:
    """Open a connection; whatever goes wrong becomes a named error that says what to do."""
    try:
        _open_or_name_error(login, connection)
    except BaseException:
        connection.client.close()  # ends the transport's thread
        raise


def _open_or_name_error(login: Login, connection: fabric.Connection) -> None:
    try:
        connection.open()
    except paramiko.ssh_exception.IncompatiblePeer as error:
        raise _incompatible(login, error) from error
    except (OSError, EOFError, paramiko.SSHException) as error:
        raise _not_open(login, connection.client.get_transport(), error) from error


def _incompatible(login: Login, error: Exception) -> HostUnreachable:
    """Why a server and this program agree on no algorithm."""
    if "host key" not in str(error):
        return HostUnreachable(
            f"{login}: the key exchange failed ({error})",
            "compare `ssh -vv` with KexAlgorithms, Ciphers and MACs of the host's sshd_config",
        )
    known = _known_keys(login)
    message = f"{login} has no host key of the kind that {login.known_hosts} holds ({', '.join(sorted(known.types))})"
    if known.elsewhere:
        return HostKeyUnknown(message, f"add its key to {login.known_hosts} (`{_scan(login)}` prints its line)")
    return HostKeyChanged(message, "compare the host's keys with those in known_hosts; a reinstalled host has new ones")


def _not_open(login: Login, transport: _Transport | None, error: Exception) -> HostUnreachable:
    """Why a connection could not be opened, by the stage that failed: TCP, key exchange, authentication."""
    if transport is None:
        if isinstance(error, TimeoutError):
            return HostUnreachable(
                f"{login} did not answer: no TCP connection", "check the address, the network and the firewall"
            )
        return HostUnreachable(
            f"{login} cannot be reached: {_reason(error)}", "check the address, the network and that sshd runs"
        )
    reason = transport.farewell or _reason(error)
    if not transport.initial_kex_done:
        return HostUnreachable(
            f"{login} cannot be reached: {reason}, after the TCP connection was open and before the end of the key "
            "exchange",
            "check that sshd listens at this port, and its limits (MaxStartups, hosts.deny, fail2ban) on the host",
        )
    if isinstance(error, TimeoutError):
        reason = "no answer in time"
    cause, hint = _refusal(login, transport, error)
    message = f"{login} refused the login: {cause or reason}"
    if banner := transport.get_banner():
        message += f"; it printed: {banner.decode('utf-8', 'backslashreplace').strip()}"
    return AuthenticationRefused(message, hint)


def _refusal(login: Login, transport: _Transport, error: Exception) -> tuple[str, str]:
    """The cause of a refused login, where it is known, and the hint."""
    key = getattr(transport.auth_handler, "private_key", None)
    if isinstance(error, paramiko.PasswordRequiredException):
        return (
            "the user's default key is protected by a passphrase",
            "load it into ssh-agent (`ssh-add`), or name a key without one in ssh.key",
        )
    if key is None and not isinstance(error, paramiko.AuthenticationException) and transport.is_active():
        return (
            "no key to offer: ssh.key is not set, ssh-agent holds none, and ~/.ssh has no id_* file",
            "set ssh.key, or load a key into ssh-agent (`ssh-add`)",
        )
    if isinstance(error, paramiko.BadAuthenticationType):
        return (
            f"its sshd allows {', '.join(error.allowed_types)} and no public key",
            "set `PubkeyAuthentication yes` in the host's sshd_config",
        )
    if key is not None:
        kind, ed25519 = key.get_name(), "use an Ed25519 key: `ssh-keygen -t ed25519`, add its .pub to authorized_keys"
        agreed = [name for name in transport.preferred_pubkeys if name in (_RSA if kind in _RSA else (kind,))]
        if transport.signatures and not set(agreed) & set(transport.signatures):
            names = ", ".join(transport.signatures)
            return f"its sshd supports no {kind} key (it supports {names})", f"{ed25519}, and name it in ssh.key"
        if kind in _RSA and not transport.signatures and "ssh-rsa" not in agreed:
            return (
                f"its sshd ({transport.remote_version}) supports an RSA key only with SHA-1 signatures (ssh-rsa), "
                f"which paramiko {paramiko.__version__} makes for ssh.key and agents alone",
                f"name the RSA key in ssh.key, or {ed25519}",
            )
    if not transport.is_active():
        return (
            f"its sshd ended the connection during the authentication ({transport.farewell or 'without a reason'})",
            f"see on the host whether PAM denies the account (`chage -l {login.user}`, /etc/nologin, access.conf), and "
            "what `journalctl -u sshd` names; where ssh-agent offers many keys, name one in ssh.key",
        )
    return "", (
        "check ssh.user and ssh.key, and on the host the user's authorized_keys (its mode, and those of ~ and ~/.ssh), "
        "AllowUsers, that the account is not expired (`chage -l`) and that its shell exists; "
        "`journalctl -u sshd` there names the reason"
    )


def _reason(error: Exception) -> str:
    if isinstance(error, paramiko.ssh_exception.NoValidConnectionsError):
        return "; ".join(sorted({getattr(one, "strerror", None) or str(one) for one in error.errors.values()}))
    return str(error) or type(error).__name__


class Gateway:
    """A jump host's connection, shared by all the hosts behind it. sshd lets about ten handshakes in at once."""

    def __init__(self, login: Login, config: fabric.Config) -> None:
        self._login = login
        self._config = config
        self._opening = threading.Lock()
        self._connection: fabric.Connection | None = None
        self._refusal: HostUnreachable | None = None
        self._refused = 0.0
        self.handshakes = threading.BoundedSemaphore(8)

    def connection(self, timeout: float) -> fabric.Connection:
        """The open connection. Raises HostUnreachable and its kin, saying that it is the gateway."""
        with self._opening:
            if self._connection is not None and self._connection.is_connected:
                return self._connection
            if self._refusal is not None and time.monotonic() - self._refused < FALSE_START:
                raise type(self._refusal)(self._refusal.message, self._refusal.remedy)
            try:
                connection = _connection(self._login, self._config, timeout)
                _open(self._login, connection)
            except HostUnreachable as error:
                self._refused = time.monotonic()
                self._refusal = type(error)(f"gateway {error.message}", error.remedy)
                raise self._refusal from error
            connection.transport.set_keepalive(15)
            self._connection = connection
            return connection

    def close(self) -> None:
        """Close the connection, if any."""
        with self._opening:
            if self._connection is not None:
                self._connection.close()
                self._connection = None


class Session:
    """The connection to one host. Calls from several threads take turns."""

    def __init__(self, name: str, login: Login, config: fabric.Config, gateway: Gateway | None = None) -> None:
        self.name = name
        self.login = login
        self._config = config
        self._gateway = gateway
        self._turn = threading.RLock()
        self._connection: fabric.Connection | None = None
        self._reached = False

    def connect(self, deadline: float | None = None) -> None:
        """Open the connection unless it is open.

        Raises HostUnreachable, HostKeyUnknown, HostKeyChanged, …, and TimeoutError where it is open only after the
        deadline: what should break it then found nothing to break.
        """
        patience = CONNECT_TIMEOUT if deadline is None else min(CONNECT_TIMEOUT, _left(deadline))
        limit = time.monotonic() + patience
        with self._turn:
            if self._is_connected:
                return
            # A host that was there a moment ago has its sshd restarted, say, and is worth the whole patience.
            stop = tenacity.stop_after_delay(patience)
            for attempt in tenacity.Retrying(
                retry=tenacity.retry_if_exception(lambda error: type(error) is HostUnreachable),
                stop=stop if self._reached else tenacity.stop_after_attempt(3) | stop,
                wait=tenacity.wait_random(0.1, 1.0),
                reraise=True,
            ):
                with attempt:
                    self._connection = self._connected(_left(limit))
                    self._reached = True
            if deadline is not None and time.monotonic() >= deadline:
                raise TimeoutError

    @property
    def _is_connected(self) -> bool:
        return self._connection is not None and self._connection.is_connected

    @property
    def _transport(self) -> paramiko.Transport:
        assert self._connection is not None
        transport: paramiko.Transport = self._connection.transport
        return transport

    def _connected(self, timeout: float) -> fabric.Connection:
        if self._gateway is None:
            connection = _connection(self.login, self._config, timeout)
            _open(self.login, connection)
        else:
            with self._gateway.handshakes:
                connection = _connection(self.login, self._config, timeout, self._gateway.connection(timeout))
                _open(self.login, connection)
        connection.transport.set_keepalive(15)
        return connection

    def close(self) -> None:
        """Close the connection, if any."""
        with self._turn:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def execute(
        self,
        pieces: Iterable[Piece],
        deadline: float,
        on_mark: Callable[[str, str], None] | None = None,
        *,
        environment: str = "",
        exclusive: bool = False,
    ) -> Transcript:
        """Run `pieces` in one execution of /bin/sh and return what they printed.

        `deadline` is a value of time.monotonic(); `environment` is sh text put before the pieces; an `exclusive`
        script waits until no other of that kind is at work on the host. Raises DeadlinePassed, ConnectionLost when the
        connection breaks, BecomeFailed when sudo refuses, ShellBroken when the host's shell does not run the script
        as sh must. What is returned has a frame with a status for each piece that ran.
        """
        pieces = list(pieces)
        marker = new_marker()
        if exclusive:
            wait = max(1, int(_left(deadline)) - 2)
            environment += _EXCLUSIVE.format(state=steps.STATE_DIR, lock=LOCK, seconds=wait, busy=_BUSY)
        script = compose(pieces, marker, environment)
        reader = Reader(marker, on_mark)
        with self._turn, self._limited(deadline, reader):
            status = self._converse(self._channel(deadline), script, reader)
        transcript = reader.close()
        if not transcript.done or transcript.broken or transcript.lacking(pieces):
            raise self._broken_off(status, transcript)
        return transcript

    def _broken_off(self, status: int, transcript: Transcript) -> RunbookError:
        """Why a script that ended with `status` did not run as it was sent."""
        noise = redact(transcript.noise.strip())
        refused = status == _BECOME_FAILED or re.search(r"\bsudo\b|Sorry, user", noise)
        if transcript.pid is None and self.login.become and refused:
            return BecomeFailed(f"{self.name}: sudo refused {self.login.user}: {noise}", _sudo_hint(self.login, noise))
        if transcript.pid is None and status != _BUSY:
            return self._no_shell(f"the login's command ended with exit status {status}", noise)
        if status == _BUSY:
            return HostTimeout(
                f"{self.name}: another script of the runbook is still at work there: {noise}",
                "wait until it has ended, or look on the host what keeps it (ps -ef --forest), then run again",
            )
        if transcript.frames and status > 128 and not transcript.broken:
            return self._lost(f"the script's shell was ended by signal {status & 127}", transcript)
        shell = f"bash {transcript.shell}" if transcript.shell else "not bash, or it did not start"
        where = f"after {_ended(transcript)}"
        if open_frames := [(key, frame) for key, frame in transcript.frames.items() if frame.status is None]:
            key, frame = open_frames[0]
            where += f", in '{key}'"
            noise = "\n".join(filter(None, (redact((frame.out + frame.err).strip()), noise)))
        what = f"the frame {transcript.broken} is out of turn" if transcript.broken else f"exit status {status}"
        return ShellBroken(
            f"{self.name}: the host's shell did something unexpected {where}: {what}; its output: {noise or 'none'}",
            f"/bin/sh there is {shell}: see that it is a POSIX shell (`/bin/sh --version`, `ls -l /bin/sh`), and that "
            f"nothing ended it (ulimit, out of memory: dmesg)",
            transcript,
        )

    def _no_shell(self, what: str, output: str = "") -> LoginShellFailed:
        """The error of a login that sshd accepted, and that did not start `/bin/sh -s`."""
        return LoginShellFailed(
            f"{self.name}: {self.login} accepted the login and started no shell: {what}; its output: "
            f"{output.strip() or 'none'}",
            _shell_hint(self.login.user, output),
        )

    def _lost(self, reason: str, transcript: Transcript) -> ConnectionLost:
        return ConnectionLost(
            f"{self.name}: the connection was lost after {_ended(transcript)} ({reason})",
            "run again: what was done is found, and the rest follows",
            transcript,
        )

    def _hung(self, transcript: Transcript) -> DeadlinePassed:
        left = f"; process {transcript.pid} there may still be at work" if transcript.pid else ""
        return DeadlinePassed(
            f"{self.name} did not finish within its deadline: it got to the end of {_ended(transcript)}{left}",
            "look at the host (load, disk, a hanging mount), then run again: what was done is found",
            transcript,
        )

    @contextmanager
    def _limited(self, deadline: float, reader: Reader) -> Iterator[None]:
        """Break the connection at the deadline, wherever a call hangs, and name what ended the connection."""
        if time.monotonic() >= deadline:
            raise self._hung(reader.close())
        expired = threading.Event()

        def end() -> None:
            expired.set()
            if (connection := self._connection) is not None and connection.is_connected:
                connection.transport.close()

        timer = threading.Timer(max(0.0, deadline - time.monotonic()), end)
        timer.daemon = True
        timer.start()
        try:
            yield
        except (EOFError, OSError, paramiko.SSHException) as error:
            late = expired.is_set() or time.monotonic() >= deadline
            self.close()
            transcript = reader.close()
            raise (self._hung(transcript) if late else self._lost(_reason(error), transcript)) from error
        finally:
            timer.cancel()

    def _channel(self, deadline: float) -> paramiko.Channel:
        """A channel on the connection. One that was kept may have died unnoticed: nothing is sent yet, so try anew."""
        if self._is_connected:
            try:
                return self._transport.open_session(timeout=min(CONNECT_TIMEOUT, _left(deadline)))
            except (EOFError, OSError, paramiko.SSHException):
                self.close()
        self.connect(deadline)
        try:
            return self._transport.open_session(timeout=min(CONNECT_TIMEOUT, _left(deadline)))
        except paramiko.ChannelException as error:
            raise self._no_shell(f"sshd opened no session ({error.text})") from error

    def _start(self, channel: paramiko.Channel, command: str) -> None:
        """Start a command. Raises LoginShellFailed where sshd runs none for this login."""
        try:
            channel.exec_command(command)
        except paramiko.SSHException as error:
            if not self._transport.is_active():
                raise
            raise self._no_shell("sshd refused to run a command") from error

    def _converse(self, channel: paramiko.Channel, script: str, reader: Reader) -> int:
        """Send the script, drain both outputs, return the exit status. Raises EOFError where none comes."""
        with channel:
            if self.login.become:
                password = self.login.become_password().reveal() if self.login.become_password else ""
                self._start(channel, _SUDO)
                script = f"{password}\n{script}"
            else:
                self._start(channel, "/bin/sh -s")
            try:
                channel.sendall(script.encode())
            except OSError:
                if not channel.exit_status_ready() and not channel.closed:
                    raise
                # The program ended without reading all of it (sudo refused): its output says why.
            else:
                channel.shutdown_write()
            self._drain(channel, reader)
            if not channel.exit_status_ready() or (status := channel.recv_exit_status()) == -1:
                raise EOFError("it ended without an exit status")
            # sshd may send the exit status before the last of the output.
            if channel.closed and not channel.eof_received and not reader.done:
                raise EOFError("it ended before all of the output had arrived")
            return status & 0xFF

    def _drain(self, channel: paramiko.Channel, reader: Reader) -> None:
        poll = select.poll()
        poll.register(channel.fileno(), select.POLLIN)
        decoders = {name: codecs.getincrementaldecoder("utf-8")("backslashreplace") for name in ("out", "err")}
        exited: float | None = None
        while True:
            ended = channel.eof_received or channel.closed
            drained = True
            if channel.recv_ready():
                reader.feed("out", decoders["out"].decode(channel.recv(1 << 20)))
                drained = False
            if channel.recv_stderr_ready():
                reader.feed("err", decoders["err"].decode(channel.recv_stderr(1 << 20)))
                drained = False
            if not drained:
                exited = None
                continue
            if channel.exit_status_ready():
                exited = exited or time.monotonic()
                if ended or reader.done or time.monotonic() - exited > EOF_GRACE:
                    return
            elif channel.closed:
                return
            # After the end of output the descriptor stays readable, so only the exit status is awaited.
            if ended:
                channel.status_event.wait(1.0)
            else:
                poll.poll(1000)

    def upload(self, upload: Upload, deadline: float, on_progress: Callable[[int, int], None] | None = None) -> str:
        """Bring a local file to the host by SFTP, going on where an earlier attempt broke off.

        Returns the file's path in the login's home; `placing` moves it to where root wants it, and checks it there.
        `on_progress(done, total)` counts bytes. Raises DeadlinePassed, ConnectionLost, and StepFailed where the file
        is not the one that the parameters promise, or the host cannot store it.
        """
        total = artifact_size(upload)
        with self._turn, self._limited(deadline, Reader("")), self._understood():
            self.connect(deadline)
            try:
                sftp = self._transport.open_sftp_client()
            except paramiko.SSHException as error:
                if not self._is_connected:
                    raise
                raise StepFailed(f"{self.name} offers no SFTP ({error})", "allow `Subsystem sftp` in sshd") from error
            assert sftp is not None
            with sftp:
                try:
                    return self._send(sftp, upload, total, deadline, on_progress)
                except OSError as error:
                    channel = sftp.get_channel()
                    if isinstance(error, ConnectionError | TimeoutError) or channel is None or channel.closed:
                        raise
                    raise StepFailed(
                        f"{self.name}: {upload.local.name} cannot be stored below ~/.cache/runbook: {error}",
                        f"look at the space and the permissions in the home of {self.login.user}",
                    ) from error

    @contextmanager
    def _understood(self) -> Iterator[None]:
        """Name what is no SFTP. sshd starts it by the login's shell, whose profile may print something before."""
        try:
            yield
        except paramiko.SFTPError as error:
            raise StepFailed(
                f"{self.name}: SFTP cannot be understood there ({error})",
                f"have the profile of {self.login.user}'s shell (~/.bashrc, say) print nothing without a terminal",
            ) from error

    def _send(
        self,
        sftp: paramiko.SFTPClient,
        upload: Upload,
        total: int,
        deadline: float,
        on_progress: Callable[[int, int], None] | None,
    ) -> str:
        folder = f"{sftp.normalize('.')}/.cache/runbook"
        for path in (folder.removesuffix("/runbook"), folder):
            try:
                sftp.stat(path)
            except FileNotFoundError:
                sftp.mkdir(path, 0o700)
        remote = f"{folder}/{upload.sha256}"
        try:
            done = sftp.stat(remote).st_size or 0
        except FileNotFoundError:
            done = 0
        if done and not self._begins_with(remote, upload.local, done, deadline):
            sftp.remove(remote)
            done = 0
        with upload.local.open("rb") as source, sftp.open(remote, "ab") as target:
            source.seek(done)
            target.set_pipelined(True)
            while chunk := source.read(1 << 18):
                target.write(chunk)
                done += len(chunk)
                if on_progress:
                    on_progress(done, total)
        # paramiko drops the answers to pipelined writes, failures included.
        if (stored := sftp.stat(remote).st_size) != total:
            raise OSError(f"{stored} of {total} bytes were stored")
        return remote

    def _begins_with(self, remote: str, local: Path, size: int, deadline: float) -> bool:
        """Whether the `size` bytes that are on the host already are the first ones of the local file."""
        digest, left = hashlib.sha256(), size
        with local.open("rb") as file:
            while chunk := file.read(min(left, 1 << 20)):
                digest.update(chunk)
                left -= len(chunk)
        frame = self.execute([Piece("0", f"sha256sum < {quote(remote)}")], deadline).frames["0"]
        return frame.out.split()[:1] == [digest.hexdigest()]


def _shell_hint(user: str, output: str) -> str:
    """What to do about a login that starts no shell, by what it printed instead."""
    if re.search("password (has )?(expired|change)|change your password", output, re.IGNORECASE):
        return f"the password of {user} has expired: set a new one (`passwd {user}` as root), or see `chage -l {user}`"
    return (
        f"see on the host what runs instead of a shell: `getent passwd {user}` (nologin, false or a menu: "
        f"`usermod -s /bin/bash {user}`), ForceCommand in sshd_config, command= in authorized_keys, an `exit` "
        "or `exec` in the shell's profile, /etc/nologin"
    )


def _sudo_hint(login: Login, output: str) -> str:
    """What to do about a sudo that refused, by what it printed."""
    if "tty" in output or "terminal" in output:
        return (
            f"put `Defaults:{login.user} !requiretty` into the host's sudoers (`visudo -f /etc/sudoers.d/runbook`), or "
            "install util-linux's `script` there, which gives sudo a terminal"
        )
    if "none is configured" in output:
        return f"set ssh.become_password, or allow {login.user} `NOPASSWD: ALL` in the host's sudoers"
    if "incorrect password" in output or "try again" in output:
        return "check ssh.become_password: it is the password of the login, not of root"
    if re.search("Sorry, user|not allowed|not in the sudoers", output):
        return f"allow {login.user} to run every command as root: `{login.user} ALL=(ALL) ALL` in the host's sudoers"
    return (
        f"check ssh.become_password and, on the host, the rules for {login.user} in sudoers (`sudo -l -U {login.user}`)"
    )


def _ended(transcript: Transcript) -> str:
    count = sum(frame.status is not None for frame in transcript.frames.values())
    return f"{count} completed steps" if transcript.pid else "no completed step"


def _left(deadline: float) -> float:
    """The seconds until `deadline`; never none at all, which some calls take for no limit."""
    return max(0.1, deadline - time.monotonic())


@lru_cache(maxsize=256)
def _hash(path: Path, size: int, mtime_ns: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def artifact_size(upload: Upload) -> int:
    """The size of a local artifact in bytes, once its content is the one that the parameters promise (StepFailed)."""
    try:
        stat = upload.local.stat()
        with _reading:
            found = _hash(upload.local, stat.st_size, stat.st_mtime_ns)
    except OSError as error:
        raise StepFailed(
            f"the artifact {upload.local} cannot be read: {error.strerror}", "put the file there, or correct its path"
        ) from error
    if found != upload.sha256:
        raise StepFailed(
            f"the artifact {upload.local} has SHA-256 {found}, not {upload.sha256}",
            "get the file again, or correct its sha256 in the parameters",
        )
    return stat.st_size


def placing(upload: Upload, arrived: str) -> str:
    """The sh text that moves an uploaded file from `arrived` to its place, once its content is right."""
    return f"""\
set -e
src={quote(arrived)}; dst={quote(upload.remote)}
mkdir -p -m 700 {steps.STATE_DIR}/artifacts; mkdir -p "$(dirname "$dst")"
mv -f "$src" "$dst.part"
s=$(sha256sum < "$dst.part")
if [ "${{s%% *}}" != {upload.sha256} ]; then
  rm -f "$dst.part"; echo {quote(upload.local.name)} did not arrive whole: run again >&2; exit 1
fi
chown 0:0 "$dst.part"; chmod 0644 "$dst.part"
{steps.FSYNC} of="$dst.part"
mv -fT "$dst.part" "$dst"
"""
