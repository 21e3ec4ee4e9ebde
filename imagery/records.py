"""What the catalog knows of a scene as a whole, and how it is kept: one small JSON object."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from datetime import date, datetime
from typing import TYPE_CHECKING, Any

from configs.workspace import time_name
from imagery.sources.scene import Scene, SceneFile

if TYPE_CHECKING:
    from imagery.statistics import BandStats

# Of what the catalog keeps of a scene. Another number, another meaning: such scenes are read again.
FORMAT = 2
TIMES = ("acquired", "ingested_at")


class OtherVersion(ValueError):
    """A record that another version of tilewatch wrote, or that is damaged."""


@dataclass(frozen=True)
class SceneRecord:
    """What the catalog knows of a scene.

    Attributes:
        scene_id: `<location>/<acquired>[/<n>]`.
        location: Name of the place.
        acquired: Time of acquisition, UTC.
        number: Counts scenes of the same place and time, from 1.
        files: Its rasters.
        stamp: Size and time of each file when it was read.
        fingerprint: Digest of the files' content.
        key: Digest of the settings that decide how it is read.
        tile_size: Side of its tiles, pixels.
        stride: From one tile to the next, pixels.
        tiles: Number of tiles.
        valid_fraction: Share of pixels that count.
        data_fraction: Share of pixels with data, cloudy or not.
        cloud_fraction: Share of the pixels with data that are cloud.
        masked: Share of pixels that do not count, by cause.
        stats: Statistics of the valid pixels, by band. Those of the catalog are read when they are asked for.
        ingested_at: When, UTC.
    """

    scene_id: str
    location: str
    acquired: datetime
    number: int
    files: tuple[SceneFile, ...]
    stamp: tuple[str, ...]
    fingerprint: str
    key: str
    tile_size: int
    stride: int
    tiles: int
    valid_fraction: float
    data_fraction: float
    cloud_fraction: float
    masked: dict[str, float]
    stats: Mapping[str, BandStats]
    ingested_at: datetime

    @property
    def scene(self) -> Scene:
        """The scene, to be opened again."""
        return Scene(self.location, self.acquired, self.files, self.number)

    @property
    def day(self) -> date:
        """The night it belongs to: its UTC date."""
        return self.acquired.date()

    @property
    def file_name(self) -> str:
        """What its files are named after: the time, and the number where there are several."""
        return file_name(self)

    @property
    def entry(self) -> str:
        """What decides its tiles and statistics: content and settings. Tells them from those of another reading."""
        return _entry(self.fingerprint, self.key)

    def to_json(self) -> str:
        """As one JSON object, without the statistics, which are kept with the tiles."""
        record = {name: getattr(self, name) for name in KEPT} | {
            "files": [file.to_record() for file in self.files],
            **{name: getattr(self, name).isoformat() for name in TIMES},
        }
        return json.dumps({"format": FORMAT} | record, separators=(",", ":"), ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str, stats: Callable[[str], Mapping[str, BandStats]]) -> SceneRecord:
        """The inverse of `to_json`.

        Args:
            text: What `to_json` gave.
            stats: Gives the statistics that belong to an `entry`.

        Raises:
            OtherVersion: It is not what `to_json` writes.
        """
        try:
            record: dict[str, Any] = json.loads(text)
            written = record.pop("format", 1)
            if written != FORMAT or record.keys() != set(KEPT):
                raise OtherVersion(f"a record of format {written}, not {FORMAT}")
            values = record | {
                "files": tuple(SceneFile(**file) for file in record["files"]),
                "stamp": tuple(record["stamp"]),
                **{name: datetime.fromisoformat(record[name]) for name in TIMES},
            }
            return cls(stats=stats(_entry(values["fingerprint"], values["key"])), **values)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise OtherVersion(str(error)) from None


KEPT = tuple(field.name for field in fields(SceneRecord) if field.name != "stats")


def file_name(scene: Scene | SceneRecord) -> str:
    """What the files of a scene are named after: the time, and the number where there are several."""
    return numbered(time_name(scene.acquired), scene.number)


def numbered(time: str, number: int) -> str:
    """The same of a scene of which only its name is known."""
    return f"{time}_{number}" if number > 1 else time


def _entry(fingerprint: str, key: str) -> str:
    return f"{FORMAT} {fingerprint} {key}"
