"""The chain of the audit: each row is tied to the one before by a hash, and signed heads say how far it went.

It alone decides what is hashed, what is signed, and what an export looks like: JSON lines, `{"row": …, "hash": …}` for
each row and at last `{"head": …}`, signed when it was written. An export that does not begin with row 1 says so in its
first line: `{"first": {"seq": …, "previous": …}}`. The chain finds a row that was changed, removed, moved or added;
the heads that a relay has signed before, kept elsewhere, find an end that was cut off.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from relay.keys import compact, signatures
from relay.keys.tokens import SigningKey

GENESIS = "0" * 64
"""The hash before the first row, and that before the first head."""

# No token begins with this, so a signature over a head is none over a token.
_DOMAIN = b"mtk-audit-head\n"


@dataclass(frozen=True, slots=True)
class AuditRow:
    """Who did what to what, when and from where. `details` holds JSON values."""

    seq: int
    at: str
    """ISO 8601 in UTC with microseconds and Z."""
    actor: str
    """The id of a key; empty: the relay itself."""
    lineage: tuple[str, ...]
    action: str
    subject: str
    project: str
    address: str
    details: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """All members."""
        return {**{each.name: getattr(self, each.name) for each in fields(self)}, "lineage": list(self.lineage)}

    @classmethod
    def from_json(cls, value: object) -> AuditRow:
        """The row with exactly these members. Raises ValueError."""
        members = _members(value, cls)
        lineage, details = members["lineage"], members["details"]
        texts = (members[name] for name in ("at", "actor", "action", "subject", "project", "address"))
        if not isinstance(lineage, list) or not all(isinstance(text, str) for text in (*texts, *lineage)):
            raise ValueError("a text of the row is none")
        if not _is_count(members["seq"]) or not isinstance(details, dict):
            raise ValueError("the row's number is none, or its details are no object")
        return cls(**{**members, "lineage": tuple(lineage)})


@dataclass(frozen=True, slots=True)
class Head:
    """What a relay signs: the chain had this hash at this row, and this is how the head before was hashed."""

    seq: int
    hash: str
    at: str
    previous: str
    kid: str
    signature: str
    """base64url."""

    @property
    def digest(self) -> str:
        """What the next head names as its `previous`."""
        return hashlib.sha256(_canonical(asdict(self))).hexdigest()

    def to_json(self) -> dict[str, Any]:
        """All members."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: object) -> Head:
        """The head with exactly these members; its signature is not checked. Raises ValueError."""
        members = _members(value, cls)
        if not _is_count(members["seq"]) or not all(
            isinstance(members[each], str) for each in members if each != "seq"
        ):
            raise ValueError("a member of the head is of another type")
        return cls(**members)


@dataclass(frozen=True, slots=True)
class Verified:
    """What a sound export holds: so many rows, from the first to the last number (0 and 0 where there are none)."""

    rows: int
    first: int
    last: int
    head: Head


class Tampered(Exception):
    """An export is not what a relay wrote; `str()` is one sentence. `seq` is the row where it shows, 0 if no row."""

    def __init__(self, seq: int, sentence: str) -> None:
        super().__init__(seq, sentence)
        self.seq = seq

    def __str__(self) -> str:
        return str(self.args[1])


def digest(previous: str, row: AuditRow) -> str:
    """The hash of a row, in hex, given that of the row before. Raises ValueError or TypeError: details are not JSON."""
    return hashlib.sha256(_canonical({"previous": previous, "row": row.to_json()})).hexdigest()


def sign_head(key: SigningKey, seq: int, hash: str, at: str, previous: str) -> Head:
    """The head of a chain whose last row is `seq`; `previous` is the `digest` of the head signed before, or GENESIS."""
    unsigned = Head(seq, hash, at, previous, key.kid, "")
    return Head(seq, hash, at, previous, key.kid, compact.encode(key.sign_bytes(_signed(unsigned))))


def row_line(row: AuditRow, hash: str) -> str:
    """A line of an export, without its end."""
    return _canonical({"row": row.to_json(), "hash": hash}).decode("ascii")


def first_line(seq: int, previous: str) -> str:
    """The first line of an export that begins with row `seq`, after one with the hash `previous`."""
    return _canonical({"first": {"seq": seq, "previous": previous}}).decode("ascii")


def head_line(head: Head) -> str:
    """The last line of an export, and each line of a file of heads, without its end."""
    return _canonical({"head": head.to_json()}).decode("ascii")


def read_heads(lines: Iterable[str]) -> list[Head]:
    """The heads in a file of heads, unchecked. Raises Tampered for a line that is no head."""
    return [_head_of(_read_line(line, 0), 0) for line in lines if line.strip()]


def verify_export(
    lines: Iterable[str], public_keys: Mapping[str, bytes], heads: Iterable[str] = (), *, first: int | None = None
) -> Verified:
    """What an export holds, once all of it is proven. Raises Tampered.

    Every head among `heads` (lines of a file of heads, the oldest first) has to agree with the export, and none may be
    newer than its end. Where `first` is given, the export has to begin with that row. Lines are read once, in order.
    """
    walk = _Walk(public_keys, _check_heads(read_heads(heads), public_keys))
    for line in lines:
        if line.strip():
            walk.line(_read_line(line, walk.last + 1))
    head = walk.finish()
    if first not in (None, walk.first):
        raise Tampered(walk.first, f"The export begins with row {walk.first}, not with row {first}.")
    rows = walk.last - walk.first + 1
    return Verified(rows, walk.first if rows else 0, walk.last if rows else 0, head)


