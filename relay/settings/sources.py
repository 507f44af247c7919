"""Where a setting's value comes from: the flag, then the environment, then the file, then the default.

A setting `head_timeout` is the flag `--head-timeout`, in the environment `RELAY_HEAD_TIMEOUT`, in the TOML file
`head_timeout`. A mistake in any of them, also in one that another overrides, is a `SettingsError`.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from relay.settings.errors import SettingsError
from relay.settings.kinds import DATABASE
from relay.settings.plans import plans_of
from relay.settings.serve import PREFIX, SETTINGS, ServeSettings, Setting, default_data

CONFIG = PREFIX + "CONFIG"
PLANS = "plans"
_BY_NAME = {one.name: one for one in SETTINGS}
_OTHERS = ("CONFIG", "URL", "KEY", "MASTER_KEY", "DEBUG", "METRICS", "MEMORY")
"""What else this package or its compose file reads from variables, without `RELAY_`: no settings, and no mistakes."""
_OF_AN_ORCHESTRATOR = re.compile(r"(?:.*_)?(?:SERVICE_HOST|SERVICE_PORT(?:_.*)?|PORT(?:_\d+_(?:TCP|UDP|SCTP).*)?)")
"""Kubernetes sets such variables for a service that is called relay or relay-public."""


@dataclass(frozen=True, slots=True)
class Source:
    """One place that values come from, and how it writes a setting. A higher `rank` overrides."""

    rank: int
    path: str = ""

    def where(self, one: Setting) -> str:
        return (f"in {self.path}", f"from {one.environment} in the environment", f"from the flag {one.flag}")[self.rank]

    def example(self, one: Setting) -> str:
        sample = one.kind.example
        bare = sample.isdigit()
        return (
            f"{one.name} = {sample if bare else chr(34) + sample + chr(34)}",
            f"{one.environment}={sample}",
            f"{one.flag} {sample}",
        )[self.rank]


FILE, ENVIRONMENT, FLAG = 0, 1, 2


def load(flags: Mapping[str, object], environment: Mapping[str, str], config: Path | None = None) -> ServeSettings:
    """The relay's settings. `flags` holds what was given, by the setting's name; `config` overrides `RELAY_CONFIG`.

    Raises `SettingsError`.
    """
    _no_strangers(environment)
    if config is None and environment.get(CONFIG):
        config = Path(environment[CONFIG])
    values: dict[str, Any] = {}
    sources: dict[str, Source] = {}
    in_environment = {one.name: environment[one.environment] for one in SETTINGS if environment.get(one.environment)}
    in_file = _read(config) if config is not None else {}
    if PLANS in in_file:
        values[PLANS] = plans_of(in_file.pop(PLANS), str(config))
    given = (
        (Source(FILE, str(config)), in_file),
        (Source(ENVIRONMENT), in_environment),
        (Source(FLAG), {name: value for name, value in flags.items() if value is not None}),
    )
    for source, texts in given:
        for name, text in texts.items():
            values[name] = _parse(_BY_NAME[name], text, source)
            sources[name] = source
    if "data" not in values:
        values["data"] = _default_data(environment)
    return _checked(_with_database(ServeSettings(**values), sources), sources)


def _default_data(environment: Mapping[str, str]) -> Path:
    try:
        return default_data(environment)
    except RuntimeError:  # no home directory is known
        example = _BY_NAME["data"].environment
        raise SettingsError(
            f"This user has no home directory for the relay's files. Say where, for example {example}=/var/lib/relay"
        ) from None


def data_directory(environment: Mapping[str, str]) -> Path:
    """Where a relay on this machine keeps its files, for commands that look for its key. Raises `SettingsError`."""
    text = environment.get(PREFIX + "DATA")
    if not text:
        return _default_data(environment)
    path = _parse(_BY_NAME["data"], text, Source(ENVIRONMENT))
    assert isinstance(path, Path)
    return path


def _no_strangers(environment: Mapping[str, str]) -> None:
    """A variable that is none of ours, but looks like one of them, was meant to be it. Others are somebody else's."""
    known = (*(one.environment.removeprefix(PREFIX) for one in SETTINGS), *_OTHERS)
    for variable in sorted(environment):
        name = variable.removeprefix(PREFIX)
        if name == variable or name in known or not environment[variable] or _OF_AN_ORCHESTRATOR.fullmatch(name):
            continue
        meant = [one for one in known if one.endswith("_" + name) or one.startswith(name + "_")]
        meant = difflib.get_close_matches(name, known, n=1, cutoff=0.75) or meant
        meant += [one for one in known if name.startswith(one + "_")]
        if meant:
            one = _BY_NAME.get(meant[0].lower())
            form = f", {one.kind.form}, for example {Source(ENVIRONMENT).example(one)}" if one else ""
            raise SettingsError(
                f"{variable} (in the environment) is not a setting of the relay: did you mean {PREFIX}{meant[0]}{form}?"
            )


def _parse(one: Setting, text: object, source: Source) -> object:
    try:
        return one.kind.parse(text)
    except (ValueError, OverflowError, RuntimeError):  # RuntimeError: a ~ without a home directory
        shown = "that is not shown" if one.kind is DATABASE else repr(text)
        raise SettingsError(
            f"{one.name} ({source.where(one)}) must be {one.kind.form}, for example {source.example(one)}, "
            f"but it is {'a value ' if one.kind is DATABASE else ''}{shown}."
        ) from None


