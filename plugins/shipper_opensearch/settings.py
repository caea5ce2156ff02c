"""The keys of the OpenSearch output."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from shipper.http import EndpointUrl, HttpSettings
from shipper.secrets import Secret
from shipper.settings import AwsSettings, Table, TextOrNone

#: What a name of an index may not hold (opensearch.org, Create index, "Index naming restrictions").
_FORBIDDEN = re.compile(r'[\s,:"*+/\\|?#><]')


def _place(value: str | None) -> str | None:
    if value is None:
        return None
    literal = re.sub(r"\{[^{}]*\}", "", value)
    if _FORBIDDEN.search(literal) or literal != literal.lower() or value.startswith(("_", "-", "+", ".", "{")):
        raise PydanticCustomError(
            "index",
            "it begins with a small letter or a digit, and holds no capital letters, no spaces and "
            'none of , : " * + / \\ | ? # > <: write "audit-{{engine}}-{{time:%Y.%m.%d}}"',
        )
    return value


def _listed(value: object) -> object:
    return [value] if isinstance(value, str) else value


class AuthSettings(Table):
    """Who we are: a user with a password, an API key, or an AWS identity (SigV4). A client certificate stands in
    `tls`."""

    user: str | None = Field(None, min_length=1, description="name of a user, with `password`")
    password: Secret | None = Field(None, description="the user's password")
    api_key: Secret | None = Field(None, description="sent as `Authorization: ApiKey …`")
    aws: Literal["es", "aoss"] | None = Field(
        None, description="sign requests (SigV4): `es` for a domain, `aoss` for Serverless"
    )

    @model_validator(mode="after")
    def _one_way(self) -> AuthSettings:
        if (self.user is None) != (self.password is None):
            raise PydanticCustomError("auth", "user and password belong together")
        if sum(given is not None for given in (self.user, self.api_key, self.aws)) > 1:
            raise PydanticCustomError("auth", "keep one of user with password, api_key, aws")
        return self


class OpenSearchSettings(HttpSettings, AwsSettings):
    """Events as documents in indices or data streams of OpenSearch, by `_bulk`. Exactly one of `index` and
    `data_stream` says where. What `[aws]` takes is for `auth = { aws = … }`."""

    type: Literal["opensearch"] = Field("opensearch", description="`opensearch`")
    hosts: Annotated[tuple[EndpointUrl, ...], BeforeValidator(_listed)] = Field(
        min_length=1, description="URLs of one cluster's nodes; another one is used where one fails"
    )
    index: Annotated[str | None, AfterValidator(_place)] = Field(
        None, description="an index, an alias, or a template such as `audit-{time:%Y.%m.%d}`"
    )
    data_stream: Annotated[str | None, AfterValidator(_place)] = Field(
        None, description="a data stream instead of an index; a template too"
    )
    document_id: Literal["event", "none"] = Field(
        "event",
        description="`event`: the event's id, so that nothing is there twice; `none`: the server makes ids "
        "(Serverless time series and vector collections ask for that), and duplicates are possible",
    )
    timestamp_field: TextOrNone = Field(
        "@timestamp", description='field that gets a copy of `time`, in front of the others; `""`: none'
    )
    pipeline: TextOrNone = Field(None, description="ingest pipeline")
    routing: TextOrNone = Field(None, description="a template for the routing value")
    template: Literal["manage", "none"] = Field(
        "manage", description="`manage`: create an index template with the event's mapping where it is absent"
    )
    auth: AuthSettings = Field(default=AuthSettings(), description="who we are; default: nobody")

    @model_validator(mode="after")
    def _one_place(self) -> OpenSearchSettings:
        if (self.index is None) == (self.data_stream is None):
            raise PydanticCustomError("index", "give index or data_stream: one of them")
        if self.data_stream is not None and self.timestamp_field is None:
            raise PydanticCustomError("timestamp_field", "a data stream needs a timestamp_field")
        return self

    @property
    def place(self) -> str:
        """The template for where events go."""
        return self.index or self.data_stream or ""
