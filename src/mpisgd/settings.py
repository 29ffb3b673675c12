"""From the sources of settings to one checked `Config`: command line, environment, TOML file, preset, default.

The first source that names a setting wins, in that order. Every message names the source, the setting, what
was found and what was expected.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

from mpisgd.config import PRESETS, Config, Declaration, declarations
from mpisgd.errors import UsageError

PREFIX = "MPISGD_"
# Kubernetes sets NAME_SERVICE_HOST, NAME_PORT_80_TCP, ... in every pod for every Service of the namespace.
_TRUTHS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
SERVICE_LINK_MARKS = ("_SERVICE_", "_PORT")


@dataclass(frozen=True)
class Source:
    """Raw values by setting name, and how a message names one of them."""

    values: Mapping[str, Any]
    name_of: Callable[[str], str]


def resolve(command_line: Mapping[str, str | bool], environment: Mapping[str, str]) -> Config:
    """Return the config that the sources give together.

    `command_line` maps setting names (and "config", "preset") to raw values; only what the user typed is in it.

    Raises:
        UsageError: an unknown setting, a value out of bounds, an unreadable config file, no rule to stop by.

    """
    typed = dict(command_line)
    variables = _environment_values(environment)
    config_file = typed.pop("config", variables.pop("config", None))
    preset = typed.pop("preset", variables.pop("preset", None))
    sources = [
        Source(typed, lambda name: f"command line: --{name.replace('_', '-')}"),
        Source(variables, lambda name: f"environment: {PREFIX}{name.upper()}"),
        *([Source(_read_toml(Path(str(config_file))), lambda name: f"{config_file}: {name}")] if config_file else []),
        *([Source(_preset_values(str(preset)), lambda name: f"preset {preset}: {name}")] if preset else []),
    ]
    config = Config(**_checked_values(sources))
    if config.passes is config.max_seconds is config.target_accuracy is config.patience is None:
        raise UsageError(
            "no rule to stop by: passes, max_seconds, target_accuracy and patience are all none; set at least one"
        )
    if config.mode == "sync" and config.max_staleness is not None:
        raise UsageError(f"max_staleness: found {config.max_staleness} with mode sync, expected mode async or none")
    return config


def to_toml(config: Config) -> str:
    """Return the config as the TOML that `--config` reads; settings that are unset say "none"."""
    import tomli_w  # noqa: PLC0415 - rank 0 alone needs it

    return tomli_w.dumps({name: "none" if value is None else value for name, value in asdict(config).items()})


def suggest(word: str, known: Iterable[str]) -> str:
    """Return " (did you mean 'x'?)" for the nearest known name, or nothing."""
    import difflib  # noqa: PLC0415 - only who makes a mistake needs it

    nearest = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f" (did you mean '{nearest[0]}'?)" if nearest else ""


def _checked_values(sources: list[Source]) -> dict[str, Any]:
    declared = declarations()
    checked: dict[str, Any] = {}
    for source in sources:
        for name, found in source.values.items():
            if name not in declared:
                raise UsageError(f"{source.name_of(name)}: unknown setting{suggest(name, declared)}")
            value = _checked(declared[name], found, source.name_of(name))
            checked.setdefault(name, value)
    return checked


def _checked(declared: Declaration, found: Any, where: str) -> Any:
    """Return the value in the declared type, converted from text where need be."""
    import msgspec  # noqa: PLC0415 - rank 0 alone needs it

    if declared.optional and (found is None or (isinstance(found, str) and found.lower() == "none")):
        return None
    if found in declared.words:
        return found
    refusal = UsageError(f"{where}: found {found!r}, expected {declared.expected}")
    if isinstance(found, str):
        found = _as_written(found, declared.required_kind)
    bounds: Any = declared.bounds
    bounded: Any = Annotated[declared.required_kind, msgspec.Meta(**bounds)] if bounds else declared.required_kind
    try:
        value = msgspec.convert(found, bounded, strict=False)
    except msgspec.ValidationError as error:
        raise refusal from error
    if isinstance(value, float) and not math.isfinite(value):
        raise refusal
    return value


def _as_written(text: str, kind: Any) -> Any:
    """Return the number or truth value that a text stands for, or the text where it stands for none.

    Numbers as Python reads them (.5, 1_000), where msgspec alone would take what JSON allows.
    """
    if kind is bool:
        return _TRUTHS.get(text.strip().lower(), text)
    for reads in {int: (int, float), float: (float,)}.get(kind, ()):
        with contextlib.suppress(ValueError):
            return reads(text)
    return text


def _environment_values(environment: Mapping[str, str]) -> dict[str, Any]:
    """Return the MPISGD_... variables by setting name; those Kubernetes makes up are none of ours."""
    known = {PREFIX + name.upper(): name for name in (*declarations(), "config", "preset")}
    found = {}
    for variable, value in environment.items():
        if variable in known:
            found[known[variable]] = value
        elif variable.startswith(PREFIX) and not any(mark in variable for mark in SERVICE_LINK_MARKS):
            raise UsageError(f"environment: {variable}: unknown setting{suggest(variable, known)}")
    return found


def _read_toml(path: Path) -> dict[str, Any]:
    import tomllib  # noqa: PLC0415 - as above

    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{path}: cannot read the config file: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: not a TOML file: {error}") from error


def _preset_values(name: str) -> dict[str, Any]:
    if name not in PRESETS:
        raise UsageError(f"preset: found '{name}', expected {' or '.join(PRESETS)}{suggest(name, PRESETS)}")
    return PRESETS[name]
