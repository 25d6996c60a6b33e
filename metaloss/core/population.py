"""A population is data: a frozen dataclass of tensors whose fields all lead with axis P."""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Self

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True)
class Population:
    """P candidates; every field is a tensor [P, ...].

    So rows can be taken and joined whatever a candidate is made of.
    """

    def _each(self, f: Callable[[str, Tensor], Tensor]) -> Self:
        return replace(self, **{x.name: f(x.name, getattr(self, x.name)) for x in fields(self)})

    def __len__(self) -> int:
        # Any field tells: all of them lead with axis P.
        return len(getattr(self, fields(self)[0].name))

    def __getitem__(self, rows: Tensor | slice) -> Self:
        """The rows an index tensor, a mask or a slice names."""
        return self._each(lambda _, x: x[rows])

    def cat(self, other: Self) -> Self:
        """These rows, then the other's."""
        return self._each(lambda name, x: torch.cat([x, getattr(other, name)]))

    def to(self, device: torch.device | str) -> Self:
        """The same rows on a device."""
        return self._each(lambda _, x: x.to(device))

    @property
    def genes(self) -> int:
        """How many step sizes a candidate has: one, or one for each number of a real vector."""
        return 1

    @property
    def sizes(self) -> Int[Tensor, " P"]:
        """The size of each candidate, for strategies that prefer small ones: 1 by default."""
        return torch.ones(len(self), dtype=torch.int64)

    def mean_candidate(self) -> Self:
        """One candidate that represents all: the mean where candidates have one, else the first.

        By convention, the first is the fittest.
        """
        return self[:1]

    def vectors(self) -> Float[Tensor, "P D"]:
        """The candidates as real vectors.

        Raises:
            ValueError: where the representation has none.
        """
        raise ValueError(
            f"{type(self).__name__} is not made of real vectors; use a strategy that needs none"
        )

    def from_vectors(self, vectors: Float[Tensor, "P D"]) -> Self:
        """A population of the same kind made of these vectors.

        Raises:
            ValueError: where the representation has none.
        """
        raise ValueError(
            f"{type(self).__name__} cannot be made from real vectors; "
            "use a strategy that needs none"
        )


@dataclass(frozen=True)
class Vectors(Population):
    """Candidates that are real vectors."""

    values: Float[Tensor, "P D"]

    @property
    def genes(self) -> int:
        """One step size per number."""
        return self.values.shape[1]

    def mean_candidate(self) -> Self:
        """The mean vector."""
        return self.from_vectors(self.values.mean(0, keepdim=True))

    def vectors(self) -> Float[Tensor, "P D"]:
        """The candidates as real vectors."""
        return self.values

    def from_vectors(self, vectors: Float[Tensor, "P D"]) -> Self:
        """A population made of these vectors."""
        return replace(self, values=vectors)
