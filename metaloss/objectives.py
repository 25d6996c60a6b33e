"""From scores [P T] to fitness [P]: higher is better, and a failed training can never win."""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

Objective = Callable[[Float[Tensor, "P T"], Int[Tensor, " T"]], Float[Tensor, " P"]]


def mean(score: Float[Tensor, "P T"], family: Int[Tensor, " T"]) -> Float[Tensor, " P"]:
    """The mean over families of each family's mean accuracy; -inf where any training failed.

    Args:
        score: validation accuracies, NaN = failed.
        family: the number of each task's family, so that families with more tasks do not weigh more.
    """
    means = [score[:, family == f].double().mean(1) for f in family.unique()]
    return torch.stack(means).mean(0).nan_to_num(nan=-torch.inf).float()
