"""Scores of change: what is seen, less what the past of the place and tonight's light let expect.

Differences are taken in units of what they usually are, channel by channel, learned from normal tiles. With a witness,
the last clear scene before tonight's, only what it shows as well counts: haze, cloud edges and shadows that no mask
caught are gone on the next clear date, and what happened on the ground is not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from vae.scores.evidence import Evidence
from vae.scores.registry import Learn, score
from vae.texture import WEIGHTS, packaged_weights, texture_maps

View = Callable[[Evidence, Tensor, Tensor], Tensor]

MOST_A_BATCH = 20_000  # pixels that scales are learned from
SMALLEST_SCALE = 1e-4  # normalised units
STEADIEST = 0.01  # of the usual scale of a view's channels
BANDS_WEIGHT = 0.25  # of the bands beside texture
SMOOTHING, REACH = 1.5, 6  # standard deviation of the Gaussian, and how far it reaches, pixels
CORE_STEPS, SOFTNESS = 4, 1.5  # of a robust covariance: steps, and scales at which a pixel's weight is a quarter
CONSISTENT = 1.3  # times it, of a normal distribution
TEXTURE = "texture."  # before the names of its weights among the constants


def agreed(tonight: Tensor, earlier: Tensor) -> Tensor:
    """What two dates agree on: the smaller of two differences of one sign, else nothing."""
    same = torch.sign(tonight) == torch.sign(earlier)
    return torch.where(same, torch.minimum(tonight.abs(), earlier.abs()), 0.0) * torch.sign(tonight)


def _bands(evidence: Evidence, x: Tensor, valid: Tensor) -> Tensor:
    return x


def _decoded(evidence: Evidence, x: Tensor, valid: Tensor) -> Tensor:
    return evidence.through(x, valid).expected


def _texture(evidence: Evidence, x: Tensor, valid: Tensor) -> Tensor:
    weights = {name: evidence.constant(f"{TEXTURE}{name}") for name in WEIGHTS}
    return texture_maps(evidence.photograph(x), weights)


def _smoothed(evidence: Evidence, x: Tensor, valid: Tensor) -> Tensor:
    """Gaussian mean over the valid pixels around, then along learned directions that vary apart."""
    known = valid[:, None].to(x.dtype)
    smooth = _gaussian(x * known) / _gaussian(known).clamp(min=1e-3) * known
    directions = evidence.constants.get("whitening")
    return smooth if directions is None else torch.einsum("ij,bjhw->bihw", directions.to(x.device), smooth)


def _gaussian(x: Tensor) -> Tensor:
    """(B, C, H, W) Gaussian sums, nothing beyond the edge."""
    steps = torch.arange(-REACH, REACH + 1, device=x.device)
    weights = torch.exp(-0.5 * (steps / SMOOTHING).square())
    weights = (weights / weights.sum()).to(x.dtype)
    channels = x.shape[1]
    rows = weights.view(1, 1, -1, 1).expand(channels, 1, -1, 1)
    x = F.conv2d(x, rows, padding=(REACH, 0), groups=channels)
    return F.conv2d(x, rows.transpose(2, 3), padding=(0, REACH), groups=channels)


VIEWS: dict[str, View] = {"bands": _bands, "smoothed": _smoothed, "decoded": _decoded, "texture": _texture}


def learn_scales(*views: str) -> Learn:
    """The usual size of the differences in each channel of some views, where tile and past are known."""

    def learn(evidences: Iterable[Evidence]) -> dict[str, Tensor]:
        found: dict[str, list[Tensor]] = {view: [] for view in views}
        weights = {f"{TEXTURE}{name}": part for name, part in packaged_weights().items()} if "texture" in views else {}
        for evidence in evidences:
            alone = replace(evidence, constants=weights, past=replace(evidence.before, witness=None))
            for view in views:
                tonight, _ = _differences(alone, view)
                tonight = _at_pixels(tonight, evidence.valid)
                seen = (evidence.valid & evidence.before.valid).flatten()
                pixels = tonight.movedim(1, -1).flatten(0, 2)[seen]
                found[view].append(pixels[:: max(len(pixels) // MOST_A_BATCH, 1)])
        together = {view: torch.cat(parts) for view, parts in found.items()}
        learned = {f"scale_{view}": usual_size(pixels.abs()) for view, pixels in together.items() if view != "smoothed"}
        if "smoothed" in together:
            learned |= {"whitening": whitening(together["smoothed"]), "scale_smoothed": torch.ones(1)}
        return weights | learned

    return learn


def usual_size(differences: Tensor) -> Tensor:
    """(K,) the usual size of (N, K) absolute differences: 1.4826 × their median in each channel.

    Where more than half are nothing at all (a band that is often clipped), 1.2533 × their mean, which is as much of a
    normal distribution. No channel is taken to be a hundred times as steady as they usually are.
    """
    scale = differences.median(dim=0).values * 1.4826
    scale = torch.where(scale > 0, scale, differences.mean(dim=0, dtype=torch.float64).float() * 1.2533)
    return scale.clamp(min=max(SMALLEST_SCALE, STEADIEST * float(scale.median())))


def whitening(differences: Tensor) -> Tensor:
    """(C, C) symmetric root of the inverse covariance of (N, C) differences, whatever a few of them are.

    Geman–McClure weights by the distance in units of the covariance itself (Maronna 1976).
    """
    pixels = differences.double()
    covariance = torch.diag(usual_size(differences.abs()).double().square())
    for _ in range(CORE_STEPS):
        distance = (pixels * torch.linalg.solve(covariance, pixels.T).T).mean(dim=1)
        weights = 1 / (1 + distance / SOFTNESS**2).square()
        covariance = CONSISTENT * (pixels * weights[:, None]).T @ pixels / weights.sum()
        covariance += SMALLEST_SCALE**2 * torch.eye(len(covariance)).to(covariance)
    variance, directions = torch.linalg.eigh(covariance)
    return (directions / variance.sqrt() @ directions.T).float()


def difference(evidence: Evidence, view: str) -> Tensor:
    """(B, K, H, W) agreed difference of a view in usual sizes; 0 where either image is masked."""
    tonight, earlier = _differences(evidence, view)
    scale = evidence.constant(f"scale_{view}").view(1, -1, 1, 1)
    found = _at_pixels(agreed(tonight, earlier) / scale, evidence.valid)
    return torch.where((evidence.valid & evidence.before.valid)[:, None], found, 0.0)


def off_bands(evidence: Evidence) -> Tensor:
    """(B, C, H, W) how far each band is off what was to be expected, normalised units."""
    return agreed(*evidence.differences(lambda x, valid: x)).abs()


def _differences(evidence: Evidence, view: str) -> tuple[Tensor, Tensor]:
    return evidence.differences(lambda x, valid: VIEWS[view](evidence, x, valid))


def _at_pixels(values: Tensor, valid: Tensor) -> Tensor:
    """Maps of a coarser grid, (B, K, h, w), at every pixel."""
    if values.shape[-2:] == valid.shape[-2:]:
        return values
    return F.interpolate(values, size=valid.shape[-2:], mode="bilinear", align_corners=False)


@score("difference", "past")
def plain_difference(evidence: Evidence) -> Tensor:
    """(B, H, W) mean over the bands of the squared difference, normalised units: all bands alike, nothing learned."""
    tonight, earlier = evidence.differences(lambda x, valid: x)
    return agreed(tonight, earlier).square().mean(dim=1)


@score("aligned_difference", "past", learn=learn_scales("bands"))
def aligned_difference(evidence: Evidence) -> Tensor:
    """(B, H, W) mean over the bands of the difference in usual sizes: no network at all.

    The mean of absolute values, not of squares: of urban change and crops alike, one band that differs much is
    phenology more often than an event.
    """
    return difference(evidence, "bands").abs().mean(dim=1)


@score("decoded_difference", "network", "past", learn=learn_scales("decoded"))
def decoded_difference(evidence: Evidence) -> Tensor:
    """(B, H, W) the same between what the network makes of the tile and of what was to be expected: without noise."""
    return difference(evidence, "decoded").abs().mean(dim=1)


@score("decoded_and_pixel", "network", "past", learn=learn_scales("bands", "decoded"))
def decoded_and_pixel(evidence: Evidence) -> dict[str, Tensor]:
    """Both: the pixels see small changes, the decoded image those that are spread out."""
    return {name: difference(evidence, name).abs().mean(dim=1) for name in ("bands", "decoded")}


@score("texture_difference", "past", "visible", learn=learn_scales("texture"))
def texture_difference(evidence: Evidence) -> Tensor:
    """(B, H, W) the same of texture: the first layers of a network for photographs (`vae.texture`)."""
    return difference(evidence, "texture").abs().mean(dim=1)


@score("change", "past", "visible", learn=learn_scales("smoothed", "texture"))
def change(evidence: Evidence) -> dict[str, Tensor]:
    """The default where there is a past: differences of texture and of the smoothed bands, each in its usual size.

    Texture tells what people build from what grows and is ploughed; the bands see what has no texture. Smoothed, what
    lies half a pixel off is forgiven, and whitened, so is what light and season move alike. See `docs/detection.md` for
    what else was tried.
    """
    bands, texture = (difference(evidence, name).abs().mean(dim=1) for name in ("smoothed", "texture"))
    return {"texture": texture, "bands": BANDS_WEIGHT * bands}
