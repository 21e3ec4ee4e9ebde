"""How a network is told the day, the place, the sun, the sensor and the past."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from configs.schema import ModelSettings
from vae.conditions import Conditions
from vae.errors import ShapeError
from vae.normalisation import Normalisation

PLACES, SENSORS = 1024, 16  # that can be told apart; others are unknown
EMBEDDED = 8  # numbers that a place or a sensor becomes
TOLD = 16  # channels that all of it becomes
WIDTHS = {"season": 2, "sun": 4, "place": EMBEDDED, "sensor": EMBEDDED}


class Given(NamedTuple):
    """`vae.conditions.Conditions` of a batch as tensors, the reference in normalised units, 0 where not valid."""

    season: Tensor | None = None
    place: Tensor | None = None
    sun: Tensor | None = None
    sensor: Tensor | None = None
    reference: Tensor | None = None
    reference_valid: Tensor | None = None


def given_of(conditions: Conditions | None, normalisation: Normalisation, device: torch.device) -> Given | None:
    """Conditions as tensors on a device; None when there are none."""
    if conditions is None:
        return None
    season, place, sun, sensor = (
        None if part is None else torch.as_tensor(part).to(device)
        for part in (conditions.season, conditions.place, conditions.sun, conditions.sensor)
    )
    if conditions.reference is None or conditions.reference_valid is None:
        return Given(season, place, sun, sensor)
    values = torch.as_tensor(conditions.reference).to(device, torch.float32)
    known = torch.as_tensor(conditions.reference_valid).to(device, torch.bool) & torch.isfinite(values).all(dim=1)
    return Given(season, place, sun, sensor, normalisation.apply(values, known), known)


class Told(nn.Module):
    """What the network is told, as `TOLD` numbers a tile and, of the reference, an image with its mask.

    Args:
        bands: Of the reference.
        settings: `condition` says what there is.
    """

    def __init__(self, bands: int, settings: ModelSettings) -> None:
        super().__init__()
        self.names = tuple(name for name in WIDTHS if name in settings.condition)
        self.reference = "reference" in settings.condition
        self.bands = bands
        if "place" in self.names:
            self.place = nn.Embedding(PLACES + 1, EMBEDDED, padding_idx=PLACES)  # the last one, the unknown, stays 0
        if "sensor" in self.names:
            self.sensor = nn.Embedding(SENSORS + 1, EMBEDDED, padding_idx=SENSORS)
        if self.names:
            self.mix = nn.Sequential(nn.Linear(sum(WIDTHS[name] for name in self.names), TOLD), nn.SiLU())

    @property
    def vector_size(self) -> int:
        """Numbers a tile; 0 when nothing but a reference is told, or nothing."""
        return TOLD if self.names else 0

    @property
    def image_size(self) -> int:
        """Channels of the reference and its mask; 0 without."""
        return self.bands + 1 if self.reference else 0

    def vector(self, given: Given | None) -> Tensor | None:
        """(B, TOLD).

        Raises:
            ShapeError: Something that the network was made to be told is missing.
        """
        if not self.names:
            return None
        parts = [getattr(self, f"_{name}")(self._asked(given, name)) for name in self.names]
        return self.mix(torch.cat(parts, dim=1))

    def image(self, given: Given | None) -> Tensor | None:
        """(B, C + 1, H, W) reference and mask.

        Raises:
            ShapeError: There is none, and the network was made for one.
        """
        if not self.reference:
            return None
        values, known = self._asked(given, "reference"), self._asked(given, "reference_valid")[:, None]
        return torch.cat([torch.where(known, values, 0.0), known.to(values.dtype)], dim=1)

    def _asked(self, given: Given | None, name: str) -> Tensor:
        part = None if given is None else getattr(given, name)
        if part is None:
            raise ShapeError(
                f"the network was made to be told the {name.replace('_', ' ')} (model.condition), and it is not given"
            )
        return part

    def _season(self, share: Tensor) -> Tensor:
        known = torch.isfinite(share)[:, None]
        angle = 2 * math.pi * share.float()
        return torch.where(known, torch.stack([torch.sin(angle), torch.cos(angle)], dim=1), 0.0)

    def _sun(self, angles: Tensor) -> Tensor:
        """Sine of the elevation, the azimuth as a direction, and whether they are known."""
        known = torch.isfinite(angles).all(dim=1)
        elevation, azimuth = torch.deg2rad(torch.where(known[:, None], angles.float(), 0.0)).unbind(dim=1)
        told = torch.stack([torch.sin(elevation), torch.sin(azimuth), torch.cos(azimuth)], dim=1)
        return torch.cat([torch.where(known[:, None], told, 0.0), known[:, None].float()], dim=1)

    def _place(self, index: Tensor) -> Tensor:
        return self.place(_known(index, PLACES))

    def _sensor(self, index: Tensor) -> Tensor:
        return self.sensor(_known(index, SENSORS))


class Pyramid(nn.Module):
    """The reference at each resolution of the decoder, added to what it has there.

    Args:
        channels: (D,) of the decoder's stages, coarsest first, the last one being what it gives.
        image_size: Channels of the reference with its mask.
    """

    def __init__(self, channels: list[int], image_size: int) -> None:
        super().__init__()
        self.into = nn.ModuleList([nn.Conv2d(image_size, count, 3, padding=1) for count in channels])

    def forward(self, stage: int, x: Tensor, image: Tensor) -> Tensor:
        """(B, channels, h, w) with the reference, averaged to that resolution."""
        factor = image.shape[-1] // x.shape[-1]
        pooled = F.avg_pool2d(image, factor) if factor > 1 else image
        return x + self.into[stage](pooled)


def _known(index: Tensor, count: int) -> Tensor:
    return torch.where((index >= 0) & (index < count), index, count).long()
