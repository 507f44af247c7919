"""The protocol page and the code say the same: frames, states, codes, limits, and the bytes of its worked example."""

from __future__ import annotations

import re
from enum import IntEnum
from pathlib import Path

import pytest

from relay.exchange import heads
from relay.wire import access, frames, hello, limits
from relay.wire.errors import AwayCode, LocalProtocolError, ResetCode
from relay.wire.states import TRANSITIONS, Signal, State
from tests.wire.golden import load

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "protocol.md").read_text(encoding="utf-8")


def section(title: str) -> str:
    """The text of the section whose heading ends with `title`, down to the next heading of its rank."""
    match = re.search(rf"^(#+) [\d.]+ {re.escape(title)}$(.*?)(?=^#{{1,2}} |\Z)", PAGE, re.M | re.S)
    assert match is not None, title
    return match[2]


def table(title: str, first: str) -> list[list[str]]:
    """The rows of the table in a section whose first column is called `first`, back ticks removed."""
    lines = iter(section(title).splitlines())
    for line in lines:
        if line.startswith(f"| {first} |"):
            break
    else:
        raise AssertionError(f"no table {first} in {title}")
    next(lines)
    rows = []
    for line in lines:
        if not line.startswith("|"):
            break
        rows.append([cell.strip().replace("`", "") for cell in line.strip("|").split("|")])
    return rows


def accepted(kind: int, stream: int, length: int) -> bool:
    try:
        frames.encode(kind, stream, bytes(length))
    except LocalProtocolError:
        return False
    return True


FRAMES = table("Frames", "type")


def test_every_type_of_frame_is_in_the_table() -> None:
    """Numbers and names of the table are those of the code."""
    assert {int(row[0], 16): row[1] for row in FRAMES} == frames.NAMES


@pytest.mark.parametrize("row", FRAMES, ids=lambda row: row[1])
def test_a_frames_streams_and_lengths_are_those_of_the_table(row: list[str]) -> None:
    """The shortest and the longest payload are accepted on the streams that the table names, and nothing beyond."""
    kind = int(row[0], 16)
    least, most = map(int, row[4].split("–"))
    session, stream = {"0": (True, False), ">0": (False, True), "any": (True, True)}[row[3]]
    good = 1 if stream else 0
    assert (accepted(kind, 0, least), accepted(kind, 1, least)) == (session, stream)
    assert (accepted(kind, good, least), accepted(kind, good, most)) == (True, True)
    assert (accepted(kind, good, least - 1) if least else False, accepted(kind, good, most + 1)) == (False, False)


def test_stream_states_are_those_of_the_table() -> None:
    """Each cell of the table of states is the code's step, or says that there is none."""
    signals = [*Signal]
    columns = re.search(r"^\| state \|(.*)\|$", section("Streams"), re.M)
    assert columns is not None
    names = [name.strip().upper().replace("RECEIVE", "RECV").replace(" ", "_") for name in columns[1].split("|")]
    assert names == [signal.name for signal in signals]
    rows = table("Streams", "state")
    assert [row[0] for row in rows] == [state.name for state in State]
    for name, *cells in rows:
        for signal, cell in zip(signals, cells, strict=True):
            after = TRANSITIONS[State[name]].get(signal)
            if after is not None:
                assert cell == after.name
            elif signal.name.startswith("SEND"):
                assert cell == "never"
            else:
                assert cell == ("late" if name == "CLOSED" else "error")


@pytest.mark.parametrize(("title", "codes"), [("Reset codes", ResetCode), ("Going away", AwayCode)])
def test_codes_are_those_of_the_table(title: str, codes: type[IntEnum]) -> None:
    """Numbers and names of a table of codes are those of the code."""
    assert {row[1]: int(row[0]) for row in table(title, "code")} == {code.name: code.value for code in codes}


def test_limits_are_those_of_the_table() -> None:
    """Each limit of the page is the constant that the code checks."""
    told = {row[0]: int(row[1]) for row in table("Limits", "limit")}
    assert told == {
        "message, reassembled": frames.MAX_MESSAGE,
        "payload of DATA": frames.MAX_DATA,
        "payload of OPEN, HEAD, END": frames.MAX_HEAD,
        "payload of HELLO, REFUSED, RENEW": frames.MAX_HELLO,
        "payload of WELCOME, RENEWED": frames.MAX_WELCOME,
        "payload of an unknown frame": frames.MAX_EXTENSION,
        "detail of RESET and GOING_AWAY": frames.MAX_DETAIL,
        "fields of a head or trailers": heads.MAX_FIELDS,
        "informational heads before the final one": heads.MOST_INFORMATIONAL,
        "stream number": frames.MAX_STREAM_ID,
        "credit outstanding": frames.MAX_CREDIT,
        "first window of a stream": frames.STREAM_WINDOW,
        "first window of a session": frames.SESSION_WINDOW,
        "received and not consumed, a session": frames.MAX_SESSION_WINDOW,
        "links of an instance": hello.MAX_SLOTS,
        "names of a session": hello.MAX_NAMES,
        "key, characters": hello.MAX_KEY,
        "users of a name": access.MAX_USERS,
        "user, characters": access.MAX_USER,
        "hash of a password, characters": access.MAX_HASH,
        "requests a second of a name": limits.MOST_RATE,
    }


@pytest.mark.parametrize(
    ("title", "body"),
    [("HELLO", hello.Hello), ("WELCOME", hello.Welcome), ("REFUSED", hello.Refused)],
)
def test_members_are_those_of_the_table(title: str, body: type[hello.Hello]) -> None:
    """The members of a handshake's body are those of its table; what is said of one tunnel stands with the tunnel."""
    members = {row[0] for row in table(title, "member")}
    documented = {member.removeprefix("tunnels[].") for member in members if "[]" not in member or "access" in member}
    assert {member for member in documented if "[]" not in member} == set(body.__dataclass_fields__)


def test_the_subprotocol_and_version_are_those_of_the_page() -> None:
    """The page is about the version and the subprotocol that the code speaks."""
    assert PAGE.startswith(f"# The wire protocol, version {hello.VERSION}\n")
    assert f"subprotocol `{hello.SUBPROTOCOL}`" in PAGE


def test_the_worked_example_is_its_vector() -> None:
    """The bytes on the page are those of example.json, which decode to their frames; remarks name types and sizes."""
    blocks = re.findall(r"^```text\n(\w+) to \w+\n(.*?)^```", section("A worked example"), re.M | re.S)
    written = [
        (sender, bytes.fromhex(" ".join(line.split("#")[0] for line in block.splitlines()))) for sender, block in blocks
    ]
    messages = load("example")["messages"]
    assert written == [(message["from"], bytes.fromhex(message["message"])) for message in messages]
    for (_, block), message in zip(blocks, messages, strict=True):
        for frame in message["frames"]:
            size = len(frame["payload"]) // 2
            assert f"# {frame['type']}, stream {frame['stream']}, {size} bytes" in block


def test_links_inside_the_page_lead_somewhere() -> None:
    """Every link to a section has its heading."""
    anchors = {
        re.sub(r"[^a-z0-9 -]", "", heading.lower()).replace(" ", "-")
        for heading in re.findall(r"^#+ (.*)$", PAGE, re.M)
    }
    links = set(re.findall(r"\]\(#([^)]*)\)", PAGE))
    assert links
    assert links <= anchors
