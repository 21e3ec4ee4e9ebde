"""Scenes of a web folder are found by its index, and give what the same files give from a folder."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from imagery.errors import ImageryError
from imagery.sources import find_scenes
from tests.operations.remote.scenes import (
    DAYS,
    LAYOUT,
    ROOT,
    SIDE,
    check_same,
    failing,
    settings_of,
    write_scenes,
)
from tests.products import tarred, write_landsat, write_safe, zipped
from tests.rasters import BANDS, ground, write_raster
from tests.servers import upload, web_folder

pytestmark = pytest.mark.servers


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
