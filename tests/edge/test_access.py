"""Who may come in: what counts as a credential, what passes without one, and what reaches the local service of it."""

from __future__ import annotations

import asyncio
import base64
import json
from dataclasses import dataclass

import pytest

from relay.edge.access import Let, No, Password, TooManyChecks, Verdict, decide
from relay.edge.answers import Code
from relay.edge.gate import VisitorGate
from relay.edge.guard import Request, check
from relay.edge.services import KeyRefusal
from relay.exchange.heads import Fields
from relay.keys.tokens import SigningKey
from relay.wire.access import MAX_PASSWORD, AccessRules
from relay.wire.errors import ResetCode
from tests.edge.keyring import DOMAIN, Keyring
from tests.edge.visits import GET, HOST, Agent, Place, Visit, post
from tests.mux.ends import settle
from tests.support.clock import virtual

HASH = "$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHRzYWx0c2FsdA$pTsPpGxrQy0KZ8dvmSOsbQaqEFl8WWxnYTUlOhN9lQo"
OTHER = HASH.replace("t=2", "t=3")
KEYS = AccessRules(True)
BASIC = AccessRules(False, (("ann", HASH), ("bo b", OTHER)))
BOTH = AccessRules(True, BASIC.basic)


class Slow(VisitorGate):
    """A gate whose passwords are right where a test says so, once the test lets it go on."""

    def __init__(self, keys: Keyring | None = None) -> None:
        keys = keys or Keyring()
        super().__init__(keys.verifier, keys.revoked.__contains__, keys.clock)
        self.right: set[tuple[str, str]] = set()
        self.known: set[tuple[str, str]] = set()
        self.asked: list[tuple[str, str]] = []
        self.go_on = asyncio.Event()
        self.fail: Exception | None = None

    def remembered(self, shown: Password) -> bool | None:
        return True if (shown.password, shown.hash) in self.known else None

    async def password(self, shown: Password, address: str) -> bool:
        self.asked.append((shown.password, address))
        await self.go_on.wait()
        if self.fail is not None:
            raise self.fail
        return (shown.password, shown.hash) in self.right


@dataclass
class Tunnel:
    """What a decision asks of a tunnel."""

    access: AccessRules | None
    name: str = "demo"
    project: str = "default"


def a_request(
    *fields: tuple[bytes, bytes], method: bytes = b"GET", target: bytes = b"/", version: str = "1.1"
) -> Request:
    return check(method, target, version, [(b"Host", b"demo.tunnels.localhost"), *fields])


def basic(user: str, password: str) -> bytes:
    """The value of `Authorization`."""
    return b"Basic " + base64.b64encode(f"{user}:{password}".encode())


def authorization(value: bytes, name: bytes = b"Authorization") -> tuple[bytes, bytes]:
    return name, value


def refused(decision: object) -> No:
    assert isinstance(decision, No)
    return decision


# ---- visitor keys


@pytest.mark.parametrize("scheme", [b"Bearer ", b"bearer ", b"BEARER   "])
@pytest.mark.parametrize("name", [b"Authorization", b"aUTHORIZATION"])
def test_a_visitor_key_lets_in_and_stays_behind(scheme: bytes, name: bytes) -> None:
    """However it is written; the local service sees everything but the credential, and the key is named."""
    keys = Keyring()
    grant = keys.grant()
    request = a_request((b"Accept", b"*/*"), (name, scheme + keys.sign(grant).encode()), (b"X-A", b"1"))
    let = decide(request, Tunnel(KEYS), keys.gate)
    assert isinstance(let, Let)
    assert let.key_id == grant.key_id
    assert let.request.fields == [(b"Host", b"demo.tunnels.localhost"), (b"Accept", b"*/*"), (b"X-A", b"1")]
    assert len(request.fields) == 4  # the head may come again, and means the same then
    again = decide(request, Tunnel(KEYS), keys.gate)
    assert isinstance(again, Let)
    assert again.request is let.request


def test_a_key_for_another_tunnel_is_forbidden() -> None:
    """403, since no other form of the same credential would help."""
    keys = Keyring()
    text = keys.sign(keys.grant(tunnel="other"))
    no = refused(decide(a_request(authorization(b"Bearer " + text.encode())), Tunnel(BOTH), keys.gate))
    assert (no.code, no.challenges) == (Code.FORBIDDEN, ())


