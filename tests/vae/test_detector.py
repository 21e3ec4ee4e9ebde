"""What a detector says of tiles: compared with their past, or looked at alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from configs.schema import ModelSettings, ScoreSettings
from tests.vae.conftest import SMALL, MadePast, make_detector, make_normalisation, make_past, make_tiles, normal_batches
from tests.vae.detectors import calibrated, some_past
from vae.detector import Detector, NormalTiles
from vae.drift import statistics
from vae.drift_profile import LATENT_BINS, Profile
from vae.errors import DetectorError, ScoreError, ShapeError
from vae.scores import SCORES
from vae.scores.asked import check_scores
from vae.tile_scores import TileScores

NO_NETWORK = {"name": "aligned_difference", "without_past": "rx", "also": ("difference",)}


@pytest.fixture(scope="module")
def detector() -> Detector:
    return make_detector(also=("reconstruction", "kl"))


@pytest.fixture(scope="module")
def ready() -> Detector:
    return calibrated()


def test_tiles_are_compared_with_their_past_where_it_is_known_and_looked_at_alone_elsewhere(detector):
    tiles, past = some_past(4, [True, False, True, False])
    past.valid[2, :, 6:] = False  # 6 of 16 columns are known
    scored = detector.score(tiles.values, tiles.valid, past=past)
    assert scored.kind.tolist() == ["change", "novelty", "novelty", "novelty"]
    for index, kind in enumerate(scored.kind):
        assert scored.score[index] == scored.components[kind][index]
    assert np.isnan(scored.components["change"]).tolist() == [False, True, False, True]
    alone = detector.score(tiles.values, tiles.valid)
    assert set(alone.kind) == {"novelty"}
    np.testing.assert_array_equal(alone.components["novelty"], scored.components["novelty"])
    assert np.isnan(alone.components["change"]).all()
    assert detector.looks_back
    assert not make_detector(name="kl", without_past="kl").looks_back


def test_a_past_without_a_single_pixel_is_none_even_if_none_is_asked_for():
    detector = make_detector(min_past=0.0)
    tiles, past = some_past(2, [True, False])
    past.values[0][:, past.valid[0]] = np.nan  # it says that it is known, and is not
    past.values[0][:, 3, 3], past.valid[0, 3, 3] = 0.1, True
    tiles.values[0, :, 3, 3], tiles.valid[0, 3, 3] = 0.1, True
    scored = detector.score(tiles.values, tiles.valid, past=past)
    assert scored.kind.tolist() == ["change", "novelty"]
    assert np.isfinite(scored.score).all()
    assert np.isfinite(scored.heatmap).sum(axis=(1, 2)).tolist() == [1, tiles.valid[1].sum()]


def test_the_score_is_pooled_over_the_pixels_that_are_compared(detector):
    tiles, past = some_past(10, [True] * 10)
    scored = detector.score(tiles.values, tiles.valid, past=past)
    assert set(scored.kind) == {"change"}
    np.testing.assert_array_equal(np.isnan(scored.heatmap), ~(tiles.valid & past.valid))
    pooled = [np.quantile(heat[~np.isnan(heat)].astype(float), 0.9) for heat in scored.heatmap]
    np.testing.assert_allclose(scored.score, pooled, rtol=1e-6)
    alone = detector.score(tiles.values, tiles.valid)
    np.testing.assert_array_equal(np.isnan(alone.heatmap), ~tiles.valid)


@pytest.mark.parametrize("pool", ["mean", "p90"])
@pytest.mark.parametrize("name", ["change", "novelty", "decoded_and_pixel", "kl", "latent_l2", "rx", "difference"])
def test_shares_of_parts_and_of_bands_sum_to_one(name, pool):
    # also of flat tiles, and where hardly anything differs
    without = "novelty" if "past" in SCORES[name].needs else name
    detector = make_detector(name=name, without_past=without, pool=pool)
    tiles, past = some_past(12, [True] * 12)
    tiles.values[3:6] = 0.1
    past.values[3:6] = 0.2
    tiles.values[9:] = past.values[9:] * np.float32(1.0001)  # next to nothing
    tiles.valid[9:] = past.valid[9:]
    scored = detector.score(tiles.values, tiles.valid, past=replace(past, witness=None))
    np.testing.assert_allclose(scored.bands.sum(axis=1), 1, rtol=1e-9)
    assert (scored.bands >= 0).all()
    mine = np.stack([share for share in scored.parts.values() if np.isfinite(share).all()])
    np.testing.assert_allclose(mine.sum(axis=0), 1, rtol=1e-9)
    assert ((mine >= 0) & (mine <= 1)).all()


def test_the_band_that_changed_has_most_of_the_share():
    tiles, past = some_past(6, [True] * 6)
    tiles.values[:, 1] *= 3
    settings = ({}, {"members": 0, **NO_NETWORK})
    for detector in [make_detector(**one) for one in settings]:
        scored = detector.score(tiles.values, tiles.valid, past=replace(past, witness=None))
        assert (scored.bands.argmax(axis=1) == 1).all()
    tiles.values[:, 1] *= 3
    alone = detector.score(tiles.values, tiles.valid)
    assert set(alone.kind) == {"rx"}
    assert (alone.bands[:, 1] > 0.5).all()


def test_shares_are_of_the_pixels_where_the_score_is_highest():
    tiles = make_tiles(6, masked=0)
    past = make_past(tiles, masked=0, witness=False)
    tiles.values[:, 0] *= 1.25  # everywhere a little
    tiles.values[:, 1, 4:11, 4:11] *= 3  # an event in a fifth of the tile
    scored = make_detector().score(tiles.values, tiles.valid, past=past)
    assert (scored.bands[:, 1] > 0.6).all()


def test_a_tile_that_is_just_as_expected_has_a_score_of_zero_and_no_shares(detector):
    tiles = make_tiles(2, masked=0)
    scored = detector.score(tiles.values, tiles.valid, past=MadePast(tiles.values, tiles.valid))
    assert scored.kind.tolist() == ["change", "change"]
    assert scored.score.tolist() == [0, 0]
    assert scored.bands.sum() == scored.parts["texture"].sum() == scored.parts["bands"].sum() == 0


def test_a_tile_with_too_little_left_says_why_it_has_no_score(detector):
    tiles = make_tiles(4, masked=0)
    valid = tiles.valid.copy()
    valid[1, :, 2:] = False  # 2 of 16 columns
    valid[2] = False
    valid[3, :, 8:] = False  # half of the tile, but all there is of it at the edge
    scored = detector.score(tiles.values, valid, area=np.array([256, 256, 256, 128]))
    assert scored.reason == [None, "12 % of the tile is usable, 50 % needed", "nothing of the tile is usable", None]
    np.testing.assert_allclose(scored.valid_fraction, [1, 0.125, 0, 1])
    unscored = np.array([False, True, True, False])
    parts = scored.score, scored.components["kl"], scored.latent[:, 0], scored.heatmap[:, 0, 0], scored.bands[:, 0]
    for array in (*parts, scored.parts["spectrum"]):
        np.testing.assert_array_equal(np.isnan(array), unscored)
    assert scored.kind.tolist() == ["novelty", "", "", "novelty"]


@pytest.mark.parametrize("area", [np.array([256]), np.array([256, 0]), np.array([[256, 256]])])
def test_areas_that_are_not_one_number_a_tile_are_refused(detector, area):
    tiles = make_tiles(2)
    with pytest.raises(ShapeError, match="area must give the pixels of each of the 2 tiles"):
        detector.score(tiles.values, tiles.valid, area=area)


def test_no_tiles_give_no_scores(detector):
    tiles = make_tiles(2)
    past = make_past(tiles).rows(slice(0, 0))
    scored = detector.score(tiles.values[:0], tiles.valid[:0], past=past)
    assert scored.score.shape == (0,)
    assert scored.heatmap.shape == (0, 16, 16)
    assert scored.reason == []
    judged = detector.judge(scored.kind, scored.score)
    assert judged.night is None
    assert judged.alarm is None
    assert detector.histograms(tiles.values[:0], tiles.valid[:0], scored).tiles == 0


def test_arrays_that_do_not_fit_are_refused(detector):
    tiles, other = make_tiles(2), make_tiles(2, bands=4)
    with pytest.raises(ShapeError, match=r"\(N, 3, 16, 16\) of bands B00, B01, B02.*\(2, 4, 16, 16\)"):
        detector.score(other.values, other.valid)
    past = make_past(tiles)
    for part in vars(past):
        wrong = replace(past, **{part: getattr(past, part)[:1]})
        with pytest.raises(ShapeError, match=rf"must have {part} \(2, .*got \(1, "):
            detector.score(tiles.values, tiles.valid, past=wrong)


def test_a_score_that_had_no_past_to_learn_from_is_not_used():
    detector = make_detector(learn=False).with_constants(normal_batches(past=False))
    assert set(detector.constants) == {"novelty"}
    tiles, past = some_past(3, [True] * 3)
    scored = detector.score(tiles.values, tiles.valid, past=past)
    assert scored.kind.tolist() == ["novelty"] * 3
    assert np.isfinite(scored.score).all()
    assert np.isnan(scored.components["change"]).all()


def nothing_known(count: int):
    def batches():
        tiles = make_tiles(count, seed=1)
        past = make_past(tiles)
        past.valid[:] = False
        yield NormalTiles(tiles.values[:0], tiles.valid[:0], past.rows(slice(0, 0)))
        yield NormalTiles(tiles.values, np.zeros_like(tiles.valid))
        yield NormalTiles(tiles.values, tiles.valid, past)

    return batches


def test_empty_batches_and_pasts_that_are_known_nowhere_teach_nothing():
    detector = make_detector(learn=False, also=("latent_knn", "decoded_difference"))
    learned = detector.with_constants(nothing_known(5))
    assert set(learned.constants) == {"novelty", "latent_knn"}
    assert learned.constants["latent_knn"][0]["memory"].shape == (5, 4)
    assert detector.with_constants(lambda: []).constants == {}


def test_a_detector_that_learned_nothing_says_so():
    tiles = make_tiles(2)
    detector = make_detector(learn=False, without_past="latent_knn")
    with pytest.raises(ScoreError, match="has not learned 'memory'"):
        detector.score(tiles.values, tiles.valid)


def test_more_tiles_at_a_time_than_a_batch_are_learned_from_alike():
    detector = make_detector(learn=False, name="aligned_difference", without_past="kl")
    tiles = make_tiles(80, seed=7)

    def at_once():
        yield NormalTiles(tiles.values, tiles.valid, make_past(tiles, 7))

    in_batches = detector.with_constants(normal_batches(80, seed=7))
    assert detector.with_constants(at_once).scoring_identity == in_batches.scoring_identity


def test_a_detector_without_any_network_scores_judges_and_profiles():
    detector = calibrated(members=0, **NO_NETWORK)
    tiles, past = some_past(70, [True] * 60 + [False] * 10)
    scored = detector.score(tiles.values, tiles.valid, past=past)
    assert set(scored.kind) == {"aligned_difference", "rx"}
    assert scored.latent.shape == (70, 0) == (70, detector.latent_size)
    judged = detector.judge(scored.kind, scored.score)
    assert set(judged.basis) == {"calibrated"}
    found = detector.histograms(tiles.values, tiles.valid, scored)
    assert found.tiles == 70
    assert found.latent.shape == (0, LATENT_BINS)
    assert max(statistics(found, found).values()) == 0
    assert "latent_shift" not in statistics(found, found)
    assert np.isnan(detector.sigma).all()
    for give in (detector.expected, detector.encode):
        with pytest.raises(ScoreError, match=r"model\.members"):
            give(tiles.values, tiles.valid)


def test_what_does_not_decide_a_score_changes_no_identity(ready):
    described = replace(ready, metadata={"reason": "new words"}, profile=Profile())
    assert described.identity == ready.identity


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"networks": ()}, "model.members is 1, and there are 0 networks"),
        ({"normalisation": make_normalisation(4)}, "made for 3 bands, the normalisation has 4"),
        ({"tile_size": 18}, "tiles of 18 pixels cannot be halved"),
        ({"networks": (), "model": ModelSettings(members=0)}, "novelty needs a network, and model.members is 0"),
        ({"tile_size": 0}, "multiple of 4"),
        ({"visible": (0, 1)}, "three channels"),
        ({"visible": (0, 1, 3)}, "three channels, red, green and blue, of 3"),
        ({"score_settings": ScoreSettings(without_past="change")}, "change compares with it"),
    ],
)
def test_parts_that_do_not_belong_together_are_refused(changes, message):
    with pytest.raises(DetectorError, match=message):
        replace(make_detector(learn=False), **changes)


def test_texture_that_cannot_be_seen_is_refused_before_any_work():
    model = ModelSettings()
    check_scores(ScoreSettings(), model, visible=(2, 1, 0))
    check_scores(ScoreSettings(name="aligned_difference"), model, visible=())
    with pytest.raises(DetectorError, match=r"the score change looks at texture.*score\.visible"):
        check_scores(ScoreSettings(), model, visible=())


def test_tiles_of_a_side_that_textures_cannot_halve_are_refused():
    network_free = {"networks": (), "model": ModelSettings(members=0), "tile_size": 18}
    with pytest.raises(DetectorError, match="multiple of 4"):
        replace(make_detector(learn=False, members=0, **NO_NETWORK), **network_free)


def test_an_unknown_score_is_refused():
    with pytest.raises(ScoreError, match=r"'chnge'.*Did you mean 'change'"):
        make_detector(name="chnge", learn=False)


@pytest.mark.parametrize("side", [4, 8, 20, 32])
def test_tiles_of_many_sizes_are_scored(side):
    detector = make_detector(side=side)
    tiles = make_tiles(5, side=side, masked=0.1)
    scored = detector.score(tiles.values, tiles.valid, past=make_past(tiles))
    has_score = [why is None for why in scored.reason]
    assert np.isfinite(scored.score).tolist() == has_score
    assert scored.heatmap.shape == (5, side, side)
    assert SMALL["depth"] == 2


def test_the_expectation_is_physical_and_filled_in(detector):
    tiles = make_tiles(3)
    expected = detector.expected(tiles.values, tiles.valid)
    assert expected.shape == tiles.values.shape
    assert (expected > 0).all()
    x = detector.normalisation.apply(torch.from_numpy(tiles.values), torch.from_numpy(tiles.valid))
    decoded = detector.normalisation.apply(torch.from_numpy(expected))
    by_hand = ((x - decoded) / 0.3).square().mean(1).numpy()
    plain = make_detector(name="reconstruction", without_past="reconstruction").score(tiles.values, tiles.valid)
    np.testing.assert_allclose(plain.heatmap[tiles.valid], by_hand[tiles.valid], atol=1e-3)
    encoded = detector.encode(tiles.values, tiles.valid)
    np.testing.assert_array_equal(
        encoded.reshape(3, -1), detector.score(tiles.values, tiles.valid, area=np.full(3, 256)).latent
    )
    assert detector.latent_size == 4 * 4 * 4


def test_a_scene_with_few_pixels_has_no_statistics(detector):
    pixels = make_tiles(2, masked=0).values.transpose(0, 2, 3, 1).reshape(-1, 3)
    assert detector.scene_stats(pixels[:199]) is None
    stats = detector.scene_stats(pixels)
    x = detector.normalisation.apply(torch.from_numpy(make_tiles(2, masked=0).values))
    torch.testing.assert_close(stats.mean, x.mean(dim=(0, 2, 3)))


def rows_of(scored: TileScores, rows) -> TileScores:
    """As if these tiles had been scored alone."""
    parts = {name: getattr(scored, name)[rows] for name in ("kind", "score", "bands", "heatmap", "latent")}
    components = {name: part[rows] for name, part in scored.components.items()}
    return replace(scored, **parts, components=components)


def test_histograms_of_parts_are_those_of_the_scene(detector):
    tiles = make_tiles(90, seed=4, masked=0.3)
    scored = detector.score(tiles.values, tiles.valid)
    whole = detector.histograms(tiles.values, tiles.valid, scored)
    has_score = np.isfinite(scored.score)
    assert 64 < has_score.sum() < 90  # more than a batch, and some too cloudy
    assert whole.tiles == whole.scores.sum() == has_score.sum()
    assert whole.values.sum() == 3 * tiles.valid[has_score].sum()
    assert whole.latent.shape[0] == 4
    assert (whole.latent.sum(1) == has_score.sum()).all()
    parts = [
        detector.histograms(tiles.values[rows], tiles.valid[rows], rows_of(scored, rows))
        for rows in (slice(0, 7), slice(7, None))
    ]
    np.testing.assert_array_equal((parts[1] + parts[0]).values, whole.values)
    np.testing.assert_array_equal((parts[1] + parts[0]).scores, whole.scores)


def test_drift_looks_at_the_score_that_every_tile_has(detector):
    tiles, past = some_past(20, [True] * 10 + [False] * 10)
    with_past = detector.histograms(tiles.values, tiles.valid, detector.score(tiles.values, tiles.valid, past=past))
    without = detector.histograms(tiles.values, tiles.valid, detector.score(tiles.values, tiles.valid))
    np.testing.assert_array_equal(with_past.scores, without.scores)
    assert with_past.tiles == 20
