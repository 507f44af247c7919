"""Settings: which source wins, and what each mistake says."""

from __future__ import annotations

from dataclasses import fields
from ipaddress import ip_network
from pathlib import Path

import pytest

from relay.settings import SETTINGS, Address, ServeSettings, SettingsError, data_directory, default_data, load

SECRET = "postgresql://relay:s3cret@db.example/relay"


def mistake(flags: dict[str, object], environment: dict[str, str] | None = None, config: Path | None = None) -> str:
    with pytest.raises(SettingsError) as error:
        load(flags, environment or {}, config)
    text = str(error.value)
    assert "\n" not in text
    assert text.endswith((".", "?"))
    return text


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "relay.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_defaults_are_those_of_one_machine() -> None:
    """Without any source the relay serves tunnels.localhost on loopback, and nothing internal."""
    settings = load({}, {"XDG_STATE_HOME": "/state"})
    assert settings.domain == "tunnels.localhost"
    assert (str(settings.public), str(settings.agents), settings.internal) == ("127.0.0.1:8080", "127.0.0.1:8081", None)
    assert settings.data == Path("/state/relay")
    assert settings.key_file == Path("/state/relay/operator.key")
    assert (settings.head_timeout, settings.idle_timeout, settings.response_head_timeout) == (10, 60, 300)
    assert (settings.hold, settings.hold_most, settings.ping_interval, settings.grace) == (10, 1000, 5, 30)
    assert settings.session_window == 64 * 1024 * 1024
    assert settings.trusted_proxies == ()


def test_flag_before_environment_before_file_before_default(tmp_path: Path) -> None:
    """Each source overrides the next one, setting by setting."""
    config = written(tmp_path, 'domain = "file.example"\nhold = 1\ngrace = 1\n')
    environment = {"RELAY_HOLD": "2", "RELAY_GRACE": "2", "RELAY_DOMAIN": ""}
    settings = load({"grace": "3", "hold": None}, environment, config)
    assert (settings.domain, settings.hold, settings.grace, settings.head_timeout) == ("file.example", 2, 3, 10)


def test_the_file_is_named_by_the_environment_too(tmp_path: Path) -> None:
    """RELAY_CONFIG names the file where no flag does."""
    config = written(
        tmp_path, 'trusted_proxies = ["10.0.0.0/8", "fd00::/8"]\nsession_window = "2 MiB"\nhold_most = 7\n'
    )
    settings = load({}, {"RELAY_CONFIG": str(config)})
    assert settings.trusted_proxies == (ip_network("10.0.0.0/8"), ip_network("fd00::/8"))
    assert (settings.session_window, settings.hold_most) == (2 * 1024 * 1024, 7)


def test_every_setting_has_each_of_its_names_once() -> None:
    """Flag, environment and file name are made of the setting's own name; only a secret has no flag."""
    assert [one.name for one in SETTINGS] == [one.name for one in fields(ServeSettings) if one.name != "plans"]
    for one in SETTINGS:
        assert one.environment == "RELAY_" + one.name.upper()
        assert one.flag == (None if one.name == "database_url" else "--" + one.name.replace("_", "-"))
        assert one.help.endswith(".")


@pytest.mark.parametrize("one", [one for one in SETTINGS if one.name != "database_url"], ids=lambda one: one.name)
def test_the_example_of_a_message_is_accepted(one: object) -> None:
    """What a message gives as an example would have been right, and so is the default as it is printed."""
    from relay.settings import Setting

    assert isinstance(one, Setting)
    one.kind.parse(one.kind.example)
    if one.default:
        assert one.kind.parse(one.default) == getattr(load({}, {}), one.name)


