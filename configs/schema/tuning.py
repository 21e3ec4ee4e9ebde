"""Settings of tuning: what is tried, how long, and on which dates it is judged."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, Field, TypeAdapter, ValidationError, ValidationInfo, field_validator, model_validator

from configs.schema.base import Section
from configs.schema.detector import ModelSettings, TrainSettings

Scalar = bool | int | float | str
SECTIONS: Mapping[str, type[BaseModel]] = {"model": ModelSettings, "train": TrainSettings}
FIXED = {
    "model.condition": "the tiles are gathered once, for all trials",
    "train.epochs": "tune.epochs says how long a trial trains",
    "train.max_tiles": "the tiles are gathered once, for all trials",
    "train.min_valid": "the tiles are gathered once, for all trials",
    "train.device": "it decides how fast a network learns, not what",
    "train.devices": "it decides how fast a network learns, not what",
    "train.compile": "it decides how fast a network learns, not what",
    "train.diagnose_every": "it changes no network",
    "train.latent_map": "it changes no network",
}


class Range(Section):
    """Numbers from `low` to `high`, both included; with `log`, their logarithm is what is spread evenly."""

    low: float
    high: float
    log: bool = False

    @model_validator(mode="after")
    def _in_order(self) -> Range:
        if not self.low < self.high:
            raise ValueError(f"low = {self.low:g} is not below high = {self.high:g}")
        if self.log and self.low <= 0:
            raise ValueError(f"low = {self.low:g} has no logarithm: use a number above 0, or log: false")
        return self


Values = tuple[Scalar, ...] | Range


def _values(key: str, value: Any) -> Values:
    """A list of values or a range, from what was given.

    Raises:
        ValueError: It is neither.
    """
    if isinstance(value, Range):
        return value
    if isinstance(value, Mapping):
        try:
            return Range.model_validate(value)
        except ValidationError as error:
            raise ValueError(f"the range of {key} cannot be {dict(value)}: {_words(error)}") from None
    if not isinstance(value, (list, tuple)) or not all(isinstance(one, Scalar) for one in value):
        raise ValueError(f"{key} = {value!r}: give a list of values, or a range {{low: …, high: …}}")
    if not value or len(set(map(repr, value))) < len(value):
        raise ValueError(f"{key} = {list(value)!r}: give at least one value, and each once")
    return tuple(value)


def _accepted(section: str, name: str, values: Values) -> Values:
    """The values as the setting has them.

    Raises:
        ValueError: There is no such setting, it cannot be tuned, or it refuses a value.
    """
    fields, key = SECTIONS[section].model_fields, f"{section}.{name}"
    if name not in fields:
        near = difflib.get_close_matches(name, fields, n=1)
        meant = f": did you mean {section}.{near[0]}?" if near else f"; there are {', '.join(fields)}"
        raise ValueError(f"there is no setting {key}{meant}")
    if key in FIXED:
        raise ValueError(f"{key} cannot be tuned: {FIXED[key]}")
    field = fields[name]
    if isinstance(values, Range) and field.annotation not in (int, float):
        raise ValueError(f"{key} is no number: give a list of its values, not a range")
    one: Any = Annotated[field.annotation, field]
    adapter: TypeAdapter[Any] = TypeAdapter(one)
    ends = (values.low, values.high) if isinstance(values, Range) else values
    taken = []
    for value in ends:
        try:
            taken.append(adapter.validate_python(value))
        except ValidationError as error:
            raise ValueError(f"{key} cannot be {value!r}: {_words(error)}") from None
    if key == "model.members" and 0 in taken:
        raise ValueError("model.members cannot be 0 in tune.space: there would be no network to tune")
    return values if isinstance(values, Range) else tuple(taken)


def _words(error: ValidationError) -> str:
    parts = []
    for problem in error.errors():
        where, words = ".".join(map(str, problem["loc"])), problem["msg"].removeprefix("Value error, ")
        parts.append(f"{where}: {words}" if where else words)
    return "; ".join(parts)


class SpaceSettings(Section):
    """The values that are tried: a list of them, or a range of numbers. What is not named stays as it is set."""

    model: dict[str, Values] = Field(
        {
            "latent_channels": (4, 8, 16, 32),
            "width": (16, 24, 32),
            "depth": (2, 3, 4),
            "posterior": ("gaussian", "hierarchical", "flow"),
            "likelihood": ("gaussian", "gaussian_learned", "heteroscedastic", "student_t"),
        },
        description="Of the section model: a list, or {low, high, log}. What is given replaces the whole default.",
    )
    train: dict[str, Values] = Field(
        {
            "objective": ("elbo", "iwae"),
            "beta": Range(low=0.1, high=10, log=True),
            "learning_rate": Range(low=5e-4, high=5e-3, log=True),
        },
        description="Of the section train, in the same way.",
    )

    @field_validator("model", "train", mode="before")
    @classmethod
    def _lists_or_ranges(cls, space: Any, info: ValidationInfo) -> Any:
        """Say what is wrong with an entry once, not once for each kind that it might have been."""
        if not isinstance(space, Mapping):
            raise ValueError(f"give the settings of {info.field_name} that are tried, each with its values")
        return {name: _values(f"{info.field_name}.{name}", value) for name, value in space.items()}

    @field_validator("model", "train", mode="after")
    @classmethod
    def _settings_take_them(cls, space: dict[str, Values], info: ValidationInfo) -> dict[str, Values]:
        return {name: _accepted(str(info.field_name), name, values) for name, values in space.items()}

    @property
    def values(self) -> dict[str, Values]:
        """All of it, by the dotted name of the setting, in alphabetical order."""
        found = {f"{part}.{name}": one for part in SECTIONS for name, one in getattr(self, part).items()}
        return dict(sorted(found.items()))


class TuneSettings(Section):
    """The search for better settings of the network, by the injected anomalies that a detector finds with them."""

    trials: int = Field(30, ge=1, le=10_000, description="Settings that are tried, with those tried before.")
    timeout: float | None = Field(None, gt=0, description="Seconds after which no further trial is begun.")
    epochs: int = Field(12, ge=1, le=10_000, description="Most passes over the tiles in a trial.")
    short_epochs: int = Field(
        4,
        ge=0,
        description="A trial first trains this long, and is given up when it finds less than the median of the others "
        "did then. 0: none is given up.",
    )
    startup: int = Field(
        8, ge=1, description="Trials that are drawn at random, before the search learns from them and gives any up."
    )
    held_out: float = Field(
        0.2, gt=0, lt=1, description="Share of the training dates that no trial learns from: they judge it."
    )
    min_dates: int = Field(
        3, ge=1, description="With fewer such dates, the validation dates judge; this is said in the summary."
    )
    space: SpaceSettings = SpaceSettings()

    @model_validator(mode="after")
    def _sensible(self) -> TuneSettings:
        if self.short_epochs >= self.epochs:
            raise ValueError(
                f"tune.short_epochs = {self.short_epochs} is not below tune.epochs = {self.epochs}: make it shorter, "
                "or 0 to give no trial up"
            )
        if not self.space.values:
            raise ValueError("tune.space names no setting: there is nothing to try")
        return self
