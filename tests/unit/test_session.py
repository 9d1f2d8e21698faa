"""One host over SSH: how a session meets a host that behaves well, badly, late or not at all."""

from __future__ import annotations

import base64
import hashlib
import os
import socket
import struct
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import fabric
import paramiko
import pytest
from fleet import Fleet, deadlines_pass, host_key, keep_state_at_home, rsa_key, running
from sshserver import Faults, SshServer

from runbook.errors import (
    AuthenticationRefused,
    BecomeFailed,
    HostKeyChanged,
    HostKeyRevoked,
    HostKeyUnknown,
    HostTimeout,
    HostUnreachable,
    LoginShellFailed,
    StepFailed,
)
from runbook.remote import session as session_module
from runbook.remote.session import (
    _SUDO,
    ConnectionLost,
    DeadlinePassed,
    Gateway,
    Login,
    Session,
    ShellBroken,
    config,
    fingerprint,
    placing,
)
from runbook.remote.shell import Frame, Piece
from runbook.remote.steps import Upload


@pytest.fixture
def fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Fleet]:
    keep_state_at_home(monkeypatch)
    with running(tmp_path, 1) as fleet:
        yield fleet


@pytest.fixture
def server(fleet: Fleet) -> SshServer:
    return fleet["node1"]


@pytest.fixture
def session(fleet: Fleet) -> Iterator[Session]:
    with fleet.session() as session:
        yield session


def soon(seconds: float = 20.0) -> float:
    return time.monotonic() + seconds


def ask(session: Session, script: str, seconds: float = 20.0) -> Frame:
    return session.execute([Piece("0", script)], soon(seconds)).frames["0"]


@contextmanager
def within(seconds: float) -> Iterator[None]:
    began = time.monotonic()
    yield
    assert time.monotonic() - began < seconds


# executions


def test_pieces_run_in_one_execution_over_one_connection(server: SshServer, session: Session) -> None:
    transcript = session.execute([Piece("a", "pwd"), Piece("b", "echo no >&2; exit 3")], soon())
    assert transcript.frames == {"a": Frame(f"{server.home}\n", "", 0), "b": Frame("", "no\n", 3)}
    assert (transcript.done, transcript.noise) == (True, "")
    assert ask(session, "echo again").out == "again\n"
    assert (server.connections, server.commands) == (1, ["/bin/sh -s"] * 2)


def test_the_script_is_in_no_command_line(server: SshServer, session: Session) -> None:
    assert "hunter22" not in ask(session, "ps -eo args >&2; : hunter22").err
    assert server.commands == ["/bin/sh -s"]


def test_a_login_profile_may_be_noisy(server: SshServer, session: Session) -> None:
    server.faults.noise = b"\xff Welcome!\nrunbook-0123 begin 0\nmotd without newline"
    transcript = session.execute([Piece("0", "echo out; echo err >&2")], soon())
    assert transcript.frames == {"0": Frame("out\n", "err\n", 0)}
    assert "Welcome!" in transcript.noise


def test_much_output_on_both_streams_is_drained_together(session: Session) -> None:
    script = "i=0; while [ $i -lt 4000 ]; do printf '%01000d\\n' $i; printf '%01000d\\n' $i >&2; i=$((i+1)); done"
    frame = ask(session, script, 60)
    assert (len(frame.out), len(frame.err)) == (4000 * 1001, 4000 * 1001)


def test_a_long_script_arrives(server: SshServer, session: Session) -> None:
    server.faults.noise = b"n" * 100_000
    assert ask(session, f"cat > '{server.home}/x' <<'E'\n{'y' * 3_000_000}\nE\n", 60).status == 0
    assert (server.home / "x").stat().st_size == 3_000_001


def test_bytes_that_are_not_utf8_are_shown_by_their_codes(session: Session) -> None:
    assert ask(session, r"printf 'a\377\303\251\n'").out == "a\\xffé\n"


def test_a_daemon_that_keeps_the_output_open_does_not_keep_us(session: Session) -> None:
    with within(10):
        assert ask(session, "sleep 15 & echo started").out == "started\n"


