"""README and manual say what this version does: commands, codes, reasons, fields, permissions, examples, numbers."""

from __future__ import annotations

import ast
import json
import re
import shlex
import tomllib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, get_type_hints

import boto3
import click
import pytest

from shipper import hookspecs
from shipper.cli import COMMANDS, cli
from shipper.configuration import load
from shipper.decode import Reason
from shipper.decode.das.native_fields import MAX_DEPTH, MAX_KEYS
from shipper.decode.das.record import MAX_EVENTS
from shipper.decode.decoder import MAX_RECORD_BYTES
from shipper.engine.holds import LAST_TRY
from shipper.engine.lane import QUEUE_BYTES
from shipper.engine.source_line import LISTING_INTERVAL
from shipper.engine.threads import STALL
from shipper.errors import HELD_REASONS
from shipper.event import CATEGORIES, FIELDS, OUTCOMES, Event
from shipper.observe.metrics import EVENT_REASONS
from shipper.sources.kinesis_shard import PATIENCE
from support.environments import REPOSITORY

DOCS = REPOSITORY / "docs"
PAGES = [REPOSITORY / "README.md", *sorted(DOCS.rglob("*.md"))]
SOURCES = "\n".join(path.read_text() for path in sorted((REPOSITORY / "shipper").rglob("*.py")))
MODULES = [path for folder in ("shipper", "plugins") for path in sorted((REPOSITORY / folder).rglob("*.py"))]


def _page(name: str) -> str:
    return (DOCS / name).read_text()


def _section(page: str, heading: str) -> str:
    """What stands under a heading, up to the next of the same level or a higher one."""
    level = heading.split(" ", 1)[0]
    _, found, rest = f"\n{page}".partition(f"\n{heading}\n")
    assert found, f"there is no heading {heading!r}"
    return re.split(rf"^#{{1,{len(level)}}} ", _without_code(rest), maxsplit=1, flags=re.MULTILINE)[0]


def _without_code(text: str) -> str:
    return re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)


def _rows(text: str) -> list[list[str]]:
    """The cells of every table's rows, without headings."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    rules = [number for number, line in enumerate(lines) if re.fullmatch(r"[|-]+", line)]
    body = [line for number, line in enumerate(lines) if number not in rules and number + 1 not in rules]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in body]


def _first_words(text: str) -> list[str]:
    """What the tables list: the backticked word that a row begins with."""
    return [match[1] for row in _rows(text) if (match := re.fullmatch(r"`([^`]+)`", row[0]))]


def _blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE)


# -- commands ----------------------------------------------------------------------------------------------------------


def _commands(group: click.Group = cli, before: str = "shipper") -> Iterator[tuple[str, click.Command]]:
    with click.Context(group, info_name=before) as context:
        for name in group.list_commands(context):
            command = group.get_command(context, name)
            assert command is not None
            yield f"{before} {name}", command
            if isinstance(command, click.Group):
                yield from _commands(command, f"{before} {name}")


ALL = dict(_commands())


def _parse(line: str) -> None:
    """Parses a command line as the program does, and runs nothing. Raises click's errors."""
    words = shlex.split(line, comments=True)
    assert words[0] == "shipper"
    command: click.Command = cli
    name, words = words[0], words[1:]
    while isinstance(command, click.Group) and words:
        with click.Context(command, info_name=name) as context:
            found = command.get_command(context, words[0])
        assert found is not None, f"there is no command {words[0]!r}"
        command, name, words = found, f"{name} {words[0]}", words[1:]
    with command.make_context(name, words):
        pass


def _shipper_lines(text: str) -> list[str]:
    """Command lines of shipper, continuation lines joined, pipes taken apart."""
    joined = re.sub(r"\s*\\\n\s*", " ", text)
    parts = [part.strip().removeprefix("$ ") for line in joined.splitlines() for part in line.split(" | ")]
    return [part for part in parts if part.startswith("shipper ")]


