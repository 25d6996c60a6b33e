"""What the losses that are no formulas share: one form, and P rows of its parameters."""

from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, Generic, Self, TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from metaloss.losses.base import TrainingTargets, chosen_weights, images
from metaloss.losses.batch_formulas import BatchLoss
from metaloss.losses.image_formulas import ImageLoss

LossForm = BatchLoss | ImageLoss
Form = TypeVar("Form", bound=LossForm)


@dataclass(frozen=True)
class ParametrisedLosses(Generic[Form]):
    """P losses of one form, each with its own parameters.

    Attributes:
        form: the loss, whose numbers `parameters` replaces.
        parameters: its numbers, those that are no True or False, in the order of its fields.
        target: what `bind` keeps, class by class in memory.
        weight: of the images.
    """

    form: Form
    parameters: Float[Tensor, "P K"]
    target: Float[Tensor, "T B C"] | None = None
    weight: Float[Tensor, "T B"] | None = None

    tasks_per_call: ClassVar[int] = 1

    @classmethod
    def of(cls, form: Form, n: int = 1) -> Self:
        """The same loss n times."""
        numbers = [getattr(form, name) for name in _number_names(form)]
        return cls(form, torch.tensor(numbers, dtype=torch.float64).expand(n, -1))

    def __len__(self) -> int:
        return len(self.parameters)

    def __getitem__(self, rows: slice | Tensor) -> Self:
        return replace(self, parameters=self.parameters[rows])

    def bind(self, targets: TrainingTargets) -> Self:
        """Keep the labels and the images' weights."""
        target = targets.target.mT.contiguous().mT
        parameters = self.parameters.to(target)
        return replace(self, parameters=parameters, target=target, weight=targets.weight)

    def minibatch(self, index: Int[Tensor, "T b"]) -> Self:
        """The bound losses, for a minibatch; a class may have no image in it."""
        return replace(
            self, target=images(self._y, index), weight=chosen_weights(self.weight, index)
        )

    def row(self, number: int) -> Form:
        """One of the losses, its parameters as numbers."""
        return self._with_numbers(self.parameters[number].tolist())

    @property
    def _y(self) -> Float[Tensor, "T B C"]:
        assert self.target is not None, "bind the targets first"
        return self.target

    def _loss(self, like: Tensor) -> Form:
        """The loss with P numbers [P 1 1 1] for each parameter."""
        return self._with_numbers(self.parameters.to(like)[..., None, None, None].unbind(1))

    def _with_numbers(self, numbers: Any) -> Form:
        values = dict(zip(_number_names(self.form), numbers, strict=True))
        return replace(self.form, **values)


def _number_names(form: LossForm) -> list[str]:
    names = [field.name for field in fields(form)]
    return [name for name in names if not isinstance(getattr(form, name), bool)]
