"""Certificates made for tests: a CA of a site, and what it signs."""

from __future__ import annotations

import ipaddress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

NOW = datetime.now(UTC)


class Authority:
    """A CA, and the certificates that it signs; `by` is the one above it."""

    def __init__(self, name: str = "site CA", by: Authority | None = None, days: int = 30) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        issuer, key = (by._name, by._key) if by else (self._name, self._key)
        builder = self._builder(self._name, issuer, self._key, NOW - timedelta(days=60), NOW + timedelta(days=days))
        basic = x509.BasicConstraints(ca=True, path_length=None)
        self.certificate = builder.add_extension(basic, critical=True).sign(key, hashes.SHA256())

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    def sign(
        self,
        *names: str,
        begins: datetime = NOW - timedelta(days=1),
        ends: datetime = NOW + timedelta(days=20),
        usage: x509.ObjectIdentifier | None = None,
    ) -> tuple[bytes, bytes]:
        """A certificate for these addresses and its key, in PEM; with an extended key usage it is for that only."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "198.51.100.11")])
        builder = self._builder(subject, self._name, key, begins, ends)
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName([_general(one) for one in names]), False)
        if usage is not None:
            builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), False)
        certificate = builder.sign(self._key, hashes.SHA256())
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return certificate.public_bytes(serialization.Encoding.PEM), private

    @staticmethod
    def _builder(
        subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, begins: datetime, ends: datetime
    ) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(begins)
            .not_valid_after(ends)
        )


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def write(folder: Path, certificate: bytes, key: bytes, ca: bytes) -> None:
    """The files that `registry.tls` names, the key for its owner only."""
    for name, content in (("c.pem", certificate), ("k.pem", key), ("ca.pem", ca)):
        (folder / name).write_bytes(content)
        (folder / name).chmod(0o600)
