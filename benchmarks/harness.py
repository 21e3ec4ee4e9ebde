"""Runs methods on problems, leaving one place out at a time, each in a process of its own, and counts the cost."""

from __future__ import annotations

import multiprocessing
import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection

import numpy as np
from numpy.typing import NDArray

from benchmarks.machine import held_megabytes, peak_megabytes
from benchmarks.problems.common import Method, Pair


@dataclass(frozen=True)
class Fold:
    """What is learned from, and what is scored then: never the same place."""

    train: Sequence[Pair]
    test: Sequence[Pair]


@dataclass
class Measured:
    """What became of a method.

    Attributes:
        name: Of the method.
        family: Of the method.
        uses_before: Whether it needs the earlier date.
        scores: (N,) scores of the tiles, by name of the score, then condition, then place.
        fit_seconds: Of each fold.
        score_seconds: All scenes together.
        tiles: How many were scored.
        parameters: Learned numbers.
        megabytes: Peak memory, beyond that of the scenes themselves.
        failed: Why it gave nothing, in words; None when it did.
    """

    name: str
    family: str
    uses_before: bool
    scores: dict[str, dict[str, dict[str, NDArray[np.float64]]]] = field(default_factory=dict)
    fit_seconds: list[float] = field(default_factory=list)
    score_seconds: float = 0.0
    tiles: int = 0
    parameters: int = 0
    megabytes: float = 0.0
    failed: str | None = None


def leave_one_out(train: Sequence[Pair], test: Sequence[Pair]) -> list[Fold]:
    """A fold for each place of the tests, in order; the same place of the training is left out."""
    names = list(dict.fromkeys(pair.name for pair in test))
    return [
        Fold([pair for pair in train if pair.name != name], [pair for pair in test if pair.name == name])
        for name in names
    ]


def measure(methods: Sequence[Method], folds: Sequence[Fold]) -> Iterator[Measured]:
    """Run each method over all folds in a fork of this process: the scenes are shared, the peak memory is its own."""
    context = multiprocessing.get_context("fork")
    for method in methods:
        receiver, sender = context.Pipe(duplex=False)
        process = context.Process(target=_measured, args=(method, folds, sender))
        process.start()
        sender.close()
        try:
            found: Measured = receiver.recv()
        except EOFError:
            process.join()
            found = _empty(method)
            found.failed = f"its process ended with {process.exitcode}"
        process.join()
        yield found


def _empty(method: Method) -> Measured:
    return Measured(method.name, method.family, method.uses_before)


def _measured(method: Method, folds: Sequence[Fold], sender: Connection) -> None:
    """Measure here, and send what was found."""
    found = _empty(method)
    begin = held_megabytes()
    try:
        method.start()
        for fold in folds:
            _run(method, fold, found)
        found.parameters = method.parameters
        found.megabytes = peak_megabytes() - begin + method.extra_megabytes
        method.close()
    except Exception:
        found.failed = traceback.format_exc(limit=-3)
    sender.send(found)
    sender.close()


def _run(method: Method, fold: Fold, found: Measured) -> None:
    begin = time.perf_counter()
    method.fit(fold.train)
    found.fit_seconds.append(time.perf_counter() - begin)
    for pair in fold.test:
        begin = time.perf_counter()
        scores = method.scores(pair)
        found.score_seconds += time.perf_counter() - begin
        found.tiles += len(pair.tiles)
        for name, score in scores.items():
            if score.shape != (len(pair.tiles),):
                raise ValueError(f"{name} gave scores {score.shape} for {len(pair.tiles)} tiles of {pair.name}")
            found.scores.setdefault(name, {}).setdefault(pair.condition, {})[pair.name] = score
