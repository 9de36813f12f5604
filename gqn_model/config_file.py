"""Files of settings for `gqn train --config`: TOML written by hand, or the `config.json` of a run.

Neither torch nor numpy is imported.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gqn_data.errors import GQNError, OptionError, SourceMissing, UnknownName
from gqn_data.io import atomic, strict_json
from gqn_model.config import MODS, PRESETS, Config, declaration, declarations

_MOST_BYTES = 1 << 20
_PARTS = ("model", "training")
COMMAND_OPTIONS = ("shards", "scenes", "out", "resume", "step", "config", "mod", "visdom", "viewer")
_KEYS = ("preset", "mods", *_PARTS)


@dataclass(frozen=True, kw_only=True)
class ConfigFile:
    """What a file of settings holds.

    Attributes:
        settings: settings by name.
        preset: name of the preset that they change; None for the default of the model.
        mods: names of mods, applied to the preset.
    """

    settings: dict[str, Any]
    preset: str | None = None
    mods: tuple[str, ...] = ()


def read_config_file(path: Path) -> ConfigFile:
    """Read a file of settings.

    A `.json` file is the `config.json` of a run and holds all settings. A `.toml` file holds any of them in the tables
    `model` and `training`, and may name a `preset` and `mods`. Defaults of another model are left out.

    Raises:
        OptionError: the file has another extension, is not valid, or a value is not possible.
        SourceMissing: the file does not exist.
        UnknownName: a key is not a setting; the message offers the nearest.
    """
    kind = path.suffix.lower()
    if kind not in (".toml", ".json"):
        raise OptionError(f"{path}: cannot read {kind or 'a file without an extension'}, expected .toml or .json")
    try:
        data = atomic.read_bounded(path, _MOST_BYTES)
        value = tomllib.loads(data.decode()) if kind == ".toml" else strict_json.parse_json(data)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise SourceMissing(f"{path}: does not exist, expected a file of settings") from error
    except (ValueError, RecursionError) as error:
        raise OptionError(f"{path}: not {kind[1:].upper()} ({error})") from error
    if kind == ".json":
        parts = Config.from_json(value, path).to_json()
        return ConfigFile(settings=_without_other_models(parts["model"] | parts["training"]))
    try:
        return _from_toml(value)
    except GQNError as error:
        raise OptionError(f"{path}: {error}") from error


def _from_toml(value: dict[str, Any]) -> ConfigFile:
    for key in value:
        if key not in _KEYS:
            raise _misplaced(key, None)
    settings: dict[str, Any] = {}
    for part in _PARTS:
        table = value.get(part, {})
        if not isinstance(table, dict):
            raise OptionError(f"{part} is {str(table)[:40]!r}, expected the table [{part}]")
        for name, one in table.items():
            _check_setting(name)
            if declaration(name).part != part:
                raise _misplaced(name, part)
            settings[name] = one
    preset, mods = value.get("preset"), value.get("mods", [])
    if preset is not None and (not isinstance(preset, str) or preset not in PRESETS):
        raise UnknownName("preset", str(preset)[:80], PRESETS)
    if not isinstance(mods, list):
        raise OptionError(f"mods is {str(mods)[:40]!r}, expected a list of names")
    for mod in mods:
        if not isinstance(mod, str) or mod not in MODS:
            raise UnknownName("mod", str(mod)[:80], MODS)
    Config().replaced(settings)  # raises for a value that is not possible
    return ConfigFile(settings=settings, preset=preset, mods=tuple(mods))


def _misplaced(name: str, found: str | None) -> GQNError:
    """Return the error about a key in a wrong place, or about one that is not a setting."""
    where = "above the tables" if found is None else f"in [{found}]"
    if name in {one.name for one in declarations()}:
        return OptionError(f"found {name} {where}, expected it in [{declaration(name).part}]")
    _check_setting(name)
    return UnknownName("key", name[:80], {*_KEYS, *(one.name for one in declarations())})


def _check_setting(name: str) -> None:
    """Raise if a name is an option of the command but not a setting."""
    if name in COMMAND_OPTIONS:
        flag = name.replace("_", "-")
        raise OptionError(f"found {name[:80]}, which is not a setting; pass --{flag} to `gqn train`")


def _without_other_models(settings: dict[str, Any]) -> dict[str, Any]:
    """Return the settings without the defaults of other models, which a run's file also lists."""
    other = {
        one.name
        for one in declarations()
        if one.owner not in (None, settings["model"]) and settings[one.name] == one.default
    }
    return {name: value for name, value in settings.items() if name not in other}
