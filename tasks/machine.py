"""What torch computes on here."""

from __future__ import annotations

import torch

from vae.device import choose_device


def torch_words() -> str:
    """Version and device, after a sum was computed there."""
    device = choose_device("auto")
    if float(torch.ones(8, device=device).sum()) != 8:
        raise RuntimeError(f"torch adds up wrongly on {device}")
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    return f"{torch.__version__} on {name}"
