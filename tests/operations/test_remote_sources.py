"""Scenes that lie elsewhere, on real servers: an object store, a web folder, a STAC API; and when these fail."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from datetime import date, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pandas as pd
import pytest
from pyproj import Transformer

from configs import Settings, Workspace
from configs.schema import SourceSettings
from imagery.catalog import Catalog, SceneRecord
from imagery.errors import ImageryError
from imagery.quarantine import Quarantine
from imagery.sources import find_scenes, remote, stac_catalogs, storage
from imagery.sources.storage import gdal_options
from tasks.ingest import ingest_scene, plan_ingest, settle_grids
from tests.items import asset, item, write_catalog
from tests.products import tarred, write_landsat, write_safe, zipped
from tests.rasters import BANDS, NORTH, UTM, WEST, ground, write_raster
from tests.servers import Fault, Requests, failing_proxy, free_port, object_store, stac_api, upload, web_folder

pytestmark = pytest.mark.servers

ROOT = Path(__file__).parents[2]
SIDE = 256
DAYS = [date(2024, 6, 1) + timedelta(days=5 * number) for number in range(3)]
LAYOUT = {"tiled": True, "blockxsize": 64, "blockysize": 64, "compress": "deflate", "interleave": "band"}
PLACE = {"crs": UTM, "bounds": (WEST, NORTH - SIDE * 10, WEST + SIDE * 10, NORTH), "resolution": 10.0}


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seconds of waiting would make minutes of tests."""
    for module in (storage, remote, stac_catalogs):
        monkeypatch.setattr(module, "FIRST_WAIT", 0.02)


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with object_store(tmp_path_factory.mktemp("store")) as url:
        yield url


