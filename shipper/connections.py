"""HTTP requests of outputs that have no client library of their own: by ``HttpSettings``, and what a failure means.

For plugins; import it in ``connect``: urllib3 takes its time. Nothing is ever sent twice and no redirect is followed:
what follows from a failure is the engine's decision.
"""

from __future__ import annotations

import re
import ssl
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import NamedTuple
from urllib.parse import unquote, urlsplit, urlunsplit

import urllib3
from isal import igzip
from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    InsecureRequestWarning,
    NewConnectionError,
    ProxyError,
    SSLError,
)

from shipper import __version__
from shipper.errors import Held
from shipper.http import HttpSettings, fingerprint, proxy_for, trust
from shipper.output import NotTried, Unknown
from shipper.secrets import Secret

#: More of an answer is not read (bytes): no service that takes events has more to say.
MAX_ANSWER = 16 * 1024 * 1024
#: igzip's levels 0 to 3; 1 costs a fifth of a microsecond per event.
GZIP_LEVEL = 1

_CHUNK = 64 * 1024
_HEADER_VALUE = re.compile(r"[\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?")


class Answer(NamedTuple):
    """What came back: the headers' names compare without regard to case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Connections:
    """Connections to one URL's host, kept open between requests. Any thread may use it.

    ``keep`` is how many stay open: the number of threads that send. Raises ``Held`` where a certificate, a key or a
    secret cannot be read.
    """

    def __init__(self, settings: HttpSettings, url: str, keep: int) -> None:
        self._place = place_of(url)
        self._request = settings.timeout.request
        self._headers = {"User-Agent": f"shipper/{__version__}"}
        self._headers |= {name: header_value(value) for name, value in settings.headers.items()}
        self._pool = _pool(settings, url, keep)

    def request(self, method: str, url: str, headers: Mapping[str, str], body: bytes | None = None) -> Answer:
        """One request, tried once. Raises ``NotTried`` where nobody was reached, ``Unknown`` where no whole answer
        came back, ``Held`` where the other side is not who it should be or a proxy refuses."""
        deadline = time.monotonic() + self._request
        try:
            response = self._pool.request(
                method,
                url,
                body=body,
                headers={**self._headers, **headers},
                retries=False,
                redirect=False,
                preload_content=False,
            )
            try:
                return Answer(response.status, response.headers, self._read(response, deadline))
            finally:
                response.close()  # of what was read to its end the connection is back in the pool by now
        except HTTPError as error:
            raise self._meaning(error) from None

    def close(self) -> None:
        """Closes every connection that is not in use; those that are in use close when they are done."""
        self._pool.clear()

    def _read(self, response: urllib3.BaseHTTPResponse, deadline: float) -> bytes:
        parts: list[bytes] = []
        left = MAX_ANSWER
        while part := response.read(_CHUNK, decode_content=True):
            parts.append(part)
            left -= len(part)
            if left < 0:
                raise Unknown(f"{self._place} answered with more than {MAX_ANSWER} bytes")
            if time.monotonic() > deadline:
                raise Unknown(f"{self._place} did not finish its answer within timeout.request")
        return b"".join(parts)

    def _meaning(self, error: HTTPError) -> Exception:
        """Of a failure; without urllib3's words, which may repeat the URL with its query."""
        if isinstance(error, ProxyError):
            if "407" in str(error.original_error):
                return Held("credentials", "the proxy asks for a user and a password", "put them into proxy")
            return NotTried(f"the proxy does not lead to {self._place} ({_kind(error.original_error)})")
        if isinstance(error, (NewConnectionError, ConnectTimeoutError)):
            return NotTried(f"no connection to {self._place} ({_kind(error)})")
        if isinstance(error, SSLError) and (held := self._distrust(error)):
            return held
        return Unknown(f"no answer from {self._place} ({_kind(error)})")

    def _distrust(self, error: SSLError) -> Held | None:
        """Why one of the two sides does not trust the other; ``None`` where the connection merely broke."""
        cause = error.args[0] if error.args else None
        if isinstance(cause, ssl.SSLCertVerificationError):
            return Held(
                "unreachable",
                f"the certificate of {self._place} is not trusted: {cause.verify_message}",
                "give tls.ca_file or tls.fingerprint, or mend the certificate",
            )
        if "ingerprint" in str(cause):
            return Held(
                "unreachable",
                f"the certificate of {self._place} has another fingerprint",
                "compare it with tls.fingerprint: it was renewed, or somebody else answers",
            )
        reason = (cause.reason or "") if isinstance(cause, ssl.SSLError) else ""
        if "ALERT" in reason or "CERTIFICATE" in reason:
            return Held(
                "credentials",
                f"{self._place} refuses the TLS connection: {reason.lower().replace('_', ' ')}",
                "check tls.cert_file and tls.key_file, and what the destination asks for",
            )
        if reason in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "UNSUPPORTED_PROTOCOL"):
            return Held(
                "unreachable", f"{self._place} does not speak TLS 1.2 or later", "correct the URL: http, https?"
            )
        return None