@pytest.mark.parametrize("text", [b"", b"mtk_visitor_x", b"some-token-of-the-local-service", b"a b c", b"\xff\xfe"])
def test_a_bad_key_is_told_so(text: bytes) -> None:
    """401 with invalid_token; nothing of what was sent is repeated."""
    no = refused(decide(a_request(authorization(b"Bearer " + text)), Tunnel(KEYS), Keyring().gate))
    assert no.code is Code.UNAUTHORIZED
    assert no.challenges == (b'Bearer realm="demo.tunnels.localhost", error="invalid_token"',)
    assert not text or text not in no.detail.encode() + no.challenges[0]


# ---- challenges


@pytest.mark.parametrize(
    ("rules", "challenges"),
    [
        (KEYS, [b'Bearer realm="demo.tunnels.localhost"']),
        (BASIC, [b'Basic realm="demo.tunnels.localhost", charset="UTF-8"']),
        (BOTH, [b'Bearer realm="demo.tunnels.localhost"', b'Basic realm="demo.tunnels.localhost", charset="UTF-8"']),
    ],
)
@pytest.mark.parametrize("fields", [[], [(b"Authorization", b"Digest x")], [(b"Authorization", b"")]])
def test_the_challenge_names_the_ways_in(rules: AccessRules, challenges: list[bytes], fields: Fields) -> None:
    """One for each way that the tunnel has, and no word of an error where none of its credentials was sent."""
    no = refused(decide(a_request(*fields), Tunnel(rules), Keyring().gate))
    assert (no.code, list(no.challenges)) == (Code.UNAUTHORIZED, challenges)


def test_the_other_tunnels_way_does_not_let_in() -> None:
    """A password where keys are asked for, a key where passwords are."""
    keys = Keyring()
    key = authorization(b"Bearer " + keys.sign(keys.grant()).encode())
    assert refused(decide(a_request(key), Tunnel(BASIC), keys.gate)).code is Code.UNAUTHORIZED
    assert (
        refused(decide(a_request(authorization(basic("ann", "x"))), Tunnel(KEYS), keys.gate)).code is Code.UNAUTHORIZED
    )


@pytest.mark.parametrize("target", [b"/", b"/.well-known/x"])
def test_two_credentials_are_a_bad_request(target: bytes) -> None:
    """Who reads the first and who reads the last would see different visitors."""
    keys = Keyring()
    key = authorization(b"Bearer " + keys.sign(keys.grant()).encode())
    no = refused(decide(a_request(key, (b"authorization", b"x"), target=target), Tunnel(BOTH), keys.gate))
    assert no.code is Code.BAD_REQUEST


# ---- passwords


def test_a_password_is_held_against_its_users_hash() -> None:
    """Each user's own; one that there is not is held against another's, always the same, and is never right."""
    gate = Slow()
    for user, known in BASIC.basic:
        shown = decide(a_request(authorization(basic(user, "pass:word"))), Tunnel(BASIC), gate)
        assert isinstance(shown, Password)
        assert (shown.password, shown.hash, shown.known) == ("pass:word", known, True)
    strangers = [decide(a_request(authorization(basic(f"user {n}", "x"))), Tunnel(BASIC), gate) for n in range(20)]
    assert {one.hash for one in strangers if isinstance(one, Password) and not one.known} == {HASH, OTHER}
    again = decide(a_request(authorization(basic("user 0", "x"))), Tunnel(BASIC), gate)
    assert again == strangers[0]
    gate.known = {("x", HASH), ("x", OTHER)}
    assert isinstance(decide(a_request(authorization(basic("ann", "x"))), Tunnel(BASIC), gate), Let)
    assert refused(decide(a_request(authorization(basic("user 0", "x"))), Tunnel(BASIC), gate)).code == "unauthorized"


