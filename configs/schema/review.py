"""Settings of the review: what people are asked each morning, and what their answers do."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

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
    reviewers: tuple[str, ...] = Field(
        (), max_length=10, description="Users of MLflow whose queues these are: needed where MLflow asks for logins."
    )  # fmt: skip
    days: int = Field(
        90, ge=1, description="Answers are looked for among what was asked in so many days; `tilewatch review sync "
        "--all` looks at everything."
    )  # fmt: skip
    repeats: int | None = Field(
        2, ge=1, description="So many false alarms at one tile raise the bar there, and nowhere else, until a score "
        "like theirs is no flag any more. Null: verdicts raise no bar."
    )  # fmt: skip
    half_life: float = Field(365.0, gt=0, description="Days after which a false alarm counts half.")
    look_alike: Fraction = Field(
        0.0, description="A flag is suppressed when its change in the latent space is as near to that of a false alarm "
        "at any place, as a share of its own size; 0: none is. It costs anomalies that look like false alarms."
    )  # fmt: skip

    @field_validator("public_uri")
    @classmethod
    def _address(cls, uri: str | None) -> str | None:
        if uri is not None and not uri.startswith(("http://", "https://")):
            raise ValueError(f"{uri!r} is no address: write one such as https://watch.example/mlflow")
        return uri and uri.rstrip("/")
