"""`relay.yaml`: what its members come to, and for each mistake the line, the member and what would be right."""

from __future__ import annotations

import os
import time
from ipaddress import ip_network
from pathlib import Path

import pytest

from relay.cli.errors import Mistake
from relay.cli.tunnelfile import TunnelFile, TunnelReader
from relay.cli.yamlfile import MOST
from relay.wire.limits import TunnelLimits
from tests.cli.keytexts import private

WHOLE = """\
relay: wss://tunnels.example.com
project: mcp-server
key_file: keys/child.key
links: 3
metrics: 127.0.0.1:9091
tunnels:
  mcp-me: 3000
  Api:
    target: http://127.0.0.1:8000
    private: true
    basic_auth_file: people.txt
    upstream_header_file: fields.txt
    preserve_host: yes
    rate: 20
    rate_per_address: 5
  web: {target: "app:8080", rate_per_address: 2}
  box: &box
    target: https://192.168.1.20
  other: *box
  on: 3001
allow_upstream: [203.0.113.0/24, "2001:db8::/32"]
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the files are that `WHOLE` names."""
    for name, text in (("people.txt", "ann:her-password\n"), ("fields.txt", "Authorization: Bearer local\n")):
        (tmp_path / name).touch(mode=0o600)
        (tmp_path / name).write_text(text)
    return tmp_path


def read(folder: Path, text: str) -> TunnelFile:
    (folder / "relay.yaml").write_text(text)
    return TunnelReader(folder / "relay.yaml").read()


def mistake(folder: Path, text: str) -> str:
    with pytest.raises(Mistake) as caught:
        read(folder, text)
    return str(caught.value).replace(f"{folder}/", "")


def test_every_member_arrives(folder: Path) -> None:
    """Each where it belongs; a name that YAML takes for a truth value is a name all the same."""
    found = read(folder, WHOLE)
    assert found.relay == ("wss://tunnels.example.com", f"{folder}/relay.yaml:1: relay")
    assert found.project == ("mcp-server", f"{folder}/relay.yaml:2: project")
    assert (found.links, found.metrics) == (3, ("127.0.0.1", 9091))
    assert found.key_file == (folder / "keys" / "child.key", f"{folder}/relay.yaml:3: key_file")
    assert found.allow_upstream == (ip_network("203.0.113.0/24"), ip_network("2001:db8::/32"))
    assert [(one.name, one.target.url) for one in found.tunnels] == [
        ("mcp-me", "http://127.0.0.1:3000"),
        ("api", "http://127.0.0.1:8000"),
        ("web", "http://app:8080"),
        ("box", "https://192.168.1.20"),
        ("other", "https://192.168.1.20"),
        ("on", "http://127.0.0.1:3001"),
    ]
    api, web = found.tunnels[1:3]
    assert api.rules is not None
    assert (api.rules.visitor_keys, [user for user, _ in api.rules.basic]) == (True, ["ann"])
    assert (api.upstream, api.preserve_host) == ([(b"Authorization", b"Bearer local")], True)
    assert (api.limits, web.limits) == (TunnelLimits(20, 5), TunnelLimits(None, 2))
    assert "local" not in repr(api)


def test_the_least(folder: Path) -> None:
    """One tunnel is enough, everything else has its default."""
    found = read(folder, "tunnels:\n  mcp-me: 3000\n")
    assert (found.relay, found.key_file, found.links, found.allow_upstream) == (None, None, 2, ())


