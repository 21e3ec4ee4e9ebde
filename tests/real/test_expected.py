"""Expected images of real scenes: closer than an aligned reference, in ten cities and over years of a forest."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rasterio

from configs import Settings, Workspace
from imagery.catalog import Catalog, SceneRecord
from imagery.expected import Transform
from tasks.ingest import open_scene
from tasks.reference import usual_of
from tests.rasters import whole
from tests.real.conftest import ingested, preset

TEN = "[B02,B03,B04,B05,B06,B07,B08,B8A,B11,B12]"
SPREAD = 1.4826  # of a normal distribution, in median absolute deviations


class Compared:
    """A scene beside what was to be expected of it, in units of comparison; (C, H, W), and (H, W) where all is known.

    Attributes:
        usual: What it was compared with.
        aligned: Scene less its reference, mapped to its radiometry.
        expected: Scene less the image that was expected.
        valid: Where both are known.
    """

    def __init__(self, record: SceneRecord, settings: Settings, workspace: Workspace) -> None:
        usual, transform = usual_of(record, settings, workspace), Transform.of(settings.normalise)
        assert usual is not None
        self.usual, alignment = usual, usual.alignment
        with (
            usual.open_past(settings, workspace) as past,
            usual.reference.open() as reference,
            open_scene(record.scene, settings, workspace, alignment.registration.correction) as scene,
        ):
            window = whole(scene.grid)
            old, count = reference.read(window)
            new, found = scene.read(window), past.read(window) if past else None
        assert found is not None
        now = transform.forward(new.values)
        self.aligned = now - transform.forward(alignment.alignment.apply(old))
        self.expected = now - transform.forward(found.values)
        self.valid = new.valid & found.valid & (count > 0)

    def left(self) -> tuple[float, float]:
        """Logarithm of what the reference and the expected image leave over, mean over the bands."""
        both = (self.aligned, self.expected)
        mads = [SPREAD * np.median(np.abs(off[:, self.valid]), axis=1) for off in both]
        seen = np.minimum(*mads) > 1e-6  # a band that is as dark as can be leaves nothing
        aligned, expected = (float(np.log(mad[seen]).mean()) for mad in mads)
        return aligned, expected


def rank_of(difference: np.ndarray, event: np.ndarray, valid: np.ndarray) -> float:
    """How often a pixel of an event differs more than one outside (AUROC)."""
    scale = SPREAD * np.median(np.abs(difference[:, valid]), axis=1)
    score = np.abs(difference / scale[:, None, None]).mean(axis=0)
    order, inside = np.argsort(np.argsort(score[valid])), event[valid]
    return float((order[inside].mean() - (inside.sum() - 1) / 2) / (~inside).sum())


@pytest.mark.slow
def test_one_earlier_date_and_its_surroundings_are_closer_than_an_affine_map_of_it(
    shared: Callable[[str], Path], tmp_path: Path
) -> None:
    settings = preset("oscd", shared("oscd"), f"source.bands={TEN}", "reference.max_age=2000", "reference.seasonal=0")
    workspace = Workspace(tmp_path / "workspace")
    ingested(settings, workspace)
    cities = sorted({record.location for record in Catalog(workspace).scenes()})
    left, ranks = [], []
    for city in cities:
        compared = Compared(Catalog(workspace).scenes([city])[-1], settings, workspace)
        assert compared.usual.expectation.reason is None
        assert len(compared.usual.expectation.regressors) == 1
        assert compared.usual.expectation.witness is None
        left.append(compared.left())
        with rasterio.open(shared("oscd") / city / "change.tif") as dataset:
            changed = dataset.read(1) > 0
        ranks.append([rank_of(off, changed, compared.valid) for off in (compared.aligned, compared.expected)])

    assert len(cities) == 10
    assert all(expected < aligned for aligned, expected in left)
    aligned, expected = np.mean(ranks, axis=0)
    assert expected > aligned


@pytest.mark.slow
def test_ten_single_dates_are_much_closer_than_their_median(shared: Callable[[str], Path], tmp_path: Path) -> None:
    settings, workspace = preset("romania", shared("romania_s2")), Workspace(tmp_path / "workspace")
    records, _ = ingested(settings, workspace)
    clear = [record for record in records if record.day.year >= 2019 and record.valid_fraction > 0.8]
    left, confirmed = [], 0
    for record in clear[::3]:
        compared = Compared(record, settings, workspace)
        left.append(compared.left())
        confirmed += compared.usual.expectation.confirms
        assert len(compared.usual.expectation.members) <= 11

    assert len(left) >= 10
    assert confirmed > 0.8 * len(left)
    aligned, expected = np.transpose(left)
    assert (expected < aligned).all()
    assert expected.mean() < aligned.mean() - 0.35  # a third less
