"""The search for settings: Optuna's study in a file of the workspace, which survives a kill.

What is suggested depends on the seed and on the trials that were finished before, not on how often the search was
interrupted: the sampler gets a seed of its own for each trial. TPE: Bergstra et al. (2011), Algorithms for
Hyper-Parameter Optimization. A trial is given up below the median of the others (Golovin et al. 2017, Google Vizier).
Importance: PED-ANOVA, Watanabe, Bansal & Hutter (2023).
"""

from __future__ import annotations

import hashlib
import json
import math
import warnings
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import optuna
import pandas as pd
from matplotlib.figure import Figure
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, Trial, TrialState

from configs import Settings
from configs.schema import Range, TuneSettings
from configs.schema.tuning import SECTIONS

__all__ = ["Study", "Trial", "history_figure", "importance_figure", "study_name"]

# Sections and keys that change no trial: the same search goes on when they change.
ELSEWHERE = ("name", "drift", "report", "tracking", "compute", "validation")
PROCESS_ENDED = "its process ended"
DONE = (TrialState.COMPLETE, TrialState.PRUNED)
FEWEST_FOR_IMPORTANCE = 4  # completed trials


class Study:
    """The trials of one search, finished ones and those to come."""

    def __init__(self, path: Path, name: str, settings: TuneSettings, seed: int) -> None:
        """Open a search, or begin it.

        Trials that were being worked on when the last process ended are marked as failed, and done again once. One that
        was stopped by Ctrl-C is done again however often that happened.

        Args:
            path: SQLite file.
            name: Of the search; there may be several in the file.
            settings: Where it looks, and when it gives a trial up.
            seed: Of all draws.
        """
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        path.parent.mkdir(parents=True, exist_ok=True)
        self.name, self._settings, self._seed = name, settings, seed
        self._space = {key: _distribution(key, values) for key, values in settings.space.values.items()}
        pruner = optuna.pruners.MedianPruner(n_startup_trials=settings.startup)
        storage = optuna.storages.RDBStorage(f"sqlite:///{path.resolve()}")
        self._study = optuna.create_study(
            study_name=name, storage=storage, pruner=pruner, direction="maximize", load_if_exists=True
        )
        self._do_again()

    @property
    def run_id(self) -> str | None:
        """The MLflow run of the search, once it is known."""
        return self._study.user_attrs.get("run_id")

    @run_id.setter
    def run_id(self, run_id: str) -> None:
        self._study.set_user_attr("run_id", run_id)

    @property
    def done(self) -> int:
        """How many trials were finished, given up and refused ones among them."""
        return len(self._study.get_trials(deepcopy=False, states=DONE))

    @property
    def best(self) -> FrozenTrial | None:
        """The finished trial that found most, the first of equals; None without any."""
        finished = self._study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        return max(finished, key=lambda trial: (trial.value, -trial.number), default=None)

    def begin_with(self, settings: Settings) -> None:
        """Make a new search begin with the settings of the watch, if they are in its space: what is to be beaten."""
        if self._study.get_trials(deepcopy=False):
            return
        params = {}
        for key, values in self._settings.space.values.items():
            section, _, name = key.partition(".")
            value = getattr(getattr(settings, section), name)
            if not (values.low <= value <= values.high if isinstance(values, Range) else value in values):
                return
            params[key] = value
        self._study.enqueue_trial(params, user_attrs={"as_configured": True})

    @property
    def as_configured(self) -> float | None:
        """What the settings of the watch came to; None when they are not in the space, or were given up."""
        for trial in self._study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
            if trial.user_attrs.get("as_configured"):
                return trial.value
        return None

    def ask(self) -> Trial:
        """The next trial, its settings in `params`, by dotted name."""
        trials = self._study.get_trials(deepcopy=False)
        settled = sum(trial.state in DONE or self._given_up(trial) for trial in trials)
        (seed,) = np.random.SeedSequence([self._seed, settled]).generate_state(1)
        self._study.sampler = optuna.samplers.TPESampler(seed=int(seed), n_startup_trials=self._settings.startup)
        return self._study.ask(self._space)

    def finish(self, trial: Trial, value: float) -> None:
        """A trial was trained to the end and judged."""
        self._study.tell(trial, value)

    def prune(self, trial: Trial, reason: str) -> None:
        """A trial was given up, or its settings make no sense together."""
        trial.set_user_attr("reason", reason)
        self._study.tell(trial, state=TrialState.PRUNED)

    def fail(self, trial: Trial, reason: str) -> None:
        """A trial came to nothing, for reasons that are not its own."""
        trial.set_user_attr("reason", reason)
        self._study.tell(trial, state=TrialState.FAIL)

    def stop(self) -> None:
        """The trial that is being worked on, at whatever point it is, was stopped by Ctrl-C."""
        running = [trial.number for trial in self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))]
        self._study.set_user_attr("stopped", [*self._stopped, *running])
        for number in running:
            self._study.tell(number, state=TrialState.FAIL)

    def table(self) -> pd.DataFrame:
        """One row a trial: number, state, value, why it has none, and a column a setting."""
        rows = [
            {
                "trial": trial.number,
                "state": {TrialState.COMPLETE: "finished"}.get(trial.state, trial.state.name.lower()),
                "value": trial.value if trial.state == TrialState.COMPLETE else None,
                "after_short_epochs": next(iter(trial.intermediate_values.values()), None),
                "elbo_held_out": trial.user_attrs.get("elbo"),
                "reason": self._reason(trial),
                **trial.params,
            }
            for trial in self._study.get_trials(deepcopy=False)
            if trial.state != TrialState.WAITING
        ]
        columns = ["trial", "state", "value", "after_short_epochs", "elbo_held_out", "reason", *self._space]
        return pd.DataFrame(rows, columns=columns)

    def importance(self) -> dict[str, float]:
        """Share of each setting in what the best trials have in common, the greatest first; empty with few trials."""
        finished = self._study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        if len(finished) < FEWEST_FOR_IMPORTANCE or len({trial.value for trial in finished}) < 2:
            return {}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            return optuna.importance.get_param_importances(self._study)

    @property
    def _stopped(self) -> list[int]:
        return list(self._study.user_attrs.get("stopped", []))

    def _given_up(self, trial: FrozenTrial) -> bool:
        """Whether a failed trial is not to be done again: it was, and failed as well."""
        again = "again_of" in trial.user_attrs and trial.number not in self._stopped
        return trial.state == TrialState.FAIL and again

    def _reason(self, trial: FrozenTrial) -> str:
        if trial.number in self._stopped:
            return "stopped by Ctrl-C"
        return str(trial.user_attrs.get("reason", PROCESS_ENDED if trial.state == TrialState.FAIL else ""))

    def _do_again(self) -> None:
        for trial in self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            self._study.tell(trial.number, state=TrialState.FAIL)
        trials = self._study.get_trials(deepcopy=False)
        again = {trial.user_attrs.get("again_of") for trial in trials}
        for trial in trials:
            if trial.state == TrialState.FAIL and not self._given_up(trial) and trial.number not in again:
                kept = {key: True for key in ("as_configured",) if trial.user_attrs.get(key)}
                self._study.enqueue_trial(trial.params, user_attrs={"again_of": trial.number, **kept})