def test_a_proven_password_counts_for_its_hash_only() -> None:
    """What was found right while the request waited is held against the rules as they are now."""
    gate = Slow()
    request = a_request(authorization(basic("ann", "x")))
    shown = decide(request, Tunnel(BASIC), gate)
    assert isinstance(shown, Password)
    let = decide(request, Tunnel(BASIC), gate, shown)
    assert isinstance(let, Let)
    assert [name for name, _ in let.request.fields] == [b"Host"]
    changed = AccessRules(False, (("ann", OTHER),))
    assert isinstance(decide(request, Tunnel(changed), gate, shown), Password)
    assert isinstance(decide(request, Tunnel(KEYS), gate, shown), No)


@pytest.mark.parametrize(
    "value",
    [
        b"Basic",
        b"Basic ",
        b"Basic !!!!",
        b"Basic YW5uOng",
        b"Basic YW5uOng=\xff",
        b"Basic " + base64.b64encode(b"ann"),
        b"Basic " + base64.b64encode(b"ann:\xff"),
        b"Basic " + base64.b64encode(b"ann:" + b"x" * (MAX_PASSWORD + 1)),
    ],
)
def test_what_is_no_user_with_a_password_is_wrong_at_once(value: bytes) -> None:
    """Not Base64, no colon, not UTF-8, longer than a password is: nothing is computed for it."""
    gate = Slow()
    assert refused(decide(a_request(authorization(value)), Tunnel(BASIC), gate)).code is Code.UNAUTHORIZED


def test_both_spellings_of_a_letter_are_one() -> None:
    """RFC 7617 §2.1: normal form C, whatever a keyboard sends."""
    gate = Slow()
    rules = AccessRules(False, (("j\u00f6", HASH),))
    shown = decide(a_request(authorization(basic("jo\u0308", "e\u0301"))), Tunnel(rules), gate)
    assert isinstance(shown, Password)
    assert (shown.known, shown.password) == (True, "\u00e9")


# ---- what passes without a credential

PREFLIGHT: Fields = [(b"Origin", b"https://app.example.com"), (b"Access-Control-Request-Method", b"POST")]


@pytest.mark.parametrize(
    ("method", "target", "fields"),
    [
        (b"OPTIONS", b"/mcp", PREFLIGHT),
        (b"OPTIONS", b"*", PREFLIGHT),
        (b"GET", b"/.well-known/oauth-protected-resource", []),
        (b"HEAD", b"/.well-known/oauth-protected-resource/mcp?x=../..", []),
        (b"GET", b"/.well-known/openid-configuration/", []),
        (b"GET", b"/.well-known/acme-challenge/abc_DEF-1~2.txt", []),
    ],
)
def test_what_passes_without_a_credential(method: bytes, target: bytes, fields: Fields) -> None:
    """A preflight, and metadata; a foreign credential passes with it, one of ours does not."""
    keys = Keyring()
    for rules in (KEYS, BASIC, BOTH):
        for value, kept in (
            (None, []),
            (b"Bearer of-the-local-service", [b"Authorization"]),
            (b"Bearer mtk_visitor_whatever", []),
            (basic("ann", "x"), [] if rules.basic else [b"Authorization"]),
        ):
            more = [] if value is None else [authorization(value)]
            let = decide(a_request(*fields, *more, method=method, target=target), Tunnel(rules), keys.gate)
            assert isinstance(let, Let)
            assert let.key_id == ""
            assert [name for name, _ in let.request.fields if name == b"Authorization"] == kept
    assert keys.proven == 0


