"""YAML as a person wrote it: each value with its line and the name of the member, so that a mistake says where it is.

Reads mappings, lists and scalars of one document and makes nothing of them: no tags, no merging, no environment. An
alias is its anchor's value once more; as nothing is unfolded that nobody asks for, none can grow. Knows no member.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from relay.cli.errors import Mistake
from relay.cli.output import harmless
from relay.cli.secretfiles import is_special, text_of

if TYPE_CHECKING:
    from yaml.nodes import Node

MOST = 128 * 1024
"""Bytes of a file."""
MOST_SHOWN = 60
_KEY = re.compile(r"mtk_(?:operator|master|child|visitor)_[\w.-]*")
_A_KEY = "holds a key, which does not belong here: put it into a file of its own, and name that with key_file"
_NUMBER = re.compile(r"[0-9]{1,9}")
_TRUE, _FALSE = ("true", "yes", "on"), ("false", "no", "off")
_TAG = "tag:yaml.org,2002:"


@dataclass(frozen=True, slots=True)
class Part:
    """One value of a file."""

    node: Node = field(repr=False)
    file: str
    name: str
    """Of the member, with those around it: `tunnels.api.rate`. Empty for the whole."""

    @property
    def line(self) -> int:
        """Where it begins, from 1."""
        return int(self.node.start_mark.line) + 1

    @property
    def place(self) -> str:
        """`relay.yaml:7: tunnels.api.rate`."""
        return f"{self.file}:{self.line}: {self.name}" if self.name else f"{self.file}:{self.line}"

    def mistake(self, sentence: str) -> Mistake:
        """What is wrong with it: `sentence` goes on after the name, without a stop."""
        return Mistake(f"{self.place} {sentence}.")

    def is_scalar(self) -> bool:
        """Whether it is neither a mapping nor a list."""
        return self._shape == "scalar"

    def members(self, form: str, known: Sequence[str] = ()) -> dict[str, Part]:
        """Of a mapping, in order; `form` says what it should be, with an example, for one that is none. Without `known`
        every name may stand. Raises `Mistake`.
        """
        if self._shape != "mapping":
            raise self.mistake(f"must be {form}")
        found: dict[str, Part] = {}
        for key, value in self.node.value:
            at = f"{self.file}:{int(key.start_mark.line) + 1}"
            if key.id != "scalar":
                raise Mistake(f"{at}: the name of a member must be a plain word, for example tunnels: …")
            name = str(key.value)
            full = f"{self.name}.{_short(name)}" if self.name else _short(name)
            if _KEY.search(name):
                raise Mistake(f"{at}: {self.name or 'a name'} {_A_KEY}.")
            if known and name not in known:
                raise Mistake(f"{at}: {full} is not known{_meant(name, known)}.")
            if name in found:
                raise Mistake(f"{at}: {full} stands twice, first in line {found[name].line}; leave one out.")
            found[name] = Part(value, self.file, full)
        return found

    def items(self, form: str) -> Iterator[Part]:
        """Of a list. Raises `Mistake`."""
        if self._shape != "sequence":
            raise self.mistake(f"must be {form}")
        for number, node in enumerate(self.node.value, 1):
            yield Part(node, self.file, f"{self.name}[{number}]")

    def text(self, form: str) -> str:
        """A scalar as it is written, whatever YAML takes it for. Raises `Mistake`."""
        text = str(self.node.value).strip() if self.is_scalar() and self._kind() != "null" else ""
        if _KEY.search(text):
            raise self.mistake(_A_KEY)
        if not text or not text.isprintable():
            raise self.wrong(form)
        return text

    def number(self, least: int, most: int, form: str) -> int:
        """Raises `Mistake`."""
        if self._kind() == "int" and _NUMBER.fullmatch(str(self.node.value)):
            number = int(self.node.value)
            if least <= number <= most:
                return number
        raise self.wrong(form)

    def flag(self, form: str) -> bool:
        """Raises `Mistake`."""
        word = str(self.node.value).lower() if self._kind() == "bool" else ""
        if word not in (*_TRUE, *_FALSE):
            raise self.wrong(form)
        return word in _TRUE

    def wrong(self, form: str) -> Mistake:
        """That it is not what it must be."""
        kinds = {"mapping": "a mapping", "sequence": "a list"}
        shown = kinds.get(self._shape) or ("empty" if self._kind() == "null" else _shown(str(self.node.value)))
        return self.mistake(f"must be {form}, but it is {shown}")

    @property
    def _shape(self) -> str:
        return str(getattr(self.node, "id", ""))

    def _kind(self) -> str:
        return str(self.node.tag).removeprefix(_TAG) if self.is_scalar() else ""


def read_yaml(path: Path) -> Part:
    """The one document of a file. Raises `Mistake`."""
    try:
        if is_special(path):
            raise Mistake(f"{path} is no regular file: name one with --file FILE.")
        with path.open("rb") as file:
            text = text_of(file, MOST, str(path))
    except OSError as error:
        raise Mistake(f"{path} cannot be read ({error.strerror}): name a file with --file FILE.") from None
    import yaml

    loader = None
    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        said = harmless((error.problem or error.context or "it cannot be read").strip())
        raise Mistake(f"{path}:{mark.line + 1 if mark else 1}: this is not YAML: {_KEY.sub('…', said)}.") from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise Mistake(f"{path}:{line}: a character that cannot be printed stands here: take it out.") from None
    except (ValueError, OverflowError):  # of the parser, for a character or a version that there cannot be
        line = loader.line + 1 if loader is not None else 1
        raise Mistake(f"{path}:{line}: this is not YAML: a number in an escape or a directive is too large.") from None
    except RecursionError:
        raise Mistake(f"{path} is nested too deep: is it the right file?") from None
    if node is None:
        raise Mistake(f"{path} is empty: write at least tunnels: and below it a line such as   mcp-me: 3000")
    return Part(node, str(path), "")


def _short(name: str) -> str:
    """A name that can be shown, whatever somebody has put there."""
    plain = harmless(name)
    return "…" if _KEY.search(plain) else plain if len(plain) <= MOST_SHOWN else plain[:MOST_SHOWN] + "…"


def _shown(text: str) -> str:
    return repr(_short(text))


def _meant(name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name.lower().replace("-", "_"), known, 1)
    if near:
        return f": did you mean {near[0]}"
    return f"; known here are {', '.join(known)}"
