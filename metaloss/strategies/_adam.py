"""A step of Adam (Kingma 2015, algorithm 1): its moments belong to a search's frozen state."""

from jaxtyping import Float
from torch import Tensor


def adam_step(
    gradient: Float[Tensor, "*P D"],
    mean: Float[Tensor, "*P D"],
    square: Float[Tensor, "*P D"],
    number: int,
    lr: float,
    betas: tuple[float, float],
) -> tuple[Float[Tensor, "*P D"], Float[Tensor, "*P D"], Float[Tensor, "*P D"]]:
    """The step along a gradient, and both moments after it.

    Args:
        gradient: of this step.
        mean: the first moment before it.
        square: the second moment before it.
        number: of the step: 1, 2, ...
        lr: the learning rate.
        betas: the decay of the moments.
    """
    beta1, beta2 = betas
    mean = beta1 * mean + (1 - beta1) * gradient
    square = beta2 * square + (1 - beta2) * gradient**2
    step = lr * (mean / (1 - beta1**number)) / ((square / (1 - beta2**number)).sqrt() + 1e-8)
    return step, mean, square
