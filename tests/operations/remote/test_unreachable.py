"""What is down, damaged, not there or not installed is said in words, and tried again."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from configs import Workspace
from configs.schema import SourceSettings
from imagery.errors import ImageryError
from imagery.quarantine import Quarantine
from imagery.sources import find_scenes
from imagery.sources.storage import gdal_options
from tasks.ingest import ingest_scene, plan_ingest, settle_grids
from tests.operations.remote.scenes import (
    DAYS,
    ingest,
    settings_of,
    write_scenes,
)
from tests.servers import failing_proxy, upload

pytestmark = pytest.mark.servers


def test_a_scene_whose_server_is_down_is_quarantined_with_its_name_and_tried_again_the_next_time(
    tmp_path: Path, endpoint: str, use_endpoint: Callable[[str], None]
) -> None:
    root, workspace = write_scenes(tmp_path / "scenes"), Workspace(tmp_path / "workspace")
    upload(endpoint, "down", root)
    use_endpoint(endpoint)
    settings = settings_of(url="s3://down", retries=1, timeout=5)
    plan = plan_ingest(settings, workspace)
    settle_grids(plan.scenes, settings, workspace)
    with failing_proxy(endpoint, "503", tmp_path / "requests", every=1) as (broken, requests):
        use_endpoint(broken)
        reason = ingest_scene(plan.scenes[0], settings, workspace).reason

    assert reason is not None
    assert f"/vsis3/down/here/{DAYS[0]}.tif" in reason
    assert requests.failed >= 2
    use_endpoint(endpoint)
    again = plan_ingest(settings, workspace)
    assert again.quarantined == 0
    assert len(again.scenes) == len(DAYS)
    assert len(ingest(settings, workspace)) == len(DAYS)
    assert Quarantine(workspace).records() == []


def test_a_damaged_file_in_the_store_is_quarantined_in_words(
    tmp_path: Path, endpoint: str, use_endpoint: Callable[[str], None]
) -> None:
    root, workspace = write_scenes(tmp_path / "scenes"), Workspace(tmp_path / "workspace")
    damaged = root / "here" / f"{DAYS[2]}.tif"
    damaged.write_bytes(damaged.read_bytes()[:-4000])
    upload(endpoint, "damaged", root)
    use_endpoint(endpoint)
    settings = settings_of(url="s3://damaged", retries=1)
    plan = plan_ingest(settings, workspace)
    settle_grids(plan.scenes, settings, workspace)

    reasons = [ingest_scene(scene, settings, workspace).reason for scene in plan.scenes]

    assert reasons[:2] == [None, None]
    assert f"/vsis3/damaged/here/{DAYS[2]}.tif" in str(reasons[2])


@pytest.mark.parametrize(
    ("url", "told"), [("s3://no-such-bucket/scenes", "no-such-bucket"), ("http://127.0.0.1:9", "127.0.0.1:9")]
)
def test_a_source_that_cannot_be_reached_is_named(
    endpoint: str, use_endpoint: Callable[[str], None], url: str, told: str
) -> None:
    use_endpoint(endpoint)

    with pytest.raises(ImageryError, match=r"cannot be reached.*source\.url") as caught:
        find_scenes(settings_of(url=url, index="index.txt", retries=0, timeout=2).source)

    assert told in str(caught.value)


@pytest.mark.parametrize("kind", ["files", "stac"])
def test_without_the_extra_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    for module in ("remote", "stac", "stac_catalogs"):
        monkeypatch.delitem(sys.modules, f"imagery.sources.{module}", raising=False)
    for package in ("obstore", "pystac_client"):
        monkeypatch.setitem(sys.modules, package, None)

    with pytest.raises(ImageryError, match=r"pip install 'tilewatch\[remote\]'"):
        find_scenes(settings_of(kind=kind, url="s3://scenes").source)


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, {}),
        (
            {"AWS_ENDPOINT_URL": "http://127.0.0.1:9000/"},
            {"AWS_S3_ENDPOINT": "127.0.0.1:9000", "AWS_HTTPS": "NO", "AWS_VIRTUAL_HOSTING": "FALSE"},
        ),
        (
            {"AWS_ENDPOINT_URL": "http://127.0.0.1:1", "AWS_ENDPOINT_URL_S3": "https://store.example/s3"},
            {"AWS_S3_ENDPOINT": "store.example/s3", "AWS_HTTPS": "YES", "AWS_VIRTUAL_HOSTING": "FALSE"},
        ),
    ],
)
def test_gdal_gets_the_endpoint_that_other_tools_share(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], expected: dict[str, str]
) -> None:
    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    options = gdal_options(SourceSettings(url="s3://scenes"))

    assert {name: value for name, value in options.items() if name.startswith("AWS")} == expected