@pytest.fixture
def beside_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder with the captured records that examples name."""
    for name in ("captured.jsonl", "records.jsonl", "letters.jsonl"):
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)


def test_the_page_of_commands_lists_those_that_there_are() -> None:
    listed = re.findall(r"^\| \[`shipper ([a-z-]+)`\]", _page("commands.md"), re.MULTILINE)
    assert listed == list(COMMANDS)


def test_every_command_has_a_section_and_every_section_a_command() -> None:
    headings = re.findall(r"^###? `(shipper [a-z -]+)`$", _page("commands.md"), re.MULTILINE)
    assert sorted(headings) == sorted(ALL)


@pytest.mark.parametrize("name", [name for name, command in ALL.items() if not isinstance(command, click.Group)])
def test_the_options_of_a_command_are_documented_and_there(name: str) -> None:
    level = "###" if name.count(" ") == 2 else "##"
    section = _section(_page("commands.md"), f"{level} `{name}`")
    documented = {option for row in _rows(section) for option in re.findall(r"`(--?[a-z-]+)`", row[0])}
    options = [parameter for parameter in ALL[name].params if isinstance(parameter, click.Option)]
    assert documented == {spelling for option in options for spelling in option.opts}


@pytest.mark.parametrize("name", ["shipper", *ALL])
@pytest.mark.usefixtures("beside_records")
def test_the_help_of_a_command_shows_an_example_that_parses(name: str) -> None:
    command = cli if name == "shipper" else ALL[name]
    with click.Context(command, info_name=name) as context:
        _, found, rest = command.get_help(context).partition("Example:\n")
    assert found, f"{name} --help has no example"
    lines = _shipper_lines(rest.split("\n\n")[0])
    assert lines[0].startswith(name)
    for line in lines:
        _parse(line)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(REPOSITORY).as_posix())
@pytest.mark.usefixtures("beside_records")
def test_the_command_lines_of_a_page_parse(page: Path) -> None:
    for block in [*_blocks(page, "sh"), *_blocks(page, "console")]:
        for line in _shipper_lines(block):
            _parse(line)


def _named_commands(path: Path) -> Iterator[str]:
    """The command lines that the messages of a module name, with any value where they fill one in."""
    for node in ast.walk(ast.parse(path.read_text())):
        parts = node.values if isinstance(node, ast.JoinedStr) else [node]
        text = "".join(str(part.value) if isinstance(part, ast.Constant) else "1" for part in parts)
        yield from re.findall(r"`(shipper [^`]+)`", " ".join(text.split()))


def test_what_messages_tell_people_to_run_exists() -> None:
    lines = {line for path in MODULES for line in _named_commands(path)}
    assert len(lines) > 10
    for line in sorted(lines):
        # The values are made up; an option or a command that does not exist raises another error.
        with suppress(click.MissingParameter, click.BadParameter, click.exceptions.NoArgsIsHelpError):
            _parse(line)


def test_the_exit_codes_are_those_of_the_program() -> None:
    assigned = re.findall(r"\bexit_code\b[^=\n]*= (\d+)$|^EXIT_\w+ = (\d+)$", SOURCES, re.MULTILINE)
    called = re.findall(r"\b(?:sys\.exit|os\._exit)\((\d+)\)", SOURCES)
    given = {int(code) for pair in assigned for code in pair if code} | {int(code) for code in called}
    documented = [int(row[0]) for row in _rows(_section(_page("commands.md"), "## Exit codes"))]
    assert documented == sorted({0, click.UsageError.exit_code, *given})


# -- events ------------------------------------------------------------------------------------------------------------


def _type(hint: Any) -> str:
    text = str(hint)
    for found, word in (("list[", "list of texts"), ("dict[", "table of texts"), ("bool", "boolean")):
        if found in text:
            return word
    return "number" if hint is int or "int |" in text else "text"


def test_every_field_of_the_event_is_documented_in_its_order_and_with_its_type() -> None:
    rows = _rows(_section(_page("events.md"), "## Fields"))
    hints = get_type_hints(Event)
    assert [(row[0].strip("`"), row[1]) for row in rows] == [
        (name, _type(hints[attribute])) for name, attribute in FIELDS.items()
    ]


def test_every_category_is_documented() -> None:
    assert _first_words(_section(_page("events.md"), "## Categories")) == list(CATEGORIES)


def test_every_outcome_has_a_column() -> None:
    heading = _section(_page("events.md"), "## Outcomes").strip().splitlines()[0]
    assert re.findall(r"`(\w+)`", heading) == list(OUTCOMES)


def test_the_examples_of_events_are_events() -> None:
    event, raw = map(json.loads, _blocks(DOCS / "events.md", "json"))
    assert [name for name in FIELDS if name in event] == list(event)
    assert len(event["id"]) == 32
    assert list(raw)[-1] == "databaseActivityEventList"


# -- delivery ----------------------------------------------------------------------------------------------------------


def test_every_reason_of_a_held_component_is_documented() -> None:
    words = _first_words(_section(_page("delivery.md"), "## Held components"))
    assert sorted(words) == sorted(HELD_REASONS)


@pytest.mark.parametrize(
    ("page", "heading"),
    [
        ("outputs/file.md", "## When it cannot write"),
        ("outputs/opensearch.md", "## When it is held"),
        ("sources/file.md", "## When it is held"),
    ],
)
def test_what_a_page_says_that_it_is_held_as_is_a_reason(page: str, heading: str) -> None:
    words = _first_words(_section(_page(page), heading))
    assert words
    assert set(words) <= HELD_REASONS


def test_the_page_of_metrics_lists_the_same_reasons() -> None:
    (line,) = re.findall(r"^\*\*reason\*\* of `held`: (.+)$", _page("metrics.md"), re.MULTILINE)
    assert set(re.findall(r"`([a-z_]+)`", line)) == HELD_REASONS


def test_every_reason_of_a_dead_letter_is_documented() -> None:
    page = _page("delivery.md")
    assert _first_words(_section(page, "### Records")) == [str(reason) for reason in Reason]
    assert sorted(_first_words(_section(page, "### Events"))) == sorted(EVENT_REASONS)


def test_every_hook_is_documented_and_every_documented_hook_exists() -> None:
    owners = [owner for name, owner in vars(hookspecs).items() if name.endswith("Hooks")]
    hooks = {name for owner in owners for name in vars(owner) if not name.startswith("_")}
    assert set(re.findall(r"^@hookimpl\ndef (\w+)\(", _page("writing-an-output.md"), re.MULTILINE)) == hooks


@pytest.mark.parametrize(
    ("page", "words", "value"),
    [
        ("delivery.md", "8 MiB", QUEUE_BYTES == 8 * 2**20),
        ("delivery.md", "at last every 15 to 30 s", LAST_TRY == 30),
        (
            "delivery.md",
            "more than 128 MiB, or has more than 100 000 events",
            (MAX_RECORD_BYTES, MAX_EVENTS) == (128 << 20, 100_000),
        ),
        ("delivery.md", "deeper than 200", MAX_DEPTH == 200),
        ("events.md", "100 characters and 200 of them", MAX_KEYS == 200),
        ("operations.md", "stood still for 60 s", STALL == 60),
        ("sources/kinesis.md", "found every 30 s", LISTING_INTERVAL == 30),
        ("sources/kinesis.md", "after 20 s of nothing else", PATIENCE == 20),
    ],
)
def test_numbers_are_those_of_the_program(page: str, words: str, value: bool) -> None:
    assert words in _page(page)
    assert value


# -- Kinesis -----------------------------------------------------------------------------------------------------------

#: What the code calls, by hand: kinesis.py (`_describe`, `_list_shards`, `_try_reading`), kinesis_shard.py and
#: kinesis_replies.py (`get_records`), kinesis_names.py (`_cluster`, `_instance`), decode/das/kms.py (`_request`).
CALLED = {
    "kinesis:DescribeStreamSummary",
    "kinesis:GetRecords",
    "kinesis:GetShardIterator",
    "kinesis:ListShards",
    "kms:Decrypt",
    "rds:DescribeDBClusters",
    "rds:DescribeDBInstances",
}


def _policy() -> dict[str, Any]:
    (text,) = _blocks(DOCS / "sources" / "kinesis.md", "json")
    policy: dict[str, Any] = json.loads(text)
    return policy


def _actions(statement: dict[str, Any]) -> list[str]:
    action = statement["Action"]
    return [action] if isinstance(action, str) else action


def test_the_policy_permits_exactly_what_is_called() -> None:
    permitted = [action for statement in _policy()["Statement"] for action in _actions(statement)]
    assert sorted(permitted) == sorted(CALLED)
    assert set(_first_words(_section(_page("sources/kinesis.md"), "## Permissions"))) == CALLED


@pytest.mark.parametrize(
    ("service", "pattern"),
    [("kinesis", "sources/kinesis*.py"), ("rds", "sources/kinesis*.py"), ("kms", "decode/das/kms.py")],
)
def test_the_list_of_calls_is_what_the_code_says(service: str, pattern: str) -> None:
    code = "\n".join(path.read_text() for path in (REPOSITORY / "shipper").glob(pattern))
    client = boto3.client(service, region_name="eu-west-1")  # type: ignore[call-overload]  # knows only literal names
    operations = client.meta.method_to_api_mapping.items()
    found = {f"{service}:{name}" for method, name in operations if re.search(rf'"{method}"|\.{method}\(', code)}
    client.close()
    assert found == {action for action in CALLED if action.startswith(f"{service}:")}


def test_the_policy_grants_no_more_than_one_stream_and_one_key() -> None:
    for statement in _policy()["Statement"]:
        assert statement["Effect"] == "Allow"
        # RDS's describe calls name no resource where the identifier is only being looked for.
        assert (statement["Resource"] == "*") == _actions(statement)[0].startswith("rds:")
        if "kms:Decrypt" in _actions(statement):
            (context,) = statement["Condition"]["StringEquals"]
            assert context == "kms:EncryptionContext:aws:rds:dbc-id"


#: Messages of AWS, or made of its words: not in our own source.
_NOT_OURS = {" is creating", "Could not connect to the endpoint URL"}


def test_the_messages_of_the_troubleshooting_table_are_messages_of_the_program() -> None:
    rows = _rows(_section(_page("sources/kinesis.md"), "## Troubleshooting"))
    pieces = {piece for row in rows for message in re.findall(r"`([^`]+)`", row[0]) for piece in message.split("…")}
    missing = {piece for piece in pieces - _NOT_OURS if piece.strip(" )") not in SOURCES}
    assert missing == set()


def test_the_messages_of_gaps_are_messages_of_the_program() -> None:
    rows = _rows(_section(_page("delivery.md"), "## Gaps"))
    pieces = {piece.strip() for row in rows for found in re.findall(r"`([^`]+)`", row[0]) for piece in found.split("…")}
    plain = re.sub(r'"\s*\n\s*f?"', "", SOURCES)
    assert {piece for piece in pieces if piece.removesuffix(": what arrived between") not in plain} == set()


# -- operations --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fact", ["10001", "/var/lib/shipper", "0.0.0.0:9686", "/etc/shipper/shipper.toml"])
def test_facts_about_the_image_are_those_of_the_dockerfile(fact: str) -> None:
    assert fact in (REPOSITORY / "Dockerfile").read_text()
    assert fact in _section(_page("operations.md"), "## As a container")


def test_metrics_that_the_manual_names_exist() -> None:
    known = set(re.findall(r"`(shipper_\w+)", _page("metrics.md")))
    for page in PAGES:
        named = set(re.findall(r"\bshipper_[a-z]+_\w+|\bshipper_held\b", _without_code(page.read_text())))
        assert {name for name in named - known if name not in ("shipper_webhook", "shipper_output")} == set(), page


def test_measured_numbers_are_near_the_baseline() -> None:
    measured = json.loads((REPOSITORY / "benchmarks" / "baseline.json").read_text())["rows"]
    rows = _rows(_section(_page("operations.md"), "## Sizing"))
    assert {row[0] for row in rows} == set(measured)
    for name, microseconds, megabytes in rows:
        assert float(microseconds) == pytest.approx(measured[name]["us_per_event"], rel=0.3)
        assert float(megabytes) == pytest.approx(measured[name]["rss_mb"], rel=0.3)


# -- every page --------------------------------------------------------------------------------------------------------


def _anchors(page: Path) -> set[str]:
    """As GitHub makes them of headings."""
    headings = re.findall(r"^#+ (.+)$", _without_code(page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(REPOSITORY).as_posix())
def test_the_links_of_a_page_lead_to_a_page_and_a_heading(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)\s]+)\)", _without_code(page.read_text())):
        path, _, anchor = target.partition("#")
        to = (page.parent / path).resolve() if path else page
        assert to.exists(), target
        if anchor:
            assert anchor in _anchors(to), target


#: What an example that shows only one side is completed with.
_A_SOURCE = '\n[sources.completing]\ntype = "file"\npath = "completing.jsonl"\ndecode = "events"\n'
_AN_OUTPUT = '\n[outputs.completing]\ntype = "console"\n'

#: The page's plugin is not installed here: tests/test_writing_an_output.py packs it and runs its configuration.
_TESTED_ELSEWHERE = "docs/writing-an-output.md"

TOML = [
    pytest.param(block, id=f"{page.relative_to(REPOSITORY).as_posix()}-{number}")
    for page in PAGES
    if page != REPOSITORY / _TESTED_ELSEWHERE
    for number, block in enumerate(_blocks(page, "toml"), 1)
]


@pytest.mark.parametrize("block", TOML)
def test_an_example_of_a_configuration_is_valid(block: str, tmp_path: Path) -> None:
    given = tomllib.loads(block)
    text = block + _A_SOURCE * ("sources" not in given) + _AN_OUTPUT * ("outputs" not in given)
    path = tmp_path / "shipper.toml"
    path.write_text(text)
    assert load([path], environ={}).outputs
