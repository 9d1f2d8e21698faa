"""References to secrets, and the redactor that keeps their values out of every output."""

from __future__ import annotations

import base64
import copy
import html
import json
import os
import pickle
import re
import shlex
import subprocess
import sys
import threading
import types
import urllib.parse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from markupsafe import escape

from runbook import secrets
from runbook.errors import SecretError
from runbook.secrets import MASK, SHORTEST, Redactor, Secret, SecretReference, mask_arguments

VISIBLE = st.characters(blacklist_categories=("Cc", "Cs", "Zl", "Zp"))
VALUES = st.text(VISIBLE, min_size=SHORTEST, max_size=40)
NASTY = st.sampled_from(
    ["****", "***abc", "a*b*", "&&&&", "'''\"", "%2F%", "\\\\\\\\", "////", "aaaa", "    ", "é+ /'\"$&<"]
)


@pytest.fixture(autouse=True)
def redactor(monkeypatch: pytest.MonkeyPatch) -> Redactor:
    """A redactor of this test's own in the place of the process's."""
    fresh = Redactor()
    for name in ("register", "redact", "redact_data"):
        monkeypatch.setattr(secrets, name, getattr(fresh, name))
    return fresh


def knowing(*values: str) -> Redactor:
    redactor = Redactor()
    for value in values:
        redactor.register(value)
    return redactor


class TestSecret:
    SECRET = Secret("grey-heron-42")

    @pytest.mark.parametrize(
        "show",
        [
            str,
            repr,
            "{}".format,
            "{:>20}".format,
            "{!r}".format,
            lambda value: f"{value!s}",
        ],
    )
    def test_shows_only_a_mask(self, show: Callable[[Secret], str]) -> None:
        assert "grey" not in show(self.SECRET)
        assert MASK in show(self.SECRET)

    def test_shows_only_a_mask_inside_others(self) -> None:
        assert "grey" not in f"{[self.SECRET]} { ({'a': self.SECRET}) } {ValueError(self.SECRET)!r}"

    def test_is_not_pickled_nor_written_as_json(self) -> None:
        for dump in (pickle.dumps, json.dumps):
            with pytest.raises(TypeError) as caught:
                dump(self.SECRET)
            assert "grey" not in str(caught.value)

    def test_has_no_other_way_in(self) -> None:
        assert not hasattr(self.SECRET, "__dict__")
        assert json.dumps(self.SECRET, default=str) == f'"{MASK}"'

    def test_is_revealed_on_request(self) -> None:
        assert self.SECRET.reveal() == "grey-heron-42"
        assert copy.deepcopy(self.SECRET) is copy.copy(self.SECRET) is self.SECRET

    def test_compares_by_value_with_secrets_only(self) -> None:
        assert Secret("grey-heron-42") == self.SECRET
        assert hash(self.SECRET) == hash(Secret("grey-heron-42"))
        assert Secret("grey-heron-43") != self.SECRET
        assert self.SECRET != "grey-heron-42"


