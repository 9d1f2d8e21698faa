"""SSH servers on the loopback that run what they are asked to with the real /bin/sh, and misbehave as a test says.

Each is a host of its own: an address, host keys, a home folder where commands run and SFTP writes, and `bin/` in it
at the head of the PATH for doubles of programs. What they do at the end of a connection is what OpenSSH's sshd does:
the pipes of its commands are closed, and the commands are left to notice.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import IO, Any, ClassVar, Self

import paramiko
from cryptography.hazmat.primitives import hashes
from paramiko.auth_handler import AuthHandler

_MARK = re.compile(rb"^runbook-[0-9a-f]+ (?:begin|end) ", re.MULTILINE)


@dataclass
class Faults:
    """What goes wrong, from now on; with `times`, only so often."""

    refuse_key: bool = False
    silent: bool = False  # accepts connections and never says a word, but for:
    greeting: bytes = b""
    frozen: bool = False  # answers no request for a command any more, as a host that is paused
    refuse_channels: bool = False  # as a connection of which only one side still knows
    noise: bytes = b""  # what a login profile prints before every command, on both outputs
    delay: float = 0.0  # seconds before every command
    hang_after_marks: int | None = None  # its output stops after so many begin and end lines, for good
    drop_after_marks: int | None = None  # the connection breaks
    drop_after_bytes: int | None = None
    drop_at: bytes | None = None  # as soon as its output holds this
    drop_after_exit: bool = False  # between the exit status and the output, which sshd sends in any order
    drop_upload_after: int | None = None  # bytes written by SFTP
    refuse_upload: bool = False  # as a full disk does
    no_sftp: bool = False
    login_shell: str | None = None  # sh text that runs in the place of every command: a nologin, a ForceCommand, …
    refuse_commands: bool = False
    refuse_sessions: bool = False
    allowed_logins: str = "publickey"
    end_logins: bool = False  # the connection, as PAM's refusal of an account does
    banner: str = ""  # sent before the login is refused or accepted
    times: int = 1_000_000

    def strike(self) -> bool:
        """Whether the fault happens this time."""
        self.times -= 1
        return self.times >= 0


@dataclass
class Load:
    """How many commands run at once on all the servers that share it, and how many did at most."""

    now: int = 0
    peak: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def change(self, by: int) -> None:
        with self._lock:
            self.now += by
            self.peak = max(self.peak, self.now)


class _Sha1RsaKey(paramiko.RSAKey):
    """A host's or a user's RSA key with SHA-1, which paramiko 5 has no more."""

    HASHES = {**paramiko.RSAKey.HASHES, "ssh-rsa": hashes.SHA1}  # noqa: RUF012 (as paramiko has it)


class _Transport66(paramiko.Transport):
    """sshd as OpenSSH 6.6.1 has it, which CentOS 7.0 to 7.3 bring.

    It has no rsa-sha2 signatures, neither of its own key nor of a user's (V_6_6_P1 myproposal.h; auth2-pubkey.c:
    'unsupported public key algorithm', an ordinary failure), and sends no server-sig-algs (kex.c; V_7_4_P1 has it).
    """

    _tables: Any = paramiko.Transport
    _key_info: ClassVar = {**_tables._key_info, "ssh-rsa": _Sha1RsaKey}
    _preferred_keys = ("ecdsa-sha2-nistp256", "ssh-ed25519", "ssh-rsa")
    _preferred_pubkeys = ("ssh-rsa", "rsa-sha2-512", "rsa-sha2-256", "ecdsa-sha2-nistp256", "ssh-ed25519")
    _preferred_kex = (
        "curve25519-sha256@libssh.org",
        "ecdh-sha2-nistp256",
        "ecdh-sha2-nistp384",
        "ecdh-sha2-nistp521",
        "diffie-hellman-group-exchange-sha256",
    )
    _remote_ext_info = property(lambda self: None, lambda self, value: None)

    def _parse_newkeys(self, message: paramiko.Message) -> None:
        if self.auth_handler is None:
            self.auth_handler = _Auth66(self)
        super()._parse_newkeys(message)  # type: ignore[misc]


class _Auth66(AuthHandler):
    def _generate_key_from_request(self, algorithm: str, blob: bytes) -> paramiko.PKey:
        if algorithm.startswith("rsa-sha2"):
            return paramiko.ECDSAKey.generate()  # no user's key
        key: paramiko.PKey = super()._generate_key_from_request(algorithm, blob)  # type: ignore[misc]
        return key


class SshServer:
    """One host. `client` is the key that may log in, `keys` are the host's own.

    With `openssh_6_6`, its sshd is that of CentOS 7.0 to 7.3; `disabled` are paramiko's `disabled_algorithms`.
    """

    openssh_6_6 = False
    disabled: Mapping[str, Sequence[str]] = MappingProxyType({})

    def __init__(
        self,
        home: Path,
        client: paramiko.PKey,
        keys: Sequence[paramiko.PKey],
        address: str = "127.0.0.1",
        load: Load | None = None,
    ) -> None:
        self.home = home
        self.client = client
        self.keys = keys
        self.address = address
        self.load = load or Load()
        self.faults = Faults()
        self.connections = 0
        self.commands: list[str] = []
        self.offered: list[paramiko.PKey] = []
        self.refused_destinations: set[tuple[str, int]] = set()
        self.uploaded = 0
        self.ended = threading.Event()
        self.children: list[subprocess.Popen[bytes]] = []
        self.transports: list[paramiko.Transport] = []
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._socket = socket.create_server((address, 0), backlog=64)
        self.port: int = self._socket.getsockname()[1]
        home.mkdir(parents=True, exist_ok=True)
        (home / "bin").mkdir(exist_ok=True)
        self.start(self._accept)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.stop()

    def start(self, action: Callable[..., None], *arguments: object) -> None:
        """Do something in a thread of this server."""
        thread = threading.Thread(target=action, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def stop(self) -> None:
        """End everything: the connections, and the commands that still run."""
        if self.ended.is_set():
            return
        self.ended.set()
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self.drop()
        for child in self.children:
            with suppress(ProcessLookupError):  # none of its group is left
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
        for thread in self._threads:
            thread.join(10)
            assert not thread.is_alive()

    def drop(self) -> None:
        """Break all connections."""
        for transport in self.transports:
            transport.close()
        for sock in self._sockets:
            sock.close()

    def known_hosts(self, keys: Iterable[paramiko.PKey] | None = None) -> str:
        """The lines of a known_hosts file for this host."""
        return "".join(
            f"[{self.address}]:{self.port} {key.get_name()} {key.get_base64()}\n" for key in keys or self.keys
        )

    def program(self, name: str, text: str) -> None:
        """Put a double of a program on the PATH of the commands."""
        path = self.home / "bin" / name
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._socket.accept()
            except OSError:
                return
            self.connections += 1
            self._sockets.append(sock)
            if self.faults.silent:
                sock.sendall(self.faults.greeting)
                continue
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            options: Any = {"disabled_algorithms": dict(self.disabled)}
            transport = _Transport66(sock, **options) if self.openssh_6_6 else paramiko.Transport(sock, **options)
            for key in self.keys:
                transport.add_server_key(_Sha1RsaKey(key=key.key) if isinstance(key, paramiko.RSAKey) else key)
            transport.set_subsystem_handler("sftp", _SftpServer, _Sftp)
            self.transports.append(transport)
            self.start(self._serve, transport)

    def _serve(self, transport: paramiko.Transport) -> None:
        interface = _Interface(self, transport)
        try:
            transport.start_server(server=interface)
        except (EOFError, paramiko.SSHException, OSError):
            return
        while transport.is_active():
            channel = transport.accept(0.2)
            if channel is not None and (destination := interface.destinations.get(channel.get_id())):
                self.start(_forward, channel, destination)

    def run(self, channel: paramiko.Channel, command: str) -> None:
        """Run a command for a channel, as sshd does."""
        self.commands.append(command)
        if self.ended.wait(self.faults.delay):
            return
        self.load.change(+1)
        with ExitStack() as counted:
            counted.callback(self.load.change, -1)
            self._run(channel, command, counted.close)

    def _run(self, channel: paramiko.Channel, command: str, ended: Callable[[], None]) -> None:
        """`ended` is called once it ended, or nobody listens to it any more, and before the client can know."""
        peer = channel.getpeername()
        environment = {
            "HOME": str(self.home),
            "PATH": f"{self.home}/bin:{os.environ['PATH']}",
            "SSH_CONNECTION": f"{peer[0]} {peer[1]} {self.address} {self.port}",
        }
        if self.faults.noise:
            channel.sendall(self.faults.noise)
            channel.sendall_stderr(self.faults.noise)
        with subprocess.Popen(
            ["/bin/sh", "-c", command if self.faults.login_shell is None else self.faults.login_shell],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=self.home,
            env=environment,
            start_new_session=True,
            bufsize=0,
        ) as child:
            self.children.append(child)
            assert child.stdin is not None
            assert child.stdout is not None
            assert child.stderr is not None
            relays = [
                threading.Thread(target=_feed, args=(channel, child.stdin), daemon=True),
                threading.Thread(target=self._relay, args=(child.stdout, channel, ended), daemon=True),
                threading.Thread(target=_copy, args=(child.stderr, channel.sendall_stderr), daemon=True),
            ]
            for relay in relays:
                relay.start()
            status = child.wait()
            if self.faults.hang_after_marks is not None:
                relays[1].join()
            ended()
            with suppress(EOFError, OSError):  # the client has gone
                if status >= 0:
                    channel.send_exit_status(status)
                if self.faults.drop_after_exit and self.faults.strike():
                    self.drop()
                relays[1].join()
                relays[2].join()
                channel.close()
            for relay in relays:
                relay.join()

    def _relay(self, source: IO[bytes], channel: paramiko.Channel, ended: Callable[[], None]) -> None:
        """Standard output, up to the fault that breaks it."""
        faults = self.faults
        send = channel.sendall
        marks = sent = 0
        hangs = faults.hang_after_marks is not None and faults.strike()
        breaks = (faults.drop_after_marks, faults.drop_after_bytes) != (None, None)
        drops = not hangs and breaks and faults.strike()
        with source:
            while not faults.drop_after_exit and (data := source.read(1 << 16)):
                ends = [found.end() for found in _MARK.finditer(data)]
                marks += len(ends)
                sent += len(data)
                try:
                    if hangs and marks >= (faults.hang_after_marks or 0):
                        while not self.ended.wait(0.05) and not channel.closed:
                            pass
                        return
                    if drops and faults.drop_after_bytes is not None and sent > faults.drop_after_bytes:
                        send(data[: len(data) - (sent - faults.drop_after_bytes)])
                        ended()
                        self.drop()
                        return
                    if drops and faults.drop_after_marks is not None and marks >= faults.drop_after_marks:
                        send(_line_at(data, ends[faults.drop_after_marks - marks - 1]))
                        ended()
                        self.drop()
                        return
                    if faults.drop_at is not None and faults.drop_at in data and faults.strike():
                        send(_line_at(data, data.index(faults.drop_at)))
                        ended()
                        self.drop()
                        return
                    send(data)
                except (EOFError, OSError):
                    return  # the client has gone: closing the pipe tells the command


def _line_at(data: bytes, at: int) -> bytes:
    """`data` up to the end of the line that this position is in: what comes behind it is not sent any more."""
    end = data.find(b"\n", at)
    return data if end < 0 else data[: end + 1]


def _copy(source: IO[bytes], send: Callable[[bytes], None]) -> None:
    with source:
        while data := source.read(1 << 16):
            try:
                send(data)
            except (EOFError, OSError):
                return


def _feed(channel: paramiko.Channel, target: IO[bytes]) -> None:
    with target:
        while data := channel.recv(1 << 16):
            try:
                target.write(data)
            except BrokenPipeError:
                return


def _forward(channel: paramiko.Channel, destination: tuple[str, int]) -> None:
    with channel, socket.create_connection(destination) as sock:
        back = threading.Thread(target=_pump, args=(sock.recv, channel.sendall, channel.close), daemon=True)
        back.start()
        _pump(channel.recv, sock.sendall, lambda: sock.shutdown(socket.SHUT_RDWR))
        back.join()


def _pump(receive: Callable[[int], bytes], send: Callable[[bytes], object], end: Callable[[], object]) -> None:
    try:
        while data := receive(1 << 16):
            send(data)
        end()
    except (EOFError, OSError):
        return


class _Interface(paramiko.ServerInterface):
    """What one connection is allowed."""

    def __init__(self, server: SshServer, transport: paramiko.Transport) -> None:
        self.server = server
        self.transport = transport
        self.destinations: dict[int, tuple[str, int]] = {}

    def get_allowed_auths(self, username: str) -> str:
        return self.server.faults.allowed_logins

    def get_banner(self) -> tuple[str, str]:
        return self.server.faults.banner, "en"

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        if self.server.faults.end_logins:
            self.transport.sock.close()
        self.server.offered.append(key)
        known = key == self.server.client and not self.server.faults.refuse_key
        return paramiko.AUTH_SUCCESSFUL if known else paramiko.AUTH_FAILED

    def check_channel_request(self, kind: str, chanid: int) -> int:
        if self.server.faults.refuse_sessions:
            return paramiko.OPEN_FAILED_ADMINISTRATIVELY_PROHIBITED
        refused = self.server.faults.refuse_channels and self.server.faults.strike()
        return paramiko.OPEN_FAILED_CONNECT_FAILED if refused else paramiko.OPEN_SUCCEEDED

    def check_channel_direct_tcpip_request(
        self, chanid: int, origin: tuple[str, int], destination: tuple[str, int]
    ) -> int:
        if destination in self.server.refused_destinations:
            return paramiko.OPEN_FAILED_ADMINISTRATIVELY_PROHIBITED
        self.destinations[chanid] = destination
        return paramiko.OPEN_SUCCEEDED

    def check_channel_subsystem_request(self, channel: paramiko.Channel, name: str) -> bool:
        return not self.server.faults.no_sftp and super().check_channel_subsystem_request(channel, name)

    def check_channel_exec_request(self, channel: paramiko.Channel, command: bytes) -> bool:
        if self.server.faults.frozen:
            self.server.ended.wait()
            return False
        if self.server.faults.refuse_commands:
            return False
        self.server.start(self.server.run, channel, command.decode())
        return True


class _SftpServer(paramiko.SFTPServer):
    """SFTP, begun by a login's shell."""

    def start_subsystem(self, name: str, transport: paramiko.Transport, channel: paramiko.Channel) -> None:
        channel.sendall(self.server.server.faults.noise)
        super().start_subsystem(name, transport, channel)


