"""Whether the scores that settings ask for can be worked out, and what they look at."""

from __future__ import annotations

from collections.abc import Sequence

from configs.schema import ModelSettings, ScoreSettings
from vae.errors import DetectorError
from vae.scores.registry import find


def looks_back(settings: ScoreSettings, model: ModelSettings) -> bool:
    """Whether any score compares with the past, or the networks are told what it lets expect."""
    told = model.members > 0 and "reference" in model.condition
    return told or any("past" in find(name).needs for name in settings.names)


def check_scores(settings: ScoreSettings, model: ModelSettings, visible: Sequence[int] | None = None) -> None:
    """Refuse scores that do not exist or cannot be worked out.

    Args:
        settings: The scores.
        model: How many networks there are.
        visible: Which channels are red, green and blue; None does not ask.

    Raises:
        ScoreError: No such score.
        DetectorError: One that needs a network, a past, or red, green and blue, where there is none.
    """
    for name in settings.names:
        if "visible" in find(name).needs and visible is not None and len(visible) != 3:
            raise DetectorError(
                f"the score {name} looks at texture in red, green and blue, and it is not known which bands these are: "
                "say so with score.visible, or use another score, such as aligned_difference"
            )
        if "network" in find(name).needs and not model.members:
            raise DetectorError(
                f"the score {name} needs a network, and model.members is 0: use 1, or other scores in score.name, "
                "score.without_past and score.also"
            )
        if "condition" in find(name).needs:
            _check_condition(name, model)
    alone = find(settings.without_past)
    if "condition" in alone.needs and "place" not in model.condition:
        raise DetectorError(
            f"score.without_past is for tiles that have no past, and of these {settings.without_past} knows nothing "
            "unless model.condition names place: add it, or use another score, such as novelty or rx"
        )
    if "past" in alone.needs:
        raise DetectorError(
            f"score.without_past is for tiles that have no past, and {settings.without_past} compares with it: use "
            "one that does not, such as novelty or rx"
        )


def _check_condition(name: str, model: ModelSettings) -> None:
    """Refuse a score of what the condition alone lets expect, where it cannot tell one place from another.

    Raises:
        DetectorError: Why, and what to set.
    """
    if not {"place", "reference"} & set(model.condition):
        told = f"only {', '.join(model.condition)}" if model.condition else "nothing"
        raise DetectorError(
            f"the score {name} asks what is to be expected of this place before it is looked at, and the network is "
            f"told {told}: add reference or place to model.condition, or use another score, such as reconstruction"
        )
    if model.posterior == "quantised":
        raise DetectorError(
            f"the score {name} decodes the mean of the prior, and the codes of a quantised latent have none: use "
            "another model.posterior, or another score"
        )
