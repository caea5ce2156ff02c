"""Creates the index template, and a data stream's rollover policy, where they are absent. Nothing is ever replaced."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import msgspec

from shipper.clock import SystemClock
from shipper.errors import Held
from shipper.output import DeliveryError
from shipper_opensearch import mapping, verdict
from shipper_opensearch.connection import Cluster, Reply
from shipper_opensearch.settings import OpenSearchSettings

log = logging.getLogger("shipper.output.opensearch")

_JSON = {"content-type": "application/json"}
_OR_NOT = 'or write template = "none" and create the index template yourself (docs/outputs/opensearch.md)'


def install(cluster: Cluster, settings: OpenSearchSettings, name: str) -> None:
    """Sees to template and policy. Raises ``Held`` where the cluster is not reached or does not permit it."""
    found = version_found(cluster, settings)
    if found is None:
        body = mapping.index_template(
            settings.place,
            stream=settings.data_stream is not None,
            timestamp_field=settings.timestamp_field,
            native=settings.format.type == "native",
        )
        # "create": somebody else may create it at the same moment.
        reply = ask(cluster, "PUT", path_of(settings), body, params={"create": "true"})
        if not reply.ok and version_found(cluster, settings) is None:
            raise _held(reply, f"create the index template {mapping.template_name(settings.place)}")
    elif found < mapping.VERSION:
        log.warning(
            "output %s: the index template %s is version %d, this shipper's is %d; it is left as it is: delete it, "
            "and the next start creates the new one",
            name,
            mapping.template_name(settings.place),
            found,
            mapping.VERSION,
        )
    if settings.data_stream is not None and settings.auth.aws != "aoss":
        _policy(cluster, settings, name)


def version_found(cluster: Cluster, settings: OpenSearchSettings) -> int | None:
    """The version of the index template that is there; 0 where it has none; ``None`` where there is none."""
    reply = ask(cluster, "GET", path_of(settings))
    if reply.status == 404:
        return None
    if not reply.ok:
        raise _held(reply, "read the index template")
    try:
        (template,) = msgspec.json.decode(reply.content)["index_templates"]
        return int(template["index_template"].get("version", 0))
    except (msgspec.MsgspecError, KeyError, TypeError, ValueError, AttributeError):
        raise Held(
            "unreachable", "the answer to a question for an index template is none", "check hosts and proxy"
        ) from None


def path_of(settings: OpenSearchSettings) -> str:
    return f"/_index_template/{quote(mapping.template_name(settings.place))}"


def ask(
    cluster: Cluster, method: str, path: str, body: Any = None, *, params: Mapping[str, str] | None = None
) -> Reply:
    """A request that is not for events. Raises ``Held`` where no answer comes."""
    try:
        content = None if body is None else msgspec.json.encode(body)
        return cluster.request(method, path, content, params=params, headers=_JSON)
    except DeliveryError as error:
        raise Held("unreachable", str(error), "check hosts, proxy, and whether the cluster is up") from None


def policy_found(cluster: Cluster, settings: OpenSearchSettings) -> tuple[bool | None, str]:
    """Whether the rollover policy is there, and the server's words; ``None`` where the cluster cannot have one: index
    state management is a plugin."""
    reply = ask(cluster, "GET", _policy_path(settings))
    said = verdict.words_of(reply.status, reply.content)
    if reply.status == 400 and "no handler found" in said:
        return None, said
    return reply.ok, said


def _policy(cluster: Cluster, settings: OpenSearchSettings, name: str) -> None:
    found, said = policy_found(cluster, settings)
    if found is False:
        reply = ask(cluster, "PUT", _policy_path(settings), mapping.policy(settings.place))
        found, said = reply.ok or reply.status == 409, verdict.words_of(reply.status, reply.content)
    if found is False:
        log.warning(
            "output %s: no rollover policy for %s (%s); its first index grows without end unless you see to that",
            name,
            settings.place,
            said,
        )


def _policy_path(settings: OpenSearchSettings) -> str:
    return f"/_plugins/_ism/policies/{quote(mapping.template_name(settings.place))}"


def _held(reply: Reply, what: str) -> Held:
    told = verdict.of_request(reply.status, reply.headers, reply.content, 1, frozenset(), SystemClock())
    detail = told.detail if isinstance(told, Held) else told.failure.detail
    reason = told.reason if isinstance(told, Held) else "refused"
    if isinstance(told, DeliveryError) and reply.status in (429, *range(500, 600)):
        reason = "unreachable"
    permit = "let this user's role do that (cluster permissions indices:admin/index_template/get and put)"
    mend = permit if reason == "access_denied" else told.mend if isinstance(told, Held) else "see the detail"
    return Held(reason, f"cannot {what}: {detail}", f"{mend}, {_OR_NOT}")
