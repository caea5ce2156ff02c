"""The page docs/writing-an-output.md, done as it says: its plugin packed, installed and run by the real command."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import msgspec
import pytest

from shipper.event import Event
from support.environments import REPOSITORY, Environment

PAGE = (REPOSITORY / "docs" / "writing-an-output.md").read_text()
SHORT, FULL, CONTRACT, NASTY, HEC = re.findall(r"^```python\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
PROJECT, CONFIGURATION = re.findall(r"^```toml\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)

EVENTS = [
    Event(schema_version=1, id=f"{number:032x}", time="2026-01-02T03:04:05.000000Z", user="app", action="select")
    for number in range(250)
]

#: The smallest output that can be imported.
PLAIN = """
from shipper.hookspecs import hookimpl
from shipper.output import Batch, Output, OutputSettings, Report

class Plain(Output[OutputSettings]):
    requires = {requires!r}
    def send(self, batch: Batch) -> Report:
        return Report()

@hookimpl
def shipper_output() -> type[Plain]:
    return Plain
"""


class Endpoint(ThreadingHTTPServer):
    """Takes posts and remembers their lines; answers the first posts with ``refusals``, then with 200."""

    def __init__(self, *refusals: int) -> None:
        super().__init__(("127.0.0.1", 0), _Post)
        self.refusals = list(refusals)
        self.lines: list[bytes] = []
        self.lock = threading.Lock()


class _Post(BaseHTTPRequestHandler):
    server: Endpoint

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        with self.server.lock:
            status = self.server.refusals.pop(0) if self.server.refusals else 200
            if status == 200:
                self.server.lines += body.split(b"\n")
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Keeps the test's output quiet."""


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    with Endpoint() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """The page's package, and neighbours that a configuration does not name, all installed by pip."""
    folder = tmp_path_factory.mktemp("plugins")
    environment = Environment(folder / "venv", REPOSITORY, REPOSITORY / "plugins")
    environment.install(
        _project(folder, "webhook", SHORT, project=PROJECT),
        _project(folder, "broken", "raise RuntimeError('imported although nobody named it')"),
        _project(folder, "needy", PLAIN.format(requires=("no_such_client",))),
        _project(folder, "hookless", '"""Nothing here."""'),
        _project(folder, "twin", PLAIN.format(requires=()), package="shipper-twin-one"),
        _project(folder, "twin", PLAIN.format(requires=()), package="shipper-twin-two"),
    )
    return environment


def _project(folder: Path, output: str, module: str, *, package: str = "", project: str = "") -> Path:
    """A folder as the page lays it out: one module and the page's pyproject.toml, under the name of ``output``."""
    package = package or f"shipper-{output}"
    file = package.replace("-", "_")
    text = project or PROJECT.replace("shipper-webhook", package).replace("shipper_webhook", file)
    if not project:
        text = text.replace("webhook = ", f"{output} = ")
    root = folder / package
    root.mkdir()
    (root / f"{file}.py").write_text(module)
    (root / "pyproject.toml").write_text(text)
    return root


def _configure(folder: Path, output: str = "webhook", port: int = 9, more: str = "") -> Path:
    """The page's configuration, with what it reads beside it."""
    lines = b"".join(msgspec.json.encode(event) + b"\n" for event in EVENTS)
    (folder / "events.jsonl").write_bytes(lines)
    text = CONFIGURATION.replace("127.0.0.1:8080", f"127.0.0.1:{port}").replace('"webhook"', f'"{output}"')
    if output != "webhook":
        text = re.sub(r"^url = .*\n", "", text, flags=re.MULTILINE)
    file = folder / "shipper.toml"
    file.write_text(text + more + '\n[server]\nlisten = ""\n')
    return file


