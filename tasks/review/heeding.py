"""What people's verdicts do to a night: bars raised at places of false alarms, look-alikes suppressed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pandas as pd

from configs import Settings, Workspace
from imagery.catalog import Catalog
from tasks.evidence import Scored
from tasks.review.bars import as_judged, raise_bars, standing
from tasks.review.look_alikes import suppress_look_alikes
from tasks.review.verdicts import Verdict, known_verdicts
from vae.detector import Detector


def heed(scored: Sequence[Scored], detector: Detector, settings: Settings, workspace: Workspace) -> list[Scored]:
    """Judge the tiles of a night again in the light of all verdicts on earlier nights.

    The score files stay as they are. In the tables that are given back a tile that is no flag any more is not
    `flagged`, and four columns say why: `bar`, its threshold after the verdicts; `p_reviewed`, its p-value after them;
    `suppressed`, why it is no flag although its score passes the threshold, in words, else null; `alike`, the tile and
    scene of the false alarm that it is like, else null.

    Verdicts that cannot be read are warned of, and the night goes on without them: it has more flags then, none less.

    Args:
        scored: The scenes of the night.
        detector: The detector that scored them.
        settings: `review` says how much verdicts weigh.
        workspace: Holds the verdicts and the latents.
    """
    unheeded = [replace(scene, scores=_unheeded(scene.scores)) for scene in scored]
    verdicts = known_verdicts(workspace)
    if not verdicts:
        return unheeded
    return [_heeded(scene, verdicts, detector, settings, workspace) for scene in unheeded]


def _unheeded(scores: pd.DataFrame) -> pd.DataFrame:
    nothing = pd.Series(pd.NA, scores.index, "str")
    return scores.assign(bar=scores["threshold"], p_reviewed=scores["p_value"], suppressed=nothing, alike=nothing)


def _heeded(
    scene: Scored, verdicts: Sequence[Verdict], detector: Detector, settings: Settings, workspace: Workspace
) -> Scored:
    night, location = scene.record.day, scene.record.location
    here = [one for one in verdicts if one.location == location]
    if settings.review.repeats is not None and here:
        alarms = standing(here, night, Catalog(workspace).days(location), settings.reference.scenes)
        raised = raise_bars(scene.scores, as_judged(alarms, workspace), night, detector, settings)
        scene = replace(scene, scores=raised)
    if settings.review.look_alike:
        scene = replace(scene, scores=suppress_look_alikes(scene, verdicts, detector, settings, workspace))
    return scene
