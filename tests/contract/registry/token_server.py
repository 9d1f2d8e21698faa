"""A token server of a test's own, for registries with `auth.token`.

Source: 'Token Authentication Specification' and 'Token Authentication Implementation' of Docker's distribution.
"""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

import requests
from certificates import Authority
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

Json = dict[str, Any]


class TokenServer:
    """Gives tokens to one user, for what `grants` allows: scopes without their actions, to actions.

    `asked`: the query of each request, and whether user and password came with it. `lives`: seconds of a token.
    """

    ISSUER, SERVICE = "a test's token server", "the site's registry"

    def __init__(self, folder: Path, user: str, password: str, grants: Mapping[str, set[str]]) -> None:
        self.grants = grants
        self.lives = 300
        self.asked: list[tuple[dict[str, list[str]], bool]] = []
        self.tokens: list[str] = []
        authority = Authority("token server")
        self._certificate, self._key = authority.sign()
        self._bundle = folder / "token-server.crt"
        self._bundle.write_bytes(authority.pem)
        self._known = requests.auth._basic_auth_str(user, password)
        handler = type("Handler", (_TokenHandler,), {"issue": self._issue})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._thread = threading.Thread(target=self._server.serve_forever)
        self.realm = f"http://127.0.0.1:{self._server.server_address[1]}/auth/token"

    @property
    def settings(self) -> Json:
        """What a registry that wants its tokens is configured with, as `auth`."""
        return {
            "token": {
                "realm": self.realm,
                "service": self.SERVICE,
                "issuer": self.ISSUER,
                "rootcertbundle": str(self._bundle),
            }
        }

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _issue(self, path: str, authorization: str | None) -> tuple[int, Json]:
        query = parse_qs(urlsplit(path).query)
        self.asked.append((query, authorization is not None))
        if authorization not in (None, self._known):
            return 401, {"details": "incorrect username or password"}
        access = []
        for scope in query.get("scope", []):
            resource, _, actions = scope.rpartition(":")
            kind, _, name = resource.partition(":")
            allowed = self.grants.get(resource, set()) if authorization else set()
            granted = [action for action in actions.split(",") if action in allowed]
            access.append({"type": kind, "name": name, "actions": granted})
        now = int(time.time())
        times = {"iat": now, "nbf": now - 5, "exp": now + self.lives}
        claims = {"iss": self.ISSUER, "sub": "", "aud": self.SERVICE, "jti": str(len(self.asked)), **times}
        self.tokens.append(_signed({**claims, "access": access}, self._certificate, self._key))
        return 200, {"token": self.tokens[-1], "expires_in": self.lives}


class _TokenHandler(BaseHTTPRequestHandler):
    issue: Callable[[str, str | None], tuple[int, Json]]

    def do_GET(self) -> None:
        status, content = type(self).issue(self.path, self.headers["Authorization"])
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Keep quiet."""


def _signed(claims: Json, certificate: bytes, key: bytes) -> str:
    """A token as the registry wants them: JWT, ES256, with the certificate that vouches for it."""
    chain = [base64.b64encode(x509.load_pem_x509_certificate(certificate).public_bytes(Encoding.DER)).decode()]
    header = {"typ": "JWT", "alg": "ES256", "x5c": chain}
    content = ".".join(_segment(json.dumps(part).encode()) for part in (header, claims))
    private = load_pem_private_key(key, password=None)
    assert isinstance(private, ec.EllipticCurvePrivateKey)
    r, s = decode_dss_signature(private.sign(content.encode(), ec.ECDSA(hashes.SHA256())))
    return f"{content}.{_segment(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"


def _segment(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")
