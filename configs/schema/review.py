"""Settings of the review: what people are asked each morning, and what their answers do."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from configs.schema.base import Fraction, Section


class ReviewSettings(Section):
    """What people are asked of the flags, in MLflow's review queues, and what their verdicts do."""

    flags: int = Field(20, ge=0, description="Flags of a night that people are asked about, the least likely first.")
    sample: int = Field(
        5, ge=0, description="Tiles of a night below their threshold, drawn at random, that people are asked about: "
        "so that misses can be estimated."
    )  # fmt: skip
    suppressed: int = Field(
        3, ge=0, description="Suppressed flags of a night that people are asked about, drawn at random: so that "
        "suppression can be proved wrong."
    )  # fmt: skip
    queue: Literal["night", "location"] = Field("night", description="What gets a review queue of its own.")
    experiment: str | None = Field(None, description="Of the reviews in MLflow. Null: `<name>-review`.")
    public_uri: str | None = Field(
        None, description="Address at which reviewers see MLflow. Null: `tracking.uri`, as this machine sees it."
    )
    repeats: int | None = Field(
        2, ge=1, description="So many false alarms at one tile raise the bar there until a score like theirs is no "
        "flag any more. Null: verdicts raise no bar."
    )  # fmt: skip
    half_life: float = Field(365.0, gt=0, description="Days after which a false alarm counts half.")
    look_alike: Fraction = Field(
        0.5, description="A flag is suppressed when its change is as near to that of a false alarm, as a share of its "
        "own size; 0: none is."
    )  # fmt: skip
