"""Events of Prefect: what automations act upon."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.events import Event, RelatedResource, Resource
from prefect.runtime import flow_run
from prefect.settings import PREFECT_API_URL

from configs import Settings


class NobodyListens(ConnectionError):
    """No Prefect server took the event."""


def send(name: str, event_id: UUID, payload: Mapping[str, Any], settings: Settings) -> None:
    """Send an event of the watch, and wait until the server has it; of several with one id the server keeps the first.

    `prefect.events.emit_event` returns before anything was sent, so that a kill could lose the event.

    Args:
        name: Such as `tilewatch.drift`.
        event_id: Of the event.
        payload: JSON.
        settings: Name the watch.

    Raises:
        NobodyListens: There is no server, or it did not take the event.
    """
    if PREFECT_API_URL.value() is None:
        raise NobodyListens(f"{name} was not sent: PREFECT_API_URL names no server on which an automation could act")
    watch = {"prefect.resource.id": f"tilewatch.watch.{settings.name}", "prefect.resource.name": settings.name}
    run = {"prefect.resource.id": f"prefect.flow-run.{flow_run.id}", "prefect.resource.role": "flow-run"}
    event = Event(
        id=event_id,
        event=name,
        resource=Resource(watch),
        related=[RelatedResource(run)] if flow_run.id else [],
        payload=dict(payload),
    )
    try:
        with get_client(sync_client=True) as client:
            client.request("POST", "/events", json=[event.model_dump(mode="json")]).raise_for_status()
    except Exception as error:  # of httpx or of Prefect: whatever it is, the event is not there
        raise NobodyListens(f"{name} was not taken by {PREFECT_API_URL.value()}: {error}") from error