WRONG = [
    ("domain", "http://x.example", "a domain name without scheme"),
    ("domain", "*.example.com", "a domain name without scheme"),
    ("domain", "10.0.0.1", "a domain name without scheme"),
    ("public", "8080", "HOST:PORT"),
    ("public", "127.0.0.1:99999", "HOST:PORT"),
    ("agents", "::1:8081", "HOST:PORT"),
    ("internal", "300.0.0.1:1", "HOST:PORT"),
    ("public_url", "tunnels.localhost", "http(s)://DOMAIN"),
    ("public_url", "https://tunnels.localhost/x", "http(s)://DOMAIN"),
    ("trusted_proxies", "10.0.0.1/8", "CIDR"),
    ("head_timeout", "ten", "a number of seconds"),
    ("head_timeout", "0", "a number of seconds"),
    ("idle_timeout", "nan", "a number of seconds"),
    ("hold", "-1", "a number of seconds"),
    ("grace", "inf", "a number of seconds"),
    ("hold_most", "1.5", "a whole number"),
    ("max_streams", "0", "a whole number"),
    ("session_window", "64 parsecs", "bytes from 1 MiB"),
    ("session_window", "1", "bytes from 1 MiB"),
    ("default_plan", "Small Plan", "the name of a plan"),
    ("log_level", "loud", "one of debug, info"),
]


@pytest.mark.parametrize(("name", "text", "form"), WRONG)
def test_a_mistake_names_setting_source_form_and_example(name: str, text: str, form: str, tmp_path: Path) -> None:
    """Whichever source a wrong value comes from, the sentence says so, with an example in that source's own form."""
    flag, variable = "--" + name.replace("_", "-"), "RELAY_" + name.upper()
    by_flag = mistake({name: text})
    by_environment = mistake({}, {variable: text})
    config = written(tmp_path, f'{name} = "{text}"\n')
    by_file = mistake({}, {}, config)
    for said in (by_flag, by_environment, by_file):
        assert said.startswith(name)
        assert form in said
        assert repr(text) in said
    assert f"from the flag {flag})" in by_flag
    assert f"for example {flag} " in by_flag
    assert f"from {variable} in the environment" in by_environment
    assert f"for example {variable}=" in by_environment
    assert f"in {config}" in by_file
    assert f"for example {name} = " in by_file


def test_a_mistake_counts_even_where_it_is_overridden() -> None:
    """A wrong value in the environment is found although the flag is right."""
    assert "RELAY_HOLD" in mistake({"hold": "1"}, {"RELAY_HOLD": "soon"})


@pytest.mark.parametrize("line", ["hold = true", "hold = [1]", "domain = 3", "public = 8080", "hold_most = true"])
def test_a_value_of_the_wrong_type_in_the_file(line: str, tmp_path: Path) -> None:
    """TOML's own types are checked like text is."""
    assert line.partition(" ")[0] in mistake({}, {}, written(tmp_path, line))


def test_an_unknown_line_in_the_file(tmp_path: Path) -> None:
    """A name that no setting has is refused, with the one that was probably meant."""
    assert "did you mean head_timeout?" in mistake({}, {}, written(tmp_path, "head_timout = 3"))


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    """A missing file and one that is not TOML are told apart."""
    assert "No such file" in mistake({}, {}, tmp_path / "absent.toml")
    assert "must be TOML" in mistake({}, {}, written(tmp_path, "domain: x"))


@pytest.mark.parametrize("name", ["public", "agents", "internal"])
@pytest.mark.parametrize("address", ["0.0.0.0:9000", "[::]:9000", "192.168.1.5:9000", "relay.example:9000"])
def test_plain_http_is_not_offered_to_other_machines(name: str, address: str) -> None:
    """A listener off loopback needs a stated proxy; the sentence gives both ways out, and the first is accepted."""
    said = mistake({name: address})
    assert said.startswith(name)
    assert "--trusted-proxies" in said
    assert "127.0.0.1:9000" in said
    assert str(getattr(load({name: address, "trusted_proxies": "10.0.0.0/8"}, {}), name)) == address


@pytest.mark.parametrize("address", ["127.0.0.1:0", "127.9.9.9:1", "[::1]:1", "localhost:1"])
def test_loopback_needs_no_proxy(address: str) -> None:
    """Every loopback address is accepted as it is."""
    assert load({"public": address}, {}).public.is_loopback


def test_listeners_have_addresses_of_their_own() -> None:
    """The same address twice is refused; port 0, which is another port each time, is not."""
    assert "agents" in mistake({"public": "127.0.0.1:8081"})
    assert load({"public": "127.0.0.1:0", "agents": "127.0.0.1:0"}, {}).agents == Address("127.0.0.1", 0)


