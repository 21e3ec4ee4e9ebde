"""Maps: every tile of a scene in the colour of its p-value, and what is told of each when it is pointed at."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np

from tasks.pages import render_night
from tasks.pictures import HATCH, heat_image
from tasks.scene_maps import map_view, odds_image
from tasks.views import NightView
from tests.markup import Page
from tests.scored import HERE, scores_of

SHAPE = (HERE.height, HERE.width)


def test_every_tile_has_the_colour_of_its_p_value_and_those_without_a_score_are_hatched() -> None:
    scores = scores_of({3})
    scores["p_value"] = 10.0 ** -(np.arange(len(scores)) % 5)

    image = odds_image(scores, SHAPE, 1024)

    assert image.shape == (*SHAPE, 3)
    for index, row in enumerate(scores.itertuples()):
        tile = image[row.row_off : row.row_off + row.height, row.col_off : row.col_off + row.width]
        if np.isnan(row.score):
            assert {tuple(colour) for colour in tile.reshape(-1, 3).tolist()} <= {
                tuple(grey) for grey in HATCH.tolist()
            }
        else:
            colour = heat_image(np.array([[index % 5]], float), 0, 4)[0, 0]
            assert (tile == colour).all()


def test_where_tiles_overlap_the_least_likely_is_seen() -> None:
    scores = scores_of(set(), stride=16)
    odd = scores.index[7]
    scores["p_value"] = np.where(scores.index == odd, 1e-4, 0.5)

    image = odds_image(scores, SHAPE, 1024)

    row = scores.loc[odd]
    tile = image[row.row_off : row.row_off + row.height, row.col_off : row.col_off + row.width]
    assert (tile == heat_image(np.array([[4.0]]), 0, 4)[0, 0]).all()


def test_a_large_scene_has_a_map_of_bounded_size_that_covers_it() -> None:
    scores = scores_of(set())

    image = odds_image(scores, SHAPE, 64)

    assert image.shape == (38, 50, 3)
    scored = odds_image(scores.assign(score=1.0), SHAPE, 64)
    assert not (scored[..., None, :] == HATCH).all(axis=-1).any()


def test_a_map_knows_the_score_and_the_odds_of_each_tile_row_by_row() -> None:
    scores = scores_of({3}).sample(frac=1, random_state=0)
    scores["p_value"] = 0.01

    view = map_view(scores, SHAPE, None, 64, 10_000)

    by_place = scores.set_index(["row_off", "col_off"])["score"]
    expected = [by_place[row, column] for row in view.rows for column in view.columns]
    np.testing.assert_allclose([np.nan if one is None else one for one in view.scores], expected, rtol=1e-3)
    assert [once == 100 for once in view.once_in] == [score is not None for score in view.scores]
    assert (view.size, view.tile) == ((200, 150), (32, 32))
    assert view.ground == ""


def test_p_values_after_verdicts_are_the_ones_that_count() -> None:
    scores = scores_of(set()).assign(p_reviewed=1e-4)

    assert set(map_view(scores, SHAPE, None, 64, 10_000).once_in) == {10_000.0, 0.0}


def test_a_page_tells_only_as_many_tiles_as_it_can_hold() -> None:
    view = map_view(scores_of(set()), SHAPE, None, 64, 10_000)
    side = 200
    places, count = list(range(side)), side**2
    huge = replace(view, rows=places, columns=places, scores=[0.5] * count, once_in=[2.0] * count)

    html = render_night(NightView("w", "n", "v", "c", "held_out", 0.01, 1, 1, 0, maps=[view, huge, huge]))

    told = ["data-tiles" in given for given in Page(html).named("figure") if given.get("class") == "map"]
    assert told == [True, True, False]
    first = next(given for given in Page(html).named("figure") if "data-tiles" in given)
    assert json.loads(first["data-tiles"])["onceIn"] == [round(one) for one in view.once_in]
