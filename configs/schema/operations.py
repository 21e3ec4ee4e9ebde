"""Settings of operation: which detector scores, how long results are kept, who is told."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from configs.schema.base import Section


class PromotionSettings(Section):
    """Champion and challenger: when a new detector takes over."""

    when: Literal["better", "asked", "always"] = Field(
        "better",
        description="better: by itself, once shown to be; asked: by `tilewatch models promote`; always: untested.",
    )
    dates: int = Field(8, ge=2, description="Most recent clear dates on which both are compared.")
    tiles: int = Field(20, ge=1, description="Tiles of each of them that get an anomaly of each kind.")
    confidence: float = Field(0.95, gt=0.5, lt=1, description="Of the interval of the difference.")
    repetitions: int = Field(1000, ge=100, description="Draws of the paired bootstrap, by location and date.")
    margin: float = Field(
        0.0, ge=0, lt=1, description="How much worse in average precision the interval may reach; 0: better for sure."
    )
    in_drift: Literal["not worse", "better"] = Field(
        "not worse",
        description="What is asked of a challenger while a drift of the champion's nights lasts: its p-values and its "
        "drift alarm then stand on scenes that no longer come.",
    )
    most_false_alarms: float = Field(
        3.0, ge=1, description="A challenger that flags more than so many times the rate asked for is not better."
    )


class RetentionSettings(Section):
    """How long results are kept; null is for ever. Only `tilewatch prune` deletes anything."""

    heatmaps: int | None = Field(
        None, ge=1, description="Days for which heatmaps are kept; those of flagged scenes too."
    )
    scores: int | None = Field(None, ge=1, description="Days for which scores and histograms are kept.")
    latents: int | None = Field(None, ge=1, description="Days for which latents are kept.")
    references: int | None = Field(
        None, ge=1, description="Days for which what a place looked like is kept, since the last scene in it."
    )
    reports: int | None = Field(None, ge=1, description="Days for which nights' pages are kept; their records stay.")
    runs: int | None = Field(None, ge=1, description="Days for which MLflow runs of nights are kept.")
    versions: int | None = Field(
        None, ge=1, description="Latest detectors whose scores are kept, besides the champion."
    )


class NotificationSettings(Section):
    """Who is told, through blocks of Prefect; nobody unless blocks are named."""

    blocks: tuple[str, ...] = Field((), description="Prefect notification blocks, each as type/name.")
    flags: int | None = Field(None, ge=0, description="Tell of a night with more flags than this.")
    quarantined: int | None = Field(0, ge=0, description="Tell of a night with more quarantined scenes than this.")
    drift: bool = Field(True, description="Tell when a drift is declared.")
    failure: bool = Field(True, description="Tell when a run failed, and when a challenger was refused.")

    @model_validator(mode="after")
    def _type_and_name(self) -> NotificationSettings:
        wrong = [block for block in self.blocks if len([part for part in block.split("/") if part]) != 2]
        if wrong:
            raise ValueError(f"notify.blocks names {wrong[0]!r}: write type/name, e.g. slack-webhook/mornings")
        return self
