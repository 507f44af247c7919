"""A signing key that was retired: what it signed ends here, whoever said so, and the node signs by another one."""

from __future__ import annotations

import stat
from dataclasses import replace
from pathlib import Path

import pytest

from relay.keys.chain import read_heads
from relay.keys.tokens import SigningKey
from relay.node.assemble import Node
from relay.node.bookkeeper import HEADS_NAME
from relay.node.errors import StartError
from relay.node.ground import lay
from relay.node.keyfiles import SIGNING_NAME, signing_key
from relay.registry import Actor, Registry, Unavailable
from relay.settings import ServeSettings
from relay.tunnels.admission import Principal
from relay.tunnels.hub import Link
from tests.tunnels.test_hub import a_session

BY = Actor("mtk_operator_x")


def live_link(node: Node, signer: SigningKey, name: str) -> Link:
    """A session by a key that this one signed."""
    link = Link(a_session(), name, 0, 1, Principal("p", f"key of {name}", signer=signer.kid), (name,))
    node.hub.attach(link)
    return link


async def test_another_key_takes_the_place_of_the_nodes_own(node: Node, other: Registry, tmp_path: Path) -> None:
    """At the next poll: in its file, in the registry, and for whatever is signed from then on; sessions by the old one
    are cut, and requests wait for their agents. The next start finds the new one.
    """
    old = node.office.signing.key()
    link = live_link(node, old, "demo")
    await other.signers.retire(BY, old.kid)
    await node.follower.poll()
    new = node.office.signing.key()
    assert new.kid != old.kid
    assert signing_key(tmp_path) == new
    assert stat.S_IMODE((tmp_path / SIGNING_NAME).stat().st_mode) == 0o600
    assert [(one.kid, one.retired_at is None) for one in await other.signers.all()] == [
        (old.kid, False), (new.kid, True),
    ]  # fmt: skip
    assert dict(node.office.verifier.signers) == {new.kid: new.public}
    assert (link.session.ended, node.hub.tunnels, node.hub.known("demo")) == (True, {}, True)
    await node.bookkeeper.sign(0.0)
    [head] = read_heads((tmp_path / HEADS_NAME).read_text().splitlines())
    assert head.kid == new.kid
    await node.follower.poll()
    assert node.office.signing.key() == new
    async with lay(ServeSettings(data=tmp_path), 8080) as ground:
        assert ground.signer == new


async def test_of_another_nodes_key(node: Node, other: Registry) -> None:
    """What that one signed ends, and nothing else."""
    own, theirs = node.office.signing.key(), SigningKey.generate()
    await other.signers.add(theirs.kid, theirs.public, "elsewhere")
    await node.follower.poll()
    assert node.office.verifier.signers == {own.kid: own.public, theirs.kid: theirs.public}
    links = [live_link(node, own, "ours"), live_link(node, theirs, "theirs")]
    await other.signers.retire(BY, theirs.kid)
    await node.follower.poll()
    assert [link.session.ended for link in links] == [False, True]
    assert (node.office.verifier.signers, node.office.signing.key()) == ({own.kid: own.public}, own)


async def test_a_list_that_was_read_before_brings_none_back(node: Node) -> None:
    """Neither a retired one counts again, nor is one forgotten that the node has made meanwhile."""
    registered = node.office.registry.signers
    old, stale = node.office.signing.key(), await registered.all()
    await registered.retire(BY, old.kid)
    await node.office.signing.learn(await registered.all())
    new = node.office.signing.key()
    await node.office.signing.learn(stale)
    await node.office.signing.learn([replace(one, retired_at=None) for one in await registered.all()])
    assert (node.office.verifier.signers, node.office.signing.key()) == ({new.kid: new.public}, new)


async def test_without_a_place_for_another_key(node: Node, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Nothing is signed, by the old one least of all, until a poll finds room for it; the log says it once."""
    registered = node.office.registry.signers
    old = node.office.signing.key()
    (tmp_path / "signing.new").mkdir()
    await registered.retire(BY, old.kid)
    await node.office.signing.learn(await registered.all())
    await node.follower.poll()
    with pytest.raises(Unavailable, match="retired"):
        node.office.signing.key()
    assert signing_key(tmp_path) == old
    assert len(await registered.all()) == 1
    assert caplog.text.count("no signing key") == 1
    (tmp_path / "signing.new").rmdir()
    await node.follower.poll()
    assert signing_key(tmp_path) == node.office.signing.key() != old


async def test_a_retired_key_stops_the_start(tmp_path: Path) -> None:
    """It came back from a backup, say; the operator is told which file to remove."""
    settings = ServeSettings(data=tmp_path)
    async with lay(settings, 8080) as ground:
        await ground.registry.signers.retire(BY, ground.signer.kid)
    with pytest.raises(StartError, match=rf"{ground.signer.kid} was retired .* Remove {tmp_path / SIGNING_NAME}:"):
        async with lay(settings, 8080):
            pass
    (tmp_path / SIGNING_NAME).unlink()
    async with lay(settings, 8080):
        pass