@pytest.mark.parametrize(
    ("domain", "public_url", "port", "expected"),
    [
        ("tunnels.localhost", None, 8080, "http://x.tunnels.localhost:8080"),
        ("localhost", None, 80, "http://x.localhost"),
        ("Tunnels.Example.com.", None, 8080, "https://x.tunnels.example.com"),
        ("tunnels.localhost", "http://tunnels.localhost:9", 8080, "http://x.tunnels.localhost:9"),
        ("t.example", "https://t.example/", 8080, "https://x.t.example"),
        ("t.example", "https://t.example:443", 8080, "https://x.t.example"),
    ],
)
def test_public_addresses(domain: str, public_url: str | None, port: int, expected: str) -> None:
    """Under .localhost the address has the listener's own port, elsewhere it is HTTPS; RELAY_PUBLIC_URL overrides."""
    assert load({"domain": domain, "public_url": public_url}, {}).url_of("x", port) == expected


def test_the_public_url_is_of_the_domain() -> None:
    """A public URL of another domain is a mistake that names both."""
    said = mistake({"public_url": "https://other.example"})
    assert "tunnels.localhost" in said
    assert "other.example" in said


def test_the_database_is_a_file_in_the_data_directory() -> None:
    """Unless a URL is given, in the environment or the settings file."""
    assert load({}, {"RELAY_DATA": "/d"}).database == "sqlite:////d/relay.db"
    assert load({}, {"RELAY_DATA": "/d", "RELAY_DATABASE_URL": SECRET}).database == SECRET


def test_the_database_comes_from_a_file(tmp_path: Path) -> None:
    """The file's text without its line end is the URL."""
    path = tmp_path / "url"
    path.write_text(SECRET + "\n", encoding="ascii")
    settings = load({"database_url_file": str(path)}, {"RELAY_DATABASE_URL": "sqlite:////x"})
    assert settings.database == SECRET


def test_two_databases_from_one_source(tmp_path: Path) -> None:
    """Which one counts must not be a riddle."""
    path = tmp_path / "url"
    path.write_text(SECRET, encoding="ascii")
    said = mistake({}, {"RELAY_DATABASE_URL": SECRET, "RELAY_DATABASE_URL_FILE": str(path)})
    assert "keep one of them" in said
    config = written(tmp_path, f'database_url_file = "{tmp_path / "absent"}"')
    settings = load({}, {"RELAY_DATABASE_URL": SECRET}, config)
    assert (settings.database, settings.database_url_file) == (SECRET, None)


@pytest.mark.parametrize("url", ["mysql://s3cret@h/db", "sqlite://s3cret", "postgresql://u:s3cret@h", "s3cret", "\n"])
def test_a_database_url_is_never_shown(tmp_path: Path, url: str) -> None:
    """Neither a wrong one nor a right one appears in a message or in the settings' own text: it may hold a password."""
    assert "s3cret" not in mistake({}, {"RELAY_DATABASE_URL": url})
    path = tmp_path / "url"
    path.write_text(url, encoding="ascii")
    assert "s3cret" not in mistake({"database_url_file": str(path)})
    assert "s3cret" not in repr(load({}, {"RELAY_DATABASE_URL": SECRET}))
    assert "No such file" in mistake({"database_url_file": str(tmp_path / "absent")})


def test_a_relay_goes_by_its_own_names_and_by_those_that_it_is_told() -> None:
    """Requests are signed for one of these."""
    settings = load({"domain": "tunnels.example.com"}, {"RELAY_AUDIENCE": "Relay, [FD00::1],10.0.0.5"})
    assert settings.audiences >= {"tunnels.example.com", "127.0.0.1", "::1", "localhost"}
    assert settings.audiences >= {"relay", "fd00::1", "10.0.0.5"}
    assert "host names" in mistake({"audience": "https://x"})


def test_where_the_data_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """The user's state directory as each system has it, unless RELAY_DATA says otherwise."""
    monkeypatch.setenv("HOME", "/home/me")
    assert default_data({}, "linux") == Path("/home/me/.local/state/relay")
    assert default_data({"XDG_STATE_HOME": "/s"}, "linux") == Path("/s/relay")
    assert default_data({"XDG_STATE_HOME": "relative"}, "linux") == Path("/home/me/.local/state/relay")
    assert default_data({"XDG_STATE_HOME": "/s"}, "darwin") == Path("/home/me/Library/Application Support/relay")
    assert data_directory({"RELAY_DATA": "~/d"}) == Path("/home/me/d")
