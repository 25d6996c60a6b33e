"""The inner loop: P·T classifiers train at once, each on its own task with its own loss."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from jaxtyping import Float, Int
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass as settings
from torch import Tensor

from metaloss.classifiers import Classifier, Params
from metaloss.losses import Losses

Rate = float | Float[Tensor, " P"]


@settings(frozen=True, config=ConfigDict(extra="forbid"))
class Inner:
    """How a classifier trains: full-batch SGD as `torch.optim.SGD` does it."""

    steps: Annotated[int, Field(ge=1, le=100_000)] = 20
    lr: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 0.1
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.0
    nesterov: bool = False
    weight_decay: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0


def train(
    losses: Losses,
    model: Classifier,
    params: Params,
    inputs: Any,
    *,
    inner: Inner,
    lr: Rate | None = None,
    probe: Callable[[int, Params], None] | None = None,
) -> Params:
    """The parameters after `inner.steps` steps; the given ones are overwritten.

    Args:
        losses: bound to the training targets.
        model: the stacked classifier.
        params: what `model.init` gave, [P, T, ...].
        inputs: the training half of what `model.bind` gave.
        inner: the optimiser's settings.
        lr: a learning rate for all, or one per candidate [P]; the family's own where None.
        probe: called after each step with its number, from 1, and the parameters.
    """
    step = Sgd(inner, inner.lr if lr is None else lr)
    for i in range(1, inner.steps + 1):
        leaves = {k: v.detach().requires_grad_() for k, v in params.items()}
        # Classifier (p, t) reaches only value (p, t), so the sum's gradient is each one's own.
        value = losses(model(leaves, inputs)).sum()
        grads = torch.autograd.grad(value, list(leaves.values()), allow_unused=True)
        with torch.no_grad():
            step(params, dict(zip(leaves, grads, strict=True)))
        if probe is not None:
            probe(i, params)
    return params


@dataclass
class Sgd:
    """Stochastic gradient descent with momentum, Nesterov and L2 decay (the update of `torch.optim.SGD`)."""

    inner: Inner
    lr: Rate

    def __post_init__(self) -> None:
        self.velocity: Params = {}

    def __call__(self, params: Params, grads: dict[str, Tensor | None]) -> None:
        """Step every parameter in place."""
        for name, weight in params.items():
            update = self._update(name, weight, grads[name])
            if update is None:
                continue
            if isinstance(self.lr, Tensor):
                weight.sub_(update * self.lr.to(weight).reshape(-1, *[1] * (weight.ndim - 1)))
            else:
                weight.add_(update, alpha=-self.lr)

    def _update(self, name: str, weight: Tensor, grad: Tensor | None) -> Tensor | None:
        inner = self.inner
        if inner.weight_decay:
            grad = weight * inner.weight_decay if grad is None else grad.add(weight, alpha=inner.weight_decay)
        if grad is None or not inner.momentum:
            return grad
        old = self.velocity.get(name)
        self.velocity[name] = velocity = grad.clone() if old is None else old.mul_(inner.momentum).add_(grad)
        return grad.add(velocity, alpha=inner.momentum) if inner.nesterov else velocity


def accuracy(logits: Float[Tensor, "P T V C"], label: Int[Tensor, "T V"]) -> Float[Tensor, "P T"]:
    """Share of right answers; NaN where a classifier diverged (argmax alone would hide it)."""
    right = (logits.argmax(-1) == label).float().mean(-1)
    return right.where(logits.isfinite().all(-1).all(-1), torch.nan)
