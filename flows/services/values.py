"""What is filled in when the deployments are registered: a step of `deployments/prefect.yaml`."""

from __future__ import annotations

import os
from pathlib import Path
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from configs import SettingsError, load_settings

CRON, TIMEZONE = "0 5 * * *", "UTC"


def from_environment() -> dict[str, str]:
    """Values of `TILEWATCH_CONFIG`, `TILEWATCH_WORKSPACE`, `TILEWATCH_CRON` and `TILEWATCH_TIMEZONE`.

    Returns:
        `config`, `workspace`, `cron`, `timezone`; and `resource`, of which this watch's events are: any watch's where
        the configuration lies on the worker's machine alone.

    Raises:
        SettingsError: A path that is no absolute one, an unknown time zone, or settings that cannot work.
    """
    paths = {}
    for key in ("config", "workspace"):
        name = f"TILEWATCH_{key.upper()}"
        paths[key] = os.environ.get(name, "")
        # An unset variable would become '', and a relative path would lie below a run's temporary folder.
        if not Path(paths[key]).is_absolute():
            raise SettingsError(f"{name} = {paths[key]!r}: set {name} to an absolute path, as the worker sees it")
    name = load_settings(paths["config"]).name if Path(paths["config"]).is_file() else "*"
    return {
        **paths,
        "cron": checked_cron(os.environ.get("TILEWATCH_CRON") or CRON),
        "timezone": checked_timezone(os.environ.get("TILEWATCH_TIMEZONE") or TIMEZONE),
        "resource": f"tilewatch.watch.{name}",
    }


def checked_cron(text: str) -> str:
    """A cron expression with its five fields.

    Raises:
        SettingsError: It is none.
    """
    if len(text.split()) != 5 or not all(c.isalnum() or c in "*/,-#? " for c in text):
        raise SettingsError(f"{text!r} is no time of cron: minute hour day month weekday, e.g. '{CRON}'")
    return text


def checked_timezone(name: str) -> str:
    """A time zone that is known.

    Raises:
        SettingsError: It is not.
    """
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise SettingsError(f"{name!r} is no time zone: write one such as Europe/Bucharest, or UTC") from None
    return name