class TestReference:
    @pytest.mark.parametrize(
        ("text", "kind", "target"),
        [
            ("env:RUNBOOK_SUDO", "env", "RUNBOOK_SUDO"),
            ("file:../secrets/sudo password", "file", "../secrets/sudo password"),
            ("keyring:https://registry.example/v2/push", "keyring", "https://registry.example/v2/push"),
        ],
    )
    def test_is_a_text_that_says_where(self, text: str, kind: str, target: str) -> None:
        reference = SecretReference(text)
        assert (reference, reference.kind, reference.target) == (text, kind, target)
        assert pickle.loads(pickle.dumps(reference)) == reference
        assert json.dumps({"password": reference}) == json.dumps({"password": text})

    @pytest.mark.parametrize(
        "literal",
        [
            "hunter2",
            "",
            "env:",
            "env:hunter2!",
            "env:1hunter",
            "file:",
            "keyring:hunter2",
            "Env:HUNTER2",
            "vault:hunter2",
        ],
    )
    def test_refuses_a_literal_without_repeating_it(self, literal: str) -> None:
        with pytest.raises(SecretError, match="must be a reference to a secret") as caught:
            SecretReference(literal)
        assert "hunter2" not in str(caught.value).lower()
        assert "env:NAME" in str(caught.value)

    def test_within_a_folder(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HOME", "/home/operator")
        folder = Path("/somewhere/parameters")
        assert SecretReference("file:../sudo").within(folder) == "file:/somewhere/sudo"
        assert SecretReference("file:/etc/sudo").within(folder) == "file:/etc/sudo"
        assert SecretReference("file:~/sudo").within(folder) == "file:/home/operator/sudo"
        assert SecretReference("env:SUDO").within(folder) == "env:SUDO"


class TestEnvironment:
    def test_resolves_and_is_masked_from_then_on(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("DEMO", "grey-heron-42")
        assert secrets.redact("grey-heron-42") == "grey-heron-42"
        assert SecretReference("env:DEMO").resolve() == Secret("grey-heron-42")
        assert secrets.redact("a grey-heron-42 flew") == f"a {MASK} flew"

    def test_not_set(self) -> None:
        with pytest.raises(SecretError) as caught:
            SecretReference("env:DEMO_UNSET").resolve()
        assert str(caught.value) == (
            "env:DEMO_UNSET: the environment variable is not set\n"
            "  remedy: set it without a trace in the history: read -rs DEMO_UNSET; export DEMO_UNSET"
        )

    @pytest.mark.parametrize(
        ("value", "reason"),
        [
            ("", "the secret is empty"),
            ("abc", "the secret is shorter than 4 characters, so that it cannot be masked in outputs"),
            ("grey\nheron", "the secret contains a newline or another control character"),
            ("grey\x7fheron", "the secret contains a newline or another control character"),
        ],
    )
    def test_unusable(self, value: str, reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("DEMO", value)
        with pytest.raises(SecretError) as caught:
            SecretReference("env:DEMO").resolve()
        assert caught.value.message == f"env:DEMO: {reason}"
        assert caught.value.remedy


class TestFile:
    @pytest.fixture
    def file(self, tmp_path: Path) -> Path:
        file = tmp_path / "secret"
        file.touch(mode=0o600)
        return file

    @pytest.mark.parametrize("content", [b"grey heron ", b"grey heron \n", b"grey heron \r\n"])
    def test_is_its_content_without_the_last_newline(self, content: bytes, file: Path) -> None:
        file.write_bytes(content)
        assert SecretReference(f"file:{file}").resolve().reveal() == "grey heron "

    @pytest.mark.parametrize("mode", [0o400, 0o600, 0o700])
    def test_its_owner_alone(self, mode: int, file: Path) -> None:
        file.write_text("grey-heron-42")
        file.chmod(mode)
        assert SecretReference(f"file:{file}").resolve().reveal() == "grey-heron-42"

    @pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o644])
    def test_others_may_use_it(self, mode: int, file: Path) -> None:
        file.write_text("grey-heron-42")
        file.chmod(mode)
        with pytest.raises(SecretError) as caught:
            SecretReference(f"file:{file}").resolve()
        assert str(caught.value) == (
            f"file:{file}: others than the file's owner may use it (mode {mode:o})\n"
            f"  remedy: chmod 600 {file}; and change the secret if they may have read it"
        )

    def test_empty(self, file: Path) -> None:
        file.write_text("\n")
        with pytest.raises(SecretError, match=f"file:{file}: the secret is empty"):
            SecretReference(f"file:{file}").resolve()

    @pytest.mark.parametrize(
        ("make", "reason"),
        [
            (lambda file: file.unlink(), "the file cannot be read: No such file or directory"),
            (lambda file: (file.unlink(), file.mkdir()), "the file cannot be read: Is a directory"),
            (lambda file: (file.unlink(), os.mkfifo(file, 0o600)), "it is not a regular file"),
            (lambda file: file.write_bytes(b"caf\xe9\xe9"), "the file is not UTF-8 text"),
            (lambda file: file.write_text("one\ntwo\n"), "the secret contains a newline or another control character"),
        ],
        ids=["missing", "folder", "fifo", "latin-1", "two lines"],
    )
    def test_not_a_secret(self, make: Callable[[Path], object], reason: str, file: Path) -> None:
        make(file)
        with pytest.raises(SecretError) as caught:
            SecretReference(f"file:{file}").resolve()
        assert caught.value.message == f"file:{file}: {reason}"
        assert caught.value.remedy


class TestKeyring:
    """Against a stand-in for the package `keyring`, which is optional and needs a desktop."""

    @pytest.fixture
    def stored(self, monkeypatch: pytest.MonkeyPatch) -> dict[tuple[str, str], str]:
        stored: dict[tuple[str, str], str] = {}
        package: Any = types.ModuleType("keyring")
        package.errors = types.ModuleType("keyring.errors")
        package.errors.KeyringError = type("KeyringError", (Exception,), {})

        def get_password(service: str, user: str) -> str | None:
            if service == "locked":
                raise package.errors.KeyringError("it is locked")
            return stored.get((service, user))

        package.get_password = get_password
        monkeypatch.setitem(sys.modules, "keyring", package)
        monkeypatch.setitem(sys.modules, "keyring.errors", package.errors)
        return stored

    def test_resolves(self, stored: dict[tuple[str, str], str]) -> None:
        stored["https://registry.example/v2", "push"] = "grey-heron-42"
        reference = SecretReference("keyring:https://registry.example/v2/push")
        assert reference.resolve().reveal() == "grey-heron-42"

    @pytest.mark.usefixtures("stored")
    def test_holds_none(self) -> None:
        with pytest.raises(SecretError) as caught:
            SecretReference("keyring:run book/push").resolve()
        assert str(caught.value) == (
            "keyring:run book/push: the keyring holds no such secret\n  remedy: keyring set 'run book' push"
        )

    @pytest.mark.usefixtures("stored")
    def test_locked(self) -> None:
        with pytest.raises(SecretError, match="keyring:locked/push: the keyring cannot be used: it is locked"):
            SecretReference("keyring:locked/push").resolve()

    def test_not_installed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "keyring", None)
        with pytest.raises(SecretError) as caught:
            SecretReference("keyring:runbook/push").resolve()
        assert caught.value.message == "keyring:runbook/push: the package `keyring` is not installed"
        assert caught.value.remedy == "pip install 'runbook[keyring]'"


