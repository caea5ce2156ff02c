"""The OpenSearch output before a server with its real security plugin and its real processors: whom it trusts, who it
is, what it may, and what becomes of events in ingest pipelines."""

from __future__ import annotations

import base64
import hashlib
import ssl
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from servers.opensearch_security import ADMIN, SecureServer, secure_opensearch
from shipper.clock import SystemClock
from shipper.errors import Held
from shipper.output import Outcome, Report
from shipper.secrets import SecretReader, secrets_in
from shipper.settings import AwsSettings
from shipper.testing.contract.events import MARK, batch_of, event
from shipper_opensearch import OpenSearchOutput
from shipper_opensearch.settings import OpenSearchSettings
from support.command import shipper, succeeded

pytestmark = pytest.mark.xdist_group("opensearch with security")

#: One that may write indices ``audit-*`` and nothing else.
WRITER = ("writer", "kP7-Quartz-Lantern-42")
WRONG = "kP7-not-the-password"


@pytest.fixture(scope="module")
def server() -> Iterator[SecureServer]:
    with secure_opensearch() as running:
        admin = Admin(running)
        role = {
            "cluster_permissions": ["indices:data/write/bulk"],
            "index_permissions": [
                {"index_patterns": ["audit-*"], "allowed_actions": ["indices:data/write/*", "indices:admin/*"]}
            ],
        }
        admin("PUT", "/_plugins/_security/api/roles/audit_writer", role)
        admin("PUT", "/_plugins/_security/api/internalusers/writer", {"password": WRITER[1]})
        admin("PUT", "/_plugins/_security/api/rolesmapping/audit_writer", {"users": ["writer"]})
        yield running


class Admin:
    """Asks the server as its administrator."""

    def __init__(self, server: SecureServer) -> None:
        self._url = server.url
        self._context = ssl.create_default_context(cafile=str(server.certificates / "ca.pem"))
        self._login = base64.b64encode(":".join(ADMIN).encode()).decode()

    def __call__(self, method: str, path: str, body: Any = None) -> Any:
        headers = {"content-type": "application/json", "authorization": f"Basic {self._login}"}
        data = None if body is None else msgspec.json.encode(body)
        request = urllib.request.Request(f"{self._url}{path}", data, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=30, context=self._context) as reply:
                return msgspec.json.decode(reply.read())
        except urllib.error.HTTPError as error:
            with error:
                pytest.fail(f"{method} {path}: {error.code} {error.read()!r}")


def output(server: SecureServer, **settings: Any) -> OpenSearchOutput:
    given: dict[str, Any] = {
        "type": "opensearch",
        "hosts": server.url,
        "index": "audit-{category}",
        "template": "none",
        "tls": {"ca_file": str(server.certificates / "ca.pem")},
        "auth": {"user": WRITER[0], "password": WRITER[1]},
    }
    made = OpenSearchOutput("search", OpenSearchSettings.model_validate(given | settings))
    made.connect(None)
    return made


def send(made: OpenSearchOutput, *numbers: int, **fields: Any) -> Report:
    try:
        return made.send(batch_of(made.values(), [event(number, **fields) for number in numbers]))
    finally:
        made.close()


def held(made: OpenSearchOutput) -> Held:
    with pytest.raises(Held) as caught:
        send(made, 1)
    assert WRITER[1] not in str(caught.value)
    assert WRONG not in str(caught.value)
    return caught.value


def test_a_user_with_a_password_writes_through_tls_with_its_own_authority(server: SecureServer) -> None:
    assert not send(output(server), 1, 2).failed
    assert Admin(server)("POST", "/audit-read/_refresh")
    assert Admin(server)("GET", "/audit-read/_count")["count"] >= 2


def test_a_server_of_an_unknown_authority_holds_the_output(server: SecureServer) -> None:
    for tls in ({}, {"ca_file": str(server.certificates / "other-ca.pem")}):
        error = held(output(server, tls=tls))
        assert error.reason == "unreachable"
        assert "certificate verify failed" in error.detail
        assert "ca_file" in error.mend


def test_a_certificate_for_another_name_holds_the_output_unless_names_do_not_matter(server: SecureServer) -> None:
    url = server.url.replace("127.0.0.1", "localhost")
    tls = {"ca_file": str(server.certificates / "ca.pem")}
    error = held(output(server, hosts=url, tls=tls))
    assert error.reason == "unreachable"
    assert not send(output(server, hosts=url, tls={**tls, "verify_hostname": False}), 1).failed


