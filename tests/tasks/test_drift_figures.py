from __future__ import annotations

from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import numpy as np
from PIL import Image

from tasks.drift_figures import MOST_NIGHTS, drift_history, write_drift_history
from tasks.nights import NightRecord

LIMITS = {"psi_B02": 0.1, "ks_B02": 0.1, "wasserstein_B02": 0.2, "brightness_shift": 0.1, "score_shift": 0.3}
FIRST = date(2025, 5, 1)


def nights(count: int, drifts: int = 3, cloudy: tuple[int, ...] = ()) -> list[NightRecord]:
    """The last ones under a drift, in which brightness is four times its limit; PSI is always far beyond its own."""
    found = []
    for number in range(count):
        drifting = number >= count - drifts
        statistics = {name: limit / 2 for name, limit in LIMITS.items()} | {"psi_B02": 10.0}
        if drifting:
            statistics["brightness_shift"] = 0.4
        began = FIRST + timedelta(days=5 * (count - drifts)) if drifting and number > count - drifts else None
        day = FIRST + timedelta(days=5 * number)
        one = NightRecord(day, "v3", "c", {}, (), {}, 9, 9, 0, drifting, (), began, statistics)
        found.append(replace(one, alarmed=None, drift_began=None, statistics={}) if number in cloudy else one)
    return found


def test_judged_statistics_are_drawn_as_multiples_of_their_limits_and_no_others() -> None:
    below, top, _ = drift_history(nights(10, cloudy=(4,)), LIMITS).axes

    (colours,) = below.images
    drawn = np.ma.filled(colours.get_array(), np.nan)
    assert [label.get_text() for label in below.get_yticklabels()] == [
        "B02 Wasserstein",
        "brightness shift",
        "score shift",
    ]
    assert drawn.shape == (3, 10)
    assert np.isnan(drawn[:, 4]).all()
    np.testing.assert_allclose(drawn[1, [0, 9]], np.log2([0.5, 4]))
    alarms = next(line for line in top.lines if line.get_label() == "alarm")
    np.testing.assert_allclose(alarms.get_xydata(), [(7, 4), (8, 4), (9, 4)])
    assert [text.get_text() for text in top.texts] == [" drift since 2025-06-05"]
    assert below.get_xticklabels()[-1].get_text() == str(FIRST + timedelta(days=45))


def test_a_long_history_is_cut_and_a_drift_that_began_before_it_still_marked() -> None:
    below, top, _ = drift_history(nights(MOST_NIGHTS + 30, drifts=60), LIMITS).axes
    assert below.images[0].get_array().shape == (3, MOST_NIGHTS)
    assert len(top.texts) == 1
    (span,) = top.patches
    assert span.get_extents().width > 0


def test_the_same_nights_give_the_same_bytes(tmp_path: Path) -> None:
    one, two = (write_drift_history(nights(6), LIMITS, tmp_path / f"{name}.png") for name in ("one", "two"))
    assert one[0].read_bytes() == two[0].read_bytes()
    assert min(Image.open(one[0]).size) > 300


def test_a_history_without_a_single_verdict_is_drawn_and_without_limits_there_is_none(tmp_path: Path) -> None:
    assert write_drift_history(nights(2, cloudy=(0, 1)), LIMITS, tmp_path / "none.png") == [tmp_path / "none.png"]
    assert write_drift_history(nights(2), {}, tmp_path / "missing.png") == []
    assert not (tmp_path / "missing.png").exists()
