"""The snippets of docs/clients.md parse, have what their client requires, and our public address."""

from __future__ import annotations

import ast
import json
import re
import shlex
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from relay.settings import load

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "clients.md").read_text(encoding="utf-8")
README = (Path(__file__).resolve().parents[2] / "README.md").read_text(encoding="utf-8")
ADDRESS = load({"domain": "tunnels.example.com"}, {}).url_of("mcp-me", 8080) + "/mcp"
OURS = re.compile(r"https?://[^\s\"'`)]*tunnels\.example\.com[^\s\"'`)]*")
KEY = "mtk_visitor_…"


def snippets(heading: str, language: str) -> list[str]:
    """The blocks of a language below a heading."""
    section = re.split(rf"^## {re.escape(heading)}$", PAGE, flags=re.MULTILINE)[1].split("\n## ")[0]
    return re.findall(rf"^```{language}\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)


def commands(heading: str) -> list[list[str]]:
    """The shell commands below a heading, in words."""
    return [shlex.split(line) for block in snippets(heading, "sh") for line in block.splitlines()]


def test_every_block_is_of_a_language_that_is_parsed() -> None:
    """And none is left out by a slip in its first line; those without a language are run elsewhere."""
    languages = set(re.findall(r"^```(\w*)\n(?:.*?)^```$", PAGE, re.MULTILINE | re.DOTALL))
    assert languages == {"", "sh", "json", "toml", "python"}


def test_every_address_is_the_tunnel() -> None:
    """In the form that the relay prints, with the path of the server; only the text names the relay itself."""
    found = {address.rstrip(".,") for address in OURS.findall(PAGE)}
    assert found == {ADDRESS}
    assert f"`{ADDRESS}`" in PAGE


@pytest.mark.parametrize(
    ("heading", "table", "member", "extra", "secret"),
    [
        ("Cursor", "mcpServers", "url", {}, "${env:MCP_ME_KEY}"),
        ("VS Code", "servers", "url", {"type": "http"}, "${input:mcp-me-key}"),
        ("Gemini CLI", "mcpServers", "httpUrl", {}, "$MCP_ME_KEY"),
        ("Windsurf", "mcpServers", "serverUrl", {}, "${env:MCP_ME_KEY}"),
        ("Zed", "context_servers", "url", {}, KEY),
    ],
)
def test_clients_that_read_json(heading: str, table: str, member: str, extra: Mapping[str, str], secret: str) -> None:
    """First an open tunnel, then a private one, which adds the header and nothing else."""
    first, second = (json.loads(text) for text in snippets(heading, "json"))
    server = {**extra, member: ADDRESS}
    assert first == {table: {"mcp-me": server}}
    assert second[table] == {"mcp-me": {**server, "headers": {"Authorization": f"Bearer {secret}"}}}


def test_vs_code_asks_for_what_it_puts_in() -> None:
    """The input has the id that the header names, and is hidden while it is typed."""
    inputs = json.loads(snippets("VS Code", "json")[1])["inputs"]
    assert [(one["type"], one["id"], one["password"]) for one in inputs] == [("promptString", "mcp-me-key", True)]
    assert inputs[0]["description"]


def test_claude_code() -> None:
    """By command, with the header behind the address (it takes all that follow), and by file."""
    add = ["claude", "mcp", "add", "--transport", "http", "mcp-me", ADDRESS]
    header = "Authorization: Bearer ${MCP_ME_KEY}"
    assert commands("Claude Code") == [add, [*add, "--header", header]]
    assert f"\n{' '.join(add)}\n" in README
    (text,) = snippets("Claude Code", "json")
    server = {"type": "http", "url": ADDRESS, "headers": {"Authorization": "Bearer ${MCP_ME_KEY}"}}
    assert json.loads(text) == {"mcpServers": {"mcp-me": server}}


def test_codex() -> None:
    """By file and by command."""
    first, second = (tomllib.loads(text) for text in snippets("Codex", "toml"))
    assert first == {"mcp_servers": {"mcp-me": {"url": ADDRESS}}}
    assert second == {"mcp_servers": {"mcp-me": {"url": ADDRESS, "bearer_token_env_var": "MCP_ME_KEY"}}}
    words = ["codex", "mcp", "add", "mcp-me", "--url", ADDRESS, "--bearer-token-env-var", "MCP_ME_KEY"]
    assert commands("Codex") == [words]


def test_claude_desktop() -> None:
    """By mcp-remote; the key stands in a variable of its own, since a blank in an argument may be lost."""
    first, second = (json.loads(text) for text in snippets("Claude Desktop and claude.ai", "json"))
    bridge = ["-y", "mcp-remote", ADDRESS]
    assert first == {"mcpServers": {"mcp-me": {"command": "npx", "args": bridge}}}
    server = second["mcpServers"]["mcp-me"]
    assert (server["command"], server["args"]) == ("npx", [*bridge, "--header", "Authorization:${AUTH_HEADER}"])
    assert server["env"] == {"AUTH_HEADER": f"Bearer {KEY}"}
    assert not any(" " in word for word in server["args"])


def arguments(text: str) -> dict[str, Any]:
    """Of the call of `create`; what is no literal is given as code."""
    (call,) = (
        node
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "client.beta.messages.create"
    )
    found: dict[str, Any] = {}
    for one in call.keywords:
        source = ast.unparse(one.value).replace("os.environ['MCP_ME_KEY']", repr("the key"))
        found[str(one.arg)] = ast.literal_eval(source)
    return found


def test_the_messages_api() -> None:
    """Each server has exactly one toolset, the beta that has toolsets is asked for, the token goes without Bearer."""
    calls = [arguments(text) for text in snippets("Messages API", "python")]
    server = {"type": "url", "name": "mcp-me", "url": ADDRESS}
    assert [call["mcp_servers"] for call in calls] == [[server], [{**server, "authorization_token": "the key"}]]
    for call in calls:
        assert call["tools"] == [{"type": "mcp_toolset", "mcp_server_name": "mcp-me"}]
        assert call["betas"] == ["mcp-client-2025-11-20"]
        assert {"model", "max_tokens", "messages"} <= call.keys()
    assert "anthropic-beta: mcp-client-2025-11-20" in PAGE


def test_the_inspector() -> None:
    """One call that lists the tools."""
    words = [
        "npx",
        "@modelcontextprotocol/inspector",
        "--cli",
        ADDRESS,
        "--transport",
        "http",
        "--method",
        "tools/list",
    ]
    assert commands("MCP Inspector") == [words, [*words, "--header", "Authorization: Bearer $MCP_ME_KEY"]]


def test_the_python_sdk() -> None:
    """Both compile; the private one sends the header."""
    first, second = snippets("Python", "python")
    for text in (first, second):
        compile(text, "docs/clients.md", "exec")
        assert ADDRESS in text
    assert """{"Authorization": f"Bearer {os.environ['MCP_ME_KEY']}"}""" in second


def test_asking_by_hand() -> None:
    """curl sends what MCP demands of a first request."""
    ((program, *words),) = commands("When it does not work")
    assert (program, words[1]) == ("curl", ADDRESS)
    headers = {words[at + 1].partition(": ")[0]: words[at + 1] for at, word in enumerate(words) if word == "-H"}
    assert headers.keys() == {"Authorization", "Content-Type", "Accept"}
    assert headers["Accept"].endswith("application/json, text/event-stream")
    assert json.loads(words[-1])["method"] == "initialize"


def test_no_whole_key_stands_on_the_page() -> None:
    """Examples of keys cannot be mistaken for one."""
    assert set(re.findall(r"mtk_\w+_[^\s\"'`]*", PAGE)) == {KEY}
