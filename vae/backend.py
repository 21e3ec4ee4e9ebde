"""What runs the networks, and how it is kept from rounding otherwise from one call to the next."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import numpy as np
import torch

BATCH = 64  # the network always sees this many tiles: other sizes choose other kernels, which round otherwise


def filled(values: np.ndarray, valid: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Some rows of tiles (N, C, H, W) and masks (N, H, W), followed by empty tiles up to the size of a batch."""
    batch = np.zeros((BATCH, *values.shape[1:]), dtype=np.float32)
    mask = np.zeros((BATCH, *valid.shape[1:]), dtype=bool)
    batch[: len(rows)], mask[: len(rows)] = values[rows], valid[rows]
    return batch, mask


def exact(device: torch.device) -> AbstractContextManager[None]:
    """On a GPU: full float32 and one fixed kernel. A CPU needs nothing, and these flags are shared by all threads."""
    if device.type != "cuda":
        return nullcontext()
    return torch.backends.cudnn.flags(deterministic=True, benchmark=False, allow_tf32=False)


def runtime_of(device: torch.device) -> dict[str, str]:
    """Backend, device type, dtype and torch version."""
    version = ".".join(torch.__version__.split("+")[0].split(".")[:2])
    return {"backend": "torch-eager", "device": device.type, "dtype": "float32", "torch": version}