TUNNELS = "tunnels:\n  api:\n    target: 3000\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("tunnls:\n  a: 1\n", "relay.yaml:1: tunnls is not known: did you mean tunnels."),
        ("links: 2\n", "relay.yaml:1 has no tunnels: write tunnels: and below it a line such as   mcp-me: 3000."),
        ("- a\n", "relay.yaml:1 must be a mapping of members, such as tunnels:."),
        ("tunnels:\n", "relay.yaml:1: tunnels must be a mapping of names to local services, such as   mcp-me: 3000."),
        ("tunnels: {}\n", "relay.yaml:1: tunnels must be a mapping of names"),
        ("", "relay.yaml is empty: write at least tunnels:"),
        ("# nothing\n", "relay.yaml is empty"),
        (TUNNELS + "    rat: 20\n", "relay.yaml:4: tunnels.api.rat is not known: did you mean rate."),
        (TUNNELS + "    preserve-host: true\n", "did you mean preserve_host."),
        (TUNNELS + "    zzz: 20\n", "relay.yaml:4: tunnels.api.zzz is not known; known here are target, private,"),
        (TUNNELS + "    rate: fast\n", "relay.yaml:4: tunnels.api.rate must be a number of requests a second, 1 to "
         "1000000, for example rate: 20, but it is 'fast'."),
        (TUNNELS + "    rate: 0\n", "for example rate: 20, but it is '0'."),
        (TUNNELS + "    rate: '20'\n", "for example rate: 20, but it is '20'."),
        (TUNNELS + "    rate: 0x20\n", "for example rate: 20, but it is '0x20'."),
        (TUNNELS + "    rate_per_address: [1]\n", "for example rate_per_address: 20, but it is a list."),
        (TUNNELS + "    private: maybe\n", "must be true or false, for example private: true, but it is 'maybe'."),
        (TUNNELS + "    preserve_host:\n", "for example preserve_host: true, but it is empty."),
        (TUNNELS + "    target: 3001\n", "relay.yaml:4: tunnels.api.target stands twice, first in line 3; leave"),
        (TUNNELS + "  api: 3001\n", "relay.yaml:4: tunnels.api stands twice, first in line 3"),
        (TUNNELS + "  API: 3001\n", "relay.yaml:4: tunnels.API is the name api once more; leave one out."),
        (TUNNELS + "links: 5\n", "relay.yaml:4: links must be a number from 1 to 4, for example links: 2, but"),
        (TUNNELS + "links: 2.5\n", "but it is '2.5'."),
        (TUNNELS + "metrics: 9091\n", "relay.yaml:4: metrics must be HOST:PORT, for example metrics: 127.0.0.1:9091"),
        (TUNNELS + "relay: {}\n", "relay.yaml:4: relay must be the relay's address, for example relay: wss://"),
        (TUNNELS + "key_file:\n", "must be the name of a file, for example key_file: child.key, but it is empty."),
        (TUNNELS + "key_file: ~nobody-here/child.key\n", "relay.yaml:4: key_file: ~nobody-here/child.key is in a home "
         "directory that does not exist: write the whole path."),
        (TUNNELS + 'key_file: "child\\0.key"\n', "for example key_file: child.key, but it is 'child"),
        (TUNNELS + "project: []\n", "project must be a project's name or id, for example project: mcp-server"),
        (TUNNELS + "allow_upstream: 10.0.0.0/8\n", "must be a list of networks in CIDR form, for example "
         "allow_upstream: [203.0.113.0/24]."),
        (TUNNELS + "allow_upstream: [here]\n", "relay.yaml:4: allow_upstream[1] must be a network in CIDR form"),
        (TUNNELS + "allow_upstream: [203.0.113.1/24]\n", "but it is '203.0.113.1/24'."),
        ("tunnels:\n  api: 70000\n", "relay.yaml:2: tunnels.api: The port in '70000' is not a number from 1 to 65535"),
        ("tunnels:\n  api:\n", "relay.yaml:2: tunnels.api must be a local service, for example 3000, or a mapping with "
         "target: and what else it needs, but it is empty."),
        ("tunnels:\n  api: []\n", "relay.yaml:2: tunnels.api must be a local service"),
        ("tunnels:\n  api: {rate: 1}\n", "relay.yaml:2: tunnels.api has no target: write target: 3000, say."),
        ("tunnels:\n  -api: 1\n", "relay.yaml:2: the name of a tunnel must be 1 to 63 of a-z, 0-9 and -"),
        ("tunnels:\n  ? [a]\n  : 1\n", "relay.yaml:2: the name of a member must be a plain word"),
        ("tunnels:\n  api: 8.8.8.8:80\n", "relay.yaml:2: tunnels.api is 8.8.8.8, which is neither a loopback nor a "
         "private address: to allow it, write allow_upstream: [8.8.8.8/32] at the top of the file."),
        ("tunnels:\n  api: 169.254.169.254:80\n", "relay.yaml:2: tunnels.api: 169.254.169.254 is a link-local address, "
         "to which the agent never connects."),
        ("tunnels:\n\tapi: 1\n", "relay.yaml:2: this is not YAML: found character '\\t' that cannot start any token."),
        ("tunnels:\n  api: 1\n bad\n", "relay.yaml:3: this is not YAML: "),
        ("a: 1\n---\nb: 2\n", "relay.yaml:2: this is not YAML: but found another document."),
        ("tunnels: *none\n", "relay.yaml:1: this is not YAML: found undefined alias 'none'."),
        ("tunnels:\n  a: 1\n  b: \x07\n", "relay.yaml:3: a character that cannot be printed stands here: take it out."),
        ("tunnels: " + "[" * 5_000, "nested too deep"),
        ('tunnels:\n  a: "\\UFFFFFFFF"\n', "relay.yaml:2: this is not YAML: a number in an escape or a directive"),
        ("%YAML 1." + "1" * 5_000 + "\n---\na: 1\n", "relay.yaml:1: this is not YAML: a number in an escape"),
        (TUNNELS + "key_file: \"a\\0b\"\n", "relay.yaml:4: key_file must be the name of a file"),
        (TUNNELS + "    basic_auth_file: ~nobody-here/people\n", "relay.yaml:4: tunnels.api.basic_auth_file: ~nobody"),
        (TUNNELS + "    basic_auth_file: pipe\n", "_file must be the name of a regular file, but pipe is none."),
        (TUNNELS + "    upstream_header_file: /dev/zero\n", "must be the name of a regular file, but /dev/zero is"),
        (TUNNELS + "key_file: pipe\n", "relay.yaml:4: key_file must be the name of a regular file, but pipe is none."),
        ("tunnels:\n" + "".join(f"  t{n}: {{target: 1, basic_auth_file: many.txt}}\n" for n in range(64)),
         "relay.yaml:2: tunnels: So many users for 64 tunnels are too much for one agent"),
        ("<<: {}\n", "relay.yaml:1: << is not known"),
        (TUNNELS + "    basic_auth_file: none.txt\n", "relay.yaml:4: tunnels.api.basic_auth_file cannot be read"),
        (TUNNELS + "    basic_auth_file: fields.txt\n    upstream_header_file: people.txt\n",
         "relay.yaml:5: tunnels.api.upstream_header_file, line 1: "),
        ("#" * (MOST + 1), "relay.yaml is longer than 128 KiB: is it the right file?"),
        ("tunnels:\n" + "".join(f"  t{n}: 1\n" for n in range(65)), "has 65 tunnels, and one agent opens at most 64"),
    ],
)  # fmt: skip
def test_a_mistake_says_where_it_is(folder: Path, text: str, said: str) -> None:
    """In one sentence that begins with file and line, and names the member, the form and an example."""
    (folder / "people.txt").write_text("no field\n")
    known = "$argon2id$v=19$m=19456,t=2,p=1$c29tZXNhbHQ$" + "a" * 43
    (folder / "many.txt").write_text("".join(f"user{n}:{known}\n" for n in range(32)))
    os.mkfifo(folder / "pipe")
    told = mistake(folder, text)
    assert said in told
    assert "\n" not in told


