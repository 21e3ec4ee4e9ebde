"""The review in the real thing: an MLflow server, a night with flags, and a reviewer at a browser.

With `SCREENSHOTS=docs/images` the pictures of the documentation are taken anew, as `review-queue.png` and
`report-in-mlflow.png`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlflow
import pandas as pd
import pytest
from mlflow.entities import AssessmentSource
from mlflow.genai import review_queues
from mlflow.server import get_app_client
from mlflow.tracing.client import TracingClient

from configs import Settings, Workspace, load_settings
from tasks.review.answers import collect
from tasks.review.questions import read_questions
from tasks.review.queue import ask
from tasks.review.verdicts import read_verdicts
from tests.commands import result, run_tilewatch
from tests.operations.review_site import (
    HOSTILE,
    NIGHT,
    Site,
    mlflow_server,
    report_night,
    reported,
    scored_night,
    write_watch,
)
from tests.operations.test_postgres import PASSWORD, postgres
from tests.tasks.review.conftest import keep_questions, make_question

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = [pytest.mark.servers, pytest.mark.browser]

COMMENT = "<img src=x onerror=alert(2)> '; DROP TABLE verdicts; --"
NO_ASSISTANT = "if (window === top) localStorage.setItem('mlflow.assistant.fab.autoOpenedOnFirstLoad_v1', 'true')"
PATIENCE = 120_000  # milliseconds: the machine may be busy
# What MLflow's own pages say without logins: who somebody is, nobody knows; and of how they are laid out.
THEIR_WORDS = ("status of 404", "ResizeObserver loop")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("review")
    with mlflow_server(folder / "mlflow") as url:
        config = write_watch(folder, url)
        settings, workspace = load_settings(config), Workspace(folder / "workspace")
        run_id = report_night(settings, workspace)
        ask(NIGHT, run_id, settings, workspace)
        yield Site(url, config, settings, workspace, run_id)


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Callable[..., Page]]:
    """Open an address; whatever is requested from elsewhere, a dialog, or an error in the console fails the test."""
    trouble: list[str] = []
    contexts = []

    def open_one(address: str, **options: Any) -> Page:
        home = address.split("/#")[0]
        contexts.append(browser.new_context(viewport={"width": 1400, "height": 900}, **options))
        # MLflow's assistant covers a third of the page at first.
        contexts[-1].add_init_script(NO_ASSISTANT)
        page = contexts[-1].new_page()
        page.set_default_timeout(PATIENCE)
        page.on("dialog", lambda dialog: (trouble.append(f"dialog {dialog.message}"), dialog.dismiss()))
        page.on("pageerror", lambda error: trouble.append(str(error)))
        page.on("console", lambda one: trouble.append(one.text) if _is_ours(one.type, one.text) else None)
        page.on(
            "request", lambda one: None if one.url.startswith((home, "data:", "blob:")) else trouble.append(one.url)
        )
        page.goto(address)
        return page

    yield open_one
    for context in contexts:
        context.close()
    assert trouble == []


def _is_ours(kind: str, text: str) -> bool:
    return kind == "error" and not any(words in text for words in THEIR_WORDS)


def picture(page: Page) -> Any:
    return page.get_by_alt_text("Pictures of the tile")


def open_item(open_page: Callable[..., Page], site: Site, item: str, **options: Any) -> Page:
    address = (
        f"{site.url}/#/experiments/{site.experiment}/review-queue?selectedQueueId={site.queue}&selectedItemId={item}"
    )
    page = open_page(address, **options)
    picture(page).wait_for()
    page.wait_for_function("() => document.querySelector('img[alt=\"Pictures of the tile\"]').naturalWidth > 0")
    return page


def fill(page: Page, verdict: str, kind: str = "", severity: str = "", comment: str = "") -> None:
    """Answer the form and submit it."""
    for label, choice in (("verdict", verdict), ("kind of event", kind)):
        if choice:
            page.get_by_role("combobox").nth(0 if label == "verdict" else 1).click()
            page.get_by_role("option", name=choice, exact=True).click()
    if severity:
        page.get_by_placeholder("0 – 10").fill(severity)
    if comment:
        page.get_by_placeholder("Whatever the next reader should know.").fill(comment)
    page.get_by_role("button", name="Submit", exact=True).click()


def keep_picture(page: Page, name: str) -> None:
    """Take a picture of the documentation, when that is asked for."""
    folder = os.environ.get("SCREENSHOTS")
    if folder:
        page.screenshot(path=Path(folder) / name)


def test_three_flags_are_reviewed_and_exactly_these_three_verdicts_are_read(
    site: Site, open_page: Callable[..., Page], tmp_path: Path
) -> None:
    items = site.items()
    asked = read_questions(site.workspace, NIGHT)
    assert list(items) == [one.tile_id for one in asked], "the least likely flag comes first"
    flags = [one for one in asked if one.asked == "flag" and one.location == "oxbow"]
    assert len(flags) >= 3
    page = open_item(open_page, site, items[flags[0].tile_id])
    page.get_by_text(f"oxbow · {NIGHT}").first.wait_for()
    assert page.get_by_role("cell", name=f"{flags[0].latitude:.5f}, {flags[0].longitude:.5f}").is_visible()
    link = page.get_by_role("link", name="The night's report").get_attribute("href")
    assert link is not None
    assert link.endswith(f"/runs/{site.run_id}/artifacts/report.html")
    keep_picture(page, "review-queue.png")

    fill(page, "anomaly", "flood", "8", COMMENT)
    page.get_by_text("1 of ").first.wait_for()
    for flag, verdict in ((flags[1], "false alarm"), (flags[2], "cloud or shadow")):
        fill(open_item(open_page, site, items[flag.tile_id]), verdict)
    _until(lambda: len(review_queues.list_review_queue_items(site.queue, status="complete")) == 3)
    synced = run_tilewatch(
        tmp_path, tmp_path / "prefect", "review", "sync", "-c", site.config, "-w", site.workspace.root, "--json"
    )
    read = {one.tile_id: one for one in read_verdicts(site.workspace)}

    assert synced.returncode == 0, synced.stderr
    assert result(synced)["new"] == {"anomaly": 1, "cloud or shadow": 1, "false alarm": 1}
    assert {tile: one.verdict for tile, one in read.items()} == {
        flags[0].tile_id: "anomaly",
        flags[1].tile_id: "false alarm",
        flags[2].tile_id: "cloud or shadow",
    }
    first = read[flags[0].tile_id]
    assert (first.kind, first.severity, first.comment, first.reviewer) == ("flood", 8.0, COMMENT, "default")
    assert (first.asked, first.detector_version, first.score) == ("flag", "v1", flags[0].score)
    listed = run_tilewatch(
        tmp_path, tmp_path / "prefect", "review", "list", "-c", site.config, "-w", site.workspace.root, "--json"
    )
    assert result(listed)["waiting"][0] == {
        "night": str(NIGHT), "asked": len(asked), "answered": 3, "in_mlflow": True
    }  # fmt: skip
    again = open_item(open_page, site, items[flags[0].tile_id])
    assert again.get_by_placeholder("Whatever the next reader should know.").input_value() == COMMENT


def _until(check: Callable[[], object], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(1)


def test_a_hostile_name_is_shown_as_text_in_queue_and_item(site: Site, open_page: Callable[..., Page]) -> None:
    tile = next(one.tile_id for one in read_questions(site.workspace, NIGHT) if one.location == HOSTILE)

    page = open_item(open_page, site, site.items()[tile])

    page.get_by_role("heading", name=HOSTILE).wait_for()
    assert page.locator("img[src='x'], a[href^='javascript']").count() == 0
    page.get_by_role("button", name="Exit review").click()
    page.get_by_text("Needs review (").wait_for()
    page.wait_for_timeout(1000)
    assert page.locator("img[src='x'], a[href^='javascript']").count() == 0


def test_the_report_opens_from_the_run_with_every_picture_and_keys_move_between_its_flags(
    site: Site, open_page: Callable[..., Page]
) -> None:
    home = mlflow.MlflowClient(site.url).get_run(site.run_id).info.experiment_id
    page = open_page(f"{site.url}/#/experiments/{home}/runs/{site.run_id}/artifacts/report.html")
    page.wait_for_function("() => document.querySelector('iframe')")
    _until(lambda: any(frame.locator("#flag-1").count() for frame in page.frames[1:]))
    frame = next(one for one in page.frames[1:] if one.locator("#flag-1").count())

    widths = frame.eval_on_selector_all("img", "images => images.map(image => [image.complete, image.naturalWidth])")
    assert len(widths) >= 3
    assert all(complete and width > 0 for complete, width in widths)
    frame.locator("h1").click()
    for key, flag in (("j", "flag-1"), ("j", "flag-2"), ("k", "flag-1")):
        page.keyboard.press(key)
        assert frame.evaluate("document.activeElement.id") == flag
    keep_picture(page, "report-in-mlflow.png")


def asked_of(url: str, folder: Path, **review: Any) -> Site:
    """A night without scenes: its questions have pictures, and its run is empty."""
    review = {"name": "meadow", "tracking": {"uri": url}, "review": review}
    settings, workspace = Settings.model_validate(review), Workspace(folder / "workspace")
    keep_questions(workspace, *(make_question(number, night=NIGHT) for number in range(3)))
    mlflow.set_tracking_uri(url)
    run = mlflow.MlflowClient().create_run(mlflow.create_experiment("meadow"))
    ask(NIGHT, run.info.run_id, settings, workspace)
    return Site(url, folder / "none.yaml", settings, workspace, run.info.run_id)


def test_with_logins_the_reviewer_of_the_settings_answers_and_is_named(
    open_page: Callable[..., Page], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    login = tmp_path / "login.ini"
    login.write_text(
        f"[mlflow]\ndefault_permission = NO_PERMISSIONS\ndatabase_uri = sqlite:///{tmp_path / 'users.db'}\n"
        "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\n"
    )
    environment = {
        "MLFLOW_AUTH_CONFIG_PATH": str(login),
        "MLFLOW_AUTH_ADMIN_USERNAME": "admin",
        "MLFLOW_AUTH_ADMIN_PASSWORD": "the-password-of-admin",
        "MLFLOW_FLASK_SERVER_SECRET_KEY": "a-key-for-forms",
    }
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "admin")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "the-password-of-admin")
    with mlflow_server(tmp_path / "mlflow", "--app-name", "basic-auth", **environment) as url:
        site = asked_of(url, tmp_path, reviewers=["ana"])
        # As docs/review.md tells the operator.
        auth = get_app_client("basic-auth", tracking_uri=url)
        auth.create_user("ana", "the-password-of-ana")
        auth.grant_user_permission("ana", "experiment", site.experiment, "EDIT")
        item = next(iter(site.items().values()))

        credentials = {"username": "ana", "password": "the-password-of-ana"}
        page = open_item(open_page, site, item, http_credentials=credentials)
        fill(page, "false alarm", comment="mown")
        _until(lambda: len(review_queues.list_review_queue_items(site.queue, status="complete")) == 1)
        page.close()

        assert dict(collect(site.settings, site.workspace).new) == {"false alarm": 1}
        (one,) = read_verdicts(site.workspace)
        assert (one.reviewer, one.verdict, one.comment) == ("ana", "false alarm", "mown")


def test_on_postgresql_previews_are_short_and_the_picture_is_an_artifact(
    open_page: Callable[..., Page], tmp_path: Path
) -> None:
    with (
        postgres(tmp_path) as database,
        mlflow_server(
            tmp_path / "mlflow", MLFLOW_BACKEND_STORE_URI=f"postgresql://tilewatch:{PASSWORD}@{_host(database)}/mlflow"
        ) as url,
    ):
        site = asked_of(url, tmp_path)

        item = next(iter(site.items().values()))
        page = open_item(open_page, site, item)

        assert str(picture(page).get_attribute("src")).startswith(f"{url}/get-artifact?")
        assert ask(NIGHT, site.run_id, site.settings, site.workspace) == 0
        fill(page, "bad data")
        _until(lambda: len(review_queues.list_review_queue_items(site.queue, status="complete")) == 1)
        page.close()
        assert dict(collect(site.settings, site.workspace).new) == {"bad data": 1}


def _host(address: str) -> str:
    """Host and port of a database's address."""
    return address.rsplit("@", 1)[-1]