def test_a_fingerprint_is_trusted_whoever_signed(server: SecureServer) -> None:
    der = ssl.PEM_cert_to_DER_cert((server.certificates / "node.pem").read_text())
    digits = hashlib.sha256(der).hexdigest()
    colons = ":".join(digits[place : place + 2] for place in range(0, 64, 2)).upper()
    assert not send(output(server, tls={"fingerprint": colons}), 1).failed
    error = held(output(server, tls={"fingerprint": "0" * 64}))
    assert error.reason == "unreachable"


def test_a_wrong_password_holds_the_output(server: SecureServer) -> None:
    error = held(output(server, auth={"user": WRITER[0], "password": WRONG}))
    assert error.reason == "credentials"
    assert "401" in error.detail


def test_a_password_that_has_changed_is_read_again_before_the_output_is_held(
    server: SecureServer, tmp_path: Path
) -> None:
    file = tmp_path / "password"
    file.write_text(WRONG)
    made = output(server, auth={"user": WRITER[0], "password": f"file:{file}"})
    reader = SecretReader(tmp_path, 3600, AwsSettings(), clock=SystemClock())
    for key, secret in secrets_in(made.settings):
        secret.bind(reader, key)
        secret.reveal()
    file.write_text(WRITER[1])
    assert not send(made, 1).failed


def test_a_role_that_may_write_no_index_holds_the_output(server: SecureServer) -> None:
    error = held(output(server, index="elsewhere"))
    assert error.reason == "access_denied"
    assert "security_exception" in error.detail
    assert "indices:data/write/bulk" in error.mend


def test_a_role_that_may_not_write_one_of_the_indices_is_told_for_its_events(server: SecureServer) -> None:
    made = output(server, index="a{category}")
    events = [event(1, category="audit"), event(2, category="ddl")]
    Admin(server)("PUT", "/_plugins/_security/api/roles/audit_writer", {
        "cluster_permissions": ["indices:data/write/bulk"],
        "index_permissions": [
            {"index_patterns": ["audit-*", "aaudit"], "allowed_actions": ["indices:data/write/*", "indices:admin/*"]}
        ],
    })  # fmt: skip
    report = made.send(batch_of(made.values(), events))
    made.close()
    assert {index: (one.outcome, one.reason) for index, one in report.failed.items()} == {1: ("held", "access_denied")}


def test_a_client_certificate_is_who_we_are(server: SecureServer) -> None:
    tls = {
        "ca_file": str(server.certificates / "ca.pem"),
        "cert_file": str(server.certificates / "admin.pem"),
        "key_file": str(server.certificates / "admin.key"),
    }
    assert not send(output(server, index="by-certificate", tls=tls, auth={}), 1).failed


def test_nobody_is_refused(server: SecureServer) -> None:
    assert held(output(server, auth={})).reason == "credentials"


def test_check_says_who_may_not(server: SecureServer) -> None:
    made = output(server)
    assert [check for check in made.check() if not check.ok] == []
    made = output(server, index="elsewhere")
    assert [check.subject for check in made.check() if not check.ok]
    made = output(server, auth={"user": WRITER[0], "password": WRONG})
    (fault,) = [check for check in made.check() if not check.ok]
    assert fault.subject == "credentials"


@pytest.fixture
def reader(server: SecureServer) -> dict[str, str]:
    """A user who sees every index and may write none."""
    admin = Admin(server)
    role = {
        "cluster_permissions": ["cluster:monitor/main", "indices:data/write/bulk"],
        "index_permissions": [{"index_patterns": ["*"], "allowed_actions": ["indices:admin/get"]}],
    }
    admin("PUT", "/_plugins/_security/api/roles/audit_reader", role)
    admin("PUT", "/_plugins/_security/api/internalusers/reader", {"password": WRITER[1]})
    admin("PUT", "/_plugins/_security/api/rolesmapping/audit_reader", {"users": ["reader"]})
    return {"user": "reader", "password": WRITER[1]}


def test_check_says_that_a_role_may_not_write_an_index_that_it_sees(
    server: SecureServer, reader: dict[str, str]
) -> None:
    assert not send(output(server, index="audit-there"), 1).failed
    made = output(server, index="audit-there", auth=reader)
    assert [(check.subject, check.ok) for check in made.check()] == [("cluster", True), ("write", False)]
    assert Admin(server)("POST", "/audit-there/_refresh")
    assert Admin(server)("GET", "/audit-there/_count")["count"] == 1


