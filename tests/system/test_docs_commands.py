"""Every command that a page shows in a block is run as it stands, against one real relay, and does what it should."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import pytest_asyncio

from tests.compose.shown import SHOWN
from tests.support.keys import Api, request_token
from tests.system.docpages import Desk, Host, blocks, handles_files, is_run, of_compose, public_id

pytestmark = pytest.mark.asyncio(loop_scope="module")

ROOT = Path(__file__).resolve().parents[2]
PAGES = (
    "README.md", "docs/clients.md", "docs/commands.md", "docs/keys.md", "docs/operating.md", "docs/security.md",
)  # fmt: skip
OPERATOR, THIEF = "mtk_operator_3fGh8KqLm2Np", "mtk_operator_9aBc7DeFg1Hi"
MASTER, CHILD = "mtk_master_3fGh8KqLm2Np", "mtk_child_3fGh8KqLm2Np"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def host(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Host]:
    host = Host(tmp_path_factory.mktemp("relay") / "data")
    await host.relay.start()
    try:
        yield host
    finally:
        await host.relay.stop()


@pytest_asyncio.fixture(loop_scope="module")
async def desk(host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Desk:
    project = re.sub("[^a-z]", "", Path(request.node.callspec.params["page"]).stem.lower())
    master = await host.relay.api.create_project(project)
    environment = {
        "HOME": str(tmp_path / "home"),
        "RELAY_URL": f"ws://127.0.0.1:{host.relay.agents_port}",
        "RELAY_DATA": str(host.relay.data),
    }
    desk = Desk(host, tmp_path, project, master, environment)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "backups").mkdir()
    write_secret("master.key", master.key)
    await a_head_was_signed(desk)
    for copy in ("audit-heads.jsonl", "heads-copy.jsonl"):
        shutil.copy(host.relay.data / "audit-heads.jsonl", copy)
    git("init -q")
    await a_leak(desk)
    return desk


async def a_leak(desk: Desk) -> None:
    """A living key in a file, and in the history."""
    Path("leak.txt").write_text(await desk.master.mint())
    git("add leak.txt")
    git("-c user.name=a -c user.email=a@example.com commit -qm leak")


def git(words: str) -> None:
    subprocess.run(["git", *words.split()], env=os.environ | {"GIT_CONFIG_GLOBAL": os.devnull}, check=True)


def write_secret(name: str, text: str) -> None:
    path = Path(name)
    path.touch(mode=0o600)
    path.write_text(text + "\n")


# ---- what has to be there before a block, and what has to be true after it


async def a_head_was_signed(desk: Desk) -> None:
    """As the relay does once a minute; nobody waits for that here."""
    head = await desk.api.do("GET", "/audit/head")
    (desk.host.relay.data / "audit-heads.jsonl").write_text(json.dumps(head) + "\n")


async def a_child_below(desk: Desk) -> None:
    desk.keys[MASTER] = (thief := await desk.api.mint_master(desk.project)).key
    desk.keys["below"] = await thief.mint()


async def a_master_key_was_replaced(desk: Desk) -> None:
    assert [await desk.state(name) for name in (MASTER, "below")] == ["revoked", "revoked"]
    await Api(desk.api.port, Path("master.key").read_text().strip()).mint()


async def a_child_key_was_replaced(desk: Desk) -> None:
    assert await desk.state(CHILD) == "revoked"
    await Api(desk.api.port, Path("child.key").read_text().strip()).do("GET", "/whoami")


async def the_leaked_operator(desk: Desk) -> None:
    desk.keys[OPERATOR] = desk.api.key


async def an_operator_key_was_replaced(desk: Desk) -> None:
    assert await desk.state(OPERATOR) == "expired"
    assert desk.api.id != public_id(desk.keys[OPERATOR])
    await desk.master.mint()  # what was below the old one goes on


async def a_thief_was_faster(desk: Desk) -> None:
    await the_leaked_operator(desk)
    write_secret("stolen.key", desk.keys[OPERATOR])
    rotate = f"relay keys rotate {public_id(desk.keys[OPERATOR])} --overlap 0s --key-file stolen.key --quiet"
    desk.keys[THIEF] = (await desk.run(rotate)).split()[-1]
    desk.keys["below"] = (await Api(desk.api.port, desk.keys[THIEF]).mint_master(desk.project)).key
    status, _ = await desk.api.ask("GET", "/projects")
    assert status == 401


async def the_thief_is_out(desk: Desk) -> None:
    assert [await desk.state(name) for name in (OPERATOR, THIEF, "below")] == ["expired", "revoked", "revoked"]
    await desk.master.mint()


async def keys_of_the_old_signer(desk: Desk) -> None:
    desk.keys["old"] = await desk.master.mint()


async def the_old_signer_is_out(desk: Desk) -> None:
    assert (await Api(desk.api.port, desk.keys["old"]).ask("GET", "/whoami"))[0] == 401
    await Api(desk.api.port, await desk.master.mint()).do("GET", "/whoami")


async def keys_kept_elsewhere(desk: Desk) -> None:
    """Of both signing keys, since this page has retired one."""
    signers = (await desk.api.do("GET", "/signers"))["items"]
    Path("audit-keys.txt").write_text("".join(f"{one['kid']}={one['public_key']}\n" for one in signers))


async def a_token_of_the_old_key(desk: Desk) -> None:
    desk.keys[MASTER] = (await desk.api.mint_master(desk.project)).key
    desk.keys["token"] = request_token(desk.keys[MASTER])


async def the_token_is_over(desk: Desk) -> None:
    assert (await Api(desk.api.port, desk.keys["token"]).ask("GET", "/whoami"))[0] == 401


async def the_lost_key_has_ended(desk: Desk) -> None:
    assert await desk.state(OPERATOR) == "expired"


async def a_key_revoked_since(desk: Desk) -> None:
    """And, for the next block, an operator key that is lost."""
    await desk.api.do("POST", f"/keys/{public_id(desk.keys['since'])}/revoke", {})
    desk.keys[OPERATOR] = desk.api.key
    (desk.host.relay.data / "operator.key").unlink()


async def a_key_before_the_backup(desk: Desk) -> None:
    desk.keys["since"] = await desk.master.mint()


async def it_is_valid_again(desk: Desk) -> None:
    assert await desk.state("since") == "valid"


Hook = Callable[[Desk], Awaitable[None]]
BEFORE: dict[tuple[str, int], Hook] = {
    ("A master key", 1): a_child_below,
    ("An operator key", 1): the_leaked_operator,
    ("An operator key", 2): a_thief_was_faster,
    ("A signing key", 1): keys_of_the_old_signer,
    ("A request token", 1): a_token_of_the_old_key,
    ("A copy of the database, a backup, a log", 1): keys_kept_elsewhere,
    ("Secret scanners", 1): a_leak,  # the page has retired the signer of the first one
    ("Backup and restore", 1): a_key_before_the_backup,
    ("Backup and restore", 2): a_key_revoked_since,
    ("The audit", 1): a_head_was_signed,
}
AFTER: dict[tuple[str, int], Hook] = {
    ("A child key", 1): a_child_key_was_replaced,
    ("A master key", 1): a_master_key_was_replaced,
    ("An operator key", 1): an_operator_key_was_replaced,
    ("An operator key", 3): the_thief_is_out,
    ("A signing key", 1): the_old_signer_is_out,
    ("A request token", 1): the_token_is_over,
    ("A lost key", 1): the_lost_key_has_ended,
    ("Backup and restore", 2): it_is_valid_again,
}


# ---- the tests


@pytest.mark.skipif(not (shutil.which("git") and shutil.which("curl")), reason="the pages use git and curl")
@pytest.mark.parametrize("page", PAGES)
async def test_the_commands_of_a_page(page: str, desk: Desk) -> None:
    """Each ends with 0, prints no traceback, and afterwards is true what the page says of it."""
    clean = dict(desk.environment)
    run = 0
    for block in blocks((ROOT / page).read_text(encoding="utf-8")):
        place = (block.heading, block.number)
        desk.environment = clean | {"XDG_CONFIG_HOME": str(desk.folder / f"home-{run}")}
        if place in BEFORE:
            await BEFORE[place](desk)
        lines = [await desk.real(line) for line in block.lines if is_run(line)]
        async with desk.host.stopped() if handles_files(lines) else contextlib.nullcontext():
            for line in lines:
                assert "Traceback" not in await desk.run(line)
        run += len(lines)
        if place in AFTER:
            await AFTER[place](desk)
    assert run >= 3


async def test_what_is_prepared_is_used() -> None:
    """Each block that something is prepared for, or checked after, stands on a page."""
    found = {(one.heading, one.number) for page in PAGES for one in blocks((ROOT / page).read_text(encoding="utf-8"))}
    assert BEFORE.keys() | AFTER.keys() <= found


async def test_lines_of_compose_are_known_to_its_tests() -> None:
    """Each that a page shows has a test that runs it, or a reason why none does; no other is listed."""
    pages = [blocks((ROOT / page).read_text(encoding="utf-8")) for page in PAGES]
    shown = {line.replace("  ", " ") for page in pages for block in page for line in block.lines if of_compose(line)}
    assert shown == set(SHOWN)
    for test in {test for test in SHOWN.values() if "::" in test}:
        file, _, name = test.partition("::")
        assert f"def {name}(" in (ROOT / "tests/compose" / file).read_text(encoding="utf-8")


async def test_promises_name_tests_that_exist() -> None:
    """What docs/promises.md says is shown by a test, is."""
    named = re.findall(r"`(\w+/test_\w+\.py)::(test_\w+)`", (ROOT / "docs/promises.md").read_text(encoding="utf-8"))
    assert len(named) > 20
    missing = [f"{file}::{test}" for file, test in named if f"def {test}(" not in (ROOT / "tests" / file).read_text()]
    assert missing == []
