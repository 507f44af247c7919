"""Every mistake in a flag, a variable or the file ends in one sentence: what is wrong, what is accepted, an example."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from relay.settings import SETTINGS, Setting, SettingsError, load
from relay.settings.kinds import DATABASE, SWITCH
from tests.cli.conftest import Command, command  # noqa: F401 - a fixture

ROOT = Path(__file__).resolve().parents[1]
WRONG = {
    "DOMAIN": "https://tunnels.example.com",
    "HOST:PORT": "8080",
    "PLAN": "Small Plan",
    "DIR": "  ",
    "FILE": "  ",
    "URL": "example.com/relay",
    "HOST,…": "https://relay",
    "CIDR,…": "10.0.0.1/8",
    "SECONDS": "soon",
    "NUMBER": "many",
    "BYTES": "64 parsecs",
    "on|off": "maybe",
}
"""A wrong value of each kind, by the word that stands for it in the help. Choices: any other word."""
SOURCES = ("flag", "variable", "file")
PROXY = {"RELAY_TRUSTED_PROXIES": "192.0.2.0/24"}


def said(flags: Mapping[str, object], environment: Mapping[str, str], config: Path | None = None) -> str:
    """What the loader says to these."""
    with pytest.raises(SettingsError) as error:
        load(flags, environment, config)
    text = str(error.value)
    assert "\n" not in text
    assert re.search(r"[.?]$", text)
    return text


def told(one: Setting, source: str, text: str, tmp_path: Path) -> str:
    """The same for one value of one setting, and how that source writes it."""
    if source == "flag":
        return said({one.name: text}, {})
    if source == "variable":
        return said({}, {one.environment: text})
    path = tmp_path / "relay.toml"
    path.write_text(f"{one.name} = {text}\n", encoding="utf-8")
    return said({}, {}, path)


def form_and_example(one: Setting, source: str, text: str, tmp_path: Path) -> None:
    """A sentence about a setting has its name, its source, the accepted form, and an example that would do."""
    names = {
        "flag": (f"from the flag {one.flag}", f"{one.flag} "),
        "variable": (f"from {one.environment} in the environment", f"{one.environment}="),
        "file": (f"in {tmp_path / 'relay.toml'}", f"{one.name} = "),
    }
    where, how = names[source]
    assert text.startswith(f"{one.name} ({where}) must be {one.kind.form}, for example {how}"), text
    example = text.split(f"for example {how}", 1)[1].rpartition(", but it is ")[0]
    one.kind.parse(example.strip('"'))


CASES = [(one, source) for one in SETTINGS for source in SOURCES if one.flag or source != "flag"]


@pytest.mark.parametrize(("one", "source"), CASES, ids=lambda value: getattr(value, "name", value))
def test_a_wrong_value_of_each_setting_from_each_source(one: Setting, source: str, tmp_path: Path) -> None:
    """Whichever it is and wherever it comes from."""
    wrong = "loud" if "|" in one.kind.metavar and one.kind is not SWITCH else WRONG[one.kind.metavar]
    text = told(one, source, f'"{wrong}"' if source == "file" else wrong, tmp_path)
    form_and_example(one, source, text, tmp_path)
    assert ("not shown" in text) if one.kind is DATABASE else (repr(wrong) in text)


@pytest.mark.parametrize("value", ["true", "[]", "{}", "[[1]]", "1979-05-27", "nan", '"\\u0000"'])
@pytest.mark.parametrize("one", SETTINGS, ids=lambda one: one.name)
def test_a_value_of_another_type_in_the_file(one: Setting, value: str, tmp_path: Path) -> None:
    """TOML's own types, empty things among them, where a setting has no use for them."""
    if (one.kind is SWITCH and value == "true") or (one.kind.metavar.endswith("…") and value == "[]"):
        return  # a switch is a boolean, and a list may be empty
    form_and_example(one, "file", told(one, "file", value, tmp_path), tmp_path)


# ---- what is no setting


