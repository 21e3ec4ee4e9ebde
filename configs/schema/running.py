"""Settings of running: the page, the tracking server, and how much of the machine is used."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from configs.schema.base import Section


class ReportSettings(Section):
    """The page an analyst opens in the morning."""

    rgb: tuple[str, str, str] | None = Field(None, description="Bands shown as red, green, blue. Null: chosen by name.")
    false_colour: tuple[str, str, str] | None = Field(
        None, description="Bands of the second picture. Null: near infrared or what comes next to it, red, green."
    )
    max_flags: int = Field(30, ge=1, description="Flags shown with pictures; all are in the score files.")
    map_side: int = Field(1024, ge=64, le=4096, description="Longest side of a scene's map, pixels.")
    geopackage: bool = Field(False, description="Whether each night's flags are written as a GeoPackage as well.")


class TrackingSettings(Section):
    """MLflow."""

    uri: str | None = Field(None, description="Tracking server. Null: an SQLite database in the workspace.")
    experiment: str | None = Field(None, description="Null: the name of the watch.")


class ComputeSettings(Section):
    """How much of the machine is used."""

    engine: Literal["local", "dask"] = Field("local", description="Threads of this machine, or a Dask cluster.")
    dask_address: str | None = Field(None, description="Scheduler, e.g. tcp://host:8786. Null: a cluster for the run.")
    workers: int = Field(2, ge=1, description="Scenes handled side by side; processes of a cluster made for the run.")
    batch: int = Field(8, ge=1, description="Scenes of one task on a cluster.")
    threads: int | None = Field(None, ge=1, description="Threads of one torch operation. Null: torch decides.")
    scene_timeout: float = Field(3600, gt=0, description="Seconds after which work on one scene is given up.")
    retries: int = Field(2, ge=0, description="How often a step is tried again after a passing failure.")
