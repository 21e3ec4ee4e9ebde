"""Settings come from a preset, then from `--set`, then from the environment, and say what is wrong with them."""

from __future__ import annotations

from pathlib import Path

import pytest

from configs import SettingsError, load_settings
from configs.load import keys

PRESETS = sorted((Path(__file__).resolve().parents[2] / "configs").glob("*.yaml"))


def preset(folder: Path, text: str) -> Path:
    path = folder / "watch.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def refusal(*arguments, **keywords) -> str:
    with pytest.raises(SettingsError) as caught:
        load_settings(*arguments, **keywords)
    return str(caught.value)


@pytest.mark.parametrize("path", PRESETS, ids=lambda path: path.stem)
def test_every_preset_that_is_shipped_loads(path: Path) -> None:
    settings = load_settings(path, environment={})

    assert settings.name == path.stem


def test_the_presets_meant_by_the_tests_are_there() -> None:
    assert {"demo", "romania", "landsat8", "oscd"} <= {path.stem for path in PRESETS}


def test_an_override_beats_the_preset_and_the_environment_beats_both(tmp_path: Path) -> None:
    path = preset(tmp_path, "source: {location: here}\ntrain: {epochs: 3, patience: 4, batch_size: 8}\n")

    settings = load_settings(
        path,
        overrides=["train.epochs=5", "train.patience=6"],
        environment={"TILEWATCH_TRAIN__EPOCHS": "7"},
    )

    assert (settings.train.epochs, settings.train.patience, settings.train.batch_size) == (7, 6, 8)


def test_the_environment_of_the_process_is_used_unless_another_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TILEWATCH_SEED", "41")

    assert load_settings().seed == 41
    assert load_settings(environment={}).seed == 0


def test_variables_that_name_files_and_folders_are_not_settings() -> None:
    environment = {"TILEWATCH_CONFIG": "a.yaml", "TILEWATCH_WORKSPACE": "w", "TILEWATCH_SHARED_DATA": "d", "HOME": "h"}

    assert load_settings(environment=environment) == load_settings(environment={})


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("train.epoch", "train.epochs"),
        ("trian.epochs", "train"),
        ("grid.tilesize", "grid.tile_size"),
        ("split.train.begin", "split.train"),
    ],
)
def test_an_unknown_key_is_refused_with_a_guess_at_what_was_meant(key: str, meant: str) -> None:
    message = refusal(overrides=[f"{key}=5"], environment={})

    assert "unknown setting" in message
    assert f"did you mean {meant}" in message


def test_an_unknown_key_that_resembles_none_is_refused_with_where_to_look() -> None:
    message = refusal(overrides=["zzzzqqqq=5"], environment={})

    assert "unknown setting zzzzqqqq" in message
    assert "did you mean" not in message


def test_an_unknown_key_of_the_environment_is_refused_as_well() -> None:
    assert "did you mean train.epochs" in refusal(environment={"TILEWATCH_TRAIN__EPOCH": "5"})


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("train.epochs=0", ["train.epochs", "0", "greater than or equal to 1"]),
        ("train.epochs=many", ["train.epochs", "many", "integer"]),
        ("calibration.false_alarm_rate=1.5", ["calibration.false_alarm_rate", "1.5", "less than 1"]),
        ("score.min_valid=-0.1", ["score.min_valid", "-0.1", "greater than or equal to 0"]),
        ("score.pool=median", ["score.pool", "median", "'mean'", "'p90'"]),
        ("validation.finite=fatal", ["validation.finite", "fatal", "'critical'"]),
        ("name=../evil", ["name", "../evil"]),
        ("source.bands=[B02, B03, B02]", ["source.bands", "B02", "twice"]),
        ("source.bands=[]", ["source.bands"]),
        ("source.pattern='{location}.tif'", ["{location}.tif", "{date"]),
        ("train.epochs.most=5", ["train.epochs"]),
        ("train=5", ["train"]),
    ],
)
def test_a_value_that_cannot_work_is_refused_with_the_key_the_value_and_what_is_allowed(
    override: str, told: list[str]
) -> None:
    message = refusal(overrides=[override], environment={})

    for words in told:
        assert words in message


