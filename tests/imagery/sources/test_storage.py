"""Reading again what did not come, one thread at a time for each file."""

from __future__ import annotations

import threading
import time

import pytest

from configs.schema import SourceSettings
from imagery.errors import SceneMismatch, SceneUnreachable, SceneUnreadable
from imagery.sources import storage
from imagery.sources.storage import glob_expression, tried_again

SOURCE = SourceSettings(location="here", retries=5)


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "FIRST_WAIT", 0.001)


class Failing:
    """Fails as often as it is told, then gives 7."""

    def __init__(self, times: int, error: Exception) -> None:
        self.times, self.error, self.calls = times, error, 0

    def __call__(self) -> int:
        self.calls += 1
        if self.calls <= self.times:
            raise self.error
        return 7


def test_what_did_not_come_is_opened_anew_and_read_again() -> None:
    read, opened = Failing(2, SceneUnreadable("broke off")), []

    assert tried_again(read, ["/vsis3/a/b.tif"], SOURCE, lambda: opened.append(1)) == 7
    assert (read.calls, len(opened)) == (3, 2)


def test_what_never_comes_is_said_to_be_out_of_reach() -> None:
    read = Failing(99, SceneUnreadable("band B02 of /vsis3/a/b.tif cannot be read: broke off"))

    with pytest.raises(SceneUnreachable, match=r"^band B02 of /vsis3/a/b.tif cannot be read: broke off$"):
        tried_again(read, ["/vsis3/a/b.tif"], SOURCE)

    assert read.calls == storage.MOST_ATTEMPTS


@pytest.mark.parametrize(
    ("remote", "source", "error", "raised"),
    [
        ([], SOURCE, SceneUnreadable("damaged"), SceneUnreadable),
        (["/vsis3/a"], SOURCE.model_copy(update={"retries": 0}), SceneUnreadable("damaged"), SceneUnreachable),
        (["/vsis3/a"], SOURCE, SceneUnreadable("HTTP response code: 404"), SceneUnreachable),
        (["/vsis3/a"], SOURCE, SceneMismatch("no band"), SceneMismatch),
    ],
    ids=["of this machine", "no retries", "refused", "another error"],
)
def test_what_would_not_be_otherwise_is_read_once(
    remote: list[str], source: SourceSettings, error: Exception, raised: type[Exception]
) -> None:
    read = Failing(99, error)

    with pytest.raises(raised):
        tried_again(read, remote, source)

    assert read.calls == 1


@pytest.mark.parametrize(
    ("one", "other", "together"),
    [
        (["/vsis3/a/1.tif"], ["/vsis3/a/1.tif"], False),
        (["/vsis3/a/1.tif", "/vsis3/a/2.tif"], ["/vsis3/a/3.tif", "/vsis3/a/2.tif"], False),
        ([], [], True),
    ],
    ids=["the same file", "a file in common", "files of this machine"],
)
def test_a_remote_file_is_read_by_one_thread_at_a_time(one: list[str], other: list[str], together: bool) -> None:
    inside, most = [], []

    def read() -> None:
        inside.append(1)
        most.append(len(inside))
        time.sleep(0.02)
        inside.pop()

    def work(files: list[str]) -> None:
        for _ in range(5):
            tried_again(read, files, SOURCE)

    threads = [threading.Thread(target=work, args=(files,)) for files in (one, other, one, other)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)

    assert not any(thread.is_alive() for thread in threads)
    assert (max(most) > 1) == together


@pytest.mark.parametrize(
    ("pattern", "name", "fits"),
    [
        ("*.tif", "a.tif", True), ("*.tif", "a/b.tif", False),
        ("**/*.tif", "a.tif", True), ("**/*.tif", "a/b/c.tif", True),
        ("a?.tif", "ab.tif", True), ("a?.tif", "a/.tif", False),
        ("[*]a[[]b].tif", "*a[b].tif", True), ("[*]a.tif", "xa.tif", False), ("[?]x/*", "?x/y", True),
        ("a.tif", "a+tif", False),
    ],
)  # fmt: skip
def test_names_elsewhere_fit_a_pattern_as_those_of_a_folder_do(pattern: str, name: str, fits: bool) -> None:
    assert bool(glob_expression(pattern).fullmatch(name)) == fits
