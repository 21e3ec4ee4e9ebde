"""Detectors that were saved by earlier versions, as this one would have saved them.

Settings that did not exist then have their defaults, with which a network works as it did. Only names have to be
changed here: a version that changes what numbers mean must refuse what was saved before.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TypeVar

T = TypeVar("T")

OLDEST = 2  # the first format that can still be read


def renamed(tensors: Mapping[str, T], format_: int, depth: int) -> dict[str, T]:
    """Tensors by the names that they have now.

    Args:
        tensors: By the names that they were saved by.
        format_: Of the file.
        depth: Stages of the networks.
    """
    return dict(tensors) if format_ > 2 else {_since_3(name, depth): tensor for name, tensor in tensors.items()}


def _since_3(name: str, depth: int) -> str:
    """Up to format 2, encoder and decoder were one sequence of layers each, the posterior the encoder's last layer."""
    found = re.fullmatch(r"(network/\d+/)(encoder|decoder)\.(\d+)\.(.+)", name)
    if found is None:
        return name
    network, part, layer, rest = found[1], found[2], int(found[3]), found[4]
    place: dict[str, Callable[[int], str]] = {"encoder": lambda n: _encoder(n, depth), "decoder": _decoder}
    return f"{network}{place[part](layer)}.{rest}"


def _encoder(layer: int, depth: int) -> str:
    """A stage was a convolution and its refinement; the head followed a layer without weights."""
    return "posterior.head" if layer == 2 * depth + 1 else f"encoder.stages.{layer // 2}.{layer % 2}"


def _decoder(layer: int) -> str:
    """A stage was a refinement, a layer without weights, and what doubles the resolution, after the entry."""
    return "decoder.entry" if layer == 0 else f"decoder.stages.{(layer - 1) // 3}.{(layer - 1) % 3}"
