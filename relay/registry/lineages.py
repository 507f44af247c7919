"""The lineages of keys, for many who ask at once: those who ask while a query is under way share the next one.

After a restart a thousand agents come back within seconds, and a query for each would be most of what admitting them
costs. No answer is older than its question: nobody joins a query that has begun.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy import BindParameter, Select, bindparam, literal, select

from relay.registry.database import Database
from relay.registry.errors import RegistryError
from relay.registry.records import KeyRecord
from relay.registry.rows import key_of
from relay.registry.schema import KEYS
from relay.registry.trees import unknown

MOST_AT_ONCE = 200


def _ancestors() -> Select[Any]:
    ids: BindParameter[Sequence[str]] = bindparam("key_ids", expanding=True)
    first = select(KEYS.c.id.label("asked"), KEYS.c.id, KEYS.c.parent_id, literal(0).label("depth"))
    tree = first.where(KEYS.c.id.in_(ids)).cte("lineages", recursive=True)
    above = select(tree.c.asked, KEYS.c.id, KEYS.c.parent_id, tree.c.depth + 1)
    tree = tree.union_all(above.join(tree, KEYS.c.id == tree.c.parent_id))
    return select(tree.c.asked, KEYS).join(tree, KEYS.c.id == tree.c.id).order_by(tree.c.asked, tree.c.depth.desc())


_ANCESTORS = _ancestors()


class Lineages:
    """One per registry. Whoever has its turn asks for everybody who waits."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._turn = asyncio.Lock()
        self._waiting: deque[tuple[str, asyncio.Future[list[KeyRecord]]]] = deque()

    async def of(self, key_id: str) -> list[KeyRecord]:
        """The key's ancestors, topmost first, and the key itself at the end. Raises NotFound, Unavailable."""
        answer: asyncio.Future[list[KeyRecord]] = asyncio.get_running_loop().create_future()
        self._waiting.append((key_id, answer))
        try:
            async with self._turn:
                while not answer.done():
                    await self._ask()
            return answer.result()
        finally:
            answer.cancel()  # of one who no longer waits; nothing happens to one that was given

    async def _ask(self) -> None:
        asked = [self._waiting.popleft() for _ in range(min(len(self._waiting), MOST_AT_ONCE))]
        asked = [(key_id, answer) for key_id, answer in asked if not answer.done()]
        try:
            found = await self._read({key_id for key_id, _ in asked})
        except RegistryError as error:
            for _, answer in asked:
                _fail(answer, error)
        except BaseException:  # whoever asked is gone; the others' questions are the next one's
            self._waiting.extendleft(reversed(asked))
            raise
        else:
            for key_id, answer in asked:
                if key_id not in found:
                    _fail(answer, unknown(key_id))
                elif not answer.done():
                    answer.set_result(list(found[key_id]))

    async def _read(self, ids: Collection[str]) -> dict[str, list[KeyRecord]]:
        found: dict[str, list[KeyRecord]] = defaultdict(list)
        async with self._database.reading() as read:
            for row in await read.rows(_ANCESTORS, {"key_ids": list(ids)}):
                found[row.asked].append(key_of(row))
        return dict(found)


def _fail(answer: asyncio.Future[list[KeyRecord]], error: Exception) -> None:
    if not answer.done():
        answer.set_exception(error)
        answer.exception()  # nobody may be waiting any more
