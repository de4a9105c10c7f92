"""One fresh certificate per application: server, client and own authority at once, as skein wants it."""

from __future__ import annotations

import datetime
from dataclasses import dataclass

SERVER_NAME = "skein-internal"
"""The certificate's name. skein's Java side checks for exactly this one; hosts are not known in advance."""

_VALID_DAYS = 365


@dataclass(frozen=True)
class Credentials:
    """PEM texts. Whoever holds both is a member of the application."""

    certificate: str
    private_key: str


def new_credentials() -> Credentials:
    """A self-signed certificate on a P-256 key: a tenth of the CPU time of RSA-2048 in each handshake."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, SERVER_NAME)])
    now = datetime.datetime.now(datetime.timezone.utc)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        # A node's clock may be behind ours.
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=_VALID_DAYS))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(SERVER_NAME)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    return Credentials(
        certificate=certificate.public_bytes(serialization.Encoding.PEM).decode(),
        private_key=key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ).decode(),
    )