def test_a_night_of_a_hundred_flags_is_logged_and_asked_in_under_thirty_seconds(site: Site, tmp_path: Path) -> None:
    changed = ["review.experiment=hundred", "review.flags=100", "report.max_flags=100", "grid.tile_size=16"]
    settings, workspace = load_settings(site.config, [*changed, "review.sample=0"]), Workspace(tmp_path / "workspace")
    detector, scenes, scored = scored_night(settings, workspace)
    least_likely = pd.concat([one.scores["p_value"] for one in scored]).nsmallest(100, keep="first").max()
    flagged = [replace(one, scores=one.scores.assign(flagged=one.scores["p_value"] <= least_likely)) for one in scored]
    flags = sum(int(one.scores["flagged"].sum()) for one in flagged)
    assert flags >= 100

    began = time.monotonic()
    run_id = reported(detector, scenes, flagged, settings, workspace)
    asked = ask(NIGHT, run_id, settings, workspace)
    seconds = time.monotonic() - began

    print(f"{flags} flags pictured, reported and logged, {asked} questions: {seconds:.1f} s")
    assert asked == 100
    busy = max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))  # what else this machine does is no failure
    assert seconds < 30 * busy
    first = TracingClient().search_traces(
        locations=[str(mlflow.get_experiment_by_name("hundred").experiment_id)], include_spans=False
    )
    for one in first:
        mlflow.log_feedback(
            trace_id=one.info.trace_id, name="verdict", value="anomaly", source=AssessmentSource("HUMAN", "ana")
        )
    began = time.monotonic()
    assert collect(settings, workspace).verdicts == 100
    print(f"100 verdicts read: {time.monotonic() - began:.1f} s")
