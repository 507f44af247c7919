"""The relay's settings: what there is (`serve`, `plans`), what a value looks like (`kinds`), whence it is (`sources`).

Read by `node` and `cli`, by nobody else.
"""

from __future__ import annotations

from relay.settings.errors import SettingsError
from relay.settings.kinds import Address, Network
from relay.settings.serve import KEY_FILE_NAME, SETTINGS, ServeSettings, Setting, default_data
from relay.settings.sources import data_directory, load

__all__ = [
    "KEY_FILE_NAME",
    "SETTINGS",
    "Address",
    "Network",
    "ServeSettings",
    "Setting",
    "SettingsError",
    "data_directory",
    "default_data",
    "load",
]
