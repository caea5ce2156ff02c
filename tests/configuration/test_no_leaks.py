"""Secrets and values of variables stand in no message and no representation."""

from __future__ import annotations

import pytest

from shipper.errors import ConfigurationError

from .conftest import BASE, Load


@pytest.mark.parametrize(
    "wrong",
    [
        "tokn = 'hunter2'",
        "token = ['hunter2']",
        "token = { value = 'hunter2' }",
        "tokens = 'hunter2'",
        "tls = { key_password = ['hunter2'] }",
        "[event]\nid_kye = 'hunter2'",
        "token = 'hunter2'\nmode = 'hunter2'",
        "token = 'file:hunter2'\nmode = 'hunter2'",
        "concurrency = '${SECRET}'",
        "mode = '${SECRET}'",
        "mode = 'x${SECRET}y'",
        "format = '${SECRET}'",
        "batch = { max_bytes = '${SECRET}' }",
        "url = '${SECRET}'\nendpoint_url = '${SECRET}'",
        "sources = ['${SECRET}']",
        "match = { category = '${SECRET}' }",
        "index = '{${SECRET}}'",
        "[sources.b]\ntype = '${SECRET}'",
        "[outputs.b]\ntype = '${SECRET}'",
        "[state]\npath = ['${SECRET}']",
    ],
)
def test_no_problem_quotes_a_secret(load: Load, wrong: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load(BASE + wrong + "\n", environ={"SECRET": "hunter2"})
    assert "hunter2" not in str(caught.value)
    assert "hunter2" not in repr(caught.value.problems)


def test_no_problem_quotes_inline_toml(monkeypatch: pytest.MonkeyPatch) -> None:
    from shipper import configuration

    for text in ("token = hunter2", "token = 'hunter2", "[hunter2\n", "token = 'x' hunter2"):
        with pytest.raises(ConfigurationError) as caught:
            configuration.load(environ={"SHIPPER_CONFIG": text})
        assert "hunter2" not in str(caught.value)


def test_the_representation_of_a_configuration_shows_no_secret(load: Load) -> None:
    text = BASE + "token = 'hunter2'\ntokens = ['hunter2']\ntls = { key_password = 'file:hunter2' }\n"
    loaded = load(text + "[event]\nid_key = 'aws-sm:hunter2#hunter2'\n")
    assert "hunter2" not in repr(loaded) + str(loaded) + repr(loaded.model_dump()) + str(loaded.outputs["siem"])
