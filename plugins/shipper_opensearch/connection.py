"""The connections to a cluster's nodes: opensearch-py's own, with its retries, its logging and its decoding left out.

``Transport.perform_request`` would decode every answer with ``json`` (several microseconds per event), send again by
itself, and drop the headers of errors (``Retry-After``). So requests go to its connections directly. Imported in
``connect``, because it needs opensearch-py.
"""

from __future__ import annotations

import base64
import logging
from collections.abc import Mapping
from typing import Any, NamedTuple, NoReturn
from urllib.parse import urlsplit

import urllib3
from opensearchpy import Transport, Urllib3AWSV4SignerAuth, Urllib3HttpConnection
from opensearchpy.exceptions import ConnectionError as NoConnection
from opensearchpy.exceptions import SSLError, TransportError
from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    InsecureRequestWarning,
    NewConnectionError,
    ProxyError,
)

from shipper import __version__, aws
from shipper.errors import Held
from shipper.http import fingerprint, proxy_for, trust
from shipper.output import NotTried, Unknown
from shipper_opensearch.settings import OpenSearchSettings

#: Seconds that a node which failed is left alone where there are others; doubled up to five times.
DEAD_TIMEOUT = 5.0
_ANY_STATUS = range(100, 600)


class Reply(NamedTuple):
    """An answer, whatever its status. Names of headers are in small letters."""

    status: int
    headers: Mapping[str, str]
    content: str

    @property
    def ok(self) -> bool:
        return 200 <= self.status < 300


class _Node(Urllib3HttpConnection):
    """One host. Its pool can leave the host's name unverified and go through a proxy, which opensearch-py's own cannot;
    what the server warns of is not for the process's stderr."""

    def __init__(self, tls: Mapping[str, Any], proxy: str | None, pool_maxsize: int, **options: Any) -> None:
        super().__init__(pool_maxsize=pool_maxsize, **options)
        secure = tls if self.use_ssl else {}
        kind: Any = urllib3.HTTPSConnectionPool if self.use_ssl else urllib3.HTTPConnectionPool

        def pool() -> Any:
            if proxy is None:
                return kind(self.hostname, port=self.port, maxsize=pool_maxsize, **secure)
            headers = _proxy_headers(proxy)
            manager = urllib3.ProxyManager(proxy, maxsize=pool_maxsize, proxy_headers=headers, **secure)
            return _Proxied(manager, self.host)

        self._urllib3_pool_factory = pool
        self._create_urllib3_pool()

    def _raise_warnings(self, warning_headers: Any) -> None:
        return


class _Proxied:
    """What a connection asks of its pool, answered through a proxy."""

    def __init__(self, manager: urllib3.ProxyManager, base: str) -> None:
        self._manager = manager
        self._base = base

    def urlopen(self, method: str, url: str, body: Any, **options: Any) -> Any:
        return self._manager.urlopen(method, self._base + url, body=body, redirect=False, **options)

    def close(self) -> None:
        self._manager.clear()


