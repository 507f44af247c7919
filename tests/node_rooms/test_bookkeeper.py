"""What traffic leaves behind is written: kept when the registry is away, once only, and all of it at the end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from relay.keys.chain import read_heads
from relay.keys.tokens import SigningKey
from relay.node.bookkeeper import HEADS_NAME, Bookkeeper, HeadsFile, Uses
from relay.node.errors import StartError
from relay.registry import Database, Note, Registry, Unavailable
from relay.registry.records import RELAY
from relay.tunnels.journal import Journal


@pytest.fixture
async def registry(tmp_path: Path) -> AsyncIterator[Registry]:
    database = await Database.open(f"sqlite:///{tmp_path}/relay.db")
    yield Registry(database, time.time)
    await database.close()


def a_bookkeeper(registry: Registry, tmp_path: Path) -> tuple[Bookkeeper, Journal, Uses]:
    journal, uses = Journal(time.time), Uses(time.time)
    key = SigningKey.generate()
    return Bookkeeper(registry, journal, uses, HeadsFile(tmp_path / HEADS_NAME), lambda: key), journal, uses


async def subjects(registry: Registry) -> list[str]:
    return [row.subject for row, _ in await registry.audit.read()]


async def test_notes_are_written_once_and_in_order(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also those that were refused the first time, and more than fit at once."""
    keeper, journal, _ = a_bookkeeper(registry, tmp_path)
    monkeypatch.setattr("relay.node.bookkeeper.MOST_AT_ONCE", 2)
    wanted = [str(number) for number in range(5)]
    for subject in wanted:
        journal.note(Note(RELAY, "tunnel.open", subject))
    record = registry.audit.record

    async def away(notes: object) -> None:
        raise Unavailable("away")

    monkeypatch.setattr(registry.audit, "record", away)
    with pytest.raises(Unavailable):
        await keeper.write()
    monkeypatch.setattr(registry.audit, "record", record)
    await keeper.write()
    await keeper.write()
    assert await subjects(registry) == wanted


async def test_a_note_that_can_never_be_written_keeps_no_other_back(
    registry: Registry, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It is left out, and told in the log by what it is about, not by what it holds; all others stay in order."""
    keeper, journal, _ = a_bookkeeper(registry, tmp_path)
    for number in range(7):
        journal.note(Note(RELAY, "tunnel.open", str(number), details={"secret": {number}} if number in (2, 5) else {}))
    await keeper.write()
    assert await subjects(registry) == ["0", "1", "3", "4", "6"]
    assert [record.levelname for record in caplog.records] == ["ERROR", "ERROR"]
    assert all("tunnel.open" in record.message and "secret" not in record.message for record in caplog.records)


async def test_uses_that_could_not_be_written_are_kept(registry: Registry, tmp_path: Path) -> None:
    """The newest use of each key counts."""
    clock = iter([1.0, 2.0, 3.0])
    uses = Uses(lambda: next(clock))
    uses.used("a", "one")
    uses.used("b", "one")
    taken = uses.take(10)
    uses.used("a", "two")
    uses.put_back(taken)
    assert uses.take(10) == {"a": (3.0, "two"), "b": (2.0, "one")}
    assert uses.take(10) == {}


async def test_the_end_leaves_nothing_unwritten(registry: Registry, tmp_path: Path) -> None:
    """Rows, the summary of strangers, and a signed head of all of it."""
    keeper, journal, _ = a_bookkeeper(registry, tmp_path)
    running = asyncio.ensure_future(keeper.run(time.time))
    journal.note(Note(RELAY, "tunnel.open", "demo"))
    journal.knocked("192.0.2.1", "checksum")
    keeper.finish()
    await asyncio.wait_for(running, 5)
    assert await subjects(registry) == ["demo", "192.0.2.0/24"]
    [head] = read_heads((tmp_path / HEADS_NAME).read_text().splitlines())
    assert (head.seq, head.hash) == await registry.audit.head()


def test_heads_form_a_chain_across_starts(tmp_path: Path) -> None:
    """A line that a crash cut short is dropped; no head for an end that has one."""
    path, key = tmp_path / "heads", SigningKey.generate()
    first = HeadsFile(path)
    first.open()
    first.extend(key, 1, "a" * 64, "t1")
    first.extend(key, 1, "a" * 64, "t1")
    first.extend(key, 2, "b" * 64, "t2")
    whole = path.read_text()
    path.write_text(whole + '{"head": {"seq": 3')
    second = HeadsFile(path)
    second.open()
    second.extend(key, 2, "b" * 64, "t3")
    assert path.read_text() == whole
    second.extend(key, 4, "c" * 64, "t4")
    heads = read_heads(path.read_text().splitlines())
    assert [head.seq for head in heads] == [1, 2, 4]
    assert [head.previous for head in heads] == ["0" * 64, heads[0].digest, heads[1].digest]


def test_two_processes_write_one_chain(tmp_path: Path) -> None:
    """While one takes over from the other; and a file that was taken away is begun anew, where the chain had come."""
    path, key = tmp_path / "heads", SigningKey.generate()
    old, new = HeadsFile(path), HeadsFile(path)
    old.open()
    new.open()
    old.extend(key, 1, "a" * 64, "t1")
    new.extend(key, 2, "b" * 64, "t2")
    new.extend(key, 3, "c" * 64, "t3")
    old.extend(key, 3, "c" * 64, "t4")
    old.extend(key, 4, "d" * 64, "t5")
    heads = read_heads(path.read_text().splitlines())
    assert [head.seq for head in heads] == [1, 2, 3, 4]
    assert [head.previous for head in heads] == ["0" * 64, *(head.digest for head in heads[:-1])]
    path.unlink()
    old.extend(key, 5, "e" * 64, "t6")
    old.extend(key, 6, "f" * 64, "t7")
    fifth, sixth = read_heads(path.read_text().splitlines())
    assert (fifth.previous, sixth.previous) == (heads[-1].digest, fifth.digest)


async def test_a_defect_does_not_end_the_books(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is told, and what waits is written at the next attempt."""
    keeper, journal, _ = a_bookkeeper(registry, tmp_path)
    told: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: told.append(context["exception"]))
    defect, record = KeyError("a defect"), registry.audit.record

    async def broken(notes: object) -> None:
        monkeypatch.setattr(registry.audit, "record", record)
        raise defect

    monkeypatch.setattr(registry.audit, "record", broken)
    monkeypatch.setattr("relay.node.bookkeeper.WRITE_EVERY", 0.001)
    running = asyncio.ensure_future(keeper.run(time.time))
    journal.note(Note(RELAY, "tunnel.open", "demo"))
    async with asyncio.timeout(5):
        while not await subjects(registry):
            await asyncio.sleep(0.001)
    keeper.finish()
    await asyncio.wait_for(running, 5)
    assert told == [defect]


@pytest.mark.parametrize("text", ["nonsense\n", '{"head": {}}\n', "é\n"])
def test_a_heads_file_that_is_none_stops_the_start(tmp_path: Path, text: str) -> None:
    """Somebody changed what must never be changed: the operator decides."""
    path = tmp_path / "heads"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(StartError, match="signed heads"):
        HeadsFile(path).open()
