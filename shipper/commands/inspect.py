"""``shipper inspect``: explains captured records as far as that goes without any key."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator
from typing import IO, Any

import click
import msgspec

from shipper.decode import Reason, Undecodable
from shipper.decode.das.envelope import Envelope, parse_envelope
from shipper.decode.das.structure import Signature, Structure, parse_structure, verify_signature
from shipper.sources.file_values import LOOK_BACK, Splitter

_BLOCK_BYTES = 1 << 20

#: Keys of the encryption context by the envelope's version ("Monitoring database activity streams" in the Amazon Aurora
#: and Amazon RDS user guides): Aurora's engines write 1.0 to 1.2, RDS's 1.3 and 1.4.
_AURORA = {"aws:rds:dbc-id": "cluster-…"}
_RDS = {"aws:rds:db-id": "db-…"}
_CONTEXTS = {"1.0": [_AURORA], "1.1": [_AURORA], "1.2": [_AURORA], "1.3": [_RDS], "1.4": [_RDS]}

#: How a KMS key is written where a blob names it. AWS's own blobs do not; those of local KMS servers do.
_KMS_KEY = re.compile(
    rb"arn:aws[a-z-]*:kms:[a-z0-9-]+:[0-9]{12}:key/[A-Za-z0-9-]{1,64}"
    rb"|mrk-[0-9a-f]{32}|[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
)

#: Longest text of a message that is shown to people; with --json it is whole.
_LONGEST = 120


@click.command()
@click.argument("file", type=click.File("rb"), default="-")
@click.option("--json", "as_json", is_flag=True, help="One JSON object per record.")
def command(file: IO[bytes], as_json: bool) -> int:
    """Explain captured records without any key: envelope, message, signature, and what it takes to decrypt them.

    FILE has one JSON value per line, or objects without a separator; "-" is standard input. Exits with 1 if a record
    is broken. Ciphertext and keys are never shown.

    \b
    Example:
      shipper inspect captured.jsonl
      zcat captured.jsonl.gz | shipper inspect --json -
    """
    show = _show_json if as_json else _show_text()
    records = 0
    broken: Counter[str] = Counter()
    for offset, data in _values(file):
        records += 1
        found = {"record": records, "offset": offset, "bytes": len(data), **explain(data)}
        if found["problem"]:
            broken[found["problem"]["reason"]] += 1
        show(found)
    if not as_json:
        reasons = ", ".join(f"{count} {reason}" for reason, count in broken.most_common())
        click.echo(
            f"{records} record{'' if records == 1 else 's'}, {broken.total()} broken"
            + (f": {reasons}" if reasons else "")
        )
    return 1 if broken else 0


def explain(data: bytes) -> dict[str, Any]:
    """Everything about one record that needs no key, as it is written with ``--json``; sizes are bytes.

    ``problem`` holds the reason for which ``run`` would refuse the record, ``None`` if nothing is wrong so far.
    """
    found: dict[str, Any] = {"kind": "unknown", "problem": None}
    try:
        decrypted = _decrypted(data)
        if decrypted is not None:
            return {"kind": "decrypted", **decrypted, "problem": None}
        envelope = parse_envelope(data)
        found |= {"kind": "envelope", "version": envelope.version, "unknown_keys": list(envelope.unknown)}
        if envelope.plain is not None:
            return found | _plain(envelope.plain)
        message = envelope.message or b""
        found |= {"key": _key(envelope), "message": {"bytes": len(message)}, "decrypt": _needed(envelope)}
        structure = parse_structure(message)
        signature = verify_signature(message, structure)
        found["message"] |= _message(structure, signature)
        found["problem"] = _problem(structure, signature)
    except Undecodable as error:
        found["problem"] = {"reason": str(error.reason), "detail": error.detail}
    return found


def _problem(structure: Structure, signature: Signature) -> dict[str, str] | None:
    """What would go wrong with any key."""
    if not structure.for_activity_streams:
        detail = "no encrypted data key is named as activity streams name theirs"
        return {"reason": str(Reason.WRONG_KEY), "detail": detail}
    if signature is Signature.INVALID:
        detail = "altered after it was signed; where an authentication tag shows it first, run calls it tampered"
        return {"reason": str(Reason.SIGNATURE), "detail": detail}
    return None


def _plain(data: bytes) -> dict[str, Any]:
    detail = "databaseActivityEvents is an object without a databaseActivityEventList"
    return _decrypted(data) or {"problem": {"reason": str(Reason.SHAPE), "detail": detail}}


class _Decrypted(msgspec.Struct):
    """What tells a record that was decrypted before."""

    databaseActivityEventList: list[msgspec.Raw]
    clusterId: str | None = None
    instanceId: str | None = None


def _decrypted(data: bytes) -> dict[str, Any] | None:
    try:
        record = msgspec.json.decode(data, type=_Decrypted)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    return {
        "events": len(record.databaseActivityEventList),
        "cluster_id": record.clusterId,
        "instance_id": record.instanceId,
    }


def _key(envelope: Envelope) -> dict[str, Any]:
    """The fingerprint shows which records share a key."""
    named = _KMS_KEY.search(envelope.key_blob)
    return {
        "bytes": len(envelope.key_blob),
        "sha256": hashlib.sha256(envelope.key_blob).hexdigest(),
        "kms_key": named[0].decode() if named else None,
    }


def _message(structure: Structure, signature: Signature) -> dict[str, Any]:
    suite = structure.suite
    return {
        "version": structure.version,
        "suite": f"0x{suite.id:04x}",
        "suite_name": suite.name,
        "committed": suite.committed,
        "signature": str(signature),
        "message_id": structure.message_id.hex(),
        "encryption_context": structure.context,
        "encrypted_data_keys": [
            {"provider": key.provider, "name": key.name.decode(errors="replace"), "bytes": len(key.ciphertext)}
            for key in structure.encrypted_data_keys
        ],
        "header_bytes": structure.header_bytes,
        "frame_length": structure.frame_length,
        "frames": structure.frames,
        "final_frame_bytes": structure.final_bytes,
        "plaintext_bytes": structure.plaintext_bytes,
        "footer_bytes": structure.footer_bytes,
    }


def _needed(envelope: Envelope) -> dict[str, Any]:
    """``encryption_context`` lists what may be it: the envelope does not say which cluster or instance wrote it."""
    contexts = _CONTEXTS.get(envelope.version, [_AURORA, _RDS])
    return {"action": "kms:Decrypt", "encryption_context": contexts}


def _values(file: IO[bytes]) -> Iterator[tuple[int, bytes]]:
    """The JSON values of a file, found as the file source finds them, each with its place in bytes."""
    splitter = Splitter()
    rest = before = b""
    offset = 0
    while True:
        block = file.read(_BLOCK_BYTES)
        content = rest + block
        records, done = splitter.split(content, offset, before=before, final=not block)
        for record in records:
            yield record.position, record.data
        if not block:
            return
        before = (before + content[:done])[-LOOK_BACK:]
        rest, offset = content[done:], offset + done


def _show_json(found: dict[str, Any]) -> None:
    click.echo(json.dumps(found, ensure_ascii=True))


def _show_text() -> Any:
    """How to show a record to people: in colours on a terminal, plain elsewhere."""
    from rich.console import Console  # noqa: PLC0415  # --json has no use for it
    from rich.text import Text  # noqa: PLC0415

    console = Console(highlight=False, soft_wrap=True)
    colours = {"problem": "bold red", "signature": "bold", "needed": "bold"}

    def show(found: dict[str, Any]) -> None:
        title = f"record {found['record']} at byte {found['offset']}: {found['kind']}, {found['bytes']} bytes"
        console.print(Text(title, "bold cyan"))
        for label, value in _rows(found):
            # Text, because a message is an attacker's to write: no markup, no control characters.
            console.print(Text.assemble("  ", (f"{label:<15}", "dim"), (_harmless(value), colours.get(label, ""))))

    return show


def _rows(found: dict[str, Any]) -> Iterator[tuple[str, str]]:
    if "version" in found:
        yield "version", found["version"] or "none"
    if found.get("unknown_keys"):
        yield "unknown keys", ", ".join(found["unknown_keys"])
    if "events" in found:
        yield "decrypted", f"{found['events']} events; no key needed"
    for label, name in (("cluster", "cluster_id"), ("instance", "instance_id")):
        if found.get(name):
            yield label, found[name]
    if "key" in found:
        key = found["key"]
        yield "key blob", f"{key['bytes']} bytes, sha256 {key['sha256'][:16]}, KMS key {key['kms_key'] or 'not named'}"
    if "message" in found:
        yield from _message_rows(found["message"])
    if "decrypt" in found:
        contexts = " or ".join(
            json.dumps(context, ensure_ascii=False) for context in found["decrypt"]["encryption_context"]
        )
        yield "needed", f"KMS Decrypt of the key blob with the encryption context {contexts}"
    if found["problem"]:
        yield "problem", f"{found['problem']['reason']}: {found['problem']['detail']}"


def _message_rows(message: dict[str, Any]) -> Iterator[tuple[str, str]]:
    yield "message", f"{message['bytes']} bytes"
    if "suite" not in message:
        return
    yield "suite", f"{message['suite']} {message['suite_name']}, format version {message['version']}"
    yield "commitment", "bound to one data key" if message["committed"] else "none"
    yield "signature", message["signature"]
    yield "message id", message["message_id"]
    context = ", ".join(f"{key}={value}" for key, value in message["encryption_context"].items())
    yield "context", context or "empty"
    for key in message["encrypted_data_keys"]:
        yield "data key", f"encrypted by {key['provider']}/{key['name']}, {key['bytes']} bytes"
    frames, length, final = message["frames"], message["frame_length"], message["final_frame_bytes"]
    yield "frames", f"{frames} of {length} bytes, the last of {final}" if frames else "none, one block"
    sizes = f"header {message['header_bytes']}, footer {message['footer_bytes']}"
    yield "plaintext", f"{message['plaintext_bytes']} bytes; {sizes}"


def _harmless(text: str) -> str:
    shown = text if len(text) <= _LONGEST * 2 else f"{text[:_LONGEST]}… ({len(text)} characters)"
    return "".join(letter if letter.isprintable() else f"\\u{ord(letter):04x}" for letter in shown)
