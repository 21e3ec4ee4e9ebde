"""What a page must bear, and what a browser says of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

LONG = "a_name_without_any_space_" * 8
HOSTILE = """"><script>document.title = "taken over"</script><img src=x onerror='document.title = "taken over"'>"""


def focused(page: Page) -> str:
    return page.evaluate("document.activeElement.id")


def opacity(layer: Locator) -> float:
    return float(layer.evaluate("layer => getComputedStyle(layer).opacity"))
