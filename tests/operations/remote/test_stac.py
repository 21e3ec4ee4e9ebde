"""Scenes of a STAC API or a static catalog give what the same files give from a folder."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import ExitStack
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest

from configs import Workspace
from configs.schema import SourceSettings
from imagery.catalog import SceneRecord
from imagery.errors import ImageryError
from imagery.sources import find_scenes
from tests.items import asset, item, write_catalog
from tests.operations.remote.scenes import (
    DAYS,
    api_behind,
    check_same,
    failing,
    ingest,
    items_of,
    settings_of,
    write_scenes,
)
from tests.servers import failing_proxy, stac_api, upload, web_folder

pytestmark = pytest.mark.servers


@pytest.mark.parametrize("fault", [None, "503", "truncated", "gone"])
def test_items_of_a_stac_api_give_what_their_files_give_from_a_folder_whatever_fails(
    tmp_path: Path, endpoint: str, use_endpoint: Callable[[str], None], fault: Any
) -> None:
    """The API and the store that it points at both fail."""
    root, bucket = write_scenes(tmp_path / "scenes"), f"stac-{fault}"
    upload(endpoint, bucket, root)
    away = item("away", {"image": asset("s3://nowhere/a.tif")}, box=(100, 10, 101, 11))
    with ExitStack() as stack:
        store, _ = stack.enter_context(failing(endpoint, fault, tmp_path)) if fault else (endpoint, None)
        use_endpoint(store)
        items = [*items_of(f"s3://{bucket}"), away]
        url, requests = stack.enter_context(api_behind(tmp_path / "api", items, fault))

        check_same(settings_of(kind="stac", url=url), settings_of(root=root), tmp_path)

    assert fault in (None, "truncated") or requests.failed >= 1


def test_a_stac_api_is_asked_page_by_page_for_the_place_the_time_the_collection_and_the_clouds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("imagery.sources.stac_catalogs.PAGE", 10)
    days = [date(2024, 1, 1) + timedelta(days=number) for number in range(45)]
    items = items_of("https://scenes.example", days)
    items[20]["collection"] = "other"
    items[21]["properties"]["eo:cloud_cover"] = 90
    with api_behind(tmp_path, items, "503") as (url, requests):
        source = {"kind": "stac", "url": url, "since": date(2024, 1, 11)}
        settings = settings_of(stac={"collections": ["scenes"], "max_cloud": 50}, **source)

        found = find_scenes(settings.source, settings.locations)

    expected = [day for number, day in enumerate(days) if number >= 10 and number not in (20, 21)]
    assert [scene.acquired.date() for scene in found.scenes] == expected
    assert found.skipped == ()
    assert sum(path.startswith("/search") and not failed for _, path, failed in requests.seen) >= 4


def test_a_stac_api_needs_locations(tmp_path: Path) -> None:
    with stac_api(tmp_path, items_of("https://scenes.example")) as url:
        source = SourceSettings(kind="stac", url=url, location="here")

        with pytest.raises(ImageryError, match="searched by place: set locations"):
            find_scenes(source)


@pytest.mark.parametrize("href", ["file:///etc/passwd.tif", "ftp://scenes.example/a.tif"])
def test_items_of_an_api_may_not_point_at_this_machine(tmp_path: Path, href: str) -> None:
    items = items_of("https://scenes.example")
    items[1]["assets"]["image"]["href"] = href
    with stac_api(tmp_path, items) as url:
        settings = settings_of(kind="stac", url=url)

        found = find_scenes(settings.source, settings.locations)

    assert len(found.scenes) == 2
    ((name, reason),) = found.skipped
    assert name == f"scene-{DAYS[1]}"
    assert "only http, https and s3 are opened" in reason


def test_a_new_signature_is_kept_for_the_next_reading_and_nothing_is_read_for_it(tmp_path: Path) -> None:
    root, workspace = write_scenes(tmp_path / "scenes"), Workspace(tmp_path / "workspace")
    with (
        web_folder(root) as behind,
        failing_proxy(behind, "503", tmp_path / "requests", every=10**6) as (url, requests),
    ):
        settings = settings_of(kind="stac", root=tmp_path / "catalog")

        def signed(signature: str) -> list[SceneRecord]:
            items = items_of(url)
            for one in items:
                one["assets"]["image"]["href"] += f"?sig={signature}"
            write_catalog(tmp_path / "catalog", items)
            return ingest(settings, workspace)

        first = signed("one")
        asked = len(requests.seen)
        second = signed("two")

    assert all("sig=one" in path for _, path, _ in requests.seen)
    assert len(requests.seen) == asked
    assert all(record.files[0].path.endswith("?sig=two") for record in second)
    assert [record.ingested_at for record in second] == [record.ingested_at for record in first]


@pytest.mark.parametrize("where", ["http", "s3"])
@pytest.mark.parametrize("fault", [None, "503"])
def test_a_static_catalog_elsewhere_gives_what_its_files_give_from_a_folder(
    tmp_path: Path, endpoint: str, use_endpoint: Callable[[str], None], where: str, fault: Any
) -> None:
    root, bucket = write_scenes(tmp_path / "scenes"), f"static-{fault}"
    items = items_of(".")
    for one in items:
        one["assets"]["image"]["href"] = "." + one["assets"]["image"]["href"]  # the children lie one folder deeper
    write_catalog(root, [], children={"below": items})
    upload(endpoint, bucket, root)
    with ExitStack() as stack:
        behind = endpoint if where == "s3" else stack.enter_context(web_folder(root))
        url = stack.enter_context(failing(behind, fault, tmp_path))[0] if fault else behind
        use_endpoint(url)
        catalog = f"s3://{bucket}/catalog.json" if where == "s3" else f"{url}/catalog.json"

        check_same(settings_of(kind="stac", url=catalog), settings_of(root=root), tmp_path)


def test_a_catalog_elsewhere_may_not_point_at_this_machine(tmp_path: Path) -> None:
    write_catalog(tmp_path, [item("one", {"B04": asset("file:///etc/passwd.tif")})])
    catalog = json.loads((tmp_path / "catalog.json").read_text())
    catalog["links"].append({"rel": "item", "href": f"file://{tmp_path}/one.json"})
    (tmp_path / "catalog.json").write_text(json.dumps(catalog))
    with web_folder(tmp_path) as url:
        found = find_scenes(SourceSettings(kind="stac", url=f"{url}/catalog.json", location="here", bands=("B04",)))

    assert found.scenes == ()
    assert [name for name, _ in found.skipped] == [f"file://{tmp_path}/one.json", "one"]
