"""Where a function runs: local=True, else TENDRIL_PLACE, else place=, else the configuration
file, else this machine, unless the function asks for a machine of a certain kind."""

from __future__ import annotations

import os
from typing import Any

from tendril import _tendril
from tendril.errors import ConfigurationError, NotAvailable

LOCAL = "local"  # this machine

# Options that only a machine made on demand can honour.
MACHINE_OPTIONS = ("region", "vm_type", "gpu", "arm", "disk_size", "spot_policy")


def config_path() -> str:
    """The configuration file; it need not exist."""
    base = os.environ.get("XDG_CONFIG_HOME") or os.path.join(os.path.expanduser("~"), ".config")
    return os.path.join(base, "tendril", "config.toml")


def config_state() -> tuple[str, int | None]:
    """The configuration file and when it was changed (None: it is not there), to be compared."""
    path = config_path()
    return path, _tendril.changed_ns(path)


def _configured() -> str | None:
    path = config_path()
    if not os.path.exists(path):
        return None
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path} cannot be read: {error}") from error
    import tomllib

    try:
        place = tomllib.loads(text).get("place")
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"{path} is not valid TOML: {error}") from error
    if place is not None and not isinstance(place, str):
        raise ConfigurationError(f"{path}: place must be text, not {type(place).__name__}")
    return place


def resolve(options: dict[str, Any]) -> str:
    """The place for a function with these options: LOCAL, or what says how to reach a cluster, a
    client token or the path of a file with one. Raises ConfigurationError when a machine option is
    set and no place is configured, NotAvailable for places not built yet."""
    if options.get("local"):
        return LOCAL
    place = os.environ.get("TENDRIL_PLACE") or options.get("place") or _configured()
    if place is None:
        asked = [name for name in MACHINE_OPTIONS if options.get(name) not in (None, False)]
        if asked:
            raise ConfigurationError(
                f"{', '.join(f'{name}={options[name]!r}' for name in asked)} asks for a machine "
                "in the cloud, and no place is configured to make one. Run `tendril setup aws` "
                "to configure your account, or set TENDRIL_PLACE=local to run on this machine."
            )
        return LOCAL
    if place == "aws":
        raise NotAvailable(
            "place 'aws': machines in the cloud are not available yet; "
            "set TENDRIL_PLACE=local to run on this machine."
        )
    if place != LOCAL and not place.startswith("tendril-") and not os.path.exists(place):
        raise ConfigurationError(
            f"there is no place {place!r}: it is neither `local` nor the file of a client token, "
            "which `tendril hub` and `tendril up` write"
        )
    return place
