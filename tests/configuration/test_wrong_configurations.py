"""Wrong configurations, each with the very words that its author reads."""

from __future__ import annotations

from pathlib import Path

import pytest

from shipper.errors import ConfigurationError

from .conftest import BASE, Load

FIELD_HINT = "did you mean 'user'?"

IN_AN_OUTPUT = {
    'tokn = "hunter2"': "6: outputs.siem.tokn: unknown key; did you mean token?",
    "max_events = 5": "6: outputs.siem.max_events: unknown key; did you mean batch.max_events?",
    "max-targets = 5": "6: outputs.siem.max-targets: unknown key; did you mean max_targets?",
    "tls = { verfy = true }": "6: outputs.siem.tls.verfy: unknown key; did you mean verify?",
    "tls = { zzz = 1 }": "6: outputs.siem.tls.zzz: unknown key; allowed: ca_file, cert_file, key_file, key_password, "
    "fingerprint, verify, verify_hostname",
    'batch = { max_events = "many" }': '6: outputs.siem.batch.max_events: found "many", a whole number is needed',
    'batch = { max_events = "5" }': '6: outputs.siem.batch.max_events: found "5", a number is needed; '
    "write it without quotes",
    "batch = { max_events = 1.5 }": "6: outputs.siem.batch.max_events: found 1.5, a whole number is needed",
    "batch = { max_events = true }": "6: outputs.siem.batch.max_events: found true, a number is needed",
    "batch = { max_events = 0 }": "6: outputs.siem.batch.max_events: found 0, at least 1 is needed",
    'batch = { max_bytes = "8XB" }': '6: outputs.siem.batch.max_bytes: found "8XB", a size is needed; '
    'write a size such as "8MB" (10⁶ bytes) or "8MiB" (2²⁰ bytes)',
    "batch = { max_wait = 5 }": "6: outputs.siem.batch.max_wait: found 5, a duration is needed; "
    'write a duration such as "500ms", "30s", "5m", "1h" or "7d"',
    "batch = 5": "6: outputs.siem.batch: found 5, a table is needed",
    'retry = { give_up_after = "soon" }': '6: outputs.siem.retry.give_up_after: found "soon", a duration is needed; '
    'write a duration such as "500ms", "30s", "5m", "1h" or "7d", or "never"',
    'retry = { initial = "0s" }': '6: outputs.siem.retry.initial: found "0s", more than 0 is needed',
    'retry = { initial = "2m", max = "1m" }': "6: outputs.siem.retry: initial is longer than max; "
    "make max at least as long",
    'spool = "10GB"': '6: outputs.siem.spool: found "10GB", a table is needed',
    'spool = { max_byte = "1GB" }': "6: outputs.siem.spool.max_byte: unknown key; did you mean max_bytes?",
    'spool = { max_bytes = "much" }': '6: outputs.siem.spool.max_bytes: found "much", a size is needed; '
    'write a size such as "8MB" (10⁶ bytes) or "8MiB" (2²⁰ bytes)',
    "spool = { max_bytes = 0 }": "6: outputs.siem.spool.max_bytes: found 0, at least 1 is needed",
    'spool = { max_bytes = "500kB" }': "6: outputs.siem.spool.max_bytes: the spool holds 500kB, less than one batch of "
    "1MB; make spool.max_bytes at least as large as batch.max_bytes",
    'batch = { max_bytes = "20GB" }': "4: outputs.siem.spool.max_bytes: the spool holds 10GB, less than one batch of "
    "20GB; make spool.max_bytes at least as large as batch.max_bytes",
    'spool = { max_bytes = "2MB" }\nmax_event_bytes = "3MB"': "6: outputs.siem.spool.max_bytes: the spool holds 2MB, "
    "less than one event of 3MB; make spool.max_bytes at least as large as max_event_bytes",
    'spool = { when_full = "dead_letters" }': '6: outputs.siem.spool.when_full: found "dead_letters", allowed: '
    '"block", "dead_letter"; did you mean "dead_letter"?',
    'spool = { after = "0s" }': '6: outputs.siem.spool.after: found "0s", more than 0 is needed; with 0 every event '
    'would go through the disk before it is sent; the default is "30s"',
    'spool = { after = "never" }': '6: outputs.siem.spool.after: found "never", a duration is needed; '
    'write a duration such as "500ms", "30s", "5m", "1h" or "7d"',
    "spool.when_ful = 1": "6: outputs.siem.spool.when_ful: unknown key; did you mean when_full?",
    'when_full = "block"': "6: outputs.siem.when_full: unknown key; did you mean spool.when_full?",
    'max_event_bytes = "never"': '6: outputs.siem.max_event_bytes: found "never", a size is needed; '
    'write a size such as "8MB" (10⁶ bytes) or "8MiB" (2²⁰ bytes)',
    "max_event_bytes = 0": "6: outputs.siem.max_event_bytes: found 0, at least 1 is needed",
    'oversize = "cut"': '6: outputs.siem.oversize: found "cut", allowed: "dead_letter", "truncate"',
    'oversize = "truncate"\nformat = "raw"': "6: outputs.siem.oversize: only the format native has fields that can be "
    'cut, not raw; write format = "native", or oversize = "dead_letter"',
    'renamed_from = "siem"': "6: outputs.siem.renamed_from: is the output's own name; write its earlier name, "
    "or remove renamed_from",
    'renamed_from = "old one"': '6: outputs.siem.renamed_from: found "old one", a name is needed; '
    "names have letters, digits, _ and -, at most 64",
    'renamed_from = ""': '6: outputs.siem.renamed_from: found "", a name is needed; '
    "names have letters, digits, _ and -, at most 64",
    "renamed_from = ['old']": "6: outputs.siem.renamed_from: found a list, text in quotes is needed",
    "renamed_from = 'b'\n[outputs.b]\ntype = 'sink'": "6: outputs.siem.renamed_from: [outputs.b] is still there, and "
    "keeps what it owes; remove renamed_from, or [outputs.b]",
    "renamed_from = 'old'\n[outputs.b]\ntype = 'sink'\nrenamed_from = 'old'": "9: outputs.b.renamed_from: outputs.siem "
    "goes on for old already; keep one of the two: what an output owes goes to one other",
    "concurrency = 300": "6: outputs.siem.concurrency: found 300, at most 256 is needed",
    'tls = { verify = "no" }': '6: outputs.siem.tls.verify: found "no", true or false is needed; '
    "write it without quotes",
    "tls = { verify = 1 }": "6: outputs.siem.tls.verify: found 1, true or false is needed",
    "token = 5": "6: outputs.siem.token: the secret is not usable: text in quotes is needed",
    'token = ""': "6: outputs.siem.token: the secret is not usable: it must not be empty",
    'token = "aws-sm:name#"': "6: outputs.siem.token: the secret is not usable: after aws-sm: a secret's name or ARN "
    "is needed, and after # a key of its JSON",
    'token = "file:"': "6: outputs.siem.token: the secret is not usable: after file: the path of a file is needed",
    'tokens = ["fine", 5]': "6: outputs.siem.tokens[1]: the secret is not usable: text in quotes is needed",
    "ack = { intervall = 3 }": "6: outputs.siem.ack.intervall: unknown key; did you mean interval?",
    'ack = { interval = "x" }': '6: outputs.siem.ack.interval: found "x", a whole number is needed',
    'format = "natve"': '6: outputs.siem.format: found "natve", allowed: "native", "raw", "pretty"; '
    'did you mean "native"?',
    'format = { type = "raw", only = ["user"] }': "6: outputs.siem.format.only: is for the format native; "
    'write type = "native", or remove it',
    'format = { only = ["user"], except = ["time"] }': "6: outputs.siem.format: only and except exclude each other; "
    "keep one of them",
    'format = { only = ["usr"] }': f"6: outputs.siem.format.only[0]: an event has no field 'usr'; {FIELD_HINT}",
    'format = { except = ["native.pid"] }': "6: outputs.siem.format.except[0]: only whole fields can be chosen; "
    'write "native"',
    'format = "pretty"': '6: outputs.siem.format: pretty is for people who look at a console; write "native" or "raw"',
    'sources = ["order"]': '6: outputs.siem.sources[0]: [sources.order] does not exist; did you mean "orders"?',
    'sources = "orders"': '6: outputs.siem.sources: found "orders", a list is needed',
    'transforms = ["quiet"]': "6: outputs.siem.transforms[0]: [transforms.quiet] does not exist; "
    "there are no transforms",
    'sources = ["orders", "orders"]': "6: outputs.siem.sources: a name is there twice; keep one",
    "region = 5": "6: outputs.siem.region: found 5, text in quotes is needed",
    'endpoint_url = "localhost:4566"': '6: outputs.siem.endpoint_url: found "localhost:4566", a URL is needed; '
    'it begins with "https://" or "http://"',
    'endpoint_url = { kinesys = "http://localhost" }': "6: outputs.siem.endpoint_url.kinesys: unknown service; "
    "did you mean kinesis?",
    "labels = { env = 1 }": "6: outputs.siem.labels.env: found 1, text in quotes is needed",
    'match = { usr = "x" }': f"6: outputs.siem.match.usr: an event has no field 'usr'; {FIELD_HINT}",
    'match = { any = [{ user = "x" },\n { usr = "y" }] }': "7: outputs.siem.match.any[1].usr: "
    f"an event has no field 'usr'; {FIELD_HINT}",
    'index = "{cluster}-x"': "6: outputs.siem.index: the template '{cluster}-x' begins with a value, which whoever "
    "uses the database may choose; begin it with literal text",
    'header = "{clustr}"': "6: outputs.siem.header: the template '{clustr}': an event has no field 'clustr'; "
    "did you mean 'cluster'?",
    'mode = "odd"': "6: outputs.siem.mode: the mode odd is not fine",
    'url = "${HOST"': "6: outputs.siem.url: ${ begins a variable that does not end or has no proper name; "
    "write ${NAME}; $${ stands for ${",
    'token = "${TOKEN}"': "6: outputs.siem.token: the environment variable TOKEN is not set; "
    "set it, or write ${TOKEN:-default}",
}

