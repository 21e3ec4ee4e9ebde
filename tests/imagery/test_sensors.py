"""Which sensor took a scene: told by the names that agencies give to products, and by nothing else."""

from __future__ import annotations

import pytest

from imagery.sensors import sensor_of
from imagery.sources import SceneFile


@pytest.mark.parametrize(
    ("path", "sensor"),
    [
        ("/a/S2A_MSIL2A_20180101T092401_N0206_R093_T35TMK_20180101T111851.SAFE/GRANULE/x/T35TMK_B04_10m.jp2", "S2A"),
        ("/a/S2B_OPER_MSI_L1C_TL_SGS__20170701T104021_A010562_T35TMK_B04.jp2", "S2B"),
        ("/vsizip/{/a/S2A_MSIL1C_20160401T092032_N0201_R093_T35TMK.zip}/IMG_DATA/T35TMK_B04.jp2", "S2A"),
        ("/vsicurl/https://example.org/sentinel-s2-l2a-cogs/36/Q/WD/S2A_36QWD_20200701_0_L2A/B04.tif?sig=S2B_x", "S2A"),
        ("/a/LC08_L2SP_193027_20200701_20200913_02_T1_SR_B4.TIF", "LC08"),
        ("/a/LT05_L1TP_193027_19990701_20180216_01_T1_B4.TIF", "LT05"),
        ("/archive/S2A_scenes/S2B_MSIL2A_20180101T092401/B04.tif", "S2B"),  # the name nearest to the file
    ],
)
def test_products_tell_it(path: str, sensor: str) -> None:
    assert sensor_of([SceneFile("B04", path)]) == sensor


@pytest.mark.parametrize("path", ["/a/2018-01-01.tif", "/a/LC8.tif", "/a/XS2A_b.tif", "/a/S2A.tif", "/a/S2_A_b.tif"])
def test_other_names_tell_nothing(path: str) -> None:
    assert sensor_of([SceneFile("", path)]) is None


def test_files_of_several_sensors_tell_nothing_together() -> None:
    files = [SceneFile("B04", "/a/S2A_MSIL2A_x/B04.tif"), SceneFile("B08", "/a/S2B_MSIL2A_x/B08.tif")]
    assert sensor_of(files) is None
    assert sensor_of([]) is None
