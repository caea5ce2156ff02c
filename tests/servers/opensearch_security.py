"""A real OpenSearch with its real security plugin: TLS by a certificate authority of the test's own, users, roles."""

from __future__ import annotations

import base64
import datetime
import ipaddress
import shutil
import ssl
import urllib.request
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

from servers.opensearch import SETTINGS, VERSION, Process, artifacts, home
from servers.process import free_port
from support.requirements import require_program
from support.waiting import until

_ZIP = (f"org.opensearch.plugin:opensearch-security:{VERSION}.0:zip",)
#: Of the user ``admin`` in the plugin's own ``internal_users.yml``.
ADMIN = ("admin", "admin")
_DAY = datetime.timedelta(days=1)


@dataclass(frozen=True)
class SecureServer:
    """A server that runs; ``certificates`` has ``ca.pem``, ``node.pem``, and ``admin.pem`` with ``admin.key``."""

    url: str
    certificates: Path
    process: Process


@contextmanager
def secure_opensearch() -> Iterator[SecureServer]:
    """One until the block ends; always from jars: the plugin's settings have to be written."""
    for program in ("java", "mvn"):
        require_program(program)
    folder = home()
    plugin = folder / "plugins" / "opensearch-security"
    (archive,) = artifacts("security", _ZIP).glob("*.zip")
    with zipfile.ZipFile(archive) as packed:
        packed.extractall(plugin)
    shutil.copytree(plugin / "config", folder / "config" / "opensearch-security", dirs_exist_ok=True)
    certificates = folder / "config" / "certificates"
    certificates.mkdir()
    make_certificates(certificates)
    settings = {**SETTINGS, "plugins.security.allow_default_init_securityindex": "true"}
    settings["plugins.security.authcz.admin_dn"] = '["CN=admin"]'
    settings["plugins.security.restapi.roles_enabled"] = '["all_access"]'
    settings["plugins.security.ssl.http.enabled"] = "true"
    settings["plugins.security.ssl.http.clientauth_mode"] = "OPTIONAL"
    settings["plugins.security.ssl.transport.enforce_hostname_verification"] = "false"
    for layer in ("transport", "http"):
        for name, file in {"pemcert": "node.pem", "pemkey": "node.key", "pemtrustedcas": "ca.pem"}.items():
            settings[f"plugins.security.ssl.{layer}.{name}_filepath"] = f"certificates/{file}"
    port = free_port()
    process = Process(folder, settings, port=port, url=f"https://127.0.0.1:{port}")
    try:
        process.start()
        until(lambda: _is_initialized(process.url, certificates), process.log, 60)
        yield SecureServer(process.url, certificates, process)
    finally:
        process.stop()


def _is_initialized(url: str, certificates: Path) -> bool:
    """Whether the plugin has read its users: it answers 503 until then."""
    login = base64.b64encode(":".join(ADMIN).encode()).decode()
    request = urllib.request.Request(url, headers={"authorization": f"Basic {login}"})
    context = ssl.create_default_context(cafile=str(certificates / "ca.pem"))
    try:
        with urllib.request.urlopen(request, timeout=10, context=context) as reply:
            return bool(reply.status == 200)
    except OSError:
        return False


def make_certificates(folder: Path) -> None:
    """A certificate authority, and certificates by it: the node's (for 127.0.0.1 alone), the administrator's, one of
    a user called ``writer``; and ``other-ca.pem`` that signed none of them."""
    ca_key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    ca = _certificate("test authority", ca_key, "test authority", ca_key, ca=True)
    (folder / "ca.pem").write_bytes(_pem(ca))
    other_key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    other = _certificate("another authority", other_key, "another authority", other_key, ca=True)
    (folder / "other-ca.pem").write_bytes(_pem(other))
    for name in ("node", "admin", "writer"):
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        (folder / f"{name}.pem").write_bytes(_pem(_certificate(name, key, "test authority", ca_key)))
        (folder / f"{name}.key").write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )


def _certificate(
    name: str, key: rsa.RSAPrivateKey, issuer: str, issuer_key: rsa.RSAPrivateKey, *, ca: bool = False
) -> x509.Certificate:
    now = datetime.datetime.now(datetime.UTC)
    public, authority = key.public_key(), issuer_key.public_key()
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _DAY)
        .not_valid_after(now + _DAY)
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority), critical=False)
    )
    if ca:
        usage = x509.KeyUsage(
            digital_signature=True,
            key_cert_sign=True,
            crl_sign=True,
            content_commitment=False,
            key_encipherment=False,
            data_encipherment=False,
            key_agreement=False,
            encipher_only=False,
            decipher_only=False,
        )
        builder = builder.add_extension(usage, critical=True)
    else:
        names = [x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(issuer_key, hashes.SHA256())


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)
