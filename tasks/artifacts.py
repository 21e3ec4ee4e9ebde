"""Artifacts in the Prefect UI: what came out of a flow run, to be read without opening a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import geopandas as gpd
from prefect.artifacts import create_link_artifact, create_markdown_artifact, create_table_artifact

from tasks.nights import NightRecord

MOST_ROWS = 100


def night_artifacts(record: NightRecord, flags: gpd.GeoDataFrame, report: Path) -> None:
    """Tonight's summary, its table of flags, and a link to the page."""
    drift = f"drift since {record.drift_began}" if record.drift_began else "no drift"
    lines = [
        f"## {record.night}: {record.flags} flags among {record.scored} scored tiles",
        f"{record.detector_version}: {len(record.scenes)} scenes, {len(record.quarantined)} quarantined, {drift}.",
        *(f"- {reason}" for reason in record.drift_reasons),
        *(f"- quarantined {scene}: {reason}" for scene, reason in record.quarantined.items()),
    ]
    create_markdown_artifact("\n".join(lines), key="night", description=f"The night of {record.night}")
    columns = ["tile_id", "location", "score", "p_value", "valid_fraction"]
    rows = flags.head(MOST_ROWS)[columns].to_dict("records") if len(flags) else []
    create_table_artifact(rows, key="flags", description=f"Flags of {record.night}")
    create_link_artifact(report.resolve().as_uri(), link_text=f"report of {record.night}", key="report")


def table_artifact(key: str, rows: Sequence[Mapping[str, Any]], description: str) -> None:
    """Any small table."""
    create_table_artifact([dict(row) for row in rows[:MOST_ROWS]], key=key, description=description)
