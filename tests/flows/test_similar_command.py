"""`tilewatch latents similar` as a person meets it, on a watch with an untrained detector."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import yaml

from configs import Period, SettingsError, Workspace, load_settings
from flows.parameters import Watch
from flows.similar import similar
from imagery.catalog import Catalog
from tasks import registry, tracking
from tasks.ingest import ingest_scene, plan_ingest, settle_grids
from tasks.moves import CHAMPION
from tasks.score import latents_file, score_scene
from tests.commands import DONE, FAILED, WRONG, in_words, result, run_tilewatch, state
from tests.rasters import BANDS, ground, write_raster
from tests.tasks.test_score import ALONE, scored_watch

pytestmark = pytest.mark.slow
ASKED = "here-r00016-c00016"


@pytest.fixture(scope="module")
def watch(tmp_path_factory: pytest.TempPathFactory) -> Watch:
    """Two places on two dates, scored by a champion; a third date without latents."""
    folder = tmp_path_factory.mktemp("watch")
    for seed, (place, day) in enumerate((place, day) for place in ("here", "[b]there") for day in (1, 2)):
        write_raster(folder / f"scenes/{place}/2020-06-0{day}.tif", ground(40, 52, seed=seed))
    content = {
        "name": "meadow",
        "source": {"root": "scenes", "bands": list(BANDS)},
        "grid": {"tile_size": 16},
        "score": {**ALONE, "also": list(ALONE["also"])},
    }
    config = folder / "meadow.yaml"
    config.write_text(yaml.safe_dump(content))
    settings, workspace = load_settings(config, environment={}), Workspace(folder / "workspace")
    plan = plan_ingest(settings, workspace)
    settle_grids(plan.scenes, settings, workspace)
    for scene in plan.scenes:
        assert ingest_scene(scene, settings, workspace).reason is None
    _, made, _, _ = scored_watch(folder / "made", None)
    about = {"reading_key": Catalog(workspace).scenes()[0].key, "rgb_limits": {band: [0.0, 0.5] for band in BANDS}}
    detector = replace(made, metadata={**made.metadata, **about, "bands": list(BANDS)})
    with tracking.run(settings, workspace, "train", "made", {}):
        registry.register(detector, settings, "made", CHAMPION)
    for record in Catalog(workspace).scenes():
        score_scene(record, detector, "v1", settings, workspace)
    return Watch(config=str(config), workspace=str(workspace.root))


def test_a_page_and_tables_are_written_the_same_every_time(watch: Watch) -> None:
    first = similar(watch, ASKED, count=5)
    page, table = Path(first.report), Path(first.table)
    content = page.read_bytes()

    again = similar(watch, ASKED, count=5)

    assert again == first
    assert page.read_bytes() == content
    assert page == Path(watch.workspace) / "reports/similar/here-r00016-c00016%202020-06-02.html"
    written = pd.read_parquet(table)
    assert written["tile_id"].tolist() == [one["tile_id"] for one in first.found]
    assert written["distance"].is_monotonic_increasing
    assert written["score"].notna().all()
    assert len(written) == 5
    told = json.loads(table.with_suffix(".json").read_text(encoding="utf-8"))
    assert told["found"] == first.found
    assert (told["tiles"], told["scenes"]) == (first.tiles, 4)
    assert content.count(b"<img ") == 2 * (5 + 1)


def test_the_page_goes_where_it_is_asked_to_be_and_only_if_it_is_one(watch: Watch, tmp_path: Path) -> None:
    found = similar(watch, ASKED, count=1, out=tmp_path / "new/like.this.html", other_places=True)

    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == [
        "like.this.html",
        "like.this.json",
        "like.this.parquet",
    ]
    assert found.found[0]["location"] == "[b]there"
    with pytest.raises(SettingsError, match=r"is not named \.html"):
        similar(watch, ASKED, out=tmp_path / "like.json")


def test_when_nothing_is_left_to_compare_the_page_says_so(watch: Watch) -> None:
    lonely = similar(watch, ASKED, count=3, other_places=True, period=Period(end="2020-06-01"), each=9)
    assert {one["scene_id"] for one in lonely.found} == {"[b]there/2020-06-01"}


def on_command_line(watch: Watch, prefect: Path | str, *arguments: str):
    return run_tilewatch(Path(watch.config).parent, prefect, "latents", *arguments, "-c", "meadow.yaml")


def test_on_the_command_line_it_is_shown(watch: Watch, tmp_path: Path) -> None:
    ran = on_command_line(watch, tmp_path, "similar", ASKED, "--count", "4", "--other-places")

    assert ran.returncode == DONE, ran.stderr
    assert "[b]there-r000" in ran.stdout
    assert "Open workspace/reports/similar/" in ran.stdout


def test_on_the_command_line_it_is_told_as_json(watch: Watch, tmp_path: Path) -> None:
    ran = on_command_line(watch, tmp_path, "similar", ASKED, "--count", "4", "--json")

    assert ran.returncode == DONE, ran.stderr
    assert len(result(ran)["found"]) == 4
    assert result(ran)["tile_id"] == ASKED


def test_a_tile_that_is_not_there_is_refused_in_words(watch: Watch, tmp_path: Path) -> None:
    ran = on_command_line(watch, tmp_path, "similar", "her-r00016-c00016", "--json")

    assert ran.returncode == FAILED
    assert in_words(ran)
    assert "did you mean here-r00016-c00016?" in result(ran)["error"]


def test_plain_latents_still_writes_what_is_missing(watch: Watch, prefect_server: str) -> None:
    _, workspace = watch.open()
    record = Catalog(workspace).scenes(["here"])[0]
    path = latents_file(workspace, "v1", record)
    content = path.read_bytes()
    path.unlink()

    ran = on_command_line(watch, prefect_server, "--json")

    assert ran.returncode == DONE, ran.stderr
    assert (result(ran)["scenes"], result(ran)["written"]) == (4, 1)
    assert path.read_bytes() == content


@pytest.mark.parametrize(
    ("arguments", "status", "told"),
    [
        (("--help",), DONE, "similar"),
        (("similar", "--help"), DONE, "--other-places"),
        (("similar",), WRONG, "TILE_ID"),
        (("similar", "a", "--count", "0"), WRONG, "--count"),
        (("--since", "2020-01-01", "similar", "a"), WRONG, "stand after its name"),
        (("simila", "a"), WRONG, "simila"),
    ],
)
def test_usage_is_checked_before_anything_is_made(
    tmp_path: Path, arguments: tuple[str, ...], status: int, told: str
) -> None:
    ran = run_tilewatch(tmp_path, tmp_path / "prefect", "latents", *arguments)

    assert ran.returncode == status, ran.stderr
    assert told in ran.stdout + ran.stderr
    assert "Traceback" not in ran.stderr
    assert state(tmp_path) == {}