@pytest.mark.parametrize(
    ("method", "target", "fields"),
    [
        (b"OPTIONS", b"/mcp", []),
        (b"OPTIONS", b"/mcp", PREFLIGHT[:1]),
        (b"OPTIONS", b"/mcp", PREFLIGHT[1:]),
        (b"OPTIONS", b"/mcp", [*PREFLIGHT, (b"Content-Length", b"1")]),
        (b"OPTIONS", b"/mcp", [*PREFLIGHT, (b"X-HTTP-Method-Override", b"POST")]),
        (b"OPTIONS", b"/mcp", [*PREFLIGHT, (b"X_HTTP_METHOD_OVERRIDE", b"POST")]),
        (b"POST", b"/mcp", PREFLIGHT),
        (b"POST", b"/.well-known/oauth-protected-resource", []),
        (b"DELETE", b"/.well-known/x", []),
        (b"GET", b"/.well-known", []),
        (b"GET", b"/.well-known/", []),
        (b"GET", b"/.well-known?x", []),
        (b"GET", b"/x/.well-known/y", []),
        (b"GET", b"/.Well-Known/y", []),
        (b"GET", b"//.well-known/y", []),
        (b"GET", b"/.well-known/../admin", []),
        (b"GET", b"/.well-known/a/../../admin", []),
        (b"GET", b"/.well-known/a/..", []),
        (b"GET", b"/.well-known/.", []),
        (b"GET", b"/.well-known/%2e%2e/admin", []),
        (b"GET", b"/.well-known/..%2fadmin", []),
        (b"GET", b"/.well-known/..;/admin", []),
        (b"GET", b"/.well-known/a;b/x", []),
        (b"GET", b"/.well-known//../x", []),
        (b"GET", b"/.well-known/..\\admin", []),
        (b"GET", b"/.well-known/x#/../../admin", []),
        (b"GET", b"/.well-known/x", [(b"X-Original-URL", b"/admin")]),
        (b"GET", b"/.well-known/x", [(b"x-rewrite-url", b"/admin")]),
        (b"GET", b"/.well-known/x", [(b"Content-Length", b"5")]),
        (
            b"GET",
            b"/.well-known/x",
            [(b"Connection", b"Upgrade"), (b"Upgrade", b"websocket")],
        ),
        (b"HEAD", b"/", []),
        (b"QUERY", b"/", []),
    ],
)
def test_what_does_not_pass_without_a_credential(method: bytes, target: bytes, fields: Fields) -> None:
    """All else, in particular what only looks like it to the relay and is another path or method to a local service."""
    no = refused(decide(a_request(*fields, method=method, target=target), Tunnel(BOTH), Keyring().gate))
    assert no.code is Code.UNAUTHORIZED


def test_a_tunnel_without_rules_is_asked_nothing() -> None:
    """Its requests pass as they are, credentials of whatever kind included."""
    request = a_request(authorization(b"Bearer mtk_visitor_x"), authorization(b"x"))
    let = decide(request, Tunnel(None), Keyring().gate)
    assert isinstance(let, Let)
    assert let.request is request


# ---- at a visitor's connection


async def private(rules: AccessRules, **options: object) -> tuple[Place, Agent, Visit, Slow, Keyring]:
    """A place whose tunnel `demo` has rules, and a visitor who has said nothing yet."""
    keys = Keyring()
    gate = Slow(keys)
    place = Place(gate=gate, **options)  # type: ignore[arg-type]
    agent = await place.agent(access={"demo": rules})
    return place, agent, place.visit(), gate, keys


def get(value: bytes | None = None, *more: bytes, method: bytes = b"GET") -> bytes:
    lines = b"".join(b"%b\r\n" % line for line in more)
    shown = b"" if value is None else b"Authorization: %b\r\n" % value
    return GET.replace(b"GET", method)[:-2] + shown + lines + b"\r\n"


def sent(agent: Agent, at: int = -1) -> list[bytes]:
    """Names of the fields that the agent was sent."""
    return [name for name, _ in agent.opened()[at][1].fields]


@virtual
async def test_every_request_of_a_connection_is_judged_anew() -> None:
    """A good key opens no door for what follows it, and the same head twice is judged twice."""
    place, agent, visit, _, keys = await private(KEYS)
    grant = keys.grant()
    value = b"Bearer " + keys.sign(grant).encode()
    await visit.send(get(value))
    await agent.answer(1)
    await visit.send(get())
    assert (visit.statuses, visit.code) == ([200, 401], "unauthorized")
    await visit.send(get(value))
    await agent.answer(3)
    assert visit.statuses == [200, 401, 200]
    keys.revoked.add(grant.key_id)
    await visit.send(get(value))
    assert visit.statuses == [200, 401, 200, 401]
    assert len(agent.opened()) == 2
    assert b"Authorization" not in sent(agent, 0) + sent(agent, 1)
    assert keys.proven == 1
    assert (place.services.admitted, place.services.exchanges) == ({}, 0)


