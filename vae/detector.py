"""The detector: everything one needs to score, as one thing, and the only way to score."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from configs.schema import CalibrationSettings, ModelSettings, ScoreSettings
from vae import drift, scores
from vae.calibration import Basis, Calibration, fit_calibration
from vae.digests import canonical_json, sha256
from vae.errors import CalibrationError, DetectorError, ShapeError
from vae.levels import PlaceLevels, fit_levels
from vae.model import ConvVAE
from vae.normalisation import Normalisation

BATCH = 64  # the network always sees this many tiles: other sizes choose other kernels, which round otherwise


@dataclass(frozen=True)
class TileScores:
    """What scoring gives for N tiles. A tile without a score has NaN throughout, and a reason.

    score, p_value: (N,) float64; with place levels the score is a multiple of what is usual at the tile. flagged: (N,)
    bool. threshold: a greater score is flagged; NaN when not calibrated.
    components: every registered score, (N,) each. heatmap: (N, H, W) float32, the score pixel by pixel, NaN where
    masked (a score without a map is spread evenly). latent: (N, L·h·w) float32 posterior means.
    valid_fraction: (N,) share of usable pixels. reason: why a tile has no score, else None.
    """

    score: np.ndarray
    p_value: np.ndarray
    flagged: np.ndarray
    threshold: float
    components: dict[str, np.ndarray]
    heatmap: np.ndarray
    latent: np.ndarray
    valid_fraction: np.ndarray
    reason: list[str | None]


@dataclass(frozen=True, eq=False)
class Detector:
    """A network with all that its scores depend on. Training dates, versions and the like go to `metadata` (JSON).

    Raises:
        DetectorError: Parts that do not belong together.
    """

    network: ConvVAE
    normalisation: Normalisation
    score_settings: ScoreSettings
    tile_size: int
    seed: int = 0
    levels: PlaceLevels | None = None
    calibration: Calibration | None = None
    profile: drift.Profile | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        scores.find(self.score_settings.name)
        if len(self.normalisation.bands) != self.network.bands:
            raise DetectorError(
                f"the network was made for {self.network.bands} bands, the normalisation has "
                f"{len(self.normalisation.bands)}: use the normalisation it was trained with"
            )
        if self.tile_size % 2**self.model.depth:
            raise DetectorError(
                f"tiles of {self.tile_size} pixels cannot be halved model.depth = {self.model.depth} times"
            )
        made = self.calibration
        if made is not None and (made.score, made.pool) != (self.score_settings.name, self.score_settings.pool):
            raise DetectorError(
                f"the calibration is of {made.score} pooled by {made.pool}, the detector scores "
                f"{self.score_settings.name} pooled by {self.score_settings.pool}: calibrate again"
            )
        self.network.eval().requires_grad_(False)

    @property
    def bands(self) -> tuple[str, ...]:
        """Names of the bands, in the order of the channels."""
        return self.normalisation.bands

    @property
    def model(self) -> ModelSettings:
        """Settings of the network."""
        return self.network.settings

    @property
    def sigma(self) -> np.ndarray:
        """(C,) standard deviation of each band's residuals in training, normalised units."""
        return self.network.sigma.cpu().numpy().copy()

    @property
    def required_calibration(self) -> Calibration:
        """The calibration.

        Raises:
            CalibrationError: There is none.
        """
        if self.calibration is None:
            raise CalibrationError(
                "this detector is not calibrated, so its scores have no p-value and no threshold: calibrate it first"
            )
        return self.calibration

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return self.network.sigma.device

    @property
    def runtime(self) -> dict[str, str]:
        """What the scores come from; a threshold is valid for this only."""
        return runtime_of(self.device)

    @cached_property
    def identity(self) -> str:
        """Short digest of all that decides a score, p-value and flag."""
        about = {
            "normalisation": self.normalisation.to_dict(),
            "score": self.score_settings.model_dump(mode="json"),
            "tile_size": self.tile_size,
            "levels": [self.levels.levels, self.levels.elsewhere] if self.levels else None,
            "calibration": self.calibration.calibration_id if self.calibration else None,
        }
        weights = [
            part
            for name, tensor in sorted(self.network.state_dict().items())
            for part in (name.encode(), tensor.cpu().contiguous().numpy().tobytes())
        ]
        return sha256(canonical_json(about), *weights)[:12]

    def score(
        self,
        values: np.ndarray,
        valid: np.ndarray,
        *,
        places: Sequence[str] | None = None,
        area: np.ndarray | None = None,
        calibrated: bool = True,
    ) -> TileScores:
        """Score tiles: the same tile gets the same bytes, whatever others it comes with and in whatever order.

        Args:
            values: (N, C, H, W) float32, physical units; may hold anything, NaN too, where not valid.
            valid: (N, H, W) bool. A pixel that is not finite in every band is not valid either.
            places: Tile ids, by which a detector with place levels knows what is usual there.
            area: (N,) pixels of each tile's own window, for tiles at the edge that were padded; default H·W.
            calibrated: False to score without p-values and flags, as calibration itself must.

        Raises:
            ShapeError: Arrays that do not fit the detector.
            CalibrationError: `calibrated`, and the detector is not.
        """
        calibration = self.required_calibration if calibrated else None
        self._check(values, valid)
        count, side = len(values), self.tile_size
        fraction, reason = self._usable(values, valid, area)
        components = {name: np.full(count, np.nan) for name in scores.SCORES}
        heatmap = np.full((count, side, side), np.nan, dtype=np.float32)
        latent = np.full((count, self.latent_size), np.nan, dtype=np.float32)
        for rows, evidence in self._evidence(values, valid, np.flatnonzero([why is None for why in reason])):
            for name, entry in scores.SCORES.items():
                given = entry.compute(evidence)
                pooled = (
                    given.double() if given.ndim == 1 else scores.pool(given, evidence.valid, self.score_settings.pool)
                )
                components[name][rows] = pooled[: len(rows)].cpu().numpy()
                if name == self.score_settings.name:
                    per_pixel = given if given.ndim == 3 else given[:, None, None].expand(evidence.valid.shape)
                    masked = torch.where(evidence.valid, per_pixel, torch.nan)
                    heatmap[rows] = masked[: len(rows)].cpu().numpy()
            latent[rows] = evidence.mu.flatten(1)[: len(rows)].cpu().numpy()
        score = components[self.score_settings.name].copy()
        if self.levels is not None:
            level = self.levels.of(places, count)
            score = (score - self.least) / level
            heatmap = ((heatmap - self.least) / level[:, None, None]).astype(np.float32)
        return TileScores(
            score=score,
            p_value=np.full(count, np.nan) if calibration is None else calibration.p_values(score),
            flagged=np.zeros(count, dtype=bool) if calibration is None else calibration.flagged(score),
            threshold=np.nan if calibration is None else calibration.threshold,
            components=components,
            heatmap=heatmap,
            latent=latent,
            valid_fraction=fraction,
            reason=reason,
        )

    def expected(self, values: np.ndarray, valid: np.ndarray) -> np.ndarray:
        """(N, C, H, W) float32: what the detector expects to see, physical units, masked pixels filled in too."""
        self._check(values, valid)
        result = np.empty(values.shape, dtype=np.float32)
        for rows, evidence in self._evidence(values, valid, np.arange(len(values))):
            result[rows] = self.normalisation.invert(evidence.expected)[: len(rows)].cpu().numpy()
        return result

    def encode(self, values: np.ndarray, valid: np.ndarray) -> np.ndarray:
        """(N, L, h, w) float32 posterior means."""
        self._check(values, valid)
        step = 2**self.model.depth
        result = np.empty((len(values), self.model.latent_channels, *[self.tile_size // step] * 2), dtype=np.float32)
        for rows, evidence in self._evidence(values, valid, np.arange(len(values))):
            result[rows] = evidence.mu[: len(rows)].cpu().numpy()
        return result

    def histograms(self, values: np.ndarray, valid: np.ndarray, scored: TileScores) -> drift.Histograms:
        """What a scene adds to a drift profile.

        Args:
            values: (N, C, H, W) float32, physical units, as they were scored.
            valid: (N, H, W) bool.
            scored: From `score`, of the same tiles.
        """
        self._check(values, valid)
        clip, channels = self.normalisation.clip, self.model.latent_channels
        latent = scored.latent.reshape(len(values), channels, -1).mean(axis=2)
        given = scored.components[self.score_settings.name]  # not relative to the place: a drift may lie in its level
        # Batch by batch, so that a whole scene is never held in normalised units as well.
        total = drift.histograms(self.bands, clip, values[:0], valid[:0], latent[:0], given[:0])
        for start in range(0, len(values), BATCH):
            rows = slice(start, start + BATCH)
            x, usable = self._normalised(values[rows], valid[rows])
            part = x.cpu().numpy(), usable.cpu().numpy(), latent[rows], given[rows]
            total = total + drift.histograms(self.bands, clip, *part, least_score=self.least)
        return total

    def with_levels(self, places: Sequence[str], tile_scores: np.ndarray) -> Detector:
        """This detector, knowing what its score usually is at each place; it must then be calibrated again.

        Args:
            places: Tile ids.
            tile_scores: (N,) scores that this detector gave them without levels; NaN are left out.
        """
        if self.levels is not None:
            raise DetectorError("the detector has place levels already, so its scores are relative: learn them once")
        made = fit_levels(places, np.asarray(tile_scores) - self.least, self.score_settings.min_history)
        return replace(self, levels=made, calibration=None)

    def with_calibration(
        self, tile_scores: np.ndarray, dates: Sequence[str | date], settings: CalibrationSettings, basis: Basis
    ) -> Detector:
        """This detector, calibrated on the scores that it gave to normal tiles; see `fit_calibration`."""
        made = fit_calibration(
            tile_scores,
            dates,
            settings,
            score=self.score_settings.name,
            pool=self.score_settings.pool,
            basis=basis,
            runtime=self.runtime,
        )
        return replace(self, calibration=made)

    def save(self, folder: Path) -> None:
        """Write the detector into a folder; see `vae.storage`."""
        from vae.storage import save_detector

        save_detector(self, folder)

    @classmethod
    def load(cls, folder: Path, device: Literal["auto", "cpu", "cuda"] = "auto") -> Detector:
        """Read a detector; see `vae.storage`."""
        from vae.storage import load_detector

        return load_detector(folder, device)

    @property
    def least(self) -> float:
        """The smallest value the score can take, before it is made relative to the place."""
        return scores.find(self.score_settings.name).least(self.network.sigma)

    @property
    def latent_size(self) -> int:
        """Numbers in the latent of a tile, L·h·w."""
        return int(np.prod(self.network.latent_shape(1, self.tile_size)))

    def _usable(
        self, values: np.ndarray, valid: np.ndarray, area: np.ndarray | None
    ) -> tuple[np.ndarray, list[str | None]]:
        """(N,) share of usable pixels, and why a tile gets no score."""
        pixels = np.full(len(values), self.tile_size**2) if area is None else np.asarray(area)
        if pixels.shape != (len(values),) or (pixels < 1).any():
            raise ShapeError(f"area must give the pixels of each of the {len(values)} tiles, got shape {pixels.shape}")
        usable = np.array(
            [
                np.count_nonzero(mask.astype(bool) & np.isfinite(tile).all(axis=0))
                for tile, mask in zip(values, valid, strict=True)
            ],
            dtype=np.int64,
        )
        fraction = usable / pixels
        needed = self.score_settings.min_valid
        return fraction, [
            None
            if number and share >= needed
            else f"{int(100 * share)} % of the tile is usable, {round(100 * needed)} % needed"
            if number
            else "nothing of the tile is usable"
            for number, share in zip(usable, fraction, strict=True)
        ]

    @torch.inference_mode()
    def _evidence(
        self, values: np.ndarray, valid: np.ndarray, wanted: np.ndarray
    ) -> Iterator[tuple[np.ndarray, scores.Evidence]]:
        """Run the network over the wanted rows in batches of one size, the last one filled up with empty tiles."""
        for start in range(0, len(wanted), BATCH):
            rows = wanted[start : start + BATCH]
            batch = np.zeros((BATCH, *values.shape[1:]), dtype=np.float32)
            mask = np.zeros((BATCH, *valid.shape[1:]), dtype=bool)
            batch[: len(rows)], mask[: len(rows)] = values[rows], valid[rows]
            x, usable = self._normalised(batch, mask)
            with _exact(self.device):
                passed = self.network(x, usable)
            yield rows, scores.Evidence(x, usable, passed.expected, passed.mu, passed.logvar, self.network.sigma)

    def _normalised(self, values: np.ndarray, valid: np.ndarray) -> tuple[Tensor, Tensor]:
        given = torch.from_numpy(np.array(values, dtype=np.float32)).to(self.device)
        usable = torch.from_numpy(np.array(valid, dtype=bool)).to(self.device) & torch.isfinite(given).all(dim=1)
        return self.normalisation.apply(given, usable), usable

    def _check(self, values: np.ndarray, valid: np.ndarray) -> None:
        side = self.tile_size
        if values.shape[1:] != (len(self.bands), side, side) or valid.shape != (len(values), side, side):
            raise ShapeError(
                f"the detector takes values (N, {len(self.bands)}, {side}, {side}) of bands {', '.join(self.bands)} "
                f"and valid (N, {side}, {side}), got {values.shape} and {valid.shape}"
            )


def _exact(device: torch.device) -> AbstractContextManager[None]:
    """On a GPU: full float32 and one fixed kernel. A CPU needs nothing, and these flags are shared by all threads."""
    if device.type != "cuda":
        return nullcontext()
    return torch.backends.cudnn.flags(deterministic=True, benchmark=False, allow_tf32=False)


def runtime_of(device: torch.device) -> dict[str, str]:
    """Backend, device type, dtype and torch version."""
    version = ".".join(torch.__version__.split("+")[0].split(".")[:2])
    return {"backend": "torch-eager", "device": device.type, "dtype": "float32", "torch": version}
