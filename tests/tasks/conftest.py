"""A watched place without a network, made once."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.places import Watched, watched


@pytest.fixture(scope="session")
def place_once(tmp_path_factory: pytest.TempPathFactory) -> Watched:
    """The watched place. Tests that change it work on a copy: `place`."""
    return watched(tmp_path_factory.mktemp("place"))


@pytest.fixture
def place(place_once: Watched, tmp_path: Path) -> Watched:
    """The watched place in a folder of its own."""
    return place_once.copied(tmp_path / "place")
