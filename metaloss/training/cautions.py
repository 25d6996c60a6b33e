"""What a user should know of a training that is about to mislead: a line of text each, or none."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

VALIDATION = 30  # images below which a validation share says little
STEPS = 50  # below which hardly any network has learned
FAR = 10.0  # times the first step's loss, from which a validation loss has exploded


def few_images(images: int) -> str | None:
    """That few images are held out for validation."""
    if images >= VALIDATION:
        return None
    return (
        f"{images} images to validate: one answer is {100 / images:.1f} points of accuracy, so a "
        "choice among rates or "
        "losses by them is mostly chance; --set validation=0.3 holds out more"
    )


def few_steps(steps: int) -> str | None:
    """That a training is short."""
    if steps >= STEPS:
        return None
    return (
        f"{steps} steps are few: the network may not have learned yet; more --epochs or --steps, "
        "or a smaller --batch"
    )


def exploded(record: Mapping[str, Any], classes: int, rate: float) -> str | None:
    """That the validation loss of an epoch is no number, or far above the loss of the training's
    first step.

    Args:
        record: the epoch's.
        classes: whose logarithm, the cross-entropy of a guess, bounds "far" where the first loss is
            near 0.
        rate: the highest learning rate.
    """
    value = record["val_loss"]
    first = record["first_loss"]
    if math.isfinite(value) and value - first <= FAR * max(abs(first), math.log(classes)):
        return None
    return (
        f"the validation loss is {value:.3g} after epoch {record['epoch']}, and the loss of the "
        "first step was "
        f"{first:.3g}: the rate {rate:g} is probably too high; a smaller --lr, or several --rates"
    )


def one_answer(answers: Sequence[str | None]) -> str | None:
    """That networks answer the same to every test image.

    Args:
        answers: of every training the class that is its only answer; None where there are several.
    """
    only = [x for x in answers if x is not None]
    if not only:
        return None
    names = ", ".join(f"'{x}'" for x in dict.fromkeys(only))
    return (
        f"in {len(only)} of {len(answers)} trainings the answer to every test image is the same "
        f"class ({names}): the "
        "network has learned nothing of the others; another --lr, or more --epochs"
    )