ELSEWHERE = {
    "[sources.b]\ncluster = 'x'": '6: sources.b.type: is missing; allowed: "kinesis", "file"',
    "[sources.b]\ntype = 'kinesys'": '7: sources.b.type: found "kinesys", allowed: "kinesis", "file"; '
    'did you mean "kinesis"?',
    "[sources.b]\ntype = 5": "7: sources.b.type: text in quotes is needed",
    "[sources.b]\ntype = 'kinesis'": "6: sources.b: nothing says which stream to read; "
    "give one of cluster, instance, resource_id, stream",
    "[sources.b]\ntype = 'kinesis'\ncluster = 'a'\nstream = 'b'": "6: sources.b: cluster and stream name the stream, "
    "each in its own way; keep one of them",
    "[sources.b]\ntype = 'kinesis'\ncluster = 'orders-prod'": "6: sources.b: reads the same stream as sources.orders; "
    "remove one of them: a source feeds as many outputs as you like",
    "[sources.b]\ntype = 'kinesis'\nresource_id = 'prod'": '8: sources.b.resource_id: found "prod", a resource id is '
    'needed; it begins with "cluster-" or "db-" (DbClusterResourceId, DbiResourceId in RDS); names that people give '
    "go into cluster or instance",
    "[sources.b]\ntype = 'kinesis'\ncluster = 'b'\nstart = 2026-01-31T12:00:00": "9: sources.b.start: found "
    '2026-01-31T12:00:00, a place to begin is needed; write "earliest", "latest", or a time with its offset such as '
    "2026-01-31T12:00:00Z",
    "[sources.b]\ntype = 'kinesis'\ncluster = 'b'\ndecode = 'dass'": '9: sources.b.decode: found "dass", allowed: '
    '"auto", "das", "events"; did you mean "das"?',
    "[sources.b]\ntype = 'file'": "6: sources.b.path: is missing: a path or a glob pattern (`captured/**/*.jsonl.gz`)",
    "[sources.b]\ntype = 'file'\npath = 'x'": "6: sources.b.resource_id: is missing: KMS unwraps a captured record's "
    'key only for the cluster or instance that it came from; give resource_id = "cluster-…", or keys = { provider = '
    '"static", path = "…" }, or decode = "events" where nothing is encrypted',
    "[sources.b]\ntype = 'file'\npath = 'x'\nkeys = { provider = 'static' }": "9: sources.b.keys.path: is missing: "
    "with static keys, the file that holds them",
    "[sources.b]\ntype = 'file'\npath = 'x'\nresource_id = 'db-A'\nkeys = { path = 'k' }": "10: sources.b.keys.path: "
    'is for static keys only; write provider = "static", or remove path',
    "[sources.b]\ntype = 'file'\npath = 'x'\nkeys = 'k.json'": '9: sources.b.keys: found "k.json", a table is needed',
    "[transforms.x]\ntype = 'dorp'\nmatch = { user = 'a' }": '7: transforms.x.type: found "dorp", allowed: "keep", '
    '"drop"; did you mean "drop"?',
    "[transforms.x]\ntype = 'drop'": "6: transforms.x.match: is missing: the condition",
    "[transforms.x]\ntype = 'drop'\nmatch = { category = 'dll' }": "8: transforms.x.match.category: no category is "
    "'dll'; did you mean 'ddl'? it can be trail, authentication, audit, privilege, ddl, write, function, read, "
    "session, admin, other",
    "[outputs.b]\ntype = 'snk'": '7: outputs.b.type: no output plugin is called "snk"; did you mean "sink"? '
    "installed: console, file, opensearch, ordered_sink, sink, splunk_hec",
    "[outputs.b]\ntype = 'ordered_sink'\nconcurrency = 4": '8: outputs.b.concurrency: an output of type "ordered_sink" '
    "keeps order and sends one batch at a time; remove concurrency",
    "[outputs.'a b']\ntype = 'sink'": '6: outputs."a b": cannot be a name; names have letters, digits, _ and -, '
    "at most 64",
    "[stat]\npath = 'x'": "6: stat: unknown key; did you mean state?",
    "[zzz]": "6: zzz: unknown key; allowed: labels, aws, sources, transforms, outputs, event, dead_letters, state, "
    "server, secrets, log",
    "[aws]\nrole = 'x'": "7: aws.role: unknown key; did you mean role_arn?",
    "[server]\nlisten = ':80'": '7: server.listen: found ":80", an address with a port is needed; '
    'write "127.0.0.1:9686" or "[::1]:9686", or "" to turn it off',
    "[server]\nlisten = 'localhost:70000'": '7: server.listen: found "localhost:70000", an address with a port is '
    'needed; write "127.0.0.1:9686" or "[::1]:9686", or "" to turn it off',
    "[log]\nlevel = 'INFO'": '7: log.level: found "INFO", allowed: "debug", "info", "warning", "error"; '
    'did you mean "info"?',
    "[event]\nid_key = 5": "7: event.id_key: the secret is not usable: text in quotes is needed",
    "[state]\npath = 5": "7: state.path: found 5, a path in quotes is needed",
    "[dead_letters]\nmax_bytes = '0B'": '7: dead_letters.max_bytes: found "0B", at least 1 is needed',
    "[dead_letters]\nmax_age = '0s'": '7: dead_letters.max_age: found "0s", more than 0 is needed',
    "[dead_letters]\nmax_age = 'nevr'": '7: dead_letters.max_age: found "nevr", a duration is needed; '
    'write a duration such as "500ms", "30s", "5m", "1h" or "7d", or "never"',
    "[dead_letters]\noutput = 'sim'": '7: dead_letters.output: [outputs.sim] does not exist; did you mean "siem"?',
    "[dead_letters]\noutput = 'kafka'": '7: dead_letters.output: [outputs.kafka] does not exist; there are "siem"',
    "[dead_letters]\noutput = ['siem']": "7: dead_letters.output: found a list, text in quotes is needed",
    "[dead_letters]\nstorm = 1": "7: dead_letters.storm: found 1, at least 2 is needed",
    "[dead_letters]\nstorm = '100'": '7: dead_letters.storm: found "100", a number is needed; write it without quotes',
    "[dead_letters]\nstorm = 'never'": '7: dead_letters.storm: found "never", a whole number is needed',
    "[state]\nreserve = '5%'": '7: state.reserve: found "5%", a size is needed; '
    'write a size such as "8MB" (10⁶ bytes) or "8MiB" (2²⁰ bytes)',
}

