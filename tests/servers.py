"""Servers of this machine for tests: a web folder, an object store, a STAC API, and a proxy that fails now and then.

Each is a process of its own: while it waits for a server, GDAL may hold the lock that Python code needs to run.
"""

from __future__ import annotations

import http.client
import json
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import md5
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote, unquote, urlsplit
from zlib import crc32

import psutil

Fault = Literal["503", "truncated", "gone"]
FORWARDED = ("content-type", "content-length", "content-range", "etag", "last-modified", "accept-ranges", "location")


@dataclass(frozen=True)
class Requests:
    """What a server was asked, as it has noted it."""

    log: Path

    @property
    def seen(self) -> list[tuple[str, str, bool]]:
        """Method, path, and whether it failed on purpose."""
        return [tuple(json.loads(line)) for line in self.log.read_text().splitlines()]

    @property
    def failed(self) -> int:
        """How many failed on purpose."""
        return sum(failed for _, _, failed in self.seen)


@contextmanager
def web_folder(root: Path, ranges: bool = True) -> Iterator[str]:
    """A folder on a web server; without ranges it sends whole files, as Python's own server does."""
    with _own("folder", str(root), "ranges" if ranges else "whole") as url:
        yield url


@contextmanager
def failing_proxy(target: str, fault: Fault, log: Path, every: int = 3) -> Iterator[tuple[str, Requests]]:
    """A server in front of another that spoils every so-manyeth request for the same thing.

    Requests are counted for each address alone. Were they counted all together, threads that try again in step could
    meet the same fate for ever: one of three is refused each time.

    Args:
        target: Address of the server behind it.
        fault: It says that it is busy, breaks off in the middle of the answer, or closes the connection.
        log: Where requests are noted.
        every: Which requests fail.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_text("")
    with _own("proxy", target, fault, str(log), str(every)) as url:
        yield url, Requests(log)


@contextmanager
def object_store(folder: Path) -> Iterator[str]:
    """An S3 endpoint, empty; its log is kept in the folder."""
    with _process(folder / "moto.log", [str(_program("moto_server")), "-H", "127.0.0.1", "-p"]) as url:
        yield url


@contextmanager
def stac_api(
    folder: Path, items: Sequence[dict[str, Any]], port: int | None = None, address: str | None = None
) -> Iterator[str]:
    """A STAC API with some items.

    Args:
        folder: Where the items and the log are kept.
        items: What it serves.
        port: Where it listens.
        address: What it calls itself in links, when a proxy stands before it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "items.json"
    file.write_text(json.dumps({"type": "FeatureCollection", "features": list(items)}))
    port = port or free_port()
    url = f"http://127.0.0.1:{port}"
    command = [str(_program("rustac")), "serve", "--create-collections", "--use-duckdb", "false"]
    command += ["--addr", address or url, "--bind", f"127.0.0.1:{port}", str(file)]
    with _process(folder / "rustac.log", command, port):
        yield url


