"""`relay audit`: an export is proven without asking anybody, and what comes from a relay is proven the same way."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from relay.keys.chain import GENESIS, AuditRow, Head, digest, head_line, sign_head
from relay.keys.tokens import SigningKey
from tests.cli.conftest import Command
from tests.cli.fakerelay import Answer, FakeRelay, Request

SIGNER = SigningKey.generate()
PUBLIC = base64.urlsafe_b64encode(SIGNER.public).rstrip(b"=").decode()
AT = "2027-01-15T08:00:00.000000Z"


def rows(count: int) -> list[dict[str, Any]]:
    """Entries as the API gives them."""
    found: list[dict[str, Any]] = []
    previous = GENESIS
    for seq in range(1, count + 1):
        row = AuditRow(seq, AT, "mtk_master_000000000001", ("mtk_operator_000000000001",), "key.mint",
                       f"mtk_child_00000000{seq:04}", "proj_a_000001", "192.0.2.1", {"label": "wörld"})  # fmt: skip
        previous = digest(previous, row)
        found.append({"row": row.to_json(), "hash": previous})
    return found


def head(entries: list[dict[str, Any]], previous: str = GENESIS) -> Head:
    last = entries[-1]
    return sign_head(SIGNER, last["row"]["seq"], last["hash"], AT, previous)


def serve(relay: FakeRelay, entries: list[dict[str, Any]], upto: int | None = None, page: int = 2) -> None:
    """`upto` rows were there when the head was signed, the others came while they were read."""

    def answer(request: Request) -> Answer:
        after = int(request.query["after"])
        items = entries[after : after + page]
        return Answer(body={"items": items, "next": after + len(items) if after + len(items) < len(entries) else None})

    relay.on("GET /audit", answer)
    relay.on("GET /audit/head", {"head": head(entries[:upto]).to_json()})
    relay.on("GET /signers", {"items": [{"kid": SIGNER.kid, "public_key": PUBLIC}]})


def written(tmp_path: Path, entries: list[dict[str, Any]]) -> list[str]:
    """The words that verify an export of these rows."""
    lines = [*map(json.dumps, entries), head_line(head(entries))]
    (tmp_path / "audit.jsonl").write_text("\n".join(lines) + "\n")
    (tmp_path / "keys.txt").write_text(f"{SIGNER.kid}={PUBLIC}\n\n")
    return ["audit", "verify", str(tmp_path / "audit.jsonl"), "--public-key", str(tmp_path / "keys.txt")]


# ---------------------------------------------------------------------------------------------------- verify


def test_verify_offline(command: Command, tmp_path: Path) -> None:
    """A file and the public key are enough: there is no relay and no key in this test."""
    words = written(tmp_path, rows(3))
    result = command(*words)
    assert result.code == 0
    assert result.out.startswith(f"The audit is whole: 3 rows, 1 to 3, signed by {SIGNER.kid} on 2027-01-1")
    assert command(*words[:4], f"{SIGNER.kid}={PUBLIC}").code == 0
    assert json.loads(command(*words, "--json").out)["rows"] == 3


CHANGES: dict[str, Callable[[list[str]], object]] = {
    "edited": lambda lines: lines.__setitem__(1, lines[1].replace("192.0.2.1", "192.0.2.2")),
    "removed": lambda lines: lines.pop(1),
    "swapped": lambda lines: lines.insert(1, lines.pop(2)),
    "added": lambda lines: lines.insert(1, lines[1]),
    "cut off": lambda lines: lines.pop(),
    "another end": lambda lines: lines.__setitem__(-2, lines[0]),
    "no text": lambda lines: lines.__setitem__(0, "{"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_export_is_found(change: str, command: Command, tmp_path: Path) -> None:
    """One sentence, exit code 1."""
    words = written(tmp_path, rows(3))
    file = tmp_path / "audit.jsonl"
    lines = file.read_text().splitlines()
    CHANGES[change](lines)
    file.write_text("\n".join(lines))
    result = command(*words)
    assert (result.code, result.out, result.err.count("\n")) == (1, "", 1)
    assert "The audit is not whole." in result.err


def test_a_record_that_was_written_anew(command: Command, tmp_path: Path) -> None:
    """Heads that were kept elsewhere know of rows that a shorter record does not have."""
    entries = rows(3)
    words = written(tmp_path, entries[:2])
    heads = tmp_path / "heads.jsonl"
    heads.write_text(head_line(head(entries[:1])) + "\n")
    assert command(*words, "--heads", str(heads)).code == 0
    heads.write_text(head_line(head(entries)) + "\n")
    result = command(*words, "--heads", str(heads))
    assert result.code == 1
    assert "row 3" in result.err
    assert "give them with --heads" in command(*words).out


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ([], "--public-key"),
        (["--public-key", "/nonexistent"], "cannot be read"),
        (["--public-key", "KEYS"], "has another line"),
        (["--public-key", "node_000000000001=AAAA"], "32 bytes"),
    ],
)
def test_whose_signature(keys: list[str], said: str, command: Command, tmp_path: Path) -> None:
    """Without a public key nothing is proven, and no relay is asked for one in silence."""
    words = written(tmp_path, rows(1))
    (tmp_path / "other").write_text("no key\n")
    result = command(*words[:3], *(word.replace("KEYS", str(tmp_path / "other")) for word in keys))
    assert result.code == 2
    assert said in result.err


def test_another_relays_signature(command: Command, tmp_path: Path) -> None:
    """A key that is not the relay's proves nothing."""
    words = written(tmp_path, rows(1))
    other = SigningKey.generate()
    public = base64.urlsafe_b64encode(other.public).decode()
    assert command(*words[:4], f"{other.kid}={public}").code == 1
    assert command(*words[:4], f"{SIGNER.kid}={public}").code == 1


