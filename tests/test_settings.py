"""Settings by themselves, as a plugin or a test makes them in code."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from shipper.settings import (
    AwsSettings,
    Configuration,
    DeadLetterSettings,
    FormatSettings,
    KinesisSettings,
    OutputSettings,
    ServerSettings,
    SpoolSettings,
    StateSettings,
)


@pytest.mark.parametrize(
    ("listen", "address"),
    [
        ("127.0.0.1:9686", ("127.0.0.1", 9686)),
        ("0.0.0.0:0", ("0.0.0.0", 0)),
        ("[::1]:65535", ("::1", 65535)),
        ("localhost:80", ("localhost", 80)),
        ("", None),
    ],
)
def test_where_to_listen_is_a_host_and_a_port(listen: str, address: tuple[str, int] | None) -> None:
    assert ServerSettings(listen=listen).address == address


@pytest.mark.parametrize("listen", [":80", "80", "host", "host:", "host:65536", "::1:80", "http://host:80", "host:80/"])
def test_what_is_no_address_with_a_port_is_refused(listen: str) -> None:
    with pytest.raises(ValidationError):
        ServerSettings(listen=listen)


def test_a_format_may_be_its_name_alone() -> None:
    assert FormatSettings.model_validate("raw") == FormatSettings(type="raw")
    assert OutputSettings.model_validate({"type": "x", "format": "raw"}).format.type == "raw"


def test_settings_made_in_code_keep_relative_paths() -> None:
    assert Configuration().state.path == Path("state/shipper.db")


def test_empty_text_is_no_aws_setting() -> None:
    assert AwsSettings(region="", role_arn="", endpoint_url="") == AwsSettings()


@pytest.mark.parametrize("resource_id", ["orders-prod", "cluster-", "db-", "CLUSTER-ABC", "cluster-a b"])
def test_a_name_is_no_resource_id(resource_id: str) -> None:
    with pytest.raises(ValidationError):
        KinesisSettings(resource_id=resource_id)


@pytest.mark.parametrize("start", ["yesterday", "2026-01-31", "2026-01-31T12:00:00", 1769860800, True])
def test_a_start_without_an_offset_is_refused(start: object) -> None:
    with pytest.raises(ValidationError):
        KinesisSettings.model_validate({"stream": "x", "start": start})


def test_what_nobody_sets_about_the_spool_and_dead_letters_is_as_documented() -> None:
    output = OutputSettings(type="x")
    spool = output.spool
    assert (spool.max_bytes, spool.when_full, spool.after) == (10_000_000_000, "block", 30.0)
    assert (output.max_event_bytes, output.oversize, output.renamed_from) == (None, "dead_letter", None)
    letters = DeadLetterSettings()
    assert (letters.max_bytes, letters.max_age, letters.output, letters.storm) == (5_000_000_000, None, None, 100)
    assert StateSettings().reserve is None


@pytest.mark.parametrize("after", ["0s", "0ms"])
def test_spooling_at_once_is_refused(after: str) -> None:
    with pytest.raises(ValidationError, match="before it is sent"):
        SpoolSettings.model_validate({"after": after})


def test_a_reserve_may_be_nothing() -> None:
    assert StateSettings.model_validate({"reserve": 0}).reserve == 0


@pytest.mark.parametrize("name", ["", "a b", "-a", "ä", "a" * 65, "a.b"])
def test_no_output_can_have_had_such_a_name(name: str) -> None:
    with pytest.raises(ValidationError):
        OutputSettings(type="x", renamed_from=name)
