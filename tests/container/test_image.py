"""The image that the Dockerfile builds: who it runs as, what it prints, how it ships and how it stops."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import docker
import msgspec
import pytest
from testcontainers.core.container import DockerContainer

from servers.process import free_port
from shipper import __version__
from shipper.event import Event
from support.environments import REPOSITORY
from support.requirements import require, require_docker
from support.waiting import until

# One worker, so that the image is built once.
pytestmark = [pytest.mark.docker, pytest.mark.xdist_group("image")]

DOCKERFILE = (REPOSITORY / "Dockerfile").read_text()
USER = 10001
EVENTS = [
    Event(schema_version=1, id=f"{number:032x}", time="2026-01-02T03:04:05.000000Z", user="app", action="select")
    for number in range(500)
]
CONFIGURATION = """
[sources.captured]
type = "file"
path = "/input/*.jsonl"
decode = "events"
follow = true

[outputs.archive]
type = "file"
path = "/output/events.jsonl"

[state]
path = "/var/lib/shipper/shipper.db"
"""
"""``follow``: it goes on until it is told to stop."""


@pytest.fixture(scope="module")
def image() -> Iterator[str]:
    """The image, built as the README says; layers that Docker has kept are not built again."""
    require_docker()
    (base,) = re.findall(r"^ARG BASE=(.*)$", DOCKERFILE, re.MULTILINE)
    there = any(_docker(*how, base).returncode == 0 for how in (("image", "inspect"), ("pull",)))
    require("docker", there, f"the base image {base} is neither there nor can it be pulled")
    tag = f"shipper-test:{os.getpid()}"
    arguments = [word for setting in _pip_settings() for word in ("--build-arg", setting)]
    built = _docker("build", "--network", "host", "--quiet", "--tag", tag, *arguments, str(REPOSITORY))
    assert built.returncode == 0, built.stdout + built.stderr
    yield tag
    _docker("rmi", "--force", tag)


def _docker(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The command line, with the classic builder: the Dockerfile must not need more."""
    return subprocess.run(
        ["docker", *arguments],
        env=os.environ | {"DOCKER_BUILDKIT": "0"},
        check=False,
        capture_output=True,
        text=True,
        timeout=600,
    )


def _pip_settings() -> list[str]:
    """How this machine's pip finds packages, as the Dockerfile's build arguments."""
    listed = subprocess.run([sys.executable, "-m", "pip", "config", "list"], check=True, capture_output=True, text=True)
    found = re.findall(r"^\S+\.([\w-]+)='(.*)'$", listed.stdout, re.MULTILINE)
    arguments = re.findall(r"^ARG PIP_(\w+)$", DOCKERFILE, re.MULTILINE)
    values = {name.upper().replace("-", "_"): value for name, value in found}
    return [f"PIP_{name}={values[name]}" for name in arguments if name in values]


@pytest.fixture
def client() -> Iterator[Any]:
    client = docker.from_env()
    yield client
    client.close()


def _run(image: str, command: list[str], **options: Any) -> tuple[int, str, str]:
    """Runs a command of the image to its end: exit code, stdout, stderr."""
    with DockerContainer(image).with_command(command).with_kwargs(network_mode="host", **options) as container:
        code = container.get_wrapped_container().wait(timeout=120)["StatusCode"]
        out, err = container.get_logs()
    return code, out.decode(), err.decode()


def _python(image: str, script: str) -> str:
    """What a script prints in the image's Python."""
    code, out, err = _run(image, ["-c", script], entrypoint=["python"])
    assert code == 0, err
    return out


def test_the_image_prints_its_version(image: str) -> None:
    assert _run(image, ["--version"]) == (0, f"shipper, version {__version__}\n", "")


def test_it_runs_as_an_unprivileged_user_that_can_write_its_state_alone(image: str) -> None:
    script = (
        "import os; d = '/var/lib/shipper'; s = os.stat(d)\n"
        "print(os.getuid(), os.getgid(), s.st_uid, oct(s.st_mode & 0o777))\n"
        "print(os.access(d, os.W_OK), os.access('/opt/shipper', os.W_OK), os.access('/etc', os.W_OK))"
    )
    assert _python(image, script).split() == [f"{USER}", f"{USER}", f"{USER}", "0o700", "True", "False", "False"]


def test_orchestrators_that_insist_on_a_number_see_that_it_is_not_root(image: str, client: Any) -> None:
    assert client.images.get(image).attrs["Config"]["User"] == f"{USER}:{USER}"


def test_the_image_holds_neither_installer_nor_tools_for_development(image: str) -> None:
    script = "import importlib.util as u; print([m for m in ('pip', 'hatchling', 'pytest', 'moto') if u.find_spec(m)])"
    assert _python(image, script).strip() == "[]"


def test_nothing_of_pips_settings_is_left_in_the_image(image: str, client: Any) -> None:
    steps = [step["CreatedBy"] for step in client.images.get(image).history()]
    environment = client.images.get(image).attrs["Config"]["Env"]
    for setting in _pip_settings():
        name, _, value = setting.partition("=")
        # As a word: a short value, like a number of seconds, may stand in the hash of what was copied.
        word = re.compile(rf"(?<!\w){re.escape(value)}(?!\w)")
        assert not [step for step in (*steps, *environment) if name in step or word.search(step)]


def test_the_demo_does_the_whole_job_in_a_container(image: str) -> None:
    code, out, err = _run(image, ["demo", "--events", "500"])
    assert code == 0, err
    assert "500" in out


def test_it_ships_what_is_mounted_and_sigterm_stops_it(image: str, client: Any, tmp_path: Path) -> None:
    given, wanted, configuration = tmp_path / "input", tmp_path / "output", tmp_path / "shipper.toml"
    given.mkdir()
    wanted.mkdir()
    wanted.chmod(0o777)  # the container's user is nobody here
    (given / "events.jsonl").write_bytes(b"".join(msgspec.json.encode(event) + b"\n" for event in EVENTS))
    configuration.write_text(CONFIGURATION)
    container = (
        DockerContainer(image)
        .with_volume_mapping(str(configuration), "/etc/shipper/shipper.toml", "ro")
        .with_volume_mapping(str(given), "/input", "ro")
        .with_volume_mapping(str(wanted), "/output", "rw")
        .with_env("SHIPPER_LISTEN", f"127.0.0.1:{free_port()}")
        .with_kwargs(network_mode="host")
    )
    with container:
        wrapped = container.get_wrapped_container()
        _wait_for(lambda: len(_lines(wanted)) >= len(EVENTS), container)
        healthy = wrapped.exec_run(client.images.get(image).attrs["Config"]["Healthcheck"]["Test"][1:])
        wrapped.kill("SIGTERM")
        code = wrapped.wait(timeout=60)["StatusCode"]
        _out, err = container.get_logs()
    assert code == 0, err.decode()
    assert healthy.exit_code == 0, healthy.output
    assert [msgspec.json.decode(line)["id"] for line in _lines(wanted)] == [event.id for event in EVENTS]


def _lines(folder: Path) -> list[bytes]:
    return [line for file in sorted(folder.iterdir()) for line in file.read_bytes().splitlines()]


def _wait_for(condition: Callable[[], object], container: DockerContainer, seconds: float = 60) -> None:
    """Until the condition holds; a container that ended fails at once, with its words."""
    wrapped = container.get_wrapped_container()

    def words() -> str:
        return b"".join(container.get_logs()).decode()

    def holds() -> bool:
        wrapped.reload()
        assert wrapped.status != "exited", words()
        return bool(condition())

    until(holds, words, seconds)