ENCODINGS: dict[str, Callable[[str], str]] = {
    "plain": str,
    "url": lambda value: urllib.parse.quote(value, safe=""),
    "url, lower case": lambda value: re.sub("%..", lambda code: code[0].lower(), urllib.parse.quote(value, safe="")),
    "form": lambda value: urllib.parse.urlencode({"password": value}),
    "json": json.dumps,
    "json, unicode": lambda value: json.dumps(value, ensure_ascii=False),
    "json in json": lambda value: json.dumps(json.dumps({"password": value})),
    "html": html.escape,
    "jinja2": lambda value: str(escape(value)),
    "shell": shlex.quote,
    "python": repr,
    "base64": lambda value: base64.b64encode(value.encode()).decode(),
    "base64, url": lambda value: base64.urlsafe_b64encode(value.encode()).decode(),
    "basic authentication": lambda value: base64.b64encode(f"user:{value}".encode()).decode(),
    "basic authentication, 1 on": lambda value: base64.b64encode(f"users:{value}".encode()).decode(),
    "basic authentication, 2 on": lambda value: base64.b64encode(f"userxy:{value}\n".encode()).decode(),
}


class TestRedactor:
    @pytest.mark.parametrize("encode", ENCODINGS.values(), ids=ENCODINGS)
    @pytest.mark.parametrize(
        "value",
        ["test", "grey-heron-42", "pass word&more=1", 'it\'s "quoted"', "a/b+c=d%", "$HOME `id` \\", "Grün<über>é"],
    )
    def test_masks_every_encoding(self, value: str, encode: Callable[[str], str]) -> None:
        redacted = knowing(value).redact(f"before {encode(value)} after")
        assert redacted.startswith("before ")
        assert redacted.endswith(" after")
        assert MASK in redacted
        assert encode(value) not in redacted
        # What is left of an encoding are the marks around the secret: quotes, a name, the edges of its Base64.
        assert len(redacted) <= len(f"before {encode(value)} after") - len(value) + len(MASK)

    @given(VALUES, st.text(max_size=7), st.text(max_size=7))
    def test_base64_of_any_surroundings_does_not_decode_to_the_secret(
        self, value: str, before: str, after: str
    ) -> None:
        raw = (before + value + after).encode(errors="replace")
        redacted = knowing(value).redact(base64.b64encode(raw).decode())
        assert MASK in redacted
        for piece in redacted.split(MASK):
            for cut in range(4):
                text = piece[cut:] + "=" * (-len(piece[cut:]) % 4)
                if len(text.rstrip("=")) % 4 != 1:
                    assert value.encode() not in base64.b64decode(text)

    @given(st.lists(VALUES | NASTY, min_size=1, max_size=3), st.lists(st.text(max_size=5), min_size=3, max_size=6))
    def test_no_output_contains_a_secret(self, values: list[str], pieces: list[str]) -> None:
        redactor = knowing(*values)
        for text in (joint.join(pieces) for joint in [*values, "".join(values), *(value * 2 for value in values)]):
            redacted = redactor.redact(text)
            assert not any(value in redacted for value in values)
            assert redactor.redact(redacted) == redacted

    @given(VALUES, st.text())
    def test_other_text_stays(self, value: str, text: str) -> None:
        redacted = knowing(value).redact(text)
        assume(value not in text)
        assert redacted == text or MASK in redacted

    @given(
        VALUES | NASTY,
        st.recursive(st.text() | st.integers() | st.none() | st.booleans(), lambda inner: st.lists(inner)),
    )
    def test_no_data_contains_a_secret(self, value: str, data: Any) -> None:
        data = {value: data, "list": [value, {"deep": (f"x{value}y", value, data)}], "json": json.dumps([value, data])}

        def leaves(data: Any) -> Iterator[object]:
            if isinstance(data, dict):
                for key, inner in data.items():
                    yield key
                    yield from leaves(inner)
            elif isinstance(data, list | tuple):
                for inner in data:
                    yield from leaves(inner)
            else:
                yield data

        redacted = knowing(value).redact_data(data)
        assert not any(value in str(leaf) for leaf in leaves(redacted) if leaf not in (None, True, False))

    def test_keeps_the_shape_of_data(self) -> None:
        data = {"a": [1, 2.5, None, True, "x"], "b": ("y", {"grey-heron-42"}), "c": Secret("other"), "n": 12345678}
        assert knowing("grey-heron-42", "12345678").redact_data(data) == {
            "a": [1, 2.5, None, True, "x"],
            "b": ("y", [MASK]),
            "c": MASK,
            "n": MASK,
        }
        assert data["n"] == 12345678

    @pytest.mark.parametrize("value", ['it\'s $5 "net"', "back`tick\\", "dollar$(id)", "plain-word"])
    def test_masks_what_shells_trace(self, value: str) -> None:
        """`set -x` of the machine's own sh and bash, and bash's `printf %q`."""
        quoted = shlex.quote(value)
        for shell, script in (
            ("sh", f"set -x; : {quoted}"),
            ("bash", f"set -x; : {quoted}"),
            ("bash", f"printf %q {quoted}; echo"),
        ):
            done = subprocess.run([shell, "-c", script], capture_output=True, text=True, check=True)
            shown = (done.stderr + done.stdout).replace("\n", " ")
            redacted = knowing(value).redact(shown)
            assert MASK in redacted
            assert value not in redacted

    def test_a_longer_secret_is_masked_before_a_shorter_one_within(self) -> None:
        assert knowing("heron", "grey-heron-42").redact("grey-heron-42, heron") == f"{MASK}, {MASK}"

    def test_refuses_what_it_cannot_mask(self) -> None:
        for value in ("", "abc", "two\nlines"):
            with pytest.raises(SecretError):
                knowing(value)
        assert knowing("four").redact("four") == MASK

    def test_several_threads(self) -> None:
        redactor = Redactor()
        values = [f"secret-{number:03}" for number in range(40)]
        threads = [threading.Thread(target=redactor.register, args=(value,)) for value in values]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert redactor.redact(" ".join(values)) == " ".join([MASK] * 40)


