"""The benchmark of the families: each differs in what its row says, and is judged by what it never saw."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch

from benchmarks import families
from benchmarks.families import FAMILIES, FULL, Effort, judged, row_of, run, tables
from benchmarks.problems.held_out import Problem
from tests.vae.conftest import make_normalisation, make_tiles
from vae.conditions import Conditions
from vae.networks import build
from vae.objectives import batch_sums, elbo_per_dimension
from vae.tiles import TileArrays
from vae.training.batches import prepare

LITTLE = Effort(1, 16, 8, 2, 4)


def told(count: int, seed: int) -> TileArrays:
    tiles = make_tiles(count, seed=seed)
    season = np.linspace(0, 0.9, count, dtype=np.float32)
    return TileArrays(
        tiles.values, tiles.valid, Conditions(season, reference=tiles.values, reference_valid=tiles.valid)
    )


@pytest.fixture(scope="module")
def problem() -> Problem:
    return Problem("made", told(20, 1), told(10, 2), make_normalisation(), ("season", "reference"))


def test_every_value_of_every_choice_is_a_family() -> None:
    made = [family.settings(FULL, ("reference",)) for family in FAMILIES]
    for name in ("network", "latent", "posterior", "likelihood"):
        known = families.get_args(type(made[0][0]).model_fields[name].annotation)
        assert {getattr(model, name) for model, _ in made} == set(known)
    assert {train.objective for _, train in made} == {"elbo", "iwae"}
    assert len({family.name for family in FAMILIES}) == len(FAMILIES) == 14
    default = made[0][0].model_dump()
    for family, (model, _) in zip(FAMILIES[1:], made[1:], strict=True):
        differs = {name for name, value in model.model_dump().items() if value != default[name]}
        assert differs == {*family.model, *(["condition"] if family.told else [])}


def test_all_families_run_and_end_in_one_table(problem: Problem, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(families.DATA, "oscd", lambda most, quick: problem)

    result = json.loads(json.dumps(run(["oscd"], FAMILIES, LITTLE)))

    rows = result["data"]["oscd"]["results"]
    assert result["data"]["oscd"]["tiles"] == {"train": 16, "held_out": 8}
    assert [row["family"] for row in rows] == [family.name for family in FAMILIES]
    for row in rows:
        assert row["failed"] is None
        assert math.isfinite(row["elbo"])
        assert row["tiles_per_second"] > 0
        assert 0 <= row["active"] <= row["of"]
        assert row["bound"] is None or row["bound"] > row["elbo"] - 0.02
    assert {row["parameters"] for row in rows if row["family"] in ("default", "free bits")} == {rows[0]["parameters"]}
    assert rows[-1]["condition"] == ["season", "reference"]
    lines = tables(result).splitlines()
    assert lines[0] == "### oscd: 16 tiles to learn from, 8 held out"
    assert sum(line.startswith("| ") for line in lines) == 1 + len(FAMILIES)
    assert {line.count("|") for line in lines if line.startswith("|")} == {8}


def test_a_family_that_diverges_is_a_row_that_says_so(problem: Problem) -> None:
    row = row_of(families.Family("wild", train={"learning_rate": 1e18}), problem, Effort(3, 16, 8, 2, 4))
    assert "diverged" in row["failed"]
    assert "diverged" in tables({"data": {"made": {"tiles": {"train": 1, "held_out": 1}, "results": [row]}}})


def test_the_bounds_are_those_of_the_tiles_that_are_held_out(problem: Problem) -> None:
    model, _ = FAMILIES[0].settings(LITTLE, ())
    network = build(3, model, 0)
    network.sigma.fill_(0.3)
    found, again = (judged(network, problem.held_out, problem, 30) for _ in range(2))
    x, valid, _ = prepare(problem.held_out, np.arange(10), problem.normalisation, torch.device("cpu"))
    with torch.inference_mode():
        elbo = elbo_per_dimension(batch_sums(network, x, valid, network(x, valid, torch.randn)))
    assert found == again
    assert found["elbo"] == pytest.approx(elbo, abs=0.02)
    assert found["bound"] > found["elbo"]
    other = judged(network, problem.train, problem, 30)
    assert other["elbo"] != found["elbo"]
