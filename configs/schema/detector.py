"""Settings of the detector: what it learns from, what it is, and what it makes of a score."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

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
    """The variational autoencoder. Its parts are chosen one by one; `docs/models.md` says when to choose which."""

    members: int = Field(
        1,
        ge=0,
        le=16,
        description="Networks from different seeds, whose scores are averaged. 0: no network, for scores without one.",
    )
    network: Literal["convolutional", "residual"] = Field(
        "convolutional", description="residual: two residual blocks at each resolution, for large training sets."
    )
    width: int = Field(24, ge=4, le=256, description="Channels after the first layer; doubled at each halving.")
    depth: int = Field(
        3, ge=1, le=5, description="How many times the resolution is halved; 2**depth divides tile_size."
    )
    skips: bool = Field(
        False,
        description="Connections from encoder to decoder past the latent. They let anomalies through: for comparison.",
    )
    latent: Literal["map", "vector"] = Field(
        "map", description="map: a latent for each cell of 2**depth pixels. vector: one for the whole tile."
    )
    latent_channels: int = Field(16, ge=1, le=512, description="Channels of the latent; of each level, if several.")
    posterior: Literal["gaussian", "hierarchical", "flow", "quantised"] = Field(
        "gaussian",
        description="gaussian: diagonal. hierarchical: several levels, top-down. flow: bent by invertible layers. "
        "quantised: the nearest of a learned set of codes.",
    )
    levels: int = Field(2, ge=2, le=5, description="Levels of a hierarchical latent, each twice as fine as the last.")
    flow_steps: int = Field(4, ge=1, le=16, description="Invertible layers of a flow posterior.")
    codes: int = Field(256, ge=2, le=8192, description="Codes of a quantised latent.")
    likelihood: Literal[
        "gaussian", "gaussian_shared", "gaussian_learned", "heteroscedastic", "bernoulli", "student_t"
    ] = Field(
        "gaussian",
        description="What the decoder says of a value. gaussian: the best σ of each band; "
        "gaussian_shared: of all bands; "
        "gaussian_learned: a learned σ of each band; heteroscedastic: a σ for each pixel; student_t: heavy tails; "
        "bernoulli: values within normalise.clip as shares of the range.",
    )
    degrees_of_freedom: float = Field(4.0, gt=1, le=100, description="Of student_t: fewer, heavier tails.")
    condition: tuple[Literal["season", "place", "sun", "sensor", "reference"], ...] = Field(
        (),
        description="What the network is told beside the tile: day of the year, location, angles of the sun, sensor, "
        "and what the past of the place lets expect.",
    )

    @model_validator(mode="after")
    def _sensible(self) -> ModelSettings:
        if len(set(self.condition)) < len(self.condition):
            raise ValueError(f"model.condition names something twice: {', '.join(self.condition)}")
        if self.condition and not self.members:
            raise ValueError(
                f"model.condition is {', '.join(self.condition)}, and model.members is 0, so that there is no network "
                "to be told: take the conditions out, or set members to 1"
            )
        if self.posterior in ("hierarchical", "quantised") and self.latent == "vector":
            raise ValueError(f"a {self.posterior} latent is a map: set model.latent to map, or another model.posterior")
        if self.posterior == "hierarchical" and self.levels > self.depth:
            raise ValueError(
                f"model.levels is {self.levels}: each level is twice as fine as the last, so that model.depth = "
                f"{self.depth} leaves room for {self.depth} at most"
            )
        if self.skips and self.depth < 2:
            raise ValueError("with model.depth 1 there is nothing for model.skips to join: set skips to false")
        if self.posterior == "flow" and self.latent_channels < 2:
            raise ValueError(
                "a flow bends one half of the channels by the other: set model.latent_channels to 2 or more"
            )
        return self


class TrainSettings(Section):
    """How the network is fitted."""

    epochs: int = Field(60, ge=1, description="Most passes over the training tiles.")
    batch_size: int = Field(64, ge=2, description="Tiles a step.")
    learning_rate: float = Field(2e-3, gt=0, description="Of AdamW at the start; it falls along a cosine.")
    weight_decay: float = Field(1e-4, ge=0, description="Of AdamW.")
    clip_norm: float = Field(100.0, gt=0, description="Gradients are clipped to this norm.")
    patience: int = Field(10, ge=1, description="Epochs without a better held-out ELBO before stopping.")
    objective: Literal["elbo", "iwae"] = Field(
        "elbo", description="iwae: the importance-weighted bound of `samples` draws, tighter and dearer."
    )
    samples: int = Field(5, ge=2, le=64, description="Draws a tile of the importance-weighted bound.")
    beta: float = Field(1.0, ge=0, description="Weight of the KL term once warmed up (β-VAE).")
    kl_warmup: Fraction = Field(0.25, description="Share of the epochs over which β rises linearly from 0.")
    kl_schedule: Literal["linear", "cyclical"] = Field(
        "linear", description="cyclical: β rises anew in each of `kl_cycles` parts of the training."
    )
    kl_cycles: int = Field(4, ge=1, le=100, description="Of the cyclical schedule.")
    free_bits: float = Field(
        0.0,
        ge=0,
        description="Nats a tile that each latent channel may use, on average over the tiles, before KL is charged.",
    )
    input_noise: float = Field(
        0.0, ge=0, le=1, description="Standard deviation of noise that is added to what the encoder sees, normalised."
    )
    structural: Literal["none", "ms_ssim", "focal_frequency"] = Field(
        "none", description="A further term of the loss, that compares structure or frequencies."
    )
    structural_weight: float = Field(1.0, ge=0, description="Of that term, in nats for each value.")
    adversarial_weight: float = Field(
        0.0, ge=0, description="Of an adversary that tells latents from draws of the prior (adversarial autoencoder)."
    )
    max_tiles: int = Field(20_000, ge=1, description="Most training tiles; more are thinned by a seeded draw.")
    min_valid: Fraction = Field(0.7, description="Least share of usable pixels of a training tile.")
    shift: int = Field(
        0, ge=0, le=16, description="Most pixels by which training tiles are moved, beside the symmetries."
    )
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto: the GPU when there is one.")
    devices: int = Field(1, ge=1, le=64, description="Processes that share the work (data parallel), one for each GPU.")
    precision: Literal["auto", "float32", "bf16"] = Field(
        "auto", description="Of the arithmetic in training. auto: bf16 on a GPU that has it, else float32."
    )
    compile: bool = Field(False, description="Compile the network for training: pays for long trainings.")
    diagnose_every: int = Field(
        10, ge=0, description="Epochs between two diagnoses of the latent, as figures and metrics. 0: at the end alone."
    )
    latent_map: Literal["pca", "tsne", "umap"] = Field(
        "pca",
        description="What a diagnosis draws the latents of tiles by. tsne, umap: beside principal components; umap "
        "needs the package umap-learn.",
    )

    @model_validator(mode="after")
    def _sensible(self) -> TrainSettings:
        if self.objective == "iwae" and (self.free_bits or self.adversarial_weight):
            raise ValueError(
                "the importance-weighted bound has no KL term of its own: set train.free_bits and "
                "train.adversarial_weight to 0, or train.objective to elbo"
            )
        if self.objective == "iwae" and self.structural != "none":
            raise ValueError(
                "the importance-weighted bound weighs whole draws, which a structural term is no part of: set "
                "train.structural to none, or train.objective to elbo"
            )
        return self


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
    retrain: Literal["never", "nightly", "event"] = Field(
        "never",
        description="When a drift lasts. nightly: the nightly run trains by itself; event: one Prefect event is sent, "
        "on which the automation of the deployments starts the training.",
    )
    retrain_after: int = Field(4, ge=2, description="Usable nights to collect since the drift began before retraining.")
    cool_down: int = Field(14, ge=0, description="Days after a training for drift in which drift asks for no other.")