def test_threads_take_turns(server: SshServer, session: Session) -> None:
    answers: list[str] = []
    threads = [threading.Thread(target=lambda n=n: answers.append(ask(session, f"echo {n}").out)) for n in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == [f"{n}\n" for n in range(5)]
    assert (server.connections, server.load.peak) == (1, 1)


def test_marks_are_told_while_the_script_runs(server: SshServer, session: Session) -> None:
    told: list[tuple[str, str]] = []

    def tell(word: str, key: str) -> None:
        told.append((word, key))
        (server.home / f"{word}-{key}").touch()

    pieces = [Piece("a", "until [ -e begin-a ]; do sleep 0.05; done"), Piece("b", "")]
    session.execute(pieces, soon(), tell)
    assert told == [("begin", "a"), ("end", "a"), ("begin", "b"), ("end", "b")]


def test_a_host_that_cannot_run_the_script_says_why(server: SshServer, session: Session) -> None:
    server.program("sh", "")  # not used: /bin/sh is called by its path
    with pytest.raises(ShellBroken, match=r"node1: the host's shell did something unexpected.*status 2.*[Ss]yntax"):
        ask(session, "if true")


def test_a_shell_that_ends_by_itself_is_no_lost_connection(session: Session) -> None:
    with pytest.raises(ShellBroken, match=r"after 1 completed steps, in 'b': exit status 3; its output: halfway"):
        session.execute([Piece("a", ""), Piece("b", "echo halfway\n)\nexit 3\n( :")], soon())


def test_a_mark_out_of_turn_is_a_shell_that_does_something_unexpected(session: Session) -> None:
    """As bash 4.2 wrote the frame's last marker while it dropped a null string."""
    forge = "\n".join(["_mark() { printf '%s\\n' \"$_out\"; }", "_mark x"])
    with pytest.raises(ShellBroken, match="the host's shell did something unexpected"):
        session.execute([Piece("a", f"echo x\n)\n{forge}\n( :")], soon())


def test_a_shell_that_ends_in_the_middle_is_a_lost_connection(session: Session) -> None:
    with pytest.raises(ConnectionLost) as lost:
        session.execute([Piece("a", "echo x"), Piece("b", "kill -9 $PPID")], soon())
    assert lost.value.transcript.frames["a"] == Frame("x\n", "", 0)


def test_a_script_killed_by_itself_is_a_lost_connection(session: Session) -> None:
    with pytest.raises(ConnectionLost) as lost:
        session.execute([Piece("a", ""), Piece("b", "kill -9 $$")], soon())
    assert lost.value.transcript.frames["a"].status == 0


# deadlines


def test_a_host_that_hangs_in_the_middle_is_left_at_the_deadline(server: SshServer, session: Session) -> None:
    hanging = deadlines_pass((server.home / "begun").exists)
    with hanging, pytest.raises(DeadlinePassed, match=r"1 completed steps; process \d+ there") as hung:
        session.execute([Piece("a", "echo x"), Piece("b", "touch begun; sleep 30")], soon(40))
    assert hung.value.transcript.frames == {"a": Frame("x\n", "", 0), "b": Frame("", "", None)}
    assert ask(session, "echo back").out == "back\n"
    assert server.connections == 2


def test_a_host_whose_output_stops_is_left_at_the_deadline(server: SshServer, session: Session) -> None:
    server.faults = Faults(hang_after_marks=2)
    with within(10), pytest.raises(DeadlinePassed):
        session.execute([Piece("a", "sleep 0.2"), Piece("b", "")], soon(1))


def test_a_host_that_freezes_is_left_at_the_deadline(server: SshServer, session: Session) -> None:
    ask(session, ":")
    server.faults = Faults(frozen=True)
    with within(10), pytest.raises(DeadlinePassed, match="no completed step"):
        ask(session, ":", 1)


def test_a_script_that_nobody_reads_is_left_at_the_deadline(server: SshServer, session: Session) -> None:
    server.faults.delay = 30  # nobody reads the channel, whose window fills up
    with within(10), pytest.raises(DeadlinePassed):
        ask(session, f": {'x' * 5_000_000}", 1)


def test_a_silent_host_is_left_at_the_deadline(server: SshServer, session: Session) -> None:
    server.faults = Faults(silent=True)
    with within(5), pytest.raises(HostUnreachable, match=rf"root@127.0.0.1:{server.port} "):
        ask(session, ":", 1)


def test_a_deadline_that_has_passed_asks_nothing(server: SshServer, session: Session) -> None:
    ask(session, ":")
    with pytest.raises(DeadlinePassed):
        ask(session, "touch made", -1)
    assert not (server.home / "made").exists()


def test_a_connection_that_is_open_only_after_the_deadline_is_not_used(
    server: SshServer, session: Session, artifact: Upload, monkeypatch: pytest.MonkeyPatch
) -> None:
    connected = session._connected

    def slowly(timeout: float) -> fabric.Connection:
        connection = connected(20.0)
        while time.monotonic() < deadline:
            time.sleep(0.05)
        return connection

    monkeypatch.setattr(session, "_connected", slowly)
    deadline = soon(0.5)
    with pytest.raises(DeadlinePassed):
        session.execute([Piece("a", "touch made; sleep 30")], deadline)
    deadline = soon(0.5)
    with pytest.raises(DeadlinePassed):
        session.upload(artifact, deadline)
    assert not (server.home / "made").exists()
    assert not (server.home / ".cache").exists()


# connections


def test_a_lost_connection_shows_how_far_the_script_got(server: SshServer, session: Session) -> None:
    server.faults = Faults(drop_after_marks=3, times=1)
    with pytest.raises(ConnectionLost, match="after 1 completed steps") as lost:
        session.execute([Piece("a", "echo x; sleep 0.3"), Piece("b", "sleep 0.3"), Piece("c", "sleep 1")], soon())
    assert lost.value.transcript.frames["a"] == Frame("x\n", "", 0)
    assert not lost.value.transcript.done
    assert ask(session, "echo back").out == "back\n"


def test_a_connection_lost_after_the_exit_status_and_before_the_output_is_lost(
    server: SshServer, session: Session
) -> None:
    """OpenSSH sends the exit status as soon as the program ended, its last output maybe after it."""
    server.faults = Faults(drop_after_exit=True, times=1)
    with pytest.raises(ConnectionLost, match="before all of the output had arrived"):
        session.execute([Piece("a", "echo x")], soon())


def test_nothing_more_is_begun_once_nobody_listens(server: SshServer, session: Session) -> None:
    server.faults = Faults(drop_after_marks=1, times=1)
    with pytest.raises(ConnectionLost):
        session.execute([Piece("a", "sleep 0.5; touch a"), Piece("b", "touch b")], soon())
    [child] = server.children
    child.wait(10)
    assert (server.home / "a").exists()
    assert not (server.home / "b").exists()


def test_a_kept_connection_that_was_closed_is_opened_again(server: SshServer, session: Session) -> None:
    ask(session, ":")
    server.drop()
    assert ask(session, "echo back").out == "back\n"
    assert server.connections == 2


def test_a_kept_connection_that_is_dead_unnoticed_is_opened_again(server: SshServer, session: Session) -> None:
    ask(session, ":")
    server.faults = Faults(refuse_channels=True, times=1)
    assert ask(session, "echo back").out == "back\n"
    assert server.connections == 2


def test_a_connect_is_tried_again(server: SshServer, session: Session) -> None:
    server.faults.silent = True
    threading.Timer(0.5, lambda: (setattr(server.faults, "silent", False), server.drop())).start()
    assert ask(session, "echo at last").out == "at last\n"


def test_nobody_listens(fleet: Fleet, server: SshServer, session: Session) -> None:
    server.stop()
    with within(10), pytest.raises(HostUnreachable, match="cannot be reached: Connection refused"):
        ask(session, ":")


def test_a_server_whose_packets_make_no_sense(server: SshServer, session: Session) -> None:
    """A list of names (RFC 4253, 7.1) that is no UTF-8, on which paramiko's reader ends with a UnicodeDecodeError."""
    payload = bytes([20]) + bytes(16) + struct.pack(">I", 1) + b"\xff"
    padding = 8 + -(5 + len(payload) + 8) % 8
    packet = struct.pack(">IB", 1 + len(payload) + padding, padding) + payload + bytes(padding)
    server.faults = Faults(silent=True, greeting=b"SSH-2.0-nonsense\r\n" + packet)
    with pytest.raises(HostUnreachable, match="cannot be reached: what it sent cannot be read"):
        ask(session, ":")


def test_a_connection_in_which_something_was_altered_is_not_used_any_more(server: SshServer, session: Session) -> None:
    assert ask(session, "echo in").out == "in\n"
    altered = struct.pack(">I", 32) + bytes(32 + 16)  # of the length of a packet of AES-GCM, but not of the key
    server.transports[0].sock.sendall(altered)
    assert ask(session, "echo in again").out == "in again\n"
    assert server.connections == 2


def test_a_server_that_speaks_no_ssh(server: SshServer, session: Session) -> None:
    server.faults.silent = True
    threading.Timer(0.3, server.drop).start()
    with pytest.raises(HostUnreachable, match="cannot be reached"):
        ask(session, ":", 2)


# host keys


def test_an_unknown_host_key_is_refused_with_its_fingerprint(fleet: Fleet, session: Session, tmp_path: Path) -> None:
    fleet.know([])
    with pytest.raises(HostKeyUnknown) as refusal:
        ask(session, ":")
    (tmp_path / "key.pub").write_text(f"{host_key().get_name()} {host_key().get_base64()}\n")
    told = subprocess.run(["ssh-keygen", "-lf", str(tmp_path / "key.pub")], capture_output=True, text=True, check=True)
    assert f"{host_key().get_name()} {told.stdout.split()[1]}" in refusal.value.message
    assert str(fleet.known_hosts) in refusal.value.message
    assert "ssh-keygen -lf" in str(refusal.value.remedy)
    assert fleet["node1"].commands == []


def test_a_changed_host_key_is_refused_with_both_fingerprints(fleet: Fleet, session: Session) -> None:
    server, other = fleet["node1"], paramiko.ECDSAKey.generate()
    fleet.known_hosts.write_text(server.known_hosts([other]))
    with pytest.raises(HostKeyChanged) as refusal:
        ask(session, ":")
    assert f"{fingerprint(host_key())} instead of {fingerprint(other)}" in refusal.value.message
    assert f"ssh-keygen -R [127.0.0.1]:{server.port}" in str(refusal.value.remedy)
    assert server.connections == 1  # and not tried again


def test_the_kind_of_key_that_is_known_is_asked_for(fleet: Fleet, server: SshServer, session: Session) -> None:
    server.keys = [host_key(), rsa_key()]
    fleet.known_hosts.write_text(server.known_hosts([rsa_key()]))
    assert ask(session, "echo in").out == "in\n"


def test_a_host_without_the_kind_of_key_that_is_known_is_refused(fleet: Fleet, session: Session) -> None:
    fleet.known_hosts.write_text(fleet["node1"].known_hosts([rsa_key()]))
    with pytest.raises(HostKeyChanged, match="no host key of the kind"):
        ask(session, ":")


def entry(key: paramiko.PKey) -> str:
    return f"{key.get_name()} {key.get_base64()}"


@cache
def another_key() -> paramiko.PKey:
    return paramiko.ECDSAKey.generate()


KNOWN_HOSTS = {
    "a tab between the fields": "{name}\t{key}",
    "blanks before and a comment behind": " \t {name}   {key} root@node1 of 2016\r",
    "a comment in Latin-1": "# f\xfcr alle\n{name} {key} M\xfcller",
    "a commented line": "# {name} {key}",
    "an asterisk": "*.example.com,[127.0.0.*]:* {key}",
    "a question mark": "[127.0.0.?]:{port} {key}",
    "a question mark is one character": "[127.0.?]:{port} {key}",
    "brackets are no pattern": "[[]127.0.0.1]:* {key}",
    "upper case": "NODE1,{name} {key}",
    "a negation": "*,!{name} {key}",
    "a negation in front": "!{name},* {key}",
    "a negation of another": "*,![127.0.0.2]:* {key}",
    "a negation alone": "!elsewhere {key}",
    "two keys of a type, the first": "{name} {key}\n{name} {other}",
    "two keys of a type, the second": "{name} {other}\n{name} {key}",
    "another key of the type": "{name} {other}",
    "revoked": "@revoked {name} {key}",
    "revoked behind": "{name} {key}\n@revoked * {key}",
    "revoked with a tab": "@revoked\t*\t{kind}\t{base64}\n{name} {key}",
    "another one revoked": "@revoked * {other}\n{name} {key}",
    "revoked for another host": "@revoked elsewhere {key}\n{name} {key}",
    "revoked for the bare address": "@revoked 127.0.0.1 {key}\n{name} {key}",
    "revoked for the port": "@revoked {name} {key}\n127.0.0.1 {key}",
    "a certificate authority": "@cert-authority * {key}",
    "a certificate authority and a key": "@cert-authority * {other}\n{name} {key}",
    "an unknown marker": "@trusted {name} {key}",
    "the bare address": "127.0.0.1 {key}",
    "another key for the bare address": "127.0.0.1 {other}",
    "another port": "[127.0.0.1]:9 {key}",
    "a key of SSH 1": "{name} 1024 35 1234567\n{name} {key}",
    "a type that no library has": "{name} ssh-future AAAA\n{name} {key}",
    "a damaged line": "{name} {kind} AAAA\n{name} {key}",
    "a key under the name of another type": "{name} ssh-rsa {base64}",
    "a hashed name of a wrong form": "|1|A {key}\n|2|A|B {key}\n{name} {key}",
}


@pytest.mark.parametrize("case", KNOWN_HOSTS)
def test_known_hosts_is_read_as_openssh_reads_it(fleet: Fleet, session: Session, case: str) -> None:
    """The verdict is that of the OpenSSH client that is installed here, on the same file and the same server."""
    server, key = fleet["node1"], host_key()
    values = {"port": server.port, "kind": key.get_name(), "base64": key.get_base64()}
    text = KNOWN_HOSTS[case].format(
        name=f"[127.0.0.1]:{server.port}", key=entry(key), other=entry(another_key()), **values
    )
    fleet.known_hosts.write_text(f"{text}\n", encoding="latin-1")
    fixed = ["UserKnownHostsFile=known_hosts", "GlobalKnownHostsFile=/dev/null", "StrictHostKeyChecking=yes"]
    options = [f"-o{option}" for option in (*fixed, "BatchMode=yes", "IdentityAgent=none")]
    words = ["ssh", "-F", "none", "-i", "id", "-p", str(server.port), *options, "root@127.0.0.1", "echo in"]
    openssh = subprocess.run(words, cwd=fleet.folder, capture_output=True, text=True, check=False)
    accepts = openssh.stdout == "in\n"
    assert accepts or "Host key verification failed" in openssh.stderr
    if accepts:
        assert ask(session, "echo in").out == "in\n"
        return
    with pytest.raises(HostUnreachable) as refusal:
        ask(session, ":")
    revoked, changed = "was revoked" in openssh.stderr, "IDENTIFICATION HAS CHANGED" in openssh.stderr
    expected = HostKeyRevoked if revoked else HostKeyChanged if changed else HostKeyUnknown
    assert type(refusal.value) is expected
    assert refusal.value.remedy


def test_a_revocation_with_a_tab_and_a_blank_counts(fleet: Fleet, session: Session) -> None:
    """OpenSSH 9.2 passes over such a line (hostfile.c, check_markers); the stricter reading is the safe one."""
    fleet.known_hosts.write_text(f"@revoked\t* {entry(host_key())}\n* {entry(host_key())}\n")
    with pytest.raises(HostKeyRevoked, match=r"marks as @revoked: ecdsa-sha2-nistp256 SHA256:"):
        ask(session, ":")


def test_a_certificate_authority_is_named_where_no_key_is_known(fleet: Fleet, session: Session) -> None:
    fleet.known_hosts.write_text(f"@cert-authority * {entry(host_key())}\n")
    with pytest.raises(HostKeyUnknown, match=r"host certificates \(@cert-authority, line 1\) are not supported"):
        ask(session, ":")


def test_a_key_of_another_type_for_the_bare_address_is_no_changed_one(fleet: Fleet, session: Session) -> None:
    fleet.known_hosts.write_text(f"127.0.0.1 {entry(rsa_key())}\n")
    with pytest.raises(HostKeyUnknown, match=r"no host key of the kind that .* holds \(ssh-rsa\)"):
        ask(session, ":")


def test_hashed_names_are_known(fleet: Fleet, session: Session) -> None:
    subprocess.run(["ssh-keygen", "-q", "-H", "-f", str(fleet.known_hosts)], check=True, capture_output=True)
    assert "127.0.0.1" not in fleet.known_hosts.read_text()
    assert ask(session, "echo in").out == "in\n"


def test_known_hosts_is_read_again_when_it_changed(fleet: Fleet, session: Session) -> None:
    good = fleet.known_hosts.read_text()
    fleet.know([])
    with pytest.raises(HostKeyUnknown):
        ask(session, ":")
    fleet.known_hosts.write_text(good)
    assert ask(session, "echo in").out == "in\n"


@pytest.mark.parametrize(
    "content",
    [
        None,
        b"[127.0.0.1]:PORT ssh-rsa A\n",
        b"[127.0.0.1]:PORT ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAABB\n",  # cut off
        b"[127.0.0.1]:PORT ssh-rsa AAAAB3NzaC1yc2EAAAABgAAAAAGA\n",  # a negative number in it
        b"|1|A|B ssh-rsa A\n",
        b"\xff\xfe\x00",
    ],
)
def test_known_hosts_that_is_missing_or_damaged(
    server: SshServer, fleet: Fleet, session: Session, content: bytes | None
) -> None:
    fleet.known_hosts.unlink()
    if content is not None:
        fleet.known_hosts.write_bytes(content.replace(b"PORT", str(server.port).encode()))
    with pytest.raises(HostKeyUnknown, match=str(fleet.known_hosts)) as refusal:
        ask(session, ":")
    assert "ssh-keyscan" in str(refusal.value.remedy)


# logins


def test_connecting_leaves_the_configuration_that_hosts_share_alone(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    def merge(config: fabric.Config) -> None:
        pytest.fail("while one thread merges the configuration, the others find it empty")

    monkeypatch.setattr(fabric.Config, "merge", merge)
    assert ask(session, "echo in").out == "in\n"


def test_a_refused_key(server: SshServer, session: Session) -> None:
    server.faults.refuse_key = True
    with pytest.raises(AuthenticationRefused, match=rf"root@127.0.0.1:{server.port} refused the login"):
        ask(session, ":")
    assert server.connections == 1  # and not tried again: fail2ban counts


def test_keys_that_cannot_be_used(fleet: Fleet, tmp_path: Path) -> None:
    def refusal(name: str) -> str:
        with fleet.session(key=name) as session, pytest.raises(AuthenticationRefused) as refused:
            ask(session, ":")
        assert refused.value.remedy
        return refused.value.message

    assert "cannot be read: No such file" in refusal("absent")
    (tmp_path / "garbage").write_text("garbage")
    assert "is not a private key" in refusal("garbage")
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "secret", "-f", str(tmp_path / "locked")], check=True)
    assert "is protected by a passphrase" in refusal("locked")
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / "own")], check=True)
    head, *lines, tail = (tmp_path / "own").read_text().split("\n", 6)
    content = bytearray(base64.b64decode("".join(lines)))
    seed = content.rindex(b"ssh-ed25519") + 11 + 4 + 32 + 4  # behind the public half, which is of another key then
    content[seed] ^= 1
    (tmp_path / "own").write_text(f"{head}\n{base64.b64encode(content).decode()}\n{tail}")
    assert "is not a private key" in refusal("own")


