"""Settings of the detector: what it learns from, what it is, and what it makes of a score."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from configs.schema.base import Fraction, Period, Section


class SplitSettings(Section):
    """Which dates train, which calibrate. Splits are by date, never by tile: tiles of one date are not independent."""

    train: Period = Period()
    calibrate: Period | None = Field(
        None, description="Dates held out for calibration. Null: the validation dates, and this is said in the report."
    )
    validation_fraction: float = Field(
        0.2, ge=0, lt=1, description="Share of the training dates held out for early stopping, spread over the period."
    )
    exclude_flagged: bool = Field(
        True, description="Tiles that were flagged on a night are not learned from, and set no threshold."
    )
    max_flagged: Fraction = Field(
        0.25,
        description="A scene with a larger share of flagged tiles is learned from whole: the scene differs.",
    )
    allow_training_dates: bool = Field(
        False,
        description="Calibrate on training dates when nothing is held out; its p-values are marked as optimistic.",
    )


class ModelSettings(Section):
    """The convolutional variational autoencoder."""

    width: int = Field(24, ge=4, le=256, description="Channels after the first layer; doubled at each halving.")
    depth: int = Field(
        3, ge=1, le=5, description="How many times the resolution is halved; 2**depth divides tile_size."
    )
    latent_channels: int = Field(16, ge=1, le=512, description="Channels of the latent map.")


class TrainSettings(Section):
    """How the network is fitted."""

    epochs: int = Field(60, ge=1, description="Most passes over the training tiles.")
    batch_size: int = Field(64, ge=2, description="Tiles a step.")
    learning_rate: float = Field(2e-3, gt=0, description="Of AdamW at the start; it falls along a cosine.")
    weight_decay: float = Field(1e-4, ge=0, description="Of AdamW.")
    beta: float = Field(1.0, ge=0, description="Weight of the KL term once warmed up (β-VAE).")
    kl_warmup: Fraction = Field(0.25, description="Share of the epochs over which β rises linearly from 0.")
    clip_norm: float = Field(100.0, gt=0, description="Gradients are clipped to this norm.")
    patience: int = Field(10, ge=1, description="Epochs without a better held-out ELBO before stopping.")
    max_tiles: int = Field(20_000, ge=1, description="Most training tiles; more are thinned by a seeded draw.")
    min_valid: Fraction = Field(0.7, description="Least share of usable pixels of a training tile.")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto: the GPU when there is one.")


class ScoreSettings(Section):
    """The number each tile gets."""

    name: str = Field("reconstruction", description="Name in the registry of scores (vae/scores.py).")
    pool: Literal["mean", "p90"] = Field("p90", description="How a tile's valid pixels become one number.")
    relative_to_place: bool = Field(
        True,
        description="Divide a tile's score by its usual one on the dates learned from: judge it by its place.",
    )
    min_history: int = Field(
        5, ge=1, description="A tile with fewer dates is judged by the usual score of all tiles instead."
    )
    min_valid: Fraction = Field(0.5, description="A tile with a smaller share of usable pixels gets no score.")


class CalibrationSettings(Section):
    """From score to p-value and flag."""

    false_alarm_rate: float = Field(0.01, gt=0, lt=1, description="Share of normal tiles that may be flagged.")
    min_tiles: int = Field(100, ge=10, description="Fewest calibration tiles; with fewer, calibration is refused.")


class DriftSettings(Section):
    """Tonight against training: when is the input no longer what the detector was made for?"""

    season_days: int = Field(45, ge=1, le=183, description="Training dates this close in the year are compared with.")
    min_dates: int = Field(5, ge=1, description="With fewer dates of the season, all training dates are used.")
    min_tiles: int = Field(8, ge=1, description="A night with fewer usable tiles is too cloudy to be judged.")
    margin: float = Field(
        1.5, ge=1, description="A statistic alarms beyond this many times its 95th percentile among training dates."
    )
    window: int = Field(
        4, ge=1, description="Usable nights that are looked at together; weather and haze differ from night to night."
    )
    patience: int = Field(2, ge=1, description="Nights in a row that must alarm before drift is declared.")
    retrain: bool = Field(False, description="Retrain when drift is declared.")
    retrain_after: int = Field(4, ge=2, description="Usable nights to collect since the drift began before retraining.")
