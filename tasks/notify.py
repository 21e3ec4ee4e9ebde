"""Notification: who asked for it is told, through blocks of Prefect, of a night, a failure or a refused challenger.

A block holds the address and its secrets in Prefect's database; the settings know its name only.
"""

from __future__ import annotations

import logging
import re

import httpx
import prefect.blocks.notifications  # noqa: F401 - registers the types of blocks that ship with Prefect
from prefect.blocks.abstract import NotificationBlock
from prefect.blocks.core import Block

from configs import Settings
from tasks.nights import NightRecord

MOST_LINES = 20  # of quarantined scenes, or reasons, in one message
MOST_CHARACTERS = 300  # of one of them

log = logging.getLogger(__name__)


def tell(settings: Settings, subject: str, body: str) -> int:
    """Send a message through each block of the settings. One that is missing or fails is a warning, nothing more.

    Args:
        settings: Name the blocks; with none, nobody is told.
        subject: One line.
        body: Lines of plain text.

    Returns:
        How many blocks took it.
    """
    sent = 0
    for name in settings.notify.blocks:
        try:
            block = Block.load(name, _sync=True)  # type: ignore[call-arg]
            if not isinstance(block, NotificationBlock):
                raise TypeError(f"it is a {type(block).__name__}, which cannot notify")
            with block.raise_on_failure():
                block.notify(body=body, subject=subject, _sync=True)  # type: ignore[call-arg, unused-coroutine]
        except Exception as error:
            log.warning("nobody is told through the block %s that %r: %s", name, subject, _why(error))
        else:
            sent += 1
    return sent


def tell_of_night(record: NightRecord, before: NightRecord | None, settings: Settings) -> None:
    """Tell of a night that passes a limit; see `night_message`."""
    message = night_message(record, settings, before) if settings.notify.blocks else None
    if message:
        tell(settings, *message)


def night_message(record: NightRecord, settings: Settings, before: NightRecord | None = None) -> tuple[str, str] | None:
    """Subject and body of what is to be told of a night; None when nothing passes a limit.

    Args:
        record: The night.
        settings: The limits.
        before: The night before it, of the same detector: of a drift it is told once, on the night it is declared.
    """
    limits = settings.notify
    found, lines = [], []
    if limits.flags is not None and record.flags > limits.flags:
        found.append(f"{record.flags} flags")
        lines.append(f"{record.flags} of {record.scored} scored tiles are flagged; the limit is {limits.flags}.")
    if limits.quarantined is not None and len(record.quarantined) > limits.quarantined:
        found.append(f"{len(record.quarantined)} scenes quarantined")
        lines += _some([f"{scene}: {reason}" for scene, reason in record.quarantined.items()], "Quarantined:")
    if limits.drift and record.drift_began and not (before and before.drift_began):
        found.append(f"drift since {record.drift_began}")
        lines += _some(list(record.drift_reasons), f"The input has drifted since {record.drift_began}:")
    if not found:
        return None
    lines.append(f"Report: {record.report} in the workspace. Detector {record.detector_version}.")
    return f"{settings.name} {record.night}: {', '.join(found)}", "\n".join(lines)


def failure_message(settings: Settings, what: str, words: str) -> tuple[str, str]:
    """Subject and body when a run failed.

    Args:
        settings: Name the watch.
        what: The flow.
        words: Why; passwords in addresses are left out.
    """
    return f"{settings.name}: {what} failed", plain(words, most=2000)


def plain(text: str, most: int = MOST_CHARACTERS) -> str:
    r"""Text from outside as a message may hold it: no markup, no control characters, no password, not too long.

    Mail and chats take `<` for the beginning of a tag or of a mention of everybody.

    Example:
        >>> plain("<script>\nftp://me:secret@host/x")
        '‹script› ftp://…@host/x'
    """
    text = re.sub(r"://[^/@\s]+@", "://…@", text)
    text = "".join(c if c.isprintable() else " " for c in text).replace("<", "‹").replace(">", "›")
    return text if len(text) <= most else text[: most - 1] + "…"


def _some(entries: list[str], title: str) -> list[str]:
    more = len(entries) - MOST_LINES
    lines = [f"- {plain(entry)}" for entry in entries[:MOST_LINES]]
    return [title, *lines, *([f"- and {more} more"] if more > 0 else [])]


def _why(error: Exception) -> str:
    """A failure in words that cannot hold the address of a webhook, which is a secret."""
    if isinstance(error, httpx.HTTPStatusError):
        return f"it was answered with {error.response.status_code}"
    if isinstance(error, ValueError | TypeError) and "://" not in str(error):
        return str(error)
    return f"{type(error).__name__}; try it with `prefect block inspect` and a message by hand"