@pytest.mark.parametrize(
    ("variable", "meant"),
    [
        ("RELAY_DOMIAN", "RELAY_DOMAIN"),
        ("RELAY_TRUSTED_PROXY", "RELAY_TRUSTED_PROXIES"),
        ("RELAY_PROXIES", "RELAY_TRUSTED_PROXIES"),
        ("RELAY_HEADTIMEOUT", "RELAY_HEAD_TIMEOUT"),
        ("RELAY_DATA_DIR", "RELAY_DATA"),
        ("RELAY_DATABASE", "RELAY_DATABASE_URL"),
        ("RELAY_LOGLEVEL", "RELAY_LOG_LEVEL"),
        ("RELAY_MASTERKEY", "RELAY_MASTER_KEY"),
    ],
)
def test_a_mistyped_variable(variable: str, meant: str) -> None:
    """Stops the start with the one that was meant, and does not show what it holds."""
    text = said({}, {variable: "s3cret"})
    assert text.startswith(f"{variable} (in the environment) is not a setting of the relay: did you mean {meant}")
    assert "s3cret" not in text
    one = next((one for one in SETTINGS if one.environment == meant), None)
    if one is not None:
        assert text.endswith(f", {one.kind.form}, for example {meant}={one.kind.example}?")


def test_a_mistyped_variable_that_is_empty_counts_as_not_set() -> None:
    """Like every other."""
    assert load({}, {"RELAY_DOMIAN": ""}).domain == "tunnels.localhost"


@pytest.mark.parametrize(
    "name",
    [
        "RELAY_SERVICE_HOST", "RELAY_SERVICE_PORT_HTTP", "RELAY_PORT", "RELAY_PORT_8080_TCP_ADDR", "RELAY_PUBLIC_PORT",
        "RELAY_DATA_SERVICE_HOST", "RELAY_NUMBER", "RELAY_TEST_POSTGRES_URL", "RELAY_CHAOS", "NOT_RELAY_DOMIAN",
    ],
)  # fmt: skip
def test_variables_of_others_are_left_alone(name: str) -> None:
    """Kubernetes sets some for a service that is called relay, and somebody's own program may have its own."""
    assert load({}, {name: "tcp://10.0.0.1:8080"}).domain == "tunnels.localhost"


def test_every_variable_that_this_package_reads_is_known() -> None:
    """None of ours is taken for a mistake by the relay."""
    files = [*(ROOT / "relay").rglob("*.py"), ROOT / "docker-compose.yaml"]
    code = "\n".join(path.read_text(encoding="utf-8") for path in files)
    ours = set(re.findall(r"""["'\[ (={](RELAY_[A-Z_]+[A-Z])["'\], )=:.}]""", code))
    assert {"RELAY_URL", "RELAY_KEY", "RELAY_MASTER_KEY", "RELAY_DEBUG", "RELAY_HTTP_PORT"} <= ours
    load({}, {name: "x" for name in ours if name not in {one.environment for one in SETTINGS} | {"RELAY_CONFIG"}})


@pytest.mark.parametrize(
    ("line", "parts"),
    [
        ("head_timout = 3", ("head_timout", "domain = ", "did you mean head_timeout?")),
        ("colour = 3", ("colour", "domain = ", "docs/operating.md")),
        ("[server]\nhold = 3", ("server", "domain = ", "docs/operating.md")),
        ("plans = 3", ("plans", "must be tables", "[plans.small]")),
        ("[plans]\nsmall = 3", ("plans.small", "must be a table", "tunnels = 3")),
        ("[plans.Small]", ("plans.Small", "1 to 63 of a-z", "[plans.small]")),
        ("[plans.small]\nrates = 3", ("rates", "rate = 10", "did you mean rate?")),
        ("[plans.small]\ncolour = 3", ("colour", "rate = 10", "there are tunnels, ")),
        ('[plans.small]\nrate = "fast"', ("rate", "a whole number from 1 on", "rate = 10", "'fast'")),
        ("[plans.small]\nrate = 0", ("rate", "a whole number from 1 on", "rate = 10", "it is 0")),
        ("domain", ("relay.toml", "must be TOML", "domain = ")),
        ("domain = 'a.example'\ndomain = 'b.example'", ("relay.toml", "must be TOML", "domain = ")),
    ],
)
def test_a_mistake_in_the_file_itself(line: str, parts: tuple[str, ...], tmp_path: Path) -> None:
    """A name that is none, a table where none belongs, a plan that is none, and what is not TOML."""
    path = tmp_path / "relay.toml"
    path.write_text(line + "\n", encoding="utf-8")
    text = said({}, {}, path)
    assert str(path) in text
    assert [part for part in parts if part not in text] == []


@pytest.mark.parametrize("path", ["/nonexistent/relay.toml", "/", "~nobody-of-this-name/relay.toml"])
def test_a_file_that_is_none(path: str) -> None:
    """From either source, with what one would look like."""
    for text in (said({}, {"RELAY_CONFIG": path}), said({}, {}, Path(path))):
        assert text.startswith(f"The settings file {path} (from --config or RELAY_CONFIG) must be a TOML file")
        assert 'for example one with the line domain = "tunnels.example.com"' in text


