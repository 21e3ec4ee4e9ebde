"""A detector's scores as one function of tensors, which is what can be exported."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vae import scores
from vae.networks import VAE, Given
from vae.scores import Evidence, Past, SceneStats
from vae.scoring import Scorer
from vae.working_out import Worked, work_out

PAST = ("past_values", "past_valid", "witness", "witness_expected", "witness_valid")


@dataclass(frozen=True)
class Port:
    """An input: `shape` is that of one tile with "N" before it, or of the scene as a whole."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]
    what: str

    @property
    def per_tile(self) -> bool:
        """Whether there is one for each tile."""
        return self.shape[:1] == ("N",)

    def described(self) -> dict[str, Any]:
        """For JSON."""
        return {"name": self.name, "dtype": self.dtype, "shape": list(self.shape), "what": self.what}


class Graph(nn.Module):
    """Some scores of a detector, of tiles in physical units.

    Args:
        scorer: All that decides the scores.
        names: Those that are worked out.
        looks_back: Whether they compare with the past. If not, what the networks make of the tiles is given too:
            `expected` (N, C, H, W), physical units, averaged over the networks; and of the first network `mu` and
            `logvar` (N, L, h, w), `kl` (N, K) nats by latent channel, and `log_scale` (N, C, H, W), normalised units,
            where the decoder gives one for each value.

    Of each score there are `score_<name>` (N,), pooled and NaN without a usable pixel; `heatmap_<name>` (N, H, W), NaN
    where a pixel does not count, unless it is a number a tile; and of one of several parts
    `heatmap_<name>_<part>`, whose sum is the heatmap.
    """

    def __init__(self, scorer: Scorer, names: Sequence[str], *, looks_back: bool) -> None:
        super().__init__()
        # Copies: whoever exports goes on with the detector as it is, wherever it is.
        self.networks = nn.ModuleList(copy.deepcopy(network).cpu() for network in scorer.networks)
        self.names, self.looks_back = tuple(names), looks_back
        self.identity = scorer.scoring_identity
        self.normalisation, self.visible, self.seed = scorer.normalisation, scorer.visible, scorer.seed
        self.pool = scorer.score_settings.pool
        self.constants = {name: scorer.constants[name] for name in names if name in scorer.constants}
        self.needs = {need for name in names for need in scores.find(name).needs}
        asks_network = bool(self.networks) and (not looks_back or "network" in self.needs)
        self.condition = scorer.model.condition if asks_network else ()
        self.inputs = _inputs(self, len(scorer.bands), scorer.tile_size)

    def forward(self, *given: Tensor) -> tuple[Tensor, ...]:
        """The outputs, in order; tensors as `inputs` lists them."""
        return tuple(self.named(*given).values())

    def named(self, *given: Tensor) -> dict[str, Tensor]:
        """The outputs by name."""
        ports = {port.name: tensor for port, tensor in zip(self.inputs, given, strict=True)}
        x, usable = self._normalised(ports["values"], ports["valid"])
        past = self._past(ports) if self.looks_back else None
        scene = SceneStats(ports["scene_mean"], ports["scene_precision"]) if "scene_mean" in ports else None
        told = self._given(ports)
        members = [cast(VAE, network) for network in self.networks]
        evidences = [
            Evidence(x, usable, network, past=past, scene=scene, seed=self.seed, visible=self.visible, given=told)
            for network in members or (None,)
        ]
        found = {} if self.looks_back or not self.networks else self._networks(evidences)
        for name in self.names:
            found |= _outputs(name, work_out(name, evidences, self.constants, self.pool))
        return found

    def _normalised(self, values: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        usable = valid & torch.isfinite(values).all(dim=1)
        return self.normalisation.apply(values, usable), usable

    def _past(self, ports: dict[str, Tensor]) -> Past:
        expected, known = self._normalised(ports["past_values"], ports["past_valid"])
        witness, seen = self._normalised(ports["witness"], ports["witness_valid"])
        before, expectable = self._normalised(ports["witness_expected"], ports["witness_valid"])
        return Past(expected, known, witness, before, seen & expectable)

    def _given(self, ports: dict[str, Tensor]) -> Given | None:
        if not self.condition:
            return None
        given = Given(**{name: ports[name] for name in ("season", "place", "sun", "sensor") if name in ports})
        if "reference" not in self.condition:
            return given
        values, known = self._normalised(ports["reference"], ports["reference_valid"])
        return given._replace(reference=values, reference_valid=known)

    def _networks(self, evidences: list[Evidence]) -> dict[str, Tensor]:
        """What the networks make of the tiles."""
        expected = torch.stack([evidence.expected for evidence in evidences]).mean(dim=0)
        first = evidences[0].passed
        found = {"expected": self.normalisation.invert(expected), "mu": first.mu, "logvar": first.logvar}
        found["kl"] = first.kl
        log_scale = evidences[0].model.likelihood.log_scale(first.raw)
        return found if log_scale is None else found | {"log_scale": log_scale}


def sample(graph: Graph, tiles: int, seed: int = 0) -> tuple[Tensor, ...]:
    """Inputs of a graph to trace and to compare with: smooth ground in physical units, NaN where it is masked.

    Of the last tile nothing is known but the tile itself, of the first one all pixels are.
    """
    source = torch.Generator().manual_seed(seed)
    bands, side = len(graph.normalisation.bands), int(graph.inputs[0].shape[-1])

    def drawn(*shape: int) -> Tensor:
        return torch.randn(shape, generator=source)

    def image(like: Tensor) -> tuple[Tensor, Tensor]:
        masked = F.interpolate(drawn(tiles, 1, 4, 4), size=(side, side), mode="bilinear")[:, 0] > 0.8
        masked[0] = False
        values = graph.normalisation.invert(like + 0.1 * drawn(tiles, bands, side, side))
        return torch.where(masked[:, None], torch.nan, values), ~masked

    ground = F.interpolate(drawn(tiles, bands, 4, 4), size=(side, side), mode="bilinear")
    made: dict[str, Tensor] = {}
    for values, valid in (("values", "valid"), ("past_values", "past_valid"), ("witness", "witness_valid")):
        made[values], made[valid] = image(ground)
    made["witness_expected"], _ = image(ground)
    made["witness_valid"][-1] = False
    made["reference"], made["reference_valid"] = image(ground)
    made["reference_valid"][-1] = False
    made["season"] = torch.rand(tiles, generator=source)
    made["sun"] = torch.rand(tiles, 2, generator=source) * torch.tensor([90.0, 360.0])
    made["sun"][-1] = torch.nan
    made["place"] = torch.arange(tiles) - 1
    made["sensor"] = torch.arange(tiles) - 1
    made["scene_mean"] = 0.1 * drawn(bands)
    spread = drawn(bands, bands)
    made["scene_precision"] = spread @ spread.T / bands + torch.eye(bands)
    return tuple(made[port.name] for port in graph.inputs)


def _outputs(name: str, worked: Worked) -> dict[str, Tensor]:
    found = {f"score_{name}": worked.per_tile.float()}
    if next(iter(worked.maps.values())).ndim == 1:
        return found
    found[f"heatmap_{name}"] = worked.per_pixel
    if len(worked.maps) > 1:
        for part, values in worked.maps.items():
            found[f"heatmap_{name}_{part}"] = torch.where(torch.isnan(worked.per_pixel), torch.nan, values)
    return found


def _inputs(graph: Graph, bands: int, side: int) -> tuple[Port, ...]:
    """What a graph takes."""
    image, mask = ("N", bands, side, side), ("N", side, side)

    def pair(values: str, valid: str, what: str) -> list[Port]:
        return [
            Port(values, "float32", image, f"{what}, physical units; anything, NaN too, where not valid"),
            Port(valid, "bool", mask, f"where {values} is to be used"),
        ]

    ports = pair("values", "valid", "the tiles")
    if graph.looks_back:
        witness, seen = pair("witness", "witness_valid", "the last clear scene before; without one, nothing is valid")
        before, _ = pair("witness_expected", "", "what was to be expected of it")
        ports += [*pair("past_values", "past_valid", "what the past lets expect"), witness, before, seen]
    if "scene" in graph.needs:
        ports += [
            Port("scene_mean", "float32", (bands,), "mean of the scene's pixels, normalised; else `usual_scene`"),
            Port("scene_precision", "float32", (bands, bands), "inverse of their covariance; else `usual_scene`"),
        ]
    told = {
        "season": [Port("season", "float32", ("N",), "day of the year as a share of the year; NaN unknown")],
        "place": [Port("place", "int64", ("N",), "index in `places`; -1 unknown")],
        "sun": [Port("sun", "float32", ("N", 2), "elevation and azimuth of the sun, degrees; NaN unknown")],
        "sensor": [Port("sensor", "int64", ("N",), "index in `sensors`; -1 unknown")],
        "reference": pair("reference", "reference_valid", "what the past lets expect, as the networks are told it"),
    }
    return (*ports, *(port for name in told if name in graph.condition for port in told[name]))
