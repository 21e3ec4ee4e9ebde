"""STAC items and static catalogs, made when a test needs them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

WEST, SOUTH, EAST, NORTH = 20.0, 46.0, 21.0, 47.0


def asset(href: str, **fields: Any) -> dict[str, Any]:
    """An asset."""
    return {"href": href, "roles": ["data"], **fields}


def item(
    name: str,
    assets: Mapping[str, Any],
    *,
    collection: str = "scenes",
    box: tuple[float, float, float, float] = (WEST, SOUTH, EAST, NORTH),
    **properties: Any,
) -> dict[str, Any]:
    """An item of one square degree, on 1 June 2024 unless told otherwise."""
    west, south, east, north = box
    ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "stac_extensions": [],
        "id": name,
        "collection": collection,
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "bbox": list(box),
        "properties": {"datetime": "2024-06-01T10:00:00Z"} | properties,
        "links": [],
        "assets": dict(assets),
    }


def write_catalog(
    folder: Path, items: Sequence[dict[str, Any]], children: Mapping[str, Sequence[dict[str, Any]]] | None = None
) -> Path:
    """A static catalog, with relative links; returns its file."""
    folder.mkdir(parents=True, exist_ok=True)
    links = []
    for one in items:
        (folder / f"{one['id']}.json").write_text(json.dumps(one))
        links.append({"rel": "item", "href": f"./{one['id']}.json"})
    for name, below in (children or {}).items():
        write_catalog(folder / name, below)
        links.append({"rel": "child", "href": f"./{name}/catalog.json"})
    catalog = {
        "type": "Catalog",
        "stac_version": "1.0.0",
        "id": folder.name,
        "description": "of a test",
        "links": links,
    }
    (folder / "catalog.json").write_text(json.dumps(catalog))
    return folder / "catalog.json"