@pytest.fixture
def use_endpoint(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Lets the environment name an object store."""

    def use(url: str) -> None:
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)

    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    return use


def failing(url: str, fault: Fault, folder: Path) -> AbstractContextManager[tuple[str, Requests]]:
    """A server that fails every third request; one that breaks off in the middle does so less often.

    GDAL tries a refused request again. What broke off it keeps, so that the files are opened anew and all is asked for
    again: that ends only where enough requests in a row go well.
    """
    return failing_proxy(url, fault, folder / f"requests-{urlsplit(url).port}", 11 if fault == "truncated" else 3)


def write_scenes(folder: Path, days: Sequence[date] = DAYS) -> Path:
    """Scenes of one place as plain files of about half a megabyte."""
    for seed, day in enumerate(days):
        missing = np.zeros((SIDE, SIDE), bool)
        missing[:10, :20] = True
        bands = ground(SIDE, SIDE, seed=seed)
        write_raster(folder / "here" / f"{day}.tif", bands, missing=missing, nodata="declared", **LAYOUT)
    return folder


def settings_of(**source: Any) -> Settings:
    values = {"bands": BANDS, "timeout": 20} | source
    sections: dict[str, Any] = {"locations": {"here": PLACE}} if values.get("kind", "files") != "files" else {}
    return Settings.model_validate({"source": values, "grid": {"tile_size": 64}, **sections})


def ingest(settings: Settings, workspace: Workspace) -> list[SceneRecord]:
    """All scenes, none of them lost."""
    plan = plan_ingest(settings, workspace)
    assert plan.skipped == ()
    settle_grids(plan.scenes, settings, workspace)
    for scene in plan.scenes:
        assert ingest_scene(scene, settings, workspace).reason is None
    return Catalog(workspace).scenes()


def check_same(settings: Settings, plain: Settings, folder: Path, scenes: int = len(DAYS)) -> None:
    """Scenes from elsewhere give what the same files give from a folder, and are not read twice."""
    expected, found = Workspace(folder / "expected"), Workspace(folder / "found")
    before, after = ingest(plain, expected), ingest(settings, found)
    assert [record.scene_id for record in after] == [record.scene_id for record in before]
    assert len(after) == scenes
    for one, other in zip(before, after, strict=True):
        assert (other.valid_fraction, other.masked) == (one.valid_fraction, one.masked)
        assert {band: other.stats[band].mean for band in BANDS} == {band: one.stats[band].mean for band in BANDS}
        tiles = [Catalog(place).tiles(record) for place, record in ((expected, one), (found, other))]
        same = [pd.DataFrame(table).drop(columns=["geometry", "fingerprint", "ingested_at"]) for table in tiles]
        pd.testing.assert_frame_equal(*same)
    again = plan_ingest(settings, found)
    assert (len(again.scenes), again.unchanged) == (0, scenes)


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


@pytest.mark.parametrize("fault", [None, "503", "truncated", "gone"])
def test_files_of_a_web_folder_give_what_they_give_from_a_folder_whatever_fails(tmp_path: Path, fault: Any) -> None:
    root = write_scenes(tmp_path / "scenes with spaces")
    (root / "index.txt").write_text("# all scenes\n" + "".join(f"here/{day}.tif\n" for day in DAYS) + "\n")
    with web_folder(root.parent) as behind, ExitStack() as stack:
        url, requests = stack.enter_context(failing(behind, fault, tmp_path)) if fault else (behind, None)

        settings = settings_of(url=f"{url}/scenes%20with%20spaces/", index="index.txt")
        check_same(settings, settings_of(root=root), tmp_path)

    assert requests is None or requests.failed >= 2


def test_products_of_a_web_folder_are_found_by_its_index(tmp_path: Path) -> None:
    product = zipped(write_safe(tmp_path, {"B02_10m": b"a", "SCL_20m": b"b"}))
    folder = write_safe(tmp_path, {"B02_10m": b"c", "SCL_20m": b"d"}, start="20221010T115411")
    names = [path.relative_to(tmp_path).as_posix() for path in sorted(tmp_path.rglob("*")) if path.is_file()]
    (tmp_path / "index.txt").write_text("\n".join(names))
    with web_folder(tmp_path) as url:
        scenes = find_scenes(settings_of(kind="sentinel2", url=url, index="index.txt").source).scenes

    assert [scene.files[0].path.partition("/GRANULE")[0] for scene in scenes] == [
        f"/vsizip/{{/vsicurl/{url}/{product.name}}}/{product.stem}.SAFE",
        f"/vsicurl/{url}/{folder.name}",
    ]
    assert all(file.stamp and file.offset in (-0.1, None) for scene in scenes for file in scene.files)


READ_BY_THREADS = """
import json, sys
from threading import Thread
from configs import Settings
from imagery.reading import SceneReader
from imagery.sources import find_scenes, storage
from tests.rasters import whole

storage.FIRST_WAIT = 0.02
settings = Settings.model_validate(json.loads(sys.argv[1]))
(scene,) = find_scenes(settings.source, settings.locations).scenes

def read() -> None:
    for _ in range(3):
        with SceneReader(scene, settings.source, settings.masks, settings.grid) as reader:
            done.append(reader.read(whole(reader.grid)).values.sum())

done = []
threads = [Thread(target=read) for _ in range(3)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
assert len(done) == 9 and len(set(done)) == 1, done
"""


@pytest.mark.slow
def test_threads_that_read_the_same_file_of_a_failing_server_do_not_wait_for_each_other_for_ever(
    tmp_path: Path, endpoint: str, use_endpoint: Callable[[str], None]
) -> None:
    images = {
        f"SR_B{band[2:]}": write_raster(tmp_path / "images" / f"{band}.tif", {band: numbers}, described=False, **LAYOUT)
        for band, numbers in ground(SIDE, SIDE).items()
    }
    tarred(write_landsat(tmp_path / "products", images))
    upload(endpoint, "threads", tmp_path / "products")
    settings = settings_of(kind="landsat", url="s3://threads", names={band: f"B{band[2:]}" for band in BANDS})
    with failing(endpoint, "503", tmp_path) as (url, _):
        use_endpoint(url)

        # A process of its own: what waits for ever here holds the lock that a time limit of pytest would need.
        command = [
            sys.executable,
            "-c",
            READ_BY_THREADS,
            settings.model_copy(update={"locations": {}}).model_dump_json(),
        ]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240)

    assert done.returncode == 0, done.stderr


def test_a_web_folder_without_an_index_cannot_be_listed() -> None:
    with pytest.raises(ImageryError, match=r"cannot be listed: set source\.index"):
        find_scenes(settings_of(url="http://127.0.0.1:9/scenes").source)


@pytest.mark.parametrize("name", ["../secret.tif", "/etc/passwd", "a/../../b.tif", "http://elsewhere/a.tif", "a.tif?b"])
def test_an_index_names_files_of_its_folder_only(tmp_path: Path, name: str) -> None:
    (tmp_path / "index.txt").write_text(name)
    with web_folder(tmp_path) as url, pytest.raises(ImageryError, match="which is no file below"):
        find_scenes(settings_of(url=url, index="index.txt").source)


def test_a_server_that_cannot_send_parts_of_a_file_is_refused_in_words(tmp_path: Path) -> None:
    """As Python's own: each tile of a scene would cost the whole of it."""
    root = write_scenes(tmp_path / "scenes", DAYS[:1])
    (root / "index.txt").write_text(f"here/{DAYS[0]}.tif")
    with web_folder(root, ranges=False) as url, pytest.raises(ImageryError, match="Range request not supported"):
        find_scenes(settings_of(url=url, index="index.txt").source)


def footprint() -> tuple[tuple[float, float], ...]:
    """Longitude and latitude of the corners of the scenes, with a margin."""
    left, bottom, right, top = PLACE["bounds"]
    transform = Transformer.from_crs(UTM, "EPSG:4326", always_xy=True).transform
    corners = (
        (left - 500, top + 500),
        (right + 500, top + 500),
        (right + 500, bottom - 500),
        (left - 500, bottom - 500),
    )
    return tuple(transform(*corner) for corner in corners)


def items_of(base: str, days: Sequence[date] = DAYS) -> list[dict[str, Any]]:
    """Items of the scenes, each band an asset of one file."""
    west, north = footprint()[0]
    east, south = footprint()[2]
    return [
        item(
            f"scene-{day}",
            {"image": asset(f"{base}/here/{day}.tif", **{"eo:bands": [{"name": band} for band in BANDS]})},
            box=(west, south, east, north),
            datetime=f"{day}T00:00:00Z",
            **{"eo:cloud_cover": 10},
        )
        for day in days
    ]


@contextmanager
def api_behind(folder: Path, items: Sequence[dict[str, Any]], fault: Fault | None) -> Iterator[tuple[str, Requests]]:
    """A STAC API behind a proxy, to which its links lead as well."""
    port = free_port()
    every = {"truncated": 11, None: 1_000_000}.get(fault, 3)
    proxy = failing_proxy(f"http://127.0.0.1:{port}", fault or "503", folder / "requests", every)
    with proxy as (url, requests), stac_api(folder, items, port, url):
        yield url, requests


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