#: The middle is tomllib's own words, which change from one Python to the next.
ALONE = {
    "a = b": ("1: not TOML: ", '; text needs quotes: key = "value"'),
    "a = 1\na = 2\n": ("2: not TOML: ", "; the key is there twice: keep one"),
    "[outputs.a]\n[outputs.a]\n": ("2: not TOML: ", "; the table is there twice: join the two"),
    "a\n": ("1: not TOML: ", "; a line is [table] or key = value"),
    'a = "x" y\n': ("1: not TOML: ", "; one key = value per line; text needs quotes"),
}


def _problems(load: Load, folder: Path, text: str) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        load(text)
    return [str(problem).replace(f"{folder / '1.toml'}:", "") for problem in caught.value.problems]


@pytest.mark.parametrize(("wrong", "told"), [*IN_AN_OUTPUT.items(), *ELSEWHERE.items()])
def test_one_mistake_is_told_once_where_it_stands_with_what_to_write(
    load: Load, tmp_path: Path, wrong: str, told: str
) -> None:
    assert _problems(load, tmp_path, BASE + wrong + "\n") == [told]


def test_a_value_from_a_variable_is_told_by_the_variable_s_name(load: Load) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load(BASE + "concurrency = '${N}'\nbatch = { max_bytes = '${N}${M:-x}' }\n", environ={"N": "abc"})
    assert [problem.message for problem in caught.value.problems] == [
        "found the value of ${N}, a whole number is needed",
        "found the value of ${N} and ${M}, a size is needed",
    ]


