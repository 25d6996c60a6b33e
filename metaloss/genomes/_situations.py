"""Predictions and labels at which a genome's first candidate is fitted to a loss."""

from jaxtyping import Float
from torch import Tensor

from metaloss.core.streams import Stream
from metaloss.losses.base import one_hot


def situations(
    n: int, classes: int, key: Stream
) -> tuple[Float[Tensor, "1 1 n C"], Float[Tensor, "1 n C"]]:
    """Logits from unsure to sure, right and wrong, and their labels."""
    # A small scale gives nearly uniform predictions, a scale of 6 nearly certain ones.
    logits = key.at("logits").normal(n, classes) * key.at("scale").uniform(n, 1, high=6.0)
    return logits[None, None], one_hot(key.at("labels").integers(classes, n), classes)[None]
