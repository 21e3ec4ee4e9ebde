"""Bytes that are the same for the same content, and digests of them."""

from __future__ import annotations

import hashlib
import json
from typing import Any


def canonical_json(content: Any) -> bytes:
    """The same content always gives the same bytes."""
    return (json.dumps(content, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()


def sha256(*parts: bytes) -> str:
    """Hex digest of the parts; their lengths are hashed too, so that (ab, c) and (a, bc) differ."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.hexdigest()