class Cluster:
    """The nodes that the settings name. Thread-safe.

    Raises ``Held`` while being made where certificates, secrets or AWS credentials cannot be used.
    """

    def __init__(self, settings: OpenSearchSettings) -> None:
        # Its DEBUG lines hold whole bodies, which are audit data, and the engine says what failed.
        logging.getLogger("opensearch").setLevel(logging.CRITICAL)
        self._settings = settings
        self._timeout = urllib3.Timeout(connect=settings.timeout.connect, read=settings.timeout.request)
        if not settings.tls.verify:
            urllib3.disable_warnings(InsecureRequestWarning)
        tls: dict[str, Any] = {
            "ssl_context": trust(settings.tls),
            "assert_fingerprint": fingerprint(settings.tls),
            "assert_hostname": None if settings.tls.verify_hostname else False,
        }
        self._transport = Transport(
            [self._host(url) for url in settings.hosts],
            connection_class=_Node,
            dead_timeout=DEAD_TIMEOUT,
            pool_maxsize=settings.concurrency + 1,
            tls=tls,
            verify_certs=True,  # by the context in tls: its own would only warn
            http_auth=self._signer(),
            headers={"user-agent": f"shipper/{__version__}"},
        )

    def request(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        *,
        params: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        """One request to one node, without a retry but for secrets that have changed.

        Raises ``NotTried`` where no node was reached, ``Unknown`` where the answer failed to come, ``Held`` where
        trust or credentials have to be mended.
        """
        sent = self._headers()
        reply = self._perform(method, path, body, params, {**sent, **(headers or {})})
        if reply.status in (401, 403) and self._refresh():
            renewed = self._headers()
            if renewed != sent:
                reply = self._perform(method, path, body, params, {**renewed, **(headers or {})})
        return reply

    def close(self) -> None:
        nodes: list[Any] = self._transport.seed_connections
        for node in nodes:
            node.close()

    # -- one request -------------------------------------------------------------------------------------------------

    def _perform(
        self, method: str, path: str, body: bytes | None, params: Mapping[str, str] | None, headers: Mapping[str, str]
    ) -> Reply:
        node = self._transport.get_connection()
        try:
            status, found, content = node.perform_request(
                method, path, params, body, timeout=self._timeout, ignore=_ANY_STATUS, headers=headers
            )
        except TransportError as error:
            self._transport.connection_pool.mark_dead(node)
            _failed(error, node.host)
        except (Held, NotTried, Unknown):
            raise
        except HTTPError as error:
            raise Unknown(f"{node.host}: {type(error).__name__}") from None
        self._transport.connection_pool.mark_live(node)
        return Reply(status, {name.lower(): value for name, value in found.items()}, content)

    # -- who we are --------------------------------------------------------------------------------------------------

    def _headers(self) -> dict[str, str]:
        headers = {name.lower(): secret.reveal() for name, secret in self._settings.headers.items()}
        auth = self._settings.auth
        if auth.user is not None and auth.password is not None:
            login = base64.b64encode(f"{auth.user}:{auth.password.reveal()}".encode()).decode()
            headers["authorization"] = f"Basic {login}"
        elif auth.api_key is not None:
            headers["authorization"] = f"ApiKey {auth.api_key.reveal()}"
        return headers

    def _refresh(self) -> bool:
        """Lets secrets be read again; whether there are any."""
        auth = self._settings.auth
        secrets = [secret for secret in (auth.password, auth.api_key, *self._settings.headers.values()) if secret]
        for secret in secrets:
            secret.refresh()
        return bool(secrets)

    def _signer(self) -> Any:
        service = self._settings.auth.aws
        if service is None:
            return None
        credentials, region = aws.credentials(self._settings, service)
        return Urllib3AWSV4SignerAuth(credentials, region, service)

    def _host(self, url: str) -> dict[str, Any]:
        parts = urlsplit(url)
        secure = parts.scheme == "https"
        return {
            "host": parts.hostname,
            "port": parts.port or (443 if secure else 80),
            "use_ssl": secure,
            "url_prefix": parts.path,
            "proxy": proxy_for(url, self._settings.proxy),
        }


def _proxy_headers(proxy: str) -> dict[str, str]:
    parts = urlsplit(proxy)
    if parts.username is None:
        return {}
    return dict(urllib3.make_headers(proxy_basic_auth=f"{parts.username}:{parts.password or ''}"))


def _failed(error: TransportError, host: str) -> NoReturn:
    """What a request means that got no answer."""
    cause = error.info if isinstance(error, NoConnection) and len(error.args) > 2 else None
    inner = cause.original_error if isinstance(cause, ProxyError) else cause
    what = type(inner or cause or error).__name__
    if isinstance(error, SSLError) or "SSL" in what:
        words = getattr(inner, "args", ("",))[0]
        raise Held(
            "unreachable",
            f"{host}: no encrypted connection: {str(words)[:200]}",
            "mend tls: ca_file, fingerprint, cert_file; or the server's certificate",
        ) from None
    if isinstance(cause, Exception) and not isinstance(cause, HTTPError):
        _not_sent(cause, host)
    if isinstance(cause, ProxyError) or isinstance(inner, NewConnectionError | ConnectTimeoutError):
        raise NotTried(f"{host}: no connection ({what})", reason="unreachable") from None
    raise Unknown(f"{host}: no answer ({what})", reason="no_answer") from None


def _not_sent(cause: Exception, host: str) -> None:
    """Raises ``Held`` where signing failed: credentials cannot be had."""
    if isinstance(cause, aws.errors()):
        raise aws.held(cause, host, "sts") from None
