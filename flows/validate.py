"""Validate: check every scene of the catalog."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime

import mlflow
from prefect import flow

from flows.parameters import Watch
from tasks import registry, steps, tracking
from tasks.report import validation_page
from tasks.train import usable_scenes
from tasks.validate import validate_scenes


@dataclass(frozen=True)
class ValidateSummary:
    """What the checks found. `failed` counts failed checks by severity."""

    scenes: int
    checks: int
    failed: dict[str, int]
    quarantined: dict[str, str]
    run_id: str


@flow(name="validate", flow_run_name="validate", persist_result=False)
def validate(watch: Watch) -> ValidateSummary:
    """Check every scene of the catalog; those that fail a critical check are quarantined.

    Bands are compared with those of the champion's training, once there is one.

    Args:
        watch: Configuration and workspace.
    """
    settings, workspace = watch.open()
    ranges = None
    try:
        detector = steps.load_detector(registry.champion(settings, workspace)[0])
        ranges = {band: (low, high) for band, (low, high) in detector.metadata["band_ranges"].items()}
    except registry.NoChampion:
        pass
    scenes = usable_scenes(settings, workspace)
    validation = validate_scenes(scenes, settings, workspace, ranges)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    with tracking.run(settings, workspace, "validate", f"validate {now}", {}) as run:
        failed = {kind: sum(c.severity == kind for c in validation.failed) for kind in ("critical", "warning", "info")}
        tracking.log_finite({f"failed_{kind}": float(number) for kind, number in failed.items()}, step=0)
        mlflow.log_text(json.dumps(validation.result, default=str), "validation/validation.json")
        mlflow.log_text(validation_page(validation, settings, now), "validation/validation.html")
    critical = [check for check in validation.failed if check.severity == "critical"]
    return ValidateSummary(
        scenes=len(scenes),
        checks=len(validation.checks),
        failed=failed,
        quarantined={check.scene_id: check.words for check in critical},
        run_id=str(run.info.run_id),
    )
