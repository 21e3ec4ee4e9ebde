"""What networks are told beside the tiles: as arrays, on the way to the networks, and what a detector makes of it."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from configs.schema import ModelSettings, ScoreSettings
from tests.vae.conftest import SMALL, bytes_of, make_detector, make_normalisation, make_past, make_tiles
from vae.conditions import UNKNOWN, Conditions
from vae.detector import Detector, NormalTiles
from vae.errors import DetectorError, ScoreError, ShapeError
from vae.networks import build
from vae.scores import SCORES, Evidence, find
from vae.scores.asked import check_scores
from vae.tiles import TileArrays

EVERYTHING = ("season", "place", "sun", "sensor", "reference")
PARTS = [field.name for field in fields(Conditions)]
ALONE = {"name": "reconstruction", "without_past": "reconstruction"}


def make_conditions(tiles: TileArrays, seed: int = 0) -> Conditions:
    """All that can be told of tiles on which nothing happened."""
    draw, count = np.random.default_rng([seed, 5]), len(tiles)
    past = make_past(tiles, seed)
    return Conditions(
        season=draw.random(count, np.float32),
        place=draw.integers(0, 3, count),
        sun=np.stack([draw.uniform(20, 65, count), draw.uniform(140, 180, count)], axis=1).astype(np.float32),
        sensor=draw.integers(0, 2, count),
        reference=past.values,
        reference_valid=past.valid,
    )


def told_detector(condition: tuple[str, ...] = EVERYTHING, members: int = 1, **score: object) -> Detector:
    """Of untrained networks that are told something: which weights they have does not matter here."""
    model = ModelSettings(**SMALL, members=members, condition=condition)
    networks = tuple(build(3, model, seed) for seed in range(members))
    for network in networks:
        network.sigma.fill_(0.3)
    detector = Detector(
        networks=networks,
        normalisation=make_normalisation(),
        model=model,
        score_settings=ScoreSettings(**{"also": ()} | ALONE | score),
        tile_size=16,
        visible=(2, 1, 0),
        places=("a", "b", "c") if "place" in condition else (),
        sensors=("S2A", "S2B") if "sensor" in condition else (),
    )
    return detector.with_constants(normal_told)


def normal_told() -> list[NormalTiles]:
    tiles = make_tiles(80, seed=7)
    return [NormalTiles(tiles.values, tiles.valid, make_past(tiles, 7), make_conditions(tiles, 7))]


# As arrays


def test_of_what_is_not_known_there_is_what_is_asked_for_and_it_is_marked() -> None:
    told = Conditions.unknown(4, EVERYTHING, bands=3, side=8)
    told.check(4, 3, 8)
    assert np.isnan(told.season).all()
    assert np.isnan(told.sun).all()
    assert told.place.tolist() == told.sensor.tolist() == [UNKNOWN] * 4
    assert not told.reference_valid.any()
    some = Conditions.unknown(4, ("place", "reference"), bands=3, side=8)
    assert {name for name in PARTS if getattr(some, name) is not None} == {"place", "reference", "reference_valid"}
    assert Conditions.unknown(4, (), bands=3, side=8) == Conditions()


def test_arrays_can_be_made_elsewhere(tmp_path: Path) -> None:
    def mapped(name, shape, kind):
        return np.lib.format.open_memmap(tmp_path / f"{name}.npy", "w+", kind, shape)

    told = Conditions.unknown(4, EVERYTHING, 3, 8, mapped)
    assert all(isinstance(getattr(told, name), np.memmap) for name in PARTS)
    np.testing.assert_array_equal(told.place, UNKNOWN)


def test_rows_are_cut_out_put_back_and_joined_again() -> None:
    told = make_conditions(make_tiles(6))
    rows = np.array([4, 1])
    parts = [told.rows(slice(0, 2)), told.rows(slice(2, 6))]
    kept = Conditions.unknown(6, EVERYTHING, 3, 16)
    kept.put(rows, told.rows(rows))
    joined = Conditions.joined(parts)
    for name in PARTS:
        np.testing.assert_array_equal(getattr(joined, name), getattr(told, name))
        np.testing.assert_array_equal(getattr(kept, name)[rows], getattr(told, name)[rows])
    assert kept.place[[0, 2, 3, 5]].tolist() == [UNKNOWN] * 4


@pytest.mark.parametrize("name", PARTS)
def test_conditions_that_do_not_fit_the_tiles_are_refused(name: str) -> None:
    detector, tiles = told_detector(), make_tiles(5)
    told = make_conditions(tiles)
    wrong = replace(told, **{name: getattr(told, name)[:4]})
    with pytest.raises(ShapeError, match=rf"must have {name} \(5.*got \(4"):
        detector.score(tiles.values, tiles.valid, conditions=wrong)


def test_a_reference_comes_with_its_mask() -> None:
    tiles = make_tiles(2)
    with pytest.raises(ShapeError, match="go together"):
        replace(make_conditions(tiles), reference_valid=None).check(2, 3, 16)


# In scoring


@pytest.mark.parametrize("name", [name for name in PARTS if name != "reference_valid"])
def test_each_thing_that_a_network_is_told_counts(name: str) -> None:
    detector, tiles = told_detector(), make_tiles(5)
    told, other = make_conditions(tiles), make_conditions(tiles, seed=3)
    part = getattr(told, name).copy()
    part[2] = (part[2] + 1) % 2 if name in ("place", "sensor") else getattr(other, name)[2]
    changed = replace(told, **{name: part})
    one, two = (detector.score(tiles.values, tiles.valid, conditions=each).score for each in (told, changed))
    assert (one != two).tolist() == [False, False, True, False, False]


def test_a_tile_gets_the_same_bytes_whatever_it_comes_with() -> None:
    detector = told_detector(members=2, also=("conditional_expectation", "kl"))
    tiles = make_tiles(133, seed=4, masked=0.3)
    told, past = make_conditions(tiles), make_past(tiles)

    def score(rows):
        return detector.score(tiles.values[rows], tiles.valid[rows], past=past.rows(rows), conditions=told.rows(rows))

    every = score(slice(None))
    order = np.random.default_rng(0).permutation(133)
    assert bytes_of(score(order)) == bytes_of(every, order)
    for rows in (slice(0, 1), slice(64, 65), slice(132, 133), slice(-65, None)):
        assert bytes_of(score(rows)) == bytes_of(every, rows)


@pytest.mark.parametrize("filling", [-5.0, 1e30, np.inf, np.nan])
def test_what_lies_under_the_masks_of_the_reference_changes_nothing(filling: float) -> None:
    detector, tiles = told_detector(also=("conditional_expectation",)), make_tiles(6, seed=4)
    told = make_conditions(tiles)
    filled = replace(told, reference=np.where(told.reference_valid[:, None], told.reference, np.float32(filling)))
    one, two = (detector.score(tiles.values, tiles.valid, conditions=each) for each in (told, filled))
    assert bytes_of(one) == bytes_of(two)
    everywhere = replace(filled, reference_valid=np.ones_like(told.reference_valid))
    if not np.isfinite(filling):  # what is no number is masked, whatever the mask says
        assert bytes_of(detector.score(tiles.values, tiles.valid, conditions=everywhere)) == bytes_of(one)


def test_a_tile_of_which_nothing_is_known_gets_a_score() -> None:
    detector, tiles = told_detector(also=("conditional_expectation",)), make_tiles(5)
    nothing = detector.score(tiles.values, tiles.valid)
    unknown = detector.score(tiles.values, tiles.valid, conditions=Conditions.unknown(5, EVERYTHING, 3, 16))
    assert np.isfinite(nothing.score).all()
    assert np.isfinite(nothing.components["conditional_expectation"]).all()
    assert bytes_of(nothing) == bytes_of(unknown)


@pytest.mark.parametrize("name", EVERYTHING)
def test_what_is_not_given_is_unknown_and_so_is_a_place_or_sensor_in_no_list(name: str) -> None:
    detector, tiles = told_detector(), make_tiles(5)
    told, unknown = make_conditions(tiles), Conditions.unknown(5, EVERYTHING, 3, 16)
    parts = [part for part in PARTS if part.removesuffix("_valid") == name]
    without = replace(told, **dict.fromkeys(parts))
    marked = replace(told, **{part: getattr(unknown, part) for part in parts})
    scored = [detector.score(tiles.values, tiles.valid, conditions=each) for each in (without, marked, told)]
    assert bytes_of(scored[0]) == bytes_of(scored[1]) != bytes_of(scored[2])
    if name in ("place", "sensor"):
        beyond = replace(told, **{name: np.full(5, 5000)})
        assert bytes_of(detector.score(tiles.values, tiles.valid, conditions=beyond)) == bytes_of(scored[0])


def test_what_a_network_is_not_told_changes_nothing() -> None:
    tiles = make_tiles(5)
    told = make_conditions(tiles)
    for detector in (told_detector(("season",)), make_detector(**ALONE)):
        seasons = Conditions(season=told.season) if detector.model.condition else None
        one, two = (detector.score(tiles.values, tiles.valid, conditions=each) for each in (told, seasons))
        assert bytes_of(one) == bytes_of(two)
    assert not {"places", "sensors"} & make_detector().scoring_description().keys()


def test_reconstructions_and_latents_depend_on_what_is_told() -> None:
    detector, tiles = told_detector(), make_tiles(3)
    told = make_conditions(tiles)
    for look in (detector.expected, detector.encode):
        assert not np.allclose(look(tiles.values, tiles.valid, told), look(tiles.values, tiles.valid))


def test_lists_of_places_and_sensors_are_saved_and_decide_the_score(tmp_path: Path) -> None:
    detector, tiles = told_detector(), make_tiles(5)
    told = make_conditions(tiles)
    detector.save(tmp_path)
    loaded = Detector.load(tmp_path, "cpu")
    assert (loaded.places, loaded.sensors) == (("a", "b", "c"), ("S2A", "S2B"))
    assert loaded.scoring_identity == detector.scoring_identity
    one, two = (each.score(tiles.values, tiles.valid, conditions=told) for each in (detector, loaded))
    assert bytes_of(one) == bytes_of(two)
    for changed in (replace(detector, places=("b", "a", "c")), replace(detector, sensors=("S2B", "S2A"))):
        assert changed.scoring_identity != detector.scoring_identity


def test_a_detector_that_is_told_the_reference_looks_back() -> None:
    assert told_detector(("reference",)).looks_back
    assert not told_detector(("season", "place")).looks_back


@pytest.mark.parametrize("name", sorted(SCORES))
def test_every_score_can_be_worked_out_of_networks_that_are_told_something(name: str) -> None:
    detector, tiles = told_detector(name=name), make_tiles(3)
    past, told = make_past(tiles, witness=False), make_conditions(tiles)
    scored = detector.score(tiles.values, tiles.valid, past=past, conditions=told)
    assert np.isfinite(scored.components[name]).all()
    assert scored.kind.tolist() == [name] * 3


# What the condition alone lets expect


def evidence_of(detector: Detector, tiles: TileArrays, told: Conditions) -> Evidence:
    """As the detector shows it to a score."""
    with torch.inference_mode():
        rows = np.arange(len(tiles))
        ((_, (evidence,)),) = detector._evidence(tiles.values, tiles.valid, rows, conditions=told)
        constants = detector.constants["conditional_expectation"][0]
    return replace(evidence, constants=constants)


@pytest.fixture(scope="module")
def expecting() -> Detector:
    return told_detector(name="conditional_expectation")


def test_on_normal_tiles_it_is_one_on_average_in_each_band(expecting: Detector) -> None:
    (normal,) = normal_told()
    tiles = TileArrays(normal.values[:64], normal.valid[:64])
    found = SCORES["conditional_expectation"].compute(evidence_of(expecting, tiles, normal.conditions.rows(slice(64))))
    assert float(found[torch.from_numpy(tiles.valid)].mean()) == pytest.approx(1, rel=0.1)


def test_it_is_the_squared_distance_from_the_decoded_mean_of_the_prior(expecting: Detector) -> None:
    tiles = make_tiles(4, masked=0)
    evidence = evidence_of(expecting, tiles, make_conditions(tiles))
    network = expecting.networks[0]
    z = torch.zeros(network.latent_shape(64, 16))
    decoded = network.likelihood.expected(network.decode((z,), 16, evidence.given))
    wanted = ((evidence.x - decoded) / evidence.constants["scale"].view(1, -1, 1, 1)).square().mean(dim=1)
    torch.testing.assert_close(find("conditional_expectation").compute(evidence), wanted)


def test_of_a_tile_it_asks_each_pixel_alone_so_that_no_latent_can_explain_it(expecting: Detector) -> None:
    tiles = make_tiles(2, masked=0)
    told, struck = make_conditions(tiles), tiles.values.copy()
    struck[:, :, 3:6, 3:6] *= 3
    before, after = (expecting.score(values, tiles.valid, conditions=told).heatmap for values in (tiles.values, struck))
    elsewhere = np.ones((16, 16), bool)
    elsewhere[3:6, 3:6] = False
    np.testing.assert_array_equal(before[:, elsewhere], after[:, elsewhere])
    assert (before[:, 3:6, 3:6] != after[:, 3:6, 3:6]).all()


def test_its_share_of_a_band_is_that_of_what_was_not_expected_in_it(expecting: Detector) -> None:
    tiles = make_tiles(2, masked=0)
    told, struck = make_conditions(tiles), tiles.values.copy()
    struck[:, 1] *= 20
    calm, odd = (expecting.score(values, tiles.valid, conditions=told).bands for values in (tiles.values, struck))
    assert (odd[:, 1] > calm[:, 1]).all()
    np.testing.assert_allclose(odd.sum(axis=1), 1)


@pytest.mark.parametrize("condition", [(), ("season",), ("season", "sun", "sensor")])
def test_it_is_refused_where_the_network_is_told_neither_place_nor_reference(condition: tuple[str, ...]) -> None:
    score = ScoreSettings(name="conditional_expectation", without_past="reconstruction")
    words = "told nothing" if not condition else f"told only {', '.join(condition)}"
    with pytest.raises(DetectorError, match=rf"{words}: add reference or place to model\.condition"):
        check_scores(score, ModelSettings(condition=condition))
    for enough in (("place",), ("season", "reference")):
        check_scores(score, ModelSettings(condition=enough))


def test_for_tiles_without_a_past_it_must_know_the_place() -> None:
    score = ScoreSettings(name="change", without_past="conditional_expectation")
    with pytest.raises(DetectorError, match=r"unless model\.condition names place"):
        check_scores(score, ModelSettings(condition=("reference",)))
    check_scores(score, ModelSettings(condition=("reference", "place")))


def test_a_tile_whose_reference_shows_too_little_is_judged_as_one_without_a_past() -> None:
    detector, tiles = told_detector(("reference",), name="conditional_expectation"), make_tiles(3, masked=0)
    told = make_conditions(tiles)
    seen = np.ones_like(told.reference_valid)
    seen[1], seen[2, 4:] = False, False  # nothing, and a quarter
    scored = detector.score(tiles.values, tiles.valid, conditions=replace(told, reference_valid=seen))
    alone = detector.score_settings.without_past
    assert scored.kind.tolist() == ["conditional_expectation", alone, alone]
    assert detector.score(tiles.values, tiles.valid).kind.tolist() == [alone] * 3
    placed = told_detector(("reference", "place"), name="conditional_expectation")
    assert set(placed.score(tiles.values, tiles.valid).kind) == {"conditional_expectation"}


def test_it_is_refused_of_a_quantised_latent_whose_prior_has_no_mean() -> None:
    model = ModelSettings(condition=("place",), posterior="quantised")
    with pytest.raises(DetectorError, match=r"have none: use another model\.posterior"):
        check_scores(ScoreSettings(without_past="conditional_expectation"), model)


def test_evidence_of_a_network_that_is_told_nothing_says_so() -> None:
    detector, tiles = make_detector(), make_tiles(2)
    x, valid = detector.normalised(tiles.values, tiles.valid)
    with pytest.raises(ScoreError, match="told nothing"):
        find("conditional_expectation").compute(Evidence(x, valid, detector.networks[0]))
