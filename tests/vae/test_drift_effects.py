from __future__ import annotations

from datetime import date, timedelta

import numpy as np
import pytest

from configs.schema import DriftSettings
from vae.drift import null_by_dates, verdict, window_statistics
from vae.drift_effects import Effect, effects
from vae.drift_profile import Histograms, Profile, histograms

BANDS, CLIP, SPREAD = ("B02", "B08"), 3.0, 0.5
TONIGHT = date(2024, 6, 1)
SETTINGS = DriftSettings(season_days=183)


def night(
    draw: np.random.Generator,
    tiles: int = 60,
    shift: tuple[float, float] = (0.0, 0.0),
    wider: float = 1.0,
    scores: float = 1.0,
) -> Histograms:
    x = draw.normal(0, SPREAD * wider, (tiles, 2, 8, 8)) + np.reshape(shift, (2, 1, 1))
    latent = np.stack([draw.normal(0, 0.4, tiles), draw.normal(0, 0.4, tiles) + shift[1]], axis=1)
    return histograms(BANDS, CLIP, x, np.ones((tiles, 8, 8), bool), latent, scores * draw.lognormal(-4, 0.5, tiles))


@pytest.fixture(scope="module")
def training() -> Profile:
    draw = np.random.default_rng(0)
    days = [date(2023, 1, 1) + timedelta(days=30 * number) for number in range(12)]
    return Profile({(place, day): night(draw) for place in ("delta", "hills", "town") for day in days})


def found(training: Profile, seed: int = 1, **places: dict[str, object]) -> dict[str, Effect]:
    draw = np.random.default_rng(seed)
    window = {place: night(draw, **places.get(place, {})) for place in ("delta", "hills", "town")}  # type: ignore[arg-type]
    return effects(window, training, TONIGHT, SETTINGS)


def test_a_band_that_moved_is_told_with_direction_size_and_the_place_where_it_moved_most(training: Profile) -> None:
    up = found(training, delta={"shift": (0.0, 0.5)}, hills={"shift": (0.0, 1.0)}, town={"shift": (0.0, 0.4)})
    down = found(training, delta={"shift": (0.0, -0.5)}, hills={"shift": (0.0, -1.0)}, town={"shift": (0.0, -0.4)})

    effect = up["wasserstein_B08"]
    assert effect.size == pytest.approx(0.5 / SPREAD, abs=0.1)  # of the middle place
    assert (effect.location, effect.there) == ("hills", pytest.approx(1.0 / SPREAD, abs=0.1))
    assert str(effect).startswith("B08 higher by 1 standard deviations, most at hills (+2), median ")
    assert str(down["wasserstein_B08"]).startswith("B08 lower by 1 standard deviations, most at hills (-2), median -")
    assert abs(up["wasserstein_B02"].size) < 0.05
    assert up["latent_shift"].what == "latent channel 1"
    assert up["brightness_shift"].size == pytest.approx(0.5, abs=0.05)  # one of two bands


def test_medians_are_told_in_physical_units(training: Profile) -> None:
    window = {"town": night(np.random.default_rng(1), shift=(0.0, 0.5))}

    effect = effects(window, training, TONIGHT, SETTINGS, lambda band, value: 1000 + value)["wasserstein_B08"]

    assert effect.medians == (pytest.approx(1000, abs=0.05), pytest.approx(1000.5, abs=0.05))
    assert effect.alone
    assert "most at" not in str(effect)
    assert str(effect).endswith("median 1000 instead of 1000")


def test_values_that_only_spread_more_are_not_said_to_be_higher(training: Profile) -> None:
    effect = found(training, delta={"wider": 2.0}, hills={"wider": 2.0}, town={"wider": 2.0})["wasserstein_B02"]

    assert abs(effect.size) < 0.1
    assert effect.widened == pytest.approx(2, abs=0.15)
    assert str(effect).startswith("B02 spread 2 × as wide as in training at ") or "spread 1.9 ×" in str(effect)


def test_scores_are_told_in_standard_deviations_of_their_logarithm(training: Profile) -> None:
    effect = found(training, **{place: {"scores": np.exp(1.0)} for place in ("delta", "hills", "town")})["score_shift"]

    assert effect.size == pytest.approx(1.0 / 0.5, abs=0.25)
    assert effect.medians is not None
    before, now = effect.medians
    assert now / before == pytest.approx(np.exp(1.0), rel=0.2)


def test_an_effect_does_not_grow_with_the_number_of_tiles(training: Profile) -> None:
    few, many = (
        effects({"town": night(np.random.default_rng(1), tiles, (0.2, 0.2))}, training, TONIGHT, SETTINGS)
        for tiles in (40, 4000)
    )

    assert few["wasserstein_B08"].size == pytest.approx(many["wasserstein_B08"].size, abs=0.05)
    assert few["brightness_shift"].size == pytest.approx(many["brightness_shift"].size, abs=0.05)


def test_every_judged_statistic_has_its_effect_and_reasons_name_it(training: Profile) -> None:
    window = {place: night(np.random.default_rng(2), shift=(0.5, 0.5)) for place in ("delta", "hills")}
    statistics = window_statistics(window, training, TONIGHT, SETTINGS)
    assert statistics is not None
    moved = effects(window, training, TONIGHT, SETTINGS)

    reasons = verdict(
        statistics, null_by_dates(training, SETTINGS), SETTINGS, {name: str(one) for name, one in moved.items()}
    )

    assert set(moved) == {name for name in statistics if not name.startswith(("psi_", "ks_"))}
    assert any(reason.startswith("B08 Wasserstein") and ": B08 higher by 1 standard" in reason for reason in reasons)
    assert any("all bands together higher by 1 standard" in reason for reason in reasons)


def test_places_that_training_does_not_know_have_no_effects(training: Profile) -> None:
    assert effects({"elsewhere": night(np.random.default_rng(1))}, training, TONIGHT, SETTINGS) == {}
