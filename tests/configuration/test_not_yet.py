"""What the plan has and this version lacks is refused by name."""

from __future__ import annotations

import pytest

from shipper import __version__
from shipper.configuration import not_yet
from shipper.errors import ConfigurationError

from .conftest import BASE, Load

LACKING = f"not in this version ({__version__})"


@pytest.mark.parametrize("pattern", not_yet.KEYS)
def test_a_key_of_the_plan_is_not_called_unknown(load: Load, pattern: str) -> None:
    key = pattern.replace("sources.*", "sources.orders").replace("outputs.*", "outputs.siem")
    with pytest.raises(ConfigurationError) as caught:
        load(BASE, f"{key} = 'x'\n")
    assert [(problem.key, problem.message) for problem in caught.value.problems] == [(key, LACKING)]


@pytest.mark.parametrize(
    ("table", "key", "found"),
    [
        ("[sources.b]\ntype = 's3'\nbucket = 'x'", "sources.b.type", '"s3" is '),
        ("[sources.b]\ntype = 'cloudwatch_logs'", "sources.b.type", '"cloudwatch_logs" is '),
        ("[sources.orders]\ndecode = 'engine_log'", "sources.orders.decode", '"engine_log" is '),
        ("[sources.orders]\nengine = 'mysql'", "sources.orders.engine", '"mysql" is '),
        ("[sources.b]\ntype = 'kinesis'\nstream = 'a*'", "sources.b.stream", '"a*" is '),
        ("[sources.b]\ntype = 'kinesis'\nstream = ['a']", "sources.b.stream", "a list is "),
        ("[transforms.b]\ntype = 'redact'\nfields = []", "transforms.b.type", '"redact" is '),
        ("[outputs.b]\ntype = 'kafka'\ntopic = 'x'", "outputs.b.type", '"kafka" is '),
        ("[outputs.siem]\nformat = 'ecs'", "outputs.siem.format", '"ecs" is '),
        ("[outputs.siem]\nformat = { type = 'ocsf', version = '1.1.0' }", "outputs.siem.format.type", '"ocsf" is '),
    ],
)
def test_a_value_of_the_plan_is_one_problem(load: Load, table: str, key: str, found: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load(BASE, table + "\n")
    assert [(problem.key, problem.message) for problem in caught.value.problems] == [(key, found + LACKING)]
