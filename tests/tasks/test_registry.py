"""The registry: which detector is the champion, how it became it, and back."""

from __future__ import annotations

import json
from pathlib import Path

import mlflow
import pytest

from configs import Settings, Workspace
from tasks import registry, tracking
from tasks.moves import MOVED_TAG
from tests.rasters import watch_settings
from tests.vae.test_detector import NO_NETWORK, calibrated
from vae.errors import DetectorError

pytestmark = pytest.mark.slow


class Killed(BaseException):
    """Nothing catches it, as nothing catches a kill."""


def named(name: str, folder: Path) -> Settings:
    return watch_settings(folder).model_copy(update={"name": name})


@pytest.fixture(scope="module")
def registered(tmp_path_factory: pytest.TempPathFactory) -> tuple[Settings, Workspace]:
    """v1 is the champion, v2 and v3 were challengers."""
    folder = tmp_path_factory.mktemp("registry")
    settings, workspace = named("meadow", folder), Workspace(folder / "workspace")
    for seed, alias in enumerate(("champion", "challenger", "challenger")):
        with tracking.run(settings, workspace, "train", f"seed {seed}", {}):
            registry.register(calibrated(members=0, seed=seed, **NO_NETWORK), settings, f"seed {seed}", alias)
    return settings, workspace


@pytest.fixture
def meadow(registered: tuple[Settings, Workspace]) -> tuple[Settings, Workspace]:
    """The same, with the aliases where they were."""
    settings, workspace = registered
    tracking.connect(settings, workspace)
    client = mlflow.MlflowClient()
    for number in ("1", "2", "3"):
        for key in client.get_model_version("meadow", number).tags:
            if key.startswith(MOVED_TAG):
                client.delete_model_version_tag("meadow", number, key)
    registry.promote(settings, workspace, "v2", "only to leave v1")
    for key in client.get_model_version("meadow", "2").tags:
        if key.startswith(MOVED_TAG):
            client.delete_model_version_tag("meadow", "2", key)
    client.delete_registered_model_alias("meadow", "champion")
    registry.promote(settings, workspace, "v1", "the first")
    client.set_registered_model_alias("meadow", "challenger", "3")
    return settings, workspace


def champion(meadow: tuple[Settings, Workspace]) -> str:
    return registry.champion(*meadow)[1]


def test_a_challenger_changes_nothing_until_it_is_promoted(meadow: tuple[Settings, Workspace]) -> None:
    assert champion(meadow) == "v1"

    move = registry.promote(*meadow, "challenger", "because it is better")

    assert move is not None
    assert (move.of, move.instead_of) == ("v3", "v1")
    assert champion(meadow) == "v3"
    rows = {row.version: row for row in registry.listed(*meadow)}
    assert list(rows) == ["v3", "v2", "v1"]
    assert rows["v3"].aliases == ("champion",)  # and no challenger any more
    assert (rows["v3"].promoted_why, rows["v3"].instead_of) == ("because it is better", "v1")
    assert rows["v2"].promoted is None
    assert (rows["v1"].promoted_why, rows["v1"].instead_of, rows["v1"].reason) == ("the first", "", "seed 0")
    assert registry.promote(*meadow, "v3", "again") is None


def test_rolling_back_again_and_again_goes_further_back(meadow: tuple[Settings, Workspace]) -> None:
    registry.promote(*meadow, "v2", "")
    registry.promote(*meadow, "v3", "")

    assert registry.rollback(*meadow).of == "v2"
    assert registry.rollback(*meadow, "worse at night").of == "v1"
    assert champion(meadow) == "v1"
    with pytest.raises(registry.NoChampion, match="before v1: choose one of `tilewatch models list`"):
        registry.rollback(*meadow)
    first = registry.listed(*meadow)[-1]
    assert (first.promoted_why, first.instead_of) == ("worse at night", "v2")


@pytest.mark.parametrize("step", ["set_model_version_tag", "set_registered_model_alias"])
def test_a_kill_before_the_alias_moves_leaves_the_old_champion(
    meadow: tuple[Settings, Workspace], step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(mlflow.MlflowClient, step, _killed)
        with pytest.raises(Killed):
            registry.promote(*meadow, "v2", "killed")

    assert champion(meadow) == "v1"
    assert {row.version: row.promoted for row in registry.listed(*meadow)}["v2"] is None
    with pytest.raises(registry.NoChampion):
        registry.rollback(*meadow)  # what did not happen is not undone
    registry.promote(*meadow, "v2", "again")
    assert registry.rollback(*meadow).of == "v1"


def test_a_kill_after_the_alias_moved_leaves_the_new_champion(
    meadow: tuple[Settings, Workspace], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(mlflow.MlflowClient, "delete_registered_model_alias", _killed)
        with pytest.raises(Killed):
            registry.promote(*meadow, "challenger", "killed late")

    assert champion(meadow) == "v3"
    assert registry.promote(*meadow, "v3", "") is None  # tidies up
    assert registry.listed(*meadow)[0].aliases == ("champion",)
    assert registry.rollback(*meadow).of == "v1"


def test_a_detector_whose_files_were_changed_does_not_become_the_champion(
    meadow: tuple[Settings, Workspace],
) -> None:
    client = mlflow.MlflowClient()
    digest = client.get_model_version("meadow", "2").tags[registry.DIGEST_TAG]
    client.set_model_version_tag("meadow", "2", registry.DIGEST_TAG, "0" * 64)
    try:
        with pytest.raises(DetectorError, match="somebody changed them"):
            registry.promote(*meadow, "v2", "")
    finally:
        client.set_model_version_tag("meadow", "2", registry.DIGEST_TAG, digest)
    assert champion(meadow) == "v1"


def test_nothing_is_promoted_over_a_champion_that_it_was_not_compared_with(
    meadow: tuple[Settings, Workspace],
) -> None:
    registry.promote(*meadow, "v2", "somebody was faster")
    with pytest.raises(registry.AnotherChampion, match="v2 is the champion of meadow now, not v1"):
        registry.promote(*meadow, "v3", "better than v1", instead_of="v1")
    assert champion(meadow) == "v2"


def test_a_version_that_does_not_exist_is_said(meadow: tuple[Settings, Workspace]) -> None:
    with pytest.raises(registry.NoChampion, match=r"no version v9 of meadow .*there are v1, v2, v3"):
        registry.promote(*meadow, "v9", "")


def test_every_move_is_kept_and_a_long_reason_is_cut(meadow: tuple[Settings, Workspace]) -> None:
    registry.promote(*meadow, "v2", "x" * 6000)
    registry.rollback(*meadow)
    registry.promote(*meadow, "v2", "again")

    tags = mlflow.MlflowClient().get_model_version("meadow", "2").tags
    moves = [json.loads(text) for key, text in sorted(tags.items()) if key.startswith(MOVED_TAG)]
    assert [move["why"] for move in moves] == ["x" * registry.LONGEST_WORDS, "again"]


def test_a_move_by_other_hands_is_no_hindrance(meadow: tuple[Settings, Workspace]) -> None:
    mlflow.MlflowClient().set_registered_model_alias("meadow", "champion", "2")
    registry.promote(*meadow, "v3", "")
    assert registry.rollback(*meadow).of == "v2"


def test_a_registry_that_is_empty_lists_nothing(tmp_path: Path) -> None:
    assert registry.listed(named("nowhere", tmp_path), Workspace(tmp_path / "workspace")) == []


def _killed(*_: object) -> None:
    raise Killed
