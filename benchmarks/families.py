"""Every family of networks on the same real tiles: what each says of tiles that are held out, and what it takes.

    python benchmarks/families.py [--data oscd romania] [--families NAME ...] [--quick] [--json] [--out DIR]

Each family differs from the default in what its row says, and in nothing else; all train on the same tiles for the same
number of epochs, without a look at those that are held out: other cities of OSCD, the later years of Romania. All are
densities of the same normalised values, so that bounds of different likelihoods can be compared. Tiles a second are
those of training, by the time that the processors were at work on it: others may be at work on them too.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # when it is run as a script

from benchmarks.machine import machine, versions
from benchmarks.problems.held_out import Problem, cities, series
from configs.schema import ModelSettings, TrainSettings
from imagery.robust import evenly
from vae.diagnostics.channels import Channels, Codes
from vae.networks import VAE
from vae.objectives import Sums, batch_sums, elbo_per_dimension, importance_bound
from vae.tiles import TileArrays
from vae.training import Diverged, fit
from vae.training.batches import Noise, prepare

DATA = {"oscd": cities, "romania": series}
SEED = 5
BATCH = 64
ELBO_PART, BOUND_PART = 1, 2  # each with draws of its own


@dataclass(frozen=True)
class Effort:
    """How much is done: the same for every family.

    Attributes:
        epochs: Of training.
        most_train: Tiles to learn from.
        most_judged: Tiles to judge by.
        draws: Of the importance-weighted bound, a tile.
        width: Channels after the first layer.
    """

    epochs: int
    most_train: int
    most_judged: int
    draws: int
    width: int


FULL, QUICK = Effort(20, 384, 128, 20, 16), Effort(2, 64, 24, 5, 8)


@dataclass(frozen=True)
class Family:
    """What differs from the default.

    Attributes:
        name: In the table.
        model: Settings of the network.
        train: Settings of its training.
        told: Whether it is told all that is known beside the tiles.
    """

    name: str
    model: Mapping[str, Any] = field(default_factory=dict)
    train: Mapping[str, Any] = field(default_factory=dict)
    told: bool = False

    def settings(self, effort: Effort, condition: Sequence[str]) -> tuple[ModelSettings, TrainSettings]:
        """Of the network and of its training."""
        told = {"condition": tuple(condition)} if self.told else {}
        model = ModelSettings(**{"width": effort.width, **self.model, **told})
        train = TrainSettings(**{"epochs": effort.epochs, "batch_size": 16, "device": "cpu", **self.train})
        return model, train


LIKELIHOODS = get_args(ModelSettings.model_fields["likelihood"].annotation)
FAMILIES = (
    Family("default"),
    Family("residual", {"network": "residual"}),
    Family("vector", {"latent": "vector", "latent_channels": 64}),
    Family("hierarchical", {"posterior": "hierarchical"}),
    Family("flow", {"posterior": "flow"}),
    Family("quantised", {"posterior": "quantised"}),
    *(Family(name, {"likelihood": name}) for name in LIKELIHOODS if name != "gaussian"),
    Family("importance-weighted", train={"objective": "iwae"}),
    Family("free bits", train={"free_bits": 4.0}),
    Family("conditional", told=True),
)


def main() -> None:
    """Measure, print tables, and end with one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", choices=DATA, default=list(DATA))
    parser.add_argument("--families", nargs="+", choices=[family.name for family in FAMILIES])
    parser.add_argument("--quick", action="store_true", help="few tiles, small networks, two epochs; the same work")
    parser.add_argument("--json", action="store_true", help="print the JSON object only")
    parser.add_argument("--out", type=Path, help="folder in which the JSON object and the tables are kept")
    arguments = parser.parse_args()
    chosen = [family for family in FAMILIES if arguments.families is None or family.name in arguments.families]
    result = run(arguments.data, chosen, QUICK if arguments.quick else FULL, arguments.quick)
    if arguments.out:
        arguments.out.mkdir(parents=True, exist_ok=True)
        (arguments.out / "families.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        (arguments.out / "families.md").write_text(tables(result) + "\n", encoding="utf-8")
    if not arguments.json:
        print(tables(result))
    print(json.dumps(result))


def run(data: Sequence[str], families: Sequence[Family], effort: Effort, quick: bool = False) -> dict[str, Any]:
    """Everything that is asked for, as one JSON object."""
    begin = time.perf_counter()
    result: dict[str, Any] = {
        "benchmark": "families",
        "quick": quick,
        "machine": machine() | {"torch_threads": torch.get_num_threads()},
        "versions": versions("tilewatch", "torch", "lightning", "numpy"),
        "effort": vars(effort),
        "data": {},
    }
    for name in data:
        problem = DATA[name](max(effort.most_train, effort.most_judged), quick)
        rows = []
        for family in families:
            rows.append(row_of(family, problem, effort))
            print(f"{name}: {_line(rows[-1])}", file=sys.stderr, flush=True)
        tiles = {"train": min(len(problem.train), effort.most_train), "held_out": len(_judging(problem, effort))}
        result["data"][name] = {"bands": list(problem.normalisation.bands), "tiles": tiles, "results": rows}
    return result | {"seconds": round(time.perf_counter() - begin)}


def row_of(family: Family, problem: Problem, effort: Effort) -> dict[str, Any]:
    """Train one family and judge it."""
    begin = time.perf_counter()
    model, settings = family.settings(effort, problem.condition)
    train = problem.train.rows(evenly(len(problem.train), effort.most_train))
    row: dict[str, Any] = {"family": family.name, "model": dict(family.model), "train": dict(family.train)}
    row |= {"condition": list(model.condition), "failed": None}
    busy = time.process_time()
    try:
        fitted = fit(train, None, problem.normalisation, model, settings, SEED)
    except Diverged as error:
        return row | {"failed": str(error), "seconds": round(time.perf_counter() - begin, 1)}
    busy = time.process_time() - busy
    row |= judged(fitted.network, _judging(problem, effort), problem, effort.draws)
    return row | {
        "elbo_train": round(fitted.history[-1].elbo_train, 4),
        "tiles_per_second": round(len(train) * len(fitted.history) / busy, 1),
        "parameters": sum(weight.numel() for weight in fitted.network.parameters()),
        "seconds": round(time.perf_counter() - begin, 1),
    }


@torch.inference_mode()
def judged(network: VAE, tiles: TileArrays, problem: Problem, draws: int) -> dict[str, Any]:
    """ELBO, importance-weighted bound, and units of the latent in use, of held-out tiles; nats per valid dimension."""
    network.eval()
    device = network.sigma.device
    elbo_draw, bound_draw = (Noise(SEED, part, device) for part in (ELBO_PART, BOUND_PART))
    sums: list[Sums] = []
    typical: list[tuple[np.ndarray, np.ndarray]] = []
    bound = 0.0
    for start in range(0, len(tiles), BATCH):
        rows = np.arange(start, min(start + BATCH, len(tiles)))
        x, valid, given = prepare(tiles, rows, problem.normalisation, device)
        sums += [batch_sums(network, x, valid, network(x, valid, elbo_draw, given)) for _ in range(draws)]
        bound += float(importance_bound(network, x, valid, bound_draw, draws, given).double().sum())
        passed = network(x, valid, None, given)
        typical.append((passed.mu.numpy(), torch.exp(0.5 * passed.logvar).numpy()))
    total = sums[0]
    for one in sums[1:]:
        total = total + one
    dimensions = float(total.pixels) * len(total.squared) / draws
    mu, sigma = (np.concatenate(part) for part in zip(*typical, strict=True))
    quantised = network.settings.posterior == "quantised"
    return {
        "elbo": round(elbo_per_dimension(total), 4),
        "kl": round(float(total.kl / total.tiles), 1),
        "bound": None if quantised else round(bound / dimensions, 4),
        "active": Codes.of(mu, len(mu)).used if quantised else int(Channels.of(mu, sigma).active.sum()),
        "of": network.settings.codes if quantised else mu.shape[1],
    }


def tables(result: Mapping[str, Any]) -> str:
    """A table for each kind of data, in Markdown."""
    parts = []
    for name, part in result["data"].items():
        tiles = part["tiles"]
        parts += [f"### {name}: {tiles['train']} tiles to learn from, {tiles['held_out']} held out", ""]
        parts += [
            "| family | held-out ELBO | IWAE bound | KL, nats a tile | active units | tiles/s | parameters |",
            "|---|---|---|---|---|---|---|",
        ]
        parts += [_line(row) for row in part["results"]] + [""]
    return "\n".join(parts)


def _line(row: Mapping[str, Any]) -> str:
    if row["failed"]:
        return f"| {row['family']} | {row['failed']} | | | | | |"
    bound = "–" if row["bound"] is None else f"{row['bound']:.3f}"
    return (
        f"| {row['family']} | {row['elbo']:.3f} | {bound} | {row['kl']:.0f} | {row['active']} of {row['of']} "
        f"| {row['tiles_per_second']:.0f} | {row['parameters']:,} |".replace(",", " ")
    )


def _judging(problem: Problem, effort: Effort) -> TileArrays:
    return problem.held_out.rows(evenly(len(problem.held_out), effort.most_judged))


if __name__ == "__main__":
    main()
