"""boto3 clients from the configuration, and what botocore's errors mean for the component that meets them."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

from shipper import __version__
from shipper.errors import Held
from shipper.settings import AwsSettings

if TYPE_CHECKING:
    import botocore.session

#: Seconds; the second is the longest silence within a reply, not the time for all of it.
CONNECT_TIMEOUT = 5.0
READ_TIMEOUT = 10.0
#: Attempts that botocore makes by itself, the first included; more patience is the callers' affair.
ATTEMPTS = 2

_ROLE_SESSION = "shipper"
_GIVE = (
    "give the process a role (task, instance or pod identity), a profile, or AWS_ACCESS_KEY_ID and "
    "AWS_SECRET_ACCESS_KEY"
)
_MAX_WORDS = 500

# Error codes, from the "Common Errors" pages of the services and their operations' own lists.
_DENIED = {"AccessDenied", "AccessDeniedException", "UnauthorizedOperation", "KMSAccessDeniedException"}
_CREDENTIALS = {
    "ExpiredToken",
    "ExpiredTokenException",
    "IncompleteSignature",
    "IncompleteSignatureException",
    "InvalidClientTokenId",
    "InvalidSignatureException",
    "MissingAuthenticationToken",
    "MissingAuthenticationTokenException",
    "NotAuthorized",
    "OptInRequired",
    "RequestExpired",
    "SignatureDoesNotMatch",
    "UnrecognizedClientException",
}
_THROTTLED = {
    "KMSThrottlingException",
    "LimitExceededException",
    "ProvisionedThroughputExceededException",
    "RequestLimitExceeded",
    "SlowDown",
    "Throttling",
    "ThrottlingException",
    "TooManyRequestsException",
}
_PASSING = {
    "DependencyTimeoutException",
    "InternalError",
    "InternalFailure",
    "InternalFailureException",
    "InternalServerError",
    "KMSInternalException",
    "KeyUnavailableException",
    "ServiceUnavailable",
    "ServiceUnavailableException",
}
_KEYS = {
    "DisabledException": "key_disabled",
    "KMSDisabledException": "key_disabled",
    "KMSInvalidStateException": "key_unavailable",
    "KMSNotFoundException": "key_not_found",
    "KMSOptInRequired": "key_unavailable",
    "KeyUnavailableException": "key_unavailable",
}
_NOT_FOUND = {"ResourceNotFoundException", "NotFoundException", "DBClusterNotFoundFault", "DBInstanceNotFound"}


def client(service: str, settings: AwsSettings, *, max_connections: int = 64, attempts: int = ATTEMPTS) -> Any:
    """A boto3 client of ``service`` (``kinesis``, ``kms``, ``rds``, ``sts`` …), for any number of threads.

    ``attempts``: how often botocore makes a call that fails for a passing reason; 1 where the caller waits and repeats.

    What ``settings`` leave open comes from boto3's environment (``AWS_PROFILE``, ``AWS_ENDPOINT_URL_KMS`` …). Importing
    boto3 takes a few tenths of a second, so it happens here. Raises ``Held`` ``credentials`` where region or
    credentials are missing.
    """
    import boto3  # noqa: PLC0415 - only who talks to AWS pays for it
    from botocore.config import Config  # noqa: PLC0415
    from botocore.exceptions import BotoCoreError  # noqa: PLC0415

    config = Config(
        connect_timeout=CONNECT_TIMEOUT,
        read_timeout=READ_TIMEOUT,
        max_pool_connections=max_connections,
        retries={"mode": "standard", "total_max_attempts": attempts},
        tcp_keepalive=True,
        user_agent_extra=f"shipper/{__version__}",
    )
    try:
        session = _session(settings, config)
        if session.get_credentials() is None:
            raise Held("credentials", f"{service}: no AWS credentials were found", _GIVE)
        factory: Any = boto3.Session(botocore_session=session)  # its stubs know only literal names of services
        return factory.client(
            service, config=config, region_name=_region(settings, session), endpoint_url=_endpoint(settings, service)
        )
    except (BotoCoreError, ValueError) as error:  # botocore refuses an endpoint URL with a ValueError
        raise held(error, f"{service} client", service) from error


def credentials(settings: AwsSettings, component: str) -> tuple[Any, str]:
    """botocore's credentials and the region, for who signs requests without a client of boto3's.

    Ask ``get_frozen_credentials()`` for every request: they renew themselves, an assumed role's too. ``component``
    begins the message. Raises ``Held`` ``credentials`` where region or credentials are missing.
    """
    from botocore.config import Config  # noqa: PLC0415 - only who talks to AWS pays for it
    from botocore.exceptions import BotoCoreError  # noqa: PLC0415

    try:
        session = _session(settings, Config(connect_timeout=CONNECT_TIMEOUT, read_timeout=READ_TIMEOUT))
        found = session.get_credentials()
        if found is None:
            raise Held("credentials", f"{component}: no AWS credentials were found", _GIVE)
        return found, _region(settings, session)
    except (BotoCoreError, ValueError) as error:
        raise held(error, component, component) from error


def errors() -> tuple[type[Exception], ...]:
    """What a call of a client raises, for an ``except`` clause."""
    from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415
    from botocore.parsers import ResponseParserError  # noqa: PLC0415

    return BotoCoreError, ClientError, ResponseParserError


def code(error: Exception) -> str:
    """The service's own name of an error (``ResourceNotFoundException``), or the class of one that botocore made."""
    response = getattr(error, "response", None)
    if isinstance(response, dict):
        return str(response.get("Error", {}).get("Code", "")).rpartition("#")[2]
    return type(error).__name__


