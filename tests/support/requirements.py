"""What a test needs of the machine: asked for by name, skipped with a reason, a failure where nothing may be skipped.

``SHIPPER_TEST_REQUIRE=all`` (continuous integration) turns every skip into a failure;
``SHIPPER_TEST_REQUIRE=docker,npm`` does so for these names alone.
"""

from __future__ import annotations

import os
import shutil
from functools import cache

import pytest


def required(name: str) -> bool:
    """Whether a test that needs ``name`` must not be skipped on this machine."""
    wanted = {word.strip() for word in os.environ.get("SHIPPER_TEST_REQUIRE", "").split(",")}
    return bool(wanted & {"all", name})


def require(name: str, available: bool, reason: str) -> None:
    """Goes on where ``available``; else skips the test, or fails it where ``name`` is required, with the reason."""
    if available:
        return
    if required(name):
        pytest.fail(f"{name} is required by SHIPPER_TEST_REQUIRE, but {reason}", pytrace=False)
    pytest.skip(f"{name}: {reason}")


def require_program(name: str) -> str:
    """The path of a program on the PATH."""
    found = shutil.which(name)
    require(name, found is not None, f"no program {name!r} is on the PATH")
    assert found is not None
    return found


def require_docker() -> None:
    """A Docker engine that answers."""
    fault = docker_fault()
    require("docker", fault is None, f"the Docker engine does not answer ({fault})")


@cache
def docker_fault() -> str | None:
    """Why no Docker engine can be used; ``None`` where one answers."""
    import docker  # half a second that only the tests with containers should pay
    from docker.errors import DockerException

    try:
        client = docker.from_env(timeout=10)
    except DockerException as error:
        return str(error)
    try:
        client.ping()
    except DockerException as error:
        return str(error)
    finally:
        client.close()
    return None