def test_text_that_is_no_text(folder: Path) -> None:
    """Bytes that are no UTF-8, and a file that is not there, are told too."""
    (folder / "relay.yaml").write_bytes(b"tunnels: \xff\n")
    with pytest.raises(Mistake, match="not text in UTF-8"):
        TunnelReader(folder / "relay.yaml").read()
    with pytest.raises(Mistake, match=r"none.yaml cannot be read \(No such file or directory\)"):
        TunnelReader(folder / "none.yaml").read()


def test_no_key_is_ever_shown(folder: Path) -> None:
    """Somebody will put one into the file; wherever it stands, what is told does not repeat it."""
    key = private()
    for text in (f"key: {key}\n", f"{key}: 1\n", f"links: {key}\n", f"tunnels: {key}\n", f"tunnels:\n  {key}: 1\n",
                 f"tunnels:\n  a: {key}\n", f"tunnels:\n  a: 1\nmetrics: {key}\n", f"tunnels: *{key}\n",
                 f"tunnels:\n  a: 1\nallow_upstream: [{key}]\n", f"tunnels:\n  a: http://{key}/x\n"):  # fmt: skip
        assert key[14:] not in mistake(folder, text)


def test_a_file_at_which_reading_would_wait(tmp_path: Path) -> None:
    """A pipe in the place of the whole is told, and not waited for."""
    os.mkfifo(tmp_path / "relay.yaml")
    with pytest.raises(Mistake, match=r"relay.yaml is no regular file: name one with --file FILE"):
        TunnelReader(tmp_path / "relay.yaml").read()


def test_aliases_cannot_grow(folder: Path) -> None:
    """Ten levels of ten aliases each, and an anchor that holds itself, are a mistake at once."""
    laughs = "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 10))
    began = time.process_time()
    assert "a0 is not known" in mistake(folder, laughs)
    assert "tunnels.tunnels" in mistake(folder, "&all\ntunnels: *all\n")
    assert time.process_time() - began < 1


def test_a_password_is_hashed_once(folder: Path) -> None:
    """As long as its file is the same: otherwise the rules would be others each time."""
    (folder / "relay.yaml").write_text(TUNNELS + "    basic_auth_file: people.txt\n")
    reader = TunnelReader(folder / "relay.yaml")
    first, again = (reader.read().tunnels[0].rules for _ in range(2))
    assert first == again
    (folder / "people.txt").write_text("ann:another\n")
    assert reader.read().tunnels[0].rules != first


def test_every_file_counts_that_it_names(folder: Path) -> None:
    """Also where one of them is not there: it may come."""
    (folder / "relay.yaml").write_text(TUNNELS + "    basic_auth_file: none.txt\nkey_file: /etc/child.key\n")
    reader = TunnelReader(folder / "relay.yaml")
    with pytest.raises(Mistake):
        reader.read()
    assert reader.files.keys() >= {folder / "relay.yaml", folder / "none.txt"}