def transient(error: Exception) -> bool:
    """Does the same call have a chance in a moment: throttling, the service's own faults, a broken connection?"""
    from botocore.exceptions import (  # noqa: PLC0415
        ConnectionError as BotocoreConnectionError,
    )
    from botocore.exceptions import HTTPClientError, IncompleteReadError  # noqa: PLC0415
    from botocore.parsers import ResponseParserError  # noqa: PLC0415

    if isinstance(error, (BotocoreConnectionError, HTTPClientError, IncompleteReadError, ResponseParserError)):
        return True
    return code(error) in _THROTTLED | _PASSING or _status(error) >= 500


def held(
    error: Exception, component: str, service: str, *, resource: str = "*", not_found: str = "target_not_found"
) -> Held:
    """What to tell a person about an error of a client's call: reason, the service's words, how to mend it.

    ``component`` begins the message. ``service`` (``kinesis``) and ``resource`` (an ARN) go into the IAM statement that
    would permit the call; ``not_found`` is the reason for a thing that does not exist.
    """
    name, operation = code(error), str(getattr(error, "operation_name", ""))
    words = f"{component}: {operation + ': ' if operation else ''}{_words(error)}"
    if name in _DENIED:
        return Held("access_denied", words, _statement(error, service, resource))
    if name in _CREDENTIALS or _about_credentials(error):
        return Held("credentials", words, _credentials_mend(name))
    if name in _KEYS:
        return Held(_KEYS[name], words, "enable the KMS key again, or cancel its deletion")
    if name in _NOT_FOUND:
        return Held(not_found, words, "check name, region and account; what was deleted has to be created again")
    if name in _THROTTLED:
        return Held(
            "unreachable", words, "other readers use up the limit, or the quota is too low: slow them or raise it"
        )
    if transient(error):
        return Held("unreachable", words, "check region, endpoint_url, proxy, VPC endpoint and security groups")
    return Held("refused", words, "check the configuration of this component")


def _session(settings: AwsSettings, config: Any) -> botocore.session.Session:
    import botocore.session  # noqa: PLC0415
    from botocore.credentials import (  # noqa: PLC0415
        AssumeRoleCredentialFetcher,
        CredentialProvider,
        DeferredRefreshableCredentials,
    )

    session = botocore.session.Session(profile=settings.profile)
    if settings.role_arn is None:
        return session
    own, region = session.get_credentials(), _region(settings, session)
    if own is None:
        return session
    extra = {"RoleSessionName": _ROLE_SESSION} | ({"ExternalId": settings.external_id} if settings.external_id else {})

    def create_sts(service: str, **keys: Any) -> Any:
        endpoint = _endpoint(settings, service)
        return session.create_client(service, region_name=region, endpoint_url=endpoint, config=config, **keys)

    fetcher = AssumeRoleCredentialFetcher(create_sts, own, settings.role_arn, extra_args=extra)

    class AssumedRole(CredentialProvider):
        METHOD = "shipper-assume-role"

        def load(self) -> Any:
            return DeferredRefreshableCredentials(refresh_using=fetcher.fetch_credentials, method=self.METHOD)

    assumed = botocore.session.Session(profile=settings.profile)
    assumed.get_component("credential_provider").insert_before("env", AssumedRole())
    return assumed


def _region(settings: AwsSettings, session: botocore.session.Session) -> str:
    # botocore reads AWS_DEFAULT_REGION; containers and Lambda functions are given AWS_REGION.
    region = settings.region or session.get_config_variable("region") or os.environ.get("AWS_REGION")
    if not region:
        raise Held("credentials", "no AWS region is set", 'write region = "…" in [aws], or set AWS_REGION')
    return str(region)


def _endpoint(settings: AwsSettings, service: str) -> str | None:
    configured = settings.endpoint_url
    return configured.get(service) if isinstance(configured, dict) else configured


def _status(error: Exception) -> int:
    response = getattr(error, "response", None)
    return int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)) if isinstance(response, dict) else 0


def _words(error: Exception) -> str:
    response = getattr(error, "response", None)
    if not isinstance(response, dict):
        return str(error)[:_MAX_WORDS]
    message = str(response.get("Error", {}).get("Message", ""))[:_MAX_WORDS]  # a proxy answers whole pages
    return f"{code(error)}: {message}" if message else code(error)


def _about_credentials(error: Exception) -> bool:
    from botocore import exceptions  # noqa: PLC0415

    return isinstance(
        error,
        (
            exceptions.ConfigNotFound,
            exceptions.ConfigParseError,
            exceptions.CredentialRetrievalError,
            exceptions.NoCredentialsError,
            exceptions.NoRegionError,
            exceptions.PartialCredentialsError,
            exceptions.ProfileNotFound,
            exceptions.SSOError,
            exceptions.TokenRetrievalError,
        ),
    )


def _credentials_mend(name: str) -> str:
    if name in {"ExpiredToken", "ExpiredTokenException", "RequestExpired"}:
        return "renew the credentials, and check the clock of this machine"
    return "check the profile, role and keys that the process was given"


def _statement(error: Exception, service: str, resource: str) -> str:
    """The IAM statement that permits what was refused."""
    operation = str(getattr(error, "operation_name", ""))
    if operation.startswith("AssumeRole"):
        return "let the role's trust policy name this process's identity (and external_id), which needs sts:AssumeRole"
    if code(error).startswith("KMS"):  # the key that a service encrypts its own storage with
        service, operation, resource = "kms", "Decrypt", "*"
    statement = {"Effect": "Allow", "Action": [f"{service}:{operation}"], "Resource": [resource]}
    return f"add the IAM statement {json.dumps(statement)}"