def compress(body: bytes) -> bytes:
    """gzip, RFC 1952."""
    compressed: bytes = igzip.compress(body, GZIP_LEVEL)
    return compressed


def header_value(secret: Secret) -> str:
    """The secret's text as a header can carry it. Raises ``Held`` where no header can: http.client's own error would
    show it."""
    text = secret.reveal()
    if not _HEADER_VALUE.fullmatch(text):
        raise Held(
            "credentials",
            f"{secret.key} holds something that no HTTP header can carry: a line feed, an outer space, no ASCII",
            "store the bare text there",
        )
    return text


def retry_after(answer: Answer) -> float | None:
    """Seconds that the other side asks to wait (RFC 9110, 10.2.3), at most a day."""
    text = answer.headers.get("Retry-After", "").strip()
    if text.isascii() and text.isdecimal() and len(text) < 10:
        return min(float(text), 86_400.0)
    try:
        return min(max(0.0, parsedate_to_datetime(text).timestamp() - time.time()), 86_400.0)
    except (ValueError, TypeError, OverflowError):
        return None


def place_of(url: str) -> str:
    """Host and port of a URL: what may stand in a log."""
    return urlsplit(url).netloc.rpartition("@")[2]


def _pool(settings: HttpSettings, url: str, keep: int) -> urllib3.PoolManager:
    tls = settings.tls
    options: dict[str, object] = {
        "maxsize": keep,
        "timeout": urllib3.Timeout(connect=settings.timeout.connect, read=settings.timeout.request),
    }
    if url.startswith("https:"):
        options["ssl_context"] = trust(tls)
        options["assert_fingerprint"] = fingerprint(tls)
        if not (tls.verify and tls.verify_hostname):
            options["assert_hostname"] = False
        if not tls.verify:
            urllib3.disable_warnings(InsecureRequestWarning)  # the settings say so, once is enough
    proxy = proxy_for(url, settings.proxy)
    if proxy is not None and not re.match(r"https?://[^/]", proxy):
        raise Held("refused", "proxy is no URL", 'write "http://host:3128"')
    if proxy is None:
        return urllib3.PoolManager(1, **options)  # type: ignore[arg-type]  # keywords of the pools that it makes
    parts = urlsplit(proxy)
    if parts.username is not None:
        user = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        options["proxy_headers"] = urllib3.make_headers(proxy_basic_auth=user)
        proxy = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
    return urllib3.ProxyManager(proxy, 1, **options)  # type: ignore[arg-type]  # as above


def _kind(error: BaseException) -> str:
    """What the operating system said, else the kind of error."""
    cause = error.__cause__ or error.__context__
    if isinstance(cause, OSError) and cause.strerror:
        return cause.strerror
    return type(error).__name__
