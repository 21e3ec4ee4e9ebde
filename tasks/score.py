"""Score: a scene becomes scores (GeoParquet), a heatmap (COG), latents (Parquet) and what drift is measured on."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from configs import Settings, Workspace
from configs.workspace import safe_name, whole_file, write_text
from imagery.catalog import SceneRecord, scene_file
from imagery.outputs import heatmap, write_heatmap_style, write_item, write_scores
from imagery.tiles import TileBatch
from tasks.ingest import reading_key
from tasks.observe import observe, opened
from tasks.reference import Usual
from tasks.scratch import scratch_folder
from vae.calibration import NightLevel
from vae.detector import Detector
from vae.drift_profile import Profile
from vae.errors import DetectorError
from vae.judgement import SceneJudgement
from vae.tile_scores import TileScores

NUMBERS = {"level", "spread", "p_value", "spread_p_value"}  # of a night; not known is null


@dataclass(frozen=True)
class SceneScores:
    """The files of a scored scene, and the content of the scene they were made of."""

    fingerprint: str
    scores: Path
    heatmap: Path
    latents: Path
    style: Path
    item: Path
    profile: Path

    @property
    def complete(self) -> bool:
        """True when all files are there, and made of the scene as it is now; the profile is written last."""
        files = (self.scores, self.heatmap, self.latents, self.style, self.item)
        return all(path.exists() for path in files) and self.measured

    @property
    def measured(self) -> bool:
        """True when the histograms are there, of the scene as it is now; heatmaps and latents may have been pruned."""
        try:
            return bool(json.loads(self.profile.read_text(encoding="utf-8"))["fingerprint"] == self.fingerprint)
        except FileNotFoundError:
            return False


def score_files(workspace: Workspace, detector_version: str, record: SceneRecord) -> SceneScores:
    """Where the scores of a scene are kept."""
    scores = workspace.scores / safe_name(detector_version)
    return SceneScores(
        record.fingerprint,
        scores=scene_file(scores, record, ".parquet"),
        heatmap=scene_file(scores, record, "_anomaly.tif"),
        latents=latents_file(workspace, detector_version, record),
        style=scene_file(scores, record, "_anomaly.qml"),
        item=scene_file(scores, record, ".stac.json"),
        profile=scene_file(scores, record, "_profile.json"),
    )


def latents_file(workspace: Workspace, detector_version: str, record: SceneRecord) -> Path:
    """Where the latents of a scene are kept."""
    return scene_file(workspace.latents / safe_name(detector_version), record, ".parquet")


def score_scene(
    record: SceneRecord,
    detector: Detector,
    detector_version: str,
    settings: Settings,
    workspace: Workspace,
    usual: Usual | None = None,
) -> SceneScores:
    """Score a scene, unless its files are there already.

    Args:
        record: The scene, from the catalog.
        detector: A calibrated detector.
        detector_version: Its version, e.g. "v3"; names the folder, and stands in every row.
        settings: How the scene is read.
        workspace: Where the scene is catalogued and its scores are kept.
        usual: What the scene is compared with; None to look at it alone.

    Returns:
        Where its files are. The same scene, detector and past give the same bytes.

    Raises:
        ImageryError: The scene can no longer be read.
        DetectorError: The detector does not fit the scene's bands, or is not calibrated.
    """
    files = score_files(workspace, detector_version, record)
    if files.complete:
        return files
    check_fit(detector, settings)
    rows, latents, profile, tiles = [], [], Profile(), []
    calibration = detector.required_calibration
    origin = {"detector_version": detector_version, "calibration_id": detector.calibration_id}
    tiling = detector.tile_size, settings.grid.stride
    with opened(record, detector, usual, settings, workspace) as scene, _kept(workspace) as maps:
        grid = scene.grid
        geometry = grid.footprints(grid.tile_table(*tiling))
        for batch, scores in observe(detector, scene, settings.grid.stride):
            tiles += batch.tiles
            maps.add(scores.heatmap)
            rows.append(_rows(batch, scores, record))
            latents.append(latent_rows(batch, scores, record))
            counts = detector.histograms(batch.values, batch.valid, scores)
            profile = profile.add(record.location, record.day, counts)
        table = gpd.GeoDataFrame(pd.concat(rows, ignore_index=True), geometry=geometry, crs="EPSG:4326")
        judged = detector.judge(table["kind"].to_numpy(object), table["raw"].to_numpy(), table["tile_id"].tolist())
        shift = usual.alignment.registration.correction if usual else (0.0, 0.0)
        tags = origin | {"scene_id": record.scene_id, "shift": f"{shift[0]:g},{shift[1]:g}"}
        with heatmap(files.heatmap, grid, detector.score_settings.name, tags, *tiling) as image:
            for index, tile in enumerate(tiles):
                image.add(tile, judged.relative(maps[index], index))
    table = _judged(table, judged).assign(**origin)
    write_latents(files.latents, latents, record)
    write_scores(files.scores, table)
    write_heatmap_style(files.style, usual=calibration.median, threshold=calibration.threshold)
    linked = {"heatmap": files.heatmap, "scores_file": files.scores, "latents": files.latents}
    write_item(files.item, table, grid, record.valid_fraction, **linked)
    write_profile(files.profile, profile, record, judged.nights)
    return files


class _KeptMaps:
    """Heatmaps of tiles in a file, until the scene as a whole is judged."""

    def __init__(self, path: Path) -> None:
        self._file, self._shape, self._offsets = path.open("w+b"), (0, 0), 0

    def add(self, maps: NDArray[np.float32]) -> None:
        """Keep (N, S, S) maps."""
        self._shape = (maps.shape[1], maps.shape[2])
        self._file.write(np.ascontiguousarray(maps, np.float32).tobytes())

    def __getitem__(self, index: int) -> NDArray[np.float32]:
        size = 4 * self._shape[0] * self._shape[1]
        self._file.seek(index * size)
        return np.frombuffer(self._file.read(size), np.float32).reshape(self._shape)

    def close(self) -> None:
        """Close the file."""
        self._file.close()


@contextmanager
def _kept(workspace: Workspace) -> Iterator[_KeptMaps]:
    with scratch_folder(workspace, "heatmap") as folder:
        maps = _KeptMaps(folder / "maps.float32")
        try:
            yield maps
        finally:
            maps.close()


def check_fit(detector: Detector, settings: Settings) -> None:
    """Refuse a detector that was made for scenes read in another way.

    Raises:
        DetectorError: Other bands, or other settings of source, masks or grid.
    """
    if detector.bands != settings.source.bands:
        raise DetectorError(
            f"the detector was trained on bands {', '.join(detector.bands)}, source.bands is "
            f"{', '.join(settings.source.bands)}: train again, or set source.bands back"
        )
    if detector.metadata.get("reading_key") != reading_key(settings):
        raise DetectorError(
            "the detector was trained on scenes read with other settings of source, masks or grid: set them back, or "
            "train again"
        )


def write_profile(path: Path, profile: Profile, record: SceneRecord, nights: Mapping[str, NightLevel]) -> None:
    """Write what drift is measured on, and how the scene as a whole was judged."""
    about, arrays = profile.to_arrays()
    lists = {name: array.tolist() for name, array in arrays.items()}
    content = {"fingerprint": record.fingerprint, "about": about, "arrays": lists}
    content["nights"] = {name: _finite(asdict(night)) for name, night in nights.items()}
    write_text(path, json.dumps(content, separators=(",", ":")))


def read_profile(path: Path) -> Profile:
    """The inverse of `write_profile`."""
    content = json.loads(path.read_text(encoding="utf-8"))
    return Profile.from_arrays(content["about"], {name: np.array(rows) for name, rows in content["arrays"].items()})


def read_nights(path: Path) -> dict[str, NightLevel]:
    """How a scene as a whole was judged, by the name of the score; the one of most tiles first."""
    found: dict[str, dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["nights"]
    return {name: _night(about) for name, about in found.items()}


def _night(about: dict[str, Any]) -> NightLevel:
    return NightLevel(**about | {key: np.nan for key in NUMBERS if about[key] is None})


def _finite(about: dict[str, Any]) -> dict[str, Any]:
    return {key: None if isinstance(value, float) and not np.isfinite(value) else value for key, value in about.items()}


def has_latents(path: Path, record: SceneRecord) -> bool:
    """True when the latents are there, and those of the scene as it is now."""
    return path.exists() and (pq.read_schema(path).metadata or {}).get(b"fingerprint") == record.fingerprint.encode()


def write_latents(path: Path, rows: list[pd.DataFrame], record: SceneRecord) -> None:
    """Write the posterior means of a scene's tiles: `latent` is a list of float32, a NaN-free one only where scored."""
    table = pa.Table.from_pandas(pd.concat(rows, ignore_index=True), preserve_index=False)
    position = table.schema.get_field_index("latent")
    table = table.set_column(position, "latent", table["latent"].cast(pa.list_(pa.float32())))
    table = table.replace_schema_metadata(
        {**(table.schema.metadata or {}), b"fingerprint": record.fingerprint.encode()}
    )
    with whole_file(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def latent_rows(batch: TileBatch, scores: TileScores, record: SceneRecord) -> pd.DataFrame:
    """The latents of some tiles; tiles with too little left have none."""
    latents = [None if reason else row for row, reason in zip(scores.latent, scores.reason, strict=True)]
    about = {"valid_fraction": scores.valid_fraction, "latent": latents}
    return pd.DataFrame(_identity(batch, record) | about)


def _rows(batch: TileBatch, scores: TileScores, record: SceneRecord) -> pd.DataFrame:
    windows = pd.DataFrame([asdict(tile) for tile in batch.tiles])
    found = {
        "valid_fraction": scores.valid_fraction,
        "kind": pd.array(scores.kind, dtype="str"),
        "raw": scores.score,
        "reason": pd.array(scores.reason, dtype="str"),
        **{f"score_{name}": values for name, values in scores.components.items()},
        **{f"part_{name}": values for name, values in scores.parts.items()},
        **{f"off_{number}": values for number, values in enumerate(scores.bands.T)},
    }
    return pd.DataFrame(_identity(batch, record) | dict(windows.items()) | found)


def _judged(table: gpd.GeoDataFrame, judged: SceneJudgement) -> gpd.GeoDataFrame:
    """The table with what became of the raw scores."""
    return table.assign(
        score=judged.score,
        p_value=judged.p_value,
        threshold=judged.threshold,
        flagged=judged.flagged,
        basis=pd.array(judged.basis, dtype="str"),
    )


def _identity(batch: TileBatch, record: SceneRecord) -> dict[str, Any]:
    """Which ground, and when."""
    return {
        "tile_id": [tile.tile_id(record.location) for tile in batch.tiles],
        "location": record.location,
        "scene_id": record.scene_id,
        "acquired": pd.Timestamp(record.acquired),
    }
