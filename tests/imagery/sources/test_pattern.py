"""Scenes are found by the paths of their files."""

from __future__ import annotations

import os
from contextlib import suppress
from datetime import UTC, date, datetime
from pathlib import Path

import pytest

from configs import load_settings
from configs.schema import SourceSettings
from imagery.errors import ImageryError
from imagery.sources import Listing, SceneFile, find_scenes

CONFIGS = Path(__file__).resolve().parents[3] / "configs"


def archive(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    return root


def listing(root: Path, pattern: str, location: str | None = None) -> Listing:
    return find_scenes(SourceSettings(root=root, pattern=pattern, location=location))


def ids(found: Listing) -> list[str]:
    return [scene.scene_id for scene in found.scenes]


def test_one_file_a_scene(tmp_path: Path) -> None:
    root = archive(tmp_path, "paris/2016-11-30.tif", "paris/2017-01-02.tif", "pisa/2016-12-01.tif", "paris/notes.txt")

    found = listing(root, "{location}/{date:%Y-%m-%d}.tif")

    assert ids(found) == ["paris/2016-11-30", "pisa/2016-12-01", "paris/2017-01-02"]
    assert found.scenes[0].files == (SceneFile("", str(root / "paris/2016-11-30.tif")),)
    assert found.scenes[0].acquired == datetime(2016, 11, 30, tzinfo=UTC)
    assert found.skipped == ()


def test_one_file_a_band(tmp_path: Path) -> None:
    root = archive(
        tmp_path, "paris/2016-11-30/B02.tif", "paris/2016-11-30/B8A.tif", "paris/2017-01-02/B02.tif", "paris/change.tif"
    )

    found = listing(root, "{location}/{date:%Y-%m-%d}/{band}.tif")

    assert ids(found) == ["paris/2016-11-30", "paris/2017-01-02"]
    assert [file.band for file in found.scenes[0].files] == ["B02", "B8A"]


def test_a_star_stands_for_anything_within_a_name(tmp_path: Path) -> None:
    root = archive(
        tmp_path,
        "T29UNU_20220118T112401_B02_60m.jp2",
        "T29UNU_20220118T112401_SCL_60m.jp2",
        "deep/T29UNU_20220118T112401_B03_60m.jp2",
    )

    found = listing(root, "{location}_{date:%Y%m%dT%H%M%S}_{band}_*.jp2")

    assert ids(found) == ["T29UNU/2022-01-18T112401Z"]
    assert [file.band for file in found.scenes[0].files] == ["B02", "SCL"]


def test_a_name_with_several_dates_is_read_as_the_landsat_preset_means_it(tmp_path: Path) -> None:
    root = archive(
        tmp_path, "LC08_L1TP_224078_20200518_20200518_01_RT.TIF", "LC08_L1TP_224078_20200603_20200608_01_T1.TIF"
    )
    pattern = load_settings(CONFIGS / "landsat8.yaml", environment={}).source.pattern

    found = listing(root, pattern)

    assert ids(found) == ["224078/2020-05-18", "224078/2020-06-03"]


@pytest.mark.parametrize(
    ("name", "pattern", "expected"),
    [
        ("new-york-2020-01-01.tif", "{location}-{date:%Y-%m-%d}.tif", "new-york/2020-01-01"),
        ("LC08_224078_20200518_RT.TIF", "{location}_{date:%Y%m%d}_*.TIF", "LC08_224078/2020-05-18"),
        ("here/2020-01-01.tif", "{location}/{date:%Y-%m-%d}*.tif", "here/2020-01-01"),
        ("here/2020-01-01_v2.tif", "{location}/{date:%Y-%m-%d}*.tif", "here/2020-01-01"),
        ("2020-01-01_new_york_v2.tif", "{date:%Y-%m-%d}_{location}_v2.tif", "new_york/2020-01-01"),
    ],
)
def test_where_only_one_reading_gives_a_date_it_is_the_one_taken(
    tmp_path: Path, name: str, pattern: str, expected: str
) -> None:
    found = listing(archive(tmp_path, name), pattern)

    assert ids(found) == [expected]


def test_a_file_whose_date_cannot_be_read_is_listed_as_skipped_with_the_reason(tmp_path: Path) -> None:
    root = archive(tmp_path, "paris/2020-02-29.tif", "paris/2021-02-29.tif", "paris/latest.tif")

    found = listing(root, "{location}/{date:%Y-%m-%d}.tif")

    assert ids(found) == ["paris/2020-02-29"]
    skipped = {Path(path).name: reason for path, reason in found.skipped}
    assert set(skipped) == {"2021-02-29.tif", "latest.tif"}
    assert "2021-02-29" in skipped["2021-02-29.tif"]
    assert "%Y-%m-%d" in skipped["2021-02-29.tif"]


def test_digits_that_only_look_like_a_date_are_skipped(tmp_path: Path) -> None:
    """Python would read path and row 224/078 as 8 July 2240."""
    found = listing(archive(tmp_path, "LC08_224078_RT.TIF"), "{location}_{date:%Y%m%d}_*.TIF")

    assert found.scenes == ()
    assert "224078" in found.skipped[0][1]


def test_several_files_of_one_location_and_time_are_numbered(tmp_path: Path) -> None:
    root = archive(tmp_path, "a/2020-01-01_north.tif", "a/2020-01-01_south.tif", "a/2020-01-02_north.tif")

    found = listing(root, "{location}/{date:%Y-%m-%d}_*.tif")

    assert ids(found) == ["a/2020-01-01", "a/2020-01-01/2", "a/2020-01-02"]
    assert Path(found.scenes[1].files[0].path).name == "2020-01-01_south.tif"


def test_times_that_differ_by_less_than_a_second_are_scenes_of_their_own_too(tmp_path: Path) -> None:
    root = archive(tmp_path, "a/20200101T101500100000.tif", "a/20200101T101500900000.tif")

    found = listing(root, "{location}/{date:%Y%m%dT%H%M%S%f}.tif")

    assert len(found.scenes) == 2
    assert len(set(ids(found))) == 2


def test_scenes_come_oldest_first_and_then_by_location(tmp_path: Path) -> None:
    root = archive(tmp_path, "b/2020-01-01.tif", "a/2020-01-02.tif", "c/2019-12-31.tif", "a/2020-01-01.tif")

    found = listing(root, "{location}/{date:%Y-%m-%d}.tif")

    assert ids(found) == ["c/2019-12-31", "a/2020-01-01", "b/2020-01-01", "a/2020-01-02"]


def test_a_pattern_without_a_location_takes_the_one_of_the_settings(tmp_path: Path) -> None:
    assert ids(listing(archive(tmp_path, "2020-01-01.tif"), "{date:%Y-%m-%d}.tif", "romania")) == ["romania/2020-01-01"]


def test_a_time_with_an_offset_is_brought_to_utc(tmp_path: Path) -> None:
    root = archive(tmp_path, "a/20200101T003000+0200.tif")

    assert ids(listing(root, "{location}/{date:%Y%m%dT%H%M%S%z}.tif")) == ["a/2019-12-31T223000Z"]


def test_characters_that_mean_something_to_a_glob_mean_themselves(tmp_path: Path) -> None:
    root = archive(tmp_path, "[a]/x?-2020-01-01.tif", "a/xy-2020-01-02.tif")

    assert ids(listing(root, "[a]/x?-{date:%Y-%m-%d}.tif", "here")) == ["here/2020-01-01"]


def test_a_location_named_twice_must_be_the_same_both_times(tmp_path: Path) -> None:
    root = archive(tmp_path, "a/a_2020-01-01.tif", "a/b_2020-01-01.tif")

    assert ids(listing(root, "{location}/{location}_{date:%Y-%m-%d}.tif")) == ["a/2020-01-01"]


@pytest.mark.parametrize(
    ("pattern", "name"),
    [
        ("{location}/{date:%Y}/{date:%Y-%m-%d}.tif", "a/2020/2020-01-02.tif"),
        ("{location}/{date:%Y}/{date:%m}/{date:%d}.tif", "a/2020/01/02.tif"),
    ],
)
def test_a_date_in_several_parts_is_read_or_refused_but_never_ignored(tmp_path: Path, pattern: str, name: str) -> None:
    root = archive(tmp_path, name)

    with suppress(ImageryError):
        assert ids(listing(root, pattern)) == ["a/2020-01-02"]


@pytest.mark.parametrize(
    ("pattern", "told"),
    [
        ("{place}/{date:%Y-%m-%d}.tif", "{place}"),
        ("{date:%Y/%m/%d}.tif", "spans folders"),
    ],
)
def test_a_pattern_that_cannot_be_read_is_refused(tmp_path: Path, pattern: str, told: str) -> None:
    with pytest.raises(ImageryError) as caught:
        listing(tmp_path, pattern, "here")

    assert told in str(caught.value)


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ImageryError, match=r"nowhere.*source\.root"):
        listing(tmp_path / "nowhere", "{location}/{date:%Y-%m-%d}.tif")


