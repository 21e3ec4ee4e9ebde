"""Where the sun stands: against published worked examples, and where geometry alone says where it must be."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import pytest

from imagery.grid import Grid
from imagery.sun import UNKNOWN_SUN, _declination_and_equation_of_time, sun_over, sun_position
from tests.catalogs import grid_at


def test_it_stands_where_the_worked_example_of_the_solar_position_algorithm_has_it() -> None:
    # Reda & Andreas (2003), Solar position algorithm, NREL/TP-560-34302, appendix A.5: 2003-10-17 12:30:30 at UTC-7.
    # Elevation without refraction 39.872046°, azimuth 194.340241°.
    when = datetime(2003, 10, 17, 12, 30, 30, tzinfo=timezone(timedelta(hours=-7)))
    sun = sun_position(when, 39.742476, -105.1786)
    assert sun.elevation == pytest.approx(39.872046, abs=0.01)
    assert sun.azimuth == pytest.approx(194.340241, abs=0.01)


def test_declination_and_equation_of_time_are_those_of_the_worked_examples() -> None:
    # Meeus (1998), examples 25.a and 28.b: 1992 October 13 at 0h, T = -0.072183436; 13 min 42.6 s.
    declination, equation = _declination_and_equation_of_time(-0.072183436)
    assert math.degrees(declination) == pytest.approx(-7.78507, abs=1e-4)
    assert 4 * equation == pytest.approx(13 + 42.6 / 60, abs=0.01)


@pytest.mark.parametrize(
    ("when", "latitude", "elevation", "azimuth"),
    [
        ("2020-06-20T12:01:40", 45.0, 90 - 45 + 23.436, 180.0),  # noon of a solstice
        ("2020-06-20T12:01:40", -45.0, 90 - 45 - 23.436, 0.0),  # the same in the south, where it stands in the north
        ("2020-12-21T11:58:00", 80.0, 90 - 80 - 23.436, 180.0),  # polar night: below the horizon
        ("2020-03-20T06:07:30", 0.0, 0.0, 90.0),  # sunrise of an equinox, due east
    ],
)
def test_it_stands_where_geometry_says(when: str, latitude: float, elevation: float, azimuth: float) -> None:
    sun = sun_position(datetime.fromisoformat(when).replace(tzinfo=UTC), latitude, 0.0)
    assert sun.elevation == pytest.approx(elevation, abs=0.1)
    assert (sun.azimuth - azimuth + 180) % 360 - 180 == pytest.approx(0, abs=0.3)


def test_four_minutes_are_a_degree_of_longitude() -> None:
    when = datetime(1999, 12, 31, 23, 58, tzinfo=UTC)  # before the epoch that days are counted from, near the date line
    here, there = sun_position(when, 30.0, 179.5), sun_position(when + timedelta(minutes=4), 30.0, 178.5)
    assert here == pytest.approx(there, abs=0.01)


def test_it_goes_from_east_to_west_and_is_highest_in_between() -> None:
    hours = [sun_position(datetime(2021, 5, 1, hour, tzinfo=UTC), 48.0, 11.0) for hour in range(5, 18)]
    azimuths, elevations = [sun.azimuth for sun in hours], [sun.elevation for sun in hours]
    assert (np.diff(azimuths) > 0).all()
    assert 70 < azimuths[0] < 100
    assert 260 < azimuths[-1] < 290
    assert np.argmax(elevations) == 6  # 11:16 UTC is noon at 11° east


def test_over_a_location_it_is_that_over_its_middle() -> None:
    grid = Grid("EPSG:32635", (10, 0, 450_000, 0, -10, 5_000_000), 10_000, 10_000)  # middle on the meridian of zone 35
    when = datetime(2018, 7, 1, 9, 20, 31, tzinfo=UTC)
    assert sun_over(grid, when) == pytest.approx(sun_position(when, 44.7, 27.0), abs=0.05)


def test_of_a_date_without_a_time_of_day_it_is_not_known() -> None:
    assert sun_over(grid_at(), datetime(2018, 7, 1, tzinfo=UTC)) is UNKNOWN_SUN
    assert np.isfinite(sun_over(grid_at(), datetime(2018, 7, 1, 0, 0, 1, tzinfo=UTC))).all()