def test_verify_of_a_relay(command: Command, relay: FakeRelay) -> None:
    """Rows, head and public keys are fetched; what was added meanwhile is none of its business."""
    serve(relay, rows(5), upto=3)
    result = command("audit", "verify")
    assert (result.code, result.out.splitlines()[0][:36]) == (0, "The audit is whole: 3 rows, 1 to 3, ")
    entries = rows(5)
    entries[1]["row"]["address"] = "192.0.2.99"
    serve(relay, entries)
    assert command("audit", "verify").code == 1
    serve(relay, rows(5)[1:])
    assert command("audit", "verify").code == 1


# ---------------------------------------------------------------------------------------------------- export, list


def test_export(command: Command, relay: FakeRelay, tmp_path: Path) -> None:
    """What is written can be proven, and is for its owner's eyes."""
    serve(relay, rows(5))
    file, keys = tmp_path / "audit.jsonl", tmp_path / "keys.txt"
    result = command("audit", "export", "--out", str(file), "--keys-out", str(keys))
    assert result.out == f"Wrote 5 rows to {file}.\n"
    assert file.stat().st_mode & 0o777 == 0o600
    asked = len(relay.asked)
    assert command("audit", "verify", str(file), "--public-key", str(keys)).code == 0
    assert len(relay.asked) == asked
    assert command("audit", "export").out == file.read_text()
    assert command("audit", "export", "--out", str(file)).code == 0, "a newer export takes the place of an older one"


def test_list(command: Command, relay: FakeRelay) -> None:
    """The newest rows, or those after a number; details for programs."""
    entries = rows(5)
    serve(relay, entries)
    lines = command("audit", "list", "--last", "2").out.splitlines()
    assert [line.split()[0] for line in lines] == ["SEQ", "4", "5"]
    assert "mtk_child_000000000005" in lines[2]
    assert json.loads(command("audit", "list", "--after", "1", "--json").out) == entries[1:]
    assert json.loads(command("audit", "list", "--json").out) == entries


@pytest.mark.parametrize("body", [{}, {"head": 1}, {"head": {"seq": "1"}}])
def test_a_relay_without_a_head(body: object, command: Command, relay: FakeRelay) -> None:
    """Another version's answer is a sentence."""
    relay.on("GET /audit/head", Answer(body=body))
    assert command("audit", "list").code == 8
