"""The detector: everything one needs to score, as one thing, and the only way to score."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from datetime import date
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from configs.schema import CalibrationSettings, ModelSettings, ScoreSettings
from vae import drift, scores
from vae.calibration import (
    Basis,
    Calibration,
    Judged,
    PlaceLevels,
    fit_calibration,
    fit_place_levels,
    judge_in_scene,
)
from vae.digests import canonical_json, sha256
from vae.errors import CalibrationError, DetectorError, ShapeError
from vae.judgement import SceneJudgement, joined
from vae.model import ConvVAE
from vae.normalisation import Normalisation
from vae.tile_scores import PastTiles, TileScores

BATCH = 64  # the network always sees this many tiles: other sizes choose other kernels, which round otherwise
FEWEST_PIXELS = 200  # to say what the pixels of a scene have in common
IN_SCENE_RATE = 0.01  # of a detector that was never calibrated

NormalTiles = tuple[np.ndarray, np.ndarray, PastTiles | None]


@dataclass(frozen=True, eq=False)
class Detector:
    """Networks with all that their scores depend on. Training dates, versions and the like go to `metadata` (JSON).

    Attributes:
        networks: From different seeds, whose scores are averaged; none for scores that need none.
        normalisation: Physical to normalised units.
        model: What the networks are made by.
        score_settings: Which scores, and how they are pooled.
        tile_size: Side of a tile, pixels.
        seed: Of scores that draw samples.
        constants: What the scores learned of normal tiles: by score, for each network.
        visible: Which channels are red, green and blue; empty when not known.
        calibrations: By score. A score without one judges nothing.
        profile: What drift is measured against.
        metadata: JSON.

    Raises:
        DetectorError: Parts that do not belong together.
    """

    networks: tuple[ConvVAE, ...]
    normalisation: Normalisation
    model: ModelSettings
    score_settings: ScoreSettings
    tile_size: int
    seed: int = 0
    constants: Mapping[str, tuple[Mapping[str, Tensor], ...]] = field(default_factory=dict)
    visible: tuple[int, ...] = ()
    calibrations: Mapping[str, Calibration] = field(default_factory=dict)
    profile: drift.Profile | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_scores(self.score_settings, self.model)
        if len(self.networks) != self.model.members:
            raise DetectorError(f"model.members is {self.model.members}, and there are {len(self.networks)} networks")
        for network in self.networks:
            if len(self.normalisation.bands) != network.bands:
                raise DetectorError(
                    f"the network was made for {network.bands} bands, the normalisation has "
                    f"{len(self.normalisation.bands)}: use the normalisation it was trained with"
                )
            network.eval().requires_grad_(False)
        if self.networks and self.tile_size % 2**self.model.depth:
            raise DetectorError(
                f"tiles of {self.tile_size} pixels cannot be halved model.depth = {self.model.depth} times"
            )
        if self.tile_size % 4:
            raise DetectorError(f"tiles of {self.tile_size} pixels: grid.tile_size must be a multiple of 4")
        for name, made in self.calibrations.items():
            if (made.score, made.pool) != (name, self.score_settings.pool):
                raise DetectorError(
                    f"the calibration is of {made.score} pooled by {made.pool}, the detector scores {name} pooled by "
                    f"{self.score_settings.pool}: calibrate again"
                )
            made.check(bands=self.bands, detector=self.scoring_identity, runtime=made.runtime)

    @property
    def bands(self) -> tuple[str, ...]:
        """Names of the bands, in the order of the channels."""
        return self.normalisation.bands

    @property
    def names(self) -> tuple[str, ...]:
        """Every score that is worked out, the one for tiles with a past first."""
        settings = self.score_settings
        return tuple(dict.fromkeys((settings.name, settings.without_past, *settings.also)))

    @property
    def looks_back(self) -> bool:
        """Whether any score compares with the past."""
        return any("past" in scores.find(name).needs for name in self.names)

    @property
    def sigma(self) -> np.ndarray:
        """(C,) standard deviation of each band's residuals in training, normalised units; of the first network."""
        return self.networks[0].sigma.cpu().numpy().copy() if self.networks else np.full(len(self.bands), np.nan)

    @property
    def calibration(self) -> Calibration | None:
        """Of the score for tiles with a past; else that of tiles without; None when there is neither."""
        settings = self.score_settings
        return self.calibrations.get(settings.name) or self.calibrations.get(settings.without_past)

    @property
    def required_calibration(self) -> Calibration:
        """The same.

        Raises:
            CalibrationError: There is none.
        """
        if self.calibration is None:
            raise CalibrationError(
                "this detector is not calibrated, so its scores have no p-value and no threshold: calibrate it first"
            )
        return self.calibration

    @property
    def calibration_id(self) -> str:
        """Short digest of all calibrations; '' without any."""
        ids = [made.calibration_id for _, made in sorted(self.calibrations.items())]
        return ids[0] if len(ids) == 1 else sha256(canonical_json(ids))[:12] if ids else ""

    @property
    def device(self) -> torch.device:
        """Where the networks are."""
        return self.networks[0].sigma.device if self.networks else torch.device("cpu")

    @property
    def runtime(self) -> dict[str, str]:
        """What the scores come from; a threshold is valid for this only."""
        return runtime_of(self.device)

    @cached_property
    def scoring_identity(self) -> str:
        """Short digest of all that decides a raw score."""
        about = {
            "normalisation": self.normalisation.to_dict(),
            "score": self.score_settings.model_dump(mode="json"),
            "tile_size": self.tile_size,
            "visible": list(self.visible),
            "seed": self.seed,
        }
        return sha256(canonical_json(about), *(part for item in self._tensors() for part in item))[:12]

    @cached_property
    def identity(self) -> str:
        """Short digest of all that decides a score, p-value and flag."""
        return sha256(canonical_json([self.scoring_identity, self.calibration_id]))[:12]

    def score(
        self,
        values: np.ndarray,
        valid: np.ndarray,
        *,
        past: PastTiles | None = None,
        scene: scores.SceneStats | None = None,
        area: np.ndarray | None = None,
    ) -> TileScores:
        """Score tiles: the same tile gets the same bytes, whatever others it comes with and in whatever order.

        Args:
            values: (N, C, H, W) float32, physical units; may hold anything, NaN too, where not valid.
            valid: (N, H, W) bool. A pixel that is not finite in every band is not valid either.
            past: What their past lets expect; None to look at them alone.
            scene: Of the whole scene, from `scene_stats`; without it, that of normal tiles is taken.
            area: (N,) pixels of each tile's own window, for tiles at the edge that were padded; default H·W.

        Raises:
            ShapeError: Arrays that do not fit the detector.
            ScoreError: Scores that have not learned what they need.
        """
        self._check(values, valid)
        settings, count, side = self.score_settings, len(values), self.tile_size
        fraction, reason = self._usable(values, valid, area)
        wanted = np.array([why is None for why in reason], dtype=bool)
        kind = np.where(wanted, settings.without_past, "").astype(object)
        if "past" in scores.find(settings.name).needs:
            if past is not None and (settings.name in self.calibrations or not self.calibrations):
                kind[wanted & self._remembered(values, valid, past.valid)] = settings.name
        else:
            kind[wanted] = settings.name
        found = TileScores(
            kind=kind,
            score=np.full(count, np.nan),
            components={name: np.full(count, np.nan) for name in self.names},
            parts={},
            bands=np.full((count, len(self.bands)), np.nan),
            heatmap=np.full((count, side, side), np.nan, dtype=np.float32),
            latent=np.full((count, self.latent_size), np.nan, dtype=np.float32),
            valid_fraction=fraction,
            reason=reason,
        )
        for rows, evidences in self._evidence(values, valid, np.flatnonzero(wanted), past, scene):
            self._add(found, rows, evidences)
        return found

    def judge(self, kind: np.ndarray, score: np.ndarray, places: Sequence[str] | None = None) -> SceneJudgement:
        """Judge all tiles of one scene.

        Args:
            kind: (N,) as in `TileScores`.
            score: (N,) raw.
            places: (N,) tile ids, by which it is known what is usual there.

        Returns:
            The judgement. A kind without calibration is judged by the tiles of the scene alone, and marked so.
        """
        judged: dict[str, Judged] = {}
        for name in sorted(set(kind) - {""}):
            rows = np.flatnonzero(kind == name)
            made = self.calibrations.get(name)
            if made is None:
                rate = self.calibration.false_alarm_rate if self.calibration else IN_SCENE_RATE
                judged[name] = judge_in_scene(score[rows], least=self.least(name), rate=rate)
            else:
                known = None if places is None else [places[int(row)] for row in rows]
                judged[name] = made.judge(score[rows], known)
        return joined(kind, judged)

    def scene_stats(self, pixels: np.ndarray) -> scores.SceneStats | None:
        """What the pixels of a scene have in common; None when they are too few to tell.

        Args:
            pixels: (N, C) physical units, valid ones.
        """
        if len(pixels) < FEWEST_PIXELS:
            return None
        x = self.normalisation.apply(torch.from_numpy(np.ascontiguousarray(pixels.T[None, :, :, None], np.float32)))
        return scores.SceneStats.of(x[0, :, :, 0].T).to(self.device)

    def expected(self, values: np.ndarray, valid: np.ndarray) -> np.ndarray:
        """(N, C, H, W) float32: what the network makes of tiles, physical units, masked pixels filled in too."""
        self._check(values, valid)
        result = np.empty(values.shape, dtype=np.float32)
        for rows, evidences in self._evidence(values, valid, np.arange(len(values))):
            mean = torch.stack([evidence.expected for evidence in evidences]).mean(dim=0)
            result[rows] = self.normalisation.invert(mean)[: len(rows)].cpu().numpy()
        return result

    def encode(self, values: np.ndarray, valid: np.ndarray) -> np.ndarray:
        """(N, L, h, w) float32 posterior means of the first network."""
        self._check(values, valid)
        result = np.empty((len(values), *self._latent_shape), dtype=np.float32)
        for rows, evidences in self._evidence(values, valid, np.arange(len(values))):
            result[rows] = evidences[0].mu[: len(rows)].cpu().numpy()
        return result

    def histograms(self, values: np.ndarray, valid: np.ndarray, scored: TileScores) -> drift.Histograms:
        """What a scene adds to a drift profile.

        Args:
            values: (N, C, H, W) float32, physical units, as they were scored.
            valid: (N, H, W) bool.
            scored: From `score`, of the same tiles.
        """
        self._check(values, valid)
        clip, channels = self.normalisation.clip, self._latent_shape[0]
        latent = scored.latent.reshape(len(values), channels, -1).mean(axis=2)
        name = self.score_settings.without_past  # every tile has it, and it is not relative to the place
        given, least = scored.components[name], self.least(name)
        # Batch by batch, so that a whole scene is never held in normalised units as well.
        total = drift.histograms(self.bands, clip, values[:0], valid[:0], latent[:0], given[:0])
        for start in range(0, len(values), BATCH):
            rows = slice(start, start + BATCH)
            x, usable = self._normalised(values[rows], valid[rows])
            part = x.cpu().numpy(), usable.cpu().numpy(), latent[rows], given[rows]
            total = total + drift.histograms(self.bands, clip, *part, least_score=least)
        return total

    def with_constants(self, batches: Callable[[], Iterable[NormalTiles]]) -> Detector:
        """This detector, its scores having learned what they need of normal tiles.

        Args:
            batches: Gives (values, valid, past) of normal tiles, at most `BATCH` at a time, each time anew; past may be
                None, and then scores of change learn nothing of them.

        Returns:
            The detector, not calibrated. A score that needs a past, and for which there was none, stays without
            constants and is not used.
        """
        learned: dict[str, tuple[Mapping[str, Tensor], ...]] = {}
        for name in self.names:
            entry = scores.find(name)
            if entry.learn is None:
                continue
            members = range(len(self.networks)) if "network" in entry.needs else range(1)
            made = []
            for member in members:
                given = self._learning(batches, member, "past" in entry.needs)
                first = next(given, None)
                if first is not None:
                    with torch.inference_mode():
                        made.append(entry.learn(chain([first], given)))
            if made:
                learned[name] = tuple({key: part.cpu().clone() for key, part in sorted(one.items())} for one in made)
        return replace(self, constants=learned, calibrations={})

    def with_calibration(
        self,
        name: str,
        tile_scores: np.ndarray,
        dates: Sequence[str | date],
        scenes: Sequence[str],
        places: Sequence[str],
        settings: CalibrationSettings,
        basis: Basis,
        usual: tuple[np.ndarray, Sequence[str], Sequence[str]] | None = None,
        levels: PlaceLevels | None = None,
    ) -> Detector:
        """This detector, one of its scores calibrated on normal tiles; see `fit_calibration`.

        Args:
            name: The score.
            tile_scores: (N,) raw.
            dates: (N,) or the dates.
            scenes: (N,) scene of each.
            places: (N,) tile of each.
            settings: How.
            basis: Where the dates come from.
            usual: Raw scores, scenes and tiles of other dates, that say what is usual at each place.
            levels: The same, known already.
        """
        if usual is not None:
            found, when, where = usual
            levels = fit_place_levels(found, when, where, least=self.least(name), prior=settings.place_prior)
        made = fit_calibration(
            tile_scores,
            dates,
            scenes,
            places,
            settings,
            score=name,
            pool=self.score_settings.pool,
            least=self.least(name),
            basis=basis,
            runtime=self.runtime,
            bands=self.bands,
            detector=self.scoring_identity,
            levels=levels,
        )
        return replace(self, calibrations={**self.calibrations, name: made})

    def save(self, folder: Path) -> None:
        """Write the detector into a folder; see `vae.storage`."""
        from vae.storage import save_detector

        save_detector(self, folder)

    @classmethod
    def load(cls, folder: Path, device: Literal["auto", "cpu", "cuda"] = "auto") -> Detector:
        """Read a detector; see `vae.storage`."""
        from vae.storage import load_detector

        return load_detector(folder, device)

    def least(self, name: str) -> float:
        """The smallest value that a score can take."""
        nothing = torch.zeros(1, device=self.device)
        network = self.networks[0] if self.networks else None
        return scores.find(name).least(scores.Evidence(nothing, nothing, network))

    @property
    def latent_size(self) -> int:
        """Numbers in the latent of a tile, L·h·w; 0 without a network."""
        return int(np.prod(self._latent_shape))

    @property
    def _latent_shape(self) -> tuple[int, int, int]:
        if not self.networks:
            return 0, 1, 1
        _, channels, height, width = self.networks[0].latent_shape(1, self.tile_size)
        return channels, height, width

    def _tensors(self) -> Iterator[tuple[bytes, bytes]]:
        """Name and content of every tensor, in a fixed order."""
        for number, network in enumerate(self.networks):
            for name, tensor in sorted(network.state_dict().items()):
                yield f"{number}/{name}".encode(), tensor.cpu().contiguous().numpy().tobytes()
        for name, members in sorted(self.constants.items()):
            for number, parts in enumerate(members):
                for key, tensor in sorted(parts.items()):
                    yield f"{name}/{number}/{key}".encode(), tensor.contiguous().numpy().tobytes()

    def _add(self, found: TileScores, rows: np.ndarray, evidences: list[scores.Evidence]) -> None:
        """Work out the scores of some rows."""
        some = len(rows)
        valid = evidences[0].valid
        for name in self.names:
            if not self._can(name, evidences[0]):
                continue
            maps = self._maps(name, evidences)
            total = sum_of(maps)
            pooled = total.double() if total.ndim == 1 else scores.pool(total, valid, self.score_settings.pool)
            found.components[name][rows] = pooled[:some].cpu().numpy()
            mine = found.kind[rows] == name
            if not mine.any():
                continue
            where = rows[mine]
            found.score[where] = found.components[name][where]
            per_pixel = total if total.ndim == 3 else total[:, None, None].expand(valid.shape)
            masked = torch.where(valid, per_pixel, torch.nan)[:some]
            found.heatmap[where] = masked.cpu().numpy()[mine]
            high = valid & (per_pixel >= pooled[:, None, None])
            for part, share in shares_of(maps, high).items():
                found.parts.setdefault(part, np.full(len(found.score), np.nan))[where] = share[:some].numpy()[mine]
            found.bands[where] = self._bands_off(name, evidences[0], high)[:some].numpy()[mine]
        if self.networks:
            found.latent[rows] = evidences[0].mu.flatten(1)[:some].cpu().numpy()

    def _maps(self, name: str, evidences: list[scores.Evidence]) -> dict[str, Tensor]:
        """The parts of a score, averaged over the networks."""
        entry = scores.find(name)
        learned = self.constants.get(name, ())
        members = evidences if "network" in entry.needs else evidences[:1]
        given = []
        for number, evidence in enumerate(members):
            constants = learned[number] if number < len(learned) else {}
            found = entry.compute(replace(evidence, constants=constants))
            given.append(found if isinstance(found, dict) else {name: found})
        return {part: torch.stack([one[part] for one in given]).mean(dim=0) for part in given[0]}

    def _can(self, name: str, evidence: scores.Evidence) -> bool:
        """Whether a score has what it needs."""
        entry = scores.find(name)
        return not ("past" in entry.needs and (evidence.past is None or (entry.learn and name not in self.constants)))

    def _bands_off(self, name: str, evidence: scores.Evidence, high: Tensor) -> Tensor:
        """(B, C) share of each band of what is not as expected where the score is high."""
        if "past" in scores.find(name).needs:
            off = scores.change.agreed(*evidence.differences(lambda x, valid: x)).abs()
        elif self.networks:
            off = ((evidence.x - evidence.expected) / evidence.sigma.view(1, -1, 1, 1)).square()
        else:
            off = torch.ones_like(evidence.x)
        total = torch.where(high[:, None], off, 0.0).double().sum(dim=(2, 3))
        return (total / total.sum(dim=1, keepdim=True).clamp(min=1e-30)).cpu()

    def _usable(
        self, values: np.ndarray, valid: np.ndarray, area: np.ndarray | None
    ) -> tuple[np.ndarray, list[str | None]]:
        """(N,) share of usable pixels, and why a tile gets no score."""
        pixels = np.full(len(values), self.tile_size**2) if area is None else np.asarray(area)
        if pixels.shape != (len(values),) or (pixels < 1).any():
            raise ShapeError(f"area must give the pixels of each of the {len(values)} tiles, got shape {pixels.shape}")
        usable = np.array(
            [np.count_nonzero(_finite(tile, mask)) for tile, mask in zip(values, valid, strict=True)], dtype=np.int64
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

    def _remembered(self, values: np.ndarray, valid: np.ndarray, known: np.ndarray) -> np.ndarray:
        """(N,) bool: enough of the tile's usable pixels have a past."""
        needed = self.score_settings.min_past
        shares = []
        for tile, mask, past in zip(values, valid, known, strict=True):
            usable = _finite(tile, mask)
            shares.append(np.count_nonzero(usable & past) >= needed * max(int(np.count_nonzero(usable)), 1))
        return np.array(shares, dtype=bool)

    @torch.inference_mode()
    def _evidence(
        self,
        values: np.ndarray,
        valid: np.ndarray,
        wanted: np.ndarray,
        past: PastTiles | None = None,
        scene: scores.SceneStats | None = None,
    ) -> Iterator[tuple[np.ndarray, list[scores.Evidence]]]:
        """Run the networks over the wanted rows in batches of one size, the last one filled up with empty tiles."""
        for start in range(0, len(wanted), BATCH):
            rows = wanted[start : start + BATCH]
            x, usable = self._normalised(*_filled(values, valid, rows))
            with _exact(self.device):
                yield (
                    rows,
                    [
                        scores.Evidence(
                            x,
                            usable,
                            network,
                            past=None if past is None else self._past(past, rows),
                            scene=scene,
                            seed=self.seed,
                            visible=self.visible,
                        )
                        for network in self.networks or (None,)
                    ],
                )

    def _past(self, past: PastTiles, rows: np.ndarray) -> scores.Past:
        expected, known = self._normalised(*_filled(past.values, past.valid, rows))
        if past.witness is None or past.witness_expected is None or past.witness_valid is None:
            return scores.Past(expected, known)
        witness, seen = self._normalised(*_filled(past.witness, past.witness_valid, rows))
        before, expectable = self._normalised(*_filled(past.witness_expected, past.witness_valid, rows))
        return scores.Past(expected, known, witness, before, seen & expectable)

    def _learning(
        self, batches: Callable[[], Iterable[NormalTiles]], member: int, with_past: bool
    ) -> Iterator[scores.Evidence]:
        for values, valid, past in batches():
            if with_past and past is None:
                continue
            for _, evidences in self._evidence(values, valid, np.arange(len(values)), past):
                yield evidences[member]

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


def check_scores(settings: ScoreSettings, model: ModelSettings) -> None:
    """Refuse scores that do not exist or cannot be worked out.

    Raises:
        ScoreError: No such score.
        DetectorError: One that needs a network where there is none, or a past where there is none.
    """
    for name in (settings.name, settings.without_past, *settings.also):
        if "network" in scores.find(name).needs and not model.members:
            raise DetectorError(
                f"the score {name} needs a network, and model.members is 0: use 1, or other scores in score.name, "
                "score.without_past and score.also"
            )
    if "past" in scores.find(settings.without_past).needs:
        raise DetectorError(
            f"score.without_past is for tiles that have no past, and {settings.without_past} compares with it: use "
            "one that does not, such as novelty or rx"
        )


def sum_of(maps: Mapping[str, Tensor]) -> Tensor:
    """The score, from its parts."""
    first, *others = maps.values()
    for other in others:
        first = first + other
    return first


def shares_of(maps: Mapping[str, Tensor], high: Tensor) -> dict[str, Tensor]:
    """(B,) share of each part of a score at some pixels (B, H, W); a score of one part has all of it."""
    if len(maps) == 1:
        return {name: torch.ones(len(high)) for name in maps}
    sums = {name: torch.where(high, part, 0.0).double().sum(dim=(1, 2)).cpu() for name, part in maps.items()}
    total = sum_of(sums).clamp(min=1e-30)
    return {name: part / total for name, part in sums.items()}


def _finite(tile: np.ndarray, mask: np.ndarray) -> np.ndarray:
    return mask.astype(bool) & np.isfinite(tile).all(axis=0)


def _filled(values: np.ndarray, valid: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Some rows, followed by empty tiles up to the size of a batch."""
    batch = np.zeros((BATCH, *values.shape[1:]), dtype=np.float32)
    mask = np.zeros((BATCH, *valid.shape[1:]), dtype=bool)
    batch[: len(rows)], mask[: len(rows)] = values[rows], valid[rows]
    return batch, mask


def _exact(device: torch.device) -> AbstractContextManager[None]:
    """On a GPU: full float32 and one fixed kernel. A CPU needs nothing, and these flags are shared by all threads."""
    if device.type != "cuda":
        return nullcontext()
    return torch.backends.cudnn.flags(deterministic=True, benchmark=False, allow_tf32=False)


def runtime_of(device: torch.device) -> dict[str, str]:
    """Backend, device type, dtype and torch version."""
    version = ".".join(torch.__version__.split("+")[0].split(".")[:2])
    return {"backend": "torch-eager", "device": device.type, "dtype": "float32", "torch": version}
