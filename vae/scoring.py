"""The raw score of tiles: networks and all else that decides it, and the one way to work it out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from configs.schema import ModelSettings, ScoreSettings
from vae import scores
from vae.backend import BATCH, exact, filled, runtime_of
from vae.conditions import Conditions
from vae.digests import canonical_json, sha256
from vae.errors import DetectorError
from vae.networks import VAE
from vae.networks.conditions import Given, given_of
from vae.normalisation import Normalisation
from vae.scores.asked import check_scores, looks_back
from vae.tile_scores import PastTiles, TileScores
from vae.usable import check_shapes, remembered, shares_and_reasons, usable_pixels
from vae.working_out import Constants, can_work_out, work_out

FEWEST_PIXELS = 200  # to say what the pixels of a scene have in common


class NormalTiles(NamedTuple):
    """Tiles that scores learn from: values (N, C, H, W), valid (N, H, W), their past, what the networks are told."""

    values: np.ndarray
    valid: np.ndarray
    past: PastTiles | None = None
    conditions: Conditions | None = None


@dataclass(frozen=True, eq=False)
class Scorer:
    """All that decides a raw score.

    Attributes:
        networks: From different seeds, whose scores are averaged; none for scores that need none.
        normalisation: Physical to normalised units.
        model: What the networks are made by.
        score_settings: Which scores, and how they are pooled.
        tile_size: Side of a tile, pixels.
        seed: Of scores that draw samples.
        constants: What the scores learned of normal tiles: by score, for each network.
        visible: Which channels are red, green and blue; empty when not known.
        places: Locations that the networks tell apart, by which `Conditions.place` counts.
        sensors: Sensors likewise.

    Raises:
        DetectorError: Parts that do not belong together.
    """

    networks: tuple[VAE, ...]
    normalisation: Normalisation
    model: ModelSettings
    score_settings: ScoreSettings
    tile_size: int
    seed: int = 0
    constants: Constants = field(default_factory=dict)
    visible: tuple[int, ...] = ()
    places: tuple[str, ...] = ()
    sensors: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_scores(self.score_settings, self.model)
        if len(self.networks) != self.model.members:
            raise DetectorError(f"model.members is {self.model.members}, and there are {len(self.networks)} networks")
        for network in self.networks:
            if len(self.bands) != network.bands:
                raise DetectorError(
                    f"the network was made for {network.bands} bands, the normalisation has {len(self.bands)}: "
                    "use the normalisation it was trained with"
                )
            network.eval().requires_grad_(False)
        if self.networks and self.tile_size % 2**self.model.depth:
            raise DetectorError(
                f"tiles of {self.tile_size} pixels cannot be halved model.depth = {self.model.depth} times"
            )
        if self.tile_size < 4 or self.tile_size % 4:
            raise DetectorError(f"tiles of {self.tile_size} pixels: grid.tile_size must be a multiple of 4")
        if len(self.visible) not in (0, 3) or not all(0 <= channel < len(self.bands) for channel in self.visible):
            raise DetectorError(
                f"visible must be three channels, red, green and blue, of {len(self.bands)}, got {self.visible}"
            )

    @property
    def bands(self) -> tuple[str, ...]:
        """Names of the bands, in the order of the channels."""
        return self.normalisation.bands

    @property
    def names(self) -> tuple[str, ...]:
        """Every score that is worked out, the one for tiles with a past first."""
        return self.score_settings.names

    @property
    def looks_back(self) -> bool:
        """Whether any score compares with the past, or the networks are told what it lets expect."""
        return looks_back(self.score_settings, self.model)

    @property
    def sigma(self) -> np.ndarray:
        """(C,) standard deviation of each band's residuals in training, normalised units; of the first network."""
        return self.networks[0].sigma.cpu().numpy().copy() if self.networks else np.full(len(self.bands), np.nan)

    @property
    def device(self) -> torch.device:
        """Where the networks are."""
        return self.networks[0].sigma.device if self.networks else torch.device("cpu")

    @property
    def runtime(self) -> dict[str, str]:
        """What the scores come from; a threshold is valid for this only."""
        return runtime_of(self.device)

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """(L, h, w) of the latent of a tile; L is 0 without a network."""
        if not self.networks:
            return 0, 1, 1
        _, channels, height, width = self.networks[0].latent_shape(1, self.tile_size)
        return channels, height, width

    @property
    def latent_size(self) -> int:
        """Numbers in the latent of a tile, L·h·w; 0 without a network."""
        return int(np.prod(self.latent_shape))

    @cached_property
    def scoring_identity(self) -> str:
        """Short digest of all that decides a raw score."""
        return identity_of(self.scoring_description(), self.scoring_tensors())

    def scoring_description(self) -> dict[str, Any]:
        """All that decides a raw score but tensors, for JSON."""
        lists = {"places": list(self.places), "sensors": list(self.sensors)}
        return {
            "normalisation": self.normalisation.to_dict(),
            "model": self.model.model_dump(mode="json"),
            "score": self.score_settings.model_dump(mode="json"),
            "tile_size": self.tile_size,
            "seed": self.seed,
            "visible": list(self.visible),
            **{name: names for name, names in lists.items() if names},
        }

    def scoring_tensors(self) -> dict[str, Tensor]:
        """The tensors that decide it, `network/<number>/…` and `constants/<score>/<network>/…`."""
        found: dict[str, Tensor] = {}
        for number, network in enumerate(self.networks):
            found |= {f"network/{number}/{name}": tensor for name, tensor in network.state_dict().items()}
        for name, members in self.constants.items():
            for number, parts in enumerate(members):
                found |= {f"constants/{name}/{number}/{key}": tensor for key, tensor in parts.items()}
        return found

    def least(self, name: str) -> float:
        """The smallest value that a score can take."""
        nothing = torch.zeros(1, device=self.device)
        network = self.networks[0] if self.networks else None
        return scores.find(name).least(scores.Evidence(nothing, nothing, network))

    @torch.inference_mode()
    def raw_scores(
        self,
        values: np.ndarray,
        valid: np.ndarray,
        past: PastTiles | None,
        scene: scores.SceneStats | None,
        area: np.ndarray | None,
        conditions: Conditions | None = None,
        *,
        compare: bool,
    ) -> TileScores:
        """Score tiles; see `Detector.score`.

        Args:
            values: (N, C, H, W) float32, physical units.
            valid: (N, H, W) bool.
            past: What their past lets expect.
            scene: Of the whole scene.
            area: (N,) pixels of each tile's own window.
            conditions: What the networks are told of them.
            compare: Whether tiles are judged by the score for those with a past, where they have one.
        """
        self._check(values, valid, past, conditions)
        settings, count, side = self.score_settings, len(values), self.tile_size
        usable = usable_pixels(values, valid)
        fraction, reason = shares_and_reasons(usable, area, settings.min_valid)
        wanted = np.array([why is None for why in reason], dtype=bool)
        kind = np.where(wanted, settings.without_past, "").astype(object)
        if "past" not in scores.find(settings.name).needs:
            kind[wanted & self._told_enough(usable, conditions)] = settings.name
        elif compare and past is not None and can_work_out(settings.name, self.constants, past=True):
            known = usable_pixels(past.values, past.valid)
            kind[wanted & remembered(usable, known, settings.min_past)] = settings.name
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
        for rows, evidences in self._evidence(values, valid, np.flatnonzero(wanted), past, scene, conditions):
            self._add(found, rows, evidences)
        return found

    @torch.inference_mode()
    def expected(self, values: np.ndarray, valid: np.ndarray, conditions: Conditions | None = None) -> np.ndarray:
        """(N, C, H, W) float32: what the networks make of tiles, physical units, masked pixels filled in too.

        Raises:
            ShapeError: Arrays that do not fit the detector.
            ScoreError: There is no network.
        """
        self._check(values, valid, conditions=conditions)
        result = np.empty(values.shape, dtype=np.float32)
        for rows, evidences in self._evidence(values, valid, np.arange(len(values)), conditions=conditions):
            mean = torch.stack([evidence.expected for evidence in evidences]).mean(dim=0)
            result[rows] = self.normalisation.invert(mean)[: len(rows)].cpu().numpy()
        return result

    @torch.inference_mode()
    def encode(self, values: np.ndarray, valid: np.ndarray, conditions: Conditions | None = None) -> np.ndarray:
        """(N, L, h, w) float32 posterior means of the first network.

        Raises:
            ShapeError: Arrays that do not fit the detector.
            ScoreError: There is no network.
        """
        self._check(values, valid, conditions=conditions)
        result = np.empty((len(values), *self.latent_shape), dtype=np.float32)
        for rows, evidences in self._evidence(values, valid, np.arange(len(values)), conditions=conditions):
            result[rows] = evidences[0].mu[: len(rows)].cpu().numpy()
        return result

    def scene_stats(self, pixels: np.ndarray) -> scores.SceneStats | None:
        """What the pixels of a scene have in common; None when they are too few to tell.

        Args:
            pixels: (N, C) physical units, valid ones.
        """
        if len(pixels) < FEWEST_PIXELS:
            return None
        x = self.normalisation.apply(torch.from_numpy(np.ascontiguousarray(pixels.T[None, :, :, None], np.float32)))
        return scores.SceneStats.of(x[0, :, :, 0].T).to(self.device)

    def _told_enough(self, usable: np.ndarray, conditions: Conditions | None) -> np.ndarray:
        """(N,) bool: whether `score.name` can tell what to expect of a tile before it is looked at, if it asks that."""
        settings = self.score_settings
        if "condition" not in scores.find(settings.name).needs or "place" in self.model.condition:
            return np.ones(len(usable), dtype=bool)
        if conditions is None or conditions.reference is None or conditions.reference_valid is None:
            return np.zeros(len(usable), dtype=bool)
        known = usable_pixels(conditions.reference, conditions.reference_valid)
        return remembered(usable, known, settings.min_past)

    def learned(self, batches: Callable[[], Iterable[NormalTiles]]) -> Constants:
        """What the scores learn of normal tiles; see `Detector.with_constants`."""
        found: dict[str, tuple[Mapping[str, Tensor], ...]] = {}
        for name in self.names:
            entry = scores.find(name)
            if entry.learn is None:
                continue
            made = []
            for member in range(len(self.networks) if "network" in entry.needs else 1):
                with torch.inference_mode():
                    given = self._learning(batches, member, "past" in entry.needs)
                    first = next(given, None)
                    one = None if first is None else entry.learn(chain([first], given))
                if one is not None:  # copied out of inference mode: an ordinary tensor
                    made.append({key: part.cpu().clone() for key, part in sorted(one.items())})
            if made:
                found[name] = tuple(made)
        return found

    def normalised(self, values: np.ndarray, valid: np.ndarray) -> tuple[Tensor, Tensor]:
        """Tiles in normalised units, 0 where not usable, and where they are usable."""
        given = torch.from_numpy(np.array(values, dtype=np.float32)).to(self.device)
        usable = torch.from_numpy(np.array(valid, dtype=bool)).to(self.device) & torch.isfinite(given).all(dim=1)
        return self.normalisation.apply(given, usable), usable

    def _add(self, found: TileScores, rows: np.ndarray, evidences: list[scores.Evidence]) -> None:
        """Work out the scores of some rows."""
        some = len(rows)
        for name in self.names:
            if not can_work_out(name, self.constants, past=evidences[0].past is not None):
                continue
            worked = work_out(name, evidences, self.constants, self.score_settings.pool)
            found.components[name][rows] = worked.per_tile[:some].cpu().numpy()
            mine = found.kind[rows] == name
            if not mine.any():
                continue
            where = rows[mine]
            found.score[where] = found.components[name][where]
            found.heatmap[where] = worked.per_pixel[:some].cpu().numpy()[mine]
            found.bands[where] = worked.bands()[:some].cpu().numpy()[mine]
            for part, share in worked.parts().items():
                found.parts.setdefault(part, np.full(len(found.score), np.nan))[where] = (
                    share[:some].cpu().numpy()[mine]
                )
        if self.networks:
            found.latent[rows] = evidences[0].mu.flatten(1)[:some].cpu().numpy()

    def _evidence(
        self,
        values: np.ndarray,
        valid: np.ndarray,
        wanted: np.ndarray,
        past: PastTiles | None = None,
        scene: scores.SceneStats | None = None,
        conditions: Conditions | None = None,
    ) -> Iterator[tuple[np.ndarray, list[scores.Evidence]]]:
        """The wanted rows in batches of one size, the last one filled up with empty tiles, for each network."""
        for start in range(0, len(wanted), BATCH):
            rows = wanted[start : start + BATCH]
            x, usable = self.normalised(*filled(values, valid, rows))
            before = None if past is None else self._past(past, rows)
            given = self._given(conditions, rows)
            with exact(self.device):
                yield (
                    rows,
                    [
                        scores.Evidence(
                            x,
                            usable,
                            network,
                            past=before,
                            scene=scene,
                            seed=self.seed,
                            visible=self.visible,
                            given=given,
                        )
                        for network in self.networks or (None,)
                    ],
                )

    def _given(self, conditions: Conditions | None, rows: np.ndarray) -> Given | None:
        """What the networks are told of some rows; what they are to be told and is not there is unknown."""
        if not self.networks or not self.model.condition:
            return None
        batch = Conditions.unknown(BATCH, self.model.condition, len(self.bands), self.tile_size)
        if conditions is not None:
            batch.put(slice(len(rows)), conditions.rows(rows))
        return given_of(batch, self.normalisation, self.device)

    def _past(self, past: PastTiles, rows: np.ndarray) -> scores.Past:
        expected, known = self.normalised(*filled(past.values, past.valid, rows))
        if past.witness is None or past.witness_expected is None or past.witness_valid is None:
            return scores.Past(expected, known)
        witness, seen = self.normalised(*filled(past.witness, past.witness_valid, rows))
        before, expectable = self.normalised(*filled(past.witness_expected, past.witness_valid, rows))
        return scores.Past(expected, known, witness, before, seen & expectable)

    def _learning(
        self, batches: Callable[[], Iterable[NormalTiles]], member: int, with_past: bool
    ) -> Iterator[scores.Evidence]:
        """What there is to learn from: batches with a pixel that counts."""
        for values, valid, past, conditions in batches():
            self._check(values, valid, past, conditions)
            if with_past and past is None:
                continue
            every = np.arange(len(values))
            for _, evidences in self._evidence(values, valid, every, past, conditions=conditions):
                evidence = evidences[member]
                counts = evidence.valid & evidence.before.valid if with_past else evidence.valid
                if counts.any():
                    yield evidence

    def _check(
        self,
        values: np.ndarray,
        valid: np.ndarray,
        past: PastTiles | None = None,
        conditions: Conditions | None = None,
    ) -> None:
        check_shapes(values, valid, past, self.bands, self.tile_size)
        if conditions is not None:
            conditions.check(len(values), len(self.bands), self.tile_size)


def identity_of(description: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    """Short digest of all that decides a raw score, as `Scorer` describes it."""
    content = ((name.encode(), tensor.cpu().contiguous().numpy().tobytes()) for name, tensor in sorted(tensors.items()))
    return sha256(canonical_json(description), *(part for item in content for part in item))[:12]
