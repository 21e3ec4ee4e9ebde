"""Scenes in an object store give what the same files give from a folder, whatever fails."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from configs import Workspace
from imagery.sources import find_scenes
from tasks.ingest import plan_ingest
from tests.operations.remote.scenes import (
    DAYS,
    LAYOUT,
    SIDE,
    check_same,
    failing,
    footprint,
    ingest,
    settings_of,
    write_scenes,
)
from tests.products import tarred, write_landsat, write_safe, zipped
from tests.rasters import BANDS, ground, write_raster
from tests.servers import Fault, failing_proxy, upload

pytestmark = pytest.mark.servers


@pytest.mark.parametrize("fault", [None, "503", "truncated", "gone"])
def test_files_in_an_object_store_give_what_they_give_from_a_folder_whatever_fails(
    tmp_path: Path, endpoint: str, use_endpoint: Callable[[str], None], fault: Any
) -> None:
    root, bucket = write_scenes(tmp_path / "scenes"), f"files-{fault}"
    upload(endpoint, bucket, root)
    with ExitStack() as stack:
        url, requests = stack.enter_context(failing(endpoint, fault, tmp_path)) if fault else (endpoint, None)
        use_endpoint(url)

        check_same(settings_of(url=f"s3://{bucket}"), settings_of(root=root), tmp_path)

    assert requests is None or requests.failed >= 2


@pytest.mark.parametrize("fault", ["503", "truncated", "gone"])
def test_a_listing_is_whole_although_every_second_request_fails(
    tmp_path: Path, endpoint: str, use_endpoint: Callable[[str], None], fault: Fault
) -> None:
    products = [write_safe(tmp_path / "a", {"B02_10m": b"a"}, start=f"202406{day:02d}T100000") for day in range(1, 9)]
    upload(endpoint, f"listing-{fault}", tmp_path / "a")
    source = settings_of(kind="sentinel2", url=f"s3://listing-{fault}").source
    with failing_proxy(endpoint, fault, tmp_path / "requests", every=2) as (url, requests):
        use_endpoint(url)

        listings = [find_scenes(source) for _ in range(3)]

    assert [len(found.scenes) for found in listings] == [len(products)] * 3
    assert [found.skipped for found in listings] == [()] * 3
    assert requests.failed >= 20


def test_pixels_come_although_every_second_request_is_refused(
    tmp_path: Path, endpoint: str, use_endpoint: Callable[[str], None]
) -> None:
    root = write_scenes(tmp_path / "scenes", DAYS[:1])
    upload(endpoint, "second", root)
    with failing_proxy(endpoint, "503", tmp_path / "requests", every=2) as (url, _):
        use_endpoint(url)

        check_same(settings_of(url="s3://second"), settings_of(root=root), tmp_path, scenes=1)


def test_a_prefix_is_the_root_of_the_names(tmp_path: Path, endpoint: str, use_endpoint: Callable[[str], None]) -> None:
    upload(endpoint, "prefix", write_scenes(tmp_path / "all" / "a" / "scenes").parents[1])
    use_endpoint(endpoint)

    scenes = find_scenes(settings_of(url="s3://prefix/a/scenes/").source).scenes

    assert [scene.files[0].path for scene in scenes] == [
        f"/vsis3/prefix/a/scenes/here/{day}.tif" for day in DAYS
    ]  # fmt: skip
    assert find_scenes(settings_of(url="s3://prefix/a").source).scenes == ()


def test_a_public_bucket_needs_no_credentials(tmp_path: Path, endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write_scenes(tmp_path / "scenes", DAYS[:1])
    upload(endpoint, "public", root, public=True)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    monkeypatch.setenv("AWS_NO_SIGN_REQUEST", "YES")

    check_same(settings_of(url="s3://public"), settings_of(root=root), tmp_path, scenes=1)


def test_a_file_that_was_replaced_in_the_store_is_read_again(
    tmp_path: Path, endpoint: str, use_endpoint: Callable[[str], None]
) -> None:
    root, workspace = write_scenes(tmp_path / "scenes"), Workspace(tmp_path / "workspace")
    upload(endpoint, "replaced", root)
    use_endpoint(endpoint)
    settings = settings_of(url="s3://replaced")
    before = [record.stats["B02"].mean for record in ingest(settings, workspace)]
    write_raster(root / "here" / f"{DAYS[1]}.tif", ground(SIDE, SIDE, seed=9), **LAYOUT)
    upload(endpoint, "replaced", root)

    plan = plan_ingest(settings, workspace)
    after = [record.stats["B02"].mean for record in ingest(settings, workspace)]

    assert [scene.scene_id for scene in plan.scenes] == [f"here/{DAYS[1]}"]
    assert [one == other for one, other in zip(before, after, strict=True)] == [True, False, True]


@pytest.mark.parametrize("archived", [False, True], ids=["folder", "archive"])
@pytest.mark.parametrize("kind", ["sentinel2", "landsat"])
@pytest.mark.parametrize("fault", [None, "503"])
def test_products_in_an_object_store_give_what_they_give_from_a_folder(
    tmp_path: Path, endpoint: str, use_endpoint: Callable[[str], None], kind: str, archived: bool, fault: Any
) -> None:
    root, bucket = tmp_path / "products", f"{kind}-{archived}-{fault}".lower()
    corners, ending = footprint(), ".jp2" if kind == "sentinel2" else ".tif"
    for seed, day in enumerate(DAYS):
        images = {
            band: write_raster(
                tmp_path / "images" / f"{day}{band}{ending}", {band: numbers}, described=False,
                **({"driver": "JP2OpenJPEG", "quality": 100, "reversible": True} if kind == "sentinel2" else LAYOUT),
            )
            for band, numbers in ground(SIDE, SIDE, seed=seed).items()
        }  # fmt: skip
        if kind == "sentinel2":
            start = f"{day:%Y%m%d}T100000"
            named = {f"{band}_10m": path for band, path in images.items()}
            product = write_safe(root, named, tile="34TEP", start=start, corners=corners)
        else:
            named = {f"SR_B{band[2:]}": path for band, path in images.items()}
            product = write_landsat(root, named, day=str(day), corners=corners)
        if archived:
            zipped(product) if kind == "sentinel2" else tarred(product)
    upload(endpoint, bucket, root)
    source: dict[str, Any] = {
        "kind": kind,
        "names": {band: f"B{band[2:]}" for band in BANDS} if kind == "landsat" else {},
    }
    with ExitStack() as stack:
        use_endpoint(stack.enter_context(failing(endpoint, fault, tmp_path))[0] if fault else endpoint)

        check_same(settings_of(url=f"s3://{bucket}", **source), settings_of(root=root, **source), tmp_path)
