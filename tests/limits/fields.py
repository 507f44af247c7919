"""A reader of structured fields (RFC 9651), what rate limit fields use of them: lists of strings with parameters.

Strict: what a conforming parser would refuse is an AssertionError here.
"""

from __future__ import annotations

import re

_KEY = r"[a-z*][a-z0-9_\-.*]*"
_STRING = r'"(?:[\x20\x21\x23-\x5b\x5d-\x7e]|\\["\\])*"'
_INTEGER = r"-?[0-9]{1,15}"
_PARAMETER = re.compile(rf";[ ]*({_KEY})=({_STRING}|{_INTEGER})")
_ITEM = re.compile(rf"({_STRING})((?:;[ ]*{_KEY}=(?:{_STRING}|{_INTEGER}))*)")


def parse(value: bytes) -> dict[str, dict[str, int | str]]:
    """Items of a list by their names, each with its parameters."""
    items: dict[str, dict[str, int | str]] = {}
    for text in re.split(r"[ \t]*,[ \t]*", value.decode("ascii")):
        found = _ITEM.fullmatch(text)
        assert found is not None, f"no item of a structured list: {text!r}"
        parameters = {key: _bare(bare) for key, bare in _PARAMETER.findall(found[2])}
        assert found[1] not in items
        items[found[1][1:-1]] = parameters
    return items


def _bare(text: str) -> int | str:
    return text[1:-1] if text.startswith('"') else int(text)
