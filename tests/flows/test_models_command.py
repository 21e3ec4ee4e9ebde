"""`tilewatch models`: which detectors there are, and which of them scores."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from configs import Settings, Workspace, load_settings
from tasks import registry, tracking
from tests.commands import DONE, FAILED, WRONG, in_words, result, run_tilewatch
from tests.vae.test_detector import NO_NETWORK, calibrated

pytestmark = pytest.mark.slow
WORDS = "v2 is not shown to be better than v1: v1 goes on. [b]Average[/b] precision 0.500 against 0.600."


@pytest.fixture(scope="module")
def watch(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Settings, Workspace]:
    """A champion, and a challenger that was compared with it."""
    folder = tmp_path_factory.mktemp("watch")
    config = folder / "meadow.yaml"
    config.write_text(yaml.safe_dump({"name": "meadow", "source": {"root": "scenes", "bands": ["B00", "B01", "B02"]}}))
    settings, workspace = load_settings(config, environment={}), Workspace(folder / "workspace")
    for seed, alias in enumerate(("champion", "challenger")):
        with tracking.run(settings, workspace, "train", f"seed {seed}", {}):
            registry.register(calibrated(members=0, seed=seed, **NO_NETWORK), settings, f"seed {seed}", alias)
    found = {"against": "v1", "better": False, "ap": 0.5, "ap_champion": 0.6, "low": -0.2, "high": 0.1, "words": WORDS}
    registry.keep_comparison(settings, "v2", found)
    return folder, settings, workspace


def test_models_are_listed_promoted_and_rolled_back(watch: tuple[Path, Settings, Workspace], tmp_path: Path) -> None:
    folder, settings, workspace = watch

    def models(*arguments: str):
        return run_tilewatch(folder, tmp_path, "models", *arguments, "-c", "meadow.yaml")

    listed = models("list")
    assert listed.returncode == DONE, listed.stderr
    newest, oldest = (
        next(line for line in listed.stdout.splitlines() if line.startswith(f" {one}")) for one in ("v2", "v1")
    )
    assert "challenger" in newest
    assert "0.500 against 0.600" in newest
    assert "-0.200 to +0.100" in newest
    assert "champion" in oldest
    assert WORDS in listed.stdout  # as it was written, whatever is in it

    promoted = models("promote", "--reason", "looked at", "--json")
    assert result(promoted) == {"champion": "v2", "instead_of": "v1", "moved": True}
    assert registry.champion(settings, workspace)[1] == "v2"
    assert "v2 is the champion already" in models("promote", "v2").stdout

    told = result(models("list", "--json"))
    assert [one["version"] for one in told["models"]] == ["v2", "v1"]
    assert told["models"][0]["promoted_why"] == "looked at"
    assert told["models"][0]["compared"]["low"] == -0.2

    assert "v1 is the champion now, instead of v2." in models("rollback").stdout
    again = models("rollback")
    assert again.returncode == FAILED
    assert in_words(again)
    assert "`tilewatch models list`" in again.stderr


def test_what_is_no_version_is_wrong_usage(watch: tuple[Path, Settings, Workspace], tmp_path: Path) -> None:
    refused = run_tilewatch(watch[0], tmp_path, "models", "promote", "best", "-c", "meadow.yaml")
    assert refused.returncode == WRONG
    assert in_words(refused)
