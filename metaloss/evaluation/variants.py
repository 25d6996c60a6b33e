"""Losses whose own parameters are tuned together with their learning rates."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from metaloss.evaluation.tuning import Setting, Tuned
from metaloss.losses.base import Losses

# What is chosen for each loss: its rate; its number of steps, too; and with either a published
# loss's own parameters.
Tune = Literal["rate", "steps", "rate+own", "steps+own"]
# A loss with each choice of its own parameters, by how it is written; by "" where they stay.
Variants = Mapping[str, Losses]


def tunes_steps(tune: Tune) -> bool:
    """Whether each loss also gets its best number of steps."""
    return tune.startswith("steps")


def tunes_own(tune: Tune) -> bool:
    """Whether a published loss also gets its best parameters."""
    return tune.endswith("+own")


@dataclass(frozen=True)
class TunedVariant:
    """The best of a loss's variants, at its best setting.

    Attributes:
        losses: a single one.
        setting: its rate and steps, and how the loss is written if that was chosen, too.
    """

    losses: Losses
    setting: Setting


def tune_variants(
    tune: Callable[[Sequence[Losses]], list[Tuned]], of_losses: Sequence[Variants]
) -> list[TunedVariant]:
    """Each loss in its best variant at the best setting.

    Args:
        tune: gives single losses their best settings, all on the same tasks.
        of_losses: the variants of each loss; of equal ones the first is taken.
    """
    # All in one call: what they share is the tasks, made ready once.
    tuned = iter(tune([loss for variants in of_losses for loss in variants.values()]))
    return [_best({spec: next(tuned) for spec in variants}) for variants in of_losses]


def _best(tuned: Mapping[str, Tuned]) -> TunedVariant:
    spec = max(tuned, key=lambda spec: tuned[spec].rank_score)
    return TunedVariant(tuned[spec].losses, replace(tuned[spec].setting, spec=spec))
