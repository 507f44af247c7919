"""The settings of an agent that is started by a file: what the command line said, what the file says, and its changes.

Decides when a file has changed, and which key is used. A key is the same source of keys as long as it is the same key
for the same names, so that an agent whose file says so keeps its links.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass
from pathlib import Path

from relay.agent.config import AgentSettings, BadChange, KeySource
from relay.cli.errors import Mistake
from relay.cli.http import reachable
from relay.cli.keyring import Key, address_of, find_key, find_relay
from relay.cli.minting import key_source
from relay.cli.options import metrics_of
from relay.cli.secretfiles import placed
from relay.cli.tunnelfile import NO_LIMITS, Mark, TunnelFile, TunnelReader, mark

MOST_SOURCES = 8


@dataclass(frozen=True, slots=True)
class Chosen:
    """What stood on the command line, which counts for more than what stands in the file."""

    relay: str | None = None
    key_file: Path | None = None
    metrics: str | None = None
    insecure: bool = False


class TunnelWatch:
    """`Changes` of an agent: one file, and those that it names."""

    def __init__(self, file: Path, chosen: Chosen, environment: Mapping[str, str]) -> None:
        self.key: Key
        """Of the settings that were read last, as are these:"""
        self.said: TunnelFile
        self._reader = TunnelReader(file)
        self._chosen = chosen
        self._environment = environment
        self._sources: dict[tuple[object, ...], KeySource] = {}
        self._taken: dict[Path, Mark] = {}
        self._seen: dict[Path, Mark] = {}

    def settings(self) -> AgentSettings:
        """What holds now. Raises `Mistake`."""
        own = {} if self._chosen.key_file is None else {(path := placed(self._chosen.key_file)): mark(path)}
        try:
            said = self._reader.read()
            relay_url = reachable(self._relay(said))
            key = self._key(said, relay_url)
            settings = self._settings(said, relay_url, key)
        finally:
            self._taken = self._seen = self._reader.files | own
        self.said, self.key = said, key
        return settings

    @property
    def files(self) -> Set[Path]:
        """The file that was read last, and those that it names."""
        return self._reader.files.keys()

    def look(self, asked: bool) -> AgentSettings | None:
        """See `Changes.look`. A file that is being written is left alone until it looks the same twice."""
        marks = {path: mark(path) for path in self._taken}
        settled, self._seen = marks == self._seen, marks
        if not asked and (marks == self._taken or not settled):
            return None
        try:
            return self.settings()
        except Mistake as mistake:
            raise BadChange(str(mistake)) from None

    def _settings(self, said: TunnelFile, relay_url: str, key: Key) -> AgentSettings:
        names = tuple(one.name for one in said.tunnels)
        return AgentSettings(
            relay_url=relay_url,
            keys=self._source(said, relay_url, key, names),
            tunnels=tuple((one.name, one.target) for one in said.tunnels),
            access={one.name: one.rules for one in said.tunnels if one.rules is not None},
            limits={one.name: one.limits for one in said.tunnels if one.limits != NO_LIMITS},
            upstream={one.name: one.upstream for one in said.tunnels},
            links=said.links,
            preserve_host=frozenset(one.name for one in said.tunnels if one.preserve_host),
            allow_upstream=said.allow_upstream,
            metrics=self._metrics(said),
        )

    def _metrics(self, said: TunnelFile) -> tuple[str, int] | None:
        """`--metrics`, the file's, then `RELAY_METRICS`. Raises `Mistake`."""
        if self._chosen.metrics is None and said.metrics is not None:
            return said.metrics
        return metrics_of(self._chosen.metrics, self._environment)

    def _relay(self, said: TunnelFile) -> str:
        """`--relay`, the file's, then what `find_relay` knows. Raises `Mistake`."""
        if self._chosen.relay or said.relay is None:
            return find_relay(self._chosen.relay, self._environment, self._chosen.insecure)
        text, place = said.relay
        try:
            return address_of(text, place, self._chosen.insecure)
        except Mistake as mistake:
            raise mistake if str(mistake).startswith(place) else Mistake(f"{place}: {mistake}") from None

    def _key(self, said: TunnelFile, relay_url: str) -> Key:
        """`--key-file`, the file's, then what `find_key` knows. Raises `Mistake`."""
        if self._chosen.key_file is not None or said.key_file is None:
            return find_key(self._chosen.key_file, self._environment, relay_url)
        path, place = said.key_file
        try:
            return find_key(path, self._environment, relay_url)
        except Mistake as mistake:
            raise Mistake(f"{place}: {mistake}", mistake.code) from None

    def _source(self, said: TunnelFile, relay_url: str, key: Key, names: tuple[str, ...]) -> KeySource:
        project, place = said.project or (None, "")
        what = relay_url, key.text, project, frozenset(names)
        try:
            source = self._sources.pop(what, None) or key_source(relay_url, key, project, names, self._environment)
        except Mistake as mistake:
            raise Mistake(f"{place}: {mistake}" if place else str(mistake), mistake.code) from None
        self._sources[what] = source
        if len(self._sources) > MOST_SOURCES:
            del self._sources[next(iter(self._sources))]
        return source
