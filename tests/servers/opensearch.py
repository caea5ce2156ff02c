"""A real OpenSearch: at an address that the environment gives, in a container, or from its jars.

``SHIPPER_TEST_OPENSEARCH=host:port`` names one that runs; ``SHIPPER_TEST_SERVERS=docker|jars`` forces one way. One
that we start has small limits on purpose, and can be killed and started again with what it has stored.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

import msgspec

from servers.process import free_port
from support.requirements import docker_fault, require
from support.waiting import until

VERSION = "2.19.1"
IMAGE = f"opensearchproject/opensearch:{VERSION}"
#: What the smaller instances of Amazon OpenSearch Service take in one request.
MAX_CONTENT = 10 * 1024 * 1024
#: One request with more bytes of documents is answered with 429.
PRESSURE = 9_600_000
SETTINGS = {
    "discovery.type": "single-node",
    "node.store.allow_mmap": "false",
    "cluster.routing.allocation.disk.threshold_enabled": "false",
    "http.max_content_length": f"{MAX_CONTENT}b",
    "indexing_pressure.memory.limit": f"{PRESSURE}b",
}

_HEAP = "-Xms512m -Xmx512m"
_START_SECONDS = 120.0
_CACHE = Path(__file__).parents[2] / ".cache" / "opensearch"
_JARS = (
    f"org.opensearch:opensearch:{VERSION}",
    f"org.opensearch.plugin:transport-netty4-client:{VERSION}",
    f"org.opensearch:opensearch-plugin-classloader:{VERSION}",
    "org.apache.logging.log4j:log4j-core:2.21.0",
)
#: The processors of ingest pipelines, and what they need beside the jars above.
_PROCESSORS = (
    f"org.opensearch.plugin:ingest-common:{VERSION}",
    f"org.opensearch:opensearch-grok:{VERSION}",
    f"org.opensearch:opensearch-dissect:{VERSION}",
    "org.jruby.joni:joni:2.2.1",
    "org.jruby.jcodings:jcodings:1.0.58",
)
_DESCRIPTOR = f"""name={{name}}
description={{name}}
version={VERSION}
opensearch.version={VERSION}
java.version=11
classname={{plugin}}
custom.foldername=
extended.plugins=
has.native.controller=false
"""
_POLICY = """grant {
  permission java.net.SocketPermission "*", "accept,connect,resolve,listen";
  permission java.lang.RuntimePermission "accessDeclaredMembers";
  permission java.lang.RuntimePermission "accessClassInPackage.*";
  permission java.lang.reflect.ReflectPermission "suppressAccessChecks";
  permission java.util.PropertyPermission "*", "read,write";
};
"""
_LOG4J = """status = error
appender.console.type = Console
appender.console.name = console
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = [%d{ISO8601}][%-5p][%-25c{1.}] %m%n
rootLogger.level = info
rootLogger.appenderRef.console.ref = console
"""
#: It refuses to run as root.
_NOBODY = 65_534


class Server(Protocol):
    """A server that runs. ``kill`` ends it as a power cut would; ``start`` starts it again with what it has."""

    url: str

    def start(self) -> None: ...

    def kill(self) -> None: ...

    def stop(self) -> None: ...

    def log(self) -> str: ...


class External:
    """One that somebody else started."""

    def __init__(self, address: str) -> None:
        self.url = f"http://{address}"

    def start(self) -> None:
        """It runs."""

    def kill(self) -> None:
        require("opensearch-restart", False, "a server that SHIPPER_TEST_OPENSEARCH names is not ours to kill")

    def stop(self) -> None:
        """Others may need it."""

    def log(self) -> str:
        return f"see the log of {self.url}"


class Container:
    """One in Docker."""

    def __init__(self) -> None:
        from testcontainers.core.container import DockerContainer

        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        container = DockerContainer(IMAGE).with_bind_ports(9200, port)
        for name, value in {
            **SETTINGS,
            "DISABLE_SECURITY_PLUGIN": "true",
            "DISABLE_INSTALL_DEMO_CONFIG": "true",
            "OPENSEARCH_JAVA_OPTS": _HEAP,
        }.items():
            container = container.with_env(name, value)
        self._container: Any = container
        self._made = False

    def start(self) -> None:
        if self._made:
            self._container.get_wrapped_container().start()
        else:
            self._container.start()
            self._made = True
        wait_for(self.url, self)

    def kill(self) -> None:
        wrapped = self._container.get_wrapped_container()
        wrapped.kill()
        wrapped.wait()

    def stop(self) -> None:
        if self._made:
            self._container.stop()

    def log(self) -> str:
        out, error = self._container.get_logs()
        return str((out + error).decode(errors="replace"))


class Process:
    """One from the jars of a home folder, in a process of its own."""

    def __init__(self, home: Path, settings: Mapping[str, str], *, port: int, url: str) -> None:
        self.home = home
        self.url = url
        lines = {**settings, "http.port": str(port), "transport.port": str(free_port()), "network.host": "127.0.0.1"}
        text = "".join(f"{name}: {value}\n" for name, value in lines.items())
        (home / "config" / "opensearch.yml").write_text(text)
        self._log = home / "server.log"
        self._log.touch()
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        give_away(self.home)
        options: dict[str, Any] = {}
        if os.geteuid() == 0:
            options = {"user": _NOBODY, "group": _NOBODY, "extra_groups": []}
        command = [
            "java",
            *_HEAP.split(),
            "-Djava.security.manager=allow",
            "-Djna.nosys=true",
            f"-Djava.io.tmpdir={self.home / 'tmp'}",
            f"-Dopensearch.path.home={self.home}",
            f"-Dopensearch.path.conf={self.home / 'config'}",
            "-Dopensearch.distribution.type=tar",
            "-Dopensearch.bundled_jdk=false",
            "-cp",
            f"{self.home / 'lib'}/*",
            "org.opensearch.bootstrap.OpenSearch",
        ]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(command, cwd=self.home, stdout=log, stderr=log, **options)
        wait_for(self.url, self)

    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def stop(self) -> None:
        self.kill()
        shutil.rmtree(self.home, ignore_errors=True)

    def log(self) -> str:
        return self._log.read_text(errors="replace")


def wait_for(url: str, server: Server) -> None:
    """Until it answers, whatever it answers: with security that may be 401."""

    def answers() -> bool:
        if isinstance(server, Process):
            assert server.alive(), f"the server ended:\n{server.log()[-4000:]}"
        try:
            with urllib.request.urlopen(f"{url}/_cluster/health", timeout=5) as reply:
                return bool(msgspec.json.decode(reply.read())["status"] != "red")
        except urllib.error.HTTPError as error:
            with error:
                return error.code == 401
        except urllib.error.URLError as error:
            return "CERTIFICATE" in str(error.reason)  # a CA of the test's own: it is up
        except OSError:
            return False

    until(answers, lambda: server.log()[-4000:], _START_SECONDS)


def give_away(folder: Path) -> None:
    """Lets the user that the server runs as read and write a folder."""
    if os.geteuid() == 0:
        for path in (folder, *folder.rglob("*")):
            with suppress(FileNotFoundError):
                os.chown(path, _NOBODY, _NOBODY)


def way() -> str:
    """How a server can be had here: ``address``, ``docker`` or ``jars``. Skips where there is none."""
    forced = os.environ.get("SHIPPER_TEST_SERVERS", "")
    if not forced and os.environ.get("SHIPPER_TEST_OPENSEARCH"):
        return "address"
    fault = docker_fault() or _image_fault()
    if forced != "jars" and fault is None:
        return "docker"
    require("docker", forced != "docker", f"SHIPPER_TEST_SERVERS asks for it: {fault}")
    missing = [program for program in ("java", "mvn") if shutil.which(program) is None]
    require("opensearch", not missing, f"no container ({fault}), and no {' and no '.join(missing)} on the PATH")
    return "jars"


@contextmanager
def opensearch() -> Iterator[Server]:
    """One without security, until the block ends."""
    match way():
        case "address":
            server: Server = External(os.environ["SHIPPER_TEST_OPENSEARCH"])
        case "docker":
            server = Container()
        case _:
            port = free_port()
            server = Process(home(), SETTINGS, port=port, url=f"http://127.0.0.1:{port}")
    try:
        server.start()
        yield server
    finally:
        server.stop()


def home() -> Path:
    """A new home folder for a server from jars, in a place that other users can reach."""
    jars = artifacts("jars", _JARS)
    folder = Path(tempfile.mkdtemp(prefix="opensearch-"))
    folder.chmod(0o755)
    for name in ("lib", "modules", "config", "plugins", "data", "logs", "tmp"):
        (folder / name).mkdir()
    transport = _module(folder, "transport-netty4", "org.opensearch.transport.Netty4Plugin")
    for jar in jars.glob("*.jar"):
        shutil.copy(jar, transport if jar.name.startswith(("netty-", "transport-netty4")) else folder / "lib")
    (transport / "plugin-security.policy").write_text(_POLICY)
    processors = _module(folder, "ingest-common", "org.opensearch.ingest.common.IngestCommonPlugin")
    for jar in artifacts("processors", _PROCESSORS).glob("*.jar"):
        if not (folder / "lib" / jar.name).exists():  # a class that is there twice is refused
            shutil.copy(jar, processors)
    (folder / "config" / "log4j2.properties").write_text(_LOG4J)
    return folder


def _module(folder: Path, name: str, plugin: str) -> Path:
    """The folder of a part that the server loads by itself, without its jars."""
    made = folder / "modules" / name
    made.mkdir()
    (made / "plugin-descriptor.properties").write_text(_DESCRIPTOR.format(name=name, plugin=plugin))
    return made


def artifacts(name: str, coordinates: tuple[str, ...]) -> Path:
    """A folder with the jars of these Maven coordinates and of what they need, or with a single zip; got once per
    checkout, also when several workers ask at the same time."""
    folder = _CACHE / f"{name}-{VERSION}"
    _CACHE.mkdir(parents=True, exist_ok=True)
    with (_CACHE / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if (folder / "complete").exists():
            return folder
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        if coordinates[0].endswith(":zip"):
            goal = ["dependency:copy", f"-Dartifact={coordinates[0]}"]
        else:
            (folder / "pom.xml").write_text(_pom(coordinates))
            goal = ["-f", str(folder / "pom.xml"), "dependency:copy-dependencies", "-DincludeScope=runtime"]
        command = ["mvn", "-q", "-B", *goal, f"-DoutputDirectory={folder}"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=600, check=False)
        require("opensearch", done.returncode == 0, f"Maven cannot get it: {done.stdout.strip()[-500:]}")
        (folder / "complete").touch()
    return folder


def _pom(coordinates: tuple[str, ...]) -> str:
    dependencies = "".join(
        "<dependency><groupId>{}</groupId><artifactId>{}</artifactId><version>{}</version></dependency>".format(
            *each.split(":")
        )
        for each in coordinates
    )
    return (
        "<project><modelVersion>4.0.0</modelVersion><groupId>local</groupId><artifactId>jars</artifactId>"
        f"<version>1</version><dependencies>{dependencies}</dependencies></project>"
    )


def _image_fault() -> str | None:
    """Why the image cannot be had; ``None`` where it is there, or was pulled just now."""
    import docker
    from docker.errors import DockerException

    client = docker.from_env(timeout=300)
    try:
        try:
            client.images.get(IMAGE)
        except DockerException:
            client.images.pull(*IMAGE.split(":"))
    except DockerException as error:
        return f"{IMAGE}: {str(error)[:200]}"
    finally:
        client.close()
    return None


class Api:
    """What tests ask a server beside the output: plain HTTP, JSON in and out."""

    def __init__(self, url: str) -> None:
        self.url = url

    def __call__(self, method: str, path: str, body: Any = None) -> Any:
        """The answer, decoded. Fails with the server's words where it refuses."""
        status, answer = self.try_(method, path, body)
        assert status < 300, f"{method} {path}: {status} {answer}"
        return answer

    def try_(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        data = None if body is None else msgspec.json.encode(body)
        request = urllib.request.Request(
            f"{self.url}{path}", data=data, method=method, headers={"content-type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as reply:
                content, status = reply.read(), reply.status
        except urllib.error.HTTPError as error:
            with error:
                content, status = error.read(), error.code
        return status, msgspec.json.decode(content) if content.strip() else None

    def documents(self, place: str) -> list[dict[str, Any]]:
        """Every document that a search finds in an index, alias or data stream: id, index and source."""
        status, _ = self.try_("POST", f"/{place}/_refresh")
        if status == 404:
            return []
        found: list[dict[str, Any]] = []
        reply = self("POST", f"/{place}/_search?scroll=1m", {"size": 1000, "sort": ["_doc"]})
        while reply["hits"]["hits"]:
            found += reply["hits"]["hits"]
            scroll = {"scroll": "1m", "scroll_id": reply["_scroll_id"]}
            reply = self("POST", "/_search/scroll", scroll)
        if "_scroll_id" in reply:
            self.try_("DELETE", "/_search/scroll", {"scroll_id": reply["_scroll_id"]})
        return found

    def clean(self) -> None:
        """An empty server: no indices, no data streams, no templates of ours, no settings."""
        found = self("GET", "/_cluster/state/metadata?filter_path=metadata.indices.*.state,metadata.data_stream")
        metadata = found.get("metadata", {})
        if metadata.get("data_stream", {}).get("data_stream"):
            self("DELETE", "/_data_stream/*")
        if metadata.get("indices"):
            self("DELETE", "/*")
        self("DELETE", "/_index_template/*")
        settings = self("GET", "/_cluster/settings?flat_settings=true")
        given = [name for kind in settings.values() for name in kind]
        if given:
            nothing = dict.fromkeys(given)
            self("PUT", "/_cluster/settings", {"transient": nothing, "persistent": nothing})


def settled(api: Api) -> None:
    """Waits until every primary shard is there."""
    deadline = time.monotonic() + 60
    while api("GET", "/_cluster/health")["status"] == "red":
        assert time.monotonic() < deadline, "shards are missing after a minute"