@pytest.mark.parametrize("method", [b"GET", b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS", b"QUERY"])
@virtual
async def test_no_method_comes_in_without_a_credential(method: bytes) -> None:
    """401 with a challenge, nothing reaches the agent, and the connection goes on; HEAD has no body."""
    _, agent, visit, _, keys = await private(KEYS)
    await visit.send(get(method=method))
    assert visit.statuses == [401]
    assert b'\r\nWWW-Authenticate: Bearer realm="demo.tunnels.localhost"\r\n' in visit.sent
    assert visit.sent.endswith(b"\r\n\r\n") is (method == b"HEAD")
    assert agent.opened() == []
    await visit.send(get(b"Bearer " + keys.sign(keys.grant()).encode(), method=method))
    assert len(agent.opened()) == 1


@virtual
async def test_a_json_rpc_client_reads_its_own_form() -> None:
    """The error object with the request's id, and the challenge beside it for a page elsewhere to read."""
    _, _, visit, _, _ = await private(KEYS)
    request = post(b'{"jsonrpc":"2.0","id":7,"method":"initialize"}', kind=b"application/json")
    await visit.send(request.replace(HOST, HOST + b"Origin: https://app.example.com\r\n"))
    told = json.loads(visit.sent.partition(b"\r\n\r\n")[2])
    assert (told["id"], told["error"]["code"], told["error"]["data"]["error"]) == (7, -31018, "unauthorized")
    (exposed,) = [line for line in visit.sent.split(b"\r\n") if line.startswith(b"Access-Control-Expose-Headers")]
    assert b"WWW-Authenticate" in exposed


@virtual
async def test_a_password_is_checked_while_the_request_waits() -> None:
    """Head, body and what is pipelined behind them wait; then all goes out in order, without the credential."""
    place, agent, visit, gate, _ = await private(BASIC)
    gate.right = {("swordfish", HASH)}
    request = post(b"0123456789").replace(HOST, HOST + b"Authorization: %b\r\n" % basic("ann", "swordfish"))
    await visit.send(request[:-5])
    assert gate.asked == [("swordfish", "192.0.2.7")]
    await visit.send(request[-5:] + get(basic("ann", "swordfish")))
    await place.passes(300)  # nothing is asked of the visitor meanwhile
    assert (agent.opened(), visit.sent) == ([], b"")
    gate.go_on.set()
    await settle()
    assert agent.body(1) == b"0123456789"
    assert b"Authorization" not in sent(agent)
    gate.known = gate.right
    await agent.answer(1)
    await settle()
    await agent.answer(3)
    assert visit.statuses == [200, 200]
    assert len(gate.asked) == 1


@pytest.mark.parametrize(("user", "password"), [("ann", "guess"), ("nobody", "swordfish")])
@virtual
async def test_a_wrong_password_is_refused_after_its_check(user: str, password: str) -> None:
    """A user that there is not costs the same check, and is refused though the password fits the other's hash."""
    _, agent, visit, gate, _ = await private(AccessRules(False, (("ann", HASH),)))
    gate.right = {("swordfish", HASH)}
    await visit.send(get(basic(user, password)))
    assert gate.asked == [(password, "192.0.2.7")]
    assert visit.sent == b""
    gate.go_on.set()
    await settle()
    assert (visit.statuses, agent.opened()) == ([401], [])
    assert b'Basic realm="demo.tunnels.localhost", charset="UTF-8"' in visit.sent
    assert password.encode() not in visit.sent
    await visit.send(get(b"Bearer x"))
    assert visit.statuses == [401, 401]


@pytest.mark.parametrize(
    ("failure", "code"), [(TooManyChecks("too many passwords at once"), "overloaded"), (RuntimeError("x"), "internal")]
)
@virtual
async def test_a_check_that_cannot_be_made_is_answered(failure: Exception, code: str) -> None:
    """503 where too many wait, 500 for a defect, which is told to the loop as well; never in."""
    troubles: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: troubles.append(context["exception"]))
    _, agent, visit, gate, _ = await private(BASIC)
    gate.fail = failure
    gate.go_on.set()
    await visit.send(get(basic("ann", "swordfish")))
    await settle()
    assert (visit.code, agent.opened()) == (code, [])
    assert troubles == ([] if code == "overloaded" else [failure])


@virtual
async def test_a_visitor_that_leaves_during_the_check_is_forgotten() -> None:
    """Nothing is opened for it afterwards."""
    place, agent, visit, gate, _ = await private(BASIC)
    gate.right = {("swordfish", HASH)}
    await visit.send(get(basic("ann", "swordfish")))
    visit.transport.reset()
    await settle()
    gate.go_on.set()
    await settle()
    assert (agent.opened(), place.services.exchanges, place.services.visitors) == ([], 0, set())


@virtual
async def test_an_agent_that_changes_during_the_check_is_judged_by_its_own_rules() -> None:
    """The one that asked is gone when the password is found right; the next one asks for something else."""
    place, agent, visit, gate, _ = await private(BASIC)
    gate.right = {("swordfish", HASH)}
    await visit.send(get(basic("ann", "swordfish")))
    await agent.leave()
    other = await place.agent(instance="b", access={"demo": KEYS})
    gate.go_on.set()
    await settle()
    assert (visit.statuses, other.opened()) == ([401], [])


@virtual
async def test_an_agent_that_is_away_when_the_check_ends_is_waited_for() -> None:
    """And what comes back with the same rules takes the request, without another check."""
    place, agent, visit, gate, _ = await private(BASIC)
    gate.right = {("swordfish", HASH)}
    await visit.send(get(basic("ann", "swordfish")))
    await agent.leave()
    gate.go_on.set()
    await settle()
    assert place.services.hub.held == 1
    back = await place.agent(generation=2, access={"demo": BASIC})
    await settle()
    assert len(back.opened()) == len(gate.asked) == 1
    assert isinstance(back, Agent)
    await back.answer(1)
    assert visit.statuses == [200]


@virtual
async def test_a_request_that_was_held_is_judged() -> None:
    """It came when nobody knew the rules; the agent that comes back brings them."""
    place, agent, visit, gate, keys = await private(BOTH)
    await agent.leave()
    good, waits = place.visit(), place.visit()
    await visit.send(get())
    await good.send(get(b"Bearer " + keys.sign(keys.grant()).encode()))
    await waits.send(get(basic("ann", "swordfish")))
    assert place.services.hub.held == 3
    gate.right = {("swordfish", HASH)}
    back = await place.agent(generation=2, access={"demo": BOTH})
    assert (visit.statuses, len(back.opened())) == ([401], 1)
    gate.go_on.set()
    await settle()
    assert len(back.opened()) == 2
    assert isinstance(back, Agent)
    assert b"Authorization" not in sent(back, 0) + sent(back, 1)


@virtual
async def test_the_newest_link_brings_the_rules() -> None:
    """A tunnel becomes open, or private, with the link that was admitted last, for all its links."""
    place, agent, visit, _, _ = await private(KEYS)
    await place.agent(slot=1)
    await visit.send(get())
    assert len(agent.opened()) == 1
    await place.agent(slot=2, access={"demo": KEYS})
    other = place.visit()
    await other.send(get())
    assert other.statuses == [401]


@virtual
async def test_an_upgrade_is_judged_like_any_request() -> None:
    """401 without a key; with one the handshake goes on, and the pipe is cut when the key is revoked."""
    place, agent, visit, _, keys = await private(KEYS)
    upgrade = (b"Connection: Upgrade", b"Upgrade: websocket", b"Sec-WebSocket-Key: x")
    await visit.send(get(None, *upgrade))
    assert visit.statuses == [401]
    grant = keys.grant()
    await visit.send(get(b"Bearer " + keys.sign(grant).encode(), *upgrade))
    await agent.head(1, 101, [(b"Sec-WebSocket-Accept", b"y")], b"Switching Protocols")
    assert visit.statuses == [401, 101]
    assert b"Authorization" not in sent(agent)
    assert place.services.cut_admitted({grant.key_id}) == 1
    await settle()
    assert visit.transport.aborted
    assert agent.cut(1) is ResetCode.CANCEL
    assert place.services.admitted == {}


@virtual
async def test_a_revoked_key_cuts_what_it_let_in_and_nothing_else() -> None:
    """Streams of other keys, of people with passwords and of open tunnels go on, and so does an idle connection."""
    place, agent, visit, gate, keys = await private(BOTH)
    gate.known = {("swordfish", HASH)}
    first, second = keys.grant(), keys.grant()
    others = [place.visit() for _ in range(3)]
    await visit.send(get(b"Bearer " + keys.sign(first).encode()))
    await others[0].send(get(b"Bearer " + keys.sign(second).encode()))
    await others[1].send(get(basic("ann", "swordfish")))
    await others[2].send(get(b"Bearer " + keys.sign(first).encode()))
    for number in (1, 3, 5):
        await agent.head(number)
        await agent.data(number, b"event")
    await agent.answer(7)
    assert {key_id for key_id, _ in place.services.admitted.values()} == {first.key_id, second.key_id}
    assert place.services.cut_admitted({first.key_id, "mtk_visitor_000000000000"}) == 1
    await settle()
    assert visit.over
    assert not visit.sent.endswith(b"0\r\n\r\n")
    assert [agent.cut(number) for number in (1, 3, 5)] == [ResetCode.CANCEL, None, None]
    assert [other.over for other in others] == [False] * 3
    assert place.services.cut_admitted({second.key_id}) == 1
    assert place.services.cut_admitted({second.key_id}) == 0


@virtual
async def test_a_retired_signer_cuts_what_its_keys_let_in() -> None:
    """Keys that another one signed go on, also one of the same id: it is the signature that is worth nothing."""
    place, agent, visit, _, keys = await private(KEYS)
    other = SigningKey.generate()
    keys.verifier.learn({other.kid: other.public}, ())
    grant = keys.grant()
    second = place.visit()
    await visit.send(get(b"Bearer " + keys.sign(grant).encode()))
    await second.send(get(b"Bearer " + other.sign(grant, DOMAIN).encode()))
    for number in (1, 3):
        await agent.head(number)
    assert place.services.cut_admitted({keys.signing.kid}) == 1
    await settle()
    assert [agent.cut(number) for number in (1, 3)] == [ResetCode.CANCEL, None]
    assert place.services.cut_admitted({other.kid}) == 1


@virtual
async def test_an_expired_key_lets_streams_go_on() -> None:
    """Only new requests are refused."""
    place, agent, visit, _, keys = await private(KEYS)
    value = b"Bearer " + keys.sign(keys.grant(life=60)).encode()
    await visit.send(get(value))
    await agent.head(1)
    keys.clock.advance(61)
    await place.passes(61)
    await agent.data(1, b"event", ended=True)
    assert visit.sent.endswith(b"0\r\n\r\n")
    await visit.send(get(value))
    assert visit.statuses == [200, 401]


@virtual
async def test_uses_and_refusals_of_keys_are_told() -> None:
    """Each use and each refusal, with the address, and with the key where it was proven."""
    place, _, visit, _, keys = await private(KEYS)
    used: list[tuple[str, str]] = []
    refused: list[KeyRefusal] = []
    place.services.on_key_used = lambda key_id, address: used.append((key_id, address))
    place.services.on_key_refused = refused.append
    good, other = keys.grant(), keys.grant(tunnel="other")
    texts = [keys.sign(other), keys.sign(other), "mtk_visitor_canary", "mtk_visitor_canary", keys.sign(good)]
    for text in texts:
        await visit.send(get(b"Bearer " + text.encode()))
    await place.visit().send(get())
    assert used == [(good.key_id, "192.0.2.7")]
    assert refused[:2] == [KeyRefusal(other.key_id, (), "elsewhere", "demo", "default", "192.0.2.7")] * 2
    assert [(refusal.key_id, refusal.code) for refusal in refused[2:]] == [("", "malformed")] * 2
    assert "canary" not in repr(refused)


def test_a_verdict_shows_no_key() -> None:
    """What is kept of a decision can be printed."""
    keys = Keyring()
    text = keys.sign(keys.grant())
    request = a_request(authorization(b"Bearer " + text.encode()))
    let = decide(request, Tunnel(KEYS), keys.gate)
    assert text not in repr(let)
    assert isinstance(keys.gate.visitor_key(text, "demo", "default"), Verdict)