def upload(endpoint: str, bucket: str, root: Path, public: bool = False) -> None:
    """Put a folder into a bucket, which is made when it is not there."""
    parts = urlsplit(endpoint)
    headers = {"Authorization": "AWS4-HMAC-SHA256 Credential=test/x/us-east-1/s3/x"}
    if public:
        headers["x-amz-acl"] = "public-read"
    files = [path for path in sorted(root.rglob("*")) if path.is_file()]
    for name, content in [("", b""), *((f"/{path.relative_to(root).as_posix()}", path.read_bytes()) for path in files)]:
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=30)
        connection.request("PUT", f"/{bucket}{quote(name)}", content, headers)
        response = connection.getresponse()
        answer = response.read()
        assert response.status in (200, 409), answer  # 409: the bucket is there
        connection.close()


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Nothing."""

    def answer(self, status: int, content: bytes, headers: dict[str, str], cut: bool = False) -> None:
        """Send an answer, or the first half of one."""
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(content))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content[: len(content) // 2] if cut else content)
        if cut:
            self.close_connection = True


def _folder_handler(root: str, kind: str) -> type[_Handler]:
    class Handler(_Handler):
        def do_GET(self) -> None:
            path = Path(root) / unquote(urlsplit(self.path).path).lstrip("/")
            if not path.is_file():
                self.answer(404, b"", {})
                return
            content = path.read_bytes()
            headers = {"ETag": f'"{md5(content).hexdigest()}"', "Last-Modified": self.date_time_string()}
            asked = self.headers.get("Range", "").removeprefix("bytes=") if kind == "ranges" else ""
            if not asked:
                self.answer(200, content, headers | ({"Accept-Ranges": "bytes"} if kind == "ranges" else {}))
                return
            first, last = asked.split("-")
            start, stop = int(first), min(int(last or len(content)) + 1, len(content))
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(content)}"
            self.answer(206, content[start:stop], headers)

        do_HEAD = do_GET  # noqa: N815

    return Handler


def _proxy_handler(target: str, fault: str, log: str, every: str) -> type[_Handler]:
    behind, lock = urlsplit(target), threading.Lock()
    counts: Counter[str] = Counter()

    class Handler(_Handler):
        def forward(self) -> None:
            with lock, Path(log).open("a") as file:
                counts[self.path] += 1
                spoil = (counts[self.path] + crc32(self.path.encode())) % int(every) == 0
                file.write(json.dumps((self.command, self.path, spoil)) + "\n")
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if spoil and fault == "503":
                self.answer(503, b"busy", {})
                return
            if spoil and fault == "gone":
                self.close_connection = True
                return
            connection = http.client.HTTPConnection(behind.hostname or "", behind.port, timeout=60)
            try:
                connection.request(self.command, self.path, body or None, dict(self.headers))
                response = connection.getresponse()
                content = response.read()
            finally:
                connection.close()
            headers = {name: value for name, value in response.getheaders() if name.lower() in FORWARDED}
            self.answer(response.status, content, headers, cut=spoil and fault == "truncated")

        do_GET = do_HEAD = do_POST = do_PUT = forward  # noqa: N815

    return Handler


@contextmanager
def _own(*arguments: str) -> Iterator[str]:
    """One of the servers below, as a process that ends with the block."""
    started = subprocess.Popen(
        [sys.executable, __file__, *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
    )
    try:
        assert started.stdout is not None
        url = started.stdout.readline().strip()
        assert url, f"the server {arguments} ended with {started.wait()}"
        yield url
    finally:
        _end(started)


@contextmanager
def _process(log: Path, command: list[str], port: int | None = None) -> Iterator[str]:
    """A server as a process of its own, once it answers; without a port it gets one as its last argument."""
    if port is None:
        port = free_port()
        command = [*command, str(port)]
    with log.open("w") as file:
        started = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=file, stderr=file)
    try:
        end = time.monotonic() + 60
        while not answers(port):
            assert started.poll() is None, f"{command[0]} ended with {started.returncode}: {log.read_text()}"
            assert time.monotonic() < end, f"{command[0]} does not answer: {log.read_text()}"
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        _end(started)


def _end(started: subprocess.Popen[Any]) -> None:
    started.terminate()
    try:
        started.wait(10)
    except subprocess.TimeoutExpired:
        started.kill()
        started.wait()


def end_family(started: psutil.Popen) -> None:
    """End a process, and all that it started."""
    family = [started, *started.children(recursive=True)] if started.is_running() else []
    started.terminate()
    _, alive = psutil.wait_procs(family, timeout=15)
    for one in alive:
        one.kill()
    psutil.wait_procs(alive, timeout=5)


def answers(port: int) -> bool:
    """Whether a server of this machine answers at a port, whatever it says."""
    try:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
        connection.request("GET", "/")
        connection.getresponse().read()
    except (OSError, http.client.HTTPException):
        return False
    return True


def _program(name: str) -> Path:
    return Path(sys.executable).parent / name


if __name__ == "__main__":
    kind, *rest = sys.argv[1:]
    handler = {"folder": _folder_handler, "proxy": _proxy_handler}[kind](*rest)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        print(f"http://127.0.0.1:{server.server_port}", flush=True)
        server.serve_forever()
