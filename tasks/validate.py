"""Validate: checks of scenes with Great Expectations, built from the settings.

One row of the data frame that is checked is one scene. A failed check of severity `critical` quarantines its scene, any
other one is reported; the run goes on either way.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import great_expectations as gx
import great_expectations.expectations as gxe
import numpy as np
import pandas as pd
from great_expectations.expectations.metadata_types import FailureSeverity

from configs import Settings, Workspace
from imagery.catalog import Catalog, SceneRecord
from tasks.ingest import quarantine_scene

log = logging.getLogger(__name__)
# It announces a temporary folder for pages that are never made.
logging.getLogger("great_expectations.data_context.types.base").setLevel(logging.WARNING)

# Scene dates are days in UTC; a clock may be a little off, a scene of tomorrow is not.
CLOCK_TOLERANCE_HOURS = 24.0
OFFSET_TWICE = "if reflectance: was an offset subtracted that the files already have? see source.offset"


@dataclass(frozen=True)
class Check:
    """One check of one scene.

    Attributes:
        scene_id: The scene.
        check: Name of the check, as in the settings.
        column: What was looked at.
        severity: critical, warning or info.
        observed: The value found; None when there was none.
        expected: What was asked for, in words.
        passed: Whether it holds.
    """

    scene_id: str
    check: str
    column: str
    severity: str
    observed: float | None
    expected: str
    passed: bool

    @property
    def words(self) -> str:
        """The check in one sentence."""
        found = "nothing" if self.observed is None else f"{self.observed:.4g}"
        return f"{self.check}: {self.column} is {found}, expected {self.expected}"


@dataclass(frozen=True)
class Validation:
    """All checks of some scenes, and Great Expectations' own result."""

    checks: tuple[Check, ...]
    result: dict[str, Any]

    @property
    def failed(self) -> tuple[Check, ...]:
        """The checks that do not hold."""
        return tuple(check for check in self.checks if not check.passed)

    def critical(self, scene_id: str) -> list[Check]:
        """The critical checks that a scene fails."""
        return [check for check in self.failed if check.scene_id == scene_id and check.severity == "critical"]


@dataclass(frozen=True)
class Expectation:
    """One line of the suite: a column of the scenes' frame between two limits."""

    check: str
    column: str
    severity: str
    low: float | None = None
    high: float | None = None
    hint: str = ""

    @property
    def words(self) -> str:
        """The limits in words."""
        if self.low is not None and self.low == self.high:
            return f"{self.low:.4g}"
        parts = [f"at least {self.low:.4g}"] if self.low is not None else []
        parts += [f"at most {self.high:.4g}"] if self.high is not None else []
        return " and ".join(parts) + (f" ({self.hint})" if self.hint else "")


def build_suite(settings: Settings, band_ranges: dict[str, tuple[float, float]] | None) -> list[Expectation]:
    """The checks that the settings ask for.

    Args:
        settings: Limits and severities; a severity of "off" leaves a check out.
        band_ranges: 2nd and 98th percentile of each band in training; None before the first training.
    """
    checks, bands = settings.validation, settings.source.bands
    suite = [
        Expectation("complete", "missing_tiles", checks.complete, 0, 0),
        Expectation("duplicate_tiles", "duplicate_tiles", checks.duplicate_tiles, 0, 0),
        Expectation("finite", "not_finite", checks.finite, 0, 0),
        Expectation("future_date", "hours_ahead", checks.future_date, high=CLOCK_TOLERANCE_HOURS),
        Expectation("valid_fraction", "valid_fraction", checks.valid_fraction, low=checks.min_valid_fraction),
        Expectation("cloud_fraction", "cloud_fraction", checks.cloud_fraction, high=checks.max_cloud_fraction),
        *(Expectation("plausible", f"{band}_p98", checks.plausible, high=checks.max_value) for band in bands),
        *(
            Expectation("negative", f"{band}_negative", checks.negative, high=checks.max_negative, hint=OFFSET_TWICE)
            for band in bands
        ),
    ]
    for band, (low, high) in (band_ranges or {}).items():
        margin = checks.range_margin * (high - low)
        suite += [
            Expectation("range_vs_training", f"{band}_p02", checks.range_vs_training, low=low - margin),
            # The bright end may neither be too bright nor darker than what was dark in training.
            Expectation("range_vs_training", f"{band}_p98", checks.range_vs_training, low=low, high=high + margin),
        ]
    return [expectation for expectation in suite if expectation.severity != "off"]