OLD = ["old", "new"]
"""An sshd of OpenSSH 6.6.1, and one that announces what it supports."""


@pytest.mark.parametrize("age", OLD)
@pytest.mark.parametrize("kind", ["rsa", "ecdsa", "ed25519"])
def test_keys_of_every_kind_with_every_sshd(
    fleet: Fleet, server: SshServer, tmp_path: Path, kind: str, age: str
) -> None:
    path = tmp_path / "own"
    subprocess.run(["ssh-keygen", "-q", "-t", kind, "-N", "", "-f", str(path)], check=True)
    server.client = paramiko.PKey.from_path(path)
    server.openssh_6_6 = age == "old"
    with fleet.session(key="own") as session:
        assert ask(session, "echo in").out == "in\n"
    assert server.connections == 1


def test_a_gateway_and_a_host_of_openssh_6_6_are_reached_with_an_rsa_key(behind: Fleet) -> None:
    for server in behind.servers.values():
        server.openssh_6_6 = True
        server.keys = [rsa_key()]
    behind.know()
    assert ask(sessions_behind(behind)[0], "echo in").out == "in\n"


@pytest.mark.parametrize("age", OLD)
def test_an_rsa_host_key_is_verified(fleet: Fleet, server: SshServer, session: Session, age: str) -> None:
    server.keys, server.openssh_6_6 = [rsa_key()], age == "old"
    fleet.know()
    assert ask(session, "echo in").out == "in\n"
    assert server.transports[0].host_key_type == ("ssh-rsa" if age == "old" else "rsa-sha2-512")


