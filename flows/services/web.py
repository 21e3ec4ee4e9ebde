"""Small requests to the servers, without the libraries that take seconds to import."""

from __future__ import annotations

import base64
import json
import urllib.error
import urllib.request
from typing import Any

TIMEOUT = 10.0  # seconds
# Addresses of this machine are not to be asked for through a proxy.
_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class Unreachable(ConnectionError):
    """A server does not answer, or not as it should."""


def call(method: str, url: str, body: Any = None, login: str | None = None) -> Any:
    """What a server answers.

    Args:
        method: GET, POST, PUT, PATCH or DELETE.
        url: Address.
        body: Sent as JSON.
        login: `user:password`.

    Returns:
        The answer, from JSON; text that is none as it is.

    Raises:
        Unreachable: No answer, or one that says that it failed.
    """
    headers = {"Content-Type": "application/json"}
    if login:
        headers["Authorization"] = "Basic " + base64.b64encode(login.encode()).decode()
    data = None if body is None else json.dumps(body).encode()
    try:
        with _opener.open(urllib.request.Request(url, data, headers, method=method), timeout=TIMEOUT) as response:
            text = response.read().decode()
    except urllib.error.HTTPError as error:
        raise Unreachable(f"{url} answered {error.code}: {error.read().decode(errors='replace')[:500]}") from None
    except (OSError, ValueError) as error:
        raise Unreachable(f"{url} does not answer: {getattr(error, 'reason', error)}") from None
    try:
        return json.loads(text) if text else None
    except ValueError:
        return text


def answers(url: str) -> bool:
    """Whether a server is there and well."""
    try:
        call("GET", url)
    except Unreachable:
        return False
    return True