def test_folders_and_dangling_links_are_no_scenes(tmp_path: Path) -> None:
    root = archive(tmp_path, "a/2020-01-01.tif")
    (root / "a/2020-01-02.tif").mkdir()
    (root / "a/2020-01-03.tif").symlink_to(root / "gone.tif")

    assert ids(listing(root, "{location}/{date:%Y-%m-%d}.tif")) == ["a/2020-01-01"]


def test_a_stamp_changes_with_size_and_time_and_a_fingerprint_with_content_alone(tmp_path: Path) -> None:
    root = archive(tmp_path, "a/2020-01-01.tif")
    (scene,) = listing(root, "{location}/{date:%Y-%m-%d}.tif").scenes
    stamp, fingerprint = scene.stamp, scene.fingerprint()

    path = Path(scene.files[0].path)
    os.utime(path, (1, 1))
    assert scene.stamp != stamp
    assert scene.fingerprint() == fingerprint

    content = path.read_bytes()
    path.write_bytes(content[::-1])
    assert scene.fingerprint() != fingerprint


def test_the_fingerprint_knows_which_band_a_file_is(tmp_path: Path) -> None:
    for folder, names in (("one", ("B02", "B03")), ("other", ("B03", "B02"))):
        for name, content in zip(names, (b"a", b"b"), strict=True):
            path = tmp_path / folder / "here" / "2020-01-01" / f"{name}.tif"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    pattern = "{location}/{date:%Y-%m-%d}/{band}.tif"

    one, other = (listing(tmp_path / folder, pattern).scenes[0] for folder in ("one", "other"))

    assert one.fingerprint() != other.fingerprint()


