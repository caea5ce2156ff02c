"""Records are explained without a key, for people and for machines, and nothing secret or harmful is shown."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import pytest

from shipper.cli import main
from shipper.commands.inspect import explain
from shipper.generate.sealing import encrypt, envelope, seal
from support.messages import SUITES, Writer

KEY = bytes(range(32))
BLOB = b"\x01\x02\x02\x00x" + bytes(range(179))
PLAIN = b'{"type":"DatabaseActivityMonitoringRecord","clusterId":"cluster-X","instanceId":"db-Y",'
PLAIN += b'"databaseActivityEventList":[{"type":"record","commandText":"audit secret"},{"type":"heartbeat"}]}'


def sealed(**options: Any) -> bytes:
    return seal(PLAIN, wrapping_key=KEY, key_blob=BLOB, **options)


def run(content: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str], *options: str) -> tuple[int, str]:
    path = tmp_path / "captured"
    path.write_bytes(content)
    with pytest.raises(SystemExit) as ended:
        main(["inspect", *options, str(path)])
    captured = capsys.readouterr()
    assert captured.err == ""
    assert isinstance(ended.value.code, int)
    return ended.value.code, captured.out


def reason(data: bytes) -> str | None:
    problem = explain(data)["problem"]
    return problem and str(problem["reason"])


def test_a_message_is_explained_with_the_sizes_of_real_ones() -> None:
    found = explain(envelope(encrypt(bytes(172), KEY, 0x0178, 4096), BLOB, version="1.1"))
    assert (found["kind"], found["version"], found["unknown_keys"], found["problem"]) == ("envelope", "1.1", [], None)
    assert (found["key"]["bytes"], found["key"]["kms_key"]) == (184, None)
    message = found["message"]
    assert len(message.pop("message_id")) == 32
    assert message == {
        "bytes": 145 + 40 + 172,
        "version": 1,
        "suite": "0x0178",
        "suite_name": "AES_256_GCM_IV12_TAG16_HKDF_SHA256",
        "committed": False,
        "signature": "unsigned",
        "encryption_context": {},
        "encrypted_data_keys": [{"provider": "BC", "name": "DataKey", "bytes": 48}],
        "header_bytes": 145,
        "frame_length": 4096,
        "frames": 1,
        "final_frame_bytes": 172,
        "plaintext_bytes": 172,
        "footer_bytes": 0,
    }


@pytest.mark.parametrize("suite", SUITES, ids=hex)
@pytest.mark.parametrize("frame_length", [0, 4096])
def test_every_suite_is_explained(suite: int, frame_length: int) -> None:
    found = explain(sealed(suite=suite, frame_length=frame_length))
    assert found["problem"] is None
    assert found["message"]["suite"] == f"0x{suite:04x}"
    assert found["message"]["committed"] == (suite in (0x0478, 0x0578))
    signs = SUITES[suite][2] is not None
    assert found["message"]["signature"] == ("valid" if signs else "unsigned")


@pytest.mark.parametrize(
    ("version", "contexts"),
    [
        ("1.0", ["aws:rds:dbc-id"]),
        ("1.2", ["aws:rds:dbc-id"]),
        ("1.3", ["aws:rds:db-id"]),
        ("1.4", ["aws:rds:db-id"]),
        ("7", ["aws:rds:dbc-id", "aws:rds:db-id"]),
    ],
)
def test_what_it_takes_to_decrypt_is_said(version: str, contexts: list[str]) -> None:
    needed = explain(sealed(version=version))["decrypt"]
    assert needed["action"] == "kms:Decrypt"
    assert [key for context in needed["encryption_context"] for key in context] == contexts


@pytest.mark.parametrize(
    "name",
    [
        b"01234567-89ab-cdef-0123-456789abcdef",
        b"mrk-0123456789abcdef0123456789abcdef",
        b"arn:aws:kms:eu-west-1:111122223333:key/01234567-89ab-cdef-0123-456789abcdef",
    ],
)
def test_a_kms_key_that_a_blob_names_is_shown(name: bytes) -> None:
    found = explain(seal(PLAIN, wrapping_key=KEY, key_blob=b"\x01\x02" + name + bytes(range(40))))
    assert found["key"]["kms_key"] == name.decode()


def test_records_with_one_key_have_one_fingerprint() -> None:
    assert explain(sealed())["key"]["sha256"] == explain(sealed())["key"]["sha256"]


def _changed(data: bytes, at: int) -> bytes:
    fields = json.loads(data)
    message = bytearray(base64.b64decode(fields["databaseActivityEvents"]))
    message[at] ^= 1
    return json.dumps(fields | {"databaseActivityEvents": base64.b64encode(message).decode()}).encode()


def test_what_is_wrong_has_the_reason_that_run_would_give() -> None:
    good = sealed(suite=0x0378)
    fields = json.loads(good)
    text = fields["databaseActivityEvents"]
    assert reason(good) is None
    assert reason(_changed(good, 300)) == "signature"
    assert reason(_changed(good, 0)) == "message_malformed"
    assert reason(_changed(good, 2)) == "suite_unsupported"
    assert reason(json.dumps(fields | {"databaseActivityEvents": text[:400]}).encode()) == "message_truncated"
    assert reason(json.dumps(fields | {"databaseActivityEvents": text[:-1] + "!"}).encode()) == "base64"
    assert reason(json.dumps(fields | {"key": None}).encode()) == "envelope_malformed"
    assert reason(good[:-1]) == "envelope_malformed"
    assert reason(good.replace(b"1.1", b"\xff")) == "json_encoding"
    assert reason(b'{"databaseActivityEvents":{"a":1}}') == "shape"
    foreign = Writer([KEY], key_name=b"OtherKey").write(PLAIN)
    assert reason(envelope(foreign, BLOB)) == "wrong_key"


def test_a_broken_message_still_shows_what_is_around_it() -> None:
    found = explain(envelope(encrypt(PLAIN, KEY)[:100], BLOB))
    assert (found["key"]["bytes"], found["message"], found["version"]) == (184, {"bytes": 100}, "1.1")


@pytest.mark.parametrize("data", [PLAIN, b'{"version":"1.0","databaseActivityEvents":' + PLAIN + b"}"])
def test_records_that_are_decrypted_already_need_no_key(data: bytes) -> None:
    found = explain(data)
    assert (found["events"], found["cluster_id"], found["instance_id"]) == (2, "cluster-X", "db-Y")
    assert found["problem"] is None
    assert "decrypt" not in found


@pytest.mark.parametrize("separator", [b"\n", b"", b"\r\n\r\n"])
def test_lines_and_objects_without_a_separator_are_told_apart(
    separator: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    records = [sealed(), sealed(suite=0x0378, spaced=True), PLAIN]
    code, out = run(separator.join(records), tmp_path, capsys, "--json")
    found = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    assert [one["record"] for one in found] == [1, 2, 3]
    assert [one["kind"] for one in found] == ["envelope", "envelope", "decrypted"]
    offsets = [0, len(records[0] + separator), len(records[0] + records[1] + 2 * separator)]
    assert [one["offset"] for one in found] == offsets


def test_a_file_larger_than_a_block_is_read_to_its_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    large = envelope(encrypt(bytes(900_000), KEY), BLOB)
    code, out = run((large + b"\n") * 4 + b"rubbish", tmp_path, capsys, "--json")
    found = [json.loads(line) for line in out.splitlines()]
    assert code == 1
    assert [one["offset"] for one in found] == [(len(large) + 1) * number for number in range(5)]
    assert [one["problem"] is None for one in found] == [True] * 4 + [False]


def test_one_broken_record_makes_it_fail_and_hides_no_other(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out = run(b"\n".join([sealed(), b"rubbish", sealed()]), tmp_path, capsys)
    assert code == 1
    assert out.count("envelope, ") == 2
    assert "problem        envelope_malformed: " in out
    assert out.splitlines()[-1] == "3 records, 1 broken: 1 envelope_malformed"


def test_people_read_it_without_escapes_in_a_pipe(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out = run(sealed(suite=0x0378, version="1.2"), tmp_path, capsys)
    assert code == 0
    assert "\x1b" not in out
    for words in (
        "record 1 at byte 0: envelope",
        "suite          0x0378 AES_256_GCM_IV12_TAG16_HKDF_SHA384_ECDSA_P384",
        "signature      valid",
        'KMS Decrypt of the key blob with the encryption context {"aws:rds:dbc-id": "cluster-…"}',
        "1 record, 0 broken",
    ):
        assert words in out


def test_people_read_it_with_colours_on_a_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    _, out = run(b"rubbish", tmp_path, capsys)
    assert "\x1b[1;31menvelope_malformed" in out


def test_standard_input_is_read(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(sealed())))
    with pytest.raises(SystemExit) as ended:
        main(["inspect", "--json"])
    assert ended.value.code == 0
    assert json.loads(capsys.readouterr().out)["kind"] == "envelope"


def test_an_empty_file_has_no_record(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(b"", tmp_path, capsys) == (0, "0 records, 0 broken\n")
    assert run(b"\n \n", tmp_path, capsys, "--json") == (0, "")


def test_text_of_a_message_cannot_reach_the_terminal_as_control(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    context = {"\x1b[2Jevil\r\n": "[red]\u202e" + "x" * 5000}
    record = envelope(Writer([KEY], context=context).write(PLAIN), BLOB)
    record = record[:-1] + b',"\\u001b]0;title\\u0007":1}'
    code, out = run(record, tmp_path, capsys)
    assert code == 0
    assert not set(out) & set("\x1b\r\x07\u202e")
    assert "\\u001b[2Jevil\\u000d\\u000a=[red]\\u202e" in out
    assert "\\u001b]0;title\\u0007" in out
    assert max(map(len, out.splitlines())) < 1000
    _, out = run(record, tmp_path, capsys, "--json")
    assert out.isascii()
    assert json.loads(out)["message"]["encryption_context"] == context


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_neither_ciphertext_nor_keys_nor_statements_are_shown(
    options: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = sealed(suite=0x0378)
    _, out = run(record + b"\n" + PLAIN, tmp_path, capsys, *options)
    fields = json.loads(record)
    message = base64.b64decode(fields["databaseActivityEvents"])
    wrapped = message[message.index(b"DataKey") + 15 :][:62]
    assert "audit secret" not in out
    for secret in (message[240:340], message[-90:], wrapped, BLOB, KEY):
        for part in (secret[:12], secret[3:15]):
            assert part.hex() not in out.lower()
            assert base64.b64encode(part).decode() not in out
    assert fields["key"][:20] not in out
