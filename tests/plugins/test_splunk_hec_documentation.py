"""The page about Splunk HEC and its example say what the output does."""

from __future__ import annotations

import re
import tomllib
from typing import Any

import pytest

from shipper.configuration import load
from shipper.http import HttpSettings
from shipper.settings import OutputSettings, TlsSettings
from shipper.testing.splunk_hec_rules import TEXTS
from shipper_splunk_hec.answers import BUSY, ENDED_AT_EVENT, HELD, WRONG_INDEX
from shipper_splunk_hec.nodes import REST
from shipper_splunk_hec.settings import AckSettings, SplunkHecSettings
from support.environments import REPOSITORY

PAGE = (REPOSITORY / "docs" / "outputs" / "splunk-hec.md").read_text()
EXAMPLE = REPOSITORY / "config" / "splunk-hec.toml"
SOURCES = "\n".join(
    path.read_text()
    for path in [
        *(REPOSITORY / "plugins" / "shipper_splunk_hec").glob("*.py"),
        REPOSITORY / "shipper" / "connections.py",
    ]
)


def _first_cells(heading: str) -> list[str]:
    section = f"\n{PAGE}".partition(f"\n{heading}\n")[2].partition("\n## ")[0]
    return [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]


def test_the_page_tells_every_key_of_the_output() -> None:
    own = SplunkHecSettings.model_fields.keys() - HttpSettings.model_fields.keys()
    told = {key for cell in _first_cells("# Splunk HEC") for key in re.findall(r"`(\w+)`", cell)}
    assert told == own


def test_the_troubleshooting_table_has_every_code_that_a_request_for_events_can_end_with() -> None:
    told = {int(code) for cell in _first_cells("## Troubleshooting") for code in re.findall(r"`code (\d+)`", cell)}
    silent = {5, 21, 22}  # an empty request, and what only the health endpoint says
    assert told == ({*HELD, *BUSY, *ENDED_AT_EVENT, WRONG_INDEX} & TEXTS.keys()) - silent


def test_the_messages_of_the_troubleshooting_table_are_messages_of_the_program() -> None:
    messages = [text for cell in _first_cells("## Troubleshooting") for text in re.findall(r"`([^`]+)`", cell)]
    theirs = re.compile(r"(code|HTTP) \d+")
    assert [text for text in messages if not theirs.fullmatch(text) and text not in SOURCES] == []


def test_numbers_are_those_of_the_program() -> None:
    assert REST == 10
    assert "asked last for 10 s" in PAGE
    assert AckSettings().timeout == 300
    assert 'interval = "1s", timeout = "5m"' in PAGE


def test_the_example_shows_every_key_and_the_defaults() -> None:
    text = EXAMPLE.read_text()
    given: dict[str, Any] = tomllib.loads(text)["outputs"]["splunk"]
    for key in SplunkHecSettings.model_fields.keys() - OutputSettings.model_fields.keys():
        assert key in given or re.search(rf"^# {key} = ", text, re.MULTILINE), key
    for key in TlsSettings.model_fields:
        assert re.search(rf"^# tls = .*\b{key} = ", text, re.MULTILINE), key
    loaded = load([EXAMPLE], environ={"CLUSTER": "orders", "SPLUNK_HEC_TOKEN": "t"}).outputs["splunk"]
    plain = SplunkHecSettings.model_validate({"url": "https://a", "token": "t", "ack": True})
    for key in ("endpoint", "sourcetype", "ack", "concurrency", "compression", "timeout", "batch", "retry", "spool"):
        assert getattr(loaded, key) == getattr(plain, key), key


@pytest.mark.parametrize("line", [line for line in EXAMPLE.read_text().splitlines() if re.match(r"# \w+ = ", line)])
def test_what_is_commented_out_in_the_example_is_valid(line: str) -> None:
    given = {"url": "https://a", "token": "t", **tomllib.loads(line.removeprefix("# "))}
    if "…" in line:
        given["tls"]["fingerprint"] = "AB:" * 31 + "CD"
    SplunkHecSettings.model_validate(given)