def _read(config: Path) -> dict[str, object]:
    import tomllib  # here: an agent that asks for the data directory reads no file

    try:
        values = tomllib.loads(config.expanduser().read_text(encoding="utf-8"))
    except (OSError, RuntimeError) as error:  # RuntimeError: a ~ without a home directory
        reason = error.strerror if isinstance(error, OSError) else "there is no such home directory"
        raise SettingsError(
            f"The settings file {config} (from --config or {CONFIG}) must be a TOML file that can be read, "
            f'for example one with the line domain = "tunnels.example.com", but: {reason}.'
        ) from None
    except ValueError as error:
        raise SettingsError(
            f"The settings file {config} (from --config or {CONFIG}) must be TOML, "
            f'for example the line domain = "tunnels.example.com", but: {error}.'
        ) from None
    for name in values:
        if name not in _BY_NAME and name != PLANS:
            near = difflib.get_close_matches(name, (*_BY_NAME, PLANS), n=1)
            hint = f"did you mean {near[0]}?" if near else "see docs/operating.md for all."
            raise SettingsError(
                f"{name} (in {config}) is not a setting of the relay; settings are lines such as "
                f'domain = "tunnels.example.com"; {hint}'
            )
    return values


def _with_database(settings: ServeSettings, sources: Mapping[str, Source]) -> ServeSettings:
    """The settings with `database_url` read from `database_url_file`, where that was given."""
    url, file = sources.get("database_url"), sources.get("database_url_file")
    if file is None or settings.database_url_file is None:
        return settings
    if url is not None and url.rank > file.rank:
        return replace(settings, database_url_file=None)
    one = _BY_NAME["database_url_file"]
    if url is not None and url.rank == file.rank:
        raise SettingsError(
            f"database_url_file ({file.where(one)}) and database_url ({url.where(_BY_NAME['database_url'])}) both give "
            f"a database; keep one of them, for example {file.example(one)}."
        )
    try:
        text = settings.database_url_file.read_text(encoding="utf-8")
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise SettingsError(
            f"database_url_file ({file.where(one)}) must be a file that can be read and holds the URL of a database, "
            f"for example {file.example(one)}, but {settings.database_url_file}: {reason}."
        ) from None
    try:
        return replace(settings, database_url=str(DATABASE.parse(text)))
    except ValueError:
        raise SettingsError(
            f"database_url_file ({file.where(one)}) must hold {DATABASE.form} and nothing else, for example "
            f"{DATABASE.example}, but {settings.database_url_file} does not."
        ) from None


def _checked(settings: ServeSettings, sources: Mapping[str, Source]) -> ServeSettings:
    """What no setting can say alone."""

    def fail(name: str, text: str) -> SettingsError:
        source = sources.get(name)
        return SettingsError(f"{name} ({source.where(_BY_NAME[name]) if source else 'the default'}) {text}")

    listeners = {"public": settings.public, "agents": settings.agents, "internal": settings.internal}
    seen: dict[str, str] = {}
    for name, address in listeners.items():
        if address is None:
            continue
        if address.port and str(address) in seen:
            taken = seen[str(address)]
            raise fail(
                name, f"must be an address of its own, for example 127.0.0.1:8082, but {taken} has {address} too."
            )
        seen[str(address)] = name
        by_itself = settings.tls_cert is not None and name != "internal"
        if not address.is_loopback and not settings.trusted_proxies and not by_itself:
            own = "" if name == "internal" else "give it a certificate (--tls-cert and --tls-key), "
            raise fail(
                name,
                f"is {address}, which other machines can reach, but the relay itself speaks plain HTTP there: put a "
                f"proxy with TLS in front and name its network, for example --trusted-proxies 10.0.0.0/8 "
                f"(RELAY_TRUSTED_PROXIES), {own}or listen on loopback, for example 127.0.0.1:{address.port}.",
            )
    pair = {"tls_cert": settings.tls_cert, "tls_key": settings.tls_key}
    missing = [name for name, path in pair.items() if path is None]
    if len(missing) == 1:
        one, other = ("tls_key", "tls_cert") if missing == ["tls_cert"] else ("tls_cert", "tls_key")
        raise fail(
            one,
            f"must be a path and stand together with {other}, a certificate and its key, for example "
            "--tls-cert fullchain.pem --tls-key privkey.pem; one of them is missing.",
        )
    if settings.tls_cert is not None and (settings.public_url or "").startswith("http:"):
        raise fail(
            "public_url",
            f"must be an address with https since tls_cert is set, for example https://{settings.domain}, "
            f"but it is {settings.public_url!r}.",
        )
    if settings.default_plan is not None and settings.default_plan not in settings.plans:
        raise fail(
            "default_plan",
            f"must be one of the plans that there are ({', '.join(settings.plans)}), for example "
            f"{next(iter(settings.plans))}, but it is {settings.default_plan!r}; others are tables of the settings "
            f"file, for example [plans.{settings.default_plan}].",
        )
    if settings.public_url is not None:
        host = re.sub(r"^https?://|:[0-9]+$", "", settings.public_url)
        if host != settings.domain:
            raise fail(
                "public_url",
                f"must name the domain {settings.domain}, for example https://{settings.domain}, "
                f"but it is {settings.public_url!r}; is domain set?",
            )
    return settings
