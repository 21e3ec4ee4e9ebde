"""Evaluate: scores against a known truth."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from numpy.typing import ArrayLike

from imagery.truth import TruthError
from tasks import metrics
from tasks.evaluation import Comparison, Estimate, Evaluation, KindFound, LeftOut, Regions, number
from tasks.intervals import REPETITIONS
from tasks.regions import RegionCounts, pro_bootstrap
from tasks.truth import ScoredScene, Shares, Truth

SCORE = "score"  # the one that counts: only it has a threshold, flags and a heatmap
UNNAMED = "not named"
OF_KIND = ("average_precision", "auroc", "recall")
IDENTITY = ["tile_id", "scene_id", "location"]
WINDOW = ["row_off", "col_off", "height", "width"]
BY_SCORE: dict[str, metrics.Metric] = {
    "average_precision": metrics.average_precision,
    "auroc": metrics.auroc,
    "fpr95": metrics.fpr_at_recall,
}
BY_FLAG: dict[str, metrics.Metric] = {
    "precision": metrics.precision,
    "recall": metrics.recall,
    "false_alarm_rate": metrics.false_alarm_rate,
}


@dataclass(frozen=True)
class Detection:
    """How well flags and scores agree with the truth; a number that is not defined is None.

    Attributes:
        tiles: Tiles with a score and a clear truth.
        positives: How many of them show an event.
        flags: How many of them are flagged.
        precision: Share of the flags that show an event.
        recall: Share of the events' tiles that are flagged.
        auroc: Probability that a tile with an event scores higher than one without (Hanley & McNeil 1982).
        false_alarm_rate: Share of the tiles without an event that are flagged.
    """

    tiles: int
    positives: int
    flags: int
    precision: float | None
    recall: float | None
    auroc: float | None
    false_alarm_rate: float | None


def detection(score: ArrayLike, flagged: ArrayLike, positive: ArrayLike) -> Detection:
    """Compare (N,) scores and flags with (N,) truth.

    Args:
        score: Higher = more anomalous; NaN for tiles without a score, which do not count.
        flagged: bool.
        positive: 1 where the tile shows an event, 0 where not, NaN where neither can be said, which does not count.
    """
    columns = [np.asarray(column, dtype=float) for column in (score, flagged, positive)]
    rows = metrics.known(*columns)
    scores, flags, events = (column[rows] for column in columns)
    return Detection(
        tiles=len(scores),
        positives=int((events > 0).sum()),
        flags=int((flags > 0).sum()),
        precision=number(metrics.precision(flags, events)),
        recall=number(metrics.recall(flags, events)),
        auroc=number(metrics.auroc(scores, events)),
        false_alarm_rate=number(metrics.false_alarm_rate(flags, events)),
    )


@dataclass(frozen=True)
class Labelled:
    """Tiles with scores and truth.

    Attributes:
        tiles: One row a tile: `tile_id`, `scene_id`, `location`, `date` (text), `score`, `flagged`, `share`,
            `positive` (1, 0, NaN), `kind`; with another score beside it, `other`.
        regions: Of each scene, by `scene_id`; empty when the truth is not one of pixels, or the score has no heatmap.
        unknown_scenes: How many scenes the truth says nothing of.
    """

    tiles: pd.DataFrame
    regions: Mapping[str, RegionCounts]
    unknown_scenes: int


@dataclass(frozen=True)
class Draws:
    """How the bootstrap draws."""

    repetitions: int = REPETITIONS
    seed: int = 0


def label_scenes(
    scenes: Sequence[ScoredScene],
    truth: Truth,
    shares: Shares,
    score: str = SCORE,
    on_scene: Callable[[str], None] = lambda scene_id: None,
) -> Labelled:
    """Read the scores of some scenes, and put the truth beside them.

    Args:
        scenes: Scored scenes.
        truth: What is known of them.
        shares: When a tile counts as one with an event.
        score: "score", or the name of one of the detector's scores.
        on_scene: Called after each scene.

    Raises:
        TruthError: There is no such score, or the truth says nothing of any scene.
        ImageryError: Truth or heatmap cannot be read.
    """
    tables, regions = [], {}
    for scene in scenes:
        table = read_scores(scene, score, WINDOW)
        known = truth.of(scene, table, shares)
        if known is not None:
            found = {"share": known.share, "positive": known.positive, "kind": known.kind}
            tables.append(table.drop(columns=WINDOW).assign(**found))
            if known.regions is not None and score == SCORE:
                regions[scene.scene_id] = known.regions
        on_scene(scene.scene_id)
    if not tables:
        raise TruthError(
            f"the truth says nothing of the {len(scenes)} scored scenes: check that its places, dates and tile ids are "
            "theirs, or pass --complete if what it does not mention is normal"
        )
    return Labelled(pd.concat(tables, ignore_index=True), regions, len(scenes) - len(tables))


def with_other(labelled: Labelled, scenes: Sequence[ScoredScene], score: str) -> Labelled:
    """Put another score of the same tiles beside the first one; NaN where there is none.

    Args:
        labelled: Tiles with truth.
        scenes: Where the other scores lie: the same scenes, maybe of another version.
        score: "score", or the name of a score.

    Raises:
        TruthError: There is no such score.
    """
    wanted = set(labelled.tiles["scene_id"])
    tables = [read_scores(scene, score) for scene in scenes if scene.scene_id in wanted]
    if not tables:
        raise TruthError("what it is to be compared with has scored none of these scenes: choose another version")
    other = pd.concat(tables)[["tile_id", "scene_id", "score"]].rename(columns={"score": "other"})
    joined = labelled.tiles.merge(other, how="left", on=["tile_id", "scene_id"], validate="one_to_one")
    return replace(labelled, tiles=joined)


def read_scores(scene: ScoredScene, score: str, further: Sequence[str] = ()) -> pd.DataFrame:
    """The tiles of a scene with one of their scores, as the column `score`, and `flagged` (NaN without a threshold).

    Raises:
        TruthError: The detector has no such score.
    """
    column = score if score == SCORE else f"score_{score}"
    there = pq.read_schema(scene.scores).names
    if column not in there:
        names = ", ".join(name.removeprefix("score_") for name in there if name.startswith("score_"))
        raise TruthError(f"{scene.scores} has no score {score!r}: choose {SCORE!r} or one of {names or 'none'}")
    table = pq.read_table(scene.scores, columns=[*IDENTITY, column, "flagged", *further]).to_pandas()
    flags = table["flagged"].astype(float) if score == SCORE else np.nan
    return table.assign(score=table[column].astype(float), flagged=flags, date=scene.day.isoformat())[
        [*IDENTITY, "date", "score", "flagged", *further]
    ]


def evaluate_tiles(labelled: Labelled, version: str, score: str, against: str | None, draw: Draws) -> Evaluation:
    """Compute every metric, each with its interval.

    Args:
        labelled: Scores and truth; with the column `other`, they are compared as well.
        version: What scored.
        score: Which of its scores.
        against: What `other` is; None when there is none.
        draw: How the bootstrap draws.

    Raises:
        TruthError: No tile counts, or none shows an event.
    """
    tiles = labelled.tiles
    counted = tiles[metrics.known(tiles["score"], tiles["positive"])]
    left_out = _left_out(labelled)
    positives = int(counted["positive"].sum())
    if not positives:
        raise TruthError(
            f"no scored tile shows an event ({len(counted)} show none; left out: {left_out.no_score} without a score, "
            f"{left_out.no_truth} without truth, {left_out.between} between the two shares): choose other dates, or a "
            "lower --positive-share"
        )
    by = _groups(counted)
    flags = int(counted["flagged"].sum()) if score == SCORE else None
    return Evaluation(
        detector_version=version,
        score=score,
        scenes=tiles["scene_id"].nunique(),
        locations=tiles["location"].nunique(),
        tiles=len(counted),
        positives=positives,
        flags=flags,
        left_out=left_out,
        interval_by=by,
        groups=counted[by].nunique(),
        estimates=_estimates(counted, by, draw, flags is not None) | _pro(labelled, by, draw),
        regions=_regions(labelled.regions),
        kinds=_kinds(counted, draw, flags is not None),
        comparison=_compare(counted, by, against, draw) if against is not None else None,
    )


def _groups(counted: pd.DataFrame) -> str:
    """What the bootstrap draws: locations, or dates where all events lie in one location: drawing it says nothing."""
    places = counted.loc[counted["positive"] > 0, "location"].nunique()
    return "location" if places > 1 else "date"


def _estimates(
    counted: pd.DataFrame, by: str, draw: Draws, flags: bool, only: Sequence[str] = ()
) -> dict[str, Estimate]:
    """The metrics of some tiles, of scores and, where there are any, of flags; all of them, or only some."""
    columns = [(name, metric, "score") for name, metric in BY_SCORE.items()]
    columns += [(name, metric, "flagged") for name, metric in BY_FLAG.items() if flags]
    return {
        name: Estimate.of(
            metrics.bootstrap(metric, counted[column], counted["positive"], counted[by], draw.repetitions, draw.seed)
        )
        for name, metric, column in columns
        if not only or name in only
    }


def _kinds(counted: pd.DataFrame, draw: Draws, flags: bool) -> dict[str, KindFound]:
    """Each kind against all tiles without an event; nothing where no kind is named."""
    positive = counted["positive"] > 0
    kinds = counted["kind"].where(counted["kind"] != "", UNNAMED)
    names = sorted(kinds[positive].unique())
    if names == [UNNAMED]:
        return {}
    found = {}
    for name in names:
        rows = counted[~positive | (kinds == name)]
        here = rows["positive"] > 0
        flagged = int(rows.loc[here, "flagged"].sum()) if flags else None
        by = _groups(rows)
        found[str(name)] = KindFound(int(here.sum()), flagged, by, _estimates(rows, by, draw, flags, OF_KIND))
    return found


def _pro(labelled: Labelled, by: str, draw: Draws) -> dict[str, Estimate]:
    """PRO, where the truth is one of pixels."""
    if not labelled.regions:
        return {}
    groups = labelled.tiles.drop_duplicates("scene_id").set_index("scene_id")[by]
    members: dict[str, list[RegionCounts]] = {}
    for scene_id, counts in labelled.regions.items():
        members.setdefault(groups[scene_id], []).append(counts)
    counts_of = [RegionCounts.merged(members[name]) for name in sorted(members)]
    return {"pro": Estimate.of(pro_bootstrap(counts_of, None, draw.repetitions, draw.seed))}


def _regions(regions: Mapping[str, RegionCounts]) -> Regions | None:
    if not regions:
        return None
    pixels = sum(counts.region_pixels for counts in regions.values())
    masked = sum(counts.masked_pixels for counts in regions.values())
    return Regions(
        counted=sum(counts.regions for counts in regions.values()),
        unseen=sum(counts.unseen for counts in regions.values()),
        masked_share=masked / pixels if pixels else None,
    )


def _compare(counted: pd.DataFrame, by: str, against: str, draw: Draws) -> Comparison:
    both = counted[metrics.known(counted["other"])]
    truth, groups = both["positive"], both[by]
    return Comparison(
        against=against,
        tiles=len(both),
        own={name: number(metric(both["score"], truth)) for name, metric in BY_SCORE.items()},
        other={name: number(metric(both["other"], truth)) for name, metric in BY_SCORE.items()},
        differences={
            name: Estimate.of(
                metrics.paired_bootstrap(
                    metric, both["score"], both["other"], truth, groups, draw.repetitions, draw.seed
                )
            )
            for name, metric in BY_SCORE.items()
        },
    )


def _left_out(labelled: Labelled) -> LeftOut:
    tiles = labelled.tiles
    scored = np.isfinite(tiles["score"])
    unclear = scored & tiles["positive"].isna()
    return LeftOut(
        scenes=labelled.unknown_scenes,
        no_score=int((~scored).sum()),
        no_truth=int((unclear & tiles["share"].isna()).sum()),
        between=int((unclear & tiles["share"].notna()).sum()),
    )
