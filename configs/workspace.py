"""The workspace: where everything a run makes is kept."""

from __future__ import annotations

import errno
import hashlib
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from threading import get_ident
from urllib.parse import quote

DEFAULT_WORKSPACE = Path("workspace")
LONGEST_NAME = 180  # bytes; leaves room for suffixes


@dataclass(frozen=True)
class Workspace:
    """Paths below one folder. Names of places come from file names, so they are escaped before they become paths."""

    root: Path

    @property
    def catalog(self) -> Path:
        """Tiles and scenes that were ingested, a folder a location."""
        return self.root / "catalog"

    @property
    def quarantine(self) -> Path:
        """One JSON record a scene that could not be used."""
        return self.root / "quarantine"

    @property
    def scores(self) -> Path:
        """Scores and heatmaps, a folder a detector version."""
        return self.root / "scores"

    @property
    def reports(self) -> Path:
        """One folder a night: the page, the numbers."""
        return self.root / "reports"

    @property
    def models(self) -> Path:
        """Training checkpoints."""
        return self.root / "models"

    @property
    def exported(self) -> Path:
        """Detectors as files of other runtimes."""
        return self.root / "exported"

    @property
    def latents(self) -> Path:
        """Posterior means, a folder a detector version."""
        return self.root / "latents"

    @property
    def reference(self) -> Path:
        """What each location normally looks like, and how its scenes lie to that; a folder a location."""
        return self.root / "reference"

    @property
    def cache(self) -> Path:
        """Tiles gathered for training, heatmaps that are being made; may be deleted when nothing runs."""
        return self.root / "cache"

    @property
    def drift(self) -> Path:
        """Which drifts asked for a training, and which were answered."""
        return self.root / "drift"

    @property
    def locks(self) -> Path:
        """One file a kind of work of which no two may run at once."""
        return self.root / "locks"

    @property
    def pending(self) -> Path:
        """Nights that are worked out, and not yet all told: one JSON a night."""
        return self.root / "pending"

    @property
    def verdicts(self) -> Path:
        """What people have said of tiles."""
        return self.root / "verdicts.parquet"

    @property
    def prefect(self) -> Path:
        """Prefect's database when no server is configured."""
        return self.root / "prefect"

    @property
    def mlflow_uri(self) -> str:
        """The embedded MLflow database."""
        return f"sqlite:///{self.root.resolve() / 'mlflow.db'}"

    @property
    def mlflow_artifacts(self) -> Path:
        """Artifacts of the embedded MLflow."""
        return self.root / "mlartifacts"


def safe_name(name: str) -> str:
    """A name as one path component: no separators, no `..`, no hidden file, and different names stay different.

    A long one is cut, and ends in a digest of the whole: file systems end names at 255 bytes.

    Example:
        >>> safe_name("../etc"), safe_name("Brașov 2")
        ('%2E.%2Fetc', 'Bra%C8%99ov%202')
    """
    quoted = quote(name, safe="", errors="surrogateescape")
    quoted = "%2E" + quoted[1:] if quoted.startswith(".") else quoted
    if len(quoted) <= LONGEST_NAME:
        return quoted
    digest = hashlib.sha256(quoted.encode()).hexdigest()[:24]
    return f"{quoted[: LONGEST_NAME - len(digest) - 1]}~{digest}"


def time_name(acquired: datetime) -> str:
    """A UTC time as a name: the date alone at midnight, since most archives know no more than the day."""
    acquired = acquired.astimezone(UTC)
    if acquired.time().isoformat() == "00:00:00":
        return acquired.date().isoformat()
    fraction = f".{acquired.microsecond:06d}" if acquired.microsecond else ""
    return acquired.strftime("%Y-%m-%dT%H%M%S") + fraction + "Z"


def as_utc(day: date) -> datetime:
    """Midnight UTC of a date."""
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


def writer() -> str:
    """This process, as the names of its temporary files tell it: so they are known when it was killed."""
    return f"{hashlib.sha256(socket.gethostname().encode()).hexdigest()[:6]}-{os.getpid()}"


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Write a file whole or not at all: yields a path beside it, renamed onto it when the block ends well.

    After the block it is on the disk, and so is its name: a power cut takes neither, and none of what was written
    before it.

    Args:
        path: The file to write; missing folders are made.
    """
    _make_folder(path.parent)
    temporary = _beside(path)
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())  # or a power cut could leave a file that is renamed but empty
        os.replace(temporary, path)
        _keep_names(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all."""
    with whole_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file whole or not at all."""
    with whole_file(path) as temporary:
        temporary.write_bytes(content)


def write_first(path: Path, text: str) -> bool:
    """Write a text file unless it is there already; of several writers, the first one wins.

    Returns:
        True when this call wrote it.
    """
    _make_folder(path.parent)
    temporary = _beside(path)
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.link(temporary, path)
        _keep_names(path.parent)
    except FileExistsError:
        return False
    finally:
        temporary.unlink(missing_ok=True)
    return True


def _beside(path: Path) -> Path:
    """Where a file is written before it gets its name."""
    return path.with_name(f".{path.stem}.{writer()}-{get_ident()}.part{path.suffix}")


def _make_folder(folder: Path) -> None:
    """Make a folder and those above it, and have the disk keep their names."""
    if not folder.is_dir():
        _make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        _keep_names(folder.parent)


def _keep_names(folder: Path) -> None:
    """Have the disk keep which names a folder holds: a rename is not safe from a power cut before that."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # file systems that cannot: some network shares
            raise
    finally:
        os.close(descriptor)
