"""Secrets: references instead of values in parameter files, and the redactor that every output passes.

A parameter file holds a `SecretReference`; `resolve()` fetches the value at the moment it is needed, wraps it in a
`Secret`, and tells the redactor. From then on `redact` and `redact_data` mask the value, in every form in which it is
likely to turn up, in whatever this process prints or writes. Another process (a notebook's kernel, the rollout that
started it) has a redactor of its own: it knows a secret once it resolved the reference itself.
"""

from __future__ import annotations

import base64
import hmac
import html
import json
import os
import re
import shlex
import stat
import threading
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, NoReturn, TypeGuard
from urllib.parse import quote, quote_plus

from pydantic import GetCoreSchemaHandler, ValidationInfo
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from runbook.errors import SecretError

MASK = "***"
"""What stands in the place of a secret."""

SHORTEST = 4
"""The length in characters below which a secret is refused: masking it would mask half of every output, and so
betray it. It is longer than `MASK`, so that a mask never contains a secret and masking always comes to an end."""

LONGEST = 65536
"""The length in bytes above which the content of a file is no secret: longer ones fit into no variable or header."""


class Secret:
    """A value that shows itself only on `reveal()`: never as text, formatted, pickled or as JSON."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The value itself, for the one call that needs it."""
        return self._value

    def __str__(self) -> str:
        return MASK

    def __repr__(self) -> str:
        return f"Secret({MASK})"

    def __format__(self, format_spec: str) -> str:
        return format(MASK, format_spec)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(self._value.encode(), other._value.encode())

    def __hash__(self) -> int:
        return hash((Secret, self._value))

    def __copy__(self) -> Secret:
        return self

    def __deepcopy__(self, memo: object) -> Secret:
        return self

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Secret is not pickled: hand over its SecretReference and resolve it on the other side")


class SecretReference(str):
    """Where a secret is kept: `env:NAME`, `file:PATH` or `keyring:SERVICE/USER`.

    It is a text, and harmless: it may be shown, logged and recorded. Making one from anything else raises SecretError,
    whose message does not repeat what was given, since that may be the secret itself. In a parameter file a relative
    PATH is relative to that file.
    """

    _FORMS: ClassVar[Mapping[str, str]] = {
        "env": r"[A-Za-z_][A-Za-z0-9_]*",
        "file": r"[^\x00-\x1f\x7f]+",
        "keyring": r"[^\x00-\x1f\x7f]+/[^/\x00-\x1f\x7f]+",
    }

    __slots__ = ()

    def __new__(cls, text: str) -> SecretReference:
        kind, _, target = text.partition(":")
        if kind not in cls._FORMS or not re.fullmatch(cls._FORMS[kind], target):
            raise SecretError(
                "must be a reference to a secret, not the secret itself",
                "keep the secret in the environment, a file of mode 600 or the keyring, and write env:NAME, file:PATH "
                "or keyring:SERVICE/USER here; a secret that stood in this file is no longer one: change it",
            )
        return super().__new__(cls, text)

    @property
    def kind(self) -> str:
        """`env`, `file` or `keyring`."""
        return self.partition(":")[0]

    @property
    def target(self) -> str:
        """What follows the kind: the variable, the path, or `SERVICE/USER`."""
        return self.partition(":")[2]

    def within(self, folder: Path) -> SecretReference:
        """The same reference, with the PATH of a `file:` made absolute; a relative one begins at `folder`.

        Raises SecretError where PATH begins at the home of a user that this machine does not know.
        """
        if self.kind != "file":
            return self
        return SecretReference(f"file:{os.path.abspath(folder / _expanded(self.target))}")

    def resolve(self) -> Secret:
        """Fetch the secret now, and have every output of this process mask it from here on.

        A file's secret is its content without the newline at its end. Raises SecretError, which names the reference
        and the remedy: nothing there, a file that others can read, no keyring, a secret that cannot be used or masked.
        """
        fetch: Callable[[str], str] = {"env": _environment, "file": _file, "keyring": _keyring}[self.kind]
        try:
            value = fetch(self.target)
            register(value)
        except SecretError as error:
            raise SecretError(f"{self}: {error.message}", error.remedy) from error.__cause__
        return Secret(value)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.with_info_plain_validator_function(
            cls._validate, serialization=core_schema.to_string_ser_schema()
        )

    @classmethod
    def _validate(cls, value: object, info: ValidationInfo) -> SecretReference:
        folder = getattr(info.context, "folder", None)
        try:
            reference = cls(value if isinstance(value, str) else "")
            return reference if folder is None else reference.within(folder)
        except SecretError as error:
            reason = {"message": error.message, "remedy": error.remedy}
            raise PydanticCustomError("refused", "{message}", reason) from None


