"""Files appear whole or not at all, below the workspace and nowhere else."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from threading import Barrier

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from configs import Workspace
from configs.workspace import safe_name, time_name, whole_file, write_first, write_text

NAMES = st.text(min_size=1) | st.text("./\\~% -_aA", min_size=1)
# As a file system takes them for one folder; longer ones cannot come out of an archive.
FOLDER_NAMES = NAMES.filter(lambda name: len(name.encode()) <= 255)


@given(NAMES)
@example("..")
@example("../../etc/passwd")
@example("/etc")
@example(".hidden")
@example("a\x00b")
@example("C:\\x")
def test_any_name_becomes_one_visible_path_component(name: str) -> None:
    path = Path("/workspace/catalog") / safe_name(name) / "x.json"

    assert path.parents[1] == Path("/workspace/catalog")
    assert path.resolve().parents[1] == Path("/workspace/catalog")
    assert not safe_name(name).startswith(".")
    assert safe_name(name).isascii()
    assert safe_name(name).isprintable()


@given(NAMES | st.text("%2E5./", min_size=1), NAMES | st.text("%2E5./", min_size=1))
@example("%2E", ".")
@example("a%2Fb", "a/b")
@example("%2Ea", ".a")
def test_different_names_stay_different(one: str, other: str) -> None:
    assert (safe_name(one) == safe_name(other)) == (one == other)


@given(FOLDER_NAMES)
@example("Долина реки Большая Белая у посёлка Новый, участок семь")
@example("北京市海淀区中关村大街二十七号院北侧的小公园以及它周围的几条街道和胡同")
def test_the_name_of_a_folder_stays_short_enough_to_be_one(name: str) -> None:
    assert len(safe_name(name)) <= 255


def test_a_name_that_is_not_utf8_is_one_component_too() -> None:
    name = b"place-\xff".decode("utf-8", "surrogateescape")  # as the file system gives it

    assert "/" not in safe_name(name)
    assert safe_name(name).isascii()


def test_a_time_at_midnight_is_a_date_and_any_other_has_seconds_and_is_utc() -> None:
    east = timezone(timedelta(hours=2))

    assert time_name(datetime(2020, 2, 29, tzinfo=UTC)) == "2020-02-29"
    assert time_name(datetime(2020, 3, 1, 2, tzinfo=east)) == "2020-03-01"
    assert time_name(datetime(2020, 3, 1, 1, tzinfo=east)) == "2020-02-29T230000Z"
    assert time_name(datetime(2020, 2, 29, 10, 50, 7, tzinfo=UTC)) == "2020-02-29T105007Z"


@given(
    st.datetimes(datetime(2000, 1, 1), datetime(2030, 1, 1), timezones=st.just(UTC)).map(
        lambda t: t.replace(microsecond=0)
    ),
    st.datetimes(datetime(2000, 1, 1), datetime(2030, 1, 1), timezones=st.just(UTC)).map(
        lambda t: t.replace(microsecond=0)
    ),
)
def test_names_of_times_differ_and_sort_by_day(one: datetime, other: datetime) -> None:
    assert (time_name(one) == time_name(other)) == (one == other)
    if one.date() < other.date():
        assert time_name(one) < time_name(other)


def test_a_file_is_not_there_until_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "down" / "scores.parquet"

    with whole_file(path) as temporary:
        temporary.write_text("half")
        assert not path.exists()
        assert temporary.suffix == ".parquet"
        assert temporary.parent == path.parent

    assert [file.name for file in path.parent.iterdir()] == ["scores.parquet"]


@pytest.mark.parametrize("write", [write_text, write_first])
def test_content_is_brought_to_the_disk_before_its_name_and_its_name_before_anything_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Callable[[Path, str], object]
) -> None:
    """Or a power cut could leave a record of what is not there."""
    path, synced, fsync = tmp_path / "new" / "one.json", [], os.fsync

    def noted(descriptor: int) -> None:
        name = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        synced.append((name.name if name.is_dir() else "content", path.exists()))
        fsync(descriptor)

    monkeypatch.setattr("os.fsync", noted)
    write(path, "{}")

    assert synced == [(tmp_path.name, False), ("content", False), ("new", True)]


def test_an_exception_leaves_nothing_and_keeps_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "grid.json"
    write_text(path, "before")

    def fail_halfway() -> None:
        with whole_file(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        fail_halfway()

    assert path.read_text() == "before"
    assert [file.name for file in tmp_path.iterdir()] == ["grid.json"]


def test_an_exception_before_the_first_byte_leaves_nothing_either(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), whole_file(tmp_path / "x.json"):
        raise RuntimeError("power cut")

    assert list(tmp_path.iterdir()) == []


def test_of_several_threads_that_write_first_one_wins_and_all_read_the_same(tmp_path: Path) -> None:
    path, start = tmp_path / "here" / "grid.json", Barrier(8)

    def write(number: int) -> tuple[bool, str]:
        start.wait()
        return write_first(path, f"{number}" * 10_000), path.read_text()

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(write, range(8)))

    winners = [number for number, (won, _) in enumerate(results) if won]
    assert len(winners) == 1
    assert {text for _, text in results} == {f"{winners[0]}" * 10_000}
    assert [file.name for file in path.parent.iterdir()] == ["grid.json"]


def test_the_embedded_database_does_not_depend_on_where_one_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    assert Workspace(Path("w")).mlflow_uri == f"sqlite:///{tmp_path}/w/mlflow.db"
