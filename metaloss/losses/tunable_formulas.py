"""One formula with other numbers in each loss, which autograd goes through."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import torch
from jaxtyping import Float, Int
from torch import Tensor

from metaloss.losses.base import (
    Clock,
    TrainingTargets,
    chosen_weights,
    images,
    mean_over_images,
    weigh_images,
)
from metaloss.losses.language.expression import LABEL_TERMINALS
from metaloss.losses.language.formula import Formula
from metaloss.losses.language.programs import (
    Program,
    evaluate,
    named_gradient_program,
    named_program,
)
from metaloss.losses.told import ToldClock


@dataclass(frozen=True)
class TunableFormulas(ToldClock):
    """P losses of one formula.

    Attributes:
        formula: terminals that are names of numbers stand in it.
        numbers: what the names stand for in each loss.
        seen: what the formula can read beside the prediction, class by class; `bind` fills it and
            the next.
        weight: of the images.
        told: how far the training is; None: nobody has said.
    """

    formula: Formula
    numbers: Mapping[str, Float[Tensor, " P"]]
    seen: Mapping[str, Float[Tensor, "T C _"]] | None = None
    weight: Float[Tensor, "T B"] | None = None
    told: Clock | None = None

    tasks_per_call: ClassVar[int] = 1

    def __len__(self) -> int:
        return len(next(iter(self.numbers.values())))

    def __getitem__(self, rows: slice | Tensor) -> Self:
        return replace(self, numbers={name: x[rows] for name, x in self.numbers.items()})

    def bind(self, targets: TrainingTargets) -> Self:
        """Keep what the formula can read of the targets, class by class in memory."""
        seen = {name: x[..., None] for name, x in targets.shares.items()}
        seen |= {"y": targets.target.mT.contiguous(), "cost": targets.cost.mT.contiguous()}
        return replace(self, seen=seen, weight=targets.weight)

    def minibatch(self, index: Int[Tensor, "T b"]) -> Self:
        """The bound losses, for a minibatch."""
        some = {name: images(self._bound[name].mT, index).mT for name in LABEL_TERMINALS}
        weight = chosen_weights(self.weight, index)
        return replace(self, seen={**self._bound, **some}, weight=weight)

    @property
    def reads_clock(self) -> bool:
        """Whether the formula depends on how far the training is."""
        return self.formula.reads_clock

    def terms(self, logits: Float[Tensor, "P T B C"]) -> Float[Tensor, "P T B C"]:
        """One term per class; those of a mean over classes are divided by their number."""
        _, shift = self._moves(logits.mT)
        logp = shift.log_softmax(-2)
        terms = self._run(named_program(self.formula.expression), logp)
        return (terms / self._classes_shared(logits)).mT

    def __call__(self, logits: Float[Tensor, "P T B C"]) -> Float[Tensor, "P T"]:
        """Each classifier's value: its terms summed, then averaged over the batch."""
        return mean_over_images(self.terms(logits).sum(-1), self.weight)

    def logit_gradient(self, logits: Float[Tensor, "P T B C"]) -> Float[Tensor, "P T B C"]:
        """The gradient of each value with respect to its logits."""
        scale, moved = self._moves(logits.mT)
        logp = moved.log_softmax(-2)
        program = named_gradient_program(self.formula.expression)
        G = self._run(program, logp) * program.sign  # [P T C B]
        # The way through log-softmax: ∂L/∂z = G - p ΣG, with G = ∂L/∂logp.
        gradient = (G - logp.exp() * G.sum(-2, keepdim=True)) * scale
        gradient = gradient / (logits.shape[2] * self._classes_shared(logits))
        return weigh_images(gradient.mT, self.weight)

    def _moves(self, z: Float[Tensor, "P T C B"]) -> tuple[Tensor, Float[Tensor, "P T C B"]]:
        """What the logits are multiplied by, and scale · z / temperature + shift."""
        scale, shift = (
            self._run(named_program(e), torch.zeros_like(z))
            for e in (self.formula.scale, self.formula.shift)
        )
        scale = scale / self.formula.temperature
        return scale, z * scale + shift

    def _run(self, program: Program, logp: Float[Tensor, "P T C B"]) -> Float[Tensor, "P T C B"]:
        """What a program gives at log-probabilities."""
        seen = self._bound
        t, logn = self.clock.to(logp)
        numbers = {name: x.to(logp)[:, None, None, None] for name, x in self.numbers.items()}
        read = {e.head for e in program.inputs}
        known = {
            name: x for name, x in {**seen, **numbers, "t": t, "logn": logn}.items() if name in read
        }
        return evaluate(program, seen["y"], logp.exp(), logp, logp.shape[-2], known)

    def _classes_shared(self, logits: Float[Tensor, "P T B C"]) -> int:
        """What the sum over the classes is divided by."""
        return logits.shape[-1] if self.formula.reduction == "mean" else 1

    @property
    def _bound(self) -> Mapping[str, Tensor]:
        assert self.seen is not None, "bind the targets first"
        return self.seen
