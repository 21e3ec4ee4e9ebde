"""What a reviewer sees of a question in MLflow: pictures, a table of numbers, and links, as markdown.

Names come from outside: they are shown as text, whatever is in them.
"""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Mapping
from math import isfinite
from typing import TYPE_CHECKING

from PIL import Image, ImageDraw, ImageFont

from tasks.artifacts import plain

if TYPE_CHECKING:
    from tasks.review.questions import Question

SIDE, LABEL, GAP, ACROSS = 160, 18, 6, 4  # of the strip of pictures: pixels, and pictures in a row
INK, PAPER = (40, 44, 48), (255, 255, 255)
QUALITIES = (88, 80, 70, 60, 45)
MOST_BYTES = 40_000  # of a strip: MLflow draws a preview of 100 000 characters, and reads all of them to find answers
SHORTEST = 1000  # characters of a preview that every database takes
LONGEST_NAME = 200
HARMLESS = re.compile(r"[^\W_]+(?:[-._ ][^\W_]+)*")  # words and numbers: no markup
MEANT = {
    "flag": "a flag",
    "suppressed": "suppressed: no flag, since people's verdicts say so",
    "sample": "drawn at random from the tiles below their threshold",
}


def strip(images: Mapping[str, str]) -> bytes:
    """Put pictures of a tile side by side, each with its name.

    Args:
        images: Data URIs by name, in the order in which they are shown.

    Returns:
        A JPEG of at most 40 kB; the same pictures give the same bytes.
    """
    down, across = -(-len(images) // ACROSS), min(len(images), ACROSS)
    size = (across * (SIDE + GAP) - GAP, down * (SIDE + LABEL + GAP) - GAP)
    sheet = Image.new("RGB", size, PAPER)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(12)
    for place, (name, uri) in enumerate(images.items()):
        left, top = place % ACROSS * (SIDE + GAP), place // ACROSS * (SIDE + LABEL + GAP)
        draw.text((left, top + 1), name, fill=INK, font=font)
        sheet.paste(_fitted(uri), (left, top + LABEL))
    while True:
        for quality in QUALITIES:
            buffer = io.BytesIO()
            sheet.save(buffer, format="jpeg", quality=quality, subsampling=0 if quality > 75 else 2)
            if buffer.tell() <= MOST_BYTES:
                return buffer.getvalue()
        sheet = sheet.reduce(2)  # many pictures of nothing but noise


def _fitted(uri: str) -> Image.Image:
    """A picture, as large as its place: pixels of a small one stay sharp."""
    picture = Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))).convert("RGB")
    scale = SIDE / max(picture.size)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    return picture.resize(size, Image.Resampling.NEAREST if scale >= 1 else Image.Resampling.LANCZOS)


def text(words: object, most: int = LONGEST_NAME) -> str:
    """A name as nothing but text within MLflow's markdown: no markup, no HTML, no link, no column of a table.

    What would become a link by itself gets an invisible joint.
    """
    shown = " ".join(str(words).encode("utf-8", "replace").decode().split())
    shown = shown if len(shown) <= most else shown[: most - 1] + "…"
    if HARMLESS.fullmatch(shown) and "www." not in shown.lower():
        return shown  # MLflow's lists show what markdown is made of
    shown = plain("".join(c if c.isprintable() else "�" for c in shown))
    for start in ("://", "@"):
        shown = shown.replace(start, "\N{WORD JOINER}".join(start) if len(start) > 1 else f"\N{WORD JOINER}{start}")
    return shown.replace("www.", "www\N{WORD JOINER}.").replace("WWW.", "WWW\N{WORD JOINER}.")


def headline(question: Question, place: int, of: int) -> str:
    """One line that tells a question from the others of its night."""
    where = f"{text(question.location, 60)} · {text(question.tile_id, 60)}"
    return f"{place} of {of} · {where} · score {question.score:.3g}"


def preview(question: Question, jpeg: bytes | None, links: Mapping[str, str]) -> str:
    """All that a reviewer is shown.

    Args:
        question: What is asked.
        jpeg: The pictures; None without any.
        links: Addresses by the words that are shown; none without a server.
    """
    picture = "" if jpeg is None else f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode('ascii')}"
    return "\n\n".join(_parts(question, picture, links, LONGEST_NAME)) + "\n"


def short_preview(question: Question, picture: str, links: Mapping[str, str]) -> str:
    """The same in at most 1000 characters, for databases that take no more; the picture is an address."""
    parts = _parts(question, picture, links, 40)
    while len("\n\n".join(parts)) >= SHORTEST and len(parts) > 1:
        # The last rows of the table go first, then the links; title and pictures stay.
        table = parts[-2] if links else parts[-1]
        rows = table.splitlines()
        if len(rows) > 3:
            parts[parts.index(table)] = "\n".join(rows[:-1])
        else:
            parts.pop()
    return "\n\n".join(parts)[: SHORTEST - 1] + "\n"


def _parts(question: Question, picture: str, links: Mapping[str, str], most: int) -> list[str]:
    title = f"### {text(question.location, most)} · {question.night}"
    pictures = f"![Pictures of the tile]({picture})" if picture else "No pictures: the scene could not be read."
    rows = {"asked, since it is": _asked(question, most), "score": _score(question), "how unusual": _unusual(question)}
    rows["tile"] = text(question.tile_id, most)
    rows["place"] = f"{question.latitude:.5f}, {question.longitude:.5f} (latitude, longitude)"
    rows["usable"] = f"{question.valid_fraction:.0%} of its pixels"
    for name, shares in (("bands that differ", question.bands), ("parts that differ", question.parts)):
        if len(shares) > 1:
            rows[name] = ", ".join(f"{text(key, most)} {share:.0%}" for key, share in shares.items())
    rows["detector"] = text(question.detector_version, most)
    first, *others = (f"| {name} | {value} |" for name, value in rows.items())
    table = "\n".join([first, "|---|---|", *others])
    shown = " · ".join(f"[{name}]({address})" for name, address in links.items())
    return [title, pictures, table, *([shown] if shown else [])]


def _asked(question: Question, most: int) -> str:
    why = MEANT.get(question.asked, text(question.asked, most))
    if question.asked == "suppressed" and question.suppressed:
        return f"suppressed, and so no flag: {text(question.suppressed, most)}"
    return why


def _score(question: Question) -> str:
    limit = "" if question.threshold is None else f", threshold {question.threshold:.3g}"
    return f"{question.score:.3g}{limit} ({text(question.kind, 40)})"


def _unusual(question: Question) -> str:
    """The p-value in words, and what people's verdicts have made of it."""
    found = question.p_value
    if found is None or not isfinite(found) or found <= 0:
        return "not known"
    words = f"1 in {_round(1 / found):,} normal tiles scores as high" if found < 0.5 else "most normal tiles score so"
    after = question.p_reviewed
    if after is not None and abs(after - found) > 1e-12:
        words += f"; with the verdicts of this place p = {after:.2g}"
    return f"{words} (p = {found:.2g})"


def _round(number: float) -> int:
    """A number with two digits that count."""
    digits = max(0, len(str(int(number))) - 2)
    return round(round(number), -digits)
