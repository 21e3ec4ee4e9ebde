"""Small files that are parsed once, for as long as they stay as they are."""

from __future__ import annotations

from pathlib import Path

import pytest

from configs.remembered import Remembered
from configs.workspace import write_text


class Reader:
    """Reads text, and counts how often."""

    def __init__(self) -> None:
        self.read: list[str] = []

    def __call__(self, path: Path) -> str:
        self.read.append(path.name)
        return path.read_text()


def test_a_file_that_stays_as_it_is_is_read_once(tmp_path: Path) -> None:
    reader = Reader()
    remembered = Remembered(reader)
    write_text(tmp_path / "a", "one")

    assert [remembered(tmp_path / "a"), remembered(tmp_path / "a")] == ["one", "one"]
    assert reader.read == ["a"]


def test_a_file_that_was_replaced_is_read_again(tmp_path: Path) -> None:
    remembered = Remembered(Reader())
    for number in range(50):  # the same length, and within one tick of the clock of most file systems
        write_text(tmp_path / "a", f"{number:02d}")
        assert remembered(tmp_path / "a") == f"{number:02d}"


def test_a_file_that_is_gone_is_missing_whatever_is_remembered(tmp_path: Path) -> None:
    remembered = Remembered(Reader())
    write_text(tmp_path / "a", "one")
    remembered(tmp_path / "a")
    (tmp_path / "a").unlink()

    with pytest.raises(FileNotFoundError):
        remembered(tmp_path / "a")


def test_what_could_not_be_parsed_is_tried_again(tmp_path: Path) -> None:
    def number(path: Path) -> int:
        return int(path.read_text())

    remembered = Remembered(number)
    write_text(tmp_path / "a", "x")
    for _ in range(2):
        with pytest.raises(ValueError, match="invalid literal"):
            remembered(tmp_path / "a")


def test_of_too_many_files_those_that_nobody_asked_for_lately_are_forgotten(tmp_path: Path) -> None:
    reader = Reader()
    remembered = Remembered(reader, most=2)
    for name in ("a", "b", "c"):
        write_text(tmp_path / name, name)
    for name in ("a", "b", "a", "c", "a", "b"):
        assert remembered(tmp_path / name) == name

    assert reader.read == ["a", "b", "c", "b"]
