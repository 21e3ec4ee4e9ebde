"""Settings from a YAML preset, `--set key=value` and `TILEWATCH_…` variables, in that order; the last one wins."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from configs.schema import Settings

ENVIRONMENT_PREFIX = "TILEWATCH_"
NOT_SETTINGS = {
    "TILEWATCH_CONFIG",
    "TILEWATCH_WORKSPACE",
    "TILEWATCH_SHARED_DATA",
    "TILEWATCH_CRON",
    "TILEWATCH_TIMEZONE",
}


class SettingsError(ValueError):
    """A setting that cannot work. The message names the key, the value and what to do."""


def load_settings(
    config: Path | str | None = None,
    overrides: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
) -> Settings:
    """Read the settings of a watch.

    Args:
        config: YAML preset; without one, the defaults. A relative `source.root` in it is relative to this file.
        overrides: `key=value` pairs such as `train.epochs=5`; the value is read as YAML.
        environment: Variables such as `TILEWATCH_TRAIN__EPOCHS=5`; by default those of the process.

    Returns:
        The settings, complete and valid.

    Raises:
        SettingsError: A file that cannot be read, an unknown key, or a value out of range.

    Example:
        >>> load_settings(overrides=["train.epochs=5"], environment={}).train.epochs
        5
    """
    values = _read_preset(Path(config)) if config else {}
    for key, value in [*_pairs(overrides), *_from_environment(os.environ if environment is None else environment)]:
        _assign(values, key, value)
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        raise SettingsError(_in_words(error)) from None


def keys(model: type[BaseModel] = Settings, prefix: str = "") -> Iterator[str]:
    """All dotted keys of a settings model, sections included."""
    for name, field in model.model_fields.items():
        yield prefix + name
        annotation = field.annotation
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            yield from keys(annotation, f"{prefix}{name}.")


def _read_preset(path: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"cannot read the configuration {path}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} is not valid YAML: {error}") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise SettingsError(f"{path} holds a {type(values).__name__}, not `section: values` pairs")
    source = values.get("source")
    if isinstance(source, dict) and isinstance(source.get("root"), str):
        source["root"] = str((path.parent / _expand(source["root"], path)).resolve())
    return values


def _expand(text: str, path: Path) -> str:
    """Replace ${NAME} and ${NAME:-default}; used for folders only, so that no secret finds its way into settings."""

    def value(match: re.Match[str]) -> str:
        name, default = match["name"], match["default"]
        found = os.environ.get(name) or default
        if found is None:
            raise SettingsError(f"{path}: source.root uses ${{{name}}}, which is not set in the environment")
        return found

    return re.sub(r"\$\{(?P<name>\w+)(?::-(?P<default>[^}]*))?\}", value, text)


def _pairs(overrides: Sequence[str]) -> Iterator[tuple[str, Any]]:
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals or not key.strip():
            raise SettingsError(f"--set {override!r} is not of the form key=value, e.g. train.epochs=5")
        yield key.strip(), _parse(text, key)


def _from_environment(environment: Mapping[str, str]) -> Iterator[tuple[str, Any]]:
    for name in sorted(environment):
        if name.startswith(ENVIRONMENT_PREFIX) and name not in NOT_SETTINGS:
            key = name.removeprefix(ENVIRONMENT_PREFIX).lower().replace("__", ".")
            yield key, _parse(environment[name], name)


def _parse(text: str, key: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        raise SettingsError(f"the value {text!r} of {key} is not valid YAML; put it in quotes") from None


def _assign(values: dict[str, Any], key: str, value: Any) -> None:
    *sections, last = key.split(".")
    for section in sections:
        if not isinstance(values.get(section), dict):
            values[section] = {}
        values = values[section]
    values[last] = value


def _in_words(error: ValidationError) -> str:
    lines = []
    for problem in error.errors():
        key = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "extra_forbidden":
            close = difflib.get_close_matches(key, list(keys()), n=1, cutoff=0.5)
            hint = f": did you mean {close[0]}?" if close else "; `docs/settings.md` lists all settings"
            lines.append(f"unknown setting {key}{hint}")
        else:
            message = problem["msg"].removeprefix("Value error, ")
            value = "" if isinstance(problem["input"], dict) else f" = {problem['input']!r}"
            shown = f"{key}{value}: " if key else ""
            lines.append(f"{shown}{message}")
    return "\n".join(lines)
