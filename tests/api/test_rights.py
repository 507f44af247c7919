"""Who may what: the code's table is the page's, and what is decided of a thing follows from it."""

from __future__ import annotations

import pytest

from relay.api.operations import OPERATIONS
from relay.api.rights import MINTING, TABLE, Answer, Caller, Reach, Right, Thing, decide
from relay.keys.forms import Kind
from relay.keys.scopes import Scope
from tests.api.rightspage import right_of, rows

WORDS = {
    # reach: what the page says where the caller's own key is meant, a key below it, and anything else
    Reach.NOTHING: ("no", "no", "no"),
    Reach.ITSELF: ("itself", "no", "no"),
    Reach.LINEAGE: ("itself", "own project", "no"),
    Reach.PROJECT: ("itself", "own project", "own project"),
    Reach.EVERYTHING: ("yes", "yes", "yes"),
}


@pytest.mark.parametrize("row", rows())
def test_the_page_says_what_the_code_does(row: str) -> None:
    """Cell by cell."""
    right, about = right_of(row)
    place = {"itself": 0, "descendant": 1}.get("itself" if right is Right.WHOAMI else about, 2)
    assert rows()[row] == {kind: WORDS[TABLE[kind][right]][place] for kind in Kind}


def test_nothing_is_missing_on_the_page() -> None:
    """Every right has a row, every operation with a key asks for a right, and every right is asked for."""
    assert {right_of(row)[0] for row in rows()} == set(Right)
    assert {right for one in OPERATIONS for right in one.rights} == set(Right)
    assert {one.id for one in OPERATIONS if not one.rights} == {"relay.show"}
    assert set(MINTING) == set(Kind) - {Kind.OPERATOR}


def caller(kind: Kind, scope: Scope | None = None) -> Caller:
    """Of the project `own`."""
    project = None if kind is Kind.OPERATOR else "own"
    return Caller(kind, f"mtk_{kind}_000000000000", project, (), scope or Scope(), None, "192.0.2.1")


MASTER, CHILD, OPERATOR = caller(Kind.MASTER), caller(Kind.CHILD), caller(Kind.OPERATOR)
NARROW = caller(Kind.MASTER, Scope(("mcp-*",)))


def key(project: str | None, key_id: str, *line: str) -> Thing:
    """A key with those above it."""
    return Thing(project, key_id, frozenset((key_id, *line)))


@pytest.mark.parametrize(
    ("who", "right", "thing", "expected"),
    [
        (OPERATOR, Right.PROJECTS_DELETE, Thing("own"), Answer.ALLOWED),
        (OPERATOR, Right.KEYS_REVOKE, key(None, "x"), Answer.ALLOWED),
        (MASTER, Right.PROJECTS_SHOW, Thing("own"), Answer.ALLOWED),
        (MASTER, Right.PROJECTS_SHOW, Thing("foreign"), Answer.HIDDEN),
        (MASTER, Right.PROJECTS_DELETE, Thing("own"), Answer.FORBIDDEN),
        (MASTER, Right.PROJECTS_DELETE, Thing("foreign"), Answer.FORBIDDEN),
        (MASTER, Right.KEYS_SHOW, key(None, "mtk_operator_000000000000"), Answer.HIDDEN),
        (MASTER, Right.KEYS_REVOKE, key("own", MASTER.key_id), Answer.ALLOWED),
        (MASTER, Right.KEYS_REVOKE, key("own", "x", MASTER.key_id), Answer.ALLOWED),
        (MASTER, Right.KEYS_REVOKE, key("own", "x", "y"), Answer.FORBIDDEN),
        (MASTER, Right.KEYS_REVOKE, key("foreign", "x", MASTER.key_id), Answer.HIDDEN),
        (MASTER, Right.KEYS_ROTATE, key("own", MASTER.key_id), Answer.ALLOWED),
        (MASTER, Right.KEYS_ROTATE, key("own", "x", MASTER.key_id), Answer.FORBIDDEN),
        (MASTER, Right.SUBDOMAINS_RELEASE, Thing("own", name="web"), Answer.ALLOWED),
        (NARROW, Right.SUBDOMAINS_RELEASE, Thing("own", name="web"), Answer.FORBIDDEN),
        (NARROW, Right.SUBDOMAINS_RELEASE, Thing("own", name="mcp-a"), Answer.ALLOWED),
        (NARROW, Right.TUNNELS_CLOSE, Thing("foreign", name="mcp-a"), Answer.HIDDEN),
        (CHILD, Right.KEYS_SHOW, key("own", CHILD.key_id), Answer.ALLOWED),
        (CHILD, Right.KEYS_SHOW, key("own", "x"), Answer.HIDDEN),
        (CHILD, Right.KEYS_REVOKE, key("own", "x", CHILD.key_id), Answer.HIDDEN),
        (CHILD, Right.KEYS_MINT_CHILD, Thing("own"), Answer.FORBIDDEN),
        (caller(Kind.VISITOR), Right.WHOAMI, key("own", "x"), Answer.FORBIDDEN),
    ],
)
def test_what_is_decided(who: Caller, right: Right, thing: Thing, expected: Answer) -> None:
    """Allowed, forbidden, or hidden: that it exists is told only to who could be shown it."""
    assert decide(who, right, thing) is expected