class _Sftp(paramiko.SFTPServerInterface):
    """A real folder."""

    def __init__(self, interface: _Interface, *arguments: object, **options: object) -> None:
        super().__init__(interface)
        self.server = interface.server

    def canonicalize(self, path: str) -> str:
        return os.path.normpath(self.server.home / path)

    def stat(self, path: str) -> paramiko.SFTPAttributes | int:
        try:
            return paramiko.SFTPAttributes.from_stat(os.stat(path))
        except OSError as error:
            return paramiko.SFTPServer.convert_errno(error.errno or 0)

    def mkdir(self, path: str, attr: paramiko.SFTPAttributes) -> int:
        os.mkdir(path, attr.st_mode or 0o777)
        return paramiko.SFTP_OK

    def remove(self, path: str) -> int:
        os.remove(path)
        return paramiko.SFTP_OK

    def open(self, path: str, flags: int, attr: paramiko.SFTPAttributes) -> _File | int:
        try:
            opened = open(os.open(path, flags, 0o600), "ab", buffering=0)  # noqa: SIM115 (the handle closes it)
        except OSError as error:
            return paramiko.SFTPServer.convert_errno(error.errno or 0)
        return _File(self.server, opened, flags)


class _File(paramiko.SFTPHandle):
    def __init__(self, server: SshServer, file: IO[bytes], flags: int) -> None:
        super().__init__(flags)
        self.server = server
        self.writefile = file
        self.broken = False

    def stat(self) -> paramiko.SFTPAttributes:
        return paramiko.SFTPAttributes.from_stat(os.fstat(self.writefile.fileno()))

    def write(self, offset: int, data: bytes) -> int:
        faults = self.server.faults
        if faults.refuse_upload:
            return paramiko.SFTP_FAILURE
        limit = faults.drop_upload_after
        if limit is not None and self.server.uploaded + len(data) > limit and not self.broken and faults.strike():
            self.broken = True
            self.server.drop()
        if self.broken:
            return paramiko.SFTP_FAILURE
        self.server.uploaded += len(data)
        return super().write(offset, data)
