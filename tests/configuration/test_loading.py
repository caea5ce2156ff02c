"""Files become a configuration: found, merged, variables replaced, AWS keys inherited, paths resolved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from shipper import configuration
from shipper.errors import ConfigurationError
from shipper.settings import Configuration, FileSourceSettings, KeysSettings, KinesisSettings

from .conftest import BASE, Load


def _sink(loaded: Configuration, name: str = "siem") -> Any:
    return loaded.outputs[name]


def _kinesis(loaded: Configuration, name: str = "orders") -> KinesisSettings:
    source = loaded.sources[name]
    assert isinstance(source, KinesisSettings)
    return source


# Which files


def test_a_path_in_shipper_config_is_read_where_no_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "a=b.toml").write_text(BASE)
    assert "siem" in configuration.load(environ={"SHIPPER_CONFIG": str(tmp_path / "a=b.toml")}).outputs


def test_toml_in_shipper_config_is_read_beside_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    loaded = configuration.load(environ={"SHIPPER_CONFIG": BASE})
    assert loaded.state.path == tmp_path / "state" / "shipper.db"


def test_a_named_file_hides_shipper_config(tmp_path: Path) -> None:
    (tmp_path / "named.toml").write_text(BASE)
    loaded = configuration.load([tmp_path / "named.toml"], environ={"SHIPPER_CONFIG": "nonsense = "})
    assert list(loaded.sources) == ["orders"]


def test_without_any_the_file_in_etc_is_asked_for() -> None:
    with pytest.raises(ConfigurationError, match=r"^/etc/shipper/shipper\.toml: cannot be read: .*SHIPPER_CONFIG"):
        configuration.load(environ={})


def test_every_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    (tmp_path / "latin").write_bytes(b'a = "\xe9"')
    with pytest.raises(ConfigurationError) as caught:
        configuration.load([tmp_path / "none", tmp_path / "latin", tmp_path], environ={})
    assert [str(problem).removeprefix(str(tmp_path)) for problem in caught.value.problems] == [
        "/none: cannot be read: No such file or directory; check the path and its permissions",
        "/latin: byte 5 is not UTF-8; save the file as UTF-8",
        ": is a folder; name the files in it, one by one",
    ]


def test_a_byte_order_mark_and_windows_line_ends_are_read(tmp_path: Path) -> None:
    (tmp_path / "dos.toml").write_bytes(b"\xef\xbb\xbf" + BASE.replace("\n", "\r\n").encode())
    assert list(configuration.load([tmp_path / "dos.toml"], environ={}).outputs) == ["siem"]


# Merging


def test_later_files_add_keys_and_override_them(load: Load) -> None:
    loaded = load(
        BASE + "batch = { max_events = 5, max_wait = '9s' }\nhosts = ['a', 'b']\n",
        "[outputs.siem]\nbatch = { max_events = 7 }\nhosts = ['c']\n[outputs.other]\ntype = 'sink'\n",
    )
    assert (_sink(loaded).batch.max_events, _sink(loaded).batch.max_wait) == (7, 9.0)
    assert _sink(loaded).hosts == ("c",)
    assert list(loaded.outputs) == ["siem", "other"]


def test_a_table_replaces_a_single_value_and_the_other_way_round(load: Load) -> None:
    loaded = load(
        BASE + "format = 'raw'\nack = { interval = 3 }\n",
        "[outputs.siem]\nformat = { only = ['user'] }\nack = true\n",
    )
    assert _sink(loaded).format.only == ("user",)
    assert _sink(loaded).ack is True


def test_transforms_keep_the_place_of_their_first_appearance(load: Load) -> None:
    rule = "type = 'drop'\nmatch = {{ user = '{}' }}\n"
    loaded = load(
        BASE + "[transforms.b]\n" + rule.format(1) + "[transforms.a]\n" + rule.format(2),
        "[transforms.c]\n" + rule.format(3) + "[transforms.b]\n" + rule.format(4),
    )
    assert [(name, rule.match["user"]) for name, rule in loaded.transforms.items()] == [
        ("b", "4"),
        ("a", "2"),
        ("c", "3"),
    ]


# Variables


def test_variables_are_replaced_in_texts_once(load: Load) -> None:
    loaded = load(
        BASE + "labels = { a = '${A}', b = 'x-${B:-y}-$${A}', c = '${E:-full}', d = '${A} ${B:-}' }\n",
        environ={"A": "${B} $${C}", "E": ""},
    )
    assert _sink(loaded).labels == {"a": "${B} $${C}", "b": "x-y-${A}", "c": "full", "d": "${B} $${C} "}


def test_variables_are_not_replaced_in_keys(load: Load) -> None:
    assert _sink(load(BASE + "labels = { '${A}' = '1' }\n", environ={"A": "x"})).labels == {"${A}": "1"}


def test_a_value_that_is_one_variable_may_be_a_number_or_a_boolean(load: Load) -> None:
    loaded = load(
        BASE + "concurrency = '${N}'\nratio = '${R:-0.5}'\ntls = { verify = '${V}' }\n",
        environ={"N": "4", "V": "false"},
    )
    assert (_sink(loaded).concurrency, _sink(loaded).ratio, _sink(loaded).tls.verify) == (4, 0.5, False)


def test_a_value_that_is_more_than_one_variable_stays_a_text(load: Load) -> None:
    with pytest.raises(ConfigurationError, match="a number is needed"):
        load(BASE + "concurrency = '1${N}'\n", environ={"N": "4"})


def test_an_unset_variable_is_one_problem_and_hides_what_follows_from_it(load: Load) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load(BASE.replace('"orders-prod"', '"${CLUSTER}"'))
    (problem,) = caught.value.problems
    assert (problem.key, problem.line) == ("sources.orders.cluster", 3)


def test_where_the_server_listens_comes_from_the_environment_unless_a_file_says(load: Load) -> None:
    environ = {"SHIPPER_LISTEN": "0.0.0.0:9686"}
    assert load(BASE, environ=environ).server.address == ("0.0.0.0", 9686)
    assert load(BASE + "[server]\nlisten = ''\n", environ=environ).server.address is None
    with pytest.raises(ConfigurationError, match=r"^\$SHIPPER_LISTEN: server\.listen: found \"x\""):
        load(BASE, environ={"SHIPPER_LISTEN": "x"})


# [aws]


def test_aws_keys_are_inherited_one_by_one(load: Load) -> None:
    loaded = load(
        BASE
        + "region = 'us-east-1'\n"
        + "[aws]\nregion = 'eu-west-1'\nrole_arn = 'arn:aws:iam::1:role/a'\n"
        + "[secrets]\nrole_arn = 'arn:aws:iam::1:role/b'\n"
    )
    assert (_kinesis(loaded).region, _kinesis(loaded).role_arn) == ("eu-west-1", "arn:aws:iam::1:role/a")
    assert (_sink(loaded).region, _sink(loaded).role_arn) == ("us-east-1", "arn:aws:iam::1:role/a")
    assert (loaded.secrets.region, loaded.secrets.role_arn) == ("eu-west-1", "arn:aws:iam::1:role/b")


def test_keys_inherit_from_their_source_first(load: Load) -> None:
    loaded = load(
        "[aws]\nregion = 'a'\nprofile = 'p'\nrole_arn = 'r'\n"
        "[sources.orders]\ntype = 'kinesis'\ncluster = 'c'\nregion = 'b'\nkeys = { role_arn = 'k' }\n"
        "[sources.files]\ntype = 'file'\npath = 'x'\nresource_id = 'db-A'\n"
        "[outputs.siem]\ntype = 'sink'\n"
    )
    keys = _kinesis(loaded).keys
    assert (keys.region, keys.profile, keys.role_arn) == ("b", "p", "k")
    files = loaded.sources["files"]
    assert isinstance(files, FileSourceSettings)
    assert (files.keys.region, files.keys.profile, files.keys.role_arn) == ("a", "p", "r")


def test_an_output_without_aws_keys_inherits_none(load: Load) -> None:
    loaded = load(BASE + "[aws]\nregion = 'a'\n[outputs.plain]\ntype = 'ordered_sink'\n")
    assert not hasattr(loaded.outputs["plain"], "region")


def test_empty_text_undoes_what_would_be_inherited(load: Load) -> None:
    loaded = load(BASE + "role_arn = '${NONE:-}'\n[aws]\nrole_arn = 'r'\n")
    assert (_sink(loaded).role_arn, _kinesis(loaded).role_arn) == (None, "r")


def test_tables_of_endpoints_are_inherited_service_by_service(load: Load) -> None:
    loaded = load(
        BASE
        + "endpoint_url = { kms = 'http://own' }\n"
        + "[aws]\nendpoint_url = { kms = 'http://kms', rds = 'http://rds' }\n"
    )
    assert _sink(loaded).endpoint_url == {"kms": "http://own", "rds": "http://rds"}
    assert _kinesis(loaded).keys.endpoint_url == {"kms": "http://kms", "rds": "http://rds"}


def test_one_endpoint_for_all_replaces_an_inherited_table(load: Load) -> None:
    loaded = load(BASE + "endpoint_url = 'http://all'\n[aws]\nendpoint_url = { kms = 'http://kms' }\n")
    assert _sink(loaded).endpoint_url == "http://all"


# Paths


def test_relative_paths_are_relative_to_the_first_file_whichever_says_them(tmp_path: Path) -> None:
    first, second = tmp_path / "first[1] {x}", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    (first / "a.toml").write_text(BASE)
    (second / "b.toml").write_text(
        "[outputs.siem]\npath = 'out/{cluster}.jsonl'\ntls = { ca_file = 'ca.pem' }\n"
        "[sources.files]\ntype = 'file'\npath = 'in/*.jsonl'\nkeys = { provider = 'static', path = 'keys.json' }\n"
    )
    loaded = configuration.load([first / "a.toml", second / "b.toml"], environ={})
    source = loaded.sources["files"]
    assert isinstance(source, FileSourceSettings)
    assert loaded.state.path == first / "state" / "shipper.db"
    assert source.keys.path == first / "keys.json"
    assert source.path == f"{tmp_path}/first[[]1] {{x}}/in/*.jsonl"
    assert _sink(loaded).tls.ca_file == first / "ca.pem"
    assert _sink(loaded).path == f"{tmp_path}/first[1] {{{{x}}}}/out/{{cluster}}.jsonl"


def test_absolute_paths_stay_as_they_are(load: Load) -> None:
    loaded = load(BASE + "path = '/out/{cluster}'\n[state]\npath = '/state.db'\n")
    assert (_sink(loaded).path, loaded.state.path) == ("/out/{cluster}", Path("/state.db"))


# The rest


def test_a_small_configuration_has_the_documented_defaults(load: Load) -> None:
    loaded = load(BASE)
    assert loaded.sources["orders"].start == "earliest"
    assert _kinesis(loaded).keys == KeysSettings()
    assert _sink(loaded).sources is None
    assert loaded.server.drain_timeout == 20.0


@pytest.mark.parametrize("start", ["2026-01-31T12:00:00Z", "'2026-01-31T13:00:00+01:00'"])
def test_a_start_may_be_a_time_as_toml_or_as_text(load: Load, start: str) -> None:
    begin = load(BASE.replace("[outputs", f"start = {start}\n[outputs")).sources["orders"].start
    assert not isinstance(begin, str)
    assert begin.timestamp() == 1769860800


def test_a_size_that_may_be_absent_is_still_a_size(load: Load) -> None:
    assert _sink(load(BASE + "limit = '8MB'\n")).limit == 8_000_000


def test_what_an_output_keeps_on_disk_and_how_large_an_event_may_be(load: Load) -> None:
    siem = _sink(
        load(
            BASE + "spool = { max_bytes = '2GiB', when_full = 'dead_letter', after = '1m30s' }\n"
            "max_event_bytes = '1MB'\noversize = 'truncate'\nrenamed_from = 'splunk'\n"
        )
    )
    assert (siem.spool.max_bytes, siem.spool.when_full, siem.spool.after) == (2 * 1024**3, "dead_letter", 90.0)
    assert (siem.max_event_bytes, siem.oversize, siem.renamed_from) == (1_000_000, "truncate", "splunk")


def test_what_becomes_of_dead_letters_and_of_a_full_disk(load: Load) -> None:
    loaded = load(
        BASE + "[dead_letters]\nmax_age = '90d'\noutput = 'siem'\nstorm = 10\n[state]\nreserve = '1GB'\n",
    )
    letters = loaded.dead_letters
    assert (letters.max_age, letters.output, letters.storm) == (90 * 86400.0, "siem", 10)
    assert loaded.state.reserve == 1_000_000_000


def test_a_variable_may_leave_out_the_output_for_dead_letters(load: Load) -> None:
    assert load(BASE + "[dead_letters]\noutput = '${LETTERS:-}'\n").dead_letters.output is None


def test_several_outputs_may_have_new_names(load: Load) -> None:
    loaded = load(BASE + "renamed_from = 'archive'\n[outputs.old]\ntype = 'sink'\nrenamed_from = 'older'\n")
    assert [output.renamed_from for output in loaded.outputs.values()] == ["archive", "older"]


def test_a_spool_as_large_as_one_batch_is_enough(load: Load) -> None:
    assert _sink(load(BASE + "spool = { max_bytes = '1MB' }\nmax_event_bytes = '1MB'\n")).spool.max_bytes == 1_000_000


def test_spooling_may_begin_later_than_stopping_may_take(load: Load) -> None:
    assert _sink(load(BASE + "spool = { after = '1h' }\n[server]\ndrain_timeout = '20s'\n")).spool.after == 3600.0


def test_nothing_of_a_loaded_configuration_can_be_changed(load: Load) -> None:
    with pytest.raises(ValueError, match="frozen"):
        load(BASE).server.listen = ""  # type: ignore[misc]  # mypy knows it too
