"""Parameters of the flows; the Prefect UI shows them as forms, with these descriptions and limits."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any, Literal

from prefect.runtime import deployment
from pydantic import BaseModel, ConfigDict, Field, model_validator

from configs import Period, Settings, SettingsError, Workspace, load_settings
from configs.workspace import DEFAULT_WORKSPACE


class Watch(BaseModel):
    """What is watched: a configuration and its workspace."""

    model_config = ConfigDict(extra="forbid")

    config: str | None = Field(None, description="YAML file with the settings. Empty: the defaults.")
    workspace: str = Field(str(DEFAULT_WORKSPACE), description="Folder in which everything is kept.")
    overrides: list[str] = Field([], description="Settings that differ, as key=value, e.g. train.epochs=5.")

    def open(self) -> tuple[Settings, Workspace]:
        """Read the settings.

        Raises:
            SettingsError: They cannot work.
        """
        workspace = Path(self.workspace)
        if deployment.id and not workspace.is_absolute():
            # A worker runs a deployment in a folder of its own, which it deletes afterwards.
            raise SettingsError(f"workspace = {self.workspace!r}: a deployment needs an absolute path")
        return load_settings(self.config, self.overrides), Workspace(workspace)


class TrainRequest(BaseModel):
    """Why and how to train. What is left empty is taken from the settings."""

    model_config = ConfigDict(extra="forbid")

    reason: str = Field("", max_length=500, description="Why; kept with the model.")
    train_start: date | None = Field(None, description="First date to learn from.")
    train_end: date | None = Field(None, description="Last date to learn from.")
    calibrate_start: date | None = Field(None, description="First date to set the threshold on.")
    calibrate_end: date | None = Field(None, description="Last date to set the threshold on.")
    epochs: int | None = Field(None, ge=1, le=10_000, description="Most passes over the tiles.")
    false_alarm_rate: float | None = Field(None, gt=0, lt=1, description="Share of normal tiles that may be flagged.")
    seed: int | None = Field(None, ge=0, description="Of weights, order and augmentation.")
    promotion: Literal["as configured", "better", "asked", "always"] = Field(
        "as configured",
        description="When the new detector takes over. better: by itself, once shown to be; asked: by `tilewatch "
        "models promote`; always: untested.",
    )
    device: Literal["as configured", "auto", "cpu", "cuda"] = Field(
        "as configured", description="What it is trained on. auto: the GPU when there is one."
    )
    drift: str | None = Field(
        None,
        pattern=r"^v\d+/\d{4}-\d{2}-\d{2}$",
        description="The drift that asks, e.g. v3/2025-07-31: it is trained for once, and not soon after another. "
        "Empty: a person asks.",
    )

    @model_validator(mode="after")
    def _in_order(self) -> TrainRequest:
        Period(start=self.train_start, end=self.train_end)
        Period(start=self.calibrate_start, end=self.calibrate_end)
        return self

    def apply(self, settings: Settings) -> Settings:
        """The settings with this request's values.

        Raises:
            SettingsError: Together they cannot work.
        """
        values: dict[str, Any] = settings.model_dump()
        split = values["split"]
        for name, start, end in (
            ("train", self.train_start, self.train_end),
            ("calibrate", self.calibrate_start, self.calibrate_end),
        ):
            if start or end:
                before = split[name] or {"start": None, "end": None}
                split[name] = {"start": start or before["start"], "end": end or before["end"]}
        for section, key, value in (
            ("train", "epochs", self.epochs),
            ("calibration", "false_alarm_rate", self.false_alarm_rate),
        ):
            if value is not None:
                values[section][key] = value
        for section, key, choice in (("promotion", "when", self.promotion), ("train", "device", self.device)):
            if choice != "as configured":
                values[section][key] = choice
        if self.seed is not None:
            values["seed"] = self.seed
        try:
            return Settings.model_validate(values)
        except ValueError as error:
            raise SettingsError(str(error)) from None


class TuneRequest(BaseModel):
    """How long to search for better settings of the network. What is left empty is taken from the settings."""

    model_config = ConfigDict(extra="forbid")

    trials: int | None = Field(None, ge=1, le=10_000, description="Settings that are tried, with those tried before.")
    timeout: float | None = Field(None, gt=0, description="Seconds after which no further trial is begun.")
    epochs: int | None = Field(None, ge=1, le=10_000, description="Most passes over the tiles in a trial.")

    def apply(self, settings: Settings) -> Settings:
        """The settings with this request's values.

        Raises:
            SettingsError: Together they cannot work.
        """
        values = {**settings.model_dump(), "tune": settings.tune.model_dump() | self.model_dump(exclude_none=True)}
        try:
            return Settings.model_validate(values)
        except ValueError as error:
            raise SettingsError(str(error)) from None


class NightRequest(BaseModel):
    """Which nights. By default all that are due, oldest first."""

    model_config = ConfigDict(extra="forbid")

    night: date | None = Field(None, description="This night alone; later scenes are not looked at.")
    since: date | None = Field(None, description="First night; by default the one after all that was learned from.")
    until: date | None = Field(None, description="Last night.")
    force: bool = Field(False, description="Report finished nights again.")

    @model_validator(mode="after")
    def _in_order(self) -> NightRequest:
        Period(start=self.since, end=self.until)
        return self

    @property
    def period(self) -> Period:
        """The nights to consider."""
        return Period(start=self.night or self.since, end=self.night or self.until)
