"""What holds for every kind: only what is marked changes, the same seed gives the same, stronger is more."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imagery.errors import ImageryError
from imagery.inject import KINDS, CannotInject, Injected, apply, inject, inject_scene, lay
from imagery.inject.kinds import Canvas, register
from tests.imagery.inject.grounds import TEN, tile

LOCAL = [name for name, kind in KINDS.items() if kind.local]
ON_LAND = ["burn", "flood", "bare_soil", "vegetation_loss", "vegetation_thinning", "bright_objects", "snow_remnant"]
# A shift by more pixels need not change a pixel by more.
MIXTURES = [name for name in KINDS if name != "misregistration"]


def donor(seed: int = 99) -> np.ndarray:
    return tile(seed, lake=0.0, bare=1.0)[0]


def injected(kind: str, seed: int = 0, ground: int = 0, **arguments: Any) -> Injected:
    values, valid = tile(ground)
    arguments.setdefault("donor", donor())
    return inject(values, valid, TEN, kind, seed, **arguments)


def change(found: Injected, ground: int = 0) -> float:
    """Mean difference over the changed pixels."""
    before, _ = tile(ground)
    return float(np.abs(found.values - before)[:, found.mask].mean())


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=15)
@given(seed=st.integers(0, 2**32), ground=st.integers(0, 5))
def test_beyond_the_mask_nothing_changes_and_within_it_everything_does(kind: str, seed: int, ground: int) -> None:
    before, valid = tile(ground)
    kept = before.copy()

    found = injected(kind, seed, ground)

    np.testing.assert_array_equal(before, kept)  # what was given stays as it was
    assert found.values.dtype == np.float32
    assert found.mask.any()
    assert valid[found.mask].all()
    np.testing.assert_array_equal(found.values[:, ~found.mask], before[:, ~found.mask])
    assert (found.values != before)[:, found.mask].any(axis=0).all()
    assert found.values[:, found.mask].min() >= 0
    assert found.values[:, found.mask].max() < 1


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_seed_and_key_give_the_same_bytes_and_others_do_not(kind: str) -> None:
    once = injected(kind, 7, key="there-r0-c0")
    other = injected(kind, 8, key="elsewhere")  # something else in between
    again = injected(kind, 7, key="there-r0-c0")

    assert once.values.tobytes() == again.values.tobytes()
    assert once.injection == again.injection
    assert once.values.tobytes() != other.values.tobytes()
    if kind != "dropped_band":  # there are only ten bands to draw from
        assert once.values.tobytes() != injected(kind, 7, key="elsewhere").values.tobytes()


@pytest.mark.parametrize("kind", MIXTURES)
@settings(max_examples=10)
@given(seed=st.integers(0, 1000), weak=st.floats(0.05, 0.9), more=st.floats(0.02, 0.1))
def test_stronger_changes_more_at_the_same_place(kind: str, seed: int, weak: float, more: float) -> None:
    little, much = (injected(kind, seed, strength=strength) for strength in (weak, weak + more))

    np.testing.assert_array_equal(little.footprint.amount, much.footprint.amount)
    assert change(little) < change(much)


def test_a_stronger_misregistration_shifts_further() -> None:
    changes = [
        np.mean([change(injected("misregistration", seed, strength=strength)) for seed in range(20)])
        for strength in (0.1, 1.0)
    ]
    assert changes[0] < changes[1]


@pytest.mark.parametrize("kind", [name for name in LOCAL if KINDS[name].shape.__name__ not in ("halls", "side")])
@settings(max_examples=15)
@given(seed=st.integers(0, 1000), share=st.floats(0.02, 0.2))
def test_the_asked_share_of_the_pixels_is_hit(kind: str, seed: int, share: float) -> None:
    values, valid = tile(lake=1.0) if kind == "slick" else tile(lake=0.0, bare=0.0)

    found = inject(values, valid, TEN, kind, seed, share=share, donor=donor())

    hit = found.footprint.amount >= 0.5
    assert hit.sum() == pytest.approx(share * valid.sum(), rel=0.02, abs=2)


@pytest.mark.parametrize("kind", ["vegetation_loss", "bare_soil", "flood", "burn", "snow_remnant"])
@pytest.mark.parametrize("share", [0.05, 0.1, 0.2, 0.35])
def test_a_share_of_a_scene_is_turned_in_many_patches(kind: str, share: float) -> None:
    values, valid = tile(side=160, lake=0.1)

    found = inject_scene(values, valid, TEN, kind, 1, share, radius=6)
    less = inject_scene(values, valid, TEN, kind, 1, share / 2, radius=6)

    assert (found.footprint.amount >= 0.5).sum() / valid.sum() == pytest.approx(share, abs=0.01)
    assert found.mask[less.mask].all()  # a greater share holds the smaller one
    thirds = [part.any() for part in np.array_split(found.mask, 3, axis=1)]
    assert all(thirds)


def test_what_hits_all_of_a_tile_has_no_share_of_a_scene() -> None:
    with pytest.raises(ValueError, match="haze has no share"):
        inject_scene(*tile(), TEN, "haze", 0, 0.1)


@pytest.mark.parametrize("kind", ON_LAND)
def test_it_lies_only_where_it_may(kind: str) -> None:
    where = np.zeros((48, 48), bool)
    where[16:40, :24] = True

    found = injected(kind, share=0.03, where=where)

    assert not found.mask[~where].any()
    assert not found.mask[:14].any()  # the lake


@pytest.mark.parametrize(
    ("kind", "values", "reason"),
    [
        ("slick", tile(lake=0.0)[0], "slick needs 336 pixels of open water, and there are 0"),
        ("burn", tile(lake=1.0, bare=0.0)[0], "burn needs 336 pixels of green ground, and there are 0"),
        ("flood", tile(lake=1.0, bare=0.0)[0], "flood needs 448 pixels of land, and there are 1"),
        ("burn", 10_000 * tile()[0], r"no reflectances \(median 629.9\): set source.scale"),
        ("burn", np.full_like(tile()[0], np.nan), "no pixel of the tile is valid"),
        ("stripes", np.full_like(tile()[0], np.nan), "no pixel of the tile is valid"),
    ],
)
def test_ground_without_room_is_refused_in_words(kind: str, values: np.ndarray, reason: str) -> None:
    with pytest.raises(CannotInject, match=reason) as caught:
        inject(values, np.isfinite(values).all(axis=0), TEN, kind, 0)
    assert isinstance(caught.value, ImageryError)


@pytest.mark.parametrize("kind", [name for name in KINDS if name != "slick"])
def test_a_tile_that_is_mostly_cloud_still_takes_everything(kind: str) -> None:
    values, valid = tile(lake=0.0)
    valid &= np.random.default_rng(0).random(valid.shape) < 0.4

    found = inject(values, valid, TEN, kind, 0, share=0.1, donor=donor())

    assert found.mask.any()
    assert valid[found.mask].all()


def test_a_sprinkle_of_single_trees_is_no_ground_for_a_burn() -> None:
    values, valid = tile(lake=0.0, bare=1.0)
    woods, _ = tile(lake=0.0, bare=0.0)
    trees = np.random.default_rng(0).random(valid.shape) < 0.2
    values[:, trees] = woods[:, trees]

    with pytest.raises(CannotInject, match="green ground in one piece"):
        inject(values, valid, TEN, "burn", 0, share=0.1)


@pytest.mark.parametrize(
    ("kind", "bands", "reason"),
    [
        ("burn", ("B02", "B03", "B04"), "burn does not show without the bands nir"),
        ("slick", ("B04", "B08"), "slick does not show without the bands green"),
        ("haze", ("B08", "B11"), "haze does not show without the bands red"),
        ("flood", ("B03", "B08", "angle"), r"the band\(s\) angle"),
    ],
)
def test_bands_that_cannot_show_a_kind_are_refused_in_words(kind: str, bands: tuple[str, ...], reason: str) -> None:
    values, valid = tile()
    with pytest.raises(CannotInject, match=reason):
        inject(values[: len(bands)], valid, bands, kind, 0)


@pytest.mark.parametrize("kind", [name for name, kind in KINDS.items() if not kind.spectral])
def test_faults_and_patches_need_neither_reflectances_nor_known_bands(kind: str) -> None:
    values, valid = tile()
    found = inject(1e4 * values[:2], valid, ("VV", "VH"), kind, 0, donor=1e4 * donor()[:2])
    assert found.mask.any()


@pytest.mark.parametrize("bands", [TEN[:4], ("B02", "B03", "B04", "B08"), ("B2", "B3", "B4", "B5", "B6", "B7"), TEN])
def test_every_kind_shows_in_the_bands_of_common_sensors(bands: tuple[str, ...]) -> None:
    for kind in KINDS:
        values, valid = tile(bands=bands)
        if set(KINDS[kind].needs) & {"nir"} and bands == TEN[:4]:
            continue  # the fourth is red edge
        assert inject(values, valid, bands, kind, 0, donor=values[:, ::-1]).mask.any()


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        (lambda: injected("meteor"), "unknown kind 'meteor': there are stripes"),
        (lambda: injected("burn", strength=0.0), "the strength must be above 0 and at most 1, not 0.0"),
        (lambda: injected("burn", strength=1.5), "the strength must be above 0 and at most 1, not 1.5"),
        (lambda: injected("burn", share=float("nan")), "the share must be above 0 and at most 1, not nan"),
        (lambda: injected("patch", donor=donor()[:3]), r"the donor is of shape \(3, 48, 48\)"),
        (lambda: apply(injected("burn").footprint, *tile(side=32), TEN), r"the footprint is of \(48, 48\) pixels"),
    ],
)
def test_a_wrong_call_is_refused(call: Callable[[], object], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        call()


def test_a_new_kind_is_one_function_and_one_registration() -> None:
    @register("locusts", "swarms of locusts", "share of the leaves that is eaten", needs=("red", "nir"))
    def locusts(canvas: Canvas) -> np.ndarray:
        return canvas.mixed(canvas.light.soil)

    try:
        found = injected("locusts", strength=0.5)
        assert found.mask.any()
        assert (found.values[6] < tile()[0][6])[found.mask].mean() > 0.5
    finally:
        del KINDS["locusts"]


def test_a_patch_shows_the_donor_and_needs_one() -> None:
    found = injected("patch")
    core = found.mask & (found.footprint.amount == 1) & np.isfinite(donor()).all(axis=0)

    np.testing.assert_allclose(found.values[:, core], donor()[:, core], rtol=1e-6)
    with pytest.raises(CannotInject, match="a patch needs a donor"):
        injected("patch", donor=None)


def test_what_a_donor_does_not_have_stays_as_it_was() -> None:
    hollow = donor()
    hollow[:, :, ::2] = np.nan
    found = injected("patch", donor=hollow)
    assert np.isfinite(found.values[:, found.mask]).all()
    assert not found.mask[:, ::2].any()


def test_a_footprint_is_laid_once_and_applied_to_every_date_in_its_own_light() -> None:
    summer, valid = tile(0, lake=0.0)
    footprint = lay("vegetation_loss", summer, valid, TEN, 3, strength=1.0, share=0.2)
    hazy = inject(summer, valid, TEN, "haze", 0, strength=0.8).values
    other = valid & np.roll(valid, 5, axis=1)
    hazy[:, ~other] = np.nan

    first = apply(footprint, summer, valid, TEN)
    later = apply(footprint, hazy, other, TEN)

    np.testing.assert_array_equal(later.mask, first.mask & other)
    core = later.mask & (footprint.amount == 1)
    blue, *_, infrared = (later.values - first.values)[:, core].mean(axis=1)
    assert blue > 0.05  # what is bare there lies under the haze as well
    assert abs(infrared) < 0.02


@pytest.mark.parametrize("kind", ["burn", "flood", "bare_soil", "vegetation_loss"])
def test_snow_hides_what_happened_on_the_ground(kind: str) -> None:
    values, valid = tile(0, lake=0.0)
    footprint = lay(kind, values, valid, TEN, 0)
    snow = np.full_like(values, 0.8)

    assert not apply(footprint, snow, valid, TEN).mask.any()