class TestReferencesInData:
    APP: ClassVar[dict[str, Any]] = {
        "env": {"A": {"secret": "env:DEMO"}, "B": "plain"},
        "args": ["x", SecretReference("env:DEMO")],
        "cpus": 1,
    }

    def test_found(self) -> None:
        assert list(secrets.references(self.APP)) == ["env:DEMO", "env:DEMO"]

    OWN: ClassVar[dict[str, Any]] = {
        "env": {"A": {"secret": "env:DEMO"}, "B": {"secret": "db"}},
        "secrets": {"db": {"source": "/db/password"}},
        "container": {"docker": {"pullConfig": {"secret": "db"}}},
    }
    """An app with secrets of Marathon's own (app.json of Marathon 1.4's documentation, appContainer.raml of 1.5)."""

    def test_names_that_an_app_s_secrets_define_are_no_references(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert list(secrets.references({"apps": {"a": self.OWN}})) == ["env:DEMO"]
        monkeypatch.setenv("DEMO", "grey-heron-42")
        revealed = secrets.reveal(self.OWN)
        assert revealed == {**self.OWN, "env": {"A": "grey-heron-42", "B": {"secret": "db"}}}

    def test_a_name_of_another_app_s_secrets_is_none(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("DEMO", "grey-heron-42")
        other = {"env": {"B": {"secret": "db"}}}
        for use in (secrets.reveal, lambda data: list(secrets.references(data))):
            with pytest.raises(SecretError, match="must be a reference"):
                use({"apps": {"a": self.OWN, "b": other}})

    def test_revealed_in_a_copy(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("DEMO", "grey-heron-42")
        before = copy.deepcopy(self.APP)
        revealed = secrets.reveal(self.APP)
        assert revealed == {"env": {"A": "grey-heron-42", "B": "plain"}, "args": ["x", "grey-heron-42"], "cpus": 1}
        assert before == self.APP
        assert secrets.redact_data(revealed)["env"]["A"] == MASK

    def test_a_missing_one_is_named(self) -> None:
        with pytest.raises(SecretError, match="env:DEMO_UNSET: the environment variable is not set"):
            secrets.reveal({"secret": "env:DEMO_UNSET"})


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        # the command line of Marathon 1.1.1 (bin/marathon-framework of that tag)
        ("run_jar --http_credentials user:heron --hostname a", "run_jar --http_credentials *** --hostname a"),
        ("java --mesos_authentication_secret=heron x", "java --mesos_authentication_secret=*** x"),
        ("x --zk zk://user:heron@10.0.0.1:2181/marathon", "x --zk zk://***@10.0.0.1:2181/marathon"),
        ('Environment="HTTP_PROXY=http://me:heron@proxy:3128/"', 'Environment="HTTP_PROXY=http://***@proxy:3128/"'),
        ("mysqld --password 'heron' -p", "mysqld --password '***' -p"),
        ("MYSQL_ROOT_PASSWORD=heron exec x", "MYSQL_ROOT_PASSWORD=*** exec x"),
        ("x --secret --other heron", "x --secret --other heron"),  # a switch has no value
        ("docker-proxy -proto tcp -host-port 8600", "docker-proxy -proto tcp -host-port 8600"),
        ("nc -l -k -p 2181 me@host", "nc -l -k -p 2181 me@host"),
        (
            "--http_credentials user:heron --zk=zk://a:2181/x --mesos_authentication_secret=heron --port=1",
            "--http_credentials *** --zk=zk://a:2181/x --mesos_authentication_secret=*** --port=1",
        ),
        ("x --zk zk://user:her@on@10.0.0.1:2181/marathon", "x --zk zk://***@10.0.0.1:2181/marathon"),
        ("x --password 'grey heron' y", "x --password '***' y"),
        ('x --password="grey heron" y', 'x --password="***" y'),
        ("A_PASSWORD=grey\\ heron y", "A_PASSWORD=*** y"),
        ("A_PASSWORD=grey'heron y", "A_PASSWORD=*** y"),
        ('Environment="A=1" "A_PASSWORD=grey heron" B=2', 'Environment="A=1" "A_PASSWORD=***" B=2'),
        ('{"auth_token": "heron", "a": 1}', '{"auth_token": "***", "a": 1}'),
        ("ExecStart=/x --token \\\n  heron\nRestart=no", "ExecStart=/x --token \\\n  ***\nRestart=no"),
        ("ExecStart=/x --token \\\n  --other heron", "ExecStart=/x --token \\\n  --other heron"),
        ("http_credentials user:heron", "http_credentials ***"),
        ("pass" * 20_000, "pass" * 20_000),  # in no time
        ("X_API_KEY=heron PWD=/root", "X_API_KEY=*** PWD=***"),
        ("pass 3 of 5", "pass 3 of 5"),
    ],
)
def test_of_the_command_lines_of_others_secrets_are_masked_by_their_names(text: str, masked: str) -> None:
    assert mask_arguments(text) == masked