def test_check_says_that_a_role_may_not_write_an_index_that_is_not_there(
    server: SecureServer, reader: dict[str, str]
) -> None:
    """And makes none, whether it may be written or not."""
    made = output(server, index="audit-absent", auth=reader)
    faults = [check for check in made.check() if not check.ok]
    assert [fault.subject for fault in faults] == ["write"]
    assert "security_exception" in faults[0].detail
    assert "indices:data/write" in faults[0].mend
    assert [check.ok for check in output(server, index="audit-absent").check()] == [True, True]
    indices = Admin(server)("GET", "/_cat/indices?format=json&h=index&expand_wildcards=all")
    assert "audit-absent" not in [index["index"] for index in indices]


def test_the_command_line_says_what_is_permitted_and_writes_nothing(server: SecureServer, tmp_path: Path) -> None:
    def checked(auth: str, index: str) -> subprocess.CompletedProcess[str]:
        (tmp_path / "shipper.toml").write_text(
            f"""
            [sources.captured]
            type = "file"
            path = "captured.jsonl"
            decode = "events"
            [outputs.search]
            type = "opensearch"
            hosts = "{server.url}"
            index = "{index}"
            template = "none"
            auth = {auth}
            tls = {{ ca_file = "{server.certificates / "ca.pem"}" }}
            """
        )
        return shipper("check", "--connect", "shipper.toml", cwd=tmp_path)

    (tmp_path / "captured.jsonl").touch()
    before = Admin(server)("GET", "/_cat/indices?format=json&h=index,docs.count")
    given = '{{ user = "{}", password = "{}" }}'
    done = succeeded(checked(given.format(*WRITER), "audit-command"))
    assert "is not there yet" in " ".join(done.stdout.split())
    done = checked(given.format(WRITER[0], WRONG), "audit-command")
    assert done.returncode == 1
    assert "401" in done.stdout
    assert WRONG not in done.stdout + done.stderr
    done = checked(given.format(*WRITER), "elsewhere")
    assert done.returncode == 1
    assert Admin(server)("GET", "/_cat/indices?format=json&h=index,docs.count") == before


def test_managing_the_template_needs_a_permission_and_says_which(server: SecureServer) -> None:
    with pytest.raises(Held) as caught:
        output(server, template="manage")
    assert caught.value.reason == "access_denied"
    assert "indices:admin/index_template" in caught.value.mend
    assert 'template = "none"' in caught.value.mend


# -- ingest pipelines --------------------------------------------------------------------------------------------------


def piped(server: SecureServer, name: str, *processors: dict[str, Any]) -> OpenSearchOutput:
    """An output whose events go through a pipeline of these processors."""
    Admin(server)("PUT", f"/_ingest/pipeline/{name}", {"processors": list(processors)})
    return output(server, index=f"audit-{name}", pipeline=name)


def test_a_pipeline_changes_what_is_stored_and_not_the_id(server: SecureServer) -> None:
    change = {"set": {"field": "tags", "value": ["seen"]}}
    assert not send(piped(server, "change", change), 1).failed
    assert list(send(piped(server, "change", change), 1).already_stored) == [0]
    document = Admin(server)("GET", f"/audit-change/_doc/{event(1).id}")
    assert document["_source"]["tags"] == ["seen"]


def test_what_a_pipeline_drops_is_delivered(server: SecureServer) -> None:
    report = send(piped(server, "drop", {"drop": {}}), 1)
    assert (report.failed, list(report.already_stored)) == ({}, [])


@pytest.mark.parametrize(
    "processor",
    [
        {"fail": {"message": "we take no {{statement}}"}},  # HTTP 500 for this event
        {"convert": {"field": "statement", "type": "integer"}},
        {"date": {"field": "statement", "formats": ["ISO8601"]}},
        {"grok": {"field": "statement", "patterns": ["%{IP:address}"]}},
    ],
    ids=lambda processor: next(iter(processor)),
)
def test_an_event_that_a_pipeline_refuses_is_refused(server: SecureServer, processor: dict[str, Any]) -> None:
    (kind,) = processor
    (failure,) = send(piped(server, f"refuse-{kind}", processor), 1).failed.values()
    assert (failure.outcome, failure.reason) == (Outcome.REJECTED, "rejected")
    assert MARK not in failure.detail


@pytest.mark.parametrize("target", ["absent", "circle"])
def test_a_pipeline_that_leads_nowhere_holds_the_output(server: SecureServer, target: str) -> None:
    error = held(piped(server, "circle", {"pipeline": {"name": target}}))
    assert error.reason == "refused"
    assert "pipeline" in error.mend
