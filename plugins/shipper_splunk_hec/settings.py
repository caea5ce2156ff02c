"""The keys of the Splunk HEC output."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from shipper.fields import Kind, UnknownField, field
from shipper.http import HttpSettings
from shipper.secrets import Secret
from shipper.settings import Table, TextOrNone
from shipper.units import Duration

#: Batches that wait for their acknowledgement at the same time, where the configuration does not say.
ACK_CONCURRENCY = 16

_PATH = re.compile(r"/services/collector(/.*)?$|/+$")


#: Headers that the output itself needs, and those of the connection.
_OWN_HEADERS = frozenset(
    {
        "authorization",
        "connection",
        "content-encoding",
        "content-length",
        "content-type",
        "cookie",
        "host",
        "transfer-encoding",
        "user-agent",
        "x-splunk-request-channel",
    }
)


def _list(value: object) -> object:
    return [value] if isinstance(value, str) else value


def _urls(value: tuple[str, ...]) -> tuple[str, ...]:
    for url in value:
        if not re.fullmatch(r"https?://[^/?#@\s]+(/[^?#\s]*)?", url):
            raise PydanticCustomError("url", 'write "https://HOST:8088", without user, "?" and "#"')
    urls = tuple(dict.fromkeys(_PATH.sub("", url) for url in value))
    if not urls:
        raise PydanticCustomError("url", "at least one URL is needed")
    return urls


def _fields(value: tuple[str, ...]) -> tuple[str, ...]:
    for name in value:
        try:
            _, kind = field(name)
        except UnknownField as error:
            raise PydanticCustomError("field", "{what}", {"what": f"{error.message}; {error.mend}"}) from None
        if kind is Kind.TABLE:
            raise PydanticCustomError("field", "{name} is a table: name one of its keys", {"name": name})
    return tuple(name for name in dict.fromkeys(value) if name != "id")


def _table(value: object) -> object:
    return {} if value is True else None if value is False else value


class AckSettings(Table):
    """How acknowledgements of the indexers are waited for."""

    interval: Duration = Field(1.0, gt=0, description="between two questions whether a batch is indexed")
    timeout: Duration = Field(
        300.0, gt=0, description="what is not acknowledged after this is sent again: it may be stored twice"
    )


class SplunkHecSettings(HttpSettings):
    """Events to Splunk's HTTP Event Collector."""

    type: Literal["splunk_hec"] = Field("splunk_hec", description="`splunk_hec`")
    url: Annotated[tuple[str, ...], BeforeValidator(_list), AfterValidator(_urls)] = Field(
        description="`https://HOST:8088`, or a list: batches go to them in turn, past those that do not answer"
    )
    token: Secret = Field(description="the HEC token")
    endpoint: Literal["event", "raw"] = Field(
        "event", description="`event`: with time and fields; `raw`: lines, of which Splunk itself finds the time"
    )
    index: TextOrNone = Field(None, description="a template; default: the token's own default index")
    sourcetype: str = Field("aws:rds:das", min_length=1, description="a template; the add-on knows the default")
    source: TextOrNone = Field(None, description="a template; default: what Splunk makes of the token's name")
    host: TextOrNone = Field(None, description="a template, such as `{cluster:-unknown}`; default: what Splunk puts in")
    indexed_fields: Annotated[tuple[str, ...], AfterValidator(_fields)] = Field(
        default_factory=tuple,
        description="fields of the event that are indexed as well, beside `event_id`, which always is",
    )
    ack: Annotated[AckSettings | None, BeforeValidator(_table)] = Field(
        None,
        description="`true`, or a table: delivered is only what an indexer acknowledged; raises the default of "
        f"`concurrency` to {ACK_CONCURRENCY}",
    )

    @field_validator("headers")
    @classmethod
    def _are_names(cls, given: dict[str, Secret]) -> dict[str, Secret]:
        for name in given:
            if not re.fullmatch(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+", name):
                raise PydanticCustomError("header", "{name} is no name of a header", {"name": repr(name)})
            if name.lower() in _OWN_HEADERS:
                raise PydanticCustomError("header", "the output itself sets {name}", {"name": name})
        return given

    @model_validator(mode="before")
    @classmethod
    def _more_at_once(cls, given: Any) -> Any:
        """A batch waits a second and more for its acknowledgement: others are sent meanwhile."""
        if isinstance(given, dict) and given.get("ack") not in (None, False) and "concurrency" not in given:
            return {**given, "concurrency": ACK_CONCURRENCY}
        return given

    @model_validator(mode="after")
    def _fields_need_an_envelope(self) -> SplunkHecSettings:
        if self.endpoint == "raw" and self.indexed_fields:
            raise PydanticCustomError("indexed_fields", 'indexed_fields need endpoint = "event"')
        return self
