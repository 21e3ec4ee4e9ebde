"""The limits of a band follow from the statistics of the training scenes, and from no other band."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from configs import Settings
from configs.schema import DARKEST, NormaliseSettings
from imagery.errors import ImageryError
from imagery.normalise import band_limits
from imagery.statistics import ACCURACY, BandStats
from vae.normalisation import Normalisation

VALUES = np.random.default_rng(0).gamma(2, 0.1, 20_000)
METHODS = ("percentile", "standard", "range")


@st.composite
def reflectances(draw: st.DrawFn) -> np.ndarray:
    """Pixels of a band: dark or bright, some of them zero, some below, some saturated."""
    random = np.random.default_rng(draw(st.integers(0, 9999)))
    values = random.gamma(draw(st.floats(0.5, 20)), draw(st.floats(0.002, 0.1)), draw(st.integers(300, 2000)))
    for odd in (0.0, -0.02, 1.6):
        values[random.random(values.size) < draw(st.floats(0, 0.2))] = odd
    return values


def limits_of(values: np.ndarray, settings: NormaliseSettings) -> tuple[float, float]:
    return band_limits({"B02": BandStats.of(values)}, settings)["B02"]


@pytest.mark.parametrize("log", [False, True])
def test_percentiles_are_those_of_the_pixels(log: bool) -> None:
    low, high = limits_of(VALUES, NormaliseSettings(percentiles=(1, 99), log=log))

    assert low == pytest.approx(np.percentile(VALUES, 1, method="lower"), rel=0.00501)
    assert high == pytest.approx(np.percentile(VALUES, 99, method="lower"), rel=0.00501)


def test_mean_and_spread_are_those_of_the_pixels() -> None:
    low, high = limits_of(VALUES, NormaliseSettings(method="standard", log=False))

    assert (low, high) == pytest.approx((VALUES.mean() - 2 * VALUES.std(), VALUES.mean() + 2 * VALUES.std()))


@given(values=reflectances())
def test_with_logarithms_mean_and_spread_are_those_of_the_logarithms(values: np.ndarray) -> None:
    """Of a skewed band, the mean less two deviations would lie below zero, where there is no logarithm."""
    low, high = limits_of(values, NormaliseSettings(method="standard", log=True))

    logs = np.log(np.maximum(values, DARKEST))
    assert (math.log(low) + math.log(high)) / 2 == pytest.approx(logs.mean(), abs=1.01 * ACCURACY)
    assert (math.log(high) - math.log(low)) / 4 == pytest.approx(logs.std(), abs=1.01 * ACCURACY)


def test_a_fixed_range_asks_no_pixel() -> None:
    limits = band_limits(
        {"B02": BandStats.of(VALUES), "B03": BandStats.of([5.0])}, NormaliseSettings(method="range", range=(0, 0.5))
    )

    assert limits == {"B02": (0, 0.5), "B03": (0, 0.5)}


@pytest.mark.parametrize("method", METHODS)
def test_a_band_with_a_range_of_its_own_has_it_whatever_the_method_and_the_others_do_not(method: str) -> None:
    stats = {"B02": BandStats.of(VALUES), "B03": BandStats.of(VALUES), "B04": BandStats.of([0.3, 0.3])}

    limits = band_limits(stats, NormaliseSettings(method=method, ranges={"B03": (-0.1, 0.3), "B04": (0, 1)}))

    assert limits["B03"] == (-0.1, 0.3)
    assert limits["B04"] == (0, 1)
    assert limits["B02"] == band_limits({"B02": stats["B02"]}, NormaliseSettings(method=method))["B02"]


@given(values=reflectances(), method=st.sampled_from(METHODS), log=st.booleans())
def test_limits_become_minus_one_and_one_and_what_lies_between_keeps_its_order(
    values: np.ndarray, method: str, log: bool
) -> None:
    settings = NormaliseSettings(method=method, log=log, clip=3)
    limits = band_limits({"B02": BandStats.of(values)}, settings)
    normalisation = Normalisation.from_limits(limits, log=log, clip=settings.clip)
    low, high = limits["B02"]
    between = np.linspace(max(low, DARKEST) if log else low, high, 9)

    mapped = normalisation.apply(torch.tensor(between, dtype=torch.float32).reshape(1, 1, 1, -1)).ravel().numpy()

    assert mapped[[0, -1]] == pytest.approx([-1, 1], abs=1e-4)
    assert (np.diff(mapped) > 0).all()


@given(
    pieces=st.lists(reflectances(), min_size=2, max_size=4),
    other=reflectances(),
    method=st.sampled_from(METHODS),
    log=st.booleans(),
)
def test_limits_depend_on_no_other_band_and_not_on_how_the_pixels_were_divided_into_scenes(
    pieces: list[np.ndarray], other: np.ndarray, method: str, log: bool
) -> None:
    settings = NormaliseSettings(method=method, log=log)
    merged = BandStats()
    for piece in pieces:
        merged = merged.merge(BandStats.of(piece))

    together = band_limits({"B08": BandStats.of(other), "B02": merged}, settings)

    assert list(together) == ["B08", "B02"]
    assert together["B02"] == pytest.approx(limits_of(np.concatenate(pieces), settings), rel=1e-9)
    assert together["B08"] == limits_of(other, settings)


@given(values=reflectances(), factor=st.floats(0.01, 100), log=st.booleans())
def test_percentiles_and_deviations_grow_with_the_numbers(values: np.ndarray, factor: float, log: bool) -> None:
    """Reflectance from 0 to 1, or from 0 to 100: what the network sees is the same."""
    positive = np.abs(values) + 2 * DARKEST / min(factor, 1)
    for method in ("percentile", "standard"):
        settings = NormaliseSettings(method=method, log=log)
        one, other = limits_of(positive, settings), limits_of(positive * factor, settings)
        off = factor * (one[1] - one[0])
        assert other == pytest.approx([factor * end for end in one], rel=6 * ACCURACY, abs=1e-9 * off)


def test_a_band_without_a_pixel_is_named() -> None:
    with pytest.raises(ImageryError, match="B03 has no usable pixel"):
        band_limits({"B02": BandStats.of(VALUES), "B03": BandStats()}, NormaliseSettings())


@pytest.mark.parametrize("method", ["percentile", "standard"])
@pytest.mark.parametrize("log", [False, True])
def test_a_constant_band_is_named_with_what_to_do(method: str, log: bool) -> None:
    with pytest.raises(ImageryError, match=r"B03 is constant.*source\.scale"):
        band_limits(
            {"B02": BandStats.of(VALUES), "B03": BandStats.of(np.full(9, 0.3))},
            NormaliseSettings(method=method, log=log),
        )


def test_limits_that_are_not_finite_are_refused() -> None:
    with pytest.raises(ImageryError, match=r"B02 is constant or out of range .*to inf"):
        band_limits({"B02": BandStats.of(VALUES)}, NormaliseSettings(ranges={"B02": (0, math.inf)}))


def test_limits_the_wrong_way_round_are_refused() -> None:
    with pytest.raises(ValueError, match=r"the range 1 … 0 is empty"):
        NormaliseSettings(method="range", range=(1, 0))
    with pytest.raises(ValueError, match=r"the range of B04 0\.3 … 0\.3 is empty"):
        NormaliseSettings(ranges={"B02": (0, 1), "B04": (0.3, 0.3)})
    with pytest.raises(ValueError, match=r"the percentiles 99 and 1 are not in order"):
        NormaliseSettings(percentiles=(99, 1))


def test_a_range_without_logarithms_is_refused_unless_none_are_taken() -> None:
    with pytest.raises(ValueError, match=r"the range of VV -1 … 0 has no logarithms.*set normalise\.log=false"):
        NormaliseSettings(ranges={"VV": (-1, 0)})
    with pytest.raises(ValueError, match=r"the range -1 … 0 has no logarithms"):
        NormaliseSettings(method="range", range=(-1, 0))

    assert NormaliseSettings(ranges={"VV": (-1, 0)}, log=False).ranges == {"VV": (-1, 0)}
    assert NormaliseSettings(method="percentile", range=(-1, 0)).log, "the range is not used"


def test_a_range_of_a_band_that_is_not_read_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"normalise\.ranges names B05, B4, source\.bands are B02, B03, B04, B08"):
        Settings.model_validate({"normalise": {"ranges": {"B4": (0, 1), "B02": (0, 1), "B05": (0, 1)}}})
