"""Where the sun stands over a place.

The algorithm of NOAA's solar calculator, which follows Meeus (1998), Astronomical Algorithms, 2nd ed., chapters 25 and
28: low accuracy, right to about a hundredth of a degree between 1900 and 2100. Refraction is left out: surfaces are lit
from where the sun is, and satellites that see them look while it is high.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime, time
from typing import NamedTuple

from pyproj import Transformer

from imagery.grid import Grid

J2000 = datetime(2000, 1, 1, 12, tzinfo=UTC)
DAYS_A_CENTURY, SECONDS_A_DAY = 36525.0, 86400.0


class SunPosition(NamedTuple):
    """Elevation above the horizon, and azimuth clockwise from north, in degrees; NaN where not known."""

    elevation: float
    azimuth: float


UNKNOWN_SUN = SunPosition(math.nan, math.nan)


def sun_position(when: datetime, latitude: float, longitude: float) -> SunPosition:
    """Where the sun stands at a time over a point.

    Args:
        when: With its time zone.
        latitude: Degrees, north positive.
        longitude: Degrees, east positive.
    """
    days = (when - J2000).total_seconds() / SECONDS_A_DAY
    declination, equation = _declination_and_equation_of_time(days / DAYS_A_CENTURY)
    # True solar time in degrees: the sun moves one degree in four minutes; day 0 of `days` is a noon.
    hour_angle = math.radians((360 * (days % 1) + equation + longitude + 180) % 360 - 180)
    north = math.radians(latitude)
    up = math.sin(north) * math.sin(declination) + math.cos(north) * math.cos(declination) * math.cos(hour_angle)
    east = -math.cos(declination) * math.sin(hour_angle)
    to_north = math.cos(north) * math.sin(declination) - math.sin(north) * math.cos(declination) * math.cos(hour_angle)
    elevation = math.degrees(math.atan2(up, math.hypot(east, to_north)))
    return SunPosition(elevation, math.degrees(math.atan2(east, to_north)) % 360)


def sun_over(grid: Grid, acquired: datetime) -> SunPosition:
    """Where the sun stood over the middle of a location when a scene was taken.

    Args:
        grid: The location's.
        acquired: UTC. Midnight stands for a date without a time of day (`configs.workspace.time_name`): then it is not
            known where the sun stood.
    """
    if acquired.astimezone(UTC).time() == time():
        return UNKNOWN_SUN
    left, bottom, right, top = grid.bounds
    to_degrees = Transformer.from_crs(grid.crs, "EPSG:4326", always_xy=True)
    longitude, latitude = to_degrees.transform((left + right) / 2, (bottom + top) / 2)
    if not (math.isfinite(longitude) and math.isfinite(latitude)):
        return UNKNOWN_SUN
    return sun_position(acquired, latitude, longitude)


def _declination_and_equation_of_time(century: float) -> tuple[float, float]:
    """Of the sun: declination in radians, and apparent less mean solar time in degrees.

    Args:
        century: Julian centuries since J2000.0.
    """
    mean_longitude = math.radians((280.46646 + century * (36000.76983 + 0.0003032 * century)) % 360)
    anomaly = math.radians((357.52911 + century * (35999.05029 - 0.0001537 * century)) % 360)
    eccentricity = 0.016708634 - century * (0.000042037 + 0.0000001267 * century)
    centre = (
        (1.914602 - century * (0.004817 + 0.000014 * century)) * math.sin(anomaly)
        + (0.019993 - 0.000101 * century) * math.sin(2 * anomaly)
        + 0.000289 * math.sin(3 * anomaly)
    )
    node = math.radians(125.04 - 1934.136 * century)
    longitude = mean_longitude + math.radians(centre - 0.00569 - 0.00478 * math.sin(node))  # apparent
    mean_obliquity = 23 + (26 + (21.448 - century * (46.815 + century * (0.00059 - 0.001813 * century))) / 60) / 60
    obliquity = math.radians(mean_obliquity + 0.00256 * math.cos(node))
    declination = math.asin(math.sin(obliquity) * math.sin(longitude))
    y = math.tan(obliquity / 2) ** 2
    equation = (
        y * math.sin(2 * mean_longitude)
        - 2 * eccentricity * math.sin(anomaly)
        + 4 * eccentricity * y * math.sin(anomaly) * math.cos(2 * mean_longitude)
        - 0.5 * y * y * math.sin(4 * mean_longitude)
        - 1.25 * eccentricity**2 * math.sin(2 * anomaly)
    )
    return declination, math.degrees(equation)
