"""What a registry's refusals mean: its error codes, statuses and broken handshakes as named errors.

Source: 'Errors' of Docker's HTTP API V2; `registry/api/v2/errors.go` of distribution; recorded from 2.8.2.
"""

from __future__ import annotations

import http.client
import json
import ssl
from collections.abc import Mapping
from typing import Any

from runbook.errors import (
    AccessDenied,
    BlobUnknown,
    CertificateRefused,
    CredentialsRefused,
    DeleteDisabled,
    DigestInvalid,
    ManifestUnknown,
    NameInvalid,
    RegistryReadOnly,
    RepositoryUnknown,
    RequestMalformed,
    ServiceError,
    TlsMismatch,
    TooManyRequests,
)
from runbook.services.http import Answer

_BY_CODE: Mapping[str, tuple[type[ServiceError], str]] = {
    "NAME_UNKNOWN": (RepositoryUnknown, "see the catalog for the repositories that there are"),
    "MANIFEST_UNKNOWN": (
        ManifestUnknown,
        "see the repository's tags; a tag that is listed lost its manifest: push the image again, and restart the "
        "registry first if garbage was collected since it started",
    ),
    "BLOB_UNKNOWN": (BlobUnknown, "the image is damaged: push it again, after a restart of the registry"),
    "MANIFEST_BLOB_UNKNOWN": (BlobUnknown, "push the image, or mount its layers, before its manifest"),
    "NAME_INVALID": (NameInvalid, "correct the repository's name"),
    "TAG_INVALID": (NameInvalid, "correct the tag"),
    "DIGEST_INVALID": (DigestInvalid, "correct the digest"),
    "MANIFEST_INVALID": (RequestMalformed, "the registry does not take this format of manifests: see its version"),
    "PAGINATION_NUMBER_INVALID": (RequestMalformed, "ask for smaller pages: see catalog.maxentries of the registry"),
    "UNAUTHORIZED": (CredentialsRefused, ""),
    "DENIED": (AccessDenied, "ask for access, or use a user who has it; see the token server's rules"),
    "TOOMANYREQUESTS": (TooManyRequests, "wait, then ask again"),
}
_BY_STATUS = {401: "UNAUTHORIZED", 403: "DENIED", 429: "TOOMANYREQUESTS"}
_PLAIN_HTTP = ("WRONG_VERSION_NUMBER", "UNKNOWN_PROTOCOL", "HTTP_REQUEST", "RECORD_LAYER_FAILURE")  # OpenSSL's names


def named(error: ServiceError, url: str, method: str, path: str, user: str | None) -> ServiceError:
    """The error that a refusal means; the same one where it means no more than it says.

    `url`: the registry. `method` and `path`: what was asked for, and `user`: as whom, None for nobody.
    """
    request, answer = f"{url}: {method} {path}", error.answer
    if not isinstance(answer, Answer):
        return _handshake(error, request)
    if answer.status == 400 and b"HTTP request to an HTTPS server" in answer.body:
        return _wants_tls(request, answer)
    code, reason = _reason(answer)
    said = f"{request}: {reason or f'{answer.status} {answer.excerpt()}'}"
    if answer.status == 405 and method not in ("GET", "HEAD"):
        return _not_allowed(method, code, said, answer)
    if method == "HEAD" and answer.status == 404:  # it has no body to tell
        code, said = "BLOB_UNKNOWN" if "/blobs/" in path else "MANIFEST_UNKNOWN", f"{request}: it is not there"
    elif answer.status == 401 and "insufficient_scope" in answer.headers.get("www-authenticate", ""):
        code = "DENIED"  # the token is good, and not for this
    elif code not in _BY_CODE:
        code = _BY_STATUS.get(answer.status, code)
    match _BY_CODE.get(code):
        case None:
            return error
        case kind, _ if kind is CredentialsRefused:
            who = f"user {user} is refused" if user else "nobody without user and password is let in"
            remedy = "correct registry.user and what registry.password refers to; see the registry's htpasswd"
            return CredentialsRefused(f"{said} ({who})", remedy, answer=answer)
        case kind, remedy if kind is TooManyRequests:
            return TooManyRequests(said, remedy, answer=answer, seconds=_seconds(answer))
        case kind, remedy:
            return kind(said, remedy, answer=answer)


def _not_allowed(method: str, code: str, said: str, answer: Answer) -> ServiceError:
    if method == "DELETE" and code == "UNSUPPORTED":
        return DeleteDisabled(
            said,
            "set registry.delete_enabled and run chapter 7's step anew: the container gets "
            "REGISTRY_STORAGE_DELETE_ENABLED=true (7.5.2)",
            answer=answer,
        )
    return RegistryReadOnly(
        said,
        "it is read-only, as while garbage is collected, or it mirrors another registry: see "
        "storage.maintenance.readonly and proxy in its configuration",
        answer=answer,
    )


def _handshake(error: ServiceError, request: str) -> ServiceError:
    """What it means where no HTTP was spoken at all."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return CertificateRefused(
                f"{request}: {cause.verify_message}",
                "see that registry.tls.ca is what the certificate is from, that the certificate names this address "
                "(subjectAltName) and that both clocks are right",
            )
        if isinstance(cause, ssl.SSLError) and cause.reason in _PLAIN_HTTP:
            return TlsMismatch(
                f"{request}: it answers in plain HTTP where TLS is expected",
                "run the registry with registry.tls, or set `security: insecure` and have every Docker host trust it "
                "(7.2)",
            )
        # a TLS alert: what Go before 1.12, as in registry 2.3, answers to plain HTTP
        if isinstance(cause, http.client.BadStatusLine) and str(cause).startswith("\x15\x03"):
            return _wants_tls(request, None)
        cause = cause.__cause__ or cause.__context__
    return error


def _wants_tls(request: str, answer: Answer | None) -> TlsMismatch:
    return TlsMismatch(
        f"{request}: it speaks TLS, and was asked in plain HTTP",
        "set `security: tls` with registry.tls, and give every Docker host its CA in /etc/docker/certs.d (7.2)",
        answer=answer,
    )


def _reason(answer: Answer) -> tuple[str, str]:
    """The first error code that an answer holds, and all its reasons in one line; empty where it holds none."""
    try:
        content = json.loads(answer.body)
        errors = [one for one in content["errors"] if isinstance(one, dict)]
    except (ValueError, KeyError, TypeError):
        return "", ""
    return str(errors[0].get("code", "")) if errors else "", "; ".join(map(_shown, errors))


def _shown(error: Mapping[str, Any]) -> str:
    detail = error.get("detail")
    text = f"{error.get('code', '?')}: {error.get('message', '')}"
    return f"{text} ({json.dumps(detail, ensure_ascii=False)})" if detail else text


def _seconds(answer: Answer) -> float | None:
    try:
        return float(answer.headers.get("retry-after", ""))
    except ValueError:
        return None