@pytest.mark.parametrize(("wrong", "told"), ALONE.items())
def test_a_file_that_is_not_toml_is_told_with_its_line(
    load: Load, tmp_path: Path, wrong: str, told: tuple[str, str]
) -> None:
    (problem,) = _problems(load, tmp_path, wrong)
    assert problem.startswith(told[0])
    assert problem.endswith(told[1])


def test_everything_that_is_wrong_is_told_at_once_in_the_order_of_the_file(load: Load, tmp_path: Path) -> None:
    text = "[sources.a]\ntype='file'\n[outputs.b]\ntype='sink'\nmach=1\n[log]\nlevel='loud'\n[state]\ntype='dynamodb'\n"
    assert [problem.split(":")[1].strip() for problem in _problems(load, tmp_path, text)] == [
        "sources.a.path",
        "outputs.b.mach",
        "log.level",
        "state.type",
    ]


def test_an_unknown_output_for_dead_letters_is_told_beside_other_mistakes_in_plain_tables(
    load: Load, tmp_path: Path
) -> None:
    text = BASE + "[dead_letters]\nstorm = 0\noutput = 'archive'\n[log]\nlevel = 'loud'\n"
    assert [problem.split(":")[1].strip() for problem in _problems(load, tmp_path, text)] == [
        "dead_letters.storm",
        "dead_letters.output",
        "log.level",
    ]