def study_name(settings: Settings, data: str) -> str:
    """A name that is the same as long as a trial would come to the same.

    Args:
        settings: The watch's.
        data: Digest of the scenes and of what each is used for.
    """
    without = dict.fromkeys(ELSEWHERE, True) | {"source": {"root"}, "tune": {"trials", "timeout"}}
    values = settings.model_dump(mode="json", exclude=without)
    content = json.dumps([values, data], sort_keys=True)
    return f"{settings.name}-{hashlib.sha256(content.encode()).hexdigest()[:12]}"


def history_figure(table: pd.DataFrame) -> Figure:
    """What each trial found, and the best until then."""
    figure = Figure(figsize=(7, 3.8), layout="constrained")
    axis = figure.subplots()
    finished = table[table["state"] == "finished"]
    given_up = table[(table["state"] == "pruned") & table["after_short_epochs"].notna()]
    axis.plot(finished["trial"], finished["value"], "o", color="tab:blue", label="finished")
    axis.plot(given_up["trial"], given_up["after_short_epochs"].astype(float), "x", color="0.6", label="given up")
    axis.plot(finished["trial"], finished["value"].astype(float).cummax(), color="tab:red", label="best")
    axis.set(xlabel="trial", ylabel="mean average precision", title="Injected anomalies that are found")
    axis.legend()
    return figure


def importance_figure(importance: Mapping[str, float]) -> Figure:
    """Share of each setting, the greatest on top."""
    figure = Figure(figsize=(6, 0.35 * len(importance) + 1.2), layout="constrained")
    axis = figure.subplots()
    names = list(importance)[::-1]
    axis.barh(names, [importance[name] for name in names], color="tab:blue")
    axis.set(xlabel="share", title="What the result depends on (PED-ANOVA)")
    return figure


def _distribution(key: str, values: tuple[bool | int | float | str, ...] | Range) -> BaseDistribution:
    if not isinstance(values, Range):
        return CategoricalDistribution(values)
    section, _, name = key.partition(".")
    if SECTIONS[section].model_fields[name].annotation is int:
        return IntDistribution(math.ceil(values.low), math.floor(values.high), log=values.log)
    return FloatDistribution(values.low, values.high, log=values.log)
