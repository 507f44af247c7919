"""Passwords held against argon2id hashes: off the event loop, a few at once, with a memory for what was found.

A check costs tens of milliseconds and megabytes on purpose, and anybody may ask for one. So how many run and wait is
bounded, in all and for each address, wrong guesses slow their address down, and a password that was right a moment ago
is known by a keyed hash of it, never by itself. One project's checks run one after another, and those that nobody waits
for any more do not run.
"""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import secrets
from collections import Counter, OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from relay.edge.access import TooManyChecks

AT_ONCE = 2
MOST_WAITING = 64
MOST_PER_ADDRESS = 8
MOST_PER_PROJECT = 16
"""Of those that run and wait: a project chooses what its hashes cost, and must not make the others wait for it."""
REMEMBERED = 60.0
"""Seconds for which a password counts as right without a check."""
REMEMBERED_WRONG = 10.0
MOST_REMEMBERED = 4096
FREE_GUESSES = 5
"""Wrong ones of an address in a row, before the next has to wait."""
FIRST_DELAY, LONGEST_DELAY = 0.1, 5.0
FORGIVEN_AFTER = 60.0

Verify = Callable[[str, str], bool]


def fits(known: str, password: str) -> bool:
    """Whether a password fits a hash. Blocks, without holding the interpreter. Raises `TooManyChecks`: no memory."""
    from argon2.exceptions import Argon2Error, VerifyMismatchError  # here: few relays are asked for a password
    from argon2.low_level import Type, verify_secret

    try:
        return verify_secret(known.encode(), password.encode(), Type.ID)
    except VerifyMismatchError:
        return False
    except Argon2Error as error:
        if "emory" in str(error):
            raise TooManyChecks("no memory is left for the check of a password") from None
        return False  # a hash that argon2 cannot read fits nothing


class Passwords:
    """All checks of one node. `now` is a steady clock's, in seconds."""

    def __init__(self, now: Callable[[], float], verify: Verify = fits) -> None:
        self._now = now
        self._verify = verify
        self._secret = secrets.token_bytes(32)
        self._right: OrderedDict[bytes, float] = OrderedDict()
        self._wrong: OrderedDict[bytes, float] = OrderedDict()
        """Until when each is remembered; the oldest first."""
        self._running: dict[bytes, asyncio.Task[bool]] = {}
        self._asking: Counter[str] = Counter()
        self._wanted: Counter[bytes] = Counter()
        """How many wait for each check."""
        self._turns: dict[str, asyncio.Semaphore] = {}
        self._of_project: Counter[str] = Counter()
        """Checks that run or wait, of each project."""
        self._guesses: OrderedDict[str, tuple[int, float]] = OrderedDict()
        """Wrong ones in a row, and when the last was made, for each address; who guessed last stands last."""
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._pool: ThreadPoolExecutor | None = None

    def remembered(self, known: str, password: str) -> bool | None:
        """What an earlier check found; None where nothing is known."""
        mark, now = self._mark(known, password), self._now()
        if self._right.get(mark, now) > now:
            return True
        return False if self._wrong.get(mark, now) > now else None

    async def check(self, known: str, password: str, address: str, project: str = "") -> bool:
        """Whether a password fits a hash of `project`; `address` is who asks. Raises `TooManyChecks`."""
        mark, prefix = self._mark(known, password), prefix_of(address)
        if self._asking[prefix] >= MOST_PER_ADDRESS:
            raise TooManyChecks("too many passwords from one address")
        self._asking[prefix] += 1
        try:
            if delay := self._delay(prefix):
                await asyncio.sleep(delay)
            running = self._running.get(mark)
            if running is None:  # a browser opens several connections, each with the same password
                if len(self._running) >= AT_ONCE + MOST_WAITING or self._of_project[project] >= MOST_PER_PROJECT:
                    raise TooManyChecks("too many passwords at once")
                self._of_project[project] += 1
                running = self._running[mark] = asyncio.ensure_future(self._check(mark, known, password, project))
            self._wanted[mark] += 1
            try:
                right = await asyncio.shield(running)
            finally:
                self._wanted[mark] -= 1
                if not self._wanted[mark]:
                    del self._wanted[mark]
        finally:
            self._asking[prefix] -= 1
            if not self._asking[prefix]:
                del self._asking[prefix]
        self._note(prefix, right)
        return right

    async def _check(self, mark: bytes, known: str, password: str, project: str) -> bool:
        loop = asyncio.get_running_loop()
        turn = self._turns.setdefault(project, asyncio.Semaphore(1))
        try:
            async with turn, self._slots:
                if mark not in self._wanted:
                    return False
                if self._pool is None:
                    self._pool = ThreadPoolExecutor(AT_ONCE, "password")
                right = await loop.run_in_executor(self._pool, self._verify, known, password)
        finally:
            del self._running[mark]
            self._of_project[project] -= 1
            if not self._of_project[project]:
                del self._of_project[project], self._turns[project]
        memory, seconds = (self._right, REMEMBERED) if right else (self._wrong, REMEMBERED_WRONG)
        memory[mark] = self._now() + seconds
        memory.move_to_end(mark)
        if len(memory) > MOST_REMEMBERED:
            memory.popitem(last=False)
        return right

    def _mark(self, known: str, password: str) -> bytes:
        return hmac.digest(self._secret, b"%b\0%b" % (known.encode(), password.encode()), "sha256")

    def _delay(self, prefix: str) -> float:
        """Seconds that the next guess of an address has to wait."""
        count, last = self._guesses.get(prefix, (0, 0.0))
        if count <= FREE_GUESSES or self._now() - last > FORGIVEN_AFTER:
            return 0.0
        return float(min(FIRST_DELAY * 2 ** min(count - FREE_GUESSES - 1, 10), LONGEST_DELAY))

    def _note(self, prefix: str, right: bool) -> None:
        count, last = self._guesses.pop(prefix, (0, 0.0))
        if right:
            return
        now = self._now()
        self._guesses[prefix] = (1 if now - last > FORGIVEN_AFTER else count + 1, now)
        if len(self._guesses) > MOST_REMEMBERED:
            self._guesses.popitem(last=False)


def prefix_of(address: str) -> str:
    """What is one household's: an IPv4 address, or the /64 of an IPv6 one; anything else is itself."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped is not None:
            return str(parsed.ipv4_mapped)
        return str(ipaddress.ip_network((int(parsed), 64), strict=False))
    return str(parsed)
