"""Artifacts in the Prefect UI: what came out of a flow run, to be read without opening a file.

A page served by Prefect cannot open files of this machine, so pages and pictures are linked to where MLflow serves
them. Without an MLflow server there are paths instead.
"""

from __future__ import annotations

import html
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import geopandas as gpd
import mlflow
from mlflow.exceptions import MlflowException
from prefect.artifacts import (
    create_image_artifact,
    create_link_artifact,
    create_markdown_artifact,
    create_table_artifact,
)

from tasks.nights import NightRecord

MOST_ROWS = 100
CHART = "drift.png"
_MARKUP = re.compile(r"([\\`*_{}\[\]()#+!|~-])")


def night_artifacts(record: NightRecord, flags: gpd.GeoDataFrame, report: Path) -> None:
    """Tonight's summary with its flags, the least likely first, the chart of drift, and a link to the page.

    Args:
        record: What became of the night; its run, when there is one, is where the links go.
        flags: The flagged tiles.
        report: The page; the chart lies beside it when there is one.
    """
    pages = _Pages.of(record.run_id)
    ranked = flags.sort_values("p_value", kind="stable").head(MOST_ROWS) if len(flags) else flags
    create_markdown_artifact(_words(record, ranked, pages), key="night", description=f"The night of {record.night}")
    columns = ["tile_id", "location", "score", "p_value", "valid_fraction"]
    rows = ranked[columns].to_dict("records") if len(ranked) else []
    create_table_artifact(rows, key="flags", description=f"Flags of {record.night}")
    link = pages.shown(report.name) if pages else report.resolve().as_uri()
    create_link_artifact(link, link_text=f"report of {record.night}", key="report")
    if pages and report.with_name(CHART).exists():
        create_image_artifact(pages.content(CHART), key="drift-chart", description=f"Drift until {record.night}")


def table_artifact(key: str, rows: Sequence[Mapping[str, Any]], description: str) -> None:
    """Any small table."""
    create_table_artifact([dict(row) for row in rows[:MOST_ROWS]], key=key, description=description)


def markdown_artifact(key: str, text: str) -> None:
    """A few words; names in them cannot add markup."""
    create_markdown_artifact(html.escape(text), key=key)


def plain(text: object) -> str:
    """A name or a reason as nothing but text within markdown: no HTML, no links, no column of a table."""
    return html.escape(_MARKUP.sub(r"\\\1", " ".join(str(text).split())), quote=False)


class _Pages:
    """Addresses of one run of MLflow and of its files."""

    def __init__(self, server: str, experiment: str, run_id: str) -> None:
        self._server, self._experiment, self._run = server.rstrip("/"), experiment, run_id

    @classmethod
    def of(cls, run_id: str | None) -> _Pages | None:
        """None when nobody serves pages: a database alone, or a server that does not answer."""
        server = mlflow.get_tracking_uri()
        if not run_id or not server.startswith(("http://", "https://")):
            return None
        try:
            return cls(server, mlflow.MlflowClient().get_run(run_id).info.experiment_id, run_id)
        except MlflowException:
            return None

    @property
    def run(self) -> str:
        return f"{self._server}/#/experiments/{self._experiment}/runs/{self._run}"

    def shown(self, file: str) -> str:
        """The page that shows a file."""
        return f"{self.run}/artifacts/{quote(file)}"

    def content(self, file: str) -> str:
        """The file itself."""
        return f"{self._server}/get-artifact?path={quote(file)}&run_uuid={self._run}"


def _words(record: NightRecord, flags: gpd.GeoDataFrame, pages: _Pages | None) -> str:
    """The night in markdown."""
    drift = f"drift since {record.drift_began}" if record.drift_began else "no drift"
    lines = [
        f"## {record.night}: {record.flags} flags among {record.scored} scored tiles",
        f"{record.detector_version}: {len(record.scenes)} scenes, {len(record.quarantined)} quarantined, {drift}.",
        *(f"- {plain(reason)}" for reason in record.drift_reasons),
        *(f"- quarantined {plain(scene)}: {plain(reason)}" for scene, reason in record.quarantined.items()),
    ]
    if pages:
        lines += ["", f"[The night in MLflow]({pages.run}), [its report]({pages.shown('report.html')})"]
    if len(flags):
        lines += ["", "| tile | location | score | p-value |", "|---|---|---|---|"]
        for row in flags.itertuples():
            tile = plain(row.tile_id)
            if pages:
                tile = f"[{tile}]({pages.shown('report.html')})"
            lines.append(f"| {tile} | {plain(row.location)} | {row.score:.2f} | {row.p_value:.2g} |")
    return "\n".join(lines)