def test_a_configuration_without_source_and_output_lacks_both(load: Load, tmp_path: Path) -> None:
    assert _problems(load, tmp_path, "labels = {}\n") == [
        ' sources: there is no source; add [sources.NAME] with type = "kinesis" or "file"',
        ' outputs: there is no output; add [outputs.NAME] with type = "file", for example',
    ]


def test_a_source_without_a_name_is_told_that_it_needs_one(load: Load, tmp_path: Path) -> None:
    assert _problems(load, tmp_path, "[sources]\ntype = 'kinesis'\n[outputs.a]\ntype = 'sink'\n") == [
        "2: sources.type: a table is needed; give the table a name of your choice: [sources.NAME]"
    ]


def test_a_mistake_in_aws_is_told_once_however_many_inherit_it(load: Load, tmp_path: Path) -> None:
    assert _problems(load, tmp_path, BASE + "[aws]\nregion = 5\n") == [
        "7: aws.region: found 5, text in quotes is needed"
    ]


def test_a_problem_names_the_file_that_it_stands_in(load: Load, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load(BASE, "[outputs.siem]\nbatch = { max_events = 0 }\n")
    (problem,) = caught.value.problems
    assert (problem.file, problem.line) == (str(tmp_path / "2.toml"), 2)


def test_many_problems_are_counted_and_listed_line_by_line(load: Load) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load("[outputs.a]\ntype = 'sink'\nx = 1\n")
    first, *rest = str(caught.value).splitlines()
    assert first == "the configuration has 2 problems:"
    assert len(rest) == 2
    assert caught.value.exit_code == 78
