"""Losses that write down the adjoint of their gradient, where others need autograd twice."""

from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from metaloss.losses.base import Losses


class LogitAdjoint(NamedTuple):
    """Losses' gradient at logits, and the derivatives of its product with a change of the logits.

    Attributes:
        gradient: at the logits.
        by_logits: the derivatives by the logits.
        by_numbers: those by the losses' numbers, one tensor for each of these.
    """

    gradient: Float[Tensor, "P T B C"]
    by_logits: Float[Tensor, "P T B C"]
    by_numbers: tuple[Tensor, ...]


@runtime_checkable
class WrittenAdjoint(Protocol):
    """What bound losses have, too, that write the adjoint of their gradient down."""

    @property
    def numbers(self) -> tuple[Tensor, ...]:
        """What their gradient depends on beside logits and targets, at every point of a training.

        Where the losses' own numbers require a gradient, autograd goes through it to them.
        """

    @property
    def writes_adjoint(self) -> bool:
        """Whether these losses do, with these numbers and targets."""

    def logit_gradient_adjoint(
        self, logits: Float[Tensor, "P T B C"], change: Float[Tensor, "P T B C"]
    ) -> LogitAdjoint:
        """The gradient at logits, and the derivatives of its product with a change of these."""


def adjoint_by_autograd(
    losses: Losses,
    numbers: Tensor,
    logits: Float[Tensor, "P T B C"],
    change: Float[Tensor, "P T B C"],
) -> LogitAdjoint:
    """`logit_gradient_adjoint`, for losses that do not write down their own.

    Args:
        losses: in the graph of their numbers.
        numbers: what the derivatives are taken by.
        logits: of the classifiers.
        change: of these.
    """
    with torch.enable_grad():
        leaf = logits.detach().requires_grad_()
        gradient = losses.logit_gradient(leaf)
        # The graph of what depends on the numbers alone serves all steps: it is kept.
        by_logits, by_numbers = torch.autograd.grad(
            gradient,
            [leaf, numbers],
            change,
            retain_graph=True,
            allow_unused=True,
            materialize_grads=True,
        )
    return LogitAdjoint(gradient.detach(), by_logits, (by_numbers,))
