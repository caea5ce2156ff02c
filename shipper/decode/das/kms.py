"""Asks KMS for the key that wraps messages' data keys, and tells what its errors mean for the records.

Sources: "Decrypt" in the AWS KMS API reference; "Monitoring database activity streams" in the Amazon Aurora and Amazon
RDS user guides: the encryption context names the cluster or the instance by its resource id.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from shipper import aws
from shipper.decode import Reason, Undecodable
from shipper.errors import Held

if TYPE_CHECKING:
    from mypy_boto3_kms import KMSClient

#: Keys of the encryption context: Aurora's, whose resource ids begin with ``cluster-``, and RDS's, with ``db-``.
CLUSTER_CONTEXT = "aws:rds:dbc-id"
INSTANCE_CONTEXT = "aws:rds:db-id"

#: Longest CiphertextBlob that Decrypt takes, in bytes (AWS KMS API reference).
_MAX_BLOB_BYTES = 6144
_KEY_BYTES = 32

#: With full jitter, from 0.1 s and doubled each time: at most 3.1 seconds of waiting.
_ATTEMPTS = 6
_FIRST_WAIT, _LONGEST_WAIT = 0.1, 2.0

#: What is wrong with this record, and not with permission or configuration.
_BLAME_THE_BLOB = frozenset({"InvalidCiphertextException", "ValidationException"})

#: Where the key's own state or grants are in the way: reason, and what to do.
_BLAME_THE_KEY = {
    "DisabledException": ("key_disabled", "enable the KMS key again"),
    "KMSInvalidStateException": ("key_disabled", "cancel the KMS key's deletion, enable it, or import its material"),
    "IncorrectKeyException": ("key_not_found", "use the KMS key that the activity stream was started with"),
    "InvalidGrantTokenException": ("access_denied", "grant kms:Decrypt on the KMS key to this process's identity"),
}


class KmsUnwrap:
    """Unwraps keys by KMS Decrypt; threads may share it, as they may the client.

    ``requests`` counts requests by result (metric ``kms_requests_total``): ``ok``; ``refused``, the blob or the context
    is wrong; ``held``, permission or configuration is; ``unavailable``, KMS was busy or not reached.
    """

    def __init__(self, client: KMSClient, *, sleep: Callable[[float], None] = time.sleep) -> None:
        self._client = client
        self._sleep = sleep
        self._lock = threading.Lock()
        self.requests = {"ok": 0, "refused": 0, "held": 0, "unavailable": 0}

    def unwrap(self, blob: bytes, resource_id: str | None) -> bytes:
        """The 32-byte key of an envelope's ``key`` blob.

        KMS answers the same to a damaged blob as to the wrong encryption context, so the other context is tried once.
        Raises ``Undecodable`` (``key_refused``) where neither fits, ``Held`` where the record has to wait: after a few
        seconds of retries for errors that pass, at once for those that a person must mend.
        """
        if resource_id is None:
            detail = "KMS needs the resource id of the cluster or instance that the records came from"
            raise Held("refused", detail, 'set resource_id = "cluster-…" or "db-…" for the source')
        if not 0 < len(blob) <= _MAX_BLOB_BYTES:
            raise Undecodable(Reason.KEY_REFUSED, f"a key blob of {len(blob)} bytes")
        likely, other = CLUSTER_CONTEXT, INSTANCE_CONTEXT
        if resource_id.startswith("db-"):
            likely, other = other, likely
        try:
            return self._decrypt(blob, likely, resource_id)
        except Undecodable as refusal:
            try:
                return self._decrypt(blob, other, resource_id)
            except Held as held:
                if held.reason == "access_denied":  # a policy may permit the likely context only, which was answered
                    raise refusal from None
                raise

    def _decrypt(self, blob: bytes, context: str, resource_id: str) -> bytes:
        retrying = Retrying(
            retry=retry_if_exception_type(_Passing),
            wait=wait_random_exponential(multiplier=_FIRST_WAIT, max=_LONGEST_WAIT),
            stop=stop_after_attempt(_ATTEMPTS),
            sleep=self._sleep,
            reraise=True,
        )
        try:
            return retrying(self._request, blob, context, resource_id)
        except _Passing as error:
            mend = "it is tried again; where this goes on, look at the KMS request quotas, endpoint_url, proxy and VPC "
            raise Held("key_unavailable", f"KMS Decrypt: {error}", mend + "endpoint") from error

    def _request(self, blob: bytes, context: str, resource_id: str) -> bytes:
        try:
            response = self._client.decrypt(CiphertextBlob=blob, EncryptionContext={context: resource_id})
        except aws.errors() as error:
            result, meaning = _meaning(error, context, resource_id)
            self._count(result)
            raise meaning from error
        key = response["Plaintext"]
        if len(key) != _KEY_BYTES:
            self._count("refused")
            raise Undecodable(Reason.KEY_REFUSED, f"KMS Decrypt gave {len(key)} bytes instead of {_KEY_BYTES}")
        self._count("ok")
        return key

    def _count(self, result: str) -> None:
        with self._lock:
            self.requests[result] += 1


class _Passing(Exception):
    """KMS could not answer now; the same request may succeed."""


def _meaning(error: Exception, context: str, resource_id: str) -> tuple[str, Exception]:
    """The result to count, and what to raise."""
    code = aws.code(error)
    # Credentials that are fetched while a request is made fail with the codes of the operation that fetches them.
    ours = getattr(error, "operation_name", "Decrypt") == "Decrypt"
    if ours and code in _BLAME_THE_BLOB:
        detail = f"KMS refuses the key blob with the encryption context {context}={resource_id}: {code}"
        return "refused", Undecodable(Reason.KEY_REFUSED, detail)
    held = aws.held(error, "KMS", "kms", not_found="key_not_found")
    if aws.transient(error):
        return "unavailable", _Passing(held.detail)
    if ours and code in _BLAME_THE_KEY:
        reason, mend = _BLAME_THE_KEY[code]
        return "held", Held(reason, held.detail, mend)
    if ours and held.reason == "access_denied":
        condition = {"StringEquals": {f"kms:EncryptionContext:{context}": resource_id}}
        statement = {"Effect": "Allow", "Action": "kms:Decrypt", "Resource": "the stream's KMS key"}
        mend = f"add the IAM statement {json.dumps(statement | {'Condition': condition})}"
        return "held", Held(held.reason, held.detail, f"{mend}; a key of another account must allow it in its policy")
    return "held", held
