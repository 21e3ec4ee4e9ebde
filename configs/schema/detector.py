"""Settings of the detector: what it learns from, what it is, and what it makes of a score."""

from __future__ import annotations

from typing import Annotated, Literal

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

    members: int = Field(
        1,
        ge=0,
        le=16,
        description="Networks from different seeds, whose scores are averaged. 0: no network, for scores without one.",
    )
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

    name: str = Field(
        "change", description="Of tiles whose place has a past that can be seen: name in the registry (vae/scores)."
    )
    without_past: str = Field("novelty", description="Of tiles that are looked at alone: name in the registry.")
    also: tuple[str, ...] = Field(
        ("reconstruction",), description="Other scores that are worked out and kept beside them, as columns."
    )
    visible: tuple[str, str, str] | None = Field(
        None, description="Bands that are red, green and blue. Null: found by their usual names."
    )
    pool: Literal["mean", "p90"] = Field("p90", description="How a tile's valid pixels become one number.")
    relative_to_place: bool = Field(
        True,
        description="Divide a tile's score by its usual one on the dates learned from: judge it by its place.",
    )
    min_valid: Fraction = Field(0.5, description="A tile with a smaller share of usable pixels gets no score.")
    min_past: Fraction = Field(
        0.5, description="A tile of which the past shows a smaller share of these pixels is looked at alone."
    )

    @property
    def names(self) -> tuple[str, ...]:
        """Every score that is worked out, the one for tiles with a past first."""
        return tuple(dict.fromkeys((self.name, self.without_past, *self.also)))


class CalibrationSettings(Section):
    """From score to p-value, flag and scene alarm."""

    false_alarm_rate: float = Field(0.01, gt=0, lt=1, description="Share of normal tiles that may be flagged.")
    min_tiles: int = Field(100, ge=10, description="Fewest calibration tiles; with fewer, calibration is refused.")
    min_dates: int = Field(2, ge=1, description="Fewest calibration dates; with fewer, calibration is refused.")
    night: Literal["off", "centred", "standardised"] = Field(
        "centred",
        description="What all tiles of a scene have in common is taken out of their scores, and judged by itself: "
        "nothing, the level, or the spread as well.",
    )
    blocks: Literal["tile", "date"] = Field(
        "tile",
        description="date: no more than dates are taken to be exchangeable, which needs as many of them as "
        "1 / false_alarm_rate. tile: tiles are, once the night is taken out.",
    )
    tail: Literal["empirical", "pareto"] = Field(
        "empirical",
        description="pareto: small p-values follow a generalised Pareto distribution, for rates below one in the "
        "number of calibration tiles.",
    )
    scene_rate: float = Field(0.05, gt=0, lt=0.5, description="Share of normal scenes that may alarm as a whole.")
    fdr: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="Share of a scene's flags that may be false (Benjamini-Hochberg), instead of the false-alarm rate.",
    )
    place_prior: float | None = Field(
        60.0,
        ge=0,
        le=1e6,
        description="Dates of its own at which a place's usual score weighs as much as that of all places: what is "
        "usual at a place may change. 0: its own alone. Null: estimated, as if it never changed.",
    )


class InjectionSettings(Section):
    """Anomalies put into held-out normal tiles: what a detector would find, and what it would miss."""

    enabled: bool = Field(True, description="Inject after every calibration.")
    kinds: tuple[str, ...] | None = Field(
        None, description="Names in the registry of kinds (imagery/inject); null: all of them."
    )
    tiles: int = Field(25, ge=5, le=500, description="Tiles that each kind is put into.")
    strengths: dict[str, Annotated[float, Field(gt=0, le=1)]] = Field(
        {}, description="Strength by kind, where not the kind's own: of a burn its severity, of a flood its cover."
    )
    warn_below: Fraction = Field(
        0.3, description="With a smaller share of an event's tiles flagged, the detector is said to miss it."
    )


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
