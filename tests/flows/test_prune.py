"""A watch that is pruned goes on as if nothing had happened."""

from __future__ import annotations

import shutil
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from configs import Workspace
from flows.nightly import nightly
from flows.parameters import NightRequest, Watch
from flows.prune import PruneRequest, prune
from tests.commands import state
from tests.flows.conftest import DATES

NIGHTS = DATES[28:31]
LATER = DATES[31]
EVERYTHING = [f"retention.{what}=1" for what in ("heatmaps", "scores", "latents", "reports", "runs", "versions")]


def test_after_a_prune_no_night_is_due_and_the_next_one_comes_out_the_same(fresh_watch: Watch, tmp_path: Path) -> None:
    nightly(fresh_watch, NightRequest(until=NIGHTS[-1]))
    other = fresh_watch.model_copy(update={"workspace": str(tmp_path / "other")})
    shutil.copytree(fresh_watch.workspace, other.workspace)
    workspace, a_year_on = Workspace(Path(fresh_watch.workspace)), LATER + timedelta(days=365)
    wanted = fresh_watch.model_copy(update={"overrides": EVERYTHING})

    before = state(workspace.root)
    seen = prune(wanted, PruneRequest(dry_run=True, today=a_year_on))
    assert state(workspace.root) == before

    done = prune(wanted, PruneRequest(today=a_year_on))
    assert done.removals == seen.removals
    assert set(done.by_kind) == {"heatmap", "latents", "page", "run"}, "the next nights look back at these scores"
    assert not list(workspace.scores.rglob("*.tif"))

    assert nightly(fresh_watch, NightRequest(until=NIGHTS[-1])).nights == []
    (night,) = nightly(fresh_watch, NightRequest(until=LATER)).nights
    (undisturbed,) = nightly(other, NightRequest(until=LATER)).nights
    assert night.alarmed is not None
    assert replace(night, run_id="") == replace(undisturbed, run_id="")
    for name in ("report.html", "flags.parquet", "flags.geojson"):
        path = Path("reports") / LATER.isoformat() / name
        assert (workspace.root / path).read_bytes() == (Path(other.workspace) / path).read_bytes()
    assert prune(fresh_watch, PruneRequest(today=a_year_on)).removals == [], "unless it is asked for, nothing goes"
