"""How the doctor looks: each look by itself, all of them within a time, and what people and programs are told."""

from __future__ import annotations

import asyncio
import io

import pytest

from relay.cli.doctoring import findings
from relay.cli.doctoring.errors import Trouble
from relay.cli.doctoring.findings import Examination, Finding, people
from relay.cli.doctoring.ways import covers
from relay.cli.output import Lines


@pytest.fixture
def found() -> Examination:
    return Examination(lambda one: None)


async def gives(value: str) -> str:
    return value


async def fails(error: Exception) -> str:
    raise error


async def hangs() -> None:
    await asyncio.Event().wait()


async def test_a_look_that_fails_is_a_finding(found: Examination) -> None:
    """In trouble, too slow, or by a defect: the next one is taken all the same, and no text of a defect is shown."""
    assert await found.look("one", 1.0, gives("well")) == "well"
    assert await found.look("two", 1.0, fails(Trouble("it is bad", "mend it", "warn"))) is None
    await found.look("three", 0.01, hangs())
    assert await found.look("four", 1.0, fails(RuntimeError("secret"))) is None
    assert [(one.check, one.level) for one in found.findings] == [("two", "warn"), ("three", "fail"), ("four", "fail")]
    assert (found.findings[0].message, found.findings[0].next_step) == ("It is bad.", "mend it.")
    assert "secret" not in repr(found.findings)
    assert found.failed


async def test_all_of_it_ends_in_time(found: Examination, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever hangs."""
    monkeypatch.setattr(findings, "ALL_WITHIN", 0.01)
    await found.all_of(hangs())
    assert [(one.check, one.level) for one in found.findings] == [("doctor", "fail")]


def test_what_people_read() -> None:
    """Columns, the next step below its finding, nothing that steers a terminal, no colour where there is none."""
    stream = io.StringIO()
    tell = people(Lines(stream), ("relay.tls", "key"))
    tell(Finding("key", "fail", "It is \x1b[31mred.", "Mend it."))
    tell(Finding("relay.tls", "ok", "Well."))
    assert stream.getvalue().splitlines() == [
        "fail     key        It is \\x1b[31mred.",
        "                    → Mend it.",
        "ok       relay.tls  Well.",
    ]


def test_what_programs_read() -> None:
    """The same members each time."""
    told = Finding("key", "ok", "Well.", "", {"id": "mtk_child_1"}).as_json()
    assert told == {
        "check": "key", "level": "ok", "message": "Well.", "next_step": None, "details": {"id": "mtk_child_1"},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("host", "is_covered"),
    [
        ("t.example.com", True),
        ("example.com", True),
        ("a.t.example.com", False),
        ("other.com", False),
        ("127.0.0.1", True),
        ("127.0.0.2", False),
    ],
)
def test_what_a_certificate_covers(host: str, is_covered: bool) -> None:
    """A star stands for one label, and for no address."""
    assert covers(("example.com", "*.example.com", "127.0.0.1"), host) is is_covered
