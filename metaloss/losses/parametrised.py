"""What the losses that are no formulas share: one form, and P rows of its parameters."""

from dataclasses import dataclass, fields, replace
from typing import Any, Generic, Self, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

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
    """

    form: Form
    parameters: Float[Tensor, "P K"]

    @classmethod
    def of(cls, form: Form, n: int = 1) -> Self:
        """The same loss n times."""
        numbers = [getattr(form, name) for name in _number_names(form)]
        return cls(form, torch.tensor(numbers, dtype=torch.float64).expand(n, -1))

    def __len__(self) -> int:
        return len(self.parameters)

    def __getitem__(self, rows: slice | Tensor) -> Self:
        return replace(self, parameters=self.parameters[rows])

    def row(self, number: int) -> Form:
        """One of the losses, its parameters as numbers."""
        return self._with_numbers(self.parameters[number].tolist())

    def _loss(self, like: Tensor) -> Form:
        """The loss with P numbers [P 1 1 1] for each parameter."""
        return self._with_numbers(self.parameters.to(like)[..., None, None, None].unbind(1))

    def _with_numbers(self, numbers: Any) -> Form:
        values = dict(zip(_number_names(self.form), numbers, strict=True))
        return replace(self.form, **values)


def _number_names(form: LossForm) -> list[str]:
    names = [field.name for field in fields(form)]
    return [name for name in names if not isinstance(getattr(form, name), bool)]
