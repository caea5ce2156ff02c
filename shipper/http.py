"""What outputs that speak HTTP have in common: their keys, whom they trust, and which proxy is on the way.

Nothing here needs a client library: ``ssl`` contexts and URLs are what each of them takes.
"""

from __future__ import annotations

import re
import ssl
from typing import Annotated, Literal
from urllib.parse import SplitResult, urlsplit
from urllib.request import getproxies, proxy_bypass

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from shipper.errors import Held
from shipper.secrets import Secret
from shipper.settings import NetworkSettings, TlsSettings

#: What ``proxy`` says to go past the proxies that the environment names.
NO_PROXY = "none"


def _endpoint(value: str) -> str:
    try:
        url = urlsplit(value)
        known = url.scheme in ("http", "https") and bool(url.hostname) and url.port != 0
    except ValueError:  # a port that is no number, a bracket without its other half
        known, url = False, SplitResult("", "", "", "", "")
    # The value is not repeated: it may hold a password.
    if not known or url.query or url.fragment:
        raise PydanticCustomError("url", 'write a URL such as "https://search.example.com:9200"')
    if url.username is not None or url.password is not None:
        raise PydanticCustomError("url", "a URL holds no user and no password here: write them in auth")
    return value.rstrip("/")


#: The URL of a server, without a slash at its end; never with credentials in it.
EndpointUrl = Annotated[str, AfterValidator(_endpoint)]


class HttpSettings(NetworkSettings):
    """Keys of outputs that ship by HTTP."""

    headers: dict[str, Secret] = Field(
        default_factory=dict, description="sent with every request; each may be a reference, as secrets are"
    )
    proxy: Secret | None = Field(
        None, description="URL of a proxy; `none`: no proxy; default: `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY`"
    )
    compression: Literal["gzip", "none"] = Field("gzip", description="of what is sent")


def trust(tls: TlsSettings) -> ssl.SSLContext:
    """Who is trusted, and as whom we introduce ourselves.

    With a ``fingerprint`` that certificate alone is trusted, whoever signed it: the client library has to compare it
    (``fingerprint`` below). Raises ``Held`` ``credentials`` for files that cannot be used.
    """
    try:
        context = ssl.create_default_context(cafile=None if tls.ca_file is None else str(tls.ca_file))
    except (OSError, ssl.SSLError) as error:
        raise _unusable("ca_file", error) from None
    if tls.fingerprint is not None or not tls.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif not tls.verify_hostname:
        context.check_hostname = False
    if tls.cert_file is not None:
        # A function, because OpenSSL asks at the terminal where it is given none.
        password = tls.key_password.reveal() if tls.key_password is not None else ""
        try:
            context.load_cert_chain(tls.cert_file, tls.key_file, lambda: password)
        except (OSError, ssl.SSLError, ValueError) as error:
            raise _unusable("cert_file or key_file", error) from None
    return context


def fingerprint(tls: TlsSettings) -> str | None:
    """The trusted certificate's SHA-256 as 64 hex digits. Raises ``Held`` ``refused`` for what is none."""
    if tls.fingerprint is None:
        return None
    digits = re.sub(r"[\s:]", "", tls.fingerprint).lower().removeprefix("sha256")
    if not re.fullmatch(r"[0-9a-f]{64}", digits):
        raise Held(
            "refused",
            "tls.fingerprint is no SHA-256",
            "write the 64 hex digits of: openssl x509 -in CERTIFICATE -noout -fingerprint -sha256",
        )
    return digits


def proxy_for(url: str, proxy: Secret | None) -> str | None:
    """The proxy on the way to ``url``: what the settings say, else what the environment says."""
    if proxy is not None:
        configured = proxy.reveal()
        return None if configured == NO_PROXY else configured
    parts = urlsplit(url)
    if proxy_bypass(parts.netloc):
        return None
    return getproxies().get(parts.scheme)


def _unusable(what: str, error: Exception) -> Held:
    words = getattr(error, "reason", None) or getattr(error, "strerror", None) or type(error).__name__
    return Held(
        "credentials",
        f"tls.{what} cannot be used: {words}",
        "mend the path, the file's permissions, or its content (PEM), or key_password",
    )
