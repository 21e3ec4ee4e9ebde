"""Memory that is kept between two batches."""

from __future__ import annotations

import platform
import resource
import subprocess
import sys

import pytest

FAULTS = """
import resource, sys
import torch
from vae.memory import memory_kept

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):  # four blocks of 24 MB, as layers of a network would ask for, freed together
        layers = [torch.ones(6 * 2**20) for _ in range(4)]
        del layers
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

with memory_kept():
    faults()
    kept = faults()
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
after = int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize() / 1024
print(kept, faults(), most - after)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="memory is kept by glibc alone")
def test_memory_serves_again_within_and_is_given_back_after() -> None:
    found = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True)
    kept, anew, given_back = map(float, found.stdout.split())
    page = resource.getpagesize()
    blocks = 20 * 4 * 24 * 2**20 / page
    assert kept < blocks / 100  # nothing is mapped anew
    assert anew > 10 * max(kept, 100)  # as it is without; pages may be huge ones, and so few
    assert given_back > 40 * 1024  # kilobytes: two of the blocks at least


def test_what_fails_within_is_told() -> None:
    from vae.memory import memory_kept

    with pytest.raises(ValueError, match="told"), memory_kept():
        raise ValueError("told")
