"""Where the arithmetic is done, how exactly, and in which order it adds up."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch

from vae.errors import VaeError


def choose_device(device: Literal["auto", "cpu", "cuda"]) -> torch.device:
    """The device that is meant, `auto` being the GPU when there is one.

    Raises:
        VaeError: cuda was asked for and there is none.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise VaeError("device cuda was asked for, but torch finds no GPU here: use device auto or cpu")
    return torch.device("cuda" if device == "cuda" or (device == "auto" and torch.cuda.is_available()) else "cpu")


def choose_precision(precision: Literal["auto", "float32", "bf16"], device: torch.device) -> Literal["float32", "bf16"]:
    """The precision that is meant, `auto` being bf16 on a GPU that has it: on a CPU it seldom pays."""
    if precision != "auto":
        return precision
    return "bf16" if device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False) else "float32"


@contextmanager
def deterministic(device: torch.device) -> Iterator[None]:
    """On a GPU, take the slower kernels that add up in a fixed order; on a CPU all of ours do."""
    if device.type != "cuda":
        yield
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when cuBLAS starts
    before, warn_only = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        with torch.backends.cudnn.flags(deterministic=True, benchmark=False):
            yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=warn_only)