def _environment(name: str) -> str:
    try:
        return os.environ[name]
    except KeyError:
        raise SecretError(
            "the environment variable is not set",
            f"set it without a trace in the history: read -rs {name}; export {name}",
        ) from None


def _expanded(name: str) -> Path:
    try:
        return Path(name).expanduser()
    except RuntimeError:
        raise SecretError("the path begins at the home of somebody unknown here", "write the folder out") from None


def _file(name: str) -> str:
    path = _expanded(name)
    put_it_there = "write the secret there in one line, with mode 600"
    try:
        # Opened first and judged then, so that what is judged is what is read. O_NONBLOCK: a FIFO must not block.
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
            mode = os.fstat(file.fileno()).st_mode
            if not stat.S_ISREG(mode):
                raise SecretError("it is not a regular file", put_it_there)
            if mode & (stat.S_IRWXG | stat.S_IRWXO):
                raise SecretError(
                    f"others than the file's owner may use it (mode {stat.S_IMODE(mode):o})",
                    f"chmod 600 {shlex.quote(str(path))}; and change the secret if they may have read it",
                )
            content = file.read(LONGEST + 1)
        if len(content) > LONGEST:
            raise SecretError(f"the file is longer than {LONGEST} bytes", put_it_there)
        value = content.decode()
    except OSError as error:
        raise SecretError(f"the file cannot be read: {error.strerror}", put_it_there) from error
    except UnicodeDecodeError:
        raise SecretError("the file is not UTF-8 text", put_it_there) from None
    return value.removesuffix("\n").removesuffix("\r")


def _keyring(name: str) -> str:
    service, _, user = name.rpartition("/")
    try:
        import keyring
        import keyring.errors
    except ImportError as error:
        raise SecretError("the package `keyring` is not installed", "pip install 'runbook[keyring]'") from error
    try:
        value: str | None = keyring.get_password(service, user)
    except keyring.errors.KeyringError as error:
        raise SecretError(
            f"the keyring cannot be used: {error}", "unlock it, or keep the secret in a file or the environment"
        ) from error
    if value is None:
        raise SecretError("the keyring holds no such secret", f"keyring set {shlex.quote(service)} {shlex.quote(user)}")
    return value


