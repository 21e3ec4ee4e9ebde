"""The moves of the alias `champion`: which version became the champion, when, instead of which, and why.

Every move is written down first, as a tag of the version that it moves to, and the alias moves last: a kill in between
leaves the old champion, and a move that was written down and did not happen.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Literal

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from configs import Settings

CHAMPION: Literal["champion"] = "champion"
CHALLENGER: Literal["challenger"] = "challenger"
MOVED_TAG = "tilewatch.promoted."  # and the moment; one tag a move, so that none is ever overwritten
LONGEST_WORDS = 2000  # MLflow refuses tags of more than 5000 characters


@dataclass(frozen=True)
class Move:
    """A move of the alias `champion`, as it was written down.

    Attributes:
        at: When, UTC, ISO 8601.
        of: The version that became the champion, e.g. "v3".
        instead_of: The champion until then; '' when there was none.
        why: In words.
        back: Whether an earlier champion was put back.
    """

    at: str
    of: str
    instead_of: str
    why: str
    back: bool = False


def move(
    client: MlflowClient, settings: Settings, number: str, before: str | None, why: str, back: bool = False
) -> Move:
    """Write a move down, then move the alias, then take the challenger's alias from the new champion."""
    at = datetime.now(UTC)
    made = Move(at.isoformat(timespec="seconds"), named(number), named(before), why[:LONGEST_WORDS], back)
    key = f"{MOVED_TAG}{at.strftime('%Y%m%dT%H%M%S.%fZ')}"
    client.set_model_version_tag(settings.name, number, key, json.dumps(asdict(made)))
    client.set_registered_model_alias(settings.name, CHAMPION, number)
    drop_challenger(client, settings, number)
    return made


def drop_challenger(client: MlflowClient, settings: Settings, number: str) -> None:
    """A champion is no challenger."""
    aliases = client.get_model_version(settings.name, number).aliases
    if CHALLENGER in aliases and CHAMPION in aliases:
        client.delete_registered_model_alias(settings.name, CHALLENGER)


def moves_to(tags: Mapping[str, str]) -> list[Move]:
    """The moves to a version that were written down, the oldest first."""
    return [Move(**json.loads(text)) for key, text in sorted(tags.items()) if key.startswith(MOVED_TAG)]


def named(number: str | int | None) -> str:
    """A version as it is written everywhere: "v3"; '' for none."""
    return "" if number is None else f"v{number}"


def champion_version(client: MlflowClient, settings: Settings) -> str | None:
    """The number of the champion; None when there is none."""
    try:
        return str(client.get_model_version_by_alias(settings.name, CHAMPION).version)
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
        return None
