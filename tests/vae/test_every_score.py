"""What holds of every score in the registry, whichever they are. Of networks that are told more: test_conditions.py."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.vae.conftest import PLAIN, bytes_of, make_detector, make_past, make_tiles, normal_batches
from vae.detector import Detector
from vae.errors import ScoreError
from vae.scores import SCORES, Evidence, Past, SceneStats

NAMES = PLAIN


@pytest.fixture(scope="module")
def tiles():
    return make_tiles(133, seed=4, masked=0.4)


@pytest.fixture(scope="module")
def scored(all_scores, tiles):
    return all_scores.score(tiles.values, tiles.valid, past=make_past(tiles), scene=stats_of(all_scores, tiles))


def stats_of(detector: Detector, tiles) -> SceneStats:
    return detector.scene_stats(tiles.values.transpose(0, 2, 3, 1)[tiles.valid])


def evidence_of(name: str, *, network=True, past=True, learned=True, scene=True, visible=True) -> Evidence:
    """Five tiles as a score sees them; what is not given is missing."""
    detector = make_detector(name="difference", without_past="rx", also=(name,), learn=False)
    constants = detector.with_constants(normal_batches()).constants.get(name, ({},))[0] if learned else {}
    tiles = make_tiles(5, seed=2, masked=0.3)
    x, valid = detector.normalised(tiles.values, tiles.valid)
    made = make_past(tiles)
    images = [detector.normalised(values, made.valid) for values in (made.values, made.witness, made.witness_expected)]
    (expected, known), (witness, seen), (before, _) = images
    return Evidence(
        x,
        valid,
        detector.networks[0] if network else None,
        constants=constants,
        past=Past(expected, known, witness, before, seen) if past else None,
        scene=stats_of(detector, tiles) if scene else None,
        visible=detector.visible if visible else (),
    )


def values_of(name: str, evidence: Evidence) -> torch.Tensor:
    found = SCORES[name].compute(evidence)
    return sum(found.values()) if isinstance(found, dict) else found


@pytest.mark.parametrize("name", NAMES)
def test_it_gives_a_finite_number_a_tile_or_a_pixel_and_never_less_than_its_least(name):
    evidence = evidence_of(name)
    values = values_of(name, evidence)
    assert values.shape in {(5,), (5, 16, 16)}
    assert torch.isfinite(values).all()
    assert np.isfinite(SCORES[name].least(evidence))
    seen = values if values.ndim == 1 else values[evidence.valid]
    assert seen.min() >= SCORES[name].least(evidence) - 1e-5
    assert not values.requires_grad


@pytest.mark.parametrize("name", NAMES)
def test_it_needs_what_it_declares_and_nothing_else(name):
    needs = SCORES[name].needs
    for missing in ("network", "past", "visible"):
        evidence = evidence_of(name, **{missing: False})
        if missing in needs:
            with pytest.raises(ScoreError, match=missing):
                SCORES[name].compute(evidence)
        else:
            assert torch.isfinite(values_of(name, evidence)).all()
    without_scene = evidence_of(name, scene=False)
    assert torch.isfinite(values_of(name, without_scene)).all()  # normal tiles stand in for the scene
    same = torch.equal(values_of(name, evidence_of(name)), values_of(name, without_scene))
    assert same == ("scene" not in needs)


@pytest.mark.parametrize("name", NAMES)
def test_what_it_has_not_learned_is_said(name):
    evidence = evidence_of(name, learned=False, scene=False)
    if SCORES[name].learn is None:
        assert torch.isfinite(values_of(name, evidence)).all()
    else:
        with pytest.raises(ScoreError, match="has not learned"):
            SCORES[name].compute(evidence)


def test_what_lies_under_masks_changes_no_score(all_scores):
    tiles = make_tiles(6, seed=4, masked=0.3)
    past = make_past(tiles, masked=0.2)
    reference = bytes_of(all_scores.score(tiles.values, tiles.valid, past=past))
    for filling in (-5.0, 1e30, np.inf):
        values, witness, expected, other = (
            np.where(valid[:, None], image, np.float32(filling))
            for image, valid in (
                (tiles.values, tiles.valid),
                (past.witness, past.witness_valid),
                (past.values, past.valid),
                (past.witness_expected, past.witness_valid),
            )
        )
        filled = replace(past, values=expected, witness=witness, witness_expected=other)
        assert bytes_of(all_scores.score(values, tiles.valid, past=filled)) == reference
    # NaN where the mask says valid is masked too.
    every = np.ones_like(tiles.valid)
    unmasked = replace(past, valid=every, witness_valid=every)
    assert bytes_of(all_scores.score(tiles.values, every, past=unmasked)) == reference


@pytest.mark.parametrize("threads", [1, 2])
def test_a_tile_gets_the_same_bytes_whatever_it_comes_with(threads, all_scores, tiles, scored):
    past, scene = make_past(tiles), stats_of(all_scores, tiles)

    def score(rows):
        return all_scores.score(tiles.values[rows], tiles.valid[rows], past=past.rows(rows), scene=scene)

    torch.set_num_threads(threads)
    try:
        order = np.random.default_rng(0).permutation(133)
        assert bytes_of(score(order)) == bytes_of(scored, order)
        for rows in (slice(0, 1), slice(64, 65), slice(132, 133), slice(-2, None), slice(-65, None)):
            assert bytes_of(score(rows)) == bytes_of(scored, rows)
    finally:
        torch.set_num_threads(1)


@pytest.fixture(scope="module")
def ensemble_and_its_members(all_scores):
    tiles = make_tiles(5, seed=2)
    past = make_past(tiles)
    alone = [
        replace(
            all_scores,
            networks=(network,),
            model=all_scores.model.model_copy(update={"members": 1}),
            constants={key: parts[number : number + 1] or parts for key, parts in all_scores.constants.items()},
        )
        for number, network in enumerate(all_scores.networks)
    ]
    by_mean = [
        replace(one, score_settings=one.score_settings.model_copy(update={"pool": "mean"}))
        for one in (all_scores, *alone)
    ]
    return [one.score(tiles.values, tiles.valid, past=past) for one in by_mean]


@pytest.mark.parametrize("name", NAMES)
def test_of_an_ensemble_it_is_the_mean_over_the_networks(name, ensemble_and_its_members):
    together, *apart = (scored.components[name] for scored in ensemble_and_its_members)
    np.testing.assert_allclose(together, np.mean(apart, axis=0), rtol=1e-4)
    if "network" in SCORES[name].needs:
        assert not np.allclose(*apart, rtol=1e-6)


@pytest.fixture(scope="module")
def calm_and_struck(all_scores):
    tiles = make_tiles(40, seed=11, masked=0.1)
    past = make_past(tiles, witness=False)
    values = tiles.values.copy()
    roofs = np.where(np.indices((10, 10)).sum(axis=0) % 4 < 2, 5.0, 2.0)
    values[:, :, 3:13, 3:13] *= roofs.astype(np.float32)  # built up: bright, with edges
    values[:, 0, 3:13, 3:13] *= 1.5
    return [all_scores.score(image, tiles.valid, past=past) for image in (tiles.values, values)]


@pytest.mark.parametrize("name", NAMES)
def test_it_rises_where_something_obvious_happened(name, calm_and_struck):
    calm, struck = (scored.components[name] for scored in calm_and_struck)
    known = np.isfinite(calm)
    assert known.sum() >= 35
    assert np.mean(struck[known] > calm[known]) >= 0.9
    assert np.median(struck[known]) > np.quantile(calm[known], 0.9)


def test_a_score_of_change_has_no_number_where_nothing_of_the_past_is_known(all_scores):
    tiles = make_tiles(3, masked=0)
    past = make_past(tiles, masked=0)
    past.valid[1] = False
    scored = all_scores.score(tiles.values, tiles.valid, past=past)
    for name in NAMES:
        unknown = [False, "past" in SCORES[name].needs, False]
        np.testing.assert_array_equal(np.isnan(scored.components[name]), unknown, err_msg=name)
    assert scored.kind.tolist() == ["change", "novelty", "change"]


def test_all_that_is_learned_is_learned_again_to_the_byte_and_is_ordinary(all_scores):
    again = all_scores.with_constants(normal_batches())
    assert again.scoring_identity == all_scores.scoring_identity
    assert set(again.constants) == {name for name in NAMES if SCORES[name].learn}
    for name, members in again.constants.items():
        assert len(members) == (2 if "network" in SCORES[name].needs else 1)
        for part in (part for member in members for part in member.values()):
            assert not part.is_inference()
            assert torch.isfinite(part).all()
