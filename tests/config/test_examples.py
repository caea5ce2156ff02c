"""Every ready-made configuration is valid, and together they show every key."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from shipper.configuration import load
from shipper.configuration.advice import advice
from shipper.settings import (
    AwsSettings,
    BatchSettings,
    Configuration,
    DeadLetterSettings,
    FileSourceSettings,
    KinesisSettings,
    LogSettings,
    OutputSettings,
    RetrySettings,
    SecretsSettings,
    ServerSettings,
    SpoolSettings,
    StateSettings,
)

FOLDER = Path(__file__).parents[2] / "config"
EXAMPLES = sorted(path.name for path in FOLDER.glob("*.toml"))
ENVIRONMENT = {"CLUSTER": "orders-prod", "RESOURCE_ID": "cluster-ABC", "SPLUNK_HEC_TOKEN": "t"}


def test_there_are_examples() -> None:
    assert set(EXAMPLES) >= {"demo.toml", "file-backfill.toml", "kinesis-to-file.toml", "shipper.toml", "sidecar.toml"}


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_is_valid_and_not_surprising(name: str) -> None:
    configuration = load([FOLDER / name], environ=ENVIRONMENT)
    assert configuration.sources
    assert configuration.outputs
    # A checkout below /tmp makes its state folder a passing one too.
    assert [str(problem) for problem in advice(configuration) if problem.key != "state.path"] == []


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_begins_with_what_it_is_for(name: str) -> None:
    assert re.match(r"# [A-Z`]", (FOLDER / name).read_text())


def test_every_key_stands_in_the_annotated_example() -> None:
    text = (FOLDER / "shipper.toml").read_text()
    given: dict[str, Any] = tomllib.loads(text)
    tables: list[tuple[type[BaseModel], dict[str, Any]]] = [
        (Configuration, given | {"event": {}}),
        (AwsSettings, given["aws"]),
        (KinesisSettings, given["sources"]["orders"] | given["aws"]),
        (FileSourceSettings, given["sources"]["offline"] | given["sources"]["orders"]),
        (OutputSettings, given["outputs"]["archive"]),
        (BatchSettings, given["outputs"]["archive"]["batch"]),
        (RetrySettings, given["outputs"]["archive"]["retry"]),
        (SpoolSettings, given["outputs"]["archive"]["spool"]),
        (DeadLetterSettings, given["dead_letters"]),
        (StateSettings, given["state"]),
        (ServerSettings, given["server"]),
        (SecretsSettings, given["secrets"] | given["aws"]),
        (LogSettings, given["log"]),
    ]
    for table, shown in tables:
        for key in table.model_fields:
            assert key in shown or re.search(rf"# .*\b{key} = ", text), f"{table.__name__}.{key}"


def test_what_the_annotated_example_gives_as_default_is_the_default() -> None:
    loaded = load([FOLDER / "shipper.toml"], environ={})
    archive, orders = loaded.outputs["archive"], loaded.sources["orders"]
    plain = Configuration(outputs={"x": OutputSettings(type="file")})
    assert archive.batch == plain.outputs["x"].batch
    assert archive.retry == plain.outputs["x"].retry
    assert archive.spool == plain.outputs["x"].spool
    assert archive.oversize == plain.outputs["x"].oversize
    assert isinstance(orders, KinesisSettings)
    assert orders.keys.model_copy(update={"region": None}) == KinesisSettings().keys
    assert orders.poll_interval == KinesisSettings().poll_interval
    assert loaded.dead_letters == plain.dead_letters
    assert loaded.server == plain.server
    assert loaded.secrets.refresh == plain.secrets.refresh
    assert loaded.log == plain.log
