"""An authority of a test's own, with a certificate for 127.0.0.1 and one for a client, as PEM files."""

from __future__ import annotations

import ipaddress
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

KEY_PASSWORD = "a key's password"


class Certificates:
    """``ca``, ``server`` and ``client`` (with keys beside them; the client's is encrypted) in a folder."""

    def __init__(self, folder: Path, *, server_name: str = "127.0.0.1") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.ca = folder / "ca.pem"
        self.server, self.server_key = folder / "server.pem", folder / "server-key.pem"
        self.client, self.client_key = folder / "client.pem", folder / "client-key.pem"
        self._ca_key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name("a test's authority")
        authority = self._sign(self._name, self._ca_key, x509.BasicConstraints(ca=True, path_length=0))
        self.ca.write_bytes(authority.public_bytes(serialization.Encoding.PEM))
        self.fingerprint = self._issue(self.server, self.server_key, server_name).hex(":")
        self._issue(self.client, self.client_key, "shipper", KEY_PASSWORD)

    def server_context(self, *, ask_client: bool = False) -> ssl.SSLContext:
        """For the side that listens; ``ask_client``: it wants the client's certificate."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.server, self.server_key)
        if ask_client:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(self.ca)
        return context

    def _issue(self, path: Path, key_path: Path, name: str, password: str | None = None) -> bytes:
        """Writes a certificate and its key; returns its SHA-256."""
        key = ec.generate_private_key(ec.SECP256R1())
        try:
            names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(name))])
        except ValueError:
            names = x509.SubjectAlternativeName([x509.DNSName(name)])
        certificate = self._sign(_name(name), key, x509.BasicConstraints(ca=False, path_length=None), names)
        path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        sealed: serialization.KeySerializationEncryption = serialization.NoEncryption()
        if password is not None:
            sealed = serialization.BestAvailableEncryption(password.encode())
        key_path.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, sealed))
        return certificate.fingerprint(hashes.SHA256())

    def _sign(
        self, name: x509.Name, key: ec.EllipticCurvePrivateKey, *extensions: x509.ExtensionType
    ) -> x509.Certificate:
        now = datetime.now(UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=1))
        )
        for extension in extensions:
            builder = builder.add_extension(extension, critical=isinstance(extension, x509.BasicConstraints))
        return builder.sign(self._ca_key, hashes.SHA256())


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])
