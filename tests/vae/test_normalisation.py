"""Normalisation: physical values there and back, and what cannot be normalised."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.vae.conftest import make_normalisation
from vae.errors import VaeError
from vae.normalisation import Normalisation


def test_normalising_and_back_gives_the_physical_values():
    normalisation = make_normalisation()
    values = torch.rand(2, 3, 8, 8) * 0.5 + 0.05
    torch.testing.assert_close(normalisation.invert(normalisation.apply(values)), values)
    limits = torch.tensor([0.03, 0.6]).expand(1, 3, 1, 2)
    torch.testing.assert_close(normalisation.apply(limits)[0, 0, 0], torch.tensor([-1.0, 1.0]))
    assert Normalisation.from_dict(normalisation.to_dict()) == normalisation


@settings(max_examples=50, deadline=None)
@given(offset=st.floats(0, 1), physical=st.floats(1e-4, 2), log=st.booleans())
def test_values_come_back_whatever_is_added_before_the_logarithm(offset, physical, log):
    normalisation = Normalisation.from_limits({"B2": (0.01, 0.5)}, log=log, clip=20.0, log_offset=offset)
    value = torch.full((1, 1, 1, 1), physical)
    assert float(normalisation.invert(normalisation.apply(value))) == pytest.approx(physical, rel=1e-3, abs=1e-5)
    ends = normalisation.apply(torch.tensor([0.01, 0.5]).view(1, 1, 1, 2)).flatten()
    torch.testing.assert_close(ends, torch.tensor([-1.0, 1.0]), rtol=1e-4, atol=1e-4)
    assert Normalisation.from_dict(normalisation.to_dict()) == normalisation


def test_an_offset_before_the_logarithm_leaves_dark_ground_alone():
    dark = torch.tensor([0.002, 0.004]).view(1, 1, 1, 2)
    steps = [
        float(Normalisation.from_limits({"B2": (0.01, 0.5)}, log=True, clip=20.0, log_offset=offset).apply(dark).diff())
        for offset in (0.0, 0.1)
    ]
    assert steps[1] < 0.1 * steps[0]


def test_what_a_network_makes_of_a_tile_is_never_darker_than_a_logarithm_can_tell():
    normalisation = make_normalisation(log_offset=0.1)
    assert float(normalisation.invert(torch.full((1, 3, 2, 2), -5.0)).min()) == pytest.approx(1e-4)


@pytest.mark.parametrize("offset", [-0.1, math.nan, math.inf])
def test_an_offset_without_a_logarithm_is_refused(offset):
    with pytest.raises(VaeError, match="log_offset"):
        make_normalisation(log_offset=offset)
    with pytest.raises(VaeError, match="log_offset"):
        Normalisation(("B2",), True, (0.0,), (1.0,), 3.0, offset)


def test_a_constant_band_cannot_be_normalised():
    with pytest.raises(VaeError, match="B8"):
        Normalisation(("B2", "B8"), False, (0.0, 0.0), (1.0, 0.0), 3.0)