def _forms(value: str) -> set[str]:
    """The texts by which a secret is recognised: itself and the encodings that hosts, shells and APIs print."""
    data = value.encode()
    plain = {
        value,
        quote(value, safe=""),
        quote(value),
        quote_plus(value),
        quote_plus(value, safe="/"),
        html.escape(value),
        html.escape(value).replace("&#x27;", "&#39;").replace("&quot;", "&#34;"),  # as markupsafe and jinja2 do
        html.escape(value, quote=False),
        value.replace("'", "'\"'\"'"),  # within single quotes of a shell, by shlex and dash
        value.replace("'", "'\\''"),  # the same by bash
        re.sub(r'(["$`\\])', r"\\\1", value),  # within double quotes of a shell
        re.sub(r"([^\w@%+=:,./-])", r"\\\1", value, flags=re.ASCII),  # as printf %q
        repr(value)[1:-1],
    }
    plain |= {re.sub(r"%[0-9A-F]{2}", lambda match: match[0].lower(), form) for form in plain}
    for altchars in (b"+/", b"-_"):
        for before in range(3):
            # Of a secret that begins at byte 0, 1 or 2 of a group of three, these digits depend on nothing around it.
            digits = base64.b64encode(bytes(before) + data, altchars).decode().rstrip("=")
            plain.add(digits[-(-before * 8 // 6) : (before + len(data)) * 8 // 6])
        plain.add(base64.b64encode(data, altchars).decode())
    once = plain | _in_json(plain)
    return once | _in_json(once)  # a notebook's JSON holds outputs that may be JSON


def _in_json(forms: set[str]) -> set[str]:
    escaped = {json.dumps(form, ensure_ascii=ascii)[1:-1] for form in forms for ascii in (True, False)}
    return escaped | {form.replace("/", "\\/") for form in escaped}


class Redactor:
    """Knows secrets and masks them. Safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: frozenset[str] = frozenset()
        self._longest_first: tuple[str, ...] = ()

    def register(self, value: str) -> None:
        """Mask `value` from now on.

        Raises SecretError for a value that cannot be masked (shorter than `SHORTEST`), or that cannot be handed over
        in one line of text (a control character in it).
        """
        if not value:
            raise SecretError("the secret is empty", "put the secret there")
        if len(value) < SHORTEST:
            raise SecretError(
                f"the secret is shorter than {SHORTEST} characters, so that it cannot be masked in outputs",
                "choose a longer one",
            )
        if re.search(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]", value):
            raise SecretError("the secret contains a newline or another control character", "choose one without")
        with self._lock:
            if value not in self._known:
                self._known |= {value}
                forms = set(self._longest_first) | _forms(value)
                self._longest_first = tuple(sorted(forms, key=len, reverse=True))

    def redact(self, text: str) -> str:
        """`text` with every known secret replaced by `MASK`: as it is, and in Base64 (also within longer data), URL,
        JSON, HTML and shell encoding.

        Hand it whole texts or whole lines: half of a secret is not recognised.
        """
        # Again until nothing is left, because a mask and its surroundings may make up a secret that begins with stars.
        while found := [form for form in self._longest_first if form in text]:
            for form in found:
                text = text.replace(form, MASK)
        return text

    def redact_data(self, data: Any) -> Any:
        """The same for JSON-like data: texts at any depth, keys included; a number that spells a secret, and a
        `Secret`, become the mask. Mappings come back as dicts, sets as lists."""
        if isinstance(data, str):
            return self.redact(data)
        if isinstance(data, Mapping):
            return {self.redact_data(key): self.redact_data(value) for key, value in data.items()}
        if isinstance(data, tuple):
            return tuple(self.redact_data(item) for item in data)
        if isinstance(data, list | set | frozenset):
            return [self.redact_data(item) for item in data]
        if data is None or isinstance(data, bool):
            return data
        text = str(data)
        return data if self.redact(text) == text and not isinstance(data, Secret) else MASK


SECRET_WORDS = ("pass", "pwd", "secret", "credential", "token", "api_key", "private_key")
"""What the name of an option or variable holds whose value is a secret, in any case, with or without the `_`."""

_PROSE = "passw|passphrase|secret|credential|token|private[_-]?key"
_WORD = "|".join(SECRET_WORDS).replace("_", "[_-]?")
_IN_ARGUMENTS = re.compile(
    rf"""//(?P<login>[^/\s'"]+)@
    | (?P<around>['"])(?P<whole>(?=[\w.-]*?(?:{_WORD}))[\w.-]++=)(?!['"])(?:(?!(?P=around)).)+(?=(?P=around))
    | (?<![\w.-])(?P<name>
        (?=-[\w.-]*?(?:{_WORD}))[\w.-]++(?:\s|\\\n)++(?=[^\s-])  # its value may be in the next line of a unit
        | (?=[\w.-]*?(?:{_WORD}))[\w.-]++(?:=|["']?:[ \t]?)
        | (?=[\w.-]*?(?:{_PROSE}))[\w.-]++[ \t]++(?=[^\s-])(?!\\\n)
      )
      (?: "(?:[^"\\]|\\.)*"(?=\s|[,;\]}})]|\Z) | '[^']*'(?=\s|[,;\]}})]|\Z)  # else a stray quote is part of it
        | (?:\\.|"[^"\n]*"|'[^'\n]*'|[^\s'"]|['"](?=[^\s'"]))+
      )""",
    re.IGNORECASE | re.VERBOSE,
)


def mask_arguments(text: str) -> str:
    """A command line or a unit of others, with the values masked that are secrets by their names: `--password x`,
    `X_SECRET=x`, `token: x`, and what stands before the @ of a URL.

    The redactor knows the secrets of the parameters only; a program of the host's has others.
    """
    return _IN_ARGUMENTS.sub(_without_value, text)


def _without_value(found: re.Match[str]) -> str:
    if found["login"]:
        return f"//{MASK}@"
    if found["whole"]:
        return f"{found['around']}{found['whole']}{MASK}"
    value = found[0][len(found["name"]) :]
    quote = value[0] if value[0] in "'\"" and value[-1] == value[0] and len(value) > 1 else ""
    return f"{found['name']}{quote}{MASK}{quote}"


_redactor = Redactor()
register = _redactor.register
redact = _redactor.redact
redact_data = _redactor.redact_data


def references(data: Any, names: frozenset[str] = frozenset()) -> Iterable[SecretReference]:
    """Every reference in JSON-like data: SecretReference objects, and mappings of the shape `{secret: "env:NAME"}`.

    `names`: secrets of Marathon's own, to which an app's `{"secret": "name"}` refers; those that an app in the data
    defines (`names_of_secrets`) are added below it. They are no references.
    """
    return (reference for _, reference in located_references(data, names=names))


def located_references(
    data: Any, place: tuple[str | int, ...] = (), names: frozenset[str] = frozenset()
) -> Iterator[tuple[tuple[str | int, ...], SecretReference]]:
    """The same, each with the keys and positions that lead to it from `data`, which is at `place`."""
    names |= names_of_secrets(data)
    if isinstance(data, SecretReference):
        yield place, data
    elif is_reference(data, names) and isinstance(data["secret"], str):
        yield place, SecretReference(data["secret"])
    elif isinstance(data, Mapping):
        for key, value in data.items():
            yield from located_references(value, (*place, key), names)
    elif isinstance(data, list | tuple):
        for position, item in enumerate(data):
            yield from located_references(item, (*place, position), names)


def reveal(data: Any, names: frozenset[str] = frozenset()) -> Any:
    """A copy of JSON-like data with each reference replaced by the secret's value: for the one request that sends it.

    `names` as for `references`. Raises SecretError where a reference cannot be resolved.
    """
    names |= names_of_secrets(data)
    if isinstance(data, SecretReference):
        return data.resolve().reveal()
    if is_reference(data, names) and isinstance(data["secret"], str):
        return SecretReference(data["secret"]).resolve().reveal()
    if isinstance(data, Mapping):
        return {key: reveal(value, names) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [reveal(item, names) for item in data]
    return data


def is_reference(data: object, names: Container[str] = ()) -> TypeGuard[Mapping[str, Any]]:
    """Whether `data` is a reference as it stands in an app's definition: `{secret: "env:NAME"}`.

    With one of `names` it is Marathon's own notation instead: the name of a secret that the app's `secrets` defines.
    """
    if not isinstance(data, Mapping) or data.keys() != {"secret"}:
        return False
    return not (isinstance(data["secret"], str) and data["secret"] in names)


def names_of_secrets(app: object) -> frozenset[str]:
    """The names of the secrets that an app defines for Marathon's secret store: the keys of its `secrets`.

    Source: `secrets.raml` of Marathon 1.5; the field is there from 1.3 on.
    """
    defined = app.get("secrets") if isinstance(app, Mapping) else None
    return frozenset(map(str, defined)) if isinstance(defined, Mapping) else frozenset()