def scene_frame(records: Sequence[SceneRecord], workspace: Workspace, now: datetime | None = None) -> pd.DataFrame:
    """What is checked: one row a scene."""
    catalog, now = Catalog(workspace), now or datetime.now(UTC)
    return pd.DataFrame([_scene_row(record, catalog, now) for record in records])


def validate_scenes(
    records: Sequence[SceneRecord],
    settings: Settings,
    workspace: Workspace,
    band_ranges: dict[str, tuple[float, float]] | None = None,
) -> Validation:
    """Check scenes, and quarantine those that fail a critical check.

    Args:
        records: Scenes of the catalog; none is fine.
        settings: Limits and severities.
        workspace: Holds the catalog and the quarantine.
        band_ranges: See `build_suite`.
    """
    if not records:
        return Validation((), {"results": [], "success": True})
    suite = build_suite(settings, band_ranges)
    frame = scene_frame(records, workspace)
    result = _run(frame, suite)
    validation = Validation(tuple(_checks(frame, suite, result)), result)
    for record in records:
        critical = validation.critical(record.scene_id)
        if critical:
            reason = "; ".join(check.words for check in critical)
            quarantine_scene(record.scene, "validate", reason, settings, workspace)
    return validation


def _scene_row(record: SceneRecord, catalog: Catalog, now: datetime) -> dict[str, Any]:
    tiles, grid = catalog.tiles(record), catalog.grid(record.location)
    expected = len(grid.tile_table(record.tile_size, record.stride)["row_off"]) if grid else 0
    usable = tiles[tiles["valid_fraction"] > 0]
    means = usable[[f"{band}_mean" for band in record.stats]].to_numpy()
    return {
        "scene_id": record.scene_id,
        "missing_tiles": expected - tiles["tile_id"].nunique(),
        "duplicate_tiles": int(tiles["tile_id"].duplicated().sum()),
        "not_finite": int((~np.isfinite(means)).any(axis=1).sum()),
        # Not below 0: how long ago it was would make the page of a night another each time it is written.
        "hours_ahead": max((record.acquired - now).total_seconds() / 3600, 0.0),
        "valid_fraction": record.valid_fraction,
        "cloud_fraction": record.cloud_fraction,
        **{f"{band}_negative": stat.negative_fraction for band, stat in record.stats.items()},
        **{
            f"{band}_p{percent:02d}": stat.percentile(percent)
            for band, stat in record.stats.items()
            for percent in (2, 98)
        },
    }


def _run(frame: pd.DataFrame, suite: list[Expectation]) -> dict[str, Any]:
    """Run the suite with Great Expectations; its result as plain data, `meta.index` being the place in the suite."""
    with np.printoptions(legacy="1.25"):  # its renderer chokes on numpy 2's way to print numbers
        context = gx.get_context(mode="ephemeral")
        context.variables.progress_bars = {"globally": False, "metric_calculations": False}  # type: ignore[assignment]
        asset = context.data_sources.add_pandas("catalog").add_dataframe_asset("scenes")
        batch = asset.add_batch_definition_whole_dataframe("whole")
        expectations = [
            gxe.ExpectColumnValuesToBeBetween(
                column=line.column,
                min_value=line.low,
                max_value=line.high,
                severity=FailureSeverity(line.severity),
                meta={"index": index, "check": line.check},
            )
            for index, line in enumerate(suite)
        ]
        definition = gx.ValidationDefinition(
            name="scenes",
            data=batch,
            suite=context.suites.add(gx.ExpectationSuite("scenes", expectations=expectations)),
        )
        result = definition.run(
            batch_parameters={"dataframe": frame},
            result_format={"result_format": "COMPLETE", "unexpected_index_column_names": ["scene_id"]},
        )
    return dict(result.to_json_dict())


def _checks(frame: pd.DataFrame, suite: list[Expectation], result: dict[str, Any]) -> Iterator[Check]:
    """Great Expectations' verdict on each scene and expectation, scene by scene."""
    failing: dict[int, set[str]] = {}
    for outcome in result["results"]:
        meta = outcome["expectation_config"]["meta"]
        if any(info.get("raised_exception") for info in outcome["exception_info"].values() if isinstance(info, dict)):
            raise RuntimeError(f"the check {meta['check']} could not be computed: {outcome['exception_info']}")
        rows = outcome["result"].get("unexpected_index_list") or []
        failing[meta["index"]] = {row["scene_id"] for row in rows}
    for row in frame.to_dict("records"):
        for index, line in enumerate(suite):
            value = float(row[line.column])
            yield Check(
                scene_id=row["scene_id"],
                check=line.check,
                column=line.column,
                severity=line.severity,
                observed=value if math.isfinite(value) else None,
                expected=line.words,
                passed=row["scene_id"] not in failing[index],
            )
