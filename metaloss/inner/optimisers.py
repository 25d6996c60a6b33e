"""Optimisers of P·T classifiers at once, parameter by parameter, in place; as torch.optim's are."""

from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float
from torch import Tensor

from metaloss.inner.classifiers import Gradients, Params, Product, dense

Rate = float | Float[Tensor, " P"]  # a learning rate for all, or one per candidate


def move(weight: Tensor, update: Tensor | Product, rate: Rate) -> None:
    """weight -= rate · update, with every candidate's own rate."""
    if isinstance(rate, Tensor):
        rates = rate.reshape(-1, *[1] * (weight.ndim - 1))
        # `baddbmm` has one factor for all, so candidates' rates go into the left factor.
        if isinstance(update, Product):
            move(weight, replace(update, left=update.left * rates), 1.0)
        else:
            weight.addcmul_(update, rates, value=-1)
    elif isinstance(update, Product):
        update.descend(weight, rate)
    else:
        weight.add_(update, alpha=-rate)


@dataclass
class Sgd:
    """Stochastic gradient descent with momentum, Nesterov and L2 decay."""

    momentum: float = 0.0
    nesterov: bool = False
    weight_decay: float = 0.0
    velocity: Params = field(default_factory=dict)

    def step(self, params: Params, grads: Gradients, rate: Rate) -> None:
        """Step every parameter; one without a gradient only decays and coasts."""
        for name, weight in params.items():
            grad = grads.get(name)
            if self.weight_decay:
                decay = weight * self.weight_decay
                grad = decay if grad is None else decay.add_(dense(grad))
            if grad is not None:
                move(weight, self._update(name, grad), rate)

    def _update(self, name: str, grad: Tensor | Product) -> Tensor | Product:
        if not self.momentum:
            return grad
        grad = dense(grad)
        # The first velocity is the gradient, as in torch; a copy, because it changes in place.
        old = self.velocity.get(name)
        self.velocity[name] = velocity = (
            grad.clone() if old is None else old.mul_(self.momentum).add_(grad)
        )
        return grad.add(velocity, alpha=self.momentum) if self.nesterov else velocity


@dataclass
class Adam:
    """Adam (Kingma 2015, algorithm 1).

    With L2 decay in the gradient, or decoupled from it (Loshchilov 2019).
    """

    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0
    decoupled: bool = False
    count: int = 0
    moments: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)

    def step(self, params: Params, grads: Gradients, rate: Rate) -> None:
        """Step every parameter."""
        self.count += 1
        for name, weight in params.items():
            grad = dense(grads[name])
            # AdamW decays the weight before the step, as torch does.
            if self.weight_decay and self.decoupled:
                move(weight, weight * self.weight_decay, rate)
            elif self.weight_decay:
                grad = grad.add(weight, alpha=self.weight_decay)
            move(weight, self._update(name, grad), rate)

    def _update(self, name: str, grad: Tensor) -> Tensor:
        first, second = self.betas
        mean, square = self.moments.setdefault(
            name, (torch.zeros_like(grad), torch.zeros_like(grad))
        )
        mean.lerp_(grad, 1 - first)
        square.mul_(second).addcmul_(grad, grad, value=1 - second)
        # Both moments began at 0; the divisors correct for that.
        spread = (square / (1 - second**self.count)).sqrt_().add_(self.eps)
        return (mean / (1 - first**self.count)).div_(spread)
