"""Thresholds of a trained classifier: a number for every class that is added to its logit."""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

STEPS = (2.0, 1.0, 0.5, 0.25)  # of the search, coarse to fine


def search_thresholds(
    score: Callable[[Float[Tensor, " C"]], Any], classes: int
) -> Float[Tensor, " C"]:
    """The numbers with the best score, by coordinate search from 0.

    A number is kept only where it makes the score better, so classes that nothing is known of stay
    as they are.

    Args:
        score: of logits with these numbers added; higher is better.
        classes: how many there are.
    """
    offsets = torch.zeros(classes)
    best = score(offsets)
    for step in STEPS:
        for number in range(classes):
            for change in (-step, step):
                tried = offsets.clone()
                tried[number] += change
                value = score(tried)
                if value > best:
                    best = value
                    offsets = tried
    return offsets
