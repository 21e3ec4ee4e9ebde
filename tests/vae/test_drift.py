from __future__ import annotations

from datetime import date, timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from scipy.stats import ks_2samp, wasserstein_distance

from configs.schema import DriftSettings
from vae import drift
from vae.drift import lasting, statistics
from vae.drift_profile import BAND_BINS, LATENT_BINS, Histograms, Profile, histograms
from vae.errors import DriftError

BANDS = ("B02", "B03", "B04", "B08")
CLIP = 3.0
WIDTH = 2 * CLIP / BAND_BINS
SETTINGS = DriftSettings()


def of_values(values, bands=("B02",)) -> Histograms:
    """Histograms of N tiles of one pixel: (N, C)."""
    count, channels = values.shape
    return histograms(
        bands,
        CLIP,
        values.reshape(count, channels, 1, 1),
        np.ones((count, 1, 1), bool),
        np.zeros((count, 2)),
        np.ones(count),
    )


class Place:
    """Locations with ground of their own, seasons that move bands apart, nights that differ a little in brightness."""

    def __init__(self, seed: int, locations: int = 3, tiles: int = 36) -> None:
        self.draw = np.random.default_rng(seed)
        self.ground = {f"place{number}": self.draw.normal(0, 0.6, (tiles, 4, 1, 1)) for number in range(locations)}
        self.mixing = self.draw.normal(0, 0.4, (4, 8))

    def night(
        self, day: date, gain: float = 1.0, strange: int = 0, locations: int | None = None
    ) -> dict[str, Histograms]:
        found = {}
        season = 0.2 * np.cos(2 * np.pi * day.timetuple().tm_yday / 365.25) * np.array([0.3, 0.5, 0.6, -1])
        for location in list(self.ground)[:locations]:
            ground = self.ground[location]
            brightness = (np.log(gain) + self.draw.normal(0, 0.03)) / 1.2
            count = int(self.draw.integers(len(ground) // 2, len(ground) + 1))  # the rest is under cloud
            x = self.draw.permutation(ground)[:count] + season.reshape(4, 1, 1) + brightness
            x = x + self.draw.normal(0, 0.2, (count, 4, 6, 6))
            scores = self.draw.lognormal(-4, 0.35, count)
            x[:strange] += 1.0
            scores[:strange] *= 10
            strange = 0  # in the first location only
            x = np.clip(x, -CLIP, CLIP)
            found[location] = histograms(
                BANDS, CLIP, x, np.ones((count, 6, 6), bool), x.mean((2, 3)) @ self.mixing, scores
            )
        return found

    def trained(self, dates: int) -> Profile:
        profile = Profile()
        for number in range(dates):
            day = date(2023, 1, 3) + timedelta(days=int(number * 365 / dates))
            for location, found in self.night(day).items():
                profile = profile.add(location, day, found)
        return profile


@pytest.mark.parametrize("shift", [0.0, 0.05, 0.4, 1.5])
@pytest.mark.parametrize("spread", [0.3, 1.0])
def test_distances_agree_with_scipy_within_a_bin(shift, spread):
    draw = np.random.default_rng(0)
    one = np.clip(draw.normal(0, 0.5, 4000), -CLIP, CLIP)
    other = np.clip(draw.normal(shift, 0.5 * spread, 3000), -CLIP, CLIP)
    found = statistics(of_values(other[:, None]), of_values(one[:, None]))
    assert found["wasserstein_B02"] == pytest.approx(wasserstein_distance(one, other), abs=WIDTH)
    exact = ks_2samp(one, other).statistic
    steepest = WIDTH * 1 / (0.5 * min(1, spread) * np.sqrt(2 * np.pi))  # how far a distribution function rises in a bin
    assert exact - steepest <= found["ks_B02"] <= exact + 1e-9
    assert found["brightness_shift"] == pytest.approx(abs(one.mean() - other.mean()), abs=WIDTH)
    assert found["psi_B02"] >= 0


def test_the_population_stability_index_by_hand():
    before = np.linspace(-2, 2, 10_000)[:, None]
    found = statistics(of_values(before[5000:]), of_values(before))
    # The upper half doubles its five tenths, the lower half is empty and counts as 0.001 a tenth.
    by_hand = 5 * (0.2 - 0.1) * np.log(2) + 5 * (0.001 - 0.1) * np.log(0.001 / 0.1)
    assert found["psi_B02"] == pytest.approx(by_hand, rel=0.05)


def test_equal_histograms_do_not_differ():
    night = Place(0).night(date(2024, 5, 1))["place0"]
    assert max(statistics(night, night + night).values()) < 1e-9


def test_score_and_latent_shifts_have_their_units():
    draw = np.random.default_rng(0)
    ones = np.ones((500, 1, 1), bool)

    def night(latent, scores):
        return histograms(("B02",), CLIP, np.zeros((500, 1, 1, 1)), ones, latent, scores)

    latent, scores = draw.normal(0, 0.5, (500, 3)), draw.lognormal(-4, 0.5, 500)
    found = statistics(night(latent + 1.0, scores * 10), night(latent, scores))
    assert found["score_shift"] == pytest.approx(1, abs=0.05)  # one decade
    assert found["latent_shift"] == pytest.approx(2, abs=0.2)  # two standard deviations
    assert found["wasserstein_B02"] == 0


def test_masked_pixels_and_tiles_without_a_score_are_not_counted():
    x = np.full((3, 1, 2, 2), np.nan)
    x[:, :, 0] = 1.0
    valid = np.zeros((3, 2, 2), bool)
    valid[:, 0] = True
    found = histograms(("B02",), CLIP, x, valid, np.zeros((3, 2)), np.array([1.0, np.nan, 2.0]))
    assert found.tiles == found.scores.sum() == 2
    assert found.values.sum() == 4
    assert (found.latent.sum(1) == 2).all()


@hypothesis_settings(max_examples=25, deadline=None)
@given(order=st.permutations(range(6)), cut=st.integers(0, 6))
def test_profiles_merge_in_any_order(order, cut):
    draw = np.random.default_rng(0)
    parts = [
        Profile({(f"place{number % 2}", date(2024, 1, 1 + number % 3)): of_values(draw.normal(size=(20, 1)))})
        for number in range(6)
    ]
    straight, left, right = Profile(), Profile(), Profile()
    for part in parts:
        straight = straight.merge(part)
    for number in order[:cut]:
        left = left.merge(parts[number])
    for number in order[cut:]:
        right = right.merge(parts[number])
    merged = right.merge(left)
    assert merged.to_arrays()[0] == straight.to_arrays()[0]
    for name, array in straight.to_arrays()[1].items():
        np.testing.assert_array_equal(merged.to_arrays()[1][name], array)
    again = Profile.from_arrays(*straight.to_arrays())
    assert again.to_arrays()[0] == straight.to_arrays()[0]


def test_drift_of_a_detector_without_a_network_is_judged_without_latents():
    draw = np.random.default_rng(0)
    profile = Profile()
    for number in range(12):
        bands, ones = draw.normal(0, 0.3, (30, 1, 1, 1)), np.ones((30, 1, 1), bool)
        found = histograms(("B02",), CLIP, bands, ones, np.zeros((30, 0)), draw.lognormal(size=30))
        profile = profile.add("here", date(2023, 1, 1) + timedelta(days=30 * number), found)
    null = drift.null_by_dates(profile, SETTINGS)
    assert null.keys() == {"psi_B02", "ks_B02", "wasserstein_B02", "brightness_shift", "score_shift"}
    assert np.isfinite(list(null.values())).all()
    again = Profile.from_arrays(*profile.to_arrays())
    assert again.entries["here", date(2023, 1, 1)].latent.shape == (0, LATENT_BINS)
    assert drift.null_by_dates(again, SETTINGS) == null


def test_histograms_of_other_detectors_are_not_added():
    with pytest.raises(DriftError, match="different detectors"):
        of_values(np.zeros((3, 1))) + of_values(np.zeros((3, 1)), bands=("B08",))


def test_the_year_is_a_circle():
    assert drift.days_of_year_apart(date(2023, 12, 31), date(2024, 1, 1)) <= 1.25
    assert drift.days_of_year_apart(date(2020, 7, 1), date(2024, 7, 1)) == 0


def test_the_baseline_is_of_the_season_of_all_years_or_else_of_all_dates():
    counts = {
        date(2022, 1, 10): 1,
        date(2023, 12, 20): 2,
        date(2023, 1, 30): 4,
        date(2023, 7, 1): 8,
        date(2023, 6, 1): 16,
    }
    profile = Profile()
    for day, tiles in counts.items():
        profile = profile.add("here", day, of_values(np.zeros((tiles, 1))))
    settings = DriftSettings(season_days=45, min_dates=3)
    winter = drift.baseline_for(profile, "here", date(2024, 1, 5), settings)
    assert winter.tiles == 1 + 2 + 4
    summer = drift.baseline_for(profile, "here", date(2024, 6, 20), settings)
    assert summer.tiles == 31  # two dates of the season are too few
    without = drift.baseline_for(profile, "here", date(2022, 1, 10), settings, without={date(2022, 1, 10)})
    assert without.tiles == 30
    assert drift.baseline_for(profile, "elsewhere", date(2024, 1, 5), settings) is None


def test_a_window_is_the_median_of_its_locations_by_tiles():
    place = Place(0)
    profile = place.trained(12)
    day = date(2024, 3, 1)
    night = place.night(day)
    flooded = {**night, "place0": place.night(day, gain=3.0)["place0"]}
    calm = drift.window_statistics(night, profile, day, SETTINGS)
    disturbed = drift.window_statistics(flooded, profile, day, SETTINGS)
    alone = drift.window_statistics({"place0": flooded["place0"]}, profile, day, SETTINGS)
    assert alone["wasserstein_B02"] > 0.5 > disturbed["wasserstein_B02"]
    assert disturbed["wasserstein_B02"] <= 3 * max(0.05, calm["wasserstein_B02"])
    assert drift.window_statistics({"new place": night["place0"]}, profile, day, SETTINGS) is None


def test_dates_with_few_tiles_are_not_usable_and_dates_are_pooled_by_location():
    place = Place(0)
    few, many = date(2024, 3, 1), date(2024, 3, 6)
    profile = Profile()
    for location, found in place.night(few, locations=1).items():
        profile = profile.add(location, few, found)
    for location, found in place.night(many).items():
        profile = profile.add(location, many, found)
    least = profile.entries["place0", few].tiles + 1
    assert profile.usable_dates(1) == [few, many]
    assert profile.usable_dates(least) == [many]
    pooled = profile.pooled([few, many])
    assert pooled["place0"].tiles == profile.entries["place0", few].tiles + profile.entries["place0", many].tiles
    assert pooled["place1"].tiles == profile.entries["place1", many].tiles


def alarms(place: Place, profile: Profile, nights: int, settings: DriftSettings = SETTINGS, **what) -> list[bool]:
    null = drift.null_by_dates(profile, settings)
    days = [date(2024, 1, 10) + timedelta(days=6 * number) for number in range(nights)]
    seen, found = Profile(), []
    for day in days:
        for location, found_there in place.night(day, **what).items():
            seen = seen.add(location, day, found_there)
        length = drift.window_length(profile, settings)
        window = seen.pooled(seen.usable_dates(settings.min_tiles)[-length:])
        found.append(bool(drift.verdict(drift.window_statistics(window, profile, day, settings), null, settings)))
    return found


@pytest.mark.parametrize("dates", [10, 24, 60])
def test_ordinary_nights_are_calm_and_a_changed_gain_is_noticed(dates):
    calm, strange, changed = [], [], []
    for seed in range(8):
        place = Place(seed)
        profile = place.trained(dates)
        calm.append(alarms(place, profile, 5))
        strange.append(alarms(place, profile, 5, strange=3))
        changed += [alarms(place, profile, 5, gain=1.2), alarms(place, profile, 5, gain=1 / 1.2)]
    assert np.mean(calm) <= 0.1
    assert np.mean([declared(nights) for nights in calm]) <= 0.13
    assert np.mean(strange) <= 0.35  # a lasting event in a twelfth of one of three places moves the median a little
    assert np.mean(changed) >= 0.75
    assert np.mean([declared(nights) for nights in changed]) >= 0.9


def declared(nights: list[bool]) -> bool:
    """Whether drift was declared on the evening of any of these nights."""
    return any(lasting(nights[: end + 1], SETTINGS.patience) is not None for end in range(len(nights)))


def test_a_verdict_names_what_moved_and_by_how_much():
    found = {"wasserstein_B08": 0.312, "ks_B08": 0.9, "score_shift": 0.1}
    null = {"wasserstein_B08": 0.13, "ks_B08": 0.1, "score_shift": 0.1}
    assert drift.verdict(found, null, SETTINGS) == ["B08 Wasserstein 0.31 is 2.4 × what training dates show (0.13)"]
    assert drift.verdict(found, null, DriftSettings(margin=3)) == []
    with pytest.raises(DriftError, match="different names"):
        drift.verdict(found, {"score_shift": 1.0}, SETTINGS)


def test_the_null_needs_three_dates_and_says_so():
    place = Place(0)
    with pytest.raises(DriftError, match=r"2 training dates.*3 are needed"):
        drift.null_by_dates(place.trained(2), SETTINGS)
    assert all(value > 0 for value in drift.null_by_dates(place.trained(3), SETTINGS).values())


@pytest.mark.parametrize(
    ("nights", "patience", "began"),
    [
        ([], 2, None),
        ([False, True, True], 2, 1),
        ([True, True, False, True], 2, None),
        ([False, True, None, None, True], 2, 1),
        ([True, True, True, None], 3, 0),
        ([True, True, False, True, True], 2, 3),
        ([None, None], 1, None),
    ],
)
def test_a_lasting_drift_is_a_run_that_cloudy_nights_do_not_break(nights, patience, began):
    assert lasting(nights, patience) == began