EXTRA = {"CLOUD": "masks/{location}_{date:%Y-%m-%d}_cloud.tif"}


def extra_listing(root: Path, pattern: str, extra: dict[str, str], **settings: object) -> Listing:
    return find_scenes(SourceSettings(root=root, pattern=pattern, extra=extra, **settings))


def test_a_further_file_joins_the_scene_of_its_location_and_date(tmp_path: Path) -> None:
    root = archive(
        tmp_path, "a/2020-01-01.tif", "a/2020-01-02.tif", "b/2020-01-01.tif",
        "masks/a_2020-01-01_cloud.tif", "masks/b_2020-01-01_cloud.tif", "masks/b_2020-01-05_cloud.tif",
    )  # fmt: skip

    found = extra_listing(root, "{location}/{date:%Y-%m-%d}.tif", EXTRA)

    assert [[Path(file.path).name for file in scene.files] for scene in found.scenes] == [
        ["2020-01-01.tif", "a_2020-01-01_cloud.tif"],
        ["2020-01-01.tif", "b_2020-01-01_cloud.tif"],
        ["2020-01-02.tif"],
    ]
    assert [file.band for file in found.scenes[0].files] == ["", "CLOUD"]
    assert found.skipped == ()


def test_a_further_file_is_no_scene_although_the_pattern_of_scenes_fits_it(tmp_path: Path) -> None:
    root = archive(tmp_path, "a/2020-01-01.tif", "a/2020-01-01_cloud.tif")

    found = extra_listing(root, "{location}/{date:%Y-%m-%d}*.tif", {"CLOUD": "{location}/{date:%Y-%m-%d}_cloud.tif"})

    assert ids(found) == ["a/2020-01-01"]
    assert len(found.scenes[0].files) == 2


def test_a_further_file_that_tells_the_time_joins_the_scene_of_that_time(tmp_path: Path) -> None:
    root = archive(tmp_path, "a/20200101T100000.tif", "a/20200101T120000.tif", "c/a_20200101T120000.tif")
    extra = {"CLOUD": "c/{location}_{date:%Y%m%dT%H%M%S}.tif"}

    found = extra_listing(root, "{location}/{date:%Y%m%dT%H%M%S}.tif", extra)

    assert [len(scene.files) for scene in found.scenes] == [1, 2]


def test_a_further_file_that_could_belong_to_several_scenes_is_skipped_with_the_reason(tmp_path: Path) -> None:
    root = archive(tmp_path, "a/20200101T100000.tif", "a/20200101T120000.tif", "masks/a_2020-01-01_cloud.tif")

    found = extra_listing(root, "{location}/{date:%Y%m%dT%H%M%S}.tif", EXTRA)

    assert [len(scene.files) for scene in found.scenes] == [1, 1]
    ((name, reason),) = found.skipped
    assert name.endswith("a_2020-01-01_cloud.tif")
    assert reason == (
        "it could belong to a/2020-01-01T100000Z, a/2020-01-01T120000Z: put the time into source.extra.CLOUD"
    )


def test_a_further_file_without_a_date_in_its_pattern_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ImageryError, match=r"has no \{date:FORMAT\} field"):
        extra_listing(tmp_path, "{location}/{date}.tif", {"CLOUD": "{location}_cloud.tif"})


def test_scenes_before_the_date_asked_for_are_left_out(tmp_path: Path) -> None:
    root = archive(tmp_path, "a/2019-12-31.tif", "a/2020-01-01.tif", "a/latest.tif")

    found = find_scenes(SourceSettings(root=root, pattern="{location}/{date:%Y-%m-%d}.tif", since=date(2020, 1, 1)))

    assert ids(found) == ["a/2020-01-01"]
    assert len(found.skipped) == 1


def test_bands_of_files_get_the_names_of_the_settings(tmp_path: Path) -> None:
    root = archive(tmp_path, "a/2020-01-01/blue.tif", "a/2020-01-01/B03.tif")
    settings = SourceSettings(root=root, pattern="{location}/{date}/{band}.tif", names={"B02": "blue"})

    (scene,) = find_scenes(settings).scenes

    assert [file.band for file in scene.files] == ["B03", "B02"]
