"""What ``shipper check --connect`` asks: is the cluster there, who are we, may we write, is the template as it should
be. No event is written, and no index is made."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from urllib.parse import quote

import msgspec

from shipper.clock import Clock, SystemClock
from shipper.errors import Held
from shipper.event import SCHEMA_VERSION, Event
from shipper.output import Check, DeliveryError, Target
from shipper.templates import compile_values
from shipper_opensearch import bulk, mapping, verdict
from shipper_opensearch.connection import Cluster, Reply
from shipper_opensearch.management import ask as request
from shipper_opensearch.management import policy_found, version_found
from shipper_opensearch.settings import OpenSearchSettings

#: A document that no index takes, because it is none: permission is asked for before that is seen.
_NO_DOCUMENT = b'{"create":{}}\n{"\n'
_JSON = "application/json"
#: A server that has no template for data streams makes an index of that name without a word.
_NO_STREAM = 'delete it, and write template = "manage", or create a template with data_stream in it'


def ask(cluster: Cluster, settings: OpenSearchSettings, clock: Clock) -> Iterator[Check]:
    """Each question with its answer; the first that nobody answers is the last."""
    try:
        yield _reachable(cluster, settings)
        place = _today(settings, clock)
        yield from _writable(cluster, settings, place, clock)
        if settings.template == "manage":
            yield _template(cluster, settings)
            if settings.data_stream is not None and settings.auth.aws != "aoss":
                yield _rollover(cluster, settings)
    except Held as held:
        yield Check(held.reason.replace("_", " "), ok=False, detail=held.detail, mend=held.mend)
    except (DeliveryError, ValueError) as error:
        yield Check("answers", ok=False, detail=str(error), mend="check hosts, proxy, and whether the cluster is up")


def _reachable(cluster: Cluster, settings: OpenSearchSettings) -> Check:
    if settings.auth.aws == "aoss":  # Serverless has no page of its own
        reply = request(cluster, "GET", "/_cat/indices", params={"format": "json"})
        if not reply.ok:
            raise _no(reply)
        return Check("cluster", ok=True, detail="OpenSearch Serverless")
    reply = request(cluster, "GET", "/")
    if reply.status == 403:  # cluster:monitor/main, which writing does not need
        refusal = _no(reply)
        if refusal.reason == "access_denied":
            return Check("cluster", ok=True, detail="it answers, and does not tell this user its version")
        raise refusal
    if not reply.ok:
        raise _no(reply)
    try:
        about = msgspec.json.decode(reply.content)
        detail = f"{about['version'].get('distribution', 'elasticsearch')} {about['version']['number']}"
    except (msgspec.MsgspecError, KeyError, TypeError, AttributeError):
        return Check("cluster", ok=False, detail="what answers is no OpenSearch", mend="check hosts and proxy")
    return Check("cluster", ok=True, detail=detail)


def _no(reply: Reply) -> Held:
    told = verdict.of_request(reply.status, reply.headers, reply.content, 1, frozenset(), SystemClock())
    return told if isinstance(told, Held) else Held("unreachable", told.failure.detail, "check hosts and proxy")


def _today(settings: OpenSearchSettings, clock: Clock) -> str:
    """Where an event of this moment would go of which nothing else is known."""
    now = datetime.fromtimestamp(clock.now(), UTC).strftime("%Y-%m-%dT%H:%M:%S.000000Z")
    nobody = Event(schema_version=SCHEMA_VERSION, id="0" * 32, time=now)
    (place,) = compile_values([Target(settings.place, lower=True)])(nobody)
    return place or ""


def _writable(cluster: Cluster, settings: OpenSearchSettings, place: str, clock: Clock) -> Iterator[Check]:
    there = request(cluster, "HEAD", f"/{quote(place)}")
    if there.status == 404:
        yield _absent(cluster, settings, place, clock)
        return
    if not there.ok:
        yield Check("target", ok=False, detail=f"{place}: HTTP {there.status}", mend=verdict.MENDS["access_denied"])
        return
    if settings.data_stream is not None and _is_plain_index(cluster, place):
        yield Check("target", ok=False, detail=f"{place} is an index, and no data stream", mend=_NO_STREAM)
        return
    params = {"filter_path": bulk.FILTER} | ({"pipeline": settings.pipeline} if settings.pipeline else {})
    path = f"/{quote(place)}/_bulk"
    reply = cluster.request("POST", path, _NO_DOCUMENT, params=params, headers={"content-type": "application/x-ndjson"})
    known = frozenset(filter(None, [place, settings.pipeline]))
    if not reply.ok:
        told = verdict.of_request(reply.status, reply.headers, reply.content, 1, known, clock)
        mend = told.mend if isinstance(told, Held) else "see the detail"
        detail = told.detail if isinstance(told, Held) else told.failure.detail
        yield Check("write", ok=False, detail=f"{place}: {detail}", mend=mend)
        return
    (item,) = bulk.items_of(reply.content, 1)
    failure = verdict.of_item(item.create, known)
    if failure is not None and failure.outcome == "rejected":
        yield Check("write", ok=True, detail=f"{place} can be written to")
    else:
        detail = failure.detail if failure is not None else "it takes what is no document"
        mend = verdict.mend_of(failure.reason, detail) if failure is not None else "look at the pipeline"
        yield Check("write", ok=False, detail=f"{place}: {detail}", mend=mend)


def _absent(cluster: Cluster, settings: OpenSearchSettings, place: str, clock: Clock) -> Check:
    """Asks whether a document may be written where there is no index, in a way that makes none: only to an alias. AWS
    permits by path, and not this one."""
    if settings.auth.aws is None:
        path = f"/{quote(place)}/_create/{'0' * 32}"
        reply = cluster.request("PUT", path, b"{", params={"require_alias": "true"}, headers={"content-type": _JSON})
        if reply.status in (401, 403):
            told = verdict.of_request(reply.status, reply.headers, reply.content, 1, frozenset([place]), clock)
            assert isinstance(told, Held)
            return Check("write", ok=False, detail=f"{place}: {told.detail}", mend=told.mend)
    kind = "data stream" if settings.data_stream else "index"
    return Check("target", ok=True, detail=f"the {kind} {place} is not there yet; the first event makes it")


def _is_plain_index(cluster: Cluster, place: str) -> bool:
    reply = request(cluster, "GET", f"/_data_stream/{quote(place)}")
    try:
        return reply.ok and not msgspec.json.decode(reply.content)["data_streams"]
    except (msgspec.MsgspecError, KeyError, TypeError):
        return False  # it does not say


def _template(cluster: Cluster, settings: OpenSearchSettings) -> Check:
    name = mapping.template_name(settings.place)
    found = version_found(cluster, settings)
    if found is None:
        return Check("template", ok=True, detail=f"{name} is not there yet; the first start makes it")
    if found < mapping.VERSION:
        return Check(
            "template",
            ok=False,
            detail=f"{name} is version {found}, this shipper's is {mapping.VERSION}",
            mend="delete it, and the next start creates the new one",
        )
    return Check("template", ok=True, detail=f"{name}, version {found}")


def _rollover(cluster: Cluster, settings: OpenSearchSettings) -> Check:
    found, said = policy_found(cluster, settings)
    if found:
        return Check("rollover", ok=True, detail="a policy is there")
    if found is None:
        return Check("rollover", ok=True, detail="this cluster has no index state management: roll over by other means")
    if said.startswith("HTTP 404"):
        return Check("rollover", ok=True, detail="no policy is there yet; the first start makes it")
    return Check("rollover", ok=False, detail=said, mend="permit cluster:admin/opendistro/ism/policy/get and write")