@pytest.fixture
def agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """ssh-agent, and a home without keys."""
    monkeypatch.setenv("HOME", str(tmp_path))
    with tempfile.TemporaryDirectory() as folder:
        monkeypatch.setenv("SSH_AUTH_SOCK", f"{folder}/agent")
        with subprocess.Popen(["ssh-agent", "-D", "-a", f"{folder}/agent"], stdout=subprocess.DEVNULL) as running:
            while not Path(folder, "agent").exists():
                assert running.poll() is None
            yield tmp_path
            running.terminate()


@pytest.mark.parametrize("age", OLD)
def test_an_rsa_key_of_an_agent(fleet: Fleet, server: SshServer, agent: Path, age: str) -> None:
    subprocess.run(["ssh-add", "-q", str(fleet.folder / "id")], check=True)
    server.openssh_6_6 = age == "old"
    with fleet.session(key=None) as session:
        assert ask(session, "echo in").out == "in\n"


def test_a_login_without_any_key_is_named(fleet: Fleet, agent: Path) -> None:
    with fleet.session(key=None) as session, pytest.raises(AuthenticationRefused, match="no key to offer") as refused:
        ask(session, ":")
    assert "ssh-add" in str(refused.value.remedy)


def test_a_default_rsa_key_that_paramiko_5_cannot_sign_with_is_named(
    fleet: Fleet, server: SshServer, agent: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """paramiko reads ~/.ssh/id_rsa as a class of its own, which from version 5 on makes no SHA-1 signature."""
    (agent / ".ssh").mkdir()
    (agent / ".ssh" / "id_rsa").write_bytes((fleet.folder / "id").read_bytes())
    monkeypatch.setattr(
        paramiko.RSAKey, "HASHES", {k: v for k, v in paramiko.RSAKey.HASHES.items() if not k.startswith("ssh-rsa")}
    )
    server.openssh_6_6 = True
    told = r"supports an RSA key only with SHA-1 signatures \(ssh-rsa\)"
    with fleet.session(key=None) as session, pytest.raises(AuthenticationRefused, match=told) as refused:
        ask(session, ":")
    assert "name the RSA key in ssh.key" in str(refused.value.remedy)
    assert "ssh-keygen -t ed25519" in str(refused.value.remedy)


def test_an_sshd_that_supports_no_key_of_this_type_is_named(server: SshServer, session: Session) -> None:
    """As a FIPS policy, or PubkeyAcceptedAlgorithms, leaves some out."""
    server.disabled = {"pubkeys": ["ssh-rsa", "rsa-sha2-256", "rsa-sha2-512"]}
    with pytest.raises(AuthenticationRefused, match=r"its sshd supports no ssh-rsa key \(it supports ssh-ed25519"):
        ask(session, ":")


def test_an_sshd_that_allows_passwords_alone_is_named(server: SshServer, session: Session) -> None:
    server.faults.allowed_logins, server.faults.refuse_key = "password", True
    with pytest.raises(AuthenticationRefused, match="its sshd allows password and no public key"):
        ask(session, ":")


def test_what_sshd_prints_before_it_refuses_is_shown(server: SshServer, session: Session) -> None:
    """OpenSSH sends what PAM says of an account (auth-pam.c, sshpam_get_account) as a banner."""
    server.faults.banner, server.faults.refuse_key = "Your account has expired; please contact your admin\n", True
    with pytest.raises(AuthenticationRefused, match="it printed: Your account has expired") as refused:
        ask(session, ":")
    assert "chage -l" in str(refused.value.remedy)


def test_an_sshd_that_ends_the_connection_during_the_login_is_named(server: SshServer, session: Session) -> None:
    """As OpenSSH does where PAM denies an account that has expired ('Access denied by PAM account configuration')."""
    server.faults.end_logins = True
    with pytest.raises(AuthenticationRefused, match="its sshd ended the connection during the auth") as refused:
        ask(session, ":")
    assert "chage -l root" in str(refused.value.remedy)
    assert server.connections == 1


NO_SHELL = {
    # util-linux, login-utils/nologin.c
    "nologin": ("echo 'This account is currently not available.'; exit 1", "currently not available", "usermod -s"),
    "false": ("exit 1", "exit status 1; its output: none", "usermod -s"),
    # OpenSSH, session.c (do_child), auth-pam.c
    "expired": (
        "echo 'WARNING: Your password has expired.' >&2; echo 'Password change required but no TTY available.' >&2; "
        "exit 1",
        "your password has expired",
        "`passwd root`",
    ),
    "ForceCommand": ("uptime -p", "exit status 0; its output: up", "ForceCommand"),
    "a menu": ("echo Welcome; echo '1) status'; exit 0", "Welcome", "ForceCommand"),
    "a status of ours": ("echo no; exit 97", "exit status 97; its output: no", "ForceCommand"),
}


@pytest.mark.parametrize("case", NO_SHELL)
def test_a_login_without_a_shell_is_named(server: SshServer, session: Session, case: str) -> None:
    server.faults.login_shell, message, remedy = NO_SHELL[case]
    told = rf"(?i)node1: root@127.0.0.1:{server.port} accepted the login and started no shell: [^\0]*{message}"
    with pytest.raises(LoginShellFailed, match=told) as refused:
        ask(session, "touch made")
    assert remedy in str(refused.value.remedy)
    assert not (server.home / "made").exists()


@pytest.mark.parametrize(
    ("faults", "message"),
    [(Faults(refuse_commands=True), "refused to run a command"), (Faults(refuse_sessions=True), "opened no session")],
)
def test_an_sshd_that_runs_nothing_is_named(server: SshServer, session: Session, faults: Faults, message: str) -> None:
    server.faults = faults
    with pytest.raises(LoginShellFailed, match=f"sshd {message}"):
        ask(session, ":")


@pytest.mark.parametrize("kind", ["rsa", "ecdsa", "ed25519"])
@pytest.mark.parametrize("form", ["PEM", "RFC4716"])
def test_keys_of_every_kind(fleet: Fleet, server: SshServer, tmp_path: Path, kind: str, form: str) -> None:
    if (kind, form) == ("ed25519", "PEM"):
        pytest.skip("there is no such form")
    path = tmp_path / "own"
    subprocess.run(["ssh-keygen", "-q", "-t", kind, "-m", form, "-N", "", "-f", str(path)], check=True)
    server.client = paramiko.PKey.from_path(path)
    with fleet.session(key="own") as session:
        assert ask(session, "echo in").out == "in\n"


def test_the_operators_ssh_configuration_does_not_matter(
    fleet: Fleet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh" / "config").write_text("Host *\n  HostName 192.0.2.1\n  User other\n  ProxyJump nowhere\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    with fleet.session() as session:
        assert ask(session, "echo in").out == "in\n"


# sudo (a double of it; tests/lab has the real one)

SUDO = """
if [ -e "$HOME/requiretty" ] && ! (: </dev/tty) 2>/dev/null; then
  echo 'sudo: sorry, you must have a tty to run sudo' >&2; exit 1
fi
[ ! -e "$HOME/refuses" ] || { cat "$HOME/refuses" >&2; exit 1; }
case "$*" in
*-n*) [ -e "$HOME/nopasswd" ] || { echo 'sudo: a password is required' >&2; exit 1; };;
*-S*) echo asked >> "$HOME/asked"
      IFS= read -r given
      [ "$given" = "$(cat "$HOME/password")" ] || { echo 'sudo: 1 incorrect password attempt' >&2; exit 1; };;
esac
while :; do case $1 in -n|-k|-S) shift;; -p) shift 2;; -v) exit 0;; *) break;; esac; done
SUDOED=yes exec "$@"
"""


@pytest.fixture
def sudo(server: SshServer, monkeypatch: pytest.MonkeyPatch) -> SshServer:
    server.program("sudo", SUDO)
    (server.home / "password").write_text("it's \\secret $(x)")
    monkeypatch.setenv("BECOME", "it's \\secret $(x)")
    return server


def test_sudo_with_a_password(fleet: Fleet, sudo: SshServer) -> None:
    with fleet.session(become="sudo", become_password="env:BECOME") as session:
        assert ask(session, "echo $SUDOED; cat").out == "yes\n"
    assert not any(os.environ["BECOME"] in command for command in sudo.commands)


@pytest.mark.parametrize("options", [{}, {"become_password": "env:BECOME"}])
def test_sudo_that_asks_for_no_password_gets_none(fleet: Fleet, sudo: SshServer, options: dict[str, str]) -> None:
    (sudo.home / "nopasswd").touch()
    with fleet.session(become="sudo", **options) as session:
        transcript = session.execute([Piece("0", "echo $SUDOED; cat")], soon())
    assert (transcript.frames["0"].out, transcript.noise) == ("yes\n", "")
    assert not (sudo.home / "asked").exists()


@pytest.fixture
def requiretty(sudo: SshServer) -> SshServer:
    """sudo as CentOS 7.0 to 7.2 configure it: it opens /dev/tty, and prints this where there is none (sudo 1.8.6p7,
    plugins/sudoers/sudoers.c)."""
    (sudo.home / "requiretty").touch()
    return sudo


@pytest.mark.parametrize("options", [{}, {"become_password": "env:BECOME"}])
def test_sudo_that_demands_a_terminal_gets_one(fleet: Fleet, requiretty: SshServer, options: dict[str, str]) -> None:
    if not options:
        (requiretty.home / "nopasswd").touch()
    text = "i=0; while [ $i -lt 300 ]; do printf '%01000d\\n\\t\\3\\4' $i; printf '%01000d\\n' $i >&2; i=$((i+1)); done"
    script = f": {'x' * 100_000}; echo $SUDOED; cat; {text}; exit 3"
    with fleet.session(become="sudo", **options) as session:
        transcript = session.execute([Piece("0", script), Piece("1", "tty; echo é")], soon())
    frame = transcript.frames["0"]
    out = "".join(f"{i:01000}\n\t\3\4" for i in range(300))
    assert (frame.out, frame.status, transcript.noise) == (f"yes\n{out}", 3, "")
    assert frame.err == "".join(f"{i:01000}\n" for i in range(300))
    assert transcript.frames["1"].out == "not a tty\né\n"
    assert not any(os.environ["BECOME"] in command for command in requiretty.commands)


def test_a_daemon_outlives_the_terminal_of_sudo(fleet: Fleet, requiretty: SshServer) -> None:
    (requiretty.home / "nopasswd").touch()
    with fleet.session(become="sudo") as session:
        assert ask(session, "(sleep 1; echo well > outlived) >/dev/null 2>&1 & echo begun").out == "begun\n"
        outlived = requiretty.home / "outlived"
        assert ask(session, f"until [ -s '{outlived}' ]; do sleep 0.1; done; cat '{outlived}'").out == "well\n"


def test_a_script_in_the_terminal_of_sudo_ends_where_nobody_listens(fleet: Fleet, requiretty: SshServer) -> None:
    (requiretty.home / "nopasswd").touch()
    requiretty.faults = Faults(drop_after_marks=1, times=1)
    with fleet.session(become="sudo") as session, pytest.raises(ConnectionLost):
        session.execute([Piece("a", "sleep 0.5; touch a"), Piece("b", "touch b")], soon())
    [child] = requiretty.children
    child.wait(10)
    assert (requiretty.home / "a").exists()
    assert not (requiretty.home / "b").exists()


def test_a_wrong_password_in_the_terminal_of_sudo(fleet: Fleet, requiretty: SshServer) -> None:
    (requiretty.home / "password").write_text("another")
    told = "sudo refused root: sudo: 1 incorrect password attempt"
    with (
        fleet.session(become="sudo", become_password="env:BECOME") as session,
        pytest.raises(BecomeFailed, match=told) as refused,
    ):
        ask(session, "touch made")
    assert (requiretty.home / "asked").read_text() == "asked\n"
    assert "ssh.become_password" in str(refused.value.remedy)


def test_a_host_that_can_give_sudo_no_terminal_is_named(fleet: Fleet, requiretty: SshServer) -> None:
    requiretty.program("script", "exit 1")
    told = "sudo refused root: sudo: sorry, you must have a tty to run sudo"
    for options in ({}, {"become_password": "env:BECOME"}):
        with fleet.session(become="sudo", **options) as session, pytest.raises(BecomeFailed, match=told) as refused:
            ask(session, ":")
        assert "Defaults:root !requiretty" in str(refused.value.remedy)


@pytest.mark.parametrize("options", [{}, {"become_password": "env:BECOME"}])
def test_what_sudo_prints_is_kept(fleet: Fleet, sudo: SshServer, options: dict[str, str]) -> None:
    message = "Sorry, user root is not allowed to execute '/bin/sh -c :' as root on node1."
    (sudo.home / "refuses").write_text(f"{message}\n")
    with fleet.session(become="sudo", **options) as session, pytest.raises(BecomeFailed, match=message) as refused:
        ask(session, ":")
    assert "none is configured" not in str(refused.value)
    assert "`root ALL=(ALL) ALL`" in str(refused.value.remedy)


def test_a_sudo_that_accepts_the_password_and_not_the_command(fleet: Fleet, sudo: SshServer) -> None:
    """sudo asks first (`-v`), and compares the command with its rules only where it is to run it."""
    message = "Sorry, user root is not allowed to execute '/bin/sh -s' as root on node1."
    sudo.program("sudo", f"""case "$*" in (*-n*|*-v*) ;; (*) echo "{message}" >&2; exit 1;; esac\n{SUDO}""")
    with (
        fleet.session(become="sudo", become_password="env:BECOME") as session,
        pytest.raises(BecomeFailed, match=message),
    ):
        ask(session, ":")


@pytest.mark.parametrize(
    "path", [p for p in ("/bin/csh", "/bin/tcsh", "/usr/bin/fish", "/bin/bash") if Path(p).exists()]
)
def test_sudo_is_called_by_every_login_shell(path: str) -> None:
    done = subprocess.run([path, "-c", _SUDO], input=b"\n", capture_output=True, env={"PATH": "/nowhere"}, check=False)
    assert (done.returncode, b"sudo" in done.stderr) == (97, True)


def test_a_wrong_password_is_tried_once_and_no_line_of_the_script_is(fleet: Fleet, sudo: SshServer) -> None:
    (sudo.home / "password").write_text("another")
    told = "sudo refused root: sudo: 1 incorrect password attempt"
    with (
        fleet.session(become="sudo", become_password="env:BECOME") as session,
        pytest.raises(BecomeFailed, match=told) as refused,
    ):
        session.execute([Piece("0", "touch made\n" * 1000)], soon())
    assert (sudo.home / "asked").read_text() == "asked\n"
    assert not (sudo.home / "made").exists()
    assert "secret" not in str(refused.value)


def test_sudo_that_asks_for_a_password_that_nobody_gave(fleet: Fleet, sudo: SshServer) -> None:
    told = "sudo asks for a password, and none is configured"
    with fleet.session(become="sudo") as session, pytest.raises(BecomeFailed, match=told):
        ask(session, ":")
    assert not (sudo.home / "asked").exists()


# scripts that exclude each other


def test_an_exclusive_script_waits_for_the_one_before(fleet: Fleet, server: SshServer) -> None:
    with fleet.session() as first, fleet.session() as second:
        began = threading.Event()
        log = "echo {0} >> log; sleep 0.5; echo {0} >> log"
        running = threading.Thread(
            target=first.execute,
            args=([Piece("a", log.format("first"))], soon(), lambda *_: began.set()),
            kwargs={"exclusive": True},
        )
        running.start()
        assert began.wait(10)
        second.execute([Piece("a", log.format("second"))], soon(), exclusive=True)
        running.join()
    assert (server.home / "log").read_text().split() == ["first", "first", "second", "second"]


def test_an_exclusive_script_is_waited_for_even_when_its_connection_broke(fleet: Fleet, server: SshServer) -> None:
    server.faults = Faults(drop_after_marks=1, times=1)
    with fleet.session() as session:
        with pytest.raises(ConnectionLost):
            session.execute([Piece("a", "sleep 1; echo done > a")], soon(), exclusive=True)
        frames = session.execute([Piece("a", "cat a")], soon(), exclusive=True).frames
    assert frames["a"].out == "done\n"


def test_a_host_where_another_script_does_not_end_is_told(fleet: Fleet, server: SshServer) -> None:
    with fleet.session() as session, fleet.session() as other:
        with pytest.raises(DeadlinePassed) as hung, deadlines_pass((server.home / "begun").exists):
            session.execute([Piece("a", "touch begun; sleep 40")], soon(), exclusive=True)
        pid = hung.value.transcript.pid
        with within(20), pytest.raises(HostTimeout, match=rf"node1: another script .* process {pid} holds state/lock"):
            other.execute([Piece("a", "touch made")], soon(8), exclusive=True)
        assert ask(other, "echo a question may be asked").status == 0
    assert not (server.home / "made").exists()


def test_a_daemon_does_not_keep_the_lock(fleet: Fleet, server: SshServer) -> None:
    with fleet.session() as session:
        for _ in range(2):
            piece = Piece("a", "nohup sleep 20 >/dev/null 2>&1 & echo ok")
            assert session.execute([piece], soon(5), exclusive=True).frames["a"].out == "ok\n"


# uploads

CONTENT = os.urandom(1_000_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def artifact(tmp_path: Path) -> Upload:
    if os.getuid() != 0:
        pytest.skip("the host is this machine, and only root gives files away")
    local = tmp_path / "it's an $(artifact).rpm"
    local.write_bytes(CONTENT)
    return Upload(local, SHA256, f"state/artifacts/{SHA256}/{local.name}")


def arrived(server: SshServer) -> Path:
    return server.home / ".cache" / "runbook" / SHA256


def send(session: Session, upload: Upload) -> tuple[Frame, list[int]]:
    """Upload and put in place; the script's frame, and the positions that the progress told."""
    told: list[int] = []
    remote = session.upload(upload, soon(), lambda done, total: told.append(done))
    return ask(session, placing(upload, remote)), told


def test_an_upload_arrives_and_is_put_in_its_place(server: SshServer, session: Session, artifact: Upload) -> None:
    frame, told = send(session, artifact)
    placed = server.home / artifact.remote
    assert (frame.status, frame.err, placed.read_bytes()) == (0, "", CONTENT)
    assert (placed.stat().st_mode & 0o777, told[-1], told == sorted(told)) == (0o644, len(CONTENT), True)
    assert not arrived(server).exists()
    assert [path.name for path in placed.parent.iterdir()] == [placed.name]
    assert (server.home / ".cache" / "runbook").stat().st_mode & 0o777 == 0o700


def test_an_upload_goes_on_where_it_broke_off(server: SshServer, session: Session, artifact: Upload) -> None:
    server.faults = Faults(drop_upload_after=600_000, times=1)
    with pytest.raises(ConnectionLost, match="connection was lost"):
        send(session, artifact)
    there = arrived(server).stat().st_size
    assert 0 < there <= 600_000
    server.uploaded = 0
    frame, told = send(session, artifact)
    assert (frame.status, (server.home / artifact.remote).read_bytes()) == (0, CONTENT)
    assert server.uploaded == len(CONTENT) - there
    assert told[0] > there


@pytest.mark.parametrize("there", [b"x" * 10, CONTENT[:500] + b"x", CONTENT + b"more", b"x" * len(CONTENT)])
def test_a_file_there_that_is_another_is_sent_anew(
    server: SshServer, session: Session, artifact: Upload, there: bytes
) -> None:
    arrived(server).parent.mkdir(parents=True)
    arrived(server).write_bytes(there)
    frame, _ = send(session, artifact)
    assert (frame.status, (server.home / artifact.remote).read_bytes()) == (0, CONTENT)
    assert server.uploaded == len(CONTENT)


def test_a_file_that_is_whole_there_is_not_sent(server: SshServer, session: Session, artifact: Upload) -> None:
    arrived(server).parent.mkdir(parents=True)
    arrived(server).write_bytes(CONTENT)
    frame, told = send(session, artifact)
    assert (frame.status, server.uploaded, told) == (0, 0, [])


def test_a_file_that_is_damaged_on_its_way_is_not_put_in_its_place(
    server: SshServer, session: Session, artifact: Upload
) -> None:
    remote = session.upload(artifact, soon())
    arrived(server).write_bytes(CONTENT[:-1] + b"x")
    frame = ask(session, placing(artifact, remote))
    assert (frame.status, frame.err) == (1, f"{artifact.local.name} did not arrive whole: run again\n")
    assert list((server.home / artifact.remote).parent.iterdir()) == []


def test_a_local_file_that_is_missing_or_another(session: Session, artifact: Upload) -> None:
    artifact.local.write_bytes(b"another")
    with pytest.raises(StepFailed, match=f"not {SHA256}"):
        session.upload(artifact, soon())
    artifact.local.unlink()
    with pytest.raises(StepFailed, match="cannot be read: No such file"):
        session.upload(artifact, soon())


def test_a_host_that_cannot_store_it_says_so(server: SshServer, session: Session, artifact: Upload) -> None:
    server.faults.refuse_upload = True
    with pytest.raises(StepFailed, match=r"cannot be stored below ~/\.cache/runbook") as refused:
        session.upload(artifact, soon())
    assert "space" in str(refused.value.remedy)


def test_a_host_without_sftp_says_so(server: SshServer, session: Session, artifact: Upload) -> None:
    server.faults.no_sftp = True
    with pytest.raises(StepFailed, match="offers no SFTP"):
        session.upload(artifact, soon())


def test_a_login_profile_that_prints_before_sftp_is_told(server: SshServer, session: Session, artifact: Upload) -> None:
    """sshd runs its subsystems by the login's shell (sshd_config(5)), which reads its profile."""
    server.faults.noise = b"Welcome!\n"
    with pytest.raises(StepFailed, match=r"node1: SFTP cannot be understood there \(Garbage packet received\)"):
        session.upload(artifact, soon())
    assert ask(session, "echo still here").out == "still here\n"


def test_an_upload_ends_at_its_deadline(server: SshServer, session: Session, artifact: Upload) -> None:
    with within(5), pytest.raises(DeadlinePassed):
        session.upload(artifact, time.monotonic() - 1)


# gateways


@pytest.fixture
def behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Fleet]:
    """node1 is the gateway of the others."""
    keep_state_at_home(monkeypatch)
    with running(tmp_path, 4) as fleet:
        yield fleet


def sessions_behind(fleet: Fleet) -> list[Session]:
    gateway = {"address": fleet["node1"].address, "port": fleet["node1"].port, "user": "jump", "key": "id"}
    site = fleet.site(ssh={"gateway": gateway})
    logins = {host.name: Login.of(host) for host in site.hosts}
    shared = Gateway(logins["node2"].gateway, config())  # type: ignore[arg-type]
    return [Session(name, login, config(), shared) for name, login in logins.items() if name != "node1"]


def test_hosts_behind_a_gateway_share_its_connection(behind: Fleet) -> None:
    sessions = sessions_behind(behind)
    for session in sessions:
        assert ask(session, "pwd").out == f"{behind[session.name].home}\n"
        session.close()
    assert (behind["node1"].connections, behind["node1"].commands) == (1, [])


def test_a_host_that_the_gateway_does_not_reach(behind: Fleet) -> None:
    first, second, _ = sessions_behind(behind)
    behind["node1"].refused_destinations.add((behind["node2"].address, behind["node2"].port))
    with pytest.raises(HostUnreachable, match=r"by way of jump@127\.0\.0\.1.*Administratively prohibited"):
        ask(first, ":")
    assert ask(second, "echo in").out == "in\n"


def test_the_key_of_a_host_behind_a_gateway_is_checked(behind: Fleet) -> None:
    behind.know([behind["node1"]])
    with pytest.raises(HostKeyUnknown, match=rf"\[127.0.0.2\]:{behind['node2'].port} shows"):
        ask(sessions_behind(behind)[0], ":")


def test_the_key_of_the_gateway_is_checked(behind: Fleet) -> None:
    behind.know([behind["node2"]])
    with pytest.raises(HostKeyUnknown, match=r"gateway .*127\.0\.0\.1"):
        ask(sessions_behind(behind)[0], ":")


def test_a_gateway_that_does_not_answer_is_waited_for_once(behind: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_module, "CONNECT_TIMEOUT", 1.0)
    behind["node1"].faults.silent = True
    with within(5):
        for session in sessions_behind(behind):
            with pytest.raises(HostUnreachable, match=r"gateway jump@127\.0\.0\.1"):
                ask(session, ":")
    assert behind["node1"].connections == 1


def test_a_host_that_is_lost_behind_a_gateway_is_reached_again(behind: Fleet) -> None:
    session = sessions_behind(behind)[0]
    assert ask(session, "echo in").out == "in\n"
    behind["node1"].drop()
    assert ask(session, "echo in again").out == "in again\n"


def test_a_host_is_reached_again_when_its_gateways_connection_broke_unnoticed(behind: Fleet) -> None:
    """The thread of a dead connection takes a moment to see it: until then whatever is sent through it fails."""
    session = sessions_behind(behind)[0]
    assert ask(session, "echo in").out == "in\n"
    gateway = session._gateway
    assert gateway is not None
    gateway.connection(5).transport.sock.shutdown(socket.SHUT_WR)
    assert ask(session, "echo in again").out == "in again\n"
