"""Export: a registered detector as files of another runtime."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from configs import Settings, Workspace
from tasks.moves import CHAMPION
from tasks.registry import registered
from vae.detector import Detector
from vae.export import Precision, Target, export


@dataclass(frozen=True)
class ExportSummary:
    """What was exported.

    Attributes:
        detector_version: Of the registry.
        folder: Where the files are.
        files: Their names.
        scores: What they work out.
        left_out: Scores that cannot be exported, and why.
        largest_difference: From what torch gives, of any output, as a share of its largest value.
    """

    detector_version: str
    folder: str
    files: list[str]
    scores: list[str]
    left_out: dict[str, str]
    largest_difference: float


def export_detector(
    settings: Settings,
    workspace: Workspace,
    to: Target,
    version: str = CHAMPION,
    precision: Precision = "float32",
    out: Path | None = None,
) -> ExportSummary:
    """Write a registered detector for another runtime.

    Args:
        settings: Name the model and the registry.
        workspace: Takes the files, unless `out` says otherwise.
        to: The runtime.
        version: `champion`, or one such as "v3".
        precision: Of the arithmetic.
        out: A folder that does not exist, or an earlier export, which is replaced.

    Raises:
        NoChampion: There is no such version.
        DetectorError: Its files are not those that were registered.
        ExportError: It cannot be exported.
    """
    bundle, found = registered(settings, workspace, version)
    folder = out or workspace.exported / f"{found}-{to}"
    about = export(Detector.load(bundle), folder, to, precision, {"name": settings.name, "version": found})
    graphs = about["graphs"].values()
    return ExportSummary(
        detector_version=found,
        folder=str(folder),
        files=sorted(file for graph in graphs for file in graph["files"]),
        scores=[name for graph in graphs for name in graph["scores"]],
        left_out=about["left_out"],
        largest_difference=max(share for graph in graphs for share in graph["parity"].values()),
    )
