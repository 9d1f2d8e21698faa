"""The grammar of repositories, tags and digests, judged here so that nothing misspelt is asked for.

Source: `reference/reference.go` of Docker's distribution; its 'HTTP API V2', 'Overview' and 'Content Digests'.
"""

from __future__ import annotations

import hashlib
import re

from runbook.errors import DigestInvalid, NameInvalid

_COMPONENT = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
_REPOSITORY = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_LONGEST = 255  # characters of a repository's name
_DIGITS = {"sha256": 64, "sha384": 96, "sha512": 128}
_DIGEST = re.compile(f"(?:{'|'.join(f'{name}:[0-9a-f]{{{digits}}}' for name, digits in _DIGITS.items())})")


def repository_name(text: str) -> str:
    """The text, if it can name a repository (`library/ubuntu`). Raises NameInvalid."""
    if not _REPOSITORY.fullmatch(text) or len(text) > _LONGEST:
        raise NameInvalid(
            f"{text!r} cannot name a repository",
            "write lower-case letters, digits and single separators (. _ - /), without the registry's address",
        )
    return text


def tag_name(text: str) -> str:
    """The text, if it can name a tag (`2.3.0`). Raises NameInvalid."""
    if not _TAG.fullmatch(text):
        raise NameInvalid(f"{text!r} cannot name a tag", "write up to 128 letters, digits, and _ . - after the first")
    return text


def digest_name(text: str) -> str:
    """The text, if it is a digest (`sha256:` and 64 hexadecimal digits). Raises DigestInvalid."""
    if not is_digest(text):
        raise DigestInvalid(f"{text!r} is not a digest", "write sha256: and all 64 hexadecimal digits, in lower case")
    return text


def reference_name(text: str) -> str:
    """The text, if it is a tag or a digest. Raises NameInvalid or DigestInvalid."""
    return digest_name(text) if ":" in text else tag_name(text)


def is_digest(text: str) -> bool:
    """Whether a text is a digest, by an algorithm that registries know."""
    return _DIGEST.fullmatch(text) is not None


def digest_of(content: bytes, algorithm: str = "sha256") -> str:
    """The digest of some content."""
    return f"{algorithm}:{hashlib.new(algorithm, content).hexdigest()}"
