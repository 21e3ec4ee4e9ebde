"""What all sections of the settings are made of."""

from __future__ import annotations

from datetime import date
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Fraction = Annotated[float, Field(ge=0, le=1)]
Severity = Literal["critical", "warning", "info", "off"]


class Section(BaseModel):
    """A group of settings: immutable, and strict about its keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


class Period(Section):
    """A span of acquisition dates, both ends included; an open end is null."""

    start: date | None = None
    end: date | None = None

    @model_validator(mode="after")
    def _in_order(self) -> Period:
        if self.start and self.end and self.start > self.end:
            raise ValueError(f"the period starts ({self.start}) after it ends ({self.end})")
        return self

    def __contains__(self, day: date) -> bool:
        return (self.start is None or day >= self.start) and (self.end is None or day <= self.end)
