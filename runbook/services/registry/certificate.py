"""The registry's certificate, looked at before any host is: what Docker would refuse is refused here, with a reason.

Docker verifies what Go's crypto/tls does: the certificate is signed by a CA of /etc/docker/certs.d/HOST:PORT (or is
itself there), it is valid now, a server may use it, and it names the registry's address among its subject alternative
names. The common name does not count, since Go 1.15 and for IP addresses ever.

Sources: 'Verify repository client with certificates' of Docker's documentation; RFC 5280, RFC 6125.
"""

from __future__ import annotations

import ipaddress
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import ExtendedKeyUsageOID

from runbook.errors import ParameterError, Problem
from runbook.paths import read_regular
from runbook.site import Site

LINKS = 8
"""Certificates at most from the registry's to its CA."""


@dataclass(frozen=True)
class Certificate:
    """The files of `registry.tls`, as they go to hosts: the certificate with what stands between it and the CA, its
    key, and the CA."""

    chain: bytes
    key: bytes
    ca: bytes

    @classmethod
    def of(cls, site: Site, now: datetime | None = None) -> Certificate | None:
        """The site's; None where its registry speaks plain HTTP.

        Raises ParameterError with everything for which Docker would refuse the registry at `now`.
        """
        tls = site.registry.tls
        if site.registry.security != "tls" or tls is None or site.registry_address is None:
            return None
        problems: list[Problem] = []

        def refuse(field: str, message: str, remedy: str) -> None:
            problems.append(Problem(site.file, 0, f"registry.tls.{field}", message, remedy))

        contents: dict[str, bytes] = {}
        for field, path in tls:
            try:
                contents[field] = read_regular(path, 1 << 20)
            except OSError as error:
                refuse(field, f"{path} cannot be read: {error.strerror}", "put the file there, or correct the path")
        if not problems:
            host = site.registry_address.rpartition(":")[0]
            for field, message, remedy in _wrong(contents, tls.key, host, now or datetime.now(UTC)):
                refuse(field, f"{getattr(tls, field)} {message}", remedy)
        if problems:
            raise ParameterError(problems)
        return cls(contents["certificate"], contents["key"], contents["ca"])

    @property
    def names(self) -> tuple[str, ...]:
        """The addresses that the certificate is for."""
        return names_of(x509.load_pem_x509_certificates(self.chain)[0])

    @property
    def until(self) -> datetime:
        """When it ends."""
        return x509.load_pem_x509_certificates(self.chain)[0].not_valid_after_utc


def names_of(certificate: x509.Certificate) -> tuple[str, ...]:
    """The DNS names and IP addresses among a certificate's subject alternative names."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    addresses = names.get_values_for_type(x509.IPAddress)
    return (*names.get_values_for_type(x509.DNSName), *map(str, addresses))


def _wrong(contents: dict[str, bytes], key_file: Path, host: str, now: datetime) -> Iterator[tuple[str, str, str]]:
    """Field, message and remedy of everything that is wrong with the files' contents."""
    try:
        chain = x509.load_pem_x509_certificates(contents["certificate"])
    except ValueError:
        yield "certificate", "holds no certificate in PEM", "begin it with -----BEGIN CERTIFICATE-----"
        return
    try:
        authorities = x509.load_pem_x509_certificates(contents["ca"])
    except ValueError:
        yield "ca", "holds no certificate in PEM", "begin it with -----BEGIN CERTIFICATE-----"
        return
    own = chain[0]
    yield from _key(contents["key"], key_file, own)
    if now >= own.not_valid_after_utc:
        yield "certificate", f"has expired on {own.not_valid_after_utc:%Y-%m-%d %H:%M} UTC", "have a new one signed"
    if now < own.not_valid_before_utc:
        yield (
            "certificate",
            f"is not valid before {own.not_valid_before_utc:%Y-%m-%d %H:%M} UTC",
            "see this machine's clock, or wait",
        )
    if not _names(own, host):
        named = ", ".join(names_of(own)) or "nobody"
        kind = "IP" if _address(host) else "DNS"
        yield (
            "certificate",
            f"is for {named}, and Docker hosts know the registry as {host}",
            f"have one signed with the subject alternative name {kind}:{host} (its common name does not count)",
        )
    if not _serves(own):
        yield (
            "certificate",
            "may not be used by a server",
            "have one signed with serverAuth among its extended key usages, or without any",
        )
    if (root := _root(chain, authorities)) is None:
        yield (
            "certificate",
            f"is not signed by {_subjects(authorities)}, nor by what the file holds beside it",
            "name the CA that signed it under registry.tls.ca (CA:TRUE must be among its basic constraints); append "
            "intermediate certificates to the certificate",
        )
    elif now >= root.not_valid_after_utc:
        yield "ca", f"has expired on {root.not_valid_after_utc:%Y-%m-%d %H:%M} UTC", "have the CA renewed"


def _subjects(authorities: Sequence[x509.Certificate]) -> str:
    """The subjects of some CAs, in words."""
    return ", ".join(one.subject.rfc4514_string() or "a CA without a name" for one in authorities)


def _key(content: bytes, file: Path, certificate: x509.Certificate) -> Iterator[tuple[str, str, str]]:
    mode = file.stat().st_mode
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        yield "key", f"may be used by others than its owner (mode {stat.S_IMODE(mode):o})", f"chmod 600 {file}"
    try:
        key = serialization.load_pem_private_key(content, password=None)
    except TypeError:
        yield "key", "is encrypted, and the registry cannot ask for a passphrase", "store it without one, in mode 600"
        return
    except ValueError:
        yield "key", "holds no private key in PEM", "begin it with -----BEGIN PRIVATE KEY-----"
        return
    form = (serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    if key.public_key().public_bytes(*form) != certificate.public_key().public_bytes(*form):
        yield "key", "is another certificate's", "name the key that registry.tls.certificate was made with"


def _names(certificate: x509.Certificate, host: str) -> bool:
    """Whether the certificate is for this host."""
    if _address(host):
        return host in names_of(certificate)
    for name in names_of(certificate):
        own, _, rest = host.partition(".")
        first, _, others = name.lower().partition(".")
        if name.lower() == host or (first == "*" and rest and others == rest and own):
            return True
    return False


def _address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _root(chain: Sequence[x509.Certificate], authorities: Sequence[x509.Certificate]) -> x509.Certificate | None:
    """The CA that the first certificate goes back to, over the others; None where there is none."""
    current = chain[0]
    for _ in range(LINKS):
        if current in authorities:
            return current
        signer = next((one for one in authorities if _may_sign(one) and _signed(current, one)), None)
        if signer is not None:
            return signer
        between = next((one for one in chain[1:] if one != current and _may_sign(one) and _signed(current, one)), None)
        if between is None:
            return None
        current = between
    return None


def _serves(certificate: x509.Certificate) -> bool:
    """Whether a certificate may be a server's: without extended key usages it may be used for anything."""
    try:
        usages = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return True
    return not {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE}.isdisjoint(usages)


def _may_sign(certificate: x509.Certificate) -> bool:
    """Whether a certificate is a CA's: Go takes no other as a signer."""
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False


def _signed(certificate: x509.Certificate, by: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(by)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True
