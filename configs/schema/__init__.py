"""Every setting of tilewatch: its meaning, unit, range and default, in one typed place.

A preset (`configs/*.yaml`) is a partial set of values over these defaults. Unknown keys are refused. Secrets never live
here: the settings used are logged with every run.
"""

from __future__ import annotations

from pydantic import Field, model_validator

from configs.schema.base import Period, Section, Severity
from configs.schema.detector import (
    CalibrationSettings,
    DriftSettings,
    InjectionSettings,
    ModelSettings,
    ScoreSettings,
    SplitSettings,
    TrainSettings,
)
from configs.schema.operations import NotificationSettings, PromotionSettings, RetentionSettings
from configs.schema.review import ReviewSettings
from configs.schema.running import ComputeSettings, ReportSettings, TrackingSettings
from configs.schema.scenes import (
    DARKEST,
    AlignmentSettings,
    Area,
    GridSettings,
    MaskSettings,
    NormaliseSettings,
    ReferenceSettings,
    SourceSettings,
    StacSettings,
    ValidationSettings,
)
from configs.schema.tuning import Range, TuneSettings

__all__ = [
    "DARKEST",
    "AlignmentSettings",
    "Area",
    "CalibrationSettings",
    "ComputeSettings",
    "DriftSettings",
    "GridSettings",
    "InjectionSettings",
    "MaskSettings",
    "ModelSettings",
    "NormaliseSettings",
    "NotificationSettings",
    "Period",
    "PromotionSettings",
    "Range",
    "ReferenceSettings",
    "ReportSettings",
    "RetentionSettings",
    "ReviewSettings",
    "ScoreSettings",
    "Section",
    "Settings",
    "Severity",
    "SourceSettings",
    "SplitSettings",
    "StacSettings",
    "TrackingSettings",
    "TrainSettings",
    "TuneSettings",
    "ValidationSettings",
]


class Settings(Section):
    """All settings of one watch."""

    name: str = Field("tilewatch", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="Experiment and model name.")
    seed: int = Field(0, ge=0, description="Of weights, order, augmentation and noise.")
    source: SourceSettings = SourceSettings(location="here")
    masks: MaskSettings = MaskSettings()
    grid: GridSettings = GridSettings()
    locations: dict[str, Area] = Field({}, description="Places with a grid of their own, by name; others need none.")
    normalise: NormaliseSettings = NormaliseSettings()
    validation: ValidationSettings = ValidationSettings()
    split: SplitSettings = SplitSettings()
    reference: ReferenceSettings = ReferenceSettings()
    alignment: AlignmentSettings = AlignmentSettings()
    model: ModelSettings = ModelSettings()
    train: TrainSettings = TrainSettings()
    score: ScoreSettings = ScoreSettings()
    calibration: CalibrationSettings = CalibrationSettings()
    injections: InjectionSettings = InjectionSettings()
    tune: TuneSettings = TuneSettings()
    drift: DriftSettings = DriftSettings()
    promotion: PromotionSettings = PromotionSettings()
    report: ReportSettings = ReportSettings()
    review: ReviewSettings = ReviewSettings()
    notify: NotificationSettings = NotificationSettings()
    retention: RetentionSettings = RetentionSettings()
    tracking: TrackingSettings = TrackingSettings()
    compute: ComputeSettings = ComputeSettings()

    @model_validator(mode="after")
    def _bands_to_show_are_read(self) -> Settings:
        for name, bands in (("rgb", self.report.rgb), ("false_colour", self.report.false_colour)):
            unknown, known = sorted(set(bands or ()) - set(self.source.bands)), ", ".join(self.source.bands)
            if unknown:
                raise ValueError(f"report.{name} names {', '.join(unknown)}, source.bands are {known}")
        return self

    @model_validator(mode="after")
    def _bands_with_a_range_are_read(self) -> Settings:
        unknown = sorted(set(self.normalise.ranges) - set(self.source.bands))
        if unknown:
            raise ValueError(
                f"normalise.ranges names {', '.join(unknown)}, source.bands are {', '.join(self.source.bands)}"
            )
        return self

    @model_validator(mode="after")
    def _codes_are_not_drawn(self) -> Settings:
        train = self.train
        if self.model.posterior == "quantised" and (
            train.objective == "iwae" or train.free_bits or train.adversarial_weight
        ):
            raise ValueError(
                "the divergence of a quantised latent is the same for every tile: set train.objective to elbo, and "
                "train.free_bits and train.adversarial_weight to 0, or use another model.posterior"
            )
        return self

    @model_validator(mode="after")
    def _tile_divides(self) -> Settings:
        step = 2**self.model.depth
        if self.grid.tile_size % step:
            raise ValueError(
                f"grid.tile_size {self.grid.tile_size} cannot be halved model.depth = {self.model.depth} times: "
                f"use a multiple of {step}"
            )
        return self