def test_all_that_is_wrong_is_said_at_once() -> None:
    message = refusal(overrides=["train.epochs=0", "sede=1"], environment={})

    assert "train.epochs" in message
    assert "seed" in message


@pytest.mark.parametrize("override", ["train.epochs", "=5", ""])
def test_an_override_that_is_no_pair_is_refused_with_an_example(override: str) -> None:
    assert "key=value" in refusal(overrides=[override], environment={})


def test_values_are_read_as_yaml_and_may_hold_equals_signs() -> None:
    settings = load_settings(
        overrides=[
            "source.bands=[B04, B03]",
            "split.train.end=2020-02-29",
            "source.pattern='a=b/{location}/{date:%Y}.tif'",
            "grid.resolution=null",
            "source.scale=1e-3",
        ],
        environment={},
    )

    assert settings.source.bands == ("B04", "B03")
    assert str(settings.split.train.end) == "2020-02-29"
    assert settings.source.pattern == "a=b/{location}/{date:%Y}.tif"
    assert settings.grid.resolution is None
    assert settings.source.scale == 1e-3


def test_a_value_that_is_no_yaml_is_refused_with_its_key() -> None:
    assert "source.bands" in refusal(overrides=["source.bands=[B02"], environment={})


def test_a_relative_source_folder_is_relative_to_the_preset_not_to_where_one_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    path = preset(tmp_path, "source: {root: scenes, location: here}\n")

    assert load_settings(path, environment={}).source.root == tmp_path / "scenes"


def test_a_variable_in_the_source_folder_is_replaced_and_its_default_used_without_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = preset(tmp_path, "source: {root: '${ARCHIVE:-usual}/s2', location: here}\n")

    monkeypatch.delenv("ARCHIVE", raising=False)
    assert load_settings(path, environment={}).source.root == tmp_path / "usual/s2"
    monkeypatch.setenv("ARCHIVE", "/mnt/archive")
    assert load_settings(path, environment={}).source.root == Path("/mnt/archive/s2")


def test_a_variable_without_a_default_must_be_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ARCHIVE", raising=False)
    path = preset(tmp_path, "source: {root: '${ARCHIVE}', location: here}\n")

    message = refusal(path, environment={})

    assert "ARCHIVE" in message
    assert "source.root" in message


def test_variables_are_replaced_nowhere_else_so_that_no_secret_gets_into_the_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PASSWORD", "hunter2")
    path = preset(
        tmp_path,
        "source: {root: scenes, location: '${PASSWORD}'}\n"
        "tracking: {uri: 'https://me:${PASSWORD}@example.org', experiment: '${PASSWORD:-x}'}\n",
    )

    settings = load_settings(path, environment={})

    assert "hunter2" not in settings.model_dump_json()
    assert settings.tracking.experiment == "${PASSWORD:-x}"


def test_a_preset_that_is_not_there_is_named(tmp_path: Path) -> None:
    message = refusal(tmp_path / "none.yaml", environment={})

    assert "none.yaml" in message
    assert "No such file" in message


@pytest.mark.parametrize(
    ("content", "told"),
    [(b"train: [", "not valid YAML"), (b"\xff\xfe\x00", "not valid YAML"), (b"- 1\n- 2\n", "list"), (b"5", "int")],
)
def test_a_preset_that_holds_no_settings_is_refused(tmp_path: Path, content: bytes, told: str) -> None:
    path = tmp_path / "watch.yaml"
    path.write_bytes(content)

    message = refusal(path, environment={})

    assert "watch.yaml" in message
    assert told in message


def test_an_empty_preset_gives_the_defaults(tmp_path: Path) -> None:
    assert load_settings(preset(tmp_path, "# nothing yet\n"), environment={}) == load_settings(environment={})


def test_keys_lists_every_setting_down_to_the_last_section() -> None:
    listed = set(keys())

    assert {"seed", "train", "train.epochs", "source.bands", "split.train", "split.train.start"} <= listed
    for key in listed:
        section, _, _ = key.partition(".")
        assert section in listed
