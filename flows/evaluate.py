"""Evaluate: hold the scores of a detector against a truth, and keep all numbers in one MLflow run."""

from __future__ import annotations

from dataclasses import asdict, replace
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory

import mlflow
import pandas as pd
from prefect import flow
from pydantic import BaseModel, ConfigDict, Field, model_validator

from configs import Period, Settings, Workspace
from flows.parameters import Watch
from flows.progress import progress
from tasks import curves, metrics, registry, tracking
from tasks.artifacts import table_artifact
from tasks.evaluate import SCORE, Draws, Labelled, evaluate_tiles, label_scenes, with_other
from tasks.evaluation import Evaluation, flat_rows
from tasks.truth import ScoredScene, Shares, TruthKind, load_truth, scored_scenes

CHAMPION = "champion"


class EvaluateRequest(BaseModel):
    """Which scores are held against which truth."""

    model_config = ConfigDict(extra="forbid")

    truth: str = Field(
        min_length=1,
        description="Masks (a GeoTIFF, a folder of them, or a pattern with {location} and {date}), polygons (GeoJSON, "
        "GeoPackage, GeoParquet) or labels of tiles (CSV, Parquet).",
    )
    truth_kind: TruthKind = Field("auto", description="What the truth is; auto goes by the ending of its name.")
    complete: bool = Field(
        False, description="What the truth does not mention shows no event, instead of being unknown."
    )
    since: date | None = Field(None, description="First night.")
    until: date | None = Field(None, description="Last night.")
    version: str = Field(CHAMPION, min_length=1, description="The detector whose scores are judged, e.g. v3.")
    score: str = Field(SCORE, min_length=1, description="The score that counts, or the name of another one.")
    against: str | None = Field(None, min_length=1, description="Another score or version to compare with, pairwise.")
    positive_share: float = Field(
        0.1, ge=0, lt=1, description="A tile shows an event when more of its valid pixels than this do."
    )
    negative_share: float = Field(0.0, ge=0, lt=1, description="A tile shows none when at most this share does.")
    repetitions: int = Field(1000, ge=1, le=100_000, description="How often the bootstrap draws.")
    seed: int = Field(0, ge=0, description="Of these draws.")

    @model_validator(mode="after")
    def _in_order(self) -> EvaluateRequest:
        Period(start=self.since, end=self.until)
        if self.negative_share > self.positive_share:
            raise ValueError(
                f"the negative share {self.negative_share:g} is greater than the positive one, "
                f"{self.positive_share:g}: a tile would be both"
            )
        return self

    @property
    def period(self) -> Period:
        """The nights to consider."""
        return Period(start=self.since, end=self.until)

    @property
    def shares(self) -> Shares:
        """When a tile counts as one with an event."""
        return Shares(self.positive_share, self.negative_share)


@flow(name="evaluate", flow_run_name="evaluate", persist_result=False)
def evaluate(watch: Watch, request: EvaluateRequest) -> Evaluation:
    """Judge scores that are in the workspace by a truth; nothing is scored anew.

    Args:
        watch: Configuration and workspace.
        request: Which scores, and which truth.
    """
    settings, workspace = watch.open()
    version = registry.champion(settings, workspace)[1] if request.version == CHAMPION else request.version
    scenes = scored_scenes(workspace, version, request.period)
    truth = load_truth(request.truth, request.truth_kind, scenes, settings, workspace, request.complete)
    with progress("evaluate", len(scenes)) as counter:
        labelled = label_scenes(scenes, truth, request.shares, request.score, counter.step)
    if request.against:
        labelled = with_other(labelled, *_other(request.against, request, scenes, workspace))
    found = evaluate_tiles(labelled, version, request.score, request.against, Draws(request.repetitions, request.seed))
    return _kept(found, labelled, request, settings, workspace)


def _other(
    against: str, request: EvaluateRequest, scenes: list[ScoredScene], workspace: Workspace
) -> tuple[list[ScoredScene], str]:
    """Where the scores lie that are compared with: those of another version, if there is one of this name."""
    if against in {path.name for path in workspace.scores.glob("*/")}:
        return scored_scenes(workspace, against, request.period), request.score
    return scenes, against


def _kept(
    found: Evaluation, labelled: Labelled, request: EvaluateRequest, settings: Settings, workspace: Workspace
) -> Evaluation:
    """Log an evaluation: numbers, tables and figures, in one run."""
    counted = labelled.tiles[metrics.known(labelled.tiles["score"], labelled.tiles["positive"])]
    about = {"detector_version": found.detector_version, "score": found.score, "truth": Path(request.truth).name}
    with tracking.run(settings, workspace, "evaluate", f"evaluate {found.detector_version}", about) as run:
        found = replace(found, run_id=str(run.info.run_id))
        rows = pd.DataFrame(flat_rows(found))
        names = rows["metric"].where(rows["of"] == "all", rows["of"] + "/" + rows["metric"])
        for end in ("value", "low", "high"):
            suffix = "" if end == "value" else f"_{end}"
            numbers = rows[end].astype(float)
            tracking.log_finite(dict(zip(names + suffix, numbers, strict=True)), step=0)
        mlflow.log_dict(asdict(found), "evaluation.json")
        mlflow.log_dict(request.model_dump(mode="json"), "request.json")
        mlflow.log_table(rows, "metrics.json")
        mlflow.log_table(_by_scene(labelled.tiles), "scenes.json")
        with TemporaryDirectory() as folder:
            path = Path(folder) / "tiles.parquet"
            labelled.tiles.to_parquet(path, index=False)
            mlflow.log_artifact(str(path))
        mlflow.log_figure(curves.detection_curves(counted), "figures/curves.png")
        mlflow.log_figure(curves.recall_by_kind(counted), "figures/kinds.png")
        mlflow.log_figure(curves.scores_by_label(counted, found.score), "figures/scores.png")
    table_artifact("evaluation", rows.to_dict("records"), f"{found.score} of {found.detector_version}")
    return found


def _by_scene(tiles: pd.DataFrame) -> pd.DataFrame:
    """How many tiles of each scene count, show an event, and are flagged."""
    counted = metrics.known(tiles["score"], tiles["positive"])
    columns = {
        "tiles": counted,
        "positives": counted & (tiles["positive"] > 0),
        "flagged": counted & (tiles["flagged"] > 0),
        "left_out": ~counted,
    }
    frame = pd.DataFrame(columns).astype(int).groupby(tiles["scene_id"]).sum()
    return frame.reset_index()