@pytest.mark.parametrize("module", [SHORT, FULL], ids=["in a few lines", "saying what happened"])
def test_the_pages_output_ships_every_event(
    environment: Environment, endpoint: Endpoint, module: str, tmp_path: Path
) -> None:
    (environment.site_packages / "shipper_webhook.py").write_text(module)
    file = _configure(tmp_path, port=endpoint.server_port)
    done = environment.run("python", "-m", "shipper", "run", "--once", file, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    shipped = [msgspec.json.decode(line)["id"] for line in endpoint.lines]
    assert sorted(shipped) == sorted(event.id for event in EVENTS)


@pytest.mark.parametrize("refusal", [429, 500], ids=["throttled", "unknown"])
def test_what_the_endpoint_did_not_take_is_sent_again(
    environment: Environment, endpoint: Endpoint, refusal: int, tmp_path: Path
) -> None:
    (environment.site_packages / "shipper_webhook.py").write_text(FULL)
    endpoint.refusals = [refusal, refusal]
    file = _configure(tmp_path, port=endpoint.server_port, more='retry = { initial = "10ms", max = "20ms" }\n')
    done = environment.run("python", "-m", "shipper", "run", "--once", file, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert {msgspec.json.decode(line)["id"] for line in endpoint.lines} == {event.id for event in EVENTS}


def test_what_the_endpoint_refuses_for_good_becomes_dead_letters(
    environment: Environment, endpoint: Endpoint, tmp_path: Path
) -> None:
    (environment.site_packages / "shipper_webhook.py").write_text(FULL)
    endpoint.refusals = [422]
    file = _configure(tmp_path, port=endpoint.server_port, more="concurrency = 1\n")
    (tmp_path / "events.jsonl").write_bytes(b"".join(msgspec.json.encode(event) + b"\n" for event in EVENTS[:20]))
    done = environment.run("python", "-m", "shipper", "run", "--once", "--strict", file, cwd=tmp_path)
    assert (done.returncode, endpoint.lines) == (3, []), done.stderr


def test_the_pages_output_passes_the_contract(environment: Environment, tmp_path: Path) -> None:
    (environment.site_packages / "shipper_webhook.py").write_text(FULL)
    said = _pytest(environment, tmp_path, CONTRACT)
    assert "not supported by this destination: partial: one post has one answer" in said
    passed = re.search(r"(\d+) passed", said)
    assert passed is not None
    assert int(passed[1]) > 60


def test_the_contract_finds_what_the_pages_first_output_leaves_out(environment: Environment, tmp_path: Path) -> None:
    (environment.site_packages / "shipper_webhook.py").write_text(SHORT)
    said = _pytest(environment, tmp_path, CONTRACT, code=1)
    assert "test_a_refused_batch_is_reported_so_and_is_taken_afterwards[throttled]" in said
    assert "the key url has no description" in said


def test_the_pages_nasty_output_and_source_do_as_it_says(environment: Environment, tmp_path: Path) -> None:
    assert "3 passed" in _pytest(environment, tmp_path, NASTY)


def test_the_pages_collector_does_as_it_says(environment: Environment, tmp_path: Path) -> None:
    assert "2 passed" in _pytest(environment, tmp_path, HEC)


def _pytest(environment: Environment, folder: Path, tests: str, code: int = 0) -> str:
    """What pytest says of the page's tests, run beside its plugin."""
    (folder / "test_shipper_webhook.py").write_text(tests)
    done = environment.run("python", "-m", "pytest", "-rsf", "-W", "error", folder, cwd=folder, timeout=180)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("module", "tests"),
    [(SHORT, ""), (FULL, CONTRACT), (FULL, NASTY), (FULL, HEC)],
    ids=["in a few lines", "saying what happened", "misbehaving", "against a collector"],
)
def test_a_strict_type_checker_accepts_the_pages_code(module: str, tests: str, tmp_path: Path) -> None:
    (tmp_path / "shipper_webhook.py").write_text(module)
    (tmp_path / "test_shipper_webhook.py").write_text(tests)
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file", str(REPOSITORY / "pyproject.toml")]
    checked = [*command, *map(str, tmp_path.iterdir())]
    done = subprocess.run(checked, check=False, cwd=REPOSITORY, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout


def test_the_page_calls_its_first_output_short_and_it_is() -> None:
    body = [line for line in SHORT.splitlines() if line and not line.startswith(('"""', "from ", "import "))]
    assert len(body) <= 11


def test_an_unknown_type_names_what_is_installed_and_the_nearest(environment: Environment, tmp_path: Path) -> None:
    message = _refused(environment, _configure(tmp_path, "webhok"))
    assert 'no output plugin is called "webhok"' in message
    assert 'did you mean "webhook"?' in message
    assert re.search("broken, console, file, hookless, needy, ([a-z_]+, )*twin, webhook", message)


def test_two_packages_with_one_name_are_both_named(environment: Environment, tmp_path: Path) -> None:
    message = _refused(environment, _configure(tmp_path, "twin"))
    assert "shipper-twin-one (shipper_twin_one) and shipper-twin-two (shipper_twin_two)" in message


def test_a_missing_extra_is_a_warning_of_check_and_stops_run(environment: Environment, tmp_path: Path) -> None:
    file = _configure(tmp_path, "needy")
    for command, code in (("check", 0), ("run", 78)):
        done = environment.run("python", "-m", "shipper", command, file, cwd=tmp_path)
        assert done.returncode == code, done.stderr
        assert 'the output type "needy" needs no_such_client' in done.stdout + done.stderr
        assert "pip install 'shipper-needy[needy]'" in done.stdout + done.stderr


def test_a_plugin_that_cannot_be_imported_matters_only_where_it_is_named(
    environment: Environment, tmp_path: Path
) -> None:
    message = _refused(environment, _configure(tmp_path, "broken"))
    assert 'the output plugin "broken" of shipper-broken cannot be imported' in message


def test_a_module_without_the_hook_is_named(environment: Environment, tmp_path: Path) -> None:
    message = _refused(environment, _configure(tmp_path, "hookless"))
    assert "shipper_hookless of shipper-hookless has no hook shipper_output" in message


def _refused(environment: Environment, file: Path) -> str:
    """What ``shipper check`` says of a configuration that is wrong."""
    done = environment.run("python", "-m", "shipper", "check", file, cwd=file.parent)
    assert done.returncode == 78, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr
