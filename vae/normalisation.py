"""From physical values to what the network sees, and back."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from configs.schema import DARKEST
from vae.errors import ShapeError, VaeError


@dataclass(frozen=True)
class Normalisation:
    """Per band ``clip((f(x) - offset) / scale, ±clip)``, f(x) being log(max(x, 1e-4) + log_offset), or x.

    Args:
        bands: Names, in the order of the channels.
        log: Take the logarithm of max(x, 1e-4) + log_offset first.
        offset: One number a band, in units of f(x).
        scale: One positive number a band, in units of f(x).
        clip: Normalised values are clipped to ± this.
        log_offset: Physical units; dark ground, of which little is known, is then not stretched.

    Raises:
        VaeError: The numbers do not fit the bands, or cannot normalise.
    """

    bands: tuple[str, ...]
    log: bool
    offset: tuple[float, ...]
    scale: tuple[float, ...]
    clip: float
    log_offset: float = 0.0

    def __post_init__(self) -> None:
        if not len(self.bands) == len(self.offset) == len(self.scale) >= 1:
            raise VaeError(
                f"a normalisation needs one offset and one scale a band: {len(self.bands)} bands, "
                f"{len(self.offset)} offsets, {len(self.scale)} scales"
            )
        for band, offset, scale in zip(self.bands, self.offset, self.scale, strict=True):
            if not (math.isfinite(offset) and math.isfinite(scale) and scale > 0):
                raise VaeError(
                    f"band {band} cannot be normalised with offset {offset} and scale {scale}: "
                    "its training values are constant or not finite, so leave it out or check the scenes"
                )
        if not (math.isfinite(self.clip) and self.clip > 0):
            raise VaeError(f"normalised values cannot be clipped to ±{self.clip}: use a positive number")
        _check_log_offset(self.log_offset)

    def apply(self, values: Tensor, valid: Tensor | None = None) -> Tensor:
        """Normalise.

        Args:
            values: (B, C, H, W) physical values, float32. May hold anything, NaN too, where not valid.
            valid: (B, H, W) bool. Without it every pixel counts.

        Returns:
            (B, C, H, W) normalised values, 0 where not valid. Masked pixels carry no gradient.
        """
        offset, scale = self._per_band(values)
        if valid is not None:
            # Masked before the logarithm as well: where() alone would still send NaN back through it.
            values = torch.where(valid[:, None], values, 1.0)
        if self.log:
            values = (values.clamp(min=DARKEST) + self.log_offset).log()
        normalised = ((values - offset) / scale).clamp(-self.clip, self.clip)
        return normalised if valid is None else torch.where(valid[:, None], normalised, 0.0)

    def invert(self, normalised: Tensor) -> Tensor:
        """(B, C, H, W) normalised values back to physical ones; what was clipped stays clipped, at 1e-4 at least."""
        offset, scale = self._per_band(normalised)
        values = normalised * scale + offset
        return (values.exp() - self.log_offset).clamp(min=DARKEST) if self.log else values

    @classmethod
    def from_limits(
        cls, limits: Mapping[str, tuple[float, float]], *, log: bool, clip: float, log_offset: float = 0.0
    ) -> Normalisation:
        """Map the two physical values (low, high) of each band to -1 and 1.

        Raises:
            VaeError: Limits that are equal, out of order, or too dark for a logarithm; a negative offset.
        """
        _check_log_offset(log_offset)
        units = {
            band: tuple(math.log(max(end, DARKEST) + log_offset) if log else end for end in ends)
            for band, ends in limits.items()
        }
        for band, (low, high) in units.items():
            if not low < high:
                raise VaeError(
                    f"band {band} cannot be normalised from {limits[band][0]:g} to {limits[band][1]:g}"
                    + (f": its logarithm needs values above {DARKEST:g}, or set normalise.log=false" if log else "")
                )
        return cls(
            tuple(units),
            log,
            tuple((low + high) / 2 for low, high in units.values()),
            tuple((high - low) / 2 for low, high in units.values()),
            clip,
            log_offset,
        )

    def to_dict(self) -> dict[str, Any]:
        """For JSON; the inverse of `from_dict`."""
        return asdict(self)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Normalisation:
        """Rebuild from what `to_dict` gave."""

        def floats(numbers: Sequence[float]) -> tuple[float, ...]:
            return tuple(float(number) for number in numbers)

        return cls(
            bands=tuple(content["bands"]),
            log=bool(content["log"]),
            offset=floats(content["offset"]),
            scale=floats(content["scale"]),
            clip=float(content["clip"]),
            log_offset=float(content["log_offset"]),
        )

    def _per_band(self, values: Tensor) -> tuple[Tensor, Tensor]:
        if values.ndim != 4 or values.shape[1] != len(self.bands):
            raise ShapeError(
                f"expected tiles (B, {len(self.bands)}, H, W) of bands {', '.join(self.bands)}, "
                f"got {tuple(values.shape)}"
            )
        offset = values.new_tensor(self.offset).view(1, -1, 1, 1)
        scale = values.new_tensor(self.scale).view(1, -1, 1, 1)
        return offset, scale


def _check_log_offset(offset: float) -> None:
    if not (math.isfinite(offset) and offset >= 0):
        raise VaeError(f"logarithms cannot be taken after adding {offset}: use 0 or more for normalise.log_offset")