class _Walk:
    """Goes through an export line by line; `last` and `hash` are the number and the hash of the row before."""

    def __init__(self, public_keys: Mapping[str, bytes], heads: list[Head]) -> None:
        self.first = 1
        self.last = 0
        self._hash = GENESIS
        self._begun = False
        self._head: Head | None = None
        self._public_keys = public_keys
        self._newest = max((head.seq for head in heads), default=0)
        self._said: dict[int, str] = {}
        for head in heads:
            if self._said.setdefault(head.seq, head.hash) != head.hash:
                raise Tampered(head.seq, f"Two signed heads tell different things of row {head.seq}.")

    def line(self, value: dict[str, Any]) -> None:
        """Take the next line."""
        if self._head is not None:
            raise Tampered(self.last + 1, "Something stands behind the signed head at the end of the export.")
        if value.keys() == {"row", "hash"}:
            self._row(value)
        elif value.keys() == {"head"}:
            self._head = self._end(_head_of(value, self.last))
        elif value.keys() == {"first"} and not self._begun:
            self._start(value["first"])
        else:
            raise Tampered(self.last + 1, f"After row {self.last} stands a line that is no row and no head.")
        self._begun = True

    def finish(self) -> Head:
        """The head at the end, when no line is left."""
        if self._head is None:
            raise Tampered(self.last + 1, f"The export was cut off after row {self.last}: the signed head is missing.")
        if self._newest > self.last:
            raise Tampered(
                self.last + 1, f"The export ends with row {self.last}, but a signed head knows of row {self._newest}."
            )
        return self._head

    def _start(self, value: object) -> None:
        if not isinstance(value, dict) or value.keys() != {"seq", "previous"}:
            raise Tampered(0, "The first line of the export does not say with which row it begins.")
        seq, previous = value["seq"], value["previous"]
        if not _is_count(seq) or seq < 1 or not isinstance(previous, str) or (seq == 1 and previous != GENESIS):
            raise Tampered(0, "The first line of the export does not say with which row it begins.")
        self.first, self.last, self._hash = seq, seq - 1, previous
        self._agree(seq - 1, previous)

    def _row(self, value: dict[str, Any]) -> None:
        expected = self.last + 1
        try:
            row = AuditRow.from_json(value["row"])
            hash = digest(self._hash, row)
        except ValueError as error:
            raise Tampered(expected, f"Row {expected} cannot be read: {error}.") from None
        if row.seq != expected:
            raise Tampered(expected, f"Row {expected} is missing or stands elsewhere: row {row.seq} is in its place.")
        if value["hash"] != hash:
            raise Tampered(expected, f"Row {expected} is not what was written: it does not fit its hash.")
        self._agree(expected, hash)
        self.last, self._hash = expected, hash

    def _agree(self, seq: int, hash: str) -> None:
        if self._said.get(seq, hash) != hash:
            raise Tampered(seq, f"Row {seq} is not what was written: a signed head has another hash for it.")

    def _end(self, head: Head) -> Head:
        _check_signature(head, self._public_keys)
        if head.seq != self.last:
            raise Tampered(
                self.last + 1, f"The export ends with row {self.last}, but its signed head is that of row {head.seq}."
            )
        if head.hash != self._hash:
            raise Tampered(self.last, "The signed head at the end of the export belongs to other rows than these.")
        return head


def _check_heads(heads: list[Head], public_keys: Mapping[str, bytes]) -> list[Head]:
    """Raises Tampered unless each is signed, and each but the first continues one before it that no other continues.

    The files of several nodes may stand one behind the other: each begins with a head that continues GENESIS.
    """
    open_ends: dict[str, Head] = {}
    signers: set[str] = set()
    for head in heads:
        _check_signature(head, public_keys)
        before = open_ends.pop(head.previous, None)
        begins = not signers or (head.previous == GENESIS and head.kid not in signers)
        if before is None and not begins:
            raise Tampered(head.seq, f"A head is missing before that of row {head.seq}, or that one was put there.")
        if before is not None and before.seq > head.seq:
            raise Tampered(head.seq, f"The head of row {head.seq} continues one of a later row.")
        open_ends[head.digest] = head
        signers.add(head.kid)
    return heads


def _check_signature(head: Head, public_keys: Mapping[str, bytes]) -> None:
    public = public_keys.get(head.kid)
    if public is None:
        raise Tampered(head.seq, f"The head of row {head.seq} is signed by a key that is not among the relay's.")
    try:
        # Other spellings of the same bytes are no signature: nothing in an export can be changed without being found.
        signature = compact.decode_strictly(head.signature)
    except ValueError:
        signature = b""
    if not signatures.verify(public, _signed(head), signature):
        raise Tampered(head.seq, f"The head of row {head.seq} is forged or was changed: its signature is wrong.")


def _signed(head: Head) -> bytes:
    return _DOMAIN + _canonical({name: value for name, value in asdict(head).items() if name != "signature"})


def _canonical(value: object) -> bytes:
    """The one spelling of a JSON value: sorted members, no spaces, ASCII. Raises ValueError, TypeError."""
    try:
        return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode("ascii")
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _read_line(line: str, seq: int) -> dict[str, Any]:
    try:
        value = compact.strict_json(line)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise Tampered(seq, f"The line for row {seq} is no JSON object." if seq else "A line is no JSON object.")
    return value


def _head_of(value: dict[str, Any], seq: int) -> Head:
    try:
        if value.keys() != {"head"}:
            raise ValueError("the line has other members than head")
        return Head.from_json(value["head"])
    except ValueError as error:
        raise Tampered(seq, f"A signed head cannot be read: {error}.") from None


def _members(value: object, cls: type[AuditRow] | type[Head]) -> dict[str, Any]:
    names = {each.name for each in fields(cls)}
    if not isinstance(value, dict) or value.keys() != names:
        raise ValueError(f"it does not have exactly the members {', '.join(sorted(names))}")
    return value


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value < 2**63
