"""What is told of a flow run that fails: a hook on its state, so that it works whatever went wrong within."""

from __future__ import annotations

import logging
from typing import Any

from prefect.client.schemas.objects import FlowRun, State
from prefect.flows import Flow

from configs import Settings
from flows.parameters import Watch
from tasks.notify import failure_message, plain, tell

log = logging.getLogger(__name__)


def tell_of_failure(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
    """Tell that a run failed or crashed, when the settings of its watch want it; for `on_failure` and `on_crashed`."""
    try:
        settings, _ = Watch.model_validate(flow_run.parameters["watch"]).open()
    except Exception as error:  # the settings may be what is wrong, and then nobody is named
        log.warning("nobody is told that %s failed: %s", flow.name, error)
        return
    if settings.notify.failure and settings.notify.blocks:
        tell(settings, *failure_message(settings, flow.name, state.message or state.name or "no reason is known"))


def tell_of_refusal(version: str, words: str, settings: Settings) -> None:
    """Tell that a new detector did not become the champion, and why."""
    if settings.notify.failure and settings.notify.blocks:
        tell(settings, f"{settings.name}: {version} did not become the champion", plain(words, most=2000))
