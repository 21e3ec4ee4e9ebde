"""The page of all settings, as Markdown: `python -m configs.describe > docs/settings.md`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from configs.schema import Area, Period, Range, Settings, Severity

INTRODUCTION = """\
# Settings

<!-- Made by `python -m configs.describe` from configs/schema/: change it there. -->

A preset is a YAML file with a part of these values; what it leaves out keeps its default. A watch needs hardly more
than `source`, `masks` and `split`; `configs/` has examples. Values are taken in this order, and the last one wins:

1. the default,
2. the YAML file: `--config FILE`, or the variable `TILEWATCH_CONFIG`,
3. `--set key=value`, e.g. `--set train.epochs=5`; the value is read as YAML, so
   `--set source.bands='[B02, B03]'` is a list,
4. a variable `TILEWATCH_…` with two underscores between section and key, e.g. `TILEWATCH_TRAIN__EPOCHS=5`.

An unknown key and a value out of its range are refused before any work starts. A relative `source.root` in a YAML file
is relative to that file, and may hold `${NAME}` or `${NAME:-default}` for a variable of the environment; given with
`--set` or as a variable it is taken as it stands. Settings are logged with every run: no secret belongs here.
"""
LIMITS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<", "multiple_of": "a multiple of"}
NAMES = {
    str: "text",
    int: "integer",
    float: "number",
    bool: "true or false",
    Path: "path",
    date: "date",
    Area: "`{crs: text, bounds: [left, bottom, right, top], resolution: number}`",
    Period: "`{start: date, end: date}`",
    Range: "`{low: number, high: number, log: true or false}`",
}
SEVERITY = "What a failure of this check is; a critical one quarantines the scene, `off` leaves the check out."


def page() -> str:
    """The whole page: a table of the keys outside any section, then one a section."""
    alone, parts = {}, []
    for name, field in Settings.model_fields.items():
        section = field.annotation
        if isinstance(section, type) and issubclass(section, BaseModel):
            parts.append(f"## {name}\n\n{_purpose(section)}\n\n{_table(f'{name}.', section.model_fields)}")
        else:
            alone[name] = field
    return "\n".join([INTRODUCTION, _table("", alone), *parts])


def _table(prefix: str, fields: dict[str, FieldInfo]) -> str:
    rows = ["| key | value | default | meaning |", "|---|---|---|---|"]
    for name, field in _flat(fields):
        default = field.get_default(call_default_factory=True)
        cells = (f"`{prefix}{name}`", ", ".join(_value(field)), f"`{_shown(default)}`", _meaning(field))
        rows.append("| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |")
    return "\n".join(rows) + "\n"


def _flat(fields: dict[str, FieldInfo], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """The fields of a section with those of the sections in it; a span of dates is one field."""
    for name, field in fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel) and inner is not Period:
            yield from _flat(inner.model_fields, f"{prefix}{name}.")
        else:
            yield prefix + name, field


def _meaning(field: FieldInfo) -> str:
    if field.description:
        return field.description
    if str(field.annotation) == str(Severity):
        return SEVERITY
    return _purpose(Period) if field.annotation is Period else ""


def _purpose(section: type[BaseModel]) -> str:
    return (section.__doc__ or "").strip()


def _value(field: FieldInfo) -> Iterator[str]:
    """What a value may be: its kind, then its limits."""
    yield _kind(field.annotation)
    for limit in field.metadata:
        yield from (f"{sign} {getattr(limit, name)}" for name, sign in LIMITS.items() if hasattr(limit, name))
        if getattr(limit, "min_length", None):
            yield "not empty"
        if getattr(limit, "pattern", None):
            yield f"like `{limit.pattern}`"


def _kind(annotation: Any) -> str:
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return ", ".join(_value(FieldInfo.from_annotation(annotation)))
    if origin is Literal:
        return " or ".join(f"`{choice}`" for choice in inner)
    if origin in (Union, UnionType):
        null = ["null"] if NoneType in inner else []
        return " or ".join([*(_kind(one) for one in inner if one is not NoneType), *null])
    if origin is dict:
        return f"`{{name: …}}`, each {_kind(inner[1])}"
    if origin is tuple:
        return f"list of {_kind(inner[0])}" if inner[-1] is Ellipsis else f"{len(inner)} × {_kind(inner[0])}"
    return NAMES[annotation]


def _shown(default: Any) -> str:
    if isinstance(default, Period):
        return "{}" if default == Period() else default.model_dump_json()
    return json.dumps(default, default=_plain, ensure_ascii=False)


def _plain(value: Any) -> Any:
    return value.model_dump() if isinstance(value, BaseModel) else str(value)


if __name__ == "__main__":
    print(page(), end="")
