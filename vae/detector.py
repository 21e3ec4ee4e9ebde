"""The detector: everything one needs to score and to judge, as one thing, and the only way to do so."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from pydantic import BaseModel, ValidationError
from torch import Tensor

from configs.schema import CalibrationSettings, ModelSettings, ScoreSettings
from vae import scores
from vae.backend import BATCH, runtime_of
from vae.calibration import (
    Basis,
    Calibration,
    Judged,
    PlaceLevels,
    fit_calibration,
    fit_place_levels,
    judge_in_scene,
)
from vae.conditions import Conditions
from vae.device import choose_device
from vae.digests import canonical_json, sha256
from vae.drift_profile import Histograms, Profile, histograms
from vae.errors import CalibrationError, DetectorError
from vae.judgement import SceneJudgement, joined
from vae.networks import VAE, build
from vae.normalisation import Normalisation
from vae.older import renamed
from vae.scoring import NormalTiles, Scorer, identity_of
from vae.storage import group, read_bundle, write_bundle
from vae.tile_scores import PastTiles, TileScores

__all__ = ["BATCH", "Detector", "NormalTiles", "runtime_of"]

log = logging.getLogger(__name__)
S = TypeVar("S", bound=BaseModel)

SCORING = {"normalisation", "model", "score", "tile_size", "seed", "visible", "places", "sensors"}  # decide a raw score
BESIDE = {"format", "weights", "calibrations", "profile", "metadata"}
IN_SCENE_RATE = 0.01  # of a detector that was never calibrated


@dataclass(frozen=True, eq=False)
class Detector(Scorer):
    """A scorer that knows what is normal. Training dates, versions and the like go to `metadata` (JSON).

    Attributes:
        calibrations: By score. A score without one judges nothing.
        profile: What drift is measured against.
        metadata: JSON.

    Raises:
        DetectorError: Parts that do not belong together.
        CalibrationError: A calibration of another detector.
    """

    calibrations: Mapping[str, Calibration] = field(default_factory=dict)
    profile: Profile | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, made in self.calibrations.items():
            if (made.score, made.pool) != (name, self.score_settings.pool):
                raise DetectorError(
                    f"the calibration is of {made.score} pooled by {made.pool}, the detector scores {name} pooled by "
                    f"{self.score_settings.pool}: calibrate again"
                )
            made.check(bands=self.bands, detector=self.scoring_identity, runtime=made.runtime)

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
        conditions: Conditions | None = None,
    ) -> TileScores:
        """Score tiles: the same tile gets the same bytes, whatever others it comes with and in whatever order.

        A tile is compared with its past where that is known well enough (`score.min_past`), unless the score for it
        was not calibrated while another was, or had no past to learn from.

        Args:
            values: (N, C, H, W) float32, physical units; may hold anything, NaN too, where not valid.
            valid: (N, H, W) bool. A pixel that is not finite in every band is not valid either.
            past: What their past lets expect; None to look at them alone.
            scene: Of the whole scene, from `scene_stats`; without it, that of normal tiles is taken.
            area: (N,) pixels of each tile's own window, for tiles at the edge that were padded; default H·W.
            conditions: What the networks are told of them (`model.condition`); what is not given is unknown to them.

        Raises:
            ShapeError: Arrays that do not fit the detector or each other.
            ScoreError: Scores that have not learned what they need.
        """
        compare = self.score_settings.name in self.calibrations or not self.calibrations
        return self.raw_scores(values, valid, past, scene, area, conditions, compare=compare)

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

    def histograms(self, values: np.ndarray, valid: np.ndarray, scored: TileScores) -> Histograms:
        """What a scene adds to a drift profile.

        Args:
            values: (N, C, H, W) float32, physical units, as they were scored.
            valid: (N, H, W) bool.
            scored: From `score`, of the same tiles.
        """
        self._check(values, valid)
        clip, shape = self.normalisation.clip, self.latent_shape
        latent = scored.latent.reshape(len(values), shape[0], shape[1] * shape[2]).mean(axis=2)
        name = self.score_settings.without_past  # every tile has it, and it is not relative to the place
        given, least = scored.components[name], self.least(name)
        # Batch by batch, so that a whole scene is never held in normalised units as well.
        total = histograms(self.bands, clip, values[:0], valid[:0], latent[:0], given[:0])
        for start in range(0, len(values), BATCH):
            rows = slice(start, start + BATCH)
            x, usable = self.normalised(values[rows], valid[rows])
            part = x.cpu().numpy(), usable.cpu().numpy(), latent[rows], given[rows]
            total = total + histograms(self.bands, clip, *part, least_score=least)
        return total

    def with_constants(self, batches: Callable[[], Iterable[NormalTiles]]) -> Detector:
        """This detector, its scores having learned what they need of normal tiles.

        Args:
            batches: Gives some normal tiles at a time, and all of them each time it is called; their past may be None,
                and then scores of change learn nothing of them.

        Returns:
            The detector, not calibrated. A score that needs a past, and for which there was none, stays without
            constants and is not used.

        Raises:
            ShapeError: Arrays that do not fit the detector or each other.
            ScoreError: A score of texture, and it is not known which bands are red, green and blue.
        """
        return replace(self, constants=self.learned(batches), calibrations={})

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
        """Write the detector into a folder; the same detector gives the same bytes."""
        tensors = self.scoring_tensors()
        about: dict[str, Any] = {
            **self.scoring_description(),
            "calibrations": {},
            "profile": None,
            "metadata": dict(self.metadata),
        }
        for name, made in self.calibrations.items():
            about["calibrations"][name] = {**made.to_dict(), "calibration_id": made.calibration_id}
            tensors |= {f"calibration/{name}/{key}": torch.from_numpy(array) for key, array in made.arrays().items()}
        if self.profile is not None:
            about["profile"], arrays = self.profile.to_arrays()
            tensors |= {f"profile/{name}": torch.from_numpy(array) for name, array in arrays.items()}
        write_bundle(folder, about, tensors)

    @classmethod
    def load(cls, folder: Path, device: Literal["auto", "cpu", "cuda"] = "auto") -> Detector:
        """Read a detector.

        Args:
            folder: Where it was saved.
            device: `auto` is the device of its calibrations, and without any the GPU when there is one.

        Raises:
            DetectorError: Missing, incomplete, altered, older or newer files, or a calibration made by another runtime.
        """
        about, tensors = read_bundle(folder)
        try:
            return _assembled(about, tensors, device)
        except DetectorError:
            raise
        except (KeyError, TypeError, ValueError, RuntimeError) as error:  # of settings, shapes and digests too
            raise DetectorError(f"the detector in {folder} cannot be loaded: {error}") from error


def _assembled(
    about: Mapping[str, Any], tensors: Mapping[str, Tensor], device: Literal["auto", "cpu", "cuda"]
) -> Detector:
    """The detector of a description and tensors."""
    _check_known(about)
    calibrations = {
        name: _calibration(name, found, _arrays(group(tensors, f"calibration/{name}")))
        for name, found in about["calibrations"].items()
    }
    devices = sorted({made.runtime["device"] for made in calibrations.values()})
    where = choose_device(devices[0] if device == "auto" and devices else device)  # type: ignore[arg-type]
    for made in calibrations.values():
        _check_runtime(made, runtime_of(where))
    normalisation = Normalisation.from_dict(about["normalisation"])
    model = _settings(ModelSettings, about, "model")
    weights = renamed(tensors, about["format"], model.depth)
    profile = about["profile"]
    detector = Detector(
        networks=tuple(
            _network(group(weights, f"network/{number}"), normalisation, model).to(where)
            for number in range(model.members)
        ),
        normalisation=normalisation,
        model=model,
        score_settings=_settings(ScoreSettings, about, "score"),
        tile_size=about["tile_size"],
        seed=about["seed"],
        constants=_constants(group(tensors, "constants")),
        visible=tuple(about["visible"]),
        places=tuple(about.get("places", ())),
        sensors=tuple(about.get("sensors", ())),
        profile=None if profile is None else Profile.from_arrays(profile, _arrays(group(tensors, "profile"))),
        metadata=about["metadata"],
    )
    # The calibrations are of what was saved. With the defaults of settings that did not exist then, the digest of the
    # same detector is another one.
    saved = identity_of(
        {key: part for key, part in about.items() if key in SCORING},
        {name: tensor for name, tensor in tensors.items() if name.startswith(("network/", "constants/"))},
    )
    for made in calibrations.values():
        made.check(bands=normalisation.bands, detector=saved, runtime=made.runtime)
    ours = {name: replace(made, detector=detector.scoring_identity) for name, made in calibrations.items()}
    return replace(detector, calibrations=ours)


def _check_known(about: Mapping[str, Any]) -> None:
    """Refuse what a newer version may have written, and this one would leave out."""
    sections: dict[str, Mapping[str, Any]] = {"model": ModelSettings.model_fields, "score": ScoreSettings.model_fields}
    unknown = [key for key in about if key not in SCORING | BESIDE]
    unknown += [f"{name}.{key}" for name, known in sections.items() for key in about[name] if key not in known]
    if unknown:
        raise DetectorError(
            f"the detector has {', '.join(sorted(unknown))}, which this version does not know: it was made by a newer "
            "one, so update tilewatch, or train again"
        )


def _settings(section: type[S], about: Mapping[str, Any], name: str) -> S:
    try:
        return section(**about[name])
    except ValidationError as error:
        problems = [(".".join(str(part) for part in (name, *found["loc"])), found["msg"]) for found in error.errors()]
        wrong = "; ".join(f"{where}: {why}" for where, why in problems)
        raise DetectorError(
            f"the detector has settings that this version does not take ({wrong}): update tilewatch, or train again"
        ) from error


def _network(weights: Mapping[str, Tensor], normalisation: Normalisation, model: ModelSettings) -> VAE:
    network = build(len(normalisation.bands), model, seed=0, clip=normalisation.clip)
    network.load_state_dict(weights)
    return network


def _constants(tensors: Mapping[str, Tensor]) -> dict[str, tuple[dict[str, Tensor], ...]]:
    """What the scores learned: by score, for each network."""
    found: dict[str, dict[int, dict[str, Tensor]]] = {}
    for name, tensor in tensors.items():
        score, number, key = name.split("/", 2)
        found.setdefault(score, {}).setdefault(int(number), {})[key] = tensor
    return {score: tuple(members[number] for number in sorted(members)) for score, members in found.items()}


def _arrays(tensors: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    return {name: tensor.numpy().copy() for name, tensor in tensors.items()}


def _calibration(name: str, about: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Calibration:
    made = Calibration.from_dict(about, arrays)
    if made.calibration_id != about["calibration_id"]:
        raise DetectorError(f"the detector's calibration of {name} is not the one it names: calibrate again")
    return made


def _check_runtime(made: Calibration, here: Mapping[str, str]) -> None:
    differing = [key for key in ("backend", "device", "dtype") if made.runtime.get(key) != here[key]]
    if differing:
        raise DetectorError(
            "the detector was calibrated with "
            + ", ".join(f"{key} {made.runtime.get(key)}" for key in differing)
            + " and would run with "
            + ", ".join(f"{key} {here[key]}" for key in differing)
            + ": its threshold would not hold, so calibrate again here"
        )
    if made.runtime.get("torch") != here["torch"]:
        log.warning("the detector was calibrated with torch %s, this is %s", made.runtime.get("torch"), here["torch"])