def test_a_file_that_is_not_text(tmp_path: Path) -> None:
    """Bytes that are no UTF-8."""
    (tmp_path / "relay.toml").write_bytes(b"domain = '\xff'")
    assert "must be TOML" in said({}, {}, tmp_path / "relay.toml")


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ({"public": "0.0.0.0:8080"}, "public"),
        ({"agents": "127.0.0.1:8080"}, "agents"),
        ({"public_url": "https://else.example"}, "public_url"),
        ({"default_plan": "none-of-these"}, "default_plan"),
        ({"database_url_file": "/nonexistent"}, "database_url_file"),
        ({"tls_cert": "cert.pem"}, "tls_cert"),
        ({"tls_key": "key.pem"}, "tls_key"),
        ({"tls_cert": "a", "tls_key": "b", "public_url": "http://tunnels.localhost"}, "public_url"),
    ],
)
def test_settings_that_do_not_go_together(given: dict[str, str], name: str) -> None:
    """Are told of the one that is to be changed, with its source, what it must be, and an example."""
    variables = {f"RELAY_{one.upper()}": value for one, value in given.items()}
    by_flag, by_variable = said(given, {}), said({}, variables)
    assert by_flag.startswith(f"{name} (from the flag --{name.replace('_', '-')})")
    assert by_variable.startswith(f"{name} (from RELAY_{name.upper()} in the environment)")
    for text in (by_flag, by_variable):
        assert "for example " in text
        assert "must " in text or "put a proxy" in text


# ---- through the command, and a process


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (("serve", "--domian", "x"), "--domain"),
        (("serve", "--hold"), "--hold"),
        (("serve", "--hold", "soon"), "for example --hold 10"),
        (("db", "current", "--config", "/nonexistent"), "/nonexistent"),
    ],
)
def test_a_mistake_in_the_command(words: tuple[str, ...], part: str, command: Command) -> None:  # noqa: F811
    """One line on standard error and 2, also for a flag that does not exist."""
    result = command(*words)
    assert (result.code, result.out) == (2, "")
    assert part in result.err
    assert result.err.startswith("relay: ")
    assert result.err.count("\n") == 1


@pytest.mark.parametrize(
    ("environment", "parts"),
    [
        ({"RELAY_DATA": "{file}/x"}, ("{file}/x", "--data /var/lib/relay (RELAY_DATA)")),
        (
            {"RELAY_DATA": "{folder}/a", "RELAY_DATABASE_URL": "sqlite:///{file}/x.db"},
            ("cannot be reached", "RELAY_DATABASE_URL, for example postgresql://"),
        ),
        (
            {"RELAY_DATA": "{folder}/b", "RELAY_TLS_CERT": "{file}", "RELAY_TLS_KEY": "{file}"},
            ("{file} (tls_cert)", "for example --tls-cert fullchain.pem --tls-key privkey.pem"),
        ),
        ({"RELAY_DATA": "{folder}/c", "RELAY_PUBLIC": "192.0.2.1:0", **PROXY}, ("192.0.2.1:0 for public", "--public")),
    ],
)
def test_a_value_that_only_the_machine_knows_to_be_wrong(
    environment: dict[str, str],
    parts: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    command: Command,  # noqa: F811
) -> None:
    """Ends the start with 1 and a line that names the setting, and an example or what to change."""
    (tmp_path / "file").touch()
    names = {"file": str(tmp_path / "file"), "folder": str(tmp_path)}
    for name, value in {"RELAY_AGENTS": "127.0.0.1:0", "RELAY_PUBLIC": "127.0.0.1:0", **environment}.items():
        monkeypatch.setenv(name, value.format(**names))
    result = command("serve")
    assert result.code == 1
    assert [part for part in parts if part.format(**names) not in result.err] == []
    assert result.err.startswith("relay: ")
    assert result.err.count("\n") == 1


def test_the_process_itself(tmp_path: Path) -> None:
    """A start with a mistake ends with 2 and one line, with nothing made and nothing listening."""
    environment = {**os.environ, "RELAY_DATA": str(tmp_path / "data"), "RELAY_HOLD": "soon"}
    done = subprocess.run(
        [sys.executable, "-m", "relay", "serve"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "relay: hold (from RELAY_HOLD in the environment) must be a number of seconds from 0 to 31,536,000, "
        "for example RELAY_HOLD=10, but it is 'soon'.\n"
    )
    assert not (tmp_path / "data").exists()
