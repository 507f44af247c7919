"""The private PostgreSQL: one for all who are inside, and nothing left when the last has gone, however it went."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from tests.support.longer import CHAOS

ROOT = Path(__file__).parents[2]
USER = """
import sys
from tests.support import postgres
with postgres.shared() as url:
    print(postgres.run_directory(), url, flush=True)
    sys.stdin.read()
"""

pytestmark = [
    pytest.mark.chaos,
    pytest.mark.skipif(not CHAOS, reason="every test with a database uses it"),
]


async def user(run: str) -> tuple[asyncio.subprocess.Process, Path, str]:
    """A process that is inside."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", USER, cwd=ROOT, stdin=-1, stdout=-1, env={**os.environ, "PYTEST_XDIST_TESTRUNUID": run}
    )
    assert process.stdout is not None
    directory, url = (await process.stdout.readline()).decode().split()
    return process, Path(directory), url


@pytest.mark.parametrize("how", [signal.SIGKILL, None])
async def test_one_for_all_and_nothing_left(how: signal.Signals | None) -> None:
    """Two at once have one server; it outlives the first, and ends with the second."""
    run = f"test-{os.getpid()}-{how}"
    (first, directory, url), (second, _, other) = await asyncio.gather(user(run), user(run))
    assert url == other
    for process in (first, second):
        assert (directory / "data" / "postmaster.pid").exists()
        if how is None:
            assert process.stdin is not None
            process.stdin.close()
        else:
            process.send_signal(how)
        await process.wait()
    async with asyncio.timeout(10):
        while directory.exists():
            await asyncio.sleep(0.02)
